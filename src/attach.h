/* SPDX-License-Identifier: MIT
 *
 * attach.h: joining the processes that have a heap open, and leaving them. FORMAT.md section 6 is the
 * protocol.
 *
 * What: three kinds of bytes, locked by open file description: gate (held during the calls below), anyone
 * (shared by all members), one per member slot. Why locks and not pids or counters: the kernel drops them
 * with the last thread of the process, whatever killed it, and nothing has to be cleaned up for the next one.
 *
 * Invariants
 *   P1  {this boot, not clean} is durable before the first store of the first opener, and {clean} only after
 *       the sync of the last closer, when no lane of anybody is in flight.
 *   P2  An attachment number is used once in the life of the file.
 *   P3  A row of the member table with a number in it has its slot byte locked, or its owner is dead and not
 *       yet recovered.
 */
#ifndef PH_ATTACH_H
#define PH_ATTACH_H

#include "heap.h"
#include "os.h"

/* Waits for the gate; timeout_ns 0: as long as it takes. */
int ph_attach_gate_take(int fd, uint64_t timeout_ns);
void ph_attach_gate_drop(int fd);

/* Under the gate, with the heap mapped: first opener or not, checks, recovery, member slot, fence. On
 * failure nothing is left. */
int ph_attach(struct pheap *h, const struct ph_file_info *info);
/* Takes the gate itself. Always detaches; an error says that the heap could not be made clean. */
int ph_detach(struct pheap *h);
/* Under the gate, shared: may a process that cannot write look at the heap? `why`: what writing was
 * refused with. */
int ph_attach_passive(struct pheap *h, int why);

#endif
