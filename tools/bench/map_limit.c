/* SPDX-License-Identifier: MIT
 *
 * map_limit.c: the hash table in private memory, with glibc's malloc, without transactions.
 */
#include <stdlib.h>

#include "map.h"

struct record {
	struct record *next;
	uint64_t key, value;
};

struct table {
	uint64_t bucket_count, record_count;
	struct record *buckets[];
};

static void *table_open(const char *folder, uint64_t key_count)
{
	const uint64_t n = map_bucket_count(key_count);
	struct table *table = calloc(1, sizeof *table + n * sizeof *table->buckets);

	(void)folder;
	if (!table)
		bench_die("limit: no memory");
	table->bucket_count = n;
	return table;
}

static void table_close(void *self)
{
	struct table *table = self;

	for (uint64_t i = 0; i < table->bucket_count; i++)
		for (struct record *record = table->buckets[i], *next; record; record = next) {
			next = record->next;
			free(record);
		}
	free(table);
}

/* Where the record is linked, or where it would be. */
static struct record **find(struct table *table, uint64_t key)
{
	struct record **link = &table->buckets[map_bucket(key, table->bucket_count)];

	while (*link && (*link)->key != key)
		link = &(*link)->next;
	return link;
}

static void insert(void *self, struct map_walk *walk, uint64_t count)
{
	struct table *table = self;

	for (uint64_t i = 0; i < count; i++) {
		const uint64_t key = map_walk_key(walk);
		struct record **bucket = &table->buckets[map_bucket(key, table->bucket_count)], *record;

		map_found("limit", !*find(table, key));
		record = malloc(sizeof *record);
		if (!record)
			bench_die("limit: no memory");
		*record = (struct record){*bucket, key, map_value(key)};
		*bucket = record;
		table->record_count++;
	}
}

static void lookup(void *self, struct map_walk *walk, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		const uint64_t key = map_walk_key(walk);
		const struct record *record = *find(self, key);

		map_found("limit", record && record->value == map_value(key));
	}
}

static void table_remove(void *self, struct map_walk *walk, uint64_t count)
{
	struct table *table = self;

	for (uint64_t i = 0; i < count; i++) {
		struct record **link = find(table, map_walk_key(walk)), *record = *link;

		map_found("limit", record);
		*link = record->next;
		free(record);
		table->record_count--;
	}
}

static uint64_t table_count(void *self)
{
	return ((struct table *)self)->record_count;
}

const struct map_system map_limit = {
	.name = "limit",
	.open = table_open,
	.close = table_close,
	.insert = insert,
	.lookup = lookup,
	.remove = table_remove,
	.count = table_count,
};
