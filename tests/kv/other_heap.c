/* SPDX-License-Identifier: MIT
 *
 * other_heap.c: makes a heap that is not pheap-kv's: other_heap FILE LAYOUT. An empty LAYOUT fits any
 * program.
 */
#include <stdio.h>

#include "pheap.h"

int main(int argc, char **argv)
{
	struct pheap_options opt = PHEAP_OPTIONS_INIT;
	pheap *h;
	int rc;

	if (argc != 3)
		return 2;
	opt.durability = PHEAP_PROCESS;
	opt.layout = argv[2];
	rc = pheap_open(argv[1], PHEAP_CREATE | PHEAP_EXCL, &opt, &h);
	if (rc == 0)
		rc = pheap_close(h);
	if (rc)
		fprintf(stderr, "%s: %s: %s\n", argv[1], pheap_strerror(rc), pheap_error_detail(NULL));
	return rc != 0;
}
