/* SPDX-License-Identifier: MIT
 *
 * pass2.c: the journal: recovers every lane in flight, as section 5 of FORMAT.md says.
 *
 * Needs:  f->super and f->chunk_count from pass 1; nobody attached, else it only looks.
 * Checks: the state word of each lane; the whole log of each lane in flight, before anything is stored.
 * Gives:  a heap in which every transaction happened or did not; with -n only as the later passes see it. In
 *         a heap with a WAL, which is kept for power cuts only: an empty one, so that no cut brings back what
 *         later passes repair.
 *
 * Order of its stores:
 *   ORDER(fsck-undo-idle): bytes of all lanes, durable, before {idle, g+1} of any. Crash between: all is
 *   done again, to the same end:
 *   each store is absolute or a mask, no log is changed (log.c, L2), and lanes are taken in the same order.
 *   ORDER(fsck-owner-last): {idle, g+1} before owner 0, as in the library. Crash between: an owner in an
 *   idle lane, cleared by pass 6.
 */
#include <stdlib.h>
#include <string.h>

#include "fsck.h"

typedef unsigned long long ull;

enum verdict {
	RECOVER,
	LATER,
	BAD,
	SKIP
}; /* LATER: refused; in the overlay, so that the rest can be checked */

struct flight {
	struct log log;
	enum verdict verdict;
};

static uint64_t lane_at(const struct fsck *f, uint32_t lane)
{
	return f->super.lane_off + (uint64_t)lane * sizeof(struct phd_lane);
}

static bool state_possible(uint64_t state)
{
	return !(state >> 63) && PHD_STATE_STEP(state) <= PHD_STEP_COMMITTED &&
	       PHD_STATE_MODE(state) <= PHD_MODE_INTERNAL;
}

/* Without a WAL nothing is appending: the tail is 0 and no lane has an LSN below it. */
static bool lane_committed(const struct fsck *f, const struct log *log)
{
	unsigned step = PHD_STATE_STEP(log->state);

	return step == PHD_STEP_COMMITTED || (step == PHD_STEP_APPENDING && f->ring.tail > log->lsn);
}

static void lane_idle(struct fsck *f, uint32_t lane, uint64_t state)
{
	uint64_t gen = (PHD_STATE_GEN(state) + 1) & ((1ull << 47) - 1);
	uint64_t rollbacks = image_read_word(f, lane_at(f, lane) + offsetof(struct phd_lane, rollback_count));

	/* odd: it is rolling back to a savepoint. Whoever has the lane next is not. */
	if (rollbacks & 1)
		image_write_word(f, lane_at(f, lane) + offsetof(struct phd_lane, rollback_count),
				 rollbacks + 1);
	image_write_word(f, lane_at(f, lane), PHD_STATE(gen, PHD_MODE_NONE, PHD_STEP_IDLE));
	image_write_word(f, lane_at(f, lane) + offsetof(struct phd_lane, owner),
			 0); /* ORDER(fsck-owner-last) */
}

/* Finds the lanes in flight; impossible state words are answered at once. */
static struct flight *flights_find(struct fsck *f, size_t *ret_count)
{
	struct flight *flights = memory_get(f, f->super.lane_count, sizeof *flights, "the lanes");
	size_t n = 0;

	for (uint32_t lane = 0; lane < f->super.lane_count; lane++) {
		uint64_t state = image_read_word(f, lane_at(f, lane));

		if (state_possible(state) && PHD_STATE_STEP(state) == PHD_STEP_IDLE)
			continue;
		if (state_possible(state)) {
			flights[n++].log = (struct log){
				.lane = lane,
				.state = state,
				.lsn = image_read_word(f, lane_at(f, lane) + offsetof(struct phd_lane, lsn)),
			};
			continue;
		}
		if (problem(f, PR_LANE_STATE, lane_at(f, lane), "lane %u: 0x%llx", lane, (ull)state))
			lane_idle(f, lane, state); /* words of a wrong generation are found in pass 6 */
	}
	*ret_count = n;
	return flights;
}

static void logs_check(struct fsck *f, struct flight *flights, size_t n)
{
	uint64_t *chunk_used = memory_get(f, f->chunk_count / 64 + 1, 8, "the map of log extensions");

	for (size_t i = 0; i < n; i++)
		if (!log_map(f, &flights[i].log, chunk_used))
			flights[i].verdict = BAD;
	for (size_t i = 0; i < n; i++) {
		if (flights[i].verdict != BAD && !log_check(f, &flights[i].log, chunk_used))
			flights[i].verdict = BAD;
		pass_progress(f, i, n * 2);
	}
	free(chunk_used);
}

/* Damaged logs come first: an error that is left stops every other repair. */
static void flights_judge_bad(struct fsck *f, struct flight *flights, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct log *log = &flights[i].log;

		if (flights[i].verdict != BAD)
			continue;
		if (f->attached)
			problem(f, PR_LANE_LIVE, lane_at(f, log->lane), "lane %u; its log is moving: %s",
				log->lane, log->error);
		else if (problem(f, PR_LANE_LOG, lane_at(f, log->lane), "lane %u, step %u: %s", log->lane,
				 PHD_STATE_STEP(log->state), log->error))
			continue;
		flights[i].verdict = SKIP;
	}
	pass_stop(f);
}

static enum fsck_problem flight_problem(const struct fsck *f, const struct log *log)
{
	unsigned mode = PHD_STATE_MODE(log->state);
	bool quiet = mode == PHD_MODE_READ || mode == PHD_MODE_INTERNAL || mode == PHD_MODE_NONE;

	if (f->attached)
		return PR_LANE_LIVE;
	if (f->was_clean)
		return PR_LANE_CLEAN;
	if (lane_committed(f, log))
		return PR_LANE_COMMITTED;
	return quiet && !log->end ? PR_LANE_EMPTY : PR_LANE_ACTIVE;
}

static void flights_judge(struct fsck *f, struct flight *flights, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct log *log = &flights[i].log;

		if (flights[i].verdict == RECOVER &&
		    !problem(f, flight_problem(f, log), lane_at(f, log->lane),
			     "lane %u, generation %llu, %llu records", log->lane,
			     (ull)PHD_STATE_GEN(log->state), (ull)log->record_count))
			flights[i].verdict = LATER;
	}
}

static void lane_forward(struct fsck *f, struct log *log)
{
	struct log_record r;

	for (uint64_t pos = 0; pos < log->end && log_record(f, log, pos, &r); pos = r.next_pos) {
		struct store s = log_store(log, &r);

		store_apply(f, &s);
	}
	for (uint64_t pos = 0; pos < log->end && log_record(f, log, pos, &r); pos = r.next_pos) {
		struct store s = log_store(log, &r);

		if (PHD_REC_KIND(r.target) == PHD_REC_PUBLISH)
			store_bytes(f, &s);
	}
	f->lane_forward++;
}

static void lane_back(struct fsck *f, struct log *log)
{
	struct log_record r;
	uint64_t pos = log->last;

	while (log->end && log_record(f, log, pos, &r)) {
		struct store s = log_store(log, &r);

		if (PHD_REC_KIND(r.target) == PHD_REC_UNDO)
			store_bytes(f, &s);
		if (!r.prev || r.prev > pos)
			break;
		pos -= r.prev;
	}
	f->lane_back++;
}

static void flights_recover(struct fsck *f, struct flight *flights, size_t n, enum verdict which)
{
	for (size_t i = 0; i < n; i++) {
		struct log *log = &flights[i].log;

		if (flights[i].verdict == which && lane_committed(f, log))
			lane_forward(f, log);
		else if (flights[i].verdict == which)
			lane_back(f, log);
		pass_progress(f, n + i, n * 2);
	}
	image_sync(f); /* ORDER(fsck-undo-idle) */
	for (size_t i = 0; i < n; i++)
		if (flights[i].verdict == which || (which == RECOVER && flights[i].verdict == BAD))
			lane_idle(f, flights[i].log.lane, flights[i].log.state);
}

void pass_journal(struct fsck *f)
{
	struct flight *flights;
	size_t n;

	ring_check(f);
	flights = flights_find(f, &n);
	logs_check(f, flights, n);
	flights_judge_bad(f, flights, n);
	flights_judge(f, flights, n);
	if (n) {
		flights_recover(f, flights, n, RECOVER);
		pass_stop(f);
		flights_recover(f, flights, n, LATER);
	}
	pass_stop(f);
	for (size_t i = 0; i < n; i++)
		log_free(&flights[i].log);
	free(flights);
	wal_retire(f);
	pass_end(f);
}
