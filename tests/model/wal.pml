/* SPDX-License-Identifier: MIT
 *
 * wal.pml: model of section 8 of src/FORMAT.md (src/wal.c, lease.c, checkpoint.c, redo.c, power.c): stores
 * in place, and one log of before-images, switches of epoch and commits beside them.
 *
 * What: each writer has a word of its own, both on one page; there a word that all change under a user
 * lock; on another page a word of the allocator that is set after the commit point, under a latch. A record
 * takes one position of the log; a ring of RING of them wraps. Who waits for something to be durable
 * flushes; since a flush by anybody may follow any step, flushes beside each other are in it.
 * With READER the second one stores into its own word, which it has declared before, what it reads from the
 * shared one.
 * A step is what one process does between two points at which others can tell. What is done under `append`
 * with nothing outside to see is one step; a commit is two, so that the latch is seen held, also by the
 * dead.
 * Who is killed makes no further step. What it left in its lane somebody undoes or completes, who may be
 * killed too.
 *
 * Checkpointers do not wait for each other: with CHECKPOINTERS=2 one may begin while the other is
 * anywhere in its checkpoint, and each may go on at any later time (a process that was stopped). Who
 * never goes on is to the others as one that has died. Who completes a switch for another does so in the
 * step in which it takes `append`: one that comes late with it compares and swaps an epoch that is gone.
 * What the code reads and then compares and swaps is one step here, but for the choice between the live
 * words.
 *
 * The disk: of a word, any value that it has had since the moment at which the last sync that is over
 * found it. Of the log, all that is durable, and any prefix of the rest. Of a live word, any value since
 * the last sync of its page; while it is not durable, it may be lost. After each step
 * that can make any of this wrong, check() cuts the power: it recovers from every such disk and
 * compares. With CUTS the power is cut for good once, at any step; recovery is done in steps that
 * check() cuts again; then all go on with what they had left to do, beside the old lease words.
 *
 * Invariants checked
 *   W1  What a cut leaves is the state after exactly the commits in the prefix of the log that survives.
 *   W2  What was acknowledged is in that prefix; the ring still has all that recovery reads, from whichever
 *       live word the disk has, where a SWITCH record is durable; nothing is appended beyond replay_lsn +
 *       RING.
 *   W3  Who takes the lock or the latch finds what the last commit left there, and nothing of what was
 *       undone.
 *   W4  Everybody gets on as long as anybody lives, in a ring that is full too.
 *   W5  EPOCH: what a cut leaves is what those made who had committed when the last checkpoint's switch
 *       copied their lanes: all that was committed before epoch_lsn, and all that any of it was made from.
 *
 * @whole two writers: -DTX_0=2
 * @whole one aborts: -DABORTS=1
 * @whole three pages: -DTHREE_PAGES
 * @whole a ring that is full: -DTX_0=2 -DRING=5 -DDOES=5
 * @whole images copied before the latch: -DIMAGE_FIRST -DDOES=3
 * @whole rolled back while the switch copies: -DSAVEPOINT -DDOES=1
 * @whole a writer dies: -DKILLS=1 -DVICTIMS=1 -DDOES=3 -DDOES_0=2
 * @whole a writer dies, operations: -DKILLS=1 -DVICTIMS=1 -DDOES=6
 * @whole a writer and who recovers it die: -DKILLS=2 -DVICTIMS=9 -DDOES=4
 * @whole the checkpointer dies: -DKILLS=1 -DVICTIMS=4 -DDOES=5
 * @whole the checkpointer dies, one switch is kept: -DKILLS=1 -DVICTIMS=4 -DRING=4 -DTX_0=2 -DDOES=1
 * @whole two checkpointers: -DCHECKPOINTERS=2 -DDOES=5
 * @whole two checkpointers, three checkpoints: -DCHECKPOINTERS=2 -DCHECKPOINTS=3 -DWRITERS=1
 * @whole two checkpointers, the log wraps: -DCHECKPOINTERS=2 -DRING=5 -DWRITERS=1 -DTX=3
 * @whole two checkpointers, one dies: -DCHECKPOINTERS=2 -DCHECKPOINTS=2 -DWRITERS=1 -DDOES=5 -DKILLS=1 -DVICTIMS=10
 * @whole cut, recovered, and on: -DCUTS -DDOES=3
 * @whole two checkpointers, cut, recovered, and on: -DCUTS -DCHECKPOINTERS=2 -DCHECKPOINTS=2 -DWRITERS=1 -DDOES=5
 * @whole epoch, one aborts: -DEPOCH -DABORTS=1
 * @whole epoch, nothing but undo: -DEPOCH -DDOES=3 -DABORTS=1
 * @whole epoch, one reads what the other stores: -DEPOCH -DREADER -DDOES=3 -DDOES_0=2
 * @whole epoch, a writer dies: -DEPOCH -DKILLS=1 -DVICTIMS=1 -DDOES=4 -DDOES_0=5
 * @whole epoch, the checkpointer dies: -DEPOCH -DKILLS=1 -DVICTIMS=4 -DDOES=5
 * @whole epoch, two checkpointers: -DEPOCH -DCHECKPOINTERS=2 -DCHECKPOINTS=2 -DDOES=4
 * @long a ring that is full, everything: -DTX_0=2 -DRING=5
 * @long two checkpoints, one aborts: -DCHECKPOINTS=2 -DABORTS=1
 * @long two checkpointers, everything: -DCHECKPOINTERS=2
 * @long two checkpointers, two checkpoints: -DCHECKPOINTERS=2 -DCHECKPOINTS=2 -DDOES=1
 * @long two checkpointers, two writers, the log wraps: -DCHECKPOINTERS=2 -DRING=5 -DTX=2 -DDOES=1
 * @long two checkpointers, both die: -DCHECKPOINTERS=2 -DCHECKPOINTS=2 -DKILLS=2 -DVICTIMS=20 -DDOES=1
 * @long images copied before the latch, everything: -DIMAGE_FIRST -DABORTS=1
 * @long somebody dies: -DKILLS=1
 * @long a writer and who recovers it die, own words: -DKILLS=2 -DVICTIMS=9 -DDOES=3
 * @long two checkpointers die: -DKILLS=2 -DVICTIMS=4 -DDOES=3
 * @long a cut, everything: -DCUTS -DTX_0=2
 * @long epoch, somebody dies: -DEPOCH -DKILLS=1
 * @long epoch, a writer and who recovers it die: -DEPOCH -DKILLS=2 -DVICTIMS=9 -DDOES=4 -DDOES_0=5
 * @long epoch, two checkpointers, everything: -DEPOCH -DCHECKPOINTERS=2
 * @finds assertion stored before the image is durable: -DMUTANT_IMAGE_LATE
 * @finds assertion the epoch is not looked at again: -DMUTANT_NO_SECOND_LOOK
 * @finds assertion appended in another epoch: -DMUTANT_APPEND_BLIND
 * @finds assertion an image of the epoch before: -DIMAGE_FIRST -DDOES=1 -DMUTANT_IMAGE_STALE
 * @finds assertion pages of operations are not leased: -DMUTANT_MAP_UNLEASED
 * @finds assertion the switch copies no undo: -DMUTANT_NO_COPIES
 * @finds assertion the switch copies no operations: -DMUTANT_NO_REDO
 * @finds assertion a rollback is not noticed: -DSAVEPOINT -DDOES=1 -DMUTANT_ROLLBACK_UNSEEN
 * @finds assertion the copies are applied before the images: -DMUTANT_COPIES_FIRST
 * @finds assertion the oldest is not undone last: -DMUTANT_FORWARDS
 * @finds assertion images of the epoch before are applied: -DMUTANT_OLD_IMAGES
 * @finds assertion the bit is cleared without the latch: -DMUTANT_BIT_UNLATCHED
 * @finds assertion the epoch before its copies are durable: -DMUTANT_EPOCH_BEFORE_WAL
 * @finds assertion a helper ends the switch before its copies are durable: -DMUTANT_HELP_NOT_DURABLE
 * @finds assertion a helper clears the bit of a switch in the log: -DMUTANT_HELP_CLEARS -DMUTANT_EPOCH_STORED
 * @finds assertion a late switcher stores the epoch: -DCHECKPOINTERS=2 -DCHECKPOINTS=2 -DWRITERS=1 -DTX_0=2 -DMUTANT_EPOCH_STORED
 * @finds assertion the position behind the bit: -DWRITERS=1 -DKILLS=2 -DVICTIMS=2 -DCHECKPOINTS=2 -DMUTANT_SWITCH_LSN_LATE
 * @finds assertion a switch beside an open checkpoint: -DCHECKPOINTERS=2 -DCHECKPOINTS=3 -DWRITERS=1 -DDOES=1 -DMUTANT_SWITCH_AGAIN
 * @finds assertion the live word before the heap is durable: -DMUTANT_LIVE_BEFORE_HEAP
 * @finds assertion a late one stores the live word: -DCHECKPOINTERS=2 -DCHECKPOINTS=2 -DWRITERS=1 -DMUTANT_LIVE_STORED
 * @finds assertion a late one stores replay_lsn: -DCHECKPOINTERS=2 -DWRITERS=1 -DTX=3 -DRING=5 -DMUTANT_REPLAY_STORED
 * @finds assertion the smaller live word counts: -DCHECKPOINTS=2 -DWRITERS=1 -DMUTANT_SMALLER
 * @finds assertion the ring is reused before the live word is durable: -DMUTANT_RING_EARLY -DRING=5
 * @finds assertion the higher live word is raised: -DCHECKPOINTS=2 -DWRITERS=1 -DMUTANT_HIGHER_RAISED
 * @finds stuck nothing in the ring is kept for switches: -DRESERVE=0 -DRING=4
 * @finds assertion what is in the log is undone: -DKILLS=1 -DVICTIMS=1 -DMUTANT_APPENDED_UNDONE
 * @finds assertion the position behind the tail: -DWRITERS=1 -DKILLS=1 -DVICTIMS=1 -DDOES=1 -DMUTANT_LSN_LATE
 * @finds assertion acknowledged before it is durable: -DMUTANT_ACK_EARLY
 * @finds assertion a new log before what was recovered is durable: -DCUTS -DDOES=1 -DMUTANT_GEN_EARLY
 * @finds assertion a new log begins where the old one ends: -DCUTS -DDOES=3 -DMUTANT_NEXT_LSN
 * @finds assertion epoch, who looks is taken for active: -DEPOCH -DDOES=5 -DMUTANT_LOOKING_ACTIVE
 * @finds assertion epoch, who looks is taken for committed: -DEPOCH -DDOES=5 -DMUTANT_LOOKING_COMMITTED
 * @finds assertion epoch, who was made active commits: -DEPOCH -DDOES=5 -DMUTANT_COMMITTED_STORED
 * @finds assertion epoch, idle without a look: -DEPOCH -DREADER -DDOES=3 -DMUTANT_IDLE_UNLOOKED
 * @finds assertion epoch, idle beside a switch and taken for part of it: -DEPOCH -DDOES=1 -DMUTANT_TICKET_EARLY
 * @finds assertion epoch, who looked and died is completed: -DEPOCH -DKILLS=1 -DVICTIMS=1 -DDOES=5 -DMUTANT_LOOKING_COMPLETED
 */
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef TX
#define TX 1 /* transactions of each writer */
#endif
#ifndef TX_0
#define TX_0 TX /* of writer 0 */
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 1 /* and as many as a full ring needs */
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef VICTIMS
#define VICTIMS 31 /* who may be killed, a bit each: writers, checkpointer, who recovers, the other one */
#endif
#ifndef ABORTS
#define ABORTS 0
#endif
#ifndef DOES
#define DOES 7 /* a transaction: 1 own word, 2 shared word, 4 allocator word */
#endif
#ifndef DOES_0
#define DOES_0 DOES
#endif
#define DO(which) (((me -> DOES : DOES_0) & (which)) != 0)
#ifndef RING
#define RING 12
#endif
#ifndef RESERVE
#define RESERVE 1 /* positions for SWITCH records only */
#endif
#ifndef CHECKPOINTERS
#define CHECKPOINTERS 1 /* that do not wait for each other */
#endif
#define CHECKPOINTER WRITERS
#define SURVIVOR (WRITERS + 1)
#define THIEF (WRITERS + 2)
#define NONE 15

#include "wal_disk.h"

/* The image is copied under `append`; or, IMAGE_FIRST, before: if somebody else has leased the page
 * meanwhile and stored to it, the other image stands in front of this one. */
inline lease_page(page)
{
	do
	:: d_step { EVEN && LEASED(page) -> seen = epoch }; break
#ifdef MUTANT_BIT_UNLATCHED
	:: d_step { !EVEN -> epoch-- }
#endif
#ifdef IMAGE_FIRST
	:: d_step { !EVEN && append == NONE -> switch_help(); w = 0 }
	:: d_step { EVEN && !LEASED(page) -> seen = epoch; image = IMAGE_OF(page) };
		atomic {
			append == NONE && (epoch != seen || ROOM(1 + RESERVE)) ->
			switch_help();
			if
#ifdef MUTANT_IMAGE_STALE
			:: true ->
#else
			:: epoch != seen -> image = 0
			:: else ->
#endif
				d_step {
					put_record(IMAGE, ON_PAGE(page), image);
					lease[page] = tail;
					image = 0;
					check()
				};
				break
			fi
		}
#else
	:: d_step {
		append == NONE && !(EVEN && LEASED(page)) && ROOM(1 + RESERVE) ->
		switch_help();
		seen = epoch;
		if
		:: !LEASED(page) ->
			packed = IMAGE_OF(page);
			put_record(IMAGE, ON_PAGE(page), packed);
			lease[page] = tail;
			check()
		:: else
		fi;
		w = 0
	   };
		break
#endif
	od;
#ifndef MUTANT_IMAGE_LATE
	if
	:: lease[page] <= durable
	:: d_step { lease[page] > durable -> durable = tail }
	fi
#else
	skip
#endif
}

#ifdef SAVEPOINT
#define MUST_LOOK true
#else
#define MUST_LOOK (epoch != seen)
#endif

inline modify(word)
{
#ifdef SAVEPOINT
	/* Log records that need no lease are made beside a switch too: here each is, before its lease. */
	rec_word[2 * me + used[me]] = word;
#else
	lease_page(PAGE(word));
#endif
	d_step {
		state[me] = ACTIVE;
		rec_word[2 * me + used[me]] = word;
		rec_value[2 * me + used[me]] = mem[word];
		used[me]++
	};
#ifndef MUTANT_NO_SECOND_LOOK
	if
	:: d_step { !MUST_LOOK -> seen = 0 }
	:: MUST_LOOK -> lease_page(PAGE(word)); seen = 0
	fi
#endif
}

/* One at a time, from last to first. What counts stays until the lane is idle. */
inline undo(lane)
{
	k = used[lane];
	do
	:: d_step { k > 0 -> k--; store(rec_word[2 * lane + k], rec_value[2 * lane + k]) }
	:: else -> break
	od
}

inline set_idle(lane)
{
	d_step {
		state[lane] = IDLE;
		for (w : 0 .. 1) {
			rec_word[2 * lane + w] = 0;
			rec_value[2 * lane + w] = 0
		}
		used[lane] = 0;
#ifdef SAVEPOINT
		turn[lane]++;
#endif
#ifndef MUTANT_LSN_LATE
		lsn[lane] = 0;
#endif
		append = (append == lane -> NONE : append);
		does[lane] = 0;
		made[lane] = 0;
		lock = (lock == lane -> NONE : lock);
		latch = (latch == lane -> NONE : latch)
	}
}

#define STAMP (1 + left + (me -> TX_0 + (me - 1) * TX : 0))
#define WORDS (DO(1) << me | DO(2) * 4 | DO(4) * 8)

#ifdef MUTANT_TICKET_EARLY
#define TICKET_EARLY true
#else
#define TICKET_EARLY false
#endif

inline log_commit()
{
	does[me] = WORDS;
	made[me] = STAMP | STAMP << 3;
	made[me] = (made[me] | made[me] << 6) & BITS(WORDS);
#ifdef READER
	does[me] = does[me] & (me -> 11 : 15);
	made[me] = (me -> AT(1, mem[1]) | made[me] & BITS(8) : made[me])
#endif
}

proctype writer(byte me)
{
	byte left, seen, k, word;
	short image;

	left = (me -> TX : TX_0);
start:
	atomic {
		if
		:: left > 0 -> left--; at_work[me] = true
		:: else -> finished++; at_work[me] = false; goto over
		fi
	};
	{
#ifdef SAVEPOINT
		if
		:: me == 0 ->
			/* Rolled back before it does the rest. */
			atomic { lock == NONE -> lock = me; assert(mem[SHARED] == GET(truth, SHARED)) };
			modify(SHARED);
			d_step { store(SHARED, STAMP) };
			d_step { store(SHARED, rec_value[0]) };
			d_step { used[me] = 0; turn[me]++ }
		:: else
		fi;
#endif
		word = (DO(1) -> me : SHARED);
		do
		:: word == MAP || (word == SHARED && !DO(2)) -> break
		:: else ->
			/* W3 */
			if
			:: word < SHARED
			:: atomic {
				word == SHARED && lock == NONE ->
				lock = me;
				state[me] = ACTIVE;
				assert(mem[SHARED] == GET(truth, SHARED))
			   }
			fi;
#ifdef READER
			if
			:: me == 1 && word == SHARED -> d_step { store(me, mem[SHARED]); word = MAP }
			:: else ->
#endif
				modify(word);
				d_step { store(word, STAMP); word = (word == SHARED -> MAP : SHARED) }
#ifdef READER
			fi
#endif
		od;
#if ABORTS
		if
		:: d_step { aborts > 0 -> aborts-- };
			undo(me);
			set_idle(me);
			goto next
		:: true
		fi;
#endif
		if
		:: DO(4) ->
			atomic {
				latch == NONE ->
				latch = me;
				state[me] = ACTIVE;
				assert(mem[MAP] == GET(truth, MAP))
			}
		:: else
		fi;
#ifdef EPOCH
		if
		:: DO(4) ->
			do
			:: true ->
				lease_page(PAGE(MAP));
				d_step { log_commit(); state[me] = LOOKING };
				if
				:: epoch == seen ->
					/* Compared and swapped: who switches may have made it active. */
					if
#ifdef MUTANT_COMMITTED_STORED
					:: atomic {
						true ->
#else
					:: atomic {
						state[me] == LOOKING ->
#endif
						state[me] = COMMITTED;
						truth = (truth & ~BITS(does[me])) | made[me];
						break
					   }
					:: state[me] != LOOKING
					fi
				:: epoch != seen -> state[me] = ACTIVE
				fi
			od
		:: !DO(4) ->
			/* Nothing but undo: idle is the commit point, and frees the locks. The bit may have been set
			 * since the look: then whoever depends on it sees the bit. Which checkpoint has it, a look
			 * behind it tells. */
#ifndef MUTANT_IDLE_UNLOOKED
			if
			:: EVEN
			:: d_step { !EVEN && append == NONE -> switch_help(); w = 0 }
			fi;
#endif
			d_step {
				log_commit();
				truth = (truth & ~BITS(does[me])) | made[me];
				set_idle(me)
			};
			d_step { seen = (EVEN || TICKET_EARLY -> epoch : 2 * switch_lsn) }
		fi;
#else
again:
#ifndef MUTANT_MAP_UNLEASED
		if
		:: DO(4) -> lease_page(PAGE(MAP))
		:: else
		fi;
#endif
		atomic {
			append == NONE && ROOM(1 + RESERVE) ->
			switch_help();
#if !defined(MUTANT_APPEND_BLIND) && !defined(MUTANT_MAP_UNLEASED)
			if
			:: DO(4) && epoch != seen -> goto again
			:: else
			fi;
#endif
			append = me;
			seen = 0;
#ifndef MUTANT_LSN_LATE
			lsn[me] = tail;
#endif
			log_commit();
			state[me] = APPENDING
		};
		d_step {
			put_record(COMMIT, does[me], made[me]);
#ifndef MUTANT_LSN_LATE
			append = NONE;
#endif
			check()
		};
#ifdef MUTANT_LSN_LATE
		d_step { lsn[me] = tail - 1; append = NONE };
#endif
#endif
		if
		:: d_step { DO(4) -> store(MAP, STAMP) }
		:: else
		fi;
#ifdef EPOCH
		if
		:: DO(4) -> set_idle(me)
		:: else
		fi;
		if
		:: true
		:: d_step { DO(1) && replay > seen >> 1 -> acknowledged(me, mem[me]) }
		fi;
next:
		skip
#else
		atomic { k = lsn[me] + 1; set_idle(me) };
		/* Durable: only now the commit returns. */
next:
		atomic {
			skip;
			d_step {
#ifndef MUTANT_ACK_EARLY
				if
				:: k > durable -> durable = tail
				:: else
				fi;
#endif
				assert(k <= durable);
				k = 0
			}
		}
#endif
	} unless { !at_work[me] || off };
	atomic {
		k = 0;
		seen = 0;
		image = 0;
		word = 0;
		if
		:: at_work[me] && !off -> goto start
#ifdef CUTS
		:: off -> at_work[me] = false
#endif
		:: !at_work[me] && !off -> goto over /* killed */
		fi
	};
#ifdef CUTS
	!off;
	goto start;
#endif
over:
	skip
}

#if defined(MUTANT_APPENDED_UNDONE)
#define COMPLETED(lane) false
#elif defined(MUTANT_LOOKING_COMPLETED)
#define COMPLETED(lane) (state[lane] == COMMITTED || state[lane] == LOOKING)
#else
#define COMPLETED(lane) (state[lane] == COMMITTED || (state[lane] == APPENDING && tail > lsn[lane]))
#endif

/* Recovers the dead, and may die: the next one starts over. */
proctype survivor()
{
	byte k, lane;

start:
end:
	atomic {
		if
		:: !off && !at_work[0] && state[0] != IDLE -> lane = 0
#if WRITERS > 1
		:: !off && !at_work[1] && state[1] != IDLE -> lane = 1
#endif
		fi;
		at_work[SURVIVOR] = true
	};
	{
		if
		:: COMPLETED(lane) ->
			if
			:: d_step { does[lane] & 8 -> store(MAP, GET(made[lane], MAP)) }
			:: !(does[lane] & 8)
			fi
		:: !COMPLETED(lane) -> undo(lane)
		fi;
		/* W3 */
		atomic { set_idle(lane); assert(mem[lane] == GET(truth, lane)); at_work[SURVIVOR] = false }
	} unless { !at_work[SURVIVOR] || off };
	d_step { k = 0; lane = 0; at_work[SURVIVOR] = false };
	goto start
}

#include "wal_checkpoint.h"

#if KILLS
active proctype fate()
{
	byte kills = KILLS;

end:
	do
#define MAY_DIE(who) (kills > 0 && at_work[who] && (VICTIMS & 1 << (who)))
	:: atomic { MAY_DIE(0) && state[0] != IDLE -> kills--; at_work[0] = false; finished++ }
#if WRITERS > 1
	:: atomic { MAY_DIE(1) && state[1] != IDLE -> kills--; at_work[1] = false; finished++ }
#endif
	:: atomic { MAY_DIE(SURVIVOR) -> kills--; at_work[SURVIVOR] = false }
	:: atomic { MAY_DIE(CHECKPOINTER) -> kills--; at_work[CHECKPOINTER] = false }
#if CHECKPOINTERS > 1
	:: atomic { MAY_DIE(THIEF) -> kills--; at_work[THIEF] = false }
#endif
	od
}
#endif

#ifdef CUTS
inline log_begin()
{
	d_step {
#ifndef MUTANT_NEXT_LSN
		end_lsn = end_lsn + RING;
#endif
		ring_free(tail);
		first = end_lsn;
		on_disk[0] = 1;
		on_disk[1] = 1;
		tail = end_lsn;
		durable = end_lsn;
		replay = end_lsn;
		epoch = 2 * end_lsn;
		end_lsn = 0;
		check()
	}
}

/* A cut for good, at any moment; the first opener; and all who have something left to do, again. */
active proctype power()
{
	byte end_lsn, lane;

end:
	atomic { finished < WRITERS -> off = true };
	atomic {
		!at_work[0] && !at_work[1] && !at_work[SURVIVOR] && !at_work[CHECKPOINTER] && !at_work[THIEF] ->
		end_lsn = durable;
		do
		:: end_lsn < tail -> end_lsn++
		:: break
		od;
		replay = first;
		left_over = LIVE_ON_DISK;
		do
		:: left_over & 1 -> break
		:: left_over > 1 -> left_over = left_over >> 1; replay++
		od;
	};
	d_step {
		first = LOW;
		on_disk[0] = LIVE(replay);
		on_disk[1] = LIVE(replay);
		live[0] = replay;
		live[1] = replay;
		tail = end_lsn;
		durable = end_lsn;
		append = NONE;
		epoch = 0;
		switch_lsn = 0;
		for (lane : 0 .. WRITERS - 1) {
			set_idle(lane)
		}
		lane = 0;
		truth = base;
		l = first;
		do
		:: l < tail ->
			if
			:: KIND(l) == COMMIT -> PUT(truth, l)
			:: else
			fi;
			l++
		:: else -> break
		od;
		v = tail;
		from = replay;
		recover();
		for (w : 0 .. 3) {
			mem[w] = (known & 1 << w -> GET(got, w) : disk[w]);
			disk[w] = (disk[w] == mem[w] -> mem[w] : MANY)
		}
		check()
	};
#ifdef MUTANT_GEN_EARLY
	log_begin();
#endif
	d_step {
		heap_sync();
		check()
	};
#ifndef MUTANT_GEN_EARLY
	log_begin();
#endif
	off = false
}
#endif

init
{
	atomic {
		mem[SHARED] = 7;
		disk[SHARED] = 7;
		base = AT(SHARED, 7);
		truth = base;
		for (w : 0 .. WRITERS - 1) {
			run writer(w)
		}
		run survivor();
		run checkpointer(CHECKPOINTER);
#if CHECKPOINTERS > 1
		run checkpointer(THIEF);
#endif
	}
}
