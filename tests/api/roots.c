/* SPDX-License-Identifier: MIT
 *
 * roots.c: named roots: found or created as one step, checked, rebound, removed, listed.
 */
#include "support.h"

TestSuite(roots, .timeout = 60);

static const void *root_make(pheap *h, const char *name, size_t n, uint32_t type)
{
	pheap_tx *tx = begin(h, 0);
	const void *p = pheap_root(tx, name, n, type);

	cr_assert(p, "%s: %d", name, pheap_error(tx));
	commit(tx);
	return p;
}

Test(roots, created_zeroed_and_found)
{
	pheap *h = heap_make();

	/* dirty the space first */
	pheap_tx *tx = begin(h, 0);
	for (int i = 0; i < 100; i++)
		memset(pheap_alloc(tx, 1000, 4), 0xff, 1000);
	commit(tx);
	tx = begin(h, 0);
	for (const void *p = NULL; (p = pheap_next(h, 4, p));)
		OK(pheap_free(tx, p));
	commit(tx);

	cr_assert_null(pheap_find(h, "bank"));
	tx = begin(h, 0);
	const unsigned char *p = pheap_root(tx, "bank", 1000, 4);
	cr_assert(p && bytes_are(p, 1000, 0));
	cr_assert_eq(pheap_root(tx, "bank", 1000, 4), p, "the second call finds it");
	unsigned char *w = pheap_modify(tx, p, 1000);
	memset(w, 3, 1000);
	commit(tx);
	cr_assert_eq(pheap_find(h, "bank"), p);
	cr_assert(bytes_are(p, 1000, 3));
	cr_assert_eq(pheap_type_of(h, p), 4);
	cr_assert_geq(pheap_usable_size(h, p), 1000);
	pheap_off off = pheap_offset(h, p);
	h = heap_reopen(h);
	p = pheap_find(h, "bank");
	cr_assert_eq(pheap_offset(h, p), off);
	cr_assert(bytes_are(p, 1000, 3));
	tx = begin(h, 0);
	cr_assert_eq(pheap_root(tx, "bank", 1000, 4), p);
	commit(tx);
	heap_drop(h);
}

Test(roots, abort_of_the_creation)
{
	pheap *h = heap_make();
	uint64_t blocks = stats_of(h).block_count;
	char name[64] = "";

	for (int i = 0; i < 10; i++) {
		pheap_tx *tx = begin(h, 0);
		const unsigned char *p = pheap_root(tx, "r", 100, 4);
		cr_assert(p && bytes_are(p, 100, 0));
		memset(pheap_modify(tx, p, 100), 1, 100);
		pheap_abort(tx);
		cr_assert_null(pheap_find(h, "r"));
	}
	GIVES(-ENOENT, pheap_root_next(h, name));
	cr_assert_eq(stats_of(h).block_count, blocks);
	cr_assert(bytes_are(root_make(h, "r", 100, 4), 100, 0));
	heap_drop(h);
}

Test(roots, size_and_type_are_checked)
{
	pheap *h = heap_make();
	static const struct {
		size_t n;
		uint32_t type;
	} wrong[] = {{104, 4}, {96, 4}, {100, 5}, {1, 4}, {100, 0}};
	const void *p = root_make(h, "r", 100, 4);

	for (size_t i = 0; i < 5; i++) {
		pheap_tx *tx = begin(h, 0);
		cr_assert_null(pheap_root(tx, "r", wrong[i].n, wrong[i].type), "%zu", i);
		GIVES(PHEAP_ELAYOUT, pheap_error(tx));
		cr_assert(strstr(pheap_error_detail(h), "r"));
		GIVES(PHEAP_ELAYOUT, pheap_commit(tx));
	}
	cr_assert_eq(root_make(h, "r", 100, 4), p);
	heap_drop(h);
}

Test(roots, wrong_arguments)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);

	cr_assert_null(pheap_root(tx, "", 8, 1));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, 0);
	cr_assert_null(pheap_root(tx, NULL, 8, 1));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, 0);
	cr_assert_null(pheap_root(tx, "r", 0, 1));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, 0);
	cr_assert_null(pheap_root(tx, "r", 8, 65536));
	GIVES(-EINVAL, pheap_commit(tx));
	cr_assert_null(pheap_find(h, ""));
	heap_drop(h);
}

Test(roots, longest_name)
{
	pheap *h = heap_make();
	char name[65], listed[64] = "";

	memset(name, 'n', 64);
	name[64] = 0;
	pheap_tx *tx = begin(h, 0);
	cr_assert_null(pheap_root(tx, name, 8, 1), "64 bytes");
	GIVES(-EINVAL, pheap_commit(tx));
	unsigned char *p = block_make(h, 8, 1);
	tx = begin(h, 0);
	GIVES(-EINVAL, pheap_root_set(tx, name, p));
	pheap_abort(tx);
	cr_assert_null(pheap_find(h, name));
	name[63] = 0;
	const void *root = root_make(h, name, 8, 1);
	cr_assert_eq(pheap_find(h, name), root, "63 bytes");
	OK(pheap_root_next(h, listed));
	cr_assert_str_eq(listed, name);
	name[62] = 0;
	cr_assert_null(pheap_find(h, name));
	heap_drop(h);
}

Test(roots, rebind_and_remove)
{
	pheap *h = heap_make();
	const unsigned char *first = root_make(h, "r", 100, 4);
	unsigned char *p = block_make(h, 300, 6);

	pheap_tx *tx = begin(h, 0);
	OK(pheap_root_set(tx, "r", p));
	pheap_abort(tx);
	cr_assert_eq(pheap_find(h, "r"), first);
	tx = begin(h, 0);
	OK(pheap_root_set(tx, "r", p));
	OK(pheap_free(tx, first));
	commit(tx);
	cr_assert_eq(pheap_find(h, "r"), p);
	tx = begin(h, 0);
	OK(pheap_root_set(tx, "other", p));
	commit(tx);
	cr_assert_eq(pheap_find(h, "other"), p, "two names for one block");
	tx = begin(h, 0);
	OK(pheap_root_set(tx, "r", NULL));
	commit(tx);
	cr_assert_null(pheap_find(h, "r"));
	cr_assert_eq(pheap_find(h, "other"), p);
	h = heap_reopen(h);
	cr_assert_null(pheap_find(h, "r"));
	cr_assert(pheap_find(h, "other"));
	/* a removed name can be created again */
	cr_assert(bytes_are(root_make(h, "r", 50, 7), 50, 0));
	tx = begin(h, 0);
	OK(pheap_root_set(tx, "never", NULL));
	commit(tx);
	heap_drop(h);
}

Test(roots, set_to_what_is_no_block)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 300, 6);
	int local;

	pheap_tx *tx = begin(h, 0);
	GIVES(-EINVAL, pheap_root_set(tx, "r", p + 8));
	GIVES(-EINVAL, pheap_commit(tx));
	tx = begin(h, 0);
	GIVES(PHEAP_EFOREIGN, pheap_root_set(tx, "r", &local));
	GIVES(PHEAP_EFOREIGN, pheap_commit(tx));
	cr_assert_null(pheap_find(h, "r"));
	heap_drop(h);
}

/* A block allocated in this transaction can be bound in it. */
Test(roots, set_to_a_fresh_block)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);
	unsigned char *p = pheap_zalloc(tx, 40, 2);

	OK(pheap_root_set(tx, "fresh", p));
	commit(tx);
	cr_assert_eq(pheap_find(h, "fresh"), p);
	heap_drop(h);
}

Test(roots, listing)
{
	enum { COUNT = 500 };
	static unsigned char seen[COUNT];
	pheap *h = heap_make();
	char name[64] = "";
	size_t count = 0;

	GIVES(-ENOENT, pheap_root_next(h, name));
	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof name, "root %d", i);
		root_make(h, name, 8, 1);
	}
	pheap_tx *tx = begin(h, 0);
	for (int i = 0; i < COUNT; i += 5) {
		snprintf(name, sizeof name, "root %d", i);
		OK(pheap_root_set(tx, name, NULL));
	}
	commit(tx);
	int rc;
	for (name[0] = 0; !(rc = pheap_root_next(h, name)); count++) {
		int i;
		cr_assert_eq(sscanf(name, "root %d", &i), 1);
		cr_assert(i >= 0 && i < COUNT);
		cr_assert_eq(seen[i]++, 0);
		cr_assert_neq(i % 5, 0, "removed names are not listed");
	}
	GIVES(-ENOENT, rc);
	cr_assert_eq(count, COUNT - COUNT / 5);
	heap_drop(h);
}

/* --- many at once --- */

struct creator {
	pheap *h;
	uint32_t *start;
	uint32_t flags;
	const void *found[50];
	int created;
};

static int create_them(void *arg)
{
	struct creator *c = arg;
	char name[64];

	flag_wait(c->start, 1);
	for (int i = 0; i < 50; i++) {
		pheap_tx *tx;
		int rc;
		snprintf(name, sizeof name, "shared %d", i);
		do {
			CHECK(pheap_begin(c->h, c->flags, &tx) == 0);
			const uint64_t *p = pheap_root(tx, name, 64, 3);
			c->found[i] = p;
			if (p && i % 2 == 0) {
				/* the names are locked to the end: the counter in the block is safe */
				uint64_t *w = pheap_modify(tx, p, 8);
				if (w && c->flags == 0)
					*w += 1;
			}
			rc = pheap_commit(tx);
		} while (rc == -EDEADLK);
		CHECK(rc == 0);
	}
	return 0;
}

static void creators_run(uint32_t flags)
{
	enum { THREADS = 8 };
	static struct creator creators[THREADS];
	pthread_t threads[THREADS];
	uint32_t start = 0;
	pheap *h = heap_make();
	size_t count = 0;

	for (int i = 0; i < THREADS; i++) {
		creators[i] = (struct creator){.h = h, .start = &start, .flags = flags};
		threads[i] = thread_start(create_them, &creators[i]);
	}
	flag_set(&start, 1);
	for (int i = 0; i < THREADS; i++)
		cr_expect_eq(thread_join(threads[i]), 0);
	for (int i = 0; i < THREADS; i++)
		for (int k = 0; k < 50; k++)
			cr_assert_eq(creators[i].found[k], creators[0].found[k]);
	for (const void *p = NULL; (p = pheap_next(h, 3, p));)
		count++;
	cr_assert_eq(count, 50, "one block for each name: %zu", count);
	if (!flags)
		cr_assert_eq(*(const uint64_t *)creators[0].found[0], THREADS);
	heap_drop(h);
}

Test(roots, find_or_create_by_many_threads)
{
	creators_run(0);
}

Test(roots, find_or_create_by_many_concurrent_threads)
{
	creators_run(PHEAP_CONCURRENT);
}
