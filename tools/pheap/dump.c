/* SPDX-License-Identifier: MIT
 *
 * dump.c: `pheap dump`: any durable structure by name and number, or by offset.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "heap_file.h"
#include "wal_view.h"

#define BYTES_SHOWN_MAX 4096u

static void need_geometry(const struct heap_file *h)
{
	if (h->super_copy < 0)
		fail("%s: no copy of its superblock is usable, only 'super', 'state' and STRUCT@OFFSET work",
		     h->path);
}

static uint64_t number(const char *text, uint64_t end, const char *what)
{
	uint64_t n;

	if (!text)
		usage_fail("dump: which %s? Give a number from 0 to %llu", what, (ull)(end - 1));
	if (!size_parse(text, &n))
		usage_fail("dump: '%s' is no number", text);
	if (n >= end)
		fail("there is no %s %s: numbers go from 0 to %llu", what, text, (ull)(end - 1));
	return n;
}

static void bytes_print(const struct heap_file *h, uint64_t off, uint64_t size)
{
	uint64_t shown = size < BYTES_SHOWN_MAX ? size : BYTES_SHOWN_MAX;

	for (uint64_t at = 0; at < shown; at += 16) {
		unsigned char row[16];
		unsigned n = shown - at < 16 ? (unsigned)(shown - at) : 16;

		heap_file_read(h, off + at, row, n);
		printf("  0x%08" PRIx64 " ", off + at);
		for (unsigned i = 0; i < 16; i++)
			if (i < n)
				printf(" %02x", row[i]);
			else
				printf("   ");
		printf("  ");
		for (unsigned i = 0; i < n; i++)
			putchar(row[i] >= ' ' && row[i] <= '~' ? row[i] : '.');
		putchar('\n');
	}
	if (shown < size)
		printf("  ... %" PRIu64 " bytes more\n", size - shown);
}

static void desc_print(const struct heap_file *h, uint64_t chunk)
{
	uint64_t d = heap_file_desc(h, chunk);

	printf("desc %" PRIu64 "@0x%" PRIx64 ": 0x%016" PRIx64 " ", chunk, h->super.desc_off + 8 * chunk, d);
	switch (PHD_DESC_KIND(d)) {
	case PHD_DESC_RUN:
		printf("RUN of type %u: %" PRIu64 " chunks, blocks of %zu bytes, %" PRIu64 " of them\n",
		       PHD_DESC_TYPE(d), PHD_DESC_RUN_COUNT(d), PHD_DESC_BLOCK_SIZE(d), format_run_blocks(d));
		break;
	case PHD_DESC_EXTENT:
		printf("EXTENT of type %u: %" PRIu64 " chunks\n", PHD_DESC_TYPE(d), PHD_DESC_COUNT(d));
		break;
	case PHD_DESC_CONT:
		printf("CONT of type %u: its head is %" PRIu64 " chunks before\n", PHD_DESC_TYPE(d),
		       PHD_DESC_COUNT(d));
		break;
	default:
		printf("FREE%s\n", d == PHD_DESC_HOLE ? ", perhaps without space in the file" : "");
	}
}

static void chunk_print(const struct heap_file *h, uint64_t chunk)
{
	struct heap_block b;
	uint64_t blocks;

	desc_print(h, chunk);
	printf("data at 0x%" PRIx64 "\n", heap_file_chunk_off(h, chunk));
	if (format_has_wal(&h->super))
		struct_print(h, struct_find("lease", 5),
			     h->super.lease_off + chunk * sizeof(struct phd_lease), "lease");
	struct_print(h, struct_find("words", 5), h->super.words_off + chunk * sizeof(struct phd_words),
		     "lock words");
	struct_print(h, struct_find("bits", 4), h->super.bits_off + chunk * sizeof(struct phd_bits),
		     "bitmap");
	blocks = format_run_blocks(heap_file_desc(h, chunk));
	if (blocks)
		printf("allocated blocks:\n");
	for (uint64_t i = 0; i < blocks; i++) {
		uint64_t off =
			heap_file_chunk_off(h, chunk) + i * PHD_DESC_BLOCK_SIZE(heap_file_desc(h, chunk));

		if (heap_file_block(h, off, &b) && b.allocated)
			printf("  0x%" PRIx64 "\n", off);
	}
}

/* Calls back for each block of a list whose first member is the link, as far as it leads through blocks. */
static void list_visit(const struct heap_file *h, uint64_t off, size_t size,
		       bool (*visit)(const struct heap_file *, uint64_t, void *), void *arg)
{
	struct list_walk list;

	list_walk_start(&list, off, size, UINT32_MAX);
	while (list_walk_next(h, &list))
		if (!visit(h, list.off, arg))
			return;
	if (list.bad)
		printf("the list leads to 0x%" PRIx64 ", which %s; see pheap-fsck\n", list.next, list.bad);
}

struct root_search {
	const char *name; /* NULL: all */
	unsigned count;
};

static bool root_visit(const struct heap_file *h, uint64_t off, void *arg)
{
	struct root_search *search = arg;
	struct phd_root root;
	char name[PHD_NAME_SIZE];

	heap_file_read(h, off, &root, sizeof root);
	plain_text(root.name, sizeof root.name, name, sizeof name);
	if (!search->name) {
		printf("  0x%-12" PRIx64 " 0x%-12" PRIx64 " %8" PRIu64 " %s\n", off, root.off, root.size,
		       name);
		search->count++;
	} else if (!strncmp(root.name, search->name, sizeof root.name)) {
		struct_print(h, struct_find("root", 4), off, name);
		search->count++;
		return false;
	}
	return true;
}

static void root_dump(const struct heap_file *h, const char *name)
{
	struct root_search search = {.name = name};
	struct phd_head head;

	heap_file_read(h, h->super.head_off, &head, sizeof head);
	if (!name)
		printf("  entry          block              size name\n");
	for (unsigned i = 0; i < PHD_ROOT_BUCKETS; i++)
		list_visit(h, head.roots[i], sizeof(struct phd_root), root_visit, &search);
	if (name && !search.count)
		fail("there is no root '%s'; 'pheap dump FILE root' lists them", name);
}

struct type_search {
	int64_t number; /* -1: all */
	bool quiet;	/* only remember where it is */
	uint64_t off;
};

static bool type_visit(const struct heap_file *h, uint64_t off, void *arg)
{
	struct type_search *search = arg;
	struct phd_type type;
	struct heap_block b;
	uint32_t fit;
	char name[PHD_NAME_SIZE];

	heap_file_read(h, off, &type, sizeof type);
	if (search->number >= 0 && type.number != search->number)
		return true;
	search->off = off;
	if (search->quiet)
		return false;
	struct_print(h, struct_find("type", 4), off,
		     plain_text(type.name, sizeof type.name, name, sizeof name));
	heap_file_block(h, off, &b);
	fit = (uint32_t)((b.size - sizeof type) / 4);
	printf("  0x%03zx %-22s", sizeof type, "ptr_offs");
	for (uint32_t i = 0; i < type.ptr_count && i < fit && i < 64; i++) {
		uint32_t field;

		heap_file_read(h, off + sizeof type + 4ull * i, &field, sizeof field);
		printf(" %u", field);
	}
	putchar('\n');
	return search->number < 0;
}

static uint64_t type_find(const struct heap_file *h, int64_t type_number, bool quiet)
{
	struct type_search search = {.number = type_number, .quiet = quiet};
	struct phd_head head;

	heap_file_read(h, h->super.head_off, &head, sizeof head);
	list_visit(h, head.types_off, sizeof(struct phd_type), type_visit, &search);
	return search.off;
}

static void block_fields_print(const struct heap_file *h, const struct heap_block *b)
{
	uint64_t row = type_find(h, PHD_DESC_TYPE(b->desc), true);
	struct phd_type type;
	char name[PHD_NAME_SIZE];

	if (!row)
		return;
	heap_file_read(h, row, &type, sizeof type);
	printf("type '%s', %" PRIu64 " bytes; its pointers:\n",
	       plain_text(type.name, sizeof type.name, name, sizeof name), type.size);
	for (uint32_t i = 0; i < type.ptr_count && i < 1024; i++) {
		struct heap_block target;
		uint32_t field;
		uint64_t off;

		heap_file_read(h, row + sizeof type + 4ull * i, &field, sizeof field);
		if (b->size < 8 || field > b->size - 8)
			continue;
		heap_file_read(h, b->off + field, &off, sizeof off);
		printf("  at %-6u 0x%" PRIx64 "%s\n", field, off,
		       !off ? ""
		       : heap_file_block(h, off, &target) && target.allocated && target.off == off
			       ? ""
			       : " (no block)");
	}
}

/* A block of the library's own. */
static void internal_print(const struct heap_file *h, const struct heap_block *b)
{
	static const char *const names[] = {"root", "type", NULL, "hold", "permits"};
	uint32_t idx = PHD_DESC_TYPE(b->desc) - PHD_TYPE_ROOT;

	if (idx < sizeof names / sizeof names[0] && names[idx])
		struct_print(h, struct_find(names[idx], strlen(names[idx])), b->off, "");
}

static void block_dump(const struct heap_file *h, const char *text)
{
	struct heap_block b;
	uint64_t off;

	if (!text || !size_parse(text, &off))
		usage_fail("dump: block needs an offset, as in: pheap dump FILE block 0x14000");
	if (!heap_file_block(h, off, &b))
		fail("offset %s is in no block: %s", text,
		     off >= h->super.data_off && off < heap_file_chunk_off(h, h->chunk_count)
			     ? "its chunk is free"
			     : "it is outside the data");
	printf("block@0x%" PRIx64 ": %" PRIu64 " bytes of type %u, %s, chunk %" PRIu64 ", number %" PRIu64
	       "\n",
	       b.off, b.size, PHD_DESC_TYPE(b.desc), b.allocated ? "allocated" : "free", b.chunk, b.idx);
	if (b.off != off)
		printf("0x%" PRIx64 " is %" PRIu64 " bytes into it\n", off, off - b.off);
	if (PHD_DESC_TYPE(b.desc) > PHD_TYPE_USER_MAX)
		internal_print(h, &b);
	else
		block_fields_print(h, &b);
	bytes_print(h, b.off, b.size);
}

static void struct_at_dump(const struct heap_file *h, const char *text, const char *at)
{
	const struct struct_info *s = struct_find(text, (size_t)(at - text));
	uint64_t off;

	if (!s)
		usage_fail("dump: there is no struct '%.*s'; 'pheap dump FILE' lists them", (int)(at - text),
			   text);
	if (!size_parse(at + 1, &off))
		usage_fail("dump: '%s' is no offset", at + 1);
	if (off >= h->size || s->size > h->size - off)
		fail("%s at 0x%llx would go past the end of the file (%llu bytes)", s->name, (ull)off,
		     (ull)h->size);
	struct_print(h, s, off, "");
}

static bool copies_of(const char *name)
{
	return !strcmp(name, "super") || !strcmp(name, "state") || !strcmp(name, "checkpoint") ||
	       !strcmp(name, "live");
}

static void copies_dump(const struct heap_file *h, const char *name, const char *which)
{
	int counts = h->super_copy;
	uint64_t off = 0;

	if (!strcmp(name, "state")) {
		counts = h->state_copy;
		off = PHD_STATE_OFF(0);
	} else if (!strcmp(name, "checkpoint")) {
		struct wal_view v;

		wal_view_read(h, &v);
		counts = v.checkpoint_copy;
		off = PHD_CHECKPOINT_OFF(0);
	} else if (!strcmp(name, "live")) {
		counts = -1; /* of each word the higher one */
		off = PHD_LIVE_OFF(0);
	}
	for (uint64_t i = 0; i < 2; i++)
		if (!which || number(which, 2, "copy") == i)
			struct_print(h, struct_find(name, strlen(name)), PHD_SUPER_OFF(i) + off,
				     (int)i == counts ? "the copy that counts" : "");
}

/* From where power recovery reads, or from an LSN that is asked for. */
static void log_dump(const struct heap_file *h, const char *what, const char *lsn)
{
	uint64_t region = !strcmp(what, "wal") ? h->super.wal_off : h->super.ring_off, from;
	struct wal_view v;

	if (!format_has_wal(&h->super))
		fail("%s: a heap of durability PROCESS has no log", h->path);
	wal_view_read(h, &v);
	from = v.checkpoint.replay_lsn;
	if (lsn && (!size_parse(lsn, &from) || from % 8))
		usage_fail("dump: '%s' is no LSN, a multiple of 8", lsn);
	if (!lsn && v.checkpoint_copy < 0)
		fail("%s: no copy of its checkpoint is valid: say an LSN", h->path);
	wal_print(h, region, from, v.checkpoint_copy < 0 ? v.coord.log_gen : v.checkpoint.log_gen);
}

static void region_print(const char *what, uint64_t off, uint64_t unit, uint64_t count)
{
	printf("  %-14s 0x%-10" PRIx64 " %6" PRIu64 " bytes x %" PRIu64 "\n", what, off, unit, count);
}

static void list_print(const struct heap_file *h)
{
	const struct phd_super *s = &h->super;

	printf("WHAT is one of:\n");
	region_print("super [N]", 0, PHD_SECTOR_SIZE, 2);
	region_print("state [N]", PHD_STATE_OFF(0), PHD_SECTOR_SIZE, 2);
	if (format_has_wal(s) && h->super_copy >= 0) {
		region_print("checkpoint [N]", PHD_CHECKPOINT_OFF(0), PHD_SECTOR_SIZE, 2);
		region_print("live [N]", PHD_LIVE_OFF(0), sizeof(struct phd_live), 2);
		region_print("wal [LSN]", s->wal_off, 1, s->wal_size);
		region_print("ring [LSN]", s->ring_off, 1, s->wal_size);
	}
	if (h->super_copy >= 0) {
		region_print("coord", s->coord_off, sizeof(struct phd_coord), 1);
		region_print("member N", s->member_off, sizeof(struct phd_member), s->member_count);
		region_print("stripe N", s->stripe_off, sizeof(struct phd_stripe), s->stripe_count + 1ull);
		region_print("lane N", s->lane_off, sizeof(struct phd_lane), s->lane_count);
		region_print("head", s->head_off, sizeof(struct phd_head), 1);
		region_print("desc N", s->desc_off, 8, h->chunk_count);
		region_print("chunk N", s->data_off, PHD_CHUNK_SIZE, h->chunk_count);
		printf("  root [NAME], type [N], block OFFSET\n");
	}
	printf("  STRUCT@OFFSET with STRUCT one of:");
	for (unsigned i = 0; i < struct_count; i++)
		printf(" %s", struct_table[i].name);
	putchar('\n');
}

static void numbered_dump(const struct heap_file *h, const char *what, const char *arg)
{
	const struct phd_super *s = &h->super;

	if (!strcmp(what, "member")) {
		struct_print(h, struct_find("member", 6),
			     s->member_off +
				     number(arg, s->member_count, "member") * sizeof(struct phd_member),
			     "");
	} else if (!strcmp(what, "stripe")) {
		struct_print(h, struct_find("stripe", 6),
			     s->stripe_off + number(arg, s->stripe_count + 1ull, "stripe") *
						     sizeof(struct phd_stripe),
			     "");
	} else if (!strcmp(what, "lane")) {
		uint32_t lane = (uint32_t)number(arg, s->lane_count, "lane");

		struct_print(h, struct_find("lane", 4), s->lane_off + lane * sizeof(struct phd_lane), "");
		lane_log_print(h, lane);
	} else if (!strcmp(what, "desc")) {
		desc_print(h, number(arg, h->chunk_count, "chunk"));
	} else if (!strcmp(what, "chunk")) {
		chunk_print(h, number(arg, h->chunk_count, "chunk"));
	} else {
		usage_fail("dump: '%s' is unknown; 'pheap dump FILE' lists what there is", what);
	}
}

static void dump(const struct heap_file *h, const char *what, const char *arg)
{
	const char *at = strchr(what, '@');

	if (at) {
		struct_at_dump(h, what, at);
		return;
	}
	if (copies_of(what)) {
		copies_dump(h, what, arg);
		return;
	}
	need_geometry(h);
	if (!strcmp(what, "wal") || !strcmp(what, "ring")) {
		log_dump(h, what, arg);
	} else if (!strcmp(what, "coord")) {
		struct_print(h, struct_find("coord", 5), h->super.coord_off, "");
	} else if (!strcmp(what, "head")) {
		struct_print(h, struct_find("head", 4), h->super.head_off, "");
	} else if (!strcmp(what, "root")) {
		root_dump(h, arg);
	} else if (!strcmp(what, "type")) {
		if (!type_find(h, arg ? (int64_t)number(arg, PHD_TYPE_USER_MAX + 1ull, "type") : -1, false) &&
		    arg)
			fail("type %s is not in the type table", arg);
	} else if (!strcmp(what, "block")) {
		block_dump(h, arg);
	} else {
		numbered_dump(h, what, arg);
	}
}

int command_dump(int argc, char **argv)
{
	struct heap_file h;

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		puts("Usage: pheap dump FILE [WHAT]; without WHAT it lists what there is");
		return 0;
	}
	if (argc < 2 || argc > 4 || argv[1][0] == '-')
		usage_fail("dump: give a file, and what to show of it, as in: pheap dump FILE lane 0");
	heap_file_open(&h, argv[1], true);
	if (argc == 2)
		list_print(&h);
	else
		dump(&h, argv[2], argc == 4 ? argv[3] : NULL);
	heap_file_close(&h);
	return 0;
}
