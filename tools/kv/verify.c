/* SPDX-License-Identifier: MIT
 *
 * verify.c: see verify.h.
 *
 * Why findings are collected and printed after the transaction: a reader that waits for its terminal would
 * hold up writers.
 */
#define _GNU_SOURCE
#include "verify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "plan.h"

#define FINDING_MAX 10u

struct check {
	struct kv_store *store;
	const struct kv_input *input;
	bool so_far;
	char *buffer;
	FILE *out;
	uint64_t finding_count;
	struct kv_shard found; /* sums over the records met */
	uint64_t value_size;   /* bytes that were equal */
	uint64_t value_count;
	uint64_t value_block_count;
};

static void finding(struct check *check, struct kv_bytes key, const char *what)
{
	if (check->finding_count++ < FINDING_MAX)
		fprintf(check->out, "%.*s: %s\n", (int)key.n, key.p, what);
}

/* The input's side: is each of its records there, and right? */
static void record_check(struct check *check, size_t i)
{
	const struct kv_record *record = &check->input->records[i];
	const struct kv_entry *entry = kv_map_get(check->store->h, check->store->map, record->key);
	struct kv_bytes want = record->value;
	enum kv_expect expect = KV_PRESENT;

	if (check->so_far)
		expect = kv_plan_expect(check->store->load, check->input, i, check->buffer, &want);
	if (expect == KV_UNTOUCHED) {
		if (entry && entry->stamp.load == check->store->load->number)
			finding(check, record->key, "is there, but its transaction was not committed");
	} else if (expect == KV_ABSENT) {
		if (entry)
			finding(check, record->key, "is there, but was deleted");
	} else if (!entry) {
		finding(check, record->key, "is missing");
	} else if (kv_bytes_compare(kv_entry_value(check->store->h, entry), want) != 0) {
		finding(check, record->key, "has another value");
	} else {
		check->value_count++;
		check->value_size += want.n;
	}
}

/* The heap's side: is each record one of the input, under its own key? */
static int entry_check(const struct kv_entry *entry, void *arg)
{
	struct check *check = arg;
	struct kv_bytes key = kv_entry_key(entry);

	check->found.record_count++;
	check->found.key_size += entry->key_size;
	check->found.value_size += entry->value_size;
	check->value_block_count += entry->value_size > 0;
	if (kv_map_get(check->store->h, check->store->map, key) != entry)
		finding(check, key, "is there twice, or in the wrong place");
	if (kv_input_find(check->input, key) == SIZE_MAX)
		finding(check, key, "is not in the input");
	return 0;
}

static void counters_check(struct check *check)
{
	struct kv_shard sum;

	kv_map_sum(check->store->map, &sum);
	if (sum.record_count != check->found.record_count || sum.key_size != check->found.key_size ||
	    sum.value_size != check->found.value_size) {
		fprintf(check->out, "the counters of the map are not those of its records\n");
		check->finding_count++;
	}
}

/* Every block of the map's types belongs to a record or a table: what a killed transaction allocated is
 * gone again. */
static void blocks_check(struct check *check, uint32_t type, const char *name, uint64_t reachable)
{
	const pheap *h = check->store->h;
	uint64_t count = 0;

	for (const void *p = pheap_next(h, type, NULL); p; p = pheap_next(h, type, p))
		count++;
	if (count == reachable)
		return;
	fprintf(check->out, "%llu blocks of type %s are allocated, %llu in use: leaked, or used twice\n",
		(unsigned long long)count, name, (unsigned long long)reachable);
	check->finding_count++;
}

static uint64_t table_count(const struct kv_map *map)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < KV_SHARD_COUNT; i++)
		count += map->shards[i].bucket_count > 0;
	return count;
}

static int check_run(pheap_tx *tx, void *arg)
{
	struct check *check = arg;

	(void)tx;
	for (size_t i = 0; i < check->input->count; i++)
		record_check(check, i);
	kv_map_each(check->store->h, check->store->map, entry_check, check);
	counters_check(check);
	blocks_check(check, PHEAP_TYPE(struct kv_entry), "entry", check->found.record_count);
	blocks_check(check, KV_TYPE_VALUE, "value", check->value_block_count);
	blocks_check(check, PHEAP_TYPE(struct kv_bucket), "bucket", table_count(check->store->map));
	return 0;
}

static int sentence(const struct check *check)
{
	unsigned long long count = check->value_count, size = check->value_size;
	const struct kv_load *load = check->store->load;

	if (check->finding_count) {
		if (check->finding_count > FINDING_MAX)
			printf("... and %llu more\n", (unsigned long long)check->finding_count - FINDING_MAX);
		printf("contents differ from the input: %llu findings\n",
		       (unsigned long long)check->finding_count);
		return 1;
	}
	if (check->so_far)
		printf("contents equal exactly what %llu transactions made of the input: %llu records, %llu bytes\n",
		       (unsigned long long)kv_plan_done(load), count, size);
	else
		printf("contents equal the input exactly: %llu records, %llu bytes\n", count, size);
	return 0;
}

static int check_begin(struct check *check)
{
	if (!check->store->map) {
		printf("contents differ from the input: the heap is new and empty\n");
		return 1;
	}
	if (check->so_far && !kv_plan_is_of(check->store->load, check->input)) {
		fprintf(stderr, "pheap-kv: the heap's last load was not of this input\n");
		return -EINVAL;
	}
	if (!check->so_far && kv_plan_is_of(check->store->load, check->input) &&
	    !kv_plan_complete(check->store->load))
		printf("the load of this input is not finished\n");
	return 0;
}

int kv_verify(struct kv_store *store, const struct kv_input *input, bool so_far)
{
	struct check check = {.store = store, .input = input, .so_far = so_far};
	char *text = NULL;
	size_t text_size = 0;
	int rc;

	kv_store_tell_recovery(store);
	rc = check_begin(&check);
	if (rc)
		return rc;
	check.buffer = malloc(kv_plan_room(input));
	check.out = open_memstream(&text, &text_size);
	rc = check.buffer && check.out ? pheap_run(store->h, PHEAP_READ, check_run, &check) : -ENOMEM;
	if (rc)
		kv_store_fail(store, rc, "verify");
	if (check.out)
		fclose(check.out);
	if (rc == 0) {
		fputs(text ? text : "", stdout);
		rc = sentence(&check);
	}
	free(text);
	free(check.buffer);
	return rc;
}
