/* SPDX-License-Identifier: MIT
 *
 * turns.h: several members of one heap, in one process, that take turns at chosen accesses; one may die at one.
 *
 * What: each actor is a thread with a handle of its own on the same memfile, so to the library it is a process. Only one
 * runs at a time; before an atomic access to the heap it may have to give the turn to another. When and to whom is drawn
 * from a seed, a few times in a run: most races need two or three switches at the right places.
 * Why not processes: the kernel meets such a place once in a million; here each is one in some hundred, and a seed
 * replays it. Why only atomic accesses: what happens between two of them is seen by nobody who keeps the rules.
 *
 * Invariants
 *   T1  A run is a function of its seed and the story.
 *   T2  Who waits gives the turn away, so a run ends unless all wait for each other; then time passes, up to the limit
 *       of the library's waits.
 *   T3  A dead actor's locks are gone at the access where it dies, and its thread makes no further call.
 */
#ifndef PHEAP_KILL_TURNS_H
#define PHEAP_KILL_TURNS_H

#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "pheap.h"

#define ACTORS_MAX 4u
#define SWITCHES_MAX 5u

struct actor {
	pheap *h;
	unsigned id;
	void (*prepare)(struct actor *a); /* in its thread, one after the other, before anybody plays */
	int (*play)(struct actor *a, void *arg);
	void *arg;
	uint64_t rng;
	int rc; /* what play returned */
	bool dead;
	bool holds_global; /* it is in a call that locks more than its heap, as pheap_open: nobody ends meanwhile, and
			   it does not die */
	/* the scheduler's */
	pthread_t thread;
	jmp_buf base;
	bool done;
	uint32_t turn; /* futex: it is this one's */
};

/* When the turn goes to whom, and who dies when: counted in accesses of all. */
struct turns_plan {
	uint64_t at[SWITCHES_MAX]; /* rising; 0: at once */
	uint64_t die_at;	   /* 0: nobody */
	unsigned die_id;
	uint64_t ghost_at; /* when `ghost` is called, 0: never */
	void (*ghost)(void);
	unsigned first; /* whose turn it is at the start */
	uint64_t seed;	/* of the rest */
};

/* Plays the actors to their ends. Handles are open. Returns the number of accesses. */
uint64_t turns_run(struct actor *actors, unsigned count, const struct turns_plan *plan);
/* In an actor: a place where the turn may go to another, between two plain accesses of the story. */
void turns_point(void);
/* Takes apart the handle of an actor that is dead, or is to be: private memory only. Nobody plays. */
void turns_bury(struct actor *a);

#endif
