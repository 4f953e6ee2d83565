/* SPDX-License-Identifier: MIT
 *
 * fair.pml: model of src/word.c and src/lock.c: who sleeps for a lock, who is woken, and who goes first.
 *
 * What: a lock is {word, next}. A lane that finds the word held claims `next` if that is free (it is the
 * watcher then), sets WAITERS in the word and sleeps. A watcher that has waited long sets NEXT_FIRST, and
 * takers let it go first, for a while. Who gives the word back wakes one sleeper, or all of them when `next`
 * has NEXT_FIRST or the word has SHARED. Who slept takes the word with WAITERS set, so that its own release
 * wakes the next one; if it ends its wait without the word, it wakes one at once.
 * Why no clock: a nap ends and patience runs out at any moment, which covers every speed. Searches without
 * time limits (TIMEOUTS 0) show that no wake-up is lost; those with them, that a lane that dies or is stopped
 * costs the others a nap.
 *
 * A step is one load, store or CAS of what lanes share. Recovery is one step: locks.pml takes it apart.
 *
 * Invariants checked
 *   F1  Who holds the word exclusively is alone inside; a dead holder counts until it is recovered.
 *   F2  Every living lane gets the lock (no state without a way on): no sleeper is forgotten.
 *   F3  After NEXT_FIRST is set each other lane takes the word at most once before the watcher does, as long
 *       as that one runs.
 *
 * @whole writers: -DWRITERS=3 -DTX_0=2
 * @whole two writers, more often: -DWRITERS=2 -DTX=4
 * @whole writers, one gives up: -DWRITERS=3 -DGIVE_UPS=1
 * @whole writer and readers: -DWRITERS=1 -DREADERS=2
 * @whole writers and reader, one gives up: -DWRITERS=2 -DREADERS=1 -DGIVE_UPS=1
 * @whole words that are only looked at after idle: -DWRITERS=3 -DLAZY
 * @whole naps that end early: -DWRITERS=3 -DTIMEOUTS=1
 * @whole writers and reader, naps that end early: -DWRITERS=2 -DREADERS=1 -DTIMEOUTS=1
 * @whole a lane is killed: -DWRITERS=3 -DKILLS=1 -DTIMEOUTS=2
 * @whole a lane is killed, more transactions: -DWRITERS=2 -DTX=3 -DKILLS=1 -DTIMEOUTS=2
 * @whole a waiter is stopped: -DWRITERS=3 -DSTOPS=1 -DTIMEOUTS=2
 * @whole a waiter is stopped, more transactions: -DWRITERS=2 -DTX=3 -DSTOPS=1 -DTIMEOUTS=2
 * @long writers, each twice: -DWRITERS=3 -DTX=2
 * @long writers, one twice, and reader: -DWRITERS=2 -DREADERS=1 -DTX_0=2
 * @ends writers: -DWRITERS=3
 * @ends writers and reader: -DWRITERS=2 -DREADERS=1
 * @ends a lane is killed, naps and patience end early: -DWRITERS=2 -DTX=2 -DKILLS=1 -DTIMEOUTS=1 -DHASTE
 * @finds stuck who slept takes the word without WAITERS: -DWRITERS=3 -DMUTANT_NO_INHERIT
 * @finds stuck WAITERS is set, the holder not looked at: -DWRITERS=2 -DTX=2 -DLAZY -DMUTANT_NO_LOOK
 * @finds assertion release is a plain store: -DWRITERS=3 -DMUTANT_RELEASE_STORED
 * @finds stuck endless patience, watcher stopped: -DWRITERS=2 -DTX=3 -DSTOPS=1 -DTIMEOUTS=2 -DMUTANT_PATIENCE
 * @finds stuck endless patience, watcher killed: -DWRITERS=2 -DTX=3 -DKILLS=1 -DTIMEOUTS=2 -DMUTANT_PATIENCE
 * @finds assertion takers do not look at next: -DWRITERS=2 -DTX=4 -DMUTANT_BARGE
 * @finds stuck one is woken though next has NEXT_FIRST: -DWRITERS=3 -DTX_0=2 -DMUTANT_WAKE_ONE
 * @finds stuck release looks at next before the word: -DWRITERS=3 -DTX_0=2 -DMUTANT_NEXT_EARLY
 * @finds stuck a reader that slept wakes nobody: -DWRITERS=1 -DREADERS=2 -DMUTANT_READER_KEEPS
 * @finds stuck who slept gives up and wakes nobody: -DWRITERS=3 -DGIVE_UPS=1 -DMUTANT_GIVE_UP_KEEPS
 * @finds assertion a reader trusts a word seen before its holder: -DWRITERS=2 -DREADERS=1 -DMUTANT_ONE_LOAD
 */
#ifndef WRITERS
#define WRITERS 3
#endif
#ifndef READERS
#define READERS 0
#endif
#ifndef TX
#define TX 1 /* transactions of each lane */
#endif
#ifndef TX_0
#define TX_0 TX /* of lane 0 */
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef STOPS
#define STOPS 0
#endif
#ifndef GIVE_UPS
#define GIVE_UPS 0 /* waits that end in -ETIMEDOUT or -EDEADLK */
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 0
#endif
#if TIMEOUTS == 1
#define NAP_OVER true
#else
#define NAP_OVER timeout /* naps are long: they end when nothing else goes on */
#endif
#define LANES (WRITERS + READERS)

#define WAITERS 1
#define SHARED 2
#define FLAGS 3
#define NEXT_FIRST 1
#define WORD(gen, lane) (((gen) << 4) | ((lane) << 2))
#define OWNER(word) (((word) >> 2) & 3)
#define SAME(a, b) (((a) >> 2) == ((b) >> 2))
#define HELD(word) (((word) >> 4) && state[OWNER(word)] == (((word) >> 4) << 1) + 1)
#define YIELDS(word) (((word) & NEXT_FIRST) && HELD(word) && !SAME(word, mine))
#define GONE(lane) (dead[lane] || stopped[lane])

byte word, next;
byte state[LANES]; /* generation << 1 | active */
bool noted[LANES]; /* shared */
bool asleep[LANES], dead[LANES], stopped[LANES];
bool inside[LANES];
byte overtaken[LANES]; /* times this lane took the word since NEXT_FIRST was set */
byte inside_writers, inside_readers;
byte give_ups = GIVE_UPS;

#ifdef MUTANT_PATIENCE
#define PATIENCE_OVER(lane) false
#elif defined(HASTE)
#define PATIENCE_OVER(lane) true /* the watcher may be slow */
#else
#define PATIENCE_OVER(lane) GONE(lane)
#endif

#ifdef MUTANT_NO_INHERIT
#define INHERIT 0
#else
#define INHERIT slept
#endif

inline leave_inside(lane)
{
	if
	:: inside[lane] && lane < WRITERS -> inside_writers--
	:: inside[lane] && lane >= WRITERS -> inside_readers--
	:: else
	fi;
	inside[lane] = false
}

inline recover(lane)
{
	d_step {
		if
		:: dead[lane] && (state[lane] & 1) ->
			leave_inside(lane);
			noted[lane] = false;
			state[lane]++
		:: else
		fi
	}
}

inline wake_one()
{
	if
	:: asleep[0] -> asleep[0] = false
#if LANES > 1
	:: asleep[1] -> asleep[1] = false
#endif
#if LANES > 2
	:: asleep[2] -> asleep[2] = false
#endif
#if LANES > 3
	:: asleep[3] -> asleep[3] = false
#endif
	:: else
	fi
}

inline wake_all()
{
	d_step {
		for (i : 0 .. LANES - 1) {
			asleep[i] = false
		}
		i = 0
	}
}

inline first_set()
{
	next = next | NEXT_FIRST;
	for (i : 0 .. LANES - 1) {
		overtaken[i] = 0
	}
	i = 0
}

inline word_drop()
{
	atomic {
		if
		:: SAME(word, mine) -> seen = word; word = word & SHARED
		:: else
		fi
	}
}

/* After idle, or when a writer gives up before it is inside. */
inline release()
{
#ifdef MUTANT_NEXT_EARLY
	peer = next;
#endif
#ifdef MUTANT_RELEASE_STORED
	if
	:: SAME(word, mine) -> seen = word
	:: else
	fi;
	if
	:: seen -> word = 0
	:: else
	fi;
#elif defined(LAZY)
	if
	:: SAME(word, mine) && !(word & WAITERS) -> skip
	:: else -> word_drop()
	fi;
#else
	word_drop();
#endif
	if
	:: seen & WAITERS ->
#ifndef MUTANT_NEXT_EARLY
		peer = next;
#endif
		atomic {
			if
#ifndef MUTANT_WAKE_ONE
			:: (peer & NEXT_FIRST) || (seen & SHARED) -> wake_all()
#endif
			:: else -> wake_one()
			fi;
			peer = 0
		}
	:: else
	fi;
	seen = 0
}

/* A claim is given back when the lane has the lock or gives up. */
inline claim_drop()
{
	if
	:: claimed ->
		atomic {
			if
			:: SAME(next, mine) -> next = 0
			:: else
			fi;
			claimed = false
		}
	:: else
	fi
}

/* The word was seen held, with value `seen`. */
inline nap(again)
{
	peer = next;
	if
	:: !claimed && !HELD(peer) ->
		atomic {
			if
			:: next == peer -> next = mine; claimed = true
			:: else
			fi
		}
	:: claimed && slept -> /* may have waited long by now */
		atomic {
			if
			:: SAME(next, mine) && !(next & NEXT_FIRST) -> first_set()
			:: !SAME(next, mine) -> claimed = false
			:: true
			fi
		}
	:: else
	fi;
	peer = 0;
	if
	:: !(seen & WAITERS) ->
		atomic {
			if
			:: word == seen -> word = word | WAITERS; seen = word
			:: else -> seen = 0; goto again
			fi
		};
#ifndef MUTANT_NO_LOOK
		if
		:: !HELD(seen) -> seen = 0; goto again
		:: else
		fi
#endif
	:: else
	fi;
	atomic {
		if
		:: word == seen -> asleep[me] = true
		:: else -> seen = 0; goto again
		fi
	};
	if
	:: atomic { !asleep[me] -> slept = true }
#if TIMEOUTS
	:: atomic { NAP_OVER -> asleep[me] = false; slept = true };
		recover(OWNER(seen))
#endif
	fi;
	seen = 0
}

/* After a nap. */
#define GIVE_UP_PERHAPS \
	if \
	:: atomic { give_ups > 0 -> give_ups--; goto give_up } \
	:: true \
	fi

proctype lane(byte me)
{
	byte seen, peer, mine, i, left = (me -> TX : TX_0);
	bool slept, claimed;

	{
		skip;
begin:
		if
		:: left == 0 -> goto done
		:: else
		fi;
		d_step {
			left--;
			state[me]++;
			mine = WORD(state[me] >> 1, me)
		}
		if
		:: me >= WRITERS -> goto reader_note
		:: else
		fi;

writer_look:
		seen = word;
		if
		:: HELD(seen) ->
			nap(writer_look);
			GIVE_UP_PERHAPS;
			goto writer_look
		:: else
		fi;
#ifndef MUTANT_BARGE
		peer = next;
		if
		:: YIELDS(peer) ->
			/* It naps where a wake-up that is meant for another may reach it. */
			atomic {
				if
				:: word == seen -> asleep[me] = true; slept = true
				:: else -> seen = 0; peer = 0; goto writer_look
				fi
			};
			if
			:: atomic { next != peer || HELD(word) || !asleep[me] ->
				asleep[me] = false; seen = 0; peer = 0; goto writer_look }
			:: atomic { PATIENCE_OVER(OWNER(peer)) -> asleep[me] = false };
				atomic {
					if
					:: next == peer -> next = 0
					:: else
					fi;
					seen = 0; peer = 0;
					goto writer_look
				}
			fi
		:: else -> peer = 0
		fi;
#endif
		atomic {
			if
			:: word == seen ->
				word = mine | (seen & FLAGS) | INHERIT;
				overtaken[me]++;
#if !KILLS && !STOPS && !defined(HASTE)
				assert(!YIELDS(next) || overtaken[me] == 1);
#endif
				if
				:: !(next & NEXT_FIRST) -> overtaken[me] = 0
				:: else
				fi;
				seen = 0
			:: else -> seen = 0; goto writer_look
			fi
		};
		claim_drop();
		if
		:: word & SHARED ->
			do
			:: peer == LANES -> break
			:: peer < LANES && !(noted[peer] && (state[peer] & 1)) -> peer++
			:: peer < LANES && dead[peer] -> recover(peer)
			:: give_ups > 0 ->
				give_ups--;
				peer = 0;
				release();
				goto give_up
			od;
			atomic { peer = 0; word = word & ~SHARED }
		:: else
		fi;
		d_step {
			inside_writers++;
			inside[me] = true;
			assert(inside_writers == 1 && inside_readers == 0)
		}
		atomic { leave_inside(me); state[me]++ };
		release();
		goto ended;

reader_note:
		noted[me] = true;
reader_look:
		seen = word;
		if
		:: !(seen & SHARED) ->
			atomic {
				if
				:: word == seen -> word = word | SHARED
				:: else
				fi;
				seen = 0
			};
			goto reader_look
		:: (seen & SHARED) && HELD(seen) ->
			noted[me] = false;
			nap(reader_note);
			GIVE_UP_PERHAPS;
			goto reader_note
		:: else
		fi;
#ifndef MUTANT_ONE_LOAD
		if
		:: word != seen -> seen = 0; goto reader_look
		:: else
		fi;
#endif
		seen = 0;
		claim_drop();
#ifndef MUTANT_READER_KEEPS
		if
		:: slept -> atomic { wake_one() }
		:: else
		fi;
#endif
		d_step {
			inside_readers++;
			inside[me] = true;
			assert(inside_writers == 0)
		}
		atomic { leave_inside(me); state[me]++ };
		noted[me] = false;
		goto ended;

give_up:
		claim_drop();
		state[me]++;
#ifndef MUTANT_GIVE_UP_KEEPS
		if
		:: slept -> atomic { wake_one() }
		:: else
		fi;
#endif

ended:
		atomic {
			seen = 0;
			peer = 0;
			mine = 0;
			slept = false;
			claimed = false
		}
		goto begin
	} unless { GONE(me) };
	if
	:: dead[me] -> asleep[me] = false
	:: stopped[me] -> goto end_stopped
	fi;
done:
	goto out;
end_stopped:
	false;
out:
	skip
}

#if KILLS || STOPS
active proctype fate()
{
	byte kills = KILLS, stops = STOPS, who;

	do
	:: kills > 0 ->
		kills--;
		atomic {
			if
			:: who = 0
#if LANES > 1
			:: who = 1
#endif
#if LANES > 2
			:: who = 2
#endif
#if LANES > 3
			:: who = 3
#endif
			fi;
			dead[who] = true;
			who = 0
		}
	:: stops > 0 -> /* a holder that is stopped stops everybody: not this */
		stops--;
		atomic {
			if
			:: who = 0
#if LANES > 1
			:: who = 1
#endif
#if LANES > 2
			:: who = 2
#endif
			fi;
			if
			:: !(HELD(word) && OWNER(word) == who) && !noted[who] -> stopped[who] = true
			:: else
			fi;
			who = 0
		}
	:: break
	od
}
#endif

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
