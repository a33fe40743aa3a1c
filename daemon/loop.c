/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the control loop that its back ends share: slots, timers, dispatch. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "daemon/loop-backend.h"
#include "daemon/loop.h"
#include "shm/base.h"
#include "shm/clock.h"

#define NO_SLOT UINT32_MAX

struct slot {
	struct loop_source *source; /* NULL: free */
	uint32_t generation;        /* moves with every disarm */
	uint32_t next_free;
};

struct loop {
	const struct loop_backend *backend;
	void *state;
	struct slot *slot;
	uint32_t n_slots, first_free;
	struct loop_timer *timers; /* by time */
	int fallback, value;
	bool stopped;
};

int loop_new(enum loop_kind kind, struct loop **ret)
{
	FREE_MEMORY struct loop *l = calloc(1, sizeof(*l));
	int r;

	if (l == NULL)
		return -ENOMEM;
	l->first_free = NO_SLOT;
	l->backend = kind == LOOP_EPOLL ? &loop_epoll : &loop_uring;
	r = l->backend->open(&l->state);
	if (r < 0 && kind == LOOP_BEST) {
		l->fallback = r;
		l->backend = &loop_epoll;
		r = l->backend->open(&l->state);
	}
	if (r < 0)
		return r;
	*ret = STEAL_PTR(l);
	return 0;
}

struct loop *loop_free(struct loop *l)
{
	if (l == NULL)
		return NULL;
	l->backend->close(l->state);
	free(l->slot);
	free(l);
	return NULL;
}

const char *loop_name(const struct loop *l)
{
	return l->backend->name;
}

int loop_fallback(const struct loop *l)
{
	return l->fallback;
}

/* ---- sources ------------------------------------------------------------- */

static uint64_t token_of(const struct loop *l, uint32_t slot)
{
	return slot | (uint64_t)l->slot[slot].generation << 32;
}

static struct loop_source *source_of(const struct loop *l, uint64_t token)
{
	uint32_t slot = (uint32_t)token;

	return slot < l->n_slots && token_of(l, slot) == token ? l->slot[slot].source : NULL;
}

static int grow(struct loop *l)
{
	uint32_t n = MAX(2 * l->n_slots, 32u);
	struct slot *slot = realloc(l->slot, n * sizeof(*slot));

	if (slot == NULL)
		return -ENOMEM;
	for (uint32_t i = n; i-- > l->n_slots;) {
		slot[i] = (struct slot){ .next_free = l->first_free };
		l->first_free = i;
	}
	l->slot = slot;
	l->n_slots = n;
	return 0;
}

int loop_add(struct loop *l, struct loop_source *s, int fd, uint32_t events, loop_fn *fn, void *arg)
{
	uint32_t slot;
	int r;

	assert(fd >= 0);
	r = l->first_free == NO_SLOT ? grow(l) : 0;
	if (r < 0)
		return r;
	slot = l->first_free;
	r = l->backend->arm(l->state, fd, events, token_of(l, slot));
	if (r < 0)
		return r;
	l->first_free = l->slot[slot].next_free;
	l->slot[slot].source = s;
	*s = (struct loop_source){ .fd = fd, .events = events, .slot = slot, .fn = fn, .arg = arg };
	return 0;
}

static void disarm(struct loop *l, struct loop_source *s)
{
	assert(l->slot[s->slot].source == s);
	l->backend->disarm(l->state, s->fd, token_of(l, s->slot));
	l->slot[s->slot].generation++;
}

int loop_change(struct loop *l, struct loop_source *s, uint32_t events)
{
	if (s->events == events)
		return 0;
	disarm(l, s);
	s->events = events;
	return l->backend->arm(l->state, s->fd, events, token_of(l, s->slot));
}

void loop_remove(struct loop *l, struct loop_source *s)
{
	int saved = errno;

	if (s->fd < 0)
		return;
	disarm(l, s);
	l->slot[s->slot].source = NULL;
	l->slot[s->slot].next_free = l->first_free;
	l->first_free = s->slot;
	*s = LOOP_SOURCE_NULL;
	errno = saved;
}

/* ---- timers -------------------------------------------------------------- */

void loop_timer_cancel(struct loop *l, struct loop_timer *t)
{
	if (t->at_ns == 0)
		return;
	for (struct loop_timer **p = &l->timers; *p != NULL; p = &(*p)->next) {
		if (*p == t) {
			*p = t->next;
			break;
		}
	}
	*t = LOOP_TIMER_NULL;
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t delay_ns, loop_timer_fn *fn,
		    void *arg)
{
	struct loop_timer **p = &l->timers;

	loop_timer_cancel(l, t);
	*t = (struct loop_timer){ .at_ns = clock_now_ns() + delay_ns, .fn = fn, .arg = arg };
	while (*p != NULL && (*p)->at_ns <= t->at_ns)
		p = &(*p)->next;
	t->next = *p;
	*p = t;
}

/* Timers that are due now; one that sets itself again with no delay waits for the next step. */
static void run_timers(struct loop *l)
{
	uint64_t now = clock_now_ns();

	while (l->timers != NULL && l->timers->at_ns <= now) {
		struct loop_timer *t = l->timers;
		loop_timer_fn *fn = t->fn;
		void *arg = t->arg;

		l->timers = t->next;
		*t = LOOP_TIMER_NULL;
		fn(arg);
	}
}

static int64_t until_timer(const struct loop *l, int64_t timeout_ns)
{
	uint64_t now, left;

	if (l->timers == NULL)
		return timeout_ns;
	now = clock_now_ns();
	left = l->timers->at_ns > now ? l->timers->at_ns - now : 0;
	return timeout_ns < 0 || left < (uint64_t)timeout_ns ? (int64_t)left : timeout_ns;
}

/* ---- running ------------------------------------------------------------- */

static int dispatch(struct loop *l, const struct loop_event *e)
{
	struct loop_source *s = source_of(l, e->token);

	if (s == NULL)
		return 0; /* removed or changed since the event was fetched */
	s->fn(s->arg, e->events);
	/* The callback may have removed it, and another may stand in its slot: ask again. Arming
	 * after the callback is what makes one-shot polls level-triggered. */
	s = source_of(l, e->token);
	if (s == NULL || !l->backend->one_shot)
		return 0;
	return l->backend->arm(l->state, s->fd, s->events, e->token);
}

int loop_step(struct loop *l, int64_t timeout_ns)
{
	struct loop_event event[LOOP_BATCH];
	int n, r;

	n = l->backend->wait(l->state, until_timer(l, timeout_ns), event);
	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		r = dispatch(l, &event[i]);
		if (r < 0)
			return r;
	}
	run_timers(l);
	return 0;
}

int loop_run(struct loop *l)
{
	l->stopped = false;
	while (!l->stopped) {
		int r = loop_step(l, -1);

		if (r < 0)
			return r;
	}
	return l->value;
}

void loop_stop(struct loop *l, int value)
{
	l->stopped = true;
	l->value = value;
}
