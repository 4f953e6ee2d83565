/* SPDX-License-Identifier: MIT
 *
 * cuts.c: see cuts.h.
 */
#include "cuts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crc32c.h"
#include "judge.h"
#include "layout.h"
#include "program.h"
#include "runtime.h"

static const unsigned units[3] = {4096, 512, 8};

static void explore(struct cuts *x, struct life *l);

static bool every(uint64_t turn, unsigned n)
{
	return n && turn % n == 0;
}

bool cuts_over(const struct cuts *x)
{
	return x->stop || x->images >= x->images_max ||
	       (x->deadline_ms && program_now_ms() >= x->deadline_ms);
}

void cuts_init(struct cuts *x)
{
	for (unsigned i = 0; i < LIVES; i++)
		life_init(&x->lives[i], i);
}

void cuts_free(struct cuts *x)
{
	for (unsigned i = 0; i < LIVES; i++)
		life_free(&x->lives[i]);
}

/* --- messages --- */

static void checkpoint_print(const char *name, const char *image)
{
	const struct phd_super *s = (const void *)image;
	const struct phd_coord *coord = (const void *)(image + s->coord_off);

	if (!s->wal_size)
		return;
	for (unsigned i = 0; i < 2; i++) {
		const struct phd_checkpoint *c = (const void *)(image + PHD_CHECKPOINT_OFF(i));

		printf("    %s: checkpoint %llu: gen %llu, replay %#llx, epoch %#llx\n", name,
		       (unsigned long long)c->seq, (unsigned long long)c->log_gen,
		       (unsigned long long)c->replay_lsn, (unsigned long long)c->epoch_lsn);
	}
	printf("    %s: epoch %#llx, durable %#llx, tail %#llx\n", name, (unsigned long long)coord->epoch,
	       (unsigned long long)coord->durable, (unsigned long long)coord->tail);
}

static void image_keep(const struct cuts *x, const struct memfile *f)
{
	FILE *out = x->image_path && x->violations == 1 ? fopen(x->image_path, "wb") : NULL;

	if (!out)
		return;
	fwrite(f->bytes, 1, f->size, out);
	fclose(out);
}

void cuts_violation(struct cuts *x, const struct life *l, const char *what, const char *why)
{
	x->violations++;
	if (x->violations >= x->violations_max)
		x->stop = true;
	printf("violation: %s: %s\n", what, why);
	for (unsigned i = 0; i <= l->depth; i++) {
		const struct life *k = &x->lives[i];

		if (i)
			printf("  then%s\n", k->how);
		printf("  calls of life %u:%.1500s\n", i, k->oracle.trace);
	}
	printf("  cut%s\n", x->place);
	checkpoint_print("page cache", l->disk.now);
	checkpoint_print("disk", l->disk.durable);
	printf("  step %llu, image %llu\n  replay: --seed %llu --script %llu%s\n",
	       (unsigned long long)x->step, (unsigned long long)x->images, (unsigned long long)x->seed,
	       (unsigned long long)x->script, ph_mutant ? " (with the mutant)" : "");
	fflush(stdout);
}

static void place_set(struct cuts *x, const struct life *l, const struct disk_choice *c)
{
	static const char *const kinds[] = {"store to", "size, at", "write to", "end of a sync of",
					    "space of"};
	char where[80] = "the end";

	if (l->disk.at < l->disk.count) {
		const struct disk_event *e = &l->disk.events[l->disk.at];
		int n = snprintf(where, sizeof(where), "%s ", kinds[e->kind]);

		disk_place(l->disk.now, (uint64_t)e->word * 8, where + n, sizeof(where) - (size_t)n);
	}
	snprintf(x->place, sizeof(x->place),
		 " before event %zu of %zu (%s, in %s); units of %u bytes, %s%s, mask %#llx", l->disk.at,
		 l->disk.count, where,
		 l->disk.at < l->disk.count ? oracle_op_names[l->disk.events[l->disk.at].op] : "none",
		 c->unit, disk_pattern_names[c->pattern], c->garbage ? ", garbage" : "",
		 (unsigned long long)c->mask);
}

/* --- one image --- */

/* Is the durable data, coordination words left out, what it was? */
static bool data_same(const char *image, const char *was)
{
	const struct phd_super *s = (const void *)image;
	const struct phd_head *head = (const void *)(image + s->head_off);
	const uint64_t n = head->chunk_count;

	return memcmp(image + s->head_off, was + s->head_off, sizeof(*head)) == 0 &&
	       memcmp(image + s->desc_off, was + s->desc_off, n * 8) == 0 &&
	       memcmp(image + s->bits_off, was + s->bits_off, n * sizeof(struct phd_bits)) == 0 &&
	       memcmp(image + s->data_off, was + s->data_off, n * PHD_CHUNK_SIZE) == 0;
}

static int image_open(const struct life *l, pheap **h, char *why, size_t n)
{
	char path[16];
	int rc;

	snprintf(path, sizeof(path), "mem:%u", l->depth + 1);
	rc = pheap_open(path, 0, NULL, h);
	if (rc)
		snprintf(why, n, "open: %d (%s; %s)", rc, pheap_strerror(rc), pheap_error_detail(NULL));
	return rc;
}

static int image_close(pheap *h, char *why, size_t n)
{
	int rc = pheap_close(h);

	if (rc)
		snprintf(why, n, "close: %d (%s; %s)", rc, pheap_strerror(rc), pheap_error_detail(NULL));
	return rc;
}

/* E3 of the other explorer: a second open, of the same boot or of another, changes nothing. */
static int open_again(struct cuts *x, const struct life *l, const struct disk_bounds *b, char *why, size_t n)
{
	static char was[MEMFILE_CAPACITY];
	struct memfile *f = memfile_get(l->depth + 1);
	uint16_t side;
	pheap *h;
	int m;

	memcpy(was, f->bytes, f->size);
	x->again_count++;
	if (x->again_count % 2)
		memfile_boot(++life_boots);
	if (image_open(l, &h, why, n))
		return -1;
	m = life_match(l, h, f, b, &side, why, n);
	if (image_close(h, why, n) || m < 0)
		return -1;
	if (data_same(f->bytes, was))
		return 0;
	snprintf(why, n, "a second open changed durable data");
	return -1;
}

static int image_plain(struct cuts *x, struct life *l, const struct disk_bounds *b, char *why, size_t n)
{
	struct memfile *f = memfile_get(l->depth + 1);
	uint16_t side;
	pheap *h;
	int m, rc;

	disk_watch(f, NULL, l->disk.stale);
	rc = image_open(l, &h, why, n);
	if ((rc == PHEAP_EREBOOT || rc == PHEAP_ECORRUPT) && l->process &&
	    !(l->closed && l->disk.at == l->disk.count)) {
		x->refused_count++;
		disk_unwatch();
		return 0;
	}
	if (rc) {
		disk_unwatch();
		return -1;
	}
	m = life_match(l, h, f, b, &side, why, n);
	x->lost_count += m >= 0 && m < b->seen;
	x->kept_count += m >= 0 && m > b->low;
	rc = image_close(h, why, n);
	if (!rc && m >= 0 && every(x->turn, 13))
		rc = open_again(x, l, b, why, n);
	disk_unwatch();
	return rc || m < 0 ? -1 : 0;
}

/* Steps that nobody cuts: what was left on the disk by those before the cut must not be in the way later. */
static int live_long(struct cuts *x, struct life *next, uint8_t *stale)
{
	unsigned steps = 10 + (unsigned)oracle_below(&next->rng, 20);
	int rc = 0;

	for (unsigned i = 0; i < steps && rc >= 0; i++) {
		life_enter(next, stale);
		rc = life_join(next);
		rc = rc ? rc : life_step(next);
		rc = rc == LIFE_CLOSED ? life_open(next) : rc;
		life_leave(next);
		while (next->disk.at < next->disk.count)
			disk_apply(&next->disk);
	}
	if (rc >= 0)
		explore(x, next);
	return rc;
}

/* A few steps more, each cut. */
static int live_on(struct cuts *x, struct life *next, uint8_t *stale, char *why, size_t n)
{
	unsigned steps = 1 + (unsigned)oracle_below(&next->rng, 4);

	for (unsigned i = 0; i < steps && !x->stop; i++) {
		int rc;

		life_enter(next, stale);
		rc = life_step(next);
		life_leave(next);
		if (rc >= 0)
			explore(x, next);
		if (rc == LIFE_CLOSED && !x->stop) {
			life_enter(next, stale);
			rc = life_open(next);
			life_leave(next);
			if (rc >= 0)
				explore(x, next);
		}
		if (rc < 0) {
			snprintf(why, n, "afterwards: %s", next->oracle.why);
			return -1;
		}
	}
	if (x->stop || oracle_below(&next->rng, 3) || live_long(x, next, stale) >= 0)
		return 0;
	snprintf(why, n, "long afterwards: %s", next->oracle.why);
	return -1;
}

static void next_models(struct life *next, const struct life *l, uint16_t from, uint16_t to)
{
	for (uint16_t i = from; i <= to; i++)
		oracle_model_copy(&next->models[i], &l->models[i]);
	next->first = next->low = from;
	next->count = (uint16_t)(to + 1);
	next->sync = l->sync;
	next->process = l->process;
	next->trims = l->trims;
	next->recovering = true;
}

/* Opens what `next` has as its file, recorded; then cuts in that; then life goes on. */
static int image_lives(struct cuts *x, struct life *l, struct life *next, const struct disk_bounds *b,
		       bool joins, char *why, size_t n)
{
	pheap *h;
	uint16_t side = 0;
	int m, rc, beside = 0;

	next->oracle.trace_size = 0;
	next->oracle.trace[0] = 0;
	next->oracle.h = next->oracle.other = NULL;
	next->oracle.op = ORACLE_OP_RECOVERY;
	next->closed = false;
	life_enter(next, l->disk.stale);
	if (joins)
		beside = memfile_bystander(next->disk.file, PHD_LOCK_ANY);
	rc = image_open(l, &h, why, n);
	if (!rc && joins && (rc = pheap_recover(h, NULL)))
		snprintf(why, n, "recover: %d (%s)", rc, pheap_error_detail(h));
	if (rc) {
		life_leave(next);
		return -1;
	}
	if (joins)
		memfile_die(beside);
	m = life_match(l, h, next->disk.file, b, &side, why, n);
	life_leave(next);
	if (m >= 0) {
		life_resume(next, h, (uint16_t)m, side, x->seed ^ x->turn);
		if (next->exact) {
			next->first = next->low = (uint16_t)m;
			next->side_first = next->side_low = side;
		}
		explore(x, next);
		rc = x->stop || !next->models[m].main_off ? 0 : live_on(x, next, l->disk.stale, why, n);
	} else {
		next->oracle.h = h;
	}
	life_enter(next, l->disk.stale);
	if (life_end(next) && m >= 0 && !rc) {
		snprintf(why, n, "close: %s", pheap_error_detail(NULL));
		rc = -1;
	}
	life_leave(next);
	return rc || m < 0 ? -1 : 0;
}

static int image_nested(struct cuts *x, struct life *l, const struct disk_bounds *b, char *why, size_t n)
{
	struct life *next = &x->lives[l->depth + 1];

	x->nested_count++;
	/* the first checks which state it is; the second is recorded, with that state alone allowed */
	disk_reset(&next->disk);
	next->boot = ++life_boots;
	snprintf(next->how, sizeof(next->how), " a power cut%.200s; recovery", x->place);
	next_models(next, l, b->low > l->first ? b->low : l->first,
		    b->high < l->count ? b->high : (uint16_t)(l->count - 1));
	next->exact = true;
	return image_lives(x, l, next, b, false, why, n);
}

static bool state_clean(const char *image)
{
	const struct phd_state *best = NULL;

	for (unsigned copy = 0; copy < 2; copy++) {
		const struct phd_state *s = (const void *)(image + PHD_STATE_OFF(copy));

		if (s->magic == PHD_STATE_MAGIC &&
		    s->crc == ph_crc32c(0, s, offsetof(struct phd_state, crc)) &&
		    (!best || s->seq > best->seq))
			best = s;
	}
	return best && best->clean;
}

/* C5. Words that the cut left on the disk name lanes by generation and records by LSN. */
static int numbers_fresh(const struct life *l, const char *image, char *why, size_t n)
{
	const struct phd_super *s = (const void *)image;
	const struct phd_lane *lanes = (const void *)(image + s->lane_off),
			      *were = (const void *)(l->disk.now + s->lane_off);
	const struct phd_coord *c = (const void *)(image + s->coord_off),
			       *was = (const void *)(l->disk.now + s->coord_off);

	for (uint32_t i = 0; i < s->lane_count; i++)
		if (PHD_STATE_GEN(lanes[i].state) <= PHD_STATE_GEN(were[i].state)) {
			snprintf(why, n, "lane %u goes on at generation %llu, and it has had %llu", i,
				 (unsigned long long)PHD_STATE_GEN(lanes[i].state),
				 (unsigned long long)PHD_STATE_GEN(were[i].state));
			return -1;
		}
	if (c->tail >= was->tail && c->log_gen > was->log_gen)
		return 0;
	snprintf(why, n, "the log goes on at LSN %#llx of generation %llu, and it has had %#llx of %llu",
		 (unsigned long long)c->tail, (unsigned long long)c->log_gen, (unsigned long long)was->tail,
		 (unsigned long long)was->log_gen);
	return -1;
}

static bool recovers(const struct life *l)
{
	return l->disk.at < l->disk.count && l->disk.events[l->disk.at].op == ORACLE_OP_RECOVERY;
}

static bool fsck_wanted(const struct cuts *x, const struct life *l)
{
	return x->fsck && !l->process && every(x->turn, x->fsck_every);
}

/* What is repaired takes the image's place. */
static bool image_fsck(struct cuts *x, struct life *l, struct memfile *f, char *why, size_t n)
{
	x->fsck_count++;
	if (judge_image(x->fsck, x->sample_path, f->bytes, f->size, why, n))
		return true;
	memset(l->disk.stale, 1, DISK_SECTORS);
	return judge_result(x->sample_path, f, why, n);
}

static void image(struct cuts *x, struct life *l, struct disk_choice *c)
{
	struct disk_bounds b = {.low = (uint16_t)(l->count - 1), .high = (uint16_t)(l->count - 1)};
	struct memfile *f = memfile_get(l->depth + 1);
	char why[700] = "";
	bool bad, lost;

	if (x->stop)
		return;
	if (l->disk.at < l->disk.count) {
		b = l->disk.events[l->disk.at].bounds;
	} else {
		b.low = l->low;
		b.seen = (uint16_t)(l->count - 1);
		b.side_low = l->side_low;
		b.side_seen = l->side_count;
		b.side_high = l->side_high;
	}
	if (b.low > b.high)
		return; /* the file has no name yet */
	x->images++;
	x->turn++;
	x->nested_images += l->depth > 0;
	x->pattern_images[c->pattern]++;
	x->garbage_images += c->garbage;
	place_set(x, l, c);
	alarm(60);
	memfile_kill(f);
	disk_image(&l->disk, c, f);
	/* what a recovery has stored that was cut itself, nobody has used */
	lost = c->pattern != DISK_KILL && !l->process && !state_clean(f->bytes) && !recovers(l);
	memfile_boot(c->pattern == DISK_KILL ? l->boot : ++life_boots);
	if (c->pattern == DISK_KILL) {
		b.low = b.seen;
		b.side_low = b.side_seen;
		bad = image_plain(x, l, &b, why, sizeof(why));
	} else if (l->depth < x->depth_max && !l->process && every(x->turn, x->nested_every)) {
		bad = image_nested(x, l, &b, why, sizeof(why));
	} else {
		bad = fsck_wanted(x, l) && image_fsck(x, l, f, why, sizeof(why));
		bad = bad || image_plain(x, l, &b, why, sizeof(why)) ||
		      (lost && numbers_fresh(l, f->bytes, why, sizeof(why)));
	}
	if (!bad)
		return;
	place_set(x, l, c);
	cuts_violation(x, l, "after a power cut", why);
	if (x->image_path && x->violations == 1) {
		memset(l->disk.stale, 1, DISK_SECTORS);
		disk_image(&l->disk, c, f);
		image_keep(x, f);
	}
}

static void some_image(struct cuts *x, struct life *l)
{
	struct disk_choice c = {.rng = oracle_random(&x->rng)};
	unsigned u = (unsigned)oracle_below(&x->rng, 3);

	c.unit = units[u];
	c.pattern = (enum disk_pattern)oracle_below(&x->rng, DISK_PATTERNS);
	if (!l->process && oracle_below(&x->rng, l->depth ? 8 : 16) == 0)
		c.pattern = DISK_KILL;
	c.garbage = c.pattern != DISK_KILL && l->disk.writing < l->disk.writing_end &&
		    oracle_below(&x->rng, 3) == 0;
	x->unit_images[u]++;
	image(x, l, &c);
}

/* --- moments --- */

static void subsets(struct cuts *x, struct life *l, unsigned u, unsigned count)
{
	struct disk_choice c = {.unit = units[u], .pattern = DISK_MASK};

	x->subset_sets++;
	for (c.mask = 0; c.mask < 1ull << count && !cuts_over(x); c.mask++) {
		c.rng = oracle_random(&x->rng);
		x->unit_images[u]++;
		image(x, l, &c);
	}
}

/* Before the end of a sync: as much as ever is on its way. */
static void edge(struct cuts *x, struct life *l)
{
	unsigned u = (unsigned)oracle_below(&x->rng, 3), count = disk_units(&l->disk, units[u]);
	unsigned n = l->depth ? 1 + x->edge_images / 4 : x->edge_images;

	x->edges++;
	if (!l->depth && count && count <= x->subset_bits && oracle_below(&x->rng, 4) == 0)
		subsets(x, l, u, count);
	for (unsigned i = 0; i < n && !cuts_over(x); i++)
		some_image(x, l);
}

/* C4. The one who made the calls is killed here; somebody else of the same boot comes, recovers and goes
 * on. */
static void killed(struct cuts *x, struct life *l, size_t i)
{
	const struct disk_event *e = &l->disk.events[i];
	struct disk_bounds b = e->bounds;
	struct life *next = &x->lives[l->depth + 1];
	bool joins = e->op != ORACLE_OP_OPEN && e->op != ORACLE_OP_CLOSE && e->op != ORACLE_OP_NONE &&
		     !recovers(l) && oracle_below(&x->rng, 2);
	uint16_t high = b.high < l->count ? b.high : (uint16_t)(l->count - 1);
	char why[700] = "";
	uint64_t images = x->images;

	if (b.low > high || l->closed)
		return;
	memfile_kill(next->disk.file);
	if (!disk_clone(&next->disk, &l->disk))
		return;
	x->kill_count++;
	x->turn++;
	alarm(60);
	next->disk.file->named = true;
	next->disk.file->space = 0;
	memset(l->disk.stale, 1, DISK_SECTORS);
	next->boot = l->boot;
	snprintf(next->how, sizeof(next->how),
		 " a kill before event %zu of %zu (in %s); recovery by one who %s", i, l->disk.count,
		 oracle_op_names[e->op], joins ? "joins" : "opens");
	next_models(next, l, b.low > l->first ? b.low : l->first, high);
	next->exact = false;
	next->side_first = next->side_low = b.side_low > l->side_first ? b.side_low : l->side_first;
	b.low = b.seen;
	b.side_low = b.side_seen;
	snprintf(x->place, sizeof(x->place), " (not: killed)");
	if (image_lives(x, l, next, &b, joins, why, sizeof(why)))
		cuts_violation(x, next, "after a kill", why);
	x->kill_images += x->images - images;
}

/* Words that steer: state of lanes, of the log, of epochs. */
static bool steers(const struct life *l, size_t i)
{
	const struct phd_super *s = (const void *)l->disk.now;
	uint64_t off = (uint64_t)l->disk.events[i].word * 8;

	return off >= s->coord_off && off < s->lane_off + s->lane_count * sizeof(struct phd_lane);
}

static size_t some_event(struct cuts *x, const struct life *l, size_t from, size_t n)
{
	size_t i = from + oracle_below(&x->rng, n);

	if (oracle_below(&x->rng, 2))
		return i;
	for (size_t k = 0; k < n; k++, i = i + 1 < from + n ? i + 1 : from)
		if (l->disk.events[i].kind == DISK_STORE && steers(l, i))
			return oracle_below(&x->rng, 2) && i + 1 < from + n ? i + 1 : i;
	return i;
}

/* Rather one between the commit point and its acknowledgement. */
static size_t fatal_event(struct cuts *x, const struct life *l, size_t from, size_t n)
{
	size_t i = some_event(x, l, from, n), k;

	for (unsigned tries = (unsigned)oracle_below(&x->rng, 2) * 30; tries; tries--) {
		k = from + oracle_below(&x->rng, n);
		if (l->disk.events[k].bounds.high > l->disk.events[k].bounds.seen)
			return k;
	}
	return i;
}

static void complete(struct cuts *x, struct life *l)
{
	int64_t off = disk_differs(&l->disk);
	char why[200], where[80];

	if (off < 0)
		return;
	disk_place(l->disk.now, (uint64_t)off, where, sizeof(where));
	snprintf(why, sizeof(why), "%s changed without a store that was reported", where);
	cuts_violation(x, l, "harness", why);
	x->stop = true;
}

static void explore(struct cuts *x, struct life *l)
{
	static uint8_t *marks[LIVES];
	static size_t rooms[LIVES];
	size_t from = l->disk.at, n = l->disk.count - from, kill_at = SIZE_MAX;
	unsigned cuts = l->depth ? 1 + x->store_cuts / 4 : x->store_cuts;

	if (n > rooms[l->depth]) {
		rooms[l->depth] = n * 2;
		free(marks[l->depth]);
		marks[l->depth] = malloc(n * 2);
		if (!marks[l->depth])
			abort();
	}
	if (n) {
		memset(marks[l->depth], 0, n);
		for (unsigned i = 0; i < cuts; i++)
			marks[l->depth][some_event(x, l, from, n) - from] = 1;
	}
	if (n && l->depth < x->depth_max && !l->process && x->kill_every &&
	    oracle_below(&x->rng, x->kill_every) == 0)
		kill_at = fatal_event(x, l, from, n);
	for (size_t i = from; i < l->disk.count && !x->stop; i++) {
		if (!cuts_over(x) && l->disk.events[i].kind == DISK_SYNCED) {
			edge(x, l);
		} else if (!cuts_over(x) && marks[l->depth][i - from]) {
			x->cuts++;
			some_image(x, l);
		}
		if (i == kill_at && !cuts_over(x))
			killed(x, l, i);
		disk_apply(&l->disk);
	}
	if (x->stop)
		return;
	complete(x, l);
	if (!cuts_over(x))
		some_image(x, l);
}

void cuts_explore(struct cuts *x, struct life *l)
{
	explore(x, l);
}
