/* SPDX-License-Identifier: Apache-2.0 */
/* See grown.h. */
#include "grown.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/base.h"

#define STEP 128u /* rows appended at once */

char grown_why[SPARQ_ERROR_TEXT];

struct sparq_msg_cache_create grown_request(uint32_t kv_heads, const char *format,
					    const char *policy, const char *options)
{
	struct sparq_msg_cache_create m = fixture_request("c", options);

	m.layers = 1;
	m.kv_heads = kv_heads;
	m.heads = kv_heads * GROWN_GROUP;
	snprintf(m.k_format, sizeof(m.k_format), "%s", format);
	snprintf(m.v_format, sizeof(m.v_format), "%s", format);
	snprintf(m.policy, sizeof(m.policy), "%s", policy);
	return m;
}

void grown_begin(struct grown *w, const struct sparq_msg_cache_create *m, size_t pool_bytes,
		 size_t catalogue_bytes)
{
	assert_true(m->kv_heads <= GROWN_MOST_KV_HEADS);
	*w = (struct grown){ .kv_heads = m->kv_heads };
	fixture_open(&w->f, pool_bytes, catalogue_bytes);
	if (cache_create(&w->f.store, w->f.user, m, &w->cache, grown_why) < 0 ||
	    seq_create(w->cache, "", FIXTURE_SESSION, &w->seq, grown_why) < 0)
		fail_msg("%s", grown_why);
}

void grown_end(struct grown *w)
{
	assert_int_equal(seq_drop(w->seq, grown_why), 0);
	cache_unref(w->cache);
	fixture_assert_empty(&w->f);
	fixture_close(&w->f);
}

/* ---- rows ------------------------------------------------------------------------------- */

float grown_value(uint32_t row, uint32_t i)
{
	uint32_t x = row * 2654435761u ^ i * 2246822519u;

	x = (x ^ x >> 15) * 3266489917u;
	return (float)(int32_t)(x >> 8 & 0xfff) / 2048 - 1;
}

void grown_fill(const struct grown *w, float *kv, uint32_t row, uint32_t n,
		const struct grown_range *wrong)
{
	uint32_t width = 2 * w->kv_heads * GROWN_DIM;

	for (uint32_t i = 0; i < n; i++, kv += width) {
		bool is_wrong = wrong && row + i - wrong->row < wrong->n;

		for (uint32_t c = 0; c < width; c++) {
			float x = grown_value(row + i, c);

			kv[c] = is_wrong ? 3 - x : x;
		}
	}
}

static void flush(struct grown *w)
{
	while (seq_flush_due(w->seq, 0)) {
		struct kv_extent all[GROWN_EXTENTS], extent;
		struct kv_view view;
		unsigned slot;

		assert_int_equal(seq_flush_begin(w->seq, 0, &extent, &slot), 0);
		assert_int_equal(seq_view(w->seq, 0, w->rows, all, GROWN_EXTENTS, &view), 0);
		for (uint32_t h = 0; h < w->kv_heads; h++)
			kv_flush(cache_layer(w->cache, 0), &view, &extent, slot, h);
		seq_flush_commit(w->seq, 0);
	}
}

void grown_append(struct grown *w, uint32_t rows, const struct grown_range *wrong)
{
	static float kv[STEP * 2 * GROWN_MOST_KV_HEADS * GROWN_DIM];
	size_t stride = 2 * w->kv_heads * GROWN_DIM * sizeof(*kv);

	while (w->rows < rows) {
		uint32_t n = MIN(rows - w->rows, STEP);
		struct kv_extent extent[GROWN_EXTENTS];
		struct kv_view view;

		assert_int_equal(seq_reserve(w->seq, 0, n), 0);
		assert_int_equal(seq_view(w->seq, 0, w->rows, extent, GROWN_EXTENTS, &view), 0);
		grown_fill(w, kv, w->rows, n, wrong);
		kv_write(cache_layer(w->cache, 0), &view, w->rows, n, kv, stride);
		seq_commit(w->seq, 0, w->rows + n);
		w->rows += n;
		flush(w);
	}
}

/* ---- attention ---------------------------------------------------------------------------- */

struct grown_answer grown_attend(struct grown *w)
{
	static float q[GROWN_MOST_KV_HEADS * GROWN_GROUP * GROWN_DIM];
	const struct kv_space *space = cache_layer(w->cache, 0);
	const struct kv_query query = { .q = q, .n_q = 1, .first_limit = w->rows };
	void *scratch = aligned_alloc(64, GROWN_LANE);
	struct kv_extent extent[GROWN_EXTENTS];
	struct grown_answer a = { .bytes = 0 };
	struct kv_view view;
	struct kv_plan plan;

	for (size_t i = 0; i < ARRAY_SIZE(q); i++)
		q[i] = grown_value(7, (uint32_t)i) * 2;
	assert_int_equal(seq_view(w->seq, 0, w->rows, extent, GROWN_EXTENTS, &view), 0);
	assert_int_equal(kv_plan_step(space, &view, &query, 0, 1, false, &plan), 0);
	assert_true(kv_exec_scratch_bytes(space, &plan, &view, &query) <= GROWN_LANE);
	for (uint32_t h = 0; h < w->kv_heads; h++) {
		struct kv_exec e;

		kv_exec_init(&e, space, &plan, &view, &query, h, scratch);
		for (uint32_t i = 0; i < e.shares; i++)
			kv_exec_share(&e, i);
		kv_exec_finish(&e);
		memcpy(&a.y[h * GROWN_GROUP * GROWN_DIM], e.result.y,
		       GROWN_GROUP * GROWN_DIM * sizeof(float));
		memcpy(&a.lse[h * GROWN_GROUP], e.result.lse, GROWN_GROUP * sizeof(float));
		for (unsigned p = 0; p < KV_PLANES; p++)
			a.bytes += e.result.bytes[p];
	}
	free(scratch);
	return a;
}
