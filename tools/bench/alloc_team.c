/* SPDX-License-Identifier: MIT
 *
 * alloc_team.c: allocation by several threads: churn-mixed with 2 and 4 of them, producer-consumer, larson,
 * cache-scratch. Times are of the wall clock, divided by the operations of all threads.
 *
 *   churn-mixed        each thread has its part of the slots
 *   producer-consumer  one thread allocates, another frees; a ring in ordinary memory hands the blocks over
 *   larson             sets of 1000 slots; after 1000 operations a thread passes its set on and takes the
 *                      one that waits, so that many blocks are freed by others than who allocated them
 *   cache-scratch      each thread first frees one of several neighbouring blocks of 16 bytes that the main
 *                      thread made, then goes on: allocate one, store to it 100 times, free it. An
 *                      allocator that gives the freed neighbours to several threads has them share a line
 *
 * Why in processes of their own: the threads stay between turns, and no heap is open where they are forked.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "alloc.h"
#include "team.h"

#define HEAP_SIZE (256u << 20)
#define LARSON_SLOT_COUNT 1000u
#define LARSON_ROUND_COUNT 1000u /* operations with one set */
#define TURN_OP_COUNT 100u	 /* operations between two looks at the turn */
#define SPIN_COUNT 200u		 /* before a thread that waits lets others run */
#define PARAM_MAX 2
#define CREW_MAX (ALLOC_SYSTEM_MAX + 1)

struct param {
	unsigned tx_op_count;
	struct bench_target target;
};

struct workload {
	const char *bench;
	void (*run)(void *self, struct team_worker *w);
	unsigned process_count, thread_count; /* threads of each process */
	unsigned set_count, slot_count;
	bool fill;
	bool one_thread; /* pheap's rate is compared with that of one thread */
	unsigned param_count;
	struct param params[PARAM_MAX];
};

/* A system with its threads. */
struct crew {
	const struct alloc_system *system;
	const struct workload *load;
	struct alloc_plan plan;
	struct team *team;
	double ns[BENCH_REP_MAX];
};

/* In the children: what the team's plan has no room for. */
static const struct crew *crew_here;

static bool turn_over(const struct team_worker *w)
{
	return __atomic_load_n(w->turn, __ATOMIC_RELAXED) != w->turn_mine;
}

static bool op_next(struct team_worker *w, uint64_t op_count)
{
	__atomic_store_n(&w->slot->count, w->slot->count + op_count, __ATOMIC_RELAXED);
	return !turn_over(w);
}

static unsigned param_of(const void *self)
{
	const struct alloc_member *member = self;

	return member->plan->shared->param;
}

static void churn_run(void *self, struct team_worker *w)
{
	unsigned param = param_of(self), tx_count = param < TURN_OP_COUNT ? TURN_OP_COUNT / param : 1;

	do
		crew_here->system->churn(self, &w->rng, param, tx_count);
	while (op_next(w, (uint64_t)tx_count * param));
}

static void wait_step(unsigned *spins)
{
	if (++*spins % SPIN_COUNT == 0)
		sched_yield();
}

/* Operations count when the block is freed. */
static void handover_run(void *self, struct team_worker *w)
{
	const struct alloc_member *member = self;
	const struct alloc_system *system = crew_here->system;
	unsigned param = param_of(self), spins = 0;

	while (!turn_over(w)) {
		if (member->index % 2 == 0 ? system->produce(self, &w->rng, param)
					   : system->consume(self, param))
			op_next(w, member->index % 2 == 0 ? 0 : param);
		else
			wait_step(&spins);
	}
}

static void larson_run(void *self, struct team_worker *w)
{
	struct alloc_member *member = self;
	unsigned param = param_of(self);
	uint32_t set;

	do {
		crew_here->system->churn(self, &w->rng, param, LARSON_ROUND_COUNT / param);
		set = member->first / member->slot_count;
		set = __atomic_exchange_n(&member->plan->shared->set_spare, set, __ATOMIC_ACQ_REL);
		crew_here->system->set_use(self, set);
	} while (op_next(w, LARSON_ROUND_COUNT / param * param));
}

static void scratch_run(void *self, struct team_worker *w)
{
	do
		crew_here->system->scratch(self, &w->rng, 1, 10);
	while (op_next(w, 10));
}

/* ---- the children's side of a team */

static void *crew_join(const void *arg)
{
	crew_here = arg;
	return crew_here->system->open(&crew_here->plan);
}

static void *crew_enter(void *heap)
{
	return crew_here->system->enter(heap);
}

static void crew_ready(void *self)
{
	if (!crew_here->load->fill)
		return;
	crew_here->system->check(self);
	crew_here->system->populate(self);
}

/* ---- the program's side */

static struct alloc_shared *shared_make(const struct workload *load)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
	struct alloc_shared *shared = mmap(NULL, sizeof *shared, prot, flags, -1, 0);

	if (shared == MAP_FAILED)
		bench_die("mmap failed");
	/* before the first turn the threads have sets 0 and up */
	shared->set_spare = load->set_count - 1;
	return shared;
}

static void crew_start(struct crew *crew, const struct bench_options *opt, unsigned number,
		       unsigned thread_count)
{
	const struct workload *load = crew->load;
	unsigned worker_count = load->process_count * thread_count;
	const struct team_plan plan = {
		.name = load->bench,
		.process_count = load->process_count,
		.thread_count = thread_count,
		.pinned = true,
		.arg = crew,
		.join = crew_join,
		.enter = crew_enter,
		.populate = crew_ready,
		.run = load->run,
	};

	crew->plan = (struct alloc_plan){
		.folder = alloc_folder_make(opt, number),
		.heap_size = HEAP_SIZE,
		.thread_count = worker_count,
		.set_count = load->set_count ? load->set_count : worker_count,
		.slot_count = load->set_count ? load->slot_count : load->slot_count / worker_count,
		.fill = load->fill,
		.shared = shared_make(load),
	};
	crew->team = team_start(&plan);
}

static void crew_end(struct crew *crew)
{
	team_end(crew->team);
	alloc_folder_remove(crew->plan.folder);
	munmap(crew->plan.shared, sizeof *crew->plan.shared);
}

static void crews_run(struct crew *crews, unsigned count, unsigned tx_op_count,
		      const struct bench_options *opt)
{
	uint64_t turn_ns = opt->quick ? 25000000 : 200000000;

	/* repetition 0 warms up, and is overwritten */
	for (unsigned turn = 0; turn <= opt->reps; turn++)
		for (unsigned i = 0; i < count; i++) {
			struct crew *crew = &crews[(i + turn) % count];
			struct team_turn result;

			crew->plan.shared->param = tx_op_count;
			team_turn(crew->team, turn_ns, NULL, &result);
			crew->ns[turn ? turn - 1 : 0] = result.wall_ns;
		}
}

static void param_name(const struct workload *load, unsigned number, char *ret, size_t n)
{
	snprintf(ret, n, "%u%s", load->params[number].tx_op_count,
		 load->process_count > 1 ? "-processes" : "");
}

/* one_thread: of the last crew, which is no result of its own. */
static void param_run(struct crew *crews, unsigned count, bool one_thread, const struct workload *load,
		      unsigned number, const struct bench_options *opt)
{
	struct bench_result results[CREW_MAX] = {0};
	struct bench_target target = load->params[number].target;
	char name[32], text[64];

	param_name(load, number, name, sizeof name);
	if (!alloc_param_wanted(opt, name))
		return;
	crews_run(crews, count, load->params[number].tx_op_count, opt);
	for (unsigned i = 0; i < count; i++) {
		results[i].system = crews[i].system->name;
		results[i].threads = crews[i].plan.thread_count;
		results[i].instructions = -1;
		bench_summarize(crews[i].ns, opt->reps, &results[i]);
	}
	if (one_thread)
		target.one_thread_ns = results[--count].value;
	/* people do not see the field */
	snprintf(text, sizeof text, "%s, %u threads", name, load->thread_count);
	bench_report(opt, load->bench, opt->json || load->process_count > 1 ? name : text, NULL, &target,
		     results, count);
}

static bool workload_wanted(const struct workload *load, const struct bench_options *opt)
{
	char name[32];

	for (unsigned i = 0; i < load->param_count; i++) {
		param_name(load, i, name, sizeof name);
		if (alloc_param_wanted(opt, name))
			return true;
	}
	return false;
}

static void workload_run(const struct workload *load, const struct bench_options *opt)
{
	static struct crew crews[CREW_MAX];
	const struct alloc_system *systems[ALLOC_SYSTEM_MAX];
	unsigned system_count = alloc_systems_find(opt, load->bench, systems), count = 0;
	bool one_thread = false;

	if (!workload_wanted(load, opt))
		return;
	for (unsigned i = 0; i < system_count; i++) {
		if (load->process_count > 1 && !systems[i]->processes)
			continue;
		crews[count] = (struct crew){.system = systems[i], .load = load};
		crew_start(&crews[count], opt, count, load->thread_count);
		count++;
	}
	if (load->one_thread && count && crews[0].system == &alloc_pheap) {
		crews[count] = (struct crew){.system = &alloc_pheap, .load = load};
		crew_start(&crews[count], opt, count, 1);
		count++;
		one_thread = true;
	}
	for (unsigned i = 0; i < load->param_count; i++)
		param_run(crews, count, one_thread, load, i, opt);
	for (unsigned i = 0; i < count; i++)
		crew_end(&crews[i]);
}

#define TWO_THREADS \
	{ \
		.pmemobj_ratio_min = 12, .base = "mimalloc", .rate_ratio_min = 1.7 \
	}

/* The slots are shared out among the threads. */
void alloc_churn_threads(const struct bench_options *opt)
{
	static const struct workload loads[] = {
		{
			.bench = "churn-mixed",
			.run = churn_run,
			.process_count = 1,
			.thread_count = 2,
			.slot_count = ALLOC_SLOT_COUNT,
			.fill = true,
			.one_thread = true,
			.param_count = 2,
			.params = {{1, TWO_THREADS}, {100, TWO_THREADS}},
		},
		{
			.bench = "churn-mixed",
			.run = churn_run,
			.process_count = 1,
			.thread_count = 4,
			.slot_count = ALLOC_SLOT_COUNT,
			.fill = true,
			.one_thread = true,
			.param_count = 2,
			.params = {{1, {.base = "mimalloc"}}, {100, {.base = "mimalloc"}}},
		},
	};

	for (unsigned i = 0; i < sizeof loads / sizeof *loads; i++)
		workload_run(&loads[i], opt);
}

void bench_producer_consumer(const struct bench_options *opt)
{
	static const struct workload loads[] = {
		{
			.bench = "producer-consumer",
			.run = handover_run,
			.process_count = 1,
			.thread_count = 2,
			.set_count = 2,
			.slot_count = 1,
			.param_count = 2,
			.params = {{1, {.base = "mimalloc"}}, {64, {.base = "mimalloc"}}},
		},
		{
			.bench = "producer-consumer",
			.run = handover_run,
			.process_count = 2,
			.thread_count = 1,
			.set_count = 2,
			.slot_count = 1,
			.param_count = 2,
			.params = {{1, {.base = "boost"}}, {64, {.base = "boost"}}},
		},
	};

	for (unsigned i = 0; i < sizeof loads / sizeof *loads; i++)
		workload_run(&loads[i], opt);
}

void bench_larson(const struct bench_options *opt)
{
	static const struct workload load = {
		.bench = "larson",
		.run = larson_run,
		.process_count = 1,
		.thread_count = 2,
		.set_count = 3,
		.slot_count = LARSON_SLOT_COUNT,
		.fill = true,
		.param_count = 2,
		.params = {{1, {.base = "mimalloc"}}, {100, {.base = "mimalloc"}}},
	};

	workload_run(&load, opt);
}

void bench_cache_scratch(const struct bench_options *opt)
{
	static const struct workload load = {
		.bench = "cache-scratch",
		.run = scratch_run,
		.process_count = 1,
		.thread_count = 2,
		.set_count = 2,
		.slot_count = 1,
		.one_thread = true,
		.param_count = 1,
		.params = {{1, {.base = "mimalloc"}}},
	};

	workload_run(&load, opt);
}
