/* SPDX-License-Identifier: MIT
 *
 * alloc_mimalloc.c: mimalloc: the fastest allocator that keeps nothing.
 *
 * Why it is loaded at run time and not linked: Debian's library also defines malloc and free, and would
 * replace those of the C library in the whole program, which are measured as well. Loaded with RTLD_LOCAL its
 * names are seen by nobody who does not ask for them.
 */
#include <dlfcn.h>
#include <stddef.h>

static void *(*volatile_new)(size_t n);
static void (*volatile_free)(void *p);

#define ALLOC_NAME "mimalloc"

#include "alloc_volatile.h"
/* after what it needs */
#include "alloc_loops.h"

/* ISO C has no cast from void * to a function's address. */
static void *function_find(void *library, const char *name, void *ret, size_t ret_size)
{
	void *p = dlsym(library, name);

	__builtin_memcpy(ret, &p, ret_size);
	return p;
}

static const char *missing(void)
{
	static const char *const names[] = {"libmimalloc.so.2", "libmimalloc.so.3", "libmimalloc.so"};
	void *library = NULL;

	if (volatile_new)
		return NULL;
	for (unsigned i = 0; !library && i < sizeof names / sizeof *names; i++)
		library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	if (!library)
		return "not installed";
	if (!function_find(library, "mi_free", &volatile_free, sizeof volatile_free) ||
	    !function_find(library, "mi_malloc", &volatile_new, sizeof volatile_new))
		return "the library lacks mi_malloc or mi_free";
	return NULL;
}

const struct alloc_system alloc_mimalloc = {ALLOC_LOOPS, .missing = missing};
