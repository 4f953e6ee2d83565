/* SPDX-License-Identifier: MIT
 *
 * examine.h: what a disk holds after a power cut: mounted, so that its file system recovers, and the heap opened as after
 * another boot.
 *
 * Invariants
 *   X1  What crashes or hangs here is a violation, and nothing but a child.
 *   X2  A heap that was not clean went through power recovery, or the library took a disk for the one it had.
 */
#ifndef PHEAP_POWER_EXAMINE_H
#define PHEAP_POWER_EXAMINE_H

#include <stdbool.h>
#include <stdint.h>

#include "deeds.h"

struct examine {
	const char *fs, *fsck; /* fsck NULL: none */
	const struct deeds_plan *plan;
	struct deeds_board *board; /* of the crew: for complaints */
	uint64_t random;
	bool same_boot_too; /* the crew's own disk is still in use: another device says enough */
	uint64_t images, recovered, clean, absent, fscked, killed, unmountable;
};

/* Memory that is shared with the children; once. */
int examine_init(void);
/* A heap of another plan. */
void examine_reset(void);
/* The disk behind fd. 0, or -1 with board->why. */
int examine(struct examine *x, int fd, const struct deeds_sample *s);

#endif
