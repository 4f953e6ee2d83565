/* SPDX-License-Identifier: MIT
 *
 * checkpoint.c: see checkpoint.h.
 */
#include "checkpoint.h"

#include <errno.h>

#include "alloc.h"
#include "error.h"
#include "lease.h"
#include "log.h"
#include "member.h"
#include "mutant.h"
#include "os.h"
#include "super.h"
#include "wal.h"
#include "word.h"

#define NAP_NS 1000000ull
#define STEAL_AFTER_NS 200000000ull /* a checkpoint that takes longer is made by somebody else as well */
#define SWITCH_TRIES 1000u
#define LOOK_TRIES 100u

/* ---- the switch ---- */

/* Of a transaction that is to be undone, or of one that is to be completed. */
static bool is_wanted(unsigned kind, bool committed)
{
	if (committed)
		return kind >= PHD_REC_DEFER && kind <= PHD_REC_DESC;
	return kind == PHD_REC_UNDO;
}

/* Of a log that its owner may reuse meanwhile: 1 where that shows. */
static int records_copy(const struct ph_log *log, bool committed, struct ph_wal_buf *b)
{
	for (uint32_t i = 0; i < log->count; i++) {
		const struct ph_segment *s = &log->segments[i];
		uint64_t end = i + 1 < log->count ? log->segments[i + 1].base : ph_log_end(log);

		for (uint64_t at = s->base; at < end;) {
			const char *from = s->start + (at - s->base) * 8;
			struct phd_record r;
			char *to;

			memcpy(&r, from, sizeof(r));
			if (ph_log_units(r.size) > end - at)
				return 1;
			at += ph_log_units(r.size);
			if (!is_wanted(PHD_REC_KIND(r.target), committed))
				continue;
			to = ph_wal_entry(b, r.target, r.size);
			if (!to)
				return -ENOMEM;
			memcpy(to, from + sizeof(r), r.size);
		}
	}
	return 0;
}

/* The undo records of a lane that is active, or the others of one that is committing. 0; 1: it is not what it was: look
 * again; -ENOMEM. */
static int log_copy(struct pheap *h, uint32_t lane_idx, uint64_t state, struct ph_wal_buf *b)
{
	struct phd_lane *lane = &h->lanes[lane_idx];
	uint64_t rollbacks = __atomic_load_n(&lane->rollback_count, __ATOMIC_ACQUIRE);
	bool committed = PHD_STATE_STEP(state) != PHD_STEP_ACTIVE;
	size_t size = b->size;
	struct ph_log log = {0};
	int rc;

	rc = ph_log_load(h, lane_idx, PHD_STATE_GEN(state), &log);
	if (rc == 0)
		rc = records_copy(&log, committed, b);
	ph_log_free(&log);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (rc != -ENOMEM && (__atomic_load_n(&lane->state, __ATOMIC_ACQUIRE) != state ||
			      __atomic_load_n(&lane->rollback_count, __ATOMIC_ACQUIRE) != rollbacks))
		rc = 1;
	if (rc)
		b->size = size;
	return rc;
}

/* What the switch has to know of a lane. One that is appending has its record in the log: nobody else has `append`, and who
 * had it died and was recovered, or has put it there. One that looks (EPOCH) is about to be committed, or active again:
 * which, is not known before it is; if it does not get on, it is decided for it. */
static int lane_copy(struct pheap *h, uint32_t lane_idx, struct ph_wal_buf *b)
{
	struct phd_lane *lane = &h->lanes[lane_idx];

	for (unsigned i = 0;; i++) {
		uint64_t state = __atomic_load_n(&lane->state, __ATOMIC_ACQUIRE);
		bool active = PHD_STATE_STEP(state) == PHD_STEP_ACTIVE;
		int rc;

		if (PHD_STATE_STEP(state) == PHD_STEP_IDLE || (active && PH_MUTANT(PH_MUTANT_SWITCH_BARE)) ||
		    (!active && PH_MUTANT(PH_MUTANT_SWITCH_UNDONE)))
			return 0;
		rc = PHD_STATE_STEP(state) == PHD_STEP_LOOKING ? 1 : log_copy(h, lane_idx, state, b);
		if (PHD_STATE_STEP(state) == PHD_STEP_LOOKING && i >= LOOK_TRIES)
			(void)__atomic_compare_exchange_n(
				&lane->state, &state,
				PHD_STATE(PHD_STATE_GEN(state), PHD_STATE_MODE(state), PHD_STEP_ACTIVE),
				false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
		if (rc <= 0)
			return rc;
		if (i >= SWITCH_TRIES) {
			rc = ph_member_check_lane(h, lane_idx);
			return rc < 0 ? rc : -EAGAIN;
		}
		ph_pause();
	}
}

/* Under append, at an even epoch. On success the record is in the log, and the epoch has bit 0 set. -EAGAIN: the copies are too
 * long now. */
static int switch_locked(struct pheap *h, struct ph_wal_buf *b)
{
	struct phd_coord *c = h->coord;
	uint64_t epoch = c->epoch;
	int rc = ph_wal_poisoned(h);

	if (rc == 0)
		rc = ph_wal_start(b);
	if (rc)
		return rc;
	/* In this order: whoever finds the bit compares it with the tail (L5 of wal.h). */
	__atomic_store_n(&c->switch_lsn, c->tail, __ATOMIC_RELEASE);
	__atomic_store_n(&c->epoch, epoch | 1, __ATOMIC_SEQ_CST);
	/* Whoever declares a range looks at the epoch again after its record counts: it sees the bit, or its record is seen
	 * here. Pairs with memory.c:undo_leased. */
	if (h->fenced)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		ph_os->fence_all();
	for (uint32_t i = 0; i < ph_lane_limit(h) && rc == 0; i++)
		rc = lane_copy(h, i, b);
	if (rc == 0 && (b->size > ph_wal_record_max(h) || !ph_wal_fits(h, b->size, true)))
		rc = -EAGAIN;
	if (rc) {
		__atomic_store_n(&c->epoch, epoch, __ATOMIC_RELEASE);
		return rc;
	}
	ph_wal_seal(b, PHD_WAL_SWITCH);
	(void)ph_wal_put(h, b);
	ph_wal_pad(h);
	return 0;
}

/* One try. *switch_lsn: of the epoch that is to be completed. */
static int switch_try(struct pheap *h, struct ph_wal_buf *b, uint64_t *ret_lsn)
{
	struct phd_coord *c = h->coord;
	uint64_t epoch, to;
	int rc = ph_wal_lock(h, 0);

	if (rc < 0)
		return rc;
	epoch = c->epoch;
	if (epoch > c->epoch_lsn) {
		/* Somebody has begun one, and does not get on. */
		ph_wal_unlock(h, 0);
		*ret_lsn = epoch;
		return ph_wal_poisoned(h);
	}
	rc = switch_locked(h, b);
	*ret_lsn = c->switch_lsn;
	to = c->tail;
	ph_wal_unlock(h, 0);
	/* Not under append: one that is stopped here stops nobody (L5 of wal.h). */
	return rc ? rc : ph_wal_switch_end(h, epoch | 1, *ret_lsn, to);
}

static int switch_epoch(struct pheap *h, uint64_t *ret_lsn)
{
	struct ph_wal_buf b = {0};
	uint64_t start_ns = ph_os->clock_ns();
	const uint32_t word = 0;
	int rc;

	while ((rc = switch_try(h, &b, ret_lsn)) == -EAGAIN) {
		if (ph_os->clock_ns() - start_ns > h->lock_timeout_ns) {
			rc = ph_error(
				h, -ETIMEDOUT,
				"the open transactions have changed more than the journal can hold; create the "
				"heap with a larger journal_size");
			break;
		}
		(void)ph_os->futex_wait(&word, 0, NAP_NS);
	}
	ph_wal_free(&b);
	return rc;
}

/* ---- the rest ---- */

static int regions_sync(const struct pheap *h)
{
	uint64_t chunks = ph_chunk_count(h);
	int rc = ph_os->map_sync(h->map + h->super.head_off, PHD_BLOCK_SIZE);

	if (rc == 0)
		rc = ph_os->map_sync(h->map + h->super.desc_off, chunks * sizeof(uint64_t));
	if (rc == 0)
		rc = ph_os->map_sync(h->map + h->super.bits_off, chunks * sizeof(struct phd_bits));
	if (rc == 0)
		rc = ph_os->map_sync(h->map + h->data_off, chunks * PHD_CHUNK_SIZE);
	return rc;
}

/* No lane has had the limit's generation, or will before the next checkpoint. */
static uint64_t lane_gen_limit(const struct pheap *h, uint64_t limit)
{
	uint64_t max = 0;

	for (uint32_t i = 0; i < ph_lane_limit(h); i++) {
		uint64_t gen = PHD_STATE_GEN(__atomic_load_n(&h->lanes[i].state, __ATOMIC_RELAXED));

		if (gen > max)
			max = gen;
	}
	return limit > max && limit - max > PHD_LANE_GEN_STEP / 2 ? limit : max + PHD_LANE_GEN_STEP;
}

static void word_raise(uint64_t *word, uint64_t to)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);

	while (seen < to &&
	       !__atomic_compare_exchange_n(word, &seen, to, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		;
}

static void stall_note(struct pheap *h, uint64_t start_ns)
{
	struct phd_coord *c = h->coord;
	uint64_t ns = ph_os->clock_ns() - start_ns;
	unsigned bin = 0;

	while (bin + 1 < PHD_STALL_BINS && ns >= PHD_STALL_NS << bin)
		bin++;
	__atomic_fetch_add(&c->stall_count, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&c->stall_ns, ns, __ATOMIC_RELAXED);
	__atomic_fetch_add(&c->stall_bins[bin], 1, __ATOMIC_RELAXED);
	word_raise(&c->stall_max_ns, ns);
}

/* The log below the epoch is needed no more. Who comes late with an old one, as it was stopped, changes nothing: K2. */
static void ring_free(struct pheap *h, uint64_t epoch, uint64_t gen_limit)
{
	struct phd_coord *c = h->coord;

	/* ORDER(ring-reuse): after what says so is durable. Pairs with wal.c:ph_wal_fits. */
	word_raise(&c->lane_gen_limit, gen_limit);
	word_raise(&c->epoch_lsn, epoch);
	word_raise(&c->replay_lsn, epoch);
	ph_os->futex_wake((const uint32_t *)(const void *)&c->replay_lsn, 0x7fffffff);
}

static struct phd_live *live_copy(const struct pheap *h, unsigned copy)
{
	return (void *)(h->map + PHD_LIVE_OFF(copy));
}

static int live_sync(const struct pheap *h, unsigned copy)
{
	return ph_os->map_sync(h->map + (uint64_t)copy * PHD_BLOCK_SIZE, PHD_BLOCK_SIZE);
}

/* The copy that is behind, so that the other is not on its way to the disk when the power goes. */
static unsigned live_behind(const struct pheap *h)
{
	return __atomic_load_n(&live_copy(h, 0)->epoch_lsn, __ATOMIC_RELAXED) >
	       __atomic_load_n(&live_copy(h, 1)->epoch_lsn, __ATOMIC_RELAXED);
}

static int live_write(struct pheap *h, uint64_t epoch)
{
	uint64_t gen_limit = lane_gen_limit(h, h->coord->lane_gen_limit);
	unsigned copy = live_behind(h);
	struct phd_live *live;
	int rc;

	/* One that did not get on has raised it already. */
	if (__atomic_load_n(&live_copy(h, copy ^ 1)->epoch_lsn, __ATOMIC_RELAXED) >= epoch)
		copy ^= 1;
	live = live_copy(h, copy);
	/* ORDER(checkpoint-last): kind A and the log up to the switch on the disk before the words that say that nothing older
	 * is needed, which the kernel may write at once. A cut between: the checkpoint before. Pairs with power.c. */
	if (PH_MUTANT(PH_MUTANT_RING_EARLY))
		word_raise(&h->coord->replay_lsn, epoch);
	word_raise(&live->lane_gen_limit, gen_limit);
	if (PH_MUTANT(PH_MUTANT_LIVE_STORED))
		__atomic_store_n(&live->epoch_lsn, epoch, __ATOMIC_RELEASE);
	word_raise(&live->epoch_lsn, epoch);
	rc = live_sync(h, copy);
	if (rc == 0)
		ring_free(h, epoch, gen_limit);
	return rc;
}

/* An epoch that ended because the log was filling had more images than it has room for: pages that were brought along, and
 * perhaps never stored to. One that ended by time had not. */
static void narrow_adapt(struct phd_coord *c, bool filled)
{
	uint64_t narrow = __atomic_load_n(&c->lease_narrow, __ATOMIC_RELAXED);

	if (filled)
		narrow = narrow < PH_LEASE_NARROW_MAX ? narrow + 1 : PH_LEASE_NARROW_MAX;
	else
		narrow -= narrow > 0;
	__atomic_store_n(&c->lease_narrow, narrow, __ATOMIC_RELAXED);
}

/* Others may be in the middle of it too: each step is done by whoever comes, any number of times. */
static int checkpoint_make(struct pheap *h)
{
	struct phd_coord *c = h->coord;
	uint64_t start_ns = ph_os->clock_ns(), epoch = 0;
	int rc;

	__atomic_store_n(&c->checkpoint_start_ns, start_ns, __ATOMIC_RELAXED);
	narrow_adapt(c, ph_checkpoint_wanted(h));
	rc = switch_epoch(h, &epoch);
	if (rc)
		return rc;
	if (!PH_MUTANT(PH_MUTANT_SYNC_FORGOT))
		rc = regions_sync(h);
	/* After a sync that failed, of anybody, the next one succeeds: what was lost counts as written. */
	if (rc == 0 && __atomic_load_n(&c->poison, __ATOMIC_ACQUIRE))
		return ph_wal_poisoned(h);
	if (rc == 0)
		rc = live_write(h, epoch);
	if (rc)
		return ph_wal_poison(h, rc);
	__atomic_fetch_add(&c->checkpoint_count, 1, __ATOMIC_RELAXED);
	c->checkpoint_last_ns = ph_os->clock_ns() - start_ns;
	__atomic_fetch_add(&c->checkpoint_ns, c->checkpoint_last_ns, __ATOMIC_RELAXED);
	return 0;
}

/* Has who makes one stood still as long as the caller has waited for it? */
static bool is_stuck(const struct phd_coord *c, uint64_t since_ns)
{
	uint64_t start_ns = __atomic_load_n(&c->checkpoint_start_ns, __ATOMIC_RELAXED);

	return ph_os->clock_ns() - (start_ns > since_ns ? start_ns : since_ns) > STEAL_AFTER_NS;
}

/* 0: made one, or completed one that somebody had begun; -EAGAIN: somebody does. */
static int checkpoint_try(struct pheap *h, uint64_t since_ns)
{
	uint64_t mine = ph_wal_member_word(h), *word = &h->coord->checkpoint;
	int rc = -EAGAIN;

	if (pthread_mutex_trylock(&h->checkpoint_lock))
		return rc;
	if (ph_word_try(h, word, mine) != PH_BUSY ||
	    (is_stuck(h->coord, since_ns) && ph_word_steal(h, word, mine))) {
		rc = checkpoint_make(h);
		ph_word_release(word, mine);
	}
	pthread_mutex_unlock(&h->checkpoint_lock);
	return rc;
}

/* Whoever makes one may have died. */
static void holder_check(struct pheap *h)
{
	uint64_t word = __atomic_load_n(&h->coord->checkpoint, __ATOMIC_ACQUIRE);

	if (ph_word_held(h, word) && PHD_WORD_LANE(word) >= PHD_WORD_MEMBER)
		(void)ph_member_check(h, PHD_WORD_LANE(word) - PHD_WORD_MEMBER);
}

void ph_checkpoint_soon(struct pheap *h)
{
	(void)checkpoint_try(h, 0);
}

bool ph_checkpoint_wanted(const struct pheap *h)
{
	return ph_wal_tail(h) - __atomic_load_n(&h->coord->replay_lsn, __ATOMIC_ACQUIRE) >
	       h->super.wal_size / 2;
}

uint64_t ph_checkpoint_epoch_ns(const struct pheap *h)
{
	return PHD_EPOCH_MS(&h->super) * 1000000ull;
}

/* By the clock of the last flush: it costs no look at another one. */
static bool is_late(const struct pheap *h)
{
	uint64_t start_ns = __atomic_load_n(&h->coord->checkpoint_start_ns, __ATOMIC_RELAXED);
	uint64_t end_ns = __atomic_load_n(&h->coord->flush_end_ns, __ATOMIC_RELAXED);

	return h->super.durability == PHEAP_SYNC >> 24 && end_ns > start_ns &&
	       end_ns - start_ns > ph_checkpoint_epoch_ns(h);
}

void ph_checkpoint_ring(struct pheap *h)
{
	if (!__atomic_exchange_n(&h->bell, 1, __ATOMIC_ACQ_REL))
		ph_os->futex_wake(&h->bell, 1);
}

void ph_checkpoint_if_due(struct pheap *h)
{
	if (!ph_checkpoint_wanted(h) && !is_late(h))
		return;
	if (h->keeper) {
		ph_checkpoint_ring(h);
	} else {
		uint64_t start_ns = ph_os->clock_ns();

		if (checkpoint_try(h, UINT64_MAX) != -EAGAIN)
			stall_note(h, start_ns);
	}
}

int ph_checkpoint_room(struct pheap *h, size_t size)
{
	struct phd_coord *c = h->coord;
	uint64_t start_ns = ph_os->clock_ns();
	int rc = 0;

	while (!ph_wal_fits(h, size, false)) {
		uint64_t seen = __atomic_load_n(&c->replay_lsn, __ATOMIC_ACQUIRE);

		rc = checkpoint_try(h, start_ns);
		if (rc && rc != -EAGAIN)
			break;
		if (ph_wal_fits(h, size, false))
			break;
		if (ph_os->clock_ns() - start_ns > h->lock_timeout_ns) {
			rc = ph_error(
				h, -ETIMEDOUT,
				"waited too long for room in the journal (%llu bytes); a process may be stopped in "
				"the middle of a commit, or journal_size is too small",
				(unsigned long long)h->super.wal_size);
			break;
		}
		(void)ph_os->futex_wait((const uint32_t *)(const void *)&c->replay_lsn, (uint32_t)seen,
					NAP_NS);
		holder_check(h);
	}
	stall_note(h, start_ns);
	return rc == -EAGAIN ? 0 : rc;
}

int ph_checkpoint_wait(struct pheap *h, uint64_t lsn, uint64_t timeout_ns)
{
	struct phd_coord *c = h->coord;
	uint64_t start_ns = ph_os->clock_ns();

	for (;;) {
		uint64_t seen = __atomic_load_n(&c->epoch_lsn, __ATOMIC_ACQUIRE), passed_ns, nap_ns = NAP_NS;
		int rc;

		if (seen >= lsn)
			return 0;
		rc = ph_wal_poisoned(h);
		if (rc)
			return rc;
		rc = timeout_ns ? checkpoint_try(h, start_ns) : -EAGAIN;
		if (rc && rc != -EAGAIN)
			return rc;
		passed_ns = ph_os->clock_ns() - start_ns;
		if (rc == 0)
			continue;
		if (passed_ns >= timeout_ns)
			return -ETIMEDOUT;
		if (timeout_ns - passed_ns < nap_ns)
			nap_ns = timeout_ns - passed_ns;
		(void)ph_os->futex_wait((const uint32_t *)(const void *)&c->replay_lsn, (uint32_t)seen,
					nap_ns);
		holder_check(h);
	}
}

int ph_checkpoint(struct pheap *h)
{
	int rc = ph_checkpoint_wait(h, ph_wal_tail(h), h->lock_timeout_ns);

	if (rc != -ETIMEDOUT)
		return rc;
	return ph_error(h, rc,
			"waited too long for a checkpoint of the heap; a process may be stopped in one");
}

/* ---- opening and closing ---- */

/* Were the words written since the sector's generation of the log began? An opener may have been killed before it could. */
static bool ring_current(const struct pheap *h, const struct phd_checkpoint *sector)
{
	return h->coord->log_gen == sector->log_gen && h->coord->tail >= sector->replay_lsn;
}

static int ring_check(const struct pheap *h, const struct phd_checkpoint *sector)
{
	const struct phd_coord *c = h->coord;
	uint64_t used = c->tail - c->replay_lsn;

	if ((c->tail | c->durable | c->replay_lsn | c->epoch_lsn) % 8 == 0 && c->replay_lsn <= c->durable &&
	    c->durable <= c->tail && used <= h->super.wal_size && (c->epoch & ~1ull) <= c->tail &&
	    (c->epoch & 6) == 0 && c->epoch_lsn <= c->tail && c->replay_lsn <= c->epoch_lsn &&
	    c->replay_lsn <= sector->replay_lsn && sector->epoch_lsn <= c->tail)
		return 0;
	return ph_error(NULL, PHEAP_ECORRUPT,
			"the words of the journal's ring are damaged; run pheap-fsck on the file");
}

int ph_checkpoint_first(struct pheap *h, bool clean)
{
	struct phd_coord *c = h->coord;
	struct phd_checkpoint sector;
	uint32_t copy;
	int rc = ph_checkpoint_read(h->fd, &h->super, &sector, &copy);

	if (rc == 0)
		rc = ph_live_read(h->fd, &h->super, &sector);
	if (rc < 0)
		return rc;
	c->checkpoint_start_ns = ph_os->clock_ns();
	if (!clean && ring_current(h, &sector)) {
		/* Killed between a checkpoint's words, or the sector, and their copies here, or between it and the clean state. */
		rc = ring_check(h, &sector);
		if (rc == 0 && sector.replay_lsn > c->replay_lsn)
			rc = live_sync(h, live_behind(h) ^ 1);
		if (rc)
			return rc;
		c->epoch &= ~1ull;
		if (c->epoch < sector.epoch_lsn)
			c->epoch = sector.epoch_lsn;
		/* In this order: killed between, it is looked at again. */
		c->epoch_lsn = sector.epoch_lsn;
		__atomic_store_n(&c->replay_lsn, sector.replay_lsn, __ATOMIC_RELEASE);
		c->lane_gen_limit = sector.lane_gen_limit;
		return 0;
	}
	c->append = c->flush = c->checkpoint = 0;
	c->log_gen = sector.log_gen;
	c->lane_gen_limit = sector.lane_gen_limit;
	c->tail = c->durable = c->replay_lsn = c->epoch_lsn = c->epoch = sector.epoch_lsn;
	return 0;
}

/* By the last one there is: nobody stopped can come late. */
static int sector_write(struct pheap *h)
{
	struct phd_coord *c = h->coord;
	struct phd_checkpoint sector;
	uint32_t copy;
	int rc = ph_checkpoint_read(h->fd, &h->super, &sector, &copy);

	if (rc)
		return rc;
	sector.log_gen = c->log_gen;
	sector.replay_lsn = sector.epoch_lsn = c->tail;
	sector.lane_gen_limit = lane_gen_limit(h, c->lane_gen_limit);
	/* ORDER(checkpoint-last), as in live_write. */
	rc = ph_checkpoint_write(h->fd, &sector, &copy);
	if (rc == 0)
		ring_free(h, sector.epoch_lsn, sector.lane_gen_limit);
	return rc;
}

int ph_checkpoint_close(struct pheap *h)
{
	struct phd_coord *c = h->coord;
	int rc = ph_wal_lock(h, 0);

	if (rc < 0)
		return rc;
	rc = ph_wal_flush_locked(h);
	if (rc == 0 && PH_MUTANT(PH_MUTANT_CLOSE_EARLY))
		rc = sector_write(h);
	if (rc == 0)
		rc = ph_os->file_sync(h->fd);
	/* ORDER(checkpoint-last): as in live_write. */
	if (rc == 0 && !PH_MUTANT(PH_MUTANT_CLOSE_SECTOR) && !PH_MUTANT(PH_MUTANT_CLOSE_EARLY))
		rc = sector_write(h);
	if (rc == 0)
		c->epoch = c->tail;
	ph_wal_unlock(h, 0);
	return rc;
}
