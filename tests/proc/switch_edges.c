/* SPDX-License-Identifier: MIT
 *
 * switch_edges.c: one process stands still where a checkpoint begins, and another one acts just there.
 *
 * What: the first is about to copy what is under way; a transaction that was open by then (EPOCH) must not commit: who depends on
 * it could be copied as committed, and it as open. Or the first has the copies in the log, but not on the disk. The second
 *   - commits such a transaction: its changes are undone in that checkpoint, so it must not be told that they
 *     are durable when that is over, but when the next one is;
 *   - makes a checkpoint: it completes the first one's, and must write the copies before it says that the checkpoint is there;
 *   - changes a page that has its image, of before that checkpoint: nothing would take the change back after a power cut.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crowd.h"
#include "os.h"

struct board {
	uint32_t ready, go, has_page, may_change, has_changed;
	bool copies; /* stands still before the copies, not behind them */
};

static struct board *b;
static struct ph_os os;
static unsigned writes, early;
static const char *base;

static pheap *heap_open(uint32_t flags, uint32_t level)
{
	struct pheap_options opt = crowd_options();

	opt.durability = level;
	opt.epoch_ms = 3600000;
	opt.lock_timeout_ms = 500;
	return crowd_open(crowd_path("heap"), flags, &opt);
}

static void change(pheap_tx *tx, uint64_t to)
{
	const uint64_t *p = pheap_root(tx, "value", 8, 1);
	uint64_t *w = p ? pheap_modify(tx, p, 8) : NULL;

	crowd_must(w ? 0 : pheap_error(tx), "a change");
	if (w)
		*w = to;
}

static void commit(pheap *h, uint64_t to)
{
	pheap_tx *tx = crowd_tx(h, 0);

	change(tx, to);
	crowd_commit(tx);
}

/* ---- the one that stands still ---- */

static int write_stopped(int fd, const void *buf, size_t n, uint64_t off)
{
	(void)raise(SIGSTOP);
	os.file_write_sync = ph_os_linux.file_write_sync;
	return ph_os_linux.file_write_sync(fd, buf, n, off);
}

/* Of all members; the epoch is odd by then. */
static void fence_stopped(void)
{
	ph_os_linux.fence_all();
	os.fence_all = ph_os_linux.fence_all;
	(void)raise(SIGSTOP);
}

/* Its first write is the flush of the switch. */
static int stands(void *arg)
{
	pheap *h = heap_open(0, 0);

	(void)arg;
	crowd_set(&b->ready, 1);
	crowd_await(&b->go, 1);
	os = ph_os_linux;
	if (b->copies)
		os.fence_all = fence_stopped;
	else
		os.file_write_sync = write_stopped;
	ph_os = &os;
	crowd_must(pheap_checkpoint(h), "the checkpoint of the one that stood still");
	crowd_close(h);
	return 0;
}

static pid_t stands_start(bool copies)
{
	pid_t pid;

	memset(b, 0, sizeof(*b));
	b->copies = copies;
	pid = crowd_start(stands, NULL);
	crowd_await(&b->ready, 1);
	return pid;
}

/* False: it did not stop. */
static bool stands_stop(pid_t pid)
{
	int status = 0;

	crowd_set(&b->go, 1);
	return waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status);
}

/* ---- what the other one does ---- */

static void commit_before(void)
{
	pheap *h = heap_open(PHEAP_CREATE, PHEAP_EPOCH);
	pheap_tx *tx;
	pid_t pid;
	int rc;

	commit(h, 1);
	pid = stands_start(true);
	tx = crowd_tx(h, 0);
	change(tx, 2);
	if (stands_stop(pid)) {
		rc = pheap_commit(tx);
		ok(rc == -ETIMEDOUT, "no commit while a checkpoint copies what is under way: %d", rc);
		kill(pid, SIGCONT);
		crowd_wait(pid);
		commit(h, 3);
		ok(*(const uint64_t *)pheap_find(h, "value") == 3, "and then the next");
	} else {
		pheap_abort(tx);
		skip("a commit while a checkpoint copies", "there is no membarrier here: nothing to stop in");
	}
	crowd_close(h);
	remove(crowd_path("heap"));
}

static void commit_between(void)
{
	pheap *h = heap_open(PHEAP_CREATE, PHEAP_EPOCH);
	uint64_t lsn = 0;
	int rc;
	pheap_tx *tx;
	pid_t pid;

	commit(h, 1);
	pid = stands_start(false);
	tx = crowd_tx(h, 0);
	change(tx, 2);
	if (!stands_stop(pid))
		crowd_wrong("it did not stop in its flush");
	crowd_must(pheap_commit_async(tx, &lsn), "a commit while a checkpoint begins");
	kill(pid, SIGCONT);
	crowd_wait(pid);
	rc = pheap_wait(h, lsn, 0);
	ok(rc == -EAGAIN, "a commit after its undo was copied is not in that checkpoint: %d", rc);
	crowd_must(pheap_checkpoint(h), "pheap_checkpoint");
	rc = pheap_wait(h, lsn, 0);
	ok(rc == 0, "but in the next: %d", rc);
	crowd_close(h);
	remove(crowd_path("heap"));
}

static int write_counted(int fd, const void *buf, size_t n, uint64_t off)
{
	writes++;
	return ph_os_linux.file_write_sync(fd, buf, n, off);
}

/* The first pages of the file say from where the log is needed. */
static int map_sync_seen(void *address, size_t n)
{
	early += (const char *)address < base + 8192 && writes == 0;
	return ph_os_linux.map_sync(address, n);
}

static void checkpoint_between(uint32_t level)
{
	pheap *h = heap_open(PHEAP_CREATE, level);
	struct pheap_info info;
	pid_t pid;

	commit(h, 1);
	crowd_must(pheap_info(h, &info, sizeof(info)), "pheap_info");
	base = info.base;
	pid = stands_start(false);
	if (!stands_stop(pid))
		crowd_wrong("it did not stop in its flush");
	writes = early = 0;
	os = ph_os_linux;
	os.file_write_sync = write_counted;
	os.map_sync = map_sync_seen;
	ph_os = &os;
	crowd_must(pheap_checkpoint(h), "a checkpoint beside one that stands still");
	ph_os = &ph_os_linux;
	ok(writes > 0 && early == 0,
	   "%s: it writes the other one's copies, and then says that the checkpoint is there",
	   level == PHEAP_SYNC ? "SYNC" : "EPOCH");
	kill(pid, SIGCONT);
	crowd_wait(pid);
	crowd_close(h);
	remove(crowd_path("heap"));
}

static int changes(void *arg)
{
	pheap *h = heap_open(0, 0);
	const uint64_t *p;
	uint64_t *w;
	pheap_tx *tx;

	(void)arg;
	commit(h, 1);
	p = pheap_find(h, "value");
	crowd_set(&b->has_page, 1);
	crowd_await(&b->may_change, 1);
	tx = crowd_tx(h, 0);
	w = pheap_modify(tx, p, 8);
	crowd_must(w ? 0 : pheap_error(tx), "a change while a checkpoint begins");
	if (w)
		*w = 2;
	crowd_set(&b->has_changed, 1);
	(void)pause();
	return 0;
}

static int boot_id_other(uint8_t ret[16])
{
	memset(ret, 0x5a, 16);
	return 0;
}

/* Everything has reached the disk when the machine goes down, the change too, which was never committed. */
static void change_between(void)
{
	pheap *h = heap_open(PHEAP_CREATE, PHEAP_EPOCH);
	pid_t stopped, other;

	commit(h, 0);
	stopped = stands_start(false);
	other = crowd_start(changes, NULL);
	crowd_await(&b->has_page, 1);
	crowd_close(h);
	if (!stands_stop(stopped))
		crowd_wrong("it did not stop in its flush");
	crowd_set(&b->may_change, 1);
	crowd_await(&b->has_changed, 1);
	kill(stopped, SIGCONT);
	crowd_wait(stopped);
	crowd_kill(other);
	os = ph_os_linux;
	os.boot_id = boot_id_other;
	ph_os = &os;
	h = heap_open(0, 0);
	ok(*(const uint64_t *)pheap_find(h, "value") == 1,
	   "a change while a checkpoint begins is not there after a cut");
	crowd_close(h);
	ph_os = &ph_os_linux;
	remove(crowd_path("heap"));
}

int main(void)
{
	crowd_begin("in the middle of a switch of epochs", 60);
	b = crowd_share(sizeof(*b));
	commit_before();
	commit_between();
	change_between();
	checkpoint_between(PHEAP_SYNC);
	checkpoint_between(PHEAP_EPOCH);
	return crowd_end();
}
