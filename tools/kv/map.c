/* SPDX-License-Identifier: MIT
 *
 * map.c: see map.h.
 */
#include "map.h"

#include <errno.h>

#define BUCKET_COUNT_MIN 8u

/* FNV-1a, then mixed: the shard is the top bits, the bucket the bottom ones. */
uint64_t kv_hash(struct kv_bytes bytes)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < bytes.n; i++)
		hash = (hash ^ (unsigned char)bytes.p[i]) * 0x100000001b3ull;
	hash ^= hash >> 32;
	hash *= 0xd6e8feb86659fd93ull;
	hash ^= hash >> 32;
	return hash;
}

static const struct kv_shard *shard_of(const struct kv_map *map, uint64_t hash)
{
	return &map->shards[hash >> 58];
}

uint64_t kv_map_lock_key(const pheap *h, const struct kv_map *map, struct kv_bytes key)
{
	return pheap_offset(h, shard_of(map, kv_hash(key)));
}

struct kv_bytes kv_entry_key(const struct kv_entry *entry)
{
	return (struct kv_bytes){entry->key, entry->key_size};
}

struct kv_bytes kv_entry_value(const pheap *h, const struct kv_entry *entry)
{
	return (struct kv_bytes){PHEAP_GET(h, entry->value), entry->value_size};
}

static const struct kv_bucket *bucket_of(const pheap *h, const struct kv_shard *shard, uint64_t hash)
{
	return shard->bucket_count ? PHEAP_GET(h, shard->buckets) + (hash & (shard->bucket_count - 1)) : NULL;
}

static bool entry_is(const struct kv_entry *entry, uint64_t hash, struct kv_bytes key)
{
	return entry->hash == hash && entry->key_size == key.n && memcmp(entry->key, key.p, key.n) == 0;
}

const struct kv_entry *kv_map_get(const pheap *h, const struct kv_map *map, struct kv_bytes key)
{
	uint64_t hash = kv_hash(key);
	const struct kv_bucket *bucket = bucket_of(h, shard_of(map, hash), hash);
	const struct kv_entry *entry = bucket ? PHEAP_GET(h, bucket->first) : NULL;

	while (entry && !entry_is(entry, hash, key))
		entry = PHEAP_GET(h, entry->next);
	return entry;
}

/* Doubles the table, in the caller's transaction. The new table is fresh, so only the links of the records
 * are logged. */
static int shard_grow(pheap_tx *tx, const struct kv_shard *shard)
{
	uint64_t old_count = shard->bucket_count, count = old_count ? 2 * old_count : BUCKET_COUNT_MIN;
	const struct kv_bucket *old = PHEAP_GET(tx, shard->buckets);
	struct kv_bucket *buckets = pheap_zalloc(tx, count * sizeof(*buckets), PHEAP_TYPE(struct kv_bucket));
	struct kv_shard *to = PHEAP_MODIFY(tx, shard);

	if (!buckets || !to)
		return pheap_error(tx);
	for (uint64_t i = 0; i < old_count; i++) {
		const struct kv_entry *entry = PHEAP_GET(tx, old[i].first), *next;

		for (; entry; entry = next) {
			struct kv_bucket *bucket = &buckets[entry->hash & (count - 1)];

			next = PHEAP_GET(tx, entry->next);
			PHEAP_SET(tx, entry->next, bucket->first);
			bucket->first = PHEAP_REF(tx, struct kv_entry, entry);
		}
	}
	pheap_free(tx, old);
	to->buckets = PHEAP_REF(tx, struct kv_bucket, buckets);
	to->bucket_count = count;
	return pheap_error(tx);
}

/* When it is time to double the table, and it fits: else its rows get longer. Asked once for each time that it could have
 * been doubled, because a try costs as much as what it would do. */
static int shard_make_room(pheap_tx *tx, const struct kv_shard *shard)
{
	pheap_savepoint_id before;
	int rc;

	if (shard->bucket_count && (shard->record_count == 0 || shard->record_count % shard->bucket_count))
		return 0;
	rc = pheap_savepoint(tx, &before);
	if (rc == 0)
		rc = shard_grow(tx, shard);
	if (rc == 0 || shard->bucket_count == 0 || (rc != -ENOSPC && rc != -E2BIG))
		return rc;
	return pheap_rollback(tx, before);
}

static struct kv_entry *entry_new(pheap_tx *tx, struct kv_bytes key, uint64_t hash)
{
	struct kv_entry *entry = pheap_zalloc(tx, sizeof(*entry) + key.n, PHEAP_TYPE(struct kv_entry));

	if (entry) {
		entry->hash = hash;
		entry->key_size = key.n;
		memcpy(entry->key, key.p, key.n);
	}
	return entry;
}

/* Gives a record, new or already logged, a new value. */
static int entry_fill(pheap_tx *tx, struct kv_entry *entry, struct kv_bytes value, struct kv_stamp stamp)
{
	char *copy = value.n ? pheap_dup(tx, value.p, value.n, KV_TYPE_VALUE) : NULL;

	if (value.n && !copy)
		return pheap_error(tx);
	entry->value = PHEAP_REF(tx, char, copy);
	entry->value_size = value.n;
	entry->stamp = stamp;
	return 0;
}

static int entry_add(pheap_tx *tx, const struct kv_shard *shard, struct kv_bytes key, uint64_t hash,
		     struct kv_bytes value, struct kv_stamp stamp)
{
	struct kv_entry *entry;
	struct kv_bucket *bucket;
	struct kv_shard *to;
	int rc = shard_make_room(tx, shard);

	if (rc)
		return rc;
	entry = entry_new(tx, key, hash);
	bucket = PHEAP_MODIFY(tx, bucket_of(pheap_heap(tx), shard, hash));
	to = PHEAP_MODIFY(tx, shard);
	if (!entry || !bucket || !to)
		return pheap_error(tx);
	rc = entry_fill(tx, entry, value, stamp);
	if (rc)
		return rc;
	entry->next = bucket->first;
	bucket->first = PHEAP_REF(tx, struct kv_entry, entry);
	to->record_count++;
	to->key_size += key.n;
	to->value_size += value.n;
	to->put_count++;
	return 0;
}

static int entry_change(pheap_tx *tx, const struct kv_shard *shard, const struct kv_entry *old,
			struct kv_bytes value, struct kv_stamp stamp)
{
	struct kv_shard *to = PHEAP_MODIFY(tx, shard);
	struct kv_entry *entry = PHEAP_MODIFY(tx, old);
	int rc;

	if (!to || !entry)
		return pheap_error(tx);
	to->value_size += value.n - entry->value_size;
	to->put_count++;
	rc = pheap_free(tx, PHEAP_GET(tx, entry->value));
	return rc ? rc : entry_fill(tx, entry, value, stamp);
}

int kv_map_put(pheap_tx *tx, const struct kv_map *map, struct kv_bytes key, struct kv_bytes value,
	       struct kv_stamp stamp)
{
	uint64_t hash = kv_hash(key);
	const struct kv_shard *shard = shard_of(map, hash);
	const struct kv_entry *old = kv_map_get(pheap_heap(tx), map, key);

	return old ? entry_change(tx, shard, old, value, stamp)
		   : entry_add(tx, shard, key, hash, value, stamp);
}

int kv_map_delete(pheap_tx *tx, const struct kv_map *map, struct kv_bytes key)
{
	uint64_t hash = kv_hash(key);
	const struct kv_shard *shard = shard_of(map, hash);
	const struct kv_bucket *bucket = bucket_of(pheap_heap(tx), shard, hash);
	const PHEAP_PTR(struct kv_entry) *link = bucket ? &bucket->first : NULL;
	const struct kv_entry *entry = link ? PHEAP_GET(tx, *link) : NULL;
	struct kv_shard *to;

	while (entry && !entry_is(entry, hash, key)) {
		link = &entry->next;
		entry = PHEAP_GET(tx, *link);
	}
	if (!entry)
		return -ENOENT;
	to = PHEAP_MODIFY(tx, shard);
	if (!to)
		return pheap_error(tx);
	to->record_count--;
	to->key_size -= entry->key_size;
	to->value_size -= entry->value_size;
	to->delete_count++;
	PHEAP_SET(tx, *link, entry->next);
	pheap_free(tx, PHEAP_GET(tx, entry->value));
	pheap_free(tx, entry);
	return pheap_error(tx);
}

int kv_map_each(const pheap *h, const struct kv_map *map, int (*fn)(const struct kv_entry *entry, void *arg),
		void *arg)
{
	for (uint32_t i = 0; i < KV_SHARD_COUNT; i++) {
		const struct kv_shard *shard = &map->shards[i];
		const struct kv_bucket *buckets = PHEAP_GET(h, shard->buckets);

		for (uint64_t k = 0; k < shard->bucket_count; k++) {
			const struct kv_entry *entry = PHEAP_GET(h, buckets[k].first);

			for (; entry; entry = PHEAP_GET(h, entry->next)) {
				int rc = fn(entry, arg);

				if (rc)
					return rc;
			}
		}
	}
	return 0;
}

uint64_t kv_map_count(const struct kv_map *map)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < KV_SHARD_COUNT; i++)
		sum += __atomic_load_n(&map->shards[i].record_count, __ATOMIC_RELAXED);
	return sum;
}

void kv_map_sum(const struct kv_map *map, struct kv_shard *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (uint32_t i = 0; i < KV_SHARD_COUNT; i++) {
		const struct kv_shard *shard = &map->shards[i];

		ret->bucket_count += shard->bucket_count;
		ret->record_count += shard->record_count;
		ret->key_size += shard->key_size;
		ret->value_size += shard->value_size;
		ret->put_count += shard->put_count;
		ret->delete_count += shard->delete_count;
	}
}
