/* SPDX-License-Identifier: Apache-2.0 */
/* A build without curses: top prints samples only. */
#include "client/ctl.h"
#include "client/top.h"

int top_screen(struct top *t, double interval, enum top_order order)
{
	fputs("sparqctl: top: built without curses, so there is only --once; for the rest, build "
	      "it with -Dcurses=enabled\n",
	      stderr);
	return CTL_FAILED;
}
