/* SPDX-License-Identifier: MIT
 *
 * signals.h: signals that wait until no thread of the process has a transaction open.
 *
 * What: a handler that notes the signal; the last transaction to end, or the handler itself when none is open, gives the
 * program its own disposition back and raises the signal again, so that the process ends by it, as if nothing had been
 * in between. Nothing needs this to be correct: it saves others the wait for a recovery.
 * Why not block the signals instead: a mask belongs to one thread, and the kernel picks any other one.
 *
 * Invariants
 *   N1  Entering: count, then look at what is pending. Handler: note as pending, then look at the count. One of the two
 *       sees the other, so a signal is never left without somebody who delivers it.
 *   N2  A thread counts once, however many transactions it has open.
 */
#ifndef PH_SIGNALS_H
#define PH_SIGNALS_H

#include <stdbool.h>
#include <stddef.h>

/* A transaction begins (may wait while a signal is pending) and ends; pairs. By a thread that ph_signals_on. */
bool ph_signals_enter(bool nowait); /* false: it would have to wait */
void ph_signals_leave(void);
bool ph_signals_on(void);
/* 0 or -EINVAL, with a sentence. */
int ph_signals_set(const int *signals, size_t n);
void ph_signals_fork_prepare(void); /* a signal for the child must not come before the next call */
void ph_signals_forked(void);	    /* in the child: nothing is open */
void ph_signals_fork_done(void);    /* in both */

#endif
