/* SPDX-License-Identifier: MIT
 *
 * alloc.c: the allocator's private tables of one open heap. O(1): what is where is learnt by use.
 */
#include "alloc.h"

#include <errno.h>
#include <stdlib.h>

int ph_alloc_open(struct pheap *h)
{
	pthread_mutexattr_t adaptive;

	h->alloc = calloc(1, sizeof(*h->alloc));
	if (!h->alloc)
		return -ENOMEM;
	/* It is held for so short a time that sleeping costs more than a few looks. */
	pthread_mutexattr_init(&adaptive);
	pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&h->alloc->lock, &adaptive);
	pthread_mutexattr_destroy(&adaptive);
	return 0;
}

void ph_alloc_close(struct pheap *h)
{
	if (!h->alloc)
		return;
	pthread_mutex_destroy(&h->alloc->lock);
	for (uint32_t i = 0; i < h->alloc->bin_count; i++)
		free(h->alloc->bins[i].notes);
	free(h->alloc->bins);
	free(h->alloc->bin_map.slots);
	free(h->alloc);
	h->alloc = NULL;
}
