/* SPDX-License-Identifier: MIT
 *
 * classic.h: the shared-memory classic: many records, fewer locks, several processes that move amounts
 * between two records at a time.
 *
 * What: a classic_system is one way to keep the records; its workers are a team. All systems draw the same
 * moves in the same manner.
 *
 * Invariants
 *   L1  The sum over all balances is record_count * CLASSIC_BALANCE whenever nobody is inside a move.
 */
#ifndef BENCH_CLASSIC_H
#define BENCH_CLASSIC_H

#include "team.h"

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

struct classic_system {
	const char *name;
	unsigned thread_count; /* of each process */
	/* A new file with all balances CLASSIC_BALANCE, in a process that ends afterwards. */
	void (*make)(const char *path, const struct classic_size *size);
	void *(*join)(const char *path, const struct classic_size *size);
	/* Maps what the moves will touch, so that no turn pays for it. */
	void (*populate)(void *self);
	void (*run)(void *self, struct team_worker *w); /* one turn */
	int64_t (*sum)(void *self);
};
extern const struct classic_system classic_pheap, classic_limit, classic_lmdb, classic_pmemobj;

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

#endif
