/* SPDX-License-Identifier: MIT
 *
 * ephemeral.c: heaps that go with their last user, whatever way that one goes, and whatever names the file has.
 */
#include "support.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(ephemeral, .timeout = 120);

#define FLAGS (PHEAP_CREATE | PHEAP_EPHEMERAL)

static pheap *open_at(const char *path, uint32_t flags)
{
	struct pheap_options opt = test_options();
	pheap *h = NULL;

	OK(pheap_open(path, flags, &opt, &h));
	return h;
}

static int open_gives(const char *path, uint32_t flags)
{
	struct pheap_options opt = test_options();
	pheap *h = NULL;
	int rc = pheap_open(path, flags, &opt, &h);

	if (rc == 0)
		heap_drop(h);
	return rc;
}

static bool there(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static bool is_empty(const pheap *h)
{
	return !pheap_find(h, "mark");
}

static void mark(pheap *h)
{
	pheap_tx *tx = begin(h, 0);

	cr_assert(pheap_root(tx, "mark", 16, 1));
	commit(tx);
}

/* --- the last user closes --- */

Test(ephemeral, goes_with_the_last_close)
{
	const char *path = scratch("heap");
	pheap *h = open_at(path, FLAGS), *again;

	mark(h);
	OK(pheap_open(path, FLAGS, NULL, &again));
	cr_assert_eq(again, h);
	heap_drop(again);
	cr_assert(there(path), "open still");
	OK(pheap_open(path, 0, NULL, &again));
	heap_drop(h);
	cr_assert(there(path));
	heap_drop(again);
	cr_assert(!there(path));
	GIVES(-ENOENT, open_gives(path, 0));
	GIVES(-ENOENT, open_gives(path, PHEAP_EPHEMERAL));
	h = open_at(path, FLAGS);
	cr_assert(is_empty(h));
	heap_drop(h);
	cr_assert(!there(path));
}

struct part {
	uint32_t flags, ready, go, die;
	uint32_t found; /* 1: the mark */
	uint64_t inode;
};

static int user(void *arg)
{
	struct part *part = arg;
	struct pheap_options opt = test_options();
	struct stat st;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), part->flags, &opt, &h) == 0);
	CHECK(lstat(scratch("heap"), &st) == 0);
	part->inode = st.st_ino;
	part->found = !is_empty(h);
	flag_set(&part->ready, 1);
	flag_wait(&part->go, 1);
	if (part->die)
		raise(SIGKILL);
	CHECK(pheap_close(h) == 0);
	return 0;
}

static pid_t user_start(struct part *part, uint32_t flags, uint32_t die)
{
	*part = (struct part){.flags = flags, .die = die};
	pid_t pid = child_start(user, part);
	flag_wait(&part->ready, 1);
	return pid;
}

static void user_end(struct part *part, pid_t pid)
{
	flag_set(&part->go, 1);
	cr_assert_eq(child_wait(pid), part->die ? 1000 + SIGKILL : 0);
}

Test(ephemeral, the_others_keep_it)
{
	static const uint32_t flags[] = {FLAGS,	       PHEAP_EPHEMERAL, 0,
					 PHEAP_CREATE, PHEAP_RDONLY,	PHEAP_RDONLY | PHEAP_EPHEMERAL};
	struct part *part = shared_make(sizeof *part);
	const char *path = scratch("heap");

	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
		pheap *h = open_at(path, FLAGS);

		mark(h);
		/* whoever comes joins, with the flag or without; whoever goes last takes it along */
		pid_t pid = user_start(part, flags[i], 0);
		cr_assert_eq(part->found, 1, "flags %#x", flags[i]);
		heap_drop(h);
		cr_assert(there(path));
		user_end(part, pid);
		cr_assert(!there(path), "flags %#x", flags[i]);
	}
}

/* --- the last user dies --- */

Test(ephemeral, the_dead_leave_nothing)
{
	struct part *part = shared_make(sizeof *part);
	const char *path = scratch("heap");

	for (int how = 0; how < 5; how++) {
		pheap *h = open_at(path, FLAGS);
		mark(h);
		pid_t pid = user_start(part, 0, 1);
		heap_drop(h);
		user_end(part, pid);
		cr_assert(there(path));
		switch (how) {
		case 0:
			GIVES(-ENOENT, open_gives(path, 0));
			break;
		case 1:
			GIVES(-ENOENT, open_gives(path, PHEAP_EPHEMERAL));
			break;
		case 2:
			GIVES(-ENOENT, open_gives(path, PHEAP_RDONLY));
			break;
		case 3:
			h = open_at(path, FLAGS | PHEAP_EXCL);
			cr_assert(is_empty(h));
			heap_drop(h);
			break;
		default:
			h = open_at(path, FLAGS);
			cr_assert(is_empty(h));
			heap_drop(h);
		}
		cr_assert(!there(path), "how %d", how);
	}
}

/* What the stale one was like does not matter to the new one. */
Test(ephemeral, a_stale_one_of_another_kind)
{
	struct part *part = shared_make(sizeof *part);
	struct pheap_options opt = test_options();
	const char *path = scratch("heap");
	pheap *h;

	opt.layout = "old";
	OK(pheap_open(path, FLAGS, &opt, &h));
	mark(h);
	pid_t pid = user_start(part, 0, 1);
	/* while somebody has it, it is as it is */
	opt.layout = "new";
	GIVES(PHEAP_ELAYOUT, pheap_open(path, FLAGS, &opt, &h));
	h = open_at(path, 0);
	heap_drop(h);
	heap_drop(h);
	user_end(part, pid);
	OK(pheap_open(path, FLAGS, &opt, &h));
	cr_assert_str_eq(info_of(h).layout, "new");
	cr_assert(is_empty(h));
	pid = user_start(part, 0, 1);
	heap_drop(h);
	user_end(part, pid);
	/* and the new one may be one that stays */
	h = open_at(path, PHEAP_CREATE);
	cr_assert(is_empty(h));
	mark(h);
	heap_drop(h);
	cr_assert(there(path));
	GIVES(0, open_gives(path, 0));
}

Test(ephemeral, one_survivor_recovers)
{
	struct part *part = shared_make(sizeof *part);
	const char *path = scratch("heap");
	pheap *h = open_at(path, FLAGS);
	uint32_t members;

	mark(h);
	for (int i = 0; i < 10; i++) {
		pid_t pid = user_start(part, FLAGS, 1);
		cr_assert_eq(part->found, 1);
		user_end(part, pid);
	}
	OK(pheap_recover(h, &members));
	cr_assert(there(path));
	heap_drop(h);
	cr_assert(!there(path));
}

/* --- refusals --- */

Test(ephemeral, a_heap_that_stays)
{
	const char *path = scratch("heap");
	pheap *h = open_at(path, PHEAP_CREATE), *again;

	mark(h);
	GIVES(-EINVAL, pheap_open(path, PHEAP_EPHEMERAL, NULL, &again));
	cr_assert(pheap_error_detail(NULL)[0]);
	GIVES(-EINVAL, pheap_open(path, FLAGS, NULL, &again));
	heap_drop(h);
	GIVES(-EINVAL, open_gives(path, PHEAP_EPHEMERAL));
	GIVES(-EINVAL, open_gives(path, FLAGS));
	GIVES(-EEXIST, open_gives(path, FLAGS | PHEAP_EXCL));
	cr_assert(there(path));
	h = open_at(path, 0);
	cr_assert(!is_empty(h));
	heap_drop(h);
}

Test(ephemeral, exclusively)
{
	struct part *part = shared_make(sizeof *part);
	const char *path = scratch("heap");
	pheap *h = open_at(path, FLAGS | PHEAP_EXCL);

	GIVES(-EEXIST, open_gives(path, FLAGS | PHEAP_EXCL));
	pid_t pid = user_start(part, 0, 1);
	heap_drop(h);
	/* the other process has it */
	GIVES(-EEXIST, open_gives(path, FLAGS | PHEAP_EXCL));
	cr_assert(there(path));
	user_end(part, pid);
	GIVES(0, open_gives(path, FLAGS | PHEAP_EXCL));
	cr_assert(!there(path));
}

/* --- names --- */

Test(ephemeral, another_folder_at_close)
{
	const char *path = scratch("heap");
	char *name;
	pheap *h;

	cr_assert_eq(chdir(scratch(".")), 0);
	name = strrchr(path, '/') + 1;
	h = open_at(name, FLAGS);
	cr_assert_eq(chdir("/"), 0);
	cr_assert(there(path));
	heap_drop(h);
	cr_assert(!there(path));
}

Test(ephemeral, hard_link)
{
	struct part *part = shared_make(sizeof *part);
	const char *path = scratch("heap"), *second = scratch("second");
	pheap *h = open_at(path, FLAGS), *again;

	mark(h);
	cr_assert_eq(link(path, second), 0);
	OK(pheap_open(second, 0, NULL, &again));
	cr_assert_eq(again, h, "one file, one heap");
	heap_drop(again);
	heap_drop(h);
	/* one name is left, of a heap that is over */
	cr_assert_eq(there(path) + there(second), 1);
	GIVES(-ENOENT, open_gives(path, 0));
	GIVES(-ENOENT, open_gives(second, 0));
	cr_assert(!there(path) && !there(second));

	/* two processes, each by its name */
	h = open_at(path, FLAGS);
	mark(h);
	cr_assert_eq(link(path, second), 0);
	pid_t pid = user_start(part, 0, 0);
	OK(pheap_open(second, 0, NULL, &again));
	heap_drop(again);
	heap_drop(h);
	cr_assert(there(path) && there(second));
	h = open_at(second, 0);
	cr_assert(!is_empty(h));
	user_end(part, pid);
	cr_assert(there(path) && there(second), "it is in use");
	heap_drop(h);
	GIVES(-ENOENT, open_gives(path, 0));
	GIVES(-ENOENT, open_gives(second, 0));
	cr_assert(!there(path) && !there(second));
}

Test(ephemeral, symbolic_link)
{
	const char *path = scratch("heap"), *sign = scratch("sign");
	pheap *h = open_at(path, FLAGS), *again;

	mark(h);
	cr_assert_eq(symlink(path, sign), 0);
	OK(pheap_open(sign, PHEAP_EPHEMERAL, NULL, &again));
	cr_assert_eq(again, h);
	heap_drop(again);
	heap_drop(h);
	cr_assert(!there(path));
	cr_assert(there(sign), "a link is no name of the file");
	GIVES(-ENOENT, open_gives(sign, 0));
	GIVES(-ENOENT, open_gives(sign, FLAGS));
	/* opened by the link only, the file goes all the same */
	h = open_at(path, FLAGS);
	OK(pheap_open(sign, 0, NULL, &again));
	heap_drop(h);
	heap_drop(again);
	cr_assert(!there(path) && there(sign));
}

static int user_by_link(void *arg)
{
	struct part *part = arg;
	pheap *h;

	CHECK(pheap_open(scratch("sign"), 0, NULL, &h) == 0);
	flag_set(&part->ready, 1);
	flag_wait(&part->go, 1);
	CHECK(pheap_close(h) == 0);
	return 0;
}

Test(ephemeral, symbolic_link_of_the_last_user)
{
	struct part *part = shared_make(sizeof *part);
	const char *path = scratch("heap"), *sign = scratch("sign");
	pheap *h = open_at(path, FLAGS);

	cr_assert_eq(symlink("heap", sign), 0);
	pid_t pid = child_start(user_by_link, part);
	flag_wait(&part->ready, 1);
	heap_drop(h);
	cr_assert(there(path));
	/* the link leads elsewhere by now: what it leads to is not touched */
	cr_assert_eq(unlink(sign), 0);
	file_fill(scratch("innocent"), 10, 1);
	cr_assert_eq(symlink("innocent", sign), 0);
	flag_set(&part->go, 1);
	cr_assert_eq(child_wait(pid), 0);
	cr_assert(!there(path) && there(sign) && there(scratch("innocent")));
}

/* Somebody else removed the name, or moved another file there: that one stays. */
Test(ephemeral, name_of_another_file)
{
	const char *path = scratch("heap");
	pheap *h = open_at(path, FLAGS);

	cr_assert_eq(unlink(path), 0);
	heap_drop(h);
	h = open_at(path, FLAGS);
	cr_assert_eq(unlink(path), 0);
	file_fill(path, 10, 1);
	uint64_t hash = file_hash(path);
	heap_drop(h);
	cr_assert(there(path));
	cr_assert_eq(file_hash(path), hash);
	cr_assert_eq(unlink(path), 0);
	/* a new heap under the name while the old one lives on without one */
	h = open_at(path, FLAGS);
	mark(h);
	cr_assert_eq(unlink(path), 0);
	pheap *next = open_at(path, FLAGS);
	cr_assert_neq(next, h);
	cr_assert(is_empty(next));
	heap_drop(h);
	cr_assert(there(path));
	heap_drop(next);
	cr_assert(!there(path));
}

/* --- rights --- */

static int look_as_nobody(void *arg)
{
	pheap *h;

	(void)arg;
	if (geteuid() == 0) {
		CHECK(setresgid(65534, 65534, 65534) == 0);
		CHECK(setresuid(65534, 65534, 65534) == 0);
	}
	int rc = pheap_open(scratch("heap"), PHEAP_RDONLY, NULL, &h);
	CHECK(rc != 0);
	return -rc & 0x7f;
}

/* Who may not write the file is no member of it, and removes nothing. */
Test(ephemeral, looked_at_without_rights)
{
	struct part *part = shared_make(sizeof *part);
	const char *path = scratch("heap");
	pheap *h = open_at(path, FLAGS);

	mark(h);
	cr_assert_eq(chmod(path, 0444), 0);
	cr_assert_eq(child_run(look_as_nobody, NULL), EACCES, "in use");
	if (geteuid()) {
		heap_drop(h);
		return;
	}
	pid_t pid = user_start(part, 0, 1);
	heap_drop(h);
	user_end(part, pid);
	cr_assert_eq(child_run(look_as_nobody, NULL), EACCES, "stale");
	cr_assert(there(path));
	GIVES(-ENOENT, open_gives(path, 0));
	cr_assert(!there(path));
}

/* --- fork --- */

static int close_forked(void *arg)
{
	CHECK(pheap_close(arg) == 0);
	return 0;
}

Test(ephemeral, forked)
{
	const char *path = scratch("heap");
	pheap *h = open_at(path, FLAGS);

	mark(h);
	GIVES(0, child_run(close_forked, h));
	cr_assert(there(path), "the child's close is none");
	heap_drop(h);
	cr_assert(!there(path));
}

/* --- many --- */

struct crowd {
	struct {
		uint64_t inode; /* 0: has it not */
		uint64_t since; /* number of the open */
	} seats[8];
	uint32_t stop, opens, made;
};

static uint64_t seat_inode(const struct crowd *c, int i, uint64_t *ret_since)
{
	*ret_since = __atomic_load_n(&c->seats[i].since, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&c->seats[i].inode, __ATOMIC_SEQ_CST);
}

struct visit {
	struct crowd *crowd;
	int seat;
};

/* Whoever had the heap before this open and has it after, has the same. */
static int visit_once(struct crowd *c, int seat, uint64_t *seed)
{
	uint64_t inodes[8], sinces[8], inode, since;
	struct pheap_options opt = test_options();
	pheap *h;

	opt.max_size = MIB;
	for (int i = 0; i < 8; i++)
		inodes[i] = seat_inode(c, i, &sinces[i]);
	int rc = pheap_open(scratch("heap"), random_next(seed) % 4 ? FLAGS : 0, &opt, &h);
	if (rc == -ENOENT)
		return 0;
	CHECK(rc == 0);
	const uint64_t *own = pheap_find(h, "inode");
	if (!own) {
		struct stat st;
		pheap_tx *tx;

		CHECK(pheap_begin(h, 0, &tx) == 0);
		own = pheap_root(tx, "inode", 8, 1);
		CHECK(own);
		if (*own == 0) {
			CHECK(lstat(scratch("heap"), &st) == 0);
			inode = st.st_ino;
			CHECK(pheap_store(tx, own, &inode, 8) == 0);
			__atomic_add_fetch(&c->made, 1, __ATOMIC_RELAXED);
		}
		CHECK(pheap_commit(tx) == 0);
	}
	for (int i = 0; i < 8; i++)
		if (i != seat && inodes[i] && inodes[i] == seat_inode(c, i, &since) && since == sinces[i])
			CHECK(inodes[i] == *own);
	__atomic_add_fetch(&c->seats[seat].since, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->seats[seat].inode, *own, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&c->opens, 1, __ATOMIC_RELAXED);
	if (random_next(seed) % 2)
		usleep((useconds_t)(random_next(seed) % 300));
	__atomic_store_n(&c->seats[seat].inode, 0, __ATOMIC_SEQ_CST);
	CHECK(pheap_close(h) == 0);
	return 0;
}

static int visit(void *arg)
{
	const struct visit *v = arg;
	uint64_t seed = random_seed() ^ (uint64_t)getpid();

	while (!__atomic_load_n(&v->crowd->stop, __ATOMIC_ACQUIRE))
		CHECK(visit_once(v->crowd, v->seat, &seed) == 0);
	return 0;
}

Test(ephemeral, one_heap_at_a_time)
{
	enum { VISITORS = 4, KILLS = 80 };
	struct crowd *c = shared_make(sizeof *c);
	uint64_t seed = random_seed();
	struct visit visits[VISITORS];
	pid_t pids[VISITORS];

	(void)scratch("heap");
	for (int i = 0; i < VISITORS; i++) {
		visits[i] = (struct visit){c, i};
		pids[i] = child_start(visit, &visits[i]);
	}
	for (int k = 0; k < KILLS; k++) {
		int i = (int)(random_next(&seed) % VISITORS);

		usleep((useconds_t)(random_next(&seed) % 8000));
		/* a dead one has nothing: said before its locks can go */
		kill(pids[i], SIGSTOP);
		__atomic_add_fetch(&c->seats[i].since, 1, __ATOMIC_SEQ_CST);
		__atomic_store_n(&c->seats[i].inode, 0, __ATOMIC_SEQ_CST);
		child_kill(pids[i]);
		pids[i] = child_start(visit, &visits[i]);
	}
	flag_set(&c->stop, 1);
	for (int i = 0; i < VISITORS; i++)
		cr_expect_eq(child_wait(pids[i]), 0);
	GIVES(-ENOENT, open_gives(scratch("heap"), 0));
	cr_assert(!there(scratch("heap")));
	cr_assert_gt(c->opens, 0);
	cr_assert_gt(c->made, 1);
}
