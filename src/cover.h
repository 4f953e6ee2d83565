/* SPDX-License-Identifier: MIT
 *
 * cover.h: which bytes this transaction already logged (or made fresh) since its latest savepoint.
 *
 * What: a small lossy table, 64-byte line -> mask of bytes, and the last few long ranges.
 * Why lossy: forgetting costs one more undo record and nothing else, so it needs no memory that grows and
 * no removal; a full map costs more per transaction than the duplicates it saves.
 *
 * Invariants
 *   C1  A byte reported as covered has an undo record at or after the latest savepoint, or was free space
 *       when it was set.
 *   C2  A new stamp forgets everything.
 */
#ifndef PH_COVER_H
#define PH_COVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PH_COVER_LINES 256u
#define PH_COVER_RANGES 8u
#define PH_COVER_SMALL 256u /* bytes: up to here a range is kept as lines */
#define PH_COVER_STAMP_MAX 0xffffffu

struct ph_cover_line {
	uint64_t tag; /* line << 24 | stamp; lines are below 2^40 */
	uint64_t mask;
};

struct ph_cover_range {
	uint64_t off, end;
};

struct ph_cover {
	uint64_t stamp;
	uint32_t range_count;
	struct ph_cover_range ranges[PH_COVER_RANGES];
	struct ph_cover_line lines[PH_COVER_LINES];
};

/* Lines only, for a table that has had no ranges since it was last cleared. */
static inline void ph_cover_clear_lines(struct ph_cover *c)
{
	if (__builtin_expect(++c->stamp > PH_COVER_STAMP_MAX, 0)) {
		memset(c->lines, 0, sizeof(c->lines));
		c->stamp = 1;
	}
}

static inline void ph_cover_clear(struct ph_cover *c)
{
	c->range_count = 0;
	ph_cover_clear_lines(c);
}

static inline uint64_t ph_cover_mask(unsigned from, size_t n)
{
	return (n >= 64 ? ~0ull : (1ull << n) - 1) << from;
}

/* One line at most. True: all of it was covered; else it is now. */
static inline bool ph_cover_line(struct ph_cover *c, uint64_t off, size_t n)
{
	struct ph_cover_line *line = &c->lines[off / 64 % PH_COVER_LINES];
	uint64_t tag = off / 64 << 24 | c->stamp;
	uint64_t mask = n == 64 ? ~0ull : ph_cover_mask((unsigned)(off % 64), n); /* 64: a whole one */

	if (line->tag != tag) {
		line->tag = tag;
		line->mask = mask;
		return false;
	}
	if ((line->mask & mask) == mask)
		return true;
	line->mask |= mask;
	return false;
}

static inline bool ph_cover_lines(struct ph_cover *c, uint64_t off, size_t n)
{
	bool all = true;

	while (n) {
		size_t step = 64 - off % 64;

		if (step > n)
			step = n;
		all &= ph_cover_line(c, off, step);
		off += step;
		n -= step;
	}
	return all;
}

/* As ph_cover_lines, but notes nothing. */
static inline bool ph_cover_has_lines(const struct ph_cover *c, uint64_t off, size_t n)
{
	while (n) {
		const struct ph_cover_line *line = &c->lines[off / 64 % PH_COVER_LINES];
		size_t step = 64 - off % 64;
		uint64_t mask;

		if (step > n)
			step = n;
		mask = ph_cover_mask((unsigned)(off % 64), step);
		if (line->tag != (off / 64 << 24 | c->stamp) || (line->mask & mask) != mask)
			return false;
		off += step;
		n -= step;
	}
	return true;
}

static inline bool ph_cover_in_range(const struct ph_cover *c, uint64_t off, size_t n)
{
	uint32_t count = c->range_count < PH_COVER_RANGES ? c->range_count : PH_COVER_RANGES;

	for (uint32_t i = 0; i < count; i++)
		if (off >= c->ranges[i].off && off + n <= c->ranges[i].end)
			return true;
	return false;
}

static inline void ph_cover_add_range(struct ph_cover *c, uint64_t off, size_t n)
{
	c->ranges[c->range_count++ % PH_COVER_RANGES] = (struct ph_cover_range){off, off + n};
}

/* Notes [off, off + n) as covered, of any length. */
static inline void ph_cover_add(struct ph_cover *c, uint64_t off, size_t n)
{
	if (n <= PH_COVER_SMALL)
		(void)ph_cover_lines(c, off, n);
	else
		ph_cover_add_range(c, off, n);
}

#endif
