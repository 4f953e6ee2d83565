/* SPDX-License-Identifier: MIT
 *
 * top.h: what `pheap top` knows of one moment, and what it learns from the moment before.
 *
 * Why by reading words that others change: whoever shows must not slow down. So a row is what was true when
 * its word was read, not a snapshot of all; a lock that is held for longer than the interval is always seen.
 *
 * Invariants
 *   T1  "Seen for" never claims more than was seen: it begins at the first look that found the same lane in
 *       the same transaction with the same lock.
 *   T2  A lane's generation grows by one with each end of a transaction; rates are differences of
 *       generations.
 */
#ifndef PHEAP_TOP_H
#define PHEAP_TOP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "heap_file.h"
#include "members.h"

/* In the order in which one may be waited for while another is held. */
enum lock_kind {
	LOCK_WRITER, /* the exclusive transaction */
	LOCK_SWITCH, /* the change of mode */
	LOCK_DRAIN,  /* the transaction of lane idx, which is in the way of a mode */
	LOCK_STRIPE,
	LOCK_NAMES,
	LOCK_GROWTH,
	LOCK_DIRECTORY,
	LOCK_LATCH, /* some latch of the allocator, or growth, that lane idx has */
};
#define LOCK_IDX_MANY UINT32_MAX /* stripes held shared beyond those that a lane has room to name */

/* One lane that holds one lock or waits for it. */
struct lock_row {
	uint8_t kind;
	bool waits, shared;
	uint32_t idx, lane;
	uint64_t gen; /* of the lane */
	uint64_t since_ns;
};

struct sample {
	uint64_t at_ns;
	struct phd_coord coord;
	struct phd_coord coord_before; /* of the sample before */
	double seconds;		       /* since then; 0: there is none */
	struct members members;
	double *rates;		/* by member, transactions per second */
	double rate;		/* of all; below 0: nothing to compare with */
	struct lock_row *locks; /* by kind, idx, waits, lane */
	size_t lock_count, lock_room;
};

void sample_take(const struct heap_file *h, struct sample *ret);
/* Rates and times since the sample before. */
void sample_compare(const struct heap_file *h, struct sample *s, const struct sample *before);
void sample_free(struct sample *s);

/* Prints at most `height` rows (0: all that matters), each of at most `width` columns. */
void sample_print(const struct heap_file *h, const struct sample *s, unsigned height, unsigned width,
		  FILE *out);

#endif
