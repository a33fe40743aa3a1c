/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store and one stepper, without a daemon around them: a cache on a device that the
 * test's back end pretends, and the same without one. Both are sent the same.
 */
#pragma once

#include "daemon/device.h"
#include "daemon/seq.h"
#include "daemon/step.h"
#include "numa/arena.h"

#define WORLD_SEQUENCES 6u
#define WORLD_LAYERS 2u
#define WORLD_HEADS 8u
#define WORLD_KV_HEADS 4u
#define WORLD_DIM 64u
#define WORLD_Q_FLOATS (WORLD_HEADS * WORLD_DIM)
#define WORLD_KV_FLOATS (2 * WORLD_KV_HEADS * WORLD_DIM)
#define WORLD_MOST_Q 20u
#define WORLD_PARTS 2u

struct world_params {
	const char *module;    /* the back end */
	const char *device;    /* of the first cache; NULL: "cuda:0" */
	const char *format;    /* NULL: "f16" */
	const char *policy;    /* NULL: "dense" */
	const char *options;   /* of the policy; NULL: "" */
	uint64_t device_bytes; /* 0: as much as there is */
	uint64_t pool_bytes;   /* of each part; 0: 128 MiB */
	unsigned parts;        /* arenas, as if each were a node; 0: one */
};

struct world {
	struct arena arena[WORLD_PARTS];
	unsigned parts;
	struct pool pool;
	struct catalogue *catalogue;
	struct users users;
	struct user *user;
	struct store store;
	struct stepper stepper;
	struct session *session;
	float *base; /* the arena of the session */
	char knobs[64];
	struct cache *cache[2]; /* on the device, and not */
	struct seq *seq[2][WORLD_SEQUENCES];
	uint32_t rows[WORLD_SEQUENCES];
};

/* Fails the test where it cannot. */
void world_open(struct world *w, const struct world_params *p);
void world_close(struct world *w);
/* Words for the back end, see fake-backend.c. */
void world_set(struct world *w, const char *knobs);
struct device_stat world_stat(const struct world *w);
/* The device has thought about what it was told: it has another state than this. */
void world_await(const struct world *w, enum device_state not_this);

/* Rows at the end of sequence `s`, all layers, noise. */
void world_grow(struct world *w, uint32_t s, uint32_t n);
/* Completions of one entry that attends to all rows of the first `n` sequences, of layer 0: without
 * the device, and with it; what they have written is compared bit by bit unless `bound` says how
 * far apart they may be, of the largest. */
struct sparq_cqe world_attend(struct world *w, uint32_t n, uint16_t n_q, uint16_t flags,
			      double bound);
/* What the device's side was told in the report of sequence `s` by the attention before. */
const struct sparq_report *world_report(const struct world *w, uint32_t s);
