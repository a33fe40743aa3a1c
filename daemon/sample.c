/* SPDX-License-Identifier: Apache-2.0 */
/* Random rows of one KV head, a step over them, and the same step in float64. */
#include "daemon/sample.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cache-params.h"
#include "shm/base.h"

#define BATCH_ROWS KV_CHUNK_ROWS
#define LINE 64

/* splitmix64: one line, and the same everywhere. */
static double random_unit(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static void fill_random(float *x, size_t n, uint64_t *state)
{
	for (size_t i = 0; i < n; i++)
		x[i] = (float)(2 * random_unit(state) - 1);
}

/* ---- memory --------------------------------------------------------------- */

static uint32_t extent_tiles(uint32_t first_tile)
{
	return first_tile * KV_TILE_ROWS < KV_SHORT_ROWS ? 1 : KV_EXTENT_TILES;
}

/* Extents for n sealed tiles, placed from `at` on; how many. With NULL it only counts bytes. */
static uint32_t place_extents(const struct sample *s, uint32_t tiles, char *at, size_t *ret_bytes)
{
	uint32_t n = 0;
	size_t bytes = 0;

	for (uint32_t tile = 0; tile < tiles; n++) {
		uint32_t slots = extent_tiles(tile);

		if (at)
			s->extent[n] = (struct kv_extent){
				.base = at + bytes,
				.first_row = s->space.sinks + tile * KV_TILE_ROWS,
				.tiles = (uint16_t)slots,
				.last_rows = KV_TILE_ROWS,
			};
		bytes += kv_extent_bytes(&s->space, slots);
		tile += slots;
	}
	*ret_bytes = bytes;
	return n;
}

static int allocate(struct sample *s, uint32_t tiles)
{
	size_t sinks = kv_chunk_bytes(&s->space, KV_MAX_SINKS);
	size_t chunk = kv_chunk_bytes(&s->space, KV_CHUNK_ROWS), extents = 0, total;
	uint32_t n = place_extents(s, tiles, NULL, &extents);
	char *at;

	total = ALIGN_UP(sinks + KV_MAX_CHUNKS * chunk + extents, LINE);
	s->memory = aligned_alloc(LINE, total);
	s->extent = calloc(n + 1, sizeof(*s->extent));
	s->rows = malloc((size_t)s->n_rows * (s->space.k_dim + s->space.v_dim) * sizeof(float));
	s->q = malloc((size_t)s->n_q * s->space.group * s->space.k_dim * sizeof(float));
	if (!s->memory || !s->extent || !s->rows || !s->q)
		return -ENOMEM;
	memset(s->memory, 0, total);
	at = s->memory;
	s->view.sinks = s->space.sinks ? at : NULL;
	at += sinks;
	for (uint32_t i = 0; i < KV_MAX_CHUNKS; i++, at += chunk)
		s->view.chunk[i] = at;
	place_extents(s, tiles, at, &extents);
	s->view.extent = s->extent;
	return 0;
}

/* ---- rows ----------------------------------------------------------------- */

/* Seals the oldest tile of the tail; its two chunks go to the end of the list, empty. */
static void seal_tile(struct sample *s)
{
	struct kv_view *v = &s->view;
	struct kv_extent *e = &s->extent[v->n_extents ? v->n_extents - 1 : 0];
	void *chunk[KV_TILE_ROWS / KV_CHUNK_ROWS];

	if (v->n_extents && e->used == e->tiles)
		e++;
	kv_flush(&s->space, v, e, e->used, 0);
	e->used++;
	v->n_extents = (uint32_t)(e - s->extent) + 1;
	v->tail_first += KV_TILE_ROWS;
	v->tail_rows -= KV_TILE_ROWS;
	memcpy(chunk, v->chunk, sizeof(chunk));
	memmove(v->chunk, v->chunk + ARRAY_SIZE(chunk),
		(KV_MAX_CHUNKS - ARRAY_SIZE(chunk)) * sizeof(v->chunk[0]));
	memcpy(v->chunk + KV_MAX_CHUNKS - ARRAY_SIZE(chunk), chunk, sizeof(chunk));
}

static void append(struct sample *s, const float *from, uint32_t n, void *sent, uint32_t rollback)
{
	size_t width = s->space.k_dim + s->space.v_dim;
	struct kv_view *v = &s->view;

	kv_from_f32(s->space.dtype, from, sent, n * width);
	kv_write(&s->space, v, v->rows, n, sent, width * kv_dtype_bytes(s->space.dtype));
	v->rows += n;
	v->n_sinks = MIN(v->rows, s->space.sinks);
	v->tail_rows = v->rows > v->tail_first ? v->rows - v->tail_first : 0;
	while (v->tail_rows >= KV_TILE_ROWS + rollback)
		seal_tile(s);
}

static int append_all(struct sample *s, uint32_t rollback)
{
	size_t width = s->space.k_dim + s->space.v_dim;
	FREE_MEMORY void *sent = malloc(BATCH_ROWS * width * sizeof(float));

	if (!sent)
		return -ENOMEM;
	s->view.tail_first = s->space.sinks;
	for (uint32_t row = 0; row < s->n_rows; row += BATCH_ROWS)
		append(s, s->rows + row * width, MIN(BATCH_ROWS, s->n_rows - row), sent, rollback);
	/* What the daemon was sent is what was narrowed, in any dtype. */
	if (s->space.dtype == KV_F32)
		return 0;
	for (uint32_t row = 0; row < s->n_rows; row++) {
		kv_from_f32(s->space.dtype, s->rows + row * width, sent, width);
		kv_to_f32(s->space.dtype, sent, s->rows + row * width, width);
	}
	return 0;
}

int sample_init(struct sample *s, const struct cache_record *record, uint32_t layer, uint32_t rows,
		uint32_t n_q, uint64_t seed, char *why)
{
	struct cache_record one = *record;
	struct spaces spaces;
	int r;

	assert(rows <= SAMPLE_ROWS_MAX && n_q >= 1 && n_q <= MIN(rows, SAMPLE_Q_MAX));
	*s = (struct sample){ .n_rows = rows, .n_q = n_q };
	one.heads /= one.kv_heads;
	one.kv_heads = 1;
	r = cache_params_settle(&one, s->args, &spaces, why);
	if (r < 0)
		return r;
	s->space = *spaces_layer(&spaces, layer);
	r = allocate(s, rows / KV_TILE_ROWS);
	if (r < 0)
		return r;
	fill_random(s->rows, (size_t)rows * (s->space.k_dim + s->space.v_dim), &seed);
	fill_random(s->q, (size_t)n_q * s->space.group * s->space.k_dim, &seed);
	/* Longer queries than keys: weights that differ by orders of magnitude, as in a model. */
	for (size_t i = 0; i < (size_t)n_q * s->space.group * s->space.k_dim; i++)
		s->q[i] *= 4;
	return append_all(s, record->rollback);
}

void sample_deinit(struct sample *s)
{
	free(s->memory);
	free(s->extent);
	free(s->rows);
	free(s->q);
	*s = (struct sample){ .n_rows = 0 };
}

/* ---- a step --------------------------------------------------------------- */

struct kv_query sample_query(const struct sample *s)
{
	return (struct kv_query){
		.q = s->q,
		.n_q = s->n_q,
		.first_limit = s->n_rows - s->n_q + 1,
	};
}

/* Attention of one query over the first n rows, in float64. */
static void attend_f64(const struct sample *s, const float *q, uint32_t n, double *weight,
		       double *ret)
{
	size_t k_dim = s->space.k_dim, v_dim = s->space.v_dim;
	double most = -INFINITY, sum = 0;

	for (uint32_t row = 0; row < n; row++) {
		const float *k = s->rows + row * (k_dim + v_dim);
		double dot = 0;

		for (size_t i = 0; i < k_dim; i++)
			dot += (double)q[i] * (double)k[i];
		weight[row] = dot * (double)s->space.scale;
		most = MAX(most, weight[row]);
	}
	memset(ret, 0, v_dim * sizeof(*ret));
	for (uint32_t row = 0; row < n; row++) {
		const float *v = s->rows + row * (k_dim + v_dim) + k_dim;
		double w = exp(weight[row] - most);

		sum += w;
		for (size_t i = 0; i < v_dim; i++)
			ret[i] += w * (double)v[i];
	}
	for (size_t i = 0; i < v_dim; i++)
		ret[i] /= sum;
}

/* The worst |y - y'| / |y'| of all query heads. */
static int compare(const struct sample *s, const float *y, double *ret)
{
	FREE_MEMORY double *weight = malloc(s->n_rows * sizeof(*weight));
	double reference[KV_MAX_DIM], worst = 0;
	size_t v_dim = s->space.v_dim;

	if (!weight)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->n_q * s->space.group; i++) {
		double off = 0, norm = 0;

		attend_f64(s, s->q + i * s->space.k_dim,
			   s->n_rows - s->n_q + 1 + i / s->space.group, weight, reference);
		for (size_t d = 0; d < v_dim; d++) {
			double difference = (double)y[i * v_dim + d] - reference[d];

			off += difference * difference;
			norm += reference[d] * reference[d];
		}
		/* A NaN is the worst of all: no comparison with it is true. */
		worst = sqrt(off / norm) <= worst ? worst : sqrt(off / norm);
	}
	*ret = worst;
	return 0;
}

int sample_run(const struct sample *s, const struct kv_plan *plan, struct sample_result *ret,
	       double *ret_error)
{
	struct kv_query query = sample_query(s);
	uint64_t bytes = kv_exec_scratch_bytes(&s->space, plan, &s->view, &query);
	FREE_MEMORY void *scratch = NULL;
	struct sample_result result;
	struct kv_exec e;
	int r;

	if (bytes > GIB)
		return -EOVERFLOW;
	scratch = aligned_alloc(LINE, ALIGN_UP(MAX(bytes, 1u), LINE));
	if (!scratch)
		return -ENOMEM;
	kv_exec_init(&e, &s->space, plan, &s->view, &query, 0, scratch);
	for (uint32_t i = 0; i < e.shares; i++)
		kv_exec_share(&e, i);
	kv_exec_finish(&e);
	memcpy(result.bytes, e.result.bytes, sizeof(result.bytes));
	result.n_selected = e.result.n_selected;
	result.n_scored = e.result.n_scored;
	r = ret_error ? compare(s, e.result.y, ret_error) : 0;
	if (r == 0)
		*ret = result;
	return r;
}
