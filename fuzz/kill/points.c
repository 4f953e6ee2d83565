/* SPDX-License-Identifier: MIT
 *
 * points.c: rungs 2 and 3: death at every store of every operation, and at every store of the recovery
 * after it.
 *
 * What: scripts drawn from a seed, each on a heap of its own kind; after every transaction all images in
 * between are recovered and held against the oracle. The last line says how many cases passed: one for each
 * kind of call and one for each ORDER tag.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "explore.h"
#include "judge.h"
#include "oracle_steps.h"
#include "os.h"
#include "program.h"
#include "runtime.h"
#include "thread.h"

#define TRIM_SCRIPTS 3u /* one in so many trims the heap, */
#define TRIM_EVERY 4u	/* after so many transactions */
#define SCRIPT_TX_MAX 16u

static struct explore explore = {
	.points_max = 200000,
	.depth_max = 1,
	.nested_every = 400,
	.again_every = 5,
	.follow_every = 7,
	.join_every = 6,
	.fsck_every = 997,
	.violations_max = 5,
	.seed = 1,
};
static struct oracle oracle;
static char sample_path[64];
static uint64_t deadline_ms; /* 0: none */
static const char usage[] =
	"usage: kill-points [--points N] [--seconds N] [--seed S] [--script I] [--mutant N] [--nested EVERY] [--depth D]\n"
	"                   [--fsck PROGRAM] [--image FILE] [--quiet]\n";

static void on_crash(int signal)
{
	static char text[400];
	int n = snprintf(
		text, sizeof(text),
		"violation: recovery, or the oracle's calls, ended by signal %d\n  cut before store %zu of transaction %" PRIu64
		" (%s)\n  replay: --seed %" PRIu64 " --script %" PRIu64 "\n0 passed, 1 failed\n",
		signal, explore.at, explore.tx, oracle_op_names[explore.where.op], explore.seed,
		explore.script);

	(void)!write(1, text, (size_t)n);
	_exit(3);
}

static void oracle_failed_at(const char *what)
{
	struct event e = {.op = (uint8_t)oracle.op};

	explore.at = 0;
	explore_violation(&explore, &e, what, oracle.why);
}

/* ORDER(create-publish): at the moment of the link the image is whole. Everything before it has no name. */
static int create(uint64_t script_seed)
{
	struct pheap_options opt = oracle_options(script_seed);
	struct memfile *f = memfile_get(0);
	pheap *h;
	int rc;

	memfile_kill(f);
	memfile_clear(f);
	explore.ephemeral = script_seed % 6 == 5;
	rc = pheap_open("mem:0", PHEAP_CREATE | PHEAP_EXCL | (explore.ephemeral ? PHEAP_EPHEMERAL : 0), &opt,
			&h);
	if (rc) {
		snprintf(oracle.why, sizeof(oracle.why), "create: %d (%s)", rc, pheap_error_detail(NULL));
		return rc;
	}
	if (script_seed / 5 % 3 == 0)
		f->space = f->size + 65536; /* a disk that will be full */
	rc = oracle_start(&oracle, h, script_seed);
	if (script_seed / 7 % 3)
		oracle.other_path = "mem:0+";
	return rc;
}

/* ORDER(clean-last), ORDER(state-dirty), ORDER(attach-limit), ORDER(member-byte), ORDER(ephemeral-name): a close and an
 * open, cut at every store. 1: an ephemeral heap went with it. */
static int reopen(void)
{
	bool goes = explore.ephemeral && !oracle.other;
	int rc;

	/* Cut anywhere it is a death, which takes all that this process has. */
	oracle.other_acts = false;
	oracle_gone(&oracle, ORACLE_MINE);
	oracle.op = ORACLE_OP_CLOSE;
	explore_on(&explore);
	rc = pheap_close(oracle.h);
	oracle.h = NULL;
	if (!rc && goes) {
		explore_off(&explore);
		return memfile_get(0)->named ? -EEXIST : 1;
	}
	if (!rc) {
		oracle.op = ORACLE_OP_OPEN;
		rc = pheap_open("mem:0", 0, NULL, &oracle.h);
	}
	oracle.op = ORACLE_OP_NONE;
	explore_off(&explore);
	if (rc)
		snprintf(oracle.why, sizeof(oracle.why), "reopen: %d (%s)", rc, pheap_error_detail(NULL));
	return rc;
}

/* The other process is killed between two calls. ORDER(reap-count): what it held is given up by this one, cut at every
 * store. */
static int other_death(void)
{
	pheap *h = oracle.other;
	int rc;

	oracle.trace_size = 0;
	oracle.other_acts = true;
	explore_on(&explore);
	rc = oracle_member_hold(&oracle);
	explore_off(&explore);
	if (rc)
		return rc;
	/* As fork leaves a handle in the child: it has no descriptor and no mapping, and touches nothing. */
	memfile_die(h->fd);
	cds_list_del(&h->node);
	h->forked = true;
	ph_thread_heap_close(h);
	ph_alloc_close(h);
	if (pheap_close(h))
		return -EINVAL;
	oracle.other = NULL;
	oracle_gone(&oracle, ORACLE_THEIRS);
	oracle.other_acts = false;
	oracle_trace(&oracle, " the other dies, recover");
	explore_on(&explore);
	oracle.op = ORACLE_OP_RECOVERY;
	rc = pheap_recover(oracle.h, NULL);
	oracle.op = ORACLE_OP_NONE;
	explore_off(&explore);
	if (rc)
		snprintf(oracle.why, sizeof(oracle.why), "recover: %d (%s)", rc,
			 pheap_error_detail(oracle.h));
	return rc;
}

/* Who goes on when the one who makes the calls dies. */
static void living_set(void)
{
	pheap *h = oracle.other_acts ? oracle.h : oracle.other;

	explore.living = h ? pheap_member(h) : 0;
	explore.living_has = !h ? 0 : oracle.other_acts ? ORACLE_MINE : ORACLE_THEIRS;
}

/* Both processes see the same. */
static int living_check(char *why, size_t n)
{
	if (oracle_check(oracle.h, &oracle.committed, ORACLE_BOTH, why, n))
		return -1;
	return oracle.other ? oracle_check(oracle.other, &oracle.committed, ORACLE_BOTH, why, n) : 0;
}

static int one_transaction(void)
{
	char why[256];
	int rc = 0;

	/* In place of what else would be drawn, so that the scripts without it are what they were. */
	if (explore.script % TRIM_SCRIPTS == 1 && explore.tx % TRIM_EVERY == 0) {
		explore_on(&explore);
		rc = oracle_trim(&oracle);
		goto done;
	}
	switch (oracle_below(&oracle.rng, 16)) {
	case 0:
		rc = reopen();
		break;
	case 1:
	case 2:
		rc = oracle.other ? other_death() : 0;
		break;
	case 3 ... 8:
		explore_on(&explore);
		rc = oracle_between(&oracle);
		break;
	default:
		explore_on(&explore);
		rc = oracle_tx(&oracle);
	}
done:
	explore_off(&explore);
	if (rc < 0) {
		oracle_failed_at("call");
		return rc;
	}
	living_set();
	explore_run(&explore, &oracle.committed, &oracle.working);
	oracle_settle(&oracle);
	if (rc || living_check(why, sizeof(why)) == 0)
		return rc;
	snprintf(oracle.why, sizeof(oracle.why), "%s", why);
	oracle_failed_at("living heap");
	return -1;
}

static void script(uint64_t i)
{
	uint64_t seed = explore.seed * 1000003 + i;

	explore.script = i;
	explore.tx = 0;
	explore.turn = i * 7919;
	memfile_seed(seed);
	if (create(seed)) {
		oracle_failed_at("start");
		return;
	}
#ifndef KILL_TRAP
	oracle.store = kr_copy; /* the trap sees a plain memcpy as well */
#endif
	explore_rebase(&explore);
	for (explore.tx = 1;
	     explore.tx <= SCRIPT_TX_MAX && !explore.stop && explore.points < explore.points_max;
	     explore.tx++)
		if ((deadline_ms && program_now_ms() >= deadline_ms) || one_transaction())
			break;
	if (oracle.h && pheap_current(oracle.h))
		pheap_abort(pheap_current(oracle.h));
	if (pheap_close(oracle.h) || pheap_close(oracle.other))
		oracle_failed_at("close");
	for (unsigned op = 0; op < ORACLE_OP_COUNT; op++)
		explore.op_calls[op] += oracle.call_counts[op];
	oracle_end(&oracle);
}

static unsigned report(bool quiet, uint64_t ms, uint64_t scripts)
{
	unsigned passed = 0, failed = 0;

	for (unsigned i = ORACLE_OP_OPEN; i < ORACLE_OP_COUNT; i++) {
		if (i == ORACLE_OP_RECOVERY)
			continue;
		/* savepoint, nest and cancel store nothing: to have been called is all there is to see */
		bool good = (explore.op_points[i] || explore.op_calls[i]) && !explore.op_bad[i];

		passed += good;
		failed += !good;
		if (!quiet || !good)
			printf("  call %-12s %8" PRIu64 " points, %" PRIu64 " bad\n", oracle_op_names[i],
			       explore.op_points[i], explore.op_bad[i]);
	}
	for (unsigned i = TAG_CREATE_PUBLISH + 1; i < TAG_COUNT; i++) {
		bool good = explore.tag_points[i] && !explore.tag_bad[i];

		passed += good;
		failed += !good;
		if (!quiet || !good)
			printf("  ORDER(%s) %*s%8" PRIu64 " points, %" PRIu64 " bad\n", tag_names[i],
			       (int)(15 - strlen(tag_names[i])), "", explore.tag_points[i],
			       explore.tag_bad[i]);
	}
	printf("seed %" PRIu64 ": %" PRIu64 " scripts, %" PRIu64 " stores, %" PRIu64 " points, %" PRIu64
	       " in cut recoveries, %" PRIu64 " opened again, %" PRIu64 " lived on, %" PRIu64
	       " joined, %" PRIu64 " cut while joining, %" PRIu64 " gone, %" PRIu64 " fsck runs, %" PRIu64
	       " violations; %" PRIu64 " points/s\n",
	       explore.seed, scripts, explore.store_count, explore.points, explore.nested_points,
	       explore.again_count, explore.follow_count, explore.join_count, explore.rejoin_points,
	       explore.gone_count, explore.fsck_count, explore.violations,
	       (explore.points + explore.nested_points) * 1000 / (ms ? ms : 1));
	if (explore.violations && !failed)
		failed = 1;
	printf("%u passed, %u failed\n", passed, failed);
	return failed;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"points", 1, NULL, 'p'},
						{"seed", 1, NULL, 's'},
						{"script", 1, NULL, 'i'},
						{"mutant", 1, NULL, 'm'},
						{"nested", 1, NULL, 'n'},
						{"depth", 1, NULL, 'd'},
						{"fsck", 1, NULL, 'f'},
						{"image", 1, NULL, 'o'},
						{"quiet", 0, NULL, 'q'},
						{"seconds", 1, NULL, 't'},
						{0}};
	uint64_t only = UINT64_MAX, i = 0, start = program_now_ms();
	bool quiet = false;
	int c, fd;

	program_usage(usage);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'p':
			explore.points_max = program_number(optarg);
			break;
		case 's':
			explore.seed = program_number(optarg);
			break;
		case 'i':
			only = program_number(optarg);
			break;
		case 'm':
			ph_mutant = (int)program_number(optarg);
			break;
		case 'n':
			explore.nested_every = (unsigned)program_number(optarg);
			break;
		case 'd':
			explore.depth_max = (unsigned)program_number(optarg);
			break;
		case 'f':
			explore.fsck = optarg;
			break;
		case 'o':
			explore.image_path = optarg;
			break;
		case 't':
			deadline_ms = start + program_number(optarg) * 1000;
			explore.points_max = UINT64_MAX;
			break;
		case 'q':
			quiet = true;
			break;
		default:
			program_misused();
		}
	fd = judge_file_open(sample_path, sizeof(sample_path));
	explore.sample_path = sample_path;
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("kill-points: seed %" PRIu64 "\n", explore.seed);
	program_crashes_to(on_crash);
	ph_os = &memfile_os;
	explore_init(&explore);
	explore.oracle = &oracle;
	for (i = 0; !explore.stop && explore.points < explore.points_max; i++) {
		if (only != UINT64_MAX && i)
			break;
		if (deadline_ms && program_now_ms() >= deadline_ms)
			break;
		script(only != UINT64_MAX ? only : i);
	}
	close(fd);
	c = (int)report(quiet, program_now_ms() - start, i);
	explore_free(&explore);
	if (explore.violations)
		return 1;
	return c && only == UINT64_MAX ? 4 : 0; /* 4: a kind of call or an ORDER tag was not reached */
}
