/* SPDX-License-Identifier: MIT
 *
 * pain_sigterm.c: SIGTERM in a critical section, then SIGKILL seconds later.
 *
 * The pain: whoever stops a service sends SIGTERM, which ends it in the middle of a change, or SIGKILL when it
 * takes too long to defend itself. Both leave the memory half changed. Shown first.
 * The answer: pheap_signals_defer lets the transaction end, then the process ends by the same signal, or its
 * own handler runs; and if SIGKILL comes before, the heap is whole all the same. Shown for one thread, for
 * levels and for two heaps, for many threads, for handlers and dispositions of the program's own, and in a
 * storm of both signals.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crowd.h"
#include "shop.h"

#define THREADS 4u
#define STORM_DEATHS 300u
#define BY_TERM (1000 + SIGTERM)

struct meeting {
	uint32_t at, go, late;
	uint32_t handled, in_tx; /* by the program's own handler */
	uint64_t begun, ended;
};

static struct meeting *m;
static pheap *heap;
static const struct shop *shop;

static void heap_make(void)
{
	memset(m, 0, sizeof(*m));
	(void)unlink(crowd_path("heap"));
	heap = crowd_open(crowd_path("heap"), PHEAP_CREATE, NULL);
	shop = shop_make(heap);
}

static void defer_term(void)
{
	static const int signals[] = {SIGTERM, SIGINT};

	crowd_must(pheap_signals_defer(signals, 2), "pheap_signals_defer");
}

/* After the process is gone: how many changes there are, and that they are whole. */
static uint64_t changes_now(void)
{
	pheap_tx *tx = crowd_tx(heap, PHEAP_READ);
	const char *fault = rings_fault(&shop->rings);
	uint64_t changes = shop->rings.changes;

	if (!fault)
		fault = shop_fault(heap, shop);
	if (fault)
		crowd_wrong("%s", fault);
	crowd_commit(tx);
	return changes;
}

/* --- the old way --- */

static struct rings *old_rings;

static void old_put(void *ctx, const uint64_t *where, uint64_t value)
{
	uint32_t *puts = ctx;

	*(uint64_t *)(uintptr_t)where = value;
	if (++*puts == 9) {
		crowd_add(&m->at);
		crowd_await(&m->go, 1);
	}
}

static int old_main(void *arg)
{
	uint32_t puts = 0;

	(void)arg;
	rings_change(old_rings, old_put, &puts);
	return 0;
}

static void old_show(void)
{
	pid_t pid;
	int end;

	old_rings = crowd_share(sizeof(*old_rings));
	rings_make(old_rings);
	pid = crowd_start(old_main, NULL);
	crowd_await(&m->at, 1);
	(void)kill(pid, SIGTERM);
	end = crowd_wait(pid);
	ok(end == BY_TERM && rings_fault(old_rings), "old way: SIGTERM leaves it half changed (%s)",
	   rings_fault(old_rings));
}

/* --- one thread --- */

/* A transaction in the middle of which a signal comes: at 1 it is in, at 2 it has ended. */
static pheap_tx *change_begin(pheap *h, uint32_t flags)
{
	pheap_tx *tx = crowd_tx(h, flags);

	shop_change(tx, shop_find(h));
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	return tx;
}

static int plain_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	(void)arg;
	defer_term();
	crowd_commit(change_begin(h, 0));
	crowd_add(&m->late); /* not reached: the commit ends the process */
	return 0;
}

static void term_in_transaction(void)
{
	pid_t pid;
	int status = 0;

	heap_make();
	pid = crowd_start(plain_main, NULL);
	crowd_await(&m->at, 1);
	(void)kill(pid, SIGTERM);
	crowd_await_asleep(pid); /* it has had every occasion */
	ok(waitpid(pid, &status, WNOHANG) == 0, "SIGTERM in a transaction: the process is still there");
	crowd_set(&m->go, 1);
	ok(crowd_wait(pid) == BY_TERM && m->late == 0 && changes_now() == 1,
	   "it commits, then dies by SIGTERM, before anything else");
	crowd_close(heap);
}

static void term_then_kill(void)
{
	pid_t pid;

	heap_make();
	pid = crowd_start(plain_main, NULL);
	crowd_await(&m->at, 1);
	(void)kill(pid, SIGTERM);
	crowd_nap_us(2000);
	ok(crowd_kill(pid) == CROWD_KILLED && changes_now() == 0,
	   "SIGTERM in a transaction, then SIGKILL before its end: undone as a whole");
	crowd_close(heap);
}

static int aborting_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	(void)arg;
	defer_term();
	pheap_abort(change_begin(h, PHEAP_CONCURRENT));
	crowd_add(&m->late);
	return 0;
}

static _Noreturn void idle(void)
{
	for (;;)
		(void)pause();
}

static int idle_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	(void)arg;
	defer_term();
	crowd_commit(crowd_tx(h, 0));
	crowd_add(&m->at);
	idle();
}

static void other_ends(void)
{
	pid_t pid;

	heap_make();
	pid = crowd_start(aborting_main, NULL);
	crowd_await(&m->at, 1);
	(void)kill(pid, SIGINT);
	crowd_set(&m->go, 1);
	ok(crowd_wait(pid) == 1000 + SIGINT && m->late == 0 && changes_now() == 0,
	   "an abort ends it as well; it dies by the signal that came, SIGINT");
	memset(m, 0, sizeof(*m));
	pid = crowd_start(idle_main, NULL);
	crowd_await(&m->at, 1);
	(void)kill(pid, SIGTERM);
	ok(crowd_wait(pid) == BY_TERM, "with no transaction open it dies at once");
	crowd_close(heap);
}

/* --- nested --- */

/* A level in a transaction, and a transaction of another heap: three ends, the last one counts. */
static int nested_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	pheap *second = crowd_open(crowd_path("second"), PHEAP_CREATE, NULL);
	pheap_tx *outer, *inner, *other;

	(void)arg;
	(void)shop_make(second);
	defer_term();
	other = crowd_tx(second, 0);
	shop_change(other, shop_find(second));
	outer = crowd_tx(h, 0);
	inner = crowd_tx(h, PHEAP_NEST);
	shop_change(inner, shop_find(h));
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	crowd_commit(inner);
	crowd_add(&m->at);
	shop_change(outer, shop_find(h));
	crowd_commit(outer);
	crowd_add(&m->at);
	/* not an outermost one: it begins although a signal waits */
	crowd_commit(crowd_tx(h, 0));
	crowd_add(&m->at);
	crowd_commit(other);
	crowd_add(&m->late);
	return 0;
}

static void nested(void)
{
	pheap *second;
	pid_t pid;
	int end;

	heap_make();
	pid = crowd_start(nested_main, NULL);
	crowd_await(&m->at, 1);
	(void)kill(pid, SIGTERM);
	crowd_set(&m->go, 1);
	end = crowd_wait(pid);
	second = crowd_open(crowd_path("second"), 0, NULL);
	ok(end == BY_TERM && m->at == 4 && m->late == 0 && changes_now() == 2 &&
		   shop_find(second)->rings.changes == 1,
	   "a level, and transactions of two heaps: it dies after the last end of all");
	crowd_close(second);
	crowd_close(heap);
}

/* --- dispositions --- */

static void own_handler(int number)
{
	(void)number;
	m->handled++;
	m->in_tx += pheap_current(pheap_of(shop)) != NULL;
}

static int handler_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	struct sigaction now;

	(void)arg;
	shop = shop_find(h);
	(void)signal(SIGTERM, own_handler);
	(void)signal(SIGINT, SIG_IGN);
	defer_term();
	for (unsigned i = 1; i <= 3; i++) {
		pheap_tx *tx = crowd_tx(h, 0);

		shop_change(tx, shop);
		(void)raise(SIGTERM);
		(void)raise(SIGTERM); /* one that waits already is one, as ever */
		(void)raise(SIGINT);
		if (m->handled != i - 1)
			crowd_wrong("the handler ran in the transaction");
		crowd_commit(tx);
		if (m->handled != i)
			crowd_wrong("the handler ran %u times after %u transactions", m->handled, i);
	}
	crowd_must(pheap_signals_defer(NULL, 0), "pheap_signals_defer");
	(void)sigaction(SIGTERM, NULL, &now);
	if (now.sa_handler != own_handler)
		crowd_wrong("the program's handler was not given back");
	crowd_tx(h, 0);
	(void)raise(SIGTERM);
	if (m->handled != 4)
		crowd_wrong("a signal is deferred though that was ended");
	pheap_abort(pheap_current(h));
	crowd_close(h);
	return 0;
}

static void dispositions(void)
{
	static const int bad[] = {SIGTERM, SIGKILL};
	static const int none[] = {0};

	heap_make();
	ok(crowd_run(handler_main, NULL) == 0 && changes_now() == 3 && m->handled == 4 && m->in_tx == 1,
	   "the program's own handler runs after each transaction; what it ignores stays ignored");
	ok(pheap_signals_defer(bad, 2) == -EINVAL && pheap_signals_defer(none, 1) == -EINVAL &&
		   pheap_signals_defer(NULL, 1) == -EINVAL,
	   "SIGKILL, signal 0 and NULL are -EINVAL");
	crowd_close(heap);
}

/* --- threads --- */

static pheap *thread_heap;

static void *worker(void *arg)
{
	unsigned me = *(unsigned *)arg;
	const struct shop *s = shop_find(thread_heap);

	for (;;) {
		pheap_tx *tx = crowd_tx(thread_heap, PHEAP_CONCURRENT);
		uint64_t key = 1;

		__atomic_fetch_add(&m->begun, 1, __ATOMIC_SEQ_CST);
		crowd_must(pheap_lock(tx, &key, 1), "pheap_lock");
		shop_change(tx, s);
		if (me == 0 && !m->at) {
			crowd_add(&m->at);
			crowd_await(&m->go, 1); /* the others wait for the key */
		}
		m->ended++; /* under the key; counts if the commit does */
		crowd_commit(tx);
	}
	return NULL;
}

static int threads_main(void *arg)
{
	static unsigned index[THREADS];
	pthread_t threads[THREADS];

	(void)arg;
	thread_heap = crowd_open(crowd_path("heap"), 0, NULL);
	defer_term();
	for (unsigned i = 0; i < THREADS; i++) {
		index[i] = i;
		if (pthread_create(&threads[i], NULL, worker, &index[i]))
			return 1;
	}
	pthread_join(threads[0], NULL);
	return 1;
}

static void threads(void)
{
	uint64_t begun;
	pid_t pid;
	int end;

	heap_make();
	pid = crowd_start(threads_main, NULL);
	crowd_await(&m->at, 1);
	crowd_nap_us(5000);
	(void)kill(pid, SIGTERM);
	crowd_nap_us(5000);
	begun = __atomic_load_n(&m->begun, __ATOMIC_SEQ_CST);
	crowd_set(&m->go, 1);
	end = crowd_wait(pid);
	/* all that were open have committed, and none has begun since */
	ok(end == BY_TERM && changes_now() == m->ended && m->begun == begun,
	   "%u threads: all that have a transaction open commit, no other one begins, then it dies", THREADS);
	note("%llu transactions begun, %llu ended", (unsigned long long)m->begun,
	     (unsigned long long)m->ended);
	crowd_close(heap);
}

/* --- storm --- */

static void storm(void)
{
	uint64_t rng = crowd_seed();
	unsigned termed = 0, killed = 0;

	heap_make();
	m->at = 1; /* nobody waits in the middle */
	for (unsigned i = 0; i < STORM_DEATHS && !crowd_is_wrong(); i++) {
		pid_t pid = crowd_start(threads_main, NULL);
		int end;

		crowd_nap_us(1500 + crowd_below(&rng, 2000));
		(void)kill(pid, SIGTERM);
		if (i % 2) {
			crowd_nap_us(crowd_below(&rng, 300));
			(void)kill(pid, SIGKILL);
		}
		end = crowd_wait(pid);
		termed += end == BY_TERM;
		killed += end == CROWD_KILLED;
		(void)changes_now();
	}
	ok(termed + killed == STORM_DEATHS && termed > STORM_DEATHS / 4 && killed,
	   "storm: %u processes with %u threads: %u died by SIGTERM, %u by SIGKILL, the heap is whole each time",
	   STORM_DEATHS, THREADS, termed, killed);
	note("%llu changes", (unsigned long long)changes_now());
	crowd_close(heap);
}

int main(void)
{
	crowd_begin("SIGTERM in a critical section", 120);
	m = crowd_share(sizeof(*m));
	old_show();
	term_in_transaction();
	term_then_kill();
	other_ends();
	nested();
	dispositions();
	threads();
	storm();
	return crowd_end();
}
