/* SPDX-License-Identifier: MIT
 *
 * main.c: pheap-bench [--json] [--reps N] [--quick] [name...]
 *
 * What: pheap beside its peers and bounds, interleaved in one run, on one pinned thread.
 * Why it starts itself again: libpmem reads its environment before main; with these two variables it
 * neither flushes nor asks whether the file is persistent memory, which is the promise that pheap gives
 * at level PROCESS.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

const struct bench_system *const bench_systems[] = {
	&bench_pheap,
#ifdef BENCH_PMEMOBJ
	&bench_pmemobj,
#endif
#ifdef BENCH_LMDB
	&bench_lmdb,
#endif
	&bench_floor,	&bench_limit, NULL,
};

static const struct {
	const char *name;
	void (*run)(const struct bench_options *opt);
	const char *what;
} benches[] = {
	{"modify-words", bench_modify_words, "a transaction that changes 1, 4, 16 or 64 words of 64 MiB"},
	{"record-64", bench_record_64, "a transaction that changes 1 or 10 records of 64 bytes"},
	{"push-pop", bench_push_pop, "a block of 64 bytes onto a list and off again, two transactions"},
	{"open-after-kill", bench_open_after_kill, "open after SIGKILL in a transaction; 256 MiB, 4 GiB"},
	{"alloc-waste", bench_alloc_waste, "bytes lost to rounding, sizes 16 to 1024"},
	{"memory", bench_memory, "private memory of a heap and of a thread"},
};
#define BENCH_COUNT (sizeof benches / sizeof *benches)

void bench_die(const char *format, ...)
{
	va_list args;

	fputs("pheap-bench: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1); /* the guard of scratch.c sees it */
}

static void names_print(FILE *out)
{
	for (size_t i = 0; i < BENCH_COUNT; i++)
		fprintf(out, "  %-16s %s\n", benches[i].name, benches[i].what);
}

static void usage_print(FILE *out)
{
	fputs("usage: pheap-bench [--json] [--reps N] [--quick] [name...]\n"
	      "Files go to TMPDIR (or /tmp) and are removed at the end; open-after-kill needs 9 GiB.\n",
	      out);
	names_print(out);
}

static void environment_set(char **argv)
{
#ifdef BENCH_PMEMOBJ
	static const char *const variables[] = {"PMEM_IS_PMEM_FORCE", "PMEM_NO_FLUSH"};
	bool set = true;

	for (unsigned i = 0; i < 2; i++) {
		const char *value = getenv(variables[i]);

		set = set && value && !strcmp(value, "1");
		setenv(variables[i], "1", 1);
	}
	if (!set) {
		execv("/proc/self/exe", argv);
		bench_die("/proc/self/exe: %s", strerror(errno));
	}
#else
	(void)argv;
#endif
}

static unsigned reps_parse(const char *text)
{
	char *end = NULL;
	unsigned long n = text ? strtoul(text, &end, 10) : 0;

	if (!text || *end || n < 1 || n > BENCH_REP_MAX)
		bench_die("--reps takes a number from 1 to %u", BENCH_REP_MAX);
	return (unsigned)n;
}

static void name_select(const char *name, bool *selected)
{
	for (size_t i = 0; i < BENCH_COUNT; i++) {
		if (strcmp(benches[i].name, name))
			continue;
		selected[i] = true;
		return;
	}
	fprintf(stderr, "pheap-bench: no bench is called %s; there are\n", name);
	names_print(stderr);
	exit(2);
}

static void arguments_parse(char **argv, struct bench_options *opt, bool *selected)
{
	bool any = false;

	for (; *argv; argv++) {
		if (!strcmp(*argv, "--json")) {
			opt->json = true;
		} else if (!strcmp(*argv, "--quick")) {
			opt->quick = true;
		} else if (!strcmp(*argv, "--reps")) {
			opt->reps = reps_parse(argv[1]);
			argv++;
		} else if (!strcmp(*argv, "--help")) {
			usage_print(stdout);
			exit(0);
		} else if (**argv == '-') {
			fprintf(stderr, "pheap-bench: unknown option %s\n", *argv);
			usage_print(stderr);
			exit(2);
		} else {
			name_select(*argv, selected);
			any = true;
		}
	}
	if (!opt->reps)
		opt->reps = opt->quick ? 5 : 15;
	for (size_t i = 0; i < BENCH_COUNT && !any; i++)
		selected[i] = true;
}

int main(int argc, char **argv)
{
	struct bench_options opt = {0};
	bool selected[BENCH_COUNT] = {false};

	if (argc == 8 && !strcmp(argv[1], "--self"))
		return bench_self_main(argv + 2);
	arguments_parse(argc ? argv + 1 : argv, &opt, selected);
	environment_set(argv);
	opt.folder = bench_scratch_make();
	bench_pin();
	if (!bench_counter_open() && !opt.json)
		puts("no instruction counter here: instructions are counted by single steps");
	for (size_t i = 0; i < BENCH_COUNT; i++)
		if (selected[i])
			benches[i].run(&opt);
	bench_scratch_remove();
	return 0;
}
