/* SPDX-License-Identifier: MIT
 *
 * map_pheap.c: a crash-safe hash table as a user writes it on the public header: exclusive transactions,
 * lookups in PHEAP_READ ones, which keep changes off, and also as bare loads.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "map.h"
#include "heap_use.h"

#define ROOM_SIZE (64ull << 20) /* beside the records */
#define RECORD_ROOM 48u

struct record;
PHEAP_DECLARE(struct record, 1);

struct record {
	PHEAP_PTR(struct record) next;
	uint64_t key, value;
};

struct bucket {
	PHEAP_PTR(struct record) first;
};
PHEAP_DECLARE(struct bucket, 2);

struct table {
	uint64_t bucket_count, record_count;
	PHEAP_PTR(struct bucket) buckets;
};
PHEAP_DECLARE(struct table, 3);

struct map {
	pheap *heap;
	const struct table *table;
	char path[4096];
};

static void *map_open(const char *folder, uint64_t key_count)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	struct map *map = calloc(1, sizeof *map);
	const uint64_t n = map_bucket_count(key_count);
	struct table *table;
	pheap_tx *tx;
	int rc;

	if (!map)
		bench_die("pheap: no memory");
	snprintf(map->path, sizeof map->path, "%s/map-pheap", folder);
	unlink(map->path);
	opt.durability = PHEAP_PROCESS;
	opt.initial_size = opt.max_size = ROOM_SIZE + n * sizeof(struct bucket) + key_count * RECORD_ROOM;
	rc = pheap_open(map->path, PHEAP_CREATE | PHEAP_EXCL, &opt, &map->heap);
	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	tx = heap_begin(map->heap, 0);
	map->table = PHEAP_ROOT(tx, "table", struct table);
	table = PHEAP_MODIFY(tx, map->table);
	if (table) {
		const struct bucket *buckets =
			pheap_zalloc(tx, n * sizeof *buckets, PHEAP_TYPE(struct bucket));

		table->bucket_count = n;
		table->buckets = PHEAP_REF(tx, struct bucket, buckets);
	}
	heap_commit(map->heap, tx);
	return map;
}

static void map_close(void *self)
{
	struct map *map = self;
	int rc = pheap_close(map->heap);

	if (rc)
		heap_fail(NULL, "pheap_close", rc);
	unlink(map->path);
	free(map);
}

/* Where the record is linked, or where it would be. */
static const PHEAP_PTR(struct record) * find(const pheap *heap, const struct table *table, uint64_t key)
{
	const struct bucket *buckets = PHEAP_GET(heap, table->buckets);
	const PHEAP_PTR(struct record) *link = &buckets[map_bucket(key, table->bucket_count)].first;

	for (const struct record *r; (r = PHEAP_GET(heap, *link)) && r->key != key;)
		link = &r->next;
	return link;
}

static void put(pheap_tx *tx, const struct table *old, uint64_t key, uint64_t value)
{
	const PHEAP_PTR(struct record) *link = find(pheap_heap(tx), old, key);
	struct record *record;
	struct table *table;

	map_found("pheap", !link->off);
	record = pheap_alloc(tx, sizeof *record, PHEAP_TYPE(struct record));
	table = PHEAP_MODIFY(tx, old);
	if (!record || !table)
		return; /* the commit says why */
	record->next = *link;
	record->key = key;
	record->value = value;
	table->record_count++;
	PHEAP_SET(tx, *link, PHEAP_REF(tx, struct record, record));
}

static void insert(void *self, struct map_walk *walk, uint64_t count)
{
	const struct map *map = self;

	for (uint64_t i = 0; i < count; i++) {
		const uint64_t key = map_walk_key(walk);
		pheap_tx *tx = heap_begin(map->heap, 0);

		put(tx, map->table, key, map_value(key));
		heap_commit(map->heap, tx);
	}
}

static void lookup(void *self, struct map_walk *walk, uint64_t count)
{
	const struct map *map = self;

	for (uint64_t i = 0; i < count; i++) {
		const uint64_t key = map_walk_key(walk);
		pheap_tx *tx = heap_begin(map->heap, PHEAP_READ);
		const struct record *record = PHEAP_GET(tx, *find(map->heap, map->table, key));

		map_found("pheap", record && record->value == map_value(key));
		heap_commit(map->heap, tx);
	}
}

static void lookup_bare(void *self, struct map_walk *walk, uint64_t count)
{
	const struct map *map = self;

	for (uint64_t i = 0; i < count; i++) {
		const uint64_t key = map_walk_key(walk);
		const struct record *record = PHEAP_GET(map->heap, *find(map->heap, map->table, key));

		map_found("pheap", record && record->value == map_value(key));
	}
}

static void take(pheap_tx *tx, const struct table *old, uint64_t key)
{
	const PHEAP_PTR(struct record) *link = find(pheap_heap(tx), old, key);
	const struct record *record = PHEAP_GET(tx, *link);
	struct table *table = PHEAP_MODIFY(tx, old);

	map_found("pheap", record);
	if (table)
		table->record_count--;
	PHEAP_SET(tx, *link, record->next);
	pheap_free(tx, record);
}

static void map_remove(void *self, struct map_walk *walk, uint64_t count)
{
	const struct map *map = self;

	for (uint64_t i = 0; i < count; i++) {
		pheap_tx *tx = heap_begin(map->heap, 0);

		take(tx, map->table, map_walk_key(walk));
		heap_commit(map->heap, tx);
	}
}

static uint64_t map_count(void *self)
{
	return ((const struct map *)self)->table->record_count;
}

const struct map_system map_pheap = {
	.name = "pheap",
	.open = map_open,
	.close = map_close,
	.insert = insert,
	.lookup = lookup,
	.lookup_bare = lookup_bare,
	.remove = map_remove,
	.count = map_count,
};
