/* SPDX-License-Identifier: MIT
 *
 * fake.c: see fake.h.
 *
 * Invariant
 *   F1  A call that is made to fail has done nothing, except that closing, unmapping and unlocking are
 *       done all the same, as
 *       the kernel does.
 */
#include "fake.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

struct fake fake;

enum fn {
	FN_OPEN,
	FN_CLOSE,
	FN_INFO,
	FN_NETWORK,
	FN_READ,
	FN_WRITE,
	FN_WRITE_SYNC,
	FN_TRUNCATE,
	FN_ALLOCATE,
	FN_SYNC,
	FN_CREATE,
	FN_LINK,
	FN_UNLINK,
	FN_PATH,
	FN_FOLDER,
	FN_LOCK,
	FN_UNLOCK,
	FN_TEST,
	FN_MAP,
	FN_UNMAP,
	FN_FENCE,
	FN_RANDOM,
	FN_BOOT,
	FN_MAP_SYNC,
	FN_FORGET,
	FN_PUNCH
};

const char *const fake_names[] = {"file_open",
				  "file_close",
				  "file_info",
				  "file_network",
				  "file_read",
				  "file_write",
				  "file_write_sync",
				  "file_truncate",
				  "file_allocate",
				  "file_sync",
				  "file_create_unnamed",
				  "file_link",
				  "file_unlink",
				  "file_path",
				  "folder_sync",
				  "lock_set",
				  "lock_clear",
				  "lock_test",
				  "map",
				  "unmap",
				  "fence_register",
				  "random",
				  "boot_id",
				  "map_sync",
				  "file_forget",
				  "file_punch",
				  NULL};

static int fails(enum fn fn)
{
	if (fake.calls[fn]++ != fake.fail_at || fn != fake.fail_fn || !fake.fail_rc)
		return 0;
	fake.failed = true;
	return fake.fail_rc;
}

#define FAIL_IF(fn) \
	do { \
		int fail_rc = fails(fn); \
		if (fail_rc) \
			return fail_rc; \
	} while (0)

static int counted(int fd)
{
	fake.fds += fd >= 0;
	return fd;
}

static int fake_file_open(const char *path, int flags, unsigned mode)
{
	FAIL_IF(FN_OPEN);
	if (fake.passive && (flags & O_ACCMODE) != O_RDONLY)
		return -EACCES;
	return counted(ph_os_linux.file_open(path, flags, mode));
}

static int fake_file_close(int fd)
{
	int rc = ph_os_linux.file_close(fd), fail_rc = fails(FN_CLOSE);

	fake.fds--;
	return fail_rc ? fail_rc : rc;
}

static int fake_file_info(int fd, struct ph_file_info *ret)
{
	int rc;

	FAIL_IF(FN_INFO);
	rc = ph_os_linux.file_info(fd, ret);
	ret->inode = 77;
	ret->birth_ns = 88;
	return rc;
}

static int fake_file_network(int fd)
{
	FAIL_IF(FN_NETWORK);
	return ph_os_linux.file_network(fd);
}

static int fake_file_read(int fd, void *buf, size_t n, uint64_t off)
{
	FAIL_IF(FN_READ);
	return ph_os_linux.file_read(fd, buf, n, off);
}

static int fake_file_write(int fd, const void *buf, size_t n, uint64_t off)
{
	FAIL_IF(FN_WRITE);
	return ph_os_linux.file_write(fd, buf, n, off);
}

static int fake_file_write_sync(int fd, const void *buf, size_t n, uint64_t off)
{
	FAIL_IF(FN_WRITE_SYNC);
	return ph_os_linux.file_write(fd, buf, n, off);
}

static int fake_file_truncate(int fd, uint64_t size)
{
	FAIL_IF(FN_TRUNCATE);
	return ph_os_linux.file_truncate(fd, size);
}

static int fake_file_allocate(int fd, uint64_t off, uint64_t n)
{
	FAIL_IF(FN_ALLOCATE);
	return ph_os_linux.file_allocate(fd, off, n);
}

static int fake_file_punch(int fd, uint64_t off, uint64_t n)
{
	FAIL_IF(FN_PUNCH);
	return ph_os_linux.file_punch(fd, off, n);
}

static int fake_file_sync(int fd)
{
	FAIL_IF(FN_SYNC);
	(void)fd;
	return 0;
}

static int fake_file_create_unnamed(const char *path, unsigned mode, char *ret_temporary, size_t n)
{
	FAIL_IF(FN_CREATE);
	return counted(ph_os_linux.file_create_unnamed(path, mode, ret_temporary, n));
}

static int fake_file_link(int fd, const char *temporary, const char *path)
{
	FAIL_IF(FN_LINK);
	return ph_os_linux.file_link(fd, temporary, path);
}

static int fake_file_path(const char *path, char *ret, size_t n)
{
	FAIL_IF(FN_PATH);
	return ph_os_linux.file_path(path, ret, n);
}

static int fake_file_unlink(const char *path)
{
	FAIL_IF(FN_UNLINK);
	return ph_os_linux.file_unlink(path);
}

static int fake_folder_sync(const char *path)
{
	FAIL_IF(FN_FOLDER);
	(void)path;
	return 0;
}

static int fake_lock_set(int fd, uint64_t off, bool exclusive, bool wait)
{
	FAIL_IF(FN_LOCK);
	return ph_os_linux.lock_set(fd, off, exclusive, wait);
}

static int fake_lock_clear(int fd, uint64_t off)
{
	int rc = ph_os_linux.lock_clear(fd, off), fail_rc = fails(FN_UNLOCK);

	return fail_rc ? fail_rc : rc;
}

static int fake_lock_test(int fd, uint64_t off)
{
	FAIL_IF(FN_TEST);
	return ph_os_linux.lock_test(fd, off);
}

static void *fake_map(void *address, size_t n, bool writable, int fd, bool fixed, int *ret_rc)
{
	int fail_rc = fails(FN_MAP);
	void *p;

	if (fail_rc) {
		*ret_rc = fail_rc;
		return NULL;
	}
	p = ph_os_linux.map(address, n, writable, fd, fixed, ret_rc);
	fake.maps += p != NULL;
	return p;
}

static void fake_map_scattered(void *address, size_t n)
{
	ph_os_linux.map_scattered(address, n);
}

static int fake_unmap(void *address, size_t n)
{
	int rc = ph_os_linux.unmap(address, n), fail_rc = fails(FN_UNMAP);

	fake.maps--;
	return fail_rc ? fail_rc : rc;
}

static int fake_futex_wait(const uint32_t *word, uint32_t seen, uint64_t timeout_ns)
{
	if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != seen)
		return -EAGAIN;
	fake.slept_ns += timeout_ns;
	return -ETIMEDOUT;
}

static void fake_futex_wake(const uint32_t *word, int count)
{
	(void)word;
	(void)count;
}

static int fake_map_sync(void *address, size_t n)
{
	FAIL_IF(FN_MAP_SYNC);
	return ph_os_linux.map_sync(address, n);
}

static int fake_file_forget(int fd, void *address, size_t n)
{
	FAIL_IF(FN_FORGET);
	return ph_os_linux.file_forget(fd, address, n);
}

static void fake_yield(void)
{
	ph_os_linux.yield();
}

static int fake_fence_register(void)
{
	FAIL_IF(FN_FENCE);
	return 0;
}

static void fake_fence_all(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static uint64_t fake_clock_ns(void)
{
	return ph_os_linux.clock_ns() + fake.slept_ns;
}

static int fake_random(void *buf, size_t n)
{
	FAIL_IF(FN_RANDOM);
	memset(buf, 0x5a, n);
	return 0;
}

static int fake_boot_id(uint8_t ret[16])
{
	memset(ret, 0, 16);
	FAIL_IF(FN_BOOT);
	memset(ret, 0xb0, 16);
	return 0;
}

static void fake_process(uint32_t *ret_pid, uint64_t *ret_start_ticks, char ret_command[16])
{
	*ret_pid = 4711;
	*ret_start_ticks = 1;
	memcpy(ret_command, "hostile\0\0\0\0\0\0\0\0", 16);
}

static uint32_t fake_thread(void)
{
	return 1;
}

const struct ph_os fake_os = {
	.file_open = fake_file_open,
	.file_close = fake_file_close,
	.file_info = fake_file_info,
	.file_network = fake_file_network,
	.file_read = fake_file_read,
	.file_write = fake_file_write,
	.file_write_sync = fake_file_write_sync,
	.file_truncate = fake_file_truncate,
	.file_allocate = fake_file_allocate,
	.file_punch = fake_file_punch,
	.file_sync = fake_file_sync,
	.file_create_unnamed = fake_file_create_unnamed,
	.file_link = fake_file_link,
	.file_unlink = fake_file_unlink,
	.file_path = fake_file_path,
	.folder_sync = fake_folder_sync,
	.lock_set = fake_lock_set,
	.lock_clear = fake_lock_clear,
	.lock_test = fake_lock_test,
	.map = fake_map,
	.unmap = fake_unmap,
	.map_scattered = fake_map_scattered,
	.map_sync = fake_map_sync,
	.file_forget = fake_file_forget,
	.yield = fake_yield,
	.futex_wait = fake_futex_wait,
	.futex_wake = fake_futex_wake,
	.fence_register = fake_fence_register,
	.fence_all = fake_fence_all,
	.clock_ns = fake_clock_ns,
	.random = fake_random,
	.boot_id = fake_boot_id,
	.process = fake_process,
	.thread = fake_thread,
};

void fake_reset(void)
{
	memset(&fake, 0, sizeof(fake));
	ph_os = &fake_os;
}
