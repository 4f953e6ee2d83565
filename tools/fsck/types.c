/* SPDX-License-Identifier: MIT
 *
 * types.c: last part of pass 5: the type table, and the pointers that it declares.
 *
 * Needs:  f->desc, f->bits, f->seen.
 * Checks: the list of rows: links, rings, fields, each number once. With -f or -v, or when passes 1 to 5 found
 *         an error: each declared pointer field of each block that is large enough for its type is 0 or the
 *         start of an allocated block.
 * Gives:  a table that ends. Pointers are only reported: what they should be nobody knows.
 *
 * Only the first element of a block is looked at: how many an array has is not written down.
 */
#include <stdlib.h>
#include <string.h>

#include "fsck.h"

typedef unsigned long long ull;

#define WINDOW_SIZE 65536u

struct window {
	unsigned char *bytes;
	uint64_t off;
	size_t size;
};

struct type_row {
	uint64_t off, size; /* off 0: no such number */
	uint32_t ptr_count;
};

/* Reads forward through 64 KiB at a time: rows and blocks are walked in order of offset. */
static void window_read(struct fsck *f, struct window *w, uint64_t off, void *buf, size_t n)
{
	if (!w->bytes)
		w->bytes = memory_get(f, 1, WINDOW_SIZE, "a window");
	if (off < w->off || off + n > w->off + w->size) {
		w->off = off;
		w->size = WINDOW_SIZE;
		image_read(f, off, w->bytes, WINDOW_SIZE);
	}
	memcpy(buf, w->bytes + (off - w->off), n);
}

static uint32_t ptr_off_read(struct fsck *f, struct window *w, uint64_t row_off, uint32_t i)
{
	uint32_t ret;

	window_read(f, w, row_off + sizeof(struct phd_type) + 4ull * i, &ret, sizeof ret);
	return ret;
}

/* NULL, or what is wrong with a row that lies in block b. */
static const char *row_error(struct fsck *f, struct window *w, const struct phd_type *row,
			     const struct block *b)
{
	if (row->number > PHD_TYPE_USER_MAX)
		return "its number";
	if (!format_name_valid(row->name))
		return "its name";
	if (row->align & (row->align - 1))
		return "its alignment";
	if (row->ptr_count > (b->size - sizeof *row) / 4)
		return "its number of pointers";
	for (uint32_t i = 0; i < row->ptr_count; i++)
		if (row->size < 8 || ptr_off_read(f, w, b->off, i) > row->size - 8)
			return "a pointer's offset";
	return NULL;
}

/* False: the row is to leave the table. */
static bool row_check(struct fsck *f, struct window *w, const struct block *b, const struct phd_type *row,
		      struct type_row *rows)
{
	const char *error = row_error(f, w, row, b);

	if (error)
		return !problem(f, PR_TYPE_ROW, b->off, "row at 0x%llx: %s", (ull)b->off, error);
	if (rows[row->number].off)
		return !problem(f, PR_TYPE_DUPLICATE, b->off, "number %u at 0x%llx", row->number,
				(ull)b->off);
	rows[row->number] = (struct type_row){.off = b->off, .size = row->size, .ptr_count = row->ptr_count};
	f->type_count++;
	return true;
}

static void table_check(struct fsck *f, struct type_row *rows)
{
	uint64_t link = f->super.head_off + offsetof(struct phd_head, types_off),
		 off = image_read_word(f, link);
	struct window w = {0};

	while (off) {
		struct phd_type row;
		struct block b;

		if (!block_find(f, off, &b) || b.type != PHD_TYPE_TYPE || b.size < sizeof row) {
			if (problem(f, PR_TYPE_LINK, link, "it leads to 0x%llx", (ull)off))
				image_write_word(f, link, 0);
			break;
		}
		if (block_seen(f, &b)) {
			if (problem(f, PR_TYPE_CYCLE, link, "it leads to 0x%llx again", (ull)off))
				image_write_word(f, link, 0);
			break;
		}
		block_mark(f, &b);
		image_read(f, off, &row, sizeof row);
		if (row_check(f, &w, &b, &row, rows))
			link = off + offsetof(struct phd_type, next_off);
		else
			image_write_word(f, link, row.next_off);
		off = row.next_off;
	}
	free(w.bytes);
}

static void block_pointers(struct fsck *f, struct window windows[2], const struct block *b,
			   const struct type_row *row)
{
	/* fields that do not overlap: a longer list of them would only keep us busy */
	uint32_t n = row->ptr_count < row->size / 8 ? row->ptr_count : (uint32_t)(row->size / 8);

	for (uint32_t i = 0; i < n; i++) {
		uint32_t field = ptr_off_read(f, &windows[0], row->off, i);
		struct block target;
		uint64_t off;

		window_read(f, &windows[1], b->off + field, &off, sizeof off);
		f->pointer_count++;
		if (off && !block_find(f, off, &target))
			problem(f, PR_POINTER, b->off + field, "block 0x%llx of type %u, field at %u: 0x%llx",
				(ull)b->off, b->type, field, (ull)off);
	}
}

static void pointers_check(struct fsck *f, const struct type_row *rows)
{
	struct window windows[2] = {{0}};
	uint64_t chunk = 0, idx = 0;
	struct block b;

	while (block_next(f, &chunk, &idx, &b)) {
		pass_progress(f, chunk, f->chunk_count);
		if (b.type <= PHD_TYPE_USER_MAX && rows[b.type].ptr_count && rows[b.type].size <= b.size)
			block_pointers(f, windows, &b, &rows[b.type]);
	}
	free(windows[0].bytes);
	free(windows[1].bytes);
}

void types_check(struct fsck *f)
{
	struct type_row *rows = memory_get(f, PHD_TYPE_USER_MAX + 1, sizeof *rows, "the type table");

	table_check(f, rows);
	if (f->force || f->verbose || f->error_fixed || f->error_left) {
		pointers_check(f, rows);
		f->pointers_followed = f->type_count != 0;
	}
	free(rows);
}
