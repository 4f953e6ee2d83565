/* SPDX-License-Identifier: MIT
 *
 * pain_bank.c: many records, 1000 locks, 4 processes, and one of them is always dying.
 *
 * The pain: with a robust mutex for each group of records the next owner is told that the last one died, and
 * nothing tells it which half of the transfer is missing: money is lost or made. Shown first.
 * The answer: the sum over all records is exact at any moment, whoever was killed where, and nobody has to be
 * restarted but the one that died.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crowd.h"

#define ACCOUNTS 50000u
#define LOCKS 1000u
#define WORKERS 4u
#define DEATHS 400u
#define OLD_DEATHS 60u
#define SUICIDE 20000u /* one transfer in so many ends by SIGKILL between its two stores */
#define INITIAL 1000u

struct account {
	uint64_t balance;
	uint64_t transfers;
	uint64_t rest[6];
};

struct bank {
	struct account accounts[ACCOUNTS];
};
PHEAP_DECLARE(struct bank, 3);

struct plan {
	uint64_t from, to, amount;
	bool die;
};

/* Beside the heap: what the workers did. */
struct tally {
	uint64_t transfers[WORKERS];
};

static struct tally *tally;

static struct plan plan_next(uint64_t *rng)
{
	struct plan plan = {crowd_below(rng, ACCOUNTS), crowd_below(rng, ACCOUNTS), crowd_below(rng, 10),
			    crowd_below(rng, SUICIDE) == 0};

	if (plan.to == plan.from)
		plan.to = (plan.to + 1) % ACCOUNTS;
	return plan;
}

static uint64_t sum_of(const struct bank *bank)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < ACCOUNTS; i++)
		sum += bank->accounts[i].balance;
	return sum;
}

/* Keeps WORKERS of them alive for so many deaths, most of them at a random moment. look: after each death. */
static void killing(int (*worker)(void *arg), unsigned deaths, void (*look)(void))
{
	uint64_t rng = crowd_seed();
	unsigned index[WORKERS];
	pid_t pids[WORKERS];

	for (unsigned i = 0; i < WORKERS; i++) {
		index[i] = i;
		pids[i] = crowd_start(worker, &index[i]);
	}
	for (unsigned n = 0; n < deaths && !crowd_is_wrong(); n++) {
		unsigned i = (unsigned)crowd_below(&rng, WORKERS);

		crowd_nap_us(crowd_below(&rng, 10000));
		if (crowd_kill(pids[i]) != CROWD_KILLED)
			crowd_wrong("a worker ended by itself");
		pids[i] = crowd_start(worker, &index[i]);
		look();
	}
	for (unsigned i = 0; i < WORKERS; i++)
		(void)crowd_kill(pids[i]);
	look();
}

/* --- the old way --- */

struct old {
	pthread_mutex_t locks[LOCKS];
	struct bank bank;
};

static struct old *old;
static unsigned old_wrong, old_looks;

static void old_lock(uint64_t lock)
{
	int rc = pthread_mutex_lock(&old->locks[lock]);

	if (rc == EOWNERDEAD)
		(void)pthread_mutex_consistent(&old->locks[lock]); /* and nobody knows what to repair */
}

static _Noreturn void old_work(uint64_t rng)
{
	for (;;) {
		struct plan plan = plan_next(&rng);
		uint64_t a = plan.from % LOCKS, b = plan.to % LOCKS;

		old_lock(a < b ? a : b);
		if (a != b)
			old_lock(a < b ? b : a);
		old->bank.accounts[plan.from].balance -= plan.amount;
		if (plan.die)
			(void)raise(SIGKILL);
		old->bank.accounts[plan.to].balance += plan.amount;
		(void)pthread_mutex_unlock(&old->locks[a]);
		if (a != b)
			(void)pthread_mutex_unlock(&old->locks[b]);
	}
}

static int old_worker(void *arg)
{
	old_work(crowd_seed() ^ (uint64_t)getpid() << 20 ^ *(unsigned *)arg);
}

static void old_look(void)
{
	for (unsigned i = 0; i < LOCKS; i++)
		old_lock(i);
	old_looks++;
	old_wrong += sum_of(&old->bank) != (uint64_t)ACCOUNTS * INITIAL;
	for (unsigned i = 0; i < LOCKS; i++)
		(void)pthread_mutex_unlock(&old->locks[i]);
}

static void old_show(void)
{
	pthread_mutexattr_t attr;

	old = crowd_share(sizeof(*old));
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	for (unsigned i = 0; i < LOCKS; i++)
		pthread_mutex_init(&old->locks[i], &attr);
	for (unsigned i = 0; i < ACCOUNTS; i++)
		old->bank.accounts[i].balance = INITIAL;
	killing(old_worker, OLD_DEATHS, old_look);
	ok(old_wrong > 0, "old way, robust mutexes: the sum was wrong at %u of %u looks", old_wrong,
	   old_looks);
}

/* --- ours --- */

static pheap *heap; /* of the first process */
static unsigned looks;

static int transfer(pheap_tx *tx, void *arg)
{
	const struct plan *plan = arg;
	const struct bank *bank = pheap_find(pheap_heap(tx), "bank");
	uint64_t keys[2] = {plan->from % LOCKS, plan->to % LOCKS};
	struct account *from, *to;
	int rc = pheap_lock(tx, keys, 2);

	if (rc)
		return rc;
	from = pheap_modify(tx, &bank->accounts[plan->from], 16);
	to = pheap_modify(tx, &bank->accounts[plan->to], 16);
	if (!from || !to)
		return pheap_error(tx);
	from->balance -= plan->amount;
	from->transfers++;
	if (plan->die)
		(void)raise(SIGKILL);
	to->balance += plan->amount;
	to->transfers++;
	return 0;
}

static _Noreturn void work(unsigned index)
{
	uint64_t rng = crowd_seed() ^ (uint64_t)getpid() << 20 ^ index;
	pheap *h = crowd_open(crowd_path("bank"), 0, NULL);

	for (;;) {
		struct plan plan = plan_next(&rng);

		crowd_must(pheap_run(h, PHEAP_CONCURRENT, transfer, &plan), "a transfer");
		tally->transfers[index]++;
	}
}

static int worker(void *arg)
{
	work(*(unsigned *)arg);
}

/* Alone for the look; the dead are undone on the way. */
static void look(void)
{
	const struct bank *bank = pheap_find(heap, "bank");
	pheap_tx *tx = crowd_tx(heap, PHEAP_READ);
	uint64_t sum = sum_of(bank), sides = 0;

	for (unsigned i = 0; i < ACCOUNTS; i++)
		sides += bank->accounts[i].transfers;
	crowd_commit(tx);
	looks++;
	if (sum != (uint64_t)ACCOUNTS * INITIAL)
		crowd_wrong("the sum is %llu, %llu too much", (unsigned long long)sum,
			    (unsigned long long)(sum - (uint64_t)ACCOUNTS * INITIAL));
	if (sides % 2)
		crowd_wrong("%llu sides of transfers", (unsigned long long)sides);
}

static void bank_make(void)
{
	struct pheap_options opt = crowd_options();
	const struct bank *bank;
	struct bank *now;
	pheap_tx *tx;

	opt.initial_size = 8u << 20;
	heap = crowd_open(crowd_path("bank"), PHEAP_CREATE, &opt);
	tx = crowd_tx(heap, 0);
	bank = PHEAP_ROOT(tx, "bank", struct bank);
	now = bank ? PHEAP_MODIFY(tx, bank) : NULL;
	for (unsigned i = 0; now && i < ACCOUNTS; i++)
		now->accounts[i].balance = INITIAL;
	crowd_commit(tx);
}

int main(void)
{
	uint64_t transfers = 0;
	unsigned idle = 0;

	crowd_begin("many records, 1000 locks, 4 processes that are killed", 120);
	old_show();
	tally = crowd_share(sizeof(*tally));
	bank_make();
	killing(worker, DEATHS, look);
	for (unsigned i = 0; i < WORKERS; i++) {
		transfers += tally->transfers[i];
		idle += tally->transfers[i] == 0;
	}
	ok(looks == DEATHS + 1 && idle == 0, "heap: %u deaths, %u looks at the sum, always exact", DEATHS,
	   looks);
	note("%llu transfers", (unsigned long long)transfers);
	crowd_close(heap);
	heap = crowd_open(crowd_path("bank"), 0, NULL);
	look();
	ok(true, "heap: closed and opened again, still exact");
	crowd_close(heap);
	return crowd_end();
}
