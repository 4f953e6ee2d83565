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

#define SWEEP_BUDGET 2048u  /* descriptors looked at before a new run is made instead */
#define RECLAIM_BATCH 16u   /* runs in one internal transaction */
#define RUN_KEPT_GENS 4096u /* transactions of its last user: so long others look elsewhere first */
#define FREED_BATCH 64u	    /* frees that a thread counts by itself */
#define HEAP_SMALL (1ull << 20)
#define RUN_LENGTH 4u

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

/* Chunks of a run: the first length that wastes little at its end. Short ones get empty sooner, and leave less of a rare
 * class unused; longer ones cost less to make. */
uint32_t ph_run_length(const struct pheap *h, size_t block_size)
{
	uint64_t bytes = ph_chunk_count(h) << PHD_CHUNK_SHIFT;
	uint32_t length = bytes < HEAP_SMALL ? 1 : RUN_LENGTH, best = PHD_RUN_COUNT_MAX;
	size_t share = bytes < HEAP_SMALL ? 16 : 256; /* it may waste one byte in so many */
	size_t least = SIZE_MAX;

	for (; length <= PHD_RUN_COUNT_MAX; length++) {
		size_t all = (size_t)length * PHD_CHUNK_SIZE, waste = all % block_size;

		if (all < block_size)
			continue;
		if (waste * share <= all)
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

/* Classes of one type have slots of their own: as many follow each other as there are classes. */
static struct ph_run_hint *hint_of(pheap_tx *tx, size_t block_size, uint32_t type)
{
	uint32_t class = (uint32_t)block_size / 8;

	if (block_size > 1024) {
		uint32_t doubling = 31u - (uint32_t)__builtin_clz((uint32_t)block_size - 1);

		class = 72 + (doubling - 10) * 8 + ((uint32_t)(block_size - 1) >> (doubling - 3) & 7);
	} else if (block_size > 128) {
		class = 8 + (uint32_t)block_size / 16;
	}
	return &tx->cache.hints[(class + type * 107) % PH_RUN_CACHE];
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

/* Another thread used this run not long ago, and goes on: two that share one wait for each other at every commit. */
static bool run_is_others(const struct pheap_tx *tx, uint64_t head)
{
	const struct pheap *h = tx->h;
	uint64_t owner = __atomic_load_n(&h->words[head].owner, __ATOMIC_RELAXED), gens;
	unsigned lane = PHD_WORD_LANE(owner);

	if (owner == 0 || lane == tx->lane_idx || lane >= h->super.lane_count ||
	    __atomic_load_n(&h->lanes[lane].owner, __ATOMIC_RELAXED) == 0)
		return false;
	gens = PHD_STATE_GEN(__atomic_load_n(&h->lanes[lane].state, __ATOMIC_RELAXED)) - PHD_WORD_GEN(owner);
	return gens <= RUN_KEPT_GENS;
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
	if (!ph_word_take_again(owner, word) && ph_word_try(h, owner, word) == PH_BUSY)
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

/* The first of the notes, which fall, that is not above head. */
static uint32_t note_place(const struct ph_bin *bin, uint64_t head)
{
	uint32_t low = 0, high = bin->note_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (bin->notes[middle] > head)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Under the allocator's lock. */
static void bin_note(struct pheap *h, uint64_t head, uint64_t key)
{
	struct ph_bin *bin = bin_get(h->alloc, key);
	uint32_t at;

	if (!bin)
		return;
	bin->none = false;
	at = note_place(bin, head);
	if (at < bin->note_count && bin->notes[at] == head)
		return;
	if (bin->note_count == PH_BIN_NOTES) {
		/* The highest one is let go; it is found again by a sweep. */
		bin->lost = true;
		if (at == 0)
			return;
		memmove(bin->notes, bin->notes + 1, --at * sizeof(*bin->notes));
		bin->notes[at] = head;
		return;
	}
	if (!ph_room(&bin->notes, &bin->note_room, bin->note_count + 1, sizeof(*bin->notes))) {
		bin->lost = true;
		return;
	}
	memmove(&bin->notes[at + 1], &bin->notes[at], (bin->note_count - at) * sizeof(*bin->notes));
	bin->notes[at] = head;
	bin->note_count++;
}

/* What a thread knew goes to the process. Under the allocator's lock. */
static void hint_return(struct pheap *h, struct ph_run_hint *hint)
{
	for (uint32_t i = 0; i < hint->stash_count; i++)
		bin_note(h, PH_SPOT_HEAD(hint->stash[i].place), hint->key);
	if (hint->desc)
		bin_note(h, hint->head, hint->key);
	hint->desc = 0;
	hint->key = hint->stash_count = 0;
}

static __attribute__((noinline)) void hint_begin(pheap_tx *tx, struct ph_run_hint *hint, uint64_t key)
{
	if (hint->key) {
		pthread_mutex_lock(&tx->h->alloc->lock);
		hint_return(tx->h, hint);
		pthread_mutex_unlock(&tx->h->alloc->lock);
	}
	hint->key = key;
}

/* The older half of a full stash. Frees of blocks that another thread allocates are handed over so. */
static __attribute__((noinline)) void stash_spill(pheap_tx *tx, struct ph_run_hint *hint)
{
	uint32_t half = PH_RUN_STASH / 2;

	pthread_mutex_lock(&tx->h->alloc->lock);
	for (uint32_t i = 0; i < half; i++)
		if (PH_SPOT_HEAD(hint->stash[i].place) != hint->head)
			bin_note(tx->h, PH_SPOT_HEAD(hint->stash[i].place), hint->key);
		else
			hint->word = 0;
	pthread_mutex_unlock(&tx->h->alloc->lock);
	hint->stash_count -= (uint16_t)half;
	memmove(hint->stash, hint->stash + half, hint->stash_count * sizeof(*hint->stash));
}

void ph_run_freed(struct pheap_tx *tx, const struct ph_op *op, uint64_t mask)
{
	uint64_t key = run_key(op->desc), word = op->word_idx - op->head * 4;
	size_t size = PHD_DESC_BLOCK_SIZE(op->desc);
	struct ph_run_hint *hint = hint_of(tx, size, PHD_DESC_TYPE(op->desc));
	uint32_t *count = &tx->cache.freed_count;

	if (hint->key != key)
		hint_begin(tx, hint, key);
	if (hint->head == op->head && hint->word > word)
		hint->word = (uint16_t)word;
	/* Of many that are freed together the run is enough. */
	for (uint32_t i = 0; mask && i < PH_RUN_STASH / 2; i++, mask &= mask - 1) {
		if (hint->stash_count == PH_RUN_STASH)
			stash_spill(tx, hint);
		uint64_t bit = word * 64 + (uint64_t)__builtin_ctzll(mask);
		const char *block = tx->h->map + ph_chunk_off(tx->h, op->head) + bit * size;

		/* It is likely to be allocated next, and stored to. What is stored to memory then holds up the next
		 * operation that is atomic. */
		__builtin_prefetch(block, 1);
		__builtin_prefetch(block + size - 1, 1);
		hint->stash[hint->stash_count++] = (struct ph_spot){op->desc, PH_SPOT(op->head, bit)};
	}
	if (++*count == FREED_BATCH) {
		__atomic_fetch_add(&tx->h->alloc->freed_count, FREED_BATCH, __ATOMIC_RELAXED);
		*count = 0;
	}
}

void ph_run_cache_return(struct pheap_tx *tx)
{
	pthread_mutex_lock(&tx->h->alloc->lock);
	for (unsigned i = 0; i < PH_RUN_CACHE; i++)
		if (tx->cache.hints[i].key)
			hint_return(tx->h, &tx->cache.hints[i]);
	pthread_mutex_unlock(&tx->h->alloc->lock);
	__atomic_fetch_add(&tx->h->alloc->freed_count, tx->cache.freed_count, __ATOMIC_RELAXED);
	tx->cache.freed_count = 0;
}

/* Which runs a search takes. */
enum search {
	SEARCH_OWN, /* not those that other threads use, and only so far that it costs less than a new run */
	SEARCH_OTHERS, /* those, too, before the file grows: the whole directory */
	SEARCH_ALL,    /* the whole directory again, because there is no space */
};

static void note_drop(struct ph_bin *bin, uint32_t at)
{
	memmove(&bin->notes[at], &bin->notes[at + 1], (--bin->note_count - at) * sizeof(*bin->notes));
}

/* A run that frees noted, the lowest first. Under the allocator's lock. */
static bool note_take(const pheap_tx *tx, struct ph_bin *bin, uint64_t word, enum search how,
		      uint64_t *ret_head, uint64_t *ret_desc)
{
	struct pheap *h = tx->h;

	for (uint32_t at = bin->note_count; at-- > 0;) {
		uint64_t head = bin->notes[at], desc = head < ph_chunk_count(h) ? ph_desc_load(h, head) : 0;

		if (PHD_DESC_KIND(desc) != PHD_DESC_RUN || run_key(desc) != bin->key) {
			note_drop(bin, at);
			continue;
		}
		if (how == SEARCH_OWN && run_is_others(tx, head))
			continue; /* stays noted */
		if (!run_has_free(tx, word, head, desc) || !ph_chunk_whole(h, head, desc)) {
			note_drop(bin, at);
			continue;
		}
		if (!run_take(h, word, head, desc))
			continue;
		note_drop(bin, at);
		*ret_head = head;
		*ret_desc = desc;
		return true;
	}
	return false;
}

/* Walks the directory on from the bin's cursor. Under the allocator's lock. */
static bool sweep_take(const pheap_tx *tx, struct ph_bin *bin, uint64_t word, enum search how,
		       uint64_t *ret_head, uint64_t *ret_desc)
{
	struct pheap *h = tx->h;
	uint64_t end = ph_chunk_count(h), at = bin->cursor;
	uint64_t budget = how == SEARCH_OWN ? SWEEP_BUDGET : UINT64_MAX;

	for (; at < end && budget > 0; budget--) {
		uint64_t desc = ph_desc_load(h, at), step = 1;

		if (PHD_DESC_KIND(desc) == PHD_DESC_RUN) {
			step = PHD_DESC_RUN_COUNT(desc);
			if (run_key(desc) != bin->key || !run_has_free(tx, word, at, desc)) {
				at += step ? step : 1;
				continue;
			}
			if ((how != SEARCH_OWN || !run_is_others(tx, at)) && ph_chunk_whole(h, at, desc) &&
			    run_take(h, word, at, desc)) {
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

/* Where there is space at hand, or, with grow, where it can be got. */
static int run_make(pheap_tx *tx, uint64_t word, uint64_t desc, bool grow, uint64_t *ret_head,
		    uint64_t *ret_desc)
{
	struct pheap *h = tx->h;
	size_t size = PHD_DESC_BLOCK_SIZE(desc);
	uint32_t length = ph_run_length(h, size);
	uint64_t chunk;
	pheap_tx *helper;
	int rc =
		grow ? ph_chunk_get(tx, word, length, 1, &chunk) : ph_chunk_claim(h, word, length, 1, &chunk);

	if (rc > 0)
		rc = -ENOSPC; /* a full disk */
	if (rc == -ENOSPC && grow) {
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

/* A run with free blocks that is there already. Under the allocator's lock. */
static bool run_search(const pheap_tx *tx, struct ph_bin *bin, uint64_t word, enum search how,
		       uint64_t *ret_head, uint64_t *ret_desc)
{
	if (note_take(tx, bin, word, how, ret_head, ret_desc))
		return true;
	/* What other processes freed, and what was passed, is seen by a sweep from the start only. */
	if (how != SEARCH_OWN || (bin->lost && bin->cursor >= ph_chunk_count(tx->h))) {
		bin->cursor = 0;
		bin->lost = false;
	}
	if (sweep_take(tx, bin, word, how, ret_head, ret_desc))
		return true;
	bin->none = how == SEARCH_ALL;
	return false;
}

/* The heap was found full, and since then no chunk was freed, nor a block of this class that this process knows of. Under
 * the allocator's lock. */
static bool run_is_none(const struct pheap *h, const struct ph_bin *bin)
{
	const struct ph_alloc *a = h->alloc;

	return a->full && a->full_change == ph_directory_change(h) && bin->none;
}

/* As ph_run_get, but -ENOSPC without a sentence and without another search where the last one was in vain. */
static int run_get(pheap_tx *tx, uint64_t word, uint64_t desc, bool insist, uint64_t *ret_head,
		   uint64_t *ret_desc)
{
	struct ph_alloc *a = tx->h->alloc;
	enum search how = SEARCH_OWN;

	/* A new run of its own rather than one that another thread uses; that one rather than a larger file; and
	 * when there is no space at all, every run of this class, wherever it is. */
	for (;;) {
		struct ph_bin *bin;
		bool found = false, none;
		int rc;

		pthread_mutex_lock(&a->lock);
		if (a->full && a->full_change == ph_directory_change(tx->h))
			how = SEARCH_ALL;
		bin = bin_get(a, run_key(desc));
		none = bin && !insist && run_is_none(tx->h, bin);
		if (bin && !none)
			found = run_search(tx, bin, word, how, ret_head, ret_desc);
		pthread_mutex_unlock(&a->lock);
		if (found)
			return 0;
		if (!bin)
			return -ENOMEM;
		if (none)
			return -ENOSPC;
		rc = run_make(tx, word, desc, how != SEARCH_OWN, ret_head, ret_desc);
		if (rc != -ENOSPC || how == SEARCH_ALL)
			return rc;
		how = how == SEARCH_OWN ? SEARCH_OTHERS : SEARCH_ALL;
	}
}

int ph_run_get(struct pheap_tx *tx, uint64_t word, uint64_t desc, uint64_t *ret_head, uint64_t *ret_desc)
{
	return run_get(tx, word, desc, true, ret_head, ret_desc);
}

/* One that is there already, in a full heap. */
static bool run_get_there(const pheap_tx *tx, uint64_t desc, bool insist, uint64_t *ret_head,
			  uint64_t *ret_desc)
{
	struct ph_alloc *a = tx->h->alloc;
	struct ph_bin *bin;
	bool found;

	pthread_mutex_lock(&a->lock);
	bin = bin_get(a, run_key(desc));
	found = bin && (insist || !run_is_none(tx->h, bin)) &&
		run_search(tx, bin, tx->word, SEARCH_ALL, ret_head, ret_desc);
	pthread_mutex_unlock(&a->lock);
	return found;
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
	tx->cache.freed_count = 0;
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

/* A block that may be chosen: the transaction holds its run. */
struct spot {
	uint64_t head, desc, word_idx, mask, off;
	struct ph_op *op;
};

/* Is the bit free, and not chosen by this transaction? */
static bool spot_is_free(const pheap_tx *tx, struct spot *spot)
{
	uint64_t used = bits_load(tx->h, spot->word_idx);

	spot->op = ph_ops_find(&tx->ops, spot->word_idx);
	if (spot->op)
		used |= spot->op->set | spot->op->clr;
	return !(used & spot->mask);
}

/* A block that this thread freed: the last one is the likeliest to be in the processor's cache. */
static bool stash_pick(pheap_tx *tx, struct ph_run_hint *hint, size_t block_size, struct spot *spot)
{
	struct pheap *h = tx->h;

	for (; hint->stash_count; hint->stash_count--) {
		const struct ph_spot *last = &hint->stash[hint->stash_count - 1];
		uint64_t head = PH_SPOT_HEAD(last->place), desc = last->desc;
		uint32_t bit = PH_SPOT_BIT(last->place);

		if (!run_take(h, tx->word, head, desc)) {
			if (ph_desc_raw(h, head) == desc)
				return false; /* in use by another: later */
			continue;
		}
		spot->head = head;
		spot->desc = desc;
		spot->word_idx = head * 4 + bit / 64;
		spot->mask = 1ull << bit % 64;
		if (spot_is_free(tx, spot)) {
			hint->stash_count--;
			spot->off = ph_chunk_off(h, head) + bit * block_size;
			return true;
		}
	}
	return false;
}

/* A free bit of the thread's run, which the transaction holds. */
static bool run_pick(pheap_tx *tx, struct ph_run_hint *hint, size_t block_size, struct spot *spot)
{
	uint32_t blocks = hint->block_count;

	spot->head = hint->head;
	spot->desc = hint->desc;
	for (uint32_t w = hint->word; w * 64 < blocks; w++) {
		uint64_t avail = ~bits_load(tx->h, hint->head * 4 + w);
		uint32_t bit;

		if (blocks - w * 64 < 64)
			avail &= (1ull << (blocks - w * 64)) - 1;
		if (!avail)
			continue;
		spot->word_idx = hint->head * 4 + w;
		spot->op = ph_ops_find(&tx->ops, spot->word_idx);
		if (spot->op)
			avail &= ~(spot->op->set | spot->op->clr);
		if (!avail)
			continue;
		bit = w * 64 + (uint32_t)__builtin_ctzll(avail);
		hint->word = (uint16_t)w;
		spot->mask = avail & -avail;
		avail &= avail - 1;
		if (avail) /* the next one */
			__builtin_prefetch(tx->h->map + ph_chunk_off(tx->h, hint->head) +
						   (w * 64 + (uint32_t)__builtin_ctzll(avail)) * block_size,
					   1);
		spot->off = ph_chunk_off(tx->h, hint->head) + bit * block_size;
		return true;
	}
	hint->word = (uint16_t)((blocks + 63) / 64);
	return false;
}

static void hint_aim(struct ph_run_hint *hint)
{
	hint->word = 0;
	hint->block_count = ph_run_blocks(hint->desc);
}

/* What this thread knows of. */
static inline __attribute__((always_inline)) bool
hint_pick(pheap_tx *tx, struct ph_run_hint *hint, uint64_t key, size_t block_size, struct spot *spot)
{
	if (__builtin_expect(hint->key != key, 0))
		hint_begin(tx, hint, key);
	return stash_pick(tx, hint, block_size, spot) ||
	       (hint->desc && run_take(tx->h, tx->word, hint->head, hint->desc) &&
		run_pick(tx, hint, block_size, spot));
}

/* A full heap: a block of a larger class, up to twice the size. */
static bool larger_pick(pheap_tx *tx, size_t *block_size, size_t align, uint32_t type, bool insist,
			struct spot *spot)
{
	size_t size = ph_run_class(*block_size + 1), end = 2 * *block_size;

	/* As the size that was asked for would have been. */
	if (align < 16 && *block_size % 16 == 0)
		align = 16;
	for (; size <= end && size <= PHD_BLOCK_SIZE_MAX; size = ph_run_class(size + 1)) {
		struct ph_run_hint *hint = hint_of(tx, size, type);
		uint64_t desc = PHD_DESC_MAKE_RUN(type, size, 1);
		bool found;

		if (size % align)
			continue;
		found = hint_pick(tx, hint, run_key(desc), size, spot);
		while (!found && run_get_there(tx, desc, insist, &hint->head, &hint->desc)) {
			hint_aim(hint);
			found = run_pick(tx, hint, size, spot);
		}
		if (found) {
			*block_size = size;
			return true;
		}
	}
	return false;
}

/* From runs that others know of, or a new one. */
static __attribute__((noinline)) int other_pick(pheap_tx *tx, struct ph_run_hint *hint, size_t *block_size,
						size_t align, uint32_t type, struct spot *spot)
{
	uint64_t desc = PHD_DESC_MAKE_RUN(type, *block_size, 1);
	bool insist = false;

	for (;;) {
		int rc = run_get(tx, tx->word, desc, insist, &hint->head, &hint->desc);

		if (rc == 0) {
			hint_aim(hint);
			if (run_pick(tx, hint, *block_size, spot))
				return 0;
			continue;
		}
		hint->desc = 0;
		if (rc != -ENOSPC)
			return rc;
		if (larger_pick(tx, block_size, align, type, insist, spot))
			return 0;
		if (insist)
			return rc;
		insist = true; /* another process may have freed what this one does not know of */
	}
}

int ph_run_alloc(struct pheap_tx *tx, size_t *block_size, size_t align, uint32_t type, uint64_t *ret_off)
{
	struct ph_run_hint *hint = hint_of(tx, *block_size, type);
	uint64_t key = (uint64_t)type << 12 | *block_size / 8;
	struct spot spot;

	if (__builtin_expect(!hint_pick(tx, hint, key, *block_size, &spot), 0)) {
		int rc = other_pick(tx, hint, block_size, align, type, &spot);

		if (rc)
			return rc;
	}
	*ret_off = spot.off;
	return ph_ops_set(tx, spot.op, spot.head, spot.desc, spot.word_idx, spot.mask);
}
