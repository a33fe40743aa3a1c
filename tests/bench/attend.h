/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `sparq-bench attend` share. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/bench/option.h"
#include "tests/kernels/rig.h"

struct crew;

/* ---- what to measure ------------------------------------------------------------ */

struct attend_options {
	struct bench_numbers seqlen, threads;
	struct bench_words format, policy;
	const char *isa, *pages, *daemon;
	uint32_t dim, heads, kv_heads, r, k, level, queries, cold_mib, memory_mib, spin_us;
	double seconds;
	bool through_daemon, poll, break_even, planes, json;
};

/* "hier4", "hier4/int8": K and V; with "/U": only what level 1 reads, the upper planes. */
struct bench_format {
	char k[16], v[16], name[40];
	unsigned level;
};

struct bench_shape {
	const struct attend_options *options;
	uint32_t rows;
	struct bench_format format;
	const char *policy;
	enum rig_pages pages;
	bool sparse; /* never dense because rows are few */
};

/* ---- attend-rows.c: sequences to attend to ----------------------------------- */

struct bench_rows {
	struct bench_shape shape;
	struct kv_space space;
	uint32_t args[KV_POLICY_ARGS_BYTES / sizeof(uint32_t)];
	char policy_options[128]; /* the same for a daemon's cache */
	struct rig *rig;          /* equal ones, visited in turn so that none is in a cache */
	unsigned n;
	float *q; /* BENCH_QUERIES steps of them, so that channels differ; binary16 all */
};
#define BENCH_QUERIES 8u

/* `level` 1: as if it had /U, where it has upper planes. -EINVAL with `why` (KV_ERROR_TEXT bytes).
 */
int bench_format_parse(const char *word, unsigned level, struct bench_format *ret, char *why);
/* -errno with `why` (KV_ERROR_TEXT bytes). */
int bench_rows_init(struct bench_rows *b, const struct bench_shape *shape, char *why);
void bench_rows_deinit(struct bench_rows *b);

/* The rows of every sequence, in blocks of at most `most`, packed as kv_write takes them. */
struct bench_noise {
	const struct kv_space *space;
	uint32_t most;
	uint64_t state;
	float *x;
	char *packed;
};
#define BENCH_BLOCK_ROWS 512u
int bench_noise_init(struct bench_noise *n, const struct kv_space *s, uint32_t most);
void bench_noise_next(struct bench_noise *n, uint32_t rows);
void bench_noise_deinit(struct bench_noise *n);

/* ---- attend-step.c: one step, in this process -------------------------------------- */

struct bench_step {
	const struct bench_rows *rows;
	struct kv_exec *exec; /* [kv_heads] */
	atomic_uint *left;    /* shares to go, by KV head */
	unsigned shares;      /* of one KV head */
	char *scratch;
	uint64_t scratch_bytes; /* of one KV head */
	bool dense;
};

/* `dense`: whatever the policy says. False: no memory. */
bool bench_step_init(struct bench_step *s, const struct bench_rows *rows, bool dense);
void bench_step_deinit(struct bench_step *s);
/* Sequence and queries are those of this turn. */
void bench_step_run(struct bench_step *s, struct crew *crew, unsigned turn);
/* What the last run read, by plane. */
uint64_t bench_step_bytes(const struct bench_step *s, uint64_t ret_planes[KV_PLANES]);

/* ---- attend-remote.c: the same step through a daemon -------------------------------- */

struct bench_remote;
/* A daemon of so many workers with equal sequences. -errno; it said why. */
int bench_remote_start(const struct bench_rows *rows, unsigned workers, struct bench_remote **ret);
void bench_remote_stop(struct bench_remote *r);
/* Submits, waits, and says how long that took. -errno; it said why. */
int bench_remote_step(struct bench_remote *r, unsigned turn, double *ret_ms);
/* -EBADMSG unless the last step answered what `s` did, bit for bit, and read the same bytes. */
int bench_remote_compare(const struct bench_remote *r, const struct bench_step *s);

/* ---- attend-even.c ------------------------------------------------------------------- */

/* Where sparq begins to be faster than dense: 0, 1 failed. */
int bench_break_even(const struct attend_options *o, enum rig_pages pages);

/* ---- attend-show.c --------------------------------------------------------------------- */

struct figures {
	uint32_t rows;
	const char *policy;
	const struct bench_format *format;
	unsigned threads, samples, sequences;
	double median_ms, min_ms;
	double remote_ms, added_us; /* through a daemon; median of what it adds, step by step */
	double roof_gbps, dense_ms, scaling; /* of the same rows and threads; the first threads */
	uint64_t bytes[KV_PLANES], bytes_read;
	uint64_t cold_bytes; /* read between two uses of a line */
};

struct report;
struct report *report_new(const struct attend_options *o, const char *pages);
void report_add(struct report *r, const struct figures *f);
void report_end(struct report *r); /* and free */

/* ---- attend-crew.c: threads that share a step as the daemon's workers do ------- */

int crew_start(unsigned threads, struct crew **ret);
void crew_stop(struct crew *c);
/* Runs work(argument, i) for i below n, each once, on all threads; returns when all are done. */
void crew_run(struct crew *c, void (*work)(void *argument, unsigned i), void *argument, unsigned n);

/* ---- roofline.c ---------------------------------------------------------------- */

struct roofline;
/* NULL: no memory. */
struct roofline *roofline_new(enum rig_pages pages);
void roofline_free(struct roofline *r);
/* Bytes per nanosecond that the crew reads from memory, now. */
double roofline_gbps(struct roofline *r, struct crew *c);
