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
#define PH_MUTANT_FILL_NONE 67	     /* hole-fill: who takes a chunk without space does not set it aside */
#define PH_MUTANT_PUNCH_FIRST 68     /* punch-last: the space goes before the descriptors say so */
#define PH_MUTANT_PUNCH_UNOWNED 71   /* chunks are punched that somebody else may take */
/* Checkpoints beside others: tests/proc */
#define PH_MUTANT_HELP_BARE 59	     /* who completes another's switch does not flush its record */
#define PH_MUTANT_LOOK_NONE 60	     /* EPOCH: a transaction without operations commits while the epoch is being switched */
#define PH_MUTANT_EPOCH_ODD 66	     /* an epoch that is being switched counts as looked at, if it was before, too */
/* Power cuts */
#define PH_MUTANT_IMAGE_LATE 31	     /* image-durable: stores into a page do not wait for its image */
#define PH_MUTANT_EPOCH_ONCE 32	     /* the epoch is not looked at again after the undo record */
#define PH_MUTANT_EPOCH_LOOSE 33     /* a record is appended in another epoch than that of the leases */
#define PH_MUTANT_LATER_BARE 34	     /* what is stored behind the commit point is not leased */
#define PH_MUTANT_SWITCH_BARE 35     /* a switch does not copy undo records */
#define PH_MUTANT_SWITCH_UNDONE 36   /* a switch does not copy what lanes behind their commit point have yet to store */
#define PH_MUTANT_SYNC_FORGOT 37     /* checkpoint-last: kind A is not durable before the words that say so */
#define PH_MUTANT_RING_EARLY 38	     /* ring-reuse: before the words that say so are durable */
#define PH_MUTANT_ACK_EARLY 39	     /* wal-ack: commit does not wait */
#define PH_MUTANT_EXTENT_LATE 40     /* extent-durable: not flushed */
#define PH_MUTANT_OLDEST_LAST 42     /* recovery applies the oldest image first, and so the newest wins */
#define PH_MUTANT_CRC_FORGOT 43	     /* recovery believes a record without its checksum */
#define PH_MUTANT_POWER_EARLY 45     /* power-last: the sector before what was recovered is durable */
#define PH_MUTANT_LANE_GENS 46	     /* recovery lets lanes have generations that they had */
#define PH_MUTANT_APPENDED_UNDONE 47 /* a dead lane whose record is in the log is undone */
#define PH_MUTANT_LEASE_FREE 48	     /* every extent counts as lease-free */
#define PH_MUTANT_IMAGE_NONE 49	     /* a page counts as leased without an image */
#define PH_MUTANT_SWITCH_LATE 50     /* switch-durable: the epoch begins before the SWITCH record is flushed */
#define PH_MUTANT_REDO_FIRST 51	     /* recovery: commits before images */
#define PH_MUTANT_STATE_FIRST 52     /* power-last: the state says this boot before recovery begins */
#define PH_MUTANT_LSN_KEPT 54	     /* recovery goes on at the end of the log: old lease words count again */
#define PH_MUTANT_PAD_NONE 55	     /* a flush ends in the middle of a sector, which is written again */
#define PH_MUTANT_GROW_UNLOGGED 56   /* chunk_count is raised without a record */
#define PH_MUTANT_APPEND_ASSUMED 57  /* a lane found appending is applied although its record is not in the log */
#define PH_MUTANT_LIVE_STORED 58     /* a checkpoint stores the words that say how far it is, and so a late one an old LSN */
#define PH_MUTANT_PUNCH_EARLY 69     /* punch-last: chunks are punched before it is durable that they are holes */
#define PH_MUTANT_POWER_SPACE 70     /* recovery makes blocks in holes, and sets no space aside */
/* Calls that fail */
#define PH_MUTANT_POISON_NONE 61     /* poison-first: who met the failure is told, and nobody else */
#define PH_MUTANT_POISON_FORGOT 62   /* only memory says why power recovery is due, and forgets it on the way */
#define PH_MUTANT_CLOSE_SECTOR 63    /* the last close writes no checkpoint sector */
#define PH_MUTANT_CLOSE_EARLY 64     /* checkpoint-last: the last close writes the sector before the file is durable */
#define PH_MUTANT_FIRST_DEAF 65	     /* a sync that fails in the first opener's checkpoint does not poison */
#define PH_MUTANT_COUNT 71

#endif
