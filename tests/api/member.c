/* SPDX-License-Identifier: MIT
 *
 * member.c: numbers of attachments, who is alive, and what fork leaves to the child.
 */
#include "support.h"

#include <signal.h>
#include <unistd.h>

TestSuite(member, .timeout = 60);

Test(member, numbers_grow_over_opens)
{
	pheap *h = heap_make();
	uint64_t last = 0;

	for (int i = 0; i < 300; i++) {
		uint64_t member = pheap_member(h);
		cr_assert_gt(member, last);
		cr_assert_eq(info_of(h).member, member);
		GIVES(1, pheap_member_alive(h, member));
		if (last)
			GIVES(0, pheap_member_alive(h, last));
		GIVES(0, pheap_member_alive(h, member + 1));
		last = member;
		h = heap_reopen(h);
	}
	heap_drop(h);
}

struct attached {
	uint64_t number[64];
	uint32_t ready, leave;
	int next;
};

static int attach_and_wait(void *arg)
{
	struct attached *a = arg;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	a->number[__atomic_fetch_add(&a->next, 1, __ATOMIC_ACQ_REL)] = pheap_member(h);
	flag_add(&a->ready);
	flag_wait(&a->leave, 1);
	CHECK(pheap_close(h) == 0);
	return 0;
}

Test(member, numbers_of_processes_differ)
{
	enum { COUNT = 8 };
	struct attached *a = shared_make(sizeof *a);
	pid_t pids[COUNT];

	heap_drop(heap_make());
	for (int i = 0; i < COUNT; i++)
		pids[i] = child_start(attach_and_wait, a);
	flag_wait(&a->ready, COUNT);
	pheap *h;
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	for (int i = 0; i < COUNT; i++) {
		GIVES(1, pheap_member_alive(h, a->number[i]));
		cr_assert_lt(a->number[i], pheap_member(h));
		for (int k = 0; k < i; k++)
			cr_assert_neq(a->number[i], a->number[k]);
	}
	cr_assert_eq(stats_of(h).member_count, COUNT + 1);
	/* half are killed, half go */
	for (int i = 0; i < COUNT / 2; i++)
		child_kill(pids[i]);
	flag_set(&a->leave, 1);
	for (int i = COUNT / 2; i < COUNT; i++)
		cr_assert_eq(child_wait(pids[i]), 0);
	for (int i = 0; i < COUNT; i++)
		GIVES(0, pheap_member_alive(h, a->number[i]));
	uint32_t members = 99;
	OK(pheap_recover(h, &members));
	cr_assert_eq(members, COUNT / 2, "%u", members);
	cr_assert_eq(stats_of(h).member_count, 1);
	heap_drop(h);
}

static int attach_and_die(void *arg)
{
	uint64_t *ret_member = arg;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	*ret_member = pheap_member(h);
	raise(SIGKILL);
	return 0;
}

Test(member, numbers_are_not_reused_after_kills)
{
	uint64_t *member = shared_make(sizeof *member), last = 0;

	heap_drop(heap_make());
	for (int i = 0; i < 100; i++) {
		cr_assert_eq(child_run(attach_and_die, member), 1000 + SIGKILL);
		cr_assert_gt(*member, last);
		last = *member;
	}
	pheap *h;
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	cr_assert_gt(pheap_member(h), last);
	GIVES(0, pheap_member_alive(h, last));
	/* and while somebody stays: slots of the dead are found again */
	for (int i = 0; i < 300; i++) {
		cr_assert_eq(child_run(attach_and_die, member), 1000 + SIGKILL);
		cr_assert_gt(*member, last, "round %d", i);
		last = *member;
	}
	heap_drop(h);
}

Test(member, more_processes_than_slots)
{
	struct attached *a = shared_make(sizeof *a);
	struct pheap_options opt = test_options();
	pid_t pids[3];
	pheap *h;

	opt.member_count = 3;
	heap_drop(heap_make_with(&opt));
	for (int i = 0; i < 3; i++)
		pids[i] = child_start(attach_and_wait, a);
	flag_wait(&a->ready, 3);
	int rc = pheap_open(scratch("heap"), 0, NULL, &h);
	cr_assert(rc == -EUSERS || rc == -EAGAIN || rc == -EBUSY || rc == -ENOSPC || rc == -EMFILE, "%d", rc);
	cr_assert(pheap_error_detail(NULL)[0]);
	child_kill(pids[0]);
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	flag_set(&a->leave, 1);
	for (int i = 1; i < 3; i++)
		cr_assert_eq(child_wait(pids[i]), 0);
	heap_drop(h);
}

/* --- fork --- */

struct forked {
	pheap *h;
	unsigned char *p;
	pheap_tx *tx;
};

static int use_in_child(void *arg)
{
	struct forked *f = arg;
	pheap_tx *tx;
	struct pheap_stats stats;
	pheap *own;

	CHECK(pheap_begin(f->h, 0, &tx) == PHEAP_EFORKED);
	CHECK(pheap_begin(f->h, PHEAP_READ, &tx) == PHEAP_EFORKED);
	CHECK(pheap_stats(f->h, &stats, sizeof stats) == PHEAP_EFORKED);
	CHECK(pheap_reserve(f->h, 100, 1) == NULL);
	CHECK(pheap_find(f->h, "r") == NULL);
	CHECK(pheap_next(f->h, 1, NULL) == NULL);
	CHECK(pheap_current(f->h) == NULL);
	if (f->tx) {
		CHECK(pheap_store(f->tx, f->p, "child", 5) == PHEAP_EFORKED);
		CHECK(pheap_commit(f->tx) == PHEAP_EFORKED);
	}
	CHECK(pheap_close(f->h) == 0);
	/* closed and opened again it is a member like any other */
	CHECK(pheap_open(scratch("heap"), 0, NULL, &own) == 0);
	if (!f->tx) {
		const unsigned char *root = pheap_find(own, "r");
		CHECK(root);
		CHECK(pheap_begin(own, 0, &tx) == 0);
		CHECK(pheap_store(tx, root, "child", 5) == 0);
		CHECK(pheap_commit(tx) == 0);
	}
	CHECK(pheap_close(own) == 0);
	return 0;
}

Test(member, fork_without_a_transaction)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);
	unsigned char *p = (unsigned char *)(uintptr_t)pheap_root(tx, "r", 64, 1);

	commit(tx);
	struct forked f = {h, p, NULL};
	GIVES(0, child_run(use_in_child, &f));
	cr_assert_eq(memcmp(p, "child", 5), 0, "what the child wrote through its own handle");
	tx = begin(h, 0);
	OK(pheap_store(tx, p, "parent", 6));
	commit(tx);
	GIVES(1, pheap_member_alive(h, pheap_member(h)));
	heap_drop(h);
}

Test(member, fork_inside_a_transaction)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 64, 1);
	struct forked f = {h, p, begin(h, 0)};

	OK(pheap_store(f.tx, p, "mine", 4));
	GIVES(0, child_run(use_in_child, &f));
	cr_assert_eq(memcmp(p, "mine", 4), 0);
	OK(pheap_store(f.tx, p + 4, "more", 4));
	commit(f.tx);
	cr_assert_eq(memcmp(p, "minemore", 8), 0);
	heap_drop(h);
}

static int leave_at_once(void *arg)
{
	(void)arg;
	return 0;
}

static int wait_for_kill(void *arg)
{
	flag_wait(arg, 1);
	return 0;
}

/* A child keeps no lock of the parent's alive: when the parent is gone, it is gone. */
struct orphan {
	uint32_t ready, leave;
	uint64_t member;
};

static int open_and_fork(void *arg)
{
	struct orphan *o = arg;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	o->member = pheap_member(h);
	pid_t pid = fork();
	if (pid == 0) {
		alarm(30); /* T2: its parent dies before it, on purpose */
		flag_set(&o->ready, 1);
		(void)wait_for_kill(&o->leave);
		_exit(0);
	}
	/* only once fork has returned in the child is the parent's descriptor closed there */
	flag_wait(&o->ready, 1);
	raise(SIGKILL);
	return 0;
}

Test(member, a_forked_child_does_not_keep_its_parent_alive)
{
	struct orphan *o = shared_make(sizeof *o);
	pheap *h = heap_make();
	uint32_t members = 0;

	int status = child_run(open_and_fork, o), alive = pheap_member_alive(h, o->member);
	int rc = pheap_recover(h, &members);
	flag_set(&o->leave, 1); /* before anything can fail */
	cr_assert_eq(status, 1000 + SIGKILL, "%d", status);
	GIVES(0, alive);
	GIVES(0, rc);
	cr_assert_eq(members, 1);
	heap_drop(h);
}

Test(member, forks_beside_transactions)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 8, 1);

	for (uint64_t i = 1; i <= 100; i++) {
		pheap_tx *tx = begin(h, 0);
		OK(pheap_store(tx, p, &i, 8));
		GIVES(0, child_run(leave_at_once, NULL));
		commit(tx);
	}
	cr_assert_eq(*(uint64_t *)(void *)p, 100);
	heap_drop(h);
}
