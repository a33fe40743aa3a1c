/* SPDX-License-Identifier: Apache-2.0 */
/* The control loop where io_uring is forbidden: level-triggered epoll. */
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>

#include "daemon/loop-backend.h"
#include "shm/base.h"

_Static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLHUP == POLLHUP &&
		       EPOLLERR == POLLERR && EPOLLRDHUP == POLLRDHUP,
	       "events are the same bits");

static int epoll_open(void **ret_state)
{
	FREE_MEMORY int *fd = malloc(sizeof(*fd));

	if (fd == NULL)
		return -ENOMEM;
	*fd = epoll_create1(EPOLL_CLOEXEC);
	if (*fd < 0)
		return -errno;
	*ret_state = STEAL_PTR(fd);
	return 0;
}

static void epoll_close(void *state)
{
	close(*(int *)state);
	free(state);
}

static int epoll_arm(void *state, int fd, uint32_t events, uint64_t token)
{
	struct epoll_event e = { .events = events, .data.u64 = token };

	return epoll_ctl(*(int *)state, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

static void epoll_disarm(void *state, int fd, uint64_t token)
{
	epoll_ctl(*(int *)state, EPOLL_CTL_DEL, fd, NULL);
}

static int epoll_wait_events(void *state, int64_t timeout_ns, struct loop_event *ret)
{
	struct epoll_event e[LOOP_BATCH];
	int ms = -1, n;

	if (timeout_ns >= 0) /* rounded up: a timer must be due when the wait ends */
		ms = (int)MIN((timeout_ns + 999999) / 1000000, INT32_MAX);
	n = epoll_wait(*(int *)state, e, LOOP_BATCH, ms);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < n; i++)
		ret[i] = (struct loop_event){ e[i].data.u64, e[i].events };
	return n;
}

const struct loop_backend loop_epoll = {
	.name = "epoll",
	.open = epoll_open,
	.close = epoll_close,
	.arm = epoll_arm,
	.disarm = epoll_disarm,
	.wait = epoll_wait_events,
};
