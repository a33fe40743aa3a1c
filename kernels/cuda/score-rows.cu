/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scores of a unit by one warp: lane l has rows 8 l to 8 l + 7 of its 256, for four
 * heads at a time.
 *
 * hier4 in integers, as the CPU's vectors do it (kernels/fast/scan-hier4.h): a tile's
 * coefficients are rounded to int8 with one scale a head, four channels are one
 * product of four bytes. A lane's word of a channel is 8 rows; four channels' words
 * become 8 words of a row each by 22 operations on bytes. Nibbles are taken from
 * their middle, what rounding loses there goes into the bias.
 *
 * The others in f32, operation by operation in the order of the CPU's scalar rows: not
 * fused, so that their scores are the same bits.
 */

struct scoring {
	struct cuda_work w;
	struct kv_cuda_scoring at;
	uint8_t *shared;
	const float *coef;     /* [heads][r] from head `first` on, up to SCORE_HEADS */
	const uint32_t *place; /* [r] */
	uint32_t first;
	uint32_t r, outliers; /* of the places, so many are held apart */
};

/* Adds up (or takes the largest of) 8 numbers over the warp: lane l has number l / 4 of them. */
template <bool MAX> static __device__ __forceinline__ float reduce8(float v[8])
{
	uint32_t lane = threadIdx.x % 32;
	int n = 4;

#pragma unroll
	for (int o = 16; o > 0; o /= 2) {
		bool upper = lane & o;

#pragma unroll
		for (int i = 0; i < 4; i++) {
			if (i >= (n ? n : 1))
				continue;
			float send = n && !upper ? v[i + n] : v[i];
			float keep = n && upper ? v[i + n] : v[i];
			float other = __shfl_xor_sync(CUDA_ALL, send, o);

			v[i] = MAX ? fmaxf(keep, other) : keep + other;
		}
		n /= 2;
	}
	return v[0];
}

/* ---- hier4 --------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t tile_pair(const struct scoring *s,
						     const struct cuda_page *page, uint32_t tile,
						     uint32_t place)
{
	uint32_t tiles = page->layout->tiles;
	const uint8_t *pairs = page->base + (uint64_t)tiles * s->w.s->k.plane[2];

	if (tile >= tiles)
		return 0;
	return ((const uint32_t *)pairs)[place * tiles + tile];
}

static __device__ __forceinline__ float coefficient(const struct scoring *s, uint32_t h, uint32_t j)
{
	return h < s->w.x->heads && j < s->r ? s->coef[(h - s->first) * s->r + j] : 0;
}

/* Coefficients of heads [head, head + 4) in both tiles from `tile` on, rounded, to shared memory;
 * ret: what a lane's tile has. */
static __device__ void round_coefficients(const struct scoring *s, const struct cuda_page *page,
					  uint32_t tile, uint32_t head, uint32_t *codes,
					  float ret_step[4], float ret_bias[4])
{
	uint32_t lane = threadIdx.x % 32, quads = (s->r + 3) / 4, half = quads * 4 + 4;
	float top[8] = { 0 }, bias[8] = { 0 }, step[8], most;

	for (uint32_t j = lane; j < s->r; j += 32)
#pragma unroll
		for (int t = 0; t < 2; t++) {
			float scale, min;

			cuda_pair<false>(tile_pair(s, page, tile + t, s->place[j]), &scale, &min);
#pragma unroll
			for (int h = 0; h < 4; h++) {
				float c = coefficient(s, head + h, j);

				top[t * 4 + h] = fmaxf(fabsf(c * scale), top[t * 4 + h]);
				bias[t * 4 + h] = fmaf(c, min, bias[t * 4 + h]);
			}
		}
	most = reduce8<true>(top) * (1.0f / 127);
#pragma unroll
	for (int i = 0; i < 8; i++)
		step[i] = __shfl_sync(CUDA_ALL, most, i * 4);
	for (uint32_t j = lane; j < quads * 4; j += 32)
#pragma unroll
		for (int t = 0; t < 2; t++) {
			float scale = 0, min;

			if (j < s->r)
				cuda_pair<false>(tile_pair(s, page, tile + t, s->place[j]), &scale,
						 &min);
#pragma unroll
			for (int h = 0; h < 4; h++) {
				float by = step[t * 4 + h], w = coefficient(s, head + h, j) * scale;
				float x = by > 0 ? rintf(w * (1 / by)) : 0;

				((int8_t *)(codes + t * half + j / 4 * 4 + h))[j % 4] = (int8_t)x;
				bias[t * 4 + h] = fmaf(fmaf(-x, by, w), 7.5f, bias[t * 4 + h]);
			}
		}
	most = reduce8<false>(bias);
#pragma unroll
	for (int h = 0; h < 4; h++) {
		ret_bias[h] = __shfl_sync(CUDA_ALL, most, (lane / 16 * 4 + h) * 4);
		ret_step[h] = lane < 16 ? step[h] : step[4 + h];
	}
	__syncwarp();
}

/* Four bytes of four words, the other way round. */
static __device__ __forceinline__ void turn(const uint32_t x[4], uint32_t ret[4])
{
	uint32_t a = __byte_perm(x[0], x[1], 0x5140), b = __byte_perm(x[2], x[3], 0x5140);
	uint32_t c = __byte_perm(x[0], x[1], 0x7362), d = __byte_perm(x[2], x[3], 0x7362);

	ret[0] = __byte_perm(a, b, 0x5410);
	ret[1] = __byte_perm(a, b, 0x7632);
	ret[2] = __byte_perm(c, d, 0x5410);
	ret[3] = __byte_perm(c, d, 0x7632);
}

/* Four channels of 8 rows. */
static __device__ __forceinline__ void add_quad(const uint32_t word[4], uint4 code, int acc[4][8])
{
	uint32_t low[4], high[4], even[4], odd[4], c[4] = { code.x, code.y, code.z, code.w };

#pragma unroll
	for (int k = 0; k < 4; k++) {
		low[k] = word[k] & 0x0f0f0f0f;
		high[k] = word[k] >> 4 & 0x0f0f0f0f;
	}
	turn(low, even);
	turn(high, odd);
#pragma unroll
	for (int i = 0; i < 4; i++)
#pragma unroll
		for (int h = 0; h < 4; h++) {
			acc[h][2 * i] = cuda_dot4(even[i], c[h], acc[h][2 * i]);
			acc[h][2 * i + 1] = cuda_dot4(odd[i], c[h], acc[h][2 * i + 1]);
		}
}

#define QUADS 4u /* whose words are asked for at once: 64 bytes a lane */

static __device__ void score_hier4(const struct scoring *s, const struct cuda_page *page,
				   uint32_t at, uint32_t head, bool reads, float a[4][8])
{
	uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, tiles = page->layout->tiles;
	uint32_t quads = (s->r + 3) / 4;
	uint32_t *codes = (uint32_t *)(s->shared + s->at.codes + warp * s->at.code_bytes);
	const uint4 *code = (const uint4 *)(codes + lane / 16 * (quads * 4 + 4));
	const uint8_t *run = page->base + at / 2 + lane * 4;
	float step[4], bias[4];
	int acc[4][8] = { { 0 } };

	round_coefficients(s, page, at / 128, head, codes, step, bias);
	for (uint32_t q = 0; q < quads; q += QUADS) {
		uint32_t word[QUADS][4];

#pragma unroll
		for (uint32_t i = 0; i < QUADS * 4; i++) {
			uint32_t j = q * 4 + i;

			j = j < s->r ? j : s->r - 1;
			word[i / 4][i % 4] = 0;
			if (reads)
				word[i / 4][i % 4] = *(
					const uint32_t *)(run + (uint64_t)s->place[j] * tiles * 64);
		}
#pragma unroll
		for (uint32_t i = 0; i < QUADS; i++)
			if (q + i < quads)
				add_quad(word[i], code[q + i], acc);
	}
#pragma unroll
	for (int h = 0; h < 4; h++)
#pragma unroll
		for (int i = 0; i < 8; i++)
			a[h][i] = fmaf((float)acc[h][i], step[h], bias[h]);
	__syncwarp();
}

/* ---- the others ------------------------------------------------------------------------ */

/* 8 rows of a channel, from row `at` of the block. */
static __device__ void read_run(const struct scoring *s, const struct cuda_page *page, uint32_t at,
				uint32_t place, float x[8])
{
	const struct kv_cuda_half *k = &s->w.s->k;
	uint32_t tiles = page->layout->tiles, rows = tiles * 128;
	const uint8_t *plane = page->base + (uint64_t)tiles * k->plane[s->w.s->channels];
	uint64_t first = (uint64_t)place * rows + at;

	if (k->format == KV_CUDA_F32)
		cuda_load_f32(plane + first * 4, x);
	else if (k->format == KV_CUDA_F16)
		cuda_load_half<false>(plane + first * 2, x);
	else if (k->format == KV_CUDA_BF16)
		cuda_load_half<true>(plane + first * 2, x);
	else if (k->format == KV_CUDA_INT8)
		cuda_load_bytes(plane + first, x);
	else
		cuda_load_nibbles<true>(plane + first / 2, x);
}

static __device__ __forceinline__ const uint32_t *k_pairs(const struct scoring *s,
							  const struct cuda_page *page)
{
	return (const uint32_t *)(page->base + (uint64_t)page->layout->tiles * s->w.s->k.plane[1]);
}

/* int8: scale and minimum of the tile's channel go into the coefficient and a bias. */
static __device__ void score_int8(const struct scoring *s, const struct cuda_page *page,
				  uint32_t at, uint32_t head, float a[4][8])
{
	const uint32_t *pairs = k_pairs(s, page) + at / 128;
	uint32_t tiles = page->layout->tiles;
	float scale, min, x[8];

	for (uint32_t j = 0; j < s->r; j++) {
		cuda_pair<false>(pairs[s->place[j] * tiles], &scale, &min);
#pragma unroll
		for (int h = 0; h < 4; h++)
			a[h][0] = a[h][0] + coefficient(s, head + h, j) * min;
	}
#pragma unroll
	for (int h = 0; h < 4; h++)
#pragma unroll
		for (int i = 1; i < 8; i++)
			a[h][i] = a[h][0];
	for (uint32_t j = 0; j < s->r; j++) {
		cuda_pair<false>(pairs[s->place[j] * tiles], &scale, &min);
		read_run(s, page, at, s->place[j], x);
#pragma unroll
		for (int h = 0; h < 4; h++) {
			float c = coefficient(s, head + h, j) * scale;

#pragma unroll
			for (int i = 0; i < 8; i++)
				a[h][i] = x[i] * c + a[h][i];
		}
	}
}

/* Plain numbers, or int4's with the parameters of their rows. */
static __device__ void score_runs(const struct scoring *s, const struct cuda_page *page,
				  uint32_t at, uint32_t head, float a[4][8])
{
	bool four = s->w.s->k.format == KV_CUDA_INT4;
	float x[8], scale[8], min[8];
	uint32_t group = KV_CUDA_NONE;

	for (uint32_t j = 0; j < s->r; j++) {
		if (four && s->place[j] / 64 != group) {
			const uint32_t *pair = k_pairs(s, page);

			group = s->place[j] / 64;
			pair += (uint64_t)group * page->layout->tiles * 128 + at;
#pragma unroll
			for (int i = 0; i < 8; i++)
				cuda_pair<false>(pair[i], &scale[i], &min[i]);
		}
		read_run(s, page, at, s->place[j], x);
#pragma unroll
		for (int i = 0; i < 8; i++)
			x[i] = four ? x[i] * scale[i] + min[i] : x[i];
#pragma unroll
		for (int h = 0; h < 4; h++) {
			float c = coefficient(s, head + h, j);

#pragma unroll
			for (int i = 0; i < 8; i++)
				a[h][i] = x[i] * c + a[h][i];
		}
	}
}

static __device__ float sent_number(const struct cuda_work *w, const uint8_t *row, uint32_t c)
{
	if (w->s->sent.format == KV_CUDA_F32)
		return ((const float *)row)[c];
	if (w->s->sent.format == KV_CUDA_F16)
		return cuda_from_f16(((const uint16_t *)row)[c]);
	return cuda_from_bf16(((const uint16_t *)row)[c]);
}

/* Rows as sent: few, and not by channel. */
static __device__ void score_sent(const struct scoring *s, const struct cuda_page *page,
				  uint32_t at, uint32_t rows, uint32_t head, float a[4][8])
{
	const uint8_t *row = page->base + (uint64_t)at * s->w.s->sent.stride;

#pragma unroll
	for (int i = 0; i < 8; i++, row += s->w.s->sent.stride)
		for (uint32_t j = 0; j < s->r && (uint32_t)i < rows; j++) {
			float x = sent_number(&s->w, row, s->place[j]);

#pragma unroll
			for (int h = 0; h < 4; h++)
				a[h][i] = x * coefficient(s, head + h, j) + a[h][i];
		}
}

/* ---- all channels ------------------------------------------------------------------------ */

/* Channels [c, c + 8) of row `at` of a block's tiles, as attention has them. */
static __device__ void read_channels(const struct scoring *s, const struct cuda_page *page,
				     uint32_t at, uint32_t c, float x[8])
{
	const struct kv_cuda_half *k = &s->w.s->k;
	uint32_t tiles = page->layout->tiles, dim = s->w.s->dim, tile = at / 128;
	bool hier = k->format == KV_CUDA_HIER4, four = k->format == KV_CUDA_INT4;
	const uint8_t *row =
		page->base + (uint64_t)tiles * (hier ? k->plane[1] : 0) + (uint64_t)at * k->stride;
	const uint32_t *pair = (const uint32_t *)(page->base + (uint64_t)tiles * k->plane[1]);
	float scale, min;

	if (k->format == KV_CUDA_F32)
		cuda_load_f32(row + c * 4, x);
	else if (k->format == KV_CUDA_F16)
		cuda_load_half<false>(row + c * 2, x);
	else if (k->format == KV_CUDA_BF16)
		cuda_load_half<true>(row + c * 2, x);
	else if (four)
		cuda_load_nibbles<true>(row + c / 2, x);
	else
		cuda_load_bytes(row + c, x);
	if (k->format <= KV_CUDA_BF16)
		return;
	if (hier)
		pair = (const uint32_t *)(page->base + (uint64_t)tiles * k->plane[3]) + tile * dim;
#pragma unroll
	for (int e = 0; e < 8; e++) {
		if (hier)
			cuda_pair<true>(pair[c + e], &scale, &min);
		else if (four)
			cuda_pair<false>(pair[(uint64_t)(c / 64) * tiles * 128 + at], &scale, &min);
		else
			cuda_pair<false>(pair[(c + e) * tiles + tile], &scale, &min);
		x[e] = fmaf(x[e], scale, min);
	}
}

/* The product with all of K: what attention will find. A lane reads its rows by itself, 8 channels
 * at a time: lines come once from the second cache and are used up in the first. */
static __device__ void score_exact(const struct scoring *s, const struct cuda_page *page,
				   uint32_t at, uint32_t rows, uint32_t head, float a[4][8])
{
	for (uint32_t c = 0; c < s->w.s->dim; c += 8)
#pragma unroll
		for (int i = 0; i < 8; i++) {
			float x[8];

			if ((uint32_t)i >= rows)
				continue;
			read_channels(s, page, at + i, c, x);
#pragma unroll
			for (int h = 0; h < 4; h++)
#pragma unroll
				for (int e = 0; e < 8; e++)
					a[h][i] = fmaf(x[e], coefficient(s, head + h, c + e),
						       a[h][i]);
		}
}

static __device__ void score_outliers(const struct scoring *s, const struct cuda_page *page,
				      uint32_t at, uint32_t head, float a[4][8])
{
	const uint16_t *column = (const uint16_t *)(page->base + page->layout->outliers) + at;

	for (uint32_t j = 0; j < s->outliers; j++)
#pragma unroll
		for (int i = 0; i < 8; i++) {
			uint64_t row = (uint64_t)s->place[j] * page->layout->tiles * 128 + i;
			float x = cuda_from_f16(column[row]);

#pragma unroll
			for (int h = 0; h < 4; h++)
				a[h][i] = coefficient(s, head + h, j) * x + a[h][i];
		}
}

/* Of the unit's rows whose groups are in the mask, by heads [head, head + 4); -inf for what a head
 * does not see, and for rows that are not there. */
static __device__ void score_four(const struct scoring *s, uint32_t u, uint32_t head, uint32_t mask,
				  float a[4][8])
{
	const struct kv_cuda_unit *unit = &s->w.unit[u];
	struct cuda_page page = cuda_page_of(&s->w, unit->block);
	uint32_t lane = threadIdx.x % 32, at = unit->at + lane * 8;
	uint32_t rows = lane * 8 < unit->rows ? unit->rows - lane * 8 : 0;
	bool reads = rows && (mask >> lane / 8 & 1);

#pragma unroll
	for (int h = 0; h < 4; h++)
#pragma unroll
		for (int i = 0; i < 8; i++)
			a[h][i] = 0;
	if (!page.sent && s->w.x->exact && reads)
		score_exact(s, &page, at, rows, head, a);
	else if (!page.sent && s->w.x->exact)
		;
	else if (!page.sent && s->w.s->k.format == KV_CUDA_HIER4)
		score_hier4(s, &page, unit->at, head, reads, a);
	else if (reads && page.sent)
		score_sent(s, &page, at, rows, head, a);
	else if (reads && s->w.s->k.format == KV_CUDA_INT8)
		score_int8(s, &page, at, head, a);
	else if (reads)
		score_runs(s, &page, at, head, a);
	if (reads && !page.sent && s->outliers)
		score_outliers(s, &page, at, head, a);
#pragma unroll
	for (int h = 0; h < 4; h++) {
		uint32_t limit = 0;

		if (head + h < s->w.x->heads && reads)
			limit = cuda_limit(s->w.x, (head + h) / s->w.s->group);
#pragma unroll
		for (uint32_t i = 0; i < 8; i++)
			if (i >= rows || unit->first_row + lane * 8 + i >= limit)
				a[h][i] = -INFINITY;
	}
}
