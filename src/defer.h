/* SPDX-License-Identifier: MIT
 *
 * defer.h: stores that happen at commit.
 *
 * What: DEFER and PUBLISH records; applied after the commit point, PUBLISH last.
 * Why they need care: the log applies them after all stores in place. A later store in place to the same
 * bytes must win, so the older deferred store is then done at once and its record dropped.
 *
 * Invariants
 *   F1  No live deferred record overlaps a range that was opened for stores in place after it.
 *   F2  No live deferred record points into a block that this transaction frees: its space may have a new
 *       owner when recovery applies again.
 *   F3  defer_lines counts, for each 64-byte line, the live deferred records that touch it.
 */
#ifndef PH_DEFER_H
#define PH_DEFER_H

#include "tx.h"

/* Makes pending deferred bytes in [off, off + n) real, before the caller stores there in place. */
int ph_defer_settle(pheap_tx *tx, uint64_t off, size_t n);
void ph_defer_drop_freed(pheap_tx *tx);
void ph_defer_clear(pheap_tx *tx);
void ph_defer_rescan(pheap_tx *tx); /* after rollback: counts and flags from the log */
/* As pheap_defer_u64, for the heap's own words; n = 8. */
int ph_defer_publish(pheap_tx *tx, uint64_t off, uint64_t value);

#endif
