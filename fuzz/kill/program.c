/* SPDX-License-Identifier: MIT
 *
 * program.c: see program.h.
 */
#include "program.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char *usage = "";

void program_usage(const char *text)
{
	usage = text;
}

void program_misused(void)
{
	fprintf(stderr, "%s", usage);
	exit(2);
}

uint64_t program_number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	if (*end || !*text)
		program_misused();
	return n;
}

uint64_t program_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void program_crashes_to(void (*on_crash)(int signal))
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};

	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		signal(signals[i], on_crash);
}
