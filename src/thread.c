/* SPDX-License-Identifier: MIT
 *
 * thread.c: see thread.h.
 */
#include "thread.h"

#include <errno.h>
#include <stdlib.h>

#include "error.h"
#include "member.h"
#include "reserve.h"

#define STRIPES_KEPT 16u /* so many locks without asking for memory */
#define END_ROUNDS 4	 /* of callbacks that leave transactions open */

__thread struct ph_thread ph_thread __attribute__((tls_model("initial-exec")));

static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;
static int thread_key_rc;

/* H2: objects are kept for reuse and never given back while the library is loaded. */
static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static CDS_LIST_HEAD(pool);

/* A thread that ends and a heap that closes meet here. */
static pthread_mutex_t end_lock = PTHREAD_MUTEX_INITIALIZER;

static void tx_arrays_free(pheap_tx *tx)
{
	free(tx->savepoints);
	free(tx->callbacks);
	free(tx->notified);
	free(tx->stripes);
	free(tx->shared_stripes);
	free(tx->published);
	free(tx->pending);
	free(tx->defer_lines.slots);
	ph_wal_free(&tx->record);
	ph_ops_free(&tx->ops);
	ph_log_free(&tx->log);
}

static pheap_tx *tx_new(void)
{
	pheap_tx *tx = NULL;

	pthread_mutex_lock(&pool_lock);
	if (!cds_list_empty(&pool)) {
		tx = cds_list_first_entry(&pool, pheap_tx, thread_node);
		cds_list_del(&tx->thread_node);
	}
	pthread_mutex_unlock(&pool_lock);
	if (!tx)
		tx = malloc(sizeof(*tx));
	if (tx)
		memset(tx, 0, sizeof(*tx));
	return tx;
}

static void tx_retire(pheap_tx *tx)
{
	tx_arrays_free(tx);
	tx->magic = 0;
	tx->writable_by = NULL;
	pthread_mutex_lock(&pool_lock);
	cds_list_add_tail(&tx->thread_node, &pool);
	pthread_mutex_unlock(&pool_lock);
}

static void lane_release(pheap_tx *tx)
{
	/* ORDER(owner-last): as in recovery.c:lane_release. */
	if (tx->lane)
		__atomic_store_n(&tx->lane->owner, 0, __ATOMIC_RELEASE);
}

/* Before the lane is active for the first time: who looks at lanes after a fence finds it (gate.h, G2). */
static void lane_limit_raise(struct pheap *h, uint32_t lane_idx)
{
	uint64_t *limit = &h->coord->lane_limit, seen = __atomic_load_n(limit, __ATOMIC_RELAXED);

	while (seen <= lane_idx && !__atomic_compare_exchange_n(limit, &seen, lane_idx + 1u, false,
								__ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
}

/* 0, -EUSERS without a sentence, or PHEAP_ECORRUPT. */
static int lane_try(pheap_tx *tx)
{
	struct pheap *h = tx->h;
	uint64_t owner = h->member_id << 16 | (h->slot + 1);

	for (uint32_t i = 0; i < h->super.lane_count; i++) {
		struct phd_lane *lane = &h->lanes[i];
		uint64_t none = 0, state;

		if (__atomic_load_n(&lane->owner, __ATOMIC_RELAXED) != 0)
			continue;
		/* First: a lane that is claimed by one who dies at once is found. */
		lane_limit_raise(h, i);
		if (!__atomic_compare_exchange_n(&lane->owner, &none, owner, false, __ATOMIC_ACQ_REL,
						 __ATOMIC_RELAXED))
			continue;
		state = __atomic_load_n(&lane->state, __ATOMIC_ACQUIRE);
		if (PHD_STATE_STEP(state) != PHD_STEP_IDLE)
			return ph_error(h, PHEAP_ECORRUPT,
					"lane %u is free but not idle; run pheap-fsck on the file", i);
		tx->lane = lane;
		tx->lane_idx = i;
		tx->bias = PHD_GATE_BIAS(i);
		tx->gen = PHD_STATE_GEN(state);
		if (tx->gen == 0) /* generation 0 is what an empty word says */
			tx->gen = 1;
		tx->word = PHD_WORD(tx->gen, i);
		tx->log.segments[0] = (struct ph_segment){
			.start = h->lane_logs + (uint64_t)i * h->super.lane_log_size,
			.room = h->super.lane_log_size / 8,
		};
		tx->log.first = tx->log.segments[0].start;
		tx->log.first_limit = tx->log.first + h->super.lane_log_size;
		tx->log.count = 1;
		tx->log.ext_set = lane->ext_off != 0;
		return 0;
	}
	return -EUSERS;
}

/* The dead keep their lanes until somebody meets their locks; who finds no lane asks for them. */
static int lane_claim(pheap_tx *tx)
{
	struct pheap *h = tx->h;
	int rc = lane_try(tx);

	for (uint32_t slot = 0; rc == -EUSERS && slot < h->super.member_count; slot++)
		if (ph_member_check(h, slot) == 1)
			rc = lane_try(tx);
	if (rc == -EUSERS)
		rc = lane_try(tx); /* somebody else may just have recovered one */
	if (rc != -EUSERS)
		return rc;
	return ph_error(
		h, -EUSERS,
		"all %u lanes of the heap are in use (one for each thread, and one for each process); create it "
		"with a larger lane_count",
		h->super.lane_count);
}

static void tx_close(pheap_tx *tx)
{
	lane_release(tx);
	pthread_mutex_lock(&tx->h->lock);
	cds_list_del(&tx->heap_node);
	pthread_mutex_unlock(&tx->h->lock);
}

/* Aborts what the ending thread has open, the last time without callbacks. False: nothing was. */
static bool open_abort(struct ph_thread *t, bool quiet)
{
	pheap_tx *tx, *next;
	bool any = false;

	cds_list_for_each_entry_safe(tx, next, &t->txs, thread_node) {
		if (tx->magic != PH_TX_MAGIC || tx->h->forked || !tx->writable_by)
			continue;
		if (quiet)
			tx->callback_count = 0;
		ph_tx_abort_all(tx);
		any = true;
	}
	return any;
}

/* D2. Runs when a thread ends. Lock order: end_lock, then the heap's lock, then pool_lock. */
static void thread_end(void *arg)
{
	struct ph_thread *t = arg;
	pheap_tx *tx, *next;

	/* Not under the lock: callbacks run, and may begin transactions of their own. No heap with an open
	 * one can be closed meanwhile. */
	for (int round = 0; round < END_ROUNDS && open_abort(t, round == END_ROUNDS - 1); round++)
		;
	pthread_mutex_lock(&end_lock);
	cds_list_for_each_entry_safe(tx, next, &t->txs, thread_node) {
		cds_list_del(&tx->thread_node);
		if (tx->magic == PH_TX_MAGIC && !tx->h->forked) {
			ph_run_cache_return(tx);
			tx_close(tx);
		}
		tx_retire(tx);
	}
	pthread_mutex_unlock(&end_lock);
	t->registered = false;
	t->heap_id = 0;
	t->tx = NULL;
}

static void thread_init(void)
{
	thread_key_rc = -pthread_key_create(&thread_key, thread_end);
}

static int thread_register(void)
{
	int rc;

	if (ph_thread.registered)
		return 0;
	pthread_once(&thread_once, thread_init);
	rc = thread_key_rc ? thread_key_rc : -pthread_setspecific(thread_key, &ph_thread);
	if (rc)
		return rc;
	CDS_INIT_LIST_HEAD(&ph_thread.txs);
	ph_thread.registered = true;
	return 0;
}

/* Objects of a heap that was closed by another thread stay in this thread's list until they are met here. */
static void thread_sweep(void)
{
	pheap_tx *tx, *next;

	cds_list_for_each_entry_safe(tx, next, &ph_thread.txs, thread_node)
		if (tx->magic != PH_TX_MAGIC) {
			cds_list_del(&tx->thread_node);
			tx_retire(tx);
		}
}

pheap_tx *ph_thread_tx_find(const pheap *h)
{
	pheap_tx *tx;

	if (ph_thread.heap_id == h->id)
		return ph_thread.tx;
	if (!ph_thread.registered)
		return NULL;
	cds_list_for_each_entry(tx, &ph_thread.txs, thread_node)
		if (tx->magic == PH_TX_MAGIC && tx->h == h) {
			ph_thread.heap_id = h->id;
			ph_thread.tx = tx;
			return tx;
		}
	return NULL;
}

static pheap_tx *tx_make(pheap *h, int *ret_rc)
{
	pheap_tx *tx = tx_new();

	*ret_rc = -ENOMEM;
	if (!tx)
		return NULL;
	tx->h = h;
	tx->coord = h->coord;
	tx->base = h->base;
	tx->thread = &ph_thread;
	tx->extras = tx->modify_long = h->long_way;
	if (!ph_room(&tx->log.segments, &tx->log.room, 2, sizeof(*tx->log.segments)) ||
	    !ph_room(&tx->stripes, &tx->stripe_room, STRIPES_KEPT, sizeof(*tx->stripes)))
		goto fail;
	ph_cover_clear(&tx->cover);
	ph_map_clear(&tx->ops.desc_map);
	*ret_rc = h->passive ? 0 : lane_claim(tx);
	if (*ret_rc)
		goto fail;
	tx->magic = PH_TX_MAGIC;
	return tx;
fail:
	tx_retire(tx);
	return NULL;
}

pheap_tx *ph_thread_tx(pheap *h, int *ret_rc)
{
	pheap_tx *tx;

	*ret_rc = thread_register();
	if (*ret_rc)
		return NULL;
	tx = ph_thread_tx_find(h);
	if (tx)
		return tx;
	thread_sweep();
	tx = tx_make(h, ret_rc);
	if (!tx)
		return NULL;
	cds_list_add(&tx->thread_node, &ph_thread.txs);
	pthread_mutex_lock(&h->lock);
	cds_list_add(&tx->heap_node, &h->txs);
	pthread_mutex_unlock(&h->lock);
	ph_thread.heap_id = h->id;
	ph_thread.tx = tx;
	return tx;
}

pheap_tx *ph_thread_helper_take(pheap *h, int *ret_rc)
{
	*ret_rc = 0;
	pthread_mutex_lock(&h->helper_lock);
	if (!h->helper) {
		h->helper = tx_make(h, ret_rc);
		if (!h->helper) {
			pthread_mutex_unlock(&h->helper_lock);
			return NULL;
		}
		h->helper->internal = true;
		h->helper->mode = PHD_MODE_INTERNAL;
	}
	return h->helper;
}

void ph_thread_helper_give(pheap *h)
{
	pthread_mutex_unlock(&h->helper_lock);
}

void ph_thread_heap_close(pheap *h)
{
	pheap_tx *tx, *next;

	pthread_mutex_lock(&end_lock);
	pthread_mutex_lock(&h->lock);
	cds_list_for_each_entry_safe(tx, next, &h->txs, heap_node) {
		cds_list_del(&tx->heap_node);
		if (!h->forked)
			lane_release(tx);
		/* Its thread finds the wrong magic and retires the object itself: the list is that thread's
		 * own. */
		__atomic_store_n(&tx->magic, 0, __ATOMIC_RELEASE);
		tx->writable_by = NULL;
	}
	if (h->helper) {
		if (!h->forked)
			lane_release(h->helper);
		tx_retire(h->helper);
		h->helper = NULL;
	}
	pthread_mutex_unlock(&h->lock);
	pthread_mutex_unlock(&end_lock);
	if (ph_thread.registered)
		thread_sweep();
	if (ph_thread.heap_id == h->id)
		ph_thread.heap_id = 0;
}

void ph_thread_fork_prepare(void)
{
	pthread_mutex_lock(&end_lock);
	pthread_mutex_lock(&pool_lock);
}

void ph_thread_fork_done(void)
{
	pthread_mutex_unlock(&pool_lock);
	pthread_mutex_unlock(&end_lock);
}

/* In the child, whose one thread may be in the middle of a transaction of its own: the short paths must not
 * believe that. */
void ph_thread_heap_forked(pheap *h)
{
	pheap_tx *tx;

	cds_list_for_each_entry(tx, &h->txs, heap_node)
		if (tx->writable_by)
			tx->writable_by = PH_TX_SEALED;
}
