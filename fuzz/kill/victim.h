/* SPDX-License-Identifier: MIT
 *
 * victim.h: a process that kills itself at its k-th step. A step is a store to the heap, or the edge of a
 * system call.
 *
 * What: the real table of os.h wrapped so that each call counts before and after it, and the stores of
 * runtime.h.
 * Why self-inflicted: a kill from outside lands in a transaction in few of a hundred cases, and never twice
 * at the same place.
 */
#ifndef PHEAP_KILL_VICTIM_H
#define PHEAP_KILL_VICTIM_H

#include <stdint.h>

/* Puts the counting table in place, which syncs nothing; nothing counts yet. */
void victim_install(void);
/* From now on the k-th step (1 is the next) is the last thing this process does. 0: never. */
void victim_arm(uint64_t k);
/* At its k-th edge of a system call it is stopped (SIGSTOP), for as long as the parent likes. */
void victim_arm_stop(uint64_t k);
uint64_t victim_steps(void); /* since it was armed */

#endif
