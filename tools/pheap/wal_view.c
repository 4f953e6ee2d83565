/* SPDX-License-Identifier: MIT
 *
 * wal_view.c: see wal_view.h.
 */
#include "wal_view.h"

#include <inttypes.h>
#include <stdio.h>

#include "format.h"

const char *durability_text(const struct heap_file *h)
{
	static const char *const texts[] = {"?", "PROCESS", "EPOCH", "SYNC"};

	return texts[h->super.durability <= 3 ? h->super.durability : 0];
}

void wal_view_read(const struct heap_file *h, struct wal_view *ret)
{
	*ret = (struct wal_view){.exists = format_has_wal(&h->super), .checkpoint_copy = -1};
	if (!ret->exists)
		return;
	for (int i = 0; i < 2; i++) {
		struct phd_checkpoint c;

		heap_file_read(h, PHD_CHECKPOINT_OFF(i), &c, sizeof c);
		if (format_checkpoint_invalid(&h->super, &c) ||
		    (ret->checkpoint_copy >= 0 && c.seq < ret->checkpoint.seq))
			continue;
		ret->checkpoint = c;
		ret->checkpoint_copy = i;
	}
	for (int i = 0; i < 2 && ret->checkpoint_copy >= 0; i++) {
		struct phd_live l;

		heap_file_read(h, PHD_LIVE_OFF(i), &l, sizeof l);
		if (l.epoch_lsn > ret->checkpoint.epoch_lsn)
			ret->checkpoint.replay_lsn = ret->checkpoint.epoch_lsn = l.epoch_lsn;
		if (l.lane_gen_limit > ret->checkpoint.lane_gen_limit)
			ret->checkpoint.lane_gen_limit = l.lane_gen_limit;
	}
	heap_file_read(h, h->super.coord_off, &ret->coord, sizeof ret->coord);
	ret->current = heap_file_current(h) && ret->checkpoint_copy >= 0 &&
		       ret->coord.log_gen == ret->checkpoint.log_gen &&
		       ret->coord.tail >= ret->checkpoint.replay_lsn;
	if (ret->current)
		ret->used = ret->coord.tail - ret->checkpoint.replay_lsn;
}

static double ratio(uint64_t a, uint64_t b)
{
	return b ? (double)a / (double)b : 0;
}

/* An EPOCH heap has no commits in its log. */
static bool commits_logged(const struct heap_file *h)
{
	return h->super.durability == 3;
}

static void flushes_print(const struct heap_file *h, const struct phd_coord *c)
{
	char size[32], images[32];

	printf("flushes:       %" PRIu64 " of ", c->flush_count);
	if (commits_logged(h))
		printf("%.1f commits and ", ratio(c->commit_count, c->flush_count));
	printf("%s each, in %.0f us each\n",
	       size_text((uint64_t)ratio(c->flush_bytes, c->flush_count), size, sizeof size),
	       ratio(c->flush_ns, c->flush_count) / 1000);
	printf("logged:        %s", size_text(c->flush_bytes, size, sizeof size));
	if (commits_logged(h))
		printf(", %.1f bytes for each byte committed", ratio(c->flush_bytes, c->commit_bytes));
	printf("; %s of it images\n", size_text(c->image_bytes, images, sizeof images));
}

static void current_print(const struct heap_file *h, const struct wal_view *v)
{
	const struct phd_coord *c = &v->coord;

	printf("               at %" PRIu64 ", durable to %" PRIu64 ", replayed from %" PRIu64
	       ", epoch %" PRIu64 "\n",
	       c->tail, c->durable, v->checkpoint.replay_lsn, c->epoch & ~(uint64_t)1);
	flushes_print(h, c);
	printf("checkpoints:   %" PRIu64 " of %.1f ms each; %" PRIu64 " stalls of %.1f ms each",
	       c->checkpoint_count, ratio(c->checkpoint_ns, c->checkpoint_count) / 1e6, c->stall_count,
	       ratio(c->stall_ns, c->stall_count) / 1e6);
	if (c->stall_count)
		printf(", 99 %% below %.1f ms, the longest %.1f", (double)phd_stall_p99_ns(c) / 1e6,
		       (double)c->stall_max_ns / 1e6);
	printf("\n");
	if (!commits_logged(h))
		printf("               a power cut takes it back %u ms at most\n", PHD_EPOCH_MS(&h->super));
}

void wal_view_print(const struct heap_file *h, const struct wal_view *v)
{
	char size[32], used[32];

	if (!v->exists)
		return;
	size_text(h->super.wal_size, size, sizeof size);
	if (v->checkpoint_copy < 0) {
		printf("log:           %s; no copy of its checkpoint is valid, see pheap-fsck\n", size);
		return;
	}
	if (!v->current) {
		printf("log:           %s; %s %" PRIu64 "\n", size,
		       h->state_copy >= 0 && h->state.clean ? "empty, at" : "to be read from",
		       v->checkpoint.replay_lsn);
		return;
	}
	printf("log:           %s, %s (%.0f %%) in use\n", size, size_text(v->used, used, sizeof used),
	       ratio(v->used, h->super.wal_size) * 100);
	current_print(h, v);
}

void wal_view_json(const struct heap_file *h, const struct wal_view *v)
{
	const struct phd_coord *c = &v->coord;
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{"tail", c->tail},
		{"durable", c->durable},
		{"epoch", c->epoch & ~(uint64_t)1},
		{"used", v->used},
		{"commits", c->commit_count},
		{"flushes", c->flush_count},
		{"flushed_size", c->flush_bytes},
		{"flush_ns", c->flush_ns},
		{"committed_size", c->commit_bytes},
		{"image_size", c->image_bytes},
		{"checkpoints", c->checkpoint_count},
		{"checkpoint_ns", c->checkpoint_ns},
		{"stalls", c->stall_count},
		{"stall_ns", c->stall_ns},
		{"stall_p99_ns", phd_stall_p99_ns(c)},
		{"stall_max_ns", c->stall_max_ns},
	};

	if (!v->exists) {
		printf(",\n \"log\": null");
		return;
	}
	printf(",\n \"log\": {\"size\": %" PRIu64
	       ", \"epoch_ms\": %u, \"checkpoint_valid\": %s, \"log_gen\": %" PRIu64
	       ", \"replay_lsn\": %" PRIu64 ", \"epoch_lsn\": %" PRIu64 ", \"lane_gen_limit\": %" PRIu64,
	       h->super.wal_size, PHD_EPOCH_MS(&h->super), v->checkpoint_copy >= 0 ? "true" : "false",
	       v->checkpoint.log_gen, v->checkpoint.replay_lsn, v->checkpoint.epoch_lsn,
	       v->checkpoint.lane_gen_limit);
	for (size_t i = 0; v->current && i < sizeof rows / sizeof rows[0]; i++)
		printf(", \"%s\": %" PRIu64, rows[i].name, rows[i].value);
	printf("}");
}

static uint64_t difference(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

void wal_line(const struct heap_file *h, const struct phd_coord *now, const struct phd_coord *before,
	      double seconds, char *text, size_t size)
{
	uint64_t used = difference(now->tail, now->replay_lsn);
	char behind[32], flushes[96];

	size_text(difference(now->tail, now->durable), behind, sizeof behind);
	if (!before || seconds <= 0) {
		snprintf(flushes, sizeof flushes, "%" PRIu64, now->flush_count);
	} else {
		uint64_t count = difference(now->flush_count, before->flush_count);
		uint64_t commits = difference(now->commit_count, before->commit_count);
		char group[48] = "";

		if (commits_logged(h))
			snprintf(group, sizeof group, "%.1f commits, ", ratio(commits, count));
		snprintf(flushes, sizeof flushes, "%.0f/s of %s%.0f us", (double)count / seconds, group,
			 ratio(difference(now->flush_ns, before->flush_ns), count) / 1000);
	}
	snprintf(text, size,
		 "log: %.0f %% in use, %s not durable   flushes: %s   checkpoints: %" PRIu64 ", %" PRIu64
		 " stalls",
		 ratio(used, h->super.wal_size) * 100, behind, flushes, now->checkpoint_count,
		 now->stall_count);
}
