/* SPDX-License-Identifier: MIT
 *
 * fsck.c: images of a power cut through the real pheap-fsck, the second reading of the format.
 *
 * What: -n changes nothing and says that there is something to do, or nothing; -y repairs; then -n is
 * content, and what is there must be what recovery by the library may leave.
 */
#include "cuts.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define FSCK_CLEAN 0
#define FSCK_REPAIRED 1
#define FSCK_UNCORRECTED 4

static int run(const struct cuts *x, const char *mode, char *text, size_t n)
{
	char *argv[] = {(char *)(uintptr_t)x->fsck, (char *)(uintptr_t)mode, (char *)(uintptr_t) "-f",
			(char *)(uintptr_t)x->sample_path, NULL};
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
	if (posix_spawn(&pid, x->fsck, &actions, NULL, argv, environ))
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

static int put(const struct cuts *x, const struct memfile *f)
{
	int fd = open(x->sample_path, O_WRONLY | O_CLOEXEC);
	int rc = fd < 0 || ftruncate(fd, 0) || ftruncate(fd, (off_t)f->size) ||
		 pwrite(fd, f->bytes, f->size, 0) != (ssize_t)f->size;

	if (fd >= 0)
		close(fd);
	return rc ? -1 : 0;
}

static int get(const struct cuts *x, struct memfile *f)
{
	int fd = open(x->sample_path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return -1;
	memset(f->bytes, 0, MEMFILE_CAPACITY);
	got = pread(fd, f->bytes, MEMFILE_CAPACITY, 0);
	close(fd);
	f->size = got > 0 ? (uint64_t)got : 0;
	return got > 0 ? 0 : -1;
}

int cuts_fsck(struct cuts *x, unsigned i, uint8_t *stale, char *why, size_t n)
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
	struct memfile *f = memfile_get(i);

	x->fsck_count++;
	if (put(x, f))
		return snprintf(why, n, "cannot write %s", x->sample_path), -1;
	for (unsigned k = 0; k < sizeof(runs) / sizeof(*runs); k++) {
		int code = run(x, runs[k].mode, text, sizeof(text));

		if (code != runs[k].good && code != runs[k].fair) {
			snprintf(why, n, "fsck %s -f, run %u: exit %d: %.500s", runs[k].mode, k, code, text);
			return -1;
		}
	}
	memset(stale, 1, DISK_SECTORS);
	if (get(x, f))
		return snprintf(why, n, "cannot read %s", x->sample_path), -1;
	return 0;
}
