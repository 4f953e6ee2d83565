/* SPDX-License-Identifier: MIT
 *
 * pain_owner_dies.c: the owner of a lock dies with the structure half changed.
 *
 * The pain: a System V semaphore with SEM_UNDO is free again when its owner has died, and the next one finds
 * a structure that nobody can read. Shown first, with the same checker.
 * The answer: whoever gets the lock next sees the state before the transaction or the one after it, because
 * the owner is undone (or completed) as a whole before its lock passes on. Shown for a death after every
 * single store of it, with two living processes that wait for the lock meanwhile; in each mode of isolation.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <unistd.h>

#include "crowd.h"
#include "shop.h"
#include "steps.h"

#define WAITERS 2u
#define SWEEPS 4u /* over all stores; each change has other nodes */
#define STOP UINT32_MAX

struct meeting {
	uint32_t locked; /* victims that have their locks */
	uint32_t turn;	 /* the waiters may ask for theirs */
	uint32_t done;	 /* times that a waiter has looked */
	struct {
		struct rings rings;
		char fault[80]; /* of the blocks */
	} seen[WAITERS];
};

static struct meeting *m;

/* Who locks how. */
struct mode {
	const char *name;
	uint32_t victim, waiter[WAITERS];
};

static const struct mode modes[] = {
	{"alone", 0, {0, PHEAP_READ}},
	{"by key", PHEAP_CONCURRENT, {PHEAP_CONCURRENT, PHEAP_CONCURRENT | PHEAP_READ}},
	{"by key, met by others that want the heap alone", PHEAP_CONCURRENT, {0, PHEAP_READ}},
};

struct part {
	const struct mode *mode;
	unsigned index; /* of the waiter */
	uint64_t k;	/* the victim's last store */
};

/* --- ours --- */

static const uint64_t shop_keys[2] = {7, 1234567};

/* Two keys for the victim; each waiter wants one of them. */
static pheap_tx *shop_enter(pheap *h, uint32_t flags, const uint64_t *keys, size_t n)
{
	pheap_tx *tx = crowd_tx(h, flags);

	if (flags & PHEAP_READ)
		crowd_must(pheap_lock_shared(tx, keys, n), "pheap_lock_shared");
	else
		crowd_must(pheap_lock(tx, keys, n), "pheap_lock");
	return tx;
}

static int victim_main(void *arg)
{
	const struct part *part = arg;
	pheap *h = crowd_open(crowd_path("shop"), 0, NULL);
	pheap_tx *tx = shop_enter(h, part->mode->victim, shop_keys, 2);
	uint32_t mine = __atomic_load_n(&m->locked, __ATOMIC_SEQ_CST) + 1;

	crowd_set(&m->locked, mine);
	crowd_await(&m->turn, mine);
	crowd_nap_us(200); /* the waiters come to wait; whether they do, is not asked */
	steps_arm_heap(h, part->k);
	shop_change(tx, shop_find(h));
	crowd_commit(tx);
	steps_disarm();
	crowd_close(h);
	return 0;
}

static int waiter_main(void *arg)
{
	const struct part *part = arg;
	pheap *h = crowd_open(crowd_path("shop"), 0, NULL);
	const struct shop *shop = shop_find(h);

	for (uint32_t turn = 1;; turn++) {
		const char *fault;
		pheap_tx *tx;

		crowd_await(&m->turn, turn);
		if (m->turn == STOP)
			break;
		tx = shop_enter(h, part->mode->waiter[part->index], &shop_keys[part->index], 1);
		m->seen[part->index].rings = shop->rings;
		fault = shop_fault(h, shop);
		snprintf(m->seen[part->index].fault, sizeof(m->seen[0].fault), "%s", fault ? fault : "");
		crowd_commit(tx);
		crowd_add(&m->done);
	}
	crowd_close(h);
	return 0;
}

static void heap_make(void)
{
	pheap *h;

	(void)unlink(crowd_path("shop"));
	memset(m, 0, sizeof(*m));
	h = crowd_open(crowd_path("shop"), PHEAP_CREATE, NULL);
	(void)shop_make(h);
	crowd_close(h);
}

/* What both waiters have seen is one state, and it is the one before or after. */
static int seen_check(struct rings *model, uint64_t k, uint64_t *undone)
{
	int after = rings_follow(&m->seen[0].rings, model);

	if (after < 0)
		return crowd_wrong("killed after store %llu: neither the state before nor the one after: %s",
				   (unsigned long long)k, rings_fault(&m->seen[0].rings));
	if (memcmp(&m->seen[0].rings, &m->seen[1].rings, sizeof(struct rings)) != 0)
		return crowd_wrong("killed after store %llu: the two waiters saw different states",
				   (unsigned long long)k);
	for (unsigned i = 0; i < WAITERS; i++)
		if (m->seen[i].fault[0])
			return crowd_wrong("killed after store %llu: %s", (unsigned long long)k,
					   m->seen[i].fault);
	*undone += !after;
	return 0;
}

/* Kills one victim after the other, each one store later; ends with one that survives. */
static void mode_sweep(const struct mode *mode, struct rings *model, uint32_t *turn, uint64_t *deaths,
		       uint64_t *undone)
{
	int end = CROWD_KILLED;

	for (uint64_t k = 1; end == CROWD_KILLED && !crowd_is_wrong(); k++) {
		struct part part = {mode, 0, k};
		pid_t pid = crowd_start(victim_main, &part);

		crowd_await(&m->locked, ++*turn);
		crowd_set(&m->turn, *turn);
		end = crowd_wait(pid);
		*deaths += end == CROWD_KILLED;
		crowd_await(&m->done, *turn * WAITERS);
		seen_check(model, k, undone);
	}
	if (end)
		crowd_wrong("the victim ended with %d", end);
}

static void mode_run(const struct mode *mode)
{
	struct part parts[WAITERS] = {{mode, 0, 0}, {mode, 1, 0}};
	uint64_t deaths = 0, undone = 0;
	pid_t waiters[WAITERS];
	struct rings model;
	uint32_t turn = 0;

	heap_make();
	rings_make(&model);
	for (unsigned i = 0; i < WAITERS; i++)
		waiters[i] = crowd_start(waiter_main, &parts[i]);
	for (unsigned i = 0; i < SWEEPS && !crowd_is_wrong(); i++)
		mode_sweep(mode, &model, &turn, &deaths, &undone);
	crowd_set(&m->turn, STOP);
	for (unsigned i = 0; i < WAITERS; i++)
		crowd_must(crowd_wait(waiters[i]), "a waiter");
	ok(undone > 20 * SWEEPS && deaths > undone,
	   "heap, %s: of %llu deaths, after every store, %llu were undone and %llu completed, none half",
	   mode->name, (unsigned long long)deaths, (unsigned long long)undone,
	   (unsigned long long)(deaths - undone));
}

/* --- the old way --- */

struct old {
	_Alignas(4096) struct rings rings; /* a page of its own: it is watched */
	_Alignas(4096) uint32_t locked;
	uint32_t turn, done;
	uint32_t faults, deaths;
	char fault[60]; /* the first one */
};

static struct old *old;
static int old_set;

static void old_lock(short change)
{
	struct sembuf op = {0, change, SEM_UNDO};

	while (semop(old_set, &op, 1) && errno == EINTR)
		;
}

static void old_put(void *ctx, const uint64_t *where, uint64_t value)
{
	(void)ctx;
	*(volatile uint64_t *)(uintptr_t)where = value;
}

static int old_victim(void *arg)
{
	old_lock(-1);
	crowd_add(&old->locked);
	crowd_await(&old->turn, old->locked);
	steps_arm(&old->rings, 4096, *(uint64_t *)arg);
	rings_change(&old->rings, old_put, NULL);
	steps_disarm();
	old_lock(1);
	return 0;
}

static int old_waiter(void *arg)
{
	(void)arg;
	for (uint32_t turn = 1;; turn++) {
		const char *fault;

		crowd_await(&old->turn, turn);
		if (old->turn == STOP)
			return 0;
		old_lock(-1);
		fault = rings_fault(&old->rings);
		if (fault && !old->faults++)
			snprintf(old->fault, sizeof(old->fault), "%s", fault);
		rings_make(&old->rings); /* for the next one */
		old_lock(1);
		crowd_add(&old->done);
	}
}

static int old_main(void *arg)
{
	uint64_t k = 0;
	int end = CROWD_KILLED;
	pid_t waiter;

	(void)arg;
	if (!crowd_sysv_private())
		return 77;
	old_set = semget(IPC_PRIVATE, 1, 0600);
	if (old_set < 0 || semctl(old_set, 0, SETVAL, 1))
		return 1;
	rings_make(&old->rings);
	waiter = crowd_start(old_waiter, NULL);
	while (end == CROWD_KILLED) {
		pid_t pid;

		k++;
		pid = crowd_start(old_victim, &k);
		crowd_await(&old->locked, (uint32_t)k);
		crowd_set(&old->turn, (uint32_t)k);
		end = crowd_wait(pid);
		old->deaths += end == CROWD_KILLED;
		crowd_await(&old->done, (uint32_t)k);
	}
	crowd_set(&old->turn, STOP);
	return crowd_wait(waiter) || end;
}

static void old_show(void)
{
	int end;

	old = crowd_share(sizeof(*old));
	end = crowd_run(old_main, NULL);
	if (end == 77)
		skip("old way", "no IPC namespace of its own here");
	else
		ok(end == 0 && old->faults > 0,
		   "old way, SEM_UNDO: of %u deaths of the owner %u gave the lock on with a broken structure (%s)",
		   old->deaths, old->faults, old->fault);
}

int main(void)
{
	crowd_begin("the owner of a lock dies, the structure half changed", 120);
	m = crowd_share(sizeof(*m));
	if (!steps_possible()) {
		skip("all", "no trap flag on this processor");
		return crowd_end();
	}
	old_show();
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		mode_run(&modes[i]);
	return crowd_end();
}
