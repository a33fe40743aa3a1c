/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking the memory for plain rows well before they are used, across to the
 * block that comes next.
 *
 * Into L2, not L1: a request for L1 occupies one of its few miss buffers for as
 * long as memory takes, and what the loop itself loads queues behind them.
 * Without any, arithmetic and memory hardly overlap: the hardware's prefetcher
 * begins anew at every page, and a page of f16 is 16 rows. A few lines at a
 * time, as evenly as they are used: asked for in bursts of some KiB, the same
 * lines take a third longer.
 */
#pragma once

#include "kernels/codec.h"

#define KV_AHEAD_BYTES 16384u /* 8 KiB is a little late; with 32 it becomes slower again */

struct ahead {
	const uint8_t *end; /* of the block's rows */
	ptrdiff_t jump;     /* from there to the rows of the next block */
	bool any;           /* there is one */
};

/* Of the rows at `first`, the block's first row, and at `next`, that of the next block. */
KV_FN struct ahead ahead_of(const struct kv_block *b, struct kv_rows first, struct kv_rows next)
{
	const uint8_t *end = first.upper + kv_block_rows(b) * first.stride;

	return (struct ahead){ end, next.upper - end, b->next };
}

/* n bytes, KV_AHEAD_BYTES from here. */
KV_FN void ahead_ask(const struct ahead *a, const uint8_t *at, size_t n)
{
	at += KV_AHEAD_BYTES;
	if (at >= a->end) {
		if (!a->any)
			return;
		at += a->jump;
	}
	for (size_t i = 0; i < n; i += KV_LINE)
		__builtin_prefetch(at + i, 0, 2);
}

/* Where that is: for loops that have the lines of a step unrolled. Lines that are in the cache, if
 * there are none to ask for. */
KV_FN const uint8_t *ahead_of_step(const struct ahead *a, const uint8_t *at)
{
	const uint8_t *to = at + KV_AHEAD_BYTES;

	return to < a->end ? to : a->any ? to + a->jump : at;
}

KV_FN struct kv_block ahead_next(const struct kv_block *b)
{
	struct kv_block next = *b;

	next.base = (void *)(uintptr_t)(b->next ? b->next : b->base);
	return next;
}

KV_FN struct ahead ahead_k(const struct kv_block *b)
{
	struct kv_block next = ahead_next(b);

	return ahead_of(b, fmt_k_rows(b, 0), fmt_k_rows(&next, 0));
}

KV_FN struct ahead ahead_v(const struct kv_block *b)
{
	struct kv_block next = ahead_next(b);

	return ahead_of(b, fmt_v_rows(b, 0), fmt_v_rows(&next, 0));
}
