/* SPDX-License-Identifier: MIT
 *
 * wal_checkpoint.h: for wal.pml: the switch of epoch, and the rest of a checkpoint.
 */
/* Promela: clang-format would not leave it as it is. */
/* clang-format off */
/* Who looks is made active: it may be stopped. (The code waits a little before.) */
#ifdef MUTANT_LOOKING_ACTIVE
#define IS_ACTIVE(lane) (state[lane] == ACTIVE || state[lane] == LOOKING)
#else
#define IS_ACTIVE(lane) (state[lane] == ACTIVE)
#endif
#ifdef MUTANT_LOOKING_COMMITTED
#define IS_COMMITTED(lane) (state[lane] >= APPENDING)
#else
#define IS_COMMITTED(lane) (state[lane] == APPENDING || state[lane] == COMMITTED)
#endif
#if defined(MUTANT_LOOKING_ACTIVE) || defined(MUTANT_LOOKING_COMMITTED)
#define DECIDED(is) is
#else
#define DECIDED(is) (is == LOOKING -> ACTIVE : is)
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
		state[lane] = DECIDED(state[lane]);
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

/* A switch has been made, and its checkpoint is not over. */
#define GO_ON (EVEN && epoch >> 1 > replay)
#define WANTED (finished < WRITERS && !off)
/* One is as the other, and nothing is left of one that is done: the second begins beside one at work only. */
#define MAY_BEGIN (me == CHECKPOINTER || at_work[CHECKPOINTER])

#ifdef MUTANT_SWITCH_AGAIN
#define AGAIN true
#else
#define AGAIN false
#endif

#ifdef MUTANT_LIVE_STORED
#define RAISED(was) true
#else
#define RAISED(was) (was < at)
#endif

/* Kind A durable: what the sync finds at some moment between its begin and its end. */
inline heap_sync()
{
	for (w : 0 .. 3) {
		disk[w] = mem[w]
	}
	w = 0
}

/* Makes checkpoints, and may die: the next one starts over. Or goes on later, beside others. */
proctype checkpointer(byte me)
{
	byte at, set, many, in_turn, page;
	short copies;

start:
end:
	atomic {
		if
		:: WANTED && MAY_BEGIN && GO_ON -> at = epoch >> 1
		:: WANTED && MAY_BEGIN && (AGAIN || !GO_ON) && (checkpoints > 0 || !ROOM(1 + RESERVE)) &&
				append == NONE && (ROOM(1) || SWITCH_IN_LOG) ->
			switch_help();
			if
			:: GO_ON && !AGAIN -> at = epoch >> 1
			:: else ->
				checkpoints = (checkpoints -> checkpoints - 1 : 0);
#ifndef MUTANT_SWITCH_LSN_LATE
				switch_lsn = tail;
#endif
				epoch = epoch | 1;
				append = me
			fi
		fi;
		at_work[me] = true
	};
	{
		if
		:: at -> goto rest
		:: else
		fi;
		copy_lane(0);
#if WRITERS > 1
		copy_lane(1);
#endif
#ifdef MUTANT_SWITCH_LSN_LATE
		switch_lsn = tail;
#endif
		atomic {
			at = switch_lsn;
			d_step {
#ifdef EPOCH
				/* Without what was committed when its undo had been copied. */
				at_switch[tail % RING] = (truth & ~BITS(set & 7)) | (copies & BITS(set & 7));
#ifdef READER
				/* W5. The shared word is stored once. */
				assert(GET(at_switch[tail % RING], 1) == 0 || GET(at_switch[tail % RING], 1) == 7 ||
				       GET(at_switch[tail % RING], 1) == GET(at_switch[tail % RING], SHARED));
#endif
#endif
				put_record(SWITCH, set, copies);
				append = NONE;
				copies = 0;
				set = 0;
				check()
			}
		};
		/* Durable, then compared and swapped: it is odd as it was as long as nobody has helped. */
		d_step {
			if
#ifdef MUTANT_EPOCH_STORED
			:: true ->
#else
			:: !EVEN && switch_lsn == at ->
#endif
#ifndef MUTANT_EPOCH_BEFORE_WAL
				flush_to(at + 1);
#endif
				epoch = 2 * at
			:: else
			fi
		};
rest:
		skip;
#if !defined(MUTANT_LIVE_BEFORE_HEAP)
		d_step { heap_sync() };
#endif
#ifdef MUTANT_RING_EARLY
		d_step { ring_free(at) };
#endif
		/* The lower one; or the one that is so high already. */
#ifdef MUTANT_HIGHER_RAISED
		page = (live[0] >= live[1] -> 0 : 1);
#else
		page = (live[0] >= at || (live[1] < at && live[0] <= live[1]) -> 0 : 1);
#endif
		d_step {
			if
			:: RAISED(live[page]) ->
				live[page] = at;
				on_disk[page] = on_disk[page] | LIVE(at);
				check()
			:: else
			fi
		};
#ifdef MUTANT_LIVE_BEFORE_HEAP
		d_step { heap_sync() };
#endif
		/* The page durable, then the words of the coordination page, as far as they are lower. */
		d_step {
			on_disk[page] = LIVE(live[page]);
			ring_free(at);
			at_work[me] = false
		}
	} unless { !at_work[me] || off };
	d_step {
		append = (append == me -> NONE : append);
		at = 0;
		set = 0;
		copies = 0;
		many = 0;
		in_turn = 0;
		page = 0;
		at_work[me] = false
	};
	goto start
}
