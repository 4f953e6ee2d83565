/* SPDX-License-Identifier: MIT
 *
 * format.h: pure functions on the structs of FORMAT.md, for the tools that read a heap without the library.
 *
 * Why a second CRC and a second geometry check: a mistake in the library's must not hide itself from fsck.
 *
 * Invariants
 *   F1  Nothing here does input or output or keeps state.
 *   F2  A phd_super that format_super_error accepts can be used for address arithmetic without overflow.
 */
#ifndef FSCK_FORMAT_H
#define FSCK_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

uint32_t format_crc32c(const void *data, size_t n);
/* For bytes in parts: begins with 0, goes on with what it gave. */
uint32_t format_crc32c_more(uint32_t crc, const void *data, size_t n);
/* NULL, or why this sector is not a valid copy `copy` of a superblock (magic, copy number, CRC). */
const char *format_super_invalid(const struct phd_super *s, uint32_t copy);
/* NULL, or which field breaks a rule of FORMAT.md sections 1 and 2. */
const char *format_super_error(const struct phd_super *s);
/* NULL, or why this version of the tools cannot read such a heap. */
const char *format_super_unknown(const struct phd_super *s);
/* Does such a heap survive a power cut? Then it has a WAL, a ring, leases and checkpoint sectors. */
bool format_has_wal(const struct phd_super *s);
/* Rows of the table leases. */
uint64_t format_table_lease_count(uint64_t chunk_count);
bool format_state_valid(const struct phd_state *s);
/* NULL, or why this sector is no checkpoint that power recovery could begin with. */
const char *format_checkpoint_invalid(const struct phd_super *s, const struct phd_checkpoint *c);
/* A name that ends within its field and is not empty. */
bool format_name_valid(const char name[PHD_NAME_SIZE]);
uint64_t format_name_hash(const char *name);
/* The list of held references that this object's are in. */
unsigned format_hold_bucket(uint64_t object_off);
/* A number that a member can have had. From 2^45 on it is damage: nobody attaches that often, and a limit
 * above it would leave too few numbers up to 2^46, where the library stops. */
bool format_attachment_valid(uint64_t attachment);
/* Can runs and extents past the journal have this type? */
bool format_type_valid(uint32_t type);
/* Blocks that a run with this descriptor holds; 0 if the descriptor is no possible run. */
uint64_t format_run_blocks(uint64_t desc);
/* Chunks that a file of this size backs. */
uint64_t format_chunks_backed(const struct phd_super *s, uint64_t file_size);
bool format_is_zero(const void *data, size_t n);

#endif
