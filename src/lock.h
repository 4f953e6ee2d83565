/* SPDX-License-Identifier: MIT
 *
 * lock.h: stripes that a transaction holds; see lock.c for the protocol.
 */
#ifndef PH_LOCK_H
#define PH_LOCK_H

#include "tx.h"

int ph_lock_stripe(pheap_tx *tx, uint32_t stripe);
int ph_lock_key(pheap_tx *tx, uint64_t key); /* the stripe of a key */
int ph_lock_stripe_shared(pheap_tx *tx, uint32_t stripe);
void ph_lock_release_all(pheap_tx *tx); /* after idle; also when nothing is held */

#endif
