/* SPDX-License-Identifier: MIT
 *
 * resources.h: `pheap info --resources`: held references and permits, and whose they are.
 *
 * Why by the tables of the file and not by the library: looking must not attach, see heap_file.h. A
 * transaction may change a list while it is read; a list that leads astray is then read again, and only one
 * that stays so is called damaged.
 *
 * Invariants
 *   R1  Time and memory are bounded by what the file takes on the disk: tables by word_walk, lists by
 *       list_walk.
 *   R2  What counts is decided as the library does: a row or a cell is void once its slot has another
 *       attachment.
 */
#ifndef PHEAP_RESOURCES_H
#define PHEAP_RESOURCES_H

#include <stdbool.h>

#include "heap_file.h"
#include "members.h"

/* False: a table is damaged, a sentence on standard error says where. */
bool resources_print(const struct heap_file *h, const struct members *m, bool json);

#endif
