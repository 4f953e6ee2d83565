/* SPDX-License-Identifier: MIT
 *
 * gate.c: the slow side of the group lock: changing the mode, and waiting for the writer.
 */
#include "gate.h"

#include <errno.h>

#include "error.h"
#include "member.h"
#include "os.h"
#include "word.h"

#define DRAIN_NAP_NS 1000000ull
#define DRAIN_SPIN_COUNT 200

static void lane_idle(pheap_tx *tx)
{
	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen + 1, PHD_MODE_NONE, PHD_STEP_IDLE), __ATOMIC_RELEASE);
	tx->gen++;
	tx->word = PHD_WORD(tx->gen, tx->lane_idx);
}

void ph_gate_wake(pheap_tx *tx)
{
	struct phd_coord *coord = tx->h->coord;

	if (tx->mode == PHD_MODE_EXCLUSIVE)
		ph_word_release(tx->h, &coord->writer, tx->word);
	if (__atomic_load_n(&coord->gate, __ATOMIC_ACQUIRE) == PHD_MODE_SWITCH) {
		__atomic_fetch_add(&coord->drain, 1, __ATOMIC_ACQ_REL);
		ph_os->futex_wake((const uint32_t *)(const void *)&coord->drain, 0x7fffffff);
	}
}

static bool lane_other(const struct pheap *h, uint32_t i, uint32_t mode)
{
	uint64_t state = __atomic_load_n(&h->lanes[i].state, __ATOMIC_ACQUIRE);
	unsigned other = PHD_STATE_MODE(state);

	return PHD_STATE_STEP(state) != PHD_STEP_IDLE && other != mode && other != PHD_MODE_INTERNAL;
}

/* Waits until lane i is idle, or in the wanted mode, or recovered. */
static int lane_drain(pheap_tx *tx, uint32_t i, uint32_t mode, uint64_t start_ns)
{
	struct pheap *h = tx->h;

	for (int spin = 0; spin < DRAIN_SPIN_COUNT; spin++) {
		if (!lane_other(h, i, mode))
			return 0;
		__builtin_ia32_pause();
	}
	for (;;) {
		uint32_t seen = (uint32_t)__atomic_load_n(&h->coord->drain, __ATOMIC_ACQUIRE);
		int rc;

		if (!lane_other(h, i, mode))
			return 0;
		if (ph_os->clock_ns() - start_ns > h->lock_timeout_ns) {
			char who[64];

			ph_member_describe(h, ph_member_of_lane(h, i), who, sizeof(who));
			return ph_error(h, -ETIMEDOUT, "waited too long for the open transaction of %s, which is alive", who);
		}
		if (ph_os->futex_wait((const uint32_t *)(const void *)&h->coord->drain, seen, DRAIN_NAP_NS) != -ETIMEDOUT)
			continue;
		rc = ph_member_check_lane(h, i);
		if (rc < 0)
			return rc;
	}
}

/* Lane active as INTERNAL and holding the switch word; leaves it active in tx->mode with the gate open for it, or fails. */
static int gate_change(pheap_tx *tx, uint64_t start_ns)
{
	struct pheap *h = tx->h;
	int rc = 0;

	/* ORDER-free: a death while the gate says SWITCH leaves it so; whoever begins next sees it and switches again. */
	__atomic_store_n(&h->coord->gate, PHD_MODE_SWITCH, __ATOMIC_SEQ_CST);
	ph_os->fence_all();
	for (uint32_t i = 0; i < h->super.lane_count && rc == 0; i++)
		if (i != tx->lane_idx && lane_other(h, i, tx->mode))
			rc = lane_drain(tx, i, tx->mode, start_ns);
	if (rc)
		return rc;
	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, tx->mode, PHD_STEP_ACTIVE), __ATOMIC_RELEASE);
	__atomic_store_n(&h->coord->gate, tx->mode, __ATOMIC_RELEASE);
	return 0;
}

static int gate_switch(pheap_tx *tx, uint64_t start_ns)
{
	struct pheap *h = tx->h;
	int rc;

	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, PHD_MODE_INTERNAL, PHD_STEP_ACTIVE), __ATOMIC_RELEASE);
	rc = ph_word_take(h, &h->coord->switcher, tx->word, "the change of mode");
	if (rc < 0) {
		lane_idle(tx);
		return rc;
	}
	if (__atomic_load_n(&h->coord->gate, __ATOMIC_ACQUIRE) == tx->mode) {
		/* Somebody switched to our mode meanwhile; nobody can switch away while we hold the word. */
		__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, tx->mode, PHD_STEP_ACTIVE), __ATOMIC_RELEASE);
		rc = 0;
	} else {
		rc = gate_change(tx, start_ns);
	}
	if (rc) {
		uint64_t mine = tx->word;

		lane_idle(tx);
		ph_word_release(h, &h->coord->switcher, mine);
		return rc;
	}
	ph_word_release(h, &h->coord->switcher, tx->word);
	return 0;
}

/* The lane is active in EXCLUSIVE mode with the gate open. On error it is idle. */
static int writer_take(pheap_tx *tx, bool nowait)
{
	struct pheap *h = tx->h;
	uint64_t nap_ns = 0, start_ns = 0;

	for (;;) {
		uint64_t seen;
		int rc;

		if (ph_word_try(h, &h->coord->writer, tx->word) != PH_BUSY)
			return 0;
		if (nowait) {
			lane_idle(tx);
			return ph_error(h, -EAGAIN, "another transaction has the heap for itself");
		}
		/* A waiter steps aside while the mode changes: its lane would look like a running transaction. */
		if (__atomic_load_n(&h->coord->gate, __ATOMIC_ACQUIRE) != PHD_MODE_EXCLUSIVE) {
			lane_idle(tx);
			return 1;
		}
		seen = __atomic_load_n(&h->coord->writer, __ATOMIC_ACQUIRE);
		if (!ph_word_held(h, seen))
			continue;
		if (start_ns == 0)
			start_ns = ph_os->clock_ns();
		if (ph_os->clock_ns() - start_ns > h->lock_timeout_ns) {
			lane_idle(tx);
			return ph_word_timeout(h, seen, "the exclusive transaction");
		}
		rc = ph_word_wait(h, &h->coord->writer, seen, &nap_ns);
		if (rc) {
			lane_idle(tx);
			return rc;
		}
	}
}

int ph_gate_enter_slow(pheap_tx *tx, bool nowait)
{
	struct pheap *h = tx->h;
	uint64_t start_ns = ph_os->clock_ns();
	int rc;

	for (;;) {
		ph_gate_announce(tx);
		if (__atomic_load_n(&h->coord->gate, __ATOMIC_ACQUIRE) != tx->mode) {
			lane_idle(tx);
			ph_gate_wake(tx); /* a switcher may have seen us active */
			if (nowait && __atomic_load_n(&h->coord->gate, __ATOMIC_ACQUIRE) == PHD_MODE_SWITCH)
				return ph_error(h, -EAGAIN, "the heap is changing its mode");
			if (nowait)
				for (uint32_t i = 0; i < h->super.lane_count; i++)
					if (i != tx->lane_idx && lane_other(h, i, tx->mode))
						return ph_error(h, -EAGAIN, "transactions of another mode are running");
			rc = gate_switch(tx, start_ns);
			if (rc)
				return rc;
		}
		if (tx->mode != PHD_MODE_EXCLUSIVE)
			return 0;
		rc = writer_take(tx, nowait);
		if (rc <= 0)
			return rc;
	}
}
