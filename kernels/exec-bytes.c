/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that a step reads, by plane, from the formats' own formulas: counted,
 * not measured. A row of sinks or tail counts once, however many stages look
 * at it: it is in the cache after the first.
 */
#include <string.h>

#include "kernels/exec-private.h"
#include "kernels/outliers.h"
#include "shm/base.h"

struct count {
	uint64_t sealed, tiles, recent; /* rows, different tiles of them, rows as sent */
};

/* Of all that is read, what lies in one place; NULL: anywhere. */
struct where {
	uint32_t (*place_of)(const void *arg, const void *at);
	const void *arg;
	uint32_t place;
};

static bool is_there(const struct where *w, const struct kv_piece *p)
{
	return !w || w->place_of(w->arg, p->k.base) == w->place;
}

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
static struct count count_rows(const struct state *s, const struct run_list *rows, uint32_t limit,
			       const struct where *w)
{
	uint64_t last_tile = UINT64_MAX;
	struct kv_piece p = { 0 };
	struct count c = { 0 };

	for (uint32_t i = 0; i < rows->n; i++) {
		uint32_t end = MIN(rows->run[i].first + rows->run[i].n, limit);

		for (uint32_t row = rows->run[i].first; row < end; row += p.n) {
			kv_map_find(&s->map, row, end, &p);
			if (is_there(w, &p))
				count_piece(&p, &c, &last_tile);
		}
	}
	return c;
}

static struct count count_range(const struct state *s, uint32_t first, uint32_t end,
				const struct where *w)
{
	struct run run = { first, end - first };
	const struct run_list rows = { &run, first < end, end - first };

	return count_rows(s, &rows, end, w);
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
static void summed(const struct state *s, uint64_t unread, const struct where *w, uint64_t planes[])
{
	const struct kv_space *x = s->map.space;
	struct count c = count_range(s, s->sum_from, s->visible, w);
	struct kv_piece p = { 0 };

	if (s->sum_from)
		kv_map_find(&s->map, s->sum_from - 1, s->sum_from, &p);
	if (s->sum_from && is_there(w, &p))
		planes[KV_PLANE_STATE] += x->v_dim * sizeof(float);
	x->v->bytes_v(x->v_dim, c.sealed, c.tiles, 0, planes);
	planes[KV_PLANE_RECENT] += MIN(unread, c.recent) * x->v_dim * kv_dtype_bytes(x->dtype);
}

/* Each block of queries reads the rows that its last one sees. */
static void blocks_bytes(const struct state *s, const struct run_list *rows, const struct where *w,
			 uint64_t planes[])
{
	for (uint32_t q = 0; q < s->n_q; q += s->block_q) {
		uint32_t last = MIN(q + s->block_q, s->n_q) - 1;

		attended(s, count_rows(s, rows, exec_limit(s, last), w), planes);
	}
}

static void add_bytes(const struct state *s, const struct run_list *rows, const struct where *w,
		      uint64_t planes[])
{
	struct count chosen, all;

	if (s->mode == KV_EXEC_ATTEND) {
		blocks_bytes(s, rows, w, planes);
		return;
	}
	chosen = count_rows(s, rows, s->visible, w);
	all = count_range(s, 0, s->visible, w);
	attended(s, chosen, planes);
	scored(s, all.recent - chosen.recent, all, planes);
	if (s->mean)
		summed(s, all.recent - chosen.recent, w, planes);
}

void exec_bytes(const struct state *s, const struct run_list *rows, struct kv_result *ret)
{
	add_bytes(s, rows, NULL, ret->bytes);
}

void kv_exec_bytes_at(const struct kv_exec *e,
		      uint32_t (*place_of)(const void *arg, const void *at), const void *arg,
		      uint32_t n, uint64_t (*ret)[KV_PLANES])
{
	const struct state *s = e->scratch;
	const uint64_t *all = e->result.bytes;
	uint64_t sum[KV_PLANES] = { 0 };
	struct kv_piece last = { 0 };
	uint32_t newest = n;

	memset(ret, 0, n * sizeof(*ret));
	for (uint32_t i = 0; i < n; i++) {
		const struct where w = { place_of, arg, i };

		add_bytes(s, exec_attended(e), &w, ret[i]);
		for (unsigned p = 0; p < KV_PLANES; p++)
			sum[p] += ret[i][p];
	}
	/* Rows of sinks and tail that are scored, and summed again: which of them count once does
	 * not depend on where they lie, but is told of all of them together. */
	if (s->visible) {
		kv_map_find(&s->map, s->visible - 1, s->visible, &last);
		newest = place_of(arg, last.k.base);
	}
	if (newest < n)
		ret[newest][KV_PLANE_RECENT] += all[KV_PLANE_RECENT] - sum[KV_PLANE_RECENT];
}
