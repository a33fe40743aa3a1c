/* SPDX-License-Identifier: Apache-2.0 */
/*
 * a[h][i] = sum over j < r of coef[h][j] * K[row + i][channel[j]], from the
 * scoring plane: each channel's numbers of a block lie in one run.
 *
 * Numbers are widened once for up to four heads; scale and min are folded into
 * coefficients and one bias per (head, tile), or where they are a row's own
 * (FMT_GROUP) applied to its numbers. The walk over r runs at once is
 * what limits, so the runs of the block that comes next (b->next) are asked
 * for whole, one after the other, a few lines at each step of this one.
 *
 * Work goes in units of rows that start at multiples of VL. What a unit has
 * outside [row, row + n) is computed and dropped: it is inside the block.
 */
#pragma once

#include "kernels/codec.h"

#define SCAN_HEADS 4u

/* Lines to ask for, spread evenly over the units of a block. */
struct scan_ahead {
	struct kv_block next;
	uint32_t units; /* of a block: pieces of a run */
	uint32_t piece; /* bytes */
};

struct scan {
	const struct kv_block *b;
	const uint16_t *channel;
	uint32_t r;
	const float *w;                 /* [r][SCAN_HEADS] */
	const float *bias;              /* [SCAN_HEADS] */
	const struct scan_ahead *ahead; /* NULL: nothing follows */
};

KV_FN void scan_prefetch(const struct scan *s, uint32_t at)
{
	const struct scan_ahead *ahead = s->ahead;
	uint32_t j = at / ahead->units, piece = at % ahead->units;
	const uint8_t *run = fmt_run(&ahead->next, s->channel[j]) + piece * ahead->piece;

	for (uint32_t i = 0; i < ahead->piece; i += KV_LINE)
		__builtin_prefetch(run + i, 0, 2);
}

KV_FN vf scan_load(const struct scan *s, uint32_t channel, const uint8_t *run, uint32_t row)
{
#if FMT_GATHERS
	if (!run)
		return fmt_gather(s->b, row, channel);
#endif
	return fmt_run_load(run, row);
}

#if FMT_GROUP
/* Parameters of `vecs` x VL rows in the group of one channel. */
KV_FN void scan_group(const struct scan *s, uint32_t row, uint32_t channel, unsigned vecs,
		      vf *ret_scale, vf *ret_min)
{
	KV_EACH (v, vecs)
		vf_gather_pair(fmt_group_pair(s->b, row + v * VL, channel / FMT_GROUP),
			       sizeof(struct kv_pair), &ret_scale[v], &ret_min[v]);
}
#endif

KV_FN void scan_unit(const struct scan *s, uint32_t row, unsigned vecs, unsigned heads, bool runs,
		     float *a, size_t a_stride)
{
	uint32_t at = s->ahead ? row / (KV_SCAN_VECS * VL) * s->r : 0;
	vf acc[SCAN_HEADS][4];
#if FMT_GROUP
	vf scale[4], min[4];

	scan_group(s, row, s->channel[0], vecs, scale, min);
#endif
	KV_EACH (h, heads)
		KV_EACH (v, vecs)
			acc[h][v] = vf_set(s->bias[h]);
	for (uint32_t j = 0; j < s->r; j++) {
		const uint8_t *run = fmt_run(s->b, s->channel[j]);
		const float *w = s->w + j * SCAN_HEADS;
		vf x[4];

#if FMT_GROUP
		if (j && s->channel[j] / FMT_GROUP != s->channel[j - 1] / FMT_GROUP)
			scan_group(s, row, s->channel[j], vecs, scale, min);
#endif
		KV_EACH (v, vecs)
			x[v] = scan_load(s, s->channel[j], runs ? run : NULL, row + v * VL);
#if FMT_GROUP
		KV_EACH (v, vecs)
			x[v] = vf_fma(x[v], scale[v], min[v]);
#endif
		KV_EACH (h, heads) {
			vf c = vf_set(w[h]);

			KV_EACH (v, vecs)
				acc[h][v] = vf_fma(x[v], c, acc[h][v]);
		}
		if (s->ahead)
			scan_prefetch(s, at + j);
	}
	KV_EACH (h, heads)
		KV_EACH (v, vecs)
			vf_store(a + h * a_stride + v * VL, acc[h][v]);
}

/* Rows [row, end) of one tile for `heads` <= SCAN_HEADS. a[0] is of `first`. */
KV_FN void scan_rows(const struct scan *s, uint32_t first, uint32_t row, uint32_t end,
		     unsigned heads, bool runs, float *a, size_t a_stride)
{
	const uint32_t unit = KV_SCAN_VECS * VL, rows = kv_block_rows(s->b);
	uint32_t at = row / unit * unit;

	while (at < end) {
		uint32_t n = at + unit <= rows ? unit : VL;
		float edge[SCAN_HEADS * KV_SCAN_VECS * VL];
		bool inside = at >= row && at + n <= end;
		float *to = inside ? a + (at - first) : edge;
		size_t stride = inside ? a_stride : unit;

		if (n == unit)
			scan_unit(s, at, KV_SCAN_VECS, heads, runs, to, stride);
		else
			scan_unit(s, at, 1, heads, runs, to, stride);
		if (!inside) {
			uint32_t from = MAX(at, row), to_row = MIN(at + n, end);

			for (unsigned h = 0; h < heads && from < to_row; h++)
				memcpy(a + h * a_stride + (from - first),
				       edge + h * unit + (from - at), (to_row - from) * sizeof(*a));
		}
		at += n;
	}
}

/* The coefficients of up to four heads side by side; of a tile, if numbers are codes. */
KV_FN void scan_fold(const struct kv_block *b, uint32_t tile, const float *coef, size_t coef_stride,
		     const uint16_t *channel, uint32_t r, uint32_t heads, float *w, float *bias)
{
	for (uint32_t h = 0; h < SCAN_HEADS; h++)
		bias[h] = 0;
	for (uint32_t j = 0; j < r; j++) {
		float scale = 1, min = 0;
#if !FMT_PLAIN && !FMT_GROUP
		fmt_run_params(b, tile, channel[j], &scale, &min);
#endif
		KV_EACH (h, SCAN_HEADS) {
			float c = h < heads ? coef[h * coef_stride + j] : 0;

			w[j * SCAN_HEADS + h] = c * scale;
			bias[h] += c * min;
		}
	}
}

KV_FN void scan_tile(const struct kv_block *b, const struct scan_ahead *ahead, uint32_t first,
		     uint32_t row, uint32_t end, const float *coef, size_t coef_stride,
		     const uint16_t *channel, uint32_t r, uint32_t heads, bool runs, float *a,
		     size_t a_stride)
{
	float w[KV_MAX_DIM * SCAN_HEADS], bias[SCAN_HEADS];

	for (uint32_t h = 0; h < heads;) {
		uint32_t n = heads - h >= 4 ? 4 : heads - h >= 2 ? 2 : 1;
		struct scan s = { b, channel, r, w, bias, h == 0 ? ahead : NULL };
		float *to = a + h * a_stride;

		scan_fold(b, row / b->tile_rows, coef + h * coef_stride, coef_stride, channel, r, n,
			  w, bias);
		if (n == 4)
			scan_rows(&s, first, row, end, 4, runs, to, a_stride);
		else if (n == 2)
			scan_rows(&s, first, row, end, 2, runs, to, a_stride);
		else
			scan_rows(&s, first, row, end, 1, runs, to, a_stride);
		h += n;
	}
}

static void stage_k_score_dims(const struct kv_block *b, uint32_t row, uint32_t n,
			       const float *coef, size_t coef_stride, const uint16_t *channel,
			       uint32_t r, uint32_t heads, float *a, size_t a_stride)
{
	uint32_t units = kv_block_rows(b) / (KV_SCAN_VECS * VL), end = row + n;
	struct scan_ahead ahead = { *b, units, 0 };
	bool runs = fmt_runs(b);
	bool any = runs && b->next && units > 0 && fmt_run_bytes(b) >= KV_LINE;

	ahead.next.base = (void *)(uintptr_t)b->next;
	ahead.piece = any ? (uint32_t)(fmt_run_bytes(b) / units) : 0;
	for (uint32_t at = row; at < end;) {
		uint32_t to = MIN(end, (at / b->tile_rows + 1) * b->tile_rows);
		const struct scan_ahead *next = any ? &ahead : NULL;

		if (!FMT_GATHERS || runs)
			scan_tile(b, next, row, at, to, coef, coef_stride, channel, r, heads, true,
				  a, a_stride);
		else
			scan_tile(b, next, row, at, to, coef, coef_stride, channel, r, heads, false,
				  a, a_stride);
		at = to;
	}
}

/* Every channel: q . K from the upper plane. */
static inline void scan_all(const struct kv_block *b, uint32_t row, uint32_t n, const float *q,
			    size_t q_stride, uint32_t heads, float *p, size_t p_stride)
{
	uint16_t channel[KV_MAX_DIM];

	for (uint32_t c = 0; c < b->dim; c++)
		channel[c] = (uint16_t)c;
	stage_k_score_dims(b, row, n, q, q_stride, channel, b->dim, heads, p, p_stride);
}
