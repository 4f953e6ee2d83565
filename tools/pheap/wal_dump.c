/* SPDX-License-Identifier: MIT
 *
 * wal_dump.c: the records of the WAL, or of the ring, as text.
 *
 * Invariants
 *   U1  Positions only grow, and at most by the size of the region: a log that leads in a circle ends.
 */
#include <inttypes.h>
#include <stdio.h>

#include "format.h"
#include "wal_view.h"

struct reader {
	const struct heap_file *h;
	uint64_t region, log_gen;
};

static void log_read(const struct reader *r, uint64_t lsn, void *buf, size_t n)
{
	uint64_t at = lsn % r->h->super.wal_size, room = r->h->super.wal_size - at;
	size_t first = n < room ? n : (size_t)room;

	heap_file_read(r->h, r->region + at, buf, first);
	if (first < n)
		heap_file_read(r->h, r->region, (char *)buf + first, n - first);
}

static bool checksum_fits(const struct reader *r, uint64_t lsn, const struct phd_wal *w)
{
	unsigned char part[16384];
	uint32_t crc = 0;

	for (uint64_t done = sizeof *w; done < w->size;) {
		size_t n = w->size - done < sizeof part ? (size_t)(w->size - done) : sizeof part;

		log_read(r, lsn + done, part, n);
		crc = format_crc32c_more(crc, part, n);
		done += n;
	}
	return format_crc32c_more(crc, w, offsetof(struct phd_wal, crc)) == w->crc;
}

/* NULL: a valid record. */
static const char *record_error(const struct reader *r, uint64_t lsn, const struct phd_wal *w)
{
	if (w->lsn != lsn)
		return "no record";
	if (w->log_gen != r->log_gen)
		return "a record of another generation";
	if (w->kind < PHD_WAL_PAD || w->kind > PHD_WAL_SWITCH || w->size < sizeof *w || w->size % 8 ||
	    w->size > r->h->super.wal_size / 4)
		return "an impossible record";
	return checksum_fits(r, lsn, w) ? NULL : "a record with a wrong checksum";
}

static void entry_print(const struct reader *r, uint64_t lsn, const struct phd_record *e)
{
	static const char *const names[] = {"?",     "UNDO", "DEFER",  "PUBLISH", "SET",
					    "CLEAR", "DESC", "REVIVE", "DROPPED", "GROW"};
	unsigned kind = PHD_REC_KIND(e->target);
	unsigned char bytes[24];
	size_t n = e->size < sizeof bytes ? e->size : sizeof bytes;

	log_read(r, lsn + sizeof *e, bytes, n);
	printf("    %-8s 0x%-12" PRIx64 " %8u ", kind < sizeof names / sizeof names[0] ? names[kind] : "?",
	       (uint64_t)PHD_REC_OFF(e->target), e->size);
	for (size_t i = 0; i < n; i++)
		printf("%02x%s", bytes[i], i % 8 == 7 ? " " : "");
	printf("%s\n", e->size > n ? "..." : "");
}

static void entries_print(const struct reader *r, const struct phd_wal *w)
{
	for (uint64_t at = sizeof *w; at < w->size;) {
		struct phd_record e;

		log_read(r, w->lsn + at, &e, sizeof e);
		if (w->size - at < sizeof e || e.size > w->size - at - sizeof e) {
			printf("    no entry; see pheap-fsck\n");
			return;
		}
		entry_print(r, w->lsn + at, &e);
		at += sizeof e + ((uint64_t)e.size + 7) / 8 * 8;
	}
}

void wal_print(const struct heap_file *h, uint64_t region, uint64_t lsn, uint64_t log_gen)
{
	static const char *const names[] = {"?", "PAD", "COMMIT", "IMAGE", "SWITCH"};
	const struct reader r = {h, region, log_gen};
	uint64_t end = lsn + h->super.wal_size;
	struct phd_wal w;
	const char *error;

	printf("log of generation %" PRIu64 ", from %" PRIu64 "\n", log_gen, lsn);
	for (;; lsn += w.size) {
		log_read(&r, lsn, &w, sizeof w);
		error = record_error(&r, lsn, &w);
		if (error || lsn + w.size > end)
			break;
		printf("  %" PRIu64 " %s %u bytes\n", lsn, names[w.kind], w.size);
		if (w.kind != PHD_WAL_PAD)
			entries_print(&r, &w);
	}
	printf("  %" PRIu64 " %s: the log ends here\n", lsn, error ? error : "one turn");
}
