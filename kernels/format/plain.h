/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout that f32, f16 and bf16 share: rows of `dim` elements one after
 * the other, no parameters, no padding.
 *
 *   K   [row][dim], then with KV_NEED_K_CHANNELS once more as [dim][row]
 *   V   [row][dim]
 *
 * A format file defines ELEMENT (its type in memory) and WIDTH (the word that
 * the vocabulary has for it).
 */
#define FMT_LEVELS 1
#define FMT_PLAIN 1
#define FMT_GROUP 0
#define FMT_GATHERS 1
#define FMT_RUN_BITS (8 * sizeof(ELEMENT))
#define PLAIN_PASTE_(a, b) a##b
#define PLAIN_PASTE(a, b) PLAIN_PASTE_(a, b)
#define plain_load PLAIN_PASTE(vf_load_, WIDTH)
#define plain_store PLAIN_PASTE(vf_store_, WIDTH)
#define plain_gather PLAIN_PASTE(vf_gather_, WIDTH)

KV_FN size_t fmt_k_stride(uint32_t dim)
{
	return dim * sizeof(ELEMENT);
}

KV_FN size_t fmt_v_stride(uint32_t dim)
{
	return fmt_k_stride(dim);
}

static size_t fmt_v_bytes(uint32_t dim, unsigned tiles, unsigned tile_rows, uint32_t needs)
{
	return kv_align_line((size_t)tiles * tile_rows * dim * sizeof(ELEMENT));
}

static size_t fmt_k_bytes(uint32_t dim, unsigned tiles, unsigned tile_rows, uint32_t needs)
{
	return fmt_v_bytes(dim, tiles, tile_rows, 0) * (needs & KV_NEED_K_CHANNELS ? 2 : 1);
}

static unsigned fmt_v_planes(uint32_t dim, uint32_t needs, struct kv_plane ret[KV_MAX_PLANES])
{
	ret[0] = (struct kv_plane){ 1, KV_TILE_ROWS * dim * sizeof(ELEMENT) };
	return 1;
}

static unsigned fmt_k_planes(uint32_t dim, uint32_t needs, struct kv_plane ret[KV_MAX_PLANES])
{
	unsigned n = fmt_v_planes(dim, 0, ret);

	if (needs & KV_NEED_K_CHANNELS)
		ret[n++] = (struct kv_plane){ dim, KV_TILE_ROWS * sizeof(ELEMENT) };
	return n;
}

KV_FN bool fmt_runs(const struct kv_block *b)
{
	return b->needs & KV_NEED_K_CHANNELS;
}

KV_FN size_t fmt_run_bytes(const struct kv_block *b)
{
	return (size_t)kv_block_rows(b) * sizeof(ELEMENT);
}

KV_FN const uint8_t *fmt_run(const struct kv_block *b, uint32_t channel)
{
	const uint8_t *plane =
		(const uint8_t *)b->base + fmt_v_bytes(b->dim, b->tiles, b->tile_rows, 0);

	return plane + channel * fmt_run_bytes(b);
}

KV_FN vf fmt_run_load(const uint8_t *run, uint32_t row)
{
	return plain_load((const ELEMENT *)(const void *)run + row);
}

KV_FN struct kv_rows fmt_k_rows(const struct kv_block *b, uint32_t row)
{
	size_t stride = fmt_k_stride(b->dim);

	return (struct kv_rows){ (const uint8_t *)b->base + row * stride, NULL, stride };
}

KV_FN struct kv_rows fmt_v_rows(const struct kv_block *b, uint32_t row)
{
	return fmt_k_rows(b, row);
}

KV_FN vf fmt_k_load(const struct kv_rows *rows, uint32_t at, size_t c)
{
	return plain_load((const ELEMENT *)(const void *)(rows->upper + at * rows->stride) + c);
}

KV_FN vf fmt_v_load(const struct kv_rows *rows, uint32_t at, uint32_t c, unsigned level)
{
	return fmt_k_load(rows, at, c);
}

KV_FN vf fmt_gather(const struct kv_block *b, uint32_t row, uint32_t channel)
{
	struct kv_rows rows = fmt_k_rows(b, row);

	return plain_gather(rows.upper, rows.stride, channel);
}

static void fmt_v_encode(const struct kv_block *b, unsigned slot, const float *x)
{
	size_t n = (size_t)b->tile_rows * b->dim;
	ELEMENT *to = (ELEMENT *)b->base + slot * n;

	for (size_t i = 0; i < n; i += VL)
		plain_store(to + i, vf_load(x + i));
}

static void fmt_k_encode(const struct kv_block *b, unsigned slot, const float *x)
{
	uint32_t first = slot * b->tile_rows;
	const ELEMENT *row = (const ELEMENT *)b->base + (size_t)first * b->dim;

	fmt_v_encode(b, slot, x);
	if (!fmt_runs(b))
		return;
	for (uint32_t c = 0; c < b->dim; c++) {
		ELEMENT *run = (ELEMENT *)(uintptr_t)fmt_run(b, c) + first;

		for (uint32_t i = 0; i < b->tile_rows; i++)
			run[i] = row[(size_t)i * b->dim + c];
	}
}
