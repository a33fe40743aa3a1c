/* SPDX-License-Identifier: Apache-2.0 */
/* A private daemon for a benchmark: own sockets in a scratch directory, gone at the end. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct bench_daemon {
	pid_t pid;
	char directory[64], socket[96], control[96];
};
#define BENCH_DAEMON_NULL ((struct bench_daemon){ .pid = -1 })

/* `program` NULL: the sparqd of this build. With `workers` pollers, pinned to the first CPUs, and
 * `more` options (NULL ends them; NULL: none). Waits until it accepts. -ETIME, -ECHILD: it ended,
 * -errno. */
int bench_daemon_start(struct bench_daemon *d, const char *program, const char *pool,
		       const char *workers, const char *const *more);
void bench_daemon_stop(struct bench_daemon *d);
