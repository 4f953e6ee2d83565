/* SPDX-License-Identifier: MIT
 *
 * signals.c: see signals.h.
 */
#include "signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>

#include "error.h"
#include "os.h"

#define SIGNAL_MAX 64
#define PARK_NAP_NS 1000000ull
#define PARK_MAX_NS \
	10000000000ull /* then it begins all the same: the others may be waiting for this thread */

static pthread_mutex_t set_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t deferred; /* bit i - 1: signal i has our handler */
static struct sigaction old_actions[SIGNAL_MAX + 1], our_actions[SIGNAL_MAX + 1];
static sigset_t fork_mask; /* under the fork */
static uint64_t pending;
static uint32_t open_count; /* threads with a transaction open */
static uint32_t dying;	    /* threads that raise a signal which ends the process */
static __thread uint32_t depth __attribute__((tls_model("initial-exec")));

static uint64_t bit_of(int sig)
{
	return 1ull << (sig - 1);
}

/* The disposition that the program had, and the signal again. A handler of the program's returns here; one that jumps
 * away instead leaves its own disposition in force. */
static void raise_now(int sig)
{
	sigset_t set, old_set;

	sigaction(sig, &old_actions[sig], NULL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	pthread_sigmask(SIG_UNBLOCK, &set, &old_set);
	raise(sig);
	pthread_sigmask(SIG_SETMASK, &old_set, NULL);
	/* From the table, not from what was in force: another thread may be delivering the same signal. */
	if (__atomic_load_n(&deferred, __ATOMIC_SEQ_CST) & bit_of(sig))
		sigaction(sig, &our_actions[sig], NULL);
}

static void deliver_one(int sig)
{
	bool dies = !(old_actions[sig].sa_flags & SA_SIGINFO) && old_actions[sig].sa_handler == SIG_DFL;

	/* Until the process is dead nobody begins. A handler is another matter: it, and others beside it, may. */
	if (dies)
		__atomic_add_fetch(&dying, 1, __ATOMIC_SEQ_CST);
	if (__atomic_fetch_and(&pending, ~bit_of(sig), __ATOMIC_SEQ_CST) & bit_of(sig))
		raise_now(sig);
	if (dies)
		__atomic_sub_fetch(&dying, 1, __ATOMIC_SEQ_CST);
}

static void deliver(void)
{
	for (int sig = 1; sig <= SIGNAL_MAX; sig++)
		if (__atomic_load_n(&pending, __ATOMIC_SEQ_CST) & bit_of(sig))
			deliver_one(sig);
}

static bool must_wait(void)
{
	return __atomic_load_n(&pending, __ATOMIC_SEQ_CST) || __atomic_load_n(&dying, __ATOMIC_SEQ_CST);
}

static void on_signal(int sig)
{
	int saved = errno;

	__atomic_fetch_or(&pending, bit_of(sig), __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&open_count, __ATOMIC_SEQ_CST) == 0)
		deliver();
	errno = saved;
}

bool ph_signals_on(void)
{
	return __atomic_load_n(&deferred, __ATOMIC_SEQ_CST) != 0;
}

/* The last one out delivers. */
static void count_down(void)
{
	if (__atomic_sub_fetch(&open_count, 1, __ATOMIC_SEQ_CST) == 0 &&
	    __atomic_load_n(&pending, __ATOMIC_SEQ_CST))
		deliver();
}

bool ph_signals_enter(bool nowait)
{
	uint64_t start_ns;

	if (depth++)
		return true;
	__atomic_add_fetch(&open_count, 1, __ATOMIC_SEQ_CST);
	if (__builtin_expect(!must_wait(), 1))
		return true;
	if (nowait) {
		depth--;
		count_down();
		return false;
	}
	start_ns = ph_os->clock_ns();
	do {
		uint32_t seen;

		count_down();
		seen = __atomic_load_n(&open_count, __ATOMIC_SEQ_CST);
		if (must_wait())
			(void)ph_os->futex_wait(&open_count, seen, PARK_NAP_NS);
		__atomic_add_fetch(&open_count, 1, __ATOMIC_SEQ_CST);
	} while (must_wait() && ph_os->clock_ns() - start_ns < PARK_MAX_NS);
	return true;
}

void ph_signals_leave(void)
{
	if (depth && --depth == 0)
		count_down();
}

void ph_signals_forked(void)
{
	depth = 0;
	open_count = 0;
	pending = 0;
	dying = 0;
	pthread_mutex_init(&set_lock, NULL);
}

static void deferred_mask(sigset_t *ret)
{
	sigemptyset(ret);
	for (int sig = 1; sig <= SIGNAL_MAX; sig++)
		if (__atomic_load_n(&deferred, __ATOMIC_SEQ_CST) & bit_of(sig))
			sigaddset(ret, sig);
}

void ph_signals_fork_prepare(void)
{
	sigset_t set;

	deferred_mask(&set);
	pthread_sigmask(SIG_BLOCK, &set, &fork_mask);
}

void ph_signals_fork_done(void)
{
	sigset_t mask = fork_mask;

	pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

/* ---- which ---- */

static void give_back(int sig)
{
	__atomic_fetch_and(&deferred, ~bit_of(sig), __ATOMIC_SEQ_CST);
	sigaction(sig, &old_actions[sig], NULL);
}

static int take_over(int sig)
{
	struct sigaction ours = {.sa_handler = on_signal};

	if (sigaction(sig, NULL, &old_actions[sig]))
		return -errno;
	/* What the program ignores stays ignored. */
	if (!(old_actions[sig].sa_flags & SA_SIGINFO) && old_actions[sig].sa_handler == SIG_IGN)
		return 0;
	ours.sa_flags = old_actions[sig].sa_flags & (SA_RESTART | SA_ONSTACK | SA_NODEFER);
	if (old_actions[sig].sa_handler == SIG_DFL)
		ours.sa_flags |= SA_RESTART;
	ours.sa_mask = old_actions[sig].sa_mask;
	our_actions[sig] = ours;
	__atomic_fetch_or(&deferred, bit_of(sig), __ATOMIC_SEQ_CST);
	if (sigaction(sig, &ours, NULL) == 0)
		return 0;
	__atomic_fetch_and(&deferred, ~bit_of(sig), __ATOMIC_SEQ_CST);
	return -errno;
}

static int signals_check(const int *signals, size_t n, uint64_t *ret)
{
	/* What an instruction raises comes again when a handler returns to it. */
	const uint64_t never = bit_of(SIGKILL) | bit_of(SIGSTOP) | bit_of(SIGSEGV) | bit_of(SIGBUS) |
			       bit_of(SIGFPE) | bit_of(SIGILL) | bit_of(SIGTRAP) | bit_of(SIGSYS) |
			       bit_of(SIGABRT);

	*ret = 0;
	if (n && !signals)
		return ph_error(NULL, -EINVAL, "pheap_signals_defer: signals is NULL");
	for (size_t i = 0; i < n; i++) {
		if (signals[i] < 1 || signals[i] > SIGNAL_MAX || bit_of(signals[i]) & never)
			return ph_error(
				NULL, -EINVAL,
				"pheap_signals_defer: signal %d cannot be deferred: there is none, it cannot be "
				"caught, or an instruction raises it",
				signals[i]);
		*ret |= bit_of(signals[i]);
	}
	return 0;
}

int ph_signals_set(const int *signals, size_t n)
{
	uint64_t wanted;
	int rc = signals_check(signals, n, &wanted);

	if (rc)
		return rc;
	pthread_mutex_lock(&set_lock);
	for (int sig = 1; sig <= SIGNAL_MAX; sig++) {
		uint64_t bit = bit_of(sig);

		if (deferred & bit & ~wanted)
			give_back(sig);
		else if (wanted & bit & ~deferred && rc == 0)
			rc = take_over(sig);
	}
	pthread_mutex_unlock(&set_lock);
	return rc ? ph_error(NULL, rc, "pheap_signals_defer: setting the handler failed: %s",
			     pheap_strerror(rc))
		  : 0;
}
