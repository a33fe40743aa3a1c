/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sum of V over all rows that each query sees, for the mean: what the last whole
 * tile says of the rows up to its end, and the rows behind it one by one; see map.c.
 * A thread has a channel.
 */

static __device__ float v_number(const struct cuda_work *w, const struct cuda_page *page,
				 uint32_t at, uint32_t c)
{
	const struct kv_cuda_half *half = &w->s->v;
	const uint8_t *v = page->base + page->layout->v;
	uint32_t tiles = page->layout->tiles, group = half->format == KV_CUDA_INT4 ? c / 64 : 0;
	const uint8_t *row = v + (uint64_t)at * half->stride;
	const uint32_t *pair;
	float scale, min, code;

	if (page->sent)
		return sent_number(w, v + (uint64_t)at * w->s->sent.stride, c);
	if (half->format == KV_CUDA_F32)
		return ((const float *)row)[c];
	if (half->format == KV_CUDA_F16)
		return cuda_from_f16(((const uint16_t *)row)[c]);
	if (half->format == KV_CUDA_BF16)
		return cuda_from_bf16(((const uint16_t *)row)[c]);
	pair = (const uint32_t *)(v + (uint64_t)tiles *
					      half->plane[half->format == KV_CUDA_HIER4 ? 2 : 1]);
	pair += (uint64_t)group * tiles * 128 + at;
	if (half->format == KV_CUDA_HIER4) {
		uint32_t shift = 4 * (c & 1);
		const uint8_t *lower = row + (uint64_t)tiles * half->plane[1];

		cuda_pair<true>(*pair, &scale, &min);
		code = (float)((row[c / 2] >> shift & 15) * 16 + (lower[c / 2] >> shift & 15));
	} else {
		cuda_pair<false>(*pair, &scale, &min);
		code = half->format == KV_CUDA_INT8 ? (float)row[c]
						    : (float)(row[c / 2] >> 4 * (~c & 1) & 15);
	}
	return code * scale + min;
}

/* Adds rows [from, to) of channel c, upwards. */
static __device__ void sum_units(const struct cuda_work *w, uint32_t c, uint32_t from, uint32_t to,
				 double *sum)
{
	uint32_t u = w->x->n_units;

	while (u > 0 && w->unit[u - 1].first_row + w->unit[u - 1].rows > from)
		u--;
	for (; u < w->x->n_units && w->unit[u].first_row < to; u++) {
		const struct kv_cuda_unit *unit = &w->unit[u];
		struct cuda_page page = cuda_page_of(w, unit->block);
		uint32_t i = from > unit->first_row ? from - unit->first_row : 0;

		for (; i < unit->rows && unit->first_row + i < to; i++)
			*sum += (double)v_number(w, &page, unit->at + i, c);
	}
}

/* Up to the last whole tile below the limit; the rows from there on were not counted. */
static __device__ double sum_tiles(const struct cuda_work *w, uint32_t c, uint32_t limit,
				   uint32_t *ret_from)
{
	*ret_from = 0;
	for (uint32_t u = w->x->n_units; u-- > 0;) {
		const struct kv_cuda_unit *unit = &w->unit[u];
		struct cuda_page page = cuda_page_of(w, unit->block);
		uint32_t rows = limit > unit->first_row ? limit - unit->first_row : 0, tile;
		double sum;

		rows = rows < unit->rows ? rows : unit->rows;
		if (page.sent || rows < 128)
			continue;
		tile = (unit->at + rows) / 128 - 1;
		*ret_from = unit->first_row + rows / 128 * 128;
		sum = (double)((const float *)(page.base +
					       page.layout->sums))[tile * w->s->dim + c];
		return page.correction ? (double)(float)(sum + page.correction[c]) : sum;
	}
	return 0;
}

static __device__ void sum_rows(const struct cuda_work *w)
{
	struct kv_cuda_state at = kv_cuda_state_of(w->x, w->s->dim);
	double *to = (double *)(w->p->scratch + w->x->state + w->head * w->x->state_bytes + at.sum);

	for (uint32_t c = threadIdx.x; c < w->s->dim; c += KV_CUDA_THREADS) {
		uint32_t from;
		double sum = sum_tiles(w, c, cuda_limit(w->x, 0), &from);

		for (uint32_t q = 0; q < w->x->n_q; q++) {
			uint32_t limit = cuda_limit(w->x, q);

			sum_units(w, c, from, limit, &sum);
			to[(uint64_t)q * w->s->dim + c] = sum;
			from = limit > from ? limit : from;
		}
	}
}
