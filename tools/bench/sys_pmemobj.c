/* SPDX-License-Identifier: MIT
 *
 * sys_pmemobj.c: libpmemobj at its fastest: direct ranges, no setjmp, no flushes (main.c sets its
 * environment).
 *
 * Why pmemobj_tx_begin with no jump buffer and not TX_BEGIN: sigsetjmp would be counted against it; an
 * error aborts the program instead, which is what a bench wants.
 */
#include <libpmemobj.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench.h"

#define FILE_SIZE (256ull << 20) /* the array, and the log of a million ranges */
#define LAYOUT "pheap-bench"
#define LIFE_WORD_COUNT 4096u
#define LIFE_BATCH 1000u
#define LIFE_LARGE_SIZE (1u << 20)
#define LIFE_TOUCH 100u

struct node {
	PMEMoid next; /* 16 bytes, with the pool's id */
	uint64_t data[(BENCH_NODE_SIZE - sizeof(PMEMoid)) / 8];
};

struct root {
	PMEMoid head;
	PMEMoid array;
};

struct store {
	PMEMobjpool *pool;
	struct root *root;
	uint64_t *array;
};

static _Noreturn void fail(const char *call)
{
	bench_die("%s: %s", call, pmemobj_errormsg());
}

static void begin(PMEMobjpool *pool)
{
	if (pmemobj_tx_begin(pool, NULL, TX_PARAM_NONE))
		fail("pmemobj_tx_begin");
}

static void commit(void)
{
	pmemobj_tx_commit();
	if (pmemobj_tx_end())
		fail("pmemobj_tx_end");
}

static void add(const void *p, size_t n)
{
	if (pmemobj_tx_add_range_direct(p, n))
		fail("pmemobj_tx_add_range_direct");
}

static void words(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct store *store = self;

	for (uint64_t i = 0; i < op_count; i++) {
		begin(store->pool);
		for (unsigned j = 0; j < param; j++) {
			uint64_t r = bench_random(rng);
			uint64_t *word = &store->array[r % BENCH_WORD_COUNT];

			add(word, sizeof *word);
			*word = r;
		}
		commit();
	}
}

static void records(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct store *store = self;

	for (uint64_t i = 0; i < op_count; i++) {
		begin(store->pool);
		for (unsigned j = 0; j < param; j++) {
			uint64_t r = bench_random(rng);
			uint64_t *record = store->array + r % BENCH_RECORD_COUNT * (BENCH_RECORD_SIZE / 8);

			add(record, BENCH_RECORD_SIZE);
			for (unsigned k = 0; k < BENCH_RECORD_SIZE / 8; k++)
				record[k] = r + k;
		}
		commit();
	}
}

static void blocks(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct store *store = self;

	(void)param;
	for (uint64_t i = 0; i < op_count; i++) {
		uint64_t r = bench_random(rng);
		uint64_t *block = store->array + r % BENCH_BLOCK_COUNT * (BENCH_BLOCK_SIZE / 8);

		begin(store->pool);
		add(block, BENCH_BLOCK_SIZE);
		for (unsigned k = 0; k < BENCH_BLOCK_SIZE / 8; k++)
			block[k] = r + k;
		commit();
	}
}

static void push(struct store *store, uint64_t value)
{
	PMEMoid oid;
	struct node *node;

	begin(store->pool);
	oid = pmemobj_tx_alloc(sizeof *node, 1);
	node = pmemobj_direct(oid);
	if (!node)
		fail("pmemobj_tx_alloc");
	for (unsigned i = 0; i < sizeof node->data / 8; i++)
		node->data[i] = value + i;
	node->next = store->root->head;
	add(&store->root->head, sizeof store->root->head);
	store->root->head = oid;
	commit();
}

static void pop(struct store *store)
{
	PMEMoid oid = store->root->head;
	const struct node *node = pmemobj_direct(oid);

	begin(store->pool);
	add(&store->root->head, sizeof store->root->head);
	store->root->head = node->next;
	if (pmemobj_tx_free(oid))
		fail("pmemobj_tx_free");
	commit();
}

static void push_pop(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	(void)param;
	for (uint64_t i = 0; i < op_count; i++) {
		push(self, bench_random(rng));
		pop(self);
	}
}

static PMEMobjpool *pool_create(const char *path, uint64_t size)
{
	PMEMobjpool *pool = pmemobj_create(path, LAYOUT, size, 0600);

	if (!pool)
		fail("pmemobj_create");
	return pool;
}

static void *root_get(PMEMobjpool *pool, size_t n)
{
	void *root = pmemobj_direct(pmemobj_root(pool, n));

	if (!root)
		fail("pmemobj_root");
	return root;
}

static void *store_open(const char *folder)
{
	struct store *store = calloc(1, sizeof *store);
	char path[4096], *array;

	if (!store)
		bench_die("libpmemobj: no memory");
	snprintf(path, sizeof path, "%s/pmemobj", folder);
	unlink(path);
	store->pool = pool_create(path, FILE_SIZE);
	store->root = root_get(store->pool, sizeof *store->root);
	if (pmemobj_zalloc(store->pool, &store->root->array, BENCH_ARRAY_SIZE + BENCH_RECORD_SIZE, 2))
		fail("pmemobj_zalloc");
	array = pmemobj_direct(store->root->array);
	array += -(uintptr_t)array % BENCH_RECORD_SIZE;
	store->array = (void *)array;
	for (unsigned i = 0; i < BENCH_LIST_LENGTH; i++)
		push(store, i);
	return store;
}

static void store_close(void *self)
{
	struct store *store = self;

	pmemobj_close(store->pool);
	free(store);
}

static void *store_array(void *self)
{
	return ((struct store *)self)->array;
}

/* The transaction that the SIGKILL finds: changed words, new blocks. */
static void life_dirty(PMEMobjpool *pool)
{
	uint64_t *root = root_get(pool, LIFE_WORD_COUNT * sizeof *root);

	begin(pool);
	for (unsigned i = 0; i < LIFE_TOUCH; i++) {
		if (root[i])
			bench_die("libpmemobj: word %u was not rolled back", i);
		add(&root[i], sizeof root[i]);
		root[i] = i + 1;
		if (i % 10 == 0 && OID_IS_NULL(pmemobj_tx_alloc(64, 1)))
			fail("pmemobj_tx_alloc");
	}
}

static void life_create(const char *path, uint64_t size, uint64_t block_count)
{
	PMEMobjpool *pool = pool_create(path, size);
	uint64_t large_size = bench_life_large_size(size, block_count);
	uint64_t rng = BENCH_SEED;

	for (uint64_t done = 0; done < block_count;) {
		begin(pool);
		for (unsigned i = 0; i < LIFE_BATCH && done < block_count; i++, done++)
			if (OID_IS_NULL(pmemobj_tx_alloc(64 + bench_random(&rng) % 193, 1)))
				fail("pmemobj_tx_alloc");
		commit();
	}
	for (uint64_t i = 0; i < large_size / LIFE_LARGE_SIZE; i++)
		if (pmemobj_alloc(pool, NULL, LIFE_LARGE_SIZE, 1, NULL, NULL))
			break; /* it rounds up to chunks of 256 KiB: full a little earlier */
	life_dirty(pool);
}

static uint64_t life_open_ns(const char *path, uint64_t size, uint64_t *ret_recovery_ns)
{
	struct bench_span span;
	uint64_t ns;
	PMEMobjpool *pool;

	(void)size;
	(void)ret_recovery_ns;
	bench_span_begin(&span);
	pool = pmemobj_open(path, LAYOUT);
	ns = bench_span_end_ns(&span);
	if (!pool)
		fail("pmemobj_open");
	life_dirty(pool);
	return ns;
}

const struct bench_system bench_pmemobj = {
	.name = "libpmemobj",
	.open = store_open,
	.close = store_close,
	.array = store_array,
	.words = words,
	.records = records,
	.push_pop = push_pop,
	.blocks = blocks,
	.defers = words, /* it has no deferred store */
	.life_create = life_create,
	.life_open_ns = life_open_ns,
};
