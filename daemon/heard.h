/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a manager hears: one datagram of sd_notify(3), from whom the kernel says
 * it is, with the descriptors that came along. The keeper's side of
 * daemon/notify.h.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "daemon/stash.h"

#define HEARD_MOST_FDS 253

struct heard {
	struct ucred from;
	int fd[HEARD_MOST_FDS];
	unsigned n_fds;
	bool ready, reloading, stopping, watchdog, store, remove;
	char name[STASH_NAME_BYTES]; /* FDNAME=; "stored" where there is none, "" if it cannot be
					one */
	char status[256];            /* STATUS=; "" */
	uint64_t extend_usec;        /* EXTEND_TIMEOUT_USEC=; 0 */
};
#define HEARD_NULL ((struct heard){ .n_fds = 0 })

/* The lines of a text: unknown ones are passed over, as the protocol has it. */
void heard_parse(struct heard *h, const char *text);
/* One datagram: 1, 0 there is none, -EBADMSG: one that is not to be looked at (cut, too many
 * descriptors, without credentials), -errno. */
int heard_receive(int fd, struct heard *ret);
void heard_deinit(struct heard *h); /* closes what was not taken (fd = -1) */
