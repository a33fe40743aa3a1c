/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tile made on the device of the 128 oldest rows of a tail: the same bits as kv_flush
 * with the CPU's scalar rows, operation by operation (kernels/stage/write.h and each format's
 * fmt_pair and fmt_code). One block makes a KV head's K, another one its V and the
 * sum. A thread has a channel where a group is a channel over the tile, a row
 * where it lies along the row; the rows as sent are read twice, which the second
 * cache is for.
 *
 * A flush moves 64 KiB to 1.3 times that for each KV head once in 128 tokens (f16, d = 128): what
 * is left to gain is in not waiting for it. It has never run on a GPU.
 */

struct flush {
	struct cuda_work w;
	struct cuda_page to;
	uint32_t slot, outliers;
	bool k;
	const struct kv_cuda_half *half;
	uint8_t *base; /* of K or V in the block that is written */
};

struct pair {
	uint16_t scale, min;
};

static __device__ float flush_number(const struct flush *f, uint32_t row, uint32_t c)
{
	uint32_t first = f->w.x->first_limit + row, u = f->w.x->n_units;
	struct cuda_page page;
	uint32_t at;

	while (f->w.unit[u - 1].first_row > first)
		u--;
	page = cuda_page_of(&f->w, f->w.unit[u - 1].block);
	at = f->w.unit[u - 1].at + first - f->w.unit[u - 1].first_row;
	return sent_number(&f->w,
			   page.base + (f->k ? 0 : page.layout->v) +
				   (uint64_t)at * f->w.s->sent.stride,
			   c);
}

/* What the planes get of it: outliers are held apart. */
static __device__ float plane_number(const struct flush *f, uint32_t row, uint32_t c)
{
	return f->k && c < f->outliers ? 0 : flush_number(f, row, c);
}

/* ---- groups, as kernels/stage/write.h and the formats have them ---------------------------- */

static __device__ uint16_t f16_up(float x)
{
	uint16_t h = kv_to_f16(x);

	if (kv_from_f16(h) >= x)
		return h;
	return h & 0x8000 ? h - 1 : h + 1;
}

static __device__ struct pair pair_of(uint32_t format, float min, float max)
{
	struct pair p = { 0, 0 };
	float step;

	if (!(min <= max))
		return p;
	if (format != KV_CUDA_INT8) {
		p.scale = kv_to_f16(kv_finite_f16((max - min) / 15));
		p.min = kv_to_f16(kv_finite_f16(min));
		return p;
	}
	p.min = f16_up(-kv_finite_f16(min)) ^ 0x8000;
	step = (max - kv_from_f16(p.min)) / 255;
	if (step > 0)
		p.scale = f16_up(kv_finite_f16(step));
	return p;
}

static __device__ float between(float x, float low, float high)
{
	x = x > low ? x : low;
	return x < high ? x : high;
}

static __device__ uint8_t code_of(uint32_t format, struct pair p, float x)
{
	float scale = kv_from_f16(p.scale), min = kv_from_f16(p.min), steps, u, rest, l;

	scale = scale > 0 ? scale : INFINITY;
	steps = (x - min) / scale;
	u = rintf(between(steps, 0, format == KV_CUDA_INT8 ? 255 : 15));
	if (format != KV_CUDA_HIER4)
		return (uint8_t)u;
	rest = x - (u * (scale < 65504 ? scale : 65504) + min);
	l = rintf(between(rest / scale * 16, -8, 7));
	return (uint8_t)(u * 16 + (l + 8));
}

/* ---- K by channel ------------------------------------------------------------------------------
 */

static __device__ void store_pair(uint8_t *plane, uint64_t at, struct pair p)
{
	((uint32_t *)plane)[at] = (uint32_t)p.min << 16 | p.scale;
}

/* int8 and hier4: a channel over the tile. */
static __device__ void flush_channel(const struct flush *f, uint32_t c)
{
	uint32_t tiles = f->to.layout->tiles, stride = f->half->stride, format = f->half->format;
	bool hier = format == KV_CUDA_HIER4;
	uint8_t *codes = f->base + (uint64_t)tiles * (hier ? f->half->plane[1] : 0) +
			 (uint64_t)f->slot * 128 * stride + c;
	uint8_t *pairs = f->base + (uint64_t)tiles * f->half->plane[hier ? 2 : 1], *run = NULL;
	float min = INFINITY, max = -INFINITY;
	struct pair p;
	uint8_t even = 0;

	if (f->w.s->channels != KV_CUDA_NONE)
		run = f->base + (uint64_t)tiles * f->half->plane[f->w.s->channels] +
		      ((uint64_t)c * tiles + f->slot) * (hier ? 64 : 128);
	for (uint32_t i = 0; i < 128; i++) {
		float x = plane_number(f, i, c);

		min = x < min ? x : min;
		max = x > max ? x : max;
	}
	p = pair_of(format, min, max);
	store_pair(pairs, (uint64_t)c * tiles + f->slot, p);
	if (hier)
		store_pair(f->base + (uint64_t)tiles * f->half->plane[3],
			   (uint64_t)f->slot * f->w.s->dim + c, p);
	for (uint32_t i = 0; i < 128; i++) {
		uint8_t code = code_of(format, p, plane_number(f, i, c));

		codes[i * stride] = code;
		if (run && !hier)
			run[i] = code;
		if (hier && i % 2)
			run[i / 2] = (uint8_t)(even >> 4 | (code & 0xf0));
		even = code;
	}
}

/* ---- along the row
 * -------------------------------------------------------------------------------- */

struct group { /* channels [first, first + n) of a row */
	uint32_t first, n;
	bool fill; /* what it lacks counts as zeros */
};

static __device__ struct pair group_pair(const struct flush *f, uint32_t row, struct group g)
{
	float min = INFINITY, max = -INFINITY;

	for (uint32_t c = g.first; c < g.first + g.n; c++) {
		float x = plane_number(f, row, c);

		min = x < min ? x : min;
		max = x > max ? x : max;
	}
	if (g.fill) {
		min = 0 < min ? 0 : min;
		max = 0 > max ? 0 : max;
	}
	return pair_of(f->half->format, -(0 - min), max);
}

/* The nibble of a channel's run, whose byte another row's thread has the other half of: pairs of
 * rows are one thread's. */
static __device__ void flush_int4(const struct flush *f, uint32_t row, struct group g, uint8_t *run)
{
	uint32_t tiles = f->to.layout->tiles, at = f->slot * 128 + row;
	struct pair p = group_pair(f, row, g);
	uint8_t *codes = f->base + (uint64_t)at * f->half->stride;

	store_pair(f->base + (uint64_t)tiles * f->half->plane[1],
		   (uint64_t)(g.first / 64) * tiles * 128 + at, p);
	for (uint32_t c = g.first; c < g.first + g.n; c += 2) {
		uint8_t even = code_of(KV_CUDA_INT4, p, plane_number(f, row, c));
		uint8_t odd = code_of(KV_CUDA_INT4, p, plane_number(f, row, c + 1));

		codes[c / 2] = (uint8_t)(even << 4) | odd;
		for (uint32_t k = 0; run && k < 2; k++) {
			uint8_t *to = run + ((uint64_t)(c + k) * tiles + f->slot) * 64 + row / 2;
			uint8_t code = k ? odd : even;

			*to = row % 2 ? *to | code : (uint8_t)(code << 4);
		}
	}
}

static __device__ void flush_v_row(const struct flush *f, uint32_t row)
{
	uint32_t tiles = f->to.layout->tiles, at = f->slot * 128 + row, dim = f->w.s->dim;
	bool hier = f->half->format == KV_CUDA_HIER4;
	struct group g = { 0, dim, false };
	struct pair p = group_pair(f, row, g);
	uint8_t *to = f->base + (uint64_t)at * f->half->stride;
	uint8_t *lower = to + (uint64_t)tiles * f->half->plane[1];

	store_pair(f->base + (uint64_t)tiles * f->half->plane[hier ? 2 : 1], at, p);
	for (uint32_t c = 0; c < dim; c += 2) {
		uint8_t even = code_of(f->half->format, p, flush_number(f, row, c));
		uint8_t odd = code_of(f->half->format, p, flush_number(f, row, c + 1));

		if (hier) {
			to[c / 2] = (uint8_t)(even >> 4 | (odd & 0xf0));
			lower[c / 2] = (uint8_t)((even & 15) | odd << 4);
		} else {
			to[c] = even;
			to[c + 1] = odd;
		}
	}
}

/* Two rows of one thread, for their nibbles share bytes. */
static __device__ void flush_groups(const struct flush *f, uint32_t row)
{
	uint32_t tiles = f->to.layout->tiles, dim = f->w.s->dim;
	uint8_t *run = NULL;

	if (f->k && f->w.s->channels != KV_CUDA_NONE)
		run = f->base + (uint64_t)tiles * f->half->plane[f->w.s->channels];
	for (uint32_t i = row; i < row + 2; i++)
		for (uint32_t c = 0; c < dim; c += 64) {
			uint32_t n = dim - c < 64 ? dim - c : 64;
			struct group g = { c, n, n < 64 };

			flush_int4(f, i, g, run);
		}
}

/* ---- numbers as they are
 * ------------------------------------------------------------------------------ */

static __device__ void flush_plain(const struct flush *f, uint32_t c)
{
	uint32_t tiles = f->to.layout->tiles, dim = f->w.s->dim, format = f->half->format;
	uint8_t *run = NULL;

	if (f->k && f->w.s->channels != KV_CUDA_NONE)
		run = f->base + (uint64_t)tiles * f->half->plane[f->w.s->channels];
	for (uint32_t i = 0; i < 128; i++) {
		uint64_t at = ((uint64_t)f->slot * 128 + i) * dim + c;
		uint64_t of_run = ((uint64_t)c * tiles + f->slot) * 128 + i;
		float x = flush_number(f, i, c);
		uint16_t half = format == KV_CUDA_F16 ? kv_to_f16(x) : kv_to_bf16(x);

		if (format == KV_CUDA_F32) {
			((float *)f->base)[at] = x;
			if (run)
				((float *)run)[of_run] = x;
			continue;
		}
		((uint16_t *)f->base)[at] = half;
		if (run)
			((uint16_t *)run)[of_run] = half;
	}
}

/* ---- outliers, sums
 * ------------------------------------------------------------------------------------ */

/* What the format makes of the zero in an outlier's place. */
static __device__ float zero_of(const struct flush *f, uint32_t row, uint32_t c)
{
	uint32_t tiles = f->to.layout->tiles, at = f->slot * 128 + row;
	const uint32_t *pairs = (const uint32_t *)(f->base + (uint64_t)tiles * f->half->plane[1]);
	uint32_t pair;
	float code;

	if (f->half->format != KV_CUDA_INT4) /* a group of zeros */
		return 0;
	pair = pairs[(uint64_t)(c / 64) * tiles * 128 + at];
	code = (float)(f->base[(uint64_t)at * f->half->stride + c / 2] >> 4 * (~c & 1) & 15);
	return code * kv_from_f16(pair & 0xffff) + kv_from_f16(pair >> 16);
}

static __device__ void flush_outliers(const struct flush *f)
{
	uint32_t tiles = f->to.layout->tiles;
	uint16_t *to = (uint16_t *)(f->base + f->to.layout->outliers);

	for (uint32_t c = 0; c < f->outliers; c++)
		for (uint32_t i = threadIdx.x; i < 128; i += KV_CUDA_THREADS) {
			float x = kv_finite_f16(flush_number(f, i, c)) - zero_of(f, i, c);

			to[((uint64_t)c * tiles + f->slot) * 128 + i] = kv_to_f16(kv_finite_f16(x));
		}
}

static __device__ void flush_sum(const struct flush *f, uint32_t c)
{
	float *to = (float *)(f->to.base + f->to.layout->sums);
	uint32_t first = f->w.x->first_limit, from;
	double sum = sum_tiles(&f->w, c, first, &from);

	sum_units(&f->w, c, from, first, &sum);
	for (uint32_t i = 0; i < 128; i++)
		sum += (double)flush_number(f, i, c);
	if (f->to.correction)
		sum -= f->to.correction[c];
	to[(uint64_t)f->slot * f->w.s->dim + c] = (float)sum;
}

extern "C" __global__ void __launch_bounds__(KV_CUDA_THREADS)
	kv_cuda_flush(const struct kv_cuda_params *p)
{
	struct flush f;

	f.w = cuda_work_of(p, blockIdx.y, 0);
	if (blockIdx.x >= 2 * f.w.s->kv_heads)
		return;
	f.w = cuda_work_of(p, blockIdx.y, blockIdx.x / 2);
	f.k = blockIdx.x % 2 == 0;
	f.to = cuda_page_of(&f.w, f.w.x->flush.block);
	f.slot = f.w.x->flush.slot;
	f.half = f.k ? &f.w.s->k : &f.w.s->v;
	f.base = (uint8_t *)f.to.base + (f.k ? 0 : f.to.layout->v);
	f.outliers = cuda_outliers(&f.w);
	for (uint32_t c = threadIdx.x; c < f.w.s->dim; c += KV_CUDA_THREADS) {
		if (f.half->format <= KV_CUDA_BF16)
			flush_plain(&f, c);
		else if (f.k && f.half->format != KV_CUDA_INT4)
			flush_channel(&f, c);
		if (!f.k)
			flush_sum(&f, c);
	}
	if (f.half->format == KV_CUDA_INT4 && threadIdx.x < 64)
		flush_groups(&f, threadIdx.x * 2);
	else if (!f.k && f.half->format > KV_CUDA_BF16 && f.half->format != KV_CUDA_INT4)
		flush_v_row(&f, threadIdx.x);
	__syncthreads();
	if (f.k)
		flush_outliers(&f);
}
