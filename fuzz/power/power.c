/* SPDX-License-Identifier: MIT
 *
 * power.c: rung 5, and rung 3 for power recovery: scripts drawn from a seed, each on a heap of its own kind,
 * with power cuts all along.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuts.h"
#include "judge.h"
#include "keeper.h"
#include "os.h"
#include "program.h"
#include "runtime.h"

#define SCRIPT_STEPS 40u

static struct cuts cuts = {
	.seed = 1,
	.images_max = 100000,
	.store_cuts = 24,
	.edge_images = 10,
	.subset_bits = 8,
	.nested_every = 211,
	.kill_every = 3,
	.fsck_every = 1999,
	.depth_max = 1,
	.violations_max = 3,
};
static uint64_t wal_size;   /* 0: by the seed */
static uint32_t durability; /* 0: by the script's number */
static int lie;
static char sample_path[64];
static const char usage[] =
	"usage: power-cuts [--images N] [--seconds N] [--seed S] [--script I] [--mutant N] [--lie N]\n"
	"                  [--level sync|epoch|process] [--wal BYTES] [--subsets BITS] [--nested EVERY]\n"
	"                  [--depth D] [--fsck PROGRAM] [--image FILE] [--quiet]\n";

static void on_crash(int signal)
{
	static char text[700];
	int n = snprintf(
		text, sizeof(text),
		"violation: recovery, or the oracle's calls, ended by signal %d\n  cut%s\n  step %" PRIu64
		", image %" PRIu64 "\n  replay: --seed %" PRIu64 " --script %" PRIu64
		"\n0 passed, 1 failed\n",
		signal, cuts.place, cuts.step, cuts.images, cuts.seed, cuts.script);

	(void)!write(1, text, (size_t)n);
	_exit(3);
}

/* --- lies: a platform that does not do what it says; to prove that the explorer sees it --- */

static int lie_map_sync(void *address, size_t n)
{
	(void)address;
	(void)n;
	return 0;
}

static int lie_sync(int fd)
{
	(void)fd;
	return 0;
}

static const struct ph_os *platform(void)
{
	static struct ph_os os;

	os = memfile_os;
	if (lie == 1)
		os.map_sync = lie_map_sync;
	if (lie == 2)
		os.file_write_sync = os.file_write;
	if (lie == 3)
		os.file_sync = lie_sync;
	return &os;
}

/* --- scripts --- */

static int failed(struct life *l, const char *what)
{
	snprintf(cuts.place, sizeof(cuts.place), " (not: a call)");
	cuts_violation(&cuts, l, what, l->oracle.why);
	return -1;
}

/* One step, then the cuts in it. */
static int step(struct life *l)
{
	char why[300];
	int rc;

	alarm(60);
	snprintf(cuts.place, sizeof(cuts.place), " (not: in a call)");
	life_enter(l, NULL);
	rc = life_step(l);
	life_leave(l);
	cuts.steps++;
	if (rc < 0)
		return failed(l, "call");
	cuts_explore(&cuts, l);
	if (rc != LIFE_CLOSED) {
		if (oracle_check(l->oracle.h, &l->oracle.committed, ORACLE_BOTH, why, sizeof(why)) == 0)
			return 0;
		snprintf(l->oracle.why, sizeof(l->oracle.why), "%.250s", why);
		return failed(l, "living heap");
	}
	if (cuts.stop)
		return -1;
	life_enter(l, NULL);
	rc = life_open(l);
	life_leave(l);
	if (rc < 0)
		return failed(l, "call");
	cuts_explore(&cuts, l);
	return 0;
}

static uint32_t level(uint64_t script)
{
	return durability ? durability : script % 5 < 3 ? PHEAP_SYNC : PHEAP_EPOCH;
}

static void script(uint64_t i)
{
	uint64_t seed = cuts.seed * 1000003 + i;
	struct life *l = &cuts.lives[0];
	int rc;

	cuts.script = i;
	cuts.step = 0;
	cuts.turn = i * 7919;
	cuts.rng = ~seed;
	life_boots = 1;
	memfile_seed(seed);
	memfile_kill(l->disk.file);
	memfile_clear(l->disk.file);
	disk_reset(&l->disk);
	l->boot = life_boots;
	alarm(60);
	life_enter(l, NULL);
	rc = life_create(l, seed, level(i), wal_size);
	life_leave(l);
	if (rc)
		failed(l, "start");
	else
		cuts_explore(&cuts, l);
	for (cuts.step = 1; !rc && cuts.step <= SCRIPT_STEPS && !cuts_over(&cuts); cuts.step++)
		if (step(l))
			break;
	life_enter(l, NULL);
	rc = life_end(l);
	life_leave(l);
	if (rc && !cuts.stop) {
		snprintf(l->oracle.why, sizeof(l->oracle.why), "%.250s", pheap_error_detail(NULL));
		failed(l, "close");
	}
}

/* --- report --- */

static void report(bool quiet, uint64_t ms, uint64_t scripts)
{
	if (!quiet) {
		printf("  units of 4096, 512, 8 bytes: %" PRIu64 ", %" PRIu64 ", %" PRIu64 " images; %" PRIu64
		       " with garbage\n",
		       cuts.unit_images[0], cuts.unit_images[1], cuts.unit_images[2], cuts.garbage_images);
		for (unsigned i = 0; i <= DISK_KILL; i++)
			printf("  %-12s %8" PRIu64 " images\n", disk_pattern_names[i],
			       cuts.pattern_images[i]);
		printf("  %" PRIu64 " cuts at stores, %" PRIu64 " at syncs, %" PRIu64
		       " of these with all subsets; %" PRIu64 " calls inside of calls\n",
		       cuts.cuts, cuts.edges, cuts.subset_sets, life_inside_count);
		printf("  %" PRIu64 " images lost a commit that nobody waited for, %" PRIu64
		       " kept more than was acknowledged; %" PRIu64 " refused\n",
		       cuts.lost_count, cuts.kept_count, cuts.refused_count);
	}
	printf("seed %" PRIu64 ": %" PRIu64 " scripts, %" PRIu64 " steps, %" PRIu64 " images, %" PRIu64
	       " recoveries cut, %" PRIu64 " images of those and of lives after, %" PRIu64
	       " kills first, %" PRIu64 " images after, %" PRIu64 " opened again, %" PRIu64
	       " fsck runs, %" PRIu64 " violations; %" PRIu64 " images/s\n",
	       cuts.seed, scripts, cuts.steps, cuts.images, cuts.nested_count, cuts.nested_images,
	       cuts.kill_count, cuts.kill_images, cuts.again_count, cuts.fsck_count, cuts.violations,
	       cuts.images * 1000 / (ms ? ms : 1));
	printf("%d passed, %d failed\n", !cuts.violations, cuts.violations != 0);
}

static uint32_t level_named(const char *name)
{
	if (strcmp(name, "sync") == 0)
		return PHEAP_SYNC;
	if (strcmp(name, "epoch") == 0)
		return PHEAP_EPOCH;
	if (strcmp(name, "process") == 0)
		return PHEAP_PROCESS;
	program_misused();
}

static bool quiet;
static uint64_t only = UINT64_MAX;

static int options_read(int argc, char **argv, uint64_t start)
{
	static const struct option options[] = {
		{"images", 1, NULL, 'p'},  {"seed", 1, NULL, 's'},   {"script", 1, NULL, 'i'},
		{"mutant", 1, NULL, 'm'},  {"nested", 1, NULL, 'n'}, {"depth", 1, NULL, 'd'},
		{"fsck", 1, NULL, 'f'},	   {"image", 1, NULL, 'o'},  {"quiet", 0, NULL, 'q'},
		{"seconds", 1, NULL, 't'}, {"level", 1, NULL, 'l'},  {"lie", 1, NULL, 'y'},
		{"subsets", 1, NULL, 'b'}, {"wal", 1, NULL, 'w'},    {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'p':
			cuts.images_max = program_number(optarg);
			break;
		case 's':
			cuts.seed = program_number(optarg);
			break;
		case 'i':
			only = program_number(optarg);
			break;
		case 'm':
			ph_mutant = (int)program_number(optarg);
			break;
		case 'n':
			cuts.nested_every = (unsigned)program_number(optarg);
			break;
		case 'd':
			cuts.depth_max = (unsigned)program_number(optarg);
			break;
		case 'b':
			cuts.subset_bits = (unsigned)program_number(optarg);
			break;
		case 'w':
			wal_size = program_number(optarg);
			break;
		case 'f':
			cuts.fsck = optarg;
			break;
		case 'o':
			cuts.image_path = optarg;
			break;
		case 'l':
			durability = level_named(optarg);
			break;
		case 'y':
			lie = (int)program_number(optarg);
			break;
		case 't':
			cuts.deadline_ms = start + program_number(optarg) * 1000;
			cuts.images_max = UINT64_MAX;
			break;
		case 'q':
			quiet = true;
			break;
		default:
			return -1;
		}
	if (ph_mutant || lie)
		cuts.violations_max = 1; /* it is caught */
	if (optind < argc || cuts.depth_max >= LIVES || cuts.subset_bits > 24)
		return -1;
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t start = program_now_ms(), i;
	int fd;

	program_usage(usage);
	if (options_read(argc, argv, start))
		program_misused();
	fd = judge_file_open(sample_path, sizeof(sample_path));
	cuts.sample_path = sample_path;
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("power-cuts: seed %" PRIu64 "\n", cuts.seed);
	program_crashes_to(on_crash);
	ph_os = platform();
	ph_keeper_off = true; /* one thread makes all calls */
	cuts_init(&cuts);
	for (i = 0; !cuts_over(&cuts); i++) {
		if (only != UINT64_MAX && i)
			break;
		script(only != UINT64_MAX ? only : i);
	}
	close(fd);
	report(quiet, program_now_ms() - start, i);
	cuts_free(&cuts);
	return cuts.violations ? 1 : 0;
}
