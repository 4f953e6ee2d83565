/* SPDX-License-Identifier: MIT
 *
 * oserror.c: each system call of the library fails once, at each place, with each of some codes.
 *
 * Invariants
 *   E1  The failure is reported or does no harm; no descriptor and no mapping is left.
 *   E2  The file is whole: it opens afterwards and holds what it held, or all of the transaction that
 *       reported success. Only a
 *       sync that failed may make it refuse, and creation may leave no file at all; never half of one,
 *       or another name.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drive.h"
#include "fake.h"

#define TRIES_MAX 300

static char path[260];
static unsigned char *bytes;
static size_t size;
static int passed, failed;

static const struct {
	const char *name;
	enum drive_state state;
	bool create, grow;
	uint32_t flags;
} scenarios[] = {
	{"create", DRIVE_CLEAN, true, false, PHEAP_CREATE},
	{"create at an address", DRIVE_CLEAN, true, false, PHEAP_CREATE | PHEAP_FIXED},
	{"open", DRIVE_CLEAN, false, false, 0},
	{"open for reading", DRIVE_CLEAN, false, false, PHEAP_RDONLY},
	{"recover", DRIVE_COMMITTED_LONG, false, false, 0},
	{"recover lanes", DRIVE_THREADS, false, false, 0},
	{"grow", DRIVE_CLEAN, false, true, 0},
};

static void expect(bool good, size_t s, long n, int code, const char *what)
{
	passed += good;
	failed += !good;
	if (!good)
		printf("FAILED: %s, %s call %ld gives %d: %s (%s)\n", scenarios[s].name,
		       fake_names[fake.fail_fn], n, code, what, pheap_error_detail(NULL));
}

static void image_read(enum drive_state state)
{
	struct stat st;
	int fd;

	drive_make(path, state, 500 << 10, 8 << 20);
	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		exit(2);
	size = (size_t)st.st_size;
	free(bytes);
	bytes = malloc(size);
	if (!bytes || pread(fd, bytes, size, 0) != (ssize_t)size)
		exit(2);
	close(fd);
}

static void image_write(void)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || pwrite(fd, bytes, size, 0) != (ssize_t)size)
		exit(2);
	close(fd);
}

static unsigned names_count(void)
{
	DIR *d = opendir(drive_folder());
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n - 2;
}

/* Blocks until the file has grown. */
static int grow(pheap *h)
{
	pheap_tx *tx;
	int rc = pheap_begin(h, 0, &tx);

	if (rc)
		return rc;
	for (int i = 0; i < 20; i++)
		if (!pheap_zalloc(tx, 40000, 77))
			break;
	return pheap_end(tx, pheap_error(tx));
}

/* What an undisturbed open of the scenario's file holds. */
static uint64_t sum_expected(size_t s)
{
	const char *what;
	uint64_t sum;
	pheap *h;

	fake_reset();
	if (scenarios[s].create)
		return 0;
	image_write();
	if (pheap_open(path, 0, NULL, &h))
		exit(2);
	sum = drive_walk(h, &what);
	(void)pheap_close(h);
	return sum;
}

static void aftermath(size_t s, long n, int code, uint64_t sum, bool created, bool grown)
{
	bool sync = strcmp(fake_names[fake.fail_fn], "file_sync") == 0, there = access(path, F_OK) == 0;
	const char *what;
	uint64_t got;
	pheap *h;
	int rc;

	expect(names_count() == there, s, n, code, "a file of another name is left");
	expect(there || scenarios[s].create, s, n, code, "the file is gone");
	expect(there || !created, s, n, code, "the file that was created is gone");
	if (!there)
		return;
	fake.fail_rc = 0;
	rc = pheap_open(path, 0, NULL, &h);
	expect(rc == 0 || sync, s, n, code, "the heap does not open any more");
	if (rc)
		return;
	got = drive_walk(h, &what);
	expect(!what && (grown || scenarios[s].create || got == sum), s, n, code,
	       "the heap holds something else");
	expect(pheap_close(h) == 0, s, n, code, "close");
	expect(fake.fds == 0 && fake.maps == 0, s, n, code, "a descriptor or a mapping is left");
}

/* False: there was no such call. */
static bool scenario_try(size_t s, unsigned fn, long n, int code, uint64_t sum)
{
	struct pheap_options opt;
	bool grown = false;
	pheap *h = NULL;
	int rc;

	fake_reset();
	fake.fail_fn = fn;
	fake.fail_at = n;
	fake.fail_rc = code;
	if (scenarios[s].create)
		unlink(path);
	else
		image_write();
	drive_options(&opt);
	opt.initial_size = 400 << 10;
	rc = pheap_open(path, scenarios[s].flags, &opt, &h);
	if (rc) {
		expect(fake.failed, s, n, code, "an error without a failure");
		expect(!h && *pheap_error_detail(NULL), s, n, code, "a handle, or no sentence");
	} else {
		if (scenarios[s].grow)
			grown = grow(h) == 0;
		rc = pheap_close(h);
		expect(rc == 0 || fake.failed, s, n, code, "close fails without a failure");
		rc = 0;
	}
	expect(fake.fds == 0 && fake.maps == 0, s, n, code, "a descriptor or a mapping is left");
	if (!fake.failed)
		return false;
	aftermath(s, n, code, sum, rc == 0, grown);
	return true;
}

int main(void)
{
	static const int codes[] = {-EIO, -ENOSPC, -EINTR};
	long all = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(path, sizeof(path), "%s/heap", drive_folder());
	for (size_t s = 0; s < sizeof(scenarios) / sizeof(*scenarios); s++) {
		uint64_t sum;

		fake_reset();
		image_read(scenarios[s].state);
		sum = sum_expected(s);
		for (unsigned fn = 0; fake_names[fn]; fn++)
			for (size_t c = 0; c < sizeof(codes) / sizeof(*codes); c++)
				for (long n = 0; n < TRIES_MAX && scenario_try(s, fn, n, codes[c], sum); n++)
					all++;
	}
	free(bytes);
	printf("%ld failures of system calls\n", all);
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
