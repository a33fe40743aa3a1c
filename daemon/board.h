/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How workers share one worker's step: a list of tasks, each cut into shares,
 * handed out by one word for each node on which they have pages.
 *
 *   lane of a node: shares whose pages are there, in the order of the tasks; and those of a node
 *   that has memory only, if this one's workers are to run them
 *   ticket = next share << 32 | number of shares         (moved by compare-and-exchange)
 *
 * A worker takes of the lane of its own node, and of the one of shares that lie nowhere in
 * particular. Only when its node has nothing left it takes others', the nearest first: the owner,
 * because its client waits; a helper, when it has found nothing for a while.
 *
 * A ticket is taken only while next < number, so it belongs to the tasks that
 * are up now; the owner waits until every ticket taken was run before it puts up
 * others. What a task's last share leaves to do (selection, merge) is run at
 * once by the worker that ran that share.
 *
 * Which shares there are depends on the task alone; where they lie and who runs them decides when
 * they run, and nothing else.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BOARD_ANYWHERE UINT32_MAX
#define BOARD_MAX_NODES 64

struct board_task {
	void (*share)(struct board_task *t, uint32_t share);
	void (*finish)(struct board_task *t); /* after the last share; may be NULL */
	/* Index of the node where what it reads lies, or BOARD_ANYWHERE; may be NULL. */
	uint32_t (*node)(const struct board_task *t, uint32_t share);
	uint32_t shares; /* at least 1 */
	uint32_t left;   /* atomic: shares not yet run */
};

/* Who runs shares. The counts are of shares by where they lay; those that lay nowhere in
 * particular, or run by somebody who may be anywhere, are in none. */
struct board_hand {
	int node;             /* index; -1: may be anywhere */
	const uint8_t *order; /* all nodes, its own first; NULL: by their number */
	bool (*near_elsewhere)(
		void *a); /* runs a share of its node of another board; may be NULL */
	void *arg;
	uint64_t near, far; /* written by its thread, read relaxed */
};

struct board_piece; /* shares of one task that follow each other in one lane */
struct board_lane;

struct board {
	uint32_t n_nodes, n_lanes;
	uint32_t max_pieces, n_pieces;
	struct board_lane *lane;      /* one a node; then, if there are several, one of ANYWHERE */
	struct board_piece *piece;    /* by lane */
	struct board_piece *unsorted; /* the same array, where there is one lane */
	uint64_t manned;              /* nodes that have workers, bit by bit */
	uint8_t lane_of[BOARD_MAX_NODES]; /* of each node: its own, or that of who works for it */
};
#define BOARD_NULL ((struct board){ 0 })

/* For waves of at most `max_tasks`. -ENOMEM. */
int board_init(struct board *b, unsigned n_nodes, uint32_t max_tasks);
void board_deinit(struct board *b);

/* Cuts and sorts the tasks; how many shares. Then one of the three below runs them. */
uint32_t board_prepare(struct board *b, struct board_task **task, uint32_t n_tasks);
/* Of the prepared shares, those of a node; BOARD_ANYWHERE: those that are of none. */
uint32_t board_shares(const struct board *b, uint32_t node);
/* Are some of them on another node than this hand's? */
bool board_has_far(const struct board *b, const struct board_hand *hand);
/* Owner: puts the prepared tasks up. Others may help from now on. */
void board_open(struct board *b);
/* Owner: runs what is left, waits for the others' shares. */
void board_finish(struct board *b, struct board_hand *hand);
/* Owner, without help: everything here and now. */
void board_run_alone(struct board *b, struct board_hand *hand);

/* Is there a share to take? A hint. */
bool board_is_open(const struct board *b);
/* Another worker: takes and runs one share, of its node or of none; `far`: or of another node.
 * False: there was none to take. */
bool board_help(struct board *b, struct board_hand *hand, bool far);
/* Shares run of what was up last: moves while a wave runs. */
uint64_t board_progress(const struct board *b);
