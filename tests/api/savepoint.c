/* SPDX-License-Identifier: MIT
 *
 * savepoint.c: savepoint and rollback: everything after it is undone, everything before stays, dooms after
 * it are lifted.
 */
#include "support.h"

TestSuite(savepoint, .timeout = 60);

Test(savepoint, partial_rollback)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_savepoint_id sp;
	pheap_tx *tx = begin(h, 0);

	OK(pheap_store(tx, p, "aaaa", 4));
	OK(pheap_savepoint(tx, &sp));
	OK(pheap_store(tx, p + 2, "bbbb", 4));
	cr_assert_eq(memcmp(p, "aabbbb", 6), 0);
	OK(pheap_rollback(tx, sp));
	cr_assert_eq(memcmp(p, "aaaa\0\0", 6), 0);
	OK(pheap_store(tx, p + 5, "c", 1));
	commit(tx);
	cr_assert_eq(memcmp(p, "aaaa\0c", 6), 0);
	heap_drop(h);
}

Test(savepoint, rollback_then_abort)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_savepoint_id sp;
	pheap_tx *tx = begin(h, 0);

	OK(pheap_store(tx, p, "aaaa", 4));
	OK(pheap_savepoint(tx, &sp));
	OK(pheap_store(tx, p, "bbbb", 4));
	OK(pheap_rollback(tx, sp));
	OK(pheap_store(tx, p + 1, "cc", 2));
	pheap_abort(tx);
	cr_assert(bytes_are(p, 64, 0));
	heap_drop(h);
}

Test(savepoint, several)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_savepoint_id sp[10];
	pheap_tx *tx = begin(h, 0);

	for (int i = 0; i < 10; i++) {
		OK(pheap_savepoint(tx, &sp[i]));
		memset(pheap_modify(tx, p, 64), i + 1, 64);
	}
	OK(pheap_rollback(tx, sp[7]));
	cr_assert(bytes_are(p, 64, 7));
	GIVES(-EINVAL, pheap_rollback(tx, sp[8]));
	pheap_abort(tx);
	tx = begin(h, 0);
	for (int i = 0; i < 10; i++) {
		OK(pheap_savepoint(tx, &sp[i]));
		memset(pheap_modify(tx, p, 64), i + 1, 64);
	}
	for (int i = 9; i >= 0; i -= 3) {
		OK(pheap_rollback(tx, sp[i]));
		cr_assert(bytes_are(p, 64, (unsigned char)i));
		OK(pheap_rollback(tx, sp[i])); /* it stays: again is a no-op */
		cr_assert(bytes_are(p, 64, (unsigned char)i));
	}
	commit(tx);
	cr_assert(bytes_are(p, 64, 0));
	heap_drop(h);
}

Test(savepoint, of_another_transaction)
{
	pheap *h = heap_make();
	pheap_savepoint_id old, sp;
	pheap_tx *tx = begin(h, 0);

	OK(pheap_savepoint(tx, &old));
	commit(tx);
	tx = begin(h, 0);
	OK(pheap_savepoint(tx, &sp));
	int rc = pheap_rollback(tx, old);
	cr_assert(rc == -EINVAL || old == sp, "%d", rc);
	pheap_abort(tx);
	tx = begin(h, 0);
	GIVES(-EINVAL, pheap_rollback(tx, 12345));
	pheap_abort(tx);
	heap_drop(h);
}

Test(savepoint, lifts_a_later_doom)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_savepoint_id sp;
	pheap_tx *tx = begin(h, 0);

	OK(pheap_store(tx, p, "a", 1));
	OK(pheap_savepoint(tx, &sp));
	OK(pheap_store(tx, p, "b", 1));
	cr_assert_null(pheap_alloc(tx, 0, 1));
	GIVES(-EINVAL, pheap_error(tx));
	OK(pheap_rollback(tx, sp));
	cr_assert_eq(pheap_error(tx), 0);
	cr_assert_eq(p[0], 'a');
	cr_assert(pheap_alloc(tx, 10, 1));
	commit(tx);
	cr_assert_eq(p[0], 'a');
	heap_drop(h);
}

Test(savepoint, after_enospc)
{
	struct pheap_options opt = test_options();

	opt.durability = PHEAP_PROCESS; /* with a journal the transaction would be too long first */
	opt.max_size = MIB;
	pheap *h = heap_make_with(&opt);
	unsigned char *p = block_make(h, 64, 1);
	pheap_savepoint_id sp;
	pheap_tx *tx = begin(h, 0);
	OK(pheap_store(tx, p, "a", 1));
	OK(pheap_savepoint(tx, &sp));
	while (pheap_alloc(tx, 3000, 1))
		continue;
	GIVES(-ENOSPC, pheap_error(tx));
	OK(pheap_rollback(tx, sp));
	for (int i = 0; i < 20; i++)
		cr_assert(pheap_alloc(tx, 3000, 1), "%d", i);
	commit(tx);
	cr_assert_eq(p[0], 'a');
	heap_drop(h);
}

/* What was covered or fresh before a savepoint needs a record of its own after it. */
Test(savepoint, covered_before)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 1024, 1);
	pheap_savepoint_id sp;
	pheap_tx *tx = begin(h, 0);

	memset(pheap_modify(tx, p, 1024), 1, 1024);
	OK(pheap_savepoint(tx, &sp));
	memset(pheap_modify(tx, p, 1024), 2, 1024);
	memset(pheap_modify(tx, p + 3, 100), 3, 100);
	OK(pheap_rollback(tx, sp));
	cr_assert(bytes_are(p, 1024, 1));
	/* and after the rollback again */
	memset(pheap_modify(tx, p, 1024), 4, 1024);
	OK(pheap_rollback(tx, sp));
	cr_assert(bytes_are(p, 1024, 1));
	pheap_abort(tx);
	cr_assert(bytes_are(p, 1024, 0));
	heap_drop(h);
}

Test(savepoint, fresh_before)
{
	pheap *h = heap_make();

	for (size_t n = 16; n < 300000; n = n * 3 + 1) {
		pheap_savepoint_id sp;
		pheap_tx *tx = begin(h, 0);
		unsigned char *p = pheap_alloc(tx, n, 1);
		cr_assert(p);
		memset(p, 1, n);
		OK(pheap_savepoint(tx, &sp));
		memset(pheap_modify(tx, p, n), 2, n);
		OK(pheap_rollback(tx, sp));
		cr_assert(bytes_are(p, n, 1), "size %zu", n);
		commit(tx);
		cr_assert(bytes_are(p, n, 1), "size %zu", n);
	}
	heap_drop(h);
}

Test(savepoint, deferred)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_savepoint_id sp;
	pheap_tx *tx = begin(h, 0);

	OK(pheap_defer(tx, p, "aaaaaaaa", 8));
	OK(pheap_defer_u64(tx, (uint64_t *)(void *)(p + 8), 0x6161616161616161u));
	OK(pheap_savepoint(tx, &sp));
	OK(pheap_defer(tx, p, "bbbb", 4));
	OK(pheap_store(tx, p + 5, "now", 3));
	OK(pheap_store(tx, p + 8, "nownow", 6));
	OK(pheap_defer_u64(tx, (uint64_t *)(void *)(p + 16), 1));
	OK(pheap_rollback(tx, sp));
	cr_assert(bytes_are(p, 64, 0));
	OK(pheap_defer(tx, p + 1, "c", 1));
	commit(tx);
	cr_assert_eq(memcmp(p, "acaaaaaaaaaaaaaa\0\0\0\0\0\0\0\0", 24), 0,
		     "what later calls dropped is back: %.16s", (char *)p);
	heap_drop(h);
}

Test(savepoint, allocations)
{
	struct pheap_options opt = test_options();

	if (opt.durability != PHEAP_PROCESS)
		opt.journal_size = 16 * MIB; /* as much as is allocated here */
	pheap *h = heap_make_with(&opt);
	unsigned char *keep = block_make(h, 100, 9);
	uint64_t blocks = stats_of(h).block_count;
	pheap_savepoint_id sp;
	pheap_tx *tx = begin(h, 0);

	unsigned char *before = pheap_zalloc(tx, 100, 9);
	OK(pheap_savepoint(tx, &sp));
	for (size_t i = 1; i < 200; i++)
		cr_assert(pheap_alloc(tx, i * 97, 9));
	OK(pheap_free(tx, keep));
	OK(pheap_free(tx, before));
	cr_assert(pheap_root(tx, "later", 100, 9));
	OK(pheap_rollback(tx, sp));
	cr_assert_null(pheap_find(h, "later"));
	commit(tx);
	cr_assert_eq(stats_of(h).block_count, blocks + 1);
	cr_assert_eq(pheap_type_of(h, keep), 9);
	cr_assert_eq(pheap_type_of(h, before), 9);
	heap_drop(h);
}

/* Freed since a savepoint, and rolled back: may be freed again, and only once. */
Test(savepoint, free_again_after_rollback)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 100, 9);
	pheap_savepoint_id sp;
	pheap_tx *tx = begin(h, 0);

	OK(pheap_savepoint(tx, &sp));
	OK(pheap_free(tx, p));
	OK(pheap_rollback(tx, sp));
	OK(pheap_free(tx, p));
	GIVES(-EINVAL, pheap_free(tx, p));
	OK(pheap_rollback(tx, sp));
	OK(pheap_free(tx, p));
	commit(tx);
	cr_assert_eq(pheap_usable_size(h, p), 0);
	heap_drop(h);
}

/* Locks stay after a rollback. */
struct other_locker {
	pheap *h;
	int rc;
};

static int try_lock(void *arg)
{
	struct other_locker *other = arg;
	pheap_tx *tx;

	CHECK(pheap_begin(other->h, PHEAP_CONCURRENT, &tx) == 0);
	other->rc = pheap_lock(tx, &(uint64_t){5}, 1);
	pheap_abort(tx);
	return 0;
}

Test(savepoint, locks_stay)
{
	struct pheap_options opt = test_options();

	opt.lock_timeout_ms = 30;
	pheap *h = heap_make_with(&opt);
	struct other_locker other = {h, 0};
	pheap_savepoint_id sp;
	pheap_tx *tx = begin(h, PHEAP_CONCURRENT);
	OK(pheap_savepoint(tx, &sp));
	OK(pheap_lock(tx, &(uint64_t){5}, 1));
	OK(pheap_rollback(tx, sp));
	cr_assert_eq(thread_run(try_lock, &other), 0);
	GIVES(-ETIMEDOUT, other.rc);
	commit(tx);
	cr_assert_eq(thread_run(try_lock, &other), 0);
	GIVES(0, other.rc);
	heap_drop(h);
}

Test(savepoint, thousands)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 8, 1);
	pheap_savepoint_id first, sp;
	pheap_tx *tx = begin(h, 0);

	OK(pheap_savepoint(tx, &first));
	for (uint64_t i = 0; i < 5000; i++) {
		OK(pheap_store(tx, p, &i, 8));
		OK(pheap_savepoint(tx, &sp));
	}
	OK(pheap_rollback(tx, first));
	cr_assert(bytes_are(p, 8, 0));
	commit(tx);
	heap_drop(h);
}

/* Space that a realloc took in place goes back with the rollback, not only at the end. */
Test(savepoint, rollback_of_a_grown_block)
{
	struct pheap_options opt = test_options();

	opt.max_size = 8 * MIB;
	pheap *h = heap_make_with(&opt);
	unsigned char *p = block_make(h, 100000, 1);
	pheap_tx *tx = begin(h, 0);
	pheap_savepoint_id sp;

	OK(pheap_savepoint(tx, &sp));
	for (int round = 0; round < 10; round++) {
		cr_assert(pheap_realloc(tx, p, 5 * MIB), "%s", pheap_error_detail(h));
		OK(pheap_rollback(tx, sp));
		cr_assert_lt(pheap_usable_size(h, p), 110000);
	}
	cr_assert(pheap_alloc(tx, 5 * MIB, 1), "%s", pheap_error_detail(h));
	commit(tx);
	heap_drop(h);
}
