/* SPDX-License-Identifier: MIT
 *
 * mutant.h: places where the harness may break the library on purpose, to prove that it would notice.
 *
 * What: PH_MUTANT(PH_MUTANT_x) is constant 0 in every library that is installed; in the harness's own build
 * it asks which break is on.
 * Why in the code and not as patches: a patch rots, and one build serves all breaks.
 *
 * Invariant
 *   X1  No mutant breaks more than the one rule that its line here names.
 */
#ifndef PH_MUTANT_H
#define PH_MUTANT_H

#ifdef PH_MUTANTS
extern int ph_mutant;
#define PH_MUTANT(n) (__builtin_expect(ph_mutant == (n), 0))
#else
#define PH_MUTANT(n) 0
#endif

/* clang-format off */
#define PH_MUTANT_USED_EARLY 1	     /* undo-used: `used` passes a record that is not written yet */
#define PH_MUTANT_USED_LATE 2	     /* used-store: the user may store before the record counts */
#define PH_MUTANT_ABORT_IDLE 3	     /* undo-idle: abort goes idle before the bytes are back */
#define PH_MUTANT_NO_UNDO 4	     /* recovery goes idle without undo */
#define PH_MUTANT_UNDO_FORWARD 5     /* recovery undoes from the first record to the last */
#define PH_MUTANT_NO_COMMITTED 6     /* commit-point: operations are applied while the lane still says active */
#define PH_MUTANT_APPLY_XOR 7	     /* operations are toggled instead of set: a second time undoes the first */
#define PH_MUTANT_USED_KEPT 8	     /* begin-used: the log of the last transaction is still there when active */
#define PH_MUTANT_PUBLISH_FIRST 9    /* publish-last: publication before the other records */
#define PH_MUTANT_COUNT_EARLY 10     /* grow-count: chunks count before they have space */
#define PH_MUTANT_FREE_UNLOGGED 11   /* a freed block's bit is not in the log: it leaks */
#define PH_MUTANT_ROLLBACK_USED 12   /* rollback-used: `used` is lowered before the bytes are back */
#define PH_MUTANT_EXT_UNLINKED 13    /* ext-link: `used` reaches an extension that is not linked yet */
#define PH_MUTANT_APPLY_IDLE 14	     /* apply-idle: idle before the records are applied */
#define PH_MUTANT_RECOVER_IDLE 15    /* undo-idle: recovery goes idle before the bytes are back */
#define PH_MUTANT_WORD_STOLEN 16     /* a waiter takes the word of a dead lane without recovering it */
#define PH_MUTANT_CLEAN_EARLY 17     /* clean-last: the heap says clean while it is still attached */
#define PH_MUTANT_LATCH_EARLY 18     /* latches are given back before the operations are applied */
#define PH_MUTANT_REAP_LATE 19	     /* reap-count: the row of a dead member goes before the reaper is called */
#define PH_MUTANT_REAP_FORGOT 20     /* a reaper takes for done what it has not seen */
#define PH_MUTANT_HOLD_VOID 21	     /* the hold of one that is gone counts */
#define PH_MUTANT_HOLD_ANY 22	     /* any hold that goes frees the object, not the last one */
#define PH_MUTANT_HOLD_FLAG 23	     /* hold-flag: the row does not say that its member has holds */
#define PH_MUTANT_PERMIT_VOID 24     /* the permits of one that is gone count */
#define PH_MUTANT_LOCK_EARLY 25	     /* locks are given back before idle */
#define PH_MUTANT_SHARED_ONCE 26     /* a reader whose holder went does not look at the word again */
#define PH_MUTANT_ROW_EARLY 27	     /* the row of a dead member goes before its lanes are recovered */
#define PH_MUTANT_NAME_GONE 28	     /* a file that has lost its name is entered */
#define PH_MUTANT_STALE_ENTERED 29   /* an ephemeral heap whose users all died is entered */
#define PH_MUTANT_NAME_LATE 30	     /* ephemeral-name: the name is removed after the gate byte drops */
#define PH_MUTANT_COUNT 30

#endif
