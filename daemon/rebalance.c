/* SPDX-License-Identifier: Apache-2.0 */
/* When which pages move: see rebalance.h. */
#include "daemon/rebalance.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "daemon/layer.h"
#include "daemon/log.h"
#include "daemon/seq.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define MS 1000000ull
#define LOOK_NS (1000 * MS) /* how often it looks whether there is something to do */
#define SLICE_NS (2 * MS)
#define SLICE_LOOKS 4096u /* pages; and slots, of which most may be free */
#define SLICES_PER_S 500u
#define LEAST_REST_NS (1000 * MS)
#define MOST_REST_NS (64000 * MS)
#define RELIEVED 5u /* points below full */
#define HAS_ROOM 10u

static void on_timer(void *arg);

static struct pool *pool_of(const struct rebalance *r)
{
	return r->mover.store->pool;
}

static void set_timer(struct rebalance *r, uint64_t delay_ns)
{
	loop_timer_set(r->loop, &r->timer, delay_ns, on_timer, r);
}

/* ---- how full they are --------------------------------------------------------------- */

static uint64_t mark(const struct rebalance *r, unsigned node, uint32_t points)
{
	uint32_t percent = r->config->rebalance_full - points;

	return pool_node_bytes(pool_of(r), node) / 100 * percent;
}

static bool is_full(const struct rebalance *r, unsigned node)
{
	return pool_node_taken_bytes(pool_of(r), node) >= mark(r, node, 0);
}

static void look_for_room(struct rebalance *r)
{
	for (unsigned i = 0; i < pool_of(r)->n_nodes; i++)
		r->room[i] = (int64_t)mark(r, i, HAS_ROOM) -
			     (int64_t)pool_node_taken_bytes(pool_of(r), i);
}

static unsigned emptiest(const struct rebalance *r)
{
	unsigned best = 0;

	for (unsigned i = 1; i < pool_of(r)->n_nodes; i++)
		if (r->room[i] > r->room[best])
			best = i;
	return best;
}

static bool has_room(const struct rebalance *r, unsigned node, uint64_t bytes)
{
	const struct pool *p = pool_of(r);

	if (node != POOL_STRIPED)
		return r->room[node] >= (int64_t)bytes;
	for (unsigned i = 0; i < p->n_nodes; i++)
		if (r->room[i] < (int64_t)(bytes / p->n_nodes))
			return false;
	return true;
}

static void use_room(struct rebalance *r, unsigned node, uint64_t bytes)
{
	unsigned n = pool_of(r)->n_nodes;

	for (unsigned i = 0; i < n; i++)
		if (node == POOL_STRIPED || node == i)
			r->room[i] -= (int64_t)(node == POOL_STRIPED ? bytes / n : bytes);
}

/* ---- what goes where ------------------------------------------------------------------- */

static unsigned goal_of_homing(struct rebalance *r, unsigned home, page_ref page, uint64_t bytes)
{
	if (pool_node_of(page) == home)
		return MOVE_STAY;
	r->away++;
	if (!has_room(r, home, bytes))
		return MOVE_STAY;
	/* If it does not come to it, this slice is the more careful. */
	use_room(r, home, bytes);
	return home;
}

static unsigned goal_of_relief(struct rebalance *r, const struct seq *s, page_ref page,
			       uint64_t bytes)
{
	bool attached = load_relaxed(&s->session);

	if (pool_node_of(page) != r->full || attached != r->attached ||
	    (attached && s->cache->spread != SPREAD_LOCAL) || !has_room(r, r->goal, bytes))
		return MOVE_STAY;
	use_room(r, r->goal, bytes);
	return r->goal;
}

static unsigned goal_of(void *arg, const struct seq *s, unsigned home, page_ref page,
			uint64_t bytes)
{
	struct rebalance *r = arg;

	return r->state == REBALANCE_HOMING ? goal_of_homing(r, home, page, bytes)
					    : goal_of_relief(r, s, page, bytes);
}

/* ---- rounds -------------------------------------------------------------------------- */

/* Pages that were not had where they were wanted. */
static uint64_t strays(const struct rebalance *r)
{
	const struct pool *p = pool_of(r);
	uint64_t n = load_relaxed(&p->unstriped);

	for (unsigned i = 0; i < p->n_nodes; i++)
		n += pool_node_strayed(p, i);
	return n;
}

static void begin(struct rebalance *r, enum rebalance_state state)
{
	r->state = state;
	r->slot = 0;
	r->at = (struct move_at){ 0 };
	r->attached = false;
	r->busy = false;
	r->away = 0;
	r->mover.round++;
	r->began_pages = r->mover.moved_pages;
	r->began_refused = r->mover.refused;
}

static bool begin_relief(struct rebalance *r)
{
	const struct pool *p = pool_of(r);
	unsigned goal = emptiest(r);

	for (unsigned i = 0; i < p->n_nodes; i++) {
		if (i == goal || !is_full(r, i) || r->room[goal] <= 0)
			continue;
		r->full = i;
		r->goal = goal;
		r->relief = pool_node_taken_bytes(p, i) - mark(r, i, RELIEVED);
		begin(r, REBALANCE_RELIEVING);
		return true;
	}
	return false;
}

static bool may_come_home(const struct rebalance *r)
{
	for (unsigned i = 0; i < pool_of(r)->n_nodes; i++)
		if (r->room[i] > 0)
			return true;
	return false;
}

static bool has_rested(const struct rebalance *r, enum rebalance_state state, uint64_t now)
{
	return now >= r->rest[state].until_ns;
}

static bool is_pending(const struct rebalance *r)
{
	return !r->known || r->left_away || r->again || strays(r) != r->strays;
}

/* Is there something to do? Then it is begun. */
static void begin_some(struct rebalance *r, uint64_t now)
{
	look_for_room(r);
	if (has_rested(r, REBALANCE_RELIEVING, now) && begin_relief(r))
		return;
	if (!is_pending(r) || !has_rested(r, REBALANCE_HOMING, now) || !may_come_home(r))
		return;
	r->strays = strays(r);
	begin(r, REBALANCE_HOMING);
}

/* "node 1", or the number of an arena of none. */
static const char *name_of(const struct rebalance *r, unsigned node, char ret[24])
{
	bool numbered = r->arena[node].node >= 0;

	snprintf(ret, 24, "%s %d", numbered ? "node" : "part",
		 numbered ? r->arena[node].node : (int)node);
	return ret;
}

static void tell_full(const struct rebalance *r)
{
	const struct pool *p = pool_of(r);
	uint64_t left = pool_node_bytes(p, r->goal) - pool_node_taken_bytes(p, r->goal);
	char full[24], goal[24];

	log_event(EVENT_NODE_FULL, NULL,
		  "the pool's memory on %s is full (%" PRIu64 " MiB), and nothing there can go to "
		  "%s, which has %" PRIu64 " MiB left: rows that come next lie far from where "
		  "they belong (sparq-numa(7))",
		  name_of(r, r->full, full), pool_node_bytes(p, r->full) / MIB,
		  name_of(r, r->goal, goal), left / MIB);
}

/* Once, as long as it stays so. */
static void tell(struct rebalance *r, bool moved)
{
	bool full = r->state == REBALANCE_RELIEVING && is_full(r, r->full);

	if (full && !moved && !r->told)
		tell_full(r);
	if (r->state == REBALANCE_RELIEVING)
		r->told = full && (r->told || !moved);
}

/* What was in vain is done less and less often; so is what had to be undone since: a slab may be
 * larger than what is between the marks of a small node. */
static void rest(struct rebalance *r, enum rebalance_state state, bool in_vain)
{
	struct rebalance_rest *t = &r->rest[state];

	t->ns = in_vain && t->ns ? MIN(2 * t->ns, MOST_REST_NS) : LEAST_REST_NS;
	t->until_ns = (uint64_t)clock_now_ns() + t->ns;
}

static void end_round(struct rebalance *r)
{
	uint64_t pages = r->mover.moved_pages - r->began_pages;

	tell(r, pages > 0);
	if (r->state == REBALANCE_HOMING) {
		r->left_away = r->away - MIN(r->away, pages);
		r->again = r->busy;
		r->known = true;
		rest(r, REBALANCE_HOMING, !pages || r->relieved);
		r->relieved = false;
	} else {
		r->left_away += pages;
		r->relieved |= pages > 0;
		rest(r, REBALANCE_RELIEVING, !pages);
	}
	r->state = REBALANCE_RESTING;
}

/* The next sequence; false: all had their turn. */
static bool next_slot(struct rebalance *r)
{
	r->at = (struct move_at){ 0 };
	if (++r->slot < r->mover.store->max_sequences)
		return true;
	if (r->state != REBALANCE_RELIEVING || r->attached)
		return false;
	r->attached = true;
	r->mover.round++;
	r->slot = 0;
	return true;
}

static bool is_relieved(struct rebalance *r, uint64_t moved)
{
	const struct pool *p = pool_of(r);
	uint64_t taken;

	r->relief -= MIN(moved, r->relief);
	if (r->relief)
		return false;
	/* A slab is free with its last page. */
	taken = pool_node_taken_bytes(p, r->full);
	r->relief = taken - MIN(taken, mark(r, r->full, RELIEVED));
	return r->relief == 0;
}

/* Bytes moved of the sequence whose turn it is; 0: it has had its turn. */
static int64_t work_on(struct rebalance *r, uint32_t *looks)
{
	struct seq *s = load_acquire(&r->mover.store->seq_by_slot[r->slot]);
	int64_t moved;

	--*looks;
	if (!s || !load_relaxed(&s->id) || !s->cache)
		return 0;
	moved = move_next(&r->mover, s, &r->at, looks);
	if (moved != -EBUSY)
		return moved;
	r->busy = true;
	return 0;
}

/* Up to so many bytes, or looks; how many bytes. Ends the round when all had their turn. */
static uint64_t work(struct rebalance *r, uint64_t most)
{
	uint32_t looks = SLICE_LOOKS;
	uint64_t sum = 0;

	while (looks && sum < most) {
		int64_t moved = work_on(r, &looks);

		if (moved > 0)
			sum += (uint64_t)moved;
		if ((moved == 0 && !next_slot(r)) ||
		    (r->state == REBALANCE_RELIEVING && is_relieved(r, MAX(moved, 0)))) {
			end_round(r);
			break;
		}
	}
	return sum;
}

/* ---- time ---------------------------------------------------------------------------- */

/* Until it looks again; 0: nothing is left to do. */
static uint64_t rest_of(const struct rebalance *r, uint64_t now)
{
	const struct rebalance_rest *rest = &r->rest[REBALANCE_HOMING];

	if (r->watched)
		return LOOK_NS;
	return is_pending(r) && r->config->rebalance ? MAX(rest->until_ns, now + LOOK_NS) - now : 0;
}

static void on_timer(void *arg)
{
	struct rebalance *r = arg;
	uint64_t rate = r->config->rebalance_rate, delay = SLICE_NS, moved;

	if (r->mover.n_left)
		move_put_left(&r->mover, SLICE_LOOKS);
	if (!r->config->rebalance)
		r->state = REBALANCE_RESTING;
	else if (r->state == REBALANCE_RESTING)
		begin_some(r, (uint64_t)clock_now_ns());
	if (r->state != REBALANCE_RESTING) {
		look_for_room(r);
		moved = work(r, MAX(rate / SLICES_PER_S, 1u));
		/* As long as the rate says that it takes. */
		delay = MAX(delay, (uint64_t)((double)moved / (double)rate * 1e9));
	}
	if (r->state == REBALANCE_RESTING && !r->mover.n_left)
		delay = rest_of(r, (uint64_t)clock_now_ns());
	if (delay)
		set_timer(r, delay);
}

void rebalance_init(struct rebalance *r, struct loop *loop, struct store *st,
		    const struct arena *arena, const struct config *c)
{
	*r = (struct rebalance){
		.loop = loop,
		.config = c,
		.arena = arena,
		.timer = LOOP_TIMER_NULL,
		.mover = { .store = st, .goal = goal_of, .arg = r },
	};
	/* After a restart nobody knows yet what lies where. */
	r->known = st->caches == NULL;
}

void rebalance_end(struct rebalance *r)
{
	if (r->loop)
		move_end(&r->mover);
	r->loop = NULL;
}

void rebalance_watch(struct rebalance *r, bool sessions)
{
	if (!r->loop || r->watched == sessions || pool_of(r)->n_nodes == 1)
		return;
	r->watched = sessions;
	if (sessions && !r->timer.at_ns)
		set_timer(r, r->known ? LOOK_NS : SLICE_NS);
}

bool rebalance_away(const struct rebalance *r, uint64_t *ret)
{
	if (!r->loop || !r->known)
		return false;
	*ret = r->left_away;
	return true;
}
