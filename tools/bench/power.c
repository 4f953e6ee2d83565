/* SPDX-License-Identifier: MIT
 *
 * power.c: power-recovery: the open that does power recovery, of a heap of 4 GiB with a full log.
 *
 * What: a process of durability SYNC changes random words until the log is as full as it gets, has all of it
 * made durable, and is killed. Then the state sector of the file is told another boot, the file is synced
 * and dropped from the page cache, and a new process opens it. The limit reads as many bytes of log, cold,
 * and writes as many, page by page in ascending order to random pages of a file as large, then syncs;
 * `in-a-row` writes them behind each other.
 * Why the file is edited: for its next opener a machine that went down is a boot id that differs.
 *
 * Invariants
 *   P1  What is read from the file and its mapping is where FORMAT.md says; nothing of the library's is used.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "heap_use.h"

#define HEAP_SIZE (4ull << 30)
#define HEAP_ROOM (256ull << 20)
#define PAGE_SIZE 4096u
#define STEP_SIZE (1u << 20) /* of reading and writing in a row */
#define UPDATE_COUNT 8u	     /* words in a transaction */
#define FILLER_COUNT 32u
#define FULL_PERCENT 72u /* of the log: three quarters are for images and commits */
#define FILL_NS 10000000000ull
#define REP_MAX 3u

/* FORMAT.md, sections 1 and 2 and the coordination page */
#define SUPER_COORD_OFF 0x68u
#define SUPER_WAL_OFF 0xc8u
#define SUPER_WAL_SIZE 0xd0u
#define COORD_TAIL 0x208u
#define COORD_DURABLE 0x240u
#define COORD_REPLAY_LSN 0x2c8u
#define STATE_OFF(copy) ((copy)*0x1000u + 0x200u)
#define STATE_BOOT_ID 0x10u
#define SECTOR_SIZE 512u
#define SECTOR_CRC 508u

struct shared {
	uint64_t open_ns;
	int rc; /* of making the heap */
};

struct scene {
	struct shared *shared;
	uint64_t wal_size;
	uint64_t log_size; /* that recovery reads, bytes */
	char path[4096], other_path[4096];
	uint64_t rng;
};

static int file_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		bench_die("%s: %s", path, strerror(errno));
	return fd;
}

/* To the disk, and out of memory. */
static void file_drop(int fd)
{
	if (fsync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
		bench_die("power-recovery: %s", strerror(errno));
}

static void wait_killed(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			bench_die("waitpid: %s", strerror(errno));
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		bench_die("power-recovery: filling the log failed");
}

/* ---- the process that fills the log */

static void heap_make(const struct scene *scene)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	pheap_tx *tx;
	pheap *heap;
	int rc;

	opt.initial_size = opt.max_size = HEAP_SIZE + HEAP_SIZE / 16 + HEAP_ROOM + 2 * scene->wal_size;
	opt.durability = PHEAP_SYNC;
	opt.journal_size = scene->wal_size;
	rc = pheap_open(scene->path, PHEAP_CREATE | PHEAP_EXCL, &opt, &heap);
	scene->shared->rc = rc;
	if (rc == -EOPNOTSUPP)
		return;
	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	rc = pheap_begin(heap, 0, &tx);
	if (rc)
		heap_fail(heap, "pheap_begin", rc);
	pheap_root_set(tx, "words", pheap_alloc(tx, HEAP_SIZE, 0));
	rc = pheap_commit(tx);
	if (rc)
		heap_fail(heap, "pheap_commit", rc);
	rc = pheap_close(heap);
	if (rc)
		heap_fail(NULL, "pheap_close", rc);
}

static uint64_t word_at(const void *base, uint64_t off)
{
	return __atomic_load_n((const uint64_t *)(const void *)((const char *)base + off), __ATOMIC_ACQUIRE);
}

static uint64_t coord_word(const void *base, uint64_t off)
{
	return word_at(base, word_at(base, SUPER_COORD_OFF) + off);
}

static uint64_t log_size(const void *base)
{
	uint64_t replay_lsn = coord_word(base, COORD_REPLAY_LSN);

	return coord_word(base, COORD_TAIL) - replay_lsn;
}

/* Kills the process as soon as the log is durable, before a checkpoint that is due now has ended. */
struct watch {
	const void *base;
	uint64_t lsn; /* 0: the log is not full yet */
};

static void *watch_main(void *arg)
{
	struct watch *w = arg;
	uint64_t lsn;

	while (!(lsn = __atomic_load_n(&w->lsn, __ATOMIC_ACQUIRE)) ||
	       coord_word(w->base, COORD_DURABLE) < lsn)
		usleep(50);
	kill(getpid(), SIGKILL);
	return NULL;
}

/* One of those who change words: many, so that they share flushes. */
struct filler {
	pthread_t thread;
	pheap *heap;
	const uint64_t *words;
	uint64_t rng, lsn;
};
static bool filler_stop;

static void words_change(struct filler *f)
{
	pheap_tx *tx;
	int rc = pheap_begin(f->heap, PHEAP_CONCURRENT, &tx);

	if (rc)
		heap_fail(f->heap, "pheap_begin", rc);
	/* without locks: nobody reads them */
	for (unsigned i = 0; i < UPDATE_COUNT; i++) {
		uint64_t r = bench_random(&f->rng);
		uint64_t *word = PHEAP_MODIFY(tx, &f->words[(r >> 16) % (HEAP_SIZE / 8)]);

		if (word)
			*word = r;
	}
	rc = pheap_commit_async(tx, &f->lsn);
	if (rc)
		heap_fail(f->heap, "pheap_commit", rc);
}

static void *filler_main(void *arg)
{
	struct filler *f = arg;

	while (!__atomic_load_n(&filler_stop, __ATOMIC_RELAXED))
		words_change(f);
	return NULL;
}

/* Until the log is full; or, if a checkpoint always comes before, nearly as full as it ever was. */
static void full_wait(const struct scene *scene, const void *base)
{
	uint64_t size, most = 0, start_ns = bench_clock_ns(CLOCK_MONOTONIC);

	do {
		usleep(200);
		size = log_size(base);
		most = size > most ? size : most;
		if (bench_clock_ns(CLOCK_MONOTONIC) - start_ns > FILL_NS && size >= most / 10 * 9)
			break;
	} while (size < scene->wal_size / 100 * FULL_PERCENT);
}

static _Noreturn void log_fill(const struct scene *scene)
{
	static struct filler fillers[FILLER_COUNT];
	static struct watch watch;
	struct pheap_info info = {0};
	uint64_t lsn = 0, rng = scene->rng;
	pthread_t thread;
	pheap *heap;
	int rc = pheap_open(scene->path, 0, NULL, &heap);

	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	rc = pheap_info(heap, &info, sizeof info);
	if (rc)
		heap_fail(heap, "pheap_info", rc);
	watch.base = info.base;
	if (pthread_create(&thread, NULL, watch_main, &watch))
		bench_die("pthread_create failed");
	for (unsigned i = 0; i < FILLER_COUNT; i++) {
		fillers[i].heap = heap;
		fillers[i].words = pheap_find(heap, "words");
		fillers[i].rng = bench_random(&rng);
		if (pthread_create(&fillers[i].thread, NULL, filler_main, &fillers[i]))
			bench_die("pthread_create failed");
	}
	full_wait(scene, info.base);
	__atomic_store_n(&filler_stop, true, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < FILLER_COUNT; i++) {
		pthread_join(fillers[i].thread, NULL);
		lsn = fillers[i].lsn > lsn ? fillers[i].lsn : lsn;
	}
	__atomic_store_n(&watch.lsn, lsn, __ATOMIC_RELEASE);
	rc = pheap_wait(heap, lsn, -1);
	if (rc)
		heap_fail(heap, "pheap_wait", rc);
	for (;;)
		pause();
}

/* What recovery will read: as the dead process left it. */
static uint64_t log_size_read(int fd)
{
	uint64_t coord_off, tail, replay_lsn;

	if (pread(fd, &coord_off, 8, SUPER_COORD_OFF) != 8 ||
	    pread(fd, &tail, 8, (off_t)(coord_off + COORD_TAIL)) != 8 ||
	    pread(fd, &replay_lsn, 8, (off_t)(coord_off + COORD_REPLAY_LSN)) != 8)
		bench_die("power-recovery: the log's length cannot be read");
	if (tail - replay_lsn < PAGE_SIZE)
		bench_die("power-recovery: the log is empty");
	return tail - replay_lsn;
}

/* ---- another boot */

static uint32_t crc32c(const unsigned char *bytes, size_t n)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < n; i++) {
		crc ^= bytes[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void boot_change(int fd)
{
	unsigned char sector[SECTOR_SIZE];

	for (unsigned copy = 0; copy < 2; copy++) {
		uint32_t crc;

		if (pread(fd, sector, SECTOR_SIZE, STATE_OFF(copy)) != SECTOR_SIZE)
			bench_die("power-recovery: the state cannot be read");
		memcpy(&crc, sector + SECTOR_CRC, sizeof crc);
		if (crc != crc32c(sector, SECTOR_CRC))
			continue; /* not valid before either */
		sector[STATE_BOOT_ID] ^= 0xff;
		crc = crc32c(sector, SECTOR_CRC);
		memcpy(sector + SECTOR_CRC, &crc, sizeof crc);
		if (pwrite(fd, sector, SECTOR_SIZE, STATE_OFF(copy)) != SECTOR_SIZE)
			bench_die("power-recovery: the state cannot be written");
	}
}

static void heap_recover(const struct scene *scene)
{
	uint64_t start_ns = bench_clock_ns(CLOCK_MONOTONIC);
	pheap *heap;
	int rc = pheap_open(scene->path, 0, NULL, &heap);

	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	scene->shared->open_ns = bench_clock_ns(CLOCK_MONOTONIC) - start_ns;
	rc = pheap_close(heap);
	if (rc)
		heap_fail(NULL, "pheap_close", rc);
}

static double recovery_ns(struct scene *scene)
{
	pid_t pid;
	int fd;

	bench_random(&scene->rng);
	pid = bench_fork();
	if (!pid)
		log_fill(scene);
	wait_killed(pid);
	fd = file_open(scene->path);
	scene->log_size = log_size_read(fd);
	boot_change(fd);
	file_drop(fd);
	close(fd);
	pid = bench_fork();
	if (!pid) {
		heap_recover(scene);
		_exit(0);
	}
	bench_wait_ok(pid, "power-recovery");
	return (double)scene->shared->open_ns;
}

/* ---- the limit */

static void log_read(const struct scene *scene, char *buf)
{
	uint64_t off = 0, left = scene->log_size;
	int fd = file_open(scene->path);

	if (pread(fd, &off, sizeof off, SUPER_WAL_OFF) != sizeof off)
		bench_die("power-recovery: the superblock cannot be read");
	for (uint64_t n; left; left -= n, off += n) {
		n = left < STEP_SIZE ? left : STEP_SIZE;
		if (pread(fd, buf, n, (off_t)off) != (ssize_t)n)
			bench_die("power-recovery: the log cannot be read");
	}
	close(fd);
}

/* Ascending, as a kernel writes back dirty pages. */
static void pages_write(int fd, const char *buf, uint64_t count, uint64_t rng)
{
	const uint64_t step = HEAP_SIZE / PAGE_SIZE / count;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t page = i * step + bench_random(&rng) % step;

		if (pwrite(fd, buf, PAGE_SIZE, (off_t)(page * PAGE_SIZE)) != PAGE_SIZE)
			bench_die("power-recovery: %s", strerror(errno));
	}
}

static void row_write(int fd, const char *buf, uint64_t size)
{
	for (uint64_t off = 0; off < size; off += STEP_SIZE)
		if (pwrite(fd, buf, STEP_SIZE, (off_t)off) != STEP_SIZE)
			bench_die("power-recovery: %s", strerror(errno));
}

static double limit_ns(const struct scene *scene, bool in_a_row)
{
	static char buf[STEP_SIZE];
	uint64_t start_ns, size = scene->log_size;
	int log_fd = file_open(scene->path), fd = file_open(scene->other_path);
	double ret;

	if (in_a_row)
		row_write(fd, buf, size); /* blocks that were written before */
	else
		pages_write(fd, buf, size / PAGE_SIZE, scene->rng);
	file_drop(fd);
	file_drop(log_fd);
	start_ns = bench_clock_ns(CLOCK_MONOTONIC);
	log_read(scene, buf);
	if (in_a_row)
		row_write(fd, buf, size);
	else
		pages_write(fd, buf, size / PAGE_SIZE, scene->rng);
	if (fdatasync(fd))
		bench_die("fdatasync: %s", strerror(errno));
	ret = (double)(bench_clock_ns(CLOCK_MONOTONIC) - start_ns);
	close(log_fd);
	close(fd);
	return ret;
}

/* ---- */

static bool scene_make(const struct bench_options *opt, struct scene *scene)
{
	pid_t pid = bench_fork();
	int fd;

	if (!pid) {
		heap_make(scene);
		_exit(0);
	}
	bench_wait_ok(pid, "power-recovery");
	if (scene->shared->rc) {
		bench_skip(opt, "power-recovery", "all", "pheap", "this library has no PHEAP_SYNC");
		return false;
	}
	fd = file_open(scene->other_path);
	if (posix_fallocate(fd, 0, (off_t)HEAP_SIZE))
		bench_die("power-recovery: no room for another 4 GiB");
	close(fd);
	return true;
}

static bool scene_run(const struct bench_options *opt, struct scene *scene, double seconds_max)
{
	enum { PHEAP, LIMIT, ROW, COUNT };
	const char *const names[COUNT] = {[PHEAP] = "pheap", [LIMIT] = "limit", [ROW] = "in-a-row"};
	const struct bench_target target = {
		.value_max = seconds_max * 1e9, .limit_ratio_max = 1.5, .base = names[ROW]};
	const unsigned reps = opt->reps < REP_MAX ? opt->reps : REP_MAX;
	struct bench_result results[COUNT];
	double ns[COUNT][REP_MAX];
	char param[32];

	if (!scene_make(opt, scene))
		return false;
	for (unsigned rep = 0; rep < reps; rep++) {
		ns[PHEAP][rep] = recovery_ns(scene);
		ns[LIMIT][rep] = limit_ns(scene, false);
		ns[ROW][rep] = limit_ns(scene, true);
	}
	for (unsigned i = 0; i < COUNT; i++) {
		results[i] = (struct bench_result){
			.system = names[i], .level = "SYNC", .threads = 1, .instructions = -1};
		bench_summarize(ns[i], reps, &results[i]);
	}
	snprintf(param, sizeof param, "%" PRIu64, scene->log_size);
	bench_report(opt, "power-recovery", param, NULL, &target, results, COUNT);
	return true;
}

void bench_power_recovery(const struct bench_options *opt)
{
	/* the second is what a heap of this size has without being told */
	static const uint64_t wal_sizes[] = {8, 64, 256}; /* MiB */
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
	struct scene scene = {.rng = opt->seed | 1};
	bool go_on = true, any = false;

	scene.shared = mmap(NULL, sizeof *scene.shared, prot, flags, -1, 0);
	if (scene.shared == MAP_FAILED)
		bench_die("mmap: %s", strerror(errno));
	snprintf(scene.path, sizeof scene.path, "%s/power", opt->folder);
	snprintf(scene.other_path, sizeof scene.other_path, "%s/power-other", opt->folder);
	for (unsigned i = 0; go_on && i < sizeof wal_sizes / sizeof *wal_sizes; i++) {
		scene.wal_size = wal_sizes[i] << 20;
		if (opt->param && strtoull(opt->param, NULL, 10) != wal_sizes[i])
			continue;
		any = true;
		go_on = scene_run(opt, &scene, 2);
		unlink(scene.path);
		unlink(scene.other_path);
	}
	munmap(scene.shared, sizeof *scene.shared);
	if (!any)
		bench_param_fail("power-recovery", opt->param);
}
