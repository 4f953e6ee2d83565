/* SPDX-License-Identifier: MIT
 *
 * alloc.h: workloads of an allocator: churn of mixed sizes, blocks freed by other threads than those that
 * allocated them, huge blocks.
 *
 * What: an alloc_system is a heap behind loops. The loops are written once, in alloc_loops.h, and compiled
 * into the file of each system.
 * Blocks are of 16 to 1024 bytes, all sizes equally likely, and live in slots: an array of references that
 * is in the heap itself. Systems that are not persistent have transactions that do nothing.
 *
 * Invariants
 *   A1  A block's first word is its number << 32 | its size, its last one the complement of that.
 *   A2  A slot is changed by one thread at a time; it passes on to another one between transactions.
 */
#ifndef BENCH_ALLOC_H
#define BENCH_ALLOC_H

#include "bench.h"

#define ALLOC_SLOT_COUNT 100000u /* of churn-mixed, all threads together */
#define ALLOC_SIZE_MIN 16u
#define ALLOC_SIZE_MAX 1024u
#define ALLOC_HUGE_MIN (1u << 20)
#define ALLOC_HUGE_MAX (64u << 20)
#define ALLOC_RING_COUNT 4096u
#define ALLOC_SCRATCH_SIZE 16u	 /* several to a cache line */
#define ALLOC_SCRATCH_COUNT 100u /* stores to one block */
#define ALLOC_THREAD_MAX 4u

/* What the threads of a heap share beside it. */
struct alloc_shared {
	uint32_t enter_count;
	uint32_t set_spare; /* a set of slots that nobody has */
	uint32_t param;	    /* of the next turn: operations of a transaction */
	uint32_t pad[13];
	uint64_t head, pad_head[7];	     /* blocks handed over ever; the producer's */
	uint64_t tail, pad_tail[7];	     /* blocks taken over ever; the consumer's */
	uint64_t ring[2 * ALLOC_RING_COUNT]; /* a reference takes 8 or 16 bytes */
};

enum alloc_level { ALLOC_PROCESS, ALLOC_EPOCH, ALLOC_SYNC };

struct alloc_plan {
	const char *folder; /* the heap's alone */
	enum alloc_level level;
	uint64_t heap_size;    /* bytes that the heap has from the start; it may grow */
	unsigned thread_count; /* in all processes */
	unsigned set_count;    /* the slots are so many sets; the first ones belong to the threads */
	unsigned slot_count;   /* of a set */
	bool fill;	       /* a block for each slot, and all of them replaced twice on average */
	struct alloc_shared *shared;
};

/* What each thread's state begins with. */
struct alloc_member {
	const struct alloc_plan *plan;
	uint32_t index;	     /* of the thread */
	uint32_t first;	     /* the first slot of the set in use */
	uint32_t slot_count; /* in that set */
};

struct alloc_system {
	const char *name;
	bool processes; /* more than one can have the heap */
	bool levels;
	const char *(*missing)(void);	 /* why it can not take part; or NULL: it can */
	void *(*open)(const void *plan); /* makes the heap, or (processes) opens it */
	void (*close)(void *heap);
	void *(*enter)(void *heap); /* in each thread; what the calls below are given: an alloc_member */
	void (*leave)(void *self);
	void (*populate)(void *self);		   /* the pages of all its blocks, writable */
	void (*check)(void *self);		   /* dies unless all its blocks are whole */
	void (*set_use)(void *self, unsigned set); /* from now on that set of slots */
	/* Each but push_pop does tx_count transactions of param operations. */
	bench_loop *churn;    /* frees the block of a random slot, and allocates another in its place */
	bench_loop *scratch;  /* allocates a small block and stores to it; frees it; param is not used */
	bench_loop *huge;     /* frees the block of a random slot, or allocates one if there is none */
	bench_loop *push_pop; /* a block onto the list in slot 0, and off again, two transactions */
	/* One transaction; false: the ring has no room for param blocks, or not so many. */
	bool (*produce)(void *self, uint64_t *rng, unsigned param);
	bool (*consume)(void *self, unsigned param);
};
extern const struct alloc_system alloc_pheap, alloc_pmemobj, alloc_boost, alloc_mimalloc, alloc_malloc;
extern const struct alloc_system *const alloc_systems[]; /* those built in; NULL ends it */
#define ALLOC_SYSTEM_MAX 5

/* alloc.c: those that can take part in the bench; how many. The others are named. */
unsigned alloc_systems_find(const struct bench_options *opt, const char *bench,
			    const struct alloc_system **ret);
/* The folder of a heap, below the one of the kind of memory that is wanted; to be removed, which frees it. */
const char *alloc_folder_make(const struct bench_options *opt, unsigned number);
void alloc_folder_remove(const char *folder);
bool alloc_param_wanted(const struct bench_options *opt, const char *param);

/* alloc_team.c: churn-mixed by several threads. */
void alloc_churn_threads(const struct bench_options *opt);

static inline uint32_t alloc_scale(uint64_t r, uint32_t n)
{
	return (uint32_t)((r & UINT32_MAX) * n >> 32);
}

static inline void alloc_block_fill(void *p, uint64_t number, uint32_t size)
{
	uint64_t word = number << 32 | size, *first = p;

	*first = word;
	word = ~word;
	/* the size may be any number */
	__builtin_memcpy((char *)p + size - sizeof word, &word, sizeof word);
}

static inline void alloc_block_check(const char *system, const void *p, uint64_t number)
{
	const uint64_t *first = p;
	uint32_t size = (uint32_t)*first;
	uint64_t last;

	if (*first >> 32 != (number & UINT32_MAX) || size < ALLOC_SIZE_MIN || size > ALLOC_HUGE_MAX)
		bench_die("%s: the first word of a block is not what was stored", system);
	__builtin_memcpy(&last, (const char *)p + size - sizeof last, sizeof last);
	if (last != ~*first)
		bench_die("%s: the last word of a block is not what was stored", system);
}

#endif
