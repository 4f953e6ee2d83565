/* SPDX-License-Identifier: MIT
 *
 * crew.h: the processes that use a heap while its disk is being cut: two with threads, and one that stirs.
 *
 * Why a stirrer: on an idle machine the kernel keeps dirty pages for seconds, and an order that nobody asked for comes out right
 * by chance. The stirrer has pages written early, at random, without a flush, and makes other files durable.
 *
 * Invariants
 *   C1  Everyone dies with the process that started the crew; only pids that were started here are killed.
 *   C2  The crew lives in one boot, whatever the machine says at the moment.
 */
#ifndef PHEAP_POWER_CREW_H
#define PHEAP_POWER_CREW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "deeds.h"

#define CREW_PROCESSES 2u

struct crew {
	struct deeds_plan *plan;
	struct deeds_board *board;
	char heap_path[256], noise_path[256];
	uint64_t random;
	pid_t pids[CREW_PROCESSES], stirrer; /* 0: none */
	uint64_t kills, closes;
};

/* The boot that a crew lives in. */
void crew_boot(const struct deeds_plan *p, uint8_t ret[16]);
void crew_start(struct crew *c);
/* Once in a while: starts whoever is gone; at random kills one or both, or lets all close the heap. 0, or -1 with board->why. */
int crew_tend(struct crew *c);
/* They stop where they are, and go on. */
void crew_freeze(const struct crew *c, bool frozen);
/* All go, killed or having closed the heap. 0, or -1 with board->why. */
int crew_end(struct crew *c);

#endif
