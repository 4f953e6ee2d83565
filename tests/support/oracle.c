/* SPDX-License-Identifier: MIT
 *
 * oracle.c: whole transactions drawn from a seed: savepoints, nesting, ends; and blocks reserved between
 * them.
 */
#include "oracle_steps.h"

#include <stdlib.h>
#include <string.h>

const char *const oracle_op_names[ORACLE_OP_COUNT] = {
	"none",		  "open",   "close",	 "recovery", "begin",  "modify",   "user-store",
	"store",	  "defer",  "defer-u64", "alloc",    "zalloc", "aligned",  "dup",
	"realloc",	  "free",   "savepoint", "rollback", "root",   "root-set", "reserve",
	"publish",	  "cancel", "nest",	 "lock",     "hold",   "release",  "permits-new",
	"permits-delete", "take",   "give",	 "lend",     "trim",   "commit",   "abort",
};

/* --- savepoints and nesting --- */

static void push(struct oracle *o, bool nest, pheap_savepoint_id id)
{
	struct oracle_saved *s = &o->saved[o->saved_count++];

	oracle_model_copy(&s->model, &o->working);
	s->nest = nest;
	s->id = id;
}

static int step_savepoint(struct oracle *o)
{
	pheap_savepoint_id id = 0;

	if (o->saved_count == ORACLE_DEPTH)
		return 0;
	oracle_enter(o, ORACLE_OP_SAVEPOINT);
	if (pheap_savepoint(o->tx, &id))
		return oracle_failed(o, "savepoint");
	push(o, false, id);
	return 0;
}

static int step_rollback(struct oracle *o)
{
	unsigned low = o->saved_count, to;

	while (low && !o->saved[low - 1].nest)
		low--;
	if (low == o->saved_count)
		return 0;
	to = low + (unsigned)oracle_below(&o->rng, o->saved_count - low);
	oracle_trace(o, " to %u of %u", to, o->saved_count);
	oracle_enter(o, ORACLE_OP_ROLLBACK);
	if (pheap_rollback(o->tx, o->saved[to].id))
		return oracle_failed(o, "rollback");
	oracle_model_copy(&o->working, &o->saved[to].model);
	o->saved_count = to;
	o->doomed = 0;
	return 0;
}

static int step_nest(struct oracle *o)
{
	pheap_tx *tx;
	int rc;

	if (o->saved_count == ORACLE_DEPTH)
		return 0;
	oracle_enter(o, ORACLE_OP_NEST);
	rc = pheap_begin(o->h, PHEAP_NEST, &tx);
	if (rc) {
		o->doomed = rc;
		return rc == -ENOSPC ? 0
				     : oracle_wrong(o, "nested begin: %d (%s)", rc, pheap_error_detail(o->h));
	}
	if (tx != o->tx)
		return oracle_wrong(o, "nested begin returned another transaction");
	push(o, true, 0);
	return 0;
}

static int nest_end(struct oracle *o, bool commit)
{
	struct oracle_saved *s;
	int rc;

	while (o->saved_count && !o->saved[o->saved_count - 1].nest)
		o->saved_count--;
	if (!o->saved_count)
		return 0;
	s = &o->saved[--o->saved_count];
	if (!commit || o->doomed) {
		oracle_enter(o, ORACLE_OP_ABORT);
		pheap_abort(o->tx);
		oracle_model_copy(&o->working, &s->model);
		o->doomed = 0;
		return 0;
	}
	oracle_enter(o, ORACLE_OP_COMMIT);
	rc = pheap_commit(o->tx);
	return rc ? oracle_wrong(o, "nested commit: %d (%s)", rc, pheap_error_detail(o->h)) : 0;
}

/* --- reserved blocks --- */

static int between_reserved(struct oracle *o)
{
	unsigned i = (unsigned)oracle_below(&o->rng, ORACLE_RESERVED);
	struct oracle_block *b = &o->working.reserved[i];
	size_t n = oracle_size(o);
	int rc = 0;
	void *p;

	if (b->off) {
		oracle_enter(o, ORACLE_OP_CANCEL);
		pheap_cancel(o->h, (void *)(uintptr_t)pheap_at(o->h, b->off));
		b->off = 0;
	} else {
		oracle_enter(o, ORACLE_OP_RESERVE);
		p = pheap_reserve(o->h, n, 2);
		if (p) {
			rc = oracle_note_block(o, b, p, n, 2);
			if (!rc) {
				memcpy(b->bytes, oracle_noise(o, n), n);
				oracle_user_store(o, p, b->bytes, n);
			}
		}
	}
	return rc;
}

int oracle_between(struct oracle *o)
{
	int rc;

	o->trace_size = 0;
	o->phase = ORACLE_BEFORE;
	o->other_acts = false;
	rc = oracle_below(&o->rng, 3) ? oracle_member_between(o) : between_reserved(o);
	oracle_model_copy(&o->committed, &o->working);
	o->op = ORACLE_OP_NONE;
	return rc;
}

int oracle_trim(struct oracle *o)
{
	int rc;

	o->trace_size = 0;
	o->phase = ORACLE_BEFORE;
	o->other_acts = false;
	oracle_enter(o, ORACLE_OP_TRIM);
	rc = pheap_trim(o->h);
	o->op = ORACLE_OP_NONE;
	return rc ? oracle_wrong(o, "trim: %d (%s)", rc, pheap_error_detail(o->h)) : 0;
}

/* --- whole transactions --- */

static int step(struct oracle *o)
{
	switch (oracle_below(&o->rng, 31)) {
	case 0 ... 5:
		return oracle_step_change(o);
	case 6:
		return oracle_step_defer_u64(o);
	case 7:
		return oracle_below(&o->rng, 3) ? oracle_step_change(o) : oracle_step_storm(o);
	case 8 ... 11:
		return oracle_step_alloc(o);
	case 12:
	case 13:
		return oracle_step_realloc(o);
	case 14 ... 16:
		return oracle_step_free(o);
	case 17:
	case 18:
		return step_savepoint(o);
	case 19:
	case 24:
	case 25:
		return step_rollback(o);
	case 20:
		return oracle_step_root(o);
	case 21:
		return oracle_step_publish(o);
	case 22:
		return step_nest(o);
	case 26:
	case 27:
		return oracle_step_hold(o);
	case 28:
	case 29:
		return oracle_step_release(o);
	case 30:
		return oracle_step_permits(o);
	default:
		return nest_end(o, oracle_below(&o->rng, 2));
	}
}

static int begin(struct oracle *o)
{
	static const uint32_t modes[4] = {0, 0, PHEAP_CONCURRENT, PHEAP_CONCURRENT};
	uint32_t mode = modes[oracle_below(&o->rng, 4)];
	uint64_t keys[2] = {o->working.main_off, oracle_below(&o->rng, 1000)};
	int rc;

	oracle_enter(o, ORACLE_OP_BEGIN);
	rc = pheap_begin(o->h, mode, &o->tx);
	if (rc)
		return oracle_wrong(o, "begin: %d (%s)", rc, pheap_error_detail(o->h));
	if (!mode)
		return 0;
	oracle_enter(o, ORACLE_OP_LOCK);
	rc = pheap_lock(o->tx, keys, 2);
	return rc ? oracle_wrong(o, "lock: %d (%s)", rc, pheap_error_detail(o->h)) : 0;
}

static int bump(struct oracle *o)
{
	const struct oracle_main *main = pheap_at(o->h, o->working.main_off);
	uint64_t seq = o->committed.main.seq + 1;

	oracle_enter(o, ORACLE_OP_STORE);
	if (pheap_store(o->tx, &main->seq, &seq, sizeof(seq)))
		return oracle_failed(o, "store");
	o->working.main.seq = seq;
	return 0;
}

static int finish(struct oracle *o)
{
	int rc;

	if (oracle_below(&o->rng, 5) == 0) {
		oracle_enter(o, ORACLE_OP_ABORT);
		pheap_abort(o->tx);
		oracle_model_copy(&o->working, &o->committed);
		return 0;
	}
	if (!o->doomed && bump(o))
		return -1;
	oracle_enter(o, ORACLE_OP_COMMIT);
	o->phase = ORACLE_EITHER;
	if (o->commit)
		rc = o->commit(o);
	else
		rc = oracle_below(&o->rng, 4) ? pheap_commit(o->tx) : pheap_end(o->tx, 0);
	if (rc) {
		oracle_model_copy(&o->working, &o->committed);
		if (rc == o->doomed || (!o->doomed && (rc == -ENOSPC || rc == -E2BIG)))
			return 0;
		return oracle_wrong(o, "commit: %d (%s), expected %d", rc, pheap_error_detail(o->h),
				    o->doomed);
	}
	o->phase = ORACLE_AFTER;
	o->commit_count++;
	return o->doomed ? oracle_wrong(o, "a doomed transaction committed") : 0;
}

int oracle_tx(struct oracle *o)
{
	unsigned steps = 1 + (unsigned)oracle_below(&o->rng, o->step_max);
	int rc;

	o->trace_size = 0;
	o->phase = ORACLE_BEFORE;
	o->saved_count = 0;
	o->doomed = 0;
	o->other_acts = false;
	o->tx_count++;
	for (unsigned i = 0; i < ORACLE_SLOTS; i++)
		o->working.slots[i].deferred = false;
	rc = begin(o);
	while (!rc && steps--) {
		if (o->doomed && !o->saved_count)
			break;
		if (o->doomed)
			rc = oracle_below(&o->rng, 2) ? step_rollback(o) : nest_end(o, false);
		else
			rc = step(o);
		if (!rc && o->pause)
			o->pause(o);
	}
	while (!rc && o->saved_count)
		rc = nest_end(o, true);
	rc = rc ? rc : finish(o);
	o->op = ORACLE_OP_NONE;
	return rc;
}

void oracle_settle(struct oracle *o)
{
	oracle_model_copy(&o->committed, &o->working);
	o->phase = ORACLE_BEFORE;
}

/* --- lifetime --- */

struct pheap_options oracle_options(uint64_t seed)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;

	opt.durability = PHEAP_PROCESS;
	opt.mode = 0600;
	opt.max_size = (192u + 64u * (seed / 2 % 4)) << 10;
	opt.initial_size = seed % 2 ? opt.max_size : 65536;
	opt.journal_size = seed / 3 % 2 ? 0 : 65536;
	opt.member_count =
		5; /* this one, the other one, one who joins, one who joins after that one's death; and one more */
	opt.lane_count = 9; /* two for each, and one that keeps a searcher busy */
	return opt;
}

static void reset(struct oracle *o, pheap *h, uint64_t seed)
{
	memset(o, 0, sizeof(*o));
	o->h = h;
	o->rng = seed;
	o->block_size_max = 24000;
	o->step_max = 14;
}

int oracle_start(struct oracle *o, pheap *h, uint64_t seed)
{
	struct oracle_main *main;
	int rc;

	reset(o, h, seed);
	rc = pheap_begin(h, 0, &o->tx);
	if (rc)
		return oracle_wrong(o, "begin: %d (%s)", rc, pheap_error_detail(h));
	main = (void *)(uintptr_t)pheap_root(o->tx, "oracle", sizeof(*main), ORACLE_MAIN_TYPE);
	if (!main)
		return oracle_wrong(o, "root: %d (%s)", pheap_error(o->tx), pheap_error_detail(h));
	o->working.main.magic = 0x6f7261636c65ull;
	rc = pheap_store(o->tx, main, &o->working.main, sizeof(*main));
	rc = rc ? rc : pheap_commit(o->tx);
	if (rc)
		return oracle_wrong(o, "first commit: %d (%s)", rc, pheap_error_detail(h));
	o->working.main_off = pheap_offset(h, main);
	o->working.main_usable = pheap_usable_size(h, main);
	oracle_settle(o);
	return 0;
}

void oracle_resume(struct oracle *o, pheap *h, const struct oracle_model *m, uint64_t seed)
{
	reset(o, h, seed);
	oracle_model_copy(&o->working, m);
	oracle_settle(o);
	oracle_gone(o, ORACLE_BOTH);
}

void oracle_end(struct oracle *o)
{
	oracle_model_free(&o->committed);
	oracle_model_free(&o->working);
	for (unsigned i = 0; i < ORACLE_DEPTH; i++)
		oracle_model_free(&o->saved[i].model);
}
