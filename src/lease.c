/* SPDX-License-Identifier: MIT
 *
 * lease.c: see lease.h.
 */
#include "lease.h"

#include <errno.h>

#include "checkpoint.h"
#include "copy.h"
#include "error.h"
#include "mutant.h"

#define ROW_MIN 16u    /* pages */
#define DENSE_PART 8u  /* a row of which one in so many is leased is leased as a whole */
#define SYNC_BATCH 64u /* pages: who waits for a commit does not wait for more than that */

static uint64_t page_of(uint64_t off)
{
	return off & ~(uint64_t)(PHD_BLOCK_SIZE - 1);
}

static bool in_set(const struct ph_lease_set *s, uint64_t page)
{
	for (uint32_t i = 0; i < s->count; i++)
		if (s->pages[i] == page)
			return true;
	return false;
}

int ph_lease_start(struct pheap *h, uint64_t word, struct ph_lease_set *s)
{
	s->count = 0;
	s->durable = 0;
	return ph_wal_epoch(h, word, &s->epoch);
}

/* Is the page of this chunk one that a neighbour brings? Only space whose chunks are in use: an image of free space could come
 * back over what a lease-free extent has there. */
static bool is_near(const struct pheap *h, const struct ph_lease_set *s, uint64_t chunk, bool dense)
{
	uint64_t seen = __atomic_load_n(&h->leases[chunk].page, __ATOMIC_ACQUIRE);

	if (seen > s->epoch || (!dense && (!seen || seen + h->super.wal_size <= s->epoch)))
		return false;
	return PHD_DESC_KIND(__atomic_load_n(&h->desc[chunk], __ATOMIC_ACQUIRE)) != PHD_DESC_FREE;
}

static bool is_dense(const struct pheap *h, const struct ph_lease_set *s, uint64_t from, uint64_t to)
{
	uint64_t count = 0;

	for (uint64_t chunk = from; chunk < to; chunk++)
		count += __atomic_load_n(&h->leases[chunk].page, __ATOMIC_RELAXED) > s->epoch;
	return count * DENSE_PART >= to - from;
}

/* E3. Of the first page of the set, alone in it: from larger and larger rows around it. */
static void neighbours_add(const struct pheap *h, struct ph_lease_set *s, uint32_t max)
{
	uint64_t page = s->pages[0], chunk = (page - h->data_off) >> PHD_CHUNK_SHIFT;
	uint64_t end = (__atomic_load_n(&h->data_end, __ATOMIC_RELAXED) - h->data_off) >> PHD_CHUNK_SHIFT;
	uint64_t seen_from = chunk, seen_to = chunk + 1; /* looked at already */

	if (page < h->data_off)
		return;
	for (uint64_t row = ROW_MIN; row <= max; row *= 4) {
		uint64_t from = chunk / row * row, to = from + row < end ? from + row : end;
		bool dense = is_dense(h, s, from, to);
		uint32_t count = s->count;

		for (uint64_t at = from; at < to && s->count < max; at++) {
			if (at == seen_from)
				at = seen_to;
			if (at < to && is_near(h, s, at, dense))
				s->pages[s->count++] = h->data_off + (at << PHD_CHUNK_SHIFT);
		}
		if (s->count == count && !dense)
			break;
		seen_from = from;
		seen_to = to;
	}
}

static int images_build(const struct pheap *h, const struct ph_lease_set *s, struct ph_wal_buf *b)
{
	int rc = ph_wal_start(b);

	for (uint32_t i = 0; i < s->count && rc == 0; i++) {
		char *to = ph_wal_entry(b, PHD_REC_TARGET(PHD_REC_UNDO, s->pages[i]), PHD_BLOCK_SIZE);

		if (to)
			memcpy(to, h->map + s->pages[i], PHD_BLOCK_SIZE);
		else
			rc = -ENOMEM;
	}
	if (rc == 0)
		ph_wal_seal(b, PHD_WAL_IMAGE);
	return rc;
}

/* 0: in the log; 1: the epoch has changed; 2: no room. */
static int images_put(struct pheap *h, uint64_t word, struct ph_lease_set *s, const struct ph_wal_buf *b)
{
	int rc = ph_wal_lock(h, word);

	if (rc < 0)
		return rc;
	/* The copy was made in this epoch and before `append`: if another one has leased a page meanwhile and stored to it, its
	 * image stands in front of this one, and is applied after it. */
	if (h->coord->epoch != s->epoch) {
		rc = 1;
	} else if (!ph_wal_fits(h, b->size, false)) {
		rc = 2;
	} else {
		uint64_t end = PH_MUTANT(PH_MUTANT_IMAGE_NONE) ? s->epoch + 8 : ph_wal_put(h, b);

		for (uint32_t i = 0; i < s->count; i++)
			__atomic_store_n(ph_lease_word(h, s->pages[i]), end, __ATOMIC_RELEASE);
		s->durable = end;
		s->count = 0;
	}
	ph_wal_unlock(h, word);
	if (h->keeper)
		ph_checkpoint_if_due(h);
	return rc;
}

/* Appends the images of the set. 1: the epoch has changed: from the start. */
static int images_append(struct pheap *h, uint64_t word, struct ph_lease_set *s)
{
	struct ph_wal_buf b = {0};
	int rc = images_build(h, s, &b);

	if (rc == 0)
		while ((rc = images_put(h, word, s, &b)) == 2) {
			rc = ph_checkpoint_room(h, b.size);
			if (rc)
				break;
		}
	ph_wal_free(&b);
	return rc;
}

static uint32_t batch_max(const struct pheap *h)
{
	size_t fits = ph_wal_record_max(h) / (PHD_BLOCK_SIZE + 64);
	uint32_t max = h->super.durability == PHEAP_SYNC >> 24 ? SYNC_BATCH : PH_LEASE_BATCH;

	return fits < max ? (uint32_t)fits : max;
}

/* Less where the log has proved too small for what neighbours take of it. */
static uint32_t row_max(const struct pheap *h, uint32_t max)
{
	uint64_t narrow = __atomic_load_n(&h->coord->lease_narrow, __ATOMIC_RELAXED);

	return max >> (narrow < PH_LEASE_NARROW_MAX ? narrow : PH_LEASE_NARROW_MAX);
}

int ph_lease_add(struct pheap *h, uint64_t word, struct ph_lease_set *s, uint64_t off, uint64_t n)
{
	uint32_t max = batch_max(h);

	for (uint64_t page = page_of(off); page < off + n; page += PHD_BLOCK_SIZE) {
		uint64_t seen = __atomic_load_n(ph_lease_word(h, page), __ATOMIC_ACQUIRE);

		if (seen > s->epoch) {
			if (seen > s->durable)
				s->durable = seen;
			continue;
		}
		if (in_set(s, page))
			continue;
		if (s->count >= max) {
			int rc = images_append(h, word, s);

			if (rc)
				return rc;
		}
		s->pages[s->count++] = page;
		if (s->count == 1)
			neighbours_add(h, s, row_max(h, max));
	}
	return 0;
}

int ph_lease_finish(struct pheap *h, uint64_t word, struct ph_lease_set *s)
{
	int rc = s->count ? images_append(h, word, s) : 0;

	if (rc)
		return rc;
	/* ORDER(image-durable): the image is on the disk before the caller can store into the page. A cut between: the page is
	 * what the image says. Pairs with power.c. */
	return PH_MUTANT(PH_MUTANT_IMAGE_LATE) ? 0 : ph_wal_wait(h, s->durable, h->lock_timeout_ns);
}

int ph_lease_range(struct pheap *h, uint64_t word, uint64_t off, uint64_t n, uint64_t *ret_epoch)
{
	struct ph_lease_set s;
	int rc;

	do {
		rc = ph_lease_start(h, word, &s);
		if (rc == 0)
			rc = ph_lease_add(h, word, &s, off, n);
		if (rc == 0)
			rc = ph_lease_finish(h, word, &s);
	} while (rc == 1);
	*ret_epoch = s.epoch;
	if (rc == -ETIMEDOUT)
		return ph_error(h, rc, "waited too long for the log of the heap to become durable");
	return rc;
}

int ph_lease_grow(struct pheap *h, uint64_t chunk_count)
{
	struct ph_wal_buf b = {0};
	uint64_t epoch;
	int rc = ph_wal_start(&b);

	if (rc == 0 && !ph_wal_entry(&b, PHD_REC_TARGET(PHD_REC_GROW, chunk_count), 0))
		rc = -ENOMEM;
	if (rc == 0)
		ph_wal_seal(&b, PHD_WAL_COMMIT);
	while (rc == 0) {
		rc = ph_lease_range(h, 0, h->super.head_off, PHD_BLOCK_SIZE, &epoch);
		if (rc == 0)
			rc = ph_wal_lock(h, 0);
		if (rc < 0)
			break;
		if (h->coord->epoch != epoch) {
			ph_wal_unlock(h, 0);
			continue;
		}
		if (ph_wal_fits(h, b.size, false)) {
			if (!PH_MUTANT(PH_MUTANT_GROW_UNLOGGED))
				(void)ph_wal_put(h, &b);
			/* Under append, so that no epoch begins before it is stored. */
			__atomic_store_n(&h->head->chunk_count, chunk_count, __ATOMIC_RELEASE);
			ph_wal_unlock(h, 0);
			break;
		}
		ph_wal_unlock(h, 0);
		rc = ph_checkpoint_room(h, b.size);
	}
	ph_wal_free(&b);
	return rc;
}

bool ph_lease_free(const struct pheap *h, uint64_t chunk, uint64_t count)
{
	uint64_t replay = __atomic_load_n(&h->coord->replay_lsn, __ATOMIC_ACQUIRE);
	uint64_t epoch = __atomic_load_n(&h->coord->epoch_lsn, __ATOMIC_ACQUIRE);

	for (uint64_t i = 0; i < count && !PH_MUTANT(PH_MUTANT_LEASE_FREE); i++) {
		const struct phd_lease *l = &h->leases[chunk + i];

		if (__atomic_load_n(&l->alloc_lsn, __ATOMIC_ACQUIRE) > replay ||
		    __atomic_load_n(&l->page, __ATOMIC_ACQUIRE) > epoch)
			return false;
	}
	return true;
}
