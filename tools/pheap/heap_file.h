/* SPDX-License-Identifier: MIT
 *
 * heap_file.h: a heap file as `pheap info`, `dump` and `top` see it: by pread alone.
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

/* A walk over words that are not 0. Costs what the file takes on the disk: holes are passed over. */
struct word_walk {
	const struct heap_file *h;
	struct window window;
	uint64_t start, off, end;
};

/* A walk over blocks whose first word is the offset of the next one. Ends in a ring as well. */
struct list_walk {
	uint64_t off;	 /* of the entry that was found */
	uint64_t next;	 /* of the one to come */
	uint64_t size;	 /* bytes that an entry has at least */
	uint32_t type;	 /* that it must have; UINT32_MAX: any */
	const char *bad; /* NULL: it ended in 0; else what is wrong with `next` */
	uint64_t mark, step_count, step_max;
};

/* 0, or -errno and a sentence: the file cannot be opened or is no heap. Without a usable superblock:
 * super_copy -1, if allowed. */
int heap_file_try(struct heap_file *h, const char *path, bool allow_damaged, char *ret_error, size_t size);
/* Reports and exits instead. */
void heap_file_open(struct heap_file *h, const char *path, bool allow_damaged);
void heap_file_close(struct heap_file *h);
/* What changes while others use the heap: size, state, chunks, attached. */
void heap_file_refresh(struct heap_file *h);
void heap_file_read(const struct heap_file *h, uint64_t off, void *buf, size_t n);
void window_read(const struct heap_file *h, struct window *w, uint64_t off, void *buf, size_t n);
/* `count` words at start, a multiple of 8. */
void word_walk_start(struct word_walk *w, const struct heap_file *h, uint64_t start, uint64_t count);
/* False: no more. */
bool word_walk_next(struct word_walk *w, uint64_t *ret_idx, uint64_t *ret_word);
void list_walk_start(struct list_walk *l, uint64_t first, size_t size, uint32_t type);
/* False: no more, or `bad`. */
bool list_walk_next(const struct heap_file *h, struct list_walk *l);
bool heap_file_slot_live(const struct heap_file *h, uint32_t slot);
/* Do the bytes of members and lanes mean anything: were they written in this boot, and not for a life
 * that is over? */
bool heap_file_current(const struct heap_file *h);
/* Does it go with its last user? */
static inline bool heap_file_ephemeral(const struct heap_file *h)
{
	return (h->super.compat & PHD_COMPAT_EPHEMERAL) != 0;
}
const char *heap_file_state_text(const struct heap_file *h);
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
/* What fail and usage_fail do otherwise than said above. */
struct fail_hook {
	void (*prepare)(void); /* called before it prints */
	int status;	       /* exit code */
};
extern struct fail_hook fail_hook;
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
int command_trim(int argc, char **argv);
int command_top(int argc, char **argv);
int command_run(int argc, char **argv);
int command_watch(int argc, char **argv);

/* fields.c */
struct field {
	const char *name;
	uint32_t off, size;
	char kind; /* see field_print */
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
