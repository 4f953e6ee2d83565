/* SPDX-License-Identifier: MIT
 *
 * floor_log.h: the least undo log that survives SIGKILL.
 *
 * What it leaves out: allocator, locks, checks, more than one thread, recovery.
 * Why a file of its own: an undo log has more than one caller and takes more than one size. Inlined into
 * one loop it would be a special case of itself, and a compiler that sees all its sizes may copy with slow
 * string instructions.
 *
 * Invariants
 *   F1  The old bytes are in the log before `used` covers them; `used` covers them before the caller stores.
 *   F2  `used` returns to 0 after the last store: that is the commit.
 */
#ifndef BENCH_FLOOR_LOG_H
#define BENCH_FLOOR_LOG_H

#include <stddef.h>
#include <stdint.h>

struct floor_log {
	uint64_t used; /* bytes of records; 0: nothing in flight */
	uint64_t pad[7];
	char records[(1u << 20) - 64];
};

/* Log and data lie in one mapping, the log first. */
void *floor_modify(struct floor_log *log, void *p, size_t n);
void floor_commit(struct floor_log *log);

#endif
