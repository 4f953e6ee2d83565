/* SPDX-License-Identifier: MIT
 *
 * fill_sqlite.c: the bench space in SQLite (WAL, synchronous OFF): a blob of so many bytes in a row. It can
 * give free pages back at the end.
 */
#include <sqlite3.h>

#include "bench.h"
#include "fill.h"

static struct store {
	sqlite3 *db;
	sqlite3_stmt *insert, *erase;
	int64_t last; /* key */
} store;

static _Noreturn void fail(const char *what)
{
	bench_die("sqlite: %s: %s", what, sqlite3_errmsg(store.db));
}

static void execute(const char *text)
{
	if (sqlite3_exec(store.db, text, NULL, NULL, NULL))
		fail(text);
}

static sqlite3_stmt *prepare(const char *text)
{
	sqlite3_stmt *statement;

	if (sqlite3_prepare_v3(store.db, text, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL))
		fail(text);
	return statement;
}

static void step(sqlite3_stmt *statement)
{
	if (sqlite3_step(statement) != SQLITE_DONE)
		fail(sqlite3_sql(statement));
	sqlite3_reset(statement);
}

static void *fill_open(const char *path, uint64_t size, bool grows)
{
	(void)size;
	(void)grows;
	if (sqlite3_open_v2(path, &store.db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			    NULL))
		fail(path);
	execute("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;"
		"CREATE TABLE blocks (number INTEGER PRIMARY KEY, bytes BLOB)");
	store.insert = prepare("INSERT INTO blocks VALUES (?1, zeroblob(?2))");
	store.erase = prepare("DELETE FROM blocks WHERE number = ?1");
	store.last = 0;
	return &store;
}

static void fill_close(void *self)
{
	(void)self;
	sqlite3_finalize(store.insert);
	sqlite3_finalize(store.erase);
	if (sqlite3_close(store.db))
		fail("close");
}

static bool fill_alloc(void *self, const uint32_t *sizes, uint64_t *ret_blocks, unsigned count)
{
	(void)self;
	execute("BEGIN IMMEDIATE");
	for (unsigned i = 0; i < count; i++) {
		int64_t number = ++store.last;

		if (sqlite3_bind_int64(store.insert, 1, number) ||
		    sqlite3_bind_int64(store.insert, 2, sizes[i]))
			fail("bind");
		step(store.insert);
		ret_blocks[i] = (uint64_t)number;
	}
	execute("COMMIT");
	return true;
}

static void fill_release(void *self, const uint64_t *blocks, unsigned count)
{
	(void)self;
	execute("BEGIN IMMEDIATE");
	for (unsigned i = 0; i < count; i++) {
		if (sqlite3_bind_int64(store.erase, 1, (int64_t)blocks[i]))
			fail("bind");
		step(store.erase);
	}
	execute("COMMIT");
}

static void fill_trim(void *self)
{
	(void)self;
	execute("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)");
}

const struct fill_system fill_sqlite = {
	.name = "sqlite",
	.open = fill_open,
	.close = fill_close,
	.alloc = fill_alloc,
	.release = fill_release,
	.trim = fill_trim,
};
