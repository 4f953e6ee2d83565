/* SPDX-License-Identifier: MIT
 *
 * run.c: `pheap run`: starts a command, stands for it towards signals, recovers heaps when one of its
 * processes dies, starts it again if asked to.
 *
 *   running --it ends well--> waiting for what is left of its descendants --none left--> over
 *   running --it dies--> clearing: TERM to what is left, KILL after the grace --none left--> over,
 *                                                                        or pause --> running
 *   running --TERM, INT or HUP--> stopping: forwarded, KILL to all after the grace --none left--> over
 *
 * Why the command stays in our process group: it can read from the terminal, and Ctrl-C and Ctrl-Z mean
 * both. A signal that the terminal has sent to the group is not sent on a second time.
 * Why signals go to the command alone, and only KILL to all: it gets what it would get without us, and what
 * USR1 means to its sons is its own affair.
 *
 * Invariants
 *   S1  Every descendant whose own father is dead becomes a child of this process and is reaped here.
 *   S2  A signal goes to a child that was not reaped yet, or through a pidfd: never to a stranger with its
 *       number.
 *   S3  This process never opens a heap; see recover.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heap_file.h"
#include "process.h"
#include "recover.h"

#define STATUS_FAILED 125 /* of our own, as env(1) and timeout(1) have them */
#define STATUS_NO_EXEC 126
#define STATUS_NO_FILE 127
#define STATUS_SIGNAL 128
#define GRACE_NS (10 * NS_PER_S)
#define BACKOFF_NS NS_PER_S
#define BACKOFF_MAX_NS (60 * NS_PER_S)
#define LONG_RUN_NS (60 * NS_PER_S) /* after one of these, pauses begin small again */
#define KILL_AGAIN_NS (50 * NS_PER_MS)
#define RECOVER_MAX_NS (60 * NS_PER_S)
#define SAY "pheap run: "

struct run {
	char **command_line;
	const char **heaps;
	size_t heap_count;
	uint64_t grace_ns, backoff_ns;
	uint64_t restart_max; /* in a row */

	sigset_t inherited; /* mask that the command gets */
	int signals;	    /* signalfd */
	pid_t command;	    /* 0: not running */
	uint64_t started_ns, restart_count;
	int status;		      /* of the last run */
	bool stopping, alone;	      /* alone: there was no child at the last look */
	uint64_t kill_ns, restart_ns; /* NS_NEVER: not to be done */
	bool killed;		      /* told of it */
	bool recover_wanted;
	pid_t recover; /* 0: none */
	uint64_t recover_kill_ns;
};

static const int forwarded[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
#define FORWARDED_COUNT (sizeof forwarded / sizeof forwarded[0])

static bool signal_ends(int signal)
{
	return signal == SIGTERM || signal == SIGINT || signal == SIGHUP;
}

/* ---- the command ---- */

static void __attribute__((noreturn)) command_exec(const struct run *r, pid_t parent, int error_fd)
{
	int error;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(STATUS_FAILED);
	sigprocmask(SIG_SETMASK, &r->inherited, NULL);
	execvp(r->command_line[0], r->command_line);
	error = errno;
	if (write(error_fd, &error, sizeof error) < 0)
		_exit(STATUS_FAILED);
	_exit(STATUS_NO_EXEC);
}

/* 0, or errno of what exec said: nothing runs. */
static int command_fork(struct run *r)
{
	pid_t parent = getpid();
	int ends[2], error = 0;
	ssize_t n;

	if (pipe2(ends, O_CLOEXEC) < 0)
		fail("run: pipe: %s", strerror(errno));
	fflush(NULL);
	r->command = fork();
	if (r->command < 0)
		fail("run: fork: %s", strerror(errno));
	if (r->command == 0)
		command_exec(r, parent, ends[1]);
	close(ends[1]);
	do
		n = read(ends[0], &error, sizeof error);
	while (n < 0 && errno == EINTR);
	close(ends[0]);
	if (n <= 0)
		return 0;
	waitpid(r->command, NULL, 0);
	r->command = 0;
	return error;
}

static void command_start(struct run *r)
{
	int error = command_fork(r);

	r->restart_ns = NS_NEVER;
	r->kill_ns = NS_NEVER;
	r->alone = error != 0;
	r->killed = false;
	r->started_ns = clock_ns();
	if (!error)
		return;
	fprintf(stderr, SAY "%s: cannot be started: %s\n", r->command_line[0], strerror(error));
	r->status = error == ENOENT ? STATUS_NO_FILE : STATUS_NO_EXEC;
}

static void restart_plan(struct run *r)
{
	uint64_t pause_ns = r->backoff_ns, limit_ns = BACKOFF_MAX_NS;

	if (clock_ns() - r->started_ns >= LONG_RUN_NS)
		r->restart_count = 0;
	if (r->restart_count >= r->restart_max) {
		if (r->restart_max)
			fprintf(stderr, SAY "it was restarted %llu times in a row: that is the end\n",
				(ull)r->restart_count);
		return;
	}
	if (limit_ns < pause_ns)
		limit_ns = pause_ns;
	for (uint64_t i = 0; i < r->restart_count && pause_ns < limit_ns; i++)
		pause_ns *= 2;
	if (pause_ns > limit_ns)
		pause_ns = limit_ns;
	r->restart_count++;
	r->restart_ns = clock_ns() + pause_ns;
	fprintf(stderr, SAY "restart %llu in %.2f s\n", (ull)r->restart_count,
		(double)pause_ns / (double)NS_PER_S);
}

static void end_print(const struct run *r, pid_t pid, int status)
{
	const char *name = pid == r->command ? r->command_line[0] : "a descendant";

	if (WIFSIGNALED(status))
		fprintf(stderr, SAY "%s (pid %d) was killed by signal %d (%s)\n", name, (int)pid,
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		fprintf(stderr, SAY "%s (pid %d) ended with exit code %d\n", name, (int)pid,
			WEXITSTATUS(status));
}

/* What is left of the descendants is to end, now or after the grace. */
static void rest_end(struct run *r, int signal)
{
	descendants_signal(signal, r->recover);
	if (r->kill_ns == NS_NEVER && r->grace_ns != NS_NEVER)
		r->kill_ns = clock_ns() + r->grace_ns;
}

static void signals_read(struct run *r);

static void command_ended(struct run *r, int status)
{
	bool died = WIFSIGNALED(status) || WEXITSTATUS(status);

	r->command = 0;
	/* What it died of may have been sent to us as well, before it died: then this is no accident. */
	signals_read(r);
	r->status = WIFSIGNALED(status) ? STATUS_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status);
	if (died || r->stopping)
		rest_end(r, SIGTERM);
	if (died && !r->stopping)
		restart_plan(r);
}

/* ---- children ---- */

static void recover_begin(struct run *r)
{
	r->recover_wanted = false;
	r->recover = recover_start(r->heaps, r->heap_count, NULL, STDERR_FILENO, SAY);
	r->recover_kill_ns = clock_ns() + RECOVER_MAX_NS;
	if (r->recover < 0) {
		fprintf(stderr, SAY "fork: %s; the next process to open the heaps recovers them\n",
			strerror(errno));
		r->recover = 0;
	}
}

/* Also after a good end: a process that exits without closing its heap has died for the heap. The child
 * of recover.h looks before it does anything. */
static void child_ended(struct run *r, pid_t pid, int status)
{
	if (pid == r->recover) {
		r->recover = 0;
		if (WIFSIGNALED(status))
			fprintf(stderr,
				SAY "the process that was to recover the heaps was killed by signal %d; "
				    "whoever opens them next recovers them\n",
				WTERMSIG(status));
		return;
	}
	r->recover_wanted = r->heap_count != 0;
	if (WIFSIGNALED(status) || WEXITSTATUS(status))
		end_print(r, pid, status);
	if (pid == r->command)
		command_ended(r, status);
}

static void children_reap(struct run *r)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		child_ended(r, pid, status);
	r->alone = pid < 0 && errno == ECHILD;
}

/* ---- signals ---- */

/* Has the terminal given it to the command, or to what is left, already? */
static bool signal_shared(const struct run *r, const struct signalfd_siginfo *info)
{
	return info->ssi_code == SI_KERNEL && (!r->command || getpgid(r->command) == getpgrp());
}

static void signal_forward(struct run *r, const struct signalfd_siginfo *info)
{
	int signal = (int)info->ssi_signo;

	if (signal_ends(signal)) {
		r->stopping = true;
		r->restart_ns = NS_NEVER;
		if (r->kill_ns == NS_NEVER && r->grace_ns != NS_NEVER)
			r->kill_ns = clock_ns() + r->grace_ns;
	}
	if (!r->command && !signal_shared(r, info))
		descendants_signal(signal, r->recover);
	if (!r->command)
		return;
	if (!signal_shared(r, info))
		kill(r->command, signal);
	if (signal_ends(signal))
		kill(r->command, SIGCONT); /* one that stands still could not obey */
}

static void signals_read(struct run *r)
{
	struct signalfd_siginfo info;

	while (read(r->signals, &info, sizeof info) == sizeof info)
		if (info.ssi_signo != SIGCHLD)
			signal_forward(r, &info);
}

/* The grace is over. Comes again until nobody is left: who is just being made is missed. */
static void all_kill(struct run *r)
{
	unsigned found = descendants_signal(SIGKILL, r->recover);

	if (r->command) {
		kill(r->command, SIGKILL);
		found += !found;
	}
	if (found && !r->killed)
		fprintf(stderr, SAY "after the grace of %.1f s: killed what was left\n",
			(double)r->grace_ns / (double)NS_PER_S);
	r->killed = true;
	r->kill_ns = clock_ns() + KILL_AGAIN_NS;
}

static void deadlines_meet(struct run *r)
{
	uint64_t now_ns = clock_ns();

	if (r->kill_ns <= now_ns && !r->alone)
		all_kill(r);
	if (r->recover && r->recover_kill_ns <= now_ns) {
		kill(r->recover, SIGKILL);
		r->recover_kill_ns = NS_NEVER;
	}
	if (r->recover_wanted && !r->recover)
		recover_begin(r);
	/* The old ones are gone and recovered: two lives of a command do not meet. */
	if (r->restart_ns <= now_ns && r->alone && !r->recover)
		command_start(r);
}

static uint64_t next_deadline_ns(const struct run *r)
{
	uint64_t next_ns = r->alone ? NS_NEVER : r->kill_ns;

	if (r->alone && !r->recover && r->restart_ns < next_ns)
		next_ns = r->restart_ns;
	if (r->recover && r->recover_kill_ns < next_ns)
		next_ns = r->recover_kill_ns;
	return next_ns;
}

static int supervise(struct run *r)
{
	struct pollfd fd = {.fd = r->signals, .events = POLLIN};

	command_start(r);
	for (;;) {
		children_reap(r);
		deadlines_meet(r);
		if (r->alone && !r->command && !r->recover && r->restart_ns == NS_NEVER)
			return r->status;
		if (poll(&fd, 1, clock_left_ms(next_deadline_ns(r))) < 0 && errno != EINTR)
			fail("run: poll: %s", strerror(errno));
		if (fd.revents)
			signals_read(r);
	}
}

/* ---- start ---- */

static const char run_usage[] =
	"Usage: pheap run [--heap FILE]... [--grace SECONDS] [--restart[=N]] [--backoff SECONDS]\n"
	"                 [--] COMMAND [ARGUMENT]...\n"
	"  --heap FILE        recover this heap at once when a process of the command died; may be repeated\n"
	"  --grace SECONDS    from TERM, INT or HUP to KILL; 10 if not given, inf: never\n"
	"  --restart[=N]      start the command again when it dies, at most N times in a row\n"
	"  --backoff SECONDS  pause before the first restart, doubled each time up to 60; 1 if not given\n"
	"Exit code: the command's; 128 + N if signal N killed it; 125 failed, 126 cannot be started,\n"
	"127 not found.\n";

static uint64_t seconds_option(const char *name, const char *text, bool inf)
{
	uint64_t ns;

	if (!seconds_parse(text, &ns) || (ns == NS_NEVER && !inf))
		usage_fail("run: %s %s: give seconds%s", name, text, inf ? ", or inf" : "");
	return ns;
}

static void options_read(struct run *r, int argc, char **argv)
{
	static const struct option options[] = {
		{"heap", required_argument, NULL, 'f'},	   {"grace", required_argument, NULL, 'g'},
		{"restart", optional_argument, NULL, 'r'}, {"backoff", required_argument, NULL, 'b'},
		{"help", no_argument, NULL, 'h'},	   {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, "+:", options, NULL)) != -1)
		switch (c) {
		case 'f':
			r->heaps[r->heap_count++] = optarg;
			break;
		case 'g':
			r->grace_ns = seconds_option("--grace", optarg, true);
			break;
		case 'r':
			r->restart_max = UINT64_MAX;
			if (optarg && !size_parse(optarg, &r->restart_max))
				usage_fail("run: --restart=%s: give a number", optarg);
			break;
		case 'b':
			r->backoff_ns = seconds_option("--backoff", optarg, false);
			break;
		case 'h':
			fputs(run_usage, stdout);
			exit(0);
		default:
			option_fail("run", c, argv);
		}
	if (optind == argc)
		usage_fail("run: give a command, as in: pheap run --heap FILE -- COMMAND");
	r->command_line = argv + optind;
}

/* Signals that we were told to ignore, as by nohup(1), stay ignored, and the command inherits that. */
static void signals_take(struct run *r)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (unsigned i = 0; i < FORWARDED_COUNT; i++) {
		struct sigaction action;

		if (sigaction(forwarded[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			sigaddset(&set, forwarded[i]);
	}
	signal(SIGCHLD, SIG_DFL); /* who ignores it, reaps nobody */
	sigprocmask(SIG_BLOCK, &set, &r->inherited);
	r->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (r->signals < 0)
		fail("run: signalfd: %s", strerror(errno));
}

int command_run(int argc, char **argv)
{
	struct run r = {.grace_ns = GRACE_NS,
			.backoff_ns = BACKOFF_NS,
			.kill_ns = NS_NEVER,
			.restart_ns = NS_NEVER,
			.status = STATUS_FAILED};
	int status;

	fail_hook.status = STATUS_FAILED;
	r.heaps = calloc((size_t)argc, sizeof *r.heaps);
	if (!r.heaps)
		fail("run: out of memory");
	options_read(&r, argc, argv);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		fail("run: PR_SET_CHILD_SUBREAPER: %s", strerror(errno));
	signals_take(&r);
	status = supervise(&r);
	free(r.heaps);
	return status;
}
