/* SPDX-License-Identifier: MIT
 *
 * process.c: several processes in one heap, some of them killed inside a transaction; the living recover
 * and go on.
 */
#include "support.h"

#include <signal.h>
#include <unistd.h>

TestSuite(process, .timeout = 120);

enum { WORDS = 128, KEY = 77 };

struct stage {
	uint32_t inside, go;
	uint32_t flags;
	int kind; /* what the victim has done when it dies */
	uint64_t done[8];
};

static const uint64_t *words_make(pheap *h)
{
	pheap_tx *tx = begin(h, 0);
	const uint64_t *words = pheap_root(tx, "words", 8 * WORDS, 1);

	cr_assert(words);
	commit(tx);
	return words;
}

enum { KIND_MODIFY, KIND_ALLOC, KIND_FREE, KIND_DEFER, KIND_LONG, KIND_ROOT, KINDS };

static int victim_changes(pheap *h, pheap_tx *tx, const uint64_t *words, int kind)
{
	uint64_t *w = pheap_modify(tx, words, 8 * WORDS);

	CHECK(w);
	for (int i = 0; i < WORDS; i++)
		w[i] = 666;
	switch (kind) {
	case KIND_ALLOC:
		for (size_t n = 1; n < 200000; n = n * 2 + 1)
			CHECK(pheap_alloc(tx, n, 2));
		break;
	case KIND_FREE:
		for (const void *p = NULL; (p = pheap_next(h, 3, p));)
			CHECK(pheap_free(tx, p) == 0);
		break;
	case KIND_DEFER:
		CHECK(pheap_defer(tx, words + 3, "deferred", 8) == 0);
		CHECK(pheap_defer_u64(tx, words + 5, 5) == 0);
		break;
	case KIND_LONG:
		for (const unsigned char *p = NULL; (p = pheap_next(h, 3, p));)
			for (size_t off = 0; off + 64 <= 100000; off += 64)
				CHECK(pheap_store(tx, p + off, "gone", 5) == 0);
		break;
	case KIND_ROOT:
		CHECK(pheap_root(tx, "never", 100, 2));
		CHECK(pheap_root_set(tx, "words", NULL) == 0);
		break;
	default:
		break;
	}
	return 0;
}

static int victim(void *arg)
{
	struct stage *s = arg;
	pheap_tx *tx;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	const uint64_t *words = pheap_find(h, "words");
	CHECK(words);
	CHECK(pheap_begin(h, s->flags, &tx) == 0);
	CHECK(pheap_lock(tx, &(uint64_t){KEY}, 1) == 0);
	CHECK(victim_changes(h, tx, words, s->kind) == 0);
	flag_set(&s->inside, 1);
	flag_wait(&s->go, 1);
	raise(SIGKILL);
	return 0;
}

static void killed_inside(uint32_t flags)
{
	struct stage *s = shared_make(sizeof *s);
	pheap *h = heap_make();
	const uint64_t *words = words_make(h);
	struct pheap_stats before;

	for (int i = 0; i < 10; i++)
		memset(block_make(h, 100000, 3), 0, 1);
	before = stats_of(h);
	for (int round = 0; round < 3 * KINDS; round++) {
		*s = (struct stage){.flags = flags, .kind = round % KINDS};
		pid_t pid = child_start(victim, s);
		flag_wait(&s->inside, 1);
		flag_set(&s->go, 1);
		cr_assert_eq(child_wait(pid), 1000 + SIGKILL);
		pheap_tx *tx = begin(h, flags); /* meets the dead one's lock and recovers it */
		OK(pheap_lock(tx, &(uint64_t){KEY}, 1));
		for (int i = 0; i < WORDS; i++)
			cr_assert_eq(words[i], (uint64_t)round, "kind %d: %lu", s->kind,
				     (unsigned long)words[i]);
		uint64_t *w = pheap_modify(tx, words, 8 * WORDS);
		for (int i = 0; i < WORDS; i++)
			w[i] = (uint64_t)round + 1;
		commit(tx);
		for (const unsigned char *p = NULL; (p = pheap_next(h, 3, p));)
			cr_assert(bytes_are(p, 100000, 0));
		cr_assert_null(pheap_find(h, "never"));
		cr_assert_eq(pheap_find(h, "words"), words);
	}
	uint32_t members;
	OK(pheap_recover(h, &members));
	struct pheap_stats after = stats_of(h);
	cr_assert_eq(after.block_count, before.block_count, "no leak");
	cr_assert_eq(after.allocated_size, before.allocated_size);
	cr_assert_eq(after.member_count, 1);
	heap_drop(h);
}

Test(process, killed_inside_an_exclusive_transaction)
{
	killed_inside(0);
}

Test(process, killed_inside_a_concurrent_transaction_with_a_key)
{
	killed_inside(PHEAP_CONCURRENT);
}

Test(process, killed_alone_and_opened_again)
{
	struct stage *s = shared_make(sizeof *s);
	pheap *h = heap_make();
	(void)words_make(h);
	for (int i = 0; i < 4; i++)
		memset(block_make(h, 100000, 3), 0, 1);
	uint64_t blocks = stats_of(h).block_count;

	heap_drop(h);
	for (int round = 0; round < 2 * KINDS; round++) {
		*s = (struct stage){.flags = round % 2 ? 0 : PHEAP_CONCURRENT, .kind = round / 2, .go = 1};
		cr_assert_eq(child_run(victim, s), 1000 + SIGKILL);
		OK(pheap_open(scratch("heap"), 0, NULL, &h));
		struct pheap_info info = info_of(h);
		cr_assert_eq(info.recovered_back, 1);
		cr_assert_eq(info.recovered_forward, 0);
		cr_assert_eq(info.was_clean, 0);
		cr_assert(bytes_are(pheap_find(h, "words"), 8 * WORDS, 0), "kind %d", s->kind);
		cr_assert_eq(stats_of(h).block_count, blocks);
		h = heap_reopen(h);
		cr_assert_eq(info_of(h).recovered_back, 0);
		cr_assert_eq(info_of(h).was_clean, 1);
		heap_drop(h);
	}
}

Test(process, recover_counts_the_dead)
{
	struct stage *s = shared_make(sizeof *s);
	pheap *h = heap_make();
	const uint64_t *words = words_make(h);
	uint32_t members = 99;

	OK(pheap_recover(h, &members));
	cr_assert_eq(members, 0);
	*s = (struct stage){.flags = PHEAP_CONCURRENT, .go = 1};
	cr_assert_eq(child_run(victim, s), 1000 + SIGKILL);
	OK(pheap_recover(h, &members));
	cr_assert_eq(members, 1);
	cr_assert_eq(words[0], 0);
	OK(pheap_recover(h, NULL));
	OK(pheap_recover(h, &members));
	cr_assert_eq(members, 0);
	heap_drop(h);
}

/* --- several processes at work, one killed now and then --- */

static int worker(void *arg)
{
	struct stage *s = arg;
	uint64_t state = (uint64_t)getpid();
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	const uint64_t *words = pheap_find(h, "words");
	CHECK(words);
	while (!__atomic_load_n(&s->go, __ATOMIC_ACQUIRE)) {
		uint64_t from = random_next(&state) % WORDS, to = random_next(&state) % WORDS;
		const uint64_t keys[] = {from, to};
		bool exclusive = random_next(&state) % 16 == 0;
		pheap_tx *tx;
		CHECK(pheap_begin(h, exclusive ? 0 : PHEAP_CONCURRENT, &tx) == 0);
		int rc = exclusive ? 0 : pheap_lock(tx, keys, 2);
		if (rc == -EDEADLK) {
			pheap_abort(tx);
			continue;
		}
		CHECK(rc == 0);
		uint64_t *f = pheap_modify(tx, words + from, 8), *t = pheap_modify(tx, words + to, 8);
		CHECK(f && t);
		*f -= 1;
		*t += 1;
		unsigned char *p = pheap_alloc(tx, 1 + random_next(&state) % 3000, 2);
		CHECK(p);
		memset(p, 1, 1);
		if (random_next(&state) % 2)
			CHECK(pheap_free(tx, p) == 0);
		else
			CHECK(pheap_error(tx) == 0);
		if (random_next(&state) % 2) {
			pheap_abort(tx);
			continue;
		}
		CHECK(pheap_commit(tx) == 0);
		__atomic_fetch_add(&s->inside, 1, __ATOMIC_RELAXED);
	}
	CHECK(pheap_close(h) == 0);
	return 0;
}

Test(process, workers_and_kills)
{
	enum { WORKERS = 3, KILLS = 40 };
	struct pheap_options opt = test_options();
	struct stage *s = shared_make(sizeof *s);
	uint64_t seed = random_seed(), sum = 0;
	pid_t pids[WORKERS];

	opt.max_size = 512 * MIB;
	pheap *h = heap_make_with(&opt);
	const uint64_t *words = words_make(h);
	for (int i = 0; i < WORKERS; i++)
		pids[i] = child_start(worker, s);
	for (int i = 0; i < KILLS; i++) {
		usleep((useconds_t)(random_next(&seed) % 15000));
		child_kill(pids[i % WORKERS]);
		pids[i % WORKERS] = child_start(worker, s);
		/* stop the world, look at the books */
		pheap_tx *tx = begin(h, PHEAP_READ);
		sum = 0;
		for (int k = 0; k < WORDS; k++)
			sum += words[k];
		cr_assert_eq(sum, 0, "kill %d: the sum is %ld", i, (long)sum);
		commit(tx);
	}
	flag_set(&s->go, 1);
	for (int i = 0; i < WORKERS; i++)
		cr_expect_eq(child_wait(pids[i]), 0);
	cr_assert_gt(s->inside, 0);
	OK(pheap_recover(h, NULL));
	cr_assert_eq(stats_of(h).member_count, 1);
	h = heap_reopen(h);
	cr_assert_eq(info_of(h).recovered_back, 0);
	heap_drop(h);
}

/* --- creation --- */

static int create_it(void *arg)
{
	struct stage *s = arg;
	struct pheap_options opt = test_options();
	pheap *h;

	flag_wait(&s->go, 1);
	int rc = pheap_open(scratch("heap"), s->flags, &opt, &h);
	if (rc == -EEXIST)
		return 2;
	CHECK(rc == 0);
	pheap_tx *tx;
	CHECK(pheap_begin(h, 0, &tx) == 0);
	const uint64_t *p = pheap_root(tx, "count", 8, 1);
	CHECK(p);
	uint64_t *w = pheap_modify(tx, p, 8);
	CHECK(w);
	*w += 1;
	CHECK(pheap_commit(tx) == 0);
	CHECK(pheap_close(h) == 0);
	return 0;
}

static int creators(uint32_t flags)
{
	enum { COUNT = 8 };
	struct stage *s = shared_make(sizeof *s);
	pid_t pids[COUNT];
	int winners = 0;

	s->flags = flags;
	(void)scratch("heap");
	for (int i = 0; i < COUNT; i++)
		pids[i] = child_start(create_it, s);
	flag_set(&s->go, 1);
	for (int i = 0; i < COUNT; i++) {
		int rc = child_wait(pids[i]);
		cr_assert(rc == 0 || (rc == 2 && (flags & PHEAP_EXCL)), "%d", rc);
		winners += rc == 0;
	}
	return winners;
}

Test(process, created_by_many_at_once)
{
	cr_assert_eq(creators(PHEAP_CREATE), 8);
	pheap *h;
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	cr_assert_eq(*(const uint64_t *)pheap_find(h, "count"), 8, "one heap for all of them");
	heap_drop(h);
}

Test(process, created_exclusively_by_many_at_once)
{
	cr_assert_eq(creators(PHEAP_CREATE | PHEAP_EXCL), 1);
}

/* A creator that is killed leaves no heap or a whole one, and no other file. */
Test(process, creator_killed)
{
	struct stage *s = shared_make(sizeof *s);
	uint64_t seed = random_seed();
	int whole = 0, none = 0;

	s->go = 1;
	s->flags = PHEAP_CREATE | PHEAP_EXCL;
	(void)scratch("heap");
	for (int i = 0; i < 100; i++) {
		pid_t pid = child_start(create_it, s);
		usleep((useconds_t)(random_next(&seed) % 6000));
		child_kill(pid);
		pheap *h;
		int rc = pheap_open(scratch("heap"), 0, NULL, &h);
		cr_assert(rc == 0 || rc == -ENOENT, "seed %#lx: %d %s", (unsigned long)random_seed(), rc,
			  pheap_error_detail(NULL));
		if (rc) {
			none++;
			continue;
		}
		whole++;
		heap_drop(h);
		unlink(scratch("heap"));
	}
	fprintf(stderr, "creators killed: %d left a heap, %d left none\n", whole, none);
}
