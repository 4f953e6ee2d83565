/* SPDX-License-Identifier: MIT
 *
 * cases.h: one kind of damage each, and what pheap-fsck must say and do about it.
 */
#ifndef TEST_CASES_H
#define TEST_CASES_H

#include "image.h"

#define CODES_MAX 4u
#define LEFT 4	/* errors left */
#define FIXED 1 /* errors corrected */

struct fsck_case {
	const char *name;
	void (*damage)(struct image *im);
	/* Exit codes with -n -f, -p -f, -y -f. A run with -n changes no byte; one with -p that gives 4
	 * neither. */
	int no, preen, yes;
	const char *codes[CODES_MAX]; /* problems that -n must name */
	/* After -y; NULL: nothing special. Prints why and returns false. */
	bool (*check)(const struct image *before, const struct image *after);
};

/* All of them: fsck_cases (cases.c), then resource_cases (resources.c), then wal_cases (wal.c). NULL:
 * there are no more. */
const struct fsck_case *fsck_case(unsigned i);
/* Is its base image one with a WAL? */
bool fsck_case_wal(const struct fsck_case *c);
const struct fsck_case *fsck_case_named(const char *name);

extern const struct fsck_case fsck_cases[], resource_cases[], wal_cases[];
extern const unsigned fsck_case_count, resource_case_count, wal_case_count;

#endif
