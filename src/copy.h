/* SPDX-License-Identifier: MIT
 *
 * copy.h: the one way in which the library stores bytes into the mapping in bulk.
 *
 * Why not memcpy everywhere: crash explorers count each 8-byte step of a copy as a place to die; they build
 * with PH_COPY_STEPS, which stores in visible steps.
 */
#ifndef PH_COPY_H
#define PH_COPY_H

#include <stdint.h>
#include <string.h>

#ifdef PH_COPY_STEPS
static inline void ph_copy(void *dst, const void *src, size_t n)
{
	volatile char *d = dst;
	const char *s = src;

	for (; n >= 8 && ((uintptr_t)d & 7) == 0; d += 8, s += 8, n -= 8) {
		uint64_t word;
		memcpy(&word, s, 8);
		*(volatile uint64_t *)(void *)d = word;
	}
	for (; n; n--)
		*d++ = *s++; /* NOLINT(clang-analyzer-core.uninitialized.Assign): it loses track of n */
}

static inline void ph_zero(void *dst, size_t n)
{
	volatile char *d = dst;

	for (; n >= 8 && ((uintptr_t)d & 7) == 0; d += 8, n -= 8)
		*(volatile uint64_t *)(void *)d = 0;
	for (; n; n--)
		*d++ = 0;
}
#else
static inline void ph_copy(void *dst, const void *src, size_t n)
{
	memcpy(dst, src, n);
}

static inline void ph_zero(void *dst, size_t n)
{
	memset(dst, 0, n);
}
#endif

/* Nothing before this line moves below it, in the compiler; x86 keeps stores in order, and on any machine a
 * store that a dead process made reached the page cache in program order as far as its own later stores
 * did. */
#define ph_order() __atomic_signal_fence(__ATOMIC_SEQ_CST)

#endif
