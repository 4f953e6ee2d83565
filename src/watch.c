/* SPDX-License-Identifier: MIT
 *
 * watch.c: sleeping until a word of the heap changes; a futex between processes, woken after commit.
 */
#include <errno.h>

#include "error.h"
#include "hold.h"
#include "member.h"
#include "os.h"
#include "tx.h"

#define WATCH_NAP_NS 100000000ull /* a change without pheap_notify is seen this late at most */

static int word_check(const pheap *h, const uint64_t *word, const char *call)
{
	uint64_t off = (uint64_t)((uintptr_t)word - (uintptr_t)h->base);

	if (!word || !ph_heap_has(h, off, 8))
		return ph_error(h, PHEAP_EFOREIGN, "%s: %p is not in this heap", call, (const void *)word);
	if (off % 8)
		return ph_error(h, -EINVAL, "%s: %p is not a multiple of 8", call, (const void *)word);
	return 0;
}

/* One sleeper of all asks, each nap's time: asking costs a call for each member. Clocks of containers may differ. */
static bool ask_turn(struct pheap *h)
{
	uint64_t *asked_ns = &h->coord->watch_asked_ns, seen = __atomic_load_n(asked_ns, __ATOMIC_RELAXED);
	uint64_t now_ns = ph_os->clock_ns();

	return now_ns - seen >= WATCH_NAP_NS &&
	       __atomic_compare_exchange_n(asked_ns, &seen, now_ns, false, __ATOMIC_RELAXED,
					   __ATOMIC_RELAXED);
}

int pheap_watch(pheap *h, const uint64_t *word, uint64_t seen, int32_t timeout_ms)
{
	uint64_t start_ns, left_ns = WATCH_NAP_NS,
			   limit_ns = timeout_ms < 0 ? 0 : (uint64_t)timeout_ms * 1000000u;
	int rc;

	ph_heap_check(h, "pheap_watch");
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	rc = word_check(h, word, "pheap_watch");
	if (rc)
		return rc;
	start_ns = ph_os->clock_ns();
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == seen) {
		ph_hold_reap_due(h);
		if (timeout_ms >= 0) {
			uint64_t passed_ns = ph_os->clock_ns() - start_ns;

			if (passed_ns >= limit_ns)
				return -ETIMEDOUT;
			left_ns = limit_ns - passed_ns < WATCH_NAP_NS ? limit_ns - passed_ns : WATCH_NAP_NS;
		}
		/* Nobody woke us: perhaps because who would have is dead, between its commit and the wake-up, or even the
		 * store. */
		(void)ph_os->futex_wait((const uint32_t *)(const void *)word, (uint32_t)seen, left_ns);
		if (!h->passive && ask_turn(h))
			(void)ph_member_check_all(h);
	}
	return 0;
}

int pheap_notify(pheap_tx *tx, const uint64_t *word)
{
	int rc = ph_tx_enter(tx, "pheap_notify");

	if (rc)
		return rc;
	rc = word_check(tx->h, word, "pheap_notify");
	if (rc == 0 &&
	    !ph_room(&tx->notified, &tx->notified_room, tx->notified_count + 1, sizeof(*tx->notified)))
		rc = -ENOMEM;
	if (rc == 0) {
		tx->extras = true;
		tx->notified[tx->notified_count++] = word;
	}
	return ph_fail_if(tx, rc);
}
