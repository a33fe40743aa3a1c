/* SPDX-License-Identifier: Apache-2.0 */
/* What a device's thread does: take requests, bring what they need, run them, answer. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/device-private.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define SPIN_NS 50000u /* without a request, before it sleeps */
#define PAUSES 200u    /* before it yields */
#define SLEEP_MS 200   /* timed, so that a lost wake would be found */
/* Batches are milliseconds: a device that says nothing for so long is not there. */
#define SILENCE_NS 30000000000ull

void device_tell(struct device *d)
{
	uint64_t one = 1;

	/* A counter that is full wakes as well. */
	if (d->all->params.event_fd >= 0 && write(d->all->params.event_fd, &one, sizeof(one)) < 0)
		return;
}

static void become(struct device *d, enum device_state state)
{
	/* What it says of itself is there before that it is so. */
	store_release(&d->state, state);
	device_tell(d);
}

static void lose(struct device *d, const char *why)
{
	const char *lost = d->backend->lost(d->gpu);

	if (load_relaxed(&d->state) == DEVICE_LOST)
		return;
	snprintf(d->why, sizeof(d->why), "%s", lost ? lost : why);
	become(d, DEVICE_LOST);
}

/* ---- a batch ----------------------------------------------------------------------- */

static int wait_for_batch(struct device *d)
{
	uint64_t began = clock_now_ns();
	int r;

	for (unsigned i = 1; (r = d->backend->poll(d->lane)) == 0; i++) {
		if (i % PAUSES) {
			cpu_pause();
			continue;
		}
		sched_yield();
		if (load_relaxed(&d->stopping))
			return -EIO;
		if ((uint64_t)clock_now_ns() - began > SILENCE_NS) {
			lose(d, "it has not answered for 30 s");
			return -EIO;
		}
	}
	return r < 0 ? r : 0;
}

/* What was brought so far, without a step. */
static int flush(struct device *d)
{
	int r = d->backend->submit(d->lane, NULL, 0);

	d->brought = false;
	return r < 0 ? r : wait_for_batch(d);
}

static int bring(struct device *d, const struct kv_gpu_item *item)
{
	int r;

	do {
		r = device_bring(d, item);
		/* What has joined the batch already does not wait for the rows of another, and is
		 * not lost with them: that one is the first of the next. */
		if (r != -ENOSPC || d->n_items)
			return r;
		r = flush(d);
	} while (r == 0);
	return r;
}

/* The memory that a batch which did not come to be has taken may be another's from here on, so
 * nothing may be on its way there. */
static int begin_anew(struct device *d)
{
	int r = d->brought ? flush(d) : 0;

	d->batch++;
	return r;
}

/* Copies of all that is looked at after the worker's may be gone. */
static void adopt_item(struct device *d, struct device_request *r, uint32_t i)
{
	const struct kv_gpu_item *from = &r->item[i];
	uint32_t k = d->n_items++;

	d->space[k] = *from->space;
	d->plan[k] = *from->plan;
	d->view[k] = *from->view;
	d->view[k].extent = memcpy(&d->extent[d->n_extents], from->view->extent,
				   from->view->n_extents * sizeof(*d->extent));
	d->n_extents += from->view->n_extents;
	d->query[k] = *from->query;
	d->item[k] = (struct kv_gpu_item){
		.space = &d->space[k],
		.plan = &d->plan[k],
		.view = &d->view[k],
		.query = &d->query[k],
		.result = &d->result[(size_t)k * DEVICE_HEADS],
	};
	d->of[k] = r;
	d->at[k] = i;
}

/* It has its answer, or waits for the next batch with what is left of it. */
static void finish(struct device *d, struct device_request *r, int error)
{
	uint32_t to = error == 0 && r->first < r->n ? request_queued(d) : REQUEST_DONE;
	uint32_t state = REQUEST_SUBMITTED;

	/* What was written to the worker's memory is there before it is DONE. */
	if (load_relaxed(&r->state) == REQUEST_TAKEN)
		store_release(&r->state, to);
	else if (!compare_exchange(&r->state, &state, to))
		store_release(&r->state, REQUEST_FREE); /* it was LEFT */
}

/* An item joins the batch. -ENOSPC: it has no room beside the others; -ENOMEM: in none; -EIO. */
static int add_item(struct device *d, struct device_request *r, uint32_t i)
{
	uint32_t extents = r->item[i].view->n_extents;
	int error;

	/* A sequence in millions of pieces, more than any batch has room for. */
	if (extents > DEVICE_EXTENTS)
		return -ENOMEM;
	if (d->n_items == KV_GPU_MAX_ITEMS || extents > DEVICE_EXTENTS - d->n_extents)
		return -ENOSPC;
	error = bring(d, &r->item[i]);
	if (error == -ENOMEM && d->n_items)
		return -ENOSPC; /* what they use cannot go: alone there may be room */
	if (error == -ENOMEM)
		return begin_anew(d) < 0 ? -EIO : -ENOMEM;
	if (error == 0)
		adopt_item(d, r, i);
	return error;
}

/* Of its items as many as there is room for, in their order; r->first is what is left. */
static int add_items(struct device *d, struct device_request *r)
{
	int error = load_relaxed(&d->state) == DEVICE_OPEN ? 0 : -EIO;

	for (; error == 0 && r->first < r->n; r->first++) {
		error = add_item(d, r, r->first);
		if (error == -ENOMEM) {
			r->error[r->first] = error;
			error = 0;
		}
		if (error)
			break;
	}
	return error;
}

/* False: some of it is not for this batch, which is full. */
static bool take_request(struct device *d, struct device_request *r)
{
	uint32_t items = d->n_items, extents = d->n_extents, first = r->first;
	int error = add_items(d, r);

	if (error < 0 && error != -ENOSPC) {
		d->n_items = items;
		d->n_extents = extents;
		lose(d, "it failed");
		fetch_add(&d->sums.failed, r->n - first);
		finish(d, r, -EIO);
		return true;
	}
	if (d->n_items > items)
		d->taken[d->n_taken++] = r;
	else
		finish(d, r, 0);
	return error == 0;
}

/* Takes the next one from place d->first + *at on, in turn; NULL: there is none. */
static struct device_request *next_request(struct device *d, uint32_t *at)
{
	struct devices *all = d->all;
	struct device_request *taken = NULL;

	pthread_mutex_lock(&all->mutex);
	for (; !taken && *at < all->n_requests; ++*at) {
		uint32_t queued = request_queued(d);
		struct device_request *r = all->request[(d->first + *at) % all->n_requests];

		if (load_relaxed(&r->state) == queued &&
		    compare_exchange(&r->state, &queued, REQUEST_TAKEN))
			taken = r;
	}
	pthread_mutex_unlock(&all->mutex);
	return taken;
}

/* True: there is something, or was. Who found no room in a batch is the first of the next. */
static bool take_requests(struct device *d)
{
	uint32_t at = 0;
	struct device_request *r;
	bool found = false;

	d->n_items = d->n_taken = d->n_extents = 0;
	if (begin_anew(d) < 0)
		lose(d, "it failed");
	while ((r = next_request(d, &at))) {
		found = true;
		if (!take_request(d, r)) {
			d->first += at - 1;
			break;
		}
	}
	return found;
}

/* ---- answers --------------------------------------------------------------------------- */

static void copy_result(const struct kv_gpu_item *from, const struct kv_gpu_item *to)
{
	size_t rows = (size_t)from->query->n_q * from->space->group;

	for (uint32_t head = 0; head < from->space->kv_heads; head++) {
		float *y = to->result[head].y, *lse = to->result[head].lse;

		memcpy(y, from->result[head].y, rows * from->space->v_dim * sizeof(*y));
		memcpy(lse, from->result[head].lse, rows * sizeof(*lse));
		to->result[head] = from->result[head];
		to->result[head].y = y;
		to->result[head].lse = lse;
	}
}

static void answer(struct device *d, uint32_t k)
{
	copy_result(&d->item[k], &d->of[k]->item[d->at[k]]);
	d->of[k]->error[d->at[k]] = 0;
}

static void deliver(struct device *d, uint32_t k)
{
	struct device_request *r = d->of[k];
	uint32_t state = load_relaxed(&r->state);

	if (state == REQUEST_TAKEN) {
		answer(d, k);
		return;
	}
	state = REQUEST_SUBMITTED;
	if (!compare_exchange(&r->state, &state, REQUEST_WRITING))
		return; /* nobody waits for it */
	answer(d, k);
	store_release(&r->state, REQUEST_SUBMITTED);
}

/* Everything is with the device: what the workers own is not looked at any more. */
static void let_go(struct device *d)
{
	for (uint32_t i = 0; i < d->n_items; i++)
		d->query[i].q = NULL;
	for (uint32_t i = 0; i < d->n_taken; i++)
		store_release(&d->taken[i]->state, REQUEST_SUBMITTED);
}

/* What was brought may leave too little of the lane: then it goes first. */
static int submit(struct device *d, uint32_t first, uint32_t n)
{
	int r = d->backend->submit(d->lane, &d->item[first], n);

	d->brought &= r < 0;
	if (r != -ENOSPC)
		return r;
	r = flush(d);
	return r < 0 ? r : d->backend->submit(d->lane, &d->item[first], n);
}

/* Items [first, first + n), in as many parts as the lane makes of them. */
static int run_items(struct device *d, uint32_t first, uint32_t n, bool last)
{
	int r = submit(d, first, n);

	if (r == -ENOSPC && n > 1) {
		r = run_items(d, first, n / 2, false);
		return r < 0 ? r : run_items(d, first + n / 2, n - n / 2, last);
	}
	if (last)
		let_go(d);
	if (r < 0 && r != -EIO) {
		d->of[first]->error[d->at[first]] = -ENOMEM;
		return 0;
	}
	if (r == 0)
		r = wait_for_batch(d);
	if (r < 0)
		return r;
	fetch_add(&d->sums.kernel_ns, (uint64_t)(d->backend->milliseconds(d->lane) * 1e6f));
	fetch_add(&d->sums.items, n);
	for (uint32_t i = first; i < first + n; i++) {
		device_count_item(d, &d->item[i]);
		deliver(d, i);
	}
	return 0;
}

static void run_batch(struct device *d)
{
	uint64_t done = load_relaxed(&d->sums.items);
	int r = run_items(d, 0, d->n_items, true);

	fetch_add(&d->sums.batches, 1);
	fetch_add(&d->sums.failed, d->n_items - (load_relaxed(&d->sums.items) - done));
	if (r < 0)
		lose(d, "it failed");
	for (uint32_t i = 0; i < d->n_taken; i++)
		finish(d, d->taken[i], r);
}

/* ---- the thread --------------------------------------------------------------------------- */

static bool is_asked(struct device *d)
{
	bool found = load_relaxed(&d->stopping);

	pthread_mutex_lock(&d->all->mutex);
	for (uint32_t i = 0; !found && i < d->all->n_requests; i++)
		found = load_relaxed(&d->all->request[i]->state) == request_queued(d);
	pthread_mutex_unlock(&d->all->mutex);
	return found;
}

static void rest(struct device *d)
{
	uint64_t began = clock_now_ns(), count;
	struct pollfd wake = { .fd = d->wake, .events = POLLIN };

	for (unsigned i = 1; (uint64_t)clock_now_ns() - began < SPIN_NS; i++) {
		if (is_asked(d))
			return;
		if (i % PAUSES)
			cpu_pause();
		else
			sched_yield();
	}
	store_relaxed(&d->asleep, 1);
	/* The announcement is visible before the last look: either whoever posts sees it and wakes,
	 * or this look sees what was posted. */
	fence_seq_cst();
	if (!is_asked(d))
		poll(&wake, 1, SLEEP_MS);
	store_relaxed(&d->asleep, 0);
	if (read(d->wake, &count, sizeof(count)) < 0)
		return; /* nobody woke it */
}

void *device_thread(void *arg)
{
	struct device *d = arg;
	int r = device_start(d);

	if (r < 0) {
		d->error = r;
		d->failed_ns = clock_now_ns();
		become(d, DEVICE_FAILED);
		return NULL;
	}
	become(d, DEVICE_OPEN);
	while (!load_relaxed(&d->stopping)) {
		if (!take_requests(d))
			rest(d);
		else if (d->n_items)
			run_batch(d);
		if (load_relaxed(&d->state) == DEVICE_OPEN)
			device_look(d, false);
	}
	device_stop(d);
	return NULL;
}
