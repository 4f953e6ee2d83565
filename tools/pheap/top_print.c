/* SPDX-License-Identifier: MIT
 *
 * top_print.c: a sample as text; see top.h.
 *
 * What comes first when there is no room for all: the dead, then the busiest members; locks that somebody
 * waits for, then those that have been held the longest.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "format.h"
#include "process.h"
#include "top.h"
#include "wal_view.h"

#define HELD_SHOWN_MAX 40u /* locks that nobody waits for, where there is no height to fill */
#define NAMED_MAX 4u	   /* holders or waiters of one lock that are named */
#define HEADER_ROWS 3u

/* One lock: rows [first, first + holder_count) hold it, the waiter_count behind them wait. */
struct group {
	size_t first, holder_count, waiter_count;
	uint64_t since_ns;
};

struct page {
	const struct heap_file *h;
	const struct sample *s;
	FILE *out;
	unsigned width;
};

/* One row of the page, cut at its width. */
static void __attribute__((format(printf, 2, 3))) row_print(const struct page *p, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (p->width < sizeof text)
		text[p->width] = 0;
	fprintf(p->out, "%s\n", text);
}

static const struct member_view *lane_owner(const struct page *p, uint32_t lane)
{
	if (lane < p->h->super.lane_count)
		return members_of_lane(&p->s->members, lane);
	for (uint32_t i = 0; i < p->s->members.count; i++)
		if (p->s->members.rows[i].slot == lane - PHD_WORD_MEMBER)
			return &p->s->members.rows[i];
	return NULL;
}

/* Appends to a text of `size` bytes that holds *n. */
static void __attribute__((format(printf, 4, 5)))
append(char *text, size_t size, size_t *n, const char *format, ...)
{
	va_list args;
	int added;

	if (*n >= size)
		return;
	va_start(args, format);
	added = vsnprintf(text + *n, size - *n, format, args);
	va_end(args);
	*n += added > 0 ? (size_t)added : 0;
}

static void lane_text(const struct page *p, uint32_t lane, char *text, size_t size, size_t *n)
{
	const struct member_view *v = lane_owner(p, lane);

	if (v)
		append(text, size, n, "pid %u (%s)%s", v->row.pid, v->command, v->alive ? "" : " DEAD");
	else
		append(text, size, n, "nobody");
	if (lane < p->h->super.lane_count)
		append(text, size, n, " lane %u", lane);
}

/* ---- header ---- */

static void gate_text(const struct page *p, char *text, size_t size)
{
	static const char *const modes[] = {"none yet", "concurrent", "exclusive", "read", "?", "changing"};
	uint64_t gate = p->s->coord.gate, lane = (gate >> 8) - 1;
	unsigned mode = (unsigned)(gate & 0xff);
	size_t n = 0;

	if (mode >= sizeof modes / sizeof modes[0] || (gate >> 8 && mode != PHD_MODE_EXCLUSIVE)) {
		append(text, size, &n, "0x%" PRIx64 ", which cannot be; run pheap-fsck", gate);
		return;
	}
	append(text, size, &n, "%s", modes[mode]);
	if (!(gate >> 8))
		return;
	append(text, size, &n, " for ");
	if (lane < p->h->super.lane_count)
		lane_text(p, (uint32_t)lane, text, size, &n);
	else
		append(text, size, &n, "lane %" PRIu64 ", which is not there", lane);
	append(text, size, &n, " alone");
}

static uint32_t waiting_count(const struct sample *s)
{
	uint32_t count = 0;

	for (size_t i = 0; i < s->lock_count; i++)
		count += s->locks[i].waits;
	return count;
}

static void header_print(const struct page *p)
{
	const struct members *m = &p->s->members;
	char clock[16] = "", gate[128], rate[32] = "-";
	time_t now = time(NULL);
	struct tm tm;

	if (localtime_r(&now, &tm))
		strftime(clock, sizeof clock, "%H:%M:%S", &tm);
	if (p->s->rate >= 0)
		snprintf(rate, sizeof rate, "%.0f", p->s->rate);
	gate_text(p, gate, sizeof gate);
	row_print(p, "%s  %s: %s", clock, p->h->path, heap_file_state_text(p->h));
	row_print(p,
		  "members: %u alive, %u dead, %" PRIu64
		  " recovered   lanes: %u of %u taken, %u in a transaction, %u waiting",
		  m->alive_count, m->count - m->alive_count, p->s->coord.recovered_count, m->lane_used_count,
		  p->h->super.lane_count, m->lane_active_count, waiting_count(p->s));
	row_print(p, "transactions: %s/s   mode: %s", rate, gate);
}

static void log_print(const struct page *p)
{
	char text[256];

	if (!format_has_wal(&p->h->super))
		return;
	wal_line(p->h, &p->s->coord, &p->s->coord_before, p->s->seconds, text, sizeof text);
	row_print(p, "%s", text);
}

static void poison_print(const struct page *p)
{
	if (p->s->coord.poison)
		row_print(p, "POISONED by error %" PRIu64 ": no more changes until pheap-fsck -y has run",
			  p->s->coord.poison);
}

/* ---- members ---- */

struct ranked {
	const struct member_view *v;
	double rate;
};

static int ranked_compare(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	if (x->v->alive != y->v->alive)
		return x->v->alive ? 1 : -1;
	if (x->rate < y->rate || x->rate > y->rate)
		return x->rate > y->rate ? -1 : 1;
	return x->v->slot < y->v->slot ? -1 : x->v->slot > y->v->slot;
}

static void member_print(const struct page *p, const struct ranked *r)
{
	char rate[32] = "-";

	if (p->s->rate >= 0)
		snprintf(rate, sizeof rate, "%.0f", r->rate);
	row_print(p, "%4u %12" PRIu64 " %10u %-16s %5u %6u %7u %10s  %s", r->v->slot, r->v->row.attachment,
		  r->v->row.pid, r->v->command, r->v->lane_count, r->v->active_count, r->v->waiting_count,
		  rate, r->v->alive ? "alive" : "dead, not yet recovered");
}

/* At most `max` rows below the heading. */
static void members_show(const struct page *p, unsigned max)
{
	const struct members *m = &p->s->members;
	uint32_t shown = m->count <= max ? m->count : max ? max - 1 : 0;
	struct ranked *ranked = calloc(m->count + 1ull, sizeof *ranked);

	if (!ranked)
		fail("out of memory");
	for (uint32_t i = 0; i < m->count; i++)
		ranked[i] = (struct ranked){&m->rows[i], p->s->rates[i]};
	qsort(ranked, m->count, sizeof *ranked, ranked_compare);
	row_print(p, "SLOT   ATTACHMENT        PID COMMAND          LANES ACTIVE WAITING       TX/S  STATE");
	for (uint32_t i = 0; i < shown; i++)
		member_print(p, &ranked[i]);
	if (shown < m->count && max)
		row_print(p, "... and %u more", m->count - shown);
	free(ranked);
}

/* ---- locks ---- */

static struct group *groups_make(const struct sample *s, size_t *ret_count)
{
	struct group *groups = calloc(s->lock_count + 1, sizeof *groups);
	size_t count = 0;

	if (!groups)
		fail("out of memory");
	for (size_t i = 0; i < s->lock_count; i++) {
		const struct lock_row *row = &s->locks[i];
		struct group *g = count ? &groups[count - 1] : NULL;

		if (!g || s->locks[g->first].kind != row->kind || s->locks[g->first].idx != row->idx) {
			g = &groups[count++];
			*g = (struct group){.first = i, .since_ns = row->since_ns};
		}
		g->holder_count += !row->waits;
		g->waiter_count += row->waits;
		if (row->since_ns < g->since_ns)
			g->since_ns = row->since_ns;
	}
	*ret_count = count;
	return groups;
}

static int group_compare(const void *a, const void *b)
{
	const struct group *x = a, *y = b;

	if (x->waiter_count != y->waiter_count)
		return x->waiter_count > y->waiter_count ? -1 : 1;
	if (x->since_ns != y->since_ns)
		return x->since_ns < y->since_ns ? -1 : 1;
	return x->first < y->first ? -1 : x->first > y->first;
}

static const char *lock_text(const struct lock_row *row, char *text, size_t size)
{
	static const char *const names[] = {[LOCK_WRITER] = "exclusive",
					    [LOCK_SWITCH] = "change of mode",
					    [LOCK_NAMES] = "names",
					    [LOCK_GROWTH] = "growth",
					    [LOCK_DIRECTORY] = "directory"};

	if (row->kind == LOCK_STRIPE && row->idx == LOCK_IDX_MANY)
		snprintf(text, size, "more stripes");
	else if (row->kind == LOCK_STRIPE)
		snprintf(text, size, "stripe %u", row->idx);
	else if (row->kind == LOCK_DRAIN)
		snprintf(text, size, "end of lane %u", row->idx);
	else if (row->kind == LOCK_LATCH)
		snprintf(text, size, "latch");
	else
		snprintf(text, size, "%s", names[row->kind]);
	return text;
}

/* How long it has been seen; T1. */
static void age_text(const struct page *p, uint64_t since_ns, char *text, size_t size, size_t *n)
{
	append(text, size, n, "%.1f s", (double)(p->s->at_ns - since_ns) / (double)NS_PER_S);
}

static void holders_text(const struct page *p, const struct group *g, char *text, size_t size)
{
	size_t n = 0;

	text[0] = 0;
	if (!g->holder_count)
		append(text, size, &n, "(just released)");
	for (size_t i = 0; i < g->holder_count && i < NAMED_MAX; i++) {
		const struct lock_row *row = &p->s->locks[g->first + i];

		append(text, size, &n, "%s", i ? ", " : "");
		lane_text(p, row->lane, text, size, &n);
		append(text, size, &n, "%s", row->shared ? " shared" : "");
	}
	if (g->holder_count > NAMED_MAX)
		append(text, size, &n, " and %zu more", g->holder_count - NAMED_MAX);
}

static void waiters_text(const struct page *p, const struct group *g, char *text, size_t size)
{
	size_t n = 0;

	text[0] = 0;
	if (g->waiter_count)
		append(text, size, &n, "%zu: ", g->waiter_count);
	for (size_t i = 0; i < g->waiter_count && i < NAMED_MAX; i++) {
		const struct lock_row *row = &p->s->locks[g->first + g->holder_count + i];

		append(text, size, &n, "%s", i ? ", " : "");
		lane_text(p, row->lane, text, size, &n);
		append(text, size, &n, " ");
		age_text(p, row->since_ns, text, size, &n);
	}
	if (g->waiter_count > NAMED_MAX)
		append(text, size, &n, " and %zu more", g->waiter_count - NAMED_MAX);
}

static void group_print(const struct page *p, const struct group *g)
{
	char lock[32], age[32] = "", holders[256], waiters[512];
	size_t n = 0;

	age_text(p, g->since_ns, age, sizeof age, &n);
	holders_text(p, g, holders, sizeof holders);
	waiters_text(p, g, waiters, sizeof waiters);
	row_print(p, "%-15s %9s  %-34s %s", lock_text(&p->s->locks[g->first], lock, sizeof lock), age,
		  holders, waiters);
}

/* What of the groups is shown without a height to fill. */
static size_t groups_plain(const struct group *groups, size_t count)
{
	size_t waited = 0;

	while (waited < count && groups[waited].waiter_count)
		waited++;
	return count - waited > HELD_SHOWN_MAX ? waited + HELD_SHOWN_MAX : count;
}

static void groups_show(const struct page *p, const struct group *groups, size_t count, size_t shown)
{
	if (!count) {
		row_print(p, "no lock is held");
		return;
	}
	row_print(p, "LOCK             SEEN FOR  HELD BY                            WAITING");
	for (size_t i = 0; i < shown; i++)
		group_print(p, &groups[i]);
	if (shown < count)
		row_print(p, "... and %zu more", count - shown);
}

void sample_print(const struct heap_file *h, const struct sample *s, unsigned height, unsigned width,
		  FILE *out)
{
	struct page p = {.h = h, .s = s, .out = out, .width = width};
	unsigned fixed = HEADER_ROWS + (s->coord.poison != 0) + format_has_wal(&h->super) +
			 4; /* two headings, a blank row above each */
	size_t count, lock_rows, member_rows = s->members.count;
	struct group *groups = groups_make(s, &count);

	qsort(groups, count, sizeof *groups, group_compare);
	lock_rows = groups_plain(groups, count);
	if (height) {
		size_t room = height > fixed ? height - fixed : 0;

		lock_rows = count;
		if (member_rows + lock_rows > room) {
			size_t half = room / 2;

			member_rows = lock_rows < half	   ? room - lock_rows
				      : member_rows < half ? member_rows
							   : half;
			lock_rows = room - member_rows;
			if (lock_rows < count && lock_rows)
				lock_rows--; /* for the row that counts the rest */
		}
	}
	header_print(&p);
	log_print(&p);
	poison_print(&p);
	fputc('\n', out);
	members_show(&p, (unsigned)member_rows);
	fputc('\n', out);
	groups_show(&p, groups, count, lock_rows);
	free(groups);
}
