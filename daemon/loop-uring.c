/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control loop on io_uring: a one-shot poll per source, armed again after
 * its callback, and the wait's own timeout for timers. Submissions travel with
 * the next wait, so a step is one system call whatever it changed.
 *
 * One-shot and not multishot: a multishot poll reports edges, and callers were
 * promised levels.
 */
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>

#include "daemon/loop-backend.h"
#include "shm/base.h"

#define ENTRIES 256

static int open_ring(struct io_uring *ring, unsigned flags)
{
	struct io_uring_params p = { .flags = flags | IORING_SETUP_CLAMP };
	int r = io_uring_queue_init_params(ENTRIES, ring, &p);

	if (r < 0)
		return r;
	/* Without it liburing spends an entry on every timeout, and a removed source may starve. */
	if (!(p.features & IORING_FEAT_EXT_ARG)) {
		io_uring_queue_exit(ring);
		return -EOPNOTSUPP;
	}
	return 0;
}

static int uring_open(void **ret_state)
{
	/* Completions run when this thread waits, not by interrupting it: newest kernels first. */
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	FREE_MEMORY struct io_uring *ring = calloc(1, sizeof(*ring));
	int r = -ENOMEM;

	if (ring == NULL)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		r = open_ring(ring, flags[i]);
		if (r != -EINVAL)
			break;
	}
	if (r < 0)
		return r;
	*ret_state = STEAL_PTR(ring);
	return 0;
}

static void uring_close(void *state)
{
	io_uring_queue_exit(state);
	free(state);
}

static struct io_uring_sqe *get_sqe(struct io_uring *ring)
{
	struct io_uring_sqe *e = io_uring_get_sqe(ring);

	if (e == NULL && io_uring_submit(ring) >= 0)
		e = io_uring_get_sqe(ring);
	return e;
}

static int uring_arm(void *state, int fd, uint32_t events, uint64_t token)
{
	struct io_uring_sqe *e = get_sqe(state);

	if (e == NULL)
		return -EBUSY;
	io_uring_prep_poll_add(e, fd, events);
	io_uring_sqe_set_data64(e, token);
	return 0;
}

static void uring_disarm(void *state, int fd, uint64_t token)
{
	struct io_uring_sqe *e = get_sqe(state);

	/* Without an entry the poll stays until it fires, with a token that names nobody. */
	if (e == NULL)
		return;
	io_uring_prep_poll_remove(e, token);
	io_uring_sqe_set_data64(e, LOOP_TOKEN_NOBODY);
}

static int uring_wait(void *state, int64_t timeout_ns, struct loop_event *ret)
{
	struct __kernel_timespec ts = { timeout_ns / 1000000000, timeout_ns % 1000000000 };
	struct io_uring_cqe *cqe, *batch[LOOP_BATCH];
	unsigned n;
	int r;

	r = io_uring_submit_and_wait_timeout(state, &cqe, 1, timeout_ns < 0 ? NULL : &ts, NULL);
	if (r < 0 && r != -ETIME && r != -EINTR && r != -EAGAIN && r != -EBUSY)
		return r;
	n = io_uring_peek_batch_cqe(state, batch, LOOP_BATCH);
	for (unsigned i = 0; i < n; i++) {
		ret[i].token = io_uring_cqe_get_data64(batch[i]);
		/* A descriptor that cannot be polled: the callback must hear of it. */
		ret[i].events = batch[i]->res < 0 ? POLLERR | POLLNVAL : (uint32_t)batch[i]->res;
	}
	io_uring_cq_advance(state, n);
	return (int)n;
}

const struct loop_backend loop_uring = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.arm = uring_arm,
	.disarm = uring_disarm,
	.wait = uring_wait,
	.one_shot = 1,
};
