/* SPDX-License-Identifier: MIT
 *
 * resources.pml: model of src/hold.c: objects that live as long as a living member holds them.
 *
 * What: a record {object, attachment} counts while the member table has that attachment. A member with
 * records that goes, by closing or by death, raises the counter `reap` before its row is cleared. Who reaps
 * reads the counter, goes through all buckets (each a transaction: void records go, and with the last record
 * the object) and raises `reaped` to what it read, if no member was in the middle of leaving then. There is
 * something to do while the two differ.
 * Transactions are one step: what a death in one leaves is undone before the row goes, see locks.pml. The
 * counter, the row and the buckets are several steps, each of which may be the last one of who makes it.
 *
 * Invariants checked
 *   R1  An object is freed once, and never while a living member holds it.
 *   R2  When all others have left or died, and the one that lives on has recovered and reaped, no object that
 *       was held is left over.
 *   R3  The same for the next opener, when nobody lives on.
 *
 * @whole two holders, a reaper, two deaths: -DKILLS=2
 * @whole one object, two reapers, two deaths: -DOBJECTS=1 -DREAPERS=2 -DKILLS=2
 * @whole one object, killed and started again in the slot: -DOBJECTS=1 -DKILLS=1 -DSTARTS=1
 * @whole nobody lives on: -DKILLS=2 -DALL_DEAD
 * @long one object, two reapers, three deaths: -DOBJECTS=1 -DREAPERS=2 -DKILLS=3
 * @long one object, three holders, two deaths: -DOBJECTS=1 -DHOLDERS=3 -DKILLS=2
 * @long killed twice, started again once: -DKILLS=2 -DSTARTS=1
 * @finds assertion the counter is put back whatever it is: -DKILLS=1 -DMUTANT_COUNTER_CLEARED
 * @finds assertion the counter is put back if it looks the same: -DKILLS=2 -DSTARTS=1 -DMUTANT_COUNTER_BACK
 * @finds assertion the counter is read after the buckets: -DKILLS=1 -DMUTANT_COUNTER_READ_LATE
 * @finds assertion a member in the middle of leaving is not seen: -DKILLS=1 -DMUTANT_LEAVING_UNSEEN
 * @finds assertion the row goes before the counter is raised: -DKILLS=2 -DMUTANT_ROW_FIRST
 * @finds assertion the row says that there are holds after the first one: -DKILLS=1 -DMUTANT_FLAG_LATE
 * @finds assertion freed when any hold goes: -DKILLS=0 -DMUTANT_FREED_WITH_ANY
 * @finds assertion records of the dead count: -DKILLS=1 -DMUTANT_VOID_COUNTS
 * @finds assertion a bucket is reaped without its stripe: -DOBJECTS=1 -DREAPERS=2 -DKILLS=1 -DMUTANT_NO_STRIPE
 */
#ifndef HOLDERS
#define HOLDERS 2
#endif
#ifndef REAPERS
#define REAPERS 1 /* recover and reap, and may die */
#endif
#ifndef OBJECTS
#define OBJECTS 2 /* each in a bucket of its own */
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef STARTS
#define STARTS 0 /* of killed holders again, in the same slot */
#endif
#define MEMBERS (HOLDERS + REAPERS)
#define SLOTS (MEMBERS + 1) /* and who lives on */
#define ATTACHMENTS (SLOTS + STARTS + 1)
#define RECORD(object, attachment) ((object) * ATTACHMENTS + (attachment))
#define NONE 15

byte row[SLOTS];		/* attachment */
bool has_holds[SLOTS];		/* PHD_MEMBER_HOLDS */
bool leaving[SLOTS];		/* PHD_MEMBER_LEAVING */
byte slot_of[ATTACHMENTS];
bool record[OBJECTS * ATTACHMENTS];
bool allocated[OBJECTS] = true;
byte reap, reaped;
byte held_by[SLOTS] = NONE;	/* the slot's byte */
bool killed[SLOTS];
byte attachments, finished, starts = STARTS;

/* What is true. */
bool holds[OBJECTS * ATTACHMENTS], was_held[OBJECTS];

#ifdef MUTANT_VOID_COUNTS
#define IS_VOID(attachment, gone) ((attachment) == (gone))
#else
#define IS_VOID(attachment, gone) ((attachment) == (gone) || row[slot_of[attachment]] != (attachment))
#endif

/* Inside a step: the records of the gone go, and with the last one the object. */
inline settle(object, gone)
{
	count = 0;
	for (i : 1 .. ATTACHMENTS - 1) {
		if
		:: record[RECORD(object, i)] && IS_VOID(i, gone) -> record[RECORD(object, i)] = false
		:: record[RECORD(object, i)] && !IS_VOID(i, gone) -> count++
		:: else
		fi
	}
#ifdef MUTANT_FREED_WITH_ANY
	count = 0;
#endif
	if
	:: count == 0 ->
		assert(allocated[object]);
		for (i : 1 .. ATTACHMENTS - 1) {
			assert(!holds[RECORD(object, i)])
		}
		allocated[object] = false
	:: else
	fi;
	count = 0;
	i = 0
}

/* ph_hold_reap */
inline hold_reap(gone)
{
	seen = reap;
	quiet = true;
#ifndef MUTANT_LEAVING_UNSEEN
	/* One step: what matters of a row is whether it was leaving when the counter was read. */
	d_step {
		for (i : 0 .. SLOTS - 1) {
			if
			:: row[i] && leaving[i] -> quiet = false
			:: else
			fi
		}
		i = 0
	};
#endif
	if
	:: seen != reaped || gone ->
		object = 0;
		do
		:: object < OBJECTS ->
#ifdef MUTANT_NO_STRIPE
			count = 0;
			for (i : 1 .. ATTACHMENTS - 1) {
				if
				:: record[RECORD(object, i)] && IS_VOID(i, gone) -> count++
				:: else
				fi
			}
			i = 0;
			if
			:: count -> d_step { settle(object, gone) }
			:: else
			fi;
#else
			d_step {
				count = 0;
				for (i : 1 .. ATTACHMENTS - 1) {
					if
					:: record[RECORD(object, i)] && IS_VOID(i, gone) -> count++
					:: else
					fi
				}
				if
				:: count -> settle(object, gone)
				:: else
				fi;
				count = 0;
				i = 0
			};
#endif
			object++
		:: else -> break
		od;
		object = 0;
#ifdef MUTANT_COUNTER_READ_LATE
		seen = reap;
#endif
		atomic {
			if
#if defined(MUTANT_COUNTER_CLEARED)
			:: true -> reap = 0
#elif defined(MUTANT_COUNTER_BACK)
			:: quiet && seen && reap == seen -> reap = 0
#else
			:: quiet && reaped < seen -> reaped = seen
#endif
			:: else
			fi
		};
	:: else
	fi;
	seen = 0
}

/* The row goes: of the dead, or when leaving. */
inline row_clear(slot)
{
	if
	:: has_holds[slot] ->
#ifdef MUTANT_ROW_FIRST
		row[slot] = 0;
		reap++
#else
		leaving[slot] = true;
		reap++
#endif
	:: else
	fi;
	row[slot] = 0
}

inline member_check(slot)
{
	atomic {
		if
		:: row[slot] && held_by[slot] == NONE -> held_by[slot] = me; taken = true
		:: else
		fi
	};
	if
	:: taken && row[slot] -> row_clear(slot); due = true
	:: else
	fi;
	if
	:: taken -> atomic { held_by[slot] = NONE; taken = false }
	:: else
	fi
}

inline reap_due()
{
	if
	:: due -> due = false; hold_reap(0)
	:: else
	fi
}

inline attach()
{
	atomic { held_by[me] == NONE -> held_by[me] = me };
	if
	:: row[me] -> row_clear(me)
	:: else
	fi;
	d_step {
		attachments++;
		attachment = attachments;
		slot_of[attachment] = me;
		has_holds[me] = false;
		leaving[me] = false;
		row[me] = attachment
	}
}

proctype member(byte me)
{
	byte attachment, seen, i, object, count;
	bool quiet, taken, due, over;

	attachment = me + 1;
start:
	{
		if
		:: attachment == 0 -> attach()
		:: else
		fi;
		if
		:: me >= HOLDERS -> goto reaper
		:: else
		fi;
		for (object : 0 .. OBJECTS - 1) {
			if
			:: me == 0 || object || OBJECTS == 1 ->
#ifndef MUTANT_FLAG_LATE
				has_holds[me] = true;
#endif
				atomic {
					if
					:: allocated[object] ->
						record[RECORD(object, attachment)] = true;
						holds[RECORD(object, attachment)] = true;
						was_held[object] = true
					:: else
					fi
				};
#ifdef MUTANT_FLAG_LATE
				has_holds[me] = true
#endif
			:: me
			fi
		}
		object = 0;
		if
		:: d_step {
			holds[RECORD(0, attachment)] ->
			holds[RECORD(0, attachment)] = false;
			record[RECORD(0, attachment)] = false;
			settle(0, 0)
		   }
		:: true
		fi;
		goto close;

reaper:
		do
		:: (finished & 15) == HOLDERS -> break
		:: row[0] && held_by[0] == NONE -> member_check(0); reap_due()
#if HOLDERS > 1
		:: row[1] && held_by[1] == NONE -> member_check(1); reap_due()
#endif
		od;

close:
		if
		:: has_holds[me] ->
			d_step {
				for (object : 0 .. OBJECTS - 1) {
					holds[RECORD(object, attachment)] = false
				}
				object = 0
			};
			hold_reap(attachment);
			has_holds[me] = false
		:: else
		fi;
		row_clear(me);
		over = true
	} unless { killed[me] };
	atomic {
		d_step {
			for (i : 0 .. SLOTS - 1) {
				if
				:: held_by[i] == me -> held_by[i] = NONE
				:: else
				fi
			}
			for (i : 0 .. OBJECTS - 1) {
				holds[RECORD(i, attachment)] = false
			}
			i = 0;
			seen = 0;
			object = 0;
			count = 0;
			attachment = 0;
			quiet = false;
			taken = false;
			due = false
		};
		if
		:: !over && me < HOLDERS && starts > 0 -> starts--; killed[me] = false; goto start
		:: else
		fi;
		if
		:: me < HOLDERS -> finished++
		:: else -> finished = finished + 16
		fi
	}
}

#if KILLS
active proctype fate()
{
	byte kills = KILLS, who;

	do
	:: atomic { kills > 0 -> kills--; select(who : 0 .. MEMBERS - 1); killed[who] = true; who = 0 }
	:: break
	od
}
#endif

proctype survivor(byte me)
{
	byte attachment, seen, i, object, count, slot;
	bool quiet, taken, due;

	finished == HOLDERS + 16 * REAPERS;
#ifdef ALL_DEAD
	/* The next opener: ph_recovery_all, ph_hold_any. */
	d_step {
		for (i : 0 .. SLOTS - 1) {
			row[i] = 0
		}
		for (i : 0 .. OBJECTS * ATTACHMENTS - 1) {
			if
			:: record[i] -> reap = reaped + 1
			:: else
			fi
		}
		i = 0
	};
#else
	for (slot : 0 .. MEMBERS - 1) {
		member_check(slot)
	}
#endif
	hold_reap(0);
	for (object : 0 .. OBJECTS - 1) {
		assert(!was_held[object] || !allocated[object])
	}
}

init
{
	byte i;

	atomic {
		for (i : 0 .. SLOTS - 1) {
			row[i] = i + 1;
			held_by[i] = i;
			slot_of[i + 1] = i
		}
		attachments = SLOTS;
		for (i : 0 .. MEMBERS - 1) {
			run member(i)
		}
		run survivor(MEMBERS);
		i = 0
	}
}
