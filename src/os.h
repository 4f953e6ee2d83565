/* SPDX-License-Identifier: MIT
 *
 * os.h: the platform seam. Every system call that touches a file, a lock, a clock or an identity goes
 * through one table.
 *
 * What: a table of functions; each returns what the call returns, or -errno. Code above never sees errno.
 * Why a table and not weak symbols: explorers swap it at run time, per process, to record stores and syncs,
 * to inject each errno at each call, and to make images byte-deterministic (uuid, boot id, inode, birth
 * time and command come from here and nowhere else).
 *
 * Invariants
 *   O1  No function here retries after EIO; EINTR is retried inside.
 *   O2  Nothing else in the library calls the kernel for files, locks, clocks or identity.
 */
#ifndef PH_OS_H
#define PH_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ph_file_info {
	uint64_t dev, inode;
	uint64_t birth_ns;  /* 0: unknown */
	uint64_t size;	    /* bytes */
	uint64_t allocated; /* bytes the file system has set aside */
	uint64_t link_count;
	bool regular, directory;
};

struct ph_os {
	/* Files. `flags` are those of open(2); the descriptor is >= 3 and close-on-exec. */
	int (*file_open)(const char *path, int flags, unsigned mode);
	int (*file_close)(int fd);
	int (*file_info)(int fd, struct ph_file_info *ret);
	int (*file_network)(
		int fd); /* 1: on a network or user-space file system that breaks mmap or locks; 0: no */
	int (*file_read)(int fd, void *buf, size_t n,
			 uint64_t off); /* 0, or -EIO and others; short: -ENODATA */
	int (*file_write)(int fd, const void *buf, size_t n, uint64_t off); /* all n bytes, not durable */
	int (*file_write_sync)(int fd, const void *buf, size_t n,
			       uint64_t off); /* all n bytes, durable on return */
	int (*file_truncate)(int fd, uint64_t size);
	int (*file_allocate)(int fd, uint64_t off,
			     uint64_t n); /* posix_fallocate: space exists and size reaches off + n */
	/* The space of [off, off + n) goes back to the file system, and the bytes read as zero; the size stays. */
	int (*file_punch)(int fd, uint64_t off, uint64_t n);
	int (*file_sync)(int fd);
	int (*file_create_unnamed)(const char *path, unsigned mode, char *ret_temporary,
				   size_t n); /* fd in path's folder; temporary "" if O_TMPFILE */
	int (*file_link)(int fd, const char *temporary,
			 const char *path); /* gives the unnamed file its name: -EEXIST if taken */
	int (*file_unlink)(const char *path);
	int (*file_path)(const char *path, char *ret,
			 size_t n);	      /* absolute and without links: -ENAMETOOLONG */
	int (*folder_sync)(const char *path); /* of the folder that holds path */

	/* Open-file-description locks on one byte. */
	int (*lock_set)(int fd, uint64_t off, bool exclusive, bool wait); /* -EAGAIN: held by another */
	int (*lock_clear)(int fd, uint64_t off);
	int (*lock_test)(int fd, uint64_t off); /* 1: another descriptor holds it, 0: nobody */

	/* Mappings. MAP_SHARED, not inherited by fork. */
	void *(*map)(void *address, size_t n, bool writable, int fd, bool fixed, int *ret_rc);
	int (*unmap)(void *address, size_t n);
	/* Advice: these pages of a mapping are used one by one, and holes are among them. */
	void (*map_scattered)(void *address, size_t n);
	int (*map_sync)(void *address, size_t n); /* these pages of a mapping are durable on return */
	/* The kernel forgets what it has of the file, and the next look at it reads the disk; nobody else has it mapped. */
	int (*file_forget)(int fd, void *address, size_t n);

	/* Sleeping. Timeouts in ns, relative; 0 on wake, -EAGAIN value differs, -ETIMEDOUT. Shared between
	 * processes. */
	int (*futex_wait)(const uint32_t *word, uint32_t seen, uint64_t timeout_ns);
	void (*futex_wake)(const uint32_t *word, int count);
	void (*yield)(void);	     /* lets others run */
	int (*fence_register)(void); /* membarrier registration, 0 or -errno */
	void (*fence_all)(void);     /* full barrier in every registered process */

	/* Identity and time. */
	uint64_t (*clock_ns)(void); /* monotonic */
	int (*random)(void *buf, size_t n);
	int (*boot_id)(uint8_t ret[16]); /* all zero and -errno when unreadable */
	void (*process)(uint32_t *ret_pid, uint64_t *ret_start_ticks, char ret_command[16]);
	uint32_t (*thread)(void);
};

/* A moment of a spinning waiter. */
static inline void ph_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

extern const struct ph_os ph_os_linux;
extern const struct ph_os *ph_os; /* &ph_os_linux unless a test replaced it */

#endif
