/* SPDX-License-Identifier: MIT
 *
 * plan.h: which steps a load consists of, and what a number of committed steps has made of each record.
 *
 * What: the records are dealt to KV_SLICE_COUNT slices. A slice is a row of steps, each a transaction on
 * one record:
 *   round 1     put each record
 *   round 2...  change each record (to bytes of another size), delete each record, put each record back
 * Why the plan is a function of counts alone: whoever goes on with a load, and whoever checks one, needs
 * nothing but the counts in the heap and the input.
 *
 * Invariant
 *   P1  At the end of a round every record has the input's value.
 */
#ifndef KV_PLAN_H
#define KV_PLAN_H

#include "input.h"

enum kv_step_kind { KV_STEP_PUT, KV_STEP_CHANGE, KV_STEP_DELETE, KV_STEP_PUT_BACK };

/* number: of the step in its record's row. */
enum kv_step_kind kv_plan_kind(uint64_t number);

/* What a step of kind CHANGE writes; buffer has kv_plan_room bytes. */
struct kv_bytes kv_plan_changed(const struct kv_record *record, uint64_t number, char *buffer);
size_t kv_plan_room(const struct kv_input *input);

/* Records of a slice; steps after which it stands at the end of its last round: a load that has begun more
 * rounds ends the one it is in. */
uint64_t kv_plan_length(uint64_t record_count, uint64_t slice);
uint64_t kv_plan_target(uint64_t done, uint64_t length, uint64_t round_count);

/* Steps of this slice, or of the whole load, that are committed. */
uint64_t kv_plan_slice_done(const struct kv_slice *slice);
uint64_t kv_plan_done(const struct kv_load *load);

/* What the load's committed steps made of record i. The value is in the input or in buffer. */
enum kv_expect { KV_UNTOUCHED, KV_PRESENT, KV_ABSENT };
enum kv_expect kv_plan_expect(const struct kv_load *load, const struct kv_input *input, size_t i,
			      char *buffer, struct kv_bytes *ret);

/* Every slice stands between two rounds (P1), and the first is over. */
bool kv_plan_complete(const struct kv_load *load);

/* The load in the heap is one of this input. */
bool kv_plan_is_of(const struct kv_load *load, const struct kv_input *input);

#endif
