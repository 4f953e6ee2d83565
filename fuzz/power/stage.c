/* SPDX-License-Identifier: MIT
 *
 * stage.c: see stage.h.
 */
#include "stage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define BUSY_MS 20000u

static const char *top; /* where the tmpfs is */

const char *stage_path(const char *name)
{
	static char paths[4][256];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", top, name);
	return path;
}

uint64_t stage_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void nap(void)
{
	struct timespec t = {.tv_nsec = 1000000};

	nanosleep(&t, NULL);
}

/* ---- processes ---- */

pid_t stage_fork(void)
{
	pid_t father = getpid(), pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != father)
			_exit(1);
	}
	return pid;
}

int stage_wait(pid_t pid, uint64_t limit_ms)
{
	struct pollfd end = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
	bool late = end.fd >= 0 && poll(&end, 1, (int)limit_ms) == 0;
	int status;

	if (late)
		kill(pid, SIGKILL);
	if (end.fd >= 0)
		close(end.fd);
	if (waitpid(pid, &status, 0) != pid)
		return 1;
	if (late)
		return 2000;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int stage_run(char *const argv[], char *text, size_t n)
{
	int out = memfd_create("output", MFD_CLOEXEC), rc;
	pid_t pid = stage_fork();
	ssize_t got;

	if (pid == 0) {
		dup2(out, 1);
		dup2(out, 2);
		setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
		execvp(argv[0], argv);
		_exit(127);
	}
	rc = pid < 0 ? -1 : stage_wait(pid, 120000);
	got = pread(out, text, n - 1, 0);
	text[got > 0 ? got : 0] = 0;
	close(out);
	return rc == 127 ? -1 : rc;
}

/* ---- the place ---- */

static bool folder_empty(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	unsigned count = 0;

	if (!dir)
		return false;
	while ((entry = readdir(dir)) != NULL)
		count++;
	closedir(dir);
	return count == 2;
}

static const char *place(void)
{
	/* hides nothing, and needs no folder that somebody would have to remove */
	static const char *const folders[] = {"/media", "/mnt",	      "/srv",		"/opt",
					      "/home",	"/var/local", "/usr/local/src", "/usr/src"};

	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++)
		if (folder_empty(folders[i]))
			return folders[i];
	return NULL;
}

static int loop_attach(int fd, char *ret, size_t n);

static int loops_try(char *why, size_t n)
{
	char name[64];
	int disk = stage_disk(1u << 20), loop = disk < 0 ? -errno : loop_attach(disk, name, sizeof(name));

	if (disk >= 0)
		close(disk);
	if (loop < 0)
		return snprintf(why, n, "no loop device: %s", strerror(-loop)), -1;
	close(loop);
	return 0;
}

int stage_enter(char *why, size_t n)
{
	uint8_t id[16] = {0};
	int fd;

	if (geteuid() != 0)
		return snprintf(why, n, "mounting takes root"), -1;
	if (loops_try(why, n))
		return -1;
	top = place();
	if (!top)
		return snprintf(why, n, "no empty folder of the system to mount on"), -1;
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("pheap", top, "tmpfs", 0, "mode=0700"))
		return snprintf(why, n, "no mounts of our own: %s", strerror(errno)), -1;
	fd = open(stage_path("boot_id"), O_CREAT | O_WRONLY | O_CLOEXEC, 0444);
	if (fd >= 0)
		close(fd);
	stage_boot(id);
	if (mount(stage_path("boot_id"), BOOT_ID, NULL, MS_BIND, NULL))
		return snprintf(why, n, "%s: %s", BOOT_ID, strerror(errno)), -1;
	return 0;
}

void stage_boot(const uint8_t id[16])
{
	char text[64];
	int at = 0, fd = open(stage_path("boot_id"), O_WRONLY | O_CLOEXEC);

	for (unsigned i = 0; i < 16; i++)
		at += snprintf(text + at, sizeof(text) - (size_t)at, "%s%02x",
			       i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", id[i]);
	text[at++] = '\n';
	if (fd < 0 || pwrite(fd, text, (size_t)at, 0) != at) {
		perror("boot_id");
		exit(3);
	}
	close(fd);
}

/* ---- disks ---- */

int stage_disk(uint64_t size)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);

	if (fd >= 0 && ftruncate(fd, (off_t)size)) {
		close(fd);
		return -1;
	}
	return fd;
}

int stage_disk_copy(int from, int to)
{
	static char buf[1u << 18];
	off_t end = lseek(from, 0, SEEK_END), at = 0;

	if (ftruncate(to, 0) || ftruncate(to, end))
		return -1;
	while ((at = lseek(from, at, SEEK_DATA)) >= 0) {
		off_t hole = lseek(from, at, SEEK_HOLE);

		while (at < hole) {
			size_t want = (size_t)(hole - at) < sizeof(buf) ? (size_t)(hole - at) : sizeof(buf);

			if (pread(from, buf, want, at) != (ssize_t)want ||
			    pwrite(to, buf, want, at) != (ssize_t)want)
				return -1;
			at += (off_t)want;
		}
	}
	return 0;
}

/* The loop device's descriptor, or -errno: as long as nobody else has it open, closing it frees the device. */
static int loop_attach(int fd, char *ret, size_t n)
{
	uint64_t end = stage_now_ms() + BUSY_MS;
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), rc = -errno;

	if (control < 0)
		return rc;
	do {
		struct loop_config config = {.fd = (unsigned)fd, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
		int number = ioctl(control, LOOP_CTL_GET_FREE), loop;

		rc = -errno;
		if (number < 0)
			break;
		snprintf(ret, n, "/dev/loop%d", number);
		loop = open(ret, O_RDWR | O_CLOEXEC);
		if (loop < 0) {
			rc = -errno;
			break;
		}
		if (ioctl(loop, LOOP_CONFIGURE, &config) == 0) {
			close(control);
			return loop;
		}
		rc = -errno;
		close(loop);
		nap(); /* others take loop devices, too */
	} while (rc == -EBUSY && stage_now_ms() < end);
	close(control);
	return rc;
}

int stage_mkfs(const char *fs, int fd, uint64_t size, unsigned variant, char *why, size_t n)
{
	char loop_name[64], program[32], text[512], *argv[16];
	int at = 0, loop = loop_attach(fd, loop_name, sizeof(loop_name)), rc;
	const char *const *add;
	static const char *const ext4[] = {
		"-q", "-F",	"-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
		"-J", "size=4", "-b", NULL};
	/* small ones are meant for tests only, and have to be asked for that way */
	static const char *const xfs[] = {"-q", "-f",	     "-K", "--unsupported", "-l", "size=6m",
					  "-d", "agcount=2", NULL};
	static const char *const large[] = {"-q", "-f", "-K", NULL};

	if (loop < 0)
		return snprintf(why, n, "no loop device: %s", strerror(-loop)), -1;
	snprintf(program, sizeof(program), "mkfs.%s", fs);
	argv[at++] = program;
	add = fs[0] == 'e' ? ext4 : size < 300u << 20 ? xfs : large;
	while (*add)
		argv[at++] = (char *)(uintptr_t)*add++;
	if (fs[0] == 'e')
		argv[at++] = (char *)(uintptr_t)(variant % 2 ? "1024" : "4096");
	argv[at++] = loop_name;
	argv[at] = NULL;
	rc = stage_run(argv, text, sizeof(text));
	close(loop);
	if (rc)
		snprintf(why, n, "%s: %s", program, rc < 0 ? "is missing" : text);
	return rc ? -1 : 0;
}

int stage_mount(const char *fs, int fd, const char *name)
{
	const char *path = stage_path(name);
	char loop_name[64];
	int loop = loop_attach(fd, loop_name, sizeof(loop_name)), rc;

	if (loop < 0)
		return loop;
	mkdir(path, 0700);
	/* two copies of one xfs may be mounted at a time */
	rc = mount(loop_name, path, fs, 0, fs[0] == 'x' ? "nouuid" : NULL) ? -errno : 0;
	close(loop);
	return rc;
}

int stage_umount(const char *name)
{
	uint64_t end = stage_now_ms() + BUSY_MS;
	int rc;

	while ((rc = umount2(stage_path(name), 0) ? -errno : 0) == -EBUSY && stage_now_ms() < end)
		nap();
	return rc;
}
