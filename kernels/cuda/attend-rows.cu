/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage's rows by one warp and its four heads (attend.cu): dot products, softmax
 * as far as it came, and V.
 */

enum attend_kind { /* how a stage's numbers are read */
		   READ_F32,
		   READ_F16,
		   READ_BF16,
		   READ_FOLDED, /* bytes, their parameters folded into the query */
		   READ_BYTES,
		   READ_HIER, /* bytes with parameters of each row's tile; V: of the row */
		   READ_INT4,
		   READ_UPPER, /* hier4's upper plane alone */
		   READ_ANY    /* what the stage says: for those that need not be fast */
};

/* The lane's 8 channels, from `chunk` * 8 on, and the rows that are its. */
template <int L> struct four {
	enum { KEEP = L == 8 ? 2 : 1 }; /* logits that a lane has after the sums */
	uint32_t head, chunk, sub;      /* first head of the block's; row of the L-lane parts */
	bool active;                    /* there are such channels */
	float coef[4][8], bias[4], y[4][8];
	float max[KEEP], sum[KEEP];
	uint32_t limit[KEEP]; /* rows that the logit's head sees; 0: no such head */
	bool adds[KEEP];      /* not a head: the sum of V */
	uint64_t folded;      /* the tile whose parameters are in coef; 0: none are */
};

/* Head of the logit `k` that a lane has. */
template <int L> static __device__ __forceinline__ uint32_t kept_head(uint32_t lane, uint32_t k)
{
	return L == 8 ? (lane & 1) * 2 + k : L == 16 ? lane & 3 : lane >> 1 & 3;
}

/* Its row, from the first of the batch. */
template <int L> static __device__ __forceinline__ uint32_t kept_row(uint32_t lane)
{
	uint32_t p = L == 8 ? lane % 8 >> 1 : L == 16 ? lane % 16 >> 2 : lane >> 3;

	return p * (32 / L) + lane / L;
}

/* Sums over L lanes of 16 numbers: lane l of them is left with number l * 16 / L (and the one
 * after it). */
template <int L> static __device__ __forceinline__ void sum16(float v[16])
{
	uint32_t lane = threadIdx.x % 32;
	int n = 8;

#pragma unroll
	for (int o = L / 2; o > 0; o /= 2) {
		bool upper = lane & o;

		if (n == 0) {
			v[0] += __shfl_xor_sync(CUDA_ALL, v[0], o);
			continue;
		}
#pragma unroll
		for (int i = 0; i < 8; i++)
			if (i < n) {
				float send = upper ? v[i] : v[i + n];
				float keep = upper ? v[i + n] : v[i];

				v[i] = keep + __shfl_xor_sync(CUDA_ALL, send, o);
			}
		n /= 2;
	}
}

template <int KIND>
static __device__ __forceinline__ void read_k(const struct attend *a, const uint8_t *stage,
					      uint32_t i, uint32_t chunk, float x[8])
{
	const uint8_t *row = stage + i * a->stage.k_pitch;

	if (KIND == READ_F32)
		cuda_load_f32(row + chunk * 32, x);
	if (KIND == READ_F16)
		cuda_load_half<false>(row + chunk * 16, x);
	if (KIND == READ_BF16)
		cuda_load_half<true>(row + chunk * 16, x);
	if (KIND == READ_FOLDED || KIND == READ_BYTES || KIND == READ_HIER)
		cuda_load_bytes(row + chunk * 8, x);
	if (KIND == READ_INT4)
		cuda_load_nibbles<true>(row + chunk * 4, x);
	if (KIND == READ_UPPER) {
		uint32_t bytes = a->stage.rows / 2;

#pragma unroll
		for (int e = 0; e < 8; e++)
			x[e] = (float)(stage[(chunk * 8 + e) * bytes + i / 2] >> (4 * (i & 1)) &
				       15);
	}
	if (KIND == READ_BYTES || KIND == READ_HIER) {
		const uint32_t *pair =
			(const uint32_t *)(stage + a->stage.k_pairs) + i * a->w.s->dim + chunk * 8;

#pragma unroll
		for (int e = 0; e < 8; e++) {
			float scale, min;

			cuda_pair<KIND == READ_HIER>(pair[e], &scale, &min);
			x[e] = fmaf(x[e], scale, min);
		}
	}
	if (KIND == READ_INT4) {
		const uint32_t *pair = (const uint32_t *)(stage + a->stage.k_pairs) + i * 4;
		float scale, min;

		cuda_pair<false>(pair[chunk / 8], &scale, &min);
#pragma unroll
		for (int e = 0; e < 8; e++)
			x[e] = fmaf(x[e], scale, min);
	}
}

/* The same where the kind is known only when it runs. */
template <int KIND>
static __device__ __forceinline__ void read_k_of(const struct attend *a, enum attend_kind kind,
						 const uint8_t *stage, uint32_t i, uint32_t chunk,
						 float x[8])
{
	if (KIND != READ_ANY)
		read_k<KIND>(a, stage, i, chunk, x);
	else if (kind == READ_F32)
		read_k<READ_F32>(a, stage, i, chunk, x);
	else if (kind == READ_F16)
		read_k<READ_F16>(a, stage, i, chunk, x);
	else if (kind == READ_BF16)
		read_k<READ_BF16>(a, stage, i, chunk, x);
	else if (kind == READ_BYTES)
		read_k<READ_BYTES>(a, stage, i, chunk, x);
	else if (kind == READ_HIER)
		read_k<READ_HIER>(a, stage, i, chunk, x);
	else if (kind == READ_INT4)
		read_k<READ_INT4>(a, stage, i, chunk, x);
	else
		read_k<READ_UPPER>(a, stage, i, chunk, x);
}

static __device__ float outliers_dot(const struct attend *a, const struct kv_cuda_row *r,
				     uint32_t head)
{
	const uint16_t *column = (const uint16_t *)(r->base + r->outliers) + r->at;
	const float *q = (const float *)(a->shared + a->stage.q_at) + head * a->w.s->dim;
	float sum = 0;

	for (uint32_t o = 0; o < a->outliers; o++, column += r->tiles * 128)
		sum = fmaf(q[o], cuda_from_f16(*column), sum);
	return sum;
}

/* Of four times 32 / L rows from i on, and four heads, before the sums over the lanes. */
template <int KIND, int L>
static __device__ __forceinline__ void dots(const struct attend *a, const struct four<L> *f,
					    enum attend_kind kind, const uint8_t *stage,
					    const struct kv_cuda_row *row, uint32_t i, float v[16])
{
#pragma unroll
	for (int p = 0; p < 4; p++) {
		uint32_t at = i + p * (32 / L) + f->sub;
		float x[8];

#pragma unroll
		for (int h = 0; h < 4; h++)
			v[p * 4 + h] = 0;
		if (row[at].row == KV_CUDA_NONE || !f->active)
			continue;
		read_k_of<KIND>(a, kind, stage, at, f->chunk, x);
#pragma unroll
		for (int h = 0; h < 4; h++) {
			float sum = f->bias[h];

#pragma unroll
			for (int e = 0; e < 8; e++)
				sum = fmaf(x[e], f->coef[h][e], sum);
			if (a->outliers && f->chunk == 0 && !row[at].rsv)
				sum += outliers_dot(a, &row[at], f->head + h);
			v[p * 4 + h] = sum;
		}
	}
}

/* The query itself. */
template <int L> static __device__ void unfold(const struct attend *a, struct four<L> *f)
{
	const float *q = (const float *)(a->shared + a->stage.q_at);

#pragma unroll
	for (int h = 0; h < 4; h++) {
		f->bias[h] = 0;
#pragma unroll
		for (int e = 0; e < 8; e++)
			f->coef[h][e] =
				f->active ? q[(f->head + h) * a->w.s->dim + f->chunk * 8 + e] : 0;
	}
}

/* With a tile's scales, and its minima in one number. */
template <int L, bool HIER>
static __device__ void fold(const struct attend *a, struct four<L> *f, const uint8_t *stage)
{
	const uint32_t *pair = (const uint32_t *)(stage + a->stage.k_pairs) + f->chunk * 8;

	unfold<L>(a, f);
	if (!f->active)
		return;
#pragma unroll
	for (int e = 0; e < 8; e++) {
		float scale, min;

		cuda_pair<HIER>(pair[e], &scale, &min);
#pragma unroll
		for (int h = 0; h < 4; h++) {
			f->bias[h] = fmaf(f->coef[h][e], min, f->bias[h]);
			f->coef[h][e] *= scale;
		}
	}
}

/* How the stage's K is read, with the query made ready for it. */
template <int L>
static __device__ enum attend_kind ready(const struct attend *a, struct four<L> *f,
					 const uint8_t *stage, const struct kv_cuda_row *first)
{
	const struct kv_cuda_half *k = &a->w.s->k;
	bool by_tile = k->format == KV_CUDA_INT8 || k->format == KV_CUDA_HIER4;
	uint64_t tile = first->base + first->at / 128 + 1;

	if (first->rsv || !by_tile || a->w.x->by_list) {
		if (f->folded)
			unfold<L>(a, f);
		f->folded = 0;
		if (first->rsv)
			return (enum attend_kind)(READ_F32 + a->w.s->sent.format);
		if (by_tile)
			return k->format == KV_CUDA_INT8 ? READ_BYTES : READ_HIER;
		return k->format == KV_CUDA_INT4 ? READ_INT4
						 : (enum attend_kind)(READ_F32 + k->format);
	}
	if (f->folded != tile && k->format == KV_CUDA_HIER4 && !a->w.x->level)
		fold<L, true>(a, f, stage);
	else if (f->folded != tile)
		fold<L, false>(a, f, stage);
	f->folded = tile;
	return k->format == KV_CUDA_HIER4 && a->w.x->level ? READ_UPPER : READ_FOLDED;
}

template <int L>
static __device__ void logits(const struct attend *a, const struct four<L> *f,
			      enum attend_kind kind, const uint8_t *stage,
			      const struct kv_cuda_row *row, uint32_t i, float v[16])
{
	switch (kind) {
	case READ_F16:
		dots<READ_F16, L>(a, f, kind, stage, row, i, v);
		break;
	case READ_BF16:
		dots<READ_BF16, L>(a, f, kind, stage, row, i, v);
		break;
	case READ_FOLDED:
		dots<READ_FOLDED, L>(a, f, kind, stage, row, i, v);
		break;
	default:
		dots<READ_ANY, L>(a, f, kind, stage, row, i, v);
		break;
	}
	sum16<L>(v);
}

/* ---- softmax -------------------------------------------------------------------------------- */

/* What was summed so far shrinks where a maximum moved. */
template <int L> static __device__ void rescale(struct four<L> *f, const float *old)
{
#pragma unroll
	for (int h = 0; h < 4; h++) {
		int k = L == 8 ? h & 1 : 0;
		uint32_t lane = L == 8 ? h >> 1 : L == 16 ? h : h * 2;
		float by = __shfl_sync(CUDA_ALL, old[k], lane);

#pragma unroll
		for (int e = 0; e < 8; e++)
			f->y[h][e] = by > 0 ? f->y[h][e] * by : 0;
	}
}

/* Logits to weights, into p[rows][4]: -1 for a row that the head does not see. Whether any is. */
template <int L>
static __device__ bool weigh(struct four<L> *f, const struct kv_cuda_row *row, uint32_t i,
			     const float v[16], float *p)
{
	constexpr int KEEP = four<L>::KEEP;
	uint32_t lane = threadIdx.x % 32, at = kept_row<L>(lane), number = row[i + at].row;
	float old[KEEP];
	bool hidden = false, moved = false;

#pragma unroll
	for (int k = 0; k < KEEP; k++) {
		bool sees = number < f->limit[k];
		float top = sees && v[k] == v[k] ? v[k] : -INFINITY, max, x, sum;

		hidden |= !sees;
		for (uint32_t o = L == 8 ? 2 : L == 16 ? 4 : 8; o < 32; o *= 2)
			top = fmaxf(top, __shfl_xor_sync(CUDA_ALL, top, o));
		max = fmaxf(top, f->max[k]);
		old[k] = 1;
		if (max > f->max[k] && !f->adds[k]) {
			old[k] = cuda_exp(f->max[k] - max);
			f->max[k] = max;
			f->sum[k] *= old[k];
			moved = true;
		}
		x = max == -INFINITY || !sees ? 0 : cuda_exp(v[k] - max);
		sum = x;
		for (uint32_t o = L == 8 ? 2 : L == 16 ? 4 : 8; o < 32; o *= 2)
			sum += __shfl_xor_sync(CUDA_ALL, sum, o);
		f->sum[k] += sum;
		if (L < 32 || !(lane & 1))
			p[at * 4 + kept_head<L>(lane, k)] = !sees ? -1 : f->adds[k] ? 1 : x;
	}
	if (__any_sync(CUDA_ALL, moved))
		rescale<L>(f, old);
	__syncwarp();
	return __any_sync(CUDA_ALL, hidden);
}

/* ---- V ------------------------------------------------------------------------------------- */

template <int KIND>
static __device__ __forceinline__ void read_v(const struct attend *a, const uint8_t *stage,
					      uint32_t i, uint32_t chunk, float x[8])
{
	const uint8_t *row = stage + a->stage.v_at + i * a->stage.v_pitch;
	const uint32_t *pair = (const uint32_t *)(stage + a->stage.v_pairs) + i * 4;
	float scale, min;

	if (KIND == READ_F32)
		cuda_load_f32(row + chunk * 32, x);
	if (KIND == READ_F16)
		cuda_load_half<false>(row + chunk * 16, x);
	if (KIND == READ_BF16)
		cuda_load_half<true>(row + chunk * 16, x);
	if (KIND == READ_BYTES)
		cuda_load_bytes(row + chunk * 8, x);
	if (KIND == READ_INT4)
		cuda_load_nibbles<true>(row + chunk * 4, x);
	if (KIND == READ_UPPER)
		cuda_load_nibbles<false>(row + chunk * 4, x);
	if (KIND == READ_HIER)
		cuda_load_planes(row + chunk * 4, row + a->w.s->v.stride + chunk * 4, x);
	if (KIND < READ_FOLDED)
		return;
	cuda_pair<KIND == READ_HIER>(pair[KIND == READ_INT4 ? chunk / 8 : 0], &scale, &min);
#pragma unroll
	for (int e = 0; e < 8; e++)
		x[e] = fmaf(x[e], scale, min);
}

template <int KIND>
static __device__ __forceinline__ void read_v_of(const struct attend *a, enum attend_kind kind,
						 const uint8_t *stage, uint32_t i, uint32_t chunk,
						 float x[8])
{
	if (KIND != READ_ANY)
		read_v<KIND>(a, stage, i, chunk, x);
	else if (kind == READ_F32)
		read_v<READ_F32>(a, stage, i, chunk, x);
	else if (kind == READ_F16)
		read_v<READ_F16>(a, stage, i, chunk, x);
	else if (kind == READ_BF16)
		read_v<READ_BF16>(a, stage, i, chunk, x);
	else if (kind == READ_BYTES)
		read_v<READ_BYTES>(a, stage, i, chunk, x);
	else if (kind == READ_HIER)
		read_v<READ_HIER>(a, stage, i, chunk, x);
	else if (kind == READ_INT4)
		read_v<READ_INT4>(a, stage, i, chunk, x);
	else
		read_v<READ_UPPER>(a, stage, i, chunk, x);
}

/* ANY: some row of the batch is hidden from some head, which it must not touch, not even times
 * zero; or the kind is no fast one. */
template <int KIND, int L>
static __device__ __forceinline__ void
add(const struct attend *a, struct four<L> *f, enum attend_kind kind, const uint8_t *stage,
    const struct kv_cuda_row *row, uint32_t i, const float *p)
{
#pragma unroll(KIND == READ_ANY ? 1 : 4)
	for (int pass = 0; pass < 4; pass++) {
		uint32_t at = pass * (32 / L) + f->sub;
		float4 w = *(const float4 *)(p + at * 4);
		float weight[4] = { w.x, w.y, w.z, w.w }, x[8];

		if (!f->active || (KIND == READ_ANY && row[i + at].row == KV_CUDA_NONE))
			continue;
		read_v_of<KIND>(a, kind, stage, i + at, f->chunk, x);
#pragma unroll
		for (int h = 0; h < 4; h++) {
			if (KIND == READ_ANY && weight[h] < 0)
				continue;
#pragma unroll
			for (int e = 0; e < 8; e++)
				f->y[h][e] = fmaf(weight[h], x[e], f->y[h][e]);
		}
	}
}

template <int L>
static __device__ void add_rows(const struct attend *a, struct four<L> *f, enum attend_kind kind,
				bool hidden, const uint8_t *stage, const struct kv_cuda_row *row,
				uint32_t i, const float *p)
{
	switch (hidden ? READ_ANY : kind) {
	case READ_F16:
		add<READ_F16, L>(a, f, kind, stage, row, i, p);
		break;
	case READ_BF16:
		add<READ_BF16, L>(a, f, kind, stage, row, i, p);
		break;
	case READ_BYTES:
		add<READ_BYTES, L>(a, f, kind, stage, row, i, p);
		break;
	case READ_HIER:
		add<READ_HIER, L>(a, f, kind, stage, row, i, p);
		break;
	default:
		add<READ_ANY, L>(a, f, kind, stage, row, i, p);
		break;
	}
}

static __device__ enum attend_kind v_kind(const struct attend *a, bool sent)
{
	uint32_t format = sent ? a->w.s->sent.format : a->w.s->v.format;

	switch (format) {
	case KV_CUDA_INT8:
		return READ_BYTES;
	case KV_CUDA_INT4:
		return READ_INT4;
	case KV_CUDA_HIER4:
		return a->w.x->level ? READ_UPPER : READ_HIER;
	default:
		return (enum attend_kind)(READ_F32 + format);
	}
}

/* Rows [i, end) of a stage, which are this warp's. */
template <int L>
static __device__ void attend_rows(const struct attend *a, struct four<L> *f, const uint8_t *stage,
				   const struct kv_cuda_row *row, uint32_t i, uint32_t end,
				   float *p)
{
	const struct kv_cuda_row *first = some_row(a, row);
	enum attend_kind k, v;
	bool hidden;

	if (!first)
		return;
	k = ready<L>(a, f, stage, first);
	v = v_kind(a, first->rsv);
	for (; i < end; i += 128 / L) {
		float x[16];

		logits<L>(a, f, k, stage, row, i, x);
		hidden = weigh<L>(f, row, i, x, p);
		add_rows<L>(a, f, v, hidden, stage, row, i, p);
		__syncwarp();
	}
}
