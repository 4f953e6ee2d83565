/* SPDX-License-Identifier: MIT
 *
 * own.h: changes that a call makes by itself, in the caller's transaction if there is one, else in one of its own.
 */
#ifndef PH_OWN_H
#define PH_OWN_H

#include "tx.h"

/* fn returns 0 or a code with a sentence; in the caller's transaction a code dooms it. */
/* flags: 0 or PHEAP_NOWAIT, for a transaction of its own. */
int ph_own_run(struct pheap *h, const char *call, uint32_t flags, int (*fn)(pheap_tx *tx, void *arg),
	       void *arg);

#endif
