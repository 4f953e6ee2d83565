/* SPDX-License-Identifier: MIT
 *
 * layout.h: every durable struct of a heap file, with offsets; no code.
 *
 * What: the C view of FORMAT.md, which is normative. Little-endian, 64-bit words, page-size independent.
 * Why flat arrays: a pointer finds its chunk, its descriptor, its bitmap and its lock words by arithmetic
 * alone, and an extent of any length is contiguous. The rejected form, directory pieces between groups of
 * data, ends extents at each group.
 *
 * Three kinds of bytes, never in one cache line:
 *   A  durable data and allocator metadata
 *   B  coordination: valid while somebody is attached; never trusted from another boot
 *   J  journal and superblock
 *
 * Invariants
 *   Y1  A struct here never changes size or meaning within one incompat feature mask.
 *   Y2  Everything an atomic store commits is one naturally aligned 8-byte word.
 */
#ifndef PH_LAYOUT_H
#define PH_LAYOUT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* Tables of fields are laid out by hand. */
/* clang-format off */

#define PHD_SUPER_MAGIC 0x1a0a0d7061656870ull /* "pheap\r\n\x1a" in file order */
#define PHD_STATE_MAGIC 0x6574617473706870ull /* "phpstate" */
#define PHD_CHECKPOINT_MAGIC 0x6b63656863706870ull /* "phpcheck" */
#define PHD_HEAD_MAGIC 0x0064616568706870ull  /* "phphead\0" */
#define PHD_VERSION 0x00010000u		      /* major << 16 | minor */

#define PHD_SECTOR_SIZE 512u
#define PHD_BLOCK_SIZE 4096u
#define PHD_SUPER_OFF(copy) ((uint64_t)(copy)*PHD_BLOCK_SIZE)
#define PHD_STATE_OFF(copy) ((uint64_t)(copy)*PHD_BLOCK_SIZE + PHD_SECTOR_SIZE)
#define PHD_CHECKPOINT_OFF(copy) ((uint64_t)(copy)*PHD_BLOCK_SIZE + 2ull * PHD_SECTOR_SIZE)
#define PHD_LIVE_OFF(copy) ((uint64_t)(copy)*PHD_BLOCK_SIZE + 3ull * PHD_SECTOR_SIZE)
#define PHD_CHUNK_SHIFT 12u
#define PHD_CHUNK_SIZE 4096u
#define PHD_SIZE_MIN 65536ull		/* smallest max_size of a heap, bytes */
#define PHD_SIZE_MAX (1ull << 46)	/* largest max_size of a heap, bytes */
#define PHD_ROOT_BUCKETS 64u
#define PHD_HOLD_BUCKETS 256u
#define PHD_HOLD_BUCKET(object_off) ((uint32_t)(((object_off) >> 3) * 0x9e3779b97f4a7c15ull >> 56))
#define PHD_NAME_SIZE 64u		/* root, type and layout names, with the final NUL */
#define PHD_LANE_MAX 16383u
#define PHD_MEMBER_MAX 4096u

/* OFD lock bytes, past any file size. */
#define PHD_LOCK_GATE ((1ull << 62) + 0) /* exclusive: while one opens, closes or repairs */
#define PHD_LOCK_ANY ((1ull << 62) + 1)	 /* shared by everyone who is attached */
#define PHD_LOCK_SLOT ((1ull << 62) + 16) /* + slot: exclusive, alive as long as the member is */

/* Features. An unknown incompat bit: do not open. Unknown ro_compat: open for reading only. Unknown compat:
 * ignore. */
#define PHD_INCOMPAT_KNOWN 0ull
#define PHD_RO_COMPAT_KNOWN 0ull
#define PHD_COMPAT_EPHEMERAL 1ull /* the file goes with its last user */

/* J. Written once, at creation, to both copies; never changed afterwards. One sector each. */
struct phd_super {
	/* 0x000 */ uint64_t magic;
	/* 0x008 */ uint32_t version;
	/* 0x00c */ uint32_t copy;	    /* 0 or 1: which copy this is */
	/* 0x010 */ uint64_t compat;
	/* 0x018 */ uint64_t ro_compat;
	/* 0x020 */ uint64_t incompat;
	/* 0x028 */ uint8_t uuid[16];
	/* 0x038 */ uint64_t size_max;	    /* bytes the file may grow to; what every member maps */
	/* 0x040 */ uint32_t durability;    /* 1 PROCESS, 2 EPOCH, 3 SYNC */
	/* 0x044 */ uint32_t chunk_shift;   /* 12 */
	/* 0x048 */ uint64_t fixed_base;    /* address of the mapping, 0: any */
	/* 0x050 */ uint32_t epoch_ms;	    /* 0: PHD_EPOCH_MS says what is meant */
	/* 0x054 */ uint32_t member_count;
	/* 0x058 */ uint32_t lane_count;
	/* 0x05c */ uint32_t stripe_count;  /* user stripes, a power of two; one more follows them, for
	 * names */
	/* 0x060 */ uint32_t lane_log_size; /* bytes, multiple of 64 */
	/* 0x064 */ uint32_t root_bucket_count; /* 64 */
	/* 0x068 */ uint64_t coord_off;
	/* 0x070 */ uint64_t member_off;
	/* 0x078 */ uint64_t stripe_off;
	/* 0x080 */ uint64_t lane_off;
	/* 0x088 */ uint64_t head_off;
	/* 0x090 */ uint64_t lane_log_off;
	/* 0x098 */ uint64_t desc_off;
	/* 0x0a0 */ uint64_t bits_off;
	/* 0x0a8 */ uint64_t words_off;
	/* 0x0b0 */ uint64_t data_off;
	/* 0x0b8 */ uint64_t chunk_max;	    /* chunks at size_max */
	/* 0x0c0 */ uint64_t journal_count; /* the first chunks: space for long logs, in no allocation */
	/* 0x0c8 */ uint64_t wal_off;	    /* 0 while durability is PROCESS; so the four below */
	/* 0x0d0 */ uint64_t wal_size;	    /* of the WAL and of the ring */
	/* 0x0d8 */ uint64_t ring_off;
	/* 0x0e0 */ uint64_t lease_off;
	/* 0x0e8 */ uint64_t table_lease_off;
	/* 0x0f0 */ uint64_t limbo_off;     /* 0 */
	/* 0x0f8 */ uint8_t reserved0[8];
	/* 0x100 */ char layout[PHD_NAME_SIZE]; /* what the creator called its data; "" matches any */
	/* 0x140 */ uint8_t reserved1[0xbc];
	/* 0x1fc */ uint32_t crc;	    /* CRC32C of bytes 0x000..0x1fb */
};
static_assert(sizeof(struct phd_super) == PHD_SECTOR_SIZE, "one sector");
/* As long as ext4's commit interval: what a checkpoint costs is then some percent of a busy heap's time. */
#define PHD_EPOCH_MS_DEFAULT 5000u
#define PHD_EPOCH_MS_DEFAULT_SYNC 30000u
#define PHD_EPOCH_MS(super) \
	((super)->epoch_ms         ? (super)->epoch_ms \
	 : (super)->durability == 3 ? PHD_EPOCH_MS_DEFAULT_SYNC \
				    : PHD_EPOCH_MS_DEFAULT)

/* J. Two copies, written by pwrite in turn under the gate; the valid one with the higher seq counts. */
struct phd_state {
	/* 0x000 */ uint64_t magic;
	/* 0x008 */ uint64_t seq;
	/* 0x010 */ uint8_t boot_id[16];   /* of the machine's boot that last opened; all zero: unknown */
	/* 0x020 */ uint64_t inode;		/* of the file when it was last opened */
	/* 0x028 */ uint64_t birth_ns;		/* of the file, ns since 1970; 0: the file system has none */
	/* 0x030 */ uint32_t clean;                /* 1: the last closer synced everything; no lane is in
	 * flight */
	/* 0x034 */ uint32_t durability;
	/* 0x038 */ uint64_t dev;		/* device of the file when it was last opened; 0: unknown */
	/* 0x040 */ uint64_t allocated_size;	/* bytes the file system had set aside when it was closed; 0: all */
	/* 0x048 */ uint64_t reserved0;
	/* 0x050 */ uint64_t attachment_limit;	/* attachment numbers given out are below this */
	/* 0x058 */ uint64_t open_gen;		/* counts first openers */
	/* 0x060 */ uint8_t reserved[0x19c];
	/* 0x1fc */ uint32_t crc;
};
static_assert(sizeof(struct phd_state) == PHD_SECTOR_SIZE, "one sector");

/* J. Two copies, in heaps with a WAL: from where power recovery reads. The valid one with the higher seq counts. By pwrite in
 * turn, by the first opener or last closer under the gate: nobody else is there. */
struct phd_checkpoint {
	/* 0x000 */ uint64_t magic;
	/* 0x008 */ uint64_t seq;
	/* 0x010 */ uint64_t log_gen;	/* records of another one are not valid; grows with each power recovery */
	/* 0x018 */ uint64_t replay_lsn;	/* the first record that is read */
	/* 0x020 */ uint64_t epoch_lsn;	/* the SWITCH record of its epoch; the same */
	/* 0x028 */ uint64_t lane_gen_limit;	/* no lane has had this generation */
	/* 0x030 */ uint8_t reserved[0x1cc];
	/* 0x1fc */ uint32_t crc;
};
static_assert(sizeof(struct phd_checkpoint) == PHD_SECTOR_SIZE, "one sector");

/* J. Two copies, in heaps with a WAL: how far checkpoints have moved what the sector says. Words that are only ever raised, in
 * the mapping: whoever does it late, as it was stopped, changes nothing. The higher one counts, of each. */
struct phd_live {
	/* 0x00 */ uint64_t epoch_lsn;	    /* if above the sector's: replay_lsn and epoch_lsn are this. A SWITCH record */
	/* 0x08 */ uint64_t lane_gen_limit; /* if above the sector's */
};
static_assert(sizeof(struct phd_live) == 16, "size");

/* J. Header of a WAL record; entries follow it. Records follow each other, across the end of the region too. */
struct phd_wal {
	/* 0x00 */ uint64_t lsn;	/* position of the record, bytes, a multiple of 8; in the region: modulo its size */
	/* 0x08 */ uint64_t log_gen;
	/* 0x10 */ uint32_t size;	/* bytes with this header, a multiple of 8 */
	/* 0x14 */ uint32_t kind;	/* PHD_WAL_* */
	/* 0x18 */ uint32_t crc;	/* CRC32C of what follows the header, then of the header's first 24 bytes */
	/* 0x1c */ uint32_t reserved;
};
static_assert(sizeof(struct phd_wal) == 32, "size");
#define PHD_LANE_GEN_STEP (1ull << 33)
#define PHD_WAL_PAD 1u	  /* to the end of a sector; no entries */
#define PHD_WAL_COMMIT 2u /* entries: DEFER, PUBLISH, SET, CLEAR, DESC, GROW */
#define PHD_WAL_IMAGE 3u  /* entries: UNDO, whole pages as they were before the first store of an epoch */
#define PHD_WAL_SWITCH 4u /* an epoch begins. Entries: UNDO of the transactions that were active, the rest of those that were committing */

#define PHD_STALL_BINS 10u
#define PHD_STALL_NS 781250ull /* 50 ms is a bound */

/* B. Words of the whole heap, each hot one in a line of its own. `word`: see PHD_WORD_*. */
struct phd_coord {
	/* 0x000 */ uint64_t open_gen;           /* of the first opener of this life; written under the gate
	 * byte */
	/* 0x008 */ uint64_t attachment_next; /* next attachment number; under the gate byte */
	/* 0x010 */ uint64_t attachment_limit;
	/* 0x018 */ uint64_t poison;	      /* 0, or the positive code that poisoned the heap */
	/* 0x020 */ uint64_t pad0[4];
	/* 0x040 */ uint64_t gate;	      /* PHD_MODE_* that may run, PHD_GATE_BIAS or PHD_MODE_SWITCH */
	/* 0x048 */ uint64_t bias_limit;      /* exclusive transactions in a row after which a lane may take
	 * the bias */
	/* 0x050 */ uint64_t pad1[6];
	/* 0x080 */ uint64_t drain;              /* bumped by lanes that end during a switch; futex in the
	 * low half */
	/* 0x088 */ uint64_t pad2[7];
	/* 0x0c0 */ uint64_t writer;	      /* word: the exclusive transaction, unless the gate is biased */
	/* 0x0c8 */ uint64_t writer_next;     /* see phd_stripe.next */
	/* 0x0d0 */ uint64_t writer_last;     /* lane + 1 of the last one; under writer */
	/* 0x0d8 */ uint64_t pad3[5];
	/* 0x100 */ uint64_t switcher;	      /* word: who changes the gate */
	/* 0x108 */ uint64_t switcher_next;
	/* 0x110 */ uint64_t pad4[6];
	/* 0x140 */ uint64_t directory;	      /* word: latch of all descriptors */
	/* 0x148 */ uint64_t directory_change_count; /* bumped under the latch when chunks became free */
	/* 0x150 */ uint64_t pad5[6];
	/* 0x180 */ uint64_t growth;	      /* word: who grows the file */
	/* 0x188 */ uint64_t recovered_count; /* members recovered by survivors since the first opener */
	/* 0x190 */ uint64_t reap;	      /* counts members that went with holds: their objects wait to be freed */
	/* 0x198 */ uint64_t lane_limit;	   /* lanes at or above were never claimed since the first opener */
	/* 0x1a0 */ uint64_t reaped;	   /* what `reap` was when all that had been left by then was looked through */
	/* 0x1a8 */ uint64_t watch_asked_ns; /* when a sleeper of pheap_watch last asked for the dead; monotonic clock */
	/* 0x1b0 */ uint64_t pad6[2];
	/* 0x1c0 */ uint64_t hold_buckets[4]; /* bit i: list i of held references is in use since the first opener */
	/* 0x1e0 */ uint64_t pad7[4];
	/* Heaps with a WAL; all LSNs. Per boot. */
	/* 0x200 */ uint64_t append;	      /* word: who appends to the ring */
	/* 0x208 */ uint64_t tail;	      /* where the next record begins. Under append; moving it is a commit point */
	/* 0x210 */ uint64_t head_lease;	      /* lease of the heap head's page */
	/* 0x218 */ uint64_t commit_count;    /* COMMIT records appended; so the next, under append */
	/* 0x220 */ uint64_t commit_bytes;    /* payload bytes of commits */
	/* 0x228 */ uint64_t image_bytes;     /* payload bytes of images */
	/* 0x230 */ uint64_t pad8[2];
	/* 0x240 */ uint64_t durable;	      /* all below is on the disk */
	/* 0x248 */ uint64_t flush_count;
	/* 0x250 */ uint64_t flush_bytes;
	/* 0x258 */ uint64_t flush_ns;	      /* spent in flushes */
	/* 0x260 */ uint64_t flush_covered;   /* commits appended before the last flush began; so the next two, under flush */
	/* 0x268 */ uint64_t flush_goal;      /* commits after which those that it acknowledged are back */
	/* 0x270 */ uint64_t flush_patience;  /* yields that the next leader spends on that */
	/* 0x278 */ uint64_t pad9;
	/* 0x280 */ uint64_t flush;	      /* word: who flushes */
	/* 0x288 */ uint64_t flush_start_ns;  /* when it began; monotonic clock */
	/* 0x290 */ uint64_t flush_end_ns;    /* of the last flush */
	/* 0x298 */ uint64_t flush_turn;      /* counts flushes */
	/* 0x2a0 */ uint64_t flush_target;    /* how far this one goes */
	/* 0x2a8 */ uint64_t flush_ends[2];   /* futexes, by the turn's low bit: those whom that flush covers sleep here */
	/* 0x2b8 */ uint64_t pad10;
	/* 0x2c0 */ uint64_t epoch;	      /* LSN of the record that began it; bit 0: a switch is under way */
	/* 0x2c8 */ uint64_t replay_lsn;      /* as in the durable checkpoint; so the three below. futex in the low half */
	/* 0x2d0 */ uint64_t epoch_lsn;
	/* 0x2d8 */ uint64_t log_gen;
	/* 0x2e0 */ uint64_t lane_gen_limit;
	/* 0x2e8 */ uint64_t changed;	      /* EPOCH: the last epoch in which something was committed. Only raised */
	/* 0x2f0 */ uint64_t switch_lsn;     /* of the last SWITCH record; under append */
	/* 0x2f8 */ uint64_t pad11;
	/* 0x300 */ uint64_t checkpoint;      /* word: who makes a checkpoint */
	/* 0x308 */ uint64_t checkpoint_count;
	/* 0x310 */ uint64_t checkpoint_ns;   /* spent in checkpoints */
	/* 0x318 */ uint64_t checkpoint_start_ns; /* of the last one; monotonic clock */
	/* 0x320 */ uint64_t stall_count;     /* times that a call waited for room in the ring, or made a checkpoint */
	/* 0x328 */ uint64_t stall_ns;
	/* 0x330 */ uint64_t checkpoint_last_ns; /* what the last one took */
	/* 0x338 */ uint64_t stall_max_ns;
	/* 0x340 */ uint64_t stall_bins[PHD_STALL_BINS]; /* how many took less than PHD_STALL_NS << index; the last: or more */
	/* 0x390 */ uint64_t lease_narrow;    /* how often to halve the rows of pages that one that is missed brings */
	/* 0x398 */ uint64_t reserved[13];
};
static_assert(sizeof(struct phd_coord) == 0x400, "size");

/* What 99 of 100 stalls took less than, as far as the bins tell; 0: there were none. */
static inline uint64_t phd_stall_p99_ns(const struct phd_coord *c)
{
	uint64_t sum = 0, below = 0;
	unsigned i = 0;

	for (unsigned j = 0; j < PHD_STALL_BINS; j++)
		sum += c->stall_bins[j];
	while (i < PHD_STALL_BINS && (below += c->stall_bins[i]) * 100 < sum * 99)
		i++;
	if (sum == 0)
		return 0;
	return i + 1 < PHD_STALL_BINS && PHD_STALL_NS << i < c->stall_max_ns ? PHD_STALL_NS << i : c->stall_max_ns;
}

/* B. One attached process. The slot is taken while attachment != 0; who holds its OFD byte is alive. */
struct phd_member {
	/* 0x00 */ uint64_t attachment;	 /* 0: free slot. Written last on attach, first on detach */
	/* 0x08 */ uint32_t pid;	 /* for people only, so the next three */
	/* 0x0c */ uint32_t flags;	 /* PHD_MEMBER_* */
	/* 0x10 */ uint64_t start_ticks; /* field 22 of /proc/PID/stat */
	/* 0x18 */ char command[16];
	/* 0x28 */ uint64_t reserved[3];
};
#define PHD_MEMBER_FENCE 1u /* could not register for membarrier: fences in begin */
#define PHD_MEMBER_READER 2u
#define PHD_MEMBER_HOLDS 4u /* took held references: what it leaves has to be looked for */
#define PHD_MEMBER_DEAD 16u /* whoever has its byte is recovering it */
#define PHD_MEMBER_LEAVING 8u /* of one with holds: `reap` is raised, the row goes next */
static_assert(sizeof(struct phd_member) == 64, "one line");

/* B. A lock stripe. */
struct phd_stripe {
	/* 0x00 */ uint64_t word;
	/* 0x08 */ uint64_t next; /* word of the waiter that watches the holder; PHD_NEXT_FIRST: it goes first */
	/* 0x10 */ uint64_t pad[6];
};
#define PHD_NEXT_FIRST 1ull
static_assert(sizeof(struct phd_stripe) == 64, "one line");

/* J (first line) and B (second line). One thread's journal head. */
#define PHD_NOTE_COUNT 12u
struct phd_lane {
	/* 0x00 */ uint64_t state;    /* PHD_STATE_*: the commit word. Its owner thread, or a recoverer */
	/* 0x08 */ uint64_t used;     /* PHD_USED_*: end and last record of the log, in units of 8 bytes */
	/* 0x10 */ uint64_t ext_off;  /* first log extension, 0: none */
	/* 0x18 */ uint64_t lsn;      /* of its record, while it is appending */
	/* 0x20 */ uint64_t owner;    /* attachment << 16 | slot + 1; 0: free lane. CAS */
	/* 0x28 */ uint64_t rollback_count; /* of rollbacks to savepoints, each when its records may be overwritten */
	/* 0x30 */ uint64_t reserved[2];
	/* 0x40 */ uint64_t wait_gen;	 /* gen << 16 | lane of the owner that this lane waits for */
	/* 0x48 */ uint32_t wait_stripe; /* stripe + 1 that this lane waits for, or PHD_WAIT_*; 0: none */
	/* 0x4c */ uint32_t note_overflow; /* 1: holds shared stripes beyond the notes: counts as all */
	/* 0x50 */ uint32_t notes[PHD_NOTE_COUNT]; /* stripe + 1 held shared; 0: none */
};
static_assert(sizeof(struct phd_lane) == 128, "two lines");
#define PHD_WAIT_WRITER 0xffffffffu /* the exclusive transaction */
#define PHD_WAIT_SWITCH 0xfffffffeu /* a change of mode */
#define PHD_WAIT_DRAIN 0xfffffffdu  /* lanes of another mode, or shared holders, to end */
#define PHD_WAIT_LATCH 0xfffffffcu  /* a latch of the allocator, or growth */

/* Lane state word: gen:47 | mode:8 | step:8 (top bit 0). */
#define PHD_STEP_IDLE 0u
#define PHD_STEP_ACTIVE 1u
#define PHD_STEP_APPENDING 2u /* committed iff the tail is above lane.lsn; heaps with a WAL */
#define PHD_STEP_COMMITTED 3u
#define PHD_STEP_LOOKING 4u /* active, and about to commit operations: EPOCH */
#define PHD_MODE_NONE 0u
#define PHD_MODE_CONCURRENT 1u
#define PHD_MODE_EXCLUSIVE 2u
#define PHD_MODE_READ 3u
#define PHD_MODE_INTERNAL 4u /* changes allocator metadata only; passes every gate */
#define PHD_MODE_SWITCH 5u   /* gate only */
#define PHD_GATE_BIAS(lane) ((uint64_t)PHD_MODE_EXCLUSIVE | ((uint64_t)(lane) + 1) << 8) /* exclusive, for this lane alone */
#define PHD_STATE(gen, mode, step) ((uint64_t)(gen) << 16 | (uint64_t)(mode) << 8 | (uint64_t)(step))
#define PHD_STATE_GEN(s) ((s) >> 16)
#define PHD_STATE_MODE(s) ((unsigned)((s) >> 8 & 0xff))
#define PHD_STATE_STEP(s) ((unsigned)((s) & 0xff))

/* Lane used word: end:32 | last:32, units of 8 bytes of log. last is the start of the last record; end 0:
 * empty. */
#define PHD_USED(end, last) ((uint64_t)(end) << 32 | (uint64_t)(last))
#define PHD_USED_END(u) ((u) >> 32)
#define PHD_USED_LAST(u) ((u) & 0xffffffffu)

/* Lock, owner and latch words: gen:47 | lane:15 | shared:1 | waiters:1. Held iff that lane's state has that
 * gen and is not idle; lane >= PHD_WORD_MEMBER: iff member slot (lane - PHD_WORD_MEMBER) has that
 * attachment. */
#define PHD_WORD_WAITERS 1ull
#define PHD_WORD_SHARED 2ull
#define PHD_WORD_FLAGS 3ull
#define PHD_WORD_MEMBER 0x4000u
#define PHD_WORD(gen, lane) ((uint64_t)(gen) << 17 | (uint64_t)(lane) << 2)
#define PHD_WORD_GEN(w) ((w) >> 17)
#define PHD_WORD_LANE(w) ((unsigned)((w) >> 2 & 0x7fff))

/* J. A log record: header, payload, zero to seven bytes of padding. Records do not cross segments. */
struct phd_record {
	/* 0x00 */ uint64_t target;	/* kind << 56 | offset (or chunk, or log position) */
	/* 0x08 */ uint32_t size;	/* payload, bytes */
	/* 0x0c */ uint32_t prev;  /* distance back to the previous record's start, units of 8 bytes; 0:
	 * first */
};
static_assert(sizeof(struct phd_record) == 16, "size");
#define PHD_REC_UNDO 1u	   /* payload: old bytes at offset */
#define PHD_REC_DEFER 2u   /* payload: bytes to store at offset at commit */
#define PHD_REC_PUBLISH 3u /* payload: one word, stored at offset after everything else */
#define PHD_REC_SET 4u	   /* payload: mask to OR into the bitmap word at offset */
#define PHD_REC_CLEAR 5u   /* payload: mask to AND out of the bitmap word at offset */
#define PHD_REC_DESC 6u	   /* target: chunk; payload: {chunk count, first descriptor}; see FORMAT.md */
#define PHD_REC_REVIVE 7u  /* target: log position; payload: that record's target word before it was dropped */
#define PHD_REC_DROPPED 8u /* a deferred record that has no effect any more */
#define PHD_REC_GROW 9u	   /* WAL only. target: chunk_count; no payload */
#define PHD_REC_TARGET(kind, off) ((uint64_t)(kind) << 56 | (off))
#define PHD_REC_KIND(t) ((unsigned)((t) >> 56))
#define PHD_REC_OFF(t) ((t) & 0x00ffffffffffffffull)

/* J. Head of a log extension: chunks that the lane's transaction owns by their owner words. */
struct phd_log_ext {
	/* 0x00 */ uint64_t next_off; /* next extension, 0: none */
	/* 0x08 */ uint64_t base;     /* log position of the first record here, units of 8 bytes */
	/* 0x10 */ uint64_t size;     /* bytes with this header, whole chunks */
	/* 0x18 */ uint64_t owner;    /* PHD_WORD of the transaction */
};
static_assert(sizeof(struct phd_log_ext) == 32, "size");

/* A. Head of the data. */
struct phd_head {
	/* 0x000 */ uint64_t magic;
	/* 0x008 */ uint64_t chunk_count; /* chunks backed by the file; only grows. Under growth, after the
	 * space exists */
	/* 0x010 */ uint64_t types_off;	  /* first phd_type, 0: none */
	/* 0x018 */ uint64_t reserved[5];
	/* 0x040 */ uint64_t roots[PHD_ROOT_BUCKETS]; /* first phd_root of each bucket */
	/* 0x240 */ uint64_t holds[PHD_HOLD_BUCKETS]; /* first phd_hold of each bucket */
};
static_assert(sizeof(struct phd_head) == 0xa40, "size");

/* A. A named root; a block of type PHD_TYPE_ROOT. Never freed: a removed name keeps its entry with off 0. */
struct phd_root {
	/* 0x00 */ uint64_t next_off;
	/* 0x08 */ uint64_t off;  /* the root block, 0: name removed */
	/* 0x10 */ uint64_t size; /* bytes asked for at creation; 0: bound by pheap_root_set */
	/* 0x18 */ char name[PHD_NAME_SIZE];
};
static_assert(sizeof(struct phd_root) == 0x58, "size");

/* A. One row of the type table; a block of type PHD_TYPE_TYPE, followed by ptr_count 32-bit offsets. Never
 * freed. */
struct phd_type {
	/* 0x00 */ uint64_t next_off;
	/* 0x08 */ uint64_t size;
	/* 0x10 */ uint32_t number;
	/* 0x14 */ uint32_t align;
	/* 0x18 */ uint32_t ptr_count;
	/* 0x1c */ uint32_t reserved;
	/* 0x20 */ char name[PHD_NAME_SIZE];
	/* 0x60 */ uint32_t ptr_offs[];
};
static_assert(sizeof(struct phd_type) == 0x60, "size");

/* A. What one member holds of one object; a block of type PHD_TYPE_HOLD. Void once the slot has another
 * attachment. */
struct phd_hold {
	/* 0x00 */ uint64_t next_off;
	/* 0x08 */ uint64_t object_off;
	/* 0x10 */ uint64_t attachment;
	/* 0x18 */ uint32_t slot;
	/* 0x1c */ uint32_t count;
};
static_assert(sizeof(struct phd_hold) == 0x20, "size");
static_assert(PHD_HOLD_BUCKETS == 256, "PHD_HOLD_BUCKET gives eight bits");

/* A. What one member has of the permits of a semaphore; void once the slot has another attachment. */
struct phd_permit_cell {
	/* 0x00 */ uint64_t attachment;
	/* 0x08 */ int64_t balance; /* taken, less lent */
};
static_assert(sizeof(struct phd_permit_cell) == 0x10, "size");

/* A. A counting semaphore; a block of type PHD_TYPE_PERMITS. Free are: total less the balances that are not void. */
struct phd_permits {
	/* 0x00 */ uint64_t total;
	/* 0x08 */ uint64_t change; /* bumped when permits come back; futex in the low half */
	/* 0x10 */ uint64_t watcher; /* attachment << 16 | slot + 1 of the one who asks for the dead; 0: nobody. Not logged */
	/* 0x18 */ uint64_t reserved;
	/* 0x20 */ struct phd_permit_cell cells[]; /* by member slot: member_count */
};
static_assert(sizeof(struct phd_permits) == 0x20, "size");

/* A. Chunk descriptor word, one per chunk: kind:2 | type:17 | ... */
#define PHD_DESC_FREE 0u
#define PHD_DESC_RUN 1u	   /* block size / 8:12 | chunks:10: head of a run of blocks of one size and type */
#define PHD_DESC_EXTENT 2u /* chunks:45: head of one block */
#define PHD_DESC_CONT 3u   /* distance to the head, chunks:45 */
#define PHD_DESC_HOLE 4ull /* the other word of kind FREE: the file may have no space here */
#define PHD_DESC_IS_FREE(d) (((d) & ~PHD_DESC_HOLE) == 0)
#define PHD_DESC_KIND(d) ((unsigned)((d)&3))
#define PHD_DESC_TYPE(d) ((uint32_t)((d) >> 2 & 0x1ffff))
#define PHD_DESC_BLOCK_SIZE(d) ((size_t)((d) >> 19 & 0xfff) << 3)
#define PHD_DESC_RUN_COUNT(d) ((uint64_t)((d) >> 31 & 0x3ff))
#define PHD_DESC_COUNT(d) ((d) >> 19)
#define PHD_DESC_MAKE_RUN(type, block_size, count) \
	((uint64_t)PHD_DESC_RUN | (uint64_t)(type) << 2 | (uint64_t)((block_size) / 8) << 19 | (uint64_t)(count) << 31)
#define PHD_DESC_MAKE_EXTENT(type, count) \
	((uint64_t)PHD_DESC_EXTENT | (uint64_t)(type) << 2 | (uint64_t)(count) << 19)
#define PHD_DESC_MAKE_CONT(type, distance) \
	((uint64_t)PHD_DESC_CONT | (uint64_t)(type) << 2 | (uint64_t)(distance) << 19)

#define PHD_TYPE_USER_MAX 65535u
#define PHD_TYPE_ROOT 65536u
#define PHD_TYPE_TYPE 65537u
#define PHD_TYPE_JOURNAL 65538u
#define PHD_TYPE_HOLD 65539u
#define PHD_TYPE_PERMITS 65540u

#define PHD_BLOCK_SIZE_MIN 16u	/* smallest block of a run, bytes */
#define PHD_BLOCK_SIZE_MAX 16384u /* largest block of a run, bytes */
#define PHD_RUN_COUNT_MAX 16u	/* chunks */

/* A. Bitmap of a chunk, 256 bits; a run uses those of its chunks as one array. Bit set: block allocated. */
struct phd_bits {
	/* 0x00 */ uint64_t word[4];
};
static_assert(sizeof(struct phd_bits) == 32, "size");
static_assert(PHD_CHUNK_SIZE / PHD_BLOCK_SIZE_MIN == 8 * sizeof(struct phd_bits), "a bit per smallest block");

/* B. Lock words of a chunk. */
struct phd_words {
	/* 0x00 */ uint64_t owner; /* word: who may choose among the free blocks of the run here, or claimed
	 * the free chunk */
	/* 0x08 */ uint64_t latch; /* word: who commits to this run's bitmap */
};
static_assert(sizeof(struct phd_words) == 16, "size");

/* B. Leases: a page is leased in an epoch iff its word, the end of the record with its image, is above the epoch's LSN; and that
 * counts once it is durable. One for each chunk of data. */
struct phd_lease {
	/* 0x00 */ uint64_t page; /* lease of the chunk */
	/* 0x08 */ uint64_t alloc_lsn; /* end of the last record that allocated or freed here */
};
static_assert(sizeof(struct phd_lease) == 16, "size");

/* B. Leases of the pages of bitmaps and descriptors, one for each 128 chunks. */
struct phd_table_lease {
	/* 0x00 */ uint64_t bits; /* of the page of these chunks' bitmaps */
	/* 0x08 */ uint64_t desc; /* of the page of descriptors that begins here: every fourth */
};
static_assert(sizeof(struct phd_table_lease) == 16, "size");
#define PHD_TABLE_LEASE_CHUNKS 128u
static_assert(PHD_TABLE_LEASE_CHUNKS * sizeof(struct phd_bits) == PHD_BLOCK_SIZE, "a page of bitmaps");

/* Every field is where its table says. */
#define PHD_AT(type, field, off) static_assert(offsetof(struct type, field) == (off), #type "." #field)
PHD_AT(phd_super, magic, 0x000);
PHD_AT(phd_super, version, 0x008);
PHD_AT(phd_super, copy, 0x00c);
PHD_AT(phd_super, compat, 0x010);
PHD_AT(phd_super, ro_compat, 0x018);
PHD_AT(phd_super, incompat, 0x020);
PHD_AT(phd_super, uuid, 0x028);
PHD_AT(phd_super, size_max, 0x038);
PHD_AT(phd_super, durability, 0x040);
PHD_AT(phd_super, chunk_shift, 0x044);
PHD_AT(phd_super, fixed_base, 0x048);
PHD_AT(phd_super, epoch_ms, 0x050);
PHD_AT(phd_super, member_count, 0x054);
PHD_AT(phd_super, lane_count, 0x058);
PHD_AT(phd_super, stripe_count, 0x05c);
PHD_AT(phd_super, lane_log_size, 0x060);
PHD_AT(phd_super, root_bucket_count, 0x064);
PHD_AT(phd_super, coord_off, 0x068);
PHD_AT(phd_super, member_off, 0x070);
PHD_AT(phd_super, stripe_off, 0x078);
PHD_AT(phd_super, lane_off, 0x080);
PHD_AT(phd_super, head_off, 0x088);
PHD_AT(phd_super, lane_log_off, 0x090);
PHD_AT(phd_super, desc_off, 0x098);
PHD_AT(phd_super, bits_off, 0x0a0);
PHD_AT(phd_super, words_off, 0x0a8);
PHD_AT(phd_super, data_off, 0x0b0);
PHD_AT(phd_super, chunk_max, 0x0b8);
PHD_AT(phd_super, journal_count, 0x0c0);
PHD_AT(phd_super, wal_off, 0x0c8);
PHD_AT(phd_super, wal_size, 0x0d0);
PHD_AT(phd_super, ring_off, 0x0d8);
PHD_AT(phd_super, lease_off, 0x0e0);
PHD_AT(phd_super, table_lease_off, 0x0e8);
PHD_AT(phd_super, limbo_off, 0x0f0);
PHD_AT(phd_super, layout, 0x100);
PHD_AT(phd_super, crc, 0x1fc);
PHD_AT(phd_state, magic, 0x000);
PHD_AT(phd_state, seq, 0x008);
PHD_AT(phd_state, boot_id, 0x010);
PHD_AT(phd_state, inode, 0x020);
PHD_AT(phd_state, birth_ns, 0x028);
PHD_AT(phd_state, clean, 0x030);
PHD_AT(phd_state, durability, 0x034);
PHD_AT(phd_state, dev, 0x038);
PHD_AT(phd_state, allocated_size, 0x040);
PHD_AT(phd_state, attachment_limit, 0x050);
PHD_AT(phd_state, open_gen, 0x058);
PHD_AT(phd_state, crc, 0x1fc);
PHD_AT(phd_checkpoint, magic, 0x000);
PHD_AT(phd_checkpoint, seq, 0x008);
PHD_AT(phd_checkpoint, log_gen, 0x010);
PHD_AT(phd_checkpoint, replay_lsn, 0x018);
PHD_AT(phd_checkpoint, epoch_lsn, 0x020);
PHD_AT(phd_checkpoint, lane_gen_limit, 0x028);
PHD_AT(phd_checkpoint, crc, 0x1fc);
PHD_AT(phd_live, epoch_lsn, 0x00);
PHD_AT(phd_live, lane_gen_limit, 0x08);
PHD_AT(phd_wal, lsn, 0x00);
PHD_AT(phd_wal, log_gen, 0x08);
PHD_AT(phd_wal, size, 0x10);
PHD_AT(phd_wal, kind, 0x14);
PHD_AT(phd_wal, crc, 0x18);
PHD_AT(phd_coord, open_gen, 0x000);
PHD_AT(phd_coord, attachment_next, 0x008);
PHD_AT(phd_coord, attachment_limit, 0x010);
PHD_AT(phd_coord, poison, 0x018);
PHD_AT(phd_coord, gate, 0x040);
PHD_AT(phd_coord, bias_limit, 0x048);
PHD_AT(phd_coord, drain, 0x080);
PHD_AT(phd_coord, writer, 0x0c0);
PHD_AT(phd_coord, writer_next, 0x0c8);
PHD_AT(phd_coord, writer_last, 0x0d0);
PHD_AT(phd_coord, switcher, 0x100);
PHD_AT(phd_coord, switcher_next, 0x108);
PHD_AT(phd_coord, directory, 0x140);
PHD_AT(phd_coord, directory_change_count, 0x148);
PHD_AT(phd_coord, growth, 0x180);
PHD_AT(phd_coord, recovered_count, 0x188);
PHD_AT(phd_coord, reap, 0x190);
PHD_AT(phd_coord, lane_limit, 0x198);
PHD_AT(phd_coord, reaped, 0x1a0);
PHD_AT(phd_coord, watch_asked_ns, 0x1a8);
PHD_AT(phd_coord, hold_buckets, 0x1c0);
PHD_AT(phd_coord, append, 0x200);
PHD_AT(phd_coord, tail, 0x208);
PHD_AT(phd_coord, durable, 0x240);
PHD_AT(phd_coord, flush_patience, 0x270);
PHD_AT(phd_coord, flush, 0x280);
PHD_AT(phd_coord, flush_ends, 0x2a8);
PHD_AT(phd_coord, epoch, 0x2c0);
PHD_AT(phd_coord, switch_lsn, 0x2f0);
PHD_AT(phd_coord, checkpoint, 0x300);
PHD_AT(phd_coord, stall_max_ns, 0x338);
PHD_AT(phd_coord, stall_bins, 0x340);
PHD_AT(phd_coord, lease_narrow, 0x390);
PHD_AT(phd_coord, reserved, 0x398);
PHD_AT(phd_member, attachment, 0x00);
PHD_AT(phd_member, pid, 0x08);
PHD_AT(phd_member, flags, 0x0c);
PHD_AT(phd_member, start_ticks, 0x10);
PHD_AT(phd_member, command, 0x18);
PHD_AT(phd_stripe, word, 0x00);
PHD_AT(phd_stripe, next, 0x08);
PHD_AT(phd_lane, state, 0x00);
PHD_AT(phd_lane, used, 0x08);
PHD_AT(phd_lane, ext_off, 0x10);
PHD_AT(phd_lane, lsn, 0x18);
PHD_AT(phd_lane, owner, 0x20);
PHD_AT(phd_lane, rollback_count, 0x28);
PHD_AT(phd_lane, wait_gen, 0x40);
PHD_AT(phd_lane, wait_stripe, 0x48);
PHD_AT(phd_lane, note_overflow, 0x4c);
PHD_AT(phd_lane, notes, 0x50);
PHD_AT(phd_record, target, 0x00);
PHD_AT(phd_record, size, 0x08);
PHD_AT(phd_record, prev, 0x0c);
PHD_AT(phd_log_ext, next_off, 0x00);
PHD_AT(phd_log_ext, base, 0x08);
PHD_AT(phd_log_ext, size, 0x10);
PHD_AT(phd_log_ext, owner, 0x18);
PHD_AT(phd_head, magic, 0x000);
PHD_AT(phd_head, chunk_count, 0x008);
PHD_AT(phd_head, types_off, 0x010);
PHD_AT(phd_head, roots, 0x040);
PHD_AT(phd_head, holds, 0x240);
PHD_AT(phd_root, next_off, 0x00);
PHD_AT(phd_root, off, 0x08);
PHD_AT(phd_root, size, 0x10);
PHD_AT(phd_root, name, 0x18);
PHD_AT(phd_type, next_off, 0x00);
PHD_AT(phd_type, size, 0x08);
PHD_AT(phd_type, number, 0x10);
PHD_AT(phd_type, align, 0x14);
PHD_AT(phd_type, ptr_count, 0x18);
PHD_AT(phd_type, name, 0x20);
PHD_AT(phd_type, ptr_offs, 0x60);
PHD_AT(phd_hold, next_off, 0x00);
PHD_AT(phd_hold, object_off, 0x08);
PHD_AT(phd_hold, attachment, 0x10);
PHD_AT(phd_hold, slot, 0x18);
PHD_AT(phd_hold, count, 0x1c);
PHD_AT(phd_permits, total, 0x00);
PHD_AT(phd_permits, change, 0x08);
PHD_AT(phd_permits, watcher, 0x10);
PHD_AT(phd_permits, cells, 0x20);
PHD_AT(phd_permit_cell, attachment, 0x00);
PHD_AT(phd_permit_cell, balance, 0x08);
PHD_AT(phd_bits, word, 0x00);
PHD_AT(phd_lease, page, 0x00);
PHD_AT(phd_lease, alloc_lsn, 0x08);
PHD_AT(phd_table_lease, bits, 0x00);
PHD_AT(phd_table_lease, desc, 0x08);
PHD_AT(phd_words, owner, 0x00);
PHD_AT(phd_words, latch, 0x08);
#undef PHD_AT

#endif
