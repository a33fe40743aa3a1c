/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where rows lie, and eight channels of one as floats.
 *
 * Where planes begin comes from the format's own table (params.h); what a format's
 * numbers mean is said here once more, for this is the one part of it that a GPU
 * cannot compile from the same file: a kernel reads K and V of two formats at once,
 * and a warp no vectors but what each lane decodes for itself.
 */
#include "kernels/cuda/params.h"

#define CUDA_ALL UINT32_MAX /* lanes */

template <typename T>
static __device__ __forceinline__ T *cuda_array(const struct kv_cuda_params *p, uint32_t at)
{
	return (T *)((char *)p + at);
}

/* One KV head of one item, as a block of threads works on it. */
struct cuda_work {
	const struct kv_cuda_params *p;
	const struct kv_cuda_item *x;
	const struct kv_cuda_space *s;
	uint32_t head;                     /* KV head */
	const struct kv_cuda_table *table; /* NULL: channels as they come */
	const struct kv_cuda_unit *unit;
};

static __device__ struct cuda_work cuda_work_of(const struct kv_cuda_params *p, uint32_t item,
						uint32_t head)
{
	struct cuda_work w;

	w.p = p;
	w.x = cuda_array<const struct kv_cuda_item>(p, p->items) + item;
	w.s = cuda_array<const struct kv_cuda_space>(p, p->spaces) + w.x->space;
	w.head = head;
	w.unit = cuda_array<const struct kv_cuda_unit>(p, p->units) + w.x->units;
	w.table = NULL;
	if (w.x->table != KV_CUDA_NONE) {
		w.table = cuda_array<const struct kv_cuda_table>(p, p->tables) + w.x->table + head;
		w.table = w.table->some ? w.table : NULL;
	}
	return w;
}

static __device__ __forceinline__ uint32_t cuda_outliers(const struct cuda_work *w)
{
	return w->table && w->s->k.format > KV_CUDA_BF16 ? w->table->n_outliers : 0;
}

/* Rows that a query sees. */
static __device__ __forceinline__ uint32_t cuda_limit(const struct kv_cuda_item *x, uint32_t query)
{
	uint64_t limit = (uint64_t)x->first_limit + query;

	return x->full || limit > x->rows ? x->rows : (uint32_t)limit;
}

/* Element c, by place, of the head's query `h` (a query's head), times scale. */
static __device__ float cuda_query(const struct cuda_work *w, uint32_t h, uint32_t c)
{
	uint32_t group = w->s->group, query = h / group;
	const float *q = cuda_array<const float>(w->p, w->p->q) + w->x->q;

	q += ((uint64_t)query * w->s->heads + w->head * group + h % group) * w->s->dim;
	return q[w->table ? w->table->k[c] : c] * w->s->scale;
}

/* ---- pages ------------------------------------------------------------------------------ */

struct cuda_page {
	const uint8_t *base; /* of the KV head's block */
	const struct kv_cuda_layout *layout;
	bool sent;
	const double *correction; /* of the head; NULL: none */
};

static __device__ struct cuda_page cuda_page_of(const struct cuda_work *w, uint32_t block)
{
	const struct kv_cuda_block *b =
		cuda_array<const struct kv_cuda_block>(w->p, w->p->blocks) + block;
	const uint64_t *address = cuda_array<const uint64_t>(w->p, w->p->addresses) + b->address;
	uint32_t at = w->head;
	struct cuda_page page;

	if (b->parted) { /* as kv_place_of has it */
		uint32_t heads = w->s->kv_heads, part = w->head * w->x->parts / heads;

		at = w->head - (part * heads + w->x->parts - 1) / w->x->parts;
		address += part;
	}
	page.layout = cuda_array<const struct kv_cuda_layout>(w->p, w->p->layouts) + b->layout;
	page.base = (const uint8_t *)*address + (uint64_t)at * page.layout->bytes;
	page.sent = b->sent;
	page.correction = NULL;
	if (b->correction != KV_CUDA_NONE)
		page.correction = cuda_array<const double>(w->p, w->p->corrections) +
				  b->correction + w->head * w->s->dim;
	return page;
}

/* Row `at` of unit u, for a stage. */
static __device__ void cuda_row_at(const struct cuda_work *w, uint32_t u, uint32_t at,
				   struct kv_cuda_row *ret)
{
	const struct kv_cuda_unit *unit = &w->unit[u];
	struct cuda_page page = cuda_page_of(w, unit->block);

	ret->base = (uint64_t)page.base;
	ret->v = page.layout->v;
	ret->outliers = page.layout->outliers;
	ret->tiles = page.layout->tiles;
	ret->at = unit->at + at;
	ret->row = unit->first_row + at;
}

/* ---- numbers ------------------------------------------------------------------------------- */

/* Byte i as a float: 2^23 + byte less 2^23, which are whole steps of the faster units. */
static __device__ __forceinline__ float cuda_byte(uint32_t word, uint32_t i)
{
	return cuda_float(__byte_perm(word, 0x4b000000, 0x7650 | i)) - 8388608.0f;
}

static __device__ __forceinline__ float cuda_from_bf16(uint32_t x)
{
	return cuda_float(x << 16);
}

static __device__ __forceinline__ void cuda_load_f32(const void *p, float x[8])
{
	const float4 *from = (const float4 *)p;
	float4 a = from[0], b = from[1];

	x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
	x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

template <bool BRAIN>
static __device__ __forceinline__ void cuda_load_half(const void *p, float x[8])
{
	uint4 v = *(const uint4 *)p;
	uint32_t word[4] = { v.x, v.y, v.z, v.w };

#pragma unroll
	for (int i = 0; i < 4; i++) {
		if (BRAIN) {
			x[2 * i] = cuda_from_bf16(word[i] & 0xffff);
			x[2 * i + 1] = cuda_float(word[i] & 0xffff0000);
		} else {
			x[2 * i] = cuda_from_f16(word[i] & 0xffff);
			x[2 * i + 1] = cuda_from_f16(word[i] >> 16);
		}
	}
}

static __device__ __forceinline__ void cuda_load_bytes(const void *p, float x[8])
{
	uint2 v = *(const uint2 *)p;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		x[i] = cuda_byte(v.x, i);
		x[4 + i] = cuda_byte(v.y, i);
	}
}

/* Nibbles; HIGH: the even element is in the high half. */
template <bool HIGH>
static __device__ __forceinline__ void cuda_load_nibbles(const void *p, float x[8])
{
	uint32_t v = *(const uint32_t *)p;
	uint32_t even = HIGH ? v >> 4 & 0x0f0f0f0f : v & 0x0f0f0f0f;
	uint32_t odd = HIGH ? v & 0x0f0f0f0f : v >> 4 & 0x0f0f0f0f;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		x[2 * i] = cuda_byte(even, i);
		x[2 * i + 1] = cuda_byte(odd, i);
	}
}

/* 16 upper + lower */
static __device__ __forceinline__ void cuda_load_planes(const void *upper, const void *lower,
							float x[8])
{
	uint32_t u = *(const uint32_t *)upper, l = *(const uint32_t *)lower;
	uint32_t even = (u & 0x0f0f0f0f) << 4 | (l & 0x0f0f0f0f);
	uint32_t odd = (u & 0xf0f0f0f0) | (l >> 4 & 0x0f0f0f0f);

#pragma unroll
	for (int i = 0; i < 4; i++) {
		x[2 * i] = cuda_byte(even, i);
		x[2 * i + 1] = cuda_byte(odd, i);
	}
}

/* A pair {scale, min} as it is stored, as what the codes are multiplied by and begin with. HIER:
 * an 8-bit code of hier4, whose pair is that of its upper half. */
template <bool HIER>
static __device__ __forceinline__ void cuda_pair(uint32_t pair, float *scale, float *min)
{
	*scale = cuda_from_f16(pair & 0xffff);
	*min = cuda_from_f16(pair >> 16);
	if (HIER) {
		*min = fmaf(*scale, -0.5f, *min);
		*scale *= 1.0f / 16;
	}
}

/* ---- exponentials: those of kernels/stage/exp.h ---------------------------------------------- */

/* x 2^n, for x near 1 and whole n from -127 to 127. */
static __device__ __forceinline__ float cuda_scale(float x, float n)
{
	int e = (int)n + 127;

	return x * cuda_float(e > 0 ? (uint32_t)e << 23 : 0);
}

static __device__ __forceinline__ float cuda_exp(float x)
{
	float t = x < -87.3f ? -87.3f : x > 88.7f ? 88.7f : x;
	float n = rintf(t * 0x1.715476p+0f), f = fmaf(n, -0x1.62e4p-1f, t), y = 1.0f / 5040;

	f = fmaf(n, -0x1.7f7d1cp-20f, f);
	y = fmaf(y, f, 1.0f / 720);
	y = fmaf(y, f, 1.0f / 120);
	y = fmaf(y, f, 1.0f / 24);
	y = fmaf(y, f, 1.0f / 6);
	y = fmaf(y, f, 0.5f);
	y = fmaf(y, f, 1.0f);
	y = fmaf(y, f, 1.0f);
	return x >= -87.3f ? cuda_scale(y, n) : 0; /* NaN: 0 as well */
}

/* e^(x - ref) by the fast one: 0 from 2^-127 down and for NaN, at most 2^127. */
static __device__ __forceinline__ float cuda_exp_near(float x, float ref)
{
	float t = (x - ref) * 0x1.715476p+0f, n, f, y;

	t = t > -127 ? t : -127;
	t = t < 127 ? t : 127;
	n = rintf(t);
	f = t - n;
	y = fmaf(f, 0.00957010201f, 0.0559178603f);
	y = fmaf(y, f, 0.240247448f);
	y = fmaf(y, f, 0.693121815f);
	y = fmaf(y, f, 0.999999261f);
	return cuda_scale(y, n);
}
