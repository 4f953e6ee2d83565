/* SPDX-License-Identifier: MIT
 *
 * fill_boost.cpp: the bench space in Boost.Interprocess: managed_mapped_file with its default algorithm
 * (best fit, neighbours joined). It survives no kill: a reference for space only.
 */
#include <boost/interprocess/managed_mapped_file.hpp>
#include <cstring>
#include <new>

#include "fill.h"

using boost::interprocess::managed_mapped_file;

static void *fill_open(const char *path, uint64_t size, bool grows)
{
	(void)grows; /* its file is sparse either way */
	try {
		return new managed_mapped_file(boost::interprocess::create_only, path, size);
	} catch (...) {
		return nullptr;
	}
}

static void fill_close(void *self)
{
	delete static_cast<managed_mapped_file *>(self);
}

static void fill_release(void *self, const uint64_t *blocks, unsigned count)
{
	auto *file = static_cast<managed_mapped_file *>(self);

	for (unsigned i = 0; i < count; i++)
		file->deallocate(reinterpret_cast<void *>(static_cast<uintptr_t>(blocks[i])));
}

static bool fill_alloc(void *self, const uint32_t *sizes, uint64_t *ret_blocks, unsigned count)
{
	auto *file = static_cast<managed_mapped_file *>(self);

	for (unsigned i = 0; i < count; i++) {
		void *block = file->allocate(sizes[i], std::nothrow);

		if (!block) {
			fill_release(self, ret_blocks, i);
			return false;
		}
		std::memset(block, FILL_BYTE, sizes[i]);
		ret_blocks[i] = reinterpret_cast<uintptr_t>(block);
	}
	return true;
}

extern "C" const struct fill_system fill_boost = {"boost",	fill_open, fill_close, fill_alloc,
						  fill_release, true,	   nullptr};
