/* SPDX-License-Identifier: MIT
 *
 * rings.c: see rings.h.
 */
#include "rings.h"

#include <string.h>

static void plain_put(void *ctx, const uint64_t *where, uint64_t value)
{
	(void)ctx;
	/* volatile: each one is a store of its own, in this order */
	*(volatile uint64_t *)(uintptr_t)where = value;
}

void rings_make(struct rings *r)
{
	memset(r, 0, sizeof(*r));
	for (unsigned i = 0; i < RINGS_NODES; i++) {
		unsigned ring = i % 2;

		r->nodes[i].next = (i + 2) % RINGS_NODES;
		r->nodes[i].prev = (i + RINGS_NODES - 2) % RINGS_NODES;
		r->nodes[i].value = 100 + i;
		r->nodes[i].ring = ring;
		r->rings[ring].count++;
		r->rings[ring].sum += r->nodes[i].value;
	}
	r->rings[1].first = 1;
}

/* Puts the first node of the longer ring behind the first one of the other. */
static void node_move(const struct rings *r, rings_put *put, void *ctx)
{
	unsigned from = r->rings[0].count < r->rings[1].count, to = !from;
	uint64_t node = r->rings[from].first, next = r->nodes[node].next, prev = r->nodes[node].prev;
	uint64_t at = r->rings[to].first, behind = r->nodes[at].next, value = r->nodes[node].value;

	put(ctx, &r->nodes[prev].next, next);
	put(ctx, &r->nodes[next].prev, prev);
	put(ctx, &r->rings[from].first, next);
	put(ctx, &r->rings[from].count, r->rings[from].count - 1);
	put(ctx, &r->rings[from].sum, r->rings[from].sum - value);
	put(ctx, &r->nodes[node].ring, to);
	put(ctx, &r->nodes[node].next, behind);
	put(ctx, &r->nodes[node].prev, at);
	put(ctx, &r->nodes[at].next, node);
	put(ctx, &r->nodes[behind].prev, node);
	put(ctx, &r->rings[to].count, r->rings[to].count + 1);
	put(ctx, &r->rings[to].sum, r->rings[to].sum + value);
}

static void values_exchange(const struct rings *r, rings_put *put, void *ctx)
{
	uint64_t a = r->rings[0].first, b = r->rings[1].first;
	uint64_t value_a = r->nodes[a].value, value_b = r->nodes[b].value;

	put(ctx, &r->nodes[a].value, value_b);
	put(ctx, &r->nodes[b].value, value_a);
	put(ctx, &r->rings[0].sum, r->rings[0].sum + value_b - value_a);
	put(ctx, &r->rings[1].sum, r->rings[1].sum + value_a - value_b);
}

void rings_change(const struct rings *r, rings_put *put, void *ctx)
{
	uint64_t changes = r->changes;

	node_move(r, put, ctx);
	values_exchange(r, put, ctx);
	put(ctx, &r->changes, changes + 1);
}

void rings_step(struct rings *r)
{
	rings_change(r, plain_put, NULL);
}

static const char *ring_fault(const struct rings *r, unsigned ring)
{
	uint64_t at = r->rings[ring].first, sum = 0;

	for (uint64_t i = 0; i < r->rings[ring].count; i++) {
		uint64_t next = at < RINGS_NODES ? r->nodes[at].next : RINGS_NODES;

		if (next >= RINGS_NODES)
			return "a link leads nowhere";
		if (r->nodes[next].prev != at)
			return "a link has no way back";
		if (r->nodes[at].ring != ring)
			return "a node is in the wrong ring";
		sum += r->nodes[at].value;
		at = next;
	}
	if (at != r->rings[ring].first)
		return "a ring is not closed after as many nodes as it counts";
	return sum == r->rings[ring].sum ? NULL : "a sum is wrong";
}

const char *rings_fault(const struct rings *r)
{
	const char *fault = ring_fault(r, 0);

	if (!fault)
		fault = ring_fault(r, 1);
	if (!fault && r->rings[0].count + r->rings[1].count != RINGS_NODES)
		fault = "a node is lost";
	return fault;
}

int rings_follow(const struct rings *r, struct rings *model)
{
	if (memcmp(r, model, sizeof(*r)) == 0)
		return 0;
	rings_step(model);
	return memcmp(r, model, sizeof(*r)) == 0 ? 1 : -1;
}
