/* SPDX-License-Identifier: MIT
 *
 * crew.c: see crew.h.
 */
#define _GNU_SOURCE
#include "crew.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "plan.h"

#define LOOK_NS 20000000
#define VAIN_MAX 20u /* W2: deaths without a transaction between them */

struct crew {
	struct kv_store *store;
	const struct kv_input *input;
	const struct kv_load_options *options;
	unsigned process_count;
	pid_t pids[KV_PROCESS_MAX]; /* 0: ended */
	struct kv_report
		*reports; /* shared with the processes, one each; a place's new process goes on with it */
	uint64_t vain_count, vain_done;
};

static uint64_t crew_done(const struct crew *crew)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < crew->process_count; i++)
		sum += __atomic_load_n(&crew->reports[i].done, __ATOMIC_RELAXED);
	return sum;
}

/* ---- one of the processes ---- */

static int mate_run(const struct crew *crew, unsigned place)
{
	struct kv_load_options options = *crew->options;
	struct kv_store store;
	int rc, close_rc;

	options.report = &crew->reports[place];
	options.quiet = true;
	options.again = options.progress = false;
	(void)pheap_close(crew->store->h); /* the parent's: dead here */
	rc = kv_store_open(&store, crew->store->path, KV_WRITE, &(struct kv_new){0});
	if (rc)
		return rc;
	rc = kv_load(&store, crew->input, &options);
	close_rc = kv_store_close(&store);
	return rc ? rc : close_rc;
}

/* How a process says its code. */
static int code_to_exit(int rc)
{
	return rc == 0 ? 0 : rc == -ESTALE ? 1 : 2;
}

static int code_of_exit(int status)
{
	static const int codes[] = {0, -ESTALE, -EIO};

	return codes[status];
}

static int mate_start(struct crew *crew, unsigned place)
{
	pid_t parent = getpid(), pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* W1 */
		if (getppid() != parent)
			_exit(2);
		_exit(code_to_exit(mate_run(crew, place)));
	}
	if (pid < 0) {
		int rc = -errno;

		fprintf(stderr, "pheap-kv: starting a process: %s\n", strerror(-rc));
		return rc;
	}
	crew->pids[place] = pid;
	return 0;
}

/* ---- the crew ---- */

static void crew_stop(struct crew *crew)
{
	for (unsigned i = 0; i < crew->process_count; i++)
		if (crew->pids[i])
			kill(crew->pids[i], SIGKILL);
	for (unsigned i = 0; i < crew->process_count; i++)
		while (crew->pids[i] && waitpid(crew->pids[i], NULL, 0) < 0 && errno == EINTR)
			continue;
}

static int mate_replace(struct crew *crew, unsigned place, pid_t dead)
{
	uint64_t done = crew_done(crew);

	if (done != crew->vain_done)
		crew->vain_count = 0;
	crew->vain_done = done;
	if (++crew->vain_count > VAIN_MAX) { /* W2 */
		fprintf(stderr, "pheap-kv: processes are killed as soon as they start\n");
		return -ECHILD;
	}
	printf("process %d was killed, the others go on; starting another\n", (int)dead);
	return mate_start(crew, place);
}

/* Looks after the process of one place. */
static int mate_attend(struct crew *crew, unsigned place)
{
	pid_t pid = crew->pids[place];
	int status;

	if (pid == 0 || waitpid(pid, &status, WNOHANG) != pid)
		return 0;
	crew->pids[place] = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) <= 2)
		return code_of_exit(WEXITSTATUS(status));
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return mate_replace(crew, place, pid);
	fprintf(stderr, "pheap-kv: process %d ended by itself: %s %d\n", (int)pid,
		WIFSIGNALED(status) ? "signal" : "code",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return -ECHILD;
}

static bool crew_busy(const struct crew *crew)
{
	for (unsigned i = 0; i < crew->process_count; i++)
		if (crew->pids[i])
			return true;
	return false;
}

static int crew_attend(struct crew *crew, uint64_t from)
{
	const struct timespec pause = {0, LOOK_NS};
	int rc = 0;

	while (rc == 0 && crew_busy(crew)) {
		nanosleep(&pause, NULL);
		for (unsigned i = 0; i < crew->process_count && rc == 0; i++)
			rc = mate_attend(crew, i);
		if (crew->options->progress)
			printf("at %llu\n", (unsigned long long)(from + crew_done(crew)));
		fflush(stdout);
	}
	return rc;
}

static int crew_run(struct crew *crew)
{
	uint64_t from = kv_plan_done(crew->store->load);
	double start = kv_seconds_now();
	int rc = 0;

	kv_load_tell_start(crew->store);
	for (unsigned i = 0; i < crew->process_count && rc == 0; i++)
		rc = mate_start(crew, i);
	if (rc == 0)
		rc = crew_attend(crew, from);
	crew_stop(crew);
	if (rc == 0)
		kv_load_tell_end(crew->input, crew_done(crew), kv_seconds_now() - start);
	return rc;
}

/* Each thread takes a lane, and each process two more. */
static int lanes_check(const struct crew *crew)
{
	unsigned want = crew->process_count * (crew->options->thread_count + 2) + 2;
	const struct pheap_info *info = &crew->store->info;

	if (want <= info->lane_max && crew->process_count < info->member_max)
		return 0;
	fprintf(stderr,
		"pheap-kv: %u processes with %u threads are too many for this heap: it has %u lanes, they need %u\n",
		crew->process_count, crew->options->thread_count, info->lane_max, want);
	return -EUSERS;
}

int kv_crew_load(struct kv_store *store, const struct kv_input *input, const struct kv_load_options *options,
		 unsigned process_count)
{
	struct crew crew = {
		.store = store, .input = input, .options = options, .process_count = process_count};
	size_t size = process_count * sizeof(*crew.reports);
	uint64_t number;
	int rc = lanes_check(&crew);

	if (rc == 0)
		rc = kv_load_begin(store, input, options, &number);
	if (rc)
		return rc;
	crew.reports = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (crew.reports == MAP_FAILED)
		return kv_store_fail(store, -ENOMEM, "load");
	rc = crew_run(&crew);
	munmap(crew.reports, size);
	return rc;
}
