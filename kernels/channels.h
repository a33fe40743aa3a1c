/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channel tables inside the kernels: rows, queries and results between the
 * order of a client and that of memory.
 *
 * A channel is a number of the client's; a place is where it lies. All that is
 * stored of a KV head is in places, so nothing but what enters (rows, queries)
 * and what leaves (results) knows of the table. NULL is the table that changes
 * nothing.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

/* Of one KV head of a view. */
static inline const struct kv_channels *kv_channels_of(const struct kv_view *view, uint32_t head)
{
	return view->channels ? view->channels[head] : NULL;
}

/* `n` elements of `bytes` each (2 or 4), by channel, to where they belong. */
void kv_channels_store(const uint8_t *channel, uint32_t n, size_t bytes, const void *from,
		       void *to);
/* to[i] = from[channel of place i] * scale */
void kv_channels_scale(const struct kv_channels *t, uint32_t n, float scale, const float *from,
		       float *to);
/* A row of y by place becomes one by channel. */
void kv_channels_restore(const struct kv_channels *t, uint32_t n, float *y);
/* The places, ascending, of r channels, which ascend. */
void kv_channels_find(const struct kv_channels *t, uint32_t n, const uint32_t *channel, uint32_t r,
		      uint16_t *ret_place);
