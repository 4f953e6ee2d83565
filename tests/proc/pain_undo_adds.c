/* SPDX-License-Identifier: MIT
 *
 * pain_undo_adds.c: A adds 2 to a semaphore, to be undone; B takes 1; A dies.
 *
 * The pain: the kernel can not take 2 from 1. It takes what there is, and when B gives its 1 back there is a
 * permit that nobody has ever had. (Other systems wait, with the death, until there are 2.) Shown first.
 * The answer: permits belong to members. What a death gives back or takes away is exactly what that member
 * had taken or lent, whatever the others do meanwhile; the number of free ones may be below 0 for a while.
 * Shown for the story, for a death after each store of each call, and for a storm with random deaths; the
 * binary form never has two owners.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <unistd.h>

#include "crowd.h"
#include "steps.h"

#define WORKERS 5u
#define TOTAL 7u
#define STORM_DEATHS 300u
#define HANG_MS 20000

struct meeting {
	uint32_t at, go, stop;
	uint64_t owner; /* member that says it has the binary one */
	uint64_t owned, takes, refused;
	int64_t balance[WORKERS]; /* of those who live to the end of the storm */
};

static struct meeting *m;
static pheap *heap;
static const pheap_permits *permits, *one;

static const pheap_permits *permits_of(pheap *h, const char *name)
{
	const pheap_permits *p = pheap_find(h, name);

	crowd_must(p ? 0 : -ENOENT, name);
	return p;
}

static int64_t free_now(void)
{
	int64_t n = INT64_MIN;

	crowd_must(pheap_recover(heap, NULL), "pheap_recover");
	crowd_must(pheap_permits_available(heap, permits, &n), "pheap_permits_available");
	return n;
}

/* --- the old way --- */

static int old_set;

static int old_op(int change, int flags)
{
	struct sembuf op = {0, (short)change, (short)flags};

	return semop(old_set, &op, 1);
}

static int old_adder(void *arg)
{
	(void)arg;
	if (old_op(2, SEM_UNDO))
		return 1;
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	return 0;
}

static int old_main(void *arg)
{
	pid_t pid;
	int after_death;

	(void)arg;
	if (!crowd_sysv_private())
		return 77;
	old_set = semget(IPC_PRIVATE, 1, 0600);
	if (old_set < 0 || semctl(old_set, 0, SETVAL, 0))
		return 1;
	pid = crowd_start(old_adder, NULL);
	crowd_await(&m->at, 1);
	if (old_op(-1, IPC_NOWAIT))
		return 1;
	(void)crowd_kill(pid);
	after_death = semctl(old_set, 0, GETVAL);
	if (old_op(1, 0))
		return 1;
	/* -1 and 0 would be right */
	return after_death == 0 && semctl(old_set, 0, GETVAL) == 1 ? 0 : 2;
}

static void old_show(void)
{
	int end = crowd_run(old_main, NULL);

	if (end == 77)
		skip("old way", "no IPC namespace of its own here");
	else
		ok(end == 0, "old way, SEM_UNDO: 0 + 2 - 1 - 2 is 0, and after B gave its 1 back there is 1");
	memset(m, 0, sizeof(*m));
}

/* --- the story --- */

static int lender_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	(void)arg;
	crowd_must(pheap_permits_lend(h, permits_of(h, "permits"), 2), "pheap_permits_lend");
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	crowd_close(h);
	return 0;
}

static void heap_make(uint64_t total)
{
	const pheap_permits *p, *q;
	pheap_tx *tx;

	memset(m, 0, sizeof(*m));
	(void)unlink(crowd_path("heap"));
	heap = crowd_open(crowd_path("heap"), PHEAP_CREATE, NULL);
	tx = crowd_tx(heap, 0);
	p = pheap_permits_new(tx, total);
	q = pheap_permits_new(tx, 1);
	(void)pheap_root_set(tx, "permits", p);
	(void)pheap_root_set(tx, "one", q);
	crowd_commit(tx);
	permits = permits_of(heap, "permits");
	one = permits_of(heap, "one");
}

/* False: permits do not come back, and who waits for some would wait for ever. */
static bool story(bool dies)
{
	int64_t before, lent, after;
	bool good;
	pid_t pid;

	heap_make(0);
	before = free_now();
	pid = crowd_start(lender_main, NULL);
	crowd_await(&m->at, 1);
	lent = free_now();
	crowd_must(pheap_permits_take(heap, permits, 1, 0), "taking one that was lent");
	if (dies) {
		(void)crowd_kill(pid);
	} else {
		crowd_set(&m->go, 1);
		(void)crowd_wait(pid);
	}
	after = free_now();
	ok(before == 0 && lent == 2 && after == -1 && pheap_permits_take(heap, permits, 1, 0) == -EAGAIN,
	   "heap: 0 + 2 - 1 - 2 is -1 when the lender %s", dies ? "dies" : "closes");
	crowd_must(pheap_permits_give(heap, permits, 1), "pheap_permits_give");
	good = ok(free_now() == 0 && pheap_permits_give(heap, permits, 1) == -EPERM &&
			  pheap_permits_take(heap, permits, 1, 20) == -ETIMEDOUT,
		  "heap: and 0 after the other one gave its 1 back");
	crowd_close(heap);
	return good;
}

/* Waits for 4 of 5 that a dying one has 3 of. */
static int waiter_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	(void)arg;
	crowd_add(&m->at);
	crowd_must(pheap_permits_take(h, permits_of(h, "permits"), 4, HANG_MS), "pheap_permits_take");
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	crowd_close(h);
	return 0;
}

static int taker_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	(void)arg;
	crowd_must(pheap_permits_take(h, permits_of(h, "permits"), 3, 0), "pheap_permits_take");
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	crowd_close(h);
	return 0;
}

static void waiting(void)
{
	pid_t taker, waiter, mortal;
	uint64_t start_ns;

	heap_make(5);
	taker = crowd_start(taker_main, NULL);
	crowd_await(&m->at, 1);
	waiter = crowd_start(waiter_main, NULL);
	mortal = crowd_start(waiter_main, NULL);
	crowd_await(&m->at, 3);
	crowd_await_asleep(mortal);
	(void)crowd_kill(mortal); /* in its wait: has nothing, takes nothing along */
	start_ns = crowd_now_ns();
	(void)crowd_kill(taker);
	crowd_await(&m->at, 4);
	note("heap: the waiter had them %.2f ms after the kill", (double)(crowd_now_ns() - start_ns) / 1e6);
	ok(free_now() == 1, "heap: who waits for more than are free gets them when one that has some dies");
	crowd_set(&m->go, 1);
	ok(crowd_wait(waiter) == 0 && free_now() == 5, "heap: closing gives back as well");
	crowd_close(heap);
}

/* --- a death after each store --- */

static int victim_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	const pheap_permits *p = permits_of(h, "permits");

	crowd_commit(crowd_tx(h, 0)); /* the lane */
	steps_arm_heap(h, *(uint64_t *)arg);
	if (pheap_permits_take(h, p, 2, 0) || pheap_permits_lend(h, p, 5) ||
	    pheap_permits_give(h, p, 1) != -EPERM || pheap_permits_take(h, p, 4, 0) ||
	    pheap_permits_give(h, p, 1))
		crowd_wrong("a call of the victim: %s", pheap_error_detail(h));
	steps_disarm();
	crowd_close(h);
	return 0;
}

static void stores(void)
{
	unsigned deaths = 0;
	int end = CROWD_KILLED;

	if (!steps_possible()) {
		skip("deaths after each store", "no trap flag on this processor");
		return;
	}
	heap_make(TOTAL);
	crowd_must(pheap_permits_take(heap, permits, 3, 0), "pheap_permits_take");
	for (uint64_t k = 1; end == CROWD_KILLED && !crowd_is_wrong(); k++) {
		end = crowd_run(victim_main, &k);
		deaths += end == CROWD_KILLED;
		if (free_now() != TOTAL - 3)
			crowd_wrong("killed after store %llu: %lld are free, not %u", (unsigned long long)k,
				    (long long)free_now(), TOTAL - 3);
	}
	ok(end == 0 && deaths > 20,
	   "heap: a death after each of %u stores of take, lend and give: all is as before", deaths);
	crowd_must(pheap_permits_give(heap, permits, 3), "pheap_permits_give");
	crowd_close(heap);
}

/* --- storm --- */

/* One owner at a time: whoever finds another one's number finds that of a dead one. */
static void own_one(pheap *h, const pheap_permits *p)
{
	uint64_t me = pheap_member(h), before;

	crowd_must(pheap_permit_reserve(h, p, HANG_MS), "pheap_permit_reserve");
	before = __atomic_exchange_n(&m->owner, me, __ATOMIC_SEQ_CST);
	if (before && pheap_member_alive(h, before) != 0)
		crowd_wrong("member %llu has it already", (unsigned long long)before);
	sched_yield();
	if (__atomic_load_n(&m->owner, __ATOMIC_SEQ_CST) != me)
		crowd_wrong("another one has it as well");
	m->owned++;
	__atomic_store_n(&m->owner, 0, __ATOMIC_SEQ_CST);
	crowd_must(pheap_permit_release(h, p), "pheap_permit_release");
}

static _Noreturn void storm_for_ever(unsigned me)
{
	uint64_t rng = crowd_seed() ^ (uint64_t)getpid() << 20;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	const pheap_permits *p = permits_of(h, "permits"), *q = permits_of(h, "one");
	int64_t balance = 0; /* taken, less lent: one taken after a loan ends that much of it */

	while (!__atomic_load_n(&m->stop, __ATOMIC_ACQUIRE)) {
		int64_t n = 1 + (int64_t)crowd_below(&rng, 3);
		int rc;

		/* the calls run in the mode of the heap: let it be that of transactions that run together, mostly */
		if (crowd_below(&rng, 8) == 0)
			crowd_commit(crowd_tx(h, crowd_below(&rng, 8) ? PHEAP_CONCURRENT : 0));
		switch (crowd_below(&rng, 5)) {
		case 0:
		case 1:
			rc = pheap_permits_take(h, p, (uint64_t)n, (int32_t)crowd_below(&rng, 3));
			if (rc != -EAGAIN && rc != -ETIMEDOUT)
				crowd_must(rc, "take in the storm");
			balance += rc == 0 ? n : 0;
			__atomic_fetch_add(rc ? &m->refused : &m->takes, 1, __ATOMIC_RELAXED);
			break;
		case 2:
			n = n < balance ? n : balance;
			if (n > 0)
				crowd_must(pheap_permits_give(h, p, (uint64_t)n), "give in the storm");
			balance -= n > 0 ? n : 0;
			break;
		case 3:
			if (balance <= 0 && balance > -6) {
				crowd_must(pheap_permits_lend(h, p, (uint64_t)n), "lend in the storm");
				balance -= n;
			}
			break;
		default:
			own_one(h, q);
		}
	}
	m->balance[me] = balance;
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	crowd_close(h);
	_exit(0);
}

static int storm_main(void *arg)
{
	storm_for_ever(*(unsigned *)arg);
}

static void storm(void)
{
	uint64_t rng = crowd_seed();
	int64_t left = 0, living = 0;
	unsigned index[WORKERS];
	pid_t pids[WORKERS];

	heap_make(TOTAL);
	for (unsigned i = 0; i < WORKERS; i++) {
		index[i] = i;
		pids[i] = crowd_start(storm_main, &index[i]);
	}
	for (unsigned n = 0; n < STORM_DEATHS && !crowd_is_wrong(); n++) {
		unsigned i = (unsigned)crowd_below(&rng, WORKERS);

		crowd_nap_us(crowd_below(&rng, 8000));
		if (crowd_kill(pids[i]) != CROWD_KILLED)
			crowd_wrong("a worker ended by itself");
		pids[i] = crowd_start(storm_main, &index[i]);
	}
	crowd_nap_us(20000);
	for (unsigned i = 0; i < WORKERS / 2; i++)
		(void)crowd_kill(pids[i]);
	crowd_set(&m->stop, 1);
	if (!crowd_is_wrong())
		crowd_await(&m->at, WORKERS - WORKERS / 2);
	for (unsigned i = WORKERS / 2; i < WORKERS; i++)
		living += m->balance[i];
	if (free_now() != (int64_t)TOTAL - living)
		crowd_wrong("%lld are free, the living have %lld of %u", (long long)free_now(),
			    (long long)living, TOTAL);
	crowd_set(&m->go, 1);
	for (unsigned i = WORKERS / 2; i < WORKERS; i++)
		if (crowd_wait(pids[i]))
			crowd_wrong("a worker did not end well");
	crowd_must(pheap_permits_available(heap, one, &left), "pheap_permits_available");
	ok(free_now() == TOTAL && left == 1 && m->takes > 100 && m->owned > 100,
	   "heap, storm: after %u random deaths exactly those of the dead are free, and 1 never had two owners",
	   STORM_DEATHS);
	note("%llu times taken, %llu times refused, %llu times owned alone", (unsigned long long)m->takes,
	     (unsigned long long)m->refused, (unsigned long long)m->owned);
}

static void deleting(void)
{
	pheap_tx *tx;
	int rc;

	crowd_must(pheap_permits_take(heap, permits, 1, 0), "pheap_permits_take");
	tx = crowd_tx(heap, 0);
	rc = pheap_permits_delete(tx, permits);
	ok(rc == -EBUSY && pheap_permits_take(heap, permits, 1, 0) == PHEAP_EACTIVE,
	   "a semaphore is not deleted while somebody has permits, nor used in a transaction");
	pheap_abort(tx);
	crowd_must(pheap_permits_give(heap, permits, 1), "pheap_permits_give");
	tx = crowd_tx(heap, 0);
	(void)pheap_root_set(tx, "permits", NULL);
	(void)pheap_permits_delete(tx, permits);
	crowd_commit(tx);
	ok(pheap_permits_take(heap, permits, 1, 0) == -EINVAL, "a deleted one is none");
	crowd_close(heap);
}

int main(void)
{
	crowd_begin("undone additions", 120);
	m = crowd_share(sizeof(*m));
	old_show();
	if (!story(true) || !story(false))
		return crowd_end();
	waiting();
	stores();
	storm();
	deleting();
	return crowd_end();
}
