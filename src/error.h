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
/* The value of the macros below: what was given, for all analysers to see. */
static inline int ph_error_rc(int rc)
{
	return rc;
}

void ph_error_note(const pheap *h, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define ph_error(h, rc, ...) (ph_error_note((h), __VA_ARGS__), ph_error_rc(rc))

/* As ph_error, also as the sentence of the open that may be under way: recovery runs in both. */
void ph_error_note_both(const pheap *h, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define ph_error_recovery(h, rc, ...) (ph_error_note_both((h), __VA_ARGS__), ph_error_rc(rc))

/* Misuse or a broken invariant: prints "pheap: ..." to stderr and aborts, unlocking nothing; recovery
 * survives us. */
_Noreturn void ph_fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define ph_assert(condition) \
	((condition) ? (void)0 : ph_fatal("broken invariant at %s:%d: %s", __FILE__, __LINE__, #condition))

#endif
