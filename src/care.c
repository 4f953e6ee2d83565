/* SPDX-License-Identifier: MIT
 *
 * care.c: what a user may ask to be done now, though it would be done in time.
 */
#include "checkpoint.h"
#include "error.h"
#include "hold.h"
#include "member.h"
#include "wal.h"

int pheap_recover(pheap *h, uint32_t *ret_members)
{
	int count, rc;

	ph_heap_check(h, "pheap_recover");
	if (ret_members)
		*ret_members = 0;
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	count = ph_member_check_all(h);
	if (count < 0)
		return count;
	if (ret_members)
		*ret_members = (uint32_t)count;
	/* Inside a transaction it is left to the end of that. */
	rc = h->read_only || pheap_current(h) ? 0 : ph_hold_reap(h, 0);
	return rc;
}

int pheap_checkpoint(pheap *h)
{
	int rc;

	ph_heap_check(h, "pheap_checkpoint");
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	if (h->read_only)
		return ph_error(h, -EROFS, "pheap_checkpoint: the heap is open for reading only");
	if (!h->leased)
		return 0;
	rc = ph_wal_poisoned(h);
	return rc ? rc : ph_checkpoint(h);
}
