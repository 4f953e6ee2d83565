/* SPDX-License-Identifier: MIT
 *
 * isolation.c: which kinds of transactions run beside which: exclusive, concurrent, read; NOWAIT; time
 * limits of begin.
 */
#include "support.h"

#include <unistd.h>

TestSuite(isolation, .timeout = 60);

static const uint32_t kinds[] = {0, PHEAP_CONCURRENT, PHEAP_READ, PHEAP_READ | PHEAP_CONCURRENT};

struct attempt {
	pheap *h;
	uint32_t flags;
	int rc;
};

static int attempt_begin(void *arg)
{
	struct attempt *a = arg;
	pheap_tx *tx = NULL;

	a->rc = pheap_begin(a->h, a->flags, &tx);
	if (a->rc)
		return 0;
	return pheap_commit(tx);
}

/* What may begin beside what: READ|CONCURRENT runs with the concurrent ones. */
Test(isolation, table)
{
	static const bool together[4][4] = {
		{false, false, false, false},
		{false, true, false, true},
		{false, false, true, false},
		{false, true, false, true},
	};
	struct pheap_options opt = test_options();

	opt.lock_timeout_ms = 30;
	pheap *h = heap_make_with(&opt);
	for (int nowait = 0; nowait < 2; nowait++)
		for (int a = 0; a < 4; a++)
			for (int b = 0; b < 4; b++) {
				pheap_tx *tx = begin(h, kinds[a]);
				struct attempt other = {h, kinds[b] | (nowait ? PHEAP_NOWAIT : 0), 0};
				cr_assert_eq(thread_run(attempt_begin, &other), 0);
				int want = together[a][b] ? 0 : nowait ? -EAGAIN : -ETIMEDOUT;
				cr_assert_eq(other.rc, want, "kind %d beside %d: %d, expected %d", b, a,
					     other.rc, want);
				commit(tx);
				cr_assert_eq(thread_run(attempt_begin, &other), 0);
				cr_assert_eq(other.rc, 0, "kind %d after %d: %d", b, a, other.rc);
			}
	heap_drop(h);
}

struct mix {
	pheap *h;
	uint64_t *words;
	uint64_t seed;
	uint32_t exclusive_count;
};

enum { WORDS = 64 };

/* Exclusive ones keep all words equal; whoever may not see them in between checks that they are. */
static int mixed(void *arg)
{
	struct mix *m = arg;

	for (int i = 0; i < 4000; i++) {
		uint32_t flags = kinds[random_next(&m->seed) % 3];
		pheap_tx *tx;
		CHECK(pheap_begin(m->h, flags, &tx) == 0);
		for (int k = 1; k < WORDS; k++)
			CHECK(*(volatile uint64_t *)&m->words[k] == *(volatile uint64_t *)&m->words[0]);
		if (flags) {
			CHECK(pheap_commit(tx) == 0);
			continue;
		}
		for (int k = 0; k < WORDS; k++) {
			uint64_t *w = pheap_modify(tx, &m->words[k], 8);
			CHECK(w);
			*w += 1;
		}
		if (i % 7 == 0) {
			pheap_abort(tx);
		} else {
			CHECK(pheap_commit(tx) == 0);
			m->exclusive_count++;
		}
	}
	return 0;
}

Test(isolation, exclusive_excludes_everyone)
{
	enum { THREADS = 6 };
	pheap *h = heap_make();
	uint64_t *words = (uint64_t *)(void *)block_make(h, 8 * WORDS, 1), sum = 0;
	struct mix mixes[THREADS];
	pthread_t threads[THREADS];

	for (uint64_t i = 0; i < THREADS; i++) {
		mixes[i] = (struct mix){h, words, i, 0};
		threads[i] = thread_start(mixed, &mixes[i]);
	}
	for (int i = 0; i < THREADS; i++) {
		cr_expect_eq(thread_join(threads[i]), 0);
		sum += mixes[i].exclusive_count;
	}
	cr_assert_eq(words[0], sum);
	heap_drop(h);
}

/* READ: nothing in the heap moves, whoever else wants to write. */
struct still {
	pheap *h;
	const uint64_t *words;
	uint32_t *stop;
	uint64_t seed;
	uint64_t changes;
};

static int read_still(void *arg)
{
	struct still *s = arg;

	while (!__atomic_load_n(s->stop, __ATOMIC_ACQUIRE)) {
		uint64_t first[WORDS];
		pheap_tx *tx;
		CHECK(pheap_begin(s->h, PHEAP_READ, &tx) == 0);
		memcpy(first, s->words, sizeof first);
		for (int i = 0; i < 20; i++) {
			sched_yield();
			CHECK(!memcmp(first, s->words, sizeof first));
		}
		CHECK(pheap_commit(tx) == 0);
		usleep(200);
	}
	return 0;
}

static int write_keys(void *arg)
{
	struct still *s = arg;

	for (int i = 0; i < 3000; i++) {
		uint64_t key = random_next(&s->seed) % WORDS;
		pheap_tx *tx;
		CHECK(pheap_begin(s->h, PHEAP_CONCURRENT, &tx) == 0);
		CHECK(pheap_lock(tx, &key, 1) == 0);
		uint64_t *w = pheap_modify(tx, &s->words[key], 8);
		CHECK(w);
		*w += 1;
		CHECK(pheap_commit(tx) == 0);
	}
	return 0;
}

Test(isolation, read_sees_the_heap_standing_still)
{
	pheap *h = heap_make();
	const uint64_t *words = (const uint64_t *)(const void *)block_make(h, 8 * WORDS, 1);
	struct still stills[5];
	pthread_t threads[5];
	uint32_t stop = 0;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < 5; i++) {
		stills[i] = (struct still){h, words, &stop, i, 0};
		threads[i] = thread_start(i < 3 ? write_keys : read_still, &stills[i]);
	}
	for (int i = 0; i < 3; i++)
		cr_expect_eq(thread_join(threads[i]), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = 3; i < 5; i++)
		cr_expect_eq(thread_join(threads[i]), 0);
	for (int i = 0; i < WORDS; i++)
		sum += words[i];
	cr_assert_eq(sum, 9000);
	heap_drop(h);
}

/* --- more threads than lanes --- */

struct crowd {
	pheap *h;
	uint32_t *go;
	int rc;
};

static int crowd_body(void *arg)
{
	struct crowd *c = arg;
	pheap_tx *tx;

	c->rc = pheap_begin(c->h, PHEAP_CONCURRENT, &tx);
	if (!c->rc)
		CHECK(pheap_commit(tx) == 0);
	flag_wait(c->go, 1);
	return 0;
}

Test(isolation, more_threads_than_lanes)
{
	enum { THREADS = 24 };
	struct pheap_options opt = test_options();
	struct crowd crowd[THREADS];
	pthread_t threads[THREADS];
	uint32_t go = 0;
	int good = 0;

	opt.lane_count = 4;
	pheap *h = heap_make_with(&opt);
	for (int i = 0; i < THREADS; i++) {
		crowd[i] = (struct crowd){h, &go, 0};
		threads[i] = thread_start(crowd_body, &crowd[i]);
	}
	usleep(100000);
	flag_set(&go, 1);
	for (int i = 0; i < THREADS; i++) {
		cr_expect_eq(thread_join(threads[i]), 0);
		good += !crowd[i].rc;
		/* a code that says so, for those who came too late */
		cr_expect(!crowd[i].rc || crowd[i].rc == -EAGAIN || crowd[i].rc == -ENOSPC ||
				  crowd[i].rc == -EMFILE || crowd[i].rc == -EBUSY || crowd[i].rc == -EUSERS ||
				  crowd[i].rc == -ETIMEDOUT,
			  "%d", crowd[i].rc);
	}
	cr_assert_geq(good, 1);
	/* lanes of threads that left are free again */
	for (int i = 0; i < 20; i++) {
		struct attempt other = {h, PHEAP_CONCURRENT, 0};
		cr_assert_eq(thread_run(attempt_begin, &other), 0);
		cr_assert_eq(other.rc, 0, "%d", other.rc);
	}
	heap_drop(h);
}

Test(isolation, thousands_of_threads_one_after_the_other)
{
	pheap *h = heap_make();

	for (int i = 0; i < 3000; i++) {
		struct attempt other = {h, kinds[i % 4], 0};
		cr_assert_eq(thread_run(attempt_begin, &other), 0);
		cr_assert_eq(other.rc, 0, "thread %d: %d", i, other.rc);
	}
	heap_drop(h);
}
