/* SPDX-License-Identifier: MIT
 *
 * tags.h: which ORDER(tag) of FORMAT.md section 7 a cut falls into, told by the store that the cut prevents.
 */
#ifndef PHEAP_KILL_TAGS_H
#define PHEAP_KILL_TAGS_H

#include "oracle.h"

enum tag {
	TAG_CREATE_PUBLISH,
	TAG_STATE_DIRTY,
	TAG_CLEAN_LAST,
	TAG_ATTACH_LIMIT,
	TAG_MEMBER_BYTE,
	TAG_BEGIN_USED,
	TAG_UNDO_USED,
	TAG_USED_STORE,
	TAG_EXT_LINK,
	TAG_COMMIT_POINT,
	TAG_APPLY_IDLE,
	TAG_UNDO_IDLE,
	TAG_ROLLBACK_USED,
	TAG_OWNER_LAST,
	TAG_GROW_COUNT,
	TAG_PUBLISH_LAST,
	TAG_HOLD_FLAG,
	TAG_REAP_COUNT,
	TAG_EPHEMERAL_NAME,
	TAG_PUNCH_LAST,
	TAG_HOLE_FILL,
	TAG_COUNT
};
#define TAG_BIT(tag) (1u << (tag))
extern const char *const tag_names[TAG_COUNT];

/* A set of TAG_BIT. image: before the store of n bytes of `data` at off, made by op. */
uint32_t tags_of(const char *image, uint64_t off, unsigned n, uint64_t data, enum oracle_op op);
/* Is off in data, bitmaps or descriptors, and no word that a committed transaction publishes? */
bool tag_applied(const char *image, uint64_t off);
/* Is a lane in the step committed? */
bool tag_committed(const char *image);
/* "lane 1 state", "data 0x3000": for messages. */
void tag_place(const char *image, uint64_t off, char *ret, size_t n);

#endif
