/* SPDX-License-Identifier: MIT
 *
 * refuse.c: files that pheap_open must refuse, each with its code, a sentence, and not one byte of the file
 * changed.
 */
#include "support.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

TestSuite(refuse, .timeout = 60);

static int try_open(const char *path, uint32_t flags)
{
	pheap *h = NULL;
	int rc = pheap_open(path, flags, NULL, &h);

	if (!rc && pheap_close(h))
		abort();
	return rc;
}

/* Refused for writing and for reading, with or without CREATE, and left alone. */
static void refuses(int want, const char *path)
{
	static const uint32_t flags[] = {0, PHEAP_CREATE, PHEAP_RDONLY};
	uint64_t before = file_hash(path);

	for (size_t i = 0; i < 3; i++) {
		int rc = try_open(path, flags[i]);
		cr_assert(rc == want, "flags %#x: %d (%s), expected %d", flags[i], rc, pheap_strerror(rc),
			  want);
		cr_assert(strlen(pheap_error_detail(NULL)) > 10, "a sentence says what to do");
	}
	cr_assert_eq(file_hash(path), before, "a refused file is left as it was");
}

static void heap_file_make(void)
{
	pheap *h = heap_make();

	block_make(h, 1000, 1);
	heap_drop(h);
}

Test(refuse, zeros)
{
	static const size_t sizes[] = {1, 511, 512, 4095, 4096, 8192, 65536, 1 << 20};

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		file_fill(scratch("heap"), sizes[i], 0);
		refuses(PHEAP_EFORMAT, scratch("heap"));
	}
}

Test(refuse, empty)
{
	file_write(scratch("heap"), 0, "", 0);
	refuses(PHEAP_EFORMAT, scratch("heap"));
}

Test(refuse, random_bytes)
{
	for (uint64_t seed = 1; seed < 40; seed++) {
		file_fill(scratch("heap"), (size_t)1 << (seed % 20), seed);
		refuses(PHEAP_EFORMAT, scratch("heap"));
	}
}

Test(refuse, folder)
{
	pheap *h;

	cr_assert_eq(mkdir(scratch("folder"), 0755), 0);
	GIVES(-EISDIR, pheap_open(scratch("folder"), 0, NULL, &h));
	GIVES(-EISDIR, pheap_open(scratch("folder"), PHEAP_RDONLY, NULL, &h));
	cr_assert(pheap_error_detail(NULL)[0]);
	GIVES(-ENOTDIR, pheap_open("/dev/null/heap", PHEAP_CREATE, NULL, &h));
}

Test(refuse, device)
{
	int rc = try_open("/dev/null", 0);

	cr_assert(rc == PHEAP_EFORMAT || rc == -EINVAL || rc == -ENODEV, "%d", rc);
	cr_assert_eq(mkfifo(scratch("fifo"), 0600), 0);
	rc = try_open(scratch("fifo"), 0);
	cr_assert(rc == PHEAP_EFORMAT || rc == -EINVAL || rc == -ENODEV, "%d", rc);
}

Test(refuse, truncated)
{
	struct stat st;

	heap_file_make();
	cr_assert_eq(stat(scratch("heap"), &st), 0);
	struct phd_super super = file_super(scratch("heap"));
	const uint64_t sizes[] = {(uint64_t)st.st_size - 1,
				  (uint64_t)st.st_size - 4096,
				  super.data_off,
				  super.data_off - 1,
				  super.desc_off + 8,
				  super.lane_log_off,
				  super.head_off + 4096,
				  super.head_off + 1,
				  super.lane_off,
				  super.member_off,
				  8192,
				  5000,
				  4096,
				  1024};

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		if (sizes[i] >= (uint64_t)st.st_size)
			continue;
		file_copy(scratch("heap"), scratch("cut"));
		cr_assert_eq(truncate(scratch("cut"), (off_t)sizes[i]), 0);
		int rc = try_open(scratch("cut"), 0);
		cr_assert(rc == PHEAP_ECORRUPT || (rc == PHEAP_EFORMAT && sizes[i] < 8192),
			  "%lu bytes: %d %s", (unsigned long)sizes[i], rc, pheap_error_detail(NULL));
		struct stat cut;
		cr_assert_eq(stat(scratch("cut"), &cut), 0);
		cr_assert_eq((uint64_t)cut.st_size, sizes[i], "a refused file keeps its size");
	}
	/* the first sector is gone, the rest is there */
	cr_assert_eq(truncate(scratch("heap"), 300), 0);
	refuses(PHEAP_EFORMAT, scratch("heap"));
}

/* --- superblock --- */

static void major_up(struct phd_super *super)
{
	super->version += 0x10000;
}

static void minor_up(struct phd_super *super)
{
	super->version += 1;
}

static void incompat_up(struct phd_super *super)
{
	super->incompat |= 1ull << 63;
}

static void ro_compat_up(struct phd_super *super)
{
	super->ro_compat |= 1ull << 5;
}

static void compat_up(struct phd_super *super)
{
	super->compat |= 1ull << 5;
}

Test(refuse, other_major_version)
{
	heap_file_make();
	file_edit_super(scratch("heap"), major_up);
	refuses(PHEAP_EFORMAT, scratch("heap"));
}

Test(refuse, newer_incompat_feature)
{
	heap_file_make();
	file_edit_super(scratch("heap"), incompat_up);
	refuses(PHEAP_EFORMAT, scratch("heap"));
}

Test(refuse, newer_ro_compat_feature_reads)
{
	heap_file_make();
	file_edit_super(scratch("heap"), ro_compat_up);
	GIVES(PHEAP_EFORMAT, try_open(scratch("heap"), 0));
	OK(try_open(scratch("heap"), PHEAP_RDONLY));
}

Test(refuse, newer_compat_feature_and_minor_open)
{
	heap_file_make();
	file_edit_super(scratch("heap"), compat_up);
	OK(try_open(scratch("heap"), 0));
	file_edit_super(scratch("heap"), minor_up);
	OK(try_open(scratch("heap"), 0));
}

Test(refuse, one_superblock_is_enough)
{
	char junk[512];

	heap_file_make();
	memset(junk, 0xaa, sizeof junk);
	for (unsigned copy = 0; copy < 2; copy++) {
		file_copy(scratch("heap"), scratch("one"));
		file_write(scratch("one"), PHD_SUPER_OFF(copy), junk, sizeof junk);
		OK(try_open(scratch("one"), 0));
		OK(try_open(scratch("one"), PHEAP_RDONLY));
	}
	file_write(scratch("heap"), PHD_SUPER_OFF(0), junk, sizeof junk);
	file_write(scratch("heap"), PHD_SUPER_OFF(1), junk, sizeof junk);
	refuses(PHEAP_EFORMAT, scratch("heap"));
}

Test(refuse, torn_superblocks)
{
	heap_file_make();
	for (unsigned copy = 0; copy < 2; copy++)
		file_write(scratch("heap"), PHD_SUPER_OFF(copy) + 0x60, "\377", 1);
	int rc = try_open(scratch("heap"), 0);
	cr_assert(rc == PHEAP_ECORRUPT || rc == PHEAP_EFORMAT, "%d", rc);
	cr_assert(pheap_error_detail(NULL)[0]);
}

/* A sealed superblock with one field set to something wild: an error, never a crash (P7). */
static uint64_t wild_value;
static size_t wild_off, wild_size;

static void wild_set(struct phd_super *super)
{
	memcpy((char *)super + wild_off, &wild_value, wild_size);
}

static int wild_open(void *arg)
{
	(void)arg;
	pheap *h;
	/* any answer will do, but it must come */
	int rc = pheap_open(scratch("wild"), 0, NULL, &h);
	return rc ? 0 : pheap_close(h) != 0;
}

Test(refuse, wild_superblock_fields)
{
	static const uint64_t values[] = {0,	1,  ~0ull,	1ull << 63, 1ull << 62,
					  4096, 63, 1ull << 32, 0x80000000u};
	static const struct {
		size_t off, size;
	} fields[] = {{0x38, 8}, {0x40, 4}, {0x44, 4}, {0x48, 8}, {0x54, 4}, {0x58, 4}, {0x5c, 4},
		      {0x60, 4}, {0x64, 4}, {0x68, 8}, {0x70, 8}, {0x78, 8}, {0x80, 8}, {0x88, 8},
		      {0x90, 8}, {0x98, 8}, {0xa0, 8}, {0xa8, 8}, {0xb0, 8}, {0xb8, 8}, {0xc0, 8}};

	heap_file_make();
	for (size_t f = 0; f < sizeof fields / sizeof *fields; f++)
		for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
			file_copy(scratch("heap"), scratch("wild"));
			wild_off = fields[f].off;
			wild_size = fields[f].size;
			wild_value = values[v];
			file_edit_super(scratch("wild"), wild_set);
			int rc = child_run(wild_open, NULL);
			cr_assert(rc == 0, "field %#zx = %#lx: child gave %d", wild_off,
				  (unsigned long)wild_value, rc);
		}
}

/* --- state sector --- */

static void other_boot(struct phd_state *state)
{
	state->boot_id[0] ^= 0x55;
}

static void other_inode(struct phd_state *state)
{
	state->inode++;
}

static int die_attached(void *arg)
{
	pheap *h;

	(void)arg;
	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	raise(SIGKILL);
	return 0;
}

Test(refuse, another_boot_and_not_clean)
{
	heap_file_make();
	cr_assert_eq(child_run(die_attached, NULL), 1000 + SIGKILL);
	file_copy(scratch("heap"), scratch("kept"));
	file_edit_state(scratch("heap"), other_boot);
	uint64_t before = file_hash(scratch("heap"));
	GIVES(PHEAP_EREBOOT, try_open(scratch("heap"), 0));
	cr_assert(strlen(pheap_error_detail(NULL)) > 10);
	GIVES(PHEAP_EREBOOT, try_open(scratch("heap"), PHEAP_RDONLY));
	cr_assert_eq(file_hash(scratch("heap")), before);
	file_edit_state(scratch("heap"), other_boot);
	OK(try_open(scratch("heap"), 0));
}

Test(refuse, another_boot_but_clean_opens)
{
	heap_file_make();
	file_edit_state(scratch("heap"), other_boot);
	OK(try_open(scratch("heap"), 0));
	OK(try_open(scratch("heap"), PHEAP_RDONLY));
}

Test(refuse, same_boot_after_a_kill_opens)
{
	heap_file_make();
	cr_assert_eq(child_run(die_attached, NULL), 1000 + SIGKILL);
	OK(try_open(scratch("heap"), 0));
	cr_assert_eq(child_run(die_attached, NULL), 1000 + SIGKILL);
	OK(try_open(scratch("heap"), PHEAP_RDONLY));
}

Test(refuse, copy_taken_in_use)
{
	heap_file_make();
	pheap *h;
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	file_copy(scratch("heap"), scratch("copy"));
	refuses(PHEAP_EREBOOT, scratch("copy"));
	heap_drop(h);
	refuses(PHEAP_EREBOOT, scratch("copy"));
	file_copy(scratch("heap"), scratch("copy2"));
	OK(try_open(scratch("copy2"), 0));
}

Test(refuse, not_clean_with_another_inode)
{
	heap_file_make();
	cr_assert_eq(child_run(die_attached, NULL), 1000 + SIGKILL);
	file_edit_state(scratch("heap"), other_inode);
	refuses(PHEAP_EREBOOT, scratch("heap"));
}

Test(refuse, one_state_sector_is_enough)
{
	char junk[512];
	uint64_t clean_seq[2];

	heap_file_make();
	for (unsigned copy = 0; copy < 2; copy++) {
		struct phd_state state;
		file_read(scratch("heap"), PHD_STATE_OFF(copy), &state, sizeof state);
		clean_seq[copy] = state.magic == PHD_STATE_MAGIC ? state.seq : 0;
	}
	/* the older of two: nothing depends on it */
	memset(junk, 0xaa, sizeof junk);
	file_write(scratch("heap"), PHD_STATE_OFF(clean_seq[0] < clean_seq[1] ? 0u : 1u), junk, sizeof junk);
	OK(try_open(scratch("heap"), 0));
	file_write(scratch("heap"), PHD_STATE_OFF(0), junk, sizeof junk);
	file_write(scratch("heap"), PHD_STATE_OFF(1), junk, sizeof junk);
	refuses(PHEAP_ECORRUPT, scratch("heap"));
}

/* --- rights --- */

static int open_as_nobody(void *arg)
{
	uint32_t flags = *(uint32_t *)arg;

	if (geteuid() == 0) {
		CHECK(setresgid(65534, 65534, 65534) == 0);
		CHECK(setresuid(65534, 65534, 65534) == 0);
	}
	int rc = try_open(scratch("heap"), flags);
	return -rc & 0x7f;
}

Test(refuse, without_permission)
{
	uint32_t flags = 0;

	heap_file_make();
	cr_assert_eq(chmod(scratch("heap"), 0), 0);
	cr_assert_eq(child_run(open_as_nobody, &flags), EACCES);
	flags = PHEAP_RDONLY;
	cr_assert_eq(child_run(open_as_nobody, &flags), EACCES);
	/* may read, may not write: a clean heap can be looked at */
	cr_assert_eq(chmod(scratch("heap"), 0444), 0);
	GIVES(0, child_run(open_as_nobody, &flags));
	flags = 0;
	cr_assert_eq(child_run(open_as_nobody, &flags), EACCES);
}

Test(refuse, folder_without_permission)
{
	uint32_t flags = PHEAP_CREATE;

	(void)scratch("heap");
	if (geteuid())
		cr_assert_eq(chmod(scratch("."), 0555), 0);
	cr_assert_eq(child_run(open_as_nobody, &flags), EACCES);
	if (geteuid())
		cr_assert_eq(chmod(scratch("."), 0755), 0);
}

/* --- full disk --- */

/* A file system of its own, seen by this process alone, so that nothing has to be unmounted. */
static const char *small_disk(const char *options)
{
	const char *dir = scratch("disk");

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return NULL;
	mkdir(dir, 0755);
	return mount("small", dir, "tmpfs", 0, options) ? NULL : dir;
}

#define SMALL_DISK(options) \
	do { \
		if (!small_disk(options)) { \
			fprintf(stderr, "SKIPPED: no mount namespace here (%s): full disk not tested\n", \
				strerror(errno)); \
			cr_skip_test("no mount namespace: full disk not tested"); \
		} \
	} while (0)

Test(refuse, full_disk_at_creation)
{
	struct pheap_options opt = test_options();
	pheap *h;

	SMALL_DISK("size=1m");
	opt.initial_size = 32 * MIB;
	GIVES(-ENOSPC, pheap_open(scratch("disk/heap"), PHEAP_CREATE, &opt, &h));
	cr_assert(pheap_error_detail(NULL)[0]);
	cr_assert(access(scratch("disk/heap"), F_OK) != 0, "no half-made heap");
	/* and all the space is back */
	struct statfs fs;
	cr_assert_eq(statfs(scratch("disk"), &fs), 0);
	cr_assert_eq(fs.f_bfree, fs.f_blocks);
}

Test(refuse, full_disk_in_a_transaction)
{
	struct pheap_options opt = test_options();
	size_t count = 0;
	pheap_tx *tx;
	pheap *h;

	SMALL_DISK("size=8m");
	OK(pheap_open(scratch("disk/heap"), PHEAP_CREATE, &opt, &h));
	tx = begin(h, 0);
	unsigned char *keep = pheap_zalloc(tx, 4096, 7);
	cr_assert(keep);
	commit(tx);
	for (;; count++) {
		tx = begin(h, 0);
		unsigned char *p = pheap_alloc(tx, 50000, 1);
		if (!p)
			break;
		memset(p, 0x5a, 50000);
		commit(tx);
	}
	GIVES(-ENOSPC, pheap_error(tx));
	cr_assert(pheap_error_detail(h)[0]);
	GIVES(-ENOSPC, pheap_commit(tx));
	cr_assert_gt(count, 20);

	/* the full heap works: change, free, abort of a free */
	tx = begin(h, 0);
	OK(pheap_store(tx, keep, "full", 4));
	commit(tx);
	tx = begin(h, 0);
	for (const void *p = NULL; (p = pheap_next(h, 1, p));)
		OK(pheap_free(tx, p));
	pheap_abort(tx);
	tx = begin(h, 0);
	for (const void *p = NULL; (p = pheap_next(h, 1, p));)
		OK(pheap_free(tx, p));
	commit(tx);
	for (size_t i = 0; i < count; i++) {
		tx = begin(h, 0);
		unsigned char *p = pheap_alloc(tx, 50000, 1);
		cr_assert(p, "block %zu of %zu: %d", i, count, pheap_error(tx));
		memset(p, 0xa5, 50000);
		commit(tx);
	}
	cr_assert_eq(memcmp(keep, "full", 4), 0);
	heap_drop(h);
}
