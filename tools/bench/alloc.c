/* SPDX-License-Identifier: MIT
 *
 * alloc.c: churn-mixed and huge: allocation on one thread. For several see alloc_team.c.
 *
 * What: all systems' heaps are open at once; within each repetition they take turns, and who goes first
 * rotates. An operation of churn-mixed frees the block of a random slot and allocates one of a random size
 * in its place: 100,000 slots, 16 to 1024 bytes (100-of-4000: 4000 slots). One of huge is a transaction
 * that does either, with blocks of 1 to 64 MiB in 8 slots.
 * Why all sizes equally likely: what is said about space has them so, and they use most size classes.
 * Why on a tmpfs: nothing has to be durable here, and write-back takes its turns in the measured time. The
 * levels of pheap beside each other are on the disk.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc.h"

#define PARAM_MAX 2
#define ALLOC_SPACE_SIZE (4ull << 30) /* free bytes for the files of all systems */
#define ENTRY_MAX ALLOC_SYSTEM_MAX

const struct alloc_system *const alloc_systems[] = {
	&alloc_pheap,
#ifdef BENCH_PMEMOBJ
	&alloc_pmemobj,
#endif
#ifdef BENCH_BOOST
	&alloc_boost,
#endif
	&alloc_mimalloc, &alloc_malloc, NULL,
};

static const char *const level_names[] = {"PROCESS", "EPOCH", "SYNC"};

struct param {
	const char *name;
	unsigned tx_op_count; /* operations of a transaction */
	struct bench_target target;
};

struct workload {
	const char *bench;
	bench_loop *(*loop)(const struct alloc_system *system);
	uint64_t heap_size;
	unsigned slot_count;
	bool fill;
	bool levels; /* of the systems that have them, beside each other; else of all systems PROCESS */
	unsigned param_count;
	struct param params[PARAM_MAX];
};

struct entry {
	const struct alloc_system *system;
	struct alloc_plan plan;
	void *heap, *worker;
	struct bench_meter meter;
	double steps[PARAM_MAX]; /* instructions of a transaction; negative: not known */
	double ns[BENCH_REP_MAX], instructions[BENCH_REP_MAX];
};

unsigned alloc_systems_find(const struct bench_options *opt, const char *bench,
			    const struct alloc_system **ret)
{
	static const char *told; /* a bench has several parts */
	bool tell = !told || strcmp(told, bench);
	unsigned count = 0;

	told = bench;
	for (unsigned i = 0; alloc_systems[i]; i++) {
		const struct alloc_system *system = alloc_systems[i];
		const char *why = system->missing ? system->missing() : NULL;

		if (opt->system && strcmp(opt->system, system->name))
			continue;
		if (!why)
			ret[count++] = system;
		else if (tell)
			bench_skip(opt, bench, "all", system->name, why);
	}
#ifndef BENCH_PMEMOBJ
	if (tell)
		bench_skip(opt, bench, "all", "libpmemobj", "not in this build");
#endif
#ifndef BENCH_BOOST
	if (tell)
		bench_skip(opt, bench, "all", "boost", "not in this build");
#endif
	return count;
}

bool alloc_param_wanted(const struct bench_options *opt, const char *param)
{
	return !opt->param || !strcmp(opt->param, param);
}

/* Nothing has to be durable: memory, unless something else is asked for, or there is none. */
static const char *folder_base(const struct bench_options *opt)
{
	enum bench_memory memory = opt->memory < 0 ? BENCH_TMPFS : (enum bench_memory)opt->memory;
	const char *folder = bench_scratch_folder(memory, ALLOC_SPACE_SIZE);

	if (folder)
		return folder;
	if (opt->memory >= 0 && opt->memory != BENCH_DISK)
		bench_die("no %s with %llu bytes free", bench_memory_names[opt->memory], ALLOC_SPACE_SIZE);
	return opt->folder;
}

const char *alloc_folder_make(const struct bench_options *opt, unsigned number)
{
	const char *base = folder_base(opt);
	char *folder = malloc(strlen(base) + 32);

	if (!folder)
		bench_die("no memory");
	sprintf(folder, "%s/alloc-%u", base, number);
	if (mkdir(folder, 0700) && errno != EEXIST)
		bench_die("%s: %s", folder, strerror(errno));
	return folder;
}

void alloc_folder_remove(const char *folder)
{
	bench_scratch_clear(folder);
	rmdir(folder);
	free((void *)(uintptr_t)folder);
}

static void *entry_open(const void *arg)
{
	const struct entry *entry = arg;

	return entry->system->enter(entry->system->open(&entry->plan));
}

static void steps_count(struct entry *entry, const struct workload *load, const struct bench_options *opt)
{
	for (unsigned i = 0; i < load->param_count; i++) {
		const struct bench_steps steps = {entry_open, entry, load->loop(entry->system),
						  load->params[i].tx_op_count};

		entry->steps[i] = -1;
		if (!alloc_param_wanted(opt, load->params[i].name) || bench_counter_open() ||
		    entry->plan.level != ALLOC_PROCESS ||
		    (opt->quick && (load->params[i].tx_op_count > 1 || !load->fill))) /* a million steps */
			continue;
		entry->steps[i] = bench_step_count(&steps, opt->quick);
		bench_scratch_clear(entry->plan.folder);
	}
}

/* One for each system, and level of it. */
static unsigned entries_find(struct entry *entries, const struct workload *load,
			     const struct bench_options *opt)
{
	const struct alloc_system *systems[ALLOC_SYSTEM_MAX];
	unsigned system_count = alloc_systems_find(opt, load->bench, systems), count = 0;
	enum alloc_level level_last = load->levels ? ALLOC_SYNC : ALLOC_PROCESS;
	struct bench_options disk = *opt;

	disk.memory = BENCH_DISK;
	for (unsigned i = 0; i < system_count; i++) {
		if (load->levels && !systems[i]->levels)
			continue;
		for (enum alloc_level level = ALLOC_PROCESS; level <= level_last; level++) {
			entries[count].system = systems[i];
			entries[count].plan = (struct alloc_plan){
				.folder = alloc_folder_make(load->levels ? &disk : opt, count),
				.level = level,
				.heap_size = load->heap_size,
				.thread_count = 1,
				.set_count = 1,
				.slot_count = load->slot_count,
				.fill = load->fill,
				.shared = calloc(1, sizeof(struct alloc_shared)),
			};
			if (!entries[count].plan.shared)
				bench_die("no memory");
			count++;
		}
	}
	return count;
}

static void entries_run(struct entry *entries, unsigned count, const struct bench_options *opt)
{
	uint64_t sample_ns = opt->quick ? 10000000 : 40000000;

	for (unsigned i = 0; i < count; i++) {
		bool flushes = entries[i].plan.level != ALLOC_PROCESS;

		entries[i].system->populate(entries[i].worker);
		/* flushes are not processor time, by which it goes */
		bench_calibrate(&entries[i].meter, flushes ? 2000000 : sample_ns);
	}
	for (unsigned rep = 0; rep < opt->reps; rep++)
		for (unsigned i = 0; i < count; i++) {
			struct entry *entry = &entries[(i + rep) % count];

			entry->system->populate(entry->worker);
			entry->ns[rep] = bench_sample_ns(&entry->meter, &entry->instructions[rep]);
		}
}

/* Samples are of transactions, results of operations. */
static void entry_summarize(struct entry *entry, double steps, unsigned reps, struct bench_result *ret)
{
	struct bench_result instructions = {0};
	double op_count = entry->meter.param;

	*ret = (struct bench_result){.system = entry->system->name, .threads = 1};
	for (unsigned i = 0; i < reps; i++) {
		entry->ns[i] /= op_count;
		entry->instructions[i] /= op_count;
	}
	bench_summarize(entry->instructions, reps, &instructions);
	bench_summarize(entry->ns, reps, ret);
	ret->instructions = instructions.value < 0 ? steps / op_count : instructions.value;
	ret->level = level_names[entry->plan.level];
}

static void param_run(struct entry *entries, unsigned count, const struct workload *load, unsigned number,
		      const struct bench_options *opt)
{
	const struct param *param = &load->params[number];
	struct bench_result results[ENTRY_MAX];
	char name[32];

	if (!alloc_param_wanted(opt, param->name))
		return;
	for (unsigned i = 0; i < count; i++)
		entries[i].meter.param = param->tx_op_count;
	entries_run(entries, count, opt);
	for (unsigned i = 0; i < count; i++)
		entry_summarize(&entries[i], entries[i].steps[number], opt->reps, &results[i]);
	if (!load->levels)
		bench_report(opt, load->bench, param->name, NULL, &param->target, results, count);
	for (unsigned i = 0; load->levels && i < count; i++) {
		/* people do not see the field */
		snprintf(name, sizeof name, "%s %s", param->name, level_names[entries[i].plan.level]);
		bench_report(opt, load->bench, opt->json ? param->name : name, NULL, &param->target,
			     &results[i], 1);
	}
}

static bool workload_wanted(const struct workload *load, const struct bench_options *opt)
{
	for (unsigned i = 0; i < load->param_count; i++)
		if (alloc_param_wanted(opt, load->params[i].name))
			return true;
	return false;
}

static void workload_run(const struct workload *load, const struct bench_options *opt)
{
	static struct entry entries[ENTRY_MAX];
	unsigned count = workload_wanted(load, opt) ? entries_find(entries, load, opt) : 0;

	/* before any heap is open here: the steps are counted in children */
	for (unsigned i = 0; i < count; i++)
		steps_count(&entries[i], load, opt);
	for (unsigned i = 0; i < count; i++) {
		struct entry *entry = &entries[i];

		entry->heap = entry->system->open(&entry->plan);
		entry->plan.shared->enter_count = 0;
		entry->worker = entry->system->enter(entry->heap);
		entry->meter = (struct bench_meter){
			.loop = load->loop(entry->system), .self = entry->worker, .rng = BENCH_SEED};
	}
	for (unsigned i = 0; i < load->param_count; i++)
		param_run(entries, count, load, i, opt);
	for (unsigned i = 0; i < count; i++) {
		struct entry *entry = &entries[i];

		entry->system->check(entry->worker);
		entry->system->leave(entry->worker);
		entry->system->close(entry->heap);
		alloc_folder_remove(entry->plan.folder);
		free(entry->plan.shared);
	}
}

static bench_loop *churn_of(const struct alloc_system *system)
{
	return system->churn;
}

static bench_loop *huge_of(const struct alloc_system *system)
{
	return system->huge;
}

void bench_churn_mixed(const struct bench_options *opt)
{
	static const struct workload load = {
		.bench = "churn-mixed",
		.loop = churn_of,
		.heap_size = 256u << 20,
		.slot_count = ALLOC_SLOT_COUNT,
		.fill = true,
		.param_count = 2,
		.params =
			{
				{"1", 1, {.pmemobj_ratio_min = 10, .base = "mimalloc"}},
				{"100",
				 100,
				 {.pmemobj_ratio_min = 15, .base = "mimalloc", .base_ratio_max = 2.5}},
			},
	};
	/* with more, EPOCH and SYNC would show what it costs to log nearly all pages between two checkpoints */
	static const struct workload levels = {
		.bench = "churn-mixed",
		.loop = churn_of,
		.heap_size = 256u << 20,
		.slot_count = 4000,
		.fill = true,
		.levels = true,
		.param_count = 1,
		.params = {{"100-of-4000", 100, {0}}},
	};

	workload_run(&load, opt);
	workload_run(&levels, opt);
	alloc_churn_threads(opt);
}

void bench_huge(const struct bench_options *opt)
{
	static const struct workload load = {
		.bench = "huge",
		.loop = huge_of,
		.heap_size = 1u << 30,
		.slot_count = 8,
		.param_count = 1,
		.params = {{"1", 1, {.base = "malloc"}}},
	};

	workload_run(&load, opt);
}
