/* SPDX-License-Identifier: MIT
 *
 * load.h: writing an input file into a heap with several threads, beside any number of other processes that
 * do the same, so that a killed load goes on where it was.
 *
 * What: the steps of plan.h. A step and the slice's count of steps are one transaction, under two keys: the
 * slice's and the record's.
 * Why a count and not a look at the map ("is the key there?"): later rounds do the same to a record again.
 * Why slices are not dealt to threads or processes: whoever is free takes any slice, one pass at a time, so
 * the dead need no heirs. Who meets another at a slice takes another one; that two never do the same step is
 * L1's business, not theirs.
 *
 * Why steps do not wait for the disk: a load has only said that it is done once all of it is durable, and then one
 * wait is enough. A power cut takes its last steps, and it goes on where that left it.
 *
 * Invariants
 *   L1  slice.done steps of a slice are committed, no more and no fewer; each was done once.
 *   L2  So a step finds its record as the step before left it (stamp), else work was lost or repeated:
 *       -ESTALE.
 *   L3  The load's other fields only change in a transaction that is alone; a step looks at the number.
 *   L4  When a load returns 0, its steps survive what the heap's durability promises.
 */
#ifndef KV_LOAD_H
#define KV_LOAD_H

#include "input.h"
#include "report.h"
#include "store.h"

struct kv_load_options {
	unsigned thread_count;
	uint64_t round_count;
	uint64_t stall_at;	  /* for tests: stop in the middle of this transaction, for ever; 0: never */
	struct kv_report *report; /* NULL: nobody watches */
	bool again;		  /* a new load, whatever was loaded before */
	bool progress;		  /* lines "at N" while it runs */
	bool quiet;		  /* no lines at all */
};

/* 0, or a code that has been told on stderr. -ESTALE: L2 does not hold. */
int kv_load(struct kv_store *store, const struct kv_input *input, const struct kv_load_options *options);

/* The pieces of it that need no thread, for who lets other processes do the rest: makes the load the heap's,
 * and says so. */
int kv_load_begin(struct kv_store *store, const struct kv_input *input, const struct kv_load_options *options,
		  uint64_t *ret_number);
void kv_load_tell_start(const struct kv_store *store);
void kv_load_tell_end(const struct kv_input *input, uint64_t done, double seconds);
double kv_seconds_now(void);

#endif
