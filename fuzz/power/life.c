/* SPDX-License-Identifier: MIT
 *
 * life.c: see life.h.
 */
#include "life.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "layout.h"
#include "oracle_steps.h"
#include "os.h"
#include "runtime.h"
#include "thread.h"

#define SIDE_NAME "x"
#define TRIM_LIVES 3u /* one in so many trims its heap, */
#define TRIM_STEPS 4u /* after so many steps */
#define SIDE_WORDS 80u
#define SIDE_WORD(n, i) ((uint64_t)(n)*UINT64_C(0x9e3779b97f4a7c15) * ((i) + 1))
#define SIDE_WAIT_NS 300000000ull /* so long that it takes what it waits for away */

struct life *life_now;
uint32_t life_boots;
uint64_t life_inside_count;

/* --- recording --- */

static void bounds(struct disk_bounds *ret, uint8_t *ret_op)
{
	const struct life *l = life_now;
	uint16_t seen = (uint16_t)(l->count - 1), after = l->oracle.phase == ORACLE_AFTER;

	*ret_op = (uint8_t)l->oracle.op;
	*ret = (struct disk_bounds){
		.low = l->low,
		.seen = (uint16_t)(seen + after),
		.high = (uint16_t)(seen + (l->oracle.phase != ORACLE_BEFORE)),
		.side_low = l->side_low,
		.side_seen = l->side_count,
		.side_high = l->side_high,
	};
	if (l->starting)
		*ret = (struct disk_bounds){.high = 1};
	if (after && l->acks)
		ret->low = ret->seen;
	if (!l->disk.file->named)
		ret->low = UINT16_MAX; /* nobody can open it */
	if (l->recovering)
		*ret = (struct disk_bounds){.low = l->first, .high = UINT16_MAX, .side_high = UINT16_MAX};
}

void life_init(struct life *l, unsigned depth)
{
	memset(l, 0, sizeof(*l));
	l->depth = depth;
	l->models = calloc(LIFE_MODELS, sizeof(*l->models));
	if (!l->models)
		abort();
	disk_init(&l->disk, memfile_get(depth));
	l->disk.bounds = bounds;
}

void life_free(struct life *l)
{
	for (unsigned i = 0; i < LIFE_MODELS; i++)
		oracle_model_free(&l->models[i]);
	free(l->models);
	disk_free(&l->disk);
}

void life_enter(struct life *l, uint8_t *stale)
{
	life_now = l;
	memfile_boot(l->boot);
	disk_watch(l->disk.file, &l->disk, stale);
}

void life_leave(struct life *l)
{
	(void)l;
	kr_atomic = NULL;
	disk_unwatch();
}

static void model_push(struct life *l)
{
	if (l->count == LIFE_MODELS)
		abort();
	oracle_model_copy(&l->models[l->count++], &l->oracle.working);
	oracle_settle(&l->oracle);
}

static void all_acknowledged(struct life *l)
{
	l->low = (uint16_t)(l->count - 1);
	l->side_low = l->side_count;
}

/* --- the second member's object --- */

/* Answers of one who was disturbed, or found no room. */
static bool harmless(int rc)
{
	return rc == -EAGAIN || rc == -ETIMEDOUT || rc == -EDEADLK || rc == -ENOSPC || rc == -E2BIG ||
	       rc == -EUSERS || rc == PHEAP_EACTIVE;
}

static int side_failed(struct life *l, pheap *h, const char *call, int rc)
{
	if (harmless(rc))
		return 0;
	return oracle_wrong(&l->oracle, "second member: %s: %d (%s; %s)", call, rc, pheap_strerror(rc),
			    pheap_error_detail(h));
}

static int side_commit(struct life *l, pheap *h, pheap_tx *tx)
{
	bool wait = l->process || oracle_below(&l->rng, 2);
	uint64_t lsn;
	int rc;

	l->side_high = (uint16_t)(l->side_count + 1);
	rc = wait ? pheap_commit(tx) : pheap_commit_async(tx, &lsn);
	if (rc) {
		l->side_high = l->side_count;
		return side_failed(l, h, "commit", rc);
	}
	l->side_count++;
	if (wait && l->sync)
		l->side_low = l->side_count;
	if (!wait && !l->side_lsn) {
		l->side_lsn = lsn;
		l->side_told = l->side_count;
	}
	return 0;
}

/* Whatever has made it durable meanwhile: it is told so, and stays. */
static void side_ask(struct life *l)
{
	if (!l->oracle.other || !l->side_lsn || pheap_wait(l->oracle.other, l->side_lsn, 0) != 0)
		return;
	l->side_lsn = 0;
	if (l->side_told > l->side_low)
		l->side_low = l->side_told;
}

static int side_change(struct life *l, pheap *h)
{
	uint64_t off = l->models[l->count - 1].extra_off, image[SIDE_WORDS], *p;
	pheap_tx *tx;
	int rc;

	rc = pheap_begin(h, PHEAP_CONCURRENT | PHEAP_NOWAIT, &tx);
	if (rc)
		return side_failed(l, h, "begin", rc);
	rc = pheap_lock(tx, &off, 1);
	p = rc ? NULL : pheap_modify(tx, pheap_at(h, off), sizeof(image));
	if (!p) {
		rc = rc ? rc : pheap_error(tx);
		pheap_abort(tx);
		return side_failed(l, h, "lock or modify", rc);
	}
	for (unsigned i = 0; i < SIDE_WORDS; i++)
		image[i] = SIDE_WORD(l->side_count + 1, i);
	kr_copy(p, image, sizeof(image));
	if (oracle_below(&l->rng, 6) == 0) {
		pheap_abort(tx);
		return 0;
	}
	return side_commit(l, h, tx);
}

/* The two halves of the object in two calls, with anything in between. */
static int side_half(struct life *l, unsigned half)
{
	uint64_t off = l->models[l->count - 1].extra_off + half * SIDE_WORDS * 4, image[SIDE_WORDS / 2], *p;
	int rc;

	p = pheap_modify(l->side_tx, pheap_at(l->oracle.other, off), sizeof(image));
	if (!p) {
		rc = pheap_error(l->side_tx);
		pheap_abort(l->side_tx);
		l->side_tx = NULL;
		return side_failed(l, l->oracle.other, "modify", rc);
	}
	for (unsigned i = 0; i < SIDE_WORDS / 2; i++)
		image[i] = SIDE_WORD(l->side_count + 1, half * SIDE_WORDS / 2 + i);
	kr_copy(p, image, sizeof(image));
	return 0;
}

/* Without a lock, which might be one that the first member asks for. */
static int side_begin(struct life *l)
{
	int rc = pheap_begin(l->oracle.other, PHEAP_CONCURRENT | PHEAP_NOWAIT, &l->side_tx);

	if (!rc)
		return side_half(l, (unsigned)oracle_below(&l->rng, 2));
	l->side_tx = NULL;
	return side_failed(l, l->oracle.other, "begin", rc);
}

static int side_end(struct life *l)
{
	pheap_tx *tx;

	if (oracle_below(&l->rng, 2) || side_half(l, 0) || !l->side_tx || side_half(l, 1)) {
		if (l->side_tx)
			pheap_abort(l->side_tx);
		l->side_tx = NULL;
		return l->oracle.why[0] ? -1 : 0;
	}
	tx = l->side_tx;
	l->side_tx = NULL;
	return tx ? side_commit(l, l->oracle.other, tx) : 0;
}

/* A transaction of the second member that lasts. */
static int side_long(struct life *l)
{
	if (!l->side_tx)
		return side_begin(l);
	return oracle_below(&l->rng, 4) ? side_half(l, (unsigned)oracle_below(&l->rng, 2)) : side_end(l);
}

static int side_create(struct life *l)
{
	pheap_tx *tx;
	const void *p;
	int rc;

	rc = pheap_begin(l->oracle.h, 0, &tx);
	if (rc)
		return oracle_wrong(&l->oracle, "begin: %d", rc);
	p = pheap_root(tx, SIDE_NAME, SIDE_WORDS * 8, ORACLE_MAIN_TYPE);
	l->oracle.phase = ORACLE_EITHER;
	l->oracle.working.extra_off = pheap_offset(l->oracle.h, p);
	rc = pheap_commit(tx);
	if (rc)
		return oracle_wrong(&l->oracle, "second object: %d (%s)", rc,
				    pheap_error_detail(l->oracle.h));
	model_push(l);
	return 0;
}

static int side_check(const struct life *l, pheap *h, const struct oracle_model *m,
		      const struct disk_bounds *b, uint16_t *ret, char *why, size_t n)
{
	const uint64_t *p = pheap_find(h, SIDE_NAME);
	unsigned found = b->side_low > l->side_first ? b->side_low : l->side_first;

	*ret = 0;
	if (pheap_offset(h, p) != m->extra_off)
		return snprintf(why, n, "the second object is %#llx, expected %#llx",
				(unsigned long long)pheap_offset(h, p), (unsigned long long)m->extra_off),
		       -1;
	if (!p)
		return 0;
	while (found < b->side_high && found < l->side_high && p[0] != SIDE_WORD(found, 0))
		found++;
	for (unsigned i = 0; i < SIDE_WORDS; i++)
		if (p[i] != SIDE_WORD(found, i)) {
			snprintf(why, n, "second object: word %u is not of commit %u (allowed: %u to %u)", i,
				 found, l->side_first > b->side_low ? l->side_first : b->side_low,
				 b->side_high < l->side_high ? b->side_high : l->side_high);
			return -1;
		}
	*ret = (uint16_t)found;
	return 0;
}

/* --- what the second member does inside of a call of the first --- */

static int act_once(struct life *l, pheap *h)
{
	int rc;

	side_ask(l);
	switch (l->process ? 0 : oracle_below(&l->rng, 6)) {
	case 0:
		return l->side_tx ? 0 : side_change(l, h);
	case 1:
	case 2:
		return side_long(l);
	default:
		rc = pheap_checkpoint(h);
	}
	if (rc)
		return side_failed(l, h, "checkpoint", rc);
	all_acknowledged(l);
	return 0;
}

static void act(struct life *l)
{
	uint64_t n = 1 + oracle_below(&l->rng, 4);

	l->inside = true;
	/* Whomever it waits for stands still until it returns: a few tries show what ten seconds of them would. */
	l->oracle.other->lock_timeout_ns = SIDE_WAIT_NS;
	oracle_trace(&l->oracle, " <other:");
	while (n-- && act_once(l, l->oracle.other) == 0)
		;
	oracle_trace(&l->oracle, ">");
	l->inside = false;
}

/* A lane is behind its commit point, or the epoch is being switched. */
static bool is_between(const struct life *l)
{
	const struct phd_super *s = (const void *)l->disk.file->bytes;
	const struct phd_lane *lanes = (const void *)(l->disk.file->bytes + s->lane_off);
	const struct phd_coord *c = (const void *)(l->disk.file->bytes + s->coord_off);

	if (c->epoch & 1)
		return true;
	for (uint32_t i = 0; i < s->lane_count; i++)
		if (PHD_STATE_STEP(lanes[i].state) > PHD_STEP_ACTIVE)
			return true;
	return false;
}

static void on_atomic(void)
{
	struct life *l = life_now;

	if (l->aims && !l->inside && is_between(l)) {
		l->aims = false;
		l->countdown = 1 + oracle_below(&l->rng, 32);
	}

	if (l->inside || !l->countdown || --l->countdown)
		return;
	life_inside_count++;
	act(l);
}

static void arm(struct life *l)
{
	uint64_t bits = 4 + oracle_below(&l->rng, 8);

	if (!l->oracle.other || !l->models[l->count - 1].extra_off || oracle_below(&l->rng, 3) == 0)
		return;
	l->countdown = 1 + oracle_below(&l->rng, 1ull << bits);
	l->aims = false;
	kr_atomic = on_atomic;
}

/* Not after so many accesses, but where others could tell that something is under way. */
static void aim(struct life *l)
{
	if (l->countdown && oracle_below(&l->rng, 2)) {
		l->countdown = 0;
		l->aims = true;
	}
}

static void disarm(struct life *l)
{
	l->countdown = 0;
	l->aims = false;
	kr_atomic = NULL;
}

/* Between the calls of a transaction. */
static void pause_act(struct oracle *o)
{
	struct life *l = life_now;

	if (!l->countdown && o->other && oracle_below(&l->rng, 6) == 0)
		arm(l);
	if (o->other && l->models[l->count - 1].extra_off && oracle_below(&l->rng, 6) == 0)
		act(l);
}

/* --- steps --- */

static int commit(struct oracle *o)
{
	struct life *l = life_now;
	uint64_t lsn = 0;
	int rc;

	if (!l->countdown)
		arm(l);
	aim(l);
	if (l->process || oracle_below(&l->rng, 8) > 2) {
		l->acks = l->sync;
		rc = oracle_below(&l->rng, 4) ? pheap_commit(o->tx) : pheap_end(o->tx, 0);
		l->acks = l->acks && !rc;
		return rc;
	}
	oracle_trace(o, "-async");
	rc = pheap_commit_async(o->tx, &lsn);
	if (!rc) {
		unsigned i = (unsigned)oracle_below(&l->rng, LIFE_TICKETS);

		l->tickets[i].lsn = lsn;
		l->tickets[i].model = l->count;
	}
	return rc;
}

static int step_transaction(struct life *l)
{
	int rc;

	l->acks = false;
	rc = oracle_tx(&l->oracle);
	disarm(l);
	if (l->side_tx) {
		int ended = side_end(l);

		rc = rc ? rc : ended;
	}
	if (rc || l->oracle.why[0])
		return -1;
	if (l->oracle.working.main.seq == l->oracle.committed.main.seq) {
		oracle_settle(&l->oracle);
		return 0;
	}
	model_push(l);
	if (l->acks)
		l->low = (uint16_t)(l->count - 1);
	l->acks = false;
	return 0;
}

static int step_wait(struct life *l)
{
	unsigned i = (unsigned)oracle_below(&l->rng, LIFE_TICKETS);
	bool asks = oracle_below(&l->rng, 3) == 0;
	int rc;

	if (!l->tickets[i].lsn)
		return 0;
	oracle_trace(&l->oracle, " wait");
	rc = pheap_wait(l->oracle.h, l->tickets[i].lsn, asks ? 0 : -1);
	if (rc && !(asks && rc == -EAGAIN))
		return oracle_wrong(&l->oracle, "wait: %d (%s)", rc, pheap_error_detail(l->oracle.h));
	if (!rc && l->tickets[i].model > l->low)
		l->low = l->tickets[i].model;
	return 0;
}

static int step_checkpoint(struct life *l)
{
	pheap *h = l->oracle.other && oracle_below(&l->rng, 2) ? l->oracle.other : l->oracle.h;
	uint16_t side = l->side_count; /* what is done meanwhile may come too late */
	int rc;

	if (l->process)
		return 0;
	oracle_trace(&l->oracle, " checkpoint");
	if (h == l->oracle.h) {
		arm(l);
		aim(l);
	}
	rc = pheap_checkpoint(h);
	disarm(l);
	side_ask(l);
	if (l->side_tx && side_end(l))
		return -1;
	if (rc)
		return oracle_wrong(&l->oracle, "checkpoint: %d (%s)", rc, pheap_error_detail(h));
	l->low = (uint16_t)(l->count - 1);
	if (side > l->side_low)
		l->side_low = side;
	return 0;
}

static int step_trim(struct life *l)
{
	int rc;

	arm(l);
	aim(l);
	rc = oracle_trim(&l->oracle);
	disarm(l);
	side_ask(l);
	return l->side_tx && side_end(l) ? -1 : rc;
}

/* As fork leaves a handle in the child: it has no descriptor and no mapping, and touches nothing. */
static int step_death(struct life *l)
{
	pheap *h = l->oracle.other;
	int rc;

	if (!h)
		return 0;
	oracle_trace(&l->oracle, " the other dies, recover");
	memfile_die(h->fd);
	cds_list_del(&h->node);
	h->forked = true;
	ph_thread_heap_close(h);
	ph_alloc_close(h);
	if (pheap_close(h))
		return oracle_wrong(&l->oracle, "close of the dead");
	l->oracle.other = NULL;
	oracle_gone(&l->oracle, ORACLE_THEIRS);
	l->oracle.op = ORACLE_OP_RECOVERY;
	rc = pheap_recover(l->oracle.h, NULL);
	l->oracle.op = ORACLE_OP_NONE;
	return rc ? oracle_wrong(&l->oracle, "recover: %d (%s)", rc, pheap_error_detail(l->oracle.h)) : 0;
}

static int step_close(struct life *l)
{
	int rc;

	l->oracle.other_acts = false;
	oracle_gone(&l->oracle, ORACLE_MINE);
	memset(l->tickets, 0, sizeof(l->tickets));
	oracle_trace(&l->oracle, " close");
	l->oracle.op = ORACLE_OP_CLOSE;
	rc = pheap_close(l->oracle.h);
	l->oracle.op = ORACLE_OP_NONE;
	l->oracle.h = NULL;
	if (rc)
		return oracle_wrong(&l->oracle, "close: %d (%s)", rc, pheap_error_detail(NULL));
	if (!l->oracle.other) {
		all_acknowledged(l);
		l->closed = true;
	}
	return LIFE_CLOSED;
}

int life_open(struct life *l)
{
	char path[16];
	int rc;

	snprintf(path, sizeof(path), "mem:%u", l->depth);
	if (l->closed && oracle_below(&l->rng, 3) == 0) {
		l->boot = ++life_boots;
		memfile_boot(l->boot);
	}
	l->closed = false;
	oracle_trace(&l->oracle, " open");
	l->oracle.op = ORACLE_OP_OPEN;
	rc = pheap_open(path, 0, NULL, &l->oracle.h);
	l->oracle.op = ORACLE_OP_NONE;
	return rc ? oracle_wrong(&l->oracle, "open: %d (%s)", rc, pheap_error_detail(NULL)) : 0;
}

int life_join(struct life *l)
{
	int rc = l->oracle.other || !l->oracle.h
			 ? 0
			 : pheap_open(l->oracle.other_path, 0, NULL, &l->oracle.other);

	return rc ? oracle_wrong(&l->oracle, "the other's open: %d (%s)", rc, pheap_error_detail(NULL)) : 0;
}

static int step_side(struct life *l)
{
	pheap *h = l->oracle.other && oracle_below(&l->rng, 2) ? l->oracle.other : l->oracle.h;

	if (!l->models[l->count - 1].extra_off)
		return 0;
	oracle_trace(&l->oracle, " side");
	return side_change(l, h);
}

static int step(struct life *l)
{
	int rc;

	l->oracle.trace_size = 0;
	l->oracle.trace[0] = 0;
	l->oracle.phase = ORACLE_BEFORE;
	/* In place of what else would be drawn, so that lives without it are what they were. */
	if (l->trims && ++l->steps % TRIM_STEPS == 0)
		return step_trim(l);
	switch (oracle_below(&l->rng, 20)) {
	case 0:
		return step_close(l);
	case 1:
		return oracle_below(&l->rng, 3) ? 0 : step_death(l);
	case 2 ... 5:
		rc = oracle_between(&l->oracle);
		return rc;
	case 6:
		return step_wait(l);
	case 7:
		return step_checkpoint(l);
	case 8:
	case 9:
		return step_side(l);
	default:
		return step_transaction(l);
	}
}

int life_step(struct life *l)
{
	int rc = step(l);

	if (rc < 0 || !l->disk.file->fault)
		return rc;
	return oracle_wrong(&l->oracle, "a store into a hole, at %#llx: a bus error on a full disk",
			    (unsigned long long)l->disk.file->fault - 1);
}

/* --- beginning and end --- */

static void hooks(struct life *l)
{
	static char paths[LIVES][16];

	snprintf(paths[l->depth], sizeof(paths[0]), "mem:%u+", l->depth);
	l->oracle.other_path = paths[l->depth];
	l->oracle.store = kr_copy;
	l->oracle.commit = commit;
	l->oracle.pause = pause_act;
}

int life_create(struct life *l, uint64_t seed, uint32_t durability, uint64_t wal_size)
{
	static const size_t block_max[] = {300, 3000, 24000, 24000};
	struct pheap_options opt = oracle_options(seed);
	char path[16];
	pheap *h;
	int rc;

	opt.durability = durability;
	if (durability != PHEAP_PROCESS) {
		opt.journal_size = wal_size ? wal_size : seed / 3 % 2 ? 32768 : 65536;
		opt.max_size += 2 * opt.journal_size + 65536;
		opt.initial_size = seed % 2 ? opt.max_size : opt.initial_size;
	}
	l->rng = seed;
	l->sync = durability == PHEAP_SYNC;
	l->exact = false;
	l->process = durability == PHEAP_PROCESS;
	l->closed = l->recovering = l->acks = l->inside = false;
	l->countdown = 0;
	l->aims = false;
	l->trims = seed % TRIM_LIVES == 1;
	l->steps = 0;
	l->side_tx = NULL;
	l->side_lsn = 0;
	l->first = l->low = l->side_first = l->side_low = l->side_count = l->side_high = 0;
	l->count = 1; /* the empty heap */
	memset(l->tickets, 0, sizeof(l->tickets));
	oracle_model_free(&l->models[0]);
	memset(&l->oracle, 0, sizeof(l->oracle));
	snprintf(path, sizeof(path), "mem:%u", l->depth);
	rc = pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &opt, &h);
	if (rc)
		return oracle_wrong(&l->oracle, "create: %d (%s)", rc, pheap_error_detail(NULL));
	l->starting = true;
	rc = oracle_start(&l->oracle, h, seed);
	l->starting = false;
	if (rc)
		return rc;
	l->count = 1;
	oracle_model_copy(&l->models[l->count++], &l->oracle.committed);
	l->low = l->sync ? 1 : 0;
	hooks(l);
	l->oracle.block_size_max = block_max[oracle_below(&l->rng, 4)];
	if (oracle_below(&l->rng, 3) == 0 && l->oracle.block_size_max > 16384)
		l->oracle.block_size_min = 16385; /* whole chunks, freed and taken again */
	l->oracle.step_max = 2 + (unsigned)oracle_below(&l->rng, 14);
	return side_create(l);
}

void life_resume(struct life *l, pheap *h, uint16_t m, uint16_t side, uint64_t seed)
{
	oracle_resume(&l->oracle, h, &l->models[m], seed);
	hooks(l);
	l->oracle.block_size_max = 24000;
	l->oracle.step_max = 6;
	l->rng = seed;
	l->count = (uint16_t)(m + 1);
	l->side_count = l->side_high = side;
	l->closed = l->recovering = l->acks = l->inside = false;
	l->countdown = 0;
	l->aims = false;
	l->side_tx = NULL;
	l->side_lsn = 0;
	memset(l->tickets, 0, sizeof(l->tickets));
}

int life_end(struct life *l)
{
	int rc;

	disarm(l);
	if (l->oracle.h && pheap_current(l->oracle.h))
		pheap_abort(pheap_current(l->oracle.h));
	rc = pheap_close(l->oracle.h);
	rc = pheap_close(l->oracle.other) || rc ? -1 : 0;
	l->oracle.h = l->oracle.other = NULL;
	oracle_end(&l->oracle);
	return rc;
}

/* --- what was found --- */

int life_match(const struct life *l, pheap *h, const struct memfile *f, const struct disk_bounds *b,
	       uint16_t *ret_side, char *why, size_t n)
{
	int high = b->high < l->count ? b->high : l->count - 1, low = b->low > l->first ? b->low : l->first;
	const struct oracle_main *main = pheap_find(h, "oracle");
	char reason[300] = "no such commit";

	if (memfile_space_check(f, why, n))
		return -1;
	for (int i = high; i >= low; i--) {
		const struct oracle_model *m = &l->models[i];

		if (main && m->main_off && main->seq != m->main.seq)
			continue;
		if (oracle_check(h, m, 0, reason, sizeof(reason)) == 0 &&
		    side_check(l, h, m, b, ret_side, reason, sizeof(reason)) == 0)
			return oracle_structure(f->bytes, f->size, 0, why, n) ? -1 : i;
	}
	snprintf(why, n, "commit %lld is found, allowed: %llu to %llu (states %d to %d): %s",
		 main ? (long long)main->seq : -1ll, (unsigned long long)l->models[low].main.seq,
		 (unsigned long long)l->models[high].main.seq, low, high, reason);
	return -1;
}
