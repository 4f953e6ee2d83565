/* SPDX-License-Identifier: MIT
 *
 * steps.c: see steps.h.
 */
#include "steps.h"

#include <signal.h>
#include <unistd.h>

#include "crowd.h"

#if defined(__x86_64__)
#include "../../fuzz/kill/trap.h"

#define TRAP_FLAG 0x100u

static uint64_t stores, stores_last, stores_stop, instructions_left;

static void on_store(uint64_t off, uint64_t word)
{
	(void)off;
	(void)word;
	if (++stores == stores_last)
		(void)kill(getpid(), SIGKILL);
	if (stores == stores_stop)
		(void)raise(SIGSTOP);
}

static void on_instruction(int number)
{
	(void)number;
	if (--instructions_left == 0)
		(void)kill(getpid(), SIGKILL);
}

bool steps_possible(void)
{
	return true;
}

void steps_arm(void *memory, size_t n, uint64_t k)
{
	if (k == 0)
		(void)kill(getpid(), SIGKILL);
	stores = 0;
	stores_last = k;
	stores_stop = 0;
	trap_on(memory, n, on_store);
}

void steps_disarm(void)
{
	trap_off();
}

void steps_stop(uint64_t k)
{
	stores_stop = k;
}

uint64_t steps_count(void)
{
	return stores;
}

void steps_arm_instructions(uint64_t k)
{
	struct sigaction action = {.sa_handler = on_instruction};

	if (k == 0)
		(void)kill(getpid(), SIGKILL);
	instructions_left = k;
	(void)sigaction(SIGTRAP, &action, NULL);
	__builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | TRAP_FLAG);
}

void steps_disarm_instructions(void)
{
	__builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~(unsigned long long)TRAP_FLAG);
}
#else
bool steps_possible(void)
{
	return false;
}

void steps_arm(void *memory, size_t n, uint64_t k)
{
	(void)memory;
	(void)n;
	(void)k;
}

void steps_disarm(void)
{
}

void steps_stop(uint64_t k)
{
	(void)k;
}

uint64_t steps_count(void)
{
	return 0;
}

void steps_arm_instructions(uint64_t k)
{
	(void)k;
}

void steps_disarm_instructions(void)
{
}
#endif

void steps_arm_heap(pheap *h, uint64_t k)
{
	struct pheap_info info;

	crowd_must(pheap_info(h, &info, sizeof(info)), "pheap_info");
	steps_arm((void *)(uintptr_t)info.base, info.file_size & ~4095ull, k);
}
