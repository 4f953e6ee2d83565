/* SPDX-License-Identifier: MIT
 *
 * recover.c: see recover.h.
 */
#define _GNU_SOURCE
#include "recover.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "heap_file.h"
#include "members.h"
#include "pheap.h"
#include "process.h"

#define HEAP_GONE "and the heap went with its last user"

/* "2026-01-31 12:34:56.789 " */
static void time_print(FILE *out)
{
	struct timespec now;
	char text[32];
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &now);
	if (localtime_r(&now.tv_sec, &tm) && strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm))
		fprintf(out, "%s.%03ld ", text, now.tv_nsec / 1000000);
}

void recover_line_begin(FILE *out, const char *path, const struct member_view *v, const char *prefix)
{
	if (prefix)
		fputs(prefix, out);
	else
		time_print(out);
	fprintf(out, "%s: ", path);
	if (v)
		fprintf(out, "pid %u (%s), attachment %" PRIu64, v->row.pid, v->command, v->row.attachment);
}

/* Of the dead ones: how it ended for those that are marked, or for all others. */
static void deaths_print(const char *path, const struct members *m, const bool *marked, const char *end,
			 FILE *out, const char *prefix)
{
	for (uint32_t i = 0; i < m->count; i++) {
		const struct member_view *v = &m->rows[i];

		if (v->alive)
			continue;
		recover_line_begin(out, path, v, prefix);
		if (marked[i])
			fprintf(out, ", died: recovered by another process\n");
		else
			fprintf(out, ", died: %" PRIu64 " rolled back, %" PRIu64 " completed, %s\n",
				v->undo_count, v->redo_count, end);
	}
	fflush(out);
}

/* The sentence of the library, or its word for the code. */
static const char *reason(int rc)
{
	return *pheap_error_detail(NULL) ? pheap_error_detail(NULL) : pheap_strerror(rc);
}

/* Opening recovers what is there to be recovered, when others are attached as well as when nobody is. 0;
 * -ENOENT: the heap went with its last user; or -1 and a line has said why. */
static int heap_recover(const char *path, uint64_t *ret_ns)
{
	uint64_t start_ns = clock_ns();
	pheap *h;
	int rc = pheap_open(path, 0, NULL, &h), close_rc;

	if (rc == -ENOENT)
		return rc;
	if (rc) {
		fprintf(stderr, "pheap: %s: cannot be recovered: %s\n", path, reason(rc));
		return -1;
	}
	rc = pheap_recover(h, NULL);
	if (rc)
		fprintf(stderr, "pheap: %s: cannot be recovered: %s\n", path, reason(rc));
	*ret_ns = clock_ns() - start_ns;
	close_rc = pheap_close(h);
	if (close_rc && !rc)
		fprintf(stderr, "pheap: %s: recovered, but closing it failed: %s\n", path, reason(close_rc));
	return rc || close_rc ? -1 : 0;
}

/* V1: `others` are the dead that somebody else has recovered already. */
static bool members_recover(const char *path, const struct members *m, const bool *others, bool needed,
			    FILE *out, const char *prefix)
{
	char end[80] = "";
	uint64_t ns = 0;
	int rc = needed ? heap_recover(path, &ns) : 0;

	if (rc == -ENOENT)
		snprintf(end, sizeof end, HEAP_GONE);
	else
		snprintf(end, sizeof end, "in %.1f ms", (double)ns / 1e6);
	if (rc == 0 || rc == -ENOENT)
		deaths_print(path, m, others, end, out, prefix);
	return rc == 0 || rc == -ENOENT;
}

static bool file_recover(const char *path, const struct members *seen, FILE *out, const char *prefix)
{
	struct heap_file file;
	struct members now;
	char error[1024];
	bool needed = false, good, *others;
	int rc = heap_file_try(&file, path, false, error, sizeof error);

	if (rc && rc != -ENOENT)
		fprintf(stderr, "pheap: %s\n", error);
	if (rc && (rc != -ENOENT || !seen))
		return rc == -ENOENT;
	if (!seen)
		members_read(&file, &now);
	else
		now = *seen;
	others = calloc(now.count + 1ull, sizeof *others);
	if (!others)
		fail("out of memory");
	if (rc) {
		deaths_print(path, &now, others, HEAP_GONE, out, prefix);
		free(others);
		return true;
	}
	for (uint32_t i = 0; i < now.count; i++) {
		others[i] = !now.rows[i].alive &&
			    !member_dead(&file, now.rows[i].slot, now.rows[i].row.attachment);
		needed |= !now.rows[i].alive && !others[i];
	}
	heap_file_close(&file);
	good = members_recover(path, &now, others, needed, out, prefix);
	if (!seen)
		members_free(&now);
	free(others);
	return good;
}

/* What is sent to the caller's whole group, as by Ctrl-C, is not meant for the child: it is done at once
 * anyway, and the caller can kill it. */
static void child_signals_set(void)
{
	static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
	sigset_t none;

	for (unsigned i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
		signal(ignored[i], SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

pid_t recover_start(const char *const *paths, size_t count, const struct members *seen, int out,
		    const char *prefix)
{
	pid_t parent = getpid(), pid;
	bool good = true;
	FILE *file;

	fflush(NULL);
	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(RECOVER_FAILED);
	child_signals_set();
	file = fdopen(out, "w");
	if (!file)
		_exit(RECOVER_FAILED);
	for (size_t i = 0; i < count; i++)
		good &= file_recover(paths[i], seen, file, prefix);
	_exit(fflush(file) == EOF || !good ? RECOVER_FAILED : RECOVER_DONE);
}
