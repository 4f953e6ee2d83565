/* SPDX-License-Identifier: MIT
 *
 * holds.c: second part of pass 5: held references.
 *
 * Needs:  f->desc, f->bits, f->seen.
 * Checks: each list: links, rings, the holder that a record names, its list, its object, records that say
 *         the same; records in no list.
 * Gives:  lists that end, in which each object and holder is found once; no record outside of them.
 *
 * While nobody is attached all records are void, and objects that have only such wait to be freed. They are
 * counted here, not freed: whoever opens the heap next does that, in a transaction each.
 * Why what falls out of a list is dropped, and not put back as names are: a record frees its object. One
 * that comes back by mistake takes away a block that is in use; one that is lost leaves a block allocated.
 *
 * What becomes of a record depends on the bytes in reach of its list alone, never on what other lists led
 * to, and each repair is one store: a killed run is taken up where it ended.
 *   ORDER(fsck-hold-free): the link past a record, in the walk over the lists, before the bit of its block.
 *   Crash between: the record is in no list, and found as such.
 */
#include <stdlib.h>
#include <string.h>

#include "fsck.h"

typedef unsigned long long ull;

struct entry {
	uint64_t object_off, attachment;
	uint64_t off, link_off; /* the record, and what leads to it */
	uint64_t idx;		/* in the list */
	bool counts;		/* its holder is attached */
};

/* The records of one list. */
struct list {
	struct entry *entries;
	uint64_t count, room;
	unsigned bucket;
};

static void list_add(struct fsck *f, struct list *l, const struct entry *e)
{
	if (l->count == l->room) {
		uint64_t room = l->room ? l->room * 2 : 64;
		struct entry *entries = memory_get(f, room, sizeof *entries, "a list of held references");

		if (l->count)
			memcpy(entries, l->entries, l->count * sizeof *entries);
		free(l->entries);
		l->entries = entries;
		l->room = room;
	}
	l->entries[l->count++] = *e;
}

static bool record_find(const struct fsck *f, uint64_t off, struct block *ret)
{
	return block_find(f, off, ret) && ret->type == PHD_TYPE_HOLD && ret->size >= sizeof(struct phd_hold);
}

static bool object_valid(const struct fsck *f, const struct phd_hold *r)
{
	struct block b;

	return block_find(f, r->object_off, &b) && b.type <= PHD_TYPE_USER_MAX;
}

static bool holder_valid(const struct fsck *f, const struct phd_hold *r)
{
	return r->slot < f->super.member_count && r->count && format_attachment_valid(r->attachment);
}

/* True iff a list may go on here. */
static bool record_usable(struct fsck *f, unsigned bucket, uint64_t off)
{
	struct phd_hold r;
	struct block b;

	if (!record_find(f, off, &b))
		return false;
	image_read(f, off, &r, sizeof r);
	return format_hold_bucket(r.object_off) == bucket && object_valid(f, &r);
}

/* A record with an impossible holder stays, as one of somebody who is gone: number 1 was the first that the
 * heap gave out. */
static void holder_check(struct fsck *f, uint64_t off, struct phd_hold *r)
{
	struct phd_hold want = *r;

	if (!holder_valid(f, r) &&
	    problem(f, PR_HOLD_FIELD, off, "0x%llx: slot %u, attachment %llu, %u times", (ull)off, r->slot,
		    (ull)r->attachment, r->count)) {
		want.slot = r->slot < f->super.member_count ? r->slot : 0;
		want.count = r->count ? r->count : 1;
		want.attachment = format_attachment_valid(r->attachment) ? r->attachment : 1;
		if (want.slot != r->slot || want.count != r->count)
			image_write_word(f, off + offsetof(struct phd_hold, slot),
					 want.slot | (uint64_t)want.count << 32);
		if (want.attachment != r->attachment)
			image_write_word(f, off + offsetof(struct phd_hold, attachment), want.attachment);
		*r = want;
	}
}

static bool holder_attached(struct fsck *f, const struct phd_hold *r)
{
	return f->attached && r->slot < f->super.member_count &&
	       image_read_word(f, f->super.member_off + r->slot * sizeof(struct phd_member)) == r->attachment;
}

enum fate {
	KEEP,
	STAY, /* it should not be there, and the answer was no */
	UNLINK
};

static enum fate record_check(struct fsck *f, const struct list *l, const struct block *b,
			      const struct phd_hold *r)
{
	unsigned want = format_hold_bucket(r->object_off);

	if (want != l->bucket)
		return problem(f, PR_HOLD_BUCKET, b->off, "0x%llx is in list %u, not %u", (ull)b->off,
			       l->bucket, want)
			       ? UNLINK
			       : STAY;
	if (object_valid(f, r))
		return KEEP;
	if (problem(f, PR_HOLD_OBJECT, b->off, "0x%llx: object 0x%llx", (ull)b->off, (ull)r->object_off))
		return UNLINK;
	block_mark(f, b);
	return STAY;
}

/* The block of the record that link_off leads to; false: the list ends, or has to end. */
static bool record_next(struct fsck *f, const struct list *l, uint64_t link_off, struct block *ret)
{
	uint64_t off = image_read_word(f, link_off);
	enum fsck_problem id = PR_HOLD_LINK;

	if (!off)
		return false;
	if (record_find(f, off, ret)) {
		uint64_t object_off = image_read_word(f, off + offsetof(struct phd_hold, object_off));

		/* one of another list is not told by whether that was walked before */
		if (!block_seen(f, ret) || format_hold_bucket(object_off) != l->bucket)
			return true;
		id = PR_HOLD_CYCLE;
	}
	if (problem(f, id, link_off, "list %u leads to 0x%llx%s", l->bucket, (ull)off,
		    id == PR_HOLD_CYCLE ? " again" : ""))
		image_write_word(f, link_off, 0);
	return false;
}

/* Behind a record that should not be there a list goes on only where it is sure to be itself again; so two
 * lists that have run into one another are parted, and the walk ends. */
static void list_walk(struct fsck *f, struct list *l)
{
	uint64_t link = f->super.head_off + offsetof(struct phd_head, holds) + 8 * l->bucket;
	struct block b;

	while (record_next(f, l, link, &b)) {
		struct phd_hold r;
		enum fate fate;

		image_read(f, b.off, &r, sizeof r);
		holder_check(f, b.off, &r);
		fate = record_check(f, l, &b, &r);
		if (fate == KEEP) {
			block_mark(f, &b);
			if (format_attachment_valid(r.attachment))
				attachment_note(f, r.attachment, b.off);
			list_add(f, l,
				 &(struct entry){.object_off = r.object_off,
						 .attachment = r.attachment,
						 .off = b.off,
						 .link_off = link,
						 .idx = l->count,
						 .counts = holder_attached(f, &r)});
		} else if (!record_usable(f, l->bucket, r.next_off)) {
			if (fate == UNLINK)
				image_write_word(f, link, 0);
			return;
		}
		if (fate == UNLINK)
			image_write_word(f, link, r.next_off);
		else
			link = b.off + offsetof(struct phd_hold, next_off);
	}
}

/* Records of one object and holder side by side, in the order of the list. */
static int entry_compare(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->object_off != y->object_off)
		return x->object_off < y->object_off ? -1 : 1;
	if (x->attachment != y->attachment)
		return x->attachment < y->attachment ? -1 : 1;
	return x->idx < y->idx ? -1 : x->idx > y->idx;
}

static int entry_compare_back(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->idx > y->idx ? -1 : x->idx < y->idx;
}

/* Counts records and void objects; returns how many of the entries are duplicates, which come first then. */
static uint64_t entries_sort(struct fsck *f, struct list *l)
{
	uint64_t n = 0;
	bool held = false;

	if (!l->count)
		return 0;
	qsort(l->entries, l->count, sizeof *l->entries, entry_compare);
	for (uint64_t i = 0; i < l->count; i++) {
		struct entry e = l->entries[i];
		const struct entry *next = i + 1 < l->count ? &l->entries[i + 1] : NULL;
		bool last = !next || next->object_off != e.object_off;

		held |= e.counts;
		f->hold_void_count += last && !held;
		held &= !last;
		if (!last && next->attachment == e.attachment)
			l->entries[n++] = *next;
	}
	f->hold_count += l->count;
	return n;
}

/* From the end, so that what leads to an entry is still there. */
static void duplicates_check(struct fsck *f, struct list *l, uint64_t n)
{
	if (n)
		qsort(l->entries, n, sizeof *l->entries, entry_compare_back);
	for (uint64_t i = 0; i < n; i++) {
		const struct entry *e = &l->entries[i];
		struct block b;

		if (!problem(f, PR_HOLD_DUPLICATE, e->off, "0x%llx: object 0x%llx, attachment %llu",
			     (ull)e->off, (ull)e->object_off, (ull)e->attachment))
			continue;
		image_write_word(f, e->link_off,
				 image_read_word(f, e->off + offsetof(struct phd_hold, next_off)));
		f->hold_count--;
		if (block_find(f, e->off, &b))
			block_unmark(f, &b);
	}
}

/* True: a block that no list leads to is a record all the same. */
static bool record_sure(struct fsck *f, const struct block *b)
{
	struct phd_hold r;

	if (!record_find(f, b->off, &(struct block){0}))
		return false;
	image_read(f, b->off, &r, sizeof r);
	return holder_valid(f, &r) && object_valid(f, &r);
}

/* Records in no list. A run that no list leads into, with a block that is no record, is one of the program's,
 * with a damaged type: it becomes untyped, and no byte in it changes. */
static void run_check(struct fsck *f, uint64_t chunk)
{
	uint64_t n = block_room(f, chunk), listed = 0, left = 0, doubtful = 0;
	struct block b;

	for (uint64_t i = 0; i < n && !listed; i++) {
		if (!block_at(f, chunk, i, &b))
			continue;
		listed += block_seen(f, &b);
		left++;
		doubtful += PHD_DESC_KIND(f->desc[chunk]) != PHD_DESC_RUN || !record_sure(f, &b);
	}
	if (left && !listed && doubtful) {
		if (problem(f, PR_DESC_TYPE, f->super.desc_off + 8 * chunk,
			    "chunk %llu: type 65539 (hold), but no list leads there", (ull)chunk))
			desc_untype(f, chunk);
		return;
	}
	for (uint64_t i = 0; i < n; i++)
		if (block_at(f, chunk, i, &b) && !block_seen(f, &b) &&
		    problem(f, PR_HOLD_ORPHAN, b.off, "0x%llx", (ull)b.off))
			block_free(f, &b);
}

void holds_check(struct fsck *f)
{
	struct list l = {0};

	for (l.bucket = 0; l.bucket < PHD_HOLD_BUCKETS; l.bucket++) {
		l.count = 0;
		list_walk(f, &l);
		duplicates_check(f, &l, entries_sort(f, &l));
	}
	free(l.entries);
	for (uint64_t chunk = 0; chunk < f->chunk_count; chunk++) {
		if (PHD_DESC_KIND(f->desc[chunk]) != PHD_DESC_CONT &&
		    PHD_DESC_TYPE(f->desc[chunk]) == PHD_TYPE_HOLD)
			run_check(f, chunk);
		pass_progress(f, chunk, f->chunk_count);
	}
	if (f->hold_void_count)
		problem(f, PR_HOLD_VOID, f->super.head_off + offsetof(struct phd_head, holds),
			"%llu objects, %llu held references in all", (ull)f->hold_void_count,
			(ull)f->hold_count);
}
