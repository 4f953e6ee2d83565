/* SPDX-License-Identifier: MIT
 *
 * load.h: writing an input file into a heap with several threads, so that a killed load goes on where it
 * was; and telling whether a heap holds an input file.
 *
 * What: the records are dealt to KV_SLICE_COUNT slices. A slice is a row of steps, each a transaction on
 * one record:
 *   round 1     put each record
 *   round 2...  change each record (to bytes of another size), delete each record, put each record back
 * The step and the slice's count of steps are one transaction.
 * Why a count and not a look at the map ("is the key there?"): later rounds do the same to a record again.
 *
 * Invariants
 *   L1  slice.done steps of a slice are committed, no more and no fewer; each was done once.
 *   L2  So a step finds its record as the step before left it (stamp), else work was lost or repeated:
 *       -ESTALE.
 *   L3  At the end of a round every record has the input's value.
 */
#ifndef KV_LOAD_H
#define KV_LOAD_H

#include "input.h"
#include "store.h"

struct kv_load_options {
	unsigned thread_count;
	uint64_t round_count; /* a load that has begun more rounds ends the one it is in */
	uint64_t stall_at;    /* for tests: stop in the middle of this transaction, for ever; 0: never */
	bool again;	      /* a new load, whatever was loaded before */
	bool progress;	      /* lines "at N" while it runs */
};

/* 0, or a code that has been told on stderr. -ESTALE: L2 does not hold. */
int kv_load(struct kv_store *store, const struct kv_input *input, const struct kv_load_options *options);

/* Transactions of the load that are committed. */
uint64_t kv_load_done(const struct kv_load *load);

/* What the load's committed steps made of record i. The value is in the input, or in buffer (kv_load_room
 * bytes). */
enum kv_expect { KV_UNTOUCHED, KV_PRESENT, KV_ABSENT };
enum kv_expect kv_load_expect(const struct kv_load *load, const struct kv_input *input, size_t i,
			      char *buffer, struct kv_bytes *ret);
size_t kv_load_room(const struct kv_input *input);

/* Every slice stands between two rounds (L3), and the first is over. */
bool kv_load_complete(const struct kv_load *load);

/* The load in the heap is one of this input. */
bool kv_load_is_of(const struct kv_load *load, const struct kv_input *input);

#endif
