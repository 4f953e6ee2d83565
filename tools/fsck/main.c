/* SPDX-License-Identifier: MIT
 *
 * main.c: options of pheap-fsck, the order of its passes, and its last write.
 *
 * Why it shares no code with the library: it is a second reading of FORMAT.md, so a mistake in the first one
 * shows.
 *
 * Invariants
 *   M1  ORDER(fsck-clean): every repair durable before {clean}. Crash between: the heap says not clean, and
 *       the next run checks it all again. Pairs with image_write_state. The state is not marked clean while
 *       an error is left.
 *   M2  Every write can be the last one of a killed run: what is repaired stays so, what is not is found
 *       again.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fsck.h"

#ifndef FSCK_VERSION
#define FSCK_VERSION "unknown"
#endif

static const char usage_text[] =
	"Usage: pheap-fsck [-n | -p | -y] [-f] [-v] [--json] [--snapshot] [-b N] FILE\n"
	"Checks a pheap heap file, and repairs it.\n"
	"\n"
	"  -n, --no        change nothing, answer no to every question\n"
	"  -p, --preen     make the repairs that are always safe: recover transactions of this boot\n"
	"  -y, --yes       answer yes to every question, also accept a heap of another boot or a copy\n"
	"  -f, --force     check everything, also a heap that was closed cleanly\n"
	"  -v, --verbose   show every problem, and figures\n"
	"      --json      one JSON object on standard output\n"
	"      --snapshot  the file is of a snapshot of its file system, taken while the heap was in use\n"
	"  -b, --copy N    use copy N (0 or 1) of the superblock\n"
	"      --help      show this text\n"
	"      --version   show the version\n"
	"\n"
	"Without -n, -p and -y it asks on the terminal; with no terminal it is as with -n.\n"
	"Exit code: 0 no errors, 1 errors corrected, 4 errors left, 8 could not be checked, 16 usage; 1 and "
	"4 add up.\n";

static _Noreturn void usage_exit(const char *why)
{
	fprintf(stderr, "pheap-fsck: %s\nTry 'pheap-fsck --help'.\n", why);
	exit(EXIT_USAGE);
}

/* c: what getopt_long gave. */
static _Noreturn void option_bad(int c, char **argv)
{
	const char *word = argv[optind - 1];
	char why[160];

	if (c == ':')
		snprintf(why, sizeof why, "option '%s' needs a value", word);
	else if (optopt && !strchr(word, '='))
		snprintf(why, sizeof why, "unknown option '-%c'", optopt);
	else
		snprintf(why, sizeof why, "unknown option '%s'", word);
	usage_exit(why);
}

static void mode_set(struct fsck *f, enum fsck_mode mode)
{
	if (f->mode != MODE_ASK && f->mode != mode)
		usage_exit("only one of -n, -p and -y can be given");
	f->mode = mode;
}

static void options_read(struct fsck *f, int argc, char **argv)
{
	static const struct option options[] = {
		{"no", no_argument, NULL, 'n'},
		{"preen", no_argument, NULL, 'p'},
		{"yes", no_argument, NULL, 'y'},
		{"force", no_argument, NULL, 'f'},
		{"verbose", no_argument, NULL, 'v'},
		{"json", no_argument, NULL, 'j'},
		{"copy", required_argument, NULL, 'b'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{"snapshot", no_argument, NULL, 's'},
		{NULL, 0, NULL, 0},
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":npyfvb:", options, NULL)) != -1)
		switch (c) {
		case 'n':
			mode_set(f, MODE_NO);
			break;
		case 'p':
			mode_set(f, MODE_PREEN);
			break;
		case 'y':
			mode_set(f, MODE_YES);
			break;
		case 'f':
			f->force = true;
			break;
		case 'v':
			f->verbose = true;
			break;
		case 'j':
			f->json = true;
			break;
		case 'b':
			if (strcmp(optarg, "0") && strcmp(optarg, "1"))
				usage_exit("-b takes 0 or 1");
			f->copy = optarg[0] - '0';
			break;
		case 's':
			f->snapshot = true;
			break;
		case 'h':
			fputs(usage_text, stdout);
			exit(0);
		case 'V':
			puts("pheap-fsck " FSCK_VERSION);
			exit(0);
		default:
			option_bad(c, argv);
		}
	if (argc - optind != 1)
		usage_exit(optind == argc ? "no file given" : "give one file at a time");
	f->path = argv[optind];
}

static void mode_settle(struct fsck *f)
{
	if (f->mode != MODE_ASK)
		return;
	if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && !f->json)
		return;
	fprintf(stderr, "pheap-fsck: no terminal to ask on: nothing is changed, as with -n. Use -p or -y to "
			"repair.\n");
	f->mode = MODE_NO;
}

static int finish(struct fsck *f)
{
	int rc;

	if (!f->overlaid && !f->error_left && (!f->state.clean || f->state_changed)) {
		image_sync(f);
		image_write_state(f, true); /* M1 */
	}
	rc = fsck_result(f);
	problem_summary(f, rc);
	image_close(f);
	if (fflush(stdout) == EOF)
		return rc | EXIT_OPERATION;
	return rc;
}

int main(int argc, char **argv)
{
	static void (*const passes[])(struct fsck *) = {pass_directory, pass_bitmaps, pass_names,
							pass_coordination};
	struct fsck f = {.mode = MODE_ASK,
			 .copy = -1,
			 .state_copy = -1,
			 .checkpoint_copy = -1,
			 .progress = isatty(STDERR_FILENO)};

	options_read(&f, argc, argv);
	mode_settle(&f);
	image_open(&f);
	lock_take(&f);
	pass_begin(&f, PASS_SUPER);
	if (!pass_super(&f))
		return finish(&f);
	if (f.mode == MODE_PREEN && f.error_left) {
		note(&f, "-p accepts no such heap; look with -n, then decide on -y");
		return finish(&f);
	}
	pass_begin(&f, PASS_JOURNAL);
	pass_journal(&f);
	if (f.was_clean && !f.force && !f.error_left && !f.error_fixed && !f.attached)
		return finish(&f);
	for (int i = 0; i < 4; i++) {
		pass_begin(&f, (enum fsck_pass)(PASS_DIRECTORY + i));
		passes[i](&f);
		pass_end(&f);
	}
	return finish(&f);
}
