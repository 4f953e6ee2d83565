/* SPDX-License-Identifier: MIT
 *
 * life.c: open-after-kill: how long an open takes when the last user was killed inside a transaction, by
 * size of the file and number of live blocks.
 *
 * What: for each system and size, one process makes the file, one more per repetition opens it, says how
 * long that took, begins a transaction that changes words and allocates, and kills itself with SIGKILL.
 * So each open has a transaction to undo, and is the first of a fresh process. Systems take turns within
 * each repetition.
 * Why the processes are this program started anew and not forks: a fork inherits what the parent has
 * loaded and touched. The pages of the file that the maker wrote are synced once and stay in the page
 * cache; the large blocks are allocated and never touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

struct size {
	const char *name;
	uint64_t size, block_count;
	bool quick; /* also measured with --quick */
	struct bench_target target;
};

struct times {
	uint64_t open_ns, recovery_ns; /* the second is a part of the first; 0: not known */
};

static const struct bench_system *system_find(const char *name)
{
	for (unsigned i = 0; bench_systems[i]; i++)
		if (!strcmp(bench_systems[i]->name, name))
			return bench_systems[i];
	bench_die("no system %s", name);
}

/* argv: SYSTEM:BLOCKS, path, size; BLOCKS 0: open. Ends by SIGKILL unless something is wrong. */
int bench_life_self(char **argv, int fd)
{
	uint64_t size = strtoull(argv[2], NULL, 10), block_count = 0;
	struct times times = {0, 0};
	char *colon = strchr(argv[0], ':');
	const struct bench_system *system;

	if (colon) {
		block_count = strtoull(colon + 1, NULL, 10);
		*colon = 0;
	}
	system = system_find(argv[0]);
	if (block_count)
		system->life_create(argv[1], size, block_count);
	else
		times.open_ns = system->life_open_ns(argv[1], size, &times.recovery_ns);
	if (write(fd, &times, sizeof(times)) != sizeof(times))
		return 1;
	kill(getpid(), SIGKILL);
	return 1;
}

static struct times life_run(const struct bench_system *system, const char *path, const struct size *size,
			     uint64_t block_count)
{
	char what[64], bytes[32];
	const char *args[4] = {"life", what, path, bytes};
	struct times times = {0, 0};
	int status;

	snprintf(what, sizeof(what), "%s:%" PRIu64, system->name, block_count);
	snprintf(bytes, sizeof(bytes), "%" PRIu64, size->size);
	status = bench_self_run(args, &times, sizeof(times));
	if (status == -1 || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		bench_die("%s: %s a file of %s failed", system->name, block_count ? "making" : "opening",
			  size->name);
	return times;
}

/* What the making has dirtied goes to the disk now and not while the opens are measured. */
static void file_sync(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || fsync(fd))
		bench_die("%s: %s", path, strerror(errno));
	close(fd);
}

static void path_of(char *ret, size_t n, const struct bench_options *opt, const struct bench_system *system)
{
	snprintf(ret, n, "%s/life-%s", opt->folder, system->name);
}

static struct bench_result result_of(const struct bench_system *system, double *samples, unsigned reps)
{
	struct bench_result ret = {.system = system->name, .threads = 1, .instructions = -1};

	bench_summarize(samples, reps, &ret);
	return ret;
}

static void life_size(const struct bench_options *opt, const struct size *size)
{
	static const struct bench_target none;
	static double ns[BENCH_SYSTEM_MAX][BENCH_REP_MAX], recovery_ns[BENCH_SYSTEM_MAX][BENCH_REP_MAX];
	const struct bench_system *systems[BENCH_SYSTEM_MAX];
	struct bench_result results[BENCH_SYSTEM_MAX], recovery;
	unsigned count = 0;
	char path[4096], name[64];

	for (unsigned i = 0; bench_systems[i]; i++) {
		if (!bench_systems[i]->life_create)
			continue;
		path_of(path, sizeof path, opt, bench_systems[i]);
		life_run(bench_systems[i], path, size, size->block_count);
		file_sync(path);
		systems[count++] = bench_systems[i];
	}
	for (unsigned rep = 0; rep < opt->reps; rep++)
		for (unsigned i = 0; i < count; i++) {
			unsigned turn = (i + rep) % count;
			struct times times;

			path_of(path, sizeof path, opt, systems[turn]);
			times = life_run(systems[turn], path, size, 0);
			ns[turn][rep] = (double)times.open_ns;
			recovery_ns[turn][rep] = (double)times.recovery_ns;
		}
	for (unsigned i = 0; i < count; i++) {
		path_of(path, sizeof path, opt, systems[i]);
		unlink(path);
		results[i] = result_of(systems[i], ns[i], opt->reps);
	}
	bench_report(opt, "open-after-kill", size->name, NULL, &size->target, results, count);
	/* what the killed transaction alone takes; only pheap says it */
	recovery = result_of(systems[0], recovery_ns[0], opt->reps);
	snprintf(name, sizeof name, "%s-recovery", size->name);
	bench_report(opt, "open-after-kill", name, NULL, &none, &recovery, 1);
}

void bench_open_after_kill(const struct bench_options *opt)
{
	static const struct size sizes[] = {
		{"16MiB-10k", 16ull << 20, 10000, true, {.value_max = 1e6}},
		{"256MiB-10k", 256ull << 20, 10000, false, {.value_max = 1e6}},
		{"256MiB-1M", 256ull << 20, 1000000, false, {.value_max = 1e6}},
		{"4GiB-10k", 4096ull << 20, 10000, false, {.value_max = 1e6}},
		{"4GiB-1M", 4096ull << 20, 1000000, true, {.value_max = 3e5, .pmemobj_ratio_min = 50}},
	};

	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
		if (sizes[i].quick || !opt->quick)
			life_size(opt, &sizes[i]);
}
