/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `sparqd --keeper`: a parent that holds what the daemon must not lose and
 * starts it again after a crash, where there is no systemd to do both.
 *
 *   +--> running --(killed, failed)--> pausing --(10 ms .. 5 s)--+
 *   |       |                                                    |
 *   |       +--(exit 0, told to stop, failed at first)--> ended  |
 *   +------------------------------------------------------------+
 *
 * It maps no pool and has no threads: what ends a daemon does not reach it.
 *
 * Its child is not told to die with it (PR_SET_PDEATHSIG): if the keeper is
 * killed, the daemon is the last that has the memory, and goes on serving; it
 * says that nobody keeps it any more.
 */
#pragma once

#include <stdint.h>

#include "daemon/config.h"

struct keeper_params {
	const char *program; /* a path: what lies there at each start, so an upgrade is found */
	char *const *argv;
	const char *notify_path; /* where the child speaks to us: made, ours alone, removed */
	int session, control;    /* listening sockets, -1: none; the caller's */
	uint64_t watchdog_ns;    /* 0: a silent child is not killed */
	uint64_t abort_ns;       /* from SIGABRT to SIGKILL */
	uint64_t stop_ns;        /* from SIGTERM to SIGKILL */
};

/* Runs children until one is not to be started again; its exit status. SIGTERM and SIGINT end,
 * SIGHUP is passed on, SIGUSR1 starts the daemon anew. -errno before the first start. */
int keeper_run(const struct keeper_params *p);
/* How long to wait before the next start, after a pause of `last_ns` (0: none yet) and a child
 * that served for `served_ns`. */
uint64_t keeper_pause(uint64_t last_ns, uint64_t served_ns);

/* The command line's: sockets as the configuration has them, then keeper_run. argv[0 ...] without
 * --keeper. Logs; the exit status. */
int keeper_main(const struct config *c, char *const *argv);
