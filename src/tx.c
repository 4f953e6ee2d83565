/* SPDX-License-Identifier: MIT
 *
 * tx.c: begin, commit, abort, and what both do with the lane. See tx.h.
 */
#include "tx.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "defer.h"
#include "error.h"
#include "gate.h"
#include "hold.h"
#include "lock.h"
#include "mutant.h"
#include "checkpoint.h"
#include "os.h"
#include "redo.h"
#include "reserve.h"
#include "root.h"
#include "savepoint.h"
#include "signals.h"
#include "thread.h"

#define BEGIN_FLAGS (PHEAP_CONCURRENT | PHEAP_READ | PHEAP_NEST | PHEAP_NOWAIT)
#define RUN_TRIES_MAX 1000
#define LANE_GENS_LEFT (1u << 20) /* so many before the limit, it is raised */
#define TABLE_ROOM_KEPT 256u	  /* entries */

bool ph_room(void *array, uint32_t *room, uint32_t need, size_t item_size)
{
	void **items = array;
	uint32_t next = *room ? *room : 4;
	void *grown;

	if (need <= *room)
		return true;
	while (next < need)
		next *= 2;
	grown = realloc(*items, next * item_size);
	if (!grown)
		return false;
	*items = grown;
	*room = next;
	return true;
}

void ph_tx_doom(pheap_tx *tx, int rc, const char *format, ...)
{
	char text[256];
	va_list args;

	if (format) {
		va_start(args, format);
		vsnprintf(text, sizeof(text), format, args);
		va_end(args);
		ph_error_note(tx->h, "%s", text);
	}
	if (!format && rc == -ENOMEM)
		ph_error_note(tx->h, "%s", "this process has no memory for the transaction's private tables");
	if (!tx->doom) {
		tx->doom = rc;
		tx->doom_position = tx->savepoint_serial;
	}
	tx->writable_by = PH_TX_SEALED;
	tx->extras = true;
}

int ph_tx_refuse(pheap_tx *tx, const char *call)
{
	if (!tx)
		return ph_error(NULL, -EINVAL, "%s: the transaction is NULL", call);
	if (tx->magic != PH_TX_MAGIC)
		ph_fatal("%s: the heap of this transaction is closed", call);
	if (tx->thread != &ph_thread)
		return ph_error(tx->h, -EPERM, "%s: the transaction belongs to another thread", call);
	if (tx->h->forked)
		return ph_error(tx->h, PHEAP_EFORKED, "%s: the transaction was begun by the parent process",
				call);
	if (!tx->writable_by)
		return ph_error(tx->h, PHEAP_EENDED, "%s: the transaction has ended", call);
	if (tx->doom)
		return tx->doom;
	return ph_tx_fail(tx, -EROFS, "%s: the transaction was begun with PHEAP_READ", call);
}

/* --- the lane
 * ------------------------------------------------------------------------------------------------------ */

static inline void lane_begin(pheap_tx *tx)
{
	ph_log_reset(&tx->log, tx->lane);
}

static void tables_clear(pheap_tx *tx)
{
	ph_ops_clear_all(&tx->ops);
	tx->savepoint_count = tx->callback_count = tx->notified_count = 0;
	tx->published_count = tx->pending_count = 0;
	tx->doom = 0;
	tx->nest = 0;
	tx->cover.range_count = 0;
	if (tx->has_defers)
		ph_defer_clear(tx);
	tx->applies = tx->has_frees = false;
	tx->fresh = 0;
	tx->extras = tx->modify_long = tx->h->long_way;
}

/* The lane becomes idle, which frees all words of the transaction at once. */
static inline void lane_idle(pheap_tx *tx)
{
	/* ORDER(commit-point), ORDER(apply-idle), ORDER(undo-idle): all stores of the transaction, or all
	 * of its undo, before idle. Crash between: recovery finds the lane not idle and does it again.
	 * Pairs with recovery.c:lane_recover. */
	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen + 1, PHD_MODE_NONE, PHD_STEP_IDLE),
			 __ATOMIC_RELEASE);
}

static inline void lane_next(pheap_tx *tx)
{
	tx->gen++;
	tx->word += PHD_WORD(1, 0);
}

/* Idle, then whoever waits is woken. */
static void lane_end(pheap_tx *tx)
{
	if (PH_MUTANT(PH_MUTANT_LOCK_EARLY))
		ph_lock_release_all(tx);
	lane_idle(tx);
	if (tx->applies)
		ph_ops_release(tx);
	if (ph_tx_has_stripes(tx))
		ph_lock_release_all(tx);
	if (!tx->internal)
		ph_gate_leave(tx);
	lane_next(tx);
}

void ph_tx_undo_step(pheap_tx *tx)
{
	if (PH_MUTANT(PH_MUTANT_ABORT_IDLE))
		__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen + 1, PHD_MODE_NONE, PHD_STEP_IDLE),
				 __ATOMIC_RELEASE);
	ph_log_undo(tx->h, &tx->log, 0, false);
	if (tx->h->leased && tx->ops.desc_count)
		ph_log_give_up(tx->h, tx->lane, &tx->log, 0);
	lane_end(tx);
	ph_ops_unchoose(tx);
}

/* With a WAL: the record, or the lane's step, is the commit point. */
static int commit_logged(pheap_tx *tx)
{
	int rc;

	if (tx->has_defers && tx->has_frees)
		ph_defer_drop_freed(tx);
	rc = tx->h->super.durability == PHEAP_SYNC >> 24 ? ph_redo_append(tx) : ph_redo_commit_epoch(tx);
	if (rc)
		return rc;
	/* If that fails the heap is poisoned, and what memory has does not matter. */
	if (tx->applies_durable)
		(void)ph_wal_wait(tx->h, tx->lsn, UINT64_MAX);
	ph_order();
	if (tx->applies)
		ph_log_apply(tx->h, &tx->log);
	ph_order();
	lane_end(tx);
	if (tx->h->super.durability == PHEAP_EPOCH >> 24 && ph_log_end(&tx->log) && !tx->applies) {
		if (tx->h->fenced)
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
		ph_redo_ticket_any(tx);
	}
	return 0;
}

int ph_tx_commit_step(pheap_tx *tx)
{
	int rc;

	if (tx->h->leased)
		return commit_logged(tx);

	if (tx->applies) {
		rc = ph_ops_prepare(tx);
		if (rc)
			return rc;
		if (tx->has_defers && tx->has_frees)
			ph_defer_drop_freed(tx);
		/* ORDER(commit-point): every record and every store in place before committed. From here on
		 * recovery goes forward. Crash before: undone as a whole. Pairs with
		 * recovery.c:lane_recover. */
		if (!PH_MUTANT(PH_MUTANT_NO_COMMITTED))
			__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, tx->mode, PHD_STEP_COMMITTED),
					 __ATOMIC_RELEASE);
		if (PH_MUTANT(PH_MUTANT_APPLY_IDLE))
			__atomic_store_n(&tx->lane->state,
					 PHD_STATE(tx->gen + 1, PHD_MODE_NONE, PHD_STEP_IDLE),
					 __ATOMIC_RELEASE);
		ph_order();
		if (tx->extras == PH_LONG_OPS)
			ph_ops_apply(tx);
		else
			ph_log_apply(tx->h, &tx->log);
		ph_order();
	}
	lane_end(tx);
	return 0;
}

/* --- internal transactions
 * ----------------------------------------------------------------------------------------- */

pheap_tx *ph_tx_internal_begin(pheap_tx *tx, int *ret_rc)
{
	pheap_tx *helper = ph_thread_helper_take(tx->h, ret_rc);

	if (!helper)
		return NULL;
	lane_begin(helper);
	__atomic_store_n(&helper->lane->state, PHD_STATE(helper->gen, PHD_MODE_INTERNAL, PHD_STEP_ACTIVE),
			 __ATOMIC_RELEASE);
	ph_order();
	helper->writable_by = PH_TX_SEALED;
	return helper;
}

static void internal_end(pheap_tx *helper)
{
	tables_clear(helper);
	helper->writable_by = NULL;
	ph_thread_helper_give(helper->h);
}

int ph_tx_internal_commit(pheap_tx *helper)
{
	int rc = ph_tx_commit_step(helper);

	if (rc)
		ph_tx_undo_step(helper);
	internal_end(helper);
	return rc;
}

void ph_tx_internal_abort(pheap_tx *helper)
{
	ph_tx_undo_step(helper);
	internal_end(helper);
}

/* --- begin
 * --------------------------------------------------------------------------------------------------------- */

static int begin_nested(pheap_tx *tx, uint32_t flags, pheap_tx **ret)
{
	int rc;

	if (!(flags & PHEAP_NEST))
		return ph_error(
			tx->h, PHEAP_EACTIVE,
			"this thread already has a transaction in this heap; end it, or use PHEAP_NEST");
	if (tx->doom)
		return tx->doom;
	if (tx->read_only && !(flags & PHEAP_READ))
		return ph_error(tx->h, -EROFS,
				"the open transaction is PHEAP_READ; one that writes can not nest in it");
	rc = ph_savepoint_push(tx, 1);
	if (rc)
		return rc;
	tx->nest++;
	*ret = tx;
	return 0;
}

/* The rare reasons not to begin; 0 when there is none. */
static int begin_refuse(pheap *h, uint32_t flags, pheap_tx **ret)
{
	if (!ret)
		return ph_error(h, -EINVAL, "pheap_begin: ret is NULL");
	*ret = NULL;
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	if (flags & ~BEGIN_FLAGS)
		return ph_error(h, -EINVAL, "pheap_begin: flags 0x%x belong to another call",
				flags & ~BEGIN_FLAGS);
	if (h->read_only && !(flags & PHEAP_READ))
		return ph_error(h, -EROFS, "the heap is open for reading only; begin with PHEAP_READ");
	return 0;
}

static uint32_t mode_of(uint32_t flags)
{
	if (flags & PHEAP_CONCURRENT)
		return PHD_MODE_CONCURRENT;
	return flags & PHEAP_READ ? PHD_MODE_READ : PHD_MODE_EXCLUSIVE;
}

static void signals_leave(pheap_tx *tx)
{
	bool defers = tx->defers_signals;

	tx->defers_signals = false;
	if (defers)
		ph_signals_leave();
}

/* A generation that no power cut could tell from an older one is at hand only below the limit, which is only raised. */
static int gens_get(pheap *h, pheap_tx *tx)
{
	int rc = 0;

	tx->gen_end = UINT64_MAX;
	if (h->leased) {
		if (__atomic_load_n(&h->coord->lane_gen_limit, __ATOMIC_RELAXED) - tx->gen < LANE_GENS_LEFT)
			rc = ph_checkpoint(h);
		tx->gen_end = __atomic_load_n(&h->coord->lane_gen_limit, __ATOMIC_RELAXED) - LANE_GENS_LEFT;
	}
	return rc;
}

static __attribute__((noinline)) int begin_long(pheap *h, uint32_t flags, pheap_tx **ret)
{
	pheap_tx *tx;
	bool defers;
	int rc;

	ph_heap_check(h, "pheap_begin");
	rc = begin_refuse(h, flags, ret);
	if (rc)
		return rc;
	tx = ph_thread.heap_id == h->id ? ph_thread.tx : ph_thread_tx(h, &rc);
	if (!tx)
		return rc;
	if (tx->writable_by)
		return begin_nested(tx, flags, ret);
	if (tx->lane && h->coord->poison != 0 && !(flags & PHEAP_READ))
		return h->leased
			       ? ph_wal_poisoned(h)
			       : ph_error(
					 h, PHEAP_EPOISONED,
					 "recovery of a dead process failed; close the heap and run pheap-fsck "
					 "on it");
	/* Here a handler of the program's may run, with a transaction of its own: nothing is set in the object yet. */
	defers = h->deferring;
	if (defers && !ph_signals_enter((flags & PHEAP_NOWAIT) != 0))
		return ph_error(h, -EAGAIN, "a signal waits for the end of this process's transactions");
	if (tx->writable_by) {
		ph_signals_leave();
		return begin_nested(tx, flags, ret);
	}
	if (tx->lane && tx->gen >= tx->gen_end) {
		rc = gens_get(h, tx);
		if (rc) {
			if (defers)
				ph_signals_leave();
			return rc;
		}
	}
	tx->mode = mode_of(flags);
	tx->read_only = (flags & PHEAP_READ) != 0;
	tx->extras = tx->lane == NULL ? 1 : h->long_way;
	tx->defers_signals = defers;
	if (tx->lane) {
		lane_begin(tx);
		if (!ph_gate_enter(tx, tx->mode, h->fenced))
			rc = ph_gate_enter_slow(tx, (flags & PHEAP_NOWAIT) != 0);
		if (rc) {
			signals_leave(tx);
			return rc;
		}
	}
	tx->extras |= tx->defers_signals;
	tx->modify_long = h->long_way;
	tx->writable_by = tx->read_only ? PH_TX_SEALED : &ph_thread;
	ph_cover_clear(&tx->cover);
	*ret = tx;
	return 0;
}

static_assert(offsetof(struct pheap, plain_pad) == offsetof(struct pheap, read_only) + 5 &&
		      offsetof(struct pheap, read_only) % 8 == 0,
	      "flags in one word");

/* Neither read-only, passive, fenced, forked nor deferring. */
static inline bool heap_plain(const pheap *h)
{
	uint64_t flags;

	memcpy(&flags, &h->read_only, sizeof(flags));
	return flags == 0;
}

static inline void begin_done(pheap_tx *tx, pheap_tx **ret)
{
	tx->writable_by = &ph_thread;
	ph_cover_clear_lines(&tx->cover);
	*ret = tx;
}

static __attribute__((noinline)) int begin_gate(pheap_tx *tx, pheap_tx **ret)
{
	int rc = ph_gate_enter_slow(tx, false);

	*ret = NULL;
	if (rc == 0)
		begin_done(tx, ret);
	return rc;
}

/* The common case only: a thread that has been here before, on a heap that it may write, without options. */
static inline __attribute__((always_inline)) int begin_short(pheap_tx *tx, uint32_t mode, pheap_tx **ret)
{
	tx->mode = mode; /* and the next: one store */
	tx->read_only = 0;
	lane_begin(tx);
	if (!ph_gate_enter(tx, mode, false))
		return begin_gate(tx, ret);
	begin_done(tx, ret);
	return 0;
}

/* h has the number of the thread's last heap, so it is open: a closed one has lost its own. */
int pheap_begin(pheap *h, uint32_t flags, pheap_tx **ret)
{
	pheap_tx *tx = ph_thread.tx;

	if (__builtin_expect(!h || !ret || h->id != ph_thread.heap_id || !heap_plain(h), 0) ||
	    __builtin_expect(tx->writable_by || h->coord->poison || tx->gen >= tx->gen_end, 0))
		return begin_long(h, flags, ret);
	if (__builtin_expect(flags == 0, 1))
		return begin_short(tx, PHD_MODE_EXCLUSIVE, ret);
	if (flags == PHEAP_CONCURRENT)
		return begin_short(tx, PHD_MODE_CONCURRENT, ret);
	return begin_long(h, flags, ret);
}

/* --- end
 * ----------------------------------------------------------------------------------------------------------- */

static void notify_all(pheap_tx *tx)
{
	for (uint32_t i = 0; i < tx->notified_count; i++)
		ph_os->futex_wake((const uint32_t *)(const void *)tx->notified[i], 0x7fffffff);
}

/* Callbacks may begin transactions of their own: the object must already be free for that. */
static void callbacks_run(struct ph_callback *callbacks, uint32_t count, bool committed)
{
	for (uint32_t i = 0; i < count; i++)
		callbacks[i].fn(callbacks[i].arg, committed && !callbacks[i].rolled_back);
	free(callbacks);
}

/* A large transaction may have made them large; they are not kept for the small ones after it. */
static void tables_trim(pheap_tx *tx)
{
	if (tx->ops.room > TABLE_ROOM_KEPT || tx->ops.desc_room > TABLE_ROOM_KEPT ||
	    tx->ops.desc_map.room > 4 * TABLE_ROOM_KEPT)
		ph_ops_free(&tx->ops);
	if (tx->defer_lines.room > 4 * TABLE_ROOM_KEPT) {
		free(tx->defer_lines.slots);
		memset(&tx->defer_lines, 0, sizeof(tx->defer_lines));
	}
}

static void tx_finish_slow(pheap_tx *tx, bool committed)
{
	struct ph_callback *callbacks = tx->callbacks;
	uint32_t count = tx->callback_count;
	bool defers = tx->defers_signals; /* a callback may use the object */

	if (committed)
		notify_all(tx);
	ph_reserve_settle(tx, committed);
	tables_clear(tx);
	tables_trim(tx);
	tx->defers_signals = false;
	tx->writable_by = NULL;
	if (count) {
		tx->callbacks = NULL;
		tx->callback_room = 0;
		callbacks_run(callbacks, count, committed);
	}
	if (defers)
		ph_signals_leave();
}

/* After lane_end. */
static inline void tx_finish(pheap_tx *tx, bool committed)
{
	if (__builtin_expect(tx->extras, 0))
		tx_finish_slow(tx, committed);
	else
		tx->writable_by = NULL;
}

void ph_tx_abort_all(pheap_tx *tx)
{
	tx->writable_by = PH_TX_SEALED;
	if (tx->lane)
		ph_tx_undo_step(tx);
	tx_finish(tx, false);
}

/* Why a transaction can not be ended by this caller; 0: it can, doomed or not. */
static int end_refuse(pheap_tx *tx, const char *call)
{
	int rc;

	if (tx && tx->magic == PH_TX_MAGIC && tx->thread == &ph_thread && tx->writable_by && !tx->h->forked)
		return 0;
	rc = ph_tx_refuse(tx, call);
	return rc;
}

static int commit_nested(pheap_tx *tx)
{
	int rc = tx->doom;

	if (rc)
		ph_savepoint_rollback_top(tx);
	ph_savepoint_pop_nest(tx);
	return rc;
}

/* What is acknowledged is durable; so is what a transaction without changes has seen. */
static int commit_wait(pheap_tx *tx)
{
	int rc;

	/* It is effective: who waits for it need not wait for the disk. */
	notify_all(tx);
	tx->notified_count = 0;
	if (tx->h->super.durability != PHEAP_SYNC >> 24)
		return 0;
	rc = PH_MUTANT(PH_MUTANT_ACK_EARLY) ? 0 : ph_wal_wait(tx->h, tx->lsn, UINT64_MAX);
	ph_checkpoint_if_due(tx->h);
	/* Reading goes on when nothing becomes durable any more. */
	return rc == PHEAP_EPOISONED && tx->read_only ? 0 : rc;
}

static __attribute__((noinline)) int commit_any(pheap_tx *tx, bool waits)
{
	int rc = end_refuse(tx, "pheap_commit");
	struct pheap *h;

	if (rc || !tx)
		return rc;
	h = tx->h;
	if (tx->nest)
		return commit_nested(tx);
	rc = tx->doom;
	if (rc == 0 && tx->lane)
		rc = ph_tx_commit_step(tx);
	if (rc) {
		ph_tx_abort_all(tx);
		return rc;
	}
	if (h->leased && waits && tx->lane)
		rc = commit_wait(tx);
	tx_finish(tx, rc == 0);
	if (rc == 0)
		ph_hold_reap_due(h);
	return rc;
}

/* After idle. */
static inline __attribute__((always_inline)) void commit_short(pheap_tx *tx)
{
	if (ph_tx_has_stripes(tx))
		ph_lock_release_all(tx);
	ph_gate_leave(tx);
	lane_next(tx);
	tx->writable_by = NULL;
}

/* Of EPOCH, nothing but undo, and no switch just now: idle is the commit point. False: by the long way. */
static inline __attribute__((always_inline)) bool commit_epoch(pheap_tx *tx)
{
	uint64_t epoch;

	if (__builtin_expect(tx->extras != PH_LONG_EPOCH || ph_log_end(&tx->log) == 0, 0))
		return false;
	epoch = __atomic_load_n(&tx->coord->epoch, __ATOMIC_ACQUIRE);
	if (__builtin_expect(!ph_redo_look(epoch), 0))
		return false;
	lane_idle(tx);
	ph_redo_ticket(tx, epoch);
	commit_short(tx);
	return true;
}

/* As ph_tx_commit_step where one bitmap word changes, and nobody disturbs that. False: by the long way, which
 * finds the latch its own if it was taken here. */
static inline __attribute__((always_inline)) bool commit_one(pheap_tx *tx)
{
	const struct ph_op *op = tx->ops.ops;
	struct pheap *h = tx->h;
	uint64_t *latch = &h->words[op->head].latch, *word = &h->bits[op->word_idx], now;

	if (tx->ops.count != 1 || PH_MUTANT(PH_MUTANT_NO_COMMITTED) || PH_MUTANT(PH_MUTANT_APPLY_IDLE) ||
	    PH_MUTANT(PH_MUTANT_LOCK_EARLY) || PH_MUTANT(PH_MUTANT_LATCH_EARLY) ||
	    !ph_word_take_again(latch, tx->word))
		return false;
	now = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	if (op->set & now || op->clr & ~(now | op->set) || ph_desc_raw(h, op->head) != op->desc)
		return false;
	/* ORDER(commit-point), as above. */
	__atomic_store_n(&tx->lane->state, PHD_STATE(tx->gen, tx->mode, PHD_STEP_COMMITTED),
			 __ATOMIC_RELEASE);
	ph_order();
	__atomic_store_n(word, (now | op->set) & ~op->clr, __ATOMIC_RELEASE);
	lane_idle(tx);
	ph_word_release_lazy(latch, tx->word);
	if (op->clr)
		ph_run_freed(tx, op, op->clr);
	commit_short(tx);
	tx->ops.count = tx->ops.head_count = 0;
	return true;
}

/* Without a WAL; blocks were allocated or freed, and nothing else that needs the long way. */
static __attribute__((noinline)) int commit_ops(pheap_tx *tx)
{
	if (!commit_one(tx)) {
		int rc = ph_tx_commit_step(tx);

		if (rc) {
			ph_tx_abort_all(tx);
			return rc;
		}
		/* Whoever waited for a latch may have recovered somebody. */
		if (__builtin_expect(tx->extras != PH_LONG_OPS || tx->ops.room > TABLE_ROOM_KEPT, 0)) {
			tx_finish(tx, true);
			ph_hold_reap_due(tx->h);
			return 0;
		}
		ph_ops_clear_all(&tx->ops);
		tx->writable_by = NULL;
	}
	tx->cover.range_count = 0;
	tx->applies = tx->has_frees = false;
	tx->extras = tx->modify_long = 0;
	return 0;
}

static __attribute__((noinline)) int commit_other(pheap_tx *tx)
{
	return commit_epoch(tx) ? 0 : commit_any(tx, true);
}

/* Apart, as the other ways, so that the common one saves no register. */
static __attribute__((noinline)) int commit_wakes(pheap_tx *tx)
{
	commit_short(tx);
	return 0;
}

int pheap_commit(pheap_tx *tx)
{
	if (__builtin_expect(!tx || tx->writable_by != &ph_thread, 0))
		return commit_any(tx, true);
	if (tx->extras == PH_LONG_OPS)
		return commit_ops(tx);
	if (__builtin_expect(tx->extras, 0))
		return commit_other(tx);
	/* Nothing but undo: idle is the commit point. */
	if (PH_MUTANT(PH_MUTANT_LOCK_EARLY))
		ph_lock_release_all(tx);
	lane_idle(tx);
	if (__builtin_expect(ph_tx_has_stripes(tx) || !ph_gate_stays(tx), 0))
		return commit_wakes(tx);
	lane_next(tx);
	tx->writable_by = NULL;
	return 0;
}

int pheap_commit_async(pheap_tx *tx, uint64_t *ret_lsn)
{
	bool leased = tx && tx->magic == PH_TX_MAGIC && tx->h->leased;
	int rc = tx && tx->writable_by == &ph_thread && commit_epoch(tx) ? 0 : commit_any(tx, false);

	/* Without a WAL there is nothing to wait for. */
	if (ret_lsn)
		*ret_lsn = rc == 0 && leased ? tx->lsn : 0;
	return rc;
}

int pheap_wait(pheap *h, uint64_t lsn, int32_t timeout_ms)
{
	uint64_t timeout_ns;
	int rc;

	ph_heap_check(h, "pheap_wait");
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	if (lsn && (!h->leased || lsn > ph_wal_tail(h) + 8))
		return ph_error(h, -EINVAL, "pheap_wait: no commit of this heap returned that number");
	if (!lsn)
		return 0;
	timeout_ns = timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * 1000000u;
	rc = h->super.durability == PHEAP_SYNC >> 24 ? ph_wal_wait(h, lsn, timeout_ns)
						     : ph_checkpoint_wait(h, lsn, timeout_ns);
	ph_checkpoint_if_due(h);
	return rc == -ETIMEDOUT && timeout_ms == 0 ? -EAGAIN : rc;
}

void pheap_abort(pheap_tx *tx)
{
	struct pheap *h;

	if (!tx || end_refuse(tx, "pheap_abort"))
		return;
	h = tx->h;
	if (tx->nest) {
		ph_savepoint_rollback_top(tx);
		ph_savepoint_pop_nest(tx);
		return;
	}
	ph_tx_abort_all(tx);
	ph_hold_reap_due(h);
}

int pheap_end(pheap_tx *tx, int rc)
{
	int refused;

	if (rc == 0)
		return pheap_commit(tx);
	refused = end_refuse(tx, "pheap_end");
	if (refused)
		return refused;
	pheap_abort(tx);
	return rc;
}

int pheap_run(pheap *h, uint32_t flags, int (*fn)(pheap_tx *tx, void *arg), void *arg)
{
	pheap_tx *tx;
	bool nested;
	int rc, tries = 0;

	ph_heap_check(h, "pheap_run");
	if (!fn)
		return ph_error(h, -EINVAL, "pheap_run: fn is NULL");
	nested = pheap_current(h) != NULL;
	do {
		rc = pheap_begin(h, flags, &tx);
		if (rc)
			return rc;
		rc = fn(tx, arg);
		rc = pheap_end(tx, rc);
	} while (rc == -EDEADLK && !nested && ++tries < RUN_TRIES_MAX);
	return rc;
}

int pheap_on_end(pheap_tx *tx, void (*fn)(void *arg, int committed), void *arg)
{
	int rc = end_refuse(tx, "pheap_on_end");

	if (rc)
		return rc;
	if (tx->doom)
		return tx->doom;
	if (!fn)
		return ph_tx_fail(tx, -EINVAL, "pheap_on_end: fn is NULL");
	if (!ph_room(&tx->callbacks, &tx->callback_room, tx->callback_count + 1, sizeof(*tx->callbacks)))
		return ph_tx_fail(tx, -ENOMEM, "no memory for a callback");
	tx->extras = true;
	tx->callbacks[tx->callback_count++] =
		(struct ph_callback){.fn = fn, .arg = arg, .position = tx->savepoint_serial};
	return 0;
}
