/* SPDX-License-Identifier: MIT
 *
 * map_lmdb.c: LMDB's B+tree with whole numbers as keys: in place, without syncs, one thread.
 *
 * A reader's transaction is kept and renewed for each lookup, as LMDB advises.
 */
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "map.h"

#define ROOM_SIZE (256ull << 20) /* beside the records */
#define RECORD_ROOM 256u

struct map {
	MDB_env *env;
	MDB_dbi db;
	MDB_txn *reader; /* reset between lookups */
	char path[4096];
};

static void check(const char *call, int rc)
{
	if (rc)
		bench_die("%s: %s", call, mdb_strerror(rc));
}

static MDB_txn *begin(const struct map *map)
{
	MDB_txn *txn;

	check("mdb_txn_begin", mdb_txn_begin(map->env, NULL, 0, &txn));
	return txn;
}

static void files_remove(const struct map *map)
{
	char lock[sizeof map->path + 8];

	unlink(map->path);
	snprintf(lock, sizeof lock, "%s-lock", map->path);
	unlink(lock);
}

static void *map_open(const char *folder, uint64_t key_count)
{
	const unsigned flags = MDB_NOSUBDIR | MDB_WRITEMAP | MDB_NOSYNC | MDB_NOTLS;
	struct map *map = calloc(1, sizeof *map);
	MDB_txn *txn;

	if (!map)
		bench_die("LMDB: no memory");
	snprintf(map->path, sizeof map->path, "%s/map-lmdb", folder);
	files_remove(map);
	check("mdb_env_create", mdb_env_create(&map->env));
	check("mdb_env_set_mapsize", mdb_env_set_mapsize(map->env, ROOM_SIZE + key_count * RECORD_ROOM));
	check("mdb_env_open", mdb_env_open(map->env, map->path, flags, 0600));
	txn = begin(map);
	check("mdb_dbi_open", mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &map->db));
	check("mdb_txn_commit", mdb_txn_commit(txn));
	check("mdb_txn_begin", mdb_txn_begin(map->env, NULL, MDB_RDONLY, &map->reader));
	mdb_txn_reset(map->reader);
	return map;
}

static void map_close(void *self)
{
	struct map *map = self;

	mdb_txn_abort(map->reader);
	mdb_env_close(map->env);
	files_remove(map);
	free(map);
}

static void insert(void *self, struct map_walk *walk, uint64_t count)
{
	const struct map *map = self;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t number = map_walk_key(walk), content = map_value(number);
		MDB_val key = {sizeof number, &number}, value = {sizeof content, &content};
		MDB_txn *txn = begin(map);

		check("mdb_put", mdb_put(txn, map->db, &key, &value, MDB_NOOVERWRITE));
		check("mdb_txn_commit", mdb_txn_commit(txn));
	}
}

static void lookup(void *self, struct map_walk *walk, uint64_t count)
{
	const struct map *map = self;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t number = map_walk_key(walk), content;
		MDB_val key = {sizeof number, &number}, value;

		check("mdb_txn_renew", mdb_txn_renew(map->reader));
		check("mdb_get", mdb_get(map->reader, map->db, &key, &value));
		__builtin_memcpy(&content, value.mv_data, sizeof content);
		map_found("LMDB", content == map_value(number));
		mdb_txn_reset(map->reader);
	}
}

static void map_remove(void *self, struct map_walk *walk, uint64_t count)
{
	const struct map *map = self;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t number = map_walk_key(walk);
		MDB_val key = {sizeof number, &number};
		MDB_txn *txn = begin(map);

		check("mdb_del", mdb_del(txn, map->db, &key, NULL));
		check("mdb_txn_commit", mdb_txn_commit(txn));
	}
}

static uint64_t map_count(void *self)
{
	const struct map *map = self;
	MDB_txn *txn = begin(map);
	MDB_stat stat;

	check("mdb_stat", mdb_stat(txn, map->db, &stat));
	mdb_txn_abort(txn);
	return stat.ms_entries;
}

const struct map_system map_lmdb = {
	.name = "lmdb",
	.open = map_open,
	.close = map_close,
	.insert = insert,
	.lookup = lookup,
	.remove = map_remove,
	.count = map_count,
};
