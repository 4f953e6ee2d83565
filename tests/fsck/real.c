/* SPDX-License-Identifier: MIT
 *
 * real.c: heaps of the library, killed under load; what pheap-fsck makes of one must be, byte by byte, what
 * the library makes of it: after the kill alone, and after a power cut; and so if fsck is killed as well, and
 * the library goes on.
 *
 * A cut is made of what a kill leaves: the log ends anywhere between what was durable and what was appended,
 * and each page is as it was at some time since the last checkpoint. Pages are read beside the running
 * program, so they are also torn.
 *
 * Usage: test-fsck-real PHEAP-FSCK PHEAP-FSCK-MORTAL [SEED [COUNT]]
 *
 * Invariants
 *   V1  Files are in one folder, removed at the end and when a signal ends the test; the worker dies with the
 *       test.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "format.h"
#include "pheap.h"
#include "run.h"

#define THREADS 3
#define SLOTS 256u
#define SNAPSHOTS 4u
#define BLOCK_MAX 20000u
#define EXTENT_MAX 120000u
#define LONG_COUNT 60u

static char folder[4000];

static void folder_remove(void)
{
	DIR *dir = *folder ? opendir(folder) : NULL;
	struct dirent *entry;

	while (dir && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(folder);
}

static void ended(int signal)
{
	folder_remove();
	_exit(128 + signal);
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "fsck-real: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t random_of(uint64_t *state)
{
	uint64_t z;

	*state += 0x9e3779b97f4a7c15ull;
	z = (*state ^ *state >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* ---- the program that is killed ---- */

struct worker {
	pheap *h;
	uint64_t seed;
};

static size_t size_choose(uint64_t *state)
{
	switch (random_of(state) % 16) {
	case 0:
		return random_of(state) % EXTENT_MAX + 1;
	case 1:
	case 2:
	case 3:
		return random_of(state) % BLOCK_MAX + 1;
	default:
		return 16 + random_of(state) % 400;
	}
}

/* In the transaction, or outside of it. */
static char *block_make(pheap_tx *tx, size_t n, uint32_t type, uint64_t *state)
{
	bool reserved = random_of(state) % 4 == 0;
	char *p = reserved ? pheap_reserve(pheap_heap(tx), n, type) : pheap_alloc(tx, n, type);

	if (!p)
		return NULL;
	memset(p, (int)random_of(state), n);
	if (!reserved || !pheap_publish(tx, p))
		return p;
	pheap_cancel(pheap_heap(tx), p);
	return NULL;
}

/* A table of blocks: one is made, freed, changed in place or later. */
static int slot_change(pheap_tx *tx, uint64_t *state)
{
	pheap *h = pheap_heap(tx);
	const uint64_t *table = pheap_root(tx, "table", (SLOTS + 1) * sizeof(uint64_t), 0);
	const uint64_t *slot = table ? table + random_of(state) % SLOTS : NULL;
	unsigned char bytes[300];
	const char *block;
	size_t n;

	if (!slot)
		return pheap_error(tx);
	memset(bytes, (int)random_of(state), sizeof bytes);
	block = *slot ? pheap_at(h, *slot) : NULL;
	if (!block) {
		char *fresh = block_make(tx, size_choose(state), (uint32_t)(random_of(state) % 3), state);

		if (!fresh)
			return pheap_error(tx) ? pheap_error(tx) : -ENOSPC;
		/* the slot at once: the next change of this transaction must see it */
		if (random_of(state) % 2 && pheap_defer_u64(tx, table + SLOTS, pheap_offset(h, fresh)))
			return pheap_error(tx);
		return pheap_store(tx, slot, &(uint64_t){pheap_offset(h, fresh)}, 8);
	}
	n = pheap_usable_size(h, block);
	if (random_of(state) % 3 == 0) {
		int rc = pheap_free(tx, block);

		return rc ? rc : pheap_store(tx, slot, &(uint64_t){0}, 8);
	}
	n = n < sizeof bytes ? n : sizeof bytes;
	return random_of(state) % 2 ? pheap_store(tx, block, bytes, n)
				    : pheap_defer(tx, block, bytes, n / 2 + 1);
}

static int transaction(pheap_tx *tx, uint64_t *state)
{
	pheap_savepoint_id sp;
	int rc = 0;

	/* some need more log than a lane has */
	for (uint64_t n = random_of(state) % 32 ? random_of(state) % 4 + 1 : LONG_COUNT; n && !rc; n--)
		rc = slot_change(tx, state);
	if (!rc && random_of(state) % 8 == 0 && pheap_savepoint(tx, &sp) == 0) {
		rc = slot_change(tx, state);
		if (!rc)
			rc = pheap_rollback(tx, sp);
	}
	return rc ? rc : random_of(state) % 10 ? 0 : -ECANCELED;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t state = w->seed;

	for (;;) {
		uint64_t key = 1;
		pheap_tx *tx;
		int rc = pheap_begin(w->h, random_of(&state) % 2 ? PHEAP_CONCURRENT : 0, &tx);

		if (rc)
			continue;
		rc = pheap_lock(tx, &key, 1);
		if (!rc)
			rc = transaction(tx, &state);
		rc = pheap_end(tx, rc);
		if (rc == PHEAP_EPOISONED || rc == PHEAP_ECORRUPT)
			_exit(3);
	}
}

static _Noreturn void worker_main(const char *path, uint64_t seed, uint32_t level, int ready, pid_t parent)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	struct worker workers[THREADS];
	pthread_t thread;
	pheap *h;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(3);
	opt.durability = level;
	if (pheap_open(path, 0, &opt, &h) || write(ready, "", 1) != 1)
		_exit(3);
	for (int i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){h, seed * THREADS + (uint64_t)i};
		if (pthread_create(&thread, NULL, work, &workers[i]))
			_exit(3);
	}
	for (;;)
		pause();
}

/* ---- files ---- */

struct bytes {
	unsigned char *at;
	size_t size;
};

static struct bytes file_bytes(int fd)
{
	struct bytes b = {0};
	struct stat st;

	if (fstat(fd, &st) < 0)
		die("fstat");
	b.size = (size_t)st.st_size;
	b.at = malloc(b.size + 1);
	/* it may grow meanwhile; it never gets shorter */
	if (!b.at || pread(fd, b.at, b.size, 0) != (ssize_t)b.size)
		die("reading a heap");
	return b;
}

static struct phd_super *super_of(const struct bytes *b)
{
	return (void *)b->at;
}

static struct phd_state *state_of(const struct bytes *b)
{
	struct phd_state *a = (void *)(b->at + PHD_STATE_OFF(0)), *c = (void *)(b->at + PHD_STATE_OFF(1));

	return !format_state_valid(c) || (format_state_valid(a) && a->seq > c->seq) ? a : c;
}

/* From where the log is needed: snapshots of two checkpoints do not mix. */
static uint64_t checkpoint_lsn(const struct bytes *b)
{
	uint64_t lsn = 0;

	for (int i = 0; i < 2; i++) {
		const struct phd_checkpoint *c = (const void *)(b->at + PHD_CHECKPOINT_OFF(i));
		const struct phd_live *l = (const void *)(b->at + PHD_LIVE_OFF(i));

		if (!format_checkpoint_invalid(super_of(b), c) && c->epoch_lsn > lsn)
			lsn = c->epoch_lsn;
		if (l->epoch_lsn > lsn)
			lsn = l->epoch_lsn;
	}
	return lsn;
}

/* A file of its own, that says that it is itself: else both would refuse it. */
static int file_make(const char *name, const struct bytes *b, bool cut)
{
	struct phd_state s = *state_of(b);
	struct statx info;
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || pwrite(fd, b->at, b->size, 0) != (ssize_t)b->size ||
	    statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &info) < 0)
		die(name);
	s.inode = info.stx_ino;
	s.birth_ns = info.stx_mask & STATX_BTIME
			     ? (uint64_t)info.stx_btime.tv_sec * 1000000000u + info.stx_btime.tv_nsec
			     : 0;
	if (cut)
		s.boot_id[5] ^= 0x55;
	s.crc = format_crc32c(&s, offsetof(struct phd_state, crc));
	for (int i = 0; i < 2; i++)
		if (pwrite(fd, &s, sizeof s, (off_t)PHD_STATE_OFF(i)) != sizeof s)
			die(name);
	return fd;
}

/* ---- what a cut leaves ---- */

/* Kind A page by page, each from one of the snapshots. */
static void pages_mix(struct bytes *cut, const struct bytes *snapshots, unsigned count, uint64_t *state)
{
	const struct phd_super *s = super_of(cut);

	for (uint64_t off = s->head_off; off < cut->size; off += PHD_BLOCK_SIZE) {
		const struct bytes *from = &snapshots[random_of(state) % (count + 1)];
		bool kind_a = off == s->head_off || (off >= s->desc_off && off < s->words_off) ||
			      off >= s->data_off;

		if (!count || !kind_a || from == &snapshots[count] || off + PHD_BLOCK_SIZE > from->size)
			continue;
		memcpy(cut->at + off, from->at + off, PHD_BLOCK_SIZE);
	}
}

/* Behind `durable` the log has what an unfinished flush has written of the ring. */
static void log_cut(struct bytes *cut, uint64_t *state)
{
	const struct phd_super *s = super_of(cut);
	struct phd_coord c;
	uint64_t end;

	memcpy(&c, cut->at + s->coord_off, sizeof c);
	end = c.durable + (c.tail > c.durable ? random_of(state) % ((c.tail - c.durable) / 8 + 1) * 8 : 0);
	for (uint64_t lsn = c.durable; lsn < c.replay_lsn + s->wal_size && lsn < c.durable + 65536; lsn++)
		cut->at[s->wal_off + lsn % s->wal_size] =
			lsn < end ? cut->at[s->ring_off + lsn % s->wal_size] : 0xee;
}

/* ---- both ways ---- */

static bool part_same(const struct bytes *a, const struct bytes *b, uint64_t off, uint64_t n,
		      const char *what)
{
	if (a->size < off + n || b->size < off + n) {
		printf("%s: the file ends before it does\n", what);
		return false;
	}
	for (uint64_t i = off; i < off + n; i++)
		if (a->at[i] != b->at[i]) {
			printf("%s differ at 0x%llx: %02x by the library, %02x by fsck\n", what,
			       (unsigned long long)i, a->at[i], b->at[i]);
			return false;
		}
	return true;
}

static bool kind_a_same(const struct bytes *a, const struct bytes *b)
{
	const struct phd_super *s = super_of(a);
	const struct phd_head *head = (const void *)(a->at + s->head_off);

	return part_same(a, b, s->head_off, PHD_BLOCK_SIZE, "heads") &&
	       part_same(a, b, s->desc_off, 8 * head->chunk_count, "descriptors") &&
	       part_same(a, b, s->bits_off, sizeof(struct phd_bits) * head->chunk_count, "bitmaps") &&
	       part_same(a, b, s->data_off, PHD_CHUNK_SIZE * head->chunk_count, "chunks");
}

/* Each slot names a block of its own, and there is no other block but the table. */
static bool table_whole(pheap *h)
{
	const uint64_t *table = pheap_find(h, "table");
	uint64_t named = 0, there = 0, used = 0;

	for (uint32_t type = 0; type < 3; type++)
		for (const void *p = NULL; (p = pheap_next(h, type, p)) != NULL; there++)
			for (unsigned i = 0; table && i < SLOTS; i++)
				named += table[i] == pheap_offset(h, p);
	for (unsigned i = 0; table && i < SLOTS; i++)
		used += table[i] != 0;
	if (named == used && used + (table != NULL) == there)
		return true;
	printf("%llu blocks, %llu slots, %llu of them name a block\n", (unsigned long long)there,
	       (unsigned long long)used, (unsigned long long)named);
	return false;
}

/* fsck killed at one of its writes, and the library goes on from there. */
static void half(const struct bytes *left, bool cut, const char *what, const struct bytes *want,
		 uint64_t *state)
{
	uint64_t write = 1 + random_of(state) % (1ull << random_of(state) % 10);
	struct bytes have;
	char path[4096], number[16];
	int fd, rc;
	pheap *h;

	snprintf(path, sizeof path, "%s/half", folder);
	snprintf(number, sizeof number, "%llu", (unsigned long long)write);
	fd = file_make(path, left, cut);
	setenv("PHEAP_FSCK_DIE_AFTER", number, 1);
	if (random_of(state) % 2)
		setenv("PHEAP_FSCK_DIE_TORN", "1", 1);
	rc = run(fsck_program_mortal, "-p -f", path);
	unsetenv("PHEAP_FSCK_DIE_AFTER");
	unsetenv("PHEAP_FSCK_DIE_TORN");
	expect(rc == 0 || rc == 1 || rc == RUN_SIGNAL + SIGKILL, "%s: -p -f gave %d", what, rc);
	rc = pheap_open(path, 0, NULL, &h);
	if (expect(!rc, "%s: fsck killed at write %s, then the library gives %s: %s", what, number,
		   pheap_strerror(rc), pheap_error_detail(NULL))) {
		rc = pheap_close(h);
		have = file_bytes(fd);
		expect(!rc && kind_a_same(want, &have),
		       "%s: fsck killed at write %s, then the library: differs", what, number);
		free(have.at);
		rc = run(fsck_program, "-n -f", path);
		expect(rc == 0, "%s: fsck killed at write %s, then the library: -n -f gave %d", what, number,
		       rc);
	}
	close(fd);
	unlink(path);
}

static void both(const struct bytes *left, bool cut, const char *what, uint64_t *state)
{
	char one[4096], other[4096];
	struct bytes by_library, by_fsck;
	int fds[2], rc;
	pheap *h;

	snprintf(one, sizeof one, "%s/library", folder);
	snprintf(other, sizeof other, "%s/fsck", folder);
	fds[0] = file_make(one, left, cut);
	fds[1] = file_make(other, left, cut);
	rc = run(fsck_program, "-n -f", other);
	expect(rc == 0 || rc == 4, "%s: -n -f gave %d", what, rc);
	expect(output_has("power-cut") == cut, "%s: -n -f takes a cut for a kill, or a kill for a cut", what);
	rc = run(fsck_program, "-p -f", other);
	expect(rc == 0 || rc == 1, "%s: -p -f gave %d", what, rc);
	rc = pheap_open(one, 0, NULL, &h);
	if (!expect(!rc, "%s: the library gives %s: %s", what, pheap_strerror(rc), pheap_error_detail(NULL)))
		goto out;
	expect(table_whole(h), "%s: blocks and names differ", what);
	rc = pheap_close(h);
	expect(!rc, "%s: closing it gave %s", what, pheap_strerror(rc));
	by_library = file_bytes(fds[0]);
	by_fsck = file_bytes(fds[1]);
	expect(kind_a_same(&by_library, &by_fsck), "%s: the library and fsck disagree", what);
	half(left, cut, what, &by_library, state);
	free(by_library.at);
	free(by_fsck.at);
	rc = run(fsck_program, "-n -f", one);
	expect(rc == 0, "%s: after the library -n -f gave %d", what, rc);
	/* what fsck made goes on in the library */
	rc = pheap_open(other, 0, NULL, &h);
	expect(!rc && !pheap_close(h), "%s: after fsck the library gives %s", what, pheap_strerror(rc));
	rc = run(fsck_program, "-n -f", other);
	expect(rc == 0, "%s: after both -n -f gave %d", what, rc);
out:
	close(fds[0]);
	close(fds[1]);
	unlink(one);
	unlink(other);
}

static pid_t worker_start(const char *path, uint64_t seed, uint32_t level)
{
	pid_t parent = getpid(), pid;
	int pipes[2];
	char byte;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		die("pipe");
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		signal(SIGTERM, SIG_DFL);
		signal(SIGINT, SIG_DFL);
		worker_main(path, seed, level, pipes[1], parent);
	}
	close(pipes[1]);
	if (read(pipes[0], &byte, 1) != 1)
		die("the worker did not begin");
	close(pipes[0]);
	return pid;
}

static void heap_make(const char *path, uint64_t *state, uint32_t level)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	pheap *h;
	int rc;

	opt.durability = level;
	opt.epoch_ms = 20;
	opt.initial_size = 512u << 10;
	opt.max_size = 16u << 20;
	opt.journal_size = (32u << 10) << random_of(state) % 6;
	unlink(path);
	rc = pheap_open(path, PHEAP_CREATE | PHEAP_EXCL, &opt, &h);
	if (rc || pheap_close(h)) {
		fprintf(stderr, "fsck-real: making a heap: %s\n", pheap_error_detail(NULL));
		exit(2);
	}
}

static void one(unsigned number, uint64_t *state)
{
	uint32_t level = random_of(state) % 3 ? PHEAP_SYNC : PHEAP_EPOCH;
	struct bytes snapshots[SNAPSHOTS], left;
	unsigned count = 0;
	char path[4096], what[64];
	uint64_t seq;
	pid_t pid;
	int fd;

	snprintf(path, sizeof path, "%s/heap", folder);
	snprintf(what, sizeof what, "heap %u", number);
	heap_make(path, state, level);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	pid = worker_start(path, random_of(state), level);
	for (; count < SNAPSHOTS; count++) {
		nanosleep(&(struct timespec){0, (long)(random_of(state) % 30000000)}, NULL);
		snapshots[count] = file_bytes(fd);
	}
	nanosleep(&(struct timespec){0, (long)(random_of(state) % 10000000)}, NULL);
	expect(waitpid(pid, NULL, WNOHANG) == 0, "%s: the worker ended", what);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	left = file_bytes(fd);
	close(fd);
	seq = checkpoint_lsn(&left);
	/* the sectors are read first, so a page is not older than the checkpoint that a snapshot has */
	for (unsigned i = 0; i < count;) {
		if (checkpoint_lsn(&snapshots[i]) == seq) {
			i++;
			continue;
		}
		free(snapshots[i].at);
		snapshots[i] = snapshots[--count];
	}
	both(&left, false, what, state);
	snprintf(what, sizeof what, "heap %u, cut, %u snapshots", number, count);
	pages_mix(&left, snapshots, count, state);
	log_cut(&left, state);
	both(&left, true, what, state);
	while (count)
		free(snapshots[--count].at);
	free(left.at);
}

int main(int argc, char **argv)
{
	uint64_t state = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
	unsigned count = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 0) : 20;
	const char *base = getenv("TMPDIR");

	if (argc < 3) {
		fprintf(stderr, "Usage: %s PHEAP-FSCK PHEAP-FSCK-MORTAL [SEED [COUNT]]\n", argv[0]);
		return 2;
	}
	fsck_program = argv[1];
	fsck_program_mortal = argv[2];
	printf("seed %llu, %u heaps\n", (unsigned long long)state, count);
	snprintf(folder, sizeof folder, "%s/pheap-fsck-real-XXXXXX", base && *base ? base : "/tmp");
	if (!mkdtemp(folder))
		die(folder);
	signal(SIGTERM, ended);
	signal(SIGINT, ended);
	signal(SIGHUP, ended);
	atexit(folder_remove);
	for (unsigned i = 0; i < count; i++)
		one(i, &state);
	return expect_summary();
}
