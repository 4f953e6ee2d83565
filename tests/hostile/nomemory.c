/* SPDX-License-Identifier: MIT
 *
 * nomemory.c: each allocation of the process's memory fails once, in every call.
 *
 * What: a scenario runs with its first, second, ... allocation failing until it runs through. Linked
 * with wrapped malloc, calloc, realloc and free, so only what the library asks for counts.
 *
 * Invariants
 *   M1  A call that could not get memory says -ENOMEM (or did without); the heap is then as it was
 *       before the transaction.
 *   M2  The same handle works right afterwards, and so does the file when it is opened again.
 *   M3  Nothing is left behind: what was allocated after a warm-up has been freed when the heap is closed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drive.h"
#include "fake.h"
#include "keeper.h"

#define TRIES_MAX 400

void *__real_malloc(size_t n);
void *__real_calloc(size_t count, size_t n);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t count, size_t n);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);

static bool armed;
static long until;   /* allocations until one fails */
static bool hit;     /* it has */
static long balance; /* blocks allocated and not freed */
static int passed, failed;

static bool fails(void)
{
	if (!armed || until-- != 0)
		return false;
	hit = true;
	return true;
}

static void *counted(void *p)
{
	balance += p != NULL;
	return p;
}

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : counted(__real_malloc(n));
}

void *__wrap_calloc(size_t count, size_t n)
{
	return fails() ? NULL : counted(__real_calloc(count, n));
}

void *__wrap_realloc(void *p, size_t n)
{
	void *moved = fails() ? NULL : __real_realloc(p, n);

	balance += moved && !p;
	return moved;
}

void __wrap_free(void *p)
{
	balance -= p != NULL;
	__real_free(p);
}

static void expect(bool good, const char *scenario, long n, const char *what)
{
	passed += good;
	failed += !good;
	if (!good)
		printf("FAILED: %s, allocation %ld: %s (%s)\n", scenario, n, what, pheap_error_detail(NULL));
}

/* ---- scenarios: one transaction each ---- */

static const void *nth(pheap *h, uint32_t type, int n)
{
	const void *p = NULL;

	do
		p = pheap_next(h, type, p);
	while (p && n--);
	return p;
}

static int tx_alloc(pheap_tx *tx, pheap *h)
{
	(void)h;
	for (size_t i = 1; i < 30; i++)
		if (!pheap_zalloc(tx, i * 40, (uint32_t)i % 3))
			return pheap_error(tx);
	if (!pheap_alloc(tx, 30000, 1) || !pheap_alloc_aligned(tx, 8192, 100, 1) ||
	    !pheap_dup(tx, "text", 5, 2))
		return pheap_error(tx);
	return 0;
}

static int tx_free(pheap_tx *tx, pheap *h)
{
	for (int i = 0; i < 30; i++)
		(void)pheap_free(tx, nth(h, UINT32_MAX, 3 + i * 7 % 60));
	return pheap_error(tx);
}

static int tx_modify(pheap_tx *tx, pheap *h)
{
	const void *p = nth(h, DRIVE_TYPE_EXTENT, 0);
	pheap_savepoint_id sp;
	char *w;

	for (int i = 0; i < 6; i++) {
		w = pheap_modify(tx, p, 5 * 4096);
		if (!w || pheap_savepoint(tx, &sp))
			return pheap_error(tx);
		memset(w, i, 5 * 4096);
	}
	return pheap_rollback(tx, sp);
}

static int tx_defer(pheap_tx *tx, pheap *h)
{
	const uint64_t *p = nth(h, DRIVE_TYPE_EXTENT, 0);

	for (unsigned i = 0; i < 40; i++)
		(void)pheap_defer_u64(tx, p + i * 11, i);
	(void)pheap_defer(tx, p, p + 100, 400);
	(void)!pheap_modify(tx, p, 64);
	return pheap_error(tx);
}

static int tx_nest(pheap_tx *tx, pheap *h)
{
	pheap_tx *inner;
	int rc = pheap_begin(h, PHEAP_NEST, &inner);

	if (rc)
		return rc;
	(void)!pheap_alloc(inner, 100, 5);
	(void)!pheap_modify(inner, nth(h, DRIVE_TYPE_NODE, 0), 48);
	pheap_abort(inner);
	rc = pheap_begin(h, PHEAP_NEST, &inner);
	if (rc)
		return rc;
	(void)!pheap_alloc(inner, 100, 5);
	rc = pheap_commit(inner);
	return rc ? rc : pheap_error(tx);
}

static int tx_root(pheap_tx *tx, pheap *h)
{
	char name[32];

	for (int i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "fresh-%d", i);
		if (!pheap_root(tx, name, 64, 7))
			return pheap_error(tx);
		snprintf(name, sizeof(name), "alias-%d", i);
		if (pheap_root_set(tx, name, nth(h, DRIVE_TYPE_NODE, i)))
			return pheap_error(tx);
	}
	return pheap_root_set(tx, "root-1", NULL);
}

static int tx_lock(pheap_tx *tx, pheap *h)
{
	uint64_t keys[40];

	for (unsigned i = 0; i < 40; i++)
		keys[i] = i;
	if (pheap_lock_shared(tx, keys, 20) || pheap_lock(tx, keys + 20, 20))
		return pheap_error(tx);
	return pheap_store(tx, nth(h, DRIVE_TYPE_NODE, 1), keys, 40);
}

static int ended;

static void on_end(void *arg, int committed)
{
	(void)arg;
	ended += committed;
}

static int tx_end_notes(pheap_tx *tx, pheap *h)
{
	for (int i = 0; i < 10; i++)
		if (pheap_on_end(tx, on_end, NULL) || pheap_notify(tx, nth(h, DRIVE_TYPE_NODE, i)))
			return pheap_error(tx);
	return pheap_store(tx, nth(h, DRIVE_TYPE_NODE, 1), "12345678", 8);
}

static int tx_realloc(pheap_tx *tx, pheap *h)
{
	const void *p = nth(h, 0, 2);

	for (size_t n = 100; n < 60000 && p; n *= 2)
		p = pheap_realloc(tx, p, n);
	return pheap_error(tx);
}

static int tx_reserve(pheap_tx *tx, pheap *h)
{
	void *kept[24];
	int n = 0, rc = 0;

	for (size_t i = 0; i < 24; i++, n++) {
		kept[i] = pheap_reserve(h, i % 4 == 3 ? 20000 : 50 + i % 3 * 300, 3);
		if (!kept[i]) {
			rc = -ENOMEM;
			break;
		}
	}
	for (int i = 0; i < n; i++) {
		if (rc || i % 2)
			pheap_cancel(h, kept[i]);
		else if (pheap_publish(tx, kept[i]))
			pheap_cancel(h, kept[i]);
	}
	return rc ? rc : pheap_error(tx);
}

static const struct {
	const char *name;
	uint32_t flags;
	int (*fn)(pheap_tx *tx, pheap *h);
} scenarios[] = {
	{"alloc", 0, tx_alloc},
	{"alloc, concurrent", PHEAP_CONCURRENT, tx_alloc},
	{"free", 0, tx_free},
	{"modify", 0, tx_modify},
	{"defer", 0, tx_defer},
	{"nest", 0, tx_nest},
	{"root", PHEAP_CONCURRENT, tx_root},
	{"lock", PHEAP_CONCURRENT, tx_lock},
	{"on_end, notify", 0, tx_end_notes},
	{"realloc", 0, tx_realloc},
	{"reserve", 0, tx_reserve},
};

/* ---- running ---- */

static char path[260];
static unsigned char *bytes;
static size_t size;

static void image_read(enum drive_state state)
{
	struct stat st;
	int fd;

	drive_make(path, state, 500 << 10, 8 << 20);
	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		exit(2);
	size = (size_t)st.st_size;
	__real_free(bytes);
	bytes = __real_malloc(size);
	if (!bytes || pread(fd, bytes, size, 0) != (ssize_t)size)
		exit(2);
	close(fd);
}

static void image_write(void)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || pwrite(fd, bytes, size, 0) != (ssize_t)size)
		exit(2);
	close(fd);
}

static pheap *must_open(const char *scenario, long n)
{
	struct pheap_options opt;
	pheap *h = NULL;

	drive_options(&opt);
	expect(pheap_open(path, 0, &opt, &h) == 0, scenario, n, "the heap does not open");
	return h;
}

static int tx_run(pheap *h, uint32_t flags, int (*fn)(pheap_tx *tx, pheap *h))
{
	pheap_tx *tx;
	int rc = pheap_begin(h, flags, &tx);

	if (rc)
		return rc;
	rc = fn(tx, h);
	return pheap_end(tx, rc);
}

static bool frees_right(pheap *h)
{
	struct pheap_stats before, after;

	return pheap_stats(h, &before, sizeof(before)) == 0 && tx_run(h, 0, tx_free) == 0 &&
	       pheap_stats(h, &after, sizeof(after)) == 0 && after.block_count == before.block_count - 30;
}

/* The blocks of tx_alloc, the other way round. */
static bool allocs_right(pheap *h)
{
	void *p[30];
	bool good = true;
	pheap_tx *tx;

	if (pheap_begin(h, 0, &tx))
		return false;
	for (size_t i = 29; i > 0; i--)
		p[i] = pheap_zalloc(tx, i * 40, (uint32_t)i % 3);
	if (pheap_commit(tx))
		return false;
	for (size_t i = 1; i < 30; i++)
		good &= pheap_usable_size(h, p[i]) >= i * 40 && pheap_type_of(h, p[i]) == i % 3;
	return good;
}

/* False: the scenario ran through, with nothing left to fail. */
static bool scenario_try(size_t s, long n)
{
	const char *name = scenarios[s].name, *what;
	uint64_t before, after;
	pheap *h;
	int rc;

	image_write();
	h = must_open(name, n);
	if (!h)
		return false;
	before = drive_walk(h, &what);
	until = n;
	hit = false;
	armed = true;
	rc = tx_run(h, scenarios[s].flags, scenarios[s].fn);
	armed = false;
	after = drive_walk(h, &what);
	expect(!what, name, n, "the heap can not be walked");
	expect(rc == 0 || (rc == -ENOMEM && hit), name, n, pheap_error_detail(h));
	expect(rc == 0 || before == after, name, n, "a transaction that failed has changed the heap");
	/* What the failure left in private tables would show in a transaction over other blocks. */
	expect(allocs_right(h), name, n, "allocating 29 blocks afterwards goes wrong");
	expect(frees_right(h), name, n, "freeing 30 blocks afterwards goes wrong");
	rc = tx_run(h, scenarios[s].flags, scenarios[s].fn);
	expect(rc == 0, name, n, "the next transaction fails");
	after = drive_walk(h, &what);
	expect(pheap_close(h) == 0, name, n, "close");
	h = must_open(name, n);
	if (h) {
		expect(drive_walk(h, &what) == after && !what, name, n,
		       "the closed heap holds something else");
		expect(pheap_close(h) == 0, name, n, "close");
	}
	return hit;
}

static void scenario_run(size_t s)
{
	long n = 0, start = 0;

	for (; n < TRIES_MAX; n++) {
		bool more = scenario_try(s, n);

		if (n == 1)
			start = balance;
		if (n > 1)
			expect(balance == start, scenarios[s].name, n, "memory is left");
		if (!more)
			break;
	}
	expect(n < TRIES_MAX, scenarios[s].name, n, "does not run through");
	printf("%s: %ld allocations failed, one at a time\n", scenarios[s].name, n);
}

static void open_run(enum drive_state state)
{
	uint64_t sum = 0;
	const char *what;
	long n = 0, start = 0;

	image_read(state);
	for (; n < TRIES_MAX; n++) {
		struct pheap_options opt;
		pheap *h = NULL;
		int rc;

		image_write();
		drive_options(&opt);
		until = n;
		hit = false;
		armed = true;
		rc = pheap_open(path, 0, &opt, &h);
		armed = false;
		expect(rc == 0 || (rc == -ENOMEM && hit), "open", n, "an error that is not -ENOMEM");
		expect(rc == 0 || *pheap_error_detail(NULL), "open", n, "no sentence");
		expect(h || (fake.fds == 0 && fake.maps == 0), "open", n,
		       "a descriptor or a mapping is left");
		if (h)
			expect(pheap_close(h) == 0, "open", n, "close");
		h = must_open("open", n);
		if (!h)
			break;
		if (n == 0)
			sum = drive_walk(h, &what);
		expect(drive_walk(h, &what) == sum && !what, "open", n, "the heap holds something else");
		expect(pheap_close(h) == 0, "open", n, "close");
		if (n == 1)
			start = balance;
		if (n > 1)
			expect(balance == start, "open", n, "memory is left");
		if (!hit)
			break;
	}
	expect(n < TRIES_MAX, "open", n, "does not run through");
	printf("open (%s): %ld allocations failed, one at a time\n", drive_names[state], n);
}

int main(void)
{
	static const uint32_t levels[] = {PHEAP_PROCESS, PHEAP_SYNC, PHEAP_EPOCH};

	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(path, sizeof(path), "%s/heap", drive_folder());
	fake_reset();
	ph_keeper_off = true; /* allocations are counted, those of one thread */
	drive_journal_size = 512 << 10;
	for (size_t i = 0; i < sizeof(levels) / sizeof(*levels); i++) {
		drive_level = levels[i];
		printf("%s:\n", drive_level_name());
		for (int state = 0; state < DRIVE_STATES; state++)
			open_run((enum drive_state)state);
		image_read(DRIVE_CLEAN);
		for (size_t s = 0; s < sizeof(scenarios) / sizeof(*scenarios); s++)
			scenario_run(s);
	}
	/* The keeper's own; it sleeps. */
	ph_os = &ph_os_linux;
	ph_keeper_off = false;
	open_run(DRIVE_CLEAN);
	__real_free(bytes);
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
