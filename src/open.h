/* SPDX-License-Identifier: MIT
 *
 * open.h: opening and closing heaps, and the table of those that this process has open.
 *
 * Invariants
 *   O1  One handle per file and process: a second open of the same (device, inode) returns the first handle,
 *       before any lock is taken on the second descriptor.
 *   O2  The table names only heaps that are attached (or passive) and mapped. After fork the child's table is
 *   empty.
 *   O3  An open that fails leaves no descriptor, mapping, lock or member row, and the heap as clean as it
 *   was.
 */
#ifndef PH_OPEN_H
#define PH_OPEN_H

#include "heap.h"

/* Calls fn for each open heap until it returns true, with the table locked; the handle for which it did,
 * or NULL. */
pheap *ph_open_find(bool (*fn)(const pheap *h, const void *arg), const void *arg);

#endif
