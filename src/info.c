/* SPDX-License-Identifier: MIT
 *
 * info.c: what can be said about an open heap without looking at its blocks.
 */
#include <errno.h>
#include <string.h>

#include "error.h"
#include "heap.h"
#include "open.h"
#include "os.h"

static int info_fill(const pheap *h, struct pheap_info *ret)
{
	struct ph_file_info file;
	int rc = ph_os->file_info(h->fd, &file);

	if (rc)
		return ph_error(h, rc, "asking about the heap file failed: %s", pheap_strerror(rc));
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->uuid, h->super.uuid, sizeof(ret->uuid));
	ret->base = h->base;
	ret->file_size = file.size;
	ret->max_size = h->super.size_max;
	ret->chunk_count = __atomic_load_n(&h->head->chunk_count, __ATOMIC_ACQUIRE);
	ret->chunk_size = PHD_CHUNK_SIZE;
	ret->durability = h->super.durability << 24; /* as PHEAP_PROCESS */
	ret->format_version = h->super.version;
	memcpy(ret->layout, h->super.layout, sizeof(ret->layout));
	ret->member = h->member_id;
	ret->recovered_back = h->recovered_back;
	ret->recovered_forward = h->recovered_forward;
	ret->recovery_ns = h->recovery_ns;
	ret->open_ns = h->open_ns;
	ret->member_max = h->super.member_count;
	ret->lane_max = h->super.lane_count;
	ret->read_only = h->read_only;
	ret->was_clean = h->was_clean;
	return 0;
}

int pheap_info(const pheap *h, struct pheap_info *ret, size_t ret_size)
{
	struct pheap_info info;
	int rc;

	ph_heap_check(h, "pheap_info");
	if (!ret || ret_size < sizeof(ret->size))
		return ph_error(h, -EINVAL, "pheap_info: ret_size is %zu; give sizeof(struct pheap_info)",
				ret_size);
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	rc = info_fill(h, &info);
	if (rc)
		return rc;
	info.size = ret_size < sizeof(info) ? ret_size : sizeof(info);
	memcpy(ret, &info, (size_t)info.size);
	return 0;
}

static bool holds(const pheap *h, const void *p)
{
	return (uintptr_t)p - (uintptr_t)h->base < h->super.size_max;
}

pheap *pheap_of(const void *p)
{
	return p ? ph_open_find(holds, p) : NULL;
}
