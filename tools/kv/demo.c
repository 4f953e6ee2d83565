/* SPDX-License-Identifier: MIT
 *
 * demo.c: pheap-kv-demo: loads real data with pheap-kv, kills it with SIGKILL again and again, and proves
 * that nothing was lost, repeated or left half done.
 *
 * What is proved, after every kill: the next load goes on at no fewer transactions than the killed one had
 * reported, and each of its steps finds its record as the step before left it. After every sixth: fsck
 * finds nothing but the unfinished transactions, and every byte is what the committed transactions make of
 * the input. At the end: the contents are the input, and fsck finds nothing at all.
 *
 * Why three kinds of kill: few random moments lie in a transaction, so some kills are aimed at one that
 * stands still in its middle; and some come so early that they hit the recovery of the kill before.
 *
 * Invariants
 *   D1  A child dies with this process, and the folder goes away however this process ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK_EVERY 6u
#define ANSWER_MS 60000u /* a child that is not to be killed has this long for its next line */
#define TAIL_SIZE 4096u

typedef unsigned long long ull;

enum aim { AIM_RANDOM, AIM_INSIDE, AIM_OPENING };
static const char *const aim_texts[] = {"at a random moment", "inside a transaction", "while opening"};

struct child {
	pid_t pid;
	int fd;
	char line[1024];
	size_t line_size;
	char tail[TAIL_SIZE]; /* the end of what it wrote, for a failure */
	size_t tail_size;
	bool started, stalled, told_recovery;
	ull undone, completed, recovery_us;
};

static struct {
	char dir[PATH_MAX], heap[PATH_MAX + 16];
	char kv[PATH_MAX], fsck[PATH_MAX];
	const char *input, *threads;
	unsigned seconds;
	uint64_t seed, random;
	int janitor_fd;
	pid_t janitor;
	ull acked; /* transactions that a load has reported */
	ull kill_count, opening_count, inside_count, undone, completed, recovery_us_max, fsck_count,
		verify_count;
	double load_seconds;
} demo;

/* The last kill, until somebody has told what its recovery found. */
struct pending {
	bool fresh;
	ull number, acked;
	enum aim aim;
	bool stalled;
};

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* splitmix64 */
static uint64_t random_below(uint64_t n)
{
	uint64_t z = demo.random += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (z ^ z >> 31) % n;
}

static void folder_drop(void)
{
	if (demo.janitor <= 0)
		return;
	close(demo.janitor_fd);
	while (waitpid(demo.janitor, NULL, 0) < 0 && errno == EINTR)
		continue;
	demo.janitor = 0;
}

static void __attribute__((format(printf, 2, 3), noreturn)) fail(struct child *child, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "pheap-kv-demo: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	if (child && child->tail_size)
		fprintf(stderr, "its last words:\n%.*s\n", (int)child->tail_size, child->tail);
	if (child && child->pid > 0)
		kill(child->pid, SIGKILL);
	fprintf(stderr, "FAILED (seed %llu, after %llu kills)\n", (ull)demo.seed, demo.kill_count);
	if (child && child->pid > 0)
		waitpid(child->pid, NULL, 0);
	folder_drop();
	exit(1);
}

/* ---- folder ---- */

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
	execlp("rm", "rm", "-rf", "--", demo.dir, (char *)NULL);
	_exit(1);
}

static void folder_make(void)
{
	const char *base = getenv("TMPDIR");
	int ends[2];

	if (!base || !*base)
		base = access("/var/tmp", W_OK) == 0 ? "/var/tmp" : "/tmp";
	snprintf(demo.dir, sizeof(demo.dir), "%s/pheap-kv-demo-XXXXXX", base);
	if (pipe(ends) < 0 || !mkdtemp(demo.dir))
		fail(NULL, "making a folder in %s: %s", base, strerror(errno));
	snprintf(demo.heap, sizeof(demo.heap), "%s/heap", demo.dir);
	demo.janitor = fork();
	if (demo.janitor == 0) {
		close(ends[1]);
		janitor_main(ends[0]);
	}
	close(ends[0]);
	demo.janitor_fd = ends[1];
	if (demo.janitor < 0) {
		rmdir(demo.dir);
		fail(NULL, "fork: %s", strerror(errno));
	}
}

/* ---- children ---- */

static void child_start(struct child *child, const char *const *words)
{
	pid_t parent = getpid();
	int ends[2];

	memset(child, 0, sizeof(*child));
	if (pipe2(ends, O_CLOEXEC) < 0)
		fail(NULL, "pipe: %s", strerror(errno));
	fflush(stdout);
	child->pid = fork();
	if (child->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* D1 */
		if (getppid() != parent)
			_exit(127);
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		execv(words[0], (char *const *)(uintptr_t)words);
		fprintf(stderr, "%s: %s\n", words[0], strerror(errno));
		_exit(127);
	}
	close(ends[1]);
	child->fd = ends[0];
	if (child->pid < 0)
		fail(NULL, "fork: %s", strerror(errno));
}

static void acked_raise(struct child *child, ull n)
{
	if (n < demo.acked)
		fail(child, "a load is at %llu transactions, but %llu were committed before: work was lost",
		     n, demo.acked);
	demo.acked = n;
}

static void line_take(struct child *child, const char *line)
{
	size_t n = strlen(line) + 1;
	ull a, b, c;

	if (sscanf(line, "at %llu", &a) == 1) {
		acked_raise(child, a);
		return;
	}
	if (child->tail_size + n > TAIL_SIZE)
		child->tail_size = 0;
	memcpy(child->tail + child->tail_size, line, n - 1);
	child->tail[child->tail_size + n - 1] = '\n';
	child->tail_size += n;
	if (sscanf(line, "after a kill: %llu undone, %llu completed, in %llu us", &a, &b, &c) == 3) {
		child->told_recovery = true;
		child->undone = a;
		child->completed = b;
		child->recovery_us = c;
	} else if (sscanf(line, "starting at %llu", &a) == 1 || sscanf(line, "going on at %llu", &a) == 1) {
		acked_raise(child, a);
		child->started = true;
	} else if (strncmp(line, "stalled ", 8) == 0) {
		child->stalled = true;
	}
}

/* Takes what the child has written within timeout_ms. False: it has closed its end. */
static bool child_read(struct child *child, int timeout_ms)
{
	struct pollfd pfd = {.fd = child->fd, .events = POLLIN};
	char bytes[4096];
	ssize_t got;

	if (poll(&pfd, 1, timeout_ms) <= 0)
		return true;
	got = read(child->fd, bytes, sizeof(bytes));
	if (got <= 0)
		return got < 0 && errno == EINTR;
	for (ssize_t i = 0; i < got; i++) {
		if (bytes[i] != '\n' && child->line_size + 1 < sizeof(child->line)) {
			child->line[child->line_size++] = bytes[i];
			continue;
		}
		child->line[child->line_size] = 0;
		child->line_size = 0;
		line_take(child, child->line);
	}
	return true;
}

/* Reads until *flag is true (NULL: never), the child ends, or the time is over. */
static bool child_watch(struct child *child, const bool *flag, double seconds)
{
	double end = now_s() + seconds;

	for (;;) {
		double left = end - now_s();

		if ((flag && *flag) || left <= 0)
			return true;
		if (!child_read(child, (int)(left * 1000) + 1))
			return false;
	}
}

/* Its wait status, when all it has written is taken. */
static int child_end(struct child *child)
{
	int status = 0;

	while (child_read(child, -1))
		continue;
	while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
		continue;
	close(child->fd);
	child->pid = 0;
	return status;
}

/* Exit code of a command that must end by itself. */
static int command_run(struct child *child, const char *const *words)
{
	int status;

	child_start(child, words);
	if (child_watch(child, NULL, ANSWER_MS / 1000.0))
		fail(child, "%s does not end", words[0]);
	status = child_end(child);
	if (!WIFEXITED(status))
		fail(child, "%s was killed by signal %d", words[0], WTERMSIG(status));
	return WEXITSTATUS(status);
}

/* ---- checks ---- */

/* What the child that opened the heap next says of a kill. */
static void recovery_count(struct pending *kill, struct child *child)
{
	if (!kill->fresh)
		return;
	kill->fresh = false;
	if (kill->stalled && child->started && child->undone == 0)
		fail(child, "kill %llu was inside a transaction, but nothing was undone", kill->number);
	demo.inside_count += kill->stalled || child->undone + child->completed > 0;
	demo.undone += child->undone;
	demo.completed += child->completed;
	if (demo.recovery_us_max < child->recovery_us)
		demo.recovery_us_max = child->recovery_us;
	printf("kill %3llu %-20s %11llu transactions", kill->number, aim_texts[kill->aim], kill->acked);
	if (child->told_recovery)
		printf("  %2llu undone %2llu completed in %7.3f ms\n", child->undone, child->completed,
		       (double)child->recovery_us / 1000);
	else
		printf("  %s\n",
		       child->started ? "(before the heap was open)" : "(the recovery is killed, too)");
}

static void fsck_check(bool stalled, bool at_end)
{
	const char *const words[] = {demo.fsck, "-n", "-f", demo.heap, NULL};
	struct child child;
	int code = command_run(&child, words);
	bool good = at_end ? code == 0 : stalled ? code == 4 : code == 0 || code == 4;

	if (!good)
		fail(&child, "pheap-fsck -n -f gives %d", code);
	demo.fsck_count++;
	printf("fsck: %s\n", code == 4 ? "unfinished transactions only" : "clean");
}

static void verify_so_far(struct child *child)
{
	const char *const words[] = {demo.kv, demo.heap, "verify", demo.input, "--so-far", NULL};
	int code = command_run(child, words);

	if (code)
		fail(child, "pheap-kv verify --so-far gives %d", code);
	demo.verify_count++;
	printf("verify: every byte is what the committed transactions made of the input\n");
}

/* fsck calls any error 4, so it looks again once the transactions are undone. */
static void check_after_kill(struct pending *kill)
{
	struct child child;

	fsck_check(kill->stalled, false);
	verify_so_far(&child);
	child.started = true;
	recovery_count(kill, &child);
	fsck_check(false, true);
}

/* ---- the story ---- */

static enum aim aim_choose(void)
{
	uint64_t n = random_below(20);

	return n < 10 ? AIM_RANDOM : n < 17 ? AIM_INSIDE : AIM_OPENING;
}

static void wait_for_moment(struct child *child, enum aim aim)
{
	bool running;

	if (aim == AIM_OPENING) {
		running = child_watch(child, NULL, (double)random_below(8000) / 1e6);
	} else {
		running = child_watch(child, &child->started, ANSWER_MS / 1000.0);
		if (running && !child->started)
			fail(child, "a load does not start");
		if (running && aim == AIM_INSIDE)
			running = child_watch(child, &child->stalled, ANSWER_MS / 1000.0) &&
				  child_watch(child, NULL, (double)random_below(5000) / 1e6);
		else if (running)
			running = child_watch(child, NULL, (double)random_below(demo.seconds * 55000) / 1e6);
	}
	if (!running && aim != AIM_OPENING)
		fail(child, "a load ended by itself");
}

static void life_run(struct pending *kill_before)
{
	enum aim aim = aim_choose();
	char stall[24];
	const char *words[] = {demo.kv,	   demo.heap,	 "load",       demo.input, "--threads", demo.threads,
			       "--rounds", "1000000000", "--progress", NULL,	   NULL,	NULL};
	struct child child;
	double start = now_s();
	int status;

	snprintf(stall, sizeof(stall), "%llu", (ull)(1 + random_below(4000 * (uint64_t)demo.seconds)));
	if (aim == AIM_INSIDE) {
		words[9] = "--stall";
		words[10] = stall;
	}
	child_start(&child, words);
	wait_for_moment(&child, aim);
	kill(child.pid, SIGKILL);
	status = child_end(&child);
	demo.load_seconds += now_s() - start;
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail(&child, "a load ended by itself with %d", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	recovery_count(kill_before, &child);
	demo.kill_count++;
	demo.opening_count += !child.started;
	*kill_before = (struct pending){true, demo.kill_count, demo.acked, child.started ? aim : AIM_OPENING,
					child.stalled};
}

static void kills_run(struct pending *kill)
{
	double end = now_s() + demo.seconds;

	while (now_s() < end) {
		life_run(kill);
		if (demo.kill_count % CHECK_EVERY == 0 && demo.acked)
			check_after_kill(kill);
	}
}

/* Lets the load end the round that each part of it is in. */
static void load_finish(struct pending *kill)
{
	const char *const words[] = {demo.kv,	  demo.heap,	"load",	      demo.input,
				     "--threads", demo.threads, "--progress", NULL};
	struct child child;
	double start = now_s();
	int code = command_run(&child, words);

	if (code)
		fail(&child, "the last load gives %d", code);
	demo.load_seconds += now_s() - start;
	recovery_count(kill, &child);
	printf("the last load ran to its end\n");
}

static void summary(struct child *verify)
{
	char *end = memchr(verify->tail, '\n', verify->tail_size);

	printf("\nkills                   %llu, of them %llu while opening or recovering\n", demo.kill_count,
	       demo.opening_count);
	printf("inside a transaction    at least %llu; %llu transactions undone, %llu completed\n",
	       demo.inside_count, demo.undone, demo.completed);
	printf("slowest recovery        %.3f ms\n", (double)demo.recovery_us_max / 1000);
	printf("transactions            %llu; none lost, none done twice\n", demo.acked);
	printf("rate                    %.0f in a second, with %s threads, recoveries included\n",
	       (double)demo.acked / demo.load_seconds, demo.threads);
	printf("fsck                    %llu times, %llu full comparisons on the way: nothing wrong\n",
	       demo.fsck_count, demo.verify_count);
	printf("%.*s\n", end ? (int)(end - verify->tail) : 0, verify->tail);
}

static void story(void)
{
	const char *const verify_words[] = {demo.kv, demo.heap, "verify", demo.input, NULL};
	struct pending kill = {0};
	struct child child;
	int code;

	printf("loading %s with %s threads into %s, killing for %u s; seed %llu\n", demo.input, demo.threads,
	       demo.heap, demo.seconds, (ull)demo.seed);
	kills_run(&kill);
	load_finish(&kill);
	code = command_run(&child, verify_words);
	if (code)
		fail(&child, "pheap-kv verify gives %d", code);
	fsck_check(false, true);
	summary(&child);
	folder_drop();
	printf("PASSED\n");
}

/* ---- command line ---- */

static void __attribute__((noreturn)) usage(const char *why)
{
	if (why)
		fprintf(stderr, "pheap-kv-demo: %s\n", why);
	fprintf(why ? stderr : stdout,
		"Usage: pheap-kv-demo [--seconds N] [--seed N] [--threads N] [--kv FILE] [--fsck FILE] [INPUT]\n"
		"Loads INPUT (in the form of /var/lib/dpkg/status, the default) with pheap-kv, kills it again\n"
		"and again for N seconds (45), and proves that the heap holds exactly what was committed.\n"
		"Exit code: 0 all was right, 1 something was not, 2 usage.\n");
	exit(why ? 2 : 0);
}

static uint64_t number_take(const char *text, uint64_t min, uint64_t max)
{
	char *end;
	ull n = strtoull(text, &end, 10);

	if (end == text || *end || n < min || n > max)
		usage("an option's number is missing or out of range");
	return n;
}

/* Where the build puts the programs: beside this one. */
static void programs_find(void)
{
	ssize_t n = readlink("/proc/self/exe", demo.dir, sizeof(demo.dir) - 1);
	char *slash;

	demo.dir[n > 0 ? n : 0] = 0;
	slash = strrchr(demo.dir, '/');
	if (slash)
		*slash = 0;
	snprintf(demo.kv, sizeof(demo.kv), "%.*s/pheap-kv", PATH_MAX - 32, demo.dir);
	snprintf(demo.fsck, sizeof(demo.fsck), "%.*s/../fsck/pheap-fsck", PATH_MAX - 32, demo.dir);
}

static void options_read(int argc, char **argv)
{
	static const struct option options[] = {
		{"seconds", required_argument, NULL, 's'},
		{"seed", required_argument, NULL, 'r'},
		{"threads", required_argument, NULL, 't'},
		{"kv", required_argument, NULL, 'k'},
		{"fsck", required_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1)
		switch (c) {
		case 's':
			demo.seconds = (unsigned)number_take(optarg, 1, 86400);
			break;
		case 'r':
			demo.seed = number_take(optarg, 0, UINT64_MAX);
			break;
		case 't':
			number_take(optarg, 1, 64);
			demo.threads = optarg;
			break;
		case 'k':
			snprintf(demo.kv, sizeof(demo.kv), "%s", optarg);
			break;
		case 'f':
			snprintf(demo.fsck, sizeof(demo.fsck), "%s", optarg);
			break;
		case 'h':
			usage(NULL);
		default:
			usage("unknown option or missing value");
		}
	if (argc - optind > 1)
		usage("give one input at most");
	if (optind < argc)
		demo.input = argv[optind];
}

int main(int argc, char **argv)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	demo.seed = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
	demo.seconds = 45;
	demo.threads = "4";
	demo.input = "/var/lib/dpkg/status";
	programs_find();
	options_read(argc, argv);
	demo.random = demo.seed;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (access(demo.input, R_OK) != 0)
		fail(NULL, "%s: %s; give another file of that form as argument", demo.input, strerror(errno));
	if (access(demo.kv, X_OK) != 0 || access(demo.fsck, X_OK) != 0)
		fail(NULL, "%s or %s is missing; build first", demo.kv, demo.fsck);
	folder_make();
	story();
	return 0;
}
