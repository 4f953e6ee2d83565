/* SPDX-License-Identifier: MIT
 *
 * pass5.c: named roots. Before them come semaphores (semaphores.c) and held references (holds.c), whose
 * repairs may give blocks back to the program; behind them the type table (types.c).
 *
 * Needs:  f->desc and f->bits from passes 3 and 4.
 * Checks: each list of names: links, rings, names, buckets, duplicates, what a name means and its size;
 *         entries in no list.
 * Gives:  lists that end, in which each name is found once.
 *
 * A list is repaired by one store into the link that leads to the bad entry. Entries that fall out of a list
 * by that are found again as orphans, in order of their offsets, by this run or by the next one: the result
 * does not depend on where a run was killed.
 */
#include <stdlib.h>
#include <string.h>

#include "fsck.h"

typedef unsigned long long ull;

#define COMPARE_MAX 64u /* entries of one hash; more than a few are made on purpose */

struct name {
	uint64_t hash, off; /* off 0: empty slot */
};

struct names {
	struct name *slots;
	uint64_t slot_count;
	uint64_t *moved; /* entries taken out of a wrong list */
	size_t moved_count;
	uint64_t entry_count; /* blocks that could be entries */
};

static void entry_read(struct fsck *f, uint64_t off, struct phd_root *ret)
{
	image_read(f, off, ret, sizeof *ret);
}

/* True iff a block is large enough for an entry and of the right type. */
static bool entry_find(const struct fsck *f, uint64_t off, struct block *ret)
{
	return block_find(f, off, ret) && ret->type == PHD_TYPE_ROOT && ret->size >= sizeof(struct phd_root);
}

static void names_open(struct fsck *f, struct names *t)
{
	uint64_t chunk = 0, idx = 0;
	struct block b;

	while (block_next(f, &chunk, &idx, &b))
		t->entry_count += b.type == PHD_TYPE_ROOT;
	for (t->slot_count = 16; t->slot_count < 2 * t->entry_count; t->slot_count *= 2)
		;
	t->slots = memory_get(f, t->slot_count, sizeof *t->slots, "the names");
	t->moved = memory_get(f, t->entry_count + 1, sizeof *t->moved, "the names");
}

/* True: the name was not there and is now. */
static bool names_add(struct fsck *f, struct names *t, const struct phd_root *entry, uint64_t off)
{
	uint64_t hash = format_name_hash(entry->name),
		 i = hash * 0x9e3779b97f4a7c15ull >> 16 & (t->slot_count - 1);
	unsigned compared = 0;

	for (; t->slots[i].off; i = (i + 1) & (t->slot_count - 1)) {
		struct phd_root other;

		if (t->slots[i].hash != hash || compared++ >= COMPARE_MAX)
			continue;
		entry_read(f, t->slots[i].off, &other);
		if (!strncmp(other.name, entry->name, PHD_NAME_SIZE))
			return false;
	}
	t->slots[i] = (struct name){.hash = hash, .off = off};
	return true;
}

static void target_check(struct fsck *f, const struct phd_root *entry, uint64_t off)
{
	struct block b;

	f->root_count += entry->off != 0;
	if (!entry->off)
		return;
	if (!block_find(f, entry->off, &b) || (b.type > PHD_TYPE_USER_MAX && b.type != PHD_TYPE_PERMITS)) {
		if (problem(f, PR_ROOT_TARGET, off, "'%s': offset 0x%llx", entry->name, (ull)entry->off))
			image_write_word(f, off + offsetof(struct phd_root, off), 0);
		return;
	}
	if (entry->size > b.size && problem(f, PR_ROOT_SIZE, off, "'%s': %llu bytes in a block of %llu",
					    entry->name, (ull)entry->size, (ull)b.size))
		image_write_word(f, off + offsetof(struct phd_root, size), 0);
}

enum entry_fate { KEEP, UNLINK };

/* Checks one entry met in the list of bucket. UNLINK: it is to leave the list. */
static enum entry_fate entry_check(struct fsck *f, struct names *t, unsigned bucket, uint64_t off,
				   const struct phd_root *entry)
{
	unsigned want;

	if (!format_name_valid(entry->name))
		return problem(f, PR_ROOT_NAME, off, "entry at 0x%llx", (ull)off) ? UNLINK : KEEP;
	want = (unsigned)format_name_hash(entry->name) % PHD_ROOT_BUCKETS;
	if (want != bucket) {
		if (!problem(f, PR_ROOT_BUCKET, off, "'%s' is in list %u, not %u", entry->name, bucket, want))
			return KEEP;
		t->moved[t->moved_count++] = off;
		return UNLINK;
	}
	if (!names_add(f, t, entry, off))
		return problem(f, PR_ROOT_DUPLICATE, off, "'%s' at 0x%llx", entry->name, (ull)off) ? UNLINK
												   : KEEP;
	target_check(f, entry, off);
	return KEEP;
}

static void bucket_check(struct fsck *f, struct names *t, unsigned bucket)
{
	uint64_t link = f->super.head_off + offsetof(struct phd_head, roots) + 8 * bucket;
	uint64_t off = image_read_word(f, link);

	while (off) {
		struct phd_root entry;
		struct block b;

		if (!entry_find(f, off, &b)) {
			if (problem(f, PR_ROOT_LINK, link, "list %u leads to 0x%llx", bucket, (ull)off))
				image_write_word(f, link, 0);
			return;
		}
		if (block_seen(f, &b)) {
			if (problem(f, PR_ROOT_CYCLE, link, "list %u leads to 0x%llx again", bucket,
				    (ull)off))
				image_write_word(f, link, 0);
			return;
		}
		block_mark(f, &b);
		entry_read(f, off, &entry);
		if (entry_check(f, t, bucket, off, &entry) == UNLINK)
			image_write_word(f, link, entry.next_off);
		else
			link = off + offsetof(struct phd_root, next_off);
		off = entry.next_off;
	}
}

static int off_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* ORDER(fsck-relink): the entry's link before the list's head. Crash between: the entry is in no list, and
 * found as an orphan. */
static void entry_link(struct fsck *f, unsigned bucket, uint64_t off)
{
	uint64_t head = f->super.head_off + offsetof(struct phd_head, roots) + 8 * bucket;

	image_write_word(f, off + offsetof(struct phd_root, next_off), image_read_word(f, head));
	image_write_word(f, head, off);
}

/* Entries that no list leads to, and those taken out of a wrong one. One whose name is gone or taken stays
 * an unused block. */
static void orphans_check(struct fsck *f, struct names *t)
{
	uint64_t chunk = 0, idx = 0;
	struct phd_root entry;
	struct block b;

	qsort(t->moved, t->moved_count, sizeof *t->moved, off_compare);
	while (block_next(f, &chunk, &idx, &b)) {
		bool moved = bsearch(&b.off, t->moved, t->moved_count, sizeof *t->moved, off_compare) != NULL;

		pass_progress(f, chunk, f->chunk_count);
		if (b.type != PHD_TYPE_ROOT || b.size < sizeof entry || (block_seen(f, &b) && !moved))
			continue;
		entry_read(f, b.off, &entry);
		if (!format_name_valid(entry.name) || !names_add(f, t, &entry, b.off))
			continue;
		if (!moved && !problem(f, PR_ROOT_ORPHAN, b.off, "'%s' at 0x%llx", entry.name, (ull)b.off))
			continue;
		target_check(f, &entry, b.off);
		entry_link(f, (unsigned)format_name_hash(entry.name) % PHD_ROOT_BUCKETS, b.off);
	}
}

void attachment_note(struct fsck *f, uint64_t attachment, uint64_t off)
{
	if (attachment <= f->attachment_max)
		return;
	f->attachment_max = attachment;
	f->attachment_off = off;
}

void pass_names(struct fsck *f)
{
	struct names t = {0};

	f->seen = memory_get(f, f->chunk_count, sizeof(struct phd_bits), "the blocks seen");
	semaphores_check(f);
	holds_check(f);
	names_open(f, &t);
	for (unsigned bucket = 0; bucket < PHD_ROOT_BUCKETS; bucket++)
		bucket_check(f, &t, bucket);
	orphans_check(f, &t);
	free(t.slots);
	free(t.moved);
	types_check(f);
	image_sync(f);
}
