/* SPDX-License-Identifier: MIT
 *
 * drive.h: heaps in every state that a death can leave, and everything that a program does with a heap.
 */
#ifndef HOSTILE_DRIVE_H
#define HOSTILE_DRIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pheap.h"

#define DRIVE_TYPE_NODE 7u
#define DRIVE_TYPE_EXTENT 9u

enum drive_state {
	DRIVE_CLEAN,
	DRIVE_UNDO,	      /* killed inside a transaction */
	DRIVE_UNDO_LONG,      /* the same with log extensions, a savepoint, deferred stores */
	DRIVE_COMMITTED,      /* killed between commit point and idle: SET, CLEAR, DESC, DEFER, PUBLISH */
	DRIVE_COMMITTED_LONG, /* the same with log extensions */
	DRIVE_THREADS,	      /* several lanes: active, committed, reserved blocks, locks */
	DRIVE_STATES,
};

extern const char *const drive_names[DRIVE_STATES];
extern const struct pheap_type drive_types[];
#define DRIVE_TYPES 2u

/* Durability of the heaps that are made: PHEAP_PROCESS unless a test says otherwise. */
extern uint32_t drive_level;
extern uint64_t drive_journal_size; /* of SYNC and EPOCH */
const char *drive_level_name(void);

/* A small deterministic generator. */
struct rng {
	uint64_t state;
};
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n);

/* The path of a new folder for this run's files in TMPDIR; removed at exit of the process that called
 * this, and by the next run's parent when that was killed. */
const char *drive_folder(void);

/* Makes a heap at path (which is replaced) in that state, in a child. Exits when even that fails. */
void drive_make(const char *path, enum drive_state state, uint64_t initial_size, uint64_t max_size);
void drive_options(struct pheap_options *opt);

/* Reads everything; returns a sum over roots and blocks with their bytes. 0 and *ret_what: a walk did
 * not end. */
uint64_t drive_walk(pheap *h, const char **ret_what);
/* Some transactions, drawn from r; errors are fine. */
void drive_transact(pheap *h, struct rng *r);

#endif
