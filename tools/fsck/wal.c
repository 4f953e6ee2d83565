/* SPDX-License-Identifier: MIT
 *
 * wal.c: see wal.h.
 */
#include "wal.h"

#include <string.h>

#define WINDOW_SIZE 65536u

static uint64_t at_of(const struct fsck *f, uint64_t lsn)
{
	return f->super.wal_off + lsn % f->super.wal_size;
}

/* Reads through a window, so that going from record to record does not cost a call each. */
static void window_read(struct fsck *f, uint64_t off, unsigned char *buf, size_t n)
{
	static unsigned char window[WINDOW_SIZE];
	static uint64_t window_off;
	static size_t window_size;

	if (n > WINDOW_SIZE) {
		image_read(f, off, buf, n);
		return;
	}
	if (off < window_off || off + n > window_off + window_size) {
		window_off = off;
		window_size = WINDOW_SIZE;
		image_read(f, off, window, WINDOW_SIZE);
	}
	memcpy(buf, window + (off - window_off), n);
}

void wal_read(struct fsck *f, uint64_t lsn, void *buf, size_t n)
{
	uint64_t room = f->super.wal_size - lsn % f->super.wal_size;
	size_t first = n < room ? n : (size_t)room;

	window_read(f, at_of(f, lsn), buf, first);
	if (first < n)
		window_read(f, f->super.wal_off, (unsigned char *)buf + first, n - first);
}

static bool checksum_fits(struct fsck *f, uint64_t lsn, const struct phd_wal *w)
{
	unsigned char part[16384];
	uint32_t crc = 0;

	for (uint64_t done = sizeof *w; done < w->size;) {
		size_t n = w->size - done < sizeof part ? (size_t)(w->size - done) : sizeof part;

		wal_read(f, lsn + done, part, n);
		crc = format_crc32c_more(crc, part, n);
		done += n;
	}
	return format_crc32c_more(crc, w, offsetof(struct phd_wal, crc)) == w->crc;
}

static bool header_possible(const struct fsck *f, uint64_t lsn, const struct phd_wal *w)
{
	return w->lsn == lsn && w->kind >= PHD_WAL_PAD && w->kind <= PHD_WAL_SWITCH && w->size >= sizeof *w &&
	       w->size % 8 == 0 && w->size <= f->super.wal_size / 4;
}

bool wal_record(struct fsck *f, uint64_t lsn, uint64_t end, uint64_t log_gen, struct wal_record *ret)
{
	struct phd_wal w;

	if (lsn > end || end - lsn < sizeof w)
		return false;
	wal_read(f, lsn, &w, sizeof w);
	if (w.log_gen != log_gen || !header_possible(f, lsn, &w) || w.size > end - lsn ||
	    !checksum_fits(f, lsn, &w))
		return false;
	*ret = (struct wal_record){.lsn = lsn, .size = w.size, .kind = w.kind};
	return true;
}

bool wal_entry(struct fsck *f, const struct wal_record *r, uint32_t *pos, struct store *ret, bool *ret_bad)
{
	uint64_t at = *pos ? *pos : sizeof(struct phd_wal), left = r->size - at;
	struct phd_record head;

	*ret_bad = false;
	if (!left || r->kind == PHD_WAL_PAD)
		return false;
	*ret_bad = true;
	if (left < sizeof head)
		return false;
	wal_read(f, r->lsn + at, &head, sizeof head);
	at += sizeof head;
	left -= sizeof head;
	if (head.size > left || ((uint64_t)head.size + 7) / 8 * 8 > left || head.prev)
		return false;
	*ret = (struct store){.at = r->lsn + at, .target = head.target, .size = head.size};
	*pos = (uint32_t)(at + ((uint64_t)head.size + 7) / 8 * 8);
	*ret_bad = false;
	return true;
}

void wal_survey(struct fsck *f, uint64_t *ret_end, uint64_t *ret_log_gen)
{
	uint64_t off = f->super.wal_off, end = off + f->super.wal_size;

	*ret_end = *ret_log_gen = 0;
	while ((off = image_next_data(f, off, end) & ~7ull) < end) {
		uint64_t stop = off + WINDOW_SIZE < end ? off + WINDOW_SIZE : end;

		for (; off < stop; off += 8) {
			struct phd_wal w;
			uint64_t pos = off - f->super.wal_off;

			wal_read(f, pos, &w, sizeof w);
			if (w.lsn % f->super.wal_size != pos || w.lsn >> 62 ||
			    !header_possible(f, w.lsn, &w) || !checksum_fits(f, w.lsn, &w))
				continue;
			*ret_end = w.lsn + w.size > *ret_end ? w.lsn + w.size : *ret_end;
			*ret_log_gen = w.log_gen > *ret_log_gen ? w.log_gen : *ret_log_gen;
		}
	}
}
