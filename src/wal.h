/* SPDX-License-Identifier: MIT
 *
 * wal.h: the one log of a heap that survives power cuts: appending to it, and making it durable.
 *
 * What: records of commits, of pages as they were, and of epochs (FORMAT.md, section 8). A record is built in private
 * memory, copied into the ring under one word, and written to the file by whoever comes first, for all that are there.
 * Why a ring beside the log's place in the file: pages of a mapping that were just written back fault again at the next
 * store, which costs more than the record; so the file's part is only written by pwrite.
 * Why appending is done under a word, copy included: a killed writer leaves no hole. It takes less time than the flush that
 * the record waits for by three orders of magnitude.
 *
 * Invariants
 *   L1  Byte x of the log is byte x % wal_size of the ring and of the file; so a flush may be done by anybody, beside
 *       others, any number of times.
 *   L2  Below `tail` are whole records, of the current log generation; below `durable` they are on the disk.
 *   L3  tail <= replay_lsn + wal_size. Only SWITCH records use the last quarter.
 *   L4  A sector that is durable is not written again before it is recycled: each flush ends at a sector's end.
 *   L5  Who has `append` sees an even epoch. If it finds bit 0 set, and switch_lsn is below the tail, the SWITCH record is in the
 *       log: it completes the switch in place of one who is flushing, or stopped, or dead. Else who set the bit died, and it is
 *       cleared.
 */
#ifndef PH_WAL_H
#define PH_WAL_H

#include "heap.h"

/* A record on its way. */
struct ph_wal_buf {
	char *bytes; /* struct phd_wal, then entries */
	size_t size, room;
};

static inline bool ph_has_wal(const struct pheap *h)
{
	return h->leased;
}

/* Building. NULL or -ENOMEM: no memory; the buffer keeps what it had. */
int ph_wal_start(struct ph_wal_buf *b);
char *ph_wal_entry(struct ph_wal_buf *b, uint64_t target, size_t n); /* where its n bytes go */
void ph_wal_seal(struct ph_wal_buf *b, uint32_t kind);
void ph_wal_free(struct ph_wal_buf *b);
size_t ph_wal_record_max(const struct pheap *h);

/* `word`: of an active lane, or 0: the process's own, one thread at a time. 0, or as ph_word_take. */
int ph_wal_lock(struct pheap *h, uint64_t word);
void ph_wal_unlock(struct pheap *h, uint64_t word);
/* Is there room for it? Under append. */
bool ph_wal_fits(const struct pheap *h, size_t size, bool is_switch);
/* Under append, when there is room. The record is part of the log when this returns its end. */
uint64_t ph_wal_put(struct pheap *h, const struct ph_wal_buf *b);

/* Until all below lsn is durable. timeout_ns: UINT64_MAX as long as it takes. 0, -ETIMEDOUT, PHEAP_EPOISONED. */
int ph_wal_wait(struct pheap *h, uint64_t lsn, uint64_t timeout_ns);
/* Under append: all that is there is made durable, whoever else flushes. */
int ph_wal_flush_locked(struct pheap *h);
/* The SWITCH record at switch_lsn is in the log: makes that durable up to `to`, the end of a sector, and the epoch its own.
 * epoch: what it is, with bit 0. */
int ph_wal_switch_end(struct pheap *h, uint64_t epoch, uint64_t switch_lsn, uint64_t to);
/* Under append: to the end of the sector. */
void ph_wal_pad(struct pheap *h);
/* A flush if there is something to flush and nobody does it. */
int ph_wal_flush(struct pheap *h);

/* An even epoch: now, after whoever switches. 0 or as ph_wal_lock. */
int ph_wal_epoch(struct pheap *h, uint64_t word, uint64_t *ret);
/* Has a sync failed? 0 or PHEAP_EPOISONED with a sentence. */
int ph_wal_poisoned(const struct pheap *h);
/* It has, with rc. PHEAP_EPOISONED with a sentence. */
int ph_wal_poison(struct pheap *h, int rc);

static inline uint64_t ph_wal_tail(const struct pheap *h)
{
	return __atomic_load_n(&h->coord->tail, __ATOMIC_ACQUIRE);
}

static inline uint64_t ph_wal_durable(const struct pheap *h)
{
	return __atomic_load_n(&h->coord->durable, __ATOMIC_ACQUIRE);
}

/* The word of this process: held as long as it is attached. */
static inline uint64_t ph_wal_member_word(const struct pheap *h)
{
	return PHD_WORD(h->member_id, PHD_WORD_MEMBER + h->slot);
}

#endif
