/* SPDX-License-Identifier: MIT
 *
 * wal_disk.h: for wal.pml: memory, the log and the disk; recovery from the disk, and check(), which compares
 * what it gives with what is true. Inlines here run inside of one step.
 */
#define SHARED 2 /* words; below: the writers' own */
#define MAP 3
#ifdef THREE_PAGES
#define PAGE(word) ((word) < 2->0 : (word)-1)
#define ON_PAGE(page) ((page)->2 << (page) : 3) /* set of words */
#else
#define PAGE(word) ((word) == MAP)
#define ON_PAGE(page) ((page)->8 : 7)
#endif

/* Words have three bits; what a record has of them is packed. */
#define AT(word, value) ((value) << 3 * (word))
#define GET(packed, word) (((packed) >> 3 * (word)) & 7)
#define BITS(set) (((set)&1) * 7 | ((set)&2) * 28 | ((set)&4) * 112 | ((set)&8) * 448)
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
byte tail, durable, replay;
byte epoch; /* 2 * lsn, and the bit */
byte lease[3];
byte append = NONE, lock = NONE, latch = NONE;
byte state[WRITERS], lsn[WRITERS], used[WRITERS];
byte rec_word[2 * WRITERS], rec_value[2 * WRITERS];
byte does[WRITERS]; /* when it commits: the words of the transaction, and what it makes them */
short made[WRITERS];
#ifdef SAVEPOINT
byte turn[WRITERS]; /* generation and rollback_count */
#endif

/* The disk. Its log: all below `durable`, and any prefix up to `tail`. */
byte disk[4];	/* value, or MANY */
byte synced[4]; /* the same, when the sync that runs is over */
bool syncing;
byte disk_epoch, first; /* the sector; where the log of this log_gen begins */

bool at_work[WRITERS + 2], off;
byte finished, checkpoints = CHECKPOINTS, aborts = ABORTS;

/* What is true: all commits; those that the ring does not have any more (EPOCH: as the sector has them). */
short truth, base;
#ifdef EPOCH
short at_switch;
#endif

hidden byte v, l, w;
hidden short got, want, packed;
hidden byte known;
hidden byte copied;

#define EVEN ((epoch & 1) == 0)
#define LEASED(page) (lease[page] > epoch >> 1)
#define LOW (tail > first + RING->tail - RING : first) /* of what the ring has */
#define ROOM(n) (tail + (n) <= replay + RING)

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
		::l > to->l--;
	if
		::KIND(l) == SWITCH && ((kinds)&SWITCH)->apply(7)::KIND(l) == IMAGE &&
			((kinds)&IMAGE)->apply(15)::else fi ::else->break od
}

/* Recovery from a disk whose log ends at v. got: words that are known; the others are as the disk has them. */
inline recover()
{
	got = 0;
	known = 0;
#if defined(MUTANT_COPIES_FIRST)
	go_back(disk_epoch, SWITCH);
	go_back(disk_epoch, IMAGE);
#elif defined(MUTANT_FORWARDS)
	l = disk_epoch;
	do
		::l < v &&KIND(l) == IMAGE->apply(15);
	l++ ::l < v &&KIND(l) == SWITCH->apply(7);
	l++ ::l < v &&KIND(l) == COMMIT->l++ ::else->break od;
#elif defined(MUTANT_OLD_IMAGES)
	go_back(LOW, IMAGE | SWITCH);
#else
	go_back(disk_epoch, IMAGE | SWITCH);
#endif
	l = disk_epoch;
	if
		::l < v &&KIND(l) == SWITCH->apply(8)::else fi;
	do
		::l < v->if ::KIND(l) == COMMIT->apply(15)::else fi;
	l++ ::else->break od
}

/* W1, W2 */
inline check()
{
	assert(tail <= disk_epoch + RING);
	want = base;
	l = LOW;
	v = durable;
	do
		::l < v->if ::KIND(l) == COMMIT->PUT(want, l)::else fi;
	l++ ::else->break od;
	do
		::v <= tail->recover();
	for (w : 0..3) {
		if
			::known &(1 << w)->assert(GET(got, w) == GET(want, w))::else->assert(disk[w] ==
											     GET(want, w)) fi
	}
	if
		::v < tail &&KIND(v) == COMMIT->PUT(want, v)::else fi;
	v++ ::else->break od;
	v = 0
}

inline put_record(kind, set, new)
{
	if
		::tail >= first + RING &&KIND(tail) == COMMIT->PUT(base, tail)::else fi;
	tag[tail % RING] = kind | (set);
	value[tail % RING] = new;
	if
		::kind == COMMIT->PUT(truth, tail)::else fi;
	tail++
}

/* replay_lsn of the coordination page. What is below does not matter any more. */
inline ring_free(below)
{
	l = LOW;
	do
		::l < (below)->if ::KIND(l) == COMMIT->PUT(base, l)::else fi;
	tag[l % RING] = 0;
	value[l % RING] = 0;
	l++ ::else->break od;
	replay = below
}

inline store(word, new)
{
	d_step
	{
		mem[word] = new;
		disk[word] = (disk[word] == mem[word]->mem[word] : MANY);
		if
			::syncing &&synced[word] != mem[word]->synced[word] = MANY ::else fi;
		check()
	}
}

/* Whoever takes `append`. */
inline bit_clear()
{
	if
		::!EVEN->epoch-- ::else fi
}

#define IMAGE_OF(page) (AT(0, mem[0]) | AT(1, mem[1]) | AT(2, mem[2]) | AT(3, mem[3])) & BITS(ON_PAGE(page))
