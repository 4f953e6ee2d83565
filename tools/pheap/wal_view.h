/* SPDX-License-Identifier: MIT
 *
 * wal_view.h: the log of a heap that survives power cuts, in numbers, and its records as text.
 *
 * Numbers in memory are of this life of the heap; in a heap that nobody has open, and that was closed or cut
 * off, only the checkpoint says anything.
 */
#ifndef PHEAP_WAL_VIEW_H
#define PHEAP_WAL_VIEW_H

#include "heap_file.h"

struct wal_view {
	bool exists;  /* the heap has a log */
	bool current; /* coord is of this life */
	struct phd_checkpoint checkpoint;
	int checkpoint_copy; /* -1: none is valid */
	struct phd_coord coord;
	uint64_t used; /* bytes between replay_lsn and the tail */
};

void wal_view_read(const struct heap_file *h, struct wal_view *ret);
/* "PROCESS", "EPOCH", "SYNC". */
const char *durability_text(const struct heap_file *h);
void wal_view_print(const struct heap_file *h, const struct wal_view *v);
void wal_view_json(const struct heap_file *h, const struct wal_view *v);
/* One line for `pheap top`. seconds: since `before`, which may be NULL. */
void wal_line(const struct heap_file *h, const struct phd_coord *now, const struct phd_coord *before,
	      double seconds, char *text, size_t size);

/* wal_dump.c: records from lsn on, read at region (the WAL or the ring), until there is none. */
void wal_print(const struct heap_file *h, uint64_t region, uint64_t lsn, uint64_t log_gen);

#endif
