/* SPDX-License-Identifier: MIT
 *
 * keeper.c: see keeper.h.
 */
#include "keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "checkpoint.h"
#include "error.h"
#include "os.h"
#include "wal.h"

#define EARLY_PART 16u /* of an epoch: the keeper of an idle heap looks so often, and is early by that */

struct ph_keeper {
	struct pheap *h;
	pthread_t thread;
	uint32_t stop;
	uint64_t tail; /* SYNC: of the log behind the last checkpoint it made */
};

bool ph_keeper_off;

/* Has anything been committed since the epoch began? */
static bool is_changed(const struct ph_keeper *k)
{
	const struct pheap *h = k->h;
	uint64_t epoch = __atomic_load_n(&h->coord->epoch, __ATOMIC_ACQUIRE) & ~1ull;

	if (h->super.durability == PHEAP_SYNC >> 24)
		return ph_wal_tail(h) != k->tail;
	return __atomic_load_n(&h->coord->changed, __ATOMIC_ACQUIRE) >= epoch;
}

/* EPOCH: the next one begins so long after this one that it is on the disk in time, if that takes not much longer than it last
 * took. SYNC: nobody waits for it. */
static uint64_t period_ns(const struct pheap *h)
{
	uint64_t epoch = ph_checkpoint_epoch_ns(h),
		 last = __atomic_load_n(&h->coord->checkpoint_last_ns, __ATOMIC_RELAXED);
	uint64_t early = epoch / EARLY_PART + last + last / 2;

	if (h->super.durability == PHEAP_SYNC >> 24)
		return epoch;
	return early < epoch - epoch / 4 ? epoch - early : epoch / 4;
}

/* A failure poisons the heap, and whoever commits next is told. */
static void checkpoint_make(struct ph_keeper *k)
{
	uint64_t before = k->h->coord->checkpoint_count;

	ph_checkpoint_soon(k->h);
	if (__atomic_load_n(&k->h->coord->checkpoint_count, __ATOMIC_RELAXED) != before)
		k->tail = ph_wal_durable(k->h);
}

static void *keeper_main(void *arg)
{
	struct ph_keeper *k = arg;
	struct pheap *h = k->h;

	while (!__atomic_load_n(&k->stop, __ATOMIC_ACQUIRE)) {
		uint64_t passed_ns =
			ph_os->clock_ns() - __atomic_load_n(&h->coord->checkpoint_start_ns, __ATOMIC_RELAXED);
		uint64_t period = period_ns(h), nap_ns = ph_checkpoint_epoch_ns(h) / EARLY_PART;

		__atomic_store_n(&h->bell, 0, __ATOMIC_SEQ_CST);
		/* Where nothing is to be done, what comes next is seen soon enough. */
		if (passed_ns < period && !ph_checkpoint_wanted(h))
			nap_ns = period - passed_ns;
		else if (passed_ns < period || is_changed(k))
			checkpoint_make(k);
		(void)ph_os->futex_wait(&h->bell, 0, nap_ns + 1);
	}
	return NULL;
}

/* Who has it open for reading only changes nothing that has to be kept. */
static bool is_needed(const struct pheap *h, uint32_t flags)
{
	return h->super.durability == PHEAP_EPOCH >> 24 ||
	       (h->super.durability == PHEAP_SYNC >> 24 && flags & PHEAP_KEEPER);
}

int ph_keeper_start(struct pheap *h, uint32_t flags)
{
	sigset_t all, old;
	int rc;

	if (ph_keeper_off || h->keeper || h->passive || !is_needed(h, flags))
		return 0;
	h->keeper = calloc(1, sizeof(*h->keeper));
	if (!h->keeper)
		return ph_error(NULL, -ENOMEM, "no memory for the thread that makes checkpoints");
	h->keeper->h = h;
	/* Signals are the program's threads' business. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = -pthread_create(&h->keeper->thread, NULL, keeper_main, h->keeper);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc == 0)
		return 0;
	free(h->keeper);
	h->keeper = NULL;
	return ph_error(NULL, rc, "starting the thread that makes checkpoints failed: %s",
			pheap_strerror(rc));
}

void ph_keeper_stop(struct pheap *h)
{
	if (!h->keeper)
		return;
	__atomic_store_n(&h->keeper->stop, 1, __ATOMIC_RELEASE);
	ph_checkpoint_ring(h);
	pthread_join(h->keeper->thread, NULL);
	free(h->keeper);
	h->keeper = NULL;
}
