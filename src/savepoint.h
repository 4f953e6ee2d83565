/* SPDX-License-Identifier: MIT
 *
 * savepoint.h: returning to a place inside a transaction.
 *
 * Invariants
 *   P1  Coverage and "fresh" hold since the latest savepoint only: setting one forgets them.
 *   P2  Rollback: bytes back, then `used` lowered, then private tables cut. Locks stay.
 *   P3  Records before the latest savepoint are never rewritten without a REVIVE record.
 */
#ifndef PH_SAVEPOINT_H
#define PH_SAVEPOINT_H

#include "tx.h"

int ph_savepoint_push(pheap_tx *tx, uint32_t nest);
void ph_savepoint_rollback_top(pheap_tx *tx); /* to the innermost nested begin */
void ph_savepoint_pop_nest(pheap_tx *tx);

/* Records at or beyond this position may be changed in place. */
static inline uint64_t ph_savepoint_floor(const pheap_tx *tx)
{
	return tx->savepoint_count ? tx->savepoints[tx->savepoint_count - 1].end : 0;
}

#endif
