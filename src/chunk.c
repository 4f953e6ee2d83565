/* SPDX-License-Identifier: MIT
 *
 * chunk.c: rows of free chunks.
 *
 * What: a chunk is free iff its descriptor is of kind FREE and its owner word is not held. A row is claimed chunk
 * by chunk with one CAS each; descriptors follow at commit. One that says HOLE has perhaps no space in the file (trim.c): who
 * claims it sets that aside before it stores there, and fails before it has stored when the disk is full.
 * Why no index of free rows: descriptors are the truth and neighbours join by themselves; `holes` only says
 * where a search may begin.
 *
 * Invariants
 *   N1  After a claim every chunk of the row is FREE and its owner word is the claimer's; the descriptor is
 *       looked at again after the CAS, because the last owner may have committed in between.
 *   N2  After a claim for use every chunk of the row has space. ORDER(hole-fill)
 */
#include <errno.h>

#include "alloc.h"
#include "error.h"
#include "grow.h"
#include "member.h"
#include "tx.h"
#include "word.h"

#define LOG_SLACK 16u	/* chunks */
#define HOLE_LOOK 2048u /* chunks: as much as it costs to have space set aside */

static unsigned hole_class(uint64_t count)
{
	unsigned i = 63u - (unsigned)__builtin_clzll(count);

	return i < PH_HOLE_CLASSES ? i : PH_HOLE_CLASSES - 1;
}

/* *ret_desc: what its descriptor says then. */
static bool chunk_take(struct pheap *h, uint64_t word, uint64_t chunk, uint64_t *ret_desc)
{
	uint64_t *owner = &h->words[chunk].owner;

	if (!PHD_DESC_IS_FREE(ph_desc_raw(h, chunk)))
		return false;
	if (!ph_word_take_again(owner, word) && ph_word_try(h, owner, word) != PH_TAKEN)
		return false;
	*ret_desc = ph_desc_raw(h, chunk);
	if (PHD_DESC_IS_FREE(*ret_desc))
		return true;
	ph_word_release(owner, word);
	return false;
}

void ph_chunk_unclaim(struct pheap *h, uint64_t word, uint64_t chunk, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		ph_word_release(&h->words[chunk + i].owner, word);
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

/* Length of the row of FREE descriptors at chunk, up to count. *ret_hole: behind the last one without space, 0: all have it. */
static uint64_t row_length(const struct pheap *h, uint64_t chunk, uint64_t count, uint64_t *ret_hole)
{
	uint64_t n = 0, desc;

	*ret_hole = 0;
	for (; n < count && PHD_DESC_IS_FREE(desc = ph_desc_raw(h, chunk + n)); n++)
		if (desc)
			*ret_hole = chunk + n + 1;
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

/* 0; -EBUSY; 1: the disk is full; or an error. Whether there are holes is asked behind the CAS: they may just have become some. */
static int row_take(struct pheap *h, uint64_t word, uint64_t chunk, uint64_t count)
{
	bool holes = false;
	uint64_t desc;
	int rc;

	for (uint64_t i = 0; i < count; i++) {
		if (!chunk_take(h, word, chunk + i, &desc)) {
			ph_chunk_unclaim(h, word, chunk, i);
			return -EBUSY;
		}
		holes |= desc == PHD_DESC_HOLE;
	}
	rc = holes ? ph_grow_space(h, chunk, count) : 0;
	if (rc)
		ph_chunk_unclaim(h, word, chunk, count);
	return rc == -ENOSPC ? 1 : rc;
}

bool ph_chunk_claim_at(struct pheap *h, uint64_t word, uint64_t chunk, uint64_t count)
{
	return row_take(h, word, chunk, count) == 0;
}

/* A search for a row. */
struct row_walk {
	uint64_t word, count, align, end;
	uint64_t look;	/* chunks to look through behind the first row with holes, for one without */
	bool fills;	/* takes one with holes */
	uint64_t first; /* row that is long enough; UINT64_MAX: none yet */
	uint64_t hole;	/* the first one with holes, passed over */
};

/* From `at` on. 0, -ENOSPC, 1 or an error as row_take. */
static int row_walk(struct pheap *h, struct row_walk *w, uint64_t at, uint64_t *ret_chunk)
{
	uint64_t base = ph_chunk_off(h, 0) >> PHD_CHUNK_SHIFT, hole;
	int rc;

	while (at < w->end && w->count <= w->end - at) {
		uint64_t desc = ph_desc_load(h, at), n;

		if (w->hole != UINT64_MAX && at - w->hole > w->look)
			break;
		if (PHD_DESC_KIND(desc) != PHD_DESC_FREE) {
			at += step_over(desc);
			continue;
		}
		if (w->align > 1 && (base + at) % w->align) {
			at++;
			continue;
		}
		n = row_length(h, at, w->count, &hole);
		if (n < w->count || row_inside(h, at)) {
			at += n ? n : 1;
			continue;
		}
		if (w->first == UINT64_MAX)
			w->first = at;
		if (hole && !w->fills) {
			if (w->hole == UINT64_MAX)
				w->hole = at;
			at = hole;
			continue;
		}
		rc = row_take(h, w->word, at, n);
		if (rc == 0)
			*ret_chunk = at;
		if (rc != -EBUSY)
			return rc;
		at++;
	}
	return -ENOSPC;
}

/* Rows with space first, but not from far: then a row of holes costs less. If the disk is full, from anywhere. */
static int row_find(struct pheap *h, struct row_walk *w, uint64_t at, uint64_t *ret_chunk)
{
	int rc = row_walk(h, w, at, ret_chunk);

	if (rc != -ENOSPC || w->hole == UINT64_MAX)
		return rc;
	at = w->hole;
	w->look = UINT64_MAX;
	w->fills = true;
	rc = row_walk(h, w, at, ret_chunk);
	w->fills = false;
	if (rc == 1 && row_walk(h, w, at, ret_chunk) == 0)
		rc = 0;
	return rc;
}

static int row_claim(struct pheap *h, uint64_t word, uint64_t count, uint64_t align, uint64_t end,
		     uint64_t *ret_chunk)
{
	struct row_walk w = {.word = word,
			     .count = count,
			     .align = align,
			     .end = end,
			     .look = HOLE_LOOK,
			     .first = UINT64_MAX,
			     .hole = UINT64_MAX};
	struct ph_alloc *a = h->alloc;
	uint64_t change = ph_directory_change(h), at;
	unsigned class = hole_class(count);
	int rc;

	pthread_mutex_lock(&a->lock);
	if (a->change_seen != change) {
		/* Somebody freed chunks; what this process freed has lowered the holes already, others'
		 * frees are unknown. */
		memset(a->holes, 0, sizeof(a->holes));
		a->change_seen = change;
	}
	at = a->holes[class];
	pthread_mutex_unlock(&a->lock);
	rc = row_find(h, &w, at < h->super.journal_count ? h->super.journal_count : at, ret_chunk);
	if (align > 1 || (rc && rc != -ENOSPC))
		return rc; /* alignment says nothing of others */
	pthread_mutex_lock(&a->lock);
	if (w.first != UINT64_MAX) {
		/* What begins below is too short or not free. Rows that are claimed but not committed may come back. */
		if (rc == 0 && a->holes[class] < w.first)
			a->holes[class] = w.first;
	} else if (a->change_seen == change) {
		uint64_t hole = end > count ? end - count + 1 : 0;

		if (a->holes[class] < hole)
			a->holes[class] = hole;
	}
	pthread_mutex_unlock(&a->lock);
	return rc;
}

uint64_t ph_chunk_claim_row(struct pheap *h, uint64_t word, uint64_t count_max, uint64_t end, uint64_t *at)
{
	while (*at < end) {
		uint64_t chunk = *at, desc = ph_desc_load(h, chunk), n = 0;

		if (PHD_DESC_KIND(desc) != PHD_DESC_FREE) {
			*at += step_over(desc);
			continue;
		}
		/* Of a damaged directory nothing is given away: the whole row stays. */
		if (row_inside(h, chunk)) {
			while (*at < end && PHD_DESC_IS_FREE(ph_desc_raw(h, *at)))
				++*at;
			continue;
		}
		while (n < count_max && chunk + n < end && chunk_take(h, word, chunk + n, &desc))
			n++;
		*at += n ? n : 1;
		if (n)
			return n;
	}
	return 0;
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

/* The row that is wanted. */
struct want {
	uint64_t word, count, align;
	uint64_t *ret_chunk;
};

static int row_again(struct pheap *h, const struct want *want)
{
	return ph_chunk_claim(h, want->word, want->count, want->align, want->ret_chunk) == 0 ? -EALREADY
											     : -ENOSPC;
}

/* 0: look again; -EALREADY: claimed after all. */
static int heap_grow(struct pheap_tx *tx, const struct want *want, uint64_t need, uint64_t seen)
{
	struct pheap *h = tx->h;
	uint64_t *growth = &h->coord->growth;
	bool waited;
	pheap_tx *helper;
	int rc = 0;

	helper = ph_tx_internal_begin(tx, &rc);
	if (!helper)
		return rc;
	waited = !ph_word_take_free(growth, helper->word);
	if (waited)
		rc = ph_word_take(h, growth, helper->word, "the growth of the file");
	if (rc >= 0) {
		uint64_t mine = helper->word;

		/* Somebody else grew it while we waited: look again before growing more. Or trimmed it, and had free rows for its
		 * own under this word: who holds it sees all that there are, and only then says that there are none. */
		if (ph_chunk_count(h) > seen)
			rc = 0;
		else
			rc = waited ? row_again(h, want) : -ENOSPC;
		if (rc == -ENOSPC)
			rc = ph_grow_locked(h, need);
		if (rc == -ENOSPC && !waited)
			rc = row_again(h, want);
		ph_word_release(growth, mine);
	}
	ph_tx_internal_abort(helper);
	return rc;
}

static uint64_t tail_length(const struct pheap *h, uint64_t end, uint64_t count)
{
	uint64_t n = 0;

	while (n < count && n < end && PHD_DESC_IS_FREE(ph_desc_raw(h, end - 1 - n)))
		n++;
	return n;
}

/* Grows just what is missing behind the free tail, or fails without having grown. */
static int tail_grow(struct pheap_tx *tx, const struct want *want, uint64_t seen)
{
	struct pheap *h = tx->h;
	uint64_t room = h->super.chunk_max - seen, count = want->count, row = count + want->align - 1;
	uint64_t end = ph_chunk_block_end(h, seen), tail = tail_length(h, end, row);
	uint64_t need = row > tail ? row - tail : 1;

	need += need / (PH_LOG_SHARE - 1) + 1; /* logs get their share of what is new */
	if (need > room)
		need = room && tail + ph_chunk_block_end(h, h->super.chunk_max) - end >= count ? room
		       : count > room							       ? count
				      : room + 1; /* too much: for the sentence that says so */
	return heap_grow(tx, want, need, seen);
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
	const struct want want = {.word = word, .count = count, .align = align, .ret_chunk = ret_chunk};
	bool swept = false, full = false, disk_full = false;

	if (count > h->super.chunk_max - h->super.journal_count)
		return ph_error(h, -ENOSPC, "%llu bytes are more than the heap's max_size holds",
				(unsigned long long)count << PHD_CHUNK_SHIFT);
	for (;;) {
		uint64_t seen = ph_chunk_count(h), seen_change = ph_directory_change(h);
		int rc = ph_chunk_claim(h, word, count, align, ret_chunk);

		if (rc <= 0 && rc != -ENOSPC)
			return rc;
		disk_full = rc == 1;
		/* Empty runs first; but a few frees are no reason for a sweep while the file can grow. */
		if (!swept &&
		    __atomic_load_n(&h->alloc->freed_count, __ATOMIC_RELAXED) + tx->cache.freed_count >
			    seen / 64) {
			swept = true;
			if (ph_run_reclaim(tx))
				continue;
		}
		rc = tail_grow(tx, &want, seen);
		if (rc == 0)
			continue;
		if (rc == -EALREADY)
			return 0;
		if (rc == -ENOSPC && full && claim_share(h, word, count, align, ret_chunk) == 0)
			return 0;
		if (rc == -ENOSPC && full && count <= PHD_RUN_COUNT_MAX)
			full_note(h, seen_change);
		if (rc == -ENOSPC && full && disk_full)
			return ph_error(
				h, rc,
				"the file system is full: the heap needs %llu bytes of those that it gave back",
				(unsigned long long)count << PHD_CHUNK_SHIFT);
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
