/* SPDX-License-Identifier: MIT
 *
 * deadlock.pml: model of src/lock.c: the search for transactions that wait for each other.
 *
 * What: lanes lock stripes, in any order. Who waits notes the stripe in its lane and looks from time to time
 * who holds it, what that one waits for, and so on. When a look comes back to where it began, and the look
 * before it came back over the same lanes in the same generations, the highest of these lanes gives up.
 * Why every load is a step: a look is not a snapshot. What it puts together may never have been true at one
 * time.
 * Why no clock: two looks over the same generations say the same whatever the time between them.
 *
 * Invariants checked
 *   D1  Who gives up is in a real cycle, in which nobody else gives up.
 *   D2  Every cycle is broken: everybody gets its locks or gives up.
 *
 * @whole three lanes, two stripes: -DSTRIPES=2
 * @whole three lanes in a ring: -DRING
 * @whole two lanes, three transactions, one times out: -DLANES=2 -DSTRIPES=2 -DTX=3 -DTIMEOUTS=1
 * @whole shared and exclusive, also one after the other: -DLANES=2 -DSTRIPES=2 -DSHARE
 * @whole shared and exclusive, three lanes: -DSTRIPES=1 -DLOCKS=1 -DSHARE
 * @long three lanes, each with a stripe of its own: -DOWN_FIRST
 * @long three lanes, three stripes: -DSTRIPES=3
 * @ends three lanes in a ring: -DRING
 * @ends two lanes, two transactions: -DLANES=2 -DSTRIPES=2 -DTX=2
 * @ends shared and exclusive: -DLANES=2 -DSTRIPES=2 -DSHARE
 * @finds assertion one look is enough: -DLANES=2 -DSTRIPES=2 -DTX=3 -DTIMEOUTS=1 -DMUTANT_ONE_LOOK
 * @finds assertion generations do not count: -DLANES=2 -DSTRIPES=2 -DTX=3 -DTIMEOUTS=1 -DMUTANT_NO_GENS
 * @finds assertion the lowest gives up too: -DRING -DMUTANT_LOWEST_TOO
 * @finds assertion who finds a cycle gives up: -DRING -DMUTANT_ALL
 * @finds assertion the note stays after the wait: -DLANES=2 -DSTRIPES=2 -DTX=2 -DMUTANT_NOTE_KEPT
 * @finds assertion a reader with both notes: -DSTRIPES=1 -DLOCKS=1 -DSHARE -DMUTANT_TWO_NOTES
 * @finds cycle nobody gives up: -DRING -DMUTANT_NOBODY
 */
#ifndef LANES
#define LANES 3
#endif
#ifndef STRIPES
#define STRIPES 3
#endif
#ifndef TX
#define TX 1
#endif
#ifndef TX_0
#define TX_0 TX /* transactions of lane 0 */
#endif
#ifndef LOCKS
#define LOCKS 2 /* in each transaction */
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 0 /* waits that end in -ETIMEDOUT */
#endif

#define SHARED 1
#define WORD(gen, lane) (((gen) << 3) | ((lane) << 1))
#define OWNER(word) (((word) >> 1) & 3)
#define SAME(a, b) (((a) >> 1) == ((b) >> 1))
#define HELD(word) (((word) >> 3) && state[OWNER(word)] == (((word) >> 3) << 1) + 1)
#define ACTIVE(lane) (state[lane] & 1)

byte word[STRIPES];
byte state[LANES];  /* generation << 1 | active */
byte waits[LANES];  /* note: stripe + 1 */
byte shares[LANES]; /* note: stripe + 1 held shared */
byte timeouts = TIMEOUTS;

/* What is true, for D1. Who gave up of itself waits until its transaction ends; a victim does not. */
byte really_waits[LANES], really_shares[LANES];
bool victim[LANES];

#define EDGE(a, b) \
	(really_waits[a] && (a) != (b) && ACTIVE(b) && \
	 ((HELD(word[really_waits[a] - 1]) && OWNER(word[really_waits[a] - 1]) == (b)) || \
	  (HELD(word[really_waits[a] - 1]) && OWNER(word[really_waits[a] - 1]) == (a) && \
	   really_shares[b] == really_waits[a])))
#if LANES == 2
#define IN_CYCLE (EDGE(me, 1 - me) && EDGE(1 - me, me))
#else
#define NEXT ((me + 1) % 3)
#define LAST ((me + 2) % 3)
#define IN_CYCLE \
	((EDGE(me, NEXT) && EDGE(NEXT, me)) || (EDGE(me, LAST) && EDGE(LAST, me)) || \
	 (EDGE(me, NEXT) && EDGE(NEXT, LAST) && EDGE(LAST, me)) || \
	 (EDGE(me, LAST) && EDGE(LAST, NEXT) && EDGE(NEXT, me)))
#endif

#if defined(MUTANT_NO_GENS)
#define MARK(lane) (16 << (5 * (lane)))
#else
#define MARK(lane) ((16 + (state[lane] >> 1)) << (5 * (lane)))
#endif

#ifdef RING /* lane i: stripe i, then i + 1 */
#define MAY(which) ((me + count) % LANES == which)
#elif defined(OWN_FIRST)
#define MAY(which) (count || me == which)
#else
#define MAY(which) true
#endif

proctype lane(byte me)
{
	byte mine, left = (me -> TX : TX_0), stripe, seen, count, share;
	/* A look: the path, and for each place on it what is waited for and which holder comes next. */
	byte path[LANES], at_stripe[LANES], at_word[LANES], at_next[LANES], depth, highest, i;
	short sum, sum_before;
	bool found, true_cycle;

begin:
	if
	:: left == 0 -> goto done
	:: else
	fi;
	atomic {
		left--;
		state[me]++;
		mine = WORD(state[me] >> 1, me);
		count = 0
	};

/* ---- one lock ---- */

lock_one:
	atomic {
		if /* not one that it has exclusively */
		:: !SAME(word[0], mine) && MAY(0) -> stripe = 0
#if STRIPES > 1
		:: !SAME(word[1], mine) && MAY(1) -> stripe = 1
#endif
#if STRIPES > 2
		:: !SAME(word[2], mine) && MAY(2) -> stripe = 2
#endif
		fi;
#ifdef SHARE
		share = 0;
		if
		:: count == 0 -> share = 1
		:: true
		fi
#endif
	};
#ifdef SHARE
	if
	:: share -> shares[me] = stripe + 1
	:: else
	fi;
#endif

try_again:
#ifdef SHARE
	if
	:: share -> goto try_shared
	:: else
	fi;
#endif
	atomic {
		if
		:: !HELD(word[stripe]) ->
			word[stripe] = mine | (word[stripe] & SHARED);
			really_waits[me] = 0
		:: else ->
			really_waits[me] = stripe + 1;
			goto busy
		fi
	};
#ifdef SHARE
	if
	:: word[stripe] & SHARED ->
		seen = 0;
drain: /* lanes that share it, from the first */
		if
		:: seen == LANES -> skip
		:: seen < LANES && (seen == me || !ACTIVE(seen)) -> seen++; goto drain
		:: else ->
			if
			:: shares[seen] == stripe + 1 ->
				/* waits for a shared holder; the word names this lane */
				atomic { waits[me] = stripe + 1; really_waits[me] = stripe + 1 };
				goto look
			:: else -> seen++; goto drain
			fi
		fi;
		atomic { word[stripe] = word[stripe] & ~SHARED; seen = 0; really_waits[me] = 0 }
	:: else
	fi;
#endif
	goto taken;

#ifdef SHARE
/* shared_enter: the note is there already. */
try_shared:
	seen = word[stripe];
	if
	:: !(seen & SHARED) ->
		atomic {
			if
			:: word[stripe] == seen -> word[stripe] = seen | SHARED
			:: else
			fi;
			seen = 0
		};
		goto try_shared
	:: (seen & SHARED) && HELD(seen) ->
		shares[me] = 0;
		atomic { seen = 0; really_waits[me] = stripe + 1; goto busy }
	:: else
	fi;
	atomic {
		if
		:: word[stripe] == seen -> really_shares[me] = stripe + 1; really_waits[me] = 0; seen = 0
		:: else -> seen = 0; goto try_shared
		fi
	};
	goto taken;
#endif

/* ---- waiting ---- */

busy:
	waits[me] = stripe + 1;
	goto nap;
nap:
	if
	:: !HELD(word[stripe]) ->
#ifdef SHARE
		if
		:: share ->
#ifndef MUTANT_TWO_NOTES
			waits[me] = 0;
#endif
			shares[me] = stripe + 1
		:: else
		fi;
#endif
		goto try_again
	:: else
	fi;
	if
	:: atomic { timeouts > 0 -> timeouts-- };
		goto give_up
	:: true
	fi;

/* cycle_from, depth first. */
look:
	atomic {
		depth = 0;
		path[0] = me;
		sum = 0;
		found = false
	};
walk:
	at_stripe[depth] = waits[path[depth]];
	if
	:: at_stripe[depth] == 0 || !ACTIVE(path[depth]) -> goto back
	:: else
	fi;
	at_word[depth] = word[at_stripe[depth] - 1];
	atomic {
		at_next[depth] = 0;
		if
		:: HELD(at_word[depth]) && OWNER(at_word[depth]) != path[depth] ->
			i = OWNER(at_word[depth]);
			goto forth
		:: else -> i = 0
		fi
	};
sharers:
#ifdef SHARE
	if
	:: (at_word[depth] & SHARED) && at_next[depth] < LANES ->
		i = at_next[depth];
		at_next[depth]++;
		if
		:: i != path[depth] && ACTIVE(i) && shares[i] == at_stripe[depth] -> goto forth
		:: else -> goto sharers
		fi
	:: else
	fi;
#endif
	goto back;
forth:
	if
	:: atomic { i == me -> i = 0; true_cycle = IN_CYCLE; goto came_back }
	:: i != me && depth < LANES - 1 ->
		atomic { depth++; path[depth] = i; i = 0 };
		goto walk
	:: else -> i = 0; goto sharers
	fi;
back:
	atomic {
		i = 0;
		if
		:: depth ->
			path[depth] = 0;
			at_stripe[depth] = 0;
			at_word[depth] = 0;
			at_next[depth] = 0;
			depth--;
			goto sharers
		:: else -> sum_before = 0; goto looked
		fi
	};
/* On the way back: which lanes, in which generations. */
came_back:
	atomic { found = true; highest = 0 };
	do
	:: atomic {
		sum = sum | MARK(path[depth]);
		if
		:: path[depth] > highest -> highest = path[depth]
		:: else
		fi;
		if
		:: depth == 0 -> break
		:: else -> depth--
		fi
	   }
	od;
looked:
	atomic {
		d_step {
			for (i : 0 .. LANES - 1) {
				path[i] = 0;
				at_stripe[i] = 0;
				at_word[i] = 0;
				at_next[i] = 0
			}
			i = 0;
			depth = 0
		};
		if
		:: found &&
#ifndef MUTANT_ONE_LOOK
		   sum == sum_before &&
#endif
#ifdef MUTANT_LOWEST_TOO
		   (highest == me || !(sum & ((1 << (5 * me)) - 1)))
#elif defined(MUTANT_ALL)
		   true
#elif defined(MUTANT_NOBODY)
		   highest == LANES
#else
		   highest == me
#endif
		   ->
			for (i : 0 .. LANES - 1) {
				assert(!victim[i] || !(sum & (16 << (5 * i))))
			}
			i = 0;
			assert(true_cycle);
			victim[me] = true;
			really_waits[me] = 0;
			goto give_up
		:: else
		fi;
		if
		:: found -> sum_before = sum
		:: else
		fi;
		sum = 0;
		highest = 0;
		found = false;
		true_cycle = false
	};
#ifdef SHARE
	if
	:: SAME(word[stripe], mine) -> seen = 0; goto drain
	:: else
	fi;
#endif
	goto nap;

/* ---- the end ---- */

give_up:
	atomic {
		sum = 0;
		sum_before = 0;
		highest = 0;
		found = false;
		true_cycle = false;
		seen = 0
	};
#ifndef MUTANT_NOTE_KEPT
	waits[me] = 0;
#endif
	goto end_tx;

taken:
#ifndef MUTANT_NOTE_KEPT
	if
	:: waits[me] -> waits[me] = 0
	:: else
	fi;
#endif
	atomic {
		sum = 0;
		sum_before = 0;
		count++;
		if
		:: count < LOCKS -> goto lock_one
		:: else
		fi
	};

end_tx:
	atomic { state[me]++; really_waits[me] = 0; really_shares[me] = 0; victim[me] = false };
progress:
	for (i : 0 .. STRIPES - 1) {
		atomic {
			if
			:: SAME(word[i], mine) -> word[i] = word[i] & SHARED
			:: else
			fi
		}
	}
	atomic { i = 0; shares[me] = 0; mine = 0; stripe = 0; share = 0; count = 0 };
	goto begin;
done:
	skip
}

init
{
	byte i;

	atomic {
		for (i : 0 .. LANES - 1) {
			state[i] = 2;
			run lane(i)
		}
		i = 0
	}
}
