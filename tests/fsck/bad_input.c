/* SPDX-License-Identifier: MIT
 *
 * bad_input.c: files that are no heaps, heaps that are in use, and wrong options: each a sentence and its
 * exit code.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "cases.h"
#include "run.h"

static void refused(const char *what, const char *path, const char *text)
{
	static const char *const options[] = {"-n", "-p", "-y", "-n --json"};

	for (unsigned i = 0; i < 4; i++) {
		int rc = run(fsck_program, options[i], path);

		expect(rc == 8 && strstr(output, text), "%s: %s gave %d, or no '%s'", what, options[i], rc,
		       text);
	}
}

static void no_heap_test(void)
{
	unsigned char *bytes = calloc(1, 1u << 20);
	unsigned x = 12345;
	struct scratch s;

	if (!bytes)
		abort();
	scratch_open(&s);
	scratch_write(&s, bytes, 0);
	refused("empty file", s.path, "empty");
	scratch_write(&s, bytes, 1u << 20);
	refused("zeros", s.path, "not a heap");
	for (unsigned i = 0; i < 1u << 20; i++)
		bytes[i] = (unsigned char)((x = x * 1103515245 + 12345) >> 16);
	scratch_write(&s, bytes, 1u << 20);
	refused("random bytes", s.path, "not a heap");
	scratch_write(&s, bytes, 7);
	refused("seven bytes", s.path, "not a heap");
	scratch_close(&s);
	free(bytes);
	refused("folder", "/", "directory");
	refused("device", "/dev/null", "regular");
	refused("missing file", "/proc/self/nothing", "No such file");
}

static void version_test(void)
{
	struct scratch s;
	struct image im;

	scratch_open(&s);
	image_make(&im, &s.id, false);
	im.super->version = 2u << 16;
	image_seal(&im);
	scratch_write(&s, im.bytes, im.size);
	refused("another version", s.path, "version");
	im.super->version = PHD_VERSION;
	im.super->incompat = 8;
	image_seal(&im);
	scratch_write(&s, im.bytes, im.size);
	refused("unknown feature", s.path, "features");
	scratch_close(&s);
	image_free(&im);
}

static void byte_lock(int fd, short type, uint64_t off)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)off, .l_len = 1};

	if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
		abort();
}

static void attached_test(void)
{
	struct scratch s;
	struct image im;
	struct phd_member *m;
	int rc;

	scratch_open(&s);
	image_make(&im, &s.id, false);
	m = image_at(&im, im.super->member_off + sizeof *m);
	m->attachment = 40;
	m->pid = 4242;
	memcpy(m->command, "busy-program", 12);
	image_dirty(&im);
	image_lane_state(&im, 1, PHD_STEP_ACTIVE);
	image_record(&im, 1, PHD_REC_UNDO, image_chunk(&im, 6), "old", 3);
	scratch_write(&s, im.bytes, im.size);
	byte_lock(s.fd, F_RDLCK, PHD_LOCK_ANY);
	byte_lock(s.fd, F_WRLCK, PHD_LOCK_SLOT + 1);
	for (unsigned i = 0; i < 2; i++) {
		rc = run(fsck_program, i ? "-y" : "-p", s.path);
		expect(rc == 8 && strstr(output, "busy-program (pid 4242)"), "attached: gave %d", rc);
	}
	rc = run(fsck_program, "-n -f", s.path);
	expect(rc == 0 && strstr(output, "snapshot") && output_has("lane-live"), "attached: -n gave %d", rc);
	expect(scratch_same(&s, im.bytes, im.size), "attached: the file was changed");
	byte_lock(s.fd, F_UNLCK, PHD_LOCK_ANY);
	byte_lock(s.fd, F_UNLCK, PHD_LOCK_SLOT + 1);
	/* a gate that stays taken: somebody opens, closes or checks */
	byte_lock(s.fd, F_RDLCK, PHD_LOCK_GATE);
	rc = run(fsck_program, "-p", s.path);
	expect(rc == 8 && strstr(output, "try again"), "gate taken: gave %d", rc);
	scratch_close(&s);
	image_free(&im);
}

/* Records count as long as the slot has their attachment. */
static void attached_holds_test(void)
{
	static const struct {
		uint64_t first, second;
		const char *text;
	} rows[] = {
		{33, 34, NULL},
		{33, 35, NULL},
		{35, 34, "2 objects, 4 held references in all"},
		{0, 33, "3 objects, 4 held references in all"},
	};
	struct scratch s;
	struct image im;

	scratch_open(&s);
	byte_lock(s.fd, F_RDLCK, PHD_LOCK_ANY);
	for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct phd_member *m;
		int rc;

		image_make(&im, &s.id, false);
		m = image_at(&im, im.super->member_off);
		m[0].attachment = rows[i].first;
		m[1].attachment = rows[i].second;
		image_dirty(&im);
		scratch_write(&s, im.bytes, im.size);
		rc = run(fsck_program, "-n -f", s.path);
		expect(rc == 0 && output_has("hold-void") == (rows[i].text != NULL) &&
			       (!rows[i].text || strstr(output, rows[i].text)),
		       "attached, holders %u: gave %d", i, rc);
		image_free(&im);
	}
	scratch_close(&s);
}

static void ephemeral_case(struct scratch *s, uint64_t open_gen, const char *options, int want,
			   const char *text)
{
	struct image im;
	int rc;

	image_make(&im, &s->id, false);
	im.super->compat = PHD_COMPAT_EPHEMERAL;
	image_state(&im, 0)->open_gen = open_gen;
	image_seal(&im);
	/* nothing is known of its state: it was used */
	if (open_gen == ~0ull)
		for (int copy = 0; copy < 2; copy++)
			image_state(&im, copy)->crc++;
	scratch_write(s, im.bytes, im.size);
	rc = run(fsck_program, options, s->path);
	expect(rc == want && strstr(output, text), "ephemeral, %s: gave %d, or no '%s'", options, rc, text);
	image_free(&im);
}

static void ephemeral_test(void)
{
	static const char over[] = "; ephemeral, and its users are gone: the next open removes it\n";
	struct scratch s;

	scratch_open(&s);
	ephemeral_case(&s, 0, "-n", 0, "(-f checks everything); ephemeral\n");
	ephemeral_case(&s, 0, "-n -f", 0, "chunks in use; ephemeral\n");
	ephemeral_case(&s, 3, "-n", 0, over);
	ephemeral_case(&s, 3, "-p -f", 0, over);
	ephemeral_case(&s, ~0ull, "-n", 4, "; ephemeral\n");
	ephemeral_case(&s, ~0ull, "-y", 1, over);
	ephemeral_case(&s, 3, "-n --json", 0, "\"ephemeral\": true");
	byte_lock(s.fd, F_RDLCK, PHD_LOCK_ANY);
	ephemeral_case(&s, 3, "-n", 0, "; ephemeral: it goes with its last user\n");
	scratch_close(&s);
}

static void copy_option_test(void)
{
	struct scratch s;
	struct image im;
	int rc;

	scratch_open(&s);
	image_make(&im, &s.id, false);
	im.bytes[0x60] ^= 1;
	scratch_write(&s, im.bytes, im.size);
	rc = run(fsck_program, "-n -b 0", s.path);
	expect(rc == 4 && output_has("super-none"), "-b 0 of a damaged copy 0 gave %d", rc);
	rc = run(fsck_program, "-y -b 1", s.path);
	expect(rc == 1 && output_has("super-copy"), "-y -b 1 gave %d", rc);
	rc = run(fsck_program, "-n -b 0 -f", s.path);
	expect(rc == 0, "-b 0 after the repair gave %d", rc);
	scratch_close(&s);
	image_free(&im);
}

/* Nothing to do: one line. */
static void clean_test(void)
{
	struct scratch s;
	struct image im;
	int rc;

	scratch_open(&s);
	image_make(&im, &s.id, false);
	scratch_write(&s, im.bytes, im.size);
	for (unsigned i = 0; i < 3; i++) {
		static const char *const options[] = {"-n", "-p", "-y"};

		rc = run(fsck_program, options[i], s.path);
		expect(rc == 0 &&
			       strstr(output,
				      ": closed cleanly, not checked further (-f checks everything)\n") &&
			       strchr(output, '\n')[1] == 0,
		       "%s of a clean heap gave %d", options[i], rc);
		expect(scratch_same(&s, im.bytes, im.size), "%s changed a clean heap", options[i]);
	}
	scratch_close(&s);
	image_free(&im);
}

static void lost_case(const struct fsck_case *c, bool lost)
{
	struct scratch s;
	struct image im;

	scratch_open(&s);
	image_make(&im, &s.id, false);
	c->damage(&im);
	scratch_write(&s, im.bytes, im.size);
	run(fsck_program, "-n -f", s.path);
	expect(!strstr(output, "data was lost"), "%s: -n -f says that data was lost", c->name);
	run(fsck_program, "-y -f", s.path);
	expect((strstr(output, ": data was lost: ") != NULL) == lost, "%s: wrong about data that was lost",
	       c->name);
	expect(!lost || strstr(output, " pointers lead nowhere; restore a copy if you can\n") ||
		       strstr(output,
			      ": pointers in your data may lead nowhere; restore a copy if you can\n"),
	       "%s: does not say what was lost", c->name);
	scratch_close(&s);
	image_free(&im);
}

static void lost_test(void)
{
	static const struct {
		const char *name;
		bool lost;
	} rows[] = {
		{"run", true},	      {"overlap", true},    {"long", true},
		{"orphan", true},     {"clean", false},	    {"incomplete", false},
		{"cont", false},      {"bits", false},	    {"journal", false},
		{"pointer", false},   {"word", false},	    {"root-cycle", false},
		{"hold-link", false}, {"hold-type", false}, {"semaphore-type", false},
	};

	for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++)
		lost_case(fsck_case_named(rows[i].name), rows[i].lost);
}

/* A pointer that an error may have broken is looked at without -f, too. */
static void pointer_test(void)
{
	struct scratch s;
	struct image im;

	scratch_open(&s);
	for (int damaged = 0; damaged < 2; damaged++) {
		image_make(&im, &s.id, false);
		fsck_case_named("pointer")->damage(&im);
		if (damaged)
			im.head->magic = 0;
		scratch_write(&s, im.bytes, im.size);
		run(fsck_program, "-n", s.path);
		expect(output_has("pointer") == (damaged != 0), "pointers of a heap with%s errors",
		       damaged ? "" : "out");
		image_free(&im);
	}
	scratch_close(&s);
}

static void usage_test(void)
{
	static const struct {
		const char *options, *path;
		int rc;
	} rows[] = {
		{"-n -y", "x", 16}, {"-q", "x", 16},	 {"-n", NULL, 16},	 {"-n x", "y", 16},
		{"-b 2", "x", 16},  {"--help", NULL, 0}, {"--version", NULL, 0}, {"-b", NULL, 16},
	};

	for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		int rc = run(fsck_program, rows[i].options, rows[i].path);

		expect(rc == rows[i].rc, "options '%s' gave %d, not %d", rows[i].options, rc, rows[i].rc);
	}
}

static void json_test(void)
{
	struct scratch s;
	struct image im;
	int rc;

	scratch_open(&s);
	image_make(&im, &s.id, false);
	im.head->magic = 0;
	scratch_write(&s, im.bytes, im.size);
	rc = run(fsck_program, "-n -f --json", s.path);
	expect(rc == 4 && output[0] == '{' && strstr(output, "\"code\": \"head-magic\"") &&
		       strstr(output, "\"exit\": 4}\n"),
	       "--json gave %d", rc);
	rc = run(fsck_program, "-n -f --json", s.path);
	expect(strstr(output, "\"holds\": 4, \"void_objects\": 3, \"semaphores\": 2") &&
		       strstr(output, "\"ephemeral\": false"),
	       "--json does not count held references and semaphores");
	/* no terminal to ask on: as with -n */
	rc = run(fsck_program, "", s.path);
	expect(rc == 4 && strstr(output, "-p or -y"), "without options it gave %d", rc);
	expect(scratch_same(&s, im.bytes, im.size), "without options it changed the file");
	scratch_close(&s);
	image_free(&im);
}

void bad_input_test(void)
{
	no_heap_test();
	version_test();
	attached_test();
	attached_holds_test();
	ephemeral_test();
	copy_option_test();
	clean_test();
	lost_test();
	pointer_test();
	usage_test();
	json_test();
}
