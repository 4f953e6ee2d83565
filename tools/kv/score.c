/* SPDX-License-Identifier: MIT
 *
 * score.c: see score.h.
 */
#include "score.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct score score;

/* ---- series ---- */

void series_add(struct series *series, uint64_t value)
{
	if (series->count == series->room) {
		size_t room = series->room ? 2 * series->room : 256;
		uint64_t *values = realloc(series->values, room * sizeof(*values));

		if (!values)
			stage_fail(NULL, "no memory");
		series->values = values;
		series->room = room;
	}
	series->values[series->count++] = value;
}

static int value_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

uint64_t series_median(const struct series *series)
{
	uint64_t *sorted, median;

	if (series->count == 0)
		return 0;
	sorted = malloc(series->count * sizeof(*sorted));
	if (!sorted)
		stage_fail(NULL, "no memory");
	memcpy(sorted, series->values, series->count * sizeof(*sorted));
	qsort(sorted, series->count, sizeof(*sorted), value_compare);
	median = sorted[series->count / 2];
	free(sorted);
	return median;
}

uint64_t series_max(const struct series *series)
{
	uint64_t max = 0;

	for (size_t i = 0; i < series->count; i++)
		if (max < series->values[i])
			max = series->values[i];
	return max;
}

/* ---- sums ---- */

uint64_t score_done(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < score.worker_count; i++)
		sum += worker_done(&score.workers[i]);
	return sum;
}

struct recoveries score_recoveries(void)
{
	struct recoveries sum = score.by_checks;

	for (unsigned i = 0; i < score.worker_count; i++) {
		struct recoveries one = worker_recoveries(&score.workers[i]);

		sum.beside_count += one.beside_count;
		sum.beside_ns += one.beside_ns;
		sum.attaching_count += one.attaching_count;
		sum.attaching_ns += one.attaching_ns;
		sum.undone_count += one.undone_count;
		sum.completed_count += one.completed_count;
	}
	return sum;
}

/* As whoever looked last saw it. */
uint64_t score_record_count(void)
{
	static uint64_t last;

	for (unsigned i = 0; i < score.worker_count; i++) {
		uint64_t n = __atomic_load_n(&score.workers[i].report->record_count, __ATOMIC_RELAXED);

		if (n)
			last = n;
	}
	return last;
}

/* ---- the summary ---- */

static void __attribute__((format(printf, 2, 3))) line(const char *what, const char *format, ...)
{
	va_list args;

	printf("%-22s", what);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

static void kills_tell(const struct recoveries *put_right)
{
	line("kills", "%llu by SIGKILL: %llu while attaching, %llu two at once, %llu all at once",
	     (ull)score.kill_count, (ull)score.opening_count, (ull)score.together_count,
	     (ull)score.all_count);
	line("inside a transaction", "%llu of the killed, at least; %llu rolled back, %llu completed",
	     (ull)score.inside_count, (ull)put_right->undone_count, (ull)put_right->completed_count);
	line("put right by", "%llu survivors on their way, %llu newcomers while attaching",
	     (ull)put_right->beside_count, (ull)put_right->attaching_count);
	line("one recovery took", "%.3f ms median, %.3f ms at most",
	     (double)series_median(&score.recoveries_ns) / 1e6,
	     (double)series_max(&score.recoveries_ns) / 1e6);
	line("next commit", "of a survivor: %.3f ms after the kill median, %.3f ms at most",
	     (double)series_median(&score.resumed_ns) / 1e6, (double)series_max(&score.resumed_ns) / 1e6);
	line("", "where others waited for the killed one's locks: %.3f ms median, %.3f ms at most",
	     (double)series_median(&score.freed_ns) / 1e6, (double)series_max(&score.freed_ns) / 1e6);
	line("longest pause", "of the slowest survivor: %.1f ms median, %.1f ms at most after a kill;",
	     (double)series_median(&score.pauses_ns) / 1e6, (double)series_max(&score.pauses_ns) / 1e6);
	line("", "without any kill: %.1f ms, %.1f ms (%u processes take turns on %ld processors)",
	     (double)series_median(&score.quiet_ns) / 1e6, (double)series_max(&score.quiet_ns) / 1e6,
	     score.worker_count, sysconf(_SC_NPROCESSORS_ONLN));
}

void score_tell(uint64_t killed_at_count, uint64_t end_count, const char *verify_line)
{
	uint64_t done = score_done();
	struct recoveries put_right = score_recoveries();

	printf("\n");
	kills_tell(&put_right);
	line("transactions", "%llu committed, none lost, none done twice",
	     (ull)(killed_at_count + end_count));
	line("", "of them %llu by processes that were killed before they could report it",
	     (ull)(killed_at_count - done));
	line("rate", "%.0f in a second, with all pauses and recoveries",
	     score.load_ns ? (double)done * 1e9 / (double)score.load_ns : 0.0);
	line("comparisons", "%llu full ones, %llu of them beside running loads: every byte right",
	     (ull)score.verify_count, (ull)score.verify_beside_count);
	line("fsck", "%llu times, clean at the end", (ull)score.fsck_count);
	line("at the end", "%s", verify_line);
	line("", "each record exactly once, sums exact, no block lost");
}
