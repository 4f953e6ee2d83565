/* SPDX-License-Identifier: MIT
 *
 * redo.h: the commit record of a transaction: what it has changed, with the new values.
 *
 * Invariants
 *   R1  A record is built from what the transaction itself has locked: its undo ranges, its fresh blocks, its log.
 *   R2  It is appended in the epoch in which all that is stored after it is leased.
 */
#ifndef PH_REDO_H
#define PH_REDO_H

#include "tx.h"

/* Through the commit point: latches taken, the record in the log, the lane appending; its end is tx->lsn. Or nothing has
 * happened, and the transaction is to be undone. Without a change there is no record: tx->lsn is the log's end. */
int ph_redo_append(pheap_tx *tx);

/* EPOCH: says that it is about to commit, and looks at the epoch. False: it is being switched, and the lane is active. */
static inline bool ph_redo_look(pheap_tx *tx)
{
	struct pheap *h = tx->h;
	struct phd_coord *c = h->coord;
	uint64_t now;

	/* Who switches sets the epoch's bit, has all members fence, and looks at the lanes. So either the bit is seen here, and
	 * nothing is done before the switch is over; or the lane is seen looking, and who switches waits until it is active,
	 * committed or idle. Killed while it looks: undone. Pairs with checkpoint.c:switch_locked. */
	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, tx->mode, PHD_STEP_LOOKING), __ATOMIC_RELEASE);
	if (__builtin_expect(h->fenced, 0))
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		ph_order();
	now = __atomic_load_n(&c->epoch, __ATOMIC_ACQUIRE);
	if (__builtin_expect(now & 1, 0)) {
		__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, tx->mode, PHD_STEP_ACTIVE),
				 __ATOMIC_RELEASE);
		return false;
	}
	tx->lsn = now + 8; /* above this epoch, not above the next */
	if (__atomic_load_n(&c->changed, __ATOMIC_RELAXED) != now)
		__atomic_store_n(&c->changed, now, __ATOMIC_RELEASE);
	return true;
}

/* EPOCH: through the commit point, which is the lane's step as without a WAL. */
int ph_redo_commit_epoch(pheap_tx *tx);

/* n bytes more go into the record: 0, or -E2BIG when that would be too long. */
int ph_redo_count(pheap_tx *tx, uint64_t n);

/* What was chosen for the transaction may be stored to when this returns 0. The latter says whether the bytes are written to the
 * file at commit, in place of the record. */
int ph_redo_fresh(struct pheap *h, uint64_t word, uint64_t off, uint64_t n);
int ph_redo_fresh_extent(struct pheap *h, uint64_t word, uint64_t chunk, uint64_t count, bool *ret_flushed);

#endif
