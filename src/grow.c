/* SPDX-License-Identifier: MIT
 *
 * grow.c: see grow.h. Every member mapped max_size at open, so growth is only space in the file and one
 * number.
 *
 * Why more than was asked for: each growth costs a system call and a journal entry of the file system, and
 * neighbouring chunks that come together stay together on the disk.
 */
#include "grow.h"

#include <errno.h>

#include "error.h"
#include "lease.h"
#include "mutant.h"
#include "os.h"
#include "super.h"

#define GROW_COUNT_MIN 256u /* chunks: 1 MiB */

static bool space_is_missing(int rc)
{
	return rc == -ENOSPC || rc == -EDQUOT || rc == -EFBIG;
}

static int grow_error(const struct pheap *h, int rc, uint64_t need_count)
{
	unsigned long long need = need_count * PHD_CHUNK_SIZE;

	if (rc == -ENOSPC)
		return ph_error(h, rc, "the file system is full: the heap needs %llu bytes more", need);
	if (rc == -EDQUOT)
		return ph_error(h, -ENOSPC, "the disk quota is used up: the heap needs %llu bytes more",
				need);
	if (rc == -EFBIG)
		return ph_error(
			h, -ENOSPC,
			"the heap needs %llu bytes more, but the process (RLIMIT_FSIZE) or the file system "
			"limits the size "
			"of a file",
			need);
	return ph_error(h, rc, "growing the heap file failed: %s", pheap_strerror(rc));
}

int ph_grow_space(struct pheap *h, uint64_t chunk, uint64_t count)
{
	int rc = ph_heap_fd_check(h);

	if (rc)
		return rc;
	/* ORDER(hole-fill): the space before the first store there. Crash between: it is there, the chunk still says HOLE, and who
	 * takes it next sets it aside once more. Pairs with chunk.c:row_take. */
	rc = PH_MUTANT(PH_MUTANT_FILL_NONE)
		     ? 0
		     : ph_os->file_allocate(h->fd, h->data_off + (chunk << PHD_CHUNK_SHIFT),
					    count << PHD_CHUNK_SHIFT);
	return rc ? grow_error(h, rc, count) : 0;
}

int ph_grow_locked(struct pheap *h, uint64_t need_count)
{
	uint64_t count = __atomic_load_n(&h->head->chunk_count, __ATOMIC_ACQUIRE);
	uint64_t room = h->super.chunk_max - count;
	uint64_t step = count / 32 > GROW_COUNT_MIN ? count / 32 : GROW_COUNT_MIN;
	int rc;

	if (count > h->super.chunk_max)
		return ph_error(h, PHEAP_ECORRUPT,
				"heap head: chunk_count is %llu, above the heap's limit of %llu",
				(unsigned long long)count, (unsigned long long)h->super.chunk_max);
	if (need_count > room)
		return ph_error(
			h, -ENOSPC,
			"max_size reached: %llu bytes more do not fit into %llu; create the heap with a "
			"larger max_size",
			(unsigned long long)(need_count * PHD_CHUNK_SIZE),
			(unsigned long long)h->super.size_max);
	rc = ph_heap_fd_check(h);
	if (rc)
		return rc;
	if (step < need_count)
		step = need_count;
	if (step > room)
		step = room;
	if (PH_MUTANT(PH_MUTANT_COUNT_EARLY))
		__atomic_store_n(&h->head->chunk_count, count + step, __ATOMIC_RELEASE);
	rc = ph_super_allocate(h->fd, &h->super, count, count + step);
	if (space_is_missing(rc) && step > need_count) {
		step = need_count;
		rc = ph_super_allocate(h->fd, &h->super, count, count + step);
	}
	if (rc)
		return grow_error(h, rc, need_count);
	for (uint64_t chunk = count; chunk < count + step; chunk++)
		if (__atomic_load_n(&h->desc[chunk], __ATOMIC_RELAXED) != 0)
			return ph_error(
				h, PHEAP_ECORRUPT,
				"chunk %llu is beyond the end and has a descriptor; run pheap-fsck on the file",
				(unsigned long long)chunk);
	if (h->leased) {
		rc = ph_lease_grow(h, count + step);
		if (rc)
			return rc;
	}
	/* ORDER(grow-count): the file system has set the space aside before chunk_count covers it, so no
	 * store into a counted chunk can meet a hole of a full disk. Crash between: the space is there and
	 * the next growth finds it so. Pairs with alloc.h:ph_chunk_count. */
	__atomic_store_n(&h->head->chunk_count, count + step, __ATOMIC_RELEASE);
	return 0;
}
