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
	if (tx->gate == PH_GATE_WRITER && !ph_word_drop_quiet(&tx->h->coord->writer, tx->word))
		ph_word_release_lock(&tx->h->coord->writer, tx->word);
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

static int drain_timeout(struct pheap *h, uint32_t i)
{
	char who[96];

	ph_member_describe(h, ph_member_of_lane(h, i), who, sizeof(who));
	return ph_error(h, -ETIMEDOUT, "waited too long for the open transaction of %s", who);
}

/* Waits until lane i is idle, or in the wanted mode, or recovered. */
static int lane_drain(pheap_tx *tx, uint32_t i, uint32_t mode, uint64_t start_ns)
{
	struct pheap *h = tx->h;
	struct ph_wait w = {.mine = tx->word, .note = PHD_WAIT_DRAIN};
	uint64_t asked_ns = start_ns;
	int rc = 0;

	for (int spin = 0; spin < DRAIN_SPIN_COUNT; spin++) {
		if (!lane_other(h, i, mode))
			return 0;
		ph_pause();
	}
	ph_word_note(h, &w,
		     PHD_WORD(PHD_STATE_GEN(__atomic_load_n(&h->lanes[i].state, __ATOMIC_RELAXED)), i));
	while (rc >= 0) {
		uint32_t seen = (uint32_t)__atomic_load_n(&h->coord->drain, __ATOMIC_ACQUIRE);

		if (!lane_other(h, i, mode))
			break;
		if (ph_os->clock_ns() - start_ns > h->lock_timeout_ns) {
			rc = drain_timeout(h, i);
			break;
		}
		(void)ph_os->futex_wait((const uint32_t *)(const void *)&h->coord->drain, seen, DRAIN_NAP_NS);
		if (ph_word_ask_due(&asked_ns, DRAIN_NAP_NS))
			rc = ph_member_check_lane(h, i);
	}
	ph_word_note_clear(h, &w);
	return rc < 0 ? rc : 0;
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
	for (uint32_t i = 0; i < ph_lane_limit(h) && rc == 0; i++)
		if (i != tx->lane_idx && lane_other(h, i, tx->mode))
			rc = lane_drain(tx, i, tx->mode, start_ns);
	if (rc)
		return rc;
	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, tx->mode, PHD_STEP_ACTIVE), __ATOMIC_RELEASE);
	__atomic_store_n(&h->coord->gate, to, __ATOMIC_RELEASE);
	return 0;
}

/* The word of who changes the mode. 0: taken; 1: no more need, the gate fits; or an error. */
static int switcher_take(pheap_tx *tx, uint64_t start_ns)
{
	struct pheap *h = tx->h;
	struct ph_wait w = {.mine = tx->word, .note = PHD_WAIT_SWITCH, .queued = true, .start_ns = start_ns};
	int rc = 0;

	while (rc == 0 && ph_word_try_wait(h, &h->coord->switcher, &w) == PH_BUSY)
		rc = gate_fits(tx, __atomic_load_n(&h->coord->gate, __ATOMIC_ACQUIRE))
			     ? 1
			     : ph_word_nap(h, &h->coord->switcher, &w, "the change of mode");
	ph_word_wait_end(h, &h->coord->switcher, &w, rc == 0);
	return rc;
}

/* The lane is idle. 0: it is active and the gate fits; 1: it is idle, look at the gate again; or an error, and it is
 * idle. */
static int gate_switch(pheap_tx *tx, uint64_t to, uint64_t start_ns)
{
	struct pheap *h = tx->h;
	uint64_t mine = tx->word, gate;
	int rc;

	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, PHD_MODE_INTERNAL, PHD_STEP_ACTIVE),
			 __ATOMIC_RELEASE);
	rc = switcher_take(tx, start_ns);
	if (rc) {
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
	/* All of them: whom the gate fits now does not need the word. */
	ph_word_release(&h->coord->switcher, mine);
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
	ph_word_release_lock(&tx->h->coord->writer, tx->word);
	lane_idle(tx);
	return gate_switch(tx, PHD_GATE_BIAS(tx->lane_idx), start_ns);
}

/* --- entering
 * -------------------------------------------------------------------------------------------------------- */

/* NOWAIT: who is in the way is not waited for, unless it is dead. 0: look again; -EAGAIN, or an error of recovery. */
static int lane_refuse(struct pheap *h, uint32_t lane_idx, const char *why)
{
	int rc = ph_member_check_lane(h, lane_idx);

	if (rc == 0)
		return ph_error(h, -EAGAIN, "%s", why);
	return rc < 0 ? rc : 0;
}

static int holder_refuse(struct pheap *h, const uint64_t *word, const char *why)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);

	return ph_word_held(h, seen) ? lane_refuse(h, PHD_WORD_LANE(seen), why) : 0;
}

/* The lane is active and saw the gate at EXCLUSIVE. 0: it has the writer word; 1: it is idle, look at the
 * gate again; else an error, and it is idle. */
static int writer_take(pheap_tx *tx, bool nowait, uint64_t start_ns)
{
	struct pheap *h = tx->h;
	struct ph_wait w = {.mine = tx->word, .note = PHD_WAIT_WRITER, .queued = true, .start_ns = start_ns};
	int rc = 0;

	while (rc == 0 && ph_word_try_wait(h, &h->coord->writer, &w) == PH_BUSY)
		if (nowait)
			rc = holder_refuse(h, &h->coord->writer,
					   "another transaction has the heap for itself");
		else if (__atomic_load_n(&h->coord->gate, __ATOMIC_ACQUIRE) != PHD_MODE_EXCLUSIVE)
			rc = 1; /* step aside while the mode changes: an active lane is waited for */
		else
			rc = ph_word_nap(h, &h->coord->writer, &w, "the exclusive transaction");
	ph_word_wait_end(h, &h->coord->writer, &w, rc == 0);
	if (rc) {
		lane_idle(tx);
		switcher_wake(h);
	}
	return rc;
}

/* NOWAIT: may the mode be changed without waiting for anybody? */
static int switch_refuse(pheap_tx *tx)
{
	struct pheap *h = tx->h;
	int rc = 0;

	while (rc == 0 && __atomic_load_n(&h->coord->gate, __ATOMIC_ACQUIRE) == PHD_MODE_SWITCH &&
	       ph_word_held(h, __atomic_load_n(&h->coord->switcher, __ATOMIC_ACQUIRE)))
		rc = holder_refuse(h, &h->coord->switcher, "the heap is changing its mode");
	for (uint32_t i = 0; rc == 0 && i < ph_lane_limit(h); i++)
		while (rc == 0 && i != tx->lane_idx && lane_other(h, i, tx->mode))
			rc = lane_refuse(h, i, "transactions of another mode are running");
	return rc;
}

/* The lane is active. After EXCLUSIVE it may still lack the writer word. 0; 1: it is idle, look again; or an error, and
 * it is idle. */
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
		    ph_word_take_free_lock(&tx->h->coord->writer, tx->word)) {
			tx->gate = PH_GATE_WRITER;
			if (nowait || !bias_due(tx))
				return 0;
			start_ns = ph_os->clock_ns();
			rc = bias_take(tx, start_ns);
		} else {
			if (start_ns == 0)
				start_ns = ph_os->clock_ns();
			rc = gate_pass(tx, nowait, start_ns);
			if (rc == 0 && tx->gate == PHD_MODE_EXCLUSIVE) {
				rc = writer_take(tx, nowait, start_ns);
				tx->gate = PH_GATE_WRITER;
			}
		}
		tx->extras |= tx->h->reap_due;
		if (rc <= 0)
			return rc;
		ph_gate_announce(tx, tx->mode, tx->h->fenced);
	}
}
