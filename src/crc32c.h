/* SPDX-License-Identifier: MIT
 *
 * crc32c.h: the CRC32C (Castagnoli) of FORMAT.md.
 *
 * Why this polynomial: x86 computes it in one instruction for 8 bytes, so sealing a sector or a log record
 * costs nothing beside the write that follows.
 */
#ifndef PH_CRC32C_H
#define PH_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Start with crc 0; feed the result back in to go on with more bytes. */
uint32_t ph_crc32c(uint32_t crc, const void *buf, size_t n);
/* The same without special instructions: what ph_crc32c uses where they are missing, and what tests
 * compare it with. */
uint32_t ph_crc32c_portable(uint32_t crc, const void *buf, size_t n);

#endif
