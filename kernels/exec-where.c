/* SPDX-License-Identifier: Apache-2.0 */
/* Where in memory a piece of work reads: who schedules it may ask which node that is. */
#include "kernels/exec-private.h"
#include "shm/base.h"

/* The row at a place of a list; rows are fewer than places only where there is no row at all. */
static bool row_at(const struct run_list *rows, uint32_t place, uint32_t *ret_row)
{
	for (uint32_t i = 0; i < rows->n; i++) {
		if (place < rows->run[i].n) {
			*ret_row = rows->run[i].first + place;
			return true;
		}
		place -= rows->run[i].n;
	}
	return false;
}

static bool score_row(const struct state *s, uint32_t share, uint32_t *ret_row)
{
	uint32_t begin = exec_block_row(s, exec_share_block(s, share));
	uint32_t end = exec_block_row(s, exec_share_block(s, share + 1));

	*ret_row = begin + (end - begin) / 2;
	return begin < end;
}

static bool attend_row(const struct kv_exec *e, const struct state *s, uint32_t share,
		       uint32_t *ret_row)
{
	struct places p = exec_attend_places(s, exec_attended(e), share);

	return row_at(exec_attended(e), p.begin + (p.end - p.begin) / 2, ret_row);
}

/* In the middle: sinks, and a tail that has not become tiles yet, may lie elsewhere. */
const void *kv_exec_share_at(const struct kv_exec *e, uint32_t share)
{
	const struct state *s = e->scratch;
	struct kv_piece p = { 0 };
	uint32_t row;

	if (s->mode == KV_EXEC_SCORE ? !score_row(s, share, &row) : !attend_row(e, s, share, &row))
		return NULL;
	kv_map_find(&s->map, row, row + 1, &p);
	return p.k.base;
}
