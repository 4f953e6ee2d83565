/* SPDX-License-Identifier: MIT
 *
 * scratch.c: the folder of the files that are measured, and its removal.
 *
 * What: a folder under TMPDIR (or /tmp); a small guard process removes it when the last end of a pipe
 * closes, that is when the program ends in any way, SIGKILL included.
 * Why a process: signal handlers do not run for SIGKILL, and the files of open-after-kill need names.
 *
 * Invariants
 *   C1  Only the program itself holds the pipe's write end: children close it first (bench_scratch_leave).
 *   C2  The guard removes the folder that it was told, and nothing below a folder in it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static char folder[1024];
static int guard_fd = -1;
static pid_t guard_pid;

static void folder_remove(void)
{
	DIR *dir = opendir(folder);

	for (struct dirent *entry; dir && (entry = readdir(dir));)
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(folder);
}

static _Noreturn void guard(int fd)
{
	char byte;

	/* the terminal's signals are for the program; its death is what this process waits for */
	setsid();
	signal(SIGTERM, SIG_IGN);
	while (read(fd, &byte, 1) < 0 && errno == EINTR)
		;
	/* children of the program die with it, but may take a moment */
	for (unsigned i = 0; i < 50; i++) {
		folder_remove();
		if (access(folder, F_OK))
			break;
		usleep(20000);
	}
	_exit(0);
}

const char *bench_scratch_make(void)
{
	const char *parent = getenv("TMPDIR");
	int fds[2];

	if (!parent || !*parent)
		parent = "/tmp";
	if (snprintf(folder, sizeof folder, "%s/pheap-bench-XXXXXX", parent) >= (int)sizeof folder)
		bench_die("TMPDIR is too long");
	if (!mkdtemp(folder))
		bench_die("no folder under %s: %s", parent, strerror(errno));
	if (pipe2(fds, O_CLOEXEC)) {
		rmdir(folder);
		bench_die("pipe2: %s", strerror(errno));
	}
	guard_pid = fork();
	if (guard_pid < 0) {
		rmdir(folder);
		bench_die("fork: %s", strerror(errno));
	}
	if (!guard_pid) {
		close(fds[1]);
		guard(fds[0]);
	}
	close(fds[0]);
	guard_fd = fds[1];
	return folder;
}

void bench_scratch_leave(void)
{
	close(guard_fd);
	guard_fd = -1;
}

void bench_scratch_remove(void)
{
	if (guard_fd < 0)
		return;
	close(guard_fd);
	guard_fd = -1;
	while (waitpid(guard_pid, NULL, 0) < 0 && errno == EINTR)
		;
}

void *bench_file_map(const char *in, const char *name, size_t n)
{
	char path[4096];
	void *p;
	int fd;

	snprintf(path, sizeof path, "%s/%s", in, name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		bench_die("%s: %s", path, strerror(errno));
	errno = posix_fallocate(fd, 0, (off_t)n);
	if (errno)
		bench_die("%s: %s", path, strerror(errno));
	p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		bench_die("%s: %s", path, strerror(errno));
	close(fd);
	unlink(path);
	return p;
}
