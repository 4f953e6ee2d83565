/* SPDX-License-Identifier: MIT
 *
 * power.c: power recovery, section 8 of FORMAT.md.
 *
 * Needs:  a checkpoint (checkpoint.c); nobody attached.
 * Checks: the log reaches the position to which it was durable; each entry of each record.
 * Gives:  kind A as of the last commit that reached the disk; kind B of nobody; an empty log. With -n only as
 *         the later passes see it.
 *
 * In three passes over the log, so that memory is bounded by the number of its images: 1. how far it reaches,
 * and how many chunks there are then; 2. is each entry possible, before anything is stored; 3. images back,
 * commits forward.
 *
 * Order of its stores:
 *   ORDER(power-last): all that was recovered durable before the checkpoint, and that before the state. Cut
 *   or kill between: recovered again, from the same log; or, once the checkpoint is there, from an empty one.
 */
#include <stdlib.h>
#include <string.h>

#include "fsck.h"
#include "wal.h"

#define LANE_GEN_STEP (1ull << 33)
#define LANE_GEN_END (1ull << 47)
#define LSN_ALIGN 4096u

typedef unsigned long long ull;

/* A list of positions that grows. */
struct list {
	uint64_t *items;
	size_t count, room;
};

struct replay {
	uint64_t end;	    /* of the log */
	struct list images; /* LSNs of records from epoch_lsn on that have any */
	struct list left;   /* LSNs of records that are left out */
	uint64_t chunk_count;
	bool chunk_count_found; /* in an image */
};

static void list_add(struct fsck *f, struct list *l, uint64_t item)
{
	if (l->count == l->room) {
		size_t room = l->room ? l->room * 2 : 1024;
		uint64_t *items = memory_get(f, room, sizeof *items, "the list of images");

		if (l->count)
			memcpy(items, l->items, l->count * sizeof *items);
		free(l->items);
		l->items = items;
		l->room = room;
	}
	l->items[l->count++] = item;
}

/* Items were added in order. */
static bool list_has(const struct list *l, uint64_t item)
{
	size_t low = 0, high = l->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (l->items[middle] < item)
			low = middle + 1;
		else
			high = middle;
	}
	return low < l->count && l->items[low] == item;
}

static uint64_t log_limit(const struct fsck *f)
{
	return f->checkpoint.replay_lsn + f->super.wal_size;
}

/* The next record, from *lsn on; moves it. */
static bool record_next(struct fsck *f, uint64_t *lsn, uint64_t limit, struct wal_record *ret)
{
	if (!wal_record(f, *lsn, limit, f->checkpoint.log_gen, ret))
		return false;
	*lsn += ret->size;
	return true;
}

static bool images_kind(uint32_t kind)
{
	return kind == PHD_WAL_IMAGE || kind == PHD_WAL_SWITCH;
}

/* The oldest image since the epoch began says how many chunks there were then; records of growth add to
 * it. */
static void chunk_count_look(struct fsck *f, struct replay *p, const struct wal_record *r)
{
	uint64_t word = f->super.head_off + offsetof(struct phd_head, chunk_count);
	struct store s;
	uint32_t pos = 0;
	bool bad;

	while (wal_entry(f, r, &pos, &s, &bad)) {
		uint64_t off = PHD_REC_OFF(s.target);

		if (r->kind == PHD_WAL_COMMIT && PHD_REC_KIND(s.target) == PHD_REC_GROW &&
		    off <= f->super.chunk_max && off > p->chunk_count)
			p->chunk_count = off;
		if (r->kind == PHD_WAL_IMAGE && !p->chunk_count_found &&
		    PHD_REC_KIND(s.target) == PHD_REC_UNDO && off <= word && s.size >= 8 &&
		    word - off <= s.size - 8) {
			uint64_t old;

			wal_read(f, s.at + (word - off), &old, sizeof old);
			p->chunk_count_found = true;
			f->chunk_count = old;
		}
	}
}

static void log_scan(struct fsck *f, struct replay *p)
{
	uint64_t lsn = f->checkpoint.replay_lsn;
	struct wal_record r;

	f->chunk_count = image_read_word(f, f->super.head_off + offsetof(struct phd_head, chunk_count));
	while (record_next(f, &lsn, log_limit(f), &r)) {
		if (images_kind(r.kind) && r.lsn >= f->checkpoint.epoch_lsn)
			list_add(f, &p->images, r.lsn);
		if (r.kind == PHD_WAL_COMMIT || r.lsn >= f->checkpoint.epoch_lsn)
			chunk_count_look(f, p, &r);
		f->wal_commit_count += r.kind == PHD_WAL_COMMIT;
		pass_progress(f, lsn - f->checkpoint.replay_lsn, f->super.wal_size);
	}
	p->end = lsn;
	f->wal_bytes = lsn - f->checkpoint.replay_lsn;
	/* a count that cannot be is for pass_super to judge */
	if (p->chunk_count > f->chunk_count || f->chunk_count > f->super.chunk_max)
		f->chunk_count = p->chunk_count;
	p->chunk_count = f->chunk_count;
}

static bool within(uint64_t off, uint64_t start, uint64_t unit, uint64_t count)
{
	return off >= start && off - start < unit * count;
}

/* Is the page of kind A? */
static bool page_valid(const struct fsck *f, uint64_t off)
{
	const struct phd_super *s = &f->super;

	return off == s->head_off || within(off, s->desc_off, sizeof(uint64_t), f->chunk_count) ||
	       within(off, s->bits_off, sizeof(struct phd_bits), f->chunk_count) ||
	       within(off, s->data_off, PHD_CHUNK_SIZE, f->chunk_count);
}

static bool image_valid(const struct fsck *f, const struct store *s)
{
	uint64_t off = PHD_REC_OFF(s->target);

	if (PHD_REC_KIND(s->target) != PHD_REC_UNDO || off % PHD_BLOCK_SIZE || !s->size ||
	    s->size % PHD_BLOCK_SIZE)
		return false;
	for (uint64_t done = 0; done < s->size; done += PHD_BLOCK_SIZE)
		if (!page_valid(f, off + done))
			return false;
	return true;
}

static bool entry_valid(struct fsck *f, uint32_t kind, const struct store *s, uint64_t *words)
{
	unsigned what = PHD_REC_KIND(s->target);

	switch (kind) {
	case PHD_WAL_IMAGE:
		return image_valid(f, s);
	case PHD_WAL_SWITCH:
		return store_valid(f, s, NULL, words);
	default:
		if (what == PHD_REC_GROW)
			return !s->size && PHD_REC_OFF(s->target) &&
			       PHD_REC_OFF(s->target) <= f->super.chunk_max;
		return what != PHD_REC_UNDO && store_valid(f, s, NULL, words);
	}
}

static bool record_valid(struct fsck *f, const struct wal_record *r, uint64_t *words)
{
	uint32_t pos = 0;
	struct store s;
	bool bad;

	while (wal_entry(f, r, &pos, &s, &bad))
		if (!entry_valid(f, r->kind, &s, words))
			return false;
	return !bad;
}

/* More descriptor words than this are no log but a way to keep us busy. */
static uint64_t words_max(const struct fsck *f)
{
	return (1ull << 28) + 16 * f->chunk_count;
}

static void entries_check(struct fsck *f, struct replay *p)
{
	static const char *const names[] = {"", "PAD", "COMMIT", "IMAGE", "SWITCH"};
	uint64_t lsn = f->checkpoint.replay_lsn, words = 0;
	struct wal_record r;

	while (record_next(f, &lsn, p->end, &r)) {
		if ((images_kind(r.kind) && r.lsn < f->checkpoint.epoch_lsn) || r.kind == PHD_WAL_PAD ||
		    (record_valid(f, &r, &words) && words <= words_max(f)))
			continue;
		problem(f, PR_WAL_RECORD, f->super.wal_off + r.lsn % f->super.wal_size,
			"%s of %u bytes at %llu", names[r.kind], r.size, (ull)r.lsn);
		list_add(f, &p->left, r.lsn);
	}
}

/* The checkpoint was written after the log was durable up to the epoch. */
static void log_end_check(struct fsck *f, struct replay *p)
{
	if (p->end >= f->checkpoint.epoch_lsn)
		return;
	problem(f, PR_WAL_SHORT, f->super.wal_off + p->end % f->super.wal_size,
		"it ends at %llu, not after %llu", (ull)p->end, (ull)f->checkpoint.epoch_lsn);
	p->end = f->checkpoint.epoch_lsn;
}

/* The entries of one record from last to first: of two undo records of a byte the older one counts. */
static void record_back(struct fsck *f, const struct wal_record *r)
{
	struct list entries = {0};
	uint32_t pos = 0, at = 0;
	struct store s;
	bool bad;

	for (; wal_entry(f, r, &pos, &s, &bad); at = pos)
		list_add(f, &entries, at);
	while (entries.count) {
		at = (uint32_t)entries.items[--entries.count];
		if (!wal_entry(f, r, &at, &s, &bad))
			break;
		if (PHD_REC_KIND(s.target) != PHD_REC_UNDO)
			continue; /* of a transaction that was committing when the epoch began */
		store_bytes(f, &s);
		f->wal_image_count += r->kind == PHD_WAL_IMAGE;
	}
	free(entries.items);
}

static void images_back(struct fsck *f, const struct replay *p)
{
	for (size_t i = p->images.count; i--;) {
		struct wal_record r;

		if (!list_has(&p->left, p->images.items[i]) &&
		    wal_record(f, p->images.items[i], p->end, f->checkpoint.log_gen, &r))
			record_back(f, &r);
		pass_progress(f, p->images.count - i, p->images.count * 2);
	}
}

static void record_forward(struct fsck *f, const struct wal_record *r)
{
	uint32_t pos = 0;
	struct store s;
	bool bad;

	while (wal_entry(f, r, &pos, &s, &bad))
		store_apply(f, &s);
	for (pos = 0; wal_entry(f, r, &pos, &s, &bad);)
		if (PHD_REC_KIND(s.target) == PHD_REC_PUBLISH)
			store_bytes(f, &s);
}

static void commits_forward(struct fsck *f, const struct replay *p)
{
	uint64_t lsn = f->checkpoint.replay_lsn, epoch = f->checkpoint.epoch_lsn;
	struct wal_record r;

	/* what was still to be stored when the epoch began, by transactions that had committed */
	if (wal_record(f, epoch, p->end, f->checkpoint.log_gen, &r) && r.kind == PHD_WAL_SWITCH &&
	    !list_has(&p->left, epoch))
		record_forward(f, &r);
	while (record_next(f, &lsn, p->end, &r)) {
		if (r.kind == PHD_WAL_COMMIT && !list_has(&p->left, r.lsn))
			record_forward(f, &r);
		pass_progress(f, f->wal_bytes + lsn - f->checkpoint.replay_lsn, f->wal_bytes * 2);
	}
}

/* The generation from which lanes go on. With none left, after thousands of cuts, they begin anew: then no
 * word may stay that names one. */
static uint64_t lane_gen_start(struct fsck *f)
{
	if (f->checkpoint.lane_gen_limit < LANE_GEN_END - 2 * LANE_GEN_STEP)
		return f->checkpoint.lane_gen_limit;
	image_zero(f, f->super.words_off, f->chunk_count * sizeof(struct phd_words));
	return 1;
}

/* Nobody is attached: kind B means nothing. */
static void coordination_reset(struct fsck *f, uint64_t gen)
{
	const struct phd_super *s = &f->super;

	for (uint32_t i = 0; i < s->lane_count; i++) {
		struct phd_lane lane = {.state = PHD_STATE(gen, PHD_MODE_NONE, PHD_STEP_IDLE)};

		image_write(f, s->lane_off + i * sizeof lane, &lane, sizeof lane);
	}
	image_zero(f, s->member_off, s->member_count * sizeof(struct phd_member));
	image_zero(f, s->stripe_off, (s->stripe_count + 1ull) * sizeof(struct phd_stripe));
	image_zero(f, s->coord_off, sizeof(struct phd_coord));
}

static void recovery_end(struct fsck *f, uint64_t end)
{
	uint64_t gen = lane_gen_start(f);
	struct phd_checkpoint c = {.log_gen = f->checkpoint.log_gen + 1,
				   .lane_gen_limit = gen + LANE_GEN_STEP};

	coordination_reset(f, gen);
	f->next_lsn = (end + LSN_ALIGN - 1) / LSN_ALIGN * LSN_ALIGN + f->super.wal_size;
	if (f->overlaid)
		return;
	c.replay_lsn = c.epoch_lsn = f->next_lsn;
	image_sync(f); /* ORDER(power-last) */
	checkpoint_write(f, &c);
	image_write_state(f, false);
	f->same_boot = f->same_file = f->same_device = true;
}

static const char *cut_reason(struct fsck *f)
{
	if (!f->same_file)
		return "it is a copy";
	if (f->same_boot && f->snapshot)
		return "it is said to be of a snapshot";
	if (f->same_boot && !f->same_device)
		return "it is of a snapshot of its file system, or that was mounted anew";
	if (f->same_boot)
		return "a write to it failed, and its processes were killed";
	if (f->state_copy < 0)
		return "its boot is not known";
	return format_is_zero(f->state.boot_id, sizeof f->state.boot_id)
		       ? "a write to it failed"
		       : "it was last open in another boot, which ended before it was closed";
}

/* Failed writes leave pages in memory that the kernel takes for written. */
static bool write_failed(struct fsck *f)
{
	return (f->state_copy >= 0 && format_is_zero(f->state.boot_id, sizeof f->state.boot_id)) ||
	       (f->same_boot && image_read_word(f, f->super.coord_off + offsetof(struct phd_coord, poison)));
}

/* ORDER(state-unknown): what says in this boot that the log has to be read is cleared on the way, and may be in memory only. A kill
 * or cut behind it: recovered again. */
static void boot_forget(struct fsck *f)
{
	struct identity id = f->id;

	if (!f->same_boot || f->state_copy < 0)
		return;
	memset(f->id.boot_id, 0, sizeof f->id.boot_id);
	image_write_state(f, false);
	f->id = id;
}

void power_recover(struct fsck *f)
{
	struct replay p = {0};

	if (write_failed(f))
		image_forget(f);
	log_scan(f, &p);
	log_end_check(f, &p);
	entries_check(f, &p);
	pass_stop(f);
	problem(f, PR_CUT, PHD_CHECKPOINT_OFF(f->checkpoint_copy < 0 ? 0 : f->checkpoint_copy),
		"%s; the log has %llu bytes, %llu commits, %llu records of images", cut_reason(f),
		(ull)f->wal_bytes, (ull)f->wal_commit_count, (ull)p.images.count);
	pass_stop(f);
	boot_forget(f);
	image_extend(f, p.chunk_count);
	images_back(f, &p);
	commits_forward(f, &p);
	image_write_word(f, f->super.head_off + offsetof(struct phd_head, chunk_count), p.chunk_count);
	recovery_end(f, p.end);
	free(p.images.items);
	free(p.left.items);
	pass_end(f);
}
