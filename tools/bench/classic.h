/* SPDX-License-Identifier: MIT
 *
 * classic.h: the shared-memory classic: many records, fewer locks, several processes that move amounts
 * between two records at a time.
 *
 * What: a classic_system is one way to keep the records; a team is its workers, processes that stay
 * between turns. All systems draw the same moves in the same manner.
 * Why turns by time and not by number of transactions: with more workers than processors the last one of
 * a fixed number runs alone, which is not what is to be measured.
 *
 * Invariants
 *   L1  The sum over all balances is record_count * CLASSIC_BALANCE whenever nobody is inside a move.
 *   L2  A worker counts a move after it is done; nobody else writes that worker's slot.
 *   L3  A slot is used by one worker in the life of a team: a replacement takes the next one.
 */
#ifndef BENCH_CLASSIC_H
#define BENCH_CLASSIC_H

#include "bench.h"

#define CLASSIC_BALANCE 1000
#define CLASSIC_WORKER_COUNT 4u

struct classic_account {
	int64_t balance;
	uint64_t words[BENCH_RECORD_SIZE / 8 - 1];
};

struct classic_size {
	uint64_t record_count; /* below 2^32 */
	uint32_t lock_count;
};

struct classic_move {
	uint64_t from, to; /* different records */
	int64_t amount;
};

/* What a worker tells the team, in a line of its own. */
struct classic_slot {
	uint64_t count;	 /* moves since the start of the worker */
	uint64_t cpu_ns; /* of the worker's thread, in turns */
	uint64_t sleep_count;
	uint64_t end_ns; /* when the last turn ended here */
	uint32_t idle;	 /* the even turn that found the worker ready */
	uint32_t pad[7];
};

struct classic_worker {
	const uint32_t *turn;
	struct classic_slot *slot;
	uint64_t rng;
	uint64_t count_max; /* as of slot->count: the turn is over then, too */
	uint32_t turn_mine;
};

struct classic_system {
	const char *name;
	unsigned thread_count; /* of each process */
	/* A new file with all balances CLASSIC_BALANCE, in a process that ends afterwards. */
	void (*make)(const char *path, const struct classic_size *size);
	void *(*join)(const char *path, const struct classic_size *size);
	/* Maps what the moves will touch, so that no turn pays for it. */
	void (*populate)(void *self);
	void (*run)(void *self, struct classic_worker *w); /* one turn */
	int64_t (*sum)(void *self);
};
extern const struct classic_system classic_pheap, classic_limit, classic_lmdb, classic_pmemobj;

struct classic_kill {
	uint64_t every_ns;
	uint64_t *rng;
};

struct classic_team;
struct classic_turn {
	double wall_ns, cpu_ns; /* per move */
	double sleep_count;	/* per move */
};

/* team.c */
/* pinned: each worker to a processor, so that they are spread when others use the machine too. */
struct classic_team *classic_team_start(const struct classic_system *system, const char *path,
					const struct classic_size *size, bool pinned);
/* Runs for run_ns. With kills, one random worker is killed and replaced each every_ns; cpu_ns and
 * sleep_count then lack those of the dead. */
void classic_team_turn(struct classic_team *team, uint64_t run_ns, const struct classic_kill *kills,
		       struct classic_turn *ret);
void classic_team_end(struct classic_team *team);
void classic_make(const struct classic_system *system, const char *path, const struct classic_size *size);
/* How far the sum is from what L1 says. */
int64_t classic_sum_off(const struct classic_system *system, const char *path,
			const struct classic_size *size);

static inline struct classic_move classic_draw(uint64_t *rng, const struct classic_size *size)
{
	struct classic_move move;
	uint64_t r = bench_random(rng);

	move.from = (r >> 32) * size->record_count >> 32;
	r = bench_random(rng);
	move.to = (r >> 32) * size->record_count >> 32;
	move.to += move.to == move.from;
	if (move.to == size->record_count)
		move.to = 0;
	move.amount = (int64_t)(r & 0xff) + 1;
	return move;
}

/* After each move. False: the turn is over. */
static inline bool classic_next(struct classic_worker *w)
{
	uint64_t count = w->slot->count + 1;

	__atomic_store_n(&w->slot->count, count, __ATOMIC_RELAXED);
	return __atomic_load_n(w->turn, __ATOMIC_RELAXED) == w->turn_mine && count < w->count_max;
}

#endif
