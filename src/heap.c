/* SPDX-License-Identifier: MIT
 *
 * heap.c: see heap.h.
 */
#include "heap.h"

#include <errno.h>

#include "error.h"
#include "os.h"

int ph_heap_fd_check(const struct pheap *h)
{
	struct ph_file_info info;

	if (ph_os->file_info(h->fd, &info) == 0 && info.dev == h->dev && info.inode == h->inode)
		return 0;
	/* Both: it may be pheap_close that fails, and then there is no handle to ask. */
	ph_error_note_both(h, "descriptor %d of the heap file was closed by somebody else in this process",
			   h->fd);
	return -EBADF;
}
