/* SPDX-License-Identifier: MIT
 *
 * run.c: runs of blocks of one size and type.
 *
 * What: a thread keeps, per class and type, a hint to the run it used last; it takes that run's owner word
 * with one CAS and picks a free bit. New runs are made by an internal transaction of their own and start
 * empty, so aborting leaves no trace but an empty run, which is reclaimed when chunks run short.
 * Why a new run commits at once, instead of with the transaction that first uses it: then every lookup of a
 * block reads descriptors only, and two transactions never see different directories.
 *
 * Sizes: steps of 8 bytes to 128, of 16 to 1024, then eight steps to each doubling up to 16 KiB; waste of a
 * class is thus at most 7 bytes, 15 bytes, 1/8.
 */
#include <errno.h>

#include "error.h"
#include "tx.h"
#include "word.h"

#define SWEEP_BUDGET 2048u /* descriptors looked at before a new run is made instead */
#define RECLAIM_BATCH 16u  /* runs in one internal transaction */
#define HEAP_SMALL (1ull << 20)
#define HEAP_MIDDLE (64ull << 20)

size_t ph_run_class(size_t n)
{
	size_t step;

	if (n <= PHD_BLOCK_SIZE_MIN)
		return PHD_BLOCK_SIZE_MIN;
	if (n <= 128)
		return (n + 7) & ~(size_t)7;
	if (n <= 1024)
		return (n + 15) & ~(size_t)15;
	step = (size_t)1 << (63 - __builtin_clzll(n - 1) - 3);
	return (n + step - 1) & ~(step - 1);
}

/* Chunks of a run: long where the heap is large, then the first length that wastes at most 1/16 at its end. */
uint32_t ph_run_length(const struct pheap *h, size_t block_size)
{
	uint64_t bytes = ph_chunk_count(h) << PHD_CHUNK_SHIFT;
	uint32_t length = bytes < HEAP_SMALL	? 1
			  : bytes < HEAP_MIDDLE ? 4
						: PHD_RUN_COUNT_MAX,
		 best = PHD_RUN_COUNT_MAX;
	size_t least = SIZE_MAX;

	for (; length <= PHD_RUN_COUNT_MAX; length++) {
		size_t all = (size_t)length * PHD_CHUNK_SIZE, waste = all % block_size;

		if (all < block_size)
			continue;
		if (waste * 16 <= all)
			return length;
		if (waste / length < least) {
			least = waste / length;
			best = length;
		}
	}
	return best;
}

uint32_t ph_run_blocks(uint64_t desc)
{
	size_t size = PHD_DESC_BLOCK_SIZE(desc);

	return size ? (uint32_t)(PHD_DESC_RUN_COUNT(desc) * PHD_CHUNK_SIZE / size) : 0;
}

static uint64_t run_key(uint64_t desc)
{
	return (uint64_t)PHD_DESC_TYPE(desc) << 12 | PHD_DESC_BLOCK_SIZE(desc) / 8;
}

static struct ph_run_hint *hint_of(pheap_tx *tx, uint64_t desc)
{
	return &tx->cache.hints[run_key(desc) * 0x9e3779b97f4a7c15ull >> 59];
}

static uint64_t bits_load(const struct pheap *h, uint64_t word_idx)
{
	return __atomic_load_n(&h->bits[word_idx], __ATOMIC_ACQUIRE);
}

/* Bits of the run's word w that are free and that this transaction has not chosen. */
static uint64_t bits_free(const struct pheap_tx *tx, uint64_t head, uint32_t blocks, uint32_t w)
{
	uint64_t avail = ~bits_load(tx->h, head * 4 + w);

	if (blocks - w * 64 < 64)
		avail &= (1ull << (blocks - w * 64)) - 1;
	if (avail && tx->ops.count) {
		const struct ph_op *op = ph_ops_find(&tx->ops, head * 4 + w);

		if (op)
			avail &= ~(op->set | op->clr);
	}
	return avail;
}

/* Is there a block for `word` in this run? What a member already owns is searched by reserve.c itself. */
static bool run_has_free(const struct pheap_tx *tx, uint64_t word, uint64_t head, uint64_t desc)
{
	uint64_t owner = __atomic_load_n(&tx->h->words[head].owner, __ATOMIC_ACQUIRE) & ~PHD_WORD_FLAGS;
	uint32_t blocks = ph_run_blocks(desc);

	if (owner == word && PHD_WORD_LANE(word) >= PHD_WORD_MEMBER)
		return false;
	for (uint32_t w = 0; w * 64 < blocks; w++)
		if (bits_free(tx, head, blocks, w))
			return true;
	return false;
}

static bool run_is_empty(const struct pheap *h, uint64_t head, uint64_t desc)
{
	uint32_t blocks = ph_run_blocks(desc);

	for (uint32_t w = 0; w * 64 < blocks; w++)
		if (bits_load(h, head * 4 + w))
			return false;
	return true;
}

/* A1. The owner word for `word`, and the run is still what it was. */
static bool run_take(struct pheap *h, uint64_t word, uint64_t head, uint64_t desc)
{
	uint64_t *owner = &h->words[head].owner;

	if (ph_desc_raw(h, head) != desc)
		return false;
	if (!ph_word_take_free(owner, word) && ph_word_try(h, owner, word) == PH_BUSY)
		return false;
	if (ph_desc_raw(h, head) == desc)
		return true;
	ph_word_release(owner, word);
	return false;
}

/* --- where this process knows of free blocks
 * ------------------------------------------------------------------------ */

static struct ph_bin *bin_get(struct ph_alloc *a, uint64_t key)
{
	int64_t i = ph_map_get(&a->bin_map, key);

	if (i >= 0)
		return &a->bins[i];
	if (!ph_room(&a->bins, &a->bin_room, a->bin_count + 1, sizeof(*a->bins)) ||
	    !ph_map_put(&a->bin_map, key, a->bin_count))
		return NULL;
	memset(&a->bins[a->bin_count], 0, sizeof(*a->bins));
	a->bins[a->bin_count].key = key;
	return &a->bins[a->bin_count++];
}

static void bin_note(struct pheap *h, uint64_t head, uint64_t desc)
{
	struct ph_bin *bin = bin_get(h->alloc, run_key(desc));

	if (!bin)
		return;
	for (uint32_t i = bin->recent_count; i > 0 && i + 4 > bin->recent_count; i--)
		if (bin->recent[i - 1] == head)
			return;
	if (bin->recent_count < PH_BIN_RECENT)
		bin->recent[bin->recent_count++] = head;
	else
		bin->lost = true;
}

void ph_run_note(struct pheap_tx *tx, uint64_t head, uint64_t desc)
{
	struct ph_run_hint *hint = hint_of(tx, desc);
	struct ph_alloc *a = tx->h->alloc;

	if (hint->head == head && hint->desc == desc) {
		hint->word = 0;
		__atomic_fetch_add(&a->freed_count, 1, __ATOMIC_RELAXED);
		return;
	}
	pthread_mutex_lock(&a->lock);
	bin_note(tx->h, head, desc);
	__atomic_fetch_add(&a->freed_count, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&a->lock);
}

void ph_run_cache_return(struct pheap_tx *tx)
{
	pthread_mutex_lock(&tx->h->alloc->lock);
	for (unsigned i = 0; i < PH_RUN_CACHE; i++)
		if (tx->cache.hints[i].desc)
			bin_note(tx->h, tx->cache.hints[i].head, tx->cache.hints[i].desc);
	pthread_mutex_unlock(&tx->h->alloc->lock);
}

/* A run that frees noted. Under the allocator's lock. */
static bool recent_take(const pheap_tx *tx, struct ph_bin *bin, uint64_t word, uint64_t *ret_head,
			uint64_t *ret_desc)
{
	struct pheap *h = tx->h;
	uint32_t kept = bin->recent_count;

	while (kept > 0) {
		uint64_t head = bin->recent[--kept], desc = ph_desc_load(h, head);

		if (PHD_DESC_KIND(desc) == PHD_DESC_RUN && run_key(desc) == bin->key &&
		    run_has_free(tx, word, head, desc) && ph_chunk_whole(h, head, desc)) {
			if (!run_take(h, word, head, desc))
				continue; /* in use by another: stays noted */
			*ret_head = head;
			*ret_desc = desc;
			memmove(&bin->recent[kept], &bin->recent[kept + 1],
				(bin->recent_count - kept - 1) * sizeof(*bin->recent));
			bin->recent_count--;
			return true;
		}
		memmove(&bin->recent[kept], &bin->recent[kept + 1],
			(bin->recent_count - kept - 1) * sizeof(*bin->recent));
		bin->recent_count--;
	}
	return false;
}

/* Walks the directory on from the bin's cursor. Under the allocator's lock. */
static bool sweep_take(const pheap_tx *tx, struct ph_bin *bin, uint64_t word, uint64_t budget,
		       uint64_t *ret_head, uint64_t *ret_desc)
{
	struct pheap *h = tx->h;
	uint64_t end = ph_chunk_count(h), at = bin->cursor;

	for (; at < end && budget > 0; budget--) {
		uint64_t desc = ph_desc_load(h, at), step = 1;

		if (PHD_DESC_KIND(desc) == PHD_DESC_RUN) {
			step = PHD_DESC_RUN_COUNT(desc);
			if (run_key(desc) == bin->key && run_has_free(tx, word, at, desc) &&
			    ph_chunk_whole(h, at, desc) && run_take(h, word, at, desc)) {
				*ret_head = at;
				*ret_desc = desc;
				bin->cursor = at + (step ? step : 1);
				return true;
			}
		} else if (PHD_DESC_KIND(desc) == PHD_DESC_EXTENT) {
			step = PHD_DESC_COUNT(desc);
		}
		at += step ? step : 1;
	}
	bin->cursor = at;
	return false;
}

/* --- new runs, empty runs
 * ------------------------------------------------------------------------------------------- */

static int run_make(pheap_tx *tx, uint64_t word, uint64_t desc, uint64_t *ret_head, uint64_t *ret_desc)
{
	struct pheap *h = tx->h;
	size_t size = PHD_DESC_BLOCK_SIZE(desc);
	uint32_t length = ph_run_length(h, size);
	uint64_t chunk;
	pheap_tx *helper;
	int rc = ph_chunk_get(tx, word, length, 1, &chunk);

	if (rc == -ENOSPC) {
		/* A full heap: the shortest run that holds a block. */
		length = (uint32_t)((size + PHD_CHUNK_SIZE - 1) / PHD_CHUNK_SIZE);
		rc = ph_chunk_get(tx, word, length, 1, &chunk);
	}
	if (rc)
		return rc;
	desc = PHD_DESC_MAKE_RUN(PHD_DESC_TYPE(desc), size, length);
	helper = ph_tx_internal_begin(tx, &rc);
	if (helper) {
		rc = ph_ops_desc(helper, chunk, length, 0, desc);
		if (rc == 0)
			rc = ph_tx_internal_commit(helper);
		else
			ph_tx_internal_abort(helper);
	}
	if (rc) {
		ph_chunk_unclaim(h, word, chunk, length);
		return rc;
	}
	*ret_head = chunk;
	*ret_desc = desc;
	return 0;
}

/* A run with free blocks that is there already. `all`: look at every one, else only so far that it costs
 * less than a new run. Under the allocator's lock. */
static bool run_search(const pheap_tx *tx, struct ph_bin *bin, uint64_t word, bool all, uint64_t *ret_head,
		       uint64_t *ret_desc)
{
	uint64_t budget = all ? UINT64_MAX : SWEEP_BUDGET;

	if (recent_take(tx, bin, word, ret_head, ret_desc) ||
	    sweep_take(tx, bin, word, budget, ret_head, ret_desc))
		return true;
	if (bin->cursor < ph_chunk_count(tx->h) || !(bin->lost || all))
		return false;
	bin->cursor = 0;
	bin->lost = false;
	return sweep_take(tx, bin, word, budget, ret_head, ret_desc);
}

int ph_run_get(struct pheap_tx *tx, uint64_t word, uint64_t desc, uint64_t *ret_head, uint64_t *ret_desc)
{
	struct ph_alloc *a = tx->h->alloc;
	bool all = false;

	for (;;) {
		struct ph_bin *bin;
		bool found = false;
		int rc;

		pthread_mutex_lock(&a->lock);
		all |= a->full && a->full_change == ph_directory_change(tx->h);
		bin = bin_get(a, run_key(desc));
		if (bin)
			found = run_search(tx, bin, word, all, ret_head, ret_desc);
		pthread_mutex_unlock(&a->lock);
		if (found)
			return 0;
		if (!bin)
			return -ENOMEM;
		rc = run_make(tx, word, desc, ret_head, ret_desc);
		if (rc != -ENOSPC || all)
			return rc;
		all = true; /* no space for a new run: every run of this class, wherever it is */
	}
}

/* Empty runs nobody uses, found from chunk *at on, as DESC records of the helper. */
static uint64_t reclaim_collect(pheap_tx *helper, uint64_t *at)
{
	struct pheap *h = helper->h;
	uint64_t end = ph_chunk_count(h), chunks = 0;
	unsigned count = 0;

	while (*at < end && count < RECLAIM_BATCH) {
		uint64_t head = *at, desc = ph_desc_load(h, head), step = 1;

		if (PHD_DESC_KIND(desc) == PHD_DESC_RUN)
			step = PHD_DESC_RUN_COUNT(desc);
		else if (PHD_DESC_KIND(desc) == PHD_DESC_EXTENT)
			step = PHD_DESC_COUNT(desc);
		*at += step ? step : 1;
		if (PHD_DESC_KIND(desc) != PHD_DESC_RUN || !run_is_empty(h, head, desc) ||
		    !ph_chunk_whole(h, head, desc) || !run_take(h, helper->word, head, desc))
			continue;
		/* While we own it nobody chooses here, and who chose before has ended: empty now is empty
		 * until commit. */
		if (!run_is_empty(h, head, desc)) {
			ph_word_release(&h->words[head].owner, helper->word);
			continue;
		}
		if (ph_ops_desc(helper, head, step, desc, 0))
			break;
		chunks += step;
		count++;
	}
	return chunks;
}

uint64_t ph_run_reclaim(struct pheap_tx *tx)
{
	uint64_t at = tx->h->super.journal_count, all = 0;

	__atomic_store_n(&tx->h->alloc->freed_count, 0, __ATOMIC_RELAXED);
	while (at < ph_chunk_count(tx->h)) {
		int rc;
		pheap_tx *helper = ph_tx_internal_begin(tx, &rc);
		uint64_t chunks;

		if (!helper)
			break;
		chunks = reclaim_collect(helper, &at);
		if (chunks == 0)
			ph_tx_internal_abort(helper);
		else if (ph_tx_internal_commit(helper) == 0)
			all += chunks;
	}
	return all;
}

/* --- allocation
 * ------------------------------------------------------------------------------------------------------ */

/* A free bit of the run that this transaction has not chosen; UINT32_MAX: none. */
static uint32_t bit_pick(pheap_tx *tx, struct ph_run_hint *hint)
{
	uint32_t blocks = ph_run_blocks(hint->desc);

	for (uint32_t w = hint->word; w * 64 < blocks; w++) {
		uint64_t avail = bits_free(tx, hint->head, blocks, w);

		if (avail) {
			hint->word = w;
			return w * 64 + (uint32_t)__builtin_ctzll(avail);
		}
	}
	return UINT32_MAX;
}

int ph_run_alloc(struct pheap_tx *tx, size_t block_size, uint32_t type, uint64_t *ret_off)
{
	struct pheap *h = tx->h;
	uint64_t key_desc = PHD_DESC_MAKE_RUN(type, block_size, 1);
	struct ph_run_hint *hint = hint_of(tx, key_desc);
	uint32_t bit = UINT32_MAX;
	int rc;

	if (hint->desc && run_key(hint->desc) != run_key(key_desc)) {
		pthread_mutex_lock(&h->alloc->lock);
		bin_note(h, hint->head, hint->desc);
		pthread_mutex_unlock(&h->alloc->lock);
		hint->desc = 0;
	}
	if (hint->desc && run_take(h, tx->word, hint->head, hint->desc))
		bit = bit_pick(tx, hint);
	while (bit == UINT32_MAX) {
		rc = ph_run_get(tx, tx->word, key_desc, &hint->head, &hint->desc);
		if (rc) {
			hint->desc = 0;
			return rc;
		}
		hint->word = 0;
		bit = bit_pick(tx, hint);
	}
	rc = ph_ops_set(tx, hint->head, hint->head * 4 + bit / 64, 1ull << bit % 64);
	if (rc)
		return rc;
	*ret_off = ph_chunk_off(h, hint->head) + (uint64_t)bit * block_size;
	return 0;
}
