/* SPDX-License-Identifier: MIT
 *
 * stats.c: pheap_stats: one scan of the directory, beside running transactions, so a sum and not a snapshot.
 */
#include <errno.h>

#include "alloc.h"
#include "error.h"
#include "os.h"
#include "reserve.h"
#include "root.h"
#include "tx.h"

static uint64_t run_allocated(const pheap *h, uint64_t head, uint64_t desc)
{
	uint32_t blocks = ph_run_blocks(desc);
	uint64_t n = 0;

	for (uint32_t w = 0; w * 64 < blocks; w++) {
		uint64_t bits = __atomic_load_n(&h->bits[head * 4 + w], __ATOMIC_ACQUIRE);

		if (blocks - w * 64 < 64)
			bits &= (1ull << (blocks - w * 64)) - 1;
		n += (uint64_t)__builtin_popcountll(bits);
	}
	return n;
}

static void directory_scan(const pheap *h, struct pheap_stats *s)
{
	uint64_t end = ph_chunk_count(h), free_row = 0, step;

	for (uint64_t at = h->super.journal_count; at < end; at += step ? step : 1) {
		uint64_t desc = ph_desc_load(h, at), n;

		step = 1;
		free_row = PHD_DESC_KIND(desc) == PHD_DESC_FREE ? free_row + 1 : 0;
		if (free_row > s->free_chunk_run_max)
			s->free_chunk_run_max = free_row;
		switch (PHD_DESC_KIND(desc)) {
		case PHD_DESC_FREE:
			s->free_chunk_count++;
			s->hole_chunk_count += desc == PHD_DESC_HOLE;
			s->free_size += PHD_CHUNK_SIZE;
			break;
		case PHD_DESC_RUN:
			step = PHD_DESC_RUN_COUNT(desc);
			n = step && at + step <= end ? run_allocated(h, at, desc) : 0;
			s->run_count++;
			s->free_size += (ph_run_blocks(desc) - n) * PHD_DESC_BLOCK_SIZE(desc);
			if (PHD_DESC_TYPE(desc) > PHD_TYPE_USER_MAX)
				break;
			s->block_count += n;
			s->allocated_size += n * PHD_DESC_BLOCK_SIZE(desc);
			break;
		case PHD_DESC_EXTENT:
			step = PHD_DESC_COUNT(desc);
			s->extent_count++;
			if (PHD_DESC_TYPE(desc) > PHD_TYPE_USER_MAX)
				break;
			s->block_count++;
			s->allocated_size += step << PHD_CHUNK_SHIFT;
			break;
		default:
			break;
		}
	}
}

static uint64_t tx_private_size(const pheap_tx *tx)
{
	uint64_t n = sizeof(*tx) + tx->log.room * sizeof(*tx->log.segments) +
		     tx->ops.room * sizeof(*tx->ops.ops) + tx->ops.index_room * sizeof(*tx->ops.index) +
		     tx->ops.desc_room * sizeof(*tx->ops.descs) + tx->ops.head_room * sizeof(*tx->ops.heads) +
		     (tx->ops.desc_map.room + tx->defer_lines.room) * sizeof(struct ph_map_slot) +
		     tx->savepoint_room * sizeof(*tx->savepoints) +
		     tx->callback_room * sizeof(*tx->callbacks) +
		     (tx->stripe_room + tx->shared_room) * sizeof(uint32_t) +
		     tx->published_room * sizeof(*tx->published) + ph_root_private_size(tx);

	return n;
}

static uint64_t private_size(pheap *h)
{
	uint64_t n = sizeof(*h) + sizeof(*h->alloc) + h->alloc->bin_room * sizeof(*h->alloc->bins) +
		     h->alloc->bin_map.room * sizeof(struct ph_map_slot);
	pheap_tx *tx;

	pthread_mutex_lock(&h->helper_lock);
	n += h->helper ? tx_private_size(h->helper) : 0;
	pthread_mutex_unlock(&h->helper_lock);
	pthread_mutex_lock(&h->lock);
	n += ph_reserve_private_size(h);
	cds_list_for_each_entry(tx, &h->txs, heap_node)
		n += tx_private_size(tx);
	pthread_mutex_unlock(&h->lock);
	return n;
}

static void wal_stats(const pheap *h, struct pheap_stats *s)
{
	const struct phd_coord *c = h->coord;

	if (!h->leased)
		return;
	s->journal_used = ph_wal_tail(h) - __atomic_load_n(&c->replay_lsn, __ATOMIC_RELAXED);
	s->flush_count = __atomic_load_n(&c->flush_count, __ATOMIC_RELAXED);
	s->flush_ns = __atomic_load_n(&c->flush_ns, __ATOMIC_RELAXED);
	s->flush_size = __atomic_load_n(&c->flush_bytes, __ATOMIC_RELAXED);
	s->commit_count = __atomic_load_n(&c->commit_count, __ATOMIC_RELAXED);
	s->commit_size = __atomic_load_n(&c->commit_bytes, __ATOMIC_RELAXED);
	s->image_size = __atomic_load_n(&c->image_bytes, __ATOMIC_RELAXED);
	s->checkpoint_count = __atomic_load_n(&c->checkpoint_count, __ATOMIC_RELAXED);
	s->checkpoint_ns = __atomic_load_n(&c->checkpoint_ns, __ATOMIC_RELAXED);
	s->stall_count = __atomic_load_n(&c->stall_count, __ATOMIC_RELAXED);
	s->stall_ns = __atomic_load_n(&c->stall_ns, __ATOMIC_RELAXED);
	s->stall_max_ns = __atomic_load_n(&c->stall_max_ns, __ATOMIC_RELAXED);
	s->stall_p99_ns = phd_stall_p99_ns(c);
}

int pheap_stats(pheap *h, struct pheap_stats *ret, size_t ret_size)
{
	struct pheap_stats s = {0};
	struct ph_file_info info;

	ph_heap_check(h, "pheap_stats");
	if (!ret || ret_size < sizeof(s.size))
		return ph_error(h, -EINVAL, "pheap_stats: ret is NULL or ret_size below 8");
	if (h->forked)
		return ph_error(h, PHEAP_EFORKED,
				"this heap was opened by the parent process; close it and open it again");
	directory_scan(h, &s);
	for (uint32_t i = 0; i < h->super.member_count; i++)
		s.member_count += __atomic_load_n(&h->members[i].attachment, __ATOMIC_RELAXED) != 0;
	for (uint32_t i = 0; i < h->super.lane_count; i++) {
		s.lane_count += __atomic_load_n(&h->lanes[i].owner, __ATOMIC_RELAXED) != 0;
		s.tx_count += PHD_STATE_GEN(__atomic_load_n(&h->lanes[i].state, __ATOMIC_RELAXED));
	}
	if (ph_os->file_info(h->fd, &info) == 0)
		s.file_size = info.size;
	wal_stats(h, &s);
	s.journal_size = h->super.wal_size + h->super.journal_count * PHD_CHUNK_SIZE +
			 (uint64_t)h->super.lane_count * h->super.lane_log_size;
	s.directory_size = h->data_off - h->super.desc_off;
	s.private_size = private_size(h);
	s.size = ret_size < sizeof(s) ? ret_size : sizeof(s);
	memcpy(ret, &s, s.size);
	return 0;
}
