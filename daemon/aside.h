/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread for what takes long and needs nothing of the daemon that changes, so that the control
 * thread serves others meanwhile. It has a low priority: whoever computes for clients comes first.
 * One job at a time, in the order in which they came; a bounded number waits.
 *
 *   QUEUED --(its turn)--> RUNNING --(it ends)--> ENDED --(control thread)--> done()
 *   QUEUED --(cancel)--> drop()
 *   RUNNING, ENDED --(cancel)--> cancelled --(control thread, once it has ended)--> drop()
 *
 * So each job that was put comes back once, on the control thread, by done() or by drop(). The
 * thread is started with the first job; one that nobody needs is not there.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/loop.h"

#define ASIDE_QUEUED 8u /* beside the one that runs */

struct aside;

struct aside_job {
	void (*run)(struct aside_job *j); /* by the thread */
	void (*done)(struct aside_job *j);
	void (*drop)(struct aside_job *j); /* nobody wants it any more */
	uint32_t cancelled;                /* atomic */
	struct aside_job *next;
};

int aside_new(struct loop *l, struct aside **ret);
/* Ends the thread, after what it runs; drops all jobs. */
struct aside *aside_free(struct aside *a);
/* -EAGAIN: ASIDE_QUEUED wait; -errno: there is no thread to be had. The job stays the caller's
 * then. */
int aside_put(struct aside *a, struct aside_job *j);
/* done() is not called any more; drop() is, now or later. */
void aside_cancel(struct aside *a, struct aside_job *j);
/* Asked by what runs, so that it can end early; false of what runs nowhere (NULL), or elsewhere. */
bool aside_is_cancelled(const struct aside *a);
