/* SPDX-License-Identifier: MIT
 *
 * extent.pml: model of section 8 of src/FORMAT.md (src/lease.c, redo.c): space that is stored to without a
 * lease because nothing in the log knows of it, and whose bytes are flushed instead of logged.
 *
 * What: one chunk. Users allocate it, modify it, free it, use it for a long log, or give up. Who leases a
 * page beside it leases it too. Checkpoints are made. What wal.pml has is short here: the descriptor itself
 * is always covered, and nobody dies: a user may stop at any step for ever, and who gives up leaves what
 * the undone leave. Fresh bytes may be stored in any later epoch than the one in which the chunk was
 * leased, so a reserved block is the same.
 * A chunk is chosen if its descriptor says free and nobody owns it. It is lease-free iff `alloc_lsn` and
 * its lease word are at most what the durable sector has. The image of a neighbour is copied if the
 * descriptor does not say free, then appended if the epoch is still the same. `alloc_lsn` is all ones while
 * the descriptor changes, then the tail: were it the end of the record, a switch could lie between the
 * record and the descriptor, and both tests would pass.
 *
 * Invariant checked, for every disk that a cut may leave, after each step
 *   X1  If the log that survives says that the chunk is allocated, its bytes are those of the last commit.
 *
 * @whole two users: -DOPS=4
 * @whole one user, two checkpoints: -DUSERS=1 -DOPS=3 -DCHECKPOINTS=2
 * @long two users, two checkpoints: -DOPS=3 -DCHECKPOINTS=2
 * @long two users, five operations: -DOPS=5
 * @finds assertion when it was freed does not matter: -DMUTANT_NO_LSN
 * @finds assertion what images there are does not matter: -DMUTANT_NO_WORD
 * @finds assertion neighbours are leased though they are free: -DMUTANT_NEIGHBOUR_FREE
 * @finds assertion neighbours are leased in another epoch: -DMUTANT_NEIGHBOUR_LATE
 * @finds assertion the lease word without an image: -DMUTANT_WORD_ONLY
 * @finds assertion the record before the bytes are durable: -DMUTANT_NOT_FLUSHED
 * @finds assertion the descriptor before alloc_lsn: -DMUTANT_STAMP_LATE
 * @finds assertion alloc_lsn is the end of the record: -DMUTANT_STAMP_END
 * @finds assertion alloc_lsn is the tail before the descriptor changes: -DMUTANT_STAMP_EARLY
 * @finds assertion a log in space that may be somebody's: -DMUTANT_LOG_BARE
 * @finds assertion bytes that have an image are not logged: -DMUTANT_IMAGED
 */
#ifndef USERS
#define USERS 2
#endif
#ifndef OPS
#define OPS 4 /* of all users */
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 1
#endif
#define NONE 15
#define NEVER 255
#define MANY 15
#define LOG_SIZE (2 + 4 * OPS + CHECKPOINTS)

#define ALLOC 1 /* kinds of records; value: the bytes */
#define ALLOC_BARE 2 /* value: what the bytes in the file are; recovery does not see it */
#define MODIFY 3
#define FREE 4
#define IMAGE 5
#define SWITCH 6
#define SWITCH_UNDO 7

byte kind[LOG_SIZE], value[LOG_SIZE];
byte tail = 2, durable = 2;
byte epoch = 2;	    /* 2 * lsn, and the bit */
byte epoch_lsn = 1; /* of the durable sector, as the coordination page has it */
byte lease = 1, alloc_lsn = 1;
bool allocated = true; /* descriptor */
byte mem, user = NONE, owner = NONE, latch = NONE, append = NONE;
bool has_undo;
byte undo;
byte disk, synced, disk_epoch = 1;
bool syncing;
byte ops = OPS, stamp, checkpoints = CHECKPOINTS;

hidden byte v, l, got, want, is;

#define EVEN ((epoch & 1) == 0)
#define LEASED (lease > epoch >> 1)
#ifdef MUTANT_NO_LSN
#define OLD_FREE true
#else
#define OLD_FREE (alloc_lsn <= epoch_lsn)
#endif
#ifdef MUTANT_NO_WORD
#define OLD_WORD true
#else
#define OLD_WORD (lease <= epoch_lsn)
#endif
#ifdef MUTANT_WORD_ONLY
#define WORD_ONLY lease = tail;
#else
#define WORD_ONLY
#endif
#define LEASE_FREE (OLD_FREE && OLD_WORD)

/* X1 */
inline check()
{
	v = durable;
	do
	:: v <= tail ->
		is = 0;
		l = 0;
		do
		:: l < v ->
			is = (kind[l] == ALLOC || kind[l] == ALLOC_BARE -> 1 : (kind[l] == FREE -> 0 : is));
			want = (kind[l] >= ALLOC && kind[l] <= MODIFY -> value[l] : want);
			l++
		:: else -> break
		od;
		got = disk;
		l = v;
		do
		:: l > disk_epoch ->
			l--;
			got = (kind[l] == IMAGE || kind[l] == SWITCH_UNDO -> value[l] : got)
		:: else -> break
		od;
		l = disk_epoch;
		do
		:: l < v ->
			got = (kind[l] == ALLOC || kind[l] == MODIFY -> value[l] : got);
			l++
		:: else -> break
		od;
		assert(!is || got == want);
		v++
	:: else -> break
	od;
	v = 0
}

inline put_record(what, bytes)
{
	kind[tail] = what;
	value[tail] = bytes;
	tail++
}

inline store(bytes)
{
	d_step {
		mem = bytes;
		disk = (disk == mem -> mem : MANY);
		synced = (!syncing || synced == mem -> synced : MANY);
		check()
	}
}

inline store_new()
{
	stamp++;
	store(stamp)
}

inline lease_page()
{
	if
	:: d_step { EVEN && LEASED -> seen = epoch }
	:: d_step {
		append == NONE && EVEN && !LEASED ->
		seen = epoch;
		put_record(IMAGE, mem);
		lease = tail;
		check()
	   }
	fi;
	d_step { durable = (lease > durable -> tail : durable); check() }
}

proctype user_of(byte me)
{
	byte seen;
	bool bare;

end:
	do
	/* Modified, in place. */
	:: atomic { ops && allocated && user == NONE -> ops--; user = me };
		lease_page();
		d_step { has_undo = true; undo = mem };
		if
		:: epoch == seen
		:: epoch != seen -> lease_page()
		fi;
		seen = 0;
		store_new();
		if
		:: store(undo)
		:: d_step { append == NONE -> put_record(MODIFY, mem); has_undo = false; check() }
		fi;
		d_step { has_undo = false; undo = 0; user = NONE }
	/* Freed. */
	:: atomic { ops && allocated && user == NONE -> ops--; user = me };
		atomic { latch == NONE -> latch = me };
		d_step { append == NONE -> put_record(FREE, 0); seen = tail; check() };
#if defined(MUTANT_STAMP_LATE)
		allocated = false;
		alloc_lsn = tail;
#elif defined(MUTANT_STAMP_END)
		alloc_lsn = seen;
		allocated = false;
#elif defined(MUTANT_STAMP_EARLY)
		alloc_lsn = tail;
		allocated = false;
#else
		alloc_lsn = NEVER;
		allocated = false;
		alloc_lsn = tail;
#endif
		d_step { seen = 0; user = NONE; latch = NONE }
	/* Allocated, or used for a log. */
	:: atomic { ops && !allocated && owner == NONE -> ops--; owner = me; bare = LEASE_FREE };
		if
#ifdef MUTANT_LOG_BARE
		:: true -> store_new(); goto give_up
#endif
		:: bare
		:: !bare -> lease_page(); seen = 0
		fi;
		store_new();
		if
		:: true -> goto give_up
		:: bare ->
			/* To go back to a savepoint it may lease the page all the same. */
			if
			:: lease_page(); seen = 0; store_new()
			:: true
			fi;
#ifndef MUTANT_NOT_FLUSHED
			d_step { disk = mem; synced = (syncing -> mem : 0); check() };
#endif
			atomic { latch == NONE -> latch = me };
#ifdef MUTANT_IMAGED
			d_step { append == NONE -> put_record(ALLOC_BARE, mem); check() }
#else
			if
			:: d_step { append == NONE && LEASE_FREE -> put_record(ALLOC_BARE, mem); WORD_ONLY check() }
			:: d_step { append == NONE && !LEASE_FREE -> put_record(ALLOC, mem); check() }
			fi
#endif
		:: atomic { latch == NONE -> latch = me };
			d_step { append == NONE -> put_record(ALLOC, mem); check() }
		fi;
		alloc_lsn = NEVER;
		allocated = true;
		alloc_lsn = tail;
give_up:
		skip;
		d_step { seen = 0; bare = false; owner = NONE; latch = (latch == me -> NONE : latch) }
	od
}

/* Who leases the page beside it. */
proctype neighbour()
{
	byte seen, image;

end:
	do
#ifdef MUTANT_NEIGHBOUR_FREE
	:: d_step { lease && EVEN && !LEASED -> seen = epoch; image = mem };
#else
	:: d_step { lease && EVEN && !LEASED && allocated -> seen = epoch; image = mem };
#endif
		d_step {
			append == NONE ->
			if
#ifdef MUTANT_NEIGHBOUR_LATE
			:: !LEASED && EVEN ->
#else
			:: epoch == seen ->
#endif
				put_record(IMAGE, image);
				lease = tail;
				check()
			:: else
			fi;
			seen = 0;
			image = 0
		}
	od
}

proctype checkpointer()
{
	byte at;

end:
	do
	:: atomic { checkpoints && append == NONE -> checkpoints--; append = 0; epoch = epoch | 1 };
		d_step {
			at = tail;
			if
			:: has_undo -> put_record(SWITCH_UNDO, undo)
			:: else -> put_record(SWITCH, 0)
			fi;
			check()
		};
		d_step { durable = tail; epoch = 2 * at; append = NONE; check() };
		d_step { syncing = true; synced = mem };
		d_step { syncing = false; disk = synced; synced = 0; check() };
		d_step { disk_epoch = at; check() };
		d_step { epoch_lsn = at; at = 0 }
	od
}

init
{
	atomic {
		kind[0] = ALLOC;
		kind[1] = SWITCH;
		run user_of(0);
#if USERS > 1
		run user_of(1);
#endif
		run neighbour();
		run checkpointer()
	}
}
