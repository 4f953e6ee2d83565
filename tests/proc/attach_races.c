/* SPDX-License-Identifier: MIT
 *
 * attach_races.c: a hundred thousand attaches, with kills, forks and double opens among them; and files that
 * are not what they say.
 *
 * What is checked of each attach: its number was never given before in the life of the file; the heap is
 * whole; no lane and no slot is lost. The races run twice: beside a process that stays, where attaching is a
 * few system calls, and without one, where each is the first or the last as it happens. Then, step by step:
 * another boot id, an unknown one, copies of a heap in use and of a closed one.
 * Why the library's core and not the installed one: the boot id comes from os.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crowd.h"
#include "edges.h"
#include "os.h"

#define WORKERS 4u
#define ATTACHES 100000u
#define ATTACHES_ALONE 10000u
#define NUMBERS (1u << 20)

struct ledger {
	uint64_t sum, entries;
};
PHEAP_DECLARE(struct ledger, 3);

struct meeting {
	uint32_t stop, at, go;
	uint64_t attaches, forks, doubles, refusals, number_max;
	uint64_t numbers[NUMBERS / 64];
};

static struct meeting *m;

static struct pheap_options small(void)
{
	struct pheap_options opt = crowd_options();

	opt.initial_size = 256u << 10;
	opt.max_size = 1u << 20;
	opt.member_count = WORKERS + 4;
	opt.lane_count = 4 * (WORKERS + 4);
	return opt;
}

/* --- one attach --- */

static void number_check(uint64_t number)
{
	uint64_t bit = 1ull << number % 64;

	if (number == 0 || number >= NUMBERS) {
		crowd_wrong("member number %llu", (unsigned long long)number);
		return;
	}
	if (__atomic_fetch_or(&m->numbers[number / 64], bit, __ATOMIC_SEQ_CST) & bit)
		crowd_wrong("member number %llu was given twice", (unsigned long long)number);
}

/* The two halves of the ledger belong together. */
static void entry_make(pheap *h)
{
	pheap_tx *tx = crowd_tx(h, 0);
	const struct ledger *l = PHEAP_ROOT(tx, "ledger", struct ledger);
	struct ledger *now = l ? PHEAP_MODIFY(tx, l) : NULL;

	if (now) {
		if (now->sum != now->entries * 3)
			crowd_wrong("the ledger is half changed");
		now->sum += 3;
		now->entries++;
	}
	crowd_commit(tx);
}

static pheap *enter(void)
{
	struct pheap_options opt = small();

	return crowd_open(crowd_path("heap"), 0, &opt);
}

/* A child that inherits the handle and attaches itself. */
static int forked_main(void *arg)
{
	pheap *h = arg, *mine;

	if (pheap_begin(h, 0, &(pheap_tx *){NULL}) != PHEAP_EFORKED)
		return crowd_wrong("the handle of the parent works in the child");
	mine = enter();
	number_check(pheap_member(mine));
	crowd_close(mine);
	crowd_close(h);
	return 0;
}

static void *other_thread(void *arg)
{
	pheap *h = enter();

	if (h != arg)
		crowd_wrong("a second open in one process gives another handle");
	crowd_close(h);
	return NULL;
}

/* The same file again: by this thread and by another one, and closed in any order. */
static void open_twice(pheap *h)
{
	pthread_t thread;
	pheap *again = enter();

	if (again != h)
		crowd_wrong("a second open gives another handle");
	if (pthread_create(&thread, NULL, other_thread, h))
		crowd_wrong("no thread");
	crowd_close(again);
	pthread_join(thread, NULL);
	__atomic_fetch_add(&m->doubles, 1, __ATOMIC_RELAXED);
}

static _Noreturn void attach_for_ever(void)
{
	uint64_t rng = crowd_seed() ^ (uint64_t)getpid() << 20;

	while (!__atomic_load_n(&m->stop, __ATOMIC_ACQUIRE) && !crowd_is_wrong()) {
		pheap *h = enter();

		number_check(pheap_member(h));
		switch (crowd_below(&rng, 512)) {
		case 0:
			(void)crowd_run(forked_main, h);
			__atomic_fetch_add(&m->forks, 1, __ATOMIC_RELAXED);
			break;
		case 1:
		case 2:
			open_twice(h);
			break;
		default:
			if (crowd_below(&rng, 8) == 0)
				entry_make(h);
		}
		crowd_close(h);
		__atomic_fetch_add(&m->attaches, 1, __ATOMIC_RELAXED);
	}
	_exit(0);
}

static int worker_main(void *arg)
{
	(void)arg;
	attach_for_ever();
}

/* --- races --- */

/* By attaches and not by time, so that a loaded machine does the same. */
static void nap_attaches(uint64_t n)
{
	uint64_t until = __atomic_load_n(&m->attaches, __ATOMIC_RELAXED) + n;

	while (__atomic_load_n(&m->attaches, __ATOMIC_RELAXED) < until && !crowd_is_wrong())
		crowd_nap_us(200);
}

static void races(bool alone, uint64_t attaches)
{
	struct pheap_options opt = small();
	uint64_t rng = crowd_seed(), deaths = 0;
	struct pheap_stats stats;
	pid_t pids[WORKERS];
	pheap *h;

	memset(m, 0, sizeof(*m));
	(void)unlink(crowd_path("heap"));
	h = crowd_open(crowd_path("heap"), PHEAP_CREATE, &opt);
	number_check(pheap_member(h));
	entry_make(h);
	if (alone)
		crowd_close(h);
	for (unsigned i = 0; i < WORKERS; i++)
		pids[i] = crowd_start(worker_main, NULL);
	while (m->attaches < attaches && !crowd_is_wrong()) {
		unsigned from = (unsigned)crowd_below(&rng, WORKERS), to = from + 1;

		nap_attaches(crowd_below(&rng, alone ? 40 : 300));
		if (alone && crowd_below(&rng, 8) == 0) {
			from = 0; /* all of them: the next one is first */
			to = WORKERS;
		}
		for (unsigned i = from; i < to; i++)
			(void)kill(pids[i], SIGKILL);
		for (unsigned i = from; i < to; i++) {
			deaths += crowd_wait(pids[i]) == CROWD_KILLED;
			pids[i] = crowd_start(worker_main, NULL);
		}
	}
	__atomic_store_n(&m->stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < WORKERS; i++)
		if (crowd_wait(pids[i]))
			crowd_wrong("a worker did not end well");
	if (alone) {
		h = enter();
		number_check(pheap_member(h));
	}
	entry_make(h);
	crowd_must(pheap_recover(h, NULL), "pheap_recover");
	crowd_must(pheap_stats(h, &stats, sizeof(stats)), "pheap_stats");
	ok(m->attaches >= attaches && stats.member_count == 1 && stats.lane_count <= 2,
	   "%llu attaches %s, %llu kills: no number twice, nothing lost", (unsigned long long)m->attaches,
	   alone ? "with nobody who stays" : "beside one that stays", (unsigned long long)deaths);
	note("%llu forks, %llu double opens", (unsigned long long)m->forks, (unsigned long long)m->doubles);
	crowd_close(h);
}

/* --- identity --- */

static const struct ph_os *os_before;
static uint8_t boot_byte;
static int boot_rc;

static int other_boot(uint8_t ret[16])
{
	memset(ret, boot_rc ? 0 : boot_byte, 16);
	return boot_rc;
}

struct visit {
	const char *name;
	uint8_t boot; /* 0: as it is */
	int boot_rc;
	int rc; /* of pheap_open */
};

static int visit_main(void *arg)
{
	static struct ph_os os;
	struct visit *v = arg;
	pheap *h = NULL;

	os_before = ph_os;
	os = *os_before;
	boot_byte = v->boot;
	boot_rc = v->boot_rc;
	if (v->boot || v->boot_rc)
		os.boot_id = other_boot;
	ph_os = &os;
	v->rc = pheap_open(crowd_path(v->name), 0, NULL, &h);
	if (h)
		crowd_close(h);
	return 0;
}

/* What another process gets that opens the file: as it is, or on a machine of another boot. */
static int visit(const char *name, uint8_t boot, int rc)
{
	struct visit *v = crowd_share(sizeof(*v));

	*v = (struct visit){name, boot, rc, 1};
	if (crowd_run(visit_main, v))
		crowd_wrong("a visitor did not end well");
	return v->rc;
}

static void copy(const char *from, const char *to)
{
	static char buffer[1u << 16];
	int in = open(crowd_path(from), O_RDONLY | O_CLOEXEC);
	int out = open(crowd_path(to), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ssize_t n;

	while (in >= 0 && out >= 0 && (n = read(in, buffer, sizeof(buffer))) > 0)
		if (write(out, buffer, (size_t)n) != n)
			crowd_wrong("copying");
	if (in < 0 || out < 0)
		crowd_wrong("copying");
	(void)close(in);
	(void)close(out);
}

static int leaves_it_open(void *arg)
{
	pheap *h = crowd_open(crowd_path(arg), 0, NULL);

	entry_make(h);
	(void)raise(SIGKILL);
	return 0;
}

static void identities(void)
{
	struct pheap_options opt = small();
	pheap *h, *second;

	(void)unlink(crowd_path("heap"));
	h = crowd_open(crowd_path("heap"), PHEAP_CREATE, &opt);
	entry_make(h);
	ok(visit("heap", 0, 0) == 0 && visit("heap", 77, 0) == PHEAP_EREBOOT &&
		   visit("heap", 0, -EACCES) == PHEAP_EREBOOT,
	   "in use: joined in this boot, refused in another or an unknown one");
	copy("heap", "copy");
	ok(visit("copy", 0, 0) == PHEAP_EREBOOT && visit("copy", 77, 0) == PHEAP_EREBOOT,
	   "a copy that was taken while it was in use is refused");
	entry_make(h);
	crowd_close(h);
	ok(visit("heap", 77, 0) == 0 && visit("heap", 0, -EACCES) == 0 && visit("heap", 0, 0) == 0,
	   "closed: opened in any boot");
	copy("heap", "copy");
	h = crowd_open(crowd_path("heap"), 0, NULL);
	second = crowd_open(crowd_path("copy"), 0, NULL);
	entry_make(h);
	entry_make(second);
	ok(h != second, "a copy of a closed heap is a heap of its own");
	crowd_close(second);
	crowd_close(h);
	(void)crowd_run(leaves_it_open, (void *)(uintptr_t) "heap");
	ok(visit("heap", 77, 0) == PHEAP_EREBOOT && visit("heap", 0, -EACCES) == PHEAP_EREBOOT &&
		   visit("heap", 0, 0) == 0 && visit("heap", 77, 0) == 0,
	   "all killed: recovered in this boot, refused in another one, closed afterwards");
}

/* --- two first openers, one of whom is killed or stopped at each edge --- */

static uint64_t first_k;

static void first_stops(void)
{
	crowd_set(&m->at, 1);
	(void)raise(SIGSTOP);
}

static int first_main(void *arg)
{
	pheap *h;

	edges_arm(first_k, *(bool *)arg ? first_stops : edges_die);
	h = enter();
	edges_arm(0, edges_die);
	entry_make(h);
	crowd_add(&m->go);
	crowd_close(h);
	return 0;
}

/* The first opener of a heap that nobody has is held up at edge k; another one opens it meanwhile. */
static bool first_held_up(bool stops, uint64_t k)
{
	uint64_t before;
	bool reached;
	pid_t first;
	pheap *h;

	memset(m, 0, sizeof(*m));
	h = enter();
	before = ((const struct ledger *)pheap_find(h, "ledger"))->entries;
	crowd_close(h);
	if (k % 2) /* half of them find it as somebody left it who was killed */
		(void)crowd_run(leaves_it_open, (void *)(uintptr_t) "heap");
	first_k = k;
	first = crowd_start(first_main, &stops);
	while (!m->at && !m->go && waitpid(first, NULL, WNOHANG | WUNTRACED) == 0)
		crowd_nap_us(50);
	reached = !m->go;
	if (stops && reached) { /* goes on by itself a while after the other one has begun to open */
		pid_t pid = crowd_start(leaves_it_open, (void *)(uintptr_t) "heap");

		crowd_nap_us(3000);
		(void)kill(first, SIGCONT);
		(void)crowd_wait(pid);
		if (crowd_wait(first))
			crowd_wrong("the first opener did not end well");
	} else if (reached) {
		(void)crowd_run(leaves_it_open, (void *)(uintptr_t) "heap");
	} else {
		(void)crowd_wait(first);
	}
	h = enter();
	entry_make(h);
	before += (k % 2) + (reached ? 1 : 0) + (stops || !reached ? 1 : 0) + 1;
	if (((const struct ledger *)pheap_find(h, "ledger"))->entries != before)
		crowd_wrong("held up at edge %llu: an entry is missing", (unsigned long long)k);
	crowd_close(h);
	return reached;
}

static void first_openers(bool stops)
{
	uint64_t k = 1;

	while (!crowd_is_wrong() && first_held_up(stops, k))
		k++;
	ok(k > 20, "the first opener is %s at each of %llu edges, another one opens",
	   stops ? "stopped" : "killed", (unsigned long long)k - 1);
}

int main(void)
{
	crowd_begin("attach races", 170);
	m = crowd_share(sizeof(*m));
	identities();
	first_openers(false);
	first_openers(true);
	races(true, ATTACHES_ALONE);
	races(false, ATTACHES);
	return crowd_end();
}
