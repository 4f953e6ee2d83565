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

void floor_defer(struct floor_log *log, void *p, const void *src, size_t n)
{
	struct record *record = (void *)(log->records + log->deferred);

	record->off = (uint64_t)((char *)p - (char *)log);
	record->size = n;
	memcpy(record + 1, src, n);
	log->deferred += sizeof *record + n;
}

void floor_defer_commit(struct floor_log *log)
{
	__atomic_store_n(&log->ready, log->deferred, __ATOMIC_RELEASE);
	for (uint64_t at = 0; at < log->deferred;) {
		const struct record *record = (const void *)(log->records + at);

		memcpy((char *)log + record->off, record + 1, record->size);
		at += sizeof *record + record->size;
	}
	log->deferred = 0;
	__atomic_store_n(&log->ready, 0, __ATOMIC_RELEASE);
}
