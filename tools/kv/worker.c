/* SPDX-License-Identifier: MIT
 *
 * worker.c: see worker.h.
 */
#define _GNU_SOURCE
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t word_get(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

void worker_make(struct worker *worker, unsigned number)
{
	void *p = MAP_FAILED;
	int fd;

	memset(worker, 0, sizeof(*worker));
	worker->number = number;
	snprintf(worker->report_path, sizeof(worker->report_path), "%s/report-%u", stage.dir, number);
	snprintf(worker->words_path, sizeof(worker->words_path), "%s/words-%u", stage.dir, number);
	fd = open(worker->report_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0 && ftruncate(fd, sizeof(*worker->report)) == 0)
		p = mmap(NULL, sizeof(*worker->report), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		stage_fail(NULL, "%s: %s", worker->report_path, strerror(errno));
	close(fd);
	worker->report = p;
}

void worker_start(struct worker *worker, const char *threads)
{
	/* It is about SIGKILL: waiting for the disk would only leave fewer transactions to kill. */
	const char *const words[] = {stage.kv,	 stage.heap,	      "load",  stage.input, "--durability",
				     "process",	 "--threads",	      threads, "--rounds",  "1000000000",
				     "--report", worker->report_path, NULL};

	memset(worker->report, 0, sizeof(*worker->report));
	worker->pid = stage_child_start(words, worker->words_path);
}

enum worker_state worker_state(const struct worker *worker)
{
	if (worker->killed)
		return WORKER_KILLED;
	if (worker->pid == 0)
		return WORKER_NONE;
	switch (word_get(&worker->report->state)) {
	case KV_STARTING:
		return WORKER_ATTACHING;
	case KV_STALLED:
		return WORKER_STALLED;
	default:
		return WORKER_LOADING;
	}
}

static void end_judge(const struct worker *worker, int status)
{
	if (worker->killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return;
	stage_fail(worker->words_path, "worker %u ended by itself, with %s %d", worker->number,
		   WIFSIGNALED(status) ? "signal" : "code",
		   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

void worker_check(struct worker *worker)
{
	int status;

	if (worker->pid == 0 || worker->killed)
		return;
	status = stage_child_ask(worker->pid);
	if (status != -1)
		end_judge(worker, status);
}

void worker_kill(struct worker *worker)
{
	worker->killed = true;
	worker->kill_count++;
	kill(worker->pid, SIGKILL);
}

void worker_bury(struct worker *worker)
{
	end_judge(worker, stage_child_end(worker->pid));
	worker->dead_done = worker_done(worker); /* E1 */
	worker->dead = worker_recoveries(worker);
	memset(worker->report, 0, sizeof(*worker->report));
	worker->pid = 0;
	worker->killed = false;
}

uint64_t worker_done(const struct worker *worker)
{
	return worker->dead_done + word_get(&worker->report->done);
}

struct recoveries worker_recoveries(const struct worker *worker)
{
	const struct kv_report *report = worker->report;
	struct recoveries sum = worker->dead;
	uint64_t undone = word_get(&report->undone_count), completed = word_get(&report->completed_count);
	uint64_t open_undone = word_get(&report->open_undone_count);
	uint64_t open_completed = word_get(&report->open_completed_count);

	sum.beside_count += undone + completed;
	sum.beside_ns += word_get(&report->recovery_ns);
	sum.attaching_count += open_undone + open_completed;
	sum.attaching_ns += word_get(&report->open_recovery_ns);
	sum.undone_count += undone + open_undone;
	sum.completed_count += completed + open_completed;
	return sum;
}

void worker_watch(struct worker *worker, uint64_t now_ns)
{
	__atomic_store_n(&worker->report->watch_ns, now_ns, __ATOMIC_RELEASE);
}

bool worker_moved(const struct worker *worker)
{
	const struct kv_report *report = worker->report;

	for (uint64_t i = 0; i < word_get(&report->thread_count); i++)
		if (word_get(&report->threads[i].commit_ns) <= report->watch_ns)
			return false;
	return true;
}

uint64_t worker_first_ns(const struct worker *worker)
{
	const struct kv_report *report = worker->report;
	uint64_t first_ns = UINT64_MAX;

	for (uint64_t i = 0; i < word_get(&report->thread_count); i++) {
		uint64_t ns = word_get(&report->threads[i].first_ns);

		if (first_ns > ns)
			first_ns = ns;
	}
	return first_ns;
}

uint64_t worker_pause_ns(const struct worker *worker)
{
	const struct kv_report *report = worker->report;
	uint64_t now_ns = stage_now_ns(), longest = 0;

	for (uint64_t i = 0; i < word_get(&report->thread_count); i++) {
		const struct kv_report_thread *thread = &report->threads[i];
		uint64_t from = word_get(&thread->commit_ns), pause = 0;

		if (word_get(&thread->watch_ns) == report->watch_ns)
			pause = word_get(&thread->pause_ns);
		if (from < report->watch_ns)
			from = report->watch_ns;
		if (now_ns > from && now_ns - from > pause)
			pause = now_ns - from; /* the one that lasts */
		if (longest < pause)
			longest = pause;
	}
	return longest;
}
