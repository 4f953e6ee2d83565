/* SPDX-License-Identifier: MIT
 *
 * oracle_check.c: models in memory, a heap against a model, a raw image against the format.
 */
#include "oracle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"

uint64_t oracle_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static void block_copy(struct oracle_block *dst, const struct oracle_block *src)
{
	uint8_t *bytes = dst->bytes;

	*dst = *src;
	dst->bytes = bytes;
	if (!src->off)
		return;
	dst->bytes = realloc(bytes, src->size ? src->size : 1);
	if (!dst->bytes)
		abort();
	memcpy(dst->bytes, src->bytes, src->size);
}

/* dst must be zeroed or a model. */
void oracle_model_copy(struct oracle_model *dst, const struct oracle_model *src)
{
	dst->main_off = src->main_off;
	dst->main_usable = src->main_usable;
	dst->main = src->main;
	dst->extra_off = src->extra_off;
	memcpy(dst->names, src->names, sizeof(dst->names));
	memcpy(dst->permits, src->permits, sizeof(dst->permits));
	for (unsigned i = 0; i < ORACLE_HELD; i++) {
		block_copy(&dst->held[i].block, &src->held[i].block);
		dst->held[i].mine = src->held[i].mine;
		dst->held[i].theirs = src->held[i].theirs;
	}
	for (unsigned i = 0; i < ORACLE_SLOTS; i++)
		block_copy(&dst->slots[i], &src->slots[i]);
	for (unsigned i = 0; i < ORACLE_RESERVED; i++)
		block_copy(&dst->reserved[i], &src->reserved[i]);
}

void oracle_model_free(struct oracle_model *m)
{
	for (unsigned i = 0; i < ORACLE_SLOTS; i++)
		free(m->slots[i].bytes);
	for (unsigned i = 0; i < ORACLE_RESERVED; i++)
		free(m->reserved[i].bytes);
	for (unsigned i = 0; i < ORACLE_HELD; i++)
		free(m->held[i].block.bytes);
	memset(m, 0, sizeof(*m));
}

static int __attribute__((format(printf, 3, 4))) bad(char *why, size_t n, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(why, n, format, ap);
	va_end(ap);
	return -1;
}

static size_t differ_at(const uint8_t *a, const uint8_t *b, size_t n)
{
	size_t i = 0;

	while (i < n && a[i] == b[i])
		i++;
	return i;
}

static int check_block(pheap *h, const struct oracle_block *b, const char *kind, unsigned slot, char *why,
		       size_t n)
{
	const uint8_t *p = pheap_at(h, b->off);
	size_t at;

	if (pheap_usable_size(h, p) != b->usable)
		return bad(why, n, "%s %u: block %#llx has usable size %zu, expected %zu", kind, slot,
			   (unsigned long long)b->off, pheap_usable_size(h, p), b->usable);
	if (pheap_type_of(h, p) != b->type)
		return bad(why, n, "%s %u: type %u, expected %u", kind, slot, pheap_type_of(h, p), b->type);
	if (memcmp(p, b->bytes, b->size) == 0)
		return 0;
	at = differ_at(p, b->bytes, b->size);
	return bad(why, n, "%s %u: block %#llx of %zu bytes differs at byte %zu: %02x, expected %02x", kind,
		   slot, (unsigned long long)b->off, b->size, at, p[at], b->bytes[at]);
}

static bool model_has(const struct oracle_model *m, uint32_t whose, uint64_t off)
{
	for (unsigned i = 0; i < ORACLE_SLOTS; i++)
		if (m->slots[i].off == off)
			return true;
	for (unsigned i = 0; i < ORACLE_HELD; i++)
		if (m->held[i].block.off == off && oracle_held_count(&m->held[i], whose))
			return true;
	return off == m->main_off || off == m->extra_off;
}

static int check_walk(pheap *h, const struct oracle_model *m, uint32_t whose, char *why, size_t n)
{
	unsigned count = 0, want = m->extra_off ? 2 : m->main_off != 0;
	uint64_t last = 0;

	for (unsigned i = 0; i < ORACLE_SLOTS; i++)
		want += m->slots[i].off != 0;
	for (unsigned i = 0; i < ORACLE_HELD; i++)
		want += oracle_held_count(&m->held[i], whose) != 0;
	for (const void *p = NULL; (p = pheap_next(h, UINT32_MAX, p));) {
		uint64_t off = pheap_offset(h, p);

		if (off <= last)
			return bad(why, n, "walk: block %#llx comes after %#llx", (unsigned long long)off,
				   (unsigned long long)last);
		last = off;
		if (pheap_type_of(h, p) > PHD_TYPE_USER_MAX)
			continue;
		if (!model_has(m, whose, off))
			return bad(why, n,
				   "leak: block %#llx (size %zu, type %u) is allocated, no one holds it",
				   (unsigned long long)off, pheap_usable_size(h, p), pheap_type_of(h, p));
		count++;
	}
	if (count != want)
		return bad(why, n, "walk finds %u blocks, expected %u", count, want);
	return 0;
}

static int check_main(const struct oracle_main *found, const struct oracle_model *m, char *why, size_t n)
{
	const uint64_t *a = (const void *)found, *b = (const void *)&m->main;

	for (size_t i = 0; i < sizeof(m->main) / 8; i++)
		if (a[i] != b[i])
			return bad(why, n, "main object word %zu: %#llx, expected %#llx", i,
				   (unsigned long long)a[i], (unsigned long long)b[i]);
	return 0;
}

static int check_permits(pheap *h, const struct oracle_model *m, unsigned i, uint32_t whose, char *why,
			 size_t n)
{
	const struct oracle_permits *p = &m->permits[i];
	char name[3] = {ORACLE_PERMITS_NAME[0], (char)('0' + i), 0};
	int64_t found = 0, want = p->total - (whose & ORACLE_MINE ? p->mine : 0) -
				  (whose & ORACLE_THEIRS ? p->theirs : 0);
	uint64_t off = pheap_offset(h, pheap_find(h, name));

	if (off != p->off)
		return bad(why, n, "semaphore \"%s\" is %#llx, expected %#llx", name, (unsigned long long)off,
			   (unsigned long long)p->off);
	if (!off)
		return 0;
	if (pheap_permits_available(h, pheap_at(h, off), &found))
		return bad(why, n, "semaphore \"%s\": %s", name, pheap_error_detail(h));
	if (found != want)
		return bad(why, n, "semaphore \"%s\": %lld permits are free, expected %lld", name,
			   (long long)found, (long long)want);
	return 0;
}

static int check_members(pheap *h, const struct oracle_model *m, uint32_t whose, char *why, size_t n)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < ORACLE_HELD; i++)
		if (oracle_held_count(&m->held[i], whose))
			rc = check_block(h, &m->held[i].block, "held", i, why, n);
	for (unsigned i = 0; !rc && i < ORACLE_PERMITS; i++)
		rc = check_permits(h, m, i, whose, why, n);
	return rc;
}

unsigned oracle_records(const struct oracle_model *m, uint32_t whose)
{
	unsigned count = 0;

	for (unsigned i = 0; i < ORACLE_HELD; i++) {
		count += oracle_held_count(&m->held[i], whose & ORACLE_MINE) != 0;
		count += oracle_held_count(&m->held[i], whose & ORACLE_THEIRS) != 0;
	}
	return count;
}

int oracle_check(pheap *h, const struct oracle_model *m, uint32_t whose, char *why, size_t n)
{
	const void *found = pheap_find(h, "oracle");
	int rc;

	if (pheap_offset(h, found) != m->main_off)
		return bad(why, n, "root \"oracle\" is %#llx, expected %#llx",
			   (unsigned long long)pheap_offset(h, found), (unsigned long long)m->main_off);
	rc = m->main_off ? check_main(found, m, why, n) : 0;
	for (unsigned i = 0; !rc && i < ORACLE_SLOTS; i++)
		if (m->slots[i].off)
			rc = check_block(h, &m->slots[i], "slot", i, why, n);
	for (unsigned i = 0; !rc && i < ORACLE_NAMES; i++) {
		char name[3] = {'n', (char)('0' + i), 0};
		uint64_t off = pheap_offset(h, pheap_find(h, name));

		if (off != m->names[i])
			rc = bad(why, n, "root \"%s\" is %#llx, expected %#llx", name,
				 (unsigned long long)off, (unsigned long long)m->names[i]);
	}
	rc = rc ? rc : check_members(h, m, whose, why, n);
	return rc ? rc : check_walk(h, m, whose, why, n);
}

/* Raw images. Written against FORMAT.md, with nothing of the library but the struct offsets. */
struct raw {
	const char *image;
	uint64_t size;
	const struct phd_super *super;
	const struct phd_head *head;
	const uint64_t *desc;
	uint64_t
		blocks[PHD_TYPE_PERMITS - PHD_TYPE_USER_MAX + 1]; /* allocated ones of the heap's own types */
	char *why;
	size_t n;
};

static int raw_lanes(const struct raw *r)
{
	for (uint32_t i = 0; i < r->super->lane_count; i++) {
		const struct phd_lane *lane =
			(const void *)(r->image + r->super->lane_off + i * sizeof(struct phd_lane));

		if (PHD_STATE_STEP(lane->state) != PHD_STEP_IDLE)
			return bad(r->why, r->n, "lane %u is left in step %u", i,
				   PHD_STATE_STEP(lane->state));
	}
	return 0;
}

static void raw_count(struct raw *r, uint32_t type, uint64_t n)
{
	if (type > PHD_TYPE_USER_MAX && type <= PHD_TYPE_PERMITS)
		r->blocks[type - PHD_TYPE_USER_MAX] += n;
}

static int raw_bits(struct raw *r, uint64_t head, uint64_t desc)
{
	const uint64_t *bits = (const void *)(r->image + r->super->bits_off + head * sizeof(struct phd_bits));
	uint64_t count = PHD_DESC_RUN_COUNT(desc), size = PHD_DESC_BLOCK_SIZE(desc);
	uint64_t blocks = size ? count * PHD_CHUNK_SIZE / size : 0;

	if (count < 1 || count > PHD_RUN_COUNT_MAX || size < PHD_BLOCK_SIZE_MIN || size > PHD_BLOCK_SIZE_MAX)
		return bad(r->why, r->n, "chunk %llu: run of %llu chunks, blocks of %llu",
			   (unsigned long long)head, (unsigned long long)count, (unsigned long long)size);
	for (uint64_t i = blocks; i < count * 256; i++)
		if (bits[i / 64] >> i % 64 & 1)
			return bad(r->why, r->n, "chunk %llu: bit %llu past the last block",
				   (unsigned long long)head, (unsigned long long)i);
	for (uint64_t i = 0; i < count * 4; i++)
		raw_count(r, PHD_DESC_TYPE(desc), (uint64_t)__builtin_popcountll(bits[i]));
	return 0;
}

static int raw_row(const struct raw *r, uint64_t head, uint64_t count)
{
	if (count < 1 || head + count > r->head->chunk_count)
		return bad(r->why, r->n, "chunk %llu: %llu chunks end beyond %llu", (unsigned long long)head,
			   (unsigned long long)count, (unsigned long long)r->head->chunk_count);
	for (uint64_t i = 1; i < count; i++)
		if (r->desc[head + i] != PHD_DESC_MAKE_CONT(PHD_DESC_TYPE(r->desc[head]), i))
			return bad(r->why, r->n, "chunk %llu: %#llx is not a continuation of %llu",
				   (unsigned long long)(head + i), (unsigned long long)r->desc[head + i],
				   (unsigned long long)head);
	return 0;
}

static int raw_chunks(struct raw *r)
{
	uint64_t count = 1;
	int rc = 0;

	for (uint64_t c = 0; !rc && c < r->head->chunk_count; c += count) {
		uint64_t d = r->desc[c];

		count = 1;
		switch (PHD_DESC_KIND(d)) {
		case PHD_DESC_FREE:
			if (!PHD_DESC_IS_FREE(d))
				rc = bad(r->why, r->n, "chunk %llu: free with %#llx", (unsigned long long)c,
					 (unsigned long long)d);
			break;
		case PHD_DESC_RUN:
			count = PHD_DESC_RUN_COUNT(d);
			rc = raw_bits(r, c, d);
			rc = rc ? rc : raw_row(r, c, count);
			break;
		case PHD_DESC_EXTENT:
			count = PHD_DESC_COUNT(d);
			rc = raw_row(r, c, count);
			if (PHD_DESC_TYPE(d) != PHD_TYPE_JOURNAL)
				raw_count(r, PHD_DESC_TYPE(d), 1);
			break;
		default:
			rc = bad(r->why, r->n, "chunk %llu: continuation without a head",
				 (unsigned long long)c);
		}
	}
	return rc;
}

static bool raw_allocated(const struct raw *r, uint64_t off, uint32_t type)
{
	uint64_t c = (off - r->super->data_off) / PHD_CHUNK_SIZE, d, i, size;
	const uint64_t *bits;

	if (off < r->super->data_off || c >= r->head->chunk_count)
		return false;
	d = r->desc[c];
	if (PHD_DESC_KIND(d) == PHD_DESC_CONT) {
		c -= PHD_DESC_COUNT(d);
		d = r->desc[c];
	}
	if (type ? PHD_DESC_TYPE(d) != type : PHD_DESC_TYPE(d) > PHD_TYPE_USER_MAX)
		return false;
	off -= r->super->data_off + c * PHD_CHUNK_SIZE;
	if (PHD_DESC_KIND(d) != PHD_DESC_RUN)
		return PHD_DESC_KIND(d) == PHD_DESC_EXTENT && off == 0;
	size = PHD_DESC_BLOCK_SIZE(d);
	i = size ? off / size : 0;
	bits = (const void *)(r->image + r->super->bits_off + c * sizeof(struct phd_bits));
	return size && off % size == 0 && (bits[i / 64] >> i % 64 & 1);
}

/* Entries of lists are blocks of their type; every such block is in one list, once. */
static int raw_list(struct raw *r, const char *what, unsigned bucket, uint64_t off, uint32_t type,
		    int (*entry)(struct raw *r, unsigned bucket, uint64_t off))
{
	int rc = 0;

	for (unsigned steps = 0; off && !rc; steps++) {
		if (!raw_allocated(r, off, type) || steps > 4000)
			return bad(r->why, r->n, "list %u of %s: entry at %#llx", bucket, what,
				   (unsigned long long)off);
		r->blocks[type - PHD_TYPE_USER_MAX]--;
		rc = entry ? entry(r, bucket, off) : 0;
		off = *(const uint64_t *)(const void *)(r->image + off);
	}
	return rc;
}

static int raw_hold(struct raw *r, unsigned bucket, uint64_t off)
{
	const struct phd_hold *e = (const void *)(r->image + off), *other;

	if (PHD_HOLD_BUCKET(e->object_off) != bucket || e->count == 0 || e->slot >= r->super->member_count ||
	    !raw_allocated(r, e->object_off, 0))
		return bad(r->why, r->n, "record of a hold at %#llx: %u times %#llx by slot %u",
			   (unsigned long long)off, e->count, (unsigned long long)e->object_off, e->slot);
	for (uint64_t next = e->next_off; next; next = other->next_off) {
		other = (const void *)(r->image + next);
		if (other->object_off == e->object_off && other->attachment == e->attachment)
			return bad(r->why, r->n, "two records of one holder for %#llx",
				   (unsigned long long)e->object_off);
	}
	return 0;
}

static int raw_lists(struct raw *r, unsigned records)
{
	uint64_t *holds = &r->blocks[PHD_TYPE_HOLD - PHD_TYPE_USER_MAX], found = *holds;
	int rc = 0;

	for (unsigned b = 0; !rc && b < PHD_ROOT_BUCKETS; b++)
		rc = raw_list(r, "names", b, r->head->roots[b], PHD_TYPE_ROOT, NULL);
	for (unsigned b = 0; !rc && b < PHD_HOLD_BUCKETS; b++)
		rc = raw_list(r, "holds", b, r->head->holds[b], PHD_TYPE_HOLD, raw_hold);
	if (rc)
		return rc;
	if (r->blocks[PHD_TYPE_ROOT - PHD_TYPE_USER_MAX] || *holds)
		return bad(r->why, r->n,
			   "%lld names and %lld records of holds are allocated, but in no list, or in two",
			   (long long)r->blocks[PHD_TYPE_ROOT - PHD_TYPE_USER_MAX], (long long)*holds);
	if (found != records)
		return bad(r->why, r->n, "%llu records of holds, expected %u", (unsigned long long)found,
			   records);
	return 0;
}

/* Semaphores that no name leads to have leaked. */
static int raw_permits(const struct raw *r)
{
	uint64_t named = 0;

	for (unsigned b = 0; b < PHD_ROOT_BUCKETS; b++)
		for (uint64_t off = r->head->roots[b]; off;) {
			const struct phd_root *e = (const void *)(r->image + off);

			named += e->off && raw_allocated(r, e->off, PHD_TYPE_PERMITS);
			off = e->next_off;
		}
	if (named == r->blocks[PHD_TYPE_PERMITS - PHD_TYPE_USER_MAX])
		return 0;
	return bad(r->why, r->n, "%llu semaphores are allocated, %llu have names",
		   (unsigned long long)r->blocks[PHD_TYPE_PERMITS - PHD_TYPE_USER_MAX],
		   (unsigned long long)named);
}

int oracle_structure(const char *image, uint64_t size, unsigned records, char *why, size_t why_size)
{
	struct raw r = {
		.image = image, .size = size, .super = (const void *)image, .why = why, .n = why_size};
	int rc;

	r.head = (const void *)(image + r.super->head_off);
	r.desc = (const void *)(image + r.super->desc_off);
	if (r.super->magic != PHD_SUPER_MAGIC || r.head->magic != PHD_HEAD_MAGIC)
		return bad(why, why_size, "superblock or heap head lost its magic");
	if (r.head->chunk_count > r.super->chunk_max ||
	    r.super->data_off + r.head->chunk_count * PHD_CHUNK_SIZE > size)
		return bad(why, why_size, "chunk_count %llu is beyond the file",
			   (unsigned long long)r.head->chunk_count);
	rc = raw_lanes(&r);
	rc = rc ? rc : raw_chunks(&r);
	rc = rc ? rc : raw_lists(&r, records);
	return rc ? rc : raw_permits(&r);
}
