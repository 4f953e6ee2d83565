/* SPDX-License-Identifier: MIT
 *
 * trim.c: pheap_trim: what the heap does not use goes back to the file system.
 *
 * What: three passes over the directory. Empty runs become free chunks. Rows of free chunks get the descriptor HOLE, by internal
 * transactions. Rows of HOLE chunks that nothing will be read for, or stored to, are punched.
 * Why a descriptor and not a look at the file: a store into a hole of a full disk is a SIGBUS; so whoever takes a chunk has to know
 * whether it may be one, at no cost where it is not, and after any death. The mark stays when space is there again; it says
 * "perhaps".
 * Why not owned from the mark to the punch: with a WAL a checkpoint lies between them, and free space that is somebody's for so
 * long is missed by others. What happens to a chunk meanwhile shows in its descriptor and its lease.
 * Why the file's length stays: see README.md.
 *
 * Invariants
 *   M1  A row is punched by who owns all its chunks, and growth, while they say HOLE.
 *   M2  With a WAL: no record that will be read is of them (ph_lease_free), nor older than the mark.
 *   M3  Owning is for one row, or one transaction's, at a time. Who finds no row waits for growth, and looks again under it.
 */
#include <errno.h>

#include "alloc.h"
#include "checkpoint.h"
#include "error.h"
#include "lease.h"
#include "mutant.h"
#include "os.h"
#include "thread.h"
#include "tx.h"
#include "word.h"

#define ROW_MAX (1u << 14)  /* chunks owned at a time: 64 MiB */
#define MARK_BATCH 16u	    /* rows in one internal transaction: their records fit into any lane's log */
#define MARK_MAX (1u << 14) /* and chunks */

struct trim {
	struct pheap *h;
	pheap_tx *tx; /* of this thread */
	uint64_t end; /* of the chunks that are trimmed: not those that are kept for long logs */
};

/* An internal transaction that has growth; or NULL, and why not. */
static pheap_tx *growth_begin(const struct trim *t, int *ret_rc)
{
	pheap_tx *helper = ph_tx_internal_begin(t->tx, ret_rc);
	int rc;

	if (!helper)
		return NULL;
	rc = ph_word_take(t->h, &t->h->coord->growth, helper->word, "the growth of the file");
	if (rc >= 0)
		return helper;
	ph_tx_internal_abort(helper);
	*ret_rc = rc;
	return NULL;
}

static int growth_end(const struct trim *t, pheap_tx *helper, bool commit)
{
	uint64_t mine = helper->word;
	int rc = 0;

	/* Its words are free when it is idle; this wakes whoever waits. */
	if (commit)
		rc = ph_tx_internal_commit(helper);
	else
		ph_tx_internal_abort(helper);
	ph_word_release(&t->h->coord->growth, mine);
	return rc;
}

static uint64_t hole_count(const struct pheap *h, uint64_t chunk, uint64_t count)
{
	uint64_t n = 0;

	while (n < count && ph_desc_raw(h, chunk + n) == PHD_DESC_HOLE)
		n++;
	return n;
}

/* ---- marks ---- */

/* Rows from *at on. *ret_marks: whether there is something to commit. */
static int marks_collect(const struct trim *t, pheap_tx *helper, uint64_t *at, bool *ret_marks)
{
	uint64_t chunks = 0;
	unsigned rows = 0;

	while (rows < MARK_BATCH && chunks < MARK_MAX) {
		uint64_t n = ph_chunk_claim_row(t->h, helper->word, ROW_MAX, t->end, at), row = *at - n;
		int rc;

		if (n == 0)
			break;
		if (hole_count(t->h, row, n) == n) {
			ph_chunk_unclaim(t->h, helper->word, row, n);
			continue;
		}
		rc = ph_ops_desc(helper, row, n, 0, PHD_DESC_HOLE);
		if (rc)
			return rc;
		chunks += n;
		rows++;
	}
	*ret_marks = rows > 0;
	return 0;
}

static int rows_mark(const struct trim *t)
{
	uint64_t at = t->h->super.journal_count;
	int rc = 0;

	while (at < t->end && rc == 0) {
		pheap_tx *helper = growth_begin(t, &rc);
		bool marks = false;

		if (!helper)
			break;
		rc = marks_collect(t, helper, &at, &marks);
		if (rc == 0 && marks)
			rc = growth_end(t, helper, true);
		else
			(void)growth_end(t, helper, false);
	}
	return rc;
}

/* ---- punches ---- */

/* M1, M2: how many chunks from `chunk` on may go; *ret_skip: or may not. */
static uint64_t unread_count(const struct trim *t, uint64_t chunk, uint64_t count, uint64_t *ret_skip)
{
	const struct pheap *h = t->h;
	uint64_t n = 0;

	*ret_skip = 0;
	if (PH_MUTANT(PH_MUTANT_PUNCH_FIRST))
		return count;
	while (n < count && ph_desc_raw(h, chunk + n) == PHD_DESC_HOLE &&
	       (!h->leased || PH_MUTANT(PH_MUTANT_PUNCH_EARLY) || ph_lease_free(h, chunk + n, 1)))
		n++;
	*ret_skip = n == 0;
	return n;
}

static int row_punch(const struct trim *t, uint64_t chunk, uint64_t count)
{
	struct pheap *h = t->h;
	uint64_t skip;
	int rc = ph_heap_fd_check(h);

	for (uint64_t i = 0, n; i < count && rc == 0; i += n + skip) {
		n = unread_count(t, chunk + i, count - i, &skip);
		/* ORDER(punch-last): what says HOLE before the space goes; with a WAL that is durable, and a checkpoint lies
		 * behind all that the log knows of the chunks. Crash between: they say HOLE and have their space. Pairs with
		 * chunk.c:row_take and power.c:space_renew. */
		if (n)
			rc = ph_os->file_punch(h->fd, ph_chunk_off(h, chunk + i), n << PHD_CHUNK_SHIFT);
	}
	if (rc == -EOPNOTSUPP)
		return ph_error(h, rc, "pheap_trim: the file system cannot take back a part of a file");
	return rc ? ph_error(h, rc, "pheap_trim: giving space back failed: %s", pheap_strerror(rc)) : 0;
}

static int rows_punch(const struct trim *t)
{
	uint64_t at = t->h->super.journal_count;
	int rc = 0;

	while (at < t->end && rc == 0) {
		pheap_tx *helper = growth_begin(t, &rc);
		uint64_t n;

		if (!helper)
			break;
		n = ph_chunk_claim_row(t->h, helper->word, ROW_MAX, t->end, &at);
		if (PH_MUTANT(PH_MUTANT_PUNCH_UNOWNED))
			ph_chunk_unclaim(t->h, helper->word, at - n, n);
		if (n)
			rc = row_punch(t, at - n, n);
		(void)growth_end(t, helper, false);
	}
	return rc;
}

/* ---- the call ---- */

static int heap_trim(struct pheap *h, pheap_tx *tx)
{
	uint64_t count = ph_chunk_count(h);
	struct trim t = {.h = h, .tx = tx, .end = ph_chunk_block_end(h, count)};
	int rc = 0;

	(void)ph_run_reclaim(tx);
	if (PH_MUTANT(PH_MUTANT_PUNCH_FIRST))
		rc = rows_punch(&t);
	if (rc == 0)
		rc = rows_mark(&t);
	/* The marks are durable, and the log forgets what it knows of these chunks. */
	if (rc == 0 && h->leased && !PH_MUTANT(PH_MUTANT_PUNCH_EARLY))
		rc = ph_checkpoint(h);
	if (rc == 0)
		rc = rows_punch(&t);
	return rc;
}

int pheap_trim(pheap *h)
{
	pheap_tx *tx;
	int rc;

	ph_heap_check(h, "pheap_trim");
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	if (h->read_only)
		return ph_error(h, -EROFS, "pheap_trim: the heap is open for reading only");
	tx = ph_thread_tx(h, &rc);
	if (!tx)
		return rc;
	if (h->leased)
		rc = ph_wal_poisoned(h);
	else
		rc = h->coord->poison
			     ? ph_error(
				       h, PHEAP_EPOISONED,
				       "recovery of a dead process failed; close the heap and run pheap-fsck on it")
			     : 0;
	return rc ? rc : heap_trim(h, tx);
}
