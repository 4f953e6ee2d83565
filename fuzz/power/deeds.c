/* SPDX-License-Identifier: MIT
 *
 * deeds.c: see deeds.h.
 */
#include "deeds.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ROOT_NAME "deeds"
#define ROOT_TYPE 1u
#define BLOCK_TYPE 2u
#define MAGIC 0x7364656564ull
#define HEAD_WORDS 4u

/* On pages that several workers store into, and on some that few do. */
struct deeds_root {
	struct {
		uint64_t seq;
		uint64_t ring
			[DEEDS_RING]; /* block of number s: ring[s % DEEDS_RING]; a big one may be missing */
	} workers[DEEDS_WORKERS];
	struct {
		uint64_t value;
		uint64_t pad[63];
	} accounts[DEEDS_ACCOUNTS];
};

/* Number s of worker w: what it comes to. How it is done is drawn elsewhere. */
struct deed {
	unsigned from, to;
	uint64_t amount;
	uint64_t size; /* bytes of the block, a multiple of 8 */
	bool big;
};

/* A worker's thread. */
struct life {
	pheap *h;
	const struct deeds_plan *plan;
	struct deeds_board *board;
	unsigned w;
	uint64_t *random;
	uint64_t lsn;			    /* of a commit that nobody has waited for; 0: none */
	uint64_t lsn_covers[DEEDS_WORKERS]; /* commits that had returned before that one */
};

uint64_t deeds_mix(uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t x = a * 0x9e3779b97f4a7c15ull + b * 0xbf58476d1ce4e5b9ull + c * 0x94d049bb133111ebull;

	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

uint64_t deeds_random(uint64_t *state)
{
	return deeds_mix(++*state, 0, 1);
}

uint64_t deeds_below(uint64_t *state, uint64_t n)
{
	return deeds_random(state) % n;
}

int deeds_wrong(struct deeds_board *board, const char *format, ...)
{
	va_list args;

	if (__atomic_exchange_n(&board->why_set, 1, __ATOMIC_ACQ_REL))
		return -1;
	va_start(args, format);
	vsnprintf(board->why, sizeof(board->why), format, args);
	va_end(args);
	__atomic_store_n(&board->stop, 1, __ATOMIC_RELEASE);
	return -1;
}

void deeds_note(struct deeds_board *board, const char *format, ...)
{
	size_t at = strnlen(board->why, sizeof(board->why) - 3);
	va_list args;

	at += (size_t)snprintf(board->why + at, 3, "; ");
	va_start(args, format);
	vsnprintf(board->why + at, sizeof(board->why) - at, format, args);
	va_end(args);
}

static void raise_to(uint64_t *word, uint64_t value)
{
	uint64_t was = __atomic_load_n(word, __ATOMIC_RELAXED);

	while (was < value &&
	       !__atomic_compare_exchange_n(word, &was, value, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
}

void deeds_sample_take(struct deeds_sample *ret, const struct deeds_board *board)
{
	ret->made = __atomic_load_n(&board->now.made, __ATOMIC_SEQ_CST);
	for (unsigned w = 0; w < DEEDS_WORKERS; w++) {
		ret->acked[w] = __atomic_load_n(&board->now.acked[w], __ATOMIC_SEQ_CST);
		ret->started[w] = __atomic_load_n(&board->now.started[w], __ATOMIC_SEQ_CST);
	}
}

void deeds_closed(struct deeds_board *board)
{
	for (unsigned w = 0; w < DEEDS_WORKERS; w++)
		raise_to(&board->now.acked[w], board->done[w]);
}

void deeds_plan_draw(struct deeds_plan *p, uint64_t seed, uint32_t level)
{
	static const uint64_t journals[] = {32u << 10, 64u << 10, 128u << 10, 1u << 20, 2u << 20};
	static const uint32_t epochs_ms[] = {5, 20, 100, 1000};
	uint64_t r = seed;
	struct pheap_options options = PHEAP_OPTIONS_INIT;

	p->seed = seed;
	p->options = options;
	p->options.durability = level ? level : deeds_below(&r, 2) ? PHEAP_SYNC : PHEAP_EPOCH;
	p->options.journal_size = journals[deeds_below(&r, 5)];
	p->options.initial_size = (512u << 10) << deeds_below(&r, 3);
	p->options.max_size = 32u << 20;
	p->options.epoch_ms = epochs_ms[deeds_below(&r, 4)];
	p->options.lock_timeout_ms = 120000;
	p->options.member_count = 16;
	p->options.lane_count = 64;
	p->small_max = p->options.journal_size / 16;
	if (p->small_max > 24u << 10)
		p->small_max = 24u << 10;
	p->big = p->options.journal_size >= 1u << 20;
}

static void deed_draw(const struct deeds_plan *p, unsigned w, uint64_t s, struct deed *ret)
{
	uint64_t r = deeds_mix(p->seed, w + 1, s);

	ret->from = (unsigned)deeds_below(&r, DEEDS_ACCOUNTS);
	ret->to = (ret->from + 1 + (unsigned)deeds_below(&r, DEEDS_ACCOUNTS - 1)) % DEEDS_ACCOUNTS;
	ret->amount = deeds_random(&r);
	/* waves: blocks of some sizes go, others come, and the heap grows now and then */
	ret->size = deeds_below(&r, 8) ? deeds_below(&r, 200 + s % 700) : deeds_below(&r, p->small_max);
	ret->big = p->big && deeds_below(&r, 25) == 0;
	if (ret->big)
		ret->size = (64u << 10) + deeds_below(&r, 136u << 10);
	ret->size = HEAD_WORDS * 8 + ret->size / 8 * 8;
}

/* ---- blocks: D3 ---- */

static void block_fill(const struct deeds_plan *p, uint64_t *b, unsigned w, uint64_t s, uint64_t size)
{
	uint64_t key = deeds_mix(p->seed, s, w);

	b[0] = MAGIC;
	b[1] = w;
	b[2] = s;
	b[3] = size;
	for (uint64_t i = HEAD_WORDS; i < size / 8; i++)
		b[i] = key + i * 0x9e3779b97f4a7c15ull;
}

static int block_check(pheap *h, const struct deeds_plan *p, struct deeds_board *board, uint64_t off,
		       unsigned w, uint64_t s, uint64_t size)
{
	const uint64_t *b = pheap_at(h, off);
	uint64_t key = deeds_mix(p->seed, s, w), usable;

	usable = pheap_offset(h, b) ? pheap_usable_size(h, b) : 0;
	if (usable < size || pheap_type_of(h, b) != BLOCK_TYPE)
		return deeds_wrong(board, "worker %u, number %llu: its block %llx holds %llu bytes, not %llu",
				   w, (unsigned long long)s, (unsigned long long)off,
				   (unsigned long long)usable, (unsigned long long)size);
	for (uint64_t i = 0; i < size / 8; i++) {
		uint64_t want = i == 0	 ? MAGIC
				: i == 1 ? w
				: i == 2 ? s
				: i == 3 ? size
					 : key + i * 0x9e3779b97f4a7c15ull;

		if (b[i] != want)
			return deeds_wrong(
				board,
				"worker %u, number %llu: word %llu of its block %llx of %llu bytes is "
				"%llx, not %llx",
				w, (unsigned long long)s, (unsigned long long)i, (unsigned long long)off,
				(unsigned long long)size, (unsigned long long)b[i], (unsigned long long)want);
	}
	return 0;
}

/* ---- one transaction ---- */

int deeds_root_make(pheap *h)
{
	pheap_tx *tx;
	int rc = pheap_begin(h, 0, &tx);

	if (rc)
		return rc;
	(void)!pheap_root(tx, ROOT_NAME, sizeof(struct deeds_root), ROOT_TYPE);
	return pheap_commit(tx);
}

static void word_put(struct life *l, pheap_tx *tx, const uint64_t *word, uint64_t value)
{
	uint64_t *w;

	switch (deeds_below(l->random, 4)) {
	case 0:
		w = pheap_modify(tx, word, 8);
		if (w)
			*w = value;
		break;
	case 1:
		(void)pheap_defer(tx, word, &value, 8);
		break;
	case 2:
		(void)pheap_defer_u64(tx, word, value);
		break;
	default:
		(void)pheap_store(tx, word, &value, 8);
		break;
	}
}

/* Stores and blocks that will not have been. */
static void nonsense(struct life *l, pheap_tx *tx, const struct deeds_root *root)
{
	pheap_savepoint_id sp;
	uint64_t *w;

	if (pheap_savepoint(tx, &sp))
		return;
	w = pheap_modify(tx, &root->workers[l->w].ring[deeds_below(l->random, DEEDS_RING)], 8);
	if (w)
		*w = deeds_random(l->random);
	w = pheap_alloc(tx, 16 + deeds_below(l->random, 3000), BLOCK_TYPE);
	if (w)
		memset(w, 0x5a, 16);
	(void)pheap_rollback(tx, sp);
}

static uint64_t *block_make(struct life *l, pheap_tx *tx, const struct deed *d, uint64_t s,
			    uint64_t *reserved)
{
	uint64_t *b;

	if (reserved)
		return pheap_publish(tx, reserved) ? NULL : reserved;
	b = pheap_alloc(tx, deeds_below(l->random, 10) ? d->size : HEAD_WORDS * 8, BLOCK_TYPE);
	if (b && pheap_usable_size(l->h, b) < d->size)
		b = pheap_realloc(tx, b, d->size);
	if (b)
		block_fill(l->plan, b, l->w, s, d->size);
	return b;
}

static int changes(struct life *l, pheap_tx *tx, const struct deed *d, uint64_t s, uint64_t *reserved,
		   bool block)
{
	const struct deeds_root *root = pheap_find(l->h, ROOT_NAME);
	const uint64_t *from = &root->accounts[d->from].value, *to = &root->accounts[d->to].value;
	const uint64_t *slot = &root->workers[l->w].ring[s % DEEDS_RING], *seq = &root->workers[l->w].seq;
	uint64_t keys[2] = {pheap_offset(l->h, from), pheap_offset(l->h, to)}, *b = NULL;
	int rc = pheap_lock(tx, keys, 2);

	if (rc)
		return rc;
	if (deeds_below(l->random, 12) == 0)
		nonsense(l, tx, root);
	word_put(l, tx, from, *from - d->amount);
	if (*slot)
		(void)pheap_free(tx, pheap_at(l->h, *slot));
	if (block)
		b = block_make(l, tx, d, s, reserved);
	word_put(l, tx, slot, pheap_offset(l->h, b));
	word_put(l, tx, to, *to + d->amount);
	word_put(l, tx, seq, s);
	return pheap_error(tx);
}

/* ret_lsn NULL: the commit waits. */
static int attempt(struct life *l, uint64_t s, bool give_up, bool block, uint64_t *ret_lsn)
{
	struct deed d;
	pheap_tx *tx;
	uint64_t *reserved = NULL;
	int rc;

	deed_draw(l->plan, l->w, s, &d);
	if (block && deeds_below(l->random, 5) == 0) {
		reserved = pheap_reserve(l->h, d.size, BLOCK_TYPE);
		if (reserved)
			block_fill(l->plan, reserved, l->w, s, d.size);
	}
	rc = pheap_begin(l->h, deeds_below(l->random, 10) ? PHEAP_CONCURRENT : 0, &tx);
	if (rc == 0) {
		rc = changes(l, tx, &d, s, reserved, block);
		if (rc || give_up) {
			pheap_abort(tx);
			rc = rc ? rc : 1;
		} else {
			rc = ret_lsn ? pheap_commit_async(tx, ret_lsn) : pheap_commit(tx);
		}
	}
	if (rc && reserved)
		pheap_cancel(l->h, reserved);
	return rc;
}

static int deed_do(struct life *l, uint64_t s, uint64_t *ret_lsn)
{
	struct deed d;
	bool give_up = deeds_below(l->random, 15) == 0, block = true;
	int rc;

	deed_draw(l->plan, l->w, s, &d);
	raise_to(&l->board->now.started[l->w], s);
	do {
		rc = attempt(l, s, give_up, block, ret_lsn);
		give_up = false;
		if (rc == -E2BIG && d.big)
			block = false; /* not always free of the journal */
	} while (rc == 1 || rc == -EDEADLK || (rc == -E2BIG && d.big && !block));
	return rc;
}

/* ---- a worker: D2 ---- */

static void seen_take(const struct life *l, uint64_t ret[DEEDS_WORKERS])
{
	for (unsigned w = 0; w < DEEDS_WORKERS; w++)
		ret[w] = __atomic_load_n(&l->board->done[w], __ATOMIC_SEQ_CST);
}

static void promised(struct life *l, const uint64_t seq[DEEDS_WORKERS])
{
	for (unsigned w = 0; w < DEEDS_WORKERS; w++)
		raise_to(&l->board->now.acked[w], seq[w]);
}

static int wrong_call(struct life *l, const char *what, int rc)
{
	return deeds_wrong(l->board, "%s: %s; %s", what, pheap_strerror(rc), pheap_error_detail(l->h));
}

static int lsn_wait(struct life *l)
{
	int rc = l->lsn ? pheap_wait(l->h, l->lsn, -1) : 0;

	if (rc)
		return wrong_call(l, "pheap_wait", rc);
	if (l->lsn)
		promised(l, l->lsn_covers);
	l->lsn = 0;
	return 0;
}

static int checkpoint(struct life *l)
{
	uint64_t covers[DEEDS_WORKERS];
	int rc;

	seen_take(l, covers);
	rc = pheap_checkpoint(l->h);
	if (rc)
		return wrong_call(l, "pheap_checkpoint", rc);
	promised(l, covers);
	return 0;
}

/* A transaction that changes nothing ends (SYNC) when all that it has seen is durable. */
static int look(struct life *l)
{
	const struct deeds_root *root = pheap_find(l->h, ROOT_NAME);
	uint64_t covers[DEEDS_WORKERS];
	pheap_tx *tx;
	int rc = pheap_begin(l->h, PHEAP_READ, &tx);

	if (rc)
		return wrong_call(l, "pheap_begin", rc);
	for (unsigned w = 0; w < DEEDS_WORKERS; w++)
		covers[w] = root->workers[w].seq;
	rc = pheap_commit(tx);
	if (rc)
		return wrong_call(l, "pheap_commit", rc);
	if (l->plan->options.durability == PHEAP_SYNC)
		promised(l, covers);
	return 0;
}

static int deed_next(struct life *l)
{
	const struct deeds_root *root = pheap_find(l->h, ROOT_NAME);
	uint64_t s = root->workers[l->w].seq + 1, covers[DEEDS_WORKERS], lsn = 0;
	bool sync = l->plan->options.durability == PHEAP_SYNC, wait = deeds_below(l->random, 4) != 0;
	int rc;

	seen_take(l, covers);
	covers[l->w] = s;
	rc = deed_do(l, s, wait ? NULL : &lsn);
	if (rc)
		return wrong_call(l, "a transaction", rc);
	raise_to(&l->board->done[l->w], s);
	if (wait && sync)
		raise_to(&l->board->now.acked[l->w], s);
	if (!wait) {
		l->lsn = lsn;
		memcpy(l->lsn_covers, covers, sizeof(covers));
	}
	return 0;
}

int deeds_work(pheap *h, const struct deeds_plan *p, struct deeds_board *board, unsigned w, uint64_t count,
	       uint64_t *random)
{
	struct life l = {.h = h, .plan = p, .board = board, .w = w, .random = random};
	int rc = 0;

	for (uint64_t i = 0; rc == 0 && i < count && !__atomic_load_n(&board->stop, __ATOMIC_ACQUIRE); i++) {
		rc = deed_next(&l);
		if (rc == 0 && deeds_below(random, 10) == 0)
			rc = lsn_wait(&l);
		if (rc == 0 && deeds_below(random, 60) == 0)
			rc = checkpoint(&l);
		if (rc == 0 && deeds_below(random, 25) == 0)
			rc = look(&l);
	}
	return rc ? rc : lsn_wait(&l);
}

/* ---- checking ---- */

static void expect_walk(const struct deeds_plan *p, struct deeds_expect *e, unsigned w, uint64_t seq)
{
	struct deed d;

	while (e->seq[w] != seq) {
		bool forward = e->seq[w] < seq;
		uint64_t s = forward ? e->seq[w] + 1 : e->seq[w];

		deed_draw(p, w, s, &d);
		e->accounts[d.from] -= forward ? d.amount : -d.amount;
		e->accounts[d.to] += forward ? d.amount : -d.amount;
		e->seq[w] = forward ? s : s - 1;
	}
}

static int ring_check(pheap *h, const struct deeds_plan *p, struct deeds_board *board,
		      const struct deeds_root *root, unsigned w, uint64_t *count)
{
	uint64_t seq = root->workers[w].seq;

	for (uint64_t i = 0; i < DEEDS_RING && i < seq; i++) {
		uint64_t s = seq - i, off = root->workers[w].ring[s % DEEDS_RING];
		struct deed d;

		deed_draw(p, w, s, &d);
		if (!off && d.big)
			continue;
		if (block_check(h, p, board, off, w, s, d.size))
			return -1;
		(*count)++;
	}
	return 0;
}

static int numbers_check(const struct deeds_sample *s, const uint64_t seq[DEEDS_WORKERS],
			 struct deeds_board *board)
{
	for (unsigned w = 0; w < DEEDS_WORKERS; w++)
		if (seq[w] < s->acked[w] || seq[w] > s->started[w])
			return deeds_wrong(board,
					   "worker %u: number %llu is there, %llu was promised, %llu begun",
					   w, (unsigned long long)seq[w], (unsigned long long)s->acked[w],
					   (unsigned long long)s->started[w]);
	return 0;
}

int deeds_check(pheap *h, const struct deeds_plan *p, const struct deeds_sample *s, struct deeds_expect *e,
		struct deeds_board *board, uint64_t ret_seq[DEEDS_WORKERS])
{
	const struct deeds_root *root = pheap_find(h, ROOT_NAME);
	uint64_t want = 0, count = 0;

	for (unsigned w = 0; w < DEEDS_WORKERS; w++)
		ret_seq[w] = root ? root->workers[w].seq : 0;
	if (numbers_check(s, ret_seq, board))
		return -1;
	for (unsigned w = 0; root && w < DEEDS_WORKERS; w++) {
		expect_walk(p, e, w, ret_seq[w]);
		if (ring_check(h, p, board, root, w, &want))
			return -1;
	}
	for (unsigned i = 0; root && i < DEEDS_ACCOUNTS; i++)
		if (root->accounts[i].value != e->accounts[i])
			return deeds_wrong(board,
					   "account %u is %llx, the transactions that are there make it %llx",
					   i, (unsigned long long)root->accounts[i].value,
					   (unsigned long long)e->accounts[i]);
	for (const void *b = NULL; (b = pheap_next(h, UINT32_MAX, b)) != NULL;)
		count++;
	if (count != want + (root ? 1 : 0))
		return deeds_wrong(board, "%llu blocks are allocated, %llu are in use",
				   (unsigned long long)count, (unsigned long long)want + (root ? 1 : 0));
	return 0;
}
