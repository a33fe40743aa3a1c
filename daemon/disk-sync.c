/* SPDX-License-Identifier: Apache-2.0 */
/* Requests by system calls, one after the other: where io_uring is forbidden. */
#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/disk-backend.h"
#include "shm/base.h"

struct sync { /* what is done and not fetched, oldest first */
	struct disk_event *done;
	unsigned room, n;
};

static int sync_open(unsigned entries, void *memory, size_t bytes, void **ret_state,
		     int *ret_register_error)
{
	FREE_MEMORY struct sync *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->done = calloc(entries, sizeof(*s->done));
	if (!s->done)
		return -ENOMEM;
	s->room = entries;
	*ret_register_error = 0;
	*ret_state = STEAL_PTR(s);
	return 0;
}

static void sync_close(void *state)
{
	struct sync *s = state;

	free(s->done);
	free(s);
}

static ssize_t perform(const struct disk_request *q)
{
	switch (q->op) {
	case DISK_REQUEST_READ:
		return pread(q->fd, q->data, q->bytes, (off_t)q->at);
	case DISK_REQUEST_WRITE:
		return pwrite(q->fd, q->data, q->bytes, (off_t)q->at);
	case DISK_REQUEST_FSYNC:
		return fsync(q->fd);
	default:
		return unlinkat(q->fd, q->name, 0);
	}
}

static int sync_submit(void *state, const struct disk_request *q)
{
	struct sync *s = state;
	ssize_t r = perform(q);

	assert(s->n < s->room);
	s->done[s->n++] = (struct disk_event){ q->token, r < 0 ? -errno : (int)r };
	return 0;
}

static int sync_wait(void *state, struct disk_event *ret, unsigned n)
{
	struct sync *s = state;
	unsigned got = MIN(n, s->n);

	for (unsigned i = 0; i < got; i++)
		ret[i] = s->done[i];
	for (unsigned i = got; i < s->n; i++)
		s->done[i - got] = s->done[i];
	s->n -= got;
	return (int)got;
}

const struct disk_backend disk_sync = {
	.name = "system calls",
	.open = sync_open,
	.close = sync_close,
	.submit = sync_submit,
	.wait = sync_wait,
};
