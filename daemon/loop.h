/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control loop: one thread, descriptors and timers, callbacks.
 *
 * Callbacks are level-triggered: one is called again as long as its descriptor
 * is ready, so it may stop early. Inside a callback anything may be added,
 * changed or removed, the caller's own source too; after loop_remove no callback
 * of that source runs, also if its event has already been fetched.
 *
 * io_uring carries it, epoll where io_uring_setup is forbidden (containers,
 * seccomp): chosen once, at run time.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

enum loop_kind { LOOP_BEST, LOOP_URING, LOOP_EPOLL };

struct loop;

typedef void loop_fn(void *arg, uint32_t events); /* POLL* */
typedef void loop_timer_fn(void *arg);

struct loop_source {
	int fd; /* -1: not in a loop */
	uint32_t events, slot;
	loop_fn *fn;
	void *arg;
};
#define LOOP_SOURCE_NULL ((struct loop_source){ .fd = -1 })

struct loop_timer {
	uint64_t at_ns; /* 0: not set */
	loop_timer_fn *fn;
	void *arg;
	struct loop_timer *next;
};
#define LOOP_TIMER_NULL ((struct loop_timer){ 0 })

/* The loop belongs to the thread that makes it. */
int loop_new(enum loop_kind kind, struct loop **ret);
struct loop *loop_free(struct loop *l);
const char *loop_name(const struct loop *l); /* "io_uring" or "epoll" */
int loop_fallback(
	const struct loop *l); /* why it is not io_uring: -errno; 0: not asked, or it is */

/* Watches `fd`, which stays the caller's and must be removed before it is closed. The source must
 * not move. POLLHUP and POLLERR come whether asked for or not. */
int loop_add(struct loop *l, struct loop_source *s, int fd, uint32_t events, loop_fn *fn,
	     void *arg);
int loop_change(struct loop *l, struct loop_source *s, uint32_t events);
void loop_remove(struct loop *l,
		 struct loop_source *s); /* also of a source that is not in the loop */

/* Once, `delay_ns` from now; a timer that is set is moved. */
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t delay_ns, loop_timer_fn *fn,
		    void *arg);
void loop_timer_cancel(struct loop *l, struct loop_timer *t);

/* Waits once and calls what is ready; timeout_ns < 0: until something is. -errno is fatal. */
int loop_step(struct loop *l, int64_t timeout_ns);
int loop_run(struct loop *l); /* until loop_stop; its value, or -errno */
void loop_stop(struct loop *l, int value);
