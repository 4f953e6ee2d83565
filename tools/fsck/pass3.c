/* SPDX-License-Identifier: MIT
 *
 * pass3.c: the chunk directory: one walk over the descriptors.
 *
 * Needs:  f->chunk_count, whose descriptors and bitmaps are in the file; the journal done.
 * Checks: each descriptor is possible; each chunk of a run or extent is a CONT of its head and nothing else
 *         is; none overlap; the first chunks are the journal's.
 * Gives:  f->desc and f->bits in memory.
 *
 * What is freed here is said to be a hole, which is always right: it may have been one before its descriptor was damaged.
 * Where two claim a chunk, both keep what is surely theirs: the first is cut where the second begins. Each
 * repair is one word or a row of words that the next walk finds again, so a killed run is taken up where it
 * ended.
 */
#include "fsck.h"

typedef unsigned long long ull;

static uint64_t desc_at(const struct fsck *f, uint64_t chunk)
{
	return f->super.desc_off + 8 * chunk;
}

void desc_set(struct fsck *f, uint64_t chunk, uint64_t desc)
{
	f->desc[chunk] = desc;
	image_write_word(f, desc_at(f, chunk), desc);
}

void desc_untype(struct fsck *f, uint64_t chunk)
{
	const uint64_t type = 0x1ffffull << 2, old = f->desc[chunk];

	desc_set(f, chunk, old & ~type);
	for (uint64_t i = chunk + 1; i < f->chunk_count; i++) {
		if (f->desc[i] != PHD_DESC_MAKE_CONT(PHD_DESC_TYPE(old), i - chunk))
			break;
		desc_set(f, i, f->desc[i] & ~type);
	}
}

/* buf is zeroed memory: holes of the file are skipped, so they cost neither time nor memory. */
static void region_load(struct fsck *f, uint64_t off, void *buf, uint64_t n)
{
	const size_t step = 1u << 20;
	uint64_t end = off + n, at = off;

	while ((at = image_next_data(f, at, end)) < end) {
		size_t part = end - at < step ? (size_t)(end - at) : step;

		image_read(f, at, (char *)buf + (at - off), part);
		at += part;
		pass_progress(f, (at - off) / 2, n);
	}
}

static void directory_load(struct fsck *f)
{
	f->desc = memory_get(f, f->chunk_count, 8, "the chunk directory");
	f->bits = memory_get(f, f->chunk_count, sizeof(struct phd_bits), "the bitmaps");
	region_load(f, f->super.desc_off, f->desc, f->chunk_count * 8);
	region_load(f, f->super.bits_off, f->bits, f->chunk_count * sizeof(struct phd_bits));
}

static uint64_t desc_chunks(uint64_t desc)
{
	return PHD_DESC_KIND(desc) == PHD_DESC_RUN ? PHD_DESC_RUN_COUNT(desc) : PHD_DESC_COUNT(desc);
}

/* The same run or extent with another number of chunks; 0 if none could be. */
static uint64_t desc_resize(uint64_t desc, uint64_t count)
{
	uint64_t ret = PHD_DESC_KIND(desc) == PHD_DESC_RUN
			       ? PHD_DESC_MAKE_RUN(PHD_DESC_TYPE(desc), PHD_DESC_BLOCK_SIZE(desc), count)
			       : PHD_DESC_MAKE_EXTENT(PHD_DESC_TYPE(desc), count);

	return PHD_DESC_KIND(desc) == PHD_DESC_RUN && !format_run_blocks(ret) ? 0 : ret;
}

static bool desc_is_head(uint64_t desc)
{
	return PHD_DESC_KIND(desc) == PHD_DESC_RUN || PHD_DESC_KIND(desc) == PHD_DESC_EXTENT;
}

static bool head_possible(uint64_t desc)
{
	return PHD_DESC_KIND(desc) == PHD_DESC_RUN ? format_run_blocks(desc) != 0 : PHD_DESC_COUNT(desc) != 0;
}

static void journal_check(struct fsck *f)
{
	uint64_t n = f->super.journal_count;

	if (!n || f->desc[0] == PHD_DESC_MAKE_EXTENT(PHD_TYPE_JOURNAL, n))
		return;
	if (problem(f, PR_JOURNAL_EXTENT, desc_at(f, 0), "chunks 0 to %llu", (ull)(n - 1)))
		desc_set(f, 0, PHD_DESC_MAKE_EXTENT(PHD_TYPE_JOURNAL, n));
}

static void type_check(struct fsck *f, uint64_t chunk)
{
	uint64_t desc = f->desc[chunk];
	uint32_t type = PHD_DESC_TYPE(desc);

	if (format_type_valid(type) || (type == PHD_TYPE_JOURNAL && !chunk && f->super.journal_count))
		return;
	if (problem(f, PR_DESC_TYPE, desc_at(f, chunk), "chunk %llu: type %u", (ull)chunk, type))
		desc_set(f, chunk, desc & ~(0x1ffffull << 2));
}

/* Chunks [chunk, chunk + n) less those where something else begins; asks before it cuts. Returns how many
 * belong to the head. */
static uint64_t head_extent(struct fsck *f, uint64_t chunk)
{
	uint64_t n = desc_chunks(f->desc[chunk]), left = f->chunk_count - chunk, i;

	if (n > left) {
		if (problem(f, PR_DESC_LONG, desc_at(f, chunk), "chunk %llu: %llu chunks, %llu are left",
			    (ull)chunk, (ull)n, (ull)left))
			desc_set(f, chunk, desc_resize(f->desc[chunk], left));
		n = left;
	}
	for (i = 1; i < n; i++)
		if (desc_is_head(f->desc[chunk + i]) && head_possible(f->desc[chunk + i]) &&
		    chunk + i >= f->super.journal_count)
			break;
	if (i == n)
		return n;
	if (problem(f, PR_DESC_OVERLAP, desc_at(f, chunk + i),
		    "chunk %llu is in the one that begins at chunk %llu", (ull)(chunk + i), (ull)chunk))
		desc_set(f, chunk, desc_resize(f->desc[chunk], i));
	return i;
}

static void conts_check(struct fsck *f, uint64_t chunk, uint64_t n)
{
	uint32_t type = PHD_DESC_TYPE(f->desc[chunk]);

	for (uint64_t i = 1; i < n; i++) {
		uint64_t want = PHD_DESC_MAKE_CONT(type, i), have = f->desc[chunk + i];

		if (have == want)
			continue;
		if (problem(f, PR_DESC_CONT, desc_at(f, chunk + i),
			    "chunk %llu: 0x%llx; its head is chunk %llu", (ull)(chunk + i), (ull)have,
			    (ull)chunk)) {
			image_fill(f, chunk + i, 1);
			desc_set(f, chunk + i, want);
		}
	}
}

/* Returns how many chunks the head at chunk takes. */
static uint64_t head_check(struct fsck *f, uint64_t chunk)
{
	uint64_t desc = f->desc[chunk], n;
	bool run = PHD_DESC_KIND(desc) == PHD_DESC_RUN;

	if (!head_possible(desc)) {
		/* its CONTs are orphans then, and freed as such */
		if (problem(f, run ? PR_DESC_RUN : PR_DESC_EXTENT, desc_at(f, chunk), "chunk %llu: 0x%llx",
			    (ull)chunk, (ull)desc))
			desc_set(f, chunk, PHD_DESC_HOLE);
		return 1;
	}
	type_check(f, chunk);
	n = head_extent(f, chunk);
	if (f->desc[chunk])
		conts_check(f, chunk, n);
	return f->desc[chunk] ? n : 1;
}

static void single_check(struct fsck *f, uint64_t chunk)
{
	uint64_t desc = f->desc[chunk];

	if (PHD_DESC_KIND(desc) == PHD_DESC_CONT) {
		if (problem(f, PR_DESC_ORPHAN, desc_at(f, chunk), "chunk %llu: head %llu chunks before",
			    (ull)chunk, (ull)PHD_DESC_COUNT(desc)))
			desc_set(f, chunk, PHD_DESC_HOLE);
	} else if (!PHD_DESC_IS_FREE(desc) &&
		   problem(f, PR_DESC_FREE, desc_at(f, chunk), "chunk %llu: 0x%llx", (ull)chunk, (ull)desc)) {
		desc_set(f, chunk, PHD_DESC_HOLE);
	}
	f->chunk_free_count++;
	f->chunk_hole_count += f->desc[chunk] == PHD_DESC_HOLE;
}

void pass_directory(struct fsck *f)
{
	uint64_t chunk = 0;

	directory_load(f);
	journal_check(f);
	while (chunk < f->chunk_count) {
		if (desc_is_head(f->desc[chunk])) {
			chunk += head_check(f, chunk);
		} else {
			single_check(f, chunk);
			chunk++;
		}
		pass_progress(f, f->chunk_count + chunk, 2 * f->chunk_count);
	}
	image_sync(f);
}
