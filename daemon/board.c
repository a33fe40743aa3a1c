/* SPDX-License-Identifier: Apache-2.0 */
/* Shares of a step, handed out by one word a node: see board.h. */
#include "daemon/board.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "shm/atomic.h"
#include "shm/base.h"

#define PAUSES_BEFORE_YIELD 2000
/* What an awake worker needs to see that there is work on its node. */
#define PAUSES_FOR_NEAR 100
/* Others' shares that the owner runs before its own far ones: its client does not wait longer. */
#define MOST_ELSEWHERE 4
#define PIECES_PER_TASK 2

struct board_piece {
	struct board_task *task;
	uint32_t share, n;    /* its first, and how many */
	uint32_t lane, place; /* of the first in the lane */
};

/* A cache line (and its neighbour, which is fetched with it) for each node: what its workers write
 * is written by no other's until they have nothing left. */
struct board_lane {
	uint64_t ticket; /* atomic */
	uint32_t done;   /* atomic: tickets run */
	uint32_t shares; /* of the prepared tasks */
	struct board_piece *piece;
	uint32_t n_pieces;
	uint8_t pad[128 - 28];
};
_Static_assert(sizeof(struct board_lane) == 128, "a lane is two lines");

static uint64_t ticket(uint32_t next, uint32_t n)
{
	return (uint64_t)next << 32 | n;
}

/* ---- set-up ------------------------------------------------------------------ */

int board_init(struct board *b, unsigned n_nodes, uint32_t max_tasks)
{
	bool several = n_nodes > 1;
	struct board made = {
		.n_nodes = n_nodes,
		.n_lanes = several ? n_nodes + 1 : 1,
		.max_pieces = several ? PIECES_PER_TASK * max_tasks : max_tasks,
	};

	made.lane = aligned_alloc(128, made.n_lanes * sizeof(*made.lane));
	made.piece = calloc(made.max_pieces, sizeof(*made.piece));
	made.unsorted = several ? calloc(made.max_pieces, sizeof(*made.piece)) : made.piece;
	if (!made.lane || !made.piece || !made.unsorted) {
		board_deinit(&made);
		return -ENOMEM;
	}
	memset(made.lane, 0, made.n_lanes * sizeof(*made.lane));
	for (unsigned i = 0; i < n_nodes && i < BOARD_MAX_NODES; i++)
		made.lane_of[i] = (uint8_t)i;
	*b = made;
	return 0;
}

void board_deinit(struct board *b)
{
	if (b->unsorted != b->piece)
		free(b->unsorted);
	free(b->piece);
	free(b->lane);
	*b = BOARD_NULL;
}

/* ---- cutting ----------------------------------------------------------------- */

static uint32_t lane_of(const struct board *b, const struct board_task *t, uint32_t share)
{
	uint32_t node = t->node && b->n_lanes > 1 ? t->node(t, share) : BOARD_ANYWHERE;

	return node < b->n_nodes ? b->lane_of[node] : b->n_lanes - 1;
}

static void add_piece(struct board *b, struct board_task *t, uint32_t first, uint32_t end,
		      uint32_t lane)
{
	b->unsorted[b->n_pieces++] = (struct board_piece){
		.task = t,
		.share = first,
		.n = end - first,
		.lane = lane,
	};
}

/* Into pieces, at most `room`. A task that has more is for anybody from there on. */
static void cut_task(struct board *b, struct board_task *t, uint32_t room)
{
	uint32_t first = 0, lane = lane_of(b, t, 0), share = 1;

	for (; share < t->shares && b->n_lanes > 1; share++) {
		uint32_t next = lane_of(b, t, share);

		if (next == lane)
			continue;
		if (room-- == 1) {
			lane = b->n_lanes - 1;
			break;
		}
		add_piece(b, t, first, share, lane);
		first = share;
		lane = next;
	}
	add_piece(b, t, first, t->shares, lane);
}

/* Pieces keep their order within a lane. */
static void sort_pieces(struct board *b)
{
	struct board_piece *next = b->piece;

	for (uint32_t i = 0; i < b->n_lanes; i++) {
		b->lane[i].piece = next;
		next += b->lane[i].n_pieces;
		b->lane[i].n_pieces = 0;
	}
	for (uint32_t i = 0; i < b->n_pieces; i++) {
		struct board_piece p = b->unsorted[i];
		struct board_lane *l = &b->lane[p.lane];

		p.place = l->shares;
		l->shares += p.n;
		l->piece[l->n_pieces++] = p;
	}
}

uint32_t board_prepare(struct board *b, struct board_task **task, uint32_t n_tasks)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n_lanes; i++) {
		store_relaxed(&b->lane[i].done, 0u);
		b->lane[i].shares = b->lane[i].n_pieces = 0;
	}
	b->n_pieces = 0;
	for (uint32_t i = 0; i < n_tasks; i++) {
		assert(task[i]->shares > 0);
		store_relaxed(&task[i]->left, task[i]->shares);
		n += task[i]->shares;
		/* Those to come have a piece each. */
		cut_task(b, task[i], b->max_pieces - b->n_pieces - (n_tasks - i - 1));
	}
	assert(b->n_pieces <= b->max_pieces);
	for (uint32_t i = 0; i < b->n_pieces; i++)
		b->lane[b->unsorted[i].lane].n_pieces++;
	sort_pieces(b);
	return n;
}

uint32_t board_shares(const struct board *b, uint32_t node)
{
	if (node == BOARD_ANYWHERE)
		return b->n_lanes > 1 ? b->lane[b->n_lanes - 1].shares : 0;
	return b->lane[node].shares;
}

bool board_has_far(const struct board *b, const struct board_hand *hand)
{
	for (uint32_t i = 0; i < b->n_nodes && hand->node >= 0; i++)
		if ((int)i != hand->node && b->lane[i].shares)
			return true;
	return false;
}

void board_open(struct board *b)
{
	/* The tasks, and all they point at, are visible to whoever takes a ticket. */
	for (uint32_t i = 0; i < b->n_lanes; i++)
		if (b->lane[i].shares)
			store_release(&b->lane[i].ticket, ticket(0, b->lane[i].shares));
}

/* ---- running ----------------------------------------------------------------- */

static bool lane_is_open(const struct board_lane *l)
{
	uint64_t now = load_relaxed(&l->ticket);

	return (uint32_t)(now >> 32) < (uint32_t)now;
}

/* Takes the next share. The acquire sees the tasks that board_open released: the word it was
 * compared with can only be of the tasks that are up now. */
static bool take(struct board_lane *l, uint32_t *ret_place)
{
	uint64_t now = load_relaxed(&l->ticket);

	for (;;) {
		uint32_t next = (uint32_t)(now >> 32), n = (uint32_t)now;

		if (next >= n)
			return false;
		if (compare_exchange(&l->ticket, &now, ticket(next + 1, n))) {
			*ret_place = next;
			return true;
		}
	}
}

static const struct board_piece *piece_of(const struct board_lane *l, uint32_t place)
{
	uint32_t low = 0, high = l->n_pieces;

	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (l->piece[middle].place <= place)
			low = middle;
		else
			high = middle;
	}
	return &l->piece[low];
}

static void count(struct board_hand *hand, bool near)
{
	uint64_t *counter = near ? &hand->near : &hand->far;

	store_relaxed(counter, *counter + 1);
}

static void run(struct board *b, uint32_t lane, uint32_t place, struct board_hand *hand)
{
	struct board_lane *l = &b->lane[lane];
	const struct board_piece *p = piece_of(l, place);
	struct board_task *t = p->task;

	t->share(t, p->share + place - p->place);
	/* Whoever brings `left` to 0 has acquired what all other shares wrote. */
	if (fetch_sub(&t->left, 1) == 1 && t->finish)
		t->finish(t);
	if (lane < b->n_nodes && hand->node >= 0)
		count(hand, (int)lane == hand->node);
	/* The owner's acquire of the full count sees every result. */
	fetch_add(&l->done, 1);
}

static bool run_next(struct board *b, uint32_t lane, struct board_hand *hand)
{
	uint32_t place;

	if (!take(&b->lane[lane], &place))
		return false;
	run(b, lane, place, hand);
	return true;
}

static bool is_placed(const struct board *b, const struct board_hand *hand)
{
	return b->n_lanes > 1 && hand->node >= 0;
}

/* One share of its node, or of none: of any for who may be anywhere. */
static bool run_near(struct board *b, struct board_hand *hand)
{
	if (is_placed(b, hand))
		return run_next(b, (uint32_t)hand->node, hand) || run_next(b, b->n_lanes - 1, hand);
	for (uint32_t i = 0; i < b->n_lanes; i++)
		if (run_next(b, i, hand))
			return true;
	return false;
}

static uint32_t nth_node(const struct board_hand *hand, uint32_t i)
{
	return hand->order ? hand->order[i] : i;
}

static bool run_far(struct board *b, struct board_hand *hand)
{
	for (uint32_t i = 0; i < b->n_nodes; i++)
		if (run_next(b, nth_node(hand, i), hand))
			return true;
	return false;
}

/* Is a share left for workers of another node? */
static bool is_left_to_others(const struct board *b)
{
	for (uint32_t i = 0; i < b->n_nodes; i++)
		if (b->manned >> i & 1 && lane_is_open(&b->lane[i]))
			return true;
	return false;
}

/* What is left has its pages on other nodes: their workers get a moment to come, and what this
 * one's node has on other boards goes first. */
static void finish_far(struct board *b, struct board_hand *hand)
{
	unsigned elsewhere = 0;

	for (unsigned i = 0; i < PAUSES_FOR_NEAR && is_left_to_others(b); i++)
		cpu_pause();
	while (board_is_open(b)) {
		if (hand->near_elsewhere && elsewhere < MOST_ELSEWHERE &&
		    hand->near_elsewhere(hand->arg))
			elsewhere++;
		else
			run_far(b, hand);
	}
}

void board_finish(struct board *b, struct board_hand *hand)
{
	while (run_near(b, hand))
		;
	if (is_placed(b, hand))
		finish_far(b, hand);
	for (uint32_t lane = 0; lane < b->n_lanes; lane++) {
		struct board_lane *l = &b->lane[lane];

		for (uint32_t i = 0; load_acquire(&l->done) != l->shares; i++) {
			if (i < PAUSES_BEFORE_YIELD)
				cpu_pause();
			else
				sched_yield(); /* a helper lost its CPU, perhaps to us */
		}
	}
}

void board_run_alone(struct board *b, struct board_hand *hand)
{
	for (uint32_t lane = 0; lane < b->n_lanes; lane++)
		for (uint32_t i = 0; i < b->lane[lane].shares; i++)
			run(b, lane, i, hand);
}

bool board_is_open(const struct board *b)
{
	for (uint32_t i = 0; i < b->n_lanes; i++)
		if (lane_is_open(&b->lane[i]))
			return true;
	return false;
}

bool board_help(struct board *b, struct board_hand *hand, bool far)
{
	return run_near(b, hand) || (far && is_placed(b, hand) && run_far(b, hand));
}

uint64_t board_progress(const struct board *b)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < b->n_lanes; i++)
		n += load_relaxed(&b->lane[i].done);
	return n;
}
