/* SPDX-License-Identifier: MIT
 *
 * memory.c: modify, store, defer, defer_u64: byte-exact, now or at commit, overlaps as if in call order.
 * The model of the random test keeps two pictures: what loads see, and what commit will add to it.
 */
#include "support.h"

#include <unistd.h>

TestSuite(memory, .timeout = 120);

enum { ARENA = 8192 };

/* A store next to a declared range that nobody declared must outlive the abort: the range is not rounded
 * up. */
Test(memory, modify_is_byte_exact)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, ARENA, 1), expect[400];

	for (size_t off = 0; off < 72; off++)
		for (size_t n = 1; n < 140; n++) {
			pheap_tx *tx = begin(h, 0);
			memset(pheap_modify(tx, p, 400), 0x11, 400);
			commit(tx);
			tx = begin(h, 0);
			cr_assert_eq(pheap_modify(tx, p + 100 + off, n), p + 100 + off);
			memset(p, 0x22, 400); /* on purpose: beyond what was declared */
			pheap_abort(tx);
			memset(expect, 0x22, 400);
			memset(expect + 100 + off, 0x11, n);
			cr_assert(!memcmp(p, expect, 400), "offset %zu size %zu", off, n);
		}
	heap_drop(h);
}

Test(memory, covered_twice)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, ARENA, 1);
	pheap_tx *tx = begin(h, 0);

	for (int round = 0; round < 300; round++) {
		unsigned char *q = pheap_modify(tx, p + 64, 512);
		cr_assert_eq(q, p + 64);
		memset(q, round & 0xff, 512);
		q = pheap_modify(tx, p + 100, 8);
		memset(q, ~round & 0xff, 8);
	}
	pheap_abort(tx);
	cr_assert(bytes_are(p, ARENA, 0));
	heap_drop(h);
}

Test(memory, ranges_that_overlap)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, ARENA, 1);
	static const struct {
		size_t off, n;
	} ranges[] = {{0, 100},	 {50, 100}, {149, 2}, {10, 1000}, {0, 1},    {5, 4000},
		      {0, 8192}, {63, 2},   {64, 64}, {8191, 1},  {4090, 20}};

	for (int committed = 0; committed < 2; committed++) {
		pheap_tx *tx = begin(h, 0);
		for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
			memset(pheap_modify(tx, p + ranges[i].off, ranges[i].n), (int)i + 1, ranges[i].n);
		if (committed) {
			commit(tx);
			cr_assert(bytes_are(p + 4090, 20, 11));
		} else {
			pheap_abort(tx);
			cr_assert(bytes_are(p, ARENA, 0));
		}
	}
	heap_drop(h);
}

Test(memory, store)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, ARENA, 1), bytes[300];
	pheap_tx *tx = begin(h, 0);

	pattern_fill(bytes, 300, 5);
	OK(pheap_store(tx, p + 33, bytes, 300));
	cr_assert(!memcmp(p + 33, bytes, 300), "visible to the next load");
	cr_assert_eq(p[32], 0);
	cr_assert_eq(p[333], 0);
	/* the source may be heap memory that overlaps the target */
	OK(pheap_store(tx, p + 40, p + 33, 300));
	cr_assert(!memcmp(p + 40, bytes, 300));
	OK(pheap_store(tx, p, NULL, 0));
	pheap_abort(tx);
	cr_assert(bytes_are(p, ARENA, 0));
	heap_drop(h);
}

Test(memory, defer_shows_the_old_bytes)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, ARENA, 1), bytes[300];
	pheap_tx *tx = begin(h, 0);

	pattern_fill(bytes, 300, 6);
	OK(pheap_defer(tx, p + 5, bytes, 300));
	cr_assert(bytes_are(p, ARENA, 0));
	memset(bytes, 0, 300); /* the source is copied by the call */
	commit(tx);
	cr_assert(pattern_is(p + 5, 300, 6));
	cr_assert(bytes_are(p, 5, 0));
	cr_assert_eq(p[305], 0);
	tx = begin(h, 0);
	OK(pheap_defer(tx, p + 5, bytes, 300));
	pheap_abort(tx);
	cr_assert(pattern_is(p + 5, 300, 6), "an abort drops it");
	heap_drop(h);
}

Test(memory, defer_u64)
{
	pheap *h = heap_make();
	uint64_t *words = (uint64_t *)(void *)block_make(h, ARENA, 1);
	pheap_tx *tx = begin(h, 0);

	OK(pheap_defer_u64(tx, &words[3], 0x0123456789abcdefu));
	cr_assert_eq(words[3], 0);
	commit(tx);
	cr_assert_eq(words[3], 0x0123456789abcdefu);
	tx = begin(h, 0);
	GIVES(-EINVAL, pheap_defer_u64(tx, (uint64_t *)(void *)((char *)words + 4), 1));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, 0);
	OK(pheap_defer_u64(tx, &words[4], 1));
	pheap_abort(tx);
	cr_assert_eq(words[4], 0);
	heap_drop(h);
}

struct publish {
	const uint64_t *word;
	const unsigned char *bytes;
	uint32_t stop;
	uint64_t seen;
};

enum { PUBLISHED = 2048 };

/* A reader without a lock: whoever sees number k sees the bytes that were deferred with k, or later ones. */
static int publish_reader(void *arg)
{
	struct publish *publish = arg;

	while (!__atomic_load_n(&publish->stop, __ATOMIC_ACQUIRE)) {
		uint64_t k = __atomic_load_n(publish->word, __ATOMIC_ACQUIRE), n = PUBLISHED / 8;
		for (size_t i = 0; i < n; i++) {
			uint64_t there = __atomic_load_n(&((const uint64_t *)(const void *)publish->bytes)[i],
							 __ATOMIC_RELAXED);
			CHECK(there >= k);
		}
		publish->seen += k > 0;
	}
	return 0;
}

Test(memory, defer_u64_is_the_last_store)
{
	pheap *h = heap_make();
	uint64_t *words = (uint64_t *)(void *)block_make(h, ARENA, 1), bytes[PUBLISHED / 8];
	struct publish publish = {&words[0], (unsigned char *)&words[8], 0, 0};
	pthread_t reader = thread_start(publish_reader, &publish);

	for (uint64_t k = 1; k < 20000; k++) {
		pheap_tx *tx = begin(h, PHEAP_CONCURRENT);
		for (size_t i = 0; i < PUBLISHED / 8; i++)
			bytes[i] = k;
		OK(pheap_defer_u64(tx, &words[0], k)); /* first in call order, last in memory */
		OK(pheap_defer(tx, &words[8], bytes, sizeof bytes));
		commit(tx);
		cr_assert_eq(words[0], k);
	}
	__atomic_store_n(&publish.stop, 1, __ATOMIC_RELEASE);
	cr_assert_eq(thread_join(reader), 0);
	heap_drop(h);
}

/* --- overlaps of now and at commit --- */

Test(memory, defer_then_store)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, ARENA, 1);
	pheap_tx *tx = begin(h, 0);

	OK(pheap_defer(tx, p, "deferred", 8));
	OK(pheap_store(tx, p + 2, "now", 3));
	cr_assert_eq(memcmp(p + 2, "now", 3), 0);
	commit(tx);
	cr_assert_eq(memcmp(p, "denowred", 8), 0, "the later call wins where they overlap: %.8s", (char *)p);
	heap_drop(h);
}

Test(memory, store_then_defer)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, ARENA, 1);
	pheap_tx *tx = begin(h, 0);

	OK(pheap_store(tx, p + 2, "now", 3));
	OK(pheap_defer(tx, p, "deferred", 8));
	cr_assert_eq(memcmp(p, "\0\0now\0\0\0", 8), 0);
	commit(tx);
	cr_assert_eq(memcmp(p, "deferred", 8), 0);
	heap_drop(h);
}

Test(memory, defer_over_defer)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, ARENA, 1);
	pheap_tx *tx = begin(h, 0);

	OK(pheap_defer(tx, p, "first...", 8));
	OK(pheap_defer(tx, p + 4, "second..", 8));
	OK(pheap_defer(tx, p + 6, "3", 1));
	commit(tx);
	cr_assert_eq(memcmp(p, "firsse3ond..", 12), 0, "%.12s", (char *)p);
	heap_drop(h);
}

Test(memory, defer_u64_then_others)
{
	pheap *h = heap_make();
	uint64_t *w = (uint64_t *)(void *)block_make(h, ARENA, 1), v = 0x1111111111111111u;
	pheap_tx *tx = begin(h, 0);

	OK(pheap_defer_u64(tx, &w[0], 1));
	OK(pheap_defer_u64(tx, &w[0], 2));
	OK(pheap_defer_u64(tx, &w[1], 3));
	OK(pheap_store(tx, &w[1], &v, 8));
	OK(pheap_defer_u64(tx, &w[2], 4));
	OK(pheap_defer(tx, &w[2], &v, 8));
	OK(pheap_defer(tx, &w[3], &v, 8));
	OK(pheap_defer_u64(tx, &w[3], 5));
	OK(pheap_store(tx, &w[4], &v, 8));
	OK(pheap_defer_u64(tx, &w[4], 6));
	commit(tx);
	cr_assert_eq(w[0], 2);
	cr_assert_eq(w[1], v, "a store after it wins: %#lx", (unsigned long)w[1]);
	cr_assert_eq(w[2], v, "a defer after it wins: %#lx", (unsigned long)w[2]);
	cr_assert_eq(w[3], 5);
	cr_assert_eq(w[4], 6);
	heap_drop(h);
}

Test(memory, defer_u64_partly_overlapped)
{
	pheap *h = heap_make();
	uint64_t *w = (uint64_t *)(void *)block_make(h, ARENA, 1);
	unsigned char *bytes = (unsigned char *)w;
	pheap_tx *tx = begin(h, 0);

	OK(pheap_defer_u64(tx, &w[0], 0x8877665544332211u));
	OK(pheap_store(tx, bytes + 2, "\xaa\xbb", 2));
	OK(pheap_defer_u64(tx, &w[1], 0x8877665544332211u));
	OK(pheap_defer(tx, bytes + 8 + 6, "\xaa\xbb\xcc", 3));
	commit(tx);
	cr_assert_eq(w[0], 0x88776655bbaa2211u, "%#lx", (unsigned long)w[0]);
	cr_assert_eq(w[1], 0xbbaa665544332211u, "%#lx", (unsigned long)w[1]);
	cr_assert_eq(bytes[16], 0xcc);
	heap_drop(h);
}

/* A modify of deferred bytes is a later call: it sees what was deferred, so that half of it can be kept. */
Test(memory, modify_of_deferred_bytes_sees_them)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, ARENA, 1);
	pheap_tx *tx = begin(h, 0);

	OK(pheap_defer(tx, p, "deferred", 8));
	unsigned char *q = pheap_modify(tx, p + 2, 4);
	cr_assert_eq(memcmp(q, "ferr", 4), 0);
	q[1] = 'E';
	pheap_abort(tx);
	cr_assert(bytes_are(p, ARENA, 0));
	tx = begin(h, 0);
	OK(pheap_defer(tx, p, "deferred", 8));
	q = pheap_modify(tx, p + 2, 4);
	q[1] = 'E';
	commit(tx);
	cr_assert_eq(memcmp(p, "defErred", 8), 0, "%.8s", (char *)p);
	heap_drop(h);
}

/* --- everything at random against the model --- */

/* `now`: bytes as after all calls so far; `deferred`: a deferred store of this byte was asked for since the
 * begin, so a load may see an older value until commit; `seen`: what loads saw when a savepoint was set. */
struct picture {
	unsigned char now[ARENA], seen[ARENA];
	bool deferred[ARENA];
};

static struct picture committed_picture, current_picture, saved[8];

static size_t random_length(uint64_t r)
{
	switch (r % 4) {
	case 0:
		return 1 + (r >> 3) % 9;
	case 1:
		return 8;
	case 2:
		return 1 + (r >> 3) % 130;
	default:
		return 1 + (r >> 3) % 1200;
	}
}

static void picture_now(struct picture *pic, size_t off, const void *bytes, size_t n)
{
	memcpy(pic->now + off, bytes, n);
	memset(pic->deferred + off, 0, n);
}

static void picture_later(struct picture *pic, size_t off, const void *bytes, size_t n)
{
	memcpy(pic->now + off, bytes, n);
	memset(pic->deferred + off, 1, n);
}

/* Loads see the old bytes of what is deferred, the new ones of everything else. */
static bool picture_fits(const struct picture *pic, const unsigned char *p)
{
	for (size_t i = 0; i < ARENA; i++)
		if (!pic->deferred[i] && p[i] != pic->now[i])
			return false;
	return true;
}

static void random_change(pheap_tx *tx, unsigned char *p, uint64_t *state, uint64_t span)
{
	uint64_t r = random_next(state), value = random_next(state);
	size_t n = random_length(random_next(state)), off;
	unsigned char bytes[ARENA];

	if (n > span)
		n = span;
	off = r % (span - n + 1);
	pattern_fill(bytes, n, value);
	switch ((r >> 32) % 5) {
	case 0:
		memcpy(pheap_modify(tx, p + off, n), bytes, n);
		picture_now(&current_picture, off, bytes, n);
		break;
	case 1:
		OK(pheap_store(tx, p + off, bytes, n));
		picture_now(&current_picture, off, bytes, n);
		break;
	case 2:
	case 3:
		OK(pheap_defer(tx, p + off, bytes, n));
		picture_later(&current_picture, off, bytes, n);
		break;
	default:
		off = off / 8 * 8;
		OK(pheap_defer_u64(tx, (const uint64_t *)(const void *)(p + off), value));
		picture_later(&current_picture, off, &value, 8);
	}
}

static void random_transaction(pheap *h, unsigned char *p, uint64_t *state)
{
	pheap_tx *tx = begin(h, random_next(state) % 2 ? PHEAP_CONCURRENT : 0);
	pheap_savepoint_id ids[8];
	uint64_t span = random_next(state) % 3 ? 200 : ARENA, steps = random_next(state) % 40, depth = 0;

	current_picture = committed_picture;
	while (steps--) {
		uint64_t r = random_next(state);
		if (r % 8 == 0 && depth < 8) {
			OK(pheap_savepoint(tx, &ids[depth]));
			memcpy(current_picture.seen, p, ARENA);
			saved[depth++] = current_picture;
		} else if (r % 8 == 1 && depth) {
			/* a savepoint stays after a rollback to it; later ones are gone */
			size_t to = (r >> 8) % depth;
			OK(pheap_rollback(tx, ids[to]));
			current_picture = saved[to];
			depth = to + 1;
			cr_assert(!memcmp(p, current_picture.seen, ARENA), "loads after a rollback");
		} else {
			random_change(tx, p, state, span);
		}
		cr_assert(picture_fits(&current_picture, p), "what loads see, %lu steps left",
			  (unsigned long)steps);
	}
	if (random_next(state) % 3) {
		commit(tx);
		memset(current_picture.deferred, 0, ARENA);
		committed_picture = current_picture;
	} else {
		pheap_abort(tx);
	}
}

Test(memory, random_model)
{
	uint64_t seed = random_seed(), state;
	pheap *h = heap_make();
	unsigned char *p = block_make(h, ARENA, 1);

	for (uint64_t round = 0; round < 8000; round++) {
		state = seed + round;
		random_transaction(h, p, &state);
		for (size_t i = 0; i < ARENA; i++)
			cr_assert(p[i] == committed_picture.now[i],
				  "seed %#lx round %lu: byte %zu is %#x, expected %#x", (unsigned long)seed,
				  (unsigned long)round, i, p[i], committed_picture.now[i]);
	}
	heap_drop(h);
}
