/* SPDX-License-Identifier: MIT
 *
 * self.c: parts of a bench in a fresh process: this program, started anew.
 *
 * Why not a fork alone: it inherits what the parent has loaded, touched and freed, and that is measured here.
 * Protocol: pheap-bench --self PART ARG1 ARG2 ARG3 FD PARENT; the result is written to FD.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

pid_t bench_fork(void)
{
	pid_t parent = getpid(), pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0)
		bench_die("fork: %s", strerror(errno));
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent) /* it died before the line above */
		_exit(1);
	bench_scratch_leave();
	return 0;
}

int bench_wait(pid_t pid, const char *what)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			bench_die("waitpid: %s", strerror(errno));
	if (WIFSIGNALED(status))
		bench_die("%s: killed by signal %d", what, WTERMSIG(status));
	return WEXITSTATUS(status);
}

void bench_wait_ok(pid_t pid, const char *what)
{
	if (bench_wait(pid, what))
		bench_die("%s: failed", what);
}

void bench_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static _Noreturn void self_exec(const char *const args[4], int fd, pid_t parent)
{
	char program[] = "pheap-bench", mode[] = "--self", out[16], pid[16];
	char *argv[9] = {program, mode};

	for (unsigned i = 0; i < 4; i++)
		argv[2 + i] = (char *)(uintptr_t)args[i];
	snprintf(out, sizeof(out), "%d", fd);
	snprintf(pid, sizeof(pid), "%d", (int)parent);
	argv[6] = out;
	argv[7] = pid;
	execv("/proc/self/exe", argv);
	_exit(127);
}

/* How many there were, at most n. */
static size_t bytes_read(int fd, void *ret, size_t n)
{
	size_t total = 0;
	ssize_t got;

	while (total < n &&
	       ((got = read(fd, (char *)ret + total, n - total)) > 0 || (got < 0 && errno == EINTR)))
		total += got > 0 ? (size_t)got : 0;
	return total;
}

bool bench_self_tell(int fd, const void *bytes, size_t n)
{
	size_t total = 0;
	ssize_t put;

	while (total < n && ((put = write(fd, (const char *)bytes + total, n - total)) > 0 || errno == EINTR))
		total += put > 0 ? (size_t)put : 0;
	return total == n;
}

int bench_self_run(const char *const args[4], void *ret, size_t n)
{
	pid_t parent = getpid(), pid;
	int fds[2], status;
	size_t total;

	if (pipe(fds))
		bench_die("pipe: %s", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		bench_die("fork: %s", strerror(errno));
	if (!pid) {
		close(fds[0]);
		bench_unpin(); /* it pins itself, and knows then what it may use */
		self_exec(args, fds[1], parent);
	}
	close(fds[1]);
	total = bytes_read(fds[0], ret, n);
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return total == n ? status : -1;
}

int bench_self_main(char **argv)
{
	int fd = atoi(argv[4]);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != atoi(argv[5])) /* it died before the line above */
		return 1;
	bench_pin();
	if (!strcmp(argv[0], "life"))
		return bench_life_self(argv + 1, fd);
	if (!strcmp(argv[0], "memory"))
		return bench_memory_self(argv[1], fd);
	if (!strcmp(argv[0], "sync"))
		return bench_sync_self(argv + 1, fd);
	return 1;
}
