/* SPDX-License-Identifier: MIT
 *
 * oracle_steps.c: single calls drawn from a seed, made on a heap and on the model at once.
 *
 * Why the model is changed after each call and not derived from the heap: a heap that is wrong must not
 * teach the model.
 */
#include "oracle_steps.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"

#define SCRATCH_SIZE 65536u
static uint8_t scratch[SCRATCH_SIZE];

int oracle_wrong(struct oracle *o, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(o->why, sizeof(o->why), format, ap);
	va_end(ap);
	return -1;
}

void oracle_trace(struct oracle *o, const char *format, ...)
{
	size_t room = sizeof(o->trace) - o->trace_size;
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(o->trace + o->trace_size, room, format, ap);
	va_end(ap);
	o->trace_size += n > 0 && (size_t)n < room ? (size_t)n : 0;
	o->trace[o->trace_size] = 0;
}

void oracle_enter(struct oracle *o, enum oracle_op op)
{
	oracle_trace(o, " %s", oracle_op_names[op]);
	o->op = op;
	o->call_counts[op]++;
}

const uint8_t *oracle_noise(struct oracle *o, size_t n)
{
	uint64_t x = oracle_random(&o->rng);

	for (size_t i = 0; i < n; i += 8) {
		memcpy(scratch + i, &x, 8);
		x = x * 6364136223846793005ull + 1442695040888963407ull;
	}
	return scratch;
}

void oracle_user_store(struct oracle *o, void *dst, const void *src, size_t n)
{
	enum oracle_op op = o->op;

	oracle_enter(o, ORACLE_OP_USER_STORE);
	if (o->store)
		o->store(dst, src, n);
	else
		memcpy(dst, src, n);
	o->op = op;
}

/* The call failed: lack of space dooms the transaction and is an answer; anything else is not. */
int oracle_failed(struct oracle *o, const char *call)
{
	int rc = pheap_error(o->tx);

	if (rc == -ENOSPC || rc == -E2BIG) {
		o->doomed = rc;
		return 0;
	}
	return oracle_wrong(o, "%s failed: %d (%s; %s)", call, rc, pheap_strerror(rc),
			    pheap_error_detail(o->h));
}

/* A range that a transaction may change: in the main object's words or in a block. */
struct target {
	const uint8_t *p;
	uint8_t *model;
	size_t n;
	struct oracle_block *block;
};

static struct target words_target(struct oracle *o)
{
	const struct oracle_main *main = pheap_at(o->h, o->working.main_off);
	size_t size = sizeof(main->words), at = oracle_below(&o->rng, size);
	size_t n = 1 + oracle_below(&o->rng, size - at < 40 ? size - at : 40);

	return (struct target){(const uint8_t *)main->words + at, (uint8_t *)o->working.main.words + at, n,
			       NULL};
}

struct oracle_block *oracle_some_block(struct oracle *o)
{
	unsigned start = (unsigned)oracle_below(&o->rng, ORACLE_SLOTS);

	for (unsigned i = 0; i < ORACLE_SLOTS; i++) {
		struct oracle_block *b = &o->working.slots[(start + i) % ORACLE_SLOTS];

		if (b->off)
			return b;
	}
	return NULL;
}

static struct target block_target(struct oracle *o, struct oracle_block *b)
{
	size_t at = oracle_below(&o->rng, b->size), left = b->size - at, n;

	switch (oracle_below(&o->rng, 6)) {
	case 0:
		at = 0;
		n = b->size;
		break;
	case 1:
		n = left;
		break;
	default:
		n = 1 + oracle_below(&o->rng, left < 64 ? left : 64);
	}
	return (struct target){(const uint8_t *)pheap_at(o->h, b->off) + at, b->bytes + at, n, b};
}

static struct target some_target(struct oracle *o)
{
	struct oracle_block *b = oracle_some_block(o);

	return !b || oracle_below(&o->rng, 2) ? words_target(o) : block_target(o, b);
}

/* --- changing memory --- */

static int change_range(struct oracle *o, struct target t, unsigned how)
{
	const uint8_t *bytes = oracle_noise(o, t.n);
	int rc = 0;
	void *p;

	oracle_trace(o, " [%#llx+%zu]", (unsigned long long)pheap_offset(o->h, t.p), t.n);
	switch (how) {
	case 0:
		oracle_enter(o, ORACLE_OP_MODIFY);
		p = pheap_modify(o->tx, t.p, t.n);
		if (!p)
			return oracle_failed(o, "modify");
		if (p != t.p)
			return oracle_wrong(o, "modify returned another address");
		oracle_user_store(o, p, bytes, t.n);
		break;
	case 1:
		oracle_enter(o, ORACLE_OP_STORE);
		rc = pheap_store(o->tx, t.p, bytes, t.n);
		break;
	default:
		oracle_enter(o, ORACLE_OP_DEFER);
		rc = pheap_defer(o->tx, t.p, bytes, t.n);
		if (t.block)
			t.block->deferred = true;
	}
	if (rc)
		return oracle_failed(o, "store or defer");
	memcpy(t.model, bytes, t.n);
	return 0;
}

int oracle_step_change(struct oracle *o)
{
	struct target t = some_target(o); /* drawn first: the order of arguments is the compiler's */

	return change_range(o, t, (unsigned)oracle_below(&o->rng, 3));
}

int oracle_step_defer_u64(struct oracle *o)
{
	size_t i = oracle_below(&o->rng, ORACLE_WORDS);
	const struct oracle_main *main = pheap_at(o->h, o->working.main_off);
	uint64_t value = oracle_random(&o->rng);

	oracle_trace(o, " [word %zu]", i);
	oracle_enter(o, ORACLE_OP_DEFER_U64);
	if (pheap_defer_u64(o->tx, &main->words[i], value))
		return oracle_failed(o, "defer_u64");
	o->working.main.words[i] = value;
	return 0;
}

/* Enough small ranges to leave the lane's own log. */
int oracle_step_storm(struct oracle *o)
{
	uint64_t count = 20 + oracle_below(&o->rng, 60);
	int rc = 0;

	for (uint64_t i = 0; !rc && !o->doomed && i < count; i++)
		rc = oracle_step_change(o);
	return rc;
}

/* By one of the four ways. */
int oracle_slot_word(struct oracle *o, unsigned slot, uint64_t off)
{
	const struct oracle_main *main = pheap_at(o->h, o->working.main_off);
	const uint64_t *word = &main->slot[slot];
	uint64_t *p;

	oracle_trace(o, " slot%u", slot);
	if (o->doomed)
		return 0;
	switch (oracle_below(&o->rng, 4)) {
	case 0:
		oracle_enter(o, ORACLE_OP_DEFER_U64);
		if (pheap_defer_u64(o->tx, word, off))
			return oracle_failed(o, "defer_u64");
		break;
	case 1:
		oracle_enter(o, ORACLE_OP_DEFER);
		if (pheap_defer(o->tx, word, &off, sizeof(off)))
			return oracle_failed(o, "defer");
		break;
	case 2:
		oracle_enter(o, ORACLE_OP_STORE);
		if (pheap_store(o->tx, word, &off, sizeof(off)))
			return oracle_failed(o, "store");
		break;
	default:
		oracle_enter(o, ORACLE_OP_MODIFY);
		p = pheap_modify(o->tx, word, sizeof(*word));
		if (!p)
			return oracle_failed(o, "modify");
		oracle_user_store(o, p, &off, sizeof(off));
	}
	o->working.main.slot[slot] = off;
	return 0;
}

/* --- allocation --- */

size_t oracle_size(struct oracle *o)
{
	size_t n;

	switch (oracle_below(&o->rng, 10)) {
	case 0:
		n = 16385 + oracle_below(&o->rng, 12000);
		break;
	case 1:
		n = 4000 + oracle_below(&o->rng, 5000);
		break;
	case 2:
	case 3:
		n = 200 + oracle_below(&o->rng, 2000);
		break;
	default:
		n = 1 + oracle_below(&o->rng, 128);
	}
	if (n < o->block_size_min && oracle_below(&o->rng, 2))
		n = o->block_size_min + oracle_below(&o->rng, 8000);
	return n < o->block_size_max ? n : o->block_size_max;
}

static bool overlap(uint64_t a, size_t n, uint64_t b, size_t m)
{
	return a < b + m && b < a + n;
}

static int new_block_is_free(struct oracle *o, uint64_t off, size_t usable)
{
	const struct oracle_model *const views[2] = {&o->working, &o->committed};

	for (unsigned v = 0; v < 2; v++) {
		if (overlap(off, usable, views[v]->main_off, views[v]->main_usable))
			return oracle_wrong(o, "new block %#llx covers the main object",
					    (unsigned long long)off);
		for (unsigned i = 0; i < ORACLE_SLOTS + ORACLE_RESERVED + ORACLE_HELD; i++) {
			const struct oracle_block *b =
				i < ORACLE_SLOTS ? &views[v]->slots[i]
				: i < ORACLE_SLOTS + ORACLE_RESERVED
					? &views[v]->reserved[i - ORACLE_SLOTS]
					: &views[v]->held[i - ORACLE_SLOTS - ORACLE_RESERVED].block;

			if (b->off && overlap(off, usable, b->off, b->usable))
				return oracle_wrong(o, "double use: new block %#llx covers block %#llx",
						    (unsigned long long)off, (unsigned long long)b->off);
		}
	}
	return 0;
}

int oracle_note_block(struct oracle *o, struct oracle_block *b, const void *p, size_t n, uint32_t type)
{
	uint64_t off = pheap_offset(o->h, p);
	size_t usable = pheap_usable_size(o->h, p);

	if (usable < n)
		return oracle_wrong(o, "block %#llx of %zu bytes has usable size %zu",
				    (unsigned long long)off, n, usable);
	if (new_block_is_free(o, off, usable))
		return -1;
	oracle_trace(o, "=%#llx+%zu", (unsigned long long)off, n);
	b->off = off;
	b->size = n;
	b->usable = usable;
	b->type = type;
	b->deferred = false;
	b->bytes = realloc(b->bytes, n);
	if (!b->bytes)
		abort();
	return 0;
}

static int make_block(struct oracle *o, size_t n, uint32_t type, void **ret, bool *ret_filled)
{
	*ret_filled = false;
	switch (oracle_below(&o->rng, 5)) {
	case 0:
		oracle_enter(o, ORACLE_OP_ZALLOC);
		*ret = pheap_zalloc(o->tx, n, type);
		for (size_t i = 0; *ret && i < n; i++)
			if (((uint8_t *)*ret)[i])
				return oracle_wrong(o, "zalloc: byte %zu of %zu is not zero", i, n);
		break;
	case 1:
		oracle_enter(o, ORACLE_OP_ALIGNED);
		*ret = pheap_alloc_aligned(o->tx, (size_t)16 << oracle_below(&o->rng, 9), n, type);
		break;
	case 2:
		oracle_enter(o, ORACLE_OP_DUP);
		*ret = pheap_dup(o->tx, oracle_noise(o, n), n, type);
		*ret_filled = true;
		break;
	default:
		oracle_enter(o, ORACLE_OP_ALLOC);
		*ret = pheap_alloc(o->tx, n, type);
	}
	return 0;
}

static int empty_slot(struct oracle *o)
{
	unsigned start = (unsigned)oracle_below(&o->rng, ORACLE_SLOTS);

	for (unsigned i = 0; i < ORACLE_SLOTS; i++)
		if (!o->working.slots[(start + i) % ORACLE_SLOTS].off)
			return (int)((start + i) % ORACLE_SLOTS);
	return -1;
}

int oracle_step_alloc(struct oracle *o)
{
	int slot = empty_slot(o);
	struct oracle_block *b;
	size_t n = oracle_size(o);
	uint32_t type = (uint32_t)oracle_below(&o->rng, 3);
	bool filled;
	void *p;

	if (slot < 0)
		return 0;
	b = &o->working.slots[slot];
	if (make_block(o, n, type, &p, &filled))
		return -1;
	if (!p)
		return oracle_failed(o, "alloc");
	if (oracle_note_block(o, b, p, n, type))
		return -1;
	if (!filled)
		oracle_user_store(o, p, oracle_noise(o, n), n);
	memcpy(b->bytes, scratch, n);
	if (memcmp(p, b->bytes, n))
		return oracle_wrong(o, "a fresh block does not hold what was stored to it");
	return oracle_slot_word(o, (unsigned)slot, b->off);
}

int oracle_step_realloc(struct oracle *o)
{
	struct oracle_block *b = oracle_some_block(o), next = {0};
	size_t n = oracle_size(o), keep;
	unsigned slot;
	uint64_t old;
	uint8_t *p;

	/* deferred bytes follow the old address: what a move does to them is not promised */
	if (!b || b->deferred)
		return 0;
	slot = (unsigned)(b - o->working.slots);
	keep = b->size < n ? b->size : n;
	oracle_trace(o, " %#llx+%zu", (unsigned long long)b->off, b->size);
	oracle_enter(o, ORACLE_OP_REALLOC);
	p = pheap_realloc(o->tx, pheap_at(o->h, b->off), n);
	if (!p)
		return oracle_failed(o, "realloc");
	if (memcmp(p, b->bytes, keep))
		return oracle_wrong(o, "realloc lost bytes");
	old = b->off;
	b->off = 0; /* so that the same place is not taken for double use */
	if (pheap_offset(o->h, p) != old) {
		if (oracle_note_block(o, &next, p, n, b->type))
			return -1;
		memcpy(next.bytes, b->bytes, keep);
		free(b->bytes);
		*b = next;
	} else {
		b->off = old;
		b->usable = pheap_usable_size(o->h, p);
		b->bytes = realloc(b->bytes, n);
		b->size = n;
	}
	oracle_user_store(o, p, oracle_noise(o, n), n); /* the whole result may be stored to */
	memcpy(b->bytes, scratch, n);
	for (unsigned i = 0; i < ORACLE_NAMES && b->off != old; i++)
		if (o->working.names[i] == old) {
			char name[3] = {'n', (char)('0' + i), 0};

			if (o->doomed || pheap_root_set(o->tx, name, p))
				return oracle_failed(o, "root_set");
			o->working.names[i] = b->off;
		}
	return oracle_slot_word(o, slot, b->off);
}

int oracle_unname(struct oracle *o, uint64_t off)
{
	for (unsigned i = 0; i < ORACLE_NAMES; i++)
		if (o->working.names[i] == off) {
			char name[3] = {'n', (char)('0' + i), 0};

			oracle_enter(o, ORACLE_OP_ROOT_SET);
			if (pheap_root_set(o->tx, name, NULL))
				return oracle_failed(o, "root_set");
			o->working.names[i] = 0;
		}
	return 0;
}

int oracle_step_free(struct oracle *o)
{
	struct oracle_block *b = oracle_some_block(o);
	unsigned slot;
	int rc;

	if (!b)
		return 0;
	slot = (unsigned)(b - o->working.slots);
	rc = oracle_unname(o, b->off);
	if (rc || o->doomed)
		return rc;
	oracle_trace(o, " %#llx", (unsigned long long)b->off);
	oracle_enter(o, ORACLE_OP_FREE);
	if (pheap_free(o->tx, pheap_at(o->h, b->off)))
		return oracle_failed(o, "free");
	b->off = 0;
	return oracle_slot_word(o, slot, 0);
}

/* --- names --- */

int oracle_step_root(struct oracle *o)
{
	unsigned i = (unsigned)oracle_below(&o->rng, ORACLE_NAMES);
	char name[3] = {'n', (char)('0' + i), 0};
	int slot = empty_slot(o);
	struct oracle_block *b = oracle_some_block(o);
	const void *p;

	if (o->working.names[i] || slot < 0 || oracle_below(&o->rng, 2)) {
		bool clear = !b || oracle_below(&o->rng, 3) == 0;

		oracle_enter(o, ORACLE_OP_ROOT_SET);
		if (pheap_root_set(o->tx, name, clear ? NULL : pheap_at(o->h, b->off)))
			return oracle_failed(o, "root_set");
		o->working.names[i] = clear ? 0 : b->off;
		return 0;
	}
	oracle_enter(o, ORACLE_OP_ROOT);
	p = pheap_root(o->tx, name, 16 + 8 * i, 3 + i);
	if (!p)
		return oracle_failed(o, "root");
	b = &o->working.slots[slot];
	if (oracle_note_block(o, b, p, 16 + 8 * i, 3 + i))
		return -1;
	memset(b->bytes, 0, b->size);
	if (memcmp(p, b->bytes, b->size))
		return oracle_wrong(o, "a new root is not zeroed");
	o->working.names[i] = b->off;
	return oracle_slot_word(o, (unsigned)slot, b->off);
}

/* --- reserved blocks --- */

int oracle_step_publish(struct oracle *o)
{
	int slot = empty_slot(o);
	struct oracle_block *r = NULL, *b;
	uint8_t *bytes;

	for (unsigned i = 0; i < ORACLE_RESERVED; i++)
		if (o->working.reserved[i].off)
			r = &o->working.reserved[i];
	if (slot < 0 || !r)
		return 0;
	oracle_enter(o, ORACLE_OP_PUBLISH);
	if (pheap_publish(o->tx, (void *)(uintptr_t)pheap_at(o->h, r->off)))
		return oracle_failed(o, "publish");
	b = &o->working.slots[slot];
	bytes = b->bytes;
	*b = *r;
	r->bytes = bytes; /* each keeps a buffer of its own */
	r->off = 0;
	/* A publication that was aborted before may have left other bytes: a reserved block is not under
	 * undo. */
	memcpy(b->bytes, pheap_at(o->h, b->off), b->size);
	return oracle_slot_word(o, (unsigned)slot, b->off);
}
