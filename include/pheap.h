/* SPDX-License-Identifier: MIT
 *
 * pheap.h: a heap in a file, shared by processes. The one reference for every call; pheap_typed.h adds
 * types to it.
 *
 * WHAT IT IS. One file is one heap. Every process that opens it maps it, allocates blocks in it and changes
 * them in transactions. A process may be killed at any instruction: a transaction is there as a whole or
 * not at all, nothing leaks, and the others go on. Pointers inside the file are offsets (pheap_off); what
 * is read, is read by plain loads. README.md begins with a whole program.
 *
 * CONST. What is read is const: pheap_at, pheap_find and pheap_root give const pointers, and only
 * pheap_modify and allocation give pointers to store through. So a forgotten pheap_modify does not compile.
 * A store that goes around it (a cast, past the range, through a pointer kept after the end) is not undone:
 * not on abort, and not after a death.
 *
 * DOOM. Every call that can fail returns 0 or a negative code: -errno, or an own code from -5001 down
 * (PHEAP_E*). In a transaction the first failure dooms it: later calls do nothing and return that code (or
 * NULL), pheap_commit rolls back and returns it, pheap_error tells it early. So a sequence of calls may be
 * checked once, at its end.
 *
 * ONE WAY OUT. pheap_commit, pheap_abort and pheap_end always end the transaction (or the nested level)
 * they are given. pheap_end(tx, rc) serves as the single exit of a function; pheap_run is begin, function,
 * end, and runs again on -EDEADLK. An error from pheap_commit means that nothing happened,
 * except PHEAP_EPOISONED of a SYNC heap: the flush failed, and whether the commit is on the disk is unknown.
 *
 * ISOLATION is chosen at begin and holds between threads and between processes:
 *	0			alone: no other transaction of any kind runs
 *	PHEAP_READ		changes nothing; others of this kind run too, nothing else does
 *	PHEAP_CONCURRENT	others of this kind run too; the caller locks what it uses: pheap_lock
 *	both			runs beside PHEAP_CONCURRENT ones, changes nothing: pheap_lock_shared
 * Reading outside of a transaction is isolated from nothing.
 *
 * DURABLE. A heap has one of three levels, from its creation on. At each of them a commit has survived the
 * death of every process, at any instruction, as soon as it is effective. What a power cut or a crash of the
 * kernel leaves:
 *	PHEAP_SYNC	the default: every commit that returned. Commits of all threads and processes that come
 *			together share one flush; pheap_commit_async does not wait for it
 *	PHEAP_EPOCH	all commits up to one of the last epoch_ms milliseconds (as long as somebody was attached), and
 *			none after it; a fifth slower than PHEAP_PROCESS. A thread of the library makes checkpoints
 *	PHEAP_PROCESS	nothing is promised: the heap is refused with PHEAP_EREBOOT, never silently opened;
 *			pheap-fsck decides. No flush is paid for
 * Checkpoints keep the journal from filling up. With SYNC a commit that finds it half full makes one before it returns, which
 * takes milliseconds; PHEAP_KEEPER has a thread of the library do that, beside commits. No checkpoint is made while the open
 * transactions together have changed more in place than a quarter of the journal: it should be larger than four times that.
 * A transaction of SYNC that has changed nothing ends when all that it can have seen is durable. With SYNC and
 * EPOCH the first store into a page after a checkpoint waits for a flush, once, unless a neighbour has brought it; one
 * transaction changes at most a quarter of the journal (journal_size), new blocks included, else -E2BIG: large new blocks, of
 * 64 KiB and more, mostly do not count. On file systems that live in memory (tmpfs) nothing survives. A sync that fails
 * makes the heap refuse all further changes, in all processes, with PHEAP_EPOISONED; reading goes on; when all have closed
 * it, the next open recovers what the disk has.
 * At every level: a new heap is on the disk when pheap_open returns, and everything when the last process has closed
 * it. A process that exits without pheap_close is a process that died: its open transactions are rolled back, its
 * commits stay, but the heap is not marked clean. A copy of the file made while somebody has it open is refused.
 *
 * THREADS. A handle serves all threads. A transaction belongs to the thread that began it; a thread has one
 * per heap, and may have one in each of several heaps. A thread that ends with a transaction open aborts
 * it. Each thread that uses a heap takes a lane of it (see lane_count) until it ends. pheap_close must not
 * run beside other calls on the handle.
 *
 * FORK. The child inherits neither mapping nor locks. Its handles accept pheap_close only (else
 * PHEAP_EFORKED, or NULL, or 0), its heap pointers point to nothing, and the parent's transactions are the
 * parent's: close and open again. The parent notices nothing. fork waits for a pheap_open or pheap_close in
 * another thread.
 *
 * SIGNALS. Nothing here is async-signal-safe. Calls that wait go on waiting when a signal was handled; none
 * gives -EINTR. A signal that kills in the middle of a transaction is a death like any other;
 * pheap_signals_defer lets transactions end first.
 *
 * DEATH. What a process leaves when it dies, however it dies, its survivors put right: its open transaction
 * is undone (or completed, if its commit had begun) before any of its locks is free, its held references
 * (pheap_hold) and its permits (pheap_permits_*) come back. They notice when they meet something that it had,
 * about a millisecond after the kernel has torn the process down, when somebody opens the heap, and in
 * pheap_recover. No process has to be there for this, and no daemon.
 *
 * LONGJMP, CANCELLATION. Jumping or throwing past the end of a transaction, also out of the function that
 * pheap_run calls, leaves it open: pheap_current finds it, and it must be ended. Do not jump out of a
 * pheap_on_end function, or out of a signal handler that interrupted a call. A thread may be cancelled
 * between calls (its transaction is aborted), not inside one: disable cancellation around them.
 *
 * CAVEATS
 *  - Space that a transaction freed is reused after its commit, not inside it: replacing all of a full heap
 *    in one transaction needs room for both. Exception: a block of at most 16 KiB allocated in this
 *    transaction since its latest savepoint is reused at once.
 *  - A loop that waits for the effect of its own stores must check pheap_error: once doomed they do
 *    nothing.
 *  - Stores in place (pheap_modify, pheap_store) are visible before the commit to whoever reads without a
 *    lock or a transaction that excludes them. Publish with pheap_defer_u64.
 *  - A store through an older pheap_modify pointer, made after a pheap_defer to the same bytes, loses: the
 *    deferred one is done at commit. A new pheap_modify or pheap_store puts things in call order.
 *  - The pointer to a transaction is the same each time for a thread and heap: one kept from before is not
 *    told from the new one.
 *  - Two heaps have independent transactions: no commit spans both. Begin them in the order of their uuids.
 *  - PHEAP_CONCURRENT locks nothing by itself; a block's offset is by convention the key of its lock.
 *  - C++ containers with an allocator on the heap are not crash-safe: their stores are not logged.
 *  - Network and user-space file systems (NFS, SMB, FUSE, ...) are refused. On btrfs a full disk can still
 *    be a SIGBUS when the file could not be kept out of copy-on-write.
 *  - The heap's descriptor belongs to the library: a program that closes it gets -EBADF and loses its
 *    locks.
 *  - Not in this version: PHEAP_GUARD. Asking for it is -EOPNOTSUPP.
 *  - Anybody who may write the file can break it. No code pointers in it.
 *
 * ABORTS. These misuses end the process with a sentence on stderr: a call with a handle that is NULL or
 * closed; a call with a transaction whose heap was closed (both until a later open uses the same memory);
 * pheap_cancel of what is not a reserved block of this process, or is being published. So does a broken
 * invariant of the library's own.
 *
 * ERRORS THAT MANY CALLS SHARE, named in brackets below
 *  [tx]     of every call with a transaction. -EINVAL: NULL; -EPERM: another thread's; PHEAP_EENDED: ended
 *           already; PHEAP_EFORKED: begun by the parent process; none of these dooms. Else the code that
 *           doomed it; and -EROFS, which dooms: the call changes something and the transaction was begun
 *           with PHEAP_READ.
 *  [space]  of calls that need room for blocks or in the log; each dooms. -ENOSPC: max_size is reached, or
 *           the file can not grow (disk full, quota, RLIMIT_FSIZE); -ENOMEM: the process's memory; -E2BIG:
 *           more than 32 GiB of log in one transaction, or with a journal more than a quarter of that; -EUSERS: all lanes are in use; -ETIMEDOUT: another
 *           process keeps the file's growth to itself for lock_timeout_ms; -EBADF: the heap's descriptor
 *           was closed; PHEAP_ECORRUPT; and what fallocate(2) or fcntl(2) gives, as -EIO.
 *  [wait]   of calls that wait for others. -ETIMEDOUT: lock_timeout_ms passed, the holder lives (the
 *           sentence names it). A holder that died is recovered on the way, which can fail: PHEAP_ECORRUPT
 *           (from then on pheap_begin gives PHEAP_EPOISONED), -ENOMEM, and what fcntl(2) gives, as -EBADF.
 *
 * ABI. Flags are macros of fixed value, in disjoint groups; fixed widths, no enum, no struct by value.
 * Structs carry their size and only grow at the end. The first word of a handle and of a transaction is the
 * mapping's base, for ever. C11 or C++17, 64-bit little-endian Linux. -DPHEAP_NO_MACROS leaves out the
 * typed layer, for bindings.
 */
#ifndef PHEAP_H
#define PHEAP_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PHEAP_VERSION 0x000001u /* major << 16 | minor, of this header */

#ifdef __cplusplus
extern "C" {
/* pheap_info and pheap_stats are structs and functions, as stat is: g++ -Wshadow says so. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#endif

#define PHEAP_API __attribute__((visibility("default")))
/* Ignoring the result is a bug. */
#define PHEAP_MUST __attribute__((visibility("default"), warn_unused_result))

typedef struct pheap pheap;		    /* an open heap; one per file and process, for all threads */
typedef struct pheap_tx pheap_tx;	    /* an open transaction; of one thread */
typedef struct pheap_permits pheap_permits; /* a counting semaphore in a heap */
typedef uint64_t pheap_off;		    /* bytes from the start of the heap; 0 is null */
typedef uint64_t pheap_savepoint_id;	    /* of a savepoint in one transaction */

/* --- flags: a flag given to a call of another group is -EINVAL ---------------------------------------- */

/* pheap_open */
#define PHEAP_CREATE 0x01u    /* make the heap if there is no such file */
#define PHEAP_EXCL 0x02u      /* with CREATE: -EEXIST if there is one */
#define PHEAP_RDONLY 0x04u    /* map it PROT_READ; transactions must be PHEAP_READ */
#define PHEAP_EPHEMERAL 0x08u /* creation: the heap goes with its last user; see pheap_open */
#define PHEAP_FIXED 0x10u     /* creation: record an address; every open maps it there, or is -EBUSY */
#define PHEAP_GUARD 0x20u     /* not in this version: -EOPNOTSUPP */
#define PHEAP_KEEPER \
	0x40u /* SYNC: a thread makes this process's checkpoints, until the last close; see DURABLE */

/* pheap_begin, pheap_run; see ISOLATION above */
#define PHEAP_CONCURRENT 0x10000u /* runs beside others of its kind; the caller locks keys */
#define PHEAP_READ 0x20000u	  /* changes nothing */
#define PHEAP_NEST 0x40000u	  /* inside a transaction of this thread: a level of it; else no effect */
#define PHEAP_NOWAIT 0x80000u	  /* -EAGAIN instead of waiting */

/* Durability: in pheap_open's flags or in its options; see DURABLE. 0: the heap's, at creation PHEAP_SYNC, with
 * PHEAP_EPHEMERAL PHEAP_PROCESS. */
#define PHEAP_PROCESS 0x1000000u /* commits survive the death of processes */
#define PHEAP_EPOCH 0x2000000u	 /* and power cuts, but for the last epoch_ms */
#define PHEAP_SYNC 0x3000000u	 /* and power cuts */

/* --- codes of its own: all others are -errno ---------------------------------------------------------- */

#define PHEAP_ECORRUPT (-5001) /* the file is damaged: pheap-fsck */
#define PHEAP_EFORMAT (-5002)  /* not a heap, or a format or feature that this library does not know */
#define PHEAP_ELAYOUT (-5003)  /* layout, a type, or a root's type or size differ from the file's */
#define PHEAP_EREBOOT (-5004)  /* open when the machine went down, or copied while open: pheap-fsck */
#define PHEAP_EPOISONED \
	(-5005)		      /* a recovery or a sync failed: no more changes; open it anew, or pheap-fsck */
#define PHEAP_EFORKED (-5006) /* a handle, or a transaction, of the parent process */
#define PHEAP_EACTIVE (-5007) /* a transaction is open: of this thread (begin), of the process (close) */
#define PHEAP_EENDED (-5008)  /* the transaction has ended */
#define PHEAP_EUNLOGGED (-5009) /* of PHEAP_GUARD; not given by this version */
#define PHEAP_EFOREIGN (-5010)	/* the bytes are not in the data of this heap */

/* --- structs ------------------------------------------------------------------------------------------ */

/*
 * One row of the table of types, kept in the heap: pheap_open compares it with what the file has,
 * pheap-fsck follows the pointers of such blocks, and dumps speak of types by name. Rows are added, never
 * changed or removed.
 */
struct pheap_type {
	uint32_t number;	  /* 1 to 65535, as given at allocation */
	uint32_t align;		  /* bytes; a power of two */
	uint64_t size;		  /* bytes, at least 1; blocks of several such are arrays */
	const char *name;	  /* 1 to 63 bytes */
	const uint32_t *ptr_offs; /* byte offsets of its pheap_off fields: multiples of 8 */
	uint64_t ptr_count;	  /* entries of ptr_offs, at most size / 8 */
};

/*
 * What pheap_open may be told. Start from PHEAP_OPTIONS_INIT; 0 or NULL is the default. Creation: looked at
 * only when this call makes the heap.
 */
struct pheap_options {
	/* sizeof(struct pheap_options). A field set that the library does not know: -E2BIG. */
	uint64_t size;
	/* 0 or a level; not another one than the flags say, or than the heap's. */
	uint32_t durability;
	/* Creation: permission bits, before the umask. 0: 0600. */
	uint32_t mode;
	/* Creation: bytes of the file to begin with, about. 0: 4 MiB, or max_size if that is less. */
	uint64_t initial_size;
	/* Creation: bytes it may grow to and that every process maps, for ever; 65536 to 2^46.
	 * 0: 4 GiB, or 16 times an initial_size above 256 MiB. */
	uint64_t max_size;
	/* Creation. SYNC, EPOCH: bytes of the journal, and as many again in memory and file for its ring; 32768 to 2^40. A
	 * quarter of it bounds a transaction, half of it is what makes a checkpoint. 0: 16 MiB, or a quarter of initial_size if
	 * that is given; at most 1/16 of max_size. PROCESS: bytes kept aside for long logs. With them up to 1/42 of the heap
	 * holds no blocks, enough to free all of them in one transaction. 0: 1/64 of initial_size, 4 KiB to 1 MiB. */
	uint64_t journal_size;
	/* Creation. EPOCH: milliseconds of commits that a power cut may take. 0: 5000. SYNC: milliseconds after which a commit
	 * makes a checkpoint though the journal has room, so that recovery has little to do. 0: 30000. */
	uint32_t epoch_ms;
	/* Milliseconds until a wait for somebody who lives is -ETIMEDOUT, for all threads of this
	 * process and for pheap_open itself; as its first open of the file said. 0: 10000. */
	uint32_t lock_timeout_ms;
	/* Name of the program's format, at most 63 bytes; stored at creation. Another one than the
	 * stored one, and neither of them empty: PHEAP_ELAYOUT. */
	const char *layout;
	/* type_count rows, read during the call only; added where the heap lacks them (not RDONLY). */
	const struct pheap_type *types;
	uint64_t type_count;
	/* Creation: processes that can be attached at once, at most 4096. 0: 4, 32, 320 or 512, for an
	 * initial_size below 1 MiB, 16 MiB, 1 GiB, or not; one that may grow to 64 MiB counts as 16 MiB, so a heap
	 * without options has 320. */
	uint32_t member_count;
	/* Creation: lanes, at most 16383. Each thread that uses the heap takes one until it ends, and each
	 * process one more once an allocation had to make room. 0: 8, 64, 1408 or 2048, by the same sizes, and at least 4 for each
	 * of member_count. */
	uint32_t lane_count;
	/* Creation: locks that keys are spread over (pheap_lock), a power of two up to 2^20, 64 bytes each.
	 * Two keys that share one exclude each other needlessly. 0: 16, 256, 1024 or 4096, by the same sizes. */
	uint32_t stripe_count;
	uint32_t reserved; /* 0 */
};
#define PHEAP_OPTIONS_INIT \
	{ \
		sizeof(struct pheap_options), 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 0, 0, 0, 0, 0 \
	}

/* What pheap_info fills in. Counters start when this process opened the heap. */
struct pheap_info {
	uint64_t size;		    /* bytes of this struct that were filled in */
	uint8_t uuid[16];	    /* of the heap; a copy of the file has the same */
	const void *base;	    /* address of the mapping in this process */
	uint64_t file_size;	    /* bytes of the file now */
	uint64_t max_size;	    /* bytes it may grow to */
	uint64_t chunk_count;	    /* chunks that the file backs now */
	uint64_t chunk_size;	    /* bytes of one: 4096 */
	uint32_t durability;	    /* PHEAP_PROCESS, PHEAP_EPOCH or PHEAP_SYNC */
	uint32_t format_version;    /* of the file: major << 16 | minor */
	char layout[64];	    /* as stored at creation; "" if none */
	uint64_t member;	    /* as pheap_member */
	uint64_t recovered_back;    /* unfinished transactions of the dead that this process rolled back */
	uint64_t recovered_forward; /* committed ones that it completed */
	uint64_t recovery_ns;	    /* nanoseconds these recoveries took */
	uint64_t open_ns;	    /* nanoseconds the first pheap_open took */
	uint32_t member_max;	    /* member_count of the creation */
	uint32_t lane_max;	    /* lane_count of the creation */
	uint32_t read_only;	    /* 1: PHEAP_RDONLY */
	uint32_t was_clean;	    /* 1: nobody had the heap open, and the last one had closed it */
};

/* What pheap_stats fills in: sums made beside running transactions, not a snapshot. */
struct pheap_stats {
	uint64_t size;		     /* bytes of this struct that were filled in */
	uint64_t file_size;	     /* bytes of the file; 0: asking failed */
	uint64_t allocated_size;     /* bytes in the user's blocks, by usable size */
	uint64_t free_size;	     /* bytes in free chunks and in free blocks of runs */
	uint64_t block_count;	     /* the user's blocks */
	uint64_t run_count;	     /* rows of chunks cut into blocks of one size and type; all of them */
	uint64_t extent_count;	     /* blocks that are whole chunks */
	uint64_t free_chunk_count;   /* chunks */
	uint64_t free_chunk_run_max; /* chunks in the longest row of free ones */
	uint64_t journal_size;	     /* bytes of lane logs and journal */
	uint64_t directory_size; /* bytes of the chunk directory for max_size; the file has what it needs */
	uint64_t tx_count;	 /* transactions begun since creation, about; the library's own too */
	uint64_t private_size;	 /* bytes of this process's memory used for this heap, about */
	uint32_t member_count;	 /* processes attached now, or dead and not recovered yet */
	uint32_t lane_count;	 /* lanes taken now */
	/* Of SYNC and EPOCH, since the first open after the heap was closed or the machine went down. */
	uint64_t journal_used;	   /* bytes of the journal in use */
	uint64_t flush_count;	   /* flushes of the journal */
	uint64_t flush_ns;	   /* nanoseconds spent in them */
	uint64_t flush_size;	   /* bytes written by them */
	uint64_t commit_count;	   /* SYNC: commits in the journal; / flush_count: how many share a flush */
	uint64_t commit_size;	   /* SYNC: bytes of their records */
	uint64_t image_size;	   /* bytes of images of pages */
	uint64_t checkpoint_count; /* checkpoints */
	uint64_t checkpoint_ns;	   /* nanoseconds spent in them */
	uint64_t stall_count; /* times that a call waited for room in the journal, or made a checkpoint */
	uint64_t stall_ns;    /* nanoseconds, together */
	/* 99 of 100 took less than this: 0.8 ms, 1.6, 3.1, 6.3, 13, 25, 50, 100, 200, or the longest. */
	uint64_t stall_p99_ns;
	uint64_t stall_max_ns;
	uint64_t hole_chunk_count; /* of the free chunks those that pheap_trim gave back */
};

/* --- opening and closing ------------------------------------------------------------------------------ */

/*
 * Opens the heap in the file `path`, or makes one (PHEAP_CREATE). opt may be NULL. Recovers what dead
 * processes left, in time proportional to what was in flight. Maps max_size bytes of address space at a
 * multiple of 2 MiB.
 *
 * A file that this process has open already gives the same handle again, counted: each open needs its
 * close; of opt, only durability, layout and types are looked at, and PHEAP_RDONLY must be the same as
 * before.
 * PHEAP_RDONLY joins the others where the file may be written (a reader, too, has to be able to recover).
 * Where it may not, only a heap is opened that was closed cleanly and that nobody has open; then nothing
 * keeps a process that may write it from opening it later, and no transaction here isolates from that one.
 * PHEAP_EPHEMERAL with PHEAP_CREATE makes a heap that goes with its last user: the last pheap_close removes
 * the file. If all users were killed the file stays, but not the heap: the next open removes it, and makes a
 * new one or (without PHEAP_CREATE) is -ENOENT. At no moment do two processes that opened the same name have
 * different heaps. Every open of such a heap joins it, with the flag or without; the flag with a heap
 * that was made without it is -EINVAL.
 *
 * Durable on return: a new heap, name included; nothing else. Any thread, also beside other opens and
 * closes.
 *
 * Returns 0, or (with *ret NULL if ret is not NULL; pheap_error_detail(NULL) says more)
 *  -EINVAL      path or ret NULL; flags of other calls, CREATE with RDONLY, EXCL without CREATE, EPHEMERAL
 *               with a heap that is not; a bad size, mode, count, durability, layout or type in opt; not a regular file
 *  -E2BIG       opt->size above 4096, or a field set that this library does not know
 *  -EOPNOTSUPP  a flag, a durability or a heap that this version does not support; a network or user-space
 *               file system; membarrier(2) forbidden here while other members rely on it
 *  -EEXIST      EXCL, and the file exists
 *  -ENOENT      no such file (or an ephemeral heap whose users died), and no CREATE; or it was removed, or came and went, meanwhile
 *  -EACCES, -EPERM, -EROFS  the file may not be written, and was not opened with RDONLY or needs recovery
 *                           or is in use
 *  -EBUSY       the address of a PHEAP_FIXED heap is taken; or this process has it open the other way
 *               (RDONLY or not)
 *  -EUSERS      member_count processes are attached; or no lane is free to store types
 *  -ETIMEDOUT   a process that is opening or closing the heap does not get on; or storing types waited too
 *               long
 *  -ENOMEM      memory, or address space
 *  -ENOSPC, -EDQUOT, -EFBIG, -EIO  making the heap, filling holes of a sparse copy, noting that it is open,
 *                                  or storing types
 *  PHEAP_EFORMAT, PHEAP_ECORRUPT, PHEAP_EREBOOT, PHEAP_EPOISONED, PHEAP_ELAYOUT   as above
 *  PHEAP_EACTIVE  new types, and this thread has a transaction open in the heap
 *  others of open(2), statx(2), fcntl(2), mmap(2), pread(2), pwritev2(2), fsync(2), linkat(2), as -EMFILE
 *  or -EISDIR
 */
PHEAP_MUST int pheap_open(const char *path, uint32_t flags, const struct pheap_options *opt, pheap **ret);

/*
 * Gives back one pheap_open; the last one of the process unmaps the heap: pointers into it and its
 * transactions are dead from then on, blocks that were reserved are free. No other thread may use the
 * handle meanwhile. NULL is fine. In the child of a fork: frees the handle, never fails.
 * Durable on return, if no other process has the heap open: everything; the heap is marked clean. That
 * takes as long as writing out what is dirty. Waits for a process that is opening or closing, without
 * limit.
 *
 * Returns 0, or
 *  PHEAP_EACTIVE    this is the process's last handle of the heap, and a thread has a transaction open in
 *                   it; the handle stays open
 * and, with the handle closed all the same and pheap_error_detail(NULL) saying more,
 *  PHEAP_EPOISONED  an earlier failure: the heap is not marked clean
 *  PHEAP_ECORRUPT   the state sector, or what a dead process left, is damaged: not marked clean
 *  -EBADF           the descriptor was closed by somebody else
 *  -EIO, -ENOSPC and others of fsync(2), pwritev2(2), pread(2), fcntl(2); -ENOMEM: not marked clean
 */
PHEAP_API int pheap_close(pheap *h);

/*
 * Facts about an open heap, without looking at its blocks. Fills at most ret_size bytes; give sizeof *ret.
 * Returns 0, or -EINVAL (ret NULL or ret_size below 8), PHEAP_EFORKED, what statx(2) gives.
 */
PHEAP_API int pheap_info(const pheap *h, struct pheap_info *ret, size_t ret_size);

/*
 * The open heap of this process whose mapping (max_size bytes) holds the address p, or NULL. Takes a
 * process-wide lock.
 */
PHEAP_API pheap *pheap_of(const void *p);

/* Of the library that is linked; PHEAP_VERSION is of the header. */
PHEAP_API uint32_t pheap_version(void);

/* --- offsets and roots: what is read is const --------------------------------------------------------- */

/*
 * The address of offset off; NULL for 0. Checks nothing: h must be open, off of this heap. One load and an
 * add. Exported as well, for bindings.
 */
PHEAP_API inline const void *pheap_at(const pheap *h, pheap_off off)
{
	return off ? *(const char *const *)(const void *)h + off : NULL;
}

/* The offset of address p; 0 for NULL and for what is not in the data of this heap. */
PHEAP_API pheap_off pheap_offset(const pheap *h, const void *p);

/*
 * The block that `name` (1 to 63 bytes) means, of n bytes and that type. If there is none, allocates it,
 * zeroed, aligned as pheap_alloc does, and gives it the name, at commit; two transactions that create the
 * same name get one block. A block bound by pheap_root_set fits if it has at least n bytes, one made here
 * if it was made with the same n. A name costs a hash and a short list: meant for tens of names, not for
 * millions.
 *
 * Returns NULL and dooms:
 *  -EINVAL        the name; n is 0 or above max_size; type above 65535
 *  -ENOENT        there is none, and the transaction is PHEAP_READ
 *  PHEAP_ELAYOUT  it has another type or size
 *  PHEAP_ECORRUPT it names what is not a block (freed while a name meant it, or a damaged file)
 *  -EDEADLK, [wait]  creating in a PHEAP_CONCURRENT transaction: a lock of names is held to its end
 *  [tx], [space]
 */
PHEAP_MUST const void *pheap_root(pheap_tx *tx, const char *name, size_t n, uint32_t type);

/*
 * From the commit on `name` means block p; NULL removes the name, if it is there. This transaction sees it
 * at once. The block is neither copied nor kept alive: whoever frees it should remove the name as well.
 * Names are never given back: each new one costs 88 bytes for ever, one that is used again costs nothing.
 * Returns 0, or -EINVAL (the name; p is not the start of an allocated block), PHEAP_EFOREIGN, -EDEADLK
 * (PHEAP_CONCURRENT: the lock of names), [tx], [space], [wait].
 */
PHEAP_API int pheap_root_set(pheap_tx *tx, const char *name, const void *p);

/*
 * What the name means, or NULL: no such name, not a name, forked handle. Needs no transaction; sees the
 * names that this thread's open transaction has set. Checks neither type nor size, and nothing holds the
 * block still.
 */
PHEAP_API const void *pheap_find(const pheap *h, const char *name);

/*
 * Replaces name by the next committed name, in no order; "" gives the first. Names made meanwhile may be
 * missed.
 *	for (char name[64] = ""; pheap_root_next(h, name) == 0;) ...
 * Returns 0, -ENOENT at the end, or -EINVAL (NULL, longer than 63 bytes, a name that never was),
 * PHEAP_ECORRUPT, PHEAP_EFORKED.
 */
PHEAP_API int pheap_root_next(const pheap *h, char name[64]);

/* --- transactions ------------------------------------------------------------------------------------- */

/*
 * Begins a transaction of this thread, with PHEAP_CONCURRENT, READ, NEST, NOWAIT or 0 (see ISOLATION).
 * Waits for those that it excludes, at most lock_timeout_ms; dead ones are rolled back on the way.
 *
 * PHEAP_NEST inside an open transaction begins a level of it and gives the same pointer: pheap_commit then
 * keeps the level's changes as part of the outer one, pheap_abort takes them back and lifts a doom that
 * came in the level. The mode is the outer one's: a level with 0 inside a PHEAP_CONCURRENT transaction is
 * not alone.
 *
 * Returns 0, or (nothing begun)
 *  -EINVAL          ret NULL; flags of other calls
 *  -EROFS           the heap is PHEAP_RDONLY, or the outer transaction PHEAP_READ, and flags lack
 *                   PHEAP_READ
 *  PHEAP_EACTIVE    this thread has one open in this heap, and no PHEAP_NEST
 *  -EAGAIN          PHEAP_NOWAIT, and it would wait; or no pthread key is left in the process
 *  PHEAP_EPOISONED  a recovery failed; PHEAP_READ is still possible
 *  -EUSERS, -ENOMEM, PHEAP_ECORRUPT  the thread's first: no lane is free, no memory, a damaged lane. A
 *                                    level: -ENOMEM dooms
 *  PHEAP_EFORKED, [wait]; a level: the code that doomed the outer one
 */
PHEAP_MUST int pheap_begin(pheap *h, uint32_t flags, pheap_tx **ret);

/*
 * Ends the transaction: all of it happened when this returns 0, nothing of it when it returns an error.
 * Order: deferred stores, allocations and frees take effect, pheap_defer_u64 last; locks go; watchers are
 * woken; pheap_on_end functions run. Needs no space. Durable on return: see DURABLE. A nested level: see
 * pheap_begin.
 * Returns 0, or, rolled back: the code that doomed it; -EINVAL: a block freed here was freed by another
 * transaction meanwhile; [wait]; [space]. PHEAP_EPOISONED: see DURABLE. Or, nothing ended: the first four of [tx].
 */
PHEAP_MUST int pheap_commit(pheap_tx *tx);

/*
 * As pheap_commit, but returns when the commit is effective, and visible to others, not when it is durable. *ret_lsn, if
 * ret_lsn is not NULL, is for pheap_wait; 0 with PHEAP_PROCESS.
 */
PHEAP_MUST int pheap_commit_async(pheap_tx *tx, uint64_t *ret_lsn);

/*
 * Ends the transaction, or the level, and takes back all it did. Always works, on a full heap too. NULL is
 * fine; a transaction that has ended or is not this thread's is left alone.
 */
PHEAP_API void pheap_abort(pheap_tx *tx);

/*
 * rc 0: pheap_commit. Else pheap_abort, and returns rc, or if nothing could be ended the first four of
 * [tx].
 */
PHEAP_MUST int pheap_end(pheap_tx *tx, int rc);

/*
 * pheap_begin(h, flags), rc = fn(tx, arg), pheap_end(tx, rc). All of it again, up to 1000 times, when that
 * gives -EDEADLK and it was not nested: fn must be able to start over, and should return pheap_error(tx)
 * when a call of its own failed. fn must not end the transaction.
 * Returns what pheap_begin, fn (if not 0) or pheap_commit returned; -EINVAL: fn is NULL.
 */
PHEAP_MUST int pheap_run(pheap *h, uint32_t flags, int (*fn)(pheap_tx *tx, void *arg), void *arg);

/*
 * Waits until the commit that returned lsn is durable, and all before it; timeout_ms -1: as long as it takes, 0: asks. With
 * PHEAP_EPOCH that is a checkpoint, which this call makes if nobody does.
 * Returns 0 (at once with lsn 0), or -EAGAIN, -ETIMEDOUT: not yet; -EINVAL (no commit returned that), PHEAP_EPOISONED,
 * PHEAP_EFORKED.
 */
PHEAP_API int pheap_wait(pheap *h, uint64_t lsn, int32_t timeout_ms);

/*
 * Marks a place to come back to. What was modified or allocated before it must be made writable again after
 * it, and its old value is kept again: set few.
 * Returns 0, or -EINVAL (ret NULL; dooms), -ENOMEM (dooms), [tx] without -EROFS.
 */
PHEAP_MUST int pheap_savepoint(pheap_tx *tx, pheap_savepoint_id *ret);

/*
 * Takes back what was done since savepoint sp, allocations and pheap_publish included, and lifts a doom
 * that came after it. sp stays and can be used again; later savepoints are gone. Locks stay, pheap_notify
 * stays, pheap_on_end functions registered since will be told 0.
 *	if (pheap_savepoint(tx, &sp) == 0 && try_it(tx))
 *		pheap_rollback(tx, sp);		// as if it had not been tried
 * Returns 0, or -EINVAL (dooms: no such savepoint here, gone, or of an outer level), the first four of
 * [tx].
 */
PHEAP_API int pheap_rollback(pheap_tx *tx, pheap_savepoint_id sp);

/*
 * After the outermost end, with all locks gone, fn(arg, 1) if committed, else fn(arg, 0), in the order of
 * registration. Runs in this thread, also while it exits; fn may begin a new transaction and must return;
 * at thread exit it must not call pheap_open, pheap_close or fork. If the process dies it never runs.
 * Returns 0, or -EINVAL (fn NULL; dooms), -ENOMEM (dooms), [tx] without -EROFS.
 */
PHEAP_MUST int pheap_on_end(pheap_tx *tx, void (*fn)(void *arg, int committed), void *arg);

/* This thread's open transaction in h, or NULL (also on a forked handle). */
PHEAP_API pheap_tx *pheap_current(const pheap *h);

/* The heap of the transaction, open or ended; NULL for NULL. Any thread. */
PHEAP_API pheap *pheap_heap(const pheap_tx *tx);

/* What doomed it, or 0. NULL: -EINVAL; ended: PHEAP_EENDED. */
PHEAP_API int pheap_error(const pheap_tx *tx);

/* --- changing memory: p and dst are const, because only these calls take the const away --------------- */

/*
 * Makes the n bytes at p writable in this transaction: keeps their old value, returns p without const.
 * Store through it until the transaction ends or a savepoint is set or rolled back to; then ask again.
 * Byte-exact: not a byte more. Free of cost where the bytes were allocated or modified already since the
 * latest savepoint. That they belong to an allocated block is not checked. n 0 returns p; a NULL p returns
 * NULL and dooms nothing. Deferred stores to these bytes are done now. Returns NULL and dooms:
 * PHEAP_EFOREIGN, [tx], [space].
 */
PHEAP_MUST void *pheap_modify(pheap_tx *tx, const void *p, size_t n);

/*
 * pheap_modify, then copies n bytes from src, which may overlap dst. The next load sees them. Eight bytes
 * at a multiple of 8 are one store: nobody sees half of it.
 * Returns 0, or -EINVAL (dooms: dst NULL, or src NULL and n not 0), PHEAP_EFOREIGN, [tx], [space].
 */
PHEAP_API int pheap_store(pheap_tx *tx, const void *dst, const void *src, size_t n);

/*
 * At commit, stores the n bytes that src holds now; until then everybody, this transaction too, loads the
 * old ones. Overlapping calls act as if in call order: a later pheap_modify or pheap_store of these bytes,
 * pheap_realloc or pheap_free of the block, does the deferred store first, at once.
 * Returns 0 (also for n 0), or -EINVAL (dooms: NULL), PHEAP_EFOREIGN, [tx], [space].
 */
PHEAP_API int pheap_defer(pheap_tx *tx, const void *dst, const void *src, size_t n);

/*
 * At commit, after everything else of this transaction, one atomic release store of value to *dst, a
 * multiple of 8. This is publication: who loads the word with acquire (PHEAP_LOAD) and without any lock
 * sees all that the transaction did to what it leads to. This version has no call that keeps freed blocks
 * from being reused under such a reader.
 * Returns 0, or -EINVAL (dooms: NULL, not a multiple of 8), PHEAP_EFOREIGN, [tx], [space].
 */
PHEAP_API int pheap_defer_u64(pheap_tx *tx, const uint64_t *dst, uint64_t value);

/* --- allocation --------------------------------------------------------------------------------------- */

/*
 * A block of at least n bytes, allocated if and only if the transaction commits. type: 0 (untyped) to
 * 65535; blocks of a type can be walked with pheap_next. Its bytes are whatever was there; store to them
 * freely until a savepoint is set, then use pheap_modify. Address: a multiple of 8, of 16 if n is a
 * multiple of 16 or above 128, of 4096 if n is above 16384. n is rounded up: to 16 at least, by 8 to 128,
 * by 16 to 1024, by at most 1/8 to 16384, then to 4096s; in a heap that is nearly full to at most twice that.
 * Returns NULL and dooms: -EINVAL (n 0, type above 65535), -ENOSPC (also: n above max_size), [tx], [space].
 */
PHEAP_MUST void *pheap_alloc(pheap_tx *tx, size_t n, uint32_t type);

/* As pheap_alloc; all usable bytes are 0. */
PHEAP_MUST void *pheap_zalloc(pheap_tx *tx, size_t n, uint32_t type);

/*
 * As pheap_alloc, at a multiple of align: a power of two up to 2 MiB, else -EINVAL. The same in every
 * process.
 */
PHEAP_MUST void *pheap_alloc_aligned(pheap_tx *tx, size_t align, size_t n, uint32_t type);

/*
 * As pheap_alloc, with n bytes copied from src, in the heap or not; NULL is -EINVAL. A string:
 * n = strlen(s) + 1.
 */
PHEAP_MUST void *pheap_dup(pheap_tx *tx, const void *src, size_t n, uint32_t type);

/*
 * The block p with n bytes, moved if need be: the result has its type and its first bytes, what is new has
 * any value, and all n may be stored to as after pheap_modify. If it moved, p is freed at commit, and
 * pointers to it in the heap are the caller's to change. Address: a multiple of 8 (4096 above 16384 bytes);
 * an alignment asked for is not kept.
 * Returns NULL and dooms: -EINVAL (p NULL or not the start of an allocated block; n 0), PHEAP_EFOREIGN,
 * -ENOSPC (also: n above max_size), -EBUSY and others where p would be freed or cut (pheap_free), [tx], [space].
 */
PHEAP_MUST void *pheap_realloc(pheap_tx *tx, const void *p, size_t n);

/*
 * Frees block p at commit; until then it keeps its bytes and its space (one allocated since the latest
 * savepoint: not). From the commit on anybody may reuse it, also while others still look at it. NULL is
 * fine.
 * Returns 0, or (each dooms) -EINVAL: not the start of an allocated block, freed already; PHEAP_EFOREIGN;
 * -EBUSY, -EDEADLK, [wait]: see pheap_hold; [tx]; [space] (not for want of room on a full heap, unless other
 * long transactions use up what is kept for logs; a heap below 42 chunks has its journal only).
 */
PHEAP_API int pheap_free(pheap_tx *tx, const void *p);

/*
 * A block outside of any transaction, to be filled without holding up anybody: stores need no pheap_modify.
 * It belongs to this process (any thread) until pheap_publish or pheap_cancel; pheap_close and death take
 * it back. Contents, sizes and alignment as pheap_alloc. Takes a lane for the thread.
 * Returns NULL, dooming nothing; pheap_error_detail(h) says why: n 0 or above max_size, type above 65535,
 * heap PHEAP_RDONLY, forked handle, or for want of space, memory or a lane.
 *	void *p = pheap_reserve(h, n, 7);
 *	... read(fd, p, n) ...
 *	then, in a short transaction: pheap_publish(tx, p), and store its offset somewhere
 */
PHEAP_MUST void *pheap_reserve(pheap *h, size_t n, uint32_t type);

/*
 * The reserved block p becomes an allocated one if the transaction commits, and stays reserved if not.
 * Returns 0, or -EINVAL (dooms: not reserved by this process, or being published), PHEAP_EFOREIGN (NULL
 * too), [tx], [space].
 */
PHEAP_API int pheap_publish(pheap_tx *tx, void *p);

/*
 * Gives back the reserved block p. NULL is fine. What is not reserved by this process, or is being
 * published, aborts.
 */
PHEAP_API void pheap_cancel(pheap *h, void *p);

/*
 * Bytes that block p holds, at least what was asked for; 0: not the start of a block that is allocated, as
 * this thread's transaction sees it, or reserved by this process. More than was asked for may be used,
 * after pheap_modify.
 */
PHEAP_API size_t pheap_usable_size(const pheap *h, const void *p);

/* The type that block p was allocated with; 0 also where pheap_usable_size is 0. */
PHEAP_API uint32_t pheap_type_of(const pheap *h, const void *p);

/*
 * The next allocated block of the type (UINT32_MAX: of any) behind prev, by address; NULL prev: the first;
 * NULL: no more, prev not in this heap, forked handle. As this thread's transaction sees it: its own are
 * found, what it freed is not, so prev may be freed inside the loop. Not for reserved blocks. Others'
 * commits change the answers meanwhile, unless the transaction excludes them.
 */
PHEAP_API const void *pheap_next(const pheap *h, uint32_t type, const void *prev);

/* --- isolation between threads and processes ---------------------------------------------------------- */

/*
 * Locks n keys for this transaction alone, to its end, also across pheap_rollback. A key is any number, by
 * convention the offset of an object: then its memory is fetched while the lock is taken. Keys share a fixed set
 * of locks (stripe_count), so two of them may exclude each other for no reason. One call takes its keys in an order of its own: give it all of them if you can.
 * Again is a no-op. No effect where the mode isolates already (0). With the same key shared: waits for the
 * other sharers.
 * Returns 0, or (each dooms) -EDEADLK: this one is to end and run again, see pheap_run; -EINVAL: keys NULL
 * and n not 0; -EROFS: PHEAP_READ; -ENOMEM; [wait]; or [tx].
 */
PHEAP_MUST int pheap_lock(pheap_tx *tx, const uint64_t *keys, size_t n);

/*
 * As pheap_lock, beside others that lock the key shared. Allowed with PHEAP_READ, and without effect unless
 * CONCURRENT.
 */
PHEAP_MUST int pheap_lock_shared(pheap_tx *tx, const uint64_t *keys, size_t n);

/*
 * Sleeps while *word (in the heap, a multiple of 8) is `seen`. Woken by a commit with pheap_notify(tx,
 * word); any other change, also by a process that was killed before it could wake anybody, is seen within a tenth of a
 * second. timeout_ms: milliseconds; below 0: for ever; 0: asks.
 * Not for use inside a transaction, which would keep off whoever is to change the word.
 *	while ((n = __atomic_load_n(&q->tail, __ATOMIC_ACQUIRE)) == mine)
 *		rc = pheap_watch(h, &q->tail, n, -1);
 * Returns 0: it differed; -ETIMEDOUT; -EINVAL (not a multiple of 8), PHEAP_EFOREIGN (NULL too),
 * PHEAP_EFORKED.
 */
PHEAP_API int pheap_watch(pheap *h, const uint64_t *word, uint64_t seen, int32_t timeout_ms);

/*
 * Wakes all watchers of word, in all processes, after the commit; not on abort. Changes nothing itself.
 * Returns 0, or (each dooms) -EINVAL (not a multiple of 8), PHEAP_EFOREIGN (NULL too), -ENOMEM; or [tx].
 */
PHEAP_API int pheap_notify(pheap_tx *tx, const uint64_t *word);

/*
 * The number of this process's attachment to the heap, to be stored as an owner: never 0, never given again
 * in the life of the file. 0 only where a PHEAP_RDONLY heap's file may not be written. A forked handle
 * gives the parent's.
 */
PHEAP_API uint64_t pheap_member(const pheap *h);

/*
 * Is the process with that attachment number there? 1: yes, stopped or not; 0: no, dead, closed, or never
 * was. Or PHEAP_EFORKED, what fcntl(2) gives.
 */
PHEAP_API int pheap_member_alive(const pheap *h, uint64_t member);

/* --- what a process has, and gives back by dying ------------------------------------------------------ */

/*
 * Holds a block: it lives at least until this process has called pheap_release as often as pheap_hold, or
 * is gone. A hold belongs to the process (its attachment), not to a thread. When the last hold of a block
 * goes, by pheap_release, by pheap_close of the holder or by its death, the block is freed, once, in a
 * transaction: whatever leads to it must be gone by then, or be known to lead to nothing. pheap_free of a held
 * block is -EBUSY. obj must stay allocated during the call: held already, allocated in this transaction, or
 * locked by what leads to it.
 *
 * Both: with a transaction of this thread open they are a part of it (and failures doom it); else each is
 * one of its own. PHEAP_CONCURRENT ones take a lock, to their end. Takes 32 bytes of the heap for each process
 * and block; meant for some ten thousand in a heap.
 * Return 0, or
 *  -EINVAL, -EPERM  hold: obj is not the start of a block of the user's; release: not held by this process
 *  -EOVERFLOW       hold: 2^32 - 1 times already
 *  PHEAP_EFOREIGN, PHEAP_EFORKED, -EROFS, PHEAP_EPOISONED, -EDEADLK (in a transaction), [wait], [space]
 */
PHEAP_API int pheap_hold(pheap *h, const void *obj);
PHEAP_API int pheap_release(pheap *h, const void *obj);

/*
 * A counting semaphore with total permits (0 to 2^40), all free; NULL: see pheap_error. It is a block of 32
 * bytes and 16 for each of the heap's member_count; found again by pheap_root_set and pheap_find, or by its
 * offset. delete frees it; -EBUSY, which dooms, while a process has permits of it. In a transaction.
 * Errors: -EINVAL, [tx], [space], [wait] and -EDEADLK.
 */
PHEAP_MUST const pheap_permits *pheap_permits_new(pheap_tx *tx, uint64_t total);
PHEAP_API int pheap_permits_delete(pheap_tx *tx, const pheap_permits *permits);

/*
 * take waits until n permits are free and takes them together, for at most timeout_ms (-1: as long as it
 * takes; 0: asks). give gives back n that this process has. lend adds n of its own, for as long as it is
 * attached; taking n ends the loan. Permits belong to the process (its attachment), not to a thread, and survive
 * nothing: when it closes the heap or dies, what it has taken is free again and what it has lent is gone,
 * exactly that, whatever others took, gave or lent meanwhile. After the death of a lender fewer than 0 may be
 * free: nothing is taken from those who have some, and others wait until there is enough again.
 * A death is seen about a millisecond after the process was torn down. Those who wait have no order: who
 * asks for many may wait long.
 *
 * Each is a transaction of its own. Return 0, or
 *  -EAGAIN, -ETIMEDOUT  take: not enough are free, and timeout_ms is 0, or has passed
 *  -EPERM           give: this process does not have n
 *  -EINVAL          n is 0 or above 2^40; no semaphore of this heap (deleted?)
 *  -EOVERFLOW       more than 2^40 taken or lent
 *  PHEAP_EACTIVE    this thread has a transaction open in the heap
 *  PHEAP_EFORKED, -EROFS, PHEAP_EPOISONED, [wait], [space]
 */
PHEAP_API int pheap_permits_take(pheap *h, const pheap_permits *permits, uint64_t n, int32_t timeout_ms);
PHEAP_API int pheap_permits_give(pheap *h, const pheap_permits *permits, uint64_t n);
PHEAP_API int pheap_permits_lend(pheap *h, const pheap_permits *permits, uint64_t n);

/* *ret: how many are free now; may be below 0. 0, or -EINVAL, PHEAP_EFORKED. Takes no lock. */
PHEAP_API int pheap_permits_available(const pheap *h, const pheap_permits *permits, int64_t *ret);

/* The binary form, for a semaphore with total 1: take, and give, one. */
PHEAP_API int pheap_permit_reserve(pheap *h, const pheap_permits *permits, int32_t timeout_ms);
PHEAP_API int pheap_permit_release(pheap *h, const pheap_permits *permits);

/* --- care --------------------------------------------------------------------------------------------- */

/*
 * Counts what is in the heap: one pass over the directory, in time proportional to its chunks. Fills at
 * most ret_size bytes; give sizeof *ret. Returns 0, or -EINVAL (ret NULL or ret_size below 8),
 * PHEAP_EFORKED.
 */
PHEAP_API int pheap_stats(pheap *h, struct pheap_stats *ret, size_t ret_size);

/*
 * Recovers all processes that died, now instead of when somebody meets what they hold, and frees what only
 * they have held (with a transaction open in this thread: at its end); *ret_members (may be NULL): how many.
 * Returns 0, or PHEAP_ECORRUPT, PHEAP_EFORKED, PHEAP_EPOISONED, [wait], [space], what fcntl(2) gives.
 */
PHEAP_API int pheap_recover(pheap *h, uint32_t *ret_members);

/*
 * Makes a checkpoint: what is changed in the heap now is in its file afterwards, and recovery of a power cut begins
 * here. Done by itself when half of the journal is in use. Nothing to do with PHEAP_PROCESS. Transactions go on.
 * Returns 0, or -EROFS, PHEAP_EFORKED, PHEAP_EPOISONED, [wait], -ENOMEM.
 */
PHEAP_API int pheap_checkpoint(pheap *h);

/*
 * Gives the space of free chunks, of 4 KiB each, back to the file system: what freed blocks have left. The file
 * becomes sparse and keeps its length: see st_blocks, not st_size. The chunks stay free: who allocates there has the space set aside again first, after free chunks
 * that have it, and is told -ENOSPC if the disk is full; no store is ever a SIGBUS for that. Kept are the journal
 * and the 1/42 of the chunks that long transactions log into; and all that is allocated, reserved, or somebody's
 * log. Blocks that an open transaction has freed, or may free, are not free before it ends: trim after it.
 * Nobody is stopped: who finds no free chunks meanwhile waits for a moment. With SYNC and EPOCH it makes a
 * checkpoint. Safe at any death and power cut: given back or not, chunk by chunk. Durable on return (SYNC, EPOCH):
 * that they may be missing; when the disk has taken them back is the file system's business. Freed memory that
 * is looked at through old pointers reads as zero. Any thread, inside of a transaction as well.
 * Returns 0, or -EROFS, -EOPNOTSUPP (the file system cannot), PHEAP_EFORKED, PHEAP_EPOISONED, [wait], -ENOMEM, and
 * what fallocate(2) gives, as -EIO.
 */
PHEAP_API int pheap_trim(pheap *h);

/*
 * From now on these n signals wait, in the whole process, until none of its threads has a transaction open;
 * then the signal is raised again with the disposition that the program had: the process dies by it, or its
 * handler runs. While one waits, threads without a transaction wait in pheap_begin (10 s at most, in case
 * the others need them). Nested transactions, and those in several heaps, count as one. The set replaces
 * that of the last call; n = 0 gives all dispositions back; ignored signals stay ignored. Call it after
 * setting dispositions, before beginning transactions. Correctness never needs it, as SIGKILL shows: it saves
 * survivors a recovery, and the work of the transaction. A handler must return, or end the process.
 * Returns 0, or -EINVAL: no such signal, SIGKILL, SIGSTOP, one that an instruction raises (as SIGSEGV),
 * signals NULL; what sigaction(2) gives.
 */
PHEAP_API int pheap_signals_defer(const int *signals, size_t n);

/* Constant text for any code that a call returned. Any thread. */
PHEAP_API const char *pheap_strerror(int rc);

/*
 * A sentence about this thread's last failure on h, with names and numbers, or ""; h NULL: about its last
 * pheap_open (a success: ""), pheap_close, or recovery of others. Ask right after the failure: a code that
 * says it all (-ETIMEDOUT of pheap_watch, -ENOENT at the end of a list, -ENOMEM) leaves an older sentence.
 * Kept for the three heaps that failed last. Valid until the thread's next call; do not free.
 */
PHEAP_API const char *pheap_error_detail(const pheap *h);

#ifdef __cplusplus
#pragma GCC diagnostic pop
}
#endif

#ifndef PHEAP_NO_MACROS
#include "pheap_typed.h"
#endif

#endif
