/* SPDX-License-Identifier: MIT
 *
 * wal.c: see wal.h.
 */
#include "wal.h"

#include <errno.h>
#include <stdlib.h>

#include "copy.h"
#include "crc32c.h"
#include "error.h"
#include "member.h"
#include "mutant.h"
#include "os.h"
#include "word.h"

#define NAP_NS 2000000ull /* of those who wait for a flush: then they ask whether its leader lives */
#define BESIDE_AFTER_NS 100000000ull /* a flush that takes longer is done again by somebody else */
#define JOIN_AFTER_NS 5000000ull     /* and one that everybody waits for */
#define WAKE_ALL 0x7fffffff
#define PATIENCE_MAX 64u /* yields */
#define PATIENCE_TRY 64u /* flushes after which a leader that had lost it is patient again */
#define CRC_HEADER offsetof(struct phd_wal, crc) /* bytes of it that the checksum covers */

/* ---- records ---- */

static bool buf_room(struct ph_wal_buf *b, size_t need)
{
	size_t next = b->room ? b->room : 1024;
	char *grown;

	if (need <= b->room)
		return true;
	while (next < need)
		next *= 2;
	grown = realloc(b->bytes, next);
	if (!grown)
		return false;
	b->bytes = grown;
	b->room = next;
	return true;
}

int ph_wal_start(struct ph_wal_buf *b)
{
	if (!buf_room(b, sizeof(struct phd_wal)))
		return -ENOMEM;
	b->size = sizeof(struct phd_wal);
	return 0;
}

char *ph_wal_entry(struct ph_wal_buf *b, uint64_t target, size_t n)
{
	size_t padded = (n + 7) & ~(size_t)7;
	struct phd_record r = {.target = target, .size = (uint32_t)n};
	char *at;

	if (!buf_room(b, b->size + sizeof(r) + padded))
		return NULL;
	at = b->bytes + b->size;
	memcpy(at, &r, sizeof(r));
	memset(at + sizeof(r) + n, 0, padded - n);
	b->size += sizeof(r) + padded;
	return at + sizeof(r);
}

void ph_wal_seal(struct ph_wal_buf *b, uint32_t kind)
{
	struct phd_wal *w = (struct phd_wal *)(void *)b->bytes;

	*w = (struct phd_wal){.size = (uint32_t)b->size, .kind = kind};
	w->crc = ph_crc32c(0, b->bytes + sizeof(*w), b->size - sizeof(*w));
}

void ph_wal_free(struct ph_wal_buf *b)
{
	free(b->bytes);
	*b = (struct ph_wal_buf){0};
}

size_t ph_wal_record_max(const struct pheap *h)
{
	uint64_t max = h->super.wal_size / 4;

	return max < UINT32_MAX / 2 ? (size_t)max : UINT32_MAX / 2 & ~7u;
}

/* ---- appending ---- */

static int poison_error(const struct pheap *h, uint64_t poison)
{
	return ph_error(
		h, PHEAP_EPOISONED,
		"writing the heap to its file failed (%s): nothing more is changed; close it everywhere, and "
		"open it again",
		poison < 4096 ? pheap_strerror(-(int)poison) : "recovery of a dead process");
}

int ph_wal_poisoned(const struct pheap *h)
{
	uint64_t poison = __atomic_load_n(&h->coord->poison, __ATOMIC_ACQUIRE);

	return poison ? poison_error(h, poison) : 0;
}

int ph_wal_poison(struct pheap *h, int rc)
{
	uint64_t none = 0;

	if (PH_MUTANT(PH_MUTANT_POISON_NONE))
		return poison_error(h, (uint64_t)-rc);
	/* ORDER(poison-first): before anybody is told of the error. Crash between: nobody was. Pairs with
	 * ph_wal_poisoned. */
	(void)__atomic_compare_exchange_n(&h->coord->poison, &none, (uint64_t)-rc, false, __ATOMIC_ACQ_REL,
					  __ATOMIC_RELAXED);
	return ph_wal_poisoned(h);
}

void ph_wal_unlock(struct pheap *h, uint64_t word)
{
	ph_word_release(&h->coord->append, word ? word : ph_wal_member_word(h));
	if (!word)
		pthread_mutex_unlock(&h->append_lock);
}

bool ph_wal_fits(const struct pheap *h, size_t size, bool is_switch)
{
	const struct phd_coord *c = h->coord;
	uint64_t room = is_switch ? h->super.wal_size : h->super.wal_size / 4 * 3;
	uint64_t used = ph_wal_tail(h) - __atomic_load_n(&c->replay_lsn, __ATOMIC_ACQUIRE);

	return used <= room && size + PHD_SECTOR_SIZE + sizeof(struct phd_wal) <= room - used;
}

static void ring_copy(struct pheap *h, uint64_t lsn, const char *src, size_t n)
{
	uint64_t at = lsn % h->super.wal_size, left = h->super.wal_size - at;
	size_t first = n < left ? n : (size_t)left;

	ph_copy(h->ring + at, src, first);
	if (first < n)
		ph_copy(h->ring, src + first, n - first);
}

uint64_t ph_wal_put(struct pheap *h, const struct ph_wal_buf *b)
{
	struct phd_coord *c = h->coord;
	struct phd_wal w;
	uint64_t lsn = c->tail, end;

	memcpy(&w, b->bytes, sizeof(w));
	w.lsn = lsn;
	w.log_gen = c->log_gen;
	w.crc = ph_crc32c(w.crc, &w, CRC_HEADER);
	end = lsn + w.size;
	ring_copy(h, lsn, (const char *)&w, sizeof(w));
	ring_copy(h, lsn + sizeof(w), b->bytes + sizeof(w), b->size - sizeof(w));
	if (w.kind == PHD_WAL_COMMIT) {
		__atomic_store_n(&c->commit_count, c->commit_count + 1, __ATOMIC_RELAXED);
		c->commit_bytes += w.size;
	} else if (w.kind != PHD_WAL_PAD) {
		c->image_bytes += w.size;
	}
	/* ORDER(wal-commit): the whole record, and whatever it relies on, before tail passes it. Crash between: the lane
	 * is found appending, and undone. Pairs with recovery.c:lane_recover. */
	__atomic_store_n(&c->tail, end, __ATOMIC_RELEASE);
	return end;
}

/* L4. Under append. */
void ph_wal_pad(struct pheap *h)
{
	static const char zeros[2ul * PHD_SECTOR_SIZE];
	struct phd_wal w = {.kind = PHD_WAL_PAD};
	struct ph_wal_buf b = {0};
	char bytes[sizeof(w) + 2ul * PHD_SECTOR_SIZE];
	size_t over = h->coord->tail % PHD_SECTOR_SIZE, size = PHD_SECTOR_SIZE - over;

	if (over == 0 || PH_MUTANT(PH_MUTANT_PAD_NONE))
		return;
	if (size < sizeof(w))
		size += PHD_SECTOR_SIZE;
	w.size = (uint32_t)size;
	w.crc = ph_crc32c(0, zeros, size - sizeof(w));
	memset(bytes, 0, sizeof(bytes));
	memcpy(bytes, &w, sizeof(w));
	b.bytes = bytes;
	b.size = size;
	(void)ph_wal_put(h, &b);
}

int ph_wal_epoch(struct pheap *h, uint64_t word, uint64_t *ret)
{
	int rc;

	for (;;) {
		*ret = __atomic_load_n(&h->coord->epoch, __ATOMIC_ACQUIRE);
		if (__builtin_expect(!(*ret & 1), 1))
			return 0;
		/* Who switches has the word; when it is free, it has ended or died (L5). */
		rc = ph_wal_lock(h, word);
		if (rc < 0)
			return rc;
		ph_wal_unlock(h, word);
	}
}

/* ---- flushing ---- */

static int ring_write(const struct pheap *h, uint64_t from, uint64_t to)
{
	int rc = 0;

	while (from < to && rc == 0) {
		uint64_t at = from % h->super.wal_size, n = to - from;

		if (n > h->super.wal_size - at)
			n = h->super.wal_size - at;
		rc = ph_os->file_write_sync(h->fd, h->ring + at, (size_t)n, h->super.wal_off + at);
		from += n;
	}
	return rc;
}

/* Who sleeps is woken by the end of the flush that covers it, and by no other; one more, who leads the next. */
static void turn_begin(struct phd_coord *c, uint64_t to)
{
	__atomic_store_n(&c->flush_turn, c->flush_turn + 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->flush_target, to, __ATOMIC_SEQ_CST);
}

/* L1. Publishes; wakes nobody. */
static int flush_to(struct pheap *h, uint64_t to)
{
	struct phd_coord *c = h->coord;
	uint64_t seen = ph_wal_durable(h), start_ns = ph_os->clock_ns(), end_ns;
	int rc = ph_wal_poisoned(h);

	if (rc || seen >= to)
		return rc;
	__atomic_store_n(&c->flush_start_ns, start_ns, __ATOMIC_RELAXED);
	turn_begin(c, to);
	rc = ph_heap_fd_check(h);
	if (rc == 0)
		rc = ring_write(h, seen, to);
	if (rc)
		return ph_wal_poison(h, rc);
	end_ns = ph_os->clock_ns();
	__atomic_fetch_add(&c->flush_count, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&c->flush_bytes, to - seen, __ATOMIC_RELAXED);
	__atomic_fetch_add(&c->flush_ns, end_ns - start_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&c->flush_end_ns, end_ns, __ATOMIC_RELAXED);
	/* ORDER(wal-ack), ORDER(image-durable): on the disk before `durable` says so. A cut between: the records are there,
	 * and nobody has relied on them. Pairs with ph_wal_wait. */
	while (seen < to && !__atomic_compare_exchange_n(&c->durable, &seen, to, false, __ATOMIC_ACQ_REL,
							 __ATOMIC_ACQUIRE))
		;
	return 0;
}

static const uint32_t *flush_end(const struct phd_coord *c, uint64_t turn)
{
	return (const uint32_t *)(const void *)&c->flush_ends[turn & 1];
}

static void flush_wake(struct pheap *h)
{
	struct phd_coord *c = h->coord;
	uint64_t turn = __atomic_load_n(&c->flush_turn, __ATOMIC_SEQ_CST);

	__atomic_fetch_add(&c->flush_ends[0], 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&c->flush_ends[1], 1, __ATOMIC_SEQ_CST);
	ph_os->futex_wake(flush_end(c, turn + 1), 1);
	ph_os->futex_wake(flush_end(c, turn), WAKE_ALL);
}

int ph_wal_switch_end(struct pheap *h, uint64_t epoch, uint64_t switch_lsn, uint64_t to)
{
	/* ORDER(switch-durable): the copies on the disk before the epoch, in which their pages need no image, begins. A cut
	 * between: the old epoch's images restore. Pairs with power.c. */
	int rc = PH_MUTANT(PH_MUTANT_SWITCH_LATE) ? 0 : flush_to(h, to);

	/* Whoever is first; a switch whose record is in the log ends in no other way. */
	(void)__atomic_compare_exchange_n(&h->coord->epoch, &epoch, rc ? epoch & ~1ull : switch_lsn, false,
					  __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	flush_wake(h);
	return rc;
}

/* Is somebody at a flush that reaches so far, and since when not too long? */
static bool is_under_way(const struct phd_coord *c, uint64_t to)
{
	uint64_t start_ns = __atomic_load_n(&c->flush_start_ns, __ATOMIC_RELAXED);

	return __atomic_load_n(&c->flush_target, __ATOMIC_SEQ_CST) >= to &&
	       __atomic_load_n(&c->flush_end_ns, __ATOMIC_RELAXED) < start_ns &&
	       ph_os->clock_ns() - start_ns < JOIN_AFTER_NS;
}

static int lock_take(struct pheap *h, uint64_t word)
{
	int rc;

	if (!word)
		pthread_mutex_lock(&h->append_lock);
	rc = ph_word_take(h, &h->coord->append, word ? word : ph_wal_member_word(h), "the log");
	if (rc < 0 && !word)
		pthread_mutex_unlock(&h->append_lock);
	return rc < 0 ? rc : 0;
}

/* L5. Under append, which is given back: one that is stopped in the flush stops nobody. */
static void switch_help(struct pheap *h, uint64_t word, uint64_t epoch)
{
	struct phd_coord *c = h->coord;
	uint64_t switch_lsn = c->switch_lsn, to;

	ph_wal_pad(h);
	to = c->tail;
	ph_wal_unlock(h, word);
	if (PH_MUTANT(PH_MUTANT_HELP_BARE)) {
		__atomic_store_n(&c->epoch, switch_lsn, __ATOMIC_SEQ_CST);
		return;
	}
	while (ph_wal_durable(h) < to && is_under_way(c, to)) {
		const uint32_t *end = flush_end(c, __atomic_load_n(&c->flush_turn, __ATOMIC_SEQ_CST));
		uint32_t seen = __atomic_load_n(end, __ATOMIC_SEQ_CST);

		if (is_under_way(c, to))
			(void)ph_os->futex_wait(end, seen, NAP_NS);
	}
	(void)ph_wal_switch_end(h, epoch, switch_lsn, to);
}

int ph_wal_lock(struct pheap *h, uint64_t word)
{
	struct phd_coord *c = h->coord;
	int rc;

	while ((rc = lock_take(h, word)) == 0) {
		uint64_t epoch = __atomic_load_n(&c->epoch, __ATOMIC_ACQUIRE);

		if (__builtin_expect(!(epoch & 1), 1))
			break;
		if (__atomic_load_n(&c->switch_lsn, __ATOMIC_ACQUIRE) >= c->tail) {
			/* Who set the bit died before its record was in the log. */
			__atomic_store_n(&c->epoch, epoch & ~1ull, __ATOMIC_RELEASE);
			break;
		}
		switch_help(h, word, epoch);
	}
	return rc;
}

/* Those who were just acknowledged come back a moment later: a leader that lets them in flushes for twice as many. It waits
 * as long as that has paid, and never alone: its own record reaches the goal. */
static void group_wait(struct phd_coord *c)
{
	/* Never more, whatever a damaged file says. */
	uint64_t patience = c->flush_patience < PATIENCE_MAX ? c->flush_patience : PATIENCE_MAX;

	for (uint64_t i = 0; __atomic_load_n(&c->commit_count, __ATOMIC_RELAXED) < c->flush_goal; i++) {
		if (i >= patience) {
			c->flush_patience = patience / 2;
			return;
		}
		ph_os->yield();
	}
	if (patience < PATIENCE_MAX)
		c->flush_patience = patience + 1;
}

static void group_note(struct phd_coord *c, uint64_t counted)
{
	c->flush_goal = __atomic_load_n(&c->commit_count, __ATOMIC_RELAXED) + (counted - c->flush_covered);
	c->flush_covered = counted;
	if (c->flush_patience == 0 && c->flush_turn % PATIENCE_TRY == 0)
		c->flush_patience = PATIENCE_MAX / 2;
}

int ph_wal_flush_locked(struct pheap *h)
{
	int rc;

	ph_wal_pad(h);
	rc = flush_to(h, h->coord->tail);
	flush_wake(h);
	return rc;
}

/* All that has been appended by now, with the end of its sector. */
static int flush_lead(struct pheap *h)
{
	uint64_t to = ph_wal_tail(h);
	int rc;

	if (to % PHD_SECTOR_SIZE) {
		rc = ph_wal_lock(h, 0);
		if (rc < 0)
			return rc;
		ph_wal_pad(h);
		to = h->coord->tail;
		ph_wal_unlock(h, 0);
	}
	return flush_to(h, to);
}

/* Has who flushes stood still as long as the caller has waited for it? since_ns 0: the caller does not wait. */
static bool is_stuck(const struct phd_coord *c, uint64_t since_ns)
{
	uint64_t start_ns = __atomic_load_n(&c->flush_start_ns, __ATOMIC_RELAXED);

	if (since_ns == 0)
		return false;
	return ph_os->clock_ns() - (start_ns > since_ns ? start_ns : since_ns) > BESIDE_AFTER_NS;
}

/* 0: flushed, or looked; -EAGAIN: another one does it. */
static int flush_try(struct pheap *h, uint64_t since_ns)
{
	uint64_t mine = ph_wal_member_word(h), *word = &h->coord->flush;
	int rc = -EAGAIN;

	if (pthread_mutex_trylock(&h->flush_lock))
		return -EAGAIN;
	/* L1: the word saves work, and is nobody's right. */
	if (ph_word_try(h, word, mine) != PH_BUSY ||
	    (is_stuck(h->coord, since_ns) && ph_word_steal(h, word, mine))) {
		uint64_t counted;

		group_wait(h->coord);
		counted = __atomic_load_n(&h->coord->commit_count, __ATOMIC_RELAXED);
		rc = flush_lead(h);
		group_note(h->coord, counted);
		ph_word_release(word, mine);
	}
	pthread_mutex_unlock(&h->flush_lock);
	/* After the word is free: whoever is woken, or comes, finds it so and leads. */
	if (rc != -EAGAIN)
		flush_wake(h);
	return rc;
}

/* The one who flushes does not get on: dead? */
static int leader_check(struct pheap *h)
{
	uint64_t word = __atomic_load_n(&h->coord->flush, __ATOMIC_ACQUIRE);
	unsigned lane = PHD_WORD_LANE(word);
	int rc = 0;

	if (ph_word_held(h, word) && lane >= PHD_WORD_MEMBER)
		rc = ph_member_check(h, lane - PHD_WORD_MEMBER);
	return rc < 0 ? rc : 0;
}

int ph_wal_wait(struct pheap *h, uint64_t lsn, uint64_t timeout_ns)
{
	uint64_t start_ns = 0;

	for (;;) {
		struct phd_coord *c = h->coord;
		/* Before the look at durable: a flush that ends behind it changes them. */
		uint32_t ends[2] = {__atomic_load_n(flush_end(c, 0), __ATOMIC_SEQ_CST),
				    __atomic_load_n(flush_end(c, 1), __ATOMIC_SEQ_CST)};
		uint64_t nap_ns = NAP_NS, passed_ns, turn;
		int rc;

		if (ph_wal_durable(h) >= lsn)
			return 0;
		rc = ph_wal_poisoned(h);
		if (rc)
			return rc;
		/* A lease word that no record has set: it would never come. */
		if (lsn > ph_wal_tail(h))
			return ph_error(
				h, PHEAP_ECORRUPT,
				"a lease word is beyond the end of the journal; run pheap-fsck on the file");
		rc = timeout_ns ? flush_try(h, start_ns) : -EAGAIN;
		if (rc == 0)
			continue;
		if (rc != -EAGAIN)
			return rc;
		if (start_ns == 0)
			start_ns = ph_os->clock_ns();
		passed_ns = ph_os->clock_ns() - start_ns;
		if (passed_ns >= timeout_ns)
			return -ETIMEDOUT;
		if (timeout_ns - passed_ns < nap_ns)
			nap_ns = timeout_ns - passed_ns;
		turn = __atomic_load_n(&c->flush_turn, __ATOMIC_SEQ_CST);
		turn += lsn > __atomic_load_n(&c->flush_target, __ATOMIC_SEQ_CST);
		rc = ph_os->futex_wait(flush_end(c, turn), ends[turn & 1], nap_ns);
		if (rc == -ETIMEDOUT)
			rc = leader_check(h);
		else
			rc = 0;
		if (rc)
			return rc;
	}
}

int ph_wal_flush(struct pheap *h)
{
	int rc = ph_wal_tail(h) > ph_wal_durable(h) ? flush_try(h, 0) : 0;

	return rc == -EAGAIN ? 0 : rc;
}
