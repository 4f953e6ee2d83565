/* SPDX-License-Identifier: MIT
 *
 * tx_info.c: what a program may ask of its transactions.
 */
#include <errno.h>

#include "error.h"
#include "thread.h"
#include "tx.h"

pheap_tx *pheap_current(const pheap *h)
{
	pheap_tx *tx;

	ph_heap_check(h, "pheap_current");
	if (h->forked)
		return NULL;
	tx = ph_thread_tx_find(h);
	return tx && tx->writable_by ? tx : NULL;
}

pheap *pheap_heap(const pheap_tx *tx)
{
	if (!tx)
		return NULL;
	if (tx->magic != PH_TX_MAGIC)
		ph_fatal("pheap_heap: the heap of this transaction is closed");
	return tx->h;
}

int pheap_error(const pheap_tx *tx)
{
	if (!tx)
		return -EINVAL;
	if (tx->magic != PH_TX_MAGIC)
		ph_fatal("pheap_error: the heap of this transaction is closed");
	if (!tx->writable_by)
		return PHEAP_EENDED;
	return tx->doom;
}

bool ph_tx_any_open(pheap *h)
{
	pheap_tx *tx;
	bool any = false;

	pthread_mutex_lock(&h->lock);
	cds_list_for_each_entry(tx, &h->txs, heap_node)
		any |= __atomic_load_n(&tx->writable_by, __ATOMIC_RELAXED) != NULL;
	pthread_mutex_unlock(&h->lock);
	return any;
}
