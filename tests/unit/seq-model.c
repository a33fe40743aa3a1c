/* SPDX-License-Identifier: Apache-2.0 */
/* A sequence as a plain array: see seq-model.h. */
#include "seq-model.h"

#include <string.h>

#include "daemon/layer.h"
#include "daemon/overwrite.h"
#include "daemon/seq.h"
#include "kernels/map.h"
#include "shm/base.h"

enum { HEADS = FIXTURE_PARTS_MOST, DIM = 64, EXTENTS = 512 }; /* at most HEADS KV heads */

static uint32_t mix(uint32_t tag, uint32_t head, uint32_t channel)
{
	uint32_t x = tag * 2654435761u ^ (head * 64u + channel) * 2246822519u;

	x ^= x >> 15;
	return x * 3266489917u >> 8;
}

static float k_of(uint32_t tag, uint32_t head, uint32_t channel)
{
	return (float)(mix(tag, head, channel) & 0xffff);
}

/* Small, so that the running sums of V are exact. */
static float v_of(uint32_t tag, uint32_t head, uint32_t channel)
{
	return (float)(mix(tag, head + HEADS, channel) & 15);
}

static void fill(float *kv, uint32_t tag)
{
	uint32_t n = fixture_kv_heads() * DIM;

	for (uint32_t i = 0; i < n; i++) {
		kv[i] = k_of(tag, i / DIM, i % DIM);
		kv[n + i] = v_of(tag, i / DIM, i % DIM);
	}
}

void model_init(struct model *m, struct store_fixture *f, struct seq *s, uint32_t first_tag)
{
	*m = (struct model){ .fixture = f, .seq = s, .id = s->id, .next_tag = first_tag };
	for (unsigned i = 0; i < MODEL_LAYERS; i++)
		m->tag[i] = calloc(MODEL_ROWS, sizeof(*m->tag[i]));
}

void model_fork(struct model *m, const struct model *parent, struct seq *s, uint32_t rows,
		uint32_t first_tag)
{
	model_init(m, parent->fixture, s, first_tag);
	for (unsigned i = 0; i < MODEL_LAYERS; i++) {
		m->rows[i] = rows;
		memcpy(m->tag[i], parent->tag[i], rows * sizeof(*m->tag[i]));
	}
}

void model_deinit(struct model *m)
{
	for (unsigned i = 0; i < MODEL_LAYERS; i++)
		free(m->tag[i]);
}

static int hold(struct model *m)
{
	struct seq *s;
	int r = seq_hold(&m->fixture->store, FIXTURE_SESSION, m->id, MODEL_RING, &s);

	return r < 0 ? r : s == m->seq ? 0 : -ESRCH;
}

/* ---- steps --------------------------------------------------------------------- */

static int flush(struct model *m, uint32_t layer)
{
	const struct kv_space *space = cache_layer(m->seq->cache, layer);

	while (seq_flush_due(m->seq, layer)) {
		struct kv_extent all[EXTENTS], extent;
		struct kv_view view;
		unsigned slot;
		int r;

		r = seq_flush_begin(m->seq, layer, &extent, &slot);
		if (r < 0)
			return r;
		r = seq_view(m->seq, layer, seq_rows(m->seq, layer), all, EXTENTS, &view);
		if (r < 0)
			return r;
		for (uint32_t head = 0; head < fixture_kv_heads(); head++)
			kv_flush(space, &view, &extent, slot, head);
		seq_flush_commit(m->seq, layer);
	}
	return 0;
}

static void write_rows(struct model *m, uint32_t layer, uint32_t n, const struct kv_view *view)
{
	for (uint32_t i = 0; i < n; i++) {
		float kv[2 * HEADS * DIM];

		fill(kv, m->next_tag);
		kv_write(cache_layer(m->seq->cache, layer), view, m->rows[layer] + i, 1, kv,
			 sizeof(kv));
		m->tag[layer][m->rows[layer] + i] = m->next_tag++;
	}
}

static int append(struct model *m, uint32_t layer, uint32_t n)
{
	struct kv_extent extent[EXTENTS];
	struct kv_view view;
	int r;

	/* What could not be flushed for lack of room may be possible now. */
	flush(m, layer);
	r = seq_reserve(m->seq, layer, n);
	if (r == 0)
		r = seq_view(m->seq, layer, m->rows[layer], extent, EXTENTS, &view);
	if (r < 0)
		return r;
	write_rows(m, layer, n, &view);
	m->rows[layer] += n;
	seq_commit(m->seq, layer, m->rows[layer]);
	flush(m, layer);
	return 0;
}

int model_append(struct model *m, uint32_t layer, uint32_t n)
{
	int r;

	if (m->rows[layer] + n > MODEL_ROWS)
		return -E2BIG;
	r = hold(m);
	if (r < 0)
		return r;
	r = append(m, layer, n);
	seq_release(m->seq);
	return r;
}

int model_cut(struct model *m, uint32_t layer, uint32_t rows)
{
	int r;

	r = hold(m);
	if (r < 0)
		return r;
	r = seq_cut(m->seq, layer, rows);
	seq_release(m->seq);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < MODEL_LAYERS; i++)
		if (layer == SPARQ_LAYER_ALL || layer == i)
			m->rows[i] = rows;
	return 0;
}

static int overwrite(struct model *m, uint32_t layer, uint32_t row, uint32_t n)
{
	struct kv_extent from[EXTENTS], to[EXTENTS];
	float *kv = calloc(n, 2 * HEADS * DIM * sizeof(*kv));
	size_t stride = 2 * HEADS * DIM * sizeof(*kv);
	struct overwrite o;
	int r;

	r = overwrite_begin(&o, m->seq, layer, row, n, from, to, EXTENTS);
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		fill(kv + (size_t)i * 2 * HEADS * DIM, m->next_tag);
		m->tag[layer][row + i] = m->next_tag++;
	}
	if (r == 0)
		overwrite_recent(&o, kv, stride);
	for (uint32_t head = 0; r == 0 && overwrite_has_heads(&o) && head < fixture_kv_heads();
	     head++)
		overwrite_head(&o, head, kv, stride);
	if (r == 0)
		overwrite_commit(&o);
	free(kv);
	return r;
}

int model_overwrite(struct model *m, uint32_t layer, uint32_t row, uint32_t n)
{
	int r;

	r = hold(m);
	if (r < 0)
		return r;
	r = overwrite(m, layer, row, n);
	seq_release(m->seq);
	return r;
}

/* ---- what kernels read ----------------------------------------------------------- */

static bool piece_is(const struct kv_piece *p, uint32_t head, const uint32_t *tag)
{
	for (uint32_t i = 0; i < p->n; i++) {
		float k[DIM], v[DIM];

		p->kk->k_read(&p->k, p->at + i, 1, k);
		p->kv->v_read(&p->v, p->at + i, 1, v);
		for (uint32_t c = 0; c < DIM; c++)
			if (k[c] != k_of(tag[p->first + i], head, c) ||
			    v[c] != v_of(tag[p->first + i], head, c))
				return false;
	}
	return true;
}

static const char *check_head(const struct kv_space *space, const struct kv_view *view,
			      uint32_t head, const uint32_t *tag)
{
	double sum[KV_MAX_DIM], want[DIM] = { 0 };
	struct kv_piece p = { 0 };
	struct kv_map map;
	uint32_t from;

	kv_map_init(&map, space, view, head);
	for (uint32_t row = 0; row < view->rows; row += p.n) {
		kv_map_find(&map, row, view->rows, &p);
		if (!piece_is(&p, head, tag))
			return "rows differ";
	}
	kv_map_sum_v(&map, view->rows, sum, &from);
	for (uint32_t row = 0; row < view->rows; row++)
		for (uint32_t c = 0; c < DIM; c++)
			want[c] += (double)v_of(tag[row], head, c);
	for (uint32_t c = 0; c < DIM; c++)
		if (sum[c] != want[c])
			return "the sum of V differs";
	return NULL;
}

static const char *check_view(const struct kv_view *view)
{
	uint32_t row = view->n_sinks;

	for (uint32_t i = 0; i < view->n_extents; i++) {
		const struct kv_extent *e = &view->extent[i];

		if (e->first_row != row || e->used == 0 || e->used > e->tiles)
			return "an extent does not go on where the one before ended";
		if (e->last_rows == 0 || e->last_rows > KV_TILE_ROWS)
			return "last_rows";
		row += (e->used - 1) * KV_TILE_ROWS + e->last_rows;
	}
	return row + view->tail_rows == view->rows ? NULL
						   : "sinks, tiles and tail are not all rows";
}

static const char *check_layer(struct model *m, uint32_t layer, uint32_t rows)
{
	struct kv_extent extent[EXTENTS];
	struct kv_view view;
	const char *what;

	if (seq_view(m->seq, layer, rows, extent, seq_extents(m->seq, SPARQ_LAYER_ALL), &view) < 0)
		return "no view";
	if (view.rows != rows)
		return "rows of the view";
	what = check_view(&view);
	for (uint32_t head = 0; !what && head < fixture_kv_heads(); head++)
		what = check_head(cache_layer(m->seq->cache, layer), &view, head, m->tag[layer]);
	return what;
}

const char *model_check(struct model *m, uint32_t rows)
{
	const char *what = NULL;

	if (hold(m) < 0)
		return "not to be held";
	for (uint32_t i = 0; !what && i < MODEL_LAYERS; i++) {
		what = seq_rows(m->seq, i) == m->rows[i] ? NULL : "row count";
		what = what ? what : check_layer(m, i, MIN(rows, m->rows[i]));
	}
	seq_release(m->seq);
	return what;
}

/* ---- what recovery finds ---------------------------------------------------------- */

/* Where the tail begins, from the record and the tables alone. */
static uint32_t recovered_tail(struct model *m, const struct layer_record *r)
{
	struct commit c = commit_unpack(r->commit);
	struct reach reach = reach_unpack(r->reach);
	const struct table_header *h;

	if (!c.tiles)
		return cache_shape(m->seq->cache)->sinks;
	if (reach.limit)
		return reach.limit;
	h = catalogue_block(m->fixture->catalogue, reach.table);
	return h->start_row + (c.tiles - h->base_tiles) * KV_TILE_ROWS;
}

const char *model_check_record(struct model *m)
{
	for (unsigned i = 0; i < MODEL_LAYERS; i++) {
		const struct seq_layer *l = &m->seq->layer[i];
		const struct layer_record *r = l->record;
		struct commit c = commit_unpack(r->commit);
		uint32_t tail = recovered_tail(m, r), need = 0;

		if (tail != l->tail_first)
			return "the tail begins elsewhere than its record says";
		if (r->cut || r->overwrite ||
		    ((const struct sequence_record *)m->seq->record)->intent)
			return "an intent was left";
		if (c.rows > tail)
			need = DIV_UP(c.rows - tail, KV_CHUNK_ROWS);
		for (uint32_t j = 0; j < KV_MAX_CHUNKS; j++) {
			bool there = r->chunk[(2 * c.tiles + j) % KV_MAX_CHUNKS] != 0;

			if (there != (j < l->n_chunks) || (j < need && !there))
				return "a chunk is not where the commit word says";
		}
		if (c.rows && cache_shape(m->seq->cache)->sinks && !r->sinks)
			return "no sinks";
	}
	return NULL;
}
