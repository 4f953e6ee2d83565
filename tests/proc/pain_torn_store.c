/* SPDX-License-Identifier: MIT
 *
 * pain_torn_store.c: killed between the two halves of a 64-bit value; killed at i = 502 of 1000 stores.
 *
 * The pain: a value that takes two stores is seen with one of them, and of a row of 1000 stores 502 are there.
 * Shown first.
 * The answer: an aligned 64-bit store of the library is one instruction, and the stores of a transaction are
 * all there or none. Shown for a death at every single instruction of a transaction, for a death at each of
 * the 1000 stores, and for random deaths in a loop of stores with a reader that looks all the time.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crowd.h"
#include "steps.h"

#define STORES 1000u
#define RANDOM_DEATHS 250u

struct words {
	uint64_t value; /* both halves say the same, in their own ways */
	uint64_t row[STORES];
};
PHEAP_DECLARE(struct words, 3);

static pheap *heap;
static const struct words *words;

static uint64_t both(uint32_t n)
{
	return (uint64_t)~n << 32 | n;
}

static bool is_torn(uint64_t value)
{
	return (uint32_t)(value >> 32) != ~(uint32_t)value;
}

/* --- every instruction --- */

static uint64_t *old_value;

static int halves_victim(void *arg)
{
	volatile uint32_t *half = (void *)old_value;

	steps_arm_instructions(*(uint64_t *)arg);
	for (uint32_t n = 1; n <= 4; n++) {
		half[0] = n;
		half[1] = ~n;
	}
	steps_disarm_instructions();
	return 0;
}

static void halves_show(void)
{
	unsigned deaths = 0, torn = 0;
	int end = CROWD_KILLED;

	for (uint64_t k = 1; end == CROWD_KILLED; k++) {
		*old_value = both(0);
		end = crowd_run(halves_victim, &k);
		deaths += end == CROWD_KILLED;
		torn += is_torn(*old_value);
	}
	ok(torn > 0, "old way, two stores for one value: torn after %u of %u deaths", torn, deaths);
}

struct way {
	const char *name;
	uint32_t flags;
	void (*change)(pheap_tx *tx, uint64_t value);
	uint64_t stride; /* instructions from one death to the next */
};

static void by_store(pheap_tx *tx, uint64_t value)
{
	(void)pheap_store(tx, &words->value, &value, sizeof(value));
}

static void by_modify(pheap_tx *tx, uint64_t value)
{
	uint64_t *p = pheap_modify(tx, &words->value, sizeof(words->value));

	if (p)
		*(volatile uint64_t *)p = value;
}

static void by_defer(pheap_tx *tx, uint64_t value)
{
	(void)pheap_defer_u64(tx, &words->value, value);
}

static const struct way ways[] = {
	{"pheap_store, alone", 0, by_store, 1},
	{"pheap_modify, by key", PHEAP_CONCURRENT, by_modify, 1},
	{"pheap_defer_u64, by key", PHEAP_CONCURRENT, by_defer, 3},
};

struct job {
	const struct way *way;
	uint64_t value, k;
};

static void value_change(pheap *h, const struct job *job)
{
	pheap_tx *tx = crowd_tx(h, job->way->flags);
	uint64_t key = 1;

	crowd_must(pheap_lock(tx, &key, 1), "pheap_lock");
	job->way->change(tx, job->value);
	crowd_commit(tx);
}

static int value_victim(void *arg)
{
	struct job *job = arg, same = *job;
	pheap *h = crowd_open(crowd_path("words"), 0, NULL);

	words = pheap_find(h, "words");
	same.value = words->value;
	value_change(h, &same); /* what the first transaction of a thread does more */
	steps_arm_instructions(job->k);
	value_change(h, job);
	steps_disarm_instructions();
	crowd_close(h);
	return 0;
}

static void value_reset(void)
{
	pheap_tx *tx = crowd_tx(heap, 0);

	by_store(tx, both(0));
	crowd_commit(tx);
}

/* After a death: untorn before anybody has recovered anything, old or new afterwards. */
static bool value_is_new(const struct job *job, uint32_t before, uint64_t k)
{
	uint64_t seen = __atomic_load_n(&words->value, __ATOMIC_ACQUIRE);
	pheap_tx *tx;

	if (is_torn(seen))
		crowd_wrong("torn after instruction %llu: %#llx", (unsigned long long)k,
			    (unsigned long long)seen);
	tx = crowd_tx(heap, PHEAP_READ);
	seen = words->value;
	crowd_commit(tx);
	if (seen != both(before) && seen != job->value)
		crowd_wrong("after instruction %llu: %#llx", (unsigned long long)k, (unsigned long long)seen);
	return seen == job->value;
}

static void value_sweep(const struct way *way)
{
	unsigned deaths = 0, committed = 0;
	int end = CROWD_KILLED;
	uint32_t before = 0;

	value_reset();
	for (uint64_t k = 1; end == CROWD_KILLED && !crowd_is_wrong(); k += way->stride) {
		struct job job = {way, both(before + 1), k};
		bool after;

		end = crowd_run(value_victim, &job);
		after = value_is_new(&job, before, k);
		before += after;
		deaths += end == CROWD_KILLED;
		committed += after;
	}
	ok(end == 0 && committed && committed < deaths,
	   "heap, %s: killed at %s instruction, %u times, %u after the commit: never torn, never half",
	   way->name, way->stride == 1 ? "each" : "each third", deaths, committed - 1);
}

/* --- 1000 stores --- */

struct row_job {
	unsigned i;
	uint64_t value;
};

static int row_victim(void *arg)
{
	const struct row_job *job = arg;
	pheap *h = crowd_open(crowd_path("words"), 0, NULL);
	const struct words *w = pheap_find(h, "words");
	pheap_tx *tx = crowd_tx(h, 0);

	for (unsigned i = 0; i < STORES; i++) {
		if (i == job->i)
			(void)raise(SIGKILL);
		if (pheap_store(tx, &w->row[i], &job->value, sizeof(job->value)))
			break;
	}
	crowd_commit(tx);
	crowd_close(h);
	return 0;
}

static unsigned row_count(uint64_t value)
{
	pheap_tx *tx = crowd_tx(heap, PHEAP_READ);
	unsigned count = 0;

	for (unsigned i = 0; i < STORES; i++)
		count += words->row[i] == value;
	crowd_commit(tx);
	return count;
}

static int row_old_victim(void *arg)
{
	uint64_t *row = arg;

	for (unsigned i = 0; i < STORES; i++) {
		if (i == 502)
			(void)raise(SIGKILL);
		row[i] = 1;
	}
	return 0;
}

static void row_test(void)
{
	uint64_t *row = crowd_share(STORES * sizeof(*row));
	unsigned deaths = 0, there = 0;

	ok(crowd_run(row_old_victim, row) == CROWD_KILLED && row[501] == 1 && row[502] == 0,
	   "old way, killed at i = 502 of 1000 stores: 502 are there");
	for (unsigned i = 0; i < STORES && !crowd_is_wrong(); i += 5) {
		struct row_job job = {i ? i : 502, 1};

		deaths += crowd_run(row_victim, &job) == CROWD_KILLED;
		if (row_count(0) != STORES)
			crowd_wrong("killed at %u: %u of the stores are there", job.i, row_count(1));
	}
	for (uint64_t value = 1; value <= 3; value++) {
		struct row_job job = {STORES, value};

		there += crowd_run(row_victim, &job) == 0 && row_count(value) == STORES;
	}
	ok(deaths == STORES / 5 && there == 3,
	   "heap, killed at i = 502 and at each fifth of 1000 stores: none is there; not killed: all");
}

/* --- a loop of stores, killed at random --- */

static uint32_t *stop;

static _Noreturn void loop_write(void)
{
	pheap *h = crowd_open(crowd_path("words"), 0, NULL);
	const struct words *w = pheap_find(h, "words");

	for (uint32_t n = (uint32_t)w->value + 1;; n++) {
		pheap_tx *tx = crowd_tx(h, n % 2 ? PHEAP_CONCURRENT : 0);
		uint64_t value = both(n), key = 1;

		crowd_must(pheap_lock(tx, &key, 1), "pheap_lock");
		(void)pheap_store(tx, &w->value, &value, sizeof(value));
		for (unsigned i = 0; i < 50; i++)
			(void)pheap_store(tx, &w->row[i], &value, sizeof(value));
		crowd_commit(tx);
	}
}

static int loop_writer(void *arg)
{
	(void)arg;
	loop_write();
}

static int loop_reader(void *arg)
{
	pheap *h = crowd_open(crowd_path("words"), 0, NULL);
	const struct words *w = pheap_find(h, "words");

	(void)arg;
	while (!__atomic_load_n(stop, __ATOMIC_ACQUIRE)) {
		uint64_t seen = __atomic_load_n(&w->value, __ATOMIC_ACQUIRE);

		if (is_torn(seen))
			return crowd_wrong("the reader saw %#llx", (unsigned long long)seen);
		for (unsigned i = 0; i < 50; i++)
			if (is_torn(__atomic_load_n(&w->row[i], __ATOMIC_ACQUIRE)))
				return crowd_wrong("the reader saw a torn word %u", i);
	}
	crowd_close(h);
	return 0;
}

static void loop_check(void)
{
	pheap_tx *tx = crowd_tx(heap, PHEAP_READ);

	for (unsigned i = 0; i < 50; i++)
		if (words->row[i] != words->value)
			crowd_wrong("word %u is of another transaction", i);
	crowd_commit(tx);
}

static void loop_test(void)
{
	uint64_t rng = crowd_seed(), value = both(0);
	pheap_tx *tx = crowd_tx(heap, 0);
	unsigned deaths = 0;
	pid_t reader;

	(void)pheap_store(tx, &words->value, &value, sizeof(value));
	for (unsigned i = 0; i < STORES; i++)
		(void)pheap_store(tx, &words->row[i], &value, sizeof(value));
	crowd_commit(tx);
	stop = crowd_share(sizeof(*stop));
	reader = crowd_start(loop_reader, NULL);
	for (unsigned i = 0; i < RANDOM_DEATHS && !crowd_is_wrong(); i++) {
		pid_t pid = crowd_start(loop_writer, NULL);

		crowd_nap_us(1000 + crowd_below(&rng, 2000));
		deaths += crowd_kill(pid) == CROWD_KILLED;
		loop_check();
	}
	__atomic_store_n(stop, 1, __ATOMIC_RELEASE);
	ok(crowd_wait(reader) == 0 && deaths == RANDOM_DEATHS && words->value != both(0),
	   "heap, %u random deaths in a loop of stores beside a reader: never torn, never half", deaths);
	note("%u transactions", (uint32_t)words->value);
}

int main(void)
{
	pheap_tx *tx;

	crowd_begin("torn values, half rows of stores", 120);
	if (!steps_possible()) {
		skip("all", "no trap flag on this processor");
		return crowd_end();
	}
	old_value = crowd_share(sizeof(*old_value));
	heap = crowd_open(crowd_path("words"), PHEAP_CREATE, NULL);
	tx = crowd_tx(heap, 0);
	words = PHEAP_ROOT(tx, "words", struct words);
	crowd_commit(tx);
	halves_show();
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		value_sweep(&ways[i]);
	row_test();
	loop_test();
	crowd_close(heap);
	return crowd_end();
}
