/* SPDX-License-Identifier: MIT
 *
 * keeper.h: the thread that makes checkpoints in time, for heaps of durability EPOCH.
 *
 * What: commits are durable with the next checkpoint, so somebody has to make one when nothing more is committed: each process
 * that has such a heap open has a thread for that. Whoever comes first makes it; the others see that it was made.
 * Why a thread: what was committed last would otherwise wait for the next transaction of anybody, which may never come.
 *
 * Invariant
 *   K1  A commit is part of a checkpoint that begins at most half of epoch_ms after it, and a quarter late.
 */
#ifndef PH_KEEPER_H
#define PH_KEEPER_H

#include "heap.h"

/* Harnesses that count every store turn it off, before any heap is open. */
extern bool ph_keeper_off;

int ph_keeper_start(struct pheap *h); /* 0, -EAGAIN or -ENOMEM with a sentence */
void ph_keeper_stop(struct pheap *h);

#endif
