/* SPDX-License-Identifier: MIT
 *
 * reserve.h: blocks filled outside of any transaction, made real by one.
 *
 * What: a reserved block lies in a run, or in chunks, whose owner word names this member. Nothing durable
 * says so: when the process dies, its words are free and the block never was.
 *
 * Invariants
 *   V1  A reserved block is in this process's table and nowhere else, until a transaction that published it
 *       commits.
 *   V2  pending is set iff an open transaction has a record that would make it allocated.
 */
#ifndef PH_RESERVE_H
#define PH_RESERVE_H

#include "tx.h"

struct ph_published {
	uint64_t off;
	uint64_t serial; /* savepoint serial when it was published */
};

uint64_t ph_reserve_private_size(const struct pheap *h); /* under h->lock */
void ph_reserve_close(struct pheap *h);
void ph_reserve_settle(pheap_tx *tx, bool committed); /* after the transaction ended */
void ph_reserve_forget(pheap_tx *tx, uint64_t savepoint_id);
bool ph_reserve_find(const struct pheap *h, uint64_t off, struct ph_block *ret);

#endif
