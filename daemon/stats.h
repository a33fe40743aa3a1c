/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stats page as the daemon writes it: made at the start, as large as the configuration allows
 * anything to be, so that counting takes no memory. Its layout is shm/stats-page.h.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "daemon/user.h"
#include "shm/segment.h"
#include "shm/stats-page.h"

struct stats_page {
	struct segment segment; /* the daemon's mapping; nobody else can have a writable one */
	int fd;                 /* what is handed out: opened to read */
	struct stats_header *header;
};
#define STATS_PAGE_NULL ((struct stats_page){ .segment = SEGMENT_NULL, .fd = -1 })

struct stats_params {
	uint32_t n[STATS_KINDS]; /* blocks of each kind */
	uint32_t generation;
};

/* -ENOMEM; -errno where there is no /proc to open it again by. */
int stats_page_create(const struct stats_params *p, struct stats_page *ret);
void stats_page_deinit(struct stats_page *p);
/* NULL: there is no page, or no such block. */
void *stats_page_block(const struct stats_page *p, enum stats_kind kind, uint32_t index);
/* The format's place in the header, STATS_FORMATS if it has none. */
uint32_t stats_page_format(const struct stats_page *p, const char *name);

/* A sequence's block, all counters 0, while nobody holds it; id 0: it is free. */
void stats_page_begin(struct stats_sequence *q, uint64_t id, uint64_t cache, uid_t uid,
		      const char *name);
/* A text of a block, word by word: `n` is its size, a multiple of 8. */
void stats_page_text(char *to, size_t n, const char *text);

/* A user's block: the one it had, a new one, or that of the first who has nothing here any more.
 * NULL: all belong to somebody. */
struct stats_user *stats_page_user(const struct stats_page *p, uid_t uid);

/* Who may see every user's figures: root, whom the daemon runs as, members of sparq-admin and the
 * user sparqd-exporter. By what the kernel says of the other end of the socket. */
struct stats_readers {
	uid_t exporter;
	gid_t admins;
	bool has_exporter, has_admins; /* there is such a user, such a group */
};
void stats_readers_find(struct stats_readers *r); /* may ask a name service: at the start */
/* 0, -EACCES, -errno. */
int stats_readers_check(const struct stats_readers *r, int socket);
