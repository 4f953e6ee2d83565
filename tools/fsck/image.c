/* SPDX-License-Identifier: MIT
 *
 * image.c: the file as the passes see it: reads by pread, writes by pwrite or, with -n, into pages kept in
 * memory.
 *
 * Invariants
 *   I1  A page of the overlay hides the file's: later reads see what was "written".
 *   I2  ORDER(fsck-dirty): {not clean} durable before the first repair of a clean heap. Crash between: the
 *       heap says not clean and the next run checks everything, also without -f. Pairs with pass_super,
 *       which reads it.
 *   I3  A short read gives zeros; only an error of the device ends the run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fsck.h"

#define PAGE_SIZE 4096u
#define HOLE_MIN (1u << 20)

struct page {
	uint64_t idx; /* file offset / PAGE_SIZE + 1; 0: empty slot */
	unsigned char *bytes;
};

struct fsck_overlay {
	struct page *slots; /* open addressing, at most half full */
	size_t slot_count, used_count;
};

void *memory_get(struct fsck *f, uint64_t count, uint64_t size, const char *what)
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	uint64_t n = count * size,
		 have = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX;
	void *p = NULL;

	/* the kernel may promise more than it has and end us later: ask for no more than the machine's
	 * memory */
	if (n / (size ? size : 1) == count && n < have / 8 * 7)
		p = calloc(n ? n : 1, 1);
	if (!p)
		fsck_fail(f,
			  "needs %llu MiB of memory for %s, which this machine does not have; run it on a "
			  "larger one",
			  (unsigned long long)(count / (1u << 20) * size + 1), what);
	return p;
}

void image_open(struct fsck *f)
{
	struct stat st;

	f->writable = f->mode != MODE_NO;
	/* O_NONBLOCK: the open of a pipe without a writer must not hang */
	f->fd = open(f->path, (f->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (f->fd < 0 && f->writable && (errno == EACCES || errno == EROFS || errno == EPERM))
		fsck_fail(f, "cannot be opened for writing (%s); -n checks it without changing it",
			  strerror(errno));
	if (f->fd < 0 && errno == EISDIR)
		fsck_fail(f, "is a directory, not a heap file");
	if (f->fd < 0)
		fsck_fail(f, "cannot be opened: %s", strerror(errno));
	if (fstat(f->fd, &st) < 0)
		fsck_fail(f, "cannot be examined: %s", strerror(errno));
	if (S_ISDIR(st.st_mode))
		fsck_fail(f, "is a directory, not a heap file");
	if (!S_ISREG(st.st_mode))
		fsck_fail(f, "is not a regular file, so it is not a heap");
	if (!st.st_size)
		fsck_fail(f, "is empty, so it is not a heap");
	f->file_size = (uint64_t)st.st_size;
	f->overlay = memory_get(f, 1, sizeof *f->overlay, "the overlay");
	f->overlaid = !f->writable;
	identity_read(&f->id, f->fd);
}

void image_close(struct fsck *f)
{
	struct fsck_overlay *o = f->overlay;

	for (size_t i = 0; i < o->slot_count; i++)
		free(o->slots[i].bytes);
	free(o->slots);
	free(o);
	free(f->desc);
	free(f->bits);
	free(f->seen);
	close(f->fd);
}

static struct page *page_slot(struct fsck_overlay *o, uint64_t idx)
{
	size_t i = (size_t)(idx * 0x9e3779b97f4a7c15ull >> 20) & (o->slot_count - 1);

	while (o->slots[i].idx && o->slots[i].idx != idx)
		i = (i + 1) & (o->slot_count - 1);
	return &o->slots[i];
}

static const unsigned char *page_find(const struct fsck *f, uint64_t idx)
{
	return f->overlay->slot_count ? page_slot(f->overlay, idx)->bytes : NULL;
}

static void file_read(struct fsck *f, uint64_t off, unsigned char *buf, size_t n)
{
	while (n) {
		ssize_t got = off > INT64_MAX ? 0 : pread(f->fd, buf, n, (off_t)off);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			fsck_fail(f, "cannot be read at offset 0x%llx: %s", (unsigned long long)off,
				  strerror(errno));
		if (got == 0)
			break;
		buf += got;
		off += (uint64_t)got;
		n -= (size_t)got;
	}
	memset(buf, 0, n);
}

void image_read(struct fsck *f, uint64_t off, void *buf, size_t n)
{
	unsigned char *p = buf;

	file_read(f, off, p, n);
	if (!f->overlay->used_count)
		return;
	while (n) {
		size_t in = (size_t)(off % PAGE_SIZE), part = PAGE_SIZE - in < n ? PAGE_SIZE - in : n;
		const unsigned char *bytes = page_find(f, off / PAGE_SIZE + 1);

		if (bytes)
			memcpy(p, bytes + in, part);
		p += part;
		off += part;
		n -= part;
	}
}

uint64_t image_read_word(struct fsck *f, uint64_t off)
{
	uint64_t word;

	image_read(f, off, &word, sizeof word);
	return word;
}

static void overlay_grow(struct fsck *f)
{
	struct fsck_overlay *o = f->overlay, old = *o;

	o->slot_count = old.slot_count ? old.slot_count * 2 : 64;
	o->slots = memory_get(f, o->slot_count, sizeof *o->slots, "changes that -n does not write");
	for (size_t i = 0; i < old.slot_count; i++)
		if (old.slots[i].idx)
			*page_slot(o, old.slots[i].idx) = old.slots[i];
	free(old.slots);
}

static void overlay_write(struct fsck *f, uint64_t off, const unsigned char *p, size_t n)
{
	struct fsck_overlay *o = f->overlay;

	while (n) {
		size_t in = (size_t)(off % PAGE_SIZE), part = PAGE_SIZE - in < n ? PAGE_SIZE - in : n;
		struct page *page;

		if (o->used_count * 2 >= o->slot_count)
			overlay_grow(f);
		page = page_slot(o, off / PAGE_SIZE + 1);
		if (!page->idx) {
			page->bytes = memory_get(f, 1, PAGE_SIZE, "changes that -n does not write");
			file_read(f, off - in, page->bytes, PAGE_SIZE);
			page->idx = off / PAGE_SIZE + 1;
			o->used_count++;
		}
		memcpy(page->bytes + in, p, part);
		p += part;
		off += part;
		n -= part;
	}
}

#ifdef FSCK_DIE_AFTER
/* Only in the program that the tests build: the run dies by SIGKILL at write number PHEAP_FSCK_DIE_AFTER
 * (from 1), before it or, with PHEAP_FSCK_DIE_TORN, with its first half in the file. */
static size_t die_maybe(size_t n)
{
	static unsigned long count;
	const char *after = getenv("PHEAP_FSCK_DIE_AFTER");

	if (!after || ++count != strtoul(after, NULL, 10))
		return n;
	if (!getenv("PHEAP_FSCK_DIE_TORN"))
		raise(SIGKILL);
	return n / 16 * 8;
}
#else
static size_t die_maybe(size_t n)
{
	return n;
}
#endif

static void file_write(struct fsck *f, uint64_t off, const unsigned char *p, size_t n)
{
	size_t full = n;

	n = die_maybe(n);
	for (size_t done = 0; done < n;) {
		ssize_t put = pwrite(f->fd, p + done, n - done, (off_t)(off + done));

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			fsck_fail(f,
				  "cannot be written at offset 0x%llx: %s; run it again when that is mended",
				  (unsigned long long)(off + done), strerror(errno));
		done += (size_t)put;
	}
	if (n != full)
		raise(SIGKILL);
}

void image_write(struct fsck *f, uint64_t off, const void *buf, size_t n)
{
	if (f->overlaid) {
		overlay_write(f, off, buf, n);
		return;
	}
	if (f->state_copy >= 0 && f->state.clean)
		image_write_state(f, false); /* I2 */
	file_write(f, off, buf, n);
	f->repair_count++;
}

void image_write_word(struct fsck *f, uint64_t off, uint64_t word)
{
	image_write(f, off, &word, sizeof word);
}

void image_zero(struct fsck *f, uint64_t off, uint64_t n)
{
	static const unsigned char zeros[65536];

	while (n) {
		size_t part = n < sizeof zeros ? (size_t)n : sizeof zeros;

		image_write(f, off, zeros, part);
		off += part;
		n -= part;
	}
}

void image_fill(struct fsck *f, uint64_t chunk, uint64_t count)
{
	int rc;

	if (f->overlaid)
		return;
	do
		rc = fallocate(f->fd, FALLOC_FL_KEEP_SIZE,
			       (off_t)(f->super.data_off + chunk * PHD_CHUNK_SIZE),
			       (off_t)(count * PHD_CHUNK_SIZE));
	while (rc < 0 && errno == EINTR);
	/* without fallocate the file system has no holes that were punched */
	if (rc < 0 && errno != EOPNOTSUPP)
		fsck_fail(
			f,
			"has blocks that lost their space, and it cannot be had again: %s; make room, then run it again",
			strerror(errno));
}

/* Allocated, not only said to be there: programs store into the mapping, where a full disk is a signal. */
static void items_extend(struct fsck *f, uint64_t off, uint64_t unit, uint64_t count)
{
	uint64_t end = off + (unit * count + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE;
	int rc;

	do
		rc = fallocate(f->fd, 0, (off_t)off, (off_t)(end - off));
	while (rc < 0 && errno == EINTR);
	if (rc < 0 && errno == EOPNOTSUPP)
		rc = end > f->file_size ? ftruncate(f->fd, (off_t)end) : 0;
	if (rc < 0)
		fsck_fail(f, "cannot be extended to what its log names: %s; make room, then run it again",
			  strerror(errno));
}

void image_extend(struct fsck *f, uint64_t chunk_count)
{
	const struct phd_super *s = &f->super;
	uint64_t size = s->data_off + chunk_count * PHD_CHUNK_SIZE;

	if (size <= f->file_size)
		return;
	if (!f->overlaid) {
		items_extend(f, s->desc_off, sizeof(uint64_t), chunk_count);
		items_extend(f, s->bits_off, sizeof(struct phd_bits), chunk_count);
		items_extend(f, s->words_off, sizeof(struct phd_words), chunk_count);
		items_extend(f, s->lease_off, sizeof(struct phd_lease), chunk_count);
		items_extend(f, s->table_lease_off, sizeof(struct phd_table_lease),
			     format_table_lease_count(chunk_count));
		items_extend(f, s->data_off, PHD_CHUNK_SIZE, chunk_count);
	}
	f->file_size = size;
}

void image_forget(struct fsck *f)
{
	posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
}

void image_sync(struct fsck *f)
{
	if (!f->overlaid && fdatasync(f->fd) < 0)
		fsck_fail(f, "cannot be made durable: %s; check the device, then run it again",
			  strerror(errno));
}

void image_write_state(struct fsck *f, bool clean)
{
	struct phd_state s = f->state;
	int copy = f->state_copy == 0 ? 1 : 0;

	if (f->overlaid)
		return;
	s.magic = PHD_STATE_MAGIC;
	s.seq++;
	memcpy(s.boot_id, f->id.boot_id, sizeof s.boot_id);
	s.inode = f->id.inode;
	s.birth_ns = f->id.birth_ns;
	s.dev = f->id.dev;
	s.clean = clean;
	s.allocated_size = 0; /* not known: the next open looks for holes */
	s.durability = f->super.durability;
	s.crc = format_crc32c(&s, offsetof(struct phd_state, crc));
	file_write(f, PHD_STATE_OFF(copy), (const unsigned char *)&s, sizeof s);
	image_sync(f);
	f->state = s;
	f->state_copy = copy;
}

/* The first page of the overlay that ends past off and begins below end; end: none. */
static uint64_t overlay_next(const struct fsck *f, uint64_t off, uint64_t end)
{
	const struct fsck_overlay *o = f->overlay;

	for (size_t i = 0; i < o->slot_count; i++) {
		uint64_t page = (o->slots[i].idx - 1) * PAGE_SIZE;

		if (o->slots[i].idx && page < end && page + PAGE_SIZE > off)
			end = page > off ? page : off;
	}
	return end;
}

uint64_t image_next_data(struct fsck *f, uint64_t off, uint64_t end)
{
	off_t found;
	uint64_t data;

	if (off >= end || end > INT64_MAX)
		return off;
	found = lseek(f->fd, (off_t)off, SEEK_DATA);
	if (found < 0 && errno != ENXIO)
		return off;
	data = found < 0 || (uint64_t)found > end ? end : (uint64_t)found;
	if (!f->overlay->used_count)
		return data;
	/* to look through the overlay costs more than a small hole */
	return data - off < HOLE_MIN ? off : overlay_next(f, off, data);
}
