/* SPDX-License-Identifier: MIT
 *
 * blocklog.h: a disk that remembers all that it was told, and what it may hold when the power goes.
 *
 * What: a file system of one file (FUSE, spoken without a library), made for a loop device on top. It logs each write and each
 * flush, with what the board promised when it came. From the log, any number of images: what was written up to the last
 * flush that was done, and of what came later some sectors, in some version.
 * Why a disk of our own: a loop device on an ordinary file keeps what was never flushed, and so would hide a missing flush.
 *
 * Invariants
 *   B1  One request at a time: a write is done before the next flush is looked at. So the log is an order that the disk has seen.
 *   B2  Entry i has what was promised before it was answered: an image of the entries before i must keep that.
 *   B3  What was written before a flush is in every image of later moments; what came after it, sector by sector, may be.
 */
#ifndef PHEAP_POWER_BLOCKLOG_H
#define PHEAP_POWER_BLOCKLOG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "deeds.h"

struct blocklog;

/* Of a disk with what is behind `disk` now. Memory that is shared with children; NULL: none. */
struct blocklog *blocklog_make(int disk, uint64_t size, const struct deeds_board *board);
void blocklog_free(struct blocklog *l);
/* Offers the file below the stage; *ret_fd is open on it. The process that serves it, or -1 with why. */
pid_t blocklog_serve(struct blocklog *l, const char *name, int *ret_fd, char *why, size_t n);
/* Writes and flushes until now. */
uint64_t blocklog_count(const struct blocklog *l);
uint64_t blocklog_flushes(const struct blocklog *l);
/* The memory for it is used up: what comes later is not logged. */
bool blocklog_full(const struct blocklog *l);
/* A moment at random: that many entries have come. Most have more to lose than others: many writes since a flush. */
uint64_t blocklog_moment(const struct blocklog *l, uint64_t *random);
/* The disk of that moment; going back takes longer. *ret: what was promised, and begun, then. 0 or -1. */
int blocklog_image(struct blocklog *l, uint64_t moment, uint64_t *random, int fd, struct deeds_sample *ret);

#endif
