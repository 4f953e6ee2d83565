/* SPDX-License-Identifier: MIT
 *
 * super.c: see super.h. In three parts: planning a new geometry, judging one that was read, reading and
 * writing sectors.
 *
 * Why the geometry is judged field by field although a checksum fits: a checksum finds damage, not intent;
 * after ph_super_check the rest of the library computes addresses from these numbers without looking again
 * (S1).
 */
#include "super.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "crc32c.h"
#include "error.h"
#include "os.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define STRIPE_COUNT_MAX (1u << 20)
#define LANE_LOG_SIZE_MAX (1u << 30)
#define WAL_SIZE_MIN (32u << 10)
#define WAL_SIZE_MAX (1ull << 40)
#define WAL_SIZE_DEFAULT_MAX (64 * MIB)
#define WAL_SIZE_COMMON (16 * MIB)
#define FIXED_BASE_ALIGN (2 * MIB)
#define LSN_LIMIT (1ull << 62)
/* A load whose address has the low 12 bits of a store that waits for a line from memory waits with it on x86: a lane's log begins
 * with a page, and what every transaction looks at is not to be at the same place of another. */
#define COORD_SHIFT (PHD_BLOCK_SIZE / 2)
#define COORD_SHIFT_MIN (1ull << 20) /* bytes of a heap; a smaller one would rather have the space */
#define LANE_GEN_LIMIT_MAX (1ull << 47)

static uint64_t round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

/* ---- planning ---- */

struct size_class {
	uint64_t below; /* initial_size (where a heap can grow far, at least GROWS_INITIAL), bytes */
	uint32_t member_count, lane_count, lane_log_size, stripe_count;
};

/* More bytes: more processes and threads are likely. The third row holds 256 processes with four threads each, with
 * lanes of their own and some to spare; it is that of a heap without options. The first row is for heaps of 64 KiB,
 * where everything but data must fit into nine blocks: with 32 stripes the coordination would need a
 * block more. */
static const struct size_class size_classes[] = {
	{1 * MIB, 4, 8, 1024, 16},
	{16 * MIB, 32, 64, 2048, 256},
	{GIB, 320, 1408, 2048, 1024},
	{UINT64_MAX, 512, 2048, 4096, 4096},
};
#define INITIAL_DEFAULT (4 * MIB)
#define GROWS_FROM (64 * MIB) /* max_size */
#define GROWS_INITIAL (16 * MIB)
#define LANES_PER_MEMBER 4u

static const struct size_class *class_of(uint64_t initial_size)
{
	const struct size_class *row = size_classes;

	while (initial_size >= row->below && row->below != UINT64_MAX)
		row++;
	return row;
}

static int plan_sizes(const struct pheap_options *opt, uint64_t *ret_initial, uint64_t *ret_max)
{
	uint64_t initial = opt->initial_size, max = opt->max_size;

	if (max && max < PHD_SIZE_MIN)
		return ph_error(NULL, -EINVAL, "max_size is %llu bytes; a heap needs at least %llu",
				(unsigned long long)max, (unsigned long long)PHD_SIZE_MIN);
	if (max > PHD_SIZE_MAX || initial > PHD_SIZE_MAX)
		return ph_error(NULL, -EINVAL, "the largest possible heap has 2^46 bytes");
	if (!initial)
		initial = max && max < INITIAL_DEFAULT ? max : INITIAL_DEFAULT;
	if (!max)
		max = initial > GIB / 4 ? 16 * initial : 4 * GIB;
	if (max > PHD_SIZE_MAX)
		max = PHD_SIZE_MAX;
	if (initial > max)
		return ph_error(NULL, -EINVAL, "initial_size (%llu) is above max_size (%llu)",
				(unsigned long long)initial, (unsigned long long)max);
	*ret_initial = initial / PHD_CHUNK_SIZE * PHD_CHUNK_SIZE;
	*ret_max = max / PHD_CHUNK_SIZE * PHD_CHUNK_SIZE;
	return 0;
}

/* A quarter of it is the largest transaction; all of it, pages that change between two checkpoints. Who asks for a small file
 * gets a small journal. asked: initial_size, as it was given. */
static uint64_t wal_size_default(uint64_t asked, uint64_t max)
{
	uint64_t size = asked ? asked / 4 : WAL_SIZE_COMMON;

	if (size > max / 16)
		size = max / 16;
	return size < WAL_SIZE_DEFAULT_MAX ? size : WAL_SIZE_DEFAULT_MAX;
}

static int plan_wal(const struct pheap_options *opt, struct phd_super *super)
{
	uint64_t size = opt->journal_size;

	if (!ph_super_has_wal(super))
		return 0;
	if (size && (size < WAL_SIZE_MIN || size > WAL_SIZE_MAX))
		return ph_error(NULL, -EINVAL,
				"journal_size is %llu; with PHEAP_SYNC or PHEAP_EPOCH it is %u to 2^40 bytes",
				(unsigned long long)size, WAL_SIZE_MIN);
	if (!size)
		size = wal_size_default(opt->initial_size, super->size_max);
	if (size < WAL_SIZE_MIN)
		size = WAL_SIZE_MIN;
	super->wal_size = round_up(size, PHD_BLOCK_SIZE);
	return 0;
}

static int plan_counts(const struct pheap_options *opt, uint64_t initial, uint64_t max,
		       struct phd_super *super)
{
	const struct size_class *row =
		class_of(max >= GROWS_FROM && initial < GROWS_INITIAL ? GROWS_INITIAL : initial);
	uint64_t journal = initial / 64 / PHD_CHUNK_SIZE;

	if (opt->member_count > PHD_MEMBER_MAX)
		return ph_error(NULL, -EINVAL, "member_count is %u; at most %u processes can be attached",
				opt->member_count, PHD_MEMBER_MAX);
	if (opt->lane_count > PHD_LANE_MAX)
		return ph_error(NULL, -EINVAL, "lane_count is %u; a heap has at most %u lanes",
				opt->lane_count, PHD_LANE_MAX);
	super->member_count = opt->member_count ? opt->member_count : row->member_count;
	super->lane_count = opt->lane_count ? opt->lane_count : row->lane_count;
	if (opt->member_count && !opt->lane_count &&
	    super->lane_count < LANES_PER_MEMBER * super->member_count)
		super->lane_count = LANES_PER_MEMBER * super->member_count < PHD_LANE_MAX
					    ? LANES_PER_MEMBER * super->member_count
					    : PHD_LANE_MAX;
	super->lane_log_size = row->lane_log_size;
	if (opt->stripe_count > STRIPE_COUNT_MAX || (opt->stripe_count & (opt->stripe_count - 1)))
		return ph_error(NULL, -EINVAL, "stripe_count is %u; it must be a power of two up to %u",
				opt->stripe_count, STRIPE_COUNT_MAX);
	if (opt->reserved)
		return ph_error(NULL, -E2BIG,
				"an option that this library does not know is set; use a newer library");
	super->stripe_count = opt->stripe_count ? opt->stripe_count : row->stripe_count;
	if (journal > 256)
		journal = 256;
	if (journal == 0 || row == size_classes)
		journal = 1;
	if (opt->journal_size && !ph_super_has_wal(super))
		journal = round_up(opt->journal_size < PHD_SIZE_MAX ? opt->journal_size : PHD_SIZE_MAX,
				   PHD_CHUNK_SIZE) /
			  PHD_CHUNK_SIZE;
	super->journal_count = journal;
	return 0;
}

/* Everything in front of the descriptors, which depends on counts only. */
static void plan_fixed_regions(struct phd_super *super)
{
	uint64_t end;

	super->coord_off = 2ull * PHD_BLOCK_SIZE;
	if (super->size_max >= COORD_SHIFT_MIN)
		super->coord_off += COORD_SHIFT;
	super->member_off = super->coord_off + sizeof(struct phd_coord);
	super->stripe_off = super->member_off + super->member_count * sizeof(struct phd_member);
	super->lane_off = super->stripe_off + (super->stripe_count + 1ull) * sizeof(struct phd_stripe);
	end = round_up(super->lane_off + super->lane_count * sizeof(struct phd_lane), PHD_BLOCK_SIZE);
	if (ph_super_has_wal(super))
		super->ring_off = end;
	super->head_off = end + super->wal_size;
	super->lane_log_off = super->head_off + PHD_BLOCK_SIZE;
	end = round_up(super->lane_log_off + (uint64_t)super->lane_log_size * super->lane_count,
		       PHD_BLOCK_SIZE);
	if (ph_super_has_wal(super))
		super->wal_off = end;
	super->desc_off = end + super->wal_size;
}

static uint64_t table_lease_count(uint64_t chunks)
{
	return (chunks + PHD_TABLE_LEASE_CHUNKS - 1) / PHD_TABLE_LEASE_CHUNKS;
}

/* Bytes of a file (or of its allocated part) with n chunks. */
static uint64_t size_with(const struct phd_super *super, uint64_t n)
{
	uint64_t size = super->desc_off + round_up(n * sizeof(uint64_t), PHD_BLOCK_SIZE) +
			round_up(n * sizeof(struct phd_bits), PHD_BLOCK_SIZE) +
			round_up(n * sizeof(struct phd_words), PHD_BLOCK_SIZE) + n * PHD_CHUNK_SIZE;

	if (ph_super_has_wal(super))
		size += round_up(n * sizeof(struct phd_lease), PHD_BLOCK_SIZE) +
			round_up(table_lease_count(n) * sizeof(struct phd_table_lease), PHD_BLOCK_SIZE);
	return size;
}

/* The most chunks that fit into size. */
static uint64_t chunks_within(const struct phd_super *super, uint64_t size)
{
	const uint64_t each =
		PHD_CHUNK_SIZE + sizeof(uint64_t) + sizeof(struct phd_bits) + sizeof(struct phd_words);
	uint64_t n;

	if (size <= super->desc_off)
		return 0;
	/* Without rounding and leases this is too many by less than a percent. */
	n = (size - super->desc_off) / (each + (ph_super_has_wal(super) ? sizeof(struct phd_lease) : 0));
	while (n && size_with(super, n) > size)
		n--;
	return n;
}

static void plan_chunk_regions(struct phd_super *super)
{
	uint64_t n = super->chunk_max;

	super->bits_off = super->desc_off + round_up(n * sizeof(uint64_t), PHD_BLOCK_SIZE);
	super->words_off = super->bits_off + round_up(n * sizeof(struct phd_bits), PHD_BLOCK_SIZE);
	super->data_off = super->words_off + round_up(n * sizeof(struct phd_words), PHD_BLOCK_SIZE);
	if (!ph_super_has_wal(super))
		return;
	super->lease_off = super->data_off;
	super->table_lease_off = super->lease_off + round_up(n * sizeof(struct phd_lease), PHD_BLOCK_SIZE);
	super->data_off = super->table_lease_off +
			  round_up(table_lease_count(n) * sizeof(struct phd_table_lease), PHD_BLOCK_SIZE);
}

int ph_super_plan(const struct pheap_options *opt, uint32_t durability, struct phd_super *ret,
		  uint64_t *ret_chunk_count)
{
	struct phd_super super = {
		.magic = PHD_SUPER_MAGIC,
		.version = PHD_VERSION,
		.durability = durability >> 24,
		.chunk_shift = PHD_CHUNK_SHIFT,
		.epoch_ms = opt->epoch_ms,
		.root_bucket_count = PHD_ROOT_BUCKETS,
	};
	const char *layout = opt->layout ? opt->layout : "";
	uint64_t initial = 0, count;
	int rc;

	if (strnlen(layout, PHD_NAME_SIZE) == PHD_NAME_SIZE)
		return ph_error(NULL, -EINVAL, "the layout name is longer than %u bytes", PHD_NAME_SIZE - 1);
	memcpy(super.layout, layout, strlen(layout));
	rc = plan_sizes(opt, &initial, &super.size_max);
	if (!rc)
		rc = plan_wal(opt, &super);
	if (!rc)
		rc = plan_counts(opt, initial, super.size_max, &super);
	if (rc)
		return rc;
	plan_fixed_regions(&super);
	super.chunk_max = chunks_within(&super, super.size_max);
	if (super.chunk_max < super.journal_count + 1)
		return ph_error(
			NULL, -EINVAL,
			"max_size (%llu) is too small for %u members, %u lanes and a journal of %llu bytes; "
			"raise max_size or lower these",
			(unsigned long long)super.size_max, super.member_count, super.lane_count,
			(unsigned long long)(super.journal_count * PHD_CHUNK_SIZE));
	plan_chunk_regions(&super);
	count = chunks_within(&super, initial);
	if (count > super.chunk_max)
		count = super.chunk_max;
	if (count < super.journal_count + 1)
		count = super.journal_count + 1;
	*ret = super;
	*ret_chunk_count = count;
	return 0;
}

/* ---- judging ---- */

static int corrupt(const char *what, uint64_t value)
{
	return ph_error(NULL, PHEAP_ECORRUPT,
			"superblock: %s is %llu (0x%llx), which cannot be; run pheap-fsck on the file", what,
			(unsigned long long)value, (unsigned long long)value);
}

static int version_unknown(uint32_t version)
{
	return ph_error(NULL, PHEAP_EFORMAT,
			"this heap has format version %u.%u, this library knows %u.x; use one that knows it",
			version >> 16, version & 0xffff, PHD_VERSION >> 16);
}

static int check_counts(const struct phd_super *super)
{
	if (super->size_max < PHD_SIZE_MIN || super->size_max > PHD_SIZE_MAX ||
	    super->size_max % PHD_CHUNK_SIZE)
		return corrupt("size_max", super->size_max);
	if (super->durability < 1 || super->durability > 3)
		return corrupt("durability", super->durability);
	if (super->chunk_shift != PHD_CHUNK_SHIFT)
		return corrupt("chunk_shift", super->chunk_shift);
	if (super->root_bucket_count != PHD_ROOT_BUCKETS)
		return corrupt("root_bucket_count", super->root_bucket_count);
	if (super->member_count < 1 || super->member_count > PHD_MEMBER_MAX)
		return corrupt("member_count", super->member_count);
	if (super->lane_count < 1 || super->lane_count > PHD_LANE_MAX)
		return corrupt("lane_count", super->lane_count);
	if (super->stripe_count < 1 || super->stripe_count > STRIPE_COUNT_MAX ||
	    (super->stripe_count & (super->stripe_count - 1)))
		return corrupt("stripe_count", super->stripe_count);
	if (super->lane_log_size < 512 || super->lane_log_size > LANE_LOG_SIZE_MAX ||
	    super->lane_log_size % 64)
		return corrupt("lane_log_size", super->lane_log_size);
	if (super->chunk_max < 2 || super->chunk_max > super->size_max / PHD_CHUNK_SIZE)
		return corrupt("chunk_max", super->chunk_max);
	if (super->journal_count < 1 || super->journal_count >= super->chunk_max)
		return corrupt("journal_count", super->journal_count);
	if (super->fixed_base % FIXED_BASE_ALIGN || super->fixed_base > UINT64_MAX / 2)
		return corrupt("fixed_base", super->fixed_base);
	if (super->limbo_off)
		return corrupt("limbo_off", super->limbo_off);
	if (!ph_super_has_wal(super) &&
	    (super->wal_off | super->wal_size | super->ring_off | super->lease_off | super->table_lease_off))
		return corrupt("wal_off, wal_size, ring_off, lease_off or table_lease_off", super->wal_off);
	if (ph_super_has_wal(super) && (super->wal_size < WAL_SIZE_MIN || super->wal_size > WAL_SIZE_MAX ||
					super->wal_size % PHD_BLOCK_SIZE))
		return corrupt("wal_size", super->wal_size);
	return 0;
}

struct region {
	const char *name;
	uint64_t off, size, align;
};

/* Sizes cannot overflow: each is a checked count times a small constant, at most 2^46. */
static int check_regions(const struct phd_super *super)
{
	const uint64_t n = super->chunk_max;
	const bool wal = ph_super_has_wal(super);
	const struct region regions[] = {
		{"coord_off", super->coord_off, sizeof(struct phd_coord), 64},
		{"member_off", super->member_off, super->member_count * sizeof(struct phd_member), 64},
		{"stripe_off", super->stripe_off, (super->stripe_count + 1ull) * sizeof(struct phd_stripe),
		 64},
		{"lane_off", super->lane_off, super->lane_count * sizeof(struct phd_lane), 64},
		{wal ? "ring_off" : NULL, super->ring_off, super->wal_size, PHD_BLOCK_SIZE},
		{"head_off", super->head_off, sizeof(struct phd_head), PHD_BLOCK_SIZE},
		{"lane_log_off", super->lane_log_off, (uint64_t)super->lane_log_size * super->lane_count,
		 PHD_BLOCK_SIZE},
		{wal ? "wal_off" : NULL, super->wal_off, super->wal_size, PHD_BLOCK_SIZE},
		{"desc_off", super->desc_off, n * sizeof(uint64_t), PHD_BLOCK_SIZE},
		{"bits_off", super->bits_off, n * sizeof(struct phd_bits), PHD_BLOCK_SIZE},
		{"words_off", super->words_off, n * sizeof(struct phd_words), PHD_BLOCK_SIZE},
		{wal ? "lease_off" : NULL, super->lease_off, n * sizeof(struct phd_lease), PHD_BLOCK_SIZE},
		{wal ? "table_lease_off" : NULL, super->table_lease_off,
		 table_lease_count(n) * sizeof(struct phd_table_lease), PHD_BLOCK_SIZE},
		{"data_off", super->data_off, n * PHD_CHUNK_SIZE, PHD_BLOCK_SIZE},
	};
	uint64_t end = 2ull * PHD_BLOCK_SIZE;

	for (size_t i = 0; i < sizeof(regions) / sizeof(*regions); i++) {
		const struct region *r = &regions[i];

		if (!r->name)
			continue;
		if (r->off < end || r->off % r->align || r->off > super->size_max ||
		    r->size > super->size_max - r->off)
			return corrupt(r->name, r->off);
		end = r->off + r->size;
	}
	return 0;
}

static int check_layout(const struct phd_super *super)
{
	size_t n = strnlen(super->layout, PHD_NAME_SIZE);

	if (n == PHD_NAME_SIZE)
		return corrupt("the length of layout", n);
	for (; n < PHD_NAME_SIZE; n++)
		if (super->layout[n])
			return corrupt("a byte behind layout", (uint8_t)super->layout[n]);
	return 0;
}

int ph_super_check(const struct phd_super *super)
{
	int rc;

	if (super->version >> 16 != PHD_VERSION >> 16)
		return version_unknown(super->version);
	if (super->incompat & ~PHD_INCOMPAT_KNOWN)
		return ph_error(
			NULL, PHEAP_EFORMAT,
			"this heap uses features that this library does not know (incompat bits 0x%llx); use "
			"a newer one",
			(unsigned long long)(super->incompat & ~PHD_INCOMPAT_KNOWN));
	rc = check_counts(super);
	if (!rc)
		rc = check_regions(super);
	if (!rc)
		rc = check_layout(super);
	return rc;
}

/* ---- sectors ---- */

void ph_super_seal(struct phd_super *super, uint32_t copy)
{
	super->copy = copy;
	super->crc = ph_crc32c(0, super, offsetof(struct phd_super, crc));
}

/* Is a sector there at all? A file that ends in front of it has none. */
static int sector_read(int fd, uint64_t file_size, uint64_t off, void *ret)
{
	if (file_size < off + PHD_SECTOR_SIZE)
		return -ENODATA;
	return ph_os->file_read(fd, ret, PHD_SECTOR_SIZE, off);
}

static bool super_valid(const struct phd_super *super, uint32_t copy)
{
	return super->magic == PHD_SUPER_MAGIC && super->copy == copy &&
	       super->crc == ph_crc32c(0, super, offsetof(struct phd_super, crc));
}

/* Nothing valid was found: says which of the possible reasons it was. */
static int super_refuse(uint64_t file_size, bool magic_seen, uint32_t version)
{
	if (magic_seen && version >> 16 != PHD_VERSION >> 16)
		return version_unknown(version);
	if (magic_seen)
		return ph_error(
			NULL, PHEAP_ECORRUPT,
			"neither copy of the superblock has the checksum it should have; run pheap-fsck on "
			"the file");
	if (file_size == 0)
		return ph_error(NULL, PHEAP_EFORMAT,
				"the file is empty; to make it a heap, remove it and open with PHEAP_CREATE");
	if (file_size < PHD_SECTOR_SIZE)
		return ph_error(NULL, PHEAP_EFORMAT, "the file is not a heap: it has only %llu bytes",
				(unsigned long long)file_size);
	return ph_error(NULL, PHEAP_EFORMAT, "the file is not a heap: it does not start as one");
}

int ph_super_read(int fd, uint64_t file_size, struct phd_super *ret)
{
	bool magic_seen = false;
	uint32_t version = 0;

	for (uint32_t copy = 0; copy < 2; copy++) {
		struct phd_super super;
		int rc = sector_read(fd, file_size, PHD_SUPER_OFF(copy), &super);

		if (rc == -ENODATA)
			continue;
		if (rc)
			return ph_error(NULL, rc, "reading the superblock failed: %s", pheap_strerror(rc));
		if (super_valid(&super, copy)) {
			*ret = super;
			return ph_super_check(&super);
		}
		if (super.magic == PHD_SUPER_MAGIC && !magic_seen) {
			magic_seen = true;
			version = super.version;
		}
	}
	return super_refuse(file_size, magic_seen, version);
}

int ph_state_read(int fd, struct phd_state *ret, uint32_t *ret_copy)
{
	bool found = false;

	for (uint32_t copy = 0; copy < 2; copy++) {
		struct phd_state state;
		int rc = ph_os->file_read(fd, &state, sizeof(state), PHD_STATE_OFF(copy));

		if (rc == -ENODATA)
			continue;
		if (rc)
			return ph_error(NULL, rc, "reading the state sector failed: %s", pheap_strerror(rc));
		if (state.magic != PHD_STATE_MAGIC ||
		    state.crc != ph_crc32c(0, &state, offsetof(struct phd_state, crc)))
			continue;
		if (found && state.seq <= ret->seq)
			continue;
		*ret = state;
		*ret_copy = copy;
		found = true;
	}
	if (!found)
		return ph_error(
			NULL, PHEAP_ECORRUPT,
			"neither copy of the state sector has the checksum it should have; run pheap-fsck on "
			"the file");
	return 0;
}

int ph_state_write(int fd, struct phd_state *state, uint32_t *copy)
{
	int rc;

	if (state->seq == UINT64_MAX)
		return ph_error(NULL, PHEAP_ECORRUPT,
				"state sector: seq cannot grow; run pheap-fsck on the file");
	state->seq++;
	state->crc = ph_crc32c(0, state, offsetof(struct phd_state, crc));
	rc = ph_os->file_write_sync(fd, state, sizeof(*state), PHD_STATE_OFF(*copy ^ 1));
	if (rc)
		return ph_error(NULL, rc, "writing the state sector failed: %s", pheap_strerror(rc));
	*copy ^= 1;
	return 0;
}

static int checkpoint_check(const struct phd_super *super, const struct phd_checkpoint *c)
{
	if (c->replay_lsn % 8 == 0 && c->epoch_lsn % 8 == 0 && c->epoch_lsn < LSN_LIMIT &&
	    c->replay_lsn <= c->epoch_lsn && c->epoch_lsn - c->replay_lsn <= super->wal_size && c->log_gen &&
	    c->lane_gen_limit < LANE_GEN_LIMIT_MAX)
		return 0;
	return ph_error(NULL, PHEAP_ECORRUPT,
			"checkpoint sector: it says what cannot be; run pheap-fsck on the file");
}

int ph_checkpoint_read(int fd, const struct phd_super *super, struct phd_checkpoint *ret, uint32_t *ret_copy)
{
	bool found = false;

	for (uint32_t copy = 0; copy < 2; copy++) {
		struct phd_checkpoint c;
		int rc = ph_os->file_read(fd, &c, sizeof(c), PHD_CHECKPOINT_OFF(copy));

		if (rc)
			return ph_error(NULL, rc, "reading the checkpoint sector failed: %s",
					pheap_strerror(rc));
		if (c.magic != PHD_CHECKPOINT_MAGIC ||
		    c.crc != ph_crc32c(0, &c, offsetof(struct phd_checkpoint, crc)))
			continue;
		if (found && c.seq <= ret->seq)
			continue;
		*ret = c;
		*ret_copy = copy;
		found = true;
	}
	if (!found)
		return ph_error(NULL, PHEAP_ECORRUPT,
				"neither copy of the checkpoint sector has the checksum it should have; run "
				"pheap-fsck on the file");
	return checkpoint_check(super, ret);
}

int ph_live_read(int fd, const struct phd_super *super, struct phd_checkpoint *checkpoint)
{
	int raised = 0, rc;

	for (uint32_t copy = 0; copy < 2; copy++) {
		struct phd_live live;

		rc = ph_os->file_read(fd, &live, sizeof(live), PHD_LIVE_OFF(copy));
		if (rc)
			return ph_error(NULL, rc, "reading the checkpoint's words failed: %s",
					pheap_strerror(rc));
		if (live.lane_gen_limit > checkpoint->lane_gen_limit)
			checkpoint->lane_gen_limit = live.lane_gen_limit;
		if (live.epoch_lsn <= checkpoint->epoch_lsn)
			continue;
		checkpoint->replay_lsn = checkpoint->epoch_lsn = live.epoch_lsn;
		raised = 1;
	}
	rc = checkpoint_check(super, checkpoint);
	return rc ? rc : raised;
}

int ph_checkpoint_write(int fd, struct phd_checkpoint *checkpoint, uint32_t *copy)
{
	int rc;

	checkpoint->seq++;
	checkpoint->crc = ph_crc32c(0, checkpoint, offsetof(struct phd_checkpoint, crc));
	rc = ph_os->file_write_sync(fd, checkpoint, sizeof(*checkpoint), PHD_CHECKPOINT_OFF(*copy ^ 1));
	if (rc)
		return ph_error(NULL, rc, "writing the checkpoint sector failed: %s", pheap_strerror(rc));
	*copy ^= 1;
	return 0;
}

/* ---- space ---- */

static int items_allocate(int fd, uint64_t off, uint64_t item_size, uint64_t from, uint64_t to)
{
	uint64_t start = (off + from * item_size) / PHD_BLOCK_SIZE * PHD_BLOCK_SIZE;

	return ph_os->file_allocate(fd, start, round_up(off + to * item_size, PHD_BLOCK_SIZE) - start);
}

int ph_super_allocate_tables(int fd, const struct phd_super *super, uint64_t from, uint64_t to)
{
	int rc = items_allocate(fd, super->desc_off, sizeof(uint64_t), from, to);

	if (!rc)
		rc = items_allocate(fd, super->bits_off, sizeof(struct phd_bits), from, to);
	if (!rc)
		rc = items_allocate(fd, super->words_off, sizeof(struct phd_words), from, to);
	if (!rc && ph_super_has_wal(super))
		rc = items_allocate(fd, super->lease_off, sizeof(struct phd_lease), from, to);
	if (!rc && ph_super_has_wal(super))
		rc = items_allocate(fd, super->table_lease_off, sizeof(struct phd_table_lease),
				    from / PHD_TABLE_LEASE_CHUNKS, table_lease_count(to));
	return rc;
}

int ph_super_allocate(int fd, const struct phd_super *super, uint64_t from, uint64_t to)
{
	int rc = ph_super_allocate_tables(fd, super, from, to);

	/* Data last: the file's size then says that the rest is there. */
	if (!rc)
		rc = items_allocate(fd, super->data_off, PHD_CHUNK_SIZE, from, to);
	return rc;
}
