/* SPDX-License-Identifier: MIT
 *
 * alloc_list.c: the allocators without transactions in push-pop, as references.
 */
#include <stdlib.h>

#include "alloc.h"

struct store {
	struct alloc_plan plan;
	struct alloc_shared shared;
	void *heap, *worker;
};

static void *store_open(const struct alloc_system *system, const char *folder)
{
	struct store *store = calloc(1, sizeof *store);

	if (!store)
		bench_die("%s: no memory", system->name);
	store->plan = (struct alloc_plan){
		.folder = folder,
		.heap_size = 96u << 20,
		.thread_count = 1,
		.set_count = 1,
		.slot_count = 1,
		.shared = &store->shared,
	};
	store->heap = system->open(&store->plan);
	store->worker = system->enter(store->heap);
	return store;
}

static void store_close(const struct alloc_system *system, void *self)
{
	struct store *store = self;

	system->leave(store->worker);
	system->close(store->heap);
	free(store);
}

static void *store_array(void *self)
{
	(void)self;
	return NULL;
}

#define LIST_SYSTEM(name_) \
	static void *name_##_open(const char *folder) \
	{ \
		return store_open(&alloc_##name_, folder); \
	} \
	static void name_##_close(void *self) \
	{ \
		store_close(&alloc_##name_, self); \
	} \
	static void name_##_push_pop(void *self, uint64_t *rng, unsigned param, uint64_t op_count) \
	{ \
		alloc_##name_.push_pop(((struct store *)self)->worker, rng, param, op_count); \
	} \
	struct bench_system bench_##name_ = { \
		.name = #name_, \
		.open = name_##_open, \
		.close = name_##_close, \
		.array = store_array, \
		.push_pop = name_##_push_pop, \
	}

#ifdef BENCH_BOOST
LIST_SYSTEM(boost);
#endif
LIST_SYSTEM(mimalloc);
LIST_SYSTEM(malloc);

void bench_push_pop_skip(const struct bench_options *opt)
{
	const char *why = alloc_mimalloc.missing();

	if (why) {
		bench_skip(opt, "push-pop", "64", bench_mimalloc.name, why);
		bench_mimalloc.push_pop = NULL;
	}
#ifndef BENCH_BOOST
	bench_skip(opt, "push-pop", "64", "boost", "not in this build");
#endif
}
