/* SPDX-License-Identifier: MIT
 *
 * score.h: what the demo has seen so far, in numbers.
 */
#ifndef KV_SCORE_H
#define KV_SCORE_H

#include <stddef.h>

#include "worker.h"

struct series {
	uint64_t *values;
	size_t count, room;
};

void series_add(struct series *series, uint64_t value);
uint64_t series_median(const struct series *series); /* 0 of nothing */
uint64_t series_max(const struct series *series);

struct score {
	struct worker workers[WORKER_MAX];
	unsigned worker_count;
	uint64_t thread_count;	    /* of each worker */
	uint64_t start_ns, load_ns; /* load_ns: how long workers were let load */
	uint64_t kill_count;
	uint64_t opening_count;		   /* of them: while they attached */
	uint64_t together_count;	   /* of them: two at once */
	uint64_t all_count;		   /* of them: all at once */
	uint64_t inside_count;		   /* of them: in the middle of a transaction, at least */
	struct recoveries by_checks;	   /* what commands found that the demo started to check */
	struct series resumed_ns;	   /* from a kill to the next commit of a survivor */
	struct series freed_ns;		   /* of these, where others waited for the killed one */
	struct series pauses_ns, quiet_ns; /* longest pause of any survivor: after a kill; and without one */
	struct series recoveries_ns;
	uint64_t verify_count, verify_beside_count, fsck_count;
	char last_kill[120];
};
extern struct score score;

/* Transactions that the workers reported; transactions that were put right after a death. */
uint64_t score_done(void);
struct recoveries score_recoveries(void);
uint64_t score_record_count(void);

/* killed_at_count: transactions in the heap when nobody was left; end_count: that the last load added, without
 * kills. verify_line: how pheap-kv said that all is there. */
void score_tell(uint64_t killed_at_count, uint64_t end_count, const char *verify_line);

#endif
