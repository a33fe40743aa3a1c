/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences: created, attached, forked, cut, dropped. What happens on the token
 * path goes through a queue instead.
 */
#include <stdio.h>

#include "client/object.h"
#include "client/private.h"
#include "shm/atomic.h"

/* A request of `of` that makes or attaches a sequence of the cache `in`. */
static int request(struct handle *of, struct handle *in, union message *m, const char *name,
		   sparq_seq **ret)
{
	FREE_MEMORY struct sparq_seq *s = calloc(1, sizeof(*s));
	sparq *c = of->c;
	int r;

	if (!s)
		return -ENOMEM;
	s->in = in;
	snprintf(s->name, sizeof(s->name), "%s", name ? name : "");
	r = conn_call_new(c, of, m, &s->h, &c->sequences);
	if (r < 0)
		return r;
	*ret = STEAL_PTR(s);
	return 0;
}

static int request_by_name(sparq_cache *k, uint16_t type, const char *name, sparq_seq **ret)
{
	union message m;
	int r;

	message_init(&m, type);
	r = conn_string(k->h.c, "name", name, m.seq_create.name, sizeof(m.seq_create.name));
	return r < 0 ? r : request(&k->h, &k->h, &m, name, ret);
}

int sparq_seq_create(sparq_cache *k, const char *name, sparq_seq **ret)
{
	return request_by_name(k, SPARQ_MSG_SEQ_CREATE, name, ret);
}

int sparq_seq_attach(sparq_cache *k, const char *name, sparq_seq **ret)
{
	if (!name || !*name)
		return conn_fail(k->h.c, -EINVAL, "only a sequence with a name can be attached");
	return request_by_name(k, SPARQ_MSG_SEQ_ATTACH, name, ret);
}

int sparq_seq_fork(sparq_seq *s, uint64_t rows, sparq_seq **ret)
{
	union message m;

	message_init(&m, SPARQ_MSG_SEQ_FORK);
	m.seq.rows = rows;
	return request(&s->h, s->in, &m, NULL, ret);
}

static void let_go(sparq_seq *s)
{
	handle_remove(&s->h);
	free(s);
}

sparq_seq *sparq_seq_unref(sparq_seq *s)
{
	union message m;

	if (!s)
		return NULL;
	message_init(&m, SPARQ_MSG_SEQ_DROP);
	if (!s->name[0])
		conn_tell_of(&s->h, &m); /* a daemon that is gone drops or parks it by itself */
	let_go(s);
	return NULL;
}

int sparq_seq_drop(sparq_seq *s)
{
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_SEQ_DROP);
	r = conn_call_of(&s->h, &m);
	/* -EBUSY: entries are in flight; the caller waits for them and comes back. */
	if (r < 0 && r != -ENOTCONN && r != -ESTALE)
		return r;
	let_go(s);
	return r;
}

int sparq_seq_truncate(sparq_seq *s, uint64_t rows)
{
	union message m;

	message_init(&m, SPARQ_MSG_SEQ_TRUNCATE);
	m.seq.rows = rows;
	return conn_call_of(&s->h, &m);
}

int sparq_seq_stat_get(sparq_seq *s, uint32_t layer, struct sparq_seq_stat *ret)
{
	struct sparq_seq_stat stat = {};
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_SEQ_STAT);
	m.seq.rows = layer;
	r = conn_call_of(&s->h, &m);
	if (r < 0)
		return r;
	stat.node = m.seq_stat.node;
	stat.rows_least = m.seq_stat.rows_least;
	stat.rows_most = m.seq_stat.rows_most;
	stat.bytes = m.seq_stat.bytes;
	stat.flags = m.seq_stat.flags;
	stat.placement = conn_placement(s->h.c, &m);
	return struct_give(ret, &stat, sizeof(stat));
}

uint64_t sparq_seq_id(sparq_seq *s)
{
	return load_relaxed(&s->h.id); /* a daemon that knows no ids gives another one */
}
