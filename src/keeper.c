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

#define EPOCH_DEFAULT_MS 1000u
#define ROUNDS 4u /* in an epoch */

struct ph_keeper {
	struct pheap *h;
	pthread_t thread;
	uint32_t stop; /* futex */
};

bool ph_keeper_off;

static uint64_t epoch_ns(const struct pheap *h)
{
	return (h->super.epoch_ms ? h->super.epoch_ms : EPOCH_DEFAULT_MS) * 1000000ull;
}

/* Has anything been committed since the epoch began? */
static bool is_changed(const struct pheap *h)
{
	uint64_t epoch = __atomic_load_n(&h->coord->epoch, __ATOMIC_ACQUIRE) & ~1ull;

	return __atomic_load_n(&h->coord->changed, __ATOMIC_ACQUIRE) == epoch;
}

static void *keeper_main(void *arg)
{
	struct ph_keeper *k = arg;
	struct pheap *h = k->h;
	uint64_t round_ns = epoch_ns(h) / ROUNDS + 1;

	while (!__atomic_load_n(&k->stop, __ATOMIC_ACQUIRE)) {
		uint64_t start_ns = __atomic_load_n(&h->coord->checkpoint_start_ns, __ATOMIC_RELAXED);

		(void)ph_os->futex_wait(&k->stop, 0, round_ns);
		/* A failure poisons the heap, and whoever commits next is told. */
		if (is_changed(h) && ph_os->clock_ns() - start_ns >= epoch_ns(h) / 2)
			ph_checkpoint_soon(h);
	}
	return NULL;
}

int ph_keeper_start(struct pheap *h)
{
	sigset_t all, old;
	int rc;

	if (ph_keeper_off || h->super.durability != PHEAP_EPOCH >> 24)
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
	ph_os->futex_wake(&h->keeper->stop, 1);
	pthread_join(h->keeper->thread, NULL);
	free(h->keeper);
	h->keeper = NULL;
}
