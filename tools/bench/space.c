/* SPDX-License-Identifier: MIT
 *
 * space.c: alloc-waste and memory: bytes instead of nanoseconds, of pheap alone.
 *
 * What: alloc-waste asks for each size from 16 to 1024 and compares with pheap_usable_size. memory opens
 * several heaps and starts several threads and divides what the process grew by, once by the library's
 * own account and once by the kernel's.
 * Why "Anonymous" and not "Private_Dirty" of the kernel's account: pages of the heap file that only this
 * process maps count as private there, though they are the file.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "pheap.h"

#define SIZE_MIN 16u
#define SIZE_MAX_ 1024u
#define HEAP_COUNT 8u
#define THREAD_COUNT 16u
#define HEAP_MAX (1u << 20) /* target: bytes of a heap */
#define THREAD_MAX 65536u   /* target: bytes of a thread */
#define WORK_COUNT 2000u    /* transactions of a heap or thread before it is measured */

/* Bytes of process memory of one heap and of one thread, by pheap_stats and by the kernel. */
struct memory {
	double heap_own, heap_kernel, thread_own, thread_kernel;
};

static void check(const char *call, int rc)
{
	if (rc)
		bench_die("%s: %s (%s)", call, pheap_strerror(rc), pheap_error_detail(NULL));
}

static pheap *heap_make(const char *folder, unsigned number)
{
	struct pheap_options options = PHEAP_OPTIONS_INIT;
	char path[4096];
	pheap *heap;

	snprintf(path, sizeof path, "%s/space-%u", folder, number);
	unlink(path);
	options.durability = PHEAP_PROCESS;
	options.initial_size = options.max_size = 64ull << 20;
	check("pheap_open", pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &options, &heap));
	unlink(path);
	return heap;
}

static void value_report(const struct bench_options *opt, const char *bench, const char *param,
			 const char *unit, double max, double value, unsigned threads)
{
	struct bench_target target = {.value_max = max};
	struct bench_result result = {.system = "pheap",
				      .value = value,
				      .min = value,
				      .max = value,
				      .instructions = -1,
				      .reps = 1,
				      .threads = threads};

	bench_report(opt, bench, param, unit, &target, &result, 1);
}

/* Allocates n bytes, committed; returns what the block holds. */
static size_t block_usable(pheap *heap, size_t n)
{
	pheap_tx *tx;
	const void *p;
	size_t usable;

	check("pheap_begin", pheap_begin(heap, 0, &tx));
	p = pheap_alloc(tx, n, 0);
	check("pheap_commit", pheap_commit(tx));
	usable = pheap_usable_size(heap, p);
	check("pheap_begin", pheap_begin(heap, 0, &tx));
	pheap_free(tx, p);
	check("pheap_commit", pheap_commit(tx));
	if (usable < n)
		bench_die("a block of %zu bytes holds %zu", n, usable);
	return usable;
}

void bench_alloc_waste(const struct bench_options *opt)
{
	pheap *heap = heap_make(opt->folder, 0);
	double asked = 0, held = 0, worst = 0, worst_class = 0;

	for (size_t n = SIZE_MIN; n <= SIZE_MAX_; n++) {
		size_t usable = block_usable(heap, n), whole = (n + 7) & ~(size_t)7;
		double waste = 100. * (double)(usable - n) / (double)usable;
		double class_waste = usable > whole ? 100. * (double)(usable - whole) / (double)usable : 0;

		asked += (double)n;
		held += (double)usable;
		worst = waste > worst ? waste : worst;
		worst_class = class_waste > worst_class ? class_waste : worst_class;
	}
	check("pheap_close", pheap_close(heap));
	value_report(opt, "alloc-waste", "aggregate-percent", "%", 12.5, 100 * (held - asked) / held, 1);
	/* the third leaves out what rounding to whole words costs, up to 7 bytes: every allocator pays it */
	value_report(opt, "alloc-waste", "size-max-percent", "%", 0, worst, 1);
	value_report(opt, "alloc-waste", "class-max-percent", "%", 12.5, worst_class, 1);
}

static double anonymous_size(void)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long kib, sum = 0;
	char line[512];

	if (!file)
		bench_die("/proc/self/smaps cannot be read");
	while (fgets(line, sizeof line, file))
		if (sscanf(line, "Anonymous: %lu kB", &kib) == 1)
			sum += kib;
	fclose(file);
	return 1024. * (double)sum;
}

static double private_size(pheap *heap)
{
	struct pheap_stats stats = {0};

	check("pheap_stats", pheap_stats(heap, &stats, sizeof stats));
	return (double)stats.private_size;
}

/* Transactions of all kinds: blocks of 64 sizes and 4 types, half of them freed, words changed. */
static void heap_work(pheap *heap, uint64_t seed)
{
	uint64_t rng = seed;

	for (unsigned i = 0; i < WORK_COUNT; i++) {
		uint64_t r = bench_random(&rng);
		pheap_tx *tx;
		uint64_t *p;

		check("pheap_begin", pheap_begin(heap, 0, &tx));
		p = pheap_alloc(tx, 16 * (r % 64 + 1), (uint32_t)(r >> 32) % 4);
		if (p)
			*p = r;
		check("pheap_commit", pheap_commit(tx));
		check("pheap_begin", pheap_begin(heap, 0, &tx));
		p = pheap_modify(tx, p, sizeof *p);
		if (p)
			*p = i;
		if (i % 2)
			pheap_free(tx, p);
		check("pheap_commit", pheap_commit(tx));
	}
}

static struct {
	pthread_barrier_t started, worked, measured;
	pheap *heap;
	uint64_t begin_count;
} team;

static void *team_member(void *arg)
{
	uint64_t number = __atomic_add_fetch(&team.begin_count, 1, __ATOMIC_RELAXED);

	(void)arg;
	pthread_barrier_wait(&team.started);
	pthread_barrier_wait(&team.measured); /* idle threads were measured */
	heap_work(team.heap, BENCH_SEED + number);
	pthread_barrier_wait(&team.worked);
	pthread_barrier_wait(&team.measured);
	return NULL;
}

static void threads_measure(pheap *heap, struct memory *ret)
{
	pthread_t threads[THREAD_COUNT];

	team.heap = heap;
	pthread_barrier_init(&team.started, NULL, THREAD_COUNT + 1);
	pthread_barrier_init(&team.worked, NULL, THREAD_COUNT + 1);
	pthread_barrier_init(&team.measured, NULL, THREAD_COUNT + 1);
	for (unsigned i = 0; i < THREAD_COUNT; i++)
		if (pthread_create(&threads[i], NULL, team_member, NULL))
			bench_die("pthread_create failed");
	pthread_barrier_wait(&team.started);
	ret->thread_kernel = anonymous_size();
	ret->thread_own = private_size(heap);
	pthread_barrier_wait(&team.measured);
	pthread_barrier_wait(&team.worked);
	ret->thread_kernel = (anonymous_size() - ret->thread_kernel) / THREAD_COUNT;
	ret->thread_own = (private_size(heap) - ret->thread_own) / THREAD_COUNT;
	pthread_barrier_wait(&team.measured);
	for (unsigned i = 0; i < THREAD_COUNT; i++)
		pthread_join(threads[i], NULL);
}

int bench_memory_self(const char *folder, int fd)
{
	pheap *heaps[HEAP_COUNT + 1];
	struct memory memory = {0};

	/* a first heap pays for what belongs to the process and not to a heap */
	heaps[0] = heap_make(folder, 0);
	heap_work(heaps[0], BENCH_SEED);
	memory.heap_kernel = anonymous_size();
	for (unsigned i = 1; i <= HEAP_COUNT; i++) {
		heaps[i] = heap_make(folder, i);
		heap_work(heaps[i], BENCH_SEED + i);
	}
	memory.heap_kernel = (anonymous_size() - memory.heap_kernel) / HEAP_COUNT;
	for (unsigned i = 1; i <= HEAP_COUNT; i++)
		memory.heap_own += private_size(heaps[i]) / HEAP_COUNT;
	threads_measure(heaps[0], &memory);
	for (unsigned i = 0; i <= HEAP_COUNT; i++)
		check("pheap_close", pheap_close(heaps[i]));
	return write(fd, &memory, sizeof(memory)) != sizeof(memory);
}

void bench_memory(const struct bench_options *opt)
{
	const char *args[4] = {"memory", opt->folder, "", ""};
	struct memory m;

	/* in a process of its own: memory that earlier benches freed would be used again and not be seen */
	if (bench_self_run(args, &m, sizeof(m)))
		bench_die("memory: measuring failed");
	value_report(opt, "memory", "heap-stats-bytes", "bytes", HEAP_MAX, m.heap_own, 1);
	value_report(opt, "memory", "heap-smaps-bytes", "bytes", HEAP_MAX, m.heap_kernel, 1);
	value_report(opt, "memory", "thread-stats-bytes", "bytes", THREAD_MAX, m.thread_own, THREAD_COUNT);
	value_report(opt, "memory", "thread-smaps-bytes", "bytes", THREAD_MAX, m.thread_kernel, THREAD_COUNT);
}
