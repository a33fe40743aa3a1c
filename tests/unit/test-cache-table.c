/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channel tables as the daemon keeps them: what is refused and in which words,
 * what is charged, what lies in the catalogue for a restart to find, and that
 * views bring them to the kernels.
 */
#include "daemon/channels.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

#include "daemon/record.h"
#include "daemon/seq.h"
#include "shm/base.h"
#include "store-fixture.h"

#define LAYERS 3u
#define KV_HEADS 4u
#define DIM 64u

static char why[SPARQ_ERROR_TEXT];

static int setup(void **state)
{
	struct store_fixture *f = calloc(1, sizeof(*f));

	fixture_open(f, 64 * MIB, 4 * MIB);
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

static struct cache *make(struct store_fixture *f, const char *options)
{
	struct sparq_msg_cache_create m = fixture_request("t", options);
	struct cache *c;

	m.layers = LAYERS;
	m.heads = m.kv_heads = KV_HEADS;
	snprintf(m.k_format, sizeof(m.k_format), "hier4,f16:2");
	snprintf(m.v_format, sizeof(m.v_format), "hier4,f16:2");
	if (cache_create(&f->store, f->user, &m, &c, why) < 0)
		fail_msg("%s", why);
	return c;
}

/* Rotated by `turn`. */
static struct sparq_msg_cache_table table(uint32_t layer, uint32_t kv_head, uint32_t turn)
{
	struct sparq_msg_cache_table m = {
		.layer = layer, .kv_head = kv_head, .n_k = DIM, .n_v = DIM
	};

	for (uint32_t i = 0; i < DIM; i++) {
		m.k_channels[i] = (uint8_t)((i + turn) % DIM);
		m.v_channels[i] = (uint8_t)((i + 2 * turn) % DIM);
	}
	return m;
}

static void load(struct cache *c, struct sparq_msg_cache_table m)
{
	if (channels_load(c, &m, why) < 0)
		fail_msg("%s", why);
}

static void assert_refused(struct cache *c, struct sparq_msg_cache_table m, int error,
			   const char *text)
{
	uint64_t charged = c->charged_bytes;

	assert_int_equal(channels_load(c, &m, why), -error);
	assert_string_equal(why, text);
	assert_int_equal(c->charged_bytes, charged);
	assert_int_equal(c->record->state, RECORD_LIVE);
}

/* Nothing of a bad table is taken, and the client is told what is bad. */
static void refused(void **state)
{
	struct cache *c = make(*state, "outliers=2");
	struct sparq_msg_cache_table m;

#define REFUSED(change, text)                                                                      \
	do {                                                                                       \
		m = table(1, 1, 5);                                                                \
		change;                                                                            \
		assert_refused(c, m, EINVAL, text);                                                \
	} while (0)
	REFUSED(m.layer = 3, "layer 3: the cache has 3, from 0");
	REFUSED(m.layer = UINT32_MAX, "layer 4294967295: the cache has 3, from 0");
	REFUSED(m.kv_head = 4, "kv_head 4: the cache has 4, from 0");
	REFUSED(m.n_k = 63, "63 k_channels: the cache has 64, or 0 for as they come");
	REFUSED(m.n_v = 256, "256 v_channels: the cache has 64, or 0 for as they come");
	REFUSED(m.n_v = UINT32_MAX,
		"4294967295 v_channels: the cache has 64, or 0 for as they come");
	REFUSED(m.k_channels[64] = 1, "k_channels[64] is not 0, after the last of 64");
	REFUSED(m.n_v = 0, "v_channels[0] is not 0, after the last of 0");
	REFUSED(m.k_channels[7] = 64,
		"k_channels[7]=64: each channel from 0 to 63 must stand once");
	REFUSED(m.v_channels[1] = m.v_channels[0],
		"v_channels[1]=10: each channel from 0 to 63 must stand once");
	REFUSED(m.n_outliers = 3, "n_outliers=3: the cache was made with room for outliers=2");
	REFUSED(m.rsv = 1, "a reserved field of the request is not 0");
#undef REFUSED
	assert_null(channels_layer(c, 0));
	cache_unref(c);
}

/* Rows of one order must not be read with another. */
static void refused_late(void **state)
{
	struct cache *c = make(*state, "");
	struct seq *s;

	load(c, table(0, 0, 1));
	assert_int_equal(seq_create(c, "", FIXTURE_SESSION, &s, why), 0);
	assert_refused(c, table(2, 3, 1), EBUSY,
		       "table of layer 2, KV head 3: the cache has sequences; load it before the "
		       "first");
	assert_int_equal(seq_drop(s, why), 0);
	load(c, table(2, 3, 1));
	cache_unref(c);
}

static const struct kv_channels *loaded(const struct cache *c, uint32_t layer, uint32_t kv_head)
{
	return channels_layer(c, layer)[kv_head];
}

/* Every one, more than a block has; replaced ones; and none where none was given. */
static void kept(void **state)
{
	struct cache *c = make(*state, "outliers=8");
	struct sparq_msg_cache_table m = { .layer = 1, .kv_head = 2, .n_outliers = 8 };

	for (uint32_t i = 0; i < LAYERS * KV_HEADS; i++)
		if (i != 3)
			load(c, table(i / KV_HEADS, i % KV_HEADS, i));
	load(c, table(0, 1, 40));
	load(c, m);
	assert_null(loaded(c, 0, 3));
	assert_int_equal(loaded(c, 2, 1)->k[0], 9);
	assert_int_equal(loaded(c, 2, 1)->v[1], 19);
	assert_int_equal(loaded(c, 0, 1)->k[0], 40);
	assert_int_equal(loaded(c, 1, 2)->n_outliers, 8);
	for (uint32_t i = 0; i < DIM; i++)
		assert_int_equal(loaded(c, 1, 2)->v[i], i);
	assert_int_equal(c->record->state, RECORD_LIVE);
	cache_unref(c);
}

/* Heads without a table cost their place in the index; to the byte, as all is. */
static void charged(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c = make(f, "");
	uint64_t index = LAYERS * KV_HEADS * sizeof(void *);

	assert_int_equal(f->user->charged[USER_BYTES], 0);
	for (uint32_t i = 0; i < CHANNELS_PER_BLOCK; i++)
		load(c, table(i / KV_HEADS, i % KV_HEADS, 1));
	assert_int_equal(c->charged_bytes, index + CATALOGUE_BLOCK);
	load(c, table(2, 0, 1));
	assert_int_equal(c->charged_bytes, index + 2 * CATALOGUE_BLOCK);
	load(c, table(0, 0, 2));
	assert_int_equal(f->user->charged[USER_BYTES], index + 2 * CATALOGUE_BLOCK);
	cache_unref(c);
	assert_int_equal(f->user->charged[USER_BYTES], 0);
}

static void over_quota(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c = make(f, "");
	struct sparq_msg_cache_table m = table(1, 0, 1);

	f->user->limit[USER_BYTES] = CATALOGUE_BLOCK;
	assert_int_equal(channels_load(c, &m, why), -ENOSPC);
	assert_string_equal(why, "table of layer 1, KV head 0: 4096 bytes do not fit into the "
				 "quota of the user (user_bytes = 4096)");
	assert_int_equal(c->record->state, RECORD_LIVE);
	f->user->limit[USER_BYTES] = UINT64_MAX;
	load(c, m);
	cache_unref(c);
}

/* A restarted daemon has the catalogue alone: records by number, under checksums. */
static void found_in_catalogue(void **state)
{
	struct store_fixture *f = *state;
	struct cache *c = make(f, "outliers=1");
	uint32_t found = 0, block;

	for (uint32_t i = 0; i < LAYERS * KV_HEADS; i++)
		load(c, table(i / KV_HEADS, i % KV_HEADS, i));
	assert_int_equal(c->record->outliers, 1);
	for (block = c->record->channels; block;) {
		const struct channels_block *b = catalogue_block(f->catalogue, block);

		assert_int_equal(b->checksum, XXH3_64bits(b->record, CATALOGUE_BLOCK - sizeof(*b)));
		for (uint32_t i = 0; i < b->n; i++, found++) {
			assert_int_equal(b->record[i].layer, found / KV_HEADS);
			assert_int_equal(b->record[i].kv_head, found % KV_HEADS);
			assert_int_equal(b->record[i].channels.k[0], found);
		}
		block = b->next;
	}
	assert_int_equal(found, LAYERS * KV_HEADS);
	cache_unref(c);
}

/* All that kernels see of a table is in the view. */
static void in_views(void **state)
{
	struct cache *c = make(*state, "");
	struct kv_view view;
	struct seq *s, *child;

	load(c, table(1, 3, 7));
	assert_int_equal(seq_create(c, "", FIXTURE_SESSION, &s, why), 0);
	assert_int_equal(seq_view(s, 1, 0, NULL, 0, &view), 0);
	assert_int_equal(view.channels[3]->k[0], 7);
	assert_null(view.channels[2]);
	assert_int_equal(seq_view(s, 0, 0, NULL, 0, &view), 0);
	assert_null(view.channels[3]);
	assert_int_equal(seq_fork(s, 0, FIXTURE_SESSION, &child, why), 0);
	assert_int_equal(seq_view(child, 1, 0, NULL, 0, &view), 0);
	assert_int_equal(view.channels[3]->k[0], 7);
	assert_int_equal(seq_drop(child, why), 0);
	assert_int_equal(seq_drop(s, why), 0);
	cache_unref(c);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(refused, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_late, setup, teardown),
		cmocka_unit_test_setup_teardown(kept, setup, teardown),
		cmocka_unit_test_setup_teardown(charged, setup, teardown),
		cmocka_unit_test_setup_teardown(over_quota, setup, teardown),
		cmocka_unit_test_setup_teardown(found_in_catalogue, setup, teardown),
		cmocka_unit_test_setup_teardown(in_views, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
