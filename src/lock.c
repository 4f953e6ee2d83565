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
 *       the shared bit scans the notes after its CAS. One of the two sees the other.
 *   K2  Who waits says for whom, in its lane; a cycle seen twice, a nap apart, with the same generations,
 *       is a deadlock, and its highest lane gives up.
 *   K3  Locks are held to the end of the transaction, also across a rollback to a savepoint.
 */
#include "lock.h"

#include <errno.h>
#include <stdlib.h>

#include "error.h"
#include "member.h"
#include "os.h"
#include "word.h"

#define DEADLOCK_LOOK_NS 1000000ull

static uint64_t *stripe_word(const struct pheap *h, uint32_t stripe)
{
	return &h->stripes[stripe].word;
}

static void wait_note(pheap_tx *tx, uint32_t stripe, uint64_t holder)
{
	__atomic_store_n(&tx->lane->wait_gen, PHD_WORD_GEN(holder) << 16 | PHD_WORD_LANE(holder),
			 __ATOMIC_RELAXED);
	__atomic_store_n(&tx->lane->wait_stripe, stripe + 1, __ATOMIC_RELEASE);
}

static void wait_clear(pheap_tx *tx)
{
	__atomic_store_n(&tx->lane->wait_stripe, 0, __ATOMIC_RELEASE);
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
	for (uint32_t i = 0; !found && (word & PHD_WORD_SHARED) && i < h->super.lane_count; i++)
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
	uint64_t start_ns, looked_ns, nap_ns, cycle_sum;
};

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

static int wait_once(pheap_tx *tx, uint32_t stripe, uint64_t seen, struct wait *w)
{
	struct pheap *h = tx->h;
	int rc;

	if (w->start_ns == 0)
		w->start_ns = w->looked_ns = ph_os->clock_ns();
	else if (ph_os->clock_ns() - w->start_ns > h->lock_timeout_ns)
		return ph_word_timeout(h, seen, "a lock");
	wait_note(tx, stripe, seen);
	rc = ph_word_wait(h, stripe_word(h, stripe), seen, &w->nap_ns);
	if (rc == 0)
		rc = deadlock_look(tx, w);
	wait_clear(tx);
	return rc;
}

/* K1. The word is ours and has the shared bit: waits for lanes that note the stripe, then takes the bit
 * away. */
static int shared_drain(pheap_tx *tx, uint32_t stripe, struct wait *w)
{
	struct pheap *h = tx->h;
	uint64_t *word = stripe_word(h, stripe), seen;
	int rc;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (uint32_t i = 0; i < h->super.lane_count; i++)
		while (i != tx->lane_idx && lane_active(h, i) && lane_notes(&h->lanes[i], stripe)) {
			uint32_t seen_drain = (uint32_t)__atomic_load_n(&h->coord->drain, __ATOMIC_ACQUIRE);

			if (w->start_ns == 0)
				w->start_ns = w->looked_ns = ph_os->clock_ns();
			else if (ph_os->clock_ns() - w->start_ns > h->lock_timeout_ns)
				return ph_error(h, -ETIMEDOUT,
						"waited too long for the shared holders of a lock");
			wait_note(tx, stripe, tx->word);
			ph_os->futex_wait((const uint32_t *)(const void *)&h->coord->drain, seen_drain,
					  DEADLOCK_LOOK_NS / 4);
			rc = deadlock_look(tx, w);
			wait_clear(tx);
			if (rc == 0 && (rc = ph_member_check_lane(h, i)) > 0)
				rc = 0;
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

int ph_lock_stripe(pheap_tx *tx, uint32_t stripe)
{
	struct pheap *h = tx->h;
	uint64_t *word = stripe_word(h, stripe);
	struct wait w = {0};
	int rc;

	if (!ph_room(&tx->stripes, &tx->stripe_room, tx->stripe_count + 1, sizeof(*tx->stripes)))
		return -ENOMEM;
	for (;;) {
		uint64_t seen;
		enum ph_take took =
			ph_word_take_free(word, tx->word) ? PH_TAKEN : ph_word_try(h, word, tx->word);

		if (took == PH_MINE && array_has(tx->stripes, tx->stripe_count, stripe))
			return 0;
		if (took != PH_BUSY)
			break;
		seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
		if (!ph_word_held(h, seen))
			continue;
		rc = wait_once(tx, stripe, seen, &w);
		if (rc)
			return rc;
	}
	if (__atomic_load_n(word, __ATOMIC_ACQUIRE) & PHD_WORD_SHARED) {
		rc = shared_drain(tx, stripe, &w);
		if (rc) {
			ph_word_release(h, word, tx->word);
			return rc;
		}
	}
	tx->extras = true;
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

int ph_lock_stripe_shared(pheap_tx *tx, uint32_t stripe)
{
	struct pheap *h = tx->h;
	uint64_t *word = stripe_word(h, stripe), seen;
	struct wait w = {0};
	int rc;

	if ((__atomic_load_n(word, __ATOMIC_ACQUIRE) & ~PHD_WORD_FLAGS) == tx->word ||
	    array_has(tx->shared_stripes, tx->shared_count, stripe))
		return 0;
	if (!ph_room(&tx->shared_stripes, &tx->shared_room, tx->shared_count + 1,
		     sizeof(*tx->shared_stripes)))
		return -ENOMEM;
	note_put(tx, stripe);
	for (;;) {
		seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
		if (!(seen & PHD_WORD_SHARED)) {
			(void)__atomic_compare_exchange_n(word, &seen, seen | PHD_WORD_SHARED, false,
							  __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
			continue;
		}
		if (!ph_word_held(h, seen))
			break;
		note_take_back(tx);
		rc = wait_once(tx, stripe, seen, &w);
		if (rc)
			return rc;
		note_put(tx, stripe);
	}
	tx->extras = true;
	tx->shared_stripes[tx->shared_count++] = stripe;
	return 0;
}

/* Before idle the notes count, so they go after it. */
void ph_lock_release_all(pheap_tx *tx)
{
	struct pheap *h = tx->h;

	for (uint32_t i = 0; i < tx->stripe_count; i++)
		ph_word_release(h, stripe_word(h, tx->stripes[i]), tx->word);
	if (tx->shared_count) {
		for (uint32_t i = 0; i < PHD_NOTE_COUNT && i < tx->shared_count; i++)
			__atomic_store_n(&tx->lane->notes[i], 0, __ATOMIC_RELEASE);
		__atomic_store_n(&tx->lane->note_overflow, 0, __ATOMIC_RELEASE);
		__atomic_fetch_add(&h->coord->drain, 1, __ATOMIC_ACQ_REL);
		ph_os->futex_wake((const uint32_t *)(const void *)&h->coord->drain, 0x7fffffff);
	}
	tx->stripe_count = tx->shared_count = 0;
}

static uint32_t stripe_of(const struct pheap *h, uint64_t key)
{
	key ^= key >> 33;
	key *= 0xff51afd7ed558ccdull;
	key ^= key >> 33;
	return (uint32_t)key & (h->super.stripe_count - 1);
}

static int stripe_compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int keys_lock(pheap_tx *tx, const uint64_t *keys, size_t n, int (*lock)(pheap_tx *, uint32_t))
{
	uint32_t few[16], *stripes = few;
	int rc = 0;

	if (n && !keys)
		return ph_tx_fail(tx, -EINVAL, "keys is NULL");
	if (tx->mode != PHD_MODE_CONCURRENT || !tx->lane)
		return 0; /* the mode itself excludes everyone that matters; a passive heap stands still */
	if (n > sizeof(few) / sizeof(few[0])) {
		stripes = n > SIZE_MAX / sizeof(*stripes) ? NULL : malloc(n * sizeof(*stripes));
		if (!stripes)
			return ph_tx_fail(tx, -ENOMEM, "no memory for %zu keys", n);
	}
	for (size_t i = 0; i < n; i++)
		stripes[i] = stripe_of(tx->h, keys[i]);
	if (n > 1)
		qsort(stripes, n, sizeof(*stripes), stripe_compare);
	for (size_t i = 0; i < n && rc == 0; i++)
		if (i == 0 || stripes[i] != stripes[i - 1])
			rc = lock(tx, stripes[i]);
	if (stripes != few)
		free(stripes);
	return ph_fail_if(tx, rc);
}

static int lock_enter(pheap_tx *tx, const char *call, bool shared)
{
	if (tx && tx->open && tx->thread == &ph_thread && tx->read_only && shared && tx->magic == PH_TX_MAGIC)
		return tx->doom; /* a reading transaction takes shared locks only */
	return ph_tx_enter(tx, call);
}

int pheap_lock(pheap_tx *tx, const uint64_t *keys, size_t n)
{
	int rc = lock_enter(tx, "pheap_lock", false);

	return rc ? rc : keys_lock(tx, keys, n, ph_lock_stripe);
}

int pheap_lock_shared(pheap_tx *tx, const uint64_t *keys, size_t n)
{
	int rc = lock_enter(tx, "pheap_lock_shared", true);

	return rc ? rc : keys_lock(tx, keys, n, ph_lock_stripe_shared);
}
