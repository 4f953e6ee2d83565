/* SPDX-License-Identifier: MIT
 *
 * map.h: a hash map in a pheap: keys are strings, values are bytes.
 *
 * What: KV_SHARD_COUNT small tables, each with a lock key of its own (the shard's offset) and its own
 * counters.
 * Why shards and not one table: a transaction that grows a table excludes one part in 64 of the others, in
 * this process and in all, never all of them; and a counter is only ever stored to by whoever holds its shard,
 * so there is no word that every transaction changes. Why not a lock for each bucket: growing would have to
 * take them all, in a new number; and 64 are enough for two transactions to meet seldom.
 *
 * Invariants
 *   M1  A record of hash h is in shard h >> 58, in bucket h & (bucket_count - 1) of it; each key once.
 *   M2  record_count, key_size, value_size of a shard are those of the records in it.
 *   M3  Everything of a shard is read and changed only under its lock, or in a transaction that excludes
 *       writers.
 */
#ifndef KV_MAP_H
#define KV_MAP_H

#include <stdbool.h>

#include "durable.h"

#define KV_KEY_MAX 1024u	       /* bytes */
#define KV_VALUE_MAX ((size_t)1 << 30) /* bytes */

struct kv_bytes {
	const char *p;
	size_t n;
};

uint64_t kv_hash(struct kv_bytes bytes);

/* The key to lock for this record; others may share it. */
uint64_t kv_map_lock_key(const pheap *h, const struct kv_map *map, struct kv_bytes key);

/* NULL: no such record. Readable while M3 holds. */
const struct kv_entry *kv_map_get(const pheap *h, const struct kv_map *map, struct kv_bytes key);
struct kv_bytes kv_entry_key(const struct kv_entry *entry);
struct kv_bytes kv_entry_value(const pheap *h, const struct kv_entry *entry);

/* In a transaction that locked the record's key. A code has doomed the transaction, except -ENOENT: no such
 * record. */
int kv_map_put(pheap_tx *tx, const struct kv_map *map, struct kv_bytes key, struct kv_bytes value,
	       struct kv_stamp stamp);
int kv_map_delete(pheap_tx *tx, const struct kv_map *map, struct kv_bytes key);

/* Calls fn for each record, in no order, until it gives something other than 0, and gives that. */
int kv_map_each(const pheap *h, const struct kv_map *map, int (*fn)(const struct kv_entry *entry, void *arg),
		void *arg);

/* Records, about: beside whoever changes them. */
uint64_t kv_map_count(const struct kv_map *map);

/* Sums over all shards; buckets is 0. */
void kv_map_sum(const struct kv_map *map, struct kv_shard *ret);

#endif
