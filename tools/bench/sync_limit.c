/* SPDX-License-Identifier: MIT
 *
 * sync_limit.c: the bound of sync-commit: the bare flush: pwritev2 of 4 KiB with RWF_DSYNC into blocks that
 * were written before, so that no metadata changes. Each thread has a file of its own: in one, the kernel
 * lets writers wait for each other.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "sync.h"

#define PAGE_SIZE 4096u
#define PAGE_COUNT 256u

struct store {
	const char *path;
};

struct file {
	int fd;
	unsigned page;
	char bytes[PAGE_SIZE];
};

static const char *make(const char *path, const struct sync_plan *plan)
{
	(void)path;
	(void)plan;
	return NULL;
}

static void *join(const char *path, const struct sync_plan *plan)
{
	static struct store store;

	(void)plan;
	store.path = path;
	return &store;
}

static void *enter(void *self)
{
	struct store *store = self;
	struct file *file = calloc(1, sizeof *file);
	char path[4200];

	if (!file)
		bench_die("limit: no memory");
	snprintf(path, sizeof path, "%s-%d", store->path, (int)gettid());
	file->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (file->fd < 0 || posix_fallocate(file->fd, 0, PAGE_SIZE * PAGE_COUNT))
		bench_die("%s: %s", path, strerror(errno));
	for (unsigned i = 0; i < PAGE_COUNT; i++)
		if (pwrite(file->fd, file->bytes, PAGE_SIZE, i * PAGE_SIZE) != PAGE_SIZE)
			bench_die("%s: %s", path, strerror(errno));
	if (fsync(file->fd))
		bench_die("%s: %s", path, strerror(errno));
	unlink(path);
	return file;
}

static void update(void *self, const struct sync_update *u)
{
	struct file *file = self;
	struct iovec v = {file->bytes, PAGE_SIZE};

	memcpy(file->bytes, u->words, sizeof u->words);
	if (pwritev2(file->fd, &v, 1, file->page * PAGE_SIZE, RWF_DSYNC) != PAGE_SIZE)
		bench_die("pwritev2: %s", strerror(errno));
	file->page = (file->page + 1) % PAGE_COUNT;
}

const struct sync_system sync_limit = {
	.name = "limit",
	.make = make,
	.join = join,
	.enter = enter,
	.update = update,
};
