/* SPDX-License-Identifier: MIT
 *
 * error.c: see error.h. Each thread keeps the last sentence of its last open (or check), and of the few heaps
 * that failed last; a heap that is pushed out has no sentence, only its code.
 *
 * Why a fixed table in thread storage: recording a failure must work when memory is what failed.
 *
 * Invariant
 *   E1  A sentence is found by the id of an open, never by an address: a new heap at an old handle's place
 *   has none.
 */
#define _GNU_SOURCE
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "heap.h"

#define SENTENCE_SIZE 512u
#define SENTENCE_COUNT 3u

struct sentence {
	uint64_t heap_id; /* 0: empty */
	char text[SENTENCE_SIZE];
};

static __thread struct sentence sentences[SENTENCE_COUNT];
static __thread unsigned sentence_next;
static __thread char open_text[SENTENCE_SIZE];

static struct sentence *sentence_find(uint64_t heap_id)
{
	for (unsigned i = 0; i < SENTENCE_COUNT; i++)
		if (sentences[i].heap_id == heap_id)
			return &sentences[i];
	return NULL;
}

static char *sentence_for(const pheap *h)
{
	struct sentence *s;

	if (!h)
		return open_text;
	s = sentence_find(h->id);
	if (!s)
		s = &sentences[sentence_next++ % SENTENCE_COUNT];
	s->heap_id = h->id;
	return s->text;
}

void ph_error_note(const pheap *h, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(sentence_for(h), SENTENCE_SIZE, format, args);
	va_end(args);
}

void ph_error_note_both(const pheap *h, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(open_text, SENTENCE_SIZE, format, args);
	va_end(args);
	ph_error_note(h, "%s", open_text);
}

void ph_fatal(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	flockfile(stderr);
	fputs("pheap: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	funlockfile(stderr);
	va_end(args);
	abort();
}

const char *pheap_error_detail(const pheap *h)
{
	const struct sentence *s;

	if (!h)
		return open_text;
	s = sentence_find(h->id);
	return s ? s->text : "";
}

static const char *own_text(int rc)
{
	switch (rc) {
	case PHEAP_ECORRUPT:
		return "the heap file is damaged; run pheap-fsck on it";
	case PHEAP_EFORMAT:
		return "the file is not a heap, or its format is unknown to this library";
	case PHEAP_ELAYOUT:
		return "layout, types or a root's size differ from what the heap file holds";
	case PHEAP_EREBOOT:
		return "the heap was in use when the machine went down or the file was copied; run "
		       "pheap-fsck on it";
	case PHEAP_EPOISONED:
		return "writing the heap to its file failed; no more changes are possible until pheap-fsck "
		       "has run";
	case PHEAP_EFORKED:
		return "the heap was opened by the parent process; close it and open it again";
	case PHEAP_EACTIVE:
		return "a transaction is still open in this heap";
	case PHEAP_EENDED:
		return "the transaction has already been committed or aborted";
	case PHEAP_EUNLOGGED:
		return "memory was changed without pheap_modify";
	case PHEAP_EFOREIGN:
		return "the address is not in this heap";
	default:
		return NULL;
	}
}

const char *pheap_strerror(int rc)
{
	const char *text;

	if (rc == 0)
		return "success";
	text = own_text(rc);
	/* Not strerror: its buffer is shared by all threads. This one returns constant text. */
	if (!text && rc < 0 && rc > -5000)
		text = strerrordesc_np(-rc);
	return text ? text : "unknown error";
}

uint32_t pheap_version(void)
{
	return PHEAP_VERSION;
}
