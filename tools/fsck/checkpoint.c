/* SPDX-License-Identifier: MIT
 *
 * checkpoint.c: checkpoint sectors, the ring's positions in memory, and the end of a log that is not needed.
 *
 * What fsck needs of the WAL depends on how the heap was left:
 *   closed cleanly          nothing: kind A is whole on the disk
 *   processes were killed   nothing but the tail, which says of a lane that is appending whether it has:
 *                           kind A is in the page cache, with all that was stored
 *   the machine went down   all of it: power.c
 *
 * Why the log is retired before anything else is repaired: a log that stays puts back, after a power cut,
 * pages as they were before the repair.
 *
 * Invariants
 *   C1  ORDER(fsck-checkpoint): all of kind A durable before a checkpoint that has nothing to replay. Cut
 *       between: the log is read from the checkpoint before.
 *   C2  Positions only grow: no position that a record or a lease may have had is used again. So what is written here is above
 *       the words that checkpoints have raised, and these need not be stored.
 */
#include <string.h>

#include "fsck.h"
#include "wal.h"

#define LSN_END (1ull << 62)
#define LANE_GEN_ROOM (1ull << 33) /* generations that a lane may use up between two checkpoints */
#define LSN_ALIGN 4096u

typedef unsigned long long ull;

static uint64_t lsn_align(uint64_t lsn)
{
	return (lsn + LSN_ALIGN - 1) / LSN_ALIGN * LSN_ALIGN;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

uint64_t lane_gen_limit_next(struct fsck *f, uint64_t least)
{
	uint64_t limit = least;

	for (uint32_t lane = 0; lane < f->super.lane_count; lane++) {
		uint64_t state = image_read_word(f, f->super.lane_off + lane * sizeof(struct phd_lane));

		if (!(state >> 63))
			limit = larger(limit, PHD_STATE_GEN(state) + LANE_GEN_ROOM);
	}
	return limit;
}

void checkpoint_write(struct fsck *f, const struct phd_checkpoint *c)
{
	int copy = f->checkpoint_copy == 0 ? 1 : 0;
	bool both = f->checkpoint_copy < 0;
	struct phd_checkpoint next = *c;

	next.magic = PHD_CHECKPOINT_MAGIC;
	next.seq = f->checkpoint.seq + 1;
	next.crc = format_crc32c(&next, offsetof(struct phd_checkpoint, crc));
	image_write(f, PHD_CHECKPOINT_OFF(copy), &next, sizeof next);
	image_sync(f);
	f->checkpoint = next;
	f->checkpoint_copy = copy;
	if (both && !f->overlaid)
		checkpoint_write(f, c);
}

/* The words in memory are of this life of the heap: whoever opens sets them from the checkpoint, after the
 * state says that it is open. */
static bool ring_of_life(const struct fsck *f, const struct phd_coord *c)
{
	return c->log_gen == f->checkpoint.log_gen && c->tail >= f->checkpoint.replay_lsn;
}

static bool ring_possible(const struct fsck *f, const struct phd_coord *c)
{
	return c->replay_lsn % 8 == 0 && c->durable % 8 == 0 && c->tail % 8 == 0 &&
	       c->replay_lsn <= c->durable && c->durable <= c->tail && c->tail < LSN_END &&
	       c->tail - c->replay_lsn <= f->super.wal_size;
}

/* What the processes that were killed had in memory, which is that of the durable checkpoint. */
static bool guess_from_memory(struct fsck *f, struct phd_checkpoint *ret)
{
	struct phd_coord c;

	if (f->was_clean || !f->same_boot || !f->same_file || !f->same_device)
		return false;
	image_read(f, f->super.coord_off, &c, sizeof c);
	*ret = (struct phd_checkpoint){.log_gen = c.log_gen,
				       .replay_lsn = c.replay_lsn,
				       .epoch_lsn = c.epoch_lsn,
				       .lane_gen_limit = c.lane_gen_limit};
	return c.log_gen && ring_possible(f, &c) && c.epoch_lsn % 8 == 0 && c.epoch_lsn >= c.replay_lsn &&
	       c.epoch_lsn <= c.tail;
}

/* An empty log, past everything that can be found of the one before. */
static void guess_from_file(struct fsck *f, struct phd_checkpoint *ret)
{
	uint64_t end, log_gen;
	struct phd_coord c;

	wal_survey(f, &end, &log_gen);
	image_read(f, f->super.coord_off, &c, sizeof c);
	if (c.tail < LSN_END / 2)
		end = larger(end, c.tail);
	if (c.log_gen < LSN_END)
		log_gen = larger(log_gen, c.log_gen);
	end = lsn_align(end) + f->super.wal_size;
	*ret = (struct phd_checkpoint){.log_gen = log_gen + 1,
				       .replay_lsn = end,
				       .epoch_lsn = end,
				       .lane_gen_limit = lane_gen_limit_next(f, LANE_GEN_ROOM)};
}

static void checkpoint_guess(struct fsck *f, const char *const *error)
{
	bool whole = guess_from_memory(f, &f->checkpoint);

	if (!whole)
		guess_from_file(f, &f->checkpoint);
	f->checkpoint.seq = 1;
	if (problem(f, PR_CHECKPOINT_NONE, PHD_CHECKPOINT_OFF(0), "copy 0: %s; copy 1: %s; %s", error[0],
		    error[1],
		    f->was_clean ? "the heap was closed cleanly, so nothing is lost"
		    : whole	 ? "memory still has what it said, so nothing is lost"
				 : "what was under way when the heap was left stays as it is, half done") &&
	    f->was_clean)
		checkpoint_write(f, &f->checkpoint);
}

/* Checkpoints of a heap in use leave the sector alone and raise these words. Where the higher one says, a SWITCH record stands: it
 * was durable before. Below the other one the ring may be in use again. */
static bool live_stands(struct fsck *f, uint64_t lsn)
{
	struct wal_record r;

	if (lsn <= f->checkpoint.epoch_lsn || f->attached)
		return true;
	return !f->was_clean && wal_record(f, lsn, lsn + f->super.wal_size, f->checkpoint.log_gen, &r) &&
	       r.kind == PHD_WAL_SWITCH;
}

/* Wrong, it does not count, here either. */
static void live_refuse(struct fsck *f, int copy, struct phd_live *l)
{
	static const struct phd_live none;

	if (problem(f, PR_LIVE, PHD_LIVE_OFF(copy), "copy %d: LSN %llu, generation %llu", copy,
		    (ull)l->epoch_lsn, (ull)l->lane_gen_limit))
		image_write(f, PHD_LIVE_OFF(copy), &none, sizeof none);
	*l = none;
}

static void live_read(struct fsck *f)
{
	struct phd_live l[2];
	int higher;

	for (int i = 0; i < 2; i++) {
		image_read(f, PHD_LIVE_OFF(i), &l[i], sizeof l[i]);
		if (l[i].lane_gen_limit >> 47 || l[i].epoch_lsn % 8 || l[i].epoch_lsn >= LSN_END)
			live_refuse(f, i, &l[i]);
	}
	for (int n = 0; n < 2; n++) {
		higher = l[1].epoch_lsn > l[0].epoch_lsn;
		if (live_stands(f, l[higher].epoch_lsn))
			break;
		live_refuse(f, higher, &l[higher]);
	}
	higher = l[1].epoch_lsn > l[0].epoch_lsn;
	if (l[higher].epoch_lsn > f->checkpoint.epoch_lsn)
		f->checkpoint.replay_lsn = f->checkpoint.epoch_lsn = l[higher].epoch_lsn;
	for (int i = 0; i < 2; i++)
		f->checkpoint.lane_gen_limit = larger(f->checkpoint.lane_gen_limit, l[i].lane_gen_limit);
}

/* A damaged copy is written anew by whatever checkpoint comes next; at once only where none will. */
void checkpoint_read(struct fsck *f)
{
	struct phd_checkpoint c[2];
	const char *error[2];

	for (int i = 0; i < 2; i++) {
		image_read(f, PHD_CHECKPOINT_OFF(i), &c[i], sizeof c[i]);
		error[i] = format_checkpoint_invalid(&f->super, &c[i]);
		if (!error[i] && (f->checkpoint_copy < 0 || c[i].seq > f->checkpoint.seq)) {
			f->checkpoint = c[i];
			f->checkpoint_copy = i;
		}
	}
	if (f->checkpoint_copy < 0)
		checkpoint_guess(f, error);
	for (int i = 0; i < 2 && f->checkpoint_copy >= 0; i++)
		if (error[i] && !format_is_zero(&c[i], sizeof c[i]) &&
		    problem(f, PR_CHECKPOINT_COPY, PHD_CHECKPOINT_OFF(i), "copy %d: %s", i, error[i]) &&
		    f->was_clean)
			checkpoint_write(f, &f->checkpoint);
	live_read(f);
	f->next_lsn = lsn_align(f->checkpoint.epoch_lsn);
}

void cut_judge(struct fsck *f)
{
	struct phd_coord c;

	if (!f->wal || f->was_clean || f->attached)
		return;
	image_read(f, f->super.coord_off, &c, sizeof c);
	f->cut = !f->same_boot || !f->same_file || !f->same_device || f->snapshot || c.poison;
}

/* In the file nothing is in doubt: what lanes have in their own logs is whole before they append. */
static void ring_refused(struct fsck *f, const struct phd_coord *c, const char *why)
{
	uint64_t end, log_gen;

	wal_survey(f, &end, &log_gen);
	f->next_lsn = lsn_align(larger(end, f->next_lsn)) + f->super.wal_size;
	f->ring.tail = UINT64_MAX;
	problem(f, PR_RING, f->super.coord_off + offsetof(struct phd_coord, tail),
		"%s: replay %llu, durable %llu, tail %llu", why, (ull)c->replay_lsn, (ull)c->durable,
		(ull)c->tail);
	pass_stop(f);
}

static bool lane_appending(struct fsck *f)
{
	for (uint32_t lane = 0; lane < f->super.lane_count; lane++)
		if (PHD_STATE_STEP(image_read_word(f, f->super.lane_off + lane * sizeof(struct phd_lane))) ==
		    PHD_STEP_APPENDING)
			return true;
	return false;
}

void ring_check(struct fsck *f)
{
	struct phd_coord c;

	if (!f->wal || f->was_clean || f->cut)
		return;
	image_read(f, f->super.coord_off, &c, sizeof c);
	if (!ring_of_life(f, &c) && !lane_appending(f)) {
		f->ring.tail = f->checkpoint.epoch_lsn;
		return;
	}
	if (f->attached) {
		f->ring = c;
		return;
	}
	if (!ring_of_life(f, &c))
		ring_refused(f, &c, "it is not that of the checkpoint");
	else if (!ring_possible(f, &c) || c.tail < f->checkpoint.epoch_lsn)
		ring_refused(f, &c, "out of order");
	else {
		f->ring = c;
		f->next_lsn = lsn_align(c.tail);
	}
}

static void limit_check(struct fsck *f)
{
	uint64_t limit = f->checkpoint.lane_gen_limit;

	for (uint32_t lane = 0; lane < f->super.lane_count; lane++) {
		uint64_t off = f->super.lane_off + lane * sizeof(struct phd_lane),
			 state = image_read_word(f, off);

		if (state >> 63 || PHD_STATE_GEN(state) < limit)
			continue;
		if (problem(f, PR_LANE_LIMIT, off, "lane %u: generation %llu, the limit is %llu", lane,
			    (ull)PHD_STATE_GEN(state), (ull)limit) &&
		    f->was_clean) {
			struct phd_checkpoint c = f->checkpoint;

			c.lane_gen_limit = lane_gen_limit_next(f, limit);
			checkpoint_write(f, &c);
		}
		return;
	}
}

void wal_retire(struct fsck *f)
{
	struct phd_checkpoint c = f->checkpoint;

	if (!f->wal || f->cut || f->attached)
		return;
	limit_check(f);
	if (f->was_clean || f->overlaid)
		return;
	image_sync(f); /* ORDER(fsck-checkpoint) */
	c.replay_lsn = c.epoch_lsn = f->next_lsn;
	c.lane_gen_limit = lane_gen_limit_next(f, c.lane_gen_limit);
	checkpoint_write(f, &c);
	/* one word makes all of them void: whoever opens sets them from the sector */
	image_write_word(f, f->super.coord_off + offsetof(struct phd_coord, log_gen), 0);
}
