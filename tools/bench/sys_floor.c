/* SPDX-License-Identifier: MIT
 *
 * sys_floor.c: the two bounds. floor: the same stores under floor_log.h. limit: the stores alone, which
 * survive nothing.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "bench.h"
#include "floor_log.h"

struct floor_file {
	struct floor_log log;
	char array[BENCH_ARRAY_SIZE];
};

struct node {
	struct node *next;
	uint64_t data[BENCH_NODE_SIZE / 8 - 1];
};

struct store {
	struct floor_file *file;
	struct node *head; /* limit only */
};

static void floor_words(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct floor_file *file = ((struct store *)self)->file;
	uint64_t *array = (void *)file->array;

	for (uint64_t i = 0; i < op_count; i++) {
		for (unsigned j = 0; j < param; j++) {
			uint64_t r = bench_random(rng);
			uint64_t *word = floor_modify(&file->log, &array[r % BENCH_WORD_COUNT], sizeof *word);

			*word = r;
		}
		floor_commit(&file->log);
	}
}

static void record_fill(uint64_t *record, uint64_t value)
{
	for (unsigned i = 0; i < BENCH_RECORD_SIZE / 8; i++)
		record[i] = value + i;
}

static void floor_records(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct floor_file *file = ((struct store *)self)->file;
	char *array = file->array;

	for (uint64_t i = 0; i < op_count; i++) {
		for (unsigned j = 0; j < param; j++) {
			uint64_t r = bench_random(rng);
			char *at = array + r % BENCH_RECORD_COUNT * BENCH_RECORD_SIZE;

			record_fill(floor_modify(&file->log, at, BENCH_RECORD_SIZE), r);
		}
		floor_commit(&file->log);
	}
}

static void block_fill(uint64_t *block, uint64_t value)
{
	for (unsigned i = 0; i < BENCH_BLOCK_SIZE / 8; i++)
		block[i] = value + i;
}

static void floor_blocks(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct floor_file *file = ((struct store *)self)->file;
	char *array = file->array;

	(void)param;
	for (uint64_t i = 0; i < op_count; i++) {
		uint64_t r = bench_random(rng);
		char *at = array + r % BENCH_BLOCK_COUNT * BENCH_BLOCK_SIZE;

		block_fill(floor_modify(&file->log, at, BENCH_BLOCK_SIZE), r);
		floor_commit(&file->log);
	}
}

static void floor_defers(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	struct floor_file *file = ((struct store *)self)->file;
	uint64_t *array = (void *)file->array;

	for (uint64_t i = 0; i < op_count; i++) {
		for (unsigned j = 0; j < param; j++) {
			uint64_t r = bench_random(rng);

			floor_defer(&file->log, &array[r % BENCH_WORD_COUNT], &r, sizeof r);
		}
		floor_defer_commit(&file->log);
	}
}

/* The compiler must not keep stores of one operation back for the next. */
static void operation_end(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static void limit_words(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	uint64_t *array = (void *)((struct store *)self)->file->array;

	for (uint64_t i = 0; i < op_count; i++) {
		for (unsigned j = 0; j < param; j++) {
			uint64_t r = bench_random(rng);

			array[r % BENCH_WORD_COUNT] = r;
		}
		operation_end();
	}
}

static void limit_records(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	char *array = ((struct store *)self)->file->array;

	for (uint64_t i = 0; i < op_count; i++) {
		for (unsigned j = 0; j < param; j++) {
			uint64_t r = bench_random(rng);

			record_fill((void *)(array + r % BENCH_RECORD_COUNT * BENCH_RECORD_SIZE), r);
		}
		operation_end();
	}
}

static void limit_blocks(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	char *array = ((struct store *)self)->file->array;

	(void)param;
	for (uint64_t i = 0; i < op_count; i++) {
		uint64_t r = bench_random(rng);

		block_fill((void *)(array + r % BENCH_BLOCK_COUNT * BENCH_BLOCK_SIZE), r);
		operation_end();
	}
}

static void limit_push(struct store *store, uint64_t value)
{
	struct node *node = malloc(sizeof *node);

	if (!node)
		bench_die("limit: no memory");
	for (unsigned i = 0; i < BENCH_NODE_SIZE / 8 - 1; i++)
		node->data[i] = value + i;
	node->next = store->head;
	store->head = node;
}

static void limit_pop(struct store *store)
{
	struct node *node = store->head;

	store->head = node->next;
	free(node);
}

static void limit_push_pop(void *self, uint64_t *rng, unsigned param, uint64_t op_count)
{
	(void)param;
	for (uint64_t i = 0; i < op_count; i++) {
		limit_push(self, bench_random(rng));
		operation_end();
		limit_pop(self);
		operation_end();
	}
}

static void *store_open(const char *folder, const char *name)
{
	struct store *store = calloc(1, sizeof *store);

	if (!store)
		bench_die("%s: no memory", name);
	store->file = bench_file_map(folder, name, sizeof *store->file);
	for (unsigned i = 0; i < BENCH_LIST_LENGTH; i++)
		limit_push(store, i);
	return store;
}

static void *floor_open(const char *folder)
{
	return store_open(folder, "floor");
}

static void *limit_open(const char *folder)
{
	return store_open(folder, "limit");
}

static void store_close(void *self)
{
	struct store *store = self;

	while (store->head)
		limit_pop(store);
	munmap(store->file, sizeof *store->file);
	free(store);
}

static void *store_array(void *self)
{
	return ((struct store *)self)->file->array;
}

const struct bench_system bench_floor = {
	.name = "floor",
	.open = floor_open,
	.close = store_close,
	.array = store_array,
	.words = floor_words,
	.records = floor_records,
	.blocks = floor_blocks,
	.defers = floor_defers,
};

const struct bench_system bench_limit = {
	.name = "limit",
	.open = limit_open,
	.close = store_close,
	.array = store_array,
	.words = limit_words,
	.records = limit_records,
	.push_pop = limit_push_pop,
	.blocks = limit_blocks,
	.defers = limit_words, /* the same stores */
};
