/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of a step that a device computes: items of its caches become one request
 * (device.h), and the worker runs others' shares until it is answered.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/device.h"

struct step_head;
struct step_item;
struct stepper;

struct step_device {           /* of a stepper */
	struct device *device; /* of what is staged; NULL: nothing is */
	struct device_request request;
	struct step_item *item[KV_GPU_MAX_ITEMS];
	struct step_head *head[KV_GPU_MAX_ITEMS]; /* KV head 0; those of an item follow it */
	struct step_head **here[KV_GPU_MAX_ITEMS]; /* of one in halves: those of the other */
	struct step_item *back[KV_GPU_MAX_ITEMS]; /* what it did not do */
	uint32_t n_back;
};

/* Is the item's cache on a device, and can that run its plan? Of one that was staged. If not,
 * the item says why. */
bool step_device_runs(const struct stepper *s, struct step_item *i);
/* Adds it to the request, or `half` of it, whose other half's heads are `here`; both NULL: all of
 * it. False: the lane is full, or the request. */
bool step_device_stage(struct stepper *s, struct step_item *i, const struct kv_half *half,
		       struct step_head **here);
/* What was staged goes to the device; false: it does not. */
bool step_device_begin(struct stepper *s);
/* Waits for it, and gathers it. Items that are `back` are to be computed here. */
void step_device_end(struct stepper *s, bool posted);
