/* SPDX-License-Identifier: MIT
 *
 * lock.c: lock-unlock: what one lock that nobody else wants adds to a concurrent transaction.
 *
 * What: transactions with no lock, one lock, and LOCK_COUNT locks of different keys, one call each; the
 * difference to those with none, divided by the locks. The limit is a plain process-shared mutex, locked
 * and unlocked, or LOCK_COUNT of them all locked, then all unlocked.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "pheap.h"

#define LOCK_COUNT 64u
#define HEAP_SIZE (257ull << 20) /* from 256 MiB on a heap has 4096 stripes: few of the keys share one */

struct line {
	pthread_mutex_t mutex;
} __attribute__((aligned(64)));

static void heap_loop(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	pheap *heap = self;

	(void)rng;
	for (uint64_t i = 0; i < op_count; i++) {
		pheap_tx *tx;
		int rc = pheap_begin(heap, PHEAP_CONCURRENT, &tx);

		if (rc)
			bench_die("pheap_begin: %s", pheap_strerror(rc));
		for (uint64_t key = 0; key < param && !rc; key++)
			rc = pheap_lock(tx, &key, 1);
		rc = pheap_commit(tx);
		if (rc)
			bench_die("pheap_commit: %s", pheap_strerror(rc));
	}
}

static void mutex_loop(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct line *lines = self;

	(void)rng;
	for (uint64_t i = 0; i < op_count; i++) {
		for (unsigned j = 0; j < param; j++)
			pthread_mutex_lock(&lines[j].mutex);
		for (unsigned j = 0; j < param; j++)
			pthread_mutex_unlock(&lines[j].mutex);
	}
}

static void *heap_make(const void *arg)
{
	const struct bench_options *opt = arg;
	struct pheap_options options = PHEAP_OPTIONS_INIT;
	char path[4096];
	pheap *heap;
	int rc;

	snprintf(path, sizeof path, "%s/lock", opt->folder);
	unlink(path);
	options.initial_size = options.max_size = HEAP_SIZE;
	options.durability = PHEAP_PROCESS;
	rc = pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &options, &heap);
	if (rc)
		bench_die("pheap_open: %s (%s)", pheap_strerror(rc), pheap_error_detail(NULL));
	unlink(path);
	return heap;
}

static void *mutexes_make(const void *arg)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
	struct line *lines = mmap(NULL, LOCK_COUNT * sizeof *lines, prot, flags, -1, 0);
	pthread_mutexattr_t attr;

	(void)arg;
	if (lines == MAP_FAILED)
		bench_die("mmap: %s", strerror(errno));
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	for (unsigned i = 0; i < LOCK_COUNT; i++)
		pthread_mutex_init(&lines[i].mutex, &attr);
	return lines;
}

/* The rows of both systems take turns. */
enum { NONE, ONE, MANY, MUTEX_ONE, MUTEX_MANY, LOOP_COUNT };

static const struct {
	bench_loop *loop;
	void *(*make)(const void *arg);
	unsigned lock_count;
} loops[LOOP_COUNT] = {
	[NONE] = {heap_loop, heap_make, 0},
	[ONE] = {heap_loop, heap_make, 1},
	[MANY] = {heap_loop, heap_make, LOCK_COUNT},
	[MUTEX_ONE] = {mutex_loop, mutexes_make, 1},
	[MUTEX_MANY] = {mutex_loop, mutexes_make, LOCK_COUNT},
};

static double ns[LOOP_COUNT][BENCH_REP_MAX], steps[LOOP_COUNT];

/* Of `loop` without `base`, for one lock. */
static double marginal(const double *loop, const double *base, unsigned lock_count)
{
	return (*loop - (base ? *base : 0)) / lock_count;
}

static void pair_report(const struct bench_options *opt, int heap_loop_idx, int mutex_loop_idx)
{
	static const struct bench_target target = {.limit_ratio_max = 1.3};
	const unsigned count = loops[heap_loop_idx].lock_count;
	static double heap_ns[BENCH_REP_MAX], mutex_ns[BENCH_REP_MAX];
	struct bench_result results[2] = {{.system = "pheap", .threads = 1},
					  {.system = "limit", .threads = 1}};
	char param[16];

	for (unsigned i = 0; i < opt->reps; i++) {
		heap_ns[i] = marginal(&ns[heap_loop_idx][i], &ns[NONE][i], count);
		mutex_ns[i] = marginal(&ns[mutex_loop_idx][i], NULL, count);
	}
	bench_summarize(heap_ns, opt->reps, &results[0]);
	bench_summarize(mutex_ns, opt->reps, &results[1]);
	results[0].instructions = results[1].instructions = -1;
	if (steps[NONE] > 0) {
		results[0].instructions = marginal(&steps[heap_loop_idx], &steps[NONE], count);
		results[1].instructions = marginal(&steps[mutex_loop_idx], NULL, count);
	}
	snprintf(param, sizeof param, "%u", count);
	bench_report(opt, "lock-unlock", param, NULL, &target, results, 2);
}

static void lock_run(const struct bench_options *opt)
{
	void *heap = heap_make(opt), *mutexes = mutexes_make(NULL);
	struct bench_meter meters[LOOP_COUNT] = {0};
	double instructions;

	for (unsigned i = 0; i < LOOP_COUNT; i++) {
		meters[i].loop = loops[i].loop;
		meters[i].self = loops[i].make == heap_make ? heap : mutexes;
		meters[i].param = loops[i].lock_count;
		bench_calibrate(&meters[i], opt->quick ? 2000000 : 5000000);
	}
	for (unsigned rep = 0; rep < opt->reps; rep++)
		for (unsigned i = 0; i < LOOP_COUNT; i++) {
			unsigned turn = (i + rep) % LOOP_COUNT;

			ns[turn][rep] = bench_sample_ns(&meters[turn], &instructions);
		}
	if (pheap_close(heap))
		bench_die("pheap_close: %s", pheap_error_detail(NULL));
	munmap(mutexes, LOCK_COUNT * sizeof(struct line));
}

void bench_lock_unlock(const struct bench_options *opt)
{
	/* in children, before a heap is open here */
	for (unsigned i = 0; i < LOOP_COUNT; i++) {
		const struct bench_steps s = {loops[i].make, opt, loops[i].loop, loops[i].lock_count};

		steps[i] = bench_step_count(&s, opt->quick);
	}
	lock_run(opt);
	pair_report(opt, ONE, MUTEX_ONE);
	pair_report(opt, MANY, MUTEX_MANY);
}
