/* SPDX-License-Identifier: MIT
 *
 * examine.c: see examine.h.
 */
#include "examine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "crew.h"
#include "stage.h"
#include "super.h"

#define LIMIT_MS 60000u
#define NAME "cut"
#define HEAP "cut/heap"

/* What the children leave. */
static struct shared {
	struct deeds_expect expect;
	struct deeds_board life; /* of what is done after recovery */
	uint64_t seq[DEEDS_WORKERS];
	uint64_t absent, recovered, clean;
} * shared;

int examine_init(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED ? -1 : 0;
}

void examine_reset(void)
{
	memset(shared, 0, sizeof(*shared));
}

/* ---- in a child ---- */

/* What the file says of itself. False: nothing that can be read. */
static bool look(struct phd_state *state, struct phd_checkpoint *sector)
{
	int fd = open(stage_path(HEAP), O_RDONLY | O_CLOEXEC);
	struct phd_super super;
	struct stat st;
	uint32_t copy;
	bool good = fd >= 0 && fstat(fd, &st) == 0 && ph_super_read(fd, (uint64_t)st.st_size, &super) == 0 &&
		    ph_state_read(fd, state, &copy) == 0 &&
		    ph_checkpoint_read(fd, &super, sector, &copy) == 0;

	if (fd >= 0)
		close(fd);
	return good;
}

static int opened(const struct examine *x, pheap **ret)
{
	int rc = pheap_open(stage_path(HEAP), 0, NULL, ret);

	if (rc)
		return deeds_wrong(x->board, "pheap_open after the cut: %s; %s", pheap_strerror(rc),
				   pheap_error_detail(NULL));
	return 0;
}

/* X2 */
static int recovery_check(const struct examine *x, const struct phd_state *state,
			  const struct phd_checkpoint *sector)
{
	struct phd_state later_state;
	struct phd_checkpoint later;

	if (!look(&later_state, &later))
		return deeds_wrong(x->board, "an open heap whose sectors cannot be read");
	shared->clean = state->clean != 0;
	shared->recovered = later.log_gen != sector->log_gen;
	if (!shared->clean && !shared->recovered)
		return deeds_wrong(
			x->board, "a heap that was in use on another disk was opened without power recovery");
	return 0;
}

/* Goes on with the heap, and keeps an account of it. */
static int live_on(const struct examine *x, pheap *h, uint64_t random)
{
	struct deeds_board *life = &shared->life;

	for (unsigned i = 0; i < 3; i++)
		if (deeds_work(h, x->plan, life, (unsigned)deeds_below(&random, DEEDS_WORKERS),
			       deeds_below(&random, 8), &random))
			return deeds_wrong(x->board, "after the cut: %s", life->why);
	return 0;
}

static void life_begin(void)
{
	struct deeds_board *life = &shared->life;

	memset(life, 0, sizeof(*life));
	memcpy(life->now.acked, shared->seq, sizeof(shared->seq));
	memcpy(life->now.started, shared->seq, sizeof(shared->seq));
	memcpy(life->done, shared->seq, sizeof(shared->seq));
	life->now.made = 1;
}

/* first: nobody has opened it since the cut. die: it is left as by SIGKILL. */
static int visit(const struct examine *x, const struct deeds_sample *s, uint64_t random, bool first, bool die)
{
	struct phd_checkpoint sector;
	struct deeds_sample life;
	struct phd_state state;
	bool known;
	pheap *h;
	int rc;

	shared->absent = access(stage_path(HEAP), F_OK) != 0;
	if (shared->absent)
		return s->made ? deeds_wrong(x->board, "the heap had been made, and there is no such file")
			       : 0;
	known = look(&state, &sector);
	if (opened(x, &h))
		return -1;
	if (first && known && recovery_check(x, &state, &sector))
		return -1;
	if (deeds_check(h, x->plan, s, &shared->expect, x->board, shared->seq))
		return -1;
	life_begin();
	if (pheap_find(h, "deeds") && deeds_below(&random, 3) == 0) {
		if (live_on(x, h, random))
			return -1;
		deeds_sample_take(&life, &shared->life);
		memcpy(life.acked, shared->life.done, sizeof(life.acked));
		memcpy(life.started, shared->life.done, sizeof(life.started));
		if (deeds_check(h, x->plan, &life, &shared->expect, x->board, shared->seq))
			return -1;
	}
	if (die)
		kill(getpid(), SIGKILL);
	rc = pheap_close(h);
	if (rc)
		return deeds_wrong(x->board, "pheap_close after the cut: %s; %s", pheap_strerror(rc),
				   pheap_error_detail(NULL));
	deeds_closed(&shared->life);
	return 0;
}

/* ---- in the father ---- */

static void boot_draw(struct examine *x)
{
	uint8_t id[16];
	uint64_t words[2] = {deeds_random(&x->random), deeds_random(&x->random)};

	memcpy(id, words, sizeof(id));
	stage_boot(id);
}

static int visited(struct examine *x, const struct deeds_sample *s, bool first, bool die)
{
	uint64_t random = deeds_random(&x->random);
	pid_t pid = stage_fork();
	int rc;

	if (pid == 0)
		_exit(visit(x, s, random, first, die) ? 1 : 0);
	rc = stage_wait(pid, LIMIT_MS);
	if (rc == 2000)
		return deeds_wrong(x->board, "a process hangs in the heap after the cut");
	if (rc != 0 && !(die && rc == 1000 + SIGKILL))
		return deeds_wrong(x->board, "a process in the heap after the cut ended with %d", rc);
	return 0;
}

/* Somebody opens it and is killed on the way. */
static int cut_short(struct examine *x)
{
	struct timespec t = {.tv_nsec = (long)deeds_below(&x->random, 3000000)};
	pid_t pid = stage_fork();
	pheap *h;
	int rc;

	if (pid == 0)
		_exit(opened(x, &h) ? 1 : 0);
	nanosleep(&t, NULL);
	kill(pid, SIGKILL);
	rc = stage_wait(pid, LIMIT_MS);
	x->killed += rc == 1000 + SIGKILL;
	if (rc != 0 && rc != 1000 + SIGKILL)
		return deeds_wrong(x->board, "a process that opens the heap after the cut ended with %d", rc);
	return 0;
}

static int fsck(struct examine *x, const char *mode, int fair)
{
	char text[400], *argv[] = {(char *)(uintptr_t)x->fsck, (char *)(uintptr_t)mode,
				   (char *)(uintptr_t) "-f", (char *)(uintptr_t)stage_path(HEAP), NULL};
	int rc = stage_run(argv, text, sizeof(text));

	x->fscked++;
	if (rc != 0 && rc != fair)
		return deeds_wrong(x->board, "pheap-fsck %s -f: exit %d: %s", mode, rc, text);
	return 0;
}

static int heap_examine(struct examine *x, const struct deeds_sample *s)
{
	bool here = access(stage_path(HEAP), F_OK) == 0, first = true, die = deeds_below(&x->random, 4) == 0;
	struct deeds_sample life;
	int rc = 0;

	if (here && deeds_below(&x->random, 6) == 0) {
		rc = cut_short(x);
		first = false;
		if (deeds_below(&x->random, 2))
			boot_draw(x);
	}
	if (rc == 0 && here && x->fsck && deeds_below(&x->random, 6) == 0) {
		rc = fsck(x, "-n", 4);
		if (rc == 0)
			rc = fsck(x, "-y", 1);
		first = false;
	}
	if (rc == 0)
		rc = visited(x, s, first, die);
	if (rc || shared->absent) {
		x->absent += shared->absent;
		return rc;
	}
	if (first) {
		x->recovered += shared->recovered;
		x->clean += shared->clean;
	}
	if (!die && deeds_below(&x->random, 3))
		return 0;
	if (deeds_below(&x->random, 2))
		boot_draw(x);
	else
		deeds_closed(&shared->life); /* a kill takes nothing, durable or not */
	deeds_sample_take(&life, &shared->life);
	rc = visited(x, &life, false, false);
	if (rc == 0 && x->fsck && deeds_below(&x->random, 6) == 0)
		rc = fsck(x, "-n", 0);
	return rc;
}

int examine(struct examine *x, int fd, const struct deeds_sample *s)
{
	uint8_t crew[16];
	int rc, end;

	x->images++;
	crew_boot(x->plan, crew);
	/* another device is another moment's disk, whatever the boot */
	if (x->same_boot_too && deeds_below(&x->random, 2))
		stage_boot(crew);
	else
		boot_draw(x);
	rc = stage_mount(x->fs, fd, NAME);
	if (rc) {
		/* what the file system loses by itself is no matter of the heap: told, and counted */
		x->unmountable++;
		printf("%s does not mount: %s\n", x->fs, strerror(-rc));
		return 0;
	}
	rc = heap_examine(x, s);
	end = stage_umount(NAME);
	if (end && rc == 0)
		rc = deeds_wrong(x->board, "unmounting: %s", strerror(-end));
	return rc;
}
