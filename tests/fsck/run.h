/* SPDX-License-Identifier: MIT
 *
 * run.h: runs pheap-fsck on a file that has no name, and counts what went as expected.
 *
 * Why without a name: nothing is left behind, also when the test is killed. The program opens it as
 * /proc/PID/fd/N.
 */
#ifndef TEST_RUN_H
#define TEST_RUN_H

#include <stdbool.h>
#include <stddef.h>

#include "image.h"

#define OUTPUT_SIZE 65536u
#define RUN_SIGNAL 1000 /* added to the number of the signal that ended the program */

struct scratch {
	int fd;
	char path[64];
	struct identity id;
};

extern const char *fsck_program, *fsck_program_mortal;
extern char output[OUTPUT_SIZE]; /* of the last run, standard output and error */

void scratch_open(struct scratch *s);
void scratch_close(struct scratch *s);
void scratch_write(struct scratch *s, const void *bytes, size_t n);
/* Reads the whole file into fresh memory. */
unsigned char *scratch_read(const struct scratch *s, size_t *ret_size);
bool scratch_same(const struct scratch *s, const void *bytes, size_t n);

/* Runs program with the options, given as one string with blanks, on path. Returns its exit code, or
 * RUN_SIGNAL + signal. */
int run(const char *program, const char *options, const char *path);
bool output_has(const char *code); /* a problem line [code] */

/* Counts one check; prints it, and the last output, if it failed. */
bool expect(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
int expect_summary(void);

void bad_input_test(void);
void killed_test(void);
void random_test(unsigned long seed, unsigned count);
void cut_test(unsigned long seed, unsigned count);

#endif
