/* SPDX-License-Identifier: MIT
 *
 * latency.h: how often an operation took how long: counts in buckets of 1/16 of a power of two.
 *
 * Why no list of samples: a turn has as many as it has time for.
 */
#ifndef BENCH_LATENCY_H
#define BENCH_LATENCY_H

#include <stdint.h>

#define LATENCY_STEP_COUNT 16u /* buckets of one power of two */
#define LATENCY_BUCKET_COUNT (41 * LATENCY_STEP_COUNT)

struct latency {
	uint64_t counts[LATENCY_BUCKET_COUNT];
};

static inline void latency_add(struct latency *l, uint64_t ns)
{
	unsigned shift, bucket = (unsigned)ns;

	if (ns >= LATENCY_STEP_COUNT) {
		shift = 59u - (unsigned)__builtin_clzll(ns); /* leaves 16 to 31 */
		bucket = shift * LATENCY_STEP_COUNT + (unsigned)(ns >> shift);
	}
	l->counts[bucket < LATENCY_BUCKET_COUNT ? bucket : LATENCY_BUCKET_COUNT - 1]++;
}

static inline void latency_sum(struct latency *sum, const struct latency *l)
{
	for (unsigned i = 0; i < LATENCY_BUCKET_COUNT; i++)
		sum->counts[i] += l->counts[i];
}

/* The middle of the bucket in which the part (0 to 1) of all operations ends, in ns; 0: none were counted. */
static inline double latency_part(const struct latency *l, double part)
{
	uint64_t total = 0, below = 0;
	unsigned i = 0, shift;

	for (unsigned j = 0; j < LATENCY_BUCKET_COUNT; j++)
		total += l->counts[j];
	if (!total)
		return 0;
	while (i < LATENCY_BUCKET_COUNT - 1 && (double)(below += l->counts[i]) < part * (double)total)
		i++;
	shift = i < 2 * LATENCY_STEP_COUNT ? 0 : i / LATENCY_STEP_COUNT - 1;
	return ((double)(i - shift * LATENCY_STEP_COUNT) + 0.5) * (double)(1ull << shift);
}

#endif
