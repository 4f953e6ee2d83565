/* SPDX-License-Identifier: MIT
 *
 * os_linux.c: the table of os.h for Linux. Also the only file with conditions on kernel and file system.
 *
 * What a heap needs of a file system, and why some are refused: one page cache for all processes that map the
 * file (so stores of a killed process are seen by the others), byte-range locks that belong to an open file
 * description and are dropped by this kernel at death, and pages that no daemon can take away. Network and
 * cluster file systems have one cache per machine. FUSE hands pages and locks to a process: its death is a
 * SIGBUS in ours, and many of its servers keep neither locks nor a coherent mapping. overlayfs is allowed:
 * opening for writing copies the file up first, and from then on descriptor, mapping and locks are those of
 * the upper file system's inode, which is what gets checked here.
 */
#define _GNU_SOURCE
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/btrfs.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/magic.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAP_ALIGN (2ul << 20)
#define ALLOCATE_STEP (64ull << 20)

const struct ph_os *ph_os = &ph_os_linux;

static int result(long rc)
{
	return rc < 0 ? -errno : (int)rc;
}

/* ---- files ---- */

/* Descriptors 0 to 2 are where programs print to when they were started without them: never a heap. */
static int fd_raise(int fd)
{
	int high;

	if (fd < 0 || fd > 2)
		return fd;
	high = result(fcntl(fd, F_DUPFD_CLOEXEC, 3));
	close(fd);
	return high;
}

static int os_file_open(const char *path, int flags, unsigned mode)
{
	int fd;

	/* O_NONBLOCK: a FIFO or a device in the way must not hang us; regular files ignore it. */
	do
		fd = result(open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode));
	while (fd == -EINTR);
	return fd_raise(fd);
}

static int os_file_close(int fd)
{
	/* After EINTR the descriptor is gone; closing again could hit another thread's. */
	return close(fd) == 0 || errno == EINTR ? 0 : -errno;
}

static int os_file_info(int fd, struct ph_file_info *ret)
{
	struct statx sx;

	/* Not its times: where they are fine-grained, asking for them makes the next write change the inode, and each flush
	 * of the log, in front of which we ask, then writes that as well. */
	if (statx(fd, "", AT_EMPTY_PATH,
		  STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_INO | STATX_SIZE | STATX_BLOCKS | STATX_BTIME,
		  &sx))
		return -errno;
	*ret = (struct ph_file_info){
		.dev = makedev(sx.stx_dev_major, sx.stx_dev_minor),
		.inode = sx.stx_ino,
		.size = sx.stx_size,
		.allocated = sx.stx_blocks * 512,
		.link_count = sx.stx_nlink,
		.regular = S_ISREG(sx.stx_mode),
		.directory = S_ISDIR(sx.stx_mode),
	};
	if (sx.stx_mask & STATX_BTIME)
		ret->birth_ns = (uint64_t)sx.stx_btime.tv_sec * 1000000000u + sx.stx_btime.tv_nsec;
	return 0;
}

static int os_file_network(int fd)
{
	static const uint32_t refused[] = {
		NFS_SUPER_MAGIC,   SMB_SUPER_MAGIC,  SMB2_SUPER_MAGIC, CIFS_SUPER_MAGIC,
		V9FS_MAGIC,	   AFS_SUPER_MAGIC,  AFS_FS_MAGIC,     CODA_SUPER_MAGIC,
		CEPH_SUPER_MAGIC,  FUSE_SUPER_MAGIC, /* virtiofs, sshfs, gluster and others too */
		OCFS2_SUPER_MAGIC, 0x564c,	     /* ncpfs */
		0x01161970,			     /* gfs2 */
		0x0bd00bd0,			     /* lustre */
		0x19830326,			     /* beegfs */
		0x20030528,			     /* orangefs */
		0x47504653,			     /* gpfs */
		0x61636673,			     /* acfs */
		0x786f4256,			     /* vboxsf */
		0x7c7c6673,			     /* prl_fs */
		0xaad7aaea,			     /* panfs */
		0xbacbacbc,			     /* vmhgfs */
		0xbeefdead,			     /* snfs */
	};
	struct statfs sf;
	int rc;

	do
		rc = result(fstatfs(fd, &sf));
	while (rc == -EINTR);
	if (rc)
		return rc;
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
		if ((uint32_t)sf.f_type == refused[i])
			return 1;
	return 0;
}

static int os_file_read(int fd, void *buf, size_t n, uint64_t off)
{
	char *p = buf;

	while (n) {
		ssize_t got = pread(fd, p, n, (off_t)off);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -ENODATA;
		p += got;
		off += (uint64_t)got;
		n -= (size_t)got;
	}
	return 0;
}

static int write_all(int fd, const void *buf, size_t n, uint64_t off, int flags)
{
	const char *p = buf;

	while (n) {
		struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = n};
		ssize_t put = pwritev2(fd, &iov, 1, (off_t)off, flags);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put < 0 ? -errno : -EIO;
		p += put;
		off += (uint64_t)put;
		n -= (size_t)put;
	}
	return 0;
}

static int os_file_write(int fd, const void *buf, size_t n, uint64_t off)
{
	return write_all(fd, buf, n, off, 0);
}

static int os_file_write_sync(int fd, const void *buf, size_t n, uint64_t off)
{
	int rc = write_all(fd, buf, n, off, RWF_DSYNC);

	if (rc != -EOPNOTSUPP)
		return rc;
	rc = write_all(fd, buf, n, off, 0);
	if (rc)
		return rc;
	do
		rc = result(fdatasync(fd));
	while (rc == -EINTR);
	return rc;
}

/* Beyond RLIMIT_FSIZE the kernel does not only fail, it kills with SIGXFSZ: ask first. */
static bool size_limited(uint64_t size)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
	       size > limit.rlim_cur;
}

static int os_file_truncate(int fd, uint64_t size)
{
	int rc;

	if (size_limited(size))
		return -EFBIG;
	do
		rc = result(ftruncate(fd, (off_t)size));
	while (rc == -EINTR);
	return rc;
}

static int zero_fill(int fd, uint64_t off, uint64_t end)
{
	static const char zeros[65536];
	int rc = 0;

	for (; off < end && !rc; off += sizeof(zeros))
		rc = write_all(fd, zeros, end - off < sizeof(zeros) ? (size_t)(end - off) : sizeof(zeros),
			       off, 0);
	return rc;
}

/* Where the file system has no fallocate: zeros into the holes only. glibc's emulation reads a byte of each
 * block and writes it back, which would undo a store that another process makes in between. */
static int allocate_by_writing(int fd, uint64_t off, uint64_t end)
{
	while (off < end) {
		off_t hole = lseek(fd, (off_t)off, SEEK_HOLE);
		off_t data;
		uint64_t stop;
		int rc;

		if (hole < 0 && errno != ENXIO)
			return -errno;
		if (hole >= 0 && (uint64_t)hole > off)
			off = (uint64_t)hole;
		if (off >= end)
			break;
		data = lseek(fd, (off_t)off, SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			return -errno;
		stop = data < 0 || (uint64_t)data > end ? end : (uint64_t)data;
		rc = zero_fill(fd, off, stop);
		if (rc)
			return rc;
		off = stop;
	}
	return 0;
}

/* In steps, so that a timer's signals cannot make the call start over for ever. */
static int os_file_allocate(int fd, uint64_t off, uint64_t n)
{
	uint64_t end = off + n;

	if (size_limited(end))
		return -EFBIG;
	while (off < end) {
		uint64_t step = end - off < ALLOCATE_STEP ? end - off : ALLOCATE_STEP;
		int rc = result(fallocate(fd, 0, (off_t)off, (off_t)step));

		if (rc == -EINTR)
			continue;
		if (rc == -EOPNOTSUPP || rc == -ENOSYS)
			return allocate_by_writing(fd, off, end);
		if (rc)
			return rc;
		off += step;
	}
	return 0;
}

/* In steps, for the same reason. */
static int os_file_punch(int fd, uint64_t off, uint64_t n)
{
	uint64_t end = off + n;

	while (off < end) {
		uint64_t step = end - off < ALLOCATE_STEP ? end - off : ALLOCATE_STEP;
		int rc = result(
			fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)step));

		if (rc == -EINTR)
			continue;
		if (rc)
			return rc == -ENOSYS ? -EOPNOTSUPP : rc;
		off += step;
	}
	return 0;
}

/* fsync, not fdatasync: what is synced here is a new file, or one that is about to be called clean; both want
 * their size and times on the disk as well, and neither is on a fast path. */
static int os_file_sync(int fd)
{
	int rc;

	do
		rc = result(fsync(fd));
	while (rc == -EINTR);
	return rc;
}

/* The folder part of path, with its slash; "./" when there is none. */
static int folder_of(const char *path, char ret[PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) + 1 : 2;

	if (n >= PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(ret, slash ? path : "./", n);
	ret[n] = 0;
	return 0;
}

/* A store into a mapped page of a copy-on-write file system needs new space each time, so allocation promises
 * nothing (SIGBUS on a full disk). btrfs lets an empty file opt out. Best effort. */
static void cow_disable(int fd)
{
	struct statfs sf;
	int flags;

	if (fstatfs(fd, &sf) || (uint32_t)sf.f_type != BTRFS_SUPER_MAGIC)
		return;
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
		flags |= FS_NOCOW_FL;
		(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
}

static int create_unnamed(const char *folder, unsigned mode)
{
	int fd;

	/* The name is given later through /proc/self/fd. */
	if (access("/proc/self/fd", X_OK))
		return -EOPNOTSUPP;
	do
		fd = result(open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, mode));
	while (fd == -EINTR);
	return fd_raise(fd);
}

static int create_named(const char *path, const char *folder, unsigned mode, char *ret_temporary, size_t n)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;

	for (;;) {
		uint64_t tag;
		int fd, length, rc = ph_os->random(&tag, sizeof(tag));

		if (rc)
			return rc;
		length = snprintf(ret_temporary, n, "%s.%.64s.%016llx.new", folder, name,
				  (unsigned long long)tag);
		if (length < 0 || (size_t)length >= n)
			return -ENAMETOOLONG;
		fd = os_file_open(ret_temporary, O_RDWR | O_CREAT | O_EXCL, mode);
		if (fd != -EEXIST)
			return fd;
	}
}

static int os_file_create_unnamed(const char *path, unsigned mode, char *ret_temporary, size_t n)
{
	char folder[PATH_MAX];
	int fd, rc = folder_of(path, folder);

	if (rc)
		return rc;
	ret_temporary[0] = 0;
	fd = create_unnamed(folder, mode);
	if (fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EINVAL || fd == -ENOSYS)
		fd = create_named(path, folder, mode, ret_temporary, n);
	if (fd >= 0)
		cow_disable(fd);
	return fd;
}

static int os_file_link(int fd, const char *temporary, const char *path)
{
	char self[40];
	int rc;

	if (!temporary[0]) {
		snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
		return result(linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW));
	}
	rc = result(link(temporary, path));
	/* No hard links here: a rename that refuses to replace is as good. */
	if (rc == -EPERM || rc == -EOPNOTSUPP || rc == -ENOSYS || rc == -EMLINK)
		rc = result(renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE));
	return rc;
}

static int os_file_unlink(const char *path)
{
	return result(unlink(path));
}

static int os_file_path(const char *path, char *ret, size_t n)
{
	char *found = realpath(path, NULL);
	size_t size;

	if (!found)
		return -errno;
	size = strlen(found) + 1;
	if (size <= n)
		memcpy(ret, found, size);
	free(found);
	return size <= n ? 0 : -ENAMETOOLONG;
}

/* A folder that may be written but not read cannot be opened for fsync; then its whole file system is
 * synced. */
static int sync_around(const char *path)
{
	int rc, fd = os_file_open(path, O_RDONLY, 0);

	if (fd < 0)
		return fd;
	rc = result(syncfs(fd));
	close(fd);
	return rc;
}

static int os_folder_sync(const char *path)
{
	char folder[PATH_MAX];
	int fd, rc = folder_of(path, folder);

	if (rc)
		return rc;
	fd = os_file_open(folder, O_RDONLY | O_DIRECTORY, 0);
	if (fd == -EACCES)
		return sync_around(path);
	if (fd < 0)
		return fd;
	rc = os_file_sync(fd);
	close(fd);
	/* Some file systems have nothing to sync there, and say so. */
	return rc == -EINVAL || rc == -EOPNOTSUPP ? 0 : rc;
}

/* ---- locks ---- */

static int lock_call(int fd, int command, uint64_t off, short type, short *ret_type)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)off, .l_len = 1};
	int rc;

	do
		rc = result(fcntl(fd, command, &fl));
	while (rc == -EINTR);
	if (ret_type)
		*ret_type = fl.l_type;
	return rc == -EACCES ? -EAGAIN : rc;
}

static int os_lock_set(int fd, uint64_t off, bool exclusive, bool wait)
{
	return lock_call(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, off, exclusive ? F_WRLCK : F_RDLCK, NULL);
}

static int os_lock_clear(int fd, uint64_t off)
{
	return lock_call(fd, F_OFD_SETLK, off, F_UNLCK, NULL);
}

static int os_lock_test(int fd, uint64_t off)
{
	short type = F_UNLCK;
	int rc = lock_call(fd, F_OFD_GETLK, off, F_WRLCK, &type);

	return rc ? rc : type != F_UNLCK;
}

/* ---- mappings ---- */

static size_t page_round(size_t n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (n + page - 1) & ~(page - 1);
}

/* n bytes of address space that nothing else uses, at a multiple of 2 MiB so that large pages and large
 * alignments work. */
static char *space_reserve(size_t n)
{
	char *p = mmap(NULL, n + MAP_ALIGN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t before;

	if (p == MAP_FAILED)
		return NULL;
	before = (MAP_ALIGN - ((uintptr_t)p & (MAP_ALIGN - 1))) & (MAP_ALIGN - 1);
	if (before)
		munmap(p, before);
	munmap(p + before + n, MAP_ALIGN - before);
	return p + before;
}

static void *os_map(void *address, size_t n, bool writable, int fd, bool fixed, int *ret_rc)
{
	int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
	void *at = address, *p;

	n = page_round(n);
	if (!fixed)
		at = space_reserve(n);
	p = !at ? MAP_FAILED
		: mmap(at, n, protection, MAP_SHARED | (fixed ? MAP_FIXED_NOREPLACE : MAP_FIXED), fd, 0);
	*ret_rc = p == MAP_FAILED ? -errno : 0;
	if (p == MAP_FAILED) {
		if (at && !fixed)
			munmap(at, n);
		return NULL;
	}
	/* A kernel before 4.17 takes the fixed address for a hint. */
	if (p != at)
		*ret_rc = -EEXIST;
	else if (madvise(p, n, MADV_DONTFORK))
		*ret_rc = -errno;
	if (*ret_rc) {
		munmap(p, n);
		return NULL;
	}
	return p;
}

static int os_unmap(void *address, size_t n)
{
	return result(munmap(address, page_round(n)));
}

/* Reading ahead makes large folios, and the first store into one wants space for all of it, also for the holes in it; where the disk is
 * full that is SIGBUS, at a page that has its space. */
static void os_map_scattered(void *address, size_t n)
{
	(void)madvise(address, n, MADV_RANDOM);
}

static int os_map_sync(void *address, size_t n)
{
	size_t skip = (uintptr_t)address & (page_round(1) - 1);
	int rc;

	do
		rc = result(msync((char *)address - skip, n + skip, MS_SYNC));
	while (rc == -EINTR);
	return rc;
}

static int os_file_forget(int fd, void *address, size_t n)
{
	/* EINVAL: of a process that locks its memory. */
	if (madvise(address, page_round(n), MADV_DONTNEED) &&
	    (errno != EINVAL || munlock(address, page_round(n)) ||
	     madvise(address, page_round(n), MADV_DONTNEED)))
		return -errno;
	return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* ---- sleeping ---- */

static int os_futex_wait(const uint32_t *word, uint32_t seen, uint64_t timeout_ns)
{
	struct timespec ts = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
			      .tv_nsec = (long)(timeout_ns % 1000000000u)};
	int rc = result(syscall(SYS_futex, word, FUTEX_WAIT, seen, &ts, NULL, 0));

	/* A signal counts as a wake: every caller looks again. */
	return rc == -EINTR ? 0 : rc;
}

static void os_futex_wake(const uint32_t *word, int count)
{
	syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

static void os_yield(void)
{
	(void)sched_yield();
}

static int os_fence_register(void)
{
	return result(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0));
}

static void os_fence_all(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* ---- identity and time ---- */

static uint64_t os_clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int os_random(void *buf, size_t n)
{
	char *p = buf;

	while (n) {
		ssize_t got = getrandom(p, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		p += got;
		n -= (size_t)got;
	}
	return 0;
}

/* At most n - 1 bytes of a small file of /proc. */
static int proc_read(const char *path, char *ret, size_t n)
{
	int fd = os_file_open(path, O_RDONLY, 0);
	ssize_t got;

	if (fd < 0)
		return fd;
	do
		got = read(fd, ret, n - 1);
	while (got < 0 && errno == EINTR);
	close(fd);
	if (got <= 0)
		return -EIO;
	ret[got] = 0;
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int os_boot_id(uint8_t ret[16])
{
	char text[64];
	unsigned count = 0;
	int rc = proc_read("/proc/sys/kernel/random/boot_id", text, sizeof(text));

	memset(ret, 0, 16);
	if (rc)
		return rc;
	for (const char *p = text; *p && count < 32; p++) {
		int digit = hex_digit(*p);

		if (digit >= 0) {
			ret[count / 2] = (uint8_t)(ret[count / 2] << 4 | digit);
			count++;
		}
	}
	if (count == 32)
		return 0;
	memset(ret, 0, 16);
	return -EIO;
}

static void os_process(uint32_t *ret_pid, uint64_t *ret_start_ticks, char ret_command[16])
{
	char text[1024];
	char *open_paren, *close_paren;
	unsigned field;

	*ret_pid = (uint32_t)getpid();
	*ret_start_ticks = 0;
	memset(ret_command, 0, 16);
	if (proc_read("/proc/self/stat", text, sizeof(text)))
		return;
	/* "pid (command) state ...": the command may hold anything, so the last parenthesis ends it. */
	open_paren = strchr(text, '(');
	close_paren = strrchr(text, ')');
	if (!open_paren || !close_paren || close_paren < open_paren)
		return;
	*close_paren = 0;
	memcpy(ret_command, open_paren + 1, strnlen(open_paren + 1, 15));
	/* Field 22; state, just behind the command, is field 3. */
	field = 2;
	for (const char *p = close_paren + 1; *p; p++)
		if (*p == ' ' && ++field == 22) {
			*ret_start_ticks = strtoull(p + 1, NULL, 10);
			return;
		}
}

static uint32_t os_thread(void)
{
	return (uint32_t)syscall(SYS_gettid);
}

const struct ph_os ph_os_linux = {
	.file_open = os_file_open,
	.file_close = os_file_close,
	.file_info = os_file_info,
	.file_network = os_file_network,
	.file_read = os_file_read,
	.file_write = os_file_write,
	.file_write_sync = os_file_write_sync,
	.file_truncate = os_file_truncate,
	.file_allocate = os_file_allocate,
	.file_punch = os_file_punch,
	.file_sync = os_file_sync,
	.file_create_unnamed = os_file_create_unnamed,
	.file_link = os_file_link,
	.file_unlink = os_file_unlink,
	.file_path = os_file_path,
	.folder_sync = os_folder_sync,
	.lock_set = os_lock_set,
	.lock_clear = os_lock_clear,
	.lock_test = os_lock_test,
	.map = os_map,
	.unmap = os_unmap,
	.map_scattered = os_map_scattered,
	.map_sync = os_map_sync,
	.file_forget = os_file_forget,
	.futex_wait = os_futex_wait,
	.futex_wake = os_futex_wake,
	.yield = os_yield,
	.fence_register = os_fence_register,
	.fence_all = os_fence_all,
	.clock_ns = os_clock_ns,
	.random = os_random,
	.boot_id = os_boot_id,
	.process = os_process,
	.thread = os_thread,
};
