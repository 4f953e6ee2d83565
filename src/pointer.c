/* SPDX-License-Identifier: MIT
 *
 * pointer.c: offsets and addresses. pheap_at is inline in the header and exported here for bindings.
 */
#include "error.h"
#include "heap.h"

extern inline const void *pheap_at(const pheap *h, pheap_off off);

bool ph_heap_has_now(const pheap *h, uint64_t off, uint64_t n)
{
	uint64_t count = __atomic_load_n(&h->head->chunk_count, __ATOMIC_ACQUIRE), end;

	if (count > h->super.chunk_max)
		return false; /* damaged after it was opened */
	end = h->data_off + count * PHD_CHUNK_SIZE;
	__atomic_store_n((uint64_t *)(uintptr_t)&h->data_end, end, __ATOMIC_RELAXED);
	return off >= h->data_off && off <= end && n <= end - off;
}

pheap_off pheap_offset(const pheap *h, const void *p)
{
	uint64_t off;

	ph_heap_check(h, "pheap_offset");
	off = (uint64_t)((uintptr_t)p - (uintptr_t)h->base);
	return p && !h->forked && ph_heap_has(h, off, 1) ? off : 0;
}
