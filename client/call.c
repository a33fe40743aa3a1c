/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control calls across the daemon's end. A request that was surely not seen is
 * said again in the next session. One that may have been done is said again only
 * if twice is as good as once; else the caller hears -ECONNRESET and looks.
 */
#include <stdio.h>

#include "client/object.h"
#include "client/private.h"
#include "shm/atomic.h"
#include "shm/clock.h"

/* What a second time does after a first one that was done, by a daemon that found everything again:
 * questions ask; a named cache is attached to, a sequence that was parked again as well; keeping
 * the rows below a number, a parameter, a table: as they are. A cache or sequence without a name is
 * made again, and the first, which nobody knows, is dropped with what else the old session left. A
 * named sequence would be there already: who else could have made it, only the caller knows. */
static bool is_repeatable(const union message *m)
{
	switch (m->head.type) {
	case SPARQ_MSG_NAME:
	case SPARQ_MSG_INFO:
	case SPARQ_MSG_CACHE_CREATE:
	case SPARQ_MSG_CACHE_SET:
	case SPARQ_MSG_CACHE_STAT:
	case SPARQ_MSG_CACHE_TABLE:
	case SPARQ_MSG_CACHE_ATTACH:
	case SPARQ_MSG_SEQ_ATTACH:
	case SPARQ_MSG_SEQ_PREFETCH:
	case SPARQ_MSG_SEQ_FORK:
	case SPARQ_MSG_SEQ_STAT:
	case SPARQ_MSG_SEQ_TRUNCATE:
	case SPARQ_MSG_SEQ_DROP:
	case SPARQ_MSG_SEQ_PIN:
	case SPARQ_MSG_SEQ_TOKENS:
		return true;
	case SPARQ_MSG_SEQ_CREATE:
		return !m->seq_create.name[0];
	case SPARQ_MSG_SEQ_CREATE_PREFIX:
		return !m->seq_prefix.name[0];
	default:
		return false;
	}
}

/* ---- handles -------------------------------------------------------------------- */

/* The id follows the head in every request that names something by one, and in its reply. */
_Static_assert(offsetof(struct sparq_msg_cache, cache) == sizeof(struct sparq_msg) &&
		       offsetof(struct sparq_msg_cache_set, cache) == sizeof(struct sparq_msg) &&
		       offsetof(struct sparq_msg_cache_table, cache) == sizeof(struct sparq_msg) &&
		       offsetof(struct sparq_msg_cache_shape, cache) == sizeof(struct sparq_msg) &&
		       offsetof(struct sparq_msg_seq_create, cache) == sizeof(struct sparq_msg) &&
		       offsetof(struct sparq_msg_seq_prefix, cache) == sizeof(struct sparq_msg) &&
		       offsetof(struct sparq_msg_seq_tokens, sequence) ==
			       sizeof(struct sparq_msg) &&
		       offsetof(struct sparq_msg_seq, sequence) == sizeof(struct sparq_msg),
	       "ids");

static void link_handle(struct handle *h, sparq *c, struct handle **list)
{
	h->c = conn_ref(c);
	h->next = *list;
	h->at = list;
	if (h->next)
		h->next->at = &h->next;
	*list = h;
}

void handle_remove(struct handle *h)
{
	sparq *c = h->c;

	/* A child of fork() has a copy of the list as some thread of its parent was changing it. */
	if (!conn_is_child(c)) {
		pthread_mutex_lock(&c->speak);
		*h->at = h->next;
		if (h->next)
			h->next->at = h->at;
		pthread_mutex_unlock(&c->speak);
	}
	free(h->lost);
	conn_unref(c);
}

/* ---- calls ------------------------------------------------------------------------ */

struct call {
	sparq *c;
	struct handle *of;    /* whom it is about; NULL: the daemon */
	struct handle *makes; /* what the reply's id is given to, and the list that it joins */
	struct handle **list;
	union message request;
	struct payload payload;
	bool sent; /* the last attempt may have been seen */
};

/* Into the session that the request goes to: each has an arena of its own. */
static void put_payload(const struct session *s, const struct payload *p)
{
	if (p->bytes)
		memcpy((uint8_t *)s->segment.base + s->told.arena_offset + p->offset, p->data,
		       p->bytes);
}

static int say(struct call *l, union message *m)
{
	sparq *c = l->c;
	int r;

	*m = l->request;
	if (l->of && l->of->lost)
		return conn_fail(c, -ESTALE, "%s", l->of->lost);
	if (l->of)
		memcpy(m->bytes + sizeof(m->head), &l->of->id, sizeof(l->of->id));
	put_payload(c->session, &l->payload);
	r = session_call(c->session, m, NULL, 0, call_timeout_ns(m->head.type), c->error,
			 &l->sent);
	if (r == 0 && l->makes) {
		memcpy(&l->makes->id, m->bytes + sizeof(m->head), sizeof(l->makes->id));
		link_handle(l->makes, c, l->list);
	}
	return r;
}

static int no_session(const struct call *l, int error, const char *why)
{
	const char *name = message_name(l->request.head.type);

	if (l->sent)
		return conn_fail(l->c, -ECONNRESET,
				 "%s: the daemon went away before it answered, and whether it was "
				 "done is not known",
				 name);
	(void)error; /* whatever it is, the session is over, and this is what callers know */
	return conn_fail(l->c, -ENOTCONN, "%s: %s", name, why);
}

static int run(struct call *l, union message *m)
{
	int64_t begin = clock_now_ns(), deadline = begin + MAX(l->c->patience_ns, 0);
	char why[SPARQ_ERROR_TEXT] = "";
	bool in_doubt = false;

	for (;;) {
		int r = conn_revive(l->c, deadline, why);

		if (r < 0)
			return no_session(l, r, why);
		pthread_mutex_lock(&l->c->speak);
		r = say(l, m);
		pthread_mutex_unlock(&l->c->speak);
		if (r == -ESTALE && in_doubt && l->request.head.type == SPARQ_MSG_SEQ_DROP)
			return 0; /* it was seen, and done */
		if (r != -ENOTCONN)
			return r;
		if (l->sent && !is_repeatable(&l->request))
			return no_session(l, r, why);
		in_doubt |= l->sent;
		l->sent = false;
		if (clock_now_ns() >= deadline)
			return no_session(l, r, "the daemon ends as soon as it is asked");
	}
}

static int call(struct call *l, union message *m)
{
	sparq *c = l->c;
	int r;

	c->error[0] = '\0';
	if (conn_is_child(c))
		return conn_fail(c, -ENOTCONN, "a handle does not outlive fork()");
	l->request = *m;
	r = run(l, m);
	if (r == 0)
		c->error[0] = '\0';
	return r;
}

int conn_call(sparq *c, union message *m)
{
	struct call l = { .c = c };

	return call(&l, m);
}

int conn_call_of(struct handle *h, union message *m)
{
	struct call l = { .c = h->c, .of = h };

	return call(&l, m);
}

int conn_call_new(sparq *c, struct handle *of, union message *m, struct handle *made,
		  struct handle **list)
{
	struct call l = { .c = c, .of = of, .makes = made, .list = list };

	return call(&l, m);
}

int conn_call_with(struct handle *of, union message *m, const struct payload *p,
		   struct handle *made, struct handle **list)
{
	struct call l = { .c = of->c, .of = of, .payload = *p, .makes = made, .list = list };

	return call(&l, m);
}

void conn_tell_of(struct handle *h, union message *m)
{
	sparq *c = h->c;
	char why[SPARQ_ERROR_TEXT];
	bool sent;

	if (conn_is_child(c))
		return;
	pthread_mutex_lock(&c->speak);
	if (!h->lost && session_alive(c->session)) {
		memcpy(m->bytes + sizeof(m->head), &h->id, sizeof(h->id));
		(void)session_call(c->session, m, NULL, 0, CALL_TIMEOUT_NS, why, &sent);
	}
	pthread_mutex_unlock(&c->speak);
}
