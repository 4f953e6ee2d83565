/* SPDX-License-Identifier: MIT
 *
 * word.h: lock, owner and latch words that free themselves.
 *
 * What: a word names {lane, generation}; it is held iff that lane is still in that generation and not idle.
 * Ending a transaction frees all its words with one store; nothing lists what a lane holds, and nothing is
 * reset after a death.
 * Why not robust mutexes: their bytes depend on the libc, their list lives in the dying process, and they
 * break across pid namespaces.
 *
 * Invariants
 *   W1  A word is changed only by CAS, from a value that was just found free or that names the changer.
 *   W2  Nobody sleeps without a time limit, so a lost wake-up costs at most 16 ms and never hangs.
 *   W3  Generations only grow, in the life of the file; a stale word can not become held again.
 */
#ifndef PH_WORD_H
#define PH_WORD_H

#include "heap.h"

enum ph_take { PH_TAKEN, PH_MINE, PH_BUSY };

bool ph_word_held(const struct pheap *h, uint64_t word);
enum ph_take ph_word_try(const struct pheap *h, uint64_t *word, uint64_t mine);
/* Waits up to the heap's lock timeout. 0 taken, 1 was mine, -ETIMEDOUT with a sentence naming the holder,
 * recovery's errors. */
int ph_word_take(struct pheap *h, uint64_t *word, uint64_t mine, const char *what);
/* After idle (or while giving up): mine -> 0, waking waiters. */
void ph_word_release(const struct pheap *h, uint64_t *word, uint64_t mine);
/* For latches: the word frees itself; this only wakes whoever waits. */
static inline void ph_word_release_lazy(const struct pheap *h, uint64_t *word, uint64_t mine)
{
	if (__builtin_expect(__atomic_load_n(word, __ATOMIC_RELAXED) & PHD_WORD_WAITERS, 0))
		ph_word_release(h, word, mine);
}
/* One nap of a waiter for `word`, which was seen with value `seen`; recovers a dead holder. 0, or an error
 * of recovery. */
int ph_word_wait(struct pheap *h, uint64_t *word, uint64_t seen, uint64_t *nap_ns);
int ph_word_timeout(const struct pheap *h, uint64_t word, const char *what);

/* Fast path of the common case: free word, nobody waits. */
static inline bool ph_word_take_free(uint64_t *word, uint64_t mine)
{
	uint64_t free_word = 0;

	return __atomic_compare_exchange_n(word, &free_word, mine, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static inline bool ph_word_drop_quiet(uint64_t *word, uint64_t mine)
{
	return __atomic_compare_exchange_n(word, &mine, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

#endif
