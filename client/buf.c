/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that both sides see: pieces of the session's arena. No message is
 * needed: the arena is the client's to divide, and how it is divided outlives
 * the session.
 */
#include "client/private.h"

int sparq_buf_alloc(sparq *c, size_t n, sparq_buf **ret)
{
	struct sparq_buf *b;
	int r = arena_take(&c->arena, n, &b);

	if (r < 0)
		return conn_fail(c, r,
				 "%zu bytes: no free piece of the arena (%llu bytes) holds them", n,
				 (unsigned long long)c->hello.arena_bytes);
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
	b->asked = session_unref(b->asked);
	arena_give(&c->arena, b);
	conn_unref(c);
	return NULL;
}

static void *data_in(const sparq_buf *b, const struct session *s)
{
	return (uint8_t *)s->segment.base + s->told.arena_offset + b->offset;
}

/* The session whose address the program gets stays until it asks again: an address that it may
 * still use is not mapped away. */
void *sparq_buf_data(sparq_buf *b, size_t *ret_size)
{
	struct session *before = NULL;
	sparq *c = b->c;
	void *data;

	if (ret_size)
		*ret_size = b->bytes;
	if (conn_is_child(c))
		return data_in(b, c->session);
	pthread_mutex_lock(&c->lock);
	if (b->asked != c->session) {
		before = b->asked;
		b->asked = session_ref(c->session);
	}
	data = data_in(b, c->session);
	pthread_mutex_unlock(&c->lock);
	session_unref(before);
	return data;
}

uint64_t sparq_buf_addr(sparq_buf *b)
{
	return b->offset; /* buffer 0, the arena, is bits 48-63 */
}
