/* SPDX-License-Identifier: MIT
 *
 * locks.c: keys of concurrent transactions: exclusion, sharing, deadlock, time limits; watch and notify.
 * No assertion is about time; waits are long enough to never end a good run.
 */
#define LOCKS_LONG_MS 20000u
#include "support.h"

#include <sys/syscall.h>
#include <unistd.h>

TestSuite(locks, .timeout = 60);

static pheap *heap_with_timeout(uint32_t ms)
{
	struct pheap_options opt = test_options();

	opt.lock_timeout_ms = ms;
	return heap_make_with(&opt);
}

Test(locks, same_key_twice)
{
	pheap *h = heap_with_timeout(LOCKS_LONG_MS);
	pheap_tx *tx = begin(h, PHEAP_CONCURRENT);
	const uint64_t keys[] = {9, 7, 9, 7, 9};

	OK(pheap_lock(tx, keys, 5));
	OK(pheap_lock(tx, keys, 5));
	OK(pheap_lock_shared(tx, keys, 5)); /* held exclusively already */
	OK(pheap_lock(tx, NULL, 0));
	commit(tx);
	heap_drop(h);
}

Test(locks, shared_twice_then_exclusive)
{
	pheap *h = heap_with_timeout(LOCKS_LONG_MS);
	pheap_tx *tx = begin(h, PHEAP_CONCURRENT);
	const uint64_t key = 9;

	OK(pheap_lock_shared(tx, &key, 1));
	OK(pheap_lock_shared(tx, &key, 1));
	OK(pheap_lock(tx, &key, 1)); /* the only reader becomes the writer */
	commit(tx);
	heap_drop(h);
}

Test(locks, in_an_exclusive_transaction)
{
	pheap *h = heap_with_timeout(LOCKS_LONG_MS);
	pheap_tx *tx = begin(h, 0);

	OK(pheap_lock(tx, &(uint64_t){9}, 1));
	commit(tx);
	tx = begin(h, PHEAP_READ | PHEAP_CONCURRENT);
	OK(pheap_lock_shared(tx, &(uint64_t){9}, 1));
	commit(tx);
	heap_drop(h);
}

Test(locks, very_many_keys)
{
	enum { COUNT = 5000 };
	static uint64_t keys[COUNT];
	pheap *h = heap_with_timeout(LOCKS_LONG_MS);

	for (int shared = 0; shared < 2; shared++) {
		pheap_tx *tx = begin(h, PHEAP_CONCURRENT);
		for (uint64_t i = 0; i < COUNT; i++)
			keys[i] = i * 0x9e3779b97f4a7c15u;
		if (shared)
			OK(pheap_lock_shared(tx, keys, COUNT));
		else
			OK(pheap_lock(tx, keys, COUNT));
		commit(tx);
	}
	heap_drop(h);
}

/* --- exclusion --- */

struct counter {
	pheap *h;
	const uint64_t *words;
	uint64_t keys;
	int rounds;
	uint64_t seed;
};

static int count_up(void *arg)
{
	struct counter *c = arg;

	for (int i = 0; i < c->rounds; i++) {
		uint64_t key = random_next(&c->seed) % c->keys;
		pheap_tx *tx;
		CHECK(pheap_begin(c->h, PHEAP_CONCURRENT, &tx) == 0);
		CHECK(pheap_lock(tx, &key, 1) == 0);
		uint64_t *w = pheap_modify(tx, &c->words[key], 8);
		CHECK(w);
		/* not atomic, on purpose */
		uint64_t seen = *(volatile uint64_t *)w;
		if (i % 50 == 0)
			sched_yield();
		*(volatile uint64_t *)w = seen + 1;
		if (i % 10 == 9)
			pheap_abort(tx);
		else
			CHECK(pheap_commit(tx) == 0);
	}
	return 0;
}

static void counters_run(uint64_t keys)
{
	enum { THREADS = 6, ROUNDS = 5000 };
	pheap *h = heap_with_timeout(LOCKS_LONG_MS);
	const uint64_t *words = (const uint64_t *)(const void *)block_make(h, 8 * keys, 1);
	struct counter counters[THREADS];
	pthread_t threads[THREADS];
	uint64_t sum = 0;

	for (uint64_t i = 0; i < THREADS; i++) {
		counters[i] = (struct counter){h, words, keys, ROUNDS, i};
		threads[i] = thread_start(count_up, &counters[i]);
	}
	for (int i = 0; i < THREADS; i++)
		cr_expect_eq(thread_join(threads[i]), 0);
	for (uint64_t k = 0; k < keys; k++)
		sum += words[k];
	cr_assert_eq(sum, (uint64_t)THREADS * ROUNDS / 10 * 9, "%lu", (unsigned long)sum);
	heap_drop(h);
}

Test(locks, one_counter)
{
	counters_run(1);
}

Test(locks, many_counters)
{
	counters_run(100);
}

/* Writers move money between accounts under two keys; readers with shared keys see the sum unchanged. */
enum { ACCOUNTS = 16 };

struct bank {
	pheap *h;
	const uint64_t *accounts;
	uint64_t seed;
	uint32_t *stop;
};

static int transfer_body(pheap_tx *tx, void *arg)
{
	struct bank *b = arg;
	uint64_t from = random_next(&b->seed) % ACCOUNTS, to = random_next(&b->seed) % ACCOUNTS;
	const uint64_t keys[] = {from, to};
	uint64_t *f, *t;

	if (from == to)
		return 0;
	if (from % 2) {
		if (pheap_lock(tx, keys, 2))
			return pheap_error(tx);
	} else if (pheap_lock(tx, &keys[0], 1) || pheap_lock(tx, &keys[1], 1)) {
		return pheap_error(tx); /* one after the other: may be a deadlock, run again */
	}
	f = pheap_modify(tx, &b->accounts[from], 8);
	t = pheap_modify(tx, &b->accounts[to], 8);
	if (!f || !t)
		return pheap_error(tx);
	*f -= 1;
	*t += 1;
	return 0;
}

static int transfer(void *arg)
{
	struct bank *b = arg;

	for (int i = 0; i < 3000; i++) {
		int rc = pheap_run(b->h, PHEAP_CONCURRENT, transfer_body, b);
		if (rc)
			fprintf(stderr, "run: %d %s\n", rc, pheap_error_detail(b->h));
		CHECK(rc == 0);
	}
	return 0;
}

static int audit(void *arg)
{
	struct bank *b = arg;
	uint64_t keys[ACCOUNTS];

	for (uint64_t i = 0; i < ACCOUNTS; i++)
		keys[i] = i;
	while (!__atomic_load_n(b->stop, __ATOMIC_ACQUIRE)) {
		pheap_tx *tx;
		uint64_t sum = 0;
		uint32_t flags = random_next(&b->seed) % 2 ? PHEAP_CONCURRENT : PHEAP_CONCURRENT | PHEAP_READ;
		CHECK(pheap_begin(b->h, flags, &tx) == 0);
		int rc = pheap_lock_shared(tx, keys, ACCOUNTS);
		if (rc == -EDEADLK) {
			pheap_abort(tx);
			continue;
		}
		CHECK(rc == 0);
		for (int i = 0; i < ACCOUNTS; i++)
			sum += b->accounts[i];
		CHECK(pheap_commit(tx) == 0);
		CHECK(sum == ACCOUNTS * 1000);
		usleep(100);
	}
	return 0;
}

Test(locks, shared_and_exclusive)
{
	pheap *h = heap_with_timeout(LOCKS_LONG_MS);
	uint64_t *accounts = (uint64_t *)(void *)block_make(h, 8 * ACCOUNTS, 1);
	struct bank banks[6];
	pthread_t threads[6];
	uint32_t stop = 0;
	pheap_tx *tx = begin(h, 0);
	uint64_t *w = pheap_modify(tx, accounts, 8 * ACCOUNTS);

	for (int i = 0; i < ACCOUNTS; i++)
		w[i] = 1000;
	commit(tx);
	for (int i = 0; i < 6; i++) {
		banks[i] = (struct bank){h, accounts, (uint64_t)i, &stop};
		threads[i] = thread_start(i < 4 ? transfer : audit, &banks[i]);
	}
	for (int i = 0; i < 4; i++)
		cr_expect_eq(thread_join(threads[i]), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = 4; i < 6; i++)
		cr_expect_eq(thread_join(threads[i]), 0);
	heap_drop(h);
}

/* --- who may hold what beside whom --- */

struct attempt {
	pheap *h;
	uint64_t key;
	bool shared;
	int rc;
};

static int attempt_body(void *arg)
{
	struct attempt *a = arg;
	pheap_tx *tx;

	CHECK(pheap_begin(a->h, PHEAP_CONCURRENT, &tx) == 0);
	a->rc = a->shared ? pheap_lock_shared(tx, &a->key, 1) : pheap_lock(tx, &a->key, 1);
	if (a->rc) {
		CHECK(pheap_error(tx) == a->rc);
		CHECK(pheap_commit(tx) == a->rc);
	} else {
		CHECK(pheap_commit(tx) == 0);
	}
	return 0;
}

static int attempt_now(pheap *h, uint64_t key, bool shared)
{
	struct attempt a = {h, key, shared, 0};

	cr_assert_eq(thread_run(attempt_body, &a), 0);
	return a.rc;
}

Test(locks, table_of_who_waits)
{
	pheap *h = heap_with_timeout(30);
	pheap_tx *tx;

	tx = begin(h, PHEAP_CONCURRENT);
	OK(pheap_lock(tx, &(uint64_t){1}, 1));
	GIVES(-ETIMEDOUT, attempt_now(h, 1, false));
	GIVES(-ETIMEDOUT, attempt_now(h, 1, true));
	commit(tx);
	GIVES(0, attempt_now(h, 1, false));
	GIVES(0, attempt_now(h, 1, true));
	tx = begin(h, PHEAP_CONCURRENT);
	OK(pheap_lock_shared(tx, &(uint64_t){1}, 1));
	GIVES(-ETIMEDOUT, attempt_now(h, 1, false));
	GIVES(0, attempt_now(h, 1, true));
	pheap_abort(tx);
	GIVES(0, attempt_now(h, 1, false));
	heap_drop(h);
}

/* Two keys that do not share a stripe, found by trying; the holder keeps *ret_a. */
static pheap_tx *hold_one_find_other(pheap *h, uint64_t a, uint64_t *ret_b)
{
	pheap_tx *tx = begin(h, PHEAP_CONCURRENT);

	OK(pheap_lock(tx, &a, 1));
	for (*ret_b = a + 1; attempt_now(h, *ret_b, false); ++*ret_b)
		cr_assert_lt(*ret_b, a + 100);
	return tx;
}

Test(locks, different_keys_do_not_meet)
{
	pheap *h = heap_with_timeout(30);
	uint64_t other;
	int free_count = 0;
	pheap_tx *tx = hold_one_find_other(h, 1, &other);

	for (uint64_t key = 2; key < 22; key++)
		free_count += !attempt_now(h, key, false);
	cr_assert_geq(free_count, 15, "%d of 20 other keys were free", free_count);
	commit(tx);
	heap_drop(h);
}

struct crossing {
	pheap *h;
	uint64_t first, second;
	uint32_t *held;
	int rc;
};

static int cross(void *arg)
{
	struct crossing *c = arg;
	pheap_tx *tx;

	CHECK(pheap_begin(c->h, PHEAP_CONCURRENT, &tx) == 0);
	CHECK(pheap_lock(tx, &c->first, 1) == 0);
	flag_add(c->held);
	flag_wait(c->held, 2);
	c->rc = pheap_lock(tx, &c->second, 1);
	if (c->rc) {
		CHECK(pheap_error(tx) == c->rc);
		CHECK(pheap_end(tx, 0) == c->rc);
		return 0;
	}
	CHECK(pheap_commit(tx) == 0);
	return 0;
}

Test(locks, deadlock_of_two)
{
	pheap *h = heap_with_timeout(30);
	uint64_t other;

	commit(hold_one_find_other(h, 1, &other));
	heap_drop(h);
	struct pheap_options opt = test_options();
	opt.lock_timeout_ms = LOCKS_LONG_MS;
	OK(pheap_open(scratch("heap"), 0, &opt, &h));
	for (int round = 0; round < 20; round++) {
		uint32_t held = 0;
		struct crossing a = {h, 1, other, &held, 0}, b = {h, other, 1, &held, 0};
		pthread_t thread = thread_start(cross, &a);
		cr_assert_eq(thread_run(cross, &b), 0);
		cr_assert_eq(thread_join(thread), 0);
		cr_assert((a.rc == -EDEADLK && b.rc == 0) || (b.rc == -EDEADLK && a.rc == 0),
			  "one of the two is the victim: %d and %d", a.rc, b.rc);
	}
	heap_drop(h);
}

/* Readers that all want to become the writer, over two keys: all but one at a time must give way. */
struct upgrade {
	pheap *h;
	uint64_t *word;
	uint64_t keys[2];
	uint64_t seed;
};

static int upgrade_body(pheap_tx *tx, void *arg)
{
	struct upgrade *u = arg;

	if (pheap_lock_shared(tx, u->keys, 2))
		return pheap_error(tx);
	uint64_t seen = *(volatile uint64_t *)u->word;
	if (random_next(&u->seed) % 2)
		sched_yield();
	if (pheap_lock(tx, &u->keys[random_next(&u->seed) % 2], 1) || pheap_lock(tx, u->keys, 2))
		return pheap_error(tx);
	return pheap_store(tx, u->word, &(uint64_t){seen + 1}, 8);
}

static int upgrade_run(void *arg)
{
	struct upgrade *u = arg;

	for (int i = 0; i < 100; i++) {
		int rc = pheap_run(u->h, PHEAP_CONCURRENT, upgrade_body, u);
		if (rc)
			fprintf(stderr, "run: %d %s\n", rc, pheap_error_detail(u->h));
		CHECK(rc == 0);
	}
	return 0;
}

Test(locks, upgrades_by_many)
{
	enum { THREADS = 6 };
	struct upgrade upgrades[THREADS];
	pthread_t threads[THREADS];
	pheap *h = heap_with_timeout(LOCKS_LONG_MS);
	uint64_t *word = (uint64_t *)(void *)block_make(h, 8, 1);

	for (uint64_t i = 0; i < THREADS; i++) {
		upgrades[i] = (struct upgrade){h, word, {1, 2}, i};
		threads[i] = thread_start(upgrade_run, &upgrades[i]);
	}
	for (int i = 0; i < THREADS; i++)
		cr_expect_eq(thread_join(threads[i]), 0);
	cr_assert_eq(*word, THREADS * 100, "%lu", (unsigned long)*word);
	heap_drop(h);
}

Test(locks, wrong_arguments)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, PHEAP_CONCURRENT);

	GIVES(-EINVAL, pheap_lock(tx, NULL, 3));
	GIVES(-EINVAL, pheap_commit(tx));
	heap_drop(h);
}

/* --- watch and notify --- */

struct watcher {
	pheap *h;
	const uint64_t *word;
	uint32_t tid;
	int rc;
	uint64_t seen_after;
};

static int watch_once(void *arg)
{
	struct watcher *w = arg;

	flag_set(&w->tid, (uint32_t)syscall(SYS_gettid));
	w->rc = pheap_watch(w->h, w->word, 0, -1);
	w->seen_after = __atomic_load_n(w->word, __ATOMIC_ACQUIRE);
	return 0;
}

Test(locks, watch_and_notify)
{
	pheap *h = heap_make();
	const uint64_t *word = (const uint64_t *)(const void *)block_make(h, 8, 1);
	struct watcher watchers[3];
	pthread_t threads[3];

	for (int i = 0; i < 3; i++) {
		watchers[i] = (struct watcher){h, word, 0, -1, 0};
		threads[i] = thread_start(watch_once, &watchers[i]);
	}
	for (int i = 0; i < 3; i++) {
		flag_wait(&watchers[i].tid, 1);
		thread_wait_asleep((pid_t)watchers[i].tid);
	}
	/* an aborted notify wakes nobody for good: the word is as it was */
	pheap_tx *tx = begin(h, 0);
	OK(pheap_notify(tx, word));
	pheap_abort(tx);
	tx = begin(h, 0);
	OK(pheap_defer_u64(tx, word, 1));
	OK(pheap_notify(tx, word));
	commit(tx);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(thread_join(threads[i]), 0);
		GIVES(0, watchers[i].rc);
	}
	cr_assert_eq(watchers[0].seen_after, 1);
	heap_drop(h);
}

Test(locks, watch_timeout_and_changed)
{
	pheap *h = heap_make();
	uint64_t *word = (uint64_t *)(void *)block_make(h, 16, 1);

	GIVES(-ETIMEDOUT, pheap_watch(h, word, 0, 10));
	GIVES(-ETIMEDOUT, pheap_watch(h, word, 0, 0));
	OK(pheap_watch(h, word, 1, -1));	  /* differs already */
	OK(pheap_watch(h, word, 1ull << 32, -1)); /* in its upper half */
	GIVES(-EINVAL, pheap_watch(h, (const uint64_t *)(const void *)((char *)word + 4), 0, 10));
	uint64_t local = 0;
	GIVES(PHEAP_EFOREIGN, pheap_watch(h, &local, 0, 10));
	heap_drop(h);
}
