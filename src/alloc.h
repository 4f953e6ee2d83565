/* SPDX-License-Identifier: MIT
 *
 * alloc.h: the allocator's private side: what a transaction chose, and where a process looks for free
 * blocks.
 *
 * What: durable truth is bitmaps and descriptors, changed only at commit by SET, CLEAR and DESC records.
 * What a transaction chose lives in struct ph_ops; where to look next lives in struct ph_alloc. Both can be
 * lost at any time.
 * Why no durable free lists: they are one more thing to recover, and a bitmap says the same in one bit a
 * block.
 *
 * Invariants
 *   A1  A block is chosen only in a run, or a claimed chunk, whose owner word is held by the choosing
 *       transaction (or member).
 *   A2  bits[] and desc[] change only between the commit point and idle, under the run's latch, descriptors
 *       also under the directory latch; so applying the records again is exact.
 *   A3  ops entry: set and clr are disjoint from what the durable word already says: bits of set are 0
 *       there, bits of clr are 1 there or in set. Tested again under the latch before the commit point.
 */
#ifndef PH_ALLOC_H
#define PH_ALLOC_H

#include "heap.h"
#include "map.h"

struct pheap_tx;

/* A bitmap word that this transaction will change. */
struct ph_op {
	uint64_t word_idx;   /* index in h->bits */
	uint64_t head, desc; /* chunk and descriptor of the run */
	uint64_t set, clr;
	uint64_t set_pos, clr_pos; /* log positions of their records, PH_NO_POSITION: none */
	uint32_t index_at;	   /* its entry in the index */
};
#define PH_NO_POSITION UINT64_MAX

/* Descriptors that this transaction will write. */
struct ph_desc_op {
	uint64_t chunk, count;
	uint64_t old_desc, new_desc; /* of the head chunk */
	uint64_t position;
	bool flushed; /* with a WAL: its bytes are made durable in place, not logged */
	bool first; /* of this transaction for this chunk, so old_desc is what the file must say at commit */
};

struct ph_ops {
	struct ph_op *ops;
	uint32_t count, room;
	uint32_t *index; /* hash of word_idx -> place in ops */
	uint32_t index_room;
	struct ph_desc_op *descs;
	uint32_t desc_count, desc_room;
	struct ph_map desc_map; /* chunk -> latest index in descs */
	uint64_t *heads;	/* runs to latch: room for count + desc_count */
	uint32_t head_count, head_room;
	bool directory; /* the directory latch is held */
	bool unordered; /* the latches of all ops are held, and heads is not in use */
};

/* Runs with free blocks that this process knows of, by class and type. */
#define PH_BIN_NOTES 512u
struct ph_bin {
	uint64_t key;	 /* type << 12 | block size / 8 */
	uint64_t cursor; /* the sweep over the directory stands here; chunk_count: done */
	uint64_t *
		notes; /* heads of runs with frees, each once, the lowest last: low ones are filled, high ones get empty */
	uint32_t note_count, note_room;
	bool lost; /* more were freed than notes were kept: sweep again */
	bool none; /* the whole directory was searched in vain, and nothing was noted since */
};

/* Where a thread looks first, for one class and type: the blocks that it freed last, then the run that it used last.
 * Nothing of it is a right: each is looked at again under the owner word. */
#define PH_RUN_CACHE 256u
#define PH_RUN_STASH 8u
struct ph_run_hint {
	uint64_t key; /* as in ph_bin; 0: empty */
	uint64_t head;
	uint64_t desc;	      /* whole descriptor word expected at head; 0: no run */
	uint32_t block_count; /* of the run */
	uint16_t word;	      /* first bitmap word of it worth a look */
	uint16_t stash_count;
	struct ph_spot {
		uint64_t desc;	/* as it was when the block was freed */
		uint64_t place; /* PH_SPOT */
	} stash[PH_RUN_STASH];	/* the last one is tried first */
};
#define PH_SPOT(head, bit) ((head) << 12 | (bit))
#define PH_SPOT_HEAD(place) ((place) >> 12)
#define PH_SPOT_BIT(place) ((uint32_t)((place)&0xfff))
struct ph_run_cache {
	struct ph_run_hint hints[PH_RUN_CACHE];
	uint32_t freed_count; /* blocks, not yet added to the process's */
};

#define PH_HOLE_CLASSES 16u
struct ph_alloc {
	pthread_mutex_t lock;
	struct ph_bin *bins;
	uint32_t bin_count, bin_room;
	struct ph_map bin_map;
	uint64_t holes[PH_HOLE_CLASSES]; /* no row of 2^i free chunks begins below */
	uint64_t change_seen;		 /* directory_change_count when the holes were last right */
	uint64_t freed_count;		 /* blocks freed since the last search for empty runs */
	bool full;			 /* no row of chunks was found, and the file could not grow */
	uint64_t full_change;		 /* directory_change_count then */
};

int ph_alloc_open(struct pheap *h);
void ph_alloc_close(struct pheap *h);

/* chunk.c: rows of free chunks, claimed for `word` by their owner words; they have space when this returns. 0; -ENOSPC: there is
 * none; 1: there is, but not on the disk, with a sentence; others, with a sentence. */
int ph_chunk_claim(struct pheap *h, uint64_t word, uint64_t count, uint64_t align, uint64_t *ret_chunk);
int ph_chunk_claim_log(struct pheap *h, uint64_t word, uint64_t count, uint64_t *ret_chunk);
int ph_chunk_claim_journal(struct pheap *h, uint64_t word, uint64_t count, uint64_t *ret_chunk);
bool ph_chunk_claim_at(struct pheap *h, uint64_t word, uint64_t chunk, uint64_t count);
/* The next row of free chunks in [*at, end) that nobody owns, with space or without, and at most count_max of it. How many; 0: there
 * is none. *at is moved behind it. */
uint64_t ph_chunk_claim_row(struct pheap *h, uint64_t word, uint64_t count_max, uint64_t end, uint64_t *at);
void ph_chunk_unclaim(struct pheap *h, uint64_t word, uint64_t chunk, uint64_t count);
void ph_chunk_freed(struct pheap *h, uint64_t chunk);
/* redo.c: claimed chunks may be stored to, as a log. 0, or as ph_lease_range. */
int ph_space_lease(struct pheap_tx *tx, uint64_t chunk, uint64_t count);
/* As claim, but reclaims empty runs and grows the file when there is nothing. */
int ph_chunk_get(struct pheap_tx *tx, uint64_t word, uint64_t count, uint64_t align, uint64_t *ret_chunk);
static inline uint64_t ph_chunk_of(const struct pheap *h, uint64_t off)
{
	return (off - h->data_off) >> PHD_CHUNK_SHIFT;
}
static inline uint64_t ph_chunk_off(const struct pheap *h, uint64_t chunk)
{
	return h->data_off + (chunk << PHD_CHUNK_SHIFT);
}
static inline uint64_t ph_chunk_count(const struct pheap *h)
{
	return __atomic_load_n(&h->head->chunk_count, __ATOMIC_ACQUIRE);
}

/* As the file says it: to compare with what ph_desc_load gave, or with 0. */
static inline uint64_t ph_desc_raw(const struct pheap *h, uint64_t chunk)
{
	return __atomic_load_n(&h->desc[chunk], __ATOMIC_ACQUIRE);
}

/* In use, and of no block. */
#define PH_DESC_DAMAGED ((uint64_t)PHD_DESC_CONT)

/* Can this be the descriptor of the chunk? No address outside of the file is computed from one that can. */
static inline bool ph_desc_fits(const struct pheap *h, uint64_t chunk, uint64_t desc)
{
	uint64_t left = ph_chunk_count(h) - chunk, count = PHD_DESC_COUNT(desc);

	switch (PHD_DESC_KIND(desc)) {
	case PHD_DESC_RUN:
		count = PHD_DESC_RUN_COUNT(desc);
		return count - 1 < PHD_RUN_COUNT_MAX && count <= left && chunk >= h->super.journal_count &&
		       PHD_DESC_BLOCK_SIZE(desc) - PHD_BLOCK_SIZE_MIN <=
			       PHD_BLOCK_SIZE_MAX - PHD_BLOCK_SIZE_MIN;
	case PHD_DESC_EXTENT:
		return count - 1 < left &&
		       (chunk >= h->super.journal_count) == (PHD_DESC_TYPE(desc) != PHD_TYPE_JOURNAL);
	case PHD_DESC_CONT:
		return count <= chunk;
	default:
		return PHD_DESC_IS_FREE(desc);
	}
}

/* What the file says is judged, not trusted: a damaged descriptor reads as PH_DESC_DAMAGED. */
/* One chunk in so many is for logs only, the last ones that there are: freeing every block of a full heap in one
 * transaction takes 24 bytes of log for 64 blocks, at most 96 bytes for a chunk. A policy, not a rule of the format. */
#define PH_LOG_SHARE 42u
static inline uint64_t ph_chunk_block_end(const struct pheap *h, uint64_t chunk_count)
{
	uint64_t share = chunk_count / PH_LOG_SHARE, journal = h->super.journal_count;

	/* The journal is for the same. */
	return chunk_count - (share > journal ? share - journal : 0);
}
static inline uint64_t ph_directory_change(const struct pheap *h)
{
	return __atomic_load_n(&h->coord->directory_change_count, __ATOMIC_ACQUIRE);
}
static inline uint64_t ph_desc_load(const struct pheap *h, uint64_t chunk)
{
	uint64_t desc = ph_desc_raw(h, chunk);

	return __builtin_expect(ph_desc_fits(h, chunk, desc), 1) ? desc : PH_DESC_DAMAGED;
}
/* Is every chunk behind the head of a run or an extent its CONT? */
bool ph_chunk_whole(const struct pheap *h, uint64_t head, uint64_t desc);

/* run.c */
size_t ph_run_class(size_t n); /* block size for n bytes, n <= PHD_BLOCK_SIZE_MAX */
uint32_t ph_run_length(const struct pheap *h, size_t block_size);
uint32_t ph_run_blocks(uint64_t desc);
/* A free block of that class and type chosen for the transaction; its SET record is in the log. In a full heap it may be
 * larger, and *block_size says so, but a multiple of align. */
int ph_run_alloc(struct pheap_tx *tx, size_t *block_size, size_t align, uint32_t type, uint64_t *ret_off);
/* The blocks of that bitmap word are free now: for later. */
void ph_run_freed(struct pheap_tx *tx, const struct ph_op *op, uint64_t mask);
/* A run of that class and type with a free block, its owner word taken for `word`; made when there is none.
 * `desc` is that of the longest run; the one found may be shorter: *ret_desc. */
int ph_run_get(struct pheap_tx *tx, uint64_t word, uint64_t desc, uint64_t *ret_head, uint64_t *ret_desc);
void ph_run_cache_return(struct pheap_tx *tx); /* the thread ends: others may use its runs */
uint64_t ph_run_reclaim(struct pheap_tx *tx);  /* empty runs become free chunks; how many chunks */

/* ops.c */
/* op: what ph_ops_find says of the word; else a new one, of the run with that head and descriptor. */
int ph_ops_set(struct pheap_tx *tx, struct ph_op *op, uint64_t head, uint64_t desc, uint64_t word_idx,
	       uint64_t mask);
int ph_ops_clear(struct pheap_tx *tx, struct ph_op *op, uint64_t head, uint64_t desc, uint64_t word_idx,
		 uint64_t mask);
struct ph_op *ph_ops_find_many(const struct ph_ops *ops, uint64_t word_idx);
/* NULL: the transaction has none for this word yet. */
static inline struct ph_op *ph_ops_find(const struct ph_ops *ops, uint64_t word_idx)
{
	return __builtin_expect(ops->count == 0, 1) ? NULL : ph_ops_find_many(ops, word_idx);
}
int ph_ops_desc(struct pheap_tx *tx, uint64_t chunk, uint64_t count, uint64_t old_desc, uint64_t new_desc);
/* Descriptor as this transaction sees it. */
uint64_t ph_ops_desc_of(const struct pheap_tx *tx, const struct pheap *h, uint64_t chunk);
void ph_ops_give_back(struct pheap_tx *tx); /* what ph_ops_prepare took, before the commit point */
int ph_ops_prepare(struct pheap_tx *tx);    /* latches and tests; on error everything is released again */
void ph_ops_apply(
	struct pheap_tx *tx); /* as applying its log does, when that has SET, CLEAR and UNDO records only */
void ph_ops_release(struct pheap_tx *tx);  /* latches, after idle */
void ph_ops_unchoose(struct pheap_tx *tx); /* what was chosen may be found again, after an undo */
void ph_ops_forget(struct pheap_tx *tx,
		   uint64_t position); /* rollback: rebuilds from the log below position */
void ph_ops_clear_all(struct ph_ops *ops);
void ph_ops_free(struct ph_ops *ops);

/* block.c: where a block is and what it is. */
struct ph_block {
	uint64_t off;	   /* start */
	uint64_t size;	   /* usable bytes */
	uint64_t head;	   /* chunk */
	uint64_t desc;	   /* as the transaction sees it */
	uint64_t word_idx; /* runs: its bit */
	uint64_t mask;
	struct ph_op *op; /* of the transaction, for that word; NULL: none */
	bool run;
};
/* The block that starts at off, allocated (committed or by tx, which may be NULL). 0, or -EINVAL and why in
 * *ret_why. */
int ph_block_find(const struct pheap *h, const struct pheap_tx *tx, uint64_t off, struct ph_block *ret,
		  const char **ret_why);
int ph_block_alloc(struct pheap_tx *tx, size_t n, size_t align, uint32_t type, uint64_t *ret_off,
		   uint64_t *ret_size);
int ph_block_free(struct pheap_tx *tx, uint64_t off);	      /* the user's, and not held */
int ph_block_drop(struct pheap_tx *tx, uint64_t off);	      /* any */
bool ph_block_freed(const struct pheap_tx *tx, uint64_t off); /* is off inside a block that tx freed? */

#endif
