/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests by io_uring. The buffers are registered, so that the kernel does not
 * look their pages up for each piece.
 */
#include <liburing.h>
#include <stdlib.h>
#include <sys/uio.h>

#include "daemon/disk-backend.h"
#include "shm/base.h"

struct uring {
	struct io_uring ring;
	bool registered;
};

static int uring_open(unsigned entries, void *memory, size_t bytes, void **ret_state,
		      int *ret_register_error)
{
	FREE_MEMORY struct uring *u = calloc(1, sizeof(*u));
	struct iovec all = { memory, bytes };
	int r;

	if (!u)
		return -ENOMEM;
	/* Not for a single issuer: another thread than this one will submit. */
	r = io_uring_queue_init(entries, &u->ring, IORING_SETUP_CLAMP);
	if (r < 0)
		return r;
	r = io_uring_register_buffers(&u->ring, &all, 1);
	u->registered = r == 0;
	*ret_register_error = r;
	*ret_state = STEAL_PTR(u);
	return 0;
}

static void uring_close(void *state)
{
	struct uring *u = state;

	io_uring_queue_exit(&u->ring);
	free(u);
}

static void prepare(const struct uring *u, struct io_uring_sqe *e, const struct disk_request *q)
{
	switch (q->op) {
	case DISK_REQUEST_READ:
		if (u->registered)
			io_uring_prep_read_fixed(e, q->fd, q->data, q->bytes, q->at, 0);
		else
			io_uring_prep_read(e, q->fd, q->data, q->bytes, q->at);
		break;
	case DISK_REQUEST_WRITE:
		if (u->registered)
			io_uring_prep_write_fixed(e, q->fd, q->data, q->bytes, q->at, 0);
		else
			io_uring_prep_write(e, q->fd, q->data, q->bytes, q->at);
		break;
	case DISK_REQUEST_FSYNC:
		io_uring_prep_fsync(e, q->fd, 0);
		break;
	case DISK_REQUEST_UNLINK:
		io_uring_prep_unlinkat(e, q->fd, q->name, 0);
		break;
	}
	io_uring_sqe_set_data(e, q->token);
}

static int uring_submit(void *state, const struct disk_request *q)
{
	struct uring *u = state;
	struct io_uring_sqe *e = io_uring_get_sqe(&u->ring);

	if (!e)
		return -EBUSY;
	prepare(u, e, q);
	/* At once: what is prepared next takes as long as a copy of a piece. What is not taken now
	 * goes with the wait, which says so if it never will. */
	io_uring_submit(&u->ring);
	return 0;
}

static int uring_wait(void *state, struct disk_event *ret, unsigned n)
{
	struct uring *u = state;
	struct io_uring_cqe *batch[DISK_DEPTH_MAX];
	unsigned got;
	int r;

	do
		r = io_uring_submit_and_wait(&u->ring, 1);
	while (r == -EINTR);
	if (r < 0 && r != -EAGAIN && r != -EBUSY)
		return r;
	got = io_uring_peek_batch_cqe(&u->ring, batch, MIN(n, DISK_DEPTH_MAX));
	for (unsigned i = 0; i < got; i++)
		ret[i] = (struct disk_event){ io_uring_cqe_get_data(batch[i]), batch[i]->res };
	io_uring_cq_advance(&u->ring, got);
	return (int)got;
}

const struct disk_backend disk_uring = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.submit = uring_submit,
	.wait = uring_wait,
};
