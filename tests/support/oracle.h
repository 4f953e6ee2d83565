/* SPDX-License-Identifier: MIT
 *
 * oracle.h: what a heap must hold, kept in plain memory, and transactions that change both the heap and
 * that picture.
 *
 * What: a model of everything a user can see (one main object with words and slots, the block in each slot
 * with its bytes, named roots), a generator that draws transactions from a seed, and a check of a heap
 * against a model.
 * Why a model and not invariants of the data: "the sum is right" passes when a whole transaction is lost or
 * a block leaks.
 *
 * Invariants
 *   O1  A recovered heap equals a model between "acknowledged at the cut" and "started at the cut": for one
 *       thread, `committed` until commit is called, `committed` or `working` during it, `working`
 *       afterwards. `phase` says which.
 *   O2  The set of allocated blocks is exactly the set the model holds: no leak, no double use.
 *   O4  What processes have (held references, permits) counts for those that are alive: a check says whose.
 *   O3  The same seed on the same heap makes the same calls with the same bytes.
 */
#ifndef PHEAP_TEST_ORACLE_H
#define PHEAP_TEST_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pheap.h"

#define ORACLE_SLOTS 16u
#define ORACLE_NAMES 6u
#define ORACLE_WORDS 48u
#define ORACLE_RESERVED 3u
#define ORACLE_DEPTH 4u
#define ORACLE_HELD 4u
#define ORACLE_PERMITS 2u
#define ORACLE_PERMITS_NAME "p"
#define ORACLE_MAIN_TYPE 7u

/* The durable main object, bound to the root name "oracle". */
struct oracle_main {
	uint64_t magic, seq;
	uint64_t slot[ORACLE_SLOTS]; /* offset of the block, 0: none */
	uint64_t words[ORACLE_WORDS];
};

struct oracle_block {
	uint64_t off; /* 0: no block */
	size_t size, usable;
	uint32_t type;
	bool deferred;	/* bytes are on their way by pheap_defer in this transaction */
	uint8_t *bytes; /* size of them */
};

/* Of two processes: the one that makes the transactions, and another one beside it. Whose holds and permits count. */
#define ORACLE_MINE 1u
#define ORACLE_THEIRS 2u
#define ORACLE_BOTH 3u

/* A block that nothing in the heap leads to: it lives as long as somebody holds it. */
struct oracle_held {
	struct oracle_block block;
	uint32_t mine, theirs; /* how often */
};

struct oracle_permits {
	uint64_t off; /* 0: none */
	int64_t total;
	int64_t mine, theirs; /* taken, less lent */
};

struct oracle_model {
	uint64_t main_off;
	size_t main_usable;
	struct oracle_main main;
	struct oracle_block slots[ORACLE_SLOTS];
	struct oracle_held held[ORACLE_HELD];
	struct oracle_permits permits[ORACLE_PERMITS]; /* by the names "p0" and "p1" */
	uint64_t extra_off;			       /* a block that somebody else changes, 0: none */
	uint64_t names[ORACLE_NAMES];		       /* block that name "n0", "n1", ... means; 0: none */
	struct oracle_block reserved[ORACLE_RESERVED]; /* of the living process only: a crash takes them */
};

enum oracle_phase { ORACLE_BEFORE, ORACLE_EITHER, ORACLE_AFTER };

enum oracle_op {
	ORACLE_OP_NONE,
	ORACLE_OP_OPEN,
	ORACLE_OP_CLOSE,
	ORACLE_OP_RECOVERY,
	ORACLE_OP_BEGIN,
	ORACLE_OP_MODIFY,
	ORACLE_OP_USER_STORE,
	ORACLE_OP_STORE,
	ORACLE_OP_DEFER,
	ORACLE_OP_DEFER_U64,
	ORACLE_OP_ALLOC,
	ORACLE_OP_ZALLOC,
	ORACLE_OP_ALIGNED,
	ORACLE_OP_DUP,
	ORACLE_OP_REALLOC,
	ORACLE_OP_FREE,
	ORACLE_OP_SAVEPOINT,
	ORACLE_OP_ROLLBACK,
	ORACLE_OP_ROOT,
	ORACLE_OP_ROOT_SET,
	ORACLE_OP_RESERVE,
	ORACLE_OP_PUBLISH,
	ORACLE_OP_CANCEL,
	ORACLE_OP_NEST,
	ORACLE_OP_LOCK,
	ORACLE_OP_HOLD,
	ORACLE_OP_RELEASE,
	ORACLE_OP_PERMITS_NEW,
	ORACLE_OP_PERMITS_DELETE,
	ORACLE_OP_TAKE,
	ORACLE_OP_GIVE,
	ORACLE_OP_LEND,
	ORACLE_OP_TRIM,
	ORACLE_OP_COMMIT,
	ORACLE_OP_ABORT,
	ORACLE_OP_COUNT
};
extern const char *const oracle_op_names[ORACLE_OP_COUNT];

struct oracle_saved {
	struct oracle_model model;
	pheap_savepoint_id id;
	bool nest;
};

struct oracle {
	pheap *h;
	pheap_tx *tx;
	pheap *other;		/* of the other process, or NULL */
	const char *other_path; /* by which that one opens the heap; NULL: there is none */
	bool other_acts;	/* the calls are the other one's */
	uint64_t rng;
	struct oracle_model committed, working;
	struct oracle_saved saved[ORACLE_DEPTH];
	unsigned saved_count;
	size_t block_size_max; /* largest block the generator asks for, bytes */
	size_t block_size_min; /* half of the smaller ones are made larger than that; 0: none */
	unsigned step_max;     /* calls in a transaction */
	int doomed;	       /* expected result of commit when not 0 */
	volatile enum oracle_phase phase;
	volatile enum oracle_op op;
	/* How the user's own in-place stores are made; NULL: memcpy. Explorers count each of its steps. */
	void (*store)(void *dst, const void *src, size_t n);
	/* May be NULL: how a transaction commits; what happens between the calls of one. */
	int (*commit)(struct oracle *o);
	void (*pause)(struct oracle *o);
	char why[256]; /* the violation, "" if none */
	/* The calls of the current transaction in words, for the report of a violation. */
	char trace[6000];
	size_t trace_size;
	uint64_t tx_count, commit_count, call_counts[ORACLE_OP_COUNT];
};

/* Options of a small heap, varied by the seed. */
struct pheap_options oracle_options(uint64_t seed);
/* Makes the main object in a fresh heap and the matching model. 0, or -1 with `why`. */
int oracle_start(struct oracle *o, pheap *h, uint64_t seed);
/* Goes on with a heap that holds exactly `m`. */
void oracle_resume(struct oracle *o, pheap *h, const struct oracle_model *m, uint64_t seed);
/* One transaction, from begin to its end. Until oracle_settle, committed and working are the two models of
 * O1. 0, or -1 with `why` when a call answered what it must not. */
int oracle_tx(struct oracle *o);
/* Calls outside of transactions that change nothing for who comes when the caller has died. */
int oracle_between(struct oracle *o);
/* A pheap_trim by this process. */
int oracle_trim(struct oracle *o);
/* The process whose calls they are is gone, and all it had: as its close leaves the models. */
void oracle_gone(struct oracle *o, uint32_t who);
/* The transaction is over and looked at: working becomes committed. */
void oracle_settle(struct oracle *o);
void oracle_end(struct oracle *o);

/* Does h hold exactly m? whose: ORACLE_MINE, ORACLE_THEIRS. 0, or -1 with a sentence. */
int oracle_check(pheap *h, const struct oracle_model *m, uint32_t whose, char *why, size_t why_size);
/* FORMAT.md sections 3 to 5 on a raw image that is recovered: descriptors, bitmaps, lanes, lists of records. `records`:
 * held references that must be there. 0, or -1 with a sentence. */
int oracle_structure(const char *image, uint64_t size, unsigned records, char *why, size_t why_size);
/* Records that the model asks for. */
unsigned oracle_records(const struct oracle_model *m, uint32_t whose);
static inline uint32_t oracle_held_count(const struct oracle_held *e, uint32_t whose)
{
	return (whose & ORACLE_MINE ? e->mine : 0) + (whose & ORACLE_THEIRS ? e->theirs : 0);
}

void oracle_model_copy(struct oracle_model *dst, const struct oracle_model *src);
void oracle_model_free(struct oracle_model *m);

uint64_t oracle_random(uint64_t *state);
static inline uint64_t oracle_below(uint64_t *state, uint64_t n)
{
	return oracle_random(state) % n;
}

#endif
