/* SPDX-License-Identifier: MIT
 *
 * turns.c: see turns.h.
 */
#include "turns.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "alloc.h"
#include "memfile.h"
#include "oracle.h"
#include "runtime.h"
#include "thread.h"

static struct actor *actors;
static unsigned actor_count;
static const struct turns_plan *plan;
static uint64_t access_count, rng;
static unsigned next_switch;
static uint32_t ended; /* futex: the one whose turn it was has come to its end */
static __thread struct actor *self;

static void word_wait(uint32_t *word)
{
	while (!__atomic_load_n(word, __ATOMIC_ACQUIRE))
		(void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	__atomic_store_n(word, 0, __ATOMIC_RELAXED);
}

static void word_set(uint32_t *word)
{
	__atomic_store_n(word, 1, __ATOMIC_RELEASE);
	(void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Another one that still plays, drawn; NULL: there is none. */
static struct actor *other_drawn(void)
{
	unsigned start = (unsigned)oracle_below(&rng, actor_count);

	for (unsigned i = 0; i < actor_count; i++) {
		struct actor *a = &actors[(start + i) % actor_count];

		if (a != self && !a->done)
			return a;
	}
	return NULL;
}

static bool turn_give(void)
{
	struct actor *to = other_drawn();

	if (!to)
		return false;
	word_set(&to->turn);
	word_wait(&self->turn);
	return true;
}

/* Its descriptor goes, and with it its locks; nothing of its own is put in order. */
static _Noreturn void die(void)
{
	self->dead = true;
	memfile_die(self->h->fd);
	longjmp(self->base, 1);
}

static void death(void)
{
	if (plan->die_id == self->id && plan->die_at && access_count >= plan->die_at && !self->dead &&
	    !self->holds_global)
		die();
}

void turns_point(void)
{
	if (!self)
		return;
	access_count++;
	if (plan->ghost && plan->ghost_at == access_count)
		plan->ghost();
	death();
	if (next_switch < SWITCHES_MAX && access_count >= plan->at[next_switch]) {
		next_switch++;
		(void)turn_give();
	}
}

/* A death may also be at a plain store. */
static void on_store(void *addr, size_t n)
{
	(void)n;
	memfile_stored(memfile_get(0), (uint64_t)((char *)addr - memfile_get(0)->bytes));
	if (self)
		death();
}

static bool on_wait(const uint32_t *word, uint32_t seen)
{
	if (!self || !turn_give())
		return false;
	return __atomic_load_n(word, __ATOMIC_ACQUIRE) != seen;
}

/* As fork leaves a handle in the child: it has no descriptor and no mapping, and touches nothing. Its mutexes may be held
 * by the dead. In the actor's own thread, whose end would touch the heap otherwise. */
static void handle_kill(pheap *h)
{
	h->forked = true;
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_init(&h->helper_lock, NULL);
	pthread_mutex_init(&h->recovery_lock, NULL);
	ph_thread_heap_close(h);
}

static bool any_global(void)
{
	for (unsigned i = 0; i < actor_count; i++)
		if (actors[i].holds_global)
			return true;
	return false;
}

static void *actor_main(void *arg)
{
	struct actor *a = arg;

	word_wait(&a->turn);
	a->prepare(a);
	word_set(&ended);
	word_wait(&a->turn);
	self = a;
	if (!setjmp(a->base))
		a->rc = a->play(a, a->arg);
	/* The end of a thread needs locks of the whole process. */
	while (any_global() && turn_give())
		;
	self = NULL;
	if (a->dead)
		handle_kill(a->h);
	a->done = true;
	word_set(&ended);
	return NULL;
}

void turns_bury(struct actor *a)
{
	pheap *h = a->h;

	if (!h)
		return;
	a->h = NULL;
	handle_kill(h);
	cds_list_del(&h->node);
	ph_alloc_close(h);
	(void)pheap_close(h);
}

uint64_t turns_run(struct actor *who, unsigned count, const struct turns_plan *how)
{
	bool joined[ACTORS_MAX] = {false};

	actors = who;
	actor_count = count;
	plan = how;
	access_count = 0;
	next_switch = 0;
	rng = how->seed;
	ended = 0;
	kr_store = on_store;
	for (unsigned i = 0; i < count; i++) {
		who[i].done = who[i].dead = who[i].holds_global = false;
		who[i].turn = 0;
		if (pthread_create(&who[i].thread, NULL, actor_main, &who[i]))
			abort();
		word_set(&who[i].turn);
		word_wait(&ended);
	}
	kr_atomic = turns_point;
	memfile_waits = on_wait;
	for (struct actor *a = &who[how->first]; a; a = other_drawn()) {
		word_set(&a->turn);
		word_wait(&ended);
		/* Its thread's end may touch the heap, too: nobody else runs meanwhile. */
		for (unsigned i = 0; i < count; i++)
			if (who[i].done && !joined[i]) {
				pthread_join(who[i].thread, NULL);
				joined[i] = true;
			}
	}
	kr_atomic = NULL;
	memfile_waits = NULL;
	return access_count;
}
