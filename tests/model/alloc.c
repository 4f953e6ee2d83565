/* SPDX-License-Identifier: MIT
 *
 * alloc.c: model of the allocator's commits: src/run.c, chunk.c, ops.c, tx.c, recovery.c.
 *
 * What: two chunks; a run covers both and has one block in each; an extent, or an extension of a log, covers
 * one.
 * Every process has a lane for its user and one for internal transactions, which make runs and reclaim them.
 * A step is one load, store or CAS of what they share. Any process may be killed at any step, also while it
 * recovers another one.
 * Why so small: every rule is about two parties and a dead third; more chunks repeat the same.
 *
 * What is merged into one step: a CAS with the look whether the word is free (a word that is free stays free
 * until somebody changes it), and bytes of a record with the `used` word that shows them.
 *
 * Invariants checked
 *   M1  Nobody uses space that somebody else uses, or that is committed as allocated.
 *   M2  With no transaction in flight, descriptors and bitmaps say what was committed: nothing leaks, nothing
 *       comes back.
 *   M3  No commit fails its tests: no user here frees anything twice.
 *   M4  Everybody comes to an end, whoever else dies.
 */
#include "alloc_space.h"

static void go(struct explorer *ex, struct state *n, int i, enum pc pc, const char *label)
{
	n->p[i].pc = (uint8_t)pc;
	step_to(ex, n, false, i, label);
}

/* The transaction at hand is over. */
static void end(struct explorer *ex, const struct state *s, int i, const char *label)
{
	struct state n = *s;

	lane_idle(&n, lane_of(s, i));
	n.p[i].at = 0;
	if (s->p[i].helper && s->lanes[PROC_MAX + i].op == MAKE) {
		n.p[i].helper = 0;
		go(ex, &n, i, ALLOC_PICK, label);
		return;
	}
	n.p[i].helper = n.p[i].chunk = 0;
	n.p[i].left--;
	go(ex, &n, i, BEGIN, label);
}

static bool committed_now(const struct state *s, enum op op, int arg)
{
	for (int l = 0; l < PROC_MAX; l++)
		if (s->lanes[l].step == COMMITTED && s->lanes[l].op == op && s->lanes[l].arg == arg)
			return true;
	return false;
}

/* What is allocated can be freed by who has the lock of it, once its maker's transaction is over. */
static void begin_free(struct explorer *ex, const struct state *s, int i, int k)
{
	bool block = s->said_desc[0] == RUN && (s->said_bits >> k & 1);
	bool extent = s->said_desc[k] == EXTENT;
	struct state n = *s;

	if ((!block && !extent) || committed_now(s, block ? SET : EXTENT_MAKE, k) ||
	    !word_take(s, &n.lock[k], i))
		return;
	n.lanes[i] = (struct lane){ACTIVE, block ? CLEAR : EXTENT_FREE, (uint8_t)k};
	go(ex, &n, i, CHOSEN, block ? "begins, frees a block" : "begins, frees an extent");
}

static void step_begin(struct explorer *ex, const struct state *s, int i)
{
	unsigned menu = s->p[i].left ? s->p[i].menu : 0;
	struct state n = *s;

	n.lanes[i].step = ACTIVE;
	if (menu & DO_ALLOC)
		go(ex, &n, i, ALLOC_DESC, "begins, wants a block");
	for (int k = 0; k < CHUNKS; k++) {
		if (menu & DO_FREE)
			begin_free(ex, s, i, k);
		n.p[i].chunk = (uint8_t)k;
		n.lanes[i].arg = (uint8_t)(k + 1); /* says in claim_end which: 0 is for a run */
		if (menu & DO_EXTENT)
			go(ex, &n, i, CLAIM, k ? "begins, wants chunk 1" : "begins, wants chunk 0");
		n.lanes[i].arg = (uint8_t)(k + 1 + CHUNKS);
		if (menu & DO_LOG)
			go(ex, &n, i, CLAIM, k ? "begins, log into chunk 1" : "begins, log into chunk 0");
	}
	n = *s;
	n.p[i].helper = 1;
	n.lanes[PROC_MAX + i].step = ACTIVE;
	if (menu & DO_RECLAIM)
		go(ex, &n, i, RECLAIM_DESC, "begins to reclaim");
}

static void step_alloc(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;

	switch ((enum pc)s->p[i].pc) {
	case ALLOC_DESC:
		if (s->desc[0] == RUN)
			go(ex, &n, i, ALLOC_OWN, "sees the run");
		else if (s->desc[0] == FREE && s->desc[1] == FREE)
			go(ex, &n, i, CLAIM, "sees free chunks");
		else
			end(ex, s, i, "sees no space: idle");
		break;
	case ALLOC_OWN:
		if (variant == ALLOC_UNOWNED || word_take(s, &n.owner[0], i))
			go(ex, &n, i, variant == TAKE_ONE_LOOK ? ALLOC_PICK : ALLOC_AGAIN, "owns the run");
		else
			end(ex, s, i, "run is owned: idle");
		break;
	case ALLOC_AGAIN:
		if (s->desc[0] == RUN)
			go(ex, &n, i, ALLOC_PICK, "still a run");
		else
			end(ex, s, i, "run is gone: idle");
		break;
	case ALLOC_PICK:
		if (s->bits == 3)
			end(ex, s, i, "no free block: idle");

		for (int k = 0; k < CHUNKS; k++) {
			if (s->bits >> k & 1)
				continue;
			n.lanes[i] = (struct lane){ACTIVE, SET, (uint8_t)k};
			go(ex, &n, i, CHOSEN, k ? "chooses block 1" : "chooses block 0");
		}
		break;
	default:
		break;
	}
}

/* The chunk, or the last of two for a run, is ours. */
static void claim_end(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;
	int arg = s->lanes[i].arg;

	if (arg == 0 && s->p[i].chunk + 1 < CHUNKS) {
		n.p[i].chunk++;
		go(ex, &n, i, CLAIM, "has chunk 0");
	} else if (arg == 0) {
		n.p[i].chunk = 0;
		go(ex, &n, i, MAKE_BEGIN, "has both chunks");
	} else {
		n.lanes[i].op = arg > CHUNKS ? LOG : EXTENT_MAKE;
		n.lanes[i].arg = (uint8_t)((arg - 1) % CHUNKS);
		go(ex, &n, i, CHOSEN, "uses the chunk");
	}
}

static void step_claim(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;
	int k = s->p[i].chunk;

	switch ((enum pc)s->p[i].pc) {
	case CLAIM:
		/* The look before the CAS: in the variant it is the only one, so it is a step of its own. */
		if (variant == CLAIM_ONE_LOOK && s->desc[k] == FREE)
			go(ex, &n, i, CLAIM_AGAIN, "sees it free");
		else if (variant == CLAIM_ONE_LOOK)
			end(ex, s, i, "chunk is not free: idle");
		else if (word_take(s, &n.owner[k], i))
			go(ex, &n, i, CLAIM_AGAIN, "owns the chunk");
		else
			end(ex, s, i, "chunk is owned: idle");
		break;
	case CLAIM_AGAIN:
		if (variant == CLAIM_ONE_LOOK && word_take(s, &n.owner[k], i))
			claim_end(ex, &n, i);
		else if (variant != CLAIM_ONE_LOOK && s->desc[k] == FREE)
			claim_end(ex, s, i);
		else
			end(ex, s, i, "chunk is not free: idle");
		break;
	case MAKE_BEGIN:
		n.p[i].helper = 1;
		n.lanes[PROC_MAX + i] = (struct lane){ACTIVE, MAKE, 0};
		if (variant == MAKE_BY_HELPER)
			n.owner[0] = n.owner[1] = (uint8_t)(1 + 2 * (PROC_MAX + i));
		go(ex, &n, i, LATCH, "internal: begins to make the run");
		break;
	default:
		break;
	}
}

static void step_reclaim(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;

	switch ((enum pc)s->p[i].pc) {
	case RECLAIM_DESC:
		if (s->desc[0] == RUN)
			go(ex, &n, i, RECLAIM_LOOK, "internal: sees the run");
		else
			end(ex, s, i, "internal: no run: idle");
		break;
	case RECLAIM_LOOK:
		if (s->bits == 0)
			go(ex, &n, i, RECLAIM_OWN, "internal: run looks empty");
		else
			end(ex, s, i, "internal: run is in use: idle");
		break;
	case RECLAIM_OWN:
		if (variant == RECLAIM_UNOWNED || word_take(s, &n.owner[0], PROC_MAX + i))
			go(ex, &n, i, RECLAIM_AGAIN, "internal: owns the run");
		else
			end(ex, s, i, "internal: run is owned: idle");
		break;
	case RECLAIM_AGAIN:
		if (s->desc[0] == RUN)
			go(ex, &n, i, RECLAIM_EMPTY, "internal: still a run");
		else
			end(ex, s, i, "internal: run is gone: idle");
		break;
	case RECLAIM_EMPTY:
		n.lanes[PROC_MAX + i].op = RECLAIM;
		if (s->bits == 0 || variant == RECLAIM_ONE_LOOK)
			go(ex, &n, i, LATCH, "internal: still empty");
		else
			end(ex, s, i, "internal: not empty: idle");
		break;
	default:
		break;
	}
}

/* tx.c:ph_tx_commit_step */
static void step_commit(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;
	int lane = lane_of(s, i);
	uint8_t op = s->lanes[lane].op;

	switch ((enum pc)s->p[i].pc) {
	case CHOSEN:
		end(ex, s, i, "aborts: idle");
		if (op != LOG)
			go(ex, &n, i, needs_latch(op) ? LATCH : DIRECTORY, "begins to commit");
		break;
	case LATCH:
		if (word_take(s, &n.latch, lane))
			go(ex, &n, i, needs_directory(op) ? DIRECTORY : TEST, "latch of the run");
		break;
	case DIRECTORY:
		if (!needs_directory(op) || word_take(s, &n.directory, lane))
			go(ex, &n, i, TEST, "latch of the directory");
		break;
	case TEST:
		if (op_test(s, lane)) {
			go(ex, &n, i, COMMIT, "tests");
		} else if (variant == USER_LANE_FIRST_LENIENT) {
			end(ex, s, i, "test fails: idle");
		} else {
			n.broken = 1;
			go(ex, &n, i, COMMIT, "test FAILS");
		}
		break;
	case COMMIT:
		op_commit(&n, lane);
		if (variant == LATCH_EARLY)
			n.latch = 0;
		if (variant == IDLE_FIRST)
			n.lanes[lane].step = IDLE;
		go(ex, &n, i, APPLY, "committed");
		break;
	case APPLY:
		if (op_apply(&n, lane, s->p[i].at))
			go(ex, &n, i, TO_IDLE, "applies, last store");
		else {
			n.p[i].at++;
			step_to(ex, &n, false, i, "applies");
		}
		break;
	case TO_IDLE:
		if (variant == LATCH_STORED && needs_latch(op) && !s->p[i].helper) {
			lane_idle(&n, lane);
			n.lanes[lane].op = NOTHING;
			go(ex, &n, i, LATCH_BACK, "idle");
		} else {
			end(ex, s, i, "idle");
		}
		break;
	case LATCH_BACK:
		n.latch = 0;
		end(ex, &n, i, "stores 0 into the latch");
		break;
	default:
		break;
	}
}

/* recovery.c: both lanes of a dead process; killed in between, the next one begins again. */
static void step_recovery(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;
	bool user_first = variant == USER_LANE_FIRST || variant == USER_LANE_FIRST_LENIENT;
	int t = s->p[i].target - 1, lane = (user_first == (s->p[i].second != 0) ? PROC_MAX : 0) + t;
	const struct lane *l = &s->lanes[lane];

	if (l->step == COMMITTED && s->p[i].again != UINT8_MAX && variant != RECOVER_IDLE_FIRST) {
		n.p[i].again = op_apply(&n, lane, s->p[i].again) ? UINT8_MAX : (uint8_t)(n.p[i].again + 1);
		step_to(ex, &n, false, i,
			lane < PROC_MAX ? "recovery: applies the user's log"
					: "recovery: applies the internal log");
		return;
	}
	lane_idle(&n, lane);
	n.p[i].again = 0;
	n.p[i].second = !s->p[i].second;
	if (s->p[i].second)
		n.p[i].target = 0;
	step_to(ex, &n, false, i,
		lane < PROC_MAX ? "recovery: user's lane idle" : "recovery: internal lane idle");
}

static void recovery_claim(struct explorer *ex, const struct state *s, int i, int t)
{
	struct state n = *s;

	if (s->p[t].alive || (s->lanes[t].step == IDLE && s->lanes[PROC_MAX + t].step == IDLE))
		return;
	for (int j = 0; j < procs; j++)
		if (s->p[j].target == t + 1)
			return;
	n.p[i].target = (uint8_t)(t + 1);
	step_to(ex, &n, false, i, "recovery: takes the slot byte of a dead member");
}

/* At begin, because something else made it look; or because the word that it waits for is held. */
static void step_look_dead(struct explorer *ex, const struct state *s, int i)
{
	uint8_t word = s->p[i].pc == LATCH ? s->latch : s->directory;

	if (s->p[i].pc == BEGIN)
		for (int t = 0; t < procs; t++)
			recovery_claim(ex, s, i, t);
	else if ((s->p[i].pc == LATCH || s->p[i].pc == DIRECTORY) && word_held(s, word))
		recovery_claim(ex, s, i, proc_of(word_lane(word)));
}

static void alloc_steps(struct explorer *ex, const void *state)
{
	const struct state *s = state;

	for (int i = 0; i < procs; i++) {
		if (!s->p[i].alive)
			continue;
		if (s->kills && (s->p[i].pc != BEGIN || s->p[i].target)) {
			struct state n = *s;

			n.kills--;
			memset(&n.p[i], 0, sizeof(n.p[i]));
			step_to(ex, &n, true, i, "KILLED");
		}
		if (s->p[i].target) {
			step_recovery(ex, s, i);
			continue;
		}
		step_look_dead(ex, s, i);
		if (s->p[i].pc == BEGIN)
			step_begin(ex, s, i);
		step_alloc(ex, s, i);
		step_claim(ex, s, i);
		step_reclaim(ex, s, i);
		step_commit(ex, s, i);
	}
}

static void alloc_first(void *state)
{
	struct state *s = state;

	for (int i = 0; i < procs; i++) {
		s->p[i].alive = 1;
		s->p[i].left = transactions;
		s->p[i].menu = menus[i];
	}
	s->kills = kills;
}

static bool alloc_done(const void *state)
{
	const struct state *s = state;

	for (int i = 0; i < procs; i++)
		if (s->p[i].alive && (s->p[i].left || s->p[i].target))
			return false;
	return true;
}

static const struct model alloc_model = {
	.state_size = sizeof(struct state),
	.first = alloc_first,
	.steps = alloc_steps,
	.bad = alloc_bad,
	.done = alloc_done,
};

struct plan {
	const char *name;
	enum variant variant;
	uint8_t transactions, kills;
	uint8_t menus[PROC_MAX]; /* 0: no such process */
};

/* clang-format off */
static const struct plan plans[] = {
	{"recovery by lane number, chunk given twice", USER_LANE_FIRST_LENIENT, 1, 1, {DO_ALLOC, DO_ALLOC, DO_LOG}},
	{"recovery by lane number, commit fails", USER_LANE_FIRST, 1, 1, {DO_ALLOC, DO_ALLOC, DO_EXTENT}},
	{"latches given back before applying", LATCH_EARLY, 2, 1, {DO_BLOCKS, DO_BLOCKS}},
	{"latch given back by a plain store", LATCH_STORED, 2, 1, {DO_BLOCKS, DO_BLOCKS, DO_ALLOC}},
	{"no directory latch", NO_DIRECTORY, 2, 1, {DO_EXTENT | DO_FREE, DO_EXTENT | DO_FREE}},
	{"idle before applying", IDLE_FIRST, 1, 1, {DO_ALLOC, DO_ALLOC}},
	{"recovery idle before applying", RECOVER_IDLE_FIRST, 1, 1, {DO_ALLOC, DO_ALLOC}},
	{"words of the dead are taken without recovery", WORD_STOLEN, 1, 1, {DO_ALLOC, DO_ALLOC}},
	{"chunks of a new run owned by the internal lane", MAKE_BY_HELPER, 1, 0, {DO_ALLOC, DO_ALLOC}},
	{"blocks chosen without owning the run", ALLOC_UNOWNED, 2, 0, {DO_ALLOC, DO_ALLOC}},
	{"reclaim without owning the run", RECLAIM_UNOWNED, 2, 0, {DO_ALLOC, DO_RECLAIM}},
	{"reclaim looks only before it owns", RECLAIM_ONE_LOOK, 2, 0, {DO_ALLOC, DO_RECLAIM}},
	{"chunk claimed with a look before only", CLAIM_ONE_LOOK, 1, 0, {DO_EXTENT, DO_EXTENT}},
	{"run taken with a look before only", TAKE_ONE_LOOK, 2, 0, {DO_ALLOC, DO_RECLAIM}},
	{"the rule, 2 processes, everything", RULE, 2, 2, {DO_ALL, DO_ALL}},
	{"the rule, 2 processes, everything, 3 transactions each", RULE, 3, 2, {DO_ALL, DO_ALL}},
	{"the rule, 3 processes, everything", RULE, 1, 2, {DO_ALL, DO_ALL, DO_ALL}},
	{"the rule, 3 processes, 2 transactions each", RULE, 2, 1,
	 {DO_BLOCKS, DO_ALLOC | DO_RECLAIM, DO_EXTENT | DO_RECLAIM}},
	{"the rule, 3 processes, make and reclaim", RULE, 1, 3, {DO_ALLOC, DO_ALLOC | DO_RECLAIM, DO_LOG}},
};
/* clang-format on */

int main(int argc, char **argv)
{
	struct tally t = {.trace = argc > 1 && strcmp(argv[1], "-v") == 0};

	for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
		const struct plan *plan = &plans[i];
		char name[96];

		variant = plan->variant;
		transactions = plan->transactions;
		kills = plan->kills;
		memcpy(menus, plan->menus, sizeof(menus));
		for (procs = 0; procs < PROC_MAX && menus[procs]; procs++)
			;
		snprintf(name, sizeof(name), "alloc, %s", plan->name);
		run_count(&t, &alloc_model, name, variant != RULE);
	}
	return tally_end(&t);
}
