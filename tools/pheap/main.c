/* SPDX-License-Identifier: MIT
 *
 * main.c: the pheap command: chooses the subcommand; `create` and `trim` are here, because each is one call of the
 * library. The others read the file themselves, and only recover.c opens heaps with the library, too.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "heap_file.h"
#include "pheap.h"

#ifndef PHEAP_COMMAND_VERSION
#define PHEAP_COMMAND_VERSION "unknown"
#endif

static const char usage_text[] =
	"Usage: pheap create [--size N] [--max N] [--durability LEVEL] [--journal N] [--epoch MS]\n"
	"                    [--layout NAME] [--lanes N] [--members N] FILE\n"
	"       pheap info [--members] [--resources] [--json] FILE\n"
	"       pheap dump FILE [WHAT]\n"
	"       pheap trim FILE\n"
	"       pheap top [--interval SECONDS] [--count N | --once] FILE\n"
	"       pheap run [--heap FILE]... [--grace SECONDS] [--restart[=N]] [--backoff SECONDS]\n"
	"                 [--] COMMAND [ARGUMENT]...\n"
	"       pheap watch [--count N | --once] FILE...\n"
	"\n"
	"  create  make a new, empty heap in FILE, which must not exist\n"
	"  info    sizes, fill, fragmentation, types and attached processes; changes nothing\n"
	"  dump    one structure of the file, by name or by offset; without WHAT: what there is\n"
	"  trim    give the space of free chunks back to the file system; the heap may be in use\n"
	"  top     live: members, transactions per second, who holds and who waits for which lock\n"
	"  run     start a command and recover its heaps when one of its processes dies\n"
	"  watch   wait for members that die and recover the heaps at once, one line each\n"
	"\n"
	"'pheap COMMAND --help' says more of each. Nobody needs run or watch: heaps recover without them.\n"
	"Exit code: 0 done, 1 failed, 2 usage; of run, the command's. To check a heap, see pheap-fsck(8).\n";

static const char create_usage[] =
	"Usage: pheap create [--size N] [--max N] [--durability LEVEL] [--journal N] [--epoch MS]\n"
	"                    [--layout NAME] [--lanes N] [--members N] FILE\n"
	"  --size N            bytes to begin with (K, M, G, T: powers of 1024)\n"
	"  --max N             bytes it may grow to; cannot be changed later\n"
	"  --durability LEVEL  sync: what was committed survives a power cut (the default);\n"
	"                      epoch: but for the last moments; process: it survives the end of processes\n"
	"  --journal N         bytes of the log\n"
	"  --epoch MS          with epoch: what a power cut may lose, in milliseconds\n"
	"  --layout NAME       name of the data's layout, at most 63 bytes\n"
	"  --lanes N           lanes; a thread takes one, a process one more once it allocates\n"
	"  --members N         processes that can be attached at once\n";

static const char trim_usage[] =
	"Usage: pheap trim FILE\n"
	"  Gives the space of free chunks in rows of 64 KiB and more back to the file system. The file keeps its\n"
	"  length and becomes sparse (see du, not ls); programs may be at work in it. What is given back is had\n"
	"  again when it is needed, and then a full disk is an error.\n";

static uint64_t size_option(const char *name, const char *text)
{
	uint64_t n;

	if (!size_parse(text, &n) || !n || n > PHD_SIZE_MAX)
		usage_fail("%s %s: give a number from 1 to %llu, with K, M, G or T behind it if you like",
			   name, text, (ull)PHD_SIZE_MAX);
	return n;
}

static uint32_t count_option(const char *name, const char *text, uint32_t max)
{
	uint64_t n;

	if (!size_parse(text, &n) || !n || n > max)
		usage_fail("%s %s: give a number from 1 to %u", name, text, max);
	return (uint32_t)n;
}

static uint32_t durability_option(const char *text)
{
	static const struct {
		const char *name;
		uint32_t level;
	} levels[] = {{"process", PHEAP_PROCESS}, {"epoch", PHEAP_EPOCH}, {"sync", PHEAP_SYNC}};

	for (unsigned i = 0; i < sizeof levels / sizeof levels[0]; i++)
		if (!strcmp(text, levels[i].name))
			return levels[i].level;
	usage_fail("--durability %s: give sync, epoch or process", text);
}

static void created_print(const char *path, const struct pheap_info *info)
{
	uint64_t disk_size = info->file_size;
	char disk[32], max[32], apparent[32];
	struct stat st;

	if (stat(path, &st) == 0)
		disk_size = (uint64_t)st.st_blocks * 512;
	printf("%s: created, %s on disk, may grow to %s", path, size_text(disk_size, disk, sizeof disk),
	       size_text(info->max_size, max, sizeof max));
	if (info->file_size / 2 > disk_size)
		printf(" (apparent size %s: a sparse directory of about 1/73 of the maximum)",
		       size_text(info->file_size, apparent, sizeof apparent));
	putchar('\n');
}

int command_create(int argc, char **argv)
{
	static const struct option options[] = {
		{"size", required_argument, NULL, 's'},
		{"max", required_argument, NULL, 'm'},
		{"durability", required_argument, NULL, 'd'},
		{"journal", required_argument, NULL, 'j'},
		{"epoch", required_argument, NULL, 'e'},
		{"layout", required_argument, NULL, 'l'},
		{"lanes", required_argument, NULL, 'n'},
		{"members", required_argument, NULL, 'p'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	struct pheap_info info;
	pheap *h;
	int c, rc;

	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1)
		switch (c) {
		case 's':
			opt.initial_size = size_option("--size", optarg);
			break;
		case 'm':
			opt.max_size = size_option("--max", optarg);
			break;
		case 'd':
			opt.durability = durability_option(optarg);
			break;
		case 'j':
			opt.journal_size = size_option("--journal", optarg);
			break;
		case 'e':
			opt.epoch_ms = count_option("--epoch", optarg, UINT32_MAX);
			break;
		case 'l':
			opt.layout = optarg;
			break;
		case 'n':
			opt.lane_count = count_option("--lanes", optarg, PHD_LANE_MAX);
			break;
		case 'p':
			opt.member_count = count_option("--members", optarg, PHD_MEMBER_MAX);
			break;
		case 'h':
			fputs(create_usage, stdout);
			return 0;
		default:
			option_fail("create", c, argv);
		}
	if (argc - optind != 1)
		usage_fail("create: give one file");
	rc = pheap_open(argv[optind], PHEAP_CREATE | PHEAP_EXCL, &opt, &h);
	if (rc)
		fail("%s", *pheap_error_detail(NULL) ? pheap_error_detail(NULL) : pheap_strerror(rc));
	rc = pheap_info(h, &info, sizeof info);
	if (!rc)
		created_print(argv[optind], &info);
	rc = pheap_close(h);
	if (rc)
		fail("%s: created, but closing it failed: %s", argv[optind], pheap_strerror(rc));
	return 0;
}

static uint64_t disk_size(const char *path)
{
	struct stat st;

	return stat(path, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

int command_trim(int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	char given[32], now[32];
	uint64_t before, after;
	int c, rc, close_rc;
	pheap *h;

	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (c != 'h')
			option_fail("trim", c, argv);
		fputs(trim_usage, stdout);
		return 0;
	}
	if (argc - optind != 1)
		usage_fail("trim: give one file");
	before = disk_size(argv[optind]);
	rc = pheap_open(argv[optind], 0, NULL, &h);
	if (rc)
		fail("%s", *pheap_error_detail(NULL) ? pheap_error_detail(NULL) : pheap_strerror(rc));
	rc = pheap_trim(h);
	if (rc)
		fail("%s: %s", argv[optind],
		     *pheap_error_detail(h) ? pheap_error_detail(h) : pheap_strerror(rc));
	after = disk_size(argv[optind]);
	printf("%s: %s given back, %s on disk\n", argv[optind],
	       size_text(before > after ? before - after : 0, given, sizeof given),
	       size_text(after, now, sizeof now));
	close_rc = pheap_close(h);
	if (close_rc)
		fail("%s: trimmed, but closing it failed: %s", argv[optind], pheap_strerror(close_rc));
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {{"create", command_create}, {"info", command_info}, {"dump", command_dump},
			{"trim", command_trim},	    {"top", command_top},   {"run", command_run},
			{"watch", command_watch}};
	int rc;

	opterr = 0; /* option_fail tells it */
	if (argc < 2)
		usage_fail("no command given");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		fputs(usage_text, stdout);
		return 0;
	}
	if (!strcmp(argv[1], "--version")) {
		uint32_t v = pheap_version();

		printf("pheap " PHEAP_COMMAND_VERSION ", library %u.%u\n", v >> 16, v & 0xffff);
		return 0;
	}
	for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		rc = commands[i].run(argc - 1, argv + 1);
		return fflush(stdout) == EOF && !rc ? EXIT_FAILED : rc;
	}
	usage_fail("unknown command '%s'", argv[1]);
}
