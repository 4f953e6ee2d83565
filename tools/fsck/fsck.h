/* SPDX-License-Identifier: MIT
 *
 * fsck.h: what the passes of pheap-fsck share.
 *
 * What: one struct for the run, the file as the passes see it (image.c), the table of problems (problem.c),
 * and one function per pass.
 * Why no mapping: the file may be cut or changed under a check with -n; pread then returns less, it does not
 * raise SIGBUS. Why an overlay:
 * with -n the passes after the journal see the heap as it will be after recovery, while the file keeps every
 * byte.
 *
 * Invariants
 *   K1  All writes to the file go through image_write and image_write_state; with -n neither reaches the
 *       file.
 *   K2  Memory is bounded by the directory of the heap, whose size is checked against that of the file first.
 *   K3  Whatever was read is checked before it is used as an offset, a count or an index.
 */
#ifndef FSCK_H
#define FSCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format.h"
#include "identity.h"
#include "layout.h"

#define EXIT_FIXED 1	   /* errors were corrected */
#define EXIT_UNCORRECTED 4 /* errors are left */
#define EXIT_OPERATION 8   /* the check could not be made */
#define EXIT_USAGE 16

enum fsck_mode { MODE_NO, MODE_PREEN, MODE_YES, MODE_ASK };

enum fsck_pass { PASS_SUPER = 1, PASS_JOURNAL, PASS_DIRECTORY, PASS_BITMAPS, PASS_NAMES, PASS_COORDINATION };

/* Order of the table in problem.c. */
enum fsck_problem {
	PR_SUPER_NONE,
	PR_SUPER_COPY,
	PR_SUPER_DIFFER,
	PR_FILE_SHORT,
	PR_FILE_TRUNCATED,
	PR_HEAD_MAGIC,
	PR_CHUNK_COUNT,
	PR_DESC_PAST_END,
	PR_STATE_NONE,
	PR_STATE_COPY,
	PR_STATE_FOREIGN,
	PR_STATE_BOOT,
	PR_STATE_DIRTY,
	PR_CHECKPOINT_NONE,
	PR_CHECKPOINT_COPY,
	PR_LIVE,
	PR_CUT,
	PR_WAL_SHORT,
	PR_WAL_RECORD,
	PR_RING,
	PR_LANE_LIMIT,
	PR_LANE_STATE,
	PR_LANE_LOG,
	PR_LANE_ACTIVE,
	PR_LANE_COMMITTED,
	PR_LANE_EMPTY,
	PR_LANE_LIVE,
	PR_LANE_CLEAN,
	PR_JOURNAL_EXTENT,
	PR_DESC_FREE,
	PR_DESC_RUN,
	PR_DESC_EXTENT,
	PR_DESC_TYPE,
	PR_DESC_CONT,
	PR_DESC_ORPHAN,
	PR_DESC_OVERLAP,
	PR_DESC_LONG,
	PR_BITS_PAST_END,
	PR_SEMAPHORE_TOTAL,
	PR_SEMAPHORE_CELL,
	PR_HOLD_LINK,
	PR_HOLD_CYCLE,
	PR_HOLD_FIELD,
	PR_HOLD_BUCKET,
	PR_HOLD_OBJECT,
	PR_HOLD_DUPLICATE,
	PR_HOLD_ORPHAN,
	PR_HOLD_VOID,
	PR_ROOT_LINK,
	PR_ROOT_CYCLE,
	PR_ROOT_NAME,
	PR_ROOT_BUCKET,
	PR_ROOT_DUPLICATE,
	PR_ROOT_TARGET,
	PR_ROOT_SIZE,
	PR_ROOT_ORPHAN,
	PR_TYPE_LINK,
	PR_TYPE_CYCLE,
	PR_TYPE_ROW,
	PR_TYPE_DUPLICATE,
	PR_POINTER,
	PR_POISON,
	PR_WORD,
	PR_ATTACHMENT,
	PR_LEASE,
	PR_MEMBERS,
	PR_COUNT
};

struct fsck_overlay; /* image.c */

struct fsck {
	const char *path;
	int fd;
	bool writable; /* fd may be written: not -n */
	enum fsck_mode mode;
	bool force, verbose, json, progress;
	int copy; /* superblock copy asked for with -b, or -1 */
	uint64_t file_size;
	struct fsck_overlay *overlay;
	bool overlaid; /* image_write goes to memory: the file keeps its bytes */

	bool attached;	       /* somebody is attached: the result is a snapshot */
	uint32_t member_count; /* live ones */

	struct phd_super super;
	struct phd_state state; /* the one that counts, as in the file */
	int state_copy;		/* where it is, -1: nowhere */
	bool was_clean, same_boot, same_file, same_device;
	bool state_changed; /* write it at the end even if it says clean */
	bool state_rewrite; /* a damaged copy is to be written anew, once nothing needs the other's boot id */
	struct identity id;
	uint64_t chunk_count;

	/* Heaps with a WAL; section 8. */
	bool wal;
	bool snapshot; /* asked for: the file is as a power cut leaves it, whatever the boot id says */
	bool cut;      /* what memory held is lost: power recovery is due */
	struct phd_checkpoint checkpoint; /* the one that counts; from CHECKPOINT_NONE on: a guess */
	int checkpoint_copy;		  /* where it is, -1: nowhere */
	struct phd_coord ring;		  /* the ring's positions as they count for lanes; not in the file */
	uint64_t next_lsn;		  /* no record and no lease was at or above it */
	uint64_t wal_commit_count, wal_image_count, wal_bytes; /* what power recovery read */

	/* From pass 3 on: the directory in memory; desc_set and bits_set change both. */
	uint64_t *desc, *bits;
	uint64_t *seen; /* like bits: blocks that pass 5 met in a list */

	uint64_t lane_back, lane_forward, repair_count;
	uint64_t chunk_free_count, chunk_hole_count, run_count, extent_count, block_count, block_size_sum;
	uint64_t root_count, type_count, pointer_count;
	uint64_t hold_count, hold_void_count; /* records in lists; objects that nobody holds any more */
	uint64_t semaphore_count;
	uint64_t attachment_max, attachment_off; /* in records and cells: the highest, and where it is */
	uint64_t error_fixed, error_left, warning_count, notice_count;
	uint64_t problem_count[PR_COUNT];
	bool pointers_followed; /* those that the type table declares */
	uint64_t lost_count;	/* repairs that gave up blocks */
	bool stopped; /* an error before pass 3 was left: nothing more is changed, writes go to the overlay */
};

/* problem.c */
/* Reports a problem; true: the caller repairs it now. off: the byte in the file that shows it. */
bool problem(struct fsck *f, enum fsck_problem id, uint64_t off, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
void problem_summary(struct fsck *f, int rc);
void pass_begin(struct fsck *f, enum fsck_pass pass);
void pass_progress(struct fsck *f, uint64_t done, uint64_t total);
void pass_end(struct fsck *f);
/* End of pass 1 and 2: with an error left there, what follows is checked as if recovered, and nothing is
 * changed. */
void pass_stop(struct fsck *f);
void note(struct fsck *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The check cannot go on: one sentence, then exit with EXIT_OPERATION. */
_Noreturn void fsck_fail(struct fsck *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
int fsck_result(const struct fsck *f);
const char *problem_code(enum fsck_problem id);

/* store.c: what a record or an entry says is to be stored, of a lane's log or of the WAL */
struct log;
struct store {
	struct log *log; /* NULL: at is an LSN */
	uint64_t at;	 /* of the payload: offset in the file, or LSN */
	uint64_t target;
	uint32_t size;
};
/* Its target is one that section 5 allows for its kind. chunk_used: bit per chunk that it must not touch,
 * or NULL. words: sum of descriptors written. */
bool store_valid(struct fsck *f, const struct store *s, const uint64_t *chunk_used, uint64_t *words);
void store_bytes(struct fsck *f, const struct store *s);
void store_apply(struct fsck *f, const struct store *s); /* all kinds but UNDO and PUBLISH */

/* checkpoint.c */
void checkpoint_read(struct fsck *f);
void checkpoint_write(struct fsck *f, const struct phd_checkpoint *c);
/* Sets f->cut: does the heap need power recovery? Needs state and checkpoint. */
void cut_judge(struct fsck *f);
void ring_check(struct fsck *f); /* fills f->ring, for lanes of processes that were killed */
/* Everything durable, then a checkpoint with nothing to replay: the log is not needed any more. */
void wal_retire(struct fsck *f);
/* The limit of a checkpoint after which no lane can reach it soon. */
uint64_t lane_gen_limit_next(struct fsck *f, uint64_t least);

/* power.c */
void power_recover(struct fsck *f);

/* image.c */
void image_open(struct fsck *f);
void image_close(struct fsck *f);				    /* also frees what the passes keep in f */
void image_read(struct fsck *f, uint64_t off, void *buf, size_t n); /* past the end: zeros */
void image_write(struct fsck *f, uint64_t off, const void *buf, size_t n);
void image_write_word(struct fsck *f, uint64_t off, uint64_t word);
uint64_t image_read_word(struct fsck *f, uint64_t off);
void image_zero(struct fsck *f, uint64_t off, uint64_t n);
/* The file backs so many chunks, their rows in the tables too. */
void image_extend(struct fsck *f, uint64_t chunk_count);
/* These chunks, which may be holes, have space. */
void image_fill(struct fsck *f, uint64_t chunk, uint64_t count);
/* What the kernel remembers of the file is not what the disk has: read it from there. */
void image_forget(struct fsck *f);
void image_sync(struct fsck *f);
/* Next copy of the state sector: seq + 1, this boot and file, durable. */
void image_write_state(struct fsck *f, bool clean);
/* First byte at or after off that may differ from zero, below end; end: none. Skips holes. */
uint64_t image_next_data(struct fsck *f, uint64_t off, uint64_t end);
void *memory_get(struct fsck *f, uint64_t count, uint64_t size, const char *what);

/* lock.c */
void lock_take(struct fsck *f);
void lock_report_members(struct fsck *f);

/* The passes. */
bool pass_super(struct fsck *f); /* false: nothing else can be checked */
void pass_journal(struct fsck *f);
void pass_directory(struct fsck *f);
void pass_bitmaps(struct fsck *f);
void pass_names(struct fsck *f);
void pass_coordination(struct fsck *f);

/* pass3.c, pass4.c: for pass 5 */
void desc_set(struct fsck *f, uint64_t chunk, uint64_t desc);
void bits_set(struct fsck *f, uint64_t word_idx, uint64_t word);
void desc_untype(struct fsck *f, uint64_t chunk); /* the run or extent that begins there becomes type 0 */

/* block.c: blocks of the directory in memory */
struct block {
	uint64_t off, size;
	uint64_t seen_idx; /* bit in f->seen */
	uint32_t type;
};
/* True iff off is the start of an allocated block (the journal is none). */
bool block_find(const struct fsck *f, uint64_t off, struct block *ret);
/* Block number idx of the run or extent whose head is chunk; false: there is none, or it is free. */
bool block_at(const struct fsck *f, uint64_t chunk, uint64_t idx, struct block *ret);
/* How many blocks the run or extent that begins at chunk has; 0: none begins there. */
uint64_t block_room(const struct fsck *f, uint64_t chunk);
/* Cursor over allocated blocks in order of offset; *chunk and *idx start at 0. */
bool block_next(const struct fsck *f, uint64_t *chunk, uint64_t *idx, struct block *ret);
bool block_seen(const struct fsck *f, const struct block *b);
void block_mark(struct fsck *f, const struct block *b);
void block_unmark(struct fsck *f, const struct block *b);
void block_free(struct fsck *f, const struct block *b); /* of a run */
uint64_t chunk_off(const struct fsck *f, uint64_t chunk);

/* The other parts of pass 5. */
void semaphores_check(struct fsck *f); /* semaphores.c */
void holds_check(struct fsck *f);      /* holds.c */
void types_check(struct fsck *f);      /* types.c */
/* pass5.c: a durable record names this attachment: no member to come may have the number. */
void attachment_note(struct fsck *f, uint64_t attachment, uint64_t off);

/* log.c: the log of a lane, section 5 of FORMAT.md */
struct log_segment {
	uint64_t base, end; /* log positions, units of 8 bytes */
	uint64_t off;	    /* where position base is in the file */
};

struct log {
	uint32_t lane;
	uint64_t state, lsn, end, last;
	struct log_segment *segments;
	size_t segment_count, segment_room;
	uint64_t record_count;
	uint64_t window_off;
	size_t window_size;
	unsigned char *window;
	char error[160]; /* "": valid */
};

struct log_record {
	uint64_t pos, next_pos;
	uint64_t target, payload_off; /* of the payload in the file */
	uint32_t size, prev;
};

/* Finds the segments; marks extension chunks in chunk_used (bit per chunk). False: log->error says why. */
bool log_map(struct fsck *f, struct log *log, uint64_t *chunk_used);
/* Checks every record. False: log->error says why. */
bool log_check(struct fsck *f, struct log *log, const uint64_t *chunk_used);
bool log_record(struct fsck *f, struct log *log, uint64_t pos, struct log_record *ret);
/* n bytes of a payload that log_record found, at off in the file. */
void log_payload(struct fsck *f, struct log *log, uint64_t off, void *buf, size_t n);
struct store log_store(struct log *log, const struct log_record *r);
void log_free(struct log *log);

#endif
