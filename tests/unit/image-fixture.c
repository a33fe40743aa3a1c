/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences out and in, for tests: see image-fixture.h. */
#include "image-fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/image.h"
#include "daemon/seq-make.h"
#include "kernels/map.h"
#include "kernels/outliers.h"
#include "shm/base.h"

#define EXTENTS 512u

char why[SPARQ_ERROR_TEXT];

int setup(void **state)
{
	struct store_fixture *f = calloc(1, sizeof(*f));

	fixture_open(f, 512 * MIB, 8 * MIB);
	*state = f;
	return 0;
}

int teardown(void **state)
{
	struct store_fixture *f = *state;

	fixture_assert_empty(f);
	fixture_close(f);
	free(f);
	return 0;
}

struct cache *make_cache(struct store_fixture *f, const char *name, const char *k_format,
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

struct seq *make_seq(struct cache *c, const char *name)
{
	struct seq *s = NULL;

	if (seq_create(c, name, FIXTURE_SESSION, &s, why) < 0)
		fail_msg("%s", why);
	return s;
}

void drop(struct seq *s)
{
	assert_int_equal(seq_drop(s, why), 0);
}

/* ---- out and in --------------------------------------------------------------------- */

/* All of it, in pieces of `piece` bytes; their checksums are those of the bytes. */
struct bytes read_all(struct seq *s, size_t piece)
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
struct seq *build(struct cache *c, const char *name, struct bytes b, size_t piece)
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
void assert_same_image(struct bytes a, struct bytes b)
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

void assert_same(struct seq *a, struct seq *b)
{
	for (uint32_t i = 0; i < MODEL_LAYERS; i++) {
		struct kv_extent ea[EXTENTS], eb[EXTENTS];
		struct kv_view va, vb;

		look(a, i, ea, &va);
		look(b, i, eb, &vb);
		assert_same_shape(&va, &vb);
		for (uint32_t h = 0; h < fixture_kv_heads(); h++)
			assert_same_rows(cache_layer(a->cache, i), cache_layer(b->cache, i), &va,
					 &vb, h);
	}
}

/* A copy through its image, checked. */
struct seq *copy_of(struct seq *s, struct cache *to, size_t out, size_t in)
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

void append_both(struct model *m, uint32_t n)
{
	for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
		for (uint32_t left = n; left; left -= MIN(left, 300u))
			assert_int_equal(model_append(m, layer, MIN(left, 300u)), 0);
}

void load_tables(struct cache *c)
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

uint32_t roll(uint32_t *state, uint32_t below)
{
	*state = *state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(*state >> 4) * below >> 28);
}
