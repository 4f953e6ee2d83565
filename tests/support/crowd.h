/* SPDX-License-Identifier: MIT
 *
 * crowd.h: what the tests of many processes share: a folder, children that die with the test, memory beside
 * the heap, results as TAP.
 *
 * Why not the support of the API tests: that one lives in Criterion, whose runner is a process of its own and
 * whose assertions belong to one thread; here most work is done by children that are killed on purpose.
 *
 * Invariants
 *   C1  A child started here is killed when the thread that started it ends, however that ends.
 *   C2  The folder goes when the last process that was started here is gone: a janitor waits for that.
 *   C3  A test that hangs fails after its limit; nothing else here depends on time.
 *   C4  Who finds something wrong says so by crowd_wrong, from any process; the next ok() reports it and
 *       fails.
 */
#ifndef TEST_CROWD_H
#define TEST_CROWD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pheap.h"

#define CROWD_KILLED 1009 /* crowd_wait of a process that died by SIGKILL */

/* Prints the title and the seed (PHEAP_TEST_SEED, or a fixed one); from now on limit_s seconds. */
void crowd_begin(const char *title, unsigned limit_s);
/* The plan and, unless all was good, 1: the program's exit status. */
int crowd_end(void);

/* One TAP line. Bad also when somebody said crowd_wrong since the last one. Returns whether it was good. */
bool ok(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));
void skip(const char *what, const char *why);
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Keeps the first complaint; 1, for `return crowd_wrong(...)` in a child. */
int crowd_wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool crowd_is_wrong(void);
/* Takes the complaint back and tells whether there was one: for variants that must be found wrong. */
bool crowd_wrong_taken(char *ret, size_t n);

/* In the test's own folder; four results stay valid at a time. */
const char *crowd_path(const char *name);
/* Zeroed memory that this process shares with the children it starts later. */
void *crowd_share(size_t n);

/* fn in a new process; what it returns is its exit status, at most 255. */
pid_t crowd_start(int (*fn)(void *arg), void *arg);
/* Exit status, or 1000 + the signal. */
int crowd_wait(pid_t pid);
/* SIGKILL, and what crowd_wait gives. */
int crowd_kill(pid_t pid);
int crowd_run(int (*fn)(void *arg), void *arg);
/* A namespace of its own for System V semaphores and segments, which goes with the process. False: not here. */
bool crowd_sysv_private(void);

/* Meetings: words in shared memory. crowd_await waits until *word >= value; after a complaint it ends the process
 * instead of waiting on. */
void crowd_set(uint32_t *word, uint32_t value);
void crowd_add(uint32_t *word);
void crowd_await(const uint32_t *word, uint32_t value);
void crowd_nap_us(uint64_t us);
uint64_t crowd_now_ns(void);
/* Until this process or thread sleeps in the kernel, or is dead. */
void crowd_await_asleep(pid_t tid);

uint64_t crowd_seed(void);
uint64_t crowd_random(uint64_t *state);
uint64_t crowd_below(uint64_t *state, uint64_t n);

/* Heaps: what fails is said by crowd_wrong, and the process ends; the first process of a test just fails. */
struct pheap_options crowd_options(void);
pheap *crowd_open(const char *path, uint32_t flags, const struct pheap_options *opt);
void crowd_close(pheap *h);
pheap_tx *crowd_tx(pheap *h, uint32_t flags);
void crowd_commit(pheap_tx *tx);
/* rc must be 0. */
void crowd_must(int rc, const char *what);
/* Committed blocks of a type. */
unsigned crowd_count(const pheap *h, uint32_t type);

#endif
