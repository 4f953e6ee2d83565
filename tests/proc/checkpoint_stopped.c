/* SPDX-License-Identifier: MIT
 *
 * checkpoint_stopped.c: a process that is stopped at any of its syncs, with the words `flush` and `checkpoint` its own, stops
 * nobody, and does no harm when it goes on.
 *
 * What: a process commits, makes a checkpoint, and commits again. It stops before, or behind, one of the calls that make
 * something durable: the flushes of images, of a switch, of a commit, the syncs of the heap and of the checkpoint's words.
 * Meanwhile another one commits several times what the journal holds, which takes checkpoints of its own. Then the first goes
 * on, and both see what both have done.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "crowd.h"
#include "os.h"

#define WORDS 512u
#define JOURNAL (32u << 10)
#define COMMITS 120u
#define CHANGES 3u /* of the process that is stopped */

struct page {
	uint64_t words[WORDS];
};

static uint32_t level;
static unsigned stop_at, calls;
static struct ph_os os;

/* ---- stopping ---- */

static void stop_if(unsigned call)
{
	if (call == stop_at)
		(void)raise(SIGSTOP);
}

static int write_sync(int fd, const void *buf, size_t n, uint64_t off)
{
	unsigned call = calls;
	int rc;

	calls += 2;
	stop_if(call);
	rc = ph_os_linux.file_write_sync(fd, buf, n, off);
	stop_if(call + 1);
	return rc;
}

static int map_sync(void *address, size_t n)
{
	unsigned call = calls;
	int rc;

	calls += 2;
	stop_if(call);
	rc = ph_os_linux.map_sync(address, n);
	stop_if(call + 1);
	return rc;
}

/* ---- the heap ---- */

static pheap *heap_open(uint32_t flags)
{
	struct pheap_options opt = crowd_options();

	opt.durability = level;
	opt.journal_size = JOURNAL;
	opt.epoch_ms = 60000;
	return crowd_open(crowd_path("heap"), flags, &opt);
}

static void add(pheap *h, unsigned who, unsigned at)
{
	pheap_tx *tx = crowd_tx(h, PHEAP_CONCURRENT);
	uint64_t key = who + 1, *w = NULL;
	const struct page *p;
	char name[8];

	snprintf(name, sizeof(name), "p%u", who);
	p = pheap_root(tx, name, sizeof(struct page), 1);
	if (p && pheap_lock(tx, &key, 1) == 0)
		w = pheap_modify(tx, &p->words[at % WORDS], 8);
	if (w)
		*w += 1;
	crowd_must(w ? 0 : pheap_error(tx), "a change");
	crowd_commit(tx);
}

static uint64_t sum(pheap *h, const char *name)
{
	const struct page *p = pheap_find(h, name);
	uint64_t total = 0;

	for (unsigned i = 0; p && i < WORDS; i++)
		total += p->words[i];
	return total;
}

static int victim(void *arg)
{
	pheap *h = heap_open(0);

	(void)arg;
	os = ph_os_linux;
	os.file_write_sync = write_sync;
	os.map_sync = map_sync;
	ph_os = &os;
	add(h, 1, 0);
	crowd_must(pheap_checkpoint(h), "a checkpoint of one that is stopped in it");
	for (unsigned i = 1; i < CHANGES; i++)
		add(h, 1, i);
	crowd_must(pheap_checkpoint(h), "a checkpoint after that");
	crowd_close(h);
	return 0;
}

/* False: it made no such call. */
static bool stopped_at(pheap *h, unsigned at)
{
	int status = 0;
	pid_t pid;
	bool stopped;

	stop_at = at;
	pid = crowd_start(victim, NULL);
	(void)waitpid(pid, &status, WUNTRACED);
	stopped = WIFSTOPPED(status);
	if (!stopped) {
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			crowd_wrong("the one that was not stopped ended with %#x", (unsigned)status);
		return false;
	}
	for (unsigned i = 0; i < COMMITS && !crowd_is_wrong(); i++)
		add(h, 0, i * 61);
	crowd_must(pheap_checkpoint(h), "a checkpoint beside one that is stopped");
	kill(pid, SIGCONT);
	if (crowd_wait(pid))
		crowd_wrong("the one that was stopped at call %u ended badly", at);
	return true;
}

static void stop_everywhere(void)
{
	pheap *h = heap_open(PHEAP_CREATE);
	unsigned at = 0;

	for (unsigned who = 0; who < 2; who++)
		add(h, who, 0);
	while (!crowd_is_wrong() && stopped_at(h, at))
		at++;
	ok(at > 10 && sum(h, "p0") == 1 + (uint64_t)COMMITS * at &&
		   sum(h, "p1") == 1 + (uint64_t)CHANGES * (at + 1),
	   "%s: stopped before and behind each of %u syncs: %llu and %llu changes, none lost",
	   level == PHEAP_SYNC ? "SYNC" : "EPOCH", at / 2, (unsigned long long)sum(h, "p0"),
	   (unsigned long long)sum(h, "p1"));
	crowd_close(h);
	h = heap_open(0);
	ok(sum(h, "p0") == 1 + (uint64_t)COMMITS * at, "and none when it is opened again");
	crowd_close(h);
	remove(crowd_path("heap"));
}

int main(void)
{
	crowd_begin("a process stopped in its syncs stops nobody", 170);
	level = PHEAP_SYNC;
	stop_everywhere();
	level = PHEAP_EPOCH;
	stop_everywhere();
	return crowd_end();
}
