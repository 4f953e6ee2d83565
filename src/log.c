/* SPDX-License-Identifier: MIT
 *
 * log.c: segments of a log, applying it, undoing it, and reading one that a dead process left.
 * See log.h for what and why.
 */
#include "log.h"

#include <errno.h>
#include <stdlib.h>

#include "alloc.h"
#include "error.h"
#include "mutant.h"
#include "tx.h"
#include "word.h"

#define LOG_END_MAX 0xfffffff0ull /* positions are 32 bits */
#define LOG_EXT_CHUNKS_MIN 4u
#define LOG_EXT_CHUNKS_MAX 4096u /* 16 MiB */

static uint64_t *segment_link(struct pheap_tx *tx, uint32_t idx)
{
	const struct ph_segment *s = &tx->log.segments[idx];

	if (s->off == 0)
		return &tx->lane->ext_off;
	return &((struct phd_log_ext *)(void *)(tx->h->map + s->off))->next_off;
}

static void log_aim(struct ph_log *log)
{
	const struct ph_segment *s = &log->segments[log->count - 1];

	log->next = s->start + (ph_log_end(log) - s->base) * 8;
	log->limit = s->start + s->room * 8;
}

size_t ph_log_fits(const struct ph_log *log)
{
	size_t left = (size_t)(log->limit - log->next);

	return left > sizeof(struct phd_record) ? left - sizeof(struct phd_record) : 0;
}

static int log_claim(struct pheap_tx *tx, uint64_t want, uint64_t need, uint64_t *ret_chunk,
		     uint64_t *ret_count)
{
	struct pheap *h = tx->h;
	int rc = -ENOSPC;

	for (uint64_t count = want;; count = count / 2 > need ? count / 2 : need) {
		*ret_count = count;
		if (ph_chunk_claim_journal(h, tx->word, count, ret_chunk) == 0 ||
		    ph_chunk_claim_log(h, tx->word, count, ret_chunk) == 0)
			return 0;
		if (count == need)
			break;
	}
	if (!tx->internal)
		rc = ph_chunk_get(tx, tx->word, need, 1, ret_chunk);
	return rc;
}

int ph_log_extend(struct pheap_tx *tx, size_t n)
{
	struct ph_log *log = &tx->log;
	struct pheap *h = tx->h;
	uint64_t units = ph_log_units(n), chunk, count, want;
	uint64_t need = (units * 8 + sizeof(struct phd_log_ext) + PHD_CHUNK_SIZE - 1) / PHD_CHUNK_SIZE;
	struct phd_log_ext *ext;
	int rc;

	if (ph_log_end(log) + units > LOG_END_MAX)
		return ph_error(h, -E2BIG, "the transaction's log is longer than 32 GiB; split it");
	if (!ph_room(&log->segments, &log->room, log->count + 1, sizeof(*log->segments)))
		return -ENOMEM;
	want = log->count == 1 ? LOG_EXT_CHUNKS_MIN : log->segments[log->count - 1].chunk_count * 2;
	if (want > LOG_EXT_CHUNKS_MAX)
		want = LOG_EXT_CHUNKS_MAX;
	if (want > ph_chunk_count(h) / 16 + 1)
		want = ph_chunk_count(h) / 16 + 1;
	if (want < need)
		want = need;
	rc = log_claim(tx, want, need, &chunk, &count);
	if (rc == 0) {
		rc = ph_space_lease(tx, chunk, count);
		if (rc)
			ph_chunk_unclaim(h, tx->word, chunk, count);
	}
	if (rc)
		return rc;
	ext = (struct phd_log_ext *)(void *)(h->map + ph_chunk_off(h, chunk));
	ext->next_off = 0;
	ext->base = ph_log_end(log);
	ext->size = count * PHD_CHUNK_SIZE;
	ext->owner = tx->word;
	ph_order();
	/* ORDER(ext-link): the head before the link, the link before `used` reaches past it. Crash between:
	 * nothing refers to the chunks, their owner words die with the lane. Pairs with log.c:ph_log_load. */
	if (!PH_MUTANT(PH_MUTANT_EXT_UNLINKED))
		__atomic_store_n(segment_link(tx, log->count - 1), ph_chunk_off(h, chunk), __ATOMIC_RELEASE);
	log->ext_set = true;
	if (h->leased)
		tx->extras = tx->modify_long = 1;
	log->segments[log->count++] = (struct ph_segment){
		.start = (char *)(ext + 1),
		.base = ph_log_end(log),
		.room = (ext->size - sizeof(*ext)) / 8,
		.off = ph_chunk_off(h, chunk),
		.chunk_count = count,
	};
	log_aim(log);
	return 0;
}

void ph_log_trim(struct pheap_tx *tx)
{
	struct ph_log *log = &tx->log;

	while (log->count > 1 && log->segments[log->count - 1].base >= ph_log_end(log)) {
		struct ph_segment s = log->segments[--log->count];

		/* `used` was lowered before: recovery no longer follows this link. */
		__atomic_store_n(segment_link(tx, log->count - 1), 0, __ATOMIC_RELEASE);
		ph_chunk_unclaim(tx->h, tx->word, ph_chunk_of(tx->h, s.off), s.chunk_count);
	}
	log_aim(log);
}

static const struct ph_segment *segment_of(const struct ph_log *log, uint64_t position)
{
	uint32_t low = 0, high = log->count;

	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (log->segments[middle].base <= position)
			low = middle;
		else
			high = middle;
	}
	return &log->segments[low];
}

struct phd_record *ph_log_at(const struct ph_log *log, uint64_t position)
{
	const struct ph_segment *s = segment_of(log, position);

	return (struct phd_record *)(void *)(s->start + (position - s->base) * 8);
}

/* Stores whole aligned words where it can: readers of an 8-byte word never see half of it. */
static void bytes_store(char *dst, const char *src, size_t n)
{
	if (n == 8 && ((uintptr_t)dst & 7) == 0) {
		uint64_t word;

		memcpy(&word, src, 8);
		__atomic_store_n((uint64_t *)(void *)dst, word, __ATOMIC_RELEASE);
		return;
	}
	ph_copy(dst, src, n);
}

void ph_log_apply_desc(struct pheap *h, uint64_t chunk, uint64_t count, uint64_t desc)
{
	if (PHD_DESC_KIND(desc) == PHD_DESC_FREE) {
		for (uint64_t i = 0; i < count; i++)
			__atomic_store_n(&h->desc[chunk + i], desc, __ATOMIC_RELEASE);
		return;
	}
	if (PHD_DESC_KIND(desc) == PHD_DESC_RUN)
		ph_zero(&h->bits[chunk * 4], count * sizeof(struct phd_bits));
	for (uint64_t i = 1; i < count; i++)
		__atomic_store_n(&h->desc[chunk + i], PHD_DESC_MAKE_CONT(PHD_DESC_TYPE(desc), i),
				 __ATOMIC_RELEASE);
	__atomic_store_n(&h->desc[chunk], desc, __ATOMIC_RELEASE);
}

void ph_log_record_apply(struct pheap *h, const struct phd_record *r)
{
	uint64_t off = PHD_REC_OFF(r->target), payload[2];
	uint64_t *word = (uint64_t *)(void *)(h->map + off);

	switch (PHD_REC_KIND(r->target)) {
	case PHD_REC_DEFER:
		bytes_store(h->map + off, ph_record_payload(r), r->size);
		break;
	case PHD_REC_SET:
		memcpy(payload, ph_record_payload(r), 8);
		__atomic_store_n(word,
				 PH_MUTANT(PH_MUTANT_APPLY_XOR) ? *word ^ payload[0] : *word | payload[0],
				 __ATOMIC_RELEASE);
		break;
	case PHD_REC_CLEAR:
		memcpy(payload, ph_record_payload(r), 8);
		__atomic_store_n(word, *word & ~payload[0], __ATOMIC_RELEASE);
		break;
	case PHD_REC_DESC:
		memcpy(payload, ph_record_payload(r), 16);
		ph_log_apply_desc(h, off, payload[0], payload[1]);
		break;
	default:
		break;
	}
}

/* With a WAL: when these chunks were last allocated or freed. As soon as they are free they may be had, and whoever has them
 * asks whether the log knows of them; an image may be on its way that was copied when they were not free. So nobody gets a
 * lease-free extent here before the checkpoint after the descriptors have changed. */
static void desc_stamp(struct pheap *h, const struct phd_record *r, uint64_t lsn)
{
	uint64_t chunk = PHD_REC_OFF(r->target), count;

	memcpy(&count, ph_record_payload(r), 8);
	for (uint64_t i = 0; i < count; i++)
		__atomic_store_n(&h->leases[chunk + i].alloc_lsn, lsn, __ATOMIC_RELEASE);
}

static void desc_apply(struct pheap *h, const struct phd_record *r)
{
	desc_stamp(h, r, UINT64_MAX);
	ph_log_record_apply(h, r);
	ph_order();
	desc_stamp(h, r, __atomic_load_n(&h->coord->tail, __ATOMIC_ACQUIRE));
}

static void descs_stamp(struct pheap *h, const struct ph_log *log, uint64_t from, uint64_t lsn)
{
	const struct phd_record *r;

	for (uint64_t at = from; at < ph_log_end(log); at += ph_log_units(r->size)) {
		r = ph_log_at(log, at);
		if (PHD_REC_KIND(r->target) == PHD_REC_DESC)
			desc_stamp(h, r, lsn);
	}
}

void ph_log_give_up(struct pheap *h, struct phd_lane *lane, const struct ph_log *log, uint64_t used)
{
	const struct phd_coord *c = h->coord;
	uint64_t lsn;

	/* As long as nothing says which switch was the last to copy them: never. Killed there, it stays so until the chunks are
	 * allocated or freed. */
	if (h->leased)
		descs_stamp(h, log, PHD_USED_END(used), UINT64_MAX);
	/* ORDER(rollback-used): bytes back before `used` is lowered. Crash between: undone again as a whole. Pairs with
	 * log.c:ph_log_load. */
	__atomic_store_n(&lane->used, used, __ATOMIC_RELEASE);
	/* Then, before a record is overwritten, whoever copies them is told. Pairs with checkpoint.c:log_copy. */
	__atomic_store_n(&lane->rollback_count, lane->rollback_count + 1, __ATOMIC_RELEASE);
	if (h->fenced)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		ph_order();
	if (!h->leased)
		return;
	/* Either the epoch's bit is seen here, or who sets it finds `used` lowered. Pairs with checkpoint.c:switch_locked. */
	lsn = __atomic_load_n(&c->epoch, __ATOMIC_ACQUIRE) & 1
		      ? __atomic_load_n(&c->switch_lsn, __ATOMIC_ACQUIRE) + 8
		      : __atomic_load_n(&c->tail, __ATOMIC_ACQUIRE);
	descs_stamp(h, log, PHD_USED_END(used), lsn);
}

void ph_log_apply(struct pheap *h, const struct ph_log *log)
{
	const struct phd_record *r;
	bool publish = false;

	for (uint64_t at = 0; at < ph_log_end(log); at += ph_log_units(r->size)) {
		r = ph_log_at(log, at);
		if (PH_MUTANT(PH_MUTANT_PUBLISH_FIRST) && PHD_REC_KIND(r->target) == PHD_REC_PUBLISH)
			bytes_store(h->map + PHD_REC_OFF(r->target), ph_record_payload(r), 8);
		if (h->leased && PHD_REC_KIND(r->target) == PHD_REC_DESC)
			desc_apply(h, r);
		else
			ph_log_record_apply(h, r);
		publish |= PHD_REC_KIND(r->target) == PHD_REC_PUBLISH;
	}
	/* ORDER(publish-last): all other records before the PUBLISH ones: a reader without locks that sees a
	 * published word sees what it leads to. Crash between: all are applied again. Pairs with
	 * root.c:entry_find. */
	ph_order();
	for (uint64_t at = 0; publish && at < ph_log_end(log); at += ph_log_units(r->size)) {
		r = ph_log_at(log, at);
		if (PHD_REC_KIND(r->target) == PHD_REC_PUBLISH)
			bytes_store(h->map + PHD_REC_OFF(r->target), ph_record_payload(r), 8);
	}
}

void ph_log_undo(struct pheap *h, const struct ph_log *log, uint64_t to, bool revive)
{
	uint64_t at = ph_log_last(log);

	if (ph_log_end(log) <= to)
		return;
	if (PH_MUTANT(PH_MUTANT_UNDO_FORWARD) && to == 0) {
		for (at = 0; at < ph_log_end(log); at += ph_log_units(ph_log_at(log, at)->size))
			if (PHD_REC_KIND(ph_log_at(log, at)->target) == PHD_REC_UNDO)
				bytes_store(h->map + PHD_REC_OFF(ph_log_at(log, at)->target),
					    ph_record_payload(ph_log_at(log, at)), ph_log_at(log, at)->size);
		return;
	}
	for (;;) {
		const struct phd_record *r = ph_log_at(log, at);
		uint64_t off = PHD_REC_OFF(r->target);

		if (PHD_REC_KIND(r->target) == PHD_REC_UNDO)
			bytes_store(h->map + off, ph_record_payload(r), r->size);
		else if (revive && PHD_REC_KIND(r->target) == PHD_REC_REVIVE)
			memcpy(&ph_log_at(log, off)->target, ph_record_payload(r), 8);
		if (r->prev == 0 || at < to + r->prev)
			break;
		at -= r->prev;
	}
}

void ph_log_free(struct ph_log *log)
{
	free(log->segments);
	log->segments = NULL;
	log->count = log->room = 0;
}

/* The range that a stored-to target may cover: data, or the heap head's list heads. */
static bool target_valid(const struct pheap *h, uint64_t off, uint64_t n)
{
	uint64_t end = ph_chunk_off(h, ph_chunk_count(h));
	uint64_t types = h->super.head_off + offsetof(struct phd_head, types_off);
	uint64_t roots = h->super.head_off + offsetof(struct phd_head, roots);

	uint64_t holds = h->super.head_off + offsetof(struct phd_head, holds);

	if (off >= h->data_off && off <= end && n <= end - off)
		return true;
	if (n > sizeof(struct phd_head))
		return false;
	return (off >= types && off + n <= types + 8) ||
	       (off >= roots && off + n <= roots + sizeof(h->head->roots)) ||
	       (off >= holds && off + n <= holds + sizeof(h->head->holds));
}

static bool desc_record_valid(const struct pheap *h, const struct phd_record *r)
{
	uint64_t chunk = PHD_REC_OFF(r->target), payload[2], count = ph_chunk_count(h), said;

	if (r->size != 16)
		return false;
	memcpy(payload, ph_record_payload(r), 16);
	if (chunk < h->super.journal_count || chunk >= count || payload[0] == 0 || payload[0] > count - chunk)
		return false;
	if (PHD_DESC_KIND(payload[1]) == PHD_DESC_FREE)
		return PHD_DESC_IS_FREE(payload[1]);
	said = PHD_DESC_KIND(payload[1]) == PHD_DESC_RUN ? PHD_DESC_RUN_COUNT(payload[1])
							 : PHD_DESC_COUNT(payload[1]);
	return PHD_DESC_KIND(payload[1]) != PHD_DESC_CONT && said == payload[0] &&
	       ph_desc_fits(h, chunk, payload[1]);
}

bool ph_log_record_valid(const struct pheap *h, const struct phd_record *r)
{
	uint64_t off = PHD_REC_OFF(r->target);

	switch (PHD_REC_KIND(r->target)) {
	case PHD_REC_UNDO:
	case PHD_REC_DEFER:
		return target_valid(h, off, r->size);
	case PHD_REC_PUBLISH:
		return r->size == 8 && off % 8 == 0 && target_valid(h, off, 8);
	case PHD_REC_SET:
	case PHD_REC_CLEAR:
		return r->size == 8 && off % 8 == 0 && off >= h->super.bits_off &&
		       off < h->super.bits_off + ph_chunk_count(h) * sizeof(struct phd_bits);
	case PHD_REC_DESC:
		return desc_record_valid(h, r);
	case PHD_REC_REVIVE:
		return r->size == 8;
	case PHD_REC_DROPPED:
		return true;
	default:
		return false;
	}
}

/* A REVIVE must name a record that begins before it; checked by walking, so only its bound is checked here. */
static int records_check(struct pheap *h, uint32_t lane_idx, const struct ph_log *log)
{
	uint64_t at = 0, before = 0;
	uint32_t seg = 0;

	while (at < ph_log_end(log)) {
		const struct ph_segment *s;
		const struct phd_record *r;

		while (seg + 1 < log->count && log->segments[seg + 1].base <= at)
			seg++;
		s = &log->segments[seg];
		r = (const struct phd_record *)(const void *)(s->start + (at - s->base) * 8);
		if (at - s->base + 2 > s->room || ph_log_units(r->size) > s->room - (at - s->base) ||
		    ph_log_units(r->size) > ph_log_end(log) - at || r->prev != at - before ||
		    !ph_log_record_valid(h, r) ||
		    (PHD_REC_KIND(r->target) == PHD_REC_REVIVE && PHD_REC_OFF(r->target) >= at))
			return ph_error_recovery(
				h, PHEAP_ECORRUPT,
				"the log of lane %u is damaged at position %llu; run pheap-fsck on the file",
				lane_idx, (unsigned long long)at);
		before = at;
		at += ph_log_units(r->size);
	}
	if (ph_log_end(log) && before != ph_log_last(log))
		return ph_error_recovery(
			h, PHEAP_ECORRUPT,
			"the log of lane %u ends in the wrong place; run pheap-fsck on the file", lane_idx);
	return 0;
}

static int segment_compare(const void *a, const void *b)
{
	const struct ph_segment *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* Is [off, off + n) in one of the extensions? They are sorted, and do not overlap. */
static bool in_extension(const struct ph_segment *sorted, uint32_t count, uint64_t off, uint64_t n)
{
	uint32_t low = 0, high = count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (sorted[middle].off + sorted[middle].chunk_count * PHD_CHUNK_SIZE <= off)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && sorted[low].off < off + n;
}

/* A log that stores into its own extensions would change under the feet of who walks it. The records are
 * valid. */
static int targets_check(const struct pheap *h, uint32_t lane_idx, const struct ph_log *log)
{
	uint32_t count = log->count - 1;
	struct ph_segment *sorted = malloc(count * sizeof(*sorted));
	bool good = true;

	if (!sorted)
		return ph_error_recovery(h, -ENOMEM, "no memory to check the log of lane %u", lane_idx);
	memcpy(sorted, log->segments + 1, count * sizeof(*sorted));
	qsort(sorted, count, sizeof(*sorted), segment_compare);
	for (uint32_t i = 1; i < count; i++)
		good &= sorted[i - 1].off + sorted[i - 1].chunk_count * PHD_CHUNK_SIZE <= sorted[i].off;
	for (uint64_t at = 0; at < ph_log_end(log) && good;) {
		const struct phd_record *r = ph_log_at(log, at);
		unsigned kind = PHD_REC_KIND(r->target);

		good = (kind != PHD_REC_UNDO && kind != PHD_REC_DEFER && kind != PHD_REC_PUBLISH) ||
		       !in_extension(sorted, count, PHD_REC_OFF(r->target), r->size);
		at += ph_log_units(r->size);
	}
	free(sorted);
	return good ? 0
		    : ph_error_recovery(h, PHEAP_ECORRUPT,
					"the log of lane %u overlaps itself; run pheap-fsck on the file",
					lane_idx);
}

/* The extension at off, or NULL: none that could follow the segment `before`. */
static const struct phd_log_ext *ext_at(const struct pheap *h, uint64_t off, uint64_t owner,
					const struct ph_segment *before)
{
	const struct phd_log_ext *ext;
	uint64_t end = ph_chunk_off(h, ph_chunk_count(h));

	if (off < h->data_off || off >= end || (off - h->data_off) % PHD_CHUNK_SIZE)
		return NULL;
	ext = (const struct phd_log_ext *)(const void *)(h->map + off);
	return ext->size >= PHD_CHUNK_SIZE && ext->size % PHD_CHUNK_SIZE == 0 && ext->size <= end - off &&
			       ext->owner == owner && ext->base > before->base &&
			       ext->base - before->base <= before->room
		       ? ext
		       : NULL;
}

int ph_log_load(struct pheap *h, uint32_t lane_idx, uint64_t gen, struct ph_log *ret)
{
	struct phd_lane *lane = &h->lanes[lane_idx];
	uint64_t used = __atomic_load_n(&lane->used, __ATOMIC_ACQUIRE);
	uint64_t next_off = lane->ext_off, base = 0;
	struct ph_log log = {.used = used};
	int rc;

	if (!ph_room(&log.segments, &log.room, 1, sizeof(*log.segments)))
		return -ENOMEM;
	log.segments[log.count++] = (struct ph_segment){
		.start = h->lane_logs + (uint64_t)lane_idx * h->super.lane_log_size,
		.room = h->super.lane_log_size / 8,
	};
	while (next_off && ph_log_end(&log) > base) {
		const struct phd_log_ext *ext =
			ext_at(h, next_off, PHD_WORD(gen, lane_idx), &log.segments[log.count - 1]);

		if (!ext || ext->base >= ph_log_end(&log))
			break;
		base = ext->base;
		log.segments[log.count - 1].room = base - log.segments[log.count - 1].base;
		if (!ph_room(&log.segments, &log.room, log.count + 1, sizeof(*log.segments))) {
			ph_log_free(&log);
			return -ENOMEM;
		}
		log.segments[log.count++] = (struct ph_segment){
			.start = (char *)(uintptr_t)(ext + 1),
			.base = base,
			.room = (ext->size - sizeof(*ext)) / 8,
			.off = next_off,
			.chunk_count = ext->size / PHD_CHUNK_SIZE,
		};
		next_off = ext->next_off;
	}
	rc = records_check(h, lane_idx, &log);
	if (rc == 0 && log.count > 1)
		rc = targets_check(h, lane_idx, &log);
	if (rc) {
		ph_log_free(&log);
		return rc;
	}
	*ret = log;
	return 0;
}
