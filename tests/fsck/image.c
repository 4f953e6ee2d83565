/* SPDX-License-Identifier: MIT
 *
 * image.c: see image.h.
 */
#include "image.h"

#include <stdlib.h>
#include <string.h>

#include "format.h"

#define ROOT_SIZE 96u
#define TYPE_SIZE 128u
#define NODE_SIZE 48u
#define NODE_COUNT 100u
#define SEMAPHORE_SIZE 96u /* a cell for each of 4 members */

void *image_at(const struct image *im, uint64_t off)
{
	return im->bytes + off;
}

uint64_t image_chunk(const struct image *im, uint64_t chunk)
{
	return im->super->data_off + chunk * PHD_CHUNK_SIZE;
}

struct phd_lane *image_lane(const struct image *im, unsigned lane)
{
	return image_at(im, im->super->lane_off + lane * sizeof(struct phd_lane));
}

struct phd_root *image_root(const struct image *im, unsigned i)
{
	return image_at(im, image_chunk(im, 2) + i * ROOT_SIZE);
}

uint64_t image_hold_off(const struct image *im, unsigned i)
{
	return image_chunk(im, 14) + i * sizeof(struct phd_hold);
}

struct phd_hold *image_hold(const struct image *im, unsigned i)
{
	return image_at(im, image_hold_off(im, i));
}

uint64_t *image_hold_list(const struct image *im, uint64_t object_off)
{
	return &im->head->holds[format_hold_bucket(object_off)];
}

struct phd_permits *image_semaphore(const struct image *im, unsigned i)
{
	return image_at(im, image_chunk(im, 15) + i * SEMAPHORE_SIZE);
}

struct phd_state *image_state(const struct image *im, int copy)
{
	return image_at(im, PHD_STATE_OFF(copy));
}

struct phd_checkpoint *image_checkpoint(const struct image *im, int copy)
{
	return image_at(im, PHD_CHECKPOINT_OFF(copy));
}

struct phd_live *image_live(const struct image *im, int copy)
{
	return image_at(im, PHD_LIVE_OFF(copy));
}

static void checkpoint_seal(struct phd_checkpoint *c)
{
	c->crc = format_crc32c(c, offsetof(struct phd_checkpoint, crc));
}

void image_seal(struct image *im)
{
	struct phd_super *other = image_at(im, PHD_SUPER_OFF(1));

	for (int i = 0; i < 2 && im->super->durability > 1; i++)
		checkpoint_seal(image_checkpoint(im, i));
	im->super->crc = format_crc32c(im->super, offsetof(struct phd_super, crc));
	*other = *im->super;
	other->copy = 1;
	other->crc = format_crc32c(other, offsetof(struct phd_super, crc));
	for (int i = 0; i < 2; i++)
		image_state(im, i)->crc = format_crc32c(image_state(im, i), offsetof(struct phd_state, crc));
}

/* Ring and WAL between the others. */
static void super_make_wal(struct phd_super *s)
{
	s->durability = 3;
	s->wal_size = IMAGE_WAL;
	s->ring_off = 0x3000;
	s->head_off = 0xb000;
	s->lane_log_off = 0xc000;
	s->wal_off = 0xd000;
	s->desc_off = 0x15000;
	s->bits_off = 0x16000;
	s->words_off = 0x17000;
	s->lease_off = 0x18000;
	s->table_lease_off = 0x19000;
	s->data_off = 0x1a000;
}

static void super_make(struct image *im, bool wal)
{
	struct phd_super *s = im->super;

	*s = (struct phd_super){
		.magic = PHD_SUPER_MAGIC,
		.version = PHD_VERSION,
		.size_max = 512u << 10,
		.durability = 1,
		.chunk_shift = PHD_CHUNK_SHIFT,
		.member_count = 4,
		.lane_count = IMAGE_LANES,
		.stripe_count = 16,
		.lane_log_size = IMAGE_LANE_LOG,
		.root_bucket_count = PHD_ROOT_BUCKETS,
		.coord_off = 0x2000,
		.member_off = 0x2400,
		.stripe_off = 0x2500,
		.lane_off = 0x2a00,
		.head_off = 0x3000,
		.lane_log_off = 0x4000,
		.desc_off = 0x5000,
		.bits_off = 0x6000,
		.words_off = 0x7000,
		.data_off = 0x8000,
		.chunk_max = 64,
		.journal_count = IMAGE_JOURNAL,
	};
	if (wal)
		super_make_wal(s);
	strcpy(s->layout, "fixture");
	memset(s->uuid, 0x5a, sizeof s->uuid);
}

static void run_make(struct image *im, uint64_t chunk, uint64_t count, uint32_t type, uint32_t size)
{
	im->desc[chunk] = PHD_DESC_MAKE_RUN(type, size, count);
	for (uint64_t i = 1; i < count; i++)
		im->desc[chunk + i] = PHD_DESC_MAKE_CONT(type, i);
}

static void extent_make(struct image *im, uint64_t chunk, uint64_t count, uint32_t type)
{
	im->desc[chunk] = PHD_DESC_MAKE_EXTENT(type, count);
	for (uint64_t i = 1; i < count; i++)
		im->desc[chunk + i] = PHD_DESC_MAKE_CONT(type, i);
}

static void root_make(struct image *im, unsigned i, const char *name, uint64_t off, uint64_t size)
{
	struct phd_root *root = image_root(im, i);
	uint64_t *bucket = &im->head->roots[format_name_hash(name) % PHD_ROOT_BUCKETS];

	root->off = off;
	root->size = size;
	strcpy(root->name, name);
	root->next_off = *bucket;
	*bucket = image_chunk(im, 2) + i * ROOT_SIZE;
	im->bits[4 * 2] |= 1ull << i;
}

static void type_make(struct image *im, unsigned i, uint32_t number, const char *name, uint64_t size,
		      uint32_t ptr_count)
{
	uint64_t off = image_chunk(im, 3) + i * TYPE_SIZE;
	struct phd_type *type = image_at(im, off);

	type->number = number;
	type->size = size;
	type->align = 8;
	type->ptr_count = ptr_count;
	strcpy(type->name, name);
	if (ptr_count) {
		type->ptr_offs[0] = 0;
		type->ptr_offs[1] = 40;
	}
	type->next_off = im->head->types_off;
	im->head->types_off = off;
	im->bits[4 * 3] |= 1ull << i;
}

static void nodes_make(struct image *im)
{
	/* a list of all through field 0, over both chunks; field 40 leads to the extent */
	for (unsigned i = 0; i < NODE_COUNT; i++) {
		uint64_t *node = image_at(im, image_chunk(im, 4) + i * NODE_SIZE);

		node[0] = i < NODE_COUNT - 1 ? image_chunk(im, 4) + (i + 1) * NODE_SIZE : 0;
		node[5] = i % 10 ? 0 : image_chunk(im, 6);
		im->bits[4 * 4 + i / 64] |= 1ull << i % 64;
	}
}

/* Two nodes whose records are in one list. */
static void held_choose(struct image *im)
{
	for (unsigned i = 0; i < NODE_COUNT; i++)
		for (unsigned k = 0; k < i; k++) {
			uint64_t a = image_chunk(im, 4) + k * NODE_SIZE,
				 b = image_chunk(im, 4) + i * NODE_SIZE;

			if (format_hold_bucket(a) != format_hold_bucket(b))
				continue;
			im->held_off[0] = a;
			im->held_off[1] = b;
			return;
		}
	abort();
}

static void hold_make(struct image *im, unsigned i, uint64_t object_off, unsigned slot)
{
	uint64_t *list = image_hold_list(im, object_off);

	*image_hold(im, i) = (struct phd_hold){.next_off = *list,
					       .object_off = object_off,
					       .attachment = 33 + slot,
					       .slot = slot,
					       .count = i + 1};
	*list = image_hold_off(im, i);
	im->bits[4 * 14] |= 1ull << i;
}

static void resources_make(struct image *im)
{
	run_make(im, 14, 1, PHD_TYPE_HOLD, sizeof(struct phd_hold));
	run_make(im, 15, 1, PHD_TYPE_PERMITS, SEMAPHORE_SIZE);
	held_choose(im);
	hold_make(im, 0, im->held_off[0], 0);
	hold_make(im, 1, im->held_off[0], 1);
	hold_make(im, 2, im->held_off[1], 0);
	hold_make(im, 3, image_chunk(im, 6), 0);
	im->bits[4 * 15] = 3;
	for (unsigned i = 0; i < 2; i++) {
		struct phd_permits *p = image_semaphore(im, i);

		p->total = 3;
		p->cells[0] = (struct phd_permit_cell){33, 2};
		p->cells[1] = (struct phd_permit_cell){34, -5};
	}
	root_make(im, 4, "semaphore", image_chunk(im, 15), 0);
}

static void states_make(struct image *im, const struct identity *id)
{
	for (int i = 0; i < 2; i++) {
		struct phd_state *s = image_state(im, i);

		s->magic = PHD_STATE_MAGIC;
		s->seq = i ? 5 : 6;
		s->clean = 1;
		s->durability = im->super->durability;
		s->attachment_limit = 64;
		s->inode = id->inode;
		s->birth_ns = id->birth_ns;
		memcpy(s->boot_id, id->boot_id, sizeof s->boot_id);
	}
}

static void checkpoints_make(struct image *im)
{
	for (int i = 0; i < 2; i++)
		*image_checkpoint(im, i) = (struct phd_checkpoint){.magic = PHD_CHECKPOINT_MAGIC,
								   .seq = i ? 9 : 8,
								   .log_gen = 3,
								   .replay_lsn = IMAGE_LSN,
								   .epoch_lsn = IMAGE_LSN,
								   .lane_gen_limit = 1ull << 33};
}

void image_make(struct image *im, const struct identity *id, bool wal)
{
	*im = (struct image){.size = IMAGE_SIZE, .bytes = calloc(1, IMAGE_SIZE)};
	if (!im->bytes)
		abort();
	im->super = image_at(im, 0);
	super_make(im, wal);
	im->head = image_at(im, im->super->head_off);
	im->desc = image_at(im, im->super->desc_off);
	im->bits = image_at(im, im->super->bits_off);
	im->size = im->super->data_off + IMAGE_CHUNKS * PHD_CHUNK_SIZE;
	im->head->magic = PHD_HEAD_MAGIC;
	im->head->chunk_count = IMAGE_CHUNKS;
	extent_make(im, 0, IMAGE_JOURNAL, PHD_TYPE_JOURNAL);
	run_make(im, 2, 1, PHD_TYPE_ROOT, ROOT_SIZE);
	run_make(im, 3, 1, PHD_TYPE_TYPE, TYPE_SIZE);
	run_make(im, 4, 2, 7, NODE_SIZE);
	extent_make(im, 6, 3, 0);
	extent_make(im, 10, 3, 9);
	run_make(im, 13, 1, 0, 320);
	im->bits[4 * 13] = 0xfff;
	root_make(im, 0, "alpha", image_chunk(im, 4), NODE_SIZE);
	root_make(im, 1, "beta", image_chunk(im, 6), 9000);
	root_make(im, 2, "gone", 0, 0);
	root_make(im, 3, "beta2", image_chunk(im, 10), 0);
	type_make(im, 0, 7, "node", NODE_SIZE, 2);
	type_make(im, 1, 9, "blob", 12288, 0);
	nodes_make(im);
	resources_make(im);
	for (unsigned i = 0; i < IMAGE_LANES; i++)
		image_lane(im, i)->state = PHD_STATE(10 + i, PHD_MODE_NONE, PHD_STEP_IDLE);
	states_make(im, id);
	if (wal)
		checkpoints_make(im);
	image_seal(im);
}

void image_free(struct image *im)
{
	free(im->bytes);
	im->bytes = NULL;
}

void image_dirty(struct image *im)
{
	image_state(im, 0)->clean = 0;
	image_seal(im);
}

void image_cut(struct image *im)
{
	image_dirty(im);
	for (int i = 0; i < 2; i++)
		image_state(im, i)->boot_id[3] ^= 0x40;
	image_seal(im);
}

void image_lane_state(struct image *im, unsigned lane, unsigned step)
{
	struct phd_lane *l = image_lane(im, lane);

	l->state = PHD_STATE(PHD_STATE_GEN(l->state), PHD_MODE_CONCURRENT, step);
	l->owner = 33ull << 16 | 1;
}

void image_record(struct image *im, unsigned lane, unsigned kind, uint64_t off, const void *payload,
		  uint32_t size)
{
	struct phd_lane *l = image_lane(im, lane);
	uint64_t end = PHD_USED_END(l->used), last = PHD_USED_LAST(l->used), base = im->ext_base[lane];
	uint64_t at = im->super->lane_log_off + (uint64_t)lane * IMAGE_LANE_LOG + 8 * end;
	struct phd_record *r;

	if (base && end >= base)
		at = image_chunk(im, im->ext_chunk[lane]) + sizeof(struct phd_log_ext) + 8 * (end - base);
	r = image_at(im, at);
	r->target = PHD_REC_TARGET(kind, off);
	r->size = size;
	r->prev = (uint32_t)(end - last);
	memcpy(r + 1, payload, size);
	l->used = PHD_USED(end + 2 + (size + 7) / 8, end);
}

void image_extend(struct image *im, unsigned lane, uint64_t chunk, uint64_t count)
{
	struct phd_lane *l = image_lane(im, lane);
	struct phd_log_ext *ext = image_at(im, image_chunk(im, chunk));

	im->ext_base[lane] = PHD_USED_END(l->used);
	im->ext_chunk[lane] = chunk;
	ext->base = im->ext_base[lane];
	ext->size = count * PHD_CHUNK_SIZE;
	ext->owner = PHD_WORD(PHD_STATE_GEN(l->state), lane);
	l->ext_off = image_chunk(im, chunk);
}
