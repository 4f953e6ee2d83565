/* SPDX-License-Identifier: MIT
 *
 * epoch.c: epoch: what durability EPOCH costs beside PROCESS.
 *
 * What: one thread changes random places of a part of a heap of 1 GiB, in turns of some epochs. `hot-N`: N
 * records of 64 bytes of 64 MiB in a transaction, with epochs of the default length; `hot-N-1s` with epochs of
 * a second. `pages-N`: one word of 8 bytes in a transaction, of the first N pages, and epochs of a second: the
 * curve. `-distinct` says how many different pages an epoch of EPOCH then changes.
 * Why the part and not the rate makes the curve: what an epoch costs is an image in the log, a fault and a
 * write for each page that it changes, however often it does.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "heap_use.h"
#include "team.h"

#define PAGE_SIZE 4096u
#define STEP_SIZE (1u << 20)
#define WARM_SIZE (256u << 20) /* more is not warm in any epoch */
#define EPOCH_MS 5000u	       /* the default */
#define EPOCH_MS_SHORT 1000u
#define JOURNAL_SIZE (256ull << 20)		     /* the images of the hot set fill a quarter of it */
#define HEAP_ROOM (2 * JOURNAL_SIZE + (64ull << 20)) /* its ring in memory is in the file too */
#define RUN_EPOCHS 2u /* of what a turn of EPOCH has, so that all turns have the same share of checkpoints */
#define RUN_EPOCHS_QUICK 1u
#define REP_MAX 5u
#define REP_MAX_QUICK 2u
#define UPDATE_MAX 8u

enum { EPOCH, PROCESS, SYSTEM_COUNT };

static const struct {
	const char *name, *level;
	uint32_t durability;
} systems[SYSTEM_COUNT] = {
	[EPOCH] = {"pheap", "EPOCH", PHEAP_EPOCH},
	[PROCESS] = {"process", "PROCESS", PHEAP_PROCESS},
};

struct shape {
	uint64_t size;	     /* bytes of the part, a power of two */
	uint64_t range_size; /* bytes of an update */
	unsigned update_count;
	uint32_t epoch_ms;
};

struct player {
	struct team *team;
	struct shape shape;
	char path[4096];
	double ns[REP_MAX];
};

struct store {
	struct shape shape;
	pheap *heap;
	const char *bytes;
};

/* In a process that ends afterwards. False: pheap_open gave -EOPNOTSUPP. */
static bool heap_make(const char *path, uint32_t durability, uint64_t size, uint32_t epoch_ms)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	pheap_tx *tx;
	pheap *heap;
	int rc;

	opt.initial_size = opt.max_size = size + size / 16 + HEAP_ROOM;
	opt.durability = durability;
	opt.epoch_ms = epoch_ms;
	if (durability != PHEAP_PROCESS)
		opt.journal_size = JOURNAL_SIZE;
	rc = pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &opt, &heap);
	if (rc == -EOPNOTSUPP)
		return false;
	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	rc = pheap_begin(heap, 0, &tx);
	if (rc)
		heap_fail(heap, "pheap_begin", rc);
	pheap_root_set(tx, "bytes", pheap_zalloc(tx, size, 0));
	rc = pheap_commit(tx);
	if (rc)
		heap_fail(heap, "pheap_commit", rc);
	rc = pheap_close(heap);
	if (rc)
		heap_fail(NULL, "pheap_close", rc);
	return true;
}

static void *join(const void *arg)
{
	static struct store store;
	const struct player *p = arg;
	int rc = pheap_open(p->path, 0, NULL, &store.heap);

	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	store.shape = p->shape;
	store.bytes = pheap_find(store.heap, "bytes");
	if (!store.bytes)
		bench_die("pheap: the root is gone");
	return &store;
}

/* Once: what write-back takes away later is a part of what is measured. The pages are declared, so that the
 * turn that does not count begins where later ones do. */
static void *enter(void *self)
{
	struct store *store = self;
	const uint64_t step = store->shape.size < STEP_SIZE ? store->shape.size : STEP_SIZE;

	bench_populate((void *)(uintptr_t)store->bytes, store->shape.size);
	for (uint64_t off = 0; off < store->shape.size && off < WARM_SIZE; off += step) {
		pheap_tx *tx;
		int rc = pheap_begin(store->heap, 0, &tx);

		if (rc)
			heap_fail(store->heap, "pheap_begin", rc);
		if (!pheap_modify(tx, store->bytes + off, step))
			heap_fail(store->heap, "pheap_modify", pheap_error(tx));
		rc = pheap_commit(tx);
		if (rc)
			heap_fail(store->heap, "pheap_commit", rc);
	}
	return store;
}

static void run(void *self, struct team_worker *w)
{
	const struct store *store = self;
	const uint64_t mask = store->shape.size / store->shape.range_size - 1, n = store->shape.range_size;

	do {
		pheap_tx *tx;
		int rc = pheap_begin(store->heap, 0, &tx);

		if (rc)
			heap_fail(store->heap, "pheap_begin", rc);
		for (unsigned i = 0; i < store->shape.update_count; i++) {
			uint64_t r = bench_random(&w->rng);
			uint64_t *words = pheap_modify(tx, store->bytes + (r >> 8 & mask) * n, n);

			for (uint64_t j = 0; words && j < n / 8; j++)
				words[j] = r + j;
		}
		rc = pheap_commit(tx);
		if (rc)
			heap_fail(store->heap, "pheap_commit", rc);
	} while (team_next(w));
}

/* Which pages of N are met by `count` random updates. */
static double distinct_pages(double pages, double count)
{
	return -pages * expm1(count * log1p(-1 / pages));
}

static void shape_report(const struct bench_options *opt, const char *param, struct player *players,
			 unsigned reps, double ratio_max)
{
	static const struct bench_target no_target;
	const struct bench_target target = {.base = systems[PROCESS].name, .base_ratio_max = ratio_max};
	const struct shape *shape = &players[EPOCH].shape;
	struct bench_result results[SYSTEM_COUNT];
	char distinct[64];

	for (unsigned i = 0; i < SYSTEM_COUNT; i++) {
		results[i] = (struct bench_result){.system = systems[i].name,
						   .level = systems[i].level,
						   .threads = 1,
						   .instructions = -1};
		bench_summarize(players[i].ns, reps, &results[i]);
	}
	bench_report(opt, "epoch", param, NULL, &target, results, SYSTEM_COUNT);
	results[EPOCH].value =
		distinct_pages((double)shape->size / PAGE_SIZE,
			       shape->update_count * shape->epoch_ms * 1e6 / results[EPOCH].value);
	results[EPOCH].min = results[EPOCH].max = results[EPOCH].value;
	snprintf(distinct, sizeof distinct, "%s-distinct", param);
	bench_report(opt, "epoch", distinct, "pages", &no_target, &results[EPOCH], 1);
}

static void turn_run(const struct bench_options *opt, struct player *p, unsigned rep)
{
	struct team_turn turn;

	team_turn(p->team, p->shape.epoch_ms * 1000000ull * (opt->quick ? RUN_EPOCHS_QUICK : RUN_EPOCHS),
		  NULL, &turn);
	p->ns[rep] = turn.wall_ns;
}

static void shape_run(const struct bench_options *opt, const char *param, const struct shape *shape,
		      struct player *players, double ratio_max)
{
	const unsigned limit = opt->quick ? REP_MAX_QUICK : REP_MAX;
	const unsigned reps = opt->reps < limit ? opt->reps : limit;

	for (unsigned i = 0; i < SYSTEM_COUNT; i++) {
		const struct team_plan plan = {
			.name = systems[i].name,
			.process_count = 1,
			.thread_count = 1,
			.pinned = true,
			.arg = &players[i],
			.join = join,
			.enter = enter,
			.run = run,
		};

		players[i].shape = *shape;
		players[i].team = team_start(&plan);
		turn_run(opt, &players[i], 0); /* a first one that does not count */
	}
	for (unsigned rep = 0; rep < reps; rep++)
		for (unsigned i = 0; i < SYSTEM_COUNT; i++)
			turn_run(opt, &players[(i + rep) % SYSTEM_COUNT], rep);
	for (unsigned i = 0; i < SYSTEM_COUNT; i++)
		team_end(players[i].team);
	shape_report(opt, param, players, reps, ratio_max);
}

/* False: there is no EPOCH. */
static bool players_make(const struct bench_options *opt, struct player *players, uint64_t size,
			 uint32_t epoch_ms)
{
	for (unsigned i = 0; i < SYSTEM_COUNT; i++) {
		const unsigned not_supported = 77;
		pid_t pid;
		int rc;

		snprintf(players[i].path, sizeof players[i].path, "%s/epoch-%s", opt->folder,
			 systems[i].name);
		pid = bench_fork();
		if (!pid)
			_exit(heap_make(players[i].path, systems[i].durability, size, epoch_ms)
				      ? 0
				      : not_supported);
		rc = bench_wait(pid, systems[i].name);
		if (rc == (int)not_supported)
			return false;
		if (rc)
			bench_die("epoch: making a heap failed");
	}
	return true;
}

void bench_epoch(const struct bench_options *opt)
{
	static const struct {
		const char *param;
		struct shape shape;
		double ratio_max;
	} shapes[] = {
		{"hot-1", {64 << 20, 64, 1, EPOCH_MS}, 1.3},
		{"hot-8", {64 << 20, 64, 8, EPOCH_MS}, 1.3},
		{"hot-1-1s", {64 << 20, 64, 1, EPOCH_MS_SHORT}, 0},
		{"hot-8-1s", {64 << 20, 64, 8, EPOCH_MS_SHORT}, 0},
		{"pages-256", {1 << 20, 8, 1, EPOCH_MS_SHORT}, 0},
		{"pages-1024", {4 << 20, 8, 1, EPOCH_MS_SHORT}, 0},
		{"pages-4096", {16 << 20, 8, 1, EPOCH_MS_SHORT}, 0},
		{"pages-16384", {64 << 20, 8, 1, EPOCH_MS_SHORT}, 0},
		{"pages-65536", {256 << 20, 8, 1, EPOCH_MS_SHORT}, 0},
		{"pages-262144", {1 << 30, 8, 1, EPOCH_MS_SHORT}, 0},
	};
	static struct player players[SYSTEM_COUNT];
	uint32_t epoch_ms = 0; /* of the heaps there are */
	bool any = false;

	for (unsigned i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		const struct shape *shape = &shapes[i].shape;

		if (opt->param && strcmp(opt->param, shapes[i].param))
			continue;
		if (epoch_ms != shape->epoch_ms) {
			epoch_ms = shape->epoch_ms;
			bench_scratch_clear(opt->folder);
			if (!players_make(opt, players, 1 << 30, epoch_ms)) {
				bench_skip(opt, "epoch", "all", "pheap", "this library has no PHEAP_EPOCH");
				bench_scratch_clear(opt->folder);
				return;
			}
		}
		shape_run(opt, shapes[i].param, shape, players, shapes[i].ratio_max);
		any = true;
	}
	bench_scratch_clear(opt->folder);
	if (!any)
		bench_param_fail("epoch", opt->param);
}
