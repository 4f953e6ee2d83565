/* SPDX-License-Identifier: MIT
 *
 * procs.c: rung 4: real processes, real SIGKILL, and living ones that meet what the dead left.
 *
 * What: four parts. "create": a creator killed at its k-th step; there is a whole heap under the name, or
 * none. "ephemeral": see ephemeral.c. "aimed": one victim after the other killed at its k-th step of attach, transaction and detach, for
 * k = 1, 2, ..., beside two living workers and a checker. "storm": several workers killed at random moments
 * and replaced; now and then all at once, so that the next one is first.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bank.h"
#include "oracle.h"
#include "os.h"
#include "procs.h"
#include "program.h"
#include "runtime.h"
#include "victim.h"

#define VICTIM 0u
#define LIVING 2u /* workers 1 and 2 in "aimed" */
#define STORM_WORKERS 4u
#define EXIT_WRONG 9

struct board *board;
static struct bank_expect expect;
static char folder[300], path[340];
static uint64_t seed = 1, rng;
static uint64_t aimed_max = 4000, random_max = 2000, create_max = 200, ephemeral_max = 300;
static uint64_t aimed, randoms, creates, in_tx, checks;
static uint64_t part_ms, part_end; /* with --seconds: how long a part may take, and when that is over */
static unsigned passed, failed;
static pid_t living[BANK_WORKERS], checker;
static int to_checker = -1, from_checker = -1;
static const char usage[] =
	"usage: kill-procs [--aimed N] [--random N] [--create N] [--ephemeral N] [--seconds N] [--seed S] [--mutant N]\n"
	"                  [--fsck PROGRAM] [--timeout SECONDS]\n";
static const char *fsck;

/* --- processes --- */

pid_t procs_spawn(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0) {
		perror("fork");
		exit(2);
	}
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	return 0;
}

static void end(pid_t *pid)
{
	int status;

	if (*pid <= 0)
		return;
	kill(*pid, SIGKILL);
	waitpid(*pid, &status, 0);
	*pid = 0;
}

static void end_all(void)
{
	for (unsigned i = 0; i < BANK_WORKERS; i++)
		end(&living[i]);
	end(&checker);
	if (to_checker >= 0)
		close(to_checker);
	if (from_checker >= 0)
		close(from_checker);
	to_checker = from_checker = -1;
}

static void nap_us(uint64_t us)
{
	struct timespec ts = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000 * 1000)};

	nanosleep(&ts, NULL);
}

static bool part_over(void)
{
	return part_ms && program_now_ms() >= part_end;
}

static pheap *attach(const char *who)
{
	pheap *h;
	int rc = pheap_open(path, 0, NULL, &h);

	if (rc == 0)
		return h;
	bank_wrong(board, "%s: open: %d (%s; %s)", who, rc, pheap_strerror(rc), pheap_error_detail(NULL));
	_exit(EXIT_WRONG);
}

/* Whatever this worker's predecessor left is settled before its number is read. */
static void settle(pheap *h, const char *who)
{
	uint32_t count;
	pheap_tx *tx;
	int rc;

	if (oracle_below(&rng, 2)) {
		rc = pheap_recover(h, &count);
	} else {
		rc = pheap_begin(h, 0, &tx);
		rc = rc ? rc : pheap_commit(tx);
	}
	if (rc) {
		bank_wrong(board, "%s: recover or begin: %d (%s)", who, rc, pheap_error_detail(h));
		_exit(EXIT_WRONG);
	}
}

struct work {
	pheap *h;
	unsigned worker, nap;
};

static void *work_loop(void *arg)
{
	const struct work *work = arg;
	uint64_t random = seed ^ (uint64_t)getpid() << 20 ^ work->worker;

	while (!board->stop) {
		if (bank_tx(work->h, board, work->worker))
			_exit(EXIT_WRONG);
		if (work->nap)
			nap_us(oracle_below(&random, work->nap));
	}
	return NULL;
}

/* A thread for each worker number worker, worker + stride, ...: a kill takes them all at once. */
static void work_forever(unsigned worker, unsigned stride, unsigned nap)
{
	struct work work[BANK_WORKERS];
	pthread_t threads[BANK_WORKERS];
	unsigned count = 0;
	pheap *h;

	rng = seed ^ (uint64_t)getpid() << 20;
	h = attach("worker");
	settle(h, "worker");
	for (unsigned w = worker; w < BANK_WORKERS; w += stride, count++) {
		work[count] = (struct work){.h = h, .worker = w, .nap = nap};
		bank_worker_start(h, board, w);
		if (pthread_create(&threads[count], NULL, work_loop, &work[count]))
			_exit(EXIT_WRONG);
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < count; i++)
		bank_worker_end(h, board, work[i].worker);
	_exit(pheap_close(h) ? EXIT_WRONG : 0);
}

static void start_worker(unsigned worker, unsigned stride, unsigned nap)
{
	living[worker] = procs_spawn();
	if (!living[worker])
		work_forever(worker, stride, nap);
}

static void check_forever(int in, int out)
{
	pheap *h = attach("checker");
	char c;

	while (read(in, &c, 1) == 1) {
		uint32_t count;
		int rc = 0;

		if (c == 'r' && pheap_recover(h, &count))
			rc = bank_wrong(board, "pheap_recover failed: %s", pheap_error_detail(h));
		rc = rc ? rc : bank_check(h, board, &expect);
		c = rc ? 'b' : 'g';
		if (write(out, &c, 1) != 1)
			break;
	}
	_exit(pheap_close(h) ? EXIT_WRONG : 0);
}

static void start_checker(void)
{
	int a[2], b[2];

	if (pipe(a) || pipe(b)) {
		perror("pipe");
		exit(2);
	}
	checker = procs_spawn();
	if (!checker) {
		close(a[1]);
		close(b[0]);
		check_forever(a[0], b[1]);
	}
	close(a[0]);
	close(b[1]);
	to_checker = a[1];
	from_checker = b[0];
}

/* Is everybody who should live alive, and content? */
static int living_well(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (unsigned i = 0; i < BANK_WORKERS; i++)
			if (living[i] == pid)
				living[i] = 0;
		if (checker == pid)
			checker = 0;
		bank_wrong(board, "a living process ended by itself: status %#x", status);
	}
	return board->why_set ? -1 : 0;
}

static int check(void)
{
	char c = oracle_below(&rng, 3) ? 'c' : 'r';

	checks++;
	if (living_well() || write(to_checker, &c, 1) != 1 || read(from_checker, &c, 1) != 1 || c != 'g') {
		(void)living_well();
		return bank_wrong(board, "the checker is gone");
	}
	return living_well();
}

/* --- results --- */

static void result(const char *name, int rc, const char *format, uint64_t a, uint64_t b)
{
	passed += rc == 0;
	failed += rc != 0;
	printf("  %s: %s; ", name, rc ? "FAILED" : "passed");
	printf(format, a, b);
	printf("\n");
	if (rc)
		printf("violation: %s\n  replay: --seed %" PRIu64 "\n", board->why_set ? board->why : "?",
		       seed);
}

static int make_heap(void)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	pheap *h;
	int rc;

	memset(board, 0, sizeof(*board));
	bank_expect_start(&expect);
	unlink(path);
	opt.durability = PHEAP_PROCESS;
	opt.max_size = 4u << 20;
	opt.initial_size = 256u << 10;
	opt.mode = 0600;
	opt.member_count = 12;
	opt.lane_count = 24;
	opt.lock_timeout_ms = 30000;
	rc = pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &opt, &h);
	if (!rc) {
		rc = bank_make(h);
		rc = pheap_close(h) ? -EIO : rc;
	}
	return rc ? bank_wrong(board, "create: %d (%s)", rc, pheap_error_detail(NULL)) : 0;
}

static int run_fsck(const char *mode, int most)
{
	char command[900];
	int status;

	if (!fsck)
		return 0;
	snprintf(command, sizeof(command), "'%s' %s -f '%s' >'%s/fsck.out' 2>&1", fsck, mode, path, folder);
	status = system(command);
	if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == most))
		return 0;
	snprintf(command, sizeof(command), "cat '%s/fsck.out'", folder);
	(void)!system(command);
	return bank_wrong(board, "pheap-fsck %s -f: status %#x", mode, status);
}

/* All are dead; the next opener is the first. */
static int check_cold(void)
{
	pheap *h;
	int rc;

	checks++;
	if (run_fsck("-n", 4))
		return -1;
	rc = pheap_open(path, 0, NULL, &h);
	if (rc)
		return bank_wrong(board, "open after all died: %d (%s)", rc, pheap_error_detail(NULL));
	rc = bank_check(h, board, &expect);
	rc = rc ? rc : bank_check_alone(h, board);
	if (pheap_close(h) && !rc)
		rc = bank_wrong(board, "close failed");
	return rc ? rc : run_fsck("-n", 0);
}

/* --- create: ORDER(create-publish) --- */

static int left_over(void)
{
	DIR *d = opendir(folder);
	unsigned count = 0;

	for (struct dirent *e; d && (e = readdir(d));)
		count += e->d_name[0] != '.' && strcmp(e->d_name, "fsck.out") != 0;
	if (d)
		closedir(d);
	return (int)count;
}

static int create_part(void)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	bool whole = false;

	opt.durability = PHEAP_PROCESS;
	opt.max_size = 1u << 20;
	opt.mode = 0600;
	for (uint64_t k = 1; !whole && k <= create_max; k++) {
		int status, rc;
		pheap *h;
		pid_t pid;

		unlink(path);
		pid = procs_spawn();
		if (!pid) {
			victim_install();
			victim_arm(k);
			_exit(pheap_open(path, PHEAP_CREATE, &opt, &h) ? EXIT_WRONG : 0);
		}
		waitpid(pid, &status, 0);
		if (WIFEXITED(status) && WEXITSTATUS(status))
			return bank_wrong(board, "creator: exit %d", WEXITSTATUS(status));
		whole = WIFEXITED(status);
		creates++;
		if (access(path, F_OK) && left_over())
			return bank_wrong(board, "creator killed at step %" PRIu64 " left a file", k);
		rc = pheap_open(path, PHEAP_CREATE, &opt, &h);
		if (rc)
			return bank_wrong(board, "open after a creator killed at step %" PRIu64 ": %d (%s)",
					  k, rc, pheap_error_detail(NULL));
		if (pheap_next(h, UINT32_MAX, NULL) || pheap_close(h))
			return bank_wrong(board, "creator killed at step %" PRIu64 ": not an empty heap", k);
	}
	return 0;
}

/* --- aimed --- */

/* Attach, one transaction, detach; from `stage` on the steps count. */
static void victim_run(unsigned stage, uint64_t k)
{
	pheap *h;

	victim_install();
	victim_arm(stage == 0 ? k : 0);
	rng = k;
	h = attach("victim");
	settle(h, "victim");
	bank_worker_start(h, board, VICTIM);
	if (stage == 1)
		victim_arm(k);
	if (bank_tx(h, board, VICTIM))
		_exit(EXIT_WRONG);
	bank_worker_end(h, board, VICTIM);
	if (stage == 2)
		victim_arm(k);
	_exit(pheap_close(h) ? EXIT_WRONG : 0);
}

static int one_victim(unsigned stage, uint64_t k, bool *ret_survived)
{
	pid_t pid = procs_spawn();
	int status;

	if (!pid)
		victim_run(stage, k);
	if (waitpid(pid, &status, 0) != pid)
		return bank_wrong(board, "waitpid failed");
	*ret_survived = WIFEXITED(status);
	if (*ret_survived && WEXITSTATUS(status))
		return bank_wrong(board, "victim at step %" PRIu64 " of stage %u: exit %d", k, stage,
				  WEXITSTATUS(status));
	if (!*ret_survived && WTERMSIG(status) != SIGKILL)
		return bank_wrong(board, "victim at step %" PRIu64 " of stage %u: signal %d", k, stage,
				  WTERMSIG(status));
	aimed += !*ret_survived;
	in_tx += board->workers[VICTIM].started != board->workers[VICTIM].acked;
	return 0;
}

static int aimed_part(void)
{
	/* the transaction's steps first and most often; attach and detach once in eight sweeps */
	uint64_t k = 1, sweep = 0;
	int rc = make_heap();

	part_end = program_now_ms() + part_ms;
	if (rc)
		return rc;
	board->lends = 1;
	for (unsigned i = 1; i <= LIVING; i++)
		start_worker(i, BANK_WORKERS, 400);
	start_checker();
	rc = check();
	while (!rc && aimed < aimed_max && !part_over()) {
		unsigned stage = sweep % 8 == 6 ? 0 : sweep % 8 == 7 ? 2 : 1;
		bool survived = false;

		rc = one_victim(stage, k, &survived);
		/* now and then the living go on for a while with what the dead left before the checker
		 * looks */
		if (oracle_below(&rng, 2))
			nap_us(oracle_below(&rng, 1500));
		rc = rc ? rc : check();
		/* long copies are alike: after the first 400 steps every third will do */
		k += k < 400 ? 1 : 1 + oracle_below(&rng, 5);
		if (survived || k > 5000) {
			k = 1;
			sweep++;
		}
	}
	end_all();
	return rc ? rc : check_cold();
}

/* --- storm --- */

static bool open_transactions(unsigned worker)
{
	for (unsigned w = worker; w < BANK_WORKERS; w += STORM_WORKERS)
		if (board->workers[w].started != board->workers[w].acked)
			return true;
	return false;
}

static int storm_part(void)
{
	int rc = make_heap();

	part_end = program_now_ms() + part_ms;
	if (rc)
		return rc;
	start_checker();
	for (unsigned i = 0; i < STORM_WORKERS; i++)
		start_worker(i, STORM_WORKERS, 50);
	while (!rc && randoms < random_max && !part_over()) {
		unsigned w = (unsigned)oracle_below(&rng, STORM_WORKERS);

		nap_us(oracle_below(&rng, 4000));
		rc = living_well();
		if (rc)
			break;
		in_tx += open_transactions(w);
		end(&living[w]);
		randoms++;
		if (oracle_below(&rng, 100) == 0) {
			end_all();
			rc = check_cold();
			start_checker();
			for (unsigned i = 0; i < STORM_WORKERS; i++)
				start_worker(i, STORM_WORKERS, 50);
			continue;
		}
		start_worker(w, STORM_WORKERS, 50);
		if (oracle_below(&rng, 8) == 0)
			rc = check();
	}
	end_all();
	return rc ? rc : check_cold();
}

static void clean_up(void)
{
	end_all();
	unlink(path);
	snprintf(path, sizeof(path), "%s/fsck.out", folder);
	unlink(path);
	rmdir(folder);
}

/* Cleans up after the parent in any case, also when that is killed. */
static void janitor_start(void)
{
	int ends[2];
	char c;

	if (pipe(ends)) {
		perror("pipe");
		exit(2);
	}
	if (fork()) {
		close(ends[0]);
		return;
	}
	setsid();
	close(ends[1]);
	while (read(ends[0], &c, 1) > 0)
		;
	clean_up();
	_exit(0);
}

static void on_signal(int signal)
{
	clean_up();
	printf("violation: signal %d, a part did not end in time or crashed\n  replay: --seed %" PRIu64
	       "\n0 passed, 1 failed\n",
	       signal, seed);
	fflush(stdout);
	_exit(3);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"aimed", 1, NULL, 'a'},     {"random", 1, NULL, 'r'},
						{"create", 1, NULL, 'c'},    {"seed", 1, NULL, 's'},
						{"mutant", 1, NULL, 'm'},    {"fsck", 1, NULL, 'f'},
						{"timeout", 1, NULL, 't'},   {"seconds", 1, NULL, 'd'},
						{"ephemeral", 1, NULL, 'e'}, {0}};
	const char *tmp = getenv("TMPDIR");
	unsigned timeout = 300;
	int c, rc;

	program_usage(usage);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'a':
			aimed_max = program_number(optarg);
			break;
		case 'r':
			random_max = program_number(optarg);
			break;
		case 'e':
			ephemeral_max = program_number(optarg);
			break;
		case 'c':
			create_max = program_number(optarg);
			break;
		case 's':
			seed = program_number(optarg);
			break;
		case 'm':
			ph_mutant = (int)program_number(optarg);
			break;
		case 'f':
			fsck = optarg;
			break;
		case 'd':
			part_ms = program_number(optarg) * 1000 / 2;
			aimed_max = random_max = UINT64_MAX;
			timeout = (unsigned)program_number(optarg) + 120;
			break;
		case 't':
			timeout = (unsigned)program_number(optarg);
			break;
		default:
			program_misused();
		}
	rng = seed;
	victim_install();
	snprintf(folder, sizeof(folder), "%s/pheap-procs-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(folder))
		return perror(folder), 2;
	snprintf(path, sizeof(path), "%s/heap", folder);
	janitor_start();
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		return perror("mmap"), 2;
	signal(SIGALRM, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("kill-procs: seed %" PRIu64 "\n", seed);
	alarm(timeout);
	if (create_max) {
		rc = create_part();
		result("ORDER(create-publish): creators killed", rc,
		       "%" PRIu64 " creators, %" PRIu64 " left a half-made heap", creates,
		       (uint64_t)(rc != 0));
	}
	if (ephemeral_max) {
		uint64_t stops, kills;

		memset(board, 0, sizeof(*board));
		unlink(path);
		rc = ephemeral_part(path, ephemeral_max, &stops, &kills);
		result("ORDER(ephemeral-name): users stopped or killed", rc,
		       "%" PRIu64 " stops, %" PRIu64 " kills", stops, kills);
	}
	if (aimed_max) {
		rc = aimed_part();
		result("aimed kills beside living processes", rc,
		       "%" PRIu64 " kills, %" PRIu64 " in a transaction", aimed, in_tx);
	}
	in_tx = 0;
	if (random_max) {
		rc = storm_part();
		result("random kills", rc, "%" PRIu64 " kills, %" PRIu64 " in a transaction", randoms, in_tx);
	}
	clean_up();
	printf("seed %" PRIu64 ": %" PRIu64 " aimed kills, %" PRIu64 " random kills, %" PRIu64
	       " checks, %u violations\n",
	       seed, aimed, randoms, checks, failed);
	printf("%u passed, %u failed\n", passed, failed);
	return failed != 0;
}
