/* SPDX-License-Identifier: MIT
 *
 * top_sample.c: reads a sample and compares two; see top.h.
 */
#include "top.h"

#include <stdlib.h>
#include <string.h>

#include "process.h"

static void row_add(struct sample *s, struct lock_row row)
{
	if (s->lock_count == s->lock_room) {
		size_t room = s->lock_room ? 2 * s->lock_room : 256;
		struct lock_row *grown = reallocarray(s->locks, room, sizeof *grown);

		if (!grown)
			fail("out of memory");
		s->locks = grown;
		s->lock_room = room;
	}
	row.since_ns = s->at_ns;
	s->locks[s->lock_count++] = row;
}

/* A generation only grows: a word older than what was read before is free without another look. */
static bool word_held(const struct heap_file *h, const struct sample *s, uint64_t word)
{
	uint64_t gen = PHD_WORD_GEN(word), state;
	unsigned lane = PHD_WORD_LANE(word);

	if (!gen)
		return false;
	if (lane >= PHD_WORD_MEMBER)
		return members_find(&s->members, lane - PHD_WORD_MEMBER, gen) != NULL;
	if (lane >= h->super.lane_count || gen < PHD_STATE_GEN(s->members.lanes[lane].state))
		return false;
	heap_file_read(h, h->super.lane_off + lane * sizeof(struct phd_lane), &state, sizeof state);
	return PHD_STATE_GEN(state) == gen && PHD_STATE_STEP(state) != PHD_STEP_IDLE;
}

static void word_add(const struct heap_file *h, struct sample *s, enum lock_kind kind, uint32_t idx,
		     uint64_t word)
{
	if (word_held(h, s, word))
		row_add(s, (struct lock_row){.kind = (uint8_t)kind,
					     .idx = idx,
					     .lane = PHD_WORD_LANE(word),
					     .gen = PHD_WORD_GEN(word)});
}

static enum lock_kind stripe_kind(const struct heap_file *h, uint32_t stripe)
{
	return stripe == h->super.stripe_count ? LOCK_NAMES : LOCK_STRIPE;
}

static void stripes_read(const struct heap_file *h, struct sample *s)
{
	static struct word_walk walk;
	uint64_t idx, word;
	const uint64_t each = sizeof(struct phd_stripe) / 8;

	word_walk_start(&walk, h, h->super.stripe_off, each * (h->super.stripe_count + 1ull));
	while (word_walk_next(&walk, &idx, &word))
		if (idx % each == 0)
			word_add(h, s, stripe_kind(h, (uint32_t)(idx / each)), (uint32_t)(idx / each), word);
}

static bool lane_active(const struct phd_lane *lane)
{
	return PHD_STATE_STEP(lane->state) != PHD_STEP_IDLE;
}

/* The exclusive transaction has the writer word, unless the gate names its lane. */
static void coord_read(const struct heap_file *h, struct sample *s)
{
	uint64_t gate = s->coord.gate, lane = (gate >> 8) - 1;

	word_add(h, s, LOCK_WRITER, 0, s->coord.writer);
	word_add(h, s, LOCK_SWITCH, 0, s->coord.switcher);
	word_add(h, s, LOCK_DIRECTORY, 0, s->coord.directory);
	word_add(h, s, LOCK_GROWTH, 0, s->coord.growth);
	if ((gate & 0xff) == PHD_MODE_EXCLUSIVE && gate >> 8 && lane < h->super.lane_count) {
		const struct phd_lane *l = &s->members.lanes[lane];

		if (lane_active(l) && PHD_STATE_MODE(l->state) == PHD_MODE_EXCLUSIVE)
			row_add(s, (struct lock_row){.kind = LOCK_WRITER,
						     .lane = (uint32_t)lane,
						     .gen = PHD_STATE_GEN(l->state)});
	}
}

static void lane_shared_add(const struct heap_file *h, struct sample *s, uint32_t i)
{
	const struct phd_lane *lane = &s->members.lanes[i];
	struct lock_row row = {.shared = true, .lane = i, .gen = PHD_STATE_GEN(lane->state)};

	for (unsigned k = 0; k < PHD_NOTE_COUNT; k++) {
		if (!lane->notes[k] || lane->notes[k] - 1 > h->super.stripe_count)
			continue;
		row.idx = lane->notes[k] - 1;
		row.kind = (uint8_t)stripe_kind(h, row.idx);
		row_add(s, row);
	}
	if (lane->note_overflow) {
		row.kind = LOCK_STRIPE;
		row.idx = LOCK_IDX_MANY;
		row_add(s, row);
	}
}

/* What is waited for without being a word that could be found: who has it is known from the waiter alone. */
static void lane_wait_add(const struct heap_file *h, struct sample *s, uint32_t i)
{
	const struct phd_lane *lane = &s->members.lanes[i];
	struct lock_row row = {.waits = true, .lane = i, .gen = PHD_STATE_GEN(lane->state)};
	uint32_t holder = (uint32_t)(lane->wait_gen & 0xffff);

	switch (lane->wait_stripe) {
	case PHD_WAIT_WRITER:
		row.kind = LOCK_WRITER;
		break;
	case PHD_WAIT_SWITCH:
		row.kind = LOCK_SWITCH;
		break;
	case PHD_WAIT_DRAIN:
	case PHD_WAIT_LATCH:
		row.kind = lane->wait_stripe == PHD_WAIT_DRAIN ? LOCK_DRAIN : LOCK_LATCH;
		row.idx = holder;
		row_add(s, (struct lock_row){.kind = row.kind,
					     .idx = holder,
					     .lane = holder,
					     .gen = lane->wait_gen >> 16});
		break;
	default:
		if (lane->wait_stripe - 1 > h->super.stripe_count)
			return;
		row.idx = lane->wait_stripe - 1;
		row.kind = (uint8_t)stripe_kind(h, row.idx);
	}
	row_add(s, row);
}

static void lanes_read(const struct heap_file *h, struct sample *s)
{
	for (uint32_t i = 0; i < h->super.lane_count; i++) {
		const struct phd_lane *lane = &s->members.lanes[i];

		if (!lane->owner)
			continue;
		if (lane_active(lane))
			lane_shared_add(h, s, i);
		if (lane->wait_stripe)
			lane_wait_add(h, s, i);
	}
}

static int row_compare(const void *a, const void *b)
{
	const struct lock_row *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->idx != y->idx)
		return x->idx < y->idx ? -1 : 1;
	if (x->waits != y->waits)
		return x->waits ? 1 : -1;
	if (x->lane != y->lane)
		return x->lane < y->lane ? -1 : 1;
	return x->gen < y->gen ? -1 : x->gen > y->gen;
}

/* Several waiters name the same holder. */
static void rows_sort(struct sample *s)
{
	size_t kept = 0;

	if (s->lock_count)
		qsort(s->locks, s->lock_count, sizeof *s->locks, row_compare);
	for (size_t i = 0; i < s->lock_count; i++)
		if (!kept || row_compare(&s->locks[kept - 1], &s->locks[i]))
			s->locks[kept++] = s->locks[i];
	s->lock_count = kept;
}

/* Words after lanes and members, so that word_held asks again where it matters. */
void sample_take(const struct heap_file *h, struct sample *ret)
{
	*ret = (struct sample){.at_ns = clock_ns(), .rate = -1};
	members_read(h, &ret->members);
	ret->rates = calloc(ret->members.count + 1ull, sizeof *ret->rates);
	if (!ret->rates)
		fail("out of memory");
	if (!heap_file_current(h))
		return;
	heap_file_read(h, h->super.coord_off, &ret->coord, sizeof ret->coord);
	coord_read(h, ret);
	stripes_read(h, ret);
	lanes_read(h, ret);
	rows_sort(ret);
}

void sample_free(struct sample *s)
{
	members_free(&s->members);
	free(s->rates);
	free(s->locks);
	*s = (struct sample){0};
}

static void rates_compare(const struct heap_file *h, struct sample *s, const struct sample *before)
{
	double seconds = (double)(s->at_ns - before->at_ns) / (double)NS_PER_S;

	if (seconds <= 0)
		return;
	s->rate = 0;
	s->seconds = seconds;
	s->coord_before = before->coord;
	for (uint32_t i = 0; i < h->super.lane_count; i++) {
		const struct phd_lane *now = &s->members.lanes[i], *then = &before->members.lanes[i];
		const struct member_view *owner = members_of_lane(&s->members, i);
		uint64_t gen = PHD_STATE_GEN(now->state), old = PHD_STATE_GEN(then->state);
		double rate = gen > old ? (double)(gen - old) / seconds : 0;

		s->rate += rate;
		if (owner && (now->owner == then->owner || !then->owner))
			s->rates[owner - s->members.rows] += rate;
	}
}

void sample_compare(const struct heap_file *h, struct sample *s, const struct sample *before)
{
	rates_compare(h, s, before);
	for (size_t i = 0; i < s->lock_count && before->lock_count; i++) {
		const struct lock_row *old = bsearch(&s->locks[i], before->locks, before->lock_count,
						     sizeof *before->locks, row_compare);

		if (old)
			s->locks[i].since_ns = old->since_ns;
	}
}
