/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where overwriting has no room: corrections of a table used up, bytes of the user or pages of the
 * pool at an end in the middle. Users rely on it that sums of V are right however often rows
 * changed, and that what could not be done changed nothing.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/overwrite.h"
#include "daemon/record.h"
#include "grown.h"
#include "kernels/map.h"
#include "shm/base.h"

#define KV_HEADS 2u
#define ROW_FLOATS (2 * KV_HEADS * GROWN_DIM)
#define EXTENT_ROWS (KV_EXTENT_TILES * KV_TILE_ROWS)
#define MOST_ROWS 512u /* overwritten at once, here */

static void begin(struct grown *w, size_t pool_bytes, size_t catalogue_bytes)
{
	struct sparq_msg_cache_create m = grown_request(KV_HEADS, "f32", "dense", "");

	grown_begin(w, &m, pool_bytes, catalogue_bytes);
}

/* Rows of which V is `by` more than it was at first. */
static int overwrite(struct grown *w, uint32_t row, uint32_t n, float by)
{
	static float kv[MOST_ROWS * ROW_FLOATS];
	const size_t stride = ROW_FLOATS * sizeof(*kv);
	struct kv_extent from[GROWN_EXTENTS], to[GROWN_EXTENTS];
	struct overwrite o;
	int r;

	grown_fill(w, kv, row, n, NULL);
	for (uint32_t i = 0; i < n * ROW_FLOATS; i++)
		kv[i] += i / (KV_HEADS * GROWN_DIM) % 2 ? by : 0;
	r = overwrite_begin(&o, w->seq, 0, row, n, from, to, GROWN_EXTENTS);
	if (r < 0)
		return r;
	overwrite_recent(&o, kv, stride);
	for (uint32_t h = 0; overwrite_has_heads(&o) && h < KV_HEADS; h++)
		overwrite_head(&o, h, kv, stride);
	overwrite_commit(&o);
	return 0;
}

/* ---- corrections ---------------------------------------------------------------------- */

/* Of all whole tiles' sums the last is of all rows before: what V was sent, and `more`. */
static void expect_sums(struct grown *w, const double *sent, double more)
{
	struct kv_extent extent[GROWN_EXTENTS];
	struct kv_view view;

	assert_int_equal(seq_view(w->seq, 0, w->rows, extent, GROWN_EXTENTS, &view), 0);
	for (uint32_t h = 0; h < KV_HEADS; h++) {
		double sum[KV_MAX_DIM];
		struct kv_map map;
		uint32_t from;

		kv_map_init(&map, cache_layer(w->cache, 0), &view, h);
		kv_map_sum_v(&map, w->rows, sum, &from);
		assert_int_equal(from, view.tail_first);
		for (uint32_t c = 0; c < GROWN_DIM; c++)
			assert_true(fabs(sum[c] - sent[h * GROWN_DIM + c] - more) < 0.01);
	}
}

static void add_sent(double *sent, uint32_t row, uint32_t n)
{
	for (uint32_t i = row; i < row + n; i++)
		for (uint32_t c = 0; c < KV_HEADS * GROWN_DIM; c++)
			sent[c] += (double)grown_value(i, KV_HEADS * GROWN_DIM + c);
}

/* How many of them the extents name, each counted once; and extents without one, behind the first,
 * in which rows changed. */
static unsigned count_corrections(struct grown *w, unsigned *ret_right)
{
	struct kv_extent extent[GROWN_EXTENTS];
	struct kv_view view;
	unsigned n = 0;

	*ret_right = 0;
	assert_int_equal(seq_view(w->seq, 0, w->rows, extent, GROWN_EXTENTS, &view), 0);
	for (uint32_t i = 0; i < view.n_extents; i++) {
		bool seen = !extent[i].correction;

		for (uint32_t j = 0; j < i; j++)
			seen |= extent[j].correction == extent[i].correction;
		n += !seen;
		*ret_right += i > 0 && !extent[i].correction;
	}
	return n;
}

/* Rows in front change each time that an extent was added, so each lacks something else. Behind the
 * last correction that a table has room for, extents are copied instead. */
static void all_corrections_used(void **state)
{
	const unsigned extents = TABLE_CORRECTIONS + 4;
	double sent[KV_HEADS * GROWN_DIM] = { 0 };
	uint32_t rows = 16 + EXTENT_ROWS + 16;
	unsigned n = 0, right = 0;
	struct grown w;

	(void)state;
	begin(&w, 128 * MIB, 8 * MIB);
	grown_append(&w, rows, NULL);
	add_sent(sent, 0, rows);
	for (unsigned i = 0; i < extents; i++) {
		grown_append(&w, rows + EXTENT_ROWS, NULL);
		add_sent(sent, rows, EXTENT_ROWS);
		rows += EXTENT_ROWS;
		assert_int_equal(overwrite(&w, 16 + i, 1, 1), 0);
		expect_sums(&w, sent, i + 1);
		n = count_corrections(&w, &right);
		assert_true(right == 0 || n == TABLE_CORRECTIONS);
	}
	assert_int_equal(n, TABLE_CORRECTIONS);
	assert_true(right > 0); /* copied: else they were never used up */
	grown_end(&w);
}

/* ---- no room ---------------------------------------------------------------------------- */

static void expect_nothing_changed(struct grown *w, const struct grown_answer *before,
				   uint64_t charged, uint64_t used)
{
	struct grown_answer now = grown_attend(w);

	assert_memory_equal(&now, before, sizeof(now));
	assert_int_equal(w->f.user->charged[USER_BYTES], charged);
	assert_int_equal(w->f.pool.used_bytes, used);
}

/* The user's bytes end at every place where some are taken. */
static void bytes_end(void **state)
{
	struct grown_answer before, now;
	uint64_t charged, used, wanted = 0;
	unsigned refused = 0;
	struct grown w;
	int r;

	(void)state;
	begin(&w, 24 * MIB, 2 * MIB);
	grown_append(&w, 5000, NULL);
	before = grown_attend(&w);
	charged = w.f.user->charged[USER_BYTES];
	used = w.f.pool.used_bytes;
	for (uint64_t room = 0;; room += 4096) {
		w.f.user->limit[USER_BYTES] = charged + room;
		w.seq->shortage = SHORTAGE_NONE;
		r = overwrite(&w, 10, 500, 1);
		if (r == 0)
			break;
		assert_int_equal(r, -ENOSPC);
		expect_nothing_changed(&w, &before, charged, used);
		/* All that it takes, not the page that was refused: who makes room for it does so
		 * once. */
		wanted = MAX(wanted, w.seq->shortage.bytes);
		refused++;
	}
	assert_true(refused > 10);
	assert_true(wanted > 0);
	now = grown_attend(&w);
	assert_memory_not_equal(&now, &before, sizeof(now));
	grown_end(&w);
}

/* Pages end: others hold them all, and give them back one by one. */
static void pages_end(void **state)
{
	static page_ref taken[4096];
	struct page_size size = { .whole = 64 * KIB };
	uint64_t charged, used;
	struct grown_answer before;
	unsigned n = 0, refused = 0;
	struct grown w;

	(void)state;
	begin(&w, 24 * MIB, 2 * MIB);
	grown_append(&w, 5000, NULL);
	before = grown_attend(&w);
	charged = w.f.user->charged[USER_BYTES];
	while (n < ARRAY_SIZE(taken) && pool_take(&w.f.pool, 0, size, 9, &taken[n]) == 0)
		n++;
	for (int r = -1; r < 0; refused += r < 0) {
		used = w.f.pool.used_bytes;
		w.seq->shortage = SHORTAGE_NONE;
		r = overwrite(&w, 10, 500, 1);
		if (r == 0)
			break;
		assert_int_equal(r, -ENOSPC);
		expect_nothing_changed(&w, &before, charged, used);
		assert_true(n > 0);
		pool_put(&w.f.pool, taken[--n]);
	}
	assert_true(refused > 1);
	while (n)
		pool_put(&w.f.pool, taken[--n]);
	grown_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_corrections_used),
		cmocka_unit_test(bytes_end),
		cmocka_unit_test(pages_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
