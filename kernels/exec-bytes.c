/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that a step reads, by plane, from the formats' own formulas: counted,
 * not measured. A row of sinks or tail counts once, however many stages look
 * at it: it is in the cache after the first.
 */
#include "kernels/exec-private.h"
#include "kernels/outliers.h"
#include "shm/base.h"

struct count {
	uint64_t sealed, tiles, recent; /* rows, different tiles of them, rows as sent */
};

static void count_piece(const struct kv_piece *p, struct count *c, uint64_t *last_tile)
{
	uint64_t block = (uint64_t)p->block_first << 32;
	uint64_t first = block | (p->at / KV_TILE_ROWS);
	uint64_t last = block | ((p->at + p->n - 1) / KV_TILE_ROWS);

	if (kv_piece_is_recent(p)) {
		c->recent += p->n;
		return;
	}
	c->sealed += p->n;
	c->tiles += last - first + (first != *last_tile);
	*last_tile = last;
}

/* Rows of the list below a limit. */
static struct count count_rows(const struct state *s, const struct run_list *rows, uint32_t limit)
{
	uint64_t last_tile = UINT64_MAX;
	struct kv_piece p = { 0 };
	struct count c = { 0 };

	for (uint32_t i = 0; i < rows->n; i++) {
		uint32_t end = MIN(rows->run[i].first + rows->run[i].n, limit);

		for (uint32_t row = rows->run[i].first; row < end; row += p.n) {
			kv_map_find(&s->map, row, end, &p);
			count_piece(&p, &c, &last_tile);
		}
	}
	return c;
}

static struct count count_range(const struct state *s, uint32_t first, uint32_t end)
{
	struct run run = { first, end - first };
	const struct run_list rows = { &run, first < end, end - first };

	return count_rows(s, &rows, end);
}

/* Outlier channels are exact K, whatever reads them. */
static void outliers(uint64_t rows, uint32_t n, uint64_t planes[])
{
	planes[KV_PLANE_K] += rows * n * sizeof(uint16_t);
}

static void attended(const struct state *s, struct count c, uint64_t planes[])
{
	const struct kv_space *x = s->map.space;

	x->k->bytes_k(x->k_dim, c.sealed, c.tiles, s->query->level, planes);
	x->v->bytes_v(x->v_dim, c.sealed, c.tiles, s->query->level, planes);
	outliers(c.sealed, s->map.n_outliers, planes);
	planes[KV_PLANE_RECENT] += c.recent * (x->k_dim + x->v_dim) * kv_dtype_bytes(x->dtype);
}

/* `unread`: rows of sinks and tail that were scored and not attended. */
static void scored(const struct state *s, uint64_t unread, struct count all, uint64_t planes[])
{
	const struct kv_space *x = s->map.space;
	uint32_t n = s->map.n_outliers;

	if (s->r)
		x->k->bytes_score(x->k_dim, all.sealed, all.tiles, s->r, planes);
	else
		x->k->bytes_k(x->k_dim, all.sealed, all.tiles, 0, planes);
	outliers(all.sealed, s->r ? kv_outliers_among(s->channel, s->r, n) : n, planes);
	planes[KV_PLANE_RECENT] += unread * (s->r ? s->r : x->k_dim) * kv_dtype_bytes(x->dtype);
}

/* The sum of V: a tile's, and the rows after it. */
static void summed(const struct state *s, uint64_t unread, uint64_t planes[])
{
	const struct kv_space *x = s->map.space;
	struct count c = count_range(s, s->sum_from, s->visible);

	if (s->sum_from)
		planes[KV_PLANE_STATE] += x->v_dim * sizeof(float);
	x->v->bytes_v(x->v_dim, c.sealed, c.tiles, 0, planes);
	planes[KV_PLANE_RECENT] += MIN(unread, c.recent) * x->v_dim * kv_dtype_bytes(x->dtype);
}

/* Each block of queries reads the rows that its last one sees. */
static void blocks_bytes(const struct state *s, const struct run_list *rows, uint64_t planes[])
{
	for (uint32_t q = 0; q < s->n_q; q += s->block_q) {
		uint32_t last = MIN(q + s->block_q, s->n_q) - 1;

		attended(s, count_rows(s, rows, exec_limit(s, last)), planes);
	}
}

void exec_bytes(const struct state *s, const struct run_list *rows, struct kv_result *ret)
{
	struct count chosen, all;

	if (s->mode == KV_EXEC_ATTEND) {
		blocks_bytes(s, rows, ret->bytes);
		return;
	}
	chosen = count_rows(s, rows, s->visible);
	all = count_range(s, 0, s->visible);
	attended(s, chosen, ret->bytes);
	scored(s, all.recent - chosen.recent, all, ret->bytes);
	if (s->mean)
		summed(s, all.recent - chosen.recent, ret->bytes);
}
