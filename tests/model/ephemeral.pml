/* SPDX-License-Identifier: MIT
 *
 * ephemeral.pml: model of src/ephemeral.c, open.c and attach.c: a heap that goes with its last user.
 *
 * What: one name, the files that stand under it one after the other, and processes that open and close it or
 * are killed and started again. A file has a gate byte (exclusive), an ANY byte (shared by the attached) and
 * a link count. Open: open the file, or make one without a name and link it (-EEXIST: open what is there);
 * take its gate; is the name still this file's? Somebody attached: join. Nobody, never attached: enter.
 * Nobody, but attached before: all have died, so remove the name under the gate and begin again. Close: take
 * the gate, remove the name if nobody else is left, drop all bytes.
 * A step is one system call. A death drops all bytes of the process at once, as the kernel does. An outsider
 * may make a second link (OUTSIDER 1) or remove the name (2) at any moment. Between the look at the name and
 * unlink nothing can be done about that, as no system call does both: they are one step where he removes.
 *
 * Invariants checked
 *   E1  Two attached processes have the same file, unless an outsider took the name away from one of them.
 *   E2  Who enters as the first enters a file that nobody was attached to before.
 *   E3  A name is removed only from the file that it is removed for, and only when nobody else is attached.
 *   E4  Everybody who opens gets in in the end, whoever dies.
 *
 * The look under the gate and the one before unlink cover for each other while nobody but its users touches
 * the name: a file that has lost it is one that all have left, and so is not entered. Broken variants of the
 * first are therefore shown with UNLINK_BLIND. The code looks at the link count, which a second link spoils;
 * with the look before unlink that does no harm.
 *
 * @whole three processes: -DKILLS=2
 * @whole three processes, opening twice: -DKILLS=0 -DROUNDS=2
 * @whole two processes, dying often: -DPROCESSES=2 -DROUNDS=2 -DKILLS=3
 * @whole the link count is looked at, and there is a second link: -DKILLS=1 -DOUTSIDER=1 -DLINK_COUNT
 * @whole somebody removes the name: -DKILLS=1 -DOUTSIDER=2 -DLINK_COUNT
 * @long three processes, opening twice, a death: -DROUNDS=2 -DKILLS=1
 * @ends three processes: -DKILLS=1
 * @finds assertion the name is not looked at again: -DKILLS=0 -DMUTANT_NO_LOOK -DMUTANT_UNLINK_BLIND
 * @finds assertion the look comes before the gate: -DKILLS=1 -DMUTANT_LOOK_EARLY -DMUTANT_UNLINK_BLIND
 * @finds assertion only links are counted: -DKILLS=1 -DOUTSIDER=1 -DLINK_COUNT -DMUTANT_UNLINK_BLIND
 * @finds assertion unlink does not look whose name it is: -DKILLS=1 -DOUTSIDER=2 -DMUTANT_UNLINK_BLIND
 * @finds assertion unlink after the gate is dropped: -DKILLS=0 -DMUTANT_UNLINK_LATE
 * @finds assertion a heap whose users died is entered: -DKILLS=1 -DMUTANT_STALE_ENTERED
 * @finds assertion a new file is moved over the name: -DKILLS=1 -DMUTANT_RENAME
 * @finds assertion the creator enters without the gate: -DKILLS=0 -DMUTANT_CREATOR_IN
 * @finds assertion ANY is taken after the gate is dropped: -DKILLS=0 -DMUTANT_ANY_LATE
 */
#ifndef PROCESSES
#define PROCESSES 3
#endif
#ifndef ROUNDS
#define ROUNDS 1 /* times each process opens */
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef OUTSIDER
#define OUTSIDER 0
#endif
#define FILES (PROCESSES + 2)
#define NONE 255

byte name; /* file + 1; 0: there is no such name */
byte links[FILES];
bool used[FILES];	/* the file says that it was attached */
bool stored[FILES];	/* an attached process changed it */
bool taken[FILES];	/* an outsider removed its name */
byte gate[FILES] = NONE;
byte any[FILES];	/* processes that hold the byte */
byte open_count[FILES]; /* descriptors */
byte at[PROCESSES] = NONE; /* the file a process works with: between open and close */
bool killed[PROCESSES];

#define FREE(file) (links[file] == 0 && open_count[file] == 0)

inline file_close()
{
	d_step {
		if
		:: fd != NONE ->
			if
			:: gate[fd] == me -> gate[fd] = NONE
			:: else
			fi;
			if
			:: has_any -> any[fd]--
			:: else
			fi;
			has_any = false;
			open_count[fd]--;
			if
			:: FREE(fd) -> used[fd] = false; stored[fd] = false; taken[fd] = false
			:: else
			fi;
			fd = NONE
		:: else
		fi
	}
}

inline name_unlink()
{
	atomic {
		if
		:: name ->
			assert(name == fd + 1 && any[fd] == has_any);
			links[name - 1]--;
			name = 0
		:: else /* -ENOENT */
		fi
	}
}

inline name_remove()
{
#ifdef MUTANT_UNLINK_BLIND
	name_unlink()
#elif OUTSIDER == 2
	atomic {
		if
		:: name == fd + 1 -> name_unlink()
		:: else
		fi
	}
#else
	if
	:: name == fd + 1 -> name_unlink()
	:: else
	fi
#endif
}

#ifdef MUTANT_NO_LOOK
#define LOOK_FAILS false
#elif defined(LINK_COUNT)
#define LOOK_FAILS (links[fd] == 0)
#else
#define LOOK_FAILS (name != fd + 1)
#endif

proctype process(byte me)
{
	byte fd = NONE, i, left = ROUNDS;
	bool has_any;

start:
	if
	:: left == 0 -> goto done
	:: else -> left--
	fi;
	{
		skip;
open_again:
		atomic {
			if
			:: name -> fd = name - 1; open_count[fd]++; goto have_file
			:: else
			fi
		};
		/* Made without a name, whole before it gets one. */
		atomic {
			fd = 0;
			do
			:: fd < FILES && !FREE(fd) -> fd++
			:: else -> break
			od;
			assert(fd < FILES);
			open_count[fd]++
		};
		atomic {
#ifdef MUTANT_RENAME
			if
			:: name -> links[name - 1]--; name = 0
			:: else
			fi;
#endif
			if
			:: name == 0 -> name = fd + 1; links[fd]++
			:: else
			fi
		};
#ifdef MUTANT_CREATOR_IN
		if
		:: name == fd + 1 -> goto enter
		:: else
		fi;
#endif
		file_close();
		goto open_again;

have_file:
#ifdef MUTANT_LOOK_EARLY
		if
		:: LOOK_FAILS -> file_close(); goto open_again
		:: else
		fi;
#endif
		atomic { gate[fd] == NONE -> gate[fd] = me };
#ifndef MUTANT_LOOK_EARLY
		if
		:: LOOK_FAILS -> file_close(); goto open_again
		:: else
		fi;
#endif
		if
#ifndef MUTANT_STALE_ENTERED
		:: any[fd] == 0 && used[fd] ->
			name_remove();
			file_close();
			goto open_again
#endif
		:: atomic { any[fd] -> goto enter } /* alive when this one came, should it die now */
		:: else
		fi;
		assert(!stored[fd]);
enter:
		used[fd] = true;
#ifdef MUTANT_ANY_LATE
		gate[fd] = NONE;
#endif
		atomic { any[fd]++; has_any = true };
		atomic {
			if
			:: gate[fd] == me -> gate[fd] = NONE
			:: else
			fi
		};
		atomic {
			at[me] = fd;
			stored[fd] = true;
			for (i : 0 .. PROCESSES - 1) {
				assert(at[i] == NONE || at[i] == fd || taken[at[i]] || taken[fd])
			}
			i = 0
		};

		at[me] = NONE;
		atomic { gate[fd] == NONE -> gate[fd] = me };
		if
		:: any[fd] == 1 ->
#ifdef MUTANT_UNLINK_LATE
			atomic { any[fd]--; has_any = false };
			gate[fd] = NONE;
#endif
			name_remove()
		:: else
		fi;
		file_close();
		goto start
	} unless { killed[me] };
	atomic {
		killed[me] = false;
		at[me] = NONE;
		file_close()
	};
	goto start;
done:
	skip
}

#if KILLS
active proctype fate()
{
	byte kills = KILLS, who;

	do
	:: kills > 0 ->
		atomic {
			kills--;
			select(who : 0 .. PROCESSES - 1);
			killed[who] = true;
			who = 0
		}
	:: break
	od
}
#endif

#if OUTSIDER
active proctype outsider()
{
	atomic {
		if
#if OUTSIDER == 1
		:: name -> links[name - 1]++
#else
		:: name -> taken[name - 1] = true; links[name - 1]--; name = 0
#endif
		:: true
		fi
	}
}
#endif

init
{
	byte i;

	atomic {
		for (i : 0 .. PROCESSES - 1) {
			run process(i)
		}
		i = 0
	}
}
