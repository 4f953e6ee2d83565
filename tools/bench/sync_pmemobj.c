/* SPDX-License-Identifier: MIT
 *
 * sync_pmemobj.c: sync-commit in libpmemobj on an ordinary file: it flushes by msync, range for range, which
 * sync.c has its environment say. Locks are the pool's own mutexes, held by the transaction.
 */
#include <libpmemobj.h>
#include <stdlib.h>
#include <string.h>

#include "sync.h"

#define LAYOUT "pheap-bench"
#define POOL_ROOM (64ull << 20)
#define LOCK_COUNT 4096u

struct root {
	PMEMoid records, locks;
};

struct record {
	uint64_t words[BENCH_RECORD_SIZE / 8];
};

struct store {
	PMEMobjpool *pool;
	struct record *records;
	PMEMmutex *locks;
	bool alone;
};

static _Noreturn void fail(const char *call)
{
	bench_die("libpmemobj: %s: %s", call, pmemobj_errormsg());
}

/* The pool's blocks start 16 bytes into a line. */
static void *line_of(PMEMoid oid)
{
	char *p = pmemobj_direct(oid);

	if (!p)
		fail("pmemobj_direct");
	return p + (-(uintptr_t)p & 63);
}

static struct root *root_of(PMEMobjpool *pool)
{
	struct root *root = pmemobj_direct(pmemobj_root(pool, sizeof(struct root)));

	if (!root)
		fail("pmemobj_root");
	return root;
}

static const char *make(const char *path, const struct sync_plan *plan)
{
	uint64_t n = plan->record_count * sizeof(struct record);
	PMEMobjpool *pool = pmemobj_create(path, LAYOUT, n + n / 16 + POOL_ROOM, 0600);
	struct root *root;

	if (!pool)
		fail("pmemobj_create");
	root = root_of(pool);
	if (pmemobj_zalloc(pool, &root->records, n + 64, 1) ||
	    pmemobj_zalloc(pool, &root->locks, LOCK_COUNT * sizeof(PMEMmutex) + 64, 2))
		fail("pmemobj_zalloc");
	pmemobj_close(pool);
	return NULL;
}

static void *join(const char *path, const struct sync_plan *plan)
{
	static struct store store;
	struct root *root;

	store.pool = pmemobj_open(path, LAYOUT);
	if (!store.pool)
		fail("pmemobj_open");
	root = root_of(store.pool);
	store.records = line_of(root->records);
	store.locks = line_of(root->locks);
	store.alone = plan->process_count * plan->thread_count == 1;
	return &store;
}

/* In the order of the locks, each once. */
static void locks_take(struct store *store, const struct sync_update *u)
{
	unsigned last = 0, next;

	for (unsigned i = 0; i < u->count; i++, last = next) {
		next = LOCK_COUNT + 1;
		for (unsigned j = 0; j < u->count; j++) {
			unsigned lock = (unsigned)(u->records[j] % LOCK_COUNT) + 1;

			next = lock > last && lock < next ? lock : next;
		}
		if (next > LOCK_COUNT)
			return;
		if (pmemobj_tx_lock(TX_PARAM_MUTEX, &store->locks[next - 1]))
			fail("pmemobj_tx_lock");
	}
}

static void update(void *self, const struct sync_update *u)
{
	struct store *store = self;

	if (pmemobj_tx_begin(store->pool, NULL, TX_PARAM_NONE))
		fail("pmemobj_tx_begin");
	if (!store->alone)
		locks_take(store, u);
	for (unsigned i = 0; i < u->count; i++) {
		struct record *record = &store->records[u->records[i]];

		if (pmemobj_tx_add_range_direct(record, sizeof *record))
			fail("pmemobj_tx_add_range_direct");
		memcpy(record->words, u->words, sizeof u->words);
	}
	pmemobj_tx_commit();
	if (pmemobj_tx_end())
		fail("pmemobj_tx_end");
}

const struct sync_system sync_pmemobj = {
	.name = "libpmemobj",
	.one_process = true,
	.make = make,
	.join = join,
	.update = update,
};
