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

/* EPOCH: through the commit point, which is the lane's step as without a WAL. */
int ph_redo_commit_epoch(pheap_tx *tx);

/* What was chosen for the transaction may be stored to when this returns 0. The latter says whether the bytes are written to the
 * file at commit, in place of the record. */
int ph_redo_fresh(struct pheap *h, uint64_t word, uint64_t off, uint64_t n);
int ph_redo_fresh_extent(struct pheap *h, uint64_t word, uint64_t chunk, uint64_t count, bool *ret_flushed);

#endif
