/* SPDX-License-Identifier: MIT
 *
 * alloc_malloc.c: malloc of the C library: what an allocator costs that keeps nothing.
 */
#include <stdlib.h>

#define ALLOC_NAME "malloc"
#define volatile_new malloc
#define volatile_free free

#include "alloc_volatile.h"
/* after what it needs */
#include "alloc_loops.h"

const struct alloc_system alloc_malloc = {ALLOC_LOOPS};
