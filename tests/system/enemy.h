/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session without libsparq, for attacks: raw messages, the segment mapped to
 * write anywhere, and a supply of entries that are wrong in plausible ways.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shm/doorbell.h"
#include "shm/message.h"
#include "shm/ring.h"
#include "shm/segment.h"

#define ENEMY_SEQUENCES 4u

struct enemy {
	const char *socket_path;
	double seconds;
	uint64_t seed;
	int socket, bell, segment_fd, page_fd;
	struct segment segment, page;
	struct segment_layout layout;
	struct sparq_msg_hello_reply told;
	struct ring_map map;
	struct doorbell doorbell;
	uint64_t sequence;
	uint64_t several[ENEMY_SEQUENCES]; /* those of own_something(), the last is sequence */
	uint64_t items;   /* where scribble() has put some, 0: nowhere yet */
	uint8_t items_op; /* what they are for */
	unsigned long items_done, items_refused; /* entries that named them */
	uint32_t tail, head; /* as an honest client would count */
};
#define ENEMY_NULL(path)                                                            \
	{ .socket_path = (path), .socket = -1, .bell = -1, .segment_fd = -1,        \
	  .page_fd = -1, .segment = SEGMENT_NULL, .page = SEGMENT_NULL }

/* The daemon did not do what it must: says so and ends the program with 1. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);
uint64_t draw(struct enemy *e);
double now(void); /* seconds */

int connect_to(const char *path);
void hello_message(union message *m);
/* Sends a request and returns its result; `m` becomes the reply, `text` its sentence. */
int ask(struct enemy *e, union message *m, int *fds, unsigned n_fds, char *text);
/* An ordinary session with one ring; a cache and sequences in it; the end of it. */
void enter(struct enemy *e);
void own_something(struct enemy *e);
void own_sequence(struct enemy *e, uint64_t cache);
void leave(struct enemy *e);

/* True if the daemon hangs up within `ms`. */
bool thrown_out(int fd, int ms);
void must_be_out(struct enemy *e, const char *what);
/* The daemon answers a newcomer: it is neither dead nor stuck. */
void must_be_well(struct enemy *e);

/* In the arena, at its ends, or anywhere. */
uint64_t some_address(struct enemy *e);
void some_entry(struct enemy *e, struct sparq_sqe *ret);
void publish(struct enemy *e, const struct sparq_sqe *sqe);
/* Reads what completions there are; how many. */
unsigned reap(struct enemy *e);
bool fatal(const struct enemy *e);
/*
 * Random words into the arena, items and tensors alike; and items that are right in all fields but
 * one or none, for those of garbage name no sequence, and what comes after that is never reached.
 */
void scribble(struct enemy *e);

/* ---- hostile-save.c ---- */
void attack_images(struct enemy *e);

/* ---- hostile-tokens.c ---- */
void attack_tokens(struct enemy *e);
