/* SPDX-License-Identifier: MIT
 *
 * member.c: see member.h.
 */
#include "member.h"

#include <errno.h>
#include <stdio.h>

#include "error.h"
#include "os.h"
#include "recovery.h"
#include "tx.h"

int ph_member_alive(struct pheap *h, uint32_t slot)
{
	if (slot == h->slot && !h->passive)
		return 1;
	/* Its byte is locked by who recovers it. */
	if (__atomic_load_n(&h->members[slot].flags, __ATOMIC_ACQUIRE) & PHD_MEMBER_DEAD)
		return 0;
	return ph_os->lock_test(h->fd, PHD_LOCK_SLOT + slot);
}

int ph_member_of_lane(const struct pheap *h, uint32_t lane_idx)
{
	uint64_t owner = __atomic_load_n(&h->lanes[lane_idx].owner, __ATOMIC_ACQUIRE);
	uint64_t slot = owner & 0xffff;

	return slot && slot <= h->super.member_count ? (int)slot - 1 : -1;
}

int ph_member_check(struct pheap *h, uint32_t slot)
{
	int rc;

	if (slot >= h->super.member_count || h->passive ||
	    !__atomic_load_n(&h->members[slot].attachment, __ATOMIC_ACQUIRE))
		return 0;
	rc = ph_member_alive(h, slot);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	/* Asked, never tried: trying would make two askers look alive to each other. Now that it is dead,
	 * the byte decides which process recovers it, the mutex which thread (an OFD lock does not exclude
	 * threads of one process). */
	pthread_mutex_lock(&h->recovery_lock);
	rc = 0;
	if (__atomic_load_n(&h->members[slot].attachment, __ATOMIC_ACQUIRE)) {
		rc = ph_os->lock_set(h->fd, PHD_LOCK_SLOT + slot, true, false);
		if (rc == 0 && !__atomic_load_n(&h->members[slot].attachment, __ATOMIC_ACQUIRE)) {
			ph_os->lock_clear(h->fd, PHD_LOCK_SLOT + slot); /* somebody else has just done it */
		} else if (rc == 0) {
			__atomic_fetch_or(&h->members[slot].flags, PHD_MEMBER_DEAD, __ATOMIC_ACQ_REL);
			rc = ph_recovery_member(h, slot);
			ph_os->lock_clear(h->fd, PHD_LOCK_SLOT + slot);
			rc = rc ? rc : 1;
			__atomic_store_n(&h->reap_due, true, __ATOMIC_RELEASE);
			if (ph_thread.heap_id == h->id)
				ph_thread.tx->extras = true; /* ends by the long way, which looks */
		} else if (rc == -EAGAIN) {
			rc = 0; /* somebody else recovers it, or the slot has a new owner */
		}
	}
	pthread_mutex_unlock(&h->recovery_lock);
	return rc;
}

int ph_member_check_lane(struct pheap *h, uint32_t lane_idx)
{
	int slot = lane_idx < h->super.lane_count ? ph_member_of_lane(h, lane_idx) : -1;

	return slot < 0 ? 0 : ph_member_check(h, (uint32_t)slot);
}

void ph_member_describe(const struct pheap *h, int slot, char *ret, size_t n)
{
	if (slot < 0 || (uint32_t)slot >= h->super.member_count)
		snprintf(ret, n, "an unknown process");
	else
		snprintf(ret, n, "process %u (%.15s), which %s", h->members[slot].pid,
			 h->members[slot].command,
			 h->members[slot].flags & PHD_MEMBER_DEAD ? "died; who recovers it does not get on"
								  : "is alive");
}

uint64_t pheap_member(const pheap *h)
{
	ph_heap_check(h, "pheap_member");
	return h->member_id;
}

int pheap_member_alive(const pheap *h, uint64_t member)
{
	ph_heap_check(h, "pheap_member_alive");
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	if (member == 0)
		return 0;
	for (uint32_t i = 0; i < h->super.member_count; i++)
		if (__atomic_load_n(&h->members[i].attachment, __ATOMIC_ACQUIRE) == member) {
			int rc = ph_member_alive((pheap *)(uintptr_t)h, i);

			/* The slot may have gone to another process between the two looks. */
			if (rc == 1 && __atomic_load_n(&h->members[i].attachment, __ATOMIC_ACQUIRE) != member)
				return 0;
			return rc;
		}
	return 0;
}

int ph_member_check_all(struct pheap *h)
{
	int count = 0, rc = 0;

	for (uint32_t i = 0; i < h->super.member_count && rc >= 0; i++) {
		rc = ph_member_check(h, i);
		count += rc == 1;
	}
	return rc < 0 ? rc : count;
}
