/* SPDX-License-Identifier: MIT
 *
 * keeper.h: a thread that makes checkpoints in time.
 *
 * What: EPOCH: commits are durable with the next checkpoint, so somebody has to make one when nothing more is committed: each
 * process that has such a heap open has a thread for that. Whoever comes first makes it; the others see that it was made.
 * SYNC: with PHEAP_KEEPER, so that no commit has to.
 * Why a thread: what was committed last would otherwise wait for the next transaction of anybody, which may never come.
 *
 * Invariants
 *   K1  EPOCH: a commit is in a checkpoint that is over within epoch_ms of it, if checkpoints take at most half as long again as
 *       the one before.
 *   K2  The bell: who sets it finds the keeper awake, or wakes it; it is cleared before the keeper looks.
 */
#ifndef PH_KEEPER_H
#define PH_KEEPER_H

#include "heap.h"

/* Harnesses that count every store turn it off, before any heap is open. */
extern bool ph_keeper_off;

/* If the heap's durability needs one, or the flags of pheap_open ask for one. 0, -EAGAIN or -ENOMEM with a sentence. */
int ph_keeper_start(struct pheap *h, uint32_t flags);
void ph_keeper_stop(struct pheap *h);

#endif
