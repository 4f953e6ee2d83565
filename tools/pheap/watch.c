/* SPDX-License-Identifier: MIT
 *
 * watch.c: `pheap watch`: sleeps until a member of one of the heaps dies, has it recovered, says so.
 *
 *   unknown --its row is there--> known --its row is left, its byte is free--> dead --child recovers--> told
 *                                 known --its row is gone--> left, or told if others counted a recovery
 *
 * Why pidfds and a look four times a second: a pidfd tells an end at once, but only of processes of our pid
 * namespace; the byte in the file tells it of all, but has to be asked for.
 *
 * Invariants
 *   H1  Watching takes no lock and writes nothing; only the child of recover.h attaches, and only when a
 *       member is dead.
 *   H2  One child per heap at a time; one that failed is tried again later and later, up to a minute.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "heap_file.h"
#include "members.h"
#include "process.h"
#include "recover.h"

#define LOOK_MIN_NS NS_PER_MS /* after a process has ended; then twice as long each time */
#define LOOK_MAX_NS (250 * NS_PER_MS)
#define RETRY_MIN_NS NS_PER_S
#define RETRY_MAX_NS (60 * NS_PER_S)
#define END_WAIT_MS 2000

/* A member that was alive, or dead and is being recovered. */
struct known {
	struct member_view v;
	int pidfd; /* -1: the look has to find out */
	bool dead; /* a child has been told of it, or will be */
};

struct heap {
	const char *path;
	struct heap_file file;
	bool here; /* the file is open */
	struct known *known;
	uint32_t known_count;
	bool counted;
	uint64_t open_gen, recovered_count; /* as the coordination page said at the last look */
	uint64_t owed_count;		    /* recoveries that were seen before they were counted */
	uint64_t look_ns, look_every_ns;    /* the next look; after that */
	pid_t child;			    /* 0: none */
	uint32_t child_deaths;		    /* that it was told of */
	uint64_t retry_ns, retry_after_ns;
	bool foreign_told;
};

struct watch {
	struct heap *heaps;
	unsigned heap_count;
	uint64_t count, told_count; /* count 0: no end */
	int signals;
	struct pollfd *fds;
	size_t fd_room;
};

/* ---- what is known ---- */

static void known_drop(struct heap *h, uint32_t i)
{
	if (h->known[i].pidfd >= 0)
		close(h->known[i].pidfd);
	h->known[i] = h->known[--h->known_count];
}

static void known_clear(struct heap *h)
{
	while (h->known_count)
		known_drop(h, h->known_count - 1);
}

static struct known *known_find(struct heap *h, const struct member_view *v)
{
	for (uint32_t i = 0; i < h->known_count; i++)
		if (h->known[i].v.slot == v->slot && h->known[i].v.row.attachment == v->row.attachment)
			return &h->known[i];
	return NULL;
}

static void known_add(struct heap *h, const struct member_view *v)
{
	struct known *k;

	if (h->known_count == h->file.super.member_count)
		return; /* cannot be: as many slots, each with one row */
	k = &h->known[h->known_count++];
	*k = (struct known){.v = *v,
			    .pidfd = v->alive ? process_watch((pid_t)v->row.pid, v->row.start_ticks) : -1};
}

static void heap_shut(struct heap *h)
{
	if (!h->here)
		return;
	known_clear(h);
	free(h->known);
	h->known = NULL;
	heap_file_close(&h->file);
	h->here = false;
}

/* 0, or -errno and a sentence. */
static int heap_enter(struct heap *h, char *error, size_t size)
{
	int rc = heap_file_try(&h->file, h->path, false, error, size);

	if (rc)
		return rc;
	h->known = calloc(h->file.super.member_count, sizeof *h->known);
	if (!h->known)
		fail("out of memory");
	h->here = true;
	h->foreign_told = false;
	h->counted = false;
	h->owed_count = 0;
	return 0;
}

/* ---- a look ---- */

/* The file may go with its last user, and come back as another. False: it is not there now. */
static bool heap_follow(struct heap *h)
{
	struct stat named, open_one;
	char error[1024];
	int rc;

	if (h->here && stat(h->path, &named) == 0 && fstat(h->file.fd, &open_one) == 0 &&
	    named.st_dev == open_one.st_dev && named.st_ino == open_one.st_ino) {
		heap_file_refresh(&h->file);
		return true;
	}
	if (h->here && !heap_file_ephemeral(&h->file))
		fprintf(stderr, "pheap: %s: was removed; waiting for it to come back\n", h->path);
	heap_shut(h);
	rc = heap_enter(h, error, sizeof error);
	if (rc && rc != -ENOENT)
		fail("%s", error);
	return rc == 0;
}

static void foreign_tell(struct heap *h)
{
	bool foreign = !heap_file_ephemeral(&h->file) && !heap_file_current(&h->file) &&
		       h->file.state_copy >= 0 && !h->file.state.clean;

	if (foreign && !h->foreign_told)
		fprintf(stderr,
			"pheap: %s: %s; programs are refused until 'pheap-fsck -y %s' has accepted it\n",
			h->path, heap_file_state_text(&h->file), h->path);
	h->foreign_told = foreign;
}

/* How many recoveries were counted since the last look, by whomever. A first opener begins anew; so does
 * whatever makes no sense. */
static uint64_t recovered_since(struct heap *h)
{
	struct phd_coord coord;
	uint64_t before = h->recovered_count;
	bool anew;

	heap_file_read(&h->file, h->file.super.coord_off, &coord, sizeof coord);
	anew = coord.open_gen != h->open_gen;
	h->open_gen = coord.open_gen;
	h->recovered_count = coord.recovered_count;
	if (!h->counted || (!anew && coord.recovered_count < before)) {
		h->counted = true;
		return 0; /* nothing to compare with */
	}
	if (anew) {
		h->owed_count = 0;
		before = 0;
	}
	return coord.recovered_count - before;
}

static void gone_print(struct watch *w, const struct heap *h, const struct member_view *v, const char *what)
{
	recover_line_begin(stdout, h->path, v, NULL);
	printf("%s recovered by another process\n", what);
	w->told_count++;
}

/*
 * Rows that are gone, with what the counter of recoveries says. A row that was dead is told of by a child.
 * One that was alive at the last look left, or died and was recovered since. What the counter says beyond
 * that came and died between two looks.
 */
static void gone_tell(struct watch *w, struct heap *h, const struct members *m)
{
	uint64_t recovered = recovered_since(h), expected = h->owed_count, gone = 0;

	for (uint32_t i = 0; i < h->known_count; i++) {
		const struct known *k = &h->known[i];

		if (members_find(m, k->v.slot, k->v.row.attachment))
			continue;
		expected += k->dead;
		gone += !k->dead;
	}
	/* The counter is raised after the row is cleared. */
	h->owed_count = expected > recovered ? expected - recovered : 0;
	recovered = recovered > expected ? recovered - expected : 0;
	for (uint32_t i = h->known_count; i-- > 0;) {
		const struct known *k = &h->known[i];

		if (members_find(m, k->v.slot, k->v.row.attachment))
			continue;
		if (!k->dead && recovered)
			gone_print(w, h, &k->v,
				   gone <= recovered ? ", died:"
						     : ", died, or left while another one died and was");
		known_drop(h, i);
	}
	if (recovered > gone) {
		recover_line_begin(stdout, h->path, NULL, NULL);
		printf("came and died between two looks: %llu, recovered by another process\n",
		       (ull)(recovered - gone));
		w->told_count += recovered - gone;
	}
	fflush(stdout);
}

static void child_start(struct heap *h, const struct members *m)
{
	h->child_deaths = m->count - m->alive_count;
	h->child = recover_start(&h->path, 1, m, STDOUT_FILENO, NULL);
	if (h->child < 0) {
		fprintf(stderr, "pheap: %s: cannot be recovered: fork: %s\n", h->path, strerror(errno));
		h->child = 0;
		h->retry_ns = clock_ns() + RETRY_MIN_NS;
	}
}

static void heap_look(struct watch *w, struct heap *h)
{
	struct members m;

	h->look_every_ns = h->look_every_ns < LOOK_MAX_NS / 2 ? 2 * h->look_every_ns : LOOK_MAX_NS;
	h->look_ns = clock_ns() + h->look_every_ns;
	if (!heap_follow(h))
		return;
	foreign_tell(h);
	members_read(&h->file, &m);
	gone_tell(w, h, &m);
	for (uint32_t i = 0; i < m.count; i++) {
		if (!known_find(h, &m.rows[i]))
			known_add(h, &m.rows[i]);
	}
	if (m.count > m.alive_count && !h->child && clock_ns() >= h->retry_ns) {
		child_start(h, &m);
		for (uint32_t i = 0; i < m.count && h->child; i++)
			if (!m.rows[i].alive && known_find(h, &m.rows[i]))
				known_find(h, &m.rows[i])->dead = true;
	}
	members_free(&m);
}

/* ---- events ---- */

static void child_ended(struct watch *w, struct heap *h, int status)
{
	h->child = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == RECOVER_DONE) {
		w->told_count += h->child_deaths;
		h->retry_after_ns = 0;
		h->retry_ns = 0;
	} else {
		if (WIFSIGNALED(status))
			fprintf(stderr,
				"pheap: %s: the process that was to recover it was killed by signal %d\n",
				h->path, WTERMSIG(status));
		h->retry_after_ns = h->retry_after_ns ? 2 * h->retry_after_ns : RETRY_MIN_NS;
		if (h->retry_after_ns > RETRY_MAX_NS)
			h->retry_after_ns = RETRY_MAX_NS;
		h->retry_ns = clock_ns() + h->retry_after_ns;
		for (uint32_t i = 0; i < h->known_count; i++)
			h->known[i].dead = false; /* not told of */
	}
	h->look_ns = 0;
}

static void children_reap(struct watch *w)
{
	pid_t pid;
	int status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (unsigned i = 0; i < w->heap_count; i++)
			if (w->heaps[i].child == pid)
				child_ended(w, &w->heaps[i], status);
}

/* True: it is to end. */
static bool signals_handle(struct watch *w)
{
	struct signalfd_siginfo info;
	bool end = false;

	while (read(w->signals, &info, sizeof info) == sizeof info)
		end |= info.ssi_signo != SIGCHLD;
	children_reap(w);
	return end;
}

static size_t fds_fill(struct watch *w)
{
	size_t count = 1, need = 1;

	for (unsigned i = 0; i < w->heap_count; i++)
		need += w->heaps[i].known_count;
	if (need > w->fd_room) {
		free(w->fds);
		w->fd_room = 2 * need;
		w->fds = calloc(w->fd_room, sizeof *w->fds);
		if (!w->fds)
			fail("out of memory");
	}
	w->fds[0] = (struct pollfd){.fd = w->signals, .events = POLLIN};
	for (unsigned i = 0; i < w->heap_count; i++)
		for (uint32_t k = 0; k < w->heaps[i].known_count; k++)
			w->fds[count++] = (struct pollfd){.fd = w->heaps[i].known[k].pidfd, .events = POLLIN};
	return count;
}

/* A process has ended: from now on its byte tells, which the kernel frees about now. */
static void ends_handle(struct watch *w)
{
	size_t at = 1;

	for (unsigned i = 0; i < w->heap_count; i++) {
		struct heap *h = &w->heaps[i];

		for (uint32_t k = 0; k < h->known_count; k++, at++) {
			if (w->fds[at].fd < 0 || !w->fds[at].revents)
				continue;
			close(h->known[k].pidfd);
			h->known[k].pidfd = -1;
			h->look_ns = 0;
			h->look_every_ns = LOOK_MIN_NS / 2;
		}
	}
}

static uint64_t next_look_ns(const struct watch *w)
{
	uint64_t next_ns = NS_NEVER;

	for (unsigned i = 0; i < w->heap_count; i++)
		if (w->heaps[i].look_ns < next_ns)
			next_ns = w->heaps[i].look_ns;
	return next_ns;
}

static bool counted(const struct watch *w)
{
	return w->count && w->told_count >= w->count;
}

static void watch_on(struct watch *w)
{
	for (;;) {
		size_t count;

		for (unsigned i = 0; i < w->heap_count && !counted(w); i++)
			if (w->heaps[i].look_ns <= clock_ns())
				heap_look(w, &w->heaps[i]);
		if (counted(w))
			return;
		count = fds_fill(w);
		if (poll(w->fds, count, clock_left_ms(next_look_ns(w))) < 0 && errno != EINTR)
			fail("poll: %s", strerror(errno));
		ends_handle(w);
		if (w->fds[0].revents && signals_handle(w))
			return;
	}
}

/* A child that is at it may finish. One that stands still is killed, which is as safe as killing anybody. */
static void children_end(struct watch *w)
{
	const struct timespec nap = {0, 10 * (long)NS_PER_MS};

	for (unsigned i = 0; i < w->heap_count; i++) {
		struct heap *h = &w->heaps[i];

		for (int ms = 0; h->child && ms < END_WAIT_MS; ms += 10) {
			if (waitpid(h->child, NULL, WNOHANG))
				h->child = 0;
			else
				nanosleep(&nap, NULL);
		}
		if (!h->child)
			continue;
		kill(h->child, SIGKILL);
		waitpid(h->child, NULL, 0);
	}
}

/* ---- start ---- */

static const char watch_usage[] = "Usage: pheap watch [--count N | --once] FILE...\n"
				  "  --count N  end after N deaths\n"
				  "  --once     the same as --count 1\n"
				  "TERM, INT or HUP ends it.\n";

static void signals_take(struct watch *w)
{
	struct rlimit files;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	signal(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_BLOCK, &set, NULL);
	w->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (w->signals < 0)
		fail("signalfd: %s", strerror(errno));
	/* one descriptor a member */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static void options_read(struct watch *w, int argc, char **argv)
{
	static const struct option options[] = {{"count", required_argument, NULL, 'n'},
						{"once", no_argument, NULL, '1'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1)
		switch (c) {
		case 'n':
			if (!size_parse(optarg, &w->count) || !w->count)
				usage_fail("watch: --count %s: give a number from 1 on", optarg);
			break;
		case '1':
			w->count = 1;
			break;
		case 'h':
			fputs(watch_usage, stdout);
			exit(0);
		default:
			option_fail("watch", c, argv);
		}
	if (optind == argc)
		usage_fail("watch: give one file at least");
}

int command_watch(int argc, char **argv)
{
	struct watch w = {0};
	char error[1024];

	options_read(&w, argc, argv);
	w.heap_count = (unsigned)(argc - optind);
	w.heaps = calloc(w.heap_count, sizeof *w.heaps);
	if (!w.heaps)
		fail("out of memory");
	for (unsigned i = 0; i < w.heap_count; i++) {
		w.heaps[i].path = argv[(unsigned)optind + i];
		w.heaps[i].look_every_ns = LOOK_MAX_NS;
		if (heap_enter(&w.heaps[i], error, sizeof error))
			fail("%s", error);
	}
	signals_take(&w);
	watch_on(&w);
	children_end(&w);
	for (unsigned i = 0; i < w.heap_count; i++)
		heap_shut(&w.heaps[i]);
	free(w.heaps);
	free(w.fds);
	return 0;
}
