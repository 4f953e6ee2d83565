/* SPDX-License-Identifier: MIT
 *
 * cut.c: a small machine that works as section 8 of FORMAT.md says, cut off at random moments; pheap-fsck
 * must make of what its disk has exactly what was committed.
 *
 * The machine is three copies of kind A: memory, in which transactions store; the disk, to which any page
 * goes at any time; and what is committed. It leases pages, appends, flushes, grows, switches epochs with a
 * transaction under way and another one past its commit point, and makes checkpoints. At the cut the log ends
 * at a random record between what was durable and what was appended. Of durability EPOCH it appends no
 * commits: the last checkpoint is what must come out.
 *
 * Invariants
 *   M1  Memory of a page is stored into only after the page's image of this epoch is durable.
 *   M2  `records` knows what was committed at the end of each record.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"
#include "wal_image.h"

#define STEPS_MAX 100u
#define RECORDS_MAX 2048u
#define PAGES (IMAGE_SIZE / PHD_BLOCK_SIZE)
#define RANGE_MAX 96u
#define OLD_MAX 8u /* ranges of the transaction under way */
#define CHUNK_MAX 64u
#define LATE_MAX 4u /* stores of a transaction that is past its commit point */

struct appended {
	uint64_t end;
	unsigned char *committed; /* NULL: as after the one before */
};

struct machine {
	struct image memory, disk;
	unsigned char *committed;
	struct wal_log log; /* on the disk at once: what is not durable is damaged at the cut */
	uint64_t replay_lsn, durable, epoch;
	uint64_t lease[PAGES]; /* end of the record with the page's image */
	struct appended records[RECORDS_MAX];
	unsigned record_count;
	struct {
		uint64_t off;
		uint32_t size;
		unsigned char bytes[RANGE_MAX];
	} old[OLD_MAX]; /* of the transaction under way: what was there */
	unsigned old_count;
	struct {
		unsigned kind;
		uint64_t target, off; /* of the entry; where it stores */
		uint32_t size;	      /* of the entry's payload */
		size_t store_size;
		unsigned char payload[64], bytes[64];
	} late[LATE_MAX];
	unsigned late_count;
	bool late_now; /* stores wait in `late` */
	bool sync;
	unsigned char *at_checkpoint; /* EPOCH: what was committed then */
	unsigned checkpoint_copy;     /* the one that counts */
	bool torn;		      /* cut off while it wrote the other one */
};

static uint64_t state;

static uint64_t random_next(void)
{
	uint64_t z;

	state += 0x9e3779b97f4a7c15ull;
	z = (state ^ state >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static bool chance(unsigned in)
{
	return random_next() % in == 0;
}

static void random_fill(unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (unsigned char)random_next();
}

static void appended_note(struct machine *m, bool commits)
{
	struct appended *a = &m->records[m->record_count++];

	*a = (struct appended){.end = m->log.lsn};
	if (!commits)
		return;
	a->committed = malloc(IMAGE_SIZE);
	memcpy(a->committed, m->committed, IMAGE_SIZE);
}

/* What one step appends always fits behind this. */
static bool log_full(const struct machine *m)
{
	return m->record_count > RECORDS_MAX - 64 || m->log.lsn - m->replay_lsn > IMAGE_WAL / 4;
}

static void flush(struct machine *m)
{
	wal_pad(&m->log);
	appended_note(m, false);
	m->durable = m->log.lsn;
}

static uint64_t page_of(uint64_t off)
{
	return off / PHD_BLOCK_SIZE * PHD_BLOCK_SIZE;
}

static void page_write_back(struct machine *m, uint64_t off)
{
	memcpy(image_at(&m->disk, off), image_at(&m->memory, off), PHD_BLOCK_SIZE);
}

/* Kind A. */
static bool page_next(const struct machine *m, uint64_t *off)
{
	const struct phd_super *s = m->memory.super;

	if (!*off)
		*off = s->head_off;
	else if (*off == s->head_off)
		*off = s->desc_off;
	else if (*off == s->desc_off)
		*off = s->bits_off;
	else if (*off == s->bits_off)
		*off = s->data_off;
	else
		*off += PHD_BLOCK_SIZE;
	return *off < image_chunk(&m->memory, m->memory.head->chunk_count);
}

static void write_back_some(struct machine *m)
{
	for (uint64_t off = 0; page_next(m, &off);)
		if (chance(5))
			page_write_back(m, off);
}

static void lease(struct machine *m, uint64_t off, uint64_t size)
{
	uint64_t end = page_of(off + size - 1);
	bool missed = false;

	for (uint64_t page = page_of(off); page <= end; page += PHD_BLOCK_SIZE) {
		uint64_t *word = &m->lease[page / PHD_BLOCK_SIZE];

		if (*word > m->epoch)
			continue;
		wal_one(&m->log, PHD_WAL_IMAGE, PHD_REC_UNDO, page, image_at(&m->memory, page),
			PHD_BLOCK_SIZE);
		appended_note(m, false);
		*word = m->log.lsn;
		missed = true;
	}
	if (missed)
		flush(m);
}

/* A store in place; may overlap others of the transaction. */
static void modify(struct machine *m)
{
	uint32_t size = 1 + (uint32_t)(random_next() % RANGE_MAX);
	uint64_t chunk = chance(2) ? 6 : 10;
	uint64_t off =
		image_chunk(&m->memory, chunk) + 8 + random_next() % (3 * PHD_CHUNK_SIZE - RANGE_MAX - 8);

	if (m->old_count == OLD_MAX || log_full(m))
		return;
	if (chance(3) && m->old_count) {
		off = m->old[0].off + random_next() % 8;
		size = 1 + (uint32_t)(random_next() % 16);
	}
	lease(m, off, size);
	m->old[m->old_count].off = off;
	m->old[m->old_count].size = size;
	memcpy(m->old[m->old_count].bytes, image_at(&m->memory, off), size);
	m->old_count++;
	random_fill(image_at(&m->memory, off), size);
}

/* After the commit point: to what is committed; to memory now, or later. */
static void put(struct machine *m, unsigned kind, uint64_t target, const void *payload, uint32_t size,
		uint64_t off, const void *bytes, size_t n)
{
	if (m->sync)
		wal_entry_add(&m->log, kind, target, payload, size);
	memcpy(m->committed + off, bytes, n);
	if (!m->late_now || m->late_count == LATE_MAX) {
		memcpy(image_at(&m->memory, off), bytes, n);
		return;
	}
	m->late[m->late_count].kind = kind;
	m->late[m->late_count].target = target;
	m->late[m->late_count].off = off;
	m->late[m->late_count].size = size;
	m->late[m->late_count].store_size = n;
	memcpy(m->late[m->late_count].payload, payload, size);
	memcpy(m->late[m->late_count].bytes, bytes, n);
	m->late_count++;
}

/* One of the stores that wait, or all of them. */
static void late_store(struct machine *m, bool all)
{
	for (unsigned i = 0; i < m->late_count; i++)
		if (all || chance(2))
			memcpy(image_at(&m->memory, m->late[i].off), m->late[i].bytes, m->late[i].store_size);
	if (all)
		m->late_count = 0;
}

static void ranges_commit(struct machine *m)
{
	for (unsigned i = 0; i < m->old_count; i++) {
		uint64_t off = m->old[i].off;

		if (m->sync)
			wal_entry_add(&m->log, PHD_REC_DEFER, off, image_at(&m->memory, off), m->old[i].size);
		memcpy(m->committed + off, image_at(&m->memory, off), m->old[i].size);
	}
	m->old_count = 0;
}

static void abort_transaction(struct machine *m)
{
	while (m->old_count) {
		m->old_count--;
		memcpy(image_at(&m->memory, m->old[m->old_count].off), m->old[m->old_count].bytes,
		       m->old[m->old_count].size);
	}
}

/* Takes two free chunks for an extent, with bytes in it, or gives one back. */
static void extent_commit(struct machine *m, uint64_t chunk, bool leasing)
{
	uint64_t off = m->memory.super->desc_off + 8 * chunk, data = image_chunk(&m->memory, chunk);
	uint64_t words[2] = {PHD_DESC_MAKE_EXTENT(9, 2), PHD_DESC_MAKE_CONT(9, 1)},
		 payload[2] = {2, words[0]};
	unsigned char bytes[64];

	if (leasing) {
		lease(m, off, 16);
		lease(m, data + PHD_CHUNK_SIZE, sizeof bytes);
		return;
	}
	if (m->memory.desc[chunk]) {
		words[0] = words[1] = payload[1] = 0;
	} else {
		random_fill(bytes, sizeof bytes);
		put(m, PHD_REC_DEFER, data + PHD_CHUNK_SIZE, bytes, sizeof bytes, data + PHD_CHUNK_SIZE,
		    bytes, sizeof bytes);
	}
	put(m, PHD_REC_DESC, chunk, payload, 16, off, words, sizeof words);
}

static void bit_commit(struct machine *m, bool leasing)
{
	uint64_t off = m->memory.super->bits_off + 32 * 13, mask = 1ull << random_next() % 12, word;
	bool set = chance(2);

	if (leasing) {
		lease(m, off, 8);
		return;
	}
	memcpy(&word, m->committed + off, 8);
	word = set ? word | mask : word & ~mask;
	put(m, set ? PHD_REC_SET : PHD_REC_CLEAR, off, &mask, 8, off, &word, 8);
}

static void publish_commit(struct machine *m, bool leasing)
{
	uint64_t off = image_chunk(&m->memory, 6), word = random_next();

	if (leasing) {
		lease(m, off, 8);
		return;
	}
	put(m, PHD_REC_PUBLISH, off, &word, 8, off, &word, 8);
}

/* The transaction under way, or another one beside it. */
static void commit(struct machine *m)
{
	uint64_t choice = random_next(),
		 chunk = 18 + (choice >> 8) % ((m->memory.head->chunk_count - 18) / 2) * 2;

	/* its stores are those of one moment: the next one finds them done */
	late_store(m, true);
	m->late_now = chance(3);
	for (int leasing = 1; leasing >= 0; leasing--) {
		if (log_full(m) && leasing)
			return;
		if (!leasing && m->sync)
			wal_record_begin(&m->log, PHD_WAL_COMMIT);
		if (choice & 1 && !leasing)
			ranges_commit(m);
		if (choice & 2)
			extent_commit(m, chunk, leasing);
		if (choice & 4)
			bit_commit(m, leasing);
		if (choice & 8)
			publish_commit(m, leasing);
	}
	if (m->sync) {
		wal_record_end(&m->log);
		appended_note(m, true);
	}
	m->late_now = false;
}

static void grow(struct machine *m)
{
	uint64_t count = m->memory.head->chunk_count + 2, off = m->memory.super->head_off + 8;

	if (count > CHUNK_MAX || log_full(m))
		return;
	lease(m, off, 8);
	wal_one(&m->log, PHD_WAL_COMMIT, PHD_REC_GROW, count, NULL, 0);
	memcpy(image_at(&m->memory, off), &count, 8);
	memcpy(m->committed + off, &count, 8);
	appended_note(m, true);
}

static void checkpoint_store(struct machine *m, const unsigned char *committed)
{
	struct phd_checkpoint *c = image_checkpoint(&m->disk, (int)m->checkpoint_copy ^ 1);

	*c = *image_checkpoint(&m->disk, (int)m->checkpoint_copy);
	c->seq++;
	c->replay_lsn = c->epoch_lsn = m->epoch;
	image_seal(&m->disk);
	if (chance(16)) {
		c->crc ^= 0xffff0000;
		m->torn = true;
		return;
	}
	m->checkpoint_copy ^= 1;
	m->replay_lsn = m->epoch;
	memcpy(m->at_checkpoint, committed, IMAGE_SIZE);
}

static void epoch_switch(struct machine *m)
{
	unsigned char *committed = malloc(IMAGE_SIZE);

	memcpy(committed, m->committed, IMAGE_SIZE);
	late_store(m, false);
	wal_record_begin(&m->log, PHD_WAL_SWITCH);
	for (unsigned i = 0; i < m->old_count; i++)
		wal_entry_add(&m->log, PHD_REC_UNDO, m->old[i].off, m->old[i].bytes, m->old[i].size);
	for (unsigned i = 0; i < m->late_count; i++)
		wal_entry_add(&m->log, m->late[i].kind, m->late[i].target, m->late[i].payload,
			      m->late[i].size);
	m->epoch = wal_record_end(&m->log);
	appended_note(m, false);
	flush(m);
	late_store(m, false);
	if (chance(6) && !log_full(m)) {
		free(committed);
		return; /* whoever made it was killed */
	}
	for (uint64_t off = 0; page_next(m, &off);)
		page_write_back(m, off);
	late_store(m, false);
	write_back_some(m);
	checkpoint_store(m, committed);
	free(committed);
}

static void step(struct machine *m)
{
	if (log_full(m)) {
		epoch_switch(m);
		return;
	}
	/* before anybody else stores there */
	if (m->late_count && chance(2))
		late_store(m, true);
	switch (random_next() % 12) {
	case 0:
		epoch_switch(m);
		break;
	case 1:
		grow(m);
		break;
	case 2:
		flush(m);
		break;
	case 3:
		abort_transaction(m);
		break;
	case 4:
	case 5:
		write_back_some(m);
		break;
	case 6:
	case 7:
	case 8:
		commit(m);
		break;
	default:
		modify(m);
	}
}

/* Where the log ends; what lies behind is as it was, or torn. */
static uint64_t cut(struct machine *m)
{
	uint64_t end = m->durable;

	for (unsigned i = 0; i < m->record_count; i++)
		if (m->records[i].end > end && chance(2))
			end = m->records[i].end;
	if (end < m->log.lsn)
		wal_flip(&m->disk, end + random_next() % offsetof(struct phd_wal, reserved));
	return end;
}

/* Growth is all that an EPOCH heap has of what came after the checkpoint. */
static const unsigned char *committed_at(const struct machine *m, uint64_t end, const unsigned char *first)
{
	const unsigned char *committed = first;
	uint64_t off = m->memory.super->head_off + offsetof(struct phd_head, chunk_count);

	for (unsigned i = 0; i < m->record_count && m->records[i].end <= end; i++)
		if (m->records[i].committed)
			committed = m->records[i].committed;
	if (m->sync)
		return committed;
	memcpy(m->at_checkpoint + off, committed + off, sizeof(uint64_t));
	return m->at_checkpoint;
}

static bool kind_a_same(const struct machine *m, const unsigned char *have, const unsigned char *want)
{
	const struct phd_super *s = m->memory.super;
	const struct phd_head *head = (const void *)(want + s->head_off);
	const struct {
		uint64_t off, size;
	} parts[] = {
		{s->head_off, sizeof *head},
		{s->desc_off, 8 * CHUNK_MAX},
		{s->bits_off, 32 * CHUNK_MAX},
		{s->data_off, head->chunk_count * PHD_CHUNK_SIZE},
	};

	for (unsigned p = 0; p < 4; p++)
		for (uint64_t i = parts[p].off; i < parts[p].off + parts[p].size; i++)
			if (have[i] != want[i]) {
				printf("first difference at 0x%llx: have %02x, want %02x\n",
				       (unsigned long long)i, have[i], want[i]);
				return false;
			}
	return true;
}

static void machine_start(struct machine *m, const struct identity *id)
{
	memset(m, 0, sizeof *m);
	image_make(&m->memory, id, true);
	image_make(&m->disk, id, true);
	m->committed = malloc(IMAGE_SIZE);
	memcpy(m->committed, m->memory.bytes, IMAGE_SIZE);
	m->at_checkpoint = malloc(IMAGE_SIZE);
	memcpy(m->at_checkpoint, m->memory.bytes, IMAGE_SIZE);
	m->sync = chance(2);
	m->disk.super->durability = m->sync ? 3 : 2;
	image_seal(&m->disk);
	wal_log_start(&m->log, &m->disk);
	m->replay_lsn = m->durable = m->epoch = IMAGE_LSN;
	m->checkpoint_copy = 1;
}

static void machine_free(struct machine *m)
{
	image_free(&m->memory);
	image_free(&m->disk);
	free(m->committed);
	free(m->at_checkpoint);
	for (unsigned i = 0; i < m->record_count; i++)
		free(m->records[i].committed);
}

static void one(unsigned number, struct scratch *s, struct machine *m)
{
	uint64_t steps = 1 + random_next() % STEPS_MAX, end;
	unsigned char *first, *have;
	size_t size;
	int rc;

	machine_start(m, &s->id);
	first = malloc(IMAGE_SIZE);
	memcpy(first, m->committed, IMAGE_SIZE);
	while (steps-- && !m->torn)
		step(m);
	end = cut(m);
	image_cut(&m->disk);
	if (m->torn)
		image_checkpoint(&m->disk, (int)m->checkpoint_copy ^ 1)->crc ^= 1;
	/* chunks that nothing was written to may not be there yet */
	m->disk.size = image_chunk(&m->disk, chance(4) ? CHUNK_MAX : m->memory.head->chunk_count);
	scratch_write(s, m->disk.bytes, m->disk.size);
	rc = run(fsck_program, "-n -f", s->path);
	expect(rc == 4 && output_has("power-cut"), "cut %u: -n -f gave %d", number, rc);
	expect(scratch_same(s, m->disk.bytes, m->disk.size), "cut %u: -n changed the file", number);
	rc = run(fsck_program, "-p -f", s->path);
	expect(rc == 1, "cut %u: -p -f gave %d", number, rc);
	have = scratch_read(s, &size);
	expect(kind_a_same(m, have, committed_at(m, end, first)), "cut %u: not what was committed", number);
	rc = run(fsck_program, "-n -f", s->path);
	expect(rc == 0 && !output_has("state-dirty"), "cut %u: -n -f after -p gave %d", number, rc);
	free(have);
	free(first);
	machine_free(m);
}

void cut_test(unsigned long seed, unsigned count)
{
	struct machine *m = malloc(sizeof *m);
	struct scratch s;

	printf("random power cuts: seed %lu, %u of them\n", seed, count);
	state = seed;
	scratch_open(&s);
	for (unsigned i = 0; i < count; i++)
		one(i, &s, m);
	scratch_close(&s);
	free(m);
}
