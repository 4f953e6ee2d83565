/* SPDX-License-Identifier: MIT
 *
 * watch_notify.c: sleeping on a word of the heap, and being woken from another process; who is alive.
 *
 * What: the wake-up comes with the commit and not without it; every sleeper gets it; a notifier that dies
 * between its commit and the wake-up delays the sleepers, but does not leave them asleep; one that dies
 * anywhere else is seen as a whole or not at all. pheap_member_alive tells the living, the stopped, the dead
 * and the gone from each other, by number.
 * Why the library's core and not the installed one: the moment between commit and wake-up is one call of
 * os.h.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crowd.h"
#include "os.h"
#include "steps.h"

#define ROUNDS 3000u
#define SLEEPERS 6u

struct words {
	uint64_t ping, rest0[7];
	uint64_t pong, rest1[7];
};
PHEAP_DECLARE(struct words, 3);

struct meeting {
	uint32_t at, go, over;
	uint64_t member; /* number of the one that was asked */
	uint64_t seen, wakes;
};

static struct meeting *m;
static pheap *heap;
static const struct words *words;

static const struct words *words_of(pheap *h)
{
	const struct words *w = pheap_find(h, "words");

	crowd_must(w ? 0 : -ENOENT, "the words");
	return w;
}

static void word_set(pheap *h, const uint64_t *word, uint64_t value)
{
	pheap_tx *tx = crowd_tx(h, PHEAP_CONCURRENT);
	uint64_t key = 1;

	crowd_must(pheap_lock(tx, &key, 1), "pheap_lock");
	(void)pheap_defer_u64(tx, word, value);
	(void)pheap_notify(tx, word);
	crowd_commit(tx);
}

static void watch(pheap *h, const uint64_t *word, uint64_t seen)
{
	int rc = pheap_watch(h, word, seen, -1);

	crowd_must(rc, "pheap_watch");
}

/* --- living ones --- */

static int answerer(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	const struct words *w = words_of(h);

	(void)arg;
	for (uint64_t n = 0; n < ROUNDS; n++) {
		watch(h, &w->ping, n);
		word_set(h, &w->pong, n + 1);
	}
	crowd_close(h);
	return 0;
}

static void ping_pong(void)
{
	pid_t pid = crowd_start(answerer, NULL);
	uint64_t start_ns = crowd_now_ns();

	for (uint64_t n = 0; n < ROUNDS; n++) {
		word_set(heap, &words->ping, n + 1);
		watch(heap, &words->pong, n);
	}
	ok(crowd_wait(pid) == 0 && words->pong == ROUNDS, "two processes wake each other %u times", ROUNDS);
	note("%.1f us for there and back", (double)(crowd_now_ns() - start_ns) / 1e3 / ROUNDS);
}

static int sleeper(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	const struct words *w = words_of(h);
	uint64_t seen = w->ping;

	(void)arg;
	crowd_add(&m->at);
	watch(h, &w->ping, seen);
	crowd_add(&m->over);
	crowd_close(h);
	return 0;
}

static void sleepers_start(pid_t pids[SLEEPERS])
{
	memset(m, 0, sizeof(*m));
	for (unsigned i = 0; i < SLEEPERS; i++)
		pids[i] = crowd_start(sleeper, NULL);
	crowd_await(&m->at, SLEEPERS);
	for (unsigned i = 0; i < SLEEPERS; i++)
		crowd_await_asleep(pids[i]);
}

static bool sleepers_end(pid_t pids[SLEEPERS])
{
	unsigned good = 0;

	for (unsigned i = 0; i < SLEEPERS; i++)
		good += pids[i] == 0 || crowd_wait(pids[i]) == 0;
	return good == SLEEPERS;
}

static void everybody_wakes(void)
{
	pid_t pids[SLEEPERS];
	pheap_tx *tx;

	sleepers_start(pids);
	tx = crowd_tx(heap, 0);
	(void)pheap_defer_u64(tx, &words->ping, words->ping + 1);
	(void)pheap_notify(tx, &words->ping);
	pheap_abort(tx);
	/* not 0 for a word that was not changed, whatever woke them */
	ok(pheap_watch(heap, &words->ping, words->ping, 50) == -ETIMEDOUT && m->over == 0,
	   "an aborted transaction wakes nobody");
	/* one of them dies in its sleep */
	(void)crowd_kill(pids[0]);
	pids[0] = 0;
	word_set(heap, &words->ping, words->ping + 1);
	ok(sleepers_end(pids), "a commit wakes all %u that sleep in other processes", SLEEPERS - 1);
}

/* --- notifiers that die --- */

static const struct ph_os *os_before;

static void wake_or_die(const uint32_t *word, int count)
{
	const struct words *w = words_of(pheap_of(word));

	/* others are woken as well, for example who waits for the lock */
	if (word == (const uint32_t *)(const void *)&w->ping)
		(void)raise(SIGKILL);
	os_before->futex_wake(word, count);
}

static int silent_notifier(void *arg)
{
	static struct ph_os os;
	pheap *h;

	(void)arg;
	os = *ph_os;
	os_before = ph_os;
	os.futex_wake = wake_or_die;
	ph_os = &os;
	h = crowd_open(crowd_path("heap"), 0, NULL);
	word_set(h, &words_of(h)->ping, words_of(h)->ping + 1);
	return crowd_wrong("the notifier has notified");
}

static void notifier_dies_before_the_wake(void)
{
	pid_t pids[SLEEPERS];
	uint64_t start_ns, before = words->ping;
	int end;

	sleepers_start(pids);
	end = crowd_run(silent_notifier, NULL);
	start_ns = crowd_now_ns();
	ok(end == CROWD_KILLED && words->ping == before + 1 && sleepers_end(pids),
	   "the notifier dies between its commit and the wake-up: all sleepers wake up all the same");
	note("the last one after %.0f ms", (double)(crowd_now_ns() - start_ns) / 1e6);
}

/* Looks at every value; they must come in order and from commits only. */
static int follower(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	const struct words *w = words_of(h);
	uint64_t seen = w->ping;

	(void)arg;
	crowd_set(&m->at, 1);
	while (seen != UINT64_MAX) {
		uint64_t now;

		watch(h, &w->ping, seen);
		now = __atomic_load_n(&w->ping, __ATOMIC_ACQUIRE);
		if (now < seen)
			return crowd_wrong("the word went from %llu back to %llu", (unsigned long long)seen,
					   (unsigned long long)now);
		seen = now;
		__atomic_store_n(&m->seen, seen, __ATOMIC_RELEASE);
		m->wakes++;
	}
	crowd_close(h);
	return 0;
}

static int mortal_notifier(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	const struct words *w = words_of(h);

	steps_arm_heap(h, *(uint64_t *)arg);
	word_set(h, &w->ping, w->ping + 1);
	steps_disarm();
	crowd_close(h);
	return 0;
}

static void notifier_dies_anywhere(void)
{
	unsigned deaths = 0, committed = 0;
	int end = CROWD_KILLED;
	pid_t pid;

	memset(m, 0, sizeof(*m));
	pid = crowd_start(follower, NULL);
	crowd_await(&m->at, 1);
	for (uint64_t k = 1; end == CROWD_KILLED && !crowd_is_wrong(); k++) {
		uint64_t before = words->ping;

		end = crowd_run(mortal_notifier, &k);
		deaths += end == CROWD_KILLED;
		committed += words->ping != before;
		/* another one, who lives; takes the lock of the dead */
		word_set(heap, &words->ping, words->ping + 1);
		while (__atomic_load_n(&m->seen, __ATOMIC_ACQUIRE) < words->ping)
			crowd_nap_us(100);
	}
	word_set(heap, &words->ping, UINT64_MAX);
	ok(crowd_wait(pid) == 0 && end == 0 && committed && committed < deaths,
	   "notifiers die after each of %u stores, the next one is heard each time", deaths);
	note("%u had committed, %llu looks of the sleeper", committed, (unsigned long long)m->wakes);
}

/* --- sleepers that look after the others --- */

#define HELD_TYPE 9u

/* Dies in a transaction that has changed the word in place, holding a block. */
static int dying_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	const struct words *w = words_of(h);
	pheap_tx *tx = crowd_tx(h, PHEAP_CONCURRENT);
	uint64_t value = 77;

	(void)arg;
	crowd_must(pheap_hold(h, pheap_zalloc(tx, 64, HELD_TYPE)), "pheap_hold");
	crowd_commit(tx);
	tx = crowd_tx(h, PHEAP_CONCURRENT);
	(void)pheap_store(tx, &w->pong, &value, sizeof(value));
	crowd_add(&m->over);
	(void)raise(SIGKILL);
	return 0;
}

/* The first process only looks; nobody but the sleepers could have put it right. */
static void sleepers_recover(void)
{
	uint64_t pong = words->pong, start_ns;
	pid_t pids[SLEEPERS];
	bool changed;

	sleepers_start(pids);
	if (crowd_run(dying_main, NULL) != CROWD_KILLED)
		crowd_wrong("it did not die");
	start_ns = crowd_now_ns();
	changed = m->over == 1;
	(void)crowd_kill(pids[0]); /* it may be the one that asks */
	pids[0] = 0;
	while (__atomic_load_n(&words->pong, __ATOMIC_ACQUIRE) != pong || crowd_count(heap, HELD_TYPE))
		crowd_nap_us(500);
	note("everybody sleeps: put right %.0f ms after the death",
	     (double)(crowd_now_ns() - start_ns) / 1e6);
	word_set(heap, &words->ping, words->ping + 1);
	ok(sleepers_end(pids) && changed, "everybody sleeps, one dies: the sleepers put right what it left");
}

/* --- who is alive --- */

static int member_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);

	m->member = pheap_member(h);
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	if (*(bool *)arg)
		crowd_close(h);
	crowd_add(&m->at);
	crowd_await(&m->go, 2);
	return 0;
}

static void who_is_alive(void)
{
	bool closes = true, stays = false;
	uint64_t closed, killed;
	unsigned good = 0;
	int status;
	pid_t pid;

	memset(m, 0, sizeof(*m));
	pid = crowd_start(member_main, &closes);
	crowd_await(&m->at, 1);
	closed = m->member;
	good += pheap_member_alive(heap, closed) == 1;
	crowd_set(&m->go, 1);
	crowd_await(&m->at, 2);
	good += pheap_member_alive(heap, closed) == 0;
	crowd_set(&m->go, 2);
	(void)crowd_wait(pid);
	ok(good == 2, "a member is alive until it closes, also if its process goes on");

	memset(m, 0, sizeof(*m));
	pid = crowd_start(member_main, &stays);
	crowd_await(&m->at, 1);
	killed = m->member;
	(void)kill(pid, SIGSTOP);
	(void)waitpid(pid, &status, WUNTRACED);
	good = pheap_member_alive(heap, killed) == 1;
	(void)crowd_kill(pid);
	good += pheap_member_alive(heap, killed) == 0;
	ok(good == 2, "a stopped member is alive, a killed one is not, before anybody has recovered it");

	memset(m, 0, sizeof(*m));
	pid = crowd_start(member_main, &stays); /* gets the slot of the dead */
	crowd_await(&m->at, 1);
	ok(m->member > killed && killed > closed && pheap_member_alive(heap, m->member) == 1 &&
		   pheap_member_alive(heap, killed) == 0 && pheap_member_alive(heap, closed) == 0 &&
		   pheap_member_alive(heap, pheap_member(heap)) == 1 && pheap_member_alive(heap, 0) == 0 &&
		   pheap_member_alive(heap, UINT64_MAX) == 0,
	   "the next member in the same slot has another number, and the old one stays dead");
	(void)crowd_kill(pid);
}

int main(void)
{
	pheap_tx *tx;

	crowd_begin("sleeping on a word, and who is alive", 100);
	m = crowd_share(sizeof(*m));
	heap = crowd_open(crowd_path("heap"), PHEAP_CREATE, NULL);
	tx = crowd_tx(heap, 0);
	words = PHEAP_ROOT(tx, "words", struct words);
	crowd_commit(tx);
	ping_pong();
	everybody_wakes();
	notifier_dies_before_the_wake();
	if (steps_possible())
		notifier_dies_anywhere();
	else
		skip("notifiers die after each store", "no trap flag on this processor");
	sleepers_recover();
	who_is_alive();
	crowd_close(heap);
	return crowd_end();
}
