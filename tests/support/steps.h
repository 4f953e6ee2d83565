/* SPDX-License-Identifier: MIT
 *
 * steps.h: a process that dies at a chosen place: after its k-th store, or after its k-th instruction.
 *
 * What: two counters in the dying process itself. steps_arm counts the stores to a piece of memory, by write
 * protection and single steps (fuzz/kill/trap.h): it works on any memory and on the library as it is
 * installed. steps_arm_instructions counts all instructions, by the processor's trap flag.
 * Why aimed: a kill from outside lands in a transaction in few of a hundred cases. Why not ptrace: it costs
 * twenty times as much for each step, and is forbidden in many containers.
 */
#ifndef TEST_STEPS_H
#define TEST_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pheap.h"

/* False: this processor has no trap flag that is known here; the others then do nothing. */
bool steps_possible(void);
/* The k-th store of this process to [memory, memory + n) from now on is the last thing it does; k 0: it is
 * gone at once. One thread. */
void steps_arm(void *memory, size_t n, uint64_t k);
/* The same for all of an open heap, which must not grow meanwhile. */
void steps_arm_heap(pheap *h, uint64_t k);
void steps_disarm(void);
/* After arming: at its k-th store it stops, by SIGSTOP, until somebody lets it go on. */
void steps_stop(uint64_t k);
/* Stores since it was armed. */
uint64_t steps_count(void);

/* The k-th instruction of this thread from about now on is its last. */
void steps_arm_instructions(uint64_t k);
void steps_disarm_instructions(void);

#endif
