/* SPDX-License-Identifier: MIT
 *
 * nest.c: PHEAP_NEST: a transaction inside the thread's open one is a savepoint with begin and end.
 */
#include "support.h"

TestSuite(nest, .timeout = 60);

Test(nest, alone_is_a_plain_begin)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_tx *tx = begin(h, PHEAP_NEST);

	OK(pheap_store(tx, p, "a", 1));
	commit(tx);
	GIVES(PHEAP_EENDED, pheap_commit(tx));
	cr_assert_eq(p[0], 'a');
	heap_drop(h);
}

Test(nest, same_transaction)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_tx *tx = begin(h, 0), *in = begin(h, PHEAP_NEST);

	cr_assert_eq(tx, in);
	cr_assert_eq(pheap_current(h), tx);
	OK(pheap_store(in, p, "in", 2));
	commit(in);
	cr_assert_eq(pheap_error(tx), 0);
	OK(pheap_store(tx, p + 8, "out", 3));
	commit(tx);
	cr_assert_eq(memcmp(p, "in", 2), 0);
	cr_assert_eq(memcmp(p + 8, "out", 3), 0);
	cr_assert_null(pheap_current(h));
	heap_drop(h);
}

Test(nest, outer_abort_undoes_inner_commit)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_tx *tx = begin(h, 0), *in = begin(h, PHEAP_NEST);

	OK(pheap_store(in, p, "in", 2));
	cr_assert(pheap_root(in, "r", 8, 2));
	commit(in);
	pheap_abort(tx);
	cr_assert(bytes_are(p, 64, 0));
	cr_assert_null(pheap_find(h, "r"));
	heap_drop(h);
}

Test(nest, inner_abort_rolls_back_its_part)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_tx *tx = begin(h, 0), *in;

	OK(pheap_store(tx, p, "a", 1));
	in = begin(h, PHEAP_NEST);
	OK(pheap_store(in, p, "b", 1));
	OK(pheap_store(in, p + 1, "b", 1));
	OK(pheap_defer(in, p + 2, "b", 1));
	pheap_abort(in);
	cr_assert_eq(p[0], 'a');
	cr_assert_eq(p[1], 0);
	cr_assert_eq(pheap_current(h), tx, "the outer one goes on");
	OK(pheap_store(tx, p + 3, "c", 1));
	commit(tx);
	cr_assert_eq(memcmp(p, "a\0\0c", 4), 0);
	heap_drop(h);
}

Test(nest, inner_doom_ends_with_the_inner_commit)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_tx *tx = begin(h, 0), *in;

	OK(pheap_store(tx, p, "a", 1));
	in = begin(h, PHEAP_NEST);
	OK(pheap_store(in, p, "b", 1));
	cr_assert_null(pheap_alloc(in, 0, 1));
	GIVES(-EINVAL, pheap_store(in, p + 1, "b", 1));
	GIVES(-EINVAL, pheap_commit(in));
	cr_assert_eq(pheap_error(tx), 0, "rolled back to the savepoint: the doom is lifted");
	cr_assert_eq(p[0], 'a');
	OK(pheap_store(tx, p + 1, "c", 1));
	commit(tx);
	cr_assert_eq(memcmp(p, "ac", 2), 0);
	heap_drop(h);
}

Test(nest, inner_end_with_an_error)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_tx *tx = begin(h, 0), *in = begin(h, PHEAP_NEST);

	OK(pheap_store(in, p, "b", 1));
	GIVES(-EXDEV, pheap_end(in, -EXDEV));
	cr_assert_eq(p[0], 0);
	cr_assert_eq(pheap_error(tx), 0);
	OK(pheap_end(tx, 0));
	heap_drop(h);
}

Test(nest, inside_a_doomed_outer)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0), *in = NULL;

	cr_assert_null(pheap_alloc(tx, 0, 1));
	int rc = pheap_begin(h, PHEAP_NEST, &in);
	if (!rc) /* allowed, but nothing can come of it */
		GIVES(-EINVAL, pheap_commit(in));
	else
		cr_assert_eq(rc, -EINVAL);
	GIVES(-EINVAL, pheap_commit(tx));
	cr_assert_null(pheap_current(h));
	heap_drop(h);
}

Test(nest, a_hundred_levels)
{
	enum { LEVELS = 100 };
	pheap *h = heap_make();
	unsigned char *p = block_make(h, LEVELS, 1);
	pheap_tx *tx = begin(h, 0);

	for (int i = 0; i < LEVELS; i++) {
		pheap_tx *in = begin(h, PHEAP_NEST);
		unsigned char byte = (unsigned char)(i + 1);
		cr_assert_eq(in, tx);
		OK(pheap_store(in, p + i, &byte, 1));
	}
	/* every third level is aborted, and takes with it what deeper levels committed */
	for (int i = LEVELS; i--;) {
		if (i % 3)
			commit(tx);
		else
			pheap_abort(tx);
		if (i % 3 == 0)
			cr_assert(bytes_are(p + i, (size_t)(LEVELS - i), 0));
	}
	commit(tx);
	cr_assert(bytes_are(p, LEVELS, 0));
	cr_assert_null(pheap_current(h));
	heap_drop(h);
}

Test(nest, random_trees)
{
	uint64_t seed = random_seed(), state = seed;
	enum { SIZE = 256, DEPTH = 12 };
	static unsigned char model[DEPTH + 1][SIZE];
	pheap *h = heap_make();
	unsigned char *p = block_make(h, SIZE, 1);
	int depth = 0;

	for (int step = 0; step < 20000; step++) {
		uint64_t r = random_next(&state);
		pheap_tx *tx = pheap_current(h);
		if (!depth || (r % 5 == 0 && depth < DEPTH)) {
			tx = begin(h, PHEAP_NEST);
			memcpy(model[depth + 1], model[depth], SIZE);
			depth++;
		} else if (r % 5 == 1) {
			commit(tx);
			memcpy(model[depth - 1], model[depth], SIZE);
			depth--;
		} else if (r % 5 == 2) {
			pheap_abort(tx);
			depth--;
		} else {
			size_t off = (r >> 8) % SIZE, n = 1 + (r >> 20) % (SIZE - off);
			memset(pheap_modify(tx, p + off, n), (int)(r >> 40 & 0xff), n);
			memset(model[depth] + off, (int)(r >> 40 & 0xff), n);
		}
		cr_assert(!memcmp(p, model[depth], SIZE), "seed %#lx step %d depth %d", (unsigned long)seed,
			  step, depth);
	}
	while (depth-- > 0)
		commit(pheap_current(h));
	heap_drop(h);
}

Test(nest, modes_must_fit)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 8, 1);
	pheap_tx *tx = begin(h, PHEAP_READ), *in;

	/* a writing level inside a reading one cannot store */
	int rc = pheap_begin(h, PHEAP_NEST, &in);
	if (!rc) {
		GIVES(-EROFS, pheap_store(in, p, "x", 1));
		GIVES(-EROFS, pheap_commit(in));
	} else {
		cr_assert(rc == -EROFS || rc == -EINVAL, "%d", rc);
	}
	commit(tx);
	cr_assert_eq(p[0], 0);
	heap_drop(h);
}
