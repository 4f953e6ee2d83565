/* SPDX-License-Identifier: MIT
 *
 * super.h: the superblock and the state sector: computing a geometry, checking one that was read, writing
 * both.
 *
 * Invariants
 *   S1  A phd_super that ph_super_check accepted can be used for address arithmetic without further checks.
 *   S2  Nothing here maps or allocates.
 */
#ifndef PH_SUPER_H
#define PH_SUPER_H

#include <stdbool.h>

#include "layout.h"
#include "pheap.h"

/* Does it survive power cuts? */
static inline bool ph_super_has_wal(const struct phd_super *super)
{
	return super->durability > PHEAP_PROCESS >> 24;
}

/* Fills everything but uuid, crc and copy for a new heap; 0 or -EINVAL with a sentence. Options are
 * resolved (no zeros left that mean "default"): see ph_super_defaults. ret_chunk_count: chunks that
 * initial_size pays for. */
int ph_super_plan(const struct pheap_options *opt, uint32_t durability, struct phd_super *ret,
		  uint64_t *ret_chunk_count);
/* Reads both copies by pread from fd; the first valid one. -PHEAP codes with a sentence: EFORMAT (not a
 * heap, newer), ECORRUPT. */
int ph_super_read(int fd, uint64_t file_size, struct phd_super *ret);
int ph_super_check(const struct phd_super *super);
void ph_super_seal(struct phd_super *super, uint32_t copy);
/* Both copies; the valid one with the higher seq. ECORRUPT when neither is valid. ret_copy: which. */
int ph_state_read(int fd, struct phd_state *ret, uint32_t *ret_copy);
/* Next copy: seq + 1, sealed, written durable. */
int ph_state_write(int fd, struct phd_state *state, uint32_t *copy);

/* The same for the checkpoint sector of a heap with a WAL. */
int ph_checkpoint_read(int fd, const struct phd_super *super, struct phd_checkpoint *ret, uint32_t *ret_copy);
int ph_checkpoint_write(int fd, struct phd_checkpoint *checkpoint, uint32_t *copy);
/* Raises what the sector says to where checkpoints have moved it since. 0; 1: there is a SWITCH record at epoch_lsn now; errors. */
int ph_live_read(int fd, const struct phd_super *super, struct phd_checkpoint *checkpoint);

/* Space that must exist in the file before chunks [from, to) may be used: ranges of descriptors, bitmaps,
 * words and data, rounded to blocks. 0 or -errno of the allocation; never undone. */
int ph_super_allocate(int fd, const struct phd_super *super, uint64_t from, uint64_t to);
int ph_super_allocate_tables(int fd, const struct phd_super *super, uint64_t from,
			     uint64_t to); /* without data */

#endif
