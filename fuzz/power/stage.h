/* SPDX-License-Identifier: MIT
 *
 * stage.h: a machine for real file systems whose power may go: disks that are files without names, loop devices, mounts that
 * nobody else sees, and boots.
 *
 * Why in a mount namespace: what is mounted there goes with the last process in it, the loop devices go with the mounts
 * (autoclear), and the disks with both. So nothing is left, whoever is killed, and there is nothing to clean up.
 *
 * Invariants
 *   S1  Everything is mounted below one folder of the system that was empty, on a tmpfs of our own.
 *   S2  Only one process mounts: nobody else's copy of the namespace keeps a file system busy.
 */
#ifndef PHEAP_POWER_STAGE_H
#define PHEAP_POWER_STAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* 0; -1: not on this machine, and why. */
int stage_enter(char *why, size_t n);
/* A path below the stage; four results stay valid at a time. */
const char *stage_path(const char *name);
/* A disk of zeroes in memory, without a name. The descriptor, or -1. */
int stage_disk(uint64_t size);
/* The same bytes on another one. */
int stage_disk_copy(int from, int to);
/* Makes a file system on the disk behind fd: "ext4", "xfs", "btrfs" (large ones); variant: other block sizes. 0, or -1 with why. */
int stage_mkfs(const char *fs, int fd, uint64_t size, unsigned variant, char *why, size_t n);
/* The disk behind fd on a loop device, mounted on stage_path(name), which is made. 0 or -errno. */
int stage_mount(const char *fs, int fd, const char *name);
/* Waits for those that have just died. 0 or -errno. */
int stage_umount(const char *name);
/* From now on every process, whatever it is, reads this boot id. */
void stage_boot(const uint8_t id[16]);
/* A program, its output in text. Exit status, or -1. */
int stage_run(char *const argv[], char *text, size_t n);
/* A child that dies with its father; as fork. */
pid_t stage_fork(void);
/* Exit status, or 1000 + signal; 2000 when it had to be killed after limit_ms. */
int stage_wait(pid_t pid, uint64_t limit_ms);
uint64_t stage_now_ms(void);

#endif
