/* SPDX-License-Identifier: MIT
 *
 * word.h: lock, owner and latch words that free themselves.
 *
 * What: a word names {lane, generation}; it is held iff that lane is still in that generation and not idle.
 * Ending a transaction frees all its words with one store; nothing lists what a lane holds, and nothing is
 * reset after a death. Locks have a second word behind the first, `next`, which names one waiter: it watches the holder
 * closely, and goes first once it has waited long.
 * Why not robust mutexes: their bytes depend on the libc, their list lives in the dying process, and they
 * break across pid namespaces.
 * Why a watcher and not a queue: a queue has links that a death leaves half-made, and handing a lock over costs a
 * sleep each time. Here whoever comes takes a free word, which is fast, and only who has starved is let
 * through. One waiter asks every millisecond whether the holder lives, the rest sleep longer.
 *
 * Invariants
 *   W1  A word is changed only by CAS, from a value that was just found free or that names the changer.
 *   W2  Nobody sleeps without a time limit, so a lost wake-up costs at most 16 ms and never hangs.
 *   W3  Generations only grow, in the life of the file; a stale word can not become held again.
 *   W4  `next` is advice: who ignores it breaks nothing but fairness. So it is followed for a few milliseconds at
 *       most, and a waiter that is stopped, or dead, blocks nobody.
 *   W5  A waiter that slept takes the word with the waiters bit, so that its own release wakes the next one; if it ends
 *       its wait without the word, it wakes one instead.
 */
#ifndef PH_WORD_H
#define PH_WORD_H

#include "heap.h"

enum ph_take { PH_TAKEN, PH_MINE, PH_BUSY };

/* One wait for a word: zero it, set mine (and note). */
struct ph_wait {
	uint64_t mine; /* what the word will be */
	uint32_t note; /* for the lane: what it waits for, stripe + 1 or PHD_WAIT_* */
	bool queued;   /* the word is a lock, with a `next` behind it */
	bool slept, noted;
	uint64_t start_ns; /* when it began to wait, also elsewhere; 0: not yet */
	uint64_t yield_ns; /* since when it lets another go first */
	uint64_t nap_ns;   /* the next one; 0: spins first */
	uint64_t asked_ns; /* when it last asked whether the holder lives */
};

bool ph_word_held(const struct pheap *h, uint64_t word);
enum ph_take ph_word_try(const struct pheap *h, uint64_t *word, uint64_t mine);
/* Takes a word that is advice only from one who does not get on: what it does when it gets on again is harmless. */
bool ph_word_steal(const struct pheap *h, uint64_t *word, uint64_t mine);
/* As ph_word_try, but PH_BUSY also where another waiter is to go first. */
enum ph_take ph_word_try_wait(const struct pheap *h, uint64_t *word, struct ph_wait *w);
/* One nap; recovers a dead holder. 0: look again; -ETIMEDOUT with a sentence naming the holder; errors of
 * recovery. */
int ph_word_nap(struct pheap *h, uint64_t *word, struct ph_wait *w, const char *what);
void ph_word_wait_end(struct pheap *h, uint64_t *word, struct ph_wait *w, bool has_word);
/* Time to ask again? Not whenever a nap ran out: timer signals may end all of them early. */
bool ph_word_ask_due(uint64_t *asked_ns, uint64_t each_ns);
/* For the lane of the waiter, and its end. */
void ph_word_note(struct pheap *h, struct ph_wait *w, uint64_t holder);
void ph_word_note_clear(struct pheap *h, struct ph_wait *w);

/* Waits for a word without `next` up to the heap's lock timeout. 0 taken, 1 was mine, or as ph_word_nap. */
int ph_word_take(struct pheap *h, uint64_t *word, uint64_t mine, const char *what);
/* After idle (or while giving up): mine -> 0, waking waiters. */
void ph_word_release(uint64_t *word, uint64_t mine);	  /* all of them */
void ph_word_release_lock(uint64_t *word, uint64_t mine); /* of a lock: one, or all who should look */
/* For latches: the word frees itself; this only wakes whoever waits. */
static inline void ph_word_release_lazy(uint64_t *word, uint64_t mine)
{
	if (__builtin_expect(__atomic_load_n(word, __ATOMIC_RELAXED) & PHD_WORD_WAITERS, 0))
		ph_word_release(word, mine);
}
int ph_word_timeout(const struct pheap *h, uint64_t word, const char *what);

/* Fast path of the common case: free word, nobody waits. */
static inline bool ph_word_take_free(uint64_t *word, uint64_t mine)
{
	uint64_t free_word = 0;

	return __atomic_compare_exchange_n(word, &free_word, mine, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* Likewise a word that the taker's own lane has held in a generation that is over: what a latch or an owner word mostly says. */
static inline bool ph_word_take_again(uint64_t *word, uint64_t mine)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);

	/* below `mine` and nothing but the generation differs */
	if (seen && (seen >= mine || ((seen ^ mine) & (PHD_WORD(1, 0) - 1))))
		return false;
	return __atomic_compare_exchange_n(word, &seen, mine, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* The same for a lock. */
static inline bool ph_word_take_free_lock(uint64_t *word, uint64_t mine)
{
	return !(__atomic_load_n(word + 1, __ATOMIC_RELAXED) & PHD_NEXT_FIRST) &&
	       ph_word_take_free(word, mine);
}

static inline bool ph_word_drop_quiet(uint64_t *word, uint64_t mine)
{
	return __atomic_compare_exchange_n(word, &mine, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

#endif
