/* SPDX-License-Identifier: MIT
 *
 * options.c: see options.h.
 */
#include "options.h"

#include <errno.h>
#include <string.h>

#include "error.h"

#define DURABILITY_FLAGS 0x3000000u
#define OPEN_FLAGS \
	(PHEAP_CREATE | PHEAP_EXCL | PHEAP_RDONLY | PHEAP_EPHEMERAL | PHEAP_FIXED | PHEAP_KEEPER | \
	 DURABILITY_FLAGS)
#define LATER_FLAGS PHEAP_GUARD
#define OPTIONS_SIZE_LIMIT 4096u

int ph_options_take(const struct pheap_options *opt, struct pheap_options *ret)
{
	static const struct pheap_options none = PHEAP_OPTIONS_INIT;
	const char *bytes;

	if (!opt)
		opt = &none;
	bytes = (const char *)opt;
	if (opt->size < sizeof(opt->size))
		return ph_error(NULL, -EINVAL, "options.size is %llu; start from PHEAP_OPTIONS_INIT",
				(unsigned long long)opt->size);
	if (opt->size > OPTIONS_SIZE_LIMIT)
		return ph_error(NULL, -E2BIG, "options.size is %llu", (unsigned long long)opt->size);
	for (uint64_t i = sizeof(*opt); i < opt->size; i++)
		if (bytes[i])
			return ph_error(
				NULL, -E2BIG,
				"an option that this library does not know is set; use a newer library");
	memcpy(ret, opt, opt->size < sizeof(*opt) ? (size_t)opt->size : sizeof(*opt));
	if (ret->mode & ~0777u)
		return ph_error(NULL, -EINVAL, "options.mode is 0%o; only permission bits are possible",
				ret->mode);
	if (ret->type_count && !ret->types)
		return ph_error(NULL, -EINVAL, "options.types is NULL, but type_count is %llu",
				(unsigned long long)ret->type_count);
	return 0;
}

int ph_options_durability(uint32_t flags, uint32_t in_options, uint32_t *ret)
{
	uint32_t in_flags = flags & DURABILITY_FLAGS;

	if (in_options & ~DURABILITY_FLAGS)
		return ph_error(NULL, -EINVAL,
				"options.durability is 0x%x; use PHEAP_SYNC, PHEAP_EPOCH or PHEAP_PROCESS",
				in_options);
	if (in_flags && in_options && in_flags != in_options)
		return ph_error(NULL, -EINVAL, "flags and options ask for different durability");
	*ret = in_flags ? in_flags : in_options;
	return 0;
}

int ph_options_flags(uint32_t flags)
{
	if (flags & LATER_FLAGS)
		return ph_error(NULL, -EOPNOTSUPP, "PHEAP_GUARD is not in this version");
	if (flags & ~OPEN_FLAGS)
		return ph_error(NULL, -EINVAL, "flags 0x%x are not flags of pheap_open", flags & ~OPEN_FLAGS);
	if (flags & PHEAP_CREATE && flags & PHEAP_RDONLY)
		return ph_error(NULL, -EINVAL, "PHEAP_CREATE and PHEAP_RDONLY exclude each other");
	if (flags & PHEAP_EXCL && !(flags & PHEAP_CREATE))
		return ph_error(NULL, -EINVAL, "PHEAP_EXCL means something with PHEAP_CREATE only");
	return 0;
}
