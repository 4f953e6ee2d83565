/* SPDX-License-Identifier: MIT
 *
 * hold.c: held references: blocks that live as long as some attached process holds them, and not longer.
 *
 * The lists in the file are read here as FORMAT.md describes them, so that a record that stays behind is seen, which
 * no call shows.
 */
#include "support.h"

#include <signal.h>
#include <sched.h>
#include <unistd.h>

TestSuite(hold, .timeout = 120);

enum { TYPE = 6 };

static const void *at(const pheap *h, uint64_t off)
{
	return (const char *)info_of(h).base + off;
}

static const struct phd_head *head_of(const pheap *h)
{
	return at(h, ((const struct phd_super *)at(h, 0))->head_off);
}

/* Records in all lists, or of one object. */
static unsigned records(const pheap *h, const void *obj)
{
	unsigned count = 0;

	for (unsigned b = 0; b < PHD_HOLD_BUCKETS; b++)
		for (uint64_t off = head_of(h)->holds[b]; off;) {
			const struct phd_hold *hold = at(h, off);

			cr_assert_eq(PHD_HOLD_BUCKET(hold->object_off), b);
			cr_assert_gt(hold->count, 0);
			count += !obj || hold->object_off == pheap_offset(h, obj);
			off = hold->next_off;
		}
	return count;
}

static uint64_t blocks(pheap *h)
{
	return stats_of(h).block_count;
}

static bool lives(const pheap *h, const void *p)
{
	return pheap_usable_size(h, p) != 0;
}

/* --- counting --- */

Test(hold, as_often_as_held)
{
	pheap *h = heap_make();
	uint64_t before = blocks(h);
	unsigned char *p = block_make(h, 100, TYPE);

	for (int i = 0; i < 5; i++)
		OK(pheap_hold(h, p));
	cr_assert_eq(records(h, p), 1);
	for (int i = 0; i < 4; i++) {
		OK(pheap_release(h, p));
		cr_assert(lives(h, p));
	}
	OK(pheap_release(h, p));
	cr_assert(!lives(h, p));
	cr_assert_eq(blocks(h), before);
	cr_assert_eq(records(h, NULL), 0);
	heap_drop(h);
}

Test(hold, of_every_kind_of_block)
{
	static const size_t sizes[] = {1, 16, 24, 128, 1000, 4096, 16384, 16385, 100000};
	pheap *h = heap_make();
	uint64_t before = blocks(h);

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		unsigned char *p = block_make(h, sizes[i], (uint32_t)i);
		OK(pheap_hold(h, p));
		cr_assert_eq(pheap_type_of(h, p), i);
		OK(pheap_release(h, p));
		cr_assert(!lives(h, p), "size %zu", sizes[i]);
	}
	cr_assert_eq(blocks(h), before);
	heap_drop(h);
}

Test(hold, count_at_its_end)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 100, TYPE);

	OK(pheap_hold(h, p));
	struct phd_hold *hold =
		(struct phd_hold *)(uintptr_t)at(h, head_of(h)->holds[PHD_HOLD_BUCKET(pheap_offset(h, p))]);
	hold->count = UINT32_MAX;
	GIVES(-EOVERFLOW, pheap_hold(h, p));
	cr_assert(pheap_error_detail(h)[0]);
	OK(pheap_release(h, p));
	OK(pheap_hold(h, p));
	hold->count = 1;
	OK(pheap_release(h, p));
	cr_assert(!lives(h, p));
	heap_drop(h);
}

/* Objects whose records hang in one list. */
static unsigned neighbours(pheap *h, const void **ret, unsigned n)
{
	uint32_t bucket = 0;
	unsigned count = 0;

	for (unsigned i = 0; i < 200000 && count < n; i++) {
		pheap_tx *tx = begin(h, 0);
		const void *p = pheap_alloc(tx, 16, TYPE);

		cr_assert(p);
		if (count == 0)
			bucket = PHD_HOLD_BUCKET(pheap_offset(h, p));
		if (PHD_HOLD_BUCKET(pheap_offset(h, p)) == bucket) {
			OK(pheap_hold(h, p));
			ret[count++] = p;
		}
		commit(tx);
	}
	return count;
}

Test(hold, many_in_one_list)
{
	enum { COUNT = 40 };
	const void *objects[COUNT];
	pheap *h = heap_make();
	uint64_t seed = random_seed(), others;

	cr_assert_eq(neighbours(h, objects, COUNT), COUNT);
	others = blocks(h) - COUNT;
	cr_assert_eq(records(h, NULL), COUNT);
	for (unsigned left = COUNT; left; left--) {
		unsigned i = (unsigned)(random_next(&seed) % left);

		OK(pheap_hold(h, objects[i]));
		OK(pheap_release(h, objects[i]));
		OK(pheap_release(h, objects[i]));
		objects[i] = objects[left - 1];
		cr_assert_eq(records(h, NULL), left - 1);
		cr_assert_eq(blocks(h), others + left - 1);
	}
	heap_drop(h);
}

/* --- refusals --- */

Test(hold, refusals)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 100, TYPE), *freed = block_make(h, 100, TYPE);
	void *reserved = pheap_reserve(h, 100, TYPE);
	int local;
	pheap_tx *tx = begin(h, 0);

	OK(pheap_free(tx, freed));
	const void *permits = pheap_permits_new(tx, 1);
	cr_assert(permits);
	commit(tx);
	GIVES(PHEAP_EFOREIGN, pheap_hold(h, NULL));
	GIVES(PHEAP_EFOREIGN, pheap_hold(h, &local));
	GIVES(PHEAP_EFOREIGN, pheap_release(h, NULL));
	GIVES(PHEAP_EFOREIGN, pheap_release(h, &local));
	GIVES(-EINVAL, pheap_hold(h, p + 1));
	GIVES(-EINVAL, pheap_hold(h, p + 8));
	GIVES(-EINVAL, pheap_hold(h, freed));
	GIVES(-EINVAL, pheap_hold(h, permits));
	GIVES(-EINVAL, pheap_hold(h, reserved));
	GIVES(-EPERM, pheap_release(h, p));
	cr_assert(pheap_error_detail(h)[0]);
	GIVES(-EPERM, pheap_release(h, p + 8));
	GIVES(-EPERM, pheap_release(h, freed));
	cr_assert_eq(records(h, NULL), 0);
	cr_assert_eq(pheap_current(h), NULL);
	/* inside a transaction they doom it */
	tx = begin(h, 0);
	GIVES(-EPERM, pheap_release(h, p));
	GIVES(-EPERM, pheap_error(tx));
	GIVES(-EPERM, pheap_hold(h, p));
	GIVES(-EPERM, pheap_commit(tx));
	tx = begin(h, 0);
	GIVES(-EINVAL, pheap_hold(h, p + 8));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, PHEAP_READ);
	GIVES(-EROFS, pheap_hold(h, p));
	GIVES(-EROFS, pheap_commit(tx));
	OK(pheap_hold(h, p));
	tx = begin(h, PHEAP_READ | PHEAP_CONCURRENT);
	GIVES(-EROFS, pheap_release(h, p));
	pheap_abort(tx);
	OK(pheap_release(h, p));
	pheap_cancel(h, reserved);
	heap_drop(h);
}

Test(hold, read_only_handle)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);

	cr_assert(pheap_root(tx, "r", 16, TYPE));
	commit(tx);
	heap_drop(h);
	OK(pheap_open(scratch("heap"), PHEAP_RDONLY, NULL, &h));
	GIVES(-EROFS, pheap_hold(h, pheap_find(h, "r")));
	GIVES(-EROFS, pheap_release(h, pheap_find(h, "r")));
	heap_drop(h);
}

static int hold_forked(void *arg)
{
	pheap *h = arg;

	CHECK(pheap_hold(h, (const void *)8) == PHEAP_EFORKED);
	CHECK(pheap_release(h, (const void *)8) == PHEAP_EFORKED);
	CHECK(pheap_close(h) == 0);
	return 0;
}

Test(hold, forked_handle)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 100, TYPE);

	OK(pheap_hold(h, p));
	GIVES(0, child_run(hold_forked, h));
	/* nothing of the parent's went with the child */
	cr_assert(lives(h, p));
	OK(pheap_release(h, p));
	cr_assert(!lives(h, p));
	heap_drop(h);
}

/* --- pheap_free and pheap_realloc of what is held --- */

Test(hold, free_is_busy)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 100, TYPE);
	pheap_tx *tx;

	OK(pheap_hold(h, p));
	for (int concurrent = 0; concurrent < 2; concurrent++) {
		tx = begin(h, concurrent ? PHEAP_CONCURRENT : 0);
		GIVES(-EBUSY, pheap_free(tx, p));
		GIVES(-EBUSY, pheap_error(tx));
		cr_assert(pheap_error_detail(h)[0]);
		GIVES(-EBUSY, pheap_commit(tx));
		cr_assert(lives(h, p));
	}
	/* other blocks go as ever */
	unsigned char *q = block_make(h, 100, TYPE);
	tx = begin(h, 0);
	OK(pheap_free(tx, q));
	commit(tx);
	OK(pheap_release(h, p));
	tx = begin(h, 0);
	GIVES(-EINVAL, pheap_free(tx, p));
	pheap_abort(tx);
	heap_drop(h);
}

Test(hold, free_in_the_same_transaction)
{
	pheap *h = heap_make();
	uint64_t before = blocks(h);
	pheap_tx *tx = begin(h, 0);
	void *p = pheap_alloc(tx, 100, TYPE);

	OK(pheap_hold(h, p));
	GIVES(-EBUSY, pheap_free(tx, p));
	pheap_abort(tx);
	cr_assert_eq(blocks(h), before);
	/* held after it was freed */
	p = block_make(h, 100, TYPE);
	tx = begin(h, 0);
	OK(pheap_free(tx, p));
	GIVES(-EINVAL, pheap_hold(h, p));
	pheap_abort(tx);
	cr_assert(lives(h, p));
	/* held and released: the release has freed it */
	tx = begin(h, 0);
	OK(pheap_hold(h, p));
	OK(pheap_release(h, p));
	GIVES(-EINVAL, pheap_free(tx, p));
	pheap_abort(tx);
	cr_assert(lives(h, p));
	cr_assert_eq(records(h, NULL), 0);
	heap_drop(h);
}

Test(hold, realloc)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 100, TYPE), *big = block_make(h, 40000, TYPE);
	pheap_tx *tx;

	OK(pheap_hold(h, p));
	OK(pheap_hold(h, big));
	tx = begin(h, 0);
	cr_assert_eq(pheap_realloc(tx, p, 101), p, "in place it is the same block");
	cr_assert_eq(pheap_realloc(tx, big, 40900), big);
	commit(tx);
	tx = begin(h, 0);
	cr_assert_null(pheap_realloc(tx, big, 20000), "what others hold is not cut");
	GIVES(-EBUSY, pheap_commit(tx));
	tx = begin(h, 0);
	cr_assert_null(pheap_realloc(tx, p, 5000));
	GIVES(-EBUSY, pheap_error(tx));
	GIVES(-EBUSY, pheap_commit(tx));
	cr_assert(lives(h, p));
	OK(pheap_release(h, p));
	OK(pheap_release(h, big));
	cr_assert(!lives(h, p) && !lives(h, big));
	heap_drop(h);
}

/* --- as a part of a transaction --- */

Test(hold, in_a_transaction)
{
	pheap *h = heap_make();
	uint64_t before = blocks(h);
	pheap_tx *tx = begin(h, 0);
	void *p = pheap_alloc(tx, 100, TYPE);

	OK(pheap_hold(h, p));
	OK(pheap_hold(h, p));
	pheap_abort(tx);
	cr_assert_eq(blocks(h), before);
	cr_assert_eq(records(h, NULL), 0);

	tx = begin(h, PHEAP_CONCURRENT);
	p = pheap_alloc(tx, 100, TYPE);
	OK(pheap_hold(h, p));
	OK(pheap_hold(h, p));
	commit(tx);
	cr_assert_eq(records(h, p), 1);
	tx = begin(h, 0);
	OK(pheap_release(h, p));
	OK(pheap_release(h, p));
	GIVES(-EPERM, pheap_release(h, p));
	pheap_abort(tx);
	cr_assert(lives(h, p), "the abort took both releases back");
	OK(pheap_release(h, p));
	cr_assert(lives(h, p));
	OK(pheap_release(h, p));
	cr_assert(!lives(h, p));

	tx = begin(h, 0);
	p = pheap_alloc(tx, 100, TYPE);
	OK(pheap_hold(h, p));
	OK(pheap_release(h, p));
	commit(tx);
	cr_assert_eq(blocks(h), before, "made, held and released in one transaction");
	cr_assert_eq(records(h, NULL), 0);
	heap_drop(h);
}

/* Whole chunks that a transaction takes need no undo; the lists do. */
Test(hold, in_a_transaction_with_extents)
{
	pheap *h = heap_make();
	uint64_t before = blocks(h);

	for (int end = 0; end < 2; end++) {
		pheap_tx *tx = begin(h, 0);
		void *p = pheap_alloc(tx, 50000, TYPE), *q = pheap_alloc(tx, 100, TYPE);

		OK(pheap_hold(h, p));
		OK(pheap_hold(h, q));
		OK(pheap_release(h, p));
		OK(pheap_hold(h, q));
		if (end)
			commit(tx);
		else
			pheap_abort(tx);
		cr_assert_eq(blocks(h), before + (unsigned)end);
		cr_assert_eq(records(h, NULL), (unsigned)end);
	}
	heap_drop(h);
}

Test(hold, savepoints)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 100, TYPE), *q = block_make(h, 100, TYPE);
	pheap_savepoint_id sp;
	pheap_tx *tx;

	OK(pheap_hold(h, p));
	tx = begin(h, 0);
	OK(pheap_hold(h, p));
	OK(pheap_savepoint(tx, &sp));
	for (int i = 0; i < 3; i++) {
		OK(pheap_hold(h, p));
		OK(pheap_hold(h, q));
		OK(pheap_release(h, p));
		OK(pheap_release(h, p));
		OK(pheap_release(h, p));
		cr_assert(!lives(h, p));
		OK(pheap_rollback(tx, sp));
		cr_assert(lives(h, p));
	}
	/* a doom is lifted with the rest */
	GIVES(-EPERM, pheap_release(h, q));
	OK(pheap_rollback(tx, sp));
	OK(pheap_hold(h, q));
	commit(tx);
	OK(pheap_release(h, p));
	cr_assert(lives(h, p));
	OK(pheap_release(h, p));
	OK(pheap_release(h, q));
	cr_assert(!lives(h, p) && !lives(h, q));
	heap_drop(h);
}

Test(hold, nested)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 100, TYPE);
	pheap_tx *tx = begin(h, 0), *level;

	OK(pheap_hold(h, p));
	OK(pheap_begin(h, PHEAP_NEST, &level));
	OK(pheap_hold(h, p));
	pheap_abort(level);
	OK(pheap_begin(h, PHEAP_NEST, &level));
	OK(pheap_release(h, p));
	cr_assert(!lives(h, p));
	pheap_abort(level);
	OK(pheap_begin(h, PHEAP_NEST, &level));
	OK(pheap_hold(h, p));
	commit(level);
	commit(tx);
	OK(pheap_release(h, p));
	cr_assert(lives(h, p));
	OK(pheap_release(h, p));
	cr_assert(!lives(h, p));
	heap_drop(h);
}

/* Nothing but what is free is needed to give back. */
Test(hold, on_a_full_heap)
{
	struct pheap_options opt = test_options();
	const void *held = NULL;
	uint64_t count = 0;
	int rc = 0;

	opt.max_size = MIB;
	pheap *h = heap_make_with(&opt);
	unsigned char *p = block_make(h, 5000, TYPE);
	OK(pheap_hold(h, p));
	while (rc == 0) {
		pheap_tx *tx = begin(h, 0);
		void *q = pheap_alloc(tx, 32, TYPE + 1);

		rc = q ? pheap_hold(h, q) : pheap_error(tx);
		held = rc ? held : q;
		count += rc == 0;
		rc = pheap_end(tx, rc);
	}
	GIVES(-ENOSPC, rc);
	cr_assert_gt(count, 100);
	OK(pheap_release(h, held));
	OK(pheap_release(h, p));
	cr_assert(!lives(h, p) && !lives(h, held));
	h = heap_reopen(h);
	cr_assert_eq(blocks(h), 0, "%lu", (unsigned long)blocks(h));
	cr_assert_eq(records(h, NULL), 0);
	heap_drop(h);
}

/* --- going --- */

Test(hold, close_gives_up)
{
	pheap *h = heap_make(), *again;
	uint64_t before = blocks(h);
	const void *p = block_make(h, 100, TYPE);

	OK(pheap_hold(h, p));
	OK(pheap_hold(h, p));
	OK(pheap_open(scratch("heap"), 0, NULL, &again));
	heap_drop(again);
	cr_assert(lives(h, p), "the process has the heap open still");
	h = heap_reopen(h);
	cr_assert_eq(blocks(h), before);
	cr_assert_eq(records(h, NULL), 0);
	heap_drop(h);
}

struct part {
	uint64_t off;	  /* of the object */
	unsigned count;	  /* how often to hold it */
	uint32_t holds;	  /* how many do */
	uint32_t go, die; /* what to do then */
	uint64_t seed;
	uint32_t wrong;
};

static int holder(void *arg)
{
	struct part *part = arg;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	const void *p = pheap_at(h, part->off);
	for (unsigned i = 0; i < part->count; i++)
		CHECK(pheap_hold(h, p) == 0);
	flag_add(&part->holds);
	flag_wait(&part->go, 1);
	if (part->die)
		raise(SIGKILL);
	CHECK(pattern_is(p, 100, 7));
	CHECK(pheap_close(h) == 0);
	return 0;
}

static unsigned char *object_make(pheap *h)
{
	pheap_tx *tx = begin(h, 0);
	unsigned char *p = pheap_alloc(tx, 100, TYPE);

	pattern_fill(p, 100, 7);
	commit(tx);
	return p;
}

static void gone_with_the_last(bool die, bool by_release)
{
	enum { COUNT = 4 };
	struct part *part = shared_make(sizeof *part);
	pheap *h = heap_make();
	unsigned char *p = object_make(h);
	pid_t pids[COUNT];

	*part = (struct part){.off = pheap_offset(h, p), .count = 3, .die = die};
	OK(pheap_hold(h, p));
	for (int i = 0; i < COUNT; i++)
		pids[i] = child_start(holder, part);
	flag_wait(&part->holds, COUNT);
	cr_assert_eq(records(h, p), COUNT + 1);
	if (by_release)
		OK(pheap_release(h, p));
	cr_assert(lives(h, p));
	flag_set(&part->go, 1);
	for (int i = 0; i < COUNT; i++)
		cr_assert_eq(child_wait(pids[i]), die ? 1000 + SIGKILL : 0);
	OK(pheap_recover(h, NULL));
	if (!by_release) {
		cr_assert(lives(h, p));
		cr_assert(pattern_is(p, 100, 7));
		cr_assert_eq(records(h, p), 1, "%u", records(h, p));
		OK(pheap_release(h, p));
	}
	cr_assert(!lives(h, p));
	cr_assert_eq(records(h, NULL), 0);
	heap_drop(h);
}

Test(hold, last_one_releases)
{
	gone_with_the_last(false, false);
}

Test(hold, last_one_closes)
{
	gone_with_the_last(false, true);
}

Test(hold, others_die)
{
	gone_with_the_last(true, false);
}

Test(hold, last_one_dies)
{
	gone_with_the_last(true, true);
}

/* Nobody calls pheap_recover: who meets the dead one's lock frees what it held, at the end of its transaction. */
static int hold_and_die_inside(void *arg)
{
	struct part *part = arg;
	pheap_tx *tx;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	CHECK(pheap_hold(h, pheap_at(h, part->off)) == 0);
	CHECK(pheap_begin(h, part->die ? PHEAP_CONCURRENT : 0, &tx) == 0);
	if (part->die)
		CHECK(pheap_lock(tx, &(uint64_t){1}, 1) == 0);
	raise(SIGKILL);
	return 0;
}

Test(hold, freed_by_who_meets_the_dead)
{
	struct part *part = shared_make(sizeof *part);
	pheap *h = heap_make();

	for (uint32_t concurrent = 0; concurrent < 2; concurrent++)
		for (int end = 0; end < 2; end++) {
			unsigned char *p = object_make(h);
			pheap_tx *tx;

			*part = (struct part){.off = pheap_offset(h, p), .die = concurrent};
			cr_assert_eq(child_run(hold_and_die_inside, part), 1000 + SIGKILL);
			tx = begin(h, concurrent ? PHEAP_CONCURRENT : 0);
			if (concurrent)
				OK(pheap_lock(tx, &(uint64_t){1}, 1));
			cr_assert(lives(h, p));
			if (end)
				pheap_abort(tx);
			else
				commit(tx);
			cr_assert(!lives(h, p), "concurrent %u, end %d", concurrent, end);
			cr_assert_eq(records(h, NULL), 0);
		}
	heap_drop(h);
}

Test(hold, recover_inside_a_transaction)
{
	struct part *part = shared_make(sizeof *part);
	pheap *h = heap_make();
	unsigned char *p = object_make(h);

	*part = (struct part){.off = pheap_offset(h, p), .count = 1, .go = 1, .die = 1};
	cr_assert_eq(child_run(holder, part), 1000 + SIGKILL);
	pheap_tx *tx = begin(h, 0);
	uint32_t members = 0;
	OK(pheap_recover(h, &members));
	cr_assert_eq(members, 1);
	cr_assert(lives(h, p));
	commit(tx);
	cr_assert(!lives(h, p));
	heap_drop(h);
}

Test(hold, freed_by_the_next_opener)
{
	struct part *part = shared_make(sizeof *part);
	pheap *h = heap_make();
	uint64_t before = blocks(h);
	unsigned char *p = object_make(h);

	*part = (struct part){.off = pheap_offset(h, p), .count = 2, .go = 1, .die = 1};
	heap_drop(h);
	cr_assert_eq(child_run(holder, part), 1000 + SIGKILL);
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	cr_assert_eq(blocks(h), before);
	cr_assert_eq(records(h, NULL), 0);
	heap_drop(h);
}

/* A slot is used again by another member: what the dead one held there is not the newcomer's. */
Test(hold, slot_used_again)
{
	struct part *part = shared_make(sizeof *part);
	struct pheap_options opt = test_options();

	opt.member_count = 2;
	pheap *h = heap_make_with(&opt);
	unsigned char *p = object_make(h);
	*part = (struct part){.off = pheap_offset(h, p), .count = 1, .go = 1};
	OK(pheap_hold(h, p));
	for (uint32_t round = 0; round < 6; round++) {
		part->die = round % 2;
		cr_assert_eq(child_run(holder, part), part->die ? 1000 + SIGKILL : 0);
	}
	OK(pheap_recover(h, NULL));
	cr_assert_eq(records(h, p), 1);
	OK(pheap_release(h, p));
	cr_assert(!lives(h, p));
	heap_drop(h);
}

/* --- at the same time --- */

static int hold_by_turns(void *arg)
{
	pheap *h = *(pheap **)arg;
	const void *p = pheap_find(h, "object");

	for (int i = 0; i < 2000; i++) {
		pheap_tx *tx;

		CHECK(pheap_hold(h, p) == 0);
		if (i % 4 == 0) {
			CHECK(pheap_begin(h, PHEAP_CONCURRENT, &tx) == 0);
			int rc = pheap_hold(h, p);
			CHECK(rc == 0 || rc == -EDEADLK);
			pheap_abort(tx);
		}
		CHECK(pheap_release(h, p) == 0);
	}
	return 0;
}

static void named_object(pheap *h)
{
	pheap_tx *tx = begin(h, 0);
	void *p = pheap_alloc(tx, 100, TYPE);

	pattern_fill(p, 100, 7);
	OK(pheap_root_set(tx, "object", p));
	OK(pheap_hold(h, p));
	commit(tx);
}

Test(hold, from_several_threads)
{
	pheap *h = heap_make();
	pthread_t threads[4];

	named_object(h);
	for (int i = 0; i < 4; i++)
		threads[i] = thread_start(hold_by_turns, &h);
	for (int i = 0; i < 4; i++)
		cr_expect_eq(thread_join(threads[i]), 0);
	const void *p = pheap_find(h, "object");
	cr_assert_eq(records(h, p), 1);
	pheap_tx *tx = begin(h, 0);
	OK(pheap_root_set(tx, "object", NULL));
	OK(pheap_release(h, p));
	commit(tx);
	cr_assert_eq(records(h, NULL), 0);
	cr_assert_eq(blocks(h), 0);
	heap_drop(h);
}

static int release_one(void *arg)
{
	pheap *h = *(pheap **)arg;

	CHECK(pheap_release(h, pheap_find(h, "object")) == 0);
	return 0;
}

Test(hold, held_by_one_thread_released_by_another)
{
	pheap *h = heap_make();

	named_object(h);
	OK(pheap_hold(h, pheap_find(h, "object")));
	GIVES(0, thread_run(release_one, &h));
	cr_assert(lives(h, pheap_find(h, "object")));
	heap_drop(h);
}

/* Makes objects of its own, holds those and the shared one, releases some, and is killed at any time. */
static int hold_and_be_killed(void *arg)
{
	struct part *part = arg;
	const void *mine[8] = {0};
	uint64_t seed = random_seed() ^ (uint64_t)getpid();
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	const void *p = pheap_at(h, part->off);
	while (!__atomic_load_n(&part->go, __ATOMIC_ACQUIRE)) {
		unsigned i = (unsigned)(random_next(&seed) % 8);
		pheap_tx *tx;

		CHECK(pheap_hold(h, p) == 0);
		int rc = pheap_begin(h, random_next(&seed) % 2 ? PHEAP_CONCURRENT : 0, &tx);
		CHECK(rc == 0);
		if (mine[i]) {
			rc = pattern_is(mine[i], 200, i) ? pheap_release(h, mine[i]) : -EIO;
		} else {
			mine[i] = pheap_alloc(tx, 200, TYPE + 1);
			if (mine[i])
				pattern_fill((void *)(uintptr_t)mine[i], 200, i);
			rc = mine[i] ? pheap_hold(h, mine[i]) : pheap_error(tx);
		}
		CHECK(rc == 0 || rc == -EDEADLK);
		bool made = pheap_usable_size(h, mine[i]) != 0;
		if (pheap_end(tx, rc) == 0)
			mine[i] = made ? mine[i] : NULL;
		else
			mine[i] = made ? NULL : mine[i];
		CHECK(pattern_is(p, 100, 7));
		CHECK(pheap_release(h, p) == 0);
	}
	CHECK(pheap_close(h) == 0);
	return 0;
}

Test(hold, workers_and_kills)
{
	enum { WORKERS = 3, KILLS = 60 };
	struct part *part = shared_make(sizeof *part);
	pheap *h = heap_make();
	unsigned char *p = object_make(h);
	uint64_t seed = random_seed();
	pid_t pids[WORKERS];

	OK(pheap_hold(h, p));
	part->off = pheap_offset(h, p);
	for (int i = 0; i < WORKERS; i++)
		pids[i] = child_start(hold_and_be_killed, part);
	for (int i = 0; i < KILLS; i++) {
		usleep((useconds_t)(random_next(&seed) % 8000));
		child_kill(pids[i % WORKERS]);
		pids[i % WORKERS] = child_start(hold_and_be_killed, part);
		if (i % 4 == 0)
			OK(pheap_recover(h, NULL));
		cr_assert(pattern_is(p, 100, 7), "kill %d", i);
	}
	flag_set(&part->go, 1);
	for (int i = 0; i < WORKERS; i++)
		cr_expect_eq(child_wait(pids[i]), 0);
	OK(pheap_recover(h, NULL));
	cr_assert_eq(records(h, NULL), 1, "%u", records(h, NULL));
	cr_assert_eq(blocks(h), 1, "%lu blocks are left, one is held", (unsigned long)blocks(h));
	OK(pheap_release(h, p));
	cr_assert_eq(blocks(h), 0);
	heap_drop(h);
}
