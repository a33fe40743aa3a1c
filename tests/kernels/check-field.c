/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the checks of a row work on: rows of every kind, encoded slot by slot
 * and decoded again, and how far that may be from what was sent.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "tests/kernels/check-rows.h"

static float sample(struct check *c, enum pattern p, uint32_t row, uint32_t channel)
{
	switch (p) {
	case CONSTANT:
		return channel % 3 ? 0.3125f : 0;
	case OFFSET:
		return 20 + (float)(channel % 7) + 0.25f * check_normal(c);
	case OUTLIER:
		return check_below(c, 50) ? check_normal(c) : 300 * check_unit(c);
	case TINY:
		return 1e-4f * check_normal(c);
	case DENORMAL:
		return check_below(c, 3) ? 1e-39f * check_unit(c) : (float)(channel % 2);
	case STEPS: /* halves of a step: every rounding is a tie */
		return row % 128 == 0 ? 0 : row % 128 == 1 ? 15 : 0.5f * (float)check_below(c, 31);
	default:
		return check_normal(c);
	}
}

/* The same where a row is quantised by itself, in groups; what the last one lacks is zero. */
static void measure_groups(struct field *f, unsigned group)
{
	for (size_t i = 0; i < f->rows; i++)
		for (uint32_t from = 0; from < f->dim; from += group) {
			uint32_t end = MIN(from + group, f->dim);
			float low = end - from < group ? 0 : INFINITY, high = -low;

			for (uint32_t c = from; c < end; c++) {
				low = fminf(low, f->sent[i * f->dim + c]);
				high = fmaxf(high, f->sent[i * f->dim + c]);
			}
			for (uint32_t c = from; c < end; c++) {
				f->range[i * f->dim + c] = high - low;
				f->size[i * f->dim + c] = fmaxf(fabsf(low), fabsf(high));
			}
		}
}

/* Range and largest magnitude of each element's group. */
static void measure(struct field *f, bool by_channel, unsigned group)
{
	uint32_t across = by_channel ? f->block.tile_rows : f->dim;

	if (group) {
		measure_groups(f, group);
		return;
	}
	for (uint32_t i = 0; i < f->rows; i++) {
		for (uint32_t c = 0; c < f->dim; c++) {
			uint32_t tile = i / f->block.tile_rows * f->block.tile_rows;
			float low = INFINITY, high = -INFINITY;
			size_t at = (size_t)i * f->dim + c;

			if (by_channel ? i > tile : c > 0) { /* as the neighbour in the group */
				size_t back = by_channel ? f->dim : 1;

				f->range[at] = f->range[at - back];
				f->size[at] = f->size[at - back];
				continue;
			}
			for (uint32_t j = 0; j < across; j++) {
				float x = by_channel ? f->sent[(size_t)(tile + j) * f->dim + c]
						     : f->sent[(size_t)i * f->dim + j];

				low = fminf(low, x);
				high = fmaxf(high, x);
			}
			f->range[at] = high - low;
			f->size[at] = fmaxf(fabsf(low), fabsf(high));
		}
	}
}

double field_bound(const struct kv_kernels *k, const struct field *f, float rel, size_t at)
{
	if (k->plain)
		return rel * fabsf(f->sent[at]) + 0x1p-24;
	return rel * f->range[at] + 0x1p-11 * f->size[at] + 0x1p-20;
}

static struct field field_new(struct check *c, const struct block_shape *s, size_t bytes)
{
	struct field f = { .rows = (uint32_t)s->tiles * s->tile_rows, .dim = s->dim };
	size_t n = (size_t)f.rows * s->dim;

	f.memory = guarded_new(bytes);
	f.block =
		(struct kv_block){ f.memory.data, s->dim, s->tiles, s->tile_rows, s->needs, NULL };
	f.sent = calloc(4 * n, sizeof(float));
	f.read = f.sent + n;
	f.range = f.read + n;
	f.size = f.range + n;
	for (size_t i = 0; i < n; i++)
		f.sent[i] = sample(c, s->pattern, (uint32_t)(i / s->dim), (uint32_t)(i % s->dim));
	return f;
}

static void field_free(struct field *f)
{
	guarded_free(&f->memory);
	free(f->sent);
}

/* Codes and parameters do not depend on the ISA: sparq-formats(7) says so. */
static void check_same_code(struct check *c, const struct kv_kernels *k, const struct field *f,
			    bool is_k)
{
	const struct kv_kernels *scalar = NULL;
	struct guarded other = guarded_new(f->memory.size);
	struct kv_block b = f->block;

	for (unsigned i = 0; (scalar = kv_kernels_at(i)); i++)
		if (!strcmp(scalar->isa, "scalar") && !strcmp(scalar->format, k->format))
			break;
	b.base = other.data;
	for (unsigned i = 0; scalar && i < b.tiles; i++)
		(is_k ? scalar->k_write
		      : scalar->v_write)(&b, i, f->sent + (size_t)i * b.tile_rows * b.dim);
	check_true(c, "written as scalar writes",
		   scalar && !memcmp(other.data, f->memory.data, other.size));
	guarded_free(&other);
}

/* Slots in a shuffled order: none may touch what the others hold. */
static void write_slots(struct check *c, const struct kv_kernels *k, struct field *f, bool is_k)
{
	void (*write)(const struct kv_block *, unsigned, const float *) =
		is_k ? k->k_write : k->v_write;
	unsigned step = f->block.tiles % 3 ? 3 : 1, first = check_below(c, f->block.tiles);

	for (unsigned i = 0; i < f->block.tiles; i++) {
		unsigned slot = (first + i * step) % f->block.tiles;

		write(&f->block, slot, f->sent + (size_t)slot * f->block.tile_rows * f->dim);
	}
	(is_k ? k->k_read : k->v_read)(&f->block, 0, f->rows, f->read);
	check_true(c, "bytes before the block changed", guarded_intact(&f->memory));
	check_same_code(c, k, f, is_k);
}

static void check_decoded(struct check *c, const struct kv_kernels *k, const struct field *f,
			  bool is_k)
{
	float rel = is_k ? k->k_max_rel : k->v_max_rel;
	struct guarded one = guarded_new(f->dim * sizeof(float));
	uint32_t row = check_below(c, f->rows);

	for (size_t i = 0; i < (size_t)f->rows * f->dim; i++)
		if (!check_near(c, is_k ? "k_write, k_read" : "v_write, v_read", f->read[i],
				f->sent[i], field_bound(k, f, rel, i)))
			break;
	(is_k ? k->k_read : k->v_read)(&f->block, row, 1, one.data);
	check_true(c, "one row reads as all do",
		   !memcmp(one.data, f->read + (size_t)row * f->dim, f->dim * sizeof(float)));
	check_true(c, "bytes before a row read changed", guarded_intact(&one));
	guarded_free(&one);
}

void fields_open(struct check *c, const struct kv_kernels *k, const struct block_shape *s,
		 struct field *ret_k, struct field *ret_v)
{
	size_t k_bytes = k->k_bytes(s->dim, s->tiles, s->tile_rows, s->needs);
	size_t v_bytes = k->v_bytes(s->dim, s->tiles, s->tile_rows, s->needs);

	check_case(c, "%s %s dim %u tiles %u x %u needs %u pattern %u", k->format, k->isa, s->dim,
		   s->tiles, s->tile_rows, s->needs, s->pattern);
	check_true(c, "a block is a multiple of 64 bytes", k_bytes % 64 == 0 && v_bytes % 64 == 0);
	*ret_k = field_new(c, s, k_bytes);
	*ret_v = field_new(c, s, v_bytes);
	measure(ret_k, true, k->group);
	measure(ret_v, false, k->group);
	write_slots(c, k, ret_k, true);
	write_slots(c, k, ret_v, false);
	check_decoded(c, k, ret_k, true);
	check_decoded(c, k, ret_v, false);
}

void fields_close(struct check *c, struct field *k, struct field *v)
{
	check_true(c, "reading changed the block",
		   guarded_intact(&k->memory) && guarded_intact(&v->memory));
	field_free(k);
	field_free(v);
}
