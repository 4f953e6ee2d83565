/* SPDX-License-Identifier: MIT
 *
 * pass1.c: superblock, state sector, checkpoint sector, size of the file; and power recovery (power.c), after
 * which alone the heap head means anything.
 *
 * Needs:  the file open and the gate taken (image.c, lock.c).
 * Checks: both superblock copies and every field of the geometry; both state copies; whether this is the
 *         file and the boot in which the heap was last open; the heap head's magic number and chunk count
 *         against the file's size and the descriptors.
 * Gives:  f->super, which address arithmetic may trust; f->state; f->chunk_count, whose chunks and directory
 *         are in the file.
 *
 * The state is judged before anything is written: with -p a heap that only -y accepts keeps every byte.
 */
#include <string.h>

#include "fsck.h"

struct copies {
	struct phd_super super[2];
	const char *error[2]; /* NULL: usable */
};

static void copies_read(struct fsck *f, struct copies *c)
{
	for (uint32_t i = 0; i < 2; i++) {
		image_read(f, PHD_SUPER_OFF(i), &c->super[i], sizeof c->super[i]);
		c->error[i] = format_super_invalid(&c->super[i], i);
		if (!c->error[i] && !format_super_unknown(&c->super[i]))
			c->error[i] = format_super_error(&c->super[i]);
	}
}

/* The copy in use, or -1. */
static int super_choose(struct fsck *f, const struct copies *c)
{
	int use = f->copy >= 0 ? f->copy : c->error[0] ? 1 : 0;
	const char *unknown;

	if (c->super[0].magic != PHD_SUPER_MAGIC && c->super[1].magic != PHD_SUPER_MAGIC)
		fsck_fail(f, "is not a heap: it has no superblock of one");
	if (c->error[use])
		return -1;
	unknown = format_super_unknown(&c->super[use]);
	if (unknown)
		fsck_fail(f,
			  "cannot be checked: %s; use the pheap-fsck that came with the program that made it",
			  unknown);
	f->super = c->super[use];
	return use;
}

static void super_repair(struct fsck *f, const struct copies *c, int use)
{
	uint32_t other = use ? 0 : 1;
	struct phd_super want = f->super;
	bool yes;

	want.copy = other;
	want.crc = format_crc32c(&want, offsetof(struct phd_super, crc));
	if (!memcmp(&want, &c->super[other], sizeof want))
		return;
	if (c->error[other])
		yes = problem(f, PR_SUPER_COPY, PHD_SUPER_OFF(other), "copy %u: %s", other, c->error[other]);
	else
		yes = problem(f, PR_SUPER_DIFFER, PHD_SUPER_OFF(other), "copy %u is in use", use);
	if (yes) {
		image_write(f, PHD_SUPER_OFF(other), &want, sizeof want);
		image_sync(f);
	}
}

/* A number above every attachment that the coordination region remembers, as far as that can be believed. */
static uint64_t attachment_guess(struct fsck *f)
{
	struct phd_coord coord;
	uint64_t limit;

	image_read(f, f->super.coord_off, &coord, sizeof coord);
	limit = coord.attachment_limit > coord.attachment_next ? coord.attachment_limit
							       : coord.attachment_next;
	return (limit < 1ull << 40 ? limit : 0) + (1u << 20);
}

static void state_read(struct fsck *f)
{
	struct phd_state s[2];
	bool valid[2];

	for (int i = 0; i < 2; i++) {
		image_read(f, PHD_STATE_OFF(i), &s[i], sizeof s[i]);
		valid[i] = format_state_valid(&s[i]);
		if (valid[i] && (f->state_copy < 0 || s[i].seq > f->state.seq)) {
			f->state = s[i];
			f->state_copy = i;
		}
	}
	if (f->state_copy < 0) {
		f->state.attachment_limit = attachment_guess(f);
		/* it was entered: an ephemeral heap that never was holds nothing that could be missed */
		f->state.open_gen = 1;
		f->state_rewrite = problem(f, PR_STATE_NONE, PHD_STATE_OFF(0), "both checksums are wrong");
		return;
	}
	f->was_clean = f->state.clean == 1;
	f->same_boot = identity_same_boot(&f->id, &f->state);
	f->same_file = identity_same_file(&f->id, &f->state);
	f->same_device = identity_same_device(&f->id, &f->state);
	for (int i = 0; i < 2; i++) {
		/* a sector of zeros was never written: the copies are written in turn */
		if (valid[i] || format_is_zero(&s[i], sizeof s[i]))
			continue;
		f->state_rewrite = problem(f, PR_STATE_COPY, PHD_STATE_OFF(i), "copy %d: wrong checksum", i);
	}
}

static void state_judge(struct fsck *f)
{
	uint64_t off = PHD_STATE_OFF(f->state_copy < 0 ? 0 : f->state_copy);

	if (f->state_copy < 0 || f->was_clean || f->attached)
		return;
	if (!f->same_file)
		problem(f, PR_STATE_FOREIGN, off, "it was last open as inode %llu, this is inode %llu",
			(unsigned long long)f->state.inode, (unsigned long long)f->id.inode);
	else if (f->cut)
		return; /* power_recover says what it is */
	else if (!f->same_boot)
		problem(f, PR_STATE_BOOT, off, "it was last open in another boot");
	else
		problem(f, PR_STATE_DIRTY, off, "a process ended without closing it");
}

/* Index after the last descriptor at or past `from` that is not zero; 0: none. Holes are skipped, so a
 * sparse table costs nothing. */
static uint64_t desc_used_end(struct fsck *f, uint64_t from)
{
	uint64_t off = f->super.desc_off + 8 * from, end = f->super.desc_off + 8 * f->super.chunk_max,
		 last = 0;
	uint64_t words[512];

	if (end > f->file_size)
		end = f->file_size & ~7ull;
	while ((off = image_next_data(f, off, end) & ~7ull) < end) {
		size_t n = end - off < sizeof words ? (size_t)(end - off) : sizeof words;

		image_read(f, off, words, n);
		for (size_t i = 0; i < n / 8; i++)
			if (words[i])
				last = (off - f->super.desc_off) / 8 + i + 1;
		off += n;
	}
	return last;
}

static void desc_clear_from(struct fsck *f, uint64_t from, uint64_t to)
{
	static const uint64_t zeros[512];

	while (from < to) {
		uint64_t n = to - from < 512 ? to - from : 512;

		image_write(f, f->super.desc_off + 8 * from, zeros, (size_t)n * 8);
		from += n;
	}
}

static void chunk_count_set(struct fsck *f, uint64_t count)
{
	f->chunk_count = count;
	image_write_word(f, f->super.head_off + offsetof(struct phd_head, chunk_count), count);
}

/* False: there is no number of chunks with which the rest could be checked. */
static bool chunk_count_check(struct fsck *f, uint64_t count)
{
	uint64_t off = f->super.head_off + offsetof(struct phd_head, chunk_count);
	uint64_t backed = format_chunks_backed(&f->super, f->file_size);
	enum fsck_problem id = count > f->super.chunk_max || count < f->super.journal_count || !count
				       ? PR_CHUNK_COUNT
				       : PR_FILE_TRUNCATED;

	f->chunk_count = count;
	if (id == PR_FILE_TRUNCATED && count <= backed)
		return true;
	if (!backed || backed < f->super.journal_count) {
		problem(f, PR_FILE_SHORT, f->file_size, "not even the journal's %llu chunks are there",
			(unsigned long long)f->super.journal_count);
		return false;
	}
	f->chunk_count = backed; /* what can be checked, also when the answer is no */
	if (problem(f, id, off, "it says %llu, the file holds %llu, at most %llu can be",
		    (unsigned long long)count, (unsigned long long)backed,
		    (unsigned long long)f->super.chunk_max))
		chunk_count_set(f, backed);
	return true;
}

static void desc_end_check(struct fsck *f)
{
	uint64_t end = desc_used_end(f, f->chunk_count);
	bool backed = end <= format_chunks_backed(&f->super, f->file_size);

	if (!end || f->attached)
		return;
	if (!problem(f, PR_DESC_PAST_END, f->super.desc_off + 8 * (end - 1),
		     "the last one is of chunk %llu, there are %llu chunks", (unsigned long long)(end - 1),
		     (unsigned long long)f->chunk_count))
		return;
	if (backed) {
		/* their chunks are in the file: rather the count is wrong than all of them */
		chunk_count_set(f, end);
		return;
	}
	f->lost_count++;
	desc_clear_from(f, f->chunk_count, end);
}

static bool head_check(struct fsck *f)
{
	struct phd_head head;

	image_read(f, f->super.head_off, &head, sizeof head);
	if (head.magic != PHD_HEAD_MAGIC && problem(f, PR_HEAD_MAGIC, f->super.head_off, "offset 0x%llx",
						    (unsigned long long)f->super.head_off))
		image_write_word(f, f->super.head_off, PHD_HEAD_MAGIC);
	if (!chunk_count_check(f, head.chunk_count))
		return false;
	desc_end_check(f);
	return true;
}

bool pass_super(struct fsck *f)
{
	struct copies c;
	int use;

	copies_read(f, &c);
	use = super_choose(f, &c);
	if (f->attached)
		lock_report_members(f);
	if (use < 0) {
		if (f->copy >= 0)
			problem(f, PR_SUPER_NONE, PHD_SUPER_OFF(f->copy), "copy %d: %s", f->copy,
				c.error[f->copy]);
		else
			problem(f, PR_SUPER_NONE, 0, "copy 0: %s; copy 1: %s", c.error[0], c.error[1]);
		return false;
	}
	if (f->file_size < f->super.data_off) {
		problem(f, PR_FILE_SHORT, f->file_size, "it has %llu bytes, the data would begin at %llu",
			(unsigned long long)f->file_size, (unsigned long long)f->super.data_off);
		return false;
	}
	state_read(f);
	f->wal = format_has_wal(&f->super);
	if (f->wal)
		checkpoint_read(f);
	cut_judge(f);
	state_judge(f);
	pass_stop(f);
	if (f->state_rewrite && !f->cut)
		image_write_state(f, f->was_clean);
	super_repair(f, &c, use);
	if (f->cut)
		power_recover(f);
	if (!head_check(f))
		return false;
	pass_stop(f);
	return true;
}
