/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Geometry, rows as sent, sums of V, and input that is not a number: what the
 * random shapes of test-exec meet too rarely, or not at all.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/map.h"
#include "shm/base.h"
#include "tests/kernels/rig.h"

#define DIM 64u

static struct kv_space_params fine(void)
{
	return (struct kv_space_params){ .heads = 8,
					 .kv_heads = 2,
					 .k_dim = DIM,
					 .v_dim = DIM,
					 .dtype = KV_F32,
					 .k_format = "f16",
					 .v_format = "f16",
					 .policy = kv_policy_find("dense"),
					 .sinks = 16 };
}

static struct kv_space space_of(struct kv_space_params p)
{
	struct kv_space s;
	char why[KV_ERROR_TEXT];

	assert_int_equal(kv_space_init(&s, &p, why), 0);
	return s;
}

/* ---- geometry --------------------------------------------------------------- */

static void refuse(struct kv_space_params p, int error, const char *want)
{
	char why[KV_ERROR_TEXT] = "";
	struct kv_space s;

	assert_int_equal(kv_space_init(&s, &p, why), error);
	assert_memory_equal(why, want, strlen(want)); /* a list of formats may grow at its end */
}

#define REFUSE(field, value, error, want)                                                          \
	do {                                                                                       \
		struct kv_space_params p = fine();                                                 \
		p.field = value;                                                                   \
		refuse(p, error, want);                                                            \
	} while (0)

/* A user sees these words, through the daemon's reply. */
static void test_refused(void **state)
{
	static const uint32_t r65[] = { 65, 128, 32, 0, 1, 0, 1024 };
	struct kv_space_params sparq = fine();

	REFUSE(k_dim, 100, -EINVAL, "k_dim=100: allowed are 64, 80, 96, 112, 128, 192, 256");
	REFUSE(k_dim, 576, -EOPNOTSUPP, "k_dim=576: allowed are 64, 80, 96, 112, 128, 192, 256");
	REFUSE(k_dim, 0, -EINVAL, "k_dim=0: allowed are 64, 80, 96, 112, 128, 192, 256");
	REFUSE(v_dim, 128, -EOPNOTSUPP, "v_dim=128: only k_dim, 64, in this release");
	REFUSE(kv_heads, 0, -EINVAL, "kv_heads=0: allowed is 1 to 65535");
	REFUSE(heads, 7, -EINVAL, "heads=7: allowed is a multiple of kv_heads, 2, up to 65535");
	REFUSE(heads, 0, -EINVAL, "heads=0: allowed is a multiple of kv_heads, 2, up to 65535");
	REFUSE(sinks, 17, -EINVAL, "sinks=17: allowed is 0 to 16");
	REFUSE(outliers, 9, -EINVAL, "outliers=9: allowed is 0 to 8");
	REFUSE(scale, -1, -EINVAL, "scale=-1: allowed is a positive number, or 0 for the default");
	REFUSE(scale, NAN, -EINVAL,
	       "scale=nan: allowed is a positive number, or 0 for the default");
	REFUSE(dtype, (enum kv_dtype)3, -EINVAL, "dtype=3: allowed are f32, f16, bf16");
	REFUSE(k_format, "f17", -EINVAL, "k_format=f17: allowed are f32, f16, bf16");
	REFUSE(v_format, NULL, -EINVAL, "v_format=: allowed are f32, f16, bf16");
	REFUSE(policy, NULL, -EINVAL, "no policy");
	sparq.policy = kv_policy_find("sparq");
	sparq.args = r65;
	refuse(sparq, -EINVAL, "r=65: at most the head dimension, 64");
}

static void test_space(void **state)
{
	struct kv_space s = space_of(fine());

	assert_int_equal(s.group, 4);
	assert_true(s.scale == 0.125f);
	assert_int_equal(s.needs, 0);
	assert_int_equal(kv_dense_bytes(&s, 1000), 1000 * 2 * DIM * 2 * 2);
	/* f16 K and V, and four bytes a channel of V's sum for each 128 rows */
	assert_int_equal(kv_row_bytes(&s), 2 * (2 * DIM * 2) + 2 * DIM * 4 / 128);
}

/* A page of the pool holds them; planes of two heads must not share an offset modulo 4 KiB. */
static void test_blocks(void **state)
{
	static const uint32_t dims[] = { 64, 80, 96, 112, 128, 192, 256 };

	for (unsigned f = 0; kv_format_at(f); f++)
		for (size_t i = 0; i < ARRAY_SIZE(dims); i++) {
			struct kv_space_params p = fine();
			struct kv_space s;

			p.k_dim = p.v_dim = dims[i];
			p.k_format = p.v_format = kv_format_at(f);
			s = space_of(p);
			for (unsigned tiles = 1; tiles <= KV_EXTENT_TILES; tiles++) {
				assert_int_equal(kv_extent_bytes(&s, tiles) % 64, 0);
				assert_int_not_equal(kv_extent_bytes(&s, tiles) % 4096, 0);
			}
			assert_int_equal(kv_chunk_bytes(&s, KV_CHUNK_ROWS) % 64, 0);
			assert_int_not_equal(kv_chunk_bytes(&s, KV_CHUNK_ROWS) % 4096, 0);
		}
}

/* ---- rows as sent ----------------------------------------------------------- */

static float *numbers(const struct kv_space *s, uint32_t rows)
{
	size_t n = (size_t)rows * 2 * s->kv_heads * DIM;
	float *x = malloc(n * sizeof(*x));

	for (size_t i = 0; i < n; i++)
		x[i] = (float)((i * 2654435761u) % 100003) / 100003 - 0.25f;
	return x;
}

/* V of a row of a head, among what was sent. */
static const float *v_sent(const struct kv_space *s, const float *sent, uint32_t row, uint32_t head)
{
	return sent + ((size_t)row * 2 * s->kv_heads + s->kv_heads + head) * DIM;
}

static void expect_row(const struct rig *r, const float *sent, uint32_t row)
{
	for (uint32_t h = 0; h < r->space->kv_heads; h++) {
		struct kv_piece p = { 0 };
		struct kv_map map;
		float x[DIM];

		kv_map_init(&map, r->space, &r->view, h);
		kv_map_find(&map, row, row + 1, &p);
		assert_true(kv_piece_is_recent(&p));
		p.kv->v_read(&p.v, p.at, 1, x);
		assert_memory_equal(x, v_sent(r->space, sent, row, h), sizeof(x));
		p.kk->k_read(&p.k, p.at, 1, x);
		assert_memory_equal(x, v_sent(r->space, sent, row, h) - r->space->kv_heads * DIM,
				    sizeof(x));
	}
}

/* The daemon's promise: sinks and tail bit for bit, and a fork's copy too. */
static void test_as_sent(void **state)
{
	struct kv_space s = space_of(fine());
	float *sent = numbers(&s, 300);
	struct rig a, b;

	assert_int_equal(rig_init(&a, &s, 512, 16), 0);
	assert_int_equal(rig_init(&b, &s, 512, 16), 0);
	rig_append(&a, sent, 300, 7);
	assert_int_equal(a.view.tail_first, 16 + 256);
	for (uint32_t row = 0; row < 300; row += row == 15 ? 257 : 1)
		expect_row(&a, sent, row);
	/* A fork of the first 16 rows and of the tail: other rows lie where they go. */
	rig_write(&b, sent + 100 * 4 * DIM, 16 + 28);
	b.view.tail_first = a.view.tail_first;
	b.view.rows = a.view.rows;
	kv_copy(&s, &a.view, &b.view, 0, 16);
	kv_copy(&s, &a.view, &b.view, 272, 28);
	for (uint32_t row = 0; row < 300; row += row == 15 ? 257 : 1)
		expect_row(&b, sent, row);
	rig_deinit(&a);
	rig_deinit(&b);
	free(sent);
}

/* ---- sums of V -------------------------------------------------------------- */

static void expect_sum(const struct rig *r, const float *sent, uint32_t limit, uint32_t from_want,
		       double tolerance)
{
	for (uint32_t h = 0; h < r->space->kv_heads; h++) {
		double sum[KV_MAX_DIM], want[DIM] = { 0 };
		struct kv_map map;
		uint32_t from;

		kv_map_init(&map, r->space, &r->view, h);
		kv_map_sum_v(&map, limit, sum, &from);
		for (uint32_t row = 0; row < limit; row++)
			for (uint32_t c = 0; c < DIM; c++)
				want[c] += (double)v_sent(r->space, sent, row, h)[c];
		for (uint32_t c = 0; c < DIM; c++)
			assert_true(fabs(sum[c] - want[c]) <= tolerance);
		assert_int_equal(from, from_want);
	}
}

/* The mean is of V as sent, whatever the format made of it; it outlives cuts and forks. */
static void test_sums(void **state)
{
	struct kv_space s = space_of(fine());
	float *sent = numbers(&s, 700);
	struct rig r;

	assert_int_equal(rig_init(&r, &s, 4096, 0), 0);
	rig_append(&r, sent, 10, 1);
	expect_sum(&r, sent, 10, 0, 1e-5);
	rig_append(&r, (char *)sent + 10 * 4 * DIM * sizeof(float), 590, 50);
	assert_int_equal(r.view.n_extents, 4);
	expect_sum(&r, sent, 600, 16 + 4 * 128, 1e-4);
	expect_sum(&r, sent, 16 + 4 * 128, 16 + 4 * 128, 1e-4);
	expect_sum(&r, sent, 400, 16 + 3 * 128, 0.05);
	expect_sum(&r, sent, 17, 0, 0.05);
	/* Cut inside the third tile: its own sum says too much. */
	rig_cut(&r, 300);
	expect_sum(&r, sent, 300, 16 + 2 * 128, 0.05);
	rig_append(&r, (char *)sent + (size_t)300 * 4 * DIM * sizeof(float), 127, 127);
	expect_sum(&r, sent, 427, 16 + 2 * 128, 0.05);
	/* The next tile's sum goes over it. */
	rig_append(&r, (char *)sent + (size_t)427 * 4 * DIM * sizeof(float), 1, 1);
	expect_sum(&r, sent, 428, 428, 0.05);
	rig_deinit(&r);
	free(sent);
}

/* ---- not numbers -------------------------------------------------------------- */

struct attended {
	float *y, lse[4];
	struct kv_result result[2];
	void *scratch;
};

static struct attended attend(const struct rig *r, const float *q, uint32_t n_q)
{
	struct kv_query query = { .q = q, .n_q = n_q, .first_limit = r->view.rows - n_q + 1 };
	struct attended a = { 0 };
	struct kv_plan plan;

	assert_int_equal(kv_plan_step(r->space, &r->view, &query, 0, 1, false, &plan), 0);
	a.scratch = aligned_alloc(64, 2 * kv_exec_scratch_bytes(r->space, &plan, &r->view, &query));
	rig_attend(r, &plan, &query, a.scratch, false, a.result);
	return a;
}

static void odd_values(const char *policy, float odd, uint32_t n_q)
{
	static const uint32_t args[] = { 16, 32, 8, KV_GROUP_SOFTMAX, 3, 0, 0 }; /* mean=rest */
	struct kv_space_params p = fine();
	struct kv_space s;
	float *sent, *q;
	struct attended a;
	struct rig r;

	p.policy = kv_policy_find(policy);
	p.args = args;
	p.dtype = KV_F32;
	s = space_of(p);
	sent = numbers(&s, 600);
	q = numbers(&s, n_q * 2);
	assert_int_equal(rig_init(&r, &s, 1024, 16), 0);
	/* The newest row, and the last query, are odd: all other queries are before it. */
	for (uint32_t c = 0; c < 4 * DIM; c++)
		sent[(size_t)599 * 4 * DIM + c] = odd;
	for (uint32_t c = 0; c < s.heads * DIM; c++)
		q[(size_t)(n_q - 1) * s.heads * DIM + c] = odd;
	rig_append(&r, sent, 599, 64);
	rig_write(&r, (char *)sent + (size_t)599 * 4 * DIM * sizeof(float), 1);
	a = attend(&r, q, n_q);
	for (uint32_t h = 0; h < 2; h++)
		for (size_t i = 0; i < (size_t)(n_q - 1) * s.group * DIM; i++)
			assert_true(isfinite(a.result[h].y[i]));
	free(a.scratch);
	rig_deinit(&r);
	free(sent);
	free(q);
}

/* A row that a query may not see does not reach it, not even as zero times infinity; and one
 * client's NaN is that client's result, not a crash. */
static void test_odd(void **state)
{
	static const char *const policy[] = { "dense", "sparq" };
	static const uint32_t n_q[] = { 1, 2, 16, 33 };
	const float odd[] = { NAN, INFINITY, -INFINITY, 3e38f };

	for (size_t i = 0; i < ARRAY_SIZE(policy); i++)
		for (size_t j = 0; j < ARRAY_SIZE(n_q); j++)
			for (size_t k = 0; k < ARRAY_SIZE(odd); k++)
				odd_values(policy[i], odd[k], n_q[j]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused), cmocka_unit_test(test_space),
		cmocka_unit_test(test_blocks),  cmocka_unit_test(test_as_sent),
		cmocka_unit_test(test_sums),    cmocka_unit_test(test_odd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
