/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows as bytes: a tile is the same bytes whatever extent it lies in, and written back
 * anywhere they are the same tile, to the last bit of every plane. Saved and spilled
 * sequences rest on it: what a format's planes left out would come back as zeros.
 *
 *   KERNEL_ISA=ISA test-image
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/base.h"
#include "tests/kernels/rig.h"

#define HEADS 4u
#define KV_HEADS 2u
#define ROLLBACK 8u
#define TILES KV_EXTENT_TILES

static int setup(void **state)
{
	if (kv_isa_limit(getenv("KERNEL_ISA")) == -EOPNOTSUPP) {
		printf("this CPU lacks it\n");
		exit(77);
	}
	return 0;
}

static struct kv_space space_of(const char *k, const char *v, const char *policy, uint32_t dim)
{
	static uint8_t args[KV_POLICY_ARGS_BYTES] __attribute__((aligned(8)));
	struct kv_space_params p = { .heads = HEADS,
				     .kv_heads = KV_HEADS,
				     .k_dim = dim,
				     .v_dim = dim,
				     .dtype = KV_F32,
				     .k_format = k,
				     .v_format = v,
				     .policy = kv_policy_find(policy),
				     .args = args,
				     .sinks = 16,
				     .outliers = 3 };
	char why[KV_ERROR_TEXT];
	struct kv_space s;

	kv_policy_defaults(p.policy, args);
	if (kv_space_init(&s, &p, why) < 0)
		fail_msg("%s", why);
	return s;
}

/* ---- visits ----------------------------------------------------------------------- */

struct copy {
	char *bytes;
	size_t done;
	bool restore;
};

static void copy(void *arg, void *memory, size_t n)
{
	struct copy *c = arg;

	if (c->restore)
		memcpy(memory, c->bytes + c->done, n);
	else
		memcpy(c->bytes + c->done, memory, n);
	c->done += n;
}

struct image {
	const struct kv_space *space;
	const struct kv_channels *const *channels;
	char *bytes;
	size_t n;
};

/* In pieces of all lengths, as a file's may end anywhere. */
static void transfer(struct image *im, const struct kv_extent *x, bool restore)
{
	static const size_t lengths[] = { 1, 7, 64, 333, 4096, 50000 };
	size_t at = 0;

	for (unsigned i = 0; at < im->n; i = (i + 1) % ARRAY_SIZE(lengths)) {
		size_t n = MIN(lengths[i], im->n - at);
		struct copy c = { im->bytes + at, 0, restore };

		kv_image_tiles(im->space, im->channels, NULL, x, at, n, copy, &c);
		assert_int_equal(c.done, n);
		at += n;
	}
}

static struct kv_extent extent_new(const struct kv_space *s, unsigned tiles, unsigned used)
{
	struct kv_extent x = { .tiles = (uint16_t)tiles, .used = (uint16_t)used, .first_row = 16 };
	size_t bytes = kv_extent_bytes(s, tiles) * KV_HEADS;

	x.base = aligned_alloc(64, bytes);
	assert_non_null(x.base);
	memset(x.base, 0, bytes);
	x.last_rows = KV_TILE_ROWS;
	return x;
}

/* ---- the same tiles in two extents --------------------------------------------------- */

/* Quantises the tail's oldest tile into a slot of each. */
static void flush_into(struct rig *r, struct kv_extent *x, unsigned slot)
{
	for (uint32_t h = 0; h < KV_HEADS; h++)
		kv_flush(r->space, &r->view, x, slot, h);
}

static void fill_both(const struct kv_space *s, const struct kv_channels *const *channels,
		      struct kv_extent *a, struct kv_extent *b)
{
	size_t width = 2 * (size_t)KV_HEADS * s->k_dim;
	float *row = malloc(width * sizeof(*row));
	uint32_t random = 9;
	struct rig r;

	assert_int_equal(rig_init(&r, s, 16 + TILES * KV_TILE_ROWS, ROLLBACK), 0);
	r.view.channels = channels;
	for (unsigned slot = 0; slot < a->used; slot++) {
		uint32_t n = KV_TILE_ROWS + (slot ? 0 : s->sinks);

		for (uint32_t i = 0; i < n; i++) {
			for (size_t c = 0; c < width; c++) {
				random = random * 1664525u + 1013904223u;
				row[c] = (float)(int32_t)random / 2147483648.0f;
			}
			rig_write(&r, row, 1);
		}
		flush_into(&r, a, slot);
		flush_into(&r, b, slot);
		rig_cut(&r, s->sinks);
	}
	rig_deinit(&r);
	free(row);
}

static void check_tiles(const struct kv_space *s, const struct kv_channels *const *channels,
			unsigned used)
{
	struct kv_extent wide = extent_new(s, TILES, used), narrow = extent_new(s, used, used);
	struct kv_extent back = extent_new(s, used, used), again = extent_new(s, TILES, used);
	struct image im = { s, channels, NULL, used * kv_image_tile_bytes(s, channels) };
	char *other = malloc(im.n);

	im.bytes = malloc(im.n);
	fill_both(s, channels, &wide, &narrow);
	transfer(&im, &wide, false);
	memcpy(other, im.bytes, im.n);
	memset(im.bytes, 0x55, im.n);
	transfer(&im, &narrow, false);
	assert_memory_equal(im.bytes, other, im.n);
	/* Into memory that was zero, as what is padding is: so all but padding came back. */
	transfer(&im, &back, true);
	assert_memory_equal(back.base, narrow.base, kv_extent_bytes(s, used) * KV_HEADS);
	transfer(&im, &again, true);
	assert_memory_equal(again.base, wide.base, kv_extent_bytes(s, TILES) * KV_HEADS);
	free(wide.base);
	free(narrow.base);
	free(back.base);
	free(again.base);
	free(im.bytes);
	free(other);
}

static void test_formats(void **state)
{
	static const uint32_t dims[] = { 64, 80, 112, 128, 192 };
	static const char *const policies[] = { "dense", "sparq" };

	for (unsigned f = 0; kv_format_at(f); f++)
		for (unsigned d = 0; d < ARRAY_SIZE(dims); d++)
			for (unsigned p = 0; p < ARRAY_SIZE(policies); p++) {
				const char *v = kv_format_at(f + 1);
				struct kv_space s = space_of(kv_format_at(f), v ? v : "f32",
							     policies[p], dims[d]);

				check_tiles(&s, NULL, 1);
				check_tiles(&s, NULL, 5);
				check_tiles(&s, NULL, TILES);
			}
}

/* Heads with different tables take different numbers of bytes. */
static void test_outliers(void **state)
{
	struct kv_channels t = { .n_outliers = 2 };
	const struct kv_channels *const channels[KV_HEADS] = { NULL, &t };

	for (unsigned i = 0; i < KV_MAX_DIM; i++)
		t.k[i] = t.v[i] = (uint8_t)i;
	for (unsigned f = 0; kv_format_at(f); f++) {
		struct kv_space s = space_of(kv_format_at(f), "f16", "sparq", 64);
		bool plain = f < 3; /* they keep all channels as they are */

		assert_int_equal(kv_image_tile_bytes(&s, channels) - kv_image_tile_bytes(&s, NULL),
				 plain ? 0 : 2 * KV_TILE_ROWS * 2);
		check_tiles(&s, channels, 1);
		check_tiles(&s, channels, 3);
		check_tiles(&s, channels, TILES);
	}
}

static void test_rows(void **state)
{
	struct kv_space s = space_of("f16", "f16", "dense", 64);
	size_t bytes = kv_chunk_bytes(&s, KV_CHUNK_ROWS) * KV_HEADS;
	size_t n = 37 * kv_image_row_bytes(&s), head = n / KV_HEADS;
	char *chunk = calloc(1, bytes), *back = calloc(1, bytes), *image = malloc(n);
	struct copy c = { image, 0, false };

	for (size_t i = 0; i < bytes; i++)
		chunk[i] = (char)(i * 31 / 7);
	for (size_t at = 0; at < n; at += 101)
		kv_image_rows(&s, NULL, chunk, KV_CHUNK_ROWS, 37, at, MIN(101, n - at), copy, &c);
	assert_int_equal(c.done, n);
	for (unsigned h = 0; h < KV_HEADS; h++) {
		const char *block = chunk + h * kv_chunk_bytes(&s, KV_CHUNK_ROWS);

		assert_memory_equal(image + h * head, block, head / 2);
		assert_memory_equal(image + h * head + head / 2, block + 64 * 64 * 4, head / 2);
	}
	c = (struct copy){ image, 0, true };
	kv_image_rows(&s, NULL, back, KV_CHUNK_ROWS, 37, 0, n, copy, &c);
	memset(image, 0, n);
	c = (struct copy){ image, 0, false };
	kv_image_rows(&s, NULL, chunk, KV_CHUNK_ROWS, 37, 0, n, copy, &c);
	for (unsigned h = 0; h < KV_HEADS; h++)
		assert_memory_equal(back + h * kv_chunk_bytes(&s, KV_CHUNK_ROWS), image + h * head,
				    head / 2);
	free(chunk);
	free(back);
	free(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_outliers),
		cmocka_unit_test(test_rows),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
