/* SPDX-License-Identifier: MIT
 *
 * life.c: open-after-kill: how long an open takes when the last user was killed inside a transaction.
 *
 * What: for each system and size, one process makes the file, one more per repetition opens it, says how
 * long that took, begins a transaction that changes words and allocates, and kills itself with SIGKILL.
 * So each open has a transaction to undo, and is the first of a fresh process. Systems take turns within
 * each repetition.
 * Why the processes are this program started anew and not forks: a fork inherits what the parent has
 * loaded and touched. The pages of the file that the maker wrote stay in the page cache; the large blocks
 * are allocated and never touched.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

struct size {
	const char *name;
	uint64_t size, block_count;
};

static const struct bench_system *system_find(const char *name)
{
	for (unsigned i = 0; bench_systems[i]; i++)
		if (!strcmp(bench_systems[i]->name, name))
			return bench_systems[i];
	bench_die("no system %s", name);
}

/* argv: SYSTEM PATH SIZE BLOCKS FD PARENT; blocks 0: open. Ends by SIGKILL unless something is wrong. */
int bench_life_child(char **argv)
{
	const struct bench_system *system = system_find(argv[0]);
	uint64_t size = strtoull(argv[2], NULL, 10), block_count = strtoull(argv[3], NULL, 10), ns = 0;
	int fd = atoi(argv[4]);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != atoi(argv[5]))
		return 1;
	bench_pin();
	if (block_count)
		system->life_create(argv[1], size, block_count);
	else
		ns = system->life_open_ns(argv[1], size);
	if (write(fd, &ns, sizeof ns) != sizeof ns)
		return 1;
	kill(getpid(), SIGKILL);
	return 1;
}

static _Noreturn void life_exec(const struct bench_system *system, const char *path, const struct size *size,
				bool create, int fd, pid_t parent)
{
	char bytes[32], blocks[32], out[16], pid[16], program[] = "pheap-bench", mode[] = "--life";
	char *argv[] = {
		program, mode, (char *)(uintptr_t)system->name, (char *)(uintptr_t)path, bytes, blocks, out,
		pid,	 NULL};

	snprintf(bytes, sizeof bytes, "%" PRIu64, size->size);
	snprintf(blocks, sizeof blocks, "%" PRIu64, create ? size->block_count : 0);
	snprintf(out, sizeof out, "%d", fd);
	snprintf(pid, sizeof pid, "%d", (int)parent);
	execv("/proc/self/exe", argv);
	_exit(127);
}

static uint64_t life_run(const struct bench_system *system, const char *path, const struct size *size,
			 bool create)
{
	pid_t parent = getpid(), pid;
	uint64_t ns = 0;
	int fds[2], status;
	ssize_t n;

	if (pipe(fds))
		bench_die("pipe: %s", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		bench_die("fork: %s", strerror(errno));
	if (!pid) {
		close(fds[0]);
		life_exec(system, path, size, create, fds[1], parent);
	}
	close(fds[1]);
	while ((n = read(fds[0], &ns, sizeof ns)) < 0 && errno == EINTR)
		;
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (n != sizeof ns || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		bench_die("%s: %s a file of %s failed", system->name, create ? "making" : "opening",
			  size->name);
	return ns;
}

static void path_of(char *ret, size_t n, const struct bench_options *opt, const struct bench_system *system)
{
	snprintf(ret, n, "%s/life-%s", opt->folder, system->name);
}

static void life_size(const struct bench_options *opt, const struct size *size)
{
	static const struct bench_target target = {.value_max = 1e6};
	static double ns[BENCH_SYSTEM_MAX][BENCH_REP_MAX];
	const struct bench_system *systems[BENCH_SYSTEM_MAX];
	struct bench_result results[BENCH_SYSTEM_MAX];
	unsigned count = 0;
	char path[4096];

	for (unsigned i = 0; bench_systems[i]; i++) {
		if (!bench_systems[i]->life_create)
			continue;
		path_of(path, sizeof path, opt, bench_systems[i]);
		life_run(bench_systems[i], path, size, true);
		systems[count++] = bench_systems[i];
	}
	for (unsigned rep = 0; rep < opt->reps; rep++)
		for (unsigned i = 0; i < count; i++) {
			unsigned turn = (i + rep) % count;

			path_of(path, sizeof path, opt, systems[turn]);
			ns[turn][rep] = (double)life_run(systems[turn], path, size, false);
		}
	for (unsigned i = 0; i < count; i++) {
		path_of(path, sizeof path, opt, systems[i]);
		unlink(path);
		results[i] = (struct bench_result){.system = systems[i]->name, .threads = 1};
		results[i].instructions = -1;
		bench_summarize(ns[i], opt->reps, &results[i]);
	}
	bench_report(opt, "open-after-kill", size->name, NULL, &target, results, count);
}

void bench_open_after_kill(const struct bench_options *opt)
{
	static const struct size sizes[] = {
		{"256MiB", 256ull << 20, 65536},
		{"4GiB", 4096ull << 20, 1000000},
	};

	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
		life_size(opt, &sizes[i]);
}
