/* SPDX-License-Identifier: MIT
 *
 * reader.c: what reading a heap costs. reader.sh compiles it and looks at the instructions.
 *
 * A list in a heap is walked like one in memory: the base of the mapping is loaded once, and PHEAP_GET is one
 * add a node, or no instruction at all where the processor adds while it loads. What else the loop has is its
 * work: the load of the value, the load of the next offset, the test for the end.
 */
#include "pheap.h"

struct node;
PHEAP_DECLARE(struct node, 1);

struct node {
	PHEAP_PTR(struct node) next;
	uint64_t value;
};

struct list {
	PHEAP_PTR(struct node) first;
};

uint64_t list_sum(const pheap *h, const struct list *list);

uint64_t list_sum(const pheap *h, const struct list *list)
{
	uint64_t sum = 0;

	for (const struct node *n = PHEAP_GET(h, list->first); n; n = PHEAP_GET(h, n->next))
		sum += n->value;
	return sum;
}

/* The same with ordinary pointers, to be compared with. */
struct plain {
	const struct plain *next;
	uint64_t value;
};

uint64_t plain_sum(const struct plain *n);
uint64_t plain_sum(const struct plain *n)
{
	uint64_t sum = 0;

	for (; n; n = n->next)
		sum += n->value;
	return sum;
}
