/* SPDX-License-Identifier: MIT
 *
 * gate.c: model of src/gate.c: who may run when the group lock changes between concurrent, reading, exclusive
 * and biased.
 *
 * What: two or three processes with one lane each begin and end transactions of their modes. A step is one
 * load, store or CAS of what they share. The store that announces a transaction may stay in the process's
 * store buffer past its next loads (G2), until a locked operation of its own, a later store, or somebody's
 * membarrier. Any process may be killed at any step and started again in its lane; who waits for a dead one
 * recovers it, and may be killed doing that.
 * Why generations are one bit: a word that names an older generation of a lane is free whatever its number
 * is, so a word is {lane, is that generation over}.
 *
 * Invariants checked
 *   M1  Nobody is inside together with an exclusive one, and nobody with one of another mode; a dead one
 *       counts as inside until it is recovered.
 *   M2  Everybody gets in and out in the end, whoever else dies, and without anybody's death.
 */
#include "explore.h"

#define PROC_MAX 3

enum variant {
	RULE,
	NO_MEMBARRIER,
	MEMBARRIER_FAILS, /* process 0 can not call it, and fences itself; the others rely on it */
	NO_DRAIN,
	NO_RECHECK,
	KEEP_ANNOUNCED,
	BIAS_UNSEEN,
	GATE_FIRST,
	DEAD_SKIPPED,
	NO_SWITCHER,
	SWITCHER_EARLY,
	WRITER_STORED,
};

enum mode { IDLE, C, X, R, INTERNAL };
enum { NONE, GATE_C = C, GATE_X = X, GATE_R = R, SWITCH, BIAS }; /* BIAS + lane */

/* Where a process is: the next operation on shared memory. */
enum pc {
	BEGIN,	   /* announce */
	LOOK,	   /* load gate: ph_gate_enter */
	SLOW,	   /* load gate: first try of ph_gate_enter_slow */
	TRY_FREE,  /* CAS writer, 0 -> mine */
	BIAS_DROP, /* bias_take: writer back */
	BIAS_IDLE,
	PASS, /* load gate: gate_pass */
	RETRACT,
	SWITCH_BEGIN, /* active as INTERNAL */
	SWITCH_TAKE,
	SWITCH_LOOK, /* gate_switch: has somebody else done it? */
	SWITCH_KEEP,
	SWITCH_SET, /* gate_change */
	SWITCH_FENCE,
	SWITCH_SCAN,
	SWITCH_ACTIVE,
	SWITCH_OPEN,
	SWITCH_DROP,
	WRITER_TAKE,
	WRITER_LOOK, /* it is held: does the gate still say EXCLUSIVE? */
	WRITER_ASIDE,
	ANNOUNCE_AGAIN,
	INSIDE,
	LEAVE, /* idle */
	LEAVE_WRITER,
	RECHECK,   /* variant NO_RECHECK: announce after the look */
	FAIL_IDLE, /* a wait took too long: gate_switch gives up */
	FAIL_DROP,
};

struct proc {
	uint8_t pc, alive, left;
	uint8_t lane;	/* visible mode of the lane */
	uint8_t buffer; /* mode in the store buffer, 0: empty */
	uint8_t gate;	/* tx->gate */
	uint8_t to, scan;
	uint8_t target;	 /* lane under recovery + 1 */
	uint8_t undone;	 /* recovery: bytes are back */
	uint8_t biasing; /* gate_switch was called by bias_take */
	uint8_t pad;
};

struct state {
	struct proc p[PROC_MAX];
	uint8_t gate, writer, switcher; /* words: 0, or 1 + 2 * lane + over */
	uint8_t kills, starts, timeouts;
	uint8_t pad[6];
};
_Static_assert(sizeof(struct state) % 8 == 0, "hashed by words");

static enum variant variant;
static int procs;
static uint8_t mode_of[PROC_MAX];
static uint8_t kills, starts, timeouts, transactions, fenced; /* fenced: bits */

static uint8_t word_of(int lane)
{
	return (uint8_t)(1 + 2 * lane);
}

static bool word_held(uint8_t word)
{
	return word && (word & 1);
}

static int word_lane(uint8_t word)
{
	return (word - 1) / 2;
}

static void words_end(struct state *s, int lane)
{
	if (s->writer == word_of(lane))
		s->writer++;
	if (s->switcher == word_of(lane))
		s->switcher++;
}

static void buffer_flush(struct state *s, int i)
{
	if (s->p[i].buffer)
		s->p[i].lane = s->p[i].buffer;
	s->p[i].buffer = 0;
}

/* A store to the own lane: what was in the buffer is older. */
static void lane_set(struct state *s, int i, uint8_t mode)
{
	s->p[i].buffer = 0;
	s->p[i].lane = mode;
	if (mode == IDLE)
		words_end(s, i);
}

static void lane_announce(struct state *s, int i)
{
	if (fenced >> i & 1)
		lane_set(s, i, mode_of[i]);
	else
		s->p[i].buffer = mode_of[i];
}

static bool gate_fits(int i, uint8_t gate)
{
	if (variant == BIAS_UNSEEN && mode_of[i] == X && gate >= BIAS)
		return true;
	return gate == mode_of[i] || (mode_of[i] == X && gate == BIAS + i);
}

/* gate.c:lane_other */
static bool lane_other(uint8_t other, uint8_t mode)
{
	return other != IDLE && other != INTERNAL && (other != mode || (mode == X && variant != NO_DRAIN));
}

static void go(struct explorer *ex, struct state *n, int i, enum pc pc, const char *label)
{
	n->p[i].pc = (uint8_t)pc;
	step_to(ex, n, false, i, label);
}

/* Whom a process waits for: lane + 1, 0: nobody. */
static int waits_for(const struct state *s, int i)
{
	const struct proc *p = &s->p[i];

	if (p->pc == SWITCH_TAKE && word_held(s->switcher))
		return word_lane(s->switcher) + 1;
	if (p->pc == WRITER_LOOK && word_held(s->writer))
		return word_lane(s->writer) + 1;
	if (p->pc == SWITCH_SCAN && p->scan < procs && p->scan != i &&
	    lane_other(s->p[p->scan].lane, mode_of[i]))
		return p->scan + 1;
	return 0;
}

static void step_recovery(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;
	int t = s->p[i].target - 1;

	if (!s->p[i].undone) {
		n.p[i].undone = 1;
		step_to(ex, &n, false, i, "recovery: bytes are back");
		return;
	}
	n.p[i].undone = n.p[i].target = 0;
	lane_set(&n, t, IDLE);
	step_to(ex, &n, false, i, "recovery: lane idle");
}

static bool recovery_claim(struct explorer *ex, const struct state *s, int i, int t)
{
	struct state n = *s;

	if (s->p[t].alive || s->p[t].lane == IDLE)
		return false;
	for (int j = 0; j < procs; j++)
		if (s->p[j].target == t + 1)
			return true; /* somebody else does */
	n.p[i].target = (uint8_t)(t + 1);
	step_to(ex, &n, false, i, "takes the slot byte of a dead member");
	return true;
}

static void step_inside(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;

	switch ((enum pc)s->p[i].pc) {
	case INSIDE:
		go(ex, &n, i, LEAVE, "is through");
		break;
	case LEAVE:
		lane_set(&n, i, IDLE);
		go(ex, &n, i, LEAVE_WRITER, "idle");
		break;
	case LEAVE_WRITER:
		if (s->p[i].gate == GATE_X && variant == WRITER_STORED)
			n.writer = 0;
		else if (s->p[i].gate == GATE_X && s->writer == word_of(i) + 1)
			n.writer = 0;
		n.p[i].left--;
		n.p[i].gate = n.p[i].to = n.p[i].scan = n.p[i].biasing = 0;
		go(ex, &n, i, BEGIN, "leaves");
		break;
	default:
		break;
	}
}

static void step_writer(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;

	switch ((enum pc)s->p[i].pc) {
	case TRY_FREE:
		buffer_flush(&n, i);
		if (s->writer != 0) {
			go(ex, &n, i, PASS, "writer is not 0");
			break;
		}
		n.writer = word_of(i);
		n.p[i].gate = GATE_X;
		go(ex, &n, i, INSIDE, "writer taken: in");
		go(ex, &n, i, BIAS_DROP, "writer taken, bias due");
		break;
	case BIAS_DROP:
		n.writer = 0;
		go(ex, &n, i, BIAS_IDLE, "writer back");
		break;
	case BIAS_IDLE:
		lane_set(&n, i, IDLE);
		n.p[i].to = (uint8_t)(BIAS + i);
		n.p[i].biasing = 1;
		go(ex, &n, i, SWITCH_BEGIN, "idle, wants the bias");
		break;
	case WRITER_TAKE:
		if (word_held(s->writer)) {
			go(ex, &n, i, WRITER_LOOK, "writer is held");
			break;
		}
		buffer_flush(&n, i);
		n.writer = word_of(i);
		go(ex, &n, i, INSIDE, "writer taken: in");
		break;
	case WRITER_LOOK:
		if (s->gate != GATE_X)
			go(ex, &n, i, WRITER_ASIDE, "the mode changes");
		else if (!word_held(s->writer))
			go(ex, &n, i, WRITER_TAKE, "writer is free");
		break;
	case WRITER_ASIDE:
		lane_set(&n, i, IDLE);
		go(ex, &n, i, ANNOUNCE_AGAIN, "steps aside");
		break;
	case ANNOUNCE_AGAIN:
		lane_announce(&n, i);
		go(ex, &n, i, PASS, "announces again");
		break;
	default:
		break;
	}
}

static void scan_next(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;
	int at = s->p[i].scan;

	if (at == procs) {
		n.p[i].scan = 0;
		go(ex, &n, i, SWITCH_ACTIVE, "nobody is left");
		return;
	}
	if (at == i || !lane_other(s->p[at].lane, mode_of[i]) ||
	    (variant == DEAD_SKIPPED && !s->p[at].alive)) {
		n.p[i].scan++;
		step_to(ex, &n, false, i, "lane is not in the way");
		return;
	}
	if (s->timeouts) {
		n.timeouts--;
		n.p[i].scan = 0;
		go(ex, &n, i, FAIL_IDLE, "waited too long");
	}
}

static void step_switch(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;

	switch ((enum pc)s->p[i].pc) {
	case SWITCH_BEGIN:
		if (variant != KEEP_ANNOUNCED)
			lane_set(&n, i, INTERNAL);
		go(ex, &n, i, SWITCH_TAKE, "active as internal");
		break;
	case SWITCH_TAKE:
		if (word_held(s->switcher) && variant != NO_SWITCHER)
			break;
		buffer_flush(&n, i);
		n.switcher = word_of(i);
		go(ex, &n, i, SWITCH_LOOK, "switcher taken");
		break;
	case SWITCH_LOOK:
		if (s->p[i].to == mode_of[i] && gate_fits(i, s->gate)) {
			n.p[i].gate = s->gate;
			go(ex, &n, i, SWITCH_KEEP, "gate fits already");
		} else {
			n.p[i].gate = s->p[i].to;
			go(ex, &n, i, SWITCH_SET, "gate does not fit");
		}
		break;
	case SWITCH_KEEP:
		lane_set(&n, i, mode_of[i]);
		go(ex, &n, i, SWITCH_DROP, "active in its mode");
		break;
	case SWITCH_SET:
		n.gate = variant == GATE_FIRST ? s->p[i].to : SWITCH;
		go(ex, &n, i, SWITCH_FENCE, "gate = SWITCH");
		break;
	case SWITCH_FENCE:
		if (variant != NO_MEMBARRIER && (variant != MEMBARRIER_FAILS || i != 0))
			for (int j = 0; j < procs; j++)
				buffer_flush(&n, j);
		go(ex, &n, i, SWITCH_SCAN, "membarrier");
		break;
	case SWITCH_SCAN:
		scan_next(ex, s, i);
		break;
	case SWITCH_ACTIVE:
		lane_set(&n, i, mode_of[i]);
		go(ex, &n, i, variant == SWITCHER_EARLY ? SWITCH_DROP : SWITCH_OPEN, "active in its mode");
		break;
	case SWITCH_OPEN:
		n.gate = s->p[i].to;
		go(ex, &n, i, variant == SWITCHER_EARLY ? INSIDE : SWITCH_DROP, "opens the gate");
		break;
	case SWITCH_DROP:
		if (s->switcher == word_of(i))
			n.switcher = 0;
		n.p[i].biasing = 0;
		if (variant == SWITCHER_EARLY && s->gate == SWITCH)
			go(ex, &n, i, SWITCH_OPEN, "switcher back");
		else
			go(ex, &n, i, s->p[i].gate == GATE_X ? WRITER_TAKE : INSIDE, "switcher back");
		break;
	case FAIL_IDLE:
		lane_set(&n, i, IDLE);
		go(ex, &n, i, FAIL_DROP, "gives up: idle");
		break;
	case FAIL_DROP:
		if (s->switcher == word_of(i) + 1)
			n.switcher = 0;
		n.p[i].left--;
		n.p[i].gate = n.p[i].to = n.p[i].biasing = 0;
		go(ex, &n, i, BEGIN, "begin failed");
		break;
	default:
		break;
	}
}

static void step_enter(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;

	switch ((enum pc)s->p[i].pc) {
	case BEGIN:
		if (s->p[i].left == 0)
			break;
		if (variant == NO_RECHECK) {
			if (s->gate == (mode_of[i] == X ? BIAS + i : mode_of[i]))
				go(ex, &n, i, RECHECK, "gate fits");
		}
		lane_announce(&n, i);
		go(ex, &n, i, LOOK, "announces");
		break;
	case RECHECK:
		lane_set(&n, i, mode_of[i]);
		n.p[i].gate = mode_of[i] == X ? (uint8_t)(BIAS + i) : mode_of[i];
		go(ex, &n, i, INSIDE, "announces: in");
		break;
	case LOOK:
		if (s->gate == (mode_of[i] == X ? BIAS + i : mode_of[i])) {
			n.p[i].gate = s->gate;
			go(ex, &n, i, INSIDE, "gate fits: in");
		} else {
			go(ex, &n, i, mode_of[i] == X ? SLOW : PASS, "gate does not fit");
		}
		break;
	case SLOW:
		go(ex, &n, i, s->gate == GATE_X ? TRY_FREE : PASS, "looks again");
		break;
	case PASS:
		if (gate_fits(i, s->gate)) {
			n.p[i].gate = s->gate;
			if (variant == BIAS_UNSEEN && mode_of[i] == X && s->gate != BIAS + i)
				n.p[i].gate = GATE_X;
			go(ex, &n, i, n.p[i].gate == GATE_X ? WRITER_TAKE : INSIDE, "gate fits");
			break;
		}
		n.p[i].to = mode_of[i] == X && s->gate == NONE ? (uint8_t)(BIAS + i) : mode_of[i];
		go(ex, &n, i, variant == KEEP_ANNOUNCED ? SWITCH_BEGIN : RETRACT, "gate does not fit");
		break;
	case RETRACT:
		lane_set(&n, i, IDLE);
		go(ex, &n, i, SWITCH_BEGIN, "retracts");
		break;
	default:
		break;
	}
}

/* What is in the store buffer of a dead process has reached memory when others can see that it is dead. */
static void step_death(struct explorer *ex, const struct state *s, int i)
{
	struct state n = *s;

	if (s->p[i].alive && s->kills && (s->p[i].pc != BEGIN || s->p[i].target)) {
		buffer_flush(&n, i);
		n.kills--;
		n.p[i].alive = n.p[i].left = n.p[i].target = n.p[i].undone = 0;
		step_to(ex, &n, true, i, "KILLED");
	}
	if (!s->p[i].alive && s->starts && s->p[i].lane == IDLE) {
		n.starts--;
		memset(&n.p[i], 0, sizeof(n.p[i]));
		n.p[i].alive = n.p[i].left = 1;
		step_to(ex, &n, false, i, "a new process in that lane");
	}
}

static void gate_steps(struct explorer *ex, const void *state)
{
	const struct state *s = state;

	for (int i = 0; i < procs; i++) {
		int other = waits_for(s, i);

		step_death(ex, s, i);
		if (s->p[i].buffer) {
			struct state n = *s;

			buffer_flush(&n, i);
			step_to(ex, &n, false, i, "(announce becomes visible)");
		}
		if (!s->p[i].alive)
			continue;
		if (s->p[i].target) {
			step_recovery(ex, s, i);
			continue;
		}
		if (other && !(variant == DEAD_SKIPPED && s->p[i].pc == SWITCH_SCAN))
			(void)recovery_claim(ex, s, i, other - 1);
		step_enter(ex, s, i);
		step_switch(ex, s, i);
		step_writer(ex, s, i);
		step_inside(ex, s, i);
	}
}

static void gate_first(void *state)
{
	struct state *s = state;

	for (int i = 0; i < procs; i++) {
		s->p[i].alive = 1;
		s->p[i].left = transactions;
	}
	s->gate = NONE;
	s->kills = kills;
	s->starts = starts;
	s->timeouts = timeouts;
}

static bool is_inside(const struct proc *p)
{
	return (p->pc == INSIDE || p->pc == LEAVE) && (p->lane || p->buffer);
}

static const char *gate_bad(const void *state)
{
	const struct state *s = state;

	for (int i = 0; i < procs; i++)
		for (int j = 0; j < i; j++) {
			if (!is_inside(&s->p[i]) || !is_inside(&s->p[j]))
				continue;
			if (mode_of[i] == X && mode_of[j] == X)
				return "two exclusive transactions are inside";
			if (mode_of[i] != mode_of[j])
				return "transactions of two modes are inside";
		}
	return NULL;
}

static bool gate_done(const void *state)
{
	const struct state *s = state;

	for (int i = 0; i < procs; i++)
		if (s->p[i].alive && (s->p[i].pc != BEGIN || s->p[i].left || s->p[i].target))
			return false;
	return true;
}

static const struct model gate_model = {
	.state_size = sizeof(struct state),
	.first = gate_first,
	.steps = gate_steps,
	.bad = gate_bad,
	.done = gate_done,
};

static void run(struct tally *t, const char *name, const char *modes, enum variant v, const uint8_t budget[4])
{
	procs = (int)strlen(modes);
	for (int i = 0; i < procs; i++)
		mode_of[i] = modes[i] == 'C' ? C : modes[i] == 'X' ? X : R;
	variant = v;
	transactions = budget[0];
	kills = budget[1];
	starts = budget[2];
	timeouts = budget[3];
	fenced = v == MEMBARRIER_FAILS ? 1 : 0;
	run_count(t, &gate_model, name, v != RULE);
}

int main(int argc, char **argv)
{
	struct tally t = {.trace = argc > 1 && strcmp(argv[1], "-v") == 0};
	static const uint8_t few[4] = {2, 1, 0, 0}, more[4] = {2, 1, 1, 1}, deaths[4] = {1, 2, 1, 0},
			     again[4] = {2, 1, 0, 0};

	run(&t, "gate, no membarrier", "CX", NO_MEMBARRIER, few);
	run(&t, "gate, a member that can not call membarrier switches", "XC", MEMBARRIER_FAILS, few);
	run(&t, "gate, bias without draining exclusive lanes", "XX", NO_DRAIN, few);
	run(&t, "gate, no look at the gate after the announce", "CX", NO_RECHECK, few);
	run(&t, "gate, who waits stays announced", "CX", KEEP_ANNOUNCED, few);
	run(&t, "gate, writer word taken whoever has the bias", "XX", BIAS_UNSEEN, few);
	run(&t, "gate, new mode before the lanes are drained", "CCX", GATE_FIRST, few);
	run(&t, "gate, dead lanes are not waited for", "CX", DEAD_SKIPPED, few);
	run(&t, "gate, change without the switcher word", "CX", NO_SWITCHER, few);
	run(&t, "gate, switcher word back before the gate is open", "CX", SWITCHER_EARLY, few);
	run(&t, "gate, writer word given back by a plain store", "XX", WRITER_STORED, few);
	run(&t, "gate, the rule, 2 exclusive", "XX", RULE, more);
	run(&t, "gate, the rule, concurrent and exclusive", "CX", RULE, more);
	run(&t, "gate, the rule, reading and exclusive", "RX", RULE, more);
	run(&t, "gate, the rule, 3 exclusive, 2 deaths",
	    "X"
	    "XX",
	    RULE, deaths);
	run(&t, "gate, the rule, concurrent and 2 exclusive, 2 deaths", "CXX", RULE, deaths);
	run(&t, "gate, the rule, all three modes, 2 deaths", "CXR", RULE, deaths);
	run(&t, "gate, the rule, 3 exclusive, 2 transactions each",
	    "X"
	    "XX",
	    RULE, again);
	run(&t, "gate, the rule, concurrent and 2 exclusive, 2 transactions each", "CXX", RULE, again);
	return tally_end(&t);
}
