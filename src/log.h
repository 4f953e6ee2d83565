/* SPDX-License-Identifier: MIT
 *
 * log.h: a lane's log: appending records, walking them, and longer logs in extensions.
 *
 * What: the writing side (a transaction) keeps a struct ph_log; recovery builds one from the file.
 * Why one log for undo, redo and allocator operations: one order, one commit word, one thing to recover.
 *
 * Invariants
 *   L1  A record is complete in memory before `used` reaches it.                  ORDER(undo-used)
 *   L2  Segments are contiguous in log positions: each one's base is where the one before ends.
 *   L3  Chunks of extensions are owned by the transaction's word, so they are free when the lane moves on.
 */
#ifndef PH_LOG_H
#define PH_LOG_H

#include "copy.h"
#include "heap.h"
#include "mutant.h"

struct ph_segment {
	char *start;	      /* address of the first record */
	uint64_t base;	      /* log position of it, units of 8 bytes */
	uint64_t room;	      /* units of 8 bytes */
	uint64_t off;	      /* file offset of the extension head; 0: the lane's own log */
	uint64_t chunk_count; /* of the extension */
};

struct ph_log {
	char *next;		     /* where the next record goes */
	char *limit;		     /* end of the current segment */
	uint64_t used;		     /* as the lane's word */
	char *first, *first_limit;   /* of the lane's own log */
	struct ph_segment *segments; /* segments[0] is the lane's own log */
	uint32_t count, room;
	bool ext_set; /* lane->ext_off is not 0 */
};

struct pheap_tx;

/* Room for one record of n payload bytes in a segment; may extend. 0, -ENOSPC, -ENOMEM, -E2BIG. */
int ph_log_extend(struct pheap_tx *tx, size_t n);
/* The largest payload that fits into the current segment now. */
size_t ph_log_fits(const struct ph_log *log);
/* Drops segments that begin at or beyond the end (after the end was lowered). */
void ph_log_trim(struct pheap_tx *tx);
struct phd_record *ph_log_at(const struct ph_log *log, uint64_t position);
void ph_log_apply(struct pheap *h, const struct ph_log *log);
/* One record of a log that was not written by this process. */
bool ph_log_record_valid(const struct pheap *h, const struct phd_record *r);
void ph_log_record_apply(struct pheap *h, const struct phd_record *r);
/* Restores what UNDO records from the end down to position `to` hold; with revive (own log only) also
 * REVIVE records: a log read from the file is not trusted to rewrite itself. */
void ph_log_undo(struct pheap *h, const struct ph_log *log, uint64_t to, bool revive);
void ph_log_free(struct ph_log *log);
/* Recovery: builds and validates the log of a lane. 0, PHEAP_ECORRUPT with a sentence, -ENOMEM. */
int ph_log_load(struct pheap *h, uint32_t lane_idx, uint64_t gen, struct ph_log *ret);
/* After the undo of records [to, end) of the lane's log, its last ones: they are given up, and `used` lowered to that. With a WAL a
 * SWITCH record may hold them: the chunks that they had claimed, if there are any, are no lease-free extent before it is gone. */
void ph_log_give_up(struct pheap *h, struct phd_lane *lane, const struct ph_log *log, uint64_t used);
/* DESC record: stores the descriptors of `count` chunks. */
void ph_log_apply_desc(struct pheap *h, uint64_t chunk, uint64_t count, uint64_t desc);

static inline uint64_t ph_log_end(const struct ph_log *log)
{
	return PHD_USED_END(log->used);
}

static inline uint64_t ph_log_last(const struct ph_log *log)
{
	return PHD_USED_LAST(log->used);
}

static inline uint64_t ph_log_units(size_t n)
{
	return (sizeof(struct phd_record) + ((n + 7) & ~(size_t)7)) / 8;
}

static inline char *ph_record_payload(const struct phd_record *r)
{
	return (char *)(uintptr_t)(r + 1);
}

/* Makes the record at log->next part of the log; copies: with the payload at `from`; else it is there already. Returns its position. */
static inline __attribute__((always_inline)) uint64_t ph_log_add(struct ph_log *log, struct phd_lane *lane,
								 uint64_t target, const void *from,
								 bool copies, size_t n)
{
	/* In locals: a payload may be anything to the compiler, these too. */
	char *next = log->next;
	struct phd_record *r = (struct phd_record *)(void *)next;
	uint64_t units = ph_log_units(n), position = ph_log_end(log);
	uint32_t prev = (uint32_t)(position - ph_log_last(log));

	if (PH_MUTANT(PH_MUTANT_USED_EARLY))
		__atomic_store_n(&lane->used, PHD_USED(position + units, position), __ATOMIC_RELEASE);
	log->next = next + units * 8;
	log->used = PHD_USED(position + units, position);
	r->target = target;
	r->size = (uint32_t)n;
	r->prev = prev;
	if (copies && __builtin_constant_p(n))
		memcpy(r + 1, from, n);
	else if (copies)
		ph_copy((char *)(r + 1), from, n);
	/* ORDER(undo-used): the whole record before `used` past it. Crash between: the record is not seen,
	 * and the bytes it stands for have not been touched. Pairs with log.c:ph_log_load. */
	__atomic_store_n(&lane->used,
			 PH_MUTANT(PH_MUTANT_USED_LATE) ? PHD_USED(position, position - prev)
							: PHD_USED(position + units, position),
			 __ATOMIC_RELEASE);
	ph_order();
	return position;
}

static inline uint64_t ph_log_push(struct ph_log *log, struct phd_lane *lane, uint64_t target, size_t n)
{
	return ph_log_add(log, lane, target, NULL, false, n);
}

/* Before the lane becomes active. */
static inline void ph_log_reset(struct ph_log *log, struct phd_lane *lane)
{
	log->next = log->first;
	log->limit = log->first_limit;
	log->used = 0;
	/* ORDER(begin-used): used and link are 0 before the state says active. Crash between: an idle lane,
	 * an empty log. Without it recovery would undo with the records of the last transaction. Pairs with
	 * log.c:ph_log_load. */
	if (!PH_MUTANT(PH_MUTANT_USED_KEPT))
		__atomic_store_n(&lane->used, 0, __ATOMIC_RELEASE);
	if (__builtin_expect(log->ext_set, 0)) {
		__atomic_store_n(&lane->ext_off, 0, __ATOMIC_RELEASE);
		log->ext_set = false;
		log->count = 1;
	}
}

#endif
