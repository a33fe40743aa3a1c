/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every handle attached again, in a new session: by its id, which holds across a
 * restart; with a daemon that does not know that, by name. What is not there
 * any more is lost, and stays so: its handle says it from then on. Nothing is
 * made anew in its place.
 */
#include <stdio.h>
#include <time.h>

#include "client/object.h"
#include "client/private.h"
#include "shm/atomic.h"
#include "shm/clock.h"

/* How long a sequence may belong to a session that is just ending: the one before this, or one of
 * which the daemon had not heard the end. All of them together. */
#define BUSY_NS NS_PER_S
#define BUSY_LOOK_NS (2 * NS_PER_MS)

struct again {
	struct session *s;
	int64_t busy_until_ns;
	char *why;
	char text[SPARQ_ERROR_TEXT]; /* the daemon's last word */
};

/* 0, or what the daemon answered. Whether it was an answer, `is_broken` says. */
static int say(struct again *a, union message *m)
{
	bool sent;

	return session_call(a->s, m, NULL, 0, call_timeout_ns(m->head.type), a->text, &sent);
}

static bool is_broken(const struct again *a, int error)
{
	return error == -ETIMEDOUT || load_relaxed(&a->s->dead);
}

static int give_up(struct again *a, int error)
{
	return text_fail(a->why, error, "%s", a->text);
}

static int lose(struct again *a, struct handle *h, const char *what, const char *name)
{
	bool named = name && *name;

	if (asprintf(&h->lost, "%s %s%s%s%#llx: lost when the daemon ended: %s", what,
		     named ? "\"" : "", named ? name : "", named ? "\", " : "",
		     (unsigned long long)h->id, a->text) >= 0)
		return 0;
	h->lost = NULL;
	return text_fail(a->why, -ENOMEM, "no memory for a sentence");
}

/* ---- caches ---------------------------------------------------------------------- */

/* Creating is attaching where there is one; what it made anew is let go of again. */
static int cache_by_name(struct again *a, struct sparq_cache *k)
{
	union message m = { .cache_create = *k->made };
	uint64_t id;
	int r = say(a, &m);

	if (r < 0)
		return r;
	id = m.cache.cache;
	message_init(&m, SPARQ_MSG_CACHE_STAT);
	m.cache.cache = id;
	r = say(a, &m);
	if (r < 0)
		return r;
	if (m.cache_stat.sequences) {
		store_relaxed(&k->h.id, id);
		return 0;
	}
	message_init(&m, SPARQ_MSG_CACHE_UNREF);
	m.cache.cache = id;
	r = say(a, &m);
	return r < 0 ? r : text_fail(a->text, -ENOENT, "the daemon kept no sequence of it");
}

static int attach_cache(struct again *a, struct sparq_cache *k)
{
	union message m;

	if (a->s->told.features & SPARQ_FEATURE_ADOPT) {
		message_init(&m, SPARQ_MSG_CACHE_ATTACH);
		m.cache_attach.cache = k->h.id;
		return say(a, &m);
	}
	if (k->made)
		return cache_by_name(a, k);
	return text_fail(a->text, -ENOENT,
			 "this daemon knows no ids, and how the cache is made is not known here");
}

static int again_cache(struct again *a, struct sparq_cache *k)
{
	int r = k->h.lost ? 0 : attach_cache(a, k);

	if (r == 0)
		return 0;
	return is_broken(a, r) ? give_up(a, r)
			       : lose(a, &k->h, "cache", k->made ? k->made->name : NULL);
}

/* ---- sequences --------------------------------------------------------------------- */

static int attach_seq(struct again *a, struct sparq_seq *s)
{
	union message m;
	int r;

	if (a->s->told.features & SPARQ_FEATURE_ADOPT) {
		message_init(&m, SPARQ_MSG_SEQ_ADOPT);
		m.seq.sequence = s->h.id;
		return say(a, &m);
	}
	if (!s->name[0] || !s->in || s->in->lost)
		return text_fail(a->text, -ENOENT, "this daemon knows no ids, and the sequence %s",
				 s->name[0] ? "has no cache" : "has no name");
	message_init(&m, SPARQ_MSG_SEQ_ATTACH);
	m.seq_create.cache = s->in->id;
	memcpy(m.seq_create.name, s->name, sizeof(s->name));
	r = say(a, &m);
	if (r == 0)
		store_relaxed(&s->h.id, m.seq.sequence);
	return r;
}

static int again_seq(struct again *a, struct sparq_seq *s)
{
	const struct timespec look = { 0, BUSY_LOOK_NS };
	int r;

	if (s->h.lost)
		return 0;
	while ((r = attach_seq(a, s)) == -EBUSY && clock_now_ns() < a->busy_until_ns)
		(void)nanosleep(&look, NULL);
	if (r == 0)
		return 0;
	return is_broken(a, r) ? give_up(a, r) : lose(a, &s->h, "sequence", s->name);
}

int again_all(sparq *c, struct session *s, char *why)
{
	struct again a = { .s = s, .busy_until_ns = clock_now_ns() + BUSY_NS, .why = why };
	int r = 0;

	for (struct handle *h = c->caches; h && r == 0; h = h->next)
		r = again_cache(&a, container_of(h, struct sparq_cache, h));
	for (struct handle *h = c->sequences; h && r == 0; h = h->next)
		r = again_seq(&a, container_of(h, struct sparq_seq, h));
	return r;
}
