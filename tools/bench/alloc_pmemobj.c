/* SPDX-License-Identifier: MIT
 *
 * alloc_pmemobj.c: libpmemobj: pmemobj_tx_alloc and pmemobj_tx_free; no flushes (main.c sets its
 * environment).
 *
 * Each thread has a lane and an arena of its own, as the library gives them out. Slots are PMEMoids, its
 * persistent pointers.
 */
#include <libpmemobj.h>
#include <stdio.h>

#include "alloc.h"

#define ALLOC_NAME "libpmemobj"

typedef PMEMoid alloc_ref;

struct alloc_heap {
	PMEMobjpool *pool;
};

struct alloc_ctx {
	PMEMobjpool *pool;
};

static _Noreturn void fail(const char *call)
{
	bench_die("%s: %s", call, pmemobj_errormsg());
}

static inline void op_begin(struct alloc_ctx *ctx)
{
	if (pmemobj_tx_begin(ctx->pool, NULL, TX_PARAM_NONE))
		fail("pmemobj_tx_begin");
}

static inline void op_commit(struct alloc_ctx *ctx)
{
	(void)ctx;
	pmemobj_tx_commit();
	if (pmemobj_tx_end())
		fail("pmemobj_tx_end");
}

static inline void *op_ptr(const struct alloc_ctx *ctx, alloc_ref ref)
{
	(void)ctx;
	return pmemobj_direct(ref);
}

static inline alloc_ref op_new(struct alloc_ctx *ctx, size_t n)
{
	/* its contents are not logged: they are new */
	PMEMoid ref = pmemobj_tx_alloc(n, 1);

	(void)ctx;
	if (OID_IS_NULL(ref))
		fail("pmemobj_tx_alloc");
	return ref;
}

static inline void op_free(struct alloc_ctx *ctx, alloc_ref ref)
{
	(void)ctx;
	if (pmemobj_tx_free(ref))
		fail("pmemobj_tx_free");
}

static inline void op_set(struct alloc_ctx *ctx, alloc_ref *slot, alloc_ref ref)
{
	(void)ctx;
	if (pmemobj_tx_add_range_direct(slot, sizeof *slot))
		fail("pmemobj_tx_add_range_direct");
	*slot = ref;
}

static void heap_open(struct alloc_heap *heap, const struct alloc_plan *plan)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/pmemobj", plan->folder);
	heap->pool = pmemobj_create(path, "pheap-bench", plan->heap_size, 0600);
	if (!heap->pool)
		fail("pmemobj_create");
}

static void heap_close(struct alloc_heap *heap)
{
	pmemobj_close(heap->pool);
}

static void ctx_init(struct alloc_ctx *ctx, const struct alloc_heap *heap, const struct alloc_plan *plan)
{
	(void)plan;
	ctx->pool = heap->pool;
}

static void ctx_filling(struct alloc_ctx *ctx, bool on)
{
	(void)ctx;
	(void)on;
}

static alloc_ref *heap_slots(struct alloc_heap *heap, size_t n)
{
	alloc_ref *slots = pmemobj_direct(pmemobj_root(heap->pool, n * sizeof *slots));

	if (!slots)
		fail("pmemobj_root");
	return slots;
}

static void heap_populate(const struct alloc_plan *plan, void *p, size_t n)
{
	(void)plan;
	bench_populate(p, n);
}

#include "alloc_loops.h"

const struct alloc_system alloc_pmemobj = {ALLOC_LOOPS};
