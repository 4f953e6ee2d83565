/* SPDX-License-Identifier: MIT
 *
 * fulldisk.c: heaps on file systems that run full, and under a limit of file sizes.
 *
 * What: a tmpfs and an ext4 of a few MiB, in a mount namespace of this process, so that they are gone
 * with it, however it ends. Each step runs in a child, whose SIGBUS or SIGXFSZ is a failure.
 *
 * Invariants
 *   D1  A full disk is -ENOSPC (or -EFBIG), never a signal; the heap then works on, as far as it needs
 *       no space.
 *   D2  Commit, abort, free and close need no space. What was committed is there after the next open.
 *   D3  A creation that failed leaves nothing: no name, no space.
 *
 * Exit status 77: not allowed to mount, so nothing was tested.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "drive.h"
#include "os.h"

#define ALARM_S 60
#define TYPE 5u
#define SKIPPED 77

static char top[240], path[260], filler[260];
static const char *kind; /* of file system */
static int passed, failed;
static uint32_t level = PHEAP_PROCESS; /* of the heaps that heap_open makes */

static void expect(bool good, const char *format, ...)
{
	va_list args;

	passed += good;
	failed += !good;
	if (good)
		return;
	printf("FAILED: %s: ", kind);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(" (%s)\n", pheap_error_detail(NULL));
}

static uint64_t bytes_free(void)
{
	struct statvfs sv;

	return statvfs(top, &sv) ? 0 : (uint64_t)sv.f_bavail * sv.f_frsize;
}

/* Fills the file system until only about `left` bytes are free. */
static void fill(uint64_t left)
{
	static char zeros[4096];
	int fd = open(filler, O_WRONLY | O_CREAT | O_APPEND, 0600);

	while (bytes_free() > left && write(fd, zeros, sizeof(zeros)) == (ssize_t)sizeof(zeros))
		if (bytes_free() < left + 65536)
			(void)!fsync(fd);
	close(fd);
}

static pheap *heap_open(uint32_t flags, uint64_t initial_size, uint64_t max_size)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	pheap *h = NULL;
	int rc;

	opt.durability = level;
	opt.journal_size = level == PHEAP_PROCESS ? 0 : 128 << 10;
	opt.initial_size = initial_size;
	opt.max_size = max_size;
	opt.lock_timeout_ms = 1000;
	opt.member_count = 8;
	opt.lane_count = 32;
	rc = pheap_open(path, flags, &opt, &h);
	expect(rc == 0, "the heap does not open: %d", rc);
	if (!h)
		exit(1);
	return h;
}

/* ---- blocks that know what they hold ---- */

struct block {
	uint64_t size, seed;
	uint64_t words[];
};

static void block_fill(struct block *b, size_t n, uint64_t seed)
{
	b->size = n;
	b->seed = seed;
	for (size_t i = 0; i < (n - sizeof(*b)) / 8; i++)
		b->words[i] = seed * 31 + i;
}

/* How many blocks there are, all of them whole. */
static unsigned blocks_check(pheap *h)
{
	unsigned n = 0;

	for (const struct block *b = NULL; (b = pheap_next(h, TYPE, b)) != NULL; n++)
		for (size_t i = 0; i < (b->size - sizeof(*b)) / 8; i++)
			if (b->words[i] != b->seed * 31 + i) {
				expect(false, "block %u has lost its contents", n);
				return n;
			}
	return n;
}

/* One block in a transaction of its own. */
static int block_add(pheap *h, size_t n, uint64_t seed)
{
	struct block *b;
	pheap_tx *tx;
	int rc = pheap_begin(h, 0, &tx);

	if (rc)
		return rc;
	b = pheap_alloc(tx, n, TYPE);
	if (b)
		block_fill(b, n, seed);
	return pheap_commit(tx);
}

static int block_free(pheap *h, const void *b)
{
	pheap_tx *tx;
	int rc = pheap_begin(h, 0, &tx);

	if (rc)
		return rc;
	(void)pheap_free(tx, b);
	return pheap_commit(tx);
}

/* Until the disk is full, in large blocks, then in small ones. */
static unsigned blocks_add(pheap *h)
{
	static const size_t sizes[] = {200000, 20000, 4000, 600, 48};
	unsigned n = 0;

	/* With a journal each small one is a flush. */
	for (size_t i = 0; i < (level == PHEAP_PROCESS ? sizeof(sizes) / sizeof(*sizes) : 3); i++) {
		int rc;

		while ((rc = block_add(h, sizes[i], n)) == 0)
			n++;
		expect(rc == -ENOSPC, "a full disk gives %d", rc);
		expect(*pheap_error_detail(h), "a full disk has no sentence");
	}
	return n;
}

/* ---- steps ---- */

static void step_create_large(void)
{
	uint64_t before = bytes_free();
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	pheap *h;
	int rc;

	opt.durability = PHEAP_PROCESS;
	opt.initial_size = 64 << 20;
	opt.max_size = 128 << 20;
	rc = pheap_open(path, PHEAP_CREATE, &opt, &h);
	expect(rc == -ENOSPC, "creation larger than the disk gives %d", rc);
	expect(access(path, F_OK) != 0, "a failed creation left its name");
	sync();
	expect(bytes_free() + 65536 >= before, "a failed creation kept space: %llu of %llu",
	       (unsigned long long)bytes_free(), (unsigned long long)before);
}

/* With every amount of space, block by block. */
static void step_create_tight(void)
{
	for (uint64_t left = 0; left < 420 << 10; left += 20 << 10) {
		struct pheap_options opt = PHEAP_OPTIONS_INIT;
		pheap *h = NULL;
		int rc;

		opt.durability = PHEAP_PROCESS;
		unlink(filler);
		sync();
		fill(left);
		opt.initial_size = 256 << 10;
		opt.max_size = 1 << 20;
		rc = pheap_open(path, PHEAP_CREATE, &opt, &h);
		expect(rc == 0 || rc == -ENOSPC, "creation with %llu bytes free gives %d",
		       (unsigned long long)left, rc);
		expect((access(path, F_OK) == 0) == (rc == 0), "a failed creation left its name");
		if (rc == 0) {
			fill(0);
			(void)blocks_add(h);
			rc = pheap_close(h);
			expect(rc == 0, "close on a full disk gives %d", rc);
			h = heap_open(0, 0, 0);
			(void)blocks_check(h);
			expect(pheap_close(h) == 0, "close");
		}
		unlink(path);
	}
}

static void step_grow(void)
{
	pheap *h = heap_open(PHEAP_CREATE, 256 << 10, 256 << 20);
	unsigned n = blocks_add(h), now;
	uint64_t size;
	int rc;

	expect(n > 10, "only %u blocks fit", n);
	expect(blocks_check(h) == n, "blocks were lost");
	/* Every other one goes, on a disk without a free byte. */
	fill(0);
	now = n;
	for (const struct block *b = pheap_next(h, TYPE, NULL), *next; b; b = next) {
		next = pheap_next(h, TYPE, b);
		if (b->seed % 2) {
			rc = block_free(h, b);
			expect(rc == 0, "free on a full heap gives %d", rc);
			now--;
		}
	}
	expect(blocks_check(h) == now, "frees on a full heap went wrong");
	size = now;
	now += blocks_add(h);
	expect(now > size, "what was freed can not be used again");
	expect(blocks_check(h) == now, "blocks were lost");
	rc = pheap_close(h);
	expect(rc == 0, "close on a full disk gives %d", rc);
	h = heap_open(0, 0, 0);
	expect(blocks_check(h) == now, "blocks were lost by close and open");
	expect(pheap_close(h) == 0, "close");
}

/* A transaction whose log finds no room. */
static void step_log(void)
{
	pheap *h = heap_open(PHEAP_CREATE, 256 << 10, 256 << 20);
	unsigned n = blocks_add(h), changed = 0;
	pheap_tx *tx;
	int rc;

	fill(0);
	rc = pheap_begin(h, 0, &tx);
	expect(rc == 0, "begin gives %d", rc);
	for (const struct block *b = NULL; (b = pheap_next(h, TYPE, b)) != NULL;) {
		struct block *w = pheap_modify(tx, b, b->size);

		if (!w)
			break;
		memset(w->words, 0xee, b->size - sizeof(*b));
		changed++;
	}
	expect(pheap_error(tx) == -ENOSPC, "a log without room gives %d", pheap_error(tx));
	rc = pheap_commit(tx);
	expect(rc == -ENOSPC, "commit of it gives %d", rc);
	expect(blocks_check(h) == n, "an aborted transaction on a full disk changed something");
	/* Small ones go on: the lanes' logs and the journal are there. */
	rc = pheap_begin(h, 0, &tx);
	if (rc == 0) {
		const struct block *b = pheap_next(h, TYPE, NULL);
		struct block *w = pheap_modify(tx, b, 64);

		expect(w != NULL, "a small change on a full disk");
		if (w)
			w->words[0]++;
		pheap_abort(tx);
	}
	expect(blocks_check(h) == n, "abort on a full disk");
	for (unsigned i = 0; i < 10 && n; i++) {
		rc = block_free(h, pheap_next(h, TYPE, NULL));
		expect(rc == 0, "free on a full heap gives %d", rc);
		n--;
	}
	rc = pheap_close(h);
	expect(rc == 0, "close on a full disk gives %d", rc);
	h = heap_open(0, 0, 0);
	expect(blocks_check(h) == n, "blocks were lost by close and open");
	expect(pheap_close(h) == 0, "close");
}

/* ---- with a journal: its space was set aside at creation, and so is that of checkpoints and of recovery ---- */

/* Of some blocks a word, which is put back: blocks_check wants them as they were. */
static void changes_commit(pheap *h)
{
	const struct block *b = NULL;

	for (int i = 0; i < 60 && (b = pheap_next(h, TYPE, b)) != NULL; i++)
		for (int back = 0; back < 2 && b->size > sizeof(*b); back++) {
			uint64_t word = b->seed * 31 + (back ? 0 : 7);
			pheap_tx *tx;
			int rc = pheap_begin(h, 0, &tx);

			if (rc == 0)
				rc = pheap_store(tx, b->words, &word, sizeof(word));
			rc = rc ? rc : pheap_commit(tx);
			if (rc)
				expect(false, "a change on a full disk gives %d", rc);
		}
}

static int other_boot(uint8_t ret[16])
{
	memset(ret, 0x77, 16);
	return 0;
}

/* In a child, which is killed inside of a transaction. */
static unsigned durable_child(void)
{
	unsigned n = 0, got = 0;
	int ends[2], status;
	pid_t pid;

	if (pipe(ends))
		exit(2);
	pid = fork();
	if (pid == 0) {
		const struct block *b, *next;
		pheap *h = heap_open(PHEAP_CREATE, 512 << 10, 256 << 20);
		pheap_tx *tx;

		n = blocks_add(h);
		fill(0);
		changes_commit(h);
		b = pheap_next(h, TYPE, NULL);
		for (int i = 0; i < 60 && b; i++, b = next) {
			next = pheap_next(h, TYPE, b);
			if (i % 3 == 0 && block_free(h, b) == 0)
				n--;
		}
		expect(pheap_checkpoint(h) == 0, "a checkpoint on a full disk");
		changes_commit(h);
		if (pheap_begin(h, 0, &tx) || pheap_free(tx, pheap_next(h, TYPE, NULL)))
			_exit(2);
		(void)!write(ends[1], &n, sizeof(n));
		fflush(NULL);
		if (!failed)
			kill(getpid(), SIGKILL);
		_exit(1);
	}
	close(ends[1]);
	waitpid(pid, &status, 0);
	expect(read(ends[0], &got, sizeof(got)) == (ssize_t)sizeof(got) && WIFSIGNALED(status),
	       "the child died early: 0x%x", (unsigned)status);
	close(ends[0]);
	return got;
}

static void durable_run(void)
{
	struct ph_os os = ph_os_linux;

	for (int power = 0; power < 2; power++) {
		unsigned n = durable_child();
		pheap *h;

		os.boot_id = other_boot;
		ph_os = power ? &os : &ph_os_linux;
		h = heap_open(0, 0, 0);
		expect(blocks_check(h) == n, "blocks were lost, or came, by a %s on a full disk",
		       power ? "power cut" : "death");
		changes_commit(h);
		expect(pheap_checkpoint(h) == 0, "a checkpoint on a full disk");
		expect(pheap_close(h) == 0, "close on a full disk");
		h = heap_open(0, 0, 0);
		expect(blocks_check(h) == n, "blocks were lost by close and open");
		expect(pheap_close(h) == 0, "close");
		ph_os = &ph_os_linux;
		unlink(path);
		unlink(filler);
	}
}

static void step_sync(void)
{
	level = PHEAP_SYNC;
	durable_run();
}

static void step_epoch(void)
{
	level = PHEAP_EPOCH;
	durable_run();
}

/* Killed on a full disk; the recovery finds no space either. */
static void step_killed(void)
{
	unsigned counts[2];
	int ends[2], status;
	pheap *h;
	pid_t pid;

	if (pipe(ends))
		exit(2);
	pid = fork();
	if (pid == 0) {
		const struct block *b = NULL;
		pheap_tx *tx;

		h = heap_open(PHEAP_CREATE, 256 << 10, 256 << 20);
		counts[0] = blocks_add(h);
		fill(0);
		if (pheap_begin(h, 0, &tx))
			_exit(2);
		for (int i = 0; i < 10 && (b = pheap_next(h, TYPE, b)) != NULL; i++) {
			struct block *w = pheap_modify(tx, b, 40);

			if (w)
				w->words[0] = ~0ull;
			(void)pheap_free(tx, b);
		}
		(void)!write(ends[1], counts, sizeof(counts));
		kill(getpid(), SIGKILL);
	}
	waitpid(pid, &status, 0);
	expect(read(ends[0], counts, sizeof(counts)) == (ssize_t)sizeof(counts), "the child died early");
	h = heap_open(0, 0, 0);
	expect(blocks_check(h) == counts[0], "blocks were lost by a death on a full disk");
	expect(pheap_close(h) == 0, "close");
}

/* A clean heap copied with holes, where the disk has no room for them. */
static void step_sparse(void)
{
	pheap *h = heap_open(PHEAP_CREATE, 1 << 20, 256 << 20);
	static char bytes[4096], zeros[4096];
	char copy[270];
	struct stat st;
	int from, to, rc;

	expect(block_add(h, 4000, 1) == 0 && pheap_close(h) == 0, "a heap to copy");
	snprintf(copy, sizeof(copy), "%s.copy", path);
	from = open(path, O_RDONLY);
	to = open(copy, O_WRONLY | O_CREAT, 0600);
	if (from < 0 || to < 0 || fstat(from, &st) || ftruncate(to, st.st_size))
		exit(2);
	for (off_t off = 0; off < st.st_size; off += 4096)
		if (pread(from, bytes, 4096, off) > 0 && memcmp(bytes, zeros, 4096) != 0)
			(void)!pwrite(to, bytes, 4096, off);
	close(from);
	fsync(to);
	close(to);
	fill(0);
	(void)unlink(path);
	/* What the original gave back is used up too. */
	sync();
	fill(0);
	if (rename(copy, path))
		exit(2);
	rc = pheap_open(path, 0, NULL, &h);
	expect(rc == -ENOSPC, "a sparse copy on a full disk gives %d", rc);
	unlink(filler);
	sync();
	h = heap_open(0, 0, 0);
	expect(blocks_check(h) == 1, "the copy holds something else");
	expect(pheap_close(h) == 0, "close");
}

/* Frees all blocks but the first `keep`. */
static void blocks_free(pheap *h, unsigned keep)
{
	pheap_tx *tx;
	unsigned n = 0;

	if (pheap_begin(h, 0, &tx))
		exit(1);
	for (const struct block *b = NULL; (b = pheap_next(h, TYPE, b)) != NULL; n++)
		if (n >= keep)
			(void)pheap_free(tx, b);
	expect(pheap_commit(tx) == 0, "freeing needs space");
}

/* What was given back is the disk's: somebody else has it when it is wanted again, in every way that there is to want it. */
static void trim_and_take(void)
{
	pheap *h = heap_open(PHEAP_CREATE, 1600 << 10, 1900 << 10);
	pheap_savepoint_id sp;
	struct block *b;
	unsigned n = 0;
	uint64_t before;
	pheap_tx *tx;
	int rc;

	while ((rc = block_add(h, 20000 + n % 2 * 3000, n)) == 0)
		n++;
	expect(rc == -ENOSPC && n > 20, "%u blocks, then %d", n, rc);
	before = bytes_free();
	blocks_free(h, 3);
	rc = pheap_trim(h);
	expect(rc == 0, "trim gives %d (%s)", rc, pheap_error_detail(h));
	sync();
	expect(bytes_free() > before + (n - 6) * 20000, "%u blocks gave %lld bytes", n - 3,
	       (long long)(bytes_free() - before));
	fill(0);
	for (unsigned i = 0; i < 2; i++) {
		/* Until what the heap kept is used up. */
		for (n = 0; (rc = block_add(h, 20000, 100 + n)) == 0;)
			n++;
		expect(rc == -ENOSPC, "a block in holes of a full disk gives %d", rc);
		expect(strstr(pheap_error_detail(h), "full") != NULL, "it says: %s", pheap_error_detail(h));
		while ((rc = block_add(h, 400, 200 + n)) == 0)
			n++;
		expect(rc == -ENOSPC, "a run in holes of a full disk gives %d", rc);
		expect(!pheap_reserve(h, 20000, TYPE), "reserving in holes of a full disk");
		if (pheap_begin(h, 0, &tx))
			exit(1);
		/* A log that leaves its lane, and a block that would grow in place. */
		if (pheap_savepoint(tx, &sp) == 0)
			for (b = NULL;
			     pheap_error(tx) == 0 && (b = (void *)(uintptr_t)pheap_next(h, TYPE, b));)
				for (unsigned k = 0; k < 40; k++)
					(void)!pheap_modify(tx, b, b->size);
		rc = pheap_rollback(tx, sp);
		expect(rc == 0, "rollback: %d", rc);
		b = (void *)(uintptr_t)pheap_next(h, TYPE, NULL);
		(void)!pheap_realloc(tx, b, 200000);
		expect(pheap_error(tx) == -ENOSPC, "realloc gives %d", pheap_error(tx));
		pheap_abort(tx);
		n = blocks_check(h);
		rc = pheap_trim(h);
		expect(rc == 0, "trim on a full disk gives %d", rc);
		fill(0);
		expect(pheap_close(h) == 0, "close");
		h = heap_open(0, 0, 0);
		expect(blocks_check(h) == n, "blocks were lost");
		/* What is taken away again can be had by who has it. */
		blocks_free(h, 3);
	}
	unlink(filler);
	sync();
	for (n = 0; (rc = block_add(h, 20000, n)) == 0;)
		n++;
	expect(rc == -ENOSPC && n > 20, "%u blocks when the disk has space again, then %d", n, rc);
	expect(blocks_check(h) == n + 3, "blocks were lost");
	expect(pheap_close(h) == 0, "close");
}

static void step_trim(void)
{
	trim_and_take();
}

static void step_trim_sync(void)
{
	level = PHEAP_SYNC;
	trim_and_take();
}

static void step_limit(void)
{
	struct rlimit limit = {1 << 20, 1 << 20};
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	unsigned n = 0;
	pheap *h;
	int rc;

	opt.durability = PHEAP_PROCESS;
	setrlimit(RLIMIT_FSIZE, &limit);
	opt.initial_size = 2 << 20;
	rc = pheap_open(path, PHEAP_CREATE, &opt, &h);
	expect(rc == -EFBIG, "creation beyond RLIMIT_FSIZE gives %d", rc);
	expect(access(path, F_OK) != 0, "a failed creation left its name");
	h = heap_open(PHEAP_CREATE, 256 << 10, 512 << 10);
	while ((rc = block_add(h, 20000, n)) == 0)
		n++;
	expect(rc == -ENOSPC, "max_size gives %d", rc);
	expect(pheap_close(h) == 0, "close");
	unlink(path);
	h = heap_open(PHEAP_CREATE, 256 << 10, 4 << 20);
	for (n = 0; (rc = block_add(h, 20000, n)) == 0;)
		n++;
	expect(rc == -ENOSPC, "growth beyond RLIMIT_FSIZE gives %d", rc);
	expect(blocks_check(h) == n, "blocks were lost");
	expect(pheap_close(h) == 0, "close");
}

static const struct {
	const char *name;
	void (*fn)(void);
} steps[] = {
	{"creation", step_create_large},
	{"creation with little room", step_create_tight},
	{"growth", step_grow},
	{"a long log", step_log},
	{"death", step_killed},
	{"a sparse copy", step_sparse},
	{"trim", step_trim},
	{"trim, SYNC", step_trim_sync},
	{"a limit of file sizes", step_limit},
	{"SYNC", step_sync},
	{"EPOCH", step_epoch},
};

static void steps_run(void)
{
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		int status, ends[2], counts[2] = {0, 1};
		pid_t pid;

		unlink(path);
		unlink(filler);
		sync();
		fflush(NULL);
		if (pipe(ends))
			exit(2);
		pid = fork();
		if (pid == 0) {
			passed = failed = 0;
			alarm(ALARM_S);
			steps[i].fn();
			fflush(NULL);
			counts[0] = passed;
			counts[1] = failed;
			_exit(write(ends[1], counts, sizeof(counts)) != (ssize_t)sizeof(counts));
		}
		close(ends[1]);
		waitpid(pid, &status, 0);
		if (read(ends[0], counts, sizeof(counts)) != (ssize_t)sizeof(counts) || status)
			printf("FAILED: %s: %s ended with status 0x%x\n", kind, steps[i].name,
			       (unsigned)status);
		close(ends[0]);
		passed += counts[0];
		failed += counts[1];
		printf("%s: %s: %d passed, %d failed\n", kind, steps[i].name, counts[0], counts[1]);
	}
	unlink(path);
	unlink(filler);
}

/* ---- file systems ---- */

static bool text_write(const char *file, const char *text)
{
	int fd = open(file, O_WRONLY);
	bool good = fd >= 0 && write(fd, text, strlen(text)) > 0;

	if (fd >= 0)
		close(fd);
	return good;
}

/* Mounts of a namespace go with its last process. Without root: in a namespace of users too, where
 * tmpfs is allowed. */
static bool namespace_enter(void)
{
	char map[40];
	unsigned uid = getuid(), gid = getgid();

	if (unshare(CLONE_NEWNS)) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
			return false;
		snprintf(map, sizeof(map), "0 %u 1", uid);
		if (!text_write("/proc/self/uid_map", map))
			return false;
		(void)text_write("/proc/self/setgroups", "deny");
		snprintf(map, sizeof(map), "0 %u 1", gid);
		(void)text_write("/proc/self/gid_map", map);
	}
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static void tmpfs_run(void)
{
	kind = "tmpfs";
	if (mount("none", top, "tmpfs", 0, "size=3m")) {
		printf("SKIPPED: no tmpfs can be mounted: %s\n", strerror(errno));
		return;
	}
	steps_run();
	umount2(top, MNT_DETACH);
}

/* An image in a tmpfs, by a loop device that goes with the mount. */
static void ext4_run(void)
{
	char command[1400];
	int rc;

	kind = "ext4";
	snprintf(command, sizeof(command),
		 "PATH=$PATH:/sbin:/usr/sbin; truncate -s 12M '%s.img' && "
		 "mkfs.ext4 -q -m 0 -O ^has_journal '%s.img' && "
		 "mount -o loop '%s.img' '%s'",
		 top, top, top, top);
	rc = system(command);
	if (rc) {
		printf("SKIPPED: no ext4 can be mounted from a loop device here\n");
		return;
	}
	steps_run();
	snprintf(command, sizeof(command), "umount '%s'; rm -f '%s.img'", top, top);
	(void)!system(command);
}

int main(void)
{
	int all;

	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(top, sizeof(top), "%s/disk", drive_folder());
	snprintf(path, sizeof(path), "%s/heap", top);
	snprintf(filler, sizeof(filler), "%s/filler", top);
	if (mkdir(top, 0700) || !namespace_enter()) {
		printf("SKIPPED: no mount namespace: %s\n", strerror(errno));
		return SKIPPED;
	}
	tmpfs_run();
	ext4_run();
	all = passed + failed;
	printf("%d passed, %d failed\n", passed, failed);
	return failed ? 1 : all ? 0 : SKIPPED;
}
