/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image that is not whole, not for this cache, or a lie is refused in words, and leaves
 * nothing behind: clients are hostile, and files are damaged.
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
		ONE(other_caches), ONE(other_planes), ONE(damaged), ONE(wrong_length),
		ONE(lies),         ONE(random_index), ONE(no_room), ONE(cache_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
