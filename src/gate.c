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
	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen + 1, PHD_MODE_NONE, PHD_STEP_IDLE),
			 __ATOMIC_RELEASE);
	tx->gen++;
	tx->word = PHD_WORD(tx->gen, tx->lane_idx);
}

static void switcher_wake(struct pheap *h)
{
	if (__atomic_load_n(&h->coord->gate, __ATOMIC_ACQUIRE) != PHD_MODE_SWITCH)
		return;
	__atomic_fetch_add(&h->coord->drain, 1, __ATOMIC_ACQ_REL);
	ph_os->futex_wake((const uint32_t *)(const void *)&h->coord->drain, 0x7fffffff);
}

void ph_gate_leave_slow(pheap_tx *tx)
{
	if (tx->gate == PHD_MODE_EXCLUSIVE && !ph_word_drop_quiet(&tx->h->coord->writer, tx->word))
		ph_word_release(tx->h, &tx->h->coord->writer, tx->word);
	switcher_wake(tx->h);
}

/* Is lane i active in a way that the mode excludes? Exclusive ones exclude each other too (G3). */
static bool lane_other(const struct pheap *h, uint32_t i, uint32_t mode)
{
	uint64_t state = __atomic_load_n(&h->lanes[i].state, __ATOMIC_ACQUIRE);
	unsigned other = PHD_STATE_MODE(state);

	return PHD_STATE_STEP(state) != PHD_STEP_IDLE && other != PHD_MODE_INTERNAL &&
	       (other != mode || mode == PHD_MODE_EXCLUSIVE);
}

/* Waits until lane i is idle, or in the wanted mode, or recovered. */
static int lane_drain(pheap_tx *tx, uint32_t i, uint32_t mode, uint64_t start_ns)
{
	struct pheap *h = tx->h;

	for (int spin = 0; spin < DRAIN_SPIN_COUNT; spin++) {
		if (!lane_other(h, i, mode))
			return 0;
		ph_pause();
	}
	for (;;) {
		uint32_t seen = (uint32_t)__atomic_load_n(&h->coord->drain, __ATOMIC_ACQUIRE);
		int rc;

		if (!lane_other(h, i, mode))
			return 0;
		if (ph_os->clock_ns() - start_ns > h->lock_timeout_ns) {
			char who[64];

			ph_member_describe(h, ph_member_of_lane(h, i), who, sizeof(who));
			return ph_error(h, -ETIMEDOUT,
					"waited too long for the open transaction of %s, which is alive",
					who);
		}
		if (ph_os->futex_wait((const uint32_t *)(const void *)&h->coord->drain, seen, DRAIN_NAP_NS) !=
		    -ETIMEDOUT)
			continue;
		rc = ph_member_check_lane(h, i);
		if (rc < 0)
			return rc;
	}
}

static bool gate_fits(const pheap_tx *tx, uint64_t gate)
{
	return gate == tx->mode || (tx->mode == PHD_MODE_EXCLUSIVE && gate == PHD_GATE_BIAS(tx->lane_idx));
}

/* Lane active as INTERNAL and holding the switch word; leaves it active in tx->mode with the gate open for
 * it, or fails. */
static int gate_change(pheap_tx *tx, uint64_t to, uint64_t start_ns)
{
	struct pheap *h = tx->h;
	int rc = 0;

	/* No order needed against a death: a gate left at SWITCH makes whoever begins next switch again. */
	__atomic_store_n(&h->coord->gate, PHD_MODE_SWITCH, __ATOMIC_SEQ_CST);
	ph_os->fence_all();
	for (uint32_t i = 0; i < h->super.lane_count && rc == 0; i++)
		if (i != tx->lane_idx && lane_other(h, i, tx->mode))
			rc = lane_drain(tx, i, tx->mode, start_ns);
	if (rc)
		return rc;
	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, tx->mode, PHD_STEP_ACTIVE), __ATOMIC_RELEASE);
	__atomic_store_n(&h->coord->gate, to, __ATOMIC_RELEASE);
	return 0;
}

/* The lane is idle; on success it is active and the gate fits, on error it is idle again. */
static int gate_switch(pheap_tx *tx, uint64_t to, uint64_t start_ns)
{
	struct pheap *h = tx->h;
	uint64_t mine = tx->word, gate;
	int rc;

	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, PHD_MODE_INTERNAL, PHD_STEP_ACTIVE),
			 __ATOMIC_RELEASE);
	rc = ph_word_take(h, &h->coord->switcher, tx->word, "the change of mode");
	if (rc < 0) {
		lane_idle(tx);
		return rc;
	}
	gate = __atomic_load_n(&h->coord->gate, __ATOMIC_ACQUIRE);
	tx->gate = to;
	if (to == tx->mode && gate_fits(tx, gate)) {
		tx->gate = gate;
		/* Somebody switched to our mode meanwhile; nobody can switch away while we hold the word. */
		__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, tx->mode, PHD_STEP_ACTIVE),
				 __ATOMIC_RELEASE);
		rc = 0;
	} else {
		rc = gate_change(tx, to, start_ns);
	}
	if (rc)
		lane_idle(tx);
	ph_word_release(h, &h->coord->switcher, mine);
	return rc;
}

/* --- bias
 * ------------------------------------------------------------------------------------------------------------ */

#define BIAS_LIMIT_MIN 64u
#define BIAS_LIMIT_MAX 65536u

/* What to switch to for this transaction. Taking a bias away makes the next one harder to get, so two lanes
 * that take turns end up with the writer word, which is right for them. */
static uint64_t switch_target(pheap_tx *tx, uint64_t gate)
{
	struct phd_coord *coord = tx->h->coord;

	if (tx->mode != PHD_MODE_EXCLUSIVE)
		return tx->mode;
	if (gate == PHD_MODE_NONE) {
		__atomic_store_n(&coord->bias_limit, BIAS_LIMIT_MIN, __ATOMIC_RELAXED);
		return PHD_GATE_BIAS(tx->lane_idx);
	}
	if (gate > PHD_MODE_SWITCH) {
		uint64_t limit = __atomic_load_n(&coord->bias_limit, __ATOMIC_RELAXED);

		if (limit < BIAS_LIMIT_MAX)
			__atomic_store_n(&coord->bias_limit, limit ? limit * 2 : BIAS_LIMIT_MIN,
					 __ATOMIC_RELAXED);
	}
	return PHD_MODE_EXCLUSIVE;
}

/* The writer word was free at once. True: this lane has been alone for so long that the gate should name
 * it. */
static bool bias_due(pheap_tx *tx)
{
	struct phd_coord *coord = tx->h->coord;

	if (coord->writer_last != tx->lane_idx + 1u) {
		coord->writer_last = tx->lane_idx + 1u;
		tx->exclusive_row = 0;
	}
	return ++tx->exclusive_row > __atomic_load_n(&coord->bias_limit, __ATOMIC_RELAXED);
}

/* The lane is active in EXCLUSIVE mode and holds the writer word; afterwards the gate names it, if nobody
 * is in the way. */
static int bias_take(pheap_tx *tx, uint64_t start_ns)
{
	tx->exclusive_row = 0;
	ph_word_release(tx->h, &tx->h->coord->writer, tx->word);
	lane_idle(tx);
	return gate_switch(tx, PHD_GATE_BIAS(tx->lane_idx), start_ns);
}

/* --- entering
 * -------------------------------------------------------------------------------------------------------- */

/* The lane is active and saw the gate at EXCLUSIVE. 0: it has the writer word; 1: it is idle, look at the
 * gate again; else an error, and it is idle. */
static int writer_take(pheap_tx *tx, bool nowait, uint64_t start_ns)
{
	struct pheap *h = tx->h;
	uint64_t nap_ns = 0;

	for (;;) {
		uint64_t seen;
		int rc = 0;

		if (ph_word_try(h, &h->coord->writer, tx->word) != PH_BUSY)
			return 0;
		seen = __atomic_load_n(&h->coord->writer, __ATOMIC_ACQUIRE);
		if (nowait)
			rc = ph_error(h, -EAGAIN, "another transaction has the heap for itself");
		else if (__atomic_load_n(&h->coord->gate, __ATOMIC_ACQUIRE) != PHD_MODE_EXCLUSIVE)
			rc = 1; /* step aside while the mode changes: an active lane is waited for */
		else if (!ph_word_held(h, seen))
			continue;
		else if (ph_os->clock_ns() - start_ns > h->lock_timeout_ns)
			rc = ph_word_timeout(h, seen, "the exclusive transaction");
		else
			rc = ph_word_wait(h, &h->coord->writer, seen, &nap_ns);
		if (rc) {
			lane_idle(tx);
			switcher_wake(h);
			return rc;
		}
	}
}

/* NOWAIT: may the mode be changed without waiting for anybody? */
static int switch_refuse(pheap_tx *tx)
{
	struct pheap *h = tx->h;

	if (__atomic_load_n(&h->coord->gate, __ATOMIC_ACQUIRE) == PHD_MODE_SWITCH &&
	    ph_word_held(h, __atomic_load_n(&h->coord->switcher, __ATOMIC_ACQUIRE)))
		return ph_error(h, -EAGAIN, "the heap is changing its mode");
	for (uint32_t i = 0; i < h->super.lane_count; i++)
		if (i != tx->lane_idx && lane_other(h, i, tx->mode))
			return ph_error(h, -EAGAIN, "transactions of another mode are running");
	return 0;
}

/* The lane is active. After EXCLUSIVE it may still lack the writer word. 0, or an error and it is idle. */
static int gate_pass(pheap_tx *tx, bool nowait, uint64_t start_ns)
{
	uint64_t gate = __atomic_load_n(&tx->h->coord->gate, __ATOMIC_ACQUIRE);
	int rc;

	if (!gate_fits(tx, gate)) {
		lane_idle(tx);
		switcher_wake(tx->h); /* it may have seen us active */
		rc = nowait ? switch_refuse(tx) : 0;
		return rc ? rc : gate_switch(tx, switch_target(tx, gate), start_ns);
	}
	tx->gate = gate;
	return 0;
}

int ph_gate_enter_slow(pheap_tx *tx, bool nowait)
{
	uint64_t start_ns = 0;
	int rc;

	for (;;) {
		if (tx->mode == PHD_MODE_EXCLUSIVE && start_ns == 0 &&
		    __atomic_load_n(&tx->h->coord->gate, __ATOMIC_ACQUIRE) == PHD_MODE_EXCLUSIVE &&
		    ph_word_take_free(&tx->h->coord->writer, tx->word)) {
			tx->gate = PHD_MODE_EXCLUSIVE;
			if (nowait || !bias_due(tx))
				return 0;
			start_ns = ph_os->clock_ns();
			return bias_take(tx, start_ns);
		}
		if (start_ns == 0)
			start_ns = ph_os->clock_ns();
		rc = gate_pass(tx, nowait, start_ns);
		if (rc || tx->gate != PHD_MODE_EXCLUSIVE)
			return rc;
		rc = writer_take(tx, nowait, start_ns);
		if (rc <= 0)
			return rc;
		ph_gate_announce(tx, tx->h, tx->mode);
	}
}
