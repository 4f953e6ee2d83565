/* SPDX-License-Identifier: MIT
 *
 * report.h: the page on which a process that loads keeps its counters for whoever watches it; no code.
 *
 * What: `pheap-kv load --report FILE` maps FILE and stores here; so does each process of `--processes` in
 * memory that it shares with its parent.
 * Why memory and not lines in a pipe: what a process stored before SIGKILL can be read after it, and a watcher
 * learns of the pause after a kill to the microsecond.
 * Why outside of the heap: this is what somebody was told of commits, and the heap is what is checked by it.
 *
 * Invariant
 *   R1  done is at most the transactions that this process committed, and for each of its threads at most one
 *       less: it is raised after the commit, and the process can be killed between.
 *
 * All fields are stored and loaded whole (relaxed); the watcher stores to the second group.
 */
#ifndef KV_REPORT_H
#define KV_REPORT_H

#include <stdint.h>

#define KV_THREAD_MAX 64u

enum kv_report_state {
	KV_STARTING, /* opening the heap, or not even that */
	KV_LOADING,
	KV_STALLED, /* stands still inside a transaction */
	KV_ENDED,
};

/* One thread, while the watch that began at watch_ns lasts. */
struct kv_report_thread {
	uint64_t watch_ns;
	uint64_t first_ns;  /* from then to its first commit */
	uint64_t pause_ns;  /* longest stretch without a commit since then */
	uint64_t commit_ns; /* its latest commit */
	uint64_t reserved[4];
};

struct kv_report {
	uint64_t state; /* enum kv_report_state */
	uint64_t done;
	uint64_t thread_count;
	uint64_t record_count; /* in the whole heap, a few ms ago */
	/* what this process recovered of others: when it opened the heap, and since then */
	uint64_t open_undone_count, open_completed_count, open_recovery_ns;
	uint64_t undone_count, completed_count, recovery_ns;
	uint64_t reserved[6];

	uint64_t watch_ns; /* CLOCK_MONOTONIC: pauses count from here on; 0: they do not */
	uint64_t stall;	   /* 1, 2: stand still before, after the last store of the next transaction */
	uint64_t reserved_too[6];

	struct kv_report_thread threads[KV_THREAD_MAX];
};

#endif
