/* SPDX-License-Identifier: MIT
 *
 * pain_defer_copy.c: all is prepared in local memory, then copied under a lock with signals blocked.
 *
 * The pain: that makes the dangerous stretch short, not safe: SIGKILL is not blocked by anything, and a copy
 * is many stores. Shown first.
 * The answer: pheap_defer: the copy is made at commit, from the log, and whoever comes next finishes it.
 * Shown for a death after every store of the commit, for several sizes and places, and for a reader that has
 * no lock at all and follows a word published by pheap_defer_u64.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crowd.h"
#include "steps.h"

#define BUFFER_SIZE 12288u
#define BUFFERS 2u

struct page {
	uint64_t active; /* version << 1 | index of the buffer that holds it */
	unsigned char bytes[BUFFERS][BUFFER_SIZE];
};
PHEAP_DECLARE(struct page, 3);

/* Where the copy goes, and how many deaths there are from one to the next. */
struct shape {
	size_t off, size;
	uint64_t stride;
};

static const struct shape shapes[] = {{0, 8, 1}, {3, 520, 1}, {4088, 1024, 1}, {5, 9000, 397}};

struct job {
	struct shape shape;
	uint64_t version, k;
	bool publish;
};

static pheap *heap; /* of the first process, which looks after each death */
static uint32_t *reader_stop, *reader_looks;

static unsigned char byte_of(uint64_t version, size_t i)
{
	return (unsigned char)(version * 131 + i * 7 + i / 251);
}

static void fill(unsigned char *bytes, size_t n, uint64_t version)
{
	for (size_t i = 0; i < n; i++)
		bytes[i] = byte_of(version, i);
}

static bool holds(const unsigned char *bytes, size_t n, uint64_t version)
{
	for (size_t i = 0; i < n; i++)
		if (bytes[i] != byte_of(version, i))
			return false;
	return true;
}

/* --- the old way --- */

static unsigned char *old_bytes;

static int old_victim(void *arg)
{
	const struct job *job = arg;
	unsigned char local[520];
	sigset_t all;

	fill(local, sizeof(local), job->version);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	/* the trap of the counter must get through */
	sigemptyset(&all);
	sigaddset(&all, SIGSEGV);
	sigaddset(&all, SIGTRAP);
	sigprocmask(SIG_UNBLOCK, &all, NULL);
	steps_arm(old_bytes, 4096, job->k);
	for (size_t i = 0; i < sizeof(local); i += 8)
		*(volatile uint64_t *)(void *)(old_bytes + i) = *(uint64_t *)(void *)(local + i);
	steps_disarm();
	return 0;
}

static void old_show(void)
{
	struct job job = {.version = 2, .k = 0};
	unsigned deaths = 0, torn = 0;

	old_bytes = crowd_share(4096);
	do {
		fill(old_bytes, 520, 1);
		job.k++;
		if (crowd_run(old_victim, &job) != CROWD_KILLED)
			break;
		deaths++;
		torn += !holds(old_bytes, 520, 1) && !holds(old_bytes, 520, 2);
	} while (deaths < 1000);
	ok(torn > 10, "old way, copy with signals blocked: %u of %u deaths left half a copy", torn, deaths);
}

/* --- ours --- */

static int victim_main(void *arg)
{
	const struct job *job = arg;
	pheap *h = crowd_open(crowd_path("page"), 0, NULL);
	const struct page *page = pheap_find(h, "page");
	unsigned char *local = malloc(BUFFER_SIZE);
	unsigned buffer = job->publish ? !(page->active & 1) : 0;
	pheap_tx *tx;

	if (!local)
		return 1;
	fill(local, job->shape.size, job->version);
	tx = crowd_tx(h, 0);
	steps_arm_heap(h, job->k);
	(void)pheap_defer(tx, page->bytes[buffer] + job->shape.off, local, job->shape.size);
	if (job->publish)
		(void)pheap_defer_u64(tx, &page->active, job->version << 1 | buffer);
	crowd_commit(tx);
	steps_disarm();
	free(local);
	crowd_close(h);
	return 0;
}

/* After a death: the version that is there as a whole. */
static uint64_t version_seen(const struct job *job, uint64_t before)
{
	const struct page *page = pheap_find(heap, "page");
	const unsigned char *bytes = page->bytes[job->publish ? page->active & 1 : 0] + job->shape.off;
	pheap_tx *tx = crowd_tx(heap, PHEAP_READ);
	uint64_t seen = 0;

	if (job->publish)
		bytes = page->bytes[page->active & 1] + job->shape.off;
	if (holds(bytes, job->shape.size, before))
		seen = before;
	else if (holds(bytes, job->shape.size, job->version))
		seen = job->version;
	else
		crowd_wrong("killed after store %llu of a copy of %zu bytes: half of it is there",
			    (unsigned long long)job->k, job->shape.size);
	if (job->publish && page->active >> 1 != seen)
		crowd_wrong("version %llu is published, %llu is there",
			    (unsigned long long)(page->active >> 1), (unsigned long long)seen);
	crowd_commit(tx);
	return seen;
}

static void store_whole(const struct shape *shape, uint64_t version)
{
	const struct page *page = pheap_find(heap, "page");
	pheap_tx *tx = crowd_tx(heap, 0);
	unsigned char *p = pheap_modify(tx, page->bytes, sizeof(page->bytes));

	if (p)
		fill(p + shape->off, shape->size, version);
	(void)pheap_defer_u64(tx, &page->active, version << 1);
	crowd_commit(tx);
}

static void shape_sweep(const struct shape *shape, bool publish)
{
	struct job job = {.shape = *shape, .k = 1, .publish = publish};
	unsigned deaths = 0, undone = 0;
	uint64_t before = 1;
	int end;

	store_whole(shape, 1);
	for (;;) {
		job.version = before + 1;
		end = crowd_run(victim_main, &job);
		if (end != CROWD_KILLED)
			break;
		deaths++;
		undone += version_seen(&job, before) == before;
		if (crowd_is_wrong())
			break;
		before += version_seen(&job, before) != before;
		job.k += shape->stride;
	}
	ok(end == 0 && version_seen(&job, before) == job.version && undone && deaths > undone,
	   "heap, %s%zu bytes: of %u deaths in the copy %u were undone and %u completed, none half",
	   publish ? "published, " : "", shape->size, deaths, undone, deaths - undone);
}

/* Follows the published word without any lock, all the time. */
static int reader_main(void *arg)
{
	const struct shape *shape = arg;
	pheap *h = crowd_open(crowd_path("page"), 0, NULL);
	const struct page *page = pheap_find(h, "page");
	static unsigned char copy[BUFFER_SIZE];
	uint64_t last = 0;

	while (!__atomic_load_n(reader_stop, __ATOMIC_ACQUIRE)) {
		uint64_t active = __atomic_load_n(&page->active, __ATOMIC_ACQUIRE);

		memcpy(copy, page->bytes[active & 1] + shape->off, shape->size);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (__atomic_load_n(&page->active, __ATOMIC_ACQUIRE) != active || active >> 1 < 2)
			continue; /* the next copy may have come already; 1 is made without care for us */
		if (!holds(copy, shape->size, active >> 1))
			return crowd_wrong("the reader sees version %llu in parts",
					   (unsigned long long)(active >> 1));
		if (active >> 1 < last)
			return crowd_wrong("the reader sees version %llu after %llu",
					   (unsigned long long)(active >> 1), (unsigned long long)last);
		last = active >> 1;
		crowd_add(reader_looks);
	}
	crowd_close(h);
	return 0;
}

static void publish_sweep(void)
{
	struct shape shape = {5, 600, 1};
	pid_t reader;

	store_whole(&shape, 1);
	reader = crowd_start(reader_main, &shape);
	shape_sweep(&shape, true);
	__atomic_store_n(reader_stop, 1, __ATOMIC_RELEASE);
	ok(crowd_wait(reader) == 0 && *reader_looks, "a reader without a lock never saw half a version");
	note("%u looks", *reader_looks);
}

int main(void)
{
	pheap_tx *tx;

	crowd_begin("prepared in local memory, then copied", 120);
	if (!steps_possible()) {
		skip("all", "no trap flag on this processor");
		return crowd_end();
	}
	old_show();
	reader_stop = crowd_share(2 * sizeof(uint32_t));
	reader_looks = reader_stop + 1;
	heap = crowd_open(crowd_path("page"), PHEAP_CREATE, NULL);
	tx = crowd_tx(heap, 0);
	(void)!PHEAP_ROOT(tx, "page", struct page);
	crowd_commit(tx);
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		shape_sweep(&shapes[i], false);
	publish_sweep();
	crowd_close(heap);
	return crowd_end();
}
