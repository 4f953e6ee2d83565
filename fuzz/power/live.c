/* SPDX-License-Identifier: MIT
 *
 * live.c: power cuts of real file systems under a real kernel, with several processes and threads at work.
 *
 * What: two ways to have the disk of a past moment. `clone`: the image file of a mounted file system is reflinked while it is in use:
 * all that the disk was given, and nothing of what the kernel still had in memory. `log`: a disk that logs writes and flushes
 * (blocklog.h), and from the log any number of images without what was never flushed. Each is mounted as after another
 * boot, recovered, and held against what had been promised.
 * Why beside the explorer, which is thousands of times as fast: that one trusts its own idea of what msync, pwritev2 and fallocate
 * do. Here the file system, the page cache and the block layer do it.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "blocklog.h"
#include "crew.h"
#include "examine.h"
#include "mutant.h"
#include "stage.h"

#define SKIPPED 77
#define DISK_SIZE (64ull << 20)
#define OUTER_SIZE (2ull << 30)
/* Images of one log: in groups, because it is read in order. */
#define LOG_GROUPS 15u
#define LOG_GROUP 8u
#define CLONE_IMAGES 60u
#define LOG_ENTRIES 60000u

int ph_mutant;

/* One way of cutting and one file system. */
struct course {
	const char *how, *fs;
	struct examine x;
	bool off;
	uint64_t runs, ms, writes, flushes, kills, closes;
};

static struct course courses[] = {{.how = "clone", .fs = "ext4"},
				  {.how = "clone", .fs = "xfs"},
				  {.how = "log", .fs = "ext4"},
				  {.how = "log", .fs = "xfs"}};
#define COURSES (sizeof(courses) / sizeof(*courses))

static uint64_t seed, images_max, seconds, only_run = UINT64_MAX;
static uint64_t course_end; /* ms; then the next one has its turn */
static const char *only_fs, *only_how, *fsck_path, *image_path;
static uint32_t level;
static bool quiet;

static struct deeds_plan plan;
static struct deeds_board *board;
static struct crew crew;
static char why_not[600];

static const char usage[] =
	"usage: power-live [--images N] [--seconds N] [--seed S] [--run I] [--fs ext4|xfs] [--how clone|log]\n"
	"                  [--level sync|epoch] [--fsck PROGRAM] [--mutant N] [--image FILE] [--quiet]\n";

static void nap_us(uint64_t us)
{
	struct timespec t = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000 * 1000)};

	nanosleep(&t, NULL);
}

/* A machine that cannot do this; said in why_not. */
static int skip(const char *what, int rc)
{
	snprintf(why_not, sizeof(why_not), "%s: %s", what, strerror(rc < 0 ? -rc : errno));
	return SKIPPED;
}

static bool course_over(const struct course *c)
{
	return stage_now_ms() >= course_end || c->x.images >= images_max;
}

static void run_begin(struct course *c, uint64_t run)
{
	uint64_t random = deeds_mix(seed, run, 5);

	memset(board, 0, sizeof(*board));
	examine_reset();
	deeds_plan_draw(&plan, deeds_random(&random), level);
	crew = (struct crew){.plan = &plan, .board = board, .random = deeds_random(&random)};
	snprintf(crew.heap_path, sizeof(crew.heap_path), "%s", stage_path("home/heap"));
	snprintf(crew.noise_path, sizeof(crew.noise_path), "%s", stage_path("home/noise"));
	c->x.fs = c->fs;
	c->x.fsck = fsck_path;
	c->x.plan = &plan;
	c->x.board = board;
	c->x.random = deeds_random(&random);
	c->runs++;
}

static void run_end(struct course *c)
{
	c->kills += crew.kills;
	c->closes += crew.closes;
}

/* The crew's work is over; rc: what has come of it so far. */
static int home_leave(int rc)
{
	int left = stage_umount("home");

	if (left && rc == 0)
		rc = deeds_wrong(board, "unmounting the crew's file system: %s", strerror(-left));
	return rc;
}

/* For --image: the disk as it was found, if it turns out to be bad. */
static void image_keep(int fd)
{
	int to = image_path ? open(image_path, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600) : -1;

	if (to >= 0) {
		(void)stage_disk_copy(fd, to);
		close(to);
	}
}

/* ---- clones ---- */

/* Where images can be cloned; which file system it is does not matter. */
static int outer_make(void)
{
	static const char *const kinds[] = {"xfs", "btrfs"};
	int rc = SKIPPED;

	for (size_t i = 0; i < 2 && rc; i++) {
		int disk = stage_disk(OUTER_SIZE);

		if (disk < 0)
			return skip("memory for a disk", -errno);
		if (stage_mkfs(kinds[i], disk, OUTER_SIZE, 0, why_not, sizeof(why_not)) == 0) {
			rc = stage_mount(kinds[i], disk, "outer");
			rc = rc ? skip("mounting a file system with reflinks", rc) : 0;
		}
		close(disk);
	}
	return rc;
}

static int cut_clone(struct course *c, int disk)
{
	struct deeds_sample s, later;
	int cut = open(stage_path("outer/cut.img"), O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600), rc;

	if (cut < 0)
		return skip("a clone", -errno);
	deeds_sample_take(&s, board);
	if (ioctl(cut, FICLONE, disk)) {
		rc = skip("FICLONE", -errno);
		close(cut);
		return rc;
	}
	deeds_sample_take(&later, board);
	memcpy(s.started, later.started, sizeof(s.started));
	crew_freeze(&crew, true);
	image_keep(cut);
	rc = examine(&c->x, cut, &s);
	close(cut);
	crew_freeze(&crew, false);
	return rc;
}

static int run_clone(struct course *c, uint64_t run)
{
	static bool outer;
	int disk, rc = outer ? 0 : outer_make();

	if (rc)
		return rc;
	outer = true;
	run_begin(c, run);
	c->x.same_boot_too = true;
	disk = open(stage_path("outer/disk.img"), O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
	if (disk < 0 || ftruncate(disk, (off_t)DISK_SIZE))
		return skip("a disk", -errno);
	if (stage_mkfs(c->fs, disk, DISK_SIZE, (unsigned)run, why_not, sizeof(why_not)))
		return SKIPPED;
	rc = stage_mount(c->fs, disk, "home");
	if (rc)
		return skip("mounting", rc);
	crew_start(&crew);
	for (uint64_t i = 0; rc == 0 && i < CLONE_IMAGES && !course_over(c); i++) {
		nap_us(deeds_below(&crew.random, deeds_below(&crew.random, 8) ? 6000 : 60000));
		rc = crew_tend(&crew);
		if (rc == 0)
			rc = cut_clone(c, disk);
	}
	if (crew_end(&crew) && rc == 0)
		rc = -1;
	rc = home_leave(rc);
	close(disk);
	run_end(c);
	return rc;
}

/* ---- logs ---- */

/* The crew at work on the disk that logs. */
static int log_record(struct course *c, struct blocklog *l, int disk)
{
	uint64_t end = stage_now_ms() + 300 + deeds_below(&crew.random, 1200);
	int rc = stage_mount(c->fs, disk, "home");

	if (rc)
		return skip("mounting the disk that logs", rc);
	crew_start(&crew);
	while (rc == 0 && stage_now_ms() < end && blocklog_count(l) < LOG_ENTRIES && !blocklog_full(l)) {
		nap_us(1000 + deeds_below(&crew.random, 60000));
		rc = crew_tend(&crew);
	}
	if (crew_end(&crew) && rc == 0)
		rc = -1;
	rc = home_leave(rc);
	if (rc == 0 && blocklog_flushes(l) == 0)
		rc = deeds_wrong(board, "no flush has come to the disk");
	return rc;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int log_cut_once(struct course *c, struct blocklog *l, uint64_t moment)
{
	int fd = stage_disk(DISK_SIZE), rc = 0;
	struct deeds_sample s;

	if (fd < 0 || blocklog_image(l, moment, &c->x.random, fd, &s))
		rc = skip("memory for an image", -errno);
	if (rc == 0) {
		image_keep(fd);
		rc = examine(&c->x, fd, &s);
	}
	if (rc < 0)
		deeds_note(board, "moment %" PRIu64 " of %" PRIu64, moment, blocklog_count(l));
	if (fd >= 0)
		close(fd);
	return rc;
}

static int log_cut(struct course *c, struct blocklog *l)
{
	uint64_t moments[LOG_GROUP];
	int rc = 0;

	for (unsigned n = 0; n < LOG_GROUPS; n++) {
		for (unsigned i = 0; i < LOG_GROUP; i++)
			moments[i] = blocklog_moment(l, &c->x.random);
		qsort(moments, LOG_GROUP, sizeof(*moments), compare);
		for (unsigned i = 0; i < LOG_GROUP && rc == 0 && !course_over(c); i++)
			rc = log_cut_once(c, l, moments[i]);
	}
	return rc;
}

static int run_log(struct course *c, uint64_t run)
{
	int disk = stage_disk(DISK_SIZE), file = -1, rc = 0;
	struct blocklog *l;
	pid_t server;

	if (disk < 0)
		return skip("memory for a disk", -errno);
	run_begin(c, run);
	if (stage_mkfs(c->fs, disk, DISK_SIZE, (unsigned)run, why_not, sizeof(why_not)))
		return SKIPPED;
	l = blocklog_make(disk, DISK_SIZE, board);
	close(disk);
	if (!l)
		return skip("memory for a log", -ENOMEM);
	server = blocklog_serve(l, "disk", &file, why_not, sizeof(why_not));
	if (server < 0)
		return SKIPPED;
	rc = log_record(c, l, file);
	close(file);
	(void)stage_umount("disk");
	(void)stage_wait(server, 10000);
	run_end(c);
	c->flushes += blocklog_flushes(l);
	c->writes += blocklog_count(l) - blocklog_flushes(l);
	if (rc == 0)
		rc = log_cut(c, l);
	blocklog_free(l);
	return rc;
}

/* ---- all of it ---- */

static void report(const struct course *c)
{
	const struct examine *x = &c->x;
	uint64_t rate = c->ms ? x->images * 1000 / c->ms : 0;

	if (!c->runs)
		return;
	printf("%-5s %-4s %6" PRIu64 " images, %" PRIu64 "/s, of %" PRIu64 " heaps: %" PRIu64
	       " recovered, %" PRIu64 " closed, %" PRIu64 " not made yet",
	       c->how, c->fs, x->images, rate, c->runs, x->recovered, x->clean, x->absent);
	printf(", %" PRIu64 " killed in recovery, %" PRIu64 " runs of pheap-fsck", x->killed, x->fscked);
	if (x->unmountable)
		printf(", %" PRIu64 " DID NOT MOUNT", x->unmountable);
	printf("; crews: %" PRIu64 " kills, %" PRIu64 " closes", c->kills, c->closes);
	if (c->flushes)
		printf("; %" PRIu64 " writes, %" PRIu64 " flushes", c->writes, c->flushes);
	printf("\n");
}

/* A run of one course. 0, SKIPPED, or 1: a violation. */
static int run_one(struct course *c, uint64_t run)
{
	uint64_t start = stage_now_ms();
	int rc = c->how[0] == 'c' ? run_clone(c, run) : run_log(c, run);

	c->ms += stage_now_ms() - start;
	/* one or two may be the file system's own; more are images that no disk has */
	if (rc == 0 && c->x.unmountable > 2 + c->x.images / 50)
		rc = deeds_wrong(board, "%" PRIu64 " images do not mount", c->x.unmountable);
	if (rc == SKIPPED) {
		printf("%s %s: skipped: %s\n", c->how, c->fs, why_not);
		return SKIPPED;
	}
	if (rc == 0 && !board->why_set)
		return 0;
	printf("violation: %s\n", board->why);
	printf("replay: --seed %" PRIu64 " --run %" PRIu64 " --how %s --fs %s%s\n", seed, run, c->how, c->fs,
	       level == PHEAP_SYNC    ? " --level sync"
	       : level == PHEAP_EPOCH ? " --level epoch"
				      : "");
	return 1;
}

/* Each course has its share of the time. */
static int all(void)
{
	uint64_t share_ms = 0, images = 0;
	unsigned wanted = 0;

	for (size_t i = 0; i < COURSES; i++) {
		courses[i].off = (only_fs && strcmp(only_fs, courses[i].fs) != 0) ||
				 (only_how && strcmp(only_how, courses[i].how) != 0);
		wanted += !courses[i].off;
	}
	if (seconds && wanted)
		share_ms = seconds * 1000 / wanted;
	for (size_t i = 0; i < COURSES; i++) {
		struct course *c = &courses[i];
		int rc = c->off ? SKIPPED : 0;

		course_end = seconds ? stage_now_ms() + share_ms : UINT64_MAX;
		for (uint64_t run = only_run == UINT64_MAX ? 0 : only_run; rc == 0 && !course_over(c);
		     run++) {
			rc = run_one(c, run);
			if (rc == 1)
				return 1;
			if (only_run != UINT64_MAX)
				break;
		}
		images += c->x.images;
	}
	return images ? 0 : SKIPPED;
}

static int options_read(int argc, char **argv)
{
	static const struct option options[] = {
		{"images", 1, NULL, 'p'}, {"seconds", 1, NULL, 't'}, {"seed", 1, NULL, 's'},
		{"run", 1, NULL, 'i'},	  {"fs", 1, NULL, 'F'},	     {"how", 1, NULL, 'h'},
		{"level", 1, NULL, 'l'},  {"fsck", 1, NULL, 'f'},    {"mutant", 1, NULL, 'm'},
		{"image", 1, NULL, 'o'},  {"quiet", 0, NULL, 'q'},   {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint64_t number = optarg ? strtoull(optarg, NULL, 10) : 0;

		switch (c) {
		case 'p':
			images_max = number;
			break;
		case 't':
			seconds = number;
			break;
		case 's':
			seed = number;
			break;
		case 'i':
			only_run = number;
			break;
		case 'F':
			only_fs = optarg;
			break;
		case 'h':
			only_how = optarg;
			break;
		case 'l':
			level = optarg[0] == 's' ? PHEAP_SYNC : PHEAP_EPOCH;
			break;
		case 'f':
			fsck_path = optarg;
			break;
		case 'm':
			ph_mutant = (int)number;
			break;
		case 'o':
			image_path = optarg;
			break;
		case 'q':
			quiet = true;
			break;
		default:
			return -1;
		}
	}
	if (!images_max)
		images_max = seconds || only_run != UINT64_MAX ? UINT64_MAX : 100;
	return optind < argc ? -1 : 0;
}

int main(int argc, char **argv)
{
	int rc;

	if (getrandom(&seed, 4, 0) != 4 || options_read(argc, argv)) {
		fprintf(stderr, "%s", usage);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("power-live: seed %" PRIu64 "\n", seed);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED || examine_init())
		return perror("memory"), 2;
	if (stage_enter(why_not, sizeof(why_not))) {
		printf("skipped: %s\n", why_not);
		return SKIPPED;
	}
	rc = all();
	if (!quiet || rc)
		for (size_t i = 0; i < COURSES; i++)
			report(&courses[i]);
	return rc;
}
