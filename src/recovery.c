/* SPDX-License-Identifier: MIT
 *
 * recovery.c: see recovery.h. Work is O(what was in flight): one pass over the lane heads, then the logs
 * that are not idle.
 */
#include "recovery.h"

#include "error.h"
#include "log.h"
#include "mutant.h"
#include "os.h"

#define LANE_GEN_MAX (1ull << 47) /* what a word can name */

/* Its record is a part of the log: ORDER(wal-commit). */
static bool appended(const struct pheap *h, const struct phd_lane *lane, uint64_t state)
{
	if (PHD_STATE_STEP(state) != PHD_STEP_APPENDING || !h->leased || PH_MUTANT(PH_MUTANT_APPENDED_UNDONE))
		return false;
	if (PH_MUTANT(PH_MUTANT_APPEND_ASSUMED))
		return true;
	return __atomic_load_n(&h->coord->tail, __ATOMIC_ACQUIRE) >
	       __atomic_load_n(&lane->lsn, __ATOMIC_ACQUIRE);
}

static int lane_recover(struct pheap *h, uint32_t lane_idx)
{
	struct phd_lane *lane = &h->lanes[lane_idx];
	uint64_t state = __atomic_load_n(&lane->state, __ATOMIC_ACQUIRE);
	uint64_t gen = PHD_STATE_GEN(state);
	struct ph_log log = {0};
	int rc;

	/* Words of generations that do not fit into one would never be held. */
	if (PHD_STATE_STEP(state) > PHD_STEP_LOOKING || gen >= LANE_GEN_MAX)
		return ph_error_recovery(
			h, PHEAP_ECORRUPT,
			"the state of lane %u is 0x%llx, which cannot be; run pheap-fsck on the file",
			lane_idx, (unsigned long long)state);
	if (PHD_STATE_STEP(state) == PHD_STEP_IDLE)
		return 0;
	rc = ph_log_load(h, lane_idx, gen, &log);
	if (rc)
		return rc;
	if (PHD_STATE_STEP(state) == PHD_STEP_COMMITTED || appended(h, lane, state)) {
		ph_log_apply(h, &log);
		h->recovered_forward++;
	} else if (!PH_MUTANT(PH_MUTANT_NO_UNDO)) {
		if (PH_MUTANT(PH_MUTANT_RECOVER_IDLE))
			__atomic_store_n(&lane->state, PHD_STATE(gen + 1, PHD_MODE_NONE, PHD_STEP_IDLE),
					 __ATOMIC_RELEASE);
		ph_log_undo(h, &log, 0, false);
		if (h->leased)
			ph_log_give_up(h, lane, &log, 0);
		/* A transaction that had changed nothing is not worth a mention. */
		h->recovered_back += ph_log_end(&log) != 0;
	}
	ph_log_free(&log);
	/* ORDER(undo-idle), ORDER(apply-idle): every byte before idle, because idle frees all locks at
	 * once. Crash between: done again from the same log. Pairs with word.c:ph_word_held. */
	__atomic_store_n(&lane->state, PHD_STATE(gen + 1, PHD_MODE_NONE, PHD_STEP_IDLE), __ATOMIC_RELEASE);
	return 0;
}

static void lane_release(struct phd_lane *lane)
{
	lane->wait_stripe = 0;
	lane->note_overflow = 0;
	for (unsigned i = 0; i < PHD_NOTE_COUNT; i++)
		__atomic_store_n(&lane->notes[i], 0, __ATOMIC_RELAXED);
	/* ORDER(owner-last): idle before the lane can be claimed by another thread. Crash between: an idle
	 * lane with a dead owner, freed by the next recovery. Pairs with thread.c:lane_try. */
	__atomic_store_n(&lane->owner, 0, __ATOMIC_RELEASE);
}

/* Does it hold anything of an owner? A note that stayed would lock others out of its stripe for ever. */
static bool lane_left(const struct phd_lane *lane)
{
	uint64_t any = lane->owner | lane->wait_stripe | lane->note_overflow;

	for (unsigned i = 0; i < PHD_NOTE_COUNT; i++)
		any |= lane->notes[i];
	return any != 0;
}

static void heap_poison(struct pheap *h, int rc)
{
	__atomic_store_n(&h->coord->poison, (uint64_t)(-rc), __ATOMIC_RELEASE);
}

int ph_recovery_all(struct pheap *h)
{
	uint64_t start_ns = ph_os->clock_ns();

	for (uint32_t i = 0; i < h->super.lane_count; i++) {
		int rc = lane_recover(h, i);

		if (rc)
			return rc;
	}
	for (uint32_t i = 0; i < h->super.lane_count; i++)
		if (lane_left(&h->lanes[i]))
			lane_release(&h->lanes[i]);
	for (uint32_t i = 0; i < h->super.member_count; i++)
		if (h->members[i].attachment)
			__atomic_store_n(&h->members[i].attachment, 0, __ATOMIC_RELEASE);
	h->coord->poison = 0;
	h->coord->lane_limit = 0;
	h->coord->recovered_count = 0;
	h->recovery_ns += ph_os->clock_ns() - start_ns;
	return 0;
}

/* The lanes of one owner: those in the middle of an internal transaction only, or all. */
static int lanes_recover(struct pheap *h, uint64_t owner, bool internal_only)
{
	for (uint32_t i = 0; i < ph_lane_limit(h); i++) {
		uint64_t state = __atomic_load_n(&h->lanes[i].state, __ATOMIC_ACQUIRE);
		int rc;

		if (__atomic_load_n(&h->lanes[i].owner, __ATOMIC_ACQUIRE) != owner ||
		    (internal_only && PHD_STATE_MODE(state) != PHD_MODE_INTERNAL))
			continue;
		rc = lane_recover(h, i);
		if (rc == PHEAP_ECORRUPT)
			heap_poison(h, rc);
		if (rc)
			return rc;
		lane_release(&h->lanes[i]);
	}
	return 0;
}

void ph_recovery_leaving(struct pheap *h, uint32_t slot)
{
	uint32_t *flags = &h->members[slot].flags;

	if (!(__atomic_load_n(flags, __ATOMIC_ACQUIRE) & PHD_MEMBER_HOLDS))
		return;
	/* ORDER(reap-count): the row is marked, and the reaper called, before the row goes, which makes the holds of the
	 * member void. Crash between: called twice. Pairs with hold.c:ph_hold_reap (F3). */
	__atomic_fetch_or(flags, PHD_MEMBER_LEAVING, __ATOMIC_ACQ_REL);
	__atomic_fetch_add(&h->coord->reap, 1, __ATOMIC_ACQ_REL);
}

int ph_recovery_member(struct pheap *h, uint32_t slot)
{
	uint64_t start_ns = ph_os->clock_ns();
	uint64_t attachment = __atomic_load_n(&h->members[slot].attachment, __ATOMIC_ACQUIRE);
	uint64_t owner = attachment << 16 | (slot + 1);
	int rc;

	if (!attachment)
		return 0;
	if (PH_MUTANT(PH_MUTANT_ROW_EARLY))
		__atomic_store_n(&h->members[slot].attachment, 0, __ATOMIC_RELEASE);
	/* ORDER(internal-first): internal transactions before the others. A run that one of them makes lies
	 * in chunks that are owned by the user's lane: were that idle first, they would be free before the
	 * run is there. Crash between: done again from the start, in the same order. Pairs with
	 * chunk.c:chunk_take. */
	rc = lanes_recover(h, owner, true);
	if (rc == 0)
		rc = lanes_recover(h, owner, false);
	if (rc)
		return rc;
	if (!PH_MUTANT(PH_MUTANT_REAP_LATE))
		ph_recovery_leaving(h, slot);
	/* The slot last: until here a second recoverer would find everything that is left to do. */
	__atomic_store_n(&h->members[slot].attachment, 0, __ATOMIC_RELEASE);
	if (PH_MUTANT(PH_MUTANT_REAP_LATE))
		ph_recovery_leaving(h, slot);
	__atomic_fetch_add(&h->coord->recovered_count, 1, __ATOMIC_RELAXED);
	h->recovery_ns += ph_os->clock_ns() - start_ns;
	return 0;
}
