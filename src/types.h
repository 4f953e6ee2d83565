/* SPDX-License-Identifier: MIT
 *
 * types.h: the table of types kept in the heap.
 *
 * Why in the file: a program built with another struct must be refused, and fsck and dump must know which
 * fields of a block are pointers, without the program.
 *
 * Invariant
 *   E1  A row is written once, published by the list's head, and never changed or freed.
 */
#ifndef PH_TYPES_H
#define PH_TYPES_H

#include "heap.h"

/* Compares with the file's table and adds what is missing there. 0, PHEAP_ELAYOUT, -EINVAL, errors of a
 * transaction. */
int ph_types_register(struct pheap *h, const struct pheap_type *types, uint64_t count);

#endif
