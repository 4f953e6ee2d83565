/* SPDX-License-Identifier: MIT
 *
 * wal.h: the WAL as power recovery reads it: positions, records, entries; section 8 of FORMAT.md.
 *
 * Why entries are read again at each use, and not kept: a log may be larger than memory.
 *
 * Invariants
 *   W1  The WAL is not written while it is read: what was valid stays so.
 *   W2  A record that wal_record returned lies within one turn of the WAL from the position where replay
 *       begins, and its bytes have the checksum that it names.
 *   W3  An entry that wal_entry returned lies within its record.
 */
#ifndef FSCK_WAL_H
#define FSCK_WAL_H

#include "fsck.h"

struct wal_record {
	uint64_t lsn;
	uint32_t size, kind;
};

/* n bytes from position lsn on; at most the WAL's size. */
void wal_read(struct fsck *f, uint64_t lsn, void *buf, size_t n);
/* The record that begins at lsn, if there is a valid one of this log_gen that ends at or before end. */
bool wal_record(struct fsck *f, uint64_t lsn, uint64_t end, uint64_t log_gen, struct wal_record *ret);
/* The entry at *pos, which begins as 0; moves it. False: no more, or *ret_bad: one that does not fit. */
bool wal_entry(struct fsck *f, const struct wal_record *r, uint32_t *pos, struct store *ret, bool *ret_bad);
/* The end of the highest record of any generation that lies anywhere in the WAL, and the highest
 * generation. */
void wal_survey(struct fsck *f, uint64_t *ret_end, uint64_t *ret_log_gen);

#endif
