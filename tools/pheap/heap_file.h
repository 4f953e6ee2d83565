/* SPDX-License-Identifier: MIT
 *
 * heap_file.h: a heap file as `pheap info` and `pheap dump` see it: by pread alone.
 *
 * Why not through the library: looking must not attach, recover or change anything, and must work on a
 * damaged file and beside a running program. Numbers of a heap in use are those of a moment.
 *
 * Invariants
 *   P1  Nothing here writes.
 *   P2  Whatever was read is checked before it is used as an offset or a count; bytes past the end read as
 *       zero.
 */
#ifndef PHEAP_HEAP_FILE_H
#define PHEAP_HEAP_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

#define EXIT_FAILED 1
#define EXIT_USAGE 2

typedef unsigned long long ull;

struct heap_file {
	const char *path;
	int fd;
	uint64_t size, allocated_size; /* bytes: of the file, and of the disk that it takes */
	struct phd_super super;	       /* all zero if no copy is usable */
	int super_copy;		       /* -1: none is usable */
	struct phd_state state;
	int state_copy;	      /* -1: none is valid */
	uint64_t chunk_count; /* that the file backs */
	bool attached;
	bool same_boot, same_file; /* as the state sector says */
};

/* A window over the file, for reads that go forward in small steps. */
struct window {
	unsigned char bytes[65536];
	uint64_t off;
	size_t size; /* 0: empty */
};

/* Reports and exits if the file cannot be opened or is no heap. Without a usable superblock: super_copy -1,
 * if allowed. */
void heap_file_open(struct heap_file *h, const char *path, bool allow_damaged);
void heap_file_close(struct heap_file *h);
void heap_file_read(const struct heap_file *h, uint64_t off, void *buf, size_t n);
void window_read(const struct heap_file *h, struct window *w, uint64_t off, void *buf, size_t n);
bool heap_file_slot_live(const struct heap_file *h, uint32_t slot);
uint64_t heap_file_desc(const struct heap_file *h, uint64_t chunk);
uint64_t heap_file_chunk_off(const struct heap_file *h, uint64_t chunk);

struct heap_block {
	uint64_t off, size, chunk, idx, desc;
	bool allocated;
};
/* The block that holds off; false: a free chunk, or no chunk at all. */
bool heap_file_block(const struct heap_file *h, uint64_t off, struct heap_block *ret);

/* Prints "pheap: ...", exits with EXIT_FAILED or EXIT_USAGE. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void usage_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* For an option that getopt_long answered with c. */
_Noreturn void option_fail(const char *command, int c, char **argv);
/* s as text that a terminal can take: at most n bytes of src up to a NUL, others than plain ones as '?'. */
const char *plain_text(const char *src, size_t n, char *buf, size_t buf_size);
void json_print(const char *s);

/* n bytes in a unit that fits. */
const char *size_text(uint64_t n, char *buf, size_t buf_size);

/* A number with K, M, G or T behind it, powers of 1024; or 0x... False: not one. */
bool size_parse(const char *text, uint64_t *ret);

int command_create(int argc, char **argv);
int command_info(int argc, char **argv);
int command_dump(int argc, char **argv);

/* fields.c */
struct field {
	const char *name;
	uint32_t off, size;
	char kind; /* x hex, d decimal, t text, b bytes */
};
struct struct_info {
	const char *name;
	uint32_t size;
	const struct field *fields;
	uint32_t field_count;
};
extern const struct struct_info struct_table[];
extern const unsigned struct_count;
/* By its name, with or without phd_. NULL: no such struct. */
const struct struct_info *struct_find(const char *name, size_t n);
/* Prints the struct at off, one field a line. */
void struct_print(const struct heap_file *h, const struct struct_info *s, uint64_t off, const char *title);

/* log_dump.c */
void lane_log_print(const struct heap_file *h, uint32_t lane);

#endif
