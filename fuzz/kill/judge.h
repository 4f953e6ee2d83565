/* SPDX-License-Identifier: MIT
 *
 * judge.h: an image of a heap through the real pheap-fsck, the second reading of the format.
 *
 * What: -n changes nothing and says that there is something to do, or nothing; -y repairs; then -n is content.
 */
#ifndef PHEAP_KILL_JUDGE_H
#define PHEAP_KILL_JUDGE_H

#include <stddef.h>
#include <stdint.h>

#include "memfile.h"

/* A real file for pheap-fsck, of which the images are: makes it, and gives its identity to the memfiles. It has no name, so
 * that nothing is left however this ends. Its descriptor, with the path that others get at it by; exits with 2 if there is none. */
int judge_file_open(char *ret_path, size_t path_size);

/* Runs `fsck` on an image in the file at path. 0, or -1 with why. */
int judge_image(const char *fsck, const char *path, const char *image, uint64_t size, char *why,
		size_t why_size);

/* What pheap-fsck left in the file; 0 or -1 with why. */
int judge_result(const char *path, struct memfile *ret, char *why, size_t why_size);

#endif
