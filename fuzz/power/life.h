/* SPDX-License-Identifier: MIT
 *
 * life.h: a heap in use, with all that a power cut may leave of it.
 *
 * What: a script of steps (transactions of the oracle, checkpoints, opening, closing, a second member that
 * works beside and dies) whose stores are recorded in a disk; and the models of the states that its commits
 * made, oldest first. Why a list of models: a commit that nobody waited for may be lost, but only with all
 * later ones. So what may be found after a cut is one of a row of states, from the last acknowledged to the
 * last begun.
 *
 * Invariants
 *   L1  models[first] to models[count - 1] are the states by number of commit; `low` is the last acknowledged
 *       one.
 *   L2  Lives are stacked: that at depth d + 1 began with an image of the one at depth d, in memfile d + 1.
 *   L3  All draws come from the script's seed; a replay does the same.
 */
#ifndef PHEAP_POWER_LIFE_H
#define PHEAP_POWER_LIFE_H

#include "disk.h"
#include "oracle.h"

#define LIVES 3u
#define LIFE_MODELS 160u
#define LIFE_TICKETS 4u

struct life {
	unsigned depth;
	uint32_t boot;
	struct disk disk;
	struct oracle oracle;
	struct oracle_model *models;
	uint16_t first, count, low;
	/* Of the second member's object: what this life began with at least; durable, done, begun. */
	uint16_t side_first, side_low, side_count, side_high;
	bool sync;	   /* a commit that returned is durable */
	bool process;	   /* no power safety: only a closed heap survives */
	bool starting;	   /* the first object is being made */
	bool closed;	   /* nobody is attached */
	bool recovering;   /* what was found is not known yet */
	bool exact;	   /* it began with a power recovery: only what that found may be found again */
	bool acks;	   /* the commit under way acknowledges */
	bool inside;	   /* the second member is acting inside of a call of the first */
	pheap_tx *side_tx; /* of the second member: open beside those of the first */
	uint64_t
		side_lsn; /* its commit `side_told` is durable when pheap_wait says so; 0: none is asked for */
	uint16_t side_told;
	bool trims;	    /* it trims the heap, */
	unsigned steps;	    /* after so many */
	bool aims;	    /* the countdown begins when a lane is behind its commit point */
	uint64_t countdown; /* atomic accesses until it does; 0: it does not */
	struct {
		uint64_t lsn;
		uint16_t model;
	} tickets[LIFE_TICKETS];
	char how[256]; /* it began */
	uint64_t rng;
};

/* The one whose calls are made now. */
extern struct life *life_now;
/* Boots are counted: none comes twice in a script. */
extern uint32_t life_boots;
extern uint64_t life_inside_count;

void life_init(struct life *l, unsigned depth);
void life_free(struct life *l);
/* Stores of the calls that follow are recorded. stale: of the life below, whose images this one's file
 * holds. */
void life_enter(struct life *l, uint8_t *stale);
void life_leave(struct life *l);

/* A new heap with its main object, recorded. wal_size 0: by the seed. 0, or -1 with oracle.why. */
int life_create(struct life *l, uint64_t seed, uint32_t durability, uint64_t wal_size);
/* Goes on with handle h, which holds models[m]; what came later never was. */
void life_resume(struct life *l, pheap *h, uint16_t m, uint16_t side, uint64_t seed);
/* One step. 0, or -1 with oracle.why. After LIFE_CLOSED nobody is attached: life_open comes next. */
#define LIFE_CLOSED 1
int life_step(struct life *l);
int life_open(struct life *l);
/* The second member comes, if it is not there. */
int life_join(struct life *l);
/* Closes handles, if open. */
int life_end(struct life *l);

/* Which of the models low to high h holds: its number, or -1 with a sentence. ret_side: how often the second
 * member's object was changed. */
int life_match(const struct life *l, pheap *h, const struct memfile *f, const struct disk_bounds *b,
	       uint16_t *ret_side, char *why, size_t n);

#endif
