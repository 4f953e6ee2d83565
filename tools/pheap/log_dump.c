/* SPDX-License-Identifier: MIT
 *
 * log_dump.c: the records of a lane's log as text.
 *
 * What it prints of an idle lane is what its last transaction left there, as far as `used` says.
 *
 * Invariants
 *   G1  Positions and bases only grow, so a ring of extensions or a record of size 0 ends.
 */
#include <inttypes.h>
#include <stdio.h>

#include "heap_file.h"

struct segment {
	uint64_t base, room, off, next_off;
};

static const char *kind_name(unsigned kind)
{
	static const char *const names[] = {"?",     "UNDO", "DEFER",  "PUBLISH", "SET",
					    "CLEAR", "DESC", "REVIVE", "DROPPED"};

	return kind < sizeof names / sizeof names[0] ? names[kind] : "?";
}

/* Goes on to the extension, if it holds positions below end. False: it does not, or is none. */
static bool segment_next(const struct heap_file *h, struct segment *s, uint64_t end, uint64_t *ret_limit)
{
	uint64_t data = h->super.data_off, size = h->chunk_count * PHD_CHUNK_SIZE;
	struct phd_log_ext ext;

	*ret_limit = end;
	if (s->next_off < data || s->next_off - data >= size)
		return false;
	heap_file_read(h, s->next_off, &ext, sizeof ext);
	if (ext.base >= end || ext.base <= s->base || ext.size < sizeof ext || ext.size > size)
		return false;
	*ret_limit = ext.base;
	return true;
}

static void segment_enter(const struct heap_file *h, struct segment *s)
{
	uint64_t off = s->next_off;
	struct phd_log_ext ext;

	heap_file_read(h, off, &ext, sizeof ext);
	printf("  extension at 0x%" PRIx64 ": base %" PRIu64 ", %" PRIu64 " bytes\n", off, ext.base,
	       ext.size);
	*s = (struct segment){ext.base, (ext.size - sizeof ext) / 8, off + sizeof ext, ext.next_off};
}

static void record_print(const struct heap_file *h, uint64_t pos, uint64_t off, const struct phd_record *r)
{
	unsigned char bytes[24];
	size_t n = r->size < sizeof bytes ? r->size : sizeof bytes;

	heap_file_read(h, off + sizeof *r, bytes, n);
	printf("  %8" PRIu64 " %-8s 0x%-12" PRIx64 " %8u ", pos, kind_name(PHD_REC_KIND(r->target)),
	       (uint64_t)PHD_REC_OFF(r->target), r->size);
	for (size_t i = 0; i < n; i++)
		printf("%02x%s", bytes[i], i % 8 == 7 ? " " : "");
	printf("%s\n", r->size > n ? "..." : "");
}

void lane_log_print(const struct heap_file *h, uint32_t lane)
{
	uint64_t limit, pos = 0, end;
	struct phd_lane l;
	struct segment s;

	heap_file_read(h, h->super.lane_off + lane * sizeof l, &l, sizeof l);
	end = PHD_USED_END(l.used);
	s = (struct segment){0, h->super.lane_log_size / 8,
			     h->super.lane_log_off + (uint64_t)lane * h->super.lane_log_size, l.ext_off};
	printf("log: %" PRIu64 " bytes\n", end * 8);
	if (end)
		printf("  position kind     target             size bytes\n");
	segment_next(h, &s, end, &limit);
	while (pos < end) {
		struct phd_record r;
		uint64_t off;

		if (pos == limit) {
			segment_enter(h, &s);
			segment_next(h, &s, end, &limit);
		}
		off = s.off + 8 * (pos - s.base);
		heap_file_read(h, off, &r, sizeof r);
		if (pos - s.base >= s.room || PHD_REC_KIND(r.target) == 0 ||
		    limit - pos < 2 + ((uint64_t)r.size + 7) / 8) {
			printf("  %8" PRIu64 " no record; see pheap-fsck\n", pos);
			return;
		}
		record_print(h, pos, off, &r);
		pos += 2 + ((uint64_t)r.size + 7) / 8;
	}
}
