/* SPDX-License-Identifier: MIT
 *
 * fsck.c: images through the real pheap-fsck, the second reading of the format.
 *
 * What: a crash image must be judged "uncorrected, or clean" by -n and changed by nobody, be repaired by
 * -y, and then hold one of the oracle's states; a recovered image must be clean.
 */
#include "explore.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define FSCK_CLEAN 0
#define FSCK_REPAIRED 1
#define FSCK_UNCORRECTED 4

static int run(const struct explore *x, const char *mode, char *text, size_t n)
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

static int put(const struct explore *x, const char *image, uint64_t size)
{
	int fd = open(x->sample_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	int rc = fd < 0 || ftruncate(fd, 0) || ftruncate(fd, (off_t)size) ||
		 pwrite(fd, image, size, 0) != (ssize_t)size;

	if (fd >= 0)
		close(fd);
	return rc ? -1 : 0;
}

/* Into the last level's memfile, which nothing else uses while fsck runs. */
static int get(struct explore *x, struct level *l)
{
	int fd = open(x->sample_path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	(void)x;
	memfile_kill(l->file);
	memfile_clear(l->file);
	memset(l->stale, 1, sizeof(l->stale));
	if (fd < 0)
		return -1;
	got = pread(fd, l->file->bytes, MEMFILE_CAPACITY, 0);
	close(fd);
	l->file->size = got > 0 ? (uint64_t)got : 0;
	l->file->named = true;
	return got > 0 ? 0 : -1;
}

static int repaired_state(struct explore *x, char *why, size_t n)
{
	struct level *l = &x->levels[LEVELS - 1];
	char path[16];
	pheap *h;
	int rc;

	if (get(x, l))
		return -1;
	snprintf(path, sizeof(path), "mem:%u", LEVELS - 1);
	rc = pheap_open(path, 0, NULL, &h);
	if (rc) {
		snprintf(why, n, "open after fsck -y: %d (%s)", rc, pheap_error_detail(NULL));
		return -1;
	}
	rc = explore_match(x, h, l, 0, why, n);
	if (pheap_close(h))
		rc = -1;
	return rc > 0 ? 0 : -1;
}

int explore_fsck(struct explore *x, const char *image, uint64_t size, bool recovered, char *why, size_t n)
{
	static char text[4096];
	int code;

	x->fsck_count++;
	if (put(x, image, size)) {
		snprintf(why, n, "cannot write %s", x->sample_path);
		return -1;
	}
	code = run(x, "-n", text, sizeof(text));
	if (code != FSCK_CLEAN && (recovered || code != FSCK_UNCORRECTED)) {
		snprintf(why, n, "fsck -n -f: exit %d: %.300s", code, text);
		return -1;
	}
	if (recovered)
		return 0;
	code = run(x, "-y", text, sizeof(text));
	if (code != FSCK_CLEAN && code != FSCK_REPAIRED) {
		snprintf(why, n, "fsck -y -f: exit %d: %.300s", code, text);
		return -1;
	}
	code = run(x, "-n", text, sizeof(text));
	if (code != FSCK_CLEAN) {
		snprintf(why, n, "fsck -n -f after -y: exit %d: %.300s", code, text);
		return -1;
	}
	return repaired_state(x, why, n);
}
