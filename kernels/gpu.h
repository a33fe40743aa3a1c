/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention on a GPU: what the daemon asks of a back end that it loads.
 *
 * The back end is a module, sparq-cuda.so, with one symbol, kv_gpu_backend. The
 * daemon opens it when a cache first asks for a device, so a host without a GPU
 * or a driver pays nothing and loses nothing: what is missing is said by `open`
 * in a sentence, and caches of the CPU go on.
 *
 * Rows lie on the device as they lie in the host's pages, byte for byte: a
 * `kv_gpu_mirror` is a range of device addresses as long as an arena, and a page's
 * copy is at the page's offset in it. So a view of the host's pages says
 * where everything is on the device as well. Only units that hold
 * pages of a cache on the device have memory behind them.
 *
 * A step goes by: changed bytes in (`copy_in`), `submit`, `poll` until it is done.
 * Each is ordered behind the one before it on the same lane; lanes are
 * independent. A lane belongs to one thread at a time, everything else here may be
 * called by any thread. No call but `open`, `close`, `map` and `unmap` waits for the device
 * or takes memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

#define KV_GPU_VERSION 2u
#define KV_GPU_WHY 240   /* bytes of a sentence that says what is wrong */
#define KV_GPU_DRIVER 64 /* of what a driver supports */
#define KV_GPU_MAX_ITEMS 256u
/* Queries of one item, in f32: a lane of twice that holds them, and their results. */
#define KV_GPU_QUERY_BYTES ((size_t)16 << 20)

struct kv_gpu;        /* an open device: its context, its kernels */
struct kv_gpu_lane;   /* a stream of work and its pinned memory */
struct kv_gpu_mirror; /* the device's copy of one arena */

struct kv_gpu_info {
	char name[64], bus_id[32]; /* "0000:65:00.0" names its NUMA node in sysfs */
	char driver[32];           /* version of the driver, as it says it */
	uint32_t major, minor;     /* compute capability */
	uint64_t memory_bytes, l2_bytes;
	uint64_t free_bytes; /* now; UINT64_MAX: it does not say */
	char plain[96];      /* why kernels are launched one by one; "": as a graph */
};

/* One item of a batch: all KV heads of one (sequence, layer). Everything is borrowed until the
 * batch is done. */
struct kv_gpu_item {
	const struct kv_space *space;
	const struct kv_plan *plan; /* dense, window or SparQ; others are refused by `serves` */
	const struct kv_view *view; /* pointers of the host's pages */
	const struct kv_query *query;
	struct kv_result *result; /* [kv_heads]; y and lse point to memory of the lane when done */
};

struct kv_gpu_backend {
	uint32_t version; /* KV_GPU_VERSION; another one is refused */
	const char *name; /* "cuda" */

	/* Is there a driver, and is it new enough? It touches no device and makes no context.
	 * -ENODEV, -ENOTSUP with `why`; 0 with what it supports, "CUDA 13.0" (KV_GPU_DRIVER bytes).
	 */
	int (*probe)(char *ret_driver, char *why);
	/* Device `index`, with a context of its own. -ENODEV no driver or no such device, -ENOTSUP
	 * too old a driver or a device without kernels, -ENOMEM; `why` says it in a sentence that
	 * names what was found and what is needed. */
	int (*open)(uint32_t index, struct kv_gpu **ret, char *why);
	struct kv_gpu *(*close)(struct kv_gpu *g); /* lanes and mirrors are gone; NULL */
	void (*info)(const struct kv_gpu *g, struct kv_gpu_info *ret);
	/* Why every call fails from now on: off the bus, or a kernel died. NULL: it is well. */
	const char *(*lost)(const struct kv_gpu *g);

	/* Can such steps be run? -EOPNOTSUPP with `why`: format, dimension or policy by name. */
	int (*serves)(const struct kv_gpu *g, const struct kv_space *s, char *why);

	/* And this one? By its sizes and its plan alone. */
	bool (*runs)(const struct kv_gpu_item *item);

	/* Addresses for a copy of [host, host + bytes). No memory yet. -ENOMEM. */
	int (*mirror)(struct kv_gpu *g, const void *host, size_t bytes, struct kv_gpu_mirror **ret);
	struct kv_gpu_mirror *(*unmirror)(struct kv_gpu_mirror *m);
	size_t (*granule)(const struct kv_gpu *g); /* bytes that map and unmap count in */
	/* Memory behind [at, at + bytes) of the mirror, whole granules, zeroed. -ENOMEM. */
	int (*map)(struct kv_gpu_mirror *m, size_t at, size_t bytes);
	void (*unmap)(struct kv_gpu_mirror *m, size_t at, size_t bytes);
	/* Host memory that the device may read and write by itself: session arenas, the pool. */
	int (*pin)(struct kv_gpu *g, void *host, size_t bytes);
	void (*unpin)(struct kv_gpu *g, void *host);

	/* For batches that copy at most so many bytes in or out. -ENOMEM. */
	int (*lane_open)(struct kv_gpu *g, size_t bytes, struct kv_gpu_lane **ret);
	struct kv_gpu_lane *(*lane_close)(struct kv_gpu_lane *l);
	/* The host's bytes [from, from + n), to the same place of their mirror: taken before it
	 * returns. -ENOSPC: the lane is full until its batch is done; -EIO: lost. */
	int (*copy_in)(struct kv_gpu_lane *l, const void *from, size_t n);
	/* Starts a batch. One at a time on a lane. -ENOSPC: more than its memory; -EIO: lost. */
	int (*submit)(struct kv_gpu_lane *l, const struct kv_gpu_item *item, uint32_t n);
	/* 1: done, results are there; 0: not yet; -EIO: lost. */
	int (*poll)(struct kv_gpu_lane *l);
	/* What its kernels took, by the device's own clock, of the batch that was done last. */
	float (*milliseconds)(const struct kv_gpu_lane *l);

	/* Part of the time in which the device's memory was busy, 0..1, since the call before;
	 * -EOPNOTSUPP with `why`. */
	int (*dram_busy)(struct kv_gpu *g, float *ret, char *why);
	/* How many bytes a second a copy of so many moves within its memory, read and written ones
	 * added up: the median of some. For benchmarks; it waits. -ENOMEM, -EIO. */
	int (*copy_bandwidth)(struct kv_gpu *g, size_t bytes, double *ret_bytes_s);
};

/* What the module exports under this name. */
#define KV_GPU_SYMBOL "kv_gpu_backend"

/* ---- a copy of the host's pages: what it has to have, and what of it is old ------------- */

/* All of the pages that a view leads to, the rows of them that do not count as well. */
void kv_visit_pages(const struct kv_space *s, const struct kv_view *v, kv_visit_fn *visit,
		    void *arg);
/* What kv_write of these rows has written, in sinks and tail. */
void kv_visit_rows(const struct kv_space *s, const struct kv_view *v, uint32_t row, uint32_t n,
		   kv_visit_fn *visit, void *arg);
/* What kv_flush into that slot has written, of all heads; `parts` are the view's. */
void kv_visit_tile(const struct kv_space *s, const struct kv_parts *parts,
		   const struct kv_extent *x, unsigned slot, kv_visit_fn *visit, void *arg);

/* ---- a step in two parts: older rows here, newer ones on a device ------------------------- */

struct kv_half { /* a step of its own */
	struct kv_view view;
	struct kv_query query;
	struct kv_plan plan;
};
/* Cuts a step at `cut`, the number of the first row of an extent, or of the tail. `extent`: room
 * for as many as the view has; those of the newer part. What is ranked is ranked in each part by
 * itself: the plan's k of each. -EOPNOTSUPP: an operation that has no parts; -EINVAL: a query that
 * has no rows on one side. */
int kv_split(const struct kv_gpu_item *whole, uint32_t cut, struct kv_extent *extent,
	     struct kv_half *ret_older, struct kv_half *ret_newer);
/* Can steps of such caches be cut? -EOPNOTSUPP with `why` (KV_ERROR_TEXT bytes). */
int kv_splits(const struct kv_space *s, char *why);
/* Adds a part's y and lse to those of another, and what was chosen; bytes are left alone. The least
 * of both alphas stands for the whole's. */
void kv_merge(const struct kv_space *s, uint32_t n_q, struct kv_result *to,
	      const struct kv_result *from);
