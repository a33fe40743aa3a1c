/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention to rows of one KV head, split along the rows: a block of threads has a share
 * and up to 16 of the heads (four a warp), and who comes last merges the shares,
 * in their order. K and V of a row are read once for all heads of a block.
 *
 * Rows come in stages through shared memory, by asynchronous copies of 16 bytes, two
 * stages ahead of the one that is worked on; so what is in flight costs no
 * registers. A lane has 8 channels of a row, 8, 16 or 32 lanes have a row. A dot
 * product of four rows and four heads is 16 sums in each lane, which are
 * added up over the lanes in as many shuffles as there are sums, not five times that: each step
 * sends away the half of them that other lanes finish (sum16). Then every lane holds the
 * logit of one row and head, softmax is a few shuffles more, and weights go back through
 * shared memory to whoever multiplies V with them.
 *
 * Its floor on an H200 (4.8 TB/s, 132 SMs at 1.755 GHz: 20.7 bytes a clock and SM), d = 128:
 *
 *              bytes of a row   clocks   issue slots of 4 heads      of 8
 *   f16, bf16       512          24.7            12                   23
 *   int8            264          12.8            13                   25
 *   hier4           268          12.9            14                   26
 *   int4            144           7.0            14                   26
 *
 * counted by hand from the loops below (32 multiply-adds a lane for two rows, K and V each, their
 * conversion, the shuffles). So f16 waits for memory with up to 8 heads of a group, and codes
 * are bound by arithmetic: products of matrix units are the next step for them. In flight: two
 * stages of 16 KiB (f16) a block, three blocks an SM (168 registers by ptxas for sm_90, 12 bytes
 * spilled; with 128 registers, for four blocks, 460): 96 KiB, where 4.8 TB/s at 700 ns take 25.
 * Nothing of this has been measured: it has never run on a GPU.
 */

struct attend {
	struct cuda_work w;
	struct kv_cuda_stage stage;
	uint32_t share, first, n; /* heads of this block: of heads + sums */
	uint32_t limit;           /* rows that any of them sees */
	uint8_t *shared;
	uint32_t outliers;
};

/* ---- where the next stage's rows are ---------------------------------------------------- */

struct cursor {
	uint32_t unit, end, at; /* units of the share, row in the unit */
	uint32_t n[2];          /* of a list: rows as sent, of tiles */
};

/* Where the rows of a unit end that are attended to by this block. */
static __device__ uint32_t unit_end(const struct attend *a, uint32_t unit)
{
	const struct kv_cuda_unit *u = &a->w.unit[unit];
	uint32_t seen = a->limit > u->first_row ? a->limit - u->first_row : 0;

	return u->to < seen ? u->to : seen;
}

static __device__ void cursor_settle(const struct attend *a, struct cursor *c)
{
	while (c->unit < c->end && c->at >= unit_end(a, c->unit)) {
		c->unit++;
		c->at = 0;
		if (c->unit < c->end)
			c->at = a->w.unit[c->unit].from / a->stage.rows * a->stage.rows;
	}
}

static __device__ struct cursor cursor_begin(const struct attend *a)
{
	const struct kv_cuda_item *x = a->w.x;
	struct cursor c = {
		a->share * x->share_units, (a->share + 1) * x->share_units, 0, { 0, 0 }
	};

	if (x->by_list) {
		struct kv_cuda_state s = kv_cuda_state_of(x, a->w.s->dim);
		const uint32_t *n = (const uint32_t *)(a->w.p->scratch + x->state +
						       a->w.head * x->state_bytes + s.n);
		uint32_t stages;

		c.n[0] = n[1]; /* rows as sent go first */
		c.n[1] = n[0];
		stages = (n[0] + a->stage.rows - 1) / a->stage.rows +
			 (n[1] + a->stage.rows - 1) / a->stage.rows;
		c.end = c.end < stages ? c.end : stages;
		return c;
	}
	c.end = c.end < x->n_units ? c.end : x->n_units;
	while (c.end > c.unit && a->w.unit[c.end - 1].first_row >= a->limit)
		c.end--;
	if (c.unit < c.end)
		c.at = a->w.unit[c.unit].from / a->stage.rows * a->stage.rows;
	cursor_settle(a, &c);
	return c;
}

/* Entry t of the stage, of the list that holds it. */
static __device__ void resolve_listed(const struct attend *a, const struct cursor *c, uint32_t t,
				      struct kv_cuda_row *ret)
{
	const struct kv_cuda_item *x = a->w.x;
	struct kv_cuda_state s = kv_cuda_state_of(x, a->w.s->dim);
	const char *state = (const char *)(a->w.p->scratch + x->state + a->w.head * x->state_bytes);
	uint32_t sent = (c->n[0] + a->stage.rows - 1) / a->stage.rows;
	uint32_t of = c->unit < sent ? 0 : 1;
	uint32_t i = (c->unit - (of ? sent : 0)) * a->stage.rows + t;
	const uint32_t *list = (const uint32_t *)(state + (of ? s.list[0] : s.list[1]));

	ret->row = KV_CUDA_NONE;
	if (i < c->n[of])
		cuda_row_at(&a->w, list[i] / KV_CUDA_UNIT_ROWS, list[i] % KV_CUDA_UNIT_ROWS, ret);
	ret->rsv = !of;
}

/* Says where the rows of the next stage are, and goes on to the one after it. */
static __device__ void resolve(const struct attend *a, struct cursor *c, struct kv_cuda_row *ret)
{
	uint32_t t = threadIdx.x;

	if (t < a->stage.rows && c->unit >= c->end)
		ret[t].row = KV_CUDA_NONE;
	if (c->unit >= c->end)
		return;
	if (a->w.x->by_list) {
		if (t < a->stage.rows)
			resolve_listed(a, c, t, &ret[t]);
		c->unit++;
		return;
	}
	if (t < a->stage.rows) {
		const struct kv_cuda_unit *u = &a->w.unit[c->unit];
		const struct kv_cuda_block *b =
			cuda_array<const struct kv_cuda_block>(a->w.p, a->w.p->blocks) + u->block;

		ret[t].row = KV_CUDA_NONE;
		if (c->at + t >= u->from && c->at + t < unit_end(a, c->unit))
			cuda_row_at(&a->w, c->unit, c->at + t, &ret[t]);
		ret[t].rsv = b->sent;
	}
	c->at += a->stage.rows;
	cursor_settle(a, c);
}

/* ---- bringing them ------------------------------------------------------------------------ */

static __device__ void copy_row(const struct attend *a, const struct kv_cuda_row *r, uint32_t i,
				uint32_t lane, uint32_t lanes, uint8_t *to)
{
	const struct kv_cuda_space *s = a->w.s;
	const uint8_t *base = (const uint8_t *)r->base, *k, *v;
	bool sent = r->rsv;
	uint32_t k_stride = sent ? s->sent.stride : s->k.stride;
	uint32_t v_stride = sent ? s->sent.stride : s->v.stride;
	uint32_t k_plane = !sent && s->k.format == KV_CUDA_HIER4 ? s->k.plane[1] : 0;

	k = base + (uint64_t)r->tiles * k_plane + (uint64_t)r->at * k_stride;
	v = base + r->v + (uint64_t)r->at * v_stride;
	if (sent || a->w.x->level == 0 || s->k.format != KV_CUDA_HIER4)
		for (uint32_t c = lane * 16; c < k_stride; c += lanes * 16)
			cuda_copy16(to + i * a->stage.k_pitch + c, k + c);
	to += a->stage.v_at + i * a->stage.v_pitch;
	for (uint32_t c = lane * 16; c < v_stride; c += lanes * 16)
		cuda_copy16(to + c, v + c);
	if (sent || s->v.format != KV_CUDA_HIER4 || a->w.x->level)
		return;
	v += (uint64_t)r->tiles * s->v.plane[1];
	for (uint32_t c = lane * 16; c < v_stride; c += lanes * 16)
		cuda_copy16(to + v_stride + c, v + c);
}

/* Parameters that are a row's own. */
static __device__ void copy_row_pairs(const struct attend *a, const struct kv_cuda_row *r,
				      uint32_t i, uint8_t *to)
{
	const struct kv_cuda_space *s = a->w.s;
	const uint8_t *base = (const uint8_t *)r->base, *v = base + r->v;
	uint32_t groups = (s->dim + 63) / 64, rows = r->tiles * 128;
	uint32_t v_plane = s->v.format == KV_CUDA_HIER4 ? 2 : 1;

	if (s->k.format == KV_CUDA_INT4)
		for (uint32_t g = 0; g < groups; g++)
			cuda_copy4(to + a->stage.k_pairs + i * 16 + g * 4,
				   base + (uint64_t)r->tiles * s->k.plane[1] +
					   ((uint64_t)g * rows + r->at) * 4);
	if (s->v.format < KV_CUDA_INT8)
		return;
	for (uint32_t g = 0; g < (s->v.format == KV_CUDA_INT4 ? groups : 1); g++)
		cuda_copy4(to + a->stage.v_pairs + i * 16 + g * 4,
			   v + (uint64_t)r->tiles * s->v.plane[v_plane] +
				   ((uint64_t)g * rows + r->at) * 4);
}

/* K's parameters of the row's tile, a pair a channel. */
static __device__ void copy_tile_pairs(const struct attend *a, const struct kv_cuda_row *r,
				       uint32_t lane, uint32_t lanes, uint8_t *to)
{
	const struct kv_cuda_space *s = a->w.s;
	const uint8_t *base = (const uint8_t *)r->base;
	uint32_t tile = r->at / 128;

	if (s->k.format == KV_CUDA_HIER4) {
		base += (uint64_t)r->tiles * s->k.plane[3] + (uint64_t)tile * s->dim * 4;
		for (uint32_t c = lane * 16; c < s->dim * 4; c += lanes * 16)
			cuda_copy16(to + c, base + c);
		return;
	}
	base += (uint64_t)r->tiles * s->k.plane[1] + tile * 4;
	for (uint32_t c = lane; c < s->dim; c += lanes)
		cuda_copy4(to + c * 4, base + (uint64_t)c * r->tiles * 4);
}

/* Level 1: the stage's rows of the upper plane, which are bytes of every channel's run. */
static __device__ void copy_upper(const struct attend *a, const struct kv_cuda_row *r, uint8_t *to)
{
	const struct kv_cuda_space *s = a->w.s;
	uint32_t bytes = a->stage.rows / 2;
	const uint8_t *from = (const uint8_t *)r->base + r->at / a->stage.rows * bytes;

	for (uint32_t c = threadIdx.x; c < s->dim; c += KV_CUDA_THREADS)
		for (uint32_t i = 0; i < bytes; i += 8)
			cuda_copy8(to + c * bytes + i, from + (uint64_t)c * r->tiles * 64 + i);
}

/* A row of a stage that is there; the stage's first row may not be selected. */
static __device__ const struct kv_cuda_row *some_row(const struct attend *a,
						     const struct kv_cuda_row *row)
{
	uint32_t i = 0;

	while (i < a->stage.rows && row[i].row == KV_CUDA_NONE)
		i++;
	return i < a->stage.rows ? &row[i] : NULL;
}

static __device__ void bring(const struct attend *a, const struct kv_cuda_row *row, uint8_t *to)
{
	const struct kv_cuda_space *s = a->w.s;
	uint32_t lanes = kv_cuda_lanes(s->dim), per = KV_CUDA_THREADS / lanes;
	uint32_t lane = threadIdx.x % lanes;
	bool by_tile = s->k.format == KV_CUDA_INT8 || s->k.format == KV_CUDA_HIER4;

	for (uint32_t i = threadIdx.x / lanes; i < a->stage.rows; i += per) {
		if (row[i].row == KV_CUDA_NONE)
			continue;
		copy_row(a, &row[i], i, lane, lanes, to);
		if (row[i].rsv)
			continue;
		if (lane == 0)
			copy_row_pairs(a, &row[i], i, to);
		if (by_tile && a->w.x->by_list)
			copy_tile_pairs(a, &row[i], lane, lanes,
					to + a->stage.k_pairs + i * s->dim * 4);
	}
	if (!by_tile || a->w.x->by_list)
		return;
	row = some_row(a, row);
	if (!row || row->rsv)
		return;
	copy_tile_pairs(a, row, threadIdx.x, KV_CUDA_THREADS, to + a->stage.k_pairs);
	if (a->w.x->level)
		copy_upper(a, row, to);
}

#include "kernels/cuda/attend-rows.cu"

/* ---- one share ----------------------------------------------------------------------------------
 */

static __device__ void load_queries(const struct attend *a)
{
	float *q = (float *)(a->shared + a->stage.q_at);
	uint32_t dim = a->w.s->dim;

	for (uint32_t i = threadIdx.x; i < KV_CUDA_HEADS * dim; i += KV_CUDA_THREADS) {
		uint32_t h = a->first + i / dim;

		q[i] = i / dim < a->n && h < a->w.x->heads ? cuda_query(&a->w, h, i % dim) : 0;
	}
}

/* Warps share the heads as far as there are any, four each; what is left of them shares rows. */
static __device__ __forceinline__ uint32_t head_warps(const struct attend *a)
{
	return a->n <= 4 ? 1 : a->n <= 8 ? 2 : 4;
}

template <int L> static __device__ void four_begin(const struct attend *a, struct four<L> *f)
{
	const struct kv_cuda_item *x = a->w.x;
	uint32_t lane = threadIdx.x % 32;

	f->head = threadIdx.x / 32 % head_warps(a) * 4;
	f->chunk = lane % L;
	f->sub = lane / L;
	f->active = f->chunk * 8 < a->w.s->dim;
	f->folded = 1; /* so that the first stage's query is made */
#pragma unroll
	for (int h = 0; h < 4; h++)
#pragma unroll
		for (int e = 0; e < 8; e++)
			f->y[h][e] = 0;
#pragma unroll
	for (int k = 0; k < four<L>::KEEP; k++) {
		uint32_t at = f->head + kept_head<L>(lane, k), h = a->first + at;

		f->max[k] = -INFINITY;
		f->sum[k] = 0;
		f->adds[k] = at < a->n && h >= x->heads;
		f->limit[k] = at >= a->n   ? KV_CUDA_NONE
			      : f->adds[k] ? cuda_limit(x, h - x->heads)
					   : cuda_limit(x, h / a->w.s->group);
	}
}

/* A warp's result, to shared memory: [4][2 + dim]: maximum, sum, y. */
template <int L>
static __device__ void four_end(const struct attend *a, struct four<L> *f, float *to)
{
	uint32_t dim = a->w.s->dim, lane = threadIdx.x % 32;

#pragma unroll
	for (int h = 0; h < 4; h++) {
		float *row = to + h * (dim + 2) + 2 + f->chunk * 8;

#pragma unroll
		for (int e = 0; e < 8; e++) {
			for (int o = L; o < 32; o *= 2)
				f->y[h][e] += __shfl_xor_sync(CUDA_ALL, f->y[h][e], o);
			if (f->sub == 0 && f->active)
				row[e] = f->y[h][e];
		}
	}
#pragma unroll
	for (int k = 0; k < four<L>::KEEP; k++)
		if (kept_row<L>(lane) == 0) {
			to[kept_head<L>(lane, k) * (dim + 2)] = f->max[k];
			to[kept_head<L>(lane, k) * (dim + 2) + 1] = f->sum[k];
		}
}

/* Where a share's part of a head is: maximum, sum, y. */
static __device__ float *partial_of(const struct attend *a, uint32_t share, uint32_t h)
{
	const struct kv_cuda_item *x = a->w.x;
	char *base = (char *)(a->w.p->scratch + x->partial + a->w.head * x->partial_bytes);

	return (float *)base + ((uint64_t)share * (x->heads + x->sums) + h) * (a->w.s->dim + 2);
}

/* The parts of the warps that had the same heads and other rows, into the share's. */
static __device__ void join_warps(const struct attend *a, const float *from)
{
	uint32_t dim = a->w.s->dim, across = head_warps(a);

	for (uint32_t i = threadIdx.x; i < a->n * dim; i += KV_CUDA_THREADS) {
		uint32_t h = i / dim, c = i % dim;
		const float *part = from + h * (dim + 2);
		float *to = partial_of(a, a->share, a->first + h);
		float max = -INFINITY, sum = 0, y = 0;
		bool adds = a->first + h >= a->w.x->heads;

		for (uint32_t w = 0; w < KV_CUDA_WARPS; w += across)
			max = fmaxf(max, part[w * 4 * (dim + 2)]);
		for (uint32_t w = 0; w < KV_CUDA_WARPS; w += across) {
			const float *p = part + w * 4 * (dim + 2);
			float by = adds ? 1 : cuda_exp(p[0] - max);

			sum += by > 0 ? by * p[1] : 0;
			y += by > 0 ? by * p[2 + c] : 0;
		}
		to[2 + c] = y;
		if (c == 0) {
			to[0] = max;
			to[1] = sum;
		}
	}
}

/* Stage by stage. A slot of rows more than of stages: they are looked up while the oldest is still
 * worked on. */
template <int L> static __device__ void attend_share(struct attend *a, struct four<L> *f)
{
	struct kv_cuda_row *rows = (struct kv_cuda_row *)(a->shared + a->stage.rows_at);
	uint32_t n = a->stage.n, warp = threadIdx.x / 32, across = head_warps(a);
	uint32_t mine = a->stage.rows * across / KV_CUDA_WARPS, first = warp / across * mine;
	float *p = (float *)(a->shared + a->stage.p_at) + warp * 64;
	uint8_t *stages = a->shared + a->stage.stages_at;
	struct cursor c = cursor_begin(a);

	for (uint32_t i = 0; i + 1 < n; i++)
		resolve(a, &c, rows + i * a->stage.rows);
	__syncthreads();
	for (uint32_t i = 0; i + 1 < n; i++) {
		bring(a, rows + i * a->stage.rows, stages + i * a->stage.bytes);
		cuda_copy_commit();
	}
	for (uint32_t i = 0;; i++) {
		struct kv_cuda_row *next = rows + (i + n - 1) % (n + 1) * a->stage.rows;
		const struct kv_cuda_row *now = rows + i % (n + 1) * a->stage.rows;

		resolve(a, &c, next);
		if (n == 3)
			cuda_copy_wait<1>();
		else
			cuda_copy_wait<0>();
		__syncthreads();
		if (!some_row(a, now))
			break;
		bring(a, next, stages + (i + n - 1) % n * a->stage.bytes);
		cuda_copy_commit();
		attend_rows<L>(a, f, stages + i % n * a->stage.bytes, now, first, first + mine, p);
	}
	cuda_copy_wait<0>();
	__syncthreads();
}

#include "kernels/cuda/attend-join.cu"

/* Who comes last of a block of heads joins it; where sums are wanted, which are in the last one,
 * who comes last of all. */
static __device__ void join(const struct attend *a, uint32_t blocks)
{
	uint32_t *counter = cuda_array<uint32_t>(a->w.p, a->w.p->counters) + a->w.x->counters +
			    a->w.head * kv_cuda_counters(a->w.x) + KV_CUDA_COUNT_ATTEND;
	bool sums = a->w.x->sums, last;

	last = comes_last(counter + (sums ? 0 : a->first / KV_CUDA_HEADS),
			  a->w.x->shares * (sums ? blocks : 1),
			  (uint32_t *)(a->shared + a->stage.p_at));
	if (last && sums)
		join_shares(a, 0, a->w.x->heads);
	else if (last)
		join_shares(a, a->first, a->first + a->n);
}

template <int L> static __device__ void attend(const struct kv_cuda_params *p)
{
	uint32_t per_share, per_head, at = blockIdx.x;
	struct attend a;
	struct four<L> f;
	float *parts;

	a.w = cuda_work_of(p, blockIdx.y, 0);
	per_share = kv_cuda_head_blocks(a.w.x);
	per_head = per_share * a.w.x->shares;
	if (at >= per_head * a.w.s->kv_heads || kv_cuda_lanes(a.w.s->dim) != L)
		return;
	a.w = cuda_work_of(p, blockIdx.y, at / per_head);
	a.share = at % per_head / per_share;
	a.first = at % per_share * KV_CUDA_HEADS;
	a.n = a.w.x->heads + a.w.x->sums - a.first;
	a.n = a.n < KV_CUDA_HEADS ? a.n : KV_CUDA_HEADS;
	a.limit = a.w.x->visible;
	if (a.first + a.n <= a.w.x->heads)
		a.limit = cuda_limit(a.w.x, (a.first + a.n - 1) / a.w.s->group);
	a.stage = kv_cuda_stage_of(a.w.s, a.w.x->by_list, KV_CUDA_SHARED);
	a.shared = (uint8_t *)cuda_shared();
	a.outliers = cuda_outliers(&a.w);
	load_queries(&a);
	four_begin<L>(&a, &f);
	__syncthreads();
	attend_share<L>(&a, &f);
	parts = (float *)(a.shared + a.stage.stages_at);
	four_end<L>(&a, &f, parts + threadIdx.x / 32 * 4 * (a.w.s->dim + 2));
	__syncthreads();
	join_warps(&a, parts);
	join(&a, per_share);
}

extern "C" __global__ void __launch_bounds__(KV_CUDA_THREADS, 3)
	kv_cuda_attend_8(const struct kv_cuda_params *p)
{
	attend<8>(p);
}

extern "C" __global__ void __launch_bounds__(KV_CUDA_THREADS, 3)
	kv_cuda_attend_16(const struct kv_cuda_params *p)
{
	attend<16>(p);
}

extern "C" __global__ void __launch_bounds__(KV_CUDA_THREADS, 3)
	kv_cuda_attend_32(const struct kv_cuda_params *p)
{
	attend<32>(p);
}
