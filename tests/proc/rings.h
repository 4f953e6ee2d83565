/* SPDX-License-Identifier: MIT
 *
 * rings.h: a structure that is wrong when a change of it stops half-way: nodes in two doubly linked rings,
 * with the count and the sum of each.
 *
 * What: change number n moves a node from one ring to the other, exchanges two values and brings counts and
 * sums up to date, about 20 stores. It is a function of the state alone, so a checker with a copy of its own
 * knows both states that a death may leave.
 * Why indices and not pointers: the same code then works in plain shared memory, which is the old way, and in
 * a heap.
 */
#ifndef TEST_RINGS_H
#define TEST_RINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RINGS_NODES 12u

struct rings {
	uint64_t changes;
	struct {
		uint64_t first, count, sum;
	} rings[2];
	struct {
		uint64_t next, prev, value, ring;
	} nodes[RINGS_NODES];
};

/* Stores value to *where, by whatever way is tested. */
typedef void rings_put(void *ctx, const uint64_t *where, uint64_t value);

void rings_make(struct rings *r);
void rings_change(const struct rings *r, rings_put *put, void *ctx);
/* rings_change in plain memory. */
void rings_step(struct rings *r);
/* What is wrong with it, from its own links, counts and sums; NULL: nothing. */
const char *rings_fault(const struct rings *r);
/* 0: as *model, 1: as *model after one change, which is made there too; -1: neither. */
int rings_follow(const struct rings *r, struct rings *model);

#endif
