/* SPDX-License-Identifier: MIT
 *
 * report.c: the table for people and the lines for programs.
 *
 * In JSON a result that is not a time has ns_per_op null and its median in value; unit says of what value,
 * min and max are. pheap's line has in targets what the table says behind it.
 */
#include <stdio.h>
#include <string.h>

#include "bench.h"

static void number_print(const char *key, double value, bool known)
{
	if (known)
		printf(",\"%s\":%.*f", key, value < 10 ? 4 : 2, value);
	else
		printf(",\"%s\":null", key);
}

/* All of a line but its end. */
static void json_print(const char *bench, const char *param, const char *unit, const struct bench_result *r)
{
	const char *quote = strspn(param, "0123456789") == strlen(param) ? "" : "\"";

	printf("{\"bench\":\"%s\",\"system\":\"%s\",\"level\":\"%s\",\"threads\":%u", bench, r->system,
	       r->level ? r->level : "PROCESS", r->threads);
	printf(",\"param\":%s%s%s", quote, param, quote);
	number_print("ns_per_op", r->value, !unit);
	if (unit)
		number_print("value", r->value, true);
	printf(",\"unit\":\"%s\"", unit ? unit : "ns");
	number_print("instructions_per_op", r->instructions, r->instructions >= 0);
	number_print("min", r->min, true);
	number_print("max", r->max, true);
	if (r->rate)
		number_print("per_second", 1e9 / r->value, true);
	if (r->p50 > 0)
		number_print("p50", r->p50, true);
	if (r->p99 > 0) {
		number_print("p90", r->p90, true);
		number_print("p99", r->p99, true);
	}
	printf(",\"reps\":%u", r->reps);
}

static const struct bench_result *result_of(const struct bench_result *results, unsigned count,
					    const char *system)
{
	for (unsigned i = 0; i < count; i++)
		if (!strcmp(results[i].system, system))
			return &results[i];
	return NULL;
}

static void value_print(double value)
{
	if (value >= 1e6)
		printf(" %9.3f M", value / 1e6);
	else if (value >= 1e5)
		printf(" %9.1f k", value / 1e3);
	else if (value < 10)
		printf(" %11.3f", value);
	else
		printf(" %9.1f  ", value);
}

/* Of these the best may be meant; bdb-queue is none, for it finds records by their place and not by key. */
static const char *const peers[] = {"libpmemobj", "lmdb", "sqlite", "bdb"};
#define PEER_COUNT (sizeof peers / sizeof *peers)

static const char *verdict(bool reached)
{
	return reached ? "ok" : "MISSED";
}

/* How many times the time of pheap a peer takes. */
static void peer_print(const struct bench_result *pheap, const struct bench_result *peer, double min)
{
	double ratio;

	if (!peer)
		return;
	ratio = peer->value / pheap->value;
	printf("  %.1fx as fast as %s", ratio, peer->system);
	if (min > 0)
		printf(" (>= %g) %s", min, verdict(ratio >= min));
}

/* Whom the fastest peer is, and how many times the time of pheap it takes. */
static void best_print(const struct bench_result *pheap, const struct bench_result *results, unsigned count,
		       double min)
{
	const struct bench_result *best = NULL;

	for (unsigned i = 0; i < PEER_COUNT; i++) {
		const struct bench_result *peer = result_of(results, count, peers[i]);

		if (peer && (!best || peer->value < best->value))
			best = peer;
	}
	if (best)
		printf("  %.1fx as fast as the best peer, %s (>= %g) %s", best->value / pheap->value,
		       best->system, min, verdict(best->value / pheap->value >= min));
}

/* How many times the time of a bound pheap takes. */
static void bound_print(const struct bench_result *pheap, const struct bench_result *bound, double max)
{
	double ratio;

	if (!bound)
		return;
	ratio = pheap->value / bound->value;
	printf("  %.2fx %s", ratio, bound->system);
	if (max > 0)
		printf(" (<= %g) %s", max, verdict(ratio <= max));
}

/* Whether its value is better than that of all others, and whose is the best of theirs. */
static void rivals_print(const struct bench_result *pheap, const struct bench_result *results, unsigned count,
			 bool larger)
{
	const struct bench_result *best = NULL;

	for (unsigned i = 0; i < count; i++) {
		const struct bench_result *r = &results[i];

		if (r != pheap && (!best || (larger ? r->value > best->value : r->value < best->value)))
			best = r;
	}
	if (best)
		printf("  better than %s %.3f %s", best->system, best->value,
		       verdict(larger ? pheap->value > best->value : pheap->value < best->value));
}

/* What pheap should reach, beside what it reached. */
static void target_print(const struct bench_target *t, const struct bench_result *pheap,
			 const struct bench_result *results, unsigned count, bool time)
{
	if (t->instructions_max > 0 && pheap->instructions >= 0)
		printf("  instructions <= %.0f %s", t->instructions_max,
		       verdict(pheap->instructions <= t->instructions_max));
	if (t->value_max > 0)
		printf("  <= %g %s", t->value_max, verdict(pheap->value <= t->value_max));
	if (t->value_min > 0)
		printf("  >= %g %s", t->value_min, verdict(pheap->value >= t->value_min));
	if (t->peers_beaten)
		rivals_print(pheap, results, count, t->value_min > 0);
	if (t->p99_max > 0)
		printf("  p99 <= %g %s", t->p99_max, verdict(pheap->p99 <= t->p99_max));
	if (!time)
		return;
	peer_print(pheap, result_of(results, count, "libpmemobj"), t->pmemobj_ratio_min);
	peer_print(pheap, result_of(results, count, "lmdb"), t->lmdb_ratio_min);
	peer_print(pheap, result_of(results, count, "sqlite"), 0);
	peer_print(pheap, result_of(results, count, "bdb"), 0);
	peer_print(pheap, result_of(results, count, "bdb-queue"), 0);
	if (t->best_peer_ratio_min > 0)
		best_print(pheap, results, count, t->best_peer_ratio_min);
	if (t->base && t->base_ratio_min > 0)
		peer_print(pheap, result_of(results, count, t->base), t->base_ratio_min);
	else if (t->base)
		bound_print(pheap, result_of(results, count, t->base), t->base_ratio_max);
	if (t->one_thread_ns > 0) {
		double ratio = t->one_thread_ns / pheap->value;

		printf("  %.2fx the rate of one thread", ratio);
		if (t->rate_ratio_min > 0)
			printf(" (>= %g) %s", t->rate_ratio_min, verdict(ratio >= t->rate_ratio_min));
	}
	bound_print(pheap, result_of(results, count, "floor"), t->floor_ratio_max);
	if (t->limit_ratio_max > 0)
		bound_print(pheap, result_of(results, count, "limit"), t->limit_ratio_max);
}

static void row_print(const char *bench, const char *param, const char *unit, const struct bench_result *r)
{
	printf("%-15s %-18s %-10s", bench, param, r->system);
	value_print(r->value);
	value_print(r->min);
	value_print(r->max);
	if (r->instructions >= 0)
		printf(" %8.0f", r->instructions);
	else
		printf(" %8s", unit ? unit : "-");
	if (r->rate) {
		value_print(1e9 / r->value);
		fputs("/s", stdout);
	}
	if (r->p50 > 0) {
		fputs("  p50", stdout);
		value_print(r->p50);
	}
	if (r->p99 > 0) {
		fputs("  p90", stdout);
		value_print(r->p90);
		fputs("  p99", stdout);
		value_print(r->p99);
	}
}

void bench_report(const struct bench_options *opt, const char *bench, const char *param, const char *unit,
		  const struct bench_target *target, const struct bench_result *results, unsigned count)
{
	static bool header;

	if (!opt->json && !header)
		printf("%-15s %-18s %-10s %10s  %10s  %10s  %8s  pheap beside its targets\n", "bench",
		       "param", "system", "ns/op", "min", "max", "instr/op");
	header = true;
	for (unsigned i = 0; i < count; i++) {
		const bool judged = !strcmp(results[i].system, "pheap");

		if (opt->json)
			json_print(bench, param, unit, &results[i]);
		else
			row_print(bench, param, unit, &results[i]);
		if (judged && opt->json)
			fputs(",\"targets\":\"", stdout);
		if (judged)
			target_print(target, &results[i], results, count, !unit);
		if (judged && opt->json)
			putchar('"');
		puts(opt->json ? "}" : "");
	}
	fflush(stdout);
}

void bench_skip(const struct bench_options *opt, const char *bench, const char *param, const char *system,
		const char *why)
{
	fprintf(opt->json ? stderr : stdout, "%-15s %-18s %-10s skipped: %s\n", bench, param, system, why);
}
