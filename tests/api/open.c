/* SPDX-License-Identifier: MIT
 *
 * open.c: pheap_open, pheap_close, pheap_info on files that are as they should be: flags, options, layout,
 * types, identity. Files that must be refused are in refuse.c.
 */
#include "support.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(open, .timeout = 60);

Test(open, creates_and_opens_again)
{
	pheap *h = heap_make();
	struct pheap_info info = info_of(h);

	cr_assert(info.was_clean || !info.recovered_back);
	cr_assert_eq(info.recovered_back, 0);
	cr_assert_eq(info.recovered_forward, 0);
	cr_assert_eq(info.max_size, 64 * MIB);
	cr_assert_eq(info.durability, test_durability());
	cr_assert_eq(info.chunk_size, PHD_CHUNK_SIZE);
	cr_assert_eq(info.read_only, 0);
	cr_assert_eq(info.format_version, PHD_VERSION);
	cr_assert_neq(info.member, 0);
	cr_assert_not_null(info.base);

	uint8_t uuid[16];
	memcpy(uuid, info.uuid, 16);
	cr_assert(!bytes_are(uuid, 16, 0));
	h = heap_reopen(h);
	info = info_of(h);
	cr_assert_arr_eq(uuid, info.uuid, 16);
	cr_assert_eq(info.was_clean, 1);
	cr_assert_eq(info.durability, test_durability());
	heap_drop(h);
}

Test(open, missing_file)
{
	pheap *h = (pheap *)1;

	GIVES(-ENOENT, pheap_open(scratch("none"), 0, NULL, &h));
	cr_assert_null(h, "a failed open leaves no handle");
	cr_assert(pheap_error_detail(NULL)[0], "a sentence says what to do");
	GIVES(-ENOENT, pheap_open(scratch("no/folder"), PHEAP_CREATE, NULL, &h));
	cr_assert(access(scratch("none"), F_OK) != 0, "a failed open creates nothing");
}

Test(open, create_without_options)
{
	pheap *h;

	OK(pheap_open(scratch("heap"), PHEAP_CREATE, NULL, &h));
	cr_assert_eq(info_of(h).durability, PHEAP_SYNC);
	cr_assert_geq(info_of(h).max_size, 1 * MIB);
	heap_drop(h);
}

Test(open, create_opens_an_existing_one)
{
	pheap *h = heap_make();
	unsigned char *p = block_make(h, 100, 1);
	pheap_off off = pheap_offset(h, p);

	heap_drop(h);
	struct pheap_options opt = test_options();
	OK(pheap_open(scratch("heap"), PHEAP_CREATE, &opt, &h));
	cr_assert_eq(pheap_type_of(h, pheap_at(h, off)), 1);
	heap_drop(h);
}

Test(open, excl)
{
	struct pheap_options opt = test_options();
	pheap *h;

	OK(pheap_open(scratch("heap"), PHEAP_CREATE | PHEAP_EXCL, &opt, &h));
	heap_drop(h);
	uint64_t before = file_hash(scratch("heap"));
	GIVES(-EEXIST, pheap_open(scratch("heap"), PHEAP_CREATE | PHEAP_EXCL, &opt, &h));
	cr_assert_eq(file_hash(scratch("heap")), before);
}

Test(open, excl_while_open_here)
{
	struct pheap_options opt = test_options();
	pheap *h = heap_make(), *other;

	GIVES(-EEXIST, pheap_open(scratch("heap"), PHEAP_CREATE | PHEAP_EXCL, &opt, &other));
	heap_drop(h);
}

Test(open, flags_of_other_calls)
{
	static const uint32_t bad[] = {PHEAP_CONCURRENT, PHEAP_READ,  PHEAP_NEST,
				       PHEAP_NOWAIT,	 0x80000000u, 0x8000u};
	struct pheap_options opt = test_options();
	pheap *h;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		GIVES(-EINVAL, pheap_open(scratch("heap"), PHEAP_CREATE | bad[i], &opt, &h));
	cr_assert(access(scratch("heap"), F_OK) != 0);
}

Test(open, null_arguments)
{
	pheap *h;

	GIVES(-EINVAL, pheap_open(NULL, PHEAP_CREATE, NULL, &h));
	GIVES(-EINVAL, pheap_open(scratch("heap"), PHEAP_CREATE, NULL, NULL));
	OK(pheap_close(NULL));
}

Test(open, mode_of_the_file)
{
	struct pheap_options opt = test_options();
	struct stat st;
	pheap *h;

	opt.mode = 0600;
	OK(pheap_open(scratch("heap"), PHEAP_CREATE, &opt, &h));
	cr_assert_eq(stat(scratch("heap"), &st), 0);
	cr_assert_eq(st.st_mode & 0777, 0600);
	heap_drop(h);
}

Test(open, unlinked_leftovers)
{
	pheap *h = heap_make();
	char command[1024];

	heap_drop(h);
	/* one name in the folder: no temporary stays behind */
	snprintf(command, sizeof command, "test $(ls -A \"$(dirname '%s')\" | wc -l) = 1", scratch("heap"));
	cr_assert_eq(system(command), 0);
}

/* --- options --- */

Test(open, options_of_a_newer_program)
{
	struct {
		struct pheap_options opt;
		uint64_t later[4];
	} wide;
	pheap *h;

	memset(&wide, 0, sizeof wide);
	wide.opt = test_options();
	wide.opt.size = sizeof wide;
	wide.later[3] = 1;
	GIVES(-E2BIG, pheap_open(scratch("heap"), PHEAP_CREATE, &wide.opt, &h));
	cr_assert(access(scratch("heap"), F_OK) != 0);
	wide.later[3] = 0;
	OK(pheap_open(scratch("heap"), PHEAP_CREATE, &wide.opt, &h));
	heap_drop(h);
}

Test(open, options_of_an_older_program)
{
	struct pheap_options opt = test_options();
	pheap *h;

	/* what lies past the size given is not looked at */
	opt.size = offsetof(struct pheap_options, layout);
	opt.layout = (const char *)8;
	opt.types = (const struct pheap_type *)8;
	opt.type_count = 1;
	opt.member_count = ~0u;
	OK(pheap_open(scratch("heap"), PHEAP_CREATE, &opt, &h));
	heap_drop(h);
}

Test(open, options_without_a_size)
{
	struct pheap_options opt = test_options();
	pheap *h;

	opt.size = 0;
	GIVES(-EINVAL, pheap_open(scratch("heap"), PHEAP_CREATE, &opt, &h));
}

Test(open, durability)
{
	struct pheap_options opt = test_options();
	pheap *h;

	static const uint32_t levels[] = {PHEAP_PROCESS, PHEAP_EPOCH, PHEAP_SYNC};

	opt.durability = 7;
	GIVES(-EINVAL, pheap_open(scratch("heap"), PHEAP_CREATE, &opt, &h));
	cr_assert(access(scratch("heap"), F_OK) != 0);
	opt.durability = PHEAP_SYNC;
	GIVES(-EINVAL, pheap_open(scratch("heap"), PHEAP_CREATE | PHEAP_EPOCH, &opt, &h));
	for (size_t i = 0; i < 3; i++) {
		opt.durability = levels[i];
		OK(pheap_open(scratch("heap"), PHEAP_CREATE, &opt, &h));
		cr_assert_eq(info_of(h).durability, levels[i]);
		heap_drop(h);
		/* none is the heap's, another one is refused */
		OK(pheap_open(scratch("heap"), 0, NULL, &h));
		heap_drop(h);
		OK(pheap_open(scratch("heap"), levels[i], NULL, &h));
		heap_drop(h);
		GIVES(-EINVAL, pheap_open(scratch("heap"), levels[(i + 1) % 3], NULL, &h));
		cr_assert(strstr(pheap_error_detail(NULL), "created with"));
		unlink(scratch("heap"));
	}
}

Test(open, size_below_the_minimum)
{
	struct pheap_options opt = test_options();
	pheap *h;

	for (uint64_t size = 1; size < PHD_SIZE_MIN; size = size * 3 + 1) {
		opt.max_size = size;
		GIVES(-EINVAL, pheap_open(scratch("heap"), PHEAP_CREATE, &opt, &h));
	}
	opt.max_size = PHD_SIZE_MIN - 1;
	GIVES(-EINVAL, pheap_open(scratch("heap"), PHEAP_CREATE, &opt, &h));
	cr_assert(pheap_error_detail(NULL)[0]);
	opt.max_size = PHD_SIZE_MAX + 1;
	GIVES(-EINVAL, pheap_open(scratch("heap"), PHEAP_CREATE, &opt, &h));
	opt.max_size = MIB;
	opt.initial_size = 2 * MIB;
	GIVES(-EINVAL, pheap_open(scratch("heap"), PHEAP_CREATE, &opt, &h));
	cr_assert(access(scratch("heap"), F_OK) != 0);
}

Test(open, smallest_heap_works)
{
	struct pheap_options opt = test_options();

	opt.durability = PHEAP_PROCESS; /* a journal needs more */
	opt.max_size = PHD_SIZE_MIN;
	pheap *h = heap_make_with(&opt);
	unsigned char *p = block_make(h, 64, 1);
	pheap_tx *tx = begin(h, 0);
	cr_assert(pheap_root(tx, "r", 16, 2));
	OK(pheap_free(tx, p));
	commit(tx);
	cr_assert_leq(info_of(h).file_size, PHD_SIZE_MIN);
	h = heap_reopen(h);
	cr_assert(pheap_find(h, "r"));
	heap_drop(h);
}

Test(open, initial_size_is_there)
{
	struct pheap_options opt = test_options();
	struct stat st;

	opt.initial_size = 8 * MIB;
	pheap *h = heap_make_with(&opt);
	cr_assert_eq(stat(scratch("heap"), &st), 0);
	cr_assert_geq((uint64_t)st.st_size, 8 * MIB - 64 * KIB);
	cr_assert_leq((uint64_t)st.st_size, 64 * MIB);
	heap_drop(h);
}

Test(open, large_ceiling_costs_little)
{
	struct pheap_options opt = test_options();
	struct stat st;

	opt.max_size = 1ull << 38;
	pheap *h = heap_make_with(&opt);
	cr_assert_eq(stat(scratch("heap"), &st), 0);
	cr_assert_leq((uint64_t)st.st_blocks * 512, 64 * MIB);
	block_make(h, 1000, 1);
	heap_drop(h);
}

/* --- layout and types --- */

Test(open, layout_name)
{
	struct pheap_options opt = test_options();
	pheap *h;

	opt.layout = "bank";
	h = heap_make_with(&opt);
	cr_assert_str_eq(info_of(h).layout, "bank");
	heap_drop(h);
	OK(pheap_open(scratch("heap"), 0, &opt, &h));
	heap_drop(h);
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	heap_drop(h);
	opt.layout = "ban";
	GIVES(PHEAP_ELAYOUT, pheap_open(scratch("heap"), 0, &opt, &h));
	opt.layout = "banks";
	GIVES(PHEAP_ELAYOUT, pheap_open(scratch("heap"), 0, &opt, &h));
	cr_assert(pheap_error_detail(NULL)[0]);
	opt.layout = "bank";
	OK(pheap_open(scratch("heap"), 0, &opt, &h));
	heap_drop(h);
}

Test(open, layout_name_length)
{
	char name[65];
	struct pheap_options opt = test_options();
	pheap *h;

	memset(name, 'x', 64);
	name[64] = 0;
	opt.layout = name;
	GIVES(-EINVAL, pheap_open(scratch("heap"), PHEAP_CREATE, &opt, &h));
	name[63] = 0;
	h = heap_make_with(&opt);
	cr_assert_str_eq(info_of(h).layout, name);
	heap_drop(h);
}

struct pair {
	uint64_t left, right;
};

static int open_with_types(const struct pheap_type *types, uint64_t count)
{
	struct pheap_options opt = test_options();
	pheap *h;
	int rc;

	opt.types = types;
	opt.type_count = count;
	rc = pheap_open(scratch("heap"), PHEAP_CREATE, &opt, &h);
	return rc ? rc : pheap_close(h);
}

Test(open, type_table)
{
	static const uint32_t offs[] = {offsetof(struct pair, left), offsetof(struct pair, right)};
	static const uint32_t left_only[] = {offsetof(struct pair, left)};
	const struct pheap_type pair = {1, 8, sizeof(struct pair), "pair", offs, 2};
	const struct pheap_type word = {2, 8, 8, "word", NULL, 0};
	struct pheap_type types[2] = {pair, word};

	OK(open_with_types(types, 1));
	OK(open_with_types(types, 1));
	OK(open_with_types(NULL, 0));
	/* a new row is kept */
	OK(open_with_types(types, 2));
	OK(open_with_types(&word, 1));

	types[1].size = 16;
	GIVES(PHEAP_ELAYOUT, open_with_types(types, 2));
	types[1] = word;
	types[0].size = 24;
	GIVES(PHEAP_ELAYOUT, open_with_types(types, 2));
	cr_assert(pheap_error_detail(NULL)[0]);
	types[0] = pair;
	types[0].align = 16;
	GIVES(PHEAP_ELAYOUT, open_with_types(types, 2));
	types[0] = pair;
	types[0].ptr_offs = left_only;
	types[0].ptr_count = 1;
	GIVES(PHEAP_ELAYOUT, open_with_types(types, 2));
	types[0] = pair;
	OK(open_with_types(types, 2));
}

Test(open, type_table_with_faults)
{
	static const uint32_t past[] = {9};
	const struct pheap_type good = {1, 8, 16, "pair", NULL, 0};
	struct pheap_type types[2] = {good, good};

	GIVES(-EINVAL, open_with_types(types, 2)); /* one number twice */
	types[0].number = 65536;
	GIVES(-EINVAL, open_with_types(types, 1));
	types[0] = good;
	types[0].ptr_offs = past;
	types[0].ptr_count = 1;
	GIVES(-EINVAL, open_with_types(types, 1)); /* the pointer ends past the struct */
	types[0] = good;
	types[0].align = 24;
	GIVES(-EINVAL, open_with_types(types, 1));
}

/* --- one file, several handles --- */

Test(open, same_file_twice_is_one_handle)
{
	pheap *h = heap_make(), *again, *linked;

	OK(pheap_open(scratch("heap"), 0, NULL, &again));
	cr_assert_eq(h, again);
	cr_assert_eq(link(scratch("heap"), scratch("other")), 0);
	OK(pheap_open(scratch("other"), 0, NULL, &linked));
	cr_assert_eq(h, linked, "found by file, not by name");
	heap_drop(again);
	block_make(h, 64, 1);
	heap_drop(linked);
	block_make(h, 64, 1);
	heap_drop(h);
}

Test(open, same_file_read_only_and_not)
{
	pheap *h = heap_make(), *other;

	GIVES(-EBUSY, pheap_open(scratch("heap"), PHEAP_RDONLY, NULL, &other));
	heap_drop(h);
	OK(pheap_open(scratch("heap"), PHEAP_RDONLY, NULL, &h));
	GIVES(-EBUSY, pheap_open(scratch("heap"), 0, NULL, &other));
	heap_drop(h);
}

Test(open, two_heaps)
{
	struct pheap_options opt = test_options();
	pheap *a = heap_make(), *b;

	OK(pheap_open(scratch("second"), PHEAP_CREATE, &opt, &b));
	cr_assert_neq(a, b);
	unsigned char *pa = block_make(a, 64, 1), *pb = block_make(b, 64, 1);
	cr_assert_eq(pheap_of(pa), a);
	cr_assert_eq(pheap_of(pb), b);
	cr_assert_null(pheap_of(&opt));
	cr_assert_null(pheap_of(NULL));
	cr_assert_eq(pheap_offset(a, pb), 0);
	heap_drop(a);
	cr_assert_null(pheap_of(pa));
	heap_drop(b);
}

Test(open, close_with_a_transaction_open)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);

	GIVES(PHEAP_EACTIVE, pheap_close(h));
	cr_assert(pheap_alloc(tx, 64, 1), "the refused close left it open");
	commit(tx);
	heap_drop(h);
}

/* --- read-only --- */

Test(open, read_only)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);
	uint64_t *root = (uint64_t *)(uintptr_t)pheap_root(tx, "r", 8, 0);
	uint64_t *word = pheap_modify(tx, root, 8);

	cr_assert(word);
	*word = 42;
	commit(tx);
	heap_drop(h);

	OK(pheap_open(scratch("heap"), PHEAP_RDONLY, NULL, &h));
	cr_assert_eq(info_of(h).read_only, 1);
	const uint64_t *p = pheap_find(h, "r");
	cr_assert(p && *p == 42);
	GIVES(-EROFS, pheap_begin(h, 0, &tx));
	GIVES(-EROFS, pheap_begin(h, PHEAP_CONCURRENT, &tx));
	tx = begin(h, PHEAP_READ);
	cr_assert_eq(*p, 42);
	commit(tx);
	cr_assert_null(pheap_reserve(h, 64, 1));
	heap_drop(h);
}

static int read_only_store(void *arg)
{
	pheap *h;

	(void)arg;
	if (pheap_open(scratch("heap"), PHEAP_RDONLY, NULL, &h))
		return 1;
	volatile uint64_t *p = (volatile uint64_t *)(uintptr_t)pheap_find(h, "r");
	signal(SIGSEGV, SIG_DFL); /* a sanitizer may have taken it */
	*p = 1;
	return 0;
}

Test(open, read_only_mapping_faults)
{
	pheap *h = heap_make();
	pheap_tx *tx = begin(h, 0);

	cr_assert(pheap_root(tx, "r", 8, 0));
	commit(tx);
	heap_drop(h);
	cr_assert_eq(child_run(read_only_store, NULL), 1000 + SIGSEGV);
}

Test(open, read_only_does_not_create)
{
	pheap *h;

	GIVES(-EINVAL, pheap_open(scratch("none"), PHEAP_RDONLY | PHEAP_CREATE, NULL, &h));
	GIVES(-ENOENT, pheap_open(scratch("none"), PHEAP_RDONLY, NULL, &h));
}

/* --- fixed address --- */

static int base_differs(void *arg)
{
	const void *base = *(const void **)arg;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	CHECK(pheap_at(h, 64) == (const char *)base + 64);
	CHECK(pheap_close(h) == 0);
	return 0;
}

Test(open, fixed_base)
{
	struct pheap_options opt = test_options();
	const void *base;
	pheap *h;

	OK(pheap_open(scratch("heap"), PHEAP_CREATE | PHEAP_FIXED, &opt, &h));
	base = info_of(h).base;
	cr_assert_eq((uintptr_t)base % (2 * MIB), 0);
	heap_drop(h);
	cr_assert_eq(child_run(base_differs, &base), 0, "every process maps it there");
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	cr_assert_eq(info_of(h).base, base);
	heap_drop(h);
}

/* --- growth of the reports --- */

Test(open, info_to_an_older_program)
{
	pheap *h = heap_make();
	struct pheap_info info;
	struct {
		struct pheap_info info;
		uint64_t later[4];
	} wide;

	memset(&info, 0x55, sizeof info);
	OK(pheap_info(h, &info, offsetof(struct pheap_info, file_size)));
	cr_assert_not_null(info.base);
	cr_assert_eq(info.file_size, 0x5555555555555555u, "nothing past ret_size is written");
	memset(&wide, 0x55, sizeof wide);
	OK(pheap_info(h, &wide.info, sizeof wide));
	cr_assert_eq(wide.info.size, sizeof wide.info, "says what it filled in");
	heap_drop(h);
}

Test(open, versions)
{
	cr_assert_eq(pheap_version(), PHEAP_VERSION);
	for (int rc = PHEAP_EFOREIGN; rc <= PHEAP_ECORRUPT; rc++)
		cr_assert(pheap_strerror(rc) && pheap_strerror(rc)[0]);
	cr_assert(pheap_strerror(-ENOSPC)[0]);
	cr_assert(pheap_strerror(0)[0]);
	cr_assert_not_null(pheap_strerror(-123456));
}
