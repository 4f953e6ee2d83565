/* SPDX-License-Identifier: MIT
 *
 * explore.h: visits every state of a small model of a protocol.
 *
 * What: breadth first from the first state; every state is kept once, in the order it was met, with the state
 * it was met from, so a violation comes with a shortest way to it. Afterwards, walking the edges backwards:
 * can every state still reach one where everybody is done?
 * Why our own: it needs nothing but a C compiler, and a model is then plain C beside the code that it models.
 *
 * Invariants
 *   E1  A state is one struct without padding that is not zeroed; equal states are equal bytes.
 *   E2  A step is one operation on shared memory. Waiting is having no step.
 *   E3  Deaths are not progress: a state counts as stuck when only a death would lead out of it.
 */
#ifndef PH_TEST_EXPLORE_H
#define PH_TEST_EXPLORE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct explorer;

struct model {
	size_t state_size; /* a multiple of 8 */
	void (*first)(void *state);
	void (*steps)(struct explorer *ex, const void *state); /* calls step_to for each */
	const char *(*bad)(const void *state);		       /* what is wrong with it, or NULL */
	bool (*done)(const void *state);		       /* nobody wants anything any more */
};

#define STATE_COUNT_MAX 12000000u /* about 1.2 GiB with edges and table */
#define NOBODY UINT32_MAX

struct explorer {
	const struct model *model;
	char *states;
	uint32_t *parents, *edges_from; /* edges of state i: edges[edges_from[i]] up to those of i + 1 */
	uint32_t count, room;
	uint32_t *edges, edge_count, edge_room;
	uint32_t *table, table_room; /* index + 1 */
	uint32_t at;		     /* state that is being expanded */
	const void *wanted;	     /* while printing: the step that leads here is printed */
	bool full;
};

static inline const void *state_at(const struct explorer *ex, uint32_t i)
{
	return ex->states + (size_t)i * ex->model->state_size;
}

static inline void *room_get(void *old, size_t n)
{
	void *p = realloc(old, n);

	if (!p) {
		fprintf(stderr, "no memory for %zu bytes\n", n);
		exit(2);
	}
	return p;
}

static inline uint64_t state_hash(const void *state, size_t n)
{
	const char *p = state;
	uint64_t hash = 0x9e3779b97f4a7c15ull, word;

	for (size_t i = 0; i < n; i += 8) {
		memcpy(&word, p + i, 8);
		hash = (hash ^ word) * 0xff51afd7ed558ccdull;
		hash ^= hash >> 32;
	}
	return hash;
}

static inline void table_grow(struct explorer *ex)
{
	uint32_t room = ex->table_room ? ex->table_room * 2 : 1u << 16;

	free(ex->table);
	ex->table = calloc(room, sizeof(*ex->table));
	if (!ex->table)
		exit(2);
	ex->table_room = room;
	for (uint32_t i = 0; i < ex->count; i++) {
		uint64_t slot = state_hash(state_at(ex, i), ex->model->state_size);

		while (ex->table[slot & (room - 1)])
			slot++;
		ex->table[slot & (room - 1)] = i + 1;
	}
}

/* Index of the state, new or not. */
static inline uint32_t state_put(struct explorer *ex, const void *state)
{
	size_t size = ex->model->state_size;
	uint64_t slot;

	if (ex->count * 2 >= ex->table_room)
		table_grow(ex);
	for (slot = state_hash(state, size);; slot++) {
		uint32_t i = ex->table[slot & (ex->table_room - 1)];

		if (i == 0)
			break;
		if (memcmp(state_at(ex, i - 1), state, size) == 0)
			return i - 1;
	}
	if (ex->count == STATE_COUNT_MAX) {
		ex->full = true;
		return NOBODY;
	}
	if (ex->count + 1 >= ex->room) {
		ex->room = ex->room ? ex->room * 2 : 1u << 14;
		ex->states = room_get(ex->states, ex->room * size);
		ex->parents = room_get(ex->parents, ex->room * sizeof(*ex->parents));
		ex->edges_from = room_get(ex->edges_from, ex->room * sizeof(*ex->edges_from));
	}
	memcpy(ex->states + ex->count * size, state, size);
	ex->parents[ex->count] = ex->at;
	ex->table[slot & (ex->table_room - 1)] = ex->count + 1;
	return ex->count++;
}

/* Called by model->steps. `death` is a step that nobody may rely on (E3). */
static inline void step_to(struct explorer *ex, const void *next, bool death, int who, const char *label)
{
	uint32_t i;

	if (ex->wanted) {
		if (memcmp(ex->wanted, next, ex->model->state_size) == 0) {
			printf("    %d %s\n", who, label);
			ex->wanted = state_at(ex, 0); /* once; nothing leads to the first state */
		}
		return;
	}
	i = state_put(ex, next);
	if (i == NOBODY || death)
		return;
	if (ex->edge_count == ex->edge_room) {
		ex->edge_room = ex->edge_room ? ex->edge_room * 2 : 1u << 16;
		ex->edges = room_get(ex->edges, (size_t)ex->edge_room * sizeof(*ex->edges));
	}
	ex->edges[ex->edge_count++] = i;
}

static inline void trace_print(struct explorer *ex, uint32_t at)
{
	uint32_t n = 0, *path;

	for (uint32_t i = at; i != 0; i = ex->parents[i])
		n++;
	path = room_get(NULL, (n + 1) * sizeof(*path));
	for (uint32_t i = at, k = n;; i = ex->parents[i]) {
		path[k] = i;
		if (k-- == 0)
			break;
	}
	for (uint32_t k = 0; k < n; k++) {
		ex->wanted = state_at(ex, path[k + 1]);
		ex->model->steps(ex, state_at(ex, path[k]));
	}
	ex->wanted = NULL;
	free(path);
}

/* A state from which nobody gets to where all are done, or NOBODY. Most edges lead to later states, so few
 * rounds from the back are enough. */
static inline uint32_t stuck_find(struct explorer *ex)
{
	uint8_t *good = calloc(ex->count, 1);
	bool changed = true;
	uint32_t found = NOBODY;

	if (!good)
		exit(2);
	while (changed) {
		changed = false;
		for (uint32_t i = ex->count; i-- > 0;) {
			bool now = ex->model->done(state_at(ex, i));

			if (good[i])
				continue;
			for (uint32_t e = ex->edges_from[i]; !now && e < ex->edges_from[i + 1]; e++)
				now = good[ex->edges[e]];
			good[i] = now;
			changed |= now;
		}
	}
	for (uint32_t i = 0; i < ex->count && found == NOBODY; i++)
		if (!good[i])
			found = i;
	free(good);
	return found;
}

/* NULL: everything was visited and is as it should be; else what is wrong. */
static inline const char *explore(const struct model *model, bool trace, uint32_t *ret_count)
{
	struct explorer ex = {.model = model};
	char *state = calloc(1, model->state_size);
	const char *why = NULL;
	uint32_t at, bad = NOBODY;

	if (!state)
		exit(2);
	model->first(state);
	state_put(&ex, state);
	for (at = 0; at < ex.count && !why && !ex.full; at++) {
		ex.at = at;
		ex.edges_from[at] = ex.edge_count;
		/* A copy: the states move when their array grows. */
		memcpy(state, state_at(&ex, at), model->state_size);
		why = model->bad(state);
		bad = why ? at : NOBODY;
		if (!why)
			model->steps(&ex, state);
	}
	ex.edges_from[at] = ex.edge_count;
	if (ex.full)
		why = "too many states";
	if (!why) {
		bad = stuck_find(&ex);
		if (bad != NOBODY)
			why = "somebody waits for ever";
	}
	if (trace && bad != NOBODY)
		trace_print(&ex, bad);
	*ret_count = ex.count;
	free(state);
	free(ex.states);
	free(ex.parents);
	free(ex.edges_from);
	free(ex.edges);
	free(ex.table);
	return why;
}

/* --- what a model's main does */

struct tally {
	unsigned passed, failed;
	bool trace;
};

/* One run: the rule has to come out clean, a variant has to be found. */
static inline void run_count(struct tally *t, const struct model *model, const char *name, bool broken)
{
	struct timespec a, b;
	uint32_t count;
	const char *why;
	bool good;

	clock_gettime(CLOCK_MONOTONIC, &a);
	if (t->trace)
		printf("  %s\n", name);
	why = explore(model, t->trace, &count);
	clock_gettime(CLOCK_MONOTONIC, &b);
	good = broken ? why && strcmp(why, "too many states") != 0 : !why;
	t->passed += good;
	t->failed += !good;
	printf("%s %s: %u states, %.1f s: %s%s\n", good ? "ok  " : "FAIL", name, count,
	       (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9,
	       broken && good ? "found: " : "",
	       why	? why
	       : broken ? "not found"
			: "clean");
	fflush(stdout);
}

static inline int tally_end(const struct tally *t)
{
	printf("%u passed, %u failed\n", t->passed, t->failed);
	return t->failed != 0;
}

#endif
