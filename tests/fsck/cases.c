/* SPDX-License-Identifier: MIT
 *
 * cases.c: the table of damages. See image.h for what is where.
 */
#include "cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"

static void damage_none(struct image *im)
{
	(void)im;
}

static void damage_dirty(struct image *im)
{
	struct phd_member *m = image_at(im, im->super->member_off);

	image_dirty(im);
	m->attachment = 33;
	m->pid = 4242;
	memcpy(m->command, "worker", 6);
	image_lane(im, 1)->owner = 33ull << 16 | 1;
	image_lane(im, 1)->notes[3] = 5;
}

static bool check_coordination(const struct image *before, const struct image *after)
{
	const struct phd_member *m = image_at(after, after->super->member_off);

	(void)before;
	if (!m->attachment && !image_lane(after, 1)->owner && !image_lane(after, 1)->notes[3])
		return true;
	printf("coordination was not reset\n");
	return false;
}

static void damage_empty_read(struct image *im)
{
	damage_dirty(im);
	image_lane(im, 0)->state = PHD_STATE(10, PHD_MODE_READ, PHD_STEP_ACTIVE);
}

/* A transaction that changed bytes twice (the first record counts), a list head and something that only
 * commit would do. */
static void damage_active(struct image *im)
{
	uint64_t off = image_chunk(im, 6) + 101,
		 roots = im->super->head_off + offsetof(struct phd_head, roots) + 8 * 9;
	uint64_t mask = 1ull << 20;

	image_dirty(im);
	image_lane_state(im, 2, PHD_STEP_ACTIVE);
	image_record(im, 2, PHD_REC_UNDO, off, "first", 5);
	image_record(im, 2, PHD_REC_UNDO, off, "after", 5);
	image_record(im, 2, PHD_REC_UNDO, roots, &im->head->roots[9], 8);
	image_record(im, 2, PHD_REC_SET, im->super->bits_off + 32 * 13, &mask, 8);
	image_record(im, 2, PHD_REC_UNDO, im->super->head_off + offsetof(struct phd_head, holds) + 8 * 255,
		     &im->head->holds[255], 8);
	memcpy(image_at(im, off), "third", 5);
	im->head->roots[9] = 0x1234567;
	im->head->holds[255] += 4;
}

static bool check_active(const struct image *before, const struct image *after)
{
	if (memcmp(image_at(after, image_chunk(after, 6) + 101), "first", 5) || after->head->roots[9] ||
	    after->head->holds[255] != before->head->holds[255] - 4 || after->bits[4 * 13] != 0xfff) {
		printf("not rolled back\n");
		return false;
	}
	if (image_lane(after, 2)->state != PHD_STATE(13, 0, 0) || image_lane(after, 2)->owner) {
		printf("the lane is not idle\n");
		return false;
	}
	return true;
}

static void damage_committed(struct image *im)
{
	uint64_t mask = 1ull << 30, gone = 1, word = image_chunk(im, 20);
	uint64_t run[2] = {2, PHD_DESC_MAKE_RUN(5, 64, 2)}, extent[2] = {600, 0}, freed[2] = {3, 0};
	uint64_t record[2] = {1, PHD_DESC_MAKE_RUN(PHD_TYPE_HOLD, sizeof(struct phd_hold), 1)};

	image_dirty(im);
	image_lane_state(im, 0, PHD_STEP_COMMITTED);
	extent[0] = 4;
	extent[1] = PHD_DESC_MAKE_EXTENT(9, 4);
	im->bits[4 * 16] = ~0ull; /* of no run: means nothing */
	image_record(im, 0, PHD_REC_PUBLISH, image_chunk(im, 6), &word, 8);
	image_record(im, 0, PHD_REC_DESC, 16, run, 16);
	image_record(im, 0, PHD_REC_SET, im->super->bits_off + 32 * 16, &mask, 8);
	image_record(im, 0, PHD_REC_CLEAR, im->super->bits_off + 32 * 13, &gone, 8);
	image_record(im, 0, PHD_REC_DESC, 20, extent, 16);
	image_record(im, 0, PHD_REC_DESC, 24, record, 16);
	image_record(im, 0, PHD_REC_DROPPED, 77, "abc", 3);
	image_record(im, 0, PHD_REC_DEFER, image_chunk(im, 6), "0123456789", 10);
	image_record(im, 0, PHD_REC_UNDO, image_chunk(im, 6) + 512, "never", 5);
	image_record(im, 0, PHD_REC_DESC, 10, freed, 16);
	image_root(im, 3)->off = 0;
}

static bool check_committed(const struct image *before, const struct image *after)
{
	uint64_t word = image_chunk(after, 20);
	bool ok = !memcmp(image_at(after, image_chunk(after, 6)), &word, 8) &&
		  !memcmp(image_at(after, image_chunk(after, 6) + 8), "89", 2);

	(void)before;
	ok = ok && after->desc[16] == PHD_DESC_MAKE_RUN(5, 64, 2) &&
	     after->desc[17] == PHD_DESC_MAKE_CONT(5, 1);
	ok = ok && after->bits[4 * 16] == 1ull << 30 && after->bits[4 * 13] == 0xffe;
	ok = ok && after->desc[20] == PHD_DESC_MAKE_EXTENT(9, 4) &&
	     after->desc[23] == PHD_DESC_MAKE_CONT(9, 3);
	ok = ok && after->desc[24] == PHD_DESC_MAKE_RUN(PHD_TYPE_HOLD, sizeof(struct phd_hold), 1);
	ok = ok && !after->desc[10] && !after->desc[11] && !after->desc[12];
	ok = ok && !*(unsigned char *)image_at(after, image_chunk(after, 6) + 512);
	if (!ok)
		printf("not rolled forward\n");
	return ok;
}

/* An undo log over the lane's space and an extension. */
static void damage_extension(struct image *im)
{
	char old[32];

	image_dirty(im);
	image_lane_state(im, 3, PHD_STEP_ACTIVE);
	for (unsigned i = 0; i < 100; i++) {
		memset(old, (int)i, sizeof old);
		if (i == 10)
			image_extend(im, 3, 30, 2);
		image_record(im, 3, PHD_REC_UNDO, image_chunk(im, 7) + 32 * i, old, sizeof old);
	}
	memset(image_at(im, image_chunk(im, 7)), 0xee, PHD_CHUNK_SIZE);
}

static bool check_extension(const struct image *before, const struct image *after)
{
	(void)before;
	for (unsigned i = 0; i < 3200; i++)
		if (after->bytes[image_chunk(after, 7) + i] != i / 32) {
			printf("byte %u was not restored\n", i);
			return false;
		}
	return true;
}

static void damage_extension_owner(struct image *im)
{
	damage_extension(im);
	((struct phd_log_ext *)image_at(im, image_chunk(im, 30)))->owner += 1 << 17;
}

static void damage_extension_shared(struct image *im)
{
	damage_extension(im);
	image_lane_state(im, 1, PHD_STEP_ACTIVE);
	image_record(im, 1, PHD_REC_UNDO, image_chunk(im, 30) + 8, "x", 1);
}

static void damage_two_lanes(struct image *im)
{
	damage_extension(im);
	damage_committed(im);
}

static void damage_log_record(struct image *im)
{
	damage_active(im);
	((struct phd_record *)image_at(im, im->super->lane_log_off + 2 * IMAGE_LANE_LOG))->target =
		PHD_REC_TARGET(PHD_REC_UNDO, im->super->desc_off);
}

static void damage_log_end(struct image *im)
{
	damage_active(im);
	image_lane(im, 2)->used = PHD_USED(0xffffffff, 3);
}

static void damage_lane_state(struct image *im)
{
	image_dirty(im);
	image_lane(im, 1)->state = PHD_STATE(99, 1, 77);
}

static void damage_clean_active(struct image *im)
{
	damage_active(im);
	image_state(im, 0)->clean = 1;
	image_seal(im);
}

static void damage_super_0(struct image *im)
{
	im->bytes[0x60] ^= 1;
}

static void damage_super_1(struct image *im)
{
	memset(image_at(im, PHD_SUPER_OFF(1)), 0, PHD_SECTOR_SIZE);
}

static void damage_super_both(struct image *im)
{
	im->bytes[0x60] ^= 1;
	im->bytes[0x1060] ^= 1;
}

static void damage_super_differ(struct image *im)
{
	struct phd_super *other = image_at(im, PHD_SUPER_OFF(1));

	other->uuid[0]++;
	other->crc = format_crc32c(other, offsetof(struct phd_super, crc));
}

static void damage_super_geometry(struct image *im)
{
	im->super->desc_off += 64;
	image_seal(im);
}

static void damage_state_0(struct image *im)
{
	im->bytes[0x230] ^= 1;
}

static void damage_state_both(struct image *im)
{
	im->bytes[0x230] ^= 1;
	im->bytes[0x1230] ^= 1;
}

static void damage_boot(struct image *im)
{
	image_state(im, 0)->boot_id[0] ^= 1;
	damage_active(im);
}

static void damage_foreign(struct image *im)
{
	image_state(im, 0)->inode++;
	damage_active(im);
}

static void damage_truncated(struct image *im)
{
	im->size = image_chunk(im, 12);
}

static void damage_truncated_directory(struct image *im)
{
	im->size = im->super->bits_off + 5;
}

static void damage_chunk_count(struct image *im)
{
	im->head->chunk_count = 1ull << 60;
}

static void damage_chunk_count_low(struct image *im)
{
	im->head->chunk_count = 8;
}

static void damage_desc_past_end(struct image *im)
{
	im->desc[60] = PHD_DESC_MAKE_EXTENT(0, 1);
}

static void damage_head_magic(struct image *im)
{
	im->head->magic = 0;
}

static void damage_cont(struct image *im)
{
	im->desc[11] = PHD_DESC_MAKE_CONT(0, 4); /* says it is of the extent at 7 */
}

static void damage_orphan(struct image *im)
{
	im->desc[25] = PHD_DESC_MAKE_CONT(0, 25);
}

static void damage_overlap(struct image *im)
{
	im->desc[6] = PHD_DESC_MAKE_EXTENT(0, 6);
}

static bool check_overlap(const struct image *before, const struct image *after)
{
	(void)before;
	if (after->desc[6] == PHD_DESC_MAKE_EXTENT(0, 4) && after->desc[10] == PHD_DESC_MAKE_EXTENT(9, 3))
		return true;
	printf("not cut where the next one begins\n");
	return false;
}

static void damage_long(struct image *im)
{
	im->desc[39] = PHD_DESC_MAKE_RUN(1, 16, 3);
}

static void damage_run(struct image *im)
{
	im->desc[13] = PHD_DESC_MAKE_RUN(0, 8, 1);
}

static void damage_type(struct image *im)
{
	im->desc[10] = PHD_DESC_MAKE_EXTENT(PHD_TYPE_JOURNAL, 3);
}

static void damage_free(struct image *im)
{
	im->desc[30] = 1ull << 50;
}

static void damage_holes(struct image *im)
{
	for (unsigned i = 30; i < 34; i++)
		im->desc[i] = PHD_DESC_HOLE;
}

static void damage_hole_inside(struct image *im)
{
	im->desc[11] = im->desc[12] = PHD_DESC_HOLE;
}

static bool check_hole_inside(const struct image *before, const struct image *after)
{
	(void)before;
	if (after->desc[11] == PHD_DESC_MAKE_CONT(9, 1) && after->desc[12] == PHD_DESC_MAKE_CONT(9, 2))
		return true;
	printf("holes are left inside of an extent\n");
	return false;
}

/* Free chunks become holes, and holes an extent. */
static void damage_hole_committed(struct image *im)
{
	uint64_t hole[2] = {3, PHD_DESC_HOLE}, extent[2] = {2, PHD_DESC_MAKE_EXTENT(9, 2)};

	image_dirty(im);
	damage_holes(im);
	image_lane_state(im, 0, PHD_STEP_COMMITTED);
	image_record(im, 0, PHD_REC_DESC, 25, hole, 16);
	image_record(im, 0, PHD_REC_DESC, 31, extent, 16);
}

static bool check_hole_committed(const struct image *before, const struct image *after)
{
	(void)before;
	if (after->desc[25] == PHD_DESC_HOLE && after->desc[27] == PHD_DESC_HOLE && after->desc[28] == 0 &&
	    after->desc[30] == PHD_DESC_HOLE && after->desc[31] == PHD_DESC_MAKE_EXTENT(9, 2) &&
	    after->desc[32] == PHD_DESC_MAKE_CONT(9, 1) && after->desc[33] == PHD_DESC_HOLE)
		return true;
	printf("descriptors of holes are wrong\n");
	return false;
}

/* Of a chunk that is freed nobody knows whether it was a hole. */
static bool check_free(const struct image *before, const struct image *after)
{
	(void)before;
	if (after->desc[30] == PHD_DESC_HOLE)
		return true;
	printf("what was freed counts as having space\n");
	return false;
}

static void damage_journal(struct image *im)
{
	im->desc[0] = 0;
}

static void damage_bits(struct image *im)
{
	im->bits[4 * 13 + 3] |= 1ull << 60;
	im->bits[4 * 13] |=
		1ull << 12; /* the run holds 12 blocks of 320 bytes: bit 12 is the first past the end */
}

static bool check_bits(const struct image *before, const struct image *after)
{
	(void)before;
	if (after->bits[4 * 13] == 0xfff && !after->bits[4 * 13 + 3])
		return true;
	printf("bits are wrong\n");
	return false;
}

static uint64_t *bucket(struct image *im, const char *name)
{
	return &im->head->roots[format_name_hash(name) % PHD_ROOT_BUCKETS];
}

static void damage_root_cycle(struct image *im)
{
	image_root(im, 0)->next_off = *bucket(im, "alpha");
}

static void damage_root_link(struct image *im)
{
	*bucket(im, "beta") = image_chunk(im, 6) + 8;
}

static bool check_root_link(const struct image *before, const struct image *after)
{
	uint64_t want = (uint64_t)((unsigned char *)image_root(before, 1) - before->bytes);

	if (after->head->roots[format_name_hash("beta") % PHD_ROOT_BUCKETS] == want)
		return true;
	printf("the entry did not come back\n");
	return false;
}

static void damage_root_name(struct image *im)
{
	memset(image_root(im, 0)->name, 'x', PHD_NAME_SIZE);
}

static void damage_root_bucket(struct image *im)
{
	strcpy(image_root(im, 0)->name, "omega");
}

static void damage_root_duplicate(struct image *im)
{
	struct phd_root *second = image_root(im, 5);

	im->bits[4 * 2] |= 1ull << 5;
	*second = *image_root(im, 0);
	image_root(im, 0)->next_off = (uint64_t)((unsigned char *)second - im->bytes);
}

static void damage_root_target(struct image *im)
{
	image_root(im, 0)->off += 8;
}

static void damage_root_size(struct image *im)
{
	image_root(im, 0)->size = 49;
}

static void damage_type_cycle(struct image *im)
{
	((struct phd_type *)image_at(im, image_chunk(im, 3)))->next_off = im->head->types_off;
}

static void damage_type_link(struct image *im)
{
	im->head->types_off = ~0ull;
}

static void damage_type_row(struct image *im)
{
	((struct phd_type *)image_at(im, image_chunk(im, 3)))->ptr_offs[1] = 41;
}

static void damage_type_duplicate(struct image *im)
{
	((struct phd_type *)image_at(im, image_chunk(im, 3)))->number = 9;
}

static void damage_pointer(struct image *im)
{
	*(uint64_t *)image_at(im, image_chunk(im, 4) + 40) = image_chunk(im, 6) + 16;
}

static void damage_word(struct image *im)
{
	*(uint64_t *)image_at(im, im->super->stripe_off + 64) = PHD_WORD(500, 1);
	*(uint64_t *)image_at(im, im->super->stripe_off + 2 * 64 + 8) = PHD_WORD(3, 300) | PHD_NEXT_FIRST;
	*(uint64_t *)image_at(im, im->super->stripe_off + 3 * 64 + 8) =
		PHD_WORD(3, 2) | PHD_NEXT_FIRST; /* past */
	((struct phd_coord *)image_at(im, im->super->coord_off))->writer_next = PHD_WORD(600, 2);
	((struct phd_coord *)image_at(im, im->super->coord_off))->switcher_next = ~0ull;
	*(uint64_t *)image_at(im, im->super->words_off + 16 * 7 + 8) = PHD_WORD(1, 300) | PHD_WORD_WAITERS;
	*(uint64_t *)image_at(im, im->super->words_off + 16 * 9) = PHD_WORD(9, 1); /* a past one: fine */
}

static bool check_word(const struct image *before, const struct image *after)
{
	const struct phd_coord *c = image_at(after, after->super->coord_off);
	const struct phd_stripe *s = image_at(after, after->super->stripe_off);

	(void)before;
	if (!s[1].word && !s[2].next && s[3].next && !c->writer_next && !c->switcher_next)
		return true;
	printf("words were not freed, or one too many\n");
	return false;
}

static void damage_poison(struct image *im)
{
	((struct phd_coord *)image_at(im, im->super->coord_off))->poison = 5;
	image_dirty(im);
}

static void damage_attachment(struct image *im)
{
	((struct phd_member *)image_at(im, im->super->member_off))->attachment = 70;
	image_dirty(im);
}

static bool check_attachment(const struct image *before, const struct image *after)
{
	(void)before;
	if (image_state(after, 0)->attachment_limit == 71 && image_state(after, 1)->attachment_limit == 71)
		return true;
	printf("the limit was not raised\n");
	return false;
}

const struct fsck_case fsck_cases[] = {
	{"clean", damage_none, 0, 0, 0, {"hold-void"}, NULL},
	{"not-closed", damage_dirty, 0, 0, 0, {"state-dirty", "members"}, check_coordination},
	{"empty-read", damage_empty_read, 0, 0, 0, {"lane-empty"}, check_coordination},
	{"incomplete", damage_active, LEFT, FIXED, FIXED, {"lane-active"}, check_active},
	{"committed", damage_committed, LEFT, FIXED, FIXED, {"lane-committed"}, check_committed},
	{"extension", damage_extension, LEFT, FIXED, FIXED, {"lane-active"}, check_extension},
	{"extension-owner", damage_extension_owner, LEFT, LEFT, FIXED, {"lane-log"}, NULL},
	{"extension-shared",
	 damage_extension_shared,
	 LEFT,
	 LEFT,
	 FIXED,
	 {"lane-log", "lane-active"},
	 check_extension},
	{"two-lanes",
	 damage_two_lanes,
	 LEFT,
	 FIXED,
	 FIXED,
	 {"lane-active", "lane-committed"},
	 check_committed},
	{"log-record", damage_log_record, LEFT, LEFT, FIXED, {"lane-log"}, NULL},
	{"log-end", damage_log_end, LEFT, LEFT, FIXED, {"lane-log"}, NULL},
	{"lane-state", damage_lane_state, LEFT, LEFT, FIXED, {"lane-state"}, NULL},
	{"clean-active", damage_clean_active, LEFT, LEFT, FIXED, {"lane-clean"}, check_active},
	{"super-0", damage_super_0, LEFT, FIXED, FIXED, {"super-copy"}, NULL},
	{"super-1", damage_super_1, LEFT, FIXED, FIXED, {"super-copy"}, NULL},
	{"super-both", damage_super_both, LEFT, LEFT, LEFT, {"super-none"}, NULL},
	{"super-differ", damage_super_differ, LEFT, LEFT, FIXED, {"super-differ"}, NULL},
	{"super-geometry", damage_super_geometry, LEFT, LEFT, LEFT, {"super-none"}, NULL},
	{"state-0", damage_state_0, LEFT, FIXED, FIXED, {"state-copy"}, NULL},
	{"state-both", damage_state_both, LEFT, LEFT, FIXED, {"state-none"}, NULL},
	{"other-boot", damage_boot, LEFT, LEFT, FIXED, {"state-boot", "lane-active"}, check_active},
	{"foreign", damage_foreign, LEFT, LEFT, FIXED, {"state-foreign", "lane-active"}, check_active},
	{"truncated", damage_truncated, LEFT, LEFT, FIXED, {"file-truncated"}, NULL},
	{"truncated-directory", damage_truncated_directory, LEFT, LEFT, LEFT, {"file-short"}, NULL},
	{"chunk-count", damage_chunk_count, LEFT, LEFT, FIXED, {"chunk-count"}, NULL},
	{"chunk-count-low", damage_chunk_count_low, LEFT, LEFT, FIXED, {"desc-past-end"}, NULL},
	{"desc-past-end", damage_desc_past_end, LEFT, LEFT, FIXED, {"desc-past-end"}, NULL},
	{"head-magic", damage_head_magic, LEFT, LEFT, FIXED, {"head-magic"}, NULL},
	{"cont", damage_cont, LEFT, LEFT, FIXED, {"desc-cont"}, NULL},
	{"orphan", damage_orphan, LEFT, LEFT, FIXED, {"desc-orphan"}, NULL},
	{"overlap", damage_overlap, LEFT, LEFT, FIXED, {"desc-overlap"}, check_overlap},
	{"long", damage_long, LEFT, LEFT, FIXED, {"desc-long"}, NULL},
	{"run", damage_run, LEFT, LEFT, FIXED, {"desc-run"}, NULL},
	{"type", damage_type, LEFT, LEFT, FIXED, {"desc-type"}, NULL},
	{"free", damage_free, LEFT, LEFT, FIXED, {"desc-free"}, check_free},
	{"holes", damage_holes, 0, 0, 0, {"hold-void"}, NULL},
	{"hole-inside", damage_hole_inside, LEFT, LEFT, FIXED, {"desc-cont"}, check_hole_inside},
	{"hole-committed",
	 damage_hole_committed,
	 LEFT,
	 FIXED,
	 FIXED,
	 {"lane-committed"},
	 check_hole_committed},
	{"journal", damage_journal, LEFT, LEFT, FIXED, {"journal-extent"}, NULL},
	{"bits", damage_bits, LEFT, LEFT, FIXED, {"bits-past-end"}, check_bits},
	{"root-cycle", damage_root_cycle, LEFT, LEFT, FIXED, {"root-cycle"}, NULL},
	{"root-link", damage_root_link, LEFT, LEFT, FIXED, {"root-link", "root-orphan"}, check_root_link},
	{"root-name", damage_root_name, LEFT, LEFT, FIXED, {"root-name"}, NULL},
	{"root-bucket", damage_root_bucket, LEFT, LEFT, FIXED, {"root-bucket"}, NULL},
	{"root-duplicate", damage_root_duplicate, LEFT, LEFT, FIXED, {"root-duplicate"}, NULL},
	{"root-target", damage_root_target, LEFT, LEFT, FIXED, {"root-target"}, NULL},
	{"root-size", damage_root_size, LEFT, LEFT, FIXED, {"root-size"}, NULL},
	{"type-cycle", damage_type_cycle, LEFT, LEFT, FIXED, {"type-cycle"}, NULL},
	{"type-link", damage_type_link, LEFT, LEFT, FIXED, {"type-link"}, NULL},
	{"type-row", damage_type_row, LEFT, LEFT, FIXED, {"type-row"}, NULL},
	{"type-duplicate", damage_type_duplicate, LEFT, LEFT, FIXED, {"type-duplicate"}, NULL},
	{"pointer", damage_pointer, 0, 0, 0, {"pointer"}, NULL},
	{"word", damage_word, LEFT, FIXED, FIXED, {"word"}, check_word},
	{"poison", damage_poison, LEFT, FIXED, FIXED, {"poison"}, NULL},
	{"attachment", damage_attachment, LEFT, FIXED, FIXED, {"attachment"}, check_attachment},
};
const unsigned fsck_case_count = sizeof fsck_cases / sizeof fsck_cases[0];

const struct fsck_case *fsck_case(unsigned i)
{
	if (i < fsck_case_count)
		return &fsck_cases[i];
	i -= fsck_case_count;
	if (i < resource_case_count)
		return &resource_cases[i];
	i -= resource_case_count;
	return i < wal_case_count ? &wal_cases[i] : NULL;
}

bool fsck_case_wal(const struct fsck_case *c)
{
	for (unsigned i = 0; i < wal_case_count; i++)
		if (c == &wal_cases[i])
			return true;
	return false;
}

const struct fsck_case *fsck_case_named(const char *name)
{
	const struct fsck_case *c;

	for (unsigned i = 0; (c = fsck_case(i)) != NULL; i++)
		if (!strcmp(c->name, name))
			return c;
	printf("there is no case %s\n", name);
	abort();
}
