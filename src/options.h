/* SPDX-License-Identifier: MIT
 *
 * options.h: what a caller of pheap_open asked for, checked before anything is touched. Each: 0 or a code with a sentence.
 */
#ifndef PH_OPTIONS_H
#define PH_OPTIONS_H

#include "pheap.h"

int ph_options_flags(uint32_t flags);
/* Of any size that this library knows, NULL too; what the caller left out is 0. */
int ph_options_take(const struct pheap_options *opt, struct pheap_options *ret);
/* Flags and options must agree. *ret: a PHEAP_ level, or 0: the heap's. */
int ph_options_durability(uint32_t flags, uint32_t in_options, uint32_t *ret);

#endif
