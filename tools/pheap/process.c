/* SPDX-License-Identifier: MIT
 *
 * process.c: see process.h.
 */
#define _GNU_SOURCE
#include "process.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int clock_left_ms(uint64_t at_ns)
{
	uint64_t now_ns = clock_ns(), left_ms;

	if (at_ns == NS_NEVER)
		return -1;
	left_ms = at_ns > now_ns ? (at_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
	return left_ms < 3600000 ? (int)left_ms : 3600000;
}

bool seconds_parse(const char *text, uint64_t *ret_ns)
{
	double value;
	char *end;

	if (!strcmp(text, "inf")) {
		*ret_ns = NS_NEVER;
		return true;
	}
	if (!isdigit((unsigned char)*text) && *text != '.')
		return false;
	errno = 0;
	value = strtod(text, &end);
	if (errno || *end || end == text || value > 1e9)
		return false;
	*ret_ns = (uint64_t)(value * 1e9);
	return true;
}

bool process_stat(pid_t pid, pid_t *ret_parent, uint64_t *ret_start_ticks)
{
	char path[64], text[1024], *p;
	unsigned field = 2;
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	/* "pid (command) state parent ...": the command may hold anything, so the last parenthesis ends it */
	p = strrchr(text, ')');
	for (; p && *p; p++) {
		if (*p != ' ')
			continue;
		field++;
		if (field == 4)
			*ret_parent = (pid_t)strtol(p + 1, NULL, 10);
		if (field == 22) {
			*ret_start_ticks = strtoull(p + 1, NULL, 10);
			return true;
		}
	}
	return false;
}

static int pidfd_open_pid(pid_t pid)
{
#ifdef SYS_pidfd_open
	return (int)syscall(SYS_pidfd_open, pid, 0);
#else
	(void)pid;
	errno = ENOSYS;
	return -1;
#endif
}

/* The descriptor first: from then on the number cannot become another process's unnoticed. */
int process_watch(pid_t pid, uint64_t start_ticks)
{
	uint64_t ticks;
	pid_t parent;
	int fd;

	if (pid <= 0 || !start_ticks)
		return -1;
	fd = pidfd_open_pid(pid);
	if (fd >= 0 && process_stat(pid, &parent, &ticks) && ticks == start_ticks)
		return fd;
	if (fd >= 0) {
		close(fd);
		errno = ESRCH;
	}
	return -1;
}

struct descendant {
	pid_t pid, parent;
	uint64_t start_ticks;
	bool below;
};

static struct descendant *processes_list(size_t *ret_count)
{
	struct descendant *list = NULL;
	size_t count = 0, room = 0;
	DIR *dir = opendir("/proc");
	const struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		struct descendant d = {.pid = (pid_t)strtol(entry->d_name, NULL, 10)};

		if (d.pid <= 0 || !process_stat(d.pid, &d.parent, &d.start_ticks))
			continue;
		if (count == room) {
			struct descendant *grown = reallocarray(list, room ? 2 * room : 256, sizeof *list);

			if (!grown)
				break; /* what there is, then: the caller comes again */
			list = grown;
			room = room ? 2 * room : 256;
		}
		list[count++] = d;
	}
	if (dir)
		closedir(dir);
	*ret_count = count;
	return list;
}

static bool is_below(const struct descendant *list, size_t count, const struct descendant *d, pid_t self)
{
	if (d->parent == self)
		return true;
	for (size_t i = 0; i < count; i++)
		if (list[i].below && list[i].pid == d->parent)
			return true;
	return false;
}

static void process_signal(const struct descendant *d, int signal)
{
	int fd = process_watch(d->pid, d->start_ticks);

#ifdef SYS_pidfd_send_signal
	if (fd >= 0)
		(void)syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0);
#endif
	if (fd >= 0)
		close(fd);
	else if (errno != ESRCH) /* this kernel, or a filter, has no pidfds for us */
		kill(d->pid, signal);
}

unsigned descendants_signal(int signal, pid_t spared)
{
	size_t count;
	struct descendant *list = processes_list(&count);
	pid_t self = getpid();
	unsigned found = 0;
	bool more = true;

	while (more) {
		more = false;
		for (size_t i = 0; i < count; i++) {
			struct descendant *d = &list[i];

			if (d->below || d->pid == self || d->pid == spared || !is_below(list, count, d, self))
				continue;
			d->below = more = true;
			found++;
			process_signal(d, signal);
		}
	}
	free(list);
	return found;
}
