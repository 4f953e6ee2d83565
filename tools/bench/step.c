/* SPDX-License-Identifier: MIT
 *
 * step.c: counts the user instructions of an operation by single steps.
 *
 * What: a child runs the loop twice, `first` and then more operations; the parent steps through both
 * under ptrace. The difference cancels what surrounds the operations.
 * Why: virtual machines often have no instruction counter. Stepping is some 10,000 times slower, but
 * exact, and a few operations are enough.
 *
 * Invariants
 *   T1  A repeated string instruction traps at each round but counts once, as it does in a hardware counter.
 *   T2  Only what happens between the two edges of a loop is counted: `phase` is odd there.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define FIRST_COUNT 1u
#define WARM_COUNT 3000u
#define STEP_MAX 4000000u /* a child that never ends its loop */

struct shared {
	volatile uint64_t count; /* operations of the next loop; the parent's */
	volatile uint64_t phase; /* loops entered + loops left; the child's */
};

static _Noreturn void child(const struct bench_steps *s, struct shared *shared)
{
	uint64_t rng = BENCH_SEED;
	void *self;

	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(2);
	self = s->open(s->arg);
	s->loop(self, &rng, s->param, WARM_COUNT / (s->param ? s->param : 1) + 100);
	raise(SIGSTOP);
	for (;;) {
		shared->phase++;
		s->loop(self, &rng, s->param, shared->count);
		shared->phase++;
	}
}

#ifdef __x86_64__
static uint64_t instruction_pointer(pid_t pid)
{
	return (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), NULL);
}

/* Steps until phase has reached `phase`; how many instructions that were, or 0 when the child is gone. */
static uint64_t steps_until(pid_t pid, const struct shared *shared, uint64_t phase)
{
	uint64_t steps = 0, here = 0;
	int status;

	while (shared->phase < phase && steps < STEP_MAX) {
		uint64_t next;

		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) || waitpid(pid, &status, 0) != pid)
			return 0;
		if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
			return 0;
		next = instruction_pointer(pid);
		steps += next != here;
		here = next;
	}
	return steps;
}

static double child_count(pid_t pid, struct shared *shared, uint64_t budget)
{
	uint64_t first, count, second;
	int status;

	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
		return -1;
	shared->count = FIRST_COUNT;
	if (!steps_until(pid, shared, 1))
		return -1;
	first = steps_until(pid, shared, 2);
	if (!first)
		return -1;
	count = budget / (first / FIRST_COUNT + 1);
	count = count < 1 ? 1 : count;
	shared->count = FIRST_COUNT + count;
	if (!steps_until(pid, shared, 3))
		return -1;
	second = steps_until(pid, shared, 4);
	return second > first ? (double)(second - first) / (double)count : -1;
}
#else
/* elsewhere a step may break the load-linked pairs of atomics, which then never end */
static double child_count(pid_t pid, struct shared *shared, uint64_t budget)
{
	(void)pid;
	(void)shared;
	(void)budget;
	return -1;
}
#endif

double bench_step_count(const struct bench_steps *s, bool quick)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
	struct shared *shared = mmap(NULL, sizeof *shared, prot, flags, -1, 0);
	double ret;
	int status;
	pid_t pid;

	if (shared == MAP_FAILED)
		return -1;
	pid = bench_fork();
	if (!pid)
		child(s, shared);
	ret = child_count(pid, shared, quick ? 5000 : 40000);
	kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
		;
	munmap(shared, sizeof *shared);
	return ret;
}
