/* SPDX-License-Identifier: MIT
 *
 * attach.c: attach: pheap_open and pheap_close of a heap that other processes have open.
 *
 * What: `1`, `31` and `255`: so many others are attached; one process opens and closes again and again.
 * `1-first`: each time a new process, in which the library has done nothing yet.
 * Why in children: the program itself opens no heap before it forks.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "pheap.h"

#define MEMBER_COUNT 256u
#define HEAP_SIZE (64ull << 20)
#define SAMPLE_COUNT 1000u
#define FIRST_COUNT 100u
#define ANSWER_NS 60000000000ull

struct shared {
	uint32_t attached;
	double ns[SAMPLE_COUNT];
};

static pheap *heap_open(const char *path, uint32_t flags, const struct pheap_options *opt)
{
	pheap *heap;
	int rc = pheap_open(path, flags, opt, &heap);

	if (rc)
		bench_die("pheap_open: %s (%s)", pheap_strerror(rc), pheap_error_detail(NULL));
	return heap;
}

static void heap_close(pheap *heap)
{
	int rc = pheap_close(heap);

	if (rc)
		bench_die("pheap_close: %s (%s)", pheap_strerror(rc), pheap_error_detail(NULL));
}

static void samples_take(const char *path, double *ns, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct bench_span span;

		bench_span_begin(&span);
		heap_close(heap_open(path, 0, NULL));
		ns[i] = (double)bench_span_end_ns(&span);
	}
}

static void heap_make(const char *path)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;

	opt.initial_size = opt.max_size = HEAP_SIZE;
	opt.durability = PHEAP_PROCESS;
	opt.member_count = MEMBER_COUNT;
	opt.lane_count = 1024;
	heap_close(heap_open(path, PHEAP_CREATE | PHEAP_EXCL, &opt));
}

/* A member that has worked once and then waits for its end. */
static _Noreturn void member(const char *path, struct shared *shared)
{
	pheap *heap = heap_open(path, 0, NULL);
	pheap_tx *tx;

	if (pheap_begin(heap, PHEAP_CONCURRENT, &tx) || pheap_commit(tx))
		bench_die("attach: a transaction failed");
	__atomic_add_fetch(&shared->attached, 1, __ATOMIC_RELEASE);
	for (;;)
		pause();
}

static void members_start(const char *path, struct shared *shared, pid_t *pids, unsigned from, unsigned to)
{
	uint64_t start_ns = bench_clock_ns(CLOCK_MONOTONIC);

	for (unsigned i = from; i < to; i++) {
		pids[i] = bench_fork();
		if (!pids[i])
			member(path, shared);
	}
	while (__atomic_load_n(&shared->attached, __ATOMIC_ACQUIRE) < to) {
		if (bench_clock_ns(CLOCK_MONOTONIC) - start_ns > ANSWER_NS)
			bench_die("attach: only %u members attached", shared->attached);
		usleep(1000);
	}
}

/* In one process all samples, or in new ones a sample each. */
static void measure(const struct bench_options *opt, const char *path, struct shared *shared,
		    const char *param, unsigned process_count)
{
	static const struct bench_target no_target, target = {.value_max = 100000};
	struct bench_result result = {.system = "pheap", .threads = 1, .instructions = -1};
	const unsigned count = process_count > 1 ? process_count : SAMPLE_COUNT;

	for (unsigned i = 0; i < process_count; i++) {
		pid_t pid = bench_fork();

		if (!pid) {
			samples_take(path, &shared->ns[i], count / process_count);
			_exit(0);
		}
		bench_wait_ok(pid, "attach");
	}
	bench_summarize(shared->ns, count, &result); /* sorts */
	result.p90 = shared->ns[count * 9 / 10];
	result.p99 = shared->ns[count * 99 / 100];
	bench_report(opt, "attach", param, NULL, process_count > 1 ? &no_target : &target, &result, 1);
}

void bench_attach(const struct bench_options *opt)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
	struct shared *shared = mmap(NULL, sizeof *shared, prot, flags, -1, 0);
	pid_t pids[MEMBER_COUNT], pid;
	char path[4096];

	if (shared == MAP_FAILED)
		bench_die("mmap: %s", strerror(errno));
	snprintf(path, sizeof path, "%s/attach", opt->folder);
	pid = bench_fork();
	if (!pid) {
		heap_make(path);
		_exit(0);
	}
	bench_wait_ok(pid, "attach");
	members_start(path, shared, pids, 0, 1);
	measure(opt, path, shared, "1", 1);
	measure(opt, path, shared, "1-first", FIRST_COUNT);
	members_start(path, shared, pids, 1, 31);
	measure(opt, path, shared, "31", 1);
	members_start(path, shared, pids, 31, MEMBER_COUNT - 1);
	measure(opt, path, shared, "255", 1);
	for (unsigned i = 0; i < MEMBER_COUNT - 1; i++)
		bench_kill(pids[i]);
	munmap(shared, sizeof *shared);
	unlink(path);
}
