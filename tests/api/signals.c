/* SPDX-License-Identifier: MIT
 *
 * signals.c: signals that wait for the end of transactions. Each story plays in a child, whose way of dying is the
 * result.
 */
#include "support.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

TestSuite(signals, .timeout = 120);

enum { KILLED_BY_TERM = 1000 + SIGTERM, KILLED_BY_INT = 1000 + SIGINT };

/* What a child has reached, seen by the test. */
struct stage {
	uint32_t reached, go, tid;
	uint32_t flags, how;
	pheap *h;
};

static struct stage *stage_make(void)
{
	heap_drop(heap_make());
	return shared_make(sizeof(struct stage));
}

static int deferred_open(pheap **ret, int sig)
{
	CHECK(pheap_signals_defer(&sig, 1) == 0);
	CHECK(pheap_open(scratch("heap"), 0, NULL, ret) == 0);
	return 0;
}

/* A number in the heap, to tell who committed. */
static int number_add(pheap *h, pheap_tx *tx)
{
	const uint64_t *n = tx ? pheap_root(tx, "n", 8, 1) : pheap_find(h, "n");
	uint64_t *w = tx && n ? pheap_modify(tx, n, 8) : NULL;

	if (!tx)
		return n ? (int)*n : 0;
	CHECK(w);
	*w += 1;
	return 0;
}

static int number_now(void)
{
	pheap *h;

	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	int n = number_add(h, NULL);
	heap_drop(h);
	return n;
}

/* --- where it arrives --- */

static int outside(void *arg)
{
	struct stage *s = arg;
	pheap_tx *tx;
	pheap *h;

	CHECK(deferred_open(&h, SIGTERM) == 0);
	/* after every kind of end, and a begin that failed */
	CHECK(pheap_begin(h, 0, &tx) == 0);
	CHECK(number_add(h, tx) == 0);
	CHECK(pheap_begin(h, 0, &tx) == PHEAP_EACTIVE);
	tx = pheap_current(h);
	CHECK(pheap_commit(tx) == 0);
	CHECK(pheap_begin(h, PHEAP_READ, &tx) == 0);
	pheap_abort(tx);
	CHECK(pheap_begin(h, PHEAP_CONCURRENT, &tx) == 0);
	CHECK(pheap_end(tx, -EIO) == -EIO);
	flag_set(&s->reached, 1);
	raise(SIGTERM);
	flag_set(&s->reached, 2);
	return 0;
}

Test(signals, outside_it_kills_at_once)
{
	struct stage *s = stage_make();

	cr_assert_eq(child_run(outside, s), KILLED_BY_TERM);
	cr_assert_eq(s->reached, 1);
	cr_assert_eq(number_now(), 1);
}

static int inside(void *arg)
{
	struct stage *s = arg;
	pheap_tx *tx;
	pheap *h;

	CHECK(deferred_open(&h, SIGTERM) == 0);
	CHECK(pheap_begin(h, s->flags, &tx) == 0);
	raise(SIGTERM);
	raise(SIGTERM);
	if (!(s->flags & PHEAP_READ))
		CHECK(number_add(h, tx) == 0);
	flag_set(&s->reached, 1);
	if (s->how == 0)
		CHECK(pheap_commit(tx) == 0);
	else if (s->how == 1)
		pheap_abort(tx);
	else
		CHECK(pheap_end(tx, -EIO) == -EIO);
	flag_set(&s->reached, 2);
	return 0;
}

Test(signals, inside_it_waits)
{
	static const uint32_t flags[] = {0, PHEAP_CONCURRENT, PHEAP_READ, PHEAP_READ | PHEAP_CONCURRENT};
	struct stage *s = stage_make();
	int number = 0;

	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
		for (uint32_t how = 0; how < 3; how++) {
			*s = (struct stage){.flags = flags[i], .how = how};
			cr_assert_eq(child_run(inside, s), KILLED_BY_TERM, "flags %#x, how %u", flags[i],
				     how);
			cr_assert_eq(s->reached, 1);
			number += how == 0 && i < 2;
			cr_assert_eq(number_now(), number);
		}
}

static int inside_from_elsewhere(void *arg)
{
	struct stage *s = arg;
	pheap_tx *tx;
	pheap *h;

	CHECK(deferred_open(&h, SIGTERM) == 0);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	CHECK(number_add(h, tx) == 0);
	flag_set(&s->reached, 1);
	flag_wait(&s->go, 1);
	CHECK(pheap_commit(tx) == 0);
	flag_set(&s->reached, 2);
	return 0;
}

Test(signals, sent_by_another_process)
{
	struct stage *s = stage_make();
	pid_t pid = child_start(inside_from_elsewhere, s);

	flag_wait(&s->reached, 1);
	kill(pid, SIGTERM);
	flag_set(&s->go, 1);
	cr_assert_eq(child_wait(pid), KILLED_BY_TERM);
	cr_assert_eq(s->reached, 1);
	cr_assert_eq(number_now(), 1);
}

static int kill_not_deferred(void *arg)
{
	struct stage *s = arg;
	pheap_tx *tx;
	pheap *h;

	CHECK(deferred_open(&h, SIGTERM) == 0);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	CHECK(number_add(h, tx) == 0);
	raise(s->how ? SIGKILL : SIGINT);
	return 0;
}

Test(signals, others_do_not_wait)
{
	struct stage *s = stage_make();

	cr_assert_eq(child_run(kill_not_deferred, s), KILLED_BY_INT);
	s->how = 1;
	cr_assert_eq(child_run(kill_not_deferred, s), 1000 + SIGKILL);
	cr_assert_eq(number_now(), 0);
}

/* --- what counts as one --- */

static int nested(void *arg)
{
	struct stage *s = arg;
	pheap_tx *tx, *level;
	pheap *h;

	CHECK(deferred_open(&h, SIGTERM) == 0);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	CHECK(pheap_begin(h, PHEAP_NEST, &level) == 0);
	raise(SIGTERM);
	CHECK(pheap_commit(level) == 0);
	CHECK(pheap_begin(h, PHEAP_NEST, &level) == 0);
	pheap_abort(level);
	/* a call that is one by itself, is a part of this one */
	void *p = pheap_alloc(tx, 100, 1);
	CHECK(p && pheap_hold(h, p) == 0 && pheap_release(h, p) == 0);
	CHECK(number_add(h, tx) == 0);
	flag_set(&s->reached, 1);
	CHECK(pheap_commit(tx) == 0);
	flag_set(&s->reached, 2);
	return 0;
}

Test(signals, nested_transactions)
{
	struct stage *s = stage_make();

	cr_assert_eq(child_run(nested, s), KILLED_BY_TERM);
	cr_assert_eq(s->reached, 1);
	cr_assert_eq(number_now(), 1);
}

static int two_heaps(void *arg)
{
	struct pheap_options opt = test_options();
	struct stage *s = arg;
	pheap_tx *a, *b;
	pheap *h, *other;

	CHECK(deferred_open(&h, SIGTERM) == 0);
	CHECK(pheap_open(scratch("other"), PHEAP_CREATE, &opt, &other) == 0);
	CHECK(pheap_begin(h, 0, &a) == 0);
	CHECK(number_add(h, a) == 0);
	raise(SIGTERM);
	/* the thread is in a transaction, so it may begin another */
	CHECK(pheap_begin(other, 0, &b) == 0);
	CHECK(pheap_commit(s->how ? a : b) == 0);
	flag_set(&s->reached, 1);
	CHECK(pheap_commit(s->how ? b : a) == 0);
	flag_set(&s->reached, 2);
	return 0;
}

Test(signals, transactions_in_two_heaps)
{
	struct stage *s = stage_make();

	for (int i = 0; i < 2; i++) {
		*s = (struct stage){.how = (uint32_t)i};
		cr_assert_eq(child_run(two_heaps, s), KILLED_BY_TERM);
		cr_assert_eq(s->reached, 1);
		cr_assert_eq(number_now(), i + 1);
	}
}

/* --- threads --- */

static int begin_beside(void *arg)
{
	struct stage *s = arg;
	pheap_tx *tx;

	flag_set(&s->tid, (uint32_t)syscall(SYS_gettid));
	CHECK(pheap_begin(s->h, PHEAP_CONCURRENT, &tx) == 0);
	flag_set(&s->reached, 9);
	CHECK(pheap_commit(tx) == 0);
	return 0;
}

static int raise_here(void *arg)
{
	(void)arg;
	raise(SIGTERM);
	return 0;
}

static int several_threads(void *arg)
{
	struct stage *s = arg;
	pheap_tx *tx;

	CHECK(deferred_open(&s->h, SIGTERM) == 0);
	CHECK(pheap_begin(s->h, PHEAP_CONCURRENT, &tx) == 0);
	CHECK(number_add(s->h, tx) == 0);
	/* a thread without a transaction gets it, and another comes to begin one */
	CHECK(thread_run(raise_here, NULL) == 0);
	(void)thread_start(begin_beside, s);
	flag_wait(&s->tid, 1);
	thread_wait_asleep((pid_t)s->tid);
	CHECK(__atomic_load_n(&s->reached, __ATOMIC_ACQUIRE) == 0);
	flag_set(&s->reached, 1);
	CHECK(pheap_commit(tx) == 0);
	pause();
	return 0;
}

Test(signals, several_threads)
{
	struct stage *s = stage_make();

	cr_assert_eq(child_run(several_threads, s), KILLED_BY_TERM);
	cr_assert_eq(number_now(), 1);
}

static int end_with_one_open(void *arg)
{
	struct stage *s = arg;
	pheap_tx *tx;

	CHECK(pheap_begin(s->h, 0, &tx) == 0);
	CHECK(number_add(s->h, tx) == 0);
	raise(SIGTERM);
	flag_set(&s->reached, 1);
	return 0;
}

static int ending_thread(void *arg)
{
	struct stage *s = arg;

	CHECK(deferred_open(&s->h, SIGTERM) == 0);
	(void)thread_run(end_with_one_open, s);
	flag_set(&s->reached, 2);
	return 0;
}

Test(signals, thread_that_ends)
{
	struct stage *s = stage_make();

	cr_assert_eq(child_run(ending_thread, s), KILLED_BY_TERM);
	cr_assert_eq(s->reached, 1);
	cr_assert_eq(number_now(), 0, "its transaction was aborted");
}

static int add_in_thread(void *arg)
{
	struct stage *s = arg;

	for (;;) {
		pheap_tx *tx;

		CHECK(pheap_begin(s->h, s->flags, &tx) == 0);
		__atomic_store_n(&s->how, 1, __ATOMIC_RELAXED);
		CHECK(number_add(s->h, tx) == 0);
		CHECK(pheap_commit(tx) == 0);
		__atomic_add_fetch(&s->reached, 1, __ATOMIC_ACQ_REL);
	}
	return 0;
}

static int busy_threads(void *arg)
{
	struct stage *s = arg;

	CHECK(deferred_open(&s->h, SIGTERM) == 0);
	for (int i = 0; i < 3; i++)
		(void)thread_start(add_in_thread, s);
	for (;;)
		pause();
	return 0;
}

/* However busy its threads are, it dies. */
Test(signals, busy_threads)
{
	struct stage *s = stage_make();
	uint64_t seed = random_seed();

	for (int i = 0; i < 20; i++) {
		*s = (struct stage){.flags = 0};
		pid_t pid = child_start(busy_threads, s);
		while (__atomic_load_n(&s->reached, __ATOMIC_ACQUIRE) < 10)
			usleep(100);
		usleep((useconds_t)(random_next(&seed) % 2000));
		kill(pid, SIGTERM);
		cr_assert_eq(child_wait(pid), KILLED_BY_TERM);
		cr_assert_geq(number_now(), (int)s->reached);
	}
}

/* --- what the program had --- */

static volatile sig_atomic_t handled, handled_open, info_given;
static pheap *handled_heap;

static void on_signal(int sig)
{
	(void)sig;
	handled++;
	handled_open += handled_heap && pheap_current(handled_heap);
}

static void on_signal_info(int sig, siginfo_t *info, void *context)
{
	(void)context;
	info_given += info && info->si_signo == sig;
	on_signal(sig);
}

static bool masks_same(const sigset_t *a, const sigset_t *b)
{
	for (int i = 1; i <= 64; i++)
		if (sigismember(a, i) != sigismember(b, i))
			return false;
	return true;
}

static int own_handler(void *arg)
{
	struct stage *s = arg;
	struct sigaction action = {.sa_handler = on_signal}, now;
	int sigs[] = {SIGTERM, SIGUSR1};
	sigset_t before, after;
	pheap_tx *tx;
	pheap *h;

	CHECK(sigaction(SIGTERM, &action, NULL) == 0);
	action.sa_sigaction = on_signal_info;
	action.sa_flags = SA_SIGINFO;
	CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	CHECK(pheap_signals_defer(sigs, 2) == 0);
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	handled_heap = h;
	for (int i = 1; i <= 5; i++) {
		CHECK(pheap_begin(h, 0, &tx) == 0);
		raise(SIGTERM);
		raise(SIGUSR1);
		CHECK(number_add(h, tx) == 0);
		CHECK(handled == 4 * (i - 1));
		CHECK(pheap_commit(tx) == 0);
		CHECK(handled == 4 * (i - 1) + 2);
		raise(SIGUSR1);
		raise(SIGTERM);
		CHECK(handled == 4 * i && info_given == 2 * i);
		CHECK(handled_open == 0);
		pthread_sigmask(SIG_SETMASK, NULL, &after);
		CHECK(masks_same(&before, &after));
	}
	CHECK(pheap_signals_defer(NULL, 0) == 0);
	CHECK(sigaction(SIGTERM, NULL, &now) == 0);
	CHECK(now.sa_handler == on_signal);
	CHECK(sigaction(SIGUSR1, NULL, &now) == 0);
	CHECK(now.sa_sigaction == on_signal_info && now.sa_flags & SA_SIGINFO);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	raise(SIGTERM);
	CHECK(handled_open == 1);
	pheap_abort(tx);
	CHECK(pheap_close(h) == 0);
	flag_set(&s->reached, 1);
	return 0;
}

Test(signals, own_handler)
{
	struct stage *s = stage_make();

	GIVES(0, child_run(own_handler, s));
	cr_assert_eq(s->reached, 1);
	cr_assert_eq(number_now(), 5);
}

static int ignored(void *arg)
{
	int sig = SIGTERM;
	struct sigaction now;
	pheap_tx *tx;
	pheap *h;

	(void)arg;
	signal(SIGTERM, SIG_IGN);
	CHECK(deferred_open(&h, sig) == 0);
	raise(SIGTERM);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	raise(SIGTERM);
	CHECK(pheap_commit(tx) == 0);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	pheap_abort(tx);
	CHECK(sigaction(SIGTERM, NULL, &now) == 0 && now.sa_handler == SIG_IGN);
	CHECK(pheap_signals_defer(NULL, 0) == 0);
	CHECK(sigaction(SIGTERM, NULL, &now) == 0 && now.sa_handler == SIG_IGN);
	CHECK(pheap_close(h) == 0);
	return 0;
}

Test(signals, ignored_stays_ignored)
{
	GIVES(0, child_run(ignored, stage_make()));
}

/* --- the set --- */

static int given_back(void *arg)
{
	struct stage *s = arg;
	int sigs[] = {SIGTERM, SIGINT};
	struct sigaction now;
	pheap_tx *tx;
	pheap *h;

	CHECK(pheap_signals_defer(sigs, 2) == 0);
	CHECK(pheap_signals_defer(sigs, 2) == 0);
	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	/* another set: the first is given back */
	CHECK(pheap_signals_defer(&sigs[1], 1) == 0);
	CHECK(sigaction(SIGTERM, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
	CHECK(sigaction(SIGINT, NULL, &now) == 0 && now.sa_handler != SIG_DFL);
	if (s->how)
		CHECK(pheap_signals_defer(NULL, 0) == 0);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	CHECK(number_add(h, tx) == 0);
	flag_set(&s->reached, 1);
	raise(s->how ? SIGINT : SIGTERM);
	flag_set(&s->reached, 2);
	return 0;
}

Test(signals, set_is_replaced)
{
	struct stage *s = stage_make();

	cr_assert_eq(child_run(given_back, s), KILLED_BY_TERM);
	cr_assert_eq(s->reached, 1);
	*s = (struct stage){.how = 1};
	cr_assert_eq(child_run(given_back, s), KILLED_BY_INT);
	cr_assert_eq(s->reached, 1);
	cr_assert_eq(number_now(), 0);
}

/* Both calls may come in the middle of the process's life. */
static int set_while_open(void *arg)
{
	struct stage *s = arg;
	int sig = SIGTERM;
	pheap_tx *tx;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	CHECK(number_add(h, tx) == 0);
	CHECK(pheap_signals_defer(&sig, 1) == 0);
	CHECK(pheap_commit(tx) == 0);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	raise(SIGTERM);
	CHECK(number_add(h, tx) == 0);
	CHECK(pheap_signals_defer(&sig, 1) == 0);
	flag_set(&s->reached, 1);
	CHECK(pheap_commit(tx) == 0);
	flag_set(&s->reached, 2);
	return 0;
}

Test(signals, set_while_the_heap_is_open)
{
	struct stage *s = stage_make();

	cr_assert_eq(child_run(set_while_open, s), KILLED_BY_TERM);
	cr_assert_eq(s->reached, 1);
	cr_assert_eq(number_now(), 2);
}

Test(signals, refusals)
{
	static const int wrong[] = {0, -1, SIGKILL, SIGSTOP, 65, 1000, INT32_MIN, INT32_MAX};
	struct sigaction now;

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		const int sigs[2] = {SIGUSR2, wrong[i]};

		GIVES(-EINVAL, pheap_signals_defer(sigs, 2));
		cr_assert(pheap_error_detail(NULL)[0]);
		sigaction(SIGUSR2, NULL, &now);
		cr_assert_eq(now.sa_handler, SIG_DFL, "nothing was set");
	}
	GIVES(-EINVAL, pheap_signals_defer(NULL, 1));
	OK(pheap_signals_defer(NULL, 0));
	OK(pheap_signals_defer(wrong, 0));
}

/* --- fork --- */

static int raise_in_child(void *arg)
{
	(void)arg;
	raise(SIGTERM);
	return 0;
}

static int fork_inside(void *arg)
{
	struct stage *s = arg;
	pheap_tx *tx;
	pheap *h;

	CHECK(deferred_open(&h, SIGTERM) == 0);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	raise(SIGTERM);
	/* what waits here is not the child's; what it gets itself finds no transaction */
	CHECK(child_run(raise_in_child, NULL) == KILLED_BY_TERM);
	CHECK(number_add(h, tx) == 0);
	flag_set(&s->reached, 1);
	CHECK(pheap_commit(tx) == 0);
	flag_set(&s->reached, 2);
	return 0;
}

static int open_and_end(void *arg)
{
	pheap_tx *tx;
	pheap *h;

	(void)arg;
	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	CHECK(number_add(h, tx) == 0);
	raise(SIGTERM);
	CHECK(pheap_commit(tx) == 0);
	return 0;
}

static int fork_outside(void *arg)
{
	struct stage *s = arg;
	pheap *h;

	CHECK(deferred_open(&h, SIGTERM) == 0);
	/* the child inherits the deferral, for its own transactions */
	CHECK(child_run(open_and_end, NULL) == KILLED_BY_TERM);
	CHECK(number_add(h, NULL) == 1);
	flag_set(&s->reached, 1);
	CHECK(pheap_close(h) == 0);
	return 0;
}

Test(signals, forked)
{
	struct stage *s = stage_make();

	GIVES(0, child_run(fork_outside, s));
	cr_assert_eq(s->reached, 1);
	*s = (struct stage){0};
	cr_assert_eq(child_run(fork_inside, s), KILLED_BY_TERM);
	cr_assert_eq(s->reached, 1);
	cr_assert_eq(number_now(), 2);
}
