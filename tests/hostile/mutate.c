/* SPDX-License-Identifier: MIT
 *
 * mutate.c: damaged heap files, shown to every call of the library.
 *
 * What: small heaps in every state that a death leaves, damaged field by field, record by record, byte
 * by byte or cut short; then opened, walked, used and closed. Whatever the bytes are, the answer is an
 * error or a heap, in bounded time.
 * Why children: a crash is caught and named by iteration; the next child goes on behind it. Each
 * iteration draws from its own number, so one alone can be replayed.
 *
 * Invariants
 *   Z1  Opening, asking and walking never end the process. Transactions on a damaged heap may, by the
 *       library's own
 *       "broken invariant" message only.
 *   Z2  No descriptor and no mapping is left; the superblock is never written.
 *   Z3  Damage of coordination words alone loses nothing: the open refuses, or the heap is what
 *       recovery makes of the
 *       undamaged file.
 *
 * Usage: mutate [iterations [seed [first]]]; with HOSTILE_VERBOSE set it says why each file was refused.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "fake.h"
#include "fields.h"
#include "heap.h"
#include "keeper.h"

#define PROCESS_IMAGES 8
#define IMAGES (PROCESS_IMAGES + 6) /* and of SYNC and EPOCH */
#define BATCH 250
#define FAILURES_MAX 20
#define ALARM_S 30

enum phase { PHASE_OPEN, PHASE_WALK, PHASE_TX, PHASE_CLOSE };
static const char *const phase_names[] = {"open", "walk", "transactions", "close"};

/* What a child tells its parent, also when it dies. */
struct progress {
	uint64_t iteration, opened, refused, failed;
	enum phase phase;
};

static struct progress *progress;
static struct image images[IMAGES];
static struct fields fields[IMAGES];
static uint64_t sums[IMAGES]; /* what a recovery of the undamaged file holds */
static char path[260], errors[260];

/* Sanitizers: a report ends the process, so that it is counted. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0:allocator_may_return_null=1";
}
const char *__ubsan_default_options(void)
{
	return "halt_on_error=1:print_stacktrace=1";
}

/* ---- images ---- */

static void image_load(struct image *im, enum drive_state state)
{
	struct stat st;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(fd, &st)) {
		perror(path);
		exit(2);
	}
	im->size = (size_t)st.st_size;
	im->state = state;
	im->bytes = malloc(im->size);
	if (!im->bytes || pread(fd, im->bytes, im->size, 0) != (ssize_t)im->size) {
		perror("reading a heap");
		exit(2);
	}
	close(fd);
}

static void image_store(const struct image *im)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || pwrite(fd, im->bytes, im->size, 0) != (ssize_t)im->size) {
		perror(path);
		_exit(2);
	}
	close(fd);
}

static void images_judge(int i)
{
	const char *what;
	pheap *h;

	image_load(&images[i], images[i].state);
	images[i].level = drive_level;
	fields_find(&fields[i], &images[i]);
	fake_reset();
	if (pheap_open(path, 0, NULL, &h)) {
		fprintf(stderr, "an undamaged heap is refused: %s\n", pheap_error_detail(NULL));
		exit(2);
	}
	sums[i] = drive_walk(h, &what);
	if (what || pheap_close(h)) {
		fprintf(stderr, "an undamaged heap can not be read: %s\n",
			what ? what : pheap_error_detail(NULL));
		exit(2);
	}
}

/* Heaps with a journal. */
static void images_make_durable(void)
{
	static const enum drive_state states[] = {DRIVE_CLEAN, DRIVE_UNDO_LONG, DRIVE_THREADS};

	for (int i = PROCESS_IMAGES; i < IMAGES; i++) {
		drive_level = i % 2 ? PHEAP_SYNC : PHEAP_EPOCH;
		images[i].state = states[(i - PROCESS_IMAGES) / 2];
		drive_make(path, images[i].state, 500 << 10, 8 << 20);
		images_judge(i);
	}
	drive_level = PHEAP_PROCESS;
}

static void images_make(void)
{
	for (int i = 0; i < PROCESS_IMAGES; i++) {
		enum drive_state state = i < DRIVE_STATES    ? (enum drive_state)i
					 : i == DRIVE_STATES ? DRIVE_COMMITTED
							     : DRIVE_UNDO_LONG;
		/* The last two have no room to grow, or much of it. */
		drive_make(path, state,
			   i < DRIVE_STATES    ? 500 << 10
			   : i == DRIVE_STATES ? 430 << 10
					       : 1 << 20,
			   i < DRIVE_STATES    ? 700 << 10
			   : i == DRIVE_STATES ? 430 << 10
					       : 64 << 20);
		images[i].state = state;
		images_judge(i);
	}
	images_make_durable();
}

/* ---- one iteration, in a child ---- */

static void fault(const char *what)
{
	fprintf(stderr, "iteration %llu: %s\n", (unsigned long long)progress->iteration, what);
	progress->failed++;
	_exit(98);
}

/* Does a lane hold what nobody will ever give back? */
static bool notes_left(const pheap *h)
{
	uint32_t any = 0;

	for (uint32_t i = 0; i < h->super.lane_count; i++)
		for (unsigned k = 0; k < PHD_NOTE_COUNT; k++)
			any |= h->lanes[i].notes[k] | h->lanes[i].note_overflow | h->lanes[i].wait_stripe;
	return any != 0;
}

static void attack(struct rng *r, uint64_t sum, bool sums_hold)
{
	static const uint32_t flags[] = {0, 0, 0, PHEAP_RDONLY, PHEAP_CREATE, PHEAP_RDONLY};
	uint64_t choice = rng_below(r, 6), got;
	struct pheap_options opt;
	const char *what;
	pheap *h;
	int rc;

	fake_reset();
	fake.passive = choice == 5;
	drive_options(&opt);
	opt.durability = 0;
	if (rng_below(r, 3) == 0)
		opt.type_count = 0;
	progress->phase = PHASE_OPEN;
	rc = pheap_open(path, flags[choice], &opt, &h);
	if (rc == 0) {
		progress->opened++;
		progress->phase = PHASE_WALK;
		got = drive_walk(h, &what);
		if (what)
			fault(what);
		if (sums_hold && got != sum)
			fault("damaged coordination words changed what the heap holds");
		if (sums_hold && !fake.passive && notes_left(h))
			fault("notes of lanes are left from before");
		progress->phase = PHASE_TX;
		if (flags[choice] != PHEAP_RDONLY || rng_below(r, 2))
			drive_transact(h, r);
		resources_use(h, r);
		progress->phase = PHASE_WALK;
		(void)drive_walk(h, &what);
		if (what)
			fault(what);
		progress->phase = PHASE_CLOSE;
		(void)pheap_close(h);
	} else {
		progress->refused++;
		if (getenv("HOSTILE_VERBOSE"))
			printf("%llu: %s\n", (unsigned long long)progress->iteration,
			       pheap_error_detail(NULL));
		if (!*pheap_error_detail(NULL))
			fault("refused without a sentence");
	}
	if (fake.fds || fake.maps)
		fault("a descriptor or a mapping is left");
}

static uint64_t compat_of(const struct image *im, uint64_t off)
{
	struct phd_super super = {0};

	if (off + sizeof(super) <= im->size)
		memcpy(&super, im->bytes + off, sizeof(super));
	return super.compat;
}

/* The library must not have written the superblock, whatever it thought of it. */
static void superblock_check(const struct image *im)
{
	unsigned char now[512];
	int fd;

	/* A file that says of itself that it goes with its last user may be gone, or have been made anew. */
	if ((compat_of(im, 0) | compat_of(im, 4096)) & PHD_COMPAT_EPHEMERAL)
		return;
	fd = open(path, O_RDONLY);
	for (uint64_t off = 0; off <= 4096 && off + 512 <= im->size; off += 4096)
		if (pread(fd, now, 512, (off_t)off) != 512 || memcmp(now, im->bytes + off, 512) != 0)
			fault("the superblock was written");
	close(fd);
}

static bool same_super(const struct image *a, const struct image *b)
{
	return memcmp(a->bytes, b->bytes, 512) == 0 && memcmp(a->bytes + 4096, b->bytes + 4096, 512) == 0;
}

static void iteration(uint64_t seed, uint64_t i, unsigned char *bytes)
{
	struct rng r = {seed * 0x9e3779b97f4a7c15ull + i};
	uint64_t which = rng_below(&r, IMAGES), kind = rng_below(&r, 20);
	struct image im = images[which];
	bool sums_hold = false;

	(void)rng_next(&r);
	im.bytes = memcpy(bytes, im.bytes, im.size);
	if (im.level != PHEAP_PROCESS && rng_below(&r, 2))
		damage_power(&im);
	if (kind < 10) {
		damage_fields(&im, &fields[which], &r);
	} else if (kind < 13) {
		damage_bytes(&im, &r);
	} else if (kind < 17) {
		damage_log(&im, &fields[which], &r);
		if (rng_below(&r, 3) == 0)
			damage_fields(&im, &fields[which], &r);
	} else if (kind < 19) {
		damage_coordination(&im, &r);
		/* The words of the ring are among them. */
		sums_hold = im.level == PHEAP_PROCESS;
	} else {
		im.size = rng_below(&r, 3) ? rng_below(&r, im.size / 4096) * 4096 : rng_below(&r, im.size);
	}
	if (im.level != PHEAP_PROCESS && im.size == images[which].size && same_super(&im, &images[which]) &&
	    rng_below(&r, 2))
		image_seal_wal(&im);
	image_store(&im);
	attack(&r, sums[which], sums_hold);
	superblock_check(&im);
}

/* Iterations from `cut_first` on cut each image short at every block. */
static uint64_t cuts_count(void)
{
	uint64_t n = 0;

	for (int i = 0; i < IMAGES; i++)
		n += images[i].size / 4096;
	return n;
}

static void cut(uint64_t seed, uint64_t n)
{
	struct rng r = {seed + n};
	int i = 0;

	for (; n >= images[i].size / 4096; i++)
		n -= images[i].size / 4096;
	struct image im = images[i];

	im.size = n * 4096;
	image_store(&im);
	attack(&r, 0, false);
	superblock_check(&im);
}

static size_t size_largest(void)
{
	size_t size = 0;

	for (int i = 0; i < IMAGES; i++)
		size = images[i].size > size ? images[i].size : size;
	return size;
}

static void batch(uint64_t seed, uint64_t first, uint64_t end, uint64_t cut_first)
{
	unsigned char *bytes = malloc(size_largest());
	struct rlimit limit = {64 << 20, 64 << 20};

	if (!bytes)
		_exit(2);
	setrlimit(RLIMIT_FSIZE, &limit);
#ifndef __SANITIZE_ADDRESS__
	limit = (struct rlimit){512 << 20, 512 << 20};
	setrlimit(RLIMIT_DATA, &limit);
#endif
	for (uint64_t i = first; i < end; i++) {
		progress->iteration = i;
		alarm(ALARM_S);
		if (i >= cut_first)
			cut(seed, i - cut_first);
		else
			iteration(seed, i, bytes);
	}
	_exit(0);
}

/* ---- the parent ---- */

static size_t text_read(char *text, size_t n)
{
	FILE *f = fopen(errors, "r");
	size_t got = f ? fread(text, 1, n - 1, f) : 0;

	text[got] = 0;
	if (f)
		fclose(f);
	return got;
}

static int batch_run(uint64_t seed, uint64_t first, uint64_t end, uint64_t cut_first, bool verbose)
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		int fd = verbose ? -1 : open(errors, O_WRONLY | O_CREAT | O_TRUNC, 0600);

		if (fd >= 0)
			dup2(fd, 2);
		batch(seed, first, end, cut_first);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0) {
		perror("fork");
		exit(2);
	}
	return status;
}

static void report(uint64_t seed, int status, const char *text)
{
	printf("FAILED: iteration %llu of seed %llu (%s): %s %d\n%.3000s\n",
	       (unsigned long long)progress->iteration, (unsigned long long)seed,
	       phase_names[progress->phase], WIFSIGNALED(status) ? "signal" : "exit",
	       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), text);
}

int main(int argc, char **argv)
{
	uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 0) : 10000;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	uint64_t next = argc > 3 ? strtoull(argv[3], NULL, 0) : 0, cut_first, all;
	uint64_t aborts = 0, failed = 0, ran = 0;
	static char text[8192];

	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(path, sizeof(path), "%s/heap", drive_folder());
	snprintf(errors, sizeof(errors), "%s/stderr", drive_folder());
	progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (progress == MAP_FAILED)
		return 2;
	fake_reset();
	ph_keeper_off = true;
	drive_journal_size = 256 << 10;
	images_make();
	cut_first = argc > 3 ? next + count : count;
	all = argc > 3 ? next + count : count + cuts_count();
	printf("seed %llu, %llu iterations from %llu on\n", (unsigned long long)seed,
	       (unsigned long long)(all - next), (unsigned long long)next);
	while (next < all && failed < FAILURES_MAX) {
		uint64_t end = next + BATCH < all ? next + BATCH : all;
		int status = batch_run(seed, next, end, cut_first, false);

		if (status == 0) {
			ran += end - next;
			next = end;
			continue;
		}
		ran += progress->iteration + 1 - next;
		next = progress->iteration + 1;
		text_read(text, sizeof(text));
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && progress->phase == PHASE_TX &&
		    strncmp(text, "pheap: broken invariant", 23) == 0) {
			aborts++;
			continue;
		}
		failed++;
		report(seed, status, text);
	}
	printf("%llu opened, %llu refused, %llu ended by the library's own check\n",
	       (unsigned long long)progress->opened, (unsigned long long)progress->refused,
	       (unsigned long long)aborts);
	printf("%llu passed, %llu failed\n", (unsigned long long)(ran - failed), (unsigned long long)failed);
	return failed != 0;
}
