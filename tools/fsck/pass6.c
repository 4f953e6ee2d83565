/* SPDX-License-Identifier: MIT
 *
 * pass6.c: coordination: what is left of processes that are gone.
 *
 * Needs:  every lane idle (pass 2); nobody attached: then no word here belongs to anybody, and nothing in it
 *         is trusted. What the first opener sets anyway (gate, lane_limit, recovered_count, reaped,
 *         hold_buckets) is not looked at.
 * Checks: poison; attachment numbers, those of held references and semaphores too, against the durable
 *         limit; lock words and waiters that a lane to come could take for its own; leases that are ahead of
 *         the log; rows of members, owners and notes of lanes.
 * Gives:  a heap that the next opener finds as the last closer would have left it.
 *
 * Order among these stores does not matter but for the limit (fsck-limit): each is a word that means nothing
 * while nobody is attached.
 */
#include <stdlib.h>

#include "fsck.h"

typedef unsigned long long ull;

static void poison_check(struct fsck *f)
{
	uint64_t off = f->super.coord_off + offsetof(struct phd_coord, poison),
		 code = image_read_word(f, off);

	if (code && !f->was_clean && problem(f, PR_POISON, off, "code %llu", (ull)code))
		image_write_word(f, off, 0);
}

static uint64_t attachment_max(struct fsck *f)
{
	uint64_t max = 0;

	for (uint32_t i = 0; i < f->super.member_count; i++) {
		uint64_t n = image_read_word(f, f->super.member_off + i * sizeof(struct phd_member));

		max = n > max ? n : max;
	}
	return max;
}

static void limit_check(struct fsck *f, uint64_t max, uint64_t off)
{
	if (!max || max < f->state.attachment_limit ||
	    !problem(f, PR_ATTACHMENT, off, "%llu, the limit is %llu", (ull)max,
		     (ull)f->state.attachment_limit) ||
	    !format_attachment_valid(max))
		return; /* a number that was never given out: the row goes, the limit stays */
	/* ORDER(fsck-limit): limit durable before the row that shows it goes. Crash between: as before. */
	f->state.attachment_limit = max + 1;
	image_write_state(f, false);
}

static void attachment_check(struct fsck *f)
{
	/* rows of another boot or file say nothing about this one; records and cells are durable */
	if (!f->was_clean && f->same_boot && f->same_file)
		limit_check(f, attachment_max(f), f->super.member_off);
	limit_check(f, f->attachment_max, f->attachment_off);
}

/* True iff the word could be taken for held by a lane or member that is still to come. */
static bool word_impossible(const struct fsck *f, const uint64_t *lane_gens, uint64_t word)
{
	unsigned lane = PHD_WORD_LANE(word);
	uint64_t gen = PHD_WORD_GEN(word);

	if (!(word & ~(uint64_t)PHD_WORD_FLAGS))
		return false;
	if (lane >= PHD_WORD_MEMBER)
		return lane - PHD_WORD_MEMBER >= f->super.member_count || gen >= f->state.attachment_limit;
	return lane >= f->super.lane_count || gen >= lane_gens[lane];
}

static void word_check(struct fsck *f, const uint64_t *lane_gens, uint64_t off, uint64_t word,
		       const char *what, uint64_t number)
{
	if (word_impossible(f, lane_gens, word) &&
	    problem(f, PR_WORD, off, "%s %llu: lane %u, generation %llu", what, (ull)number,
		    PHD_WORD_LANE(word), (ull)PHD_WORD_GEN(word)))
		image_write_word(f, off, 0);
}

static void chunk_words_check(struct fsck *f, const uint64_t *lane_gens)
{
	struct phd_words words[1024];

	for (uint64_t chunk = 0; chunk < f->chunk_count;) {
		uint64_t n = f->chunk_count - chunk < 1024 ? f->chunk_count - chunk : 1024;
		uint64_t off = f->super.words_off + chunk * sizeof words[0];

		image_read(f, off, words, (size_t)n * sizeof words[0]);
		for (uint64_t i = 0; i < n; i++) {
			word_check(f, lane_gens, off + 16 * i, words[i].owner, "owner of chunk", chunk + i);
			word_check(f, lane_gens, off + 16 * i + 8, words[i].latch, "latch of chunk",
				   chunk + i);
		}
		chunk += n;
		pass_progress(f, chunk, f->chunk_count);
	}
}

static void words_check(struct fsck *f)
{
	static const size_t coord_words[] = {
		offsetof(struct phd_coord, writer),	offsetof(struct phd_coord, writer_next),
		offsetof(struct phd_coord, switcher),	offsetof(struct phd_coord, switcher_next),
		offsetof(struct phd_coord, directory),	offsetof(struct phd_coord, growth),
		offsetof(struct phd_coord, append),	offsetof(struct phd_coord, flush),
		offsetof(struct phd_coord, checkpoint),
	};
	uint64_t *lane_gens = memory_get(f, f->super.lane_count, 8, "the lanes");

	for (uint32_t i = 0; i < f->super.lane_count; i++)
		lane_gens[i] =
			PHD_STATE_GEN(image_read_word(f, f->super.lane_off + i * sizeof(struct phd_lane)));
	for (unsigned i = 0; i < sizeof coord_words / sizeof coord_words[0]; i++)
		word_check(f, lane_gens, f->super.coord_off + coord_words[i],
			   image_read_word(f, f->super.coord_off + coord_words[i]), "word of the heap", i);
	for (uint64_t i = 0; i <= f->super.stripe_count; i++) {
		uint64_t off = f->super.stripe_off + i * sizeof(struct phd_stripe);
		struct phd_stripe s;

		image_read(f, off, &s, sizeof s);
		word_check(f, lane_gens, off, s.word, "stripe", i);
		word_check(f, lane_gens, off + offsetof(struct phd_stripe, next), s.next, "waiter of stripe",
			   i);
	}
	chunk_words_check(f, lane_gens);
	free(lane_gens);
}

/* Every word that begins a unit. Pages of a lease word that is ahead of the log would have no image when the log gets there. */
static void lease_words_check(struct fsck *f, uint64_t off, uint64_t end, size_t unit, const char *what)
{
	uint64_t words[1024], start = off;

	end = end < f->file_size ? end : f->file_size & ~15ull;
	while ((off = image_next_data(f, off, end) & ~15ull) < end) {
		size_t n = end - off < sizeof words ? (size_t)(end - off) : sizeof words;

		image_read(f, off, words, n);
		for (size_t i = 0; i < n / 8; i += unit / 8)
			if (words[i] > f->next_lsn &&
			    problem(f, PR_LEASE, off + 8 * i, "%s %llu: %llu, the log is at %llu", what,
				    (ull)((off - start) / 16 + i / 2), (ull)words[i], (ull)f->next_lsn))
				image_write_word(f, off + 8 * i, 0);
		off += n;
	}
}

static void leases_check(struct fsck *f)
{
	const struct phd_super *s = &f->super;

	if (!f->wal)
		return;
	/* alloc_lsn may be anything: one that is ahead only says that the chunk was changed just now */
	lease_words_check(f, s->lease_off, s->lease_off + f->chunk_count * sizeof(struct phd_lease),
			  sizeof(struct phd_lease), "chunk");
	lease_words_check(f, s->table_lease_off,
			  s->table_lease_off +
				  format_table_lease_count(f->chunk_count) * sizeof(struct phd_table_lease),
			  sizeof(uint64_t), "table page");
}

/* Zeros [off, off + n), n <= 128; says whether anything was there. */
static bool row_left(struct fsck *f, uint64_t off, size_t n)
{
	unsigned char row[128];

	image_read(f, off, row, n);
	return !format_is_zero(row, n);
}

static void row_clear(struct fsck *f, uint64_t off, size_t n)
{
	static const unsigned char zeros[128];

	if (row_left(f, off, n))
		image_write(f, off, zeros, n);
}

static uint64_t rows_left(struct fsck *f, bool clear)
{
	const size_t second = offsetof(struct phd_lane, wait_gen);
	uint64_t count = 0;

	for (uint32_t i = 0; i < f->super.member_count; i++) {
		uint64_t off = f->super.member_off + i * sizeof(struct phd_member);

		/* a row without an attachment is free, whatever else it holds */
		if (!image_read_word(f, off))
			continue;
		count++;
		if (clear)
			row_clear(f, off, sizeof(struct phd_member));
	}
	for (uint32_t i = 0; i < f->super.lane_count; i++) {
		uint64_t lane = f->super.lane_off + i * sizeof(struct phd_lane),
			 owner = lane + offsetof(struct phd_lane, owner);

		if (!image_read_word(f, owner) &&
		    !row_left(f, lane + second, sizeof(struct phd_lane) - second))
			continue;
		count += image_read_word(f, owner) != 0;
		if (clear) {
			row_clear(f, lane + second, sizeof(struct phd_lane) - second);
			row_clear(f, owner, 8);
		}
	}
	return count;
}

void pass_coordination(struct fsck *f)
{
	uint64_t left;

	if (f->attached)
		return;
	poison_check(f);
	attachment_check(f);
	words_check(f);
	leases_check(f);
	left = f->was_clean ? 0 : rows_left(f, false);
	if (left && problem(f, PR_MEMBERS, f->super.member_off, "%llu of members and lanes", (ull)left))
		rows_left(f, true);
	else if (!f->was_clean && !f->overlaid)
		rows_left(f, true); /* notes that nobody needs to hear of */
}
