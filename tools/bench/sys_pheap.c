/* SPDX-License-Identifier: MIT
 *
 * sys_pheap.c: pheap as its users write it: exclusive transactions, the header's typed layer, results
 * checked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench.h"
#include "heap_use.h"

#define FILE_SIZE (160ull << 20) /* the array, and the log of a million ranges */
#define LIFE_WORD_COUNT 4096u
#define LIFE_BATCH 1000u /* allocations in one transaction */
#define LIFE_LARGE_SIZE (1u << 20)
#define LIFE_TOUCH 100u /* words that the killed transaction has changed */

struct node;
PHEAP_DECLARE(struct node, 1);

struct node {
	PHEAP_PTR(struct node) next;
	uint64_t data[BENCH_NODE_SIZE / 8 - 1];
};

struct list {
	PHEAP_PTR(struct node) head;
};
PHEAP_DECLARE(struct list, 2);

struct record {
	uint64_t words[BENCH_RECORD_SIZE / 8];
};

struct store {
	pheap *heap;
	const uint64_t *array;
	const struct list *list;
};

static void words(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct store *store = self;

	for (uint64_t i = 0; i < op_count; i++) {
		pheap_tx *tx = heap_begin(store->heap, 0);

		for (unsigned j = 0; j < param; j++) {
			uint64_t r = bench_random(rng);
			uint64_t *word = PHEAP_MODIFY(tx, &store->array[r % BENCH_WORD_COUNT]);

			if (word)
				*word = r;
		}
		heap_commit(store->heap, tx);
	}
}

static void records(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct store *store = self;
	const struct record *array = (const void *)store->array;

	for (uint64_t i = 0; i < op_count; i++) {
		pheap_tx *tx = heap_begin(store->heap, 0);

		for (unsigned j = 0; j < param; j++) {
			uint64_t r = bench_random(rng);
			struct record *record = PHEAP_MODIFY(tx, &array[r % BENCH_RECORD_COUNT]);

			if (!record)
				break;
			for (unsigned k = 0; k < BENCH_RECORD_SIZE / 8; k++)
				record->words[k] = r + k;
		}
		heap_commit(store->heap, tx);
	}
}

static void blocks(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct store *store = self;

	for (uint64_t i = 0; i < op_count; i++) {
		pheap_tx *tx = heap_begin(store->heap, 0);
		uint64_t r = bench_random(rng);
		const uint64_t *at = store->array + r % BENCH_BLOCK_COUNT * (BENCH_BLOCK_SIZE / 8);
		uint64_t *block = pheap_modify(tx, at, BENCH_BLOCK_SIZE);

		(void)param;
		for (unsigned k = 0; block && k < BENCH_BLOCK_SIZE / 8; k++)
			block[k] = r + k;
		heap_commit(store->heap, tx);
	}
}

static void defers(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct store *store = self;

	for (uint64_t i = 0; i < op_count; i++) {
		pheap_tx *tx = heap_begin(store->heap, 0);

		for (unsigned j = 0; j < param; j++) {
			uint64_t r = bench_random(rng);

			pheap_defer(tx, &store->array[r % BENCH_WORD_COUNT], &r, sizeof r);
		}
		heap_commit(store->heap, tx);
	}
}

static void push(struct store *store, uint64_t value)
{
	pheap_tx *tx = heap_begin(store->heap, 0);
	struct node *node = pheap_alloc(tx, sizeof *node, PHEAP_TYPE(struct node));
	struct list *list = PHEAP_MODIFY(tx, store->list);

	if (node && list) {
		for (unsigned i = 0; i < BENCH_NODE_SIZE / 8 - 1; i++)
			node->data[i] = value + i;
		node->next = list->head;
		list->head = PHEAP_REF(tx, struct node, node);
	}
	heap_commit(store->heap, tx);
}

static void pop(struct store *store)
{
	pheap_tx *tx = heap_begin(store->heap, 0);
	const struct node *node = PHEAP_GET(tx, store->list->head);
	struct list *list = PHEAP_MODIFY(tx, store->list);

	if (list) {
		list->head = node->next;
		pheap_free(tx, node);
	}
	heap_commit(store->heap, tx);
}

static void push_pop(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	(void)param;
	for (uint64_t i = 0; i < op_count; i++) {
		push(self, bench_random(rng));
		pop(self);
	}
}

static pheap *heap_create(const char *path, uint64_t size)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	pheap *heap;
	int rc;

	opt.durability = PHEAP_PROCESS;
	opt.initial_size = size;
	opt.max_size = size;
	rc = pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &opt, &heap);
	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	return heap;
}

static void *store_open(const char *folder)
{
	struct store *store = calloc(1, sizeof *store);
	char path[4096];
	pheap_tx *tx;

	if (!store)
		bench_die("pheap: no memory");
	snprintf(path, sizeof path, "%s/pheap", folder);
	unlink(path);
	store->heap = heap_create(path, FILE_SIZE);
	tx = heap_begin(store->heap, 0);
	store->array = pheap_alloc_aligned(tx, BENCH_RECORD_SIZE, BENCH_ARRAY_SIZE, 0);
	store->list = PHEAP_ROOT(tx, "list", struct list);
	heap_commit(store->heap, tx);
	for (unsigned i = 0; i < BENCH_LIST_LENGTH; i++)
		push(store, i);
	return store;
}

static void store_close(void *self)
{
	struct store *store = self;
	int rc = pheap_close(store->heap);

	if (rc)
		heap_fail(NULL, "pheap_close", rc);
	free(store);
}

static void *store_array(void *self)
{
	/* only to fault its pages in: no byte changes */
	return (void *)(uintptr_t)((struct store *)self)->array;
}

static void blocks_make(pheap *heap, uint64_t count, bool large)
{
	const unsigned batch = large ? 1 : LIFE_BATCH;
	uint64_t rng = BENCH_SEED;

	for (uint64_t done = 0; done < count;) {
		pheap_tx *tx = heap_begin(heap, 0);

		for (unsigned i = 0; i < batch && done < count; i++, done++) {
			size_t n = large ? LIFE_LARGE_SIZE : 64 + bench_random(&rng) % 193;

			if (!pheap_alloc(tx, n, 1))
				break;
		}
		heap_commit(heap, tx);
	}
}

/* The transaction that the SIGKILL finds: changed words, new blocks. */
static void life_dirty(pheap *heap)
{
	const uint64_t *root = pheap_find(heap, "words");
	pheap_tx *tx = heap_begin(heap, 0);

	if (!root)
		bench_die("pheap: the root is gone");
	for (unsigned i = 0; i < LIFE_TOUCH; i++) {
		uint64_t *word;

		if (root[i])
			bench_die("pheap: word %u was not rolled back", i);
		word = PHEAP_MODIFY(tx, &root[i]);
		if (word)
			*word = i + 1;
		if (i % 10 == 0 && !pheap_alloc(tx, 64, 1))
			break;
	}
	if (pheap_error(tx))
		heap_fail(heap, "transaction", pheap_error(tx));
}

static void life_create(const char *path, uint64_t size, uint64_t block_count)
{
	pheap *heap = heap_create(path, size);
	uint64_t large_size = bench_life_large_size(size, block_count);
	pheap_tx *tx = heap_begin(heap, 0);
	const void *root = pheap_root(tx, "words", LIFE_WORD_COUNT * sizeof(uint64_t), 0);

	(void)root;
	heap_commit(heap, tx);
	blocks_make(heap, block_count, false);
	blocks_make(heap, large_size / LIFE_LARGE_SIZE, true);
	life_dirty(heap);
}

static uint64_t life_open_ns(const char *path, uint64_t size, uint64_t *ret_recovery_ns)
{
	struct pheap_info info = {0};
	struct bench_span span;
	uint64_t ns;
	pheap *heap;
	int rc;

	(void)size;
	bench_span_begin(&span);
	rc = pheap_open(path, 0, NULL, &heap);
	ns = bench_span_end_ns(&span);
	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	rc = pheap_info(heap, &info, sizeof info);
	if (rc)
		heap_fail(heap, "pheap_info", rc);
	if (info.recovered_back != 1)
		bench_die("pheap: open undid %u transactions, not 1", (unsigned)info.recovered_back);
	*ret_recovery_ns = info.recovery_ns;
	life_dirty(heap);
	return ns;
}

const struct bench_system bench_pheap = {
	.name = "pheap",
	.open = store_open,
	.close = store_close,
	.array = store_array,
	.words = words,
	.records = records,
	.push_pop = push_pop,
	.blocks = blocks,
	.defers = defers,
	.life_create = life_create,
	.life_open_ns = life_open_ns,
};
