/* SPDX-License-Identifier: MIT
 *
 * disk.h: what a disk may hold of a file when the power goes.
 *
 * What: stores to the mapping and calls that write or sync are recorded; replayed one by one they give, for
 * each word of 8 bytes, the value that is surely on the disk and all those that have been stored since. An
 * image is made by choosing among them, for each page, each sector or each word. Why values since the sync
 * and not "dirty, yes or no": the kernel may write a page at any time and again later, so the disk may hold
 * what was there in between.
 *
 * Invariants
 *   D1  What was recorded, applied to the image from before, is the image after it, byte for byte.
 *   D2  `durable` beyond `durable_size` is zero: a file that lost its growth reads so when it grows again.
 *   D4  A block of an image is a hole only if it was one at some time since its sync, and is zero.
 *   D3  Garbage is put only into sectors that a call is writing with other bytes than they had.
 */
#ifndef PHEAP_POWER_DISK_H
#define PHEAP_POWER_DISK_H

#include "memfile.h"

#define DISK_SECTOR 512u
#define DISK_SECTORS (MEMFILE_CAPACITY / DISK_SECTOR)
#define DISK_WORDS (MEMFILE_CAPACITY / 8u)

enum disk_kind { DISK_STORE, DISK_SIZE, DISK_WRITING, DISK_SYNCED, DISK_SPACE };

/* Numbers of commits at an event: surely durable, surely visible, begun. `side`: of the second member's
 * object. */
struct disk_bounds {
	uint16_t low, seen, high, side_low, side_seen, side_high;
};

struct disk_event {
	uint64_t
		value; /* store: the word afterwards; size: bytes; writing, synced: end, as word; space: hole or not */
	uint32_t word;
	uint32_t prev; /* store: 1 + number of the event before it that stored here since the sync */
	struct disk_bounds bounds;
	uint8_t kind, op;
};

struct disk {
	struct memfile *file;
	char *now, *durable;
	uint64_t now_size, durable_size;
	/* By blocks: without space now; when it was synced; at any time since. */
	uint8_t now_holes[MEMFILE_BLOCKS], durable_holes[MEMFILE_BLOCKS], some_holes[MEMFILE_BLOCKS];
	uint32_t *last; /* by word: 1 + number of the last event that stored here since the sync; 0: none */
	uint32_t dirty_count[DISK_SECTORS]; /* words with `last` */
	struct disk_event *events;
	size_t count, room, at; /* at: those before are in `now` and `durable` */
	struct disk_event pending;
	bool pending_set;
	uint32_t writing, writing_end; /* words that a call is writing; equal: none */
	size_t writing_at;
	uint8_t *stale; /* sectors of the file of images that may differ from `durable` */
	void (*bounds)(struct disk_bounds *ret, uint8_t *ret_op);
};

enum disk_pattern {
	DISK_NOTHING,
	DISK_ALL,
	DISK_HALF,
	DISK_FEW,
	DISK_MOST,
	DISK_TIMES, /* each unit as it was at some time */
	DISK_ONE,
	DISK_ALL_BUT_ONE,
	DISK_PATTERNS,
	DISK_MASK = DISK_PATTERNS, /* the unit with number i iff bit i of mask; unimportant ones at random */
	DISK_KILL		   /* no cut at all: what the page cache has, for the same boot */
};
extern const char *const disk_pattern_names[DISK_PATTERNS + 2];

struct disk_choice {
	unsigned unit; /* bytes: 4096, 512, 8 */
	enum disk_pattern pattern;
	uint64_t rng, mask;
	bool garbage;
};

void disk_init(struct disk *d, struct memfile *file);
void disk_free(struct disk *d);
/* All that the file holds is durable. */
void disk_reset(struct disk *d);
/* d becomes what `from` is at its `at`, with a file of its own, on a device that the file does not know.
 * false: just now the state is being written. */
bool disk_clone(struct disk *d, const struct disk *from);
/* From now on what happens to the file is recorded in d (unless NULL), and marked in stale (unless NULL). */
void disk_watch(struct memfile *f, struct disk *d, uint8_t *stale);
void disk_unwatch(void);
/* Replays the next event. */
void disk_apply(struct disk *d);
/* D1, when all is replayed: -1, or the offset that differs. */
int64_t disk_differs(const struct disk *d);
/* Units that a power cut may lose and that recovery reads. */
unsigned disk_units(const struct disk *d, unsigned unit);
/* The image into `to`. */
void disk_image(const struct disk *d, const struct disk_choice *c, struct memfile *to);
/* "data 0x3000", for messages. */
void disk_place(const char *image, uint64_t off, char *ret, size_t n);
/* Does power recovery look at the byte? */
bool disk_matters(const char *image, uint64_t off);

#endif
