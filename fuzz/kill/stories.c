/* SPDX-License-Identifier: MIT
 *
 * stories.c: what members that take turns do to each other: kill-turns.
 *
 * What: in each run some actors play a few small calls on one heap; the turn goes from one to another in the middle of
 * them, one may die, and so may a ghost that only holds something. What each was told is done must be there at the end,
 * and nothing else. The pieces: two words under one lock that must always be equal, blocks, one held object, a
 * semaphore with one permit.
 *
 * Invariants
 *   Y1  words[0] == words[1] for everybody who may look; both are the sum of the committed additions.
 *   Y2  An actor's number in the heap is what it was told, or what it had begun when it died.
 *   Y3  The allocated blocks are the actors', and the held one as long as somebody living holds it.
 *   Y4  At most one living actor has the permit.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layout.h"
#include "memfile.h"
#include "oracle.h"
#include "os.h"
#include "program.h"
#include "runtime.h"
#include "turns.h"

#define KEY 1u
#define TYPE_BLOCK 5u
#define TYPE_HELD 6u
#define BLOCKS 2u
#define NOBODY ACTORS_MAX

struct stage {
	uint64_t words[2];
	uint64_t count[ACTORS_MAX];
	uint64_t blocks[ACTORS_MAX][BLOCKS];
};

/* Beside the heap: what the actors were told. */
struct told {
	uint64_t begun, done; /* additions */
	uint32_t holds;	      /* of the held object */
	bool unsure;	      /* it died in a call that changes holds */
};

enum call {
	ADD,
	ADD_ALONE,
	LOOK_SHARED,
	LOOK_READ,
	LOOK_BOTH,
	BLOCK,
	HOLD,
	RELEASE,
	RELEASE_NOT,
	FREE_HELD,
	PERMIT,
	RECOVER,
	VISIT,
	TRIM
};

static const struct story {
	const char *name;
	unsigned actors;
	unsigned plays;	 /* so many calls of each actor, drawn */
	uint64_t length; /* accesses of a run, about: where switches and deaths are drawn */
	enum call calls[8];
	unsigned call_count; /* 0: actor i plays calls[i] only, and three switches are tried everywhere */
} stories[] = {
	{"drain", 2, 2, 80, {ADD, LOOK_SHARED}, 0},
	{"locks", 3, 2, 150, {ADD, LOOK_SHARED}, 2},
	{"modes", 3, 3, 400, {ADD, ADD_ALONE, LOOK_READ, LOOK_BOTH}, 4},
	{"blocks", 3, 3, 400, {BLOCK, BLOCK, ADD}, 3},
	{"holds", 3, 3, 400, {HOLD, RELEASE, RELEASE_NOT, FREE_HELD, RECOVER}, 5},
	{"permits", 3, 3, 400, {PERMIT, PERMIT, ADD}, 3},
	{"trims", 3, 3, 500, {TRIM, BLOCK, BLOCK, ADD}, 4},
	{"visits", 3, 3, 600, {VISIT, ADD, HOLD, BLOCK, LOOK_READ}, 5},
};
#define STORIES (sizeof(stories) / sizeof(*stories))

static struct memfile *file;
static char *base;
static uint64_t base_size, stage_off, permits_off, ghost_attachment;
static uint64_t held_off;
static struct actor cast[ACTORS_MAX];
static struct told told[ACTORS_MAX];
static unsigned owner;	/* of the permit */
static unsigned writer; /* of the words */
static bool readers[ACTORS_MAX];
static bool aborts; /* some of the transactions */
static int ghosts[2];
static char why[400];
static uint64_t seed = 1;
static const char usage[] = "usage: kill-turns [--runs N] [--seed S] [--story I] [--run R] [--mutant N]\n";

static int __attribute__((format(printf, 1, 2))) wrong(const char *format, ...)
{
	va_list ap;

	if (why[0])
		return -1;
	va_start(ap, format);
	vsnprintf(why, sizeof(why), format, ap);
	va_end(ap);
	return -1;
}

static int wrong_rc(const struct actor *a, const char *call, int rc)
{
	return wrong("actor %u: %s: %d (%s; %s)", a->id, call, rc, pheap_strerror(rc),
		     pheap_error_detail(a->h));
}

static const struct stage *stage_of(const pheap *h)
{
	return pheap_at(h, stage_off);
}

/* --- calls: 0, or -1 with why --- */

static int equal(const struct actor *a, const struct stage *s, const char *when)
{
	uint64_t first = __atomic_load_n(&s->words[0], __ATOMIC_RELAXED), second;

	turns_point();
	second = __atomic_load_n(&s->words[1], __ATOMIC_RELAXED);
	if (first == second)
		return 0;
	return wrong("actor %u: the words are %" PRIu64 " and %" PRIu64 " %s", a->id, first, second, when);
}

/* Who may look at the words, or alone change them, has come in. */
static int come_in(const struct actor *a, bool alone)
{
	if (writer != NOBODY && !cast[writer].dead)
		return wrong("actors %u and %u have the lock, the first one alone", writer, a->id);
	for (unsigned i = 0; alone && i < ACTORS_MAX; i++)
		if (readers[i] && !cast[i].dead)
			return wrong("actors %u and %u have the lock, the first one shared", i, a->id);
	if (alone)
		writer = a->id;
	else
		readers[a->id] = true;
	return 0;
}

static void go_out(const struct actor *a)
{
	if (writer == a->id)
		writer = NOBODY;
	readers[a->id] = false;
}

/* -EDEADLK: again; 1: it is over and nothing happened. */
static int add_once(struct actor *a, uint32_t mode)
{
	const struct stage *s = stage_of(a->h);
	const uint64_t key = KEY;
	uint64_t *words, *count;
	pheap_tx *tx;
	int rc = pheap_begin(a->h, mode, &tx);

	if (rc)
		return rc;
	if (mode)
		rc = pheap_lock(tx, &key, 1);
	if (rc)
		return pheap_end(tx, rc);
	if (come_in(a, true)) {
		pheap_abort(tx);
		return 1;
	}
	words = pheap_modify(tx, s->words, sizeof(s->words));
	count = pheap_modify(tx, &s->count[a->id], 8);
	if (!words || !count) {
		go_out(a);
		return pheap_end(tx, pheap_error(tx));
	}
	(void)equal(a, s, "to who has the lock");
	__atomic_store_n(&words[0], words[0] + 1, __ATOMIC_RELAXED);
	turns_point();
	__atomic_store_n(&words[1], words[1] + 1, __ATOMIC_RELAXED);
	*count += 1;
	go_out(a);
	if (aborts && oracle_below(&a->rng, 4) == 0) {
		pheap_abort(tx);
		return 1;
	}
	return pheap_commit(tx);
}

static int add(struct actor *a, uint32_t mode)
{
	int rc;

	told[a->id].begun = told[a->id].done + 1;
	while ((rc = add_once(a, mode)) == -EDEADLK)
		;
	if (rc == 0)
		told[a->id].done++;
	told[a->id].begun = told[a->id].done;
	return rc < 0 ? wrong_rc(a, "addition", rc) : 0;
}

static int look(struct actor *a, uint32_t mode)
{
	const uint64_t key = KEY;
	pheap_tx *tx;
	int rc = pheap_begin(a->h, mode, &tx);

	if (rc == 0 && mode & PHEAP_CONCURRENT) {
		rc = pheap_lock_shared(tx, &key, 1);
		if (rc) {
			pheap_abort(tx);
			return rc == -EDEADLK ? 0 : wrong_rc(a, "shared lock", rc);
		}
	}
	if (rc)
		return wrong_rc(a, "begin", rc);
	rc = come_in(a, false);
	rc = rc ? rc
		: equal(a, stage_of(a->h),
			mode == PHEAP_READ ? "to who reads" : "to who has the lock shared");
	go_out(a);
	if (pheap_commit(tx) && !rc)
		rc = wrong_rc(a, "commit", pheap_error(tx));
	return rc;
}

static uint8_t block_byte(const struct actor *a, unsigned k)
{
	return (uint8_t)(0x10 * (a->id + 1) + k);
}

static bool block_whole(const pheap *h, uint64_t off, uint8_t byte)
{
	const uint8_t *p = pheap_at(h, off);

	for (size_t i = 0; i < 40; i++)
		if (p[i] != byte)
			return false;
	return pheap_usable_size(h, p) >= 40 && pheap_type_of(h, p) == TYPE_BLOCK;
}

/* A new block for an old one. */
static int block(struct actor *a)
{
	const struct stage *s = stage_of(a->h);
	unsigned k = (unsigned)oracle_below(&a->rng, BLOCKS);
	const uint64_t *place = &s->blocks[a->id][k];
	pheap_tx *tx;
	int rc = pheap_begin(a->h, PHEAP_CONCURRENT, &tx);
	uint64_t off;
	void *p;

	if (rc)
		return wrong_rc(a, "begin", rc);
	if (*place && !block_whole(a->h, *place, block_byte(a, k))) {
		pheap_abort(tx);
		return wrong("actor %u: its block %#" PRIx64 " has other bytes", a->id, *place);
	}
	p = *place && oracle_below(&a->rng, 2) ? NULL : pheap_alloc(tx, 40, TYPE_BLOCK);
	if (p)
		memset(p, block_byte(a, k), 40);
	off = pheap_offset(a->h, p);
	if (*place)
		(void)pheap_free(tx, pheap_at(a->h, *place));
	(void)pheap_store(tx, place, &off, sizeof(off));
	if (oracle_below(&a->rng, 4) == 0) {
		pheap_abort(tx);
		return 0;
	}
	rc = pheap_commit(tx);
	return rc ? wrong_rc(a, "commit of a block", rc) : 0;
}

/* The keeper, actor 0, holds it from before the run on. */
static int hold(struct actor *a)
{
	int rc;

	if (cast[0].dead && !told[a->id].holds)
		return 0; /* it may be gone */
	told[a->id].unsure = true;
	rc = pheap_hold(a->h, pheap_at(a->h, held_off));
	told[a->id].unsure = false;
	if (rc == -EINVAL && cast[0].dead)
		return 0;
	told[a->id].holds += rc == 0;
	return rc ? wrong_rc(a, "hold", rc) : 0;
}

static int release(struct actor *a)
{
	int rc;

	if (told[a->id].holds <= (a->id == 0))
		return 0; /* the keeper keeps one */
	told[a->id].unsure = true;
	rc = pheap_release(a->h, pheap_at(a->h, held_off));
	told[a->id].unsure = false;
	told[a->id].holds -= rc == 0;
	return rc ? wrong_rc(a, "release", rc) : 0;
}

/* All that it holds is released and taken back: nobody else may take it for free meanwhile. */
static int release_not(struct actor *a)
{
	pheap_tx *tx;
	int rc = told[a->id].holds ? pheap_begin(a->h, PHEAP_CONCURRENT, &tx) : 1;

	if (rc)
		return rc == 1 ? 0 : wrong_rc(a, "begin", rc);
	for (uint32_t i = 0; rc == 0 && i < told[a->id].holds; i++)
		rc = pheap_release(a->h, pheap_at(a->h, held_off));
	turns_point();
	pheap_abort(tx);
	return rc && rc != -EDEADLK ? wrong_rc(a, "release", rc) : 0;
}

static int free_held(struct actor *a)
{
	pheap_tx *tx;
	int rc;

	if (cast[0].dead || a->id == 0)
		return 0;
	rc = pheap_begin(a->h, PHEAP_CONCURRENT, &tx);
	if (rc)
		return wrong_rc(a, "begin", rc);
	rc = pheap_free(tx, pheap_at(a->h, held_off));
	/* Not to harm whoever may have the place by now. */
	pheap_abort(tx);
	if (rc == -EBUSY || rc == -EDEADLK || cast[0].dead)
		return 0;
	return wrong("actor %u: pheap_free of what actor 0 holds: %d", a->id, rc);
}

static int permit(struct actor *a)
{
	const pheap_permits *p = pheap_at(a->h, permits_off);
	int rc = pheap_permit_reserve(a->h, p, 5000);

	if (rc)
		return wrong_rc(a, "reserve", rc);
	if (owner != NOBODY && !cast[owner].dead)
		return wrong("actors %u and %u have the permit", owner, a->id);
	owner = a->id;
	turns_point();
	turns_point();
	if (owner != a->id)
		return wrong("actor %u: the permit was taken away", a->id);
	owner = NOBODY;
	rc = pheap_permit_release(a->h, p);
	return rc ? wrong_rc(a, "release of the permit", rc) : 0;
}

/* Another handle, in the middle of what the others do. pheap_open has a lock of the whole process: one at a time. */
static int visit(struct actor *a)
{
	static bool visited;
	char path[16];
	pheap *own = a->h;
	int rc;

	if (visited)
		return 0;
	visited = true;
	snprintf(path, sizeof(path), "mem:0+++++");
	a->holds_global = true;
	rc = pheap_open(path, 0, NULL, &a->h);
	if (rc) {
		a->h = own;
		visited = a->holds_global = false;
		return wrong("actor %u: open: %d (%s)", a->id, rc, pheap_error_detail(NULL));
	}
	rc = add(a, PHEAP_CONCURRENT);
	if (pheap_close(a->h) && !rc)
		rc = wrong("actor %u: close: %s", a->id, pheap_error_detail(NULL));
	a->h = own;
	visited = a->holds_global = false;
	return rc;
}

static int call(struct actor *a, enum call what)
{
	int rc;

	switch (what) {
	case ADD:
		return add(a, PHEAP_CONCURRENT);
	case ADD_ALONE:
		return add(a, 0);
	case LOOK_SHARED:
		return look(a, PHEAP_CONCURRENT);
	case LOOK_READ:
		return look(a, PHEAP_READ);
	case LOOK_BOTH:
		return look(a, PHEAP_CONCURRENT | PHEAP_READ);
	case BLOCK:
		return block(a);
	case HOLD:
		return hold(a);
	case RELEASE:
		return release(a);
	case RELEASE_NOT:
		return release_not(a);
	case FREE_HELD:
		return free_held(a);
	case PERMIT:
		return permit(a);
	case VISIT:
		return visit(a);
	case TRIM:
		rc = pheap_trim(a->h);
		return rc ? wrong_rc(a, "trim", rc) : 0;
	default:
		rc = pheap_recover(a->h, NULL);
		return rc ? wrong_rc(a, "recover", rc) : 0;
	}
}

/* Its lane, so that what is counted is the calls. */
static void prepare(struct actor *a)
{
	pheap_tx *tx;

	if (pheap_begin(a->h, PHEAP_CONCURRENT, &tx) || pheap_commit(tx))
		(void)wrong_rc(a, "begin", pheap_error(NULL));
}

static int play(struct actor *a, void *arg)
{
	const struct story *story = arg;
	int rc = 0;

	for (unsigned i = 0; !rc && i < story->plays; i++)
		rc = call(a,
			  story->calls[story->call_count ? oracle_below(&a->rng, story->call_count) : a->id]);
	return rc;
}

/* --- the heap before a run --- */

/* Its process is gone, its row and what it held are there. */
static void ghost_make(void)
{
	struct actor ghost = {0};
	pheap_tx *tx;
	void *p;

	if (pheap_open("mem:0+", 0, NULL, &ghost.h) || pheap_begin(ghost.h, 0, &tx))
		abort();
	ghost_attachment = pheap_member(ghost.h);
	p = pheap_alloc(tx, 40, TYPE_HELD);
	if (!p || pheap_hold(ghost.h, p) || pheap_commit(tx) ||
	    pheap_permits_lend(ghost.h, pheap_at(ghost.h, permits_off), 1) ||
	    pheap_permits_take(ghost.h, pheap_at(ghost.h, permits_off), 1, 0))
		abort();
	turns_bury(&ghost);
}

static void base_make(void)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	const pheap_permits *permits;
	pheap_tx *tx;
	pheap *h;

	opt.durability = PHEAP_PROCESS;
	opt.mode = 0600;
	opt.max_size = opt.initial_size = 160u << 10;
	opt.member_count = 8;
	opt.lane_count = 24;
	memfile_seed(seed);
	memfile_kill(file);
	memfile_clear(file);
	if (pheap_open("mem:0", PHEAP_CREATE, &opt, &h) || pheap_begin(h, 0, &tx))
		abort();
	stage_off = pheap_offset(h, pheap_root(tx, "stage", sizeof(struct stage), 1));
	permits = pheap_permits_new(tx, 1);
	if (!stage_off || !permits || pheap_root_set(tx, "permits", permits) || pheap_commit(tx))
		abort();
	permits_off = pheap_offset(h, permits);
	/* The lock was shared once: who takes it next has to look for readers. */
	if (pheap_begin(h, PHEAP_CONCURRENT, &tx) || pheap_lock_shared(tx, &(uint64_t){KEY}, 1) ||
	    pheap_commit(tx))
		abort();
	ghost_make();
	/* As if all had been killed. */
	turns_bury(&(struct actor){.h = h});
	memcpy(base, file->bytes, MEMFILE_CAPACITY);
	base_size = file->size;
}

static void ghost_die(void)
{
	memfile_die(ghosts[0]);
	memfile_die(ghosts[1]);
}

/* A ghost that looks alive for now. */
static void base_load(void)
{
	const struct phd_super *s = (const void *)base;
	const struct phd_member *members = (const void *)(base + s->member_off);

	memfile_kill(file);
	memcpy(file->bytes, base, MEMFILE_CAPACITY);
	file->size = base_size;
	file->fault = 0;
	memset(file->holes, 0, sizeof(file->holes));
	file->named = true;
	ghosts[0] = memfile_bystander(file, PHD_LOCK_ANY);
	for (uint32_t i = 0; i < s->member_count; i++)
		if (members[i].attachment == ghost_attachment)
			ghosts[1] = memfile_bystander(file, PHD_LOCK_SLOT + i);
}

static void cast_make(const struct story *story, uint64_t run)
{
	pheap_tx *tx;
	void *p;

	memset(told, 0, sizeof(told));
	memset(readers, 0, sizeof(readers));
	owner = writer = NOBODY;
	aborts = story->call_count != 0;
	why[0] = 0;
	for (unsigned i = 0; i < story->actors; i++) {
		char path[16] = "mem:0++++";

		path[5 + i] = 0;
		cast[i] = (struct actor){
			.id = i, .prepare = prepare, .play = play, .arg = (void *)(uintptr_t)story};
		cast[i].rng = seed * 1000003 + run * ACTORS_MAX + i;
		if (pheap_open(path, 0, NULL, &cast[i].h))
			wrong("open: %s", pheap_error_detail(NULL));
	}
	if (pheap_begin(cast[0].h, 0, &tx))
		abort();
	p = pheap_alloc(tx, 40, TYPE_HELD);
	if (!p || pheap_hold(cast[0].h, p) || pheap_commit(tx))
		abort();
	held_off = pheap_offset(cast[0].h, p);
	told[0].holds = 1;
	kr_base = (uintptr_t)file->bytes;
	kr_size = MEMFILE_CAPACITY;
}

/* --- the end of a run --- */

static int check_numbers(const struct stage *s, unsigned actors)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < actors; i++) {
		uint64_t most = cast[i].dead ? told[i].begun : told[i].done;

		if (s->count[i] < told[i].done || s->count[i] > (most > told[i].done ? most : told[i].done))
			return wrong("actor %u%s: %" PRIu64 " additions are there, %" PRIu64 " were done", i,
				     cast[i].dead ? ", dead" : "", s->count[i], told[i].done);
		sum += s->count[i];
	}
	if (s->words[0] == sum && s->words[1] == sum)
		return 0;
	return wrong("the words are %" PRIu64 " and %" PRIu64 ", %" PRIu64 " additions are there",
		     s->words[0], s->words[1], sum);
}

static int check_blocks(const pheap *h, unsigned actors, unsigned held)
{
	const struct stage *s = stage_of(h);
	unsigned want = 1 + held, found = 0;

	for (unsigned i = 0; i < actors; i++)
		for (unsigned k = 0; k < BLOCKS; k++) {
			uint64_t off = s->blocks[i][k];

			want += off != 0;
			if (off && !block_whole(h, off, block_byte(&cast[i], k)))
				return wrong("actor %u: block %#" PRIx64 " has other bytes", i, off);
		}
	for (const void *p = NULL; (p = pheap_next(h, UINT32_MAX, p));)
		found++;
	return found == want ? 0 : wrong("%u blocks are allocated, expected %u", found, want);
}

/* holders: of the object that actor 0 keeps. ghost: it is alive. */
static int check_all(pheap *h, unsigned actors, unsigned holders, bool ghost)
{
	int64_t free_count = 0;
	pheap_tx *tx;
	int rc = pheap_recover(h, NULL);

	rc = rc ? rc : pheap_begin(h, PHEAP_READ, &tx);
	if (rc)
		return wrong("check: %d (%s)", rc, pheap_error_detail(h));
	rc = check_numbers(stage_of(h), actors);
	if (!rc)
		rc = check_blocks(h, actors, (holders > 0 ? 1u : 0u) + ghost);
	if (!rc && (pheap_permits_available(h, pheap_at(h, permits_off), &free_count) || free_count != 1))
		rc = wrong("%" PRId64 " permits are free", free_count);
	if (pheap_commit(tx) && !rc)
		rc = wrong("check: commit: %s", pheap_error_detail(h));
	return rc ? rc : oracle_structure(file->bytes, file->size, holders + ghost, why, sizeof(why));
}

static int ending(const struct story *story, bool ghost)
{
	unsigned holders = 0;
	bool opened;
	pheap *h;
	int rc = 0;

	for (unsigned i = 0; i < story->actors; i++)
		holders += !cast[i].dead && told[i].holds;
	if (pheap_open("mem:0++++++", 0, NULL, &h))
		return wrong("open beside the living: %s", pheap_error_detail(NULL));
	rc = check_all(h, story->actors, holders, ghost);
	for (unsigned i = 0; i < story->actors; i++)
		if (!cast[i].dead) {
			pheap *own = cast[i].h;

			cast[i].h = NULL;
			if (pheap_close(own) && !rc)
				rc = wrong("actor %u: close: %s", i, pheap_error_detail(NULL));
		}
	if (ghost)
		ghost_die();
	rc = rc ? rc : check_all(h, story->actors, 0, false);
	if (pheap_close(h) && !rc)
		rc = wrong("close: %s", pheap_error_detail(NULL));
	opened = !rc && pheap_open("mem:0+++++++", 0, NULL, &h) == 0;
	if (!rc && !opened)
		return wrong("open afterwards: %s", pheap_error_detail(NULL));
	rc = rc ? rc : check_all(h, story->actors, 0, false);
	if (opened)
		(void)pheap_close(h);
	if (!rc && file->fault)
		rc = wrong("a store into a hole, at %#" PRIx64 ": a bus error on a full disk",
			   file->fault - 1);
	return rc;
}

/* --- runs --- */

static int rising(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* To the other and back, and once more: where the first actor has the lock for the first time, anywhere in the second one's
 * call, and in the first one's second call, for which a step of 3 is fine. */
#define SWEEP_FIRST 40u
#define SWEEP_SECOND 20u
#define SWEEP_THIRD 20u
#define SWEEP_RUNS (SWEEP_FIRST * SWEEP_SECOND * SWEEP_THIRD)

static struct turns_plan plan_swept(uint64_t run)
{
	struct turns_plan p = {.seed = run};

	p.at[0] = 1 + run % SWEEP_FIRST;
	p.at[1] = p.at[0] + 1 + run / SWEEP_FIRST % SWEEP_SECOND;
	p.at[2] = p.at[1] + 3 * (1 + run / (SWEEP_FIRST * SWEEP_SECOND) % SWEEP_THIRD);
	for (unsigned i = 3; i < SWITCHES_MAX; i++)
		p.at[i] = UINT64_MAX;
	return p;
}

static struct turns_plan plan_make(const struct story *story, uint64_t run)
{
	uint64_t rng = seed ^ run * 0x100000001b3ull;
	struct turns_plan p = {.seed = oracle_random(&rng), .ghost = ghost_die};
	unsigned switches = 1 + (unsigned)oracle_below(&rng, SWITCHES_MAX);
	bool close = oracle_below(&rng, 2);
	uint64_t length = story->length;

	p.first = (unsigned)oracle_below(&rng, story->actors);

	for (unsigned i = 0; i < SWITCHES_MAX; i++)
		p.at[i] = i < switches ? oracle_below(&rng, length) : UINT64_MAX;
	/* As many that follow each other closely as there are far ones. */
	for (unsigned i = 1; close && i < switches; i++)
		p.at[i] = p.at[i - 1] + 1 + oracle_below(&rng, 1ull << (1 + oracle_below(&rng, 7)));
	qsort(p.at, SWITCHES_MAX, sizeof(*p.at), rising);
	if (oracle_below(&rng, 2)) {
		p.die_at = 1 + oracle_below(&rng, length);
		p.die_id = (unsigned)oracle_below(&rng, story->actors);
	}
	if (oracle_below(&rng, 2))
		p.ghost_at = 1 + oracle_below(&rng, length);
	return p;
}

static uint64_t run_one(const struct story *story, uint64_t run)
{
	struct turns_plan plan = story->call_count ? plan_make(story, run) : plan_swept(run);
	uint64_t count;

	memfile_seed(run);
	base_load();
	cast_make(story, run);
	count = turns_run(cast, story->actors, &plan);
	kr_size = 0;
	if (!why[0])
		(void)ending(story, !plan.ghost_at || plan.ghost_at > count);
	for (unsigned i = 0; i < story->actors; i++)
		turns_bury(&cast[i]);
	return count;
}

static uint64_t current_run;
static const struct story *current;

static void on_crash(int signal)
{
	static char text[300];
	int n = snprintf(text, sizeof(text),
			 "violation: story \"%s\" ended by signal %d%s%s\n  replay: --seed %" PRIu64
			 " --story %d --run %" PRIu64 "\n0 passed, 1 failed\n",
			 current ? current->name : "", signal, why[0] ? ": " : "", why, seed,
			 current ? (int)(current - stories) : 0, current_run);

	(void)!write(1, text, (size_t)n);
	_exit(3);
}

static int story_tell(const struct story *story, uint64_t first, uint64_t runs)
{
	uint64_t accesses = 0;

	if (!story->call_count && runs > 1)
		runs = SWEEP_RUNS;

	current = story;
	for (uint64_t run = first; run < first + runs; run++) {
		current_run = run;
		alarm(60);
		accesses += run_one(story, run);
		if (!why[0])
			continue;
		printf("violation: story \"%s\": %s\n  replay: --seed %" PRIu64 " --story %d --run %" PRIu64
		       "%s\n",
		       story->name, why, seed, (int)(story - stories), run,
		       ph_mutant ? " (with the mutant)" : "");
		return -1;
	}
	printf("  story \"%s\": passed; %" PRIu64 " runs, %" PRIu64 " accesses\n", story->name, runs,
	       accesses);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"runs", 1, NULL, 'n'},	  {"seed", 1, NULL, 's'},
						{"story", 1, NULL, 'i'},  {"run", 1, NULL, 'r'},
						{"mutant", 1, NULL, 'm'}, {0}};
	uint64_t runs = 2000, only = UINT64_MAX, first = 0;
	unsigned passed = 0, failed = 0;
	int c;

	program_usage(usage);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'n':
			runs = program_number(optarg);
			break;
		case 's':
			seed = program_number(optarg);
			break;
		case 'i':
			only = program_number(optarg);
			break;
		case 'r':
			first = program_number(optarg);
			runs = 1;
			break;
		case 'm':
			ph_mutant = (int)program_number(optarg);
			break;
		default:
			program_misused();
		}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("kill-turns: seed %" PRIu64 "\n", seed);
	program_crashes_to(on_crash);
	ph_os = &memfile_os;
	file = memfile_get(0);
	base = calloc(1, MEMFILE_CAPACITY);
	if (!base)
		return 2;
	base_make();
	for (size_t i = 0; i < STORIES; i++) {
		if (only != UINT64_MAX && only != i)
			continue;
		if (story_tell(&stories[i], first, runs))
			failed++;
		else
			passed++;
		if (failed && ph_mutant)
			break; /* it is caught */
	}
	printf("seed %" PRIu64 ": %u passed, %u failed\n", seed, passed, failed);
	free(base);
	return failed != 0;
}
