/* SPDX-License-Identifier: MIT
 *
 * oracle_steps.h: the calls that the generator of oracle.c draws from. Each returns 0, or -1 with o->why.
 */
#ifndef PHEAP_TEST_ORACLE_STEPS_H
#define PHEAP_TEST_ORACLE_STEPS_H

#include "oracle.h"

int oracle_wrong(struct oracle *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
void oracle_trace(struct oracle *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
void oracle_enter(struct oracle *o, enum oracle_op op);
/* The call failed: 0 and o->doomed when for lack of space, else a violation. */
int oracle_failed(struct oracle *o, const char *call);
size_t oracle_size(struct oracle *o);
const uint8_t *oracle_noise(struct oracle *o, size_t n);
void oracle_user_store(struct oracle *o, void *dst, const void *src, size_t n);
int oracle_note_block(struct oracle *o, struct oracle_block *b, const void *p, size_t n, uint32_t type);

struct oracle_block *oracle_some_block(struct oracle *o);
/* The slot's word in the main object follows the block. */
int oracle_slot_word(struct oracle *o, unsigned slot, uint64_t off);
/* No name means the block any more. */
int oracle_unname(struct oracle *o, uint64_t off);

int oracle_step_change(struct oracle *o);
int oracle_step_defer_u64(struct oracle *o);
int oracle_step_storm(struct oracle *o);
int oracle_step_alloc(struct oracle *o);
int oracle_step_realloc(struct oracle *o);
int oracle_step_free(struct oracle *o);
int oracle_step_root(struct oracle *o);
int oracle_step_publish(struct oracle *o);
int oracle_step_hold(struct oracle *o);
int oracle_step_release(struct oracle *o);
int oracle_step_permits(struct oracle *o);
int oracle_member_hold(struct oracle *o);    /* a call outside of transactions, if anything is held */
int oracle_member_between(struct oracle *o); /* by this process or by the other one */

#endif
