/* SPDX-License-Identifier: MIT
 *
 * resources.c: the table of damages to held references and semaphores. See image.h for what is where.
 */
#include <stdio.h>
#include <string.h>

#include "cases.h"
#include "format.h"

static uint64_t *list_of(const struct image *im, unsigned object)
{
	return image_hold_list(im, im->held_off[object]);
}

/* True iff the list of A and B is these n blocks of chunk 14. */
static bool list_is(const struct image *im, const unsigned *blocks, unsigned n)
{
	uint64_t off = *list_of(im, 0);

	for (unsigned i = 0; i < n; i++) {
		if (off != image_hold_off(im, blocks[i])) {
			printf("record %u of the list is not block %u\n", i, blocks[i]);
			return false;
		}
		off = image_hold(im, blocks[i])->next_off;
	}
	if (off)
		printf("the list goes on\n");
	return !off;
}

static bool other_list_whole(const struct image *im)
{
	if (*image_hold_list(im, image_chunk(im, 6)) == image_hold_off(im, 3) && !image_hold(im, 3)->next_off)
		return true;
	printf("the other list has changed\n");
	return false;
}

static bool records_are(const struct image *im, uint64_t bits)
{
	if (im->bits[4 * 14] == bits)
		return true;
	printf("records left: 0x%llx, not 0x%llx\n", (unsigned long long)im->bits[4 * 14],
	       (unsigned long long)bits);
	return false;
}

/* ---- links ---- */

static void damage_link(struct image *im)
{
	*list_of(im, 0) = image_chunk(im, 6) + 8;
}

static bool check_link(const struct image *before, const struct image *after)
{
	(void)before;
	return list_is(after, NULL, 0) && other_list_whole(after) && records_are(after, 8);
}

static void damage_link_free(struct image *im)
{
	im->bits[4 * 14] &= ~2ull; /* the one in the middle */
}

static bool check_link_free(const struct image *before, const struct image *after)
{
	(void)before;
	return list_is(after, (unsigned[]){2}, 1) && records_are(after, 0xc);
}

/* A list into blocks of a program is no list. */
static void damage_link_type(struct image *im)
{
	image_hold(im, 1)->next_off = im->held_off[0];
}

static bool check_link_type(const struct image *before, const struct image *after)
{
	(void)before;
	return list_is(after, (unsigned[]){2, 1}, 2) && records_are(after, 0xe);
}

static void damage_cycle(struct image *im)
{
	image_hold(im, 0)->next_off = image_hold_off(im, 2);
}

static bool check_whole(const struct image *before, const struct image *after)
{
	(void)before;
	return list_is(after, (unsigned[]){2, 1, 0}, 3) && other_list_whole(after) && records_are(after, 0xf);
}

static void damage_joined(struct image *im)
{
	image_hold(im, 0)->next_off = image_hold_off(im, 3);
}

/* Both heads lead to one list. */
static void damage_joined_head(struct image *im)
{
	*image_hold_list(im, image_chunk(im, 6)) = *list_of(im, 0);
}

static bool check_joined_head(const struct image *before, const struct image *after)
{
	(void)before;
	return list_is(after, (unsigned[]){2, 1, 0}, 3) && records_are(after, 7) &&
	       !*image_hold_list(after, image_chunk(after, 6));
}

/* ---- records ---- */

static void damage_bucket(struct image *im)
{
	image_hold(im, 1)->object_off = image_chunk(im, 6);
}

static bool check_middle_gone(const struct image *before, const struct image *after)
{
	(void)before;
	return list_is(after, (unsigned[]){2, 0}, 2) && other_list_whole(after) && records_are(after, 0xd);
}

/* Clears the bit of a node. */
static void node_free(struct image *im, uint64_t off)
{
	uint64_t i = (off - image_chunk(im, 4)) / 48;

	im->bits[4 * 4 + i / 64] &= ~(1ull << i % 64);
}

static void damage_object(struct image *im)
{
	node_free(im, im->held_off[1]);
}

static bool check_object(const struct image *before, const struct image *after)
{
	(void)before;
	return list_is(after, (unsigned[]){1, 0}, 2) && records_are(after, 0xb);
}

/* Two in a row. */
static void damage_objects(struct image *im)
{
	node_free(im, im->held_off[0]);
}

static bool check_objects(const struct image *before, const struct image *after)
{
	(void)before;
	return list_is(after, (unsigned[]){2}, 1) && records_are(after, 0xc);
}

/* Blocks of the heap itself cannot be held. */
static void damage_object_own(struct image *im)
{
	uint64_t old = im->held_off[0], off = image_hold_off(im, 0);

	for (unsigned i = 0; i < 128 && format_hold_bucket(off) != format_hold_bucket(old); i++)
		off = image_hold_off(im, i);
	image_hold(im, 1)->object_off = off; /* of this list if there is one */
}

static void damage_field(struct image *im)
{
	image_hold(im, 0)->count = 0;
	image_hold(im, 0)->slot = 4;
	image_hold(im, 1)->attachment = 0;
	image_hold(im, 2)->attachment = 1ull << 45;
	image_hold(im, 3)->count = 0;
}

static bool check_field(const struct image *before, const struct image *after)
{
	const struct phd_hold *r = image_hold(after, 0);
	bool same = r[0].count == 1 && r[0].slot == 0 && r[0].attachment == 33 && r[1].attachment == 1 &&
		    r[1].slot == 1 && r[1].count == 2 && r[2].attachment == 1 && r[3].count == 1;

	if (!same)
		printf("wrong holders\n");
	return check_whole(before, after) && same;
}

static void damage_attachment(struct image *im)
{
	image_hold(im, 2)->attachment = 70;
}

static bool check_limit(const struct image *before, const struct image *after)
{
	(void)before;
	if (image_state(after, 0)->attachment_limit == 71 && image_state(after, 1)->attachment_limit == 71)
		return true;
	printf("the limit was not raised\n");
	return false;
}

static void damage_duplicate(struct image *im)
{
	image_hold(im, 1)->attachment = 33;
}

static bool check_duplicate(const struct image *before, const struct image *after)
{
	(void)before;
	return list_is(after, (unsigned[]){2, 1}, 2) && records_are(after, 0xe);
}

static void damage_duplicates(struct image *im)
{
	image_hold(im, 1)->attachment = 33;
	image_hold(im, 2)->object_off = im->held_off[0];
}

static bool check_duplicates(const struct image *before, const struct image *after)
{
	(void)before;
	return list_is(after, (unsigned[]){2}, 1) && records_are(after, 0xc);
}

/* ---- blocks ---- */

/* Whatever a block holds that no list leads to: in a run of records it is one. */
static void damage_orphan(struct image *im)
{
	im->bits[4 * 14 + 1] = 1ull << 63;
	memset(image_hold(im, 127), 0x5a, sizeof(struct phd_hold));
	im->bits[4 * 14] |= 0x10;
	*image_hold(im, 4) = *image_hold(im, 3);
}

static bool check_orphan(const struct image *before, const struct image *after)
{
	return check_whole(before, after) && !after->bits[4 * 14 + 1];
}

/* No list at all: records are told by what they say. */
static void damage_orphan_run(struct image *im)
{
	memset(im->head->holds, 0, sizeof im->head->holds);
}

static bool check_orphan_run(const struct image *before, const struct image *after)
{
	(void)before;
	return records_are(after, 0);
}

/* One bit made a run of a program one of records: it keeps every byte. */
static void damage_type_hold(struct image *im)
{
	im->desc[13] = PHD_DESC_MAKE_RUN(PHD_TYPE_HOLD, 320, 1);
	im->desc[10] = PHD_DESC_MAKE_EXTENT(PHD_TYPE_HOLD, 3);
	im->desc[11] = PHD_DESC_MAKE_CONT(PHD_TYPE_HOLD, 1);
	im->desc[12] = PHD_DESC_MAKE_CONT(PHD_TYPE_HOLD, 2);
}

static bool check_type_hold(const struct image *before, const struct image *after)
{
	if (after->desc[13] == PHD_DESC_MAKE_RUN(0, 320, 1) &&
	    after->desc[10] == PHD_DESC_MAKE_EXTENT(0, 3) && after->desc[11] == PHD_DESC_MAKE_CONT(0, 1) &&
	    after->desc[12] == PHD_DESC_MAKE_CONT(0, 2) && after->bits[4 * 13] == before->bits[4 * 13] &&
	    image_root(after, 3)->off == image_root(before, 3)->off)
		return check_whole(before, after);
	printf("blocks of the program were touched\n");
	return false;
}

/* ---- semaphores ---- */

static void damage_total(struct image *im)
{
	image_semaphore(im, 1)->total = (1ull << 40) + 1;
	image_semaphore(im, 0)->total = 1ull << 40; /* the most there can be */
}

static bool check_total(const struct image *before, const struct image *after)
{
	(void)before;
	if (image_semaphore(after, 0)->total == 1ull << 40 && !image_semaphore(after, 1)->total)
		return true;
	printf("wrong total\n");
	return false;
}

static void damage_cell(struct image *im)
{
	struct phd_permit_cell *cells = image_semaphore(im, 0)->cells;

	cells[0].balance = (1ll << 40) + 1;
	cells[1].balance = -(1ll << 40) - 1;
	cells[2].attachment = 1ull << 63;
	cells[3].balance = -(1ll << 40);
}

static bool check_cell(const struct image *before, const struct image *after)
{
	const struct phd_permit_cell *cells = image_semaphore(after, 0)->cells;

	(void)before;
	if (cells[0].attachment == 33 && !cells[0].balance && cells[1].attachment == 34 &&
	    !cells[1].balance && !cells[2].attachment && cells[3].balance == -(1ll << 40))
		return true;
	printf("wrong cells\n");
	return false;
}

static void damage_cell_attachment(struct image *im)
{
	image_semaphore(im, 1)->cells[3].attachment = 70;
}

static void damage_watcher(struct image *im)
{
	image_semaphore(im, 0)->watcher = 33 << 16 | 4; /* a past one */
	image_semaphore(im, 1)->watcher = 64 << 16 | 1;
}

static void damage_watcher_slot(struct image *im)
{
	image_semaphore(im, 0)->watcher = 33 << 16 | 4;
	image_semaphore(im, 1)->watcher = 33 << 16 | 5;
}

static bool check_watcher(const struct image *before, const struct image *after)
{
	(void)before;
	if (image_semaphore(after, 0)->watcher == (33 << 16 | 4) && !image_semaphore(after, 1)->watcher)
		return true;
	printf("wrong watchers\n");
	return false;
}

/* Too small for four members: a damaged type, the blocks are the program's. */
static void damage_type_semaphore(struct image *im)
{
	im->desc[4] = PHD_DESC_MAKE_RUN(PHD_TYPE_PERMITS, 48, 2);
	im->desc[5] = PHD_DESC_MAKE_CONT(PHD_TYPE_PERMITS, 1);
}

static bool check_type_semaphore(const struct image *before, const struct image *after)
{
	if (after->desc[4] == PHD_DESC_MAKE_RUN(0, 48, 2) && after->desc[5] == PHD_DESC_MAKE_CONT(0, 1) &&
	    !memcmp(image_root(after, 0), image_root(before, 0), sizeof(struct phd_root)))
		return check_whole(before, after);
	printf("blocks of the program were touched\n");
	return false;
}

/* All totals impossible: the same, though the blocks are large enough. */
static void damage_type_totals(struct image *im)
{
	image_semaphore(im, 0)->total = ~0ull;
	image_semaphore(im, 1)->total = 1ull << 41;
}

static bool check_type_totals(const struct image *before, const struct image *after)
{
	if (after->desc[15] == PHD_DESC_MAKE_RUN(0, 96, 1) &&
	    image_semaphore(after, 0)->total == image_semaphore(before, 0)->total)
		return true;
	printf("not untyped\n");
	return false;
}

/* A name may mean a semaphore, no other block of the heap. */
static void damage_root(struct image *im)
{
	image_root(im, 0)->off = image_hold_off(im, 0);
}

static bool check_root(const struct image *before, const struct image *after)
{
	(void)before;
	if (!image_root(after, 0)->off && image_root(after, 4)->off == image_chunk(after, 15))
		return true;
	printf("wrong names\n");
	return false;
}

const struct fsck_case resource_cases[] = {
	{"hold-link", damage_link, LEFT, LEFT, FIXED, {"hold-link", "hold-orphan"}, check_link},
	{"hold-link-free", damage_link_free, LEFT, LEFT, FIXED, {"hold-link"}, check_link_free},
	{"hold-link-type", damage_link_type, LEFT, LEFT, FIXED, {"hold-link"}, check_link_type},
	{"hold-cycle", damage_cycle, LEFT, LEFT, FIXED, {"hold-cycle"}, check_whole},
	{"hold-joined", damage_joined, LEFT, LEFT, FIXED, {"hold-bucket"}, check_whole},
	{"hold-joined-head",
	 damage_joined_head,
	 LEFT,
	 LEFT,
	 FIXED,
	 {"hold-bucket", "hold-orphan"},
	 check_joined_head},
	{"hold-bucket", damage_bucket, LEFT, LEFT, FIXED, {"hold-bucket", "hold-orphan"}, check_middle_gone},
	{"hold-object", damage_object, LEFT, LEFT, FIXED, {"hold-object"}, check_object},
	{"hold-objects", damage_objects, LEFT, LEFT, FIXED, {"hold-object"}, check_objects},
	{"hold-object-own", damage_object_own, LEFT, LEFT, FIXED, {"hold-orphan"}, check_middle_gone},
	{"hold-field", damage_field, LEFT, LEFT, FIXED, {"hold-field"}, check_field},
	{"hold-attachment", damage_attachment, LEFT, FIXED, FIXED, {"attachment"}, check_limit},
	{"hold-duplicate", damage_duplicate, LEFT, LEFT, FIXED, {"hold-duplicate"}, check_duplicate},
	{"hold-duplicates", damage_duplicates, LEFT, LEFT, FIXED, {"hold-duplicate"}, check_duplicates},
	{"hold-orphan", damage_orphan, LEFT, LEFT, FIXED, {"hold-orphan"}, check_orphan},
	{"hold-orphan-run", damage_orphan_run, LEFT, LEFT, FIXED, {"hold-orphan"}, check_orphan_run},
	{"hold-type", damage_type_hold, LEFT, LEFT, FIXED, {"desc-type"}, check_type_hold},
	{"semaphore-total", damage_total, LEFT, LEFT, FIXED, {"semaphore-total"}, check_total},
	{"semaphore-cell", damage_cell, LEFT, LEFT, FIXED, {"semaphore-cell"}, check_cell},
	{"semaphore-attachment", damage_cell_attachment, LEFT, FIXED, FIXED, {"attachment"}, check_limit},
	{"semaphore-watcher", damage_watcher, LEFT, FIXED, FIXED, {"word"}, check_watcher},
	{"semaphore-watcher-slot", damage_watcher_slot, LEFT, FIXED, FIXED, {"word"}, check_watcher},
	{"semaphore-type", damage_type_semaphore, LEFT, LEFT, FIXED, {"desc-type"}, check_type_semaphore},
	{"semaphore-totals", damage_type_totals, LEFT, LEFT, FIXED, {"desc-type"}, check_type_totals},
	{"semaphore-root", damage_root, LEFT, LEFT, FIXED, {"root-target"}, check_root},
};
const unsigned resource_case_count = sizeof resource_cases / sizeof resource_cases[0];
