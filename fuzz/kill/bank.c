/* SPDX-License-Identifier: MIT
 *
 * bank.c: see bank.h.
 */
#include "bank.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "oracle.h"
#include "runtime.h"

#define TYPE_BANK 9u
#define TYPE_BLOCK 5u
#define BLOCK_MAX 24000u
#define RETRY_MAX 1000u

/* Everything that transaction s of worker w does. */
struct plan {
	unsigned from, to;
	uint64_t amount;
	size_t size;
	uint64_t seed;
	uint32_t mode;
	unsigned how;	  /* how the accounts are changed */
	bool scribble;	  /* a large part that is rolled back */
	bool first_abort; /* the whole is done once and aborted */
};

static struct plan plan_of(unsigned worker, uint64_t seq)
{
	uint64_t rng = worker * 0x1000000ull + seq;
	struct plan p = {.seed = oracle_random(&rng)};

	p.from = (unsigned)oracle_below(&rng, BANK_ACCOUNTS);
	p.to = (p.from + 1 + (unsigned)oracle_below(&rng, BANK_ACCOUNTS - 1)) % BANK_ACCOUNTS;
	p.amount = 1 + oracle_below(&rng, 100);
	switch (oracle_below(&rng, 8)) {
	case 0:
		p.size = 16400 + oracle_below(&rng, BLOCK_MAX - 16400);
		break;
	case 1:
		p.size = 1000 + oracle_below(&rng, 4000);
		break;
	default:
		p.size = 24 + oracle_below(&rng, 200);
	}
	p.mode = oracle_below(&rng, 3) ? PHEAP_CONCURRENT : 0;
	p.how = (unsigned)oracle_below(&rng, 4);
	p.scribble = oracle_below(&rng, 6) == 0;
	p.first_abort = oracle_below(&rng, 6) == 0;
	return p;
}

static void fill(uint8_t *dst, const struct plan *p)
{
	uint64_t x = p->seed;

	for (size_t i = 0; i < p->size; i++) {
		if (i % 8 == 0)
			x = x * 6364136223846793005ull + 1442695040888963407ull;
		dst[i] = (uint8_t)(x >> (i % 8 * 8));
	}
}

int bank_wrong(struct board *board, const char *format, ...)
{
	va_list ap;

	if (__atomic_exchange_n(&board->why_set, 1, __ATOMIC_ACQ_REL))
		return -1;
	va_start(ap, format);
	vsnprintf(board->why, sizeof(board->why), format, ap);
	va_end(ap);
	return -1;
}

int bank_make(pheap *h)
{
	struct bank *bank;
	pheap_tx *tx;
	int rc = pheap_begin(h, 0, &tx);

	if (rc)
		return rc;
	bank = (void *)(uintptr_t)pheap_root(tx, "bank", sizeof(*bank), TYPE_BANK);
	bank = bank ? pheap_modify(tx, bank, sizeof(*bank)) : NULL;
	for (unsigned i = 0; bank && i < BANK_ACCOUNTS; i++)
		bank->accounts[i] = BANK_INITIAL;
	return pheap_commit(tx);
}

static void account_set(pheap_tx *tx, const uint64_t *account, uint64_t value, unsigned how)
{
	uint64_t *p;

	switch (how) {
	case 0:
		p = pheap_modify(tx, account, sizeof(*account));
		if (p)
			kr_copy(p, &value, sizeof(value));
		break;
	case 1:
		(void)pheap_store(tx, account, &value, sizeof(value));
		break;
	case 2:
		(void)pheap_defer(tx, account, &value, sizeof(value));
		break;
	default:
		(void)pheap_defer_u64(tx, account, value);
	}
}

/* Many small ranges, so that the log leaves the lane, and all of it taken back. */
static void scribble(pheap_tx *tx, const struct bank_worker *me)
{
	const uint8_t *p = pheap_at(pheap_heap(tx), me->ring[me->seq % BANK_RING]);
	pheap_savepoint_id id;
	size_t n = p ? pheap_usable_size(pheap_heap(tx), p) : 0;

	if (!n || pheap_savepoint(tx, &id))
		return;
	for (size_t i = 0; i + 16 <= n && i < 16 * 400; i += 16) {
		uint8_t *q = pheap_modify(tx, p + i, 9);

		if (!q)
			return;
		kr_copy(q, "scribble!", 9);
	}
	(void)pheap_rollback(tx, id);
}

static void work(pheap_tx *tx, const struct bank *bank, unsigned worker, uint64_t seq, const struct plan *p)
{
	const struct bank_worker *me = &bank->workers[worker];
	const uint64_t *slot = &me->ring[seq % BANK_RING];
	pheap *h = pheap_heap(tx);
	uint8_t bytes[BLOCK_MAX];
	void *block;
	uint64_t off;

	if (p->scribble)
		scribble(tx, me);
	account_set(tx, &bank->accounts[p->from], bank->accounts[p->from] - p->amount, p->how);
	account_set(tx, &bank->accounts[p->to], bank->accounts[p->to] + p->amount, (p->how + 1) % 4);
	block = pheap_alloc(tx, p->size, TYPE_BLOCK);
	if (!block)
		return;
	fill(bytes, p);
	kr_copy(block, bytes, p->size);
	if (*slot)
		(void)pheap_free(tx, pheap_at(h, *slot));
	off = pheap_offset(h, block);
	(void)pheap_store(tx, slot, &off, sizeof(off));
	(void)pheap_defer_u64(tx, &me->seq, seq);
}

static int begin(pheap *h, const struct bank *bank, const struct plan *p, pheap_tx **tx)
{
	uint64_t keys[2] = {pheap_offset(h, &bank->accounts[p->from]),
			    pheap_offset(h, &bank->accounts[p->to])};
	int rc = pheap_begin(h, p->mode, tx);

	if (rc || !p->mode)
		return rc;
	rc = pheap_lock(*tx, keys, 2);
	if (rc)
		pheap_abort(*tx);
	return rc;
}

int bank_tx(pheap *h, struct board *board, unsigned worker)
{
	const struct bank *bank = pheap_find(h, "bank");
	uint64_t seq;
	struct plan p;
	pheap_tx *tx;
	int rc = 0;

	if (!bank)
		return bank_wrong(board, "worker %u: the bank is gone", worker);
	seq = __atomic_load_n(&bank->workers[worker].seq, __ATOMIC_ACQUIRE) + 1;
	p = plan_of(worker, seq);
	for (unsigned i = 0; i < RETRY_MAX; i++) {
		board->workers[worker].started = seq;
		rc = begin(h, bank, &p, &tx);
		if (rc == -EDEADLK)
			continue;
		if (rc)
			break;
		work(tx, bank, worker, seq, &p);
		if (p.first_abort && i == 0) {
			pheap_abort(tx);
			continue;
		}
		rc = pheap_commit(tx);
		if (rc != -EDEADLK && rc != -ENOSPC)
			break;
	}
	if (rc)
		return bank_wrong(board, "worker %u, transaction %llu: %d (%s; %s)", worker,
				  (unsigned long long)seq, rc, pheap_strerror(rc), pheap_error_detail(h));
	board->workers[worker].acked = seq;
	return 0;
}

/* --- the check --- */

void bank_expect_start(struct bank_expect *e)
{
	memset(e, 0, sizeof(*e));
	for (unsigned i = 0; i < BANK_ACCOUNTS; i++)
		e->accounts[i] = BANK_INITIAL;
}

static void expect_advance(struct bank_expect *e, unsigned worker, uint64_t seq)
{
	while (e->seq[worker] < seq) {
		struct plan p = plan_of(worker, ++e->seq[worker]);

		e->accounts[p.from] -= p.amount;
		e->accounts[p.to] += p.amount;
	}
}

static int check_worker(pheap *h, struct board *board, const struct bank *bank, unsigned w, unsigned *count)
{
	static uint8_t bytes[BLOCK_MAX];
	const struct bank_worker *me = &bank->workers[w];

	for (unsigned k = 0; k < BANK_RING; k++) {
		uint64_t seq = me->seq - (me->seq + BANK_RING - k) % BANK_RING, off = me->ring[k];
		struct plan p;

		if (me->seq < k || seq == 0) {
			if (off)
				return bank_wrong(board, "worker %u: ring %u holds %#llx too early", w, k,
						  (unsigned long long)off);
			continue;
		}
		p = plan_of(w, seq);
		fill(bytes, &p);
		if (pheap_usable_size(h, pheap_at(h, off)) < p.size ||
		    pheap_type_of(h, pheap_at(h, off)) != TYPE_BLOCK)
			return bank_wrong(board,
					  "worker %u: %#llx, of transaction %llu, is no block of %zu bytes",
					  w, (unsigned long long)off, (unsigned long long)seq, p.size);
		if (memcmp(pheap_at(h, off), bytes, p.size))
			return bank_wrong(board,
					  "worker %u: the block of transaction %llu (%#llx) has other bytes",
					  w, (unsigned long long)seq, (unsigned long long)off);
		(*count)++;
	}
	return 0;
}

static bool held(const struct bank *bank, uint64_t off)
{
	for (unsigned w = 0; w < BANK_WORKERS; w++)
		for (unsigned k = 0; k < BANK_RING; k++)
			if (bank->workers[w].ring[k] == off)
				return true;
	return false;
}

static int check_walk(pheap *h, struct board *board, const struct bank *bank, unsigned count)
{
	unsigned found = 0;

	for (const void *p = NULL; (p = pheap_next(h, UINT32_MAX, p));) {
		if (pheap_type_of(h, p) > PHD_TYPE_USER_MAX || p == bank)
			continue;
		if (!held(bank, pheap_offset(h, p)))
			return bank_wrong(board, "leak: block %#llx is allocated, no one holds it",
					  (unsigned long long)pheap_offset(h, p));
		found++;
	}
	return found == count ? 0 : bank_wrong(board, "the walk finds %u blocks, %u are held", found, count);
}

static int check_all(pheap *h, struct board *board, struct bank_expect *e, const uint64_t *acked)
{
	const struct bank *bank = pheap_find(h, "bank");
	unsigned count = 0;

	if (!bank)
		return bank_wrong(board, "the bank is gone");
	for (unsigned w = 0; w < BANK_WORKERS; w++) {
		uint64_t seq = bank->workers[w].seq;

		if (seq < acked[w] || seq > board->workers[w].started || seq < e->seq[w])
			return bank_wrong(
				board, "worker %u: number %llu, acknowledged %llu, started %llu, seen %llu",
				w, (unsigned long long)seq, (unsigned long long)acked[w],
				(unsigned long long)board->workers[w].started, (unsigned long long)e->seq[w]);
		expect_advance(e, w, seq);
		if (check_worker(h, board, bank, w, &count))
			return -1;
	}
	for (unsigned i = 0; i < BANK_ACCOUNTS; i++)
		if (bank->accounts[i] != e->accounts[i])
			return bank_wrong(board, "account %u: %llu, expected %llu", i,
					  (unsigned long long)bank->accounts[i],
					  (unsigned long long)e->accounts[i]);
	return check_walk(h, board, bank, count);
}

int bank_check(pheap *h, struct board *board, struct bank_expect *e)
{
	uint64_t acked[BANK_WORKERS];
	pheap_tx *tx;
	int rc;

	for (unsigned w = 0; w < BANK_WORKERS; w++)
		acked[w] = board->workers[w].acked;
	rc = pheap_begin(h, PHEAP_READ, &tx);
	if (rc)
		return bank_wrong(board, "check: begin: %d (%s)", rc, pheap_error_detail(h));
	rc = check_all(h, board, e, acked);
	if (pheap_commit(tx) && !rc)
		rc = bank_wrong(board, "check: commit failed");
	return rc;
}
