/* SPDX-License-Identifier: MIT
 *
 * savepoint.c: see savepoint.h.
 */
#include "savepoint.h"

#include <errno.h>

#include "defer.h"
#include "error.h"
#include "mutant.h"
#include "reserve.h"
#include "root.h"

int ph_savepoint_push(pheap_tx *tx, uint32_t nest)
{
	if (!ph_room(&tx->savepoints, &tx->savepoint_room, tx->savepoint_count + 1, sizeof(*tx->savepoints)))
		return ph_tx_fail(tx, -ENOMEM, "no memory for a savepoint");
	tx->extras = true;
	tx->savepoints[tx->savepoint_count++] = (struct ph_savepoint){
		.id = ++tx->savepoint_serial,
		.end = ph_log_end(&tx->log),
		.last = ph_log_last(&tx->log),
		.fresh = tx->fresh,
		.nest = nest,
	};
	ph_cover_clear(&tx->cover);
	return 0;
}

static void rollback_to(pheap_tx *tx, uint32_t idx)
{
	const struct ph_savepoint sp = tx->savepoints[idx];

	if (ph_log_end(&tx->log) > sp.end) {
		if (PH_MUTANT(PH_MUTANT_ROLLBACK_USED))
			__atomic_store_n(&tx->lane->used, PHD_USED(sp.end, sp.last), __ATOMIC_RELEASE);
		ph_log_undo(tx->h, &tx->log, sp.end, true);
		ph_log_give_up(tx->h, tx->lane, &tx->log, PHD_USED(sp.end, sp.last));
		tx->log.used = PHD_USED(sp.end, sp.last);
		ph_ops_forget(tx, sp.end);
		ph_log_trim(tx);
		ph_defer_rescan(tx);
	}
	ph_reserve_forget(tx, sp.id);
	ph_root_forget(tx, sp.id);
	for (uint32_t i = 0; i < tx->callback_count; i++)
		if (tx->callbacks[i].position >= sp.id)
			tx->callbacks[i].rolled_back = true;
	tx->savepoint_count = idx + 1;
	tx->fresh = sp.fresh;
	ph_cover_clear(&tx->cover);
	if (tx->doom && tx->doom_position >= sp.id) {
		tx->doom = 0;
		tx->writable_by = tx->read_only ? PH_TX_SEALED : tx->thread;
	}
}

static uint32_t nest_top(const pheap_tx *tx)
{
	uint32_t i = tx->savepoint_count;

	while (i-- > 0)
		if (tx->savepoints[i].nest)
			return i;
	ph_fatal("broken invariant: a nested transaction without its savepoint");
}

void ph_savepoint_rollback_top(pheap_tx *tx)
{
	rollback_to(tx, nest_top(tx));
}

void ph_savepoint_pop_nest(pheap_tx *tx)
{
	/* Coverage noted since holds for the savepoint that is now the latest as well: it was set later. */
	tx->savepoint_count = nest_top(tx);
	tx->nest--;
}

static int savepoint_enter(pheap_tx *tx, const char *call)
{
	if (tx && tx->magic == PH_TX_MAGIC && tx->thread == &ph_thread && tx->writable_by && !tx->h->forked)
		return 0;
	return ph_tx_refuse(tx, call);
}

int pheap_savepoint(pheap_tx *tx, pheap_savepoint_id *ret)
{
	int rc = savepoint_enter(tx, "pheap_savepoint");

	if (rc)
		return rc;
	if (tx->doom)
		return tx->doom;
	if (!ret)
		return ph_tx_fail(tx, -EINVAL, "pheap_savepoint: ret is NULL");
	rc = ph_savepoint_push(tx, 0);
	if (rc == 0)
		*ret = tx->savepoint_serial;
	return rc;
}

int pheap_rollback(pheap_tx *tx, pheap_savepoint_id id)
{
	int rc = savepoint_enter(tx, "pheap_rollback");

	if (rc)
		return rc;
	for (uint32_t i = tx->savepoint_count; i-- > 0;) {
		if (tx->savepoints[i].id == id && !tx->savepoints[i].nest) {
			rollback_to(tx, i);
			return 0;
		}
		if (tx->savepoints[i].nest) /* an outer level's savepoints belong to the outer level */
			break;
	}
	return ph_tx_fail(tx, -EINVAL, "pheap_rollback: no such savepoint in this transaction");
}
