/* SPDX-License-Identifier: MIT
 *
 * bench.h: what the parts of pheap-bench share.
 *
 * What: a system is one way to keep data (pheap, a peer, a floor) behind a table of loops; a bench runs
 * the loops of all systems and hands results to the report.
 * Why whole loops behind the table and not single operations: an indirect call per operation would be
 * measured too, and would weigh most on the fastest system.
 *
 * Invariants
 *   B1  Every system of a bench does the same stores at the same indices: each draws from its own rng with
 *       one seed.
 *   B2  No heap is open in the process that forks.
 *   B3  Of pheap, only include/pheap.h is used, and what FORMAT.md says: by death.c of slot bytes, by
 *       power.c of the WAL and the state.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define BENCH_ARRAY_SIZE (64u << 20) /* bytes */
#define BENCH_WORD_COUNT (BENCH_ARRAY_SIZE / 8)
#define BENCH_RECORD_SIZE 64u
#define BENCH_RECORD_COUNT (BENCH_ARRAY_SIZE / BENCH_RECORD_SIZE)
#define BENCH_NODE_SIZE 64u
#define BENCH_BLOCK_SIZE 4096u
#define BENCH_BLOCK_COUNT (BENCH_ARRAY_SIZE / BENCH_BLOCK_SIZE)
#define BENCH_LIST_LENGTH 1000u /* nodes on the list before push-pop starts */
#define BENCH_SEED 0x9e3779b97f4a7c15ull
#define BENCH_SYSTEM_MAX 8
#define BENCH_REP_MAX 1001u

/* One measured loop: op_count operations on an open instance. */
typedef void bench_loop(void *self, uint64_t *rng, unsigned param, uint64_t op_count);

struct bench_system {
	const char *name;
	/* A fresh instance in folder, its array of BENCH_ARRAY_SIZE bytes and its list ready. */
	void *(*open)(const char *folder);
	void (*close)(void *self);
	void *(*array)(void *self);
	bench_loop *words, *records, *push_pop, *blocks, *defers; /* NULL: does not take part */
	/* A file of `size` bytes with block_count small blocks of 64 to 256 bytes, most of the rest in blocks
	 * of 1 MiB that nobody touches, and a transaction left open for the SIGKILL that follows. NULL: does
	 * not take part. */
	void (*life_create)(const char *path, uint64_t size, uint64_t block_count);
	/* Opens it, checks that the killed transaction is undone, leaves another one open. ns: of the opening
	 * call alone; of that, undoing took *ret_recovery_ns, if the system says so. */
	uint64_t (*life_open_ns)(const char *path, uint64_t size, uint64_t *ret_recovery_ns);
};
extern const struct bench_system bench_pheap, bench_pmemobj, bench_lmdb, bench_floor, bench_limit;
extern struct bench_system bench_boost, bench_mimalloc, bench_malloc;
extern const struct bench_system *const bench_systems[]; /* those built in; NULL ends it */

struct bench_options {
	bool json, quick;
	unsigned reps;
	const char *folder;    /* removed at the end, whatever the end is */
	int memory;	       /* of benches that have a choice: enum bench_memory; negative: their own */
	const char *system;    /* of benches that have a choice: only this; NULL: all */
	const char *param;     /* so this */
	uint64_t record_count; /* of the classic and sync-commit; 0: their own choice */
	uint64_t seed;	       /* of the kills */
};

/* What pheap should reach; 0: no figure. */
struct bench_target {
	double pmemobj_ratio_min;   /* time of libpmemobj / time of pheap */
	double lmdb_ratio_min;	    /* time of lmdb / time of pheap */
	double floor_ratio_max;	    /* time of pheap / time of floor */
	double limit_ratio_max;	    /* time of pheap / time of limit */
	double best_peer_ratio_min; /* time of the fastest peer / time of pheap */
	const char *base;	    /* a system that pheap is compared with; NULL: none */
	double base_ratio_min;	    /* time of base / time of pheap */
	double base_ratio_max;	    /* time of pheap / time of base */
	double one_thread_ns;	    /* time per operation of one thread of pheap, in the same run */
	double rate_ratio_min;	    /* that / time of pheap: of several threads, by the wall clock */
	double instructions_max;    /* per operation */
	double value_max;	    /* ns per operation, or the value itself */
	double p99_max;
	double value_min;  /* of a value that is better the larger it is */
	bool peers_beaten; /* a value that is not a time: better than that of every other system */
};

struct bench_result {
	const char *system;
	const char *level; /* of durability; NULL: PROCESS */
	double value;	   /* median: ns per operation, or what `unit` says */
	double min, max;
	double p50, p90, p99; /* of single operations, ns; 0: not known */
	double instructions;  /* per operation; negative: not known */
	unsigned reps;	      /* 0: not measured */
	unsigned threads;
	bool rate; /* operations per second are of interest */
};

/* main.c */
_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void bench_param_fail(const char *bench, const char *param); /* it has none of that name */

/* measure.c */
struct bench_span {
	uint64_t wall_ns, cpu_ns;
	long sleep_count, preempt_count;
};
void bench_span_begin(struct bench_span *span);
uint64_t bench_span_end_ns(const struct bench_span *span);
uint64_t bench_clock_ns(clockid_t clock);
void bench_pin(void);
void bench_populate(void *p, size_t n); /* a mapping's pages, writable, no byte changed */
void bench_pin_nth(unsigned n);		/* to the n-th processor, counted around */
void bench_unpin(void);			/* as it was before bench_pin */
/* Sorts the samples; fills value, min, max, reps. */
void bench_summarize(double *samples, unsigned count, struct bench_result *ret);
/* A loop on an instance: first the number of operations that fill a sample, then samples. */
struct bench_meter {
	bench_loop *loop;
	void *self;
	void *array;
	uint64_t rng;
	unsigned param;
	uint64_t op_count;
};
void bench_calibrate(struct bench_meter *m, uint64_t sample_ns);
double bench_sample_ns(struct bench_meter *m, double *ret_instructions); /* negative: no counter */
bool bench_counter_open(void);

/* step.c: user instructions of one operation where there is no counter; negative: not possible here. open
 * is called in a child, before the loop. */
struct bench_steps {
	void *(*open)(const void *arg);
	const void *arg;
	bench_loop *loop;
	unsigned param;
};
double bench_step_count(const struct bench_steps *s, bool quick);

/* report.c: one bench and param at a time. unit NULL: nanoseconds */
void bench_report(const struct bench_options *opt, const char *bench, const char *param, const char *unit,
		  const struct bench_target *target, const struct bench_result *results, unsigned count);
/* Says that a system does not take part. */
void bench_skip(const struct bench_options *opt, const char *bench, const char *param, const char *system,
		const char *why);

/* scratch.c */
enum bench_memory { BENCH_DISK, BENCH_TMPFS, BENCH_HUGE, BENCH_MEMORY_COUNT };
extern const char *const bench_memory_names[BENCH_MEMORY_COUNT];
const char *bench_scratch_make(void); /* the one of BENCH_DISK */
/* A folder with files of that kind; NULL: there is none here, or not with so many free bytes. */
const char *bench_scratch_folder(enum bench_memory memory, uint64_t size);
void bench_scratch_leave(void); /* in a child: the folder is not its business */
void bench_scratch_remove(void);
void bench_scratch_clear(const char *folder); /* removes the files in it and in folders in it */
void *bench_file_map(const char *folder, const char *name, size_t n);

/* alloc_list.c: names those of push-pop's references that are not here. */
void bench_push_pop_skip(const struct bench_options *opt);

/* The benches. */
void bench_modify_words(const struct bench_options *opt);
void bench_record_64(const struct bench_options *opt);
void bench_records_10x64(const struct bench_options *opt);
void bench_block_4k(const struct bench_options *opt);
void bench_defer_words(const struct bench_options *opt);
void bench_many_ranges(const struct bench_options *opt);
void bench_push_pop(const struct bench_options *opt);
void bench_open_after_kill(const struct bench_options *opt);
void bench_alloc_waste(const struct bench_options *opt);
void bench_memory(const struct bench_options *opt);
void bench_space(const struct bench_options *opt);
void bench_fsck(const struct bench_options *opt);
void bench_classic(const struct bench_options *opt);
void bench_classic_kill(const struct bench_options *opt);
void bench_death_latency(const struct bench_options *opt);
void bench_lock_unlock(const struct bench_options *opt);
void bench_hash_insert(const struct bench_options *opt);
void bench_hash_lookup(const struct bench_options *opt);
void bench_hash_remove(const struct bench_options *opt);
void bench_attach(const struct bench_options *opt);
void bench_sync_commit(const struct bench_options *opt);
void bench_epoch(const struct bench_options *opt);
void bench_power_recovery(const struct bench_options *opt);
void bench_churn_mixed(const struct bench_options *opt);
void bench_producer_consumer(const struct bench_options *opt);
void bench_larson(const struct bench_options *opt);
void bench_cache_scratch(const struct bench_options *opt);
void bench_huge(const struct bench_options *opt);

/* self.c: a fork that leaves the scratch folder alone and dies with its parent; 0 in the child. */
pid_t bench_fork(void);
int bench_wait(pid_t pid, const char *what);	 /* the exit status */
void bench_wait_ok(pid_t pid, const char *what); /* dies unless it ends with 0 */
void bench_kill(pid_t pid);			 /* and waits for it */

/* self.c: a part of a bench in a process of its own. The wait status; -1: n bytes did not come back. */
int bench_self_run(const char *const args[4], void *ret, size_t n);
bool bench_self_tell(int fd, const void *bytes, size_t n); /* in that process: the result */
int bench_self_main(char **argv);
int bench_life_self(char **argv, int fd);
int bench_memory_self(const char *folder, int fd);
int bench_sync_self(char **argv, int fd);

/* Of a file with so many small blocks: bytes for the large ones. */
static inline uint64_t bench_life_large_size(uint64_t size, uint64_t block_count)
{
	uint64_t other = size / 8 + (4u << 20) + block_count * 180;

	return size > other ? size - other : 0;
}

static inline uint64_t bench_random(uint64_t *rng)
{
	uint64_t x = *rng;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *rng = x;
}

#endif
