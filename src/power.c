/* SPDX-License-Identifier: MIT
 *
 * power.c: see power.h. In the order in which it runs: reading the log, judging it, images, commits, coordination, disk.
 */
#include "power.h"

#include <errno.h>
#include <stdlib.h>

#include "alloc.h"
#include "copy.h"
#include "crc32c.h"
#include "error.h"
#include "log.h"
#include "mutant.h"
#include "os.h"
#include "super.h"
#include "tx.h"

#define READ_STEP (1u << 20)
#define LANE_GEN_MAX (1ull << 47)

/* The log as it was found: bytes[i] is at replay_lsn + i. */
struct found {
	struct phd_checkpoint sector;
	uint32_t copy;
	bool moved; /* by a checkpoint: its SWITCH record is the first one */
	char *bytes;
	uint64_t size; /* of valid records */
	uint64_t read, room;
	uint64_t *records; /* offsets in bytes */
	uint64_t count, record_room;
	uint64_t chunk_count; /* that the file must back */
	bool short_of_memory;
};

static void found_free(struct found *f)
{
	free(f->bytes);
	free(f->records);
}

/* ---- reading ---- */

static int corrupt(const struct pheap *h, const struct found *f, uint64_t at)
{
	return ph_error_recovery(h, PHEAP_ECORRUPT,
				 "the journal says at LSN %llu what cannot be; run pheap-fsck on the file",
				 (unsigned long long)(f->sector.replay_lsn + at));
}

/* Bytes up to `need` of the log. 0, 1: there are not so many; errors. */
static int bytes_have(const struct pheap *h, struct found *f, uint64_t need)
{
	uint64_t wal_size = h->super.wal_size;

	if (need > wal_size)
		return 1;
	while (f->read < need) {
		uint64_t lsn = f->sector.replay_lsn + f->read, at = lsn % wal_size, n = READ_STEP;
		int rc;

		if (n > wal_size - f->read)
			n = wal_size - f->read;
		if (n > wal_size - at)
			n = wal_size - at;
		if (f->read + n > f->room) {
			uint64_t room = f->room ? f->room * 2 : READ_STEP;
			char *grown;

			if (room > wal_size)
				room = wal_size;
			if (room < f->read + n)
				room = f->read + n;
			grown = realloc(f->bytes, room);
			if (!grown)
				return -ENOMEM;
			f->bytes = grown;
			f->room = room;
		}
		rc = ph_os->file_read(h->fd, f->bytes + f->read, (size_t)n, h->super.wal_off + at);
		if (rc)
			return ph_error_recovery(h, rc, "reading the journal failed: %s", pheap_strerror(rc));
		f->read += n;
	}
	return 0;
}

/* 0: a record, whose size is given; 1: the log ends here. */
static int record_read(const struct pheap *h, struct found *f, uint64_t at, uint64_t *ret_size)
{
	struct phd_wal w;
	uint32_t crc;
	int rc = bytes_have(h, f, at + sizeof(w));

	if (rc)
		return rc;
	memcpy(&w, f->bytes + at, sizeof(w));
	if (w.lsn != f->sector.replay_lsn + at || w.log_gen != f->sector.log_gen || w.kind < PHD_WAL_PAD ||
	    w.kind > PHD_WAL_SWITCH || w.size < sizeof(w) || w.size % 8 || w.size > h->super.wal_size / 4)
		return 1;
	rc = bytes_have(h, f, at + w.size);
	if (rc)
		return rc;
	crc = ph_crc32c(0, f->bytes + at + sizeof(w), w.size - sizeof(w));
	crc = ph_crc32c(crc, f->bytes + at, offsetof(struct phd_wal, crc));
	if (crc != w.crc && !PH_MUTANT(PH_MUTANT_CRC_FORGOT))
		return 1;
	*ret_size = w.size;
	return 0;
}

static int record_note(struct found *f, uint64_t at)
{
	if (f->count == f->record_room) {
		uint64_t room = f->record_room ? f->record_room * 2 : 256;
		uint64_t *grown = realloc(f->records, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		f->records = grown;
		f->record_room = room;
	}
	f->records[f->count++] = at;
	return 0;
}

static const struct phd_wal *record_at(const struct found *f, uint64_t i)
{
	return (const struct phd_wal *)(const void *)(f->bytes + f->records[i]);
}

static int log_read(const struct pheap *h, struct found *f)
{
	uint64_t size = 0;
	int rc;

	while ((rc = record_read(h, f, f->size, &size)) == 0) {
		rc = record_note(f, f->size);
		if (rc)
			return rc;
		f->size += size;
	}
	if (rc < 0)
		return rc;
	/* It was durable up to there before it was named. */
	if (f->moved && (f->count == 0 || record_at(f, 0)->kind != PHD_WAL_SWITCH))
		return corrupt(h, f, 0);
	return f->sector.replay_lsn + f->size < f->sector.epoch_lsn ? corrupt(h, f, f->size) : 0;
}

/* The entry at `at` of the record's bytes; NULL behind the last one. Bounds were checked by record_check. */
static const struct phd_record *entry_at(const struct phd_wal *w, uint64_t at)
{
	return at < w->size ? (const struct phd_record *)(const void *)((const char *)w + at) : NULL;
}

/* ---- judging: R2 ---- */

/* Whole pages of kind A. */
static bool image_valid(const struct pheap *h, uint64_t chunk_count, uint64_t off, uint64_t n)
{
	const struct phd_super *s = &h->super;
	uint64_t bits_end = s->bits_off + (chunk_count * sizeof(struct phd_bits) + PHD_BLOCK_SIZE - 1) /
						  PHD_BLOCK_SIZE * PHD_BLOCK_SIZE;
	uint64_t desc_end = s->desc_off + (chunk_count * sizeof(uint64_t) + PHD_BLOCK_SIZE - 1) /
						  PHD_BLOCK_SIZE * PHD_BLOCK_SIZE;

	if (off % PHD_BLOCK_SIZE || n != PHD_BLOCK_SIZE)
		return false;
	return off == s->head_off || (off >= s->desc_off && off < desc_end) ||
	       (off >= s->bits_off && off < bits_end) ||
	       (off >= h->data_off && off < h->data_off + chunk_count * PHD_CHUNK_SIZE);
}

static int entry_check(const struct pheap *h, const struct phd_wal *w, const struct phd_record *r,
		       uint64_t chunk_count)
{
	unsigned kind = PHD_REC_KIND(r->target);

	switch (w->kind) {
	case PHD_WAL_IMAGE:
		return kind == PHD_REC_UNDO && image_valid(h, chunk_count, PHD_REC_OFF(r->target), r->size);
	case PHD_WAL_SWITCH:
		return kind != PHD_REC_REVIVE && kind != PHD_REC_DROPPED && ph_log_record_valid(h, r);
	case PHD_WAL_COMMIT:
		if (kind == PHD_REC_GROW)
			return r->size == 0 && PHD_REC_OFF(r->target) <= h->super.chunk_max;
		return kind != PHD_REC_UNDO && kind != PHD_REC_REVIVE && ph_log_record_valid(h, r);
	default:
		return false;
	}
}

/* Do the entries fill the record? first: the chunk count is not known yet. */
static int record_check(const struct pheap *h, struct found *f, uint64_t i, bool first)
{
	const struct phd_wal *w = record_at(f, i);

	if (w->kind == PHD_WAL_PAD)
		return 0;
	for (uint64_t at = sizeof(*w); at < w->size;) {
		const struct phd_record *r = entry_at(w, at);

		if (w->size - at < sizeof(*r) || ph_log_units(r->size) * 8 > w->size - at)
			return corrupt(h, f, f->records[i]);
		if (first && w->kind == PHD_WAL_COMMIT && PHD_REC_KIND(r->target) == PHD_REC_GROW &&
		    PHD_REC_OFF(r->target) > f->chunk_count && PHD_REC_OFF(r->target) <= h->super.chunk_max)
			f->chunk_count = PHD_REC_OFF(r->target);
		if (!first && !entry_check(h, w, r, f->chunk_count))
			return corrupt(h, f, f->records[i]);
		at += ph_log_units(r->size) * 8;
	}
	return 0;
}

static int log_check(const struct pheap *h, struct found *f)
{
	int rc = 0;

	for (uint64_t i = 0; i < f->count && rc == 0; i++)
		rc = record_check(h, f, i, true);
	return rc;
}

/* ---- the file ---- */

/* What the file must back: its chunk_count, and all that the log has added. Growth is not durable by itself. */
static int space_make(struct pheap *h, struct found *f)
{
	uint64_t have;
	struct ph_file_info info;
	int rc = ph_os->file_info(h->fd, &info);

	if (rc)
		return ph_error_recovery(h, rc, "asking about the file failed: %s", pheap_strerror(rc));
	have = info.size > h->data_off ? (info.size - h->data_off) / PHD_CHUNK_SIZE : 0;
	if (have < f->chunk_count)
		rc = ph_super_allocate(h->fd, &h->super, have, f->chunk_count);
	if (rc)
		return ph_error_recovery(
			h, rc,
			"the file has lost space when the machine went down, and setting it aside "
			"again failed: %s",
			pheap_strerror(rc));
	return 0;
}

/* ---- space for chunks that were holes: O(log) ---- */

struct chunks {
	uint64_t from, to;
};

struct chunk_list {
	struct chunks *rows;
	uint32_t count, room;
};

static int chunks_compare(const void *a, const void *b)
{
	const struct chunks *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

/* The chunks that a record makes something else of than holes. */
static int chunks_collect(const struct phd_wal *w, struct chunk_list *l)
{
	const struct phd_record *r;

	for (uint64_t at = sizeof(*w); (r = entry_at(w, at)) != NULL; at += ph_log_units(r->size) * 8) {
		uint64_t chunk = PHD_REC_OFF(r->target), payload[2];

		if (PHD_REC_KIND(r->target) != PHD_REC_DESC)
			continue;
		memcpy(payload, ph_record_payload(r), sizeof(payload));
		if (payload[1] == PHD_DESC_HOLE)
			continue;
		if (!ph_room(&l->rows, &l->room, l->count + 1, sizeof(*l->rows)))
			return -ENOMEM;
		l->rows[l->count++] = (struct chunks){chunk, chunk + payload[0]};
	}
	return 0;
}

/* Who had taken a hole had its space set aside, which is not durable by itself; the record that made a block of it is. So that is
 * done again, for all chunks that records name, before the first store: FORMAT.md, section 8. What was taken before the checkpoint
 * was synced with it. */
static int space_renew(struct pheap *h, const struct found *f)
{
	struct chunk_list l = {0};
	int rc = 0;

	for (uint64_t i = 0; i < f->count && rc == 0; i++) {
		const struct phd_wal *w = record_at(f, i);

		if (w->kind == PHD_WAL_COMMIT || w->kind == PHD_WAL_SWITCH)
			rc = chunks_collect(w, &l);
	}
	if (l.count)
		qsort(l.rows, l.count, sizeof(*l.rows), chunks_compare);
	for (uint32_t i = 0; i < l.count && rc == 0 && !PH_MUTANT(PH_MUTANT_POWER_SPACE);) {
		struct chunks all = l.rows[i];

		for (; i < l.count && l.rows[i].from <= all.to; i++)
			all.to = l.rows[i].to > all.to ? l.rows[i].to : all.to;
		rc = ph_os->file_allocate(h->fd, h->data_off + (all.from << PHD_CHUNK_SHIFT),
					  (all.to - all.from) << PHD_CHUNK_SHIFT);
		if (rc)
			rc = ph_error_recovery(
				h, rc,
				"blocks of the heap have lost their space when the machine went "
				"down, and setting it aside again failed: %s",
				pheap_strerror(rc));
	}
	free(l.rows);
	return rc;
}

/* Judged with the chunk count that will be: the entries' validity is asked of the heap's head. */
static int log_judge(struct pheap *h, struct found *f)
{
	uint64_t *count = &h->head->chunk_count, was = *count;
	int rc = 0;

	*count = f->chunk_count;
	for (uint64_t i = 0; i < f->count && rc == 0; i++)
		rc = record_check(h, f, i, false);
	if (rc)
		*count = was;
	return rc;
}

/* ---- storing ---- */

/* The entries of one record, the last one first. */
static int record_undo(struct pheap *h, const struct phd_wal *w)
{
	uint64_t count = 0, i = 0, *at_of;
	int rc = 0;

	for (uint64_t at = sizeof(*w); at < w->size; at += ph_log_units(entry_at(w, at)->size) * 8)
		count++;
	if (count == 0)
		return 0;
	at_of = malloc(count * sizeof(*at_of));
	if (!at_of)
		return -ENOMEM;
	for (uint64_t at = sizeof(*w); at < w->size; at += ph_log_units(entry_at(w, at)->size) * 8)
		at_of[i++] = at;
	while (i-- > 0 && rc == 0) {
		const struct phd_record *r = entry_at(w, at_of[i]);

		if (PHD_REC_KIND(r->target) != PHD_REC_UNDO)
			continue; /* of a SWITCH record */
		/* A whole page is written: a store through the mapping would read it first. And there may be no space: bytes of
		 * what was aborted later, in chunks that are holes by now, are an error on a full disk, not a signal. */
		rc = ph_os->file_write(h->fd, ph_record_payload(r), r->size, PHD_REC_OFF(r->target));
	}
	free(at_of);
	return rc ? ph_error_recovery(h, rc, "writing what was recovered to the file failed: %s",
				      pheap_strerror(rc))
		  : 0;
}

static int images_apply(struct pheap *h, const struct found *f)
{
	for (uint64_t i = f->count; i-- > 0;) {
		const struct phd_wal *w =
			record_at(f, PH_MUTANT(PH_MUTANT_OLDEST_LAST) ? f->count - 1 - i : i);
		int rc;

		if (w->lsn < f->sector.epoch_lsn)
			continue;
		if (w->kind != PHD_WAL_IMAGE && w->kind != PHD_WAL_SWITCH)
			continue;
		rc = record_undo(h, w);
		if (rc)
			return rc;
	}
	return 0;
}

/* Commits; and of the SWITCH record with which the checkpoint's epoch began, what was to be stored yet. Of a later one it is in
 * the commits, or, without any, belongs to a later state than the one that is restored. */
static void commits_apply(struct pheap *h, const struct found *f)
{
	uint64_t *count = &h->head->chunk_count;

	for (uint64_t i = 0; i < f->count; i++) {
		const struct phd_wal *w = record_at(f, i);
		const struct phd_record *r;

		if (w->kind != PHD_WAL_COMMIT && (w->kind != PHD_WAL_SWITCH || w->lsn != f->sector.epoch_lsn))
			continue;
		for (uint64_t at = sizeof(*w); (r = entry_at(w, at)) != NULL; at += ph_log_units(r->size) * 8)
			if (PHD_REC_KIND(r->target) != PHD_REC_GROW)
				ph_log_record_apply(h, r);
			else if (*count < PHD_REC_OFF(r->target))
				__atomic_store_n(count, PHD_REC_OFF(r->target), __ATOMIC_RELEASE);
		/* Last, as in ph_log_apply: they may be to bytes of other entries. */
		for (uint64_t at = sizeof(*w); (r = entry_at(w, at)) != NULL; at += ph_log_units(r->size) * 8)
			if (PHD_REC_KIND(r->target) == PHD_REC_PUBLISH)
				ph_copy(h->map + PHD_REC_OFF(r->target), ph_record_payload(r), 8);
		h->recovered_forward += w->kind == PHD_WAL_COMMIT;
	}
}

/* Nothing of kind B means anything now. Words of chunks and leases stay: no generation or LSN in them comes again. */
static void coordination_reset(struct pheap *h, uint64_t lane_gen)
{
	const struct phd_super *s = &h->super;

	ph_zero(h->coord, sizeof(*h->coord));
	ph_zero(h->members, s->member_count * sizeof(*h->members));
	ph_zero(h->stripes, (s->stripe_count + 1ull) * sizeof(*h->stripes));
	ph_zero(h->lanes, s->lane_count * sizeof(*h->lanes));
	for (uint32_t i = 0; i < s->lane_count; i++)
		h->lanes[i].state = PHD_STATE(lane_gen, PHD_MODE_NONE, PHD_STEP_IDLE);
}

static int recover(struct pheap *h, struct found *f)
{
	struct phd_checkpoint *sector = &f->sector;
	uint64_t end;
	int rc = ph_checkpoint_read(h->fd, &h->super, sector, &f->copy);

	if (rc == 0)
		rc = ph_live_read(h->fd, &h->super, sector);
	if (rc < 0)
		return rc;
	f->moved = rc;
	if (sector->lane_gen_limit + PHD_LANE_GEN_STEP >= LANE_GEN_MAX)
		return ph_error(NULL, PHEAP_ECORRUPT, "checkpoint sector: no generation of lanes is left");
	rc = log_read(h, f);
	f->chunk_count = h->head->chunk_count;
	if (f->chunk_count <= h->super.journal_count || f->chunk_count > h->super.chunk_max)
		f->chunk_count = h->super.journal_count + 1; /* an image says it */
	if (rc == 0)
		rc = log_check(h, f);
	if (rc == 0)
		rc = space_make(h, f);
	if (rc == 0)
		rc = log_judge(h, f);
	if (rc == 0)
		rc = space_renew(h, f);
	if (rc == 0 && PH_MUTANT(PH_MUTANT_REDO_FIRST))
		commits_apply(h, f);
	if (rc == 0)
		rc = images_apply(h, f);
	if (rc)
		return rc;
	if (!PH_MUTANT(PH_MUTANT_REDO_FIRST))
		commits_apply(h, f);
	coordination_reset(h, PH_MUTANT(PH_MUTANT_LANE_GENS) ? 1 : sector->lane_gen_limit);
	rc = PH_MUTANT(PH_MUTANT_POWER_EARLY) ? 0 : ph_os->file_sync(h->fd);
	if (rc)
		return ph_error_recovery(h, rc, "writing what was recovered to the file failed: %s",
					 pheap_strerror(rc));
	/* ORDER(power-last): all of it durable before the sector says that the log is not needed, and that before the state
	 * says that this boot has the heap. A cut between: recovered again. Pairs with attach.c:first_enter. */
	end = sector->replay_lsn + f->size + (PH_MUTANT(PH_MUTANT_LSN_KEPT) ? 0 : h->super.wal_size);
	end = (end + PHD_BLOCK_SIZE - 1) / PHD_BLOCK_SIZE * PHD_BLOCK_SIZE;
	sector->replay_lsn = sector->epoch_lsn = end;
	sector->log_gen++;
	sector->lane_gen_limit += PHD_LANE_GEN_STEP;
	return ph_checkpoint_write(h->fd, sector, &f->copy);
}

int ph_power_recover(struct pheap *h)
{
	uint64_t start_ns = ph_os->clock_ns();
	struct found f = {0};
	int rc = recover(h, &f);

	found_free(&f);
	if (rc == -ENOMEM)
		return ph_error(NULL, rc, "no memory to recover the heap after the machine went down");
	h->recovery_ns += ph_os->clock_ns() - start_ns;
	return rc;
}
