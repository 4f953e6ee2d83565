/* SPDX-License-Identifier: MIT
 *
 * wal_disk.h: for wal.pml: memory, the log and the disk; recovery from the disk, and check(), which compares
 * what it gives with what is true. Inlines here run inside of one step.
 */
/* Promela: clang-format would not leave it as it is. */
/* clang-format off */
#define SHARED 2 /* words; below: the writers' own */
#define MAP 3
#ifdef THREE_PAGES
#define PAGE(word) ((word) < 2 -> 0 : (word) - 1)
#define ON_PAGE(page) ((page) -> 2 << (page) : 3) /* set of words */
#else
#define PAGE(word) ((word) == MAP)
#define ON_PAGE(page) ((page) -> 8 : 7)
#endif

/* Words have three bits; what a record has of them is packed. */
#define AT(word, value) ((value) << 3 * (word))
#define GET(packed, word) (((packed) >> 3 * (word)) & 7)
#define BITS(set) (((set) & 1) * 7 | ((set) & 2) * 28 | ((set) & 4) * 112 | ((set) & 8) * 448)
#define PUT(packed, lsn) packed = (packed & ~BITS(SET(lsn))) | value[(lsn) % RING]
#define MANY 8 /* what a word on the disk is: one value, or one of several */

#define COMMIT 16 /* kinds, beside the set of words */
#define IMAGE 32
#define SWITCH 64
#define KIND(lsn) (tag[(lsn) % RING] & 112)
#define SET(lsn) (tag[(lsn) % RING] & 15)

#define IDLE 0
#define ACTIVE 1
#define APPENDING 2
#define COMMITTED 3
#define LOOKING 4

byte mem[4];
byte tag[RING];
short value[RING];
byte tail, durable, replay; /* replay: epoch_lsn too */
byte epoch; /* 2 * lsn, and the bit */
byte switch_lsn;
byte lease[3];
byte append = NONE, lock = NONE, latch = NONE;
byte state[WRITERS], lsn[WRITERS], used[WRITERS];
byte rec_word[2 * WRITERS], rec_value[2 * WRITERS];
byte does[WRITERS]; /* when it commits: the words of the transaction, and what it makes them */
short made[WRITERS];
#ifdef SAVEPOINT
byte turn[WRITERS]; /* generation and rollback_count */
#endif
byte live[2]; /* the live words, in pages 0 and 1 */

/* The disk. Its log: all below `durable`, and any prefix up to `tail`. */
byte disk[4];	 /* value, or MANY */
int on_disk[2] = 1; /* of the live words: all that they may be there, LIVE() of each */
byte first;	 /* the sector: where the log of this log_gen begins */

bool at_work[WRITERS + 3], off;
byte finished, checkpoints = CHECKPOINTS, aborts = ABORTS;

/* What is true: all commits; those that the ring does not have any more (EPOCH: as the sector has them). */
short truth, base;
#ifdef EPOCH
short at_switch[RING];
#endif

hidden byte v, l, w, from;
hidden short got, want, packed;
hidden byte known;
hidden byte copied;
hidden int left_over;

#define EVEN ((epoch & 1) == 0)
#define LEASED(page) (lease[page] > epoch >> 1)
#define LOW (tail > first + RING -> tail - RING : first) /* of what the ring has */
#define ROOM(n) (tail + (n) <= replay + RING)

/* A live word that is not above the sector does not count. */
#define LIVE(lsn) (1 << ((lsn) > first -> (lsn) - first : 0))
/* What a page may give: what it had when it was durable, or since; while it is written, or nothing. */
#define PAGE_GIVES(page) (on_disk[page] | (on_disk[page] != LIVE(live[page])))
#define LOWEST(set) ((set) & -(set))
#define HIGHER(a, b) ((a) > (b) -> (a) : (b))
/* The larger one counts. */
#ifdef MUTANT_SMALLER
#define LIVE_ON_DISK (PAGE_GIVES(0) < PAGE_GIVES(1) -> PAGE_GIVES(0) : PAGE_GIVES(1))
#else
#define LIVE_ON_DISK \
	((PAGE_GIVES(0) | PAGE_GIVES(1)) & ~(HIGHER(LOWEST(PAGE_GIVES(0)), LOWEST(PAGE_GIVES(1))) - 1))
#endif

/* Of the record at l. */
inline apply(words)
{
	got = (got & ~BITS(SET(l) & (words))) | (value[l % RING] & BITS(SET(l) & (words)));
	known = known | SET(l) & (words)
}

inline go_back(to, kinds)
{
	l = v;
	do
	:: l > to ->
		l--;
		if
		:: KIND(l) == SWITCH && ((kinds) & SWITCH) -> apply(7)
		:: KIND(l) == IMAGE && ((kinds) & IMAGE) -> apply(15)
		:: else
		fi
	:: else -> break
	od
}

/* Recovery from a disk whose checkpoint is at `from`, and whose log ends at v. got: words that are known; the
 * others are as the disk has them. */
inline recover()
{
	got = 0;
	known = 0;
#if defined(MUTANT_COPIES_FIRST)
	go_back(from, SWITCH);
	go_back(from, IMAGE);
#elif defined(MUTANT_FORWARDS)
	l = from;
	do
	:: l < v && KIND(l) == IMAGE -> apply(15); l++
	:: l < v && KIND(l) == SWITCH -> apply(7); l++
	:: l < v && KIND(l) == COMMIT -> l++
	:: else -> break
	od;
#elif defined(MUTANT_OLD_IMAGES)
	go_back(LOW, IMAGE | SWITCH);
#else
	go_back(from, IMAGE | SWITCH);
#endif
	l = from;
	if
	:: l < v && KIND(l) == SWITCH -> apply(8)
	:: else
	fi;
	do
	:: l < v ->
		if
		:: KIND(l) == COMMIT -> apply(15)
		:: else
		fi;
		l++
	:: else -> break
	od
}

#ifdef EPOCH
#define AS_OF(lsn) ((lsn) > first -> at_switch[(lsn) % RING] : base)
#else
/* With the commits that are durable in any case. */
#define AS_OF(lsn) packed
#endif

/* W1, W2: any checkpoint that the disk may have, any end of the log. */
inline check()
{
	assert(tail <= replay + RING);
#ifndef EPOCH
	packed = base;
	l = LOW;
	do
	:: l < durable ->
		if
		:: KIND(l) == COMMIT -> PUT(packed, l)
		:: else
		fi;
		l++
	:: else -> break
	od;
#endif
	left_over = LIVE_ON_DISK;
	from = first;
	do
	:: left_over == 0 -> break
	:: (left_over & 1) ->
		assert(tail <= from + RING);
		assert(from == first || (from < durable && KIND(from) == SWITCH));
		want = AS_OF(from);
		v = durable;
		do
		:: v <= tail ->
			recover();
			for (w : 0 .. 3) {
				if
				:: known & (1 << w) -> assert(GET(got, w) == GET(want, w))
				:: else -> assert(disk[w] == GET(want, w))
				fi
			}
			if
			:: v < tail && KIND(v) == COMMIT -> PUT(want, v)
			:: else
			fi;
			v++
		:: else -> break
		od;
		left_over = left_over >> 1;
		from++
	:: else ->
		left_over = left_over >> 1;
		from++
	od;
	packed = 0
}

#ifdef EPOCH
/* epoch_lsn says that the commit is durable. */
inline acknowledged(word, new)
{
	left_over = LIVE_ON_DISK;
	from = first;
	do
	:: left_over == 0 -> break
	:: else ->
		assert((left_over & 1) == 0 || GET(AS_OF(from), word) == new);
		left_over = left_over >> 1;
		from++
	od;
	from = 0
}
#endif

inline put_record(kind, set, new)
{
	if
	:: tail >= first + RING && KIND(tail) == COMMIT -> PUT(base, tail)
	:: else
	fi;
	tag[tail % RING] = kind | (set);
	value[tail % RING] = new;
	if
	:: kind == COMMIT -> PUT(truth, tail)
	:: else
	fi;
	tail++
}

inline flush_to(end)
{
	durable = (durable < (end) -> (end) : durable)
}

/* epoch_lsn and replay_lsn of the coordination page. What is below does not matter any more. */
inline ring_free(below)
{
	l = LOW;
	do
	:: l < (below) ->
		if
		:: KIND(l) == COMMIT -> PUT(base, l)
		:: else
		fi;
		tag[l % RING] = 0;
		value[l % RING] = 0;
#ifdef EPOCH
		at_switch[l % RING] = 0;
#endif
		l++
	:: else -> break
	od;
#ifdef MUTANT_REPLAY_STORED
	replay = below
#else
	replay = (replay < (below) -> (below) : replay)
#endif
}

inline store(word, new)
{
	mem[word] = new;
	disk[word] = (disk[word] == mem[word] -> mem[word] : MANY);
	check()
}

#define SWITCH_IN_LOG (!EVEN && switch_lsn > epoch >> 1 && switch_lsn < tail)

/* Whoever takes `append`. */
inline switch_help()
{
	if
#ifndef MUTANT_HELP_CLEARS
	:: SWITCH_IN_LOG ->
#ifndef MUTANT_HELP_NOT_DURABLE
		flush_to(tail);
#endif
		epoch = 2 * switch_lsn
	:: !EVEN && !SWITCH_IN_LOG -> epoch--
#else
	:: !EVEN -> epoch--
#endif
	:: else
	fi
}

#define IMAGE_OF(page) (AT(0, mem[0]) | AT(1, mem[1]) | AT(2, mem[2]) | AT(3, mem[3])) & BITS(ON_PAGE(page))
