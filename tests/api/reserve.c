/* SPDX-License-Identifier: MIT
 *
 * reserve.c: blocks that are filled outside any transaction, then published by one, or cancelled, or lost
 * with the process.
 */
#include "support.h"

#include <signal.h>

TestSuite(reserve, .timeout = 60);

static const size_t reserve_sizes[] = {1, 64, 1000, 5000, 20000, 300000};
enum { SIZES = sizeof reserve_sizes / sizeof *reserve_sizes };

Test(reserve, publish)
{
	pheap *h = heap_make();

	for (size_t i = 0; i < SIZES; i++) {
		size_t n = reserve_sizes[i];
		uint64_t blocks = stats_of(h).block_count;
		unsigned char *p = pheap_reserve(h, n, 3);
		cr_assert(p, "size %zu: %s", n, pheap_error_detail(h));
		pattern_fill(p, n, 1);
		cr_assert_eq(stats_of(h).block_count, blocks, "not allocated yet");
		pheap_tx *tx = begin(h, 0);
		OK(pheap_publish(tx, p));
		commit(tx);
		cr_assert(pattern_is(p, n, 1));
		cr_assert_eq(pheap_type_of(h, p), 3);
		cr_assert_geq(pheap_usable_size(h, p), n);
		cr_assert_eq(stats_of(h).block_count, blocks + 1);
		tx = begin(h, 0);
		OK(pheap_free(tx, p));
		commit(tx);
	}
	heap_drop(h);
}

Test(reserve, abort_makes_it_reserved_again)
{
	pheap *h = heap_make();

	for (size_t i = 0; i < SIZES; i++) {
		size_t n = reserve_sizes[i];
		unsigned char *p = pheap_reserve(h, n, 3);
		pheap_savepoint_id sp;
		cr_assert(p);
		pattern_fill(p, n, 1);
		pheap_tx *tx = begin(h, 0);
		OK(pheap_publish(tx, p));
		pheap_abort(tx);
		cr_assert_null(pheap_next(h, 3, NULL));
		tx = begin(h, 0);
		OK(pheap_savepoint(tx, &sp));
		OK(pheap_publish(tx, p));
		OK(pheap_rollback(tx, sp));
		commit(tx);
		cr_assert_null(pheap_next(h, 3, NULL));
		/* nobody else got it meanwhile */
		for (int k = 0; k < 20; k++) {
			tx = begin(h, 0);
			unsigned char *q = pheap_alloc(tx, n, 3);
			cr_assert(q && (q + n <= p || q >= p + n));
			memset(q, 0xff, n);
			pheap_abort(tx);
		}
		cr_assert(pattern_is(p, n, 1));
		tx = begin(h, 0);
		OK(pheap_publish(tx, p));
		commit(tx);
		cr_assert_eq(pheap_next(h, 3, NULL), p);
		tx = begin(h, 0);
		OK(pheap_free(tx, p));
		commit(tx);
	}
	heap_drop(h);
}

Test(reserve, cancel)
{
	struct pheap_options opt = test_options();

	opt.max_size = 8 * MIB;
	pheap *h = heap_make_with(&opt);
	uint64_t blocks = stats_of(h).block_count;

	pheap_cancel(h, NULL);
	for (int round = 0; round < 300; round++)
		for (size_t i = 0; i < SIZES; i++) {
			unsigned char *p = pheap_reserve(h, reserve_sizes[i], 3);
			cr_assert(p, "round %d size %zu: not given back?", round, reserve_sizes[i]);
			memset(p, round, reserve_sizes[i]);
			pheap_cancel(h, p);
		}
	cr_assert_eq(stats_of(h).block_count, blocks);
	heap_drop(h);
}

Test(reserve, wrong_publish)
{
	pheap *h = heap_make();
	unsigned char *p = pheap_reserve(h, 100, 3), *q = block_make(h, 100, 3);
	pheap_tx *tx = begin(h, 0);
	int local;

	cr_assert(p);
	GIVES(-EINVAL, pheap_publish(tx, q));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, 0);
	GIVES(-EINVAL, pheap_publish(tx, p + 8));
	pheap_abort(tx);
	tx = begin(h, 0);
	cr_assert_neq(pheap_publish(tx, &local), 0);
	pheap_abort(tx);
	tx = begin(h, 0);
	OK(pheap_publish(tx, p));
	GIVES(-EINVAL, pheap_publish(tx, p));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, 0);
	GIVES(-EINVAL, pheap_free(tx, p)); /* reserved is not allocated */
	pheap_abort(tx);
	tx = begin(h, 0);
	OK(pheap_publish(tx, p));
	commit(tx);
	tx = begin(h, 0);
	GIVES(-EINVAL, pheap_publish(tx, p));
	pheap_abort(tx);
	heap_drop(h);
}

Test(reserve, many_at_once)
{
	enum { COUNT = 600 };
	static unsigned char *blocks[COUNT];
	pheap *h = heap_make();
	uint64_t before = stats_of(h).block_count;

	for (size_t i = 0; i < COUNT; i++) {
		size_t n = 1 + i * 13 % 3000;
		blocks[i] = pheap_reserve(h, n, (uint32_t)(i % 4));
		cr_assert(blocks[i]);
		pattern_fill(blocks[i], n, i);
	}
	pheap_tx *tx = begin(h, 0);
	for (size_t i = 0; i < COUNT; i += 2)
		OK(pheap_publish(tx, blocks[i]));
	commit(tx);
	for (size_t i = 1; i < COUNT; i += 2)
		pheap_cancel(h, blocks[i]);
	for (size_t i = 0; i < COUNT; i += 2)
		cr_assert(pattern_is(blocks[i], 1 + i * 13 % 3000, i));
	cr_assert_eq(stats_of(h).block_count, before + COUNT / 2);
	heap_drop(h);
}

static int reserve_in_thread(void *arg)
{
	pheap *h = *(pheap **)arg;

	for (int i = 0; i < 500; i++) {
		size_t n = 1 + (size_t)i * 37 % 9000;
		unsigned char *p = pheap_reserve(h, n, 8);
		pheap_tx *tx;
		CHECK(p);
		pattern_fill(p, n, (uint64_t)i);
		CHECK(pheap_begin(h, PHEAP_CONCURRENT, &tx) == 0);
		CHECK(pheap_publish(tx, p) == 0);
		if (i % 3 == 0) {
			pheap_abort(tx);
			pheap_cancel(h, p);
			continue;
		}
		CHECK(pheap_commit(tx) == 0);
		CHECK(pattern_is(p, n, (uint64_t)i));
		CHECK(pheap_begin(h, PHEAP_CONCURRENT, &tx) == 0);
		CHECK(pheap_free(tx, p) == 0);
		CHECK(pheap_commit(tx) == 0);
	}
	return 0;
}

Test(reserve, from_several_threads)
{
	pheap *h = heap_make();
	uint64_t blocks = stats_of(h).block_count;
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		threads[i] = thread_start(reserve_in_thread, &h);
	for (int i = 0; i < 4; i++)
		cr_expect_eq(thread_join(threads[i]), 0);
	cr_assert_eq(stats_of(h).block_count, blocks);
	heap_drop(h);
}

static int reserve_and_die(void *arg)
{
	pheap *h;

	(void)arg;
	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	for (size_t i = 0; i < SIZES; i++) {
		unsigned char *p = pheap_reserve(h, reserve_sizes[i], 3);
		if (!p)
			fprintf(stderr, "reserve of %zu: %s\n", reserve_sizes[i], pheap_error_detail(h));
		CHECK(p);
		memset(p, 0xdd, reserve_sizes[i]);
	}
	raise(SIGKILL);
	return 0;
}

Test(reserve, gone_with_the_process)
{
	struct pheap_options opt = test_options();

	opt.max_size = 4 * MIB;
	pheap *h = heap_make_with(&opt);
	struct pheap_stats before = stats_of(h), after;

	heap_drop(h);
	for (int round = 0; round < 40; round++)
		cr_assert_eq(child_run(reserve_and_die, NULL), 1000 + SIGKILL);
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	after = stats_of(h);
	cr_assert_eq(after.block_count, before.block_count);
	cr_assert_eq(after.allocated_size, before.allocated_size);
	heap_drop(h);
}

Test(reserve, gone_with_the_process_while_another_is_attached)
{
	struct pheap_options opt = test_options();
	uint32_t members = 0;

	opt.max_size = 4 * MIB;
	pheap *h = heap_make_with(&opt);
	for (int round = 0; round < 40; round++)
		cr_assert_eq(child_run(reserve_and_die, NULL), 1000 + SIGKILL, "round %d", round);
	OK(pheap_recover(h, &members));
	block_make(h, MIB, 3);
	heap_drop(h);
}

Test(reserve, close_with_reserved_blocks)
{
	pheap *h = heap_make();

	cr_assert(pheap_reserve(h, 1000, 3));
	cr_assert(pheap_reserve(h, 100000, 3));
	h = heap_reopen(h);
	cr_assert_null(pheap_next(h, 3, NULL));
	heap_drop(h);
}
