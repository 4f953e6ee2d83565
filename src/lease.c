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

#define AHEAD_PAGES 16u /* E3: neighbours are those in the same row of so many */

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

/* E3. Only space in data whose chunks are in use: an image of free space could come back over what a lease-free extent
 * has there. */
static void neighbours_add(const struct pheap *h, struct ph_lease_set *s)
{
	uint64_t page = s->pages[s->count - 1], first = page & ~(uint64_t)(AHEAD_PAGES * PHD_BLOCK_SIZE - 1);
	uint64_t end = __atomic_load_n(&h->data_end, __ATOMIC_RELAXED);

	if (page < h->data_off)
		return;
	for (uint64_t at = first < h->data_off ? h->data_off : first;
	     at < first + AHEAD_PAGES * PHD_BLOCK_SIZE && at + PHD_BLOCK_SIZE <= end && s->count < PH_LEASE_BATCH;
	     at += PHD_BLOCK_SIZE) {
		uint64_t chunk = (at - h->data_off) >> PHD_CHUNK_SHIFT;
		uint64_t seen = __atomic_load_n(&h->leases[chunk].page, __ATOMIC_ACQUIRE);

		if (seen && seen <= s->epoch && seen + h->super.wal_size > s->epoch && !in_set(s, at) &&
		    PHD_DESC_KIND(__atomic_load_n(&h->desc[chunk], __ATOMIC_ACQUIRE)) != PHD_DESC_FREE)
			s->pages[s->count++] = at;
	}
}

/* Appends the images of the set. 1: the epoch has changed: from the start. */
static int images_append(struct pheap *h, uint64_t word, struct ph_lease_set *s)
{
	struct ph_wal_buf b = {0};
	uint64_t end;
	int rc = ph_wal_start(&b);

	for (uint32_t i = 0; i < s->count && rc == 0; i++) {
		char *to = ph_wal_entry(&b, PHD_REC_TARGET(PHD_REC_UNDO, s->pages[i]), PHD_BLOCK_SIZE);

		if (to)
			memcpy(to, h->map + s->pages[i], PHD_BLOCK_SIZE);
		else
			rc = -ENOMEM;
	}
	if (rc == 0)
		ph_wal_seal(&b, PHD_WAL_IMAGE);
	while (rc == 0) {
		rc = ph_wal_lock(h, word);
		if (rc < 0)
			break;
		if (h->coord->epoch != s->epoch) {
			ph_wal_unlock(h, word);
			rc = 1;
			break;
		}
		/* The copy was made in this epoch and before `append`: if another one has leased a page meanwhile and stored to
		 * it, its image stands in front of this one, and is applied after it. */
		if (ph_wal_fits(h, b.size, false)) {
			end = PH_MUTANT(PH_MUTANT_IMAGE_NONE) ? s->epoch + 8 : ph_wal_put(h, &b);
			for (uint32_t i = 0; i < s->count; i++)
				__atomic_store_n(ph_lease_word(h, s->pages[i]), end, __ATOMIC_RELEASE);
			s->durable = end;
			s->count = 0;
			ph_wal_unlock(h, word);
			break;
		}
		ph_wal_unlock(h, word);
		rc = ph_checkpoint_room(h, b.size);
	}
	ph_wal_free(&b);
	return rc;
}

static uint32_t batch_max(const struct pheap *h)
{
	size_t max = ph_wal_record_max(h) / (PHD_BLOCK_SIZE + 64);

	return max < PH_LEASE_BATCH ? (uint32_t)max : PH_LEASE_BATCH;
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
		if (s->count == 1 && max == PH_LEASE_BATCH)
			neighbours_add(h, s);
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
