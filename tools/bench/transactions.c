/* SPDX-License-Identifier: MIT
 *
 * transactions.c: modify-words, record-64, records-10x64, block-4k, defer-words, push-pop: loops of small
 * transactions on one thread.
 *
 * What: all systems are open at once; within each repetition they take turns, and who goes first rotates,
 * so that a slow moment of the machine meets all of them.
 */
#include <stdio.h>

#include "bench.h"

struct turn {
	const struct bench_system *system;
	struct bench_meter meter;
	double ns[BENCH_REP_MAX], instructions[BENCH_REP_MAX];
	double step_count;
};

typedef bench_loop *loop_of(const struct bench_system *system);

static bench_loop *words_of(const struct bench_system *system)
{
	return system->words;
}

static bench_loop *records_of(const struct bench_system *system)
{
	return system->records;
}

static bench_loop *push_pop_of(const struct bench_system *system)
{
	return system->push_pop;
}

static bench_loop *blocks_of(const struct bench_system *system)
{
	return system->blocks;
}

static bench_loop *defers_of(const struct bench_system *system)
{
	return system->defers;
}

struct opener {
	const struct bench_system *system;
	const char *folder;
};

static void *opener_open(const void *arg)
{
	const struct opener *opener = arg;

	return opener->system->open(opener->folder);
}

static unsigned turns_open(struct turn *turns, loop_of *loop, unsigned param, const struct bench_options *opt)
{
	unsigned count = 0;

	/* before any heap is open here: the steps are counted in children */
	for (unsigned i = 0; bench_systems[i]; i++) {
		struct turn *turn = &turns[count];

		turn->system = bench_systems[i];
		turn->meter.loop = loop(turn->system);
		if (!turn->meter.loop)
			continue;
		turn->step_count = -1;
		if (!bench_counter_open()) {
			const struct opener opener = {turn->system, opt->folder};
			const struct bench_steps steps = {opener_open, &opener, turn->meter.loop, param};

			turn->step_count = bench_step_count(&steps, opt->quick);
		}
		count++;
	}
	for (unsigned i = 0; i < count; i++) {
		struct bench_meter *m = &turns[i].meter;

		m->self = turns[i].system->open(opt->folder);
		m->array = turns[i].system->array(m->self);
		m->rng = BENCH_SEED;
		m->param = param;
	}
	return count;
}

static void turns_run(struct turn *turns, unsigned count, const struct bench_options *opt)
{
	uint64_t sample_ns = opt->quick ? 2000000 : 5000000;

	for (unsigned i = 0; i < count; i++)
		bench_calibrate(&turns[i].meter, sample_ns);
	for (unsigned rep = 0; rep < opt->reps; rep++)
		for (unsigned i = 0; i < count; i++) {
			struct turn *turn = &turns[(i + rep) % count];

			turn->ns[rep] = bench_sample_ns(&turn->meter, &turn->instructions[rep]);
		}
}

static void transactions(const struct bench_options *opt, const char *bench, loop_of *loop, unsigned param,
			 const struct bench_target *target)
{
	static struct turn turns[BENCH_SYSTEM_MAX + 1];
	struct bench_result results[BENCH_SYSTEM_MAX + 1];
	unsigned count = turns_open(turns, loop, param, opt);
	char name[16];

	turns_run(turns, count, opt);
	for (unsigned i = 0; i < count; i++) {
		struct bench_result instructions = {0};

		turns[i].system->close(turns[i].meter.self);
		results[i] = (struct bench_result){.system = turns[i].system->name, .threads = 1};
		bench_summarize(turns[i].instructions, opt->reps, &instructions);
		bench_summarize(turns[i].ns, opt->reps, &results[i]);
		results[i].instructions = instructions.value;
		if (instructions.value < 0)
			results[i].instructions = turns[i].step_count;
	}
	snprintf(name, sizeof name, "%u", param);
	bench_report(opt, bench, name, NULL, target, results, count);
}

void bench_modify_words(const struct bench_options *opt)
{
	static const struct {
		unsigned count;
		struct bench_target target;
	} rows[] = {
		{1, {.pmemobj_ratio_min = 6, .floor_ratio_max = 1.4, .instructions_max = 200}},
		{4, {.pmemobj_ratio_min = 8, .floor_ratio_max = 1.5}},
		{16, {.pmemobj_ratio_min = 12, .floor_ratio_max = 1.5}},
		{64, {.pmemobj_ratio_min = 12, .floor_ratio_max = 1.5}},
	};

	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
		transactions(opt, "modify-words", words_of, rows[i].count, &rows[i].target);
}

void bench_record_64(const struct bench_options *opt)
{
	static const struct bench_target target = {.pmemobj_ratio_min = 6, .floor_ratio_max = 1.5};

	transactions(opt, "record-64", records_of, 1, &target);
}

void bench_records_10x64(const struct bench_options *opt)
{
	static const struct bench_target target = {.pmemobj_ratio_min = 12, .floor_ratio_max = 1.5};

	transactions(opt, "records-10x64", records_of, 10, &target);
}

void bench_block_4k(const struct bench_options *opt)
{
	static const struct bench_target target = {.pmemobj_ratio_min = 2.5, .floor_ratio_max = 1.5};

	transactions(opt, "block-4k", blocks_of, BENCH_BLOCK_SIZE, &target);
}

void bench_defer_words(const struct bench_options *opt)
{
	static const struct bench_target none;

	for (unsigned count = 1; count <= 64; count *= 4)
		transactions(opt, "defer-words", defers_of, count, &none);
}

void bench_push_pop(const struct bench_options *opt)
{
	static const struct bench_target target = {.pmemobj_ratio_min = 10, .value_max = 150};

	bench_push_pop_skip(opt);
	transactions(opt, "push-pop", push_pop_of, BENCH_NODE_SIZE, &target);
}
