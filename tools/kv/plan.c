/* SPDX-License-Identifier: MIT
 *
 * plan.c: see plan.h.
 */
#include "plan.h"

uint64_t kv_plan_length(uint64_t record_count, uint64_t slice)
{
	return record_count / KV_SLICE_COUNT + (slice < record_count % KV_SLICE_COUNT);
}

enum kv_step_kind kv_plan_kind(uint64_t number)
{
	return number == 0 ? KV_STEP_PUT : (enum kv_step_kind)(KV_STEP_CHANGE + (number - 1) % 3);
}

/* Steps that a record has had when its slice stands at the end of this round. */
static uint64_t round_end(uint64_t round_count)
{
	return round_count ? 1 + 3 * (round_count - 1) : 0;
}

/* Rounds that are begun after this many passes through the slice, a broken one counted as whole. */
static uint64_t rounds_begun(uint64_t pass_count)
{
	return pass_count ? 1 + (pass_count + 1) / 3 : 0;
}

uint64_t kv_plan_target(uint64_t done, uint64_t length, uint64_t round_count)
{
	uint64_t begun = length ? rounds_begun((done + length - 1) / length) : 0;

	return length * round_end(begun > round_count ? begun : round_count);
}

uint64_t kv_plan_slice_done(const struct kv_slice *slice)
{
	return __atomic_load_n(&slice->done, __ATOMIC_RELAXED);
}

uint64_t kv_plan_done(const struct kv_load *load)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < KV_SLICE_COUNT; i++)
		sum += kv_plan_slice_done(&load->slices[i]);
	return sum;
}

bool kv_plan_complete(const struct kv_load *load)
{
	for (uint32_t i = 0; i < KV_SLICE_COUNT; i++) {
		uint64_t done = kv_plan_slice_done(&load->slices[i]);

		if (done != kv_plan_target(done, kv_plan_length(load->record_count, i), 1))
			return false;
	}
	return load->number > 0;
}

bool kv_plan_is_of(const struct kv_load *load, const struct kv_input *input)
{
	return load->number && load->input_hash == input->hash && load->input_size == input->size &&
	       load->record_count == input->count;
}

size_t kv_plan_room(const struct kv_input *input)
{
	size_t largest = 64;

	for (size_t i = 0; i < input->count; i++)
		if (largest < input->records[i].value.n)
			largest = input->records[i].value.n;
	return 2 * largest;
}

/* The record's bytes from somewhere on, over and over, of a length up to twice its own: so blocks of other
 * sizes come and go. */
struct kv_bytes kv_plan_changed(const struct kv_record *record, uint64_t number, char *buffer)
{
	struct kv_bytes value = record->value;
	uint64_t random = (kv_hash(record->key) + number) * 0x9e3779b97f4a7c15ull;
	size_t n, from;

	random ^= random >> 29;
	if (value.n == 0)
		value = record->key;
	n = 1 + (size_t)(random % (2 * (uint64_t)value.n));
	from = (size_t)((random >> 33) % value.n);
	for (size_t at = 0; at < n;) {
		size_t piece = value.n - from < n - at ? value.n - from : n - at;

		memcpy(buffer + at, value.p + from, piece);
		at += piece;
		from = 0;
	}
	return (struct kv_bytes){buffer, n};
}

enum kv_expect kv_plan_expect(const struct kv_load *load, const struct kv_input *input, size_t i,
			      char *buffer, struct kv_bytes *ret)
{
	uint64_t slice = i % KV_SLICE_COUNT, place = i / KV_SLICE_COUNT;
	uint64_t length = kv_plan_length(input->count, slice);
	uint64_t done = kv_plan_slice_done(&load->slices[slice]);
	uint64_t steps = done / length + (place < done % length);

	*ret = input->records[i].value;
	if (steps == 0)
		return KV_UNTOUCHED;
	switch (kv_plan_kind(steps - 1)) {
	case KV_STEP_CHANGE:
		*ret = kv_plan_changed(&input->records[i], steps - 1, buffer);
		return KV_PRESENT;
	case KV_STEP_DELETE:
		return KV_ABSENT;
	default:
		return KV_PRESENT;
	}
}
