/* SPDX-License-Identifier: MIT
 *
 * trap.h: every store of code as it is shipped, by write protection and the processor's trap flag.
 *
 * What: the memory is read-only; a store faults, the page is opened for one instruction, and what that
 * instruction changed is reported after it. A `rep` copy counts each of its steps. Slower than runtime.h by
 * a factor of a hundred, but it sees what the optimizer made of the order notes.
 *
 * Invariants
 *   P1  One thread; nothing but it stores to the memory while the trap is on.
 */
#ifndef PHEAP_KILL_TRAP_H
#define PHEAP_KILL_TRAP_H

#include <stddef.h>
#include <stdint.h>

/* changed: off from memory's start, multiple of 8; the word there, already stored. */
void trap_on(char *memory, size_t size, void (*changed)(uint64_t off, uint64_t word));
void trap_off(void);

#endif
