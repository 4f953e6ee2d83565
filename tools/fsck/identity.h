/* SPDX-License-Identifier: MIT
 *
 * identity.h: which file this is, and which boot: what the state sector of a heap in use must agree with.
 *
 * Why apart from format.c: that one does no input (F1), this one asks the system.
 */
#ifndef FSCK_IDENTITY_H
#define FSCK_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

struct identity {
	uint8_t boot_id[16];	  /* zeros: unknown */
	uint64_t inode, birth_ns; /* birth_ns 0: the file system has none */
	uint64_t dev;
};

void identity_read(struct identity *ret, int fd);
/* What is unknown is never the same boot; a birth that is unknown does not make another file. */
bool identity_same_boot(const struct identity *id, const struct phd_state *state);
bool identity_same_file(const struct identity *id, const struct phd_state *state);
/* Another one has a snapshot of the file system, in the same boot; unknown is the same. */
bool identity_same_device(const struct identity *id, const struct phd_state *state);

#endif
