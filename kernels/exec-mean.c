/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mean value reallocation: y = alpha y + (1 - alpha) m, where m is the mean of
 * V over all rows a query sees (the paper), or over those it did not attend
 * to. The second costs no read either: the sum of the attended rows came along.
 */
#include "kernels/exec-private.h"
#include "shm/base.h"

struct mean {
	enum kv_mean how;
	uint32_t seen, chosen; /* rows of this query */
	double sum[KV_MAX_DIM];
};

static void mean_of(const struct mean *m, uint32_t dim, const float *chosen_sum, float *ret)
{
	for (uint32_t c = 0; c < dim; c++)
		ret[c] = m->how == KV_MEAN_ALL ? (float)(m->sum[c] / m->seen)
					       : (float)((m->sum[c] - (double)chosen_sum[c]) /
							 (m->seen - m->chosen));
}

static void mean_query(struct state *s, const struct mean *m, uint32_t query)
{
	const struct kv_space *space = s->map.space;
	uint32_t dim = space->v_dim;
	float x[KV_MAX_DIM], *y = s->part[0].y;

	if (m->chosen == m->seen)
		return;
	mean_of(m, dim, y + (size_t)(s->heads + query) * dim, x);
	for (uint32_t h = query * s->group; h < (query + 1) * s->group; h++)
		space->ops->blend(y + (size_t)h * dim, s->alpha[h], x, 1 - s->alpha[h], dim);
}

void exec_mean(struct state *s, const struct run_list *rows, enum kv_mean how)
{
	struct mean m = { .how = how, .seen = exec_limit(s, 0) };

	if (how == KV_MEAN_OFF)
		return;
	kv_map_sum_v(&s->map, m.seen, m.sum, &s->sum_from);
	for (uint32_t i = 0; i < s->n_q; i++) {
		uint32_t limit = exec_limit(s, i);

		kv_map_add_v(&s->map, m.seen, limit, m.sum);
		m.seen = limit;
		m.chosen = exec_select_below(rows, limit);
		mean_query(s, &m, i);
	}
}
