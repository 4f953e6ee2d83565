/* SPDX-License-Identifier: MIT
 *
 * crew.h: one load by several processes, which work in the same heap at the same time.
 *
 * What: this process makes the load the heap's, starts the others, and puts a new one in the place of each
 * that is killed by SIGKILL, until there is nothing left to do.
 * Why it does no step itself: it is there to wait; and the heap needs no chief, any number of `load` commands
 * started by hand work together the same way.
 *
 * Invariants
 *   W1  A process of the crew ends with this one.
 *   W2  A crew that is killed again and again without getting on ends with an error.
 */
#ifndef KV_CREW_H
#define KV_CREW_H

#include "load.h"

#define KV_PROCESS_MAX 16u

/* As kv_load, with options->thread_count threads in each of process_count processes. */
int kv_crew_load(struct kv_store *store, const struct kv_input *input, const struct kv_load_options *options,
		 unsigned process_count);

#endif
