/* SPDX-License-Identifier: MIT
 *
 * fill.c: the bench space: how much of a file is live bytes, that is bytes as they were asked for.
 *
 * What: full: a heap of fixed size is filled with blocks of 16 to 1024 bytes until one is refused; ten times
 * a random half is freed and it is filled again; live bytes / bytes of the file. drift and jump: a heap that
 * grows; in each of 100 rounds a random half of the blocks goes, and blocks of another range of sizes come
 * until the live bytes are what they were; bytes that the file occupies / live bytes. In drift the range
 * slides from 16..64 to 256..1024, as when a program's records grow; in jump it is any part of 16..1024.
 * No allocator that leaves blocks where they are does well in jump: between small blocks of which a random
 * half went there is no room for a large one.
 * Why what is occupied (st_blocks) and not the length: most of these files are sparse. The length is
 * reported beside it. Why a process for each: what a system keeps in memory goes with it.
 * Why few repetitions: no clock is involved, and each figure sums up millions of random sizes.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "fill.h"

#define FULL_SIZE (256ull << 20)
#define FULL_ROUNDS 10u
#define SHIFT_ROUNDS 100u
#define SHIFT_LIVE (64ull << 20)
#define SHIFT_LIVE_QUICK (16ull << 20)
#define SHIFT_ROUNDS_QUICK 10u
#define SHIFT_ROOM (4ull << 30)	  /* bytes it may grow to */
#define SCRATCH_SIZE (1ull << 30) /* more than any of them takes */
#define SIZE_MIN 16u
#define SIZE_MAX_ 1024u
#define REP_MAX 5u

static const struct fill_system *const systems[] = {
	&fill_pheap,
#ifdef BENCH_PMEMOBJ
	&fill_pmemobj,
#endif
#ifdef BENCH_BOOST
	&fill_boost,
#endif
#ifdef BENCH_LMDB
	&fill_lmdb,
#endif
#ifdef BENCH_SQLITE
	&fill_sqlite,
#endif
};
#define SYSTEM_COUNT (sizeof systems / sizeof *systems)

struct range {
	uint32_t min, max; /* bytes */
};

struct block {
	uint64_t name;
	uint32_t size;
};

struct fill {
	const struct fill_system *system;
	void *self;
	uint64_t rng;
	struct block *blocks;
	size_t count, room;
	uint64_t live; /* bytes asked for */
};

static void blocks_add(struct fill *f, const uint32_t *sizes, const uint64_t *names, unsigned count)
{
	if (f->count + count > f->room) {
		f->room = f->room ? 2 * f->room : 65536;
		f->blocks = realloc(f->blocks, f->room * sizeof *f->blocks);
		if (!f->blocks)
			bench_die("space: no memory");
	}
	for (unsigned i = 0; i < count; i++) {
		f->blocks[f->count++] = (struct block){names[i], sizes[i]};
		f->live += sizes[i];
	}
}

/* True: there was room for all. A transaction that had none is tried again block by block. */
static bool blocks_make(struct fill *f, const uint32_t *sizes, unsigned count)
{
	uint64_t names[FILL_BATCH];

	if (f->system->alloc(f->self, sizes, names, count)) {
		blocks_add(f, sizes, names, count);
		return true;
	}
	for (unsigned i = 0; count > 1 && i < count; i++) {
		if (!f->system->alloc(f->self, &sizes[i], names, 1))
			return false;
		blocks_add(f, &sizes[i], names, 1);
	}
	return count > 1;
}

static uint32_t size_draw(uint64_t *rng, uint32_t min, uint32_t max)
{
	return min + (uint32_t)(bench_random(rng) >> 32) % (max - min + 1);
}

/* Blocks until that many bytes are live, or one is refused. */
static void fill_up(struct fill *f, uint64_t live_max, const struct range *range)
{
	uint32_t sizes[FILL_BATCH];
	bool room = true;

	while (room && f->live < live_max) {
		uint64_t live = f->live;
		unsigned count = 0;

		while (count < FILL_BATCH && live < live_max) {
			sizes[count] = size_draw(&f->rng, range->min, range->max);
			live += sizes[count++];
		}
		room = blocks_make(f, sizes, count);
	}
}

static void half_free(struct fill *f)
{
	uint64_t names[FILL_BATCH];
	size_t kept = 0;
	unsigned count = 0;

	for (size_t i = 0; i < f->count; i++) {
		struct block *block = &f->blocks[i];

		if (bench_random(&f->rng) >> 63) {
			f->blocks[kept++] = *block;
			continue;
		}
		f->live -= block->size;
		names[count++] = block->name;
		if (count == FILL_BATCH) {
			f->system->release(f->self, names, count);
			count = 0;
		}
	}
	if (count)
		f->system->release(f->self, names, count);
	f->count = kept;
}

/* Bytes of one or several files. */
struct extent {
	uint64_t length, occupied;
};

static void file_add(const char *path, struct extent *sum)
{
	struct stat st;

	if (stat(path, &st))
		return;
	sum->length += (uint64_t)st.st_size;
	sum->occupied += 512 * (uint64_t)st.st_blocks;
}

/* All files of the folder and of the folders in it. */
static void folder_add(const char *path, bool deep, struct extent *sum)
{
	DIR *dir = opendir(path);

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		char name[4096 + 256];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
		if (entry->d_type != DT_DIR)
			file_add(name, sum);
		else if (deep)
			folder_add(name, false, sum);
	}
	if (dir)
		closedir(dir);
}

/* ---- the two kinds of churn */

enum shape { FULL, DRIFT, JUMP };

struct job {
	enum shape shape;
	uint64_t live; /* bytes; FULL: what fits */
	unsigned rounds;
	uint64_t seed;
	const char *folder;
};

struct outcome {
	double used;   /* FULL: live / length; else occupied / live */
	double length; /* length / live */
};

/* As when a program adds to its records: the smallest size doubles four times. */
static struct range drift_range(unsigned round, unsigned rounds)
{
	uint32_t low = SIZE_MIN << round * 4 / rounds;

	low += low * (round * 4 % rounds) / rounds;
	return (struct range){low, low * 4};
}

static struct range jump_range(uint64_t *rng)
{
	uint32_t a = size_draw(rng, SIZE_MIN, SIZE_MAX_), b = size_draw(rng, SIZE_MIN, SIZE_MAX_);

	return a < b ? (struct range){a, b} : (struct range){b, a};
}

static void full_churn(struct fill *f, unsigned rounds)
{
	const struct range range = {SIZE_MIN, SIZE_MAX_};

	fill_up(f, UINT64_MAX, &range);
	for (unsigned round = 0; round < rounds; round++) {
		half_free(f);
		fill_up(f, UINT64_MAX, &range);
	}
}

static void shift_churn(struct fill *f, const struct job *job)
{
	uint64_t rng = job->seed + 1; /* of the ranges */

	for (unsigned round = 0; round <= job->rounds; round++) {
		struct range range = job->shape == DRIFT ? drift_range(round, job->rounds) : jump_range(&rng);

		if (round)
			half_free(f);
		fill_up(f, job->live, &range);
		if (f->live < job->live)
			bench_die("space: %s does not grow", f->system->name);
	}
}

static void job_run(const struct fill_system *system, const struct job *job, struct outcome *ret)
{
	struct fill f = {.system = system, .rng = job->seed};
	struct extent file = {0, 0};
	char path[4096];

	snprintf(path, sizeof path, "%s/fill", job->folder);
	f.self = system->open(path, job->shape == FULL ? FULL_SIZE : SHIFT_ROOM, job->shape != FULL);
	if (!f.self)
		bench_die("space: %s does not open %s", system->name, path);
	if (job->shape == FULL)
		full_churn(&f, job->rounds);
	else
		shift_churn(&f, job);
	if (system->trim)
		system->trim(f.self);
	folder_add(job->folder, true, &file);
	ret->used = job->shape == FULL ? (double)f.live / (double)file.length
				       : (double)file.occupied / (double)f.live;
	ret->length = (double)file.length / (double)f.live;
	system->close(f.self);
	free(f.blocks);
}

/* In a process of its own, and the files are gone afterwards. */
static struct outcome job_fork(const struct fill_system *system, const struct job *job)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
	struct outcome *shared = mmap(NULL, sizeof *shared, prot, flags, -1, 0), ret;
	pid_t pid;

	if (shared == MAP_FAILED)
		bench_die("mmap: %s", strerror(errno));
	bench_scratch_clear(job->folder);
	pid = bench_fork();
	if (!pid) {
		job_run(system, job, shared);
		_exit(0);
	}
	bench_wait_ok(pid, system->name);
	bench_scratch_clear(job->folder);
	ret = *shared;
	munmap(shared, sizeof *shared);
	return ret;
}

static void shape_run(const struct bench_options *opt, const char *param, struct job job, unsigned reps,
		      const struct bench_target *target)
{
	static const struct bench_target none;
	struct bench_result used[SYSTEM_COUNT], length[SYSTEM_COUNT];
	char name[64];
	unsigned count = 0;

	for (unsigned i = 0; i < SYSTEM_COUNT; i++) {
		double used_samples[REP_MAX], length_samples[REP_MAX];

		if (job.shape == FULL && !systems[i]->full)
			continue;
		for (unsigned rep = 0; rep < reps; rep++) {
			struct outcome outcome;

			job.seed = BENCH_SEED + rep;
			outcome = job_fork(systems[i], &job);
			used_samples[rep] = outcome.used;
			length_samples[rep] = outcome.length;
		}
		used[count] =
			(struct bench_result){.system = systems[i]->name, .threads = 1, .instructions = -1};
		length[count] = used[count];
		bench_summarize(used_samples, reps, &used[count]);
		bench_summarize(length_samples, reps, &length[count++]);
	}
	bench_report(opt, "space", param, job.shape == FULL ? "live/file" : "file/live", target, used, count);
	if (job.shape == FULL)
		return;
	snprintf(name, sizeof name, "%s-length", param);
	bench_report(opt, "space", name, "file/live", &none, length, count);
}

void bench_space(const struct bench_options *opt)
{
	static const struct bench_target full = {.value_min = 0.94, .peers_beaten = true};
	static const struct bench_target drift = {.value_max = 1.25, .peers_beaten = true};
	static const struct bench_target jump = {.peers_beaten = true};
	const uint64_t live = opt->quick ? SHIFT_LIVE_QUICK : SHIFT_LIVE;
	const unsigned rounds = opt->quick ? SHIFT_ROUNDS_QUICK : SHIFT_ROUNDS;
	const unsigned reps = opt->reps < REP_MAX ? opt->reps : REP_MAX;
	struct job job = {FULL, 0, FULL_ROUNDS, 0, bench_scratch_folder(BENCH_TMPFS, SCRATCH_SIZE)};
	char param[32];

	if (!job.folder)
		job.folder = opt->folder;
#ifndef BENCH_PMEMOBJ
	bench_skip(opt, "space", "-", "libpmemobj", "not in this build");
#endif
#ifndef BENCH_BOOST
	bench_skip(opt, "space", "-", "boost", "not in this build");
#endif
#ifndef BENCH_LMDB
	bench_skip(opt, "space", "-", "lmdb", "not in this build");
#endif
#ifndef BENCH_SQLITE
	bench_skip(opt, "space", "-", "sqlite", "not in this build");
#endif
	shape_run(opt, "full-256MiB", job, opt->quick ? 1 : reps, &full);
	job = (struct job){DRIFT, live, rounds, 0, job.folder};
	snprintf(param, sizeof param, "drift-%uMiB", (unsigned)(live >> 20));
	shape_run(opt, param, job, 1, &drift);
	job.shape = JUMP;
	snprintf(param, sizeof param, "jump-%uMiB", (unsigned)(live >> 20));
	shape_run(opt, param, job, 1, &jump);
}
