/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds over the pool's pages: see patrol.h. */
#include "daemon/patrol.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/log.h"
#include "shm/base.h"
#include "shm/clock.h"

#define MS 1000000ull
#define SLICE_NS (250 * MS)
#define HURRIED_NS MS
#define REST_NS (60000 * MS)
/* Copied at once, while workers that want one of these pages wait. */
#define REPAIR_BYTES (16 * MIB)

static void on_timer(void *arg);

static bool is_resting(const struct patrol *p)
{
	return p->node == 0 && p->page == 0 && !p->hurried;
}

/* While it rests, or nobody makes a step, it looks once a second whether that is over. */
static void set_timer(struct patrol *p, bool idle)
{
	uint64_t delay = p->hurried ? HURRIED_NS : idle ? 1000 * MS : SLICE_NS;

	if (p->hurried || p->watched)
		loop_timer_set(p->loop, &p->timer, delay, on_timer, p);
}

static void tell(struct patrol *p)
{
	uint64_t misplaced = placement_misplaced(p->placement);

	if (misplaced && !p->told)
		log_warning("%" PRIu64
			    " pages of the pool are not on their NUMA node: somebody has "
			    "moved them; `sparqctl numa --repair` brings them back "
			    "(sparq-numa(7))",
			    misplaced);
	if (!misplaced && p->told)
		log_notice("all pages of the pool are on their NUMA nodes again");
	p->told = misplaced > 0;
}

static void end_round(struct patrol *p)
{
	p->node = 0;
	p->hurried = p->repairs = false;
	p->rounds++;
	p->ended_ns = clock_now_ns();
	p->rest_ns = p->ended_ns + REST_NS;
	tell(p);
}

static void end_arena(struct patrol *p)
{
	p->placement->arena[p->node].misplaced_pages = p->found;
	p->found = p->page = 0;
	if (++p->node == p->placement->n)
		end_round(p);
}

static unsigned slice_pages(const struct patrol *p, const struct arena *a)
{
	size_t left = a->bytes / a->page_bytes - p->page;
	size_t most = p->repairs ? MAX(REPAIR_BYTES / a->page_bytes, 1u) : ARENA_SLICE_PAGES;

	return (unsigned)MIN(left, MIN(most, (size_t)ARENA_SLICE_PAGES));
}

/* A node that has gone, or that this process may not use any more, does not end the round. */
static void bring_back(struct patrol *p, const struct arena *a, unsigned n)
{
	int r = arena_bring_back(a, p->page, n);

	if (r == 0)
		return;
	log_warning("pages cannot be brought back to node %d: %s", a->node, strerror(-r));
	p->repairs = false;
}

static void look(struct patrol *p)
{
	struct arena *a = &p->placement->arena[p->node];
	unsigned n = slice_pages(p, a);
	size_t misplaced = 0;
	int r;

	if (p->repairs)
		bring_back(p, a, n);
	r = arena_verify_slice(a, p->page, n, &misplaced);
	if (r < 0) { /* of our own memory: a filter of system calls, perhaps */
		log_warning("cannot ask where the pages of node %d are: %s", a->node, strerror(-r));
		p->page = p->found = 0;
		p->node = 0;
		p->hurried = p->repairs = p->watched = false;
		p->broken = true;
		return;
	}
	p->found += misplaced;
	/* At once: nobody should have to wait for the end of a round to hear of it. */
	a->misplaced_pages = MAX(a->misplaced_pages, p->found);
	p->page += n;
	if (p->page == a->bytes / a->page_bytes)
		end_arena(p);
}

static void on_timer(void *arg)
{
	struct patrol *p = arg;
	uint64_t steps = p->steps(p->arg);
	bool idle = !p->hurried &&
		    (steps == p->seen || (is_resting(p) && (uint64_t)clock_now_ns() < p->rest_ns));

	p->seen = steps;
	if (!idle)
		look(p);
	set_timer(p, idle);
}

void patrol_init(struct patrol *p, struct loop *loop, struct placement *placement,
		 uint64_t (*steps)(void *arg), void *arg)
{
	*p = (struct patrol){
		.loop = loop,
		.placement = placement,
		.steps = steps,
		.arg = arg,
		.timer = LOOP_TIMER_NULL,
		.ended_ns = clock_now_ns(), /* the arenas were verified when they were made */
	};
	p->rest_ns = p->ended_ns + REST_NS;
	p->told = placement_misplaced(placement) > 0; /* by the start */
}

void patrol_watch(struct patrol *p, bool sessions)
{
	if (p->watched == sessions || !p->loop || p->broken)
		return;
	p->watched = sessions;
	if (sessions && !p->hurried)
		set_timer(p, true);
}

void patrol_ask(struct patrol *p, bool repair)
{
	p->node = 0;
	p->page = p->found = 0;
	p->hurried = true;
	p->broken = false;
	p->repairs |= repair;
	set_timer(p, false);
}

bool patrol_is_hurried(const struct patrol *p)
{
	return p->hurried;
}
