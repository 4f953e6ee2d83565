/* SPDX-License-Identifier: MIT
 *
 * heap_use.h: pheap's calls with their results checked, for the benches: a failure ends the run with its sentence.
 */
#ifndef BENCH_HEAP_USE_H
#define BENCH_HEAP_USE_H

#include "bench.h"
#include "pheap.h"

static _Noreturn inline void heap_fail(const pheap *heap, const char *call, int rc)
{
	bench_die("%s: %s (%s)", call, pheap_strerror(rc), pheap_error_detail(heap));
}

static inline pheap_tx *heap_begin(pheap *heap, uint32_t flags)
{
	pheap_tx *tx;
	int rc = pheap_begin(heap, flags, &tx);

	if (rc)
		heap_fail(heap, "pheap_begin", rc);
	return tx;
}

static inline void heap_commit(pheap *heap, pheap_tx *tx)
{
	int rc = pheap_commit(tx);

	if (rc)
		heap_fail(heap, "pheap_commit", rc);
}

#endif
