/* SPDX-License-Identifier: MIT
 *
 * store.c: what records of lanes and entries of the WAL say is to be stored: where that may be, and doing it.
 *
 * Why in one place: section 8 gives the entries of the WAL the kinds of section 5.
 *
 * Invariants
 *   T1  What store_valid accepted lies in data below chunk_count, in the list heads of the heap head, in
 *       bitmaps or in descriptors of chunks past the journal.
 *   T2  Each store is absolute or a mask: doing it again, after others of its log, ends the same.
 */
#include <string.h>

#include "fsck.h"
#include "wal.h"

static void payload_read(struct fsck *f, const struct store *s, uint64_t from, void *buf, size_t n)
{
	if (s->log)
		log_payload(f, s->log, s->at + from, buf, n);
	else
		wal_read(f, s->at + from, buf, n);
}

/* Section 5: stores go to data or to the list heads in the heap head. */
static bool range_valid(const struct fsck *f, uint64_t off, uint64_t n, const uint64_t *chunk_used)
{
	const struct {
		uint64_t off, size;
	} head[] = {
		{f->super.head_off + offsetof(struct phd_head, types_off), 8},
		{f->super.head_off + offsetof(struct phd_head, roots), 8 * PHD_ROOT_BUCKETS},
		{f->super.head_off + offsetof(struct phd_head, holds), 8 * PHD_HOLD_BUCKETS},
	};
	uint64_t data = f->super.data_off, size = f->chunk_count * PHD_CHUNK_SIZE;

	for (int i = 0; i < 3; i++)
		if (off >= head[i].off && off - head[i].off <= head[i].size &&
		    n <= head[i].size - (off - head[i].off))
			return true;
	if (off < data || off - data > size || n > size - (off - data))
		return false;
	for (uint64_t c = (off - data) / PHD_CHUNK_SIZE;
	     chunk_used && n && c <= (off + n - 1 - data) / PHD_CHUNK_SIZE; c++)
		if (chunk_used[c / 64] >> c % 64 & 1)
			return false;
	return true;
}

static bool desc_valid(struct fsck *f, const struct store *s, uint64_t *words)
{
	uint64_t chunk = PHD_REC_OFF(s->target), payload[2], count, desc;

	if (s->size != sizeof payload)
		return false;
	payload_read(f, s, 0, payload, sizeof payload);
	count = payload[0];
	desc = payload[1];
	if (chunk < f->super.journal_count || chunk >= f->chunk_count || !count ||
	    count > f->chunk_count - chunk)
		return false;
	*words += count;
	switch (PHD_DESC_KIND(desc)) {
	case PHD_DESC_FREE:
		return PHD_DESC_IS_FREE(desc);
	case PHD_DESC_RUN:
		return format_run_blocks(desc) && PHD_DESC_RUN_COUNT(desc) == count &&
		       format_type_valid(PHD_DESC_TYPE(desc));
	case PHD_DESC_EXTENT:
		return PHD_DESC_COUNT(desc) == count && format_type_valid(PHD_DESC_TYPE(desc));
	default:
		return false;
	}
}

bool store_valid(struct fsck *f, const struct store *s, const uint64_t *chunk_used, uint64_t *words)
{
	uint64_t off = PHD_REC_OFF(s->target), bits = f->super.bits_off;

	switch (PHD_REC_KIND(s->target)) {
	case PHD_REC_UNDO:
	case PHD_REC_DEFER:
		return range_valid(f, off, s->size, chunk_used);
	case PHD_REC_PUBLISH:
		return s->size == 8 && off % 8 == 0 && range_valid(f, off, 8, chunk_used);
	case PHD_REC_SET:
	case PHD_REC_CLEAR:
		return s->size == 8 && off % 8 == 0 && off >= bits &&
		       off < bits + f->chunk_count * sizeof(struct phd_bits);
	case PHD_REC_DESC:
		return desc_valid(f, s, words);
	default:
		return false;
	}
}

void store_bytes(struct fsck *f, const struct store *s)
{
	unsigned char part[32768];

	for (uint64_t done = 0; done < s->size;) {
		size_t n = s->size - done < sizeof part ? (size_t)(s->size - done) : sizeof part;

		payload_read(f, s, done, part, n);
		image_write(f, PHD_REC_OFF(s->target) + done, part, n);
		done += n;
	}
}

static void mask_apply(struct fsck *f, const struct store *s)
{
	uint64_t mask, word = image_read_word(f, PHD_REC_OFF(s->target));

	payload_read(f, s, 0, &mask, sizeof mask);
	word = PHD_REC_KIND(s->target) == PHD_REC_SET ? word | mask : word & ~mask;
	image_write_word(f, PHD_REC_OFF(s->target), word);
}

static void desc_apply(struct fsck *f, const struct store *s)
{
	uint64_t chunk = PHD_REC_OFF(s->target), payload[2], words[512], count, desc;
	struct phd_bits zeros[PHD_RUN_COUNT_MAX];

	payload_read(f, s, 0, payload, sizeof payload);
	count = payload[0];
	desc = payload[1];
	/* it may have been a hole, and what was set aside then is not durable by itself */
	if (desc != PHD_DESC_HOLE)
		image_fill(f, chunk, count);
	for (uint64_t done = 0; done < count;) {
		uint64_t n = count - done < 512 ? count - done : 512;

		for (uint64_t i = 0; i < n; i++) {
			uint64_t cont = PHD_DESC_MAKE_CONT(PHD_DESC_TYPE(desc), done + i);

			words[i] = PHD_DESC_IS_FREE(desc) || done + i == 0 ? desc : cont;
		}
		image_write(f, f->super.desc_off + 8 * (chunk + done), words, (size_t)n * 8);
		done += n;
	}
	if (PHD_DESC_KIND(desc) != PHD_DESC_RUN)
		return;
	memset(zeros, 0, sizeof zeros);
	image_write(f, f->super.bits_off + chunk * sizeof zeros[0], zeros, (size_t)count * sizeof zeros[0]);
}

void store_apply(struct fsck *f, const struct store *s)
{
	switch (PHD_REC_KIND(s->target)) {
	case PHD_REC_DEFER:
		store_bytes(f, s);
		break;
	case PHD_REC_SET:
	case PHD_REC_CLEAR:
		mask_apply(f, s);
		break;
	case PHD_REC_DESC:
		desc_apply(f, s);
		break;
	default:
		break;
	}
}
