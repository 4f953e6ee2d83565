/* SPDX-License-Identifier: MIT
 *
 * redo.c: see redo.h.
 */
#include "redo.h"

#include <errno.h>

#include "checkpoint.h"
#include "defer.h"
#include "lease.h"
#include "mutant.h"
#include "os.h"
#include "wal.h"

#define LEASE_TRIES 3
#define LEASE_TRIES_EPOCH 100	     /* there is no other way */
#define EXTENT_FLUSH_MIN (64u << 10) /* bytes: from here on a second flush is cheaper than writing it twice */

/* ---- space ---- */

int ph_redo_fresh(struct pheap *h, uint64_t word, uint64_t off, uint64_t n)
{
	uint64_t epoch, step = ph_wal_record_max(h) / 2;
	int rc = 0;

	/* Each page in the epoch in which the block was chosen, or a later one: not all in the same, or a large block might
	 * never get them. FORMAT.md, section 8. */
	for (uint64_t end = off + n; h->leased && off < end && rc == 0; off += step)
		rc = ph_lease_range(h, word, off, end - off < step ? end - off : step, &epoch);
	return rc;
}

int ph_redo_fresh_extent(struct pheap *h, uint64_t word, uint64_t chunk, uint64_t count, bool *ret_flushed)
{
	uint64_t size = count * PHD_CHUNK_SIZE;

	*ret_flushed = false;
	if (!h->leased)
		return 0;
	/* Too much for the log: a checkpoint makes the log forget what it knows of these chunks. */
	if (!ph_lease_free(h, chunk, count) && size > ph_wal_record_max(h) / 4) {
		int rc = ph_checkpoint(h);

		if (rc)
			return rc;
	}
	if (!ph_lease_free(h, chunk, count))
		return ph_redo_fresh(h, word, ph_chunk_off(h, chunk), size);
	*ret_flushed = size >= EXTENT_FLUSH_MIN || size > ph_wal_record_max(h) / 4;
	return 0;
}

/* Chunks for a long log. Nobody reads them after a cut; but until their free is sure to be in the log they are another's. */
int ph_space_lease(struct pheap_tx *tx, uint64_t chunk, uint64_t count)
{
	struct pheap *h = tx->h;

	if (!h->leased || chunk < h->super.journal_count || ph_lease_free(h, chunk, count))
		return 0;
	return ph_redo_fresh(h, tx->word, ph_chunk_off(h, chunk), count * PHD_CHUNK_SIZE);
}

/* ---- the record ---- */

static int too_big(const pheap_tx *tx)
{
	return ph_error(
		tx->h, -E2BIG,
		"the transaction changes more than the journal can hold (%zu bytes, a quarter of it); split it, or "
		"create the heap with a larger journal_size",
		ph_wal_record_max(tx->h));
}

int ph_redo_count(pheap_tx *tx, uint64_t n)
{
	if (tx->h->super.durability != PHEAP_SYNC >> 24)
		return 0;
	tx->fresh += n + sizeof(struct phd_record);
	return tx->fresh + ph_log_end(&tx->log) * 8 > ph_wal_record_max(tx->h) ? too_big(tx) : 0;
}

static int bytes_add(pheap_tx *tx, uint64_t off, uint64_t n)
{
	char *to;

	if (n > ph_wal_record_max(tx->h) || tx->record.size + n > ph_wal_record_max(tx->h))
		return too_big(tx);
	to = ph_wal_entry(&tx->record, PHD_REC_TARGET(PHD_REC_DEFER, off), (size_t)n);
	if (!to)
		return -ENOMEM;
	memcpy(to, tx->h->map + off, (size_t)n);
	return 0;
}

static int blocks_add(pheap_tx *tx, const struct ph_op *op)
{
	const struct pheap *h = tx->h;
	uint64_t size = PHD_DESC_BLOCK_SIZE(op->desc), first = (op->word_idx - op->head * 4) * 64;
	int rc = 0;

	for (uint64_t left = op->set; left && rc == 0; left &= left - 1) {
		uint64_t i = first + (unsigned)__builtin_ctzll(left);

		rc = bytes_add(tx, ph_chunk_off(h, op->head) + i * size, size);
	}
	return rc;
}

/* Of an extent whose bytes are in the file already: pages of it that have an image all the same, as undo of a savepoint
 * wanted one. */
static int extent_images_add(pheap_tx *tx, uint64_t chunk, uint64_t count)
{
	int rc = 0;

	for (uint64_t i = 0; i < count && rc == 0; i++)
		if (!ph_lease_free(tx->h, chunk + i, 1))
			rc = bytes_add(tx, ph_chunk_off(tx->h, chunk + i), PHD_CHUNK_SIZE);
	return rc;
}

/* The chunks that an extent has and had not. */
static int extent_add(pheap_tx *tx, const struct ph_desc_op *d)
{
	uint64_t had = PHD_DESC_KIND(d->old_desc) == PHD_DESC_EXTENT ? PHD_DESC_COUNT(d->old_desc) : 0;

	if (PHD_DESC_KIND(d->new_desc) != PHD_DESC_EXTENT || d->count <= had)
		return 0;
	return d->flushed ? extent_images_add(tx, d->chunk + had, d->count - had)
			  : bytes_add(tx, ph_chunk_off(tx->h, d->chunk + had),
				      (d->count - had) * PHD_CHUNK_SIZE);
}

static int fresh_add(pheap_tx *tx)
{
	int rc = 0;

	for (uint32_t i = 0; i < tx->ops.count && rc == 0; i++)
		rc = blocks_add(tx, &tx->ops.ops[i]);
	for (uint32_t i = 0; i < tx->ops.desc_count && rc == 0; i++)
		rc = extent_add(tx, &tx->ops.descs[i]);
	return rc;
}

/* Of one record of the lane's log. */
static int record_add(pheap_tx *tx, const struct phd_record *r)
{
	unsigned kind = PHD_REC_KIND(r->target);
	char *to;

	if (kind == PHD_REC_UNDO)
		return bytes_add(tx, PHD_REC_OFF(r->target), r->size);
	if (kind == PHD_REC_REVIVE || kind == PHD_REC_DROPPED)
		return 0;
	if (tx->record.size + r->size > ph_wal_record_max(tx->h))
		return too_big(tx);
	to = ph_wal_entry(&tx->record, r->target, r->size);
	if (!to)
		return -ENOMEM;
	memcpy(to, ph_record_payload(r), r->size);
	return 0;
}

/* What is stored before the commit point first: a deferred store to the same bytes comes after it. */
static int record_build(pheap_tx *tx)
{
	const struct phd_record *r;
	int rc = ph_wal_start(&tx->record);

	if (rc == 0)
		rc = fresh_add(tx);
	for (int deferred = 0; deferred < 2; deferred++)
		for (uint64_t at = 0; at < ph_log_end(&tx->log) && rc == 0; at += ph_log_units(r->size)) {
			r = ph_log_at(&tx->log, at);
			if ((PHD_REC_KIND(r->target) != PHD_REC_UNDO) == (deferred != 0))
				rc = record_add(tx, r);
		}
	if (rc == 0 && tx->record.size > ph_wal_record_max(tx->h))
		rc = too_big(tx);
	if (rc == 0)
		ph_wal_seal(&tx->record, PHD_WAL_COMMIT);
	return rc;
}

/* ---- leases ---- */

static int record_lease(pheap_tx *tx, struct ph_lease_set *s, const struct phd_record *r)
{
	struct pheap *h = tx->h;
	uint64_t off = PHD_REC_OFF(r->target), payload[2];
	int rc;

	switch (PHD_REC_KIND(r->target)) {
	case PHD_REC_DEFER:
	case PHD_REC_PUBLISH:
	case PHD_REC_SET:
	case PHD_REC_CLEAR:
		return ph_lease_add(h, tx->word, s, off, r->size);
	case PHD_REC_DESC:
		memcpy(payload, ph_record_payload(r), sizeof(payload));
		rc = ph_lease_add(h, tx->word, s, h->super.desc_off + off * sizeof(uint64_t),
				  payload[0] * sizeof(uint64_t));
		if (rc == 0 && PHD_DESC_KIND(payload[1]) == PHD_DESC_RUN)
			rc = ph_lease_add(h, tx->word, s, h->super.bits_off + off * sizeof(struct phd_bits),
					  payload[0] * sizeof(struct phd_bits));
		return rc;
	default:
		return 0;
	}
}

/* All that will be stored behind the commit point, with one flush. *epoch: in which. 1: more than fits into the log at once,
 * or others are always quicker. */
static int later_lease(pheap_tx *tx, int tries_max, uint64_t *ret_epoch)
{
	const struct phd_record *r;
	struct ph_lease_set s;
	int rc, tries = 0;

	do {
		rc = ph_lease_start(tx->h, tx->word, &s);
		*ret_epoch = s.epoch;
		if (rc || !tx->applies || PH_MUTANT(PH_MUTANT_LATER_BARE))
			return rc;
		for (uint64_t at = 0; at < ph_log_end(&tx->log) && rc == 0; at += ph_log_units(r->size)) {
			r = ph_log_at(&tx->log, at);
			rc = record_lease(tx, &s, r);
		}
		if (rc == 0)
			rc = ph_lease_finish(tx->h, tx->word, &s);
	} while (rc == 1 && ++tries < tries_max);
	return rc;
}

/* ---- through the commit point ---- */

static int extents_flush(pheap_tx *tx)
{
	struct pheap *h = tx->h;
	int rc = 0;

	for (uint32_t i = 0; i < tx->ops.desc_count && rc == 0; i++) {
		const struct ph_desc_op *d = &tx->ops.descs[i];

		/* ORDER(extent-durable): its bytes before the record that allocates it. A cut between: it is not
		 * allocated. Pairs with power.c. */
		if (d->flushed && !PH_MUTANT(PH_MUTANT_EXTENT_LATE))
			rc = ph_os->map_sync(h->map + ph_chunk_off(h, d->chunk), d->count * PHD_CHUNK_SIZE);
	}
	if (rc == 0)
		return 0;
	return ph_wal_poison(h, rc);
}

/* 0: appended; 1: the epoch is another one; 2: no room. Latches are held. */
static int record_append(pheap_tx *tx, uint64_t epoch)
{
	struct pheap *h = tx->h;
	struct phd_lane *lane = tx->lane;
	int rc = ph_wal_lock(h, tx->word);

	if (rc < 0)
		return rc;
	rc = ph_wal_poisoned(h);
	if (rc == 0 && tx->applies && !tx->applies_durable && h->coord->epoch != epoch &&
	    !PH_MUTANT(PH_MUTANT_EPOCH_LOOSE))
		rc = 1;
	else if (rc == 0 && !ph_wal_fits(h, tx->record.size, false))
		rc = 2;
	if (rc == 0) {
		/* The position, then the state, then the record, then the tail: whoever finds the lane appending compares the
		 * tail with the position. */
		__atomic_store_n(&lane->lsn, h->coord->tail, __ATOMIC_RELEASE);
		__atomic_store_n(&lane->state, PHD_STATE(tx->gen, tx->mode, PHD_STEP_APPENDING),
				 __ATOMIC_RELEASE);
		ph_order();
		tx->lsn = ph_wal_put(h, &tx->record);
	}
	ph_wal_unlock(h, tx->word);
	return rc;
}

int ph_redo_append(pheap_tx *tx)
{
	struct pheap *h = tx->h;
	uint64_t epoch = 0;
	int rc, tries = 0;

	if (ph_log_end(&tx->log) == 0) {
		tx->lsn = ph_wal_tail(h);
		return 0;
	}
	rc = extents_flush(tx);
	if (rc == 0)
		rc = record_build(tx);
	if (rc == -ENOMEM)
		return ph_error(h, rc, "this process has no memory for the record of the transaction");
	tx->applies_durable = false;
	while (rc == 0) {
		/* The images, or they and the record, may be more than the ring has room for. What is stored when the record is
		 * durable needs no lease: it is replayed in any case. */
		if (tries < LEASE_TRIES)
			rc = later_lease(tx, LEASE_TRIES, &epoch);
		tx->applies_durable = rc == 1 || tries >= LEASE_TRIES;
		tries = rc == 1 ? LEASE_TRIES : tries + 1;
		rc = rc == 1 ? 0 : rc;
		if (rc == 0 && tx->applies)
			rc = ph_ops_prepare(tx);
		if (rc == 0)
			rc = record_append(tx, epoch);
		if (rc == 0)
			return 0;
		ph_ops_give_back(tx);
		if (rc == 2)
			rc = ph_checkpoint_room(h, tx->record.size);
		else if (rc == 1)
			rc = 0;
	}
	return rc;
}

/* Something of this epoch, or of the one that begins at this LSN, is not in a checkpoint. Never lowered: who comes late would hide
 * what others have done since. */
static void changed_raise(struct pheap *h, uint64_t epoch)
{
	uint64_t seen = __atomic_load_n(&h->coord->changed, __ATOMIC_RELAXED);

	while (seen < epoch && !__atomic_compare_exchange_n(&h->coord->changed, &seen, epoch, false,
							    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		;
}

void ph_redo_ticket_any(pheap_tx *tx)
{
	struct pheap *h = tx->h;
	uint64_t epoch;

	ph_order();
	epoch = __atomic_load_n(&h->coord->epoch, __ATOMIC_ACQUIRE);
	if (epoch & 1)
		epoch = __atomic_load_n(&h->coord->switch_lsn, __ATOMIC_ACQUIRE);
	epoch &= ~1ull;
	tx->lsn = epoch + 8;
	changed_raise(h, epoch);
}

/* 0: through the commit point, in the epoch; 1: it is another one, or is being switched. Operations follow it, to pages that are
 * leased in the epoch; so it is not enough to be seen on one side of the switch or on the other. The lane says that it looks:
 * either the epoch's bit is seen here, or the lane is seen looking, and who switches waits for what becomes of it; not for ever,
 * as it may be stopped: then it makes it active, and this swap fails. Killed while it looks: undone. Pairs with
 * checkpoint.c:lane_copy. */
static int state_commit(pheap_tx *tx, uint64_t epoch)
{
	struct phd_lane *lane = tx->lane;
	uint64_t looking = PHD_STATE(tx->gen, tx->mode, PHD_STEP_LOOKING), now, next;

	__atomic_store_n(&lane->state, looking, __ATOMIC_RELEASE);
	if (__builtin_expect(tx->h->fenced, 0))
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		ph_order();
	now = __atomic_load_n(&tx->h->coord->epoch, __ATOMIC_ACQUIRE);
	if (PH_MUTANT(PH_MUTANT_EPOCH_LOOSE))
		epoch = now;
	next = PHD_STATE(tx->gen, tx->mode, now == epoch ? PHD_STEP_COMMITTED : PHD_STEP_ACTIVE);
	/* ORDER(commit-point), as without a WAL. */
	if (!__atomic_compare_exchange_n(&lane->state, &looking, next, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_RELAXED) ||
	    now != epoch)
		return 1;
	tx->lsn = (epoch & ~1ull) + 8;
	changed_raise(tx->h, epoch & ~1ull);
	return 0;
}

int ph_redo_commit_epoch(pheap_tx *tx)
{
	struct pheap *h = tx->h;
	uint64_t epoch;
	int rc = 0;

	if (ph_log_end(&tx->log) == 0) {
		tx->lsn = __atomic_load_n(&h->coord->epoch, __ATOMIC_ACQUIRE);
		return 0;
	}
	while (rc == 0) {
		rc = ph_wal_poisoned(h);
		/* Without operations idle is the commit point: ph_redo_look. */
		if (rc || !tx->applies)
			return rc ? rc : ph_wal_epoch(h, tx->word, &epoch);
		rc = later_lease(tx, LEASE_TRIES_EPOCH, &epoch);
		if (rc == 1)
			return too_big(tx);
		if (rc == 0)
			rc = ph_ops_prepare(tx);
		if (rc == 0) {
			if (state_commit(tx, epoch) == 0)
				return 0;
			ph_ops_give_back(tx);
		}
	}
	return rc;
}
