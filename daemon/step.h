/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One checked entry, from its private copy to its completion.
 *
 * Items are staged (sequence held, rows written beside what is live, plan made)
 * until the lane is full; the wave of their KV heads is then run by all workers
 * that are free, and each item whose heads are all done is committed. Flushes
 * that fell due run after the completion was posted, before the next entry.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/audit.h"
#include "daemon/board.h"
#include "daemon/cache.h"
#include "daemon/check.h"
#include "daemon/lane.h"
#include "daemon/session.h"
#include "daemon/step-device.h"
#include "shm/stats-page.h"

struct step_item;
struct step_head;

struct stepper { /* one per worker */
	struct store *store;
	struct lane lane;
	struct board board;
	struct board_hand hand;          /* what its thread runs, of any board */
	uint32_t timeout_us;             /* default of an entry */
	bool may_share;                  /* there are other workers */
	void (*call_helpers)(void *arg); /* wakes them for a wave that is worth it */
	void *arg;

	/* of the entry being run */
	struct queue *queue;
	const struct sparq_sqe *entry;
	struct check_limits limits;
	uint64_t deadline_ns;   /* 0: none */
	uint32_t cache_timeout_us; /* that it is of; 0: of no cache */
	struct step_item *item; /* [SPARQ_MAX_ITEMS] */
	uint32_t n_items;
	struct step_head **head; /* of the wave, as board tasks */
	uint32_t n_heads;
	uint64_t wave_bytes; /* what dense attention of the wave would read */
	struct step_device device;

	uint64_t began_ns;
	struct audit_turn audit_turn;

	/* what the entry has read and written so far, and where it is counted (step-stats.h) */
	struct stats_read read;
	uint64_t written_bytes, written_rows;
	struct stats_worker *stats;         /* NULL: nowhere */
	uint8_t stats_node[POOL_MAX_NODES]; /* of the pool's: index in the topology */

	/* totals, written by this worker alone, read relaxed by others */
	uint64_t steps, errors, read_bytes, dense_bytes;
};

int stepper_init(struct stepper *s, struct store *store, size_t lane_bytes);
void stepper_deinit(struct stepper *s);

/* Runs the entry; the completion but for its position. Sequences stay held. False: it found no room
 * and waits for some in its queue (room.h); nothing is held, and there is nothing to post. */
bool step_run(struct stepper *s, struct queue *q, const struct sparq_sqe *e, struct sparq_cqe *ret);
/* After the completion was posted: flushes what is due and lets the sequences go. */
void step_settle(struct stepper *s);
