/* SPDX-License-Identifier: MIT
 *
 * stage.c: see stage.h.
 */
#define _GNU_SOURCE
#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILD_MAX 64u
#define WORDS_SIZE 4096u

struct stage stage;

static struct {
	int janitor_fd;
	pid_t janitor;
	pid_t children[CHILD_MAX]; /* 0: free; D2 */
	uint64_t random;
} behind;

uint64_t stage_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* splitmix64 */
uint64_t stage_random_below(uint64_t n)
{
	uint64_t z = behind.random += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (z ^ z >> 31) % n;
}

/* ---- the folder ---- */

/* D1. Ends when the last holder of the pipe's other end has ended: this process and its children. */
static void __attribute__((noreturn)) janitor_main(int fd)
{
	int null = open("/dev/null", O_RDWR);
	char byte;

	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	while (read(fd, &byte, 1) < 0 && errno == EINTR)
		continue;
	execlp("rm", "rm", "-rf", "--", stage.dir, (char *)NULL);
	_exit(1);
}

void stage_open(void)
{
	const char *base = getenv("TMPDIR");
	int ends[2];

	behind.random = stage.seed;
	if (!base || !*base)
		base = access("/var/tmp", W_OK) == 0 ? "/var/tmp" : "/tmp";
	snprintf(stage.dir, sizeof(stage.dir), "%s/pheap-kv-demo-XXXXXX", base);
	if (pipe(ends) < 0 || !mkdtemp(stage.dir))
		stage_fail(NULL, "making a folder in %s: %s", base, strerror(errno));
	snprintf(stage.heap, sizeof(stage.heap), "%s/heap", stage.dir);
	behind.janitor = fork();
	if (behind.janitor == 0) {
		close(ends[1]);
		janitor_main(ends[0]);
	}
	close(ends[0]);
	behind.janitor_fd = ends[1];
	if (behind.janitor < 0) {
		rmdir(stage.dir);
		stage_fail(NULL, "fork: %s", strerror(errno));
	}
}

void stage_close(void)
{
	for (unsigned i = 0; i < CHILD_MAX; i++)
		if (behind.children[i] > 0) {
			pid_t pid = behind.children[i];

			kill(pid, SIGKILL);
			stage_child_end(pid);
		}
	if (behind.janitor <= 0)
		return;
	close(behind.janitor_fd);
	while (waitpid(behind.janitor, NULL, 0) < 0 && errno == EINTR)
		continue;
	behind.janitor = 0;
}

static size_t words_read(const char *path, char *ret, size_t ret_size)
{
	FILE *f = fopen(path, "re");
	size_t n = f ? fread(ret, 1, ret_size - 1, f) : 0;

	ret[n] = 0;
	if (f)
		fclose(f);
	return n;
}

void stage_fail(const char *words_path, const char *format, ...)
{
	char words[WORDS_SIZE];
	va_list args;

	fflush(stdout);
	fprintf(stderr, "pheap-kv-demo: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	if (words_path && words_read(words_path, words, sizeof(words)))
		fprintf(stderr, "its words:\n%s\n", words);
	fprintf(stderr, "FAILED (seed %llu)\n", (ull)stage.seed);
	stage_close();
	exit(1);
}

/* ---- children ---- */

static unsigned place_of(pid_t pid)
{
	unsigned i = 0;

	while (i < CHILD_MAX && behind.children[i] != pid)
		i++;
	if (i == CHILD_MAX)
		stage_fail(NULL, "no such child, or no room for one more: %d", (int)pid);
	return i;
}

static void __attribute__((noreturn))
child_main(pid_t parent, const char *const *words, const char *output_path)
{
	int fd = open(output_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* D1 */
	if (fd < 0 || getppid() != parent)
		_exit(127);
	dup2(fd, 1);
	dup2(fd, 2);
	execv(words[0], (char *const *)(uintptr_t)words);
	fprintf(stderr, "%s: %s\n", words[0], strerror(errno));
	_exit(127);
}

pid_t stage_child_start(const char *const *words, const char *output_path)
{
	unsigned place = place_of(0);
	pid_t parent = getpid(), pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		child_main(parent, words, output_path);
	if (pid < 0)
		stage_fail(NULL, "fork: %s", strerror(errno));
	behind.children[place] = pid;
	return pid;
}

static int child_wait(pid_t pid, int flags)
{
	unsigned place = place_of(pid);
	int status = 0;
	pid_t got;

	do
		got = waitpid(pid, &status, flags);
	while (got < 0 && errno == EINTR);
	if (got == 0)
		return -1;
	behind.children[place] = 0;
	if (got < 0)
		stage_fail(NULL, "waitpid: %s", strerror(errno));
	return status;
}

int stage_child_end(pid_t pid)
{
	return child_wait(pid, 0);
}

int stage_child_ask(pid_t pid)
{
	return child_wait(pid, WNOHANG);
}

int stage_command(const char *const *words, char *ret, size_t ret_size, void (*tick)(void))
{
	uint64_t end_ns = stage_now_ns() + STAGE_ANSWER_NS;
	char path[PATH_MAX + 16];
	pid_t pid;
	int status;

	snprintf(path, sizeof(path), "%s/words", stage.dir);
	pid = stage_child_start(words, path);
	while ((status = stage_child_ask(pid)) == -1) {
		if (stage_now_ns() > end_ns)
			stage_fail(path, "%s does not end", words[0]);
		usleep(1000);
		tick();
	}
	words_read(path, ret, ret_size);
	if (!WIFEXITED(status))
		stage_fail(path, "%s was killed by signal %d", words[0], WTERMSIG(status));
	return WEXITSTATUS(status);
}
