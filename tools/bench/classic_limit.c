/* SPDX-License-Identifier: MIT
 *
 * classic_limit.c: the classic's bound: plain shared memory, robust mutexes, nothing logged.
 *
 * Each mutex has a line of its own, as a stripe of pheap has.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "classic.h"

struct lock {
	pthread_mutex_t mutex;
} __attribute__((aligned(64)));

struct store {
	struct classic_size size;
	struct lock *locks;
	struct classic_account *accounts;
};

static void *join(const char *path, const struct classic_size *size)
{
	struct store *store = calloc(1, sizeof *store);
	size_t locks_size = size->lock_count * sizeof(struct lock);
	size_t n = locks_size + size->record_count * sizeof(struct classic_account);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	void *p;

	if (!store || fd < 0)
		bench_die("%s: %s", path, strerror(errno));
	errno = posix_fallocate(fd, 0, (off_t)n);
	p = errno ? MAP_FAILED : mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		bench_die("%s: %s", path, strerror(errno));
	close(fd);
	store->size = *size;
	store->locks = p;
	store->accounts = (void *)((char *)p + locks_size);
	return store;
}

static void make(const char *path, const struct classic_size *size)
{
	struct store *store = join(path, size);
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	for (uint32_t i = 0; i < size->lock_count; i++)
		pthread_mutex_init(&store->locks[i].mutex, &attr);
	for (uint64_t i = 0; i < size->record_count; i++)
		store->accounts[i].balance = CLASSIC_BALANCE;
}

static void populate(void *self)
{
	struct store *store = self;

	bench_populate(store->accounts, store->size.record_count * sizeof *store->accounts);
}

/* The owner may have died in the middle of a move: nobody here can tell. */
static void mutex_lock(pthread_mutex_t *mutex)
{
	int rc = pthread_mutex_lock(mutex);

	if (rc == EOWNERDEAD)
		pthread_mutex_consistent(mutex);
	else if (rc)
		bench_die("pthread_mutex_lock: %s", strerror(rc));
}

static void run(void *self, struct team_worker *w)
{
	struct store *store = self;

	do {
		struct classic_move move = classic_draw(&w->rng, &store->size);
		struct lock *a = &store->locks[move.from % store->size.lock_count];
		struct lock *b = &store->locks[move.to % store->size.lock_count];
		struct lock *first = a < b ? a : b, *second = a < b ? b : a;

		mutex_lock(&first->mutex);
		if (second != first)
			mutex_lock(&second->mutex);
		store->accounts[move.from].balance -= move.amount;
		store->accounts[move.to].balance += move.amount;
		if (second != first)
			pthread_mutex_unlock(&second->mutex);
		pthread_mutex_unlock(&first->mutex);
	} while (team_next(w));
}

static int64_t sum(void *self)
{
	struct store *store = self;
	int64_t ret = 0;

	for (uint64_t i = 0; i < store->size.record_count; i++)
		ret += store->accounts[i].balance;
	return ret;
}

const struct classic_system classic_limit = {
	.name = "limit",
	.thread_count = 1,
	.make = make,
	.join = join,
	.populate = populate,
	.run = run,
	.sum = sum,
};
