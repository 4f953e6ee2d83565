/* SPDX-License-Identifier: MIT
 *
 * fields.c: see fields.h.
 *
 * Why by region: most bytes of a heap are data and bitmaps; drawn evenly, the fifty words that
 * everything hangs on would hardly be met.
 */
#include "fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"
#include "layout.h"

#define RECORDS 40u /* of held references */

static struct phd_super *super_of(const struct image *im)
{
	return (struct phd_super *)(void *)im->bytes;
}

static void *at(const struct image *im, uint64_t off)
{
	return im->bytes + off;
}

/* ---- finding ---- */

static void field_add(struct fields *f, uint64_t off, uint32_t size)
{
	if (f->count == f->room) {
		f->room = f->room ? f->room * 2 : 1024;
		f->all = realloc(f->all, f->room * sizeof(*f->all));
		if (!f->all)
			abort();
	}
	f->all[f->count++] = (struct field){off, f->region_count - 1, size};
}

static void region_begin(struct fields *f)
{
	f->region_first[f->region_count++] = f->count;
}

static void words_add(struct fields *f, uint64_t off, uint64_t n)
{
	for (uint64_t i = 0; i + 8 <= n; i += 8)
		field_add(f, off + i, 8);
}

static void halves_add(struct fields *f, uint64_t off, uint64_t n)
{
	for (uint64_t i = 0; i + 4 <= n; i += 4)
		field_add(f, off + i, 4);
}

static void sectors_find(struct fields *f)
{
	region_begin(f);
	for (uint32_t copy = 0; copy < 2; copy++) {
		halves_add(f, PHD_SUPER_OFF(copy), 0x28);
		field_add(f, PHD_SUPER_OFF(copy) + 0x38, 8);
		halves_add(f, PHD_SUPER_OFF(copy) + 0x40, 0x28);
		words_add(f, PHD_SUPER_OFF(copy) + 0x48, 8);
		words_add(f, PHD_SUPER_OFF(copy) + 0x68, 0xa0);
		field_add(f, PHD_SUPER_OFF(copy) + 0x1fc, 4);
	}
	region_begin(f);
	for (uint32_t copy = 0; copy < 2; copy++) {
		words_add(f, PHD_STATE_OFF(copy), 0x30);
		halves_add(f, PHD_STATE_OFF(copy) + 0x30, 8);
		words_add(f, PHD_STATE_OFF(copy) + 0x38, 0x28);
		field_add(f, PHD_STATE_OFF(copy) + 0x1fc, 4);
	}
}

static void lanes_find(struct fields *f, const struct image *im)
{
	const struct phd_super *s = super_of(im);

	region_begin(f);
	words_add(f, s->lane_off, s->lane_count * sizeof(struct phd_lane));
	region_begin(f);
	for (uint32_t i = 0; i < s->lane_count; i++) {
		const struct phd_lane *lane = at(im, s->lane_off + i * sizeof(*lane));
		uint64_t n = PHD_USED_END(lane->used) * 8;

		if (PHD_STATE_STEP(lane->state) != PHD_STEP_IDLE)
			halves_add(f, s->lane_log_off + (uint64_t)i * s->lane_log_size,
				   n < s->lane_log_size ? n : s->lane_log_size);
	}
	words_add(f, s->lane_log_off, 64);
	region_begin(f);
	for (uint32_t i = 0; i < s->lane_count; i++) {
		const struct phd_lane *lane = at(im, s->lane_off + i * sizeof(*lane));
		uint64_t off = lane->ext_off;

		for (int k = 0; off && off < im->size && k < 20; k++) {
			halves_add(f, off, 400);
			off = ((const struct phd_log_ext *)at(im, off))->next_off;
		}
	}
	words_add(f, s->data_off, 32);
}

static void chains_find(struct fields *f, const struct image *im)
{
	const struct phd_super *s = super_of(im);
	const struct phd_head *head = at(im, s->head_off);
	uint64_t off;

	region_begin(f);
	for (int b = 0; b < (int)PHD_ROOT_BUCKETS; b++)
		for (off = head->roots[b]; off; off = ((const struct phd_root *)at(im, off))->next_off)
			words_add(f, off, sizeof(struct phd_root));
	region_begin(f);
	for (off = head->types_off; off; off = ((const struct phd_type *)at(im, off))->next_off)
		halves_add(f, off, sizeof(struct phd_type) + 8);
}

/* ---- held references and a semaphore ---- */

static uint64_t semaphore_size(const struct phd_super *s)
{
	return sizeof(struct phd_permits) + s->member_count * sizeof(struct phd_permit_cell);
}

/* The last free chunks in a row with room for a run of records and a semaphore, or 0. */
static uint64_t plant_find(const struct phd_super *s, const uint64_t *desc, uint64_t chunks)
{
	uint64_t want = 1 + (semaphore_size(s) + PHD_CHUNK_SIZE - 1) / PHD_CHUNK_SIZE, n = 0;

	while (chunks > s->journal_count && n < want)
		n = desc[--chunks] ? 0 : n + 1;
	return n == want ? chunks : 0;
}

/* Blocks of the user's, as the directory has them. */
static void objects_find(struct fields *f, const struct image *im)
{
	const struct phd_super *s = super_of(im);
	const struct phd_head *head = at(im, s->head_off);
	const uint64_t *desc = at(im, s->desc_off), *bits = at(im, s->bits_off);

	for (uint64_t c = 0; c < head->chunk_count && f->object_count < OBJECTS; c++) {
		uint64_t off = s->data_off + c * PHD_CHUNK_SIZE;
		bool run = PHD_DESC_KIND(desc[c]) == PHD_DESC_RUN;

		if (PHD_DESC_TYPE(desc[c]) > PHD_TYPE_USER_MAX ||
		    (!run && PHD_DESC_KIND(desc[c]) != PHD_DESC_EXTENT))
			continue;
		for (uint64_t i = 0; i < 3 && f->object_count < OBJECTS; i++)
			if (run ? bits[c * 4] >> i & 1 : i == 0)
				f->objects[f->object_count++] =
					off + (run ? i * PHD_DESC_BLOCK_SIZE(desc[c]) : 0);
	}
}

static void resources_find(struct fields *f, const struct image *im)
{
	const struct phd_super *s = super_of(im);
	const struct phd_head *head = at(im, s->head_off);
	uint64_t off, cells = s->member_count < 16 ? s->member_count : 16;

	region_begin(f);
	words_add(f, s->head_off + offsetof(struct phd_head, holds), sizeof(head->holds));
	f->plant = plant_find(s, at(im, s->desc_off), head->chunk_count);
	objects_find(f, im);
	if (!f->plant || !f->object_count)
		return;
	off = s->data_off + f->plant * PHD_CHUNK_SIZE;
	region_begin(f);
	words_add(f, off, RECORDS * sizeof(struct phd_hold));
	region_begin(f);
	for (uint64_t i = 0; i < RECORDS; i++)
		halves_add(f, off + i * sizeof(struct phd_hold) + offsetof(struct phd_hold, slot), 8);
	region_begin(f);
	words_add(f, off + PHD_CHUNK_SIZE,
		  sizeof(struct phd_permits) + cells * sizeof(struct phd_permit_cell));
}

/* Of one that is gone, or the number that the next one may get. */
static uint64_t attachment_draw(const struct image *im, struct rng *r)
{
	const struct phd_coord *coord = at(im, super_of(im)->coord_off);
	const struct phd_state *state = at(im, PHD_STATE_OFF(rng_below(r, 2)));

	switch (rng_below(r, 4)) {
	case 0:
		return coord->attachment_next;
	case 1:
		return state->attachment_limit;
	default:
		return 1 + rng_below(r, 3);
	}
}

/* Now and then at the edge of what the type or the library can count. */
static uint64_t count_draw(struct rng *r)
{
	static const uint64_t edges[] = {1ull << 63,	   (1ull << 63) - 1, ~0ull,	1ull << 40,
					 (1ull << 40) + 1, -(1ull << 40),    1ull << 62};

	return rng_below(r, 8) ? rng_below(r, 9) - 4 : edges[rng_below(r, sizeof(edges) / sizeof(*edges))];
}

static void semaphore_plant(struct image *im, uint64_t chunk, struct rng *r)
{
	const struct phd_super *s = super_of(im);
	struct phd_head *head = at(im, s->head_off);
	uint64_t *desc = at(im, s->desc_off), off = s->data_off + chunk * PHD_CHUNK_SIZE;
	uint64_t count = (semaphore_size(s) + PHD_CHUNK_SIZE - 1) / PHD_CHUNK_SIZE;
	struct phd_permits *p = at(im, off);

	memset(p, 0, count * PHD_CHUNK_SIZE);
	for (uint64_t i = 0; i < count; i++)
		desc[chunk + i] = i ? PHD_DESC_MAKE_CONT(PHD_TYPE_PERMITS, i)
				    : PHD_DESC_MAKE_EXTENT(PHD_TYPE_PERMITS, count);
	p->total = count_draw(r);
	p->watcher = attachment_draw(im, r) << 16 | (rng_below(r, s->member_count) + 1);
	for (uint32_t i = 0; i < s->member_count; i++)
		p->cells[i] = (struct phd_permit_cell){attachment_draw(im, r), (int64_t)count_draw(r)};
	for (uint32_t b = 0; b < PHD_ROOT_BUCKETS; b++)
		if (head->roots[b]) {
			struct phd_root *root = at(im, head->roots[b]);

			root->off = off;
			root->size = 0;
			return;
		}
}

/* What processes that died have left. Planted into the bytes, not made by the library: so each damaged file
 * has other lists, and every list is long. */
static void resources_plant(struct image *im, const struct fields *f, struct rng *r)
{
	const struct phd_super *s = super_of(im);
	struct phd_head *head = at(im, s->head_off);
	uint64_t *desc = at(im, s->desc_off), *bits = at(im, s->bits_off);
	uint64_t off = s->data_off + f->plant * PHD_CHUNK_SIZE;

	desc[f->plant] = PHD_DESC_MAKE_RUN(PHD_TYPE_HOLD, sizeof(struct phd_hold), 1);
	memset(&bits[f->plant * 4], 0, sizeof(struct phd_bits));
	for (uint64_t i = 0; i < RECORDS; i++, off += sizeof(struct phd_hold)) {
		uint64_t object_off = f->objects[rng_below(r, f->object_count)];
		uint64_t *list = &head->holds[PHD_HOLD_BUCKET(object_off)];

		*(struct phd_hold *)at(im, off) = (struct phd_hold){.next_off = *list,
								    .object_off = object_off,
								    .attachment = attachment_draw(im, r),
								    .slot = i % 4 % s->member_count,
								    .count = 1 + (uint32_t)rng_below(r, 3)};
		*list = off;
		bits[f->plant * 4 + i / 64] |= 1ull << i % 64;
	}
	semaphore_plant(im, f->plant + 1, r);
}

static void values_find(struct fields *f, const struct image *im)
{
	const struct phd_super *s = super_of(im);
	const struct phd_head *head = at(im, s->head_off);
	const uint64_t fixed[] = {s->coord_off,
				  s->member_off,
				  s->lane_off,
				  s->head_off,
				  s->head_off + 0x40,
				  s->lane_log_off,
				  s->desc_off,
				  s->bits_off,
				  s->words_off,
				  s->data_off,
				  s->size_max,
				  im->size,
				  im->size - 8,
				  head->chunk_count,
				  s->chunk_max,
				  s->chunk_max - 1,
				  head->types_off,
				  s->journal_count,
				  1ull << 32,
				  1ull << 47,
				  1ull << 63,
				  (1ull << 63) - 1,
				  0xffffffff,
				  0x7fffffff,
				  4096,
				  8,
				  16};
	size_t n = sizeof(fixed) / sizeof(*fixed);

	f->values = malloc((n + head->chunk_count + PHD_ROOT_BUCKETS + OBJECTS) * 8);
	if (!f->values)
		abort();
	memcpy(f->values, fixed, sizeof(fixed));
	for (uint64_t i = 0; i < head->chunk_count; i++)
		f->values[n++] = s->data_off + i * PHD_CHUNK_SIZE;
	for (uint32_t i = 0; i < PHD_ROOT_BUCKETS; i++)
		if (head->roots[i])
			f->values[n++] = head->roots[i];
	for (uint32_t i = 0; i < f->object_count; i++)
		f->values[n++] = f->objects[i];
	f->value_count = n;
}

/* ---- with a WAL ---- */

static struct phd_checkpoint *checkpoint_of(const struct image *im)
{
	struct phd_checkpoint *a = at(im, PHD_CHECKPOINT_OFF(0)), *b = at(im, PHD_CHECKPOINT_OFF(1));

	return a->seq > b->seq ? a : b;
}

/* The records of the log that power recovery would read. fn(record, its offset). They may go round the end: those are left out. */
static void wal_walk(const struct image *im, void (*fn)(struct phd_wal *w, uint64_t off, void *arg),
		     void *arg)
{
	const struct phd_super *s = super_of(im);
	const struct phd_checkpoint *c = checkpoint_of(im);
	uint64_t lsn = c->replay_lsn;

	for (int i = 0; i < 100; i++) {
		uint64_t at_wal = lsn % s->wal_size;
		struct phd_wal *w = at(im, s->wal_off + at_wal);

		if (lsn % 8 || w->lsn != lsn || w->log_gen != c->log_gen || w->size < sizeof(*w) ||
		    w->size % 8 || w->size > s->wal_size - at_wal)
			return;
		fn(w, s->wal_off + at_wal, arg);
		lsn += w->size;
	}
}

static void record_find(struct phd_wal *w, uint64_t off, void *arg)
{
	halves_add(arg, off, w->size < 120 ? w->size : 120);
}

static void wal_find(struct fields *f, const struct image *im)
{
	const struct phd_super *s = super_of(im);
	const struct phd_head *head = at(im, s->head_off);

	region_begin(f);
	for (uint32_t copy = 0; copy < 2; copy++)
		words_add(f, PHD_CHECKPOINT_OFF(copy), 48);
	region_begin(f);
	words_add(f, s->lease_off, head->chunk_count * sizeof(struct phd_lease));
	region_begin(f);
	words_add(f, s->table_lease_off, 64);
	region_begin(f);
	wal_walk(im, record_find, f);
	words_add(f, s->wal_off, 64);
}

static void record_seal(struct phd_wal *w, uint64_t off, void *arg)
{
	(void)off;
	(void)arg;
	w->crc = ph_crc32c(ph_crc32c(0, (const char *)w + sizeof(*w), w->size - sizeof(*w)), w,
			   offsetof(struct phd_wal, crc));
}

/* Another boot has it, so that power recovery looks at it. */
void damage_power(struct image *im)
{
	for (uint32_t copy = 0; copy < 2; copy++) {
		struct phd_state *state = at(im, PHD_STATE_OFF(copy));

		state->boot_id[0] ^= 1;
		state->crc = ph_crc32c(0, state, offsetof(struct phd_state, crc));
	}
}

void image_seal_wal(struct image *im)
{
	for (uint32_t copy = 0; copy < 2; copy++) {
		struct phd_checkpoint *c = at(im, PHD_CHECKPOINT_OFF(copy));

		c->crc = ph_crc32c(0, c, offsetof(struct phd_checkpoint, crc));
	}
	wal_walk(im, record_seal, NULL);
}

void fields_find(struct fields *f, const struct image *im)
{
	const struct phd_super *s = super_of(im);
	const struct phd_head *head = at(im, s->head_off);

	memset(f, 0, sizeof(*f));
	sectors_find(f);
	region_begin(f);
	words_add(f, s->coord_off, sizeof(struct phd_coord) - 72 * 8);
	region_begin(f);
	words_add(f, s->member_off, s->member_count * sizeof(struct phd_member));
	region_begin(f);
	for (uint32_t i = 0; i <= s->stripe_count; i++)
		words_add(f, s->stripe_off + i * sizeof(struct phd_stripe), 16);
	lanes_find(f, im);
	region_begin(f);
	words_add(f, s->head_off, offsetof(struct phd_head, holds));
	region_begin(f);
	words_add(f, s->desc_off, (head->chunk_count + 2) * 8);
	region_begin(f);
	words_add(f, s->bits_off, head->chunk_count * sizeof(struct phd_bits));
	region_begin(f);
	words_add(f, s->words_off, head->chunk_count * sizeof(struct phd_words));
	chains_find(f, im);
	resources_find(f, im);
	if (s->wal_off)
		wal_find(f, im);
	values_find(f, im);
	f->region_first[f->region_count] = f->count;
}

void fields_free(struct fields *f)
{
	free(f->all);
	free(f->values);
}

/* ---- damage ---- */

static uint64_t value_for(uint64_t old, const struct fields *f, const struct image *im, struct rng *r)
{
	uint64_t copy;

	switch (rng_below(r, 10)) {
	case 0:
		return 0;
	case 1:
		return 1;
	case 2:
		return ~0ull;
	case 3:
		return old ^ 1ull << rng_below(r, 64);
	case 4:
		return old ^ 1ull << rng_below(r, 32);
	case 5:
		return rng_below(r, 2) ? old + 1 : old - 1;
	case 6:
		return rng_next(r);
	case 7:
		return rng_next(r) >> rng_below(r, 64);
	case 8:
		memcpy(&copy, im->bytes + f->all[rng_below(r, f->count)].off, 4);
		memcpy((char *)&copy + 4, im->bytes + f->all[rng_below(r, f->count)].off + 4, 4);
		return copy;
	default:
		return f->values[rng_below(r, f->value_count)] + (rng_below(r, 4) ? 0 : rng_below(r, 4096));
	}
}

static void field_damage(struct image *im, const struct fields *f, struct rng *r)
{
	uint64_t region = rng_below(r, f->region_count), first = f->region_first[region];
	uint64_t count = f->region_first[region + 1] - first, value = 0;
	const struct field *field;

	if (!count)
		return;
	field = &f->all[first + rng_below(r, count)];
	memcpy(&value, im->bytes + field->off, field->size);
	/* A word of the same kind from elsewhere in the region: chains that join, rows that overlap. */
	if (rng_below(r, 4) == 0)
		memcpy(&value, im->bytes + f->all[first + rng_below(r, count)].off, field->size);
	else
		value = value_for(value, f, im, r);
	memcpy(im->bytes + field->off, &value, field->size);
}

void damage_fields(struct image *im, const struct fields *f, struct rng *r)
{
	uint64_t n = rng_below(r, 10), count = n < 6 ? 1 : n < 9 ? 2 + rng_below(r, 3) : 5 + rng_below(r, 15);

	if (f->plant && f->object_count && rng_below(r, 2))
		resources_plant(im, f, r);
	while (count--)
		field_damage(im, f, r);
	if (rng_below(r, 2))
		image_seal(im);
}

void damage_bytes(struct image *im, struct rng *r)
{
	const struct phd_super *s = super_of(im);
	const uint64_t starts[] = {0,		s->coord_off, s->lane_off,  s->head_off, s->lane_log_off,
				   s->desc_off, s->bits_off,  s->words_off, s->data_off, im->size};
	uint64_t region = rng_below(r, sizeof(starts) / sizeof(*starts) - 1);
	uint64_t n = 1 + rng_below(r, rng_below(r, 2) ? 16 : 512), room = starts[region + 1] - starts[region];
	uint64_t off = starts[region] + rng_below(r, room), fill = rng_below(r, 3);

	for (uint64_t i = 0; i < n && off + i < im->size; i++)
		im->bytes[off + i] = fill == 0 ? 0 : fill == 1 ? 0xff : (unsigned char)rng_next(r);
	if (rng_below(r, 2))
		image_seal(im);
}

static uint32_t record_size(const struct phd_record *rec)
{
	return 16 + ((rec->size + 7) & ~7u);
}

/* A descriptor change as the allocator would log it, or nearly. */
static void record_desc(struct phd_record *rec, const struct phd_super *s, uint64_t chunks, bool wild,
			struct rng *r)
{
	uint64_t chunk = s->journal_count + rng_below(r, chunks - s->journal_count), payload[2];
	uint64_t count = 1 + rng_below(r, 6);

	payload[0] = wild ? rng_below(r, 40) : count;
	payload[1] = rng_below(r, 3) == 0 ? 0
		     : rng_below(r, 2)
			     ? PHD_DESC_MAKE_RUN(
				       5, wild ? rng_below(r, 4096) * 8 : 16 + rng_below(r, 200) * 8, count)
			     : PHD_DESC_MAKE_EXTENT(5, count);
	rec->size = 16;
	rec->target = PHD_REC_TARGET(PHD_REC_DESC, wild ? rng_below(r, s->chunk_max + 2) : chunk);
	memcpy(rec + 1, payload, 16);
}

/* One record in eight says something that can not be. */
static uint32_t record_draw(struct phd_record *rec, const struct fields *f, const struct phd_super *s,
			    uint64_t chunks, struct rng *r)
{
	static const uint32_t sizes[] = {1, 8, 8, 16, 40, 100};
	bool wild = rng_below(r, 8) == 0;
	uint32_t kind = (uint32_t)(wild ? rng_below(r, 10) : 1 + rng_below(r, 8));
	uint64_t off = s->data_off + rng_below(r, chunks * PHD_CHUNK_SIZE - 128);

	if (kind == PHD_REC_DESC) {
		record_desc(rec, s, chunks, wild, r);
		return record_size(rec);
	}
	if (wild || rng_below(r, 3) == 0)
		off = f->values[rng_below(r, f->value_count)] + rng_below(r, 3) * 8;
	rec->size = kind < PHD_REC_PUBLISH || wild ? sizes[rng_below(r, 6)] : 8;
	if (kind == PHD_REC_SET || kind == PHD_REC_CLEAR)
		off = s->bits_off + rng_below(r, (wild ? s->chunk_max + 2 : chunks) * 4) * 8;
	if (kind == PHD_REC_PUBLISH && !wild)
		off &= ~7ull;
	if (kind == PHD_REC_REVIVE && !wild)
		off = 0;
	for (uint32_t i = 0; i < rec->size; i++)
		((unsigned char *)(rec + 1))[i] = (unsigned char)rng_next(r);
	if (wild && rng_below(r, 4) == 0)
		rec->size = (uint32_t)rng_next(r) >> rng_below(r, 32);
	rec->target = PHD_REC_TARGET(kind, off & 0x00ffffffffffffffull);
	return record_size(rec);
}

/* Records that fit together, so that only what they say can be refused; in the lane's log or in an
 * extension. */
void damage_log(struct image *im, const struct fields *f, struct rng *r)
{
	const struct phd_super *s = super_of(im);
	const struct phd_head *head = at(im, s->head_off);
	uint64_t idx = rng_below(r, s->lane_count), pos = 0, last = 0, room = s->lane_log_size, base = 0;
	struct phd_lane *lane = at(im, s->lane_off + idx * sizeof(*lane));
	uint64_t gen = 1 + rng_below(r, 100), n = 1 + rng_below(r, 12), ext_off = 0;
	char *log = at(im, s->lane_log_off + idx * s->lane_log_size);

	lane->ext_off = 0;
	while (n--) {
		struct phd_record rec[16];
		uint32_t size;

		memset(rec, 0, sizeof(rec));
		size = record_draw(rec, f, s, head->chunk_count, r);
		if (ext_off && rng_below(r, 4) == 0) /* the log changes itself */
			rec->target = PHD_REC_TARGET(1 + rng_below(r, 2), ext_off + rng_below(r, 40) * 8);
		if (!ext_off && pos && (room < pos * 8 + size || rng_below(r, 6) == 0)) {
			struct phd_log_ext *ext;
			uint64_t count = 1 + rng_below(r, 3);

			ext_off = s->data_off + rng_below(r, head->chunk_count - 3) * PHD_CHUNK_SIZE;
			ext = at(im, ext_off);
			base = pos;
			if (rng_below(r, 4) == 0) {
				/* The record in front reaches to a base that is far behind the segment. */
				struct phd_record *before = (struct phd_record *)(void *)(log + last * 8);

				base = pos + (1u << rng_below(r, 26));
				before->target = PHD_REC_TARGET(PHD_REC_DROPPED, 0);
				before->size = (uint32_t)((base - last) * 8 - 16);
			}
			*ext = (struct phd_log_ext){0, base, count * PHD_CHUNK_SIZE, PHD_WORD(gen, idx)};
			lane->ext_off = ext_off;
			log = (char *)(ext + 1);
			pos = base;
			room = 4096 + base * 8 - 32;
		}
		if (size > sizeof(rec) || pos * 8 + size > room) {
			/* Too long: the header alone, for what it says. */
			if (pos * 8 + 16 > room)
				break;
			rec->prev = (uint32_t)(pos - last);
			memcpy(log + (pos - base) * 8, rec, 16);
			last = pos;
			pos += size / 8;
			break;
		}
		rec->prev = (uint32_t)(pos - last);
		memcpy(log + (pos - base) * 8, rec, size);
		last = pos;
		pos += size / 8;
	}
	lane->used = PHD_USED(pos & 0xffffffff, last & 0xffffffff);
	lane->state =
		PHD_STATE(gen, PHD_MODE_EXCLUSIVE, rng_below(r, 2) ? PHD_STEP_ACTIVE : PHD_STEP_COMMITTED);
	lane->owner = rng_below(r, 2) ? 1ull << 16 | 1 : 0;
}

static void bytes_random(struct image *im, uint64_t off, uint64_t n, struct rng *r)
{
	for (uint64_t i = 0; i < n; i++)
		im->bytes[off + i] = (unsigned char)rng_next(r);
}

void damage_coordination(struct image *im, struct rng *r)
{
	const struct phd_super *s = super_of(im);
	const struct phd_head *head = at(im, s->head_off);
	bool keep_poison = rng_below(r, 4) != 0;

	bytes_random(im, s->coord_off, s->lane_off - s->coord_off, r);
	for (uint32_t i = 0; i < s->lane_count; i++) {
		uint64_t off = s->lane_off + i * sizeof(struct phd_lane);

		bytes_random(im, off + offsetof(struct phd_lane, owner),
			     sizeof(struct phd_lane) - offsetof(struct phd_lane, owner), r);
		if (rng_below(r, 2))
			((struct phd_lane *)at(im, off))->owner = 0;
	}
	/* Words of log extensions name the transaction that wrote them: they are not looked at in
	 * recovery either. */
	bytes_random(im, s->words_off, head->chunk_count * sizeof(struct phd_words), r);
	if (keep_poison)
		((struct phd_coord *)at(im, s->coord_off))->poison = 0;
}

void image_seal(struct image *im)
{
	for (uint32_t copy = 0; copy < 2; copy++) {
		struct phd_super *super = at(im, PHD_SUPER_OFF(copy));
		struct phd_state *state = at(im, PHD_STATE_OFF(copy));

		super->crc = ph_crc32c(0, super, offsetof(struct phd_super, crc));
		state->crc = ph_crc32c(0, state, offsetof(struct phd_state, crc));
	}
}

/* ---- use ---- */

static void holds_use(pheap *h, struct rng *r)
{
	const void *p = NULL;

	for (uint64_t i = 1 + rng_below(r, 30); i; i--) {
		const void *next = pheap_next(h, UINT32_MAX, p);

		if (!next)
			break;
		p = next;
		if (rng_below(r, 3) == 0)
			(void)pheap_hold(h, p);
		if (rng_below(r, 3) == 0)
			(void)pheap_release(h, p);
	}
}

static void permits_delete(pheap *h, const pheap_permits *p)
{
	pheap_tx *tx;

	if (pheap_begin(h, 0, &tx))
		return;
	(void)pheap_permits_delete(tx, p);
	(void)!pheap_commit(tx);
}

void resources_use(pheap *h, struct rng *r)
{
	char name[64] = "";
	int64_t free_count;

	holds_use(h, r);
	for (int i = 0; i < 100 && pheap_root_next(h, name) == 0; i++) {
		const pheap_permits *p = pheap_find(h, name);

		if (pheap_permits_available(h, p, &free_count))
			continue;
		(void)pheap_permits_take(h, p, 1 + rng_below(r, 4), 0);
		(void)pheap_permits_lend(h, p, 1 + rng_below(r, 4));
		(void)pheap_permits_give(h, p, 1 + rng_below(r, 4));
		(void)pheap_permits_available(h, p, &free_count);
		if (rng_below(r, 4) == 0)
			permits_delete(h, p);
	}
	(void)pheap_recover(h, NULL);
}
