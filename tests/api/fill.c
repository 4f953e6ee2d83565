/* SPDX-License-Identifier: MIT
 *
 * fill.c: full heaps, no leak and no double use, coalescing, internal waste, threads that allocate beside
 * each other.
 */
#include "support.h"

TestSuite(fill, .timeout = 180);

/* In batches whose log fits into a lane: on a full heap there may be no room for a longer one. */
static void free_all(pheap *h, uint32_t type)
{
	while (pheap_next(h, type, NULL)) {
		const void *p = NULL;
		pheap_tx *tx = begin(h, 0);
		for (int i = 0; i < 300 && (p = pheap_next(h, type, p)); i++)
			OK(pheap_free(tx, p));
		commit(tx);
	}
}

/* Allocates until ENOSPC, `per_tx` blocks a transaction; how many were committed. */
static size_t fill_with(pheap *h, size_t n, size_t per_tx, uint32_t type)
{
	for (size_t count = 0;; count += per_tx) {
		pheap_tx *tx = begin(h, 0);
		for (size_t i = 0; i < per_tx; i++) {
			unsigned char *p = pheap_alloc(tx, n, type);
			if (p) {
				memset(p, (int)(count & 0xff), n < 64 ? n : 64);
				continue;
			}
			GIVES(-ENOSPC, pheap_error(tx));
			GIVES(-ENOSPC, pheap_commit(tx));
			return count;
		}
		commit(tx);
	}
}

static const size_t fill_sizes[] = {16, 100, 1000, 4096, 5000, 16384, 16385, 70000, 300000};

Test(fill, the_same_amount_again)
{
	struct pheap_options opt = test_options();

	opt.max_size = 8 * MIB;
	pheap *h = heap_make_with(&opt);
	for (size_t i = 0; i < sizeof fill_sizes / sizeof *fill_sizes; i++) {
		size_t n = fill_sizes[i], per_tx = n < 1000 ? 50 : 1, first = fill_with(h, n, per_tx, 1);
		cr_assert_gt(first * n, 5 * MIB, "%zu blocks of %zu bytes", first, n);
		for (int round = 0; round < 3; round++) {
			free_all(h, 1);
			size_t again = fill_with(h, n, per_tx, 1);
			cr_assert_geq(again + per_tx, first, "size %zu: %zu blocks, then %zu", n, first,
				      again);
			first = again > first ? again : first;
		}
		free_all(h, 1);
	}
	heap_drop(h);
}

/* A full heap: one free, then one allocation of that size goes again. */
Test(fill, free_on_a_full_heap)
{
	struct pheap_options opt = test_options();

	opt.max_size = 4 * MIB;
	pheap *h = heap_make_with(&opt);
	for (size_t i = 0; i < sizeof fill_sizes / sizeof *fill_sizes; i++) {
		size_t n = fill_sizes[i];
		(void)fill_with(h, n, 1, 1);
		for (int round = 0; round < 20; round++) {
			const void *p = pheap_next(h, 1, NULL);
			pheap_tx *tx = begin(h, 0);
			OK(pheap_free(tx, p));
			pheap_abort(tx);
			tx = begin(h, 0);
			OK(pheap_free(tx, p));
			commit(tx);
			tx = begin(h, 0);
			cr_assert(pheap_alloc(tx, n, 1), "size %zu round %d: %d", n, round, pheap_error(tx));
			commit(tx);
		}
		free_all(h, 1);
	}
	heap_drop(h);
}

Test(fill, enospc_text_says_what_to_do)
{
	struct pheap_options opt = test_options();

	opt.max_size = MIB;
	pheap *h = heap_make_with(&opt);
	(void)fill_with(h, 1000, 1, 1);
	pheap_tx *tx = begin(h, 0);
	for (const void *p = NULL; (p = pheap_next(h, 1, p));)
		OK(pheap_free(tx, p));
	cr_assert_null(pheap_alloc(tx, 100000, 1), "freed in this transaction: not reusable yet");
	GIVES(-ENOSPC, pheap_error(tx));
	cr_assert(strstr(pheap_error_detail(h), "commit"), "\"%s\"", pheap_error_detail(h));
	pheap_abort(tx);
	heap_drop(h);
}

/* Changes other than allocation work on a full heap: undo of what fits into a lane, abort, savepoints. */
Test(fill, changes_on_a_full_heap)
{
	struct pheap_options opt = test_options();

	opt.max_size = MIB;
	pheap *h = heap_make_with(&opt);
	unsigned char *p = block_make(h, 200, 2);
	(void)fill_with(h, 4096, 1, 1);
	(void)fill_with(h, 16, 1, 1);
	pheap_savepoint_id sp;
	pheap_tx *tx = begin(h, 0);
	memset(pheap_modify(tx, p, 100), 1, 100);
	OK(pheap_savepoint(tx, &sp));
	memset(pheap_modify(tx, p + 50, 100), 2, 100);
	OK(pheap_rollback(tx, sp));
	commit(tx);
	cr_assert(bytes_are(p, 100, 1));
	cr_assert(bytes_are(p + 100, 100, 0));
	heap_drop(h);
}

/* However full, with blocks of whatever size: one transaction can free all of them, or abort having done so. */
Test(fill, whole_heap_freed_at_once)
{
	static const size_t sizes[] = {16, 24, 64, 1000, 5000, 16385};
	struct pheap_options opt = test_options();

	opt.max_size = 16 * MIB;
	pheap *h = heap_make_with(&opt);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		size_t first = fill_with(h, sizes[i], sizes[i] < 100 ? 1000 : 1, 1);
		cr_assert_gt(first * sizes[i], 10 * MIB, "%zu blocks of %zu bytes", first, sizes[i]);
		for (int keep = 0; keep < 2; keep++) {
			pheap_tx *tx = begin(h, 0);
			for (const void *p = NULL; (p = pheap_next(h, 1, p));)
				OK(pheap_free(tx, p));
			if (keep)
				commit(tx);
			else
				pheap_abort(tx);
		}
		cr_assert_null(pheap_next(h, 1, NULL));
		size_t big = fill_with(h, MIB, 1, 1);
		cr_assert_geq(big, 10, "%zu", big);
		free_all(h, 1);
	}
	heap_drop(h);
}

Test(fill, coalescing)
{
	enum { COUNT = 200, SIZE = 40000 };
	struct pheap_options opt = test_options();
	static unsigned char *blocks[COUNT];

	opt.max_size = 12 * MIB;
	pheap *h = heap_make_with(&opt);
	for (int i = 0; i < COUNT; i++)
		blocks[i] = block_make(h, SIZE, 1);
	(void)fill_with(h, SIZE, 1, 2);
	for (int odd = 0; odd < 2; odd++)
		for (int i = odd; i < COUNT; i += 2) {
			pheap_tx *tx = begin(h, 0);
			OK(pheap_free(tx, blocks[i]));
			commit(tx);
		}
	pheap_tx *tx = begin(h, 0);
	cr_assert(pheap_alloc(tx, (size_t)COUNT * SIZE, 1), "all the neighbours together: %d",
		  pheap_error(tx));
	commit(tx);
	heap_drop(h);
}

/* Small blocks freed: their runs become chunks for large ones, and the other way round. */
Test(fill, runs_become_chunks_again)
{
	struct pheap_options opt = test_options();

	opt.max_size = 8 * MIB;
	pheap *h = heap_make_with(&opt);
	size_t large = fill_with(h, 2 * MIB, 1, 1);
	cr_assert_geq(large, 2);
	free_all(h, 1);
	for (int round = 0; round < 3; round++)
		for (uint32_t type = 1; type < 4; type++)
			for (size_t n = 16; n < 5000; n = n * 4 + 8) {
				cr_assert_gt(fill_with(h, n, 20, type) * n, 4 * MIB, "size %zu type %u", n,
					     type);
				free_all(h, type);
			}
	cr_assert_geq(fill_with(h, 2 * MIB, 1, 1), large);
	heap_drop(h);
}

Test(fill, internal_waste)
{
	pheap *h = heap_make();
	double asked = 0, got = 0;

	for (size_t n = 16; n <= 1024; n++) {
		pheap_tx *tx = begin(h, 0);
		unsigned char *p = pheap_alloc(tx, n, 1);
		cr_assert(p);
		commit(tx);
		size_t usable = pheap_usable_size(h, p);
		cr_assert_leq(usable - n, n / 4 + 8, "size %zu gets %zu", n, usable);
		asked += (double)n;
		got += (double)usable;
	}
	cr_assert_leq((got - asked) / got, 0.125, "%.3f", (got - asked) / got);
	heap_drop(h);
}

Test(fill, no_header_per_block)
{
	static const size_t sizes[] = {16, 24, 32, 48, 64, 80, 96, 128, 192, 256, 384, 512, 640, 768, 1024};
	struct pheap_options opt = test_options();

	opt.max_size = 32 * MIB;
	pheap *h = heap_make_with(&opt);
	uint64_t total = stats_of(h).free_size;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct pheap_stats before = stats_of(h);
		pheap_tx *tx = begin(h, 0);
		size_t count = MIB / sizes[i];
		for (size_t k = 0; k < count; k++)
			cr_assert(pheap_alloc(tx, sizes[i], 1));
		commit(tx);
		struct pheap_stats after = stats_of(h);
		uint64_t used = after.allocated_size - before.allocated_size;
		cr_assert_eq(after.block_count - before.block_count, count);
		cr_assert_geq(used, count * sizes[i]);
		cr_assert_leq(used, count * sizes[i] + count * sizes[i] / 7, "size %zu: %lu", sizes[i],
			      (unsigned long)used);
		free_all(h, 1);
	}
	(void)total;
	heap_drop(h);
}

Test(fill, stats_add_up)
{
	pheap *h = heap_make();
	struct pheap_stats zero = stats_of(h), some;

	cr_assert_eq(zero.size, sizeof zero);
	block_make(h, 100, 1);
	block_make(h, 100000, 1);
	some = stats_of(h);
	cr_assert_eq(some.block_count, zero.block_count + 2);
	cr_assert_geq(some.allocated_size, zero.allocated_size + 100100);
	cr_assert_leq(some.allocated_size, zero.allocated_size + 100000 + 4096 + 128);
	cr_assert_geq(some.extent_count, 1);
	cr_assert_geq(some.run_count, 1);
	cr_assert_leq(some.allocated_size + some.free_size, some.file_size);
	cr_assert_eq(some.member_count, 1);
	cr_assert_leq(some.free_chunk_run_max, some.free_chunk_count);
	cr_assert_lt(some.private_size, MIB, "private memory of an open heap: %lu",
		     (unsigned long)some.private_size);
	heap_drop(h);
}

/* --- threads --- */

struct worker {
	pheap *h;
	uint64_t seed;
	uint32_t type;
	int rounds;
};

enum { HELD = 64 };

static int worker_body(void *arg)
{
	struct worker *w = arg;
	unsigned char *held[HELD] = {NULL};
	size_t sizes[HELD] = {0};
	uint64_t state = w->seed;

	for (int round = 0; round < w->rounds; round++) {
		unsigned char *now[HELD];
		size_t size_now[HELD];
		pheap_tx *tx;
		memcpy(now, held, sizeof now);
		memcpy(size_now, sizes, sizeof size_now);
		CHECK(pheap_begin(w->h, PHEAP_CONCURRENT, &tx) == 0);
		for (int k = 0; k < 6; k++) {
			size_t i = random_next(&state) % HELD;
			uint64_t r = random_next(&state);
			if (now[i]) {
				CHECK(pattern_is(now[i], size_now[i], i + w->type));
				CHECK(pheap_free(tx, now[i]) == 0);
				now[i] = NULL;
			} else {
				size_now[i] = r % 16 ? 1 + r % 700 : 1 + r % 60000;
				now[i] = pheap_alloc(tx, size_now[i], w->type);
				CHECK(now[i]);
				pattern_fill(now[i], size_now[i], i + w->type);
			}
		}
		if (random_next(&state) % 4) {
			CHECK(pheap_commit(tx) == 0);
			memcpy(held, now, sizeof now);
			memcpy(sizes, size_now, sizeof size_now);
		} else {
			pheap_abort(tx);
		}
	}
	pheap_tx *tx;
	CHECK(pheap_begin(w->h, PHEAP_CONCURRENT, &tx) == 0);
	for (size_t i = 0; i < HELD; i++) {
		CHECK(!held[i] || pattern_is(held[i], sizes[i], i + w->type));
		CHECK(pheap_free(tx, held[i]) == 0);
	}
	CHECK(pheap_commit(tx) == 0);
	return 0;
}

static void workers_run(uint32_t type_step)
{
	enum { THREADS = 8 };
	struct worker workers[THREADS];
	pthread_t threads[THREADS];
	uint64_t seed = random_seed();
	pheap *h = heap_make();
	uint64_t blocks = stats_of(h).block_count, bytes = stats_of(h).allocated_size;

	for (uint32_t i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){h, seed + i, 100 + i * type_step, 1500};
		threads[i] = thread_start(worker_body, &workers[i]);
	}
	for (int i = 0; i < THREADS; i++)
		cr_expect_eq(thread_join(threads[i]), 0, "seed %#lx", (unsigned long)seed);
	cr_assert_eq(stats_of(h).block_count, blocks);
	cr_assert_eq(stats_of(h).allocated_size, bytes);
	for (uint32_t i = 0; i < THREADS; i++)
		cr_assert_null(pheap_next(h, 100 + i, NULL));
	heap_drop(h);
}

Test(fill, threads_of_one_type)
{
	workers_run(0);
}

Test(fill, threads_of_many_types)
{
	workers_run(1);
}

/* The class that was asked for has no block left, and no chunk is free. */
Test(fill, a_full_heap_gives_larger_blocks)
{
	enum { HOLES = 40 };
	struct pheap_options opt = test_options();
	const void *p = NULL, *holes[HOLES];
	uint32_t n = 0;

	opt.max_size = 4 * MIB;
	pheap *h = heap_make_with(&opt);
	fill_with(h, 96, 10, 1);
	for (unsigned i = 0; n < HOLES && (p = pheap_next(h, 1, p)); i++)
		if (i % 100 == 0)
			holes[n++] = p;
	cr_assert_eq(n, HOLES);
	pheap_tx *tx = begin(h, 0);
	for (uint32_t i = 0; i < n; i++)
		OK(pheap_free(tx, holes[i]));
	commit(tx);
	for (uint32_t i = 0; i < n; i++) {
		tx = begin(h, 0);
		p = pheap_alloc(tx, 48, 1);
		cr_assert(p, "%u of %u: %s", i, n, pheap_error_detail(h));
		GIVES(0, (uintptr_t)p % 16);
		cr_assert_geq(pheap_usable_size(h, p), 48);
		commit(tx);
	}
	tx = begin(h, 0);
	cr_assert_null(pheap_alloc(tx, 40, 1), "more than there are holes, and the run's tail");
	GIVES(-ENOSPC, pheap_error(tx));
	pheap_abort(tx);
	OK(pheap_close(h));
}
