/* SPDX-License-Identifier: MIT
 *
 * top.c: `pheap top`: the live view; what it shows is made by top_sample.c and top_print.c.
 *
 * Why plain ANSI and no library for terminals: a page is written over the one before, nothing else is needed.
 *
 * Invariants
 *   V1  Whatever way it ends or stops, other than SIGKILL, the terminal is as it was.
 */
#define _GNU_SOURCE
#include "top.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "process.h"

#define WIDTH_PLAIN 1000u
#define GONE_NS (2 * NS_PER_S)
#define INTERVAL_MIN_NS (10 * NS_PER_MS)

static struct {
	bool on, keys;
	struct termios saved;
	int signals; /* signalfd, or -1 */
} terminal = {.signals = -1};

struct top {
	struct heap_file h;
	struct sample last; /* at_ns 0: none */
	uint64_t interval_ns;
	uint64_t count; /* pages; 0: until it is told to end */
	bool live;
};

/* ---- the terminal ---- */

/* Runs at exit too. */
static void terminal_leave(void)
{
	static const char off[] = "\033[?25h\033[?1049l";

	if (!terminal.on)
		return;
	terminal.on = false;
	if (terminal.keys)
		tcsetattr(STDIN_FILENO, TCSANOW, &terminal.saved);
	if (write(STDOUT_FILENO, off, sizeof off - 1) < 0)
		return; /* nobody is left to see it */
}

static void terminal_enter(void)
{
	struct termios raw;

	terminal.keys = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &terminal.saved) == 0;
	if (terminal.keys) {
		raw = terminal.saved;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		raw.c_cc[VMIN] = 0;
		raw.c_cc[VTIME] = 0;
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	terminal.on = true;
	fputs("\033[?1049h\033[?25l", stdout);
}

static void signals_take(void)
{
	static const int taken[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP};
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < sizeof taken / sizeof taken[0]; i++)
		sigaddset(&set, taken[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	terminal.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (terminal.signals < 0)
		fail("signalfd: %s", strerror(errno));
}

static void page_size(unsigned *ret_height, unsigned *ret_width)
{
	struct winsize size;

	*ret_height = 24;
	*ret_width = 80;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col) {
		*ret_height = size.ws_row;
		*ret_width = size.ws_col;
	}
}

static void page_draw(const struct top *t)
{
	unsigned height = 0, width = WIDTH_PLAIN, row = 0;
	char *text = NULL, *rest;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		fail("out of memory");
	if (t->live)
		page_size(&height, &width);
	sample_print(&t->h, &t->last, height, width, out);
	if (fclose(out))
		fail("out of memory");
	if (!t->live) {
		printf("%s\n", text);
	} else {
		printf("\033[H");
		rest = text;
		/* the last line of the terminal stays free of a newline, or the page would scroll */
		for (char *line; (line = strsep(&rest, "\n")) && rest && row < height; row++)
			printf("%s%s\033[K", row ? "\n" : "", line);
		printf("\033[J");
	}
	free(text);
	if (fflush(stdout) == EOF)
		exit(EXIT_FAILED);
}

/* ---- one look after another ---- */

/* An ephemeral heap goes and comes back as another file, and between the two there is none for a moment. False:
 * there is none any more. */
static bool file_follow(struct top *t)
{
	const struct timespec nap = {0, 20 * (long)NS_PER_MS};
	uint64_t end_ns = clock_ns() + GONE_NS;
	struct stat named, open_one;
	char error[1024];
	struct heap_file other;
	int rc;

	if (stat(t->h.path, &named) == 0 && fstat(t->h.fd, &open_one) == 0 &&
	    named.st_dev == open_one.st_dev && named.st_ino == open_one.st_ino) {
		heap_file_refresh(&t->h);
		return true;
	}
	while ((rc = heap_file_try(&other, t->h.path, false, error, sizeof error)) == -ENOENT) {
		if (clock_ns() > end_ns)
			return false;
		nanosleep(&nap, NULL);
	}
	if (rc)
		fail("%s", error);
	heap_file_close(&t->h);
	t->h = other;
	sample_free(&t->last); /* of another heap */
	return true;
}

static bool look(struct top *t)
{
	struct sample s;

	if (!file_follow(t))
		return false;
	sample_take(&t->h, &s);
	if (t->last.at_ns)
		sample_compare(&t->h, &s, &t->last);
	sample_free(&t->last);
	t->last = s;
	return true;
}

/* The default of the signal is what the terminal's user wanted; V1. */
static void stop(void)
{
	terminal_leave();
	fflush(stdout);
	raise(SIGSTOP);
	terminal_enter();
}

/* True: it is to end. */
static bool signal_handle(const struct top *t)
{
	struct signalfd_siginfo info;

	while (read(terminal.signals, &info, sizeof info) == sizeof info) {
		if (info.ssi_signo == SIGTSTP)
			stop();
		else if (info.ssi_signo != SIGWINCH)
			return true;
		page_draw(t);
	}
	return false;
}

static bool key_handle(void)
{
	char key;
	ssize_t n = read(STDIN_FILENO, &key, 1);

	if (n == 0)
		terminal.keys = false; /* the terminal is gone */
	return n == 1 && (key == 'q' || key == 'Q');
}

/* Until that time. True: it is to end. */
static bool wait_until(const struct top *t, uint64_t at_ns)
{
	struct pollfd fds[] = {{.fd = terminal.signals, .events = POLLIN}, {.fd = -1, .events = POLLIN}};

	while (clock_ns() < at_ns) {
		fds[1].fd = t->live && terminal.keys ? STDIN_FILENO : -1;
		if (poll(fds, 2, clock_left_ms(at_ns)) < 0 && errno != EINTR)
			fail("poll: %s", strerror(errno));
		if (fds[0].fd >= 0 && fds[0].revents && signal_handle(t))
			return true;
		if (fds[1].fd >= 0 && fds[1].revents && key_handle())
			return true;
	}
	return false;
}

static int watch_on(struct top *t)
{
	uint64_t next_ns = clock_ns(), pages = 0;
	bool here = look(t);

	if (t->live && here)
		page_draw(t);
	while (here) {
		next_ns += t->interval_ns;
		if (next_ns < clock_ns())
			next_ns =
				clock_ns(); /* it was stopped, or the machine is slow: no burst to catch up */
		if (wait_until(t, next_ns))
			return 0;
		here = look(t);
		if (here)
			page_draw(t);
		if (here && ++pages == t->count)
			return 0;
	}
	terminal_leave();
	fprintf(stderr, "pheap: %s: was removed\n", t->h.path);
	return t->count && pages < t->count ? EXIT_FAILED : 0;
}

static const char top_usage[] = "Usage: pheap top [--interval SECONDS] [--count N | --once] FILE\n"
				"  --interval SECONDS  between two looks; 1 if not given\n"
				"  --count N           N pages as plain text, then end\n"
				"  --once              the same as --count 1\n"
				"On a terminal, q or Ctrl-C ends it.\n";

static uint64_t interval_option(const char *text)
{
	uint64_t ns;

	if (!seconds_parse(text, &ns) || ns < INTERVAL_MIN_NS || ns > 86400 * NS_PER_S)
		usage_fail("top: --interval %s: give seconds from 0.01 to 86400", text);
	return ns;
}

static void options_read(struct top *t, int argc, char **argv)
{
	static const struct option options[] = {{"interval", required_argument, NULL, 'i'},
						{"count", required_argument, NULL, 'n'},
						{"once", no_argument, NULL, '1'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1)
		switch (c) {
		case 'i':
			t->interval_ns = interval_option(optarg);
			break;
		case 'n':
			if (!size_parse(optarg, &t->count) || !t->count)
				usage_fail("top: --count %s: give a number from 1 on", optarg);
			break;
		case '1':
			t->count = 1;
			break;
		case 'h':
			fputs(top_usage, stdout);
			exit(0);
		default:
			option_fail("top", c, argv);
		}
	if (argc - optind != 1)
		usage_fail("top: give one file");
}

int command_top(int argc, char **argv)
{
	struct top t = {.interval_ns = NS_PER_S};
	int rc;

	options_read(&t, argc, argv);
	heap_file_open(&t.h, argv[optind], false);
	t.live = !t.count && isatty(STDOUT_FILENO);
	if (t.live) {
		atexit(terminal_leave);
		fail_hook.prepare = terminal_leave;
		signals_take();
		terminal_enter();
	}
	rc = watch_on(&t);
	sample_free(&t.last);
	heap_file_close(&t.h);
	return rc;
}
