/* SPDX-License-Identifier: MIT
 *
 * log.c: reads the log of a lane and checks all of it: segments, records, and where each record points.
 *
 * Why records are read again when they are applied, and not kept: a log may be as large as the free space of
 * the heap.
 *
 * Invariants
 *   L1  A record that log_record returned lies within one segment, and that within the lane's log or within
 *       the heap's chunks.
 *   L2  Extensions of all lanes in flight are disjoint, and no record points into one: applying a log cannot
 *       change a log.
 *   L3  Bases grow from segment to segment, so a ring of extensions ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fsck.h"

#define WINDOW_SIZE 65536u

#define log_bad(log, ...) (snprintf((log)->error, sizeof(log)->error, __VA_ARGS__), false)

typedef unsigned long long ull;

static bool segment_add(struct fsck *f, struct log *log, uint64_t base, uint64_t off)
{
	if (log->segment_count == log->segment_room) {
		size_t room = log->segment_room ? log->segment_room * 2 : 4;
		struct log_segment *s = memory_get(f, room, sizeof *s, "the list of log extensions");

		memcpy(s, log->segments ? log->segments : s, log->segment_count * sizeof *s);
		free(log->segments);
		log->segments = s;
		log->segment_room = room;
	}
	log->segments[log->segment_count++] = (struct log_segment){.base = base, .off = off};
	return true;
}

/* NULL, or why the extension at off is not valid for this lane. */
static const char *ext_error(const struct fsck *f, const struct log *log, uint64_t off,
			     const struct phd_log_ext *ext)
{
	uint64_t end = f->super.data_off + f->chunk_count * PHD_CHUNK_SIZE;

	if (off < f->super.data_off || off >= end || (off - f->super.data_off) % PHD_CHUNK_SIZE)
		return "is not at a chunk";
	if (!ext->size || ext->size % PHD_CHUNK_SIZE || ext->size > end - off)
		return "has an impossible size";
	if ((ext->owner & ~(uint64_t)PHD_WORD_FLAGS) != PHD_WORD(PHD_STATE_GEN(log->state), log->lane))
		return "belongs to another transaction";
	return NULL;
}

/* Marks the extension's chunks; false: one belongs to another log already. */
static bool ext_claim(const struct fsck *f, uint64_t off, uint64_t size, uint64_t *chunk_used)
{
	uint64_t chunk = (off - f->super.data_off) / PHD_CHUNK_SIZE;

	for (uint64_t i = chunk; i < chunk + size / PHD_CHUNK_SIZE; i++) {
		if (chunk_used[i / 64] >> i % 64 & 1)
			return false;
		chunk_used[i / 64] |= 1ull << i % 64;
	}
	return true;
}

bool log_map(struct fsck *f, struct log *log, uint64_t *chunk_used)
{
	uint64_t room = f->super.lane_log_size / 8, base = 0, off = 0;
	struct phd_lane lane;

	image_read(f, f->super.lane_off + log->lane * sizeof lane, &lane, sizeof lane);
	log->end = PHD_USED_END(lane.used);
	log->last = PHD_USED_LAST(lane.used);
	if (!log->end)
		return true;
	segment_add(f, log, 0, f->super.lane_log_off + (uint64_t)log->lane * f->super.lane_log_size);
	off = lane.ext_off;
	while (off) {
		struct log_segment *s = &log->segments[log->segment_count - 1];
		struct phd_log_ext ext;
		const char *error;

		image_read(f, off, &ext, sizeof ext);
		error = ext_error(f, log, off, &ext);
		/* an extension that is not one names no base, and is not needed if the log ends before it */
		if (error && log->end <= base + room)
			break;
		if (error)
			return log_bad(log, "its extension at 0x%llx %s", (ull)off, error);
		if (ext.base >= log->end)
			break;
		if (ext.base <= s->base || ext.base > base + room)
			return log_bad(log, "its extension at 0x%llx does not follow the one before",
				       (ull)off);
		if (!ext_claim(f, off, ext.size, chunk_used))
			return log_bad(log, "its extension at 0x%llx is in another log too", (ull)off);
		s->end = ext.base;
		base = ext.base;
		room = (ext.size - sizeof ext) / 8;
		segment_add(f, log, base, off + sizeof ext);
		off = ext.next_off;
	}
	if (log->end > base + room)
		return log_bad(log, "it ends at %llu, its space at %llu", (ull)log->end, (ull)(base + room));
	log->segments[log->segment_count - 1].end = log->end;
	return true;
}

static const struct log_segment *segment_find(const struct log *log, uint64_t pos)
{
	size_t low = 0, high = log->segment_count;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (log->segments[middle].base <= pos)
			low = middle;
		else
			high = middle;
	}
	return high && pos < log->segments[low].end ? &log->segments[low] : NULL;
}

/* Reads through a window around off, so that neither direction costs a call a record. */
static void window_read(struct fsck *f, struct log *log, uint64_t off, void *buf, size_t n)
{
	if (n > WINDOW_SIZE / 2) {
		image_read(f, off, buf, n);
		return;
	}
	if (!log->window)
		log->window = memory_get(f, 1, WINDOW_SIZE, "a log window");
	if (!log->window_size || off < log->window_off || off + n > log->window_off + log->window_size) {
		log->window_off = off > WINDOW_SIZE / 2 ? off - WINDOW_SIZE / 2 : 0;
		log->window_size = WINDOW_SIZE;
		image_read(f, log->window_off, log->window, WINDOW_SIZE);
	}
	memcpy(buf, log->window + (off - log->window_off), n);
}

bool log_record(struct fsck *f, struct log *log, uint64_t pos, struct log_record *ret)
{
	const struct log_segment *s = segment_find(log, pos);
	struct phd_record r;
	uint64_t units;

	if (!s || s->end - pos < sizeof r / 8)
		return log_bad(log, "no room for a record at %llu", (ull)pos);
	window_read(f, log, s->off + 8 * (pos - s->base), &r, sizeof r);
	units = sizeof r / 8 + ((uint64_t)r.size + 7) / 8;
	if (s->end - pos < units)
		return log_bad(log, "the record at %llu is longer than its segment", (ull)pos);
	*ret = (struct log_record){.pos = pos,
				   .next_pos = pos + units,
				   .target = r.target,
				   .size = r.size,
				   .prev = r.prev,
				   .payload_off = s->off + 8 * (pos - s->base) + sizeof r};
	return true;
}

void log_payload(struct fsck *f, struct log *log, uint64_t off, void *buf, size_t n)
{
	window_read(f, log, off, buf, n);
}

struct store log_store(struct log *log, const struct log_record *r)
{
	return (struct store){.log = log, .at = r->payload_off, .target = r->target, .size = r->size};
}

static bool record_valid(struct fsck *f, struct log *log, const struct log_record *r,
			 const uint64_t *chunk_used, uint64_t *words)
{
	struct store s = log_store(log, r);

	switch (PHD_REC_KIND(r->target)) {
	case PHD_REC_REVIVE:
		return r->size == 8 && PHD_REC_OFF(r->target) < r->pos;
	case PHD_REC_DROPPED:
		return true;
	default:
		return store_valid(f, &s, chunk_used, words);
	}
}

bool log_check(struct fsck *f, struct log *log, const uint64_t *chunk_used)
{
	/* more descriptor words than this are no transaction but a way to keep us busy */
	uint64_t words = 0, words_max = (1ull << 28) + 16 * f->chunk_count, before = 0, pos = 0;
	struct log_record r;

	for (; pos < log->end; before = pos, pos = r.next_pos) {
		if (!log_record(f, log, pos, &r))
			return false;
		if (r.prev != pos - before)
			return log_bad(log, "the record at %llu does not follow the one before", (ull)pos);
		if (!record_valid(f, log, &r, chunk_used, &words) || words > words_max)
			return log_bad(log,
				       "the record at %llu (kind %u, target 0x%llx, %u bytes) is impossible",
				       (ull)pos, PHD_REC_KIND(r.target), (ull)PHD_REC_OFF(r.target), r.size);
		log->record_count++;
	}
	if (log->end && before != log->last)
		return log_bad(log, "its last record is at %llu, not at %llu", (ull)before, (ull)log->last);
	return true;
}

void log_free(struct log *log)
{
	free(log->segments);
	free(log->window);
	log->segments = NULL;
	log->window = NULL;
}
