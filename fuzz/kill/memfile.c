/* SPDX-License-Identifier: MIT
 *
 * memfile.c: see memfile.h.
 */
#include "memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "oracle.h"
#include "os.h"
#include "runtime.h"

#define FD_FIRST 1000
#define FD_COUNT 32
#define LOCK_COUNT 16

struct description {
	struct memfile *file;	    /* NULL: free */
	unsigned alias;		    /* which of its paths */
	uint64_t locks[LOCK_COUNT]; /* offsets; 0: none */
	bool exclusive[LOCK_COUNT];
};

static struct memfile files[MEMFILE_COUNT];
static struct description descriptions[FD_COUNT];
static struct ph_file_info identity = {.inode = 4711, .birth_ns = 1};
static uint8_t identity_boot[16] = {1};
static uint32_t boot;
static uint64_t now_ns = 1000000000u, random_state;
bool (*memfile_waits)(const uint32_t *word, uint32_t seen);

static int describe(struct memfile *f);
static int m_lock_set(int fd, uint64_t off, bool exclusive, bool wait);

struct memfile *memfile_get(unsigned i)
{
	if (!files[i].bytes) {
		files[i].bytes = aligned_alloc(4096, MEMFILE_CAPACITY);
		if (!files[i].bytes)
			abort();
		memfile_clear(&files[i]);
	}
	return &files[i];
}

void memfile_clear(struct memfile *f)
{
	memset(f->bytes, 0, MEMFILE_CAPACITY);
	f->size = 0;
	f->named = false;
	f->space = 0;
	f->fault = 0;
	memset(f->holes, 0, sizeof(f->holes));
	f->written = f->writing = f->synced = NULL;
}

int memfile_space_check(const struct memfile *f, char *why, size_t n)
{
	const struct phd_super *s = (const void *)f->bytes;
	const struct phd_head *head = (const void *)(f->bytes + s->head_off);
	const uint64_t *desc = (const void *)(f->bytes + s->desc_off);

	if (f->fault) {
		snprintf(why, n, "a store into a hole, at %#llx: a bus error on a full disk",
			 (unsigned long long)f->fault - 1);
		return -1;
	}
	for (uint64_t c = 0; c < head->chunk_count; c++)
		if (f->holes[s->data_off / 4096 + c] && desc[c] != PHD_DESC_HOLE) {
			snprintf(why, n, "chunk %llu is a hole, and its descriptor is %#llx",
				 (unsigned long long)c, (unsigned long long)desc[c]);
			return -1;
		}
	return 0;
}

void memfile_kill(struct memfile *f)
{
	for (unsigned i = 0; i < FD_COUNT; i++)
		if (descriptions[i].file == f)
			memset(&descriptions[i], 0, sizeof(descriptions[i]));
}

int memfile_bystander(struct memfile *f, uint64_t off)
{
	int fd = describe(f);

	if (fd < 0 || m_lock_set(fd, off, false, false))
		abort();
	return fd;
}

int memfile_identity(const char *path)
{
	int rc, fd = ph_os_linux.file_open(path, O_RDWR | O_CREAT, 0600);

	if (fd < 0)
		return fd;
	rc = ph_os_linux.file_info(fd, &identity);
	ph_os_linux.file_close(fd);
	return rc ? rc : ph_os_linux.boot_id(identity_boot);
}

void memfile_seed(uint64_t seed)
{
	random_state = seed;
	now_ns = 1000000000u;
}

void memfile_boot(uint32_t n)
{
	boot = n;
}

static struct description *description(int fd)
{
	if (fd < FD_FIRST || fd >= FD_FIRST + FD_COUNT || !descriptions[fd - FD_FIRST].file)
		abort();
	return &descriptions[fd - FD_FIRST];
}

static int describe(struct memfile *f)
{
	for (int i = 0; i < FD_COUNT; i++)
		if (!descriptions[i].file) {
			memset(&descriptions[i], 0, sizeof(descriptions[i]));
			descriptions[i].file = f;
			return FD_FIRST + i;
		}
	return -EMFILE;
}

static struct memfile *by_path(const char *path)
{
	unsigned i;

	if (sscanf(path, "mem:%u", &i) != 1 || i >= MEMFILE_COUNT)
		return NULL;
	return memfile_get(i);
}

static int m_open(const char *path, int flags, unsigned mode)
{
	struct memfile *f = by_path(path);
	int fd;

	(void)mode;
	if (!f || (!f->named && !(flags & O_CREAT)))
		return -ENOENT;
	if (f->named && (flags & O_EXCL))
		return -EEXIST;
	f->named = true;
	fd = describe(f);
	if (fd >= 0)
		descriptions[fd - FD_FIRST].alias =
			(unsigned)(strrchr(path, '+') ? strrchr(path, '+') - strchr(path, '+') + 1 : 0);
	return fd;
}

static int m_close(int fd)
{
	memset(description(fd), 0, sizeof(struct description));
	return 0;
}

void memfile_die(int fd)
{
	(void)m_close(fd);
}

static int m_info(int fd, struct ph_file_info *ret)
{
	struct memfile *f = description(fd)->file;

	*ret = identity;
	ret->dev = 100 + (uint64_t)(f - files) + description(fd)->alias * MEMFILE_COUNT;
	ret->size = ret->allocated = f->size;
	for (unsigned i = 0; i < MEMFILE_BLOCKS; i++)
		ret->allocated -= f->holes[i] ? 4096 : 0;
	ret->link_count = f->named;
	ret->regular = true;
	ret->directory = false;
	return 0;
}

static int m_network(int fd)
{
	(void)fd;
	return 0;
}

static int m_read(int fd, void *buf, size_t n, uint64_t off)
{
	struct memfile *f = description(fd)->file;

	if (off > f->size || n > f->size - off)
		return -ENODATA;
	memcpy(buf, f->bytes + off, n);
	return 0;
}

static int size_set(struct memfile *f, uint64_t size)
{
	if (size > MEMFILE_CAPACITY || (f->space && size > f->space))
		return -ENOSPC;
	if (f->written)
		f->written(f, size, 0);
	f->size = size;
	return 0;
}

/* Blocks that n bytes at off touch, or lie in. */
static void space_set(struct memfile *f, uint64_t off, uint64_t n, bool hole)
{
	for (uint64_t i = off / 4096; i * 4096 < off + n; i++) {
		if (f->holes[i] == hole)
			continue;
		if (f->written)
			f->written(f, MEMFILE_SPACE | i << 1 | hole, 0);
		f->holes[i] = hole;
	}
}

static int m_write(int fd, const void *buf, size_t n, uint64_t off)
{
	struct memfile *f = description(fd)->file;
	int rc = off + n > f->size ? size_set(f, off + n) : 0;

	if (rc)
		return rc;
	space_set(f, off, n, false);
	/* In pieces, so that a half-written sector is looked at as well; the kernel would not even tear it. */
	for (const char *from = buf; n;) {
		size_t word = 8 - off % 8, step = n < word ? n : word; /* K2 of runtime.h */

		if (f->written)
			f->written(f, off, step);
		memcpy(f->bytes + off, from, step);
		off += step;
		from += step;
		n -= step;
	}
	return 0;
}

static int m_write_sync(int fd, const void *buf, size_t n, uint64_t off)
{
	struct memfile *f = description(fd)->file;
	int rc;

	if (f->writing)
		f->writing(f, off, n);
	rc = m_write(fd, buf, n, off);
	if (!rc && f->synced)
		f->synced(f, off, n);
	return rc;
}

static int m_truncate(int fd, uint64_t size)
{
	return size_set(description(fd)->file, size);
}

static int m_allocate(int fd, uint64_t off, uint64_t n)
{
	struct memfile *f = description(fd)->file;

	int rc = off + n > f->size ? size_set(f, off + n) : 0;

	if (!rc)
		space_set(f, off, n, false);
	return rc;
}

static int m_punch(int fd, uint64_t off, uint64_t n)
{
	static const uint64_t zero;
	struct memfile *f = description(fd)->file;

	if (off % 4096 || n % 4096 || off + n > f->size)
		abort();
	for (uint64_t at = off; at < off + n; at += 8) {
		if (memcmp(f->bytes + at, &zero, 8) == 0)
			continue;
		if (f->written)
			f->written(f, at, 8);
		memcpy(f->bytes + at, &zero, 8);
	}
	space_set(f, off, n, true);
	return 0;
}

static int m_sync(int fd)
{
	struct memfile *f = description(fd)->file;

	if (f->synced)
		f->synced(f, 0, MEMFILE_ALL);
	return 0;
}

static int m_create(const char *path, unsigned mode, char *ret_temporary, size_t n)
{
	struct memfile *f = by_path(path);

	(void)mode;
	if (!f || !n)
		return -ENOENT;
	ret_temporary[0] = 0;
	return describe(f);
}

static int m_link(int fd, const char *temporary, const char *path)
{
	struct memfile *f = description(fd)->file;

	(void)temporary;
	(void)path;
	if (f->named)
		return -EEXIST;
	f->named = true;
	return 0;
}

static int m_unlink(const char *path)
{
	struct memfile *f = by_path(path);

	if (!f)
		return -ENOENT;
	if (f->written)
		f->written(f, MEMFILE_UNNAMED, 0);
	f->named = false;
	return 0;
}

static int m_folder_sync(const char *path)
{
	(void)path;
	return 0;
}

static int m_lock_test(int fd, uint64_t off)
{
	struct description *me = description(fd);

	for (unsigned i = 0; i < FD_COUNT; i++) {
		struct description *d = &descriptions[i];

		for (unsigned k = 0; d != me && d->file == me->file && k < LOCK_COUNT; k++)
			if (d->locks[k] == off)
				return 1;
	}
	return 0;
}

static bool conflict(const struct description *me, uint64_t off, bool exclusive)
{
	for (unsigned i = 0; i < FD_COUNT; i++) {
		const struct description *d = &descriptions[i];

		for (unsigned k = 0; d != me && d->file == me->file && k < LOCK_COUNT; k++)
			if (d->locks[k] == off && (exclusive || d->exclusive[k]))
				return true;
	}
	return false;
}

static int m_lock_set(int fd, uint64_t off, bool exclusive, bool wait)
{
	struct description *me = description(fd);
	int at = -1;

	if (conflict(me, off, exclusive)) {
		if (wait)
			abort(); /* one thread: it would wait for itself */
		return -EAGAIN;
	}
	for (int k = LOCK_COUNT - 1; k >= 0; k--)
		if (!me->locks[k])
			at = k;
	for (int k = 0; k < LOCK_COUNT; k++)
		if (me->locks[k] == off)
			at = k;
	if (at < 0)
		return -ENOLCK;
	me->locks[at] = off;
	me->exclusive[at] = exclusive;
	return 0;
}

static int m_lock_clear(int fd, uint64_t off)
{
	struct description *me = description(fd);

	for (unsigned k = 0; k < LOCK_COUNT; k++)
		if (me->locks[k] == off)
			me->locks[k] = 0;
	return 0;
}

static void *m_map(void *address, size_t n, bool writable, int fd, bool fixed, int *ret_rc)
{
	(void)address;
	(void)writable;
	(void)fixed;
	*ret_rc = n > MEMFILE_CAPACITY ? -ENOMEM : 0;
	return *ret_rc ? NULL : description(fd)->file->bytes;
}

static void m_map_scattered(void *address, size_t n)
{
	(void)address, (void)n;
}

static int m_unmap(void *address, size_t n)
{
	(void)address;
	(void)n;
	return 0;
}

static int m_map_sync(void *address, size_t n)
{
	for (unsigned i = 0; i < MEMFILE_COUNT; i++) {
		uint64_t off = (uint64_t)((uintptr_t)address - (uintptr_t)files[i].bytes);

		if (!files[i].bytes || off >= MEMFILE_CAPACITY)
			continue;
		n += off % 4096;
		off -= off % 4096;
		n = (n + 4095) / 4096 * 4096;
		if (files[i].synced)
			files[i].synced(&files[i], off, n);
		return 0;
	}
	return -ENOMEM;
}

static int m_file_forget(int fd, void *address, size_t n)
{
	(void)description(fd);
	(void)address;
	(void)n;
	return 0;
}

/* With one thread nobody else can change the word: waiting is over when the time is. */
static int m_futex_wait(const uint32_t *word, uint32_t seen, uint64_t timeout_ns)
{
	if (*word != seen)
		return -EAGAIN;
	if (memfile_waits && memfile_waits(word, seen))
		return 0;
	now_ns += timeout_ns;
	return -ETIMEDOUT;
}

static void m_futex_wake(const uint32_t *word, int count)
{
	(void)word;
	(void)count;
}

static void m_yield(void)
{
}

static int m_fence_register(void)
{
	return 0;
}

static void m_fence_all(void)
{
}

static uint64_t m_clock_ns(void)
{
	return now_ns += 1000;
}

static int m_random(void *buf, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)buf)[i] = (uint8_t)oracle_random(&random_state);
	return 0;
}

static int m_boot_id(uint8_t ret[16])
{
	for (unsigned i = 0; i < 16; i++)
		ret[i] = (uint8_t)(identity_boot[i] ^ (i < 4 ? boot >> 8 * i : 0));
	return 0;
}

/* The row may be in the mapping: these are stores like any other. */
static void m_process(uint32_t *ret_pid, uint64_t *ret_start_ticks, char ret_command[16])
{
	static const char command[16] = "harness";
	const uint32_t pid = 1;
	const uint64_t ticks = 1;

	kr_copy(ret_pid, &pid, sizeof(pid));
	kr_copy(ret_start_ticks, &ticks, sizeof(ticks));
	kr_copy(ret_command, command, sizeof(command));
}

static uint32_t m_thread(void)
{
	return 1;
}

static int m_path(const char *path, char *ret, size_t n)
{
	if (strlen(path) >= n)
		return -ENAMETOOLONG;
	memcpy(ret, path, strlen(path) + 1);
	return 0;
}

const struct ph_os memfile_os = {
	.file_open = m_open,
	.file_close = m_close,
	.file_info = m_info,
	.file_network = m_network,
	.file_read = m_read,
	.file_write = m_write,
	.file_write_sync = m_write_sync,
	.file_truncate = m_truncate,
	.file_allocate = m_allocate,
	.file_punch = m_punch,
	.file_sync = m_sync,
	.file_create_unnamed = m_create,
	.file_link = m_link,
	.file_unlink = m_unlink,
	.file_path = m_path,
	.folder_sync = m_folder_sync,
	.lock_set = m_lock_set,
	.lock_clear = m_lock_clear,
	.lock_test = m_lock_test,
	.map = m_map,
	.unmap = m_unmap,
	.map_scattered = m_map_scattered,
	.map_sync = m_map_sync,
	.file_forget = m_file_forget,
	.futex_wait = m_futex_wait,
	.futex_wake = m_futex_wake,
	.yield = m_yield,
	.fence_register = m_fence_register,
	.fence_all = m_fence_all,
	.clock_ns = m_clock_ns,
	.random = m_random,
	.boot_id = m_boot_id,
	.process = m_process,
	.thread = m_thread,
};
