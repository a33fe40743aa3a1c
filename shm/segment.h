/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory between the daemon and its clients: sealed shmem memfds that
 * the daemon makes, and where the rings lie in them.
 *
 * A session segment is sealed SHRINK|GROW|FUTURE_WRITE|SEAL only after the client
 * has mapped it, so no hole can be punched under the daemon.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/ring.h"
#include "shm/sparq-abi.h"

struct segment {
	void *base;
	size_t bytes;
	int fd; /* daemon: kept to seal; client: closed after mapping */
};
#define SEGMENT_NULL ((struct segment){ .fd = -1 })

/* Makes a memfd (mode 0600, close-on-exec), reserves every page and maps it. -ENOMEM for more than
 * the machine has, -errno. What is less, but more than is free, costs processes: the caller has a
 * quota and charges it first. */
int segment_create(const char *name, size_t bytes, struct segment *ret);
/* The same in steps, for who has others to serve: the first takes no memory, each of the others the
 * `most` bytes, a multiple of the page size, after the first *at, and moves that on. 1: there are
 * more, 0: it is whole. */
int segment_begin(const char *name, size_t bytes, struct segment *ret);
int segment_fill(struct segment *s, size_t most, size_t *at);
/* Maps a received descriptor of exactly `bytes`; takes the descriptor on success. */
int segment_map(int fd, size_t bytes, bool writable, struct segment *ret);
/* SHRINK|GROW|FUTURE_WRITE|SEAL, then reads the seals back; -EPROTO if it was cut, grown or punched
 * before: its client did that. */
int segment_seal(struct segment *s);
void segment_deinit(struct segment *s);

/* How a session segment is cut: header-less, rings coloured so that control words
 * of many sessions do not fall into one cache set. */
struct segment_layout {
	size_t bytes, arena_offset, arena_bytes;
	uint32_t n_queues, sq_entries, cq_entries;
	struct sparq_ring_place ring[SPARQ_MAX_QUEUES];
};

/* `session` is any running number; -EINVAL for a size out of range. */
int segment_plan(unsigned session, uint32_t n_queues, uint32_t sq_entries, size_t arena_bytes,
		 struct segment_layout *ret);
/* The ring `i` of a mapped segment; -EPROTO where the told offsets do not lie inside it. */
int segment_ring(const struct segment *s, const struct segment_layout *l, unsigned i,
		 struct ring_map *ret);
