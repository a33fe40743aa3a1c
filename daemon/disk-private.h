/* SPDX-License-Identifier: Apache-2.0 */
/* Between disk.c (thread, queues, buffers) and disk-lane.c (one job, piece by piece). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/disk-backend.h"

struct lane;

struct piece {
	struct lane *lane;
	char *data;
	uint64_t at;
	uint32_t bytes; /* of the file */
	uint32_t done;  /* of them, read or written */
	bool whole;
};

/*
 * IDLE --(opened)--> MOVING --(all pieces)--> SYNCING --(renamed)--> IDLE    a file to write
 *                    MOVING --(all pieces)-------------------------> IDLE    one to read
 * IDLE --> REMOVING ---------------------------------------------> IDLE    one to remove
 *
 * After an error or a cancellation nothing is begun, and the job ends when nothing is under way.
 */
enum lane_stage { LANE_IDLE, LANE_MOVING, LANE_SYNCING, LANE_REMOVING };

struct lane {
	const struct disk_params *params;
	const struct disk_backend *backend;
	void *state;
	struct disk_job *job;
	enum lane_stage stage;
	int fd;
	int64_t begun_ns;
	struct piece piece[DISK_DEPTH_MAX]; /* piece i of the file uses slot i mod depth */
	uint64_t begun, ended;              /* pieces; in order */
	unsigned under_way;                 /* requests */
};

/* Of an idle lane. */
void lane_begin(struct lane *l, struct disk_job *job);
/* Goes on as far as it can without waiting; the job if it has ended, its result in it. */
struct disk_job *lane_go_on(struct lane *l);
/* A request of it is over; `token` is of one of its pieces, or the lane itself. */
void lane_event(struct lane *l, void *token, int res);
/* Nothing will come back any more: the job ends with `error`. */
struct disk_job *lane_break(struct lane *l, int error);
