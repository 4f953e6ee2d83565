/* SPDX-License-Identifier: MIT
 *
 * checkpoint_beside.c: checkpoints wait for nobody: not for a transaction that stays open, not for a process that is stopped in
 * one; and killed checkpointers are in nobody's way.
 *
 * What: heaps with a journal so small that some ten commits fill half of it. While somebody does not get on, another process
 * commits many times what the journal holds. Then who stood still goes on, and both see what both have done.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "crowd.h"

#define WORDS 512u
#define JOURNAL (64u << 10)
#define COMMITS 300u
#define KILLS 12u

struct page {
	uint64_t words[WORDS];
};

struct board {
	uint32_t ready, go;
	uint64_t count; /* commits of the other process */
};

static struct board *b;
static uint32_t level;

static pheap *heap_open(uint32_t flags)
{
	struct pheap_options opt = crowd_options();

	opt.durability = level;
	opt.journal_size = JOURNAL;
	opt.epoch_ms = 50;
	return crowd_open(crowd_path("heap"), flags, &opt);
}

static const struct page *page_of(pheap_tx *tx, unsigned who)
{
	char name[8];

	snprintf(name, sizeof(name), "p%u", who);
	return pheap_root(tx, name, sizeof(struct page), 1);
}

static int add(pheap *h, unsigned who, unsigned at)
{
	pheap_tx *tx;
	const struct page *p;
	uint64_t key = who + 1, *w;
	int rc = pheap_begin(h, PHEAP_CONCURRENT, &tx);

	if (rc)
		return rc;
	p = page_of(tx, who);
	if (p && pheap_lock(tx, &key, 1) == 0) {
		w = pheap_modify(tx, &p->words[at % WORDS], 8);
		if (w)
			*w += 1;
	}
	return pheap_commit(tx);
}

static uint64_t sum(pheap *h, const char *name)
{
	const struct page *p = pheap_find(h, name);
	uint64_t total = 0;

	for (unsigned i = 0; p && i < WORDS; i++)
		total += p->words[i];
	return total;
}

static uint64_t checkpoints(pheap *h)
{
	struct pheap_stats s;

	crowd_must(pheap_stats(h, &s, sizeof(s)), "pheap_stats");
	return s.checkpoint_count;
}

static void commit_many(pheap *h)
{
	for (unsigned i = 0; i < COMMITS && !crowd_is_wrong(); i++) {
		crowd_must(add(h, 0, i), "a commit beside somebody who does not get on");
		if (i % 20 == 19)
			crowd_must(pheap_checkpoint(h), "a checkpoint beside somebody who does not get on");
	}
}

/* Has a transaction open, with a change in it, until it is told to go on. */
static int sits(void *arg)
{
	pheap *h = heap_open(0);
	pheap_tx *tx = crowd_tx(h, PHEAP_CONCURRENT);
	const struct page *p = page_of(tx, 1);
	uint64_t key = 2, *w;

	(void)arg;
	crowd_must(pheap_lock(tx, &key, 1), "pheap_lock");
	w = pheap_modify(tx, &p->words[7], 8);
	if (!w)
		return crowd_wrong("modify: %d", pheap_error(tx));
	*w = 1000;
	crowd_set(&b->ready, 1);
	crowd_await(&b->go, 1);
	w = pheap_modify(tx, &p->words[8], 8);
	if (!w)
		return crowd_wrong("modify after checkpoints: %d", pheap_error(tx));
	*w = 2000;
	crowd_commit(tx);
	crowd_close(h);
	return 0;
}

static void open_transaction(bool stopped)
{
	pheap *h = heap_open(PHEAP_CREATE);
	uint64_t before;
	pid_t pid;

	memset(b, 0, sizeof(*b));
	crowd_must(add(h, 0, 0) | add(h, 1, 0), "the first changes");
	pid = crowd_start(sits, NULL);
	crowd_await(&b->ready, 1);
	if (stopped)
		kill(pid, SIGSTOP);
	before = checkpoints(h);
	commit_many(h);
	ok(checkpoints(h) >= before + COMMITS / 20 && sum(h, "p0") == COMMITS + 1,
	   "%s: %u commits and %llu checkpoints beside a transaction that %s",
	   level == PHEAP_SYNC ? "SYNC" : "EPOCH", COMMITS, (unsigned long long)(checkpoints(h) - before),
	   stopped ? "is stopped" : "stays open");
	if (stopped)
		kill(pid, SIGCONT);
	crowd_set(&b->go, 1);
	crowd_wait(pid);
	ok(sum(h, "p1") == 1 + 1000 + 2000, "and it commits when it goes on: %llu",
	   (unsigned long long)sum(h, "p1"));
	crowd_close(h);
	remove(crowd_path("heap"));
}

/* Commits, and makes checkpoints, until it is killed. */
static _Noreturn int works(void *arg)
{
	pheap *h = heap_open(0);

	(void)arg;
	crowd_set(&b->ready, 1);
	for (unsigned i = 0;; i++) {
		crowd_must(add(h, 1, i), "a commit of a process that is killed soon");
		__atomic_add_fetch(&b->count, 1, __ATOMIC_RELEASE);
		if (i % 5 == 4)
			crowd_must(pheap_checkpoint(h), "a checkpoint of it");
	}
}

/* Killed wherever it happens to be. */
static void killed_anywhere(void)
{
	uint64_t rng = crowd_seed(), told = 1;
	pheap *h = heap_open(PHEAP_CREATE);

	memset(b, 0, sizeof(*b));
	crowd_must(add(h, 0, 0) | add(h, 1, 0), "the first changes");
	for (unsigned round = 0; round < KILLS && !crowd_is_wrong(); round++) {
		pid_t pid;

		b->ready = 0;
		pid = crowd_start(works, NULL);
		crowd_await(&b->ready, 1);
		crowd_nap_us(crowd_below(&rng, 20000));
		crowd_kill(pid);
		for (unsigned i = 0; i < 20; i++, told++)
			crowd_must(add(h, 0, i), "a commit beside one that was killed anywhere");
	}
	ok(sum(h, "p0") == told, "%s: nothing lost beside a process killed %u times",
	   level == PHEAP_SYNC ? "SYNC" : "EPOCH", KILLS);
	/* One that was killed may have committed without having counted it. */
	ok(sum(h, "p1") >= b->count + 1 && sum(h, "p1") <= b->count + 1 + KILLS,
	   "and of its commits none: %llu, %llu counted", (unsigned long long)sum(h, "p1"),
	   (unsigned long long)b->count);
	crowd_close(h);
	remove(crowd_path("heap"));
}

int main(void)
{
	crowd_begin("checkpoints wait for nobody", 170);
	b = crowd_share(sizeof(*b));
	for (int i = 0; i < 2; i++) {
		level = i ? PHEAP_EPOCH : PHEAP_SYNC;
		open_transaction(false);
		open_transaction(true);
		killed_anywhere();
	}
	return crowd_end();
}
