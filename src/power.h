/* SPDX-License-Identifier: MIT
 *
 * power.h: what the disk has after the machine went down becomes a heap again.
 *
 * What: FORMAT.md, section 8: images back to the last epoch, commits forward. In proportion to the log, not to the heap.
 *
 * Invariants
 *   R1  Nothing in WAL, checkpoint sector or state is written before all that was recovered is durable; so it can be cut
 *       anywhere, and done again.
 *   R2  Nothing in the file is trusted: a log that cannot be is PHEAP_ECORRUPT, and nothing has been stored.
 */
#ifndef PH_POWER_H
#define PH_POWER_H

#include "heap.h"

/* By the first opener, alone, under the gate; the heap is mapped. Then its checkpoint sector says that nothing is left. */
int ph_power_recover(struct pheap *h);

#endif
