/* SPDX-License-Identifier: MIT
 *
 * reserve.c: see reserve.h.
 */
#include "reserve.h"

#include <errno.h>
#include <stdlib.h>

#include "error.h"
#include "redo.h"
#include "thread.h"
#include "word.h"

#define RUN_WORDS (PHD_RUN_COUNT_MAX * 4)
#define SLOT_DEAD UINT32_MAX

struct reserved_run {
	uint64_t head, desc;
	uint64_t chosen[RUN_WORDS];
};

struct reserved {
	struct ph_block block;
	uint32_t run; /* index, for blocks in runs */
	bool flushed; /* as ph_desc_op */
	bool pending;
};

struct ph_reserve {
	struct reserved_run *runs;
	uint32_t run_count, run_room;
	struct reserved *items;
	uint32_t count, room;
	struct ph_map map; /* offset -> index in items, or SLOT_DEAD */
};

/* All under h->lock. */

static uint64_t member_word(const struct pheap *h)
{
	return PHD_WORD(h->member_id, PHD_WORD_MEMBER + h->slot);
}

static struct reserved *item_find(const struct pheap *h, uint64_t off)
{
	int64_t i = h->reserve ? ph_map_get(&h->reserve->map, off) : -1;

	return i < 0 || i == (int64_t)SLOT_DEAD ? NULL : &h->reserve->items[i];
}

static bool item_add(struct ph_reserve *r, const struct ph_block *b, uint32_t run)
{
	if (!ph_room(&r->items, &r->room, r->count + 1, sizeof(*r->items)) ||
	    !ph_map_put(&r->map, b->off, r->count))
		return false;
	r->items[r->count++] = (struct reserved){.block = *b, .run = run};
	return true;
}

static void item_remove(struct ph_reserve *r, struct reserved *item)
{
	(void)ph_map_put(&r->map, item->block.off, SLOT_DEAD); /* the key is there: no memory needed */
	*item = r->items[--r->count];
	if (item != &r->items[r->count])
		(void)ph_map_put(&r->map, item->block.off, (uint32_t)(item - r->items));
	if (r->map.count > 64 && r->map.count / 4 > r->count) {
		ph_map_clear(&r->map);
		for (uint32_t i = 0; i < r->count; i++)
			(void)ph_map_put(&r->map, r->items[i].block.off, i);
	}
}

static bool run_pick(const struct pheap *h, const struct reserved_run *run, struct ph_block *b)
{
	uint32_t blocks = ph_run_blocks(run->desc);

	for (uint32_t w = 0; w * 64 < blocks; w++) {
		uint64_t avail =
			~(__atomic_load_n(&h->bits[run->head * 4 + w], __ATOMIC_ACQUIRE) | run->chosen[w]);
		uint32_t bit;

		if (blocks - w * 64 < 64)
			avail &= (1ull << (blocks - w * 64)) - 1;
		if (!avail)
			continue;
		bit = (uint32_t)__builtin_ctzll(avail);
		*b = (struct ph_block){
			.size = PHD_DESC_BLOCK_SIZE(run->desc),
			.head = run->head,
			.desc = run->desc,
			.word_idx = run->head * 4 + w,
			.mask = 1ull << bit,
			.run = true,
		};
		b->off = ph_chunk_off(h, run->head) + (w * 64ull + bit) * b->size;
		return true;
	}
	return false;
}

static int reserve_small(pheap_tx *tx, struct ph_reserve *r, size_t n, uint32_t type, uint64_t *ret_off)
{
	struct pheap *h = tx->h;
	uint64_t key = PHD_DESC_MAKE_RUN(type, ph_run_class(n), 1), head, desc;
	struct ph_block b;
	uint32_t i;
	int rc;

	for (i = 0; i < r->run_count; i++)
		if (PHD_DESC_TYPE(r->runs[i].desc) == type &&
		    PHD_DESC_BLOCK_SIZE(r->runs[i].desc) == PHD_DESC_BLOCK_SIZE(key) &&
		    run_pick(h, &r->runs[i], &b))
			break;
	if (i == r->run_count) {
		if (!ph_room(&r->runs, &r->run_room, r->run_count + 1, sizeof(*r->runs)))
			return -ENOMEM;
		rc = ph_run_get(tx, member_word(h), key, &head, &desc);
		if (rc)
			return rc;
		r->runs[r->run_count++] = (struct reserved_run){.head = head, .desc = desc};
		if (!run_pick(h, &r->runs[i], &b))
			return -ENOSPC;
	}
	if (!item_add(r, &b, i))
		return -ENOMEM;
	r->runs[i].chosen[b.word_idx - b.head * 4] |= b.mask;
	*ret_off = b.off;
	return 0;
}

static int reserve_extent(pheap_tx *tx, struct ph_reserve *r, size_t n, uint32_t type, uint64_t *ret_off)
{
	struct pheap *h = tx->h;
	uint64_t count = (n + PHD_CHUNK_SIZE - 1) >> PHD_CHUNK_SHIFT, chunk;
	int rc = ph_chunk_get(tx, member_word(h), count, 1, &chunk);
	struct ph_block b;

	if (rc)
		return rc;
	b = (struct ph_block){
		.off = ph_chunk_off(h, chunk),
		.size = count << PHD_CHUNK_SHIFT,
		.head = chunk,
		.desc = PHD_DESC_MAKE_EXTENT(type, count),
	};
	if (!item_add(r, &b, 0)) {
		ph_chunk_unclaim(h, member_word(h), chunk, count);
		return -ENOMEM;
	}
	*ret_off = b.off;
	return 0;
}

/* It is stored to at any time from now on, and what is to be known of its space is known now. */
static int reserved_lease(struct pheap *h, uint64_t off)
{
	struct reserved *item;
	struct ph_block b = {0};
	bool flushed = false;
	int rc;

	if (!h->leased)
		return 0;
	(void)ph_reserve_find(h, off, &b);
	if (b.run)
		return ph_redo_fresh(h, 0, off, b.size);
	rc = ph_redo_fresh_extent(h, 0, b.head, PHD_DESC_COUNT(b.desc), &flushed);
	pthread_mutex_lock(&h->lock);
	item = item_find(h, off);
	if (item)
		item->flushed = flushed;
	pthread_mutex_unlock(&h->lock);
	return rc;
}

void *pheap_reserve(pheap *h, size_t n, uint32_t type)
{
	uint64_t off = 0;
	pheap_tx *tx;
	int rc;

	ph_heap_check(h, "pheap_reserve");
	if (h->forked || h->read_only || n == 0 || type > PHD_TYPE_USER_MAX || n > h->super.size_max) {
		ph_error(h,
			 h->forked	? PHEAP_EFORKED
			 : h->read_only ? -EROFS
					: -EINVAL,
			 "pheap_reserve: %s",
			 h->forked	? "this heap was opened by the parent process"
			 : h->read_only ? "the heap is open for reading only"
					: "a size of 0, or beyond max_size, or a type above 65535");
		return NULL;
	}
	tx = ph_thread_tx(h, &rc);
	if (!tx) {
		ph_error(h, rc, "pheap_reserve: this thread has no lane");
		return NULL;
	}
	pthread_mutex_lock(&h->lock);
	if (!h->reserve)
		h->reserve = calloc(1, sizeof(*h->reserve));
	rc = !h->reserve	       ? -ENOMEM
	     : n <= PHD_BLOCK_SIZE_MAX ? reserve_small(tx, h->reserve, n, type, &off)
				       : reserve_extent(tx, h->reserve, n, type, &off);
	pthread_mutex_unlock(&h->lock);
	if (rc == 0) {
		rc = reserved_lease(h, off);
		if (rc)
			pheap_cancel(h, h->base + off);
	}
	if (rc == 0)
		return h->base + off;
	if (rc != -ENOSPC)
		ph_error(h, rc, "pheap_reserve: %zu bytes could not be had", n);
	return NULL;
}

int pheap_publish(pheap_tx *tx, void *p)
{
	struct reserved *item;
	struct ph_block b;
	uint64_t off;
	int rc = ph_tx_enter(tx, "pheap_publish");

	if (rc)
		return rc;
	off = ph_tx_range(tx, p, 1);
	pthread_mutex_lock(&tx->h->lock);
	item = off ? item_find(tx->h, off) : NULL;
	if (!item || item->pending)
		rc = ph_error(tx->h, !off ? PHEAP_EFOREIGN : -EINVAL,
			      "pheap_publish: %p is not a reserved block of this process", p);
	else if (!ph_room(&tx->published, &tx->published_room, tx->published_count + 1,
			  sizeof(*tx->published)))
		rc = -ENOMEM;
	if (rc == 0 && !item->flushed)
		rc = ph_redo_count(tx, item->block.size);
	if (rc == 0) {
		b = item->block;
		rc = b.run ? ph_ops_set(tx, ph_ops_find(&tx->ops, b.word_idx), b.head, b.desc, b.word_idx,
					b.mask)
			   : ph_ops_desc(tx, b.head, PHD_DESC_COUNT(b.desc), 0, b.desc);
		if (rc == 0 && !b.run)
			tx->ops.descs[tx->ops.desc_count - 1].flushed = item->flushed;
	}
	if (rc == 0) {
		item->pending = true;
		tx->extras = true;
		tx->published[tx->published_count++] =
			(struct ph_published){.off = off, .serial = tx->savepoint_serial};
		ph_cover_add(&tx->cover, b.off, b.size);
		tx->modify_long = true;
	}
	pthread_mutex_unlock(&tx->h->lock);
	return ph_fail_if(tx, rc);
}

/* The block is no longer this process's to hand out. */
static void item_leave(struct pheap *h, struct reserved *item)
{
	const struct ph_block b = item->block;

	if (b.run)
		h->reserve->runs[item->run].chosen[b.word_idx - b.head * 4] &= ~b.mask;
	else
		ph_chunk_unclaim(h, member_word(h), b.head, PHD_DESC_COUNT(b.desc));
	item_remove(h->reserve, item);
}

void pheap_cancel(pheap *h, void *p)
{
	struct reserved *item;

	ph_heap_check(h, "pheap_cancel");
	if (!p || h->forked)
		return;
	pthread_mutex_lock(&h->lock);
	item = item_find(h, (uint64_t)((uintptr_t)p - (uintptr_t)h->base));
	if (!item || item->pending)
		ph_fatal("pheap_cancel: %p is not a reserved block of this process, or is being published",
			 p);
	item_leave(h, item);
	pthread_mutex_unlock(&h->lock);
}

void ph_reserve_settle(pheap_tx *tx, bool committed)
{
	if (tx->published_count == 0)
		return;
	pthread_mutex_lock(&tx->h->lock);
	for (uint32_t i = 0; i < tx->published_count; i++) {
		struct reserved *item = item_find(tx->h, tx->published[i].off);

		ph_assert(item && item->pending);
		item->pending = false;
		if (committed)
			item_leave(tx->h, item);
	}
	pthread_mutex_unlock(&tx->h->lock);
	tx->published_count = 0;
}

void ph_reserve_forget(pheap_tx *tx, uint64_t savepoint_id)
{
	if (tx->published_count == 0)
		return;
	pthread_mutex_lock(&tx->h->lock);
	while (tx->published_count && tx->published[tx->published_count - 1].serial >= savepoint_id) {
		struct reserved *item = item_find(tx->h, tx->published[--tx->published_count].off);

		ph_assert(item && item->pending);
		item->pending = false;
	}
	pthread_mutex_unlock(&tx->h->lock);
}

bool ph_reserve_find(const struct pheap *h, uint64_t off, struct ph_block *ret)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&h->lock;
	struct reserved *item;

	pthread_mutex_lock(lock);
	item = item_find(h, off);
	if (item)
		*ret = item->block;
	pthread_mutex_unlock(lock);
	return item != NULL;
}

uint64_t ph_reserve_private_size(const struct pheap *h)
{
	const struct ph_reserve *r = h->reserve;

	return r ? sizeof(*r) + r->run_room * sizeof(*r->runs) + r->room * sizeof(*r->items) +
			       r->map.room * sizeof(struct ph_map_slot)
		 : 0;
}

/* Words of this member become free with its attachment number. */
void ph_reserve_close(struct pheap *h)
{
	if (!h->reserve)
		return;
	free(h->reserve->runs);
	free(h->reserve->items);
	free(h->reserve->map.slots);
	free(h->reserve);
	h->reserve = NULL;
}
