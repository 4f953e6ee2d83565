/* SPDX-License-Identifier: MIT
 *
 * root.h: names of blocks.
 *
 * What: 64 lists of entries in the heap head's buckets; entries are blocks, never freed, so a reader
 * without locks can walk them at any time. Entries become visible by PUBLISH records, so an aborted
 * creation was never seen.
 *
 * Invariants
 *   Q1  One entry per name: creating and rebinding hold the stripe of names to the end of the transaction.
 *   Q2  A removed name keeps its entry with off 0.
 */
#ifndef PH_ROOT_H
#define PH_ROOT_H

#include "tx.h"

uint64_t ph_root_private_size(const pheap_tx *tx);
void ph_root_forget(pheap_tx *tx, uint64_t savepoint_id);

#endif
