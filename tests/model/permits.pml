/* SPDX-License-Identifier: MIT
 *
 * permits.pml: model of src/permit.c: a counting semaphore whose permits belong to members.
 *
 * What: a total, and for each slot a cell {attachment, balance}, changed by its member only, in a transaction
 * under the stripe of the semaphore. A cell counts while the member table has its attachment; free is the
 * total less the balances that count. What a member that died had changed is undone, then its row is cleared,
 * then its slot may be taken again.
 * A step is one load or store of a cell, a row or the log; taking and giving back the stripe are steps too.
 *
 * Invariants checked
 *   P1  Members never have more permits than there are, unless one that lent some has died.
 *   P2  With the stripe held, free is exactly the total less what living members have.
 *   P3  Everybody who waits gets a permit in the end, whoever dies; at the end all are free.
 *
 * @whole two members, two deaths: -DKILLS=2
 * @whole two members, two permits, more often: -DTOTAL=2 -DROUNDS=2 -DKILLS=2
 * @whole three members, a death: -DMEMBERS=3 -DKILLS=1
 * @whole killed and started again in the slot: -DKILLS=2 -DSTARTS=1
 * @whole one lends a permit and may die: -DMEMBERS=3 -DLEND -DKILLS=1
 * @long three members, two deaths: -DMEMBERS=3 -DKILLS=2
 * @ends two members, two deaths: -DKILLS=2
 * @finds assertion cells of the dead count: -DKILLS=1 -DMUTANT_VOID_COUNTS
 * @finds assertion the balance of who had the slot before counts: -DKILLS=1 -DSTARTS=1 -DMUTANT_CELL_TRUSTED
 * @finds assertion permits are taken without the stripe: -DKILLS=0 -DMUTANT_NO_STRIPE
 * @finds stuck who waits does not look whether the holders live: -DKILLS=1 -DMUTANT_HOLDERS_UNWATCHED
 * @finds stuck the row goes before the transaction is undone: -DKILLS=2 -DSTARTS=1 -DMUTANT_ROW_FIRST
 */
#ifndef MEMBERS
#define MEMBERS 2
#endif
#ifndef TOTAL
#define TOTAL 1
#endif
#ifndef ROUNDS
#define ROUNDS 1 /* takes of each member */
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef STARTS
#define STARTS 0
#endif
#define SLOTS (MEMBERS + 1) /* and one that lives on */
#define NONE 15

byte row[SLOTS];
byte held_by[SLOTS] = NONE;
byte cell_attachment[SLOTS];
short cell_balance[SLOTS];
byte stripe;		/* slot + 1 of who holds it */
bool logged[SLOTS];	/* the cell is in the log of the open transaction */
byte old_attachment[SLOTS];
short old_balance[SLOTS];
bool killed[SLOTS];
bool coming[SLOTS]; /* has the byte, but the row may still be of who was there before */
byte attachments, finished, starts = STARTS;

short has[SLOTS]; /* what is true: permits of the living, by slot; lent ones are negative */
#define SUM_OF(array) (array[0] + array[1] + ALL2(array))
#if SLOTS > 3
#define ALL2(array) (array[2] + array[3])
#else
#define ALL2(array) array[2]
#endif

#ifdef MUTANT_VOID_COUNTS
#define COUNTS(slot) (cell_attachment[slot] != 0)
#else
#define COUNTS(slot) (cell_attachment[slot] && cell_attachment[slot] == row[slot])
#endif

inline undo(slot)
{
	if
	:: logged[slot] ->
		cell_balance[slot] = old_balance[slot];
		cell_attachment[slot] = old_attachment[slot]
	:: else
	fi;
	atomic {
		logged[slot] = false;
		if
		:: stripe == slot + 1 -> stripe = 0
		:: else
		fi
	}
}

inline row_clear(slot)
{
#ifdef MUTANT_ROW_FIRST
	row[slot] = 0;
	held_by[slot] = NONE;
	undo(slot)
#else
	undo(slot);
	/* Void from here on. */
	row[slot] = 0
#endif
}

#define DEAD(slot) (row[slot] && held_by[slot] == NONE)

inline member_check(slot)
{
	atomic {
		if
		:: DEAD(slot) -> held_by[slot] = me; taken = true
		:: else
		fi
	};
	if
	:: taken ->
		if
		:: row[slot] -> row_clear(slot)
		:: else
		fi;
		atomic { held_by[slot] = NONE; taken = false }
	:: else
	fi
}

inline stripe_take()
{
#ifndef MUTANT_NO_STRIPE
	do
	:: atomic { stripe == 0 -> stripe = me + 1; break }
	:: stripe && DEAD(stripe - 1) ->
		at = stripe;
		if
		:: at -> at = at - 1; member_check(at)
		:: else
		fi;
		at = 0
	od;
	atomic {
		free = TOTAL;
		exact = true;
		for (i : 0 .. SLOTS - 1) {
			if
			:: COUNTS(i) -> free = free - cell_balance[i]
			:: else
			fi;
			if
			:: row[i] && (held_by[i] != i || coming[i]) -> exact = false
			:: else
			fi
		}
		assert(!exact || free == TOTAL - SUM_OF(has));
		free = 0;
		exact = false;
		i = 0
	};
#endif
	skip
}

inline stripe_drop()
{
	if
	:: stripe == me + 1 -> stripe = 0
	:: else
	fi
}

inline available()
{
	free = TOTAL;
	i = 0;
	do
	:: i < SLOTS ->
		atomic {
			if
			:: COUNTS(i) -> free = free - cell_balance[i]
			:: else
			fi;
			i++
		}
	:: else -> break
	od;
	i = 0
}

inline cell_store()
{
	atomic {
		old_attachment[me] = cell_attachment[me];
		old_balance[me] = cell_balance[me];
		logged[me] = true
	};
	cell_balance[me] = balance;
	balance = 0;
	cell_attachment[me] = row[me]
}

#ifdef MUTANT_CELL_TRUSTED
#define BALANCE cell_balance[me]
#else
#define BALANCE (COUNTS(me) -> cell_balance[me] : 0)
#endif
#if SLOTS > 3
#define ANY_DEAD (DEAD(0) || DEAD(1) || DEAD(2) || DEAD(3))
#else
#define ANY_DEAD (DEAD(0) || DEAD(1) || DEAD(2))
#endif

inline take(n)
{
	do
	:: stripe_take();
		available();
		if
		:: free >= n ->
			free = 0;
			balance = BALANCE + n;
			cell_store();
			d_step {
				logged[me] = false;
				stripe_drop();
				has[me] = has[me] + n;
#ifndef LEND
				assert(SUM_OF(has) <= TOTAL);
#endif
				skip
			};
			break
		:: else
		fi;
		free = 0;
		stripe_drop();
		/* Until permits are given back, or a holder is found dead. */
#ifdef MUTANT_HOLDERS_UNWATCHED
		SUM_OF(has) + n <= TOTAL && !ANY_DEAD;
#else
		SUM_OF(has) + n <= TOTAL || ANY_DEAD;
		at = 0;
		do
		:: at < SLOTS -> member_check(at); at++
		:: else -> break
		od;
		at = 0
#endif
	od
}

proctype member(byte me)
{
	byte i, at, left = ROUNDS;
	short free, balance;
	bool taken, exact, over, fresh = true;

start:
	{
		if
		:: fresh -> skip
		:: else ->
			atomic { held_by[me] == NONE -> held_by[me] = me; coming[me] = true };
			if
			:: row[me] -> row_clear(me)
			:: else
			fi;
			atomic { attachments++; row[me] = attachments; coming[me] = false }
		fi;
again:
#ifdef LEND
		if
		:: me == 0 ->
			stripe_take();
			balance = BALANCE - 1;
			cell_store();
			d_step { logged[me] = false; stripe_drop(); has[me] = has[me] - 1 };
			goto leave
		:: else
		fi;
#endif
		take(1);
		if
		:: true ->
			stripe_take();
			balance = BALANCE - 1;
			cell_store();
			d_step { logged[me] = false; stripe_drop(); has[me] = has[me] - 1 }
		:: left == 1 /* closes with it */
		fi;
		atomic {
			left--;
			if
			:: left -> goto again
			:: else
			fi
		};
leave:
		atomic { has[me] = 0; row[me] = 0 };
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
			has[me] = 0;
			coming[me] = false;
			at = 0;
			i = 0;
			free = 0;
			balance = 0;
			exact = false;
			taken = false
		};
		if
		:: !over && starts -> starts--; killed[me] = false; fresh = false; left = 1; goto start
		:: else
		fi;
		finished++
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
	byte i, at;
	short free, balance;
	bool taken, exact;

	finished == MEMBERS;
	take(TOTAL)
}

init
{
	byte i;

	atomic {
		for (i : 0 .. SLOTS - 1) {
			row[i] = i + 1;
			held_by[i] = i
		}
		attachments = SLOTS;
		for (i : 0 .. MEMBERS - 1) {
			run member(i)
		}
		run survivor(MEMBERS);
		i = 0
	}
}
