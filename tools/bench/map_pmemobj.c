/* SPDX-License-Identifier: MIT
 *
 * map_pmemobj.c: the hash table on libpmemobj, with its typed pointers. Lookups are bare loads: it has
 * nothing that keeps changes off but a lock of the caller's, which is left out in its favour.
 */
#include <libpmemobj.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "map.h"

#define ROOM_SIZE (64ull << 20) /* beside the records */
#define RECORD_ROOM 96u
#define LAYOUT "pheap-bench-map"

POBJ_LAYOUT_BEGIN(map);
POBJ_LAYOUT_ROOT(map, struct table);
POBJ_LAYOUT_TOID(map, struct buckets);
POBJ_LAYOUT_TOID(map, struct record);
POBJ_LAYOUT_END(map);

struct record {
	TOID(struct record) next;
	uint64_t key, value;
};

struct buckets {
	TOID(struct record) first[1];
};

struct table {
	uint64_t bucket_count, record_count;
	TOID(struct buckets) buckets;
};

struct map {
	PMEMobjpool *pool;
	struct table *table;
	char path[4096];
};

static _Noreturn void fail(const char *call)
{
	bench_die("%s: %s", call, pmemobj_errormsg());
}

static void begin(PMEMobjpool *pool)
{
	if (pmemobj_tx_begin(pool, NULL, TX_PARAM_NONE)) /* no jump buffer: see sys_pmemobj.c */
		fail("pmemobj_tx_begin");
}

static void commit(void)
{
	pmemobj_tx_commit();
	if (pmemobj_tx_end())
		fail("pmemobj_tx_end");
}

static void add(const void *p, size_t n)
{
	if (pmemobj_tx_add_range_direct(p, n))
		fail("pmemobj_tx_add_range_direct");
}

static void *map_open(const char *folder, uint64_t key_count)
{
	struct map *map = calloc(1, sizeof *map);
	const uint64_t n = map_bucket_count(key_count), size = n * sizeof(TOID(struct record));

	if (!map)
		bench_die("libpmemobj: no memory");
	snprintf(map->path, sizeof map->path, "%s/map-pmemobj", folder);
	unlink(map->path);
	map->pool = pmemobj_create(map->path, LAYOUT, ROOM_SIZE + 2 * size + key_count * RECORD_ROOM, 0600);
	if (!map->pool)
		fail("pmemobj_create");
	map->table = D_RW(POBJ_ROOT(map->pool, struct table));
	if (!map->table)
		fail("pmemobj_root");
	begin(map->pool);
	add(map->table, sizeof *map->table);
	map->table->bucket_count = n;
	map->table->buckets = TX_ZALLOC(struct buckets, size);
	commit();
	return map;
}

static void map_close(void *self)
{
	struct map *map = self;

	pmemobj_close(map->pool);
	unlink(map->path);
	free(map);
}

/* Where the record is linked, or where it would be. */
static TOID(struct record) * find(struct table *table, uint64_t key)
{
	TOID(struct record) *link = &D_RW(table->buckets)->first[map_bucket(key, table->bucket_count)];

	while (!TOID_IS_NULL(*link) && D_RO(*link)->key != key)
		link = &D_RW(*link)->next;
	return link;
}

static void insert(void *self, struct map_walk *walk, uint64_t count)
{
	const struct map *map = self;

	for (uint64_t i = 0; i < count; i++) {
		const uint64_t key = map_walk_key(walk);
		TOID(struct record) *link = find(map->table, key), fresh;
		struct record *record;

		map_found("libpmemobj", TOID_IS_NULL(*link));
		begin(map->pool);
		fresh = TX_NEW(struct record);
		record = D_RW(fresh);
		if (!record)
			fail("pmemobj_tx_alloc");
		record->next = *link;
		record->key = key;
		record->value = map_value(key);
		add(link, sizeof *link);
		*link = fresh;
		add(&map->table->record_count, sizeof map->table->record_count);
		map->table->record_count++;
		commit();
	}
}

static void lookup(void *self, struct map_walk *walk, uint64_t count)
{
	const struct map *map = self;

	for (uint64_t i = 0; i < count; i++) {
		const uint64_t key = map_walk_key(walk);
		const struct record *record = D_RO(*find(map->table, key));

		map_found("libpmemobj", record && record->value == map_value(key));
	}
}

static void map_remove(void *self, struct map_walk *walk, uint64_t count)
{
	const struct map *map = self;

	for (uint64_t i = 0; i < count; i++) {
		TOID(struct record) *link = find(map->table, map_walk_key(walk)), record = *link;

		map_found("libpmemobj", !TOID_IS_NULL(record));
		begin(map->pool);
		add(link, sizeof *link);
		*link = D_RO(record)->next;
		add(&map->table->record_count, sizeof map->table->record_count);
		map->table->record_count--;
		if (pmemobj_tx_free(record.oid))
			fail("pmemobj_tx_free");
		commit();
	}
}

static uint64_t map_count(void *self)
{
	return ((const struct map *)self)->table->record_count;
}

const struct map_system map_pmemobj = {
	.name = "libpmemobj",
	.open = map_open,
	.close = map_close,
	.insert = insert,
	.lookup = lookup,
	.remove = map_remove,
	.count = map_count,
};
