/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that is left and found again: every row as it was, every byte charged as before, and
 * nothing else. All that outlives a crash rests on this. Then the same with a catalogue that was
 * damaged at random: whatever is left must be whole, and nothing may be out of reach.
 */
#include "daemon/recover.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/charge.h"
#include "daemon/layer.h"
#include "daemon/log.h"
#include "daemon/seq.h"
#include "daemon/store.h"
#include "seq-model.h"
#include "shm/atomic.h"
#include "shm/base.h"

#define N 6 /* sequences at once */
#define DAMAGED_SEEDS 150

static char why[SPARQ_ERROR_TEXT];

struct world {
	struct store_fixture f;
	struct cache *cache;
	struct model model[N];
	bool live[N];
	uint32_t state, tag;
};

static uint32_t roll(struct world *w, uint32_t below)
{
	w->state = w->state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(w->state >> 4) * below >> 28);
}

static uint32_t least(const struct model *m)
{
	return MIN(m->rows[0], m->rows[1]);
}

static void make_cache(struct world *w, const char *v_format)
{
	struct sparq_msg_cache_create m =
		fixture_request("kept", "sinks=16 rollback=16 on_disconnect=park");

	strcpy(m.v_format, v_format);
	if (cache_create(&w->f.store, w->f.user, &m, &w->cache, why) < 0)
		fail_msg("%s", why);
}

static void world_open(struct world *w, unsigned seed)
{
	*w = (struct world){ .state = seed, .tag = 1 };
	fixture_open(&w->f, 96 << 20, 2 << 20);
	make_cache(w, "f32");
}

static void drop(struct world *w, unsigned i)
{
	assert_int_equal(seq_drop(w->model[i].seq, why), 0);
	model_deinit(&w->model[i]);
	w->live[i] = false;
}

static void world_close(struct world *w)
{
	for (unsigned i = 0; i < N; i++)
		if (w->live[i])
			drop(w, i);
	cache_unref(w->cache);
	fixture_assert_empty(&w->f);
	fixture_close(&w->f);
}

/* ---- random work ------------------------------------------------------------------- */

static void begin(struct world *w, unsigned i)
{
	struct seq *s;

	if (seq_create(w->cache, "", FIXTURE_SESSION, &s, why) < 0)
		fail_msg("%s", why);
	model_init(&w->model[i], &w->f, s, w->tag);
	w->live[i] = true;
}

static void branch(struct world *w, unsigned from, unsigned to)
{
	struct model *m = &w->model[from];
	uint32_t rows = roll(w, 3) ? least(m) : roll(w, least(m) + 1);
	struct seq *s;

	if (seq_fork(m->seq, rows, FIXTURE_SESSION, &s, why) < 0)
		fail_msg("%s", why);
	model_fork(&w->model[to], m, s, rows, w->tag);
	w->live[to] = true;
}

static void change(struct world *w, struct model *m, uint32_t layer)
{
	uint32_t row = m->rows[layer] ? roll(w, m->rows[layer]) : 0;

	if (m->rows[layer])
		assert_int_equal(model_overwrite(m, layer, row,
						 1 + roll(w, MIN(m->rows[layer] - row, 512))),
				 0);
}

static void work(struct world *w)
{
	unsigned i = roll(w, N), other = roll(w, N);
	struct model *m = &w->model[i];
	int r;

	w->tag += 1 << 14; /* no two rows are alike */
	if (!w->live[i]) {
		begin(w, i);
		return;
	}
	m->next_tag = w->tag;
	switch (roll(w, 10)) {
	case 0:
		drop(w, i);
		break;
	case 1:
		if (!w->live[other])
			branch(w, i, other);
		break;
	case 2:
		assert_int_equal(model_cut(m, SPARQ_LAYER_ALL, roll(w, least(m) + 1)), 0);
		break;
	case 3:
		assert_int_equal(model_cut(m, 0, m->rows[0] - roll(w, MIN(m->rows[0], 9) + 1)), 0);
		break;
	case 4:
	case 5:
		change(w, m, roll(w, MODEL_LAYERS));
		break;
	default:
		for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++) {
			r = model_append(m, layer, 1 + roll(w, 512));
			assert_true(r == 0 || r == -E2BIG);
		}
	}
}

/* ---- restarts -------------------------------------------------------------------------- */

/* The models find their sequences by the ids they had. */
static void come_back(struct world *w)
{
	struct recovered r;
	unsigned n = 0;

	fixture_restart(&w->f, &r);
	assert_int_equal(r.dropped, 0);
	assert_int_equal(r.caches, 1);
	w->cache = w->f.store.caches;
	assert_int_equal(w->cache->n_sessions, 0);
	w->cache->n_sessions = 1; /* as if its program had attached it */
	for (unsigned i = 0; i < N; i++) {
		struct model *m = &w->model[i];

		if (!w->live[i])
			continue;
		n++;
		m->seq = w->f.store.seq_by_slot[id_slot(m->id)];
		assert_non_null(m->seq);
		assert_true(m->seq->id == m->id);
		assert_int_equal(m->seq->session, 0);
		store_relaxed(&m->seq->session, FIXTURE_SESSION);
	}
	assert_int_equal(r.sequences, n);
	assert_int_equal(w->cache->n_sequences, n);
}

static void check_all(struct world *w, unsigned seed)
{
	for (unsigned i = 0; i < N; i++) {
		const char *what;

		if (!w->live[i])
			continue;
		what = model_check(&w->model[i], UINT32_MAX);
		what = what ? what : model_check_record(&w->model[i]);
		if (what)
			fail_msg("%s (seed %u, sequence %u)", what, seed, i);
	}
}

/* Work, restart, work: rows are what they were, also those that forks share, and what is written
 * after the restart is beside them. In the end everything comes back. */
static void left_and_found(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 12; seed++) {
		struct world w;

		world_open(&w, seed);
		for (unsigned round = 0; round < 25; round++) {
			for (unsigned n = 1 + roll(&w, 12); n; n--)
				work(&w);
			come_back(&w);
			check_all(&w, seed);
		}
		world_close(&w);
	}
}

/* What is charged after a restart is what is held: at most what was charged before (room that was
 * reserved and not used is free), and the same again after another restart. */
static void charges(void **state)
{
	uint64_t before, after;
	struct world w;

	(void)state;
	world_open(&w, 77);
	for (unsigned n = 0; n < 60; n++)
		work(&w);
	before = w.cache->charged_bytes;
	come_back(&w);
	after = w.cache->charged_bytes;
	assert_true(after <= before && after > 0);
	assert_int_equal(after, w.f.user->charged[USER_BYTES]);
	come_back(&w);
	assert_int_equal(w.cache->charged_bytes, after);
	world_close(&w);
}

/* A budget that is smaller by now, or a quota, takes nothing away. */
static void over_the_limit(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, 5);
	begin(&w, 0);
	assert_int_equal(model_append(&w.model[0], 0, 500), 0);
	come_back(&w);
	w.cache->budget_bytes = 4096;
	assert_true(w.cache->charged_bytes > 4096);
	assert_null(model_check(&w.model[0], UINT32_MAX));
	assert_int_equal(model_append(&w.model[0], 1, 500), -ENOSPC);
	world_close(&w);
}

/* ---- what a crash leaves ------------------------------------------------------------------- */

static struct sequence_record *record_of(struct world *w, unsigned i)
{
	return catalogue_sequence(w->f.catalogue, id_slot(w->model[i].id));
}

/* The child of a fork that was not published was never there; its pages are free. */
static void half_made(void **state)
{
	struct recovered r;
	struct world w;

	(void)state;
	world_open(&w, 3);
	begin(&w, 0);
	assert_int_equal(model_append(&w.model[0], 0, 500), 0);
	record_of(&w, 0)->state = RECORD_BUILDING;
	fixture_restart(&w.f, &r);
	assert_int_equal(r.sequences, 0);
	assert_int_equal(r.dropped, 0);
	assert_int_equal(w.f.pool.used_bytes, 0);
	assert_int_equal(recover_expire(&w.f.store), 0);
	model_deinit(&w.model[0]);
	fixture_assert_empty(&w.f);
	fixture_close(&w.f);
}

/* A truncate of all layers that died after the first: it is ended, below the tail and in it. */
static void half_cut(void **state)
{
	static const uint32_t to[] = { 0, 3, 16, 700, 1040, 2064, 2500, 2960, 2999, 3000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(to); i++) {
		struct world w;

		world_open(&w, 3);
		begin(&w, 0);
		for (uint32_t n = 0; n < 6; n++)
			for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
				assert_int_equal(model_append(&w.model[0], layer, 500), 0);
		branch(&w, 0, 1);
		assert_int_equal(model_cut(&w.model[0], 0, to[i]), 0);
		record_of(&w, 0)->intent = CUT_PENDING | to[i];
		w.model[0].rows[1] = to[i];
		come_back(&w);
		check_all(&w, to[i]);
		w.model[0].next_tag = 1 << 20;
		for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
			assert_int_equal(model_append(&w.model[0], layer, 400), 0);
		come_back(&w);
		check_all(&w, to[i]);
		world_close(&w);
	}
}

/* A cut of one layer that died with its intent noted and nothing else done, and with its reach
 * changed already. */
static void half_cut_layer(void **state)
{
	(void)state;
	for (unsigned step = 0; step < 2; step++) {
		struct layer_record *l;
		struct world w;

		world_open(&w, 3);
		begin(&w, 0);
		for (uint32_t n = 0; n < 6; n++)
			assert_int_equal(model_append(&w.model[0], 0, 500), 0);
		l = w.model[0].seq->layer[0].record;
		l->cut = CUT_PENDING | 1500;
		memset(l->chunk, 0, sizeof(l->chunk));
		if (step)
			l->reach = reach_pack((struct reach){ reach_unpack(l->reach).table, 1500 });
		w.model[0].rows[0] = 1500;
		come_back(&w);
		check_all(&w, step);
		world_close(&w);
	}
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* A record that was damaged is dropped whole, said, and costs the others nothing. */
static void one_damaged(void **state)
{
	struct layer_record *l;
	struct recovered r;
	struct world w;

	(void)state;
	world_open(&w, 9);
	begin(&w, 0);
	begin(&w, 1);
	for (unsigned i = 0; i < 2; i++) {
		w.model[i].next_tag = 100000 * i + 1;
		for (uint32_t n = 0; n < 4; n++)
			for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
				assert_int_equal(model_append(&w.model[i], layer, 500), 0);
	}
	l = w.model[0].seq->layer[1].record;
	l->chunk[2 * commit_unpack(l->commit).tiles % KV_MAX_CHUNKS] ^= 64;
	fixture_restart(&w.f, &r);
	assert_int_equal(r.dropped, 1);
	assert_int_equal(r.sequences, 1);
	assert_int_equal(record_of(&w, 0)->state, RECORD_FREE);
	model_deinit(&w.model[0]);
	w.live[0] = false;
	come_back(&w);
	check_all(&w, 0);
	world_close(&w);
}

/* A fork keeps the tiles that it shares, also when what it was forked from cannot be kept. */
static void parent_damaged(void **state)
{
	struct layer_record *l;
	struct recovered r;
	struct world w;

	(void)state;
	world_open(&w, 9);
	begin(&w, 0);
	for (uint32_t n = 0; n < 4; n++)
		for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
			assert_int_equal(model_append(&w.model[0], layer, 500), 0);
	branch(&w, 0, 1);
	w.model[1].next_tag = 1 << 20;
	for (uint32_t layer = 0; layer < MODEL_LAYERS; layer++)
		assert_int_equal(model_append(&w.model[1], layer, 400), 0);
	l = w.model[0].seq->layer[1].record;
	l->chunk[2 * commit_unpack(l->commit).tiles % KV_MAX_CHUNKS] ^= 64;
	fixture_restart(&w.f, &r);
	assert_int_equal(r.dropped, 1);
	model_deinit(&w.model[0]);
	w.live[0] = false;
	come_back(&w);
	check_all(&w, 0);
	world_close(&w);
}

/* What a sequence that came back can be asked for, is there. */
static void use(struct store_fixture *f, struct seq *s)
{
	static struct kv_extent extent[4096];
	struct kv_view view;
	volatile uint8_t sink = 0;

	for (uint32_t i = 0; i < s->cache->record->layers; i++) {
		uint32_t rows = seq_rows(s, i);

		if (seq_view(s, i, rows, extent, ARRAY_SIZE(extent), &view) < 0)
			continue;
		for (uint32_t j = 0; j < view.n_extents; j++)
			sink ^= *(const uint8_t *)view.extent[j].base;
		for (uint32_t j = 0; j < KV_MAX_CHUNKS; j++)
			if (view.chunk[j])
				sink ^= *(const uint8_t *)view.chunk[j];
		if (seq_reserve(s, i, 3) == 0)
			seq_commit(s, i, rows + 3);
	}
	(void)f;
}

static void damage(struct world *w)
{
	const struct catalogue_header *h = catalogue_header(w->f.catalogue);
	uint8_t *base = (uint8_t *)catalogue_header(w->f.catalogue);
	uint32_t taken = 0, block;

	/* Blocks are taken from the first on: damage where something is. */
	if (catalogue_take_block(w->f.catalogue, &block) == 0) {
		taken = block;
		catalogue_put_block(w->f.catalogue, block);
	}
	for (unsigned n = 1 + roll(w, 8); n; n--) {
		uint64_t at;

		switch (roll(w, 4)) {
		case 0:
			at = h->sequences_at + roll(w, N * sizeof(struct sequence_record));
			break;
		case 1:
			at = h->notes_at + roll(w, 48 * 8);
			break;
		default:
			at = h->blocks_at + roll(w, (taken + 2) * CATALOGUE_BLOCK);
		}
		base[at] ^= (uint8_t)(1 << roll(w, 8));
	}
}

/* Any bits of records, blocks and notes: recovery ends, what it keeps can be used, and what is
 * dropped after it leaves nothing behind. */
static void damaged(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= DAMAGED_SEEDS; seed++) {
		struct recovered r;
		struct world w;

		world_open(&w, seed * 7919);
		for (unsigned n = 0; n < 30; n++)
			work(&w);
		damage(&w);
		fixture_restart(&w.f, &r);
		for (struct cache *c = w.f.store.caches; c; c = c->next)
			for (struct seq *s = c->first; s; s = s->next)
				use(&w.f, s);
		for (struct cache *c = w.f.store.caches; c; c = c->next) {
			c->on_disconnect = ON_DISCONNECT_DROP;
			/* A bit may have made a prefix of one, which waits for no owner. */
			for (struct seq *s = c->first; s; s = s->next)
				((struct sequence_record *)s->record)->flags = 0;
		}
		assert_int_equal(recover_expire(&w.f.store), r.sequences);
		for (unsigned i = 0; i < N; i++)
			if (w.live[i])
				model_deinit(&w.model[i]);
		fixture_assert_empty(&w.f);
		fixture_close(&w.f);
	}
}

/* ---- caches
 * -------------------------------------------------------------------------------------- */

static void load_table(struct cache *c, uint32_t layer, uint32_t kv_head, uint8_t turn)
{
	struct sparq_msg_cache_table m = { .layer = layer, .kv_head = kv_head, .n_k = 64 };

	for (uint32_t i = 0; i < 64; i++)
		m.k_channels[i] = (uint8_t)((i + turn) % 64);
	if (channels_load(c, &m, why) < 0)
		fail_msg("%s", why);
}

/* Rows were written in the order of these tables: without them they are noise. */
static void tables_come_back(void **state)
{
	struct recovered r;
	struct world w;
	uint64_t charged;

	(void)state;
	world_open(&w, 1);
	for (uint8_t i = 0; i < 4; i++)
		load_table(w.cache, i / 2, i % 2, i);
	charged = w.cache->charged_bytes;
	fixture_restart(&w.f, &r);
	w.cache = w.f.store.caches;
	assert_int_equal(w.cache->charged_bytes, charged);
	for (uint8_t i = 0; i < 4; i++) {
		const struct kv_channels *const *t = channels_layer(w.cache, i / 2);

		assert_non_null(t[i % 2]);
		assert_int_equal(t[i % 2]->k[5], 5 + i);
	}
	w.cache->n_sessions = 1;
	world_close(&w);
}

/* A cache whose tables were damaged goes, and its sequences with it. */
static void tables_damaged(void **state)
{
	struct recovered r;
	struct world w;
	char *block;

	(void)state;
	world_open(&w, 1);
	load_table(w.cache, 1, 1, 3);
	block = catalogue_block(w.f.catalogue, w.cache->record->channels);
	block[100] ^= 1;
	begin(&w, 0);
	fixture_restart(&w.f, &r);
	assert_int_equal(r.dropped, 2);
	assert_null(w.f.store.caches);
	model_deinit(&w.model[0]);
	fixture_assert_empty(&w.f);
	fixture_close(&w.f);
}

/* After a while without an owner a sequence goes where its cache says so, and the cache with it, or
 * where it has no name that another session could ask for; one that is attached or parked on
 * purpose stays. */
static void expiry(void **state)
{
	struct sparq_msg_cache_create m = fixture_request("drop", "on_disconnect=drop");
	struct recovered r;
	struct cache *c;
	struct seq *s[2];
	struct world w;

	(void)state;
	world_open(&w, 1);
	begin(&w, 0);
	assert_int_equal(seq_create(w.cache, "named", FIXTURE_SESSION, &s[0], why), 0);
	assert_int_equal(cache_create(&w.f.store, w.f.user, &m, &c, why), 0);
	assert_int_equal(seq_create(c, "a", FIXTURE_SESSION, &s[0], why), 0);
	assert_int_equal(seq_create(c, "b", FIXTURE_SESSION, &s[1], why), 0);
	fixture_restart(&w.f, &r);
	assert_int_equal(r.sequences, 4);
	for (c = w.f.store.caches; strcmp(c->record->name, "drop") != 0; c = c->next)
		;
	assert_int_equal(seq_attach(c, "a", FIXTURE_SESSION, &s[0], why), 0);
	assert_int_equal(recover_expire(&w.f.store), 2);
	assert_int_equal(c->n_sequences, 1);
	assert_ptr_equal(c->first, s[0]);
	assert_int_equal(seq_drop(s[0], why), 0);
	/* Only "kept" is left, with its parked sequence. */
	c = w.f.store.caches;
	assert_null(c->next);
	assert_int_equal(c->n_sequences, 1);
	assert_int_equal(seq_drop(c->first, why), 0);
	model_deinit(&w.model[0]);
	fixture_assert_empty(&w.f);
	fixture_close(&w.f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(left_and_found), cmocka_unit_test(charges),
		cmocka_unit_test(over_the_limit), cmocka_unit_test(half_made),
		cmocka_unit_test(half_cut),       cmocka_unit_test(half_cut_layer),
		cmocka_unit_test(one_damaged),    cmocka_unit_test(parent_damaged),
		cmocka_unit_test(damaged),        cmocka_unit_test(tables_come_back),
		cmocka_unit_test(tables_damaged), cmocka_unit_test(expiry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
