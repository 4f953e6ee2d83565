/* SPDX-License-Identifier: MIT
 *
 * classic_lmdb.c: the classic in LMDB at its fastest: writable map, no sync, integer keys, found once by a
 * cursor and overwritten in place.
 *
 * It has one writer at a time: its transactions are its lock.
 */
#include <inttypes.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "classic.h"

#define MAKE_BATCH 100000u

struct store {
	struct classic_size size;
	MDB_env *env;
	MDB_dbi db;
};

static void check(const char *call, int rc)
{
	if (rc)
		bench_die("%s: %s", call, mdb_strerror(rc));
}

static MDB_txn *begin(struct store *store, unsigned flags)
{
	MDB_txn *txn;

	check("mdb_txn_begin", mdb_txn_begin(store->env, NULL, flags, &txn));
	return txn;
}

static void *join(const char *path, const struct classic_size *size)
{
	struct store *store = calloc(1, sizeof *store);
	const unsigned flags = MDB_NOSUBDIR | MDB_WRITEMAP | MDB_NOSYNC | MDB_NORDAHEAD;
	MDB_txn *txn;

	if (!store)
		bench_die("lmdb: no memory");
	store->size = *size;
	check("mdb_env_create", mdb_env_create(&store->env));
	/* twice the data: the B+tree and the pages that are copied on write */
	check("mdb_env_set_mapsize", mdb_env_set_mapsize(store->env, size->record_count * 128 + (64u << 20)));
	check("mdb_env_open", mdb_env_open(store->env, path, flags, 0600));
	txn = begin(store, 0);
	check("mdb_dbi_open", mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &store->db));
	check("mdb_txn_commit", mdb_txn_commit(txn));
	return store;
}

static void make(const char *path, const struct classic_size *size)
{
	struct store *store = join(path, size);
	struct classic_account account = {.balance = CLASSIC_BALANCE};
	MDB_val value = {sizeof account, &account};

	for (uint64_t i = 0; i < size->record_count;) {
		MDB_txn *txn = begin(store, 0);

		for (unsigned j = 0; j < MAKE_BATCH && i < size->record_count; i++, j++) {
			MDB_val key = {sizeof i, &i};

			check("mdb_put", mdb_put(txn, store->db, &key, &value, MDB_APPEND));
		}
		check("mdb_txn_commit", mdb_txn_commit(txn));
	}
	mdb_env_close(store->env);
}

/* LMDB does not tell where its map is: the mapping that holds a value. */
static char *map_base(struct store *store)
{
	MDB_txn *txn = begin(store, MDB_RDONLY);
	FILE *file = fopen("/proc/self/maps", "r");
	uintptr_t start = 0, end = 0, at;
	uint64_t number = 0;
	MDB_val key = {sizeof number, &number}, value;
	char line[4096];

	check("mdb_get", mdb_get(txn, store->db, &key, &value));
	at = (uintptr_t)value.mv_data;
	mdb_txn_abort(txn);
	while (file && (start > at || end <= at) && fgets(line, sizeof line, file))
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &start, &end) != 2)
			start = end = 0;
	if (!file || start > at || end <= at)
		bench_die("lmdb: its map is not in /proc/self/maps");
	fclose(file);
	return (char *)start;
}

static void populate(void *self)
{
	struct store *store = self;
	MDB_envinfo info;
	MDB_stat stat;

	check("mdb_env_info", mdb_env_info(store->env, &info));
	check("mdb_env_stat", mdb_env_stat(store->env, &stat));
	bench_populate(map_base(store), (info.me_last_pgno + 1) * stat.ms_psize);
}

static void move_half(MDB_cursor *cursor, uint64_t number, int64_t amount)
{
	MDB_val key = {sizeof number, &number}, value;
	struct classic_account account;

	check("mdb_cursor_get", mdb_cursor_get(cursor, &key, &value, MDB_SET));
	memcpy(&account, value.mv_data, sizeof account);
	account.balance += amount;
	value.mv_data = &account;
	check("mdb_cursor_put", mdb_cursor_put(cursor, &key, &value, MDB_CURRENT));
}

static void run(void *self, struct team_worker *w)
{
	struct store *store = self;

	do {
		struct classic_move move = classic_draw(&w->rng, &store->size);
		MDB_txn *txn = begin(store, 0);
		MDB_cursor *cursor;

		check("mdb_cursor_open", mdb_cursor_open(txn, store->db, &cursor));
		move_half(cursor, move.from, -move.amount);
		move_half(cursor, move.to, move.amount);
		mdb_cursor_close(cursor);
		check("mdb_txn_commit", mdb_txn_commit(txn));
	} while (team_next(w));
}

static int64_t sum(void *self)
{
	struct store *store = self;
	MDB_txn *txn = begin(store, MDB_RDONLY);
	uint64_t count = 0;
	int64_t ret = 0;
	MDB_cursor *cursor;
	MDB_val key, value;
	int rc;

	check("mdb_cursor_open", mdb_cursor_open(txn, store->db, &cursor));
	while (!(rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) {
		struct classic_account account;

		memcpy(&account, value.mv_data, sizeof account);
		ret += account.balance;
		count++;
	}
	if (rc != MDB_NOTFOUND || count != store->size.record_count)
		bench_die("lmdb: %llu records and not %llu", (unsigned long long)count,
			  (unsigned long long)store->size.record_count);
	return ret;
}

const struct classic_system classic_lmdb = {
	.name = "lmdb",
	.thread_count = 1,
	.make = make,
	.join = join,
	.populate = populate,
	.run = run,
	.sum = sum,
};
