/* SPDX-License-Identifier: MIT
 *
 * recovery_order.c: the lanes of a dead member are recovered internal transactions first.
 *
 * What: a member dies while it makes a run: its internal transaction is committed and not applied, the run's
 * chunks are owned by its user transaction. Its recoverer is stopped right before it applies the run. Two
 * others take extents meanwhile, the first that fit. They must not get the run's chunks: ORDER(internal-first)
 * in recovery.c. Recovered in the order of the lanes, the user transaction would be over by then, its chunks
 * free, and one range would be a run and extents at once.
 * Why two extents: one owns the run's head and hides it from the allocator until it is aborted; the other
 * lies in the rest of the run and overwrites blocks that were committed there.
 * Why the linker wraps ph_log_apply: the window is a few instructions wide, so no signal from outside hits
 * it; and nothing of the library changes for it.
 *
 * Invariants
 *   D1  The director, which is the test's first process, makes no call of the library, so each of its waits
 *       has a limit; its children are under an alarm.
 *   D2  The heap has a name only until everybody has it open. Whoever is told to stop, or finds the director
 *       gone, removes it.
 *   D3  A death at another place than the one described is a failure, never a pass.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "alloc.h"
#include "log.h"

#define TIME_LIMIT_S 60		/* of a child, for everything */
#define WAIT_LIMIT_S 70		/* of one wait of the director: a child that hangs has died before */
#define HEAP_SIZE (16ull << 20) /* nothing here makes it grow */

#define BLOCK_SIZE 14336u /* its runs are longer than the smallest extent */
#define BLOCK_COUNT 8u	  /* more than a run holds */
#define BLOCK_TYPE 7u
#define EXTENT_SIZE (PHD_BLOCK_SIZE_MAX + 1) /* the smallest */
#define EXTENT_CHUNKS ((EXTENT_SIZE + PHD_CHUNK_SIZE - 1) / PHD_CHUNK_SIZE)
#define EXTENT_TYPE 8u
#define EXTENT_BYTE 0xee /* no block is filled with it */

enum role { ROLE_HEAD, ROLE_TAIL, ROLE_RECOVERER, ROLE_VICTIM, ROLE_COUNT };
enum apply { APPLY_GO_ON, APPLY_DIE, APPLY_MEET };

/* --- folder --- */

static char folder[PATH_MAX / 2], heap_path[PATH_MAX];

static void folder_make(void)
{
	const char *top = getenv("TMPDIR");

	snprintf(folder, sizeof(folder), "%s/pheap-order-XXXXXX", top && *top ? top : "/tmp");
	if (!mkdtemp(folder)) {
		perror(folder);
		exit(2);
	}
	snprintf(heap_path, sizeof(heap_path), "%s/heap", folder);
}

/* A second time does no harm. */
static void folder_remove(void)
{
	(void)unlink(heap_path);
	(void)rmdir(folder);
}

/* --- a child's side --- */

static int director_fd;
static enum apply on_apply = APPLY_GO_ON;

static _Noreturn void child_fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, pheap_error_detail(NULL));
	_exit(1);
}

static void director_tell(int64_t value)
{
	if (send(director_fd, &value, sizeof(value), MSG_NOSIGNAL) == (ssize_t)sizeof(value))
		return;
	folder_remove();
	_exit(1);
}

static void director_await(void)
{
	char cue;

	if (read(director_fd, &cue, 1) == 1)
		return;
	folder_remove();
	_exit(1);
}

/* Tells it, and goes on when the director says so. */
static void director_meet(int64_t value)
{
	director_tell(value);
	director_await();
}

static pheap_tx *tx_begin(pheap *h)
{
	pheap_tx *tx = NULL;

	if (pheap_begin(h, PHEAP_CONCURRENT, &tx))
		child_fail("begin");
	return tx;
}

static void *tx_alloc(pheap_tx *tx, size_t n, uint32_t type)
{
	void *p = pheap_alloc(tx, n, type);

	if (!p)
		child_fail("alloc");
	return p;
}

/* --- where the victim dies and the recoverer pauses --- */

void __real_ph_log_apply(struct pheap *h, const struct ph_log *log);
void __wrap_ph_log_apply(struct pheap *h, const struct ph_log *log);

/* Is a user's transaction open in a lane before the one of a committed internal transaction? Only then does
 * the order of the lanes differ from the right one. */
static bool lanes_are_crossed(const struct pheap *h)
{
	bool user_before = false;

	for (uint32_t i = 0; i < h->super.lane_count; i++) {
		uint64_t state = __atomic_load_n(&h->lanes[i].state, __ATOMIC_ACQUIRE);
		unsigned mode = PHD_STATE_MODE(state), step = PHD_STATE_STEP(state);

		user_before |= mode == PHD_MODE_CONCURRENT && step == PHD_STEP_ACTIVE;
		if (mode == PHD_MODE_INTERNAL && step == PHD_STEP_COMMITTED)
			return user_before;
	}
	return false;
}

static _Noreturn void victim_die(const struct pheap *h)
{
	if (!lanes_are_crossed(h))
		child_fail("victim: its lanes are not in the states and the order that this test is about");
	if (ph_run_length(h, ph_run_class(BLOCK_SIZE)) <= EXTENT_CHUNKS)
		child_fail("victim: an extent covers the whole run, choose another BLOCK_SIZE");
	(void)raise(SIGKILL);
	_exit(1);
}

void __wrap_ph_log_apply(struct pheap *h, const struct ph_log *log)
{
	enum apply what = on_apply;

	on_apply = APPLY_GO_ON;
	if (what == APPLY_DIE)
		victim_die(h);
	if (what == APPLY_MEET)
		director_meet(0);
	__real_ph_log_apply(h, log);
}

/* --- the roles: each returns when its part is played --- */

static void victim_play(pheap *h)
{
	pheap_tx *tx = tx_begin(h);

	on_apply = APPLY_DIE;
	(void)tx_alloc(tx, BLOCK_SIZE, BLOCK_TYPE);
	child_fail("victim: the allocation made no run");
}

static void head_play(pheap *h)
{
	pheap_tx *tx = tx_begin(h);

	(void)tx_alloc(tx, EXTENT_SIZE, EXTENT_TYPE);
	director_meet(0);
	pheap_abort(tx);
	director_meet(0);
}

static void tail_play(pheap *h)
{
	pheap_tx *tx = tx_begin(h);
	void *p = tx_alloc(tx, EXTENT_SIZE, EXTENT_TYPE);
	int rc;

	director_meet(0);
	memset(p, EXTENT_BYTE, EXTENT_SIZE);
	rc = pheap_commit(tx);
	if (rc)
		fprintf(stderr, "tail: commit: %s\n", pheap_error_detail(h));
	director_meet(rc);
}

static bool block_is_whole(const unsigned char *block, unsigned char byte)
{
	for (size_t i = 0; i < BLOCK_SIZE; i++)
		if (block[i] != byte)
			return false;
	return true;
}

static void blocks_commit(pheap *h, unsigned char *blocks[BLOCK_COUNT])
{
	pheap_tx *tx = tx_begin(h);

	for (unsigned i = 0; i < BLOCK_COUNT; i++) {
		blocks[i] = tx_alloc(tx, BLOCK_SIZE, BLOCK_TYPE);
		memset(blocks[i], (int)i, BLOCK_SIZE);
	}
	if (pheap_commit(tx))
		child_fail("recoverer: commit");
}

static void recoverer_play(pheap *h)
{
	unsigned char *blocks[BLOCK_COUNT];
	uint32_t members = 0;
	int64_t damaged = 0;

	on_apply = APPLY_MEET;
	if (pheap_recover(h, &members))
		child_fail("recover");
	if (on_apply == APPLY_MEET)
		child_fail("recoverer: there was nothing to apply");
	director_meet(members);
	blocks_commit(h, blocks);
	director_meet(0);
	for (unsigned i = 0; i < BLOCK_COUNT; i++)
		damaged += !block_is_whole(blocks[i], (unsigned char)i);
	director_meet(damaged);
}

static const struct {
	const char *name;
	void (*play)(pheap *h);
} roles[ROLE_COUNT] = {
	[ROLE_HEAD] = {"head", head_play},
	[ROLE_TAIL] = {"tail", tail_play},
	[ROLE_RECOVERER] = {"recoverer", recoverer_play},
	[ROLE_VICTIM] = {"victim", victim_play},
};

static _Noreturn void child_main(enum role role)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	pheap *h = NULL;

	opt.durability = PHEAP_PROCESS;
	alarm(TIME_LIMIT_S);
	opt.initial_size = HEAP_SIZE;
	if (pheap_open(heap_path, PHEAP_CREATE, &opt, &h))
		child_fail("open");
	director_meet(0);
	roles[role].play(h);
	if (pheap_close(h))
		child_fail("close");
	_exit(0);
}

/* --- the director's side --- */

static struct {
	pid_t pid; /* 0: not started, or reaped */
	int fd;
} children[ROLE_COUNT];

/* Who asks the director to stop is heard in its waits only, so it can clean up in peace. */
static const int stop_signals[] = {SIGHUP, SIGINT, SIGTERM};
static sigset_t mask_outside;

static void stop_note(int number)
{
	(void)number; /* ends the wait */
}

static void stop_handle(void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler};

	for (size_t i = 0; i < sizeof(stop_signals) / sizeof(*stop_signals); i++)
		(void)sigaction(stop_signals[i], &action, NULL);
}

static void stop_hold(void)
{
	sigset_t mask;

	sigemptyset(&mask);
	for (size_t i = 0; i < sizeof(stop_signals) / sizeof(*stop_signals); i++)
		sigaddset(&mask, stop_signals[i]);
	(void)sigprocmask(SIG_BLOCK, &mask, &mask_outside);
	stop_handle(stop_note);
}

static int child_reap(enum role role)
{
	int status = 0;

	while (waitpid(children[role].pid, &status, 0) < 0 && errno == EINTR)
		;
	children[role].pid = 0;
	return status;
}

static void children_kill(void)
{
	for (enum role role = 0; role < ROLE_COUNT; role++)
		if (children[role].pid > 0) {
			(void)kill(children[role].pid, SIGKILL);
			(void)child_reap(role);
		}
}

/* The story can not be told to its end. */
__attribute__((format(printf, 1, 2))) static _Noreturn void director_fail(const char *format, ...)
{
	va_list args;

	children_kill();
	folder_remove();
	printf("FAILED ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n0 passed, 1 failed\n");
	exit(1);
}

static _Noreturn void child_enter(enum role role, int fd)
{
	/* Whose ends stayed open here would not notice that the director is gone. */
	for (enum role other = 0; other < ROLE_COUNT; other++)
		if (children[other].fd > 0)
			(void)close(children[other].fd);
	stop_handle(SIG_DFL);
	(void)sigprocmask(SIG_SETMASK, &mask_outside, NULL);
	director_fd = fd;
	child_main(role);
}

static void child_start(enum role role)
{
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		director_fail("socketpair: %s", strerror(errno));
	children[role].fd = ends[0];
	pid = fork();
	if (pid < 0)
		director_fail("fork: %s", strerror(errno));
	if (pid == 0)
		child_enter(role, ends[1]);
	children[role].pid = pid;
	(void)close(ends[1]);
}

/* What it tells: true; that it has ended: false. */
static bool child_listen(enum role role, int64_t *ret_value)
{
	struct pollfd poll = {.fd = children[role].fd, .events = POLLIN};
	struct timespec limit = {.tv_sec = WAIT_LIMIT_S};
	int ready = ppoll(&poll, 1, &limit, &mask_outside);

	if (ready < 0)
		director_fail("waiting for the %s: %s", roles[role].name, strerror(errno));
	if (ready == 0)
		director_fail("the %s says nothing for %d s", roles[role].name, WAIT_LIMIT_S);
	return read(children[role].fd, ret_value, sizeof(*ret_value)) == (ssize_t)sizeof(*ret_value);
}

static int64_t child_hear(enum role role)
{
	int64_t value = 0;

	if (!child_listen(role, &value))
		director_fail("the %s ended early", roles[role].name);
	return value;
}

static void child_cue(enum role role)
{
	const char cue = 1;

	if (send(children[role].fd, &cue, 1, MSG_NOSIGNAL) != 1)
		director_fail("the %s is gone", roles[role].name);
}

/* Lets it play on to its next meeting. */
static int64_t child_step(enum role role)
{
	child_cue(role);
	return child_hear(role);
}

/* Lets it play on to its end. */
static int child_last(enum role role)
{
	int64_t value;

	child_cue(role);
	if (child_listen(role, &value))
		director_fail("the %s went on", roles[role].name);
	return child_reap(role);
}

/* --- the story --- */

struct outcome {
	int64_t members;   /* that were recovered */
	int64_t tail_rc;   /* of the commit of the extent */
	int64_t damaged;   /* committed blocks */
	int64_t ended_bad; /* children that could not close the heap */
};

static void story_begin(void)
{
	for (enum role role = 0; role < ROLE_COUNT; role++) {
		child_start(role);
		(void)child_hear(role);
	}
	folder_remove();
}

static void story_death(void)
{
	int status = child_last(ROLE_VICTIM);

	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		director_fail("the victim did not die where it should");
}

static struct outcome story_tell(void)
{
	struct outcome out = {0};

	story_begin();
	story_death();
	(void)child_step(ROLE_RECOVERER); /* stops before the run is applied */
	(void)child_step(ROLE_HEAD);	  /* takes an extent */
	(void)child_step(ROLE_TAIL);	  /* takes the next one */
	out.members = child_step(ROLE_RECOVERER);
	(void)child_step(ROLE_HEAD);	  /* aborts */
	(void)child_step(ROLE_RECOVERER); /* commits blocks */
	out.tail_rc = child_step(ROLE_TAIL);
	out.damaged = child_step(ROLE_RECOVERER);
	for (enum role role = 0; role < ROLE_VICTIM; role++)
		out.ended_bad += child_last(role) != 0;
	return out;
}

static int check(int64_t found, int64_t want, const char *what)
{
	printf("%s %s: %lld, expected %lld\n", found == want ? "ok    " : "FAILED", what, (long long)found,
	       (long long)want);
	return found != want;
}

int main(void)
{
	enum { CHECKS = 4 };
	struct outcome out;
	int failed = 0;

	stop_hold();
	folder_make();
	out = story_tell();
	failed += check(out.members, 1, "members recovered");
	failed += check(out.tail_rc, 0, "commit of an extent taken during the recovery");
	failed += check(out.damaged, 0, "committed blocks that were overwritten");
	failed += check(out.ended_bad, 0, "processes that ended badly");
	printf("%d passed, %d failed\n", CHECKS - failed, failed);
	return failed != 0;
}
