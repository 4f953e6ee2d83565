/* SPDX-License-Identifier: MIT
 *
 * heap.h: the process-private side of an open heap and of a thread's transaction; the structs that modules
 * share.
 *
 * What: struct pheap (handle) and what each module keeps in it. No module keeps state elsewhere, except the
 * table of open heaps (open.c) and each thread's cache of its transactions (thread.c).
 *
 * Invariants
 *   H1  The first word of struct pheap and of struct pheap_tx is the base of the user's mapping (frozen
 *       ABI).
 *   H2  Handles and transactions live in memory that is never unmapped while the library is loaded, so a
 *       stale pointer reads a magic word that is wrong, not freed memory.
 *   H3  Durable words are reached through the pointers below, which point into `map`, never through `base`.
 */
#ifndef PH_HEAP_H
#define PH_HEAP_H

#include <pthread.h>
#include <stdbool.h>
#include <urcu/list.h>

#include "layout.h"
#include "pheap.h"

#define PH_HANDLE_MAGIC 0x656c646e61486850ull
#define PH_CACHELINE 64

struct ph_super; /* geometry in memory: super.h */

struct pheap {
	char *base;	/* user's mapping (H1); PROT_READ in a read-only heap */
	uint64_t magic; /* PH_HANDLE_MAGIC while open */
	uint64_t id;	/* of this open, never reused in this process */
	char *map;	/* the library's mapping; == base unless read-only */
	struct phd_coord *coord;
	struct phd_member *members;
	struct phd_stripe *stripes;
	struct phd_lane *lanes;
	struct phd_head *head;
	char *lane_logs;
	uint64_t *desc;
	uint64_t *bits; /* 4 words a chunk */
	struct phd_words *words;
	char *ring; /* this and the next two: with a WAL only */
	struct phd_lease *leases;
	uintptr_t lease_origin; /* where the lease of the page at offset 0 would be */
	struct phd_table_lease *table_leases;
	char *data;
	uint64_t data_off;
	uint64_t data_end;	/* end of the data as last seen; the file only grows */
	struct phd_super super; /* as validated at open */
	uint64_t member_id;	/* attachment number */
	uint32_t slot;		/* member slot */
	uint32_t flags;		/* PHEAP_* of open */
	/* These are tested as one word in pheap_begin: keep them together. */
	bool read_only; /* user mapping is PROT_READ; transactions must be PHEAP_READ */
	bool passive;	/* no write permission on the file: not a member, clean heap only */
	bool fenced;	/* this member fences in begin (no membarrier) */
	bool forked;	/* this is the child of the process that opened it */
	bool deferring; /* signals wait for the ends of transactions */
	bool plain_pad[3];
	bool leased;	  /* it has a WAL: stores need leases, commits a record */
	uint8_t long_way; /* what transactions begin with: 0, PH_LONG_SYNC, PH_LONG_EPOCH; or 1: it must fence */
	int fd;
	uint32_t ref_count; /* opens of the same file in this process */
	uint64_t dev, inode;
	char *path; /* of an ephemeral heap, absolute; else NULL */
	uint64_t lock_timeout_ns;
	struct cds_list_head node; /* in open.c's table */
	uint64_t recovered_back, recovered_forward, recovery_ns, open_ns;
	bool was_clean;
	bool reap_due; /* somebody was recovered: hold.h */
	bool reaping;

	pthread_mutex_t lock;	  /* guards txs, lanes_free */
	struct cds_list_head txs; /* struct pheap_tx of all threads */
	pthread_mutex_t
		helper_lock; /* one internal transaction at a time in a process: they are rare and short */
	struct pheap_tx *helper;       /* for it; NULL until the first */
	pthread_mutex_t recovery_lock; /* R2: one recoverer per process */
	/* One thread of the process at a time as itself: appends, flushes, makes a checkpoint. */
	pthread_mutex_t append_lock, flush_lock, checkpoint_lock;
	struct ph_keeper *keeper;
	uint32_t bell;		    /* futex; 1: the keeper is wanted */
	struct ph_alloc *alloc;	    /* alloc.c: partial runs, cursors */
	struct ph_reserve *reserve; /* reserve.c */
};

/* Lanes that may be in use: who looks at all need not look further. A lane is below before it is active. */
static inline uint32_t ph_lane_limit(const struct pheap *h)
{
	uint64_t limit = __atomic_load_n(&h->coord->lane_limit, __ATOMIC_ACQUIRE);

	return limit < h->super.lane_count ? (uint32_t)limit : h->super.lane_count;
}

/* open.c: aborts with a message: h is no open heap. */
_Noreturn void ph_heap_misused(const char *call);

/* The public edge's guard. */
static inline void ph_heap_check(const pheap *h, const char *call)
{
	if (__builtin_expect(!h || h->magic != PH_HANDLE_MAGIC, 0))
		ph_heap_misused(call);
}

/* Is the descriptor still the heap's? A program that closes descriptors it does not own may have given its number to
 * another file. 0, or -EBADF with a sentence. */
int ph_heap_fd_check(const struct pheap *h);

/* Looks at chunk_count again: the heap may have grown. */
bool ph_heap_has_now(const pheap *h, uint64_t off, uint64_t n);

/* Are these bytes data of the heap, backed by its file? */
static inline bool ph_heap_has(const pheap *h, uint64_t off, uint64_t n)
{
	uint64_t end = __atomic_load_n(&h->data_end, __ATOMIC_RELAXED);

	/* no overflow: off and n are compared before they are added */
	if (__builtin_expect(off >= h->data_off && off <= end && n <= end - off, 1))
		return true;
	return ph_heap_has_now(h, off, n);
}

#endif
