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

#include "mutant.h"
#include "tx.h"

/* Through the commit point: latches taken, the record in the log, the lane appending; its end is tx->lsn. Or nothing has
 * happened, and the transaction is to be undone. Without a change there is no record: tx->lsn is the log's end. */
int ph_redo_append(pheap_tx *tx);

/* EPOCH, nothing but undo: may it go idle? Not while the epoch is being switched: lanes are copied one after the other, and who
 * depends on this one could be seen idle behind it, when this one was seen active. If the bit is set just behind this look, who
 * depends on it finds it idle behind that, and looks in vain. */
static inline bool ph_redo_look(uint64_t epoch)
{
	return !(epoch & 1) || PH_MUTANT(PH_MUTANT_LOOK_NONE);
}

/* Just idle: which checkpoint has it? Who switches sets switch_lsn and the epoch's bit, has all members fence, and copies the
 * lanes. So either the bit is not seen here, and the lane was seen idle: the checkpoint of that switch has it. Or it is: the lane
 * was perhaps seen active, and its undo copied, so only the next checkpoint has it for sure. A caller that fences has done so.
 * Pairs with checkpoint.c:switch_locked. */
void ph_redo_ticket_any(pheap_tx *tx);

/* With what the look saw: the common case is that nothing has changed since, and that others have changed something in this
 * epoch before. */
static inline void ph_redo_ticket(pheap_tx *tx, uint64_t epoch)
{
	const struct phd_coord *c = tx->coord;

	ph_order();
	if (__builtin_expect(__atomic_load_n(&c->epoch, __ATOMIC_ACQUIRE) == epoch &&
				     __atomic_load_n(&c->changed, __ATOMIC_RELAXED) >= epoch &&
				     !PH_MUTANT(PH_MUTANT_LOOK_NONE),
			     1))
		tx->lsn = epoch + 8; /* above this epoch, not above the next */
	else
		ph_redo_ticket_any(tx);
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
