/* SPDX-License-Identifier: MIT
 *
 * map.c: the benches hash-insert, hash-lookup and hash-remove: see map.h.
 *
 * What: in each repetition every system puts all keys into an empty map, looks each of them up and removes
 * them, in another order than they came; systems take turns after each of these three, who goes first
 * rotates.
 * Lookups of libpmemobj and limit are bare loads; pheap's and LMDB's are of one moment, also while others
 * change the map. pheap-bare is what pheap's would be without that.
 * Why one run for three benches: each needs what the others do. Whoever is asked first measures, and the
 * others report what is known then.
 */
#include <stdio.h>

#include "map.h"

#define KEY_COUNT 1000000u
#define KEY_COUNT_QUICK 100000u
#define REP_MAX 5u
#define STEP_KEY_COUNT 8192u /* more than what is done while instructions are counted */

static const struct map_system *const systems[] = {
	&map_pheap,
#ifdef BENCH_PMEMOBJ
	&map_pmemobj,
#endif
#ifdef BENCH_LMDB
	&map_lmdb,
#endif
	&map_limit,
};
#define SYSTEM_COUNT (sizeof systems / sizeof *systems)

enum phase { INSERT, LOOKUP, LOOKUP_BARE, REMOVE, PHASE_COUNT };

struct player {
	const struct map_system *system;
	void *self;
	double ns[PHASE_COUNT][REP_MAX], instructions[PHASE_COUNT];
};
static struct player players[SYSTEM_COUNT];

static map_loop *loop_of(const struct map_system *system, enum phase phase)
{
	map_loop *const loops[PHASE_COUNT] = {system->insert, system->lookup, system->lookup_bare,
					      system->remove};

	return loops[phase];
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b) {
		const uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/* Keys come in the order of their numbers and go in another one, far from it. */
static struct map_walk walk_of(enum phase phase, uint64_t total)
{
	uint64_t stride = total / 1000 * 618 + 1;

	while (gcd(stride, total) != 1)
		stride++;
	return (struct map_walk){0, phase == INSERT ? 1 : stride, total};
}

/* ---- instructions, of a small map in a child */

struct step_arg {
	const struct map_system *system;
	const char *folder;
	enum phase phase;
};

struct step_map {
	map_loop *loop;
	void *self;
	struct map_walk walk;
};

static void *step_open(const void *arg)
{
	static struct step_map map;
	const struct step_arg *a = arg;
	struct map_walk fill = walk_of(INSERT, STEP_KEY_COUNT);

	map.loop = loop_of(a->system, a->phase);
	map.self = a->system->open(a->folder, STEP_KEY_COUNT);
	/* half full for the first */
	a->system->insert(map.self, &fill, a->phase == INSERT ? STEP_KEY_COUNT / 2 : STEP_KEY_COUNT);
	map.walk = a->phase == INSERT ? fill : walk_of(a->phase, STEP_KEY_COUNT);
	return &map;
}

static void step_loop(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct step_map *map = self;

	(void)rng;
	(void)param;
	map->loop(map->self, &map->walk, op_count);
}

static void steps_count(struct player *p, const struct bench_options *opt)
{
	for (unsigned phase = 0; phase < PHASE_COUNT; phase++) {
		const struct step_arg arg = {p->system, opt->folder, (enum phase)phase};
		const struct bench_steps steps = {step_open, &arg, step_loop, 1};

		if (loop_of(p->system, arg.phase))
			p->instructions[phase] = bench_step_count(&steps, opt->quick);
	}
}

/* ---- the bench */

static void player_turn(struct player *p, enum phase phase, uint64_t key_count, unsigned rep)
{
	struct map_walk walk = walk_of(phase, key_count);
	map_loop *loop = loop_of(p->system, phase);
	struct bench_span span;

	if (!loop)
		return;
	bench_span_begin(&span);
	loop(p->self, &walk, key_count);
	p->ns[phase][rep] = (double)bench_span_end_ns(&span) / (double)key_count;
	if (p->system->count(p->self) != (phase == REMOVE ? 0 : key_count))
		bench_die("%s: the map has %llu keys", p->system->name,
			  (unsigned long long)p->system->count(p->self));
}

static void players_run(uint64_t key_count, unsigned reps, const struct bench_options *opt)
{
	/* in children, so before any heap is open here */
	for (unsigned i = 0; i < SYSTEM_COUNT; i++) {
		players[i].system = systems[i];
		steps_count(&players[i], opt);
	}
	for (unsigned i = 0; i < SYSTEM_COUNT; i++)
		players[i].self = systems[i]->open(opt->folder, key_count);
	for (unsigned rep = 0; rep < reps; rep++)
		for (unsigned phase = 0; phase < PHASE_COUNT; phase++)
			for (unsigned i = 0; i < SYSTEM_COUNT; i++)
				player_turn(&players[(i + rep) % SYSTEM_COUNT], (enum phase)phase, key_count,
					    rep);
	for (unsigned i = 0; i < SYSTEM_COUNT; i++)
		systems[i]->close(players[i].self);
}

static void result_set(struct bench_result *ret, const char *name, struct player *p, enum phase phase,
		       unsigned reps)
{
	*ret = (struct bench_result){.system = name, .threads = 1, .instructions = p->instructions[phase]};
	bench_summarize(p->ns[phase], reps, ret);
}

static void phase_report(const struct bench_options *opt, const char *bench, enum phase phase)
{
	static const struct bench_target no_target;
	static bool done;
	struct bench_result results[SYSTEM_COUNT + 1];
	const unsigned reps = opt->reps < REP_MAX ? opt->reps : REP_MAX;
	unsigned count = 0;

	if (!done)
		players_run(opt->quick ? KEY_COUNT_QUICK : KEY_COUNT, reps, opt);
	done = true;
	for (unsigned i = 0; i < SYSTEM_COUNT; i++) {
		result_set(&results[count++], systems[i]->name, &players[i], phase, reps);
		if (phase == LOOKUP && systems[i]->lookup_bare)
			result_set(&results[count++], "pheap-bare", &players[i], LOOKUP_BARE, reps);
	}
	bench_report(opt, bench, opt->quick ? "100k" : "1M", NULL, &no_target, results, count);
}

void bench_hash_insert(const struct bench_options *opt)
{
	phase_report(opt, "hash-insert", INSERT);
}

void bench_hash_lookup(const struct bench_options *opt)
{
	phase_report(opt, "hash-lookup", LOOKUP);
}

void bench_hash_remove(const struct bench_options *opt)
{
	phase_report(opt, "hash-remove", REMOVE);
}
