/* SPDX-License-Identifier: MIT
 *
 * who_recovers.c: every occasion on which survivors recover a dead member, and deaths of those who do it.
 *
 * What: occasions: meeting its lock is pain_owner_dies.c; here: an attach, a thread that finds no lane, and
 * pheap_recover by many at once, of whom exactly one does it. Deaths: the victim after each of its stores, its
 * recoverer after each of his, the next recoverer somewhere; the last one finds one state, and blocks that
 * somebody alive has allocated meanwhile are still his. What a dead member had reserved is free again. A
 * stopped one is alive: nothing is taken from it.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crowd.h"
#include "shop.h"
#include "steps.h"

#define OWN_TYPE SHOP_BLOCK_TYPE /* the same runs as the victim's */
#define OWN_BLOCKS 12u
#define RACE_DEATHS 60u
#define RACERS 4u
#define RACER_THREADS 2u

struct meeting {
	uint32_t at, go, over;
	uint64_t stores;
	uint32_t recovered;
};

static struct meeting *m;
static pheap *heap; /* of the first process, which never dies */
static const struct shop *shop;

static void heap_make(const struct pheap_options *opt)
{
	memset(m, 0, sizeof(*m));
	(void)unlink(crowd_path("heap"));
	heap = crowd_open(crowd_path("heap"), PHEAP_CREATE, opt);
	shop = shop_make(heap);
}

static uint32_t members_now(void)
{
	struct pheap_stats stats;

	crowd_must(pheap_stats(heap, &stats, sizeof(stats)), "pheap_stats");
	return stats.member_count;
}

/* --- victims --- */

/* Changes the shop and dies after its k-th store; k 0: with the change complete, before the commit. */
static int shop_victim(void *arg)
{
	uint64_t k = *(uint64_t *)arg;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	pheap_tx *tx = crowd_tx(h, PHEAP_CONCURRENT);
	uint64_t key = 1;

	crowd_must(pheap_lock(tx, &key, 1), "pheap_lock");
	if (k)
		steps_arm_heap(h, k);
	shop_change(tx, shop_find(h));
	if (!k)
		(void)raise(SIGKILL);
	crowd_commit(tx);
	m->stores = steps_count();
	steps_disarm();
	crowd_close(h);
	return 0;
}

static void victim_die(uint64_t k)
{
	if (crowd_run(shop_victim, &k) != CROWD_KILLED)
		crowd_wrong("the victim did not die");
}

/* --- occasions --- */

static int joiner_main(void *arg)
{
	struct rings *model = arg;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	/* no transaction, no lock: the attach alone */
	if (rings_follow(&shop_find(h)->rings, model) != 0)
		crowd_wrong("an attach has left what the dead member had changed");
	crowd_close(h);
	return 0;
}

static void occasion_attach(void)
{
	struct rings model;

	heap_make(NULL);
	rings_make(&model);
	victim_die(0);
	if (rings_follow(&shop->rings, &model) == 0)
		crowd_wrong("there is nothing to recover");
	rings_make(&model);
	ok(crowd_run(joiner_main, &model) == 0 && members_now() == 1,
	   "who attaches recovers the dead, although somebody else is attached");
	crowd_close(heap);
}

/* Every lane is a dead member's, but the one of the first thread and the one that its process allocates with. */
static void *lane_user(void *arg)
{
	pheap_tx *tx = crowd_tx(arg, PHEAP_CONCURRENT);

	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	crowd_commit(tx);
	return NULL;
}

#define LANES 8u

static int lanes_victim(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	pthread_t threads[LANES - 2];

	(void)arg;
	for (unsigned i = 0; i < LANES - 2; i++)
		if (pthread_create(&threads[i], NULL, lane_user, h))
			return 1;
	crowd_await(&m->at, LANES - 2);
	(void)raise(SIGKILL);
	return 1;
}

static void occasion_lanes(void)
{
	struct pheap_options opt = crowd_options();
	pthread_t threads[LANES - 2];

	opt.member_count = 2; /* at least 4 lanes for each */
	opt.lane_count = LANES;
	heap_make(&opt);
	if (crowd_run(lanes_victim, NULL) != CROWD_KILLED)
		crowd_wrong("the victim did not die");
	m->at = 0;
	for (unsigned i = 0; i < LANES - 2; i++)
		if (pthread_create(&threads[i], NULL, lane_user, heap))
			crowd_wrong("no thread");
	crowd_await(&m->at, LANES - 2);
	crowd_set(&m->go, 1);
	for (unsigned i = 0; i < LANES - 2; i++)
		pthread_join(threads[i], NULL);
	ok(members_now() == 1, "who finds no lane recovers the dead: %u lanes are used again", LANES - 2);
	crowd_close(heap);
}

/* --- exactly one recoverer --- */

static void *racer_thread(void *arg)
{
	for (uint32_t turn = 1;; turn++) {
		uint32_t count = 0;

		crowd_add(&m->at);
		crowd_await(&m->go, turn);
		if (m->over)
			return NULL;
		crowd_must(pheap_recover(arg, &count), "pheap_recover");
		__atomic_fetch_add(&m->recovered, count, __ATOMIC_SEQ_CST);
	}
}

static int racer_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	pthread_t threads[RACER_THREADS];

	(void)arg;
	for (unsigned i = 0; i < RACER_THREADS; i++)
		if (pthread_create(&threads[i], NULL, racer_thread, h))
			return 1;
	for (unsigned i = 0; i < RACER_THREADS; i++)
		pthread_join(threads[i], NULL);
	crowd_close(h);
	return 0;
}

static void occasion_race(void)
{
	pid_t racers[RACERS];
	struct rings model;
	uint32_t turn = 0;

	heap_make(NULL);
	rings_make(&model);
	for (unsigned i = 0; i < RACERS; i++)
		racers[i] = crowd_start(racer_main, NULL);
	for (; turn < RACE_DEATHS && !crowd_is_wrong(); turn++) {
		crowd_await(&m->at, (turn + 1) * RACERS * RACER_THREADS);
		victim_die(0);
		crowd_set(&m->go, turn + 1);
	}
	crowd_await(&m->at, (turn + 1) * RACERS * RACER_THREADS);
	m->over = 1;
	crowd_set(&m->go, turn + 1);
	for (unsigned i = 0; i < RACERS; i++)
		if (crowd_wait(racers[i]))
			crowd_wrong("a recoverer did not end well");
	ok(m->recovered == RACE_DEATHS && rings_follow(&shop->rings, &model) == 0 && members_now() == 1,
	   "%u recoverers at once: %u deaths were recovered %u times", RACERS * RACER_THREADS, RACE_DEATHS,
	   m->recovered);
	crowd_close(heap);
}

/* --- deaths of recoverers --- */

/* Attached before the victim dies; recovers once it is told to, and dies after its k-th store. */
struct standby {
	uint64_t k;
	bool meet; /* it begins a transaction instead of calling pheap_recover */
	uint32_t turn;
};

static int standby_main(void *arg)
{
	const struct standby *s = arg;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	crowd_add(&m->at);
	crowd_await(&m->go, s->turn);
	steps_arm_heap(h, s->k);
	if (s->meet)
		crowd_commit(crowd_tx(h, 0));
	else
		crowd_must(pheap_recover(h, NULL), "pheap_recover");
	steps_disarm();
	crowd_close(h);
	return 0;
}

/* Blocks of somebody alive, from before the recovery. */
struct own {
	uint64_t *blocks[OWN_BLOCKS];
};

static void own_make(struct own *own)
{
	pheap_tx *tx = crowd_tx(heap, PHEAP_CONCURRENT);

	for (unsigned i = 0; i < OWN_BLOCKS; i++) {
		own->blocks[i] = pheap_alloc(tx, 40, OWN_TYPE);
		if (own->blocks[i])
			*own->blocks[i] = 0xabcd0000 + i;
	}
	crowd_commit(tx);
}

static void own_free(struct own *own)
{
	pheap_tx *tx = crowd_tx(heap, PHEAP_CONCURRENT);

	for (unsigned i = 0; i < OWN_BLOCKS; i++) {
		if (*own->blocks[i] != 0xabcd0000 + i)
			crowd_wrong("a block that was allocated before the recovery has other contents");
		(void)pheap_free(tx, own->blocks[i]);
	}
	crowd_commit(tx);
}

struct sweep {
	struct rings model;
	uint64_t undone, completed, recoverer_deaths;
};

/* The victim dies at store v, its recoverer at store r, the next one at store q; then the first process
 * recovers. Tells whether the recoverer died. */
static bool death_chain(struct sweep *s, uint64_t v, uint64_t r, uint64_t q)
{
	struct standby first = {r, v % 3 == 0, 1}, second = {q, v % 3 == 1, 2};
	struct own own;
	bool died;
	pid_t pids[2];
	const char *fault;
	int after;

	memset(m, 0, sizeof(*m));
	pids[0] = crowd_start(standby_main, &first);
	pids[1] = crowd_start(standby_main, &second);
	crowd_await(&m->at, 2);
	(void)crowd_run(shop_victim,
			&v); /* at the last few stores it may live: the count is not the same always */
	own_make(&own);
	crowd_set(&m->go, 1);
	died = crowd_wait(pids[0]) == CROWD_KILLED;
	s->recoverer_deaths += died;
	crowd_set(&m->go, 2);
	s->recoverer_deaths += crowd_wait(pids[1]) == CROWD_KILLED;
	crowd_must(pheap_recover(heap, NULL), "pheap_recover");
	own_free(&own);
	after = rings_follow(&shop->rings, &s->model);
	fault = after < 0 ? rings_fault(&shop->rings) : shop_fault(heap, shop);
	if (after < 0 || fault)
		crowd_wrong("victim killed after store %llu, recoverers after %llu and %llu: %s",
			    (unsigned long long)v, (unsigned long long)r, (unsigned long long)q,
			    fault ? fault : "neither the state before nor the one after");
	s->undone += after == 0;
	s->completed += after == 1;
	return died;
}

static void recoverers_die(void)
{
	struct sweep s = {0};
	uint64_t rng = crowd_seed(), never = UINT64_MAX, stores;

	heap_make(NULL);
	rings_make(&s.model);
	/* as often as the shop has slots: from then on each change frees a block */
	for (unsigned i = 0; i <= SHOP_BLOCKS; i++) {
		if (crowd_run(shop_victim, &never))
			crowd_wrong("the victim did not survive");
		rings_step(&s.model);
	}
	stores = m->stores;
	for (uint64_t v = 1; v <= stores && !crowd_is_wrong(); v += v + 12 < stores ? 5 : 1)
		for (uint64_t r = 1; r < 1000 && !crowd_is_wrong(); r++)
			if (!death_chain(&s, v, r, 1 + crowd_below(&rng, 12)))
				break;
	ok(s.undone && s.completed && s.recoverer_deaths > 100 && members_now() == 1,
	   "recoverers die after every store, and the next ones: %llu undone, %llu completed, none half",
	   (unsigned long long)s.undone, (unsigned long long)s.completed);
	note("%llu stores of the victim, %llu deaths of recoverers", (unsigned long long)stores,
	     (unsigned long long)s.recoverer_deaths);
	crowd_close(heap);
}

/* --- what was reserved --- */

static int reserver_main(void *arg)
{
	uint64_t k = *(uint64_t *)arg;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	void *p[6];
	pheap_tx *tx;

	tx = crowd_tx(h, PHEAP_CONCURRENT); /* the lane */
	crowd_commit(tx);
	steps_arm_heap(h, k);
	for (unsigned i = 0; i < 6; i++)
		p[i] = pheap_reserve(h, i % 2 ? 30000 : 64, 9);
	pheap_cancel(h, p[0]);
	tx = crowd_tx(h, PHEAP_CONCURRENT);
	for (unsigned i = 1; i < 3; i++)
		(void)pheap_publish(tx, p[i]);
	crowd_commit(tx);
	steps_disarm();
	(void)raise(SIGKILL);
	return 0;
}

static void types_free(uint32_t type)
{
	pheap_tx *tx = crowd_tx(heap, 0);

	for (const void *p = NULL; (p = pheap_next(heap, type, p));)
		(void)pheap_free(tx, p);
	crowd_commit(tx);
}

static void reserved_comes_back(void)
{
	struct pheap_stats before, after;
	uint64_t k = 0, published = 0, deaths = 0, least = UINT64_MAX;

	heap_make(NULL);
	crowd_must(pheap_stats(heap, &before, sizeof(before)), "pheap_stats");
	for (k = 1; k < 400 && !crowd_is_wrong(); k += k < 60 ? 1 : 3) {
		unsigned count;

		deaths += crowd_run(reserver_main, &k) == CROWD_KILLED;
		crowd_must(pheap_recover(heap, NULL), "pheap_recover");
		count = crowd_count(heap, 9);
		published += count == 2;
		if (count != 0 && count != 2)
			crowd_wrong("killed after store %llu: %u of 2 blocks are published",
				    (unsigned long long)k, count);
		types_free(9);
		crowd_must(pheap_stats(heap, &after, sizeof(after)), "pheap_stats");
		if (after.block_count != before.block_count)
			crowd_wrong("killed after store %llu: %llu blocks, %llu before",
				    (unsigned long long)k, (unsigned long long)after.block_count,
				    (unsigned long long)before.block_count);
		least = after.free_size < least ? after.free_size : least;
	}
	/* a run of empty blocks may stay, but nothing that grows with the deaths */
	ok(published && published < deaths && least + 65536 > before.free_size,
	   "what the dead had reserved is free again: %llu deaths, %llu of them after the publication",
	   (unsigned long long)deaths, (unsigned long long)published);
	note("free: %llu bytes before, at least %llu after a death", (unsigned long long)before.free_size,
	     (unsigned long long)least);
	crowd_close(heap);
}

/* --- stopped is alive --- */

static int stopped_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	pheap_tx *tx = crowd_tx(h, PHEAP_CONCURRENT);
	uint64_t key = 1;

	(void)arg;
	crowd_must(pheap_lock(tx, &key, 1), "pheap_lock");
	shop_change(tx, shop_find(h));
	(void)raise(SIGSTOP);
	crowd_commit(tx);
	crowd_close(h);
	return 0;
}

static void stopped_is_alive(void)
{
	struct pheap_options opt = crowd_options();
	struct rings model;
	uint64_t key = 1;
	uint32_t count = 1;
	pheap_tx *tx;
	int status, by_key, alone;
	pid_t pid;

	opt.lock_timeout_ms = 150;
	heap_make(&opt);
	rings_make(&model);
	pid = crowd_start(stopped_main, NULL);
	(void)waitpid(pid, &status, WUNTRACED);
	tx = crowd_tx(heap, PHEAP_CONCURRENT);
	by_key = pheap_lock(tx, &key, 1);
	ok(by_key == -ETIMEDOUT && strstr(pheap_error_detail(heap), "alive"),
	   "a stopped owner keeps its key: -ETIMEDOUT");
	note("%s", pheap_error_detail(heap));
	pheap_abort(tx);
	alone = pheap_begin(heap, 0, &tx);
	ok(alone == -ETIMEDOUT && strstr(pheap_error_detail(heap), "alive"),
	   "a stopped transaction keeps others from having the heap alone");
	note("%s", pheap_error_detail(heap));
	crowd_must(pheap_recover(heap, &count), "pheap_recover");
	if (rings_follow(&shop->rings, &model) == 0)
		crowd_wrong("its changes were undone");
	(void)kill(pid, SIGCONT);
	ok(count == 0 && crowd_wait(pid) == 0 && rings_fault(&shop->rings) == NULL &&
		   shop->rings.changes == 1,
	   "nothing was taken from it: it goes on and commits");
	crowd_close(heap);
}

int main(void)
{
	crowd_begin("who recovers the dead", 170);
	m = crowd_share(sizeof(*m));
	occasion_attach();
	occasion_lanes();
	occasion_race();
	stopped_is_alive();
	if (steps_possible()) {
		recoverers_die();
		reserved_comes_back();
	} else {
		skip("deaths of recoverers, reserved blocks", "no trap flag on this processor");
	}
	return crowd_end();
}
