/* SPDX-License-Identifier: MIT
 *
 * holds.c: a block lives as long as a process holds it, and is freed exactly once when the last hold goes,
 * however it goes.
 *
 * What: holds of the dead and of those who close; deaths after each store of hold and release, and of who
 * recovers and frees; a storm in which processes find blocks of each other, hold them, and are killed.
 * How "exactly once" is seen: a block freed twice is either an error or somebody else's; so whoever lives
 * allocates blocks of the same kind in between, and looks at them afterwards. How "not before" is seen: a
 * block has a number that is wiped when another one takes its place.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crowd.h"
#include "steps.h"

#define TYPE 9u
#define OTHER_TYPE 10u
#define OWN_BLOCKS 12u
#define WORKERS 5u
#define SLOTS 24u
#define HELD_MAX 6u
#define ALIVE_MAX 4u
#define STORM_DEATHS 150u

struct thing {
	uint64_t number, same;
};
PHEAP_DECLARE(struct thing, 9);

/* What leads to things: the storm's table. */
struct table {
	struct {
		uint64_t off, number;
	} slots[SLOTS];
};
PHEAP_DECLARE(struct table, 4);

struct meeting {
	uint32_t at, go, stop;
	uint64_t off, last_number;
	uint64_t found, made, stale, over;
};

static struct meeting *m;
static pheap *heap;

static void heap_make(void)
{
	pheap_tx *tx;

	memset(m, 0, sizeof(*m));
	(void)unlink(crowd_path("heap"));
	heap = crowd_open(crowd_path("heap"), PHEAP_CREATE, NULL);
	tx = crowd_tx(heap, 0);
	(void)!PHEAP_ROOT(tx, "table", struct table);
	crowd_commit(tx);
}

/* Things that are there, after everything that is due was done. */
static unsigned things_now(void)
{
	crowd_must(pheap_recover(heap, NULL), "pheap_recover");
	return crowd_count(heap, TYPE);
}

/* A thing, held by this process n times. */
static const struct thing *thing_make(pheap *h, uint64_t number, unsigned n)
{
	pheap_tx *tx = crowd_tx(h, PHEAP_CONCURRENT);
	struct thing *t = PHEAP_NEW(tx, struct thing);

	if (t)
		t->number = t->same = number;
	while (t && n--)
		(void)pheap_hold(h, t);
	crowd_commit(tx);
	return t;
}

/* --- who goes, and how --- */

enum how { BY_RELEASE, BY_CLOSE, BY_DEATH };

struct guest {
	enum how how;
	bool makes; /* the thing; else it holds the one at m->off */
};

static int guest_main(void *arg)
{
	const struct guest *g = arg;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	const struct thing *t;

	if (g->makes) {
		t = thing_make(h, 7, 1);
		m->off = pheap_offset(h, t);
	} else {
		t = pheap_at(h, m->off);
		crowd_must(pheap_hold(h, t), "pheap_hold");
	}
	crowd_must(pheap_hold(h, t), "pheap_hold");
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	if (g->how == BY_DEATH)
		(void)raise(SIGKILL);
	if (g->how == BY_RELEASE)
		for (int i = 0; i < 2; i++)
			crowd_must(pheap_release(h, t), "pheap_release");
	crowd_close(h);
	return 0;
}

static pid_t guest_start(struct guest *g)
{
	uint32_t at = m->at;
	pid_t pid = crowd_start(guest_main, g);

	crowd_await(&m->at, at + 1);
	return pid;
}

static void one_goes(enum how how, const char *name)
{
	struct guest g = {how, true};
	unsigned before, after;
	pid_t pid;

	heap_make();
	pid = guest_start(&g);
	before = things_now();
	crowd_set(&m->go, 1);
	(void)crowd_wait(pid);
	after = things_now();
	ok(before == 1 && after == 0, "the only holder %s: the block is freed", name);
	crowd_close(heap);
}

static void one_of_two_goes(enum how how, const char *name)
{
	struct guest g = {how, true};
	const struct thing *t;
	unsigned shared, alone;
	pheap_tx *tx;
	pid_t pid;
	int busy;

	heap_make();
	pid = guest_start(&g);
	t = pheap_at(heap, m->off);
	crowd_must(pheap_hold(heap, t), "pheap_hold");
	crowd_set(&m->go, 1);
	(void)crowd_wait(pid);
	shared = things_now();
	tx = crowd_tx(heap, 0);
	busy = pheap_free(tx, t);
	pheap_abort(tx);
	if (t->number != 7 || t->same != 7)
		crowd_wrong("the block has lost its contents");
	crowd_must(pheap_release(heap, t), "pheap_release");
	alone = things_now();
	ok(shared == 1 && busy == -EBUSY && alone == 0,
	   "one of two holders %s: the block stays, pheap_free is -EBUSY, and goes with the other", name);
	ok(pheap_release(heap, t) == -EPERM && pheap_hold(heap, t) == -EINVAL,
	   "then it is nobody's: release is -EPERM, hold is -EINVAL");
	crowd_close(heap);
}

/* Nobody calls pheap_recover, and nobody closes: who comes next does it. */
static void found_by_others(void)
{
	struct guest g = {BY_DEATH, true}, next = {BY_RELEASE, true};
	pid_t pid;

	heap_make();
	pid = guest_start(&g);
	(void)crowd_kill(pid);
	pid = guest_start(&next);
	ok(crowd_count(heap, TYPE) == 1, "a process that opens the heap frees what the dead held alone");
	(void)crowd_kill(pid);
	crowd_close(heap);
	heap = crowd_open(crowd_path("heap"), 0, NULL);
	ok(things_now() == 0, "so does one that opens it after all are gone");
	crowd_close(heap);
}

static void in_transactions(void)
{
	const struct thing *t;
	pheap_tx *tx;

	heap_make();
	t = thing_make(heap, 3, 1);
	tx = crowd_tx(heap, 0);
	crowd_must(pheap_release(heap, t), "pheap_release");
	pheap_abort(tx);
	ok(things_now() == 1 && t->number == 3, "a release that was aborted did not happen");
	tx = crowd_tx(heap, 0);
	crowd_must(pheap_hold(heap, t), "pheap_hold");
	pheap_abort(tx);
	crowd_must(pheap_release(heap, t), "pheap_release");
	ok(things_now() == 0, "a hold that was aborted did not happen either");
	tx = crowd_tx(heap, 0);
	t = PHEAP_NEW(tx, struct thing);
	crowd_must(pheap_hold(heap, t), "pheap_hold");
	pheap_abort(tx);
	ok(things_now() == 0, "nor did the block that it was for");
	crowd_close(heap);
}

/* Releases its only hold, and has not committed: then others are told to go on, and it aborts. */
static int undecided_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	const struct thing *t = thing_make(h, 7, 1);
	pheap_tx *tx = crowd_tx(h, PHEAP_CONCURRENT);

	m->off = pheap_offset(h, t);
	crowd_must(pheap_release(h, t), "pheap_release");
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	if (*(bool *)arg)
		(void)raise(SIGKILL);
	pheap_abort(tx);
	crowd_add(&m->at);
	crowd_await(&m->go, 2);
	crowd_close(h);
	return 0;
}

static void undecided(bool dies)
{
	struct pheap_options opt = crowd_options();
	const struct thing *t;
	int before, after;
	pheap_tx *tx;
	pid_t pid;

	heap_make();
	crowd_close(heap);
	opt.lock_timeout_ms = 40; /* of the first process, beside one that does not decide */
	heap = crowd_open(crowd_path("heap"), 0, &opt);
	pid = crowd_start(undecided_main, &dies);
	crowd_await(&m->at, 1);
	t = pheap_at(heap, m->off);
	tx = crowd_tx(heap, PHEAP_CONCURRENT);
	before = pheap_free(tx, t);
	if (pheap_end(tx, before) != before)
		crowd_wrong("the end of a transaction that freed");
	crowd_set(&m->go, 1);
	if (dies) {
		(void)crowd_wait(pid);
		ok((before == -ETIMEDOUT || before == -EBUSY) && things_now() == 0,
		   "who has released it dies before the commit: nobody else could free it, now it is freed");
		crowd_close(heap);
		return;
	}
	crowd_await(&m->at, 2);
	tx = crowd_tx(heap, PHEAP_CONCURRENT);
	after = pheap_free(tx, t);
	pheap_abort(tx);
	ok((before == -ETIMEDOUT || before == -EBUSY) && after == -EBUSY && things_now() == 1,
	   "a release that has not committed does not let others free it, and it was aborted");
	crowd_set(&m->go, 2);
	(void)crowd_wait(pid);
	if (things_now())
		crowd_wrong("it is still there");
	crowd_close(heap);
}

/* --- deaths after each store --- */

/* Blocks of somebody alive. */
struct own {
	struct thing *blocks[OWN_BLOCKS];
};

static void own_make(struct own *own)
{
	pheap_tx *tx = crowd_tx(heap, PHEAP_CONCURRENT);

	for (unsigned i = 0; i < OWN_BLOCKS; i++) {
		own->blocks[i] = pheap_alloc(tx, sizeof(struct thing), OTHER_TYPE - i % 2);
		if (own->blocks[i])
			own->blocks[i]->number = own->blocks[i]->same = 1000 + i;
	}
	crowd_commit(tx);
}

static void own_free(struct own *own)
{
	pheap_tx *tx = crowd_tx(heap, PHEAP_CONCURRENT);

	for (unsigned i = 0; i < OWN_BLOCKS; i++) {
		if (own->blocks[i]->number != 1000 + i || own->blocks[i]->same != 1000 + i)
			crowd_wrong("a block that is in use was given to somebody else");
		(void)pheap_free(tx, own->blocks[i]);
	}
	crowd_commit(tx);
}

static int victim_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	const struct thing *shared = pheap_at(h, m->off), *t;

	crowd_commit(crowd_tx(h, 0)); /* the lane */
	steps_arm_heap(h, *(uint64_t *)arg);
	crowd_must(pheap_hold(h, shared), "pheap_hold");
	t = thing_make(h, 7, 2);
	crowd_must(pheap_release(h, shared), "pheap_release");
	crowd_must(pheap_release(h, t), "pheap_release");
	crowd_must(pheap_hold(h, shared), "pheap_hold");
	crowd_must(pheap_release(h, t), "pheap_release");
	steps_disarm();
	crowd_close(h);
	return 0;
}

static void victims(void)
{
	const struct thing *shared;
	unsigned deaths = 0;
	int end = CROWD_KILLED;

	heap_make();
	shared = thing_make(heap, 5, 1);
	for (uint64_t k = 1; end == CROWD_KILLED && !crowd_is_wrong(); k++) {
		struct own own;
		unsigned left;

		m->off = pheap_offset(heap, shared);
		end = crowd_run(victim_main, &k);
		deaths += end == CROWD_KILLED;
		own_make(&own);
		left = things_now();
		own_free(&own);
		if (left != 1 + OWN_BLOCKS / 2 || things_now() != 1 || shared->number != 5)
			crowd_wrong("killed after store %llu: %u blocks, 1 is held", (unsigned long long)k,
				    things_now());
	}
	crowd_must(pheap_release(heap, shared), "pheap_release");
	ok(end == 0 && deaths > 40 && things_now() == 0,
	   "a death after each of %u stores of hold and release: what others hold stays, the rest goes",
	   deaths);
	crowd_close(heap);
}

/* Recovers and frees; stops at one store and dies at a later one. */
struct reaper {
	uint64_t stop, die;
};

static int reaper_main(void *arg)
{
	const struct reaper *r = arg;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	steps_arm_heap(h, r->die);
	steps_stop(r->stop);
	crowd_must(pheap_recover(h, NULL), "pheap_recover");
	steps_disarm();
	crowd_close(h);
	return 0;
}

/* Holds one alone twice, one together with the first process, and dies in the middle of holding a third. */
static int holder_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	(void)arg;
	(void)thing_make(h, 7, 2);
	crowd_must(pheap_hold(h, pheap_at(h, m->off)), "pheap_hold");
	(void)crowd_tx(h, PHEAP_CONCURRENT);
	crowd_must(pheap_hold(h, pheap_zalloc(pheap_current(h), 16, TYPE)), "pheap_hold");
	(void)raise(SIGKILL);
	return 0;
}

/* The end of the reaper: like crowd_wait. While it is stopped, another one looks for what is to be freed, as far as the
 * stopped one lets it. */
static int reaper_end(pid_t pid)
{
	int status = 0, rc;

	(void)waitpid(pid, &status, WUNTRACED);
	if (!WIFSTOPPED(status))
		return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
	rc = pheap_recover(heap, NULL);
	if (rc != -ETIMEDOUT)
		crowd_must(rc, "pheap_recover beside a stopped one");
	(void)kill(pid, SIGCONT);
	return crowd_wait(pid);
}

/* Whether it died. */
static bool reaper_dies(struct reaper r, const struct thing *shared)
{
	struct own own;
	unsigned left;
	pid_t pid;
	int end;

	memset(m, 0, sizeof(*m));
	m->off = pheap_offset(heap, shared);
	pid = crowd_start(reaper_main, &r);
	crowd_await(&m->at, 1);
	(void)crowd_run(holder_main, NULL);
	crowd_set(&m->go, 1);
	end = reaper_end(pid);
	own_make(&own);
	left = things_now();
	own_free(&own);
	if (left != 1 + OWN_BLOCKS / 2 || things_now() != 1 || shared->number != 5)
		crowd_wrong("reaper stopped at store %llu and killed at store %llu: %u blocks, 1 is held",
			    (unsigned long long)r.stop, (unsigned long long)r.die, things_now());
	if (end && end != CROWD_KILLED)
		crowd_wrong("the reaper ended with %d", end);
	return end == CROWD_KILLED;
}

static void reapers(uint64_t apart, const char *what)
{
	struct pheap_options opt = crowd_options();
	const struct thing *shared;
	unsigned deaths = 0;
	uint64_t k = 1;

	heap_make();
	crowd_close(heap);
	opt.lock_timeout_ms = 40; /* of the first process, beside one that is stopped */
	heap = crowd_open(crowd_path("heap"), 0, &opt);
	shared = thing_make(heap, 5, 1);
	/* While it was stopped the other one may have left it too little to do for one more store. */
	for (unsigned alive = 0; !crowd_is_wrong() && alive < ALIVE_MAX; k++) {
		bool dies = reaper_dies((struct reaper){apart ? k : 0, k + apart}, shared);

		alive = dies ? 0 : alive + 1;
		deaths += dies;
	}
	crowd_must(pheap_release(heap, shared), "pheap_release");
	ok(deaths > 10 && things_now() == 0, "%s %u stores of who frees them: once, not twice", what, deaths);
	crowd_close(heap);
}

/* --- storm --- */

struct held {
	const struct thing *thing;
	uint64_t number;
};

/* Finds the thing in a slot and holds it, or puts a new one there. Alone in the heap, so nobody frees or reuses a
 * block between the look and the hold. */
static const struct thing *slot_hold(pheap *h, const struct table *table, unsigned slot)
{
	pheap_tx *tx = crowd_tx(h, 0);
	const struct thing *t = pheap_at(h, table->slots[slot].off);
	uint64_t off;

	if (t && pheap_usable_size(h, t) && pheap_type_of(h, t) == TYPE &&
	    t->number == table->slots[slot].number) {
		m->found++;
	} else {
		struct thing *now = PHEAP_NEW(tx, struct thing);

		m->stale += t != NULL;
		m->made++;
		if (now)
			now->number = now->same = ++m->last_number;
		off = pheap_offset(h, now);
		(void)pheap_store(tx, &table->slots[slot].off, &off, 8);
		(void)pheap_store(tx, &table->slots[slot].number, &m->last_number, 8);
		t = now;
	}
	crowd_must(pheap_hold(h, t), "hold in the storm");
	crowd_commit(tx);
	return t;
}

/* Things that nobody else knows, held and released beside other transactions. */
static void own_one(pheap *h, uint64_t number)
{
	const struct thing *things[3];

	for (unsigned i = 0; i < 3; i++)
		things[i] = thing_make(h, number + i, 2);
	for (unsigned n = 0; n < 2; n++)
		for (unsigned i = 0; i < 3; i++) {
			if (things[i]->number != number + i)
				crowd_wrong("a thing that nobody else knows was freed while it was held");
			crowd_must(pheap_release(h, things[i]), "release of an own thing");
		}
}

static _Noreturn void storm_for_ever(void)
{
	uint64_t rng = crowd_seed() ^ (uint64_t)getpid() << 20;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	const struct table *table = pheap_find(h, "table");
	struct held held[HELD_MAX] = {{0}};

	while (!__atomic_load_n(&m->stop, __ATOMIC_ACQUIRE)) {
		struct held *one = &held[crowd_below(&rng, HELD_MAX)];

		for (unsigned i = 0; i < HELD_MAX; i++)
			if (held[i].thing && (held[i].thing->number != held[i].number ||
					      held[i].thing->same != held[i].number))
				crowd_wrong("number %llu was freed while it was held",
					    (unsigned long long)held[i].number);
		if (crowd_below(&rng, 4) == 0)
			own_one(h, crowd_random(&rng));
		if (one->thing) {
			crowd_must(pheap_release(h, one->thing), "release in the storm");
			one->thing = NULL;
		} else {
			one->thing = slot_hold(h, table, (unsigned)crowd_below(&rng, SLOTS));
			one->number = one->thing->number;
		}
		m->over++;
	}
	crowd_close(h);
	_exit(0);
}

static int storm_main(void *arg)
{
	(void)arg;
	storm_for_ever();
}

static void storm(void)
{
	uint64_t rng = crowd_seed();
	struct pheap_stats before, after;
	pid_t pids[WORKERS];

	heap_make();
	crowd_must(pheap_stats(heap, &before, sizeof(before)), "pheap_stats");
	for (unsigned i = 0; i < WORKERS; i++)
		pids[i] = crowd_start(storm_main, NULL);
	for (unsigned n = 0; n < STORM_DEATHS && !crowd_is_wrong(); n++) {
		unsigned i = (unsigned)crowd_below(&rng, WORKERS);

		crowd_nap_us(crowd_below(&rng, 8000));
		if (crowd_kill(pids[i]) != CROWD_KILLED)
			crowd_wrong("a worker ended by itself");
		pids[i] = crowd_start(storm_main, NULL);
	}
	crowd_set(&m->stop, 1);
	for (unsigned i = 0; i < WORKERS; i++)
		if (crowd_wait(pids[i]))
			crowd_wrong("a worker did not end well");
	(void)things_now();
	crowd_must(pheap_stats(heap, &after, sizeof(after)), "pheap_stats");
	ok(things_now() == 0 && after.block_count == before.block_count && m->found > 100 && m->made > 100,
	   "storm: %u random deaths: nothing that is held is freed, and nothing is left", STORM_DEATHS);
	note("%llu rounds, %llu made, %llu found, %llu times a slot led to nothing",
	     (unsigned long long)m->over, (unsigned long long)m->made, (unsigned long long)m->found,
	     (unsigned long long)m->stale);
	crowd_close(heap);
}

int main(void)
{
	crowd_begin("held references", 120);
	m = crowd_share(sizeof(*m));
	one_goes(BY_RELEASE, "releases it");
	one_goes(BY_CLOSE, "closes the heap");
	one_goes(BY_DEATH, "dies");
	one_of_two_goes(BY_RELEASE, "releases it");
	one_of_two_goes(BY_CLOSE, "closes the heap");
	one_of_two_goes(BY_DEATH, "dies");
	found_by_others();
	in_transactions();
	undecided(false);
	undecided(true);
	if (steps_possible()) {
		victims();
		reapers(0, "a death after each of");
		reapers(1, "another one looks, then a death, at each of");
		reapers(2, "another one looks, then one more store and a death, at each of");
	} else {
		skip("deaths after each store", "no trap flag on this processor");
	}
	storm();
	return crowd_end();
}
