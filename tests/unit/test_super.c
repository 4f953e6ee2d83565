/* SPDX-License-Identifier: MIT
 *
 * test_super.c: planned geometries keep FORMAT.md's rules over many sizes; a superblock is refused when any
 * of them is broken; the two copies of superblock and state sector stand in for each other.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "error.h"
#include "os.h"
#include "super.h"

static int plan(uint64_t initial, uint64_t max, struct phd_super *ret, uint64_t *ret_count)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;

	opt.initial_size = initial;
	opt.max_size = max;
	return ph_super_plan(&opt, PHEAP_PROCESS, ret, ret_count);
}

Test(super, sizes_from_smallest_to_largest)
{
	for (uint64_t max = PHD_SIZE_MIN; max <= PHD_SIZE_MAX; max = max < PHD_SIZE_MAX ? max * 2 : max + 1)
		for (uint64_t initial = 4096; initial <= max; initial *= 2) {
			struct phd_super super;
			uint64_t count;

			cr_assert_eq(plan(initial, max, &super, &count), 0, "%lu of %lu: %s",
				     (unsigned long)initial, (unsigned long)max, pheap_error_detail(NULL));
			cr_assert_eq(ph_super_check(&super), 0, "%lu of %lu: %s", (unsigned long)initial,
				     (unsigned long)max, pheap_error_detail(NULL));
			cr_assert_leq(super.data_off + super.chunk_max * PHD_CHUNK_SIZE, max);
			cr_assert_geq(count, super.journal_count + 1);
			cr_assert_leq(count, super.chunk_max);
			/* Nothing that would have made another chunk is left over. */
			cr_assert_gt(super.data_off + (super.chunk_max + 1) * (PHD_CHUNK_SIZE + 56) +
					     3 * 4096,
				     max);
			if (initial == max)
				cr_assert_eq(count, super.chunk_max);
		}
}

Test(super, smallest_heap_has_room)
{
	struct phd_super super;
	uint64_t count;

	cr_assert_eq(plan(65536, 65536, &super, &count), 0);
	cr_assert_geq(count - super.journal_count, 6);
}

Test(super, defaults)
{
	struct phd_super super;
	uint64_t count;

	cr_assert_eq(plan(0, 0, &super, &count), 0);
	cr_expect_eq(super.size_max, 4ull << 30);
	cr_expect_geq(super.member_count, 256, "a heap without options serves 256 processes");
	cr_expect_geq(super.lane_count, 1024 + 256, "with four threads each");
	cr_assert_eq(plan(1ull << 30, 0, &super, &count), 0);
	cr_expect_eq(super.size_max, 16ull << 30);
	cr_assert_eq(plan(0, 100000, &super, &count), 0);
	cr_expect_eq(super.size_max, 98304, "rounded down to chunks");
}

Test(super, impossible_options)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	struct phd_super super;
	uint64_t count;

	cr_expect_eq(plan(0, 65535, &super, &count), -EINVAL);
	cr_expect_eq(plan(131072, 65536, &super, &count), -EINVAL);
	cr_expect_eq(plan(0, PHD_SIZE_MAX + 1, &super, &count), -EINVAL);
	cr_expect_eq(plan(UINT64_MAX, 0, &super, &count), -EINVAL);
	opt.member_count = PHD_MEMBER_MAX + 1;
	cr_expect_eq(ph_super_plan(&opt, PHEAP_PROCESS, &super, &count), -EINVAL);
	opt.member_count = 0;
	opt.lane_count = PHD_LANE_MAX + 1;
	cr_expect_eq(ph_super_plan(&opt, PHEAP_PROCESS, &super, &count), -EINVAL);
	opt.lane_count = 0;
	opt.journal_size = UINT64_MAX;
	cr_expect_eq(ph_super_plan(&opt, PHEAP_PROCESS, &super, &count), -EINVAL);
	opt.journal_size = 0;
	opt.layout = "a name of sixty-four bytes is one byte too long for the format..";
	cr_assert_eq(strlen(opt.layout), 64);
	cr_expect_eq(ph_super_plan(&opt, PHEAP_PROCESS, &super, &count), -EINVAL);
	opt.layout = NULL;
	opt.max_size = 65536;
	opt.lane_count = 1000;
	cr_expect_eq(ph_super_plan(&opt, PHEAP_PROCESS, &super, &count), -EINVAL, "lanes alone fill it");
}

struct field {
	const char *name;
	size_t off, size;
	int rc;
};

#define FIELD(name, rc) \
	{ \
#name, offsetof(struct phd_super, name), sizeof(((struct phd_super *)0)->name), rc \
	}

static const struct field fields[] = {
	FIELD(size_max, PHEAP_ECORRUPT),     FIELD(durability, PHEAP_ECORRUPT),
	FIELD(chunk_shift, PHEAP_ECORRUPT),  FIELD(root_bucket_count, PHEAP_ECORRUPT),
	FIELD(member_count, PHEAP_ECORRUPT), FIELD(lane_count, PHEAP_ECORRUPT),
	FIELD(stripe_count, PHEAP_ECORRUPT), FIELD(lane_log_size, PHEAP_ECORRUPT),
	FIELD(coord_off, PHEAP_ECORRUPT),    FIELD(member_off, PHEAP_ECORRUPT),
	FIELD(stripe_off, PHEAP_ECORRUPT),   FIELD(lane_off, PHEAP_ECORRUPT),
	FIELD(head_off, PHEAP_ECORRUPT),     FIELD(lane_log_off, PHEAP_ECORRUPT),
	FIELD(desc_off, PHEAP_ECORRUPT),     FIELD(bits_off, PHEAP_ECORRUPT),
	FIELD(words_off, PHEAP_ECORRUPT),    FIELD(data_off, PHEAP_ECORRUPT),
	FIELD(chunk_max, PHEAP_ECORRUPT),    FIELD(journal_count, PHEAP_ECORRUPT),
	FIELD(fixed_base, PHEAP_ECORRUPT),   FIELD(incompat, PHEAP_EFORMAT),
	FIELD(version, PHEAP_EFORMAT),	     FIELD(layout, PHEAP_ECORRUPT),
};

/* All ones and a high bit are wrong in every field; so is 1, except where it is a possible value. */
Test(super, no_wild_field_is_accepted)
{
	struct phd_super good;
	uint64_t count;

	cr_assert_eq(plan(0, 0, &good, &count), 0);
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		struct phd_super bad = good;
		uint8_t *bytes = (uint8_t *)&bad + fields[i].off;

		memset(bytes, 0xff, fields[i].size);
		cr_expect_eq(ph_super_check(&bad), fields[i].rc, "%s all ones", fields[i].name);
		cr_expect_neq(*pheap_error_detail(NULL), 0);
		bad = good;
		bytes[fields[i].size - 1] ^= 0x80;
		cr_expect_eq(ph_super_check(&bad), fields[i].rc, "%s high bit", fields[i].name);
	}
}

/* Whatever is accepted keeps S1: every region lies inside, in order, aligned, without overlap. */
static void assert_regions(const struct phd_super *s)
{
	const uint64_t starts[] = {s->coord_off, s->member_off,	  s->stripe_off, s->lane_off,
				   s->head_off,	 s->lane_log_off, s->desc_off,	 s->bits_off,
				   s->words_off, s->data_off,	  s->size_max};
	const unsigned __int128 sizes[] = {
		sizeof(struct phd_coord),
		(unsigned __int128)s->member_count * 64,
		((unsigned __int128)s->stripe_count + 1) * 64,
		(unsigned __int128)s->lane_count * 128,
		sizeof(struct phd_head),
		(unsigned __int128)s->lane_count * s->lane_log_size,
		(unsigned __int128)s->chunk_max * 8,
		(unsigned __int128)s->chunk_max * 32,
		(unsigned __int128)s->chunk_max * 16,
		(unsigned __int128)s->chunk_max * 4096,
	};

	cr_assert_geq(starts[0], 0x2000);
	for (size_t i = 0; i < 10; i++) {
		cr_assert(starts[i] + sizes[i] <= starts[i + 1], "region %zu", i);
		cr_assert_eq(starts[i] % (i < 4 ? 64 : 4096), 0, "region %zu", i);
	}
}

Test(super, random_changes_never_break_the_geometry)
{
	const unsigned seed = 20240501;
	struct phd_super good;
	uint64_t count;
	unsigned accepted = 0;

	cr_log_info("seed %u", seed);
	srandom(seed);
	cr_assert_eq(plan(1 << 20, 1 << 24, &good, &count), 0);
	for (int i = 0; i < 200000; i++) {
		struct phd_super bad = good;

		for (long k = random() % 3; k >= 0; k--) {
			const struct field *f =
				&fields[(size_t)random() % (sizeof(fields) / sizeof(*fields) - 1)];
			uint64_t value = 0;

			memcpy(&value, (char *)&bad + f->off, f->size);
			value = random() % 2 ? value + ((uint64_t)random() % 5 - 2) * 4096
					     : value ^ 1ull << random() % 64;
			memcpy((char *)&bad + f->off, &value, f->size);
		}
		if (ph_super_check(&bad) == 0) {
			assert_regions(&bad);
			accepted++;
		}
	}
	cr_assert_gt(accepted, 0, "the changes are too wild to test anything");
}

/* A file with the sectors only, in memory. */
static int sectors_make(struct phd_super *super)
{
	uint64_t count;
	int fd = memfd_create("sectors", 0);

	cr_assert_geq(fd, 0);
	cr_assert_eq(plan(0, 65536, super, &count), 0);
	cr_assert_eq(ph_os->file_truncate(fd, super->size_max), 0);
	for (uint32_t copy = 0; copy < 2; copy++) {
		ph_super_seal(super, copy);
		cr_assert_eq(ph_os->file_write(fd, super, sizeof(*super), PHD_SUPER_OFF(copy)), 0);
	}
	return fd;
}

static void flip(int fd, uint64_t off)
{
	uint8_t byte;

	cr_assert_eq(ph_os->file_read(fd, &byte, 1, off), 0);
	byte ^= 0x10;
	cr_assert_eq(ph_os->file_write(fd, &byte, 1, off), 0);
}

Test(super, either_copy_will_do)
{
	struct phd_super super, got;
	int fd = sectors_make(&super);

	for (uint64_t off = 0; off < PHD_SECTOR_SIZE; off += 4) {
		flip(fd, off);
		cr_expect_eq(ph_super_read(fd, super.size_max, &got), 0, "byte %lu", (unsigned long)off);
		cr_expect_eq(got.copy, 1);
		flip(fd, PHD_SUPER_OFF(1) + 0x80);
		cr_expect_lt(ph_super_read(fd, super.size_max, &got), 0, "byte %lu", (unsigned long)off);
		flip(fd, PHD_SUPER_OFF(1) + 0x80);
		flip(fd, off);
	}
	cr_expect_eq(ph_super_read(fd, super.size_max, &got), 0);
	cr_expect_eq(got.copy, 0);
	close(fd);
}

Test(super, what_is_not_a_heap)
{
	struct phd_super super, got;
	int fd = sectors_make(&super);

	cr_expect_eq(ph_super_read(fd, 0, &got), PHEAP_EFORMAT);
	cr_expect_eq(ph_super_read(fd, 511, &got), PHEAP_EFORMAT);
	flip(fd, 0x80);
	flip(fd, 0x1080);
	cr_expect_eq(ph_super_read(fd, super.size_max, &got), PHEAP_ECORRUPT);
	flip(fd, 0);
	flip(fd, 0x1000);
	cr_expect_eq(ph_super_read(fd, super.size_max, &got), PHEAP_EFORMAT);
	close(fd);
}

Test(super, states_are_written_in_turn)
{
	struct phd_super super;
	struct phd_state state = {.magic = PHD_STATE_MAGIC}, got;
	uint32_t copy = 1, got_copy;
	int fd = sectors_make(&super);

	cr_expect_eq(ph_state_read(fd, &got, &got_copy), PHEAP_ECORRUPT);
	for (uint64_t i = 1; i <= 5; i++) {
		state.open_gen = i;
		cr_assert_eq(ph_state_write(fd, &state, &copy), 0);
		cr_expect_eq(copy, (i + 1) % 2);
		cr_assert_eq(ph_state_read(fd, &got, &got_copy), 0);
		cr_expect_eq(got.open_gen, i);
		cr_expect_eq(got.seq, i);
		cr_expect_eq(got_copy, copy);
	}
	/* The newest is damaged: the one before counts. */
	flip(fd, PHD_STATE_OFF(copy) + 0x60);
	cr_assert_eq(ph_state_read(fd, &got, &got_copy), 0);
	cr_expect_eq(got.open_gen, 4);
	state.seq = UINT64_MAX;
	cr_expect_eq(ph_state_write(fd, &state, &copy), PHEAP_ECORRUPT);
	close(fd);
}
