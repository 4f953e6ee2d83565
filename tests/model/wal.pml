/* SPDX-License-Identifier: MIT
 *
 * wal.pml: model of section 8 of src/FORMAT.md (src/wal.c, lease.c, checkpoint.c, redo.c, power.c): stores
 * in place, and one log of before-images, switches of epoch and commits beside them.
 *
 * What: each writer has a word of its own, both on one page; there a word that all change under a user
 * lock; on another page a word of the allocator that is set after the commit point, under a latch. A record
 * takes one position of the log; a ring of RING of them wraps. Who waits for something to be durable
 * flushes; since a flush by anybody may follow any step, flushes beside each other are in it.
 * A step is what one process does between two points at which others can tell. What is done under `append`
 * with nothing outside to see is one step; a commit is two, so that the latch is seen held, also by the
 * dead.
 * Who is killed makes no further step. What it left in its lane somebody undoes or completes, who may be
 * killed too.
 *
 * The disk: of a word, any value that it has had since the last sync that is over began. Of the log, all
 * that is durable, and any prefix of the rest. After each step that changes any of this, check() cuts the
 * power: it recovers from every such disk and compares. With CUTS the power is cut for good once, at any
 * step; recovery is done in steps that check() cuts again; then all go on with what they had left to do,
 * beside the old lease words.
 *
 * Invariants checked
 *   W1  What a cut leaves is the state after exactly the commits in the prefix of the log that survives.
 *   W2  What was acknowledged is in that prefix; the ring still has all that recovery reads.
 *   W3  Who takes the lock or the latch finds what the last commit left there, and nothing of what was undone.
 *   W4  Everybody gets on as long as anybody lives, in a ring that is full too.
 *   W5  EPOCH: what a cut leaves is the state in which the switch of the last checkpoint found all lanes.
 *
 * @whole two writers: -DTX_0=2
 * @whole one aborts: -DABORTS=1
 * @whole three pages: -DTHREE_PAGES
 * @whole a ring that is full: -DTX_0=2 -DRING=5
 * @whole images copied before the latch: -DIMAGE_FIRST -DDOES=3
 * @whole rolled back while the switch copies: -DSAVEPOINT -DDOES=1
 * @whole a writer dies: -DKILLS=1 -DVICTIMS=1 -DDOES=3
 * @whole a writer dies, operations: -DKILLS=1 -DVICTIMS=1 -DDOES=6
 * @whole a writer and who recovers it die: -DKILLS=2 -DVICTIMS=9 -DDOES=4
 * @whole the checkpointer dies: -DKILLS=1 -DVICTIMS=4 -DDOES=5
 * @whole cut, recovered, and on: -DCUTS -DDOES=3
 * @whole epoch, one aborts: -DEPOCH -DABORTS=1
 * @whole epoch, a writer dies: -DEPOCH -DKILLS=1 -DVICTIMS=1 -DDOES=4 -DDOES_0=5
 * @whole epoch, the checkpointer dies: -DEPOCH -DKILLS=1 -DVICTIMS=4 -DDOES=5
 * @long two checkpoints, one aborts: -DCHECKPOINTS=2 -DABORTS=1
 * @long images copied before the latch, everything: -DIMAGE_FIRST -DABORTS=1
 * @long somebody dies: -DKILLS=1
 * @long a writer and who recovers it die, own words: -DKILLS=2 -DVICTIMS=9 -DDOES=3
 * @long two checkpointers die: -DKILLS=2 -DVICTIMS=4 -DDOES=3
 * @long a cut, everything: -DCUTS -DTX_0=2
 * @long epoch, somebody dies: -DEPOCH -DKILLS=1
 * @long epoch, a writer and who recovers it die: -DEPOCH -DKILLS=2 -DVICTIMS=9 -DDOES=4 -DDOES_0=5
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
 * @finds assertion the epoch before its copies are durable: -DMUTANT_SECTOR_BEFORE_WAL
 * @finds assertion the sector before the heap is durable: -DMUTANT_SECTOR_BEFORE_HEAP
 * @finds assertion the ring is reused before the sector is durable: -DMUTANT_RING_EARLY -DRING=5
 * @finds stuck nothing in the ring is kept for switches: -DRESERVE=0 -DRING=4
 * @finds stuck one switch is kept, one dies: -DKILLS=1 -DVICTIMS=4 -DRESERVE=1 -DRING=4 -DTX_0=2 -DDOES=1
 * @finds assertion what is in the log is undone: -DKILLS=1 -DVICTIMS=1 -DMUTANT_APPENDED_UNDONE
 * @finds assertion the position behind the tail: -DWRITERS=1 -DKILLS=1 -DVICTIMS=1 -DDOES=1 -DMUTANT_LSN_LATE
 * @finds assertion acknowledged before it is durable: -DMUTANT_ACK_EARLY
 * @finds assertion a new log before what was recovered is durable: -DCUTS -DDOES=1 -DMUTANT_GEN_EARLY
 * @finds assertion a new log begins where the old one ends: -DCUTS -DDOES=3 -DMUTANT_NEXT_LSN
 * @finds assertion epoch, who looks is taken for active: -DEPOCH -DDOES=5 -DMUTANT_LOOKING_ACTIVE
 * @finds assertion epoch, who looks is taken for committed: -DEPOCH -DDOES=5 -DMUTANT_LOOKING_COMMITTED
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
#define VICTIMS 15 /* who may be killed: 1, 2 the writers, 4 the checkpointer, 8 who recovers */
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
#define RESERVE (1 + KILLS) /* positions for SWITCH records only */
#endif
#define CHECKPOINTER WRITERS
#define SURVIVOR (WRITERS + 1)
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
	:: d_step { !EVEN && append == NONE -> bit_clear(); w = 0 }
	:: d_step { EVEN && !LEASED(page) -> seen = epoch; image = IMAGE_OF(page) };
		atomic {
			append == NONE && (epoch != seen || ROOM(1 + RESERVE)) ->
			bit_clear();
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
		bit_clear();
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
	:: d_step { lease[page] > durable -> durable = tail; check() }
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
	:: k > 0 -> k--; store(rec_word[2 * lane + k], rec_value[2 * lane + k])
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

inline log_commit()
{
	does[me] = WORDS;
	made[me] = STAMP | STAMP << 3;
	made[me] = (made[me] | made[me] << 6) & BITS(WORDS)
}

proctype writer(byte me)
{
	byte left, seen, k;
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
			store(SHARED, STAMP);
			store(SHARED, rec_value[0]);
			d_step { used[me] = 0; turn[me]++ }
		:: else
		fi;
#endif
		if
		:: DO(1) ->
			modify(me);
			store(me, STAMP)
		:: else
		fi;
		if
		:: DO(2) ->
			/* W3 */
			atomic {
				lock == NONE ->
				lock = me;
				state[me] = ACTIVE;
				assert(mem[SHARED] == GET(truth, SHARED))
			};
			modify(SHARED);
			store(SHARED, STAMP)
		:: else
		fi;
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
		do
		:: true ->
			if
			:: DO(4) -> lease_page(PAGE(MAP))
			:: !DO(4) && EVEN
			:: d_step { !DO(4) && !EVEN && append == NONE -> bit_clear(); w = 0 }
			fi;
			d_step { log_commit(); state[me] = LOOKING };
			if
			:: d_step { EVEN && (!DO(4) || epoch == seen) -> seen = epoch }; break
			:: !(EVEN && (!DO(4) || epoch == seen)) -> state[me] = ACTIVE
			fi
		od;
		atomic { state[me] = COMMITTED; truth = (truth & ~BITS(does[me])) | made[me] };
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
			bit_clear();
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
		:: DO(4) -> store(MAP, STAMP)
		:: else
		fi;
#ifdef EPOCH
		set_idle(me);
		if
		:: true
		:: disk_epoch > seen >> 1 -> assert(!DO(1) || GET(base, me) == STAMP)
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
				:: k > durable -> durable = tail; check()
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
			:: does[lane] & 8 -> store(MAP, GET(made[lane], MAP))
			:: else
			fi
		:: !COMPLETED(lane) -> undo(lane)
		fi;
		/* W3 */
		atomic { set_idle(lane); assert(mem[lane] == GET(truth, lane)); at_work[SURVIVOR] = false }
	} unless { !at_work[SURVIVOR] || off };
	d_step { k = 0; lane = 0; at_work[SURVIVOR] = false };
	goto start
}

/* Who looks is waited for. */
#ifdef MUTANT_LOOKING_ACTIVE
#define READY(lane) true
#define IS_ACTIVE(lane) (state[lane] == ACTIVE || state[lane] == LOOKING)
#else
#define IS_ACTIVE(lane) (state[lane] == ACTIVE)
#endif
#ifdef MUTANT_LOOKING_COMMITTED
#define READY(lane) true
#define IS_COMMITTED(lane) (state[lane] >= APPENDING)
#else
#define IS_COMMITTED(lane) (state[lane] == APPENDING || state[lane] == COMMITTED)
#endif
#ifndef READY
#define READY(lane) (state[lane] != LOOKING)
#endif

inline copy_lane(lane)
{
	do
#ifdef SAVEPOINT
	:: d_step { many = (IS_ACTIVE(lane) -> used[lane] : 0); in_turn = turn[lane] };
#endif
#ifdef SAVEPOINT
	   atomic {
#else
	:: atomic {
		READY(lane);
		many = (IS_ACTIVE(lane) -> used[lane] : 0);
#endif
#if defined(SAVEPOINT) && !defined(MUTANT_ROLLBACK_UNSEEN)
		if
		:: in_turn != turn[lane] -> copied = false
		:: else -> copied = true
		fi;
#else
		copied = true;
#endif
		if
		:: copied ->
#ifndef MUTANT_NO_COPIES
			for (w : 0 .. 1) {
				if
				:: w < many ->
					set = set | 1 << rec_word[2 * lane + w];
					copies = copies | AT(rec_word[2 * lane + w], rec_value[2 * lane + w])
				:: else
				fi
			}
#endif
#ifndef MUTANT_NO_REDO
			if
			:: IS_COMMITTED(lane) ->
				set = set | does[lane] & 8;
				copies = copies | made[lane] & BITS(does[lane] & 8)
			:: else
			fi;
#endif
			many = 0;
			in_turn = 0;
			break
		:: else
		fi
	   }
	od
}

/* The switch was made by somebody who died before the sector. */
#define GO_ON (EVEN && epoch >> 1 > replay)
#define WANTED (finished < WRITERS && !off)

/* Makes checkpoints, and may die: the next one starts over. */
proctype checkpointer()
{
	byte at, set, many, in_turn;
	short copies;

start:
end:
	atomic {
		if
		:: WANTED && GO_ON -> at = epoch >> 1
		:: WANTED && !GO_ON && (checkpoints > 0 || !ROOM(1 + RESERVE)) && append == NONE && ROOM(1) ->
			checkpoints = (checkpoints -> checkpoints - 1 : 0);
			bit_clear();
			append = CHECKPOINTER
		fi;
		at_work[CHECKPOINTER] = true
	};
	{
		if
		:: at -> goto rest
		:: else
		fi;
		epoch = epoch | 1;
		copy_lane(0);
#if WRITERS > 1
		copy_lane(1);
#endif
		atomic {
			at = tail;
#ifdef EPOCH
			at_switch = truth;
#endif
			d_step {
				put_record(SWITCH, set, copies);
				copies = 0;
				set = 0;
				check()
			}
		};
		d_step {
#ifndef MUTANT_SECTOR_BEFORE_WAL
			durable = tail;
#endif
			epoch = 2 * at;
			append = NONE;
			check()
		};
rest:
		skip;
#ifndef MUTANT_SECTOR_BEFORE_HEAP
		d_step {
			syncing = true;
			for (w : 0 .. 3) {
				synced[w] = mem[w]
			}
			w = 0
		};
		d_step {
			syncing = false;
			for (w : 0 .. 3) {
				disk[w] = synced[w];
				synced[w] = 0
			}
			check()
		};
#endif
#ifdef MUTANT_RING_EARLY
		replay = at;
#endif
		d_step {
			disk_epoch = at;
#ifdef EPOCH
			base = at_switch;
#endif
			check()
		};
		d_step { ring_free(at); at_work[CHECKPOINTER] = false }
	} unless { !at_work[CHECKPOINTER] || off };
	d_step {
		append = (append == CHECKPOINTER -> NONE : append);
		syncing = false;
		for (w : 0 .. 3) {
			synced[w] = 0
		}
		at = 0;
		set = 0;
		copies = 0;
		many = 0;
		at_work[CHECKPOINTER] = false
	};
	goto start
}

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
		disk_epoch = end_lsn;
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
		!at_work[0] && !at_work[1] && !at_work[SURVIVOR] && !at_work[CHECKPOINTER] -> end_lsn = durable;
		do
		:: end_lsn < tail -> end_lsn++
		:: break
		od
	};
	d_step {
		first = LOW;
		tail = end_lsn;
		durable = end_lsn;
		replay = disk_epoch;
		append = NONE;
		epoch = 0;
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
		for (w : 0 .. 3) {
			disk[w] = mem[w]
		}
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
		run checkpointer()
	}
}
