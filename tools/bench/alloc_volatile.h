/* SPDX-License-Identifier: MIT
 *
 * alloc_volatile.h: what the allocators without a file have in common: no transactions, pointers in slots.
 *
 * The file defines volatile_new and volatile_free, ALLOC_NAME, and includes this, then alloc_loops.h.
 */
#ifndef BENCH_ALLOC_VOLATILE_H
#define BENCH_ALLOC_VOLATILE_H

#include <stdlib.h>

#include "alloc.h"

typedef void *alloc_ref;

struct alloc_heap {
	alloc_ref *slots;
	size_t slot_count;
};

struct alloc_ctx {
	const struct alloc_heap *heap;
};

static inline void op_begin(struct alloc_ctx *ctx)
{
	(void)ctx;
}

static inline void op_commit(struct alloc_ctx *ctx)
{
	(void)ctx;
}

static inline void *op_ptr(const struct alloc_ctx *ctx, alloc_ref ref)
{
	(void)ctx;
	return ref;
}

static inline alloc_ref op_new(struct alloc_ctx *ctx, size_t n)
{
	void *p = volatile_new(n);

	(void)ctx;
	if (!p)
		bench_die("%s: no memory", ALLOC_NAME);
	return p;
}

static inline void op_free(struct alloc_ctx *ctx, alloc_ref ref)
{
	(void)ctx;
	volatile_free(ref);
}

static inline void op_set(struct alloc_ctx *ctx, alloc_ref *slot, alloc_ref ref)
{
	(void)ctx;
	*slot = ref;
}

static void heap_open(struct alloc_heap *heap, const struct alloc_plan *plan)
{
	(void)plan;
	heap->slots = NULL;
	heap->slot_count = 0;
}

static void heap_close(struct alloc_heap *heap)
{
	for (size_t i = 0; i < heap->slot_count; i++)
		volatile_free(heap->slots[i]);
	free(heap->slots);
}

static void ctx_init(struct alloc_ctx *ctx, const struct alloc_heap *heap, const struct alloc_plan *plan)
{
	(void)plan;
	ctx->heap = heap;
}

static void ctx_filling(struct alloc_ctx *ctx, bool on)
{
	(void)ctx;
	(void)on;
}

static alloc_ref *heap_slots(struct alloc_heap *heap, size_t n)
{
	heap->slots = calloc(n, sizeof *heap->slots);
	heap->slot_count = n;
	if (!heap->slots)
		bench_die("%s: no memory", ALLOC_NAME);
	return heap->slots;
}

/* Nothing writes these pages back. */
static void heap_populate(const struct alloc_plan *plan, void *p, size_t n)
{
	(void)plan;
	(void)p;
	(void)n;
}

#endif
