/* SPDX-License-Identifier: MIT
 *
 * floor_log.h: the least undo log, and redo log, that survives SIGKILL.
 *
 * What it leaves out: allocator, locks, checks, more than one thread, recovery.
 * Why a file of its own: an undo log has more than one caller and takes more than one size. Inlined into
 * one loop it would be a special case of itself, and a compiler that sees all its sizes may copy with slow
 * string instructions.
 *
 * Invariants
 *   F1  The old bytes are in the log before `used` covers them; `used` covers them before the caller stores.
 *   F2  `used` returns to 0 after the last store: that is the commit.
 *   F3  A redo log is the other way round: records are complete before `ready` counts them, which is the commit;
 *       `ready` returns to 0 after the last store. A transaction uses one of the two.
 */
#ifndef BENCH_FLOOR_LOG_H
#define BENCH_FLOOR_LOG_H

#include <stddef.h>
#include <stdint.h>

struct floor_log {
	uint64_t used;	   /* bytes of records; 0: nothing in flight */
	uint64_t deferred; /* bytes of redo records so far */
	uint64_t ready;	   /* bytes of redo records that are committed and not all stored yet */
	uint64_t pad[5];
	char records[(1u << 20) - 64];
};

/* Log and data lie in one mapping, the log first. */
void *floor_modify(struct floor_log *log, void *p, size_t n);
void floor_commit(struct floor_log *log);
void floor_defer(struct floor_log *log, void *p, const void *src, size_t n);
void floor_defer_commit(struct floor_log *log);

#endif
