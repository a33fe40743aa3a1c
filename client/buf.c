/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that both sides see: pieces of the session's arena. No message is
 * needed: the arena is the client's to divide.
 */
#include "client/private.h"

int sparq_buf_alloc(sparq *c, size_t n, sparq_buf **ret)
{
	struct sparq_buf *b;
	int r = arena_take(&c->arena, n, &b);

	if (r < 0)
		return conn_fail(c, r,
				 "%zu bytes: no free piece of the arena (%llu bytes) holds them", n,
				 (unsigned long long)c->told.arena_bytes);
	b->c = conn_ref(c);
	*ret = b;
	return 0;
}

sparq_buf *sparq_buf_unref(sparq_buf *b)
{
	sparq *c;

	if (!b)
		return NULL;
	c = b->c;
	arena_give(&c->arena, b);
	conn_unref(c);
	return NULL;
}

void *sparq_buf_data(sparq_buf *b, size_t *ret_size)
{
	if (ret_size)
		*ret_size = b->bytes;
	return (uint8_t *)b->c->segment.base + b->c->told.arena_offset + b->offset;
}

uint64_t sparq_buf_addr(sparq_buf *b)
{
	return b->offset; /* buffer 0, the arena, is bits 48-63 */
}
