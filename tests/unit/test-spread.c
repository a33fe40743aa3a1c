/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of a sequence over the nodes of a pool. Workers go where the rule says that rows are; users
 * get the same bits wherever they are, on one node or four, in parts or whole.
 */
#include "daemon/spread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "grown.h"
#include "kernels/map.h"
#include "shm/base.h"

static void set_parts(unsigned parts)
{
	char text[8];

	snprintf(text, sizeof(text), "%u", parts);
	setenv("FIXTURE_PARTS", text, 1);
}

static void begin(struct grown *w, unsigned parts, uint32_t kv_heads, const char *format,
		  const char *policy, const char *options)
{
	struct sparq_msg_cache_create m = grown_request(kv_heads, format, policy, options);

	set_parts(parts);
	grown_begin(w, &m, 192 * MIB, 8 * MIB);
}

/* ---- the same bits ------------------------------------------------------------------------ */

/* Whatever is full meanwhile: pages come where there is room. */
static struct grown_answer answer_of(unsigned parts, const char *format, const char *policy,
				     const char *placement, bool crowded)
{
	static page_ref taken[4096];
	struct grown_answer a;
	struct grown w;
	unsigned n = 0;

	begin(&w, parts, 4, format, policy, placement);
	grown_append(&w, 900, NULL); /* there is no long extent yet */
	while (crowded && n < ARRAY_SIZE(taken)) {
		struct page_size size = { .whole = 2 * MIB - 64 };

		assert_int_equal(pool_take(&w.f.pool, 1, size, 9, &taken[n]), 0);
		if (pool_node_of(taken[n++]) != 1)
			break;
	}
	grown_append(&w, 4000, NULL);
	assert_int_equal(crowded, w.f.pool.unstriped > 0);
	a = grown_attend(&w);
	while (n)
		pool_put(&w.f.pool, taken[--n]);
	grown_end(&w);
	return a;
}

static void same_bits(void **state)
{
	static const char *const formats[] = { "f32", "f16", "int8", "int4", "hier4" };
	static const char *const policies[] = { "dense", "sparq" };
	static const char *const placements[] = { "", "placement=local", "placement=rows" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(formats) * ARRAY_SIZE(policies); i++) {
		const char *format = formats[i / 2], *policy = policies[i % 2];
		struct grown_answer one = answer_of(1, format, policy, "", false), a;

		for (unsigned parts = 2; parts <= 4; parts++) {
			const char *other = placements[1 + (parts + i) % 2];

			a = answer_of(parts, format, policy, placements[0], false);
			assert_memory_equal(&a, &one, sizeof(a));
			a = answer_of(parts, format, policy, other, false);
			assert_memory_equal(&a, &one, sizeof(a));
		}
		a = answer_of(2 + 2 * (i & 1), format, policy, "", true);
		assert_memory_equal(&a, &one, sizeof(a));
	}
}

/* ---- where ---------------------------------------------------------------------------------- */

/* Of each row what kernels read, against the rule; how many nodes have a part of it. */
static unsigned check_nodes(struct grown *w)
{
	struct kv_extent extent[GROWN_EXTENTS];
	struct kv_view view;
	unsigned seen = 0;

	assert_int_equal(seq_view(w->seq, 0, w->rows, extent, GROWN_EXTENTS, &view), 0);
	for (uint32_t h = 0; h < w->kv_heads; h++) {
		struct kv_piece p = { 0 };
		struct kv_map map;

		kv_map_init(&map, cache_layer(w->cache, 0), &view, h);
		for (uint32_t row = 0; row < w->rows; row += p.n) {
			bool recent;
			unsigned node;

			kv_map_find(&map, row, w->rows, &p);
			recent = kv_piece_is_recent(&p) && !w->cache->parts;
			node = recent ? w->seq->node : seq_row_node(w->seq, h, row);
			assert_int_equal(fixture_node_at(&w->f, p.k.base), node);
			assert_int_equal(fixture_node_at(&w->f, p.v.base), node);
			seen |= 1u << node;
		}
	}
	return (unsigned)__builtin_popcount(seen);
}

static void nodes_by_head(void **state)
{
	(void)state;
	for (unsigned parts = 1; parts <= 4; parts++) {
		struct grown w;

		begin(&w, parts, 4, "hier4", "dense", "");
		assert_int_equal(w.cache->spread, SPREAD_HEADS);
		grown_append(&w, 2500, NULL);
		assert_int_equal(check_nodes(&w), parts);
		grown_end(&w);
	}
}

static void nodes_by_row(void **state)
{
	(void)state;
	for (unsigned parts = 2; parts <= 4; parts++) {
		struct grown w;

		begin(&w, parts, 1, "hier4", "dense", "");
		assert_int_equal(w.cache->spread, SPREAD_ROWS);
		grown_append(&w, 3 * KV_SHARE_ROWS + 300, NULL);
		assert_int_equal(check_nodes(&w), MIN(parts, 4));
		grown_end(&w);
	}
}

static void one_node(void **state)
{
	struct seq *other;
	struct grown w;

	(void)state;
	begin(&w, 4, 4, "hier4", "dense", "placement=local");
	assert_int_equal(seq_create(w.cache, "", FIXTURE_SESSION, &other, grown_why), 0);
	assert_int_not_equal(other->node, w.seq->node);
	grown_append(&w, KV_SHARE_ROWS + 2500, NULL);
	assert_int_equal(check_nodes(&w), 1);
	assert_int_equal(seq_drop(other, grown_why), 0);
	grown_end(&w);
}

/* A share reads rows of one node: what makes a worker near to it. */
static void shares_on_one_node(void **state)
{
	static float q[GROWN_GROUP * GROWN_DIM];
	static const char *const policies[] = { "dense", "sparq" };
	const struct kv_query query = { .q = q, .n_q = 1, .full = true };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
		void *scratch = aligned_alloc(64, GROWN_LANE);
		struct kv_extent extent[GROWN_EXTENTS];
		struct kv_view view;
		struct kv_plan plan;
		struct kv_exec e;
		struct grown w;
		uint32_t each;

		begin(&w, 2, 1, "hier4", policies[i], "");
		grown_append(&w, 2 * KV_SHARE_ROWS + 300, NULL);
		assert_int_equal(seq_view(w.seq, 0, w.rows, extent, GROWN_EXTENTS, &view), 0);
		assert_int_equal(kv_plan_step(cache_layer(w.cache, 0), &view, &query, 0, 1, false,
					      &plan),
				 0);
		kv_exec_init(&e, cache_layer(w.cache, 0), &plan, &view, &query, 0, scratch);
		each = i ? KV_SHARE_ROWS : KV_SHARE_ROWS / 4; /* as both are cut today */
		assert_int_equal(e.shares, DIV_UP(w.rows - 16, each));
		for (uint32_t s = 0; s < e.shares; s++) {
			uint32_t row = 16 + s * each;
			unsigned node = fixture_node_at(&w.f, kv_exec_share_at(&e, s));

			assert_int_equal(node, seq_row_node(w.seq, 0, row));
			assert_int_equal(node, seq_row_node(w.seq, 0, row + each - 1));
		}
		free(scratch);
		grown_end(&w);
	}
}

/* ---- what is asked for ----------------------------------------------------- */

static int ask(struct grown *w, uint32_t kv_heads, const char *options, struct cache **ret)
{
	struct sparq_msg_cache_create m = grown_request(kv_heads, "f32", "dense", options);

	return cache_create(&w->f.store, w->f.user, &m, ret, grown_why);
}

static void asked_for(void **state)
{
	struct cache *c = NULL;
	struct grown w;

	(void)state;
	begin(&w, 4, 4, "f32", "dense", "");
	/* As it is, whatever that is; or else it is named. */
	assert_int_equal(ask(&w, 4, "", &c), 0);
	assert_ptr_equal(c, w.cache);
	cache_unref(c);
	assert_int_equal(ask(&w, 4, "placement=heads", &c), 0);
	cache_unref(c);
	assert_int_equal(ask(&w, 4, "placement=local", &c), -EEXIST);
	assert_non_null(strstr(grown_why, "placement heads, not local"));
	assert_int_equal(ask(&w, 4, "placement=here", &c), -EINVAL);
	assert_non_null(strstr(grown_why, "local, heads and rows are allowed"));
	grown_end(&w);
	begin(&w, 4, 2, "f32", "dense", "");
	assert_int_equal(w.cache->spread, SPREAD_ROWS);
	grown_end(&w);
	begin(&w, 4, 4, "f32", "dense", "placement=rows");
	assert_int_equal(w.cache->spread, SPREAD_ROWS);
	assert_null(w.cache->parts);
	grown_end(&w);
}

static void not_to_be_had(void **state)
{
	struct sparq_msg_cache_create m = grown_request(2, "f32", "dense", "placement=heads");
	struct store_fixture f;
	struct cache *c = NULL;

	(void)state;
	set_parts(4);
	fixture_open(&f, 64 * MIB, 4 * MIB);
	assert_int_equal(cache_create(&f.store, f.user, &m, &c, grown_why), -EINVAL);
	assert_string_equal(grown_why, "placement=heads: 2 KV heads do not reach 4 nodes; "
				       "rows and local do");
	f.store.spread = SPREAD_LOCAL;
	m = grown_request(4, "f32", "dense", "");
	assert_int_equal(cache_create(&f.store, f.user, &m, &c, grown_why), 0);
	assert_int_equal(c->spread, SPREAD_LOCAL);
	cache_unref(c);
	fixture_assert_empty(&f);
	fixture_close(&f);
}

/* [FILTER]: those tests alone, where time is dear. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_bits),          cmocka_unit_test(nodes_by_head),
		cmocka_unit_test(nodes_by_row),       cmocka_unit_test(one_node),
		cmocka_unit_test(shares_on_one_node), cmocka_unit_test(asked_for),
		cmocka_unit_test(not_to_be_had),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
