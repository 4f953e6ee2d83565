/* SPDX-License-Identifier: MIT
 *
 * explore.h: the image at every store, recovered and checked.
 *
 * What: stores to a memfile are recorded while a transaction runs; afterwards they are applied one by one
 * to a copy of the image from before, and each state in between is opened by the library in another memfile
 * and held against the oracle.
 * Why recorded and replayed: at the store itself the library is in the middle of a call and cannot be
 * entered again; and a store of 8 bytes is cheaper to keep than an image.
 *
 * Invariants
 *   E1  The image before the transaction plus all recorded stores is the image after it, byte for byte;
 *       otherwise a store was missed and the run fails, whatever recovery says.
 *   E2  Once a cut came out as "after", no later cut of the same transaction comes out as "before".
 *   E3  An image that recovery left is left alike by a second open.
 *   E4  Recovery itself is cut at each of its stores (levels of depth 1) and must come to the state that it
 *       came to uncut; the one of a first opener, and the one of a process that joins others.
 *   E5  What the dead held counts no more, what the living hold counts: which of the two processes of the oracle is
 *       alive is part of what an image is held against.
 */
#ifndef PHEAP_KILL_EXPLORE_H
#define PHEAP_KILL_EXPLORE_H

#include "memfile.h"
#include "oracle.h"
#include "tags.h"

#define LEVELS 4u /* 0: the living heap; 1: its recovery; 2: recovery of a cut recovery; 3: one more */

struct event {
	uint64_t off;
	uint64_t data; /* bytes stored, little-endian; kind size: the new size */
	uint8_t n;     /* 1 to 8 bytes; 0: the file's size; MEMFILE_UNNAMED: its name goes; MEMFILE_SPACE */
	uint8_t phase, op;
};

struct level {
	struct memfile *file;
	unsigned depth;
	char *base; /* image before event `at` */
	uint64_t base_size;
	bool base_named;
	uint8_t base_holes[MEMFILE_BLOCKS];
	struct event *events;
	size_t count, room;
	struct event pending; /* reported, its bytes not yet read */
	bool pending_set, record;
	uint8_t stale[MEMFILE_PAGES]; /* pages of `file` that may differ from the base one level up */
};

struct explore {
	struct level levels[LEVELS];
	struct level *current; /* whose stores are being reported */
	struct oracle *oracle;
	const struct oracle_model *before, *after;
	uint64_t
		living; /* attachment of a member that goes on when the one that makes the calls dies; 0: none */
	uint32_t living_has;   /* ORACLE_MINE or ORACLE_THEIRS: what counts as long as that one lives */
	bool ephemeral;	       /* with all its users the heap is gone */
	unsigned depth_max;    /* 0: no cut recoveries */
	unsigned nested_every; /* every n-th point's recovery is cut, too */
	unsigned again_every;  /* every n-th point is opened a second time */
	unsigned follow_every; /* after every n-th point life goes on */
	unsigned
		join_every; /* at every n-th point a living process works on before it recovers; each point of a commit */
	unsigned fsck_every;
	const char *fsck;	 /* path of pheap-fsck, or NULL */
	const char *sample_path; /* real file for it */
	const char *image_path;	 /* where the first bad image goes, or NULL */
	uint64_t seed, script, tx;
	uint64_t turn; /* a number for each point of a script: what is sampled there, a replay samples too */
	bool seen_after, published, stop;

	uint64_t points, nested_points, rejoin_points, follow_count, again_count, join_count, gone_count,
		fsck_count, store_count;
	uint64_t points_max;
	uint64_t op_calls[ORACLE_OP_COUNT], op_points[ORACLE_OP_COUNT], op_bad[ORACLE_OP_COUNT];
	uint64_t tag_points[TAG_COUNT], tag_bad[TAG_COUNT];
	uint64_t violations, violations_max;
	char follower_trace[6000]; /* calls of the life after a recovery that went wrong */
	/* For the message of a crash inside recovery. */
	size_t at;
	struct event where;
};

void explore_init(struct explore *x);
void explore_free(struct explore *x);
/* From now on the living heap is what memfile 0 holds. */
void explore_rebase(struct explore *x);
/* Reporting of stores to the living heap. */
void explore_on(struct explore *x);
void explore_off(struct explore *x);
/* Looks at every image since the last call; `before` and `after` are the oracle's two models. */
void explore_run(struct explore *x, const struct oracle_model *before, const struct oracle_model *after);
void explore_violation(struct explore *x, const struct event *e, const char *what, const char *why);

/* join.c: the heap is recovered not by a first opener but by one who works beside what the dead one left.
 * l: loaded, reported. */
int explore_join(struct explore *x, struct level *l, char *why, size_t why_size);
/* fsck.c: runs x->fsck on an image; the result must be one of the models. 0 or -1 with why. */
int explore_fsck(struct explore *x, const char *image, uint64_t size, char *why, size_t why_size);
/* The same by one that only joins and recovers; record: for cuts in that. */
int explore_rejoin(struct explore *x, struct level *l, bool record, char *why, size_t why_size);
/* Whose: of the oracle's processes, who lives. Which model fits the heap in l, by the library and as bytes: 1 before,
 * 2 after, 3 both; -1 with why. */
int explore_match(struct explore *x, pheap *h, const struct level *l, uint32_t whose, char *why,
		  size_t why_size);
/* From now on stores to l are reported; record: kept as its events. NULL: none are. */
void explore_report(struct explore *x, struct level *l, bool record);

#endif
