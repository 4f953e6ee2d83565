/* SPDX-License-Identifier: MIT
 *
 * ranges.c: many-ranges: what one range costs in a transaction that has 1 k to 1 M of them.
 *
 * What: the loop of modify-words with so many words, each a range of its own; time and instructions are divided by
 * their number. pheap's cost should not depend on it: the last line compares the largest with the smallest.
 * Why not the frame of transactions.c: one operation is up to a second here. Why no floor: its log is of
 * fixed size; the limit shows what the cache misses alone take.
 */
#include <stdio.h>

#include "bench.h"

#define RANGES_SAMPLE 1000000u /* ranges in one sample, at least */
#define REP_MAX 15u
#define LINEAR_MAX 2.0 /* target: time of a range among 1 M / among 1 k */

struct player {
	const struct bench_system *system;
	struct bench_meter meter;
	double ns[REP_MAX];
};

static unsigned players_open(struct player *players, const char *folder)
{
	unsigned count = 0;

	for (unsigned i = 0; bench_systems[i]; i++) {
		struct bench_meter *m = &players[count].meter;

		if (!bench_systems[i]->words || bench_systems[i] == &bench_floor)
			continue;
		players[count++].system = bench_systems[i];
		m->loop = bench_systems[i]->words;
		m->self = bench_systems[i]->open(folder);
		m->array = bench_systems[i]->array(m->self);
		m->rng = BENCH_SEED;
	}
	return count;
}

/* Returns the median of pheap. */
static double ranges_run(const struct bench_options *opt, struct player *players, unsigned count,
			 unsigned ranges)
{
	static const struct bench_target none;
	const unsigned reps = opt->reps < REP_MAX ? opt->reps : REP_MAX;
	struct bench_result results[BENCH_SYSTEM_MAX + 1];
	double pheap_ns = 0, instructions;
	char param[16];

	for (unsigned rep = 0; rep < reps; rep++)
		for (unsigned i = 0; i < count; i++) {
			struct player *p = &players[(i + rep) % count];

			p->meter.param = ranges;
			p->meter.op_count = RANGES_SAMPLE / ranges;
			p->ns[rep] = bench_sample_ns(&p->meter, &instructions) / ranges;
		}
	for (unsigned i = 0; i < count; i++) {
		results[i] = (struct bench_result){
			.system = players[i].system->name, .threads = 1, .instructions = -1};
		bench_summarize(players[i].ns, reps, &results[i]);
		if (players[i].system == &bench_pheap)
			pheap_ns = results[i].value;
	}
	snprintf(param, sizeof param, "%u", ranges);
	bench_report(opt, "many-ranges", param, NULL, &none, results, count);
	return pheap_ns;
}

void bench_many_ranges(const struct bench_options *opt)
{
	static struct player players[BENCH_SYSTEM_MAX + 1];
	unsigned count = players_open(players, opt->folder);
	double first = 0, last = 0;

	for (unsigned ranges = 1000; ranges <= RANGES_SAMPLE; ranges *= 10) {
		last = ranges_run(opt, players, count, ranges);
		first = first > 0 ? first : last;
	}
	for (unsigned i = 0; i < count; i++)
		players[i].system->close(players[i].meter.self);
	fprintf(opt->json ? stderr : stdout,
		"many-ranges: one of 1 M takes pheap %.2fx the time of one of 1 k (<= %g) %s\n", last / first,
		LINEAR_MAX, last / first <= LINEAR_MAX ? "ok" : "MISSED");
}
