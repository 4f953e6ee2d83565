/* SPDX-License-Identifier: MIT
 *
 * info.c: `pheap info`: sizes, fill, fragmentation, types, members.
 *
 * Why one pass over the directory by pread: see heap_file.h. Memory is one row per type number, whatever the
 * size of the heap.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "heap_file.h"

struct type_sum {
	uint64_t block_count, size, run_free_size;
	char name[PHD_NAME_SIZE];
	uint64_t element_size;
	bool declared;
};

struct sums {
	struct type_sum *types; /* by number, up to PHD_TYPE_TYPE */
	uint64_t chunk_free_count, chunk_free_run_max;
	uint64_t run_count, extent_count, block_count;
	uint64_t allocated_size, run_free_size,
		tail_size; /* bytes: in blocks, in free blocks of runs, too short for a block */
	uint64_t lane_active_count, tx_count, odd_count;
};

static void run_sum(const struct heap_file *h, struct window *w, struct sums *s, uint64_t chunk,
		    uint64_t desc)
{
	uint64_t blocks = format_run_blocks(desc), used = 0, size = PHD_DESC_BLOCK_SIZE(desc);
	struct type_sum *t = &s->types[PHD_DESC_TYPE(desc)];

	for (uint64_t i = 0; i < (blocks + 63) / 64; i++) {
		uint64_t word, mask = blocks - 64 * i >= 64 ? ~0ull : (1ull << (blocks - 64 * i)) - 1;

		window_read(h, w, h->super.bits_off + chunk * sizeof(struct phd_bits) + 8 * i, &word,
			    sizeof word);
		used += (uint64_t)__builtin_popcountll(word & mask);
	}
	s->run_count++;
	s->block_count += used;
	s->allocated_size += used * size;
	s->run_free_size += (blocks - used) * size;
	s->tail_size += PHD_DESC_RUN_COUNT(desc) * PHD_CHUNK_SIZE - blocks * size;
	t->block_count += used;
	t->size += used * size;
	t->run_free_size += (blocks - used) * size;
}

static void extent_sum(struct sums *s, uint64_t desc)
{
	uint32_t type = PHD_DESC_TYPE(desc);

	if (type == PHD_TYPE_JOURNAL)
		return;
	s->extent_count++;
	s->block_count++;
	s->allocated_size += PHD_DESC_COUNT(desc) * PHD_CHUNK_SIZE;
	s->types[type].block_count++;
	s->types[type].size += PHD_DESC_COUNT(desc) * PHD_CHUNK_SIZE;
}

/* How many chunks the descriptor covers; counts what it cannot be and goes on with the next chunk. */
static uint64_t desc_sum(const struct heap_file *h, struct window *w, struct sums *s, uint64_t chunk,
			 uint64_t desc)
{
	uint64_t left = h->chunk_count - chunk, count = PHD_DESC_COUNT(desc);

	if (PHD_DESC_KIND(desc) == PHD_DESC_RUN)
		count = format_run_blocks(desc) ? PHD_DESC_RUN_COUNT(desc) : 0;
	else if (PHD_DESC_KIND(desc) == PHD_DESC_CONT)
		count = 0;
	if (!count || count > left || PHD_DESC_TYPE(desc) > PHD_TYPE_JOURNAL) {
		s->odd_count++;
		return 1;
	}
	if (PHD_DESC_KIND(desc) == PHD_DESC_RUN)
		run_sum(h, w, s, chunk, desc);
	else
		extent_sum(s, desc);
	return count;
}

static void directory_sum(const struct heap_file *h, struct sums *s)
{
	static struct window descs, bits;
	uint64_t free_run = 0, n;

	for (uint64_t chunk = 0; chunk < h->chunk_count; chunk += n) {
		uint64_t desc;

		n = 1;
		window_read(h, &descs, h->super.desc_off + 8 * chunk, &desc, sizeof desc);
		if (!desc) {
			s->chunk_free_count++;
			if (++free_run > s->chunk_free_run_max)
				s->chunk_free_run_max = free_run;
			continue;
		}
		free_run = 0;
		n = desc_sum(h, &bits, s, chunk, desc);
	}
}

static void lanes_sum(const struct heap_file *h, struct sums *s)
{
	for (uint32_t i = 0; i < h->super.lane_count; i++) {
		struct phd_lane lane;

		heap_file_read(h, h->super.lane_off + i * sizeof lane, &lane, sizeof lane);
		s->tx_count += PHD_STATE_GEN(lane.state); /* grows by one with each */
		s->lane_active_count += PHD_STATE_STEP(lane.state) != PHD_STEP_IDLE;
	}
}

static void types_read(const struct heap_file *h, struct sums *s)
{
	uint64_t off, left = h->chunk_count * (PHD_CHUNK_SIZE / sizeof(struct phd_type)) + 1;
	struct heap_block b;
	struct phd_head head;

	heap_file_read(h, h->super.head_off, &head, sizeof head);
	for (off = head.types_off; off && left; left--) {
		struct phd_type row;

		if (!heap_file_block(h, off, &b) || !b.allocated || b.size < sizeof row || b.off != off)
			return;
		heap_file_read(h, off, &row, sizeof row);
		if (row.number <= PHD_TYPE_USER_MAX) {
			struct type_sum *t = &s->types[row.number];

			plain_text(row.name, sizeof row.name, t->name, sizeof t->name);
			t->element_size = row.size;
			t->declared = true;
		}
		off = row.next_off;
	}
}

static const char *state_text(const struct heap_file *h)
{
	if (h->state_copy < 0)
		return "damaged";
	if (h->attached)
		return "in use";
	if (h->state.clean)
		return "clean";
	if (!h->same_file)
		return "copied without a clean close";
	return h->same_boot ? "not closed cleanly" : "of another boot";
}

static unsigned fragmentation(const struct sums *s)
{
	return s->chunk_free_count ? (unsigned)(100 - s->chunk_free_run_max * 100 / s->chunk_free_count) : 0;
}

static uint64_t percent(uint64_t part, uint64_t whole)
{
	return whole ? (uint64_t)((double)part * 100 / (double)whole + 0.5) : 0;
}

static void uuid_print(const uint8_t uuid[16])
{
	for (int i = 0; i < 16; i++)
		printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

static const char *type_name(const struct sums *s, uint32_t number)
{
	if (number == PHD_TYPE_ROOT)
		return "(names)";
	if (number == PHD_TYPE_TYPE)
		return "(type table)";
	return s->types[number].declared ? s->types[number].name : number ? "(not declared)" : "(untyped)";
}

static void types_text(const struct sums *s)
{
	char size[32], free_size[32];

	printf("types:\n  number name                 blocks       in blocks    free in runs\n");
	for (uint32_t i = 0; i <= PHD_TYPE_TYPE; i++)
		if (s->types[i].declared || s->types[i].block_count || s->types[i].run_free_size)
			printf("  %6u %-20s %-12" PRIu64 " %-12s %s\n", i, type_name(s, i),
			       s->types[i].block_count, size_text(s->types[i].size, size, sizeof size),
			       size_text(s->types[i].run_free_size, free_size, sizeof free_size));
}

static void members_text(const struct heap_file *h)
{
	for (uint32_t i = 0; i < h->super.member_count; i++) {
		struct phd_member m;
		char name[32];

		if (!heap_file_slot_live(h, i))
			continue;
		heap_file_read(h, h->super.member_off + i * sizeof m, &m, sizeof m);
		printf("  slot %u: attachment %" PRIu64 ", pid %u, %s\n", i, m.attachment, m.pid,
		       plain_text(m.command, sizeof m.command, name, sizeof name));
	}
}

/* The library judges the same way: a heap that it refuses must not be said to recover by itself. */
static void advice_text(const struct heap_file *h)
{
	if (h->state_copy >= 0 && h->state.clean)
		return;
	if (h->state_copy < 0)
		printf("No copy of its state is valid");
	else if (!h->same_file)
		printf("It was copied without a clean close");
	else if (!h->same_boot)
		printf("The machine went down before it was closed");
	else
		printf("Nobody is attached, and it was not closed cleanly");
	printf(": numbers as before recovery.\n'pheap-fsck -n %s' says what recovery will do; ", h->path);
	if (h->state_copy >= 0 && h->same_file && h->same_boot)
		printf("opening it recovers it.\n");
	else
		printf("programs are refused; 'pheap-fsck -y %s' accepts it.\n", h->path);
}

static void text_print(const struct heap_file *h, const struct sums *s)
{
	uint64_t data = h->chunk_count * PHD_CHUNK_SIZE, journal = h->super.journal_count * PHD_CHUNK_SIZE;
	uint64_t free_size = s->chunk_free_count * PHD_CHUNK_SIZE;
	char a[32], b[32], c[32], layout[PHD_NAME_SIZE];

	printf("%s: %s\n", h->path, state_text(h));
	printf("uuid:          ");
	uuid_print(h->super.uuid);
	printf("\nlayout:        %s\n",
	       plain_text(h->super.layout, sizeof h->super.layout, layout, sizeof layout));
	printf("format:        %u.%u, durability PROCESS\n", h->super.version >> 16,
	       h->super.version & 0xffff);
	printf("file:          %s (%s on disk), may grow to %s\n", size_text(h->size, a, sizeof a),
	       size_text(h->allocated_size, b, sizeof b), size_text(h->super.size_max, c, sizeof c));
	printf("data:          %" PRIu64 " chunks of %u bytes (%s), at most %" PRIu64 "\n", h->chunk_count,
	       PHD_CHUNK_SIZE, size_text(data, a, sizeof a), h->super.chunk_max);
	printf("in blocks:     %s (%" PRIu64 " %%) in %" PRIu64 " blocks, %" PRIu64 " runs, %" PRIu64
	       " extents\n",
	       size_text(s->allocated_size, a, sizeof a), percent(s->allocated_size, data), s->block_count,
	       s->run_count, s->extent_count);
	printf("free:          %s in %" PRIu64 " chunks, %s in runs\n", size_text(free_size, a, sizeof a),
	       s->chunk_free_count, size_text(s->run_free_size, b, sizeof b));
	printf("fragmentation: %u %%, longest row of free chunks %s\n", fragmentation(s),
	       size_text(s->chunk_free_run_max * PHD_CHUNK_SIZE, a, sizeof a));
	printf("journal:       %s, and %u lanes of %s\n", size_text(journal, a, sizeof a),
	       h->super.lane_count, size_text(h->super.lane_log_size, b, sizeof b));
	printf("transactions:  %" PRIu64 " ended, %" PRIu64 " in flight\n", s->tx_count,
	       s->lane_active_count);
	types_text(s);
	if (h->attached) {
		printf("attached (the numbers above are of a moment):\n");
		members_text(h);
	} else {
		advice_text(h);
	}
	if (s->odd_count)
		printf("%" PRIu64 " descriptors are impossible: run pheap-fsck -n -f\n", s->odd_count);
}

static void types_json(const struct sums *s)
{
	const char *separator = "";

	printf(",\n \"types\": [");
	for (uint32_t i = 0; i <= PHD_TYPE_TYPE; i++) {
		const struct type_sum *t = &s->types[i];

		if (!t->declared && !t->block_count && !t->run_free_size)
			continue;
		printf("%s\n  {\"number\": %u, \"name\": ", separator, i);
		json_print(type_name(s, i));
		printf(", \"declared\": %s, \"element_size\": %" PRIu64 ", \"blocks\": %" PRIu64
		       ", \"size\": %" PRIu64 ", \"free_size\": %" PRIu64 "}",
		       t->declared ? "true" : "false", t->element_size, t->block_count, t->size,
		       t->run_free_size);
		separator = ",";
	}
	printf("]");
}

static void members_json(const struct heap_file *h)
{
	const char *separator = "";

	printf(",\n \"members\": [");
	for (uint32_t i = 0; h->attached && i < h->super.member_count; i++) {
		struct phd_member m;
		char name[32];

		if (!heap_file_slot_live(h, i))
			continue;
		heap_file_read(h, h->super.member_off + i * sizeof m, &m, sizeof m);
		printf("%s{\"slot\": %u, \"attachment\": %" PRIu64 ", \"pid\": %u, \"command\": ", separator,
		       i, m.attachment, m.pid);
		json_print(plain_text(m.command, sizeof m.command, name, sizeof name));
		printf("}");
		separator = ", ";
	}
	printf("]");
}

static void json_all(const struct heap_file *h, const struct sums *s)
{
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{"format_version", h->super.version},
		{"file_size", h->size},
		{"disk_size", h->allocated_size},
		{"max_size", h->super.size_max},
		{"chunk_size", PHD_CHUNK_SIZE},
		{"chunk_count", h->chunk_count},
		{"chunk_max", h->super.chunk_max},
		{"free_chunk_count", s->chunk_free_count},
		{"free_chunk_run_max", s->chunk_free_run_max},
		{"fragmentation_percent", fragmentation(s)},
		{"run_count", s->run_count},
		{"extent_count", s->extent_count},
		{"block_count", s->block_count},
		{"allocated_size", s->allocated_size},
		{"free_size_in_chunks", s->chunk_free_count * PHD_CHUNK_SIZE},
		{"free_size_in_runs", s->run_free_size},
		{"run_tail_size", s->tail_size},
		{"journal_size", h->super.journal_count * PHD_CHUNK_SIZE},
		{"directory_size", h->super.data_off},
		{"lane_count", h->super.lane_count},
		{"lanes_in_flight", s->lane_active_count},
		{"tx_count", s->tx_count},
		{"impossible_descriptors", s->odd_count},
	};
	char layout[PHD_NAME_SIZE];

	printf("{\"file\": ");
	json_print(h->path);
	printf(", \"state\": \"%s\", \"uuid\": \"", state_text(h));
	uuid_print(h->super.uuid);
	printf("\", \"layout\": ");
	json_print(plain_text(h->super.layout, sizeof h->super.layout, layout, sizeof layout));
	printf(", \"durability\": \"process\"");
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		printf(",\n \"%s\": %" PRIu64, rows[i].name, rows[i].value);
	types_json(s);
	members_json(h);
	printf("}\n");
}

int command_info(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
	struct sums s = {0};
	struct heap_file h;
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1)
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'h':
			puts("Usage: pheap info [--json] FILE");
			return 0;
		default:
			option_fail("info", c, argv);
		}
	if (argc - optind != 1)
		usage_fail("info: give one file");
	heap_file_open(&h, argv[optind], false);
	s.types = calloc(PHD_TYPE_JOURNAL + 1, sizeof *s.types);
	if (!s.types)
		fail("out of memory");
	directory_sum(&h, &s);
	lanes_sum(&h, &s);
	types_read(&h, &s);
	if (json)
		json_all(&h, &s);
	else
		text_print(&h, &s);
	free(s.types);
	heap_file_close(&h);
	return 0;
}
