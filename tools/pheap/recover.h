/* SPDX-License-Identifier: MIT
 *
 * recover.h: recovers a heap whose members died, for those who wait for a death: `pheap run` and
 * `pheap watch`.
 *
 * Why in a child process: opening may wait for a process that stands still, and a file that somebody cuts
 * short kills whoever has it mapped. The caller goes on forwarding signals meanwhile, and a child that dies
 * is as good as any other dead recoverer.
 * Why attached only as long as that: a guard that stayed would keep an ephemeral heap alive and any heap
 * from being closed cleanly.
 *
 * Invariants
 *   V1  A heap with nothing to recover is not opened, so not written either.
 *   V2  Everything here is what the next process to open the heap would do; nobody has to call it.
 */
#ifndef PHEAP_RECOVER_H
#define PHEAP_RECOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

#include "members.h"

/* How the child ends: the files were whole and everything is recovered, or not. */
#define RECOVER_DONE 0
#define RECOVER_FAILED 1

/*
 * Starts a child that recovers the heaps in turn: one line on `out` (a descriptor) for each member found
 * dead, or one on standard error that says why it cannot be done. A file that is not there is passed over in
 * silence. Lines begin with `prefix`, or with the time if that is NULL. `seen` (or NULL): the members of the
 * only heap as the caller found them; each dead one of them gets its line, also if somebody else has
 * recovered it since. Returns the child's pid, or -1 with errno.
 */
pid_t recover_start(const char *const *paths, size_t count, const struct members *seen, int out,
		    const char *prefix);

/* "FILE: pid 12 (worker), attachment 3", behind the prefix or the time; v NULL: "FILE: ". */
void recover_line_begin(FILE *out, const char *path, const struct member_view *v, const char *prefix);

#endif
