/* SPDX-License-Identifier: Apache-2.0 */
/* Starts and stops a private sparqd: see daemon.h. */
#include "tests/bench/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/base.h"

#define START_TRIES 3000 /* 10 ms apart: a pool is filled first */

/* The daemon of this build: beside this program, or in its folder. */
static int of_this_build(char *ret, size_t n)
{
	static const char *const places[] = { "sparqd", "daemon/sparqd" };
	char self[256];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (length < 0)
		return -errno;
	self[length] = 0;
	*strrchr(self, '/') = 0;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(ret, n, "%s/%s", self, places[i]);
		if (access(ret, X_OK) == 0)
			return 0;
	}
	return -ENOENT;
}

static bool accepts(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	CLOSE_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
}

static void run_daemon(const struct bench_daemon *d, const char *program, const char *pool,
		       const char *workers, const char *const *more)
{
	const char *argv[24] = { program,    "--socket",    d->socket, "--control",
				 d->control, "--pool",      pool,      "--workers",
				 workers,    "--log-level", "error" };
	size_t n = 11;

	while (more && *more && n + 1 < ARRAY_SIZE(argv))
		argv[n++] = *more++;
	prctl(PR_SET_PDEATHSIG, SIGTERM); /* a benchmark that is killed leaves no daemon behind */
	execv(program, (char *const *)(uintptr_t)argv);
	fprintf(stderr, "cannot run %s: %s\n", program, strerror(errno));
	_exit(127);
}

int bench_daemon_start(struct bench_daemon *d, const char *program, const char *pool,
		       const char *workers, const char *const *more)
{
	char beside[512];
	int r;

	if (!program) {
		r = of_this_build(beside, sizeof(beside));
		if (r < 0)
			return r;
		program = beside;
	}
	strcpy(d->directory, "/tmp/sparq-bench-XXXXXX");
	if (!mkdtemp(d->directory))
		return -errno;
	snprintf(d->socket, sizeof(d->socket), "%s/sparqd.sock", d->directory);
	snprintf(d->control, sizeof(d->control), "%s/control.sock", d->directory);
	d->pid = fork();
	if (d->pid < 0)
		return -errno;
	if (d->pid == 0)
		run_daemon(d, program, pool, workers, more);
	for (int i = 0; i < START_TRIES; i++) {
		if (accepts(d->socket))
			return 0;
		if (waitpid(d->pid, NULL, WNOHANG) == d->pid) {
			d->pid = -1;
			return -ECHILD;
		}
		usleep(10000);
	}
	return -ETIME;
}

void bench_daemon_stop(struct bench_daemon *d)
{
	if (d->pid > 0) {
		kill(d->pid, SIGTERM);
		waitpid(d->pid, NULL, 0);
	}
	if (d->directory[0]) {
		unlink(d->socket);
		unlink(d->control);
		rmdir(d->directory);
	}
	*d = BENCH_DAEMON_NULL;
}
