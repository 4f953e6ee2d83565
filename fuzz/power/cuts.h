/* SPDX-License-Identifier: MIT
 *
 * cuts.h: power cuts at chosen moments of a life, each with many images of the disk; what recovery makes of
 * them.
 *
 * Invariants
 *   C1  An image opens, and holds one of the states between the last acknowledged commit and the last begun,
 *       whole.
 *   C2  Recovery, cut anywhere and done again, comes to the very state that it came to uncut.
 *   C3  Life after a recovery is as good as any: it is cut, too.
 *   C4  A kill first, recovery by another process of the same boot, and then the cut: as C1, with what the
 *       kill left as the last begun.
 *   C5  After power recovery no lane has a generation that it had, and the log no LSN.
 */
#ifndef PHEAP_POWER_CUTS_H
#define PHEAP_POWER_CUTS_H

#include "life.h"

struct cuts {
	struct life lives[LIVES];
	uint64_t seed, script, step;
	uint64_t images_max, turn, rng;
	unsigned store_cuts;   /* in each step of a script, at stores */
	unsigned edge_images;  /* before each sync */
	unsigned subset_bits;  /* all subsets of up to so many dirty units, at some syncs */
	unsigned nested_every; /* of so many images one is recovered, cut again, and lives on */
	unsigned kill_every;   /* in one of so many steps somebody is killed first */
	unsigned fsck_every, depth_max;
	const char *fsck, *sample_path, *image_path;
	uint64_t deadline_ms; /* 0: none */
	bool stop;
	/* Of the image being looked at, for messages, also from a signal handler. */
	char place[300];
	uint64_t images, unit_images[3], pattern_images[DISK_PATTERNS + 2], garbage_images, subset_sets;
	uint64_t nested_count, nested_images, kill_count, kill_images, again_count, fsck_count, refused_count;
	uint64_t edges, cuts, lost_count, kept_count, steps;
	uint64_t violations, violations_max;
};

void cuts_init(struct cuts *x);
void cuts_free(struct cuts *x);
/* Looks at images of everything that the life at the bottom recorded since the last call. */
void cuts_explore(struct cuts *x, struct life *l);
void cuts_violation(struct cuts *x, const struct life *l, const char *what, const char *why);
bool cuts_over(const struct cuts *x);

#endif
