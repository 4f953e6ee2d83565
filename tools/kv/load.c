/* SPDX-License-Identifier: MIT
 *
 * load.c: see load.h.
 */
#include "load.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PROGRESS_US 20000u

enum kind { PUT, CHANGE, DELETE, PUT_BACK };

/* One run of `load`, shared by its threads. */
struct run {
	struct kv_store *store;
	const struct kv_input *input;
	const struct kv_load_options *options;
	uint64_t number;
	atomic_uint_fast64_t done;  /* steps committed by this process */
	atomic_uint_fast64_t begun; /* steps begun by this process */
	atomic_uint worker_count;   /* threads that still run */
	atomic_int rc;		    /* of the first thread that failed */
};

struct worker {
	struct run *run;
	unsigned idx;
	pthread_t thread;
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

/* ---- the plan ---- */

static uint64_t slice_length(uint64_t record_count, uint64_t slice)
{
	return record_count / KV_SLICE_COUNT + (slice < record_count % KV_SLICE_COUNT);
}

static enum kind step_kind(uint64_t number)
{
	return number == 0 ? PUT : (enum kind)(CHANGE + (number - 1) % 3);
}

/* Steps that a record has had when its slice stands at the end of this round. */
static uint64_t round_end(uint64_t round_count)
{
	return round_count ? 1 + 3 * (round_count - 1) : 0;
}

/* Rounds that are begun after this many passes through the slice, a broken one counted as whole. */
static uint64_t rounds_begun(uint64_t pass_count)
{
	return pass_count ? 1 + (pass_count + 1) / 3 : 0;
}

static uint64_t slice_target(uint64_t done, uint64_t length, uint64_t round_count)
{
	uint64_t begun = length ? rounds_begun((done + length - 1) / length) : 0;

	return length * round_end(begun > round_count ? begun : round_count);
}

static uint64_t slice_done(const struct kv_slice *slice)
{
	return __atomic_load_n(&slice->done, __ATOMIC_RELAXED);
}

uint64_t kv_load_done(const struct kv_load *load)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < KV_SLICE_COUNT; i++)
		sum += slice_done(&load->slices[i]);
	return sum;
}

bool kv_load_complete(const struct kv_load *load)
{
	for (uint32_t i = 0; i < KV_SLICE_COUNT; i++) {
		uint64_t done = slice_done(&load->slices[i]);

		if (done != slice_target(done, slice_length(load->record_count, i), 1))
			return false;
	}
	return load->number > 0;
}

bool kv_load_is_of(const struct kv_load *load, const struct kv_input *input)
{
	return load->number && load->input_hash == input->hash && load->input_size == input->size &&
	       load->record_count == input->count;
}

size_t kv_load_room(const struct kv_input *input)
{
	size_t largest = 64;

	for (size_t i = 0; i < input->count; i++)
		if (largest < input->records[i].value.n)
			largest = input->records[i].value.n;
	return 2 * largest;
}

/* What CHANGE writes: the record's bytes from somewhere on, over and over, of a length up to twice its own:
 * so blocks of other sizes come and go. */
static struct kv_bytes changed_value(const struct kv_record *record, uint64_t number, char *buffer)
{
	struct kv_bytes value = record->value;
	uint64_t random = (kv_hash(record->key) + number) * 0x9e3779b97f4a7c15ull;
	size_t n, from;

	random ^= random >> 29;
	if (value.n == 0)
		value = record->key;
	n = 1 + (size_t)(random % (2 * (uint64_t)value.n));
	from = (size_t)((random >> 33) % value.n);
	for (size_t at = 0; at < n;) {
		size_t piece = value.n - from < n - at ? value.n - from : n - at;

		memcpy(buffer + at, value.p + from, piece);
		at += piece;
		from = 0;
	}
	return (struct kv_bytes){buffer, n};
}

enum kv_expect kv_load_expect(const struct kv_load *load, const struct kv_input *input, size_t i,
			      char *buffer, struct kv_bytes *ret)
{
	uint64_t slice = i % KV_SLICE_COUNT, place = i / KV_SLICE_COUNT;
	uint64_t length = slice_length(input->count, slice), done = slice_done(&load->slices[slice]);
	uint64_t steps = done / length + (place < done % length);

	*ret = input->records[i].value;
	if (steps == 0)
		return KV_UNTOUCHED;
	switch (step_kind(steps - 1)) {
	case CHANGE:
		*ret = changed_value(&input->records[i], steps - 1, buffer);
		return KV_PRESENT;
	case DELETE:
		return KV_ABSENT;
	default:
		return KV_PRESENT;
	}
}

/* ---- a step ---- */

/* L2 */
static bool record_is_ready(const struct kv_entry *entry, const struct step *step, uint64_t load)
{
	bool ours = entry && entry->stamp.load == load;

	switch (step_kind(step->number)) {
	case PUT:
		return !ours;
	case PUT_BACK:
		return !entry;
	default:
		return ours && entry->stamp.step == step->number - 1;
	}
}

/* For tests: a process that is in the middle of a transaction for as long as it lives. */
static void stall(const struct run *run)
{
	printf("stalled in transaction %llu\n", (unsigned long long)run->options->stall_at);
	fflush(stdout);
	for (;;)
		pause();
}

static int step_change_map(pheap_tx *tx, const struct step *step)
{
	const struct run *run = step->worker->run;
	const struct kv_map *map = run->store->map;
	const struct kv_record *record = step->record;
	struct kv_stamp stamp = {run->number, step->number};

	if (!record_is_ready(kv_map_get(run->store->h, map, record->key), step, run->number))
		return -ESTALE;
	switch (step_kind(step->number)) {
	case DELETE:
		return kv_map_delete(tx, map, record->key);
	case CHANGE:
		return kv_map_put(tx, map, record->key,
				  changed_value(record, step->number, step->worker->buffer), stamp);
	default:
		return kv_map_put(tx, map, record->key, record->value, stamp);
	}
}

/* The transaction. Both keys in one call, so that no two threads can hold what the other waits for. */
static int step_run(pheap_tx *tx, void *arg)
{
	struct step *step = arg;
	struct run *run = step->worker->run;
	uint64_t keys[2] = {pheap_offset(run->store->h, step->slice),
			    kv_map_lock_key(run->store->h, run->store->map, step->record->key)};
	bool stalls = atomic_fetch_add(&run->begun, 1) + 1 == run->options->stall_at;
	int rc = pheap_lock(tx, keys, 2);

	if (rc)
		return rc;
	if (step->slice->done != step->done)
		return -EAGAIN; /* another process loads the same input */
	rc = step_change_map(tx, step);
	if (rc)
		return rc;
	if (stalls && run->options->stall_at % 2)
		stall(run);
	PHEAP_SET(tx, step->slice->done, step->done + 1); /* L1 */
	if (stalls)
		stall(run);
	return pheap_error(tx);
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
	else
		kv_store_fail(run->store, rc, "load");
}

/* One pass through the slice at most. True: something was done. */
static bool slice_advance(struct worker *worker, unsigned idx)
{
	struct run *run = worker->run;
	const struct kv_slice *slice = &run->store->load->slices[idx];
	uint64_t length = slice_length(run->input->count, idx);

	for (uint64_t i = 0; i < length; i++) {
		uint64_t done = slice_done(slice);
		struct step step = {worker, slice, NULL, done, done / length};
		int rc;

		if (done >= slice_target(done, length, run->options->round_count))
			return i > 0;
		step.record = &run->input->records[done % length * KV_SLICE_COUNT + idx];
		rc = pheap_run(run->store->h, PHEAP_CONCURRENT, step_run, &step);
		if (rc == -EAGAIN)
			continue;
		if (rc)
			step_fail(&step, rc);
		if (rc || atomic_load(&run->rc))
			return false;
		atomic_fetch_add(&run->done, 1);
	}
	return length > 0;
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	struct run *run = worker->run;
	bool busy = true;

	while (busy && atomic_load(&run->rc) == 0) {
		busy = false;
		for (unsigned i = worker->idx; i < KV_SLICE_COUNT; i += run->options->thread_count)
			busy |= slice_advance(worker, i);
	}
	atomic_fetch_sub(&run->worker_count, 1);
	return NULL;
}

/* ---- a load ---- */

static int job_begin(pheap_tx *tx, void *arg)
{
	struct run *run = arg;
	const struct kv_load *old = run->store->load;
	struct kv_load *load;
	uint64_t number = old->number + 1;

	run->number = old->number;
	if (!run->options->again && kv_load_is_of(old, run->input))
		return 0;
	if (!run->options->again && old->number && !kv_load_complete(old))
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

static void progress_tell(struct run *run, uint64_t from)
{
	while (atomic_load(&run->worker_count)) {
		printf("at %llu\n", (unsigned long long)(from + atomic_load(&run->done)));
		fflush(stdout);
		usleep(PROGRESS_US);
	}
}

static int workers_run(struct run *run, struct worker *workers)
{
	unsigned n = run->options->thread_count, started = 0;
	uint64_t from = kv_load_done(run->store->load);

	for (; started < n && atomic_load(&run->rc) == 0; started++) {
		struct worker *worker = &workers[started];
		int rc;

		*worker = (struct worker){
			.run = run, .idx = started, .buffer = malloc(kv_load_room(run->input))};
		atomic_fetch_add(&run->worker_count, 1);
		rc = worker->buffer ? pthread_create(&worker->thread, NULL, worker_main, worker) : ENOMEM;
		if (rc) {
			int none = 0;

			fprintf(stderr, "pheap-kv: starting a thread: %s\n", strerror(rc));
			atomic_compare_exchange_strong(&run->rc, &none, -rc);
			atomic_fetch_sub(&run->worker_count, 1);
			free(worker->buffer);
			break;
		}
	}
	if (run->options->progress)
		progress_tell(run, from);
	for (unsigned i = 0; i < started; i++) {
		pthread_join(workers[i].thread, NULL);
		free(workers[i].buffer);
	}
	return atomic_load(&run->rc);
}

static double seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void start_tell(const struct run *run)
{
	uint64_t done = kv_load_done(run->store->load);

	kv_store_tell_recovery(run->store);
	printf("%s at %llu transactions\n", done ? "going on" : "starting", (unsigned long long)done);
	fflush(stdout);
}

int kv_load(struct kv_store *store, const struct kv_input *input, const struct kv_load_options *options)
{
	struct run run = {.store = store, .input = input, .options = options};
	struct worker *workers = calloc(options->thread_count, sizeof(*workers));
	double start = seconds_now();
	int rc = workers ? pheap_run(store->h, 0, job_begin, &run) : -ENOMEM;

	if (rc == -EBUSY)
		fprintf(stderr,
			"pheap-kv: a load of another input is not finished: finish it, or give --again\n");
	else if (rc)
		kv_store_fail(store, rc, "load");
	if (rc == 0) {
		start_tell(&run);
		rc = workers_run(&run, workers);
	}
	free(workers);
	if (rc == 0) {
		uint64_t done = atomic_load(&run.done);
		double seconds = seconds_now() - start;

		printf("loaded %zu records, %zu bytes; %llu transactions in %.2f s, %.0f in a second\n",
		       input->count, input->value_size, (unsigned long long)done, seconds,
		       seconds > 0 ? (double)done / seconds : 0.0);
	}
	return rc;
}
