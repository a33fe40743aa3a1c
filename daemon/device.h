/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices: GPUs that caches may ask for (device=cuda:N). Rows live in the host's pages as
 * those of any cache; the device has a copy of the pages that its steps read, made by
 * and by, and given up for others where its memory is full. So whatever becomes of the
 * device, nothing is lost but time: what it cannot do, processors do from the same rows.
 *
 * Each has a thread of its own, and nobody else calls the driver: opening takes a second, mapping
 * memory some milliseconds, and a device that hangs takes nobody along. All that the thread
 * does is in one order, so a copy is there before the step that needs it. Steps of several
 * workers that come while it computes are its next batch.
 *
 *   CLOSED --(a cache asks)--> OPENING --> OPEN --(an error of the driver)--> LOST
 *                                 +------> FAILED --(another cache asks, later)--> OPENING
 *
 * What a worker asks for is a request of its own:
 *
 *   FREE --(worker)--> QUEUED --(thread)--> TAKEN --(thread: all of it is submitted)--> SUBMITTED
 *   SUBMITTED --(thread)--> WRITING --(thread)--> DONE --(worker)--> FREE
 *   QUEUED --(worker, late)--> FREE        SUBMITTED --(worker, late)--> LEFT --(thread)--> FREE
 *   TAKEN --(thread: it failed)--> DONE
 *   TAKEN, SUBMITTED --(thread: items are left that had no room beside the others)--> QUEUED
 *
 * While it is TAKEN or WRITING the thread reads and writes what it points at, which is the
 * worker's; it is neither for longer than it takes to submit.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/page.h"
#include "kernels/gpu.h"
#include "kernels/kernels.h"

#define DEVICES_MAX 16u
#define DEVICE_NAME_BYTES 16u
#define DEVICE_REQUESTS 64u /* one a worker */

struct arena;
struct device;
struct devices;

enum device_state { DEVICE_CLOSED, DEVICE_OPENING, DEVICE_OPEN, DEVICE_FAILED, DEVICE_LOST };
extern const char *const device_state_names[5];

enum request_state {
	REQUEST_FREE,
	REQUEST_QUEUED,
	REQUEST_TAKEN,
	REQUEST_SUBMITTED,
	REQUEST_WRITING,
	REQUEST_DONE,
	REQUEST_LEFT
};

/* Steps of one entry. Items' results have room for y and lse, which are copied there. */
struct device_request {
	uint32_t state; /* atomic: enum request_state; of a QUEUED one, and the device's index */
	uint32_t n;
	uint32_t first; /* the thread's: those below are answered, or in its batch */
	/* Of a DONE one: 0; -ENOMEM: it does not fit by itself; -EIO: the device failed. */
	int error[KV_GPU_MAX_ITEMS];
	struct kv_gpu_item item[KV_GPU_MAX_ITEMS];
};

/* Why a processor computed a step of a cache on a device. */
enum device_beside {
	DEVICE_BESIDE_NONE,   /* it did not */
	DEVICE_BESIDE_KERNEL, /* there is no kernel for it: prompts, drafts */
	DEVICE_BESIDE_MEMORY, /* its rows do not fit the device's memory */
	DEVICE_BESIDE_LOST,   /* the device is lost, or could not be opened */
	DEVICE_BESIDES
};

struct devices_params {
	struct pool *pool;
	const struct arena *arena; /* of the pool's nodes, in its order */
	unsigned n_arenas;
	const char *module;    /* path of sparq-cuda.so */
	uint64_t memory_bytes; /* of each device, for copies; 0: three quarters of what is free */
	int event_fd;          /* eventfd: a device has opened, or failed to; -1: nobody asks */
};
/* Takes nothing yet. -ENOMEM. */
int devices_new(const struct devices_params *p, struct devices **ret);
struct devices *devices_free(struct devices *d); /* no worker has one in flight */

/* Before any is posted; it stays where it is. -ENOSPC: there are too many. */
int devices_enroll(struct devices *d, struct device_request *r);
/* Its memory is about to go: no device's thread looks at it any more. */
void devices_withdraw(struct devices *d, struct device_request *r);

/* ---- control thread -------------------------------------------------------------- */

struct device_use { /* what a cache asks for */
	struct device *device; /* NULL: none */
	uint32_t rows;         /* newest ones, which it has; the others are the host's */
};
#define DEVICE_ROWS_ALL UINT32_MAX
#define DEVICE_ROWS_ROOM 0u /* as many as there is room for */
/* "cpu", "cuda:N", "cuda:N,host", "cuda:N,host,rows=R"; -EINVAL or -EOPNOTSUPP with `why`
 * (KV_ERROR_TEXT bytes). */
int devices_find(struct devices *d, const char *name, struct device_use *ret, char *why);
/* Opens it on its thread if it is not. 0: it is open; DEVICE_LATER: ask again when the eventfd says
 * so; -errno with `why` (KV_ERROR_TEXT bytes). */
#define DEVICE_LATER 1
int device_open(struct device *d, char *why);
/* Does an open one have kernels for that? -EOPNOTSUPP with `why`. */
int device_serves(const struct device *d, const struct kv_space *s, char *why);
/* Logs what became of devices since the last call: when the eventfd says that something did. */
void devices_tell(struct devices *d);
/* The i-th name that a cache may ask for, as far as is known without asking the driver. */
const char *devices_name(const struct devices *d, unsigned i);

struct device_look { /* what its thread saw of an OPEN one last */
	int64_t at_ns;
	uint64_t free_bytes;              /* of its memory; UINT64_MAX: it does not say */
	float memory_busy;                /* 0..1; below 0: not known, */
	char memory_busy_why[KV_GPU_WHY]; /* for this reason */
};
struct device_stat {
	uint32_t index;
	char name[DEVICE_NAME_BYTES];
	enum device_state state;
	char why[KV_GPU_WHY];               /* FAILED, LOST */
	struct kv_gpu_info info;            /* OPEN, LOST, like all that follows */
	uint64_t limit_bytes, mapped_bytes; /* of copies */
	uint64_t batches, copied_bytes, evicted_bytes;
	uint64_t items, failed; /* steps of a layer of a sequence */
	uint64_t kernel_ns;     /* by its own clock */
	uint64_t read_bytes[KV_PLANES];
	struct device_look look; /* OPEN */
	/* Items that processors computed in its place, by reason, whatever its state; what those
	 * read of the host's memory. */
	uint64_t beside_items[DEVICE_BESIDES], beside_bytes[KV_PLANES];
};
/* Within the last seconds: else what it says is of some time ago. */
bool device_look_is_fresh(const struct device_look *look);
/* Device `i` of those that were ever asked for; false: there is none. It touches no device; the
 * thread looks again within a second, for a minute. */
bool devices_stat(const struct devices *d, unsigned i, struct device_stat *ret);
/* "; cuda:0 is open; cuda:1 is lost", as much as has room. */
size_t devices_sentence(const struct devices *d, char *ret, size_t n);

/* ---- token path --------------------------------------------------------------------- */

/* Bytes of a page changed; `visit` of kernels/gpu.h with the device as its argument. */
void device_wrote(void *device, void *at, size_t n);
/* All of a page that was taken, whatever it held. */
void device_wrote_page(struct device *d, page_ref page, struct page_size size);
bool device_is_open(const struct device *d);
/* Rows of caches that are on it, more or fewer by so much. */
void device_charge(struct device *d, int64_t bytes);
/* Of DEVICE_ROWS_ROOM: so many of `rows`, that all its caches have room for theirs. */
uint32_t device_rows(const struct device *d, uint32_t rows);
/* Can it run this step? Else a processor does, for this reason. */
enum device_beside device_runs(const struct device *d, const struct kv_gpu_item *item);
/* A processor has computed an item of its caches, and read so much. */
void device_beside(struct device *d, enum device_beside why, const uint64_t bytes[KV_PLANES]);

/* `r` was enrolled, is FREE and filled. False: it is not open any more. */
bool device_post(struct device *d, struct device_request *r);
/* Is it DONE? Then it is FREE again. */
bool device_done(struct device_request *r);
/* Gives up. False: not at this moment, try again; true: nothing of the worker's is read or written
 * any more. */
bool device_leave(struct device_request *r);
