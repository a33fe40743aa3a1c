/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence as bytes: what was read out and built again is the same sequence, to the
 * last bit and in extents of the same shape, for every format and after any forks and cuts;
 * and it goes on like the one it was made of. Saved files and spilled sequences rest on it.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/image.h"
#include "daemon/seq-make.h"
#include "image-fixture.h"
#include "shm/base.h"

/* The same rows again, in a sequence whose rows are those of `m`. */
static void model_copy(struct model *copy, const struct model *m, struct seq *s)
{
	model_init(copy, m->fixture, s, m->next_tag);
	for (unsigned i = 0; i < MODEL_LAYERS; i++) {
		copy->rows[i] = m->rows[i];
		memcpy(copy->tag[i], m->tag[i], m->rows[i] * sizeof(*m->tag[i]));
	}
}

/* All lengths of a sequence that are an end of something, and both go on alike. */
static void check_format(struct store_fixture *f, const char *k, const char *v, const char *policy,
			 bool tables)
{
	static const uint32_t rows[] = { 1, 15, 17, 16 + 128 + 16, 700, 1024 + 700, 2500 };
	struct cache *c = make_cache(f, "c", k, v, policy, "outliers=3 rollback=16");
	struct model m, of_copy;

	if (tables)
		load_tables(c);
	model_init(&m, f, make_seq(c, ""), 1);
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct seq *copy;

		append_both(&m, rows[i] - m.rows[0]);
		/* The layers differ in the middle of a token. */
		assert_int_equal(model_append(&m, 0, 1), 0);
		copy = copy_of(m.seq, c, 4096 + i * 1001, 1u << (7 + 2 * i));
		assert_int_equal(model_append(&m, 1, 1), 0);
		model_copy(&of_copy, &m, copy);
		of_copy.rows[1]--;
		of_copy.next_tag--;
		assert_int_equal(model_append(&of_copy, 1, 1), 0);
		append_both(&m, 400);
		append_both(&of_copy, 400);
		assert_same(m.seq, copy);
		drop(copy);
		model_deinit(&of_copy);
		assert_int_equal(model_cut(&m, SPARQ_LAYER_ALL, rows[i]), 0);
	}
	drop(m.seq);
	model_deinit(&m);
	cache_unref(c);
}

static void formats(void **state)
{
	static const struct {
		const char *k, *v, *policy;
		bool tables;
	} cases[] = {
		{ "f32", "f32", "dense", false },
		{ "f16", "bf16", "sparq", false },
		{ "int8", "int4", "sparq", true },
		{ "int4", "int8", "dense", false },
		{ "hier4", "hier4", "sparq", true },
		{ "bf16,hier4:1", "hier4,f32:0", "window", true },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		check_format(*state, cases[i].k, cases[i].v, cases[i].policy, cases[i].tables);
}
/* Forks of forks, cut anywhere, each layer by itself: chains of tables that end in parts of tiles.
 * The model knows what every row was. */
static void forks(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c = make_cache(f, "c", "f32", "f32", "dense", "");
	uint32_t random = 7;

	for (unsigned round = 0; round < 25; round++) {
		struct model m[2], copy;
		struct seq *s;

		model_init(&m[0], f, make_seq(c, ""), 1);
		append_both(&m[0], 200 + roll(&random, 2500));
		for (unsigned i = 0; i < 5; i++) {
			uint32_t rows = roll(&random, MIN(m[0].rows[0], m[0].rows[1]) + 1);

			if (roll(&random, 3) == 0)
				rows = MIN(m[0].rows[0], m[0].rows[1]) / 128 * 128;
			assert_int_equal(seq_fork(m[0].seq, rows, FIXTURE_SESSION, &s, why), 0);
			model_fork(&m[1], &m[0], s, rows, m[0].next_tag);
			/* Its parent goes first, or lives on for a while. */
			if (roll(&random, 2))
				append_both(&m[0], 300);
			drop(m[0].seq);
			model_deinit(&m[0]);
			m[0] = m[1];
			if (roll(&random, 4))
				append_both(&m[0], roll(&random, 900));
			if (roll(&random, 3) == 0)
				assert_int_equal(model_cut(&m[0], roll(&random, 2),
							   roll(&random,
								MIN(m[0].rows[0], m[0].rows[1]) +
									1)),
						 0);
		}
		model_copy(&copy, &m[0], copy_of(m[0].seq, c, 1u << 20, 70000));
		assert_null(model_check(&copy, UINT32_MAX));
		assert_null(model_check_record(&copy));
		append_both(&copy, 500);
		append_both(&m[0], 500);
		assert_same(m[0].seq, copy.seq);
		assert_null(model_check(&copy, UINT32_MAX));
		assert_null(model_check_record(&copy));
		assert_int_equal(model_cut(&copy, SPARQ_LAYER_ALL,
					   MIN(copy.rows[0], copy.rows[1]) / 2),
				 0);
		assert_null(model_check(&copy, UINT32_MAX));
		drop(copy.seq);
		drop(m[0].seq);
		model_deinit(&copy);
		model_deinit(&m[0]);
	}
	cache_unref(c);
}

/* Rows that were overwritten: an image has no corrections, its sums are right. */
static void corrections(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c = make_cache(f, "c", "f32", "f32", "dense", "");
	struct kv_extent extent[128];
	struct model m, copy;
	struct kv_view view;
	unsigned corrected = 0;

	model_init(&m, f, make_seq(c, ""), 1);
	append_both(&m, 16 + 1024 + 16);
	for (unsigned i = 0; i < 4; i++) {
		append_both(&m, 1024);
		for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
			assert_int_equal(model_overwrite(&m, layer, 5 + 200 * i, 1 + 60 * i), 0);
	}
	assert_int_equal(seq_view(m.seq, 0, m.rows[0], extent, 128, &view), 0);
	for (uint32_t i = 0; i < view.n_extents; i++)
		corrected += extent[i].correction != NULL;
	assert_true(corrected > 0);
	model_copy(&copy, &m, copy_of(m.seq, c, 1u << 18, 70000));
	assert_int_equal(seq_view(copy.seq, 0, copy.rows[0], extent, 128, &view), 0);
	for (uint32_t i = 0; i < view.n_extents; i++)
		assert_null(extent[i].correction);
	assert_null(model_check(&copy, UINT32_MAX));
	assert_null(model_check_record(&copy));
	append_both(&copy, 500);
	append_both(&m, 500);
	assert_same(m.seq, copy.seq);
	drop(copy.seq);
	drop(m.seq);
	model_deinit(&copy);
	model_deinit(&m);
	cache_unref(c);
}

/* What a file says of its cache makes an equal one. */
static void options(void **state)
{
	static const char *const given[] = {
		"",
		"sinks=3 rollback=5 outliers=2 on_disconnect=park evict=lru share=off r=16 k=64",
		"on_disconnect=drop evict=lfu share=on dense_below=77 l=9",
	};
	struct store_fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(given); i++) {
		struct cache *c = make_cache(f, "c", "hier4", "hier4", "sparq", given[i]), *again;
		struct sparq_msg_cache_create m = fixture_request("c", "");
		struct seq *s = make_seq(c, "");
		struct bytes b = read_all(s, 1u << 20);
		const struct sequence_image *head = (const struct sequence_image *)b.data;

		memcpy(m.options, head->options, sizeof(m.options));
		memcpy(m.k_format, head->k_format, sizeof(m.k_format));
		memcpy(m.v_format, head->v_format, sizeof(m.v_format));
		memcpy(m.policy, head->policy, sizeof(m.policy));
		if (cache_create(&f->store, f->user, &m, &again, why) < 0)
			fail_msg("%s: %s", head->options, why);
		assert_ptr_equal(again, c);
		free(b.data);
		drop(s);
		cache_unref(c);
		cache_unref(again);
	}
}

static void empty(void **state)
{
	struct cache *c = make_cache(*state, "c", "hier4", "hier4", "sparq", "");
	struct seq *s = make_seq(c, "name"), *copy;

	copy = copy_of(s, c, 100, 33);
	assert_int_equal(seq_rows(copy, 0), 0);
	drop(copy);
	drop(s);
	cache_unref(c);
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(formats), ONE(forks), ONE(corrections), ONE(options), ONE(empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
