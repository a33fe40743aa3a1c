/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One row of the kernel table: blocks of every shape are written, read, scored
 * and attended to. What was decoded must lie within the format's own bound of
 * what was sent; every other stage must agree with the decoded rows as closely
 * as f32 sums allow. The executor relies on each of these for its results, the
 * daemon on nothing being touched outside a slot.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "tests/kernels/check-rows.h"
#include "tests/kernels/reference.h"

const uint32_t check_dims[] = { 64, 80, 96, 112, 128, 192, 256 };
const unsigned check_n_dims = ARRAY_SIZE(check_dims);
const uint32_t check_heads[] = { 1, 2, 3, 4, 5, 6, 7, 8, 16 };
const unsigned check_n_heads = ARRAY_SIZE(check_heads);

/* Writing one slot anew leaves the others' rows as they are. */
static void check_slots(struct check *c, const struct kv_kernels *k, struct field *f, bool is_k)
{
	unsigned slot = check_below(c, f->block.tiles);
	size_t tile = (size_t)f->block.tile_rows * f->dim, n = (size_t)f->rows * f->dim;
	float *again = calloc(n, sizeof(float)), *x = calloc(tile, sizeof(float));
	void (*write)(const struct kv_block *, unsigned, const float *) =
		is_k ? k->k_write : k->v_write;

	for (size_t i = 0; i < tile; i++)
		x[i] = 7 * check_unit(c);
	write(&f->block, slot, x);
	(is_k ? k->k_read : k->v_read)(&f->block, 0, f->rows, again);
	for (unsigned s = 0; s < f->block.tiles; s++)
		if (s != slot)
			check_true(c, "another slot changed",
				   !memcmp(again + s * tile, f->read + s * tile,
					   tile * sizeof(float)));
	write(&f->block, slot, f->sent + slot * tile);
	(is_k ? k->k_read : k->v_read)(&f->block, 0, f->rows, again);
	check_true(c, "the same rows written again read alike",
		   !memcmp(again, f->read, n * sizeof(float)));
	free(again);
	free(x);
}

/* Rows to look at: all of a few, of many some and both ends. */
static uint32_t row_to_check(struct check *c, uint32_t n, uint32_t i)
{
	return n <= 40 ? i : i == 0 ? 0 : i == 1 ? n - 1 : check_below(c, n);
}

void field_fill(struct check *c, float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = check_normal(c);
}

/* Outside [0, n) of each head's row of results nothing may be written. */
static bool only_rows_written(const float *p, const struct call *a, float mark)
{
	for (uint32_t h = 0; h < a->heads; h++)
		for (uint32_t i = a->n; i < a->stride; i++)
			if (memcmp(&p[h * a->stride + i], &mark, sizeof(mark)))
				return false;
	return true;
}

/* What k_dot and v_axpy may round numbers by: see k_max_rel and score_max_rel. */
static double rounding(const struct kv_kernels *k, unsigned level)
{
	return k->plain ? 0 : level ? k->score_max_rel / 16 : 0x1p-16;
}

void check_dot(struct check *c, const struct kv_kernels *k, const struct field *f,
	       const struct call *a)
{
	size_t q_stride = f->dim + 3;
	struct guarded q = guarded_new(((a->heads - 1) * q_stride + f->dim) * sizeof(float));
	struct guarded p = guarded_new((size_t)a->heads * a->stride * sizeof(float));
	float *out = p.data, mark = 77;

	field_fill(c, q.data, q.size / sizeof(float));
	for (size_t i = 0; i < p.size / sizeof(float); i++)
		out[i] = mark;
	k->k_dot(&f->block, a->row, a->n, q.data, q_stride, a->heads, out, a->stride, a->level);
	for (uint32_t h = 0; h < a->heads; h++) {
		const float *qh = (float *)q.data + h * q_stride;

		for (uint32_t i = 0; i < MIN(a->n, 40); i++) {
			uint32_t at = row_to_check(c, a->n, i);
			size_t from = (size_t)(a->row + at) * f->dim;
			const float *x = (a->level ? f->sent : f->read) + from;
			/* Folding subtracts sums of the size of the group's largest. */
			double bound = 4e-6 * ref_dot_size(qh, f->size + from, f->dim) + 1e-9;

			bound += rounding(k, a->level) *
				 ref_largest(qh, f->range + from, 1, f->dim, f->dim);
			for (uint32_t d = 0; a->level && d < f->dim; d++)
				bound += fabsf(qh[d]) *
					 field_bound(k, f, 1.06f * k->score_max_rel, from + d);
			if (!check_near(c, "k_dot", out[h * a->stride + at], ref_dot(qh, x, f->dim),
					bound))
				break;
		}
	}
	check_true(c, "k_dot wrote beyond its rows", only_rows_written(out, a, mark));
	check_true(c, "k_dot wrote before its output", guarded_intact(&p));
	guarded_free(&q);
	guarded_free(&p);
}

/* A coefficient may be rounded to 1/127 of the largest of its tile: see score_max_rel. */
static double score_bound(const struct kv_kernels *k, const struct field *f, const float *coef,
			  const uint16_t *channel, uint32_t r, size_t from)
{
	double bound = 1e-9, largest = 0;

	for (uint32_t j = 0; j < r; j++) {
		size_t at = from + channel[j];

		bound += fabsf(coef[j]) *
			 (field_bound(k, f, k->score_max_rel, at) + 4e-6 * f->size[at]);
		largest = fmax(largest, fabsf(coef[j]) * f->range[at]);
	}
	return bound + (k->plain || r == 1 ? 0 : r * largest * k->score_max_rel / 16);
}

/* r of dim channels, ascending. */
void check_channels(struct check *c, uint32_t dim, uint32_t r, uint16_t *ret)
{
	for (uint32_t i = 0, n = 0; n < r; i++)
		if (check_below(c, dim - i) < r - n)
			ret[n++] = (uint16_t)i;
}

void check_score(struct check *c, const struct kv_kernels *k, const struct field *f,
		 const struct call *a, uint32_t r)
{
	size_t coef_stride = r + 1;
	struct guarded coef = guarded_new(a->heads * coef_stride * sizeof(float));
	struct guarded channel = guarded_new(r * sizeof(uint16_t));
	struct guarded p = guarded_new((size_t)a->heads * a->stride * sizeof(float));
	uint16_t *ch = channel.data;
	float *out = p.data, mark = 77;

	field_fill(c, coef.data, coef.size / sizeof(float));
	check_channels(c, f->dim, r, ch);
	for (size_t i = 0; i < p.size / sizeof(float); i++)
		out[i] = mark;
	k->k_score_dims(&f->block, a->row, a->n, coef.data, coef_stride, ch, r, a->heads, out,
			a->stride);
	for (uint32_t h = 0; h < a->heads; h++) {
		const float *w = (float *)coef.data + h * coef_stride;

		for (uint32_t i = 0; i < MIN(a->n, 40); i++) {
			uint32_t at = row_to_check(c, a->n, i);
			size_t from = (size_t)(a->row + at) * f->dim;

			if (!check_near(c, "k_score_dims", out[h * a->stride + at],
					ref_score(w, ch, r, f->sent + from),
					score_bound(k, f, w, ch, r, from)))
				break;
		}
	}
	check_true(c, "k_score_dims wrote beyond its rows", only_rows_written(out, a, mark));
	check_true(c, "k_score_dims wrote before its output", guarded_intact(&p));
	guarded_free(&coef);
	guarded_free(&channel);
	guarded_free(&p);
}

void check_axpy(struct check *c, const struct kv_kernels *k, const struct field *f,
		const struct call *a)
{
	size_t y_stride = f->dim + 5;
	struct guarded p =
		guarded_new(((size_t)(a->heads - 1) * a->stride + a->n + 1) * sizeof(float));
	struct guarded y = guarded_new(((a->heads - 1) * y_stride + f->dim) * sizeof(float));
	const float *rows = (a->level ? f->sent : f->read) + (size_t)a->row * f->dim;
	const float *size = f->size + (size_t)a->row * f->dim;
	const float *range = f->range + (size_t)a->row * f->dim;
	float *before = malloc(y.size);

	field_fill(c, p.data, p.size / sizeof(float));
	field_fill(c, y.data, y.size / sizeof(float));
	if (a->n && a->n % 2 == 0) /* a row that outweighs the others */
		((float *)p.data)[a->n / 2] = 300;
	memcpy(before, y.data, y.size);
	k->v_axpy(&f->block, a->row, a->n, p.data, a->stride, a->heads, y.data, y_stride, a->level);
	for (uint32_t h = 0; h < a->heads; h++) {
		const float *w = (float *)p.data + (size_t)h * a->stride;

		for (uint32_t d = 0; d < f->dim; d += 1 + check_below(c, 5)) {
			size_t at = h * y_stride + d;
			double bound = 1e-6 + 1.2e-7 * a->n * fabsf(before[at]);

			bound += rounding(k, a->level) *
				 ref_largest(w, range + d, f->dim, a->n, 64);
			for (uint32_t i = 0; i < a->n; i++) {
				size_t e = (size_t)i * f->dim + d;

				bound += fabsf(w[i]) *
					 (4e-6 * size[e] +
					  (a->level ? field_bound(k, f, k->score_max_rel,
								  (size_t)a->row * f->dim + e)
						    : 0));
			}
			if (!check_near(c, "v_axpy", ((float *)y.data)[at],
					before[at] + ref_axpy(w, rows, a->n, f->dim, d), bound))
				break;
		}
		for (uint32_t d = f->dim; h + 1 < a->heads && d < y_stride; d++)
			check_true(c, "v_axpy wrote beyond a row",
				   ((float *)y.data)[h * y_stride + d] == before[h * y_stride + d]);
	}
	check_true(c, "v_axpy wrote before its output", guarded_intact(&y));
	free(before);
	guarded_free(&p);
	guarded_free(&y);
}

/* The same rows in one call, row by row and with a neighbour to prefetch: the same bits. */
void check_same_bits(struct check *c, const struct kv_kernels *k, const struct field *f)
{
	struct kv_block with_next = f->block;
	uint32_t n = MIN(f->rows, 130), heads = 1 + check_below(c, 7);
	float *q = malloc(heads * f->dim * sizeof(*q)), *p = calloc(3 * heads * n, sizeof(*p));
	uint16_t channel[3] = { 0, 5, (uint16_t)(f->dim - 1) };

	field_fill(c, q, (size_t)heads * f->dim);
	k->k_dot(&f->block, 0, n, q, f->dim, heads, p, n, 0);
	for (uint32_t i = 0; i < n; i++)
		k->k_dot(&f->block, i, 1, q, f->dim, heads, p + heads * n + i, n, 0);
	check_true(c, "k_dot depends on the rows asked for",
		   !memcmp(p, p + heads * n, heads * n * sizeof(*p)));
	k->k_score_dims(&f->block, 0, n, q, f->dim, channel, 3, heads, p, n);
	with_next.next = f->block.base;
	for (uint32_t i = 0; i < n; i += 50)
		k->k_score_dims(&with_next, i, MIN(50, n - i), q, f->dim, channel, 3, heads,
				p + heads * n + i, n);
	check_true(c, "k_score_dims depends on the rows asked for",
		   !memcmp(p, p + heads * n, heads * n * sizeof(*p)));
	k->k_prefetch(&f->block, f->rows - 1);
	free(q);
	free(p);
}

static void check_calls(struct check *c, const struct kv_kernels *k, const struct field *kf,
			const struct field *vf)
{
	uint32_t first = check_below(c, check_n_heads);
	static const uint32_t counts[] = { 0, 1, 2, 15, 64, 127, 128, 129, 1023, 1024 };

	for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
		struct call a = { .n = counts[i],
				  .heads = check_heads[(first + i) % check_n_heads] };

		if (a.n > kf->rows)
			break;
		a.row = check_below(c, kf->rows - a.n + 1);
		a.stride = a.n + 1 + check_below(c, 20);
		for (a.level = 0; a.level < k->levels; a.level++) {
			check_case(c,
				   "%s %s dim %u tiles %u x %u needs %u: row %u n %u heads %u "
				   "level %u",
				   k->format, k->isa, kf->dim, kf->block.tiles, kf->block.tile_rows,
				   kf->block.needs, a.row, a.n, a.heads, a.level);
			check_dot(c, k, kf, &a);
			check_axpy(c, k, vf, &a);
		}
		check_score(c, k, kf, &a, 1);
		check_score(c, k, kf, &a, 2 + check_below(c, 40));
		check_score_softmax(c, k, kf, MIN(a.heads, 16), 1 + check_below(c, 40));
		check_score_rank(c, k, kf, MIN(a.heads, KV_RANK_HEADS), 1 + check_below(c, 40));
	}
	check_same_bits(c, k, kf);
}

static void check_shape(struct check *c, const struct kv_kernels *k, const struct block_shape *s)
{
	struct field kf, vf;

	fields_open(c, k, s, &kf, &vf);
	check_slots(c, k, &kf, true);
	check_slots(c, k, &vf, false);
	check_calls(c, k, &kf, &vf);
	fields_close(c, &kf, &vf);
}

/* Bytes are what sparq-formats(7) counts: a row's elements, nothing more, but padding. */
static void check_bytes(struct check *c, const struct kv_kernels *k)
{
	uint64_t one[KV_PLANES] = { 0 }, twice[KV_PLANES] = { 0 };

	check_case(c, "%s %s bytes", k->format, k->isa);
	k->bytes_score(128, 1024, 8, 32, one);
	k->bytes_score(128, 2048, 16, 32, twice);
	for (unsigned i = 0; i < KV_PLANES; i++)
		check_true(c, "bytes_score is linear", twice[i] == 2 * one[i]);
	check_true(c, "scoring reads runs", one[KV_PLANE_SCORE] > 0 && !one[KV_PLANE_K]);
	k->bytes_k(128, 1, 1, 0, one);
	check_true(c, "attention reads rows", one[KV_PLANE_K] > 0);
}

/* Each dimension with some of the patterns, each pattern with some dimensions; check-random.c mixes
 * them all. */
void check_rows(struct check *c, const struct kv_kernels *k)
{
	check_bytes(c, k);
	check_special(c, k);
	for (unsigned i = 0; i < check_n_dims; i++) {
		struct block_shape s = { .dim = check_dims[i], .tile_rows = KV_TILE_ROWS };

		for (unsigned p = 0; p < PATTERNS && !check_enough(c); p++) {
			s.pattern = p;
			s.tiles = p == i % PATTERNS ? KV_EXTENT_TILES : 1;
			s.needs = (i + p) & 1;
			if ((i + p) % 3 == 0 || s.tiles > 1)
				check_shape(c, k, &s);
		}
		for (s.tile_rows = KV_MAX_SINKS;
		     k->plain && s.tile_rows <= KV_CHUNK_ROWS && !check_enough(c);
		     s.tile_rows = (uint16_t)(s.tile_rows * 4)) {
			s.tiles = 1;
			s.needs = s.pattern = 0;
			check_shape(c, k, &s);
		}
	}
}
