/* SPDX-License-Identifier: MIT
 *
 * runtime.c: what gcc 12 and clang 14 call in code compiled with -fsanitize=thread. Loads cost a call and
 * do nothing.
 */
#include "runtime.h"

#include "keeper.h"

#include <string.h>

uintptr_t kr_base;
size_t kr_size;
void (*kr_store)(void *addr, size_t n);
void (*kr_atomic)(void);
int ph_mutant;

void *__real_memcpy(void *dst, const void *src, size_t n);
void *__real_memmove(void *dst, const void *src, size_t n);
void *__real_memset(void *dst, int c, size_t n);
void *__wrap_memcpy(void *dst, const void *src, size_t n);
void *__wrap_memmove(void *dst, const void *src, size_t n);
void *__wrap_memset(void *dst, int c, size_t n);

/* Each store is to be one of the calls that are played. */
static __attribute__((constructor)) void keeper_off(void)
{
	ph_keeper_off = true;
}

static inline int watched(const volatile void *addr)
{
	return (uintptr_t)addr - kr_base < kr_size;
}

/* Length of the next piece of [addr, addr + n): to the next multiple of 8 at most. */
static size_t piece(const void *addr, size_t n)
{
	size_t step = 8 - ((uintptr_t)addr & 7);

	return step < n ? step : n;
}

static void report(void *addr, size_t n)
{
	for (char *p = addr; n;) {
		size_t step = piece(p, n);

		kr_store(p, step);
		p += step;
		n -= step;
	}
}

static inline void touched(void *addr, size_t n)
{
	if (watched(addr))
		report(addr, n);
}

static inline void atomic_touched(void *addr, size_t n)
{
	if (!watched(addr))
		return;
	if (kr_atomic)
		kr_atomic();
	report(addr, n);
}

static inline void atomic_seen(const volatile void *addr)
{
	if (kr_atomic && watched(addr))
		kr_atomic();
}

void kr_copy(void *dst, const void *src, size_t n)
{
	char *d = dst;
	const char *s = src;

	while (n) {
		size_t step = piece(d, n);

		if (watched(d))
			kr_store(d, step);
		__real_memcpy(d, s, step);
		d += step;
		s += step;
		n -= step;
	}
}

void *__wrap_memcpy(void *dst, const void *src, size_t n)
{
	if (!watched(dst))
		return __real_memcpy(dst, src, n);
	kr_copy(dst, src, n);
	return dst;
}

void *__wrap_memmove(void *dst, const void *src, size_t n)
{
	char *d = dst;
	const char *s = src;

	if (!watched(dst))
		return __real_memmove(dst, src, n);
	if (d <= s || d >= s + n) {
		kr_copy(dst, src, n);
		return dst;
	}
	while (n) { /* backwards, byte by byte: rare, and any order is a true one */
		n--;
		kr_store(d + n, 1);
		d[n] = s[n];
	}
	return dst;
}

void *__wrap_memset(void *dst, int c, size_t n)
{
	char *d = dst;

	if (!watched(dst))
		return __real_memset(dst, c, n);
	while (n) {
		size_t step = piece(d, n);

		kr_store(d, step);
		__real_memset(d, c, step);
		d += step;
		n -= step;
	}
	return dst;
}

/* --- what the compilers call --- */

#define EXPORT __attribute__((visibility("default")))
#define NOTHING(name, ...) \
	EXPORT void name(__VA_ARGS__); \
	EXPORT void name(__VA_ARGS__)

#define PLAIN(n) \
	NOTHING(__tsan_read##n, const void *p) \
	{ \
		(void)p; \
	} \
	NOTHING(__tsan_write##n, void *p) \
	{ \
		touched(p, n); \
	} \
	NOTHING(__tsan_read_write##n, void *p) \
	{ \
		touched(p, n); \
	} \
	NOTHING(__tsan_volatile_read##n, const void *p) \
	{ \
		(void)p; \
	} \
	NOTHING(__tsan_volatile_write##n, void *p) \
	{ \
		touched(p, n); \
	} \
	NOTHING(__tsan_unaligned_read##n, const void *p) \
	{ \
		(void)p; \
	} \
	NOTHING(__tsan_unaligned_write##n, void *p) \
	{ \
		touched(p, n); \
	} \
	NOTHING(__tsan_unaligned_read_write##n, void *p) \
	{ \
		touched(p, n); \
	} \
	NOTHING(__tsan_unaligned_volatile_read##n, const void *p) \
	{ \
		(void)p; \
	} \
	NOTHING(__tsan_unaligned_volatile_write##n, void *p) \
	{ \
		touched(p, n); \
	}
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

NOTHING(__tsan_init, void)
{
}
NOTHING(__tsan_func_entry, void *p)
{
	(void)p;
}
NOTHING(__tsan_func_exit, void)
{
}
NOTHING(__tsan_ignore_thread_begin, void)
{
}
NOTHING(__tsan_ignore_thread_end, void)
{
}
NOTHING(__tsan_read_range, const void *p, size_t n)
{
	(void)p;
	(void)n;
}
NOTHING(__tsan_write_range, void *p, size_t n)
{
	touched(p, n);
}
NOTHING(__tsan_atomic_thread_fence, int order)
{
	(void)order;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}
NOTHING(__tsan_atomic_signal_fence, int order)
{
	(void)order;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

#define FETCH(bits, T, name, builtin) \
	EXPORT T __tsan_atomic##bits##_##name(volatile T *p, T v, int order); \
	EXPORT T __tsan_atomic##bits##_##name(volatile T *p, T v, int order) \
	{ \
		(void)order; \
		atomic_touched((void *)(uintptr_t)p, sizeof(T)); \
		return builtin(p, v, __ATOMIC_SEQ_CST); \
	}

#define COMPARE(bits, T, name) \
	EXPORT int __tsan_atomic##bits##_##name(volatile T *p, T *seen, T v, int order, int no); \
	EXPORT int __tsan_atomic##bits##_##name(volatile T *p, T *seen, T v, int order, int no) \
	{ \
		(void)order; \
		(void)no; \
		atomic_touched((void *)(uintptr_t)p, sizeof(T)); \
		return __atomic_compare_exchange_n(p, seen, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
	}

#define ATOMIC(bits, T) \
	EXPORT T __tsan_atomic##bits##_load(const volatile T *p, int order); \
	EXPORT T __tsan_atomic##bits##_load(const volatile T *p, int order) \
	{ \
		(void)order; \
		atomic_seen(p); \
		return __atomic_load_n(p, __ATOMIC_SEQ_CST); \
	} \
	EXPORT void __tsan_atomic##bits##_store(volatile T *p, T v, int order); \
	EXPORT void __tsan_atomic##bits##_store(volatile T *p, T v, int order) \
	{ \
		(void)order; \
		atomic_touched((void *)(uintptr_t)p, sizeof(T)); \
		__atomic_store_n(p, v, __ATOMIC_SEQ_CST); \
	} \
	FETCH(bits, T, exchange, __atomic_exchange_n) \
	FETCH(bits, T, fetch_add, __atomic_fetch_add) \
	FETCH(bits, T, fetch_sub, __atomic_fetch_sub) \
	FETCH(bits, T, fetch_and, __atomic_fetch_and) \
	FETCH(bits, T, fetch_or, __atomic_fetch_or) \
	FETCH(bits, T, fetch_xor, __atomic_fetch_xor) \
	FETCH(bits, T, fetch_nand, __atomic_fetch_nand) \
	COMPARE(bits, T, compare_exchange_strong) \
	COMPARE(bits, T, compare_exchange_weak) \
	EXPORT T __tsan_atomic##bits##_compare_exchange_val(volatile T *p, T seen, T v, int order, int no); \
	EXPORT T __tsan_atomic##bits##_compare_exchange_val(volatile T *p, T seen, T v, int order, int no) \
	{ \
		__tsan_atomic##bits##_compare_exchange_strong(p, &seen, v, order, no); \
		return seen; \
	}
ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)
