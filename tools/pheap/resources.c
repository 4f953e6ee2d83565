/* SPDX-License-Identifier: MIT
 *
 * resources.c: see resources.h.
 */
#include "resources.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "format.h"

#define READ_TRIES 20 /* of a list that others change */

struct hold_rows {
	struct phd_hold *rows;
	size_t count, room;
};

/* A permits block, and the names that lead to it. */
struct permits_row {
	uint64_t off, size;
	size_t name_first, name_count; /* in names */
};

struct permits_name {
	uint64_t off;
	char name[PHD_NAME_SIZE];
};

struct resources {
	const struct heap_file *h;
	const struct members *m;
	bool json, damaged;
	uint64_t hold_count, void_count;
	char (*type_names)[PHD_NAME_SIZE]; /* by number */
	struct permits_row *permits;	   /* by offset */
	size_t permits_count, permits_room;
	struct permits_name *names; /* by offset */
	size_t name_count, name_room;
};

/* *array has room for one more element. */
static void room_make(void **array, size_t count, size_t *room, size_t element_size)
{
	void *grown;

	if (count < *room)
		return;
	*room = *room ? 2 * *room : 64;
	grown = reallocarray(*array, *room, element_size);
	if (!grown)
		fail("out of memory");
	*array = grown;
}

static void damaged(struct resources *r, const char *what, uint64_t off, const char *why)
{
	r->damaged = true;
	fflush(stdout);
	fprintf(stderr, "pheap: %s: %s 0x%llx %s; %s\n", r->h->path, what, (ull)off, why,
		r->h->attached
			? "if it stays so, stop the programs that use the heap and run pheap-fsck -n -f"
			: "run pheap-fsck -n -f");
}

static void type_names_read(struct resources *r)
{
	struct list_walk list;
	struct phd_head head;

	r->type_names = calloc(PHD_TYPE_USER_MAX + 1, sizeof *r->type_names);
	if (!r->type_names)
		fail("out of memory");
	heap_file_read(r->h, r->h->super.head_off, &head, sizeof head);
	list_walk_start(&list, head.types_off, sizeof(struct phd_type), PHD_TYPE_TYPE);
	while (list_walk_next(r->h, &list)) {
		struct phd_type row;

		heap_file_read(r->h, list.off, &row, sizeof row);
		if (row.number <= PHD_TYPE_USER_MAX)
			plain_text(row.name, sizeof row.name, r->type_names[row.number], PHD_NAME_SIZE);
	}
}

/* ---- whose ---- */

static void holder_text(const struct member_view *v, uint64_t attachment)
{
	if (v)
		printf("attachment %" PRIu64 ", pid %u (%s)%s", attachment, v->row.pid, v->command,
		       v->alive ? "" : ", dead, not yet recovered");
	else
		printf("attachment %" PRIu64 ", gone", attachment);
}

static void holder_json(const struct member_view *v, uint32_t slot, uint64_t attachment)
{
	printf("\"slot\": %u, \"attachment\": %" PRIu64 ", \"pid\": %u, \"command\": ", slot, attachment,
	       v ? v->row.pid : 0);
	json_print(v ? v->command : "");
	printf(", \"alive\": %s", v && v->alive ? "true" : "false");
}

/* ---- held references ---- */

/* "" also for types that are not the user's. */
static const char *type_name(const struct resources *r, uint32_t type)
{
	return type <= PHD_TYPE_USER_MAX ? r->type_names[type] : "";
}

static const char *type_text(const struct resources *r, const struct heap_block *b, char *buf, size_t size)
{
	const char *name = b ? type_name(r, PHD_DESC_TYPE(b->desc)) : "";

	if (!b)
		snprintf(buf, size, "no block");
	else if (*name)
		snprintf(buf, size, "%u (%s)", PHD_DESC_TYPE(b->desc), name);
	else
		snprintf(buf, size, "%u", PHD_DESC_TYPE(b->desc));
	return buf;
}

static void hold_text(struct resources *r, const struct phd_hold *row, const struct member_view *v,
		      const struct heap_block *b)
{
	char type[PHD_NAME_SIZE + 16];

	if (!r->hold_count++)
		printf("held references:\n  OBJECT         TYPE                 COUNT HOLDER\n");
	printf("  0x%-12" PRIx64 " %-18s %7u ", row->object_off, type_text(r, b, type, sizeof type),
	       row->count);
	holder_text(v, row->attachment);
	printf("%s\n", v ? "" : ": void");
}

static void hold_json(struct resources *r, const struct phd_hold *row, const struct member_view *v,
		      const struct heap_block *b)
{
	uint32_t type = b ? PHD_DESC_TYPE(b->desc) : 0;

	r->hold_count++;
	printf("{\"kind\": \"hold\", \"object\": %" PRIu64 ", \"type\": %u, \"type_name\": ", row->object_off,
	       type);
	json_print(type_name(r, type));
	printf(", \"count\": %u, \"void\": %s, ", row->count, v ? "false" : "true");
	holder_json(v, row->slot, row->attachment);
	printf("}\n");
}

static void hold_print(struct resources *r, const struct phd_hold *row)
{
	const struct member_view *v = members_find(r->m, row->slot, row->attachment);
	struct heap_block b;
	bool block = heap_file_block(r->h, row->object_off, &b) && b.allocated && b.off == row->object_off;

	r->void_count += !v;
	(r->json ? hold_json : hold_text)(r, row, v, block ? &b : NULL);
}

/* Another look, in the hope that it was being changed. */
static bool look_again(const struct resources *r, int try)
{
	struct timespec nap = {0, 1000000};

	if (!r->h->attached || try >= READ_TRIES)
		return false;
	nanosleep(&nap, NULL);
	return true;
}

static void bucket_print(struct resources *r, uint64_t bucket_off, struct hold_rows *rows)
{
	struct list_walk list;
	int try = 0;

	do {
		uint64_t first;

		rows->count = 0;
		heap_file_read(r->h, bucket_off, &first, sizeof first);
		list_walk_start(&list, first, sizeof(struct phd_hold), PHD_TYPE_HOLD);
		while (list_walk_next(r->h, &list)) {
			room_make((void **)&rows->rows, rows->count, &rows->room, sizeof *rows->rows);
			heap_file_read(r->h, list.off, &rows->rows[rows->count++], sizeof *rows->rows);
		}
	} while (list.bad && look_again(r, try++));
	for (size_t i = 0; i < rows->count; i++)
		hold_print(r, &rows->rows[i]);
	if (list.bad)
		damaged(r, "held references: the list leads to", list.next, list.bad);
}

static void holds_print(struct resources *r)
{
	uint64_t buckets = r->h->super.head_off + offsetof(struct phd_head, holds);
	struct hold_rows rows = {0};

	for (unsigned i = 0; i < PHD_HOLD_BUCKETS; i++)
		bucket_print(r, buckets + 8ull * i, &rows);
	free(rows.rows);
	if (r->json)
		return;
	if (!r->hold_count)
		printf("held references: none\n");
	if (r->void_count)
		printf("  void: the holder is gone; the next transaction that clears up after the dead frees "
		       "what nobody else holds\n");
}

/* ---- permits ---- */

static void permits_add(struct resources *r, uint64_t off, uint64_t size)
{
	room_make((void **)&r->permits, r->permits_count, &r->permits_room, sizeof *r->permits);
	r->permits[r->permits_count++] = (struct permits_row){.off = off, .size = size};
}

static void permits_of_run(struct resources *r, uint64_t chunk, uint64_t desc)
{
	uint64_t blocks = format_run_blocks(desc), size = PHD_DESC_BLOCK_SIZE(desc);
	struct phd_bits bits[PHD_RUN_COUNT_MAX];

	if (size < sizeof(struct phd_permits) + sizeof(struct phd_permit_cell))
		return;
	heap_file_read(r->h, r->h->super.bits_off + chunk * sizeof bits[0], bits, sizeof bits);
	for (uint64_t i = 0; i < blocks; i++)
		if (bits[i / 256].word[i / 64 % 4] >> i % 64 & 1)
			permits_add(r, heap_file_chunk_off(r->h, chunk) + i * size, size);
}

/* By offset, because the directory is. */
static void permits_find(struct resources *r)
{
	static struct word_walk walk;
	uint64_t chunk, desc;

	word_walk_start(&walk, r->h, r->h->super.desc_off, r->h->chunk_count);
	while (word_walk_next(&walk, &chunk, &desc)) {
		if (PHD_DESC_TYPE(desc) != PHD_TYPE_PERMITS)
			continue;
		if (PHD_DESC_KIND(desc) == PHD_DESC_RUN)
			permits_of_run(r, chunk, desc);
		else if (PHD_DESC_KIND(desc) == PHD_DESC_EXTENT)
			permits_add(r, heap_file_chunk_off(r->h, chunk),
				    PHD_DESC_COUNT(desc) * PHD_CHUNK_SIZE);
	}
}

static int permits_compare(const void *key, const void *element)
{
	const struct permits_row *row = element;
	uint64_t off = *(const uint64_t *)key;

	return off < row->off ? -1 : off > row->off;
}

static int name_compare(const void *a, const void *b)
{
	const struct permits_name *x = a, *y = b;

	return x->off != y->off ? (x->off < y->off ? -1 : 1) : strcmp(x->name, y->name);
}

static void names_of_list(struct resources *r, struct list_walk *list)
{
	while (list_walk_next(r->h, list)) {
		struct phd_root root;

		heap_file_read(r->h, list->off, &root, sizeof root);
		if (!bsearch(&root.off, r->permits, r->permits_count, sizeof *r->permits, permits_compare))
			continue;
		room_make((void **)&r->names, r->name_count, &r->name_room, sizeof *r->names);
		r->names[r->name_count].off = root.off;
		plain_text(root.name, sizeof root.name, r->names[r->name_count].name, PHD_NAME_SIZE);
		r->name_count++;
	}
}

static void names_read(struct resources *r)
{
	struct phd_head head;

	if (!r->permits_count)
		return;
	heap_file_read(r->h, r->h->super.head_off, &head, sizeof head);
	for (unsigned i = 0; i < PHD_ROOT_BUCKETS; i++) {
		struct list_walk list;
		size_t before = r->name_count;
		int try = 0;

		do {
			r->name_count = before;
			list_walk_start(&list, head.roots[i], sizeof(struct phd_root), PHD_TYPE_ROOT);
			names_of_list(r, &list);
		} while (list.bad && look_again(r, try++));
		if (list.bad)
			damaged(r, "names: the list leads to", list.next, list.bad);
	}
	if (r->name_count)
		qsort(r->names, r->name_count, sizeof *r->names, name_compare);
	for (size_t i = 0; i < r->name_count; i++) {
		struct permits_row *row = bsearch(&r->names[i].off, r->permits, r->permits_count,
						  sizeof *r->permits, permits_compare);

		row->name_first = row->name_count ? row->name_first : i;
		row->name_count++;
	}
}

/* Cells that count, of at most as many members as there can be. Returns how many cells were read. */
static uint32_t cells_read(const struct resources *r, const struct permits_row *row,
			   struct phd_permit_cell *cells)
{
	uint64_t fit = (row->size - sizeof(struct phd_permits)) / sizeof *cells;
	uint32_t count = r->h->super.member_count;

	if (count > fit)
		count = (uint32_t)fit;
	heap_file_read(r->h, row->off + sizeof(struct phd_permits), cells, count * sizeof *cells);
	for (uint32_t i = 0; i < count; i++)
		if (!cells[i].attachment || !members_find(r->m, i, cells[i].attachment))
			cells[i].balance = 0;
	return count;
}

static void permits_text(const struct resources *r, const struct permits_row *row, uint64_t total,
			 int64_t available, const struct phd_permit_cell *cells, uint32_t count)
{
	printf("  0x%" PRIx64, row->off);
	for (size_t i = 0; i < row->name_count; i++)
		printf(" '%s'", r->names[row->name_first + i].name);
	printf(": %" PRIu64 " in all, %" PRId64 " available\n", total, available);
	for (uint32_t i = 0; i < count; i++) {
		if (!cells[i].balance)
			continue;
		printf("    %s %" PRIu64 ": ", cells[i].balance > 0 ? "taken" : "lent ",
		       cells[i].balance > 0 ? (uint64_t)cells[i].balance : 0 - (uint64_t)cells[i].balance);
		holder_text(members_find(r->m, i, cells[i].attachment), cells[i].attachment);
		putchar('\n');
	}
}

static void permits_json(const struct resources *r, const struct permits_row *row, uint64_t total,
			 int64_t available, const struct phd_permit_cell *cells, uint32_t count)
{
	const char *separator = "";

	printf("{\"kind\": \"permits\", \"offset\": %" PRIu64 ", \"names\": [", row->off);
	for (size_t i = 0; i < row->name_count; i++) {
		printf("%s", i ? ", " : "");
		json_print(r->names[row->name_first + i].name);
	}
	printf("], \"total\": %" PRIu64 ", \"available\": %" PRId64 ", \"holders\": [", total, available);
	for (uint32_t i = 0; i < count; i++) {
		if (!cells[i].balance)
			continue;
		printf("%s{", separator);
		holder_json(members_find(r->m, i, cells[i].attachment), i, cells[i].attachment);
		printf(", \"balance\": %" PRId64 "}", cells[i].balance);
		separator = ", ";
	}
	printf("]}\n");
}

static void permits_print(struct resources *r)
{
	struct phd_permit_cell *cells = calloc(r->h->super.member_count, sizeof *cells);

	if (!cells)
		fail("out of memory");
	if (!r->json)
		printf("permits:%s\n", r->permits_count ? "" : " none");
	for (size_t i = 0; i < r->permits_count; i++) {
		const struct permits_row *row = &r->permits[i];
		uint32_t count = cells_read(r, row, cells);
		struct phd_permits head;
		uint64_t available;

		heap_file_read(r->h, row->off, &head, sizeof head);
		available = head.total;
		for (uint32_t k = 0; k < count; k++)
			available -= (uint64_t)cells[k].balance;
		(r->json ? permits_json : permits_text)(r, row, head.total, (int64_t)available, cells, count);
	}
	free(cells);
}

bool resources_print(const struct heap_file *h, const struct members *m, bool json)
{
	struct resources r = {.h = h, .m = m, .json = json};

	type_names_read(&r);
	holds_print(&r);
	permits_find(&r);
	names_read(&r);
	permits_print(&r);
	free(r.type_names);
	free(r.permits);
	free(r.names);
	return !r.damaged;
}
