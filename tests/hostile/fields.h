/* SPDX-License-Identifier: MIT
 *
 * fields.h: where the words of a heap file are, by region, and ways to damage them.
 */
#ifndef HOSTILE_FIELDS_H
#define HOSTILE_FIELDS_H

#include "drive.h"

/* A heap file in memory. */
struct image {
	unsigned char *bytes;
	size_t size;
	enum drive_state state;
	uint32_t level;
};

struct field {
	uint64_t off;
	uint32_t region;
	uint32_t size; /* bytes: 4 or 8 */
};

#define OBJECTS 24u /* blocks that may be held */

struct fields {
	struct field *all;
	size_t count, room;
	uint32_t region_count;
	size_t region_first[32]; /* regions are consecutive in all[] */
	uint64_t *values;	 /* numbers that mean something in this file */
	size_t value_count;
	uint64_t plant; /* chunk where held references and a semaphore can be put, 0: nowhere */
	uint64_t objects[OBJECTS];
	uint32_t object_count;
};

void fields_find(struct fields *f, const struct image *im);
void fields_free(struct fields *f);

/* Each changes `im`, drawing from r. */
void damage_fields(struct image *im, const struct fields *f, struct rng *r);
void damage_bytes(struct image *im, struct rng *r);
void damage_log(struct image *im, const struct fields *f, struct rng *r); /* a lane with made-up records */
void damage_coordination(struct image *im, struct rng *r);		  /* all of kind B, random */
void image_seal(struct image *im);
/* Of undamaged superblocks: the power went from it; and the sums of its checkpoint and log as they should be. */
void damage_power(struct image *im);
void image_seal_wal(struct image *im);

/* Holds, releases, takes, gives and deletes what there is; errors are fine. */
void resources_use(pheap *h, struct rng *r);

#endif
