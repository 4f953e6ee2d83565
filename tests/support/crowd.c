/* SPDX-License-Identifier: MIT
 *
 * crowd.c: see crowd.h.
 */
#include "crowd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct board {
	uint32_t wrong_set; /* 1: somebody writes why, 2: it is there */
	char why[600];
};

static struct board *board;
static char folder[PATH_MAX / 2];
static unsigned case_count, bad_count;
static uint64_t seed;
static pid_t first_process;

/* --- the folder --- */

/* Waits for the last holder of the pipe, which the test and its children are, then removes the folder. */
static void janitor_start(void)
{
	int ends[2], null;
	pid_t pid;
	char byte;

	if (pipe2(ends, O_CLOEXEC))
		abort();
	pid = fork();
	if (pid < 0)
		abort();
	if (pid) {
		(void)waitpid(pid, NULL, 0);
		close(ends[0]);
		return;
	}
	setsid();
	if (fork())
		_exit(0);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	dup2(ends[0], 3);
	close_range(4, ~0u, 0);
	while (read(3, &byte, 1) < 0)
		continue;
	execlp("rm", "rm", "-rf", "--", folder, (char *)NULL);
	_exit(1);
}

const char *crowd_path(const char *name)
{
	static char paths[4][PATH_MAX];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

void *crowd_share(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(2);
	}
	return p;
}

/* --- results --- */

static void on_limit(int number)
{
	static const char text[] = "not ok - the test did not end in time\nBail out!\n";

	(void)number;
	(void)!write(1, text, sizeof(text) - 1);
	if (board->wrong_set == 2)
		(void)!write(1, board->why, strlen(board->why));
	_exit(3); /* the children go with it */
}

void crowd_begin(const char *title, unsigned limit_s)
{
	const char *tmp = getenv("TMPDIR"), *text = getenv("PHEAP_TEST_SEED");

	setvbuf(stdout, NULL, _IOLBF, 0);
	first_process = getpid();
	seed = text && *text ? strtoull(text, NULL, 0) : 0x70686561;
	snprintf(folder, sizeof(folder), "%s/pheap-crowd-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(folder)) {
		perror(folder);
		exit(2);
	}
	janitor_start();
	board = crowd_share(sizeof(*board));
	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, on_limit);
	alarm(limit_s);
	printf("# %s (PHEAP_TEST_SEED=%#llx)\n", title, (unsigned long long)seed);
}

int crowd_end(void)
{
	if (crowd_is_wrong())
		ok(true, "nothing was wrong at the end");
	printf("1..%u\n", case_count);
	fflush(stdout);
	return bad_count != 0;
}

int crowd_wrong(const char *format, ...)
{
	uint32_t none = 0;
	va_list ap;

	if (!__atomic_compare_exchange_n(&board->wrong_set, &none, 1, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		return 1;
	va_start(ap, format);
	vsnprintf(board->why, sizeof(board->why), format, ap);
	va_end(ap);
	__atomic_store_n(&board->wrong_set, 2, __ATOMIC_RELEASE);
	return 1;
}

bool crowd_is_wrong(void)
{
	return __atomic_load_n(&board->wrong_set, __ATOMIC_ACQUIRE) != 0;
}

bool crowd_wrong_taken(char *ret, size_t n)
{
	bool was = crowd_is_wrong();

	if (ret && n)
		snprintf(ret, n, "%s", was ? board->why : "");
	__atomic_store_n(&board->wrong_set, 0, __ATOMIC_RELEASE);
	return was;
}

bool ok(bool good, const char *format, ...)
{
	char why[sizeof(board->why)];
	bool wrong = crowd_wrong_taken(why, sizeof(why));
	va_list ap;

	good = good && !wrong;
	bad_count += !good;
	printf("%sok %u - ", good ? "" : "not ", ++case_count);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n");
	if (wrong)
		printf("#   %s\n", why);
	return good;
}

void skip(const char *what, const char *why)
{
	printf("ok %u - %s # SKIP %s\n", ++case_count, what, why);
}

void note(const char *format, ...)
{
	va_list ap;

	printf("#   ");
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n");
}

/* --- processes --- */

pid_t crowd_start(int (*fn)(void *arg), void *arg)
{
	pid_t parent = getpid(), pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		perror("fork");
		exit(2);
	}
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent && getppid() != 0) /* 0: the parent is in another pid namespace */
		_exit(1);
	signal(SIGALRM, SIG_DFL);
	int rc = fn(arg);
	fflush(NULL);
	_exit(rc & 0xff);
}

int crowd_wait(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR) {
			perror("waitpid");
			exit(2);
		}
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

int crowd_kill(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	return crowd_wait(pid);
}

int crowd_run(int (*fn)(void *arg), void *arg)
{
	return crowd_wait(crowd_start(fn, arg));
}

bool crowd_sysv_private(void)
{
	return unshare(CLONE_NEWIPC) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWIPC) == 0;
}

/* --- meetings --- */

void crowd_set(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
	(void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void crowd_add(uint32_t *word)
{
	__atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
	(void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Who was to come may be gone, after a complaint. */
static _Noreturn void await_in_vain(void)
{
	if (getpid() != first_process)
		_exit(9);
	ok(false, "somebody did not come");
	exit(crowd_end());
}

void crowd_await(const uint32_t *word, uint32_t value)
{
	const struct timespec limit = {.tv_nsec = 50000000};
	uint32_t seen;

	while ((seen = __atomic_load_n(word, __ATOMIC_SEQ_CST)) < value) {
		(void)syscall(SYS_futex, word, FUTEX_WAIT, seen, &limit, NULL, 0);
		if (crowd_is_wrong() && __atomic_load_n(word, __ATOMIC_SEQ_CST) < value)
			await_in_vain();
	}
}

void crowd_nap_us(uint64_t us)
{
	struct timespec ts = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000 * 1000)};

	nanosleep(&ts, NULL);
}

uint64_t crowd_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void crowd_await_asleep(pid_t tid)
{
	char path[64], state = 0;
	int hits = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)tid);
	while (hits < 3) {
		FILE *f = fopen(path, "re");

		if (!f)
			return;
		if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = 0;
		hits += state == 'S' || state == 'Z' ? 1 : 0;
		fclose(f);
		crowd_nap_us(500);
	}
}

/* --- random: splitmix64 --- */

uint64_t crowd_seed(void)
{
	return seed;
}

uint64_t crowd_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t crowd_below(uint64_t *state, uint64_t n)
{
	return n ? crowd_random(state) % n : 0;
}

/* --- heaps --- */

void crowd_must(int rc, const char *what)
{
	if (rc == 0)
		return;
	crowd_wrong("%s: %d (%s; %s)", what, rc, pheap_strerror(rc), pheap_error_detail(NULL));
	if (getpid() != first_process)
		_exit(9);
	ok(false, "%s", what);
	exit(crowd_end());
}

struct pheap_options crowd_options(void)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;

	opt.durability = PHEAP_PROCESS;
	opt.initial_size = 1u << 20;
	opt.max_size = 16u << 20;
	opt.member_count = 32;
	opt.lane_count = 64;
	/* far above any wait that is right, also on a loaded machine; below the limits of the tests */
	opt.lock_timeout_ms = 30000;
	return opt;
}

pheap *crowd_open(const char *path, uint32_t flags, const struct pheap_options *opt)
{
	struct pheap_options usual = crowd_options();
	pheap *h = NULL;

	crowd_must(pheap_open(path, flags, opt ? opt : &usual, &h), "pheap_open");
	return h;
}

void crowd_close(pheap *h)
{
	crowd_must(pheap_close(h), "pheap_close");
}

pheap_tx *crowd_tx(pheap *h, uint32_t flags)
{
	pheap_tx *tx = NULL;
	int rc = pheap_begin(h, flags, &tx);

	if (rc) {
		crowd_wrong("pheap_begin: %d (%s)", rc, pheap_error_detail(h));
		crowd_must(rc, "pheap_begin");
	}
	return tx;
}

void crowd_commit(pheap_tx *tx)
{
	pheap *h = pheap_heap(tx);
	int rc = pheap_commit(tx);

	if (rc) {
		crowd_wrong("pheap_commit: %d (%s)", rc, pheap_error_detail(h));
		crowd_must(rc, "pheap_commit");
	}
}

unsigned crowd_count(const pheap *h, uint32_t type)
{
	unsigned count = 0;

	for (const void *p = NULL; (p = pheap_next(h, type, p));)
		count++;
	return count;
}
