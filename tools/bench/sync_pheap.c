/* SPDX-License-Identifier: MIT
 *
 * sync_pheap.c: sync-commit in a heap of durability SYNC. One thread alone has exclusive transactions;
 * several have concurrent ones with a lock for each record, the record's offset being the key.
 *
 * With tickets an update commits without waiting and then waits for the one that is ticket_count before it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "heap_use.h"
#include "sync.h"

#define STEP_SIZE (1ull << 20)
#define JOURNAL_SIZE (64ull << 20)
#define HEAP_ROOM (2 * JOURNAL_SIZE + (32ull << 20)) /* its ring in memory is in the file too */

struct record {
	uint64_t words[BENCH_RECORD_SIZE / 8];
};
PHEAP_DECLARE(struct record, 1);

struct store {
	pheap *heap;
	const struct record *records;
	uint32_t flags; /* of pheap_begin */
	unsigned ticket_count;
};

struct seat {
	const struct store *store;
	uint64_t *tickets; /* the oldest at `next`; 0: none */
	unsigned next;
};

static int heap_make(const char *path, const struct sync_plan *plan, pheap **ret)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	uint64_t n = plan->record_count * sizeof(struct record);

	opt.initial_size = opt.max_size = n + n / 16 + HEAP_ROOM;
	opt.durability = PHEAP_SYNC;
	opt.journal_size = JOURNAL_SIZE;
	opt.member_count = 32;
	opt.lane_count = 256;
	opt.stripe_count = 4096;
	return pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &opt, ret);
}

static const char *make(const char *path, const struct sync_plan *plan)
{
	static char why[256];
	pheap_tx *tx;
	pheap *heap;
	int rc = heap_make(path, plan, &heap);

	if (rc) {
		snprintf(why, sizeof why, "pheap_open: %s (%s)", pheap_strerror(rc),
			 pheap_error_detail(NULL));
		return why;
	}
	rc = pheap_begin(heap, 0, &tx);
	if (rc)
		heap_fail(heap, "pheap_begin", rc);
	pheap_root_set(
		tx, "records",
		pheap_zalloc(tx, plan->record_count * sizeof(struct record), PHEAP_TYPE(struct record)));
	rc = pheap_commit(tx);
	if (rc)
		heap_fail(heap, "pheap_commit", rc);
	rc = pheap_close(heap);
	if (rc)
		heap_fail(NULL, "pheap_close", rc);
	return NULL;
}

/* An epoch's first change of a page waits for its image to be durable: not in a turn. */
static void records_warm(const struct store *store, uint64_t size)
{
	const char *bytes = (const char *)store->records;

	for (uint64_t off = 0; off < size; off += STEP_SIZE) {
		uint64_t n = size - off < STEP_SIZE ? size - off : STEP_SIZE;
		pheap_tx *tx;
		int rc = pheap_begin(store->heap, 0, &tx);

		if (rc)
			heap_fail(store->heap, "pheap_begin", rc);
		if (!pheap_modify(tx, bytes + off, n))
			heap_fail(store->heap, "pheap_modify", pheap_error(tx));
		rc = pheap_commit(tx);
		if (rc)
			heap_fail(store->heap, "pheap_commit", rc);
	}
}

static void *join(const char *path, const struct sync_plan *plan)
{
	static struct store store;
	int rc = pheap_open(path, 0, NULL, &store.heap);

	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	store.records = pheap_find(store.heap, "records");
	if (!store.records)
		bench_die("pheap: the root is gone");
	store.flags = plan->process_count * plan->thread_count > 1 ? PHEAP_CONCURRENT : 0;
	store.ticket_count = plan->ticket_count;
	if (!plan->cold)
		records_warm(&store, plan->record_count * sizeof(struct record));
	return &store;
}

static void *enter(void *self)
{
	const struct store *store = self;
	struct seat *seat = calloc(1, sizeof *seat);

	if (seat && store->ticket_count)
		seat->tickets = calloc(store->ticket_count, sizeof *seat->tickets);
	if (!seat || (store->ticket_count && !seat->tickets))
		bench_die("pheap: no memory");
	seat->store = store;
	return seat;
}

static void locks_take(const struct store *store, pheap_tx *tx, const struct sync_update *u)
{
	uint64_t keys[SYNC_RANGE_MAX];
	int rc;

	for (unsigned i = 0; i < u->count; i++)
		keys[i] = pheap_offset(store->heap, &store->records[u->records[i]]);
	rc = pheap_lock(tx, keys, u->count);
	if (rc)
		heap_fail(store->heap, "pheap_lock", rc);
}

static void ticket_wait(struct seat *seat)
{
	uint64_t *ticket = &seat->tickets[seat->next];
	int rc = *ticket ? pheap_wait(seat->store->heap, *ticket, -1) : 0;

	if (rc)
		heap_fail(seat->store->heap, "pheap_wait", rc);
	*ticket = 0;
}

static void commit(struct seat *seat, pheap_tx *tx)
{
	const struct store *store = seat->store;
	int rc;

	if (!store->ticket_count) {
		rc = pheap_commit(tx);
	} else {
		rc = pheap_commit_async(tx, &seat->tickets[seat->next]);
		seat->next = (seat->next + 1) % store->ticket_count;
	}
	if (rc)
		heap_fail(store->heap, "pheap_commit", rc);
}

static void update(void *self, const struct sync_update *u)
{
	struct seat *seat = self;
	const struct store *store = seat->store;
	pheap_tx *tx;
	int rc;

	if (store->ticket_count)
		ticket_wait(seat);
	rc = pheap_begin(store->heap, store->flags, &tx);
	if (rc)
		heap_fail(store->heap, "pheap_begin", rc);
	if (store->flags & PHEAP_CONCURRENT)
		locks_take(store, tx, u);
	for (unsigned i = 0; i < u->count; i++) {
		struct record *record = PHEAP_MODIFY(tx, &store->records[u->records[i]]);

		if (record)
			memcpy(record->words, u->words, sizeof u->words);
	}
	commit(seat, tx);
}

static void drain(void *self)
{
	struct seat *seat = self;

	for (unsigned i = 0; i < seat->store->ticket_count; i++) {
		ticket_wait(seat);
		seat->next = (seat->next + 1) % seat->store->ticket_count;
	}
}

const struct sync_system sync_pheap = {
	.name = "pheap",
	.make = make,
	.join = join,
	.enter = enter,
	.update = update,
	.drain = drain,
};
