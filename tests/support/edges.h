/* SPDX-License-Identifier: MIT
 *
 * edges.h: something happens at the k-th edge of the library's system calls: before one, or after it.
 *
 * What: a table of os.h in front of the real one. At the edge that was asked for a function of the test runs:
 * it may kill the process, or stop it for a while and so hold a door open that is never open for long.
 * Why edges and not instructions: opening and closing are rows of system calls; what is between two of them
 * nobody else can see.
 *
 * Invariant
 *   G1  One thread makes calls while edges are counted.
 */
#ifndef TEST_EDGES_H
#define TEST_EDGES_H

#include <stdint.h>

/* For the rest of this process. k 1 is the next edge; 0: none. */
void edges_arm(uint64_t k, void (*fn)(void));
/* Since edges_arm. */
uint64_t edges_count(void);
/* For edges_arm: SIGKILL. */
void edges_die(void);

#endif
