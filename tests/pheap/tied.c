/* SPDX-License-Identifier: MIT
 *
 * tied.c: tied COMMAND [ARGUMENT]...: runs the command so that it is killed when the script that started it
 * ends, however that ends; and with INT and QUIT as a terminal's user has them: a shell without job control
 * starts what runs in the background with both ignored.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 2)
		return 99;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGINT, SIG_DFL);
	signal(SIGQUIT, SIG_DFL);
	execvp(argv[1], argv + 1);
	perror(argv[1]);
	return 99;
}
