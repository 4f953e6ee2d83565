/* SPDX-License-Identifier: MIT
 *
 * killed.c: pheap-fsck -y killed at each of its writes, before it and in the middle of it; the next run must
 * end with the same bytes as one that was left alone. Names the order notes fsck-dirty, fsck-undo-idle,
 * fsck-owner-last, fsck-relink, fsck-hold-free, fsck-limit, fsck-clean, fsck-checkpoint and power-last.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "run.h"

#define WRITES_MAX 2000u

/* The state that counts, without what counts the runs. */
static struct phd_state state_of(const unsigned char *bytes)
{
	struct phd_state copies[2];

	for (int copy = 0; copy < 2; copy++)
		memcpy(&copies[copy], bytes + PHD_STATE_OFF(copy), sizeof(copies[copy]));
	if (copies[1].seq > copies[0].seq)
		copies[0] = copies[1];
	copies[0].seq = 0;
	copies[0].crc = 0;
	return copies[0];
}

/* How often a heap with a WAL was recovered shows in positions and generations; that they are right is
 * checked by each later run. */
static void progress_equal(unsigned char *have, const unsigned char *want)
{
	const struct phd_super *s = (const void *)want;

	if (s->durability == 1)
		return;
	for (int copy = 0; copy < 2; copy++)
		memcpy(have + PHD_CHECKPOINT_OFF(copy), want + PHD_CHECKPOINT_OFF(copy), PHD_SECTOR_SIZE);
	memcpy(have + s->coord_off + 0x200, want + s->coord_off + 0x200, 0x200);
	for (uint32_t i = 0; i < s->lane_count; i++)
		memcpy(have + s->lane_off + i * sizeof(struct phd_lane),
		       want + s->lane_off + i * sizeof(struct phd_lane), sizeof(uint64_t));
}

/* Of the state sectors only what the newer one says: how often they were written differs. */
static bool result_same(const struct scratch *s, const unsigned char *want, size_t n)
{
	size_t size;
	unsigned char *have = scratch_read(s, &size);
	bool same = size == n;

	if (same) {
		struct phd_state a = state_of(have), b = state_of(want);

		same = !memcmp(&a, &b, sizeof(a));
	}
	for (int copy = 0; same && copy < 2; copy++)
		memcpy(have + PHD_STATE_OFF(copy), want + PHD_STATE_OFF(copy), PHD_SECTOR_SIZE);
	if (same)
		progress_equal(have, want);
	same = same && !memcmp(have, want, n);
	free(have);
	return same;
}

static void first_difference(const struct scratch *s, const unsigned char *want, size_t n)
{
	size_t size, i = 0;
	unsigned char *have = scratch_read(s, &size);

	while (i < n && i < size && have[i] == want[i])
		i++;
	printf("first difference at 0x%zx\n", i);
	free(have);
}

/* True: the run was not killed, there are no more writes. */
static bool kill_at(const struct fsck_case *c, struct scratch *s, const struct image *im, unsigned write,
		    bool torn, const unsigned char *want, size_t want_size)
{
	char number[16];
	int rc;

	snprintf(number, sizeof number, "%u", write);
	setenv("PHEAP_FSCK_DIE_AFTER", number, 1);
	if (torn)
		setenv("PHEAP_FSCK_DIE_TORN", "1", 1);
	scratch_write(s, im->bytes, im->size);
	rc = run(fsck_program_mortal, "-y -f", s->path);
	unsetenv("PHEAP_FSCK_DIE_AFTER");
	unsetenv("PHEAP_FSCK_DIE_TORN");
	if (rc != RUN_SIGNAL + SIGKILL)
		return true;
	/* as long as it has written nothing, a clean heap needs -f again */
	rc = run(fsck_program, scratch_same(s, im->bytes, im->size) ? "-y -f" : "-y", s->path);
	expect((rc & ~1) == 0, "%s: after a kill at write %u%s -y gave %d", c->name, write,
	       torn ? " (torn)" : "", rc);
	if (!expect(result_same(s, want, want_size), "%s: after a kill at write %u%s the result differs",
		    c->name, write, torn ? " (torn)" : ""))
		first_difference(s, want, want_size);
	rc = run(fsck_program, "-n -f", s->path);
	expect(rc == 0 && !output_has("state-dirty"), "%s: after a kill at write %u -n -f gave %d", c->name,
	       write, rc);
	return false;
}

static void case_killed(const struct fsck_case *c)
{
	struct scratch s;
	struct image im;
	unsigned char *want;
	size_t want_size;

	if (c->yes & 4)
		return;
	scratch_open(&s);
	image_make(&im, &s.id, fsck_case_wal(c));
	c->damage(&im);
	scratch_write(&s, im.bytes, im.size);
	run(fsck_program, "-y -f", s.path);
	want = scratch_read(&s, &want_size);
	for (int torn = 0; torn < 2; torn++)
		for (unsigned write = 1; write < WRITES_MAX; write++)
			if (kill_at(c, &s, &im, write, torn, want, want_size))
				break;
	free(want);
	scratch_close(&s);
	image_free(&im);
}

void killed_test(void)
{
	for (unsigned i = 0; fsck_case(i); i++)
		case_killed(fsck_case(i));
}
