/* SPDX-License-Identifier: MIT
 *
 * shop.h: rings.h in a heap, together with blocks: what the victims of several tests change and what their
 * survivors look at.
 *
 * What: one change is one transaction: the rings by pheap_store and pheap_modify, a block allocated, the
 * oldest of four freed, its place set by pheap_defer_u64. So its death can leave a lane active or committed,
 * with records of each kind.
 */
#ifndef TEST_SHOP_H
#define TEST_SHOP_H

#include "pheap.h"
#include "rings.h"

#define SHOP_BLOCKS 4u
#define SHOP_BLOCK_TYPE 5u

struct shop {
	struct rings rings;
	uint64_t blocks[SHOP_BLOCKS]; /* offset of the block of change n: n % SHOP_BLOCKS */
};
PHEAP_DECLARE(struct shop, 4);

/* Made in an open heap that has none, committed. */
const struct shop *shop_make(pheap *h);
const struct shop *shop_find(pheap *h);
/* The next change, in an open transaction that has the shop for itself. */
void shop_change(pheap_tx *tx, const struct shop *shop);
/* Blocks and their contents against the number of changes; NULL: they fit. In a transaction that excludes
 * changes. */
const char *shop_fault(const pheap *h, const struct shop *shop);

#endif
