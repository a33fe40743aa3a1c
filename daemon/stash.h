/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's store: descriptors by name, as systemd has them: several may
 * have one name, one file is held once under a name.
 */
#pragma once

#include <stdbool.h>

#define STASH_MOST 253 /* what one message carries */
#define STASH_NAME_BYTES 64

struct stash {
	struct stash_fd {
		char name[STASH_NAME_BYTES];
		int fd;
	} held[STASH_MOST];
	unsigned n;
};
#define STASH_NULL ((struct stash){ .n = 0 })

/* 1 to 63 printable characters without ':', which separates names. */
bool stash_name_ok(const char *name);
/* Takes the descriptor in any case: 1 held, 0 it was held already, -EINVAL for the name, -ENOSPC.
 */
int stash_put(struct stash *s, const char *name, int fd);
unsigned stash_remove(struct stash *s, const char *name); /* closes; how many */
void stash_deinit(struct stash *s);
