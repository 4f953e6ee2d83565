/* SPDX-License-Identifier: MIT
 *
 * grow.h: more chunks for a heap whose file may still grow.
 *
 * Invariants
 *   G1  A chunk below chunk_count has its space on the file system: descriptor, bitmap, words, and, unless its descriptor says
 *       HOLE, data (P6).
 *   G2  chunk_count never shrinks; nothing is undone when growth fails half-way.
 */
#ifndef PH_GROW_H
#define PH_GROW_H

#include "heap.h"

/* At least need_count more chunks. The caller holds the growth word. 0, or -ENOSPC and others with a
 * sentence. */
int ph_grow_locked(struct pheap *h, uint64_t need_count);
/* Space for the data of these chunks, which the caller owns and some of which have none. 0, or -ENOSPC and others with a
 * sentence. */
int ph_grow_space(struct pheap *h, uint64_t chunk, uint64_t count);

#endif
