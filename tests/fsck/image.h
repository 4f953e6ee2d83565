/* SPDX-License-Identifier: MIT
 *
 * image.h: builds small heap files in memory from FORMAT.md, to be damaged and shown to pheap-fsck.
 *
 * Why not the library: fixtures must be able to hold states that no library would write, to the byte.
 *
 * The base image (192 KiB, with a WAL 264 KiB): chunks 0-1 journal; 2 a run of root entries; 3 a run of type
 * rows; 4-5 a run of `node` (type 7, 48 bytes, pointers at 0 and 40); 6-8 an extent, untyped; 10-12 an extent
 * of type 9; 13 a run of 320-byte blocks; 14 a run of held references; 15 a run of semaphores; the others
 * free.
 *
 * Held references, all void: nodes A and B have one list: B by attachment 33 -> A by 34 -> A by 33 (blocks
 * 2, 1, 0 of chunk 14); block 3 is the extent at 6 by 33, in a list of its own.
 */
#ifndef TEST_IMAGE_H
#define TEST_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

#define IMAGE_SIZE (512u << 10)
#define IMAGE_WAL (32u << 10)
#define IMAGE_LSN (5ull * IMAGE_WAL - 4096) /* where the log begins: a page before the WAL ends */
#define IMAGE_CHUNKS 40u
#define IMAGE_JOURNAL 2u
#define IMAGE_LANES 4u
#define IMAGE_LANE_LOG 512u

struct image {
	unsigned char *bytes;
	uint64_t held_off[2]; /* nodes A and B */
	size_t size;
	uint64_t ext_base[IMAGE_LANES]; /* position where the extension of a lane begins; 0: none */
	uint64_t ext_chunk[IMAGE_LANES];
	struct phd_super *super; /* copy 0 */
	struct phd_head *head;
	uint64_t *desc, *bits;
};

/* What the state sector says about the file. */
struct identity {
	uint8_t boot_id[16];
	uint64_t inode, birth_ns;
};

/* wal: of durability SYNC, with a WAL of IMAGE_WAL bytes; else PROCESS. */
void image_make(struct image *im, const struct identity *id, bool wal);
void image_free(struct image *im);
void *image_at(const struct image *im, uint64_t off);
uint64_t image_chunk(const struct image *im, uint64_t chunk);
struct phd_lane *image_lane(const struct image *im, unsigned lane);
struct phd_root *image_root(const struct image *im, unsigned i); /* entry in block i of chunk 2 */
struct phd_hold *image_hold(const struct image *im, unsigned i); /* record in block i of chunk 14 */
uint64_t image_hold_off(const struct image *im, unsigned i);
uint64_t *image_hold_list(const struct image *im, uint64_t object_off); /* the list that its records are in */
struct phd_permits *image_semaphore(const struct image *im, unsigned i); /* block i of chunk 15 */
/* Writes the checksums of superblock and state anew. */
void image_seal(struct image *im);
struct phd_state *image_state(const struct image *im, int copy);
struct phd_checkpoint *image_checkpoint(const struct image *im, int copy);
struct phd_live *image_live(const struct image *im, int copy);
void image_dirty(struct image *im); /* the state says: not clean */
void image_cut(struct image *im);   /* and of another boot */
void image_lane_state(struct image *im, unsigned lane, unsigned step);
void image_record(struct image *im, unsigned lane, unsigned kind, uint64_t off, const void *payload,
		  uint32_t size);
/* The lane's log goes on in chunks from here. */
void image_extend(struct image *im, unsigned lane, uint64_t chunk, uint64_t count);

#endif
