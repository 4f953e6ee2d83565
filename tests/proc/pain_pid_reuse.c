/* SPDX-License-Identifier: MIT
 *
 * pain_pid_reuse.c: a table of resources with the pids of their owners, and somebody who looks from time to
 * time which of them are dead.
 *
 * The pain: a pid is used again, then the dead owner looks alive and keeps what he had for ever; or the one
 * who looks is in another pid namespace, then the living look dead, or the dead alive. Shown first, with the
 * pid forced by ns_last_pid.
 * The answer: nobody is known by his pid. The locks and the changes of the dead are taken back although
 * another process has their pid, also one that is a member itself; those of the living stay, wherever they
 * live; and there is no daemon. What they held (pheap_hold) goes the same way.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crowd.h"
#include "shop.h"

#define FORCED_PID 300
#define IMPOSSIBLE 77
#define TRIES 200
#define THING_TYPE 20u

struct meeting {
	uint32_t at, go, holder_at[2], holder_go[2];
	uint64_t member; /* of the latest one */
	uint64_t holder_member[2];
	pid_t pid;     /* as it sees itself */
	int kill_says; /* 0: kill(pid, 0) thinks it is alive */
};

static struct meeting *m;
static pheap *heap; /* of the first process, which never leaves its namespace */

/* --- namespaces and pids --- */

struct inside {
	int (*fn)(void *arg);
	void *arg;
};

/* Starts fn as the first process of a pid namespace, and ends with it. */
static int inside_main(void *arg)
{
	const struct inside *in = arg;

	if (unshare(CLONE_NEWPID) && unshare(CLONE_NEWUSER | CLONE_NEWPID))
		return IMPOSSIBLE;
	return crowd_run(in->fn, in->arg);
}

/* Nothing is done under a wrong pid. */
static int forced_child(void *arg)
{
	const struct inside *in = arg;

	return getpid() == FORCED_PID ? in->fn(in->arg) : IMPOSSIBLE;
}

static int forced_fork(int (*fn)(void *arg), void *arg, pid_t *ret)
{
	struct inside in = {fn, arg};

	for (int i = 0; i < TRIES; i++) {
		int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
		char text[16];
		int n = snprintf(text, sizeof(text), "%d", FORCED_PID - 1);

		if (fd < 0 || write(fd, text, (size_t)n) != n) {
			if (fd >= 0)
				close(fd);
			return IMPOSSIBLE;
		}
		close(fd);
		*ret = crowd_start(forced_child, &in);
		if (*ret == FORCED_PID)
			return 0;
		(void)crowd_kill(*ret);
	}
	return IMPOSSIBLE;
}

static int with_forced_pid(int (*fn)(void *arg), void *arg)
{
	pid_t pid = 0;
	int rc = forced_fork(fn, arg, &pid);

	return rc ? rc : crowd_wait(pid);
}

/* --- the old way --- */

static int old_owner(void *arg)
{
	(void)arg;
	m->pid = getpid(); /* the row of the table */
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	return 0;
}

static int old_story(void *arg)
{
	pid_t owner = 0, stranger = 0;
	int rc = forced_fork(old_owner, NULL, &owner);

	(void)arg;
	if (rc)
		return rc;
	crowd_await(&m->at, 1);
	(void)crowd_kill(owner);
	rc = forced_fork(old_owner, NULL, &stranger);
	if (rc)
		return rc;
	m->kill_says = kill(FORCED_PID, 0);
	(void)crowd_kill(stranger);
	return 0;
}

static bool old_show(void)
{
	struct inside story = {old_story, NULL};
	int end;

	memset(m, 0, sizeof(*m));
	end = crowd_run(inside_main, &story);
	if (end == IMPOSSIBLE) {
		skip("all", "no pid namespaces here, or no right to choose a pid");
		return false;
	}
	ok(end == 0 && m->kill_says == 0,
	   "old way: the owner is dead, another process has its pid: it looks alive for ever");
	return true;
}

/* --- ours: the pid is used again --- */

static pheap_tx *keyed(pheap *h, uint64_t key)
{
	pheap_tx *tx = crowd_tx(h, PHEAP_CONCURRENT);

	crowd_must(pheap_lock(tx, &key, 1), "pheap_lock");
	return tx;
}

/* A block that this process holds. */
static void thing_hold(pheap *h)
{
	pheap_tx *tx = crowd_tx(h, PHEAP_CONCURRENT);

	crowd_must(pheap_hold(h, pheap_zalloc(tx, 64, THING_TYPE)), "pheap_hold");
	crowd_commit(tx);
}

static unsigned things(void)
{
	crowd_must(pheap_recover(heap, NULL), "pheap_recover");
	return crowd_count(heap, THING_TYPE);
}

/* Holds a block, and key 1 with the shop half changed. */
static int owner_main(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	pheap_tx *tx;

	(void)arg;
	thing_hold(h);
	tx = keyed(h, 1);
	shop_change(tx, shop_find(h));
	m->member = pheap_member(h);
	m->pid = getpid();
	crowd_add(&m->at);
	crowd_await(&m->go, UINT32_MAX);
	crowd_commit(tx);
	return 0;
}

/* Has the dead one's pid; later becomes a member and holds a block and key 2. */
static int stranger_main(void *arg)
{
	pheap_tx *tx;
	pheap *h;

	(void)arg;
	m->pid = getpid();
	crowd_add(&m->at);
	crowd_await(&m->go, 1);
	h = crowd_open(crowd_path("heap"), 0, NULL);
	thing_hold(h);
	tx = keyed(h, 2);
	m->member = pheap_member(h);
	crowd_add(&m->at);
	crowd_await(&m->go, 2);
	crowd_commit(tx);
	crowd_close(h);
	return 0;
}

/* arg: what runs under the forced pid. */
static int forced_main(void *arg)
{
	const struct inside *in = arg;

	return with_forced_pid(in->fn, in->arg);
}

static bool key_is_free(uint64_t key)
{
	pheap_tx *tx = crowd_tx(heap, PHEAP_CONCURRENT);
	int rc = pheap_lock(tx, &key, 1);

	if (rc && rc != -ETIMEDOUT)
		crowd_must(rc, "pheap_lock");
	pheap_abort(tx);
	return rc == 0;
}

/* In one namespace: the owner, its death, then the stranger with its pid. */
static int reuse_story(void *arg)
{
	pid_t owner = 0, stranger = 0;
	int rc = forced_fork(owner_main, NULL, &owner);

	(void)arg;
	if (rc)
		return rc;
	crowd_await(&m->at, 1);
	crowd_await(&m->holder_go[0], 1);
	(void)crowd_kill(owner);
	m->at = 0;
	rc = forced_fork(stranger_main, NULL, &stranger);
	if (rc)
		return rc;
	crowd_set(&m->holder_at[0], 1);
	return crowd_wait(stranger);
}

static void reuse(void)
{
	const struct shop *shop = shop_find(heap);
	struct inside story = {reuse_story, NULL};
	struct rings model = shop->rings;
	uint64_t dead;
	uint32_t count = 9;
	bool waits;
	pid_t pid;

	memset(m, 0, sizeof(*m));
	pid = crowd_start(inside_main, &story);
	crowd_await(&m->at, 1);
	dead = m->member;
	waits = !key_is_free(1) && pheap_member_alive(heap, dead) == 1;
	crowd_set(&m->holder_go[0], 1);
	crowd_await(&m->holder_at[0], 1); /* the stranger has the pid */
	ok(waits && m->pid == FORCED_PID && key_is_free(1) && pheap_member_alive(heap, dead) == 0 &&
		   rings_follow(&shop->rings, &model) == 0 && things() == 0,
	   "the owner is dead, another process has its pid: the key is free, the change undone, what it held freed");
	crowd_set(&m->go, 1);
	crowd_await(&m->at, 2);
	crowd_must(pheap_recover(heap, &count), "pheap_recover");
	ok(count == 0 && !key_is_free(2) && m->member != dead && pheap_member_alive(heap, m->member) == 1 &&
		   pheap_member_alive(heap, dead) == 0 && things() == 1,
	   "it becomes a member: nothing is taken from it, and the dead one stays dead");
	crowd_set(&m->go, 2);
	ok(crowd_wait(pid) == 0 && key_is_free(2) && things() == 0, "it ends as it should");
}

/* --- ours: two namespaces, one pid --- */

/* Holds a block and key 1 or 2, to its end. */
static int holder_main(void *arg)
{
	unsigned me = *(unsigned *)arg;
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	pheap_tx *tx;

	thing_hold(h);
	tx = keyed(h, me + 1);
	if (me == 0)
		shop_change(tx, shop_find(h));
	m->holder_member[me] = pheap_member(h);
	crowd_set(&m->holder_at[me], 1);
	crowd_await(&m->holder_go[me], 1);
	crowd_commit(tx);
	crowd_close(h);
	return 0;
}

static void namespaces(void)
{
	const struct shop *shop = shop_find(heap);
	struct rings model = shop->rings;
	unsigned index[2] = {0, 1};
	struct inside under[2], in[2];
	pid_t pids[2];
	bool held;

	memset(m, 0, sizeof(*m));
	for (unsigned i = 0; i < 2; i++) {
		under[i] = (struct inside){holder_main, &index[i]};
		in[i] = (struct inside){forced_main, &under[i]};
		pids[i] = crowd_start(inside_main, &in[i]);
		crowd_await(&m->holder_at[i], 1);
	}
	held = !key_is_free(1) && !key_is_free(2) && things() == 2;
	(void)crowd_kill(pids[0]); /* takes the namespace with it; the kernel may need a moment for that */
	while (pheap_member_alive(heap, m->holder_member[0]))
		crowd_nap_us(200);
	note("old way: kill(%d, 0) gives %d here, for the living one as for the dead one", FORCED_PID,
	     kill(FORCED_PID, 0));
	ok(held && key_is_free(1) && rings_follow(&shop->rings, &model) == 0 &&
		   pheap_member_alive(heap, m->holder_member[0]) == 0,
	   "two have pid %d in two namespaces, one dies: its key is free, its change undone", FORCED_PID);
	ok(!key_is_free(2) && pheap_member_alive(heap, m->holder_member[1]) == 1 && things() == 1,
	   "the living one with the same pid keeps its key and what it holds");
	crowd_set(&m->holder_go[1], 1);
	ok(crowd_wait(pids[1]) == 0 && key_is_free(2) && things() == 0, "and gives it back when it ends");
}

int main(void)
{
	struct pheap_options opt = crowd_options();

	crowd_begin("pids", 100);
	m = crowd_share(sizeof(*m));
	if (!old_show())
		return crowd_end();
	opt.lock_timeout_ms = 100; /* of the first process, which asks whether keys are free */
	heap = crowd_open(crowd_path("heap"), PHEAP_CREATE, &opt);
	(void)shop_make(heap);
	reuse();
	namespaces();
	crowd_close(heap);
	return crowd_end();
}
