/* SPDX-License-Identifier: MIT
 *
 * fair.c: nobody waits for ever: not for a key, not for the heap, not in a circle.
 *
 * What: "storm": processes and threads hammer a few keys in every way there is, some are killed; what the
 * keys protect is whole each time, and everybody gets a share. "hogs": some take the same thing again the
 * moment they have given it back, or share it so that one of them always has it; one other wants it, too.
 * "waiters that die": those who wait do a part of the looking after holders for each other; one is left.
 * "circles": processes that wait for each other; one of them is told -EDEADLK, the others go on.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crowd.h"

#define KEYS 4u
#define PROCESSES 4u
#define THREADS 4u
#define ACTORS (PROCESSES * THREADS)
#define STORM_SHARE 800u /* transactions, on the average */
#define STORM_DEATHS 60u
#define HOGS 2u
#define HOG_WANTS 25u
#define CIRCLE_MAX 8u
#define CIRCLE_ROUNDS 12u

struct pairs {
	struct {
		uint64_t a, b, rest[6];
	} keys[CIRCLE_MAX];
};
PHEAP_DECLARE(struct pairs, 3);

struct meeting {
	uint32_t stop, at, go, deadlocks, won, lost;
	uint64_t done[ACTORS], hogged[HOGS];
};

static struct meeting *m;

static void must(pheap *h, int rc, const char *what)
{
	if (rc == 0)
		return;
	crowd_wrong("%s: %d (%s)", what, rc, pheap_error_detail(h));
	_exit(9);
}

static void busy_us(uint64_t us)
{
	for (uint64_t end = crowd_now_ns() + us * 1000; crowd_now_ns() < end;)
		;
}

/* --- storm --- */

/* What key k protects is seen half changed by nobody else. */
static int pair_add(pheap_tx *tx, const struct pairs *pairs, uint64_t k)
{
	uint64_t *p = pheap_modify(tx, &pairs->keys[k], 16);

	if (!p)
		return pheap_error(tx);
	if (p[0] != p[1])
		crowd_wrong("key %llu: %llu and %llu", (unsigned long long)k, (unsigned long long)p[0],
			    (unsigned long long)p[1]);
	p[0]++;
	if (p[0] % 16 == 0)
		sched_yield();
	p[1]++;
	return 0;
}

static void pair_look(const struct pairs *pairs, uint64_t k)
{
	volatile const uint64_t *p = &pairs->keys[k].a;
	uint64_t a = p[0];

	if (a % 16 == 0)
		sched_yield();
	if (a != p[1])
		crowd_wrong("key %llu: %llu and %llu are seen", (unsigned long long)k, (unsigned long long)a,
			    (unsigned long long)p[1]);
}

static uint32_t flags_of(unsigned kind)
{
	return kind == 0   ? 0
	       : kind == 1 ? PHEAP_READ
	       : kind == 2 ? PHEAP_CONCURRENT | PHEAP_READ
			   : PHEAP_CONCURRENT;
}

/* One body for all kinds: which is in the seed, so that a repetition does the same. */
static int storm_body(pheap_tx *tx, void *arg)
{
	uint64_t rng = *(uint64_t *)arg, keys[3];
	const struct pairs *pairs = pheap_find(pheap_heap(tx), "pairs");
	unsigned kind = (unsigned)crowd_below(&rng, 16), n = 1 + (unsigned)crowd_below(&rng, 3);
	int rc = 0;

	for (unsigned i = 0; i < n; i++)
		keys[i] = crowd_below(&rng, KEYS);
	if (kind <= 2 || kind == 3 || kind == 4) {
		rc = pheap_lock_shared(tx, keys, n);
		for (unsigned i = 0; i < n && !rc && kind; i++)
			pair_look(pairs, keys[i]);
		if (kind == 4 && !rc)
			rc = pheap_lock(tx, keys, 1); /* from shared to alone: a deadlock when two do it */
		if ((kind == 0 || kind == 4) && !rc)
			rc = pair_add(tx, pairs, keys[0]);
		return rc;
	}
	if (kind < 10)
		rc = pheap_lock(tx, keys, n);
	for (unsigned i = 0; i < n && !rc; i++) {
		rc = kind < 10 ? 0 : pheap_lock(tx, &keys[i], 1); /* in any order */
		rc = rc ? rc : pair_add(tx, pairs, keys[i]);
	}
	return rc;
}

/* pheap_run, counting what it repeats. */
static void storm_tx(pheap *h, uint64_t seed)
{
	uint64_t rng = seed;
	uint32_t flags = flags_of((unsigned)crowd_below(&rng, 16));

	for (;;) {
		pheap_tx *tx;
		int rc;

		must(h, pheap_begin(h, flags, &tx), "begin in the storm");
		rc = pheap_end(tx, storm_body(tx, &seed));
		if (rc != -EDEADLK) {
			must(h, rc, "a transaction of the storm");
			return;
		}
		__atomic_fetch_add(&m->deadlocks, 1, __ATOMIC_RELAXED);
	}
}

struct actor {
	pheap *h;
	unsigned me;
};

static void *storm_thread(void *arg)
{
	const struct actor *actor = arg;
	uint64_t rng = crowd_seed() ^ (uint64_t)getpid() << 24 ^ actor->me;

	while (!__atomic_load_n(&m->stop, __ATOMIC_ACQUIRE)) {
		storm_tx(actor->h, crowd_random(&rng));
		__atomic_fetch_add(&m->done[actor->me], 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static int storm_process(void *arg)
{
	static struct actor actors[THREADS];
	static pthread_t threads[THREADS];
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	for (unsigned i = 0; i < THREADS; i++) {
		actors[i] = (struct actor){h, *(unsigned *)arg * THREADS + i};
		if (pthread_create(&threads[i], NULL, storm_thread, &actors[i]))
			return crowd_wrong("no thread");
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	crowd_close(h);
	return 0;
}

static uint64_t total(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < ACTORS; i++)
		sum += __atomic_load_n(&m->done[i], __ATOMIC_RELAXED);
	return sum;
}

static void storm(bool deaths)
{
	unsigned index[PROCESSES], dead = 0;
	uint64_t rng = crowd_seed(), least = UINT64_MAX, most = 0, sum;
	pid_t pids[PROCESSES];

	memset(m, 0, sizeof(*m));
	for (unsigned i = 0; i < PROCESSES; i++) {
		index[i] = i;
		pids[i] = crowd_start(storm_process, &index[i]);
	}
	while (!crowd_is_wrong() && (deaths ? dead < STORM_DEATHS : total() < STORM_SHARE * ACTORS)) {
		unsigned i = (unsigned)crowd_below(&rng, PROCESSES);

		crowd_nap_us(10000);
		if (!deaths)
			continue;
		dead += crowd_kill(pids[i]) == CROWD_KILLED;
		pids[i] = crowd_start(storm_process, &index[i]);
	}
	sum = total();
	for (unsigned i = 0; i < ACTORS; i++) {
		least = m->done[i] < least ? m->done[i] : least;
		most = m->done[i] > most ? m->done[i] : most;
	}
	crowd_set(&m->stop, 1);
	for (unsigned i = 0; i < PROCESSES; i++)
		if (crowd_wait(pids[i]))
			crowd_wrong("a process of the storm did not end well");
	ok(least >= sum / ACTORS / 10,
	   "storm%s: %u threads of %u processes on %u keys: everybody has a share",
	   deaths ? " with deaths" : "", ACTORS, PROCESSES, KEYS);
	note("%llu transactions, least %llu, most %llu, %u deadlocks broken, %u deaths",
	     (unsigned long long)sum, (unsigned long long)least, (unsigned long long)most, m->deadlocks,
	     dead);
}

/* --- hogs --- */

struct duel {
	const char *name;
	uint32_t hog_flags;
	bool hog_shared;
	uint32_t wants_flags;
	bool wants_shared;
	unsigned hogs;
};

static const struct duel duels[] = {
	{"a key against one that always takes it again", PHEAP_CONCURRENT, false, PHEAP_CONCURRENT, false, 1},
	{"a key against two that always take it again", PHEAP_CONCURRENT, false, PHEAP_CONCURRENT, false, 2},
	{"a shared key against two that always take it again", PHEAP_CONCURRENT, false,
	 PHEAP_CONCURRENT | PHEAP_READ, true, 2},
	{"a key against two that share it by turns", PHEAP_CONCURRENT, true, PHEAP_CONCURRENT, false, 2},
	{"the heap against two with keys", PHEAP_CONCURRENT, true, 0, false, 2},
	{"the heap against two readers", PHEAP_READ, false, 0, false, 2},
	{"the heap against two that want it alone", 0, false, 0, false, 2},
	{"a key against two that want the heap alone", 0, false, PHEAP_CONCURRENT, false, 2},
	{"reading against two that want the heap alone", 0, false, PHEAP_READ, false, 2},
};

struct hog {
	const struct duel *duel;
	unsigned index;
};

static void duel_lock(pheap *h, pheap_tx *tx, uint32_t flags, bool shared)
{
	uint64_t key = 1;

	if (flags & PHEAP_CONCURRENT)
		must(h, shared ? pheap_lock_shared(tx, &key, 1) : pheap_lock(tx, &key, 1), "a key of a duel");
}

static int hog_main(void *arg)
{
	const struct hog *hog = arg;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	crowd_add(&m->at);
	while (!__atomic_load_n(&m->stop, __ATOMIC_ACQUIRE)) {
		pheap_tx *tx;

		must(h, pheap_begin(h, hog->duel->hog_flags, &tx), "begin of a hog");
		duel_lock(h, tx, hog->duel->hog_flags, hog->duel->hog_shared);
		busy_us(150 +
			hog->index * 70); /* they drift, so that one of two has it when the other ends */
		must(h, pheap_commit(tx), "commit of a hog");
		m->hogged[hog->index]++;
	}
	crowd_close(h);
	return 0;
}

static int wants_main(void *arg)
{
	const struct duel *duel = arg;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	crowd_await(&m->at, duel->hogs);
	for (unsigned i = 0; i < HOG_WANTS; i++) {
		pheap_tx *tx;

		must(h, pheap_begin(h, duel->wants_flags, &tx), "begin of the one that wants it, too");
		duel_lock(h, tx, duel->wants_flags, duel->wants_shared);
		must(h, pheap_commit(tx), "commit of the one that wants it, too");
		m->done[0]++;
		crowd_nap_us(300); /* the hogs have it again */
	}
	crowd_close(h);
	return 0;
}

static void duel_run(const struct duel *duel)
{
	struct hog hogs[HOGS];
	pid_t pids[HOGS];
	uint64_t start_ns, hogged = 0;
	int end;

	memset(m, 0, sizeof(*m));
	for (unsigned i = 0; i < duel->hogs; i++) {
		hogs[i] = (struct hog){duel, i};
		pids[i] = crowd_start(hog_main, &hogs[i]);
	}
	start_ns = crowd_now_ns();
	end = crowd_run(wants_main, (void *)(uintptr_t)duel);
	crowd_set(&m->stop, 1);
	for (unsigned i = 0; i < duel->hogs; i++) {
		if (crowd_wait(pids[i]))
			crowd_wrong("a hog did not end well");
		hogged += m->hogged[i];
	}
	ok(end == 0 && m->done[0] == HOG_WANTS, "%s", duel->name);
	note("%u turns among %llu of the others, %.1f ms each", HOG_WANTS, (unsigned long long)hogged,
	     (double)(crowd_now_ns() - start_ns) / 1e6 / HOG_WANTS);
}

/* --- waiters that die --- */

#define WAITERS 5u
#define HANG_MS 20000
#define WAIT_ROUNDS 8u

struct want {
	const char *name;
	uint32_t holder_flags;
	bool holder_shared;
	uint32_t waiter_flags;
	bool waiter_shared;
	bool permits; /* instead: the holder has all of a semaphore */
};

static const struct want wants[] = {
	{"a key", PHEAP_CONCURRENT, false, PHEAP_CONCURRENT, false, false},
	{"a shared key", PHEAP_CONCURRENT, false, PHEAP_CONCURRENT | PHEAP_READ, true, false},
	{"a key from one that shares it", PHEAP_CONCURRENT, true, PHEAP_CONCURRENT, false, false},
	{"the heap from one that has it", 0, false, 0, false, false},
	{"the heap from one with a key", PHEAP_CONCURRENT, false, 0, false, false},
	{"reading from one that has the heap", 0, false, PHEAP_READ, false, false},
	{"permits", 0, false, 0, false, true},
};

static void want_get(pheap *h, const struct want *w, bool holder)
{
	uint32_t flags = holder ? w->holder_flags : w->waiter_flags;
	pheap_tx *tx;

	if (w->permits) {
		must(h, pheap_permits_take(h, pheap_find(h, "permits"), holder ? 3 : 1, HANG_MS),
		     "taking permits");
		return;
	}
	must(h, pheap_begin(h, flags, &tx), "begin of one that may die");
	duel_lock(h, tx, flags, holder ? w->holder_shared : w->waiter_shared);
}

static void want_end(pheap *h, const struct want *w)
{
	if (w->permits)
		must(h, pheap_permits_give(h, pheap_find(h, "permits"), 3), "giving permits");
	else
		must(h, pheap_commit(pheap_current(h)), "commit of one that may have died");
}

static int holder_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	want_get(h, arg, true);
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	want_end(h, arg);
	crowd_close(h);
	return 0;
}

static int waiter_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	crowd_add(&m->at);
	want_get(h, arg, false);
	crowd_add(&m->won);
	return 0; /* its end is the end of what it has */
}

/* All but one of the waiters die, then the holder, or it ends: the last one gets it. */
static void waiters_die(const struct want *w, unsigned round, uint64_t *rng)
{
	unsigned last = (unsigned)crowd_below(rng, WAITERS);
	pid_t holder, pids[WAITERS];

	memset(m, 0, sizeof(*m));
	holder = crowd_start(holder_main, (void *)(uintptr_t)w);
	crowd_await(&m->at, 1);
	for (unsigned i = 0; i < WAITERS; i++)
		pids[i] = crowd_start(waiter_main, (void *)(uintptr_t)w);
	crowd_await(&m->at, 1 + WAITERS);
	/* long enough, now and then, for one of them to have become the first in the row */
	crowd_nap_us(crowd_below(rng, round % 2 ? 40000 : 3000));
	if (m->won)
		crowd_wrong("one had %s although another one had it", w->name);
	for (unsigned n = 1; n < WAITERS; n++)
		(void)crowd_kill(pids[(last + n) % WAITERS]);
	if (round % 4 < 2)
		(void)kill(holder, SIGKILL);
	else
		crowd_set(&m->go, 1);
	crowd_await(&m->won, 1);
	(void)crowd_wait(pids[last]);
	(void)crowd_wait(holder);
}

static void want_run(const struct want *w)
{
	uint64_t rng = crowd_seed();

	for (unsigned round = 0; round < WAIT_ROUNDS && !crowd_is_wrong(); round++)
		waiters_die(w, round, &rng);
	ok(true, "all who wait for %s die but one: it gets it", w->name);
}

/* --- circles --- */

struct member {
	unsigned index, size;
	bool upgrade; /* all share one key, and each wants it alone */
};

static int circle_member(void *arg)
{
	const struct member *c = arg;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	for (unsigned round = 1; round <= CIRCLE_ROUNDS; round++) {
		uint64_t first = c->upgrade ? 0 : c->index,
			 second = c->upgrade ? 0 : (c->index + 1) % c->size;
		const struct pairs *pairs = pheap_find(h, "pairs");
		pheap_tx *tx;
		int rc;

		must(h, pheap_begin(h, PHEAP_CONCURRENT, &tx), "begin in a circle");
		must(h, c->upgrade ? pheap_lock_shared(tx, &first, 1) : pheap_lock(tx, &first, 1),
		     "the first key of a circle");
		crowd_add(&m->at);
		crowd_await(&m->at, round * c->size);
		rc = pheap_lock(tx, &second, 1);
		if (rc == 0)
			rc = pair_add(tx, pairs, second);
		rc = pheap_end(tx, rc);
		if (rc && rc != -EDEADLK)
			must(h, rc, "a circle");
		crowd_add(rc ? &m->lost : &m->won);
		crowd_add(&m->go);
		crowd_await(&m->go, round * c->size);
	}
	crowd_close(h);
	return 0;
}

static void circle_run(unsigned size, bool upgrade)
{
	struct member members[CIRCLE_MAX];
	pid_t pids[CIRCLE_MAX];

	memset(m, 0, sizeof(*m));
	for (unsigned i = 0; i < size; i++) {
		members[i] = (struct member){i, size, upgrade};
		pids[i] = crowd_start(circle_member, &members[i]);
	}
	for (unsigned i = 0; i < size; i++)
		if (crowd_wait(pids[i]))
			crowd_wrong("a process in a circle did not end well");
	/* at least one in each round gives way, and at least one gets on */
	ok(m->lost >= CIRCLE_ROUNDS && m->won >= CIRCLE_ROUNDS && m->lost + m->won == size * CIRCLE_ROUNDS,
	   "%u processes %s: in %u rounds %u got -EDEADLK, %u went on", size,
	   upgrade ? "share a key and each wants it alone" : "in a circle", CIRCLE_ROUNDS, m->lost, m->won);
}

/* One of two that wait for each other dies: the other one gets the key, or was told of the circle before. */
static void circle_with_death(void)
{
	struct member members[2] = {{0, 2, false}, {1, 2, false}};
	uint64_t rng = crowd_seed();

	for (unsigned i = 0; i < 40; i++) {
		pid_t pids[2];

		memset(m, 0, sizeof(*m));
		for (unsigned k = 0; k < 2; k++)
			pids[k] = crowd_start(circle_member, &members[k]);
		crowd_await(&m->at, 2);
		crowd_nap_us(crowd_below(&rng, 3000));
		(void)crowd_kill(pids[i % 2]);
		while (m->won + m->lost == 0)
			crowd_nap_us(200);
		(void)crowd_kill(pids[1 - i % 2]);
	}
	ok(true, "one of two in a circle dies: the other one goes on");
}

int main(void)
{
	pheap *h;
	pheap_tx *tx;

	crowd_begin("fairness", 170);
	m = crowd_share(sizeof(*m));
	h = crowd_open(crowd_path("heap"), PHEAP_CREATE, NULL);
	tx = crowd_tx(h, 0);
	(void)!PHEAP_ROOT(tx, "pairs", struct pairs);
	(void)pheap_root_set(tx, "permits", pheap_permits_new(tx, 3));
	crowd_commit(tx);
	storm(false);
	storm(true);
	for (size_t i = 0; i < sizeof(duels) / sizeof(duels[0]); i++)
		duel_run(&duels[i]);
	for (size_t i = 0; i < sizeof(wants) / sizeof(wants[0]); i++)
		want_run(&wants[i]);
	for (unsigned size = 2; size <= CIRCLE_MAX; size += 3)
		circle_run(size, false);
	circle_run(2, true);
	circle_run(5, true);
	circle_with_death();
	crowd_close(h);
	return crowd_end();
}
