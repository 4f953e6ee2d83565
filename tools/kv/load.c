/* SPDX-License-Identifier: MIT
 *
 * load.c: see load.h.
 */
#include "load.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "plan.h"

#define PROGRESS_MS 20
#define STALL_MORE 1000u      /* transactions */
#define TRY_MAX 1000u	      /* a step that is a deadlock again and again */
#define LONG_PAUSE_NS 200000u /* perhaps somebody was recovered meanwhile */

/* One run of `load`, shared by its threads. */
struct run {
	struct kv_store *store;
	const struct kv_input *input;
	const struct kv_load_options *options;
	uint64_t number;
	struct kv_report *report;   /* the watcher's, or its own */
	atomic_uint_fast64_t begun; /* steps */
	atomic_uint worker_count;   /* threads that still run, the first one included */
	int end_fd;		    /* eventfd: readable when worker_count is 0 */
	atomic_int rc;		    /* of the first thread that failed */
};

struct worker {
	struct run *run;
	unsigned idx;
	pthread_t thread;
	uint64_t random;
	uint64_t commit_ns; /* its latest commit, or when it started */
	uint64_t lsn;	    /* of that; 0: none */
	char *buffer;
};

/* One step, on its way. */
struct step {
	struct worker *worker;
	const struct kv_slice *slice;
	const struct kv_record *record;
	uint64_t done;	 /* of the slice, before this step */
	uint64_t number; /* of the step in its record's row */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

double kv_seconds_now(void)
{
	return (double)now_ns() / 1e9;
}

static void word_set(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static uint64_t word_get(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* ---- reports ---- */

static void report_recoveries(const struct run *run)
{
	struct kv_report *report = run->report;
	const struct pheap_info *at_open = &run->store->info;
	struct pheap_info info;

	if (pheap_info(run->store->h, &info, sizeof(info)) != 0)
		return;
	word_set(&report->undone_count, info.recovered_back - at_open->recovered_back);
	word_set(&report->completed_count, info.recovered_forward - at_open->recovered_forward);
	word_set(&report->recovery_ns, info.recovery_ns - at_open->recovery_ns);
}

static void report_begin(const struct run *run)
{
	struct kv_report *report = run->report;
	const struct pheap_info *at_open = &run->store->info;

	word_set(&report->thread_count, run->options->thread_count);
	word_set(&report->open_undone_count, at_open->recovered_back);
	word_set(&report->open_completed_count, at_open->recovered_forward);
	word_set(&report->open_recovery_ns, at_open->recovery_ns);
	__atomic_store_n(&report->state, KV_LOADING, __ATOMIC_RELEASE);
}

static void report_regularly(const struct run *run)
{
	word_set(&run->report->record_count, kv_map_count(run->store->map));
	report_recoveries(run);
}

/* After each commit. R1 */
static void report_commit(struct worker *worker)
{
	struct kv_report *report = worker->run->report;
	struct kv_report_thread *thread = &report->threads[worker->idx];
	uint64_t now, from, watch_ns;

	__atomic_fetch_add(&report->done, 1, __ATOMIC_RELAXED);
	watch_ns = word_get(&report->watch_ns);
	if (watch_ns == 0)
		return; /* and no look at the clock */
	now = now_ns();
	from = worker->commit_ns < watch_ns ? watch_ns : worker->commit_ns;
	if (watch_ns != thread->watch_ns) {
		word_set(&thread->pause_ns, 0);
		word_set(&thread->first_ns, now > watch_ns ? now - watch_ns : 0);
		word_set(&thread->watch_ns, watch_ns);
	}
	if (now > from && now - from > thread->pause_ns)
		word_set(&thread->pause_ns, now - from);
	if (now > from && now - from > LONG_PAUSE_NS)
		report_recoveries(worker->run);
	worker->commit_ns = now;
	__atomic_store_n(&thread->commit_ns, now, __ATOMIC_RELEASE);
}

/* ---- a step ---- */

/* L2 */
static bool record_is_ready(const struct kv_entry *entry, const struct step *step, uint64_t load)
{
	bool ours = entry && entry->stamp.load == load;

	switch (kv_plan_kind(step->number)) {
	case KV_STEP_PUT:
		return !ours;
	case KV_STEP_PUT_BACK:
		return !entry;
	default:
		return ours && entry->stamp.step == step->number - 1;
	}
}

/* For tests: a process that is in the middle of a transaction for as long as it lives. */
static void stall(struct run *run)
{
	if (!run->options->quiet && run->options->stall_at) {
		printf("stalled in transaction %llu\n", (unsigned long long)run->options->stall_at);
		fflush(stdout);
	}
	__atomic_store_n(&run->report->state, KV_STALLED, __ATOMIC_RELEASE);
	for (;;)
		pause();
}

/* 0, or the place to stall at: 1 before the last store, 2 after it. */
static unsigned stall_place(struct run *run)
{
	uint64_t at = run->options->stall_at;

	if (at && atomic_fetch_add(&run->begun, 1) + 1 == at)
		return at % 2 ? 1 : 2;
	return (unsigned)word_get(&run->report->stall);
}

static int step_change_map(pheap_tx *tx, const struct step *step)
{
	const struct run *run = step->worker->run;
	const struct kv_map *map = run->store->map;
	const struct kv_record *record = step->record;
	struct kv_stamp stamp = {run->number, step->number};

	if (!record_is_ready(kv_map_get(run->store->h, map, record->key), step, run->number))
		return -ESTALE;
	switch (kv_plan_kind(step->number)) {
	case KV_STEP_DELETE:
		return kv_map_delete(tx, map, record->key);
	case KV_STEP_CHANGE:
		return kv_map_put(tx, map, record->key,
				  kv_plan_changed(record, step->number, step->worker->buffer), stamp);
	default:
		return kv_map_put(tx, map, record->key, record->value, stamp);
	}
}

/* The transaction. Both keys in one call: the library takes them in one order for all, so nobody can hold
 * what the other waits for. */
static int step_run(pheap_tx *tx, void *arg)
{
	struct step *step = arg;
	struct run *run = step->worker->run;
	uint64_t keys[2] = {pheap_offset(run->store->h, step->slice),
			    kv_map_lock_key(run->store->h, run->store->map, step->record->key)};
	unsigned stall_at = stall_place(run);
	int rc = pheap_lock(tx, keys, 2);

	if (rc)
		return rc;
	if (run->store->load->number != run->number)
		return -ECANCELED; /* L3 */
	if (step->slice->done != step->done)
		return -EAGAIN; /* another one was there first */
	rc = step_change_map(tx, step);
	if (rc)
		return rc;
	if (stall_at == 1)
		stall(run);
	PHEAP_SET(tx, step->slice->done, step->done + 1); /* L1 */
	if (stall_at)
		stall(run);
	return pheap_error(tx);
}

/* When one thread stands still the others go on, but not to the end of the load before somebody has killed them. */
static void stall_with(struct run *run)
{
	uint64_t at = run->options->stall_at;

	while (at && atomic_load(&run->begun) > at + STALL_MORE)
		pause();
}

/* As pheap_run, but without a wait for the disk: L4. */
static int step_commit(struct step *step)
{
	struct worker *worker = step->worker;
	int rc = -EDEADLK;

	for (unsigned i = 0; i < TRY_MAX && rc == -EDEADLK; i++) {
		pheap_tx *tx;

		stall_with(worker->run);
		rc = pheap_begin(worker->run->store->h, PHEAP_CONCURRENT, &tx);
		if (rc)
			break;
		rc = step_run(tx, step);
		if (rc)
			pheap_abort(tx);
		else
			rc = pheap_commit_async(tx, &worker->lsn);
	}
	return rc;
}

static void step_fail(const struct step *step, int rc)
{
	struct run *run = step->worker->run;
	int none = 0, n = (int)step->record->key.n;

	if (!atomic_compare_exchange_strong(&run->rc, &none, rc))
		return;
	if (rc == -ESTALE)
		fprintf(stderr,
			"pheap-kv: %.*s: not as step %llu left it: work was lost, repeated, or done by others\n",
			n, step->record->key.p, (unsigned long long)step->number);
	else if (rc == -ECANCELED)
		fprintf(stderr, "pheap-kv: another process has begun another load of this heap\n");
	else
		kv_store_fail(run->store, rc, "load");
}

/* One pass through the slice at most; less if somebody else is at it. True: there was something to do. */
static bool slice_advance(struct worker *worker, unsigned idx)
{
	struct run *run = worker->run;
	const struct kv_slice *slice = &run->store->load->slices[idx];
	uint64_t length = kv_plan_length(run->input->count, idx);

	for (uint64_t i = 0; i < length; i++) {
		uint64_t done = kv_plan_slice_done(slice);
		struct step step = {worker, slice, NULL, done, done / length};
		int rc;

		if (done >= kv_plan_target(done, length, run->options->round_count))
			return i > 0;
		step.record = &run->input->records[done % length * KV_SLICE_COUNT + idx];
		rc = step_commit(&step);
		if (rc == -EAGAIN)
			return true;
		if (rc)
			step_fail(&step, rc);
		if (rc || atomic_load_explicit(&run->rc, memory_order_relaxed))
			return false;
		report_commit(worker);
	}
	return length > 0;
}

/* splitmix64 */
static unsigned slice_choose(struct worker *worker)
{
	uint64_t z = worker->random += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (unsigned)((z ^ z >> 31) % KV_SLICE_COUNT);
}

/* Wakes the first thread. */
static void run_end(const struct run *run)
{
	uint64_t one = 1;

	if (write(run->end_fd, &one, sizeof(one)) < 0)
		abort(); /* an eventfd with room */
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	struct run *run = worker->run;
	bool busy = true;

	worker->commit_ns = now_ns();
	while (busy && atomic_load(&run->rc) == 0) {
		unsigned first = slice_choose(worker);

		busy = false;
		for (unsigned i = 0; i < KV_SLICE_COUNT && !busy; i++)
			busy = slice_advance(worker, (first + i) % KV_SLICE_COUNT);
	}
	if (atomic_fetch_sub(&run->worker_count, 1) == 1)
		run_end(run);
	return NULL;
}

/* ---- a load ---- */

/* What a load that goes on, or that is over, needs of the heap: beside others. */
static int job_look(pheap_tx *tx, void *arg)
{
	struct run *run = arg;
	const struct kv_load *load = run->store->load;

	(void)tx;
	run->number = kv_plan_is_of(load, run->input) ? load->number : 0;
	return 0;
}

/* L3 */
static int job_begin(pheap_tx *tx, void *arg)
{
	struct run *run = arg;
	const struct kv_load *old = run->store->load;
	struct kv_load *load;
	uint64_t number = old->number + 1;

	run->number = old->number;
	if (!run->options->again && kv_plan_is_of(old, run->input))
		return 0;
	if (!run->options->again && old->number && !kv_plan_complete(old))
		return -EBUSY;
	load = PHEAP_MODIFY(tx, old);
	if (!load)
		return pheap_error(tx);
	memset(load, 0, sizeof(*load));
	run->number = load->number = number;
	load->input_hash = run->input->hash;
	load->input_size = run->input->size;
	load->record_count = run->input->count;
	return 0;
}

int kv_load_begin(struct kv_store *store, const struct kv_input *input, const struct kv_load_options *options,
		  uint64_t *ret_number)
{
	struct run run = {.store = store, .input = input, .options = options};
	int rc = pheap_run(store->h, PHEAP_CONCURRENT | PHEAP_READ, job_look, &run);

	if (rc == 0 && (run.number == 0 || options->again))
		rc = pheap_run(store->h, 0, job_begin, &run);
	if (rc == -EBUSY)
		fprintf(stderr,
			"pheap-kv: a load of another input is not finished: finish it, or give --again\n");
	else if (rc)
		kv_store_fail(store, rc, "load");
	*ret_number = run.number;
	return rc;
}

void kv_load_tell_start(const struct kv_store *store)
{
	uint64_t done = kv_plan_done(store->load);

	kv_store_tell_recovery(store);
	printf("%s at %llu transactions\n", done ? "going on" : "starting", (unsigned long long)done);
	fflush(stdout);
}

void kv_load_tell_end(const struct kv_input *input, uint64_t done, double seconds)
{
	printf("loaded %zu records, %zu bytes; %llu transactions in %.2f s, %.0f in a second\n", input->count,
	       input->value_size, (unsigned long long)done, seconds,
	       seconds > 0 ? (double)done / seconds : 0.0);
}

/* The first thread, while the others work: who prints, and notes what they recovered, holds up nobody. */
static void workers_attend(struct run *run, uint64_t from)
{
	struct pollfd end = {.fd = run->end_fd, .events = POLLIN};

	do {
		if (run->options->progress) {
			printf("at %llu\n", (unsigned long long)(from + word_get(&run->report->done)));
			fflush(stdout);
		}
		report_regularly(run);
		kv_store_note_recovery(run->store);
	} while (poll(&end, 1, PROGRESS_MS) <= 0);
}

static int worker_start(struct worker *worker)
{
	struct run *run = worker->run;
	int rc;

	worker->random = pheap_member(run->store->h) * KV_THREAD_MAX + worker->idx;
	worker->buffer = malloc(kv_plan_room(run->input));
	atomic_fetch_add(&run->worker_count, 1);
	rc = worker->buffer ? pthread_create(&worker->thread, NULL, worker_main, worker) : ENOMEM;
	if (rc) {
		int none = 0;

		fprintf(stderr, "pheap-kv: starting a thread: %s\n", strerror(rc));
		atomic_compare_exchange_strong(&run->rc, &none, -rc);
		atomic_fetch_sub(&run->worker_count, 1); /* not to 0: the first thread counts */
		free(worker->buffer);
	}
	return rc;
}

/* L4. LSNs grow: the highest covers all. */
static int durable_wait(const struct run *run, const struct worker *workers, unsigned count)
{
	uint64_t lsn = 0;
	int rc;

	for (unsigned i = 0; i < count; i++)
		if (lsn < workers[i].lsn)
			lsn = workers[i].lsn;
	rc = pheap_wait(run->store->h, lsn, -1);
	return rc ? kv_store_fail(run->store, rc, "load") : 0;
}

static int workers_run(struct run *run, struct worker *workers)
{
	unsigned n = run->options->thread_count, started = 0;
	uint64_t from = kv_plan_done(run->store->load);
	int rc;

	atomic_init(&run->worker_count, 1);
	for (; started < n && atomic_load(&run->rc) == 0; started++) {
		workers[started] = (struct worker){.run = run, .idx = started};
		if (worker_start(&workers[started]))
			break;
	}
	if (atomic_fetch_sub(&run->worker_count, 1) == 1)
		run_end(run);
	workers_attend(run, from);
	for (unsigned i = 0; i < started; i++) {
		pthread_join(workers[i].thread, NULL);
		free(workers[i].buffer);
	}
	rc = atomic_load(&run->rc);
	return rc ? rc : durable_wait(run, workers, started);
}

int kv_load(struct kv_store *store, const struct kv_input *input, const struct kv_load_options *options)
{
	struct run run = {.store = store, .input = input, .options = options, .report = options->report};
	struct kv_report *own = run.report ? NULL : calloc(1, sizeof(*own));
	struct worker *workers = calloc(options->thread_count, sizeof(*workers));
	double start = kv_seconds_now();
	int rc;

	run.end_fd = eventfd(0, EFD_CLOEXEC);
	rc = run.end_fd < 0 ? -errno : (own || run.report) && workers ? 0 : -ENOMEM;
	if (own)
		run.report = own;
	if (rc)
		kv_store_fail(store, rc, "load");
	else
		rc = kv_load_begin(store, input, options, &run.number);
	if (rc == 0) {
		if (!options->quiet)
			kv_load_tell_start(store);
		report_begin(&run);
		rc = workers_run(&run, workers);
		word_set(&run.report->state, KV_ENDED);
	}
	if (rc == 0 && !options->quiet)
		kv_load_tell_end(input, word_get(&run.report->done), kv_seconds_now() - start);
	if (run.end_fd >= 0)
		close(run.end_fd);
	free(workers);
	free(own);
	return rc;
}
