/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles of what the daemon holds: an id, the connection it is spoken of on, and
 * what it takes to find it again after a restart.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/sparq.h"
#include "shm/message.h"

struct handle {
	sparq *c;
	uint64_t id; /* atomic: entries are filled with it in any thread */
	char *lost;  /* speak; the sentence that says what became of it; NULL: it is there */
	struct handle *next, **at; /* speak */
};

struct sparq_cache {
	struct handle h;
	struct sparq_msg_cache_create *made; /* with a name alone: for daemons that know no ids */
};

struct sparq_seq {
	struct handle h;
	char name[64];     /* empty: dropped when the handle is let go */
	struct handle *in; /* speak; its cache, NULL when that handle has gone */
};

/* A call whose reply has the id of a new handle: `made` gets it, and joins `list`, before anybody
 * can replace the session that it is of. `of`: whose id the request has; NULL: nobody's. */
int conn_call_new(sparq *c, struct handle *of, union message *m, struct handle *made,
		  struct handle **list);
/* Bytes that the request refers to: they are put into the arena of whichever session it is said in,
 * at a place that the caller has taken. made NULL: nothing new. */
struct payload {
	const void *data;
	size_t bytes;
	uint64_t offset;
};
int conn_call_with(struct handle *of, union message *m, const struct payload *p,
		   struct handle *made, struct handle **list);
/* Out of its list, and what it refers to let go; its memory is the caller's to free. */
void handle_remove(struct handle *h);
