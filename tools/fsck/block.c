/* SPDX-License-Identifier: MIT
 *
 * block.c: blocks, as the directory in memory tells them after passes 3 and 4.
 *
 * Invariants
 *   B1  f->desc is consistent: every CONT leads to its head, every head is possible and ends below
 *       chunk_count (pass 3 saw to it, or the answer was no: then these functions say "no block" and stay
 *       within bounds).
 */
#include "fsck.h"

uint64_t chunk_off(const struct fsck *f, uint64_t chunk)
{
	return f->super.data_off + chunk * PHD_CHUNK_SIZE;
}

static bool bit_get(const uint64_t *words, uint64_t bit)
{
	return words[bit / 64] >> bit % 64 & 1;
}

bool block_at(const struct fsck *f, uint64_t chunk, uint64_t idx, struct block *ret)
{
	uint64_t desc = f->desc[chunk], size;

	ret->type = PHD_DESC_TYPE(desc);
	ret->seen_idx = chunk * 8 * sizeof(struct phd_bits) + idx;
	if (PHD_DESC_KIND(desc) == PHD_DESC_EXTENT) {
		ret->off = chunk_off(f, chunk);
		ret->size = PHD_DESC_COUNT(desc) * PHD_CHUNK_SIZE;
		return !idx && ret->type != PHD_TYPE_JOURNAL &&
		       PHD_DESC_COUNT(desc) <= f->chunk_count - chunk;
	}
	if (idx >= format_run_blocks(desc) || PHD_DESC_RUN_COUNT(desc) > f->chunk_count - chunk)
		return false;
	size = PHD_DESC_BLOCK_SIZE(desc);
	ret->off = chunk_off(f, chunk) + idx * size;
	ret->size = size;
	return bit_get(f->bits, ret->seen_idx);
}

bool block_find(const struct fsck *f, uint64_t off, struct block *ret)
{
	uint64_t chunk, desc, in;

	if (off < f->super.data_off || off - f->super.data_off >= f->chunk_count * PHD_CHUNK_SIZE)
		return false;
	chunk = (off - f->super.data_off) / PHD_CHUNK_SIZE;
	if (PHD_DESC_KIND(f->desc[chunk]) == PHD_DESC_CONT) {
		if (PHD_DESC_COUNT(f->desc[chunk]) > chunk)
			return false;
		chunk -= PHD_DESC_COUNT(f->desc[chunk]);
	}
	desc = f->desc[chunk];
	in = off - chunk_off(f, chunk);
	if (PHD_DESC_KIND(desc) == PHD_DESC_EXTENT)
		return !in && block_at(f, chunk, 0, ret);
	if (!format_run_blocks(desc) || in % PHD_DESC_BLOCK_SIZE(desc))
		return false;
	return block_at(f, chunk, in / PHD_DESC_BLOCK_SIZE(desc), ret);
}

uint64_t block_room(const struct fsck *f, uint64_t chunk)
{
	return PHD_DESC_KIND(f->desc[chunk]) == PHD_DESC_EXTENT ? 1 : format_run_blocks(f->desc[chunk]);
}

bool block_next(const struct fsck *f, uint64_t *chunk, uint64_t *idx, struct block *ret)
{
	for (; *chunk < f->chunk_count; ++*chunk, *idx = 0) {
		uint64_t n = block_room(f, *chunk);

		while (*idx < n)
			if (block_at(f, *chunk, (*idx)++, ret))
				return true;
	}
	return false;
}

bool block_seen(const struct fsck *f, const struct block *b)
{
	return bit_get(f->seen, b->seen_idx);
}

void block_mark(struct fsck *f, const struct block *b)
{
	f->seen[b->seen_idx / 64] |= 1ull << b->seen_idx % 64;
}

void block_unmark(struct fsck *f, const struct block *b)
{
	f->seen[b->seen_idx / 64] &= ~(1ull << b->seen_idx % 64);
}

void block_free(struct fsck *f, const struct block *b)
{
	bits_set(f, b->seen_idx / 64, f->bits[b->seen_idx / 64] & ~(1ull << b->seen_idx % 64));
	f->block_count--;
	f->block_size_sum -= b->size;
}
