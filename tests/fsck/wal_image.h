/* SPDX-License-Identifier: MIT
 *
 * wal_image.h: writes the log of a heap image by hand, from section 8 of FORMAT.md.
 *
 * A record is begun, gets entries, is ended: then its bytes are in the WAL of the image, across its end if
 * need be.
 */
#ifndef TEST_WAL_IMAGE_H
#define TEST_WAL_IMAGE_H

#include "image.h"

#define WAL_LOG_GEN 3u

struct wal_log {
	struct image *im;
	uint64_t lsn; /* where the next record begins */
	uint64_t log_gen;
	unsigned char record[IMAGE_WAL / 2];
	size_t size;
	unsigned kind;
};

void wal_log_start(struct wal_log *w, struct image *im);
void wal_record_begin(struct wal_log *w, unsigned kind);
void wal_entry_add(struct wal_log *w, unsigned kind, uint64_t off, const void *payload, uint32_t size);
uint64_t wal_record_end(struct wal_log *w); /* its LSN */
/* A record of one entry. */
uint64_t wal_one(struct wal_log *w, unsigned kind, unsigned entry, uint64_t off, const void *payload,
		 uint32_t size);
/* The page at off as it is in the image now. */
uint64_t wal_page(struct wal_log *w, uint64_t off);
void wal_pad(struct wal_log *w); /* to the end of a sector */
/* Damages a byte of the log. */
void wal_flip(const struct image *im, uint64_t lsn);

/* What both copies of the checkpoint say; copy 1 counts. */
void image_checkpoint_set(struct image *im, uint64_t replay_lsn, uint64_t epoch_lsn);
/* The ring's words in memory, as of a heap in use. */
void image_ring_set(struct image *im, uint64_t replay_lsn, uint64_t durable, uint64_t tail);

#endif
