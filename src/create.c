/* SPDX-License-Identifier: MIT
 *
 * create.c: see create.h. The file has no name (or a temporary one) until all of it is durable.
 *
 * Why not create in place under the gate lock: a creator that is killed would leave a half-made heap under
 * the final name, and every later open would have to tell it from a damaged one.
 */
#include "create.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "crc32c.h"
#include "error.h"
#include "layout.h"
#include "os.h"
#include "super.h"

/* Where mappings with a recorded address go: far from where the kernel puts others on 64-bit machines. Which
 * place in it follows from the uuid, so that two such heaps can usually be open in one process. */
#define FIXED_SPACE 0x200000000000ull
#define FIXED_STEP (4ull << 30)
#define FIXED_PLACES 0x3000u
#define FIXED_TRIES 16u

struct image {
	int fd;
	char temporary[PATH_MAX + 128]; /* "": the file has no name yet */
	struct phd_super super;
	uint64_t chunk_count;
	struct ph_file_info info;
};

static int space_error(int rc, const struct image *image)
{
	uint64_t size = image->super.data_off + image->chunk_count * PHD_CHUNK_SIZE;

	if (rc == -ENOSPC || rc == -EDQUOT)
		return ph_error(NULL, rc,
				"no space for a new heap (up to %llu bytes); make room or lower initial_size",
				(unsigned long long)size);
	if (rc == -EFBIG)
		return ph_error(NULL, rc,
				"a file of %llu bytes is above the file system's or the process's limit "
				"(RLIMIT_FSIZE)",
				(unsigned long long)size);
	return ph_error(NULL, rc, "setting aside space for a new heap failed: %s", pheap_strerror(rc));
}

static int image_allocate(const struct image *image)
{
	int rc = ph_os->file_allocate(image->fd, 0, image->super.desc_off);

	if (!rc)
		rc = ph_super_allocate(image->fd, &image->super, 0, image->chunk_count);
	return rc ? space_error(rc, image) : 0;
}

/* An address at which the whole heap can be mapped now; recorded, so it can be had again in most
 * processes. */
static int fixed_base_choose(struct image *image)
{
	uint64_t place;
	void *p = NULL;
	int rc = -ENOMEM;

	memcpy(&place, image->super.uuid, sizeof(place));
	for (unsigned i = 0; i < FIXED_TRIES && !p; i++) {
		uint64_t at = FIXED_SPACE + (place + i * 256ull) % FIXED_PLACES * FIXED_STEP;

		p = ph_os->map((void *)(uintptr_t)at, image->super.size_max, false, image->fd, true, &rc);
	}
	if (!p)
		p = ph_os->map(NULL, image->super.size_max, false, image->fd, false, &rc);
	if (!p)
		return ph_error(NULL, rc, "no room for %llu bytes of address space: %s; lower max_size",
				(unsigned long long)image->super.size_max, pheap_strerror(rc));
	image->super.fixed_base = (uint64_t)(uintptr_t)p;
	return ph_os->unmap(p, image->super.size_max);
}

/* Copy 1 of the state has seq 0, copy 0 seq 1: both are valid and say the same, copy 0 counts. */
static int write_sectors(struct image *image)
{
	struct {
		struct phd_super super;
		struct phd_state state;
		struct phd_checkpoint checkpoint;
		char reserved[PHD_BLOCK_SIZE - 3 * PHD_SECTOR_SIZE];
	} blocks[2];
	struct phd_state state = {
		.magic = PHD_STATE_MAGIC,
		.clean = 1,
		.durability = image->super.durability,
		.attachment_limit = 1,
	};
	/* The log begins behind 0, which stands for "never" in leases. */
	struct phd_checkpoint checkpoint = {
		.magic = PHD_CHECKPOINT_MAGIC,
		.log_gen = 1,
		.replay_lsn = image->super.wal_size,
		.epoch_lsn = image->super.wal_size,
		.lane_gen_limit = PHD_LANE_GEN_STEP,
	};
	int rc = ph_os->file_info(image->fd, &image->info);

	if (rc)
		return rc;
	state.inode = image->info.inode;
	state.birth_ns = image->info.birth_ns;
	memset(blocks, 0, sizeof(blocks));
	for (uint32_t copy = 0; copy < 2; copy++) {
		ph_super_seal(&image->super, copy);
		state.seq = 1 - copy;
		state.crc = ph_crc32c(0, &state, offsetof(struct phd_state, crc));
		blocks[copy].super = image->super;
		blocks[copy].state = state;
		if (!ph_super_has_wal(&image->super))
			continue;
		checkpoint.seq = 1 - copy;
		checkpoint.crc = ph_crc32c(0, &checkpoint, offsetof(struct phd_checkpoint, crc));
		blocks[copy].checkpoint = checkpoint;
	}
	return ph_os->file_write(image->fd, blocks, sizeof(blocks), 0);
}

static int write_journal_descriptors(const struct image *image)
{
	uint64_t words[PHD_BLOCK_SIZE / 8];
	uint64_t count = image->super.journal_count;
	int rc = 0;

	for (uint64_t from = 0; from < count && !rc;) {
		uint64_t n = 0;

		for (; n < PHD_BLOCK_SIZE / 8 && from + n < count; n++)
			words[n] = from + n ? PHD_DESC_MAKE_CONT(PHD_TYPE_JOURNAL, from + n)
					    : PHD_DESC_MAKE_EXTENT(PHD_TYPE_JOURNAL, count);
		rc = ph_os->file_write(image->fd, words, n * 8, image->super.desc_off + from * 8);
		from += n;
	}
	return rc;
}

/* Written once: what was only set aside would cost each flush a change of the file's extents. */
static int write_wal(const struct image *image)
{
	static const char zeros[64 << 10];
	uint64_t size = image->super.wal_size;
	int rc = 0;

	for (uint64_t at = 0; at < size && !rc; at += sizeof(zeros))
		rc = ph_os->file_write(image->fd, zeros,
				       size - at < sizeof(zeros) ? (size_t)(size - at) : sizeof(zeros),
				       image->super.wal_off + at);
	return rc;
}

static int image_write(struct image *image)
{
	struct phd_head head = {.magic = PHD_HEAD_MAGIC, .chunk_count = image->chunk_count};
	int rc = write_sectors(image);

	if (!rc)
		rc = ph_os->file_write(image->fd, &head, sizeof(head), image->super.head_off);
	if (!rc)
		rc = write_journal_descriptors(image);
	if (!rc && ph_super_has_wal(&image->super))
		rc = write_wal(image);
	if (!rc)
		rc = ph_os->file_sync(image->fd);
	if (rc == -ENOSPC || rc == -EDQUOT)
		return space_error(rc, image);
	return rc ? ph_error(NULL, rc, "writing the new heap failed: %s", pheap_strerror(rc)) : 0;
}

static int image_fill(struct image *image, uint32_t flags)
{
	int rc = ph_os->file_network(image->fd);

	if (rc > 0)
		return ph_error(
			NULL, -EOPNOTSUPP,
			"a heap cannot live on a network or user-space file system: processes would not see "
			"each "
			"other's stores and locks; choose a local one");
	if (rc < 0)
		return ph_error(NULL, rc, "asking for the kind of file system failed: %s",
				pheap_strerror(rc));
	rc = ph_os->random(image->super.uuid, sizeof(image->super.uuid));
	if (rc)
		return ph_error(NULL, rc, "no random bytes for the heap's uuid: %s", pheap_strerror(rc));
	rc = image_allocate(image);
	if (!rc && flags & PHEAP_FIXED)
		rc = fixed_base_choose(image);
	return rc ? rc : image_write(image);
}

static int image_publish(const struct image *image, const char *path)
{
	/* ORDER(create-publish): the whole image durable (file_sync in image_write) before it has its name.
	 * Crash between: no file of that name. Pairs with open.c:file_get, which takes what it finds
	 * under the name for a whole heap. */
	int rc = ph_os->file_link(image->fd, image->temporary, path);

	if (rc == -EEXIST)
		return ph_error(NULL, rc, "the file exists already");
	if (rc)
		return ph_error(NULL, rc, "giving the new heap its name failed: %s", pheap_strerror(rc));
	/* The name exists and others may have opened it: from here on the heap stays, whatever fails. */
	rc = ph_os->folder_sync(path);
	return rc ? ph_error(NULL, rc, "the heap was created, but syncing its folder failed: %s",
			     pheap_strerror(rc))
		  : 0;
}

int ph_create(const char *path, uint32_t flags, uint32_t durability, const struct pheap_options *opt,
	      struct ph_file_info *ret)
{
	struct image image = {.fd = -1};
	int rc = ph_super_plan(opt, durability, &image.super, &image.chunk_count);

	if (rc)
		return rc;
	if (flags & PHEAP_EPHEMERAL)
		image.super.compat |= PHD_COMPAT_EPHEMERAL;
	image.fd = ph_os->file_create_unnamed(path, opt->mode ? opt->mode : 0600, image.temporary,
					      sizeof(image.temporary));
	if (image.fd < 0)
		return ph_error(NULL, image.fd, "creating the file failed: %s", pheap_strerror(image.fd));
	rc = image_fill(&image, flags);
	if (!rc)
		rc = image_publish(&image, path);
	/* Without a name the space goes back when the descriptor is closed; with one, when the name is
	 * gone too. */
	if (image.temporary[0])
		(void)ph_os->file_unlink(image.temporary);
	(void)ph_os->file_close(image.fd);
	*ret = image.info;
	return rc;
}
