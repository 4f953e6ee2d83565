/* SPDX-License-Identifier: MIT
 *
 * member.c: a process that attaches a heap and does what its arguments say, one word after another. For the
 * tests of the pheap command, which need members that hold, wait, die and leave at a chosen place.
 *
 *	member HEAP WORD...
 *	concurrent, exclusive, read	begin a transaction
 *	lock KEY, share KEY		lock it in the transaction
 *	change				store something in it
 *	commit, abort			end it
 *	block			allocate an object and name it "object"
 *	permits NAME N, take NAME N, give NAME N, lend NAME N	make a semaphore; have permits of it
 *	hold, release			hold the object
 *	spin N				N concurrent transactions, each with a lock and a store; 0: for ever
 *	say TEXT			a line on standard output
 *	sleep				for ever
 *	nap MS				milliseconds
 *	close				close the heap now, not at the end
 *	exit N, signal N, crash		_exit, kill itself, abort
 *
 * With MEMBER_EPHEMERAL set, the heap is one that goes with its last user.
 *
 * Invariants
 *   B1  It dies with its parent, unless MEMBER_ALONE is set, and after two minutes in any case.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "pheap.h"

#define LIFE_S 120

struct counters {
	uint64_t value[64];
};

static struct {
	pheap *h;
	pheap_tx *tx;
	const struct counters *counters;
	char **words;
} self;

static void __attribute__((noreturn)) failed(const char *what, int rc)
{
	fprintf(stderr, "member: %s: %s (%s)\n", what, pheap_strerror(rc), pheap_error_detail(self.h));
	exit(99);
}

static void need(const char *what, int rc)
{
	if (rc)
		failed(what, rc);
}

static const char *argument(void)
{
	if (!self.words[1])
		failed(self.words[0], -EINVAL);
	return *++self.words;
}

static uint64_t number(void)
{
	return strtoull(argument(), NULL, 0);
}

static void change(uint64_t key)
{
	uint64_t *slot = pheap_modify(self.tx, &self.counters->value[key % 64], sizeof *slot);

	if (!slot)
		failed("modify", pheap_error(self.tx));
	(*slot)++;
}

static void lock(uint64_t key, int shared)
{
	need("lock", shared ? pheap_lock_shared(self.tx, &key, 1) : pheap_lock(self.tx, &key, 1));
}

static void spin(uint64_t count)
{
	for (uint64_t i = 0; !count || i < count; i++) {
		need("begin", pheap_begin(self.h, PHEAP_CONCURRENT, &self.tx));
		lock(i, 0);
		change(i);
		need("commit", pheap_commit(self.tx));
	}
}

static void nap(uint64_t ms)
{
	const struct timespec time = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};

	nanosleep(&time, NULL);
}

static void begin(uint32_t flags)
{
	need("begin", pheap_begin(self.h, flags, &self.tx));
}

static void object_make(void)
{
	begin(0);
	need("name", pheap_root_set(self.tx, "object", pheap_zalloc(self.tx, 100, 2)));
	need("commit", pheap_commit(self.tx));
}

static void permits_make(void)
{
	const char *name = argument();
	const pheap_permits *p;

	begin(0);
	p = pheap_permits_new(self.tx, number());
	need("name", pheap_root_set(self.tx, name, p));
	need("commit", pheap_commit(self.tx));
}

static const pheap_permits *permits(void)
{
	return pheap_find(self.h, argument());
}

/* Words of what a member has. 0: not one of them. */
static int resource_word(const char *word)
{
	if (!strcmp(word, "block")) {
		object_make();
	} else if (!strcmp(word, "permits")) {
		permits_make();
	} else if (!strcmp(word, "hold")) {
		need("hold", pheap_hold(self.h, pheap_find(self.h, "object")));
	} else if (!strcmp(word, "release")) {
		need("release", pheap_release(self.h, pheap_find(self.h, "object")));
	} else if (!strcmp(word, "take")) {
		const pheap_permits *p = permits();

		need("take", pheap_permits_take(self.h, p, number(), 0));
	} else if (!strcmp(word, "give")) {
		const pheap_permits *p = permits();

		need("give", pheap_permits_give(self.h, p, number()));
	} else if (!strcmp(word, "lend")) {
		const pheap_permits *p = permits();

		need("lend", pheap_permits_lend(self.h, p, number()));
	} else {
		return 0;
	}
	return 1;
}

/* Words of transactions. 0: not one of them. */
static int transaction_word(const char *word)
{
	if (!strcmp(word, "concurrent"))
		begin(PHEAP_CONCURRENT);
	else if (!strcmp(word, "exclusive"))
		begin(0);
	else if (!strcmp(word, "read"))
		begin(PHEAP_READ);
	else if (!strcmp(word, "lock"))
		lock(number(), 0);
	else if (!strcmp(word, "share"))
		lock(number(), 1);
	else if (!strcmp(word, "change"))
		change(0);
	else if (!strcmp(word, "commit"))
		need("commit", pheap_commit(self.tx));
	else if (!strcmp(word, "abort"))
		pheap_abort(self.tx);
	else if (!strcmp(word, "spin"))
		spin(number());
	else
		return 0;
	return 1;
}

static void leave(void)
{
	need("close", pheap_close(self.h));
	self.h = NULL;
}

static void process_word(const char *word)
{
	if (!strcmp(word, "say")) {
		puts(argument());
		fflush(stdout);
	} else if (!strcmp(word, "sleep")) {
		for (;;)
			pause();
	} else if (!strcmp(word, "nap")) {
		nap(number());
	} else if (!strcmp(word, "close")) {
		leave();
	} else if (!strcmp(word, "exit")) {
		_exit((int)number());
	} else if (!strcmp(word, "signal")) {
		int by = (int)number();

		signal(by, SIG_DFL); /* a sanitizer has handlers */
		kill(getpid(), by);
	} else if (!strcmp(word, "crash")) {
		abort();
	} else {
		failed(word, -EINVAL);
	}
}

int main(int argc, char **argv)
{
	static const struct pheap_type type = {2, 8, 100, "thing", NULL, 0};
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	uint32_t flags = PHEAP_CREATE | (getenv("MEMBER_EPHEMERAL") ? PHEAP_EPHEMERAL : 0);

	opt.types = &type;
	opt.type_count = 1;
	opt.lock_timeout_ms = LIFE_S * 1000;
	if (!getenv("MEMBER_ALONE"))
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(LIFE_S);
	if (argc < 3)
		failed("usage: member HEAP WORD...", -EINVAL);
	/* a heap that is there has what its creator chose */
	opt.durability = access(argv[1], F_OK) ? PHEAP_PROCESS : 0;
	need("open", pheap_open(argv[1], flags, &opt, &self.h));
	self.counters = pheap_find(self.h, "counters");
	if (!self.counters) {
		begin(0);
		self.counters = pheap_root(self.tx, "counters", sizeof *self.counters, 1);
		need("root", pheap_commit(self.tx));
	}
	for (self.words = argv + 2; *self.words; self.words++)
		if (!transaction_word(*self.words) && !resource_word(*self.words))
			process_word(*self.words);
	if (self.h)
		leave();
	return 0;
}
