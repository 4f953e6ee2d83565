/* SPDX-License-Identifier: MIT
 *
 * test_crc32c.c: known values, both implementations against each other, and going on in pieces.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"

struct vector {
	const char *name;
	uint32_t crc;
	uint8_t first, step; /* byte i is first + step * i */
};

/* RFC 3720, appendix B.4: 32 bytes each. */
static const struct vector vectors[] = {
	{"zeros", 0x8a9136aa, 0x00, 0},
	{"ones", 0x62a8ab43, 0xff, 0},
	{"up", 0x46dd794e, 0x00, 1},
	{"down", 0x113fdb5c, 0x1f, 0xff},
};

Test(crc32c, known_values)
{
	cr_assert_eq(ph_crc32c(0, "", 0), 0);
	cr_assert_eq(ph_crc32c(0, "123456789", 9), 0xe3069283u);
	cr_assert_eq(ph_crc32c_portable(0, "123456789", 9), 0xe3069283u);
	for (size_t i = 0; i < sizeof(vectors) / sizeof(*vectors); i++) {
		uint8_t bytes[32];

		for (size_t k = 0; k < sizeof(bytes); k++)
			bytes[k] = (uint8_t)(vectors[i].first + vectors[i].step * k);
		cr_expect_eq(ph_crc32c(0, bytes, sizeof(bytes)), vectors[i].crc, "%s", vectors[i].name);
		cr_expect_eq(ph_crc32c_portable(0, bytes, sizeof(bytes)), vectors[i].crc, "%s",
			     vectors[i].name);
	}
}

static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Every length up to 300 at every alignment, cut in two at a random place. */
Test(crc32c, implementations_agree)
{
	uint64_t seed = 0x9e3779b97f4a7c15ull;
	uint8_t bytes[320];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)next_random(&seed);
	for (size_t n = 0; n <= 300; n++)
		for (size_t at = 0; at < 8; at++) {
			uint32_t whole = ph_crc32c_portable(0, bytes + at, n);
			size_t cut = n ? next_random(&seed) % n : 0;

			cr_assert_eq(ph_crc32c(0, bytes + at, n), whole, "length %zu at %zu", n, at);
			cr_assert_eq(ph_crc32c(ph_crc32c(0, bytes + at, cut), bytes + at + cut, n - cut),
				     whole, "length %zu at %zu, cut at %zu", n, at, cut);
		}
}

Test(crc32c, one_bit_changes_it)
{
	uint8_t sector[512] = {1};
	uint32_t before = ph_crc32c(0, sector, sizeof(sector));

	for (size_t bit = 0; bit < 8 * sizeof(sector); bit++) {
		sector[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_neq(ph_crc32c(0, sector, sizeof(sector)), before, "bit %zu", bit);
		sector[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}
