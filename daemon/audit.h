/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quality under watch: of the steps that attended to some of their rows, one in so many is computed
 * again over all of them, in a thread of its own, and what its client got is compared with that.
 *
 * What the step saw stays for as long as that takes. Sealed tiles are reached by a reference on
 * their table, like those of a fork, so whatever becomes of the sequence, these rows do not change;
 * sinks and tail, queries and o are copied. So a sequence may grow, be cut, overwritten, forked or
 * dropped meanwhile, and nobody waits.
 *
 * There is one job, and its states are
 *
 *   FREE --(worker: a step's turn)--> TAKEN --(its completion is posted)--> QUEUED
 *   TAKEN --(the step failed, or does not fit)--> FREE
 *   QUEUED --(auditor)--> RUNNING --> DONE --(control thread: it was counted)--> FREE
 *   QUEUED --(control thread: its sequence goes)--> DONE
 *
 * Whoever makes the transition owns the job until the next one. Nothing is taken while the auditor
 * rests: `rest` times as long as the last audit took, so that no client can make us audit all day.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/cache.h"
#include "daemon/lane.h"
#include "kernels/kernels.h"
#include "shm/stats-page.h"

#define AUDIT_JOB_BYTES (64 * MIB) /* most that a step may need; touched as needed */
#define AUDIT_REST 99u             /* in life: one hundredth of a thread's time */

struct seq;

enum audit_state { AUDIT_FREE, AUDIT_TAKEN, AUDIT_QUEUED, AUDIT_RUNNING, AUDIT_DONE };

struct audit_result {
	struct cache *cache; /* lives until audit_next's caller has called audit_collect */
	uint64_t sequence;
	uint32_t layer, rows;
	int r;        /* 0; -ECANCELED: its sequence was dropped; -EDOM: not finite; -ENOMEM */
	double error; /* |o - o of all rows| / |o of all rows| */
};

struct audit_job {
	uint32_t state;  /* atomic: enum audit_state */
	uint32_t cancel; /* atomic */
	struct lane lane;
	struct kv_space space; /* of the layer; what it borrows is not asked of a dense plan */
	struct kv_view view;
	struct kv_query query;
	float *o;               /* [n_q][heads][v_dim], as the step found it */
	uint32_t layers, table; /* table: a reference; BLOCK_NONE */
	struct audit_result result;
};

struct auditor {
	struct audit_job job;
	uint32_t every; /* atomic: 0: none */
	uint32_t rest;
	uint64_t rest_until_ns;          /* atomic */
	uint64_t left_out[STATS_AUDITS]; /* atomic: by enum stats_audit_end */
	pthread_t thread;
	bool started, is_low; /* is_low: below the workers */
	uint32_t stopping;    /* atomic */
	int wake, done;       /* eventfds: to the auditor, to the control thread */
};

struct audit_params {
	uint32_t every, rest;
	size_t bytes; /* of a job */
	bool by_hand; /* no thread: audit_run is called when it is due */
};

/* ---- control thread -------------------------------------------------------------- */

/* -ENOMEM, -errno. */
int audit_open(const struct audit_params *p, struct auditor **ret);
/* Workers have stopped. What it found last is given up. NULL. */
struct auditor *audit_close(struct auditor *a);
/* The job that is queued, if one is: what the thread does. */
void audit_run(struct auditor *a);
void audit_set_every(struct auditor *a, uint32_t every);
int audit_fd(const struct auditor *a); /* readable when there is a result */
/* What the last audit found; then audit_collect, after which its cache may be gone. */
bool audit_next(struct auditor *a, struct audit_result *ret);
void audit_collect(struct auditor *a);
/* The sequence is about to go: its audit is given up, what it holds is given back now, or within a
 * share's time. NULL: there is no auditor. */
void audit_drop(struct auditor *a, const struct seq *s);
/* No job is under way: whoever takes one from here on sees what was stored before. */
bool audit_is_idle(const struct auditor *a);
/* The cache, which has no sequences, is about to change: nothing of it is read after this. */
void audit_leave(struct auditor *a, const struct cache *c);

/* ---- token path ------------------------------------------------------------------ */

/* Whose turn it is: each worker's own. */
struct audit_turn {
	uint32_t left;
	uint64_t random;
};
/* `own`: what the cache of the step says (audit= of sparq_cache_create(3)); 0: nothing. Of a daemon
 * that audits nothing none is audited. */
bool audit_is_turn(struct auditor *a, struct audit_turn *turn, uint16_t own);
/* The job, TAKEN and empty; NULL: it is in use, or the auditor rests. */
struct audit_job *audit_take(struct auditor *a, uint64_t now_ns);
/* Gives it back as it was; counted as `why`, STATS_AUDITS: not counted. */
void audit_put_back(struct auditor *a, unsigned why);
/* It is complete: the auditor is woken. */
void audit_queue(struct auditor *a);
