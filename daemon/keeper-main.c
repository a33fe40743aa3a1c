/* SPDX-License-Identifier: Apache-2.0 */
/* `sparqd --keeper`: from a configuration to a keeper. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/keep.h"
#include "daemon/keeper.h"
#include "daemon/listen.h"
#include "daemon/log.h"
#include "shm/base.h"

#define S 1000000000ull
#define ABORT_NS (5 * S)
#define STOP_NS (20 * S) /* longer than the daemon allows itself */

enum { EXIT_USAGE = 2 };

/* Whoever hands sockets over holds descriptors, too, and better: across our own end. */
static int check_alone(void)
{
	CLEANUP(kept_deinit) struct kept k = KEPT_NULL;
	int r = keep_take(&k);

	if (r == 0 && k.session < 0 && k.control < 0 && !k.n && !k.error)
		return 0;
	log_error("--keeper: a service manager hands descriptors over (LISTEN_FDS); it keeps them "
		  "as well: leave --keeper away");
	return -EINVAL;
}

static int open_socket(struct listener *l, int type, const char *path)
{
	char why[CONFIG_WHY_BYTES] = "";
	int r = listener_open(l, type, path, why);

	if (r < 0)
		log_error("%s", why[0] ? why : strerror(-r));
	return r;
}

/* Where this program lies. After an upgrade the same name is another file: the next child is new.
 */
static int find_program(char ret[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", ret, PATH_MAX - 1);

	if (n < 0) {
		log_error("--keeper: /proc/self/exe: %s", strerror(errno));
		return -errno;
	}
	ret[n] = '\0';
	return 0;
}

/* Next to the socket for sessions, and absolute: the protocol has no other names. */
static int name_notify(const char *socket, char ret[PATH_MAX])
{
	char dir[PATH_MAX] = "";
	int n;

	if (*socket != '/' && !getcwd(dir, sizeof(dir) - 1)) {
		log_error("--keeper: the working directory: %s", strerror(errno));
		return -errno;
	}
	n = snprintf(ret, PATH_MAX, "%s%s%s.keep", dir, *dir ? "/" : "", socket);
	return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int run(const struct config *c, char *const *argv, const struct listener *session,
	       const struct listener *control)
{
	char program[PATH_MAX], notify[PATH_MAX];
	struct keeper_params p = {
		.program = program,
		.argv = argv,
		.notify_path = notify,
		.session = session->fd,
		.control = control->fd,
		.watchdog_ns = c->keeper_watchdog_s * S,
		.abort_ns = ABORT_NS,
		.stop_ns = STOP_NS,
	};
	int r = find_program(program);

	if (r < 0)
		return EXIT_FAILURE;
	r = name_notify(c->socket, notify);
	if (r < 0)
		return EXIT_FAILURE;
	if (keep_kind() != KEEP_NONE)
		log_notice(
			"keeper: a service manager is told how the daemon is; its memory is kept "
			"here, and lost if this process ends");
	r = keeper_run(&p);
	if (r >= 0)
		return r;
	log_error("keeper: %s: %s", notify, strerror(-r));
	return EXIT_FAILURE;
}

int keeper_main(const struct config *c, char *const *argv)
{
	CLEANUP(listener_stop) struct listener session = LISTENER_NULL, control = LISTENER_NULL;
	int r = check_alone();

	if (r < 0)
		return EXIT_USAGE;
	signal(SIGPIPE, SIG_IGN);
	if (open_socket(&session, SOCK_SEQPACKET, c->socket) < 0 ||
	    open_socket(&control, SOCK_STREAM, c->control) < 0)
		return EXIT_FAILURE;
	return run(c, argv, &session, &control);
}
