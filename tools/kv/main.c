/* SPDX-License-Identifier: MIT
 *
 * main.c: pheap-kv: a key-value store in one file, built only on the public header.
 *
 * Why results are copied out before they are printed: a transaction that waits for a terminal or a pipe
 * would hold up others that use the heap.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "crew.h"
#include "plan.h"
#include "verify.h"

#ifndef KV_VERSION
#define KV_VERSION "unknown"
#endif

#define EXIT_NO 1    /* no such key; contents differ */
#define EXIT_ERROR 2 /* it could not be done */

static const char usage_text[] =
	"Usage: pheap-kv FILE get KEY\n"
	"       pheap-kv FILE put KEY [VALUE | -]\n"
	"       pheap-kv FILE delete KEY\n"
	"       pheap-kv FILE list [PREFIX]\n"
	"       pheap-kv FILE load INPUT [--format dpkg|lines] [--processes N] [--threads N] [--rounds N]\n"
	"                     [--again] [--progress] [--stall N] [--report FILE]\n"
	"       pheap-kv FILE verify INPUT [--format dpkg|lines] [--so-far]\n"
	"       pheap-kv FILE stats\n"
	"Keeps keys and values in FILE, a pheap heap; a change is whole or not there, whenever it is killed.\n"
	"Any number of these may run at a time; when one is killed, the others go on.\n"
	"\n"
	"  get      writes the value of KEY, without a newline\n"
	"  put      makes FILE if it is missing; without VALUE, or with -, reads it from standard input\n"
	"  delete   removes KEY\n"
	"  list     writes the keys that begin with PREFIX, sorted, one a line\n"
	"  load     puts all records of INPUT; makes FILE if it is missing; when killed, goes on where it was\n"
	"  verify   compares the contents with INPUT, every byte, both ways\n"
	"  stats    shows counters: records, sizes, kills that were met, the slowest recovery\n"
	"\n"
	"      --format dpkg    paragraphs as in /var/lib/dpkg/status, by package name (the default)\n"
	"      --format lines   lines of KEY, a tab, VALUE\n"
	"      --processes N    load with N processes (1 to 16); one that is killed by SIGKILL is replaced\n"
	"      --threads N      load with N threads (1 to 64; default 4), in each process (default 1)\n"
	"      --rounds N       change, delete and put back each record N - 1 times more: for tests\n"
	"      --again          load once more, also if INPUT was loaded or another load is unfinished\n"
	"      --so-far         compare with what an unfinished load must have left by now\n"
	"      --progress       a line for each 20 ms of loading\n"
	"      --stall N        stop for ever inside transaction N of this run: for tests\n"
	"      --report FILE    keep counters in FILE while loading, see report.h: for tests\n"
	"      --durability sync     put, load: of a new FILE: a change that is reported survives a power cut, too\n"
	"                            (the default)\n"
	"      --durability epoch    a power cut may take the last second, and is faster\n"
	"      --durability process  only for when programs are killed; after a power cut FILE is refused\n"
	"      --max-size SIZE  put, load: of a new FILE; K, M, G and T are understood\n"
	"      --help, --version\n"
	"Exit code: 0 done, 1 no such key or contents differ, 2 error.\n";

struct request {
	const char *path, *command;
	char **words; /* after the command */
	int word_count;
	enum kv_format format;
	struct kv_load_options load;
	unsigned process_count;	 /* 0: this one */
	const char *report_path; /* NULL: none */
	bool so_far;
	struct kv_new with;
};

static _Noreturn void usage_exit(const char *why)
{
	fprintf(stderr, "pheap-kv: %s\nTry 'pheap-kv --help'.\n", why);
	exit(EXIT_ERROR);
}

/* ---- what transactions take and give ---- */

struct work {
	struct kv_store store;
	struct kv_bytes key, value;
	char *copy; /* malloced */
	size_t copy_size;
	FILE *out;
	int found;
};

static int lock_record(pheap_tx *tx, const struct work *work)
{
	uint64_t key = kv_map_lock_key(work->store.h, work->store.map, work->key);

	return pheap_lock(tx, &key, 1);
}

static int get_run(pheap_tx *tx, void *arg)
{
	struct work *work = arg;
	uint64_t key = kv_map_lock_key(work->store.h, work->store.map, work->key);
	const struct kv_entry *entry;
	struct kv_bytes value;
	int rc = pheap_lock_shared(tx, &key, 1);

	if (rc)
		return rc;
	entry = kv_map_get(work->store.h, work->store.map, work->key);
	if (!entry)
		return 0;
	value = kv_entry_value(work->store.h, entry);
	free(work->copy); /* of a try that was a deadlock */
	work->copy = malloc(value.n + 1);
	if (!work->copy)
		return -ENOMEM;
	if (value.n)
		memcpy(work->copy, value.p, value.n);
	work->copy_size = value.n;
	work->found = 1;
	return 0;
}

static int put_run(pheap_tx *tx, void *arg)
{
	struct work *work = arg;
	struct kv_stamp by_hand = {0, 0};
	int rc = lock_record(tx, work);

	return rc ? rc : kv_map_put(tx, work->store.map, work->key, work->value, by_hand);
}

static int delete_run(pheap_tx *tx, void *arg)
{
	struct work *work = arg;
	int rc = lock_record(tx, work);

	if (rc)
		return rc;
	rc = kv_map_delete(tx, work->store.map, work->key);
	work->found = rc != -ENOENT;
	return rc == -ENOENT ? 0 : rc;
}

static int list_entry(const struct kv_entry *entry, void *arg)
{
	struct work *work = arg;
	struct kv_bytes key = kv_entry_key(entry);

	if (key.n >= work->key.n && memcmp(key.p, work->key.p, work->key.n) == 0) {
		fwrite(&key.n, sizeof(key.n), 1, work->out);
		fwrite(key.p, 1, key.n, work->out);
		work->found++;
	}
	return 0;
}

static int list_run(pheap_tx *tx, void *arg)
{
	struct work *work = arg;

	(void)tx;
	return kv_map_each(work->store.h, work->store.map, list_entry, work);
}

/* ---- commands ---- */

static int key_take(const struct request *request, struct kv_bytes *ret)
{
	*ret = (struct kv_bytes){request->words[0], strlen(request->words[0])};
	if (ret->n >= 1 && ret->n <= KV_KEY_MAX)
		return 0;
	fprintf(stderr, "pheap-kv: a key has 1 to %u bytes, this one %zu\n", KV_KEY_MAX, ret->n);
	return -EINVAL;
}

/* Runs fn in a transaction; a heap without roots has no records. */
static int run(struct work *work, const struct request *request, enum kv_open how, uint32_t flags,
	       int (*fn)(pheap_tx *tx, void *arg))
{
	int rc = kv_store_open(&work->store, request->path, how, &request->with);

	if (rc)
		return rc;
	if (work->store.map) {
		rc = pheap_run(work->store.h, flags, fn, work);
		if (rc)
			kv_store_fail(&work->store, rc, request->command);
	}
	if (rc) {
		kv_store_abandon(&work->store);
		return rc;
	}
	return kv_store_close(&work->store);
}

static int output_end(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	fprintf(stderr, "pheap-kv: writing to standard output: %s\n", strerror(errno));
	return EXIT_ERROR;
}

static int command_get(const struct request *request)
{
	struct work work = {0};
	int rc = key_take(request, &work.key);

	if (rc == 0)
		rc = run(&work, request, KV_READ, PHEAP_CONCURRENT | PHEAP_READ, get_run);
	if (rc == 0 && work.found)
		fwrite(work.copy, 1, work.copy_size, stdout);
	free(work.copy);
	return rc ? EXIT_ERROR : work.found ? output_end() : EXIT_NO;
}

static int value_take(const struct request *request, struct work *work)
{
	int rc;

	if (request->word_count > 1 && strcmp(request->words[1], "-") != 0) {
		work->value = (struct kv_bytes){request->words[1], strlen(request->words[1])};
		return 0;
	}
	rc = kv_read_all(STDIN_FILENO, KV_VALUE_MAX, &work->copy, &work->copy_size);
	if (rc)
		fprintf(stderr, "pheap-kv: reading the value: %s\n", strerror(-rc));
	work->value = (struct kv_bytes){work->copy, work->copy_size};
	return rc;
}

static int command_put(const struct request *request)
{
	struct work work = {0};
	int rc = key_take(request, &work.key);

	if (rc == 0)
		rc = value_take(request, &work);
	if (rc == 0)
		rc = run(&work, request, KV_MAKE, PHEAP_CONCURRENT, put_run);
	free(work.copy);
	return rc ? EXIT_ERROR : 0;
}

static int command_delete(const struct request *request)
{
	struct work work = {0};
	int rc = key_take(request, &work.key);

	if (rc == 0)
		rc = run(&work, request, KV_WRITE, PHEAP_CONCURRENT, delete_run);
	return rc ? EXIT_ERROR : work.found ? 0 : EXIT_NO;
}

static int key_compare(const void *a, const void *b)
{
	return kv_bytes_compare(*(const struct kv_bytes *)a, *(const struct kv_bytes *)b);
}

static int keys_print(const char *text, size_t count)
{
	struct kv_bytes *keys = calloc(count + 1, sizeof(*keys));

	if (!keys)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		memcpy(&keys[i].n, text, sizeof(keys[i].n));
		keys[i].p = text + sizeof(keys[i].n);
		text = keys[i].p + keys[i].n;
	}
	qsort(keys, count, sizeof(*keys), key_compare);
	for (size_t i = 0; i < count; i++)
		printf("%.*s\n", (int)keys[i].n, keys[i].p);
	free(keys);
	return 0;
}

static int command_list(const struct request *request)
{
	struct work work = {0};
	int rc;

	if (request->word_count)
		work.key = (struct kv_bytes){request->words[0], strlen(request->words[0])};
	else
		work.key = (struct kv_bytes){"", 0};
	work.out = open_memstream(&work.copy, &work.copy_size);
	if (!work.out)
		return EXIT_ERROR;
	rc = run(&work, request, KV_READ, PHEAP_READ, list_run);
	if (fclose(work.out) != 0)
		rc = -ENOMEM;
	if (rc == 0)
		rc = keys_print(work.copy, (size_t)work.found);
	free(work.copy);
	return rc ? EXIT_ERROR : output_end();
}

/* A file of one struct kv_report, which stays mapped to the end of the process. */
static int report_map(const char *path, struct kv_report **ret)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), rc = 0;

	if (fd < 0 || ftruncate(fd, sizeof(**ret)) < 0) {
		rc = -errno;
	} else {
		void *p = mmap(NULL, sizeof(**ret), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		if (p == MAP_FAILED)
			rc = -errno;
		else
			*ret = p;
	}
	if (rc)
		fprintf(stderr, "pheap-kv: %s: %s\n", path, strerror(-rc));
	if (fd >= 0)
		close(fd);
	return rc;
}

static int load_run(const struct request *request, struct kv_store *store, const struct kv_input *input)
{
	struct kv_load_options options = request->load;
	int rc = request->report_path ? report_map(request->report_path, &options.report) : 0;

	if (rc)
		return rc;
	if (options.thread_count == 0)
		options.thread_count = request->process_count ? 1 : 4;
	return request->process_count ? kv_crew_load(store, input, &options, request->process_count)
				      : kv_load(store, input, &options);
}

static int command_load(const struct request *request)
{
	struct kv_store store;
	struct kv_input input;
	int rc = kv_input_read(&input, request->words[0], request->format);

	if (rc)
		return EXIT_ERROR;
	rc = kv_store_open(&store, request->path, KV_MAKE, &request->with);
	if (rc == 0) {
		rc = load_run(request, &store, &input);
		if (rc)
			kv_store_abandon(&store);
		else
			rc = kv_store_close(&store);
	}
	kv_input_free(&input);
	return rc == -ESTALE ? EXIT_NO : rc ? EXIT_ERROR : output_end();
}

static int command_verify(const struct request *request)
{
	struct kv_store store;
	struct kv_input input;
	int rc = kv_input_read(&input, request->words[0], request->format), close_rc;

	if (rc)
		return EXIT_ERROR;
	rc = kv_store_open(&store, request->path, KV_READ, &request->with);
	if (rc == 0) {
		rc = kv_verify(&store, &input, request->so_far);
		close_rc = kv_store_close(&store);
		rc = close_rc ? close_rc : rc;
	}
	kv_input_free(&input);
	return rc < 0 ? EXIT_ERROR : rc ? EXIT_NO : output_end();
}

static void stats_print(const struct kv_store *store, const struct pheap_stats *stats)
{
	static const struct kv_life no_life;
	const struct kv_life *life = store->life ? store->life : &no_life;
	struct kv_shard sum = {0};

	if (store->map)
		kv_map_sum(store->map, &sum);
	printf("records               %llu\n", (unsigned long long)sum.record_count);
	printf("key bytes             %llu\n", (unsigned long long)sum.key_size);
	printf("value bytes           %llu\n", (unsigned long long)sum.value_size);
	printf("buckets               %llu\n", (unsigned long long)sum.bucket_count);
	printf("puts                  %llu\n", (unsigned long long)sum.put_count);
	printf("deletes               %llu\n", (unsigned long long)sum.delete_count);
	printf("loads                 %llu\n", store->load ? (unsigned long long)store->load->number : 0);
	printf("load transactions     %llu\n",
	       store->load ? (unsigned long long)kv_plan_done(store->load) : 0);
	printf("kills met             %llu\n", (unsigned long long)life->kill_count);
	printf("kills in transactions %llu\n", (unsigned long long)life->inside_count);
	printf("undone                %llu\n", (unsigned long long)life->back_count);
	printf("completed             %llu\n", (unsigned long long)life->forward_count);
	printf("slowest recovery      %.3f ms\n", (double)life->recovery_ns_max / 1e6);
	printf("durability            %s\n", kv_durability_text(store->info.durability));
	printf("transactions ended    %llu, the library's own included\n",
	       (unsigned long long)stats->tx_count);
	printf("file bytes            %llu\n", (unsigned long long)stats->file_size);
	printf("allocated bytes       %llu\n", (unsigned long long)stats->allocated_size);
	printf("blocks                %llu\n", (unsigned long long)stats->block_count);
}

static int command_stats(const struct request *request)
{
	struct pheap_stats stats = {0};
	struct kv_store store;
	int rc = kv_store_open(&store, request->path, KV_READ, &request->with), close_rc;

	if (rc)
		return EXIT_ERROR;
	rc = pheap_stats(store.h, &stats, sizeof(stats));
	if (rc)
		kv_store_fail(&store, rc, "stats");
	else
		stats_print(&store, &stats);
	close_rc = kv_store_close(&store);
	return rc || close_rc ? EXIT_ERROR : output_end();
}

/* ---- the command line ---- */

static uint64_t number_take(const char *text, uint64_t min, uint64_t max, const char *why)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || n < min || n > max)
		usage_exit(why);
	return n;
}

static uint64_t size_take(const char *text)
{
	static const char units[] = "KMGT";
	const char *why = "--max-size takes a number, and K, M, G or T";
	size_t n = strlen(text);
	const char *unit = n ? strchr(units, text[n - 1]) : NULL;
	char digits[24];

	if (n == 0 || n >= sizeof(digits))
		usage_exit(why);
	memcpy(digits, text, n + 1);
	if (!unit || !*unit)
		return number_take(digits, 1, UINT64_MAX, why);
	digits[n - 1] = 0;
	return number_take(digits, 1, 1ull << 20, why) << 10 * (unit - units + 1);
}

static uint32_t durability_take(const char *text)
{
	static const uint32_t levels[] = {PHEAP_SYNC, PHEAP_EPOCH, PHEAP_PROCESS};

	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (strcmp(text, kv_durability_text(levels[i])) == 0)
			return levels[i];
	usage_exit("--durability takes sync, epoch or process");
}

static void option_take(struct request *request, int c)
{
	switch (c) {
	case 'f':
		if (strcmp(optarg, "dpkg") != 0 && strcmp(optarg, "lines") != 0)
			usage_exit("--format takes dpkg or lines");
		request->format = optarg[0] == 'd' ? KV_DPKG : KV_LINES;
		break;
	case 't':
		request->load.thread_count =
			(unsigned)number_take(optarg, 1, KV_THREAD_MAX, "--threads takes 1 to 64");
		break;
	case 'P':
		request->process_count =
			(unsigned)number_take(optarg, 1, KV_PROCESS_MAX, "--processes takes 1 to 16");
		break;
	case 'R':
		request->report_path = optarg;
		break;
	case 'r':
		request->load.round_count =
			number_take(optarg, 1, 1u << 30, "--rounds takes a number from 1 on");
		break;
	case 'S':
		request->load.stall_at =
			number_take(optarg, 1, UINT64_MAX, "--stall takes a number from 1 on");
		break;
	case 'a':
		request->load.again = true;
		break;
	case 'p':
		request->load.progress = true;
		break;
	case 's':
		request->so_far = true;
		break;
	case 'd':
		request->with.durability = durability_take(optarg);
		break;
	case 'm':
		request->with.max_size = size_take(optarg);
		break;
	case 'h':
		fputs(usage_text, stdout);
		exit(output_end());
	case 'V':
		puts("pheap-kv " KV_VERSION);
		exit(output_end());
	}
}

/* c: what getopt_long gave. */
static _Noreturn void option_bad(int c, char **argv)
{
	const char *word = argv[optind - 1];
	char why[160];

	if (c == ':')
		snprintf(why, sizeof(why), "option '%s' needs a value", word);
	else if (optopt && !strchr(word, '='))
		snprintf(why, sizeof(why), "unknown option '-%c'", optopt);
	else
		snprintf(why, sizeof(why), "unknown option '%s'", word);
	usage_exit(why);
}

static void request_read(struct request *request, int argc, char **argv)
{
	static const struct option options[] = {
		{"format", required_argument, NULL, 'f'},    {"threads", required_argument, NULL, 't'},
		{"processes", required_argument, NULL, 'P'}, {"report", required_argument, NULL, 'R'},
		{"rounds", required_argument, NULL, 'r'},    {"stall", required_argument, NULL, 'S'},
		{"again", no_argument, NULL, 'a'},	     {"progress", no_argument, NULL, 'p'},
		{"so-far", no_argument, NULL, 's'},	     {"durability", required_argument, NULL, 'd'},
		{"max-size", required_argument, NULL, 'm'},  {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},	     {NULL, 0, NULL, 0},
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		if (c == '?' || c == ':')
			option_bad(c, argv);
		option_take(request, c);
	}
	if (argc - optind < 2)
		usage_exit("give a file and a command");
	if (request->process_count && request->report_path)
		usage_exit("--report is for one process");
	request->path = argv[optind];
	request->command = argv[optind + 1];
	request->words = argv + optind + 2;
	request->word_count = argc - optind - 2;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*fn)(const struct request *request);
		int word_min, word_max;
	} commands[] = {
		{"get", command_get, 1, 1},	  {"put", command_put, 1, 2},
		{"delete", command_delete, 1, 1}, {"list", command_list, 0, 1},
		{"load", command_load, 1, 1},	  {"verify", command_verify, 1, 1},
		{"stats", command_stats, 0, 0},
	};
	struct request request = {.load = {.round_count = 1}};
	char why[160];

	request_read(&request, argc, argv);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(request.command, commands[i].name) != 0)
			continue;
		if (request.word_count < commands[i].word_min || request.word_count > commands[i].word_max)
			usage_exit("wrong number of words after the command");
		return commands[i].fn(&request);
	}
	snprintf(why, sizeof(why), "unknown command '%s' (usage: pheap-kv FILE get KEY)", request.command);
	usage_exit(why);
}
