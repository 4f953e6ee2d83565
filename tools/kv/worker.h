/* SPDX-License-Identifier: MIT
 *
 * worker.h: the places of the demo at which processes load: at each of them one, and when it is killed, another.
 *
 * Invariants
 *   E1  What a process reported before its death is added to its place's sums once, when it is buried.
 */
#ifndef KV_WORKER_H
#define KV_WORKER_H

#include "report.h"
#include "stage.h"

#define WORKER_MAX 16u

enum worker_state { WORKER_NONE, WORKER_ATTACHING, WORKER_LOADING, WORKER_STALLED, WORKER_KILLED };

/* Transactions of the dead that were put right: by processes that were there when they died, and by those
 * that came after. */
struct recoveries {
	uint64_t beside_count, beside_ns;
	uint64_t attaching_count, attaching_ns;
	uint64_t undone_count, completed_count;
};

struct worker {
	unsigned number; /* from 1 on */
	pid_t pid;	 /* 0: nobody */
	bool killed;	 /* but not buried */
	uint64_t kill_count;
	char last[48]; /* what it recovered last, for the board */
	uint64_t dead_done;
	struct recoveries dead; /* by processes that are buried */
	struct kv_report *report;
	char report_path[PATH_MAX + 32], words_path[PATH_MAX + 32];
};

void worker_make(struct worker *worker, unsigned number);
void worker_start(struct worker *worker, const char *threads);
enum worker_state worker_state(const struct worker *worker);

/* Fails if a process has ended that nobody killed. */
void worker_check(struct worker *worker);

/* SIGKILL, now; and, once it is gone, what it leaves. */
void worker_kill(struct worker *worker);
void worker_bury(struct worker *worker);

/* Since the beginning, all its processes together. */
uint64_t worker_done(const struct worker *worker);
struct recoveries worker_recoveries(const struct worker *worker);

/* From now_ns on its pauses count. */
void worker_watch(struct worker *worker, uint64_t now_ns);

/* All its threads have committed something since then. */
bool worker_moved(const struct worker *worker);

/* From then to the first commit of any of its threads, of one that has moved. */
uint64_t worker_first_ns(const struct worker *worker);

/* The longest stretch since then in which one of its threads committed nothing. */
uint64_t worker_pause_ns(const struct worker *worker);

#endif
