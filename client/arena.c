/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which bytes of the arena are taken. First fit; neighbours that are free are
 * always joined, so that no two free blocks touch.
 *
 * All bookkeeping is in private memory: the arena itself is shared, and nothing
 * that decides where memory lies may be in it. The first line is never given
 * out, because the address 0 means "not wanted" in an item.
 */
#include <assert.h>

#include "client/private.h"

static void free_push(struct arena *a, struct sparq_buf *b)
{
	b->taken = false;
	b->free_prev = NULL;
	b->free_next = a->free;
	if (a->free)
		a->free->free_prev = b;
	a->free = b;
}

static void free_remove(struct arena *a, struct sparq_buf *b)
{
	if (b->free_prev)
		b->free_prev->free_next = b->free_next;
	else
		a->free = b->free_next;
	if (b->free_next)
		b->free_next->free_prev = b->free_prev;
	b->free_prev = b->free_next = NULL;
}

/* Joins `right` to the block before it. */
static void absorb(struct sparq_buf *left, struct sparq_buf *right)
{
	assert(left->offset + left->bytes == right->offset);
	left->bytes += right->bytes;
	left->after = right->after;
	if (right->after)
		right->after->before = left;
	free(right);
}

/* Cuts a free block in two: what lies past `bytes` becomes a free block of its own. */
static int split(struct arena *a, struct sparq_buf *b, uint64_t bytes)
{
	struct sparq_buf *rest = calloc(1, sizeof(*rest));

	if (!rest)
		return -ENOMEM;
	rest->offset = b->offset + bytes;
	rest->bytes = b->bytes - bytes;
	rest->before = b;
	rest->after = b->after;
	if (b->after)
		b->after->before = rest;
	b->after = rest;
	b->bytes = bytes;
	free_push(a, rest);
	return 0;
}

int arena_init(struct arena *a, uint64_t bytes)
{
	struct sparq_buf *all;

	*a = (struct arena){};
	bytes -= bytes % ARENA_ALIGN;
	if (bytes <= ARENA_ALIGN)
		return -EINVAL;
	all = calloc(1, sizeof(*all));
	if (!all)
		return -ENOMEM;
	all->offset = ARENA_ALIGN;
	all->bytes = bytes - ARENA_ALIGN;
	a->first = all;
	free_push(a, all);
	return 0;
}

void arena_deinit(struct arena *a)
{
	struct sparq_buf *next;

	for (struct sparq_buf *b = a->first; b; b = next) {
		next = b->after;
		free(b);
	}
	*a = (struct arena){};
}

int arena_take(struct arena *a, uint64_t bytes, struct sparq_buf **ret)
{
	struct sparq_buf *b = a->free;
	int r;

	if (!bytes)
		return -EINVAL;
	if (bytes > UINT64_MAX - ARENA_ALIGN)
		return -ENOMEM;
	bytes = ALIGN_UP(bytes, (uint64_t)ARENA_ALIGN);
	while (b && b->bytes < bytes)
		b = b->free_next;
	if (!b)
		return -ENOMEM;
	if (b->bytes > bytes) {
		r = split(a, b, bytes);
		if (r < 0)
			return r;
	}
	free_remove(a, b);
	b->taken = true;
	*ret = b;
	return 0;
}

void arena_give(struct arena *a, struct sparq_buf *b)
{
	struct sparq_buf *left = b->before, *right = b->after;

	assert(b->taken);
	if (right && !right->taken) {
		free_remove(a, right);
		absorb(b, right);
	}
	if (left && !left->taken) {
		free_remove(a, left);
		absorb(left, b);
		b = left;
	}
	free_push(a, b);
}
