/* SPDX-License-Identifier: MIT
 *
 * thread.h: which transaction objects a thread has, and the lanes behind them.
 *
 * Invariants
 *   D1  A lane belongs to one thread of one member from its first transaction until the thread ends or the
 *       heap closes.
 *   D2  A thread that ends, normally or by cancellation, first aborts what it has open.
 */
#ifndef PH_THREAD_H
#define PH_THREAD_H

#include "tx.h"

pheap_tx *ph_thread_tx(pheap *h, int *ret_rc); /* this thread's, made when missing */
pheap_tx *ph_thread_tx_find(const pheap *h);   /* or NULL */
/* The one object of this process for internal transactions, locked until it is given back. */
pheap_tx *ph_thread_helper_take(pheap *h, int *ret_rc);
void ph_thread_helper_give(pheap *h);
void ph_thread_heap_close(pheap *h);

/* fork: this module's locks are free in the child, and its copies of open transactions are dead. */
void ph_thread_fork_prepare(void);
void ph_thread_fork_done(void); /* in parent and child */
void ph_thread_heap_forked(pheap *h);

#endif
