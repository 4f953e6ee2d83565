/* SPDX-License-Identifier: MIT
 *
 * alloc_boost.h: Boost.Interprocess for the C files: a heap in a mapped file. References are its handles,
 * bytes from the start of the heap, which mean the same in each process.
 */
#ifndef BENCH_ALLOC_BOOST_H
#define BENCH_ALLOC_BOOST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct boost_heap;
struct boost_heap *boost_heap_open(const char *path, uint64_t size); /* NULL: failed */
void boost_heap_close(struct boost_heap *heap);
void *boost_heap_base(const struct boost_heap *heap);
void *boost_heap_new(struct boost_heap *heap, size_t n); /* NULL: full */
void boost_heap_free(struct boost_heap *heap, void *p);
int64_t *boost_heap_slots(struct boost_heap *heap, size_t n); /* zeroed when they are made; NULL: full */

#ifdef __cplusplus
}
#endif

#endif
