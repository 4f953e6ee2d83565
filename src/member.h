/* SPDX-License-Identifier: MIT
 *
 * member.h: attached processes: who is alive, and who is named in a message.
 *
 * Invariant
 *   B1  Alive means: the slot's OFD byte is locked. Nothing else does: not the pid, not /proc, not a
 *       heartbeat.
 */
#ifndef PH_MEMBER_H
#define PH_MEMBER_H

#include "heap.h"

/* 1 alive, 0 dead, or -errno of asking. */
int ph_member_alive(struct pheap *h, uint32_t slot);
/* Slot of the member that owns the lane, or -1. */
int ph_member_of_lane(const struct pheap *h, uint32_t lane_idx);
/* If the owner of the lane is dead, recovers it. 0: alive or nobody, 1: recovered, or an error. */
int ph_member_check_lane(struct pheap *h, uint32_t lane_idx);
int ph_member_check(struct pheap *h, uint32_t slot);
int ph_member_check_all(struct pheap *h); /* how many were recovered, or an error */
/* "process 123 (name), which is alive" for messages. */
void ph_member_describe(const struct pheap *h, int slot, char *ret, size_t n);

#endif
