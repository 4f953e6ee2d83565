/* SPDX-License-Identifier: MIT
 *
 * word.c: taking, waiting for and giving back the words of word.h.
 */
#include "word.h"

#include <errno.h>
#include <stdlib.h>

#include "error.h"
#include "member.h"
#include "mutant.h"
#include "os.h"

#define NAP_MIN_NS 1000000ull
#define NAP_MAX_NS 16000000ull	   /* of a lock's waiters that do not watch */
#define NAP_BARE_MAX_NS 2000000ull /* of a word without `next`: everybody watches */
#define YIELD_NAP_NS 100000ull
#define FIRST_AFTER_NS 4000000ull /* a watcher that has waited so long goes first */
#define YIELD_MAX_NS 3000000ull	  /* so long it is let go first: it naps a millisecond at most */
#define SPIN_COUNT 64
#define WAKE_ALL 0x7fffffff

bool ph_word_held(const struct pheap *h, uint64_t word)
{
	unsigned lane = PHD_WORD_LANE(word);
	uint64_t gen = PHD_WORD_GEN(word), state;

	if (gen == 0)
		return false;
	if (lane >= PHD_WORD_MEMBER) {
		unsigned slot = lane - PHD_WORD_MEMBER;

		return slot < h->super.member_count &&
		       __atomic_load_n(&h->members[slot].attachment, __ATOMIC_ACQUIRE) == gen;
	}
	if (lane >= h->super.lane_count)
		return false;
	if (PH_MUTANT(PH_MUTANT_WORD_STOLEN) && ph_member_of_lane(h, lane) >= 0 &&
	    ph_member_alive((struct pheap *)(uintptr_t)h, (uint32_t)ph_member_of_lane(h, lane)) == 0)
		return false;
	state = __atomic_load_n(&h->lanes[lane].state, __ATOMIC_ACQUIRE);
	return PHD_STATE_GEN(state) == gen && PHD_STATE_STEP(state) != PHD_STEP_IDLE;
}

static bool names(uint64_t word, uint64_t mine)
{
	return (word & ~PHD_WORD_FLAGS) == mine;
}

enum ph_take ph_word_try(const struct pheap *h, uint64_t *word, uint64_t mine)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);

	for (;;) {
		if (names(seen, mine))
			return PH_MINE;
		if (ph_word_held(h, seen))
			return PH_BUSY;
		if (__atomic_compare_exchange_n(word, &seen, mine | (seen & PHD_WORD_FLAGS), false,
						__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			return PH_TAKEN;
	}
}

bool ph_word_steal(const struct pheap *h, uint64_t *word, uint64_t mine)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);

	return !names(seen, mine) && ph_word_held(h, seen) &&
	       __atomic_compare_exchange_n(word, &seen, mine | (seen & PHD_WORD_FLAGS), false,
					   __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* ---- next ---- */

/* W4. The word is free: does another waiter go first? */
static bool yields(const struct pheap *h, uint64_t *next, struct ph_wait *w)
{
	uint64_t seen = __atomic_load_n(next, __ATOMIC_ACQUIRE), now_ns;

	if (!(seen & PHD_NEXT_FIRST) || names(seen, w->mine) || !ph_word_held(h, seen & ~PHD_WORD_FLAGS)) {
		w->yield_ns = 0;
		/* One that died while it waited left it: nobody else takes it away. */
		if (seen & PHD_NEXT_FIRST && !names(seen, w->mine))
			(void)__atomic_compare_exchange_n(next, &seen, 0, false, __ATOMIC_ACQ_REL,
							  __ATOMIC_RELAXED);
		return false;
	}
	now_ns = ph_os->clock_ns();
	if (w->yield_ns == 0)
		w->yield_ns = now_ns;
	if (now_ns - w->yield_ns < YIELD_MAX_NS)
		return true;
	/* It does not come. Whoever waits next may watch in its place. */
	(void)__atomic_compare_exchange_n(next, &seen, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
	w->yield_ns = 0;
	return false;
}

/* True: this waiter is the one that watches the holder. */
static bool next_claim(const struct pheap *h, uint64_t *next, const struct ph_wait *w)
{
	uint64_t seen = __atomic_load_n(next, __ATOMIC_ACQUIRE);

	if (!names(seen, w->mine) &&
	    (ph_word_held(h, seen & ~PHD_WORD_FLAGS) ||
	     !__atomic_compare_exchange_n(next, &seen, w->mine, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)))
		return false;
	if (ph_os->clock_ns() - w->start_ns > FIRST_AFTER_NS) {
		seen = w->mine;
		(void)__atomic_compare_exchange_n(next, &seen, w->mine | PHD_NEXT_FIRST, false,
						  __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
	}
	return true;
}

enum ph_take ph_word_try_wait(const struct pheap *h, uint64_t *word, struct ph_wait *w)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);

	for (;;) {
		uint64_t taken = w->mine | (seen & PHD_WORD_FLAGS) | (w->slept ? PHD_WORD_WAITERS : 0);

		if (names(seen, w->mine))
			return PH_MINE;
		if (ph_word_held(h, seen) || (w->queued && yields(h, word + 1, w)))
			return PH_BUSY;
		if (__atomic_compare_exchange_n(word, &seen, taken, false, __ATOMIC_ACQ_REL,
						__ATOMIC_ACQUIRE))
			return PH_TAKEN;
	}
}

/* ---- waiting ---- */

void ph_word_note(struct pheap *h, struct ph_wait *w, uint64_t holder)
{
	unsigned lane_idx = PHD_WORD_LANE(w->mine);
	struct phd_lane *lane = &h->lanes[lane_idx];

	if (!w->note || lane_idx >= h->super.lane_count)
		return;
	__atomic_store_n(&lane->wait_gen, PHD_WORD_GEN(holder) << 16 | PHD_WORD_LANE(holder),
			 __ATOMIC_RELAXED);
	__atomic_store_n(&lane->wait_stripe, w->note, __ATOMIC_RELEASE);
	w->noted = true;
}

void ph_word_note_clear(struct pheap *h, struct ph_wait *w)
{
	if (w->noted)
		__atomic_store_n(&h->lanes[PHD_WORD_LANE(w->mine)].wait_stripe, 0, __ATOMIC_RELEASE);
	w->noted = false;
}

static int holder_check(struct pheap *h, uint64_t word)
{
	unsigned lane = PHD_WORD_LANE(word);

	if (!ph_word_held(h, word))
		return 0;
	if (lane >= PHD_WORD_MEMBER)
		return ph_member_check(h, lane - PHD_WORD_MEMBER);
	return ph_member_check_lane(h, lane);
}

/* The word is free, but another waiter is to have it. */
static int yield_nap(uint64_t *word, uint64_t seen, struct ph_wait *w)
{
	if (w->yield_ns) {
		w->slept = true;
		(void)ph_os->futex_wait((const uint32_t *)(const void *)word, (uint32_t)seen, YIELD_NAP_NS);
	}
	return 0;
}

/* True: it became free meanwhile. */
static bool spin(const struct pheap *h, const uint64_t *word, uint64_t seen)
{
	for (int i = 0; i < SPIN_COUNT; i++) {
		if (__atomic_load_n(word, __ATOMIC_RELAXED) != seen || !ph_word_held(h, seen))
			return true;
		ph_pause();
	}
	return false;
}

bool ph_word_ask_due(uint64_t *asked_ns, uint64_t each_ns)
{
	uint64_t now_ns = ph_os->clock_ns();

	if (now_ns - *asked_ns < each_ns)
		return false;
	*asked_ns = now_ns;
	return true;
}

int ph_word_nap(struct pheap *h, uint64_t *word, struct ph_wait *w, const char *what)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE), nap_ns;
	bool watches;
	int rc;

	if (w->start_ns == 0)
		w->start_ns = ph_os->clock_ns();
	if (!ph_word_held(h, seen))
		return yield_nap(word, seen, w);
	if (w->nap_ns == 0) {
		w->nap_ns = NAP_MIN_NS;
		if (spin(h, word, seen))
			return 0;
	}
	if (ph_os->clock_ns() - w->start_ns > h->lock_timeout_ns)
		return ph_word_timeout(h, seen, what);
	ph_word_note(h, w, seen);
	watches = w->queued && next_claim(h, word + 1, w);
	nap_ns = watches ? NAP_MIN_NS : w->nap_ns;
	if (!(seen & PHD_WORD_WAITERS)) {
		if (!__atomic_compare_exchange_n(word, &seen, seen | PHD_WORD_WAITERS, false,
						 __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			return 0;
		seen |= PHD_WORD_WAITERS;
		/* The holder may have become idle just before the bit was set, and will not wake us. */
		if (!ph_word_held(h, seen))
			return 0;
	}
	w->slept = true;
	if (w->asked_ns == 0)
		w->asked_ns = ph_os->clock_ns();
	(void)ph_os->futex_wait((const uint32_t *)(const void *)word, (uint32_t)seen, nap_ns);
	if (!ph_word_ask_due(&w->asked_ns, nap_ns))
		return 0;
	w->nap_ns *= 2;
	if (w->nap_ns > (w->queued ? NAP_MAX_NS : NAP_BARE_MAX_NS))
		w->nap_ns = w->queued ? NAP_MAX_NS : NAP_BARE_MAX_NS;
	rc = holder_check(h, seen);
	/* A dead watcher would leave the holder unwatched. */
	if (rc == 0 && w->queued && !watches)
		rc = holder_check(h, __atomic_load_n(word + 1, __ATOMIC_ACQUIRE));
	return rc < 0 ? rc : 0;
}

void ph_word_wait_end(struct pheap *h, uint64_t *word, struct ph_wait *w, bool has_word)
{
	uint64_t seen;

	/* The one wake-up of a release may have come here, and there will be no release: pass it on (W5). */
	if (w->slept && !has_word)
		ph_os->futex_wake((const uint32_t *)(const void *)word, 1);
	if (w->queued && w->start_ns) {
		seen = __atomic_load_n(word + 1, __ATOMIC_RELAXED);
		while (names(seen, w->mine) &&
		       !__atomic_compare_exchange_n(word + 1, &seen, 0, false, __ATOMIC_ACQ_REL,
						    __ATOMIC_RELAXED))
			;
	}
	ph_word_note_clear(h, w);
}

int ph_word_timeout(const struct pheap *h, uint64_t word, const char *what)
{
	unsigned lane = PHD_WORD_LANE(word);
	char who[96];

	ph_member_describe(h,
			   lane >= PHD_WORD_MEMBER	? (int)(lane - PHD_WORD_MEMBER)
			   : lane < h->super.lane_count ? ph_member_of_lane(h, lane)
							: -1,
			   who, sizeof(who));
	return ph_error(h, -ETIMEDOUT, "waited too long for %s, held by %s", what, who);
}

int ph_word_take(struct pheap *h, uint64_t *word, uint64_t mine, const char *what)
{
	struct ph_wait w = {.mine = mine, .note = PHD_WAIT_LATCH};
	int rc = 0;

	if (ph_word_take_free(word, mine))
		return 0;
	while (rc == 0) {
		enum ph_take took = ph_word_try_wait(h, word, &w);

		if (took != PH_BUSY) {
			ph_word_wait_end(h, word, &w, true);
			return took == PH_MINE;
		}
		rc = ph_word_nap(h, word, &w, what);
	}
	ph_word_wait_end(h, word, &w, false);
	return rc;
}

/* ---- giving back ---- */

/* Returns the word that was given back; 0: it was not mine. */
static uint64_t release(uint64_t *word, uint64_t mine)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);

	while (names(seen, mine))
		if (__atomic_compare_exchange_n(word, &seen, seen & PHD_WORD_SHARED, false, __ATOMIC_ACQ_REL,
						__ATOMIC_RELAXED))
			return seen;
	return 0;
}

void ph_word_release(uint64_t *word, uint64_t mine)
{
	if (release(word, mine) & PHD_WORD_WAITERS)
		ph_os->futex_wake((const uint32_t *)(const void *)word, WAKE_ALL);
}

/* Readers can all go at once, and who goes first is perhaps not the first in the kernel's queue; else one waiter is
 * enough: it inherits the waiters bit (W5). `next` is read after the word is free: a watcher that becomes first and
 * sleeps before that is woken, one that does later finds the word free. */
void ph_word_release_lock(uint64_t *word, uint64_t mine)
{
	uint64_t seen = release(word, mine);
	bool all = seen & PHD_WORD_SHARED || __atomic_load_n(word + 1, __ATOMIC_RELAXED) & PHD_NEXT_FIRST;

	if (seen & PHD_WORD_WAITERS)
		ph_os->futex_wake((const uint32_t *)(const void *)word, all ? WAKE_ALL : 1);
}
