/* SPDX-License-Identifier: MIT
 *
 * victim.c: see victim.h.
 */
#include "victim.h"

#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

#include "os.h"
#include "runtime.h"

static uint64_t step_count, step_last;
static int step_signal = SIGKILL;

static void step(void)
{
	if (++step_count == step_last)
		kill(getpid(), step_signal);
}

static void on_store(void *addr, size_t n)
{
	(void)addr;
	(void)n;
	if (step_signal == SIGKILL)
		step();
}

#define WRAP(type, name, parameters, arguments) \
	static type v_##name parameters \
	{ \
		type rc; \
\
		step(); \
		rc = ph_os_linux.name arguments; \
		step(); \
		return rc; \
	}

WRAP(int, file_open, (const char *path, int flags, unsigned mode), (path, flags, mode))
WRAP(int, file_close, (int fd), (fd))
WRAP(int, file_write, (int fd, const void *buf, size_t n, uint64_t off), (fd, buf, n, off))
WRAP(int, file_truncate, (int fd, uint64_t size), (fd, size))
WRAP(int, file_allocate, (int fd, uint64_t off, uint64_t n), (fd, off, n))
WRAP(int, file_punch, (int fd, uint64_t off, uint64_t n), (fd, off, n))
WRAP(int, file_create_unnamed, (const char *path, unsigned mode, char *ret, size_t n), (path, mode, ret, n))
WRAP(int, file_link, (int fd, const char *temporary, const char *path), (fd, temporary, path))
WRAP(int, file_unlink, (const char *path), (path))
WRAP(int, lock_set, (int fd, uint64_t off, bool exclusive, bool wait), (fd, off, exclusive, wait))
WRAP(int, lock_clear, (int fd, uint64_t off), (fd, off))
WRAP(int, unmap, (void *address, size_t n), (address, n))
WRAP(int, futex_wait, (const uint32_t *word, uint32_t seen, uint64_t timeout_ns), (word, seen, timeout_ns))

/* No machine goes down here: what is not synced is there all the same, and sooner. */
static int v_file_write_sync(int fd, const void *buf, size_t n, uint64_t off)
{
	return v_file_write(fd, buf, n, off);
}

static int v_file_sync(int fd)
{
	(void)fd;
	step();
	return 0;
}

static int v_folder_sync(const char *path)
{
	(void)path;
	step();
	return 0;
}

static void *v_map(void *address, size_t n, bool writable, int fd, bool fixed, int *ret_rc)
{
	void *p;

	step();
	p = ph_os_linux.map(address, n, writable, fd, fixed, ret_rc);
	if (p) {
		kr_base = (uintptr_t)p;
		kr_store = on_store;
		kr_size = n;
	}
	step();
	return p;
}

static void v_futex_wake(const uint32_t *word, int count)
{
	step();
	ph_os_linux.futex_wake(word, count);
	step();
}

void victim_install(void)
{
	static struct ph_os os;

	os = ph_os_linux;
	os.file_open = v_file_open;
	os.file_close = v_file_close;
	os.file_write = v_file_write;
	os.file_write_sync = v_file_write_sync;
	os.file_truncate = v_file_truncate;
	os.file_allocate = v_file_allocate;
	os.file_punch = v_file_punch;
	os.file_sync = v_file_sync;
	os.file_create_unnamed = v_file_create_unnamed;
	os.file_link = v_file_link;
	os.file_unlink = v_file_unlink;
	os.folder_sync = v_folder_sync;
	os.lock_set = v_lock_set;
	os.lock_clear = v_lock_clear;
	os.map = v_map;
	os.unmap = v_unmap;
	os.futex_wait = v_futex_wait;
	os.futex_wake = v_futex_wake;
	ph_os = &os;
}

void victim_arm(uint64_t k)
{
	step_count = 0;
	step_last = k;
	step_signal = SIGKILL;
}

void victim_arm_stop(uint64_t k)
{
	victim_arm(k);
	step_signal = SIGSTOP;
}

uint64_t victim_steps(void)
{
	return step_count;
}
