/* SPDX-License-Identifier: MIT
 *
 * procs.h: what the parts of kill-procs share.
 */
#ifndef PHEAP_KILL_PROCS_H
#define PHEAP_KILL_PROCS_H

#include <stdint.h>
#include <sys/types.h>

#include "bank.h"

extern struct board *board;

/* 0 in the child, which dies with this process. */
pid_t procs_spawn(void);
/* Ephemeral heaps, by real processes that are stopped or killed at each step of opening and closing. max: of steps.
 * 0, or -1 with board->why. */
int ephemeral_part(const char *path, uint64_t max, uint64_t *ret_stops, uint64_t *ret_kills);

#endif
