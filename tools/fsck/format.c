/* SPDX-License-Identifier: MIT
 *
 * format.c: see format.h.
 */
#include "format.h"

#include <string.h>

#define STRIPE_COUNT_MAX (1u << 20)
#define LANE_LOG_SIZE_MAX (1u << 30)
#define DURABILITY_PROCESS 1u
#define DURABILITY_SYNC 3u
#define WAL_SIZE_MIN (32u << 10)
#define WAL_SIZE_MAX (1ull << 40)

/* Of the state after i zero bytes: eight tables of one byte each, so that a full log is summed in a
 * second. Built from the definition, bit by bit, which cannot be wrong in a subtle way. */
static uint32_t crc_tables[8][256];

static void crc_prepare(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;

		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
		crc_tables[0][i] = crc;
	}
	for (int k = 1; k < 8; k++)
		for (uint32_t i = 0; i < 256; i++)
			crc_tables[k][i] =
				crc_tables[k - 1][i] >> 8 ^ crc_tables[0][crc_tables[k - 1][i] & 0xff];
}

uint32_t format_crc32c_more(uint32_t crc, const void *data, size_t n)
{
	const unsigned char *p = data;

	if (!crc_tables[0][1])
		crc_prepare();
	crc = ~crc;
	for (; n >= 8; n -= 8, p += 8) {
		uint64_t word;

		memcpy(&word, p, sizeof word);
		word ^= crc;
		crc = 0;
		for (int k = 0; k < 8; k++)
			crc ^= crc_tables[7 - k][word >> 8 * k & 0xff];
	}
	for (; n; n--)
		crc = crc >> 8 ^ crc_tables[0][(crc ^ *p++) & 0xff];
	return ~crc;
}

uint32_t format_crc32c(const void *data, size_t n)
{
	return format_crc32c_more(0, data, n);
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

bool format_has_wal(const struct phd_super *s)
{
	return s->durability != DURABILITY_PROCESS;
}

uint64_t format_table_lease_count(uint64_t chunk_count)
{
	return (chunk_count + PHD_TABLE_LEASE_CHUNKS - 1) / PHD_TABLE_LEASE_CHUNKS;
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
	uint64_t end = PHD_CHECKPOINT_OFF(1) + PHD_SECTOR_SIZE, max = s->size_max;
	bool wal = format_has_wal(s);

	if (!region_fits(s->coord_off, sizeof(struct phd_coord), 1, 64, max, &end))
		return "coord_off";
	if (!region_fits(s->member_off, sizeof(struct phd_member), s->member_count, 64, max, &end))
		return "member_off";
	if (!region_fits(s->stripe_off, sizeof(struct phd_stripe), (uint64_t)s->stripe_count + 1, 64, max,
			 &end))
		return "stripe_off";
	if (!region_fits(s->lane_off, sizeof(struct phd_lane), s->lane_count, 64, max, &end))
		return "lane_off";
	if (wal && !region_fits(s->ring_off, s->wal_size, 1, PHD_BLOCK_SIZE, max, &end))
		return "ring_off";
	if (!region_fits(s->head_off, sizeof(struct phd_head), 1, PHD_BLOCK_SIZE, max, &end))
		return "head_off";
	if (!region_fits(s->lane_log_off, s->lane_log_size, s->lane_count, PHD_BLOCK_SIZE, max, &end))
		return "lane_log_off";
	if (wal && !region_fits(s->wal_off, s->wal_size, 1, PHD_BLOCK_SIZE, max, &end))
		return "wal_off";
	if (!region_fits(s->desc_off, sizeof(uint64_t), s->chunk_max, PHD_BLOCK_SIZE, max, &end))
		return "desc_off";
	if (!region_fits(s->bits_off, sizeof(struct phd_bits), s->chunk_max, PHD_BLOCK_SIZE, max, &end))
		return "bits_off";
	if (!region_fits(s->words_off, sizeof(struct phd_words), s->chunk_max, PHD_BLOCK_SIZE, max, &end))
		return "words_off";
	if (wal &&
	    !region_fits(s->lease_off, sizeof(struct phd_lease), s->chunk_max, PHD_BLOCK_SIZE, max, &end))
		return "lease_off";
	if (wal && !region_fits(s->table_lease_off, sizeof(struct phd_table_lease),
				format_table_lease_count(s->chunk_max), PHD_BLOCK_SIZE, max, &end))
		return "table_lease_off";
	if (!region_fits(s->data_off, PHD_CHUNK_SIZE, s->chunk_max, PHD_BLOCK_SIZE, max, &end))
		return "data_off";
	return NULL;
}

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
	if (s->limbo_off)
		return "limbo_off";
	if (!format_has_wal(s) &&
	    (s->wal_off | s->wal_size | s->ring_off | s->lease_off | s->table_lease_off))
		return "wal_off to table_lease_off";
	if (format_has_wal(s) &&
	    (s->wal_size < WAL_SIZE_MIN || s->wal_size > WAL_SIZE_MAX || s->wal_size % PHD_BLOCK_SIZE))
		return "wal_size";
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
	if (s->durability < DURABILITY_PROCESS || s->durability > DURABILITY_SYNC)
		return "it has a durability level that this version does not know";
	return NULL;
}

bool format_state_valid(const struct phd_state *s)
{
	return s->magic == PHD_STATE_MAGIC && s->crc == format_crc32c(s, offsetof(struct phd_state, crc));
}

const char *format_checkpoint_invalid(const struct phd_super *s, const struct phd_checkpoint *c)
{
	if (c->magic != PHD_CHECKPOINT_MAGIC)
		return "no magic number";
	if (c->crc != format_crc32c(c, offsetof(struct phd_checkpoint, crc)))
		return "wrong checksum";
	if (c->replay_lsn % 8 || c->epoch_lsn % 8 || c->replay_lsn > c->epoch_lsn || c->epoch_lsn >> 62 ||
	    c->epoch_lsn - c->replay_lsn > s->wal_size)
		return "impossible positions";
	return c->log_gen ? NULL : "log_gen 0";
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
