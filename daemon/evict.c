/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing sequences, and letting them go: see evict.h. */
#include "daemon/evict.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "daemon/census.h"
#include "daemon/point.h"
#include "daemon/record.h"
#include "daemon/room.h"
#include "daemon/session.h"
#include "daemon/spill.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/probe.h"

/* A control loop that evicted more at once would keep its clients waiting. */
#define EVICT_AT_ONCE 32u

/* Until `counter` is at most `most`. */
struct goal {
	struct user *user;
	struct cache *cache; /* NULL: all of the user's */
	enum evict_policy order;
	enum limit limit; /* NONE: ahead */
	bool spills;      /* may wait for a file to be written */
	const uint64_t *counter;
	uint64_t most;
};

static struct sequence_record *record_of(const struct seq *s)
{
	return s->record;
}

/* ---- marks of a sequence ------------------------------------------------------------ */

/* One store: recovery finds it as it was or as it is. */
static void set_flag(struct seq *s, uint32_t flag, bool on)
{
	uint32_t flags = load_relaxed(&record_of(s)->flags) & ~flag;

	store_relaxed(&record_of(s)->flags, on ? flags | flag : flags);
}

static void stamp(struct seq *s)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	store_relaxed(&record_of(s)->used_s, (uint64_t)now.tv_sec);
}

void evict_touch(struct seq *s)
{
	uint32_t uses = load_relaxed(&record_of(s)->uses);

	evict_displace(s);
	store_relaxed(&record_of(s)->uses, uses + (uses < UINT32_MAX));
	if (load_relaxed(&s->session))
		set_flag(s, SEQUENCE_IN_USE, true);
	stamp(s);
	s->use = ++s->cache->store->uses;
	evict_place(s);
}

void evict_allow(struct cache *c)
{
	/* Orders nothing: a worker that sees it late fails as it would have a moment before. */
	store_relaxed(&c->pressure.may_evict, 1);
	store_relaxed(&c->user->pressure.may_evict, 1);
}

void evict_offer(struct seq *s)
{
	evict_displace(s);
	set_flag(s, SEQUENCE_IN_USE, false);
	stamp(s); /* it was in use until now; of those that one session leaves, the order stays */
	evict_place(s);
	evict_allow(s->cache);
}

bool evict_is_pinned(const struct seq *s)
{
	return load_relaxed(&record_of(s)->flags) & SEQUENCE_PINNED;
}

void evict_pin(struct seq *s, bool pinned)
{
	census_pin(s, pinned);
	set_flag(s, SEQUENCE_PINNED, pinned);
	evict_place(s);
}

/* ---- choosing ----------------------------------------------------------------------- */

static bool may_drop(const struct seq *s)
{
	uint32_t flags = load_relaxed(&record_of(s)->flags);

	return flags & SEQUENCE_PREFIX || s->cache->evict != EVICT_NONE;
}

/* A prefix is there to be shared, and what nobody wants parked is about to go. */
static bool may_spill(const struct seq *s)
{
	uint32_t flags = load_relaxed(&record_of(s)->flags);

	return s->cache->store->spill && !(flags & SEQUENCE_PREFIX) &&
	       s->cache->on_disconnect == ON_DISCONNECT_PARK;
}

static bool is_of_memory(enum limit limit)
{
	return limit == LIMIT_NONE || limit == LIMIT_BUDGET || limit == LIMIT_QUOTA ||
	       limit == LIMIT_POOL;
}

/* Of a kind all may, or none; whose cache that is. */
static bool may_go(const struct goal *g, const struct cache *c, enum evict_kind kind)
{
	bool drops = kind == KIND_PREFIX || c->evict != EVICT_NONE;
	bool spills = g->spills && kind == KIND_HERE && c->store->spill &&
		      c->on_disconnect == ON_DISCONNECT_PARK;

	/* What is in a file already has no memory to give. */
	if (kind == KIND_SPILLED && is_of_memory(g->limit))
		return false;
	return drops || spills;
}

static struct seq *earlier(enum evict_by by, struct seq *a, struct seq *b)
{
	return !a || (b && evict_goes_before(by, b, a)) ? b : a;
}

/* NULL: nobody may. */
static struct seq *choose(const struct store *st, const struct goal *g)
{
	enum evict_by by = g->order == EVICT_LFU ? BY_LFU : BY_LRU;
	struct seq *s = NULL;

	for (const struct cache *c = st->caches; c; c = c->next) {
		if (g->cache ? c != g->cache : c->user != g->user)
			continue;
		for (unsigned kind = 0; kind < EVICT_KINDS; kind++)
			if (may_go(g, c, kind))
				s = earlier(by, s, evict_first(c, kind, by));
	}
	return s;
}

/* ---- letting go --------------------------------------------------------------------- */

static void say(struct evictor *e, const struct goal *g, const struct cache *c, uint64_t id,
		const char *name, uint64_t bytes)
{
	if (!log_limited(&e->log))
		log_event(EVENT_EVICTED,
			  ABOUT(.uid = &c->user->uid, .sequence = id, .cache = c->record->name),
			  "evicted sequence \"%s\" of cache \"%s\", uid %u: %" PRIu64
			  " bytes; room for: %s",
			  name, c->record->name, c->user->uid, bytes,
			  g->limit == LIMIT_NONE ? "what comes" : limit_names[g->limit]);
}

/* False: a worker that looked for what its slot held before is about to find another id. */
static bool evict_one(struct evictor *e, const struct goal *g, struct seq *s)
{
	struct cache *c = s->cache;
	uint64_t before = load_relaxed(&c->charged_bytes), id = s->id, bytes;
	char why[SPARQ_ERROR_TEXT], name[sizeof(record_of(s)->name)];

	memcpy(name, record_of(s)->name, sizeof(name));
	c->n_sessions++; /* it may be the last that its cache has */
	POINT(evict_chosen);
	if (seq_drop(s, why) < 0) {
		cache_unref(c);
		return false;
	}
	POINT(evict_dropped);
	bytes = before - MIN(load_relaxed(&c->charged_bytes), before);
	c->evicted_sequences++;
	c->evicted_bytes += bytes;
	g->user->evicted_sequences++;
	g->user->evicted_bytes += bytes;
	e->sum[g->limit].sequences++;
	e->sum[g->limit].bytes += bytes;
	PROBE3(evict, id, c->user->uid, bytes);
	say(e, g, c, id, name, bytes);
	cache_unref(c);
	return true;
}

/* The one place where it is decided what becomes of a sequence that is to go. */
static enum evicted let_go(struct evictor *e, const struct goal *g, struct seq *s)
{
	int r = -EOPNOTSUPP;

	if (g->spills && may_spill(s))
		r = spill_sequence(e->store->spill, s);
	if (r == 0 || r == -EAGAIN)
		return EVICTED_LATER;
	if (r == -EBUSY)
		return EVICTED_SOME;
	/* There is no directory, or no room in it, or it has just failed. */
	if (!may_drop(s))
		return EVICTED_NOTHING;
	evict_one(e, g, s);
	return EVICTED_SOME;
}

static bool is_reached(const struct goal *g, uint64_t leaving)
{
	uint64_t now = load_relaxed(g->counter);

	return now - MIN(leaving, now) <= g->most;
}

/* As many as it takes; those that stay after all are put aside until it is over. */
static enum evicted let_some_go(struct evictor *e, const struct goal *g, uint64_t *leaving,
				bool *ret_enough)
{
	struct seq *s, *aside[EVICT_AT_ONCE];
	enum evicted got = EVICTED_NOTHING;
	unsigned n_aside = 0, n = 0;

	while (n < EVICT_AT_ONCE && !is_reached(g, *leaving) && (s = choose(e->store, g))) {
		uint64_t bytes = load_relaxed(&s->bytes);
		enum evicted one = let_go(e, g, s);

		*leaving += one == EVICTED_LATER ? bytes : 0;
		got = one == EVICTED_SOME ? one : got;
		n++;
		if (!evict_is_placed(s))
			continue;
		evict_displace(s);
		aside[n_aside++] = s;
	}
	while (n_aside)
		evict_place(aside[--n_aside]);
	*ret_enough = is_reached(g, *leaving) && n < EVICT_AT_ONCE && choose(e->store, g);
	return got;
}

static enum evicted reach(struct evictor *e, const struct goal *g)
{
	struct pressure *p = g->cache ? &g->cache->pressure : &g->user->pressure;
	uint64_t leaving;
	enum evicted got;
	bool enough;

	if (is_reached(g, 0))
		return EVICTED_SOME;
	leaving = g->spills ? spill_leaving(e->store->spill, g->user, g->cache) : 0;
	got = let_some_go(e, g, &leaving, &enough);
	if (got == EVICTED_NOTHING && leaving)
		return EVICTED_LATER;
	/* A worker gave back what it had taken, and those who could go stayed. */
	if (got == EVICTED_NOTHING && enough)
		return EVICTED_SOME;
	if (got == EVICTED_NOTHING)
		store_relaxed(&p->may_evict, 0);
	return got;
}

/* ---- for want of room --------------------------------------------------------------- */

static bool set_limit(struct goal *g, const uint64_t *charged, uint64_t limit, uint64_t bytes)
{
	g->counter = charged;
	g->most = limit - MIN(bytes, limit);
	return bytes <= limit; /* more than the limit never fits, whoever goes */
}

/* False: nothing helps. */
static bool find_goal(const struct store *st, const struct shortage *s, struct goal *g)
{
	struct user *u = g->user;

	switch (s->limit) {
	case LIMIT_NONE:
		return false;
	case LIMIT_BUDGET:
		return g->cache &&
		       set_limit(g, &g->cache->charged_bytes, g->cache->budget_bytes, s->bytes);
	case LIMIT_QUOTA:
		return set_limit(g, &u->charged[USER_BYTES], load_relaxed(&u->limit[USER_BYTES]),
				 s->bytes);
	case LIMIT_POOL:
		return set_limit(g, &st->pool->used_bytes, load_relaxed(&st->pool->used_bytes),
				 s->bytes);
	default:
		/* One fewer than there are. */
		return set_limit(g, &u->charged[USER_SEQUENCES],
				 load_relaxed(&u->charged[USER_SEQUENCES]), 1);
	}
}

static enum evicted make_room(struct evictor *e, struct user *u, struct cache *c,
			      const struct shortage *s, bool spills)
{
	struct goal g = { .user = u,
			  .cache = c,
			  .order = c ? c->evict : EVICT_LRU,
			  .limit = s->limit,
			  .spills = spills && is_of_memory(s->limit) };

	if (!find_goal(e->store, s, &g))
		return EVICTED_NOTHING;
	if (s->limit != LIMIT_BUDGET)
		g.cache = NULL;
	return reach(e, &g);
}

static enum evicted make_room_held(struct evictor *e, struct user *u, const struct shortage *s,
				   bool spills)
{
	struct cache *c = cache_find(e->store, u, s->cache);
	enum evicted got;

	/* Neither goes with the last of what it has. */
	u->refs++;
	if (c)
		c->n_sessions++;
	got = make_room(e, u, c, s, spills);
	if (c)
		cache_unref(c);
	users_put(e->store->users, u);
	return got;
}

bool evict_for(struct evictor *e, struct user *u, const struct shortage *s)
{
	return make_room_held(e, u, s, false) == EVICTED_SOME;
}

bool evict_again(struct evictor *e, struct user *u)
{
	struct shortage s = e->store->shortage;

	e->store->shortage = SHORTAGE_NONE;
	return evict_for(e, u, &s);
}

enum evicted evict_or_spill_for(struct evictor *e, struct user *u, const struct shortage *s)
{
	return make_room_held(e, u, s, true);
}

enum evicted evict_or_spill(struct evictor *e, struct user *u)
{
	struct shortage s = e->store->shortage;

	e->store->shortage = SHORTAGE_NONE;
	return evict_or_spill_for(e, u, &s);
}

/* False: later. */
static bool answer_queue(struct evictor *e, struct session *s, struct room *r)
{
	enum evicted got = EVICTED_NOTHING;

	if (!load_relaxed(&s->ending))
		got = evict_or_spill_for(e, s->user, &r->wanted);
	if (got == EVICTED_LATER)
		return false;
	/* What was given back is there before the worker tries again. */
	store_release(&r->answer, got == EVICTED_SOME ? ROOM_MADE : ROOM_NOTHING);
	return true;
}

bool evict_answer(struct evictor *e, struct session *s)
{
	bool answered = false;

	/* Acquires what was wanted by whoever raised it; who raises it from here on calls again. */
	if (!load_relaxed(&s->room_asked) || !exchange(&s->room_asked, 0))
		return false;
	for (uint32_t i = 0; i < s->n_queues; i++) {
		struct room *r = &s->queue[i].room;

		if (load_acquire(&r->answer) != ROOM_ASKED)
			continue;
		if (answer_queue(e, s, r))
			answered = true;
		else
			store_relaxed(&s->room_asked, 1);
	}
	return answered;
}

/* ---- ahead of need ------------------------------------------------------------------ */

void evict_call(const struct evictor *e)
{
	uint64_t one = 1;

	if (write(e->store->room_fd, &one, sizeof(one)) < 0)
		return; /* full: it is readable */
}

/* Lowers the flag and does a part of the work; if more is left the flag goes up again. */
static void ease(struct evictor *e, struct goal *g, struct pressure *p)
{
	if (reach(e, g) == EVICTED_SOME && !is_reached(g, 0) && !exchange(&p->high, 1))
		evict_call(e);
}

static void ease_cache(struct evictor *e, struct cache *c)
{
	struct goal g = { .user = c->user, .cache = c, .order = c->evict, .spills = true };

	if (!load_relaxed(&c->pressure.high) || !exchange(&c->pressure.high, 0))
		return;
	set_limit(&g, &c->charged_bytes, room_mark(c->budget_bytes), 0);
	ease(e, &g, &c->pressure);
}

static void ease_user(struct evictor *e, struct user *u)
{
	const struct pool *pool = e->store->pool;
	struct goal g = { .user = u, .order = EVICT_LRU, .spills = true };

	if (!load_relaxed(&u->pressure.high) || !exchange(&u->pressure.high, 0))
		return;
	u->refs++;
	set_limit(&g, &u->charged[USER_BYTES], room_mark(load_relaxed(&u->limit[USER_BYTES])), 0);
	ease(e, &g, &u->pressure);
	set_limit(&g, &pool->used_bytes, room_mark(pool->bytes), 0);
	ease(e, &g, &u->pressure);
	users_put(e->store->users, u);
}

void evict_ahead(struct evictor *e)
{
	struct cache *c, *next_cache;
	struct user *u, *next_user;
	for (c = e->store->caches; c; c = next_cache) {
		c->n_sessions++;
		ease_cache(e, c);
		next_cache = c->next;
		cache_unref(c);
	}
	for (u = e->store->users->first; u; u = next_user) {
		u->refs++;
		ease_user(e, u);
		next_user = u->next;
		users_put(e->store->users, u);
	}
}

/* ---- beginning and end -------------------------------------------------------------- */

int evict_init(struct evictor *e, struct store *st)
{
	*e = (struct evictor){ .store = st };
	st->room_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (st->room_fd < 0)
		return -errno;
	return 0;
}

void evict_deinit(struct evictor *e)
{
	if (e->store)
		close_fd(&e->store->room_fd);
	e->store = NULL;
}
