/* SPDX-License-Identifier: MIT
 *
 * alloc_boost_heap.cpp: see alloc_boost.h.
 *
 * managed_mapped_file as it comes: its best-fit allocator, one mutex between all threads and processes.
 */
#include "alloc_boost.h"

#include <boost/interprocess/managed_mapped_file.hpp>
#include <exception>
#include <new>

namespace bip = boost::interprocess;

struct boost_heap {
	bip::managed_mapped_file file;
};

struct boost_heap *boost_heap_open(const char *path, uint64_t size)
{
	try {
		return new boost_heap{bip::managed_mapped_file(bip::open_or_create, path, size)};
	} catch (const std::exception &) {
		return nullptr;
	}
}

void boost_heap_close(struct boost_heap *heap)
{
	delete heap;
}

void *boost_heap_base(const struct boost_heap *heap)
{
	return heap->file.get_address();
}

void *boost_heap_new(struct boost_heap *heap, size_t n)
{
	return heap->file.allocate(n, std::nothrow);
}

void boost_heap_free(struct boost_heap *heap, void *p)
{
	heap->file.deallocate(p);
}

int64_t *boost_heap_slots(struct boost_heap *heap, size_t n)
{
	return heap->file.find_or_construct<int64_t>("slots", std::nothrow)[n](0);
}
