/* SPDX-License-Identifier: MIT
 *
 * pass4.c: runs and their bitmaps.
 *
 * Needs:  f->desc and f->bits from pass 3.
 * Checks: bits past the last block of each run are 0. (Any other pattern of bits is possible; which blocks
 *         are in use only the data tells.)
 * Gives:  the counts of runs, extents and blocks; f->bits in which every set bit is a block.
 */
#include "fsck.h"

typedef unsigned long long ull;

void bits_set(struct fsck *f, uint64_t word_idx, uint64_t word)
{
	f->bits[word_idx] = word;
	image_write_word(f, f->super.bits_off + 8 * word_idx, word);
}

/* Bits of word i of a run that may be set, if it holds n blocks. */
static uint64_t word_mask(uint64_t i, uint64_t n)
{
	if (n >= 64 * (i + 1))
		return ~0ull;
	return n > 64 * i ? (1ull << (n - 64 * i)) - 1 : 0;
}

static void run_check(struct fsck *f, uint64_t chunk)
{
	uint64_t desc = f->desc[chunk], n = format_run_blocks(desc), words = 4 * PHD_DESC_RUN_COUNT(desc),
		 first = 4 * chunk;
	uint64_t past = 0, used = 0;

	for (uint64_t i = 0; i < words; i++) {
		past += (uint64_t)__builtin_popcountll(f->bits[first + i] & ~word_mask(i, n));
		used += (uint64_t)__builtin_popcountll(f->bits[first + i] & word_mask(i, n));
	}
	f->run_count++;
	f->block_count += used;
	f->block_size_sum += used * PHD_DESC_BLOCK_SIZE(desc);
	if (!past || !problem(f, PR_BITS_PAST_END, f->super.bits_off + 8 * first,
			      "chunk %llu: %llu bits past block %llu", (ull)chunk, (ull)past, (ull)(n - 1)))
		return;
	for (uint64_t i = 0; i < words; i++)
		if (f->bits[first + i] & ~word_mask(i, n))
			bits_set(f, first + i, f->bits[first + i] & word_mask(i, n));
}

void pass_bitmaps(struct fsck *f)
{
	for (uint64_t chunk = 0; chunk < f->chunk_count; chunk++) {
		uint64_t desc = f->desc[chunk];

		if (format_run_blocks(desc) && PHD_DESC_RUN_COUNT(desc) <= f->chunk_count - chunk) {
			run_check(f, chunk);
		} else if (PHD_DESC_KIND(desc) == PHD_DESC_EXTENT) {
			f->extent_count++;
			if (PHD_DESC_TYPE(desc) != PHD_TYPE_JOURNAL) {
				f->block_count++;
				f->block_size_sum += PHD_DESC_COUNT(desc) * PHD_CHUNK_SIZE;
			}
		}
		pass_progress(f, chunk, f->chunk_count);
	}
	image_sync(f);
}
