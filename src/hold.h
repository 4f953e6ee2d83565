/* SPDX-License-Identifier: MIT
 *
 * hold.h: held references: objects that live as long as some attached process holds them.
 *
 * What: one record for each object and member, in lists that hang from the heap head. A record belongs to an attachment; as
 * soon as that is no longer in the member table the record is void, so a death gives all holds of a process up at once, and
 * nothing has to be counted back. What is left to do, freeing objects that nobody holds any more, is an ordinary
 * transaction that whoever comes by makes: the reaper.
 * Why not a counter in the object: a count can not say whose it is, and is wrong for ever after a death in the wrong place.
 *
 * Invariants
 *   F1  An object is freed in the transaction that removes its last record that is not void.
 *   F2  A record is changed under the stripe of its bucket, or alone in the heap.
 *   F3  The row of a member with holds is marked as leaving, then coord->reap is raised, then the row goes. A reaper
 *       reads the number, then looks for rows that are leaving, then goes through all buckets; only if there was no such
 *       row does it raise coord->reaped to that number. Neither ever goes back, so nothing is taken for done that is not.
 *   F4  coord->hold_buckets names every list that had a record in this life of the heap; its bits are set before the first
 *       record is linked and not taken back. Without the lock only they may be looked at: an empty list may be the
 *       uncommitted store of another transaction.
 */
#ifndef PH_HOLD_H
#define PH_HOLD_H

#include "tx.h"

/* Is the object held? Then it can not be freed: 0, or -EBUSY with a sentence, or an error of locking. */
int ph_hold_free_check_bucket(pheap_tx *tx, uint64_t off);
static inline int ph_hold_free_check(pheap_tx *tx, uint64_t off)
{
	uint32_t bucket = PHD_HOLD_BUCKET(off);

	/* F4. */
	if (__builtin_expect(!(__atomic_load_n(&tx->coord->hold_buckets[bucket / 64], __ATOMIC_ACQUIRE) >>
				       bucket % 64 &
			       1),
			     1))
		return 0;
	return ph_hold_free_check_bucket(tx, off);
}
/* Frees what only the gone have held; `leaving`: an attachment that counts as gone, or 0. By a thread without an open
 * transaction. */
int ph_hold_reap(struct pheap *h, uint64_t leaving);
/* At the end of a call that may have recovered somebody. */
void ph_hold_reap_due(struct pheap *h);
/* First opener, when all rows are gone: calls the reaper if anybody held anything. */
void ph_hold_first(struct pheap *h);
bool ph_hold_due(const struct pheap *h);

#endif
