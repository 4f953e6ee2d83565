/* SPDX-License-Identifier: MIT
 *
 * own.c: see own.h.
 */
#include "own.h"

#include "error.h"

/* The mode that runs now, so that a small call does not make everybody change it twice. */
static uint32_t mode_flags(const struct pheap *h)
{
	return __atomic_load_n(&h->coord->gate, __ATOMIC_RELAXED) == PHD_MODE_CONCURRENT ? PHEAP_CONCURRENT
											 : 0;
}

int ph_own_run(struct pheap *h, const char *call, uint32_t flags, int (*fn)(pheap_tx *tx, void *arg),
	       void *arg)
{
	pheap_tx *tx = pheap_current(h);
	int rc;

	if (!tx)
		return pheap_run(h, mode_flags(h) | flags, fn, arg);
	rc = ph_tx_enter(tx, call);
	return rc ? rc : ph_fail_if(tx, fn(tx, arg));
}
