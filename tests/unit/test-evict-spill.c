/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room where there is a spill directory: what is parked goes into a file rather than away, and
 * who waits for the room is answered when it is there. Whoever never asked for eviction relies on
 * losing nothing.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/census.h"
#include "daemon/evict.h"
#include "daemon/session.h"
#include "shm/atomic.h"
#include "spill-world.h"

struct fixture {
	void *world;
	struct evictor e;
};

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	struct world *w;

	assert_int_equal(world_set_up(&x->world), 0);
	w = x->world;
	assert_int_equal(evict_init(&x->e, &w->f.store), 0);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;
	struct world *w = x->world;

	world_settle(w);
	while (w->cache->first)
		world_drop(w->cache->first);
	evict_deinit(&x->e);
	world_tear_down(&x->world);
	free(x);
	return 0;
}

static enum evicted lack(struct fixture *x, enum limit limit, uint64_t bytes)
{
	struct world *w = x->world;

	w->f.store.shortage = (struct shortage){ limit, w->cache->id, bytes };
	return evict_or_spill(&x->e, w->f.user);
}

static bool lack_now(struct fixture *x, enum limit limit, uint64_t bytes)
{
	struct world *w = x->world;
	struct shortage s = { limit, w->cache->id, bytes };

	return evict_for(&x->e, w->f.user, &s);
}

static void fill(struct world *w, const char *name, uint32_t rows)
{
	world_fill(w, name, rows, 1);
	model_deinit(&w->model);
}

/* A cache that never evicts: nothing is lost, and it is there again when it is wanted. */
static void spilled_not_dropped(void **state)
{
	struct fixture *x = *state;
	struct world *w = x->world;
	struct seq *s = world_fill(w, "old", 1200, 1);
	struct model old = w->model;

	fill(w, "new", 600);
	w->cache->budget_bytes = w->cache->charged_bytes;
	assert_false(lack_now(x, LIMIT_BUDGET, 4096));
	assert_int_equal(lack(x, LIMIT_BUDGET, 4096), EVICTED_LATER);
	assert_non_null(s->spilling);
	/* That is enough: nobody else is sent after it. */
	assert_int_equal(lack(x, LIMIT_BUDGET, 4096), EVICTED_LATER);
	assert_int_equal(spill_stat(w->spill).out, 1);
	world_settle(w);
	assert_true(seq_is_spilled(s));
	assert_true(seq_is_here(world_named(w, "new")));
	assert_int_equal(lack(x, LIMIT_BUDGET, 4096), EVICTED_SOME);
	assert_int_equal(x->e.sum[LIMIT_BUDGET].sequences, 0);
	w->cache->budget_bytes = 0;
	world_load(w, s);
	world_check(&old);
	model_deinit(&old);
}

/* What lies in a file has no memory to give, but a place among the user's sequences. */
static void of_what_is_spilled(void **state)
{
	struct fixture *x = *state;
	struct world *w = x->world;

	fill(w, "spilled", 300);
	world_spill(w, world_named(w, "spilled"));
	w->cache->evict = EVICT_LRU;
	w->f.user->limit[USER_BYTES] = w->f.user->charged[USER_BYTES];
	assert_int_equal(lack(x, LIMIT_QUOTA, 1), EVICTED_NOTHING);
	assert_false(lack_now(x, LIMIT_QUOTA, 1));
	assert_int_equal(w->cache->n_sequences, 1);
	assert_int_equal(lack(x, LIMIT_SEQUENCES, 0), EVICTED_SOME);
	assert_int_equal(w->cache->n_sequences, 0);
	w->f.user->limit[USER_BYTES] = UINT64_MAX;
}

/* No room on the disk either: then it is as if there were none. */
static void disk_full(void **state)
{
	struct fixture *x = *state;
	struct world *w = x->world;

	fill(w, "a", 300);
	fill(w, "b", 300);
	w->config.spill_bytes = 1;
	w->cache->budget_bytes = w->cache->charged_bytes;
	assert_int_equal(lack(x, LIMIT_BUDGET, 4096), EVICTED_NOTHING);
	assert_int_equal(w->cache->n_sequences, 2);
	w->cache->evict = EVICT_LRU;
	assert_int_equal(lack(x, LIMIT_BUDGET, 4096), EVICTED_SOME);
	assert_null(world_named(w, "a"));
	assert_int_equal(x->e.sum[LIMIT_BUDGET].sequences, 1);
}

/* A ring that waits goes on waiting until the file is written. */
static void ring_waits(void **state)
{
	struct fixture *x = *state;
	struct world *w = x->world;
	struct session *session = calloc(1, sizeof(*session));
	struct room *room = &session->queue[0].room;

	fill(w, "a", 1200);
	session->user = w->f.user;
	session->n_queues = 1;
	w->cache->budget_bytes = w->cache->charged_bytes;
	room->wanted = (struct shortage){ LIMIT_BUDGET, w->cache->id, 4096 };
	room->answer = ROOM_ASKED;
	session->room_asked = 1;
	for (unsigned i = 0; i < 3; i++) {
		assert_false(evict_answer(&x->e, session));
		assert_int_equal(room->answer, ROOM_ASKED);
		assert_int_equal(session->room_asked, 1);
	}
	world_settle(w);
	assert_true(evict_answer(&x->e, session));
	assert_int_equal(room->answer, ROOM_MADE);
	assert_int_equal(session->room_asked, 0);
	free(session);
}

/* Wanted back before it was gone: somebody else goes, or nobody. */
static void wanted_back(void **state)
{
	struct fixture *x = *state;
	struct world *w = x->world;
	struct client c;

	fill(w, "a", 3000);
	w->cache->budget_bytes = w->cache->charged_bytes;
	assert_int_equal(lack(x, LIMIT_BUDGET, 4096), EVICTED_LATER);
	client_await(w, world_named(w, "a"), &c);
	world_settle(w);
	assert_int_equal(c.calls, 1);
	world_take(w, world_named(w, "a"));
	assert_int_equal(lack(x, LIMIT_BUDGET, 4096), EVICTED_NOTHING);
	w->cache->budget_bytes = 0;
}

static enum evicted make_room(void *arg, struct user *u, const struct shortage *s)
{
	struct fixture *x = arg;

	return evict_or_spill_for(&x->e, u, s);
}

/* More conversations than memory: each that is taken up sends the one used the longest time ago. */
static void takes_turns(void **state)
{
	struct fixture *x = *state;
	struct world *w = x->world;
	const struct spill_hooks hooks = { .make_room = make_room, .arg = x };
	struct model m[3];
	struct client c;
	char name[2] = "a";

	spill_hook(w->spill, &hooks);
	for (unsigned i = 0; i < 3; i++) {
		name[0] = (char)('a' + i);
		world_fill(w, name, 1200, 1 + 100000 * i);
		m[i] = w->model;
		if (i == 0)
			world_spill(w, m[0].seq);
	}
	/* Two fit, and a little. */
	w->cache->budget_bytes = w->cache->charged_bytes + 100000;
	for (unsigned i = 0; i < 9; i++) {
		assert_true(seq_is_spilled(m[i % 3].seq));
		client_await(w, m[i % 3].seq, &c);
		world_settle(w);
		assert_int_equal(c.calls, 1);
		assert_int_equal(c.error, 0);
		world_check(&m[i % 3]);
		name[0] = (char)('a' + i % 3);
		world_take(w, m[i % 3].seq);
		census_attach(m[i % 3].seq, 0);
		evict_offer(m[i % 3].seq);
		assert_true(seq_is_here(m[(i + 2) % 3].seq));
	}
	assert_int_equal(w->cache->evicted_sequences, 0);
	/* All others pinned: it stays where it is. */
	evict_pin(m[1].seq, true);
	evict_pin(m[2].seq, true);
	client_await(w, m[0].seq, &c);
	world_settle(w);
	assert_int_equal(c.error, -ENOSPC);
	assert_true(seq_is_spilled(m[0].seq));
	for (unsigned i = 0; i < 3; i++)
		model_deinit(&m[i]);
}

/* Above the mark the oldest go to their files before anybody has to wait. */
static void ahead(void **state)
{
	struct fixture *x = *state;
	struct world *w = x->world;

	fill(w, "a", 1200);
	fill(w, "b", 1200);
	w->cache->budget_bytes = w->cache->charged_bytes;
	w->cache->pressure.high = 1;
	evict_ahead(&x->e);
	assert_int_equal(spill_stat(w->spill).out, 1);
	world_settle(w);
	assert_true(seq_is_spilled(world_named(w, "a")));
	assert_true(seq_is_here(world_named(w, "b")));
	evict_pin(world_named(w, "b"), true);
	assert_int_equal(lack(x, LIMIT_BUDGET, w->cache->budget_bytes), EVICTED_NOTHING);
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(spilled_not_dropped), ONE(of_what_is_spilled), ONE(disk_full),
		ONE(ring_waits),          ONE(wanted_back),        ONE(ahead),
		ONE(takes_turns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
