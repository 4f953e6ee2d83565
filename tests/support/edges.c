/* SPDX-License-Identifier: MIT
 *
 * edges.c: see edges.h.
 */
#include "edges.h"

#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

#include "os.h"

static const struct ph_os *under;
static uint64_t count, last;
static void (*at_last)(void);

static void edge(void)
{
	if (++count == last)
		at_last();
}

#define WRAP(type, name, parameters, arguments) \
	static type e_##name parameters \
	{ \
		type rc; \
\
		edge(); \
		rc = under->name arguments; \
		edge(); \
		return rc; \
	}

WRAP(int, file_open, (const char *path, int flags, unsigned mode), (path, flags, mode))
WRAP(int, file_close, (int fd), (fd))
WRAP(int, file_info, (int fd, struct ph_file_info *ret), (fd, ret))
WRAP(int, file_read, (int fd, void *buf, size_t n, uint64_t off), (fd, buf, n, off))
WRAP(int, file_write, (int fd, const void *buf, size_t n, uint64_t off), (fd, buf, n, off))
WRAP(int, file_write_sync, (int fd, const void *buf, size_t n, uint64_t off), (fd, buf, n, off))
WRAP(int, file_truncate, (int fd, uint64_t size), (fd, size))
WRAP(int, file_allocate, (int fd, uint64_t off, uint64_t n), (fd, off, n))
WRAP(int, file_punch, (int fd, uint64_t off, uint64_t n), (fd, off, n))
WRAP(int, file_sync, (int fd), (fd))
WRAP(int, file_create_unnamed, (const char *path, unsigned mode, char *ret, size_t n), (path, mode, ret, n))
WRAP(int, file_link, (int fd, const char *temporary, const char *path), (fd, temporary, path))
WRAP(int, file_unlink, (const char *path), (path))
WRAP(int, folder_sync, (const char *path), (path))
WRAP(int, lock_set, (int fd, uint64_t off, bool exclusive, bool wait), (fd, off, exclusive, wait))
WRAP(int, lock_clear, (int fd, uint64_t off), (fd, off))
WRAP(int, lock_test, (int fd, uint64_t off), (fd, off))
WRAP(void *, map, (void *address, size_t n, bool writable, int fd, bool fixed, int *ret_rc),
     (address, n, writable, fd, fixed, ret_rc))
WRAP(int, unmap, (void *address, size_t n), (address, n))

void edges_arm(uint64_t k, void (*fn)(void))
{
	static struct ph_os os;

	if (!under) {
		under = ph_os;
		os = *under;
		os.file_open = e_file_open;
		os.file_close = e_file_close;
		os.file_info = e_file_info;
		os.file_read = e_file_read;
		os.file_write = e_file_write;
		os.file_write_sync = e_file_write_sync;
		os.file_truncate = e_file_truncate;
		os.file_allocate = e_file_allocate;
		os.file_punch = e_file_punch;
		os.file_sync = e_file_sync;
		os.file_create_unnamed = e_file_create_unnamed;
		os.file_link = e_file_link;
		os.file_unlink = e_file_unlink;
		os.folder_sync = e_folder_sync;
		os.lock_set = e_lock_set;
		os.lock_clear = e_lock_clear;
		os.lock_test = e_lock_test;
		os.map = e_map;
		os.unmap = e_unmap;
		ph_os = &os;
	}
	count = 0;
	last = k;
	at_last = fn;
}

uint64_t edges_count(void)
{
	return count;
}

void edges_die(void)
{
	(void)kill(getpid(), SIGKILL);
}
