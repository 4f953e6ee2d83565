/* SPDX-License-Identifier: MIT
 *
 * run.c: see run.h.
 */
#define _GNU_SOURCE
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS_MAX 120u /* a hang is a failure, not a stuck test */

const char *fsck_program, *fsck_program_mortal;
char output[OUTPUT_SIZE];

static unsigned long passed_count, failed_count;

static void die(const char *what)
{
	fprintf(stderr, "fsck test: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void identity_read(struct scratch *s)
{
	struct statx info;
	FILE *in = fopen("/proc/sys/kernel/random/boot_id", "r");
	int c;

	for (unsigned n = 0; in && n < 32 && (c = fgetc(in)) != EOF;) {
		if (c == '-')
			continue;
		s->id.boot_id[n / 2] =
			(uint8_t)(s->id.boot_id[n / 2] << 4 | (c <= '9' ? c - '0' : c - 'a' + 10));
		n++;
	}
	if (in)
		fclose(in);
	if (statx(s->fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &info) < 0)
		die("statx");
	s->id.inode = info.stx_ino;
	if (info.stx_mask & STATX_BTIME)
		s->id.birth_ns = (uint64_t)info.stx_btime.tv_sec * 1000000000u + info.stx_btime.tv_nsec;
}

void scratch_open(struct scratch *s)
{
	const char *folder = getenv("TMPDIR");
	char name[4096];

	memset(s, 0, sizeof *s);
	snprintf(name, sizeof name, "%s/pheap-fsck-XXXXXX", folder && *folder ? folder : "/tmp");
	s->fd = mkostemp(name, O_CLOEXEC);
	if (s->fd < 0 || unlink(name) < 0)
		die(name);
	snprintf(s->path, sizeof s->path, "/proc/%d/fd/%d", (int)getpid(), s->fd);
	identity_read(s);
}

void scratch_close(struct scratch *s)
{
	close(s->fd);
}

void scratch_write(struct scratch *s, const void *bytes, size_t n)
{
	if (ftruncate(s->fd, 0) < 0 || pwrite(s->fd, bytes, n, 0) != (ssize_t)n)
		die("writing an image");
}

unsigned char *scratch_read(const struct scratch *s, size_t *ret_size)
{
	struct stat st;
	unsigned char *bytes;

	if (fstat(s->fd, &st) < 0)
		die("fstat");
	*ret_size = (size_t)st.st_size;
	bytes = malloc(*ret_size + 1);
	if (!bytes || pread(s->fd, bytes, *ret_size, 0) != (ssize_t)*ret_size)
		die("reading an image");
	return bytes;
}

bool scratch_same(const struct scratch *s, const void *bytes, size_t n)
{
	size_t size;
	unsigned char *have = scratch_read(s, &size);
	bool same = size == n && !memcmp(have, bytes, n);

	free(have);
	return same;
}

static void output_read(int fd)
{
	size_t n = 0;
	ssize_t got;
	char rest[4096];

	while (n < OUTPUT_SIZE - 1 && (got = read(fd, output + n, OUTPUT_SIZE - 1 - n)) > 0)
		n += (size_t)got;
	output[n] = 0;
	while (n == OUTPUT_SIZE - 1 && read(fd, rest, sizeof rest) > 0)
		;
}

_Noreturn static void child(const char *program, const char *options, const char *path, int out)
{
	char *argv[16], *words = strdup(options);
	int n = 0, null = open("/dev/null", O_RDONLY);

	argv[n++] = (char *)(uintptr_t)program;
	for (char *w = strtok(words, " "); w && n < 14; w = strtok(NULL, " "))
		argv[n++] = w;
	if (path)
		argv[n++] = (char *)(uintptr_t)path;
	argv[n] = NULL;
	dup2(null, 0);
	dup2(out, 1);
	dup2(out, 2);
	alarm(SECONDS_MAX);
	execv(program, argv);
	_exit(127);
}

int run(const char *program, const char *options, const char *path)
{
	int pipes[2], status;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		die("pipe");
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid)
		child(program, options, path, pipes[1]);
	close(pipes[1]);
	output_read(pipes[0]);
	close(pipes[0]);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid");
	return WIFSIGNALED(status) ? RUN_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status);
}

bool output_has(const char *code)
{
	char line[80];

	snprintf(line, sizeof line, "[%s]", code);
	return strstr(output, line) != NULL;
}

bool expect(bool ok, const char *format, ...)
{
	va_list args;

	if (ok) {
		passed_count++;
		return true;
	}
	failed_count++;
	printf("FAILED: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n--- last output\n%s---\n", output);
	return false;
}

int expect_summary(void)
{
	printf("%lu passed, %lu failed\n", passed_count, failed_count);
	return failed_count != 0;
}
