/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a back end of the control loop does. A token names one arming of one
 * source: its slot below, the slot's generation above, so an event that was
 * fetched before a source was removed names nobody.
 */
#pragma once

#include <stdint.h>

#define LOOP_TOKEN_NOBODY UINT64_MAX
#define LOOP_BATCH 64

struct loop_event {
	uint64_t token;
	uint32_t events;
};

struct loop_backend {
	const char *name;
	int (*open)(void **ret_state);
	void (*close)(void *state);
	int (*arm)(void *state, int fd, uint32_t events, uint64_t token);
	void (*disarm)(void *state, int fd, uint64_t token);
	/* Up to LOOP_BATCH events; timeout_ns < 0: no timeout. The count, or -errno. */
	int (*wait)(void *state, int64_t timeout_ns, struct loop_event *ret);
	/* After an event the source is disarmed and must be armed again. */
	int one_shot;
};

extern const struct loop_backend loop_uring, loop_epoll;
