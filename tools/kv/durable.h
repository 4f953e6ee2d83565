/* SPDX-License-Identifier: MIT
 *
 * durable.h: every struct that pheap-kv keeps in a heap; no code.
 *
 * What: three named roots, "map", "load" and "life", and the blocks of the map.
 * Why sizes are of whole cache lines: a line is only ever stored to by whoever holds the one lock that
 * covers it.
 */
#ifndef KV_DURABLE_H
#define KV_DURABLE_H

#include "pheap.h"

#define KV_LAYOUT "pheap-kv 1"
#define KV_SHARD_COUNT 64u
#define KV_SLICE_COUNT 64u

struct kv_bucket;
struct kv_entry;
PHEAP_DECLARE(struct kv_map, 1);
PHEAP_DECLARE(struct kv_bucket, 2);
PHEAP_DECLARE(struct kv_entry, 3);
#define KV_TYPE_VALUE 4u
PHEAP_DECLARE(struct kv_load, 5);
PHEAP_DECLARE(struct kv_life, 6);

/* Who wrote a record last: nobody (put by hand), or step `step` of load number `load`. Beside the value,
 * not in it. */
struct kv_stamp {
	uint64_t load; /* 0: by hand */
	uint64_t step;
};

struct kv_entry {
	PHEAP_PTR(struct kv_entry) next;
	uint64_t hash;
	PHEAP_PTR(char) value;
	uint64_t value_size; /* bytes */
	struct kv_stamp stamp;
	uint64_t key_size; /* bytes */
	char key[];	   /* no NUL at the end */
};

struct kv_bucket {
	PHEAP_PTR(struct kv_entry) first;
};

struct kv_shard {
	PHEAP_PTR(struct kv_bucket) buckets;
	uint64_t bucket_count; /* a power of two; 0: no table yet */
	uint64_t record_count;
	uint64_t key_size, value_size;	  /* bytes, sums over the records */
	uint64_t put_count, delete_count; /* since the heap was made */
	uint64_t reserved;
};

struct kv_map {
	struct kv_shard shards[KV_SHARD_COUNT];
};

/* How far a load is in its records i with i % KV_SLICE_COUNT == the slice's index. */
struct kv_slice {
	uint64_t done; /* transactions committed */
	uint64_t reserved[7];
};

struct kv_load {
	uint64_t number; /* 0: nothing was ever loaded */
	uint64_t input_hash, input_size, record_count;
	uint64_t reserved[4];
	struct kv_slice slices[KV_SLICE_COUNT];
};

/* What became of the heap's users. */
struct kv_life {
	uint64_t kill_count;		    /* times that a process found others dead */
	uint64_t inside_count;		    /* of them: in the middle of a transaction */
	uint64_t back_count, forward_count; /* transactions undone and completed */
	uint64_t recovery_ns_max;
	uint64_t reserved[3];
};

_Static_assert(sizeof(struct kv_shard) == 64 && sizeof(struct kv_slice) == 64, "one line");
_Static_assert(sizeof(struct kv_load) % 64 == 0 && sizeof(struct kv_life) % 64 == 0, "whole lines");

#endif
