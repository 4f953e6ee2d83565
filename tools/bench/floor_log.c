/* SPDX-License-Identifier: MIT
 *
 * floor_log.c: see floor_log.h.
 */
#include <string.h>

#include "floor_log.h"

struct record {
	uint64_t off, size; /* bytes; then the old bytes */
};

void *floor_modify(struct floor_log *log, void *p, size_t n)
{
	uint64_t used = log->used;
	struct record *record = (void *)(log->records + used);

	record->off = (uint64_t)((char *)p - (char *)log);
	record->size = n;
	memcpy(record + 1, p, n);
	__atomic_store_n(&log->used, used + sizeof *record + n, __ATOMIC_RELEASE);
	return p;
}

void floor_commit(struct floor_log *log)
{
	__atomic_store_n(&log->used, 0, __ATOMIC_RELEASE);
}
