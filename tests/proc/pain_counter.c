/* SPDX-License-Identifier: MIT
 *
 * pain_counter.c: an attach counter says how many came, not whether they are still there, nor who comes next.
 *
 * The pain: who is killed never takes himself off the counter, so the memory is never removed, and the next
 * one to start finds what the dead had. Shown first.
 * The answer: whoever opens the name of an ephemeral heap meets the heap of those who have it, or a clean new
 * one. Shown for the ways to leave it, and with one that opens or closes stopped or killed at every edge of
 * its system calls while another one opens the same name.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crowd.h"
#include "edges.h"

#define EPHEMERAL (PHEAP_CREATE | PHEAP_EPHEMERAL)

struct mark {
	uint64_t number;
};
PHEAP_DECLARE(struct mark, 3);

struct meeting {
	uint32_t at, go, stopped;
	uint64_t edges; /* how many there were */
	uint64_t seen;	/* what the process found */
	uint64_t first, second;
};

static struct meeting *m;

static struct pheap_options small(void)
{
	struct pheap_options opt = crowd_options();

	opt.initial_size = 128u << 10;
	opt.max_size = 1u << 20;
	return opt;
}

static bool name_is_there(void)
{
	return access(crowd_path("heap"), F_OK) == 0;
}

static pheap *enter(uint32_t flags)
{
	struct pheap_options opt = small();

	return crowd_open(crowd_path("heap"), flags, &opt);
}

/* 0: it is new. */
static uint64_t mark_get(pheap *h)
{
	const struct mark *mark = pheap_find(h, "mark");

	return mark ? mark->number : 0;
}

static void mark_set(pheap *h, uint64_t number)
{
	pheap_tx *tx = crowd_tx(h, 0);
	const struct mark *mark = PHEAP_ROOT(tx, "mark", struct mark);

	if (mark)
		(void)PHEAP_SET(tx, mark->number, number);
	crowd_commit(tx);
}

/* The mark of the heap: this one, if it has none. */
static uint64_t mark_once(pheap *h, uint64_t number)
{
	pheap_tx *tx = crowd_tx(h, 0);
	const struct mark *mark = PHEAP_ROOT(tx, "mark", struct mark);

	if (mark && !mark->number)
		(void)PHEAP_SET(tx, mark->number, number);
	number = mark ? mark->number : 0;
	crowd_commit(tx);
	return number;
}

/* --- the old way --- */

static uint32_t *old_counter; /* in the memory that it counts */

static int old_user(void *arg)
{
	(void)arg;
	__atomic_fetch_add(old_counter, 1, __ATOMIC_SEQ_CST);
	(void)raise(SIGKILL);
	if (__atomic_sub_fetch(old_counter, 1, __ATOMIC_SEQ_CST) == 0)
		old_counter[1] = 1; /* removed */
	return 0;
}

static void old_show(void)
{
	old_counter = crowd_share(2 * sizeof(*old_counter));
	(void)crowd_run(old_user, NULL);
	ok(old_counter[0] == 1 && old_counter[1] == 0,
	   "old way, a counter: nobody is there, it says 1, and nobody will ever remove the memory");
}

/* --- the ways to leave --- */

static int user_main(void *arg)
{
	pheap *h = enter(*(uint32_t *)arg);

	m->seen = mark_get(h);
	mark_set(h, 7);
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	crowd_close(h);
	return 0;
}

static pid_t user_start(uint32_t *flags)
{
	pid_t pid;

	memset(m, 0, sizeof(*m));
	pid = crowd_start(user_main, flags);
	crowd_await(&m->at, 1);
	return pid;
}

static void all_close(void)
{
	uint32_t make = EPHEMERAL, join = 0;
	pheap *h = NULL;
	pid_t pid;

	h = enter(EPHEMERAL);
	mark_set(h, 5);
	pid = user_start(&join); /* without the flag: the heap knows what it is */
	ok(m->seen == 5, "who opens the name meets the heap of who has it");
	crowd_close(h);
	ok(name_is_there(), "one of two closes: it stays");
	crowd_set(&m->go, 1);
	ok(crowd_wait(pid) == 0 && !name_is_there(), "the last one closes: the name is gone");
	ok(pheap_open(crowd_path("heap"), 0, NULL, &h) == -ENOENT, "opening it is -ENOENT");
	pid = user_start(&make);
	crowd_set(&m->go, 1);
	ok(m->seen == 0 && crowd_wait(pid) == 0, "making it gives a clean new one");
}

static void all_die(void)
{
	uint32_t make = EPHEMERAL;
	pheap *h = NULL;
	pid_t pid;

	pid = user_start(&make);
	h = enter(0);
	(void)crowd_kill(pid);
	pid = user_start(&make);
	ok(m->seen == 7, "one of two is killed: the next one meets the heap of the other");
	(void)kill(pid, SIGSTOP);
	(void)waitpid(pid, NULL, WUNTRACED);
	crowd_close(h);
	h = enter(EPHEMERAL);
	ok(mark_get(h) == 7, "the only user is stopped: he still is a user");
	crowd_close(h);
	ok(name_is_there(), "and keeps it when the others close");
	(void)crowd_kill(pid);
	ok(name_is_there() && pheap_open(crowd_path("heap"), 0, NULL, &h) == -ENOENT && !name_is_there(),
	   "all are killed: the next one finds none, and what was left is removed");
	pid = user_start(&make);
	(void)crowd_kill(pid);
	h = enter(EPHEMERAL | PHEAP_EXCL);
	ok(mark_get(h) == 0, "all are killed: the next one makes a clean new one, also with PHEAP_EXCL");
	crowd_close(h);
}

static void other_heaps(void)
{
	struct pheap_options opt = small();
	pheap *h, *none = NULL;

	h = enter(EPHEMERAL);
	mark_set(h, 9);
	ok(pheap_open(crowd_path("heap"), EPHEMERAL | PHEAP_EXCL, &opt, &none) == -EEXIST && !none,
	   "PHEAP_EXCL refuses one that is in use");
	crowd_close(h);
	h = enter(PHEAP_CREATE);
	mark_set(h, 3);
	ok(pheap_open(crowd_path("heap"), EPHEMERAL, &opt, &none) == -EINVAL && !none,
	   "the flag for a heap without it is -EINVAL");
	crowd_close(h);
	h = enter(PHEAP_CREATE);
	ok(mark_get(h) == 3, "a heap without the flag stays when nobody has it");
	crowd_close(h);
	(void)unlink(crowd_path("heap"));
}

/* The name as the process sees it is another one when it closes. */
static int wanderer(void *arg)
{
	struct pheap_options opt = small();
	pheap *h;

	(void)arg;
	if (chdir(crowd_path("")))
		return 1;
	h = crowd_open("heap", EPHEMERAL, &opt);
	if (chdir("/"))
		return 1;
	crowd_close(h);
	return 0;
}

static void other_names(void)
{
	char here[PATH_MAX], there[PATH_MAX];
	uint32_t make = EPHEMERAL;
	pheap *h;
	pid_t pid;

	ok(crowd_run(wanderer, NULL) == 0 && !name_is_there(), "opened by a relative name, closed elsewhere");
	snprintf(here, sizeof(here), "%s", crowd_path("heap"));
	snprintf(there, sizeof(there), "%s", crowd_path("moved"));
	h = enter(EPHEMERAL);
	mark_set(h, 4);
	if (rename(here, there))
		crowd_wrong("rename");
	pid = user_start(&make); /* another heap, under the name that became free */
	crowd_close(h);
	ok(m->seen == 0 && name_is_there(), "a heap that was moved does not take another one's name with it");
	crowd_set(&m->go, 1);
	(void)crowd_wait(pid);
	/* under its new name it is one that nobody has */
	ok(pheap_open(there, 0, NULL, &h) == -ENOENT && access(there, F_OK),
	   "where it was moved to, it goes");
}

/* --- stopped or killed at each edge --- */

struct cut {
	uint64_t k;
	bool close; /* at the k-th edge of closing; else of opening */
	void (*what)(void);
};

static void stop_here(void)
{
	crowd_set(&m->stopped, 1);
	(void)raise(SIGSTOP);
}

static int cut_main(void *arg)
{
	const struct cut *cut = arg;
	pheap *h;

	if (!cut->close)
		edges_arm(cut->k, cut->what);
	h = enter(EPHEMERAL);
	edges_arm(0, cut->what);
	m->first = mark_once(h, 11);
	if (cut->close) {
		edges_arm(cut->k, cut->what);
		crowd_close(h);
		m->edges = edges_count();
		return 0;
	}
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	crowd_close(h);
	return 0;
}

static int second_main(void *arg)
{
	pheap *h = enter(EPHEMERAL);

	(void)arg;
	m->second = mark_once(h, 22);
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	crowd_close(h);
	return 0;
}

/* The first one is stopped at edge k, the second one opens the same name; the first one goes on; a third one
 * opens it, too. Whoever has it at the same time has the same. Whether the edge was reached. */
static bool stopped_at(bool close, uint64_t k)
{
	struct cut cut = {k, close, stop_here};
	pid_t first, second;
	uint64_t third;
	pheap *h;
	int status;

	memset(m, 0, sizeof(*m));
	first = crowd_start(cut_main, &cut);
	while (!__atomic_load_n(&m->at, __ATOMIC_ACQUIRE) &&
	       waitpid(first, &status, WUNTRACED | WNOHANG) == 0)
		crowd_nap_us(100);
	if (!m->stopped) { /* there is no such edge */
		crowd_set(&m->go, 1);
		if (!close)
			(void)crowd_wait(first);
		return false;
	}
	second = crowd_start(second_main, NULL);
	crowd_nap_us(4000); /* it comes as far as the first one lets it */
	(void)kill(first, SIGCONT);
	crowd_await(&m->at, close ? 1 : 2);
	h = enter(EPHEMERAL);
	third = mark_once(h, 33);
	/* the first one, if it opens, is attached now as well as the second one */
	if (third != m->second || (!close && third != m->first))
		crowd_wrong("stopped at edge %llu of %s: three that are attached have %llu, %llu and %llu",
			    (unsigned long long)k, close ? "closing" : "opening",
			    (unsigned long long)m->first, (unsigned long long)m->second,
			    (unsigned long long)third);
	crowd_set(&m->go, 1);
	if (crowd_wait(second) || crowd_wait(first))
		crowd_wrong("stopped at edge %llu: one did not end well", (unsigned long long)k);
	crowd_close(h);
	if (name_is_there())
		crowd_wrong("stopped at edge %llu: the name stays", (unsigned long long)k);
	return true;
}

static bool killed_at(bool close, uint64_t k)
{
	struct cut cut = {k, close, edges_die};
	pid_t first;
	bool reached;
	pheap *h;

	memset(m, 0, sizeof(*m));
	first = crowd_start(cut_main, &cut);
	while (!__atomic_load_n(&m->at, __ATOMIC_ACQUIRE) && waitpid(first, NULL, WNOHANG) == 0)
		crowd_nap_us(100);
	reached = !m->at && (!close || !m->edges);
	if (m->at) { /* it has opened, there is no such edge */
		crowd_set(&m->go, 1);
		(void)crowd_wait(first);
	}
	h = enter(EPHEMERAL);
	if (mark_get(h) != 0)
		crowd_wrong("killed at edge %llu of %s: the next one finds what the dead had",
			    (unsigned long long)k, close ? "closing" : "opening");
	crowd_close(h);
	if (name_is_there())
		crowd_wrong("killed at edge %llu: the name stays", (unsigned long long)k);
	return reached;
}

static void each_edge(const char *what, bool (*at)(bool close, uint64_t k), bool close)
{
	uint64_t k = 1;

	while (!crowd_is_wrong() && at(close, k))
		k++;
	ok(k > 8, "%s at each of %llu edges of %s: the next one meets the same or a new one", what,
	   (unsigned long long)k - 1, close ? "closing" : "opening");
}

int main(void)
{
	crowd_begin("a counter of users", 120);
	m = crowd_share(sizeof(*m));
	old_show();
	all_close();
	all_die();
	other_heaps();
	other_names();
	each_edge("killed", killed_at, false);
	each_edge("killed", killed_at, true);
	each_edge("stopped", stopped_at, true);
	each_edge("stopped", stopped_at, false);
	return crowd_end();
}
