/* SPDX-License-Identifier: MIT
 *
 * hold.c: see hold.h.
 */
#include "hold.h"

#include <errno.h>

#include "error.h"
#include "lock.h"
#include "member.h"
#include "mutant.h"
#include "own.h"

#define CHAIN_MAX (1u << 20) /* longer is a cycle in a damaged file */

/* Where a record is linked: the bucket's word, or next_off of the one before. */
struct place {
	uint64_t link_off, off;
	struct phd_hold *hold; /* NULL: the end of the list */
};

static uint64_t bucket_off(const struct pheap *h, uint32_t bucket)
{
	return h->super.head_off + offsetof(struct phd_head, holds) + bucket * 8ull;
}

static uint64_t word_at(const struct pheap *h, uint64_t off)
{
	return __atomic_load_n((const uint64_t *)(const void *)(h->map + off), __ATOMIC_ACQUIRE);
}

static int damaged(const struct pheap *h)
{
	return ph_error(h, PHEAP_ECORRUPT,
			"the list of held references is damaged; run pheap-fsck on the file");
}

static int place_load(const struct pheap *h, struct place *p)
{
	struct ph_block b;
	const char *why;

	p->off = word_at(h, p->link_off);
	p->hold = NULL;
	if (p->off == 0)
		return 0;
	if (p->off % 8 || !ph_heap_has(h, p->off, sizeof(struct phd_hold)) ||
	    (ph_block_find(h, NULL, p->off, &b, &why) == 0 && PHD_DESC_TYPE(b.desc) != PHD_TYPE_HOLD))
		return damaged(h);
	p->hold = (struct phd_hold *)(void *)(h->map + p->off);
	return 0;
}

static int place_next(const struct pheap *h, struct place *p, uint32_t *steps)
{
	if (++*steps > CHAIN_MAX)
		return damaged(h);
	p->link_off = p->off + offsetof(struct phd_hold, next_off);
	return place_load(h, p);
}

static bool is_void(const struct pheap *h, const struct phd_hold *hold, uint64_t leaving)
{
	if (PH_MUTANT(PH_MUTANT_HOLD_VOID))
		return hold->attachment == leaving;
	return hold->attachment == leaving || hold->slot >= h->super.member_count ||
	       __atomic_load_n(&h->members[hold->slot].attachment, __ATOMIC_ACQUIRE) != hold->attachment;
}

static bool is_own(const struct pheap *h, const struct phd_hold *hold)
{
	return hold->attachment == h->member_id && hold->slot == h->slot;
}

static int word_store(pheap_tx *tx, uint64_t off, uint64_t value)
{
	int rc = ph_tx_undo(tx, off, 8);

	if (rc == 0)
		__atomic_store_n((uint64_t *)(void *)(tx->h->map + off), value, __ATOMIC_RELEASE);
	return rc;
}

/* F4. */
static bool bucket_used(const struct pheap *h, uint32_t bucket)
{
	return __atomic_load_n(&h->coord->hold_buckets[bucket / 64], __ATOMIC_ACQUIRE) >> bucket % 64 & 1;
}

static void bucket_use(struct pheap *h, uint32_t bucket)
{
	if (!bucket_used(h, bucket))
		__atomic_fetch_or(&h->coord->hold_buckets[bucket / 64], 1ull << bucket % 64,
				  __ATOMIC_ACQ_REL);
}

/* F2. */
static int bucket_lock(pheap_tx *tx, uint32_t bucket)
{
	return tx->mode == PHD_MODE_CONCURRENT ? ph_lock_key(tx, bucket_off(tx->h, bucket)) : 0;
}

/* Removes the record; afterwards the place is that of the one behind it. */
static int record_remove(pheap_tx *tx, struct place *p)
{
	int rc = word_store(tx, p->link_off, p->hold->next_off);

	if (rc == 0)
		rc = ph_block_drop(tx, p->off);
	return rc ? rc : place_load(tx->h, p);
}

/* F1: the object, and the records of the gone, go with the last one that counts. */
static int object_settle(pheap_tx *tx, uint32_t bucket, uint64_t object_off, uint64_t leaving)
{
	struct place p = {.link_off = bucket_off(tx->h, bucket)};
	struct ph_block b;
	const char *why;
	uint32_t steps = 0;
	bool held = false;
	int rc = place_load(tx->h, &p);

	while (rc == 0 && p.hold) {
		bool mine = p.hold->object_off == object_off;

		if (mine && is_void(tx->h, p.hold, leaving)) {
			rc = record_remove(tx, &p);
			continue;
		}
		held |= mine && !PH_MUTANT(PH_MUTANT_HOLD_ANY);
		rc = place_next(tx->h, &p, &steps);
	}
	/* A damaged file may name what is no block. */
	if (rc || held || ph_block_find(tx->h, tx, object_off, &b, &why) ||
	    PHD_DESC_TYPE(b.desc) > PHD_TYPE_USER_MAX)
		return rc;
	return ph_block_drop(tx, object_off);
}

/* ---- holding ---- */

static int record_make(pheap_tx *tx, uint32_t bucket, uint64_t object_off)
{
	struct pheap *h = tx->h;
	uint64_t link_off = bucket_off(h, bucket), off, room;
	struct phd_hold hold = {.next_off = word_at(h, link_off),
				.object_off = object_off,
				.attachment = h->member_id,
				.slot = h->slot,
				.count = 1};
	int rc = ph_block_alloc(tx, sizeof(hold), 8, PHD_TYPE_HOLD, &off, &room);

	if (rc)
		return rc;
	ph_copy(h->map + off, &hold, sizeof(hold));
	bucket_use(h, bucket);
	/* ORDER(hold-flag): the row says that there are holds before a record is in a list. Crash between: the reaper finds
	 * nothing. Pairs with recovery.c:ph_recovery_member. */
	if (!PH_MUTANT(PH_MUTANT_HOLD_FLAG))
		__atomic_fetch_or(&h->members[h->slot].flags, PHD_MEMBER_HOLDS, __ATOMIC_ACQ_REL);
	return word_store(tx, link_off, off);
}

static int count_change(pheap_tx *tx, struct phd_hold *hold, uint32_t count)
{
	int rc = ph_tx_undo(tx, (uint64_t)((char *)&hold->count - tx->h->map), sizeof(hold->count));

	if (rc == 0)
		hold->count = count;
	return rc;
}

static int own_find(const struct pheap *h, uint32_t bucket, uint64_t object_off, struct place *p)
{
	uint32_t steps = 0;
	int rc;

	p->link_off = bucket_off(h, bucket);
	rc = place_load(h, p);
	while (rc == 0 && p->hold && !(p->hold->object_off == object_off && is_own(h, p->hold)))
		rc = place_next(h, p, &steps);
	return rc;
}

struct hold_call {
	const void *object;
	const char *name;
	uint64_t off;
};

static int hold_add(pheap_tx *tx, void *arg)
{
	const struct hold_call *c = arg;
	uint32_t bucket = PHD_HOLD_BUCKET(c->off);
	struct place p;
	struct ph_block b;
	const char *why;
	int rc = bucket_lock(tx, bucket);

	if (rc == 0 &&
	    (ph_block_find(tx->h, tx, c->off, &b, &why) || PHD_DESC_TYPE(b.desc) > PHD_TYPE_USER_MAX))
		rc = ph_error(tx->h, -EINVAL, "pheap_hold: %p is not the start of an allocated block",
			      c->object);
	if (rc == 0)
		rc = own_find(tx->h, bucket, c->off, &p);
	if (rc)
		return rc;
	if (!p.hold)
		return record_make(tx, bucket, c->off);
	if (p.hold->count == UINT32_MAX)
		return ph_error(tx->h, -EOVERFLOW, "pheap_hold: this process holds %p 2^32 - 1 times",
				c->object);
	return count_change(tx, p.hold, p.hold->count + 1);
}

static int hold_drop(pheap_tx *tx, void *arg)
{
	const struct hold_call *c = arg;
	uint32_t bucket = PHD_HOLD_BUCKET(c->off);
	struct place p;
	int rc = bucket_lock(tx, bucket);

	if (rc == 0)
		rc = own_find(tx->h, bucket, c->off, &p);
	if (rc)
		return rc;
	if (!p.hold)
		return ph_error(tx->h, -EPERM, "pheap_release: this process does not hold %p", c->object);
	if (p.hold->count > 1)
		return count_change(tx, p.hold, p.hold->count - 1);
	rc = record_remove(tx, &p);
	return rc ? rc : object_settle(tx, bucket, c->off, 0);
}

static int hold_call(pheap *h, const void *object, const char *name, int (*fn)(pheap_tx *tx, void *arg))
{
	struct hold_call c = {.object = object, .name = name};
	int rc;

	ph_heap_check(h, name);
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	c.off = (uint64_t)((uintptr_t)object - (uintptr_t)h->base);
	if (!object || !ph_heap_has(h, c.off, 1))
		return ph_error(h, PHEAP_EFOREIGN, "%s: %p is not in this heap", name, object);
	rc = ph_own_run(h, name, 0, fn, &c);
	if (rc == 0)
		ph_hold_reap_due(h);
	return rc;
}

int pheap_hold(pheap *h, const void *obj)
{
	return hold_call(h, obj, "pheap_hold", hold_add);
}

int pheap_release(pheap *h, const void *obj)
{
	return hold_call(h, obj, "pheap_release", hold_drop);
}

static int held_refuse(pheap_tx *tx, uint64_t off, const struct phd_hold *hold)
{
	int rc = is_void(tx->h, hold, 0) ? 1 : ph_member_check(tx->h, hold->slot);

	if (rc < 0)
		return rc;
	if (rc == 0)
		return ph_error(tx->h, -EBUSY,
				"the block at 0x%llx is held (pheap_hold); its last pheap_release frees it",
				(unsigned long long)off);
	__atomic_store_n(&tx->h->reap_due, true, __ATOMIC_RELEASE);
	tx->extras = true;
	return ph_error(
		tx->h, -EBUSY,
		"the block at 0x%llx was held by a process that died; unless others hold it, it is freed "
		"when this transaction has ended",
		(unsigned long long)off);
}

int ph_hold_free_check_bucket(pheap_tx *tx, uint64_t off)
{
	uint32_t bucket = PHD_HOLD_BUCKET(off), steps = 0;
	struct place p = {.link_off = bucket_off(tx->h, bucket)};
	int rc = bucket_lock(tx, bucket);

	if (rc == 0)
		rc = place_load(tx->h, &p);
	while (rc == 0 && p.hold) {
		if (p.hold->object_off == off)
			return held_refuse(tx, off, p.hold);
		rc = place_next(tx->h, &p, &steps);
	}
	return rc;
}

/* ---- reaping ---- */

struct reap {
	uint64_t leaving;
	uint32_t bucket;
};

/* All objects of one bucket that the gone have held. */
static int bucket_reap(pheap_tx *tx, void *arg)
{
	const struct reap *r = arg;
	struct place p = {.link_off = bucket_off(tx->h, r->bucket)};
	uint32_t steps = 0;
	int rc = bucket_lock(tx, r->bucket);

	if (rc == 0)
		rc = place_load(tx->h, &p);
	while (rc == 0 && p.hold) {
		if (!is_void(tx->h, p.hold, r->leaving)) {
			rc = place_next(tx->h, &p, &steps);
			continue;
		}
		/* Takes records out before and behind this place: from the start again. */
		rc = object_settle(tx, r->bucket, p.hold->object_off, r->leaving);
		p.link_off = bucket_off(tx->h, r->bucket);
		if (rc == 0)
			rc = place_load(tx->h, &p);
	}
	return rc;
}

void ph_hold_first(struct pheap *h)
{
	bool any = false;

	memset(h->coord->hold_buckets, 0, sizeof(h->coord->hold_buckets));
	for (uint32_t i = 0; i < PHD_HOLD_BUCKETS; i++)
		if (word_at(h, bucket_off(h, i))) {
			bucket_use(h, i);
			any = true;
		}
	__atomic_store_n(&h->coord->reaped, h->coord->reap, __ATOMIC_RELEASE);
	if (any)
		__atomic_fetch_add(&h->coord->reap, 1, __ATOMIC_ACQ_REL);
}

bool ph_hold_due(const struct pheap *h)
{
	return __atomic_load_n(&h->coord->reap, __ATOMIC_ACQUIRE) !=
	       __atomic_load_n(&h->coord->reaped, __ATOMIC_ACQUIRE);
}

/* F3. A row that is about to go: its records may not have been void when their bucket was looked at. */
static bool any_leaving(const struct pheap *h)
{
	for (uint32_t i = 0; i < h->super.member_count; i++)
		if (__atomic_load_n(&h->members[i].flags, __ATOMIC_ACQUIRE) & PHD_MEMBER_LEAVING &&
		    __atomic_load_n(&h->members[i].attachment, __ATOMIC_ACQUIRE))
			return true;
	return false;
}

static void reaped_raise(struct pheap *h, uint64_t to)
{
	uint64_t seen = __atomic_load_n(&h->coord->reaped, __ATOMIC_ACQUIRE);

	while (seen < to && !__atomic_compare_exchange_n(&h->coord->reaped, &seen, to, false,
							 __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		;
}

static int reap(struct pheap *h, uint64_t leaving, uint32_t flags)
{
	uint64_t seen = __atomic_load_n(&h->coord->reap, __ATOMIC_ACQUIRE);
	bool complete = !any_leaving(h);
	int rc = 0;

	if (!ph_hold_due(h) && leaving == 0)
		return 0;
	for (uint32_t i = 0; i < PHD_HOLD_BUCKETS && rc == 0; i++) {
		struct reap r = {.leaving = leaving, .bucket = i};

		if (bucket_used(h, i))
			rc = ph_own_run(h, "pheap_release", flags, bucket_reap, &r);
	}
	if (PH_MUTANT(PH_MUTANT_REAP_FORGOT))
		reaped_raise(h, __atomic_load_n(&h->coord->reap, __ATOMIC_ACQUIRE));
	else if (rc == 0 && complete)
		reaped_raise(h, seen);
	return rc;
}

int ph_hold_reap(struct pheap *h, uint64_t leaving)
{
	return reap(h, leaving, 0);
}

void ph_hold_reap_due(struct pheap *h)
{
	/* A function of pheap_on_end may have closed the heap. */
	if (h->magic != PH_HANDLE_MAGIC || h->passive ||
	    !(__atomic_load_n(&h->reap_due, __ATOMIC_RELAXED) || ph_hold_due(h)) || h->read_only ||
	    pheap_current(h))
		return;
	/* Its own end takes the same way: once is enough. What fails, or would have to wait, is done by whoever comes next. */
	if (__atomic_exchange_n(&h->reaping, true, __ATOMIC_ACQ_REL))
		return;
	__atomic_store_n(&h->reap_due, false, __ATOMIC_RELEASE);
	if (reap(h, 0, PHEAP_NOWAIT))
		__atomic_store_n(&h->reap_due, true, __ATOMIC_RELEASE);
	__atomic_store_n(&h->reaping, false, __ATOMIC_RELEASE);
}
