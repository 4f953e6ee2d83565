/* SPDX-License-Identifier: MIT
 *
 * lock.c: keeps openers away while the heap is checked, and tells who is attached.
 *
 * Why the gate alone: whoever opens or closes holds it exclusively, so nobody can become attached while we
 * have it; who is attached already shows on the byte "anyone".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fsck.h"

#define GATE_TRIES 100 /* 50 ms apart: an opener that recovers holds the gate for milliseconds */

static int lock_call(const struct fsck *f, int command, short type, uint64_t off, short *ret_type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)off, .l_len = 1};
	int rc;

	do
		rc = fcntl(f->fd, command, &lock);
	while (rc < 0 && errno == EINTR);
	if (ret_type)
		*ret_type = lock.l_type;
	return rc < 0 ? -errno : 0;
}

/* 1: another open of the file holds the byte. */
static int lock_held(struct fsck *f, uint64_t off)
{
	short type = F_UNLCK;
	int rc = lock_call(f, F_OFD_GETLK, F_WRLCK, off, &type);

	if (rc < 0)
		fsck_fail(f, "cannot be asked for its locks: %s", strerror(-rc));
	return type != F_UNLCK;
}

static int gate_take(struct fsck *f)
{
	struct timespec pause = {.tv_nsec = 50000000};
	/* an exclusive lock needs a descriptor that may write */
	short type = f->writable ? F_WRLCK : F_RDLCK;
	int rc = 0;

	for (int i = 0; i < GATE_TRIES; i++) {
		rc = lock_call(f, F_OFD_SETLK, type, PHD_LOCK_GATE, NULL);
		if (rc != -EAGAIN && rc != -EACCES)
			return rc;
		nanosleep(&pause, NULL);
	}
	return -EAGAIN;
}

void lock_take(struct fsck *f)
{
	int rc = gate_take(f);

	if (rc == -EAGAIN && f->mode != MODE_NO)
		fsck_fail(f, "is just being opened, closed or checked by another process; try again");
	if (rc < 0 && rc != -EAGAIN)
		fsck_fail(f, "cannot be locked: %s (is it on a network file system?)", strerror(-rc));
	f->attached = rc < 0 || lock_held(f, PHD_LOCK_ANY);
	/* a snapshot holds nobody up */
	if (f->attached && rc == 0)
		lock_call(f, F_OFD_SETLK, F_UNLCK, PHD_LOCK_GATE, NULL);
}

void lock_report_members(struct fsck *f)
{
	char list[400] = "";
	size_t n = 0;

	for (uint32_t i = 0; i < f->super.member_count; i++) {
		struct phd_member m;
		char name[sizeof m.command + 1] = "";

		if (!lock_held(f, PHD_LOCK_SLOT + i))
			continue;
		f->member_count++;
		image_read(f, f->super.member_off + i * sizeof m, &m, sizeof m);
		for (size_t k = 0; k < sizeof m.command && m.command[k]; k++)
			name[k] = m.command[k] > ' ' && m.command[k] < 127 ? m.command[k] : '?';
		if (n < sizeof list)
			n += (size_t)snprintf(list + n, sizeof list - n, "%s%s (pid %u)", n ? ", " : "",
					      name[0] ? name : "a process", m.pid);
	}
	if (f->mode != MODE_NO)
		fsck_fail(f, "is in use by %s; end them first, or look with -n",
			  list[0] ? list : "a process");
	note(f, "in use by %s: this is only a snapshot, problems in it may be those of a moment",
	     list[0] ? list : "a process");
}
