/* SPDX-License-Identifier: MIT
 *
 * ephemeral.c: heaps that go with their last user, under processes that stop or die at each step.
 *
 * What: a process is stopped at its k-th step of opening or closing such a heap; meanwhile the last user leaves and another
 * one comes; then it goes on. Whoever has the name's heap open at the end must have the same one. And: a process is killed
 * at its k-th step; what it leaves is no heap, or one that the living go on with.
 * Why stops: "two heaps under one name" needs three processes in an order that chance gives once in a million.
 *
 * Invariants
 *   P1  Who has the heap open has the one whose name stands.
 *   P2  A heap whose users are all gone is met by nobody.
 *   P3  Waits for others are short and prove nothing: a process that does not get on is let go by the next step.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "layout.h"
#include "os.h"
#include "procs.h"
#include "victim.h"

#define FLAGS (PHEAP_CREATE | PHEAP_EPHEMERAL)
#define SEATS 3u
#define PATIENCE_MS 8u /* for one who may have to wait for the stopped one */

enum state { ABSENT, COMING, HERE, LEAVING, GONE };

/* One process and what it says, in shared memory. */
struct seat {
	volatile uint32_t state, leave;
	volatile uint8_t uuid[16];
	volatile uint32_t marked; /* it found the mark of the first one */
	pid_t pid;
};

static struct seat *seats;
static const char *path;

static void nap_us(long us)
{
	struct timespec ts = {.tv_nsec = us * 1000};

	nanosleep(&ts, NULL);
}

static int options_open(uint32_t flags, pheap **ret)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;

	opt.durability = PHEAP_PROCESS;
	opt.mode = 0600;
	opt.max_size = 256u << 10;
	opt.member_count = 6;
	opt.lane_count = 12;
	return pheap_open(path, flags, &opt, ret);
}

static int mark(pheap *h)
{
	pheap_tx *tx;
	int rc = pheap_begin(h, 0, &tx);

	if (rc)
		return rc;
	return pheap_end(tx, pheap_root(tx, "mark", 16, 1) ? 0 : pheap_error(tx));
}

/* A visit: comes, says what it found, waits, leaves. stop: at which step of coming (before = true) or leaving it stops;
 * kill likewise. */
struct visit {
	uint64_t stop_coming, stop_leaving, kill_coming, kill_leaving;
	bool marks;
};

static _Noreturn void visit(struct seat *s, const struct visit *v)
{
	struct pheap_info info;
	pheap *h;
	int rc;

	if (v->stop_coming)
		victim_arm_stop(v->stop_coming);
	else
		victim_arm(v->kill_coming);
	rc = options_open(FLAGS, &h);
	if (rc == 0)
		rc = pheap_info(h, &info, sizeof(info));
	if (rc) {
		bank_wrong(board, "open of the ephemeral heap: %d (%s)", rc, pheap_error_detail(NULL));
		_exit(9);
	}
	memcpy((void *)(uintptr_t)s->uuid, info.uuid, sizeof(info.uuid));
	s->marked = pheap_find(h, "mark") != NULL;
	if (v->marks && mark(h))
		_exit(9);
	victim_arm(0);
	s->state = HERE;
	while (!s->leave)
		nap_us(100);
	s->state = LEAVING;
	if (v->stop_leaving)
		victim_arm_stop(v->stop_leaving);
	else
		victim_arm(v->kill_leaving);
	rc = pheap_close(h);
	if (rc)
		bank_wrong(board, "close of the ephemeral heap: %d (%s)", rc, pheap_error_detail(NULL));
	s->state = GONE;
	_exit(rc ? 9 : 0);
}

static struct seat *visit_start(unsigned seat, struct visit v)
{
	struct seat *s = &seats[seat];
	pid_t pid;

	memset(s, 0, sizeof(*s));
	s->state = COMING;
	pid = procs_spawn();
	if (!pid)
		visit(s, &v);
	s->pid = pid;
	return s;
}

/* Until it has come so far, or is stopped (1), or dead (2), or patience ends (3; patience_ms 0: never). */
static int seat_await(struct seat *s, enum state state, unsigned patience_ms)
{
	int status;

	for (unsigned i = 0; !patience_ms || i < patience_ms * 10; i++) {
		pid_t pid = s->pid ? waitpid(s->pid, &status, WNOHANG | WUNTRACED) : 0;

		if (pid > 0 && WIFSTOPPED(status))
			return 1;
		if (pid > 0) {
			s->pid = 0;
			if (WIFSIGNALED(status))
				return 2;
			if (WEXITSTATUS(status))
				return bank_wrong(board, "a visitor: exit %d", WEXITSTATUS(status));
		}
		if (s->state >= (uint32_t)state)
			return 0;
		nap_us(100);
	}
	return 3;
}

static int seat_must(struct seat *s, enum state state, const char *what)
{
	int rc = seat_await(s, state, 0);

	return rc ? bank_wrong(board, "%s: %s", what, board->why_set ? board->why : "it stopped, or died")
		  : 0;
}

static void seat_end(struct seat *s)
{
	if (s->pid > 0) {
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
	}
	s->pid = 0;
}

static int leave_all(void)
{
	int rc = 0;

	for (unsigned i = 0; i < SEATS && !rc; i++)
		if (seats[i].pid) {
			seats[i].leave = 1;
			rc = seat_must(&seats[i], GONE, "leaving");
			if (seats[i].pid && waitpid(seats[i].pid, NULL, 0) > 0)
				seats[i].pid = 0;
		}
	return rc;
}

static int same(const struct seat *a, const struct seat *b, const char *what, uint64_t k)
{
	if (memcmp((const void *)(uintptr_t)a->uuid, (const void *)(uintptr_t)b->uuid, 16) == 0)
		return 0;
	return bank_wrong(board,
			  "%s stopped at step %" PRIu64 ": two processes have different heaps under one name",
			  what, k);
}

static int none_left(const char *what, uint64_t k)
{
	pheap *h;
	int rc = options_open(0, &h);

	if (rc == 0)
		(void)pheap_close(h);
	if (rc == -ENOENT && access(path, F_OK))
		return 0;
	return bank_wrong(board, "%s at step %" PRIu64 ": all are gone, open gives %d", what, k, rc);
}

/* The last user leaves and another one comes while somebody stands in the door. */
static int stopped_comer(uint64_t k, bool *ret_over)
{
	struct seat *last = visit_start(0, (struct visit){.marks = true}), *comer, *next;
	int rc = seat_must(last, HERE, "the first one"), stopped;

	if (rc)
		return rc;
	comer = visit_start(1, (struct visit){.stop_coming = k});
	stopped = seat_await(comer, HERE, 0);
	if (stopped < 0 || stopped > 1)
		return stopped < 0 ? stopped : bank_wrong(board, "a comer died");
	last->leave = 1;
	(void)seat_await(last, GONE, PATIENCE_MS);
	next = visit_start(2, (struct visit){0});
	(void)seat_await(next, HERE, PATIENCE_MS);
	if (stopped == 1)
		kill(comer->pid, SIGCONT);
	rc = seat_must(comer, HERE, "the one that was stopped");
	rc = rc ? rc : seat_must(next, HERE, "the next one");
	rc = rc ? rc : seat_must(last, GONE, "the last one");
	rc = rc ? rc : same(comer, next, "a comer", k);
	rc = rc ? rc : leave_all();
	*ret_over = stopped == 0;
	return rc ? rc : none_left("a comer stopped", k);
}

/* Has anybody but the first member come in, or is about to? */
static bool in_door(int fd)
{
	return ph_os_linux.lock_test(fd, PHD_LOCK_GATE) || ph_os_linux.lock_test(fd, PHD_LOCK_SLOT + 1);
}

/* The name is removed by hand while somebody is about to come in by it: he is not to meet those who have that file. */
static int removed_comer(uint64_t k, bool *ret_over)
{
	struct seat *first = visit_start(0, (struct visit){.marks = true}), *comer, *next;
	int rc = seat_must(first, HERE, "the first one"), stopped, fd;
	bool inside;

	if (rc)
		return rc;
	comer = visit_start(1, (struct visit){.stop_coming = k});
	stopped = seat_await(comer, HERE, 0);
	if (stopped < 0 || stopped > 1)
		return stopped < 0 ? stopped : bank_wrong(board, "a comer died");
	fd = ph_os_linux.file_open(path, O_RDWR, 0);
	inside = fd < 0 || in_door(fd);
	if (fd >= 0)
		(void)ph_os_linux.file_close(fd);
	unlink(path);
	next = visit_start(2, (struct visit){0});
	rc = seat_must(next, HERE, "the next one");
	if (stopped == 1)
		kill(comer->pid, SIGCONT);
	rc = rc ? rc : seat_must(comer, HERE, "the one that was stopped");
	rc = rc || inside ? rc : same(comer, next, "a comer", k);
	rc = rc ? rc : leave_all();
	*ret_over = stopped == 0;
	return rc ? rc : none_left("a comer stopped", k);
}

static int stopped_leaver(uint64_t k, bool *ret_over)
{
	struct seat *leaver = visit_start(0, (struct visit){.marks = true, .stop_leaving = k}), *next, *third;
	int rc = seat_must(leaver, HERE, "the first one"), stopped;

	if (rc)
		return rc;
	leaver->leave = 1;
	stopped = seat_await(leaver, GONE, 0);
	if (stopped < 0 || stopped > 1)
		return stopped < 0 ? stopped : bank_wrong(board, "a leaver died");
	next = visit_start(1, (struct visit){0});
	(void)seat_await(next, HERE, PATIENCE_MS);
	if (stopped == 1)
		kill(leaver->pid, SIGCONT);
	rc = seat_must(leaver, GONE, "the one that was stopped");
	rc = rc ? rc : seat_must(next, HERE, "the next one");
	if (rc)
		return rc;
	third = visit_start(2, (struct visit){0});
	rc = seat_must(third, HERE, "the third one");
	rc = rc ? rc : same(next, third, "a leaver", k);
	rc = rc ? rc : leave_all();
	*ret_over = stopped == 0;
	return rc ? rc : none_left("a leaver stopped", k);
}

/* Nobody has it when a creator is killed: there is no heap, or one that nobody has used. */
static int killed_alone(uint64_t k, bool coming, bool *ret_over)
{
	struct visit v = {.marks = true};
	struct seat *s;
	pheap *h;
	int rc;

	*(coming ? &v.kill_coming : &v.kill_leaving) = k;
	s = visit_start(0, v);
	s->leave = 1;
	rc = seat_await(s, GONE, 0);
	if (rc != 0 && rc != 2)
		return rc < 0 ? rc : bank_wrong(board, "a user stopped");
	*ret_over = rc == 0;
	seat_end(s);
	if (*ret_over)
		return none_left("a user killed", k);
	rc = options_open(0, &h);
	if (rc == -ENOENT)
		return none_left("a user killed", k);
	if (rc || pheap_find(h, "mark") || pheap_close(h))
		return bank_wrong(board, "the only user was killed at step %" PRIu64 ": open gives %d%s", k,
				  rc, rc ? "" : ", its heap");
	return none_left("a user killed", k);
}

/* Somebody has it when another one is killed: it goes on, and who comes joins it. */
static int killed_beside(uint64_t k, bool coming, bool *ret_over)
{
	struct visit v = {0};
	struct seat *stays = &seats[0], *s, *next;
	int rc = 0;

	if (!stays->pid) {
		visit_start(0, (struct visit){.marks = true});
		rc = seat_must(stays, HERE, "the one that stays");
	}
	if (rc)
		return rc;
	*(coming ? &v.kill_coming : &v.kill_leaving) = k;
	s = visit_start(1, v);
	s->leave = 1;
	rc = seat_await(s, GONE, 0);
	if (rc != 0 && rc != 2)
		return rc < 0 ? rc : bank_wrong(board, "a user stopped");
	*ret_over = rc == 0;
	seat_end(s);
	next = visit_start(2, (struct visit){0});
	rc = seat_must(next, HERE, "the next one");
	if (!rc && !next->marked)
		rc = bank_wrong(
			board,
			"a user killed at step %" PRIu64 " beside another: the next one has another heap", k);
	rc = rc ? rc : same(stays, next, "a user", k);
	next->leave = 1;
	rc = rc ? rc : seat_must(next, GONE, "the next one");
	seat_end(next);
	if (!*ret_over)
		return rc;
	rc = rc ? rc : leave_all();
	return rc ? rc : none_left("users killed", k);
}

static int sweep(int (*fn)(uint64_t k, bool *ret_over), uint64_t max, uint64_t *count)
{
	bool over = false;
	int rc = 0;

	for (uint64_t k = 1; !rc && !over && k <= max; k++, (*count)++)
		rc = fn(k, &over);
	for (unsigned i = 0; i < SEATS; i++)
		seat_end(&seats[i]);
	unlink(path);
	return rc;
}

static int alone_coming(uint64_t k, bool *ret_over)
{
	return killed_alone(k, true, ret_over);
}

static int alone_leaving(uint64_t k, bool *ret_over)
{
	return killed_alone(k, false, ret_over);
}

static int beside_coming(uint64_t k, bool *ret_over)
{
	return killed_beside(k, true, ret_over);
}

static int beside_leaving(uint64_t k, bool *ret_over)
{
	return killed_beside(k, false, ret_over);
}

int ephemeral_part(const char *where, uint64_t max, uint64_t *ret_stops, uint64_t *ret_kills)
{
	int rc;

	path = where;
	*ret_stops = *ret_kills = 0;
	seats = mmap(NULL, SEATS * sizeof(*seats), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (seats == MAP_FAILED)
		return bank_wrong(board, "mmap failed");
	rc = sweep(stopped_leaver, max, ret_stops);
	rc = rc ? rc : sweep(stopped_comer, max, ret_stops);
	rc = rc ? rc : sweep(removed_comer, max, ret_stops);
	rc = rc ? rc : sweep(alone_coming, max, ret_kills);
	rc = rc ? rc : sweep(alone_leaving, max, ret_kills);
	rc = rc ? rc : sweep(beside_coming, max, ret_kills);
	rc = rc ? rc : sweep(beside_leaving, max, ret_kills);
	munmap(seats, SEATS * sizeof(*seats));
	return rc;
}
