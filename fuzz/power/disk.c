/* SPDX-License-Identifier: MIT
 *
 * disk.c: see disk.h.
 */
#include "disk.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"
#include "layout.h"
#include "oracle.h"
#include "runtime.h"

#define PAGE_SECTORS (4096u / DISK_SECTOR)
#define SECTOR_WORDS (DISK_SECTOR / 8u)
#define LATEST UINT32_MAX

const char *const disk_pattern_names[DISK_PATTERNS + 2] = {
	"nothing", "all", "half", "few", "most", "times", "one", "all but one", "mask", "kill",
};

/* The callbacks have no argument of their own. */
static struct {
	struct memfile *file;
	struct disk *disk;
	uint8_t *stale;
} watched;

/* --- recording --- */

/* A call that never ends is told before it has filled the memory. */
#define EVENTS_MAX (6u << 20)

static void push(struct disk *d, const struct disk_event *e)
{
	if (d->count == EVENTS_MAX)
		raise(SIGALRM);
	if (d->count == d->room) {
		d->room = d->room ? d->room * 2 : 65536;
		d->events = realloc(d->events, d->room * sizeof(*d->events));
		if (!d->events)
			abort();
	}
	d->events[d->count++] = *e;
}

static void flush(struct disk *d)
{
	if (!d->pending_set)
		return;
	d->pending_set = false;
	memcpy(&d->pending.value, d->file->bytes + (uint64_t)d->pending.word * 8, 8);
	push(d, &d->pending);
}

static struct disk_event event(struct disk *d, enum disk_kind kind)
{
	struct disk_event e = {.kind = (uint8_t)kind};

	if (d->bounds)
		d->bounds(&e.bounds, &e.op);
	return e;
}

static void stored(uint64_t off)
{
	struct disk *d = watched.disk;

	if (off >= MEMFILE_CAPACITY)
		return;
	if (watched.stale)
		watched.stale[off / DISK_SECTOR] = 1;
	if (!d)
		return;
	flush(d);
	d->pending = event(d, DISK_STORE);
	d->pending.word = (uint32_t)(off / 8);
	d->pending_set = true;
}

/* K2 of runtime.h: no store leaves its word. */
static void on_store(void *addr, size_t n)
{
	(void)n;
	memfile_stored(watched.file, (uint64_t)((char *)addr - watched.file->bytes));
	stored((uint64_t)((char *)addr - watched.file->bytes));
}

static void on_written(struct memfile *f, uint64_t off, uint64_t n)
{
	struct disk *d = watched.disk;
	struct disk_event e;

	if (f != watched.file)
		return;
	if (n) {
		stored(off);
		return;
	}
	if (!d || off == MEMFILE_UNNAMED)
		return;
	flush(d);
	e = event(d, off & MEMFILE_SPACE ? DISK_SPACE : DISK_SIZE);
	e.value = off;
	if (off & MEMFILE_SPACE) {
		e.word = (uint32_t)((off & ~MEMFILE_SPACE) >> 1) * 512;
		e.value = off & 1;
	}
	push(d, &e);
}

static void range(struct memfile *f, enum disk_kind kind, uint64_t off, uint64_t n)
{
	struct disk *d = watched.disk;
	struct disk_event e;

	if (f != watched.file || !d)
		return;
	flush(d);
	e = event(d, kind);
	e.word = (uint32_t)(off / 8);
	e.value = n == MEMFILE_ALL || off + n > MEMFILE_CAPACITY ? DISK_WORDS : (off + n + 7) / 8;
	push(d, &e);
}

static void on_writing(struct memfile *f, uint64_t off, uint64_t n)
{
	range(f, DISK_WRITING, off, n);
}

static void on_synced(struct memfile *f, uint64_t off, uint64_t n)
{
	range(f, DISK_SYNCED, off, n);
}

void disk_watch(struct memfile *f, struct disk *d, uint8_t *stale)
{
	disk_unwatch();
	watched.file = f;
	watched.disk = d;
	watched.stale = stale;
	f->written = on_written;
	f->writing = on_writing;
	f->synced = on_synced;
	kr_base = (uintptr_t)f->bytes;
	kr_store = on_store;
	kr_size = MEMFILE_CAPACITY;
}

void disk_unwatch(void)
{
	kr_size = 0;
	if (watched.disk)
		flush(watched.disk);
	watched.disk = NULL;
	watched.stale = NULL;
}

/* --- replay --- */

static void *zeroed(size_t n)
{
	void *p = calloc(1, n);

	if (!p)
		abort();
	return p;
}

void disk_init(struct disk *d, struct memfile *file)
{
	memset(d, 0, sizeof(*d));
	d->file = file;
	d->now = zeroed(MEMFILE_CAPACITY);
	d->durable = zeroed(MEMFILE_CAPACITY);
	d->last = zeroed(DISK_WORDS * sizeof(*d->last));
	d->stale = zeroed(DISK_SECTORS);
}

void disk_free(struct disk *d)
{
	free(d->now);
	free(d->durable);
	free(d->last);
	free(d->stale);
	free(d->events);
}

static void forget(struct disk *d)
{
	d->count = d->at = 0;
	d->pending_set = false;
	d->writing = d->writing_end = 0;
	memset(d->last, 0, DISK_WORDS * sizeof(*d->last));
	memset(d->dirty_count, 0, sizeof(d->dirty_count));
	memset(d->stale, 1, DISK_SECTORS);
	memset(d->some_holes, 0, sizeof(d->some_holes));
}

void disk_reset(struct disk *d)
{
	forget(d);
	memcpy(d->now, d->file->bytes, MEMFILE_CAPACITY);
	memset(d->now + d->file->size, 0, MEMFILE_CAPACITY - d->file->size);
	memcpy(d->durable, d->now, MEMFILE_CAPACITY);
	d->now_size = d->durable_size = d->file->size;
	memcpy(d->now_holes, d->file->holes, MEMFILE_BLOCKS);
	memcpy(d->durable_holes, d->file->holes, MEMFILE_BLOCKS);
	d->file->fault = 0;
}

/* The state names the device, and memfiles are one each: to be the same file as before, it must not say. */
static void rehome(char *image)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		struct phd_state *state = (void *)(image + PHD_STATE_OFF(copy));

		if (state->magic != PHD_STATE_MAGIC ||
		    state->crc != ph_crc32c(0, state, offsetof(struct phd_state, crc)))
			continue;
		state->dev = 0;
		state->crc = ph_crc32c(0, state, offsetof(struct phd_state, crc));
	}
}

bool disk_clone(struct disk *d, const struct disk *from)
{
	for (unsigned copy = 0; copy < 2; copy++)
		if (from->dirty_count[PHD_STATE_OFF(copy) / DISK_SECTOR])
			return false;
	forget(d);
	memcpy(d->now, from->now, MEMFILE_CAPACITY);
	memcpy(d->durable, from->durable, MEMFILE_CAPACITY);
	memcpy(d->file->bytes, from->now, MEMFILE_CAPACITY);
	memcpy(d->last, from->last, DISK_WORDS * sizeof(*d->last));
	memcpy(d->dirty_count, from->dirty_count, sizeof(d->dirty_count));
	memcpy(d->now_holes, from->now_holes, MEMFILE_BLOCKS);
	memcpy(d->durable_holes, from->durable_holes, MEMFILE_BLOCKS);
	memcpy(d->some_holes, from->some_holes, MEMFILE_BLOCKS);
	memcpy(d->file->holes, from->now_holes, MEMFILE_BLOCKS);
	d->file->fault = 0;
	d->now_size = d->file->size = from->now_size;
	d->durable_size = from->durable_size;
	if (d->room < from->at) {
		d->room = from->at + 65536;
		d->events = realloc(d->events, d->room * sizeof(*d->events));
		if (!d->events)
			abort();
	}
	memcpy(d->events, from->events, from->at * sizeof(*d->events));
	d->count = d->at = from->at;
	rehome(d->now);
	rehome(d->durable);
	rehome(d->file->bytes);
	/* a call that was writing is over with the one who made it; what it left in the page cache is
	 * dirty */
	return true;
}

static void apply_store(struct disk *d, struct disk_event *e)
{
	char *p = d->now + (uint64_t)e->word * 8;

	if (memcmp(p, &e->value, 8) == 0)
		return;
	memcpy(p, &e->value, 8);
	e->prev = d->last[e->word];
	if (!e->prev)
		d->dirty_count[e->word / SECTOR_WORDS]++;
	d->last[e->word] = (uint32_t)(d->at + 1);
}

static void apply_synced(struct disk *d, const struct disk_event *e)
{
	uint64_t end = e->value, size = end * 8 > d->now_size ? d->now_size : (end * 8 + 4095) / 4096 * 4096;

	for (uint64_t s = e->word / SECTOR_WORDS; s * SECTOR_WORDS < end && s < DISK_SECTORS; s++) {
		uint64_t first = s * SECTOR_WORDS, last = first + SECTOR_WORDS;

		if (!d->dirty_count[s])
			continue;
		d->stale[s] = 1;
		for (uint64_t w = first < e->word ? e->word : first; w < last && w < end; w++)
			if (d->last[w]) {
				memcpy(d->durable + w * 8, d->now + w * 8, 8);
				d->last[w] = 0;
				d->dirty_count[s]--;
			}
	}
	for (uint64_t i = e->word / 512; i * 512 < end && i < MEMFILE_BLOCKS; i++) {
		d->durable_holes[i] = d->now_holes[i];
		d->some_holes[i] = 0;
	}
	/* a sync makes durable what is needed to find the bytes again */
	if (size > d->durable_size)
		d->durable_size = size > d->now_size ? d->now_size : size;
	d->writing = d->writing_end = 0;
}

void disk_apply(struct disk *d)
{
	struct disk_event *e = &d->events[d->at];

	switch (e->kind) {
	case DISK_STORE:
		apply_store(d, e);
		break;
	case DISK_SIZE:
		d->now_size = e->value;
		if (d->durable_size > d->now_size)
			d->durable_size = d->now_size;
		break;
	case DISK_SPACE:
		d->some_holes[e->word / 512] |= d->now_holes[e->word / 512];
		d->now_holes[e->word / 512] = (uint8_t)e->value;
		break;
	case DISK_WRITING:
		d->writing = e->word;
		d->writing_end = (uint32_t)e->value;
		d->writing_at = d->at;
		break;
	default:
		apply_synced(d, e);
	}
	d->at++;
}

int64_t disk_differs(const struct disk *d)
{
	if (d->now_size != d->file->size)
		return 0;
	for (uint64_t i = 0; i < d->now_size; i += 4096)
		if (memcmp(d->now + i, d->file->bytes + i, 4096))
			for (uint64_t k = i; k < i + 4096; k++)
				if (d->now[k] != d->file->bytes[k])
					return (int64_t)k;
	return -1;
}

/* --- images --- */

bool disk_matters(const char *image, uint64_t off)
{
	const struct phd_super *s = (const void *)image;

	if (off < s->coord_off || off >= s->data_off)
		return true;
	if (off >= s->head_off && off < s->lane_log_off)
		return true;
	if (off >= s->wal_off && off < s->wal_off + s->wal_size)
		return true;
	return off >= s->desc_off && off < s->words_off;
}

static unsigned unit_dirty(const struct disk *d, uint64_t sector, unsigned unit)
{
	unsigned n = d->dirty_count[sector];

	for (unsigned i = 1; unit == 4096 && i < PAGE_SECTORS; i++)
		n += d->dirty_count[sector + i];
	return n;
}

unsigned disk_units(const struct disk *d, unsigned unit)
{
	unsigned step = unit == 4096 ? PAGE_SECTORS : 1, n = 0;

	for (uint64_t s = 0; s < DISK_SECTORS; s += step) {
		unsigned dirty = unit_dirty(d, s, unit);

		if (dirty && disk_matters(d->now, s * DISK_SECTOR))
			n += unit == 8 ? dirty : 1;
	}
	return n;
}

/* How the units of one image are decided. */
struct chooser {
	const struct disk *d;
	const struct disk_choice *c;
	uint64_t rng;
	uint64_t size; /* of the file on the disk */
	unsigned number, lone;
};

/* Events long ago and just now are equally likely. */
static uint32_t some_time(struct chooser *g)
{
	uint64_t at = g->d->at, span = 1;
	unsigned bits = 0;

	while (bits < 40 && (1ull << bits) < at)
		bits++;
	span <<= oracle_below(&g->rng, bits + 1);
	span = oracle_below(&g->rng, span) + 1;
	return (uint32_t)(span > at ? 0 : at - span);
}

/* As of which event the disk has the next unit; 0: as at its sync. */
static uint32_t unit_time(struct chooser *g, bool matters)
{
	unsigned i = matters ? g->number++ : 0;
	bool yes;

	switch (g->c->pattern) {
	case DISK_NOTHING:
		return 0;
	case DISK_ALL:
	case DISK_KILL:
		return LATEST;
	case DISK_FEW:
		yes = oracle_below(&g->rng, 8) == 0;
		break;
	case DISK_MOST:
		yes = oracle_below(&g->rng, 8) != 0;
		break;
	case DISK_TIMES:
		return oracle_below(&g->rng, 3) ? some_time(g) : oracle_below(&g->rng, 2) ? LATEST : 0;
	case DISK_ONE:
		yes = matters && i == g->lone;
		break;
	case DISK_ALL_BUT_ONE:
		yes = !matters || i != g->lone;
		break;
	case DISK_MASK:
		yes = matters ? i < 64 && (g->c->mask >> i & 1) : oracle_below(&g->rng, 2);
		break;
	default:
		yes = oracle_below(&g->rng, 2);
	}
	return yes ? LATEST : 0;
}

static void word_put(struct chooser *g, uint64_t w, uint32_t time, struct memfile *to)
{
	const struct disk *d = g->d;
	uint32_t i = d->last[w];

	if (w * 8 >= g->size)
		return;
	while (i && i > time)
		i = d->events[i - 1].prev;
	if (!i)
		return;
	memcpy(to->bytes + w * 8, &d->events[i - 1].value, 8);
	d->stale[w / SECTOR_WORDS] = 1;
}

static void sector_put(struct chooser *g, uint64_t s, uint32_t time, struct memfile *to)
{
	bool words = g->c->unit == 8, matters = words && disk_matters(g->d->now, s * DISK_SECTOR);

	if (!g->d->dirty_count[s])
		return;
	for (uint64_t w = s * SECTOR_WORDS; w < (s + 1) * SECTOR_WORDS; w++)
		if (g->d->last[w]) {
			uint32_t t = words ? unit_time(g, matters) : time;

			if (t)
				word_put(g, w, t, to);
		}
}

/* D3: does the call that is under way change the sector? */
static bool torn(const struct disk *d, uint64_t s)
{
	for (uint64_t w = s * SECTOR_WORDS; w < (s + 1) * SECTOR_WORDS; w++)
		if (w >= d->writing && w < d->writing_end && d->last[w] > d->writing_at)
			return true;
	return false;
}

static void garbage_put(struct chooser *g, struct memfile *to)
{
	const struct disk *d = g->d;

	for (uint64_t s = d->writing / SECTOR_WORDS; s * SECTOR_WORDS < d->writing_end; s++) {
		if (!torn(d, s) || oracle_below(&g->rng, 2) || (s + 1) * DISK_SECTOR > g->size)
			continue;
		for (uint64_t w = s * SECTOR_WORDS; w < (s + 1) * SECTOR_WORDS; w++) {
			uint64_t x = oracle_random(&g->rng);

			memcpy(to->bytes + w * 8, &x, 8);
		}
		d->stale[s] = 1;
	}
}

static uint64_t some_size(struct chooser *g)
{
	const struct disk *d = g->d;
	uint64_t pages = (d->now_size - d->durable_size) / 4096;

	if (!pages || g->c->pattern == DISK_ALL || g->c->pattern == DISK_KILL)
		return d->now_size;
	switch (oracle_below(&g->rng, 4)) {
	case 0:
		return d->durable_size + 4096 * oracle_below(&g->rng, pages + 1);
	case 1:
		return d->durable_size;
	default:
		return d->now_size;
	}
}

static bool block_zero(const struct memfile *f, unsigned i)
{
	static const char zeros[4096];

	return memcmp(f->bytes + i * 4096ull, zeros, 4096) == 0;
}

/* D4. Space is set aside and given back when the file system likes, and in any order. */
static void holes_put(struct chooser *g, struct memfile *to)
{
	const struct disk *d = g->d;

	for (unsigned i = 0; i < MEMFILE_BLOCKS; i++) {
		bool hole = d->now_holes[i];

		if (g->c->pattern == DISK_NOTHING)
			hole = d->durable_holes[i];
		else if (g->c->pattern != DISK_ALL && g->c->pattern != DISK_KILL &&
			 (d->some_holes[i] || d->durable_holes[i] != d->now_holes[i]))
			hole = oracle_below(&g->rng, 4) != 0;
		to->holes[i] = hole && block_zero(to, i);
	}
	to->fault = 0;
}

void disk_image(const struct disk *d, const struct disk_choice *c, struct memfile *to)
{
	struct chooser g = {.d = d, .c = c, .rng = c->rng};
	unsigned step = c->unit == 4096 ? PAGE_SECTORS : 1, units;

	for (uint64_t s = 0; s < DISK_SECTORS; s++)
		if (d->stale[s]) {
			memcpy(to->bytes + s * DISK_SECTOR, d->durable + s * DISK_SECTOR, DISK_SECTOR);
			d->stale[s] = 0;
		}
	g.size = c->pattern == DISK_NOTHING ? d->durable_size : some_size(&g);
	if (c->pattern == DISK_ONE || c->pattern == DISK_ALL_BUT_ONE) {
		units = disk_units(d, c->unit);
		g.lone = units ? (unsigned)oracle_below(&g.rng, units) : 0;
	}
	for (uint64_t s = 0; s < DISK_SECTORS && c->pattern != DISK_NOTHING; s += step) {
		uint32_t time = 0;

		if (!unit_dirty(d, s, c->unit))
			continue;
		if (c->unit != 8)
			time = unit_time(&g, disk_matters(d->now, s * DISK_SECTOR));
		for (uint64_t k = s; k < s + step && (time || c->unit == 8); k++)
			sector_put(&g, k, time, to);
	}
	if (c->garbage && d->writing < d->writing_end)
		garbage_put(&g, to);
	holes_put(&g, to);
	if (c->pattern == DISK_KILL) {
		rehome(to->bytes);
		d->stale[PHD_STATE_OFF(0) / DISK_SECTOR] = d->stale[PHD_STATE_OFF(1) / DISK_SECTOR] = 1;
	}
	to->size = g.size;
	to->named = true;
	to->space = 0;
}

void disk_place(const char *image, uint64_t off, char *ret, size_t n)
{
	const struct phd_super *s = (const void *)image;
	const struct {
		const char *name;
		uint64_t from, to;
	} regions[] = {
		{"super, state, checkpoint", 0, s->coord_off},
		{"coordination", s->coord_off, s->lane_off},
		{"lanes", s->lane_off, s->lane_off + s->lane_count * sizeof(struct phd_lane)},
		{"ring", s->ring_off, s->ring_off + s->wal_size},
		{"head", s->head_off, s->head_off + sizeof(struct phd_head)},
		{"lane logs", s->lane_log_off, s->lane_log_off + (uint64_t)s->lane_log_size * s->lane_count},
		{"WAL", s->wal_off, s->wal_off + s->wal_size},
		{"descriptors", s->desc_off, s->bits_off},
		{"bitmaps", s->bits_off, s->words_off},
		{"chunk words and leases", s->words_off, s->data_off},
		{"data", s->data_off, MEMFILE_CAPACITY},
	};

	snprintf(ret, n, "%#llx", (unsigned long long)off);
	for (unsigned i = 0; i < sizeof(regions) / sizeof(*regions); i++)
		if (off >= regions[i].from && off < regions[i].to) {
			snprintf(ret, n, "%s %#llx", regions[i].name,
				 (unsigned long long)(off - regions[i].from));
			return;
		}
}
