/* SPDX-License-Identifier: MIT
 *
 * classic_pheap.c: the classic in a heap: concurrent transactions, one call that locks both keys. A key is
 * the record's offset, as the library's convention is; the heap has as many stripes as the others have
 * locks, to the nearest power of two (1024 for 1000).
 */
#include <stdlib.h>

#include "classic.h"
#include "heap_use.h"

#define HEAP_ROOM (64ull << 20)

PHEAP_DECLARE(struct classic_account, 1);

struct store {
	struct classic_size size;
	pheap *heap;
	const struct classic_account *accounts;
};

/* A heap has a power of two of stripes: the one nearest to the others' number of locks. */
static uint32_t stripes_near(uint64_t lock_count)
{
	uint32_t n = 1;

	while (n * 3ull / 2 < lock_count)
		n *= 2;
	return n;
}

static void make(const char *path, const struct classic_size *size)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	uint64_t n = size->record_count * sizeof(struct classic_account);
	struct classic_account *accounts;
	pheap_tx *tx;
	pheap *heap;
	int rc;

	/* a 42nd is for logs, a 73rd for the directory */
	opt.initial_size = opt.max_size = n + n / 16 + HEAP_ROOM;
	opt.durability = PHEAP_PROCESS;
	opt.member_count = 256;
	opt.lane_count = 1024;
	opt.stripe_count = stripes_near(size->lock_count);
	rc = pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &opt, &heap);
	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	rc = pheap_begin(heap, 0, &tx);
	if (rc)
		heap_fail(heap, "pheap_begin", rc);
	accounts = pheap_alloc_aligned(tx, sizeof *accounts, n, PHEAP_TYPE(struct classic_account));
	for (uint64_t i = 0; accounts && i < size->record_count; i++)
		accounts[i] = (struct classic_account){.balance = CLASSIC_BALANCE};
	pheap_root_set(tx, "accounts", accounts);
	rc = pheap_commit(tx);
	if (rc)
		heap_fail(heap, "pheap_commit", rc);
	rc = pheap_close(heap);
	if (rc)
		heap_fail(NULL, "pheap_close", rc);
}

static void *join(const char *path, const struct classic_size *size)
{
	struct store *store = calloc(1, sizeof *store);
	int rc;

	if (!store)
		bench_die("pheap: no memory");
	store->size = *size;
	rc = pheap_open(path, 0, NULL, &store->heap);
	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	store->accounts = pheap_find(store->heap, "accounts");
	if (!store->accounts)
		bench_die("pheap: the root is gone");
	return store;
}

static void populate(void *self)
{
	struct store *store = self;

	/* only to fault its pages in: no byte changes */
	bench_populate((void *)(uintptr_t)store->accounts,
		       store->size.record_count * sizeof *store->accounts);
}

static void run(void *self, struct team_worker *w)
{
	struct store *store = self;

	do {
		struct classic_move move = classic_draw(&w->rng, &store->size);
		uint64_t keys[2] = {pheap_offset(store->heap, &store->accounts[move.from]),
				    pheap_offset(store->heap, &store->accounts[move.to])};
		int64_t *from, *to;
		pheap_tx *tx;
		int rc = pheap_begin(store->heap, PHEAP_CONCURRENT, &tx);

		if (rc)
			heap_fail(store->heap, "pheap_begin", rc);
		rc = pheap_lock(tx, keys, 2);
		if (rc)
			heap_fail(store->heap, "pheap_lock", rc);
		from = PHEAP_MODIFY(tx, &store->accounts[move.from].balance);
		to = PHEAP_MODIFY(tx, &store->accounts[move.to].balance);
		if (from && to) {
			*from -= move.amount;
			*to += move.amount;
		}
		rc = pheap_commit(tx);
		if (rc)
			heap_fail(store->heap, "pheap_commit", rc);
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

const struct classic_system classic_pheap = {
	.name = "pheap",
	.thread_count = 1,
	.make = make,
	.join = join,
	.populate = populate,
	.run = run,
	.sum = sum,
};
