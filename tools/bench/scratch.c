/* SPDX-License-Identifier: MIT
 *
 * scratch.c: the folders of the files that are measured, and their removal.
 *
 * What: a folder under TMPDIR (or /tmp), and one on a tmpfs; a small guard process removes them when the
 * last end of a pipe closes, that is when the program ends in any way, SIGKILL included.
 * Why a process: signal handlers do not run for SIGKILL, and the files of open-after-kill need names.
 *
 * Invariants
 *   C1  Only the program itself holds the pipe's write end: children close it first (bench_scratch_leave).
 *   C2  The guard removes the folders that it was told, and nothing below a folder in a folder in them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define MEMORY_PARENT "/dev/shm"

const char *const bench_memory_names[BENCH_MEMORY_COUNT] = {"disk", "tmpfs", "huge"};
static char folders[BENCH_MEMORY_COUNT][1024]; /* "": none */
static int guard_fd = -1;
static pid_t guard_pid;

static void files_remove(int fd, unsigned depth)
{
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (!unlinkat(fd, entry->d_name, 0) || errno != EISDIR || !depth)
			continue;
		files_remove(openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
			     depth - 1);
		unlinkat(fd, entry->d_name, AT_REMOVEDIR);
	}
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
}

void bench_scratch_clear(const char *folder)
{
	if (*folder)
		files_remove(open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), 1);
}

/* True: it is gone. */
static bool folder_remove(const char *folder)
{
	bench_scratch_clear(folder);
	return !*folder || !rmdir(folder) || errno == ENOENT;
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
	for (unsigned i = 0; i < 250; i++) {
		bool gone = true;

		for (unsigned j = 0; j < BENCH_MEMORY_COUNT; j++)
			gone &= folder_remove(folders[j]);
		if (gone)
			break;
		usleep(20000);
	}
	_exit(0);
}

static bool folder_make(char *ret, const char *parent)
{
	if (snprintf(ret, sizeof folders[0], "%s/pheap-bench-XXXXXX", parent) < (int)sizeof folders[0] &&
	    mkdtemp(ret))
		return true;
	*ret = 0;
	return false;
}

/* Folders that nobody would remove are not left behind. */
static _Noreturn void make_fail(const char *call)
{
	int code = errno;

	for (unsigned i = 0; i < BENCH_MEMORY_COUNT; i++)
		folder_remove(folders[i]);
	bench_die("%s: %s", call, strerror(code));
}

const char *bench_scratch_make(void)
{
	const char *parent = getenv("TMPDIR");
	struct statfs fs;
	int fds[2];

	if (!parent || !*parent)
		parent = "/tmp";
	if (!folder_make(folders[BENCH_DISK], parent))
		bench_die("no folder under %s: %s", parent, strerror(errno));
	if (!statfs(MEMORY_PARENT, &fs) && fs.f_type == TMPFS_MAGIC)
		folder_make(folders[BENCH_TMPFS], MEMORY_PARENT);
	folder_make(folders[BENCH_HUGE], parent);
	if (pipe2(fds, O_CLOEXEC))
		make_fail("pipe2");
	guard_pid = fork();
	if (guard_pid < 0)
		make_fail("fork");
	if (!guard_pid) {
		close(fds[1]);
		guard(fds[0]);
	}
	close(fds[0]);
	guard_fd = fds[1];
	return folders[BENCH_DISK];
}

/* A mount of this process and its children alone, which goes with them: the guard does not see it. */
static bool huge_mount(void)
{
	static enum { UNKNOWN, MOUNTED, REFUSED } state;

	if (state == UNKNOWN)
		state = unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
					mount("pheap-bench", folders[BENCH_HUGE], "tmpfs", 0,
					      "huge=always,mode=0700")
				? REFUSED
				: MOUNTED;
	return state == MOUNTED;
}

const char *bench_scratch_folder(enum bench_memory memory, uint64_t size)
{
	const char *folder = folders[memory];
	struct statfs fs;

	if (!*folder || (memory == BENCH_HUGE && !huge_mount()))
		return NULL;
	return statfs(folder, &fs) || (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize < size ? NULL : folder;
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
