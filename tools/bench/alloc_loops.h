/* SPDX-License-Identifier: MIT
 *
 * alloc_loops.h: the loops of alloc.h, for the system in whose file it is included.
 *
 * Why a file to be included and not functions that are given a table of calls: an indirect call per
 * operation would be measured too, and would weigh most on the fastest system.
 *
 * The file defines, before it includes this:
 *   alloc_ref            what is stored in a slot; all bytes 0: no block
 *   struct alloc_heap    of a process
 *   struct alloc_ctx     of a thread
 *   ALLOC_NAME           the system's name
 *   heap_open, heap_close, heap_slots (the array in the heap, zeroed when it is made)
 *   ctx_init, ctx_filling (between true and false nothing needs to be durable)
 *   op_begin, op_commit, op_new, op_free, op_ptr, op_set, of one transaction each
 *   heap_populate        of the pages from lo to hi
 */
#ifndef BENCH_ALLOC_LOOPS_H
#define BENCH_ALLOC_LOOPS_H

#include <stdlib.h>

#include "alloc.h"

struct alloc_worker {
	struct alloc_member member;
	struct alloc_ctx ctx;
	alloc_ref *slots; /* those of all sets */
	alloc_ref *ring;
};

/* The heap of a process and what its threads need to enter. */
struct alloc_process {
	struct alloc_heap heap;
	const struct alloc_plan *plan;
	alloc_ref *slots;
	alloc_ref scratch[ALLOC_THREAD_MAX]; /* neighbours, one to be freed by each thread */
};

static inline alloc_ref block_make(struct alloc_ctx *ctx, uint64_t number, uint32_t size)
{
	alloc_ref ref = op_new(ctx, size);

	alloc_block_fill(op_ptr(ctx, ref), number, size);
	return ref;
}

static inline uint32_t size_draw(uint64_t r)
{
	return ALLOC_SIZE_MIN + alloc_scale(r, ALLOC_SIZE_MAX - ALLOC_SIZE_MIN + 1);
}

static void churn(void *self, uint64_t *rng, unsigned param, uint64_t tx_count)
{
	struct alloc_worker *w = self;

	for (uint64_t i = 0; i < tx_count; i++) {
		op_begin(&w->ctx);
		for (unsigned j = 0; j < param; j++) {
			uint64_t r = bench_random(rng);
			uint32_t slot = w->member.first + alloc_scale(r >> 32, w->member.slot_count);

			op_free(&w->ctx, w->slots[slot]);
			op_set(&w->ctx, &w->slots[slot], block_make(&w->ctx, slot, size_draw(r)));
		}
		op_commit(&w->ctx);
	}
}

static void scratch(void *self, uint64_t *rng, unsigned param, uint64_t tx_count)
{
	struct alloc_worker *w = self;

	(void)param;
	for (uint64_t i = 0; i < tx_count; i++) {
		uint64_t r = bench_random(rng);
		volatile uint64_t *word;
		alloc_ref ref;

		op_begin(&w->ctx);
		ref = op_new(&w->ctx, ALLOC_SCRATCH_SIZE);
		word = op_ptr(&w->ctx, ref);
		*word = r;
		for (unsigned j = 0; j < ALLOC_SCRATCH_COUNT; j++)
			*word = *word + j;
		op_commit(&w->ctx);
		op_begin(&w->ctx);
		op_free(&w->ctx, ref);
		op_commit(&w->ctx);
	}
}

static bool ref_is_null(const alloc_ref *ref)
{
	static const alloc_ref null;

	return !__builtin_memcmp(ref, &null, sizeof null);
}

static void huge(void *self, uint64_t *rng, unsigned param, uint64_t tx_count)
{
	static const alloc_ref null;
	struct alloc_worker *w = self;

	(void)param;
	for (uint64_t i = 0; i < tx_count; i++) {
		uint64_t r = bench_random(rng);
		uint32_t slot = w->member.first + alloc_scale(r >> 32, w->member.slot_count);
		uint32_t size = ALLOC_HUGE_MIN + alloc_scale(r, ALLOC_HUGE_MAX - ALLOC_HUGE_MIN + 1);

		op_begin(&w->ctx);
		if (ref_is_null(&w->slots[slot])) {
			op_set(&w->ctx, &w->slots[slot], block_make(&w->ctx, slot, size));
		} else {
			op_free(&w->ctx, w->slots[slot]);
			op_set(&w->ctx, &w->slots[slot], null);
		}
		op_commit(&w->ctx);
	}
}

/* What a slot of the list leads to: this, and data up to BENCH_NODE_SIZE bytes. */
struct alloc_node {
	alloc_ref next;
};

static inline void node_push(struct alloc_worker *w, uint64_t value)
{
	alloc_ref *head = &w->slots[w->member.first], ref;
	struct alloc_node *node;
	uint64_t *data;

	op_begin(&w->ctx);
	ref = op_new(&w->ctx, BENCH_NODE_SIZE);
	node = op_ptr(&w->ctx, ref);
	data = (void *)(node + 1);
	for (unsigned i = 0; i < (BENCH_NODE_SIZE - sizeof *node) / 8; i++)
		data[i] = value + i;
	node->next = *head;
	op_set(&w->ctx, head, ref);
	op_commit(&w->ctx);
}

static inline void node_pop(struct alloc_worker *w)
{
	alloc_ref *head = &w->slots[w->member.first], ref = *head;
	const struct alloc_node *node = op_ptr(&w->ctx, ref);

	op_begin(&w->ctx);
	op_set(&w->ctx, head, node->next);
	op_free(&w->ctx, ref);
	op_commit(&w->ctx);
}

static void push_pop(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct alloc_worker *w = self;

	if (ref_is_null(&w->slots[w->member.first]))
		for (unsigned i = 0; i < BENCH_LIST_LENGTH; i++)
			node_push(w, i);
	(void)param;
	for (uint64_t i = 0; i < op_count; i++) {
		node_push(w, bench_random(rng));
		node_pop(w);
	}
}

static bool produce(void *self, uint64_t *rng, unsigned param)
{
	struct alloc_worker *w = self;
	struct alloc_shared *shared = w->member.plan->shared;
	uint64_t head = shared->head;

	if (head + param - __atomic_load_n(&shared->tail, __ATOMIC_ACQUIRE) > ALLOC_RING_COUNT)
		return false;
	op_begin(&w->ctx);
	for (unsigned i = 0; i < param; i++)
		w->ring[(head + i) % ALLOC_RING_COUNT] =
			block_make(&w->ctx, head + i, size_draw(bench_random(rng)));
	op_commit(&w->ctx);
	__atomic_store_n(&shared->head, head + param, __ATOMIC_RELEASE);
	return true;
}

static bool consume(void *self, unsigned param)
{
	struct alloc_worker *w = self;
	struct alloc_shared *shared = w->member.plan->shared;
	uint64_t tail = shared->tail;

	if (__atomic_load_n(&shared->head, __ATOMIC_ACQUIRE) - tail < param)
		return false;
	op_begin(&w->ctx);
	for (unsigned i = 0; i < param; i++) {
		alloc_ref ref = w->ring[(tail + i) % ALLOC_RING_COUNT];

		alloc_block_check(ALLOC_NAME, op_ptr(&w->ctx, ref), tail + i);
		op_free(&w->ctx, ref);
	}
	op_commit(&w->ctx);
	__atomic_store_n(&shared->tail, tail + param, __ATOMIC_RELEASE);
	return true;
}

static void check(void *self)
{
	struct alloc_worker *w = self;

	for (uint32_t i = w->member.first; i < w->member.first + w->member.slot_count; i++)
		if (!ref_is_null(&w->slots[i]))
			alloc_block_check(ALLOC_NAME, op_ptr(&w->ctx, w->slots[i]), i);
}

/* Write-back takes the write permission of pages away; this gives it back before the clock runs. */
static void populate(void *self)
{
	struct alloc_worker *w = self;
	uintptr_t lo = UINTPTR_MAX, hi = 0;

	for (uint32_t i = w->member.first; i < w->member.first + w->member.slot_count; i++) {
		uintptr_t p = (uintptr_t)op_ptr(&w->ctx, w->slots[i]);

		if (ref_is_null(&w->slots[i]))
			continue;
		lo = p < lo ? p : lo;
		hi = p > hi ? p : hi;
	}
	if (lo < hi)
		heap_populate(w->member.plan, (void *)lo, hi - lo);
}

static void set_use(void *self, unsigned set)
{
	struct alloc_worker *w = self;

	w->member.first = set * w->member.slot_count;
}

static void fill(struct alloc_worker *w, uint64_t *rng)
{
	const uint32_t batch = 100;

	ctx_filling(&w->ctx, true);
	for (uint32_t i = 0; i < w->member.slot_count; i++) {
		uint32_t slot = w->member.first + i;

		if (i % batch == 0)
			op_begin(&w->ctx);
		op_set(&w->ctx, &w->slots[slot], block_make(&w->ctx, slot, size_draw(bench_random(rng))));
		if (i % batch == batch - 1 || i == w->member.slot_count - 1)
			op_commit(&w->ctx);
	}
	churn(w, rng, batch, 2 * w->member.slot_count / batch);
	ctx_filling(&w->ctx, false);
}

/* One block for each thread, made by this one. */
static void scratch_make(struct alloc_process *process)
{
	struct alloc_ctx ctx;

	ctx_init(&ctx, &process->heap, process->plan);
	op_begin(&ctx);
	for (unsigned i = 0; i < ALLOC_THREAD_MAX; i++)
		process->scratch[i] = op_new(&ctx, ALLOC_SCRATCH_SIZE);
	op_commit(&ctx);
}

static void *process_open(const void *arg)
{
	const struct alloc_plan *plan = arg;
	struct alloc_process *process = calloc(1, sizeof *process);

	if (!process)
		bench_die("%s: no memory", ALLOC_NAME);
	process->plan = plan;
	heap_open(&process->heap, plan);
	process->slots = heap_slots(&process->heap, (size_t)plan->set_count * plan->slot_count);
	scratch_make(process);
	return process;
}

static void process_close(void *self)
{
	struct alloc_process *process = self;

	heap_close(&process->heap);
	free(process);
}

static void *worker_enter(void *self)
{
	struct alloc_process *process = self;
	const struct alloc_plan *plan = process->plan;
	/* a whole number of cache lines: those of two threads share none */
	struct alloc_worker *w = aligned_alloc(64, (sizeof *w + 63) & ~(size_t)63);
	uint64_t rng;

	if (!w)
		bench_die("%s: no memory", ALLOC_NAME);
	*w = (struct alloc_worker){.slots = process->slots, .ring = (void *)plan->shared->ring};
	w->member.plan = plan;
	w->member.slot_count = plan->slot_count;
	w->member.index = __atomic_fetch_add(&plan->shared->enter_count, 1, __ATOMIC_RELAXED);
	ctx_init(&w->ctx, &process->heap, plan);
	set_use(w, w->member.index);
	op_begin(&w->ctx);
	op_free(&w->ctx, process->scratch[w->member.index % ALLOC_THREAD_MAX]);
	op_commit(&w->ctx);
	rng = BENCH_SEED + w->member.index;
	if (plan->fill)
		fill(w, &rng);
	return w;
}

static void worker_leave(void *self)
{
	free(self);
}

#define ALLOC_LOOPS \
	.name = ALLOC_NAME, .open = process_open, .close = process_close, .enter = worker_enter, \
	.leave = worker_leave, .populate = populate, .check = check, .set_use = set_use, .churn = churn, \
	.scratch = scratch, .huge = huge, .push_pop = push_pop, .produce = produce, .consume = consume

#endif
