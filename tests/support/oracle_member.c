/* SPDX-License-Identifier: MIT
 *
 * oracle_member.c: what belongs to processes: held references and permits, of the process that makes the transactions
 * and of another one beside it.
 *
 * Why the other one is a second handle and not a second process: one thread makes all calls, so a seed replays them; to
 * the library a handle is a member like any other.
 */
#include "oracle_steps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PERMITS_MAX 4u

static struct oracle_held *held_any(struct oracle *o, bool want)
{
	unsigned start = (unsigned)oracle_below(&o->rng, ORACLE_HELD);

	for (unsigned i = 0; i < ORACLE_HELD; i++) {
		struct oracle_held *e = &o->working.held[(start + i) % ORACLE_HELD];

		if ((e->block.off != 0) == want)
			return e;
	}
	return NULL;
}

static uint32_t *held_count(const struct oracle *o, struct oracle_held *e)
{
	return o->other_acts ? &e->theirs : &e->mine;
}

static void held_settle(struct oracle_held *e)
{
	if (oracle_held_count(e, ORACLE_BOTH) == 0)
		e->block.off = 0;
}

void oracle_gone(struct oracle *o, uint32_t who)
{
	struct oracle_model *models[2] = {&o->committed, &o->working};

	for (unsigned k = 0; k < 2; k++) {
		for (unsigned i = 0; i < ORACLE_HELD; i++) {
			struct oracle_held *e = &models[k]->held[i];

			e->mine = who & ORACLE_MINE ? 0 : e->mine;
			e->theirs = who & ORACLE_THEIRS ? 0 : e->theirs;
			held_settle(e);
		}
		for (unsigned i = 0; i < ORACLE_PERMITS; i++) {
			struct oracle_permits *p = &models[k]->permits[i];

			p->mine = who & ORACLE_MINE ? 0 : p->mine;
			p->theirs = who & ORACLE_THEIRS ? 0 : p->theirs;
		}
		for (unsigned i = 0; i < ORACLE_RESERVED && who & ORACLE_MINE; i++)
			models[k]->reserved[i].off = 0;
	}
}

/* --- inside a transaction --- */

/* The call must doom the transaction with this code. */
static int refused(struct oracle *o, const char *call, int rc, int want)
{
	if (rc == -ENOSPC || rc == -E2BIG)
		want = rc;
	if (rc != want)
		return oracle_wrong(o, "%s: %d (%s), expected %d", call, rc, pheap_error_detail(o->h), want);
	o->doomed = rc;
	return 0;
}

/* A block of a slot, to which nothing leads any more when it is held. */
static int hold_slot(struct oracle *o, struct oracle_held *e)
{
	struct oracle_block *b = oracle_some_block(o), spare = e->block;
	unsigned slot;
	int rc;

	if (!b)
		return 0;
	slot = (unsigned)(b - o->working.slots);
	rc = oracle_unname(o, b->off);
	if (rc || o->doomed)
		return rc;
	oracle_trace(o, " %#llx", (unsigned long long)b->off);
	oracle_enter(o, ORACLE_OP_HOLD);
	if (pheap_hold(o->h, pheap_at(o->h, b->off)))
		return oracle_failed(o, "hold");
	e->block = *b;
	e->mine = 1;
	e->theirs = 0;
	*b = spare; /* each keeps a buffer of its own */
	b->off = 0;
	return oracle_slot_word(o, slot, 0);
}

static int hold_new(struct oracle *o, struct oracle_held *e)
{
	size_t n = oracle_size(o);
	void *p;

	oracle_enter(o, ORACLE_OP_ALLOC);
	p = pheap_alloc(o->tx, n, 1);
	if (!p)
		return oracle_failed(o, "alloc");
	if (oracle_note_block(o, &e->block, p, n, 1))
		return -1;
	memcpy(e->block.bytes, oracle_noise(o, n), n);
	oracle_user_store(o, p, e->block.bytes, n);
	e->mine = e->theirs = 0;
	oracle_enter(o, ORACLE_OP_HOLD);
	if (pheap_hold(o->h, p))
		return oracle_failed(o, "hold");
	e->mine = 1;
	return 0;
}

int oracle_step_hold(struct oracle *o)
{
	struct oracle_held *e = held_any(o, oracle_below(&o->rng, 3) == 0);

	if (!e)
		return 0;
	if (e->block.off) {
		oracle_enter(o, ORACLE_OP_HOLD);
		if (pheap_hold(o->h, pheap_at(o->h, e->block.off)))
			return oracle_failed(o, "hold");
		e->mine++;
		return 0;
	}
	return oracle_below(&o->rng, 2) ? hold_slot(o, e) : hold_new(o, e);
}

/* Also what is refused: releasing what the other one holds, freeing what anybody holds. */
int oracle_step_release(struct oracle *o)
{
	struct oracle_held *e = held_any(o, true);
	const void *p;

	if (!e)
		return 0;
	p = pheap_at(o->h, e->block.off);
	oracle_trace(o, " %#llx (%u, %u)", (unsigned long long)e->block.off, e->mine, e->theirs);
	if (oracle_below(&o->rng, 6) == 0) {
		oracle_enter(o, ORACLE_OP_FREE);
		return refused(o, "free of what is held", pheap_free(o->tx, p), -EBUSY);
	}
	oracle_enter(o, ORACLE_OP_RELEASE);
	if (!e->mine)
		return refused(o, "release of the other's", pheap_release(o->h, p), -EPERM);
	if (pheap_release(o->h, p))
		return oracle_failed(o, "release");
	e->mine--;
	held_settle(e);
	return 0;
}

static void permits_name(char name[3], unsigned i)
{
	name[0] = ORACLE_PERMITS_NAME[0];
	name[1] = (char)('0' + i);
	name[2] = 0;
}

static int permits_new(struct oracle *o, unsigned i)
{
	struct oracle_permits *s = &o->working.permits[i];
	int64_t total = (int64_t)oracle_below(&o->rng, PERMITS_MAX + 1);
	const pheap_permits *p;
	char name[3];

	oracle_enter(o, ORACLE_OP_PERMITS_NEW);
	p = pheap_permits_new(o->tx, (uint64_t)total);
	if (!p)
		return oracle_failed(o, "permits_new");
	permits_name(name, i);
	if (pheap_root_set(o->tx, name, p))
		return oracle_failed(o, "root_set");
	*s = (struct oracle_permits){.off = pheap_offset(o->h, p), .total = total};
	return 0;
}

static int permits_delete(struct oracle *o, unsigned i)
{
	struct oracle_permits *s = &o->working.permits[i];
	const void *p = pheap_at(o->h, s->off);
	char name[3];

	oracle_enter(o, ORACLE_OP_PERMITS_DELETE);
	if (s->mine || s->theirs)
		return refused(o, "delete of a used semaphore", pheap_permits_delete(o->tx, p), -EBUSY);
	if (pheap_permits_delete(o->tx, p))
		return oracle_failed(o, "permits_delete");
	permits_name(name, i);
	if (pheap_root_set(o->tx, name, NULL))
		return oracle_failed(o, "root_set");
	*s = (struct oracle_permits){0};
	return 0;
}

int oracle_step_permits(struct oracle *o)
{
	unsigned i = (unsigned)oracle_below(&o->rng, ORACLE_PERMITS);

	if (!o->working.permits[i].off)
		return permits_new(o, i);
	return oracle_below(&o->rng, 2) ? permits_delete(o, i) : 0;
}

/* --- between transactions --- */

static pheap *actor(const struct oracle *o)
{
	return o->other_acts ? o->other : o->h;
}

/* 1: there was no room, and nothing happened. */
static int between_rc(struct oracle *o, const char *call, int rc, int want)
{
	if (rc == want)
		return 0;
	if (rc == -ENOSPC)
		return 1;
	return oracle_wrong(o, "%s: %d (%s), expected %d", call, rc, pheap_error_detail(actor(o)), want);
}

int oracle_member_hold(struct oracle *o)
{
	struct oracle_held *e = held_any(o, true);
	uint32_t *count;
	bool release;
	int rc;

	if (!e)
		return 0;
	release = oracle_below(&o->rng, 3) == 0;
	count = held_count(o, e);
	oracle_trace(o, " %#llx (%u, %u)", (unsigned long long)e->block.off, e->mine, e->theirs);
	oracle_enter(o, release ? ORACLE_OP_RELEASE : ORACLE_OP_HOLD);
	if (release) {
		rc = pheap_release(actor(o), pheap_at(actor(o), e->block.off));
		rc = between_rc(o, "release", rc, *count ? 0 : -EPERM);
		*count -= rc == 0 && *count;
	} else {
		rc = pheap_hold(actor(o), pheap_at(actor(o), e->block.off));
		rc = between_rc(o, "hold", rc, 0);
		*count += rc == 0;
	}
	held_settle(e);
	return rc < 0 ? rc : 0;
}

static int between_permits(struct oracle *o)
{
	unsigned i = (unsigned)oracle_below(&o->rng, ORACLE_PERMITS);
	struct oracle_permits *s = &o->working.permits[i];
	int64_t *balance = o->other_acts ? &s->theirs : &s->mine, n = 1 + (int64_t)oracle_below(&o->rng, 3);
	const void *p = pheap_at(actor(o), s->off);
	int rc, want = 0;

	if (!s->off)
		return 0;
	oracle_trace(o, " p%u n %d (%d of %d, %d)", i, (int)n, (int)s->mine, (int)s->total, (int)s->theirs);
	switch (oracle_below(&o->rng, 4)) {
	case 0:
		oracle_enter(o, ORACLE_OP_LEND);
		rc = pheap_permits_lend(actor(o), p, (uint64_t)n);
		n = -n;
		break;
	case 1:
		oracle_enter(o, ORACLE_OP_GIVE);
		want = *balance < n ? -EPERM : 0;
		rc = pheap_permits_give(actor(o), p, (uint64_t)n);
		n = -n;
		break;
	default:
		oracle_enter(o, ORACLE_OP_TAKE);
		want = s->total - s->mine - s->theirs < n ? -EAGAIN : 0;
		rc = pheap_permits_take(actor(o), p, (uint64_t)n, 0);
	}
	rc = between_rc(o, "take, give or lend", rc, want);
	*balance += rc == 0 && want == 0 ? n : 0;
	return rc < 0 ? rc : 0;
}

static int other_open(struct oracle *o)
{
	int rc;

	oracle_enter(o, ORACLE_OP_OPEN);
	rc = pheap_open(o->other_path, 0, NULL, &o->other);
	return rc ? oracle_wrong(o, "the other's open: %d (%s)", rc, pheap_error_detail(NULL)) : 0;
}

static int other_close(struct oracle *o)
{
	int rc;

	/* Cut anywhere it is a death, which takes all that it has. */
	oracle_gone(o, ORACLE_THEIRS);
	oracle_enter(o, ORACLE_OP_CLOSE);
	rc = pheap_close(o->other);
	o->other = NULL;
	return rc ? oracle_wrong(o, "the other's close: %d (%s)", rc, pheap_error_detail(NULL)) : 0;
}

/* What the caller has dies with it, so models of before and after do not differ for who comes then. */
int oracle_member_between(struct oracle *o)
{
	o->other_acts = o->other_path && oracle_below(&o->rng, 3);
	if (o->other_acts && !o->other)
		return other_open(o);
	if (o->other_acts && oracle_below(&o->rng, 8) == 0)
		return other_close(o);
	return oracle_below(&o->rng, 2) ? oracle_member_hold(o) : between_permits(o);
}
