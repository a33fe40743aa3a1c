/* SPDX-License-Identifier: Apache-2.0 */
/* An entry's way through a worker: see step.h. */
#include "daemon/step.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/step-audit.h"
#include "daemon/step-item.h"
#include "daemon/step-split.h"
#include "daemon/step-stats.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

/* A wave that reads less is over before a sleeping worker is awake. */
#define WORTH_A_WAKE_BYTES MIB

int stepper_init(struct stepper *s, struct store *store, size_t lane_bytes)
{
	int r = lane_init(&s->lane, lane_bytes);

	if (r < 0)
		return r;
	s->store = store;
	s->item = calloc(SPARQ_MAX_ITEMS, sizeof(*s->item));
	s->head = calloc(MAX_WAVE_HEADS, sizeof(struct step_head *));
	/* With one node that is where it is; with more its thread's owner says. */
	s->hand.node = store->pool->n_nodes == 1 ? 0 : -1;
	for (unsigned i = 0; i < POOL_MAX_NODES; i++)
		s->stats_node[i] = (uint8_t)i;
	if (store->devices && devices_enroll(store->devices, &s->device.request) < 0) {
		stepper_deinit(s);
		return -ENOSPC;
	}
	r = board_init(&s->board, store->pool->n_nodes, MAX_WAVE_HEADS);
	if (!s->item || !s->head || r < 0) {
		stepper_deinit(s);
		return -ENOMEM;
	}
	return 0;
}

void stepper_deinit(struct stepper *s)
{
	if (s->store && s->store->devices)
		devices_withdraw(s->store->devices, &s->device.request);
	lane_deinit(&s->lane);
	board_deinit(&s->board);
	free(s->item);
	free(s->head);
	s->item = NULL;
	s->head = NULL;
}

/* Runs what this processor is to compute, with whoever helps, and adds up what its heads found. */
static void run_heads(struct stepper *s)
{
	struct board_task **task = (struct board_task **)s->head;
	uint32_t n;

	_Static_assert(offsetof(struct step_head, task) == 0, "a head is a task");
	if (s->n_heads == 0)
		return;
	n = board_prepare(&s->board, task, s->n_heads);
	if (s->may_share && (n > 1 || board_has_far(&s->board, &s->hand))) {
		board_open(&s->board);
		if (s->wave_bytes >= WORTH_A_WAKE_BYTES)
			s->call_helpers(s->arg);
		board_finish(&s->board, &s->hand);
	} else {
		board_run_alone(&s->board, &s->hand);
	}
	for (uint32_t h = 0; h < s->n_heads; h++)
		if (!s->head[h]->is_half)
			item_gather(s->head[h]);
	s->n_heads = 0;
	s->wave_bytes = 0;
}

static void attend_here(struct stepper *s, struct step_item *i);

/* Runs the wave that was staged: a device has its part while others have theirs. What it could not
 * do is done here. */
static void run_wave(struct stepper *s)
{
	bool posted = step_device_begin(s);
	uint32_t n;

	run_heads(s);
	step_device_end(s, posted);
	s->lane.used = 0;
	n = s->device.n_back;
	/* These go to no device: nothing is added while they are gone through. */
	for (uint32_t i = 0; i < n; i++) {
		attend_here(s, s->device.back[i]);
		run_heads(s);
		s->lane.used = 0;
	}
}

/* Stages an item with an empty lane if it does not fit beside the others. */
static bool stage_alone(struct stepper *s, struct step_item *i)
{
	run_wave(s);
	if (item_stage(s, i))
		return true;
	item_fail(i, -ENOMEM, SPARQ_REASON_UNSUPPORTED);
	return false;
}

static void attend_on_device(struct stepper *s, struct step_item *i)
{
	if (step_device_stage(s, i, NULL, NULL))
		return;
	if (stage_alone(s, i) && !i->error && !step_device_stage(s, i, NULL, NULL))
		item_fail(i, -ENOMEM, SPARQ_REASON_UNSUPPORTED);
}

/* Stages the item's heads, in as many waves as the lane needs. */
static void stage_heads(struct stepper *s, struct step_item *i)
{
	uint32_t kv_heads = cache_shape(i->seq->cache)->kv_heads;

	step_audit_choose(s, i);
	for (uint32_t head = 0; head < kv_heads && !i->error; head++) {
		if (s->n_heads < MAX_WAVE_HEADS && item_stage_head(s, i, head))
			continue;
		if (!stage_alone(s, i) || i->error)
			return;
		if (!item_stage_head(s, i, head))
			item_fail(i, -ENOMEM, SPARQ_REASON_UNSUPPORTED);
	}
}

/* One that its device gave back, with an empty lane. */
static void attend_here(struct stepper *s, struct step_item *i)
{
	i->heads_left = cache_shape(i->seq->cache)->kv_heads;
	if (!item_stage(s, i))
		item_fail(i, -ENOMEM, SPARQ_REASON_UNSUPPORTED);
	else if (!i->error)
		stage_heads(s, i);
}

/* From `row` on by its device, below it here; or here whole. */
static void attend_halves(struct stepper *s, struct step_item *i, uint32_t row)
{
	int r = step_split_stage(s, i, row);

	if (r == -ENOSPC && stage_alone(s, i) && !i->error)
		r = step_split_stage(s, i, row);
	if (r == 0 || i->error)
		return;
	/* Heads one after the other need less memory of the worker's than all at once. */
	if (r == -ENOSPC)
		i->beside = DEVICE_BESIDE_KERNEL;
	stage_heads(s, i);
}

static void attend_item(struct stepper *s, struct step_item *i)
{
	uint32_t row;

	i->heads_left = cache_shape(i->seq->cache)->kv_heads;
	if (!item_stage(s, i) && !stage_alone(s, i))
		return;
	row = i->error ? 0 : step_split_row(i);
	if (row)
		attend_halves(s, i, row);
	else if (!i->error && step_device_runs(s, i))
		attend_on_device(s, i);
	else
		stage_heads(s, i);
}

static void truncate_item(struct stepper *s, struct step_item *i)
{
	int r;

	i->seq->shortage = SHORTAGE_NONE;
	r = seq_cut(i->seq, s->entry->layer, i->in.row);
	if (r < 0)
		item_fail(i, r,
			  r == -EINVAL ? SPARQ_REASON_ROW : shortage_reason(&i->seq->shortage));
}

/* No sequence is in an entry twice: looked for before the second is held. */
static bool is_duplicate(const struct stepper *s, uint32_t index)
{
	for (uint32_t j = 0; j < index; j++)
		if (s->item[j].in.sequence == s->item[index].in.sequence)
			return true;
	return false;
}

/* Items of one entry are of one cache, that of the first that could be held. */
static bool is_of_another_cache(const struct stepper *s, uint32_t index)
{
	for (uint32_t j = 0; j < index; j++)
		if (s->item[j].seq)
			return s->item[j].seq->cache != s->item[index].seq->cache;
	return false;
}

/* What needs no result of a kernel: holds its sequence, truncates it, overwrites or appends rows.
 */
static void start_item(struct stepper *s, uint32_t index)
{
	struct step_item *i = &s->item[index];

	if (is_duplicate(s, index)) {
		item_fail(i, -EINVAL, SPARQ_REASON_DUPLICATE);
		return;
	}
	item_hold(s, i);
	if (!i->error && is_of_another_cache(s, index))
		item_fail(i, -EINVAL, SPARQ_REASON_CACHE);
	if (i->error)
		return;
	if (s->entry->op == SPARQ_OP_TRUNCATE) {
		truncate_item(s, i);
		return;
	}
	if (s->entry->op == SPARQ_OP_OVERWRITE) {
		item_overwrite(s, i);
		return;
	}
	item_append(s, i);
}

/* Copies the items once; nothing of them is read from shared memory again. */
static void copy_items(struct stepper *s)
{
	const struct session *session = s->queue->session;
	const uint8_t *arena = (uint8_t *)session->segment.base + session->layout.arena_offset;

	s->n_items = s->entry->n_items ? s->entry->n_items : 1;
	for (uint32_t i = 0; i < s->n_items; i++) {
		struct step_item *item = &s->item[i];

		memset(item, 0, sizeof(*item));
		item->report.alpha_min = 1;
		if (s->entry->n_items)
			memcpy(&item->in, arena + s->entry->sequence + i * sizeof(item->in),
			       sizeof(item->in));
		else
			item->in = check_item_of_entry(s->entry);
	}
	/* The copy is used from here on: the compiler must not go back to the arena for it. */
	__asm__ volatile("" ::: "memory");
}

/* The others are over when they were started. */
static bool has_report(const struct sparq_sqe *e)
{
	return e->op != SPARQ_OP_TRUNCATE && e->op != SPARQ_OP_OVERWRITE;
}

static void complete_items(struct stepper *s, struct sparq_cqe *cqe)
{
	for (uint32_t index = 0; index < s->n_items; index++) {
		struct step_item *i = &s->item[index];

		if (i->seq && has_report(s->entry))
			item_complete(s, i);
		if (i->seq)
			step_stats_item(s, i);
		cqe->bytes_read += i->bytes_read;
		cqe->flags |= i->flags;
		if (i->error && cqe->res >= 0) {
			cqe->res = i->error;
			cqe->aux = i->reason << 16 | index;
		} else if (!i->error && cqe->res >= 0) {
			cqe->res++;
		}
	}
}

static uint64_t deadline_of(const struct stepper *s)
{
	uint32_t timeout_us = s->entry->timeout_us ? s->entry->timeout_us : s->timeout_us;

	if (s->queue->room.waits)
		return s->queue->room.deadline_ns;
	return timeout_us ? s->began_ns + (uint64_t)timeout_us * 1000 : 0;
}

/* Did the item find no room, and is the entry to wait for some? */
static bool is_to_wait(struct stepper *s, const struct step_item *i)
{
	return i->seq && i->error == -ENOSPC &&
	       room_wait(s->store, s->queue, s->entry, s->deadline_ns, i->seq);
}

/* As if the entry had not been read. What items before it have reserved stays with their tails,
 * for the next time. */
static void put_back(struct stepper *s)
{
	for (uint32_t i = 0; i < s->n_items; i++)
		if (s->item[i].seq)
			seq_release(s->item[i].seq);
	s->n_items = 0;
}

/* False: the entry waits. */
static bool start_items(struct stepper *s)
{
	for (uint32_t i = 0; i < s->n_items; i++) {
		start_item(s, i);
		if (unlikely(is_to_wait(s, &s->item[i]))) {
			put_back(s);
			return false;
		}
	}
	return true;
}

static bool run_items(struct stepper *s, struct sparq_cqe *cqe)
{
	bool attends = s->entry->op == SPARQ_OP_STEP || s->entry->op == SPARQ_OP_ATTEND;

	copy_items(s);
	s->began_ns = clock_now_ns();
	s->read = (struct stats_read){ 0 };
	s->written_bytes = s->written_rows = 0;
	s->deadline_ns = deadline_of(s);
	s->cache_timeout_us = 0;
	s->lane.used = 0;
	s->wave_bytes = 0;
	/* All have their rows before the first attends: until then the entry can be put aside. */
	if (!start_items(s))
		return false;
	for (uint32_t i = 0; attends && i < s->n_items; i++)
		if (!s->item[i].error)
			attend_item(s, &s->item[i]);
	run_wave(s);
	complete_items(s, cqe);
	for (uint32_t i = 0; i < s->n_items; i++)
		if (s->item[i].seq)
			seq_settle(s->item[i].seq);
	return true;
}

static void count(struct stepper *s, const struct sparq_cqe *cqe)
{
	store_relaxed(&s->steps, s->steps + 1);
	store_relaxed(&s->errors, s->errors + (cqe->res < 0));
	store_relaxed(&s->read_bytes, s->read_bytes + cqe->bytes_read);
	step_stats_entry(s, cqe);
}

bool step_run(struct stepper *s, struct queue *q, const struct sparq_sqe *e, struct sparq_cqe *ret)
{
	uint32_t reason = SPARQ_REASON_NONE;
	int r = 0;

	*ret = (struct sparq_cqe){ .user_data = e->user_data };
	s->queue = q;
	s->entry = e;
	s->n_items = 0;
	s->limits = (struct check_limits){
		.arena_bytes = q->session->layout.arena_bytes,
		.max_items = SPARQ_MAX_ITEMS,
		.max_rows = SPARQ_MAX_ROWS,
	};
	if (q->failed) {
		r = -ECANCELED;
		reason = SPARQ_REASON_LINKED;
	} else {
		r = check_entry(e, &s->limits, &reason);
	}
	if (r < 0) {
		ret->res = r;
		ret->aux = reason << 16;
	} else if (e->op != SPARQ_OP_NOP && !run_items(s, ret)) {
		return false;
	}
	q->failed = ret->res < 0 && (e->flags & SPARQ_SQE_LINK);
	count(s, ret);
	return true;
}

void step_settle(struct stepper *s)
{
	s->lane.used = 0;
	for (uint32_t index = 0; index < s->n_items; index++) {
		struct step_item *i = &s->item[index];

		if (!i->seq)
			continue;
		if (unlikely(i->audited))
			step_audit_settle(s, i);
		item_flush(s, i);
		seq_release(i->seq);
		i->seq = NULL;
	}
	s->n_items = 0;
}
