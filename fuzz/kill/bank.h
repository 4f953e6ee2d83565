/* SPDX-License-Identifier: MIT
 *
 * bank.h: a workload of several processes whose right outcome is known to the byte.
 *
 * What: each worker numbers its transactions; transaction s of worker w is a function of (w, s) alone: a
 * transfer between two shared accounts, a new block in the worker's ring, the oldest block freed, the
 * number stored. So the numbers found in a heap say what every account and every block must be. Beside that workers
 * hold blocks that nothing else keeps, their own and each other's, and take, give and lend permits.
 *
 * Invariants
 *   N1  acked <= number in the heap <= started, for each worker; the number never falls.
 *   N2  Accounts are the sum of the effects of all transactions that the numbers name; their total never
 *       changes.
 *   N3  The allocated blocks are the bank, the rings and what is held, no more and no less, each with its bytes.
 *   N4  A record of a hold is what a worker noted in the same transaction, or its member is gone and the reaper called.
 *   N5  A member's balance of permits is what its workers were told, or have just asked for.
 */
#ifndef PHEAP_KILL_BANK_H
#define PHEAP_KILL_BANK_H

#include <stdbool.h>
#include <stdint.h>

#include "pheap.h"

#define BANK_WORKERS 8u
#define BANK_ACCOUNTS 24u
#define BANK_RING 4u
#define BANK_INITIAL 1000000u

/* A block that a worker holds: means something as long as that member is attached. */
struct bank_hold {
	uint64_t off, member;
	uint64_t worker, seq; /* whose transaction made it */
};

struct bank_worker {
	uint64_t seq;
	uint64_t ring[BANK_RING]; /* block of transaction s: ring[s % BANK_RING] */
	uint64_t reserved[3];
	struct bank_hold own, borrowed;
};

#define BANK_PERMITS 3u

struct bank {
	uint64_t accounts[BANK_ACCOUNTS];
	struct bank_worker workers[BANK_WORKERS];
	uint64_t permits_off;
};

/* Shared memory outside of the heap: what each worker had started and what it was told is done. */
struct board {
	struct {
		volatile uint64_t started, acked;
		volatile uint64_t member; /* of the process that works now */
		volatile int64_t permits,
			permits_asked; /* its balance: told, and after the call in progress */
		volatile uint64_t
			closing; /* the member that closes the heap, or died in it: what it held is given up before
					      its row goes */
		uint64_t reserved[2];
	} workers[BANK_WORKERS];
	volatile uint32_t stop;
	/* Each process is one worker: then what one has lent is not in the way of what another one has. */
	volatile uint32_t lends;
	volatile uint32_t
		in_tx; /* kills that hit an open transaction: set by the victim's state when it died */
	char why[512]; /* first violation, by whoever found it */
	volatile uint32_t why_set;
};

/* What the numbers seen so far imply. */
struct bank_expect {
	uint64_t seq[BANK_WORKERS];
	uint64_t accounts[BANK_ACCOUNTS];
};

/* Makes the bank in a fresh heap. 0 or a code. */
int bank_make(pheap *h);
/* A new process is this worker: it has nothing. */
void bank_worker_start(pheap *h, struct board *board, unsigned worker);
/* Before that process closes the heap. */
void bank_worker_end(pheap *h, struct board *board, unsigned worker);
/* Transaction number acked + 1 of the worker, retried on deadlock. 0, or -1 with board->why. */
int bank_tx(pheap *h, struct board *board, unsigned worker);
void bank_expect_start(struct bank_expect *e);
/* All that others had has come back: this process has the heap for itself. */
int bank_check_alone(pheap *h, struct board *board);
/* Holds the heap against N1 to N5. 0, or -1 with board->why. */
int bank_check(pheap *h, struct board *board, struct bank_expect *e);
int bank_wrong(struct board *board, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
