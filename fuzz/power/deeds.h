/* SPDX-License-Identifier: MIT
 *
 * deeds.h: transactions of several threads and processes on a real file system, whose outcome their numbers name.
 *
 * What: each worker counts its transactions; number s of worker w is a function of the seed, w and s alone: a transfer between
 * two shared accounts, a new block in the worker's ring in place of the oldest one. So the numbers that a heap holds say what
 * every account and every block must be, to the byte, whoever ran beside whom.
 * Why not the models of the explorers: those know one order of calls; here real threads run and nobody sees their order. What
 * depends on what is tied by the accounts: of two transfers of one account the later one cannot be there alone.
 *
 * Invariants
 *   D1  The board is memory outside of the disk under test: it says what was promised, whatever the disk lost.
 *   D2  acked <= number in the heap <= started, for each worker. `acked` is raised only after the call that promises has
 *       returned, `started` before the transaction begins.
 *   D3  Each block says whose it is, and all of its words follow from that.
 */
#ifndef PHEAP_POWER_DEEDS_H
#define PHEAP_POWER_DEEDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pheap.h"

#define DEEDS_WORKERS 6u
#define DEEDS_ACCOUNTS 32u
#define DEEDS_RING 12u

/* What was promised at some moment, and what may be there. */
struct deeds_sample {
	uint64_t acked[DEEDS_WORKERS], started[DEEDS_WORKERS];
	uint64_t made; /* the heap had been created */
};

struct deeds_board {
	struct deeds_sample now;
	uint64_t done[DEEDS_WORKERS]; /* commits that returned, durable or not */
	uint64_t stop;
	uint64_t why_set;
	char why[600]; /* the first complaint, by whoever had it */
};

/* Of one heap: all that is drawn once. */
struct deeds_plan {
	uint64_t seed;
	struct pheap_options options;
	uint64_t small_max; /* bytes of ordinary blocks */
	bool big;	    /* also blocks of 64 to 200 KiB */
};

/* What numbers imply. Walks from one set of numbers to another. */
struct deeds_expect {
	uint64_t seq[DEEDS_WORKERS];
	uint64_t accounts[DEEDS_ACCOUNTS];
};

uint64_t deeds_mix(uint64_t a, uint64_t b, uint64_t c);
uint64_t deeds_random(uint64_t *state);
uint64_t deeds_below(uint64_t *state, uint64_t n);

/* level: PHEAP_SYNC, PHEAP_EPOCH, or 0 for either. */
void deeds_plan_draw(struct deeds_plan *p, uint64_t seed, uint32_t level);
/* The object that all share. 0 or a code. */
int deeds_root_make(pheap *h);
/* One thread's life as worker w: `count` transactions, or until the board says stop. 0, or -1 with board->why. */
int deeds_work(pheap *h, const struct deeds_plan *p, struct deeds_board *board, unsigned w, uint64_t count,
	       uint64_t *random);
void deeds_sample_take(struct deeds_sample *ret, const struct deeds_board *board);
/* All that was done is durable: the last one has closed the heap. */
void deeds_closed(struct deeds_board *board);
/* Holds a heap that nobody else changes against the sample; *ret_seq: its numbers. 0, or -1 with board->why. */
int deeds_check(pheap *h, const struct deeds_plan *p, const struct deeds_sample *s, struct deeds_expect *e,
		struct deeds_board *board, uint64_t ret_seq[DEEDS_WORKERS]);
int deeds_wrong(struct deeds_board *board, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* More about the complaint that was made. */
void deeds_note(struct deeds_board *board, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
