/* SPDX-License-Identifier: MIT
 *
 * measure.c: clock, instruction counter, samples.
 *
 * What: one sample is a loop of some milliseconds after a short unmeasured one.
 * Why short: on a machine with other work a short sample often runs undisturbed.
 *
 * Invariants
 *   M1  A span that was preempted but never slept counts its processor time instead of the clock, so that
 *       others' work is not measured; a sleep counts in full.
 */
#include <linux/perf_event.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static int counter_fd = -1;
static cpu_set_t allowed; /* before bench_pin; empty: not known */

uint64_t bench_clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void bench_pin(void)
{
	cpu_set_t one;

	/* the highest allowed one: interrupts tend to the lowest */
	if (sched_getaffinity(0, sizeof allowed, &allowed))
		return;
	for (size_t cpu = CPU_SETSIZE; cpu-- > 0;) {
		if (!CPU_ISSET(cpu, &allowed))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof one, &one);
		return;
	}
}

void bench_pin_nth(unsigned n)
{
	unsigned left = CPU_COUNT(&allowed) ? n % (unsigned)CPU_COUNT(&allowed) : 0;
	cpu_set_t one;

	for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &allowed) || left--)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof one, &one);
		return;
	}
}

void bench_unpin(void)
{
	if (CPU_COUNT(&allowed))
		sched_setaffinity(0, sizeof allowed, &allowed);
}

bool bench_counter_open(void)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_HARDWARE,
				       .size = sizeof attr,
				       .config = PERF_COUNT_HW_INSTRUCTIONS,
				       .exclude_kernel = 1,
				       .exclude_hv = 1};

	if (counter_fd < 0)
		counter_fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	return counter_fd >= 0;
}

static uint64_t counter_read(void)
{
	uint64_t count = 0;

	return counter_fd >= 0 && read(counter_fd, &count, sizeof count) == sizeof count ? count : 0;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void bench_summarize(double *samples, unsigned count, struct bench_result *ret)
{
	qsort(samples, count, sizeof *samples, compare);
	ret->value = count % 2 ? samples[count / 2] : (samples[count / 2 - 1] + samples[count / 2]) / 2;
	ret->min = samples[0];
	ret->max = samples[count - 1];
	ret->reps = count;
}

/* Write-back takes the write permission of pages away; this gives it back before the clock runs. */
void bench_populate(void *p, size_t n)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	char *start = (char *)p + (-(uintptr_t)p & (page - 1));

	n = (n - (size_t)(start - (char *)p)) & ~(page - 1);
	if (!madvise(start, n, MADV_POPULATE_WRITE))
		return;
	for (size_t i = 0; i < n; i += page) {
		volatile char *byte = start + i;

		*byte = *byte;
	}
}

static void run(struct bench_meter *m, uint64_t op_count)
{
	m->loop(m->self, &m->rng, m->param, op_count);
}

void bench_calibrate(struct bench_meter *m, uint64_t sample_ns)
{
	uint64_t ns = 0;

	if (m->array)
		bench_populate(m->array, BENCH_ARRAY_SIZE);
	m->op_count = 32;
	while (ns < sample_ns / 4) {
		uint64_t start = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID);

		m->op_count *= 2;
		run(m, m->op_count);
		ns = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID) - start;
	}
	m->op_count = m->op_count * sample_ns / ns + 1;
}

void bench_span_begin(struct bench_span *span)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	span->sleep_count = usage.ru_nvcsw;
	span->preempt_count = usage.ru_nivcsw;
	span->cpu_ns = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID);
	span->wall_ns = bench_clock_ns(CLOCK_MONOTONIC);
}

uint64_t bench_span_end_ns(const struct bench_span *span)
{
	uint64_t wall_ns = bench_clock_ns(CLOCK_MONOTONIC) - span->wall_ns;
	uint64_t cpu_ns = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID) - span->cpu_ns;
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	if (usage.ru_nivcsw != span->preempt_count && usage.ru_nvcsw == span->sleep_count && cpu_ns < wall_ns)
		return cpu_ns;
	return wall_ns;
}

double bench_sample_ns(struct bench_meter *m, double *ret_instructions)
{
	struct bench_span span;
	uint64_t instructions, ns;

	if (m->array)
		bench_populate(m->array, BENCH_ARRAY_SIZE);
	run(m, m->op_count / 4);
	bench_span_begin(&span);
	instructions = counter_read();
	run(m, m->op_count);
	instructions = counter_read() - instructions;
	ns = bench_span_end_ns(&span);
	*ret_instructions = counter_fd >= 0 ? (double)instructions / (double)m->op_count : -1;
	return (double)ns / (double)m->op_count;
}
