/* SPDX-License-Identifier: Apache-2.0 */
/* Insides of device.h, shared by its files. */
#pragma once

#include <pthread.h>

#include "daemon/device.h"
#include "daemon/present.h"

struct mirrored { /* an arena */
	const char *base;
	size_t bytes;
	struct present present;
	/* the thread's */
	struct kv_gpu_mirror *mirror;
	uint32_t n_granules;
	uint32_t first_granule; /* of all arenas' */
};

/* Units in which memory is mapped; those that are, in the order of their last use. */
struct granule {
	uint64_t used;    /* batch that used it last; 0: nothing is mapped there */
	uint64_t counted; /* by the count that was made last */
	uint32_t older, newer;
};

struct device_sums { /* atomic; all but the last two are written by the thread */
	uint64_t mapped_bytes, batches, items, failed, copied_bytes, evicted_bytes, kernel_ns;
	uint64_t read_bytes[KV_PLANES];
	uint64_t beside_items[DEVICE_BESIDES], beside_bytes[KV_PLANES];
};

struct device {
	char name[DEVICE_NAME_BYTES];
	uint32_t index;
	struct devices *all;
	uint32_t state;       /* atomic: enum device_state */
	char why[KV_GPU_WHY]; /* written before FAILED or LOST */
	uint64_t failed_ns;   /* when it FAILED */
	int error;            /* of FAILED */

	pthread_t thread;
	bool started;           /* control thread's */
	uint32_t stopping;      /* atomic */
	uint32_t asleep;        /* atomic */
	int wake;               /* eventfd */
	enum device_state told; /* control thread's: what was logged last */
	bool told_full;         /* and that there was too little memory */

	struct mirrored arena[POOL_MAX_NODES];
	struct device_sums sums;
	uint64_t charged_bytes; /* atomic: by caches that are on it */
	struct kv_gpu_info info; /* of an OPEN one */
	uint64_t limit_bytes;
	int64_t watched_ns;         /* atomic: when somebody asked last */
	pthread_mutex_t look_mutex; /* of what follows; the thread never waits for it */
	struct device_look look;

	/* the thread's */
	void *module;
	const struct kv_gpu_backend *backend;
	struct kv_gpu *gpu;
	struct kv_gpu_lane *lane;
	size_t granule_bytes;
	struct granule *granule; /* of all arenas, and the end of their order */
	uint32_t n_granules;
	uint64_t counts;
	uint64_t room_bytes; /* at most limit_bytes: what the driver has refused to go beyond ... */
	uint64_t room_until; /* ... until then */
	bool brought;        /* the lane has bytes that no batch has taken */
	uint64_t batch;      /* number of the one that is being made */
	struct device_request *taken[DEVICE_REQUESTS]; /* those of the batch */
	uint32_t n_taken;
	uint32_t first; /* whose request is looked at first */
	struct kv_gpu_item item[KV_GPU_MAX_ITEMS];
	struct device_request *of[KV_GPU_MAX_ITEMS]; /* whose the item is */
	uint32_t at[KV_GPU_MAX_ITEMS];               /* which of it */
	uint32_t n_items;
	struct kv_space space[KV_GPU_MAX_ITEMS];
	struct kv_plan plan[KV_GPU_MAX_ITEMS];
	struct kv_view view[KV_GPU_MAX_ITEMS];
	struct kv_query query[KV_GPU_MAX_ITEMS];
	struct kv_extent *extent; /* [DEVICE_EXTENTS], of all views; memory as it is touched */
	uint32_t n_extents;
	struct kv_result *result; /* [KV_GPU_MAX_ITEMS][DEVICE_HEADS] */
};
#define DEVICE_HEADS 256u /* KV heads of an item */
#define DEVICE_EXTENTS (1u << 21)

struct devices {
	struct devices_params params;
	struct device *device[DEVICES_MAX]; /* by index; NULL: never asked for */
	bool is_stuck;         /* a thread that does not end looks at this for ever */
	pthread_mutex_t mutex; /* of what follows; no worker takes it but at its ends */
	struct device_request *request[DEVICE_REQUESTS];
	uint32_t n_requests;
};
/* Of a QUEUED request. */
static inline uint32_t request_queued(const struct device *d)
{
	return REQUEST_QUEUED | (d->index + 1) << 8;
}

/* ---- device-thread.c ---- */
void device_tell(struct device *d); /* devices_tell is to be called */
void *device_thread(void *arg);
/* ---- device-open.c ---- */
int device_start(struct device *d); /* on its thread; -errno with d->why */
void device_stop(struct device *d);
/* ---- device-stat.c ---- */
/* What those who watch want to know, if somebody does and a second has passed, or at `first`. */
void device_look(struct device *d, bool first);
/* What a step that is done has read. */
void device_count_item(struct device *d, const struct kv_gpu_item *item);
/* ---- device-pages.c ---- */
/* For the arenas' mirrors; the order is empty. -ENOMEM. */
int device_order_init(struct device *d);
/* All that the item's view leads to is on the device once the lane's batch has begun. -ENOSPC: the
 * lane is full; -ENOMEM: the device is, of what this batch uses; -EIO. */
int device_bring(struct device *d, const struct kv_gpu_item *item);
/* Index of the arena; n_arenas: none has it. */
unsigned device_arena_at(const struct device *d, const void *at);
