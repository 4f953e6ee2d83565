/* SPDX-License-Identifier: MIT
 *
 * memfile.h: files that are memory: a table for os.h without a system call.
 *
 * What: a few named files, locks per open description, a clock that moves when it is read, a seeded random
 * source.
 * Why: recovery of an image takes microseconds instead of a millisecond of system calls, and the same seed
 * gives the same bytes.
 *
 * Invariants
 *   V1  A mapping of a memfile is its bytes. All that ends here, the files never move.
 *   V3  Blocks without space are zero.
 *   V2  Inode, birth time and boot id are those of a real file given to memfile_identity, so that an image
 *       written to that file is accepted as itself; files differ by device number.
 */
#ifndef PHEAP_KILL_MEMFILE_H
#define PHEAP_KILL_MEMFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEMFILE_COUNT 6u
#define MEMFILE_CAPACITY (1u << 20)
#define MEMFILE_PAGE 512u
#define MEMFILE_PAGES (MEMFILE_CAPACITY / MEMFILE_PAGE)

#define MEMFILE_UNNAMED UINT64_MAX
#define MEMFILE_ALL UINT64_MAX
#define MEMFILE_BLOCKS (MEMFILE_CAPACITY / 4096u)
/* What `written` is given, with n 0, when block i becomes a hole, or gets space: MEMFILE_SPACE | i << 1 | hole. */
#define MEMFILE_SPACE (1ull << 62)

struct memfile {
	char *bytes;   /* MEMFILE_CAPACITY of them */
	uint64_t size; /* of the file */
	bool named;
	uint64_t space; /* bytes the "disk" gives to this file; 0: no limit */
	/* Called before up to 8 bytes at off, or (n 0) the size, to `off`, change by a call, or the name goes (n 0,
	 * off MEMFILE_UNNAMED); may be NULL. */
	void (*written)(struct memfile *f, uint64_t off, uint64_t n);
	/* For those who cut the power; both may be NULL. Before the n bytes at off are written by a call that is to make
	 * them durable; and when [off, off + n), or with MEMFILE_ALL the file, is durable. */
	void (*writing)(struct memfile *f, uint64_t off, uint64_t n);
	void (*synced)(struct memfile *f, uint64_t off, uint64_t n);
	uint8_t holes[MEMFILE_BLOCKS]; /* blocks that were punched and have no space */
	uint64_t fault; /* 1 + where a store was made into one: a SIGBUS if the disk were full; 0: nowhere */
};

extern const struct ph_os memfile_os;

/* By the path "mem:I"; "mem:I+", "mem:I++" and so on are the same bytes and locks as other files to who opens them:
 * several members in one process. */
struct memfile *memfile_get(unsigned i);
/* Takes identity from the real file at path. 0 or -errno. */
int memfile_identity(const char *path);
void memfile_seed(uint64_t seed);
/* The n-th boot of the machine; 0 is the one of memfile_identity. */
void memfile_boot(uint32_t n);
/* Somebody who is attached and does nothing: holds the byte `off` shared. Returns a descriptor. */
int memfile_bystander(struct memfile *f, uint64_t off);
/* The process that has this descriptor is gone. */
void memfile_die(int fd);
/* As the death of all processes: locks and descriptors of this file are gone. */
void memfile_kill(struct memfile *f);
void memfile_clear(struct memfile *f);
/* The heap in it: all that may be stored to has space, and nothing has been stored where there was none. 0, or -1 with a sentence. */
int memfile_space_check(const struct memfile *f, char *why, size_t n);
/* A store to the mapping, which those who watch it report. */
static inline void memfile_stored(struct memfile *f, uint64_t off)
{
	if (off < MEMFILE_CAPACITY && f->holes[off / 4096] && !f->fault)
		f->fault = off + 1;
}
/* Called when a thread is to sleep; true: it was woken. May be NULL: then time passes. */
extern bool (*memfile_waits)(const uint32_t *word, uint32_t seen);

#endif
