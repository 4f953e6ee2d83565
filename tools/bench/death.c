/* SPDX-License-Identifier: MIT
 *
 * death.c: death-latency: how long a lock stays with an owner that was killed.
 *
 * What: an owner has touched some memory of the heap and holds a key's lock in a transaction; a waiter
 * wants the lock; the owner is killed. `free-...`: from SIGKILL until the owner's slot byte is free, that
 * is until the kernel has torn its mapping down. `take-...`: from there until the waiter holds the lock,
 * the owner's transaction undone.
 * Why a third process watches: the moment between the two is seen from outside, by asking for the byte
 * through a descriptor of its own.
 * What shortens the first: fewer touched pages (the kernel unmaps one by one), or larger ones: 1 GiB takes
 * some 20 ms in pages of 4 KiB and less than 1 ms in huge pages (`huge`, a tmpfs mounted huge=always), and
 * about half where a disk's page cache has large folios.
 *
 * Invariants
 *   D1  Both figures are upper bounds: the first ends when the byte was first seen free, the second begins
 *       when it was last seen held.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "heap_use.h"

#define SLOT_BYTE ((1ull << 62) + 16) /* of the first member: FORMAT.md */
#define MEMBER_COUNT 16u
#define KEY 1u
#define WORD_COUNT 8u /* that the owner has changed */
#define POLL_NS 10000
#define SETTLE_NS 2000000u /* the waiter waits for this long at least, and up to twice as long */
#define ANSWER_NS 60000000000ull
#define SAMPLE_MAX 400u

/* Between watcher, owner and waiter; all counts are of rounds, from 1. */
struct shared {
	uint32_t held;	/* the owner's: it has the lock */
	uint32_t asked; /* the watcher's: the waiter shall take the lock */
	uint32_t waits; /* the waiter's: about to ask */
	uint32_t taken; /* the waiter's: got it */
	uint64_t taken_ns;
};

struct scene {
	const char *path;
	struct shared *shared;
	uint64_t touch_size;
};

static void pause_ns(uint64_t ns)
{
	struct timespec t = {0, (long)ns};

	nanosleep(&t, NULL);
}

/* The other side has reached round `n`. */
static void count_wait(const uint32_t *count, uint32_t n)
{
	uint64_t start_ns = bench_clock_ns(CLOCK_MONOTONIC);

	while (__atomic_load_n(count, __ATOMIC_ACQUIRE) < n) {
		if (bench_clock_ns(CLOCK_MONOTONIC) - start_ns > ANSWER_NS)
			bench_die("death-latency: a process does not answer");
		pause_ns(50000);
	}
}

static void count_set(uint32_t *count, uint32_t n)
{
	__atomic_store_n(count, n, __ATOMIC_RELEASE);
}

static pheap *heap_open(const char *path, uint32_t flags, const struct pheap_options *opt)
{
	pheap *heap;
	int rc = pheap_open(path, flags, opt, &heap);

	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	return heap;
}

static void heap_make(const char *path, uint64_t size)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	pheap *heap;
	pheap_tx *tx;
	void *block;
	int rc;

	opt.initial_size = opt.max_size = size + size / 16 + (16ull << 20);
	opt.durability = PHEAP_PROCESS;
	opt.member_count = MEMBER_COUNT;
	opt.lane_count = 64;
	opt.lock_timeout_ms = 60000;
	heap = heap_open(path, PHEAP_CREATE | PHEAP_EXCL, &opt);
	rc = pheap_begin(heap, 0, &tx);
	if (rc)
		heap_fail(heap, "pheap_begin", rc);
	block = pheap_alloc_aligned(tx, 2u << 20, size, 0);
	pheap_root_set(tx, "block", block);
	rc = pheap_commit(tx);
	if (rc)
		heap_fail(heap, "pheap_commit", rc);
	bench_populate(block, size);
	rc = pheap_close(heap);
	if (rc)
		heap_fail(NULL, "pheap_close", rc);
}

static pheap_tx *key_lock(pheap *heap)
{
	const uint64_t key = KEY;
	pheap_tx *tx;
	int rc = pheap_begin(heap, PHEAP_CONCURRENT, &tx);

	if (rc)
		heap_fail(heap, "pheap_begin", rc);
	rc = pheap_lock(tx, &key, 1);
	if (rc)
		heap_fail(heap, "pheap_lock", rc);
	return tx;
}

static _Noreturn void owner(const struct scene *scene, uint32_t round)
{
	pheap *heap = heap_open(scene->path, 0, NULL);
	const uint64_t *words = pheap_find(heap, "block");
	pheap_tx *tx;

	bench_populate((void *)(uintptr_t)words, scene->touch_size);
	tx = key_lock(heap);
	for (unsigned i = 0; i < WORD_COUNT; i++) {
		uint64_t *word = PHEAP_MODIFY(tx, &words[i]);

		if (!word)
			heap_fail(heap, "pheap_modify", pheap_error(tx));
		*word = round;
	}
	count_set(&scene->shared->held, round);
	for (;;)
		pause();
}

static _Noreturn void waiter(const struct scene *scene)
{
	pheap *heap = heap_open(scene->path, 0, NULL);
	const uint64_t *words = pheap_find(heap, "block");

	for (uint32_t round = 1;; round++) {
		pheap_tx *tx;
		int rc;

		count_wait(&scene->shared->asked, round);
		count_set(&scene->shared->waits, round);
		tx = key_lock(heap);
		scene->shared->taken_ns = bench_clock_ns(CLOCK_MONOTONIC);
		for (unsigned i = 0; i < WORD_COUNT; i++)
			if (words[i])
				bench_die("death-latency: a change of the dead owner is there");
		rc = pheap_commit(tx);
		if (rc)
			heap_fail(heap, "pheap_commit", rc);
		count_set(&scene->shared->taken, round);
	}
}

/* ---- the watcher, which has no heap open */

static bool slot_free(int fd, unsigned slot)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)(SLOT_BYTE + slot), .l_len = 1};

	if (fcntl(fd, F_OFD_GETLK, &lock))
		bench_die("F_OFD_GETLK: %s", strerror(errno));
	return lock.l_type == F_UNLCK;
}

/* The slot that is taken and not `except`. */
static unsigned slot_find(int fd, unsigned except)
{
	for (unsigned slot = 0; slot < MEMBER_COUNT; slot++)
		if (slot != except && !slot_free(fd, slot))
			return slot;
	bench_die("death-latency: no member has a slot");
}

struct watch {
	const struct scene *scene;
	int fd;
	unsigned waiter_slot;
	uint64_t rng;
};

static void round_run(struct watch *w, uint32_t round, double *ret_free_ns, double *ret_take_ns)
{
	struct shared *shared = w->scene->shared;
	uint64_t kill_ns, held_ns, free_ns;
	unsigned slot;
	pid_t pid = bench_fork();

	if (!pid) {
		bench_unpin();
		owner(w->scene, round);
	}
	count_wait(&shared->held, round);
	slot = slot_find(w->fd, w->waiter_slot);
	count_set(&shared->asked, round);
	count_wait(&shared->waits, round);
	pause_ns(SETTLE_NS + bench_random(&w->rng) % SETTLE_NS); /* any moment of the waiter's naps */
	kill_ns = held_ns = bench_clock_ns(CLOCK_MONOTONIC);
	kill(pid, SIGKILL);
	for (;;) {
		uint64_t now_ns = bench_clock_ns(CLOCK_MONOTONIC);

		if (slot_free(w->fd, slot))
			break;
		held_ns = now_ns;
		pause_ns(POLL_NS);
	}
	free_ns = bench_clock_ns(CLOCK_MONOTONIC);
	count_wait(&shared->taken, round);
	waitpid(pid, NULL, 0);
	*ret_free_ns = (double)(free_ns - kill_ns);
	*ret_take_ns = (double)(shared->taken_ns - held_ns);
}

static void result_report(const struct bench_options *opt, const char *what, const char *param,
			  const struct bench_target *target, double *samples, unsigned count)
{
	struct bench_result result = {.system = "pheap", .threads = 2, .instructions = -1};
	char name[64];

	snprintf(name, sizeof name, "%s-%s", what, param);
	bench_summarize(samples, count, &result); /* sorts */
	result.p90 = samples[(count * 9 - 1) / 10];
	result.p99 = samples[(count * 99 - 1) / 100];
	bench_report(opt, "death-latency", name, NULL, target, &result, 1);
}

static void scene_run(const struct bench_options *opt, const char *path, uint64_t touch_size,
		      const char *param, unsigned count)
{
	static const struct bench_target no_target, target = {.value_max = 1e6, .p99_max = 5e6};
	static double free_ns[SAMPLE_MAX], take_ns[SAMPLE_MAX];
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
	struct scene scene = {.path = path, .touch_size = touch_size};
	struct watch w = {.scene = &scene, .rng = opt->seed | 1};
	pid_t pid;

	scene.shared = mmap(NULL, sizeof *scene.shared, prot, flags, -1, 0);
	w.fd = open(path, O_RDWR | O_CLOEXEC);
	if (scene.shared == MAP_FAILED || w.fd < 0)
		bench_die("%s: %s", path, strerror(errno));
	pid = bench_fork();
	if (!pid) {
		bench_unpin();
		waiter(&scene);
	}
	while (slot_free(w.fd, 0) && slot_free(w.fd, 1)) {
		if (waitpid(pid, NULL, WNOHANG))
			bench_die("death-latency: the waiter has ended");
		pause_ns(100000);
	}
	w.waiter_slot = slot_find(w.fd, MEMBER_COUNT);
	for (unsigned i = 0; i < count; i++)
		round_run(&w, i + 1, &free_ns[i], &take_ns[i]);
	bench_kill(pid);
	close(w.fd);
	munmap(scene.shared, sizeof *scene.shared);
	result_report(opt, "free", param, &no_target, free_ns, count);
	result_report(opt, "take", param, &target, take_ns, count);
}

static void memory_run(const struct bench_options *opt, enum bench_memory memory)
{
	static const struct {
		const char *name;
		uint64_t size;
		unsigned count;
	} sizes[] = {
		{"1MiB", 1ull << 20, 200},
		{"16MiB", 16ull << 20, 200},
		{"256MiB", 256ull << 20, 100},
		{"1GiB", 1ull << 30, 60},
	};
	const unsigned size_count = opt->quick ? 2 : sizeof sizes / sizeof *sizes;
	const uint64_t size = sizes[size_count - 1].size;
	const char *folder = bench_scratch_folder(memory, size + size / 8 + (64u << 20));
	char path[4096], param[32];
	pid_t pid;

	if (!folder) {
		fprintf(stderr, "pheap-bench: death-latency: none or no room on %s\n",
			bench_memory_names[memory]);
		return;
	}
	snprintf(path, sizeof path, "%s/death", folder);
	pid = bench_fork();
	if (!pid) {
		heap_make(path, size);
		_exit(0);
	}
	bench_wait_ok(pid, "death-latency");
	for (unsigned i = 0; i < size_count; i++) {
		/* other memory: the largest size alone */
		if (memory != BENCH_TMPFS && opt->memory < 0 && i + 1 < size_count)
			continue;
		snprintf(param, sizeof param, "%s-%s", sizes[i].name, bench_memory_names[memory]);
		scene_run(opt, path, sizes[i].size, param, opt->quick ? 20 : sizes[i].count);
	}
	unlink(path);
}

void bench_death_latency(const struct bench_options *opt)
{
	prctl(PR_SET_TIMERSLACK, 1); /* the watcher's pauses are as short as they say */
	for (int i = 0; i < BENCH_MEMORY_COUNT; i++)
		if (opt->memory < 0 || opt->memory == i)
			memory_run(opt, (enum bench_memory)i);
	prctl(PR_SET_TIMERSLACK, 0);
}
