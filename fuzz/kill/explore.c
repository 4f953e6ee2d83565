/* SPDX-License-Identifier: MIT
 *
 * explore.c: see explore.h.
 */
#include "explore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layout.h"
#include "os.h"
#include "runtime.h"
#include "trap.h"

static struct explore *active; /* the callbacks have no argument of their own */

/* --- recording --- */

static void page_stale(struct level *l, uint64_t off, uint64_t n)
{
	for (uint64_t p = off / MEMFILE_PAGE;
	     p <= (off + (n ? n - 1 : 0)) / MEMFILE_PAGE && p < MEMFILE_PAGES; p++)
		l->stale[p] = 1;
}

static void push(struct level *l, const struct event *e)
{
	if (l->count == l->room) {
		l->room = l->room ? l->room * 2 : 4096;
		l->events = realloc(l->events, l->room * sizeof(*l->events));
		if (!l->events)
			abort();
	}
	l->events[l->count++] = *e;
}

static void flush(struct level *l)
{
	if (!l->pending_set)
		return;
	l->pending_set = false;
	if (l->pending.n)
		memcpy(&l->pending.data, l->file->bytes + l->pending.off, l->pending.n);
	push(l, &l->pending);
}

static void note(struct level *l, uint64_t off, unsigned n, uint64_t size)
{
	page_stale(l, off, n);
	if (!l->record)
		return;
	flush(l);
	l->pending = (struct event){.off = off, .n = (uint8_t)n, .data = size};
	l->pending.phase = (uint8_t)active->oracle->phase;
	l->pending.op = (uint8_t)active->oracle->op;
	l->pending_set = true;
}

static void on_store(void *addr, size_t n)
{
	struct level *l = active->current;

	memfile_stored(l->file, (uint64_t)((char *)addr - l->file->bytes));
	note(l, (uint64_t)((char *)addr - l->file->bytes), (unsigned)n, 0);
}

/* Bytes, or a size, that come by a call: state sectors, growth. */
static void on_written(struct memfile *f, uint64_t off, uint64_t n)
{
	struct level *l = active->current;

#ifdef KILL_TRAP
	if (n)
		return; /* the trap sees it */
#endif
	if (l && l->file == f)
		note(l, n ? off : 0, (unsigned)n, n ? 0 : off);
}

#ifdef KILL_TRAP
static void on_changed(uint64_t off, uint64_t word)
{
	struct level *l = active->current;
	struct event e = {.off = off, .n = 8, .data = word};

	flush(l);
	e.phase = (uint8_t)active->oracle->phase;
	e.op = (uint8_t)active->oracle->op;
	push(l, &e);
}
#endif

void explore_report(struct explore *x, struct level *l, bool record)
{
	if (x->current)
		flush(x->current);
	x->current = l;
	kr_size = 0;
#ifdef KILL_TRAP
	trap_off();
#endif
	if (!l)
		return;
	l->record = record;
#ifdef KILL_TRAP
	l->file->written = on_written;
	if (record)
		trap_on(l->file->bytes, MEMFILE_CAPACITY, on_changed);
	return;
#endif
	kr_base = (uintptr_t)l->file->bytes;
	kr_store = on_store;
	l->file->written = on_written;
	kr_size = MEMFILE_CAPACITY;
}

void explore_on(struct explore *x)
{
	explore_report(x, &x->levels[0], true);
}

void explore_off(struct explore *x)
{
	explore_report(x, NULL, false);
}

void explore_init(struct explore *x)
{
	active = x;
	for (unsigned i = 0; i < LEVELS; i++) {
		struct level *l = &x->levels[i];

		l->file = memfile_get(i);
		l->depth = i;
		l->base = aligned_alloc(4096, MEMFILE_CAPACITY);
		if (!l->base)
			abort();
		memset(l->base, 0, MEMFILE_CAPACITY);
		memset(l->stale, 1, sizeof(l->stale));
	}
}

void explore_free(struct explore *x)
{
	for (unsigned i = 0; i < LEVELS; i++) {
		free(x->levels[i].base);
		free(x->levels[i].events);
	}
}

static void rebase(struct explore *x, struct level *l, const char *image, uint64_t size)
{
	memcpy(l->base, image, MEMFILE_CAPACITY);
	l->base_size = size;
	l->count = 0;
	l->pending_set = false;
	if (l->depth + 1 < LEVELS)
		memset(x->levels[l->depth + 1].stale, 1, MEMFILE_PAGES);
}

void explore_rebase(struct explore *x)
{
	rebase(x, &x->levels[0], x->levels[0].file->bytes, x->levels[0].file->size);
	x->levels[0].base_named = x->levels[0].file->named;
	memcpy(x->levels[0].base_holes, x->levels[0].file->holes, MEMFILE_BLOCKS);
}

/* --- messages --- */

static void image_keep(const struct explore *x, const struct level *l)
{
	FILE *f = x->image_path && x->violations == 1 ? fopen(x->image_path, "wb") : NULL;

	if (!f)
		return;
	fwrite(l->base, 1, l->base_size, f);
	fclose(f);
}

void explore_violation(struct explore *x, const struct event *e, const char *what, const char *why)
{
	char place[64];

	x->violations++;
	if (x->violations >= x->violations_max)
		x->stop = true;
	if (x->violations > 5)
		return;
	tag_place(x->levels[0].base, e->off, place, sizeof(place));
	printf("violation: %s: %s\n  calls:%.1500s\n", what, why, x->oracle->trace);
	if (x->follower_trace[0])
		printf("  calls afterwards:%s\n", x->follower_trace);
	x->follower_trace[0] = 0;
	printf("  cut before store %zu of step %llu (%s, in %s, phase %u)\n"
	       "  replay: --seed %llu --script %llu%s\n",
	       x->at, (unsigned long long)x->tx, place, oracle_op_names[e->op], e->phase,
	       (unsigned long long)x->seed, (unsigned long long)x->script,
	       ph_mutant ? " (with the mutant)" : "");
	fflush(stdout);
}

/* --- images --- */

static void load(struct level *to, const struct level *from)
{
	struct memfile *f = to->file;

	memfile_kill(f);
	f->named = from->base_named;
	f->space = 0;
	f->size = from->base_size;
	f->fault = 0;
	memcpy(f->holes, from->base_holes, sizeof(f->holes));
#ifdef KILL_TRAP
	memset(to->stale, 1, sizeof(to->stale)); /* stores of recoveries are not watched */
#endif
	for (unsigned p = 0; p < MEMFILE_PAGES; p++)
		if (to->stale[p]) {
			memcpy(f->bytes + p * MEMFILE_PAGE, from->base + p * MEMFILE_PAGE, MEMFILE_PAGE);
			to->stale[p] = 0;
		}
}

static void apply(struct explore *x, struct level *l, const struct event *e)
{
	if (!e->n) {
		if (e->data == MEMFILE_UNNAMED)
			l->base_named = false;
		else if (e->data & MEMFILE_SPACE)
			l->base_holes[(e->data & ~MEMFILE_SPACE) >> 1] = e->data & 1;
		else
			l->base_size = e->data;
		return;
	}
	memcpy(l->base + e->off, &e->data, e->n);
	if (l->depth + 1 < LEVELS)
		page_stale(&x->levels[l->depth + 1], e->off, e->n);
}

static bool changes(const struct level *l, const struct event *e)
{
	if (!e->n && e->data != MEMFILE_UNNAMED && e->data & MEMFILE_SPACE)
		return true;
	if (!e->n)
		return e->data == MEMFILE_UNNAMED ? l->base_named : e->data != l->base_size;
	return memcmp(l->base + e->off, &e->data, e->n) != 0;
}

/* How far from the next word the next store may be. Vector copies of the C library jump about and overlap. */
#ifdef KILL_TRAP
#define DULL_BACK 256u
#define DULL_AHEAD 512u
#else
#define DULL_BACK 0u
#define DULL_AHEAD 0u
#endif

/* In a long row of neighbouring stores the first and last few and one in 32 are cut: the others are alike. */
static bool dull(const struct level *l, size_t i)
{
	const struct event *e = l->events;

	if (i < 9 || i + 3 >= l->count || i % 32 == 0)
		return false;
	for (size_t k = i - 8; k < i + 2; k++)
		if (e[k].n != 8 || e[k + 1].off + DULL_BACK - e[k].off - 8 > DULL_AHEAD)
			return false;
	return true;
}

static int match(struct explore *x, pheap *h, uint32_t whose, char *why, size_t n)
{
	char why_after[200] = "";
	int fits = 0;

	if (oracle_check(h, x->before, whose, why, n) == 0)
		fits |= 1;
	if (x->after->main.seq == x->before->main.seq) /* aborted, or nothing was to change */
		return fits ? 3 : -1;
	if (oracle_check(h, x->after, whose, why_after, sizeof(why_after)) == 0)
		fits |= 2;
	if (!fits) {
		size_t have = strlen(why);

		snprintf(why + have, n - have, "; nor after: %s", why_after);
	}
	return fits ? fits : -1;
}

int explore_match(struct explore *x, pheap *h, const struct level *l, uint32_t whose, char *why, size_t n)
{
	int fits = match(x, h, whose, why, n);
	const struct oracle_model *m = fits & 1 ? x->before : x->after;

	if (fits > 0 && (oracle_structure(l->file->bytes, l->file->size, oracle_records(m, whose), why, n) ||
			 memfile_space_check(l->file, why, n)))
		return -1;
	return fits;
}

/* --- one image --- */

/* Is the durable data, coordination words left out, what it was? */
static bool data_same(const char *image, const char *was)
{
	const struct phd_super *s = (const void *)image;
	const struct phd_head *head = (const void *)(image + s->head_off);
	const struct {
		uint64_t off, n;
	} parts[] = {
		{s->head_off, sizeof(*head)},
		{s->desc_off, head->chunk_count * 8},
		{s->bits_off, head->chunk_count * sizeof(struct phd_bits)},
		{s->data_off, head->chunk_count * PHD_CHUNK_SIZE},
	};

	for (unsigned i = 0; i < sizeof(parts) / sizeof(*parts); i++)
		if (memcmp(image + parts[i].off, was + parts[i].off, parts[i].n))
			return false;
	return true;
}

static int open_file(struct level *l, pheap **h, char *why, size_t n)
{
	char path[16];
	int rc;

	snprintf(path, sizeof(path), "mem:%u", l->depth);
	rc = pheap_open(path, 0, NULL, h);
	if (rc)
		snprintf(why, n, "open: %d (%s; %s)", rc, pheap_strerror(rc), pheap_error_detail(NULL));
	return rc ? -1 : 0;
}

static int close_file(pheap *h, char *why, size_t n)
{
	int rc = pheap_close(h);

	if (rc)
		snprintf(why, n, "close: %d (%s)", rc, pheap_strerror(rc));
	return rc ? -1 : 0;
}

static int open_again(struct explore *x, struct level *l, char *why, size_t n)
{
	static char was[MEMFILE_CAPACITY];
	pheap *h;

	memcpy(was, l->file->bytes, l->file->size);
	x->again_count++;
	if (open_file(l, &h, why, n) || close_file(h, why, n))
		return -1;
	if (data_same(l->file->bytes, was))
		return 0;
	snprintf(why, n, "a second open changed durable data");
	return -1;
}

static int lived(pheap *h, const struct oracle *o, char *why, size_t n)
{
	char text[256];

	if (oracle_check(h, &o->working, ORACLE_BOTH, text, sizeof(text)) == 0)
		return 0;
	snprintf(why, n, "after transaction %llu of a life after recovery: %s",
		 (unsigned long long)o->tx_count, text);
	return -1;
}

/* Life goes on: a few transactions on the recovered heap must keep what is there and never hand it out
 * again. */
static int follow(struct explore *x, pheap *h, const struct oracle_model *m, char *why, size_t n)
{
	static struct oracle o;
	int rc = 0;

	x->follow_count++;
	oracle_resume(&o, h, m, x->seed ^ x->turn);
	o.store = x->oracle->store;
	for (unsigned i = 0; !rc && i < 3; i++) {
		rc = oracle_tx(&o);
		if (rc)
			snprintf(why, n, "afterwards: %s", o.why);
		else
			rc = lived(h, &o, why, n);
		oracle_settle(&o);
	}
	if (rc)
		memcpy(x->follower_trace, o.trace, sizeof(x->follower_trace));
	oracle_end(&o);
	return rc;
}

static bool every(uint64_t count, unsigned n)
{
	return n && count % n == 0;
}

/* Recovers what is loaded in l and checks it. Which models fit, or -1. */
static int recover(struct explore *x, struct level *l, bool record, bool extras, char *why, size_t n)
{
	int fits;
	pheap *h;

	explore_report(x, l, record);
	if (open_file(l, &h, why, n)) {
		explore_report(x, NULL, false);
		return -1;
	}
	fits = explore_match(x, h, l, 0, why, n);
	if (fits > 0 && extras && every(x->turn, x->follow_every) &&
	    follow(x, h, fits & 1 ? x->before : x->after, why, n))
		fits = -1;
	if (pheap_current(h))
		pheap_abort(pheap_current(h));
	if (close_file(h, why, n))
		fits = -1;
	explore_report(x, l, false);
	if (fits > 0 && extras && every(x->turn, x->again_every) && open_again(x, l, why, n))
		fits = -1;
	explore_report(x, NULL, false);
	return fits;
}

/* All users of an ephemeral heap are dead: so is it, whatever its bytes say. 3: both models fit. */
static int gone(struct explore *x, struct level *l, bool record, char *why, size_t n)
{
	struct pheap_options opt = oracle_options(x->turn);
	char path[16];
	pheap *h;
	int rc;

	x->gone_count++;
	snprintf(path, sizeof(path), "mem:%u", l->depth);
	explore_report(x, l, record);
	rc = pheap_open(path, 0, NULL, &h);
	explore_report(x, NULL, false);
	if (rc != -ENOENT || l->file->named) {
		snprintf(why, n, "all users of an ephemeral heap died: open: %d (%s)%s", rc,
			 pheap_error_detail(NULL), l->file->named ? "; it has its name" : "");
		return -1;
	}
	if (!record && every(x->turn, x->follow_every)) {
		memfile_clear(l->file);
		memset(l->stale, 1, sizeof(l->stale));
		rc = pheap_open(path, PHEAP_CREATE | PHEAP_EPHEMERAL, &opt, &h);
		if (rc || pheap_next(h, UINT32_MAX, NULL) || pheap_close(h) || l->file->named) {
			snprintf(why, n, "a new ephemeral heap: %d (%s)", rc, pheap_error_detail(NULL));
			return -1;
		}
	}
	return 3;
}

static int cut_recovery(struct explore *x, struct level *l, int want, bool joined, char *why, size_t n);

/* Somebody has stored into a hole. */
static bool hole_stored(const struct level *l, char *why, size_t n)
{
	if (!l->file->fault)
		return false;
	snprintf(why, n, "a store into a hole, at %#llx: a bus error on a full disk",
		 (unsigned long long)l->file->fault - 1);
	return true;
}

static int join(struct explore *x, struct level *l, int want, char *why, size_t n)
{
	struct level *down = &x->levels[l->depth + 1];
	int fits;

	x->join_count++;
	load(down, l);
	explore_report(x, down, false);
	fits = explore_join(x, down, why, n);
	explore_report(x, NULL, false);
	if (fits > 0 && hole_stored(down, why, n))
		fits = -1;
	if (fits > 0 && !(fits & want)) {
		snprintf(why, n, "recovered by the living: the transaction is %s",
			 fits & 2 ? "there too early" : "lost");
		fits = -1;
	}
	return fits > 0 ? 0 : -1;
}

/* While the only one opens or closes, the file may say clean, and nobody can have joined. */
static bool join_possible(const struct explore *x, const struct event *e)
{
	return e->op != ORACLE_OP_NONE &&
	       (x->living || (e->op != ORACLE_OP_OPEN && e->op != ORACLE_OP_CLOSE));
}

static bool join_wanted(const struct explore *x, const struct event *e)
{
	return x->join_every && join_possible(x, e) &&
	       (e->phase != ORACLE_BEFORE || x->turn % x->join_every == 0);
}

/* The recovery of what a member has, by the living: more often than that of bytes. */
static bool rejoin_wanted(const struct explore *x, const struct event *e)
{
	uint64_t every_n = x->nested_every;

	if (e->op == ORACLE_OP_HOLD || e->op == ORACLE_OP_RELEASE || e->op == ORACLE_OP_CLOSE ||
	    e->op == ORACLE_OP_RECOVERY)
		every_n = every_n / 16 + 1;
	return x->nested_every && join_possible(x, e) && x->turn % every_n == 0;
}

/* The image l->base: recovers it one level down, by a first opener or by one who joins. `want`: which models may fit. */
static int look(struct explore *x, struct level *l, int want, bool nested, bool joined, char *why, size_t n)
{
	struct level *down = &x->levels[l->depth + 1];
	int fits;

	load(down, l);
	if (nested) {
		rebase(x, down, l->base, l->base_size);
		down->base_named = l->base_named;
		memcpy(down->base_holes, l->base_holes, MEMFILE_BLOCKS);
	}
	if (joined)
		fits = explore_rejoin(x, down, nested, why, n);
	else if (x->ephemeral)
		fits = gone(x, down, nested, why, n);
	else
		fits = recover(x, down, nested, l->depth == 0 && !nested, why, n);
	if (fits > 0 && hole_stored(down, why, n))
		return -1;
	if (fits < 0)
		return -1;
	if (!(fits & want)) {
		snprintf(why, n,
			 fits & 2 ? "the transaction is there before it was committed"
				  : "the transaction is lost after it was committed");
		return -1;
	}
	if (nested && cut_recovery(x, down, fits & want, joined, why, n))
		return -1;
	return fits & want;
}

/* l->events are the stores of a recovery that began with l->base. */
static int cut_recovery(struct explore *x, struct level *l, int want, bool joined, char *why, size_t n)
{
	bool deeper = l->depth < x->depth_max && l->depth + 2 < LEVELS;
	/* of a long recovery a sample, which is another one at the next point */
	size_t stride = l->count / (l->depth == 1 ? 1200 : 100) + 1;

	for (size_t i = 0; i < l->count; i++) {
		const struct event *e = &l->events[i];

		if (i % stride == x->turn % stride && changes(l, e) && !dull(l, i)) {
			x->nested_points++;
			x->rejoin_points += joined;
			if (look(x, l, want, deeper && i % 16 == 5, joined, why, n) < 0) {
				size_t have = strlen(why);

				snprintf(why + have, n - have, " (recovery %u%s cut before its store %zu)",
					 l->depth, joined ? ", by one who joins," : "", i);
				return -1;
			}
		}
		apply(x, l, e);
	}
	return 0;
}

/* --- all images of a transaction --- */

static void tags_count(uint64_t *counts, uint32_t tags)
{
	for (unsigned i = 0; i < TAG_COUNT; i++)
		counts[i] += tags >> i & 1;
}

static const char *tags_name(uint32_t tags)
{
	for (unsigned i = 0; i < TAG_COUNT; i++)
		if (tags >> i & 1)
			return tag_names[i];
	return "recovered state";
}

/* What recovery cannot show, because it ends alike: nothing is applied after a publication. */
static int publish_order(struct explore *x, const struct level *l, const struct event *e, uint32_t tags,
			 char *why, size_t n)
{
	if (tags & TAG_BIT(TAG_PUBLISH_LAST))
		x->published = true;
	else if (x->published && !tag_committed(l->base))
		x->published = false;
	else if (x->published && e->n && e->phase == ORACLE_EITHER && tag_applied(l->base, e->off)) {
		snprintf(why, n, "a store after a publication");
		return -1;
	}
	return 0;
}

/* What a joining process asks: somebody is attached, so the file must not say clean. */
static int state_order(const struct level *l, char *why, size_t n)
{
	const struct phd_super *s = (const void *)l->base;
	const struct phd_state *copies[2] = {(const void *)(l->base + PHD_STATE_OFF(0)),
					     (const void *)(l->base + PHD_STATE_OFF(1))};
	const struct phd_state *now = copies[copies[1]->seq > copies[0]->seq];
	const struct phd_member *members = (const void *)(l->base + s->member_off);

	for (uint32_t i = 0; now->clean && i < s->member_count; i++)
		if (members[i].attachment) {
			snprintf(why, n, "the file says clean while member %llu is attached",
				 (unsigned long long)members[i].attachment);
			return -1;
		}
	return 0;
}

static void point(struct explore *x, struct level *l, size_t i)
{
	static const int allowed[3] = {1, 3, 2};
	const struct event *e = &l->events[i];
	bool aborted = x->after->main.seq == x->before->main.seq;
	int want = aborted ? 3 : allowed[e->phase], fits;
	uint32_t tags = tags_of(l->base, e->off, e->n, e->data, e->op);
	bool nested = x->depth_max && every(x->turn, x->nested_every);
	char why[512] = "";

	if (!aborted && x->seen_after)
		want &= 2;
	/* nothing but the drop of its locks is left to do */
	if (x->ephemeral && !l->base_named)
		tags |= TAG_BIT(TAG_EPHEMERAL_NAME);
	x->at = i;
	x->where = *e;
	alarm(60); /* a recovery that hangs is a violation, too */
	x->points++;
	x->turn++;
	x->op_points[e->op]++;
	tags_count(x->tag_points, tags);
	fits = look(x, l, want, nested, false, why, sizeof(why));
	if (fits == 2)
		x->seen_after = true;
	if (fits > 0 && join_wanted(x, e) && join(x, l, fits, why, sizeof(why)))
		fits = -1;
	if (fits > 0 && rejoin_wanted(x, e) && look(x, l, fits, x->depth_max > 0, true, why, sizeof(why)) < 0)
		fits = -1;
	if (fits > 0 && (publish_order(x, l, e, tags, why, sizeof(why)) || state_order(l, why, sizeof(why))))
		fits = -1;
	if (fits > 0 && x->fsck && !x->ephemeral && every(x->turn, x->fsck_every) &&
	    explore_fsck(x, l->base, l->base_size, why, sizeof(why)))
		fits = -1;
	if (fits > 0)
		return;
	x->op_bad[e->op]++;
	tags_count(x->tag_bad, tags);
	explore_violation(x, e, tags_name(tags), why);
	image_keep(x, l);
}

static void complete(struct explore *x, struct level *l)
{
	struct event none = {0};
	char why[128];

	if (l->base_size == l->file->size && memcmp(l->base, l->file->bytes, MEMFILE_CAPACITY) == 0)
		return;
	for (uint64_t i = 0; i < MEMFILE_CAPACITY; i++)
		if (l->base[i] != l->file->bytes[i]) {
			none.off = i;
			break;
		}
	snprintf(why, sizeof(why), "byte %#llx changed without a store that was reported",
		 (unsigned long long)none.off);
	explore_violation(x, &none, "harness", why);
	rebase(x, l, l->file->bytes, l->file->size);
	memcpy(l->base_holes, l->file->holes, MEMFILE_BLOCKS);
}

void explore_run(struct explore *x, const struct oracle_model *before, const struct oracle_model *after)
{
	struct level *l = &x->levels[0];
	char why[128];

	explore_off(x);
	x->before = before;
	x->after = after;
	x->seen_after = x->published = false;
	if (hole_stored(l, why, sizeof(why))) {
		explore_violation(x, &(struct event){.off = l->file->fault - 1}, "bus error", why);
		l->file->fault = 0;
	}
	for (size_t i = 0; i < l->count; i++) {
		const struct event *e = &l->events[i];

		x->store_count++;
		if (e->n && e->off + e->n > l->base_size && e->off < MEMFILE_CAPACITY)
			explore_violation(x, e, "bus error", "store beyond the end of the file");
		if (!x->stop && x->points < x->points_max && changes(l, e) && !dull(l, i))
			point(x, l, i);
		apply(x, l, e);
	}
	complete(x, l);
	l->count = 0;
}
