/* SPDX-License-Identifier: MIT
 *
 * alloc_pheap.c: pheap: exclusive transactions (flags 0, the default) for one thread; for several threads
 * or processes PHEAP_CONCURRENT ones, which lock nothing: each thread changes its own slots.
 */
#include <stdio.h>

#include "alloc.h"
#include "heap_use.h"

#define ALLOC_NAME "pheap"
#define HEAP_MAX (4ull << 30)
#define JOURNAL_SIZE (64ull << 20) /* of EPOCH and SYNC: a transaction may change a quarter of it */

typedef pheap_off alloc_ref;

struct alloc_heap {
	pheap *heap;
};

struct alloc_ctx {
	pheap *heap;
	pheap_tx *tx;
	uint32_t flags;
	bool filling;
};

static inline void op_begin(struct alloc_ctx *ctx)
{
	int rc = pheap_begin(ctx->heap, ctx->flags, &ctx->tx);

	if (rc)
		heap_fail(ctx->heap, "pheap_begin", rc);
}

static inline void op_commit(struct alloc_ctx *ctx)
{
	int rc = ctx->filling ? pheap_commit_async(ctx->tx, NULL) : pheap_commit(ctx->tx);

	if (rc)
		heap_fail(ctx->heap, "pheap_commit", rc);
}

static inline void *op_ptr(const struct alloc_ctx *ctx, alloc_ref ref)
{
	/* of blocks that this transaction allocated, it is what pheap_alloc gave */
	return (void *)(uintptr_t)pheap_at(ctx->heap, ref);
}

static inline alloc_ref op_new(struct alloc_ctx *ctx, size_t n)
{
	const char *p = pheap_alloc(ctx->tx, n, 0);

	if (!p)
		heap_fail(ctx->heap, "pheap_alloc", pheap_error(ctx->tx));
	return (alloc_ref)(p - *(const char *const *)(const void *)ctx->heap);
}

static inline void op_free(struct alloc_ctx *ctx, alloc_ref ref)
{
	pheap_free(ctx->tx, pheap_at(ctx->heap, ref)); /* a failure is given by commit */
}

static inline void op_set(struct alloc_ctx *ctx, const alloc_ref *slot, alloc_ref ref)
{
	alloc_ref *p = pheap_modify(ctx->tx, slot, sizeof *slot);

	if (p)
		*p = ref;
}

static void heap_open(struct alloc_heap *heap, const struct alloc_plan *plan)
{
	static const uint32_t levels[] = {PHEAP_PROCESS, PHEAP_EPOCH, PHEAP_SYNC};
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	char path[4096];
	int rc;

	opt.durability = levels[plan->level];
	opt.initial_size = plan->heap_size;
	opt.max_size = HEAP_MAX;
	if (plan->level != ALLOC_PROCESS)
		opt.journal_size = JOURNAL_SIZE;
	snprintf(path, sizeof path, "%s/pheap", plan->folder);
	rc = pheap_open(path, PHEAP_CREATE, &opt, &heap->heap);
	if (rc)
		heap_fail(NULL, "pheap_open", rc);
}

static void heap_close(struct alloc_heap *heap)
{
	int rc = pheap_close(heap->heap);

	if (rc)
		heap_fail(NULL, "pheap_close", rc);
}

static void ctx_init(struct alloc_ctx *ctx, const struct alloc_heap *heap, const struct alloc_plan *plan)
{
	ctx->heap = heap->heap;
	ctx->flags = plan->thread_count > 1 ? PHEAP_CONCURRENT : 0;
	ctx->filling = false;
}

/* A flush for each transaction of a fill would take minutes. */
static void ctx_filling(struct alloc_ctx *ctx, bool on)
{
	ctx->filling = on;
}

static alloc_ref *heap_slots(struct alloc_heap *heap, size_t n)
{
	const alloc_ref *slots;
	pheap_tx *tx;
	int rc = pheap_begin(heap->heap, 0, &tx);

	if (rc)
		heap_fail(heap->heap, "pheap_begin", rc);
	slots = pheap_root(tx, "slots", n * sizeof *slots, 0);
	rc = pheap_commit(tx);
	if (rc)
		heap_fail(heap->heap, "pheap_commit", rc);
	return (alloc_ref *)(uintptr_t)slots; /* op_set logs before it stores */
}

/* Not with EPOCH and SYNC: there checkpoints write what is dirty. */
static void heap_populate(const struct alloc_plan *plan, void *p, size_t n)
{
	if (plan->level == ALLOC_PROCESS)
		bench_populate(p, n);
}

#include "alloc_loops.h"

const struct alloc_system alloc_pheap = {ALLOC_LOOPS, .processes = true, .levels = true};
