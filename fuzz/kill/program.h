/* SPDX-License-Identifier: MIT
 *
 * program.h: what the harnesses' programs do alike at their edges: words of the command line, time, signals.
 */
#ifndef PHEAP_KILL_PROGRAM_H
#define PHEAP_KILL_PROGRAM_H

#include <stdint.h>

/* What program_misused tells. */
void program_usage(const char *usage);
/* Tells it and exits with 2. */
_Noreturn void program_misused(void);
/* A number of the command line. */
uint64_t program_number(const char *text);

uint64_t program_now_ms(void);

/* on_crash is called with each signal by which a program ends when it is wrong, or too slow for its alarm. It exits with
 * 3: a violation. */
void program_crashes_to(void (*on_crash)(int signal));

#endif
