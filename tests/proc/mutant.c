/* SPDX-License-Identifier: MIT
 *
 * mutant.c: which deliberate break of the library (src/mutant.h) is on, from the environment. In the programs that the
 * script mutants runs; not in the tests.
 */
#include <stdlib.h>

extern int ph_mutant;
int ph_mutant;

__attribute__((constructor)) static void mutant_choose(void)
{
	const char *text = getenv("PHEAP_MUTANT");

	ph_mutant = text ? (int)strtol(text, NULL, 10) : 0;
}
