/* SPDX-License-Identifier: MIT
 *
 * format.c: see format.h.
 */
#include "format.h"

#include <string.h>

uint32_t format_crc32c(const void *data, size_t n)
{
	const unsigned char *p = data;
	uint32_t crc = 0xffffffffu;

	/* Bit by bit: a handful of sectors are summed in a run, and this cannot be wrong in a subtle way. */
	while (n--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

const char *format_super_invalid(const struct phd_super *s, uint32_t copy)
{
	if (s->magic != PHD_SUPER_MAGIC)
		return "no magic number";
	if (s->crc != format_crc32c(s, offsetof(struct phd_super, crc)))
		return "wrong checksum";
	if (s->copy != copy)
		return "wrong copy number";
	return NULL;
}

/* [off, off + unit * count) starts at or after *end and is aligned; moves *end past it. No overflow: off is
 * checked first. */
static bool region_fits(uint64_t off, uint64_t unit, uint64_t count, uint64_t align, uint64_t size_max,
			uint64_t *end)
{
	if (off % align || off < *end || off > size_max || count > (size_max - off) / unit)
		return false;
	*end = off + unit * count;
	return true;
}

static const char *regions_error(const struct phd_super *s)
{
	uint64_t end = PHD_STATE_OFF(1) + PHD_SECTOR_SIZE, max = s->size_max;

	if (!region_fits(s->coord_off, sizeof(struct phd_coord), 1, 64, max, &end))
		return "coord_off";
	if (!region_fits(s->member_off, sizeof(struct phd_member), s->member_count, 64, max, &end))
		return "member_off";
	if (!region_fits(s->stripe_off, sizeof(struct phd_stripe), (uint64_t)s->stripe_count + 1, 64, max,
			 &end))
		return "stripe_off";
	if (!region_fits(s->lane_off, sizeof(struct phd_lane), s->lane_count, 64, max, &end))
		return "lane_off";
	if (!region_fits(s->head_off, sizeof(struct phd_head), 1, PHD_BLOCK_SIZE, max, &end))
		return "head_off";
	if (!region_fits(s->lane_log_off, s->lane_log_size, s->lane_count, PHD_BLOCK_SIZE, max, &end))
		return "lane_log_off";
	if (!region_fits(s->desc_off, sizeof(uint64_t), s->chunk_max, PHD_BLOCK_SIZE, max, &end))
		return "desc_off";
	if (!region_fits(s->bits_off, sizeof(struct phd_bits), s->chunk_max, PHD_BLOCK_SIZE, max, &end))
		return "bits_off";
	if (!region_fits(s->words_off, sizeof(struct phd_words), s->chunk_max, PHD_BLOCK_SIZE, max, &end))
		return "words_off";
	if (!region_fits(s->data_off, PHD_CHUNK_SIZE, s->chunk_max, PHD_BLOCK_SIZE, max, &end))
		return "data_off";
	return NULL;
}

#define STRIPE_COUNT_MAX (1u << 20)
#define LANE_LOG_SIZE_MAX (1u << 30)

const char *format_super_error(const struct phd_super *s)
{
	size_t n = strnlen(s->layout, PHD_NAME_SIZE);

	if (s->size_max < PHD_SIZE_MIN || s->size_max > PHD_SIZE_MAX || s->size_max % PHD_CHUNK_SIZE)
		return "size_max";
	if (s->chunk_shift != PHD_CHUNK_SHIFT)
		return "chunk_shift";
	if (s->root_bucket_count != PHD_ROOT_BUCKETS)
		return "root_bucket_count";
	if (!s->member_count || s->member_count > PHD_MEMBER_MAX)
		return "member_count";
	if (!s->lane_count || s->lane_count > PHD_LANE_MAX)
		return "lane_count";
	if (!s->stripe_count || s->stripe_count > STRIPE_COUNT_MAX || s->stripe_count & (s->stripe_count - 1))
		return "stripe_count";
	if (s->lane_log_size < 512 || s->lane_log_size > LANE_LOG_SIZE_MAX || s->lane_log_size % 64)
		return "lane_log_size";
	if (!s->chunk_max || s->chunk_max > PHD_SIZE_MAX / PHD_CHUNK_SIZE)
		return "chunk_max";
	if (!s->journal_count || s->journal_count >= s->chunk_max)
		return "journal_count";
	if (s->fixed_base % (2u << 20) || s->fixed_base > UINT64_MAX / 2)
		return "fixed_base";
	if (s->wal_off | s->wal_size | s->image_off | s->image_size | s->limbo_off)
		return "wal_off to limbo_off";
	if (n == PHD_NAME_SIZE || !format_is_zero(s->layout + n, PHD_NAME_SIZE - n))
		return "layout";
	return regions_error(s);
}

const char *format_super_unknown(const struct phd_super *s)
{
	if (s->version >> 16 != PHD_VERSION >> 16)
		return "it has another major version of the format";
	if (s->incompat & ~PHD_INCOMPAT_KNOWN)
		return "it uses features that this version does not know";
	if (s->durability != 1)
		return "it has a durability level that this version does not know";
	return NULL;
}

bool format_state_valid(const struct phd_state *s)
{
	return s->magic == PHD_STATE_MAGIC && s->crc == format_crc32c(s, offsetof(struct phd_state, crc));
}

bool format_name_valid(const char name[PHD_NAME_SIZE])
{
	return name[0] && memchr(name, 0, PHD_NAME_SIZE);
}

uint64_t format_name_hash(const char *name)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 0x100000001b3ull;
	return hash;
}

unsigned format_hold_bucket(uint64_t object_off)
{
	return (unsigned)((object_off >> 3) * 0x9e3779b97f4a7c15ull >> 56);
}

bool format_attachment_valid(uint64_t attachment)
{
	return attachment && attachment < 1ull << 45;
}

bool format_type_valid(uint32_t type)
{
	return type <= PHD_TYPE_PERMITS && type != PHD_TYPE_JOURNAL;
}

uint64_t format_run_blocks(uint64_t desc)
{
	uint64_t count = PHD_DESC_RUN_COUNT(desc);
	size_t size = PHD_DESC_BLOCK_SIZE(desc);

	if (PHD_DESC_KIND(desc) != PHD_DESC_RUN || !count || count > PHD_RUN_COUNT_MAX || desc >> 41)
		return 0;
	if (size < PHD_BLOCK_SIZE_MIN || size > PHD_BLOCK_SIZE_MAX)
		return 0;
	return PHD_CHUNK_SIZE * count / size;
}

uint64_t format_chunks_backed(const struct phd_super *s, uint64_t file_size)
{
	uint64_t n = file_size > s->data_off ? (file_size - s->data_off) / PHD_CHUNK_SIZE : 0;

	return n < s->chunk_max ? n : s->chunk_max;
}

bool format_is_zero(const void *data, size_t n)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}
