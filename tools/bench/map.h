/* SPDX-License-Identifier: MIT
 *
 * map.h: what the parts of the benches hash-insert, hash-lookup and hash-remove share.
 *
 * What: a map from 8-byte keys to 8-byte values; one operation is one transaction. Those that are hash tables
 * have rows of records behind as many buckets as there will be keys: growing is not measured.
 *
 * Invariants
 *   Y1  All systems do the same operations in the same order: keys come from a map_walk alone.
 *   Y2  The value of a key is known, so that each lookup is checked.
 */
#ifndef MAP_H
#define MAP_H

#include "bench.h"

/* Each of the numbers below total once, by steps of stride. */
struct map_walk {
	uint64_t at, stride, total;
};

/* count operations on an open map, with the next keys of the walk. */
typedef void map_loop(void *self, struct map_walk *walk, uint64_t count);

struct map_system {
	const char *name;
	/* An empty map in a new file in folder, for so many keys at once. */
	void *(*open)(const char *folder, uint64_t key_count);
	void (*close)(void *self);
	map_loop *insert, *lookup, *remove; /* of keys that are not there; of keys that are */
	map_loop *lookup_bare;	       /* nothing keeps changes off meanwhile; NULL: lookup is such a one */
	uint64_t (*count)(void *self); /* keys in it now */
};
extern const struct map_system map_pheap, map_pmemobj, map_lmdb, map_limit;

/* The i-th key: any two differ, and their order says nothing (Steele's SplitMix64). */
static inline uint64_t map_key(uint64_t i)
{
	i = (i + 1) * 0x9e3779b97f4a7c15ull;
	i = (i ^ i >> 30) * 0xbf58476d1ce4e5b9ull;
	i = (i ^ i >> 27) * 0x94d049bb133111ebull;
	return i ^ i >> 31;
}

static inline uint64_t map_value(uint64_t key)
{
	return ~key;
}

static inline uint64_t map_walk_key(struct map_walk *walk)
{
	const uint64_t i = walk->at;

	walk->at += walk->stride;
	if (walk->at >= walk->total)
		walk->at -= walk->total;
	return map_key(i);
}

/* How many buckets: a power of two. */
static inline uint64_t map_bucket_count(uint64_t key_count)
{
	uint64_t n = 16;

	while (n < key_count)
		n *= 2;
	return n;
}

/* Callers may bring keys that are not random. */
static inline uint64_t map_bucket(uint64_t key, uint64_t bucket_count)
{
	return (key * 0x9e3779b97f4a7c15ull >> 32) & (bucket_count - 1);
}

static inline void map_found(const char *system, bool good)
{
	if (!good)
		bench_die("%s: a key is not as it should be", system);
}

#endif
