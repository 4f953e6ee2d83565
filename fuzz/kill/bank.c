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
#define TYPE_HELD 6u
#define PERMIT_WAIT_MS 20000
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
	bool hold;	  /* a new block of its own instead of the one before */
	bool borrow;	  /* what `lender` holds, too; alone in the heap only */
	unsigned lender;
	size_t held_size;
	unsigned permit; /* what is done with permits before and after */
};

enum { PERMIT_NONE, PERMIT_BRIEF, PERMIT_KEEP, PERMIT_LEND, PERMIT_KINDS };

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
	p.hold = oracle_below(&rng, 2);
	p.borrow = oracle_below(&rng, 2);
	p.lender = (worker + 1 + (unsigned)oracle_below(&rng, BANK_WORKERS - 1)) % BANK_WORKERS;
	p.held_size = oracle_below(&rng, 8) ? 24 + oracle_below(&rng, 200) : 17000;
	p.permit = (unsigned)oracle_below(&rng, PERMIT_KINDS);
	return p;
}

static void fill(uint8_t *dst, uint64_t seed, size_t n)
{
	uint64_t x = seed;

	for (size_t i = 0; i < n; i++) {
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
	const pheap_permits *permits;
	struct bank *bank;
	pheap_tx *tx;
	int rc = pheap_begin(h, 0, &tx);

	if (rc)
		return rc;
	bank = (void *)(uintptr_t)pheap_root(tx, "bank", sizeof(*bank), TYPE_BANK);
	bank = bank ? pheap_modify(tx, bank, sizeof(*bank)) : NULL;
	for (unsigned i = 0; bank && i < BANK_ACCOUNTS; i++)
		bank->accounts[i] = BANK_INITIAL;
	permits = bank ? pheap_permits_new(tx, BANK_PERMITS) : NULL;
	if (permits)
		bank->permits_off = pheap_offset(h, permits);
	return pheap_commit(tx);
}

void bank_worker_start(pheap *h, struct board *board, unsigned worker)
{
	board->workers[worker].permits = board->workers[worker].permits_asked = 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	board->workers[worker].member = pheap_member(h);
}

void bank_worker_end(pheap *h, struct board *board, unsigned worker)
{
	board->workers[worker].closing = pheap_member(h);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static bool is_closing(const struct board *board, uint64_t member)
{
	for (unsigned w = 0; w < BANK_WORKERS; w++)
		if (board->workers[w].closing == member)
			return true;
	return false;
}

/* --- held blocks --- */

/* This process took the hold, and has it still. */
static bool is_mine(const pheap *h, const struct bank_hold *hold)
{
	return hold->off && hold->member == pheap_member(h);
}

static void hold_note(pheap_tx *tx, const struct bank_hold *place, struct bank_hold hold)
{
	pheap *h = pheap_heap(tx);

	if (is_mine(h, place))
		(void)pheap_release(h, pheap_at(h, place->off));
	hold.member = pheap_member(h);
	(void)pheap_store(tx, place, &hold, sizeof(hold));
}

static void hold_own(pheap_tx *tx, const struct bank_worker *me, unsigned worker, uint64_t seq,
		     const struct plan *p)
{
	uint8_t bytes[BLOCK_MAX];
	void *block = pheap_alloc(tx, p->held_size, TYPE_HELD);

	if (!block)
		return;
	fill(bytes, ~p->seed, p->held_size);
	kr_copy(block, bytes, p->held_size);
	if (pheap_hold(pheap_heap(tx), block) == 0)
		hold_note(tx, &me->own,
			  (struct bank_hold){
				  .off = pheap_offset(pheap_heap(tx), block), .worker = worker, .seq = seq});
}

/* Alone in the heap: as long as the lender's row is there, so is what it holds. */
static void hold_borrowed(pheap_tx *tx, const struct bank *bank, const struct bank_worker *me,
			  const struct plan *p)
{
	pheap *h = pheap_heap(tx);
	struct bank_hold hold = bank->workers[p->lender].own;

	if (!hold.off || pheap_member_alive(h, hold.member) != 1)
		return;
	if (pheap_hold(h, pheap_at(h, hold.off)) == 0)
		hold_note(tx, &me->borrowed, hold);
}

/* --- permits --- */

enum permit_call { TAKE, GIVE, LEND };

static int permit_call(pheap *h, const struct bank *bank, struct board *board, unsigned worker,
		       enum permit_call call)
{
	const pheap_permits *p = pheap_at(h, bank->permits_off);
	int64_t change = call == TAKE ? 1 : -1;
	int rc;

	board->workers[worker].permits_asked = board->workers[worker].permits + change;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	rc = call == TAKE   ? pheap_permits_take(h, p, 1, PERMIT_WAIT_MS)
	     : call == GIVE ? pheap_permits_give(h, p, 1)
			    : pheap_permits_lend(h, p, 1);
	if (rc)
		return bank_wrong(board, "worker %u, permits: %d (%s)", worker, rc, pheap_error_detail(h));
	board->workers[worker].permits += change;
	return 0;
}

static int permits_before(pheap *h, const struct bank *bank, struct board *board, unsigned worker,
			  unsigned kind)
{
	bool has = board->workers[worker].permits > 0;

	switch (kind) {
	case PERMIT_BRIEF:
		return has ? 0 : permit_call(h, bank, board, worker, TAKE);
	case PERMIT_KEEP:
		return permit_call(h, bank, board, worker, has ? GIVE : TAKE);
	case PERMIT_LEND:
		return has || !board->lends ? 0 : permit_call(h, bank, board, worker, LEND);
	default:
		return 0;
	}
}

/* Who has lent takes it back, who took for a while gives. */
static int permits_after(pheap *h, const struct bank *bank, struct board *board, unsigned worker,
			 unsigned kind)
{
	int64_t has = board->workers[worker].permits;

	if (kind == PERMIT_BRIEF && has > 0)
		return permit_call(h, bank, board, worker, GIVE);
	return has < 0 ? permit_call(h, bank, board, worker, TAKE) : 0;
}

/* --- a transaction --- */

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
	fill(bytes, p->seed, p->size);
	kr_copy(block, bytes, p->size);
	if (*slot)
		(void)pheap_free(tx, pheap_at(h, *slot));
	off = pheap_offset(h, block);
	(void)pheap_store(tx, slot, &off, sizeof(off));
	if (p->hold)
		hold_own(tx, me, worker, seq, p);
	if (p->borrow && p->mode == 0)
		hold_borrowed(tx, bank, me, p);
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
	if (permits_before(h, bank, board, worker, p.permit))
		return -1;
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
	return permits_after(h, bank, board, worker, p.permit);
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
		fill(bytes, p.seed, p.size);
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

static bool in_ring(const struct bank *bank, uint64_t off)
{
	for (unsigned w = 0; w < BANK_WORKERS; w++)
		for (unsigned k = 0; k < BANK_RING; k++)
			if (bank->workers[w].ring[k] == off)
				return true;
	return false;
}

/* The coordination words, the rows and the lists, as FORMAT.md has them: no call tells so much. */
struct raw {
	const char *base;
	const struct phd_coord *coord;
	const struct phd_member *members;
	const struct phd_head *head;
	const struct phd_super *super;
};

static struct raw raw_of(const pheap *h)
{
	struct pheap_info info;
	struct raw r = {0};

	if (pheap_info(h, &info, sizeof(info)))
		return r;
	r.base = info.base;
	r.super = (const void *)r.base;
	r.coord = (const void *)(r.base + r.super->coord_off);
	r.members = (const void *)(r.base + r.super->member_off);
	r.head = (const void *)(r.base + r.super->head_off);
	return r;
}

static bool attached(const struct raw *r, uint64_t member)
{
	for (uint32_t i = 0; member && i < r->super->member_count; i++)
		if (__atomic_load_n(&r->members[i].attachment, __ATOMIC_ACQUIRE) == member)
			return true;
	return false;
}

static unsigned noted(const struct bank *bank, uint64_t member, uint64_t off)
{
	unsigned count = 0;

	for (unsigned w = 0; w < BANK_WORKERS; w++) {
		const struct bank_worker *me = &bank->workers[w];

		count += me->own.member == member && me->own.off == off;
		count += me->borrowed.member == member && me->borrowed.off == off;
	}
	return count;
}

/* One record: N4. */
static int check_record(struct board *board, const struct bank *bank, const struct raw *r,
			const struct phd_hold *hold)
{
	unsigned count = noted(bank, hold->attachment, hold->object_off);

	if (attached(r, hold->attachment))
		return count == hold->count
			       ? 0
			       : bank_wrong(
					 board,
					 "member %llu holds %#llx %u times in the lists, %u times by its notes",
					 (unsigned long long)hold->attachment,
					 (unsigned long long)hold->object_off, hold->count, count);
	/* It is void since its row went, and before that the reaper was called. */
	if (__atomic_load_n(&r->coord->reap, __ATOMIC_ACQUIRE) !=
	    __atomic_load_n(&r->coord->reaped, __ATOMIC_ACQUIRE))
		return 0;
	return bank_wrong(board, "what member %llu, which is gone, has held (%#llx) is freed by nobody",
			  (unsigned long long)hold->attachment, (unsigned long long)hold->object_off);
}

static bool has_record(const struct raw *r, uint64_t off, uint64_t member)
{
	uint64_t at = r->head->holds[PHD_HOLD_BUCKET(off)];

	while (at) {
		const struct phd_hold *hold = (const void *)(r->base + at);

		if (hold->object_off == off && (!member || hold->attachment == member))
			return true;
		at = hold->next_off;
	}
	return false;
}

static int check_noted(pheap *h, struct board *board, const struct raw *r, const struct bank_hold *hold)
{
	static uint8_t bytes[BLOCK_MAX];
	struct plan p;

	if (!hold->off || !attached(r, hold->member))
		return 0;
	p = plan_of((unsigned)hold->worker, hold->seq);
	fill(bytes, ~p.seed, p.held_size);
	/* Its row may go now, or it gave up what it held, to go: then it is not missing. */
	if (!has_record(r, hold->off, hold->member) && is_closing(board, hold->member))
		return 0;
	if (!has_record(r, hold->off, hold->member) && attached(r, hold->member))
		return bank_wrong(board, "member %llu has noted a hold of %#llx, which is in no list",
				  (unsigned long long)hold->member, (unsigned long long)hold->off);
	if (pheap_type_of(h, pheap_at(h, hold->off)) == TYPE_HELD &&
	    memcmp(pheap_at(h, hold->off), bytes, p.held_size) == 0)
		return 0;
	return bank_wrong(board, "block %#llx, held by member %llu, is not what worker %llu made",
			  (unsigned long long)hold->off, (unsigned long long)hold->member,
			  (unsigned long long)hold->worker);
}

static int check_holds(pheap *h, struct board *board, const struct bank *bank)
{
	struct raw r = raw_of(h);
	int rc = r.base ? 0 : bank_wrong(board, "pheap_info failed");

	for (unsigned b = 0; !rc && b < PHD_HOLD_BUCKETS; b++)
		for (uint64_t at = r.head->holds[b]; !rc && at;) {
			const struct phd_hold *hold = (const void *)(r.base + at);

			rc = check_record(board, bank, &r, hold);
			at = hold->next_off;
		}
	for (unsigned w = 0; !rc && w < BANK_WORKERS; w++) {
		rc = check_noted(h, board, &r, &bank->workers[w].own);
		rc = rc ? rc : check_noted(h, board, &r, &bank->workers[w].borrowed);
	}
	for (const void *p = NULL; !rc && (p = pheap_next(h, TYPE_HELD, p));)
		if (!has_record(&r, pheap_offset(h, p), 0))
			rc = bank_wrong(board, "leak: block %#llx is allocated, no one holds it",
					(unsigned long long)pheap_offset(h, p));
	return rc;
}

/* Can this balance come from what the member's workers were told, or ask for? Each is looked at until it holds still. */
static bool balance_fits(const struct board *board, uint64_t member, int64_t balance)
{
	int64_t sums[1u << BANK_WORKERS] = {0};
	unsigned count = 1;

	for (unsigned w = 0; w < BANK_WORKERS; w++) {
		int64_t told, asked;

		if (board->workers[w].member != member)
			continue;
		do {
			told = board->workers[w].permits;
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			asked = board->workers[w].permits_asked;
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
		} while (told != board->workers[w].permits);
		for (unsigned i = 0; i < count; i++) {
			sums[count + i] = sums[i] + asked;
			sums[i] += told;
		}
		count *= 2;
	}
	for (unsigned i = 0; i < count; i++)
		if (sums[i] == balance)
			return true;
	return false;
}

static int check_permits(pheap *h, struct board *board, const struct bank *bank)
{
	struct raw r = raw_of(h);
	const struct phd_permits *p = pheap_at(h, bank->permits_off);

	for (uint32_t i = 0; i < r.super->member_count; i++) {
		const struct phd_permit_cell *cell = &p->cells[i];

		if (!cell->attachment ||
		    __atomic_load_n(&r.members[i].attachment, __ATOMIC_ACQUIRE) != cell->attachment)
			continue;
		if (!balance_fits(board, cell->attachment, cell->balance))
			return bank_wrong(board,
					  "member %llu has a balance of %lld permits, which it was not told",
					  (unsigned long long)cell->attachment, (long long)cell->balance);
	}
	return 0;
}

static int check_walk(pheap *h, struct board *board, const struct bank *bank, unsigned count)
{
	unsigned found = 0;

	for (const void *p = NULL; (p = pheap_next(h, UINT32_MAX, p));) {
		if (pheap_type_of(h, p) == TYPE_HELD || p == bank)
			continue;
		if (!in_ring(bank, pheap_offset(h, p)))
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
	if (check_walk(h, board, bank, count) || check_holds(h, board, bank))
		return -1;
	return check_permits(h, board, bank);
}

int bank_check_alone(pheap *h, struct board *board)
{
	const struct bank *bank = pheap_find(h, "bank");
	struct raw r = raw_of(h);
	int64_t count = 0;

	if (!bank || !r.base)
		return bank_wrong(board, "the bank is gone");
	for (unsigned b = 0; b < PHD_HOLD_BUCKETS; b++)
		if (r.head->holds[b])
			return bank_wrong(board, "all have died, and list %u of holds is not empty", b);
	if (pheap_next(h, TYPE_HELD, NULL))
		return bank_wrong(board, "all have died, and what they held is there");
	if (pheap_permits_available(h, pheap_at(h, bank->permits_off), &count) || count != BANK_PERMITS)
		return bank_wrong(board, "all have died, and %lld of %u permits are free", (long long)count,
				  BANK_PERMITS);
	return 0;
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
