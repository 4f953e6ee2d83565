/* SPDX-License-Identifier: MIT
 *
 * tags.c: see tags.h. Reads the image with the structs of layout.h alone.
 */
#include "tags.h"

#include <stdio.h>
#include <string.h>

#include "layout.h"
#include "memfile.h"

const char *const tag_names[TAG_COUNT] = {
	"create-publish", "state-dirty", "clean-last", "attach-limit", "member-byte", "begin-used",
	"undo-used",	  "used-store",	 "ext-link",   "commit-point", "apply-idle",  "undo-idle",
	"rollback-used",  "owner-last",	 "grow-count", "publish-last", "hold-flag",   "reap-count",
	"ephemeral-name", "punch-last",	 "hole-fill",
};

static uint32_t lane_tags(const struct phd_lane *lane, uint64_t field, uint64_t data, enum oracle_op op)
{
	unsigned was = PHD_STATE_STEP(lane->state), will = PHD_STATE_STEP(data);

	switch (field) {
	case offsetof(struct phd_lane, state):
		if (was == PHD_STEP_IDLE)
			return will == PHD_STEP_ACTIVE ? TAG_BIT(TAG_BEGIN_USED) : 0;
		if (was == PHD_STEP_COMMITTED)
			return TAG_BIT(TAG_APPLY_IDLE);
		return op == ORACLE_OP_COMMIT || op == ORACLE_OP_NEST ? TAG_BIT(TAG_COMMIT_POINT)
								      : TAG_BIT(TAG_UNDO_IDLE);
	case offsetof(struct phd_lane, used):
		if (PHD_USED_END(data) < PHD_USED_END(lane->used))
			return op == ORACLE_OP_ROLLBACK || op == ORACLE_OP_ABORT ? TAG_BIT(TAG_ROLLBACK_USED)
										 : 0;
		return PHD_USED_END(data) > PHD_USED_END(lane->used) ? TAG_BIT(TAG_UNDO_USED) : 0;
	case offsetof(struct phd_lane, ext_off):
		return data ? TAG_BIT(TAG_EXT_LINK) : 0;
	case offsetof(struct phd_lane, owner):
		return data ? 0 : TAG_BIT(TAG_OWNER_LAST);
	default:
		return 0;
	}
}

/* The record at a log position, in the lane's own log or an extension; NULL: out of reach. */
static const struct phd_record *record_at(const char *image, const struct phd_super *s,
					  const struct phd_lane *lane, const char *log, uint64_t at)
{
	uint64_t base = 0, ext_off = lane->ext_off;

	while (ext_off) {
		const struct phd_log_ext *ext = (const void *)(image + ext_off);

		if (ext->base > at || ext->base <= base)
			break;
		base = ext->base;
		log = (const char *)(ext + 1);
		ext_off = ext->next_off;
	}
	return base || at * 8 < s->lane_log_size ? (const void *)(log + (at - base) * 8) : NULL;
}

/* What committed lanes apply to the word at off, and whether one is a publication of these bytes. */
#define WORD_DEFER 1u
#define WORD_PUBLISH 2u
#define WORD_PUBLISH_THIS 4u

static unsigned word_applied(const char *image, const struct phd_super *s, uint64_t off, uint64_t data)
{
	unsigned found = 0;

	for (uint32_t i = 0; i < s->lane_count; i++) {
		const struct phd_lane *lane = (const void *)(image + s->lane_off + i * sizeof(*lane));
		const char *log = image + s->lane_log_off + (uint64_t)i * s->lane_log_size;
		const struct phd_record *r;

		if (PHD_STATE_STEP(lane->state) != PHD_STEP_COMMITTED)
			continue;
		for (uint64_t at = 0; at < PHD_USED_END(lane->used);
		     at += (sizeof(*r) + (r->size + 7ull) / 8 * 8) / 8) {
			uint64_t target;

			r = record_at(image, s, lane, log, at);
			if (!r)
				break;
			target = PHD_REC_OFF(r->target);
			if (PHD_REC_KIND(r->target) == PHD_REC_DEFER && target < off + 8 &&
			    off < target + r->size)
				found |= WORD_DEFER;
			if (r->target == PHD_REC_TARGET(PHD_REC_PUBLISH, off))
				found |= memcmp(r + 1, &data, 8) == 0 ? WORD_PUBLISH | WORD_PUBLISH_THIS
								      : WORD_PUBLISH;
		}
	}
	return found;
}

bool tag_committed(const char *image)
{
	const struct phd_super *s = (const void *)image;

	for (uint32_t i = 0; i < s->lane_count; i++) {
		const struct phd_lane *lane = (const void *)(image + s->lane_off + i * sizeof(*lane));

		if (PHD_STATE_STEP(lane->state) == PHD_STEP_COMMITTED &&
		    PHD_STATE_MODE(lane->state) != PHD_MODE_INTERNAL)
			return true;
	}
	return false;
}

bool tag_applied(const char *image, uint64_t off)
{
	const struct phd_super *s = (const void *)image;

	if (off < s->desc_off || (off >= s->words_off && off < s->data_off))
		return false;
	return off < s->data_off || !(word_applied(image, s, off & ~7ull, 0) & WORD_PUBLISH);
}

/* Told at the checksum, when all else of the new sector is there. */
static uint32_t state_tags(const char *image, uint64_t off)
{
	unsigned copy = off >= PHD_STATE_OFF(1);
	const struct phd_state *now = (const void *)(image + PHD_STATE_OFF(copy));
	const struct phd_state *was = (const void *)(image + PHD_STATE_OFF(1 - copy));
	uint32_t tags = 0;

	if (off != PHD_STATE_OFF(copy) + 0x1f8)
		return 0;
	if (now->clean)
		return TAG_BIT(TAG_CLEAN_LAST);
	if (was->clean)
		tags |= TAG_BIT(TAG_STATE_DIRTY);
	if (now->attachment_limit != was->attachment_limit)
		tags |= TAG_BIT(TAG_ATTACH_LIMIT);
	return tags;
}

static uint32_t member_tags(const struct phd_member *row, uint64_t field, uint64_t data)
{
	if (field != offsetof(struct phd_member, attachment))
		return 0;
	if (data)
		return TAG_BIT(TAG_MEMBER_BYTE);
	return row->attachment && row->flags & PHD_MEMBER_LEAVING ? TAG_BIT(TAG_REAP_COUNT) : 0;
}

uint32_t tags_of(const char *image, uint64_t off, unsigned n, uint64_t data, enum oracle_op op)
{
	const struct phd_super *s = (const void *)image;

	if (!n && data != MEMFILE_UNNAMED && data & MEMFILE_SPACE)
		return data & 1 ? TAG_BIT(TAG_PUNCH_LAST) : TAG_BIT(TAG_HOLE_FILL);
	if (!n)
		return 0;
	if (off % PHD_BLOCK_SIZE >= PHD_SECTOR_SIZE && off < PHD_STATE_OFF(1) + PHD_SECTOR_SIZE)
		return state_tags(image, off);
	if (off >= s->member_off && off < s->member_off + s->member_count * sizeof(struct phd_member))
		return member_tags((const void *)(image + off),
				   (off - s->member_off) % sizeof(struct phd_member), data);
	if (off >= s->lane_off && off < s->lane_off + s->lane_count * sizeof(struct phd_lane)) {
		uint64_t field = (off - s->lane_off) % sizeof(struct phd_lane);

		return lane_tags((const void *)(image + off - field), field, data, op);
	}
	if (off == s->head_off + offsetof(struct phd_head, chunk_count))
		return TAG_BIT(TAG_GROW_COUNT);
	if (off >= s->head_off + offsetof(struct phd_head, holds) &&
	    off < s->head_off + sizeof(struct phd_head))
		return op == ORACLE_OP_HOLD ? TAG_BIT(TAG_HOLD_FLAG) : 0;
	if (off < s->data_off)
		return 0;
	/* with a DEFER of the same word, the two can not be told apart */
	if (n == 8 &&
	    (word_applied(image, s, off, data) & (WORD_PUBLISH_THIS | WORD_DEFER)) == WORD_PUBLISH_THIS)
		return TAG_BIT(TAG_PUBLISH_LAST);
	return op == ORACLE_OP_USER_STORE || op == ORACLE_OP_STORE ? TAG_BIT(TAG_USED_STORE) : 0;
}

void tag_place(const char *image, uint64_t off, char *ret, size_t n)
{
	const struct phd_super *s = (const void *)image;
	const struct {
		const char *name;
		uint64_t off, item;
	} regions[] = {
		{"superblock", 0, 4096},
		{"coordination", s->coord_off, 4096},
		{"member", s->member_off, sizeof(struct phd_member)},
		{"stripe", s->stripe_off, sizeof(struct phd_stripe)},
		{"lane", s->lane_off, sizeof(struct phd_lane)},
		{"head", s->head_off, 4096},
		{"lane log", s->lane_log_off, s->lane_log_size ? s->lane_log_size : 1},
		{"descriptor", s->desc_off, 8},
		{"bitmap", s->bits_off, sizeof(struct phd_bits)},
		{"words", s->words_off, sizeof(struct phd_words)},
		{"chunk", s->data_off, PHD_CHUNK_SIZE},
	};
	unsigned i = sizeof(regions) / sizeof(*regions);

	while (i > 1 && off < regions[i - 1].off)
		i--;
	off -= regions[i - 1].off;
	snprintf(ret, n, "%s %llu + %#llx", regions[i - 1].name,
		 (unsigned long long)(off / regions[i - 1].item),
		 (unsigned long long)(off % regions[i - 1].item));
}
