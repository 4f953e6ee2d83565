/* SPDX-License-Identifier: MIT
 *
 * test_identity.c: refusals that need another machine to be seen: network file systems, another boot beside
 * a living member, a member without membarrier, a file system without unnamed files. The platform table
 * says what such a machine would.
 */
#include "os.h"
#include "support.h"

#include <errno.h>
#include <unistd.h>

static struct ph_os fake;

static void fake_start(void)
{
	fake = ph_os_linux;
	ph_os = &fake;
}

static void fake_stop(void)
{
	ph_os = &ph_os_linux;
}

TestSuite(identity, .timeout = 60, .init = fake_start, .fini = fake_stop);

static int network(int fd)
{
	(void)fd;
	return 1;
}

static int other_boot(uint8_t ret[16])
{
	memset(ret, 0x5a, 16);
	return 0;
}

static int no_boot(uint8_t ret[16])
{
	memset(ret, 0, 16);
	return -ENOENT;
}

static int no_fence(void)
{
	return -EPERM;
}

Test(identity, network_file_system)
{
	struct pheap_options opt = test_options();
	pheap *h = heap_make();

	heap_drop(h);
	fake.file_network = network;
	GIVES(-EOPNOTSUPP, pheap_open(scratch("heap"), 0, NULL, &h));
	cr_assert(strstr(pheap_error_detail(NULL), "network"), "\"%s\"", pheap_error_detail(NULL));
	GIVES(-EOPNOTSUPP, pheap_open(scratch("new"), PHEAP_CREATE, &opt, &h));
	cr_assert_neq(access(scratch("new"), F_OK), 0, "nothing is left behind");
}

struct meeting {
	uint32_t attached, leave;
};

static int stay(void *arg)
{
	struct meeting *m = arg;
	pheap *h;

	CHECK(pheap_open(scratch("heap"), 0, NULL, &h) == 0);
	flag_set(&m->attached, 1);
	flag_wait(&m->leave, 1);
	CHECK(pheap_close(h) == 0);
	return 0;
}

/* Who is attached is alive, so a boot id that differs means that the two do not share a machine. */
Test(identity, another_boot_beside_the_living)
{
	struct meeting *m = shared_make(sizeof *m);
	pheap *h = heap_make();

	heap_drop(h);
	pid_t child = child_start(stay, m);
	flag_wait(&m->attached, 1);
	fake.boot_id = other_boot;
	GIVES(PHEAP_EREBOOT, pheap_open(scratch("heap"), 0, NULL, &h));
	fake.boot_id = no_boot;
	GIVES(PHEAP_EREBOOT, pheap_open(scratch("heap"), 0, NULL, &h));
	fake.boot_id = ph_os_linux.boot_id;
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	flag_set(&m->leave, 1);
	cr_assert_eq(child_wait(child), 0);
	heap_drop(h);
}

/* A member that can not call membarrier joins only others like it, and works among them. */
Test(identity, without_membarrier)
{
	struct meeting *m = shared_make(sizeof *m);
	pheap *h = heap_make();

	heap_drop(h);
	pid_t child = child_start(stay, m);
	flag_wait(&m->attached, 1);
	fake.fence_register = no_fence;
	GIVES(-EOPNOTSUPP, pheap_open(scratch("heap"), 0, NULL, &h));
	cr_assert(strstr(pheap_error_detail(NULL), "membarrier"), "\"%s\"", pheap_error_detail(NULL));
	flag_set(&m->leave, 1);
	cr_assert_eq(child_wait(child), 0);
	OK(pheap_open(scratch("heap"), 0, NULL, &h));
	for (uint32_t flags = 0; flags <= PHEAP_CONCURRENT; flags += PHEAP_CONCURRENT) {
		pheap_tx *tx = begin(h, flags);
		cr_assert(pheap_alloc(tx, 100, 1));
		commit(tx);
	}
	heap_drop(h);
}
