/* SPDX-License-Identifier: MIT
 *
 * many_members.c: 256 processes attached at once; 1024 threads of some processes; all make transactions, and
 * some of them are killed meanwhile.
 *
 * What is checked: each adds to a counter of its own and to one of all, in one transaction, in every mode. So
 * the one of all must be the sum of the others, whoever died, and nobody's own may be below what he was told
 * is committed or more than one above it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crowd.h"

#define PROCESSES 256u
#define KILLED 48u
#define PROCESS_ROUNDS 60u
#define THREAD_PROCESSES 16u
#define THREADS 64u /* of each */
#define THREAD_ROUNDS 40u
#define ACTORS (THREAD_PROCESSES * THREADS)

struct counters {
	uint64_t all, rest[7];
	uint64_t own[ACTORS];
};
PHEAP_DECLARE(struct counters, 3);

/* Beside the heap. */
struct meeting {
	uint32_t attached, go, half, ended;
	uint64_t acked[ACTORS];
};

static struct meeting *m;

static int add(pheap_tx *tx, void *arg)
{
	const struct counters *c = pheap_find(pheap_heap(tx), "counters");
	uint64_t keys[2] = {1, 2 + *(unsigned *)arg};
	uint64_t *own, *all;
	int rc = pheap_lock(tx, keys, 2);

	if (rc)
		return rc;
	own = pheap_modify(tx, &c->own[*(unsigned *)arg], 8);
	all = pheap_modify(tx, &c->all, 8);
	if (!own || !all)
		return pheap_error(tx);
	++*own;
	++*all;
	return 0;
}

/* What reads only must see the sums right. One in a few, for it looks at all. */
static void look(pheap *h, uint32_t actors)
{
	const struct counters *c = pheap_find(h, "counters");
	pheap_tx *tx = crowd_tx(h, PHEAP_READ);
	uint64_t sum = 0, all = c->all;

	for (unsigned i = 0; i < actors; i++)
		sum += c->own[i];
	crowd_commit(tx);
	if (sum != all)
		crowd_wrong("the counter of all is %llu, the sum of the others %llu", (unsigned long long)all,
			    (unsigned long long)sum);
}

/* One in `alone` of them in the mode that excludes all others. */
static void rounds(pheap *h, unsigned me, unsigned count, unsigned alone)
{
	for (unsigned i = 0; i < count; i++) {
		uint32_t flags = (me + i) % alone == 0 ? 0 : PHEAP_CONCURRENT;

		crowd_must(pheap_run(h, flags, add, &me), "adding");
		m->acked[me]++;
		if ((me + i) % 64 == 1)
			look(h, ACTORS);
	}
}

static int process_main(void *arg)
{
	unsigned me = *(unsigned *)arg;
	struct pheap_options opt = crowd_options();
	pheap *h = crowd_open(crowd_path("heap"), 0, &opt);

	crowd_add(&m->attached);
	crowd_await(&m->go, 1);
	rounds(h, me, PROCESS_ROUNDS / 2, 8);
	crowd_add(&m->half);
	crowd_await(&m->go, 2);
	rounds(h, me, PROCESS_ROUNDS / 2, 8);
	crowd_add(&m->ended);
	crowd_await(&m->go, 3);
	crowd_close(h);
	return 0;
}

static void heap_make(uint32_t members, uint32_t lanes)
{
	struct pheap_options opt = crowd_options();
	pheap *h;

	(void)unlink(crowd_path("heap"));
	memset(m, 0, sizeof(*m));
	opt.member_count = members;
	opt.lane_count = lanes;
	opt.initial_size = 8u << 20;
	h = crowd_open(crowd_path("heap"), PHEAP_CREATE, &opt);
	pheap_tx *tx = crowd_tx(h, 0);

	(void)!PHEAP_ROOT(tx, "counters", struct counters);
	crowd_commit(tx);
	crowd_close(h);
}

/* Everybody's own counter against what he was told. dead: how many may be one ahead. */
static void result_check(unsigned actors, uint64_t want, unsigned dead)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	const struct counters *c = pheap_find(h, "counters");
	unsigned ahead = 0, short_of = 0;

	look(h, ACTORS);
	for (unsigned i = 0; i < actors; i++) {
		if (c->own[i] != m->acked[i] && c->own[i] != m->acked[i] + 1)
			crowd_wrong("actor %u: %llu, acknowledged %llu", i, (unsigned long long)c->own[i],
				    (unsigned long long)m->acked[i]);
		ahead += c->own[i] == m->acked[i] + 1;
		short_of += m->acked[i] < want;
	}
	if (ahead > dead || short_of > dead)
		crowd_wrong("%u counters ahead, %u actors behind, %u died", ahead, short_of, dead);
	crowd_close(h);
}

static void processes_test(void)
{
	static unsigned index[PROCESSES];
	static pid_t pids[PROCESSES];
	struct pheap_stats stats = {0};
	pheap *h = NULL;
	unsigned dead = 0;
	int rc;

	heap_make(PROCESSES, PROCESSES + 8);
	for (unsigned i = 0; i < PROCESSES; i++) {
		index[i] = i;
		pids[i] = crowd_start(process_main, &index[i]);
	}
	crowd_await(&m->attached, PROCESSES);
	rc = pheap_open(crowd_path("heap"), 0, NULL, &h);
	ok(rc == -EUSERS && !h, "%u processes are attached, one more is -EUSERS", PROCESSES);
	crowd_set(&m->go, 1);
	for (unsigned i = 0; i < KILLED; i++) {
		crowd_nap_us(300);
		dead += crowd_kill(pids[i * 5]) == CROWD_KILLED;
		pids[i * 5] = 0;
	}
	/* their slots are free again, without help, while all the others are at work */
	h = crowd_open(crowd_path("heap"), 0, NULL);
	crowd_set(&m->go, 2);
	crowd_await(&m->ended, PROCESSES - KILLED);
	crowd_must(pheap_recover(h, NULL), "pheap_recover");
	crowd_must(pheap_stats(h, &stats, sizeof(stats)), "pheap_stats");
	ok(dead == KILLED && stats.member_count == PROCESSES - KILLED + 1,
	   "%u were killed, %u members are left", dead, stats.member_count);
	crowd_set(&m->go, 3);
	for (unsigned i = 0; i < PROCESSES; i++)
		if (pids[i] && crowd_wait(pids[i]))
			crowd_wrong("process %u did not end well", i);
	crowd_close(h);
	result_check(PROCESSES, PROCESS_ROUNDS, KILLED);
	ok(true, "every counter is what it must be");
}

/* --- threads --- */

struct actor {
	pheap *h;
	unsigned me;
};

static void *thread_main(void *arg)
{
	const struct actor *actor = arg;

	/* the first transaction takes the lane; all of them have one before anybody goes on */
	rounds(actor->h, actor->me, 1, 64);
	crowd_add(&m->attached);
	crowd_await(&m->go, 1);
	/* each change of mode wakes all who wait: not too many of them with 1024 threads */
	rounds(actor->h, actor->me, THREAD_ROUNDS - 1, 64);
	return NULL;
}

static int threads_main(void *arg)
{
	unsigned process = *(unsigned *)arg;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	static struct actor actors[THREADS];
	static pthread_t threads[THREADS];
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256u << 10);
	for (unsigned i = 0; i < THREADS; i++) {
		actors[i] = (struct actor){h, process * THREADS + i};
		if (pthread_create(&threads[i], &attr, thread_main, &actors[i]))
			return crowd_wrong("no thread");
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	crowd_close(h);
	return 0;
}

static void threads_test(void)
{
	unsigned index[THREAD_PROCESSES];
	pid_t pids[THREAD_PROCESSES];
	struct pheap_stats stats = {0};
	pheap *h;

	heap_make(THREAD_PROCESSES + 1, ACTORS + THREAD_PROCESSES + 1);
	h = crowd_open(crowd_path("heap"), 0, NULL);
	for (unsigned i = 0; i < THREAD_PROCESSES; i++) {
		index[i] = i;
		pids[i] = crowd_start(threads_main, &index[i]);
	}
	crowd_await(&m->attached, ACTORS);
	crowd_must(pheap_stats(h, &stats, sizeof(stats)), "pheap_stats");
	ok(stats.lane_count >= ACTORS, "%u threads of %u processes have a lane each (%u lanes)", ACTORS,
	   THREAD_PROCESSES, stats.lane_count);
	crowd_set(&m->go, 1);
	crowd_nap_us(20000);
	(void)crowd_kill(pids[0]); /* with 64 threads in the middle of something, some of them waiting */
	for (unsigned i = 1; i < THREAD_PROCESSES; i++)
		if (crowd_wait(pids[i]))
			crowd_wrong("process %u did not end well", i);
	crowd_must(pheap_recover(h, NULL), "pheap_recover");
	crowd_must(pheap_stats(h, &stats, sizeof(stats)), "pheap_stats");
	ok(stats.member_count == 1 && stats.lane_count <= 1,
	   "one process was killed, the others ended: %u lanes are taken", stats.lane_count);
	crowd_close(h);
	result_check(ACTORS, THREAD_ROUNDS, THREADS);
	ok(true, "every counter is what it must be");
}

int main(void)
{
	crowd_begin("256 processes, 1024 threads", 150);
	m = crowd_share(sizeof(*m));
	processes_test();
	threads_test();
	return crowd_end();
}
