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
#define NAP_MAX_NS 16000000ull
#define SPIN_COUNT 64

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

enum ph_take ph_word_try(const struct pheap *h, uint64_t *word, uint64_t mine)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);

	for (;;) {
		if ((seen & ~PHD_WORD_FLAGS) == mine)
			return PH_MINE;
		if (ph_word_held(h, seen))
			return PH_BUSY;
		if (__atomic_compare_exchange_n(word, &seen, mine | (seen & PHD_WORD_FLAGS), false,
						__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			return PH_TAKEN;
	}
}

void ph_word_release(const struct pheap *h, uint64_t *word, uint64_t mine)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);

	(void)h;
	while ((seen & ~PHD_WORD_FLAGS) == mine) {
		if (!__atomic_compare_exchange_n(word, &seen, seen & PHD_WORD_SHARED, false, __ATOMIC_ACQ_REL,
						 __ATOMIC_RELAXED))
			continue;
		if (seen & PHD_WORD_WAITERS)
			ph_os->futex_wake((const uint32_t *)(const void *)word, 0x7fffffff);
		return;
	}
}

static int holder_check(struct pheap *h, uint64_t word)
{
	unsigned lane = PHD_WORD_LANE(word);

	if (lane >= PHD_WORD_MEMBER)
		return ph_member_check(h, lane - PHD_WORD_MEMBER);
	return ph_member_check_lane(h, lane);
}

int ph_word_wait(struct pheap *h, uint64_t *word, uint64_t seen, uint64_t *nap_ns)
{
	int rc;

	if (*nap_ns == 0) {
		for (int i = 0; i < SPIN_COUNT; i++) {
			if (__atomic_load_n(word, __ATOMIC_RELAXED) != seen || !ph_word_held(h, seen))
				return 0;
			ph_pause();
		}
		*nap_ns = NAP_MIN_NS;
	}
	if (!(seen & PHD_WORD_WAITERS)) {
		if (!__atomic_compare_exchange_n(word, &seen, seen | PHD_WORD_WAITERS, false,
						 __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			return 0;
		seen |= PHD_WORD_WAITERS;
		/* The holder may have become idle just before the bit was set, and will not wake us. */
		if (!ph_word_held(h, seen))
			return 0;
	}
	if (ph_os->futex_wait((const uint32_t *)(const void *)word, (uint32_t)seen, *nap_ns) != -ETIMEDOUT)
		return 0;
	*nap_ns = *nap_ns * 2 > NAP_MAX_NS ? NAP_MAX_NS : *nap_ns * 2;
	rc = holder_check(h, seen);
	return rc < 0 ? rc : 0;
}

int ph_word_timeout(const struct pheap *h, uint64_t word, const char *what)
{
	unsigned lane = PHD_WORD_LANE(word);
	char who[64];

	ph_member_describe(h,
			   lane >= PHD_WORD_MEMBER	? (int)(lane - PHD_WORD_MEMBER)
			   : lane < h->super.lane_count ? ph_member_of_lane(h, lane)
							: -1,
			   who, sizeof(who));
	return ph_error(h, -ETIMEDOUT, "waited too long for %s, held by %s, which is alive", what, who);
}

int ph_word_take(struct pheap *h, uint64_t *word, uint64_t mine, const char *what)
{
	uint64_t nap_ns = 0, start_ns = 0, seen;
	int rc;

	if (ph_word_take_free(word, mine))
		return 0;
	for (;;) {
		switch (ph_word_try(h, word, mine)) {
		case PH_TAKEN:
			return 0;
		case PH_MINE:
			return 1;
		case PH_BUSY:
			break;
		}
		seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
		if (!ph_word_held(h, seen))
			continue;
		if (start_ns == 0)
			start_ns = ph_os->clock_ns();
		else if (ph_os->clock_ns() - start_ns > h->lock_timeout_ns)
			return ph_word_timeout(h, seen, what);
		rc = ph_word_wait(h, word, seen, &nap_ns);
		if (rc)
			return rc;
	}
}
