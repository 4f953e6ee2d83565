/* SPDX-License-Identifier: MIT
 *
 * pieces.c: the kernel does less than it was asked, or was interrupted: nobody notices.
 *
 * What: a heap of each level is made, filled, closed, killed and opened again while reads and writes of the file move
 * only a part of their bytes, down to one, and any call may first end with EINTR. Linked with wrapped calls of the C
 * library, so below the seam that the other tests replace.
 *
 * Invariants
 *   I1  No call of the library fails for it, and what was committed is there.
 *   I2  Each kind of call was cut short, or interrupted, at least once.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pheap.h"

#define ROUNDS 40u
#define WORDS 2000u

ssize_t __real_pread64(int fd, void *buf, size_t n, off_t off);
ssize_t __real_pwritev64v2(int fd, const struct iovec *iov, int count, off_t off, int flags);
int __real_fdatasync(int fd);
int __real_fsync(int fd);
int __real_msync(void *p, size_t n, int flags);
int __real_fallocate64(int fd, int mode, off_t off, off_t n);
ssize_t __wrap_pread64(int fd, void *buf, size_t n, off_t off);
ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int count, off_t off, int flags);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
int __wrap_msync(void *p, size_t n, int flags);
int __wrap_fallocate64(int fd, int mode, off_t off, off_t n);

enum call { READ, WRITE, DATASYNC, SYNC, MSYNC, ALLOCATE, CALL_COUNT };

static const char *const names[] = {"pread", "pwritev2", "fdatasync", "fsync", "msync", "fallocate"};

/* Shared with the processes that are killed. */
static struct board {
	uint64_t rng;
	uint64_t cut[CALL_COUNT];
} * board;
static bool armed, no_dsync;
static int passed, failed;

static uint64_t below(uint64_t n)
{
	uint64_t x = board->rng;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	board->rng = x;
	return (x >> 16) % n;
}

static bool is_interrupted(enum call call)
{
	if (!armed || below(3))
		return false;
	board->cut[call]++;
	errno = EINTR;
	return true;
}

static size_t part(enum call call, size_t n)
{
	if (!armed || n < 2 || below(2))
		return n;
	board->cut[call]++;
	return below(4) ? 1 + below(n - 1) : 1;
}

ssize_t __wrap_pread64(int fd, void *buf, size_t n, off_t off)
{
	return is_interrupted(READ) ? -1 : __real_pread64(fd, buf, part(READ, n), off);
}

ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int count, off_t off, int flags)
{
	struct iovec some = *iov;

	if (no_dsync && flags) {
		errno = EOPNOTSUPP;
		return -1;
	}
	if (is_interrupted(WRITE))
		return -1;
	if (count == 1)
		some.iov_len = part(WRITE, some.iov_len);
	return __real_pwritev64v2(fd, count == 1 ? &some : iov, count, off, flags);
}

int __wrap_fdatasync(int fd)
{
	return is_interrupted(DATASYNC) ? -1 : __real_fdatasync(fd);
}

int __wrap_fsync(int fd)
{
	return is_interrupted(SYNC) ? -1 : __real_fsync(fd);
}

int __wrap_msync(void *p, size_t n, int flags)
{
	return is_interrupted(MSYNC) ? -1 : __real_msync(p, n, flags);
}

int __wrap_fallocate64(int fd, int mode, off_t off, off_t n)
{
	return is_interrupted(ALLOCATE) ? -1 : __real_fallocate64(fd, mode, off, n);
}

static bool __attribute__((format(printf, 2, 3))) expect(bool good, const char *format, ...)
{
	va_list args;

	passed += good;
	failed += !good;
	if (good)
		return true;
	va_start(args, format);
	printf("FAILED: ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	return false;
}

static bool is_ok(int rc, const char *call)
{
	return expect(rc == 0, "%s: %s (%s)", call, pheap_strerror(rc), pheap_error_detail(NULL));
}

/* All words are the number of commits. */
static bool words_set(pheap *h, uint64_t number)
{
	const uint64_t *words = pheap_find(h, "words");
	uint64_t *now;
	pheap_tx *tx;

	if (!is_ok(pheap_begin(h, 0, &tx), "pheap_begin"))
		return false;
	if (!words) {
		words = pheap_zalloc(tx, WORDS * sizeof(*words), 0);
		(void)pheap_root_set(tx, "words", words);
	}
	now = pheap_modify(tx, words, WORDS * sizeof(*words));
	for (unsigned i = 0; now && i < WORDS; i++)
		now[i] = number;
	return is_ok(pheap_commit(tx), "pheap_commit");
}

static void words_check(pheap *h, uint64_t number, bool after_death)
{
	const uint64_t *words = pheap_find(h, "words");

	unsigned i = 0;

	if (!expect(words != NULL, "the root is gone"))
		return;
	while (i + 1 < WORDS && words[i] == number)
		i++;
	expect(words[i] == number, "%s: word %u is %llu, not %llu",
	       after_death ? "after a death" : "after a close", i, (unsigned long long)words[i],
	       (unsigned long long)number);
}

/* Killed with the heap open. */
static void die_with(const char *path, uint64_t number)
{
	pheap *h;

	if (pheap_open(path, 0, NULL, &h) || !words_set(h, number))
		_exit(1);
	(void)raise(SIGKILL);
}

static void level(const char *path, uint32_t durability)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	pheap *h;

	opt.durability = durability;
	opt.journal_size = durability == PHEAP_PROCESS ? 0 : 256 << 10;
	(void)unlink(path);
	if (!is_ok(pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &opt, &h), "pheap_open, new"))
		return;
	if (!words_set(h, 0) || !is_ok(pheap_close(h), "pheap_close"))
		return;
	for (uint64_t i = 1; i < ROUNDS && !failed; i += 2) {
		int status;
		pid_t pid = fork();

		if (pid == 0)
			die_with(path, i);
		(void)waitpid(pid, &status, 0);
		expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the process ended with %d",
		       status);
		if (!is_ok(pheap_open(path, 0, NULL, &h), "pheap_open"))
			return;
		words_check(h, i, true);
		if (durability != PHEAP_PROCESS)
			is_ok(pheap_checkpoint(h), "pheap_checkpoint");
		words_set(h, i + 1);
		is_ok(pheap_close(h), "pheap_close");
		if (!is_ok(pheap_open(path, 0, NULL, &h), "pheap_open"))
			return;
		words_check(h, i + 1, false);
		is_ok(pheap_close(h), "pheap_close");
	}
	(void)unlink(path);
}

int main(void)
{
	const char *seed = getenv("PHEAP_TEST_SEED"), *tmp = getenv("TMPDIR");
	char path[4096];

	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		return 1;
	board->rng = seed ? strtoull(seed, NULL, 0) | 1 : 0x70686561;
	printf("PHEAP_TEST_SEED=0x%llx\n", (unsigned long long)board->rng);
	snprintf(path, sizeof(path), "%s/pheap-pieces-%d", tmp ? tmp : "/tmp", (int)getpid());
	armed = true;
	level(path, PHEAP_PROCESS);
	level(path, PHEAP_EPOCH);
	level(path, PHEAP_SYNC);
	no_dsync = true;
	level(path, PHEAP_SYNC);
	for (unsigned i = 0; i < CALL_COUNT; i++)
		if (expect(board->cut[i] > 0, "no %s was cut short", names[i]))
			printf("%s: %llu times less, or interrupted\n", names[i],
			       (unsigned long long)board->cut[i]);
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
