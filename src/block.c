/* SPDX-License-Identifier: MIT
 *
 * block.c: blocks by address: finding, allocating, freeing, resizing.
 *
 * Invariant
 *   X1  Every pointer that comes from the caller is checked against descriptors and bitmaps before anything
 *       is recorded: a pointer into the middle of a block, or to a free one, is -EINVAL and dooms the
 *       transaction.
 */
#include <errno.h>
#include <stdio.h>

#include "defer.h"
#include "error.h"
#include "hold.h"
#include "redo.h"
#include "reserve.h"
#include "tx.h"

#define ALIGN_MAX (2ull << 20)
#define SIZE_COMMON_MAX 1024u

static uint64_t extent_chunks(size_t n)
{
	return (n + PHD_CHUNK_SIZE - 1) >> PHD_CHUNK_SHIFT;
}

static int run_block_find(const struct pheap *h, const struct pheap_tx *tx, uint64_t off, struct ph_block *b,
			  const char **why)
{
	uint64_t delta = off - ph_chunk_off(h, b->head), bits;
	uint32_t idx;

	b->run = true;
	b->size = PHD_DESC_BLOCK_SIZE(b->desc);
	b->op = NULL;
	if (b->size == 0 || delta >= PHD_DESC_RUN_COUNT(b->desc) << PHD_CHUNK_SHIFT) {
		*why = "in a damaged part of the heap";
		return -EINVAL;
	}
	idx = (uint32_t)delta / (uint32_t)b->size;
	if (delta != idx * b->size) {
		*why = "inside a block, not its start";
		return -EINVAL;
	}
	if (delta + b->size > PHD_DESC_RUN_COUNT(b->desc) << PHD_CHUNK_SHIFT) {
		*why = "behind the last block of a run";
		return -EINVAL;
	}
	b->off = off;
	b->word_idx = b->head * 4 + idx / 64;
	b->mask = 1ull << idx % 64;
	bits = __atomic_load_n(&h->bits[b->word_idx], __ATOMIC_ACQUIRE);
	if (tx && tx->ops.count) {
		b->op = ph_ops_find(&tx->ops, b->word_idx);
		if (b->op)
			bits = (bits | b->op->set) & ~b->op->clr;
	}
	if (bits & b->mask)
		return 0;
	*why = "not allocated (freed twice?)";
	return -EINVAL;
}

/* A look at its two ends finds most damage. What this transaction has made is not in the directory yet. */
static bool extent_ends(const struct pheap *h, uint64_t head, uint64_t desc)
{
	uint64_t last = PHD_DESC_COUNT(desc) - 1;

	return last == 0 || desc != ph_desc_raw(h, head) ||
	       ph_desc_raw(h, head + last) == PHD_DESC_MAKE_CONT(PHD_DESC_TYPE(desc), last);
}

int ph_block_find(const struct pheap *h, const struct pheap_tx *tx, uint64_t off, struct ph_block *b,
		  const char **why)
{
	bool descs = tx && tx->ops.desc_count;
	uint64_t chunk;

	*why = "outside of the heap";
	if (off < h->data_off || off >= ph_chunk_off(h, ph_chunk_count(h)))
		return -EINVAL;
	chunk = ph_chunk_of(h, off);
	b->desc = descs ? ph_ops_desc_of(tx, h, chunk) : ph_desc_load(h, chunk);
	b->head = chunk;
	if (PHD_DESC_KIND(b->desc) == PHD_DESC_CONT) {
		b->head = chunk - PHD_DESC_COUNT(b->desc);
		b->desc = descs ? ph_ops_desc_of(tx, h, b->head) : ph_desc_load(h, b->head);
	}
	switch (PHD_DESC_KIND(b->desc)) {
	case PHD_DESC_RUN:
		return run_block_find(h, tx, off, b, why);
	case PHD_DESC_EXTENT:
		if (PHD_DESC_TYPE(b->desc) == PHD_TYPE_JOURNAL)
			return -EINVAL;
		b->run = false;
		b->off = off;
		b->size = PHD_DESC_COUNT(b->desc) << PHD_CHUNK_SHIFT;
		*why = "inside a block, not its start";
		if (off != ph_chunk_off(h, b->head))
			return -EINVAL;
		*why = "in a damaged part of the heap";
		return extent_ends(h, b->head, b->desc) ? 0 : -EINVAL;
	default:
		*why = "not allocated (freed twice?)";
		return -EINVAL;
	}
}

static int extent_alloc(pheap_tx *tx, size_t n, uint64_t align, uint32_t type, uint64_t *ret_off)
{
	uint64_t count = extent_chunks(n), chunk,
		 step = align > PHD_CHUNK_SIZE ? align >> PHD_CHUNK_SHIFT : 1;
	bool flushed;
	int rc = ph_chunk_get(tx, tx->word, count, step, &chunk);

	if (rc)
		return rc;
	rc = ph_redo_fresh_extent(tx->h, tx->word, chunk, count, &flushed);
	if (rc == 0 && !flushed)
		rc = ph_redo_count(tx, count * PHD_CHUNK_SIZE);
	if (rc == 0)
		rc = ph_ops_desc(tx, chunk, count, 0, PHD_DESC_MAKE_EXTENT(type, count));
	if (rc) {
		ph_chunk_unclaim(tx->h, tx->word, chunk, count);
		return rc;
	}
	tx->ops.descs[tx->ops.desc_count - 1].flushed = flushed;
	*ret_off = ph_chunk_off(tx->h, chunk);
	return 0;
}

/* Block i of a run starts at i * size from a chunk: aligned iff the size is a multiple of the alignment. */
int ph_block_alloc(pheap_tx *tx, size_t n, size_t align, uint32_t type, uint64_t *ret_off, uint64_t *ret_size)
{
	size_t size = n <= PHD_BLOCK_SIZE_MAX ? ph_run_class(n) : 0;
	int rc;

	if (size && align > 8)
		while (size <= PHD_BLOCK_SIZE_MAX && size % align)
			size = ph_run_class(size + 1);
	if (size && size <= PHD_BLOCK_SIZE_MAX && align <= PHD_CHUNK_SIZE) {
		rc = ph_run_alloc(tx, &size, align, type, ret_off);
		*ret_size = size;
		if (rc == 0 && tx->h->leased)
			rc = ph_redo_fresh(tx->h, tx->word, *ret_off, size);
		if (rc == 0 && tx->h->leased)
			rc = ph_redo_count(tx, size);
	} else {
		*ret_size = extent_chunks(n) << PHD_CHUNK_SHIFT;
		rc = extent_alloc(tx, n, align, type, ret_off);
	}
	if (rc == 0) {
		ph_cover_add(&tx->cover, *ret_off, *ret_size);
		/* Without a WAL stores of a line into a larger block are logged once rather than looked up. */
		tx->modify_long |= *ret_size > (tx->h->leased ? PH_COVER_SMALL : PHD_BLOCK_SIZE_MAX);
	}
	return rc;
}

static int find_error(const pheap_tx *tx, uint64_t off, int rc, const char *why)
{
	return ph_error(tx->h, rc, "free of offset 0x%llx: it is %s", (unsigned long long)off, why);
}

static int block_drop(pheap_tx *tx, const struct ph_block *b)
{
	/* A block of this transaction is free for it at once: what was deferred to it must not reach its
	 * next owner. */
	int rc = tx->has_defers ? ph_defer_settle(tx, b->off, b->size) : 0;

	if (rc)
		return rc;
	if (b->run)
		return ph_ops_clear(tx, b->op, b->head, b->desc, b->word_idx, b->mask);
	if (b->desc == ph_desc_raw(tx->h, b->head) && !ph_chunk_whole(tx->h, b->head, b->desc))
		return ph_error(
			tx->h, PHEAP_ECORRUPT,
			"free of offset 0x%llx: its chunks belong to others; run pheap-fsck on the file",
			(unsigned long long)b->off);
	return ph_ops_desc(tx, b->head, PHD_DESC_COUNT(b->desc), b->desc, 0);
}

int ph_block_drop(pheap_tx *tx, uint64_t off)
{
	struct ph_block b;
	const char *why;
	int rc = ph_block_find(tx->h, tx, off, &b, &why);

	return rc ? find_error(tx, off, rc, why) : block_drop(tx, &b);
}

int ph_block_free(pheap_tx *tx, uint64_t off)
{
	struct ph_block b;
	const char *why;
	int rc = ph_block_find(tx->h, tx, off, &b, &why);

	if (__builtin_expect(rc || PHD_DESC_TYPE(b.desc) > PHD_TYPE_USER_MAX, 0)) {
		if (!ph_heap_has(tx->h, off, 1) ||
		    PHD_DESC_TYPE(ph_desc_load(tx->h, ph_chunk_of(tx->h, off))) <= PHD_TYPE_USER_MAX)
			return find_error(tx, off, rc ? rc : -EINVAL, why);
		return ph_error(tx->h, -EINVAL, "free of offset 0x%llx: it belongs to the heap itself",
				(unsigned long long)off);
	}
	rc = ph_hold_free_check(tx, off);
	return rc ? rc : block_drop(tx, &b);
}

bool ph_block_freed(const struct pheap_tx *tx, uint64_t off)
{
	const struct pheap *h = tx->h;
	uint64_t chunk = ph_chunk_of(h, off), desc = ph_desc_load(h, chunk), head = chunk;

	/* By descriptors of before this transaction: space that it claimed itself stays its own until idle. */
	if (PHD_DESC_KIND(desc) == PHD_DESC_CONT) {
		head = chunk - PHD_DESC_COUNT(desc);
		desc = ph_desc_load(h, head);
	}
	if (PHD_DESC_KIND(desc) == PHD_DESC_EXTENT) {
		uint64_t now = ph_ops_desc_of(tx, h, head);

		return PHD_DESC_KIND(now) != PHD_DESC_EXTENT || chunk - head >= PHD_DESC_COUNT(now);
	}
	if (PHD_DESC_KIND(desc) == PHD_DESC_RUN && PHD_DESC_BLOCK_SIZE(desc)) {
		uint64_t idx = (off - ph_chunk_off(h, head)) / PHD_DESC_BLOCK_SIZE(desc);
		const struct ph_op *op = ph_ops_find(&tx->ops, head * 4 + idx / 64);

		return op && (op->clr >> idx % 64 & 1);
	}
	return false;
}

/* --- the public calls
 * ------------------------------------------------------------------------------------------------ */

/* What this transaction freed counts as used until it commits: said because it surprises. */
static void alloc_fail(pheap_tx *tx, int rc)
{
	char text[192];

	if (rc != -ENOSPC || !tx->has_frees) {
		ph_tx_fail(tx, rc, NULL);
		return;
	}
	snprintf(text, sizeof(text), "%s", pheap_error_detail(tx->h));
	ph_tx_fail(tx, rc, "%s; what this transaction freed can be used again after its commit", text);
}

static __attribute__((noinline)) void *alloc_checked(pheap_tx *tx, const char *call, size_t align, size_t n,
						     uint32_t type, uint64_t *ret_size)
{
	uint64_t off;
	int rc = ph_tx_enter(tx, call);

	if (rc || !tx)
		return NULL;
	if (n == 0 || type > PHD_TYPE_USER_MAX || align == 0 || (align & (align - 1)) || align > ALIGN_MAX) {
		ph_tx_fail(tx, -EINVAL, "%s: %s", call,
			   n == 0		      ? "a block of 0 bytes"
			   : type > PHD_TYPE_USER_MAX ? "type numbers end at 65535"
						      : "alignment must be a power of two, at most 2 MiB");
		return NULL;
	}
	if (n > tx->h->super.size_max) {
		ph_tx_fail(tx, -ENOSPC, "%s: %zu bytes are more than the heap's max_size", call, n);
		return NULL;
	}
	rc = ph_block_alloc(tx, n, align, type, &off, ret_size);
	if (rc) {
		alloc_fail(tx, rc);
		return NULL;
	}
	return tx->base + off;
}

void *pheap_alloc(pheap_tx *tx, size_t n, uint32_t type)
{
	uint64_t ret_size, off;
	size_t size;

	/* The common case: a small block, and no WAL that wants to know of it. */
	if (__builtin_expect(tx && tx->writable_by == &ph_thread && n - 1 < SIZE_COMMON_MAX &&
				     type <= PHD_TYPE_USER_MAX && !tx->h->leased,
			     1)) {
		int rc;

		size = ph_run_class(n);
		rc = ph_run_alloc(tx, &size, 8, type, &off);
		if (__builtin_expect(rc, 0)) {
			alloc_fail(tx, rc);
			return NULL;
		}
		ph_cover_add(&tx->cover, off, size);
		return tx->base + off;
	}
	return alloc_checked(tx, "pheap_alloc", 8, n, type, &ret_size);
}

void *pheap_alloc_aligned(pheap_tx *tx, size_t align, size_t n, uint32_t type)
{
	uint64_t size;

	return alloc_checked(tx, "pheap_alloc_aligned",
			     align < 8 && align && !(align & (align - 1)) ? 8 : align, n, type, &size);
}

void *pheap_zalloc(pheap_tx *tx, size_t n, uint32_t type)
{
	uint64_t size;
	void *p = alloc_checked(tx, "pheap_zalloc", 8, n, type, &size);

	if (p)
		ph_zero(tx->h->map + ph_tx_range(tx, p, n), size);
	return p;
}

void *pheap_dup(pheap_tx *tx, const void *src, size_t n, uint32_t type)
{
	uint64_t size;
	void *p;

	if (!src) {
		if (ph_tx_enter(tx, "pheap_dup") == 0)
			ph_tx_fail(tx, -EINVAL, "pheap_dup: src is NULL");
		return NULL;
	}
	p = alloc_checked(tx, "pheap_dup", 8, n, type, &size);
	if (p)
		ph_copy(p, src, n);
	return p;
}

int pheap_free(pheap_tx *tx, const void *p)
{
	uint64_t off;
	int rc = ph_tx_enter(tx, "pheap_free");

	if (rc || !p)
		return rc;
	off = ph_tx_range(tx, p, 1);
	if (!off)
		return ph_tx_fail(tx, PHEAP_EFOREIGN, "pheap_free: %p is not in this heap", p);
	rc = ph_block_free(tx, off);
	return rc ? ph_tx_fail(tx, rc, NULL) : 0;
}

/* An extent shrinks, or grows into free chunks behind it. */
static bool extent_resize(pheap_tx *tx, const struct ph_block *b, size_t n, int *ret_rc)
{
	uint64_t had = PHD_DESC_COUNT(b->desc), want = extent_chunks(n), type = PHD_DESC_TYPE(b->desc);
	bool flushed;

	*ret_rc = 0;
	if (want == had)
		return true;
	if (want > had) {
		if (b->head + want > ph_chunk_block_end(tx->h, ph_chunk_count(tx->h)) ||
		    !ph_chunk_claim_at(tx->h, tx->word, b->head + had, want - had))
			return false;
		*ret_rc = ph_redo_fresh_extent(tx->h, tx->word, b->head + had, want - had, &flushed);
		if (*ret_rc == 0 && !flushed)
			*ret_rc = ph_redo_count(tx, (want - had) * PHD_CHUNK_SIZE);
		if (*ret_rc == 0)
			*ret_rc = ph_ops_desc(tx, b->head, want, b->desc, PHD_DESC_MAKE_EXTENT(type, want));
		if (*ret_rc == 0)
			tx->ops.descs[tx->ops.desc_count - 1].flushed = flushed;
		return true;
	}
	*ret_rc = ph_hold_free_check(tx, b->off);
	if (*ret_rc == 0)
		*ret_rc = ph_ops_desc(tx, b->head, want, b->desc, PHD_DESC_MAKE_EXTENT(type, want));
	if (*ret_rc == 0)
		*ret_rc = ph_ops_desc(tx, b->head + want, had - want, PHD_DESC_MAKE_CONT(type, want), 0);
	return true;
}

/* In place when the size class stays, or an extent can be resized. */
static bool block_fits(const struct ph_block *b, size_t n)
{
	if (b->run)
		return n <= PHD_BLOCK_SIZE_MAX && n <= b->size && ph_run_class(n) * 2 > b->size;
	return n > PHD_BLOCK_SIZE_MAX;
}

static void *realloc_move(pheap_tx *tx, const struct ph_block *b, size_t n)
{
	uint64_t off, size, old_size = b->size;
	int rc = ph_block_alloc(tx, n, n % 16 ? 8 : 16, PHD_DESC_TYPE(b->desc), &off, &size);

	if (rc == 0) {
		ph_copy(tx->h->map + off, tx->h->map + b->off, old_size < n ? old_size : n);
		rc = ph_block_free(tx, b->off);
	}
	if (rc) {
		alloc_fail(tx, rc);
		return NULL;
	}
	return tx->base + off;
}

void *pheap_realloc(pheap_tx *tx, const void *p, size_t n)
{
	struct ph_block b;
	const char *why;
	uint64_t off;
	int rc = ph_tx_enter(tx, "pheap_realloc");

	if (rc)
		return NULL;
	off = p ? ph_tx_range(tx, p, 1) : 0;
	if (!p || n == 0)
		rc = ph_tx_fail(tx, -EINVAL,
				"pheap_realloc: NULL or 0 bytes; use pheap_alloc and pheap_free");
	else if (!off)
		rc = ph_tx_fail(tx, PHEAP_EFOREIGN, "pheap_realloc: %p is not in this heap", p);
	else if (ph_block_find(tx->h, tx, off, &b, &why) || PHD_DESC_TYPE(b.desc) > PHD_TYPE_USER_MAX)
		rc = ph_tx_fail(tx, -EINVAL, "pheap_realloc: %p is %s", p, why);
	else if (n > tx->h->super.size_max)
		rc = ph_tx_fail(tx, -ENOSPC, "pheap_realloc: %zu bytes are more than the heap's max_size", n);
	/* Deferred stores to the old block must be in its bytes before they are copied or cut. */
	if (rc == 0 && tx->has_defers)
		rc = ph_fail_if(tx, ph_defer_settle(tx, b.off, b.size));
	if (rc)
		return NULL;
	if (!block_fits(&b, n) || (!b.run && !extent_resize(tx, &b, n, &rc)))
		return realloc_move(tx, &b, n);
	/* The whole result may be stored to: old bytes need undo; chunks that were claimed just now do not. */
	if (rc == 0)
		rc = ph_tx_undo(tx, b.off, n < b.size ? n : b.size);
	if (rc) {
		ph_tx_fail(tx, rc, NULL);
		return NULL;
	}
	return (void *)(uintptr_t)p;
}

/* --- questions
 * ------------------------------------------------------------------------------------------------------- */

static bool block_of(const pheap *h, const void *p, const char *call, struct ph_block *b)
{
	const char *why;
	uint64_t off;

	ph_heap_check(h, call);
	off = (uint64_t)((uintptr_t)p - (uintptr_t)h->base);
	if (!p || h->forked || !ph_heap_has(h, off, 1))
		return false;
	if (ph_block_find(h, pheap_current(h), off, b, &why) == 0)
		return true;
	return ph_reserve_find(h, off, b);
}

size_t pheap_usable_size(const pheap *h, const void *p)
{
	struct ph_block b;

	return block_of(h, p, "pheap_usable_size", &b) ? b.size : 0;
}

uint32_t pheap_type_of(const pheap *h, const void *p)
{
	struct ph_block b;

	return block_of(h, p, "pheap_type_of", &b) ? PHD_DESC_TYPE(b.desc) : 0;
}

/* The first allocated block at or after bit `from` of the run; 0: none. */
static uint64_t run_next(const pheap *h, const pheap_tx *tx, uint64_t head, uint64_t desc, uint64_t from)
{
	uint32_t blocks = ph_run_blocks(desc);

	for (uint64_t i = from; i < blocks; i = (i | 63) + 1) {
		uint64_t idx = head * 4 + i / 64, bits = __atomic_load_n(&h->bits[idx], __ATOMIC_ACQUIRE);
		const struct ph_op *op = tx && tx->ops.count ? ph_ops_find(&tx->ops, idx) : NULL;

		if (op)
			bits = (bits | op->set) & ~op->clr;
		bits &= ~0ull << i % 64;
		if (bits) {
			uint64_t at = i / 64 * 64 + (unsigned)__builtin_ctzll(bits);

			return at < blocks ? ph_chunk_off(h, head) + at * PHD_DESC_BLOCK_SIZE(desc) : 0;
		}
	}
	return 0;
}

static bool type_wanted(uint64_t desc, uint32_t type)
{
	return PHD_DESC_TYPE(desc) <= PHD_TYPE_USER_MAX &&
	       (type == UINT32_MAX || PHD_DESC_TYPE(desc) == type);
}

/* The chunk where a walk goes on behind off, with the index of the block there. Never back to where it has
 * been, whatever the directory says. */
static uint64_t next_start(const pheap *h, uint64_t off, uint64_t *ret_from)
{
	uint64_t chunk = ph_chunk_of(h, off), head = chunk, desc = ph_desc_load(h, chunk);

	if (PHD_DESC_KIND(desc) == PHD_DESC_CONT) {
		head -= PHD_DESC_COUNT(desc);
		desc = ph_desc_load(h, head);
	}
	*ret_from = 1; /* past the one block of an extent, also when it was freed here */
	if (PHD_DESC_KIND(desc) == PHD_DESC_RUN && chunk - head < PHD_DESC_RUN_COUNT(desc))
		*ret_from = (off - ph_chunk_off(h, head)) / PHD_DESC_BLOCK_SIZE(desc) + 1;
	else if (PHD_DESC_KIND(desc) != PHD_DESC_EXTENT || chunk - head >= PHD_DESC_COUNT(desc))
		head = chunk;
	return head;
}

const void *pheap_next(const pheap *h, uint32_t type, const void *prev)
{
	const pheap_tx *tx;
	uint64_t end, chunk, from = 0;

	ph_heap_check(h, "pheap_next");
	if (h->forked)
		return NULL;
	tx = pheap_current(h);
	end = ph_chunk_count(h);
	chunk = h->super.journal_count;
	if (prev) {
		uint64_t off = (uint64_t)((uintptr_t)prev - (uintptr_t)h->base);

		if (!ph_heap_has(h, off, 1))
			return NULL;
		chunk = next_start(h, off, &from);
	}
	while (chunk < end) {
		uint64_t desc = ph_ops_desc_of(tx, h, chunk), step = 1, off;

		if (PHD_DESC_KIND(desc) == PHD_DESC_RUN) {
			step = PHD_DESC_RUN_COUNT(desc);
			off = type_wanted(desc, type) ? run_next(h, tx, chunk, desc, from) : 0;
			if (off)
				return h->base + off;
		} else if (PHD_DESC_KIND(desc) == PHD_DESC_EXTENT) {
			step = PHD_DESC_COUNT(desc);
			if (from == 0 && type_wanted(desc, type))
				return h->base + ph_chunk_off(h, chunk);
		}
		chunk += step ? step : 1;
		from = 0;
	}
	return NULL;
}
