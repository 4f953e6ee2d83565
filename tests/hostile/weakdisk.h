/* SPDX-License-Identifier: MIT
 *
 * weakdisk.h: one heap file whose page cache and disk are two things, and calls on it that fail.
 *
 * What: a table of system calls over a file in memory, which is the page cache, beside a copy of what the disk has. A sync
 * moves bytes from one to the other. One that fails does what the kernel does: some pages are on the disk, some
 * are still to be written, and some count as written though they are not. A write that fails has put some of its
 * bytes into the page cache and onto the disk. Then who goes on with what the page cache says loses data.
 * Why not fake.c: there a call that fails has done nothing, and a sync that works does nothing.
 *
 * Invariants
 *   W1  What the disk has changes by a write or sync only, and when power is cut: whoever reads the file sees the
 *       page cache.
 *   W2  A page that was lost reads as the page cache has it until it is forgotten, and is written again only if it is
 *       stored to.
 */
#ifndef HOSTILE_WEAKDISK_H
#define HOSTILE_WEAKDISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drive.h"
#include "os.h"

#define DISK_PAGE 4096u
#define DISK_PAGES 320u /* at most */
#define DISK_CAPACITY ((size_t)DISK_PAGES * DISK_PAGE)
#define DISK_PATH "/heap"
#define FAULTS_MAX 4u
#define DISK_ANY 255u

enum disk_fn {
	DISK_OPEN,
	DISK_CLOSE,
	DISK_INFO,
	DISK_NETWORK,
	DISK_READ,
	DISK_WRITE,
	DISK_WRITE_SYNC,
	DISK_ALLOCATE,
	DISK_SYNC,
	DISK_CREATE,
	DISK_LINK,
	DISK_REAL_PATH,
	DISK_FOLDER,
	DISK_LOCK,
	DISK_UNLOCK,
	DISK_TEST,
	DISK_MAP,
	DISK_UNMAP,
	DISK_MAP_SYNC,
	DISK_FORGET,
	DISK_FENCE,
	DISK_RANDOM,
	DISK_BOOT,
	DISK_FNS
};
extern const char *const disk_names[DISK_FNS];

/* The call of this function that fails: after `left` others, counted from the fault before. */
struct disk_fault {
	unsigned fn; /* or DISK_ANY */
	long left;
	int code;
	bool stays; /* and all that write or sync from then on */
};

/* What there is of a file at one moment. */
struct disk_image {
	char *cache, *seen, *disk;
	size_t size, disk_size, used;
	bool dirty[DISK_PAGES];
	bool named;
	uint8_t boot;
};

struct weakdisk {
	int fd;			 /* of the file in memory; -1: none */
	char *map, *seen, *disk; /* page cache; what of it was last written or lost; the disk */
	size_t disk_size;
	bool dirty[DISK_PAGES]; /* written since, also if it is the same */
	bool named;
	uint8_t boot;
	unsigned device; /* that files are on that are opened now */
	long fds, maps;	 /* of the library */
	uint64_t slept_ns;
	unsigned long clock_count;
	struct rng rng;
	struct disk_fault faults[FAULTS_MAX];
	unsigned fault_count, fault_at; /* those before fault_at have been */
	int stays;			/* code; 0: nothing fails for good */
	unsigned fired_fn;		/* the last one */
	bool fired, fired_sync;		/* any; one that writes or syncs */
	long calls[DISK_FNS];
	bool boot_hidden;    /* boot_id has failed */
	bool quiet;	     /* nothing fails or counts */
	void (*watch)(void); /* before each call that may fail */
};

extern struct weakdisk weakdisk;
extern const struct ph_os weakdisk_os;

/* No file. Forgets failures and counts. */
void weakdisk_clear(void);
void weakdisk_faults(const struct disk_fault *faults, unsigned count);
void weakdisk_take(struct disk_image *to);
/* As it was; nothing that is open is of this file. cut: the power was. */
void weakdisk_put(const struct disk_image *from, bool cut);
void disk_image_free(struct disk_image *image);

#endif
