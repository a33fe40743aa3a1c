/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exact attention over a run list, for any number of heads: flash softmax in
 * blocks of rows, each row of K and V read once for all heads.
 *
 * A block is a few long pieces, or up to WIDE_ROWS rows of short ones; the lines
 * of the next block are asked for before this one is computed (32-128 rows
 * ahead is right, 2-8 was slower than none). Rows of short pieces are widened to
 * f32 side by side first: a kernel that is called for single rows folds its
 * parameters and loads its sums for each of them.
 */
#include <math.h>
#include <string.h>

#include "kernels/exec-private.h"
#include "kernels/outliers.h"
#include "shm/base.h"

#define SCATTERED 16u /* runs up to here are not left to the hardware's prefetcher */

struct walk {
	const struct kv_map *map;
	const struct run *run;
	uint32_t offset, left; /* in the run; rows to go in all */
	struct kv_piece at;
};

struct block {
	struct kv_piece *piece;
	uint32_t pieces, rows;
	bool scattered;
};

static struct walk walk_begin(const struct kv_map *map, const struct attend *what)
{
	struct walk w = {
		.map = map, .run = what->rows->run, .offset = what->skip, .left = what->n
	};

	while (w.left && w.offset >= w.run->n)
		w.offset -= (w.run++)->n;
	return w;
}

static void prefetch(const struct kv_piece *p)
{
	if (p->n > SCATTERED)
		return;
	for (uint32_t i = 0; i < p->n; i++) {
		kv_piece_prefetch_k(p, p->at + i);
		p->kv->v_prefetch(&p->v, p->at + i);
	}
}

static void walk_skip(struct walk *w, uint32_t n)
{
	w->left -= n;
	w->offset += n;
	if (w->offset == w->run->n) {
		w->offset = 0;
		w->run++;
	}
}

/* Pieces of one kind, long or short, as the first is. */
static void walk_fill(struct walk *w, struct block *b)
{
	uint32_t most = BLOCK_ROWS;

	b->pieces = b->rows = 0;
	while (w->left && b->rows < most && b->pieces < BLOCK_PIECES) {
		uint32_t row = w->run->first + w->offset, n = MIN(w->run->n - w->offset, w->left);

		if (!b->pieces) {
			b->scattered = n <= SCATTERED;
			most = b->scattered ? WIDE_ROWS : BLOCK_ROWS;
		} else if (b->scattered != (n <= SCATTERED)) {
			return;
		}
		kv_map_find(w->map, row, row + MIN(n, most - b->rows), &w->at);
		prefetch(&w->at);
		b->piece[b->pieces++] = w->at;
		b->rows += w->at.n;
		walk_skip(w, w->at.n);
	}
}

/* What comes next is asked for while the end of this is computed. */
static void piece_follow(struct kv_piece *p, const struct kv_piece *next)
{
	if (p->kk != next->kk || p->kv != next->kv || p->k.tiles != next->k.tiles ||
	    p->k.tile_rows != next->k.tile_rows || p->k.base == next->k.base)
		return;
	p->k.next = next->k.base;
	p->v.next = next->v.base;
}

static void block_follow(const struct block *b, const struct block *next)
{
	for (uint32_t i = 0; i + 1 < b->pieces; i++)
		piece_follow(&b->piece[i], &b->piece[i + 1]);
	if (next->pieces)
		piece_follow(&b->piece[b->pieces - 1], &next->piece[0]);
}

/* What follows the share is asked for as well: who takes the next one finds its beginning in this
 * core's cache, or at least in the one that all have in common. */
static void block_lead_on(struct block *last, const struct walk *w, const struct attend *what)
{
	struct kv_piece next;
	uint32_t row;

	if (what->skip + what->n >= what->rows->rows)
		return;
	row = w->run->first + w->offset;
	kv_map_find(w->map, row, row + 1, &next);
	piece_follow(&last->piece[last->pieces - 1], &next);
}

static uint32_t block_end(const struct block *b)
{
	const struct kv_piece *last = &b->piece[b->pieces - 1];

	return last->first + last->n;
}

/* Rows of the block below a limit: a prefix, as they are sorted. */
static uint32_t block_below(const struct block *b, uint32_t limit)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->pieces && b->piece[i].first < limit; i++)
		n += MIN(b->piece[i].n, limit - b->piece[i].first);
	return n;
}

static unsigned piece_level(const struct state *s, const struct kv_piece *p)
{
	return kv_piece_is_recent(p) ? 0 : s->query->level;
}

static bool is_wide(const struct block *b, const struct work *work)
{
	return b->scattered && work->k;
}

static void block_widen(const struct state *s, const struct block *b, const struct work *work)
{
	uint32_t k_dim = s->map.space->k_dim, v_dim = s->map.space->v_dim, at = 0;

	for (uint32_t i = 0; i < b->pieces; i++) {
		const struct kv_piece *x = &b->piece[i];

		kv_piece_read_k(x, work->k + (size_t)at * k_dim);
		x->kv->v_read(&x->v, x->at, x->n, work->v + (size_t)at * v_dim);
		at += x->n;
	}
}

static struct kv_block wide_block(float *x, uint32_t dim)
{
	return (struct kv_block){ .base = x, .dim = dim, .tiles = 1, .tile_rows = WIDE_ROWS };
}

static void block_logits(struct state *s, const struct attend *what, const struct block *b,
			 const struct work *work)
{
	const struct kv_space *space = s->map.space;
	uint32_t dim = space->k_dim, heads = what->n_q * s->group, at = 0;
	const float *q = s->q + (size_t)what->q * s->group * dim;

	if (is_wide(b, work)) {
		struct kv_block wide = wide_block(work->k, dim);

		space->wide->k_dot(&wide, 0, b->rows, q, dim, heads, work->p, P_STRIDE, 0);
		return;
	}
	for (uint32_t i = 0; i < b->pieces; i++) {
		const struct kv_piece *x = &b->piece[i];

		kv_piece_dot(space->ops, x, q, dim, heads, work->p + at, P_STRIDE,
			     piece_level(s, x));
		at += x->n;
	}
}

/* Adds the first n rows of the block, weighted by p, to `heads` rows of y. */
static void block_add(const struct state *s, const struct block *b, uint32_t n,
		      const struct work *work, uint32_t head, uint32_t heads, float *y)
{
	const float *p = work->p + (size_t)head * P_STRIDE;
	uint32_t dim = s->map.space->v_dim, at = 0;

	y += (size_t)head * dim;
	if (is_wide(b, work)) {
		struct kv_block wide = wide_block(work->v, dim);

		s->map.space->wide->v_axpy(&wide, 0, n, p, P_STRIDE, heads, y, dim, 0);
		return;
	}
	for (uint32_t i = 0; at < n; i++) {
		const struct kv_piece *x = &b->piece[i];
		uint32_t rows = MIN(x->n, n - at);

		x->kv->v_axpy(&x->v, x->at, rows, p + at, P_STRIDE, heads, y, dim,
			      piece_level(s, x));
		at += rows;
	}
}

static void block_softmax(struct state *s, uint32_t head, uint32_t heads, uint32_t n, float *p,
			  struct part *part)
{
	uint32_t dim = s->map.space->v_dim;

	for (uint32_t h = head; h < head + heads; h++)
		s->map.space->ops->softmax_block(p + (size_t)h * P_STRIDE, n, &part->lse[h],
						 &part->sum[h], part->y + (size_t)h * dim, dim);
}

/* Query by query: what a query may not see must not touch its result, not even times zero
 * (zero times infinity). Only blocks at the causal edge come here. */
static void block_causal(struct state *s, const struct attend *what, const struct block *b,
			 struct part *part, const struct work *work)
{
	uint32_t heads = what->n_q * s->group;

	for (uint32_t i = 0; i < what->n_q; i++) {
		uint32_t n = block_below(b, exec_limit(s, what->q + i)), h = i * s->group;

		if (!n)
			continue;
		block_softmax(s, h, s->group, n, work->p, part);
		block_add(s, b, n, work, h, s->group, part->y);
		if (what->sums)
			block_add(s, b, n, work, heads + i, 1, part->y);
	}
}

static void block_attend(struct state *s, const struct attend *what, const struct block *b,
			 struct part *part, const struct work *work)
{
	uint32_t heads = what->n_q * s->group;

	if (is_wide(b, work))
		block_widen(s, b, work);
	block_logits(s, what, b, work);
	if (block_end(b) > exec_limit(s, what->q)) {
		block_causal(s, what, b, part, work);
		return;
	}
	block_softmax(s, 0, heads, b->rows, work->p, part);
	block_add(s, b, b->rows, work, 0, heads + (what->sums ? what->n_q : 0), part->y);
}

static void part_clear(const struct state *s, const struct attend *what, struct part *part,
		       float *p)
{
	uint32_t heads = what->n_q * s->group, sums = what->sums ? what->n_q : 0;

	memset(part->y, 0, (size_t)(heads + sums) * s->map.space->v_dim * sizeof(*part->y));
	for (uint32_t h = 0; h < heads; h++) {
		part->lse[h] = -INFINITY;
		part->sum[h] = 0;
	}
	for (size_t i = 0; i < (size_t)sums * P_STRIDE; i++)
		p[(size_t)heads * P_STRIDE + i] = 1; /* weight 1: v_axpy sums */
}

static void part_normalise(struct part *part, uint32_t heads, uint32_t dim)
{
	for (uint32_t h = 0; h < heads; h++) {
		float *y = part->y + (size_t)h * dim, inverse = 1 / part->sum[h];

		if (part->sum[h] == 0) { /* nothing seen: y is 0 */
			part->lse[h] = -INFINITY;
			continue;
		}
		for (uint32_t c = 0; c < dim; c++)
			y[c] *= inverse;
		part->lse[h] += logf(part->sum[h]);
	}
}

void exec_attend(struct state *s, const struct attend *what, struct part *part, struct work *work)
{
	struct walk w = walk_begin(&s->map, what);
	struct block b = { .piece = work->piece[0] }, next = { .piece = work->piece[1] };

	part_clear(s, what, part, work->p);
	walk_fill(&w, &b);
	while (b.rows) {
		struct block done = b;

		walk_fill(&w, &next);
		if (!b.scattered) {
			block_follow(&b, &next);
			if (!next.pieces)
				block_lead_on(&b, &w, what);
		}
		block_attend(s, what, &b, part, work);
		b = next;
		next = done;
	}
	part_normalise(part, what->n_q * s->group, s->map.space->v_dim);
}
