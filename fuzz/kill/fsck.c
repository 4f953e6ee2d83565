/* SPDX-License-Identifier: MIT
 *
 * fsck.c: images through the real pheap-fsck.
 *
 * What: see judge.h; what is repaired must hold one of the oracle's states.
 */
#include "explore.h"

#include <stdio.h>
#include <string.h>

#include "judge.h"

/* Into the last level's memfile, which nothing else uses while fsck runs. */
static int repaired_state(struct explore *x, char *why, size_t n)
{
	struct level *l = &x->levels[LEVELS - 1];
	char path[16];
	pheap *h;
	int rc;

	memfile_kill(l->file);
	memfile_clear(l->file);
	memset(l->stale, 1, sizeof(l->stale));
	if (judge_result(x->sample_path, l->file, why, n))
		return -1;
	l->file->named = true;
	snprintf(path, sizeof(path), "mem:%u", LEVELS - 1);
	rc = pheap_open(path, 0, NULL, &h);
	if (rc) {
		snprintf(why, n, "open after fsck -y: %d (%s)", rc, pheap_error_detail(NULL));
		return -1;
	}
	rc = explore_match(x, h, l, 0, why, n);
	if (pheap_close(h))
		rc = -1;
	return rc > 0 ? 0 : -1;
}

int explore_fsck(struct explore *x, const char *image, uint64_t size, char *why, size_t n)
{
	x->fsck_count++;
	if (judge_image(x->fsck, x->sample_path, image, size, why, n))
		return -1;
	return repaired_state(x, why, n);
}
