/* SPDX-License-Identifier: MIT
 *
 * store.h: a heap file with pheap-kv's roots, opened.
 *
 * Invariant
 *   S1  Whoever opens for writing has written into "life" what the open recovered, before it changes
 *       anything else. What it recovers later of others that die beside it, it adds when it notes it and when
 *       it closes; if it dies first, "life" counts that too little.
 *   S2  A file is only removed by the open that made it, while nothing is in it and nobody else is attached.
 */
#ifndef KV_STORE_H
#define KV_STORE_H

#include <stdbool.h>

#include "durable.h"

enum kv_open {
	KV_READ,  /* the file must exist and is not changed */
	KV_WRITE, /* the file must exist */
	KV_MAKE,  /* makes the file if it is missing */
};

/* What a heap is made with; 0: the library's default. */
struct kv_new {
	uint64_t max_size;   /* bytes */
	uint32_t durability; /* PHEAP_SYNC, PHEAP_EPOCH, PHEAP_PROCESS; a heap of another one is refused */
};

/* A heap that is opened for reading and was just made has no roots: the last three are NULL. */
struct kv_store {
	pheap *h;
	const char *path;
	bool made;		 /* this open made the file */
	struct pheap_info info;	 /* when it was opened */
	struct pheap_info noted; /* whose recoveries are in "life" */
	const struct kv_map *map;
	const struct kv_load *load;
	const struct kv_life *life;
};

/* An error has been told on stderr. */
int kv_store_open(struct kv_store *ret, const char *path, enum kv_open how, const struct kv_new *with);
int kv_store_close(struct kv_store *store);

/* In place of kv_store_close, after a failure: also removes a file that was made for what failed (S2). */
void kv_store_abandon(struct kv_store *store);

/* A line on stdout if the heap had not been closed: its user was killed. */
void kv_store_tell_recovery(const struct kv_store *store);

/* S1, beside other transactions; nothing to do, most of the time. Not inside a transaction. */
void kv_store_note_recovery(struct kv_store *store);

/* "sync", "epoch", "process": as the user says it. */
const char *kv_durability_text(uint32_t durability);

/* Tells what failed on stderr, in the library's words; gives rc. */
int kv_store_fail(const struct kv_store *store, int rc, const char *what);

#endif
