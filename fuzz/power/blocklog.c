/* SPDX-License-Identifier: MIT
 *
 * blocklog.c: see blocklog.h.
 */
#include "blocklog.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "stage.h"

#define SECTOR 512u
#define PAGE 4096u
#define WRITE_MAX (256u << 10)
#define ENTRIES_MAX (1u << 20)
#define BYTES_MAX (1ull << 30)

struct entry {
	uint64_t off, at; /* on the disk; in `bytes` */
	uint64_t size;	  /* 0: a flush */
	struct deeds_sample sample;
};

struct blocklog {
	const struct deeds_board *board;
	uint64_t size;
	uint64_t count, used, flushes; /* entries, bytes of them */
	uint64_t full;
	struct deeds_sample end; /* when it was */
	struct entry *entries;
	uint8_t *bytes;
	uint8_t *now; /* the disk as it is read */
	/* of the process that makes images: the disk as it was at first, and as of the last flush before some moment */
	uint8_t *start, *flushed;
	uint8_t *start_pages, *used_pages; /* one each: not zeroes only */
	uint64_t flushed_count;
};

static void *memory(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void pages_mark(uint8_t *pages, uint64_t off, uint64_t size)
{
	memset(pages + off / PAGE, 1, (off + size - 1) / PAGE - off / PAGE + 1);
}

static int disk_load(struct blocklog *l, int disk)
{
	off_t at = 0;

	while ((at = lseek(disk, at, SEEK_DATA)) >= 0 && (uint64_t)at < l->size) {
		off_t hole = lseek(disk, at, SEEK_HOLE);
		size_t n = (size_t)(hole - at);

		if (hole < at || pread(disk, l->now + at, n, at) != (ssize_t)n)
			return -1;
		memcpy(l->start + at, l->now + at, n);
		memcpy(l->flushed + at, l->now + at, n);
		pages_mark(l->start_pages, (uint64_t)at, n);
		pages_mark(l->used_pages, (uint64_t)at, n);
		at = hole;
	}
	return 0;
}

struct blocklog *blocklog_make(int disk, uint64_t size, const struct deeds_board *board)
{
	struct blocklog *l = memory(sizeof(*l));

	if (!l)
		return NULL;
	l->board = board;
	l->size = size;
	l->entries = memory(ENTRIES_MAX * sizeof(struct entry));
	l->bytes = memory(BYTES_MAX);
	l->now = memory(size);
	l->start = memory(size);
	l->start_pages = memory(size / PAGE);
	l->flushed = memory(size);
	l->used_pages = memory(size / PAGE);
	if (!l->entries || !l->bytes || !l->now || !l->start || !l->start_pages || !l->flushed ||
	    !l->used_pages || disk_load(l, disk)) {
		blocklog_free(l);
		return NULL;
	}
	return l;
}

static void memory_free(void *p, uint64_t size)
{
	if (p)
		munmap(p, size);
}

void blocklog_free(struct blocklog *l)
{
	if (!l)
		return;
	memory_free(l->entries, ENTRIES_MAX * sizeof(struct entry));
	memory_free(l->bytes, BYTES_MAX);
	memory_free(l->now, l->size);
	memory_free(l->start, l->size);
	memory_free(l->start_pages, l->size / PAGE);
	memory_free(l->flushed, l->size);
	memory_free(l->used_pages, l->size / PAGE);
	munmap(l, sizeof(*l));
}

uint64_t blocklog_count(const struct blocklog *l)
{
	return __atomic_load_n(&l->count, __ATOMIC_ACQUIRE);
}

uint64_t blocklog_flushes(const struct blocklog *l)
{
	return __atomic_load_n(&l->flushes, __ATOMIC_ACQUIRE);
}

bool blocklog_full(const struct blocklog *l)
{
	return __atomic_load_n(&l->full, __ATOMIC_ACQUIRE);
}

/* ---- the disk ---- */

static void entry_add(struct blocklog *l, uint64_t off, const void *data, uint64_t size)
{
	struct entry *e = &l->entries[l->count];

	if (l->full)
		return;
	if (l->count == ENTRIES_MAX || l->used + size > BYTES_MAX) {
		deeds_sample_take(&l->end, l->board);
		__atomic_store_n(&l->full, 1, __ATOMIC_RELEASE);
		return;
	}
	/* B2: before it is answered, so nothing can have been promised for its sake */
	deeds_sample_take(&e->sample, l->board);
	e->off = off;
	e->size = size;
	e->at = l->used;
	if (size)
		memcpy(l->bytes + l->used, data, size);
	else
		__atomic_add_fetch(&l->flushes, 1, __ATOMIC_RELEASE);
	l->used += size;
	__atomic_add_fetch(&l->count, 1, __ATOMIC_RELEASE);
}

static void answer(int fuse, uint64_t unique, int error, const void *data, size_t n)
{
	struct fuse_out_header out = {.len = (uint32_t)(sizeof(out) + n), .error = error, .unique = unique};
	struct iovec parts[2] = {{&out, sizeof(out)}, {(void *)(uintptr_t)data, n}};

	/* a request that was interrupted has nobody who waits */
	(void)!writev(fuse, parts, n ? 2 : 1);
}

static void answer_attr(const struct blocklog *l, int fuse, uint64_t unique)
{
	struct fuse_attr_out out = {.attr_valid = 1u << 30};

	out.attr.ino = FUSE_ROOT_ID;
	out.attr.size = l->size;
	out.attr.blocks = l->size / 512;
	out.attr.mode = S_IFREG | 0600;
	out.attr.nlink = 1;
	out.attr.blksize = PAGE;
	answer(fuse, unique, 0, &out, sizeof(out));
}

static void answer_init(int fuse, uint64_t unique, const struct fuse_init_in *in)
{
	struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION};

	if (in->minor < out.minor)
		out.minor = in->minor;
	out.max_readahead = in->max_readahead;
	out.flags = in->flags & (FUSE_BIG_WRITES | FUSE_MAX_PAGES);
	out.max_background = 64;
	out.congestion_threshold = 48;
	out.max_write = WRITE_MAX;
	out.max_pages = WRITE_MAX / PAGE;
	out.time_gran = 1;
	answer(fuse, unique, 0, &out, sizeof(out));
}

static void answer_read(struct blocklog *l, int fuse, uint64_t unique, const struct fuse_read_in *in)
{
	uint64_t n = in->offset >= l->size	       ? 0
		     : in->size > l->size - in->offset ? l->size - in->offset
						       : in->size;

	answer(fuse, unique, 0, l->now + in->offset, n);
}

static void answer_write(struct blocklog *l, int fuse, uint64_t unique, const struct fuse_write_in *in)
{
	struct fuse_write_out out = {.size = in->size};

	if (in->offset > l->size || in->size > l->size - in->offset || in->offset % SECTOR ||
	    in->size % SECTOR) {
		answer(fuse, unique, -EINVAL, NULL, 0);
		return;
	}
	entry_add(l, in->offset, in + 1, in->size);
	memcpy(l->now + in->offset, in + 1, in->size);
	answer(fuse, unique, 0, &out, sizeof(out));
}

static void request(struct blocklog *l, int fuse, const struct fuse_in_header *in)
{
	static const struct fuse_open_out opened = {.open_flags = FOPEN_KEEP_CACHE};
	const void *body = in + 1;

	switch (in->opcode) {
	case FUSE_INIT:
		answer_init(fuse, in->unique, body);
		break;
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		answer_attr(l, fuse, in->unique);
		break;
	case FUSE_OPEN:
		answer(fuse, in->unique, 0, &opened, sizeof(opened));
		break;
	case FUSE_READ:
		answer_read(l, fuse, in->unique, body);
		break;
	case FUSE_WRITE:
		answer_write(l, fuse, in->unique, body);
		break;
	case FUSE_FSYNC:
		entry_add(l, 0, NULL, 0);
		answer(fuse, in->unique, 0, NULL, 0);
		break;
	case FUSE_FLUSH:
	case FUSE_RELEASE:
	case FUSE_DESTROY:
		answer(fuse, in->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		answer(fuse, in->unique, -ENOSYS, NULL, 0);
		break;
	}
}

static _Noreturn void serve(struct blocklog *l, int fuse)
{
	size_t n = WRITE_MAX + PAGE;
	void *buf = aligned_alloc(PAGE, n);

	for (;;) {
		ssize_t got = buf ? read(fuse, buf, n) : -1;

		if (got >= (ssize_t)sizeof(struct fuse_in_header))
			request(l, fuse, buf);
		else if (got >= 0 || (errno != EINTR && errno != EAGAIN && errno != ENOENT))
			_exit(got < 0 && errno == ENODEV ? 0 : 1); /* ENODEV: unmounted */
	}
}

pid_t blocklog_serve(struct blocklog *l, const char *name, int *ret_fd, char *why, size_t n)
{
	int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC), file;
	char options[64];
	pid_t pid;

	if (fuse < 0)
		return snprintf(why, n, "/dev/fuse: %s", strerror(errno)), -1;
	snprintf(options, sizeof(options), "fd=%d,rootmode=100000,user_id=0,group_id=0", fuse);
	file = open(stage_path(name), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	if (file >= 0)
		close(file);
	/* the root of this file system is a file */
	if (mount("pheap-disk", stage_path(name), "fuse", 0, options)) {
		snprintf(why, n, "mounting a FUSE file: %s", strerror(errno));
		close(fuse);
		return -1;
	}
	pid = stage_fork();
	if (pid == 0)
		serve(l, fuse);
	/* with the last of these descriptors goes the connection, and nobody waits for a dead disk */
	close(fuse);
	*ret_fd = pid < 0 ? -1 : open(stage_path(name), O_RDWR | O_CLOEXEC);
	if (*ret_fd < 0) {
		snprintf(why, n, "opening a FUSE file: %s", strerror(errno));
		return -1;
	}
	return pid;
}

/* ---- images ---- */

/* Writes since the last flush before that moment. */
static uint64_t later_count(const struct blocklog *l, uint64_t moment)
{
	uint64_t from = moment;

	while (from > 0 && l->entries[from - 1].size)
		from--;
	return moment - from;
}

uint64_t blocklog_moment(const struct blocklog *l, uint64_t *random)
{
	uint64_t best = deeds_below(random, l->count + 1);

	if (deeds_below(random, 4) == 0)
		return best;
	/* when the heap is made there is little time, and much to go wrong */
	if (deeds_below(random, 12) == 0)
		return deeds_below(random, l->count / 50 + 1);
	for (unsigned i = 0; i < 8; i++) {
		uint64_t moment = deeds_below(random, l->count + 1);

		while (moment < l->count && l->entries[moment].size && deeds_below(random, 8))
			moment++;
		if (later_count(l, moment) > later_count(l, best))
			best = moment;
	}
	return best;
}

/* Back to the first moment. */
static void rewind_all(struct blocklog *l)
{
	for (uint64_t i = 0; i < l->size / PAGE; i++)
		if (l->start_pages[i])
			memcpy(l->flushed + i * PAGE, l->start + i * PAGE, PAGE);
		else if (l->used_pages[i])
			memset(l->flushed + i * PAGE, 0, PAGE);
	memcpy(l->used_pages, l->start_pages, l->size / PAGE);
	l->flushed_count = 0;
}

/* To the last flush that is done: after the entries before what it returns. */
static uint64_t flushed_go(struct blocklog *l, uint64_t moment)
{
	uint64_t end = moment;

	while (end > 0 && l->entries[end - 1].size)
		end--;
	if (end < l->flushed_count)
		rewind_all(l);
	for (; l->flushed_count < end; l->flushed_count++) {
		const struct entry *e = &l->entries[l->flushed_count];

		if (!e->size)
			continue;
		memcpy(l->flushed + e->off, l->bytes + e->at, e->size);
		pages_mark(l->used_pages, e->off, e->size);
	}
	return end;
}

static int put(int fd, const uint8_t *from, uint64_t n, uint64_t off)
{
	return pwrite(fd, from, n, (off_t)off) == (ssize_t)n ? 0 : -1;
}

static int flushed_put(const struct blocklog *l, int fd)
{
	uint64_t pages = l->size / PAGE;

	if (ftruncate(fd, 0) || ftruncate(fd, (off_t)l->size))
		return -1;
	for (uint64_t i = 0, end; i < pages; i = end + 1) {
		end = i;
		while (end < pages && l->used_pages[end])
			end++;
		if (end > i && put(fd, l->flushed + i * PAGE, (end - i) * PAGE, i * PAGE))
			return -1;
	}
	return 0;
}

/* How to choose among the sectors that were written after the flush, numbered in order. */
struct choice {
	unsigned way;
	uint64_t k;
	uint64_t *random;
};

static bool chosen(struct choice *c, uint64_t sector, bool entry_luck, bool page_luck)
{
	switch (c->way) {
	case 0:
		return false;
	case 1:
		return true;
	case 2: /* in order, and the last one torn */
		return sector < c->k;
	case 3:
		return deeds_below(c->random, 2);
	case 4:
		return deeds_below(c->random, 16) == 0;
	case 5:
		return deeds_below(c->random, 16) != 0;
	case 6:
		return sector != c->k;
	case 7:
		return sector == c->k;
	case 8:
		return entry_luck;
	default:
		return page_luck;
	}
}

/* Of one write, the sectors that are chosen; *n counts them all. */
static int entry_put(const struct blocklog *l, const struct entry *e, struct choice *c, uint64_t *n, int fd)
{
	bool entry_luck = deeds_below(c->random, 2), page_luck = entry_luck;
	uint64_t at = 0, run = 0; /* bytes before `at` that wait to be written */

	for (; at < e->size; at += SECTOR) {
		if ((e->off + at) % PAGE == 0)
			page_luck = deeds_below(c->random, 2);
		if (chosen(c, (*n)++, entry_luck, page_luck)) {
			run += SECTOR;
			continue;
		}
		if (run && put(fd, l->bytes + e->at + at - run, run, e->off + at - run))
			return -1;
		run = 0;
	}
	return run ? put(fd, l->bytes + e->at + at - run, run, e->off + at - run) : 0;
}

static int later_put(struct blocklog *l, uint64_t from, uint64_t moment, uint64_t *random, int fd)
{
	struct choice c = {.way = (unsigned)deeds_below(random, 10), .random = random};
	uint64_t total = 0, n = 0;
	int rc = 0;

	for (uint64_t i = from; i < moment; i++)
		total += l->entries[i].size / SECTOR;
	c.k = deeds_below(random, total + 1);
	for (uint64_t i = from; i < moment && rc == 0; i++)
		rc = entry_put(l, &l->entries[i], &c, &n, fd);
	return rc;
}

int blocklog_image(struct blocklog *l, uint64_t moment, uint64_t *random, int fd, struct deeds_sample *ret)
{
	uint64_t from = flushed_go(l, moment);

	if (moment < l->count)
		*ret = l->entries[moment].sample;
	else if (l->full)
		*ret = l->end;
	else
		deeds_sample_take(ret, l->board);
	return flushed_put(l, fd) || later_put(l, from, moment, random, fd) ? -1 : 0;
}
