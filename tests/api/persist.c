/* SPDX-License-Identifier: MIT
 *
 * persist.c: what was committed is there after close and open, at whatever address; growth; a random model
 * over reopens.
 */
#include "support.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

TestSuite(persist, .timeout = 120);

PHEAP_DECLARE(struct node, 1);
struct node {
	PHEAP_PTR(struct node) next;
	uint64_t value;
};
PHEAP_DECLARE(struct list, 2);
struct list {
	PHEAP_PTR(struct node) first;
	uint64_t count;
};

static void list_push(pheap *h, uint64_t value)
{
	pheap_tx *tx = begin(h, 0);
	const struct list *list = PHEAP_ROOT(tx, "list", struct list);
	struct list *w = PHEAP_MODIFY(tx, list);
	struct node *node = PHEAP_NEW(tx, struct node);

	cr_assert(w && node);
	node->value = value;
	node->next = w->first;
	w->first = PHEAP_REF(tx, struct node, node);
	w->count++;
	commit(tx);
}

Test(persist, a_list_over_many_opens)
{
	pheap *h = heap_make();
	uint64_t value = 0;

	for (int round = 0; round < 30; round++) {
		/* something in the way, so that the address changes */
		void *hole = mmap(NULL, (size_t)(round + 1) * 64 * MIB, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (int i = 0; i < 100; i++)
			list_push(h, value++);
		h = heap_reopen(h);
		if (hole != MAP_FAILED)
			munmap(hole, (size_t)(round + 1) * 64 * MIB);
		const struct list *list = pheap_find(h, "list");
		uint64_t expect = value;
		cr_assert(list);
		cr_assert_eq(list->count, value);
		for (const struct node *n = PHEAP_GET(h, list->first); n; n = PHEAP_GET(h, n->next))
			cr_assert_eq(n->value, --expect);
		cr_assert_eq(expect, 0);
	}
	heap_drop(h);
}

/* The heap grows under the mapping; addresses stay. */
static uint64_t checkpoint_count(pheap *h)
{
	struct pheap_stats stats;

	OK(pheap_stats(h, &stats, sizeof(stats)));
	return stats.checkpoint_count;
}

static pheap *heap_timed(uint32_t flags)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	pheap *h;

	opt.durability = PHEAP_SYNC;
	opt.epoch_ms = 50;
	OK(pheap_open(scratch("timed"), PHEAP_CREATE | flags, &opt, &h));
	return h;
}

/* SYNC: the journal has room, but the last checkpoint is long ago. */
Test(persist, checkpoints_by_time)
{
	pheap *h = heap_timed(0);
	uint64_t before;

	list_push(h, 1);
	before = checkpoint_count(h);
	usleep(60000);
	list_push(h, 2);
	list_push(h, 3);
	cr_assert_gt(checkpoint_count(h), before);
	OK(pheap_close(h));
	/* by a thread: nobody commits any more */
	h = heap_timed(PHEAP_KEEPER);
	list_push(h, 4);
	before = checkpoint_count(h);
	for (int i = 0; i < 10000 && checkpoint_count(h) == before; i++)
		usleep(1000);
	cr_assert_gt(checkpoint_count(h), before);
	OK(pheap_close(h));
	OK(pheap_open(scratch("timed"), PHEAP_KEEPER, NULL, &h));
	cr_assert_eq(((const struct list *)pheap_find(h, "list"))->count, 4);
	OK(pheap_close(h));
}

/* Who makes a checkpoint in a commit has waited for it, and says how long. */
Test(persist, stalls_are_counted)
{
	struct pheap_stats before, after;
	pheap *h = heap_timed(0);

	OK(pheap_stats(h, &before, sizeof(before)));
	for (int i = 0; i < 8; i++) {
		list_push(h, (uint64_t)i);
		usleep(60000);
	}
	OK(pheap_stats(h, &after, sizeof(after)));
	cr_assert_geq(after.stall_count, before.stall_count + 3);
	cr_assert_gt(after.stall_ns, before.stall_ns);
	cr_assert_geq(after.stall_ns, after.stall_max_ns);
	cr_assert_gt(after.stall_p99_ns, 0);
	cr_assert_leq(after.stall_p99_ns, after.stall_max_ns);
	OK(pheap_close(h));
}

Test(persist, growth)
{
	struct pheap_options opt = test_options();

	opt.max_size = 256 * MIB;
	opt.initial_size = 0;
	pheap *h = heap_make_with(&opt);
	const void *base = info_of(h).base;
	uint64_t small = info_of(h).file_size;
	pheap_off offs[100];
	for (size_t i = 0; i < 100; i++) {
		unsigned char *p = block_make(h, MIB, 1);
		pheap_tx *tx = begin(h, 0);
		pattern_fill(pheap_modify(tx, p, MIB), MIB, i);
		commit(tx);
		offs[i] = pheap_offset(h, p);
		cr_assert_eq(info_of(h).base, base);
	}
	cr_assert_gt(info_of(h).file_size, small);
	cr_assert_geq(info_of(h).file_size, 100 * MIB);
	cr_assert_leq(info_of(h).file_size, 256 * MIB);
	h = heap_reopen(h);
	for (size_t i = 0; i < 100; i++)
		cr_assert(pattern_is(pheap_at(h, offs[i]), MIB, i));
	heap_drop(h);
}

struct grower {
	pheap *h;
	uint64_t salt;
};

static int grow_body(void *arg)
{
	struct grower *g = arg;

	for (size_t i = 0; i < 60; i++) {
		pheap_tx *tx;
		CHECK(pheap_begin(g->h, PHEAP_CONCURRENT, &tx) == 0);
		unsigned char *p = pheap_alloc(tx, 200000, 1);
		CHECK(p);
		pattern_fill(p, 200000, g->salt);
		CHECK(pheap_commit(tx) == 0);
		CHECK(pattern_is(p, 200000, g->salt));
	}
	return 0;
}

Test(persist, growth_while_other_threads_run)
{
	struct pheap_options opt = test_options();
	struct grower growers[4];
	pthread_t threads[4];
	size_t count = 0;

	opt.max_size = 256 * MIB;
	pheap *h = heap_make_with(&opt);
	for (uint64_t i = 0; i < 4; i++) {
		growers[i] = (struct grower){h, i};
		threads[i] = thread_start(grow_body, &growers[i]);
	}
	for (int i = 0; i < 4; i++)
		cr_expect_eq(thread_join(threads[i]), 0);
	h = heap_reopen(h);
	for (const unsigned char *p = NULL; (p = pheap_next(h, 1, p)); count++) {
		uint64_t salt = 0;
		while (salt < 4 && p[0] != pattern(salt, 0))
			salt++;
		cr_assert(pattern_is(p, 200000, salt));
	}
	cr_assert_eq(count, 240);
	heap_drop(h);
}

/* --- random model over reopens --- */

enum { SLOTS = 200 };

struct slot {
	pheap_off off;
	size_t n;
	uint64_t salt;
	uint32_t type;
};

static struct slot slots[SLOTS], next_slots[SLOTS];

static void slots_check(pheap *h, uint64_t seed, int round)
{
	size_t count = 0, seen = 0;

	for (size_t i = 0; i < SLOTS; i++) {
		if (!slots[i].off)
			continue;
		const void *p = pheap_at(h, slots[i].off);
		count++;
		cr_assert(pattern_is(p, slots[i].n, slots[i].salt), "seed %#lx round %d slot %zu size %zu",
			  (unsigned long)seed, round, i, slots[i].n);
		cr_assert_eq(pheap_type_of(h, p), slots[i].type);
	}
	for (uint32_t type = 1; type < 4; type++)
		for (const void *p = NULL; (p = pheap_next(h, type, p));)
			seen++;
	cr_assert_eq(seen, count, "seed %#lx round %d: %zu blocks, expected %zu", (unsigned long)seed, round,
		     seen, count);
}

static void slot_change(pheap *h, pheap_tx *tx, struct slot *s, uint64_t *state)
{
	uint64_t r = random_next(state);
	size_t n = r % 10 ? 1 + (r >> 8) % 600 : 1 + (r >> 8) % 80000;
	const void *p = pheap_at(h, s->off);
	unsigned char *q;

	if (!p) {
		s->type = (uint32_t)(1 + (r >> 40) % 3);
		q = pheap_alloc(tx, n, s->type);
	} else if (r % 3 == 0) {
		OK(pheap_free(tx, p));
		s->off = 0;
		return;
	} else if (r % 3 == 1) {
		q = pheap_realloc(tx, p, n);
		cr_assert(q && pattern_is(q, n < s->n ? n : s->n, s->salt), "realloc from %zu to %zu", s->n,
			  n);
	} else {
		n = s->n;
		q = pheap_modify(tx, p, n);
	}
	cr_assert(q, "%d %s", pheap_error(tx), pheap_error_detail(h));
	s->n = n;
	s->salt = r >> 16;
	s->off = pheap_offset(h, q);
	pattern_fill(q, n, s->salt);
}

Test(persist, random_model)
{
	uint64_t seed = random_seed(), state = seed;
	pheap *h = heap_make();

	for (int round = 0; round < 3000; round++) {
		pheap_tx *tx = begin(h, random_next(&state) % 2 ? PHEAP_CONCURRENT : 0);
		size_t changed[12], count = 1 + random_next(&state) % 12;
		memcpy(next_slots, slots, sizeof slots);
		for (size_t i = 0; i < count; i++) {
			changed[i] = random_next(&state) % SLOTS;
			slot_change(h, tx, &next_slots[changed[i]], &state);
		}
		if (random_next(&state) % 3) {
			commit(tx);
			memcpy(slots, next_slots, sizeof slots);
		} else {
			pheap_abort(tx);
		}
		if (round % 10 == 0)
			slots_check(h, seed, round);
		if (round % 100 == 99) {
			h = heap_reopen(h);
			slots_check(h, seed, round);
		}
	}
	heap_drop(h);
}

/* ---- a cut, as far as a file can show it: all is there, and another boot ---- */

enum { EXTENT = 300000 };

static void other_boot(struct phd_state *state)
{
	state->boot_id[0] ^= 0x55;
}

/* The checkpoint copies what is to be undone, which is then undone by this one; and another one has the chunks. */
static int undone_and_taken(void *arg)
{
	pheap_savepoint_id sp;
	unsigned char *p, *q;
	pheap_tx *tx;
	pheap *h;

	(void)arg;
	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	p = pheap_alloc(tx, EXTENT, 2);
	CHECK(p);
	pattern_fill(p, EXTENT, 1);
	CHECK(pheap_savepoint(tx, &sp) == 0);
	CHECK(pheap_modify(tx, p, EXTENT));
	pattern_fill(p, EXTENT, 2);
	CHECK(pheap_checkpoint(h) == 0);
	pheap_abort(tx);
	CHECK(pheap_begin(h, 0, &tx) == 0);
	q = pheap_alloc(tx, EXTENT, 3);
	CHECK(q == p);
	pattern_fill(q, EXTENT, 3);
	CHECK(pheap_commit(tx) == 0);
	raise(SIGKILL);
	return 0;
}

Test(persist, what_was_undone_stays_away)
{
	struct pheap_options opt = test_options();

	opt.durability = PHEAP_SYNC;
	opt.journal_size = 8 * MIB;
	heap_drop(heap_make_with(&opt));
	cr_assert_eq(child_run(undone_and_taken, NULL), 1000 + SIGKILL);
	file_edit_state(scratch("heap"), other_boot);
	pheap *h;
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	const unsigned char *p = pheap_next(h, 3, NULL);
	cr_assert(p && pattern_is(p, EXTENT, 3), "an aborted transaction's bytes came back");
	cr_assert_null(pheap_next(h, 2, NULL));
	heap_drop(h);
}
