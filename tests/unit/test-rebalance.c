/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages move when: back to their node when it has room again, off one that runs full, and
 * none to and fro. Administrators rely on the rate, and on an idle daemon that does nothing.
 */
#include "daemon/rebalance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/log.h"
#include "daemon/seq.h"
#include "kernels/map.h"
#include "seq-model.h"
#include "shm/atomic.h"
#include "shm/base.h"
#include "shm/clock.h"

#define POOL_MIB 256u
#define FULL 80u
#define PAGES_MOST 256u
#define EXTENTS_MOST 256u

static char why[SPARQ_ERROR_TEXT];

struct world {
	struct store_fixture f;
	struct loop *loop;
	struct config config;
	struct rebalance rebalance;
	struct cache *cache;
	struct model model[4];
	unsigned n;
	page_ref taken[PAGES_MOST];
	unsigned n_taken;
};

static void open_world(struct world *w, const char *options)
{
	struct sparq_msg_cache_create m;

	setenv("FIXTURE_PARTS", "2", 1);
	memset(w, 0, sizeof(*w));
	fixture_open(&w->f, POOL_MIB * MIB, 8 * MIB);
	m = fixture_request("c", options);
	assert_int_equal(cache_create(&w->f.store, w->f.user, &m, &w->cache, why), 0);
	assert_int_equal(loop_new(LOOP_BEST, &w->loop), 0);
	config_defaults(&w->config);
	w->config.rebalance_full = FULL;
	w->config.rebalance_rate = GIB;
	rebalance_init(&w->rebalance, w->loop, &w->f.store, w->f.arena, &w->config);
}

static void grow(struct model *m, uint32_t rows)
{
	for (uint32_t l = 0; l < MODEL_LAYERS; l++)
		while (m->rows[l] < rows)
			assert_int_equal(model_append(m, l, MIN(rows - m->rows[l], 200)), 0);
}

static struct model *add(struct world *w, uint32_t rows)
{
	struct model *m = &w->model[w->n];
	struct seq *s;

	assert_int_equal(seq_create(w->cache, "", FIXTURE_SESSION, &s, why), 0);
	model_init(m, &w->f, s, w->n++ * 100000);
	grow(m, rows);
	return m;
}

static void park(struct world *w, struct model *m, bool parked)
{
	(void)w;
	store_relaxed(&m->seq->session, parked ? 0 : FIXTURE_SESSION);
}

static uint64_t taken_bytes(const struct world *w, unsigned node)
{
	return pool_node_taken_bytes(&w->f.pool, node);
}

/* Others' pages on a node, until so many percent of it are taken. */
static void fill(struct world *w, unsigned node, uint64_t percent)
{
	const struct page_size size = { .whole = 2 * MIB - 64 };
	uint64_t most = pool_node_bytes(&w->f.pool, node) * percent / 100;

	while (taken_bytes(w, node) + 2 * MIB <= most) {
		assert_true(w->n_taken < PAGES_MOST);
		assert_int_equal(pool_take_there(&w->f.pool, node, size, 9,
						 &w->taken[w->n_taken++]),
				 0);
	}
}

static void empty(struct world *w)
{
	while (w->n_taken)
		pool_put(&w->f.pool, w->taken[--w->n_taken]);
}

static void close_world(struct world *w)
{
	rebalance_end(&w->rebalance);
	empty(w);
	for (unsigned i = 0; i < w->n; i++) {
		const char *what;

		park(w, &w->model[i], false);
		what = model_check(&w->model[i], UINT32_MAX);
		if (what)
			fail_msg("sequence %u: %s", i, what);
		assert_int_equal(seq_drop(w->model[i].seq, why), 0);
		model_deinit(&w->model[i]);
	}
	cache_unref(w->cache);
	fixture_assert_empty(&w->f);
	fixture_close(&w->f);
	loop_free(w->loop);
}

static void run_for(struct world *w, uint64_t ms)
{
	uint64_t end = (uint64_t)clock_now_ns() + ms * 1000000;

	while ((uint64_t)clock_now_ns() < end)
		assert_int_equal(loop_step(w->loop, 1000000), 0);
}

/* Until it has moved something and rests again. */
static void run_until_moved(struct world *w)
{
	for (unsigned i = 0; i < 200; i++) {
		run_for(w, 50);
		if (w->rebalance.mover.moved_pages && w->rebalance.state == REBALANCE_RESTING &&
		    !w->rebalance.mover.n_left)
			return;
	}
	fail_msg("nothing moved");
}

/* Of all layers and heads: how many of a sequence's rows kernels read on a node. */
static uint64_t rows_on(const struct world *w, const struct model *m, unsigned node)
{
	struct kv_extent extent[EXTENTS_MOST];
	struct kv_view view;
	uint64_t n = 0;

	for (uint32_t i = 0; i < MODEL_LAYERS * w->cache->record->kv_heads; i++) {
		uint32_t layer = i % MODEL_LAYERS, rows = m->rows[layer];
		struct kv_piece p = { 0 };
		struct kv_map map;

		assert_int_equal(seq_view(m->seq, layer, rows, extent, EXTENTS_MOST, &view), 0);
		kv_map_init(&map, cache_layer(w->cache, layer), &view, i / MODEL_LAYERS);
		for (uint32_t row = 0; row < rows; row += p.n) {
			kv_map_find(&map, row, rows, &p);
			assert_int_equal(fixture_node_at(&w->f, p.k.base),
					 fixture_node_at(&w->f, p.v.base));
			n += fixture_node_at(&w->f, p.k.base) == node ? p.n : 0;
		}
	}
	return n;
}

/* ---- home ------------------------------------------------------------------------------ */

static void comes_home_when_there_is_room(void **state)
{
	uint64_t away;
	struct world w;
	unsigned node;

	(void)state;
	open_world(&w, "placement=local");
	node = add(&w, 500)->seq->node;
	fill(&w, node, 100);
	fill(&w, node ^ 1, FULL - 8);
	grow(&w.model[0], 4000);
	assert_true(pool_node_strayed(&w.f.pool, node) > 0);
	assert_true(rows_on(&w, &w.model[0], node ^ 1) > 0);
	rebalance_watch(&w.rebalance, true);
	/* There is no room: it is known what is away, and it stays there. */
	run_for(&w, 1300);
	assert_int_equal(w.rebalance.mover.moved_pages, 0);
	empty(&w);
	park(&w, &w.model[0], true);
	run_until_moved(&w);
	run_for(&w, 3000);
	assert_true(rebalance_away(&w.rebalance, &away));
	assert_int_equal(away, 0);
	assert_int_equal(pool_node_used_bytes(&w.f.pool, node ^ 1), 0);
	assert_int_equal(rows_on(&w, &w.model[0], node ^ 1), 0);
	close_world(&w);
}

/* ---- relief ----------------------------------------------------------------------------- */

/* As long as an emulated machine may take for it. */
static void run_until_home(struct world *w, unsigned away)
{
	for (unsigned i = 0; i < 60 && taken_bytes(w, away); i++)
		run_for(w, 1000);
}

/* What nobody is attached to goes first; of what somebody is, only placement=local. */
static void relieves_a_full_node(void **state)
{
	uint64_t before, moved;
	struct world w;
	unsigned node;

	(void)state;
	open_world(&w, "placement=local");
	node = add(&w, 8000)->seq->node;
	park(&w, &w.model[0], true);
	fill(&w, node, FULL + 2);
	before = taken_bytes(&w, node);
	assert_int_equal(rows_on(&w, &w.model[0], node ^ 1), 0);
	rebalance_watch(&w.rebalance, true);
	run_until_moved(&w);
	assert_true(taken_bytes(&w, node) < before);
	assert_true(taken_bytes(&w, node ^ 1) > 0);
	assert_true(rows_on(&w, &w.model[0], node ^ 1) > 0);

	/* No page goes to and fro. */
	run_for(&w, 2500);
	moved = w.rebalance.mover.moved_pages;
	run_for(&w, 2500);
	assert_int_equal(w.rebalance.mover.moved_pages, moved);
	assert_true(taken_bytes(&w, node) < before);
	/* And comes back when there is room in earnest. */
	empty(&w);
	run_until_home(&w, node ^ 1);
	assert_int_equal(taken_bytes(&w, node ^ 1), 0);
	assert_int_equal(rows_on(&w, &w.model[0], node ^ 1), 0);
	close_world(&w);
}

static void in_use_stays(void **state)
{
	struct world w;
	unsigned node;

	(void)state;
	open_world(&w, "placement=rows");
	node = add(&w, 4000)->seq->node;
	fill(&w, node, FULL + 10);
	rebalance_watch(&w.rebalance, true);
	run_for(&w, 1500);
	assert_int_equal(w.rebalance.mover.moved_pages, 0);
	assert_true(w.rebalance.told);
	park(&w, &w.model[0], true);
	run_until_moved(&w);
	assert_false(w.rebalance.told);
	close_world(&w);
}

static void told_not_to(void **state)
{
	struct world w;

	(void)state;
	open_world(&w, "placement=local");
	w.config.rebalance = false;
	fill(&w, add(&w, 4000)->seq->node, FULL + 10);
	rebalance_watch(&w.rebalance, true);
	run_for(&w, 1500);
	assert_int_equal(w.rebalance.mover.moved_pages, 0);
	w.config.rebalance = true;
	run_until_moved(&w);
	close_world(&w);
}

/* ---- time ------------------------------------------------------------------------------- */

static void keeps_to_the_rate(void **state)
{
	struct world w;
	uint64_t moved;

	(void)state;
	open_world(&w, "placement=local");
	w.config.rebalance_rate = 2 * MIB;
	fill(&w, add(&w, 8000)->seq->node, 100);
	rebalance_watch(&w.rebalance, true);
	run_for(&w, 1100);
	moved = w.rebalance.mover.moved_bytes;
	assert_true(moved > 0);
	run_for(&w, 1000);
	/* A page more at each end. */
	assert_in_range(w.rebalance.mover.moved_bytes - moved, MIB / 2, 5 * MIB);
	close_world(&w);
}

static void idle_has_no_timer(void **state)
{
	struct world w;

	(void)state;
	open_world(&w, "placement=local");
	add(&w, 100);
	w.rebalance.known = true;
	rebalance_watch(&w.rebalance, true);
	assert_int_not_equal(w.rebalance.timer.at_ns, 0);
	rebalance_watch(&w.rebalance, false);
	run_for(&w, 1200);
	assert_int_equal(w.rebalance.timer.at_ns, 0);
	close_world(&w);
}

/* [TESTS], a pattern of their names. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_home_when_there_is_room),
		cmocka_unit_test(relieves_a_full_node),
		cmocka_unit_test(in_use_stays),
		cmocka_unit_test(told_not_to),
		cmocka_unit_test(keeps_to_the_rate),
		cmocka_unit_test(idle_has_no_timer),
	};

	log_open(LOG_DEBUG);
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
