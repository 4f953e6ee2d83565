/* SPDX-License-Identifier: MIT
 *
 * fork_child.c: a process that has heaps open forks.
 *
 * The pain: a descriptor that the child inherits keeps its parent's lock, so a parent that was killed looks
 * alive for as long as any of its children lives. Shown first, with a lock of the same kind.
 * The answer: the child's handles are dead, each call says so; the parent notices nothing, in the middle of a
 * transaction or beside threads that are; and its death is noticed at once, whoever lives on. A child that
 * wants the heap opens it, and is a member of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crowd.h"
#include "shop.h"

#define FORKS 150u
#define THREADS 4u

struct meeting {
	uint32_t parent, child, over;
	uint64_t member;
	uint64_t done[THREADS];
};

static struct meeting *m;

/* --- the old way --- */

static int lock_byte(int fd, int cmd, short type, struct flock *ret)
{
	*ret = (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
	return fcntl(fd, cmd, ret);
}

/* A process whose child lives on until the first process of the test says `over`, or is gone. */
static int old_parent(void *arg)
{
	struct flock lock;
	int fd = open(arg, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || lock_byte(fd, F_OFD_SETLK, F_WRLCK, &lock))
		return 1;
	if (fork() == 0) {
		crowd_add(&m->child);
		/* for a while only, should nobody be left to tell */
		for (unsigned i = 0; i < 20000 && !__atomic_load_n(&m->over, __ATOMIC_ACQUIRE); i++)
			crowd_nap_us(1000);
		_exit(0);
	}
	crowd_await(&m->child, 1);
	(void)raise(SIGKILL);
	return 1;
}

static void old_show(void)
{
	const char *path = crowd_path("old");
	struct flock lock = {0};
	int fd;

	memset(m, 0, sizeof(*m));
	(void)crowd_run(old_parent, (void *)(uintptr_t)path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ok(fd >= 0 && lock_byte(fd, F_OFD_GETLK, F_WRLCK, &lock) == 0 && lock.l_type == F_WRLCK,
	   "old way: the parent is dead, its child keeps its lock");
	(void)close(fd);
	crowd_set(&m->over, 1);
}

/* --- the child's handle --- */

/* Every call of an inherited handle and transaction; the number of wrong answers. */
static unsigned dead_calls(pheap *h, pheap_tx *tx)
{
	struct pheap_info info;
	struct pheap_stats stats;
	uint64_t key = 1, word = 0;
	pheap_tx *other = NULL;
	char name[64] = "";
	unsigned bad = 0;

	bad += pheap_begin(h, 0, &other) != PHEAP_EFORKED || other;
	bad += !strstr(pheap_error_detail(h), "parent");
	bad += pheap_begin(h, PHEAP_READ, &other) != PHEAP_EFORKED;
	bad += pheap_info(h, &info, sizeof(info)) != PHEAP_EFORKED;
	bad += pheap_stats(h, &stats, sizeof(stats)) != PHEAP_EFORKED;
	bad += pheap_recover(h, NULL) != PHEAP_EFORKED;
	bad += pheap_wait(h, 0, 0) != PHEAP_EFORKED;
	bad += pheap_watch(h, &word, 0, 0) != PHEAP_EFORKED;
	bad += pheap_member_alive(h, 1) != PHEAP_EFORKED;
	bad += pheap_root_next(h, name) != PHEAP_EFORKED;
	bad += pheap_find(h, "shop") != NULL;
	bad += pheap_next(h, UINT32_MAX, NULL) != NULL;
	bad += pheap_reserve(h, 100, 0) != NULL;
	bad += pheap_current(h) != NULL;
	if (tx) {
		bad += pheap_lock(tx, &key, 1) != PHEAP_EFORKED;
		bad += pheap_alloc(tx, 10, 0) != NULL;
		bad += pheap_modify(tx, &word, 8) != NULL;
		bad += pheap_commit(tx) != PHEAP_EFORKED;
		pheap_abort(tx);
	}
	return bad;
}

struct inherited {
	pheap *h;
	pheap_tx *tx;
};

static int child_of_fork(void *arg)
{
	const struct inherited *in = arg;
	unsigned bad = dead_calls(in->h, in->tx);
	pheap *mine = NULL;

	if (bad)
		return crowd_wrong("%u calls of an inherited handle gave something else than PHEAP_EFORKED",
				   bad);
	if (pheap_close(in->h))
		return crowd_wrong("closing an inherited handle failed");
	if (in->tx)
		return 0; /* the parent has the heap for itself */
	mine = crowd_open(crowd_path("heap"), 0, NULL);
	m->member = pheap_member(mine);
	shop_change(crowd_tx(mine, 0), shop_find(mine));
	crowd_commit(pheap_current(mine));
	crowd_close(mine);
	return 0;
}

static void handles(pheap *h)
{
	struct inherited in = {h, NULL};
	const struct shop *shop = shop_find(h);
	struct rings model = shop->rings;
	pheap_tx *tx;

	ok(crowd_run(child_of_fork, &in) == 0 && rings_follow(&shop->rings, &model) == 1 &&
		   m->member != pheap_member(h),
	   "the child's handle is dead, one that it opens itself is a member of its own");
	tx = crowd_tx(h, 0);
	shop_change(tx, shop);
	in.tx = tx;
	ok(crowd_run(child_of_fork, &in) == 0, "so is the transaction that was open");
	crowd_commit(tx);
	ok(rings_follow(&shop->rings, &model) == 1 && shop_fault(h, shop) == NULL,
	   "the parent goes on with it and commits");
}

/* --- forks beside threads --- */

static pheap *heap;

static void *worker(void *arg)
{
	unsigned me = *(unsigned *)arg;
	const struct shop *shop = shop_find(heap);

	while (!__atomic_load_n(&m->over, __ATOMIC_ACQUIRE)) {
		pheap_tx *tx = crowd_tx(heap, me % 2 ? 0 : PHEAP_CONCURRENT);
		uint64_t key = 1;

		crowd_must(pheap_lock(tx, &key, 1), "pheap_lock");
		shop_change(tx, shop);
		crowd_commit(tx);
		m->done[me]++;
	}
	return NULL;
}

static int child_beside_threads(void *arg)
{
	pheap *mine;

	if (dead_calls(arg, NULL))
		return crowd_wrong("a child beside threads got something else than PHEAP_EFORKED");
	mine = crowd_open(crowd_path("heap"), 0, NULL);
	crowd_commit(crowd_tx(mine, PHEAP_READ));
	crowd_close(mine);
	(void)pheap_close(arg);
	return 0;
}

static void beside_threads(pheap *h)
{
	const struct shop *shop = shop_find(h);
	unsigned index[THREADS], bad = 0;
	pthread_t threads[THREADS];
	uint64_t before = shop->rings.changes, done = 0;

	memset(m, 0, sizeof(*m));
	heap = h;
	for (unsigned i = 0; i < THREADS; i++) {
		index[i] = i;
		if (pthread_create(&threads[i], NULL, worker, &index[i]))
			crowd_wrong("no thread");
	}
	for (unsigned i = 0; i < FORKS && !crowd_is_wrong(); i++)
		bad += crowd_run(child_beside_threads, h) != 0;
	crowd_set(&m->over, 1);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		done += m->done[i];
	}
	ok(bad == 0 && shop->rings.changes == before + done && !rings_fault(&shop->rings) &&
		   !shop_fault(h, shop),
	   "%u forks beside %u threads in transactions: nothing of the parent's is lost", FORKS, THREADS);
}

/* --- the parent dies, the child lives --- */

static int mortal_parent(void *arg)
{
	pheap *h = crowd_open(crowd_path("heap"), 0, NULL);
	pheap_tx *tx;

	(void)arg;
	m->member = pheap_member(h);
	tx = crowd_tx(h, 0);
	shop_change(tx, shop_find(h));
	if (fork() == 0) {
		/* never closes the handle, never calls anything */
		crowd_add(&m->child);
		for (unsigned i = 0; i < 20000 && !__atomic_load_n(&m->over, __ATOMIC_ACQUIRE); i++)
			crowd_nap_us(1000);
		crowd_add(&m->child);
		_exit(0);
	}
	crowd_await(&m->child, 1);
	(void)raise(SIGKILL);
	return 1;
}

static void parent_dies(pheap *h)
{
	const struct shop *shop = shop_find(h);
	struct rings model = shop->rings;
	uint32_t count = 0;
	int alive;

	memset(m, 0, sizeof(*m));
	if (crowd_run(mortal_parent, NULL) != CROWD_KILLED)
		crowd_wrong("the parent did not die");
	alive = pheap_member_alive(h, m->member);
	crowd_must(pheap_recover(h, &count), "pheap_recover");
	ok(alive == 0 && count == 1 && m->child == 1 && rings_follow(&shop->rings, &model) == 0 &&
		   shop_fault(h, shop) == NULL,
	   "the parent is killed in a transaction, its child lives on: it is dead and recovered");
	crowd_set(&m->over, 1);
	crowd_await(&m->child, 2);
}

int main(void)
{
	pheap *h;

	crowd_begin("fork", 90);
	m = crowd_share(sizeof(*m));
	/* children whose parent was killed come to us, so that none is left behind */
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	old_show();
	h = crowd_open(crowd_path("heap"), PHEAP_CREATE, NULL);
	(void)shop_make(h);
	handles(h);
	beside_threads(h);
	parent_dies(h);
	crowd_close(h);
	while (waitpid(-1, NULL, 0) > 0)
		;
	return crowd_end();
}
