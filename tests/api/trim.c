/* SPDX-License-Identifier: MIT
 *
 * trim.c: pheap_trim: what freed blocks have left goes back to the file system, and nothing else does; it can be had again at
 * once, by anybody, while others trim.
 */
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(trim, .timeout = 180);

enum { BLOCK = 100000, BLOCKS = 80, TYPE = 3, KEEP = 4 };

static uint64_t disk_size(void)
{
	struct stat st;

	cr_assert_eq(stat(scratch("heap"), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void blocks_make(pheap *h, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		pheap_tx *tx = begin(h, 0);
		unsigned char *p = pheap_alloc(tx, BLOCK, TYPE);

		cr_assert(p);
		pattern_fill(p, BLOCK, 1);
		commit(tx);
	}
}

static void blocks_free(pheap *h, uint32_t type)
{
	while (pheap_next(h, type, NULL)) {
		pheap_tx *tx = begin(h, 0);
		const void *p = NULL;

		for (int i = 0; i < 50 && (p = pheap_next(h, type, p)); i++)
			OK(pheap_free(tx, p));
		commit(tx);
	}
}

static bool has_holes(void)
{
	pheap *h;
	bool any;

	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	any = stats_of(h).hole_chunk_count > 0;
	heap_drop(h);
	return any;
}

Test(trim, gives_back_and_takes_again)
{
	pheap *h = heap_make();
	unsigned char *keep = block_make(h, 300000, KEEP);
	uint64_t full, trimmed;

	pattern_fill(keep, 300000, 9);
	for (int round = 0; round < 3; round++) {
		blocks_make(h, BLOCKS);
		/* small ones too, whose runs are empty afterwards */
		for (int i = 0; i < 2000; i++)
			(void)block_make(h, 500, TYPE);
		full = disk_size();
		blocks_free(h, TYPE);
		cr_assert_geq(disk_size() + MIB, full, "freeing alone gives nothing back");
		OK(pheap_trim(h));
		trimmed = disk_size();
		cr_assert_leq(trimmed + (uint64_t)BLOCK * BLOCKS * 9 / 10, full, "%lu bytes, then %lu",
			      (unsigned long)full, (unsigned long)trimmed);
		struct pheap_stats s = stats_of(h);
		cr_assert_gt(s.hole_chunk_count * 4096, (uint64_t)BLOCK * BLOCKS * 9 / 10);
		cr_assert_leq(s.hole_chunk_count, s.free_chunk_count);
		cr_assert(pattern_is(keep, 300000, 9));
		OK(pheap_trim(h));
		cr_assert_leq(disk_size(), trimmed + MIB);
		/* A heap that was trimmed is no sparse copy: nothing comes back by opening it. */
		size_t at = (size_t)pheap_offset(h, keep);
		heap_drop(h);
		cr_assert(has_holes());
		cr_assert_leq(disk_size(), trimmed + MIB);
		OK(pheap_open(scratch("heap"), 0, NULL, &h));
		keep = (unsigned char *)(uintptr_t)pheap_at(h, at);
	}
	blocks_make(h, BLOCKS);
	cr_assert_geq(disk_size() + MIB, full, "space is there before it is used");
	for (const void *p = NULL; (p = pheap_next(h, TYPE, p));)
		cr_assert(pattern_is(p, BLOCK, 1));
	cr_assert(pattern_is(keep, 300000, 9));
	heap_drop(h);
}

/* The file without its holes, and with more of them. */
Test(trim, copies)
{
	pheap *h = heap_make();
	char command[600];
	uint64_t trimmed;

	blocks_make(h, BLOCKS);
	pattern_fill(block_make(h, 5 * BLOCK, KEEP), BLOCK, 9);
	blocks_free(h, TYPE);
	OK(pheap_trim(h));
	heap_drop(h);
	trimmed = disk_size();
	snprintf(command, sizeof command, "cp --sparse=always '%s' '%s' && mv '%s' '%s'", scratch("heap"),
		 scratch("copy"), scratch("copy"), scratch("heap"));
	cr_assert_eq(system(command), 0);
	cr_assert_lt(disk_size(), trimmed, "the zeros behind the pattern");
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	cr_assert_geq(disk_size() + 65536, trimmed, "a copy gets the space of its blocks");
	cr_assert_leq(disk_size(), trimmed + MIB, "and of nothing else");
	cr_assert(pattern_is(pheap_next(h, KEEP, NULL), BLOCK, 9));
	heap_drop(h);
}

Test(trim, open_transactions)
{
	pheap *h = heap_make();
	pheap_savepoint_id sp;
	pheap_tx *tx;

	blocks_make(h, BLOCKS);
	tx = begin(h, 0);
	for (const void *p = NULL; (p = pheap_next(h, TYPE, p));)
		OK(pheap_free(tx, p));
	unsigned char *fresh = pheap_alloc(tx, 10 * BLOCK, KEEP);
	cr_assert(fresh);
	pattern_fill(fresh, 10 * BLOCK, 2);
	OK(pheap_savepoint(tx, &sp));
	/* The log leaves the lane. */
	fresh = pheap_modify(tx, fresh, 10 * BLOCK);
	cr_assert(fresh);
	pattern_fill(fresh, 10 * BLOCK, 3);
	OK(pheap_trim(h));
	cr_assert(pattern_is(fresh, 10 * BLOCK, 3), "what the transaction has made stays");
	OK(pheap_rollback(tx, sp));
	cr_assert(pattern_is(fresh, 10 * BLOCK, 2), "and its log");
	pheap_abort(tx);
	size_t count = 0;
	for (const void *p = NULL; (p = pheap_next(h, TYPE, p)); count++)
		cr_assert(pattern_is(p, BLOCK, 1), "what it would have freed stays");
	cr_assert_eq(count, (size_t)BLOCKS);
	heap_drop(h);
}

Test(trim, reserved_blocks)
{
	pheap *h = heap_make();

	blocks_make(h, BLOCKS);
	unsigned char *big = pheap_reserve(h, 20 * BLOCK, KEEP), *small = pheap_reserve(h, 300, KEEP);
	cr_assert(big && small);
	pattern_fill(big, 20 * BLOCK, 4);
	pattern_fill(small, 300, 5);
	blocks_free(h, TYPE);
	OK(pheap_trim(h));
	unsigned char *again = pheap_reserve(h, 20 * BLOCK, KEEP); /* where there were holes */
	cr_assert(again);
	pattern_fill(again, 20 * BLOCK, 6);
	OK(pheap_trim(h));
	pheap_tx *tx = begin(h, 0);
	OK(pheap_publish(tx, big));
	OK(pheap_publish(tx, small));
	OK(pheap_publish(tx, again));
	commit(tx);
	OK(pheap_trim(h));
	cr_assert(pattern_is(big, 20 * BLOCK, 4) && pattern_is(small, 300, 5) &&
		  pattern_is(again, 20 * BLOCK, 6));
	heap_drop(h);
}

/* ---- beside others ---- */

struct beside {
	uint32_t stop;
	uint64_t trims;
};

static int trims(void *arg)
{
	struct beside *s = arg;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		int rc = pheap_trim(h);

		if (rc)
			fprintf(stderr, "pheap_trim: %d %s\n", rc, pheap_error_detail(h));
		CHECK(rc == 0);
		__atomic_fetch_add(&s->trims, 1, __ATOMIC_ACQ_REL);
	}
	CHECK(pheap_close(h) == 0);
	return 0;
}

/* Fills a heap that cannot grow and empties it, with all sizes; who trims beside it never makes it look full. */
static int fills(void *arg)
{
	struct beside *s = arg;
	uint64_t seed = random_seed() ^ (uint64_t)getpid();
	static const unsigned char *held[64];
	static size_t sizes[64];
	pheap *h;
	int rc = 0;

	fprintf(stderr, "seed %lu\n", (unsigned long)seed);
	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	for (int i = 0; i < 3000 || __atomic_load_n(&s->trims, __ATOMIC_ACQUIRE) < 20; i++) {
		size_t slot = random_next(&seed) % 64, n = 40 + random_next(&seed) % 3000;
		pheap_tx *tx;

		if (random_next(&seed) % 4 == 0)
			n = 20000 + random_next(&seed) % 100000;
		CHECK(pheap_begin(h, PHEAP_CONCURRENT, &tx) == 0);
		if (held[slot]) {
			CHECK(pattern_is(held[slot], sizes[slot], slot));
			CHECK(pheap_free(tx, held[slot]) == 0);
			held[slot] = NULL;
		} else {
			unsigned char *p = pheap_alloc(tx, n, TYPE);

			if (!p)
				fprintf(stderr, "%zu bytes: %s\n", n, pheap_error_detail(h));
			CHECK(p);
			pattern_fill(p, n, slot);
			held[slot] = p;
			sizes[slot] = n;
		}
		CHECK(pheap_commit(tx) == 0);
	}
	for (size_t i = 0; i < 64; i++)
		CHECK(!held[i] || pattern_is(held[i], sizes[i], i));
	CHECK(pheap_close(h) == 0);
	return rc;
}

static void beside(uint64_t max_size)
{
	struct beside *s = shared_make(sizeof *s);
	struct pheap_options opt = test_options();
	pid_t pids[4];

	opt.max_size = opt.initial_size = max_size;
	pheap *h = heap_make_with(&opt);
	pids[0] = child_start(trims, s);
	pids[1] = child_start(trims, s);
	pids[2] = child_start(fills, s);
	pids[3] = child_start(fills, s);
	cr_assert_eq(child_wait(pids[2]), 0);
	cr_assert_eq(child_wait(pids[3]), 0);
	flag_set(&s->stop, 1);
	cr_assert_eq(child_wait(pids[0]), 0);
	cr_assert_eq(child_wait(pids[1]), 0);
	heap_drop(h);
}

Test(trim, beside_allocation)
{
	beside(24 * MIB);
}

/* All that is free is one block: it is there, or somebody is told a lie. */
Test(trim, full_but_for_one_block)
{
	struct beside *s = shared_make(sizeof *s);
	struct pheap_options opt = test_options();

	opt.max_size = opt.initial_size = 8 * MIB;
	pheap *h = heap_make_with(&opt);
	size_t n = stats_of(h).free_chunk_run_max * 4096 / 10 * 9;
	pid_t pid = child_start(trims, s);
	for (int i = 0; i < 300 || __atomic_load_n(&s->trims, __ATOMIC_ACQUIRE) < 20; i++) {
		pheap_tx *tx = begin(h, 0);
		unsigned char *p = pheap_alloc(tx, n, TYPE);

		cr_assert(p, "round %d: %s", i, pheap_error_detail(h));
		p[0] = p[n - 1] = 1;
		commit(tx);
		tx = begin(h, 0);
		OK(pheap_free(tx, p));
		commit(tx);
	}
	flag_set(&s->stop, 1);
	cr_assert_eq(child_wait(pid), 0);
	heap_drop(h);
}

Test(trim, killed)
{
	struct beside *s = shared_make(sizeof *s);
	pheap *h = heap_make();

	for (int round = 0; round < 20; round++) {
		blocks_make(h, BLOCKS / 4);
		uint64_t before = __atomic_load_n(&s->trims, __ATOMIC_ACQUIRE);
		pid_t pid = child_start(trims, s);
		while (__atomic_load_n(&s->trims, __ATOMIC_ACQUIRE) == before && round % 2)
			usleep(100);
		usleep((useconds_t)(round * 100));
		child_kill(pid);
		size_t count = 0;
		for (const void *p = NULL; (p = pheap_next(h, TYPE, p)); count++)
			cr_assert(pattern_is(p, BLOCK, 1));
		cr_assert_eq(count, (size_t)BLOCKS / 4);
		blocks_free(h, TYPE);
	}
	OK(pheap_trim(h));
	heap_drop(h);
}

static int forked(void *arg)
{
	CHECK(pheap_trim(arg) == PHEAP_EFORKED);
	return 0;
}

Test(trim, refused)
{
	pheap *h = heap_make();

	OK(pheap_trim(h)); /* nothing to give */
	cr_assert_eq(child_run(forked, h), 0);
	heap_drop(h);
	OK(pheap_open(scratch("heap"), PHEAP_RDONLY, NULL, &h));
	GIVES(-EROFS, pheap_trim(h));
	heap_drop(h);
}
