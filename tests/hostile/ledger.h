/* SPDX-License-Identifier: MIT
 *
 * ledger.h: a heap whose contents are known: transactions that follow from their number, and what the heap holds after them.
 *
 * Why contents and not a sum over bytes: after a call that failed, blocks lie elsewhere.
 */
#ifndef HOSTILE_LEDGER_H
#define HOSTILE_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "pheap.h"

#define LEDGER_SLOTS 10u
#define LEDGER_ROOTS 8u

/* What a heap holds. Slots: a block of so many bytes, filled by its stamp; 0: none. */
struct ledger {
	uint64_t number; /* of the last transaction */
	uint32_t sizes[LEDGER_SLOTS];
	uint64_t stamps[LEDGER_SLOTS];
	uint32_t root_count;
};

/* Transaction `number`: *to becomes what the heap holds if it is committed; it is left open. Else an error, and none is open. */
int ledger_change(pheap *h, uint64_t number, struct ledger *to, pheap_tx **ret);
/* What the heap holds. 0, an error, or 1: *why it can not hold that. */
int ledger_read(pheap *h, struct ledger *ret, const char **why);
/* Fills a journal: commits that change nothing of the above, beside an open transaction of `other` that has changed much. Ends
 * when one fails, or done() says so. */
void ledger_flood(pheap *h, pheap *other, bool (*done)(void));
bool ledger_same(const struct ledger *a, const struct ledger *b);

#endif
