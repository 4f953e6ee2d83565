/* SPDX-License-Identifier: MIT
 *
 * ephemeral.c: see ephemeral.h.
 */
#define _GNU_SOURCE /* O_PATH */
#include "ephemeral.h"

#include <errno.h>
#include <fcntl.h>

#include "error.h"
#include "mutant.h"
#include "os.h"
#include "super.h"

int ph_ephemeral_stale(int fd, const struct phd_super *super)
{
	struct ph_file_info info;
	struct phd_state state;
	uint32_t copy;
	int rc;

	if (!ph_ephemeral(super) || PH_MUTANT(PH_MUTANT_STALE_ENTERED))
		return 0;
	rc = ph_os->lock_test(fd, PHD_LOCK_ANY);
	if (rc < 0)
		return ph_error(NULL, rc, "asking who has the heap open failed: %s", pheap_strerror(rc));
	if (rc)
		return 0;
	/* One that was never entered is as good as new: its creator is about to, or died before. */
	rc = ph_state_read(fd, &state, &copy);
	if (rc == 0)
		rc = ph_os->file_info(fd, &info);
	/* A copy, which somebody made on purpose, is not removed; entering it is refused as with any heap. */
	return rc ? rc : state.open_gen != 0 && state.inode == info.inode;
}

int ph_ephemeral_remove(const char *path, uint64_t dev, uint64_t inode)
{
	struct ph_file_info info;
	int rc, fd = ph_os->file_open(path, O_PATH | O_NOFOLLOW, 0);

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	rc = ph_os->file_info(fd, &info);
	(void)ph_os->file_close(fd);
	if (rc || info.dev != dev || info.inode != inode)
		return rc;
	/* ORDER(ephemeral-name): the name goes before the gate does. Crash between: nobody has the file. Pairs with the
	 * look at the link count in open.c:head_check. */
	rc = ph_os->file_unlink(path);
	return rc == -ENOENT ? 0 : rc;
}
