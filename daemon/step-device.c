/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of caches on a device: see step-device.h. */
#include "daemon/step-device.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "daemon/step-item.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define PAUSES 200u /* before it yields */

static struct kv_gpu_item describe(const struct stepper *s, const struct step_item *i)
{
	return (struct kv_gpu_item){
		.space = cache_layer(i->seq->cache, s->entry->layer),
		.plan = &i->plan,
		.view = &i->view,
		.query = &i->query,
	};
}

static struct kv_gpu_item describe_half(const struct stepper *s, const struct step_item *i,
					const struct kv_half *half)
{
	return (struct kv_gpu_item){
		.space = cache_layer(i->seq->cache, s->entry->layer),
		.plan = &half->plan,
		.view = &half->view,
		.query = &half->query,
	};
}

bool step_device_runs(const struct stepper *s, struct step_item *i)
{
	const struct kv_gpu_item item = describe(s, i);

	if (!i->seq->cache->device)
		return false;
	i->beside = device_runs(i->seq->cache->device, &item);
	return i->beside == DEVICE_BESIDE_NONE;
}

/* Where results go: y and lse of each KV head. */
static bool place_results(struct stepper *s, const struct kv_gpu_item *item)
{
	const struct kv_space *space = item->space;
	size_t rows = (size_t)item->query->n_q * space->group;

	for (uint32_t h = 0; h < space->kv_heads; h++) {
		struct kv_result *r = &item->result[h];

		*r = (struct kv_result){ .alpha_min = 1 };
		r->y = lane_take(&s->lane, rows * space->v_dim * sizeof(*r->y));
		r->lse = lane_take(&s->lane, rows * sizeof(*r->lse));
		if (!r->y || !r->lse)
			return false;
	}
	return true;
}

bool step_device_stage(struct stepper *s, struct step_item *i, const struct kv_half *half,
		       struct step_head **here)
{
	struct step_device *d = &s->device;
	struct kv_gpu_item item = half ? describe_half(s, i, half) : describe(s, i);
	uint32_t n = d->request.n, kv_heads = item.space->kv_heads;
	size_t mark = s->lane.used;
	struct step_head *head = lane_take(&s->lane, kv_heads * sizeof(*head));

	item.result = lane_take(&s->lane, kv_heads * sizeof(*item.result));
	if (!head || !item.result || n == KV_GPU_MAX_ITEMS || !place_results(s, &item)) {
		s->lane.used = mark;
		return false;
	}
	for (uint32_t h = 0; h < kv_heads; h++)
		head[h] = (struct step_head){ .item = i,
					      .stepper = s,
					      .exec.space = item.space,
					      .exec.head = h,
					      .on_device = true };
	d->device = i->seq->cache->device;
	d->item[n] = i;
	d->head[n] = head;
	d->here[n] = here;
	d->request.item[n] = item;
	d->request.n = n + 1;
	return true;
}

/* ---- waiting --------------------------------------------------------------------- */

static void pass_time(struct stepper *s, unsigned i)
{
	struct board_hand *hand = &s->hand;

	if (s->may_share && hand->near_elsewhere && hand->near_elsewhere(hand->arg))
		return;
	if (i % PAUSES)
		cpu_pause();
	else
		sched_yield(); /* the device's thread may want this CPU */
}

/* One that was left is the device's until it has looked at it. False: too late. */
static bool wait_until_free(struct stepper *s)
{
	const uint32_t *state = &s->device.request.state;

	for (unsigned i = 1; load_acquire(state) != REQUEST_FREE; i++) {
		if (step_is_over(s))
			return false;
		pass_time(s, i);
	}
	return true;
}

/* 0: its items say what became of them. */
static int wait_for_answer(struct stepper *s)
{
	struct device_request *r = &s->device.request;

	for (unsigned i = 1; !device_done(r); i++) {
		if (step_is_over(s) && device_leave(r))
			return -ETIME;
		pass_time(s, i);
	}
	return 0;
}

/* ---- results ----------------------------------------------------------------------- */

/* The device's copy is as good as gone, or was never whole: the host's rows are all there. */
static void take_back(struct step_device *d, struct step_item *i, int error)
{
	i->beside = error == -ENOMEM ? DEVICE_BESIDE_MEMORY : DEVICE_BESIDE_LOST;
	d->back[d->n_back++] = i;
}

/* Writes the head's result, of both halves if there are two. */
static void write_head(struct step_head *there, struct step_head *here)
{
	if (here) {
		kv_merge(there->exec.space, there->item->query.n_q, &there->exec.result,
			 &here->exec.result);
		item_gather_bytes(here);
	}
	item_write_head(there);
}

static void gather(struct step_device *d, uint32_t n, int error)
{
	const struct kv_gpu_item *item = &d->request.item[n];

	if (!error)
		error = d->request.error[n];
	if (error && error != -ETIME) {
		take_back(d, d->item[n], error);
		return;
	}
	for (uint32_t h = 0; h < item->space->kv_heads; h++) {
		struct step_head *head = &d->head[n][h], *here = d->here[n] ? d->here[n][h] : NULL;
		bool late = error == -ETIME || (here && load_relaxed(&here->cut));

		head->exec.result = item->result[h];
		store_relaxed(&head->cut, late);
		if (!late)
			write_head(head, here);
		item_gather(head);
	}
}

bool step_device_begin(struct stepper *s)
{
	struct step_device *d = &s->device;

	return d->device && wait_until_free(s) && device_post(d->device, &d->request);
}

void step_device_end(struct stepper *s, bool posted)
{
	struct step_device *d = &s->device;
	int error;

	d->n_back = 0;
	if (!d->device)
		return;
	error = posted ? wait_for_answer(s) : step_is_over(s) ? -ETIME : -EIO;
	for (uint32_t n = 0; n < d->request.n; n++)
		gather(d, n, error);
	d->device = NULL;
	d->request.n = 0;
}
