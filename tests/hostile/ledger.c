/* SPDX-License-Identifier: MIT
 *
 * ledger.c: see ledger.h.
 *
 * A table, found by its root, has the offsets of blocks in slots and, in two pages, the number of the last
 * transaction. Each transaction changes some slots, in each of the ways that there are to change something.
 */
#include "ledger.h"

#include <stdio.h>
#include <string.h>

#include "drive.h"

#define TYPE_TABLE 20u
#define TYPE_BLOCK 21u
#define STEPS_MAX 4u
#define IN_PLACE_MAX 2000u
#define DEFER_MAX 600u

struct table {
	uint64_t number;
	pheap_off slots[LEDGER_SLOTS];
	char between[8192];
	uint64_t again;
};

/* One transaction. */
struct change {
	pheap *h;
	pheap_tx *tx;
	const struct table *table;
	struct ledger *to;
	struct rng rng;
	uint64_t number;
	uint32_t touched; /* slots */
	uint64_t *reserved;
	uint32_t reserved_size;
};

/* A block says what it should hold. */
static void fill(uint64_t *p, uint32_t size, uint64_t stamp)
{
	for (uint32_t i = 2; i < size / 8; i++)
		p[i] = stamp + i * 0x9e3779b97f4a7c15ull;
	p[0] = stamp;
	p[1] = size;
}

static bool filled(const uint64_t *p)
{
	for (uint32_t i = 2; i < p[1] / 8; i++)
		if (p[i] != p[0] + i * 0x9e3779b97f4a7c15ull)
			return false;
	return true;
}

/* Large ones in some slots only: the heap is small. */
static uint32_t some_size(struct rng *r, uint32_t slot)
{
	static const uint32_t sizes[] = {24, 48, 200, 600, 2000, 2000, 5000, 20000, 70000};

	return sizes[rng_below(r, slot == 0 ? 9 : slot < 3 ? 8 : slot < 6 ? 7 : 5)];
}

static uint64_t stamp_of(const struct change *c, uint32_t slot)
{
	return c->number << 8 | slot;
}

static void note(struct change *c, uint32_t slot, uint32_t size)
{
	c->to->sizes[slot] = size;
	c->to->stamps[slot] = size ? stamp_of(c, slot) : 0;
}

static const void *block_at(const struct change *c, uint32_t slot)
{
	return pheap_at(c->h, c->table->slots[slot]);
}

static int slot_set(struct change *c, uint32_t slot, const void *p)
{
	pheap_off off = p ? pheap_offset(c->h, p) : 0, old = c->table->slots[slot];
	int rc = slot % 2 ? pheap_defer_u64(c->tx, &c->table->slots[slot], off)
			  : pheap_store(c->tx, &c->table->slots[slot], &off, sizeof(off));

	if (rc == 0 && old)
		rc = pheap_free(c->tx, pheap_at(c->h, old));
	return rc;
}

/* ---- steps ---- */

static int step_replace(struct change *c, uint32_t slot)
{
	uint32_t size = some_size(&c->rng, slot);
	uint64_t *p = pheap_alloc(c->tx, size, TYPE_BLOCK);

	if (!p)
		return pheap_error(c->tx);
	fill(p, size, stamp_of(c, slot));
	note(c, slot, size);
	return slot_set(c, slot, p);
}

static int step_publish(struct change *c, uint32_t slot)
{
	int rc;

	if (!c->reserved)
		return 0;
	fill(c->reserved, c->reserved_size, stamp_of(c, slot));
	rc = pheap_publish(c->tx, c->reserved);
	if (rc)
		return rc;
	note(c, slot, c->reserved_size);
	rc = slot_set(c, slot, c->reserved);
	c->reserved = NULL;
	return rc;
}

static int step_in_place(struct change *c, uint32_t slot)
{
	uint32_t size = c->to->sizes[slot];
	uint64_t *p;

	if (!size || size > IN_PLACE_MAX)
		return 0;
	p = pheap_modify(c->tx, block_at(c, slot), size);
	if (!p)
		return pheap_error(c->tx);
	fill(p, size, stamp_of(c, slot));
	note(c, slot, size);
	return 0;
}

static int step_defer(struct change *c, uint32_t slot)
{
	uint32_t size = c->to->sizes[slot];
	uint64_t bytes[DEFER_MAX / 8];

	if (!size || size > DEFER_MAX)
		return 0;
	fill(bytes, size, stamp_of(c, slot));
	note(c, slot, size);
	return pheap_defer(c->tx, block_at(c, slot), bytes, size);
}

static int step_free(struct change *c, uint32_t slot)
{
	note(c, slot, 0);
	return slot_set(c, slot, NULL);
}

/* What leaves no trace. */
static int step_rollback(struct change *c, uint32_t slot)
{
	pheap_savepoint_id sp;
	uint64_t *p;
	int rc = pheap_savepoint(c->tx, &sp);

	if (rc)
		return rc;
	p = pheap_alloc(c->tx, 500, TYPE_BLOCK);
	if (!p || !pheap_modify(c->tx, &c->table->again, 8))
		return pheap_error(c->tx);
	*(uint64_t *)(uintptr_t)&c->table->again = 0;
	rc = slot_set(c, slot, p);
	return rc ? rc : pheap_rollback(c->tx, sp);
}

static int step_root(struct change *c)
{
	char name[16];

	if (c->to->root_count >= LEDGER_ROOTS)
		return 0;
	snprintf(name, sizeof(name), "root-%u", c->to->root_count);
	if (!pheap_root(c->tx, name, 64, 3))
		return pheap_error(c->tx);
	c->to->root_count++;
	return 0;
}

static int step(struct change *c)
{
	uint32_t slot = (uint32_t)rng_below(&c->rng, LEDGER_SLOTS);
	uint64_t which = rng_below(&c->rng, 10);

	if (c->touched >> slot & 1)
		return 0;
	c->touched |= 1u << slot;
	if (which < 4)
		return c->reserved && which == 0 ? step_publish(c, slot) : step_replace(c, slot);
	switch (which) {
	case 4:
	case 5:
		return step_in_place(c, slot);
	case 6:
		return step_defer(c, slot);
	case 7:
		return step_free(c, slot);
	case 8:
		return step_rollback(c, slot);
	default:
		return step_root(c);
	}
}

static int steps(struct change *c)
{
	const uint64_t key = 1;
	int rc = c->number % 3 ? 0 : pheap_lock(c->tx, &key, 1);

	if (rc)
		return rc;
	c->table = pheap_root(c->tx, "table", sizeof(*c->table), TYPE_TABLE);
	if (!c->table)
		return pheap_error(c->tx);
	for (uint64_t i = rng_below(&c->rng, STEPS_MAX) + 1; i && rc == 0; i--)
		rc = step(c);
	if (rc == 0)
		rc = pheap_store(c->tx, &c->table->number, &c->number, sizeof(c->number));
	if (rc == 0)
		rc = pheap_store(c->tx, &c->table->again, &c->number, sizeof(c->number));
	return rc;
}

int ledger_change(pheap *h, uint64_t number, struct ledger *to, pheap_tx **ret)
{
	struct change c = {.h = h, .to = to, .number = number, .rng = {number * 0x9e3779b97f4a7c15ull}};
	void *reserved = NULL;
	int rc;

	if (rng_below(&c.rng, 4) == 0) {
		c.reserved_size = rng_below(&c.rng, 4) ? 400 : 9000;
		c.reserved = reserved = pheap_reserve(h, c.reserved_size, TYPE_BLOCK);
	}
	rc = pheap_begin(h, number % 3 ? 0 : PHEAP_CONCURRENT, &c.tx);
	to->number = number;
	if (rc == 0) {
		rc = steps(&c);
		if (rc)
			pheap_abort(c.tx);
	}
	/* One that was to be published by what was aborted is reserved again. */
	if (reserved && (rc || c.reserved))
		pheap_cancel(h, reserved);
	*ret = c.tx;
	return rc;
}

void ledger_flood(pheap *h, pheap *other, bool (*done)(void))
{
	const struct table *mine = pheap_find(h, "table"), *its = pheap_find(other, "table");
	char bytes[2000];
	pheap_tx *big, *tx;
	int rc = 0;

	if (!mine || pheap_begin(other, PHEAP_CONCURRENT, &big))
		return;
	memset(bytes, 1, sizeof(bytes));
	if (!pheap_modify(big, its->between, sizeof(its->between)))
		rc = -1;
	for (int i = 0; i < 100 && rc == 0 && !done(); i++) {
		rc = pheap_begin(h, PHEAP_CONCURRENT, &tx);
		if (rc)
			break;
		rc = pheap_store(tx, mine->between + 100, bytes, sizeof(bytes));
		rc = rc ? pheap_end(tx, rc) : pheap_commit_async(tx, NULL);
	}
	pheap_abort(big);
}

/* ---- reading ---- */

static const char *table_read(pheap *h, struct ledger *ret)
{
	const struct table *t = pheap_find(h, "table");
	struct pheap_stats stats;
	uint64_t blocks = t != NULL;
	char name[16];

	if (t && t->number != t->again)
		return "half of a transaction's number";
	ret->number = t ? t->number : 0;
	for (uint32_t i = 0; t && i < LEDGER_SLOTS; i++) {
		const uint64_t *p = pheap_at(h, t->slots[i]);

		if (!p)
			continue;
		blocks++;
		if (pheap_type_of(h, p) != TYPE_BLOCK || p[1] > pheap_usable_size(h, p))
			return "a slot that is no block";
		if (!filled(p))
			return "a block that is not what it says";
		ret->stamps[i] = p[0];
		ret->sizes[i] = (uint32_t)p[1];
	}
	for (;; ret->root_count++, blocks++) {
		snprintf(name, sizeof(name), "root-%u", ret->root_count);
		if (!pheap_find(h, name))
			break;
	}
	if (pheap_stats(h, &stats, sizeof(stats)))
		return "no statistics";
	return stats.block_count == blocks ? NULL : "blocks that nobody has";
}

int ledger_read(pheap *h, struct ledger *ret, const char **why)
{
	pheap_tx *tx;
	int rc = pheap_begin(h, PHEAP_READ, &tx);

	*why = NULL;
	memset(ret, 0, sizeof(*ret));
	if (rc)
		return rc;
	*why = table_read(h, ret);
	rc = pheap_commit(tx);
	return *why ? 1 : rc;
}

bool ledger_same(const struct ledger *a, const struct ledger *b)
{
	for (uint32_t i = 0; i < LEDGER_SLOTS; i++)
		if (a->sizes[i] != b->sizes[i] || a->stamps[i] != b->stamps[i])
			return false;
	return a->number == b->number && a->root_count == b->root_count;
}
