/* SPDX-License-Identifier: MIT
 *
 * weakdisk.c: see weakdisk.h.
 *
 * Why pages are compared with what they were, and not marked at stores: nothing here sees a store to the mapping. A store of
 * what is there already is taken for none, which loses more than a kernel would.
 */
#include "weakdisk.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512u
#define FDS 1024
#define CLOCK_MAX 2000000ul /* looks at the clock in a run */
#define MAPS 8u

struct weakdisk weakdisk = {.fd = -1};
static unsigned device_of[FDS];
static size_t used; /* bytes of `seen` and `disk` that may not be zero */
static struct {
	char *start;
	size_t n;
} maps[MAPS];

const char *const disk_names[DISK_FNS] = {
	"file_open",
	"file_close",
	"file_info",
	"file_network",
	"file_read",
	"file_write",
	"file_write_sync",
	"file_allocate",
	"file_sync",
	"file_create_unnamed",
	"file_link",
	"file_path",
	"folder_sync",
	"lock_set",
	"lock_clear",
	"lock_test",
	"map",
	"unmap",
	"map_sync",
	"file_forget",
	"fence_register",
	"random",
	"boot_id",
};

/* ---- failing ---- */

static bool writes(unsigned fn)
{
	return fn == DISK_WRITE || fn == DISK_WRITE_SYNC || fn == DISK_SYNC || fn == DISK_MAP_SYNC;
}

static int fails(unsigned fn)
{
	struct weakdisk *d = &weakdisk;
	struct disk_fault *f = &d->faults[d->fault_at];
	int code = 0;

	if (d->quiet)
		return 0;
	if (d->watch)
		d->watch();
	d->calls[fn]++;
	if (d->stays && writes(fn)) {
		code = d->stays;
	} else if (d->fault_at < d->fault_count && (f->fn == fn || f->fn == DISK_ANY) && f->left-- == 0) {
		code = f->code;
		d->stays = f->stays ? code : 0;
		d->fault_at++;
	}
	if (code) {
		d->fired = true;
		d->fired_fn = fn;
		d->fired_sync |= writes(fn);
	}
	return code;
}

#define FAIL_IF(fn) \
	do { \
		int fail_rc = fails(fn); \
		if (fail_rc) \
			return fail_rc; \
	} while (0)

/* ---- page cache and disk ---- */

static size_t size_now(void)
{
	struct stat st;

	return fstat(weakdisk.fd, &st) ? 0 : (size_t)st.st_size;
}

static bool page_dirty(size_t page)
{
	size_t off = page * DISK_PAGE;

	return weakdisk.dirty[page] || memcmp(weakdisk.map + off, weakdisk.seen + off, DISK_PAGE) != 0;
}

static void page_clean(size_t page)
{
	size_t off = page * DISK_PAGE;

	weakdisk.dirty[page] = false;
	memcpy(weakdisk.seen + off, weakdisk.map + off, DISK_PAGE);
}

static void page_write(size_t page)
{
	size_t off = page * DISK_PAGE;

	memcpy(weakdisk.disk + off, weakdisk.map + off, DISK_PAGE);
	page_clean(page);
}

/* The pages of [off, off + n) go to the disk. failed: some. */
static void range_sync(uint64_t off, size_t n, bool failed)
{
	size_t size = size_now(), end = off + n < size ? (size_t)off + n : size;

	end = (end + DISK_PAGE - 1) / DISK_PAGE;
	for (size_t page = (size_t)off / DISK_PAGE; page < end; page++) {
		if (!page_dirty(page))
			continue;
		switch (failed ? rng_below(&weakdisk.rng, 4) : 0) {
		case 0:
			page_write(page);
			break;
		case 1:
			break; /* to be written yet */
		default:
			page_clean(page); /* lost */
		}
	}
	if (!failed && end * DISK_PAGE > weakdisk.disk_size)
		weakdisk.disk_size = end * DISK_PAGE < size ? end * DISK_PAGE : size;
}

static void pages_mark(uint64_t off, size_t n)
{
	for (size_t page = (size_t)off / DISK_PAGE; page * DISK_PAGE < off + n; page++)
		weakdisk.dirty[page] = true;
}

/* Of a write to the disk that failed: each sector old or new. */
static void sectors_write(uint64_t off, size_t n)
{
	for (uint64_t at = off / SECTOR * SECTOR; at < off + n; at += SECTOR)
		if (rng_below(&weakdisk.rng, 2))
			memcpy(weakdisk.disk + at, weakdisk.map + at, SECTOR);
}

/* ---- files ---- */

static int opened(int fd)
{
	if (fd >= FDS)
		abort();
	weakdisk.fds += fd >= 0;
	if (fd >= 0)
		device_of[fd] = weakdisk.device + 1;
	return fd;
}

static int file_again(void)
{
	char self[40];
	int fd;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", weakdisk.fd);
	fd = open(self, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int os_file_open(const char *path, int flags, unsigned mode)
{
	FAIL_IF(DISK_OPEN);
	(void)flags;
	(void)mode;
	return weakdisk.named && strcmp(path, DISK_PATH) == 0 ? opened(file_again()) : -ENOENT;
}

static int os_file_close(int fd)
{
	int rc = ph_os_linux.file_close(fd), fail_rc = fails(DISK_CLOSE);

	weakdisk.fds--;
	return fail_rc ? fail_rc : rc;
}

static int os_file_info(int fd, struct ph_file_info *ret)
{
	int rc;

	FAIL_IF(DISK_INFO);
	rc = ph_os_linux.file_info(fd, ret);
	ret->inode = 77;
	ret->birth_ns = 88;
	ret->dev = device_of[fd];
	ret->link_count = weakdisk.named;
	return rc;
}

static int os_file_network(int fd)
{
	(void)fd;
	FAIL_IF(DISK_NETWORK);
	return 0;
}

static int os_file_read(int fd, void *buf, size_t n, uint64_t off)
{
	FAIL_IF(DISK_READ);
	return ph_os_linux.file_read(fd, buf, n, off);
}

static int os_file_write(int fd, const void *buf, size_t n, uint64_t off)
{
	int fail_rc = fails(DISK_WRITE), rc;

	rc = ph_os_linux.file_write(fd, buf, fail_rc ? (size_t)rng_below(&weakdisk.rng, n + 1) : n, off);
	pages_mark(off, n);
	return fail_rc ? fail_rc : rc;
}

static int os_file_write_sync(int fd, const void *buf, size_t n, uint64_t off)
{
	int fail_rc = fails(DISK_WRITE_SYNC), rc;
	/* Whole sectors: less than one is not written, as the format relies on. */
	size_t put = fail_rc && rng_below(&weakdisk.rng, 2)
			     ? (size_t)rng_below(&weakdisk.rng, n / SECTOR + 1) * SECTOR
			     : n;

	rc = ph_os_linux.file_write(fd, buf, put, off);
	pages_mark(off, n);
	if (!fail_rc) {
		range_sync(off, n, false);
		return rc;
	}
	sectors_write(off, n);
	for (size_t page = (size_t)off / DISK_PAGE; page * DISK_PAGE < off + n; page++)
		if (rng_below(&weakdisk.rng, 2))
			page_clean(page);
	return fail_rc;
}

static int os_file_truncate(int fd, uint64_t size)
{
	(void)fd;
	(void)size;
	return -EOPNOTSUPP; /* the library shortens no file */
}

static int os_file_punch(int fd, uint64_t off, uint64_t n)
{
	(void)fd;
	(void)off;
	(void)n;
	return -EOPNOTSUPP; /* nothing is trimmed on it */
}

static int os_file_allocate(int fd, uint64_t off, uint64_t n)
{
	int fail_rc = fails(DISK_ALLOCATE);

	if (fail_rc && rng_below(&weakdisk.rng, 2))
		return fail_rc;
	if (off + n > DISK_CAPACITY)
		return -ENOSPC;
	if (fail_rc)
		n = rng_below(&weakdisk.rng, n / DISK_PAGE + 1) * DISK_PAGE;
	if (n && ph_os_linux.file_allocate(fd, off, n))
		abort();
	if (off + n > used)
		used = (size_t)(off + n);
	return fail_rc;
}

static int os_file_sync(int fd)
{
	int fail_rc = fails(DISK_SYNC);

	(void)fd;
	range_sync(0, DISK_CAPACITY, fail_rc != 0);
	if (!fail_rc)
		weakdisk.disk_size = size_now();
	return fail_rc;
}

/* ---- names ---- */

static void file_make(void)
{
	if (weakdisk.fd >= 0) {
		close(weakdisk.fd);
		munmap(weakdisk.map, DISK_CAPACITY);
	}
	weakdisk.fd = memfd_create("heap", MFD_CLOEXEC);
	weakdisk.map = weakdisk.fd < 0 ? MAP_FAILED
				       : mmap(NULL, DISK_CAPACITY, PROT_READ | PROT_WRITE, MAP_SHARED,
					      weakdisk.fd, 0);
	if (!weakdisk.seen) {
		weakdisk.seen = calloc(1, DISK_CAPACITY);
		weakdisk.disk = calloc(1, DISK_CAPACITY);
	}
	if (weakdisk.map == MAP_FAILED || !weakdisk.seen || !weakdisk.disk) {
		perror("a file in memory");
		exit(2);
	}
	memset(weakdisk.seen, 0, used);
	memset(weakdisk.disk, 0, used);
	used = 0;
	memset(weakdisk.dirty, 0, sizeof(weakdisk.dirty));
	weakdisk.disk_size = 0;
	weakdisk.named = false;
}

static int os_file_create_unnamed(const char *path, unsigned mode, char *ret_temporary, size_t n)
{
	FAIL_IF(DISK_CREATE);
	(void)path;
	(void)mode;
	(void)n;
	ret_temporary[0] = 0;
	file_make();
	return opened(file_again());
}

static int os_file_link(int fd, const char *temporary, const char *path)
{
	(void)fd;
	(void)temporary;
	(void)path;
	FAIL_IF(DISK_LINK);
	if (weakdisk.named)
		return -EEXIST;
	weakdisk.named = true;
	return 0;
}

static int os_file_unlink(const char *path)
{
	(void)path;
	weakdisk.named = false;
	return 0;
}

static int os_file_path(const char *path, char *ret, size_t n)
{
	FAIL_IF(DISK_REAL_PATH);
	snprintf(ret, n, "%s", path);
	return 0;
}

static int os_folder_sync(const char *path)
{
	(void)path;
	FAIL_IF(DISK_FOLDER);
	return 0;
}

/* ---- locks, mappings ---- */

static int os_lock_set(int fd, uint64_t off, bool exclusive, bool wait)
{
	FAIL_IF(DISK_LOCK);
	return ph_os_linux.lock_set(fd, off, exclusive, wait);
}

static int os_lock_clear(int fd, uint64_t off)
{
	int rc = ph_os_linux.lock_clear(fd, off), fail_rc = fails(DISK_UNLOCK);

	return fail_rc ? fail_rc : rc;
}

static int os_lock_test(int fd, uint64_t off)
{
	FAIL_IF(DISK_TEST);
	return ph_os_linux.lock_test(fd, off);
}

/* One that is new in place of one that is gone. */
static void map_note(char *start, size_t n, const char *gone)
{
	for (unsigned i = 0; i < MAPS; i++)
		if (maps[i].start == gone) {
			maps[i].start = start;
			maps[i].n = n;
			return;
		}
}

static void *os_map(void *address, size_t n, bool writable, int fd, bool fixed, int *ret_rc)
{
	void *p;

	*ret_rc = fails(DISK_MAP);
	if (*ret_rc)
		return NULL;
	p = ph_os_linux.map(address, n, writable, fd, fixed, ret_rc);
	weakdisk.maps += p != NULL;
	map_note(p, n, NULL);
	return p;
}

static void os_map_scattered(void *address, size_t n)
{
	(void)address, (void)n;
}

static int os_unmap(void *address, size_t n)
{
	int rc = ph_os_linux.unmap(address, n), fail_rc = fails(DISK_UNMAP);

	weakdisk.maps--;
	map_note(NULL, 0, address);
	return fail_rc ? fail_rc : rc;
}

static int os_map_sync(void *address, size_t n)
{
	int fail_rc = fails(DISK_MAP_SYNC);

	for (unsigned i = 0; i < MAPS; i++)
		if (maps[i].n && (char *)address >= maps[i].start &&
		    (char *)address < maps[i].start + maps[i].n)
			range_sync((uint64_t)((char *)address - maps[i].start), n, fail_rc != 0);
	return fail_rc;
}

static int os_file_forget(int fd, void *address, size_t n)
{
	FAIL_IF(DISK_FORGET);
	(void)fd;
	(void)address;
	(void)n;
	for (size_t page = 0, end = size_now() / DISK_PAGE; page < end; page++) {
		size_t off = page * DISK_PAGE;

		/* One that is to be written yet is not dropped. */
		if (page_dirty(page))
			continue;
		memcpy(weakdisk.map + off, weakdisk.disk + off, DISK_PAGE);
		page_clean(page);
	}
	return 0;
}

/* ---- sleeping, identity ---- */

static int os_futex_wait(const uint32_t *word, uint32_t seen, uint64_t timeout_ns)
{
	if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != seen)
		return -EAGAIN;
	weakdisk.slept_ns += timeout_ns;
	return -ETIMEDOUT;
}

static void os_futex_wake(const uint32_t *word, int count)
{
	(void)word;
	(void)count;
}

static void os_yield(void)
{
}

static int os_fence_register(void)
{
	FAIL_IF(DISK_FENCE);
	return 0;
}

static void os_fence_all(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Whoever waits looks at the clock: one that waits for ever is told before a real one would have run out. */
static uint64_t os_clock_ns(void)
{
	if (weakdisk.clock_count++ == CLOCK_MAX)
		raise(SIGALRM);
	return ph_os_linux.clock_ns() + weakdisk.slept_ns;
}

static int os_random(void *buf, size_t n)
{
	FAIL_IF(DISK_RANDOM);
	memset(buf, 0x5a, n);
	return 0;
}

static int os_boot_id(uint8_t ret[16])
{
	int fail_rc = fails(DISK_BOOT);

	memset(ret, 0, 16);
	weakdisk.boot_hidden |= fail_rc != 0;
	if (fail_rc)
		return fail_rc;
	memset(ret, weakdisk.boot + 1, 16);
	return 0;
}

static void os_process(uint32_t *ret_pid, uint64_t *ret_start_ticks, char ret_command[16])
{
	*ret_pid = 4711;
	*ret_start_ticks = 1;
	memcpy(ret_command, "hostile\0\0\0\0\0\0\0\0", 16);
}

static uint32_t os_thread(void)
{
	return 1;
}

const struct ph_os weakdisk_os = {
	.file_open = os_file_open,
	.file_close = os_file_close,
	.file_info = os_file_info,
	.file_network = os_file_network,
	.file_read = os_file_read,
	.file_write = os_file_write,
	.file_write_sync = os_file_write_sync,
	.file_truncate = os_file_truncate,
	.file_allocate = os_file_allocate,
	.file_punch = os_file_punch,
	.file_sync = os_file_sync,
	.file_create_unnamed = os_file_create_unnamed,
	.file_link = os_file_link,
	.file_unlink = os_file_unlink,
	.file_path = os_file_path,
	.folder_sync = os_folder_sync,
	.lock_set = os_lock_set,
	.lock_clear = os_lock_clear,
	.lock_test = os_lock_test,
	.map = os_map,
	.unmap = os_unmap,
	.map_scattered = os_map_scattered,
	.map_sync = os_map_sync,
	.file_forget = os_file_forget,
	.yield = os_yield,
	.futex_wait = os_futex_wait,
	.futex_wake = os_futex_wake,
	.fence_register = os_fence_register,
	.fence_all = os_fence_all,
	.clock_ns = os_clock_ns,
	.random = os_random,
	.boot_id = os_boot_id,
	.process = os_process,
	.thread = os_thread,
};

/* ---- moments ---- */

void weakdisk_faults(const struct disk_fault *faults, unsigned count)
{
	struct weakdisk *d = &weakdisk;

	memset(d->faults, 0, sizeof(d->faults));
	if (count)
		memcpy(d->faults, faults, count * sizeof(*faults));
	d->fault_count = count;
	d->fault_at = 0;
	d->stays = 0;
	d->fired = d->fired_sync = d->boot_hidden = false;
	memset(d->calls, 0, sizeof(d->calls));
	d->clock_count = 0;
}

void weakdisk_clear(void)
{
	file_make();
	weakdisk.slept_ns = 0;
	weakdisk.device = 0;
	weakdisk_faults(NULL, 0);
}

static char *copy(const char *from)
{
	char *to = malloc(used);

	if (!to)
		exit(2);
	return memcpy(to, from, used);
}

void weakdisk_take(struct disk_image *to)
{
	to->size = size_now();
	to->used = used;
	to->cache = malloc(used);
	if (!to->cache)
		exit(2);
	memset(to->cache, 0, used);
	memcpy(to->cache, weakdisk.map, to->size);
	to->seen = copy(weakdisk.seen);
	to->disk = copy(weakdisk.disk);
	to->disk_size = weakdisk.disk_size;
	memcpy(to->dirty, weakdisk.dirty, sizeof(to->dirty));
	to->named = weakdisk.named;
	to->boot = weakdisk.boot;
}

void disk_image_free(struct disk_image *image)
{
	free(image->cache);
	free(image->seen);
	free(image->disk);
	memset(image, 0, sizeof(*image));
}

/* What the disk has, with some of what was to be written: nothing, all, some pages, some sectors. */
static void cut(const struct disk_image *from)
{
	uint64_t way = rng_below(&weakdisk.rng, 4), pages = (from->size - from->disk_size) / DISK_PAGE;
	size_t size = from->disk_size + (way ? rng_below(&weakdisk.rng, pages + 1) * DISK_PAGE : 0);

	for (size_t off = 0; off < size; off += SECTOR) {
		size_t page = off / DISK_PAGE;
		bool yes = way == 1;

		if (way == 2 && off % DISK_PAGE)
			continue;
		if (!from->dirty[page] &&
		    memcmp(from->cache + page * DISK_PAGE, from->seen + page * DISK_PAGE, DISK_PAGE) == 0)
			continue;
		if (way >= 2)
			yes = rng_below(&weakdisk.rng, 2);
		if (yes)
			memcpy(weakdisk.disk + off, from->cache + off, way == 2 ? DISK_PAGE : SECTOR);
	}
	if (ftruncate(weakdisk.fd, (off_t)size))
		exit(2);
	memcpy(weakdisk.map, weakdisk.disk, size);
	memset(weakdisk.disk + size, 0, used - size);
	memcpy(weakdisk.seen, weakdisk.disk, used);
	weakdisk.disk_size = size;
	weakdisk.boot++;
}

void weakdisk_put(const struct disk_image *from, bool is_cut)
{
	file_make();
	used = from->used;
	memcpy(weakdisk.disk, from->disk, used);
	weakdisk.named = from->named;
	weakdisk.boot = from->boot;
	weakdisk.device = 0;
	if (is_cut) {
		cut(from);
		return;
	}
	if (ftruncate(weakdisk.fd, (off_t)from->size))
		exit(2);
	memcpy(weakdisk.map, from->cache, from->size);
	memcpy(weakdisk.seen, from->seen, used);
	memcpy(weakdisk.dirty, from->dirty, sizeof(weakdisk.dirty));
	weakdisk.disk_size = from->disk_size;
}
