/* SPDX-License-Identifier: MIT
 *
 * open.c: see open.h.
 *
 * Two locks: open_lock is held through a whole open or close, which may wait for other processes; table_lock
 * only while the table is looked at. Order: open_lock, table_lock. Both are taken around fork, so that a
 * child never has half an open. Registering types is a transaction, which may wait for other threads: it runs
 * after open_lock is dropped.
 */
#define _GNU_SOURCE /* O_PATH */
#include "open.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "attach.h"
#include "create.h"
#include "ephemeral.h"
#include "error.h"
#include "hold.h"
#include "keeper.h"
#include "mutant.h"
#include "options.h"
#include "os.h"
#include "reserve.h"
#include "signals.h"
#include "super.h"
#include "thread.h"
#include "tx.h"
#include "types.h"

#define LOCK_TIMEOUT_DEFAULT_MS 10000u
#define TRIES 8u      /* at least, at a file that others make and remove */
#define LINK_TRIES 4u /* at a name that is taken and leads to no file */

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static CDS_LIST_HEAD(table);   /* open heaps */
static CDS_LIST_HEAD(handles); /* closed ones, to be used again: H2 */
static uint64_t next_id = 1;   /* under open_lock */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* One call of pheap_open. */
struct opening {
	const char *path;
	uint32_t flags;
	uint32_t durability; /* asked for; 0: the heap's */
	struct pheap_options opt;
	int fd;
	struct ph_file_info info;
	bool passive; /* nothing may be written */
	int passive_why;
	bool unlinked; /* the file lost its name while it was being opened */
	uint64_t start_ns;
	struct ph_file_info made; /* inode 0: this call made no file */
};

static uint64_t timeout_ns(const struct opening *o)
{
	return (o->opt.lock_timeout_ms ? o->opt.lock_timeout_ms : LOCK_TIMEOUT_DEFAULT_MS) * 1000000ull;
}

/* ---- handles ---- */

static pheap *handle_get(void)
{
	pheap *h;

	if (cds_list_empty(&handles)) {
		h = malloc(sizeof(*h));
		if (!h)
			return NULL;
	} else {
		h = cds_list_first_entry(&handles, struct pheap, node);
		cds_list_del(&h->node);
	}
	memset(h, 0, sizeof(*h));
	h->id = next_id++;
	h->fd = -1;
	h->ref_count = 1;
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_init(&h->helper_lock, NULL);
	pthread_mutex_init(&h->recovery_lock, NULL);
	pthread_mutex_init(&h->append_lock, NULL);
	pthread_mutex_init(&h->flush_lock, NULL);
	pthread_mutex_init(&h->checkpoint_lock, NULL);
	CDS_INIT_LIST_HEAD(&h->txs);
	return h;
}

static void handle_put(pheap *h)
{
	free(h->path);
	h->path = NULL;
	h->magic = 0;
	h->id = UINT64_MAX;
	h->base = NULL;
	cds_list_add(&h->node, &handles);
}

void ph_heap_misused(const char *call)
{
	ph_fatal("%s: heap is not open", call);
}

/* ---- table ---- */

pheap *ph_open_find(bool (*fn)(const pheap *h, const void *arg), const void *arg)
{
	pheap *h, *found = NULL;

	pthread_mutex_lock(&table_lock);
	cds_list_for_each_entry(h, &table, node) {
		if (fn(h, arg)) {
			found = h;
			break;
		}
	}
	pthread_mutex_unlock(&table_lock);
	return found;
}

int pheap_signals_defer(const int *signals, size_t n)
{
	pheap *h;
	int rc;

	pthread_mutex_lock(&table_lock);
	rc = ph_signals_set(signals, n);
	cds_list_for_each_entry(h, &table, node)
		__atomic_store_n(&h->deferring, ph_signals_on(), __ATOMIC_RELEASE);
	pthread_mutex_unlock(&table_lock);
	return rc;
}

static void table_add(pheap *h)
{
	pthread_mutex_lock(&table_lock);
	h->deferring = ph_signals_on();
	cds_list_add(&h->node, &table);
	pthread_mutex_unlock(&table_lock);
}

static void table_remove(pheap *h)
{
	pthread_mutex_lock(&table_lock);
	cds_list_del(&h->node);
	pthread_mutex_unlock(&table_lock);
}

static bool is_file(const pheap *h, const void *arg)
{
	const struct ph_file_info *info = arg;

	return h->dev == info->dev && h->inode == info->inode;
}

/* ---- fork ---- */

static void fork_prepare(void)
{
	pthread_mutex_lock(&open_lock);
	pthread_mutex_lock(&table_lock);
	ph_thread_fork_prepare();
	ph_signals_fork_prepare();
}

static void fork_parent(void)
{
	ph_thread_fork_done();
	pthread_mutex_unlock(&table_lock);
	pthread_mutex_unlock(&open_lock);
	ph_signals_fork_done();
}

/* The child shares the parent's open file descriptions: as long as it keeps one, the parent looks alive. The
 * mappings are not inherited (os.h). */
static void fork_child(void)
{
	pheap *h, *next;

	cds_list_for_each_entry_safe(h, next, &table, node) {
		cds_list_del(&h->node);
		(void)ph_os->file_close(h->fd);
		h->fd = -1;
		h->forked = true;
		/* Another thread of the parent may have held them. */
		pthread_mutex_init(&h->lock, NULL);
		pthread_mutex_init(&h->helper_lock, NULL);
		pthread_mutex_init(&h->recovery_lock, NULL);
		pthread_mutex_init(&h->append_lock, NULL);
		pthread_mutex_init(&h->flush_lock, NULL);
		pthread_mutex_init(&h->checkpoint_lock, NULL);
		ph_thread_heap_forked(h);
	}
	ph_signals_forked();
	fork_parent();
}

static void fork_register(void)
{
	(void)pthread_atfork(fork_prepare, fork_parent, fork_child);
}

/* ---- the file ---- */

static int open_error(const struct opening *o, int rc)
{
	switch (rc) {
	case -ENOENT:
		return ph_error(NULL, rc, "no such file; open with PHEAP_CREATE to make one");
	case -EISDIR:
		return ph_error(NULL, rc, "this is a folder, not a heap file");
	case -EACCES:
	case -EPERM:
	case -EROFS:
		return ph_error(NULL, rc, "the file may not be written (%s)%s", pheap_strerror(rc),
				o->flags & PHEAP_RDONLY
					? " and not be read either"
					: "; PHEAP_RDONLY opens a heap that was closed cleanly");
	default:
		return ph_error(NULL, rc, "opening the file failed: %s", pheap_strerror(rc));
	}
}

/* Also a reader opens for writing if it may: it is a member, and may have to recover. */
static int file_open(struct opening *o)
{
	o->passive = false;
	o->fd = ph_os->file_open(o->path, O_RDWR, 0);
	if (o->flags & PHEAP_RDONLY && (o->fd == -EACCES || o->fd == -EROFS || o->fd == -EPERM)) {
		o->passive_why = o->fd;
		o->passive = true;
		o->fd = ph_os->file_open(o->path, O_RDONLY, 0);
	}
	return o->fd < 0 ? o->fd : 0;
}

static int file_check(struct opening *o)
{
	int rc = ph_os->file_info(o->fd, &o->info);

	if (rc)
		return ph_error(NULL, rc, "asking about the file failed: %s", pheap_strerror(rc));
	if (o->info.directory)
		return open_error(o, -EISDIR);
	if (!o->info.regular)
		return ph_error(NULL, -EINVAL, "this is not a regular file");
	rc = ph_os->file_network(o->fd);
	if (rc > 0)
		return ph_error(
			NULL, -EOPNOTSUPP,
			"a heap cannot be used on a network or user-space file system: processes would not "
			"see each "
			"other's stores and locks; copy it to a local one");
	return rc ? ph_error(NULL, rc, "asking for the kind of file system failed: %s", pheap_strerror(rc))
		  : 0;
}

/* Is it the file that this call has made? */
static bool is_mine(const struct opening *o)
{
	struct ph_file_info info;

	return o->made.inode && ph_os->file_info(o->fd, &info) == 0 && info.inode == o->made.inode &&
	       info.dev == o->made.dev && info.birth_ns == o->made.birth_ns;
}

/* 1: the file was an ephemeral heap that nobody has any more, and is gone. */
static int stale_clear(const struct opening *o, const struct phd_super *super)
{
	char path[PATH_MAX];
	int rc;

	if (!ph_ephemeral(super) || o->passive)
		return 0;
	rc = ph_attach_gate_take(o->fd, timeout_ns(o));
	if (rc)
		return 0;
	rc = ph_ephemeral_stale(o->fd, super);
	if (rc == 1 && (ph_os->file_path(o->path, path, sizeof(path)) ||
			ph_ephemeral_remove(path, o->info.dev, o->info.inode)))
		rc = 0;
	ph_attach_gate_drop(o->fd);
	return rc == 1;
}

/* PHEAP_EXCL met a file: 0 when it is gone. */
static int exclusive_refuse(struct opening *o)
{
	struct phd_super super;
	bool gone = file_check(o) == 0 && ph_super_read(o->fd, o->info.size, &super) == 0 &&
		    stale_clear(o, &super);

	(void)ph_os->file_close(o->fd);
	o->fd = -1;
	return gone ? 0 : ph_error(NULL, -EEXIST, "the file exists already");
}

/* A symbolic link: its name is taken, though opening it finds nothing. */
static bool is_link(const char *path)
{
	struct ph_file_info info;
	int fd = ph_os->file_open(path, O_PATH | O_NOFOLLOW, 0), rc;

	if (fd < 0)
		return false;
	rc = ph_os->file_info(fd, &info);
	(void)ph_os->file_close(fd);
	return rc == 0 && !info.regular && !info.directory;
}

/* Others may make and remove a file of that name all the time: tries go on as long as waiting for a lock would. */
static bool tries_left(const struct opening *o, uint32_t i)
{
	return i < TRIES || ph_os->clock_ns() - o->start_ns < timeout_ns(o);
}

/* What a new heap gets. One that goes with its users has no use for more than they can have of it. */
static uint32_t durability_of(const struct opening *o)
{
	if (o->durability)
		return o->durability;
	return o->flags & PHEAP_EPHEMERAL ? PHEAP_PROCESS : PHEAP_SYNC;
}

/* Opens the file, making it first if that is asked for. What stands under the name is a whole heap:
 * ORDER(create-publish). */
static int file_get(struct opening *o)
{
	for (uint32_t i = 0, ghosts = 0; tries_left(o, i) && ghosts < LINK_TRIES; i++) {
		int rc = file_open(o);

		if (rc == 0 && (!(o->flags & PHEAP_EXCL) || is_mine(o)))
			return file_check(o);
		if (rc == 0) {
			rc = exclusive_refuse(o);
			if (rc)
				return rc;
			continue;
		}
		if (rc != -ENOENT || !(o->flags & PHEAP_CREATE))
			return open_error(o, rc);
		rc = ph_create(o->path, o->flags, durability_of(o), &o->opt, &o->made);
		if (rc && (rc != -EEXIST || o->flags & PHEAP_EXCL))
			return rc;
		ghosts = rc && is_link(o->path) ? ghosts + 1 : 0;
	}
	return ph_error(NULL, -ENOENT, "the file comes and goes, or is a symbolic link to nowhere");
}

/* ---- the heap in it ---- */

static int super_accept(struct opening *o, const struct phd_super *super)
{
	const char *layout = o->opt.layout ? o->opt.layout : "";

	if (o->flags & PHEAP_EPHEMERAL && !ph_ephemeral(super))
		return ph_error(
			NULL, -EINVAL,
			"the heap was created without PHEAP_EPHEMERAL and stays when its users go; open it "
			"without the flag, or remove the file first");
	if (o->durability && o->durability != super->durability << 24)
		return ph_error(NULL, -EINVAL,
				"the heap was created with %s; open it with that, or without a durability",
				super->durability == PHEAP_SYNC >> 24	 ? "PHEAP_SYNC"
				: super->durability == PHEAP_EPOCH >> 24 ? "PHEAP_EPOCH"
									 : "PHEAP_PROCESS");
	if (*layout && *super->layout && strncmp(layout, super->layout, PHD_NAME_SIZE) != 0)
		return ph_error(NULL, PHEAP_ELAYOUT, "the heap's layout is \"%.63s\", not \"%.63s\"",
				super->layout, layout);
	if (!(super->ro_compat & ~PHD_RO_COMPAT_KNOWN))
		return 0;
	if (!(o->flags & PHEAP_RDONLY))
		return ph_error(
			NULL, PHEAP_EFORMAT,
			"the heap uses features that this library can only read (ro_compat bits 0x%llx); use "
			"PHEAP_RDONLY or "
			"a newer library",
			(unsigned long long)(super->ro_compat & ~PHD_RO_COMPAT_KNOWN));
	o->passive = true;
	o->passive_why = PHEAP_EFORMAT;
	return 0;
}

static int truncated(uint64_t size, uint64_t need)
{
	return ph_error(
		NULL, PHEAP_ECORRUPT,
		"truncated: the file has %llu bytes, the heap in it %llu; restore a copy or run pheap-fsck",
		(unsigned long long)size, (unsigned long long)need);
}

static void heap_unmap(pheap *h)
{
	if (h->base && h->base != h->map)
		(void)ph_os->unmap(h->base, h->super.size_max);
	if (h->map)
		(void)ph_os->unmap(h->map, h->super.size_max);
	h->base = h->map = NULL;
}

static void heap_point(pheap *h)
{
	const struct phd_super *super = &h->super;
	char *map = h->map;

	h->coord = (void *)(map + super->coord_off);
	h->members = (void *)(map + super->member_off);
	h->stripes = (void *)(map + super->stripe_off);
	h->lanes = (void *)(map + super->lane_off);
	h->head = (void *)(map + super->head_off);
	h->lane_logs = map + super->lane_log_off;
	h->desc = (void *)(map + super->desc_off);
	h->bits = (void *)(map + super->bits_off);
	h->words = (void *)(map + super->words_off);
	h->data = map + super->data_off;
	h->leased = ph_super_has_wal(super);
	h->ring = map + super->ring_off;
	h->leases = (void *)(map + super->lease_off);
	h->lease_origin = (uintptr_t)h->leases - (super->data_off >> PHD_CHUNK_SHIFT) * sizeof(*h->leases);
	h->table_leases = (void *)(map + super->table_lease_off);
	h->data_off = super->data_off;
	h->data_end = super->data_off;
}

/* The user's mapping is writable unless the heap is read-only; ours is writable unless the heap is
 * passive. */
static int heap_map(pheap *h)
{
	void *fixed = (void *)(uintptr_t)h->super.fixed_base;
	int rc = 0;

	h->base = ph_os->map(fixed, h->super.size_max, !h->read_only, h->fd, fixed != NULL, &rc);
	if (!h->base && fixed && rc == -EEXIST)
		return ph_error(
			NULL, -EBUSY,
			"the heap belongs at address %p (PHEAP_FIXED), where this process has something else",
			fixed);
	if (h->base)
		h->map = h->read_only && !h->passive
				 ? ph_os->map(NULL, h->super.size_max, true, h->fd, false, &rc)
				 : h->base;
	if (!h->base || !h->map)
		return ph_error(NULL, rc,
				"mapping %llu bytes failed: %s; is address space limited (ulimit -v)?",
				(unsigned long long)h->super.size_max, pheap_strerror(rc));
	ph_os->map_scattered(h->base, h->super.data_off);
	if (h->map != h->base)
		ph_os->map_scattered(h->map, h->super.data_off);
	heap_point(h);
	return 0;
}

/* Under the gate. The head is in the mapping: that the file reaches so far was checked before it was
 * mapped. */
static int head_check(const pheap *h, struct opening *o)
{
	uint64_t count = __atomic_load_n(&h->head->chunk_count, __ATOMIC_ACQUIRE);
	int rc;

	if (h->head->magic != PHD_HEAD_MAGIC)
		return ph_error(NULL, PHEAP_ECORRUPT,
				"heap head at offset 0x%llx: wrong magic; run pheap-fsck on the file",
				(unsigned long long)h->super.head_off);
	if (count < h->super.journal_count + 1 || count > h->super.chunk_max)
		return ph_error(NULL, PHEAP_ECORRUPT,
				"heap head: chunk_count is %llu, not within %llu to %llu; run pheap-fsck",
				(unsigned long long)count, (unsigned long long)h->super.journal_count + 1,
				(unsigned long long)h->super.chunk_max);
	/* The size after the count: a member may be growing the file, which does it the other way round. */
	rc = ph_os->file_info(h->fd, &o->info);
	if (rc)
		return ph_error(NULL, rc, "asking about the file failed: %s", pheap_strerror(rc));
	/* After a power cut it may have lost what it had grown by: attach.c looks again. A passive one is clean, or refused. */
	if ((!ph_super_has_wal(&h->super) || h->passive) &&
	    o->info.size < h->super.data_off + count * PHD_CHUNK_SIZE)
		return truncated(o->info.size, h->super.data_off + count * PHD_CHUNK_SIZE);
	/* Removed (and perhaps made again) while we waited for the gate: then this is not the file of
	 * that name. */
	o->unlinked = o->info.link_count == 0 && !PH_MUTANT(PH_MUTANT_NAME_GONE);
	return o->unlinked ? ph_error(NULL, -ENOENT, "the file was removed while it was being opened") : 0;
}

/* Under the gate. An ephemeral heap whose users are all gone goes too, and the caller starts over: E1. */
static int stale_check(pheap *h, struct opening *o)
{
	int rc = ph_ephemeral_stale(h->fd, &h->super);

	if (rc <= 0)
		return rc;
	rc = h->passive ? o->passive_why : ph_ephemeral_remove(h->path, h->dev, h->inode);
	if (rc)
		return ph_error(NULL, rc,
				"the last users of this ephemeral heap died, and removing it failed: %s",
				pheap_strerror(rc));
	o->unlinked = true;
	return ph_error(NULL, -ENOENT, "the last users of this ephemeral heap died, and it with them");
}

static int heap_enter(pheap *h, struct opening *o)
{
	int rc;

	if (h->passive)
		rc = ph_os->lock_set(h->fd, PHD_LOCK_GATE, false, true);
	else
		rc = ph_attach_gate_take(h->fd, h->lock_timeout_ns);
	if (rc)
		return rc;
	rc = head_check(h, o);
	if (!rc)
		rc = stale_check(h, o);
	if (!rc)
		rc = h->passive ? ph_attach_passive(h, o->passive_why) : ph_attach(h, &o->info);
	ph_attach_gate_drop(h->fd);
	return rc;
}

/* Everything that an attached heap has, in the order opposite to heap_start. */
static int heap_stop(pheap *h)
{
	uint32_t *flags = h->passive ? NULL : &h->members[h->slot].flags;

	/* What this process holds goes with it. If that fails, the next one does it. */
	if (flags && *flags & PHD_MEMBER_HOLDS && ph_hold_reap(h, h->member_id) == 0)
		__atomic_fetch_and(flags, ~PHD_MEMBER_HOLDS, __ATOMIC_ACQ_REL);
	ph_keeper_stop(h);
	ph_thread_heap_close(h);
	ph_reserve_close(h);
	ph_alloc_close(h);
	return h->passive ? 0 : ph_detach(h);
}

static int heap_start(pheap *h, struct opening *o)
{
	int rc = heap_map(h);

	if (!rc)
		rc = heap_enter(h, o);
	if (rc)
		return rc;
	rc = ph_alloc_open(h);
	if (!rc && !h->passive) {
		rc = ph_keeper_start(h, o->flags);
		if (rc)
			ph_alloc_close(h);
	}
	if (rc && !h->passive)
		(void)ph_detach(h);
	return rc;
}

/* ORDER(name-first): whoever made the heap may not have come to syncing its folder, or never will: nobody enters a heap whose name
 * a power cut may take. Once somebody has entered, that is done. Pairs with attach.c:dirty_write, which counts open_gen. */
static int name_sync(const struct opening *o)
{
	struct phd_state state;
	uint32_t copy;
	int rc = 0;

	if (!is_mine(o) && !o->passive && ph_state_read(o->fd, &state, &copy) == 0 && state.open_gen == 0)
		rc = ph_os->folder_sync(o->path);
	return rc ? ph_error(NULL, rc, "syncing the folder of the new heap failed: %s", pheap_strerror(rc))
		  : 0;
}

/* Whoever is last removes the name, from whatever folder it works in by then. */
static int ephemeral_path(pheap *h, const struct opening *o)
{
	char path[PATH_MAX];
	int rc;

	if (!ph_ephemeral(&h->super))
		return 0;
	rc = ph_os->file_path(o->path, path, sizeof(path));
	/* Gone since it was opened: head_check says so. */
	if (rc)
		snprintf(path, sizeof(path), "%s", o->path);
	h->path = strdup(path);
	return h->path ? 0 : ph_error(NULL, -ENOMEM, "no memory for a handle");
}

/* Takes the descriptor over, whatever it returns. */
static int heap_open(struct opening *o, pheap **ret)
{
	struct phd_super super;
	pheap *h;
	int rc = ph_super_read(o->fd, o->info.size, &super);

	if (!rc) {
		rc = super_accept(o, &super);
		o->unlinked = rc && stale_clear(o, &super);
	}
	if (!rc && o->info.size < super.data_off + (super.journal_count + 1) * PHD_CHUNK_SIZE)
		rc = truncated(o->info.size, super.data_off + (super.journal_count + 1) * PHD_CHUNK_SIZE);
	h = rc ? NULL : handle_get();
	if (!h) {
		(void)ph_os->file_close(o->fd);
		return rc ? rc : ph_error(NULL, -ENOMEM, "no memory for a handle");
	}
	h->fd = o->fd;
	h->super = super;
	h->dev = o->info.dev;
	h->inode = o->info.inode;
	h->flags = o->flags;
	h->read_only = (o->flags & PHEAP_RDONLY) != 0;
	h->passive = o->passive;
	h->lock_timeout_ns = timeout_ns(o);
	rc = name_sync(o);
	if (!rc)
		rc = ephemeral_path(h, o);
	if (!rc)
		rc = heap_start(h, o);
	if (rc) {
		heap_unmap(h);
		(void)ph_os->file_close(h->fd);
		handle_put(h);
		return rc;
	}
	h->magic = PH_HANDLE_MAGIC;
	*ret = h;
	return 0;
}

/* The file is open in this process already. */
static int heap_share(struct opening *o, pheap *h)
{
	struct opening second = *o;
	int rc;

	/* Closing drops no lock: they belong to the first descriptor's description. */
	(void)ph_os->file_close(o->fd);
	if (h->read_only != ((o->flags & PHEAP_RDONLY) != 0))
		return ph_error(NULL, -EBUSY,
				"this process has the heap open %s; close it first, or open it the same way",
				h->read_only ? "for reading only" : "for writing");
	rc = super_accept(&second, &h->super);
	if (!rc)
		rc = ph_keeper_start(h, o->flags);
	if (!rc)
		h->ref_count++;
	return rc;
}

static int open_locked(struct opening *o, pheap **ret)
{
	int rc = 0;

	for (uint32_t i = 0; tries_left(o, i); i++) {
		o->unlinked = false;
		o->made.inode = 0;
		o->fd = -1;
		rc = file_get(o);
		if (rc && o->fd >= 0)
			(void)ph_os->file_close(o->fd);
		if (rc)
			return rc;
		*ret = ph_open_find(is_file, &o->info);
		if (*ret)
			return heap_share(o, *ret);
		rc = heap_open(o, ret);
		if (rc == 0)
			table_add(*ret);
		if (rc == 0 || !o->unlinked)
			return rc;
	}
	return rc;
}

/* ---- close ---- */

static int close_locked(pheap *h)
{
	int rc;

	if (h->ref_count > 1) {
		h->ref_count--;
		return 0;
	}
	table_remove(h);
	rc = heap_stop(h);
	heap_unmap(h);
	(void)ph_os->file_close(h->fd);
	handle_put(h);
	return rc;
}

/* The child of fork has neither mapping nor descriptor; what the parent's threads kept for this heap is
 * not ours to touch. */
static int close_forked(pheap *h)
{
	pthread_mutex_lock(&open_lock);
	if (--h->ref_count == 0) {
		/* This thread's transaction object names a lane of the parent's; another heap may get this handle. */
		ph_thread_heap_close(h);
		free(h->keeper); /* its thread is the parent's */
		handle_put(h);
	}
	pthread_mutex_unlock(&open_lock);
	return 0;
}

int pheap_close(pheap *h)
{
	int rc;

	if (!h)
		return 0;
	ph_heap_check(h, "pheap_close");
	if (h->forked)
		return close_forked(h);
	pthread_mutex_lock(&open_lock);
	/* Other opens of the same file in this process keep it open: their transactions go on. */
	if (h->ref_count == 1 && ph_tx_any_open(h))
		rc = ph_error(h, PHEAP_EACTIVE,
			      "a transaction of this process is still open in the heap; end it, then close");
	else
		rc = close_locked(h);
	pthread_mutex_unlock(&open_lock);
	return rc;
}

/* ---- open ---- */

static int types_take(pheap *h, const struct opening *o)
{
	int rc = o->opt.type_count ? ph_types_register(h, o->opt.types, o->opt.type_count) : 0;

	if (rc == 0)
		return 0;
	/* The caller gets no handle to ask with. */
	if (*pheap_error_detail(h))
		(void)ph_error(NULL, rc, "%s", pheap_error_detail(h));
	pthread_mutex_lock(&open_lock);
	(void)close_locked(h);
	pthread_mutex_unlock(&open_lock);
	return rc;
}

static int open_run(struct opening *o, pheap **ret)
{
	uint64_t start_ns = o->start_ns = ph_os->clock_ns();
	pheap *h = NULL;
	bool first;
	int rc;

	(void)pthread_once(&fork_once, fork_register);
	pthread_mutex_lock(&open_lock);
	rc = open_locked(o, &h);
	first = rc == 0 && h->ref_count == 1;
	pthread_mutex_unlock(&open_lock);
	if (!rc)
		rc = types_take(h, o);
	if (rc)
		return rc;
	if (first && !h->read_only && ph_hold_due(h))
		(void)ph_hold_reap(h, 0);
	if (first)
		h->open_ns = ph_os->clock_ns() - start_ns;
	*ret = h;
	return 0;
}

/* Puts the path, or its end, in front of the sentence. */
static int sentence_finish(const char *path, int rc)
{
	char text[400];
	size_t n = strlen(path), from = n > 80 ? n - 80 : 0;
	const char *detail = pheap_error_detail(NULL);

	snprintf(text, sizeof(text), "%s", *detail ? detail : pheap_strerror(rc));
	return ph_error(NULL, rc, "%s%s: %s", from ? "..." : "", path + from, text);
}

int pheap_open(const char *path, uint32_t flags, const struct pheap_options *opt, pheap **ret)
{
	struct opening o = {.path = path, .flags = flags, .fd = -1};
	int rc;

	if (ret)
		*ret = NULL;
	if (!path || !ret)
		return ph_error(NULL, -EINVAL, "pheap_open: path and ret must not be NULL");
	(void)ph_error(NULL, 0, "%s", "");
	rc = ph_options_flags(flags);
	if (!rc)
		rc = ph_options_take(opt, &o.opt);
	if (!rc)
		rc = ph_options_durability(flags, o.opt.durability, &o.durability);
	if (!rc)
		rc = open_run(&o, ret);
	/* A success leaves no sentence, also when another process was first to create the file. */
	return rc ? sentence_finish(path, rc) : ph_error(NULL, 0, "%s", "");
}
