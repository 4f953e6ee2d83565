/* SPDX-License-Identifier: MIT
 *
 * gate.h: the group lock: which kind of transaction may run now.
 *
 * What: one word says the mode that may run. A transaction announces itself in its own lane and looks at
 * that word; who needs another mode changes the word, fences every process and waits until no lane of
 * another mode is active.
 * Why biased: concurrent transactions then share no cache line that anybody writes; the rare switch pays.
 * The same is done for exclusive ones: while one lane alone runs them the gate names that lane, and no
 * atomic operation is left.
 *
 * Gate values: NONE (after open), CONCURRENT, READ, EXCLUSIVE (lanes exclude each other by the writer
 * word), BIAS(lane) (only that lane, without the writer word), SWITCH (being changed; left behind by a
 * death, the next one changes it).
 *
 * Invariants
 *   G1  A lane that is active in mode m past ph_gate_enter excludes every lane of another mode (internal
 *       ones aside).
 *   G2  Pairing: announce, then load of the gate (here) against store of SWITCH, membarrier, then the look
 *       at the lanes.
 *   G3  EXCLUSIVE lanes exclude each other: by the writer word, or because the gate names one of them. The
 *       gate becomes EXCLUSIVE or BIAS only when no other lane is active at all.
 */
#ifndef PH_GATE_H
#define PH_GATE_H

#include "tx.h"
#include "word.h"

/* tx->gate of who holds the writer word: no value of the gate, so that it leaves by the long way. */
#define PH_GATE_WRITER UINT64_MAX

/* Makes the lane active in tx->mode. 0, -EAGAIN (nowait), -ETIMEDOUT, errors of recovery; on error the lane
 * is idle. */
int ph_gate_enter_slow(pheap_tx *tx, bool nowait);
void ph_gate_leave_slow(pheap_tx *tx); /* gives the writer word back, and wakes */

static inline void ph_gate_announce(const pheap_tx *tx, uint32_t mode, bool fenced)
{
	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, mode, PHD_STEP_ACTIVE), __ATOMIC_RELEASE);
	if (__builtin_expect(fenced, 0))
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		ph_order(); /* the switcher's membarrier makes this a full barrier when it matters (G2) */
}

/* mode is tx->mode, as a constant where the caller knows it. False: to be entered slowly. */
static inline bool ph_gate_enter(pheap_tx *tx, uint32_t mode, bool fenced)
{
	uint64_t wanted = mode == PHD_MODE_EXCLUSIVE ? tx->bias : mode;

	ph_gate_announce(tx, mode, fenced);
	tx->gate = wanted;
	return __builtin_expect(__atomic_load_n(&tx->coord->gate, __ATOMIC_ACQUIRE) == wanted, 1);
}

/* After idle. A gate that is not what let us in: somebody waits for us, or the writer word is ours. */
static inline bool ph_gate_stays(const pheap_tx *tx)
{
	return __atomic_load_n(&tx->coord->gate, __ATOMIC_RELAXED) == tx->gate;
}

static inline void ph_gate_leave(pheap_tx *tx)
{
	if (__builtin_expect(!ph_gate_stays(tx), 0))
		ph_gate_leave_slow(tx);
}

#endif
