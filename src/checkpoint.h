/* SPDX-License-Identifier: MIT
 *
 * checkpoint.h: a new epoch, everything of the old one on the disk, and the ring below it free again.
 *
 * What: FORMAT.md, section 8. Nobody waits but who appends or leases, for as long as one flush takes.
 * Why not wait until no transaction is active: one that runs for minutes, or a stopped process, would stop all others. Their
 * undo records are copied into the log instead.
 *
 *   closed --ph_checkpoint_first--> in use --ph_checkpoint_close--> closed
 *
 * Invariants
 *   K1  The word `checkpoint` saves work and gives no right: who does not get on, killed or stopped, loses it, and the next one
 *       goes on from the step at hand. So all steps may be done by several at once, and again.
 *   K2  The words that say from where the log is needed are raised, never stored: who was stopped in a checkpoint and goes on
 *       behind later ones changes nothing. (A sector that it writes would put an old one back; so the sector is for those who
 *       are alone.)
 */
#ifndef PH_CHECKPOINT_H
#define PH_CHECKPOINT_H

#include "heap.h"

/* One checkpoint, begun after the call. 0, -ETIMEDOUT (another one does not get on), PHEAP_EPOISONED, -ENOMEM. */
int ph_checkpoint(struct pheap *h);
/* One, unless somebody makes one. */
void ph_checkpoint_soon(struct pheap *h);
/* If half of the ring is in use, or with SYNC the last one is long ago, and nobody makes one. By the keeper, if there is one. */
void ph_checkpoint_if_due(struct pheap *h);
/* Half of the ring is in use. */
bool ph_checkpoint_wanted(const struct pheap *h);
/* Of the heap: EPOCH: what a power cut may take; SYNC: the time between checkpoints. */
uint64_t ph_checkpoint_epoch_ns(const struct pheap *h);
/* The keeper has something to do. */
void ph_checkpoint_ring(struct pheap *h);
/* EPOCH: until a checkpoint has made durable what was committed before lsn. As ph_wal_wait. */
int ph_checkpoint_wait(struct pheap *h, uint64_t lsn, uint64_t timeout_ns);
/* Until a record of so many bytes fits. -ETIMEDOUT with a sentence. */
int ph_checkpoint_room(struct pheap *h, size_t size);

/* The words of the ring, by the first opener under the gate. clean: nobody has left anything; else of this boot, and looked at. */
int ph_checkpoint_first(struct pheap *h, bool clean);
/* By the last closer under the gate, all lanes idle: nothing in the log is needed any more. */
int ph_checkpoint_close(struct pheap *h);

#endif
