/* SPDX-License-Identifier: MIT
 *
 * tags.c: see tags.h. Reads the image with the structs of layout.h alone.
 */
#include "tags.h"

#include <stdio.h>
#include <string.h>

#include "layout.h"

const char *const tag_names[TAG_COUNT] = {
	"create-publish", "state-dirty", "clean-last",	"attach-limit",	 "member-byte", "begin-used",
	"undo-used",	  "used-store",	 "ext-link",	"commit-point",	 "apply-idle",	"undo-idle",
	"rollback-used",  "owner-last",	 "grow-count",	"publish-last",
};

static enum tag lane_tag(const struct phd_lane *lane, uint64_t field, uint64_t data, enum oracle_op op)
{
	unsigned was = PHD_STATE_STEP(lane->state), will = PHD_STATE_STEP(data);

	switch (field) {
	case offsetof(struct phd_lane, state):
		if (was == PHD_STEP_IDLE)
			return will == PHD_STEP_ACTIVE ? TAG_BEGIN_USED : TAG_NONE;
		if (was == PHD_STEP_COMMITTED)
			return TAG_APPLY_IDLE;
		return op == ORACLE_OP_COMMIT || op == ORACLE_OP_NEST ? TAG_COMMIT_POINT : TAG_UNDO_IDLE;
	case offsetof(struct phd_lane, used):
		if (PHD_USED_END(data) < PHD_USED_END(lane->used))
			return op == ORACLE_OP_ROLLBACK || op == ORACLE_OP_ABORT ? TAG_ROLLBACK_USED : TAG_NONE;
		return PHD_USED_END(data) > PHD_USED_END(lane->used) ? TAG_UNDO_USED : TAG_NONE;
	case offsetof(struct phd_lane, ext_off):
		return data ? TAG_EXT_LINK : TAG_NONE;
	case offsetof(struct phd_lane, owner):
		return data ? TAG_NONE : TAG_OWNER_LAST;
	default:
		return TAG_NONE;
	}
}

/* Is there a lane that applies a record PUBLISH for this word? Looks at the lanes' own logs only. */
static bool publishing(const char *image, const struct phd_super *s, uint64_t off)
{
	for (uint32_t i = 0; i < s->lane_count; i++) {
		const struct phd_lane *lane = (const void *)(image + s->lane_off + i * sizeof(*lane));
		const char *log = image + s->lane_log_off + (uint64_t)i * s->lane_log_size;
		uint64_t end = PHD_USED_END(lane->used), at = 0;

		if (PHD_STATE_STEP(lane->state) != PHD_STEP_COMMITTED)
			continue;
		while (at < end && at * 8 + sizeof(struct phd_record) <= s->lane_log_size) {
			const struct phd_record *r = (const void *)(log + at * 8);

			if (r->target == PHD_REC_TARGET(PHD_REC_PUBLISH, off))
				return true;
			at += (sizeof(*r) + (r->size + 7ull) / 8 * 8) / 8;
		}
	}
	return false;
}

static enum tag state_tag(const char *image, uint64_t off, unsigned n, uint64_t data)
{
	const uint64_t limit = offsetof(struct phd_state, attachment_limit);
	uint64_t field = off % PHD_BLOCK_SIZE - PHD_SECTOR_SIZE;

	(void)image;
	if (field == offsetof(struct phd_state, clean) - offsetof(struct phd_state, clean) % 8 && n == 8)
		return (uint32_t)data ? TAG_CLEAN_LAST : TAG_STATE_DIRTY;
	return field == limit ? TAG_ATTACH_LIMIT : TAG_NONE;
}

enum tag tag_of(const char *image, uint64_t off, unsigned n, uint64_t data, enum oracle_op op)
{
	const struct phd_super *s = (const void *)image;

	if (!n)
		return TAG_NONE;
	if (off % PHD_BLOCK_SIZE >= PHD_SECTOR_SIZE && off < PHD_STATE_OFF(1) + PHD_SECTOR_SIZE)
		return state_tag(image, off, n, data);
	if (s->magic != PHD_SUPER_MAGIC)
		return TAG_CREATE_PUBLISH;
	if (off >= s->member_off && off < s->member_off + s->member_count * sizeof(struct phd_member))
		return (off - s->member_off) % sizeof(struct phd_member) == 0 && data ? TAG_MEMBER_BYTE : TAG_NONE;
	if (off >= s->lane_off && off < s->lane_off + s->lane_count * sizeof(struct phd_lane)) {
		uint64_t at = off - s->lane_off, field = at % sizeof(struct phd_lane);

		return lane_tag((const void *)(image + off - field), field, data, op);
	}
	if (off == s->head_off + offsetof(struct phd_head, chunk_count))
		return TAG_GROW_COUNT;
	if (off < s->data_off)
		return TAG_NONE;
	if (n == 8 && publishing(image, s, off))
		return TAG_PUBLISH_LAST;
	return op == ORACLE_OP_USER_STORE || op == ORACLE_OP_STORE ? TAG_USED_STORE : TAG_NONE;
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
	snprintf(ret, n, "%s %llu + %#llx", regions[i - 1].name, (unsigned long long)(off / regions[i - 1].item),
		 (unsigned long long)(off % regions[i - 1].item));
}
