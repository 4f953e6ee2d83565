/* SPDX-License-Identifier: MIT
 *
 * fill_lmdb.c: the bench space in LMDB (WRITEMAP, NOSYNC): a value of so many bytes under an integer key.
 */
#include <lmdb.h>
#include <string.h>

#include "bench.h"
#include "fill.h"

static struct store {
	MDB_env *env;
	MDB_dbi db;
	uint64_t last; /* key */
} store;

static void check(const char *call, int rc)
{
	if (rc)
		bench_die("lmdb: %s: %s", call, mdb_strerror(rc));
}

static MDB_txn *begin(void)
{
	MDB_txn *txn;

	check("mdb_txn_begin", mdb_txn_begin(store.env, NULL, 0, &txn));
	return txn;
}

static void *fill_open(const char *path, uint64_t size, bool grows)
{
	MDB_txn *txn;

	(void)grows;
	check("mdb_env_create", mdb_env_create(&store.env));
	check("mdb_env_set_mapsize", mdb_env_set_mapsize(store.env, size));
	check("mdb_env_open", mdb_env_open(store.env, path, MDB_NOSUBDIR | MDB_WRITEMAP | MDB_NOSYNC, 0600));
	txn = begin();
	check("mdb_dbi_open", mdb_dbi_open(txn, NULL, MDB_INTEGERKEY | MDB_CREATE, &store.db));
	check("mdb_txn_commit", mdb_txn_commit(txn));
	store.last = 0;
	return &store;
}

static void fill_close(void *self)
{
	(void)self;
	mdb_env_close(store.env);
}

static bool fill_alloc(void *self, const uint32_t *sizes, uint64_t *ret_blocks, unsigned count)
{
	MDB_txn *txn = begin();
	int rc = 0;

	(void)self;
	for (unsigned i = 0; i < count && rc == 0; i++) {
		uint64_t number = ++store.last;
		MDB_val key = {sizeof number, &number}, value = {sizes[i], NULL};

		rc = mdb_put(txn, store.db, &key, &value, MDB_APPEND | MDB_RESERVE);
		if (rc == 0)
			memset(value.mv_data, FILL_BYTE, sizes[i]);
		ret_blocks[i] = number;
	}
	if (rc == 0)
		rc = mdb_txn_commit(txn);
	else
		mdb_txn_abort(txn);
	if (rc != MDB_MAP_FULL)
		check("mdb_put", rc);
	return rc == 0;
}

static void fill_release(void *self, const uint64_t *blocks, unsigned count)
{
	MDB_txn *txn = begin();

	(void)self;
	for (unsigned i = 0; i < count; i++) {
		uint64_t number = blocks[i];
		MDB_val key = {sizeof number, &number};

		check("mdb_del", mdb_del(txn, store.db, &key, NULL));
	}
	check("mdb_txn_commit", mdb_txn_commit(txn));
}

const struct fill_system fill_lmdb = {
	.name = "lmdb",
	.open = fill_open,
	.close = fill_close,
	.alloc = fill_alloc,
	.release = fill_release,
};
