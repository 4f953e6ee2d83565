/* SPDX-License-Identifier: MIT
 *
 * support.h: what the tests of the public header share: a folder per test, child processes, threads, files
 * to damage.
 *
 * Why a janitor process and not an exit handler: tests are killed and abort on purpose; the folder must go
 * away all the same.
 *
 * Invariants
 *   T1  Only the thread that Criterion calls uses cr_* macros; children and threads report by return value.
 *   T2  A child started here dies with the test.
 */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "layout.h"
#include "pheap.h"

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

/* For the test's own thread. The code that failed is the best first line of a report. */
#define OK(call) \
	do { \
		int ok_rc_ = (call); \
		cr_assert(ok_rc_ == 0, "%s: %d: %s (open: %s)", #call, ok_rc_, pheap_strerror(ok_rc_), \
			  pheap_error_detail(NULL)); \
	} while (0)
#define GIVES(want, call) \
	do { \
		int gives_rc_ = (call); \
		cr_assert(gives_rc_ == (want), "%s: %d (%s), expected %d", #call, gives_rc_, \
			  pheap_strerror(gives_rc_), (int)(want)); \
	} while (0)
/* For children and threads: leaves the function with a line on stderr and a nonzero value. */
#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			return 99; \
		} \
	} while (0)

/* A name in this test's own folder; four results stay valid at a time. */
const char *scratch(const char *name);

/* Opens scratch("heap"): create if missing. The options default to PROCESS and 64 MiB. */
uint32_t test_durability(void); /* PHEAP_PROCESS, or what PHEAP_TEST_DURABILITY says */
struct pheap_options test_options(void);
pheap *heap_make(void);
pheap *heap_make_with(const struct pheap_options *opt);
pheap *heap_reopen(pheap *h); /* close, open again */
void heap_drop(pheap *h);     /* close, must succeed */

/* Transactions that must work. */
pheap_tx *begin(pheap *h, uint32_t flags);
void commit(pheap_tx *tx);
struct pheap_info info_of(const pheap *h);
struct pheap_stats stats_of(pheap *h);

/* A committed, zeroed block of n bytes, and its bytes from then on. */
unsigned char *block_make(pheap *h, size_t n, uint32_t type);

/* Processes. child_wait: exit status, or 1000 + signal. */
pid_t child_start(int (*fn)(void *arg), void *arg);
int child_wait(pid_t pid);
int child_run(int (*fn)(void *arg), void *arg);
void child_kill(pid_t pid); /* SIGKILL and wait */
/* Runs fn in a child that must abort with a line of the library on stderr. */
bool child_aborts(int (*fn)(void *arg), void *arg, char *ret_text, size_t n);

/* Runs fn in another thread of this process. */
int thread_run(int (*fn)(void *arg), void *arg);
pthread_t thread_start(int (*fn)(void *arg), void *arg);
int thread_join(pthread_t thread);

/* Memory that a test shares with its children. */
void *shared_make(size_t n);
/* A meeting of processes or threads: waits until *word >= value, without a time limit of its own. */
void flag_set(uint32_t *word, uint32_t value);
void flag_add(uint32_t *word); /* 1 */
void flag_wait(const uint32_t *word, uint32_t value);
/* Until thread or process `tid` of this machine sleeps in the kernel: it has come to its wait. */
void thread_wait_asleep(pid_t tid);

/* Files. */
void file_copy(const char *from, const char *to);
void file_write(const char *path, uint64_t off, const void *bytes, size_t n);
void file_read(const char *path, uint64_t off, void *bytes, size_t n);
void file_fill(const char *path, size_t n, uint64_t seed); /* seed 0: zeros */
uint64_t file_hash(const char *path);
struct phd_super file_super(const char *path);
/* Edits both copies and seals them again with a right checksum. */
void file_edit_super(const char *path, void (*edit)(struct phd_super *super));
void file_edit_state(const char *path, void (*edit)(struct phd_state *state));

/* Random numbers from a seed that is printed on failure: splitmix64. */
uint64_t random_next(uint64_t *state);
uint64_t random_seed(void); /* PHEAP_TEST_SEED, or a fixed one */

/* Byte i of a pattern. */
static inline unsigned char pattern(uint64_t salt, size_t i)
{
	return (unsigned char)((salt * 31 + i * 7 + (i >> 8) * 13 + 1) & 0xff);
}

static inline void pattern_fill(void *p, size_t n, uint64_t salt)
{
	unsigned char *bytes = p;

	for (size_t i = 0; i < n; i++)
		bytes[i] = pattern(salt, i);
}

static inline bool pattern_is(const void *p, size_t n, uint64_t salt)
{
	const unsigned char *bytes = p;

	for (size_t i = 0; i < n; i++)
		if (bytes[i] != pattern(salt, i))
			return false;
	return true;
}

static inline bool bytes_are(const void *p, size_t n, unsigned char byte)
{
	const unsigned char *bytes = p;

	for (size_t i = 0; i < n; i++)
		if (bytes[i] != byte)
			return false;
	return true;
}

#endif
