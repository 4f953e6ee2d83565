/* SPDX-License-Identifier: MIT
 *
 * team.h: workers that run when it is their turn: processes, and threads in them, that stay between turns.
 *
 * What: a plan says what a worker opens and what it does in a turn; a team is the workers of one plan.
 * Why turns by time and not by number of operations: with more workers than processors the last one of
 * a fixed number runs alone, which is not what is to be measured.
 *
 * Invariants
 *   W1  A worker counts an operation after it is done; nobody else writes that worker's slot or note.
 *   W2  A slot is used by one worker in the life of a team: a replacement takes the next one.
 */
#ifndef BENCH_TEAM_H
#define BENCH_TEAM_H

#include "bench.h"

#define TEAM_PROCESS_MAX 16u
#define TEAM_THREAD_MAX 64u /* of one process */

/* What a worker tells the program, in a line of its own. */
struct team_slot {
	uint64_t count;	 /* operations since the start of the worker */
	uint64_t cpu_ns; /* of the worker's thread, in turns */
	uint64_t sleep_count;
	uint64_t end_ns; /* when the last turn ended here */
	uint32_t idle;	 /* the even turn that found the worker ready */
	uint32_t pad[7];
};

struct team_worker {
	const uint32_t *turn;
	struct team_slot *slot;
	void *note; /* note_size bytes, first zero, which the program sees too */
	uint64_t rng;
	uint64_t count_max; /* as of slot->count: the turn is over then, too */
	uint32_t turn_mine;
};

struct team_plan {
	const char *name;
	unsigned process_count;
	unsigned thread_count; /* of each process */
	bool pinned; /* each worker to a processor, so that they are spread when others use the machine too */
	size_t note_size; /* bytes */
	const void *arg;
	void *(*join)(const void *arg); /* in each process */
	void *(*enter)(void *self);	/* in each thread: what the calls below are given; NULL: self */
	void (*populate)(void *self);	/* maps what a turn will touch, so that none pays for it; or NULL */
	void (*run)(void *self, struct team_worker *w); /* one turn; at least one operation */
};

struct team_kill {
	uint64_t every_ns;
	uint64_t *rng;
};

struct team_turn {
	double wall_ns, cpu_ns; /* per operation */
	double sleep_count;	/* per operation */
};

struct team;
struct team *team_start(const struct team_plan *plan); /* all workers are ready */
/* Runs for run_ns. With kills, one random worker is killed and replaced each every_ns; cpu_ns and
 * sleep_count then lack those of the dead. */
void team_turn(struct team *team, uint64_t run_ns, const struct team_kill *kills, struct team_turn *ret);
void *team_note(const struct team *team, unsigned worker); /* between turns; of a team without kills */
void team_end(struct team *team);

/* After each operation. False: the turn is over. */
static inline bool team_next(struct team_worker *w)
{
	uint64_t count = w->slot->count + 1;

	__atomic_store_n(&w->slot->count, count, __ATOMIC_RELAXED);
	return __atomic_load_n(w->turn, __ATOMIC_RELAXED) == w->turn_mine && count < w->count_max;
}

#endif
