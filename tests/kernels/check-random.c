/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of the stages with everything of chance: the shape of the block, what
 * lies in it, which rows, heads, channels and level are asked for. What is
 * compared is what check-rows.c and check-ops.c compare.
 */
#include "shm/base.h"
#include "tests/kernels/check-rows.h"

static struct block_shape random_shape(struct check *c, const struct kv_kernels *k)
{
	static const uint16_t tile_rows[] = { KV_TILE_ROWS, KV_CHUNK_ROWS, KV_MAX_SINKS };
	static const uint16_t tiles[] = { 1, 1, 1, 1, 2, 3, 5, KV_EXTENT_TILES };
	struct block_shape s = { .dim = check_dims[check_below(c, check_n_dims)],
				 .tiles = tiles[check_below(c, ARRAY_SIZE(tiles))],
				 .tile_rows = KV_TILE_ROWS,
				 .needs = check_below(c, 2) ? KV_NEED_K_CHANNELS : 0,
				 .pattern = check_below(c, PATTERNS) };

	if (k->plain)
		s.tile_rows = tile_rows[check_below(c, ARRAY_SIZE(tile_rows))];
	if (s.tile_rows < KV_TILE_ROWS)
		s.tiles = 1;
	return s;
}

/* Rows anywhere: few, many, or as far as the end of a tile. */
static struct call random_call(struct check *c, const struct field *f, unsigned levels)
{
	struct call a = { .row = check_below(c, f->rows),
			  .heads = check_heads[check_below(c, check_n_heads)],
			  .level = check_below(c, levels) };
	uint32_t left = f->rows - a.row, tile = f->block.tile_rows;

	if (check_below(c, 4) == 0)
		a.n = tile - a.row % tile;
	else
		a.n = check_below(c, 1 + (check_below(c, 2) ? MIN(left, 33) : left));
	a.stride = a.n + 1 + check_below(c, 20);
	return a;
}

static void random_calls(struct check *c, const struct kv_kernels *k, uint64_t n)
{
	struct block_shape s = random_shape(c, k);
	struct field kf, vf;

	fields_open(c, k, &s, &kf, &vf);
	for (uint64_t i = 0; i < n; i++) {
		struct call a = random_call(c, &kf, k->levels);
		uint32_t r = 1 + check_below(c, check_below(c, 4) ? 40 : s.dim);

		check_case(c,
			   "%s %s dim %u tiles %u x %u needs %u pattern %u: row %u n %u heads %u "
			   "level %u r %u",
			   k->format, k->isa, s.dim, s.tiles, s.tile_rows, s.needs, s.pattern,
			   a.row, a.n, a.heads, a.level, r);
		switch (check_below(c, 8)) {
		case 0:
		case 1:
		case 2:
			check_score(c, k, &kf, &a, r);
			break;
		case 3:
			check_same_bits(c, k, &kf);
			break;
		case 4:
		case 5:
			check_axpy(c, k, &vf, &a);
			break;
		default:
			check_dot(c, k, &kf, &a);
		}
	}
	fields_close(c, &kf, &vf);
}

void check_random_cases(struct check *c, const struct kv_kernels *k, const struct kv_ops *o,
			uint64_t cases)
{
	uint64_t first = c->seed;

	for (uint64_t done = 0; done < cases && !check_enough(c); c->seed++) {
		uint64_t n = MIN(cases - done, CHECK_CALLS);

		c->random = c->seed;
		if (k)
			random_calls(c, k, n);
		for (uint64_t i = 0; i < n && !k; i++)
			check_op_case(c, o);
		done += n;
	}
	c->seed = first;
}
