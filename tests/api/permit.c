/* SPDX-License-Identifier: MIT
 *
 * permit.c: semaphores whose permits belong to processes and come back exactly when those go.
 */
#include "support.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

TestSuite(permit, .timeout = 120);

enum { LONG_MS = 60000 }; /* longer than any good run waits */

#define LIMIT (1ull << 40)

static const pheap_permits *permits_make(pheap *h, uint64_t total)
{
	pheap_tx *tx = begin(h, 0);
	const pheap_permits *p = pheap_permits_new(tx, total);

	cr_assert(p, "%s", pheap_error_detail(h));
	OK(pheap_root_set(tx, "permits", p));
	commit(tx);
	return p;
}

static const pheap_permits *permits_of(const pheap *h)
{
	return pheap_find(h, "permits");
}

static int64_t available(const pheap *h)
{
	int64_t n = INT64_MIN;

	OK(pheap_permits_available(h, permits_of(h), &n));
	return n;
}

/* --- making --- */

Test(permit, new_and_delete)
{
	pheap *h = heap_make();
	uint64_t before = stats_of(h).block_count;
	const pheap_permits *p;
	int64_t n;
	pheap_tx *tx;

	tx = begin(h, 0);
	p = pheap_permits_new(tx, 7);
	cr_assert(p);
	OK(pheap_permits_available(h, p, &n));
	cr_assert_eq(n, 7, "visible to the transaction that makes it");
	pheap_abort(tx);
	GIVES(-EINVAL, pheap_permits_available(h, p, &n));

	p = permits_make(h, 7);
	cr_assert_eq(available(h), 7);
	h = heap_reopen(h);
	p = permits_of(h);
	cr_assert_eq(available(h), 7);
	tx = begin(h, PHEAP_CONCURRENT);
	OK(pheap_permits_delete(tx, p));
	pheap_abort(tx);
	cr_assert_eq(available(h), 7);
	tx = begin(h, PHEAP_CONCURRENT);
	OK(pheap_permits_delete(tx, p));
	GIVES(-EINVAL, pheap_permits_delete(tx, p));
	pheap_abort(tx);
	tx = begin(h, 0);
	OK(pheap_permits_delete(tx, p));
	OK(pheap_root_set(tx, "permits", NULL));
	commit(tx);
	GIVES(-EINVAL, pheap_permits_take(h, p, 1, 0));
	GIVES(-EINVAL, pheap_permits_give(h, p, 1));
	GIVES(-EINVAL, pheap_permits_lend(h, p, 1));
	GIVES(-EINVAL, pheap_permits_available(h, p, &n));
	cr_assert_eq(stats_of(h).block_count, before);
	heap_drop(h);
}

Test(permit, totals)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);
	const pheap_permits *none = pheap_permits_new(tx, 0), *most = pheap_permits_new(tx, LIMIT);
	int64_t n;

	cr_assert(none && most && none != most);
	commit(tx);
	OK(pheap_permits_available(h, none, &n));
	cr_assert_eq(n, 0);
	OK(pheap_permits_available(h, most, &n));
	cr_assert_eq((uint64_t)n, LIMIT);
	GIVES(-EAGAIN, pheap_permits_take(h, none, 1, 0));
	OK(pheap_permits_take(h, most, LIMIT, 0));
	GIVES(-EAGAIN, pheap_permits_take(h, most, 1, 0));
	OK(pheap_permits_give(h, most, LIMIT));
	tx = begin(h, 0);
	cr_assert_null(pheap_permits_new(tx, LIMIT + 1));
	GIVES(-EINVAL, pheap_error(tx));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, PHEAP_READ);
	cr_assert_null(pheap_permits_new(tx, 1));
	GIVES(-EROFS, pheap_error(tx));
	pheap_abort(tx);
	cr_assert_null(pheap_permits_new(NULL, 1));
	cr_assert_null(pheap_permits_new(tx, 1), "ended");
	GIVES(-EINVAL, pheap_permits_delete(NULL, most));
	GIVES(PHEAP_EENDED, pheap_permits_delete(tx, most));
	heap_drop(h);
}

/* A semaphore is no block of the user's. */
Test(permit, not_a_block)
{
	pheap *h = heap_make();
	const pheap_permits *p = permits_make(h, 3);
	pheap_tx *tx = begin(h, 0);

	cr_assert_null(pheap_next(h, UINT32_MAX, NULL));
	GIVES(-EINVAL, pheap_free(tx, p));
	pheap_abort(tx);
	tx = begin(h, 0);
	cr_assert_null(pheap_realloc(tx, p, 10000));
	GIVES(-EINVAL, pheap_error(tx));
	pheap_abort(tx);
	GIVES(-EINVAL, pheap_hold(h, p));
	cr_assert_eq(available(h), 3);
	heap_drop(h);
}

/* --- taking and giving --- */

Test(permit, take_give_lend)
{
	pheap *h = heap_make();
	const pheap_permits *p = permits_make(h, 5);

	OK(pheap_permits_take(h, p, 2, -1));
	OK(pheap_permits_take(h, p, 3, LONG_MS));
	cr_assert_eq(available(h), 0);
	GIVES(-EAGAIN, pheap_permits_take(h, p, 1, 0));
	cr_assert(pheap_error_detail(h)[0]);
	GIVES(-ETIMEDOUT, pheap_permits_take(h, p, 1, 5));
	OK(pheap_permits_give(h, p, 4));
	cr_assert_eq(available(h), 4);
	GIVES(-EPERM, pheap_permits_give(h, p, 2));
	cr_assert(pheap_error_detail(h)[0]);
	OK(pheap_permits_give(h, p, 1));
	GIVES(-EPERM, pheap_permits_give(h, p, 1));
	cr_assert_eq(available(h), 5);
	GIVES(-EAGAIN, pheap_permits_take(h, p, 6, 0));
	/* all or nothing */
	cr_assert_eq(available(h), 5);

	OK(pheap_permits_lend(h, p, 3));
	cr_assert_eq(available(h), 8);
	GIVES(-EPERM, pheap_permits_give(h, p, 1));
	OK(pheap_permits_take(h, p, 8, 0));
	cr_assert_eq(available(h), 0);
	OK(pheap_permits_give(h, p, 5));
	GIVES(-EPERM, pheap_permits_give(h, p, 1));
	cr_assert_eq(available(h), 5);
	h = heap_reopen(h);
	cr_assert_eq(available(h), 5);
	heap_drop(h);
}

Test(permit, binary)
{
	pheap *h = heap_make();
	const pheap_permits *p = permits_make(h, 1);

	GIVES(-EPERM, pheap_permit_release(h, p));
	OK(pheap_permit_reserve(h, p, -1));
	GIVES(-EAGAIN, pheap_permit_reserve(h, p, 0));
	GIVES(-ETIMEDOUT, pheap_permit_reserve(h, p, 3));
	OK(pheap_permit_release(h, p));
	OK(pheap_permit_reserve(h, p, 0));
	OK(pheap_permit_release(h, p));
	heap_drop(h);
}

Test(permit, refusals)
{
	pheap *h = heap_make();
	const pheap_permits *p = permits_make(h, 3);
	const void *block = block_make(h, 10000, 1);
	const pheap_permits *wrong[] = {
		NULL,
		block,
		(const void *)((const char *)block + 32),
		(const void *)&h,
		(const void *)((const char *)(const void *)p + 8),
		(const void *)((const char *)info_of(h).base + 8),
		(const void *)((const char *)info_of(h).base + (1ull << 40)),
	};
	int64_t n;
	pheap_tx *tx;

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		GIVES(-EINVAL, pheap_permits_take(h, wrong[i], 1, 0));
		GIVES(-EINVAL, pheap_permits_give(h, wrong[i], 1));
		GIVES(-EINVAL, pheap_permits_lend(h, wrong[i], 1));
		GIVES(-EINVAL, pheap_permit_reserve(h, wrong[i], 0));
		GIVES(-EINVAL, pheap_permit_release(h, wrong[i]));
		GIVES(-EINVAL, pheap_permits_available(h, wrong[i], &n));
		tx = begin(h, 0);
		GIVES(-EINVAL, pheap_permits_delete(tx, wrong[i]));
		GIVES(-EINVAL, pheap_commit(tx));
	}
	GIVES(-EINVAL, pheap_permits_available(h, p, NULL));
	GIVES(-EINVAL, pheap_permits_take(h, p, 0, 0));
	GIVES(-EINVAL, pheap_permits_give(h, p, 0));
	GIVES(-EINVAL, pheap_permits_lend(h, p, 0));
	GIVES(-EINVAL, pheap_permits_take(h, p, LIMIT + 1, 0));
	GIVES(-EINVAL, pheap_permits_give(h, p, UINT64_MAX));
	GIVES(-EINVAL, pheap_permits_lend(h, p, 1ull << 63));
	tx = begin(h, 0);
	GIVES(PHEAP_EACTIVE, pheap_permits_take(h, p, 1, 0));
	GIVES(PHEAP_EACTIVE, pheap_permits_give(h, p, 1));
	GIVES(PHEAP_EACTIVE, pheap_permits_lend(h, p, 1));
	commit(tx);
	/* so much, and not more */
	OK(pheap_permits_lend(h, p, LIMIT));
	GIVES(-EOVERFLOW, pheap_permits_lend(h, p, 1));
	OK(pheap_permits_take(h, p, LIMIT, 0));
	cr_assert_eq(available(h), 3);
	heap_drop(h);
	OK(pheap_open(scratch("heap"), PHEAP_RDONLY, NULL, &h));
	p = permits_of(h);
	GIVES(-EROFS, pheap_permits_take(h, p, 1, 0));
	GIVES(-EROFS, pheap_permits_give(h, p, 1));
	GIVES(-EROFS, pheap_permits_lend(h, p, 1));
	cr_assert_eq(available(h), 3);
	heap_drop(h);
}

static int use_forked(void *arg)
{
	pheap *h = arg;
	const pheap_permits *p = (const void *)8;
	int64_t n;

	CHECK(pheap_permits_take(h, p, 1, 0) == PHEAP_EFORKED);
	CHECK(pheap_permits_give(h, p, 1) == PHEAP_EFORKED);
	CHECK(pheap_permits_lend(h, p, 1) == PHEAP_EFORKED);
	CHECK(pheap_permits_available(h, p, &n) == PHEAP_EFORKED);
	CHECK(pheap_close(h) == 0);
	return 0;
}

Test(permit, forked_handle)
{
	pheap *h = heap_make();
	const pheap_permits *p = permits_make(h, 3);

	OK(pheap_permits_take(h, p, 2, 0));
	GIVES(0, child_run(use_forked, h));
	cr_assert_eq(available(h), 1);
	OK(pheap_permits_give(h, p, 2));
	heap_drop(h);
}

/* --- going --- */

struct part {
	uint64_t take, lend; /* what to do */
	uint32_t has;	     /* how many have done it */
	uint32_t go, die;
	uint32_t inside, most; /* stress */
};

static int user(void *arg)
{
	struct part *part = arg;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	const pheap_permits *p = permits_of(h);
	if (part->lend)
		CHECK(pheap_permits_lend(h, p, part->lend) == 0);
	if (part->take)
		CHECK(pheap_permits_take(h, p, part->take, LONG_MS) == 0);
	flag_add(&part->has);
	flag_wait(&part->go, 1);
	if (part->die)
		raise(SIGKILL);
	CHECK(pheap_close(h) == 0);
	return 0;
}

static pid_t user_start(struct part *part, uint64_t take, uint64_t lend, uint32_t die)
{
	*part = (struct part){.take = take, .lend = lend, .die = die};
	pid_t pid = child_start(user, part);
	flag_wait(&part->has, 1);
	return pid;
}

static void user_end(struct part *part, pid_t pid)
{
	flag_set(&part->go, 1);
	cr_assert_eq(child_wait(pid), part->die ? 1000 + SIGKILL : 0);
}

Test(permit, taker_goes)
{
	struct part *part = shared_make(sizeof *part);
	pheap *h = heap_make();
	const pheap_permits *p = permits_make(h, 5);

	OK(pheap_permits_take(h, p, 1, 0));
	for (uint32_t die = 0; die < 2; die++) {
		pid_t pid = user_start(part, 3, 0, die);
		cr_assert_eq(available(h), 1);
		GIVES(-EAGAIN, pheap_permits_take(h, p, 2, 0));
		GIVES(-EPERM, pheap_permits_give(h, p, 2));
		user_end(part, pid);
		OK(pheap_recover(h, NULL));
		cr_assert_eq(available(h), 4);
	}
	/* nobody has to recover the dead one for this */
	pid_t pid = user_start(part, 4, 0, 1);
	user_end(part, pid);
	OK(pheap_permits_take(h, p, 4, LONG_MS));
	cr_assert_eq(available(h), 0);
	OK(pheap_permits_give(h, p, 5));
	heap_drop(h);
}

/* What the kernel's SEM_UNDO cannot do: take back what others have used. */
Test(permit, lender_goes)
{
	struct part *part = shared_make(sizeof *part);
	pheap *h = heap_make();
	const pheap_permits *p = permits_make(h, 0);

	for (uint32_t die = 0; die < 2; die++) {
		pid_t pid = user_start(part, 0, 2, die);
		cr_assert_eq(available(h), 2);
		OK(pheap_permits_take(h, p, 1, 0));
		user_end(part, pid);
		OK(pheap_recover(h, NULL));
		cr_assert_eq(available(h), -1);
		GIVES(-EAGAIN, pheap_permits_take(h, p, 1, 0));
		GIVES(-EPERM, pheap_permits_give(h, p, 2));
		OK(pheap_permits_give(h, p, 1));
		cr_assert_eq(available(h), 0);
		GIVES(-EAGAIN, pheap_permits_take(h, p, 1, 0));
	}
	/* who lent and took goes with the difference */
	pid_t pid = user_start(part, 3, 5, 1);
	cr_assert_eq(available(h), 2);
	OK(pheap_permits_lend(h, p, 1));
	user_end(part, pid);
	OK(pheap_recover(h, NULL));
	cr_assert_eq(available(h), 1);
	OK(pheap_permits_take(h, p, 1, 0));
	heap_drop(h);
}

Test(permit, all_users_die)
{
	struct part *part = shared_make(sizeof *part);
	pheap *h = heap_make();

	permits_make(h, 5);
	heap_drop(h);
	for (int round = 0; round < 3; round++) {
		pid_t pid = user_start(part, 4, 1, 1);
		user_end(part, pid);
	}
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	cr_assert_eq(available(h), 5);
	heap_drop(h);
}

/* The slot of one that went is used again; its cell is not the newcomer's. */
Test(permit, slot_used_again)
{
	struct part *part = shared_make(sizeof *part);
	struct pheap_options opt = test_options();

	opt.member_count = 2;
	pheap *h = heap_make_with(&opt);
	permits_make(h, 5);
	for (uint32_t round = 0; round < 8; round++) {
		pid_t pid = user_start(part, 1 + round % 3, round % 2, round / 2 % 2);
		cr_assert_eq(available(h), 5 - (int64_t)(1 + round % 3) + round % 2);
		user_end(part, pid);
		if (round % 3)
			OK(pheap_recover(h, NULL));
	}
	OK(pheap_recover(h, NULL));
	cr_assert_eq(available(h), 5);
	heap_drop(h);
}

Test(permit, delete_while_used)
{
	struct part *part = shared_make(sizeof *part);
	pheap *h = heap_make();
	const pheap_permits *p = permits_make(h, 5);
	pheap_tx *tx;

	for (int lent = 0; lent < 2; lent++) {
		pid_t pid = user_start(part, lent ? 0 : 2, lent ? 2 : 0, 1);
		tx = begin(h, 0);
		GIVES(-EBUSY, pheap_permits_delete(tx, p));
		cr_assert(pheap_error_detail(h)[0]);
		GIVES(-EBUSY, pheap_commit(tx));
		user_end(part, pid);
		OK(pheap_recover(h, NULL));
		cr_assert_eq(available(h), 5);
	}
	OK(pheap_permits_take(h, p, 1, 0));
	tx = begin(h, 0);
	GIVES(-EBUSY, pheap_permits_delete(tx, p));
	pheap_abort(tx);
	OK(pheap_permits_give(h, p, 1));
	tx = begin(h, PHEAP_CONCURRENT);
	OK(pheap_permits_delete(tx, p));
	commit(tx);
	GIVES(-EINVAL, pheap_permits_take(h, p, 1, 0));
	heap_drop(h);
}

/* --- waiting --- */

struct waiter {
	pheap *h;
	uint64_t n;
	int32_t timeout_ms;
	uint32_t tid;
};

static int take_in_thread(void *arg)
{
	struct waiter *w = arg;

	flag_set(&w->tid, (uint32_t)syscall(SYS_gettid));
	return -pheap_permits_take(w->h, permits_of(w->h), w->n, w->timeout_ms) & 0xff;
}

static pthread_t waiter_start(struct waiter *w)
{
	pthread_t thread = thread_start(take_in_thread, w);

	flag_wait(&w->tid, 1);
	thread_wait_asleep((pid_t)w->tid);
	return thread;
}

Test(permit, wait_for_another_thread)
{
	pheap *h = heap_make();
	const pheap_permits *p = permits_make(h, 2);
	struct waiter w = {h, 2, -1, 0};

	/* permits belong to the process: this thread gives what that one took */
	OK(pheap_permits_take(h, p, 1, 0));
	pthread_t thread = waiter_start(&w);
	OK(pheap_permits_give(h, p, 1));
	GIVES(0, thread_join(thread));
	cr_assert_eq(available(h), 0);
	OK(pheap_permits_give(h, p, 2));
	cr_assert_eq(available(h), 2);
	heap_drop(h);
}

Test(permit, wait_and_a_loan)
{
	pheap *h = heap_make();
	const pheap_permits *p = permits_make(h, 0);
	struct waiter w = {h, 3, LONG_MS, 0};
	pthread_t thread = waiter_start(&w);

	OK(pheap_permits_lend(h, p, 2));
	OK(pheap_permits_lend(h, p, 1));
	GIVES(0, thread_join(thread));
	cr_assert_eq(available(h), 0);
	heap_drop(h);
}

Test(permit, wait_and_a_time_limit)
{
	pheap *h = heap_make();
	struct waiter w = {h, 1, 20, 0};

	permits_make(h, 0);
	cr_assert_eq(thread_run(take_in_thread, &w), ETIMEDOUT);
	w.timeout_ms = 0;
	cr_assert_eq(thread_run(take_in_thread, &w), EAGAIN);
	heap_drop(h);
}

Test(permit, wait_and_a_death)
{
	struct part *part = shared_make(sizeof *part);
	pheap *h = heap_make();
	const pheap_permits *p = permits_make(h, 3);

	for (uint32_t die = 0; die < 2; die++) {
		pid_t pid = user_start(part, 3, 0, die);
		struct waiter w = {h, 2, -1, 0};
		pthread_t thread = waiter_start(&w);
		user_end(part, pid);
		GIVES(0, thread_join(thread));
		cr_assert_eq(available(h), 1);
		OK(pheap_permits_give(h, p, 2));
	}
	heap_drop(h);
}

Test(permit, wait_and_a_delete)
{
	pheap *h = heap_make();
	const pheap_permits *p = permits_make(h, 0);
	struct waiter w = {h, 1, -1, 0};
	pthread_t thread = waiter_start(&w);
	pheap_tx *tx = begin(h, 0);

	OK(pheap_permits_delete(tx, p));
	commit(tx);
	cr_assert_eq(thread_join(thread), EINVAL);
	heap_drop(h);
}

/* --- many --- */

static int take_and_give(void *arg)
{
	struct part *part = arg;
	uint64_t seed = random_seed() ^ (uint64_t)getpid() << 8;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	const pheap_permits *p = permits_of(h);
	while (!__atomic_load_n(&part->go, __ATOMIC_ACQUIRE)) {
		uint64_t n = 1 + random_next(&seed) % 3;
		int rc = pheap_permits_take(h, p, n, random_next(&seed) % 2 ? -1 : 2);
		pheap_tx *tx;

		if (rc == -ETIMEDOUT)
			continue;
		CHECK(rc == 0);
		if (random_next(&seed) % 4 == 0) {
			CHECK(pheap_permits_lend(h, p, 2) == 0);
			CHECK(pheap_permits_take(h, p, 2, -1) == 0);
		}
		/* both modes of the heap run meanwhile */
		CHECK(pheap_begin(h, random_next(&seed) % 2 ? PHEAP_CONCURRENT : 0, &tx) == 0);
		CHECK(pheap_commit(tx) == 0);
		CHECK(pheap_permits_give(h, p, n) == 0);
	}
	CHECK(pheap_close(h) == 0);
	return 0;
}

Test(permit, workers_and_kills)
{
	enum { WORKERS = 3, KILLS = 60, TOTAL = 4 };
	struct part *part = shared_make(sizeof *part);
	uint64_t seed = random_seed();
	pheap *h = heap_make();
	pid_t pids[WORKERS];

	permits_make(h, TOTAL);
	for (int i = 0; i < WORKERS; i++)
		pids[i] = child_start(take_and_give, part);
	for (int i = 0; i < KILLS; i++) {
		usleep((useconds_t)(random_next(&seed) % 8000));
		child_kill(pids[i % WORKERS]);
		pids[i % WORKERS] = child_start(take_and_give, part);
	}
	flag_set(&part->go, 1);
	for (int i = 0; i < WORKERS; i++)
		cr_expect_eq(child_wait(pids[i]), 0);
	OK(pheap_recover(h, NULL));
	cr_assert_eq(available(h), TOTAL, "%ld", (long)available(h));
	heap_drop(h);
}

/* With one permit it is a lock, whose owner may be killed. */
static int one_at_a_time(void *arg)
{
	struct part *part = arg;
	uint32_t none = 0, me = (uint32_t)getpid();
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	const pheap_permits *p = permits_of(h);
	while (!__atomic_load_n(&part->go, __ATOMIC_ACQUIRE)) {
		CHECK(pheap_permit_reserve(h, p, -1) == 0);
		uint32_t seen = __atomic_load_n(&part->inside, __ATOMIC_ACQUIRE);
		/* who is still noted was killed here */
		if (seen)
			CHECK(kill((pid_t)seen, 0) != 0 ||
			      seen == __atomic_load_n(&part->most, __ATOMIC_ACQUIRE));
		CHECK(__atomic_compare_exchange_n(&part->inside, &seen, me, false, __ATOMIC_ACQ_REL,
						  __ATOMIC_ACQUIRE));
		seen = me;
		CHECK(__atomic_compare_exchange_n(&part->inside, &seen, none, false, __ATOMIC_ACQ_REL,
						  __ATOMIC_ACQUIRE));
		CHECK(pheap_permit_release(h, p) == 0);
	}
	CHECK(pheap_close(h) == 0);
	return 0;
}

Test(permit, a_lock_whose_owners_are_killed)
{
	enum { WORKERS = 3, KILLS = 60 };
	struct part *part = shared_make(sizeof *part);
	uint64_t seed = random_seed();
	pheap *h = heap_make();
	pid_t pids[WORKERS];

	permits_make(h, 1);
	for (int i = 0; i < WORKERS; i++)
		pids[i] = child_start(one_at_a_time, part);
	for (int i = 0; i < KILLS; i++) {
		usleep((useconds_t)(random_next(&seed) % 8000));
		/* a zombie still has its number */
		__atomic_store_n(&part->most, (uint32_t)pids[i % WORKERS], __ATOMIC_RELEASE);
		child_kill(pids[i % WORKERS]);
		pids[i % WORKERS] = child_start(one_at_a_time, part);
	}
	flag_set(&part->go, 1);
	for (int i = 0; i < WORKERS; i++)
		cr_expect_eq(child_wait(pids[i]), 0);
	OK(pheap_recover(h, NULL));
	cr_assert_eq(available(h), 1);
	heap_drop(h);
}
