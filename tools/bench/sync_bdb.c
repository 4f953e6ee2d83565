/* SPDX-License-Identifier: MIT
 *
 * sync_bdb.c: sync-commit in Berkeley DB, transactions with DB_TXN_SYNC. `bdb`: a B-tree, keyed as the tables
 * of the others. `bdb-queue`: its access method for records of fixed size that are found by their place; it
 * locks single records and not pages.
 *
 * Of its own it groups the flushes of threads. The queue's log gets its space beforehand (DB_LOG_ZERO); the
 * B-tree is slower with that. One process alone has its regions in private memory; several share them as
 * files beside the log.
 */
#include <db.h>
#include <endian.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sync.h"

#define CACHE_SIZE (160u << 20)
#define MAKE_BATCH 1000u
#define LOCK_COUNT 20000u

struct store {
	DBTYPE type;
	DB_ENV *env;
	DB *db;
};

static void check(const char *call, int rc)
{
	if (rc)
		bench_die("bdb: %s: %s", call, db_strerror(rc));
}

static void env_open(struct store *store, const char *folder, u_int32_t flags)
{
	check("db_env_create", db_env_create(&store->env, 0));
	check("set_cachesize", store->env->set_cachesize(store->env, 0, CACHE_SIZE, 1));
	check("set_lk_max_locks", store->env->set_lk_max_locks(store->env, LOCK_COUNT));
	check("set_lk_max_objects", store->env->set_lk_max_objects(store->env, LOCK_COUNT));
	check("set_lk_detect", store->env->set_lk_detect(store->env, DB_LOCK_DEFAULT));
	if (store->type == DB_QUEUE)
		check("log_set_config", store->env->log_set_config(store->env, DB_LOG_ZERO, 1));
	flags |= DB_CREATE | DB_THREAD | DB_INIT_TXN | DB_INIT_LOG | DB_INIT_LOCK | DB_INIT_MPOOL;
	check("DB_ENV->open", store->env->open(store->env, folder, flags, 0600));
}

static struct store *store_open(DBTYPE type, const char *path, const struct sync_plan *plan, bool create)
{
	static struct store store;
	char copy[4096];
	u_int32_t flags = plan->process_count > 1 ? 0 : DB_PRIVATE;

	store.type = type;
	snprintf(copy, sizeof copy, "%s", path);
	env_open(&store, dirname(copy), create || flags ? flags | DB_RECOVER : 0);
	check("db_create", db_create(&store.db, store.env, 0));
	if (create && type == DB_QUEUE)
		check("set_re_len", store.db->set_re_len(store.db, BENCH_RECORD_SIZE));
	check("DB->open", store.db->open(store.db, NULL, path, NULL, type,
					 DB_AUTO_COMMIT | DB_THREAD | (create ? DB_CREATE : 0), 0600));
	return &store;
}

static int record_put(struct store *store, DB_TXN *txn, uint64_t number, const uint64_t *words)
{
	db_recno_t recno = htobe32((uint32_t)number + 1); /* the B-tree compares bytes */
	uint64_t bytes[BENCH_RECORD_SIZE / 8];
	DBT key = {0}, value = {0};

	memcpy(bytes, words, sizeof bytes);
	if (store->type == DB_QUEUE)
		recno = be32toh(recno);
	key.data = &recno;
	key.size = key.ulen = sizeof recno;
	key.flags = value.flags = DB_DBT_USERMEM;
	value.data = bytes;
	value.size = value.ulen = sizeof bytes;
	return store->db->put(store->db, txn, &key, &value, 0);
}

static const char *make(DBTYPE type, const char *path, const struct sync_plan *plan)
{
	const uint64_t words[BENCH_RECORD_SIZE / 8] = {0};
	struct store *store = store_open(type, path, plan, true);
	DB_TXN *txn = NULL;

	for (uint64_t i = 0; i < plan->record_count; i++) {
		if (!txn)
			check("txn_begin", store->env->txn_begin(store->env, NULL, &txn, DB_TXN_NOSYNC));
		check("DB->put", record_put(store, txn, i, words));
		if ((i + 1) % MAKE_BATCH && i + 1 < plan->record_count)
			continue;
		check("commit", txn->commit(txn, 0));
		txn = NULL;
	}
	check("txn_checkpoint", store->env->txn_checkpoint(store->env, 0, 0, 0));
	check("DB->close", store->db->close(store->db, 0));
	check("DB_ENV->close", store->env->close(store->env, 0));
	return NULL;
}

static int update_try(struct store *store, const struct sync_update *u)
{
	DB_TXN *txn;
	int rc = 0;

	check("txn_begin", store->env->txn_begin(store->env, NULL, &txn, DB_TXN_SYNC));
	for (unsigned i = 0; i < u->count && !rc; i++)
		rc = record_put(store, txn, u->records[i], u->words);
	if (rc) {
		check("abort", txn->abort(txn));
		return rc;
	}
	return txn->commit(txn, DB_TXN_SYNC);
}

static void update(void *self, const struct sync_update *u)
{
	int rc;

	while ((rc = update_try(self, u)) == DB_LOCK_DEADLOCK)
		;
	check("DB->put", rc);
}

static const char *tree_make(const char *path, const struct sync_plan *plan)
{
	return make(DB_BTREE, path, plan);
}

static void *tree_join(const char *path, const struct sync_plan *plan)
{
	return store_open(DB_BTREE, path, plan, false);
}

static const char *queue_make(const char *path, const struct sync_plan *plan)
{
	return make(DB_QUEUE, path, plan);
}

static void *queue_join(const char *path, const struct sync_plan *plan)
{
	return store_open(DB_QUEUE, path, plan, false);
}

const struct sync_system sync_bdb = {
	.name = "bdb",
	.make = tree_make,
	.join = tree_join,
	.update = update,
};

const struct sync_system sync_bdb_queue = {
	.name = "bdb-queue",
	.make = queue_make,
	.join = queue_join,
	.update = update,
};
