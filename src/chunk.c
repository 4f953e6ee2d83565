/* SPDX-License-Identifier: MIT
 *
 * chunk.c: rows of free chunks.
 *
 * What: a chunk is free iff its descriptor says FREE and its owner word is not held. A row is claimed chunk
 * by chunk with one CAS each; descriptors follow at commit.
 * Why no index of free rows: descriptors are the truth and neighbours join by themselves; `holes` only says
 * where a search may begin.
 *
 * Invariants
 *   N1  After a claim every chunk of the row is FREE and its owner word is the claimer's; the descriptor is
 *       looked at again after the CAS, because the last owner may have committed in between.
 */
#include <errno.h>

#include "alloc.h"
#include "error.h"
#include "grow.h"
#include "member.h"
#include "tx.h"
#include "word.h"

#define LOG_SLACK 16u /* chunks */

static unsigned hole_class(uint64_t count)
{
	unsigned i = 63u - (unsigned)__builtin_clzll(count);

	return i < PH_HOLE_CLASSES ? i : PH_HOLE_CLASSES - 1;
}

static bool chunk_take(struct pheap *h, uint64_t word, uint64_t chunk)
{
	uint64_t *owner = &h->words[chunk].owner;

	if (ph_desc_raw(h, chunk) != 0)
		return false;
	if (!ph_word_take_again(owner, word) && ph_word_try(h, owner, word) != PH_TAKEN)
		return false;
	if (ph_desc_raw(h, chunk) == 0)
		return true;
	ph_word_release(owner, word);
	return false;
}

void ph_chunk_unclaim(struct pheap *h, uint64_t word, uint64_t chunk, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		ph_word_release(&h->words[chunk + i].owner, word);
}

bool ph_chunk_claim_at(struct pheap *h, uint64_t word, uint64_t chunk, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		if (!chunk_take(h, word, chunk + i)) {
			ph_chunk_unclaim(h, word, chunk, i);
			return false;
		}
	return true;
}

bool ph_chunk_whole(const struct pheap *h, uint64_t head, uint64_t desc)
{
	uint64_t count =
		PHD_DESC_KIND(desc) == PHD_DESC_RUN ? PHD_DESC_RUN_COUNT(desc) : PHD_DESC_COUNT(desc);

	for (uint64_t i = 1; i < count; i++)
		if (ph_desc_raw(h, head + i) != PHD_DESC_MAKE_CONT(PHD_DESC_TYPE(desc), i))
			return false;
	return true;
}

/* How many chunks to step over at `chunk`, which is not FREE. Bounded whatever the file says. */
static uint64_t step_over(uint64_t desc)
{
	uint64_t n = 1;

	if (PHD_DESC_KIND(desc) == PHD_DESC_RUN)
		n = PHD_DESC_RUN_COUNT(desc);
	else if (PHD_DESC_KIND(desc) == PHD_DESC_EXTENT)
		n = PHD_DESC_COUNT(desc);
	return n ? n : 1;
}

/* Length of the row of FREE descriptors at chunk, up to count. */
static uint64_t row_length(const struct pheap *h, uint64_t chunk, uint64_t count)
{
	uint64_t n = 0;

	while (n < count && ph_desc_raw(h, chunk + n) == 0)
		n++;
	return n;
}

/* In a damaged directory: does the block or run in front of the row reach into it? */
static bool row_inside(const struct pheap *h, uint64_t chunk)
{
	uint64_t head = chunk - 1, desc = ph_desc_load(h, head);

	if (PHD_DESC_KIND(desc) == PHD_DESC_CONT) {
		head -= PHD_DESC_COUNT(desc);
		desc = ph_desc_load(h, head);
	}
	return PHD_DESC_KIND(desc) != PHD_DESC_CONT && head + step_over(desc) > chunk;
}

static int row_claim(struct pheap *h, uint64_t word, uint64_t count, uint64_t align, uint64_t end,
		     uint64_t *ret_chunk)
{
	struct ph_alloc *a = h->alloc;
	uint64_t change = ph_directory_change(h);
	uint64_t base = ph_chunk_off(h, 0) >> PHD_CHUNK_SHIFT, at, first = UINT64_MAX;
	unsigned class = hole_class(count);

	pthread_mutex_lock(&a->lock);
	if (a->change_seen != change) {
		/* Somebody freed chunks; what this process freed has lowered the holes already, others'
		 * frees are unknown. */
		memset(a->holes, 0, sizeof(a->holes));
		a->change_seen = change;
	}
	at = a->holes[class];
	pthread_mutex_unlock(&a->lock);
	if (at < h->super.journal_count)
		at = h->super.journal_count;
	while (at < end && count <= end - at) {
		uint64_t desc = ph_desc_load(h, at), n;

		if (PHD_DESC_KIND(desc) != PHD_DESC_FREE) {
			at += step_over(desc);
			continue;
		}
		if (align > 1 && (base + at) % align) {
			at++;
			continue;
		}
		n = row_length(h, at, count);
		if (n == count && !row_inside(h, at)) {
			if (first == UINT64_MAX)
				first = at;
			if (ph_chunk_claim_at(h, word, at, count)) {
				pthread_mutex_lock(&a->lock);
				/* What begins below `first` is too short or not free; alignment says
				 * nothing of others. */
				if (align == 1 && a->holes[class] < first)
					a->holes[class] = first;
				pthread_mutex_unlock(&a->lock);
				*ret_chunk = at;
				return 0;
			}
			at++;
			continue;
		}
		at += n ? n : 1;
	}
	pthread_mutex_lock(&a->lock);
	/* Rows that are claimed but not committed may come back: only a search that met none moves the hole
	 * to the end. */
	if (align == 1 && a->change_seen == change && first == UINT64_MAX) {
		uint64_t hole = end > count ? end - count + 1 : 0;

		if (a->holes[class] < hole)
			a->holes[class] = hole;
	}
	pthread_mutex_unlock(&a->lock);
	return -ENOSPC;
}

int ph_chunk_claim(struct pheap *h, uint64_t word, uint64_t count, uint64_t align, uint64_t *ret_chunk)
{
	return row_claim(h, word, count, align, ph_chunk_block_end(h, ph_chunk_count(h)), ret_chunk);
}

/* Chunks of log that free in one transaction everything that there is. */
static uint64_t log_need(const struct pheap *h, uint64_t end)
{
	uint64_t bytes = 0;

	for (uint64_t at = h->super.journal_count; at < end;) {
		uint64_t desc = ph_desc_load(h, at);

		if (PHD_DESC_KIND(desc) == PHD_DESC_RUN)
			bytes += (ph_run_blocks(desc) + 63) / 64 * ph_log_units(8) * 8;
		else if (PHD_DESC_KIND(desc) == PHD_DESC_EXTENT)
			bytes += ph_log_units(16) * 8;
		at += step_over(desc);
	}
	bytes += bytes / 32; /* heads of extensions, and their ends that a record does not fit into */
	return bytes / PHD_CHUNK_SIZE + LOG_SLACK;
}

/* A full heap: as far into the logs' share as what is there can do without. */
static int claim_share(struct pheap *h, uint64_t word, uint64_t count, uint64_t align, uint64_t *ret_chunk)
{
	uint64_t end = ph_chunk_count(h), need = log_need(h, end), journal = h->super.journal_count;

	need = need > journal ? need - journal : 0;
	if (need >= end || end - need <= ph_chunk_block_end(h, end))
		return -ENOSPC;
	return row_claim(h, word, count, align, end - need, ret_chunk);
}

int ph_chunk_claim_log(struct pheap *h, uint64_t word, uint64_t count, uint64_t *ret_chunk)
{
	return row_claim(h, word, count, 1, ph_chunk_count(h), ret_chunk);
}

int ph_chunk_claim_journal(struct pheap *h, uint64_t word, uint64_t count, uint64_t *ret_chunk)
{
	uint64_t end = h->super.journal_count;

	/* Their descriptors say JOURNAL for ever; only the owner word tells. */
	for (uint64_t at = 0; count <= end - at; at++) {
		uint64_t n = 0;

		while (n < count) {
			uint64_t *owner = &h->words[at + n].owner;

			if (!ph_word_take_free(owner, word) && ph_word_try(h, owner, word) != PH_TAKEN)
				break;
			n++;
		}
		if (n == count) {
			*ret_chunk = at;
			return 0;
		}
		ph_chunk_unclaim(h, word, at, n);
		at += n;
		if (at >= end)
			break;
	}
	return -ENOSPC;
}

void ph_chunk_freed(struct pheap *h, uint64_t chunk)
{
	struct ph_alloc *a = h->alloc;

	pthread_mutex_lock(&a->lock);
	/* The row may now begin earlier, joined with free neighbours below. */
	for (unsigned i = 0; i < PH_HOLE_CLASSES; i++) {
		uint64_t reach = 2ull << i,
			 low = i == PH_HOLE_CLASSES - 1 || chunk < reach ? 0 : chunk - reach;

		if (a->holes[i] > low)
			a->holes[i] = low;
	}
	__atomic_fetch_add(&a->freed_count, 1, __ATOMIC_RELAXED);
	a->change_seen = __atomic_load_n(&h->coord->directory_change_count, __ATOMIC_ACQUIRE);
	pthread_mutex_unlock(&a->lock);
}

static int heap_grow(struct pheap_tx *tx, uint64_t count, uint64_t seen)
{
	struct pheap *h = tx->h;
	pheap_tx *helper;
	int rc;

	helper = ph_tx_internal_begin(tx, &rc);
	if (!helper)
		return rc;
	rc = ph_word_take(h, &h->coord->growth, helper->word, "the growth of the file");
	if (rc >= 0) {
		uint64_t mine = helper->word;

		/* Somebody else grew it while we waited: look again before growing more. */
		rc = ph_chunk_count(h) > seen ? 0 : ph_grow_locked(h, count);
		ph_word_release(&h->coord->growth, mine);
	}
	ph_tx_internal_abort(helper);
	return rc;
}

static uint64_t tail_length(const struct pheap *h, uint64_t end, uint64_t count)
{
	uint64_t n = 0;

	while (n < count && n < end && ph_desc_raw(h, end - 1 - n) == 0)
		n++;
	return n;
}

/* Grows just what is missing behind the free tail, or fails without having grown. */
static int tail_grow(struct pheap_tx *tx, uint64_t count, uint64_t align, uint64_t seen)
{
	struct pheap *h = tx->h;
	uint64_t room = h->super.chunk_max - seen, want = count + align - 1,
		 end = ph_chunk_block_end(h, seen);
	uint64_t tail = tail_length(h, end, want), need = want > tail ? want - tail : 1;

	need += need / (PH_LOG_SHARE - 1) + 1; /* logs get their share of what is new */
	if (need > room)
		need = room && tail + ph_chunk_block_end(h, h->super.chunk_max) - end >= count ? room
		       : count > room							       ? count
				      : room + 1; /* too much: for the sentence that says so */
	return heap_grow(tx, need, seen);
}

static void holes_reset(struct pheap *h)
{
	pthread_mutex_lock(&h->alloc->lock);
	memset(h->alloc->holes, 0, sizeof(h->alloc->holes));
	pthread_mutex_unlock(&h->alloc->lock);
}

/* Until somebody frees chunks, what is free is in runs: they are searched first. */
static void full_note(struct pheap *h, uint64_t change)
{
	pthread_mutex_lock(&h->alloc->lock);
	h->alloc->full = true;
	h->alloc->full_change = change;
	pthread_mutex_unlock(&h->alloc->lock);
}

int ph_chunk_get(struct pheap_tx *tx, uint64_t word, uint64_t count, uint64_t align, uint64_t *ret_chunk)
{
	struct pheap *h = tx->h;
	bool swept = false, full = false;

	if (count > h->super.chunk_max - h->super.journal_count)
		return ph_error(h, -ENOSPC, "%llu bytes are more than the heap's max_size holds",
				(unsigned long long)count << PHD_CHUNK_SHIFT);
	for (;;) {
		uint64_t seen = ph_chunk_count(h), seen_change = ph_directory_change(h);
		int rc = ph_chunk_claim(h, word, count, align, ret_chunk);

		if (rc != -ENOSPC)
			return rc;
		/* Empty runs first; but a few frees are no reason for a sweep while the file can grow. */
		if (!swept &&
		    __atomic_load_n(&h->alloc->freed_count, __ATOMIC_RELAXED) + tx->cache.freed_count >
			    seen / 64) {
			swept = true;
			if (ph_run_reclaim(tx))
				continue;
		}
		rc = tail_grow(tx, count, align, seen);
		if (rc == 0)
			continue;
		if (rc == -ENOSPC && full && claim_share(h, word, count, align, ret_chunk) == 0)
			return 0;
		if (rc == -ENOSPC && full && count <= PHD_RUN_COUNT_MAX)
			full_note(h, seen_change);
		if (rc != -ENOSPC || full)
			return rc;
		full = true;
		/* Chunks that a dead member had claimed count as taken until somebody recovers it. */
		rc = ph_member_check_all(h);
		if (rc < 0)
			return rc;
		holes_reset(h);
		ph_run_reclaim(tx);
	}
}
