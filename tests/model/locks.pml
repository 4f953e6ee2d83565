/* SPDX-License-Identifier: MIT
 *
 * locks.pml: model of src/word.c, src/member.c and src/recovery.c: a lock whose owner may die, and those who
 * undo what it left.
 *
 * What: each thread has a lane {state, log} and takes one lock word {gen, lane} to change two values. Each
 * process has a row with its attachment, and a byte that the kernel drops when all its threads are gone. Who
 * waits for a lane of a dead process takes that byte, undoes or completes what is in its lanes, sets them
 * idle, clears the row and drops the byte.
 * A step is one load, store, CAS or system call. A process may be killed between any two steps, also while it
 * recovers another; its threads stop one after the other. It may be started again in the same slot.
 * Why nobody sleeps: fair.pml has that; here who waits goes on as soon as there is something to see.
 *
 * Transactions have a log of two records. They change d1 twice, and commit or abort; or d1 at once and d2 at
 * commit.
 *
 * Invariants checked
 *   L1  One lane is inside; a dead one counts until it is idle.
 *   L2  Who gets the lock sees all that the last transaction that committed left, and nothing else.
 *   L3  One thread at a time recovers a lane.
 *   L4  Everybody gets on as long as anybody lives; what all the dead left, the next opener recovers.
 *
 * @whole two writers, a recoverer, two deaths: -DKILLS=2
 * @whole a writer, two recoverers, two deaths: -DWRITERS=1 -DRECOVERERS=2 -DKILLS=2
 * @whole three writers, a death: -DWRITERS=3 -DRECOVERERS=0 -DKINDS=1 -DKILLS=1
 * @whole two writers, two transactions, a death: -DRECOVERERS=0 -DTX=2 -DKILLS=1
 * @whole a process with a writer and a recoverer, a death: -DTWINS -DKILLS=1
 * @whole a process with two writers, a death: -DWRITERS=3 -DRECOVERERS=0 -DTWINS -DKINDS=1 -DKILLS=1
 * @whole two writers, a recoverer, killed and started again: -DKILLS=1 -DSTARTS=1
 * @long three writers, two deaths: -DWRITERS=3 -DRECOVERERS=0 -DKINDS=1 -DKILLS=2
 * @long a process with a writer and a recoverer, two deaths: -DTWINS -DKILLS=2
 * @long killed twice, started again once: -DKINDS=1 -DKILLS=2 -DSTARTS=1
 * @ends two writers, a death, naps end early: -DRECOVERERS=0 -DKILLS=1 -DIMPATIENT
 * @finds assertion idle before the bytes are back: -DKILLS=1 -DMUTANT_IDLE_FIRST
 * @finds assertion idle before what was committed is stored: -DKILLS=1 -DMUTANT_IDLE_BEFORE_APPLY
 * @finds assertion release before the end of the transaction: -DKILLS=1 -DMUTANT_RELEASE_EARLY
 * @finds assertion plain store: -DWRITERS=3 -DRECOVERERS=0 -DKILLS=0 -DKINDS=1 -DMUTANT_RELEASE_STORED
 * @finds assertion undo forwards: -DKILLS=1 -DMUTANT_UNDO_FORWARDS
 * @finds assertion the end of the log before the record: -DKILLS=1 -DMUTANT_USED_FIRST
 * @finds assertion bytes changed before their record counts: -DKILLS=1 -DMUTANT_DATA_FIRST
 * @finds assertion active before the old log is empty: -DKILLS=1 -DTX_0=2 -DMUTANT_ACTIVE_EARLY
 * @finds assertion a committed transaction is undone: -DKILLS=1 -DMUTANT_COMMITTED_UNDONE
 * @finds assertion a recoverer without the byte: -DKILLS=1 -DMUTANT_NO_BYTE
 * @finds assertion a recoverer without the mutex of its process: -DTWINS -DKILLS=1 -DMUTANT_NO_MUTEX
 * @finds assertion dead when one thread is: -DTWINS -DKILLS=1 -DMUTANT_ANY_THREAD
 * @finds assertion own process looks dead: -DWRITERS=3 -DRECOVERERS=0 -DTWINS -DKILLS=0 -DMUTANT_SELF_DEAD
 * @finds stuck the slot is free before its lanes are recovered: -DKILLS=2 -DMUTANT_SLOT_FIRST
 * @finds stuck a slot is taken, what it left stays: -DKILLS=1 -DSTARTS=1 -DMUTANT_SLOT_UNRECOVERED
 * @finds cycle tried to ask: -DWRITERS=3 -DRECOVERERS=0 -DKILLS=1 -DKINDS=1 -DIMPATIENT -DMUTANT_TRY
 */
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef RECOVERERS
#define RECOVERERS 1 /* call pheap_recover only */
#endif
#ifndef TX
#define TX 1 /* transactions of each writer */
#endif
#ifndef TX_0
#define TX_0 TX /* of writer 0 */
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef STARTS
#define STARTS 0 /* of killed processes, again */
#endif
#ifndef KINDS
#define KINDS 7 /* of transactions: 1 in place, 2 aborted, 4 in place and at commit */
#endif
#define KIND(which) (me -> (which) == 1 : (KINDS & (which)) != 0) /* the others' are short */
#define THREADS (WRITERS + RECOVERERS)
#ifdef TWINS
#define PROC(thread) ((thread) == 0 -> 0 : 1) /* all but the first are threads of one process */
#define TWIN(process) ((process) -> THREADS - 1 : 1)
#define KILLED (me -> gone[1] || gone[2] : gone[0])
#else
#define PROC(thread) (thread)
#define TWIN(process) 1
#define KILLED gone[me]
#endif
#define NONE 15

#define IDLE 0
#define ACTIVE 1
#define COMMITTED 2
#define STATE(gen, step) (((gen) << 2) | (step))
#define GEN(state) ((state) >> 2)
#define STEP(state) ((state) & 3)
#define WORD(gen, lane) (((gen) << 2) | (lane))
#define LANE(word) ((word) & 3)
#define HELD(word) ((word) && GEN(state[LANE(word)]) == ((word) >> 2) && STEP(state[LANE(word)]) != IDLE)

#define GARBAGE 99
#define HALF 50

byte word;
byte state[THREADS], used[THREADS], owner[THREADS];
bool rec_defer[2 * THREADS]; /* of d2; else undo of d1 */
byte rec_value[2 * THREADS] = GARBAGE;
byte d1, d2;

byte row[THREADS];	     /* by process: attachment, 0: free slot */
byte held_by[THREADS] = NONE; /* its byte: the process whose description holds it */
byte mutex[THREADS] = NONE;   /* of the process: thread */
byte threads[THREADS];	     /* that are not gone */
bool gone[THREADS];	     /* by thread */
byte attachments, writers_left = WRITERS, starts = STARTS, finished;

/* What is true. */
byte committed1, committed2, inside = NONE;
byte working[THREADS];

#ifdef MUTANT_ANY_THREAD
#define PROCESS_GONE(process) true
#else
#define PROCESS_GONE(process) (threads[process] == 0)
#endif

inline record(index, defer, value)
{
#ifdef MUTANT_USED_FIRST
	used[me] = index + 1;
#endif
	atomic { rec_defer[2 * me + index] = defer; rec_value[2 * me + index] = value };
#ifndef MUTANT_USED_FIRST
	used[me] = index + 1
#endif
}

inline undo_one(lane)
{
	atomic {
		if
		:: !rec_defer[2 * lane + k] -> d1 = rec_value[2 * lane + k]
		:: else
		fi
	}
}

inline undo(lane)
{
#ifdef MUTANT_UNDO_FORWARDS
	k = 0;
	do
	:: k < used[lane] -> undo_one(lane); k++
	:: else -> break
	od;
#else
	k = used[lane];
	do
	:: k > 0 -> k--; undo_one(lane)
	:: else -> break
	od;
#endif
	k = 0
}

inline set_idle(lane)
{
	atomic {
		state[lane] = STATE(GEN(state[lane]) + 1, IDLE);
		if
		:: inside == lane -> inside = NONE
		:: else
		fi
	}
}

inline lane_recover(lane)
{
	atomic { at = lane; working[at]++; assert(working[at] == 1) };
#ifdef MUTANT_IDLE_FIRST
	if
	:: STEP(state[lane]) != IDLE -> seen = STEP(state[lane]); set_idle(lane)
	:: else -> seen = IDLE
	fi;
#else
	seen = STEP(state[lane]);
#endif
	if
	:: seen == IDLE -> skip
#ifdef MUTANT_COMMITTED_UNDONE
	:: seen != IDLE ->
#else
	:: seen == ACTIVE ->
#endif
		undo(lane)
#ifndef MUTANT_COMMITTED_UNDONE
	:: seen == COMMITTED -> d2 = rec_value[2 * lane + 1]
#endif
	fi;
#ifndef MUTANT_IDLE_FIRST
	if
	:: seen != IDLE -> set_idle(lane)
	:: else
	fi;
#endif
	seen = 0;
	owner[lane] = 0;
	atomic { working[at]--; at = NONE }
}

inline member_recover(member)
{
	was = row[member];
	if
	:: was ->
#ifdef MUTANT_SLOT_FIRST
		row[member] = 0;
#endif
		lane = 0;
		do
		:: lane == THREADS -> break
		:: lane < THREADS ->
			if
			:: owner[lane] == was -> lane_recover(lane)
			:: else
			fi;
			lane++
		od;
		lane = 0;
		row[member] = 0;
		was = 0
	:: else
	fi
}

/* As F_OFD_GETLK says it: its own locks stand in nobody's way. */
#define LOCKED(member) (held_by[member] != NONE && held_by[member] != PROC(me))
#ifdef MUTANT_SELF_DEAD
#define OWN(member) false
#else
#define OWN(member) (PROC(me) == (member))
#endif

/* ph_member_check */
inline member_check(member)
{
	dead = false;
	if
	:: row[member] && !OWN(member) ->
#ifdef MUTANT_TRY
		atomic {
			if
			:: !LOCKED(member) -> held_by[member] = PROC(me); dead = true
			:: else
			fi
		};
		if
		:: dead -> held_by[member] = NONE
		:: else
		fi
#else
		dead = !LOCKED(member)
#endif
	:: else
	fi;
	if
	:: dead ->
		dead = false;
#ifndef MUTANT_NO_MUTEX
		atomic { mutex[PROC(me)] == NONE -> mutex[PROC(me)] = me };
#endif
		if
		:: row[member] ->
#ifdef MUTANT_NO_BYTE
			member_recover(member)
#else
			atomic {
				if
				:: !LOCKED(member) -> held_by[member] = PROC(me); dead = true
				:: else
				fi
			};
			if
			:: dead ->
				dead = false;
				member_recover(member);
				held_by[member] = NONE
			:: else
			fi
#endif
		:: else
		fi;
#ifndef MUTANT_NO_MUTEX
		mutex[PROC(me)] = NONE
#endif
	:: else
	fi
}

inline release()
{
#ifdef MUTANT_RELEASE_STORED
	word = 0
#else
	atomic {
		if
		:: word == mine -> word = 0
		:: else
		fi
	}
#endif
}

#ifdef IMPATIENT /* naps end at any time */
#define NAP_OVER(member) true
#else
#define RECOVERABLE(member) \
	(held_by[member] == NONE || (held_by[member] == PROC(me) && mutex[PROC(me)] == NONE))
#define NAP_OVER(member) (row[member] && RECOVERABLE(member) && !OWN(member))
#endif

proctype thread(byte me)
{
	byte left, mine, seen, k, lane, was, at = NONE, value;
	bool dead, over, again;

	left = (me >= WRITERS -> 0 : (me -> TX : TX_0));
start:
	{
#if STARTS
		if
		:: again ->
			atomic { held_by[me] == NONE -> held_by[me] = me };
#ifndef MUTANT_SLOT_UNRECOVERED
			member_recover(me);
#endif
			atomic { attachments++; row[me] = attachments };
			if
			:: me < WRITERS -> atomic { owner[me] == 0 -> owner[me] = row[me] }
			:: else
			fi
		:: else
		fi;
#endif
		if
		:: me >= WRITERS -> goto recoverer
		:: else
		fi;

		/* ---- a transaction ---- */

begin:
		if
		:: left == 0 -> goto leave
		:: else -> left--
		fi;
#ifdef MUTANT_ACTIVE_EARLY
		state[me] = STATE(GEN(state[me]), ACTIVE);
		used[me] = 0;
#else
		used[me] = 0;
		state[me] = STATE(GEN(state[me]), ACTIVE);
#endif
		mine = WORD(GEN(state[me]), me);
look:
		seen = word;
		if
		:: HELD(seen) ->
			if
			:: atomic { word != seen || !HELD(seen) -> seen = 0; goto look }
			:: NAP_OVER(PROC(LANE(seen))) ->
				value = PROC(LANE(seen));
				seen = 0;
				member_check(value);
				value = 0;
				goto look
			fi
		:: else
		fi;
		atomic {
			if
			:: word == seen -> word = mine; seen = 0
			:: else -> seen = 0; goto look
			fi
		};

		/* L1, L2 */
		d_step {
			assert(inside == NONE);
			inside = me;
			assert(d1 == committed1 && d2 == committed2);
			value = d1 + 1
		};
#ifdef MUTANT_DATA_FIRST
		d1 = HALF;
		record(0, false, value - 1);
#else
		record(0, false, value - 1);
#endif
		if
		:: KIND(1) ->
			d1 = HALF;
			record(1, false, HALF);
			d1 = value;
#ifdef MUTANT_RELEASE_EARLY
			atomic { inside = NONE; release() };
#endif
			atomic { set_idle(me); committed1 = value }
		:: KIND(2) ->
			d1 = HALF;
			undo(me);
			set_idle(me)
		:: KIND(4) ->
			d1 = value;
			record(1, true, value);
			atomic {
				state[me] = STATE(GEN(state[me]), COMMITTED);
				committed1 = value;
				committed2 = value
			};
#ifdef MUTANT_IDLE_BEFORE_APPLY
			set_idle(me);
			d2 = value
#else
			d2 = value;
			set_idle(me)
#endif
		fi;
		value = 0;
		release();
progress:
		mine = 0;
		goto begin;

		/* ---- who only recovers ---- */

recoverer:
		do
		:: writers_left == 0 -> goto leave
		:: NAP_OVER(0) -> member_check(0)
#if THREADS > 1 && !defined(TWINS)
		:: NAP_OVER(1) -> member_check(1)
#endif
		od;

leave:
		/* What is left to give back is idle: one step. Nobody closes beside a killed thread. */
		atomic {
			owner[me] = 0;
			threads[PROC(me)]--;
			over = true;
			if
			:: threads[PROC(me)] == 0 && !KILLED -> row[PROC(me)] = 0
			:: else
			fi
		}
	} unless { gone[me] };
	/* Gone, killed or not: with the last thread the kernel drops what the process had. */
	d_step {
		if
		:: at != NONE -> working[at]--
		:: else
		fi;
		at = NONE;
		mine = 0;
		seen = 0;
		k = 0;
		lane = 0;
		was = 0;
		value = 0;
		dead = false;
		if
		:: !over -> threads[PROC(me)]--
		:: else
		fi;
		if
		:: PROCESS_GONE(PROC(me)) ->
			for (k : 0 .. THREADS - 1) {
				if
				:: held_by[k] == PROC(me) -> held_by[k] = NONE
				:: else
				fi
			}
			k = 0;
			mutex[PROC(me)] = NONE
		:: else
		fi
	};
#ifndef TWINS
	atomic {
		if
		:: !over && starts ->
			starts--;
			gone[me] = false;
			again = true;
			threads[me] = 1;
			goto start
		:: else
		fi
	};
#endif
	atomic {
		finished++;
		if
		:: me < WRITERS -> writers_left--
		:: else
		fi
	}
}

#if KILLS
active proctype fate()
{
	byte kills = KILLS, who;

	do
	:: atomic { kills > 0 -> kills--; select(who : 0 .. THREADS - 1) };
#ifdef TWINS
		gone[who] = true;
		if /* the rest of the process */
		:: who ->
			who = 1;
			do
			:: who < THREADS -> gone[who] = true; who++
			:: else -> break
			od
		:: else
		fi;
#else
		gone[who] = true;
#endif
		who = 0
	:: break
	od
}
#endif

init
{
	byte me = 0, k = 0, lane = 0, was = 0, seen = 0, at = NONE;

	atomic {
		for (me : 0 .. THREADS - 1) {
			threads[PROC(me)] = TWIN(PROC(me));
			held_by[PROC(me)] = PROC(me);
			row[PROC(me)] = PROC(me) + 1;
			state[me] = STATE(1, IDLE);
			owner[me] = (me < WRITERS -> row[PROC(me)] : 0)
		}
		attachments = THREADS;
		for (me : 0 .. THREADS - 1) {
			run thread(me)
		}
	};
	/* The next opener. */
	atomic { finished == THREADS -> me = 0 };
	d_step {
		me = 0;
		do
		:: me == THREADS -> break
		:: me < THREADS ->
			if
			:: STEP(state[me]) == ACTIVE -> undo(me)
			:: STEP(state[me]) == COMMITTED -> d2 = rec_value[2 * me + 1]
			:: else
			fi;
			me++
		od;
		assert(d1 == committed1 && d2 == committed2)
	}
}
