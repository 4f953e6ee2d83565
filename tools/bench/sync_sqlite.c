/* SPDX-License-Identifier: MIT
 *
 * sync_sqlite.c: sync-commit in SQLite: WAL, synchronous FULL, one table of blobs by integer key, statements
 * prepared once.
 *
 * It has one writer at a time. A process has one connection that its threads take turns with: a mutex wakes
 * the next one at once, where SQLite itself, between connections, only tries again after a nap.
 */
#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sync.h"

#define NAP_US 50u /* of a process that waits for another one */

enum { BEGIN, UPDATE, COMMIT, STATEMENT_COUNT };

struct store {
	pthread_mutex_t mutex;
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENT_COUNT];
};

static _Noreturn void fail(sqlite3 *db, const char *what)
{
	bench_die("sqlite: %s: %s", what, sqlite3_errmsg(db));
}

static void execute(sqlite3 *db, const char *text)
{
	if (sqlite3_exec(db, text, NULL, NULL, NULL))
		fail(db, text);
}

static int nap(void *arg, int count)
{
	(void)arg;
	(void)count;
	usleep(NAP_US);
	return 1;
}

static sqlite3 *db_open(const char *path)
{
	const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
	sqlite3 *db;

	if (sqlite3_open_v2(path, &db, flags, NULL))
		fail(db, path);
	sqlite3_busy_handler(db, nap, NULL);
	execute(db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
	return db;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *text)
{
	sqlite3_stmt *statement;

	if (sqlite3_prepare_v3(db, text, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL))
		fail(db, text);
	return statement;
}

static void step(sqlite3 *db, sqlite3_stmt *statement)
{
	if (sqlite3_step(statement) != SQLITE_DONE)
		fail(db, sqlite3_sql(statement));
	sqlite3_reset(statement);
}

static void record_bind(sqlite3 *db, sqlite3_stmt *statement, uint64_t number, const uint64_t *words)
{
	if (sqlite3_bind_int64(statement, 1, (sqlite3_int64)number) ||
	    sqlite3_bind_blob(statement, 2, words, BENCH_RECORD_SIZE, SQLITE_STATIC))
		fail(db, "bind");
}

static const char *make(const char *path, const struct sync_plan *plan)
{
	const uint64_t words[BENCH_RECORD_SIZE / 8] = {0};
	sqlite3 *db = db_open(path);
	sqlite3_stmt *insert;

	execute(db, "CREATE TABLE records (number INTEGER PRIMARY KEY, bytes BLOB)");
	insert = prepare(db, "INSERT INTO records VALUES (?1, ?2)");
	execute(db, "BEGIN");
	for (uint64_t i = 0; i < plan->record_count; i++) {
		record_bind(db, insert, i, words);
		step(db, insert);
	}
	execute(db, "COMMIT");
	sqlite3_finalize(insert);
	if (sqlite3_close(db))
		fail(db, "close");
	return NULL;
}

static void *join(const char *path, const struct sync_plan *plan)
{
	static struct store store = {.mutex = PTHREAD_MUTEX_INITIALIZER};

	(void)plan;
	store.db = db_open(path);
	store.statements[BEGIN] = prepare(store.db, "BEGIN IMMEDIATE");
	store.statements[UPDATE] = prepare(store.db, "UPDATE records SET bytes = ?2 WHERE number = ?1");
	store.statements[COMMIT] = prepare(store.db, "COMMIT");
	return &store;
}

static void update(void *self, const struct sync_update *u)
{
	struct store *store = self;

	pthread_mutex_lock(&store->mutex);
	step(store->db, store->statements[BEGIN]);
	for (unsigned i = 0; i < u->count; i++) {
		record_bind(store->db, store->statements[UPDATE], u->records[i], u->words);
		step(store->db, store->statements[UPDATE]);
	}
	step(store->db, store->statements[COMMIT]);
	pthread_mutex_unlock(&store->mutex);
}

const struct sync_system sync_sqlite = {
	.name = "sqlite",
	.make = make,
	.join = join,
	.update = update,
};
