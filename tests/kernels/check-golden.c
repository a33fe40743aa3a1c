/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worked examples of golden.json that concern codecs and stages: codes and
 * index lists exactly, f32 results to 1e-5, what went through binary16
 * parameters to 2e-3.
 *
 * Examples have 8 rows and channels, tiles 128 and 64: they are repeated, which
 * changes no group's range. Planes are read here by the offsets that
 * sparq-formats(7) gives, so the layout is pinned too: caches outlive builds.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base.h"
#include "tests/kernels/checkkern.h"
#include "tests/kernels/json.h"
#include "tests/kernels/reference.h"

enum { N = 8, DIM = 64, ROWS = 128, TILES = 8, SHARDS = 4 };

static double number2(const struct json *array, size_t i, size_t j)
{
	return json_number_at(json_at(array, i), j);
}

/* A K and a V block with one tile written in `slot`. */
struct tile {
	struct guarded k, v;
	struct kv_block kb, vb;
	unsigned slot;
};

static struct tile tile_new(struct check *c, const struct kv_kernels *k, uint32_t needs,
			    const float *kx, const float *vx)
{
	struct tile t = { .k = guarded_new(k->k_bytes(DIM, TILES, ROWS, needs)),
			  .v = guarded_new(k->v_bytes(DIM, TILES, ROWS, 0)),
			  .slot = check_below(c, TILES) };

	t.kb = (struct kv_block){ t.k.data, DIM, TILES, ROWS, needs, NULL };
	t.vb = (struct kv_block){ t.v.data, DIM, TILES, ROWS, 0, NULL };
	k->k_write(&t.kb, t.slot, kx);
	k->v_write(&t.vb, t.slot, vx);
	return t;
}

static void tile_free(struct tile *t)
{
	guarded_free(&t->k);
	guarded_free(&t->v);
}

static unsigned nibble(const uint8_t *p, uint32_t i)
{
	return p[i / 2] >> (4 * (i & 1)) & 15;
}

/* ---- hier4 ------------------------------------------------------------------- */

/* Codes as they lie: of K from both of its planes, which must agree. */
static unsigned k_code(struct check *c, const struct tile *t, uint32_t row, uint32_t channel)
{
	const uint8_t *ku = (uint8_t *)t->k.data + (channel * TILES + t->slot) * ROWS / 2;
	const uint8_t *ke = (uint8_t *)t->k.data + DIM * TILES * ROWS / 2;
	unsigned code = ke[(t->slot * ROWS + row) * DIM + channel];

	check_true(c, "KU is the upper half of KE", nibble(ku, row) == code >> 4);
	return code;
}

static unsigned v_code(const struct tile *t, uint32_t row, uint32_t channel)
{
	const uint8_t *vu = (uint8_t *)t->v.data + (t->slot * ROWS + row) * DIM / 2;
	const uint8_t *vl = vu + TILES * ROWS * DIM / 2;

	return nibble(vu, channel) * 16 + nibble(vl, channel);
}

static uint16_t k_param(const struct tile *t, uint32_t channel, unsigned which)
{
	const uint16_t *kp = (const uint16_t *)((uint8_t *)t->k.data + DIM * TILES * ROWS * 3 / 2);

	return kp[(channel * TILES + t->slot) * 2 + which];
}

/* One group of 8 as every channel's rows and every row's channels. */
static void check_group(struct check *c, const struct kv_kernels *k, const struct json *group,
			const struct json *want)
{
	const struct json *x = json_get(group, "x"), *u = json_get(want, "upper"),
			  *l = json_get(want, "lower_stored");
	float scale = (float)json_number_in(want, "scale4");
	float *kx = calloc(2 * ROWS * DIM, sizeof(*kx)), *vx = kx + ROWS * DIM;
	uint16_t half;
	struct tile t;

	for (unsigned i = 0; i < ROWS * DIM; i++) {
		kx[i] = (float)json_number_at(x, i / DIM % N);
		vx[i] = (float)json_number_at(x, i % DIM % N);
	}
	t = tile_new(c, k, 0, kx, vx);
	for (unsigned i = 0; i < ROWS * DIM; i++) {
		unsigned row = i / DIM, channel = i % DIM;
		unsigned of_k =
			(unsigned)(json_number_at(u, row % N) * 16 + json_number_at(l, row % N));
		unsigned of_v = (unsigned)(json_number_at(u, channel % N) * 16 +
					   json_number_at(l, channel % N));

		check_true(c, "code of K", k_code(c, &t, row, channel) == of_k);
		check_true(c, "code of V", v_code(&t, row, channel) == of_v);
	}
	kv_from_f32(KV_F16, &scale, &half, 1);
	check_true(c, "scale of K", k_param(&t, DIM - 1, 0) == half);
	tile_free(&t);
	free(kx);
}

static void check_packing(struct check *c, const struct kv_kernels *k, const struct json *group)
{
	const struct json *want = json_get(group, "expected/packed_upper_low_nibble_first");
	float x[ROWS * DIM];
	struct tile t;

	for (unsigned i = 0; i < ROWS * DIM; i++)
		x[i] = (float)json_number_at(json_get(group, "x"), i % N);
	t = tile_new(c, k, 0, x, x);
	for (unsigned i = 0; i < N / 2; i++)
		check_true(c, "low nibble first",
			   ((uint8_t *)t.v.data)[t.slot * ROWS * DIM / 2 + i] ==
				   json_number_at(want, i));
	tile_free(&t);
}

static float *repeated(const struct json *rows)
{
	float *x = calloc(ROWS * DIM, sizeof(*x));

	for (unsigned i = 0; i < ROWS * DIM; i++)
		x[i] = (float)number2(rows, i / DIM % N, i % DIM % N);
	return x;
}

/* What the 8 x 8 rows of the file are after quantising, K by channel and V by row. */
static void quantised(const struct json *rows, bool by_channel, unsigned level, float *ret)
{
	for (unsigned g = 0; g < N; g++) {
		float x[N], upper[N], both[N];

		for (unsigned i = 0; i < N; i++)
			x[i] = (float)(by_channel ? number2(rows, i, g) : number2(rows, g, i));
		ref_hier4(x, N, upper, both);
		for (unsigned i = 0; i < N; i++)
			ret[by_channel ? i * N + g : g * N + i] = level ? upper[i] : both[i];
	}
}

static double distance(const float *got, const double *want)
{
	double error = 0, size = 0;

	for (unsigned i = 0; i < N; i++) {
		error += pow(got[i] - want[i], 2);
		size += pow(want[i], 2);
	}
	return sqrt(error / size);
}

/* Attention over the 8 rows with one plane or both, by the stages under test: as the reference
 * with binary16 parameters says to 1e-5, as the file with unrounded ones says to 5e-3. */
static void check_attention(struct check *c, const struct kv_kernels *k, const struct tile *t,
			    const struct json *root, unsigned level)
{
	const struct json *want = json_get(root, "hier_int4_attention");
	const struct json *tile = json_get(root, "hier_int4_kv_tile");
	const struct json *y = json_get(want, level ? "draft_y" : "target_y");
	float q[DIM] = { 0 }, p[N], out[DIM] = { 0 }, kx[N * N], vx[N * N];
	double max, sum, file[N], reference[N], lse;
	/* Where the coarse plane is multiplied in bytes: see score_max_rel. */
	bool bytes = !strcmp(k->isa, "avx512") || !strcmp(k->isa, "dotprod");
	double rel = level && bytes ? 5e-3 : 1e-5;

	for (unsigned i = 0; i < N; i++)
		q[i] = (float)(json_number_at(json_get(want, "q"), i) / sqrt(N));
	k->k_dot(&t->kb, t->slot * ROWS, N, q, DIM, 1, p, N, level);
	ref_max_expsum(p, N, &max, &sum);
	for (unsigned i = 0; i < N; i++)
		p[i] = (float)(exp(p[i] - max) / sum);
	k->v_axpy(&t->vb, t->slot * ROWS, N, p, N, 1, out, DIM, level);
	for (unsigned i = 0; i < N; i++)
		file[i] = json_number_at(y, i);
	quantised(json_get(tile, "K"), true, level, kx);
	quantised(json_get(tile, "V"), false, level, vx);
	lse = ref_attend(q, kx, vx, N, N, 1, reference);
	check_near(c, "y as the reference", distance(out, reference), 0, rel);
	check_near(c, "lse as the reference", max + log(sum), lse, rel);
	check_near(c, "y as the file", distance(out, file), 0, 5e-3);
	check_near(c, "lse as the file", max + log(sum),
		   json_number_in(want, level ? "draft_lse" : "target_lse"), 2e-3);
}

/* The file's tile has parameters in f64; ours are rounded, which may move a lower nibble by 1. */
static void check_tile(struct check *c, const struct kv_kernels *k, const struct json *root)
{
	const struct json *tile = json_get(root, "hier_int4_kv_tile");
	float *kx = repeated(json_get(tile, "K")), *vx = repeated(json_get(tile, "V"));
	struct tile t = tile_new(c, k, 0, kx, vx);

	for (unsigned i = 0; i < N * N; i++) {
		unsigned row = i / N, channel = i % N;
		unsigned kc = k_code(c, &t, row, channel), vc = v_code(&t, row, channel);

		check_true(c, "K_upper",
			   kc >> 4 == number2(json_get(tile, "K_upper"), row, channel));
		check_true(c, "V_upper",
			   vc >> 4 == number2(json_get(tile, "V_upper"), row, channel));
		check_near(c, "K_lower", kc & 15,
			   number2(json_get(tile, "K_lower_stored"), row, channel), 1);
		check_near(c, "V_lower", vc & 15,
			   number2(json_get(tile, "V_lower_stored"), row, channel), 1);
	}
	check_attention(c, k, &t, root, 0);
	check_attention(c, k, &t, root, 1);
	tile_free(&t);
	free(kx);
	free(vx);
}

static void check_hier4(struct check *c, const struct kv_kernels *k, const struct json *root)
{
	static const char *const exact[] = { "hier_int4_edge_halfway", "hier_int4_edge_constant" };
	const struct json *group = json_get(root, "hier_int4_group");

	check_group(c, k, group, json_get(group, "expected_f16_params"));
	check_packing(c, k, group);
	for (unsigned i = 0; i < ARRAY_SIZE(exact); i++)
		check_group(c, k, json_get(root, exact[i]),
			    json_get(json_get(root, exact[i]), "expected"));
	check_tile(c, k, root);
}

/* ---- int4 -------------------------------------------------------------------- */

static uint16_t half_of(double x)
{
	float from = (float)x;
	uint16_t half;

	kv_from_f32(KV_F16, &from, &half, 1);
	return half;
}

/* A row of 32 bytes of codes, its parameters behind all rows of codes, K's column behind those. */
static void check_int4_row(struct check *c, const struct tile *t, uint32_t row,
			   const struct json *packed, double inverse, double min)
{
	const uint8_t *k = t->k.data, *v = t->v.data;
	size_t at_row = t->slot * ROWS + row, bytes = json_length(packed);
	const uint16_t *pair = (const uint16_t *)(k + TILES * ROWS * DIM / 2) + 2 * at_row;
	const uint8_t *kc = k + TILES * ROWS * (DIM / 2 + 4) + t->slot * ROWS / 2 + row / 2;

	for (unsigned i = 0; i < DIM / 2; i++) {
		unsigned byte = (unsigned)json_number_at(packed, i % bytes), odd = row & 1;

		check_true(c, "codes of K", k[at_row * DIM / 2 + i] == byte);
		check_true(c, "codes of V", v[at_row * DIM / 2 + i] == byte);
		check_true(c, "an even channel, by channel",
			   (kc[2 * i * TILES * ROWS / 2] >> (odd ? 0 : 4) & 15) == byte >> 4);
		check_true(c, "an odd channel, by channel",
			   (kc[(2 * i + 1) * TILES * ROWS / 2] >> (odd ? 0 : 4) & 15) ==
				   (byte & 15));
	}
	check_true(c, "scale", pair[0] == half_of(inverse > 0 ? 1 / inverse : 0));
	check_true(c, "minimum", pair[1] == half_of(min));
}

/* Group g of an example as all of a row: repeated, where the example's group is shorter. */
static void check_int4_group(struct check *c, const struct kv_kernels *k, const struct json *root,
			     unsigned g)
{
	const struct json *x = json_get(root, "x"), *want = json_get(root, "expected");
	unsigned group = (unsigned)json_number_in(root, "group");
	unsigned length = (unsigned)json_length(x);
	float rows[ROWS * DIM], read[DIM];
	struct tile t;

	for (unsigned i = 0; i < ROWS * DIM; i++) {
		unsigned from = g * group + i % group;

		rows[i] = from < length ? (float)json_number_at(x, from) : 0;
	}
	t = tile_new(c, k, KV_NEED_K_CHANNELS, rows, rows);
	for (unsigned row = 0; row < ROWS; row++)
		check_int4_row(c, &t, row, json_at(json_get(want, "packed_high_nibble_first"), g),
			       json_number_at(json_get(want, "inv_scale"), g),
			       json_number_at(json_get(want, "min"), g));
	k->k_read(&t.kb, t.slot * ROWS, 1, read);
	for (unsigned i = 0; i < MIN(group, length - g * group); i++)
		check_near(c, "restored", read[i],
			   json_number_at(json_get(want, "dequant"), g * group + i),
			   2e-3 * 4); /* of the examples' size */
	tile_free(&t);
}

static void check_int4(struct check *c, const struct kv_kernels *k, const struct json *root)
{
	static const char *const name[] = { "flexgen_int4_group8", "flexgen_int4_group64",
					    "flexgen_int4_constant" };

	for (unsigned i = 0; i < ARRAY_SIZE(name); i++) {
		const struct json *example = json_get(root, name[i]);
		int groups = (int)json_number_in(example, "expected/groups");

		for (int g = 0; g < groups; g++)
			check_int4_group(c, k, example, (unsigned)g);
	}
}

/* A last group is filled up with zeros: 16 numbers around 5 begin at 0. */
static void check_int4_padding(struct check *c, const struct kv_kernels *k)
{
	enum { WIDE = 80, OF_LAST = 16 };
	static float rows[ROWS * WIDE], read[WIDE];
	struct guarded memory = guarded_new(k->k_bytes(WIDE, 1, ROWS, 0));
	struct kv_block b = { memory.data, WIDE, 1, ROWS, 0, NULL };
	const uint16_t *pair = (const uint16_t *)((uint8_t *)memory.data + ROWS * 48);

	for (unsigned i = 0; i < ROWS * WIDE; i++)
		rows[i] = 4.5f + (float)(i % OF_LAST) / OF_LAST;
	k->k_write(&b, 0, rows);
	check_true(c, "minimum of a whole group", pair[1] == half_of(4.5));
	/* 0 of either sign. */
	check_true(c, "minimum with zeros", (pair[2 * ROWS + 1] & 0x7fff) == 0);
	check_true(c, "scale with zeros", pair[2 * ROWS] == half_of((5.4375f) / 15));
	k->k_read(&b, 0, 1, read);
	check_near(c, "first of a last group", read[WIDE - OF_LAST], 4.5, 5.4375 / 29);
	guarded_free(&memory);
}

void check_golden_rows(struct check *c, const struct kv_kernels *k, const char *path)
{
	struct json *root;

	if (strcmp(k->format, "hier4") && strcmp(k->format, "int4"))
		return;
	root = json_read(path);
	check_case(c, "golden %s %s", k->format, k->isa);
	if (!check_true(c, "golden.json is there", root))
		return;
	if (!strcmp(k->format, "hier4")) {
		check_hier4(c, k, root);
	} else {
		check_int4(c, k, root);
		check_int4_padding(c, k);
	}
	json_free(root);
}

/* ---- ops --------------------------------------------------------------------- */

/* Shards merged one after the other, as the executor merges its shares. */
static void check_merges(struct check *c, const struct kv_ops *o, const float shard[][N],
			 const struct json *want)
{
	const struct json *lses = json_get(want, "shard_lse");
	double lse = json_number_in(want, "lse");
	float y[N] = { 0 }, mine = -INFINITY;

	for (size_t s = 0; s < json_length(lses); s++)
		o->merge(y, &mine, shard[s], (float)json_number_at(lses, s), N);
	for (unsigned i = 0; i < N; i++)
		check_near(c, "merged row", y[i], json_number_at(json_get(want, "y"), i), 1e-5);
	check_near(c, "merged lse", mine, lse, 1e-5 * fmax(1, fabs(lse)));
}

/* At 400 q a shard is its strongest row. The file has no shards for it; the reference makes
 * them. */
static void large_shards(const struct json *merge, float ret[SHARDS][N])
{
	const struct json *bounds = json_get(merge, "bounds");

	for (unsigned s = 0; s < SHARDS; s++) {
		unsigned from = (unsigned)number2(bounds, s, 0);
		unsigned rows = (unsigned)number2(bounds, s, 1) - from;
		float q[N], kx[N * N], vx[N * N];
		double y[N] = { 0 };

		for (unsigned i = 0; i < N; i++)
			q[i] = (float)(400 * json_number_at(json_get(merge, "q"), i));
		for (unsigned i = 0; i < rows * N; i++) {
			kx[i] = (float)number2(json_get(merge, "K"), from + i / N, i % N);
			vx[i] = (float)number2(json_get(merge, "V"), from + i / N, i % N);
		}
		if (rows)
			ref_attend(q, kx, vx, rows, N, 1 / sqrt(N), y);
		for (unsigned i = 0; i < N; i++)
			ret[s][i] = (float)y[i];
	}
}

static void check_ties(struct check *c, const struct kv_ops *o, const struct json *ties)
{
	uint32_t n = (uint32_t)json_length(json_get(ties, "x"));
	uint32_t k = (uint32_t)json_number_in(ties, "k");
	uint32_t index[N], tmp[64 + 2 * N];
	float x[N];

	for (uint32_t i = 0; i < n; i++)
		x[i] = (float)json_number_at(json_get(ties, "x"), i);
	check_true(c, "count", o->topk(x, n, k, -INFINITY, index, tmp) == k);
	for (uint32_t i = 0; i < k; i++)
		check_true(c, "ties go to the lower row",
			   index[i] == json_number_at(json_get(ties, "expected"), i));
}

void check_golden_ops(struct check *c, const struct kv_ops *o, const char *path)
{
	struct json *root = json_read(path);
	const struct json *merge;
	float shard[SHARDS][N];

	check_case(c, "golden ops %s", o->isa);
	if (!check_true(c, "golden.json is there", root))
		return;
	check_ties(c, o, json_get(root, "topk_ties"));
	merge = json_get(root, "lse_merge");
	for (unsigned i = 0; i < SHARDS * N; i++)
		shard[i / N][i % N] = (float)number2(json_get(merge, "shard_y"), i / N, i % N);
	check_merges(c, o, shard, merge);
	large_shards(merge, shard);
	check_merges(c, o, shard, json_get(root, "lse_merge_large_logits"));
	json_free(root);
}
