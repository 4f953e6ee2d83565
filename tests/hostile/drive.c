/* SPDX-License-Identifier: MIT
 *
 * drive.c: see drive.h.
 *
 * Why states are made by the library itself: they then hold what it really writes; only the last store
 * before a death (the commit word) is made by hand, because nothing can be killed there on purpose.
 */
#include "drive.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake.h"
#include "tx.h"

#define ROOTS 24
#define NODES 90
#define WALK_MAX 200000

const char *const drive_names[DRIVE_STATES] = {"clean",	    "undo",	      "undo-long",
					       "committed", "committed-long", "threads"};

struct node {
	pheap_off next;
	uint64_t value[4];
	pheap_off other;
};

static const uint32_t node_ptrs[] = {0, 40};
static const uint32_t pair_ptrs[] = {0, 8, 16};
const struct pheap_type drive_types[DRIVE_TYPES] = {
	{DRIVE_TYPE_NODE, 8, sizeof(struct node), "node", node_ptrs, 2},
	{12, 8, 24, "pair", pair_ptrs, 3},
};

uint32_t drive_level = PHEAP_PROCESS;
uint64_t drive_journal_size = 64 << 10;

const char *drive_level_name(void)
{
	return drive_level == PHEAP_SYNC ? "sync" : drive_level == PHEAP_EPOCH ? "epoch" : "process";
}

uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
	return n ? rng_next(r) % n : 0;
}

/* ---- folder ---- */

static char folder[200];
static pid_t folder_owner;

static void folder_remove(void)
{
	char command[260];

	if (getpid() != folder_owner)
		return;
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	if (system(command))
		fprintf(stderr, "could not remove %s\n", folder);
}

const char *drive_folder(void)
{
	const char *top = getenv("TMPDIR");

	if (folder[0])
		return folder;
	snprintf(folder, sizeof(folder), "%s/pheap-hostile-XXXXXX", top && *top ? top : "/tmp");
	if (!mkdtemp(folder)) {
		perror(folder);
		exit(2);
	}
	folder_owner = getpid();
	atexit(folder_remove);
	/* Also when this process is killed: a child that waits for the end of a pipe. */
	int ends[2];

	if (pipe(ends) == 0) {
		pid_t pid = fork();

		if (pid == 0) {
			char command[260], byte;

			setsid();
			close(ends[1]);
			while (read(ends[0], &byte, 1) > 0)
				;
			snprintf(command, sizeof(command), "rm -rf '%s'", folder);
			_exit(system(command) != 0);
		}
		close(ends[0]);
	}
	return folder;
}

/* ---- making ---- */

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "making a heap: %s: %s\n", what, pheap_error_detail(NULL));
	_exit(3);
}

void drive_options(struct pheap_options *opt)
{
	*opt = (struct pheap_options)PHEAP_OPTIONS_INIT;
	opt->durability = drive_level;
	opt->lock_timeout_ms = 20;
	opt->types = drive_types;
	opt->type_count = DRIVE_TYPES;
}

static void populate_roots(pheap *h)
{
	pheap_tx *tx;

	must(pheap_begin(h, 0, &tx) == 0, "begin");
	for (int i = 0; i < ROOTS; i++) {
		char name[64];

		snprintf(name, sizeof(name), "root-%d", i);
		must(pheap_root(tx, name, 40 + (size_t)i * 24, 100) != NULL, "root");
	}
	must(pheap_commit(tx) == 0, "commit of roots");
	must(pheap_begin(h, 0, &tx) == 0, "begin");
	must(pheap_root_set(tx, "root-3", NULL) == 0, "removing a root");
	must(pheap_commit(tx) == 0, "commit");
}

static void populate_nodes(pheap *h)
{
	pheap_off before = 0;
	void *extra[12];
	pheap_tx *tx;

	must(pheap_begin(h, 0, &tx) == 0, "begin");
	for (unsigned i = 0; i < NODES; i++) {
		struct node *n = pheap_zalloc(tx, sizeof(*n), DRIVE_TYPE_NODE);

		must(n != NULL, "node");
		n->next = before;
		n->value[0] = i;
		before = pheap_offset(h, n);
	}
	must(pheap_root_set(tx, "list", pheap_at(h, before)) == 0, "list");
	for (unsigned i = 0; i < 12; i++) {
		extra[i] = pheap_zalloc(tx, (i + 1) * 37, 0);
		must(extra[i] != NULL, "block");
	}
	/* Runs of several chunks. */
	for (unsigned i = 0; i < 5; i++)
		must(pheap_zalloc(tx, i < 3 ? 6000 : 16000, 0) != NULL, "large block");
	must(pheap_zalloc(tx, 5 * 4096, DRIVE_TYPE_EXTENT) != NULL, "extent");
	must(pheap_zalloc(tx, 18000, 0) != NULL, "extent");
	must(pheap_commit(tx) == 0, "commit of nodes");
	must(pheap_begin(h, 0, &tx) == 0, "begin");
	for (unsigned i = 0; i < 12; i += 3)
		must(pheap_free(tx, extra[i]) == 0, "free");
	must(pheap_commit(tx) == 0, "commit of frees");
}

static void change_undo(pheap_tx *tx, pheap *h)
{
	const struct node *n = pheap_find(h, "list");

	for (int i = 0; i < 8 && n; i++) {
		struct node *w = pheap_modify(tx, n, sizeof(*n));

		must(w != NULL, "modify");
		w->value[1] = ~0ull;
		w->next = pheap_offset(h, n);
		n = i < 7 ? (const struct node *)pheap_next(h, DRIVE_TYPE_NODE, n) : NULL;
	}
}

static void change_long(pheap_tx *tx, pheap *h)
{
	const void *p = pheap_next(h, DRIVE_TYPE_EXTENT, NULL);
	pheap_savepoint_id sp;
	char *w = pheap_modify(tx, p, 5 * 4096);

	must(w != NULL, "long modify");
	memset(w, 0xee, 5 * 4096);
	must(pheap_savepoint(tx, &sp) == 0, "savepoint");
	w = pheap_modify(tx, p, 5 * 4096);
	must(w != NULL, "long modify");
	memset(w, 0xdd, 5 * 4096);
}

static void change_metadata(pheap_tx *tx, pheap *h)
{
	const struct node *n = pheap_find(h, "list"), *second = pheap_next(h, DRIVE_TYPE_NODE, NULL);
	char text[100];
	void *p;

	memset(text, 0x77, sizeof(text));
	for (unsigned i = 0; i < 6; i++) {
		p = pheap_zalloc(tx, 48 + i * 64, DRIVE_TYPE_NODE);
		must(p != NULL, "alloc");
	}
	p = pheap_alloc(tx, 3 * 4096 - 9, DRIVE_TYPE_EXTENT);
	must(p && pheap_alloc(tx, 20000, 3), "extent");
	must(pheap_free(tx, pheap_at(h, n->next)) == 0, "free");
	must(pheap_free(tx, pheap_next(h, DRIVE_TYPE_EXTENT, NULL)) == 0, "free of an extent");
	must(pheap_defer(tx, n->value, text, sizeof(n->value)) == 0, "defer");
	must(pheap_defer_u64(tx, &second->value[2], 0x1234) == 0, "publish");
	must(pheap_root_set(tx, "new-name", n) == 0, "root");
	must(pheap_root(tx, "root-100", 64, 0) != NULL, "root");
}

static void commit_word(pheap_tx *tx)
{
	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, tx->mode, PHD_STEP_COMMITTED),
			 __ATOMIC_RELEASE);
}

static pthread_barrier_t met;

static void *other_thread(void *arg)
{
	const uint64_t keys[] = {5, 6, 7};
	pheap *h = arg;
	pheap_tx *tx;

	must(pheap_begin(h, PHEAP_CONCURRENT, &tx) == 0, "concurrent begin");
	must(pheap_lock_shared(tx, keys, 1) == 0 && pheap_lock(tx, keys + 1, 2) == 0, "lock");
	must(pheap_zalloc(tx, 200, 33) != NULL, "alloc");
	must(pheap_store(tx, &((const struct node *)pheap_next(h, DRIVE_TYPE_NODE, NULL))->value[3], keys,
			 8) == 0,
	     "store");
	pthread_barrier_wait(&met);
	pause();
	return NULL;
}

static void change_threads(pheap *h)
{
	pthread_t thread;
	pheap_tx *tx;

	must(pheap_begin(h, PHEAP_CONCURRENT, &tx) == 0, "concurrent begin");
	must(pheap_alloc(tx, 40, 34) && pheap_reserve(h, 100, 35) && pheap_reserve(h, 30000, 35), "alloc");
	pthread_barrier_init(&met, NULL, 2);
	must(pthread_create(&thread, NULL, other_thread, h) == 0, "thread");
	pthread_barrier_wait(&met);
	commit_word(tx);
}

static void change(pheap *h, enum drive_state state)
{
	pheap_tx *tx;

	if (state == DRIVE_THREADS) {
		change_threads(h);
		return;
	}
	must(pheap_begin(h, 0, &tx) == 0, "begin");
	if (state == DRIVE_COMMITTED || state == DRIVE_COMMITTED_LONG || state == DRIVE_UNDO_LONG)
		change_metadata(tx, h);
	if (state == DRIVE_COMMITTED_LONG || state == DRIVE_UNDO_LONG)
		change_long(tx, h);
	change_undo(tx, h);
	if (state == DRIVE_COMMITTED || state == DRIVE_COMMITTED_LONG)
		commit_word(tx);
}

static void make(const char *path, enum drive_state state, uint64_t initial_size, uint64_t max_size)
{
	struct pheap_options opt;
	pheap *h;

	drive_options(&opt);
	opt.initial_size = initial_size;
	opt.max_size = max_size;
	opt.journal_size = drive_level == PHEAP_PROCESS ? 8192 : drive_journal_size;
	opt.lane_count = 8;
	opt.layout = "hostile";
	must(pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &opt, &h) == 0, "create");
	populate_roots(h);
	populate_nodes(h);
	if (state == DRIVE_CLEAN)
		must(pheap_close(h) == 0, "close");
	else
		change(h, state);
	_exit(0);
}

void drive_make(const char *path, enum drive_state state, uint64_t initial_size, uint64_t max_size)
{
	int status = -1;
	pid_t pid;

	unlink(path);
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		make(path, state, initial_size, max_size);
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || status) {
		fprintf(stderr, "no heap in state %s: status 0x%x\n", drive_names[state], (unsigned)status);
		exit(2);
	}
}

/* ---- using ---- */

static uint64_t sum_bytes(uint64_t sum, const void *p, size_t n)
{
	const unsigned char *c = p;

	for (; n; n--)
		sum = (sum ^ *c++) * 0x100000001b3ull;
	return sum;
}

static uint64_t sum_roots(pheap *h, uint64_t sum, const char **what)
{
	char name[64] = "";
	unsigned steps = 0;

	while (pheap_root_next(h, name) == 0) {
		const void *p = pheap_find(h, name);
		pheap_off off = pheap_offset(h, p);

		if (++steps > WALK_MAX) {
			*what = "the walk over the roots does not end";
			return 0;
		}
		sum = sum_bytes(sum_bytes(sum, name, strlen(name)), &off, 8);
		if (p)
			sum = sum_bytes(sum, p, pheap_usable_size(h, p) ? 8 : 1);
	}
	return sum;
}

static uint64_t sum_blocks(pheap *h, uint64_t sum, uint32_t type, const char **what)
{
	unsigned steps = 0;

	for (const void *p = NULL; (p = pheap_next(h, type, p)) != NULL;) {
		size_t n = pheap_usable_size(h, p);
		pheap_off off = pheap_offset(h, p);
		uint32_t of = pheap_type_of(h, p);

		if (++steps > WALK_MAX) {
			*what = "the walk over the blocks does not end";
			return 0;
		}
		sum = sum_bytes(sum_bytes(sum_bytes(sum, &off, 8), &of, 4), p, n);
	}
	return sum;
}

uint64_t drive_walk(pheap *h, const char **what)
{
	struct pheap_info info;
	struct pheap_stats stats;
	uint64_t sum = 0xcbf29ce484222325ull;

	*what = NULL;
	if (pheap_info(h, &info, sizeof(info)) || pheap_stats(h, &stats, sizeof(stats)))
		*what = "pheap_info or pheap_stats failed";
	(void)pheap_find(h, "root-0");
	(void)pheap_find(h, "no such root");
	sum = sum_roots(h, sum, what);
	sum = sum_blocks(h, sum, UINT32_MAX, what);
	if (!*what)
		(void)sum_blocks(h, sum, DRIVE_TYPE_NODE, what);
	return sum;
}

/* A block of the walk, somewhere. */
static const void *any_block(pheap *h, struct rng *r)
{
	const void *p = NULL;

	for (uint64_t i = rng_below(r, 40) + 1; i; i--) {
		const void *next = pheap_next(h, UINT32_MAX, p);

		if (!next)
			break;
		p = next;
	}
	return p;
}

static void step(pheap *h, pheap_tx *tx, struct rng *r, pheap_savepoint_id *sp)
{
	static const size_t sizes[] = {1, 16, 48, 100, 700, 4000, 16384, 20000, 60000, 300000};
	size_t n = sizes[rng_below(r, sizeof(sizes) / sizeof(*sizes))];
	const void *p = any_block(h, r);
	uint64_t keys[3] = {rng_below(r, 50), rng_below(r, 50), rng_below(r, 50)};
	size_t usable = pheap_usable_size(h, p);
	char name[64], *w;

	snprintf(name, sizeof(name), "root-%d", (int)rng_below(r, ROOTS + 4));
	switch (rng_below(r, 14)) {
	case 0:
	case 1:
		(void)!pheap_zalloc(tx, n, (uint32_t)rng_below(r, 14));
		break;
	case 2:
		(void)!pheap_alloc_aligned(tx, 64, n, DRIVE_TYPE_NODE);
		break;
	case 3:
	case 4:
		(void)pheap_free(tx, p);
		break;
	case 5:
	case 6:
		w = pheap_modify(tx, p, usable);
		if (w)
			memset(w, (int)n, usable);
		break;
	case 7:
		w = p ? pheap_realloc(tx, p, n) : NULL;
		if (w)
			memset(w, 1, n);
		break;
	case 8:
		if (usable >= 8)
			(void)pheap_defer_u64(tx, p, n);
		break;
	case 9:
		if (usable)
			(void)pheap_defer(tx, p, name, usable < 8 ? usable : 8);
		break;
	case 10:
		(void)!pheap_root(tx, name, 64, 100);
		break;
	case 11:
		(void)pheap_root_set(tx, name, rng_below(r, 3) ? p : NULL);
		break;
	case 12:
		if (*sp == 0 || rng_below(r, 2))
			(void)!pheap_savepoint(tx, sp);
		else
			(void)pheap_rollback(tx, *sp);
		break;
	default:
		if (rng_below(r, 2))
			(void)!pheap_lock(tx, keys, 3);
		else
			(void)!pheap_lock_shared(tx, keys, 3);
	}
}

void drive_transact(pheap *h, struct rng *r)
{
	static const uint32_t modes[] = {0, 0, PHEAP_CONCURRENT, PHEAP_READ, PHEAP_CONCURRENT | PHEAP_NOWAIT};

	for (uint64_t i = rng_below(r, 5) + 2; i; i--) {
		pheap_savepoint_id sp = 0;
		pheap_tx *tx;
		void *reserved = rng_below(r, 4) == 0 ? pheap_reserve(h, rng_below(r, 30000) + 1, 40) : NULL;

		if (pheap_begin(h, modes[rng_below(r, 5)], &tx)) {
			if (reserved)
				pheap_cancel(h, reserved);
			continue;
		}
		for (uint64_t k = rng_below(r, 12) + 1; k; k--)
			step(h, tx, r, &sp);
		if (reserved)
			(void)pheap_publish(tx, reserved);
		if (rng_below(r, 3))
			(void)!pheap_commit(tx);
		else
			pheap_abort(tx);
	}
}
