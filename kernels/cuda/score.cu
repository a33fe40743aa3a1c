/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SparQ's first launch: channels, scores of all rows by them, and of the block that
 * comes last the choice (choose.cu), or the beginning of it where a launch of its own ends it:
 * with few KV heads in a batch one block for each is a tail that leaves the device idle, for it
 * scores a hundred units again. Scores make no round trip through memory: of a unit
 * stays each head's largest score and sum of exponentials, of each 64 rows each
 * head's largest score and the scores of one good row. A mean of V, if one is
 * wanted, is summed up by one more block beside the others.
 *
 * Its floor on an H200 (20.7 bytes a clock and SM), hier4, d = 128, r = 32, four heads: 16.5
 * bytes a row are 0.8 clocks. Counted by hand from score-rows.cu, for a row: 20 operations on
 * bytes (0.16 clocks), 32 products of four bytes (0.5 on their own unit, 0.25 slots), 35 for
 * softmax and maxima, 20 for the coefficients of two tiles: 0.85 of issue slots. So both are about
 * equal, and with 8 heads arithmetic is twice that: matrix units are the next step there. In
 * flight: 64 bytes a lane, 32 KiB an SM with four blocks (128 registers by ptxas for sm_90, 204
 * bytes spilled). A warp reads 128 bytes of a channel, the
 * four warps of a block 512 that follow each other. Nothing of this has been measured: it has never
 * run on a GPU.
 */
#include "kernels/cuda/score-rows.cu"

/* ---- channels ---------------------------------------------------------------------------- */

/* Sorts like the float: -0 equals 0, NaN below -inf (kernels/stage/select.h). */
static __device__ __forceinline__ int key_of(float x)
{
	int bits = (int)cuda_bits(x + 0.0f);

	return x != x ? INT32_MIN : bits ^ (bits >> 31 & INT32_MAX);
}

/* By channel, whatever their order in memory is: the r with the largest sums of |q|. */
static __device__ void choose_channels(const struct scoring *s)
{
	uint32_t dim = s->w.s->dim, lane = threadIdx.x % 32;
	int *total = (int *)(s->shared + s->at.total);
	uint32_t *chosen = (uint32_t *)(s->shared + s->at.chosen);
	uint32_t *place = (uint32_t *)(s->shared + s->at.place);

	for (uint32_t i = threadIdx.x; i < dim && s->w.x->exact; i += KV_CUDA_THREADS)
		place[i] = i;
	if (s->w.x->exact)
		return;
	for (uint32_t i = threadIdx.x; i < dim; i += KV_CUDA_THREADS) {
		float sum = 0;

		for (uint32_t h = 0; h < s->w.x->heads; h++)
			sum += fabsf(cuda_query(&s->w, h, i));
		total[s->w.table ? s->w.table->k[i] : i] = key_of(sum);
	}
	__syncthreads();
	for (uint32_t first = 0; first < dim; first += KV_CUDA_THREADS) {
		uint32_t i = first + threadIdx.x, c = i, before = 0, word;

		if (i < dim && s->w.table)
			c = s->w.table->k[i];
		for (uint32_t j = 0; j < dim && i < dim; j++)
			before += total[j] > total[c] || (total[j] == total[c] && j < c);
		word = __ballot_sync(CUDA_ALL, i < dim && before < s->r);
		if (lane == 0 && i < dim)
			chosen[i / 32] = word;
	}
	__syncthreads();
	for (uint32_t i = threadIdx.x; i < dim; i += KV_CUDA_THREADS) {
		uint32_t at = __popc(chosen[i / 32] & ((1u << i % 32) - 1));

		for (uint32_t j = 0; j < i / 32; j++)
			at += __popc(chosen[j]);
		if (chosen[i / 32] >> i % 32 & 1)
			place[at] = i;
	}
	__syncthreads();
}

static __device__ double warp_sum_double(double x)
{
	for (uint32_t o = 16; o; o /= 2)
		x += __shfl_xor_sync(CUDA_ALL, x, o);
	return x;
}

/* Where the coefficients that a block has end. */
static __device__ __forceinline__ uint32_t heads_end(const struct scoring *s)
{
	uint32_t end = s->first + KV_CUDA_SCORE_HEADS;

	return end < s->w.x->heads ? end : s->w.x->heads;
}

/* Of as many heads from `first` on as there is room for. The temperature is folded in: see
 * exec-score.c. A warp has a head. */
static __device__ void make_coefficients(struct scoring *s, uint32_t first)
{
	float *coef = (float *)(s->shared + s->at.coef);
	uint32_t lane = threadIdx.x % 32;

	__syncthreads(); /* whoever used those before */
	s->first = first;
	for (uint32_t h = first + threadIdx.x / 32; h < heads_end(s); h += KV_CUDA_WARPS) {
		double chosen = 0, all = 0;
		float heat;

		for (uint32_t c = lane; c < s->w.s->dim; c += 32)
			all += (double)fabsf(cuda_query(&s->w, h, c));
		for (uint32_t j = lane; j < s->r; j += 32)
			chosen += (double)fabsf(cuda_query(&s->w, h, s->place[j]));
		all = warp_sum_double(all);
		chosen = warp_sum_double(chosen);
		heat = !s->w.x->exact && chosen > 0 && chosen <= all && all < (double)INFINITY
			       ? 1 / sqrtf((float)(chosen / all))
			       : 1;
		for (uint32_t j = lane; j < s->r; j += 32)
			coef[(h - first) * s->r + j] = cuda_query(&s->w, h, s->place[j]) * heat;
	}
	__syncthreads();
}

/* ---- what stays of a unit ------------------------------------------------------------------- */

/* e^(x - ref) by the fast unit; 0 for NaN, and not more than 2^127. */
static __device__ __forceinline__ float score_weight(float x, float ref)
{
	float t = (x - ref) * 0x1.715476p+0f;

	return t >= -126 ? cuda_exp2(t < 127 ? t : 127) : 0;
}

static __device__ char *state_of(const struct cuda_work *w)
{
	return (char *)(w->p->scratch + w->x->state + w->head * w->x->state_bytes);
}

static __device__ bool is_ranked(const struct kv_cuda_item *x, uint32_t row)
{
	return row >= x->rank_first && row < x->rank_end;
}

struct best { /* of a group: one good row, by the first four heads */
	uint32_t lane, row;
};

/* The same in all of the 8 lanes that have a group's rows. */
static __device__ struct best find_best(const struct scoring *s, uint32_t first,
					const float a[4][8], const float ref[4])
{
	struct best b = { threadIdx.x % 32, 0 };
	float top = -1;

#pragma unroll
	for (uint32_t i = 0; i < 8; i++) {
		float sum = 0;

#pragma unroll
		for (int h = 0; h < 4; h++)
			sum += score_weight(a[h][i], ref[h]);
		if (is_ranked(s->w.x, first + i) && sum > top) {
			top = sum;
			b.row = i;
		}
	}
	for (uint32_t o = 4; o; o /= 2) {
		float other = __shfl_xor_sync(CUDA_ALL, top, o);
		uint32_t lane = __shfl_xor_sync(CUDA_ALL, b.lane, o);
		uint32_t row = __shfl_xor_sync(CUDA_ALL, b.row, o);

		if (other > top || (other == top && lane < b.lane)) {
			top = other;
			b.lane = lane;
			b.row = row;
		}
	}
	return b;
}

/* Of four heads: references, sums, and of each group the largest scores and the best row's. */
static __device__ void keep_four(const struct scoring *s, uint32_t u, uint32_t head,
				 const float a[4][8], struct best *best)
{
	const struct kv_cuda_item *x = s->w.x;
	struct kv_cuda_state at = kv_cuda_state_of(x, s->w.s->dim);
	uint32_t lane = threadIdx.x % 32, first = s->w.unit[u].first_row + lane * 8;
	uint32_t group = u * KV_CUDA_UNIT_GROUPS + lane / 8;
	char *state = state_of(&s->w);
	float max[4];

#pragma unroll
	for (int h = 0; h < 4; h++) {
		float top = -INFINITY, ranked = -INFINITY, sum = 0;
		uint32_t i;

#pragma unroll
		for (i = 0; i < 8; i++) {
			top = fmaxf(top, a[h][i]);
			ranked = is_ranked(x, first + i) ? fmaxf(ranked, a[h][i]) : ranked;
		}
		for (uint32_t o = 4; o; o /= 2)
			ranked = fmaxf(ranked, __shfl_xor_sync(CUDA_ALL, ranked, o));
		top = warp_max(top);
		max[h] = top == INFINITY ? 0 : top;
#pragma unroll
		for (i = 0; i < 8; i++)
			sum += score_weight(a[h][i], max[h]);
		sum = warp_sum(sum);
		if (head + h >= x->heads)
			continue;
		if (lane == 0) {
			float *ref =
				(float *)(state + at.ref) + ((uint64_t)u * x->heads + head + h) * 2;

			ref[0] = max[h];
			ref[1] = top == -INFINITY ? 0 : sum;
		}
		if (lane % 8 == 0)
			((float *)(state + at.top))[(uint64_t)group * x->heads + head + h] = ranked;
	}
	if (head == 0)
		*best = find_best(s, first, a, max);
#pragma unroll
	for (int h = 0; h < 4; h++)
#pragma unroll
		for (uint32_t i = 0; i < 8; i++)
			if (best->lane == lane && best->row == i && head + h < x->heads)
				((float *)(state +
					   at.best))[(uint64_t)group * x->heads + head + h] =
					a[h][i];
}

/* Rows that are chosen anyway: alpha asks for their scores. */
static __device__ void keep_fixed(const struct scoring *s, uint32_t u, uint32_t head,
				  const float a[4][8])
{
	const struct kv_cuda_item *x = s->w.x;
	struct kv_cuda_state at = kv_cuda_state_of(x, s->w.s->dim);
	float *to = (float *)(state_of(&s->w) + at.fixed);
	uint32_t first = s->w.unit[u].first_row + threadIdx.x % 32 * 8, before = 0;

	for (uint32_t k = 0; k < x->n_runs; before += x->run[k++].n)
#pragma unroll
		for (uint32_t i = 0; i < 8; i++) {
			uint32_t place = first + i - x->run[k].first;

			if (place >= x->run[k].n || threadIdx.x % 32 * 8 + i >= s->w.unit[u].rows)
				continue;
#pragma unroll
			for (uint32_t h = 0; h < 4; h++)
				if (head + h < x->heads)
					to[(uint64_t)(head + h) * x->fixed + before + place] =
						a[h][i];
		}
}

/* The sums of scores, where those rank: -inf where there is none. */
static __device__ void keep_ranks(const struct scoring *s, uint32_t u, const float c[8])
{
	struct kv_cuda_state at = kv_cuda_state_of(s->w.x, s->w.s->dim);
	uint32_t lane = threadIdx.x % 32, first = s->w.unit[u].first_row + lane * 8;
	float top = -INFINITY;

#pragma unroll
	for (uint32_t i = 0; i < 8; i++)
		top = is_ranked(s->w.x, first + i) ? fmaxf(top, c[i]) : top;
	for (uint32_t o = 4; o; o /= 2)
		top = fmaxf(top, __shfl_xor_sync(CUDA_ALL, top, o));
	if (lane % 8 == 0)
		((float *)(state_of(&s->w) + at.rank))[u * KV_CUDA_UNIT_GROUPS + lane / 8] = top;
}

/* Of those heads that see the row. */
static __device__ __forceinline__ void add_ranks(const struct scoring *s, uint32_t u, uint32_t head,
						 const float a[4][8], float c[8])
{
	uint32_t first = s->w.unit[u].first_row + threadIdx.x % 32 * 8;

#pragma unroll
	for (uint32_t h = 0; h < 4; h++)
#pragma unroll
		for (uint32_t i = 0; i < 8; i++)
			if (head + h < s->w.x->heads &&
			    first + i < cuda_limit(s->w.x, (head + h) / s->w.s->group))
				c[i] += a[h][i];
}

struct ranking {    /* of a lane's rows of a unit, over all heads */
	float c[8]; /* sums of scores */
	struct best best;
};

static __device__ void score_unit(const struct scoring *s, uint32_t u, struct ranking *r)
{
	for (uint32_t head = s->first; head < heads_end(s); head += 4) {
		float a[4][8];

		score_four(s, u, head, 15, a);
		keep_four(s, u, head, a, &r->best);
		if (s->w.x->n_runs)
			keep_fixed(s, u, head, a);
		if (!s->w.x->softmax)
			add_ranks(s, u, head, a, r->c);
	}
}

/* A unit a warp, by all heads; `has`: this warp has one. Coefficients that do not all fit are made
 * again for every round, by all warps. */
static __device__ void score_round(struct scoring *s, uint32_t u, bool has)
{
	struct ranking r = { { 0 }, { 0, 0 } };

	for (uint32_t head = 0; head < s->w.x->heads; head += KV_CUDA_SCORE_HEADS) {
		if (s->w.x->heads > KV_CUDA_SCORE_HEADS)
			make_coefficients(s, head);
		if (has)
			score_unit(s, u, &r);
	}
	if (has && !s->w.x->softmax)
		keep_ranks(s, u, r.c);
}

static __device__ void score_part(struct scoring *s, uint32_t part)
{
	uint32_t u = part * s->w.x->part_units, end = u + s->w.x->part_units;

	end = end < s->w.x->n_units ? end : s->w.x->n_units;
	for (; u < end; u += KV_CUDA_WARPS)
		score_round(s, u + threadIdx.x / 32, u + threadIdx.x / 32 < end);
}

static __device__ __forceinline__ uint32_t *counter_of(const struct cuda_work *w, uint32_t which)
{
	return cuda_array<uint32_t>(w->p, w->p->counters) + w->x->counters +
	       w->head * kv_cuda_counters(w->x) + which;
}

#include "kernels/cuda/choose.cu"
#include "kernels/cuda/sum.cu"

/* What a block that scores rows begins with. */
static __device__ struct scoring scoring_of(const struct kv_cuda_params *p, uint32_t item,
					    uint32_t head)
{
	struct scoring s;

	s.w = cuda_work_of(p, item, head);
	s.shared = (uint8_t *)cuda_shared();
	s.at = kv_cuda_scoring_of(s.w.x->heads, s.w.x->r, s.w.s->dim);
	s.coef = (const float *)(s.shared + s.at.coef);
	s.place = (const uint32_t *)(s.shared + s.at.place);
	s.r = s.w.x->r;
	choose_channels(&s);
	make_coefficients(&s, 0);
	s.outliers = 0;
	while (s.outliers < s.r && s.place[s.outliers] < cuda_outliers(&s.w))
		s.outliers++;
	return s;
}

extern "C" __global__ void __launch_bounds__(KV_CUDA_THREADS, 4)
	kv_cuda_score(const struct kv_cuda_params *p)
{
	const struct cuda_work w = cuda_work_of(p, blockIdx.y, 0);
	uint32_t parts = w.x->score_parts + (w.x->sums ? 1 : 0), part = blockIdx.x % parts;
	struct scoring s;

	if (!w.x->by_list || blockIdx.x >= parts * w.s->kv_heads)
		return;
	s = scoring_of(p, blockIdx.y, blockIdx.x / parts);
	if (part < s.w.x->score_parts)
		score_part(&s, part);
	else
		sum_rows(&s.w);
	if (!comes_last(counter_of(&s.w, KV_CUDA_COUNT_SCORES), parts,
			(uint32_t *)(s.shared + s.at.more)))
		return;
	find_bound(&s);
	if (!s.w.x->choose_parts)
		choose(&s, 0, 1);
}

extern "C" __global__ void __launch_bounds__(KV_CUDA_THREADS, 4)
	kv_cuda_choose(const struct kv_cuda_params *p)
{
	const struct cuda_work w = cuda_work_of(p, blockIdx.y, 0);
	uint32_t parts = w.x->choose_parts;
	struct scoring s;

	if (!w.x->by_list || blockIdx.x >= parts * w.s->kv_heads)
		return;
	s = scoring_of(p, blockIdx.y, blockIdx.x / parts);
	choose(&s, blockIdx.x % parts, parts);
}
