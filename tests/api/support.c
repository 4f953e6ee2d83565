/* SPDX-License-Identifier: MIT
 *
 * support.c: see support.h. The checksum here is a second, bitwise one, so that a fault of the library's
 * cannot hide itself.
 */
#include "support.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char scratch_dir[PATH_MAX / 2];

/* Waits for the last holder of the pipe, which the test and its children are, then removes the folder. */
static void janitor_start(const char *dir)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		abort();
	pid = fork();
	if (pid < 0)
		abort();
	if (pid) {
		while (waitpid(pid, NULL, 0) < 0)
			continue;
		close(ends[0]);
		return;
	}
	setsid();
	if (fork())
		_exit(0);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	dup2(ends[0], 3);
	close_range(4, ~0u, 0);
	char byte;
	while (read(3, &byte, 1) < 0)
		continue;
	execlp("rm", "rm", "-rf", "--", dir, (char *)NULL);
	_exit(1);
}

const char *scratch(const char *name)
{
	static char paths[4][PATH_MAX];
	static unsigned next;
	char *path = paths[next++ % 4];

	if (!scratch_dir[0]) {
		const char *tmp = getenv("TMPDIR");
		snprintf(scratch_dir, sizeof scratch_dir, "%s/pheap-test-XXXXXX",
			 tmp && tmp[0] ? tmp : "/tmp");
		if (!mkdtemp(scratch_dir))
			abort();
		/* tests run by root send a child without rights here */
		chmod(scratch_dir, 0755);
		janitor_start(scratch_dir);
	}
	snprintf(path, sizeof paths[0], "%s/%s", scratch_dir, name);
	return path;
}

/* Every clause holds at every level: the suite is run with each. */
uint32_t test_durability(void)
{
	const char *level = getenv("PHEAP_TEST_DURABILITY");

	if (level && strcmp(level, "sync") == 0)
		return PHEAP_SYNC;
	return level && strcmp(level, "epoch") == 0 ? PHEAP_EPOCH : PHEAP_PROCESS;
}

struct pheap_options test_options(void)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;

	opt.durability = test_durability();
	opt.max_size = 64 * MIB;
	return opt;
}

pheap *heap_make_with(const struct pheap_options *opt)
{
	pheap *h = NULL;

	OK(pheap_open(scratch("heap"), PHEAP_CREATE, opt, &h));
	cr_assert(h);
	return h;
}

pheap *heap_make(void)
{
	struct pheap_options opt = test_options();

	return heap_make_with(&opt);
}

pheap *heap_reopen(pheap *h)
{
	pheap *again = NULL;

	heap_drop(h);
	OK(pheap_open(scratch("heap"), 0, NULL, &again));
	return again;
}

void heap_drop(pheap *h)
{
	OK(pheap_close(h));
}

pheap_tx *begin(pheap *h, uint32_t flags)
{
	pheap_tx *tx = NULL;

	OK(pheap_begin(h, flags, &tx));
	cr_assert(tx);
	return tx;
}

void commit(pheap_tx *tx)
{
	OK(pheap_commit(tx));
}

struct pheap_info info_of(const pheap *h)
{
	struct pheap_info info;

	memset(&info, 0, sizeof info);
	OK(pheap_info(h, &info, sizeof info));
	return info;
}

struct pheap_stats stats_of(pheap *h)
{
	struct pheap_stats stats;

	memset(&stats, 0, sizeof stats);
	OK(pheap_stats(h, &stats, sizeof stats));
	return stats;
}

unsigned char *block_make(pheap *h, size_t n, uint32_t type)
{
	pheap_tx *tx = begin(h, 0);
	unsigned char *p = pheap_zalloc(tx, n, type);

	cr_assert(p, "zalloc of %zu bytes: %d", n, pheap_error(tx));
	commit(tx);
	return p;
}

/* --- processes and threads --- */

pid_t child_start(int (*fn)(void *arg), void *arg)
{
	pid_t parent = getpid(), pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0)
		abort();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(98);
	int rc = fn(arg);
	fflush(stderr);
	_exit(rc & 0xff);
}

int child_wait(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0)
		continue;
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

int child_run(int (*fn)(void *arg), void *arg)
{
	return child_wait(child_start(fn, arg));
}

void child_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	(void)child_wait(pid);
}

struct abort_call {
	int (*fn)(void *arg);
	void *arg;
	int fd;
};

static int abort_body(void *arg)
{
	struct abort_call *call = arg;
	struct rlimit none = {0, 0};

	setrlimit(RLIMIT_CORE, &none);
	signal(SIGABRT, SIG_DFL);
	dup2(call->fd, 2);
	return call->fn(call->arg);
}

bool child_aborts(int (*fn)(void *arg), void *arg, char *ret_text, size_t n)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		abort();
	struct abort_call call = {fn, arg, ends[1]};
	pid_t pid = child_start(abort_body, &call);
	size_t got = 0;

	close(ends[1]);
	while (got + 1 < n) {
		ssize_t more = read(ends[0], ret_text + got, n - 1 - got);
		if (more <= 0)
			break;
		got += (size_t)more;
	}
	ret_text[got] = 0;
	close(ends[0]);
	return child_wait(pid) == 1000 + SIGABRT && strstr(ret_text, "pheap:");
}

struct thread_call {
	int (*fn)(void *arg);
	void *arg;
	int rc;
};

static void *thread_body(void *arg)
{
	struct thread_call *call = arg;

	call->rc = call->fn(call->arg);
	return call;
}

pthread_t thread_start(int (*fn)(void *arg), void *arg)
{
	struct thread_call *call = malloc(sizeof *call);
	pthread_t thread;

	if (!call)
		abort();
	*call = (struct thread_call){fn, arg, 0};
	if (pthread_create(&thread, NULL, thread_body, call))
		abort();
	return thread;
}

int thread_join(pthread_t thread)
{
	void *result = NULL;
	struct thread_call *call;

	if (pthread_join(thread, &result))
		abort();
	call = result;
	if (!call)
		return 97;
	int rc = call->rc;
	free(call);
	return rc;
}

int thread_run(int (*fn)(void *arg), void *arg)
{
	return thread_join(thread_start(fn, arg));
}

void *shared_make(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

void flag_set(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void flag_add(uint32_t *word)
{
	__atomic_fetch_add(word, 1, __ATOMIC_ACQ_REL);
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void flag_wait(const uint32_t *word, uint32_t value)
{
	for (;;) {
		uint32_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
		if (seen >= value)
			return;
		syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
	}
}

void thread_wait_asleep(pid_t tid)
{
	char path[64], state;
	int hits = 0;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)tid);
	while (hits < 3) {
		FILE *f = fopen(path, "re");
		if (!f)
			return;
		if (fscanf(f, "%*d (%*[^)]) %c", &state) == 1 && state == 'S')
			hits++;
		fclose(f);
		usleep(2000);
	}
}

/* --- files --- */

static int file_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	if (fd < 0) {
		perror(path);
		abort();
	}
	return fd;
}

void file_write(const char *path, uint64_t off, const void *bytes, size_t n)
{
	int fd = file_open(path, O_RDWR | O_CREAT);

	if (pwrite(fd, bytes, n, (off_t)off) != (ssize_t)n)
		abort();
	close(fd);
}

void file_read(const char *path, uint64_t off, void *bytes, size_t n)
{
	int fd = file_open(path, O_RDONLY);

	if (pread(fd, bytes, n, (off_t)off) != (ssize_t)n)
		abort();
	close(fd);
}

void file_copy(const char *from, const char *to)
{
	int in = file_open(from, O_RDONLY), out = file_open(to, O_RDWR | O_CREAT | O_TRUNC);
	static char buf[65536];
	ssize_t n;

	while ((n = read(in, buf, sizeof buf)) > 0)
		if (write(out, buf, (size_t)n) != n)
			abort();
	close(in);
	close(out);
}

void file_fill(const char *path, size_t n, uint64_t seed)
{
	uint64_t *words = calloc(n / 8 + 1, 8);

	if (!words)
		abort();
	for (size_t i = 0; seed && i < n / 8 + 1; i++)
		words[i] = random_next(&seed);
	unlink(path);
	file_write(path, 0, words, n);
	free(words);
}

uint64_t file_hash(const char *path)
{
	int fd = file_open(path, O_RDONLY);
	uint64_t hash = 0xcbf29ce484222325u, size = 0;
	static uint64_t buf[8192];
	ssize_t n;

	while (memset(buf, 0, sizeof buf), (n = read(fd, buf, sizeof buf)) > 0) {
		size += (uint64_t)n;
		for (size_t i = 0; i < ((size_t)n + 7) / 8; i++)
			hash = (hash ^ buf[i]) * 0x100000001b3u;
	}
	close(fd);
	return hash ^ size;
}

static uint32_t checksum(const void *p, size_t n)
{
	const unsigned char *bytes = p;
	uint32_t crc = ~0u;

	for (size_t i = 0; i < n; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

struct phd_super file_super(const char *path)
{
	struct phd_super super;

	file_read(path, PHD_SUPER_OFF(0), &super, sizeof super);
	return super;
}

void file_edit_super(const char *path, void (*edit)(struct phd_super *super))
{
	for (uint32_t copy = 0; copy < 2; copy++) {
		struct phd_super super;

		file_read(path, PHD_SUPER_OFF(copy), &super, sizeof super);
		edit(&super);
		super.crc = checksum(&super, offsetof(struct phd_super, crc));
		file_write(path, PHD_SUPER_OFF(copy), &super, sizeof super);
	}
}

void file_edit_state(const char *path, void (*edit)(struct phd_state *state))
{
	for (uint32_t copy = 0; copy < 2; copy++) {
		struct phd_state state;

		file_read(path, PHD_STATE_OFF(copy), &state, sizeof state);
		if (state.magic != PHD_STATE_MAGIC)
			continue;
		edit(&state);
		state.crc = checksum(&state, offsetof(struct phd_state, crc));
		file_write(path, PHD_STATE_OFF(copy), &state, sizeof state);
	}
}

/* --- random --- */

uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t random_seed(void)
{
	const char *text = getenv("PHEAP_TEST_SEED");

	return text && text[0] ? strtoull(text, NULL, 0) : 0x70686561u;
}
