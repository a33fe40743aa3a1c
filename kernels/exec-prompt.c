/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention that is cut along its queries and its rows, and attention of many
 * heads at once: prompts, and decoding steps of several queries.
 *
 * A block of queries meets a range of rows in one share, so that a share is
 * bounded however long the prompt and the sequence are. Its parts, one a range,
 * are merged upwards. Blocks do not show in a result; ranges are cut by sizes.
 *
 * More heads than one walk over codes is good for are lanes of vectors
 * (table.h): rows are widened once for all of them.
 */
#include <string.h>

#include "kernels/exec-private.h"
#include "kernels/outliers.h"
#include "shm/base.h"

#define FEW_ROWS 16u /* of a piece: its lines are asked for */

_Static_assert(MANY_HEADS % KV_LANES == 0, "the arrays of lanes");

/* ---- blocks of rows ---------------------------------------------------------- */

struct walk {
	const struct run *run;
	uint32_t offset, left; /* in the run; rows to go in all */
	struct kv_piece at;
};

struct block {
	struct kv_piece piece[KV_LANES_ROWS];
	uint32_t pieces, rows;
};

static struct walk walk_begin(const struct attend *what)
{
	struct walk w = { .run = what->rows->run, .offset = what->skip, .left = what->n };

	while (w.left && w.offset >= w.run->n)
		w.offset -= (w.run++)->n;
	return w;
}

static void prefetch(const struct kv_piece *p)
{
	if (p->n > FEW_ROWS)
		return;
	for (uint32_t i = 0; i < p->n; i++) {
		kv_piece_prefetch_k(p, p->at + i);
		p->kv->v_prefetch(&p->v, p->at + i);
	}
}

static void walk_piece(struct walk *w, const struct kv_map *map, uint32_t most, struct block *b)
{
	uint32_t row = w->run->first + w->offset, n = MIN(w->run->n - w->offset, w->left);

	kv_map_find(map, row, row + MIN(n, most - b->rows), &w->at);
	prefetch(&w->at);
	b->piece[b->pieces++] = w->at;
	b->rows += w->at.n;
	w->left -= w->at.n;
	w->offset += w->at.n;
	if (w->offset == w->run->n) {
		w->offset = 0;
		w->run++;
	}
}

/* The sinks are a block of their own: the next ones begin where tiles and chunks do. */
static void walk_fill(struct walk *w, const struct kv_map *map, struct block *b)
{
	uint32_t sinks = map->view->n_sinks, first, most = KV_LANES_ROWS;

	b->pieces = b->rows = 0;
	if (!w->left)
		return;
	first = w->run->first + w->offset;
	if (first < sinks)
		most = sinks - first;
	while (w->left && b->rows < most)
		walk_piece(w, map, most, b);
}

/* Rows of the block below a limit: a prefix, as they are sorted. */
static uint32_t block_below(const struct block *b, uint32_t limit)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->pieces && b->piece[i].first < limit; i++)
		n += MIN(b->piece[i].n, limit - b->piece[i].first);
	return n;
}

/* ---- many heads -------------------------------------------------------------- */

struct many { /* on the stack: a quarter of a MiB, where the head dimension is largest */
	_Alignas(64) float k[KV_LANES_ROWS * KV_MAX_DIM];
	float v[KV_LANES_ROWS * KV_MAX_DIM];
	float q[MANY_HEADS * KV_MAX_DIM], y[MANY_HEADS * KV_MAX_DIM];
	float max[MANY_HEADS], sum[MANY_HEADS];
	struct kv_lanes lanes;
	uint32_t head; /* of the first lane */
	uint32_t below[MANY_HEADS];
};

static void many_begin(const struct state *s, struct many *m, uint32_t head, uint32_t heads)
{
	const struct kv_space *space = s->map.space;
	float q[KV_MAX_DIM];

	m->head = head;
	m->lanes = (struct kv_lanes){ .heads = heads,
				      .k_dim = space->k_dim,
				      .v_dim = space->v_dim,
				      .q = m->q,
				      .y = m->y,
				      .max = m->max,
				      .sum = m->sum };
	space->ops->lanes_begin(&m->lanes);
	for (uint32_t h = 0; h < heads; h++) {
		exec_scale_head(s, head + h, q);
		space->ops->lanes_query(&m->lanes, h, q);
	}
}

static void many_widen(const struct state *s, struct many *m, const struct block *b, uint32_t n)
{
	const struct kv_space *space = s->map.space;
	uint32_t at = 0;

	for (uint32_t i = 0; at < n; i++) {
		struct kv_piece x = b->piece[i];

		x.n = MIN(x.n, n - at);
		kv_piece_read_k(&x, m->k + (size_t)at * space->k_dim);
		x.kv->v_read(&x.v, x.at, x.n, m->v + (size_t)at * space->v_dim);
		at += x.n;
	}
}

/* How many of the block's rows each head sees; how many the last one does. */
static uint32_t many_limits(const struct state *s, struct many *m, const struct block *b)
{
	uint32_t n = 0;

	for (uint32_t h = 0; h < m->lanes.heads; h++) {
		if (h == 0 || (m->head + h) % s->group == 0)
			n = block_below(b, exec_limit(s, (m->head + h) / s->group));
		m->below[h] = n;
	}
	return n;
}

static void many_attend(const struct state *s, struct many *m, const struct block *b)
{
	uint32_t n = many_limits(s, m, b);

	many_widen(s, m, b, n);
	s->map.space->ops->lanes_rows(&m->lanes, m->k, m->v, n, m->below[0] < n ? m->below : NULL);
}

static void many_run(const struct state *s, const struct attend *what, struct many *m)
{
	struct walk w = walk_begin(what);
	struct block block[2];
	unsigned at = 0;

	walk_fill(&w, &s->map, &block[at]);
	while (block[at].rows) {
		walk_fill(&w, &s->map, &block[!at]);
		many_attend(s, m, &block[at]);
		at = !at;
	}
}

void exec_attend_many(const struct state *s, const struct attend *what, struct part *part)
{
	const struct kv_space *space = s->map.space;
	uint32_t first = what->q * s->group, heads = what->n_q * s->group;
	struct many m;

	for (uint32_t h = 0; h < heads; h += MANY_HEADS) {
		many_begin(s, &m, first + h, MIN(heads - h, MANY_HEADS));
		many_run(s, what, &m);
		space->ops->lanes_end(&m.lanes, part->y + (size_t)h * space->v_dim, part->lse + h);
	}
}

/* ---- shares ---------------------------------------------------------------- */

static uint64_t part_bytes(const struct state *s)
{
	return (uint64_t)s->heads * (s->map.space->v_dim + 1) * sizeof(float);
}

static uint32_t ranges_of(const struct state *s, uint64_t rows, uint32_t range)
{
	uint32_t sinks = s->map.view->n_sinks;

	return rows > sinks + range ? (uint32_t)DIV_UP(rows - sinks, range) : 1;
}

static bool range_is_short(const struct state *s, uint64_t rows)
{
	uint64_t ranges = ranges_of(s, rows, s->range_rows);
	uint64_t shares = ranges * s->map.space->kv_heads;

	if (s->range_rows < ATTEND_MOST && shares >= 2 * ATTEND_SHARES)
		return true;
	return ranges > 1 && ranges * part_bytes(s) > PARTS_BYTES;
}

void exec_attend_cut(struct state *s, uint64_t rows)
{
	bool blocks = s->many || s->n_q > KV_MAX_DECODE_Q;

	s->block_q = blocks ? MAX(1u, MANY_HEADS / s->group) : s->n_q;
	s->blocks_q = DIV_UP(s->n_q, s->block_q);
	s->range_rows = ATTEND_ROWS;
	while (range_is_short(s, rows))
		s->range_rows *= 2;
	s->ranges = ranges_of(s, rows, s->range_rows);
	s->shares = s->ranges * s->blocks_q;
}

/* Cut where extents begin: the first range has the sinks beyond its rows. */
struct places exec_attend_places(const struct state *s, const struct run_list *rows, uint32_t share)
{
	uint32_t range = share / s->blocks_q, sinks = s->map.view->n_sinks;
	struct places p = { .end = rows->rows };

	if (range)
		p.begin = MIN(sinks + range * s->range_rows, rows->rows);
	if (range + 1 < s->ranges)
		p.end = MIN(sinks + (range + 1) * s->range_rows, rows->rows);
	return p;
}

/* Neighbours read the same rows. */
void exec_attend_share(struct state *s, const struct run_list *rows, uint32_t share)
{
	struct places places = exec_attend_places(s, rows, share);
	uint32_t range = share / s->blocks_q, begin = places.begin, end = places.end;
	uint32_t q = share % s->blocks_q * s->block_q, n_q = MIN(s->block_q, s->n_q - q);
	uint32_t seen = exec_select_below(rows, exec_limit(s, q + n_q - 1));
	struct attend what = { .rows = rows, .skip = begin, .q = q, .n_q = n_q };
	struct part part = s->part[range];

	what.n = MIN(end, seen) > begin ? MIN(end, seen) - begin : 0;
	part.y += (size_t)q * s->group * s->map.space->v_dim;
	part.lse += (size_t)q * s->group;
	part.sum += (size_t)q * s->group;
	if (s->many)
		exec_attend_many(s, &what, &part);
	else
		exec_attend(s, &what, &part, &s->work[share]);
}

void exec_attend_merge(struct state *s)
{
	const struct kv_space *space = s->map.space;
	struct part *to = &s->part[0];

	for (uint32_t i = 1; i < s->ranges; i++)
		for (uint32_t h = 0; h < s->heads; h++)
			space->ops->merge(to->y + (size_t)h * space->v_dim, &to->lse[h],
					  s->part[i].y + (size_t)h * space->v_dim,
					  s->part[i].lse[h], space->v_dim);
}
