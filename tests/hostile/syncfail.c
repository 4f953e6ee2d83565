/* SPDX-License-Identifier: MIT
 *
 * syncfail.c: the disk says no: a write or a sync of a heap with a journal fails once, under two processes.
 *
 * What: each kind of sync fails at its first, second, ... call after a commit was acknowledged, while another process has the
 * heap open. Then everybody is told, reading goes on, nothing more is changed, and the next open has a whole heap with
 * what was acknowledged.
 *
 * Invariants
 *   S1  The call in which it failed says PHEAP_EPOISONED, and so does every later attempt to change something, in all
 *       processes.
 *   S2  The next open finds what was acknowledged, and perhaps what was not; both words of the value agree.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os.h"
#include "pheap.h"

#define CALLS_MAX 12

enum fn { FN_WRITE_SYNC, FN_MAP_SYNC, FN_FILE_SYNC, FN_COUNT };

struct value {
	uint64_t first;
	char between[9000]; /* two pages at least */
	uint64_t second;
};

/* Shared with the other process. */
struct board {
	volatile int ask, answer, commit_rc, read_rc;
};

static const char *const fn_names[] = {"file_write_sync", "map_sync", "file_sync"};
static struct ph_os os;
static struct board *board;
static int fail_fn = -1, fail_left;
static bool failed_once;
static char path[4096], folder[4096];
static int passed, failed;

static bool __attribute__((format(printf, 2, 3))) expect(bool good, const char *format, ...)
{
	va_list args;

	passed += good;
	failed += !good;
	if (good)
		return true;
	va_start(args, format);
	printf("FAILED: ");
	vprintf(format, args);
	printf(" (%s; %s)\n", pheap_error_detail(NULL), fail_fn >= 0 ? fn_names[fail_fn] : "");
	va_end(args);
	return false;
}

static bool fails(int fn)
{
	if (fn != fail_fn || failed_once || fail_left-- > 0)
		return false;
	failed_once = true;
	return true;
}

static int os_write_sync(int fd, const void *buf, size_t n, uint64_t off)
{
	return fails(FN_WRITE_SYNC) ? -EIO : ph_os_linux.file_write_sync(fd, buf, n, off);
}

static int os_map_sync(void *address, size_t n)
{
	return fails(FN_MAP_SYNC) ? -EIO : ph_os_linux.map_sync(address, n);
}

static int os_file_sync(int fd)
{
	return fails(FN_FILE_SYNC) ? -EIO : ph_os_linux.file_sync(fd);
}

static int change(pheap *h, uint64_t to)
{
	const struct value *v;
	struct value *now;
	pheap_tx *tx;
	int rc = pheap_begin(h, 0, &tx);

	if (rc)
		return rc;
	v = pheap_root(tx, "value", sizeof(*v), 1);
	now = v ? pheap_modify(tx, v, sizeof(*v)) : NULL;
	if (now)
		now->first = now->second = to;
	return pheap_commit(tx);
}

static int look(pheap *h, uint64_t *ret)
{
	const struct value *v;
	pheap_tx *tx;
	int rc = pheap_begin(h, PHEAP_READ, &tx);

	if (rc)
		return rc;
	v = pheap_find(h, "value");
	*ret = v && v->first == v->second ? v->first : UINT64_MAX;
	return pheap_commit(tx);
}

static void wait_for(const volatile int *word, int value)
{
	for (int i = 0; *word < value && i < 30000; i++)
		usleep(1000);
}

/* The other process: has the heap open, and tries when it is asked. */
static _Noreturn void other(void)
{
	uint64_t seen;
	pheap *h;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fail_fn = -1;
	if (pheap_open(path, 0, NULL, &h))
		_exit(1);
	board->answer = 1;
	wait_for(&board->ask, 1);
	board->commit_rc = change(h, 77);
	board->read_rc = look(h, &seen);
	(void)pheap_close(h);
	board->answer = 2;
	_exit(0);
}

static void heap_again(uint64_t least, uint64_t most, int fn, int at)
{
	uint64_t seen = 0;
	pheap *h;
	int rc = pheap_open(path, 0, NULL, &h);

	if (!expect(rc == 0, "%s, call %d: the next open gives %d", fn_names[fn], at, rc))
		return;
	rc = look(h, &seen);
	expect(rc == 0 && seen >= least && seen <= most, "%s, call %d: the value is %llu, not %llu to %llu",
	       fn_names[fn], at, (unsigned long long)seen, (unsigned long long)least,
	       (unsigned long long)most);
	expect(change(h, 100) == 0 && look(h, &seen) == 0 && seen == 100, "%s, call %d: it does not go on",
	       fn_names[fn], at);
	expect(pheap_close(h) == 0, "%s, call %d: close", fn_names[fn], at);
}

/* False: the call was not reached. */
static bool round_run(uint32_t level, int fn, int at)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	uint64_t seen = 0, told = 1;
	pheap *h = NULL;
	pid_t pid;
	int rc, close_rc;

	opt.durability = level;
	opt.initial_size = 1 << 20;
	opt.max_size = 4 << 20;
	opt.epoch_ms = 3600000; /* checkpoints are asked for */
	unlink(path);
	memset(board, 0, sizeof(*board));
	if (!expect(pheap_open(path, PHEAP_CREATE, &opt, &h) == 0, "create"))
		exit(1);
	pid = fork();
	if (pid == 0)
		other();
	wait_for(&board->answer, 1);
	expect(change(h, 1) == 0 && pheap_checkpoint(h) == 0, "the first change");
	fail_fn = fn;
	fail_left = at;
	failed_once = false;
	for (uint64_t i = 2; i < 5 && !failed_once; i++) {
		rc = change(h, i);
		if (rc == 0 && level == PHEAP_SYNC)
			told = i;
		if (rc == 0 && !failed_once)
			rc = pheap_checkpoint(h);
		if (rc == 0 && !failed_once)
			told = i;
		expect((rc == 0) == !failed_once && (rc == 0 || rc == PHEAP_EPOISONED),
		       "%s, call %d: the change gives %d", fn_names[fn], at, rc);
	}
	board->ask = 1;
	wait_for(&board->answer, 2);
	waitpid(pid, NULL, 0);
	if (failed_once) {
		expect(change(h, 50) == PHEAP_EPOISONED, "%s, call %d: a later change", fn_names[fn], at);
		expect(look(h, &seen) == 0, "%s, call %d: reading", fn_names[fn], at);
		expect(board->commit_rc == PHEAP_EPOISONED,
		       "%s, call %d: a change of another process gives %d", fn_names[fn], at,
		       board->commit_rc);
		expect(board->read_rc == 0, "%s, call %d: reading of another process gives %d", fn_names[fn],
		       at, board->read_rc);
	} else {
		expect(board->commit_rc == 0, "a change of another process gives %d", board->commit_rc);
		told = level == PHEAP_SYNC ? 77 : told;
	}
	close_rc = pheap_close(h);
	fail_fn = -1;
	if (close_rc == 0)
		told = 77;
	expect((close_rc == 0) == !failed_once, "%s, call %d: close gives %d", fn_names[fn], at, close_rc);
	heap_again(told, failed_once ? 77 : told, fn, at);
	return failed_once;
}

int main(void)
{
	const char *top = getenv("TMPDIR");

	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(folder, sizeof(folder), "%s/pheap-syncfail-XXXXXX", top && *top ? top : "/tmp");
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!mkdtemp(folder) || board == MAP_FAILED) {
		perror(folder);
		return 2;
	}
	snprintf(path, sizeof(path), "%.4000s/heap", folder);
	os = ph_os_linux;
	os.file_write_sync = os_write_sync;
	os.map_sync = os_map_sync;
	os.file_sync = os_file_sync;
	ph_os = &os;
	for (int level = 2; level <= 3; level++)
		for (int fn = 0; fn < FN_COUNT; fn++)
			for (int at = 0; at < CALLS_MAX && round_run((uint32_t)level << 24, fn, at); at++)
				;
	/* Pages that are locked in memory are forgotten too. */
	if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0)
		(void)round_run(PHEAP_SYNC, FN_WRITE_SYNC, 0);
	else
		printf("skipped: a process that locks its memory: %s\n", strerror(errno));
	unlink(path);
	rmdir(folder);
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
