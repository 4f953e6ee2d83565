/* SPDX-License-Identifier: MIT
 *
 * fill.h: what a system offers to the bench space: blocks by number, in transactions of up to FILL_BATCH.
 *
 * C and C++. A block is named by what its system likes: an offset, an address, a key; never 0.
 */
#ifndef BENCH_FILL_H
#define BENCH_FILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FILL_BATCH 100u /* blocks in one transaction */
#define FILL_BYTE 0x5a	/* what all of a block is set to: then it is in the file */

struct fill_system {
	const char *name;
	/* A new file. size: bytes of the heap, or, if it grows, how large it may get. NULL: not possible. */
	void *(*open)(const char *path, uint64_t size, bool grows);
	void (*close)(void *self);
	/* One transaction. False: there is no room, and nothing was allocated. Each block's first bytes are
	 * written, so that it is in the file. */
	bool (*alloc)(void *self, const uint32_t *sizes, uint64_t *ret_blocks, unsigned count);
	void (*release)(void *self, const uint64_t *blocks, unsigned count); /* one transaction */
	bool full;		  /* takes part in filling a heap of fixed size */
	void (*trim)(void *self); /* gives back to the file system what it can while open; NULL: it cannot */
};

#ifdef __cplusplus
extern "C" {
#endif
extern const struct fill_system fill_pheap, fill_pmemobj, fill_boost, fill_lmdb, fill_sqlite;
#ifdef __cplusplus
}
#endif

#endif
