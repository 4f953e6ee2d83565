/* SPDX-License-Identifier: MIT
 *
 * demo.c: pheap-kv-demo: several processes load real data into one heap at the same time; each is killed with
 * SIGKILL again and again while the others go on, and is replaced; and it is proved that nothing was lost,
 * repeated or left half done.
 *
 * What is proved. After every kill: each survivor commits again, before anybody new comes. All the time: each
 * step finds its record as the step before left it, whoever did that one. Beside running loads, and after
 * kills of all at once: every byte is what the committed transactions make of the input, and there are at
 * least as many as were reported, and no more above that than processes were killed. At the end: the contents
 * are the input, and fsck finds nothing at all.
 *
 * Why several kinds of kill: few random moments lie where much is open, so some are aimed at a transaction
 * that stands still in its middle; two at once, because the second may hit whoever recovers the first; early
 * ones, because they hit an attaching process, which recovers as well; and all at once, which leaves it all
 * to the next that opens the heap.
 *
 * Why pauses are also measured without a kill: with more processes than processors each of them waits for its
 * turn, and that is no matter of the library.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "board.h"
#include "score.h"

#define WINDOW_NS 30000000u /* how long pauses are looked for: before a kill, and after it */
#define ALL_COUNT 4u	    /* kills of all at once */
#define BESIDE_COUNT 10u    /* comparisons beside running loads */

enum aim { AIM_RANDOM, AIM_INSIDE, AIM_TWO, AIM_ATTACHING };
static const char *const aim_texts[] = {"at a random moment", "inside a transaction", "two at once",
					"while attaching"};

static struct {
	unsigned seconds;
	const char *threads;
	bool live;
} demo;

/* ---- time passes ---- */

static void workers_check(void)
{
	for (unsigned i = 0; i < score.worker_count; i++)
		worker_check(&score.workers[i]);
}

static void tick(void)
{
	workers_check();
	board_tick();
}

static void pass_ns(uint64_t ns)
{
	uint64_t end_ns = stage_now_ns() + ns;

	for (;;) {
		uint64_t now_ns = stage_now_ns(), left_ns = end_ns - now_ns;

		if (now_ns >= end_ns)
			return;
		usleep((unsigned)(left_ns < 1000000 ? left_ns / 1000 + 1 : 1000));
		tick();
	}
}

/* Until yes(worker) of each worker that is not killed. */
static void wait_all(bool (*yes)(const struct worker *worker), const char *what)
{
	uint64_t end_ns = stage_now_ns() + STAGE_ANSWER_NS;

	for (unsigned i = 0; i < score.worker_count; i++) {
		struct worker *worker = &score.workers[i];

		while (worker->pid && !worker->killed && !yes(worker)) {
			if (stage_now_ns() > end_ns)
				stage_fail(worker->words_path, "worker %u does not %s", worker->number, what);
			usleep(500);
			tick();
		}
	}
}

static bool is_loading(const struct worker *worker)
{
	return worker_state(worker) == WORKER_LOADING;
}

static bool is_stalled(const struct worker *worker)
{
	return worker_state(worker) == WORKER_STALLED;
}

/* ---- pauses ---- */

static void watch_begin(void)
{
	uint64_t now_ns = stage_now_ns();

	for (unsigned i = 0; i < score.worker_count; i++)
		worker_watch(&score.workers[i], now_ns);
}

/* The longest pause of any that lives, and the first commit of any, once all of them have moved. */
static uint64_t watch_end(uint64_t *ret_first_ns)
{
	uint64_t longest_ns = 0, first_ns = UINT64_MAX;

	wait_all(worker_moved, "go on");
	for (unsigned i = 0; i < score.worker_count; i++) {
		const struct worker *worker = &score.workers[i];
		uint64_t ns;

		if (worker->pid == 0 || worker->killed)
			continue;
		ns = worker_pause_ns(worker);
		if (longest_ns < ns)
			longest_ns = ns;
		ns = worker_first_ns(worker);
		if (first_ns > ns)
			first_ns = ns;
	}
	if (ret_first_ns)
		*ret_first_ns = first_ns;
	return longest_ns;
}

/* ---- who recovered ---- */

static uint64_t put_right_count(const struct recoveries *recoveries)
{
	return recoveries->beside_count + recoveries->attaching_count;
}

static void recovery_tell(struct worker *worker, const struct recoveries *from, const struct recoveries *to,
			  unsigned victim)
{
	uint64_t beside = to->beside_count - from->beside_count;
	uint64_t attaching = to->attaching_count - from->attaching_count;
	uint64_t ns = to->beside_ns - from->beside_ns + to->attaching_ns - from->attaching_ns;

	if (beside + attaching == 0)
		return;
	series_add(&score.recoveries_ns, ns);
	snprintf(worker->last, sizeof(worker->last), "worker %u's, in %.3f ms%s", victim, (double)ns / 1e6,
		 attaching ? ", attaching" : "");
}

/* ---- checks ---- */

static void fsck_check(bool at_end)
{
	const char *const words[] = {stage.fsck, "-n", "-f", stage.heap, NULL};
	char text[4096];
	int code = stage_command(words, text, sizeof(text), tick);

	if (code != 0 && (at_end || code != 4))
		stage_fail(NULL, "pheap-fsck -n -f gives %d:\n%s", code, text);
	score.fsck_count++;
}

/* What a command found when it opened the heap after a kill. */
static void checks_recovered(const char *text)
{
	const char *at = strstr(text, "after a kill: ");
	ull undone, completed, us;

	if (!at || sscanf(at, "after a kill: %llu undone, %llu completed, in %llu us", &undone, &completed,
			  &us) != 3)
		return;
	score.by_checks.attaching_count += undone + completed;
	score.by_checks.undone_count += undone;
	score.by_checks.completed_count += completed;
	if (undone + completed)
		series_add(&score.recoveries_ns, us * 1000);
}

/* Transactions in the heap, when all its bytes are what they make of the input. */
static uint64_t verify_so_far(void)
{
	const char *const words[] = {stage.kv, stage.heap, "verify", stage.input, "--so-far", NULL};
	uint64_t reported = score_done();
	char text[4096];
	int code = stage_command(words, text, sizeof(text), tick);
	const char *at = strstr(text, "contents equal exactly what ");
	ull committed;

	if (code || !at || sscanf(at, "contents equal exactly what %llu", &committed) != 1)
		stage_fail(NULL, "pheap-kv verify --so-far gives %d:\n%s", code, text);
	checks_recovered(text);
	if (committed < reported)
		stage_fail(NULL, "%llu transactions were reported, %llu are in the heap: work was lost",
			   (ull)reported, committed);
	score.verify_count++;
	return committed;
}

/* R1: each thread that was killed may have committed one that it did not come to report. */
static void committed_check(uint64_t committed)
{
	uint64_t reported = score_done(), most = reported + score.kill_count * score.thread_count;

	if (committed < reported || committed > most)
		stage_fail(NULL,
			   "%llu transactions in the heap, %llu reported, %llu kills: lost or done twice",
			   (ull)committed, (ull)reported, (ull)score.kill_count);
}

static void check_beside(void)
{
	board_say("comparing beside the loads");
	verify_so_far();
	score.verify_beside_count++;
	board_say("");
}

/* Nobody lives. fsck calls any error 4, so it looks again once the transactions are undone. */
static void check_still(void)
{
	board_say("all killed: fsck, comparing");
	fsck_check(false);
	committed_check(verify_so_far());
	fsck_check(true);
	board_say("");
}

/* ---- kills ---- */

static void workers_start(void)
{
	for (unsigned i = 0; i < score.worker_count; i++)
		if (score.workers[i].pid == 0)
			worker_start(&score.workers[i], demo.threads);
}

/* The dead are replaced; sometimes the first newcomer does not come to do anything. */
static void workers_replace(bool kill_attaching)
{
	struct worker *victim = NULL;

	for (unsigned i = 0; i < score.worker_count; i++)
		if (score.workers[i].pid == 0)
			victim = &score.workers[i];
	workers_start();
	if (kill_attaching && victim) {
		pass_ns(stage_random_below(8000000));
		score.opening_count += !is_loading(victim);
		score.kill_count++;
		worker_kill(victim);
		worker_bury(victim);
		worker_start(victim, demo.threads);
	}
	wait_all(is_loading, "attach");
}

static void workers_bury(void)
{
	for (unsigned i = 0; i < score.worker_count; i++)
		if (score.workers[i].killed)
			worker_bury(&score.workers[i]);
}

static enum aim aim_choose(void)
{
	uint64_t n = stage_random_below(20);

	if (n >= 17)
		return AIM_ATTACHING;
	if (n >= 14 && score.worker_count > 2)
		return AIM_TWO;
	return n >= 8 ? AIM_INSIDE : AIM_RANDOM;
}

static void victim_stall(struct worker *victim)
{
	uint64_t end_ns = stage_now_ns() + STAGE_ANSWER_NS;

	__atomic_store_n(&victim->report->stall, 1 + stage_random_below(2), __ATOMIC_RELAXED);
	while (!is_stalled(victim)) {
		if (stage_now_ns() > end_ns)
			stage_fail(victim->words_path, "worker %u does not come to a transaction",
				   victim->number);
		usleep(100);
		tick();
	}
	pass_ns(1000000 + stage_random_below(4000000)); /* others come to wait for what it holds */
}

/* Kills one or two; the others have moved when it returns. */
static struct worker *victims_kill(enum aim aim)
{
	unsigned first = (unsigned)stage_random_below(score.worker_count);
	unsigned other = (unsigned)(first + 1 + stage_random_below(score.worker_count - 1));
	struct worker *victim = &score.workers[first];
	uint64_t first_ns;

	if (aim == AIM_INSIDE)
		victim_stall(victim);
	watch_begin();
	worker_kill(victim);
	score.kill_count++;
	if (aim == AIM_TWO) {
		usleep((unsigned)stage_random_below(1500));
		worker_kill(&score.workers[other % score.worker_count]);
		score.kill_count++;
		score.together_count += 2;
	}
	pass_ns(WINDOW_NS);
	series_add(&score.pauses_ns, watch_end(&first_ns));
	series_add(&score.resumed_ns, first_ns);
	if (aim == AIM_INSIDE)
		series_add(&score.freed_ns, first_ns);
	return victim;
}

static void quiet_measure(void)
{
	watch_begin();
	pass_ns(WINDOW_NS);
	series_add(&score.quiet_ns, watch_end(NULL));
}

/* A kill that was surely inside must show. Its recoverer lives, and says so within milliseconds. */
static void stalled_check(const struct recoveries *before, const struct worker *victim)
{
	uint64_t end_ns = stage_now_ns() + STAGE_ANSWER_NS;

	for (;;) {
		struct recoveries now = score_recoveries();

		if (now.undone_count > before->undone_count)
			return;
		if (stage_now_ns() > end_ns)
			stage_fail(NULL, "worker %u was killed inside a transaction, but nothing was undone",
				   victim->number);
		pass_ns(1000000);
	}
}

static void kill_run(void)
{
	struct recoveries each[WORKER_MAX], before = score_recoveries(), after;
	enum aim aim = aim_choose();
	uint64_t kills = score.kill_count, inside;
	struct worker *victim;

	for (unsigned i = 0; i < score.worker_count; i++)
		each[i] = worker_recoveries(&score.workers[i]);
	victim = victims_kill(aim);
	workers_bury();
	pass_ns(stage_random_below(120000000));
	workers_replace(aim == AIM_ATTACHING);
	if (aim == AIM_INSIDE)
		stalled_check(&before, victim);
	after = score_recoveries();
	inside = put_right_count(&after) - put_right_count(&before);
	kills = score.kill_count - kills;
	score.inside_count += inside < kills ? inside : kills;
	for (unsigned i = 0; i < score.worker_count; i++) {
		struct recoveries now = worker_recoveries(&score.workers[i]);

		recovery_tell(&score.workers[i], &each[i], &now, victim->number);
	}
	snprintf(score.last_kill, sizeof(score.last_kill),
		 "worker %u, %s; next commit of a survivor after %.3f ms", victim->number, aim_texts[aim],
		 (double)score.resumed_ns.values[score.resumed_ns.count - 1] / 1e6);
}

/* Nobody is left to go on; what was open is found by whoever opens the heap next. */
static void kill_all(void)
{
	uint64_t before, after;
	struct recoveries recoveries = score_recoveries();

	before = put_right_count(&recoveries);
	for (unsigned i = 0; i < score.worker_count; i++)
		worker_kill(&score.workers[i]);
	workers_bury();
	score.kill_count += score.worker_count;
	score.all_count += score.worker_count;
	check_still();
	recoveries = score_recoveries();
	after = put_right_count(&recoveries);
	score.inside_count += after - before < score.worker_count ? after - before : score.worker_count;
}

/* ---- the story ---- */

static void load_run_on(unsigned seconds)
{
	uint64_t end_ns = stage_now_ns() + seconds * 1000000000ull / ALL_COUNT, start_ns;
	uint64_t beside_ns = seconds * 1000000000ull / BESIDE_COUNT, next_ns;

	workers_replace(false);
	start_ns = stage_now_ns();
	next_ns = start_ns + beside_ns;
	while (stage_now_ns() < end_ns) {
		pass_ns(stage_random_below(20000000));
		quiet_measure();
		kill_run();
		if (stage_now_ns() >= next_ns) {
			check_beside();
			next_ns += beside_ns;
		}
	}
	score.load_ns += stage_now_ns() - start_ns;
	kill_all();
}

/* Lets the load end the round that each part of it is in. Transactions before, and of it. */
static void load_finish(uint64_t *ret_from, uint64_t *ret_done)
{
	char count[8], text[4096];
	const char *const words[] = {stage.kv, stage.heap,  "load",	  stage.input, "--processes",
				     count,    "--threads", demo.threads, NULL};
	const char *at;
	ull from, done;
	int code;

	snprintf(count, sizeof(count), "%u", score.worker_count);
	board_say("ending the load");
	code = stage_command(words, text, sizeof(text), tick);
	at = strstr(text, " bytes; ");
	if (code || sscanf(text, "going on at %llu", &from) != 1 || !at ||
	    sscanf(at, " bytes; %llu", &done) != 1)
		stage_fail(NULL, "the last load gives %d:\n%s", code, text);
	committed_check(from);
	*ret_from = from;
	*ret_done = done;
}

static void story(void)
{
	const char *const verify_words[] = {stage.kv, stage.heap, "verify", stage.input, NULL};
	uint64_t from, done;
	char text[4096];
	int code;

	printf("%u processes with %s thread%s each load %s\n", score.worker_count, demo.threads,
	       strcmp(demo.threads, "1") == 0 ? "" : "s", stage.input);
	printf("into %s, a heap of durability process: this is about kills, not about power cuts;\n",
	       stage.heap);
	printf("for %u s each of them may be killed at any moment; seed %llu\n\n", demo.seconds,
	       (ull)stage.seed);
	for (unsigned i = 0; i < score.worker_count; i++)
		worker_make(&score.workers[i], i + 1);
	score.start_ns = stage_now_ns();
	board_open(demo.live, demo.seconds);
	for (unsigned i = 0; i < ALL_COUNT; i++)
		load_run_on(demo.seconds);
	load_finish(&from, &done);
	code = stage_command(verify_words, text, sizeof(text), tick);
	if (code)
		stage_fail(NULL, "pheap-kv verify gives %d:\n%s", code, text);
	score.verify_count++;
	fsck_check(true);
	board_say("");
	board_close();
	text[strcspn(text, "\n")] = 0;
	score_tell(from, done, text);
	stage_close();
	printf("PASSED\n");
}

/* ---- command line ---- */

static void __attribute__((noreturn)) usage(const char *why)
{
	if (why)
		fprintf(stderr, "pheap-kv-demo: %s\n", why);
	fprintf(why ? stderr : stdout,
		"Usage: pheap-kv-demo [--seconds N] [--processes N] [--threads N] [--seed N] [--plain]\n"
		"                     [--kv FILE] [--fsck FILE] [INPUT]\n"
		"Loads INPUT (in the form of /var/lib/dpkg/status, the default) with several processes (4) at\n"
		"once, kills them again and again for N seconds (45), and proves that the living go on and that\n"
		"the heap holds exactly what was committed. On a terminal it shows a board, else, or with\n"
		"--plain, a line a second.\n"
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
	char dir[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
	char *slash;

	dir[n > 0 ? n : 0] = 0;
	slash = strrchr(dir, '/');
	if (slash)
		*slash = 0;
	snprintf(stage.kv, sizeof(stage.kv), "%.*s/pheap-kv", PATH_MAX - 32, dir);
	snprintf(stage.fsck, sizeof(stage.fsck), "%.*s/../fsck/pheap-fsck", PATH_MAX - 32, dir);
}

static void option_take(int c)
{
	switch (c) {
	case 's':
		demo.seconds = (unsigned)number_take(optarg, 1, 86400);
		break;
	case 'r':
		stage.seed = number_take(optarg, 0, UINT64_MAX);
		break;
	case 'n':
		score.worker_count = (unsigned)number_take(optarg, 2, WORKER_MAX);
		break;
	case 't':
		score.thread_count = number_take(optarg, 1, 64);
		demo.threads = optarg;
		break;
	case 'p':
		demo.live = false;
		break;
	case 'k':
		snprintf(stage.kv, sizeof(stage.kv), "%s", optarg);
		break;
	case 'f':
		snprintf(stage.fsck, sizeof(stage.fsck), "%s", optarg);
		break;
	case 'h':
		usage(NULL);
	default:
		usage("unknown option or missing value");
	}
}

static void options_read(int argc, char **argv)
{
	static const struct option options[] = {
		{"seconds", required_argument, NULL, 's'},
		{"seed", required_argument, NULL, 'r'},
		{"processes", required_argument, NULL, 'n'},
		{"threads", required_argument, NULL, 't'},
		{"plain", no_argument, NULL, 'p'},
		{"kv", required_argument, NULL, 'k'},
		{"fsck", required_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1)
		option_take(c);
	if (argc - optind > 1)
		usage("give one input at most");
	if (optind < argc)
		stage.input = argv[optind];
}

int main(int argc, char **argv)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	stage.seed = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
	stage.input = "/var/lib/dpkg/status";
	score.worker_count = 4;
	score.thread_count = 1;
	demo.seconds = 45;
	demo.threads = "1";
	demo.live = isatty(1) && getenv("TERM") && strcmp(getenv("TERM"), "dumb") != 0;
	programs_find();
	options_read(argc, argv);
	if (!demo.live)
		setvbuf(stdout, NULL, _IOLBF, 0);
	if (access(stage.input, R_OK) != 0)
		stage_fail(NULL, "%s: %s; give another file of that form as argument", stage.input,
			   strerror(errno));
	if (access(stage.kv, X_OK) != 0 || access(stage.fsck, X_OK) != 0)
		stage_fail(NULL, "%s or %s is missing; build first", stage.kv, stage.fsck);
	stage_open();
	story();
	return 0;
}
