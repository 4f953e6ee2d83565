/* SPDX-License-Identifier: MIT
 *
 * team.c: see team.h.
 *
 * What: `turn` counts up; odd: run, even: sleep. A worker runs until `turn` changes, maps again what it
 * may have lost, and notes in its slot the even turn that found it ready.
 * Why the workers stay between turns: only so can systems take turns within one repetition; what starting
 * one costs is paid in the turns with kills alone.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "team.h"

#define SLOT_MAX 4096u
#define ANSWER_NS 60000000000ull /* a worker that takes longer hangs */

struct shared {
	uint32_t turn;
	uint32_t pad[15];
	struct team_slot slots[SLOT_MAX];
	/* then the notes */
};

struct team {
	struct team_plan plan;
	struct shared *shared;
	size_t shared_size;
	unsigned slot_count; /* ever used */
	pid_t pids[TEAM_PROCESS_MAX];
	unsigned slots[TEAM_PROCESS_MAX]; /* the first one of each process */
};

static void *note_of(const struct team *team, unsigned slot)
{
	return (char *)(team->shared + 1) + slot * team->plan.note_size;
}

/* ---- in the worker */

struct thread {
	const struct team_plan *plan;
	void *self;
	unsigned number;
	struct team_worker worker;
};

static void usage_add(struct team_slot *slot, bool begin)
{
	struct rusage usage;
	uint64_t cpu_ns = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID);

	getrusage(RUSAGE_THREAD, &usage);
	slot->cpu_ns += begin ? -cpu_ns : cpu_ns;
	slot->sleep_count += begin ? -(uint64_t)usage.ru_nvcsw : (uint64_t)usage.ru_nvcsw;
}

static void populate(const struct thread *t)
{
	if (t->plan->populate)
		t->plan->populate(t->self);
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;
	struct team_worker *w = &t->worker;

	if (t->plan->pinned)
		bench_pin_nth(t->number);
	if (t->plan->enter)
		t->self = t->plan->enter(t->self);
	populate(t);
	for (;;) {
		w->turn_mine = __atomic_load_n(w->turn, __ATOMIC_ACQUIRE);
		if (w->turn_mine % 2 == 0) {
			__atomic_store_n(&w->slot->idle, w->turn_mine, __ATOMIC_RELEASE);
			syscall(SYS_futex, w->turn, FUTEX_WAIT, w->turn_mine, NULL, NULL, 0);
			continue;
		}
		usage_add(w->slot, true);
		t->plan->run(t->self, w);
		usage_add(w->slot, false);
		w->slot->end_ns = bench_clock_ns(CLOCK_MONOTONIC);
		populate(t);
	}
	return NULL;
}

static _Noreturn void process_main(const struct team *team, unsigned slot)
{
	static struct thread threads[TEAM_THREAD_MAX];
	const struct team_plan *plan = &team->plan;
	void *self;
	pthread_t id;

	bench_unpin();
	self = plan->join(plan->arg);
	for (unsigned i = 0; i < plan->thread_count; i++) {
		threads[i].plan = plan;
		threads[i].self = self;
		threads[i].number = slot + i;
		threads[i].worker.turn = &team->shared->turn;
		threads[i].worker.slot = &team->shared->slots[slot + i];
		threads[i].worker.note = note_of(team, slot + i);
		threads[i].worker.count_max = UINT64_MAX;
		threads[i].worker.rng = BENCH_SEED * (2 * (slot + i) + 1);
	}
	for (unsigned i = 1; i < plan->thread_count; i++)
		if (pthread_create(&id, NULL, thread_main, &threads[i]))
			bench_die("pthread_create failed");
	thread_main(&threads[0]);
	_exit(1);
}

/* ---- in the program */

static void worker_start(struct team *team, unsigned process)
{
	unsigned slot = team->slot_count;
	pid_t pid;

	if (slot + team->plan.thread_count > SLOT_MAX)
		bench_die("%s: more than %u workers", team->plan.name, SLOT_MAX);
	pid = bench_fork();
	if (!pid)
		process_main(team, slot);
	team->pids[process] = pid;
	team->slots[process] = slot;
	team->slot_count += team->plan.thread_count;
}

/* Until all workers are idle; none may have died meanwhile. */
static void idle_wait(struct team *team)
{
	uint64_t start_ns = bench_clock_ns(CLOCK_MONOTONIC);
	uint32_t turn = team->shared->turn;

	for (unsigned i = 0; i < team->plan.process_count; i++)
		for (unsigned j = 0; j < team->plan.thread_count; j++)
			while (__atomic_load_n(&team->shared->slots[team->slots[i] + j].idle,
					       __ATOMIC_ACQUIRE) != turn) {
				if (waitpid(team->pids[i], NULL, WNOHANG))
					bench_die("%s: a worker has ended", team->plan.name);
				if (bench_clock_ns(CLOCK_MONOTONIC) - start_ns > ANSWER_NS)
					bench_die("%s: a worker hangs", team->plan.name);
				usleep(500);
			}
}

static void turn_next(struct team *team)
{
	__atomic_store_n(&team->shared->turn, team->shared->turn + 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &team->shared->turn, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

struct team *team_start(const struct team_plan *plan)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
	struct team *team = calloc(1, sizeof *team);

	if (!team)
		bench_die("%s: no memory", plan->name);
	if (plan->process_count > TEAM_PROCESS_MAX || plan->thread_count > TEAM_THREAD_MAX)
		bench_die("%s: too many workers", plan->name);
	team->plan = *plan;
	team->shared_size = sizeof *team->shared + SLOT_MAX * plan->note_size;
	team->shared = mmap(NULL, team->shared_size, prot, flags, -1, 0);
	if (team->shared == MAP_FAILED)
		bench_die("mmap: %s", strerror(errno));
	team->shared->turn = 2; /* idle == 0: not ready yet */
	for (unsigned i = 0; i < plan->process_count; i++)
		worker_start(team, i);
	idle_wait(team);
	return team;
}

void team_end(struct team *team)
{
	for (unsigned i = 0; i < team->plan.process_count; i++)
		bench_kill(team->pids[i]);
	munmap(team->shared, team->shared_size);
	free(team);
}

void *team_note(const struct team *team, unsigned worker)
{
	return note_of(team, worker);
}

/* Sums over all slots; the latest end. */
static void totals(const struct team *team, struct team_slot *ret)
{
	memset(ret, 0, sizeof *ret);
	for (unsigned i = 0; i < team->slot_count; i++) {
		const struct team_slot *slot = &team->shared->slots[i];

		ret->count += __atomic_load_n(&slot->count, __ATOMIC_RELAXED);
		ret->cpu_ns += slot->cpu_ns;
		ret->sleep_count += slot->sleep_count;
		ret->end_ns = slot->end_ns > ret->end_ns ? slot->end_ns : ret->end_ns;
	}
}

static void sleep_until(uint64_t ns)
{
	struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

/* One random worker dies, and another process takes its place while the kernel still tears it down. */
static pid_t worker_replace(struct team *team, uint64_t *rng)
{
	unsigned process = (unsigned)((bench_random(rng) >> 32) % team->plan.process_count);
	pid_t pid = team->pids[process];

	if (kill(pid, SIGKILL))
		bench_die("kill: %s", strerror(errno));
	worker_start(team, process);
	return pid;
}

static void kill_until(struct team *team, uint64_t start_ns, uint64_t end_ns, const struct team_kill *kills)
{
	pid_t dying[SLOT_MAX];
	unsigned count = 0;

	for (uint64_t ns = start_ns + kills->every_ns; ns < end_ns; ns += kills->every_ns) {
		sleep_until(ns);
		dying[count++] = worker_replace(team, kills->rng);
	}
	sleep_until(end_ns);
	while (count)
		waitpid(dying[--count], NULL, 0);
}

void team_turn(struct team *team, uint64_t run_ns, const struct team_kill *kills, struct team_turn *ret)
{
	struct team_slot before, after;
	uint64_t start_ns;
	double count;

	totals(team, &before);
	start_ns = bench_clock_ns(CLOCK_MONOTONIC);
	turn_next(team);
	if (kills)
		kill_until(team, start_ns, start_ns + run_ns, kills);
	else
		sleep_until(start_ns + run_ns);
	turn_next(team);
	idle_wait(team);
	totals(team, &after);
	count = (double)(after.count - before.count);
	if (count < 1)
		bench_die("%s: no operation in a whole turn", team->plan.name);
	ret->wall_ns = (double)(after.end_ns - start_ns) / count;
	ret->cpu_ns = (double)(after.cpu_ns - before.cpu_ns) / count;
	ret->sleep_count = (double)(after.sleep_count - before.sleep_count) / count;
}
