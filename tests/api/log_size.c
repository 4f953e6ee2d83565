/* SPDX-License-Identifier: MIT
 *
 * log_size.c: transactions around every boundary of the log: the end of a lane's own part, of its
 * extensions, one record larger than both, and transactions of several MiB, committed and aborted.
 */
#include "support.h"

TestSuite(log_size, .timeout = 240);

enum { ARENA = 1 << 20, STRIDE = 128 };

static unsigned char *arena;
static unsigned char model[ARENA];

static void arena_make(pheap *h)
{
	arena = block_make(h, ARENA, 1);
	pheap_tx *tx = begin(h, 0);
	pattern_fill(pheap_modify(tx, arena, ARENA), ARENA, 1);
	commit(tx);
	memcpy(model, arena, ARENA);
}

/* Words apart from each other, so that no two records can become one. */
static void words_modify(pheap_tx *tx, size_t count, bool defer)
{
	for (size_t i = 0; i < count; i++) {
		unsigned char *p = arena + i * STRIDE;
		uint64_t value = i * 0x9e3779b97f4a7c15u + count;
		if (defer)
			OK(pheap_defer(tx, p, &value, 8));
		else
			OK(pheap_store(tx, p, &value, 8));
	}
}

static void words_expect(size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t value = i * 0x9e3779b97f4a7c15u + count;
		memcpy(model + i * STRIDE, &value, 8);
	}
}

static void arena_check(const char *what, size_t count, size_t n)
{
	if (!memcmp(arena, model, ARENA))
		return;
	for (size_t i = 0; i < ARENA; i++)
		cr_assert(arena[i] == model[i],
			  "%s: %zu records and one of %zu: byte %zu is %#x, expected %#x", what, count, n, i,
			  arena[i], model[i]);
}

static size_t lane_log_size(void)
{
	return file_super(scratch("heap")).lane_log_size;
}

/* `count` records of 24 bytes, then one of n bytes, then three more. */
static void boundary(pheap *h, size_t count, size_t n, bool defer, bool keep)
{
	size_t tail = ARENA - 2 * STRIDE - n;
	pheap_tx *tx = begin(h, 0);

	words_modify(tx, count, defer);
	memset(pheap_modify(tx, arena + tail, n), 0x77, n);
	for (size_t i = 0; i < 3; i++)
		OK(pheap_store(tx, arena + ARENA - STRIDE + i * 16, "tail", 4));
	if (!keep) {
		pheap_abort(tx);
	} else {
		commit(tx);
		words_expect(count);
		memset(model + tail, 0x77, n);
		for (size_t i = 0; i < 3; i++)
			memcpy(model + ARENA - STRIDE + i * 16, "tail", 4);
	}
	arena_check(keep ? "commit" : "abort", count, n);
}

Test(log_size, around_the_lanes_end)
{
	pheap *h = heap_make();
	size_t size = lane_log_size();

	arena_make(h);
	/* what is left after `count` records takes every value from under 0 to over 128 bytes */
	for (size_t left = 0; left < 6; left++) {
		size_t count = size / 24 - left;
		for (size_t n = 1; n < 150; n += n < 60 ? 1 : 5) {
			boundary(h, count, n, false, n % 2);
			boundary(h, count, n, true, n % 3 == 0);
		}
	}
	heap_drop(h);
}

Test(log_size, one_record_near_the_lanes_size)
{
	pheap *h = heap_make();
	size_t size = lane_log_size();

	arena_make(h);
	for (size_t n = size - 80; n < size + 80; n++) {
		boundary(h, 0, n, false, n % 2);
		boundary(h, 1, n, true, n % 2);
	}
	heap_drop(h);
}

/* Whatever sizes extensions have, they are whole chunks: walk the log's end over many of them in small
 * steps. */
Test(log_size, around_the_ends_of_extensions)
{
	pheap *h = heap_make();
	size_t size = lane_log_size();

	arena_make(h);
	for (size_t total = size; total < size + 20 * PHD_CHUNK_SIZE; total += 24 * 3)
		if (total / 24 < ARENA / STRIDE - 4)
			boundary(h, total / 24, 8 + total % 40, total / 72 % 8 == 0, total / 72 % 3 == 0);
	heap_drop(h);
}

Test(log_size, one_record_near_chunk_multiples)
{
	pheap *h = heap_make();

	arena_make(h);
	for (size_t chunks = 1; chunks < 40; chunks = chunks * 3 / 2 + 1)
		for (size_t n = chunks * PHD_CHUNK_SIZE - 64; n < chunks * PHD_CHUNK_SIZE + 24; n += 4) {
			boundary(h, 2, n, false, false);
			boundary(h, 2, n, true, n % 8);
		}
	heap_drop(h);
}

Test(log_size, several_mib)
{
	enum { SIZE = 8 << 20 };
	pheap *h = heap_make();
	unsigned char *p = block_make(h, SIZE, 1), *q = p;

	for (int keep = 0; keep < 2; keep++) {
		/* in one record, in pages, in small pieces */
		for (size_t step = SIZE; step >= 61; step = step == SIZE ? 4096 : step == 4096 ? 61 : 1) {
			pheap_tx *tx = begin(h, 0);
			for (size_t off = 0; off < SIZE; off += step) {
				size_t n = off + step > SIZE ? SIZE - off : step;
				q = pheap_modify(tx, p + off, n);
				cr_assert(q, "at %zu by %zu: %d", off, step, pheap_error(tx));
				memset(q, keep ? 0x40 + (int)(step & 0xf) : 0x99, n);
			}
			if (keep) {
				commit(tx);
				cr_assert(bytes_are(p, SIZE, (unsigned char)(0x40 + (step & 0xf))));
			} else {
				pheap_abort(tx);
				cr_assert(bytes_are(p, SIZE, 0), "step %zu", step);
			}
		}
	}
	/* the space of the long logs is back */
	unsigned char *big = block_make(h, 24 * MIB, 1);
	cr_assert_not_null(big);
	heap_drop(h);
}

Test(log_size, large_deferred)
{
	enum { SIZE = 4 << 20 };
	pheap *h = heap_make();
	unsigned char *p = block_make(h, SIZE, 1), *bytes = malloc(SIZE);

	cr_assert(bytes);
	pattern_fill(bytes, SIZE, 3);
	for (int keep = 0; keep < 2; keep++) {
		pheap_tx *tx = begin(h, 0);
		for (size_t off = 0, n; off < SIZE; off += n) {
			n = 1 + off % 5000;
			n = off + n > SIZE ? SIZE - off : n;
			OK(pheap_defer(tx, p + off, bytes + off, n));
		}
		cr_assert(bytes_are(p, SIZE, 0));
		if (keep)
			commit(tx);
		else
			pheap_abort(tx);
		cr_assert(keep ? !memcmp(p, bytes, SIZE) : bytes_are(p, SIZE, 0));
	}
	free(bytes);
	heap_drop(h);
}

/* A transaction for whose log there is no room: an error from the call, abort works, the heap is as before. */
Test(log_size, larger_than_the_heap)
{
	enum { SIZE = 5 << 20 };
	struct pheap_options opt = test_options();

	opt.max_size = 8 * MIB;
	pheap *h = heap_make_with(&opt);
	unsigned char *p = block_make(h, SIZE, 1);
	for (size_t step = SIZE; step; step = step == SIZE ? 100 : 0) {
		pheap_tx *tx = begin(h, 0);
		size_t off = 0;
		for (; off < SIZE; off += step) {
			size_t n = off + step > SIZE ? SIZE - off : step;
			unsigned char *q = pheap_modify(tx, p + off, n);
			if (!q)
				break;
			memset(q, 1, n);
		}
		cr_assert_lt(off, SIZE);
		int rc = pheap_error(tx);
		cr_assert(rc == -ENOSPC || rc == -E2BIG, "%d", rc);
		GIVES(rc, pheap_commit(tx));
		cr_assert(bytes_are(p, SIZE, 0));
	}
	pheap_tx *tx = begin(h, 0);
	OK(pheap_free(tx, p));
	commit(tx);
	p = block_make(h, SIZE, 1);
	heap_drop(h);
}

Test(log_size, savepoints_across_extensions)
{
	pheap *h = heap_make();
	size_t per_lane = lane_log_size() / 24;

	arena_make(h);
	for (size_t before = per_lane - 3; before < per_lane + 4; before++) {
		pheap_savepoint_id sp;
		pheap_tx *tx = begin(h, 0);
		words_modify(tx, before, false);
		words_expect(before);
		OK(pheap_savepoint(tx, &sp));
		for (int round = 0; round < 4; round++) {
			for (size_t i = 0; i < 3000; i++)
				OK(pheap_store(tx, arena + i * STRIDE, "rollback", 8));
			OK(pheap_rollback(tx, sp));
			arena_check("rollback", before, (size_t)round);
		}
		commit(tx);
		arena_check("commit after rollback", before, 0);
	}
	heap_drop(h);
}
