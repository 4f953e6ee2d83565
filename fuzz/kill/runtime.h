/* SPDX-License-Identifier: MIT
 *
 * runtime.h: every store of the instrumented library as a callback.
 *
 * What: the library's core is compiled with -fsanitize=thread but not linked with that sanitizer; runtime.c
 * defines the functions the compiler calls. memcpy and its kin are wrapped by the linker, because the
 * compiler leaves them as calls.
 * Why not single steps alone: this is ten times as fast and takes mutants; trap.c is the referee on the
 * code as shipped.
 *
 * Invariants
 *   K1  The callback comes before the store, for atomics too; so at callback k the image holds stores 1 to
 *       k - 1.
 *   K2  A store is at most 8 bytes; longer ones come as one callback for each aligned 8 bytes, in rising
 *       order.
 *   K3  Only stores to [kr_base, kr_base + kr_size) are reported.
 */
#ifndef PHEAP_KILL_RUNTIME_H
#define PHEAP_KILL_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

extern uintptr_t kr_base;
extern size_t kr_size;			       /* 0: nothing is reported */
extern void (*kr_store)(void *addr, size_t n); /* n <= 8 */
extern void (*kr_atomic)(void);		       /* before an atomic access there; may be NULL */
extern int ph_mutant;			       /* which deliberate break is on; 0: none */

/* A store by the user of the library, in steps that count like its own. */
void kr_copy(void *dst, const void *src, size_t n);

#endif
