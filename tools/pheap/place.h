/* SPDX-License-Identifier: MIT
 *
 * place.h: where a heap file lives: which file system, what its durability is worth there, how long a flush
 * takes.
 *
 * Why by the file system's magic number, as the library decides: a name says less (fuse.x, a driver of
 * another name). Why a measurement: no file system tells whether the device below has a write cache that it
 * empties.
 *
 * Invariants
 *   W1  The heap file is neither written nor synced: the measurement has a file without a name beside it.
 */
#ifndef PHEAP_PLACE_H
#define PHEAP_PLACE_H

#include <stdbool.h>
#include <stdint.h>

enum place_class {
	PLACE_DURABLE,
	PLACE_PROCESS, /* nothing survives the machine there */
	PLACE_REFUSED, /* the library opens no heap there */
	PLACE_UNKNOWN
};

struct place {
	char name[32]; /* of the file system */
	enum place_class class;
	const char *reason;
	uint64_t flush_ns;    /* of 4 KiB written and durable, the median; 0: not measured */
	const char *skipped;  /* why not; NULL: measured */
	unsigned flush_count; /* how many were measured */
};

/* Of the open file `fd`, which is at `path`. */
void place_read(int fd, const char *path, struct place *ret);
const char *place_class_text(enum place_class class);
/* Lines of `pheap info`. */
void place_print(const struct place *p);
void place_json(const struct place *p);

#endif
