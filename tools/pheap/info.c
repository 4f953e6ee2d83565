/* SPDX-License-Identifier: MIT
 *
 * info.c: `pheap info`: sizes, fill, fragmentation, types, who is attached.
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
#include "members.h"
#include "place.h"
#include "resources.h"
#include "wal_view.h"

#define TYPE_LAST PHD_TYPE_PERMITS /* the highest number that a block can have */

struct type_sum {
	uint64_t block_count, size, run_free_size;
	char name[PHD_NAME_SIZE];
	uint64_t element_size;
	bool declared;
};

struct sums {
	struct type_sum *types; /* by number, up to TYPE_LAST */
	uint64_t chunk_free_count, chunk_free_run_max, chunk_hole_count;
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
	if (!count || count > left || PHD_DESC_TYPE(desc) > TYPE_LAST) {
		s->odd_count++;
		return 1;
	}
	if (PHD_DESC_KIND(desc) == PHD_DESC_RUN)
		run_sum(h, w, s, chunk, desc);
	else
		extent_sum(s, desc);
	return count;
}

static void free_sum(struct sums *s, uint64_t count)
{
	s->chunk_free_count += count;
	if (count > s->chunk_free_run_max)
		s->chunk_free_run_max = count;
}

static void directory_sum(const struct heap_file *h, struct sums *s)
{
	static struct word_walk walk;
	static struct window bits;
	uint64_t next = 0, chunk, desc; /* next: behind what the descriptor before covers */

	word_walk_start(&walk, h, h->super.desc_off, h->chunk_count);
	while (word_walk_next(&walk, &chunk, &desc)) {
		if (chunk < next)
			continue;
		if (desc == PHD_DESC_HOLE) {
			s->chunk_hole_count++; /* a part of the row of free ones */
			continue;
		}
		free_sum(s, chunk - next);
		next = chunk + desc_sum(h, &bits, s, chunk, desc);
	}
	if (next < h->chunk_count)
		free_sum(s, h->chunk_count - next);
}

/* Generations of lanes that power recovery has moved on begin far above 0. */
#define GEN_MOVED (1ull << 33)

static uint64_t gen_start(const struct heap_file *h)
{
	uint64_t least = UINT64_MAX;

	for (uint32_t i = 0; i < h->super.lane_count; i++) {
		struct phd_lane lane;

		heap_file_read(h, h->super.lane_off + i * sizeof lane, &lane, sizeof lane);
		if (PHD_STATE_GEN(lane.state) < least)
			least = PHD_STATE_GEN(lane.state);
	}
	return least >= GEN_MOVED ? least : 0;
}

static void lanes_sum(const struct heap_file *h, struct sums *s)
{
	uint64_t start = gen_start(h);

	for (uint32_t i = 0; i < h->super.lane_count; i++) {
		struct phd_lane lane;

		heap_file_read(h, h->super.lane_off + i * sizeof lane, &lane, sizeof lane);
		if (PHD_STATE_GEN(lane.state) > start)
			s->tx_count += PHD_STATE_GEN(lane.state) - start; /* grows by one with each */
		s->lane_active_count += PHD_STATE_STEP(lane.state) != PHD_STEP_IDLE;
	}
}

static void types_read(const struct heap_file *h, struct sums *s)
{
	struct list_walk list;
	struct phd_head head;

	heap_file_read(h, h->super.head_off, &head, sizeof head);
	list_walk_start(&list, head.types_off, sizeof(struct phd_type), PHD_TYPE_TYPE);
	while (list_walk_next(h, &list)) {
		struct phd_type row;

		heap_file_read(h, list.off, &row, sizeof row);
		if (row.number <= PHD_TYPE_USER_MAX) {
			struct type_sum *t = &s->types[row.number];

			plain_text(row.name, sizeof row.name, t->name, sizeof t->name);
			t->element_size = row.size;
			t->declared = true;
		}
	}
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
	switch (number) {
	case PHD_TYPE_ROOT:
		return "(names)";
	case PHD_TYPE_TYPE:
		return "(type table)";
	case PHD_TYPE_HOLD:
		return "(held references)";
	case PHD_TYPE_PERMITS:
		return "(permits)";
	default:
		return s->types[number].declared ? s->types[number].name
		       : number			 ? "(not declared)"
						 : "(untyped)";
	}
}

static bool type_shown(const struct type_sum *t)
{
	return t->declared || t->block_count || t->run_free_size;
}

static void types_text(const struct sums *s)
{
	char size[32], free_size[32];

	printf("types:\n  number name                 blocks       in blocks    free in runs\n");
	for (uint32_t i = 0; i <= TYPE_LAST; i++)
		if (type_shown(&s->types[i]))
			printf("  %6u %-20s %-12" PRIu64 " %-12s %s\n", i, type_name(s, i),
			       s->types[i].block_count, size_text(s->types[i].size, size, sizeof size),
			       size_text(s->types[i].run_free_size, free_size, sizeof free_size));
}

static void members_text(const struct members *m)
{
	for (uint32_t i = 0; i < m->count; i++)
		if (m->rows[i].alive)
			printf("  slot %u: attachment %" PRIu64 ", pid %u, %s\n", m->rows[i].slot,
			       m->rows[i].row.attachment, m->rows[i].row.pid, m->rows[i].command);
	if (m->count > m->alive_count)
		printf("  and %u dead, not yet recovered: see pheap info --members\n",
		       m->count - m->alive_count);
}

/* The library judges the same way: a heap that it refuses must not be said to recover by itself. */
static void advice_text(const struct heap_file *h)
{
	if (h->state_copy >= 0 && h->state.clean)
		return;
	if (h->state_copy >= 0 && heap_file_ephemeral(h)) {
		printf("Its users were all killed: whoever opens it next removes it.\n");
		return;
	}
	if (h->state_copy < 0)
		printf("No copy of its state is valid");
	else if (!h->same_file)
		printf("It was copied without a clean close");
	else if (!h->same_boot)
		printf(format_has_wal(&h->super)
			       ? "The machine went down, or a write to it failed, before it was closed"
			       : "The machine went down before it was closed");
	else
		printf("Nobody is attached, and it was not closed cleanly");
	printf(": numbers as before recovery.\n'pheap-fsck -n %s' says what recovery will do; ", h->path);
	if (h->state_copy >= 0 && h->same_file && (h->same_boot || format_has_wal(&h->super)))
		printf("opening it recovers it%s.\n", h->same_boot ? "" : " from its log");
	else
		printf("programs are refused; 'pheap-fsck -y %s' accepts it.\n", h->path);
}

static void text_print(const struct heap_file *h, const struct sums *s, const struct members *m,
		       const struct place *place, const struct wal_view *wal)
{
	uint64_t data = h->chunk_count * PHD_CHUNK_SIZE, journal = h->super.journal_count * PHD_CHUNK_SIZE;
	uint64_t free_size = s->chunk_free_count * PHD_CHUNK_SIZE;
	char a[32], b[32], c[32], layout[PHD_NAME_SIZE];

	printf("%s: %s\n", h->path, heap_file_state_text(h));
	printf("uuid:          ");
	uuid_print(h->super.uuid);
	printf("\nlayout:        %s\n",
	       plain_text(h->super.layout, sizeof h->super.layout, layout, sizeof layout));
	printf("format:        %u.%u, durability %s%s\n", h->super.version >> 16, h->super.version & 0xffff,
	       durability_text(h), heap_file_ephemeral(h) ? ", ephemeral: it goes with its last user" : "");
	printf("file:          %s (%s on disk), may grow to %s\n", size_text(h->size, a, sizeof a),
	       size_text(h->allocated_size, b, sizeof b), size_text(h->super.size_max, c, sizeof c));
	place_print(place);
	printf("data:          %" PRIu64 " chunks of %u bytes (%s), at most %" PRIu64 "\n", h->chunk_count,
	       PHD_CHUNK_SIZE, size_text(data, a, sizeof a), h->super.chunk_max);
	printf("in blocks:     %s (%" PRIu64 " %%) in %" PRIu64 " blocks, %" PRIu64 " runs, %" PRIu64
	       " extents\n",
	       size_text(s->allocated_size, a, sizeof a), percent(s->allocated_size, data), s->block_count,
	       s->run_count, s->extent_count);
	printf("free:          %s in %" PRIu64 " chunks, %s in runs\n", size_text(free_size, a, sizeof a),
	       s->chunk_free_count, size_text(s->run_free_size, b, sizeof b));
	if (s->chunk_hole_count)
		printf("given back:    %s of the free chunks, or what has not been taken again of that\n",
		       size_text(s->chunk_hole_count * PHD_CHUNK_SIZE, a, sizeof a));
	printf("fragmentation: %u %%, longest row of free chunks %s\n", fragmentation(s),
	       size_text(s->chunk_free_run_max * PHD_CHUNK_SIZE, a, sizeof a));
	printf("journal:       %s, and %u lanes of %s\n", size_text(journal, a, sizeof a),
	       h->super.lane_count, size_text(h->super.lane_log_size, b, sizeof b));
	wal_view_print(h, wal);
	printf("transactions:  %" PRIu64 " ended, %" PRIu64 " in flight\n", s->tx_count,
	       s->lane_active_count);
	types_text(s);
	if (h->attached) {
		printf("attached (the numbers above are of a moment):\n");
		members_text(m);
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
	for (uint32_t i = 0; i <= TYPE_LAST; i++) {
		const struct type_sum *t = &s->types[i];

		if (!type_shown(t))
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

static void members_json(const struct members *m)
{
	const char *separator = "";

	printf(",\n \"members\": [");
	for (uint32_t i = 0; i < m->count; i++) {
		const struct member_view *v = &m->rows[i];

		if (!v->alive)
			continue;
		printf("%s{\"slot\": %u, \"attachment\": %" PRIu64 ", \"pid\": %u, \"command\": ", separator,
		       v->slot, v->row.attachment, v->row.pid);
		json_print(v->command);
		printf("}");
		separator = ", ";
	}
	printf("]");
}

static void json_all(const struct heap_file *h, const struct sums *s, const struct members *m,
		     const struct place *place, const struct wal_view *wal)
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
		{"hole_chunk_count", s->chunk_hole_count},
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
	static const char *const levels[] = {"?", "process", "epoch", "sync"};
	char layout[PHD_NAME_SIZE];

	printf("{\"file\": ");
	json_print(h->path);
	printf(", \"state\": \"%s\", \"uuid\": \"", heap_file_state_text(h));
	uuid_print(h->super.uuid);
	printf("\", \"layout\": ");
	json_print(plain_text(h->super.layout, sizeof h->super.layout, layout, sizeof layout));
	printf(", \"durability\": \"%s\", \"ephemeral\": %s", levels[h->super.durability & 3],
	       heap_file_ephemeral(h) ? "true" : "false");
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		printf(",\n \"%s\": %" PRIu64, rows[i].name, rows[i].value);
	place_json(place);
	wal_view_json(h, wal);
	types_json(s);
	members_json(m);
	printf("}\n");
}

static void all_print(const struct heap_file *h, const struct members *m, bool json)
{
	struct sums s = {0};
	struct place place;
	struct wal_view wal;

	s.types = calloc(TYPE_LAST + 1, sizeof *s.types);
	if (!s.types)
		fail("out of memory");
	directory_sum(h, &s);
	lanes_sum(h, &s);
	types_read(h, &s);
	place_read(h->fd, h->path, &place);
	wal_view_read(h, &wal);
	if (json)
		json_all(h, &s, m, &place, &wal);
	else
		text_print(h, &s, m, &place, &wal);
	free(s.types);
}

static const char info_usage[] = "Usage: pheap info [--members] [--resources] [--json] FILE\n"
				 "  --members    who is attached, and who died and is not recovered yet\n"
				 "  --resources  held references and permits, and whose they are\n"
				 "  --json       one JSON object; with the two above one a line\n";

int command_info(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
						{"members", no_argument, NULL, 'm'},
						{"resources", no_argument, NULL, 'r'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	bool json = false, members = false, resources = false, good = true;
	struct heap_file h;
	struct members m;
	int c;

	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1)
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'm':
			members = true;
			break;
		case 'r':
			resources = true;
			break;
		case 'h':
			fputs(info_usage, stdout);
			return 0;
		default:
			option_fail("info", c, argv);
		}
	if (argc - optind != 1)
		usage_fail("info: give one file");
	heap_file_open(&h, argv[optind], false);
	members_read(&h, &m);
	if (!members && !resources)
		all_print(&h, &m, json);
	else if (!json)
		printf("%s: %s\n", h.path, heap_file_state_text(&h));
	if (members && json)
		members_json_lines(&m);
	else if (members)
		members_print(&h, &m);
	if (resources)
		good = resources_print(&h, &m, json);
	members_free(&m);
	heap_file_close(&h);
	return good ? 0 : EXIT_FAILED;
}
