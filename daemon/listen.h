/* SPDX-License-Identifier: Apache-2.0 */
/* A listening unix socket: passed in by the service manager, or made, and then removed at exit. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "daemon/config.h"
#include "daemon/loop.h"

typedef void listener_fn(void *arg, int fd); /* the connection is the callee's */

struct listener {
	int fd;
	char path[CONFIG_PATH_MAX]; /* "": not ours to remove */
	dev_t dev;
	ino_t ino;
	struct loop *loop;
	struct loop_source source;
	struct loop_timer rest;
	listener_fn *fn;
	void *arg;
};
#define LISTENER_NULL ((struct listener){ .fd = -1, .source = LOOP_SOURCE_NULL })

/* Makes the socket, mode 0660. A name that nobody listens on any more is taken over; -EADDRINUSE if
 * somebody does. `why` has CONFIG_WHY_BYTES. Before any thread is started: the umask is the
 * process's. */
int listener_open(struct listener *l, int type, const char *path, char *why);
void listener_adopt(struct listener *l, int fd); /* of the service manager */
/* Of a socket that several processes hold: who connects from now on sees this one as the one that
 * listens (SO_PEERCRED), and takes the name over only if this one is dead. */
void listener_claim(int fd);
/* Accepts in the loop, non-blocking and close-on-exec; pauses when descriptors run out. */
int listener_start(struct listener *l, struct loop *loop, listener_fn *fn, void *arg);
void listener_stop(struct listener *l); /* clients find nobody; the name goes if it is ours */
