/* SPDX-License-Identifier: Apache-2.0 */
/* What the fake driver's files share. */
#pragma once

#include <cuda.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "tests/gpu/fake-driver.h"

struct fake_knobs {
	int devices, version, capability, vmm, graphs;
	uint64_t memory, oom_at, lost_at, slow_us;
	char lost_file[256];
};

struct fake {
	pthread_mutex_t mutex; /* of all that follows */
	struct fake_knobs knobs;
	uint64_t calls, takes, live, bytes;
	bool lost;
};
extern struct fake fake;

enum fake_op_kind { FAKE_COPY, FAKE_FILL, FAKE_LAUNCH, FAKE_RECORD };
struct fake_op {
	enum fake_op_kind kind;
	void *to;
	const void *from;
	size_t n;
	unsigned char value;
	fake_kernel_fn *kernel;
	struct fake_launch launch;
	CUevent event;
	struct fake_op *next;
};
/* At the end of what the stream has to do. */
CUresult fake_enqueue(CUstream s, const struct fake_op *op);

/* Waits until no stream has anything left to do: memory goes. */
void fake_quiesce(void);

/* Counts a call. Not 0: it fails so. */
CUresult fake_call(void);
/* Counts one that takes memory, `bytes` of the device's. */
CUresult fake_take(uint64_t bytes);
void fake_live(int n, int64_t bytes);
