/* SPDX-License-Identifier: MIT
 *
 * fake.h: a table of system calls for attacks: identities that fit any file, no waiting, no syncing, counted.
 *
 * Why not the real table: a damaged file must count as one that was killed in this boot, else it is
 * refused before anything in it is looked at; and thousands of files a second must not wait for disks
 * or locks.
 */
#ifndef HOSTILE_FAKE_H
#define HOSTILE_FAKE_H

#include <stdbool.h>

#include "os.h"

struct fake {
	bool passive;	   /* files may not be opened for writing */
	long fds, maps;	   /* open descriptors and mappings of the library */
	uint64_t slept_ns; /* virtual: added to the clock */
	/* The call to fail: of function `fail_fn`, counted from 0. fail_rc 0: none. */
	unsigned fail_fn;
	long fail_at;
	int fail_rc;
	bool failed; /* it has been failed */
	long calls[64];
};

extern struct fake fake;
extern const struct ph_os fake_os;
extern const char *const fake_names[]; /* of functions that can fail, NULL at the end; the index is fail_fn */

/* Forgets counts and failures; installs the table. */
void fake_reset(void);

#endif
