/* SPDX-License-Identifier: MIT
 *
 * threads.c: many threads in one heap: accounts under keys, blocks of all sizes, exclusive and reading
 * transactions, aborts, threads that leave inside a transaction. At the end the books and the block count
 * must balance.
 *
 * Why a plain main: a thread sanitizer can run it. Usage: stress_threads [threads [rounds [seed]]]
 *
 * Invariants
 *   S1  The sum of the accounts is what it was, in every reading and exclusive transaction and at the end.
 *   S2  Every block that a committed transaction allocated is in its owner's table; nothing else is
 *       allocated.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pheap.h"

enum { ACCOUNTS = 64, HELD = 48, START = 1000, TYPE_FIRST = 10 };

struct block {
	unsigned char *p;
	size_t n;
};

struct worker {
	pheap *h;
	const uint64_t *accounts;
	uint64_t seed;
	uint32_t type;
	int rounds, faults;
	struct block held[HELD], next[HELD];
};

static int passed, failed;

static void expect(bool good, const char *what)
{
	if (good)
		passed++;
	else
		failed++;
	if (!good)
		printf("FAILED: %s\n", what);
}

static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static void fault(struct worker *w, const char *what, int rc)
{
	if (w->faults++ < 5)
		printf("type %u: %s: %d %s\n", w->type, what, rc, pheap_error_detail(w->h));
}

/* --- work inside a transaction; each gives 0 or the code that doomed it --- */

static int transfer(struct worker *w, pheap_tx *tx, bool keys_needed)
{
	uint64_t from = random_next(&w->seed) % ACCOUNTS, to = random_next(&w->seed) % ACCOUNTS;
	const uint64_t keys[] = {from, to};
	uint64_t *f, *t, amount = random_next(&w->seed) % 10;

	if (keys_needed && pheap_lock(tx, keys, 2))
		return pheap_error(tx);
	f = pheap_modify(tx, &w->accounts[from], 8);
	t = pheap_modify(tx, &w->accounts[to], 8);
	if (!f || !t)
		return pheap_error(tx);
	*f -= amount;
	*t += amount;
	return 0;
}

static bool filled_with(const struct block *b, unsigned char byte)
{
	return b->p[0] == byte && b->p[b->n / 2] == byte && b->p[b->n - 1] == byte;
}

static int shuffle(struct worker *w, pheap_tx *tx)
{
	size_t i = random_next(&w->seed) % HELD;
	uint64_t r = random_next(&w->seed);
	struct block *b = &w->next[i];
	size_t n = r % 32 ? 1 + (r >> 8) % 1500 : 1 + (r >> 8) % 50000;

	if (b->p && !filled_with(b, (unsigned char)(w->type + i)))
		fault(w, "a block was overwritten", 0);
	if (!b->p) {
		b->p = pheap_alloc(tx, n, w->type);
	} else if (r % 4 == 0) {
		b->p = pheap_realloc(tx, b->p, n);
	} else {
		int rc = pheap_free(tx, b->p);
		b->p = NULL;
		return rc;
	}
	b->n = n;
	if (!b->p)
		return pheap_error(tx);
	memset(b->p, (int)(w->type + i) & 0xff, n);
	return 0;
}

static int sum_check(struct worker *w)
{
	uint64_t sum = 0;

	for (int i = 0; i < ACCOUNTS; i++)
		sum += w->accounts[i];
	if (sum != (uint64_t)ACCOUNTS * START)
		fault(w, "the sum of the accounts changed", (int)sum);
	return 0;
}

static int work(struct worker *w, pheap_tx *tx, uint32_t flags)
{
	int rc = 0;

	if (flags != PHEAP_CONCURRENT)
		rc = sum_check(w);
	if (flags & PHEAP_READ)
		return rc;
	for (uint64_t k = 1 + random_next(&w->seed) % 3; k-- && !rc;)
		rc = transfer(w, tx, flags == PHEAP_CONCURRENT);
	for (uint64_t k = random_next(&w->seed) % 4; k-- && !rc;)
		rc = shuffle(w, tx);
	if (!rc && flags == 0)
		rc = sum_check(w);
	return rc;
}

static void round_run(struct worker *w)
{
	uint64_t r = random_next(&w->seed) % 64;
	uint32_t flags = r == 0 ? 0 : r < 3 ? PHEAP_READ : PHEAP_CONCURRENT;
	pheap_tx *tx;
	int rc = pheap_begin(w->h, flags, &tx);

	if (rc) {
		fault(w, "begin", rc);
		return;
	}
	memcpy(w->next, w->held, sizeof w->held);
	rc = work(w, tx, flags);
	if (rc && rc != -EDEADLK)
		fault(w, "inside a transaction", rc);
	if (rc || random_next(&w->seed) % 8 == 0) {
		pheap_abort(tx);
		return;
	}
	rc = pheap_commit(tx);
	if (rc)
		fault(w, "commit", rc);
	else
		memcpy(w->held, w->next, sizeof w->held);
}

static void *worker_body(void *arg)
{
	struct worker *w = arg;
	pheap_tx *tx;

	for (int i = 0; i < w->rounds; i++)
		round_run(w);
	/* leaves inside a transaction: it is rolled back */
	if (!pheap_begin(w->h, PHEAP_CONCURRENT, &tx)) {
		memcpy(w->next, w->held, sizeof w->held);
		(void)transfer(w, tx, true);
		(void)shuffle(w, tx);
	}
	return NULL;
}

/* --- the end --- */

static bool blocks_balance(pheap *h, const struct worker *w)
{
	size_t found = 0, want = 0;

	for (int i = 0; i < HELD; i++)
		want += w->held[i].p != NULL;
	for (const void *p = NULL; (p = pheap_next(h, w->type, p));) {
		bool mine = false;
		for (int i = 0; i < HELD && !mine; i++)
			mine = w->held[i].p == p &&
			       filled_with(&w->held[i], (unsigned char)(w->type + (uint32_t)i));
		if (!mine)
			return false;
		found++;
	}
	return found == want;
}

static bool all_freed(pheap *h, struct worker *w)
{
	pheap_tx *tx;

	if (pheap_begin(h, 0, &tx))
		return false;
	for (int i = 0; i < HELD; i++)
		if (pheap_free(tx, w->held[i].p))
			break;
	return pheap_commit(tx) == 0 && !pheap_next(h, w->type, NULL);
}

static const uint64_t *accounts_make(pheap *h)
{
	const uint64_t *accounts;
	uint64_t *w;
	pheap_tx *tx;

	if (pheap_begin(h, 0, &tx))
		return NULL;
	accounts = pheap_root(tx, "accounts", 8 * ACCOUNTS, 1);
	w = pheap_modify(tx, accounts, 8 * ACCOUNTS);
	for (int i = 0; w && i < ACCOUNTS; i++)
		w[i] = START;
	return pheap_commit(tx) ? NULL : accounts;
}

static void check_all(pheap *h, struct worker *workers, int count, uint64_t blocks_before)
{
	struct pheap_stats stats;

	(void)sum_check(&workers[0]);
	for (int i = 0; i < count; i++) {
		expect(workers[i].faults == 0, "a worker met a fault");
		expect(blocks_balance(h, &workers[i]), "allocated blocks are those that were committed");
		expect(all_freed(h, &workers[i]), "all blocks can be freed");
	}
	expect(pheap_stats(h, &stats, sizeof stats) == 0 && stats.block_count == blocks_before,
	       "no block is left");
}

static int run(const char *path, int count, int rounds, uint64_t seed)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	struct worker *workers = calloc((size_t)count, sizeof *workers);
	pthread_t *threads = calloc((size_t)count, sizeof *threads);
	struct pheap_stats stats;
	pheap *h = NULL;
	int rc;

	opt.durability = PHEAP_PROCESS;
	opt.max_size = 256u << 20;
	rc = pheap_open(path, PHEAP_CREATE, &opt, &h);
	unlink(path); /* nothing to clean up, however this ends */
	if (rc || !workers || !threads) {
		printf("open: %d %s\n", rc, pheap_error_detail(NULL));
		return 1;
	}
	const uint64_t *accounts = accounts_make(h);
	expect(accounts && !pheap_stats(h, &stats, sizeof stats), "set up");
	for (int i = 0; i < count; i++) {
		workers[i].h = h;
		workers[i].accounts = accounts;
		workers[i].seed = seed + (uint64_t)i;
		workers[i].type = TYPE_FIRST + (uint32_t)i;
		workers[i].rounds = rounds;
		if (pthread_create(&threads[i], NULL, worker_body, &workers[i]))
			abort();
	}
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	check_all(h, workers, count, stats.block_count);
	expect(pheap_close(h) == 0, "close");
	free(workers);
	free(threads);
	return 0;
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 8, rounds = argc > 2 ? atoi(argv[2]) : 5000;
	uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
	const char *tmp = getenv("TMPDIR");
	char path[4096];
	int fd;

	snprintf(path, sizeof path, "%s/pheap-stress-XXXXXX", tmp && tmp[0] ? tmp : "/tmp");
	fd = mkstemp(path);
	if (fd < 0 || unlink(path) || count < 1 || rounds < 1) {
		perror(path);
		return 2;
	}
	close(fd);
	printf("threads %d, rounds %d, seed %#llx\n", count, rounds, (unsigned long long)seed);
	if (run(path, count, rounds, seed))
		failed++;
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
