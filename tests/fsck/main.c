/* SPDX-License-Identifier: MIT
 *
 * main.c: pheap-fsck on damaged images: what it says, what it repairs, and that a second run finds nothing.
 *
 * Usage: test-fsck PHEAP-FSCK PHEAP-FSCK-MORTAL [SEED [COUNT]]
 * The second program is the same one, built to die at a chosen write.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "format.h"
#include "run.h"

static void first_runs(const struct fsck_case *c, struct scratch *s, const struct image *im)
{
	int rc = run(fsck_program, "-n -f", s->path);

	expect(rc == c->no, "%s: -n -f gave %d, not %d", c->name, rc, c->no);
	for (unsigned i = 0; i < CODES_MAX && c->codes[i]; i++)
		expect(output_has(c->codes[i]), "%s: -n -f does not say %s", c->name, c->codes[i]);
	expect(scratch_same(s, im->bytes, im->size), "%s: -n changed the file", c->name);
	rc = run(fsck_program, "-p -f", s->path);
	expect(rc == c->preen, "%s: -p -f gave %d, not %d", c->name, rc, c->preen);
	if (c->preen == 4)
		expect(scratch_same(s, im->bytes, im->size), "%s: -p refused, but changed the file", c->name);
	scratch_write(s, im->bytes, im->size);
}

static void after_check(const struct fsck_case *c, const struct scratch *s, const struct image *before)
{
	struct image after = *before;
	size_t size;

	if (!c->check)
		return;
	after.bytes = scratch_read(s, &size);
	after.size = size;
	after.super = image_at(&after, 0);
	after.head = image_at(&after, before->super->head_off);
	after.desc = image_at(&after, before->super->desc_off);
	after.bits = image_at(&after, before->super->bits_off);
	expect(c->check(before, &after), "%s: wrong bytes after -y", c->name);
	free(after.bytes);
}

static void case_test(const struct fsck_case *c)
{
	struct scratch s;
	struct image im;
	int rc;

	scratch_open(&s);
	image_make(&im, &s.id, fsck_case_wal(c));
	c->damage(&im);
	scratch_write(&s, im.bytes, im.size);
	first_runs(c, &s, &im);
	rc = run(fsck_program, "-y -f", s.path);
	expect(rc == c->yes, "%s: -y -f gave %d, not %d", c->name, rc, c->yes);
	after_check(c, &s, &im);
	if (!(c->yes & 4)) {
		rc = run(fsck_program, "-n", s.path);
		expect(rc == 0 && strstr(output, "clean"), "%s: -n after -y gave %d", c->name, rc);
		rc = run(fsck_program, "-n -f", s.path);
		expect(rc == 0 && !output_has("state-dirty"), "%s: -n -f after -y gave %d", c->name, rc);
	}
	scratch_close(&s);
	image_free(&im);
}

int main(int argc, char **argv)
{
	unsigned long seed = argc > 3 ? strtoul(argv[3], NULL, 0) : 1;
	unsigned count = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 0) : 60;

	if (argc < 3) {
		fprintf(stderr, "Usage: %s PHEAP-FSCK PHEAP-FSCK-MORTAL [SEED [COUNT]]\n", argv[0]);
		return 2;
	}
	fsck_program = argv[1];
	fsck_program_mortal = argv[2];
	/* the value that everybody gives for it */
	expect(format_crc32c("123456789", 9) == 0xe3069283u, "CRC32C is wrong");
	for (unsigned i = 0; fsck_case(i); i++)
		case_test(fsck_case(i));
	bad_input_test();
	killed_test();
	random_test(seed, count);
	cut_test(seed, count);
	return expect_summary();
}
