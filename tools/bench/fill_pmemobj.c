/* SPDX-License-Identifier: MIT
 *
 * fill_pmemobj.c: the bench space in libpmemobj, with its allocation classes as they come.
 *
 * One that grows is a pool set with a folder, which adds a part whenever the heap is full; parts of 4 MiB
 * instead of its own 128 MiB.
 */
#include <errno.h>
#include <fcntl.h>
#include <libpmemobj.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "fill.h"

#define GROW_SIZE (4u << 20)

static char parts[4400];

struct pool {
	PMEMobjpool *pool;
	uint64_t uuid; /* of its oids */
};

static _Noreturn void fail(const char *call)
{
	bench_die("%s: %s", call, pmemobj_errormsg());
}

/* Where the parts of a pool set go, and the description of the set. */
static void set_make(const char *path, uint64_t size)
{
	char text[4400];
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int n = snprintf(text, sizeof text, "PMEMPOOLSET\nOPTION SINGLEHDR\n%llu %s-parts\n",
			 (unsigned long long)size, path);

	snprintf(parts, sizeof parts, "%s-parts", path);
	if (fd < 0 || write(fd, text, (size_t)n) != n || mkdir(parts, 0700))
		bench_die("libpmemobj: %s: %s", path, strerror(errno));
	close(fd);
}

static void *fill_open(const char *path, uint64_t size, bool grows)
{
	static struct pool pool;
	size_t granularity = GROW_SIZE;

	if (grows)
		set_make(path, size);
	pool.pool = pmemobj_create(path, "fill", grows ? 0 : size, 0600);
	if (!pool.pool)
		fail("pmemobj_create");
	if (grows && pmemobj_ctl_set(pool.pool, "heap.size.granularity", &granularity))
		fail("pmemobj_ctl_set");
	pool.uuid = 0;
	return &pool;
}

static void fill_close(void *self)
{
	pmemobj_close(((struct pool *)self)->pool);
}

static void begin(struct pool *pool)
{
	if (pmemobj_tx_begin(pool->pool, NULL, TX_PARAM_NONE))
		fail("pmemobj_tx_begin");
}

static bool fill_alloc(void *self, const uint32_t *sizes, uint64_t *ret_blocks, unsigned count)
{
	struct pool *pool = self;

	begin(pool);
	for (unsigned i = 0; i < count; i++) {
		PMEMoid oid = pmemobj_tx_alloc(sizes[i], 0);

		if (OID_IS_NULL(oid)) {
			if (pmemobj_tx_end() != ENOMEM)
				fail("pmemobj_tx_alloc");
			return false;
		}
		memset(pmemobj_direct(oid), FILL_BYTE, sizes[i]);
		pool->uuid = oid.pool_uuid_lo;
		ret_blocks[i] = oid.off;
	}
	pmemobj_tx_commit();
	if (pmemobj_tx_end())
		fail("pmemobj_tx_end");
	return true;
}

/* False: a full pool had no room for the log, and nothing was freed. */
static bool release_try(struct pool *pool, const uint64_t *blocks, unsigned count)
{
	begin(pool);
	for (unsigned i = 0; i < count; i++) {
		if (!pmemobj_tx_free((PMEMoid){pool->uuid, blocks[i]}))
			continue;
		if (pmemobj_tx_end() != ENOMEM)
			fail("pmemobj_tx_free");
		return false;
	}
	pmemobj_tx_commit();
	if (pmemobj_tx_end())
		fail("pmemobj_tx_end");
	return true;
}

static void fill_release(void *self, const uint64_t *blocks, unsigned count)
{
	struct pool *pool = self;

	if (release_try(pool, blocks, count))
		return;
	for (unsigned i = 0; i < count; i++) {
		PMEMoid oid = {pool->uuid, blocks[i]};

		pmemobj_free(&oid); /* atomic, and needs no log */
	}
}

const struct fill_system fill_pmemobj = {
	.name = "libpmemobj",
	.open = fill_open,
	.close = fill_close,
	.alloc = fill_alloc,
	.release = fill_release,
	.full = true,
};
