/* SPDX-License-Identifier: MIT
 *
 * sync.h: sync-commit: records of 64 bytes, updated by number, durable when the update returns.
 *
 * What: a sync_system is one way to do that; a sync_plan is who updates how much at once. All systems draw
 * the same updates in the same manner.
 *
 * Invariants
 *   V1  When update returns, the update is durable; with ticket_count, when drain has returned.
 *   V2  Nothing is left out that a program would have to do: updates of other threads and processes are
 *       isolated from each other.
 */
#ifndef BENCH_SYNC_H
#define BENCH_SYNC_H

#include "bench.h"

#define SYNC_RANGE_MAX 16u

struct sync_plan {
	const char *param;
	unsigned range_count; /* records that an update changes */
	unsigned process_count, thread_count;
	unsigned ticket_count; /* updates of a thread that may be on their way; 0: none */
	uint64_t record_count; /* below 2^32 */
	bool cold;	       /* turns begin without what a system does once for each page, now and then */
};

struct sync_update {
	uint64_t records[SYNC_RANGE_MAX]; /* ascending, all different */
	unsigned count;
	uint64_t words[BENCH_RECORD_SIZE / 8]; /* the new record */
};

struct sync_system {
	const char *name;
	bool one_process; /* at a time: the plan's threads are in one */
	/* A new store, all records zero, in a process that ends afterwards. path: of a file in a folder of its
	 * own. NULL, or why there is none. */
	const char *(*make)(const char *path, const struct sync_plan *plan);
	void *(*join)(const char *path, const struct sync_plan *plan);
	void *(*enter)(void *self); /* in each thread: what update is given; NULL: self */
	void (*update)(void *self, const struct sync_update *u);
	void (*drain)(void *self); /* NULL: not needed */
};
extern const struct sync_system sync_pheap, sync_limit, sync_sqlite, sync_lmdb, sync_pmemobj, sync_bdb,
	sync_bdb_queue;

#endif
