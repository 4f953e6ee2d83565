/* SPDX-License-Identifier: MIT
 *
 * alloc_space.h: what the processes of alloc.c share: descriptors, bitmap, words, lanes; what each
 * operation does to them, and what must hold of them.
 */
#ifndef PH_TEST_ALLOC_SPACE_H
#define PH_TEST_ALLOC_SPACE_H

#include "explore.h"

#define PROC_MAX 3
#define CHUNKS 2

enum variant {
	RULE,
	USER_LANE_FIRST, /* recovery goes by lane number: the user's lane before the one that makes its run */
	USER_LANE_FIRST_LENIENT, /* the same, and a commit whose tests fail is just an abort */
	LATCH_EARLY,
	LATCH_STORED,
	NO_DIRECTORY,
	IDLE_FIRST,
	RECOVER_IDLE_FIRST,
	WORD_STOLEN,
	MAKE_BY_HELPER,
	ALLOC_UNOWNED,
	RECLAIM_UNOWNED,
	RECLAIM_ONE_LOOK,
	CLAIM_ONE_LOOK,
	TAKE_ONE_LOOK,
};

enum desc { FREE, RUN, CONT, EXTENT };
enum lane_step { IDLE, ACTIVE, COMMITTED };
enum op { NOTHING, SET, CLEAR, EXTENT_MAKE, EXTENT_FREE, LOG, MAKE, RECLAIM };

/* What a process may do. */
#define DO_ALLOC 1u
#define DO_FREE 2u
#define DO_EXTENT 4u
#define DO_LOG 8u
#define DO_RECLAIM 16u
#define DO_ALL 31u
#define DO_BLOCKS (DO_ALLOC | DO_FREE)

/* The next operation on shared memory; names say which function of the code. */
/* clang-format off */
enum pc {
	BEGIN,
	ALLOC_DESC, ALLOC_OWN, ALLOC_AGAIN, ALLOC_PICK,			      /* ph_run_alloc, run_take */
	CLAIM, CLAIM_AGAIN, MAKE_BEGIN,					      /* chunk_take, run_make */
	RECLAIM_DESC, RECLAIM_LOOK, RECLAIM_OWN, RECLAIM_AGAIN, RECLAIM_EMPTY, /* reclaim_collect */
	CHOSEN, LATCH, DIRECTORY, TEST, COMMIT, APPLY, TO_IDLE,		      /* ph_tx_commit_step, or abort */
	LATCH_BACK,							      /* variant LATCH_STORED */
};
/* clang-format on */

struct lane {
	uint8_t step, op, arg;
};

struct proc {
	uint8_t pc, alive, left, menu;
	uint8_t helper;	       /* the transaction at hand is the internal one */
	uint8_t chunk;	       /* next to claim */
	uint8_t at;	       /* step within apply */
	uint8_t target;	       /* process under recovery + 1 */
	uint8_t second, again; /* recovery: second lane, step within apply */
};

struct state {
	struct proc p[PROC_MAX];
	struct lane lanes[2 * PROC_MAX]; /* of users, then internal ones */
	uint8_t desc[CHUNKS], bits;
	uint8_t owner[CHUNKS], latch, directory; /* words: 0, or 1 + 2 * lane + over */
	uint8_t lock[CHUNKS];			 /* the users' locks of what is in the chunk */
	uint8_t said_desc[CHUNKS], said_bits;	 /* by the commits so far */
	uint8_t kills, broken;			 /* broken: 1 a test failed, 2 committed over something */
	uint8_t pad[2];
};
_Static_assert(sizeof(struct state) % 8 == 0, "hashed by words");

static enum variant variant;
static int procs;
static uint8_t menus[PROC_MAX], kills, transactions;

static inline int lane_of(const struct state *s, int i)
{
	return s->p[i].helper ? PROC_MAX + i : i;
}

static inline int proc_of(int lane)
{
	return lane % PROC_MAX;
}

static inline void lane_idle(struct state *s, int lane)
{
	uint8_t word = (uint8_t)(1 + 2 * lane);

	for (int k = 0; k < CHUNKS; k++) {
		s->owner[k] = (uint8_t)(s->owner[k] + (s->owner[k] == word));
		s->lock[k] = (uint8_t)(s->lock[k] + (s->lock[k] == word));
	}
	s->latch = (uint8_t)(s->latch + (s->latch == word));
	s->directory = (uint8_t)(s->directory + (s->directory == word));
	memset(&s->lanes[lane], 0, sizeof(s->lanes[lane]));
}

static inline int word_lane(uint8_t word)
{
	return (word - 1) / 2;
}

static inline bool word_held(const struct state *s, uint8_t word)
{
	if (!(word & 1))
		return false;
	return variant != WORD_STOLEN || s->p[proc_of(word_lane(word))].alive;
}

static inline bool word_take(const struct state *s, uint8_t *word, int lane)
{
	if (word_held(s, *word) && *word != 1 + 2 * lane)
		return false;
	*word = (uint8_t)(1 + 2 * lane);
	return true;
}

/* One store of applying the lane's log; true: that was the last. */
static inline bool op_apply(struct state *s, int lane, unsigned at)
{
	unsigned arg = s->lanes[lane].arg;

	switch ((enum op)s->lanes[lane].op) {
	case SET:
		s->bits |= (uint8_t)(1u << arg);
		return true;
	case CLEAR:
		s->bits &= (uint8_t) ~(1u << arg);
		return true;
	case EXTENT_MAKE:
		s->desc[arg] = EXTENT;
		return true;
	case EXTENT_FREE:
		s->desc[arg] = FREE;
		return true;
	case MAKE: /* log.c:ph_log_apply_desc */
		if (at == 0)
			s->bits = 0;
		else
			s->desc[2 - at] = at == 1 ? CONT : RUN;
		return at == 2;
	case RECLAIM:
		s->desc[at] = FREE;
		return at == 1;
	default:
		return true;
	}
}

/* The commit point: from here on this is the truth. */
static inline void op_commit(struct state *s, int lane)
{
	unsigned arg = s->lanes[lane].arg;
	bool over = false;

	switch ((enum op)s->lanes[lane].op) {
	case SET:
		over = s->said_desc[0] != RUN || (s->said_bits >> arg & 1);
		s->said_bits |= (uint8_t)(1u << arg);
		break;
	case CLEAR:
		s->said_bits &= (uint8_t) ~(1u << arg);
		break;
	case EXTENT_MAKE:
		over = s->said_desc[arg] != FREE;
		s->said_desc[arg] = EXTENT;
		break;
	case EXTENT_FREE:
		s->said_desc[arg] = FREE;
		break;
	case MAKE:
		over = s->said_desc[0] != FREE || s->said_desc[1] != FREE;
		s->said_desc[0] = RUN;
		s->said_desc[1] = CONT;
		s->said_bits = 0;
		break;
	case RECLAIM:
		over = s->said_bits != 0 || s->said_desc[0] != RUN;
		s->said_desc[0] = s->said_desc[1] = FREE;
		break;
	default:
		break;
	}
	if (over)
		s->broken = 2;
	s->lanes[lane].step = COMMITTED;
}

/* ops.c:masks_test, descs_test */
static inline bool op_test(const struct state *s, int lane)
{
	unsigned arg = s->lanes[lane].arg;

	switch ((enum op)s->lanes[lane].op) {
	case SET:
		return !(s->bits >> arg & 1) && s->desc[0] == RUN;
	case CLEAR:
		return (s->bits >> arg & 1) && s->desc[0] == RUN;
	case EXTENT_MAKE:
		return s->desc[arg] == FREE;
	case EXTENT_FREE:
		return s->desc[arg] == EXTENT;
	case MAKE:
		return s->desc[0] == FREE;
	case RECLAIM:
		return s->desc[0] == RUN;
	default:
		return true;
	}
}

static inline bool needs_latch(uint8_t op)
{
	return op == SET || op == CLEAR || op == MAKE || op == RECLAIM;
}

static inline bool needs_directory(uint8_t op)
{
	return variant != NO_DIRECTORY &&
	       (op == EXTENT_MAKE || op == EXTENT_FREE || op == MAKE || op == RECLAIM);
}

/* Space that lane l stores into, as what it is going to be; -1: none. */
static inline int lane_uses(const struct state *s, int l)
{
	uint8_t op = s->lanes[l].op;

	return op == SET || op == EXTENT_MAKE || op == LOG ? s->lanes[l].arg : -1;
}

static inline bool in_flight(const struct state *s)
{
	for (int l = 0; l < 2 * PROC_MAX; l++)
		if (s->lanes[l].step != IDLE)
			return true;
	for (int i = 0; i < procs; i++)
		if (s->p[i].alive && (s->p[i].pc != BEGIN || s->p[i].target))
			return true;
	return false;
}

static inline const char *alloc_bad(const void *state)
{
	const struct state *s = state;

	if (s->broken)
		return s->broken == 1 ? "a commit failed its tests" : "committed over something";
	for (int l = 0; l < PROC_MAX; l++) {
		int k = s->lanes[l].step == IDLE ? -1 : lane_uses(s, l);

		for (int m = 0; m < l && k >= 0; m++)
			if (s->lanes[m].step != IDLE && lane_uses(s, m) == k)
				return "space is in use twice";
		if (k >= 0 && s->lanes[l].step == ACTIVE &&
		    (s->said_desc[k] == EXTENT || (s->said_desc[0] == RUN && (s->said_bits >> k & 1))))
			return "space is in use that is committed as allocated";
	}
	if (in_flight(s))
		return NULL;
	if (memcmp(s->desc, s->said_desc, sizeof(s->desc)) != 0)
		return "nothing is in flight, and a descriptor is not what was committed";
	if (s->said_desc[0] == RUN && s->bits != s->said_bits)
		return "nothing is in flight, and the bitmap is not what was committed";
	return NULL;
}

#endif
