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
	TAG_COUNT,
	TAG_NONE = TAG_COUNT
};
extern const char *const tag_names[TAG_COUNT];

/* image: before the store of n bytes of `data` at off, made by op. */
enum tag tag_of(const char *image, uint64_t off, unsigned n, uint64_t data, enum oracle_op op);
/* "lane 1 state", "data 0x3000": for messages. */
void tag_place(const char *image, uint64_t off, char *ret, size_t n);

#endif
