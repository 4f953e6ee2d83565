/* SPDX-License-Identifier: MIT
 *
 * alloc.c: sizes, alignment, content, types, realloc, wrong frees, the cursor. Full heaps and leaks are in
 * fill.c.
 */
#include "support.h"

TestSuite(alloc, .timeout = 120);

static size_t natural_alignment(size_t n)
{
	return n >= 16 ? 16 : 8;
}

/* One transaction each: the block holds n bytes, is aligned, has its size and type, and overlaps no other. */
Test(alloc, every_size)
{
	enum { MAX = 5000 };
	static unsigned char *blocks[MAX + 1];
	pheap *h = heap_make();

	for (size_t n = 1; n <= MAX; n++) {
		pheap_tx *tx = begin(h, n % 2 ? PHEAP_CONCURRENT : 0);
		unsigned char *p = pheap_alloc(tx, n, (uint32_t)(n % 3));
		cr_assert(p, "size %zu: %d", n, pheap_error(tx));
		cr_assert_eq((uintptr_t)p % 8, 0, "size %zu", n);
		pattern_fill(p, n, n);
		commit(tx);
		blocks[n] = p;
	}
	for (size_t n = 1; n <= MAX; n++) {
		cr_assert(pattern_is(blocks[n], n, n), "size %zu was overwritten", n);
		cr_assert_geq(pheap_usable_size(h, blocks[n]), n);
		cr_assert_eq(pheap_type_of(h, blocks[n]), n % 3);
	}
	heap_drop(h);
}

Test(alloc, natural_alignment_of_common_sizes)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);

	for (size_t n = 8; n <= 4096; n += 8) {
		for (int i = 0; i < 3; i++) {
			unsigned char *p = pheap_alloc(tx, n, 1);
			size_t align = n % 16 ? 8 : natural_alignment(n);
			cr_assert(p);
			cr_assert_eq((uintptr_t)p % align, 0, "size %zu at %p", n, (void *)p);
		}
		if (n % 256 == 0) {
			commit(tx);
			tx = begin(h, 0);
		}
	}
	commit(tx);
	heap_drop(h);
}

static void around(pheap *h, size_t middle)
{
	for (size_t n = middle - 9; n <= middle + 9; n++) {
		pheap_tx *tx = begin(h, 0);
		unsigned char *p = pheap_alloc(tx, n, 7), *q = pheap_zalloc(tx, n, 7);
		cr_assert(p && q, "size %zu: %d", n, pheap_error(tx));
		memset(p, 0xff, pheap_usable_size(h, p) ? pheap_usable_size(h, p) : n);
		cr_assert(bytes_are(q, n, 0));
		memset(q, 0xee, n);
		commit(tx);
		cr_assert(bytes_are(p, n, 0xff));
		cr_assert(bytes_are(q, n, 0xee));
		cr_assert_geq(pheap_usable_size(h, p), n);
		tx = begin(h, 0);
		OK(pheap_free(tx, p));
		OK(pheap_free(tx, q));
		commit(tx);
		cr_assert_eq(pheap_usable_size(h, p), 0);
	}
}

Test(alloc, around_class_and_chunk_boundaries)
{
	pheap *h = heap_make();

	for (size_t k = 1; k <= 20; k++)
		around(h, k * 4096);
	for (size_t shift = 5; shift <= 24; shift++) {
		around(h, (size_t)1 << shift);
		around(h, ((size_t)1 << shift) + ((size_t)1 << shift) / 2);
	}
	cr_assert_null(pheap_next(h, 7, NULL));
	heap_drop(h);
}

Test(alloc, aligned)
{
	pheap *h = heap_make();

	for (size_t align = 1; align <= 2 * MIB; align *= 2)
		for (size_t n = 1; n <= 300000; n = n * 5 + 3) {
			pheap_tx *tx = begin(h, 0);
			unsigned char *p = pheap_alloc_aligned(tx, align, n, 4);
			cr_assert(p, "align %zu size %zu: %d", align, n, pheap_error(tx));
			cr_assert_eq((uintptr_t)p % align, 0, "align %zu size %zu at %p", align, n,
				     (void *)p);
			memset(p, 1, n);
			commit(tx);
			cr_assert_geq(pheap_usable_size(h, p), n);
			tx = begin(h, 0);
			OK(pheap_free(tx, p));
			commit(tx);
		}
	cr_assert_null(pheap_next(h, 4, NULL));
	heap_drop(h);
}

Test(alloc, aligned_blocks_side_by_side)
{
	enum { COUNT = 100 };
	unsigned char *blocks[COUNT];
	pheap *h = heap_make();

	for (size_t align = 64; align <= 65536; align *= 4) {
		pheap_tx *tx = begin(h, 0);
		for (int i = 0; i < COUNT; i++) {
			blocks[i] = pheap_alloc_aligned(tx, align, 100, 4);
			cr_assert(blocks[i]);
			cr_assert_eq((uintptr_t)blocks[i] % align, 0);
			memset(blocks[i], i, 100);
		}
		commit(tx);
		for (int i = 0; i < COUNT; i++)
			cr_assert(bytes_are(blocks[i], 100, (unsigned char)i));
	}
	heap_drop(h);
}

Test(alloc, wrong_arguments)
{
	pheap *h = heap_make();
	static const size_t aligns[] = {0, 3, 24, 4 * MIB, SIZE_MAX};
	pheap_tx *tx;

	for (size_t i = 0; i < 5; i++) {
		tx = begin(h, 0);
		cr_assert_null(pheap_alloc_aligned(tx, aligns[i], 64, 1), "align %zu", aligns[i]);
		GIVES(-EINVAL, pheap_commit(tx));
	}
	tx = begin(h, 0);
	cr_assert_null(pheap_alloc(tx, 0, 1));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, 0);
	cr_assert_null(pheap_zalloc(tx, 0, 1));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, 0);
	cr_assert(pheap_alloc(tx, 1, 65535));
	cr_assert_null(pheap_alloc(tx, 1, 65536));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, 0);
	cr_assert_null(pheap_realloc(tx, NULL, 64));
	GIVES(-EINVAL, pheap_commit(tx));
	unsigned char *p = block_make(h, 64, 1);
	tx = begin(h, 0);
	cr_assert_null(pheap_realloc(tx, p, 0));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, 0);
	cr_assert_null(pheap_alloc(tx, 65 * MIB, 1));
	GIVES(-ENOSPC, pheap_commit(tx));
	cr_assert_null(pheap_reserve(h, 0, 1));
	cr_assert_null(pheap_reserve(h, 1, 65536));
	heap_drop(h);
}

/* Freed bytes are not zero: zalloc has to see to that for every way a block is found. */
Test(alloc, zalloc_after_use)
{
	pheap *h = heap_make();

	for (int round = 0; round < 3; round++) {
		for (size_t n = 1; n < 200000; n = n * 2 + 5) {
			pheap_tx *tx = begin(h, 0);
			unsigned char *p = pheap_zalloc(tx, n, 1);
			cr_assert(p && bytes_are(p, n, 0), "size %zu", n);
			memset(p, 0xaa, n);
			commit(tx);
		}
		pheap_tx *tx = begin(h, 0);
		for (const void *p = NULL; (p = pheap_next(h, 1, p));)
			OK(pheap_free(tx, p));
		commit(tx);
	}
	heap_drop(h);
}

Test(alloc, dup)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);
	const char text[] = "survives";
	char *p = pheap_dup(tx, text, sizeof text, 3), *q = pheap_dup(tx, p, sizeof text, 3);

	cr_assert_str_eq(p, text);
	cr_assert_str_eq(q, text);
	cr_assert_neq(p, q);
	commit(tx);
	cr_assert_str_eq(p, text);
	cr_assert_eq(pheap_type_of(h, q), 3);
	heap_drop(h);
}

Test(alloc, fresh_needs_no_modify_and_abort_takes_it_back)
{
	pheap *h = heap_make();
	uint64_t blocks = stats_of(h).block_count, bytes = stats_of(h).allocated_size;

	for (int i = 0; i < 50; i++) {
		pheap_tx *tx = begin(h, 0);
		for (size_t n = 1; n < 400000; n = n * 4 + 1) {
			unsigned char *p = pheap_alloc(tx, n, 1);
			cr_assert(p);
			memset(p, i, n);
			cr_assert_eq(pheap_modify(tx, p, n), p);
		}
		pheap_abort(tx);
	}
	cr_assert_eq(stats_of(h).block_count, blocks);
	cr_assert_eq(stats_of(h).allocated_size, bytes);
	cr_assert_null(pheap_next(h, 1, NULL));
	heap_drop(h);
}

Test(alloc, free_in_the_same_transaction)
{
	pheap *h = heap_make();
	uint64_t blocks = stats_of(h).block_count;
	pheap_tx *tx = begin(h, 0);

	for (size_t n = 1; n < 1000000; n = n * 2 + 1) {
		unsigned char *p = pheap_alloc(tx, n, 1);
		cr_assert(p);
		memset(p, 1, n);
		OK(pheap_free(tx, p));
	}
	commit(tx);
	cr_assert_eq(stats_of(h).block_count, blocks);
	heap_drop(h);
}

/* --- free --- */

Test(alloc, freed_space_is_not_reused_before_commit)
{
	pheap *h = heap_make();

	for (size_t n = 16; n < 200000; n = n * 7) {
		unsigned char *p = block_make(h, n, 1);
		pheap_tx *tx = begin(h, 0);
		OK(pheap_store(tx, p, "old content here", 16));
		commit(tx);
		tx = begin(h, 0);
		OK(pheap_free(tx, p));
		for (int i = 0; i < 50; i++) {
			unsigned char *q = pheap_alloc(tx, n, 1);
			cr_assert(q);
			cr_assert(q + n <= p || q >= p + n, "size %zu: the freed block was given out again",
				  n);
			memset(q, 0xff, n);
		}
		cr_assert_eq(memcmp(p, "old content here", 16), 0, "readable until commit");
		pheap_abort(tx);
		cr_assert_eq(memcmp(p, "old content here", 16), 0);
		cr_assert_eq(pheap_type_of(h, p), 1);
	}
	heap_drop(h);
}

Test(alloc, free_of_null)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);

	OK(pheap_free(tx, NULL));
	commit(tx);
	heap_drop(h);
}

static void refuses_free(pheap *h, const unsigned char *p, const char *what, size_t n)
{
	pheap_tx *tx = begin(h, 0);
	int rc = pheap_free(tx, p);

	cr_assert_eq(rc, -EINVAL, "%s, size %zu: %d", what, n, rc);
	cr_assert(pheap_error_detail(h)[0]);
	GIVES(-EINVAL, pheap_commit(tx));
}

Test(alloc, wrong_frees)
{
	pheap *h = heap_make();

	for (size_t n = 16; n < 3000000; n = n * 5 + 1) {
		unsigned char *p = block_make(h, n, 2), *freed = block_make(h, n, 2);
		uint64_t blocks;
		pheap_tx *tx = begin(h, 0);
		OK(pheap_free(tx, freed));
		GIVES(-EINVAL, pheap_free(tx, freed));
		GIVES(-EINVAL, pheap_commit(tx));
		tx = begin(h, 0);
		OK(pheap_free(tx, freed));
		commit(tx);
		blocks = stats_of(h).block_count;
		refuses_free(h, freed, "double free", n);
		refuses_free(h, p + 1, "middle, odd", n);
		refuses_free(h, p + 8, "middle", n);
		refuses_free(h, p + n / 2, "middle", n);
		if (n > 4096)
			refuses_free(h, p + 4096, "second chunk", n);
		cr_assert_eq(stats_of(h).block_count, blocks, "nothing lost");
		cr_assert_eq(pheap_type_of(h, p), 2);
	}
	heap_drop(h);
}

Test(alloc, free_of_fresh_twice)
{
	pheap *h = heap_make();

	for (size_t n = 16; n < 300000; n = n * 9) {
		pheap_tx *tx = begin(h, 0);
		unsigned char *p = pheap_alloc(tx, n, 1);
		cr_assert(p);
		OK(pheap_free(tx, p));
		GIVES(-EINVAL, pheap_free(tx, p));
		GIVES(-EINVAL, pheap_commit(tx));
	}
	heap_drop(h);
}

Test(alloc, free_of_the_libraries_blocks)
{
	pheap *h = heap_make();
	struct phd_super super = file_super(scratch("heap"));
	pheap_tx *tx = begin(h, 0);

	/* the first chunk belongs to the journal */
	if (super.journal_count) {
		int rc = pheap_free(tx, pheap_at(h, super.data_off));
		cr_assert_eq(rc, -EINVAL, "%d", rc);
	}
	pheap_abort(tx);
	heap_drop(h);
}

/* --- realloc --- */

Test(alloc, realloc_keeps_content)
{
	static const size_t sizes[] = {1,    15,   16,	  17,	 100,	128,   129,    1024,   4000,  4096,
				       4097, 8192, 16384, 16385, 20000, 65536, 100000, 262144, 262145};
	const size_t count = sizeof sizes / sizeof *sizes;
	pheap *h = heap_make();

	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < count; j++)
			for (int keep = 0; keep < 2; keep++) {
				size_t from = sizes[i], to = sizes[j], less = from < to ? from : to;
				unsigned char *p = block_make(h, from, 5);
				pheap_tx *tx = begin(h, 0);
				pattern_fill(pheap_modify(tx, p, from), from, 3);
				commit(tx);
				tx = begin(h, 0);
				unsigned char *q = pheap_realloc(tx, p, to);
				cr_assert(q, "%zu to %zu: %d", from, to, pheap_error(tx));
				cr_assert(pattern_is(q, less, 3), "%zu to %zu", from, to);
				pattern_fill(q, to, 4); /* all of it may be stored to */
				if (keep) {
					commit(tx);
					cr_assert(pattern_is(q, to, 4));
					cr_assert_eq(pheap_type_of(h, q), 5);
					cr_assert_geq(pheap_usable_size(h, q), to);
					p = q;
				} else {
					pheap_abort(tx);
					cr_assert(pattern_is(p, from, 3), "%zu to %zu, abort", from, to);
					cr_assert_geq(pheap_usable_size(h, p), from);
				}
				cr_assert_eq(pheap_next(h, 5, NULL), p);
				cr_assert_null(pheap_next(h, 5, p), "%zu to %zu: one block is left", from,
					       to);
				tx = begin(h, 0);
				OK(pheap_free(tx, p));
				commit(tx);
			}
	heap_drop(h);
}

Test(alloc, realloc_of_fresh)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);
	unsigned char *p = pheap_alloc(tx, 1, 5);

	p[0] = pattern(9, 0);
	for (size_t n = 2, old = 1; n < 2000000; old = n, n = n * 3 / 2 + 1) {
		p = pheap_realloc(tx, p, n);
		cr_assert(p, "%zu: %d", n, pheap_error(tx));
		cr_assert(pattern_is(p, old, 9), "%zu to %zu", old, n);
		pattern_fill(p, n, 9);
	}
	commit(tx);
	cr_assert_eq(pheap_next(h, 5, NULL), p);
	cr_assert_null(pheap_next(h, 5, p));
	heap_drop(h);
}

Test(alloc, realloc_in_place_where_possible)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 100000, 5);
	pheap_tx *tx = begin(h, 0);

	cr_assert_eq(pheap_realloc(tx, p, 100000 + 100), p, "there is room in its last chunk");
	commit(tx);
	tx = begin(h, 0);
	cr_assert_eq(pheap_realloc(tx, p, 50000), p, "shrinks in place");
	commit(tx);
	cr_assert_lt(pheap_usable_size(h, p), 60000, "and gives the rest back");
	heap_drop(h);
}

Test(alloc, realloc_of_wrong_pointers)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 100, 5);
	int local;
	pheap_tx *tx = begin(h, 0);

	cr_assert_null(pheap_realloc(tx, p + 8, 200));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, 0);
	cr_assert_null(pheap_realloc(tx, &local, 200));
	GIVES(PHEAP_EFOREIGN, pheap_commit(tx));
	tx = begin(h, 0);
	OK(pheap_free(tx, p));
	cr_assert_null(pheap_realloc(tx, p, 200));
	GIVES(-EINVAL, pheap_commit(tx));
	cr_assert_eq(pheap_type_of(h, p), 5);
	heap_drop(h);
}

/* --- the cursor --- */

Test(alloc, next_finds_each_once)
{
	enum { COUNT = 900 };
	static unsigned char *blocks[COUNT];
	pheap *h = heap_make();
	size_t seen[4] = {0};

	for (size_t i = 0; i < COUNT; i++) {
		size_t n = i % 50 == 0 ? 20000 + i : 1 + i * 3;
		blocks[i] = block_make(h, n < 4 ? 4 : n, (uint32_t)(10 + i % 3));
		pheap_tx *tx = begin(h, 0);
		OK(pheap_store(tx, blocks[i], &(uint16_t){(uint16_t)i}, 2));
		commit(tx);
	}
	static unsigned char marks[COUNT], any[COUNT];
	for (uint32_t type = 10; type < 13; type++)
		for (const void *p = NULL; (p = pheap_next(h, type, p));) {
			uint16_t i;
			memcpy(&i, p, 2);
			cr_assert(i < COUNT && blocks[i] == p);
			cr_assert_eq(pheap_type_of(h, p), type);
			marks[i]++;
			seen[type - 10]++;
		}
	for (const void *p = NULL; (p = pheap_next(h, UINT32_MAX, p));) {
		uint32_t type = pheap_type_of(h, p);
		uint16_t i;
		memcpy(&i, p, 2);
		if (type >= 10 && type < 13)
			any[i]++;
	}
	for (size_t i = 0; i < COUNT; i++) {
		cr_assert_eq(marks[i], 1, "block %zu seen %d times", i, marks[i]);
		cr_assert_eq(any[i], 1, "block %zu seen %d times by the cursor of all types", i, any[i]);
	}
	cr_assert_eq(seen[0], 300);
	cr_assert_null(pheap_next(h, 14, NULL));
	heap_drop(h);
}

Test(alloc, next_while_freeing)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);
	size_t count = 0;

	for (size_t i = 0; i < 2000; i++)
		cr_assert(pheap_alloc(tx, 1 + i % 300, 3));
	cr_assert(pheap_alloc(tx, 100000, 3));
	commit(tx);
	tx = begin(h, 0);
	for (const void *p = NULL, *next; (next = pheap_next(h, 3, p)); p = next, count++)
		if (count % 2)
			OK(pheap_free(tx, next));
	commit(tx);
	cr_assert_eq(count, 2001);
	count = 0;
	for (const void *p = NULL; (p = pheap_next(h, 3, p));)
		count++;
	cr_assert_eq(count, 1001);
	heap_drop(h);
}
