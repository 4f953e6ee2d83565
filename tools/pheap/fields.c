/* SPDX-License-Identifier: MIT
 *
 * fields.c: names, offsets and kinds of the fields of every durable struct, for `pheap dump`.
 *
 * Invariants
 *   D1  Each field's offset and size come from layout.h by offsetof and sizeof, never from a number here.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "heap_file.h"

#define FIELD(type, member, kind) \
	{ \
#member, offsetof(struct type, member), sizeof(((struct type *)0)->member), kind \
	}
#define STRUCT(type) \
	{ \
#type, sizeof(struct type), type##_fields, sizeof type##_fields / sizeof type##_fields[0] \
	}

static const struct field phd_super_fields[] = {
	FIELD(phd_super, magic, 'x'),
	FIELD(phd_super, version, 'x'),
	FIELD(phd_super, copy, 'd'),
	FIELD(phd_super, compat, 'x'),
	FIELD(phd_super, ro_compat, 'x'),
	FIELD(phd_super, incompat, 'x'),
	FIELD(phd_super, uuid, 'b'),
	FIELD(phd_super, size_max, 'd'),
	FIELD(phd_super, durability, 'd'),
	FIELD(phd_super, chunk_shift, 'd'),
	FIELD(phd_super, fixed_base, 'x'),
	FIELD(phd_super, epoch_ms, 'd'),
	FIELD(phd_super, member_count, 'd'),
	FIELD(phd_super, lane_count, 'd'),
	FIELD(phd_super, stripe_count, 'd'),
	FIELD(phd_super, lane_log_size, 'd'),
	FIELD(phd_super, root_bucket_count, 'd'),
	FIELD(phd_super, coord_off, 'x'),
	FIELD(phd_super, member_off, 'x'),
	FIELD(phd_super, stripe_off, 'x'),
	FIELD(phd_super, lane_off, 'x'),
	FIELD(phd_super, head_off, 'x'),
	FIELD(phd_super, lane_log_off, 'x'),
	FIELD(phd_super, desc_off, 'x'),
	FIELD(phd_super, bits_off, 'x'),
	FIELD(phd_super, words_off, 'x'),
	FIELD(phd_super, data_off, 'x'),
	FIELD(phd_super, chunk_max, 'd'),
	FIELD(phd_super, journal_count, 'd'),
	FIELD(phd_super, wal_off, 'x'),
	FIELD(phd_super, wal_size, 'd'),
	FIELD(phd_super, ring_off, 'x'),
	FIELD(phd_super, lease_off, 'x'),
	FIELD(phd_super, table_lease_off, 'x'),
	FIELD(phd_super, limbo_off, 'x'),
	FIELD(phd_super, layout, 't'),
	FIELD(phd_super, crc, 'x'),
};

static const struct field phd_state_fields[] = {
	FIELD(phd_state, magic, 'x'),	   FIELD(phd_state, seq, 'd'),
	FIELD(phd_state, boot_id, 'b'),	   FIELD(phd_state, inode, 'd'),
	FIELD(phd_state, birth_ns, 'd'),   FIELD(phd_state, clean, 'd'),
	FIELD(phd_state, durability, 'd'), FIELD(phd_state, attachment_limit, 'd'),
	FIELD(phd_state, open_gen, 'd'),   FIELD(phd_state, crc, 'x'),
};

static const struct field phd_checkpoint_fields[] = {
	FIELD(phd_checkpoint, magic, 'x'),     FIELD(phd_checkpoint, seq, 'd'),
	FIELD(phd_checkpoint, log_gen, 'd'),   FIELD(phd_checkpoint, replay_lsn, 'd'),
	FIELD(phd_checkpoint, epoch_lsn, 'd'), FIELD(phd_checkpoint, lane_gen_limit, 'd'),
	FIELD(phd_checkpoint, crc, 'x'),
};

static const struct field phd_live_fields[] = {
	FIELD(phd_live, epoch_lsn, 'd'),
	FIELD(phd_live, lane_gen_limit, 'd'),
};

static const struct field phd_wal_fields[] = {
	FIELD(phd_wal, lsn, 'd'),  FIELD(phd_wal, log_gen, 'd'), FIELD(phd_wal, size, 'd'),
	FIELD(phd_wal, kind, 'd'), FIELD(phd_wal, crc, 'x'),
};

static const struct field phd_coord_fields[] = {
	FIELD(phd_coord, open_gen, 'd'),
	FIELD(phd_coord, attachment_next, 'd'),
	FIELD(phd_coord, attachment_limit, 'd'),
	FIELD(phd_coord, poison, 'd'),
	FIELD(phd_coord, gate, 'x'),
	FIELD(phd_coord, bias_limit, 'd'),
	FIELD(phd_coord, drain, 'd'),
	FIELD(phd_coord, writer, 'w'),
	FIELD(phd_coord, writer_next, 'w'),
	FIELD(phd_coord, writer_last, 'd'),
	FIELD(phd_coord, switcher, 'w'),
	FIELD(phd_coord, switcher_next, 'w'),
	FIELD(phd_coord, directory, 'w'),
	FIELD(phd_coord, directory_change_count, 'd'),
	FIELD(phd_coord, growth, 'w'),
	FIELD(phd_coord, recovered_count, 'd'),
	FIELD(phd_coord, reap, 'd'),
	FIELD(phd_coord, lane_limit, 'd'),
	FIELD(phd_coord, append, 'w'),
	FIELD(phd_coord, tail, 'd'),
	FIELD(phd_coord, head_lease, 'd'),
	FIELD(phd_coord, commit_count, 'd'),
	FIELD(phd_coord, commit_bytes, 'd'),
	FIELD(phd_coord, image_bytes, 'd'),
	FIELD(phd_coord, durable, 'd'),
	FIELD(phd_coord, flush_count, 'd'),
	FIELD(phd_coord, flush_bytes, 'd'),
	FIELD(phd_coord, flush_ns, 'd'),
	FIELD(phd_coord, flush_covered, 'd'),
	FIELD(phd_coord, flush_goal, 'd'),
	FIELD(phd_coord, flush_patience, 'd'),
	FIELD(phd_coord, flush, 'w'),
	FIELD(phd_coord, flush_start_ns, 'd'),
	FIELD(phd_coord, flush_end_ns, 'd'),
	FIELD(phd_coord, flush_turn, 'd'),
	FIELD(phd_coord, flush_target, 'd'),
	FIELD(phd_coord, epoch, 'd'),
	FIELD(phd_coord, replay_lsn, 'd'),
	FIELD(phd_coord, epoch_lsn, 'd'),
	FIELD(phd_coord, log_gen, 'd'),
	FIELD(phd_coord, lane_gen_limit, 'd'),
	FIELD(phd_coord, changed, 'd'),
	FIELD(phd_coord, switch_lsn, 'd'),
	FIELD(phd_coord, checkpoint, 'w'),
	FIELD(phd_coord, checkpoint_count, 'd'),
	FIELD(phd_coord, checkpoint_ns, 'd'),
	FIELD(phd_coord, checkpoint_start_ns, 'd'),
	FIELD(phd_coord, stall_count, 'd'),
	FIELD(phd_coord, stall_ns, 'd'),
	FIELD(phd_coord, checkpoint_last_ns, 'd'),
	FIELD(phd_coord, stall_max_ns, 'd'),
	FIELD(phd_coord, lease_narrow, 'd'),
};

static const struct field phd_member_fields[] = {
	FIELD(phd_member, attachment, 'd'),  FIELD(phd_member, pid, 'd'),     FIELD(phd_member, flags, 'x'),
	FIELD(phd_member, start_ticks, 'd'), FIELD(phd_member, command, 't'),
};

static const struct field phd_stripe_fields[] = {
	FIELD(phd_stripe, word, 'w'),
	FIELD(phd_stripe, next, 'w'),
};

static const struct field phd_lane_fields[] = {
	FIELD(phd_lane, state, 's'),	   FIELD(phd_lane, used, 'u'),
	FIELD(phd_lane, ext_off, 'x'),	   FIELD(phd_lane, lsn, 'd'),
	FIELD(phd_lane, owner, 'x'),	   FIELD(phd_lane, wait_gen, 'x'),
	FIELD(phd_lane, wait_stripe, 'x'), FIELD(phd_lane, note_overflow, 'd'),
	FIELD(phd_lane, notes, 'b'),	   FIELD(phd_lane, rollback_count, 'd'),
};

static const struct field phd_record_fields[] = {
	FIELD(phd_record, target, 'x'),
	FIELD(phd_record, size, 'd'),
	FIELD(phd_record, prev, 'd'),
};

static const struct field phd_log_ext_fields[] = {
	FIELD(phd_log_ext, next_off, 'x'),
	FIELD(phd_log_ext, base, 'd'),
	FIELD(phd_log_ext, size, 'd'),
	FIELD(phd_log_ext, owner, 'w'),
};

static const struct field phd_head_fields[] = {
	FIELD(phd_head, magic, 'x'), FIELD(phd_head, chunk_count, 'd'), FIELD(phd_head, types_off, 'x'),
	FIELD(phd_head, roots, 'a'), FIELD(phd_head, holds, 'a'),
};

static const struct field phd_root_fields[] = {
	FIELD(phd_root, next_off, 'x'),
	FIELD(phd_root, off, 'x'),
	FIELD(phd_root, size, 'd'),
	FIELD(phd_root, name, 't'),
};

static const struct field phd_type_fields[] = {
	FIELD(phd_type, next_off, 'x'), FIELD(phd_type, size, 'd'),	 FIELD(phd_type, number, 'd'),
	FIELD(phd_type, align, 'd'),	FIELD(phd_type, ptr_count, 'd'), FIELD(phd_type, name, 't'),
};

static const struct field phd_hold_fields[] = {
	FIELD(phd_hold, next_off, 'x'), FIELD(phd_hold, object_off, 'x'), FIELD(phd_hold, attachment, 'd'),
	FIELD(phd_hold, slot, 'd'),	FIELD(phd_hold, count, 'd'),
};

static const struct field phd_permits_fields[] = {
	FIELD(phd_permits, total, 'd'),
	FIELD(phd_permits, change, 'd'),
};

static const struct field phd_permit_cell_fields[] = {
	FIELD(phd_permit_cell, attachment, 'd'),
	FIELD(phd_permit_cell, balance, 'i'),
};

static const struct field phd_bits_fields[] = {
	FIELD(phd_bits, word, 'a'),
};

static const struct field phd_words_fields[] = {
	FIELD(phd_words, owner, 'w'),
	FIELD(phd_words, latch, 'w'),
};

static const struct field phd_lease_fields[] = {
	FIELD(phd_lease, page, 'd'),
	FIELD(phd_lease, alloc_lsn, 'd'),
};

static const struct field phd_table_lease_fields[] = {
	FIELD(phd_table_lease, bits, 'd'),
	FIELD(phd_table_lease, desc, 'd'),
};

const struct struct_info struct_table[] = {
	STRUCT(phd_super),	 STRUCT(phd_state),	  STRUCT(phd_coord),  STRUCT(phd_member),
	STRUCT(phd_stripe),	 STRUCT(phd_lane),	  STRUCT(phd_record), STRUCT(phd_log_ext),
	STRUCT(phd_head),	 STRUCT(phd_root),	  STRUCT(phd_type),   STRUCT(phd_hold),
	STRUCT(phd_permits),	 STRUCT(phd_permit_cell), STRUCT(phd_bits),   STRUCT(phd_words),
	STRUCT(phd_checkpoint),	 STRUCT(phd_live),	  STRUCT(phd_wal),    STRUCT(phd_lease),
	STRUCT(phd_table_lease),
};
const unsigned struct_count = sizeof struct_table / sizeof struct_table[0];

const struct struct_info *struct_find(const char *name, size_t n)
{
	for (unsigned i = 0; i < struct_count; i++) {
		const char *full = struct_table[i].name, *bare = full + strlen("phd_");

		if ((strlen(full) == n && !memcmp(full, name, n)) ||
		    (strlen(bare) == n && !memcmp(bare, name, n)))
			return &struct_table[i];
	}
	return NULL;
}

static void word_print(uint64_t word)
{
	unsigned lane = PHD_WORD_LANE(word);

	printf("0x%016" PRIx64, word);
	if (!(word & ~(uint64_t)PHD_WORD_FLAGS))
		printf(" (nobody");
	else if (lane >= PHD_WORD_MEMBER)
		printf(" (member slot %u, attachment %" PRIu64, lane - PHD_WORD_MEMBER, PHD_WORD_GEN(word));
	else
		printf(" (lane %u, generation %" PRIu64, lane, PHD_WORD_GEN(word));
	printf("%s%s)", word & PHD_WORD_SHARED ? ", shared" : "", word & PHD_WORD_WAITERS ? ", waiters" : "");
}

static void state_print(uint64_t state)
{
	static const char *const steps[] = {"idle", "active", "appending", "committed"};
	static const char *const modes[] = {"none", "concurrent", "exclusive", "read", "internal", "switch"};
	unsigned step = PHD_STATE_STEP(state), mode = PHD_STATE_MODE(state);

	printf("0x%016" PRIx64 " (generation %" PRIu64 ", mode %s, %s)", state, PHD_STATE_GEN(state),
	       mode < 6 ? modes[mode] : "?", step < 4 ? steps[step] : "?");
}

static void array_print(const unsigned char *p, uint32_t size)
{
	unsigned shown = 0;

	for (uint32_t i = 0; i < size / 8; i++) {
		uint64_t word;

		memcpy(&word, p + 8 * i, sizeof word);
		if (word)
			printf("%s[%u] 0x%" PRIx64, shown++ ? ", " : "", i, word);
	}
	if (!shown)
		printf("all 0");
}

static void field_print(const struct field *f, const unsigned char *p)
{
	char text[256];
	uint64_t n = 0;

	memcpy(&n, p, f->size < 8 ? f->size : 8);
	switch (f->kind) {
	case 'x':
		printf("0x%" PRIx64, n);
		break;
	case 'd':
		printf("%" PRIu64, n);
		break;
	case 'i':
		printf("%" PRId64, (int64_t)n);
		break;
	case 't':
		printf("\"%s\"", plain_text((const char *)p, f->size, text, sizeof text));
		break;
	case 'w':
		word_print(n);
		break;
	case 's':
		state_print(n);
		break;
	case 'u':
		printf("0x%016" PRIx64 " (end %" PRIu64 ", last %" PRIu64 ")", n, PHD_USED_END(n),
		       PHD_USED_LAST(n));
		break;
	case 'a':
		array_print(p, f->size);
		break;
	default:
		for (uint32_t i = 0; i < f->size; i++)
			printf("%02x", p[i]);
	}
}

void struct_print(const struct heap_file *h, const struct struct_info *s, uint64_t off, const char *title)
{
	unsigned char bytes[4096];

	static_assert(sizeof(struct phd_head) <= sizeof bytes, "the largest struct");

	heap_file_read(h, off, bytes, s->size);
	printf("%s@0x%" PRIx64 "%s%s\n", s->name, off, *title ? ": " : "", title);
	for (uint32_t i = 0; i < s->field_count; i++) {
		printf("  0x%03x %-22s ", s->fields[i].off, s->fields[i].name);
		field_print(&s->fields[i], bytes + s->fields[i].off);
		putchar('\n');
	}
}
