/* SPDX-License-Identifier: MIT
 *
 * error.h: error codes with a sentence, and the end of a process whose invariant broke.
 *
 * What: each failure leaves one code and, for this thread, one sentence that says what to do.
 * Why thread-local text: the API has no errno and no logging; a code alone cannot name the offset or the
 * file.
 */
#ifndef PH_ERROR_H
#define PH_ERROR_H

#include "pheap.h"

/* Records the sentence for this thread and heap (h NULL: open) and returns rc. */
int ph_error(const pheap *h, int rc, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As ph_error, also as the sentence of the open that may be under way: recovery runs in both. */
int ph_error_recovery(const pheap *h, int rc, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Misuse or a broken invariant: prints "pheap: ..." to stderr and aborts, unlocking nothing; recovery
 * survives us. */
_Noreturn void ph_fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define ph_assert(condition) \
	((condition) ? (void)0 : ph_fatal("broken invariant at %s:%d: %s", __FILE__, __LINE__, #condition))

#endif
