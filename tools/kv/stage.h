/* SPDX-License-Identifier: MIT
 *
 * stage.h: where the demo plays: its folder, its children, its clock and its dice.
 *
 * Invariants
 *   D1  A child dies with this process, and the folder goes away however this process ends.
 *   D2  Only children of this process are ever signalled, and none after it was waited for.
 */
#ifndef KV_STAGE_H
#define KV_STAGE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define STAGE_ANSWER_NS 60000000000u /* who is not killed has this long to do what it is there for */

typedef unsigned long long ull;

struct stage {
	char dir[PATH_MAX], heap[PATH_MAX + 16];
	char kv[PATH_MAX], fsck[PATH_MAX];
	const char *input;
	uint64_t seed;
};
extern struct stage stage;

void stage_open(void);
void stage_close(void);

uint64_t stage_now_ns(void);
uint64_t stage_random_below(uint64_t n);

/* Says what went wrong, ends all children and the demo. words_path: what somebody wrote last; NULL: nobody. */
void stage_fail(const char *words_path, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));

/* A child whose output goes to a file; its wait status, once it has ended; that, or -1 if it has not. */
pid_t stage_child_start(const char *const *words, const char *output_path);
int stage_child_end(pid_t pid);
int stage_child_ask(pid_t pid);

/* A command that must end by itself: its exit code; what it wrote is in ret, cut at ret_size. tick: called
 * while it runs. */
int stage_command(const char *const *words, char *ret, size_t ret_size, void (*tick)(void));

#endif
