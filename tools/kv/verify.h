/* SPDX-License-Identifier: MIT
 *
 * verify.h: does a heap hold exactly what an input file says?
 */
#ifndef KV_VERIFY_H
#define KV_VERIFY_H

#include "input.h"
#include "store.h"

/* Compares both ways, every byte, the counters of the map, and its blocks (none leaked), and prints a
 * sentence. so_far: not with the input itself but with what the committed transactions of an unfinished
 * load have made of it. 0 equal, 1 not, negative: a code that has been told on stderr. */
int kv_verify(struct kv_store *store, const struct kv_input *input, bool so_far);

#endif
