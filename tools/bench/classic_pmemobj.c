/* SPDX-License-Identifier: MIT
 *
 * classic_pmemobj.c: the classic in libpmemobj: four threads of one process, since a pool is open in one
 * process at a time. Locks are the pool's own mutexes, held by the transaction; flushes are off (main.c).
 */
#include <libpmemobj.h>
#include <stdlib.h>

#include "classic.h"

#define LAYOUT "pheap-bench"
#define POOL_ROOM (64ull << 20)

struct root {
	PMEMoid accounts, locks;
};

struct store {
	struct classic_size size;
	PMEMobjpool *pool;
	struct classic_account *accounts;
	PMEMmutex *locks;
};

static _Noreturn void fail(const char *call)
{
	bench_die("%s: %s", call, pmemobj_errormsg());
}

/* The pool's blocks start 16 bytes into a line. */
static void *line_of(PMEMoid oid)
{
	char *p = pmemobj_direct(oid);

	if (!p)
		fail("pmemobj_direct");
	return p + (-(uintptr_t)p & 63);
}

static void store_fill(struct store *store, const struct classic_size *size)
{
	struct root *root = pmemobj_direct(pmemobj_root(store->pool, sizeof(struct root)));

	if (!root)
		fail("pmemobj_root");
	if (OID_IS_NULL(root->accounts) &&
	    (pmemobj_zalloc(store->pool, &root->accounts, size->record_count * sizeof *store->accounts + 64,
			    1) ||
	     pmemobj_zalloc(store->pool, &root->locks, size->lock_count * sizeof *store->locks + 64, 2)))
		fail("pmemobj_zalloc");
	store->size = *size;
	store->accounts = line_of(root->accounts);
	store->locks = line_of(root->locks);
}

static void make(const char *path, const struct classic_size *size)
{
	struct store store;
	uint64_t n = size->record_count * sizeof(struct classic_account);

	store.pool = pmemobj_create(path, LAYOUT, n + n / 16 + POOL_ROOM, 0600);
	if (!store.pool)
		fail("pmemobj_create");
	store_fill(&store, size);
	for (uint64_t i = 0; i < size->record_count; i++)
		store.accounts[i].balance = CLASSIC_BALANCE;
	pmemobj_close(store.pool);
}

static void *join(const char *path, const struct classic_size *size)
{
	struct store *store = calloc(1, sizeof *store);

	if (!store)
		bench_die("libpmemobj: no memory");
	store->pool = pmemobj_open(path, LAYOUT);
	if (!store->pool)
		fail("pmemobj_open");
	store_fill(store, size);
	return store;
}

static void populate(void *self)
{
	struct store *store = self;

	bench_populate(store->accounts, store->size.record_count * sizeof *store->accounts);
}

static void begin(PMEMobjpool *pool, PMEMmutex *a, PMEMmutex *b)
{
	PMEMmutex *first = a < b ? a : b, *second = a < b ? b : a;
	int rc;

	if (first == second)
		rc = pmemobj_tx_begin(pool, NULL, TX_PARAM_MUTEX, first, TX_PARAM_NONE);
	else
		rc = pmemobj_tx_begin(pool, NULL, TX_PARAM_MUTEX, first, TX_PARAM_MUTEX, second,
				      TX_PARAM_NONE);
	if (rc)
		fail("pmemobj_tx_begin");
}

static int64_t *modify(int64_t *word)
{
	if (pmemobj_tx_add_range_direct(word, sizeof *word))
		fail("pmemobj_tx_add_range_direct");
	return word;
}

static void run(void *self, struct team_worker *w)
{
	struct store *store = self;

	do {
		struct classic_move move = classic_draw(&w->rng, &store->size);

		begin(store->pool, &store->locks[move.from % store->size.lock_count],
		      &store->locks[move.to % store->size.lock_count]);
		*modify(&store->accounts[move.from].balance) -= move.amount;
		*modify(&store->accounts[move.to].balance) += move.amount;
		pmemobj_tx_commit();
		if (pmemobj_tx_end())
			fail("pmemobj_tx_end");
	} while (team_next(w));
}

static int64_t sum(void *self)
{
	struct store *store = self;
	int64_t ret = 0;

	for (uint64_t i = 0; i < store->size.record_count; i++)
		ret += store->accounts[i].balance;
	return ret;
}

const struct classic_system classic_pmemobj = {
	.name = "libpmemobj",
	.thread_count = CLASSIC_WORKER_COUNT,
	.make = make,
	.join = join,
	.populate = populate,
	.run = run,
	.sum = sum,
};
