/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence as bytes: what was read out and built again is the same sequence, to the
 * last bit and in extents of the same shape, for every format and after any forks and cuts;
 * and it goes on like the one it was made of. An image that is not whole, or not one, is
 * refused, and leaves nothing behind. Saved files and spilled sequences rest on it.
 */
#include "daemon/image.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/layer.h"
#include "daemon/seq-make.h"
#include "kernels/map.h"
#include "kernels/outliers.h"
#include "seq-model.h"
#include "shm/base.h"

#define EXTENTS 512u

static char why[SPARQ_ERROR_TEXT];

static int setup(void **state)
{
	struct store_fixture *f = calloc(1, sizeof(*f));

	fixture_open(f, 512 * MIB, 8 * MIB);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct store_fixture *f = *state;

	fixture_assert_empty(f);
	fixture_close(f);
	free(f);
	return 0;
}

static struct cache *make_cache(struct store_fixture *f, const char *name, const char *k_format,
				const char *v_format, const char *policy, const char *options)
{
	struct sparq_msg_cache_create m = fixture_request(name, options);
	struct cache *c = NULL;

	snprintf(m.k_format, sizeof(m.k_format), "%s", k_format);
	snprintf(m.v_format, sizeof(m.v_format), "%s", v_format);
	snprintf(m.policy, sizeof(m.policy), "%s", policy);
	if (cache_create(&f->store, f->user, &m, &c, why) < 0)
		fail_msg("%s", why);
	return c;
}

static struct seq *make_seq(struct cache *c, const char *name)
{
	struct seq *s = NULL;

	if (seq_create(c, name, FIXTURE_SESSION, &s, why) < 0)
		fail_msg("%s", why);
	return s;
}

static void drop(struct seq *s)
{
	assert_int_equal(seq_drop(s, why), 0);
}

/* ---- out and in --------------------------------------------------------------------- */

struct bytes {
	uint8_t *data;
	uint64_t n;
};

/* All of it, in pieces of `piece` bytes; their checksums are those of the bytes. */
static struct bytes read_all(struct seq *s, size_t piece)
{
	struct bytes b;
	struct image *im = NULL;

	assert_true(seq_try_control(s));
	if (image_open(s, &im, why) < 0)
		fail_msg("%s", why);
	b.n = image_bytes(im);
	b.data = malloc(b.n);
	for (uint64_t at = 0; at < b.n; at += piece) {
		size_t n = (size_t)MIN(piece, b.n - at);
		uint64_t sum;

		image_read(im, at, b.data + at, n, &sum);
		assert_int_equal(sum, sequence_checksum(b.data + at, n));
	}
	image_close(im);
	seq_end_control(s);
	return b;
}

/* Builds it in pieces of `piece` bytes: NULL if it was refused, with `why`. */
static struct seq *build(struct cache *c, const char *name, struct bytes b, size_t piece)
{
	struct image_build *build = NULL;
	struct seq *s = NULL;
	int r;

	assert_int_equal(seq_build(c, name, &s, why), 0);
	r = image_build_open(s, b.n, &build, why);
	for (uint64_t at = 0; r == 0 && at < b.n; at += piece) {
		size_t n = (size_t)MIN(piece, b.n - at);
		uint64_t sum = 0;

		r = image_build_write(build, b.data + at, n, &sum, why);
		assert_true(r < 0 || sum == sequence_checksum(b.data + at, n));
	}
	if (r == 0)
		r = image_build_end(build, why);
	image_build_free(build);
	if (r == 0)
		r = seq_build_end(s, FIXTURE_SESSION, why);
	if (r == 0)
		return s;
	assert_true(strlen(why) > 10);
	seq_build_drop(s);
	return NULL;
}

/* The name is not part of what must be equal. */
static void assert_same_image(struct bytes a, struct bytes b)
{
	size_t at = offsetof(struct sequence_image, name), n = 64;

	assert_int_equal(a.n, b.n);
	assert_memory_equal(a.data, b.data, at);
	assert_memory_equal(a.data + at + n, b.data + at + n, a.n - at - n);
}

static void look(struct seq *s, uint32_t layer, struct kv_extent *extent, struct kv_view *ret)
{
	assert_int_equal(seq_view(s, layer, seq_rows(s, layer), extent, EXTENTS, ret), 0);
}

static void assert_same_shape(const struct kv_view *a, const struct kv_view *b)
{
	assert_int_equal(a->rows, b->rows);
	assert_int_equal(a->n_sinks, b->n_sinks);
	assert_int_equal(a->tail_first, b->tail_first);
	assert_int_equal(a->tail_rows, b->tail_rows);
	assert_int_equal(a->n_extents, b->n_extents);
	for (uint32_t i = 0; i < a->n_extents; i++) {
		assert_int_equal(a->extent[i].first_row, b->extent[i].first_row);
		assert_int_equal(a->extent[i].tiles, b->extent[i].tiles);
		assert_int_equal(a->extent[i].used, b->extent[i].used);
		assert_int_equal(a->extent[i].last_rows, b->extent[i].last_rows);
	}
}

/* As kernels read them: independent of how an image is made. */
static void assert_same_rows(const struct kv_space *space, const struct kv_space *space_b,
			     const struct kv_view *a, const struct kv_view *b, uint32_t head)
{
	struct kv_piece p = { 0 }, q = { 0 };
	double sum[2][KV_MAX_DIM];
	struct kv_map ma, mb;
	uint32_t from[2];

	kv_map_init(&ma, space, a, head);
	kv_map_init(&mb, space_b, b, head);
	for (uint32_t row = 0; row < a->rows; row++) {
		float x[2][2][KV_MAX_DIM];

		kv_map_find(&ma, row, row + 1, &p);
		kv_map_find(&mb, row, row + 1, &q);
		kv_piece_read_k(&p, x[0][0]);
		kv_piece_read_k(&q, x[1][0]);
		p.kv->v_read(&p.v, p.at, 1, x[0][1]);
		q.kv->v_read(&q.v, q.at, 1, x[1][1]);
		assert_memory_equal(x[0][0], x[1][0], space->k_dim * sizeof(float));
		assert_memory_equal(x[0][1], x[1][1], space->v_dim * sizeof(float));
	}
	kv_map_sum_v(&ma, a->rows, sum[0], &from[0]);
	kv_map_sum_v(&mb, b->rows, sum[1], &from[1]);
	assert_int_equal(from[0], from[1]);
	assert_memory_equal(sum[0], sum[1], space->v_dim * sizeof(double));
}

static void assert_same(struct seq *a, struct seq *b)
{
	for (uint32_t i = 0; i < MODEL_LAYERS; i++) {
		struct kv_extent ea[EXTENTS], eb[EXTENTS];
		struct kv_view va, vb;

		look(a, i, ea, &va);
		look(b, i, eb, &vb);
		assert_same_shape(&va, &vb);
		for (uint32_t h = 0; h < 2; h++)
			assert_same_rows(cache_layer(a->cache, i), cache_layer(b->cache, i), &va,
					 &vb, h);
	}
}

/* A copy through its image, checked. */
static struct seq *copy_of(struct seq *s, struct cache *to, size_t out, size_t in)
{
	struct bytes b = read_all(s, out), again;
	struct seq *copy = build(to, "", b, in);

	if (!copy)
		fail_msg("%s", why);
	assert_same(s, copy);
	again = read_all(copy, 1u << 20);
	assert_same_image(b, again);
	free(b.data);
	free(again.data);
	return copy;
}

/* ---- round trips ----------------------------------------------------------------------- */

static void append_both(struct model *m, uint32_t n)
{
	for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
		for (uint32_t left = n; left; left -= MIN(left, 300u))
			assert_int_equal(model_append(m, layer, MIN(left, 300u)), 0);
}

/* The same rows again, in a sequence whose rows are those of `m`. */
static void model_copy(struct model *copy, const struct model *m, struct seq *s)
{
	model_init(copy, m->fixture, s, m->next_tag);
	for (unsigned i = 0; i < MODEL_LAYERS; i++) {
		copy->rows[i] = m->rows[i];
		memcpy(copy->tag[i], m->tag[i], m->rows[i] * sizeof(*m->tag[i]));
	}
}

static void load_tables(struct cache *c)
{
	struct sparq_msg_cache_table t = { .layer = 1, .kv_head = 1, .n_k = 64, .n_v = 64 };

	t.n_outliers = 2;
	for (uint32_t i = 0; i < 64; i++) {
		t.k_channels[i] = (uint8_t)((i * 5 + 3) % 64);
		t.v_channels[i] = (uint8_t)(63 - i);
	}
	if (channels_load(c, &t, why) < 0)
		fail_msg("%s", why);
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

static uint32_t roll(uint32_t *state, uint32_t below)
{
	*state = *state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(*state >> 4) * below >> 28);
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

/* ---- what is refused ---------------------------------------------------------------------- */

static void assert_refused(struct cache *c, struct bytes b, const char *text)
{
	uint64_t charged = c->charged_bytes, of_user = c->user->charged[USER_BYTES];

	assert_null(build(c, "", b, 5000));
	if (!strstr(why, text))
		fail_msg("\"%s\" instead of \"%s\"", why, text);
	assert_int_equal(c->charged_bytes, charged);
	assert_int_equal(c->user->charged[USER_BYTES], of_user);
}

/* Rows mean something only where they were made. */
static void other_caches(void **state)
{
	static const struct {
		const char *k, *v, *policy, *options, *text;
	} others[] = {
		{ "int8", "hier4", "sparq", "", "k_format hier4, the cache has int8" },
		{ "hier4", "hier4,f16:1", "sparq", "",
		  "v_format hier4, the cache has hier4,f16:1" },
		{ "hier4", "hier4", "sparq", "sinks=4", "sinks 16, the cache has 4" },
	};
	struct store_fixture *f = *state;
	struct cache *c = make_cache(f, "c", "hier4", "hier4", "sparq", ""), *other;
	struct sparq_msg_cache_create request = fixture_request("d", "");
	struct model m;
	struct bytes b;
	struct seq *s;

	model_init(&m, f, make_seq(c, ""), 1);
	append_both(&m, 500);
	b = read_all(m.seq, 1u << 20);
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
		other = make_cache(f, "other", others[i].k, others[i].v, others[i].policy,
				   others[i].options);
		assert_refused(other, b, others[i].text);
		cache_unref(other);
	}
	/* Other parameters of attention, and room for outliers, are its own affair. */
	other = make_cache(f, "other", "hier4", "hier4", "dense", "outliers=2 rollback=64");
	s = build(other, "", b, 1u << 20);
	if (!s)
		fail_msg("%s", why);
	assert_same(m.seq, s);
	drop(s);
	load_tables(other);
	assert_refused(other, b, "0 channel tables, the cache has 1");
	cache_unref(other);
	strcpy(request.model, "another");
	strcpy(request.k_format, "hier4");
	strcpy(request.v_format, "hier4");
	assert_int_equal(cache_create(&f->store, f->user, &request, &other, why), 0);
	assert_refused(other, b, "model none, the cache has another");
	cache_unref(other);
	free(b.data);
	drop(m.seq);
	model_deinit(&m);
	cache_unref(c);
}

/* A policy may want more in the tiles than the format has by itself. */
static void other_planes(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c = make_cache(f, "c", "int8", "int8", "dense", "");
	struct cache *other = make_cache(f, "d", "int8", "int8", "sparq", "");
	struct model m;
	struct bytes b;

	model_init(&m, f, make_seq(c, ""), 1);
	append_both(&m, 500);
	b = read_all(m.seq, 1u << 20);
	assert_refused(other, b, "policy dense, which wants fewer planes in its tiles than sparq");
	free(b.data);
	drop(m.seq);
	model_deinit(&m);
	cache_unref(c);
	cache_unref(other);
}

/* Every byte before the rows changed, one by one: refused, or what it says does not matter. */
static void damaged(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c = make_cache(f, "c", "int4", "int4", "dense", "outliers=2");
	struct model m;
	struct bytes b;
	unsigned refused = 0, taken = 0;
	uint64_t index;

	load_tables(c);
	model_init(&m, f, make_seq(c, ""), 1);
	append_both(&m, 1500);
	b = read_all(m.seq, 1u << 20);
	index = sizeof(struct sequence_image) +
		sequence_index_bytes((const struct sequence_image *)b.data);
	for (uint64_t i = 0; i < index; i++) {
		static const uint8_t flips[] = { 0x01, 0x80 };
		uint8_t was = b.data[i];

		for (unsigned j = 0; j < ARRAY_SIZE(flips); j++) {
			struct seq *s;

			b.data[i] = was ^ flips[j];
			s = build(c, "", b, 4000);
			refused += !s;
			if (!s)
				continue;
			if (taken++ % 64 == 0)
				assert_same(m.seq, s);
			drop(s);
		}
		b.data[i] = was;
	}
	/* Names, and what a cache decides by itself. */
	assert_true(refused > 2 * 600 && taken > 64);
	free(b.data);
	drop(m.seq);
	model_deinit(&m);
	cache_unref(c);
}

/* Cut short, or with more behind it, at every length that matters. */
static void wrong_length(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c = make_cache(f, "c", "hier4", "f16", "sparq", "");
	struct image_build *half = NULL;
	struct bytes b, cut;
	struct model m;
	struct seq *s;

	model_init(&m, f, make_seq(c, ""), 1);
	append_both(&m, 300);
	b = read_all(m.seq, 1u << 20);
	for (uint64_t n = 0; n < b.n; n += n < 2200 ? 7 : 997) {
		cut = (struct bytes){ b.data, n };
		assert_refused(c, cut, "image: ");
	}
	/* Honest in its length, and then not all of it. */
	assert_int_equal(seq_build(c, "", &s, why), 0);
	assert_int_equal(image_build_open(s, b.n, &half, why), 0);
	assert_int_equal(image_build_write(half, b.data, b.n - 1, NULL, why), 0);
	assert_int_equal(image_build_end(half, why), -EBADMSG);
	assert_int_equal(image_build_write(half, b.data, 2, NULL, why), -EINVAL);
	assert_int_equal(image_build_write(half, b.data + b.n - 1, 1, NULL, why), 0);
	assert_int_equal(image_build_end(half, why), 0);
	assert_int_equal(image_build_write(half, b.data, 1, NULL, why), -EINVAL);
	image_build_free(half);
	seq_build_drop(s);
	free(b.data);
	drop(m.seq);
	model_deinit(&m);
	cache_unref(c);
}

struct index {
	struct sequence_image *head;
	struct sequence_layer *layer;
	struct sequence_extent *extent;
};

static void lie_last_rows(struct index x)
{
	x.extent[1].last_rows = 200;
	x.layer[0].tail_first += 72;
	x.layer[0].rows += 72;
}

static void lie_no_rows(struct index x)
{
	x.extent[1].last_rows = 0;
	x.layer[0].tail_first -= 128;
	x.layer[0].rows -= 128;
}

static void lie_slots(struct index x)
{
	x.extent[1].tiles = 8;
}

static void lie_used(struct index x)
{
	x.extent[1].used = 2;
	x.layer[0].tail_first += 128;
	x.layer[0].rows += 128;
}

static void lie_tail(struct index x)
{
	x.layer[0].rows = x.layer[0].tail_first + KV_MAX_CHUNKS * KV_CHUNK_ROWS + 1;
}

static void lie_short(struct index x)
{
	x.layer[0].rows = x.layer[0].tail_first - 1;
}

static void lie_tail_first(struct index x)
{
	x.layer[0].tail_first++;
	x.layer[0].rows++;
}

static void lie_flags(struct index x)
{
	x.layer[0].flags = 2;
}

static void lie_owned(struct index x)
{
	x.extent[x.layer[0].n_extents - 1].last_rows = 127;
	x.layer[0].tail_first--;
	x.layer[0].rows--;
}

static void lie_extents(struct index x)
{
	x.layer[1].n_extents--;
	x.layer[1].tail_first -= 128;
	x.layer[1].rows -= 128;
}

static void lie_more_extents(struct index x)
{
	x.layer[1].n_extents = UINT32_MAX;
}

static void lie_max_rows(struct index x)
{
	x.layer[1].rows = UINT32_MAX;
}

static void lie_count(struct index x)
{
	x.head->n_extents = UINT32_MAX;
}

static void lie_row(struct index x)
{
	x.layer[1].rows--;
}

/* Each is right in all but one thing, as an attacker would have it. */
static void lies(void **state)
{
	static const struct {
		void (*lie)(struct index x);
		const char *text;
	} all[] = {
		{ lie_last_rows, "layer 0: a tile has not 1 to 128 rows" },
		{ lie_no_rows, "layer 0: a tile has not 1 to 128 rows" },
		{ lie_slots, "layer 0: an extent has not the slots of its place" },
		{ lie_used, "layer 0: an extent has more tiles than slots" },
		{ lie_tail, "layer 0: its tail is too long" },
		{ lie_short, "layer 0: its extents do not end where the tail begins" },
		{ lie_tail_first, "layer 0: its extents do not end where the tail begins" },
		{ lie_flags, "layer 0: it has flags that are not known" },
		{ lie_owned, "layer 0: nothing can follow its last tile" },
		{ lie_extents, "image: 1 extents belong to no layer" },
		{ lie_more_extents, "layer 1: more extents than the image has" },
		{ lie_max_rows, "layer 1 has 4294967295 rows: max_rows is 1048576" },
		{ lie_count, "4294967295 extents: that cannot be" },
		{ lie_row, "and its index says" },
	};
	struct store_fixture *f = *state;
	struct cache *c = make_cache(f, "c", "int8", "int8", "dense", "");
	struct bytes b, copy;
	struct model m;

	model_init(&m, f, make_seq(c, ""), 1);
	append_both(&m, 700);
	b = read_all(m.seq, 1u << 20);
	copy = (struct bytes){ malloc(b.n), b.n };
	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		struct index x = { (struct sequence_image *)copy.data, NULL, NULL };

		memcpy(copy.data, b.data, b.n);
		x.layer = (struct sequence_layer *)(x.head + 1);
		x.extent = (struct sequence_extent *)(x.layer + x.head->layers);
		all[i].lie(x);
		assert_refused(c, copy, all[i].text);
	}
	free(copy.data);
	free(b.data);
	drop(m.seq);
	model_deinit(&m);
	cache_unref(c);
}

/* Random indexes of the right length: hostile clients. Whatever is taken can be read. */
static void random_index(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c = make_cache(f, "c", "hier4", "f16", "sparq", "");
	uint32_t random = 3, taken = 0;
	struct sequence_image *head;
	struct model m;
	struct bytes b;
	uint64_t index;

	model_init(&m, f, make_seq(c, ""), 1);
	append_both(&m, 1400);
	b = read_all(m.seq, 1u << 20);
	head = (struct sequence_image *)b.data;
	index = sequence_index_bytes(head);
	for (unsigned i = 0; i < 1500; i++) {
		uint8_t *was = malloc(index);
		struct seq *s;

		memcpy(was, head + 1, index);
		for (unsigned n = 1 + roll(&random, 3); n; n--)
			((uint16_t *)(head + 1))[roll(&random, (uint32_t)index / 2)] =
				(uint16_t)(roll(&random, 2) ? roll(&random, 200)
							    : roll(&random, 65536));
		s = build(c, "", b, 100000);
		if (s) {
			struct bytes again = read_all(s, 1u << 20);

			assert_same_image(b, again);
			free(again.data);
			drop(s);
			taken++;
		}
		memcpy(head + 1, was, index);
		free(was);
	}
	assert_true(taken < 1500);
	free(b.data);
	drop(m.seq);
	model_deinit(&m);
	cache_unref(c);
}

/* The budget ends anywhere in it: it is named, and all is given back. */
static void no_room(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c = make_cache(f, "c", "f32", "f32", "dense", "");
	uint64_t bytes, name_taken;
	struct model m;
	struct bytes b;
	struct seq *s, *other;

	model_init(&m, f, make_seq(c, ""), 1);
	append_both(&m, 1300);
	b = read_all(m.seq, 1u << 20);
	drop(m.seq);
	model_deinit(&m);
	s = build(c, "", b, 1u << 20);
	assert_non_null(s);
	bytes = c->charged_bytes;
	drop(s);
	/* The record's own block is taken before the image begins. */
	for (uint64_t budget = CATALOGUE_BLOCK; budget < bytes; budget += 100000) {
		c->budget_bytes = budget;
		assert_refused(c, b, "budget");
	}
	c->budget_bytes = bytes;
	assert_int_equal(seq_build(c, "name", &s, why), 0);
	other = make_seq(c, "name");
	name_taken = c->n_sequences;
	assert_int_equal(name_taken, 2);
	assert_int_equal(seq_build_end(s, FIXTURE_SESSION, why), -EEXIST);
	seq_build_drop(s);
	drop(other);
	free(b.data);
	cache_unref(c);
}

/* While one is built, the cache neither goes nor changes. */
static void cache_stays(void **state)
{
	struct sparq_msg_cache_table t = { .n_k = 0 };
	struct cache *c = make_cache(*state, "c", "hier4", "hier4", "sparq", "");
	struct seq *s;

	assert_int_equal(seq_build(c, "", &s, why), 0);
	assert_int_equal(channels_load(c, &t, why), -EBUSY);
	assert_int_equal(cache_set(c, "r", "16", why), -EBUSY);
	cache_unref(c);
	seq_build_drop(s);
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(formats),      ONE(forks),        ONE(empty),   ONE(options),
		ONE(other_caches), ONE(other_planes), ONE(damaged), ONE(wrong_length),
		ONE(lies),         ONE(random_index), ONE(no_room), ONE(cache_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
