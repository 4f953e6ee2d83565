/* SPDX-License-Identifier: MIT
 *
 * load.c: the shared library can be loaded by a program that was not linked with it, as bindings and plug-ins do. Needs little
 * static thread storage.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

#include "pheap.h"

int main(int argc, char **argv)
{
	void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
	uint32_t (*version)(void) = NULL;

	if (!library)
		printf("%s\n", argc == 2 ? dlerror() : "which library?");
	else
		*(void **)&version = dlsym(library, "pheap_version");
	printf("%d passed, %d failed\n", version && version() == PHEAP_VERSION,
	       !version || version() != PHEAP_VERSION);
	return !version || version() != PHEAP_VERSION;
}
