/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for room, and asking for it in time: see room.h. */
#include "daemon/room.h"

#include <unistd.h>

#include "daemon/seq.h"
#include "daemon/session.h"
#include "shm/atomic.h"
#include "shm/clock.h"

/* The control thread sleeps in its loop: this is its wake. A counter that is full wakes as well. */
static void call_control(const struct store *st)
{
	uint64_t one = 1;

	if (write(st->room_fd, &one, sizeof(one)) < 0)
		return;
}

/* ---- waiting ------------------------------------------------------------------------ */

static bool is_hopeless(const struct seq *s)
{
	const struct cache *c = s->cache;
	const struct pressure *p =
		s->shortage.limit == LIMIT_BUDGET ? &c->pressure : &c->user->pressure;

	return s->shortage.limit == LIMIT_NONE || !load_relaxed(&p->may_evict);
}

static void ask(struct store *st, struct queue *q, const struct shortage *wanted)
{
	q->room.wanted = *wanted;
	/* What is wanted is there before the control thread sees that something is. */
	store_release(&q->room.answer, ROOM_ASKED);
	if (exchange(&q->session->room_asked, 1) == 0)
		call_control(st);
}

bool room_wait(struct store *st, struct queue *q, const struct sparq_sqe *e, uint64_t deadline_ns,
	       const struct seq *s)
{
	struct room *r = &q->room;

	if (st->room_fd < 0 || r->last || is_hopeless(s))
		return false;
	/* An answer may be under way that an entry before this one did not live to see. */
	r->asked = load_acquire(&r->answer) == ROOM_NONE;
	if (r->asked)
		ask(st, q, &s->shortage);
	if (e != &r->entry)
		r->entry = *e;
	r->deadline_ns = deadline_ns;
	r->waits = true;
	return true;
}

bool room_is_due(struct queue *q)
{
	struct room *r = &q->room;
	uint32_t answer = load_acquire(&r->answer);

	if (answer == ROOM_MADE || answer == ROOM_NOTHING) {
		r->last = answer == ROOM_NOTHING && r->asked;
		store_relaxed(&r->answer, ROOM_NONE);
		return true;
	}
	/* Found by a test: an answer was taken, and the entry did not come to its end. */
	if (answer == ROOM_NONE)
		return true;
	r->last = r->deadline_ns && (uint64_t)clock_now_ns() > r->deadline_ns;
	return r->last;
}

void room_done(struct queue *q)
{
	q->room.waits = false;
	q->room.asked = false;
	q->room.last = false;
}

/* ---- marks -------------------------------------------------------------------------- */

static bool is_high(const uint64_t *charged, uint64_t limit)
{
	return load_relaxed(charged) > room_mark(limit);
}

/* Once for each time that the mark is passed: the control thread lowers the flag. */
static void tell(const struct store *st, struct pressure *p)
{
	if (load_relaxed(&p->may_evict) && !load_relaxed(&p->high) && !exchange(&p->high, 1))
		call_control(st);
}

void room_watch(const struct seq *s)
{
	struct cache *c = s->cache;
	const struct store *st = c->store;
	struct user *u = c->user;

	if (st->room_fd < 0)
		return;
	if (c->budget_bytes && is_high(&c->charged_bytes, c->budget_bytes))
		tell(st, &c->pressure);
	if (is_high(&u->charged[USER_BYTES], load_relaxed(&u->limit[USER_BYTES])) ||
	    is_high(&st->pool->used_bytes, st->pool->bytes))
		tell(st, &u->pressure);
}
