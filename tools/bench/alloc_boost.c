/* SPDX-License-Identifier: MIT
 *
 * alloc_boost.c: Boost.Interprocess, a heap in a file without crash safety: what allocation in shared memory
 * costs elsewhere. Its transactions are nothing; the allocator has its own mutex.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "alloc.h"
#include "alloc_boost.h"

#define ALLOC_NAME "boost"

typedef int64_t alloc_ref;

struct alloc_heap {
	struct boost_heap *boost;
};

struct alloc_ctx {
	struct boost_heap *boost;
	char *base;
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
	return ctx->base + ref;
}

static inline alloc_ref op_new(struct alloc_ctx *ctx, size_t n)
{
	char *p = boost_heap_new(ctx->boost, n);

	if (!p)
		bench_die("boost: the heap is full");
	return p - ctx->base;
}

static inline void op_free(struct alloc_ctx *ctx, alloc_ref ref)
{
	if (ref)
		boost_heap_free(ctx->boost, ctx->base + ref);
}

static inline void op_set(struct alloc_ctx *ctx, alloc_ref *slot, alloc_ref ref)
{
	(void)ctx;
	*slot = ref;
}

static void heap_open(struct alloc_heap *heap, const struct alloc_plan *plan)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof path, "%s/boost", plan->folder);
	heap->boost = boost_heap_open(path, plan->heap_size);
	if (!heap->boost)
		bench_die("boost: no heap in %s", path);
	/* it leaves holes, which the first store into a page would fill while the clock runs */
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || posix_fallocate(fd, 0, (off_t)plan->heap_size))
		bench_die("boost: no space for %s", path);
	close(fd);
}

static void heap_close(struct alloc_heap *heap)
{
	boost_heap_close(heap->boost);
}

static void ctx_init(struct alloc_ctx *ctx, const struct alloc_heap *heap, const struct alloc_plan *plan)
{
	(void)plan;
	ctx->boost = heap->boost;
	ctx->base = boost_heap_base(heap->boost);
}

static void ctx_filling(struct alloc_ctx *ctx, bool on)
{
	(void)ctx;
	(void)on;
}

static alloc_ref *heap_slots(struct alloc_heap *heap, size_t n)
{
	alloc_ref *slots = boost_heap_slots(heap->boost, n);

	if (!slots)
		bench_die("boost: the heap is full");
	return slots;
}

static void heap_populate(const struct alloc_plan *plan, void *p, size_t n)
{
	(void)plan;
	bench_populate(p, n);
}

#include "alloc_loops.h"

const struct alloc_system alloc_boost = {ALLOC_LOOPS, .processes = true};
