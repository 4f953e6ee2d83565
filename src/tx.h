/* SPDX-License-Identifier: MIT
 *
 * tx.h: a thread's transaction, and the steps that modules of the library share.
 *
 * What: struct pheap_tx is made once per thread and heap (and once more for internal transactions) and
 * reused.
 * Why reused: beginning is then a few plain stores; a stale pointer still points to a transaction object
 * (H2).
 *
 * States, and the one function per edge
 *
 *   ended --pheap_begin--> open --ph_tx_fail--> doomed
 *     ^                     |  ^                  |
 *     |                     |  `--rollback_to-----'  when the doom came after the savepoint
 *     `------tx_finish------'---------------------'  commit, abort
 *
 * Invariants
 *   T1  writable_by is the owner thread iff the transaction is open, not doomed and may change memory; so
 *       one compare is the whole check of the fast path, and every other answer comes from ph_tx_refuse. It is
 *       NULL iff the transaction is not open, PH_TX_SEALED otherwise.
 *   T2  log.used equals lane->used outside of the functions of log.c.
 *   T3  What ops and descs hold is what the SET, CLEAR and DESC records of the log say.
 *   T4  A failure between open and the commit point leaves durable state as it was.
 */
#ifndef PH_TX_H
#define PH_TX_H

#include "alloc.h"
#include "copy.h"
#include "cover.h"
#include "error.h"
#include "heap.h"
#include "log.h"
#include "wal.h"

/* Of extras and modify_long: the heap has a WAL, and there is no other reason for the long way. Any other reason sets bit 0.
 */
#define PH_LONG_SYNC 2u
#define PH_LONG_EPOCH 4u
/* Of extras: the log has SET and CLEAR records. */
#define PH_LONG_OPS 8u

/* What they are when a transaction begins. A member that fences does so by the long way. */
static inline uint8_t ph_tx_long_way(const struct pheap *h)
{
	if (!h->leased)
		return 0;
	if (h->fenced)
		return 1;
	return h->super.durability == PHEAP_SYNC >> 24 ? PH_LONG_SYNC : PH_LONG_EPOCH;
}

#define PH_TX_MAGIC 0x7870616568705854ull

struct ph_savepoint {
	uint64_t id;
	uint64_t end, last; /* log position to return to */
	uint64_t fresh;	    /* as in the transaction */
	uint32_t nest;	    /* 1: opened by a nested begin */
};

struct ph_callback {
	void (*fn)(void *arg, int committed);
	void *arg;
	uint64_t position; /* log end when registered, for rollback */
	bool rolled_back;
};

struct ph_root_pending;

/* One per thread: which transaction the last call used. */
struct ph_thread {
	uint64_t heap_id;
	struct pheap_tx *tx;
	struct cds_list_head txs; /* of this thread, all heaps */
	bool registered;
};
extern __thread struct ph_thread ph_thread __attribute__((visibility("hidden"), tls_model("initial-exec")));

#define PH_TX_SEALED ((struct ph_thread *)8)

struct pheap_tx {
	char *base;		       /* H1 */
	struct ph_thread *writable_by; /* T1 */
	struct pheap *h;
	struct phd_coord *coord; /* of h */
	struct phd_lane *lane;	 /* NULL in a passive heap */
	struct ph_log log;
	bool internal;
	uint8_t extras; /* anything beyond plain undo of short ranges: end by the long way, which resets what follows */
	bool defers_signals;
	bool applies;	      /* the log has records to apply */
	bool applies_durable; /* and they are applied when the record is durable */
	bool has_frees, has_defers, has_publishes;
	bool defers_everywhere; /* defer_lines is not complete */
	uint8_t modify_long; /* coverage is more than lines, or deferred stores wait: modify by the long way */
	uint32_t lane_idx;
	uint32_t mode, read_only; /* set together in begin */
	uint64_t gen;
	uint64_t gen_end;	/* begin looks at the heap's limit when gen gets there */
	uint64_t word;		/* PHD_WORD(gen, lane_idx) */
	uint64_t gate;		/* its value that let this transaction in, or PH_GATE_WRITER */
	uint64_t bias;		/* PHD_GATE_BIAS of its lane */
	uint64_t exclusive_row; /* times in a row that this lane found the writer word free and its own */
	uint64_t magic;
	uint64_t lsn; /* of a heap with a WAL: the end of its record */
	struct ph_wal_buf record;
	uint64_t fresh; /* bytes of new blocks that go into the record */
	struct ph_cover cover;
	struct ph_ops ops;
	struct ph_run_cache cache;
	int doom;
	uint32_t nest;
	struct ph_thread *thread;
	struct ph_map defer_lines; /* line -> live deferred records there */

	struct ph_savepoint *savepoints;
	uint32_t savepoint_count, savepoint_room;
	uint64_t savepoint_serial, doom_position;

	struct ph_callback *callbacks;
	uint32_t callback_count, callback_room;
	const uint64_t **notified;
	uint32_t notified_count, notified_room;
	uint32_t stripe_count, shared_count; /* one word for ph_tx_has_stripes */
	uint32_t *stripes;		     /* held exclusively */
	uint32_t *shared_stripes;	     /* held shared */
	uint32_t stripe_room, shared_room;
	struct ph_published *published; /* reserve.c */
	uint32_t published_count, published_room;
	struct ph_root_pending *pending; /* root.c */
	uint32_t pending_count, pending_room;

	struct cds_list_head thread_node, heap_node;
};

/* tx.c */
int ph_tx_refuse(pheap_tx *tx, const char *call); /* why the fast check failed: a code, never 0 */
void ph_tx_doom(pheap_tx *tx, int rc, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define ph_tx_fail(tx, rc, ...) \
	(ph_tx_doom((tx), (rc), __VA_ARGS__), ph_error_rc(rc)) /* format NULL: the sentence is there */
int ph_tx_commit_step(
	pheap_tx *tx); /* through the commit point to idle; on error nothing happened and it is still open */
void ph_tx_undo_step(pheap_tx *tx); /* all bytes back, idle */
pheap_tx *ph_tx_internal_begin(pheap_tx *tx, int *ret_rc);
int ph_tx_internal_commit(pheap_tx *helper);
void ph_tx_internal_abort(pheap_tx *helper);
bool ph_tx_any_open(pheap *h);
void ph_tx_abort_all(pheap_tx *tx);		    /* whatever its nesting; by its thread */
void ph_tx_forget(pheap_tx *tx, uint64_t position); /* what the private tables hold beyond a log position */

/* Grows an array of the transaction; false: no memory. */
bool ph_room(void *array, uint32_t *room, uint32_t need, size_t item_size);

static inline bool ph_tx_has_stripes(const pheap_tx *tx)
{
	uint64_t both;

	memcpy(&both, &tx->stripe_count, sizeof(both));
	return both != 0;
}

/* T1. 0, or why not. */
static inline int ph_tx_enter(pheap_tx *tx, const char *call)
{
	if (__builtin_expect(tx != NULL && tx->writable_by == &ph_thread, 1))
		return 0;
	return ph_tx_refuse(tx, call);
}

/* Offset of p if [p, p + n) is data of this transaction's heap, else 0. */
static inline uint64_t ph_tx_range(const pheap_tx *tx, const void *p, size_t n)
{
	uint64_t off = (uint64_t)((uintptr_t)p - (uintptr_t)tx->base);

	return ph_heap_has(tx->h, off, n) ? off : 0;
}

/* Logs the old bytes unless they are covered; then [off, off + n) may be stored to. 0 or a code (not yet
 * doomed). */
int ph_tx_undo(pheap_tx *tx, uint64_t off, size_t n);
static inline int ph_fail_if(pheap_tx *tx, int rc)
{
	return rc ? ph_tx_fail(tx, rc, NULL) : 0;
}

#endif
