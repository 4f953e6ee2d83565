/* SPDX-License-Identifier: MIT
 *
 * sync.c: the bench sync-commit: see sync.h.
 *
 * What: pheap, the bare flush and the peers take turns within each repetition, who goes first rotates. Where
 * a figure is judged by what one thread with one record does (`pheap-one`), that has its turns in the same
 * run, in a heap of its own: flushes of one hour are not those of the next.
 * Why each plan is run by this program started anew: libpmem reads its environment before main, and here it
 * shall flush.
 * Threads are where the kernel puts them: they mostly sleep.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "latency.h"
#include "sync.h"
#include "team.h"

#define RECORD_COUNT (4u << 20 >> 6) /* in 4 MiB */
#define RUN_NS 250000000u
#define RUN_NS_QUICK 100000000u
#define WARM_NS 300000000u
#define REP_MAX 9u

static const struct {
	const char *name;
	const struct sync_system *system; /* NULL: not in this build */
} systems[] = {
	{"pheap", &sync_pheap},
	{"limit", &sync_limit},
#ifdef BENCH_PMEMOBJ
	{"libpmemobj", &sync_pmemobj},
#else
	{"libpmemobj", NULL},
#endif
#ifdef BENCH_LMDB
	{"lmdb", &sync_lmdb},
#else
	{"lmdb", NULL},
#endif
#ifdef BENCH_SQLITE
	{"sqlite", &sync_sqlite},
#else
	{"sqlite", NULL},
#endif
#ifdef BENCH_BDB
	{"bdb", &sync_bdb},
	{"bdb-queue", &sync_bdb_queue},
#else
	{"bdb", NULL},
#endif
};
#define SYSTEM_COUNT (sizeof systems / sizeof *systems)
#define PEER_FIRST 2u
#define ONE SYSTEM_COUNT /* the row of pheap-one */
#define ROW_COUNT (SYSTEM_COUNT + 1)
#define ONE_NAME "pheap-one"

static const struct {
	struct sync_plan plan;
	struct bench_target target; /* with a base: pheap-one takes part */
} configs[] = {
	{{"1", 1, 1, 1, 0, 0, false}, {.limit_ratio_max = 1.3, .best_peer_ratio_min = 1}},
	{{"4", 4, 1, 1, 0, 0, false}, {.best_peer_ratio_min = 1, .base = ONE_NAME}},
	{{"16", 16, 1, 1, 0, 0, false}, {.best_peer_ratio_min = 1, .base = ONE_NAME, .base_ratio_max = 1.25}},
	/* nearly each update meets a page that was not changed since the last checkpoint */
	{{"1-of-64MiB", 1, 1, 1, 0, BENCH_RECORD_COUNT, true}, {.base = ONE_NAME}},
	{{"1-2-threads", 1, 1, 2, 0, 0, false}, {.base = ONE_NAME}},
	{{"1-4-threads", 1, 1, 4, 0, 0, false}, {.base = ONE_NAME}},
	{{"1-16-threads", 1, 1, 16, 0, 0, false}, {.base = ONE_NAME, .base_ratio_min = 4}},
	{{"1-32-threads", 1, 1, 32, 0, 0, false},
	 {.base = ONE_NAME, .best_peer_ratio_min = 4, .limit_ratio_max = 1}},
	{{"1-64-threads", 1, 1, 64, 0, 0, false}, {.base = ONE_NAME, .base_ratio_min = 8}},
	{{"1-4x4-threads", 1, 4, 4, 0, 0, false}, {.base = ONE_NAME, .base_ratio_min = 4}},
	{{"1-pipelined", 1, 1, 1, 1024, 0, false}, {.base = ONE_NAME, .base_ratio_min = 100}},
};
#define CONFIG_COUNT (sizeof configs / sizeof *configs)

/* What the process that has measured tells; reps 0: did not take part, and `why`, if that is to be said. */
struct row {
	double value, min, max, p50, p90, p99;
	unsigned reps;
	char why[256];
};

/* ---- one player of a plan */

struct player {
	const struct sync_system *system;
	struct sync_plan plan;
	struct team *team;
	struct row *row;
	char path[4096];
	double wall_ns[REP_MAX];
};

/* What a thread's turns are given. */
struct seat {
	const struct player *player;
	void *self;
};

static void draw(uint64_t *rng, const struct sync_plan *plan, struct sync_update *ret)
{
	ret->count = 0;
	while (ret->count < plan->range_count) {
		uint64_t number = (bench_random(rng) >> 32) * plan->record_count >> 32;
		unsigned i = ret->count;

		while (i && ret->records[i - 1] >= number)
			i--;
		if (i < ret->count && ret->records[i] == number)
			continue;
		memmove(&ret->records[i + 1], &ret->records[i], (ret->count - i) * sizeof number);
		ret->records[i] = number;
		ret->count++;
	}
	for (unsigned i = 0; i < BENCH_RECORD_SIZE / 8; i++)
		ret->words[i] = *rng + i;
}

static void *player_join(const void *arg)
{
	static struct seat seat;
	const struct player *p = arg;

	seat.player = p;
	seat.self = p->system->join(p->path, &p->plan);
	return &seat;
}

static void *seat_enter(void *self)
{
	const struct seat *joined = self;
	struct seat *seat = malloc(sizeof *seat);

	if (!seat)
		bench_die("sync-commit: no memory");
	*seat = *joined;
	if (seat->player->system->enter)
		seat->self = seat->player->system->enter(seat->self);
	return seat;
}

static void seat_run(void *self, struct team_worker *w)
{
	const struct seat *seat = self;
	const struct sync_system *system = seat->player->system;
	struct sync_update u;

	do {
		uint64_t start_ns;

		draw(&w->rng, &seat->player->plan, &u);
		start_ns = bench_clock_ns(CLOCK_MONOTONIC);
		system->update(seat->self, &u);
		latency_add(w->note, bench_clock_ns(CLOCK_MONOTONIC) - start_ns);
	} while (team_next(w));
	if (system->drain)
		system->drain(seat->self);
}

/* False: it does not take part. */
static bool player_make(struct player *p)
{
	pid_t pid = bench_fork();

	if (!pid) {
		const char *why = p->system->make(p->path, &p->plan);

		if (why)
			snprintf(p->row->why, sizeof p->row->why, "%s", why);
		_exit(0);
	}
	bench_wait_ok(pid, p->system->name);
	return !*p->row->why;
}

static bool player_start(struct player *p, const struct sync_system *system, const char *name,
			 const char *folder, const struct sync_plan *plan, struct row *row)
{
	struct team_plan team = {
		.name = name,
		.process_count = plan->process_count,
		.thread_count = plan->thread_count,
		.note_size = sizeof(struct latency),
		.arg = p,
		.join = player_join,
		.enter = seat_enter,
		.run = seat_run,
	};

	p->system = system;
	p->plan = *plan;
	p->row = row;
	if (system->one_process) {
		p->plan.process_count = team.process_count = 1;
		p->plan.thread_count = team.thread_count = plan->process_count * plan->thread_count;
	}
	snprintf(p->path, sizeof p->path, "%s/sync-%s", folder, name);
	if (mkdir(p->path, 0700))
		bench_die("%s: %s", p->path, strerror(errno));
	snprintf(p->path, sizeof p->path, "%s/sync-%s/data", folder, name);
	if (!player_make(p))
		return false;
	p->team = team_start(&team);
	return true;
}

static void player_end(struct player *p, unsigned reps)
{
	const unsigned workers = p->plan.process_count * p->plan.thread_count;
	struct bench_result result = {0};
	struct latency sum = {0};

	for (unsigned i = 0; i < workers; i++)
		latency_sum(&sum, team_note(p->team, i));
	team_end(p->team);
	bench_summarize(p->wall_ns, reps, &result);
	p->row->value = result.value;
	p->row->min = result.min;
	p->row->max = result.max;
	p->row->reps = reps;
	if (p->plan.ticket_count) /* the time of a call says nothing */
		return;
	p->row->p50 = latency_part(&sum, 0.5);
	p->row->p90 = latency_part(&sum, 0.9);
	p->row->p99 = latency_part(&sum, 0.99);
}

/* ---- one plan, in a process of its own */

struct order {
	unsigned quick, reps;
	uint64_t record_count;
	char systems[64]; /* names with commas between them; "-": all */
};

static bool in_list(const char *list, const char *name)
{
	const size_t n = strlen(name);

	for (; list; list = strchr(list, ','), list += list != NULL)
		if (!strncmp(list, name, n) && (list[n] == ',' || !list[n]))
			return true;
	return false;
}

static void plan_set(struct sync_plan *ret, unsigned config, const struct order *order)
{
	*ret = configs[config].plan;
	if (!ret->record_count)
		ret->record_count = order->record_count ? order->record_count : RECORD_COUNT;
}

static unsigned players_start(struct player *players, unsigned config, const struct order *order,
			      const char *folder, struct row *rows)
{
	struct sync_plan plan, one;
	unsigned count = 0;

	plan_set(&plan, config, order);
	one = plan;
	one.range_count = one.process_count = one.thread_count = 1;
	one.ticket_count = 0;
	one.cold = false;
	one.record_count = order->record_count ? order->record_count : RECORD_COUNT;
	for (unsigned i = 0; i < SYSTEM_COUNT; i++) {
		if (!systems[i].system || (plan.ticket_count && i >= PEER_FIRST) ||
		    (*order->systems != '-' && !in_list(order->systems, systems[i].name)))
			continue;
		count += player_start(&players[count], systems[i].system, systems[i].name, folder, &plan,
				      &rows[i]);
	}
	if (configs[config].target.base && count && players[0].system == &sync_pheap)
		count += player_start(&players[count], &sync_pheap, ONE_NAME, folder, &one, &rows[ONE]);
	return count;
}

static void player_turn(struct player *p, const struct order *order, unsigned rep)
{
	struct team_turn turn;

	team_turn(p->team, order->quick ? RUN_NS_QUICK : RUN_NS, NULL, &turn);
	p->wall_ns[rep] = turn.wall_ns;
}

/* A first turn that does not count. */
static void player_warm(struct player *p)
{
	struct team_turn turn;

	team_turn(p->team, WARM_NS, NULL, &turn);
	for (unsigned i = 0; i < p->plan.process_count * p->plan.thread_count; i++)
		memset(team_note(p->team, i), 0, sizeof(struct latency));
}

/* argv: config, folder, order */
int bench_sync_self(char **argv, int fd)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
	static struct player players[ROW_COUNT];
	struct row *rows = mmap(NULL, ROW_COUNT * sizeof *rows, prot, flags, -1, 0);
	unsigned config = (unsigned)atoi(argv[0]), count;
	struct order order;

	if (rows == MAP_FAILED || config >= CONFIG_COUNT ||
	    sscanf(argv[2], "%u %u %" SCNu64 " %63s", &order.quick, &order.reps, &order.record_count,
		   order.systems) != 4)
		return 1;
	count = players_start(players, config, &order, argv[1], rows);
	for (unsigned i = 0; i < count; i++)
		player_warm(&players[i]);
	for (unsigned rep = 0; rep < order.reps; rep++)
		for (unsigned i = 0; i < count; i++)
			player_turn(&players[(i + rep) % count], &order, rep);
	for (unsigned i = 0; i < count; i++)
		player_end(&players[i], order.reps);
	bench_scratch_clear(argv[1]);
	return !bench_self_tell(fd, rows, ROW_COUNT * sizeof *rows);
}

/* ---- the bench */

static void config_run(const struct bench_options *opt, unsigned config)
{
	struct bench_result results[ROW_COUNT];
	struct row rows[ROW_COUNT];
	char number[16], order[128];
	const char *args[4] = {"sync", number, opt->folder, order};
	const char *param = configs[config].plan.param;
	unsigned count = 0;

	snprintf(number, sizeof number, "%u", config);
	snprintf(order, sizeof order, "%u %u %" PRIu64 " %.63s", opt->quick,
		 opt->reps < REP_MAX ? opt->reps : REP_MAX, opt->record_count,
		 opt->system ? opt->system : "-");
	if (bench_self_run(args, rows, sizeof rows))
		bench_die("sync-commit: %s failed", param);
	for (unsigned i = 0; i < ROW_COUNT; i++) {
		const struct row *row = &rows[i];
		const struct sync_plan *plan = &configs[config].plan;

		if (*row->why)
			bench_skip(opt, "sync-commit", param, i == ONE ? ONE_NAME : systems[i].name,
				   row->why);
		if (!row->reps)
			continue;
		results[count++] = (struct bench_result){
			.system = i == ONE ? ONE_NAME : systems[i].name,
			.level = "SYNC",
			.value = row->value,
			.min = row->min,
			.max = row->max,
			.p50 = row->p50,
			.p90 = row->p90,
			.p99 = row->p99,
			.instructions = -1,
			.reps = row->reps,
			.threads = i == ONE ? 1 : plan->process_count * plan->thread_count,
			.rate = true,
		};
	}
	bench_report(opt, "sync-commit", param, NULL, &configs[config].target, results, count);
}

static void place_print(const struct bench_options *opt)
{
	struct statfs fs;
	bool memory = !statfs(opt->folder, &fs) && fs.f_type == TMPFS_MAGIC;
	double load = 0;

	getloadavg(&load, 1); /* where all processors are busy a flush lasts until the next tick */
	fprintf(opt->json ? stderr : stdout, "sync-commit: %" PRIu64 " records in %s%s, load %.1f\n",
		opt->record_count ? opt->record_count : (uint64_t)RECORD_COUNT, opt->folder,
		memory ? ", which is memory and no disk: set TMPDIR" : "", load);
	for (unsigned i = 0; i < SYSTEM_COUNT; i++)
		if (!systems[i].system)
			bench_skip(opt, "sync-commit", "all", systems[i].name, "not in this build");
}

/* What libpmem shall find in its environment: see environment_set in main.c for the other benches. */
static void pmem_flush_set(bool flush)
{
	setenv("PMEM_IS_PMEM_FORCE", flush ? "0" : "1", 1);
	setenv("PMEM_NO_FLUSH", flush ? "0" : "1", 1);
}

void bench_sync_commit(const struct bench_options *opt)
{
	bool any = false;

	place_print(opt);
	pmem_flush_set(true);
	for (unsigned i = 0; i < CONFIG_COUNT; i++) {
		if (opt->param && strcmp(opt->param, configs[i].plan.param))
			continue;
		config_run(opt, i);
		any = true;
	}
	pmem_flush_set(false);
	if (!any)
		bench_param_fail("sync-commit", opt->param);
}
