/* SPDX-License-Identifier: MIT
 *
 * fsck.c: the bench fsck: how many bytes of its file a checker gets through in a second.
 *
 * What: a heap full of 64-byte blocks, in the page cache; pheap-fsck -n -f as a process of its own, on one
 * processor. The limit reads the same file with read(2) and looks at no byte. SQLite's integrity_check goes
 * through a table of as many bytes in such blobs; pmempool, where it is installed, through a pool.
 * LMDB has no checker.
 * Why the program and not its code: it is what an administrator waits for, its start included.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "fill.h"

#ifdef BENCH_SQLITE
#include <sqlite3.h>
#endif

#define FILE_SIZE (1ull << 30)
#define FILE_SIZE_QUICK (128ull << 20)
#define BLOCK_SIZE 64u
#define BUFFER_SIZE (1u << 20)

extern char **environ;

struct player {
	const char *name;
	const struct fill_system *system; /* who makes its file; NULL: looks at that of pheap */
	uint64_t (*check_ns)(const char *path);
	char path[4096];
	double size; /* bytes of the file */
	double rate[BENCH_REP_MAX];
};

/* ---- checkers */

/* Runs a program that is found by PATH unless its name has a slash, its output dropped. -1: there is none. */
static int program_run(char *const argv[])
{
	posix_spawn_file_actions_t actions;
	int rc, status;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	rc = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (rc)
		return -1;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) && WEXITSTATUS(status) != 127 ? WEXITSTATUS(status) : -1;
}

static uint64_t program_ns(char *const argv[])
{
	uint64_t start = bench_clock_ns(CLOCK_MONOTONIC), ns;
	int rc = program_run(argv);

	ns = bench_clock_ns(CLOCK_MONOTONIC) - start;
	if (rc)
		bench_die("fsck: %s ends with %d", argv[0], rc);
	return ns;
}

/* That of this build, or the installed one. */
static const char *fsck_program(void)
{
	static char path[4096 + 32];
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	if (n > 0) {
		self[n] = 0;
		snprintf(path, sizeof path, "%s/../fsck/pheap-fsck", dirname(self));
		if (!access(path, X_OK))
			return path;
	}
	return "pheap-fsck";
}

static uint64_t pheap_ns(const char *path)
{
	const char *const args[] = {fsck_program(), "-n", "-f", path, NULL};

	return program_ns((char *const *)(uintptr_t)args);
}

static uint64_t read_ns(const char *path)
{
	static char buffer[BUFFER_SIZE];
	uint64_t start = bench_clock_ns(CLOCK_MONOTONIC);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 0;

	while (fd >= 0 && (n = read(fd, buffer, sizeof buffer)) > 0)
		;
	if (fd < 0 || n < 0)
		bench_die("fsck: %s: %s", path, strerror(errno));
	close(fd);
	return bench_clock_ns(CLOCK_MONOTONIC) - start;
}

#ifdef BENCH_SQLITE
static int row_look(void *found_ok, int columns, char **values, char **names)
{
	(void)names;
	*(bool *)found_ok = columns == 1 && values[0] && !strcmp(values[0], "ok");
	return 0;
}

static uint64_t sqlite_ns(const char *path)
{
	uint64_t start = bench_clock_ns(CLOCK_MONOTONIC);
	bool ok = false;
	sqlite3 *db;

	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) ||
	    sqlite3_exec(db, "PRAGMA integrity_check", row_look, &ok, NULL) || !ok)
		bench_die("fsck: sqlite: %s", sqlite3_errmsg(db));
	sqlite3_close(db);
	return bench_clock_ns(CLOCK_MONOTONIC) - start;
}
#endif

#ifdef BENCH_PMEMOBJ
/* check looks at headers only; the statistics go through the heap. */
static uint64_t pmempool_ns(const char *path)
{
	const char *const args[] = {"pmempool", "info", "-s", path, NULL};

	return program_ns((char *const *)(uintptr_t)args);
}

static bool pmempool_is_there(void)
{
	char name[] = "pmempool", version[] = "--version";
	char *const argv[] = {name, version, NULL};

	return program_run(argv) == 0;
}
#endif

/* ---- their files */

static void file_fill(const struct fill_system *system, const char *path, uint64_t size)
{
	uint64_t names[FILL_BATCH], live = 0;
	uint32_t sizes[FILL_BATCH];
	void *self = system->open(path, size, false);

	if (!self)
		bench_die("fsck: %s does not open %s", system->name, path);
	for (unsigned i = 0; i < FILL_BATCH; i++)
		sizes[i] = BLOCK_SIZE;
	while (live < size && system->alloc(self, sizes, names, FILL_BATCH))
		live += FILL_BATCH * BLOCK_SIZE;
	system->close(self);
}

static void player_make(struct player *p, uint64_t size)
{
	struct stat st;
	pid_t pid;

	if (p->system) {
		pid = bench_fork();
		if (!pid) {
			file_fill(p->system, p->path, size);
			_exit(0);
		}
		bench_wait_ok(pid, p->name);
	}
	if (stat(p->path, &st))
		bench_die("fsck: %s: %s", p->path, strerror(errno));
	p->size = (double)st.st_size;
	read_ns(p->path); /* into the page cache */
}

static unsigned players_list(const struct bench_options *opt, struct player *players)
{
	unsigned count = 0;

	players[count++] = (struct player){.name = "pheap", .system = &fill_pheap, .check_ns = pheap_ns};
	players[count++] = (struct player){.name = "limit", .check_ns = read_ns};
#ifdef BENCH_SQLITE
	players[count++] = (struct player){.name = "sqlite", .system = &fill_sqlite, .check_ns = sqlite_ns};
#else
	bench_skip(opt, "fsck", "-", "sqlite", "not in this build");
#endif
#ifdef BENCH_PMEMOBJ
	if (pmempool_is_there())
		players[count++] = (struct player){
			.name = "libpmemobj", .system = &fill_pmemobj, .check_ns = pmempool_ns};
	else
		bench_skip(opt, "fsck", "-", "libpmemobj", "there is no program pmempool here");
#else
	bench_skip(opt, "fsck", "-", "libpmemobj", "not in this build");
#endif
	bench_skip(opt, "fsck", "-", "lmdb", "it has no checker");
	return count;
}

void bench_fsck(const struct bench_options *opt)
{
	static const struct bench_target none;
	static struct player players[4];
	struct bench_result results[4];
	const uint64_t size = opt->quick ? FILE_SIZE_QUICK : FILE_SIZE;
	const char *folder = bench_scratch_folder(BENCH_TMPFS, 4 * size);
	unsigned count = players_list(opt, players);

	if (!folder)
		folder = opt->folder;
	for (unsigned i = 0; i < count; i++) {
		snprintf(players[i].path, sizeof players[i].path, "%s/fsck-%s", folder,
			 players[i].system ? players[i].name : "pheap");
		player_make(&players[i], size);
	}
	for (unsigned rep = 0; rep < opt->reps; rep++)
		for (unsigned i = 0; i < count; i++) {
			struct player *p = &players[(i + rep) % count];

			p->rate[rep] = p->size / (double)p->check_ns(p->path);
		}
	for (unsigned i = 0; i < count; i++) {
		results[i] =
			(struct bench_result){.system = players[i].name, .threads = 1, .instructions = -1};
		bench_summarize(players[i].rate, opt->reps, &results[i]);
		unlink(players[i].path);
	}
	bench_report(opt, "fsck", opt->quick ? "128MiB-GB/s" : "1GiB-GB/s", "GB/s", &none, results, count);
}
