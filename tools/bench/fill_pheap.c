/* SPDX-License-Identifier: MIT
 *
 * fill_pheap.c: the bench space in pheap: blocks of pheap_alloc, without a type.
 */
#include "bench.h"
#include "fill.h"
#include "heap_use.h"

static void *fill_open(const char *path, uint64_t size, bool grows)
{
	struct pheap_options options = PHEAP_OPTIONS_INIT;
	pheap *heap;
	int rc;

	options.durability = PHEAP_PROCESS;
	options.max_size = size;
	if (!grows)
		options.initial_size = size;
	rc = pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &options, &heap);
	if (rc)
		heap_fail(NULL, "pheap_open", rc);
	return heap;
}

static void fill_close(void *self)
{
	int rc = pheap_close(self);

	if (rc)
		heap_fail(NULL, "pheap_close", rc);
}

static bool fill_alloc(void *self, const uint32_t *sizes, uint64_t *ret_blocks, unsigned count)
{
	pheap *heap = self;
	pheap_tx *tx = heap_begin(heap, 0);
	int rc;

	for (unsigned i = 0; i < count; i++) {
		char *block = pheap_alloc(tx, sizes[i], 0);

		if (!block)
			break;
		memset(block, FILL_BYTE, sizes[i]);
		ret_blocks[i] = pheap_offset(heap, block);
	}
	rc = pheap_commit(tx);
	if (rc && rc != -ENOSPC)
		heap_fail(heap, "pheap_commit", rc);
	return rc == 0;
}

static void fill_release(void *self, const uint64_t *blocks, unsigned count)
{
	pheap *heap = self;
	pheap_tx *tx = heap_begin(heap, 0);
	int rc;

	for (unsigned i = 0; i < count; i++)
		pheap_free(tx, pheap_at(heap, blocks[i]));
	rc = pheap_commit(tx);
	if (rc)
		heap_fail(heap, "pheap_commit", rc);
}

static void fill_trim(void *self)
{
	int rc = pheap_trim(self);

	if (rc)
		heap_fail(self, "pheap_trim", rc);
}

const struct fill_system fill_pheap = {
	.name = "pheap",
	.open = fill_open,
	.close = fill_close,
	.alloc = fill_alloc,
	.release = fill_release,
	.trim = fill_trim,
	.full = true,
};
