/* SPDX-License-Identifier: MIT
 *
 * semaphores.c: first part of pass 5: counting semaphores.
 *
 * Needs:  f->desc and f->bits.
 * Checks: each block of type 65540 has room for a cell of every member; the total; the watcher; each cell.
 * Gives:  semaphores that the library accepts, and that say nothing about a member to come.
 *
 * A run of which no block can be a semaphore is one of the program's, with a damaged type: it becomes
 * untyped, and no byte in it changes. Each other repair is one word, judged by itself.
 */
#include "fsck.h"

typedef unsigned long long ull;

#define PERMITS_MAX (1ull << 40)
#define CELLS_AT_ONCE 256u

static bool semaphore_sound(struct fsck *f, const struct block *b)
{
	uint64_t room = (b->size - sizeof(struct phd_permits)) / sizeof(struct phd_permit_cell);

	return b->size >= sizeof(struct phd_permits) && room >= f->super.member_count &&
	       image_read_word(f, b->off) <= PERMITS_MAX;
}

static bool balance_possible(int64_t balance)
{
	return balance >= -(int64_t)PERMITS_MAX && balance <= (int64_t)PERMITS_MAX;
}

/* Clearing what cannot be takes nothing from anybody: where nobody is attached all cells are void. */
static void cell_check(struct fsck *f, uint64_t off, uint32_t slot, const struct phd_permit_cell *cell)
{
	bool known = !cell->attachment || format_attachment_valid(cell->attachment);

	if (known)
		attachment_note(f, cell->attachment, off);
	if (known && balance_possible(cell->balance))
		return;
	if (!problem(f, PR_SEMAPHORE_CELL, off, "member slot %u: attachment %llu, balance %lld", slot,
		     (ull)cell->attachment, (long long)cell->balance))
		return;
	if (!known)
		image_write_word(f, off + offsetof(struct phd_permit_cell, attachment), 0);
	if (!balance_possible(cell->balance))
		image_write_word(f, off + offsetof(struct phd_permit_cell, balance), 0);
}

/* One who is gone does no harm. One still to come would be taken for awake. */
static void watcher_check(struct fsck *f, const struct block *b)
{
	uint64_t off = b->off + offsetof(struct phd_permits, watcher), word = image_read_word(f, off);
	uint64_t attachment = word >> 16, slot = word & 0xffff;

	if (!word || f->attached ||
	    (slot && slot <= f->super.member_count && attachment < f->state.attachment_limit))
		return;
	if (problem(f, PR_WORD, off, "watcher of a semaphore: member slot %lld, attachment %llu",
		    (long long)slot - 1, (ull)attachment))
		image_write_word(f, off, 0);
}

static void semaphore_check(struct fsck *f, const struct block *b)
{
	struct phd_permit_cell cells[CELLS_AT_ONCE];
	uint64_t total = image_read_word(f, b->off);

	f->semaphore_count++;
	watcher_check(f, b);
	if (total > PERMITS_MAX &&
	    problem(f, PR_SEMAPHORE_TOTAL, b->off, "at 0x%llx: %llu", (ull)b->off, (ull)total))
		image_write_word(f, b->off, 0);
	for (uint32_t slot = 0; slot < f->super.member_count;) {
		uint32_t left = f->super.member_count - slot, n = left < CELLS_AT_ONCE ? left : CELLS_AT_ONCE;
		uint64_t off = b->off + offsetof(struct phd_permits, cells) + slot * sizeof cells[0];

		image_read(f, off, cells, n * sizeof cells[0]);
		for (uint32_t i = 0; i < n; i++)
			cell_check(f, off + i * sizeof cells[0], slot + i, &cells[i]);
		slot += n;
	}
}

static void run_check(struct fsck *f, uint64_t chunk)
{
	uint64_t n = block_room(f, chunk), used = 0, sound = 0;
	struct block b;

	for (uint64_t i = 0; i < n && !sound; i++)
		if (block_at(f, chunk, i, &b)) {
			used++;
			sound += semaphore_sound(f, &b);
		}
	if (used && !sound) {
		if (problem(f, PR_DESC_TYPE, f->super.desc_off + 8 * chunk,
			    "chunk %llu: type 65540 (semaphore), but none can be in it", (ull)chunk))
			desc_untype(f, chunk);
		return;
	}
	for (uint64_t i = 0; i < n; i++)
		if (block_at(f, chunk, i, &b))
			semaphore_check(f, &b);
}

void semaphores_check(struct fsck *f)
{
	for (uint64_t chunk = 0; chunk < f->chunk_count; chunk++) {
		if (PHD_DESC_KIND(f->desc[chunk]) == PHD_DESC_CONT ||
		    PHD_DESC_TYPE(f->desc[chunk]) != PHD_TYPE_PERMITS)
			continue;
		run_check(f, chunk);
		pass_progress(f, chunk, f->chunk_count);
	}
}
