/* SPDX-License-Identifier: MIT
 *
 * random.c: images damaged at random places, with checksums that fit: never a signal, a hang or a second run
 * that finds more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "run.h"

static uint64_t state;

static uint64_t random_next(void)
{
	state += 0x9e3779b97f4a7c15ull;
	uint64_t z = (state ^ state >> 30) * 0xbf58476d1ce4e5b9ull;

	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint64_t random_word(const struct image *im)
{
	switch (random_next() % 6) {
	case 0:
		return random_next() % 64;
	case 1:
		return im->super->data_off + 8 * (random_next() % 20000);
	case 2:
		return 1ull << random_next() % 64;
	case 3:
		return ~0ull;
	case 4:
		return im->desc[random_next() % IMAGE_CHUNKS];
	default:
		return random_next();
	}
}

/* One word somewhere in the metadata, or in the names. */
static void random_damage(struct image *im)
{
	const struct {
		uint64_t off, size;
	} places[] = {
		{0x200, 0x60},
		{im->super->lane_off, IMAGE_LANES * sizeof(struct phd_lane)},
		{im->super->lane_log_off, IMAGE_LANES * IMAGE_LANE_LOG},
		{im->super->head_off, sizeof(struct phd_head)},
		{im->super->desc_off, 8 * 64},
		{im->super->bits_off, 32 * IMAGE_CHUNKS},
		{im->super->coord_off, 0xa00},
		{im->super->words_off, 16 * IMAGE_CHUNKS},
		{image_chunk(im, 2), 96 * 6},
		{image_chunk(im, 3), 128 * 2},
		{im->super->head_off + offsetof(struct phd_head, holds), 8 * PHD_HOLD_BUCKETS},
		{image_chunk(im, 14), 32 * 4},
		{image_chunk(im, 14), 32 * 4},
		{image_chunk(im, 15), 96 * 2},
		{image_chunk(im, 30), 128},
		/* with a WAL only */
		{0x400, 0x30},
		{im->super->wal_off, 512},
		{im->super->wal_off + IMAGE_WAL - 4096, 4096},
		{im->super->lease_off, 16 * IMAGE_CHUNKS},
	};
	size_t place_count = sizeof places / sizeof places[0] - (im->super->wal_off ? 0 : 4);
	unsigned i = (unsigned)(random_next() % place_count);
	unsigned char *at = image_at(im, places[i].off + random_next() % (places[i].size / 8) * 8);
	uint64_t word = random_word(im);

	if (random_next() % 2)
		memcpy(at, &word, 8);
	else
		at[random_next() % 8] = (unsigned char)word;
}

/* The superblock itself: may become unusable, must not be believed when it cannot be. */
static void super_damage(struct image *im)
{
	uint64_t word = random_word(im);

	memcpy(im->bytes + 0x38 + random_next() % 24 * 8, &word, 8);
	image_seal(im);
}

static void one(unsigned i, struct scratch *s)
{
	static const unsigned bases[] = {0, 1, 3, 4, 5, 8};
	bool wal = random_next() % 2;
	struct image im;
	int rc;

	image_make(&im, &s->id, wal);
	if (wal)
		wal_cases[random_next() % wal_case_count].damage(&im);
	else
		fsck_cases[bases[random_next() % 6]].damage(&im);
	for (uint64_t n = random_next() % 6 + 1; n; n--)
		random_damage(&im);
	if (random_next() % 2)
		image_seal(&im);
	if (random_next() % 8 == 0)
		super_damage(&im);
	scratch_write(s, im.bytes, im.size - (random_next() % 8 ? 0 : random_next() % im.size));
	rc = run(fsck_program, "-n -f", s->path);
	expect(rc == 0 || rc == 4 || rc == 8, "random image %u: -n -f gave %d", i, rc);
	rc = run(fsck_program, "-y -f", s->path);
	expect(rc == 0 || rc == 1 || rc == 4 || rc == 5 || rc == 8, "random image %u: -y -f gave %d", i, rc);
	if (rc == 0 || rc == 1) {
		rc = run(fsck_program, "-n -f", s->path);
		expect(rc == 0, "random image %u: -n -f after -y -f gave %d", i, rc);
	}
	image_free(&im);
}

void random_test(unsigned long seed, unsigned count)
{
	struct scratch s;

	printf("random images: seed %lu, %u of them\n", seed, count);
	state = seed;
	scratch_open(&s);
	for (unsigned i = 0; i < count; i++)
		one(i, &s);
	scratch_close(&s);
}
