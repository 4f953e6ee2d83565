/* SPDX-License-Identifier: MIT
 *
 * memory.c: changing memory in place: the undo side of a transaction.
 *
 * Invariant
 *   U1  When pheap_modify returns, every byte of the range has its old value in the log, or was free space
 *       when the transaction (or its latest savepoint) began.
 */
#include <errno.h>

#include "defer.h"
#include "error.h"
#include "lease.h"
#include "mutant.h"
#include "tx.h"
#include "word.h"

/* Chunks that were free when the transaction began and that it claimed: whatever is stored there needs no
 * undo. */
static bool range_fresh(const pheap_tx *tx, uint64_t off, size_t n)
{
	const struct pheap *h = tx->h;
	uint64_t first = ph_chunk_of(h, off), last = ph_chunk_of(h, off + n - 1);

	/* The heap head is not in a chunk. */
	if (tx->savepoint_count || tx->ops.desc_count == 0 || off < h->data_off)
		return false;
	for (uint64_t chunk = first; chunk <= last; chunk++)
		if ((__atomic_load_n(&h->words[chunk].owner, __ATOMIC_RELAXED) & ~PHD_WORD_FLAGS) !=
			    tx->word ||
		    !PHD_DESC_IS_FREE(ph_desc_raw(h, chunk)))
			return false;
	return true;
}

static __attribute__((noinline)) int undo_pieces(pheap_tx *tx, uint64_t off, size_t n)
{
	while (n) {
		size_t step = ph_log_fits(&tx->log);

		if (step < 64 && step < n) {
			int rc = ph_log_extend(tx, n < 65536 ? n : 65536);

			if (rc)
				return rc;
			step = ph_log_fits(&tx->log);
		}
		if (step > n)
			step = n;
		if (step > UINT32_MAX / 2)
			step = UINT32_MAX / 2 & ~7u;
		ph_copy(tx->log.next + sizeof(struct phd_record), tx->h->map + off, step);
		ph_log_push(&tx->log, tx->lane, PHD_REC_TARGET(PHD_REC_UNDO, off), step);
		off += step;
		n -= step;
	}
	return 0;
}

/* The caller saw that the record fits. */
static inline __attribute__((always_inline)) void undo_push(pheap_tx *tx, uint64_t off, const void *old,
							    size_t n)
{
	(void)ph_log_add(&tx->log, tx->lane, PHD_REC_TARGET(PHD_REC_UNDO, off), old, true, n);
}

static int undo_append(pheap_tx *tx, uint64_t off, size_t n)
{
	if (n > (size_t)1 << 20 || ph_log_units(n) * 8 > (uint64_t)(tx->log.limit - tx->log.next))
		return undo_pieces(tx, off, n);
	undo_push(tx, off, tx->h->map + off, n);
	return 0;
}

static int undo_lines(pheap_tx *tx, uint64_t off, size_t n)
{
	int rc;

	if (ph_cover_lines(&tx->cover, off, n))
		return 0;
	if (tx->modify_long && (ph_cover_in_range(&tx->cover, off, n) || range_fresh(tx, off, n)))
		return 0;
	rc = undo_append(tx, off, n);
	if (rc)
		ph_cover_clear(&tx->cover); /* C1 */
	return rc;
}

static int undo_log(pheap_tx *tx, uint64_t off, size_t n)
{
	int rc;

	if (n <= PH_COVER_SMALL)
		return undo_lines(tx, off, n);
	if (ph_cover_in_range(&tx->cover, off, n) || range_fresh(tx, off, n))
		return 0;
	rc = undo_append(tx, off, n);
	if (rc == 0) {
		ph_cover_add_range(&tx->cover, off, n);
		tx->modify_long = tx->extras = 1;
	}
	return rc;
}

static bool is_covered(const pheap_tx *tx, uint64_t off, size_t n)
{
	return (n <= PH_COVER_SMALL && ph_cover_has_lines(&tx->cover, off, n)) ||
	       ph_cover_in_range(&tx->cover, off, n) || range_fresh(tx, off, n);
}

/* With a WAL: a lease of the pages, the undo record, and another look at the epoch. If it is still the same, the record is
 * seen by whoever switches; if not, the lease is none. */
static int undo_leased(pheap_tx *tx, uint64_t off, size_t n)
{
	struct pheap *h = tx->h;
	uint64_t epoch, last = (off + n - 1) & ~(uint64_t)(PHD_BLOCK_SIZE - 1);
	int rc = 0;

	if (is_covered(tx, off, n))
		return 0;
	if (ph_log_end(&tx->log) * 8 + n + tx->fresh > ph_wal_record_max(h))
		return ph_error(
			h, -E2BIG,
			"the transaction changes more than the journal can hold (%zu bytes, a quarter of it); "
			"split it, or create the heap with a larger journal_size",
			ph_wal_record_max(h));
	if (off < last || !ph_lease_has(h, off, &epoch))
		rc = ph_lease_range(h, tx->word, off, n, &epoch);
	if (rc == 0)
		rc = undo_log(tx, off, n);
	/* Pairs with checkpoint.c:switch_locked. */
	if (h->fenced)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		ph_order();
	while (rc == 0 && __builtin_expect(__atomic_load_n(&h->coord->epoch, __ATOMIC_ACQUIRE) != epoch, 0) &&
	       !PH_MUTANT(PH_MUTANT_EPOCH_ONCE))
		rc = ph_lease_range(h, tx->word, off, n, &epoch);
	if (rc)
		ph_cover_clear(&tx->cover); /* C1 */
	return rc;
}

int ph_tx_undo(pheap_tx *tx, uint64_t off, size_t n)
{
	return tx->h->leased ? undo_leased(tx, off, n) : undo_log(tx, off, n);
}

static __attribute__((noinline)) void *modify_long(pheap_tx *tx, const void *p, size_t n)
{
	uint64_t off = (uint64_t)((uintptr_t)p - (uintptr_t)tx->base);
	int rc = 0;

	if (!ph_heap_has(tx->h, off, n)) {
		if (p)
			ph_tx_fail(tx, PHEAP_EFOREIGN, "pheap_modify: %zu bytes at %p are not in this heap",
				   n, p);
		return NULL;
	}
	if (n == 0)
		return (void *)(uintptr_t)p;
	if (tx->has_defers)
		rc = ph_defer_settle(tx, off, n);
	if (rc == 0)
		rc = ph_tx_undo(tx, off, n);
	if (rc) {
		ph_tx_fail(tx, rc, NULL);
		return NULL;
	}
	return (void *)(uintptr_t)p;
}

/* Within one line of the heap (n = 0 wraps to a large number), and room for any such record. */
static inline __attribute__((always_inline)) bool is_short(const pheap_tx *tx, uint64_t off, size_t n)
{
	return __builtin_expect(n - 1 <= 63 - off % 64 && off >= tx->h->data_off &&
					off < __atomic_load_n(&tx->h->data_end, __ATOMIC_RELAXED) &&
					tx->log.next + sizeof(struct phd_record) + 64 <= tx->log.limit,
				1);
}

/* n: a constant where it pays. */
static inline __attribute__((always_inline)) void *modify_line(pheap_tx *tx, uint64_t off, const void *p,
							       size_t n)
{
	if (!ph_cover_line(&tx->cover, off, n))
		undo_push(tx, off, p, n);
	/* ORDER(used-store): `used` is past the record before the caller can store. Crash between: the old
	 * bytes are put back over themselves. Pairs with
	 * log.c:ph_log_undo. */
	return (void *)(uintptr_t)p;
}

static __attribute__((noinline)) void *modify_line_any(pheap_tx *tx, uint64_t off, const void *p, size_t n)
{
	return modify_line(tx, off, p, n);
}

/* Another epoch has begun, or begins: the lease was none. */
static __attribute__((noinline)) void *modify_again(pheap_tx *tx, const void *p, size_t n)
{
	ph_cover_clear(&tx->cover); /* C1 */
	return modify_long(tx, p, n);
}

/* As modify_line, with a WAL; who fences does not come here. Without calls on the way, so that no register is saved: while a line
 * comes from memory the processor looks ahead by a number of instructions, and what is saved here is the start of the next
 * transaction. */
static inline __attribute__((always_inline)) void *modify_line_leased(pheap_tx *tx, uint64_t off,
								      const void *p, size_t n)
{
	const struct pheap *h = tx->h;
	const struct phd_coord *c = tx->coord;
	uint64_t epoch = __atomic_load_n(&c->epoch, __ATOMIC_ACQUIRE), lease;

	lease = __atomic_load_n(ph_lease_data(h, off), __ATOMIC_ACQUIRE);
	if (__builtin_expect(lease <= epoch || lease > __atomic_load_n(&c->durable, __ATOMIC_ACQUIRE), 0))
		return modify_long(tx, p, n);
	if (ph_cover_line(&tx->cover, off, n))
		return (void *)(uintptr_t)p;
	undo_push(tx, off, p, n);
	/* As in undo_leased; an odd epoch is never the lease's. */
	if (__builtin_expect(__atomic_load_n(&c->epoch, __ATOMIC_ACQUIRE) ==
				     (PH_MUTANT(PH_MUTANT_EPOCH_ODD) ? epoch : epoch & ~1ull),
			     1) ||
	    PH_MUTANT(PH_MUTANT_EPOCH_ONCE))
		return (void *)(uintptr_t)p;
	return modify_again(tx, p, n);
}

/* The caller saw that it is short, and that the way is long. */
static inline __attribute__((always_inline)) void *modify_other(pheap_tx *tx, uint64_t off, const void *p,
								size_t n)
{
	if (__builtin_expect(tx->modify_long & 1, 0))
		return modify_long(tx, p, n);
	return modify_line_leased(tx, off, p, n);
}

static __attribute__((noinline)) void *modify_other_8(pheap_tx *tx, uint64_t off, const void *p)
{
	return modify_other(tx, off, p, 8);
}

static __attribute__((noinline)) void *modify_other_64(pheap_tx *tx, uint64_t off, const void *p)
{
	return modify_other(tx, off, p, 64);
}

static __attribute__((noinline)) void *modify_other_any(pheap_tx *tx, uint64_t off, const void *p, size_t n)
{
	return modify_other(tx, off, p, n);
}

static __attribute__((noinline)) void *modify_refuse(pheap_tx *tx)
{
	ph_tx_refuse(tx, "pheap_modify");
	return NULL;
}

void *pheap_modify(pheap_tx *tx, const void *p, size_t n)
{
	uint64_t off;

	/* First: a line that is not in the cache takes longer than all that follows. */
	__builtin_prefetch(p, 1);
	if (__builtin_expect(!tx || tx->writable_by != &ph_thread, 0))
		return modify_refuse(tx);
	off = (uint64_t)((uintptr_t)p - (uintptr_t)tx->base);
	if (!is_short(tx, off, n))
		return modify_long(tx, p, n);
	if (n == 8)
		return tx->modify_long ? modify_other_8(tx, off, p) : modify_line(tx, off, p, 8);
	if (n == 64)
		return tx->modify_long ? modify_other_64(tx, off, p) : modify_line(tx, off, p, 64);
	return tx->modify_long ? modify_other_any(tx, off, p, n) : modify_line_any(tx, off, p, n);
}

int pheap_store(pheap_tx *tx, const void *dst, const void *src, size_t n)
{
	void *p;

	if (tx && tx->writable_by == &ph_thread && (!dst || (!src && n)))
		return ph_tx_fail(tx, -EINVAL, "pheap_store: from or to NULL");
	if (n == 0)
		return ph_tx_enter(tx, "pheap_store");
	p = pheap_modify(tx, dst, n);
	if (!p)
		return ph_tx_refuse(tx, "pheap_store");
	if (n == 8 && ((uintptr_t)p & 7) == 0) {
		uint64_t word;

		/* One store, so that a reader without locks never sees half a word. */
		memcpy(&word, src, 8);
		__atomic_store_n((uint64_t *)p, word, __ATOMIC_RELAXED);
	} else if (n) {
		memmove(p, src, n);
	}
	return 0;
}
