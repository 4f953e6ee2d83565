/* SPDX-License-Identifier: MIT
 *
 * judge.c: see judge.h.
 */
#include "judge.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define FSCK_CLEAN 0
#define FSCK_REPAIRED 1
#define FSCK_UNCORRECTED 4

int judge_file_open(char *ret_path, size_t path_size)
{
	int fd = memfd_create("pheap", MFD_CLOEXEC);

	snprintf(ret_path, path_size, "/proc/%d/fd/%d", (int)getpid(), fd);
	if (fd < 0 || memfile_identity(ret_path)) {
		perror(ret_path);
		exit(2);
	}
	return fd;
}

static int run(const char *fsck, const char *mode, const char *path, char *text, size_t n)
{
	char *argv[] = {(char *)(uintptr_t)fsck, (char *)(uintptr_t)mode, (char *)(uintptr_t) "-f",
			(char *)(uintptr_t)path, NULL};
	posix_spawn_file_actions_t actions;
	int status, ends[2];
	size_t have = 0;
	ssize_t got;
	pid_t pid;

	if (pipe(ends))
		return -1;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
	posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
	posix_spawn_file_actions_addclose(&actions, ends[0]);
	if (posix_spawn(&pid, fsck, &actions, NULL, argv, environ))
		pid = -1;
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	while ((got = read(ends[0], text + have, n - 1 - have)) > 0)
		have += (size_t)got;
	text[have] = 0;
	close(ends[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static int put(const char *path, const char *image, uint64_t size)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int rc = fd < 0 || ftruncate(fd, 0) || ftruncate(fd, (off_t)size) ||
		 pwrite(fd, image, size, 0) != (ssize_t)size;

	if (fd >= 0)
		close(fd);
	return rc ? -1 : 0;
}

int judge_image(const char *fsck, const char *path, const char *image, uint64_t size, char *why,
		size_t why_size)
{
	static const struct {
		const char *mode;
		int good, fair;
	} runs[] = {
		{"-n", FSCK_CLEAN, FSCK_UNCORRECTED},
		{"-y", FSCK_CLEAN, FSCK_REPAIRED},
		{"-n", FSCK_CLEAN, FSCK_CLEAN},
	};
	static char text[4096];

	if (put(path, image, size)) {
		snprintf(why, why_size, "cannot write %s", path);
		return -1;
	}
	for (unsigned i = 0; i < sizeof(runs) / sizeof(*runs); i++) {
		int code = run(fsck, runs[i].mode, path, text, sizeof(text));

		if (code != runs[i].good && code != runs[i].fair) {
			snprintf(why, why_size, "fsck %s -f, run %u: exit %d: %.300s", runs[i].mode, i, code,
				 text);
			return -1;
		}
	}
	return 0;
}

int judge_result(const char *path, struct memfile *ret, char *why, size_t why_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = -1;

	if (fd >= 0) {
		memset(ret->bytes, 0, MEMFILE_CAPACITY);
		memset(ret->holes, 0, sizeof(ret->holes)); /* what it gives back is not asked */
		got = pread(fd, ret->bytes, MEMFILE_CAPACITY, 0);
		close(fd);
	}
	ret->size = got > 0 ? (uint64_t)got : 0;
	if (got > 0)
		return 0;
	snprintf(why, why_size, "cannot read %s", path);
	return -1;
}
