/* SPDX-License-Identifier: MIT
 *
 * sys_lmdb.c: LMDB, for the time an open takes after a SIGKILL only: a B+tree has no in-place store to
 * compare.
 *
 * The file holds the small records; there are no blocks in LMDB that exist without being written, so the
 * large ones are left out and the map is `size` bytes, not the file.
 */
#include <lmdb.h>
#include <string.h>

#include "bench.h"

#define LIFE_BATCH 10000u
#define LIFE_TOUCH 100u

static void check(const char *call, int rc)
{
	if (rc)
		bench_die("%s: %s", call, mdb_strerror(rc));
}

static MDB_env *env_open(const char *path, uint64_t size)
{
	MDB_env *env;

	check("mdb_env_create", mdb_env_create(&env));
	check("mdb_env_set_mapsize", mdb_env_set_mapsize(env, size));
	check("mdb_env_open", mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOSYNC, 0600));
	return env;
}

static MDB_txn *begin(MDB_env *env, MDB_dbi *ret_db)
{
	MDB_txn *txn;

	check("mdb_txn_begin", mdb_txn_begin(env, NULL, 0, &txn));
	check("mdb_dbi_open", mdb_dbi_open(txn, NULL, 0, ret_db));
	return txn;
}

static int put(MDB_txn *txn, MDB_dbi db, uint64_t number, size_t n, unsigned flags)
{
	static char bytes[256];
	uint64_t big = __builtin_bswap64(number);
	MDB_val key = {sizeof big, &big}, value = {n, bytes};

	memcpy(bytes, &number, sizeof number);
	return mdb_put(txn, db, &key, &value, flags);
}

/* The transaction that the SIGKILL finds. */
static void life_dirty(MDB_env *env)
{
	MDB_dbi db;
	MDB_txn *txn = begin(env, &db);

	for (unsigned i = 0; i < LIFE_TOUCH; i++) {
		int rc = put(txn, db, UINT64_MAX - i, 64, MDB_NOOVERWRITE);

		if (rc == MDB_KEYEXIST)
			bench_die("lmdb: record %u was not rolled back", i);
		check("mdb_put", rc);
	}
}

static void life_create(const char *path, uint64_t size, uint64_t block_count)
{
	MDB_env *env = env_open(path, size);
	uint64_t rng = BENCH_SEED;

	for (uint64_t done = 0; done < block_count;) {
		MDB_dbi db;
		MDB_txn *txn = begin(env, &db);

		for (unsigned i = 0; i < LIFE_BATCH && done < block_count; i++, done++)
			check("mdb_put", put(txn, db, done, 64 + bench_random(&rng) % 193, MDB_APPEND));
		check("mdb_txn_commit", mdb_txn_commit(txn));
	}
	life_dirty(env);
}

static uint64_t life_open_ns(const char *path, uint64_t size, uint64_t *ret_recovery_ns)
{
	struct bench_span span;
	uint64_t ns;
	MDB_env *env;

	(void)ret_recovery_ns;
	bench_span_begin(&span);
	env = env_open(path, size);
	ns = bench_span_end_ns(&span);
	life_dirty(env);
	return ns;
}

const struct bench_system bench_lmdb = {
	.name = "lmdb",
	.life_create = life_create,
	.life_open_ns = life_open_ns,
};
