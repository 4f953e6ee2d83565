/* SPDX-License-Identifier: MIT
 *
 * gate.h: the group lock: which kind of transaction may run now.
 *
 * What: one word says the mode that may run. A transaction announces itself in its own lane and looks at that word; who
 * needs another mode changes the word, fences every process and waits until no lane of another mode is active.
 * Why biased: concurrent transactions then share no cache line that anybody writes; the rare switch pays.
 *
 * Invariants
 *   G1  A lane that is active in mode m past ph_gate_enter excludes every lane of another mode (internal ones aside).
 *   G2  Pairing: announce, then load of the gate (here) against store of SWITCH, membarrier, then the look at the lanes.
 *   G3  EXCLUSIVE lanes exclude each other by the writer word.
 */
#ifndef PH_GATE_H
#define PH_GATE_H

#include "tx.h"
#include "word.h"

/* Makes the lane active in tx->mode. 0, -EAGAIN (nowait), -ETIMEDOUT, errors of recovery; on error the lane is idle. */
int ph_gate_enter_slow(pheap_tx *tx, bool nowait);
void ph_gate_wake(pheap_tx *tx);

static inline void ph_gate_announce(pheap_tx *tx)
{
	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, tx->mode, PHD_STEP_ACTIVE), __ATOMIC_RELEASE);
	if (__builtin_expect(tx->h->fenced, 0))
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		ph_order(); /* the switcher's membarrier makes this a full barrier when it matters (G2) */
}

static inline int ph_gate_enter(pheap_tx *tx, bool nowait)
{
	struct phd_coord *coord = tx->h->coord;

	ph_gate_announce(tx);
	if (__builtin_expect(__atomic_load_n(&coord->gate, __ATOMIC_ACQUIRE) == tx->mode, 1)) {
		if (tx->mode != PHD_MODE_EXCLUSIVE)
			return 0;
		if (__builtin_expect(ph_word_take_free(&coord->writer, tx->word), 1))
			return 0;
	}
	return ph_gate_enter_slow(tx, nowait);
}

/* After idle. */
static inline void ph_gate_leave(pheap_tx *tx)
{
	if (tx->mode == PHD_MODE_EXCLUSIVE) {
		if (__builtin_expect(!ph_word_drop_quiet(&tx->h->coord->writer, tx->word), 0))
			ph_gate_wake(tx);
	}
	if (__builtin_expect(__atomic_load_n(&tx->h->coord->gate, __ATOMIC_RELAXED) != tx->mode, 0))
		ph_gate_wake(tx);
}

#endif
