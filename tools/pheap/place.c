/* SPDX-License-Identifier: MIT
 *
 * place.c: see place.h. The table here is the one of pheap(1) and README.md.
 */
#define _GNU_SOURCE
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "heap_file.h"

#define FLUSHES 16u
#define FLUSH_SIZE 4096u
#define FLUSHES_NS_MAX 2000000000ull /* a device that takes longer has said enough */

struct row {
	uint32_t magic;
	enum place_class class;
	const char *reason;
};

static const char all_flushed[] = "what is synced survives a power cut";
static const char network[] = "mappings of several machines do not agree";

static const struct row rows[] = {
	{EXT4_SUPER_MAGIC, PLACE_DURABLE, all_flushed}, /* ext2 and ext3 too */
	{XFS_SUPER_MAGIC, PLACE_DURABLE, all_flushed},
	{F2FS_SUPER_MAGIC, PLACE_DURABLE, all_flushed},
	{BTRFS_SUPER_MAGIC, PLACE_DURABLE,
	 "what is synced survives a power cut; a heap opts out of copy-on-write"},
	{TMPFS_MAGIC, PLACE_PROCESS, "memory: nothing survives a reboot, so SYNC and EPOCH mean PROCESS"},
	{RAMFS_MAGIC, PLACE_PROCESS, "memory: nothing survives a reboot, so SYNC and EPOCH mean PROCESS"},
	{FUSE_SUPER_MAGIC, PLACE_REFUSED, "a program decides what a shared mapping and a lock mean there"},
	{NFS_SUPER_MAGIC, PLACE_REFUSED, network},
	{SMB_SUPER_MAGIC, PLACE_REFUSED, network},
	{SMB2_SUPER_MAGIC, PLACE_REFUSED, network},
	{CIFS_SUPER_MAGIC, PLACE_REFUSED, network},
	{V9FS_MAGIC, PLACE_REFUSED, network},
	{AFS_SUPER_MAGIC, PLACE_REFUSED, network},
	{AFS_FS_MAGIC, PLACE_REFUSED, network},
	{CODA_SUPER_MAGIC, PLACE_REFUSED, network},
	{CEPH_SUPER_MAGIC, PLACE_REFUSED, network},
	{OCFS2_SUPER_MAGIC, PLACE_REFUSED, network},
	{0x01161970, PLACE_REFUSED, network}, /* gfs2 */
	{0x0bd00bd0, PLACE_REFUSED, network}, /* lustre */
	{0x19830326, PLACE_REFUSED, network}, /* beegfs */
	{0x20030528, PLACE_REFUSED, network}, /* orangefs */
	{0x47504653, PLACE_REFUSED, network}, /* gpfs */
	{0x564c, PLACE_REFUSED, network},     /* ncpfs */
	{0x61636673, PLACE_REFUSED, network}, /* acfs */
	{0x786f4256, PLACE_REFUSED, network}, /* vboxsf */
	{0x7c7c6673, PLACE_REFUSED, network}, /* prl_fs */
	{0xaad7aaea, PLACE_REFUSED, network}, /* panfs */
	{0xbacbacbc, PLACE_REFUSED, network}, /* vmhgfs */
	{0xbeefdead, PLACE_REFUSED, network}, /* snfs */
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The line of mountinfo for the file's mount: its type, and whether it is an overlay that syncs nothing. */
static void mount_read(int fd, struct place *p, bool *ret_volatile)
{
	char *line = NULL;
	struct statx info;
	size_t room = 0;
	FILE *in;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &info) < 0 || !(info.stx_mask & STATX_MNT_ID))
		return;
	in = fopen("/proc/self/mountinfo", "re");
	while (in && getline(&line, &room, in) > 0) {
		const char *rest = strstr(line, " - ");

		if (strtoull(line, NULL, 10) != info.stx_mnt_id || !rest)
			continue;
		if (sscanf(rest, " - %31s", p->name) != 1)
			snprintf(p->name, sizeof p->name, "?");
		*ret_volatile = strstr(rest, ",volatile") || strstr(rest, ",fsync=volatile");
		break;
	}
	free(line);
	if (in)
		fclose(in);
}

static void class_find(int fd, struct place *p)
{
	bool is_volatile = false;
	struct statfs sf;

	p->class = PLACE_UNKNOWN;
	p->reason = "what it does with a synced write is not known here";
	if (fstatfs(fd, &sf) < 0)
		return;
	snprintf(p->name, sizeof p->name, "0x%08lx", (unsigned long)(uint32_t)sf.f_type);
	mount_read(fd, p, &is_volatile);
	if ((uint32_t)sf.f_type == OVERLAYFS_SUPER_MAGIC) {
		p->class = is_volatile ? PLACE_PROCESS : PLACE_DURABLE;
		p->reason =
			is_volatile
				? "an overlay mounted volatile syncs nothing, so SYNC and EPOCH mean PROCESS"
				: "as durable as its upper layer; make the heap in the overlay, "
				  "not in a lower layer";
	}
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if ((uint32_t)sf.f_type == rows[i].magic) {
			p->class = rows[i].class;
			p->reason = rows[i].reason;
		}
}

/* A file without a name in the folder of path, or -errno. */
static int scratch_open(const char *path)
{
	const char *slash = strrchr(path, '/');
	char folder[4096];
	int fd;

	snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
	fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd >= 0 ? fd : -errno;
	if (strlen(folder) + sizeof "/pheap-info-XXXXXX" > sizeof folder)
		return -ENAMETOOLONG;
	strcat(folder, "/pheap-info-XXXXXX");
	fd = mkostemp(folder, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	unlink(folder);
	return fd;
}

/* Written and durable on return, as the library does it; else 0 and errno. */
static bool write_durable(int fd, const void *bytes, off_t off)
{
	struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = FLUSH_SIZE};
	ssize_t n = pwritev2(fd, &part, 1, off, RWF_DSYNC);

	if (n >= 0 || errno != EOPNOTSUPP)
		return n == (ssize_t)FLUSH_SIZE;
	return pwrite(fd, bytes, FLUSH_SIZE, off) == (ssize_t)FLUSH_SIZE && fdatasync(fd) == 0;
}

static int ns_compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static bool flushes_time(int fd, struct place *p)
{
	static const unsigned char bytes[FLUSH_SIZE] = {1};
	uint64_t times[FLUSHES], start = now_ns();
	unsigned n;

	/* space first: the log of a heap has its own */
	for (n = 0; n < FLUSHES; n++)
		if (pwrite(fd, bytes, FLUSH_SIZE, (off_t)n * FLUSH_SIZE) != (ssize_t)FLUSH_SIZE)
			return false;
	if (fsync(fd) < 0)
		return false;
	for (n = 0; n < FLUSHES && (n == 0 || now_ns() - start < FLUSHES_NS_MAX); n++) {
		uint64_t before = now_ns();

		if (!write_durable(fd, bytes, (off_t)n * FLUSH_SIZE))
			return false;
		times[n] = now_ns() - before;
	}
	qsort(times, n, sizeof times[0], ns_compare);
	p->flush_ns = times[n / 2] ? times[n / 2] : 1;
	p->flush_count = n;
	return true;
}

static void flush_measure(const char *path, struct place *p)
{
	int fd = scratch_open(path);

	if (fd < 0) {
		p->skipped = fd == -EROFS || fd == -EACCES || fd == -EPERM ? "the folder is not writable"
									   : "no file can be made beside it";
		return;
	}
	if (!flushes_time(fd, p))
		p->skipped = "writing beside it failed";
	close(fd);
}

void place_read(int fd, const char *path, struct place *ret)
{
	*ret = (struct place){.name = "?"};
	class_find(fd, ret);
	flush_measure(path, ret);
}

const char *place_class_text(enum place_class class)
{
	static const char *const texts[] = {"durable", "process-only", "refused", "unknown"};

	return texts[class];
}

void place_print(const struct place *p)
{
	printf("stored on:     %s, %s: %s\n", p->name, place_class_text(p->class), p->reason);
	if (p->skipped)
		printf("flush:         not measured: %s\n", p->skipped);
	else
		printf("flush:         4 KiB are durable in %.*f us (median of %u, in a file beside it)\n",
		       p->flush_ns < 10000, (double)p->flush_ns / 1000, p->flush_count);
}

void place_json(const struct place *p)
{
	printf(",\n \"file_system\": ");
	json_print(p->name);
	printf(", \"storage\": \"%s\", \"storage_reason\": ", place_class_text(p->class));
	json_print(p->reason);
	if (p->skipped) {
		printf(", \"flush_ns\": null, \"flush_skipped\": ");
		json_print(p->skipped);
	} else {
		printf(", \"flush_ns\": %" PRIu64, p->flush_ns);
	}
}
