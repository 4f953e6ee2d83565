/* SPDX-License-Identifier: MIT
 *
 * error.c: see error.h. Each thread keeps the last sentence of its last open (or check), and of the few heaps that failed
 * last; a heap that is pushed out has no sentence, only its code.
 *
 * Why on the process's heap, made at the thread's first failure: static thread storage of this size would keep the library
 * from being loaded by dlopen. Without memory for it a thread has codes and no sentences.
 *
 * Invariant
 *   E1  A sentence is found by the id of an open, never by an address: a new heap at an old handle's place has none.
 */
#define _GNU_SOURCE
#include "error.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
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

/* One thread's. */
struct notes {
	char open_text[SENTENCE_SIZE];
	struct sentence sentences[SENTENCE_COUNT];
	unsigned next;
};

static __thread struct notes *thread_notes;
static pthread_key_t notes_key;
static pthread_once_t notes_once = PTHREAD_ONCE_INIT;
static bool notes_key_made;

static void notes_free(void *arg)
{
	free(arg);
	thread_notes = NULL;
}

static void notes_init(void)
{
	notes_key_made = pthread_key_create(&notes_key, notes_free) == 0;
}

static struct notes *notes_get(void)
{
	if (thread_notes)
		return thread_notes;
	pthread_once(&notes_once, notes_init);
	thread_notes = notes_key_made ? calloc(1, sizeof(*thread_notes)) : NULL;
	if (thread_notes && pthread_setspecific(notes_key, thread_notes)) {
		free(thread_notes);
		thread_notes = NULL;
	}
	return thread_notes;
}

static struct sentence *sentence_find(struct notes *notes, uint64_t heap_id)
{
	for (unsigned i = 0; i < SENTENCE_COUNT; i++)
		if (notes->sentences[i].heap_id == heap_id)
			return &notes->sentences[i];
	return NULL;
}

/* Where the sentence for h goes; NULL: nowhere. */
static char *sentence_for(const pheap *h)
{
	struct notes *notes = notes_get();
	struct sentence *s;

	if (!notes || !h)
		return notes ? notes->open_text : NULL;
	s = sentence_find(notes, h->id);
	if (!s)
		s = &notes->sentences[notes->next++ % SENTENCE_COUNT];
	s->heap_id = h->id;
	return s->text;
}

static void sentence_put(const pheap *h, const char *format, va_list args)
{
	char text[SENTENCE_SIZE], *to = sentence_for(h);

	/* Not straight into place: an argument may be the sentence that stands there. */
	vsnprintf(text, sizeof(text), format, args);
	if (to)
		memcpy(to, text, sizeof(text));
}

void ph_error_note(const pheap *h, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	sentence_put(h, format, args);
	va_end(args);
}

void ph_error_note_both(const pheap *h, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	sentence_put(h, format, args);
	va_end(args);
	va_start(args, format);
	sentence_put(NULL, format, args);
	va_end(args);
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
	struct sentence *s;

	if (!thread_notes)
		return "";
	if (!h)
		return thread_notes->open_text;
	s = sentence_find(thread_notes, h->id);
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
