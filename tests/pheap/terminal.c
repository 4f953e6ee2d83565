/* SPDX-License-Identifier: MIT
 *
 * terminal.c: terminal ROWS COLUMNS TEXT KEYS COMMAND [ARGUMENT]...: runs the command on a terminal of its
 * own, sends KEYS (in it \003 is Ctrl-C) once the output has shown TEXT, and copies all output to standard
 * output. Ends with the command's exit code, or 128 + the signal that killed it; 99: it could not. One that
 * hangs is killed with this process, by SIGALRM.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define HANG_S 60

static void __attribute__((noreturn)) failed(const char *what)
{
	perror(what);
	exit(99);
}

static void __attribute__((noreturn)) command_run(const char *name, char **command)
{
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	fd = open(name, O_RDWR);
	if (fd < 0 || ioctl(fd, TIOCSCTTY, 0) < 0)
		failed(name);
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
	signal(SIGINT, SIG_DFL);
	signal(SIGQUIT, SIG_DFL);
	execvp(command[0], command);
	_exit(99);
}

static size_t keys_read(const char *text, char *keys)
{
	size_t n = 0;

	while (*text) {
		char *end = (char *)(uintptr_t)text + 1;

		keys[n++] = *text == '\\' ? (char)strtol(text + 1, &end, 8) : *text;
		text = end;
	}
	return n;
}

/* Copies until the command has ended and all it wrote is read. */
static int output_copy(int fd, pid_t pid, const char *text, const char *keys, size_t key_count)
{
	static char all[1 << 20];
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	bool sent = false, over = false;
	size_t size = 0;
	int status = 0;

	while (!over || poll(&ready, 1, 0) > 0) {
		ssize_t n =
			poll(&ready, 1, over ? 0 : 20) > 0 ? read(fd, all + size, sizeof all - 1 - size) : 0;

		over = over || waitpid(pid, &status, WNOHANG) == pid;
		if (n <= 0)
			continue;
		if (write(STDOUT_FILENO, all + size, (size_t)n) != n)
			failed("write");
		size += (size_t)n;
		all[size] = 0;
		if (!sent && memmem(all, size, text, strlen(text))) {
			sent = true;
			if (write(fd, keys, key_count) != (ssize_t)key_count)
				failed("keys");
		}
	}
	return status;
}

int main(int argc, char **argv)
{
	struct winsize window;
	char keys[64], name[64];
	int fd, held, status;
	pid_t pid;

	if (argc < 6 || strlen(argv[4]) > sizeof keys)
		return 99;
	fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof name))
		failed("pseudo terminal");
	window = (struct winsize){.ws_row = (unsigned short)atoi(argv[1]),
				  .ws_col = (unsigned short)atoi(argv[2])};
	ioctl(fd, TIOCSWINSZ, &window);
	/* open as long as there is something to read: what was written last is lost when the last one
	 * closes it */
	held = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	pid = held < 0 ? -1 : fork();
	if (pid < 0)
		failed("fork");
	if (pid == 0)
		command_run(name, argv + 5);
	alarm(HANG_S);
	status = output_copy(fd, pid, argv[3], keys, keys_read(argv[4], keys));
	close(held);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
