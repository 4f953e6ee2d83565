/* SPDX-License-Identifier: MIT
 *
 * wal.c: damages of heaps with a WAL, and logs that a power cut leaves. What must come out of each is written
 * down here, byte by byte, from section 8 of FORMAT.md.
 */
#include "wal_image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "format.h"

#define EXTENT_OFF(im) image_chunk(im, 6)
#define BLOB_OFF(im) image_chunk(im, 10)
#define NEW_CHUNKS 44u /* after growth */

static void damage_wal_none(struct image *im)
{
	(void)im;
}

static bool fail_check(const char *what)
{
	printf("%s\n", what);
	return false;
}

/* Nobody is attached, the log is empty, and no generation or position can be met again. */
static bool check_reset(const struct image *im, uint64_t end)
{
	const struct phd_checkpoint *a = image_checkpoint(im, 0), *b = image_checkpoint(im, 1);
	const struct phd_checkpoint *c = a->seq > b->seq ? a : b;
	uint64_t next = (end + 4095) / 4096 * 4096 + IMAGE_WAL;

	if (c->replay_lsn != next || c->epoch_lsn != next || c->log_gen != WAL_LOG_GEN + 1 ||
	    c->lane_gen_limit != 2ull << 33)
		return fail_check("the checkpoint is not that of an empty log");
	for (unsigned i = 0; i < IMAGE_LANES; i++)
		if (image_lane(im, i)->state != PHD_STATE(1ull << 33, 0, 0) || image_lane(im, i)->owner ||
		    image_lane(im, i)->used)
			return fail_check("a lane was not reset");
	if (!format_is_zero(image_at(im, im->super->coord_off), im->super->lane_off - im->super->coord_off))
		return fail_check("kind B is left");
	return true;
}

static void damage_cut_empty(struct image *im)
{
	struct phd_member *m = image_at(im, im->super->member_off);
	uint64_t *stripe = image_at(im, im->super->stripe_off + 3 * sizeof(struct phd_stripe));

	image_cut(im);
	m->attachment = 33;
	*stripe = PHD_WORD(1000, 1);
	image_ring_set(im, 77, 3, 9);
	image_lane_state(im, 1, PHD_STEP_ACTIVE);
	/* it was undone, or committed: only the log knows */
	image_record(im, 1, PHD_REC_UNDO, EXTENT_OFF(im), "undo", 4);
	image_lane(im, 2)->state = 0xffffffffffffffffull;
}

static bool check_cut_empty(const struct image *before, const struct image *after)
{
	if (!format_is_zero(image_at(after, EXTENT_OFF(before)), 4))
		return fail_check("a lane of another boot was rolled back");
	return check_reset(after, IMAGE_LSN);
}

/* Pages that were stored into after their images; a transaction that was under way when the epoch began;
 * commits before and after. The first image crosses the end of the WAL. */
static uint64_t log_make(struct image *im, bool torn)
{
	uint64_t mask = 1ull << 20, gone = 1, word = BLOB_OFF(im), s;
	uint64_t extent[2] = {4, PHD_DESC_MAKE_EXTENT(9, 4)}, run[2] = {2, PHD_DESC_MAKE_RUN(5, 64, 2)};
	uint64_t bits = im->super->bits_off;
	struct wal_log *w = malloc(sizeof *w);
	uint64_t end;

	wal_log_start(w, im);
	/* before the epoch: durable in place, replayed all the same */
	wal_one(w, PHD_WAL_COMMIT, PHD_REC_DEFER, EXTENT_OFF(im), "early", 5);
	memcpy(image_at(im, EXTENT_OFF(im)), "early", 5);
	/* an image of the epoch before, which must not be stored */
	wal_one(w, PHD_WAL_IMAGE, PHD_REC_UNDO, BLOB_OFF(im), image_at(im, image_chunk(im, 4)), 4096);
	memcpy(image_at(im, BLOB_OFF(im) + 100), "under way", 9);
	wal_record_begin(w, PHD_WAL_SWITCH);
	wal_entry_add(w, PHD_REC_UNDO, BLOB_OFF(im) + 100, "as it was", 9);
	wal_entry_add(w, PHD_REC_PUBLISH, BLOB_OFF(im) + 208, &word, 8);
	wal_entry_add(w, PHD_REC_DEFER, BLOB_OFF(im) + 200, "to be stored yet", 16);
	wal_entry_add(w, PHD_REC_UNDO, BLOB_OFF(im) + 100, "later", 5);
	s = wal_record_end(w);
	wal_pad(w);
	wal_page(w, EXTENT_OFF(im));
	memcpy(image_at(im, EXTENT_OFF(im)), "garbage garbage", 15);
	wal_record_begin(w, PHD_WAL_COMMIT);
	wal_entry_add(w, PHD_REC_PUBLISH, EXTENT_OFF(im) + 16, &word, 8);
	wal_entry_add(w, PHD_REC_DEFER, EXTENT_OFF(im) + 12, "0123456789abcdefg", 17);
	wal_entry_add(w, PHD_REC_CLEAR, bits + 32 * 13, &gone, 8);
	wal_entry_add(w, PHD_REC_DESC, 20, extent, 16);
	wal_entry_add(w, PHD_REC_DESC, 16, run, 16);
	wal_entry_add(w, PHD_REC_SET, bits + 32 * 16, &mask, 8);
	wal_record_end(w);
	wal_page(w, EXTENT_OFF(im)); /* a second one of the page: the first one counts */
	/* the next epoch, which had no checkpoint: what its record has to store is in the commits */
	wal_one(w, PHD_WAL_SWITCH, PHD_REC_DEFER, BLOB_OFF(im) + 300, "not yet", 7);
	end = w->lsn;
	wal_one(w, PHD_WAL_COMMIT, PHD_REC_DEFER, EXTENT_OFF(im) + 64, "last", 4);
	if (torn)
		wal_flip(im, w->lsn - 3);
	else
		end = w->lsn;
	image_checkpoint_set(im, IMAGE_LSN, s);
	image_cut(im);
	free(w);
	return end;
}

static void damage_cut_log(struct image *im)
{
	log_make(im, false);
}

static void damage_cut_torn(struct image *im)
{
	log_make(im, true);
}

static bool check_log(const struct image *after, bool torn)
{
	const char *extent = image_at(after, EXTENT_OFF(after)), *blob = image_at(after, BLOB_OFF(after));
	uint64_t word = BLOB_OFF(after);

	if (memcmp(extent,
		   "early\0\0\0\0\0\0\0"
		   "0123",
		   16) ||
	    memcmp(extent + 16, &word, 8) || memcmp(extent + 24, "cdefg\0", 6))
		return fail_check("the extent is wrong");
	if (memcmp(blob + 100, "as it was", 9))
		return fail_check("what was under way was not undone");
	if (memcmp(blob + 200, "to be st", 8) || memcmp(blob + 208, &word, 8))
		return fail_check("what was to be stored when the epoch began was not");
	if (blob[300])
		return fail_check("what was to be stored when the next epoch began was");
	if (after->bits[4 * 13] != 0xffe || after->bits[4 * 16] != 1ull << 20 ||
	    after->desc[20] != PHD_DESC_MAKE_EXTENT(9, 4) || after->desc[17] != PHD_DESC_MAKE_CONT(5, 1))
		return fail_check("bits or descriptors are wrong");
	if (memcmp(extent + 64, torn ? "\0\0\0\0" : "last", 4))
		return fail_check("the last commit is wrong");
	return true;
}

static bool check_cut_log(const struct image *before, const struct image *after)
{
	(void)before;
	/* 40 + 16 + 8, the others as log_make appends them */
	return check_log(after, false);
}

static bool check_cut_torn(const struct image *before, const struct image *after)
{
	(void)before;
	return check_log(after, true);
}

static void damage_cut_generation(struct image *im)
{
	struct wal_log *w = malloc(sizeof *w);

	wal_log_start(w, im);
	wal_one(w, PHD_WAL_COMMIT, PHD_REC_DEFER, EXTENT_OFF(im), "mine", 4);
	w->log_gen = WAL_LOG_GEN - 1;
	wal_one(w, PHD_WAL_COMMIT, PHD_REC_DEFER, EXTENT_OFF(im), "theirs", 6);
	image_cut(im);
	free(w);
}

static bool check_cut_generation(const struct image *before, const struct image *after)
{
	if (memcmp(image_at(after, EXTENT_OFF(before)), "mine\0", 6))
		return fail_check("a record of another generation was replayed");
	return check_reset(after, IMAGE_LSN + 32 + 16 + 8);
}

static void damage_cut_position(struct image *im)
{
	struct wal_log *w = malloc(sizeof *w);

	wal_log_start(w, im);
	wal_one(w, PHD_WAL_COMMIT, PHD_REC_DEFER, EXTENT_OFF(im), "mine", 4);
	w->lsn -= IMAGE_WAL; /* as one turn ago */
	wal_one(w, PHD_WAL_COMMIT, PHD_REC_DEFER, EXTENT_OFF(im), "old", 3);
	image_cut(im);
	free(w);
}

static bool check_cut_position(const struct image *before, const struct image *after)
{
	if (memcmp(image_at(after, EXTENT_OFF(before)), "mine\0", 6))
		return fail_check("a record of another turn was replayed");
	return check_reset(after, IMAGE_LSN + 32 + 16 + 8);
}

/* The heap grew: neither the count nor the file's new end reached the disk. */
static void damage_cut_grow(struct image *im)
{
	struct wal_log *w = malloc(sizeof *w);
	uint64_t extent[2] = {3, PHD_DESC_MAKE_EXTENT(9, 3)};

	wal_log_start(w, im);
	wal_one(w, PHD_WAL_COMMIT, PHD_REC_GROW, NEW_CHUNKS, NULL, 0);
	wal_page(w, image_chunk(im, 41));
	wal_record_begin(w, PHD_WAL_COMMIT);
	wal_entry_add(w, PHD_REC_DESC, 41, extent, 16);
	wal_entry_add(w, PHD_REC_DEFER, image_chunk(im, 41) + 4, "new", 3);
	wal_record_end(w);
	image_cut(im);
	free(w);
}

/* As before; all of it did reach the disk, but not the record of the commit. */
static void damage_cut_grow_back(struct image *im)
{
	struct wal_log *w = malloc(sizeof *w);

	wal_log_start(w, im);
	wal_page(w, im->super->head_off);
	wal_page(w, im->super->desc_off);
	im->head->chunk_count = NEW_CHUNKS;
	im->desc[41] = PHD_DESC_MAKE_EXTENT(9, 1);
	im->size = image_chunk(im, NEW_CHUNKS);
	image_cut(im);
	free(w);
}

static bool check_cut_grow(const struct image *before, const struct image *after)
{
	(void)before;
	if (after->head->chunk_count != NEW_CHUNKS || after->size != image_chunk(after, NEW_CHUNKS))
		return fail_check("it did not grow");
	if (memcmp(image_at(after, image_chunk(after, 41)), "\0\0\0\0new", 8) ||
	    after->desc[43] != PHD_DESC_MAKE_CONT(9, 2))
		return fail_check("what was committed there is wrong");
	return true;
}

static bool check_cut_grow_back(const struct image *before, const struct image *after)
{
	(void)before;
	if (after->head->chunk_count != IMAGE_CHUNKS || after->desc[41])
		return fail_check("it grew");
	return true;
}

/* Checksums that fit, of records that nobody writes. */
static void bad_record(struct image *im, unsigned kind, unsigned entry, uint64_t off, uint32_t size)
{
	static const unsigned char bytes[8192] = {0xaa, 0xbb};
	struct wal_log *w = malloc(sizeof *w);

	wal_log_start(w, im);
	wal_one(w, PHD_WAL_COMMIT, PHD_REC_DEFER, EXTENT_OFF(im), "one", 3);
	wal_record_begin(w, kind);
	wal_entry_add(w, kind == PHD_WAL_COMMIT ? PHD_REC_DEFER : PHD_REC_UNDO, EXTENT_OFF(im), "no!", 3);
	wal_entry_add(w, entry, off, bytes, size);
	wal_record_end(w);
	wal_one(w, PHD_WAL_COMMIT, PHD_REC_DEFER, EXTENT_OFF(im) + 3, "two", 3);
	image_cut(im);
	free(w);
}

static void damage_bad_commit(struct image *im)
{
	bad_record(im, PHD_WAL_COMMIT, PHD_REC_DEFER, image_chunk(im, IMAGE_CHUNKS) - 4, 8);
}

static void damage_bad_kind(struct image *im)
{
	bad_record(im, PHD_WAL_COMMIT, PHD_REC_UNDO, EXTENT_OFF(im), 8);
}

static void damage_bad_image(struct image *im)
{
	bad_record(im, PHD_WAL_IMAGE, PHD_REC_UNDO, im->super->lane_off / 4096 * 4096, 4096);
}

static void damage_bad_part(struct image *im)
{
	bad_record(im, PHD_WAL_IMAGE, PHD_REC_UNDO, EXTENT_OFF(im), 512);
}

static void damage_bad_switch(struct image *im)
{
	bad_record(im, PHD_WAL_SWITCH, PHD_REC_UNDO, im->super->head_off, 8);
}

static void damage_bad_grow(struct image *im)
{
	bad_record(im, PHD_WAL_COMMIT, PHD_REC_GROW, 65, 0);
}

static void damage_bad_desc(struct image *im)
{
	bad_record(im, PHD_WAL_COMMIT, PHD_REC_DESC, 1, 16);
}

static bool check_bad_record(const struct image *before, const struct image *after)
{
	if (memcmp(image_at(after, EXTENT_OFF(before)), "onetwo\0", 8))
		return fail_check("an impossible record was not left out");
	return true;
}

static void checkpoint_spoil(struct image *im, int copy)
{
	image_checkpoint(im, copy)->seq ^= 0x100;
}

static void damage_checkpoint_copy(struct image *im)
{
	checkpoint_spoil(im, 0);
}

static void damage_checkpoint_copy_cut(struct image *im)
{
	log_make(im, false);
	checkpoint_spoil(im, 0);
}

/* The last one was cut in the middle: the one before, and a log that reaches further back. */
static void damage_checkpoint_torn(struct image *im)
{
	log_make(im, false);
	*image_checkpoint(im, 0) = *image_checkpoint(im, 1);
	image_checkpoint(im, 0)->seq--;
	image_seal(im);
	image_checkpoint(im, 1)->replay_lsn += 1024;
	image_checkpoint(im, 1)->epoch_lsn += 4096;
}

static void damage_checkpoint_none(struct image *im)
{
	checkpoint_spoil(im, 0);
	checkpoint_spoil(im, 1);
}

static bool check_checkpoint_none(const struct image *before, const struct image *after)
{
	const struct phd_checkpoint *c = image_checkpoint(after, 0);

	(void)before;
	if (format_checkpoint_invalid(after->super, c) || c->replay_lsn != c->epoch_lsn)
		return fail_check("there is no new checkpoint");
	return true;
}

static void damage_checkpoint_none_cut(struct image *im)
{
	log_make(im, false);
	damage_checkpoint_none(im);
}

static bool check_checkpoint_none_cut(const struct image *before, const struct image *after)
{
	const struct phd_checkpoint *a = image_checkpoint(after, 0), *b = image_checkpoint(after, 1);
	const struct phd_checkpoint *c =
		b->seq > a->seq && !format_checkpoint_invalid(after->super, b) ? b : a;

	if (memcmp(image_at(after, EXTENT_OFF(before)), "garbage", 7))
		return fail_check("a log without a checkpoint was replayed");
	/* past all that is in the WAL */
	if (c->log_gen <= WAL_LOG_GEN || c->replay_lsn < IMAGE_LSN + IMAGE_WAL ||
	    c->lane_gen_limit <= 1ull << 33)
		return fail_check("the new log begins where the old one was");
	return true;
}

/* Killed, and memory still has what the checkpoint said. */
static void damage_checkpoint_none_killed(struct image *im)
{
	image_dirty(im);
	image_ring_set(im, IMAGE_LSN, IMAGE_LSN, IMAGE_LSN + 64);
	damage_checkpoint_none(im);
}

static bool check_retired(const struct image *before, const struct image *after)
{
	const struct phd_checkpoint *a = image_checkpoint(after, 0), *b = image_checkpoint(after, 1);
	const struct phd_checkpoint *c =
		!format_checkpoint_invalid(after->super, b) && b->seq > a->seq ? b : a;
	const struct phd_coord *was = image_at(before, before->super->coord_off);
	uint64_t next = (was->tail + 4095) / 4096 * 4096;

	if (c->replay_lsn != next || c->epoch_lsn != next || c->log_gen != WAL_LOG_GEN)
		return fail_check("the log was not retired");
	return true;
}

static void damage_wal_short(struct image *im)
{
	struct wal_log *w = malloc(sizeof *w);

	wal_log_start(w, im);
	wal_one(w, PHD_WAL_COMMIT, PHD_REC_DEFER, EXTENT_OFF(im), "mine", 4);
	image_checkpoint_set(im, IMAGE_LSN, w->lsn + 8);
	image_cut(im);
	free(w);
}

static bool check_wal_short(const struct image *before, const struct image *after)
{
	if (memcmp(image_at(after, EXTENT_OFF(before)), "mine\0", 6))
		return fail_check("what the log has was not replayed");
	return check_reset(after, IMAGE_LSN + 64);
}

/* A checkpoint has moved on since the sector: a commit before it, and one behind it. Of the words the lower one names a place that
 * is long in use again. */
static void damage_live(struct image *im)
{
	struct wal_log *w = malloc(sizeof *w);

	wal_log_start(w, im);
	wal_one(w, PHD_WAL_COMMIT, PHD_REC_DEFER, EXTENT_OFF(im), "done", 4);
	wal_pad(w);
	wal_record_begin(w, PHD_WAL_SWITCH);
	image_live(im, 1)->epoch_lsn = wal_record_end(w);
	image_live(im, 0)->epoch_lsn = IMAGE_LSN + 8;
	wal_one(w, PHD_WAL_COMMIT, PHD_REC_DEFER, EXTENT_OFF(im) + 64, "mine", 4);
	memset(image_at(im, EXTENT_OFF(im)), 0, 128);
	image_checkpoint_set(im, IMAGE_LSN, IMAGE_LSN);
	image_cut(im);
	free(w);
}

static bool check_live(const struct image *before, const struct image *after)
{
	const char *extent = image_at(after, EXTENT_OFF(before));

	if (memcmp(extent, "\0\0\0\0", 4) || memcmp(extent + 64, "mine", 4))
		return fail_check("the log was not read from the later checkpoint on");
	return true;
}

static void damage_live_wrong(struct image *im)
{
	damage_live(im);
	image_live(im, 0)->epoch_lsn = UINT64_MAX - 3;
	image_live(im, 0)->lane_gen_limit = UINT64_MAX;
}

/* No SWITCH record is where it says; the other one still does. */
static void damage_live_nowhere(struct image *im)
{
	damage_live(im);
	image_live(im, 0)->epoch_lsn = image_live(im, 1)->epoch_lsn + 32;
}

static void damage_live_killed(struct image *im)
{
	image_dirty(im);
	image_ring_set(im, IMAGE_LSN, IMAGE_LSN + 512, IMAGE_LSN + 512);
	image_live(im, 1)->epoch_lsn = IMAGE_LSN + 64;
}

static bool check_live_killed(const struct image *before, const struct image *after)
{
	if (image_live(after, 1)->epoch_lsn)
		return fail_check("the word still says it");
	return check_retired(before, after);
}

/* Three lanes: one that was appending and has, one that has not, one that had not begun to. */
static void damage_appending(struct image *im)
{
	image_dirty(im);
	image_ring_set(im, IMAGE_LSN, IMAGE_LSN + 512, IMAGE_LSN + 640);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t off = EXTENT_OFF(im) + 64 * i;

		image_lane_state(im, i, i < 2 ? PHD_STEP_APPENDING : PHD_STEP_ACTIVE);
		image_lane(im, i)->lsn = i ? IMAGE_LSN + 640 : IMAGE_LSN + 512;
		image_record(im, i, PHD_REC_UNDO, off, "before", 6);
		image_record(im, i, PHD_REC_DEFER, off + 8, "deferred", 8);
		memcpy(image_at(im, off), "stored", 6);
	}
	image_lane(im, 2)->rollback_count = 5;
}

static bool check_appending(const struct image *before, const struct image *after)
{
	const char *extent = image_at(after, EXTENT_OFF(before));

	if (memcmp(extent, "stored\0\0deferred", 16) || memcmp(extent + 64, "before\0\0\0", 9) ||
	    memcmp(extent + 128, "before\0\0\0", 9))
		return fail_check("rolled the wrong way");
	if (image_lane(after, 2)->rollback_count & 1)
		return fail_check("a lane still rolls back");
	return check_retired(before, after);
}

static void damage_ring(struct image *im)
{
	damage_appending(im);
	image_ring_set(im, IMAGE_LSN, IMAGE_LSN + 512, IMAGE_LSN + IMAGE_WAL + 8);
}

static bool check_ring(const struct image *before, const struct image *after)
{
	const char *extent = image_at(after, EXTENT_OFF(before));

	if (memcmp(extent, "stored\0\0deferred", 16) || memcmp(extent + 64, "stored\0\0deferred", 16) ||
	    memcmp(extent + 128, "before\0\0\0", 9))
		return fail_check("rolled the wrong way");
	return true;
}

/* Opened in another boot than it was closed in, and killed before it set its words in memory. */
static void damage_ring_stale(struct image *im)
{
	image_dirty(im);
	image_ring_set(im, 0, 0, 0);
}

static void damage_lease(struct image *im)
{
	struct phd_lease *lease = image_at(im, im->super->lease_off);
	struct phd_table_lease *table = image_at(im, im->super->table_lease_off);

	lease[3].page = IMAGE_LSN;  /* may be */
	lease[4].alloc_lsn = ~0ull; /* may be */
	lease[5].page = IMAGE_LSN + 4096 + 8;
	table[0].desc = ~0ull;
	lease[IMAGE_CHUNKS - 1].page = 1ull << 60;
}

static bool check_lease(const struct image *before, const struct image *after)
{
	const struct phd_lease *lease = image_at(after, after->super->lease_off);
	const struct phd_table_lease *table = image_at(after, after->super->table_lease_off);

	(void)before;
	if (lease[3].page != IMAGE_LSN || !lease[4].alloc_lsn || lease[5].page || table[0].desc ||
	    lease[IMAGE_CHUNKS - 1].page)
		return fail_check("leases are wrong");
	return true;
}

static void damage_limit(struct image *im)
{
	image_lane(im, 3)->state = PHD_STATE((1ull << 33) + 5, 0, 0);
}

static bool check_limit(const struct image *before, const struct image *after)
{
	(void)before;
	if (image_checkpoint(after, 0)->lane_gen_limit != (2ull << 33) + 5 ||
	    image_checkpoint(after, 0)->replay_lsn != IMAGE_LSN)
		return fail_check("the limit was not raised");
	return true;
}

static void damage_cut_copy(struct image *im)
{
	log_make(im, false);
	image_state(im, 0)->inode++;
	image_seal(im);
}

static void damage_cut_unknown(struct image *im)
{
	log_make(im, false);
	image_state(im, 0)->seq = 1;
	image_state(im, 1)->seq = 2;
}

static void damage_poisoned(struct image *im)
{
	struct phd_coord *c = image_at(im, im->super->coord_off);

	log_make(im, false);
	for (int i = 0; i < 2; i++)
		image_state(im, i)->boot_id[3] ^= 0x40;
	image_seal(im);
	image_ring_set(im, IMAGE_LSN, IMAGE_LSN, IMAGE_LSN);
	c->poison = 5;
}

static void damage_geometry(struct image *im)
{
	im->super->ring_off += 64;
	image_seal(im);
}

const struct fsck_case wal_cases[] = {
	{"wal none", damage_wal_none, 0, 0, 0, {NULL}, NULL},
	{"wal geometry", damage_geometry, LEFT, LEFT, LEFT, {"super-none"}, NULL},
	{"cut empty", damage_cut_empty, LEFT, FIXED, FIXED, {"power-cut"}, check_cut_empty},
	{"cut log", damage_cut_log, LEFT, FIXED, FIXED, {"power-cut"}, check_cut_log},
	{"cut torn", damage_cut_torn, LEFT, FIXED, FIXED, {"power-cut"}, check_cut_torn},
	{"cut generation", damage_cut_generation, LEFT, FIXED, FIXED, {"power-cut"}, check_cut_generation},
	{"cut position", damage_cut_position, LEFT, FIXED, FIXED, {"power-cut"}, check_cut_position},
	{"cut grow", damage_cut_grow, LEFT, FIXED, FIXED, {"power-cut"}, check_cut_grow},
	{"cut grow back", damage_cut_grow_back, LEFT, FIXED, FIXED, {"power-cut"}, check_cut_grow_back},
	{"bad commit", damage_bad_commit, LEFT, LEFT, FIXED, {"power-cut", "wal-record"}, check_bad_record},
	{"bad kind", damage_bad_kind, LEFT, LEFT, FIXED, {"power-cut", "wal-record"}, check_bad_record},
	{"bad image", damage_bad_image, LEFT, LEFT, FIXED, {"power-cut", "wal-record"}, check_bad_record},
	{"bad part", damage_bad_part, LEFT, LEFT, FIXED, {"power-cut", "wal-record"}, check_bad_record},
	{"bad switch", damage_bad_switch, LEFT, LEFT, FIXED, {"power-cut", "wal-record"}, check_bad_record},
	{"bad grow", damage_bad_grow, LEFT, LEFT, FIXED, {"power-cut", "wal-record"}, check_bad_record},
	{"bad desc", damage_bad_desc, LEFT, LEFT, FIXED, {"power-cut", "wal-record"}, check_bad_record},
	{"checkpoint copy", damage_checkpoint_copy, LEFT, FIXED, FIXED, {"checkpoint-copy"}, NULL},
	{"checkpoint copy cut",
	 damage_checkpoint_copy_cut,
	 LEFT,
	 FIXED,
	 FIXED,
	 {"checkpoint-copy", "power-cut"},
	 check_cut_log},
	{"checkpoint torn",
	 damage_checkpoint_torn,
	 LEFT,
	 FIXED,
	 FIXED,
	 {"checkpoint-copy", "power-cut"},
	 check_cut_log},
	{"checkpoint none",
	 damage_checkpoint_none,
	 LEFT,
	 LEFT,
	 FIXED,
	 {"checkpoint-none"},
	 check_checkpoint_none},
	{"checkpoint none cut",
	 damage_checkpoint_none_cut,
	 LEFT,
	 LEFT,
	 FIXED,
	 {"checkpoint-none", "power-cut"},
	 check_checkpoint_none_cut},
	{"checkpoint none killed",
	 damage_checkpoint_none_killed,
	 LEFT,
	 LEFT,
	 FIXED,
	 {"checkpoint-none", "state-dirty"},
	 check_retired},
	{"wal short", damage_wal_short, LEFT, LEFT, FIXED, {"power-cut", "wal-short"}, check_wal_short},
	{"live", damage_live, LEFT, FIXED, FIXED, {"power-cut"}, check_live},
	{"live wrong", damage_live_wrong, LEFT, LEFT, FIXED, {"checkpoint-live", "power-cut"}, check_live},
	{"live nowhere",
	 damage_live_nowhere,
	 LEFT,
	 LEFT,
	 FIXED,
	 {"checkpoint-live", "power-cut"},
	 check_live},
	{"live killed",
	 damage_live_killed,
	 LEFT,
	 LEFT,
	 FIXED,
	 {"checkpoint-live", "state-dirty"},
	 check_live_killed},
	{"appending",
	 damage_appending,
	 LEFT,
	 FIXED,
	 FIXED,
	 {"lane-active", "lane-committed", "state-dirty"},
	 check_appending},
	{"ring", damage_ring, LEFT, LEFT, FIXED, {"ring"}, check_ring},
	{"ring stale", damage_ring_stale, 0, 0, 0, {"state-dirty"}, NULL},
	{"lease", damage_lease, LEFT, FIXED, FIXED, {"lease"}, check_lease},
	{"lane limit", damage_limit, LEFT, FIXED, FIXED, {"lane-limit"}, check_limit},
	{"cut copy", damage_cut_copy, LEFT, LEFT, FIXED, {"state-foreign", "power-cut"}, check_cut_log},
	{"cut unknown", damage_cut_unknown, LEFT, LEFT, FIXED, {"state-none", "power-cut"}, check_cut_log},
	{"poisoned", damage_poisoned, LEFT, FIXED, FIXED, {"power-cut"}, check_cut_log},
};
const unsigned wal_case_count = sizeof wal_cases / sizeof wal_cases[0];
