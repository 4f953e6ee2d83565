/* SPDX-License-Identifier: MIT
 *
 * sync_lmdb.c: sync-commit in LMDB as it syncs by default: pages are copied, written and synced, then the
 * meta page. Integer keys, found by a cursor and overwritten.
 *
 * It has one writer at a time: its transactions are its lock.
 */
#include <lmdb.h>
#include <stdlib.h>
#include <string.h>

#include "sync.h"

struct store {
	MDB_env *env;
	MDB_dbi db;
};

static void check(const char *call, int rc)
{
	if (rc)
		bench_die("lmdb: %s: %s", call, mdb_strerror(rc));
}

static MDB_txn *begin(struct store *store)
{
	MDB_txn *txn;

	check("mdb_txn_begin", mdb_txn_begin(store->env, NULL, 0, &txn));
	return txn;
}

static void *join(const char *path, const struct sync_plan *plan)
{
	static struct store store;
	MDB_txn *txn;

	check("mdb_env_create", mdb_env_create(&store.env));
	check("mdb_env_set_mapsize", mdb_env_set_mapsize(store.env, plan->record_count * 256 + (64u << 20)));
	check("mdb_env_open", mdb_env_open(store.env, path, MDB_NOSUBDIR, 0600));
	txn = begin(&store);
	check("mdb_dbi_open", mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &store.db));
	check("mdb_txn_commit", mdb_txn_commit(txn));
	return &store;
}

static const char *make(const char *path, const struct sync_plan *plan)
{
	struct store *store = join(path, plan);
	uint64_t words[BENCH_RECORD_SIZE / 8] = {0};
	MDB_txn *txn = begin(store);

	for (uint64_t i = 0; i < plan->record_count; i++) {
		MDB_val key = {sizeof i, &i}, value = {sizeof words, words};

		check("mdb_put", mdb_put(txn, store->db, &key, &value, MDB_APPEND));
	}
	check("mdb_txn_commit", mdb_txn_commit(txn));
	mdb_env_close(store->env);
	return NULL;
}

static void record_put(MDB_cursor *cursor, uint64_t number, const uint64_t *words)
{
	uint64_t bytes[BENCH_RECORD_SIZE / 8];
	MDB_val key = {sizeof number, &number}, value;

	check("mdb_cursor_get", mdb_cursor_get(cursor, &key, &value, MDB_SET));
	memcpy(bytes, words, sizeof bytes);
	value.mv_data = bytes;
	check("mdb_cursor_put", mdb_cursor_put(cursor, &key, &value, MDB_CURRENT));
}

static void update(void *self, const struct sync_update *u)
{
	struct store *store = self;
	MDB_txn *txn = begin(store);
	MDB_cursor *cursor;

	check("mdb_cursor_open", mdb_cursor_open(txn, store->db, &cursor));
	for (unsigned i = 0; i < u->count; i++)
		record_put(cursor, u->records[i], u->words);
	mdb_cursor_close(cursor);
	check("mdb_txn_commit", mdb_txn_commit(txn));
}

const struct sync_system sync_lmdb = {
	.name = "lmdb",
	.make = make,
	.join = join,
	.update = update,
};
