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
		    ph_desc_raw(h, chunk) != 0)
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
static inline void undo_push(pheap_tx *tx, uint64_t off, size_t n)
{
	const char *old = tx->h->map + off;
	char *payload = tx->log.next + sizeof(struct phd_record);

	if (__builtin_constant_p(n))
		memcpy(payload, old, n);
	else
		ph_copy(payload, old, n);
	ph_log_push(&tx->log, tx->lane, PHD_REC_TARGET(PHD_REC_UNDO, off), n);
}

static int undo_append(pheap_tx *tx, uint64_t off, size_t n)
{
	if (n > (size_t)1 << 20 || ph_log_units(n) * 8 > (uint64_t)(tx->log.limit - tx->log.next))
		return undo_pieces(tx, off, n);
	undo_push(tx, off, n);
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
	if (tx->log.end * 8 + n + tx->fresh > ph_wal_record_max(h))
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

/* The common case with a WAL: within a line of a page that is leased. Else modify_long. */
static __attribute__((noinline)) void *modify_leased(pheap_tx *tx, const void *p, size_t n)
{
	uint64_t off = (uint64_t)((uintptr_t)p - (uintptr_t)tx->base), epoch, lease;
	const struct pheap *h = tx->h;

	/* The old value and the lease word miss the cache together. */
	__builtin_prefetch(p, 1);

	if (__builtin_expect(
		    tx->modify_long != PH_LONG_LEASED || n - 1 > 63 - off % 64 || off < h->data_off ||
			    off >= __atomic_load_n(&h->data_end, __ATOMIC_RELAXED) || tx->log.count != 1 ||
			    tx->log.next + sizeof(struct phd_record) + 64 > tx->log.limit,
		    0))
		return modify_long(tx, p, n);
	epoch = __atomic_load_n(&h->coord->epoch, __ATOMIC_ACQUIRE);
	lease = __atomic_load_n(&h->leases[(off - h->data_off) >> PHD_CHUNK_SHIFT].page, __ATOMIC_ACQUIRE);
	if (__builtin_expect(epoch & 1 || lease <= epoch || lease > ph_wal_durable(h), 0))
		return modify_long(tx, p, n);
	if (ph_cover_line(&tx->cover, off, n))
		return (void *)(uintptr_t)p;
	if (n == 8)
		undo_push(tx, off, 8);
	else if (n == 64)
		undo_push(tx, off, 64);
	else
		undo_push(tx, off, n);
	/* As in undo_leased. */
	if (__builtin_expect(h->fenced, 0))
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		ph_order();
	if (__builtin_expect(__atomic_load_n(&h->coord->epoch, __ATOMIC_ACQUIRE) == epoch, 1) ||
	    PH_MUTANT(PH_MUTANT_EPOCH_ONCE))
		return (void *)(uintptr_t)p;
	ph_cover_clear(&tx->cover);
	return modify_long(tx, p, n);
}

/* Within one line, but of a length that is worth no code of its own. */
static __attribute__((noinline)) void *modify_line(pheap_tx *tx, const void *p, size_t n)
{
	uint64_t off = (uint64_t)((uintptr_t)p - (uintptr_t)tx->base);

	if (!ph_cover_line(&tx->cover, off, n))
		undo_push(tx, off, n);
	return (void *)(uintptr_t)p;
}

static __attribute__((noinline)) void *modify_refuse(pheap_tx *tx)
{
	ph_tx_refuse(tx, "pheap_modify");
	return NULL;
}

void *pheap_modify(pheap_tx *tx, const void *p, size_t n)
{
	uint64_t off;

	if (__builtin_expect(!tx || tx->writable_by != &ph_thread, 0))
		return modify_refuse(tx);
	off = (uint64_t)((uintptr_t)p - (uintptr_t)tx->base);
	/* Within one line of the heap (n = 0 wraps to a large number), nothing special pending, room for
	 * any such record. */
	if (__builtin_expect(n - 1 > 63 - off % 64 || tx->modify_long || off < tx->h->data_off ||
				     off >= __atomic_load_n(&tx->h->data_end, __ATOMIC_RELAXED) ||
				     tx->log.next + sizeof(struct phd_record) + 64 > tx->log.limit,
			     0))
		return modify_leased(tx, p, n);
	if (n == 8) {
		if (!ph_cover_line(&tx->cover, off, 8))
			undo_push(tx, off, 8);
	} else if (n == 64) {
		if (!ph_cover_line(&tx->cover, off, 64))
			undo_push(tx, off, 64);
	} else {
		return modify_line(tx, p, n);
	}
	/* ORDER(used-store): `used` is past the record before the caller can store. Crash between: the old
	 * bytes are put back over themselves. Pairs with
	 * log.c:ph_log_undo. */
	return (void *)(uintptr_t)p;
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
