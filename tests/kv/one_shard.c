/* SPDX-License-Identifier: MIT
 *
 * one_shard.c: one_shard COUNT: lines of key, tab, value whose keys all fall into the same shard of pheap-kv's map, so that
 * few records make one large table.
 */
#include <stdio.h>
#include <stdlib.h>

#include "map.h"

int main(int argc, char **argv)
{
	long want = argc > 1 ? strtol(argv[1], NULL, 10) : 0;

	for (long i = 0; want > 0; i++) {
		char key[24];
		int n = snprintf(key, sizeof(key), "key-%ld", i);

		/* the shard is the top bits, see map.c */
		if (kv_hash((struct kv_bytes){key, (size_t)n}) / (UINT64_MAX / KV_SHARD_COUNT + 1) != 0)
			continue;
		printf("%s\t%ld\n", key, i);
		want--;
	}
	return 0;
}
