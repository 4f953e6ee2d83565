/* SPDX-License-Identifier: MIT
 *
 * crew.c: see crew.h.
 */
#include "crew.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "os.h"
#include "stage.h"

#define THREADS (DEEDS_WORKERS / CREW_PROCESSES)
#define PATIENCE_MS 120000u

struct thread {
	pheap *h;
	const struct crew *crew;
	unsigned worker;
	uint64_t random, count;
	pthread_t id;
};

static uint8_t boot[16];

static int boot_id(uint8_t ret[16])
{
	memcpy(ret, boot, sizeof(boot));
	return 0;
}

void crew_boot(const struct deeds_plan *p, uint8_t ret[16])
{
	uint64_t words[2] = {deeds_mix(p->seed, 3, 1), deeds_mix(p->seed, 3, 2)};

	memcpy(ret, words, sizeof(words));
}

/* ---- who works ---- */

static void *thread_run(void *arg)
{
	struct thread *t = arg;

	(void)deeds_work(t->h, t->crew->plan, t->crew->board, t->worker, t->count, &t->random);
	return NULL;
}

static int work(const struct crew *c, unsigned slot, uint64_t random)
{
	struct thread threads[THREADS];
	struct ph_os os = ph_os_linux;
	pheap *h;
	int rc;

	crew_boot(c->plan, boot);
	os.boot_id = boot_id;
	ph_os = &os;
	rc = pheap_open(c->heap_path, PHEAP_CREATE | (deeds_below(&random, 2) ? PHEAP_KEEPER : 0),
			&c->plan->options, &h);
	if (rc)
		return deeds_wrong(c->board, "pheap_open: %s; %s", pheap_strerror(rc),
				   pheap_error_detail(NULL));
	__atomic_store_n(&c->board->now.made, 1, __ATOMIC_SEQ_CST);
	rc = deeds_root_make(h);
	if (rc)
		return deeds_wrong(c->board, "the root: %s; %s", pheap_strerror(rc), pheap_error_detail(h));
	for (unsigned i = 0; i < THREADS; i++) {
		threads[i] = (struct thread){.h = h,
					     .crew = c,
					     .worker = slot * THREADS + i,
					     .random = deeds_mix(random, i, 4),
					     .count = 50 + deeds_below(&random, 3000)};
		if (pthread_create(&threads[i].id, NULL, thread_run, &threads[i]))
			return deeds_wrong(c->board, "no thread");
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i].id, NULL);
	rc = pheap_close(h);
	if (rc)
		return deeds_wrong(c->board, "pheap_close: %s; %s", pheap_strerror(rc),
				   pheap_error_detail(NULL));
	return 0;
}

/* ---- who stirs ---- */

static void noise_make(const char *path, uint64_t *random)
{
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC | (deeds_below(random, 4) ? 0 : O_TRUNC), 0600);

	if (fd < 0)
		return;
	(void)!pwrite(fd, "noise", 5, (off_t)deeds_below(random, 1u << 16));
	if (deeds_below(random, 2))
		(void)fsync(fd);
	close(fd);
}

static void stir(const struct crew *c, uint64_t random)
{
	int fd = -1;

	for (;;) {
		struct timespec t = {.tv_nsec = (long)deeds_below(&random, 3000000)};
		struct stat st;

		nanosleep(&t, NULL);
		if (fd < 0)
			fd = open(c->heap_path, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size >= 8192) {
			uint64_t pages = (uint64_t)st.st_size / 4096, at = deeds_below(&random, pages);
			uint64_t n = deeds_below(&random, 2) ? pages - at : 1 + deeds_below(&random, 16);

			(void)sync_file_range(fd, (off_t)(at * 4096), (off_t)(n * 4096),
					      SYNC_FILE_RANGE_WRITE);
		}
		if (deeds_below(&random, 10) == 0)
			noise_make(c->noise_path, &random);
	}
}

/* ---- the crew ---- */

static void slot_start(struct crew *c, unsigned slot)
{
	uint64_t random = deeds_random(&c->random);
	pid_t pid = stage_fork();

	if (pid == 0)
		_exit(work(c, slot, random) ? 1 : 0);
	c->pids[slot] = pid > 0 ? pid : 0;
}

void crew_start(struct crew *c)
{
	uint64_t random = deeds_random(&c->random);
	pid_t pid;

	for (unsigned i = 0; i < CREW_PROCESSES; i++)
		slot_start(c, i);
	pid = stage_fork();
	if (pid == 0)
		stir(c, random);
	c->stirrer = pid > 0 ? pid : 0;
}

static int slot_kill(struct crew *c, unsigned slot)
{
	int rc;

	if (!c->pids[slot])
		return 0;
	kill(c->pids[slot], SIGKILL);
	rc = stage_wait(c->pids[slot], PATIENCE_MS);
	c->pids[slot] = 0;
	c->kills++;
	if (rc != 0 && rc != 1000 + SIGKILL)
		return deeds_wrong(c->board, "a process of the crew ended with %d", rc);
	return 0;
}

/* All that live close the heap: then the last one has made everything durable. */
static int all_close(struct crew *c)
{
	unsigned closers = 0;
	int rc = 0;

	__atomic_store_n(&c->board->stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < CREW_PROCESSES; i++) {
		int code = c->pids[i] ? stage_wait(c->pids[i], PATIENCE_MS) : 0;

		closers += c->pids[i] != 0;
		c->pids[i] = 0;
		if (code == 2000)
			rc = deeds_wrong(c->board, "a process of the crew does not get on");
		else if (code)
			rc = deeds_wrong(c->board, "a process of the crew ended with %d", code);
	}
	if (rc == 0 && !c->board->why_set) {
		if (closers)
			deeds_closed(c->board);
		__atomic_store_n(&c->board->stop, 0, __ATOMIC_RELEASE);
		c->closes += closers != 0;
	}
	return rc;
}

static int exits_collect(struct crew *c)
{
	int status;

	for (unsigned i = 0; i < CREW_PROCESSES; i++)
		if (c->pids[i] && waitpid(c->pids[i], &status, WNOHANG) == c->pids[i]) {
			c->pids[i] = 0;
			if (!WIFEXITED(status) || WEXITSTATUS(status))
				return deeds_wrong(c->board, "a process of the crew ended with status %x",
						   status);
		}
	return 0;
}

int crew_tend(struct crew *c)
{
	int rc = exits_collect(c);

	if (rc == 0 && deeds_below(&c->random, 12) == 0)
		rc = slot_kill(c, (unsigned)deeds_below(&c->random, CREW_PROCESSES));
	if (rc == 0 && deeds_below(&c->random, 40) == 0)
		for (unsigned i = 0; i < CREW_PROCESSES && rc == 0; i++)
			rc = slot_kill(c, i);
	if (rc == 0 && deeds_below(&c->random, 40) == 0)
		rc = all_close(c);
	for (unsigned i = 0; i < CREW_PROCESSES && rc == 0; i++)
		if (!c->pids[i])
			slot_start(c, i);
	return rc || c->board->why_set ? -1 : 0;
}

void crew_freeze(const struct crew *c, bool frozen)
{
	for (unsigned i = 0; i < CREW_PROCESSES; i++)
		if (c->pids[i])
			kill(c->pids[i], frozen ? SIGSTOP : SIGCONT);
	if (c->stirrer)
		kill(c->stirrer, frozen ? SIGSTOP : SIGCONT);
}

int crew_end(struct crew *c)
{
	int rc = 0;

	if (!c->board->why_set && deeds_below(&c->random, 2))
		rc = all_close(c);
	for (unsigned i = 0; i < CREW_PROCESSES; i++)
		if (slot_kill(c, i))
			rc = -1;
	if (c->stirrer) {
		kill(c->stirrer, SIGKILL);
		(void)stage_wait(c->stirrer, PATIENCE_MS);
	}
	c->stirrer = 0;
	return rc || c->board->why_set ? -1 : 0;
}
