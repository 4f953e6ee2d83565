/* SPDX-License-Identifier: MIT
 *
 * types.c: see types.h.
 */
#include "types.h"

#include <errno.h>

#include "defer.h"
#include "error.h"
#include "tx.h"

#define CHAIN_MAX (1u << 17)

static const struct phd_type *row_at(const struct pheap *h, uint64_t off)
{
	const struct phd_type *row;
	uint64_t end = ph_chunk_off(h, ph_chunk_count(h));

	if (off % 8 || off < h->data_off || off >= end || end - off < sizeof(*row))
		return NULL;
	row = (const struct phd_type *)(const void *)(h->map + off);
	return row->ptr_count <= (end - off - sizeof(*row)) / 4 ? row : NULL;
}

static int row_find(const struct pheap *h, uint32_t number, const struct phd_type **ret)
{
	uint64_t off = __atomic_load_n(&h->head->types_off, __ATOMIC_ACQUIRE);

	*ret = NULL;
	for (uint32_t i = 0; off; i++) {
		const struct phd_type *row = row_at(h, off);

		if (!row || i == CHAIN_MAX)
			return ph_error(NULL, PHEAP_ECORRUPT,
					"the table of types is damaged; run pheap-fsck on the file");
		if (row->number == number) {
			*ret = row;
			return 0;
		}
		off = row->next_off;
	}
	return 0;
}

static int type_check(const struct pheap_type *t)
{
	if (t->number == 0 || t->number > PHD_TYPE_USER_MAX || t->size == 0 || !t->name || !*t->name ||
	    strnlen(t->name, PHD_NAME_SIZE) == PHD_NAME_SIZE || t->align == 0 ||
	    (t->align & (t->align - 1)) || (t->ptr_count && !t->ptr_offs) || t->ptr_count > t->size / 8)
		return ph_error(
			NULL, -EINVAL,
			"type %u: number 1 to 65535, a size, a power of two as alignment, a name of 1 to 63 bytes and at "
			"most size / 8 pointers are needed",
			t->number);
	for (uint64_t i = 0; i < t->ptr_count; i++)
		if (t->ptr_offs[i] % 8 || t->size < 8 || t->ptr_offs[i] > t->size - 8)
			return ph_error(NULL, -EINVAL, "type %u (%s): no pointer fits at offset %u",
					t->number, t->name, t->ptr_offs[i]);
	return 0;
}

static int row_compare(const struct phd_type *row, const struct pheap_type *t)
{
	if (row->size == t->size && row->align == t->align &&
	    strncmp(row->name, t->name, PHD_NAME_SIZE) == 0 && row->ptr_count == t->ptr_count &&
	    (t->ptr_count == 0 || memcmp(row->ptr_offs, t->ptr_offs, t->ptr_count * 4) == 0))
		return 0;
	return ph_error(
		NULL, PHEAP_ELAYOUT,
		"type %u is %.63s with %llu bytes in the file, %s with %llu bytes (or other fields) in this program; "
		"open it with the program that made it, or convert it",
		t->number, row->name, (unsigned long long)row->size, t->name, (unsigned long long)t->size);
}

static int row_add(pheap_tx *tx, const struct pheap_type *t, uint64_t *next_off)
{
	struct phd_type row = {.next_off = *next_off,
			       .size = t->size,
			       .number = t->number,
			       .align = t->align,
			       .ptr_count = (uint32_t)t->ptr_count};
	uint64_t off, room;
	int rc = ph_block_alloc(tx, sizeof(row) + t->ptr_count * 4, 8, PHD_TYPE_TYPE, &off, &room);

	if (rc)
		return ph_tx_fail(tx, rc, NULL);
	memcpy(row.name, t->name, strlen(t->name));
	ph_zero(tx->h->map + off, room);
	ph_copy(tx->h->map + off, &row, sizeof(row));
	if (t->ptr_count)
		ph_copy(tx->h->map + off + sizeof(row), t->ptr_offs, t->ptr_count * 4);
	*next_off = off;
	return 0;
}

struct missing {
	const struct pheap_type *types;
	uint64_t count;
};

static int rows_add(pheap_tx *tx, void *arg)
{
	struct missing *m = arg;
	struct pheap *h = tx->h;
	uint64_t next_off = h->head->types_off;
	int rc = 0;

	for (uint64_t i = 0; i < m->count && rc == 0; i++) {
		const struct phd_type *row;

		rc = row_find(h, m->types[i].number, &row);
		if (rc == 0)
			rc = row ? row_compare(row, &m->types[i]) : row_add(tx, &m->types[i], &next_off);
	}
	if (rc == 0 && next_off != h->head->types_off)
		rc = ph_defer_publish(tx, h->super.head_off + offsetof(struct phd_head, types_off), next_off);
	return rc;
}

int ph_types_register(struct pheap *h, const struct pheap_type *types, uint64_t count)
{
	struct missing m = {types, count};
	bool missing = false;

	if (count && !types)
		return ph_error(NULL, -EINVAL, "type_count is %llu and types is NULL",
				(unsigned long long)count);
	for (uint64_t i = 0; i < count; i++) {
		const struct phd_type *row;
		int rc = type_check(&types[i]);

		for (uint64_t k = 0; k < i && rc == 0; k++)
			if (types[k].number == types[i].number)
				rc = ph_error(NULL, -EINVAL, "type %u is given twice", types[i].number);
		if (rc == 0)
			rc = row_find(h, types[i].number, &row);
		if (rc == 0 && row)
			rc = row_compare(row, &types[i]);
		if (rc)
			return rc;
		missing |= row == NULL;
	}
	/* A reader can not add rows; what is missing it will not meet either. */
	if (!missing || h->read_only)
		return 0;
	return pheap_run(h, 0, rows_add, &m);
}
