/* SPDX-License-Identifier: MIT
 *
 * tx.c: the life of a transaction: begin, commit, abort, end, run, what dooms it, what may be called when.
 * Nesting is in nest.c, exclusion between threads in isolation.c.
 */
#include "support.h"

#include <signal.h>
#include <unistd.h>

TestSuite(tx, .timeout = 60);

Test(tx, commit_keeps)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 256, 1);
	pheap_tx *tx = begin(h, 0);
	unsigned char *q = pheap_modify(tx, p, 256);

	cr_assert_eq(q, p);
	pattern_fill(q, 256, 1);
	commit(tx);
	cr_assert(pattern_is(p, 256, 1));
	heap_drop(h);
}

Test(tx, abort_restores)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 256, 1);
	pheap_tx *tx = begin(h, 0);

	memset(pheap_modify(tx, p, 256), 1, 256);
	cr_assert(bytes_are(p, 256, 1));
	pheap_abort(tx);
	cr_assert(bytes_are(p, 256, 0));
	pheap_abort(NULL);
	heap_drop(h);
}

Test(tx, empty_transactions)
{
	static const uint32_t flags[] = {
		0, PHEAP_CONCURRENT, PHEAP_READ, PHEAP_READ | PHEAP_CONCURRENT, PHEAP_NEST, PHEAP_NOWAIT};
	pheap *h = heap_make();

	for (size_t i = 0; i < 6; i++) {
		commit(begin(h, flags[i]));
		pheap_abort(begin(h, flags[i]));
	}
	heap_drop(h);
}

Test(tx, end)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 8, 1);
	pheap_tx *tx = begin(h, 0);

	OK(pheap_store(tx, p, "a", 1));
	OK(pheap_end(tx, 0));
	cr_assert_eq(p[0], 'a');
	tx = begin(h, 0);
	OK(pheap_store(tx, p, "b", 1));
	GIVES(-EINTR, pheap_end(tx, -EINTR));
	cr_assert_eq(p[0], 'a');
	tx = begin(h, 0);
	cr_assert_null(pheap_alloc(tx, 0, 1));
	GIVES(-EINVAL, pheap_end(tx, 0));
	tx = begin(h, 0);
	cr_assert_null(pheap_alloc(tx, 0, 1));
	GIVES(-EIO, pheap_end(tx, -EIO));
	heap_drop(h);
}

/* --- run --- */

struct run_call {
	unsigned char *p;
	int calls, fail_first, rc;
};

static int run_body(pheap_tx *tx, void *arg)
{
	struct run_call *call = arg;
	unsigned char byte = (unsigned char)++call->calls;

	if (pheap_store(tx, call->p, &byte, 1))
		return pheap_error(tx);
	if (call->calls <= call->fail_first)
		return -EDEADLK;
	return call->rc;
}

Test(tx, run)
{
	pheap *h = heap_make();
	struct run_call call = {block_make(h, 8, 1), 0, 0, 0};

	OK(pheap_run(h, 0, run_body, &call));
	cr_assert_eq(call.p[0], 1);
	call.rc = -EPIPE;
	GIVES(-EPIPE, pheap_run(h, 0, run_body, &call));
	cr_assert_eq(call.calls, 2);
	cr_assert_eq(call.p[0], 1, "rolled back");
	call = (struct run_call){call.p, 0, 3, 0};
	OK(pheap_run(h, PHEAP_CONCURRENT, run_body, &call));
	cr_assert_eq(call.calls, 4, "again on EDEADLK");
	cr_assert_eq(call.p[0], 4);
	GIVES(-EINVAL, pheap_run(h, PHEAP_CREATE, run_body, &call));
	pheap_tx *tx = begin(h, 0);
	GIVES(PHEAP_EACTIVE, pheap_run(h, 0, run_body, &call));
	commit(tx);
	cr_assert_null(pheap_current(h));
	heap_drop(h);
}

static int run_dooms(pheap_tx *tx, void *arg)
{
	(void)arg;
	if (pheap_alloc(tx, 0, 1))
		return 1;
	return 0;
}

Test(tx, run_reports_a_doom_that_fn_ignored)
{
	pheap *h = heap_make();

	GIVES(-EINVAL, pheap_run(h, 0, run_dooms, NULL));
	heap_drop(h);
}

/* --- flags --- */

Test(tx, flags_of_other_calls)
{
	static const uint32_t bad[] = {PHEAP_CREATE, PHEAP_EXCL,      PHEAP_RDONLY, PHEAP_FIXED,
				       PHEAP_GUARD,  PHEAP_EPHEMERAL, 0x80000000u,  0x100000u};
	pheap *h = heap_make();
	pheap_tx *tx;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		GIVES(-EINVAL, pheap_begin(h, bad[i], &tx));
	GIVES(-EINVAL, pheap_begin(h, 0, NULL));
	heap_drop(h);
}

Test(tx, durability_above_the_heaps)
{
	pheap *h = heap_make();
	pheap_tx *tx;
	int rc = pheap_begin(h, PHEAP_SYNC, &tx);

	cr_assert(rc == -EINVAL || rc == -EOPNOTSUPP, "%d", rc);
	rc = pheap_begin(h, PHEAP_EPOCH, &tx);
	cr_assert(rc == -EINVAL || rc == -EOPNOTSUPP, "%d", rc);
	heap_drop(h);
}

Test(tx, one_per_thread_and_heap)
{
	struct pheap_options opt = test_options();
	pheap *a = heap_make(), *b;
	pheap_tx *tx = begin(a, 0), *other;

	GIVES(PHEAP_EACTIVE, pheap_begin(a, 0, &other));
	GIVES(PHEAP_EACTIVE, pheap_begin(a, PHEAP_CONCURRENT, &other));
	GIVES(PHEAP_EACTIVE, pheap_begin(a, PHEAP_READ, &other));
	GIVES(0, pheap_error(tx));
	/* another heap is another matter */
	OK(pheap_open(scratch("second"), PHEAP_CREATE, &opt, &b));
	other = begin(b, 0);
	cr_assert_eq(pheap_current(a), tx);
	cr_assert_eq(pheap_current(b), other);
	cr_assert_eq(pheap_heap(tx), a);
	cr_assert_eq(pheap_heap(other), b);
	commit(tx);
	cr_assert_null(pheap_current(a));
	cr_assert_eq(pheap_current(b), other);
	commit(other);
	heap_drop(a);
	heap_drop(b);
}

static int current_is_null(void *arg)
{
	CHECK(pheap_current(arg) == NULL);
	return 0;
}

Test(tx, current_is_per_thread)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);

	cr_assert_eq(thread_run(current_is_null, h), 0);
	cr_assert_eq(pheap_current(h), tx);
	commit(tx);
	heap_drop(h);
}

/* --- doom --- */

Test(tx, first_failure_dooms)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_tx *tx = begin(h, 0);
	pheap_savepoint_id sp;

	OK(pheap_store(tx, p, "x", 1));
	cr_assert_eq(pheap_error(tx), 0);
	cr_assert_null(pheap_alloc(tx, 16, 65536), "a type above 65535");
	cr_assert_eq(pheap_error(tx), -EINVAL);
	cr_assert(pheap_error_detail(h)[0]);

	/* later calls do nothing and say the first error */
	cr_assert_null(pheap_alloc(tx, 16, 1));
	cr_assert_null(pheap_zalloc(tx, 16, 1));
	cr_assert_null(pheap_alloc_aligned(tx, 64, 16, 1));
	cr_assert_null(pheap_dup(tx, "a", 2, 1));
	cr_assert_null(pheap_realloc(tx, p, 200));
	cr_assert_null(pheap_modify(tx, p, 8));
	cr_assert_null(pheap_root(tx, "r", 8, 1));
	GIVES(-EINVAL, pheap_store(tx, p, "y", 1));
	GIVES(-EINVAL, pheap_defer(tx, p, "y", 1));
	GIVES(-EINVAL, pheap_defer_u64(tx, (const uint64_t *)(const void *)p, 1));
	GIVES(-EINVAL, pheap_free(tx, p));
	GIVES(-EINVAL, pheap_root_set(tx, "r", p));
	GIVES(-EINVAL, pheap_lock(tx, &(uint64_t){1}, 1));
	GIVES(-EINVAL, pheap_lock_shared(tx, &(uint64_t){1}, 1));
	GIVES(-EINVAL, pheap_savepoint(tx, &sp));
	GIVES(-EINVAL, pheap_commit(tx));
	cr_assert_eq(p[0], 0, "nothing happened");
	cr_assert_null(pheap_find(h, "r"));
	cr_assert_eq(pheap_type_of(h, p), 1);
	heap_drop(h);
}

Test(tx, doomed_abort)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_tx *tx = begin(h, 0);

	memset(pheap_modify(tx, p, 64), 9, 64);
	cr_assert_null(pheap_alloc(tx, 0, 1));
	pheap_abort(tx);
	cr_assert(bytes_are(p, 64, 0));
	tx = begin(h, 0);
	cr_assert_eq(pheap_error(tx), 0, "the next one starts clean");
	OK(pheap_store(tx, p, "z", 1));
	commit(tx);
	heap_drop(h);
}

Test(tx, read_transaction_cannot_change)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	static const uint32_t flags[] = {PHEAP_READ, PHEAP_READ | PHEAP_CONCURRENT};
	pheap_tx *write = begin(h, 0);
	const void *there = pheap_root(write, "there", 8, 1);

	cr_assert(there);
	commit(write);
	for (size_t i = 0; i < 2; i++) {
		pheap_tx *tx = begin(h, flags[i]);
		cr_assert_null(pheap_modify(tx, p, 8));
		GIVES(-EROFS, pheap_error(tx));
		GIVES(-EROFS, pheap_commit(tx));
		tx = begin(h, flags[i]);
		GIVES(-EROFS, pheap_store(tx, p, "a", 1));
		pheap_abort(tx);
		tx = begin(h, flags[i]);
		GIVES(-EROFS, pheap_defer(tx, p, "a", 1));
		pheap_abort(tx);
		tx = begin(h, flags[i]);
		GIVES(-EROFS, pheap_defer_u64(tx, (const uint64_t *)(const void *)p, 1));
		pheap_abort(tx);
		tx = begin(h, flags[i]);
		cr_assert_null(pheap_alloc(tx, 8, 1));
		GIVES(-EROFS, pheap_commit(tx));
		tx = begin(h, flags[i]);
		GIVES(-EROFS, pheap_free(tx, p));
		GIVES(-EROFS, pheap_commit(tx));
		tx = begin(h, flags[i]);
		GIVES(-EROFS, pheap_root_set(tx, "n", p));
		GIVES(-EROFS, pheap_commit(tx));
		tx = begin(h, flags[i]);
		cr_assert_eq(pheap_root(tx, "there", 8, 1), there);
		cr_assert_null(pheap_root(tx, "n", 8, 1), "cannot create");
		GIVES(-ENOENT, pheap_commit(tx));
	}
	cr_assert(bytes_are(p, 64, 0));
	heap_drop(h);
}

/* --- ended, other threads, stale handles --- */

Test(tx, use_after_the_end)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_savepoint_id sp;

	for (int round = 0; round < 2; round++) {
		pheap_tx *tx = begin(h, 0);
		if (round)
			pheap_abort(tx);
		else
			commit(tx);
		GIVES(PHEAP_EENDED, pheap_commit(tx));
		GIVES(PHEAP_EENDED, pheap_end(tx, 0));
		GIVES(PHEAP_EENDED, pheap_error(tx));
		GIVES(PHEAP_EENDED, pheap_store(tx, p, "x", 1));
		GIVES(PHEAP_EENDED, pheap_defer(tx, p, "x", 1));
		GIVES(PHEAP_EENDED, pheap_free(tx, p));
		GIVES(PHEAP_EENDED, pheap_savepoint(tx, &sp));
		GIVES(PHEAP_EENDED, pheap_lock(tx, &(uint64_t){1}, 1));
		cr_assert_null(pheap_modify(tx, p, 8));
		cr_assert_null(pheap_alloc(tx, 8, 1));
		cr_assert_null(pheap_root(tx, "r", 8, 1));
		pheap_abort(tx); /* harmless */
	}
	cr_assert(bytes_are(p, 64, 0));
	commit(begin(h, 0));
	heap_drop(h);
}

struct wrong_thread {
	pheap_tx *tx;
	unsigned char *p;
};

static int use_from_another_thread(void *arg)
{
	struct wrong_thread *call = arg;
	pheap_savepoint_id sp;

	CHECK(pheap_store(call->tx, call->p, "w", 1) == -EPERM);
	CHECK(pheap_modify(call->tx, call->p, 8) == NULL);
	CHECK(pheap_alloc(call->tx, 8, 1) == NULL);
	CHECK(pheap_free(call->tx, call->p) == -EPERM);
	CHECK(pheap_savepoint(call->tx, &sp) == -EPERM);
	CHECK(pheap_commit(call->tx) == -EPERM);
	CHECK(pheap_end(call->tx, 0) == -EPERM);
	pheap_abort(call->tx);
	return 0;
}

Test(tx, commit_from_another_thread)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	struct wrong_thread call = {begin(h, 0), p};

	OK(pheap_store(call.tx, p, "a", 1));
	cr_assert_eq(thread_run(use_from_another_thread, &call), 0);
	cr_assert_eq(pheap_error(call.tx), 0, "not doomed by a stranger");
	cr_assert_eq(p[0], 'a');
	commit(call.tx);
	cr_assert_eq(p[0], 'a');
	heap_drop(h);
}

static int begin_and_leave(void *arg)
{
	struct wrong_thread *call = arg;
	pheap *h = pheap_of(call->p);
	pheap_tx *tx;

	CHECK(pheap_begin(h, 0, &tx) == 0);
	CHECK(pheap_store(tx, call->p, "gone", 4) == 0);
	CHECK(pheap_alloc(tx, 100, 3) != NULL);
	return 0;
}

Test(tx, thread_exit_rolls_back)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	struct wrong_thread call = {NULL, p};
	uint64_t blocks = stats_of(h).block_count;

	for (int i = 0; i < 20; i++) {
		cr_assert_eq(thread_run(begin_and_leave, &call), 0);
		pheap_tx *tx = begin(h, 0); /* the exclusive lock is free again */
		cr_assert(bytes_are(p, 64, 0));
		commit(tx);
	}
	cr_assert_eq(stats_of(h).block_count, blocks);
	heap_drop(h);
}

static void begin_again(void *arg, int committed)
{
	struct wrong_thread *call = arg;
	pheap *h = pheap_of(call->p);
	pheap_tx *tx;

	if (committed || pheap_begin(h, 0, &tx) || pheap_store(tx, call->p, "late", 4) ||
	    pheap_on_end(tx, begin_again, call))
		abort();
}

static int leave_with_callback(void *arg)
{
	struct wrong_thread *call = arg;
	pheap_tx *tx;

	CHECK(pheap_begin(pheap_of(call->p), 0, &tx) == 0);
	CHECK(pheap_on_end(tx, begin_again, call) == 0);
	return 0;
}

/* Callbacks that leave transactions open, again and again: all are rolled back, and the thread ends. */
Test(tx, thread_exit_with_callbacks_that_begin)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	struct wrong_thread call = {NULL, p};

	cr_assert_eq(thread_run(leave_with_callback, &call), 0);
	pheap_tx *tx = begin(h, 0);
	cr_assert(bytes_are(p, 64, 0));
	commit(tx);
	heap_drop(h);
}

static int after_close_tx(void *arg)
{
	struct pheap_options opt = test_options();
	pheap_tx *tx;
	pheap *h;

	(void)arg;
	CHECK(pheap_open(scratch("child"), PHEAP_CREATE, &opt, &h) == 0);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	CHECK(pheap_commit(tx) == 0);
	CHECK(pheap_close(h) == 0);
	return pheap_commit(tx) ? 1 : 0;
}

static int null_handle(void *arg)
{
	(void)arg;
	return pheap_next(NULL, 1, NULL) ? 1 : 0;
}

static int cancel_of_nothing(void *arg)
{
	struct pheap_options opt = test_options();
	pheap *h;

	(void)arg;
	CHECK(pheap_open(scratch("child"), PHEAP_CREATE, &opt, &h) == 0);
	pheap_cancel(h, (void *)(uintptr_t)pheap_at(h, 65536));
	return 0;
}

static int after_close_begin(void *arg)
{
	struct pheap_options opt = test_options();
	pheap_tx *tx;
	pheap *h;

	(void)arg;
	CHECK(pheap_open(scratch("child"), PHEAP_CREATE, &opt, &h) == 0);
	CHECK(pheap_close(h) == 0);
	return pheap_begin(h, 0, &tx) ? 1 : 0;
}

static int after_close_close(void *arg)
{
	struct pheap_options opt = test_options();
	pheap *h;

	(void)arg;
	CHECK(pheap_open(scratch("child"), PHEAP_CREATE, &opt, &h) == 0);
	CHECK(pheap_close(h) == 0);
	return pheap_close(h) ? 1 : 0;
}

static int after_close_find(void *arg)
{
	struct pheap_options opt = test_options();
	pheap *h;

	(void)arg;
	CHECK(pheap_open(scratch("child"), PHEAP_CREATE, &opt, &h) == 0);
	CHECK(pheap_close(h) == 0);
	return pheap_find(h, "r") ? 1 : 0;
}

static int after_close_stats(void *arg)
{
	struct pheap_options opt = test_options();
	struct pheap_stats stats;
	pheap *h;

	(void)arg;
	CHECK(pheap_open(scratch("child"), PHEAP_CREATE, &opt, &h) == 0);
	CHECK(pheap_close(h) == 0);
	return pheap_stats(h, &stats, sizeof stats) ? 1 : 0;
}

Test(tx, use_after_close_aborts)
{
	static int (*const calls[])(void *) = {after_close_begin, after_close_close, after_close_find,
					       after_close_stats, after_close_tx,    null_handle,
					       cancel_of_nothing};
	char text[1024];

	(void)scratch("child");
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		cr_assert(child_aborts(calls[i], NULL, text, sizeof text), "call %zu: \"%s\"", i, text);
}

Test(tx, use_after_close_raises_sigabrt, .signal = SIGABRT)
{
	pheap *h = heap_make();
	pheap_tx *tx;

	heap_drop(h);
	(void)!pheap_begin(h, 0, &tx);
}

/* --- callbacks --- */

struct ended {
	int order[8], committed[8], count;
	pheap *h;
	bool free_to_begin;
};

struct ended_one {
	struct ended *all;
	int id;
};

static void ended_note(void *arg, int committed)
{
	struct ended_one *one = arg;
	struct ended *all = one->all;
	pheap_tx *tx;

	if (all->count < 8) {
		all->order[all->count] = one->id;
		all->committed[all->count++] = committed;
	}
	/* called after unlock: a new transaction can begin */
	all->free_to_begin = !pheap_begin(all->h, PHEAP_NOWAIT, &tx) && !pheap_commit(tx);
}

Test(tx, on_end_order_and_flag)
{
	pheap *h = heap_make();
	struct ended all = {.h = h};
	struct ended_one one[3] = {{&all, 0}, {&all, 1}, {&all, 2}};

	for (int committed = 0; committed < 2; committed++) {
		pheap_tx *tx = begin(h, 0);
		for (int i = 0; i < 3; i++)
			OK(pheap_on_end(tx, ended_note, &one[i]));
		cr_assert_eq(all.count, 0, "not before the end");
		if (committed)
			commit(tx);
		else
			pheap_abort(tx);
		cr_assert_eq(all.count, 3);
		for (int i = 0; i < 3; i++) {
			cr_assert_eq(all.order[i], i, "in call order");
			cr_assert_eq(all.committed[i] != 0, committed);
		}
		cr_assert(all.free_to_begin);
		all.count = 0;
	}
	commit(begin(h, 0));
	cr_assert_eq(all.count, 0, "once only");

	pheap_tx *tx = begin(h, 0);
	OK(pheap_on_end(tx, ended_note, &one[0]));
	cr_assert_null(pheap_alloc(tx, 0, 1));
	GIVES(-EINVAL, pheap_commit(tx));
	cr_assert_eq(all.count, 1);
	cr_assert_eq(all.committed[0], 0, "a failed commit is none");
	heap_drop(h);
}

Test(tx, on_end_rolled_back)
{
	pheap *h = heap_make();
	struct ended all = {.h = h};
	struct ended_one one[2] = {{&all, 0}, {&all, 1}};
	pheap_savepoint_id sp;
	pheap_tx *tx = begin(h, 0);

	OK(pheap_on_end(tx, ended_note, &one[0]));
	OK(pheap_savepoint(tx, &sp));
	OK(pheap_on_end(tx, ended_note, &one[1]));
	OK(pheap_rollback(tx, sp));
	commit(tx);
	cr_assert_eq(all.count, 2, "each called once");
	for (int i = 0; i < 2; i++)
		cr_assert_eq(all.committed[i] != 0, all.order[i] == 0, "0 for what was rolled back");
	heap_drop(h);
}

/* --- addresses --- */

Test(tx, foreign_addresses)
{
	struct pheap_options opt = test_options();
	pheap *a = heap_make(), *b;

	OK(pheap_open(scratch("second"), PHEAP_CREATE, &opt, &b));
	unsigned char *pa = block_make(a, 64, 1), *pb = block_make(b, 64, 1);
	uint64_t here = 0;
	const struct pheap_info info = info_of(a);
	const char *base = info.base;
	const void *bad[] = {pb, &here, base - 4096, base + info.max_size, base + info.max_size - 4};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		pheap_tx *tx = begin(a, 0);
		cr_assert_null(pheap_modify(tx, bad[i], 8));
		cr_assert_eq(pheap_error(tx), PHEAP_EFOREIGN, "address %zu: %d", i, pheap_error(tx));
		GIVES(PHEAP_EFOREIGN, pheap_commit(tx));
		tx = begin(a, 0);
		GIVES(PHEAP_EFOREIGN, pheap_store(tx, bad[i], "12345678", 8));
		GIVES(PHEAP_EFOREIGN, pheap_commit(tx));
		tx = begin(a, 0);
		GIVES(PHEAP_EFOREIGN, pheap_defer(tx, bad[i], "12345678", 8));
		GIVES(PHEAP_EFOREIGN, pheap_commit(tx));
		if (i == 4)
			continue;
		tx = begin(a, 0);
		int rc = pheap_free(tx, bad[i]);
		cr_assert(rc == PHEAP_EFOREIGN, "free of address %zu: %d", i, rc);
		GIVES(PHEAP_EFOREIGN, pheap_commit(tx));
	}
	cr_assert_eq(here, 0);
	cr_assert(bytes_are(pa, 64, 0));
	heap_drop(a);
	heap_drop(b);
}

Test(tx, the_librarys_own_bytes_cannot_be_declared)
{
	pheap *h = heap_make();
	struct phd_super super = file_super(scratch("heap"));
	const uint64_t offs[] = {8,
				 super.coord_off,
				 super.lane_off,
				 super.head_off,
				 super.desc_off,
				 super.bits_off,
				 super.words_off,
				 super.data_off - 8,
				 super.data_off - 4};

	for (size_t i = 0; i < sizeof offs / sizeof *offs; i++) {
		pheap_tx *tx = begin(h, 0);
		GIVES(PHEAP_EFOREIGN, pheap_store(tx, pheap_at(h, offs[i]), "12345678", 8));
		pheap_abort(tx);
	}
	heap_drop(h);
}

Test(tx, wild_lengths)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 7, SIZE_MAX / 2, (size_t)1 << 47, 65 * MIB};

	for (size_t i = 0; i < 5; i++) {
		pheap_tx *tx = begin(h, 0);
		cr_assert_null(pheap_modify(tx, p, sizes[i]));
		cr_assert_neq(pheap_error(tx), 0);
		pheap_abort(tx);
		tx = begin(h, 0);
		cr_assert_null(pheap_alloc(tx, sizes[i], 1));
		cr_assert_neq(pheap_error(tx), 0);
		pheap_abort(tx);
		tx = begin(h, 0);
		cr_assert_null(pheap_realloc(tx, p, sizes[i]));
		pheap_abort(tx);
		cr_assert_null(pheap_reserve(h, sizes[i], 1));
	}
	heap_drop(h);
}

Test(tx, offsets)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_off off = pheap_offset(h, p);
	int local;

	cr_assert_neq(off, 0);
	cr_assert_eq(pheap_at(h, off), p);
	cr_assert_null(pheap_at(h, 0));
	cr_assert_eq(pheap_offset(h, NULL), 0);
	cr_assert_eq(pheap_offset(h, &local), 0);
	cr_assert_eq(pheap_offset(h, (const char *)info_of(h).base + 64 * MIB), 0);
	cr_assert_eq(pheap_usable_size(h, p + 8), 0, "not the start of a block");
	cr_assert_eq(pheap_usable_size(h, &local), 0);
	cr_assert_eq(pheap_usable_size(h, NULL), 0);
	pheap_tx *tx = begin(h, 0);
	cr_assert_eq(*(const void **)(void *)tx, *(const void **)(void *)h,
		     "the first word is the base of both");
	cr_assert_null(pheap_modify(tx, NULL, 8));
	pheap_abort(tx);
	heap_drop(h);
}

Test(tx, async_commit_of_a_process_heap)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	pheap_tx *tx = begin(h, 0);
	uint64_t lsn = 77;

	OK(pheap_store(tx, p, "now", 3));
	OK(pheap_commit_async(tx, &lsn));
	cr_assert_eq(memcmp(p, "now", 3), 0);
	OK(pheap_wait(h, lsn, -1));
	OK(pheap_wait(h, lsn, 0));
	heap_drop(h);
}
