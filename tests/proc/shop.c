/* SPDX-License-Identifier: MIT
 *
 * shop.c: see shop.h.
 */
#include "shop.h"

#include "crowd.h"

static void heap_put(void *ctx, const uint64_t *where, uint64_t value)
{
	pheap_tx *tx = ctx;
	uint64_t *p;

	if (value % 2) {
		(void)pheap_store(tx, where, &value, sizeof(value));
		return;
	}
	p = pheap_modify(tx, where, sizeof(*where));
	if (p)
		*p = value;
}

const struct shop *shop_make(pheap *h)
{
	pheap_tx *tx = crowd_tx(h, 0);
	const struct shop *shop = PHEAP_ROOT(tx, "shop", struct shop);
	struct shop *now = shop ? PHEAP_MODIFY(tx, shop) : NULL;

	if (now)
		rings_make(&now->rings);
	crowd_commit(tx);
	return shop;
}

const struct shop *shop_find(pheap *h)
{
	const struct shop *shop = pheap_find(h, "shop");

	crowd_must(shop ? 0 : -ENOENT, "the shop");
	return shop;
}

void shop_change(pheap_tx *tx, const struct shop *shop)
{
	const uint64_t *slot = &shop->blocks[shop->rings.changes % SHOP_BLOCKS];
	uint64_t seal = ~shop->rings.changes, off;
	uint64_t *block;

	rings_change(&shop->rings, heap_put, tx);
	block = pheap_alloc(tx, 40, SHOP_BLOCK_TYPE);
	if (block)
		*block = seal;
	off = pheap_offset(pheap_heap(tx), block);
	(void)pheap_free(tx, pheap_at(pheap_heap(tx), *slot));
	(void)pheap_defer_u64(tx, slot, off);
}

const char *shop_fault(const pheap *h, const struct shop *shop)
{
	uint64_t changes = shop->rings.changes, used = 0;

	for (unsigned i = 0; i < SHOP_BLOCKS; i++) {
		const uint64_t *block = pheap_at(h, shop->blocks[i]);

		if (!block)
			continue;
		used++;
		if (pheap_usable_size(h, block) < 40 || pheap_type_of(h, block) != SHOP_BLOCK_TYPE)
			return "a block of the shop is not allocated";
		/* the last change of that slot */
		if (changes < SHOP_BLOCKS ? *block != ~(uint64_t)i
					  : ~*block % SHOP_BLOCKS != i || ~*block + SHOP_BLOCKS < changes)
			return "a block of the shop has another change's contents";
	}
	if (used != (changes < SHOP_BLOCKS ? changes : SHOP_BLOCKS))
		return "the shop has not as many blocks as changes were made";
	return crowd_count(h, SHOP_BLOCK_TYPE) == used ? NULL : "a block of the shop's type is nobody's";
}
