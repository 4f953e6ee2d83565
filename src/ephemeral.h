/* SPDX-License-Identifier: MIT
 *
 * ephemeral.h: heaps that go with their last user.
 *
 * What: the last one to leave removes the file's name under the gate byte of that file; whoever waited for the gate
 * looks at the link count and starts over. Users that were all killed remove nothing: the next to open finds a
 * heap that was used and that nobody has, removes it in the same way and makes a new one.
 * Why not mark it for removal, as IPC_RMID does: what is marked can still be joined under one name while the next one
 * is made under the same, and then two heaps live at once.
 *
 * Invariants
 *   E1  A name is removed only under the gate of the file that it names, while nobody is attached to that file, and
 *       that file is never entered again.
 *   E2  Who is let in under the gate has seen a link count above 0.
 */
#ifndef PH_EPHEMERAL_H
#define PH_EPHEMERAL_H

#include "heap.h"

static inline bool ph_ephemeral(const struct phd_super *super)
{
	return (super->compat & PHD_COMPAT_EPHEMERAL) != 0;
}

/* Under the gate: 1 when the heap was in use once and is no more. 0, or an error with a sentence. */
int ph_ephemeral_stale(int fd, const struct phd_super *super);
/* Under the gate: the name goes, if it is still that file's. */
int ph_ephemeral_remove(const char *path, uint64_t dev, uint64_t inode);

#endif
