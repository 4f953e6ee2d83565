/* SPDX-License-Identifier: MIT
 *
 * permit.c: counting semaphores whose permits belong to members.
 *
 * What: a total, and for each member slot a cell {attachment, balance}: permits taken, less permits lent. Free is the
 * total less the balances of those who are attached; nothing else is stored.
 * Why no counter of free ones: a counter has to be corrected after a death, and SEM_UNDO shows how that ends: what was
 * added can not be taken back when others have used it, so the kernel waits or clamps. A cell whose attachment is gone
 * is void, which gives back exactly what that member had, whatever the others did since.
 *
 * Invariants
 *   M1  A cell is changed by its member only, under the stripe of the semaphore or alone in the heap.
 *   M2  `change` is raised by every transaction that gives permits; waiters sleep on it, and look at the holders when
 *       nothing comes.
 */
#include <errno.h>

#include "error.h"
#include "hold.h"
#include "lock.h"
#include "member.h"
#include "mutant.h"
#include "os.h"
#include "own.h"
#include "tx.h"

#define NAP_WATCHER_NS 1000000ull
#define NAP_NS 16000000ull
#define NAPS_BLIND \
	6u /* who does not watch asks for the holders each so many naps: the watcher may be stopped */
#define TOTAL_MAX (1ll << 40)
#define WAKE_ALL 0x7fffffff

struct permit_call {
	uint64_t off;
	int64_t change;	   /* of this member's balance */
	bool takes, gives; /* neither: it lends */
	const char *name;
};

static struct phd_permits *permits_at(const struct pheap *h, uint64_t off)
{
	return (struct phd_permits *)(void *)(h->map + off);
}

static size_t permits_size(const struct pheap *h)
{
	return sizeof(struct phd_permits) + h->super.member_count * sizeof(struct phd_permit_cell);
}

/* The semaphore's offset, or 0 with a sentence. */
static uint64_t permits_find(const pheap *h, const pheap_tx *tx, const void *p, const char *call)
{
	uint64_t off = (uint64_t)((uintptr_t)p - (uintptr_t)h->base);
	struct ph_block b;
	const char *why;

	if (p && ph_heap_has(h, off, permits_size(h)) && ph_block_find(h, tx, off, &b, &why) == 0 &&
	    PHD_DESC_TYPE(b.desc) == PHD_TYPE_PERMITS && b.size >= permits_size(h) &&
	    permits_at(h, off)->total <= (uint64_t)TOTAL_MAX)
		return off;
	(void)ph_error(h, -EINVAL, "%s: %p is no semaphore of this heap (pheap_permits_new makes one)", call,
		       p);
	return 0;
}

/* What cannot be in a whole file is void: sums stay far from overflow. */
static bool cell_counts(const struct pheap *h, const struct phd_permit_cell *cell, uint32_t slot)
{
	int64_t balance = __atomic_load_n(&cell->balance, __ATOMIC_RELAXED);

	return cell->attachment != 0 && balance >= -TOTAL_MAX && balance <= TOTAL_MAX &&
	       (PH_MUTANT(PH_MUTANT_PERMIT_VOID) ||
		__atomic_load_n(&h->members[slot].attachment, __ATOMIC_ACQUIRE) == cell->attachment);
}

static int64_t available(const struct pheap *h, uint64_t off)
{
	const struct phd_permits *p = permits_at(h, off);
	int64_t n = (int64_t)p->total;

	for (uint32_t i = 0; i < h->super.member_count; i++)
		if (cell_counts(h, &p->cells[i], i))
			n -= __atomic_load_n(&p->cells[i].balance, __ATOMIC_RELAXED);
	return n;
}

static int permits_lock(pheap_tx *tx, uint64_t off)
{
	return tx->mode == PHD_MODE_CONCURRENT ? ph_lock_key(tx, off) : 0;
}

/* ---- making ---- */

const pheap_permits *pheap_permits_new(pheap_tx *tx, uint64_t total)
{
	uint64_t off, room;
	int rc = ph_tx_enter(tx, "pheap_permits_new");

	if (rc)
		return NULL;
	if (total > (uint64_t)TOTAL_MAX)
		rc = ph_error(tx->h, -EINVAL, "pheap_permits_new: more than 2^40 permits");
	if (rc == 0)
		rc = ph_block_alloc(tx, permits_size(tx->h), 16, PHD_TYPE_PERMITS, &off, &room);
	if (rc) {
		ph_tx_fail(tx, rc, NULL);
		return NULL;
	}
	ph_zero(tx->h->map + off, room);
	permits_at(tx->h, off)->total = total;
	return (const pheap_permits *)(const void *)(tx->base + off);
}

int pheap_permits_delete(pheap_tx *tx, const pheap_permits *permits)
{
	uint64_t off;
	int rc = ph_tx_enter(tx, "pheap_permits_delete");

	if (rc)
		return rc;
	off = permits_find(tx->h, tx, permits, "pheap_permits_delete");
	rc = off ? permits_lock(tx, off) : -EINVAL;
	for (uint32_t i = 0; rc == 0 && i < tx->h->super.member_count; i++) {
		const struct phd_permit_cell *cell = &permits_at(tx->h, off)->cells[i];
		char who[96];

		if (!cell_counts(tx->h, cell, i) || cell->balance == 0)
			continue;
		rc = ph_member_check(tx->h, i);
		if (rc) {
			rc = rc > 0 ? 0 : rc;
			continue;
		}
		ph_member_describe(tx->h, (int)i, who, sizeof(who));
		rc = ph_error(tx->h, -EBUSY, "pheap_permits_delete: permits of it belong to %s", who);
	}
	if (rc == 0)
		rc = ph_block_drop(tx, off);
	return ph_fail_if(tx, rc);
}

/* ---- taking and giving ---- */

static int cell_store(pheap_tx *tx, struct phd_permit_cell *cell, int64_t balance)
{
	int rc = ph_tx_undo(tx, (uint64_t)((char *)cell - tx->h->map), sizeof(*cell));

	if (rc == 0) {
		cell->balance = balance;
		cell->attachment = tx->h->member_id;
	}
	return rc;
}

/* M2. */
static int change_raise(pheap_tx *tx, struct phd_permits *p)
{
	int rc = ph_tx_undo(tx, (uint64_t)((char *)&p->change - tx->h->map), 8);

	if (rc == 0)
		__atomic_store_n(&p->change, p->change + 1, __ATOMIC_RELEASE);
	return rc;
}

/* 0, -EAGAIN, or an error of recovery. What the dead have lent is not there to be taken: where it matters, they are
 * looked for first. */
static int enough(struct pheap *h, const struct permit_call *c)
{
	const struct phd_permits *p = permits_at(h, c->off);
	int64_t sum = (int64_t)p->total, lent = 0;
	int rc = 0;

	for (uint32_t i = 0; i < h->super.member_count; i++)
		if (cell_counts(h, &p->cells[i], i)) {
			sum -= p->cells[i].balance;
			lent -= i != h->slot && p->cells[i].balance < 0 ? p->cells[i].balance : 0;
		}
	if (sum < c->change || sum - lent >= c->change)
		return sum < c->change ? -EAGAIN : 0;
	for (uint32_t i = 0; rc >= 0 && i < h->super.member_count; i++)
		if (i != h->slot && cell_counts(h, &p->cells[i], i) && p->cells[i].balance < 0)
			rc = ph_member_check(h, i);
	if (rc < 0)
		return rc;
	return available(h, c->off) < c->change ? -EAGAIN : 0;
}

/* -EAGAIN without a sentence: not enough of them are free. */
static int balance_change(pheap_tx *tx, void *arg)
{
	const struct permit_call *c = arg;
	struct pheap *h = tx->h;
	struct phd_permits *p = permits_at(h, c->off);
	struct phd_permit_cell *cell = &p->cells[h->slot];
	int64_t balance;
	int rc = permits_lock(tx, c->off);

	/* Another process may have deleted it meanwhile. */
	if (rc == 0 && !permits_find(h, tx, tx->base + c->off, c->name))
		rc = -EINVAL;
	if (rc)
		return rc;
	balance = cell_counts(h, cell, h->slot) ? cell->balance : 0;
	if (c->gives && balance < -c->change)
		return ph_error(h, -EPERM, "%s: this process has %lld of these permits, not %lld", c->name,
				(long long)(balance > 0 ? balance : 0), (long long)-c->change);
	rc = !c->gives && c->change > 0 ? enough(h, c) : 0;
	if (rc)
		return rc;
	if (balance + c->change > TOTAL_MAX || balance + c->change < -TOTAL_MAX)
		return ph_error(h, -EOVERFLOW, "%s: more than 2^40 permits", c->name);
	rc = cell_store(tx, cell, balance + c->change);
	if (rc == 0 && c->change < 0)
		rc = change_raise(tx, p);
	return rc;
}

static int enter(pheap *h, const pheap_permits *permits, uint64_t n, struct permit_call *c)
{
	ph_heap_check(h, c->name);
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	if (h->passive || h->read_only)
		return ph_error(h, -EROFS, "%s: the heap is open for reading only", c->name);
	if (pheap_current(h))
		return ph_error(h, PHEAP_EACTIVE,
				"%s: permits are taken and given between transactions, not inside one",
				c->name);
	if (n == 0 || n > (uint64_t)TOTAL_MAX)
		return ph_error(h, -EINVAL, "%s: 1 to 2^40 permits", c->name);
	c->change = c->takes ? (int64_t)n : -(int64_t)n;
	c->off = permits_find(h, NULL, permits, c->name);
	return c->off ? 0 : -EINVAL;
}

static int change_run(pheap *h, struct permit_call *c)
{
	int rc = ph_own_run(h, c->name, 0, balance_change, c);

	if (rc == 0 && c->change < 0)
		ph_os->futex_wake((const uint32_t *)(const void *)&permits_at(h, c->off)->change, WAKE_ALL);
	return rc;
}

/* A death gives permits back, once somebody has noticed it. */
static int holders_check(pheap *h, uint64_t off)
{
	const struct phd_permits *p = permits_at(h, off);
	int rc = 0;

	for (uint32_t i = 0; rc >= 0 && i < h->super.member_count; i++)
		if (i != h->slot && cell_counts(h, &p->cells[i], i) &&
		    __atomic_load_n(&p->cells[i].balance, __ATOMIC_RELAXED) > 0)
			rc = ph_member_check(h, i);
	return rc < 0 ? rc : 0;
}

/* One process asks for the dead each millisecond; the others sleep longer, and ask for that one only. 1: it is this one;
 * 0: another, alive; or an error of recovery. */
static int watcher_claim(struct pheap *h, struct phd_permits *p)
{
	uint64_t mine = h->member_id << 16 | (h->slot + 1),
		 seen = __atomic_load_n(&p->watcher, __ATOMIC_ACQUIRE);
	uint64_t slot = (seen & 0xffff) - 1;

	if (seen == mine)
		return 1;
	if (seen && slot < h->super.member_count &&
	    __atomic_load_n(&h->members[slot].attachment, __ATOMIC_ACQUIRE) == seen >> 16) {
		int rc = ph_member_check(h, (uint32_t)slot);

		if (rc <= 0)
			return rc;
	}
	return __atomic_compare_exchange_n(&p->watcher, &seen, mine, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_RELAXED);
}

static void watcher_drop(struct pheap *h, struct phd_permits *p)
{
	uint64_t mine = h->member_id << 16 | (h->slot + 1);

	(void)__atomic_compare_exchange_n(&p->watcher, &mine, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* -EAGAIN: timeout_ms was 0 or has passed. */
static int take_wait(pheap *h, struct permit_call *c, int32_t timeout_ms)
{
	uint64_t start_ns = ph_os->clock_ns(), passed_ns = 0,
		 limit_ns = timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * 1000000u;
	struct phd_permits *p = permits_at(h, c->off);
	uint32_t naps = 0;
	int rc;

	for (;;) {
		uint64_t seen = __atomic_load_n(&p->change, __ATOMIC_ACQUIRE), nap_ns = NAP_WATCHER_NS;

		rc = passed_ns && available(h, c->off) < c->change ? -EAGAIN : change_run(h, c);
		if (rc != -EAGAIN)
			break;
		/* A first and a last look are everybody's. */
		rc = passed_ns && passed_ns < limit_ns ? watcher_claim(h, p) : 1;
		if (rc == 0 && naps++ % NAPS_BLIND != NAPS_BLIND - 1)
			nap_ns = NAP_NS;
		else if (rc >= 0)
			rc = holders_check(h, c->off);
		if (rc == 0 && available(h, c->off) >= c->change) {
			bool last = passed_ns >= limit_ns;

			passed_ns = ph_os->clock_ns() - start_ns + 1;
			if (!last)
				continue;
			rc = change_run(h, c);
			if (rc != -EAGAIN)
				break;
		}
		if ((rc == 0 || rc == -EAGAIN) && !permits_find(h, NULL, h->base + c->off, c->name))
			rc = -EINVAL;
		else if (rc == 0)
			rc = -EAGAIN;
		passed_ns = ph_os->clock_ns() - start_ns + 1;
		if (rc != -EAGAIN || passed_ns >= limit_ns)
			break;
		if (limit_ns - passed_ns < nap_ns)
			nap_ns = limit_ns - passed_ns;
		ph_os->futex_wait((const uint32_t *)(const void *)&p->change, (uint32_t)seen, nap_ns);
	}
	if (passed_ns && rc != -EINVAL)
		watcher_drop(h, p);
	return rc;
}

static int take(pheap *h, const pheap_permits *permits, uint64_t n, int32_t timeout_ms, const char *name)
{
	struct permit_call c = {.takes = true, .name = name};
	int rc = enter(h, permits, n, &c);

	if (rc)
		return rc;
	rc = take_wait(h, &c, timeout_ms);
	ph_hold_reap_due(h); /* whom it recovered may have held something */
	if (rc != -EAGAIN)
		return rc;
	return ph_error(h, timeout_ms ? -ETIMEDOUT : -EAGAIN, "%s: %lld permits are free, %llu are asked for",
			name, (long long)available(h, c.off), (unsigned long long)n);
}

static int give(pheap *h, const pheap_permits *permits, uint64_t n, const char *name)
{
	struct permit_call c = {.gives = true, .name = name};
	int rc = enter(h, permits, n, &c);

	return rc ? rc : change_run(h, &c);
}

int pheap_permits_take(pheap *h, const pheap_permits *permits, uint64_t n, int32_t timeout_ms)
{
	return take(h, permits, n, timeout_ms, "pheap_permits_take");
}

int pheap_permits_give(pheap *h, const pheap_permits *permits, uint64_t n)
{
	return give(h, permits, n, "pheap_permits_give");
}

int pheap_permit_reserve(pheap *h, const pheap_permits *permits, int32_t timeout_ms)
{
	return take(h, permits, 1, timeout_ms, "pheap_permit_reserve");
}

int pheap_permit_release(pheap *h, const pheap_permits *permits)
{
	return give(h, permits, 1, "pheap_permit_release");
}

int pheap_permits_lend(pheap *h, const pheap_permits *permits, uint64_t n)
{
	struct permit_call c = {.name = "pheap_permits_lend"};
	int rc = enter(h, permits, n, &c);

	return rc ? rc : change_run(h, &c);
}

int pheap_permits_available(const pheap *h, const pheap_permits *permits, int64_t *ret)
{
	uint64_t off;

	ph_heap_check(h, "pheap_permits_available");
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	if (!ret)
		return ph_error(h, -EINVAL, "pheap_permits_available: ret is NULL");
	off = permits_find(h, pheap_current(h), permits, "pheap_permits_available");
	if (!off)
		return -EINVAL;
	*ret = available(h, off);
	return 0;
}
