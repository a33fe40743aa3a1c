/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences: created, attached, forked, cut, dropped. What happens on the token
 * path goes through a queue instead.
 */
#include "client/object.h"
#include "client/private.h"

/* Sends a request that names a sequence by its handle or its name, and makes the handle of the one
 * in the answer. */
static int request(sparq *c, union message *m, bool named, sparq_seq **ret)
{
	FREE_MEMORY struct sparq_seq *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	r = conn_call(c, m);
	if (r < 0)
		return r;
	s->c = conn_ref(c);
	s->id = m->seq.sequence;
	s->named = named;
	*ret = STEAL_PTR(s);
	return 0;
}

static int request_by_name(sparq_cache *k, uint16_t type, const char *name, sparq_seq **ret)
{
	union message m;
	int r;

	message_init(&m, type);
	m.seq_create.cache = k->id;
	r = conn_string(k->c, "name", name, m.seq_create.name, sizeof(m.seq_create.name));
	if (r < 0)
		return r;
	return request(k->c, &m, name && *name, ret);
}

int sparq_seq_create(sparq_cache *k, const char *name, sparq_seq **ret)
{
	return request_by_name(k, SPARQ_MSG_SEQ_CREATE, name, ret);
}

int sparq_seq_attach(sparq_cache *k, const char *name, sparq_seq **ret)
{
	if (!name || !*name)
		return conn_fail(k->c, -EINVAL, "only a sequence with a name can be attached");
	return request_by_name(k, SPARQ_MSG_SEQ_ATTACH, name, ret);
}

int sparq_seq_fork(sparq_seq *s, uint64_t rows, sparq_seq **ret)
{
	union message m;

	message_init(&m, SPARQ_MSG_SEQ_FORK);
	m.seq.sequence = s->id;
	m.seq.rows = rows;
	return request(s->c, &m, false, ret);
}

static int drop(sparq_seq *s)
{
	union message m;

	message_init(&m, SPARQ_MSG_SEQ_DROP);
	m.seq.sequence = s->id;
	return conn_call(s->c, &m);
}

static void let_go(sparq_seq *s)
{
	conn_unref(s->c);
	free(s);
}

sparq_seq *sparq_seq_unref(sparq_seq *s)
{
	if (!s)
		return NULL;
	if (!s->named)
		(void)drop(s); /* a daemon that is gone drops or parks it by itself */
	let_go(s);
	return NULL;
}

int sparq_seq_drop(sparq_seq *s)
{
	int r = drop(s);

	/* -EBUSY: entries are in flight; the caller waits for them and comes back. */
	if (r < 0 && r != -ENOTCONN)
		return r;
	let_go(s);
	return r;
}

int sparq_seq_truncate(sparq_seq *s, uint64_t rows)
{
	union message m;

	message_init(&m, SPARQ_MSG_SEQ_TRUNCATE);
	m.seq.sequence = s->id;
	m.seq.rows = rows;
	return conn_call(s->c, &m);
}

int sparq_seq_stat_get(sparq_seq *s, uint32_t layer, struct sparq_seq_stat *ret)
{
	struct sparq_seq_stat stat = {};
	union message m;
	int r;

	message_init(&m, SPARQ_MSG_SEQ_STAT);
	m.seq.sequence = s->id;
	m.seq.rows = layer;
	r = conn_call(s->c, &m);
	if (r < 0)
		return r;
	stat.node = m.seq_stat.node;
	stat.rows_least = m.seq_stat.rows_least;
	stat.rows_most = m.seq_stat.rows_most;
	stat.bytes = m.seq_stat.bytes;
	return struct_give(ret, &stat, sizeof(stat));
}

uint64_t sparq_seq_id(sparq_seq *s)
{
	return s->id;
}
