/* SPDX-License-Identifier: MIT
 *
 * identity.c: see identity.h.
 */
#define _GNU_SOURCE
#include "identity.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "format.h"

void identity_read(struct identity *ret, int fd)
{
	struct statx info;
	char text[64] = "";
	int in = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	size_t n = 0;

	memset(ret, 0, sizeof *ret);
	if (in >= 0) {
		ssize_t got = read(in, text, sizeof text - 1);

		text[got > 0 ? got : 0] = 0;
		close(in);
	}
	for (const char *p = text; *p && n < 32; p++) {
		const char *digits = "0123456789abcdef", *d = strchr(digits, *p);

		if (!d)
			continue;
		ret->boot_id[n / 2] = (uint8_t)(ret->boot_id[n / 2] << 4 | (d - digits));
		n++;
	}
	if (n != 32)
		memset(ret->boot_id, 0, sizeof ret->boot_id);
	if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &info) == 0) {
		ret->inode = info.stx_ino;
		ret->dev = makedev(info.stx_dev_major, info.stx_dev_minor);
		if (info.stx_mask & STATX_BTIME)
			ret->birth_ns =
				(uint64_t)info.stx_btime.tv_sec * 1000000000u + info.stx_btime.tv_nsec;
	}
}

bool identity_same_boot(const struct identity *id, const struct phd_state *state)
{
	return !format_is_zero(id->boot_id, sizeof id->boot_id) &&
	       !memcmp(id->boot_id, state->boot_id, sizeof id->boot_id);
}

bool identity_same_file(const struct identity *id, const struct phd_state *state)
{
	return id->inode == state->inode &&
	       (!id->birth_ns || !state->birth_ns || id->birth_ns == state->birth_ns);
}

bool identity_same_device(const struct identity *id, const struct phd_state *state)
{
	return !state->dev || id->dev == state->dev;
}
