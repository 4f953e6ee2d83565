/* SPDX-License-Identifier: MIT
 *
 * members.h: who is attached to a heap, who died, and what their lanes do: a copy of the rows of one moment.
 *
 * Why not pheap_member_alive: who looks must not attach. The kernel answers for a descriptor of our own:
 * whoever holds the byte of a slot lives, in whatever pid namespace.
 *
 * Invariants
 *   M1  A member is called dead only if its row was the same before and after its byte was found free: a row
 *       is written under the byte, and cleared before the byte is dropped.
 *   M2  Memory is that of the tables whose sizes the superblock limits.
 */
#ifndef PHEAP_MEMBERS_H
#define PHEAP_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "heap_file.h"

struct member_view {
	uint32_t slot;
	struct phd_member row;
	bool alive;
	uint32_t lane_count;   /* lanes it owns */
	uint32_t active_count; /* of these, in a transaction */
	uint32_t waiting_count;
	uint64_t undo_count, redo_count; /* what recovery will roll back, and complete */
	char command[17];		 /* as text */
};

struct members {
	struct member_view *rows; /* by slot, free slots left out */
	uint32_t count, alive_count;
	struct phd_lane *lanes; /* all of them */
	uint32_t lane_used_count, lane_active_count;
};

/* Of a heap whose rows mean nothing (heap_file_current): none. Free with members_free. */
void members_read(const struct heap_file *h, struct members *ret);
void members_free(struct members *m);
/* The one in that slot with that attachment; NULL: gone. */
const struct member_view *members_find(const struct members *m, uint32_t slot, uint64_t attachment);
/* Who owns the lane; NULL: nobody who is attached. */
const struct member_view *members_of_lane(const struct members *m, uint32_t lane);
/* Is the row's member dead? Asks again, see M1. */
bool member_dead(const struct heap_file *h, uint32_t slot, uint64_t attachment);

/* `pheap info --members`, `--members --json`. */
void members_print(const struct heap_file *h, const struct members *m);
void members_json_lines(const struct members *m);

#endif
