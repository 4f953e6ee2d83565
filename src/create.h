/* SPDX-License-Identifier: MIT
 *
 * create.h: making a heap file.
 *
 * Invariants
 *   C1  Under the final name there is a whole heap or no file, whoever is killed when, and whatever fails.
 *   C2  Of several creators exactly one gives its file the name; the others get -EEXIST and have left
 *   nothing.
 *   C3  Every byte of the image follows from the options, the random source, and the file's inode and birth
 *   time.
 */
#ifndef PH_CREATE_H
#define PH_CREATE_H

#include "os.h"
#include "pheap.h"

/* flags: PHEAP_FIXED and PHEAP_EPHEMERAL count. opt: complete, not NULL. ret: dev and inode of what was made. 0,
 * -EEXIST, -ENOSPC, -EINVAL and others, with a sentence. */
int ph_create(const char *path, uint32_t flags, uint32_t durability, const struct pheap_options *opt,
	      struct ph_file_info *ret);

#endif
