/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon of a crash test, and who restarts it:
 *
 *   store    the test itself: it speaks the protocol of the service manager's descriptor store,
 *            and starts the next daemon as soon as it has seen the last one die
 *   keeper   sparqd --keeper
 *   outside  somebody else, systemd say: the test only kills
 *
 * All of a daemon's files are in a directory of its own, which is removed at the end.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define DAEMON_FDS 16

enum daemon_mode { DAEMON_STORE, DAEMON_KEEPER, DAEMON_OUTSIDE };

struct daemon_fd {
	int fd;
	char name[64];
};

struct daemon {
	enum daemon_mode mode;
	const char *path;   /* of the program */
	char directory[64]; /* "": none */
	char socket[108], log[80];
	const char *const *set; /* more "key=value", NULL ends */
	pid_t child;            /* the daemon, or the keeper; 0: none */
	int listener, notify;   /* of mode store */
	int pidfd;
	struct daemon_fd kept[DAEMON_FDS];
	unsigned n_kept;
	bool forgets; /* mode store: hands nothing over */
};
#define DAEMON_NULL ((struct daemon){ .listener = -1, .notify = -1, .pidfd = -1 })

/* Where files of a test go: $TMPDIR, if it is short enough, or /tmp. */
const char *daemon_scratch(void);

/* Functions that return int: 0 or -errno, after a sentence. */
int daemon_start(struct daemon *d, enum daemon_mode mode, const char *path, const char *const *set);
/* The other modes: this one is it now. */
void daemon_watch(struct daemon *d, pid_t pid);
/* So long, or until it has died; takes what it hands over. */
void daemon_wait(struct daemon *d, uint32_t us);
/* SIGKILL. */
int daemon_kill(struct daemon *d, pid_t pid);
/* Mode store: the daemon is dead (waits until it is); the next one. -ECHILD: it did not die by
 * SIGKILL. Else nothing. */
int daemon_restart(struct daemon *d);
bool daemon_died(pid_t child); /* any child; it stays to be waited for */
/* Whether the child is there; in mode store also takes what it hands over. */
bool daemon_alive(struct daemon *d);
/* The last lines of its log, to standard error. */
void daemon_show_log(const struct daemon *d);
void daemon_stop(struct daemon *d);
