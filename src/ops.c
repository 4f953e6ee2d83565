/* SPDX-License-Identifier: MIT
 *
 * ops.c: allocator operations of one transaction: their records, their latches, their tests. See alloc.h.
 *
 * Latch order: runs by ascending head chunk, then the directory. Nothing waits for a user lock while
 * holding one. First they are tried in any order, without waiting.
 */
#include <errno.h>
#include <stdlib.h>

#include "error.h"
#include "mutant.h"
#include "savepoint.h"
#include "tx.h"
#include "word.h"

static uint64_t word_off(const struct pheap *h, uint64_t word_idx)
{
	return h->super.bits_off + word_idx * 8;
}

/* An entry of the index counts iff the op that it names is of this transaction and names it: so nothing is ever cleared. The
 * first op is put there when the second one arrives. */
static inline struct ph_op *index_at(const struct ph_ops *ops, uint32_t at)
{
	uint32_t i = ops->index[at];

	return i < ops->count && ops->ops[i].index_at == at ? &ops->ops[i] : NULL;
}

struct ph_op *ph_ops_find_many(const struct ph_ops *ops, uint64_t word_idx)
{
	uint32_t mask = ops->index_room - 1, at = ph_map_hash(word_idx) & mask;
	struct ph_op *op;

	if (ops->count == 1)
		return ops->ops[0].word_idx == word_idx ? &ops->ops[0] : NULL;
	while ((op = index_at(ops, at)) && op->word_idx != word_idx)
		at = (at + 1) & mask;
	return op;
}

/* Those before it are there. */
static inline void index_note(struct ph_ops *ops, uint32_t i)
{
	uint32_t mask = ops->index_room - 1, at = ph_map_hash(ops->ops[i].word_idx) & mask;

	ops->ops[i].index_at = UINT32_MAX;
	while (index_at(ops, at))
		at = (at + 1) & mask;
	ops->index[at] = i;
	ops->ops[i].index_at = at;
}

/* Twice as many entries as there may be ops. */
static bool index_room(struct ph_ops *ops)
{
	uint32_t *index, room = ops->index_room ? ops->index_room : 8;

	if (ops->index_room >= 2 * ops->room)
		return true;
	while (room < 2 * ops->room)
		room *= 2;
	index = calloc(room, sizeof(*index));
	if (!index)
		return false;
	free(ops->index);
	ops->index = index;
	ops->index_room = room;
	for (uint32_t i = 0; i < ops->count; i++)
		ops->ops[i].index_at = UINT32_MAX;
	for (uint32_t i = 0; i < ops->count; i++)
		index_note(ops, i);
	return true;
}

static __attribute__((noinline)) bool ops_room(struct ph_ops *ops)
{
	return ph_room(&ops->ops, &ops->room, ops->count + 1, sizeof(*ops->ops)) && index_room(ops) &&
	       ph_room(&ops->heads, &ops->head_room, ops->count + 1 + ops->desc_count, sizeof(*ops->heads));
}

/* NULL: no memory. */
static inline __attribute__((always_inline)) struct ph_op *op_new(pheap_tx *tx, uint64_t head, uint64_t desc,
								  uint64_t word_idx)
{
	struct ph_ops *ops = &tx->ops;
	struct ph_op *op;

	if (__builtin_expect(ops->count >= ops->room || ops->count + ops->desc_count >= ops->head_room ||
				     ops->index_room < 2 * ops->room,
			     0) &&
	    !ops_room(ops))
		return NULL;
	op = &ops->ops[ops->count++];
	*op = (struct ph_op){.word_idx = word_idx,
			     .head = head,
			     .desc = desc,
			     .set_pos = PH_NO_POSITION,
			     .clr_pos = PH_NO_POSITION,
			     .index_at = UINT32_MAX};
	if (ops->count == 2)
		index_note(ops, 0);
	if (ops->count > 1)
		index_note(ops, ops->count - 1);
	return op;
}

static int record_append(pheap_tx *tx, uint64_t target, const void *payload, size_t n, uint64_t *ret_pos)
{
	if (ph_log_units(n) * 8 > (uint64_t)(tx->log.limit - tx->log.next)) {
		int rc = ph_log_extend(tx, n);

		if (rc)
			return rc;
	}
	memcpy(tx->log.next + sizeof(struct phd_record), payload, n);
	*ret_pos = ph_log_push(&tx->log, tx->lane, target, n);
	tx->extras = 1;
	tx->applies = true;
	return 0;
}

/* Adds mask to the record at *pos when it may be changed in place, else appends a new one. */
static inline __attribute__((always_inline)) int mask_add(pheap_tx *tx, uint32_t kind, const struct ph_op *op,
							  uint64_t mask, uint64_t *pos)
{
	if (*pos != PH_NO_POSITION && *pos >= ph_savepoint_floor(tx)) {
		uint64_t *payload = (uint64_t *)(void *)ph_record_payload(ph_log_at(&tx->log, *pos));

		__atomic_store_n(payload, *payload | mask, __ATOMIC_RELEASE);
		return 0;
	}
	if (__builtin_expect((size_t)(tx->log.limit - tx->log.next) < sizeof(struct phd_record) + 8, 0)) {
		int rc = ph_log_extend(tx, 8);

		if (rc)
			return rc;
	}
	*pos = ph_log_add(&tx->log, tx->lane, PHD_REC_TARGET(kind, word_off(tx->h, op->word_idx)), &mask,
			  true, 8);
	tx->extras |= PH_LONG_OPS;
	tx->applies = true;
	return 0;
}

static bool mask_take_back(pheap_tx *tx, uint64_t pos, uint64_t mask)
{
	uint64_t *payload;

	if (pos == PH_NO_POSITION || pos < ph_savepoint_floor(tx))
		return false;
	payload = (uint64_t *)(void *)ph_record_payload(ph_log_at(&tx->log, pos));
	if ((*payload & mask) != mask)
		return false;
	__atomic_store_n(payload, *payload & ~mask, __ATOMIC_RELEASE);
	return true;
}

int ph_ops_set(pheap_tx *tx, struct ph_op *op, uint64_t head, uint64_t desc, uint64_t word_idx, uint64_t mask)
{
	int rc;

	if (!op)
		op = op_new(tx, head, desc, word_idx);
	if (!op)
		return -ENOMEM;
	rc = mask_add(tx, PHD_REC_SET, op, mask, &op->set_pos);
	if (rc == 0)
		op->set |= mask;
	return rc;
}

int ph_ops_clear(pheap_tx *tx, struct ph_op *op, uint64_t head, uint64_t desc, uint64_t word_idx,
		 uint64_t mask)
{
	int rc;

	if (!op)
		op = op_new(tx, head, desc, word_idx);
	if (!op)
		return -ENOMEM;
	__builtin_prefetch(&tx->h->words[head].latch, 1);
	/* Allocated since the latest savepoint: as if it had never been, and at once free again for this
	 * transaction. */
	if ((op->set & mask) && mask_take_back(tx, op->set_pos, mask)) {
		op->set &= ~mask;
		return 0;
	}
	rc = PH_MUTANT(PH_MUTANT_FREE_UNLOGGED) ? 0 : mask_add(tx, PHD_REC_CLEAR, op, mask, &op->clr_pos);
	if (rc == 0) {
		op->clr |= mask;
		tx->has_frees = true;
	}
	return rc;
}

int ph_ops_desc(pheap_tx *tx, uint64_t chunk, uint64_t count, uint64_t old_desc, uint64_t new_desc)
{
	struct ph_ops *ops = &tx->ops;
	uint64_t payload[2] = {count, new_desc}, position;
	bool first;
	int rc;

	if (!ph_room(&ops->descs, &ops->desc_room, ops->desc_count + 1, sizeof(*ops->descs)) ||
	    !ph_room(&ops->heads, &ops->head_room, ops->count + ops->desc_count + 1, sizeof(*ops->heads)))
		return -ENOMEM;
	rc = record_append(tx, PHD_REC_TARGET(PHD_REC_DESC, chunk), payload, sizeof(payload), &position);
	if (rc)
		return rc;
	first = PHD_DESC_KIND(old_desc) != PHD_DESC_CONT && ph_map_get(&ops->desc_map, chunk) < 0;
	if (!ph_map_put(&ops->desc_map, chunk, ops->desc_count))
		return -ENOMEM; /* the caller dooms: the record is undone with the rest */
	tx->modify_long = true;
	ops->descs[ops->desc_count++] = (struct ph_desc_op){.chunk = chunk,
							    .count = count,
							    .old_desc = old_desc,
							    .new_desc = new_desc,
							    .position = position,
							    .first = first};
	if (new_desc == 0)
		tx->has_frees = true;
	return 0;
}

uint64_t ph_ops_desc_of(const pheap_tx *tx, const struct pheap *h, uint64_t chunk)
{
	if (tx && tx->ops.desc_count) {
		int64_t i = ph_map_get(&tx->ops.desc_map, chunk);

		if (i >= 0)
			return tx->ops.descs[i].new_desc;
	}
	return ph_desc_load(h, chunk);
}

/* --- commit
 * -------------------------------------------------------------------------------------------------------- */

static int head_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void heads_collect(struct ph_ops *ops)
{
	uint32_t n = 0, kept = 0;

	for (uint32_t i = 0; i < ops->count; i++)
		if (n == 0 || ops->heads[n - 1] != ops->ops[i].head)
			ops->heads[n++] = ops->ops[i].head;
	for (uint32_t i = 0; i < ops->desc_count; i++)
		if (PHD_DESC_KIND(ops->descs[i].new_desc) == PHD_DESC_RUN ||
		    PHD_DESC_KIND(ops->descs[i].old_desc) == PHD_DESC_RUN)
			ops->heads[n++] = ops->descs[i].chunk;
	if (n > 1)
		qsort(ops->heads, n, sizeof(*ops->heads), head_compare);
	for (uint32_t i = 0; i < n; i++)
		if (kept == 0 || ops->heads[kept - 1] != ops->heads[i])
			ops->heads[kept++] = ops->heads[i];
	ops->head_count = kept;
}

/* A3. Under the latches: nobody else has allocated or freed the same blocks meanwhile. */
static int masks_test(pheap_tx *tx)
{
	const struct pheap *h = tx->h;

	for (uint32_t i = 0; i < tx->ops.count; i++) {
		const struct ph_op *op = &tx->ops.ops[i];
		uint64_t now = __atomic_load_n(&h->bits[op->word_idx], __ATOMIC_ACQUIRE);

		if (__builtin_expect(!(op->set & now) && !(op->clr & ~(now | op->set)) &&
					     ph_desc_raw(h, op->head) == op->desc,
				     1))
			continue;
		if (op->set & now)
			ph_fatal("broken invariant: a chosen block of chunk %llu is allocated",
				 (unsigned long long)op->head);
		if (op->clr & ~(now | op->set))
			return ph_error(
				h, -EINVAL,
				"double free: another transaction freed a block in chunk %llu meanwhile",
				(unsigned long long)op->head);
		return ph_error(h, -EINVAL, "double free: the run at chunk %llu is gone",
				(unsigned long long)op->head);
	}
	return 0;
}

static int descs_test(pheap_tx *tx)
{
	const struct pheap *h = tx->h;

	for (uint32_t i = 0; i < tx->ops.desc_count; i++) {
		const struct ph_desc_op *d = &tx->ops.descs[i];

		uint64_t now = ph_desc_raw(h, d->chunk);

		if (!d->first || now == d->old_desc || (d->old_desc == 0 && PHD_DESC_IS_FREE(now)))
			continue;
		if (d->old_desc == 0) /* N1 forbids it: the chunk was free and is ours */
			return ph_error(
				h, PHEAP_ECORRUPT,
				"chunk %llu was taken under this transaction's claim; run pheap-fsck on the file",
				(unsigned long long)d->chunk);
		return ph_error(h, -EINVAL,
				"double free: another transaction freed the block at chunk %llu meanwhile",
				(unsigned long long)d->chunk);
	}
	return 0;
}

static void heads_release(pheap_tx *tx, uint32_t count)
{
	struct pheap *h = tx->h;

	if (tx->ops.directory)
		ph_word_release_lazy(&h->coord->directory, tx->word);
	tx->ops.directory = false;
	for (uint32_t i = 0; i < count; i++)
		ph_word_release_lazy(&h->words[tx->ops.heads[i]].latch, tx->word);
	for (uint32_t i = 0; tx->ops.unordered && i < tx->ops.count; i++)
		ph_word_release_lazy(&h->words[tx->ops.ops[i].head].latch, tx->word);
}

/* Before the commit point latches are given back for real: the lane stays active while it undoes. */
static void heads_give_back(pheap_tx *tx, uint32_t count)
{
	struct pheap *h = tx->h;

	if (tx->ops.directory)
		ph_word_release(&h->coord->directory, tx->word);
	tx->ops.directory = false;
	for (uint32_t i = 0; i < count; i++)
		ph_word_release(&h->words[tx->ops.heads[i]].latch, tx->word);
	for (uint32_t i = 0; tx->ops.unordered && i < tx->ops.count; i++)
		ph_word_release(&h->words[tx->ops.ops[i].head].latch, tx->word);
	tx->ops.head_count = 0;
	tx->ops.unordered = false;
}

/* All latches as they come, without waiting for any: then their order does not matter. */
static bool heads_try(pheap_tx *tx)
{
	struct pheap *h = tx->h;

	if (tx->ops.desc_count)
		return false;
	tx->ops.unordered = true;
	for (uint32_t i = 0; i < tx->ops.count; i++) {
		uint64_t *latch = &h->words[tx->ops.ops[i].head].latch;

		if (ph_word_take_again(latch, tx->word))
			continue;
		if (ph_word_try(h, latch, tx->word) == PH_BUSY) {
			heads_give_back(tx, 0);
			return false;
		}
	}
	return true;
}

static int heads_take(pheap_tx *tx, uint32_t *ret_taken)
{
	struct pheap *h = tx->h;
	struct ph_ops *ops = &tx->ops;
	int rc = 0;

	heads_collect(ops);
	for (; *ret_taken < ops->head_count && rc >= 0; ++*ret_taken)
		rc = ph_word_take(h, &h->words[ops->heads[*ret_taken]].latch, tx->word, "the latch of a run");
	if (rc >= 0 && ops->desc_count) {
		rc = ph_word_take(h, &h->coord->directory, tx->word, "the latch of the chunk directory");
		ops->directory = rc >= 0;
	}
	return rc;
}

void ph_ops_give_back(pheap_tx *tx)
{
	heads_give_back(tx, tx->ops.head_count);
}

int ph_ops_prepare(pheap_tx *tx)
{
	struct ph_ops *ops = &tx->ops;
	uint32_t taken = 0;
	int rc = 0;

	ops->head_count = 0;
	if (ops->count == 0 && ops->desc_count == 0)
		return 0; /* deferred stores only */
	if (!heads_try(tx))
		rc = heads_take(tx, &taken);
	if (rc >= 0)
		rc = masks_test(tx);
	if (rc >= 0 && ops->desc_count)
		rc = descs_test(tx);
	if (rc < 0 || PH_MUTANT(PH_MUTANT_LATCH_EARLY))
		heads_give_back(tx, taken);
	return rc < 0 ? rc : 0;
}

void ph_ops_apply(pheap_tx *tx)
{
	const struct pheap *h = tx->h;

	for (uint32_t i = 0; i < tx->ops.count; i++) {
		const struct ph_op *op = &tx->ops.ops[i];
		uint64_t *word = &h->bits[op->word_idx];

		__atomic_store_n(word, (*word | op->set) & ~op->clr, __ATOMIC_RELEASE);
	}
}

void ph_ops_release(pheap_tx *tx)
{
	struct pheap *h = tx->h;

	if (tx->ops.directory && tx->has_frees)
		__atomic_fetch_add(&h->coord->directory_change_count, 1, __ATOMIC_ACQ_REL);
	heads_release(tx, tx->ops.head_count);
	if (!tx->has_frees)
		return;
	/* Hints for later allocations; wrong or missing ones cost time only. */
	for (uint32_t i = 0; i < tx->ops.count; i++)
		if (tx->ops.ops[i].clr)
			ph_run_freed(tx, &tx->ops.ops[i], tx->ops.ops[i].clr);
	for (uint32_t i = 0; i < tx->ops.desc_count; i++)
		if (tx->ops.descs[i].new_desc == 0)
			ph_chunk_freed(h, tx->ops.descs[i].chunk);
}

/* --- rollback
 * ------------------------------------------------------------------------------------------------------ */

void ph_ops_unchoose(pheap_tx *tx)
{
	for (uint32_t i = 0; i < tx->ops.count; i++)
		if (tx->ops.ops[i].set)
			ph_run_freed(tx, &tx->ops.ops[i], tx->ops.ops[i].set);
}

static void ops_rebuild(pheap_tx *tx)
{
	struct ph_ops *ops = &tx->ops;
	uint64_t at = 0;

	ph_ops_unchoose(tx);
	for (uint32_t i = 0; i < ops->count; i++) {
		ops->ops[i].set = ops->ops[i].clr = 0;
		ops->ops[i].set_pos = ops->ops[i].clr_pos = PH_NO_POSITION;
	}
	while (at < ph_log_end(&tx->log)) {
		const struct phd_record *r = ph_log_at(&tx->log, at);
		uint32_t kind = PHD_REC_KIND(r->target);

		if (kind == PHD_REC_SET || kind == PHD_REC_CLEAR) {
			struct ph_op *op =
				ph_ops_find(ops, (PHD_REC_OFF(r->target) - tx->h->super.bits_off) / 8);
			uint64_t mask;

			ph_assert(op != NULL);
			memcpy(&mask, ph_record_payload(r), 8);
			if (kind == PHD_REC_SET) {
				op->set |= mask;
				op->set_pos = at;
			} else {
				op->clr |= mask;
				op->clr_pos = at;
			}
		}
		at += ph_log_units(r->size);
	}
}

void ph_ops_forget(pheap_tx *tx, uint64_t position)
{
	struct ph_ops *ops = &tx->ops;

	if (ops->count)
		ops_rebuild(tx);
	while (ops->desc_count && ops->descs[ops->desc_count - 1].position >= position) {
		struct ph_desc_op d = ops->descs[--ops->desc_count];

		/* Claimed for an allocation that no longer is: free at once, or a loop of rollbacks would
		 * fill the heap. */
		if (d.old_desc == 0 && PHD_DESC_KIND(d.new_desc) == PHD_DESC_EXTENT)
			ph_chunk_unclaim(tx->h, tx->word, d.chunk, d.count);
		else if (PHD_DESC_KIND(d.old_desc) == PHD_DESC_EXTENT && d.count > PHD_DESC_COUNT(d.old_desc))
			ph_chunk_unclaim(tx->h, tx->word, d.chunk + PHD_DESC_COUNT(d.old_desc),
					 d.count - PHD_DESC_COUNT(d.old_desc));
	}
	ph_map_clear(&ops->desc_map);
	for (uint32_t i = 0; i < ops->desc_count; i++)
		(void)ph_map_put(&ops->desc_map, ops->descs[i].chunk, i); /* fits: it held more before */
}

void ph_ops_clear_all(struct ph_ops *ops)
{
	if (ops->desc_count)
		ph_map_clear(&ops->desc_map);
	ops->count = ops->desc_count = ops->head_count = 0;
	ops->directory = ops->unordered = false;
}

void ph_ops_free(struct ph_ops *ops)
{
	free(ops->ops);
	free(ops->descs);
	free(ops->heads);
	free(ops->index);
	free(ops->desc_map.slots);
	memset(ops, 0, sizeof(*ops));
}
