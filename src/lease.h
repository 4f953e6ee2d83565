/* SPDX-License-Identifier: MIT
 *
 * lease.h: the right to store into a page in place, for one epoch: its image is durable.
 *
 * What: a word for each page of kind A, the end of the record with its image. Leased iff that is above the epoch's LSN; to be
 * relied on iff it is durable as well. One compare each, and nothing to reset when an epoch ends: LSNs only grow.
 * Why images and not undo records that are flushed: a page pays once an epoch, not once a transaction.
 *
 * Invariants
 *   E1  A lease word is set under `append`, to the end of a record that is in the log.
 *   E2  Who gets 0 from a call here may store into these pages as long as the epoch is the one that was given.
 *   E3  A page that is missed brings its neighbours, where many are leased, or were in the epoch before: they share the
 *       flush. So a set that is hot is leased anew by some large writes, and a scattered one page by page. How many it
 *       brings is halved by each epoch that the filling log ended, and doubled by each that time did.
 */
#ifndef PH_LEASE_H
#define PH_LEASE_H

#include "heap.h"
#include "wal.h"

#define PH_LEASE_BATCH 256u    /* pages in a record */
#define PH_LEASE_NARROW_MAX 5u /* then a page brings none */

/* Pages still to be leased, and how far the log must be durable for those that are. */
struct ph_lease_set {
	uint64_t epoch;
	uint64_t durable; /* leased by others, or by this one, up to here */
	uint32_t count;
	uint64_t pages[PH_LEASE_BATCH]; /* offsets */
};

/* Leases all pages of kind A in [off, off + n). word: of an active lane, or 0. *epoch: in which. 0, or -ENOMEM, -ETIMEDOUT,
 * PHEAP_EPOISONED and others. */
int ph_lease_range(struct pheap *h, uint64_t word, uint64_t off, uint64_t n, uint64_t *ret_epoch);

/* For several ranges with one flush: start, add each, finish. */
int ph_lease_start(struct pheap *h, uint64_t word, struct ph_lease_set *s);
int ph_lease_add(struct pheap *h, uint64_t word, struct ph_lease_set *s, uint64_t off, uint64_t n);
int ph_lease_finish(struct pheap *h, uint64_t word, struct ph_lease_set *s);

/* A record that says so, and the right to store it: chunk_count is changed outside of transactions. */
int ph_lease_grow(struct pheap *h, uint64_t chunk_count);

/* Space that nothing in the log knows of, so that it can be stored to without a lease: whole chunks. */
bool ph_lease_free(const struct pheap *h, uint64_t chunk, uint64_t count);

/* Of a page of the data. */
static inline uint64_t *ph_lease_data(const struct pheap *h, uint64_t off)
{
	return &((struct phd_lease *)(h->lease_origin + (off >> PHD_CHUNK_SHIFT) * sizeof(struct phd_lease)))
			->page;
}

/* The word of the page at off, which is of kind A. */
static inline uint64_t *ph_lease_word(const struct pheap *h, uint64_t off)
{
	if (off >= h->data_off)
		return ph_lease_data(h, off);
	if (off >= h->super.bits_off)
		return &h->table_leases[(off - h->super.bits_off) / PHD_BLOCK_SIZE].bits;
	if (off >= h->super.desc_off)
		return &h->table_leases[(off - h->super.desc_off) / PHD_BLOCK_SIZE * 4].desc;
	return &h->coord->head_lease;
}

/* The common case: one page that is leased already. *epoch is set if so. */
static inline bool ph_lease_has(const struct pheap *h, uint64_t off, uint64_t *ret_epoch)
{
	uint64_t epoch = __atomic_load_n(&h->coord->epoch, __ATOMIC_ACQUIRE);
	uint64_t seen = __atomic_load_n(ph_lease_word(h, off), __ATOMIC_ACQUIRE);

	*ret_epoch = epoch;
	return !(epoch & 1) && seen > epoch && seen <= ph_wal_durable(h);
}

#endif
