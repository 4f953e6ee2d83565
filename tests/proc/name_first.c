/* SPDX-License-Identifier: MIT
 *
 * name_first.c: who made the heap is killed when it has its name, and before the folder is synced. Whoever enters it first syncs the
 * folder: else a power cut could take the name, and with it what was acknowledged meanwhile.
 */
#include <signal.h>

#include "crowd.h"
#include "os.h"

static struct ph_os os;
static unsigned syncs;

static pheap *heap_open(void)
{
	struct pheap_options opt = crowd_options();

	return crowd_open(crowd_path("heap"), PHEAP_CREATE, &opt);
}

static int dies(const char *path)
{
	(void)path;
	return raise(SIGKILL);
}

static int makes(void *arg)
{
	(void)arg;
	os = ph_os_linux;
	os.folder_sync = dies;
	ph_os = &os;
	crowd_close(heap_open());
	return 0;
}

static int counts(const char *path)
{
	syncs++;
	return ph_os_linux.folder_sync(path);
}

int main(void)
{
	pheap *h;

	crowd_begin("the name of a heap is on the disk before anybody is in it", 60);
	ok(crowd_run(makes, NULL) == CROWD_KILLED, "its maker is killed before it syncs the folder");
	os = ph_os_linux;
	os.folder_sync = counts;
	ph_os = &os;
	h = heap_open();
	ok(syncs == 1, "whoever enters first syncs it: %u", syncs);
	crowd_close(h);
	h = heap_open();
	ok(syncs == 1, "nobody else has to: %u", syncs);
	crowd_close(h);
	return crowd_end();
}
