/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How workers share one worker's step: a list of tasks, each cut into shares,
 * handed out by one word.
 *
 *   ticket = next share << 32 | number of shares         (moved by compare-and-exchange)
 *
 * A ticket is taken only while next < number, so it belongs to the tasks that
 * are up now; the owner waits until every ticket taken was run before it puts up
 * others. What a task's last share leaves to do (selection, merge) is run at
 * once by the worker that ran that share.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct board_task {
	void (*share)(struct board_task *t, uint32_t share);
	void (*finish)(struct board_task *t); /* after the last share; may be NULL */
	uint32_t shares;                      /* at least 1 */
	uint32_t first;                       /* board's: shares of the tasks before */
	uint32_t left;                        /* atomic: shares not yet run */
};

struct board {
	uint64_t ticket; /* atomic */
	uint32_t done;   /* atomic: tickets run */
	struct board_task **task;
	uint32_t n_tasks;
	uint8_t pad[128 - 24 - 8];
};

/* Cuts and numbers the tasks; how many shares. Then board_run runs them. */
uint32_t board_prepare(struct board *b, struct board_task **task, uint32_t n_tasks);
/* Owner: puts the prepared tasks up. Others may help from now on. */
void board_open(struct board *b, uint32_t n_shares);
/* Owner: runs what is left, waits for the others' shares. */
void board_finish(struct board *b, uint32_t n_shares);
/* Owner, without help: everything here and now. */
void board_run_alone(struct board *b, uint32_t n_shares);
/* Is there a share to take? A hint. */
bool board_is_open(const struct board *b);
/* Another worker: takes and runs one share. False: nothing to take. */
bool board_help(struct board *b);
