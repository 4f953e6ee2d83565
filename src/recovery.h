/* SPDX-License-Identifier: MIT
 *
 * recovery.h: rolling lanes of the dead back or forward.
 *
 * Invariants
 *   R1  A lane is recovered only by who holds its member's slot byte (or the gate, as first opener).
 *   R2  The whole log is validated before the first byte is stored (the file is not trusted).
 *   R3  Killed anywhere, recovery starts again from the same log and ends in the same bytes.
 */
#ifndef PH_RECOVERY_H
#define PH_RECOVERY_H

#include "heap.h"

int ph_recovery_all(struct pheap *h);			/* first opener, under the gate */
int ph_recovery_member(struct pheap *h, uint32_t slot); /* caller holds the slot's byte */
/* Before the row of a member goes: whoever frees what it alone held is called. */
void ph_recovery_leaving(struct pheap *h, uint32_t slot);

#endif
