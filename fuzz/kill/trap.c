/* SPDX-License-Identifier: MIT
 *
 * trap.c: see trap.h. x86-64 only.
 */
#include "trap.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define PAGE ((size_t)4096)
#define TRAP_FLAG 0x100

static char *memory, *copy;
static size_t size, copy_size;
static size_t open_off; /* of the two pages that are open for one instruction */
static void (*report)(uint64_t off, uint64_t word);
static struct sigaction fault_before;

static void page_compare(size_t from)
{
	size_t end = from + 2 * PAGE < size ? from + 2 * PAGE : size;

	for (size_t at = from; at < end; at += 8) {
		uint64_t was, now;

		memcpy(&was, copy + at, 8);
		memcpy(&now, memory + at, 8);
		if (was == now)
			continue;
		memcpy(copy + at, &now, 8);
		report(at, now);
	}
}

static void on_fault(int number, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uintptr_t off = (uintptr_t)info->si_addr - (uintptr_t)memory;

	if (!memory || off >= size) {
		sigaction(number, &fault_before, NULL); /* not ours: the instruction faults again there */
		return;
	}
	/* an unaligned store may reach into the next page */
	open_off = off / PAGE * PAGE;
	mprotect(memory + open_off, open_off + 2 * PAGE <= size ? 2 * PAGE : PAGE, PROT_READ | PROT_WRITE);
	uc->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void on_step(int number, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)number;
	(void)info;
	uc->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
	page_compare(open_off);
	mprotect(memory + open_off, open_off + 2 * PAGE <= size ? 2 * PAGE : PAGE, PROT_READ);
}

void trap_on(char *where, size_t n, void (*changed)(uint64_t off, uint64_t word))
{
	struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	struct sigaction stepped = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};

	if (copy_size < n) {
		free(copy);
		copy = malloc(n);
		if (!copy)
			abort();
		copy_size = n;
	}
	memcpy(copy, where, n);
	memory = where;
	size = n;
	report = changed;
	sigaction(SIGSEGV, &fault, &fault_before);
	sigaction(SIGTRAP, &stepped, NULL);
	mprotect(memory, size, PROT_READ);
}

void trap_off(void)
{
	if (!memory)
		return;
	mprotect(memory, size, PROT_READ | PROT_WRITE);
	sigaction(SIGSEGV, &fault_before, NULL);
	memory = NULL;
}
