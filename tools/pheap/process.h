/* SPDX-License-Identifier: MIT
 *
 * process.h: time, and other processes by something better than their number.
 *
 * Why pidfds: a pid can be given to another process between the look and the signal. Kernels before 5.3 have
 * none; what needs one then does without.
 */
#ifndef PHEAP_PROCESS_H
#define PHEAP_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull
#define NS_NEVER UINT64_MAX

uint64_t clock_ns(void);
/* Milliseconds from now to that time, for poll: rounded up, -1 for NS_NEVER. */
int clock_left_ms(uint64_t at_ns);
/* A number of seconds, 0 or more, with a fraction if wanted; "inf" is NS_NEVER. False: not one. */
bool seconds_parse(const char *text, uint64_t *ret_ns);

/* What /proc/PID/stat says. False: no such process, or it cannot be read. */
bool process_stat(pid_t pid, pid_t *ret_parent, uint64_t *ret_start_ticks);
/* A pidfd of that process, if it is the one that began then and is in our pid namespace; else -1. */
int process_watch(pid_t pid, uint64_t start_ticks);
/* Sends a signal to every process below this one, except `spared` (0: nobody). Returns how many there
 * were. */
unsigned descendants_signal(int signal, pid_t spared);

#endif
