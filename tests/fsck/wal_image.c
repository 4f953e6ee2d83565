/* SPDX-License-Identifier: MIT
 *
 * wal_image.c: see wal_image.h.
 */
#include "wal_image.h"

#include <stdlib.h>
#include <string.h>

#include "format.h"

void wal_log_start(struct wal_log *w, struct image *im)
{
	memset(w, 0, sizeof *w);
	w->im = im;
	w->lsn = IMAGE_LSN;
	w->log_gen = WAL_LOG_GEN;
}

void wal_record_begin(struct wal_log *w, unsigned kind)
{
	w->kind = kind;
	w->size = sizeof(struct phd_wal);
}

void wal_entry_add(struct wal_log *w, unsigned kind, uint64_t off, const void *payload, uint32_t size)
{
	struct phd_record r = {.target = PHD_REC_TARGET(kind, off), .size = size};
	size_t padded = (size + 7u) / 8 * 8;

	if (w->size + sizeof r + padded > sizeof w->record)
		abort();
	memcpy(w->record + w->size, &r, sizeof r);
	memset(w->record + w->size + sizeof r, 0, padded);
	if (size)
		memcpy(w->record + w->size + sizeof r, payload, size);
	w->size += sizeof r + padded;
}

static unsigned char *wal_byte(const struct image *im, uint64_t lsn)
{
	return image_at(im, im->super->wal_off + lsn % IMAGE_WAL);
}

uint64_t wal_record_end(struct wal_log *w)
{
	struct phd_wal head = {
		.lsn = w->lsn, .log_gen = w->log_gen, .size = (uint32_t)w->size, .kind = w->kind};
	unsigned char sum[sizeof w->record];
	uint64_t lsn = w->lsn;

	/* the checksum is of what follows the header, then of its first 24 bytes */
	memcpy(sum, w->record + sizeof head, w->size - sizeof head);
	memcpy(sum + w->size - sizeof head, &head, 24);
	head.crc = format_crc32c(sum, w->size - sizeof head + 24);
	memcpy(w->record, &head, sizeof head);
	for (size_t i = 0; i < w->size; i++)
		*wal_byte(w->im, lsn + i) = w->record[i];
	w->lsn += w->size;
	return lsn;
}

uint64_t wal_one(struct wal_log *w, unsigned kind, unsigned entry, uint64_t off, const void *payload,
		 uint32_t size)
{
	wal_record_begin(w, kind);
	wal_entry_add(w, entry, off, payload, size);
	return wal_record_end(w);
}

uint64_t wal_page(struct wal_log *w, uint64_t off)
{
	return wal_one(w, PHD_WAL_IMAGE, PHD_REC_UNDO, off, image_at(w->im, off), PHD_BLOCK_SIZE);
}

void wal_pad(struct wal_log *w)
{
	uint64_t room = PHD_SECTOR_SIZE - w->lsn % PHD_SECTOR_SIZE;

	wal_record_begin(w, PHD_WAL_PAD);
	w->size = room < sizeof(struct phd_wal) ? room + PHD_SECTOR_SIZE : room;
	memset(w->record, 0, w->size);
	wal_record_end(w);
}

void wal_flip(const struct image *im, uint64_t lsn)
{
	*wal_byte(im, lsn) ^= 0x10;
}

void image_checkpoint_set(struct image *im, uint64_t replay_lsn, uint64_t epoch_lsn)
{
	struct phd_checkpoint *c = image_checkpoint(im, 1);

	c->replay_lsn = replay_lsn;
	c->epoch_lsn = epoch_lsn;
	image_seal(im);
}

void image_ring_set(struct image *im, uint64_t replay_lsn, uint64_t durable, uint64_t tail)
{
	struct phd_coord *c = image_at(im, im->super->coord_off);

	c->replay_lsn = c->epoch_lsn = c->epoch = replay_lsn;
	c->durable = durable;
	c->tail = tail;
	c->log_gen = WAL_LOG_GEN;
	c->lane_gen_limit = 1ull << 33;
}
