/* SPDX-License-Identifier: MIT
 *
 * heap_file.c: see heap_file.h.
 */
#define _GNU_SOURCE
#include "heap_file.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format.h"
#include "identity.h"

struct fail_hook fail_hook;

void fail(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	if (fail_hook.prepare)
		fail_hook.prepare();
	fputs("pheap: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(fail_hook.status ? fail_hook.status : EXIT_FAILED);
}

void usage_fail(const char *format, ...)
{
	va_list args;

	fputs("pheap: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputs("\nTry 'pheap --help'.\n", stderr);
	exit(fail_hook.status ? fail_hook.status : EXIT_USAGE);
}

void option_fail(const char *command, int c, char **argv)
{
	usage_fail(c == ':' ? "%s: option '%s' needs a value" : "%s: unknown option '%s'", command,
		   argv[optind - 1]);
}

const char *plain_text(const char *src, size_t n, char *buf, size_t buf_size)
{
	size_t i;

	for (i = 0; i < n && i + 1 < buf_size && src[i]; i++)
		buf[i] = src[i] >= ' ' && src[i] <= '~' ? src[i] : '?';
	buf[i] = 0;
	return buf;
}

void json_print(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < ' ' || c > '~')
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

const char *size_text(uint64_t n, char *buf, size_t buf_size)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	double value = (double)n;
	unsigned i = 0;

	for (; value >= 1024 && i < 4; i++)
		value /= 1024;
	snprintf(buf, buf_size, i ? "%.1f %s" : "%.0f %s", value, units[i]);
	return buf;
}

bool size_parse(const char *text, uint64_t *ret)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;
	uint64_t n;
	unsigned shift = 0;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 0);
	if (errno)
		return false;
	if (*end) {
		unit = strchr(units, *end & ~0x20);
		if (!unit)
			return false;
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
		if (*end == 'i')
			end++;
		if (*end == 'B')
			end++;
	}
	if (*end || n > UINT64_MAX >> shift)
		return false;
	*ret = n << shift;
	return true;
}

void heap_file_read(const struct heap_file *h, uint64_t off, void *buf, size_t n)
{
	char *p = buf;

	while (n) {
		ssize_t got = off > INT64_MAX ? 0 : pread(h->fd, p, n, (off_t)off);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			fail("%s: cannot be read at offset 0x%llx: %s", h->path, (ull)off, strerror(errno));
		if (!got)
			break;
		p += got;
		off += (uint64_t)got;
		n -= (size_t)got;
	}
	memset(p, 0, n);
}

void window_read(const struct heap_file *h, struct window *w, uint64_t off, void *buf, size_t n)
{
	if (off < w->off || off + n > w->off + w->size) {
		w->off = off;
		w->size = sizeof w->bytes;
		heap_file_read(h, off, w->bytes, sizeof w->bytes);
	}
	memcpy(buf, w->bytes + (off - w->off), n);
}

/* The next byte at or after off that is in no hole, as far as the file system tells; UINT64_MAX: none. */
static uint64_t data_next(const struct heap_file *h, uint64_t off)
{
	off_t at = off > INT64_MAX ? -1 : lseek(h->fd, (off_t)off, SEEK_DATA);

	if (at >= 0)
		return (uint64_t)at;
	return errno == ENXIO ? UINT64_MAX : off;
}

void word_walk_start(struct word_walk *w, const struct heap_file *h, uint64_t start, uint64_t count)
{
	uint64_t left = start < h->size ? (h->size - start) / 8 : 0; /* past the end they read as 0 */

	w->h = h;
	w->window.off = w->window.size = 0;
	w->start = w->off = start;
	w->end = start + 8 * (count < left ? count : left);
}

bool word_walk_next(struct word_walk *w, uint64_t *ret_idx, uint64_t *ret_word)
{
	while (w->off < w->end) {
		uint64_t at = w->off, word;

		if (at < w->window.off || at + 8 > w->window.off + w->window.size) {
			uint64_t data = data_next(w->h, at);

			if (data >= w->end)
				break;
			if (data > at)
				at += (data - at) / 8 * 8;
		}
		window_read(w->h, &w->window, at, &word, sizeof word);
		w->off = at + 8;
		if (!word)
			continue;
		*ret_idx = (at - w->start) / 8;
		*ret_word = word;
		return true;
	}
	return false;
}

void list_walk_start(struct list_walk *l, uint64_t first, size_t size, uint32_t type)
{
	*l = (struct list_walk){.next = first, .size = size, .type = type, .step_max = 1};
}

/* A mark that moves up at every power of two finds each ring, in steps that its length bounds. */
bool list_walk_next(const struct heap_file *h, struct list_walk *l)
{
	struct heap_block b;

	if (!l->next)
		return false;
	if (!heap_file_block(h, l->next, &b) || !b.allocated || b.size < l->size || b.off != l->next ||
	    (l->type != UINT32_MAX && PHD_DESC_TYPE(b.desc) != l->type))
		l->bad = "is no entry of that list";
	else if (l->next == l->mark)
		l->bad = "is met again: the list is a ring";
	if (l->bad)
		return false;
	l->off = l->next;
	if (++l->step_count == l->step_max) {
		l->mark = l->off;
		l->step_max *= 2;
		l->step_count = 0;
	}
	heap_file_read(h, l->off, &l->next, sizeof l->next);
	return true;
}

static bool lock_held(const struct heap_file *h, uint64_t off)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)off, .l_len = 1};

	return fcntl(h->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool heap_file_slot_live(const struct heap_file *h, uint32_t slot)
{
	return lock_held(h, PHD_LOCK_SLOT + slot);
}

bool heap_file_current(const struct heap_file *h)
{
	return h->attached || (h->state_copy >= 0 && !h->state.clean && h->same_boot && h->same_file);
}

const char *heap_file_state_text(const struct heap_file *h)
{
	if (h->state_copy < 0)
		return "damaged";
	if (h->attached)
		return "in use";
	if (h->state.clean)
		return "clean";
	if (!h->same_file)
		return "copied without a clean close";
	if (h->same_boot)
		return "not closed cleanly";
	return format_has_wal(&h->super) ? "cut off" : "of another boot";
}

static int super_read(struct heap_file *h, bool allow_damaged, char *ret_error, size_t size)
{
	struct phd_super s[2];
	const char *error[2], *unknown = NULL;

	for (uint32_t i = 0; i < 2; i++) {
		heap_file_read(h, PHD_SUPER_OFF(i), &s[i], sizeof s[i]);
		error[i] = format_super_invalid(&s[i], i);
		if (!error[i]) {
			unknown = format_super_unknown(&s[i]);
			error[i] = unknown ? unknown : format_super_error(&s[i]);
		}
	}
	h->super_copy = !error[0] ? 0 : !error[1] ? 1 : -1;
	if (h->super_copy >= 0) {
		h->super = s[h->super_copy];
		return 0;
	}
	if (s[0].magic != PHD_SUPER_MAGIC && s[1].magic != PHD_SUPER_MAGIC)
		snprintf(ret_error, size, "%s: is not a heap: it has no superblock of one", h->path);
	else if (allow_damaged)
		return 0;
	else if (unknown)
		snprintf(ret_error, size,
			 "%s: cannot be read: %s; use the pheap that came with the program that made it",
			 h->path, unknown);
	else
		snprintf(ret_error, size,
			 "%s: no copy of its superblock is usable (%s; %s); run pheap-fsck -n on it", h->path,
			 error[0], error[1]);
	return -EINVAL;
}

static void state_read(struct heap_file *h)
{
	struct identity id;

	h->state_copy = -1;
	for (int i = 0; i < 2; i++) {
		struct phd_state s;

		heap_file_read(h, PHD_STATE_OFF(i), &s, sizeof s);
		if (!format_state_valid(&s) || (h->state_copy >= 0 && s.seq < h->state.seq))
			continue;
		h->state = s;
		h->state_copy = i;
	}
	identity_read(&id, h->fd);
	h->same_boot = identity_same_boot(&id, &h->state) &&
		       (!format_has_wal(&h->super) || identity_same_device(&id, &h->state));
	h->same_file = identity_same_file(&id, &h->state);
}

void heap_file_refresh(struct heap_file *h)
{
	struct phd_head head;
	struct stat st;
	uint64_t backed;

	if (fstat(h->fd, &st) == 0) {
		h->size = (uint64_t)st.st_size;
		h->allocated_size = (uint64_t)st.st_blocks * 512;
	}
	state_read(h);
	if (h->super_copy < 0)
		return;
	heap_file_read(h, h->super.head_off, &head, sizeof head);
	backed = format_chunks_backed(&h->super, h->size);
	h->chunk_count = head.chunk_count < backed ? head.chunk_count : backed;
	h->attached = lock_held(h, PHD_LOCK_ANY);
}

/* Only what can be seen without reading. */
static const char *file_refuse(const struct stat *st)
{
	if (S_ISDIR(st->st_mode))
		return "is a directory, not a heap file";
	if (!S_ISREG(st->st_mode))
		return "is not a regular file, so it is not a heap";
	return st->st_size ? NULL : "is empty, so it is not a heap";
}

int heap_file_try(struct heap_file *h, const char *path, bool allow_damaged, char *ret_error, size_t size)
{
	const char *refused;
	struct stat st;
	int rc;

	*h = (struct heap_file){.path = path};
	h->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (h->fd < 0 || fstat(h->fd, &st) < 0) {
		rc = -errno;
		snprintf(ret_error, size, "%s: cannot be opened: %s", path, strerror(-rc));
		if (h->fd >= 0)
			close(h->fd);
		return rc;
	}
	refused = file_refuse(&st);
	rc = refused ? -EINVAL : 0;
	if (refused)
		snprintf(ret_error, size, "%s: %s", path, refused);
	else
		rc = super_read(h, allow_damaged, ret_error, size);
	if (rc)
		close(h->fd);
	else
		heap_file_refresh(h);
	return rc;
}

void heap_file_open(struct heap_file *h, const char *path, bool allow_damaged)
{
	char error[1024];

	if (heap_file_try(h, path, allow_damaged, error, sizeof error))
		fail("%s", error);
}

void heap_file_close(struct heap_file *h)
{
	close(h->fd);
}

uint64_t heap_file_desc(const struct heap_file *h, uint64_t chunk)
{
	uint64_t desc;

	heap_file_read(h, h->super.desc_off + 8 * chunk, &desc, sizeof desc);
	return desc;
}

uint64_t heap_file_chunk_off(const struct heap_file *h, uint64_t chunk)
{
	return h->super.data_off + chunk * PHD_CHUNK_SIZE;
}

bool heap_file_block(const struct heap_file *h, uint64_t off, struct heap_block *ret)
{
	uint64_t chunk, word;

	if (off < h->super.data_off || off - h->super.data_off >= h->chunk_count * PHD_CHUNK_SIZE)
		return false;
	chunk = (off - h->super.data_off) / PHD_CHUNK_SIZE;
	*ret = (struct heap_block){.chunk = chunk, .desc = heap_file_desc(h, chunk)};
	if (PHD_DESC_KIND(ret->desc) == PHD_DESC_CONT) {
		if (PHD_DESC_COUNT(ret->desc) > chunk)
			return false;
		ret->chunk = chunk - PHD_DESC_COUNT(ret->desc);
		ret->desc = heap_file_desc(h, ret->chunk);
	}
	ret->off = heap_file_chunk_off(h, ret->chunk);
	if (PHD_DESC_KIND(ret->desc) == PHD_DESC_EXTENT) {
		ret->size = PHD_DESC_COUNT(ret->desc) * PHD_CHUNK_SIZE;
		ret->allocated = true;
		return off - ret->off < ret->size;
	}
	if (!format_run_blocks(ret->desc))
		return false;
	ret->size = PHD_DESC_BLOCK_SIZE(ret->desc);
	ret->idx = (off - ret->off) / ret->size;
	ret->off += ret->idx * ret->size;
	if (ret->idx >= format_run_blocks(ret->desc))
		return false;
	heap_file_read(h, h->super.bits_off + ret->chunk * sizeof(struct phd_bits) + ret->idx / 64 * 8, &word,
		       sizeof word);
	ret->allocated = word >> ret->idx % 64 & 1;
	return true;
}
