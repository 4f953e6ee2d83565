/* SPDX-License-Identifier: MIT
 *
 * test_golden.c: the format as bytes. A fixed sequence on a 64 KiB heap, with identity and time from a fake
 * platform table, gives the image that golden.txt holds; and a heap made from golden.txt opens and has the
 * contents.
 *
 * Why text and not an image: a change of the format shows in a diff. PHEAP_GOLDEN_WRITE=FILE writes a new
 * one.
 *
 * Invariants
 *   G1  Durable bytes depend on the sequence and the seed, not on time, address or process.
 *   G2  What golden.txt holds stays readable for every later library of the same major version.
 */
#include "os.h"
#include "support.h"

#include <sys/stat.h>
#include <unistd.h>

TestSuite(golden, .timeout = 60);

#define GOLDEN TEST_SOURCE_DIR "/golden.txt"
enum { IMAGE_MAX = 65536, LINE = 32 };

static struct ph_os fake;
static uint64_t fake_seed, fake_time;

static int fake_info(int fd, struct ph_file_info *ret)
{
	int rc = ph_os_linux.file_info(fd, ret);

	ret->dev = 2049;
	ret->inode = 4711;
	ret->birth_ns = 1234567890;
	return rc;
}

static int fake_random(void *buf, size_t n)
{
	unsigned char *bytes = buf;

	for (size_t i = 0; i < n; i++)
		bytes[i] = (unsigned char)(random_next(&fake_seed) & 0xff);
	return 0;
}

static int fake_boot_id(uint8_t ret[16])
{
	memset(ret, 0xb0, 16);
	return 0;
}

static void fake_process(uint32_t *ret_pid, uint64_t *ret_start_ticks, char ret_command[16])
{
	*ret_pid = 1000;
	*ret_start_ticks = 2000;
	memset(ret_command, 0, 16);
	memcpy(ret_command, "golden", 6);
}

static uint64_t fake_clock(void)
{
	return fake_time += 1000;
}

static uint32_t fake_thread(void)
{
	return 1;
}

static void fake_install(uint64_t seed)
{
	fake = ph_os_linux;
	fake.file_info = fake_info;
	fake.random = fake_random;
	fake.boot_id = fake_boot_id;
	fake.process = fake_process;
	fake.clock_ns = fake_clock;
	fake.thread = fake_thread;
	fake_seed = seed;
	fake_time = 0;
	ph_os = &fake;
}

static struct pheap_options golden_options(void)
{
	static const uint32_t offs[] = {0};
	static const struct pheap_type types[] = {{1, 8, 16, "node", offs, 1}, {2, 1, 1, "text", NULL, 0}};
	struct pheap_options opt = PHEAP_OPTIONS_INIT;

	opt.durability = PHEAP_PROCESS;
	opt.max_size = IMAGE_MAX;
	opt.layout = "golden";
	opt.types = types;
	opt.type_count = 2;
	return opt;
}

/* Every kind of record once: fresh blocks, undo, defer, publish, free, realloc, roots, abort. */
static void sequence(const char *path)
{
	struct pheap_options opt = golden_options();
	pheap *h;

	OK(pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &opt, &h));
	pheap_tx *tx = begin(h, 0);
	const uint64_t *list = pheap_root(tx, "list", 16, 1);
	unsigned char *text = pheap_dup(tx, "a text in the heap", 19, 2), *more = pheap_zalloc(tx, 100, 2);
	uint64_t *w = pheap_modify(tx, list, 16);
	cr_assert(text && more && w);
	w[0] = pheap_offset(h, text);
	w[1] = 1;
	commit(tx);

	tx = begin(h, 0);
	OK(pheap_store(tx, text, "A", 1));
	OK(pheap_defer(tx, text + 2, "TEXT", 4));
	OK(pheap_defer_u64(tx, &list[1], 2));
	OK(pheap_free(tx, more));
	OK(pheap_root_set(tx, "text", text));
	commit(tx);

	tx = begin(h, PHEAP_CONCURRENT);
	OK(pheap_lock(tx, &(uint64_t){5}, 1));
	cr_assert(pheap_alloc(tx, 500, 2));
	OK(pheap_store(tx, text, "undone", 6));
	pheap_abort(tx);

	tx = begin(h, 0);
	unsigned char *long_text = pheap_realloc(tx, text, 60);
	cr_assert(long_text);
	OK(pheap_root_set(tx, "text", long_text));
	OK(pheap_store(tx, &list[0], &(uint64_t){pheap_offset(h, long_text)}, 8));
	OK(pheap_root_set(tx, "gone", long_text));
	OK(pheap_root_set(tx, "gone", NULL));
	memset(long_text + 19, '.', 41);
	commit(tx);
	OK(pheap_close(h));
}

static void contents_check(const char *path)
{
	struct pheap_options opt = golden_options();
	char name[64] = "";
	pheap *h;
	int rc;

	rc = pheap_open(path, 0, &opt, &h);
	cr_assert_eq(rc, 0, "%d: %s", rc, pheap_error_detail(NULL));
	const uint64_t *list = pheap_find(h, "list");
	const char *text = pheap_find(h, "text");
	cr_assert(list && text);
	cr_assert_eq(list[0], pheap_offset(h, text));
	cr_assert_eq(list[1], 2);
	cr_assert_eq(memcmp(text, "A TEXT in the heap\0....", 23), 0);
	cr_assert_eq(pheap_type_of(h, list), 1);
	cr_assert_eq(pheap_type_of(h, text), 2);
	cr_assert_null(pheap_find(h, "gone"));
	for (rc = 0; !pheap_root_next(h, name); rc++)
		cr_assert(!strcmp(name, "list") || !strcmp(name, "text"), "%s", name);
	cr_assert_eq(rc, 2);
	OK(pheap_close(h));
}

/* --- image to text and back --- */

static unsigned char image[IMAGE_MAX], second[IMAGE_MAX];

static size_t image_read(const char *path, unsigned char *ret)
{
	struct stat st;

	cr_assert_eq(stat(path, &st), 0);
	cr_assert_leq(st.st_size, IMAGE_MAX);
	memset(ret, 0, IMAGE_MAX);
	file_read(path, 0, ret, (size_t)st.st_size);
	return (size_t)st.st_size;
}

/* Coordination bytes mean nothing once everyone has left. */
static void coordination_clear(unsigned char *bytes)
{
	struct phd_super super;

	memcpy(&super, bytes, sizeof super);
	memset(bytes + super.coord_off, 0, super.lane_off - super.coord_off);
	for (uint32_t i = 0; i < super.lane_count; i++)
		memset(bytes + super.lane_off + i * sizeof(struct phd_lane) + 0x40, 0, 0x40);
	memset(bytes + super.words_off, 0, sizeof(struct phd_words) * super.chunk_max);
}

static void text_write(FILE *f, const unsigned char *bytes, size_t n)
{
	fprintf(f, "size %zu\n", n);
	for (size_t off = 0; off < n; off += LINE) {
		if (bytes_are(bytes + off, LINE, 0))
			continue;
		fprintf(f, "%05zx", off);
		for (size_t i = 0; i < LINE; i++)
			fprintf(f, "%s%02x", i % 8 ? "" : " ", bytes[off + i]);
		fprintf(f, "\n");
	}
}

static size_t text_read(unsigned char *ret)
{
	FILE *f = fopen(GOLDEN, "r");
	unsigned long off;
	size_t n = 0;

	cr_assert(f, "%s", GOLDEN);
	memset(ret, 0, IMAGE_MAX);
	cr_assert_eq(fscanf(f, "size %zu", &n), 1);
	cr_assert_leq(n, IMAGE_MAX);
	while (fscanf(f, "%lx", &off) == 1)
		for (size_t i = 0; i < LINE; i++) {
			unsigned byte;
			cr_assert(off + i < n && fscanf(f, i % 8 ? "%2x" : " %2x", &byte) == 1);
			ret[off + i] = (unsigned char)byte;
		}
	fclose(f);
	return n;
}

Test(golden, same_seed_same_bytes)
{
	fake_install(1);
	sequence(scratch("heap"));
	size_t n = image_read(scratch("heap"), image);
	unlink(scratch("heap"));
	fake_install(1);
	sequence(scratch("heap"));
	cr_assert_eq(image_read(scratch("heap"), second), n);
	for (size_t i = 0; i < n; i++)
		cr_assert(image[i] == second[i], "byte %#zx: %#x and %#x", i, image[i], second[i]);
	unlink(scratch("heap"));
	fake_install(2);
	sequence(scratch("heap"));
	(void)image_read(scratch("heap"), second);
	cr_assert_neq(memcmp(image + 0x28, second + 0x28, 16), 0, "the uuid comes from the seed");
}

Test(golden, the_library_writes_the_golden_bytes)
{
	const char *target = getenv("PHEAP_GOLDEN_WRITE");
	size_t n, golden_size;

	fake_install(1);
	sequence(scratch("heap"));
	n = image_read(scratch("heap"), image);
	coordination_clear(image);
	if (target && target[0]) {
		FILE *f = fopen(target, "w");
		cr_assert(f);
		text_write(f, image, n);
		fclose(f);
		return;
	}
	golden_size = text_read(second);
	cr_assert_eq(n, golden_size);
	for (size_t i = 0; i < n; i++)
		cr_assert(image[i] == second[i], "byte %#zx is %#x, golden %#x: the format changed", i,
			  image[i], second[i]);
}

Test(golden, the_golden_image_opens)
{
	size_t n = text_read(image);

	fake_install(1);
	file_write(scratch("heap"), 0, image, n);
	contents_check(scratch("heap"));
	contents_check(scratch("heap"));
}

/* Without the fake table too: it was closed cleanly, so its boot and inode do not matter. */
Test(golden, the_golden_image_opens_anywhere)
{
	size_t n = text_read(image);

	file_write(scratch("heap"), 0, image, n);
	contents_check(scratch("heap"));
}
