/* SPDX-License-Identifier: MIT
 *
 * hostile.c: hostile PHEAP MEMBER [COUNT [SEED [FIRST]]]: damaged heap files, and what the pheap command
 * makes of them: it ends by itself, with an exit code, in a time and an amount of memory that the file's size
 * on the disk limits.
 *
 * What: a small heap that was left by killed members, with holds, permits, locks and open transactions.
 * Words of it are changed, checksums made right again, files cut short; then one way of looking at it is
 * run. Some images are made for a purpose: rings, and a file of many terabytes without anything in it.
 * Why in place: a heap that was in use is believed only under its own inode.
 *
 * Invariants
 *   H1  Image number N of a seed is the same in each run; a failure prints both.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "format.h"

#define COUNT_DEFAULT 500u
#define CPU_S 20u
#define MEMORY_MAX (512ull << 20)
#define HANG_S 120u
#define MUTATIONS_MAX 5u
#define LEVEL_COUNT 125u /* images with a WAL, then as many without, and so on */

typedef unsigned long long ull;

static struct {
	char dir[PATH_MAX], heap[PATH_MAX + 8];
	const char *pheap, *member;
	unsigned char *base, *image;
	size_t size;
	uint64_t seed, random;
	unsigned passed, failed;
	pid_t keeper;
	int keeper_fd;
} test;

static void __attribute__((noreturn)) broken(const char *what)
{
	fprintf(stderr, "hostile: %s: %s\n", what, strerror(errno));
	exit(99);
}

/* splitmix64 */
static uint64_t random_below(uint64_t n)
{
	uint64_t z = test.random += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (z ^ z >> 31) % n;
}

/* ---- running ---- */

static void limits_set(void)
{
	struct rlimit cpu = {CPU_S, CPU_S}, core = {0, 0};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(HANG_S);
	setrlimit(RLIMIT_CPU, &cpu);
	setrlimit(RLIMIT_CORE, &core);
#if !defined(__SANITIZE_ADDRESS__)
	struct rlimit memory = {MEMORY_MAX, MEMORY_MAX};

	setrlimit(RLIMIT_AS, &memory);
#endif
}

static pid_t start(char *const *argv, int out, bool limited)
{
	pid_t pid = fork();
	int null;

	if (pid < 0)
		broken("fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	null = open("/dev/null", O_RDWR);
	dup2(null, STDIN_FILENO);
	dup2(out < 0 ? null : out, STDOUT_FILENO);
	if (out < 0)
		dup2(null, STDERR_FILENO);
	if (limited)
		limits_set();
	execv(argv[0], argv);
	_exit(98);
}

static int finish(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			broken("waitpid");
	return status;
}

/* One way to look. `run` may make something of the heap, so its exit code is that of the command. */
static void look(const char *what, ull number)
{
	static const char *const ways[][8] = {
		{"info", NULL},
		{"info", "--json", NULL},
		{"info", "--members", "--resources", NULL},
		{"info", "--members", "--resources", "--json", NULL},
		{"top", "--interval", "0.01", "--count", "2", NULL},
		{"dump", "@", "head", NULL},
		{"dump", "@", "root", NULL},
		{"dump", "@", "chunk", "2", NULL},
		{"dump", "@", "wal", NULL},
		{"run", "--heap", "@", "--", "/bin/true", NULL},
	};
	const char *const *way = ways[number % (sizeof ways / sizeof ways[0])];
	const char *argv[12] = {test.pheap};
	bool named = false, good;
	int n = 1, status;

	for (int i = 0; way[i]; i++) {
		argv[n++] = way[i][0] == '@' ? test.heap : way[i];
		named |= way[i][0] == '@';
	}
	if (!named)
		argv[n++] = test.heap;
	status = finish(start((char *const *)(uintptr_t)argv, -1, strcmp(way[0], "run") != 0));
	good = WIFEXITED(status) && WEXITSTATUS(status) <= (strcmp(way[0], "run") ? 1 : 0);
	test.passed += good;
	test.failed += !good;
	if (good)
		return;
	printf("FAILED: %s %llu of seed %llu: pheap %s %s: %s %d\n", what, number, (ull)test.seed, way[0],
	       way[1], WIFEXITED(status) ? "exit code" : "signal",
	       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

/* ---- images ---- */

static const struct phd_super *super(void)
{
	return (const struct phd_super *)(const void *)test.base;
}

static void image_write(size_t size)
{
	int fd = open(test.heap, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, test.image, size, 0) != (ssize_t)size)
		broken(test.heap);
	close(fd);
}

static void seal(unsigned char *bytes)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		struct phd_super *s = (struct phd_super *)(void *)(bytes + PHD_SUPER_OFF(copy));
		struct phd_state *state = (struct phd_state *)(void *)(bytes + PHD_STATE_OFF(copy));

		s->crc = format_crc32c(s, offsetof(struct phd_super, crc));
		state->crc = format_crc32c(state, offsetof(struct phd_state, crc));
		if (format_has_wal(super())) {
			struct phd_checkpoint *c =
				(struct phd_checkpoint *)(void *)(bytes + PHD_CHECKPOINT_OFF(copy));

			c->crc = format_crc32c(c, offsetof(struct phd_checkpoint, crc));
		}
	}
}

/* An image that says it is ephemeral goes with its dead users. The base then becomes that of a new file. */
static void file_need(void)
{
	int fd = open(test.heap, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	struct statx info;

	if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &info))
		broken(test.heap);
	close(fd);
	for (unsigned copy = 0; copy < 2; copy++) {
		struct phd_state *s = (struct phd_state *)(void *)(test.base + PHD_STATE_OFF(copy));

		s->inode = info.stx_ino;
		s->birth_ns = 0; /* of a file system that has none */
	}
	seal(test.base);
}

/* Where a mutation goes: small structures as often as large ones. */
static uint64_t place_choose(void)
{
	const struct phd_super *s = super();
	const struct {
		uint64_t off, size;
	} places[] = {
		{0, PHD_SECTOR_SIZE},
		{PHD_STATE_OFF(0), PHD_SECTOR_SIZE},
		{s->coord_off, sizeof(struct phd_coord)},
		{s->member_off, 4 * sizeof(struct phd_member)},
		{s->stripe_off, s->stripe_count * sizeof(struct phd_stripe)},
		{s->lane_off, s->lane_count * sizeof(struct phd_lane)},
		{s->head_off, sizeof(struct phd_head)},
		{s->head_off + offsetof(struct phd_head, holds), sizeof(uint64_t) * PHD_HOLD_BUCKETS},
		{s->desc_off, 64 * sizeof(uint64_t)},
		{s->bits_off, 64 * sizeof(struct phd_bits)},
		{s->data_off, 64 * PHD_CHUNK_SIZE},
		/* with a WAL only */
		{PHD_CHECKPOINT_OFF(0), PHD_SECTOR_SIZE},
		{s->wal_off, s->wal_size},
	};
	size_t place_count = sizeof places / sizeof places[0] - (format_has_wal(s) ? 0 : 2);
	unsigned i = (unsigned)random_below(place_count);
	uint64_t off = places[i].off + 8 * random_below(places[i].size / 8);

	return off + 8 <= test.size ? off : 0;
}

static uint64_t value_choose(uint64_t old)
{
	const struct phd_super *s = super();
	const uint64_t values[] = {
		0,
		1,
		UINT64_MAX,
		1ull << 63,
		1ull << 32,
		old + 1,
		old - 1,
		old ^ 1ull << random_below(64),
		old << 1,
		s->data_off + 16 * random_below(64 * PHD_CHUNK_SIZE / 16),
		PHD_DESC_MAKE_EXTENT(PHD_TYPE_PERMITS, random_below(1ull << 34)),
		PHD_DESC_MAKE_RUN(PHD_TYPE_HOLD, 32, 1),
		PHD_DESC_MAKE_RUN(PHD_TYPE_PERMITS, 64, 16),
		0xfffffffcu + random_below(4),
		random_below(UINT64_MAX),
	};

	return values[random_below(sizeof values / sizeof values[0])];
}

static void image_mutate(ull number)
{
	unsigned count = 1 + (unsigned)random_below(MUTATIONS_MAX);
	size_t size = test.size;

	file_need();
	memcpy(test.image, test.base, test.size);
	for (unsigned i = 0; i < count; i++) {
		uint64_t off = place_choose(), old, value;

		memcpy(&old, test.image + off, sizeof old);
		value = value_choose(old);
		memcpy(test.image + off, &value, random_below(3) ? 8 : 4);
	}
	if (random_below(20))
		seal(test.image);
	if (!random_below(8))
		size = 1 + random_below(test.size);
	image_write(size);
	look("image", number);
}

/* ---- images for a purpose ---- */

static struct phd_head *head(void)
{
	return (struct phd_head *)(void *)(test.image + super()->head_off);
}

/* Every list that has an entry ends in itself. */
static void rings_make(void)
{
	struct phd_head *h = head();

	file_need();
	memcpy(test.image, test.base, test.size);
	for (unsigned i = 0; i < PHD_ROOT_BUCKETS; i++)
		if (h->roots[i])
			memcpy(test.image + h->roots[i], &h->roots[i], 8);
	for (unsigned i = 0; i < PHD_HOLD_BUCKETS; i++)
		if (h->holds[i])
			memcpy(test.image + h->holds[i], &h->holds[i], 8);
	if (h->types_off)
		memcpy(test.image + h->types_off, &h->types_off, 8);
	image_write(test.size);
	for (ull way = 0; way < 10; way++)
		look("rings", way);
}

/* As large as a file can be, and nothing in it. False: this file system has no such files. */
static bool vast_make(void)
{
	char *const create[] = {(char *)(uintptr_t)test.pheap,
				(char[]){"create"},
				(char[]){"--max"},
				(char[]){"8T"},
				test.heap,
				NULL};
	struct phd_super s;
	struct phd_head h;
	int fd;

	if ((unlink(test.heap) && errno != ENOENT) || finish(start(create, -1, false)))
		return false;
	fd = open(test.heap, O_RDWR | O_CLOEXEC);
	if (fd < 0 || pread(fd, &s, sizeof s, 0) != sizeof s ||
	    pread(fd, &h, sizeof h, (off_t)s.head_off) != sizeof h)
		broken(test.heap);
	if (ftruncate(fd, (off_t)(s.data_off + s.chunk_max * PHD_CHUNK_SIZE))) {
		close(fd);
		return false;
	}
	h.chunk_count = s.chunk_max;
	if (pwrite(fd, &h, sizeof h, (off_t)s.head_off) != sizeof h)
		broken(test.heap);
	close(fd);
	return true;
}

/* ---- start ---- */

/* The folder goes when the last holder of the pipe's other end has ended: this process and its children. */
static void folder_make(void)
{
	const char *base = getenv("TMPDIR");
	int ends[2];
	char byte;

	snprintf(test.dir, sizeof test.dir, "%s/pheap-hostile-XXXXXX", base ? base : "/tmp");
	if (!mkdtemp(test.dir) || pipe2(ends, O_CLOEXEC))
		broken(test.dir);
	snprintf(test.heap, sizeof test.heap, "%s/heap", test.dir);
	test.keeper = fork();
	if (test.keeper == 0) {
		close(ends[1]);
		setsid();
		while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
			continue;
		execlp("rm", "rm", "-rf", "--", test.dir, (char *)NULL);
		_exit(1);
	}
	close(ends[0]);
	test.keeper_fd = ends[1];
}

/* A member that is in the middle of something, and is killed there. */
static void member_leave(const char *const *words)
{
	const char *argv[32] = {test.member, test.heap};
	char text[64];
	int ends[2];
	size_t n = 2;
	pid_t pid;

	while (*words)
		argv[n++] = *words++;
	if (pipe2(ends, O_CLOEXEC))
		broken("pipe");
	pid = start((char *const *)(uintptr_t)argv, ends[1], false);
	close(ends[1]);
	if (read(ends[0], text, sizeof text) <= 0)
		broken("the member says nothing");
	close(ends[0]);
	kill(pid, SIGKILL);
	finish(pid);
}

static void base_make(const char *durability)
{
	static const char *const words[] = {"block", "hold",   "permits",    "slots", "8",     "permits",
					    "gate",  "1",      "take",	     "slots", "3",     "lend",
					    "gate",  "2",      "concurrent", "lock",  "1",     "share",
					    "7",     "change", "say",	     "ready", "sleep", NULL};
	char *const create[] = {(char *)(uintptr_t)test.pheap,
				(char[]){"create"},
				(char[]){"--size"},
				(char[]){"256K"},
				(char[]){"--max"},
				(char[]){"1M"},
				(char[]){"--members"},
				(char[]){"6"},
				(char[]){"--lanes"},
				(char[]){"12"},
				(char[]){"--durability"},
				(char *)(uintptr_t)durability,
				test.heap,
				NULL};
	struct stat st;
	int fd;

	if ((unlink(test.heap) && errno != ENOENT) || finish(start(create, -1, false)))
		broken("pheap create");
	member_leave(words);
	fd = open(test.heap, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		broken(test.heap);
	test.size = (size_t)st.st_size;
	free(test.base);
	free(test.image);
	test.base = malloc(test.size);
	test.image = malloc(test.size);
	if (!test.base || !test.image || pread(fd, test.base, test.size, 0) != (ssize_t)test.size)
		broken(test.heap);
	close(fd);
}

int main(int argc, char **argv)
{
	ull count = argc > 3 ? strtoull(argv[3], NULL, 0) : COUNT_DEFAULT;
	ull first = argc > 5 ? strtoull(argv[5], NULL, 0) : 0;

	if (argc < 3)
		return 99;
	test.pheap = realpath(argv[1], NULL);
	test.member = realpath(argv[2], NULL);
	test.seed = (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
	if (argc > 4)
		test.seed = strtoull(argv[4], NULL, 0);
	if (!test.pheap || !test.member)
		broken("programs");
	/* what a sanitizer says must not look like a refusal */
	setenv("ASAN_OPTIONS", "exitcode=97:detect_leaks=0", 1);
	setenv("UBSAN_OPTIONS", "halt_on_error=1:exitcode=97", 1);
	printf("seed %llu\n", (ull)test.seed);
	folder_make();
	for (ull i = first; i < first + count; i++) {
		if (i == first || i % LEVEL_COUNT == 0)
			base_make(i / LEVEL_COUNT % 2 ? "process" : "sync");
		test.random = test.seed + i * 0x632be59bd9b4e019ull;
		image_mutate(i);
	}
	rings_make();
	if (vast_make())
		for (ull way = 0; way < 9; way++)
			look("vast file", way);
	else
		printf("no vast files here\n");
	free(test.base);
	free(test.image);
	close(test.keeper_fd);
	waitpid(test.keeper, NULL, 0);
	printf("%u passed, %u failed\n", test.passed, test.failed);
	return test.failed != 0;
}
