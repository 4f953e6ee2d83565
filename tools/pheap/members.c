/* SPDX-License-Identifier: MIT
 *
 * members.c: see members.h.
 */
#include "members.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static_assert(PHD_MEMBER_FENCE == 1 && PHD_MEMBER_READER == 2 && PHD_MEMBER_HOLDS == 4,
	      "names of flags_text");

bool member_dead(const struct heap_file *h, uint32_t slot, uint64_t attachment)
{
	struct phd_member row;

	if (heap_file_slot_live(h, slot))
		return false;
	heap_file_read(h, h->super.member_off + slot * sizeof row, &row, sizeof row);
	return row.attachment == attachment;
}

/* tail: of the log, 0 without one. */
static void lane_count(struct members *m, const struct phd_lane *lane, uint64_t tail, struct member_view *row)
{
	unsigned step = PHD_STATE_STEP(lane->state);
	bool committed = step == PHD_STEP_COMMITTED || (step == PHD_STEP_APPENDING && tail > lane->lsn);

	m->lane_active_count += step != PHD_STEP_IDLE;
	m->lane_used_count += lane->owner != 0;
	if (!row)
		return;
	row->lane_count++;
	row->active_count += step != PHD_STEP_IDLE;
	row->waiting_count += lane->wait_stripe != 0;
	row->redo_count += committed;
	/* A transaction that had changed nothing is not worth a mention, as in pheap_info. */
	row->undo_count += step != PHD_STEP_IDLE && !committed && PHD_USED_END(lane->used);
}

static void lanes_count(const struct heap_file *h, struct members *m)
{
	uint64_t tail;

	heap_file_read(h, h->super.coord_off + offsetof(struct phd_coord, tail), &tail, sizeof tail);
	for (uint32_t i = 0; i < h->super.lane_count; i++)
		lane_count(m, &m->lanes[i], tail, (struct member_view *)(uintptr_t)members_of_lane(m, i));
}

/* Lanes first: one whose owner is not among the rows then belongs to nobody who is attached. M1: the table,
 * then the byte, then the row again. */
static void rows_read(const struct heap_file *h, struct members *m)
{
	struct phd_member *table = calloc(h->super.member_count, sizeof *table);

	if (!table)
		fail("out of memory");
	heap_file_read(h, h->super.member_off, table, h->super.member_count * sizeof *table);
	for (uint32_t i = 0; i < h->super.member_count; i++) {
		struct member_view *v = &m->rows[m->count];
		uint64_t attachment = table[i].attachment;

		if (!attachment)
			continue;
		*v = (struct member_view){.slot = i, .row = table[i], .alive = heap_file_slot_live(h, i)};
		if (!v->alive && !member_dead(h, i, attachment))
			continue; /* it left meanwhile */
		plain_text(v->row.command, sizeof v->row.command, v->command, sizeof v->command);
		m->alive_count += v->alive;
		m->count++;
	}
	free(table);
}

void members_read(const struct heap_file *h, struct members *ret)
{
	*ret = (struct members){0};
	ret->lanes = calloc(h->super.lane_count, sizeof *ret->lanes);
	ret->rows = calloc(h->super.member_count, sizeof *ret->rows);
	if (!ret->lanes || !ret->rows)
		fail("out of memory");
	if (!heap_file_current(h))
		return;
	heap_file_read(h, h->super.lane_off, ret->lanes, h->super.lane_count * sizeof *ret->lanes);
	rows_read(h, ret);
	lanes_count(h, ret);
}

void members_free(struct members *m)
{
	free(m->lanes);
	free(m->rows);
	*m = (struct members){0};
}

const struct member_view *members_find(const struct members *m, uint32_t slot, uint64_t attachment)
{
	uint32_t low = 0, high = m->count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (m->rows[middle].slot < slot)
			low = middle + 1;
		else
			high = middle;
	}
	return low < m->count && m->rows[low].slot == slot && m->rows[low].row.attachment == attachment
		       ? &m->rows[low]
		       : NULL;
}

const struct member_view *members_of_lane(const struct members *m, uint32_t lane)
{
	uint64_t owner = m->lanes[lane].owner;

	return owner & 0xffff ? members_find(m, (uint32_t)(owner & 0xffff) - 1, owner >> 16) : NULL;
}

static int64_t time_ns(const struct timespec *t)
{
	return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

/* When the process began, seconds since 1970; 0: unknown. */
static int64_t start_time(const struct phd_member *row)
{
	uint64_t tick_ns = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
	struct timespec now, boot;

	clock_gettime(CLOCK_REALTIME, &now);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	if (!row->start_ticks || row->start_ticks > (uint64_t)time_ns(&boot) / tick_ns)
		return 0;
	return (time_ns(&now) - time_ns(&boot) + (int64_t)(row->start_ticks * tick_ns)) / 1000000000;
}

static const char *start_text(const struct phd_member *row, char *buf, size_t size)
{
	time_t at = start_time(row);
	struct tm tm;

	if (!at || !localtime_r(&at, &tm) || !strftime(buf, size, "%Y-%m-%d %H:%M:%S", &tm))
		snprintf(buf, size, "-");
	return buf;
}

static const char *flags_text(uint32_t flags, char *buf, size_t size)
{
	static const char *const names[] = {"fence", "reader", "holds"};
	uint32_t others = flags & ~(PHD_MEMBER_FENCE | PHD_MEMBER_READER | PHD_MEMBER_HOLDS);
	size_t n = 0;

	snprintf(buf, size, "-");
	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		if (flags >> i & 1)
			n += (size_t)snprintf(buf + n, size - n, "%s%s", n ? "," : "", names[i]);
	if (others)
		snprintf(buf + n, size - n, "%s0x%x", n ? "," : "", others);
	return buf;
}

static void dead_advice(const struct heap_file *h, const struct members *m)
{
	uint32_t dead = m->count - m->alive_count;
	const char *who = m->alive_count
				  ? "the next process that meets what it holds, or 'pheap watch', recovers it"
			  : heap_file_ephemeral(h) ? "the next process that opens the heap removes it"
						   : "the next process that opens the heap recovers it";

	if (dead)
		printf("%u dead, not yet recovered: %s\n", dead, who);
	if (!m->count && heap_file_current(h))
		printf("nobody is attached\n");
}

void members_print(const struct heap_file *h, const struct members *m)
{
	if (m->count)
		printf("%4s %12s %10s %-16s %5s %6s %-12s %-19s %s\n", "SLOT", "ATTACHMENT", "PID", "COMMAND",
		       "LANES", "ACTIVE", "FLAGS", "STARTED", "STATE");
	for (uint32_t i = 0; i < m->count; i++) {
		const struct member_view *v = &m->rows[i];
		char flags[48], start[32];

		printf("%4u %12" PRIu64 " %10u %-16s %5u %6u %-12s %-19s %s\n", v->slot, v->row.attachment,
		       v->row.pid, v->command, v->lane_count, v->active_count,
		       flags_text(v->row.flags, flags, sizeof flags),
		       start_text(&v->row, start, sizeof start),
		       v->alive ? "alive" : "dead, not yet recovered");
	}
	dead_advice(h, m);
	printf("%u of %u slots taken, %u of %u lanes taken, %u in a transaction\n", m->count,
	       h->super.member_count, m->lane_used_count, h->super.lane_count, m->lane_active_count);
}

void members_json_lines(const struct members *m)
{
	for (uint32_t i = 0; i < m->count; i++) {
		const struct member_view *v = &m->rows[i];

		printf("{\"kind\": \"member\", \"slot\": %u, \"attachment\": %" PRIu64
		       ", \"pid\": %u, \"command\": ",
		       v->slot, v->row.attachment, v->row.pid);
		json_print(v->command);
		printf(", \"alive\": %s, \"lanes\": %u, \"lanes_active\": %u, \"lanes_waiting\": %u"
		       ", \"to_roll_back\": %" PRIu64 ", \"to_complete\": %" PRIu64
		       ", \"flags\": %u, \"start_ticks\": %" PRIu64 ", \"started\": %" PRId64 "}\n",
		       v->alive ? "true" : "false", v->lane_count, v->active_count, v->waiting_count,
		       v->alive ? 0 : v->undo_count, v->alive ? 0 : v->redo_count, v->row.flags,
		       v->row.start_ticks, start_time(&v->row));
	}
}
