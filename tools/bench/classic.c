/* SPDX-License-Identifier: MIT
 *
 * classic.c: the benches classic and classic-kill: see classic.h.
 *
 * What: classic: pheap, the limit and the peers take turns within each repetition, who goes first rotates.
 * classic-kill: turns of the same workers in which one of them is killed and replaced every 100 ms, beside
 * turns in which nobody is; once for each kind of memory, since what a death and a new process cost is
 * mostly what the machine takes for unmapping and mapping so many pages. The limit gets the same kills, to
 * show that part; its sum may be wrong afterwards, pheap's may not.
 * Workers of classic are pinned, two to a processor on two; those of classic-kill are where the kernel puts
 * them, since a death's work should go where nothing else is to be done.
 * All systems' files are on the same kind of memory, all pages are mapped before the clock runs, except
 * those of replacements.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "classic.h"

#define RECORD_COUNT 10000000u
#define RECORD_COUNT_QUICK 1000000u
#define LOCK_COUNT 1000u
#define RUN_NS 300000000u
#define KILL_EVERY_NS 100000000u
#define KILL_RUN_NS 600000000u
#define KILL_REP_MAX 5u

static const struct classic_system *const systems[] = {
	&classic_pheap,
	&classic_limit,
#ifdef BENCH_LMDB
	&classic_lmdb,
#endif
#ifdef BENCH_PMEMOBJ
	&classic_pmemobj,
#endif
};
#define SYSTEM_COUNT (sizeof systems / sizeof *systems)
#define KILL_SYSTEM_COUNT 2u /* the first two */

struct player {
	const struct classic_system *system;
	struct classic_size size;
	struct team *team;
	char path[4096];
	double step_count;
	double wall_ns[BENCH_REP_MAX], cpu_ns[BENCH_REP_MAX], sleeps[BENCH_REP_MAX];
	/* of classic-kill: wall_ns is without kills, this with them */
	double kill_ns[KILL_REP_MAX], fall_percent[KILL_REP_MAX];
};

static const struct bench_target no_target;

static struct classic_size size_of(const struct bench_options *opt)
{
	struct classic_size size = {opt->record_count, LOCK_COUNT};

	if (!size.record_count)
		size.record_count = opt->quick ? RECORD_COUNT_QUICK : RECORD_COUNT;
	return size;
}

static const char *folder_of(enum bench_memory memory, const struct classic_size *size, unsigned system_count)
{
	return bench_scratch_folder(memory, (size->record_count * 100 + (128u << 20)) * system_count);
}

static void place_print(const struct bench_options *opt, const char *bench, const char *folder,
			enum bench_memory memory, const struct classic_size *size)
{
	fprintf(opt->json ? stderr : stdout,
		"%s: %" PRIu64 " records on %s (%s), %u locks, %u workers, --seed %" PRIu64 "\n", bench,
		size->record_count, bench_memory_names[memory], folder, size->lock_count,
		CLASSIC_WORKER_COUNT, opt->seed);
}

/* ---- instructions, of one worker that is alone */

struct opened {
	const struct classic_system *system;
	void *self;
};

static void *player_join(const void *arg)
{
	const struct player *p = arg;

	return p->system->join(p->path, &p->size);
}

static void *player_open(const void *arg)
{
	static struct opened opened;
	const struct player *p = arg;

	opened.system = p->system;
	opened.self = player_join(p);
	return &opened;
}

static void opened_loop(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	static struct team_slot slot;
	static uint32_t turn;
	struct opened *opened = self;
	struct team_worker worker = {
		.turn = &turn, .slot = &slot, .rng = *rng, .count_max = slot.count + op_count};

	(void)param;
	opened->system->run(opened->self, &worker);
	*rng = worker.rng;
}

/* ---- players */

static void player_make(const struct player *p)
{
	pid_t pid = bench_fork();

	if (!pid) {
		p->system->make(p->path, &p->size);
		_exit(0);
	}
	bench_wait_ok(pid, p->system->name);
}

/* How far the sum is from what L1 says. */
static int64_t player_sum_off(const struct player *p)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
	int64_t *sum = mmap(NULL, sizeof *sum, prot, flags, -1, 0), ret;
	pid_t pid;

	if (sum == MAP_FAILED)
		bench_die("mmap: %s", strerror(errno));
	pid = bench_fork();
	if (!pid) {
		*sum = p->system->sum(player_join(p));
		_exit(0);
	}
	bench_wait_ok(pid, p->system->name);
	ret = *sum - (int64_t)p->size.record_count * CLASSIC_BALANCE;
	munmap(sum, sizeof *sum);
	return ret;
}

static void player_start(struct player *p, const struct classic_system *system, const char *folder,
			 const struct classic_size *size, bool pinned, const struct bench_options *opt)
{
	const struct bench_steps steps = {player_open, p, opened_loop, 1};
	const struct team_plan plan = {
		.name = system->name,
		.process_count = CLASSIC_WORKER_COUNT / system->thread_count,
		.thread_count = system->thread_count,
		.pinned = pinned,
		.arg = p,
		.join = player_join,
		.populate = system->populate,
		.run = system->run,
	};

	p->system = system;
	p->size = *size;
	snprintf(p->path, sizeof p->path, "%s/classic-%s", folder, system->name);
	player_make(p);
	p->step_count = bench_step_count(&steps, opt->quick);
	p->team = team_start(&plan);
}

static int64_t player_end(struct player *p)
{
	char lock[4200];
	int64_t off;

	team_end(p->team);
	off = player_sum_off(p);
	unlink(p->path);
	snprintf(lock, sizeof lock, "%s-lock", p->path); /* LMDB's */
	unlink(lock);
	return off;
}

static void player_end_exact(struct player *p)
{
	int64_t off = player_end(p);

	if (off)
		bench_die("%s: the sum over all records is off by %" PRId64, p->system->name, off);
}

static void result_set(struct bench_result *ret, const struct player *p, double *samples, unsigned reps)
{
	*ret = (struct bench_result){
		.system = p->system->name, .threads = CLASSIC_WORKER_COUNT, .instructions = -1};
	bench_summarize(samples, reps, ret);
}

/* ---- classic */

static unsigned players_start(struct player *players, const struct classic_size *size,
			      const struct bench_options *opt)
{
	const unsigned wanted = opt->system ? 1 : SYSTEM_COUNT;
	enum bench_memory memory = opt->memory < 0 ? BENCH_TMPFS : (enum bench_memory)opt->memory;
	const char *folder = folder_of(memory, size, wanted);
	unsigned count = 0;

	if (!folder && opt->memory < 0)
		folder = folder_of(memory = BENCH_DISK, size, wanted);
	if (!folder)
		bench_die("classic: no room on %s", bench_memory_names[memory]);
	place_print(opt, "classic", folder, memory, size);
	for (unsigned i = 0; i < SYSTEM_COUNT; i++)
		if (!opt->system || !strcmp(systems[i]->name, opt->system))
			player_start(&players[count++], systems[i], folder, size, true, opt);
	if (!count)
		bench_die("classic: no system %s", opt->system);
	return count;
}

static void player_turn(struct player *p, unsigned rep)
{
	struct team_turn turn;

	team_turn(p->team, RUN_NS, NULL, &turn);
	p->wall_ns[rep] = turn.wall_ns;
	p->cpu_ns[rep] = turn.cpu_ns;
	p->sleeps[rep] = turn.sleep_count * 1000;
}

void bench_classic(const struct bench_options *opt)
{
	static const struct bench_target target = {
		.limit_ratio_max = 1.5, .lmdb_ratio_min = 30, .pmemobj_ratio_min = 4};
	static struct player players[SYSTEM_COUNT];
	struct bench_result wall[SYSTEM_COUNT], cpu[SYSTEM_COUNT], sleeps[SYSTEM_COUNT];
	struct classic_size size = size_of(opt);
	unsigned count = players_start(players, &size, opt);

	for (unsigned i = 0; i < count; i++)
		player_turn(&players[i], 0); /* a first one that does not count */
	for (unsigned rep = 0; rep < opt->reps; rep++)
		for (unsigned i = 0; i < count; i++)
			player_turn(&players[(i + rep) % count], rep);
	for (unsigned i = 0; i < count; i++) {
		player_end_exact(&players[i]);
		result_set(&wall[i], &players[i], players[i].wall_ns, opt->reps);
		result_set(&cpu[i], &players[i], players[i].cpu_ns, opt->reps);
		result_set(&sleeps[i], &players[i], players[i].sleeps, opt->reps);
		wall[i].instructions = players[i].step_count;
	}
	bench_report(opt, "classic", "1000", NULL, &target, wall, count);
	bench_report(opt, "classic", "1000-cpu-ns", "cpu ns", &no_target, cpu, count);
	bench_report(opt, "classic", "1000-sleeps", "per 1000", &no_target, sleeps, count);
}

/* ---- classic-kill */

/* One turn with kills and one without; which goes first alternates. */
static void pair_run(struct player *p, unsigned rep, const struct team_kill *kills)
{
	for (unsigned i = 0; i < 2; i++) {
		bool with = (i + rep) % 2;
		struct team_turn turn;

		team_turn(p->team, KILL_RUN_NS, with ? kills : NULL, &turn);
		if (with)
			p->kill_ns[rep] = turn.wall_ns;
		else
			p->wall_ns[rep] = turn.wall_ns;
	}
	p->fall_percent[rep] = 100 - 100 * p->wall_ns[rep] / p->kill_ns[rep];
}

static void kill_report(const struct bench_options *opt, const char *memory, struct player *players,
			unsigned reps)
{
	static const struct bench_target target = {.value_max = 20};
	struct bench_result without[KILL_SYSTEM_COUNT], with[KILL_SYSTEM_COUNT], fall[KILL_SYSTEM_COUNT];
	char param[64];

	for (unsigned i = 0; i < KILL_SYSTEM_COUNT; i++) {
		result_set(&without[i], &players[i], players[i].wall_ns, reps);
		result_set(&with[i], &players[i], players[i].kill_ns, reps);
		result_set(&fall[i], &players[i], players[i].fall_percent, reps);
	}
	snprintf(param, sizeof param, "%s-none", memory);
	bench_report(opt, "classic-kill", param, NULL, &no_target, without, KILL_SYSTEM_COUNT);
	snprintf(param, sizeof param, "%s-100ms", memory);
	bench_report(opt, "classic-kill", param, NULL, &no_target, with, KILL_SYSTEM_COUNT);
	snprintf(param, sizeof param, "%s-fall-percent", memory);
	bench_report(opt, "classic-kill", param, "%", &target, fall, KILL_SYSTEM_COUNT);
}

static void kill_run(const struct bench_options *opt, enum bench_memory memory)
{
	static struct player players[KILL_SYSTEM_COUNT];
	const unsigned reps = opt->reps < KILL_REP_MAX ? opt->reps : KILL_REP_MAX;
	struct classic_size size = size_of(opt);
	const char *folder = folder_of(memory, &size, KILL_SYSTEM_COUNT);
	uint64_t rng = opt->seed;
	const struct team_kill kills = {KILL_EVERY_NS, &rng};
	int64_t off;

	if (!folder) {
		fprintf(stderr, "pheap-bench: classic-kill: none or no room on %s\n",
			bench_memory_names[memory]);
		return;
	}
	place_print(opt, "classic-kill", folder, memory, &size);
	for (unsigned i = 0; i < KILL_SYSTEM_COUNT; i++)
		player_start(&players[i], systems[i], folder, &size, false, opt);
	for (unsigned rep = 0; rep < reps; rep++)
		for (unsigned i = 0; i < KILL_SYSTEM_COUNT; i++)
			pair_run(&players[(i + rep) % KILL_SYSTEM_COUNT], rep, &kills);
	player_end_exact(&players[0]);
	off = player_end(&players[1]);
	if (!opt->json)
		printf("classic-kill: the sum of pheap is exact, that of the limit off by %" PRId64 "\n",
		       off);
	kill_report(opt, bench_memory_names[memory], players, reps);
}

void bench_classic_kill(const struct bench_options *opt)
{
	for (int i = 0; i < BENCH_MEMORY_COUNT; i++)
		if (opt->memory < 0 || opt->memory == i)
			kill_run(opt, (enum bench_memory)i);
}
