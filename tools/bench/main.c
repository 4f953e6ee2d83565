/* SPDX-License-Identifier: MIT
 *
 * main.c: pheap-bench [OPTION]... [name...]
 *
 * What: pheap beside its peers and bounds, interleaved in one run, on one pinned thread.
 * Why it starts itself again: libpmem reads its environment before main; with these two variables it
 * neither flushes nor asks whether the file is persistent memory, which is the promise that pheap gives
 * at level PROCESS. For level SYNC see sync.c.
 */
#include <errno.h>
#include <inttypes.h>
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
	&bench_floor,	 &bench_limit,
#ifdef BENCH_BOOST
	&bench_boost,
#endif
	&bench_mimalloc, &bench_malloc, NULL,
};

static const struct {
	const char *name;
	void (*run)(const struct bench_options *opt);
	const char *what;
} benches[] = {
	{"modify-words", bench_modify_words, "a transaction that changes 1, 4, 16 or 64 words of 64 MiB"},
	{"record-64", bench_record_64, "a transaction that changes one record of 64 bytes"},
	{"records-10x64", bench_records_10x64, "a transaction that changes ten records of 64 bytes"},
	{"block-4k", bench_block_4k, "a transaction that changes one block of 4 KiB"},
	{"defer-words", bench_defer_words,
	 "1 to 64 words stored at commit; libpmemobj has no such call: it changes them in place"},
	{"many-ranges", bench_many_ranges, "one range of 1 k, 10 k, 100 k or 1 M in one transaction"},
	{"push-pop", bench_push_pop, "a block of 64 bytes onto a list and off again, two transactions"},
	{"open-after-kill", bench_open_after_kill,
	 "open after SIGKILL in a transaction; 16 MiB to 4 GiB, 10 k and 1 M blocks"},
	{"alloc-waste", bench_alloc_waste, "bytes lost to rounding, sizes 16 to 1024"},
	{"memory", bench_memory, "private memory of a heap and of a thread"},
	{"space", bench_space, "live bytes of a full file; bytes of a file after 100 rounds of churn"},
	{"fsck", bench_fsck, "bytes of the file that pheap-fsck checks in a second; a full heap of 1 GiB"},
	{"classic", bench_classic, "10 M records, 1000 locks, 4 processes move amounts"},
	{"classic-kill", bench_classic_kill, "the same, one process killed and replaced every 100 ms"},
	{"death-latency", bench_death_latency, "from SIGKILL of a lock's owner to the waiter that holds it"},
	{"lock-unlock", bench_lock_unlock, "one lock that nobody else wants"},
	{"hash-insert", bench_hash_insert, "a key into a hash map, until it has 1 M; a transaction each"},
	{"hash-lookup", bench_hash_lookup, "each of them looked up, in a transaction that keeps changes off"},
	{"hash-remove", bench_hash_remove, "each of them removed, a transaction each"},
	{"attach", bench_attach, "open and close beside 1 and 255 other processes"},
	{"sync-commit", bench_sync_commit,
	 "an update that is durable, 1 to 64 threads, beside the bare flush"},
	{"epoch", bench_epoch, "PHEAP_EPOCH beside PHEAP_PROCESS; curve against changed pages"},
	{"power-recovery", bench_power_recovery, "the open after the machine went down; 4 GiB, full log"},
	{"churn-mixed", bench_churn_mixed, "blocks of 16 to 1024 bytes freed and allocated; 1, 2, 4 threads"},
	{"producer-consumer", bench_producer_consumer,
	 "allocated by one thread or process, freed by another"},
	{"larson", bench_larson, "the churn, on sets of blocks that two threads pass on to each other"},
	{"cache-scratch", bench_cache_scratch, "small blocks of two threads: do they share cache lines?"},
	{"huge", bench_huge, "blocks of 1 to 64 MiB"},
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

void bench_param_fail(const char *bench, const char *param)
{
	bench_die("%s: has no param %s", bench, param);
}

static void names_print(FILE *out)
{
	for (size_t i = 0; i < BENCH_COUNT; i++)
		fprintf(out, "  %-16s %s\n", benches[i].name, benches[i].what);
}

static void usage_print(FILE *out)
{
	fputs("usage: pheap-bench [--json] [--reps N] [--quick] [--records N] [--memory KIND] [--system NAME]\n"
	      "                   [--seed N] [--param PARAM] [--list] [name...]\n"
	      "--records: of classic, classic-kill and sync-commit; --memory disk, tmpfs or huge: of classic,\n"
	      "classic-kill, death-latency and those of allocation (churn-mixed and below); --system: of classic,\n"
	      "those of allocation, and of sync-commit, which takes several with commas; --param: this one alone,\n"
	      "of sync-commit, epoch, those of allocation and (MiB of log) power-recovery; --seed: of the kills\n"
	      "and power-recovery.\n"
	      "Files go to TMPDIR (or /tmp) and to /dev/shm and are removed at the end; open-after-kill and\n"
	      "power-recovery need 9 GiB, classic 4 GiB, epoch 3 GiB. What is durable is to be measured on a disk:\n"
	      "set TMPDIR where /tmp is none.\n",
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

static uint64_t number_parse(const char *option, const char *text, uint64_t min, uint64_t max)
{
	char *end = NULL;
	uint64_t n = text ? strtoull(text, &end, 10) : 0;

	if (!text || !*text || *end || n < min || n > max)
		bench_die("%s takes a number from %" PRIu64 " to %" PRIu64, option, min, max);
	return n;
}

static int memory_parse(const char *text)
{
	for (int i = 0; text && i < BENCH_MEMORY_COUNT; i++)
		if (!strcmp(text, bench_memory_names[i]))
			return i;
	bench_die("--memory takes disk, tmpfs or huge");
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
		} else if (!strcmp(*argv, "--memory")) {
			opt->memory = memory_parse(argv[1]);
			argv++;
		} else if (!strcmp(*argv, "--reps")) {
			opt->reps = (unsigned)number_parse(*argv, argv[1], 1, BENCH_REP_MAX);
			argv++;
		} else if (!strcmp(*argv, "--system") && argv[1]) {
			opt->system = *++argv;
		} else if (!strcmp(*argv, "--param") && argv[1]) {
			opt->param = *++argv;
		} else if (!strcmp(*argv, "--seed")) {
			opt->seed = number_parse(*argv, argv[1], 1, UINT64_MAX);
			argv++;
		} else if (!strcmp(*argv, "--records")) {
			opt->record_count = number_parse(*argv, argv[1], 1000, UINT32_MAX);
			argv++;
		} else if (!strcmp(*argv, "--list")) {
			for (size_t i = 0; i < BENCH_COUNT; i++)
				printf("%s\t%s\n", benches[i].name, benches[i].what);
			exit(0);
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
	struct bench_options opt = {.memory = -1};
	bool selected[BENCH_COUNT] = {false};

	if (argc == 8 && !strcmp(argv[1], "--self"))
		return bench_self_main(argv + 2);
	opt.seed = bench_clock_ns(CLOCK_REALTIME);
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
