/* SPDX-License-Identifier: MIT
 *
 * attach.c: see attach.h.
 *
 *   nobody --first_enter--> in use --slot_take--> member
 *   in use --join_check----------'
 *   member --ph_detach--> in use by others, or --last_leave--> clean
 *
 * Every edge happens under the gate byte; a process killed on an edge drops the gate and leaves what the next
 * first opener (nobody alive) or joiner (others alive) recovers.
 */
#include "attach.h"

#include <errno.h>
#include <string.h>

#include "ephemeral.h"
#include "error.h"
#include "hold.h"
#include "checkpoint.h"
#include "member.h"
#include "mutant.h"
#include "power.h"
#include "recovery.h"
#include "super.h"
#include "wal.h"

#define ATTACHMENT_BATCH 1024u
#define ATTACHMENT_MAX (1ull << 46) /* below the 47 bits of a word's generation */
#define OPEN_GEN_MAX (1ull << 62)
#define NAP_NS_MIN 200000u
#define NAP_NS_MAX 1000000u
#define SLOT_TRIES 5u
#define SLOT_NAP_NS 1000000u

/* What is read once and used through one attach or detach. */
struct attach {
	struct phd_state state;
	uint32_t copy;
	uint8_t boot_id[16];
	bool boot_known;
	bool was_clean;
};

/* ---- the gate ---- */

int ph_attach_gate_take(int fd, uint64_t timeout_ns)
{
	uint64_t start_ns = ph_os->clock_ns(), nap_ns = NAP_NS_MIN;
	const uint32_t word = 0;
	int rc;

	while ((rc = ph_os->lock_set(fd, PHD_LOCK_GATE, true, timeout_ns == 0)) == -EAGAIN) {
		if (ph_os->clock_ns() - start_ns >= timeout_ns)
			return ph_error(
				NULL, -ETIMEDOUT,
				"another process has been opening or closing this heap for %llu ms; is it "
				"stopped?",
				(unsigned long long)(timeout_ns / 1000000));
		(void)ph_os->futex_wait(&word, 0, nap_ns);
		nap_ns = nap_ns < NAP_NS_MAX / 2 ? nap_ns * 2 : NAP_NS_MAX;
	}
	return rc ? ph_error(NULL, rc, "locking the heap file failed: %s", pheap_strerror(rc)) : 0;
}

void ph_attach_gate_drop(int fd)
{
	(void)ph_os->lock_clear(fd, PHD_LOCK_GATE);
}

/* ---- state ---- */

static int attach_read(struct pheap *h, struct attach *ret)
{
	int rc = ph_state_read(h->fd, &ret->state, &ret->copy);

	if (rc)
		return rc;
	if (ret->state.attachment_limit > ATTACHMENT_MAX)
		return ph_error(NULL, PHEAP_ECORRUPT,
				"state sector: attachment_limit is %llu; run pheap-fsck on the file",
				(unsigned long long)ret->state.attachment_limit);
	ret->boot_known = ph_os->boot_id(ret->boot_id) == 0;
	return 0;
}

static bool same_boot(const struct attach *a)
{
	return a->boot_known && memcmp(a->boot_id, a->state.boot_id, sizeof(a->boot_id)) == 0;
}

/* File systems without birth times say 0. */
static bool same_file(const struct attach *a, const struct ph_file_info *info)
{
	return a->state.inode == info->inode &&
	       (a->state.birth_ns == info->birth_ns || !a->state.birth_ns || !info->birth_ns);
}

/* A snapshot of the whole file system, mounted beside it: of this boot, but a cut all the same. */
static bool same_device(const struct pheap *h, const struct attach *a)
{
	return a->state.dev == h->dev || !a->state.dev;
}

/* With a WAL, what has to be done is recovery of a power cut: the machine went down, or a sync failed and what memory has is
 * not what the disk has. */
static bool power_lost(const struct pheap *h, const struct attach *a)
{
	uint64_t poison = h->coord->poison;

	return ph_super_has_wal(&h->super) && !a->state.clean &&
	       (!same_boot(a) || !same_device(h, a) || (poison && poison != (uint64_t)-PHEAP_ECORRUPT));
}

/* A heap that nobody has open and that was not closed: may this process recover it? */
static int unclean_check(const struct pheap *h, const struct attach *a, const struct ph_file_info *info)
{
	static const uint8_t unknown[16];
	uint64_t poison = h->coord->poison;

	if (!same_file(a, info))
		return ph_error(
			NULL, PHEAP_EREBOOT,
			"this file is a copy taken while the heap was in use; run pheap-fsck -y FILE to "
			"accept it");
	if (ph_super_has_wal(&h->super))
		return 0;
	/* Recovery may be tried again; a sync that failed may not: the kernel has forgotten what it could
	 * not write. */
	if (poison && poison != (uint64_t)-PHEAP_ECORRUPT)
		return ph_error(
			NULL, PHEAP_EPOISONED,
			"writing the heap to its file failed when it was last closed (%s); run pheap-fsck -y "
			"FILE",
			poison < 4096 ? pheap_strerror(-(int)poison) : "unknown error");
	if (memcmp(a->state.boot_id, unknown, sizeof(unknown)) == 0)
		return ph_error(NULL, PHEAP_EREBOOT,
				"the heap was not closed cleanly, and whether the machine went down since is "
				"unknown; run "
				"pheap-fsck -y FILE to check and accept it");
	if (!same_boot(a))
		return ph_error(
			NULL, PHEAP_EREBOOT,
			"the machine went down while the heap was open; with PHEAP_PROCESS its state cannot "
			"be trusted; "
			"run pheap-fsck -y FILE to check and accept it");
	return 0;
}

/* ---- attachment numbers ---- */

/* Were the words of phd_coord written since the heap was last made not clean? Their open_gen is written last,
 * and dirty_write makes the durable one larger than any that may be left over from before. */
static bool coord_current(const struct pheap *h, const struct attach *a)
{
	return !a->state.clean && h->coord->open_gen >= a->state.open_gen;
}

/* The first number that was never given out. */
static uint64_t attachment_first(const struct pheap *h, const struct attach *a)
{
	uint64_t next = h->coord->attachment_next;
	uint64_t limit = a->state.attachment_limit ? a->state.attachment_limit : 1;

	return coord_current(h, a) && next >= 1 && next <= limit ? next : limit;
}

/* A number for this process. */
static int attachment_take(struct pheap *h, struct attach *a)
{
	uint64_t next = h->coord->attachment_next;

	if (next >= h->coord->attachment_limit) {
		/* ORDER(attach-limit): the higher limit is durable before a number of the new batch is used.
		 * Crash between: the batch is skipped. Pairs with attachment_first. */
		a->state.attachment_limit = next + ATTACHMENT_BATCH;
		int rc = ph_state_write(h->fd, &a->state, &a->copy);

		if (rc)
			return rc;
		h->coord->attachment_limit = a->state.attachment_limit;
	}
	h->coord->attachment_next = next + 1;
	h->member_id = next;
	return 0;
}

/* ---- the first opener ---- */

/* What a heap without holes has on the disk, at least. */
static uint64_t whole_size(const struct pheap *h)
{
	return h->super.desc_off +
	       h->head->chunk_count * (PHD_CHUNK_SIZE + sizeof(uint64_t) + sizeof(struct phd_bits) +
				       sizeof(struct phd_words));
}

/* The data of all chunks, but of those that may be holes. */
static int data_fill(const struct pheap *h)
{
	uint64_t count = h->head->chunk_count;
	int rc = 0;

	for (uint64_t at = 0, n; at < count && rc == 0; at += n + 1) {
		for (n = 0; at + n < count && h->desc[at + n] != PHD_DESC_HOLE; n++)
			;
		if (n)
			rc = ph_os->file_allocate(h->fd, h->data_off + at * PHD_CHUNK_SIZE,
						  n * PHD_CHUNK_SIZE);
	}
	return rc;
}

/* A heap that was copied may have got holes where there were zeros; a store into one can meet a full disk.
 * Only a copy can have them, and only a clean copy is opened, so this looks (at one number) when the heap
 * is clean. One that was trimmed has said how much it had. */
static int holes_fill(const struct pheap *h, const struct attach *a, const struct ph_file_info *info)
{
	uint64_t whole = whole_size(h), closed = a->state.allocated_size;
	int rc;

	if (info->allocated >= (closed && closed < whole ? closed : whole))
		return 0;
	rc = ph_os->file_allocate(h->fd, 0, h->super.desc_off);
	if (!rc)
		rc = ph_super_allocate_tables(h->fd, &h->super, 0, h->head->chunk_count);
	if (!rc)
		rc = data_fill(h);
	return rc ? ph_error(NULL, rc,
			     "the file has holes, as a sparse copy has, and filling them failed: %s",
			     pheap_strerror(rc))
		  : 0;
}

/* Makes {this boot, not clean} durable. */
static int dirty_write(struct pheap *h, struct attach *a, const struct ph_file_info *info, uint64_t next)
{
	uint64_t old_gen = h->coord->open_gen;
	int rc;

	memcpy(a->state.boot_id, a->boot_id, sizeof(a->boot_id));
	a->state.inode = info->inode;
	a->state.birth_ns = info->birth_ns;
	a->state.dev = info->dev;
	a->state.clean = PH_MUTANT(PH_MUTANT_CLEAN_EARLY) ? 1 : 0;
	a->state.open_gen =
		(old_gen > a->state.open_gen && old_gen < OPEN_GEN_MAX ? old_gen : a->state.open_gen) + 1;
	a->state.attachment_limit = next + ATTACHMENT_BATCH;
	/* ORDER(state-dirty): before the first store of this open into the mapping, which is in
	 * ph_recovery_all. Crash between: nothing was stored. Pairs with unclean_check. */
	rc = ph_state_write(h->fd, &a->state, &a->copy);
	/* Both copies: the other one says clean, and would count if this one were torn by a later write. */
	if (rc == 0 && a->was_clean)
		rc = ph_state_write(h->fd, &a->state, &a->copy);
	/* The kernel may show the next opener what the disk does not have. */
	if (h->leased)
		__atomic_store_n(&h->coord->poison, (uint64_t)-rc, __ATOMIC_RELEASE);
	return rc;
}

/* The file is as long as the heap in it says. */
static int size_check(const struct pheap *h, const struct ph_file_info *info)
{
	uint64_t need = h->data_off + h->head->chunk_count * PHD_CHUNK_SIZE;

	if (info->size >= need)
		return 0;
	return ph_error(
		NULL, PHEAP_ECORRUPT,
		"truncated: the file has %llu bytes, the heap in it %llu; restore a copy or run pheap-fsck",
		(unsigned long long)info->size, (unsigned long long)need);
}

/* What the disk has becomes a heap; then it is as if this were its first boot. */
static int power_enter(struct pheap *h, struct attach *a)
{
	int rc;

	/* ORDER(state-unknown): whatever says that this has to be done may be another thing next time, or only in memory, which is
	 * forgotten now; and the rest of this may fail. A cut behind it: recovered again. Pairs with power_lost. */
	memset(a->state.boot_id, 0, sizeof(a->state.boot_id));
	rc = PH_MUTANT(PH_MUTANT_POISON_FORGOT) ? 0 : ph_state_write(h->fd, &a->state, &a->copy);
	if (rc)
		return rc;
	rc = ph_os->file_forget(h->fd, h->map, h->super.size_max);
	if (rc)
		return ph_error(NULL, rc, "dropping what the kernel remembers of the file failed: %s",
				pheap_strerror(rc));
	return ph_power_recover(h);
}

/* Makes a heap that nobody has ready, and durable that it is not clean. */
static int first_make_ready(struct pheap *h, struct attach *a, const struct ph_file_info *info, bool power)
{
	/* Words of the ring, too, are those of this boot only if an opener came so far as to write them. */
	bool wal = ph_super_has_wal(&h->super), current = coord_current(h, a);
	int rc = PH_MUTANT(PH_MUTANT_STATE_FIRST) && power
			 ? dirty_write(h, a, info, a->state.attachment_limit)
			 : 0;

	if (rc)
		return rc;
	rc = power ? power_enter(h, a) : size_check(h, info);

	if (!rc && a->state.clean)
		rc = holes_fill(h, a, info);
	/* In the same boot a heap that was not closed says already what has to be said: then nothing is flushed. */
	if (!rc && (a->state.clean || power))
		rc = dirty_write(h, a, info, attachment_first(h, a));
	if (!rc && wal)
		rc = ph_checkpoint_first(h, a->was_clean || power || !current);
	return rc;
}

static int first_enter(struct pheap *h, struct attach *a, const struct ph_file_info *info)
{
	bool power = power_lost(h, a), current = coord_current(h, a) && !power;
	uint64_t next, open_gen = h->coord->open_gen + 1;
	int rc = 0;

	a->was_clean = h->was_clean = a->state.clean;
	next = power ? a->state.attachment_limit : attachment_first(h, a);
	if (!a->state.clean)
		rc = unclean_check(h, a, info);
	if (!rc)
		rc = first_make_ready(h, a, info, power);
	if (!rc)
		rc = ph_recovery_all(h);
	/* Nobody is active: what a checkpoint needs no room in the ring for, if deaths have used that up. */
	if (!rc && h->leased && h->coord->tail - h->coord->replay_lsn > h->super.wal_size / 4 * 3) {
		rc = ph_checkpoint_close(h);
		if (rc && !PH_MUTANT(PH_MUTANT_FIRST_DEAF))
			rc = ph_wal_poison(h, rc);
	}
	if (rc)
		return rc;
	h->coord->attachment_next = next;
	h->coord->attachment_limit = a->state.attachment_limit;
	/* The only word that is not freed by its owner's death: a switch that was cut leaves
	 * PHD_MODE_SWITCH. */
	__atomic_store_n(&h->coord->gate, PHD_MODE_NONE, __ATOMIC_RELEASE);
	ph_hold_first(h);
	/* Last: makes the numbers above believed by coord_current. */
	__atomic_store_n(&h->coord->open_gen, current ? open_gen : a->state.open_gen, __ATOMIC_RELEASE);
	return 0;
}

/* Others have the heap open. */
static int join_check(const struct attach *a, const struct ph_file_info *info)
{
	if (a->state.clean)
		return ph_error(
			NULL, PHEAP_ECORRUPT,
			"the heap says that nobody has it open, but a process has; is another program "
			"locking the file?");
	if (!same_file(a, info))
		return ph_error(NULL, PHEAP_EREBOOT,
				"the processes that have this heap open see another file (inode %llu)",
				(unsigned long long)a->state.inode);
	if (!same_boot(a))
		return ph_error(NULL, PHEAP_EREBOOT,
				"the heap is open on another machine, or the boot id cannot be read; a heap "
				"is shared by processes of one machine only");
	return 0;
}

/* ---- members ---- */

static void row_write(struct pheap *h)
{
	struct phd_member *row = &h->members[h->slot];

	ph_os->process(&row->pid, &row->start_ticks, row->command);
	row->flags = h->fenced ? PHD_MEMBER_FENCE : 0;
	/* ORDER(member-byte): the slot byte is locked, the rest of the row written, then the number. Crash
	 * between: the slot looks free and its byte drops. Pairs with member.c:ph_member_check. */
	__atomic_store_n(&row->attachment, h->member_id, __ATOMIC_RELEASE);
}

static void row_clear(struct pheap *h)
{
	struct phd_member *row = &h->members[h->slot];

	ph_recovery_leaving(h, h->slot);
	__atomic_store_n(&row->attachment, 0, __ATOMIC_RELEASE);
	row->pid = 0;
	row->flags = 0;
	row->start_ticks = 0;
	memset(row->command, 0, sizeof(row->command));
}

/* A slot whose byte is ours now. Rows that the dead left are second choice: taking one means recovering
 * it first. */
static int slot_find_once(struct pheap *h)
{
	for (int with_dead = 0; with_dead < 2; with_dead++)
		for (uint32_t i = 0; i < h->super.member_count; i++) {
			bool used = __atomic_load_n(&h->members[i].attachment, __ATOMIC_ACQUIRE) != 0;
			int rc;

			if (used && !with_dead)
				continue;
			rc = ph_os->lock_set(h->fd, PHD_LOCK_SLOT + i, true, false);
			if (rc == -EAGAIN)
				continue;
			if (rc)
				return ph_error(NULL, rc, "locking a member slot failed: %s",
						pheap_strerror(rc));
			h->slot = i;
			return 0;
		}
	return -EUSERS;
}

/* Whoever recovers a dead member has its byte for that moment: a table that looks full may not be. */
static int slot_find(struct pheap *h)
{
	const uint32_t word = 0;
	int rc = slot_find_once(h);

	for (uint32_t i = 0; i < SLOT_TRIES && rc == -EUSERS; i++) {
		(void)ph_os->futex_wait(&word, 0, SLOT_NAP_NS);
		rc = slot_find_once(h);
	}
	if (rc != -EUSERS)
		return rc;
	return ph_error(
		NULL, -EUSERS,
		"all %u member slots of the heap are in use; close it in another process, or create it with "
		"a larger "
		"member_count",
		h->super.member_count);
}

/* G2  of the gate: who changes the mode makes the others' announcements visible by membarrier; a member
 *    that can not call it can not do that for those who rely on it. So either all members fence for
 *    themselves, or none. */
static int fence_choose(struct pheap *h)
{
	bool alone = true, all_fence = true;
	int rc = ph_os->fence_register();

	for (uint32_t i = 0; i < h->super.member_count; i++)
		if (i != h->slot && __atomic_load_n(&h->members[i].attachment, __ATOMIC_ACQUIRE)) {
			alone = false;
			all_fence &= (h->members[i].flags & PHD_MEMBER_FENCE) != 0;
		}
	if (rc && !alone && !all_fence)
		return ph_error(
			NULL, -ENOTSUP,
			"this process may not call membarrier(2) (seccomp?), on which the processes that have the "
			"heap open rely; allow the call, or open the heap here first");
	h->fenced = rc != 0 || (!alone && all_fence);
	h->long_way = ph_tx_long_way(h);
	return 0;
}

static int slot_take(struct pheap *h, struct attach *a)
{
	int rc = slot_find(h);

	if (rc)
		return rc;
	rc = ph_recovery_member(h, h->slot);
	if (!rc)
		rc = attachment_take(h, a);
	if (!rc)
		rc = ph_os->lock_set(h->fd, PHD_LOCK_ANY, false, false);
	if (!rc)
		rc = fence_choose(h);
	if (rc) {
		(void)ph_os->lock_clear(h->fd, PHD_LOCK_SLOT + h->slot);
		(void)ph_os->lock_clear(h->fd, PHD_LOCK_ANY);
		return rc;
	}
	row_write(h);
	return 0;
}

/* ---- leaving ---- */

/* Members that died unseen: their lanes must be idle before the heap is called clean. */
static int dead_recover(struct pheap *h)
{
	for (uint32_t i = 0; i < h->super.member_count; i++) {
		int rc;

		if (i == h->slot || !__atomic_load_n(&h->members[i].attachment, __ATOMIC_ACQUIRE))
			continue;
		rc = ph_os->lock_set(h->fd, PHD_LOCK_SLOT + i, true, false);
		if (!rc)
			rc = ph_recovery_member(h, i);
		(void)ph_os->lock_clear(h->fd, PHD_LOCK_SLOT + i);
		if (rc)
			return rc;
	}
	return 0;
}

/* A sync failed: what the file holds is unknown. Says so in memory, and in the file with a boot id that
 * matches none. */
static int sync_failed(struct pheap *h, struct attach *a, int rc)
{
	__atomic_store_n(&h->coord->poison, (uint64_t)-rc, __ATOMIC_RELEASE);
	memset(a->state.boot_id, 0, sizeof(a->state.boot_id));
	(void)ph_state_write(h->fd, &a->state, &a->copy);
	if (h->leased)
		return ph_error(
			NULL, PHEAP_EPOISONED,
			"writing the heap to its file failed (%s); the next open recovers what the disk has",
			rc > -4096 ? pheap_strerror(rc) : "recovery failed");
	return ph_error(NULL, rc, "writing the heap to its file failed at close (%s); run pheap-fsck -y FILE",
			pheap_strerror(rc));
}

/* Nobody else is attached: {clean}, unless something speaks against it. */
static int last_leave(struct pheap *h)
{
	struct ph_file_info info;
	struct attach a;
	int rc;

	if (h->coord->poison && !h->leased)
		return ph_error(NULL, PHEAP_EPOISONED,
				"the heap had failed and is not marked clean; run pheap-fsck -y FILE");
	rc = attach_read(h, &a);
	if (rc)
		return rc;
	if (h->coord->poison)
		return sync_failed(h, &a, -(int)h->coord->poison);
	rc = h->leased ? ph_checkpoint_close(h) : ph_os->file_sync(h->fd);
	if (rc)
		return sync_failed(h, &a, rc);
	/* What is missing now are holes; if at the next open there is less, it is a sparse copy: holes_fill. */
	rc = ph_os->file_info(h->fd, &info);
	if (rc)
		return ph_error(NULL, rc, "asking about the file failed: %s", pheap_strerror(rc));
	a.state.allocated_size = info.allocated < whole_size(h) ? info.allocated : 0;
	a.state.clean = 1;
	a.state.open_gen = h->coord->open_gen;
	/* Numbers that nobody got go back. */
	if (h->coord->attachment_next < a.state.attachment_limit)
		a.state.attachment_limit = h->coord->attachment_next;
	/* ORDER(clean-last): the file is durable before it says clean. Crash between: the next open recovers
	 * idle lanes. Pairs with first_enter. */
	return ph_state_write(h->fd, &a.state, &a.copy);
}

/* The last one of an ephemeral heap: what is in the file does not matter any more. */
static int ephemeral_leave(const struct pheap *h)
{
	int rc = ph_ephemeral_remove(h->path, h->dev, h->inode);

	return rc ? ph_error(NULL, rc, "removing the ephemeral heap %s failed (%s); the next open does it",
			     h->path, pheap_strerror(rc))
		  : 0;
}

static int leave_locked(struct pheap *h)
{
	int others = ph_os->lock_test(h->fd, PHD_LOCK_ANY);
	bool goes = others == 0 && h->path;
	int rc = 0;

	if (goes && !PH_MUTANT(PH_MUTANT_NAME_LATE))
		rc = ephemeral_leave(h);
	else if (others == 0)
		rc = dead_recover(h);
	row_clear(h);
	(void)ph_os->lock_clear(h->fd, PHD_LOCK_SLOT + h->slot);
	(void)ph_os->lock_clear(h->fd, PHD_LOCK_ANY);
	if (goes && PH_MUTANT(PH_MUTANT_NAME_LATE)) {
		ph_attach_gate_drop(h->fd);
		return ephemeral_leave(h);
	}
	if (others <
	    0) /* nobody may be left; the heap then stays unclean, which the next open can cope with */
		return ph_error(NULL, others, "asking who has the heap open failed: %s",
				pheap_strerror(others));
	if (others == 0 && rc == 0 && !goes)
		rc = last_leave(h);
	return rc;
}

/* ---- the two calls ---- */

int ph_attach(struct pheap *h, const struct ph_file_info *info)
{
	struct attach a;
	int held, rc = attach_read(h, &a);

	if (rc)
		return rc;
	held = ph_os->lock_test(h->fd, PHD_LOCK_ANY);
	if (held < 0)
		return ph_error(NULL, held, "asking who has the heap open failed: %s", pheap_strerror(held));
	rc = held ? join_check(&a, info) : first_enter(h, &a, info);
	if (!rc && held)
		rc = size_check(h, info);
	if (rc)
		return rc;
	rc = slot_take(h, &a);
	/* What the dead left is in the way of the newcomer too. One that cannot be recovered has poisoned the heap, which
	 * pheap_begin will say. */
	if (!rc && held)
		(void)ph_member_check_all(h);
	/* Alone, and everything is recovered: back to clean, so that a reboot does not make the heap
	 * untrusted. */
	if (rc && !held)
		(void)last_leave(h);
	return rc;
}

int ph_detach(struct pheap *h)
{
	int rc = ph_heap_fd_check(h);

	if (rc)
		return rc;
	rc = ph_attach_gate_take(h->fd, 0);
	if (rc)
		return rc;
	rc = leave_locked(h);
	ph_attach_gate_drop(h->fd);
	return rc;
}

int ph_attach_passive(struct pheap *h, int why)
{
	struct attach a;
	int held, rc = attach_read(h, &a);

	if (rc)
		return rc;
	held = ph_os->lock_test(h->fd, PHD_LOCK_ANY);
	if (held < 0)
		return ph_error(NULL, held, "asking who has the heap open failed: %s", pheap_strerror(held));
	if (held)
		return ph_error(
			NULL, why,
			"the heap is in use; joining it, also for reading, needs write permission on the "
			"file");
	if (!a.state.clean)
		return ph_error(
			NULL, why,
			"the heap was not closed cleanly; recovering it, also for reading, needs write "
			"permission on the "
			"file");
	h->was_clean = true;
	return 0;
}
