/* SPDX-License-Identifier: MIT
 *
 * lock.c: key locks of concurrent transactions.
 *
 * What: a key hashes to a stripe; the stripe's word is held by the lane (exclusive), or lanes note the
 * stripe (shared).
 * Why stripes and not a lock per object: nothing to allocate, nothing inside user objects that undo could
 * overwrite. Two keys in one stripe share a lock, which is safe.
 *
 * Invariants
 *   K1  Shared: the note is in the lane before the word is looked at (full barrier); a writer that finds
 *       the shared bit scans the notes after its CAS. One of the two sees the other. A reader is in when it saw the
 *       bit, found the word not held, and saw the same word again.
 *   K2  Who waits says for whom, in its lane; a cycle seen twice, a nap apart, with the same generations,
 *       is a deadlock, and its highest lane gives up.
 *   K3  Locks are held to the end of the transaction, also across a rollback to a savepoint.
 */
#include "lock.h"

#include <errno.h>
#include <stdlib.h>

#include "error.h"
#include "member.h"
#include "mutant.h"
#include "os.h"
#include "word.h"

#define DEADLOCK_LOOK_NS 1000000ull
#define DRAIN_NAP_NS 250000ull

static uint64_t *stripe_word(const struct pheap *h, uint32_t stripe)
{
	return &h->stripes[stripe].word;
}

static bool lane_notes(const struct phd_lane *lane, uint32_t stripe)
{
	if (__atomic_load_n(&lane->note_overflow, __ATOMIC_ACQUIRE))
		return true;
	for (unsigned i = 0; i < PHD_NOTE_COUNT; i++)
		if (__atomic_load_n(&lane->notes[i], __ATOMIC_ACQUIRE) == stripe + 1)
			return true;
	return false;
}

static bool lane_active(const struct pheap *h, uint32_t i)
{
	return PHD_STATE_STEP(__atomic_load_n(&h->lanes[i].state, __ATOMIC_ACQUIRE)) != PHD_STEP_IDLE;
}

#define SEARCH_DEPTH 64u
#define SEARCH_STEPS 4096u /* then the next look may find it: shared holders branch */

struct search {
	uint32_t target, highest, steps;
	uint64_t sum; /* of the cycle: the same one later has the same sum */
};

/* Depth-first over who waits for whom. Shared holders are found by their notes. What is on the cycle is noted on the way
 * back, so that side branches do not count. */
static bool cycle_from(const struct pheap *h, struct search *s, uint32_t at, unsigned depth)
{
	uint32_t stripe = __atomic_load_n(&h->lanes[at].wait_stripe, __ATOMIC_ACQUIRE);
	uint64_t word;
	bool found = false;

	if (stripe == 0 || stripe > h->super.stripe_count + 1 || depth > SEARCH_DEPTH ||
	    s->steps++ > SEARCH_STEPS || !lane_active(h, at))
		return false;
	stripe--;
	word = __atomic_load_n(stripe_word(h, stripe), __ATOMIC_ACQUIRE);
	if (ph_word_held(h, word) && PHD_WORD_LANE(word) != at && PHD_WORD_LANE(word) < h->super.lane_count)
		found = PHD_WORD_LANE(word) == s->target || cycle_from(h, s, PHD_WORD_LANE(word), depth + 1);
	for (uint32_t i = 0; !found && (word & PHD_WORD_SHARED) && i < ph_lane_limit(h); i++)
		if (i != at && lane_active(h, i) && lane_notes(&h->lanes[i], stripe))
			found = i == s->target || cycle_from(h, s, i, depth + 1);
	if (found) {
		uint64_t state = __atomic_load_n(&h->lanes[at].state, __ATOMIC_ACQUIRE);

		s->highest = at > s->highest ? at : s->highest;
		s->sum = s->sum * 31 + PHD_STATE_GEN(state) * 64 + at;
	}
	return found;
}

struct wait {
	struct ph_wait word;
	uint64_t looked_ns, cycle_sum;
};

static struct wait wait_for(const pheap_tx *tx, uint32_t stripe)
{
	return (struct wait){.word = {.mine = tx->word, .note = stripe + 1, .queued = true}};
}

/* One look for a cycle; -EDEADLK when it stood still since the last look and this lane is to give up. */
static int deadlock_look(pheap_tx *tx, struct wait *w)
{
	struct search s = {.target = tx->lane_idx, .sum = 1};
	uint64_t now_ns = ph_os->clock_ns();

	if (now_ns - w->looked_ns < DEADLOCK_LOOK_NS)
		return 0;
	w->looked_ns = now_ns;
	if (!cycle_from(tx->h, &s, tx->lane_idx, 0)) {
		w->cycle_sum = 0;
		return 0;
	}
	if (w->cycle_sum == s.sum && s.highest == tx->lane_idx)
		return ph_error(tx->h, -EDEADLK,
				"transactions wait for each other's locks; this one must end and run again");
	w->cycle_sum = s.sum;
	return 0;
}

static int wait_once(pheap_tx *tx, uint32_t stripe, struct wait *w)
{
	int rc = ph_word_nap(tx->h, stripe_word(tx->h, stripe), &w->word, "a lock");

	return rc ? rc : deadlock_look(tx, w);
}

/* Lane i has noted the stripe: one nap until it has not. */
static int holder_wait(pheap_tx *tx, uint32_t i, struct wait *w)
{
	struct pheap *h = tx->h;
	uint32_t seen = (uint32_t)__atomic_load_n(&h->coord->drain, __ATOMIC_ACQUIRE);
	int rc;

	if (w->word.start_ns == 0)
		w->word.start_ns = ph_os->clock_ns();
	else if (ph_os->clock_ns() - w->word.start_ns > h->lock_timeout_ns)
		return ph_error(h, -ETIMEDOUT, "waited too long for the shared holders of a lock");
	ph_word_note(h, &w->word, tx->word);
	ph_os->futex_wait((const uint32_t *)(const void *)&h->coord->drain, seen, DRAIN_NAP_NS);
	rc = deadlock_look(tx, w);
	if (rc == 0)
		rc = ph_member_check_lane(h, i);
	return rc < 0 ? rc : 0;
}

/* K1. The word is ours and has the shared bit: waits for lanes that note the stripe, then takes the bit
 * away. */
static int shared_drain(pheap_tx *tx, uint32_t stripe, struct wait *w)
{
	struct pheap *h = tx->h;
	uint64_t *word = stripe_word(h, stripe), seen;
	int rc = 0;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (uint32_t i = 0; i < ph_lane_limit(h); i++)
		while (i != tx->lane_idx && lane_active(h, i) && lane_notes(&h->lanes[i], stripe)) {
			rc = holder_wait(tx, i, w);
			if (rc)
				return rc;
		}
	seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	while (seen & PHD_WORD_SHARED)
		if (__atomic_compare_exchange_n(word, &seen, seen & ~PHD_WORD_SHARED, false, __ATOMIC_ACQ_REL,
						__ATOMIC_ACQUIRE))
			break; /* a reader that notes itself from now on sees the word held, and takes the note back */
	return 0;
}

static bool array_has(const uint32_t *a, uint32_t n, uint32_t value)
{
	for (uint32_t i = 0; i < n; i++)
		if (a[i] == value)
			return true;
	return false;
}

/* The word of the stripe, whatever it takes. 0, 1: it was ours, or an error. */
static int stripe_take(pheap_tx *tx, uint32_t stripe)
{
	struct pheap *h = tx->h;
	uint64_t *word = stripe_word(h, stripe);
	struct wait w = wait_for(tx, stripe);
	enum ph_take took;
	int rc = 0;

	while (rc == 0 && (took = ph_word_try_wait(h, word, &w.word)) == PH_BUSY)
		rc = wait_once(tx, stripe, &w);
	if (rc == 0 && took == PH_MINE && array_has(tx->stripes, tx->stripe_count, stripe))
		rc = 1;
	if (rc == 0 && __atomic_load_n(word, __ATOMIC_ACQUIRE) & PHD_WORD_SHARED) {
		rc = shared_drain(tx, stripe, &w);
		if (rc)
			ph_word_release_lock(word, tx->word);
	}
	ph_word_wait_end(h, word, &w.word, rc >= 0);
	return rc;
}

int ph_lock_stripe(pheap_tx *tx, uint32_t stripe)
{
	int rc;

	if (tx->stripe_count == tx->stripe_room &&
	    !ph_room(&tx->stripes, &tx->stripe_room, tx->stripe_count + 1, sizeof(*tx->stripes)))
		return -ENOMEM;
	if (!ph_word_take_free_lock(stripe_word(tx->h, stripe), tx->word)) {
		rc = stripe_take(tx, stripe);
		tx->extras |= tx->h->reap_due;
		if (rc)
			return rc < 0 ? rc : 0;
	}
	tx->stripes[tx->stripe_count++] = stripe;
	return 0;
}

static void note_put(pheap_tx *tx, uint32_t stripe)
{
	uint32_t i = tx->shared_count;

	if (i < PHD_NOTE_COUNT)
		__atomic_store_n(&tx->lane->notes[i], stripe + 1, __ATOMIC_SEQ_CST);
	else
		__atomic_store_n(&tx->lane->note_overflow, 1, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void note_take_back(pheap_tx *tx)
{
	uint32_t i = tx->shared_count;

	if (i < PHD_NOTE_COUNT)
		__atomic_store_n(&tx->lane->notes[i], 0, __ATOMIC_RELEASE);
	else if (i == PHD_NOTE_COUNT)
		__atomic_store_n(&tx->lane->note_overflow, 0, __ATOMIC_RELEASE);
}

/* Our note is there: does the stripe let us in? Only a word that is the same after its holder was found gone does: a
 * holder that scanned the notes before ours was there has taken the shared bit away, and the next one would not look
 * for us. */
static bool shared_enter(const struct pheap *h, uint64_t *word)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE), again;

	for (;;) {
		if (!(seen & PHD_WORD_SHARED)) {
			if (__atomic_compare_exchange_n(word, &seen, seen | PHD_WORD_SHARED, false,
							__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
				seen |= PHD_WORD_SHARED;
			continue;
		}
		if (ph_word_held(h, seen))
			return false;
		again = __atomic_load_n(word, __ATOMIC_ACQUIRE);
		if (again == seen || PH_MUTANT(PH_MUTANT_SHARED_ONCE))
			return true;
		seen = again;
	}
}

int ph_lock_stripe_shared(pheap_tx *tx, uint32_t stripe)
{
	struct pheap *h = tx->h;
	uint64_t *word = stripe_word(h, stripe);
	struct wait w = wait_for(tx, stripe);
	int rc = 0;

	if ((__atomic_load_n(word, __ATOMIC_ACQUIRE) & ~PHD_WORD_FLAGS) == tx->word ||
	    array_has(tx->shared_stripes, tx->shared_count, stripe))
		return 0;
	if (!ph_room(&tx->shared_stripes, &tx->shared_room, tx->shared_count + 1,
		     sizeof(*tx->shared_stripes)))
		return -ENOMEM;
	note_put(tx, stripe);
	while (rc == 0 && !shared_enter(h, word)) {
		note_take_back(tx);
		rc = wait_once(tx, stripe, &w);
		/* Never both notes at once: a writer that drains this stripe would see itself waited for. */
		ph_word_note_clear(h, &w.word);
		if (rc == 0)
			note_put(tx, stripe);
	}
	ph_word_wait_end(h, word, &w.word, false);
	tx->extras |= h->reap_due;
	if (rc == 0)
		tx->shared_stripes[tx->shared_count++] = stripe;
	return rc;
}

/* Before idle the notes count, so they go after it. A writer that waits has the word, or will look again by itself
 * within a millisecond. */
static void shared_release(pheap_tx *tx)
{
	struct pheap *h = tx->h;
	bool waited = false;

	for (uint32_t i = 0; i < PHD_NOTE_COUNT && i < tx->shared_count; i++)
		__atomic_store_n(&tx->lane->notes[i], 0, __ATOMIC_RELEASE);
	if (tx->shared_count > PHD_NOTE_COUNT)
		__atomic_store_n(&tx->lane->note_overflow, 0, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < tx->shared_count && !waited; i++)
		waited = (__atomic_load_n(stripe_word(h, tx->shared_stripes[i]), __ATOMIC_RELAXED) &
			  ~PHD_WORD_FLAGS) != 0;
	if (waited) {
		__atomic_fetch_add(&h->coord->drain, 1, __ATOMIC_ACQ_REL);
		ph_os->futex_wake((const uint32_t *)(const void *)&h->coord->drain, 0x7fffffff);
	}
	tx->shared_count = 0;
}

void ph_lock_release_all(pheap_tx *tx)
{
	for (uint32_t i = 0; i < tx->stripe_count; i++) {
		uint64_t *word = stripe_word(tx->h, tx->stripes[i]);

		if (__builtin_expect(!ph_word_drop_quiet(word, tx->word), 0))
			ph_word_release_lock(word, tx->word);
	}
	tx->stripe_count = 0;
	if (__builtin_expect(tx->shared_count, 0))
		shared_release(tx);
}

static uint32_t stripe_of(const struct pheap *h, uint64_t key)
{
	key ^= key >> 33;
	key *= 0xff51afd7ed558ccdull;
	key ^= key >> 33;
	return (uint32_t)key & (h->super.stripe_count - 1);
}

int ph_lock_key(pheap_tx *tx, uint64_t key)
{
	return ph_lock_stripe(tx, stripe_of(tx->h, key));
}

static int stripe_compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* A key is by convention the offset of what it stands for, and that is what the caller will touch next: let the memory
 * come while the locks are taken. A lock holds up later loads of the processor, a prefetch before it does not wait. */
static inline void key_prefetch(const struct pheap *h, uint64_t key)
{
	if (key - h->data_off < __atomic_load_n(&h->data_end, __ATOMIC_RELAXED) - h->data_off)
		__builtin_prefetch(h->map + key, 1);
}

#define FEW 16u

/* Ascending, so that transactions which take the same keys in one call can not deadlock. */
static void stripes_sort(uint32_t *stripes, size_t n)
{
	if (n > FEW) {
		qsort(stripes, n, sizeof(*stripes), stripe_compare);
		return;
	}
	for (size_t i = 1; i < n; i++) {
		uint32_t stripe = stripes[i];
		size_t k = i;

		for (; k > 0 && stripes[k - 1] > stripe; k--)
			stripes[k] = stripes[k - 1];
		stripes[k] = stripe;
	}
}

static inline __attribute__((always_inline)) int keys_lock(pheap_tx *tx, const uint64_t *keys, size_t n,
							   int (*lock)(pheap_tx *, uint32_t))
{
	uint32_t few[FEW], *stripes = few;
	int rc = 0;

	if (n && !keys)
		return ph_tx_fail(tx, -EINVAL, "keys is NULL");
	if (tx->mode != PHD_MODE_CONCURRENT || !tx->lane)
		return 0; /* the mode itself excludes everyone that matters; a passive heap stands still */
	if (n > FEW) {
		stripes = n > SIZE_MAX / sizeof(*stripes) ? NULL : malloc(n * sizeof(*stripes));
		if (!stripes)
			return ph_tx_fail(tx, -ENOMEM, "no memory for %zu keys", n);
	}
	for (size_t i = 0; i < n; i++) {
		key_prefetch(tx->h, keys[i]);
		stripes[i] = stripe_of(tx->h, keys[i]);
	}
	stripes_sort(stripes, n);
	for (size_t i = 0; i < n && rc == 0; i++)
		if (i == 0 || stripes[i] != stripes[i - 1])
			rc = lock(tx, stripes[i]);
	if (stripes != few)
		free(stripes);
	return ph_fail_if(tx, rc);
}

static int lock_enter(pheap_tx *tx, const char *call, bool shared)
{
	if (tx && tx->writable_by && tx->thread == &ph_thread && tx->read_only && shared &&
	    tx->magic == PH_TX_MAGIC)
		return tx->doom; /* a reading transaction takes shared locks only */
	return ph_tx_enter(tx, call);
}

int pheap_lock(pheap_tx *tx, const uint64_t *keys, size_t n)
{
	int rc;

	/* One key, whose stripe nobody has. */
	if (__builtin_expect(n == 1 && keys && tx && tx->writable_by == &ph_thread &&
				     tx->mode == PHD_MODE_CONCURRENT && tx->stripe_count < tx->stripe_room,
			     1)) {
		uint32_t stripe = stripe_of(tx->h, *keys);

		key_prefetch(tx->h, *keys);
		if (__builtin_expect(ph_word_take_free_lock(stripe_word(tx->h, stripe), tx->word), 1)) {
			tx->stripes[tx->stripe_count++] = stripe;
			return 0;
		}
	}
	rc = lock_enter(tx, "pheap_lock", false);

	return rc ? rc : keys_lock(tx, keys, n, ph_lock_stripe);
}

int pheap_lock_shared(pheap_tx *tx, const uint64_t *keys, size_t n)
{
	int rc = lock_enter(tx, "pheap_lock_shared", true);

	return rc ? rc : keys_lock(tx, keys, n, ph_lock_stripe_shared);
}
