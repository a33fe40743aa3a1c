/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles that the GPU's kernel makes under the emulator: the bits of kv_flush with scalar rows. A
 * cache whose rows are on the device alone relies on that when it is read anywhere else.
 *
 *   test-cuda-flush [--tiles N] [--seed S]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/table.h"
#include "shm/base.h"
#include "tests/gpu/emulate/emulate.h"
#include "tests/gpu/emulate/world.h"

#define GARBAGE 0xa5

static unsigned failed;

static uint32_t pick(uint64_t *state, uint32_t n)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*state >> 33) % n;
}

static struct shape random_shape(uint64_t *s)
{
	static const char *const formats[] = { "f32", "f16", "bf16", "int8", "int4", "hier4" };
	static const uint32_t dims[] = { 64, 80, 96, 112, 128, 192, 256 };
	struct shape x = { .dim = dims[pick(s, ARRAY_SIZE(dims))],
			   .rows = 300 + pick(s, 900),
			   .group = 1 + pick(s, 4),
			   .n_q = 1,
			   .sinks = pick(s, 2) ? 16 : pick(s, 17),
			   .rollback = 128,
			   .dtype = (enum kv_dtype)pick(s, 3),
			   .k_format = formats[pick(s, ARRAY_SIZE(formats))],
			   .v_format = formats[pick(s, ARRAY_SIZE(formats))],
			   .policy = pick(s, 2) ? "dense" : "sparq", /* K by channel or not */
			   .cut = pick(s, 3) == 0,
			   .ordered = pick(s, 3) == 0,
			   .corrected = pick(s, 4) == 0,
			   .special = pick(s, 3) ? 0 : 1 + pick(s, 3),
			   .random = pick(s, 1u << 30) };

	if (x.ordered)
		x.outliers = pick(s, 9);
	return x;
}

static uint64_t device_of(void *arg, const void *host)
{
	return (uint64_t)(uintptr_t)host;
}

static bool flush(const struct kv_cuda_tile *tile, uint64_t seed)
{
	struct kv_cuda_batch b;
	struct kv_cuda_where where = { .device_of = device_of };
	char why[EMULATE_WHY] = "no parameters";
	struct emulate_grid grid;
	void *params;
	int r;

	kv_cuda_flush_measure(tile, 1, &b);
	params = aligned_alloc(KV_CUDA_ALIGN, ALIGN_UP(b.params_bytes, KV_CUDA_ALIGN));
	r = kv_cuda_flush_fill(tile, 1, &b, &where, params);
	grid = (struct emulate_grid){ b.launch[0].grid_x, b.launch[0].grid_y, b.launch[0].threads,
				      b.launch[0].shared_bytes, seed };
	r = r ? r : emulate_run(emulate_find(b.launch[0].kernel), params, &grid, why);
	if (r)
		fprintf(stderr, "%s\n", why);
	free(params);
	return r == 0;
}

/* What both of them make of a slot that was garbage, and of what is around it. */
static void check(struct world *w, uint16_t tiles, unsigned slot, uint64_t seed)
{
	size_t bytes = kv_extent_bytes(&w->space, tiles) * WORLD_HEADS;
	struct kv_extent x = { .first_row = w->rig.view.tail_first - slot * KV_TILE_ROWS,
			       .tiles = tiles,
			       .used = (uint16_t)slot,
			       .correction = w->correction };
	struct kv_cuda_tile tile = { &w->space, &w->rig.view, &x, slot };
	char *cpu = aligned_alloc(64, bytes), *gpu = aligned_alloc(64, bytes);

	memset(cpu, GARBAGE, bytes);
	memset(gpu, GARBAGE, bytes);
	x.base = cpu;
	for (uint32_t h = 0; h < WORLD_HEADS; h++)
		kv_flush(&w->space, &w->rig.view, &x, slot, h);
	x.base = gpu;
	if (!flush(&tile, seed) || memcmp(cpu, gpu, bytes)) {
		size_t i = 0;

		while (i < bytes && cpu[i] == gpu[i])
			i++;
		fprintf(stderr, "%s: %u tiles, slot %u: byte %zu of %zu is %02x, not %02x\n",
			world_name(w), tiles, slot, i, bytes, (unsigned char)gpu[i],
			(unsigned char)cpu[i]);
		failed++;
	}
	free(cpu);
	free(gpu);
}

int main(int argc, char **argv)
{
	unsigned long tiles = 60, done = 0, seed = 1;
	uint64_t s;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--tiles"))
			tiles = strtoul(argv[i + 1], NULL, 0);
		if (!strcmp(argv[i], "--seed"))
			seed = strtoul(argv[i + 1], NULL, 0);
	}
	kv_isa_limit("scalar");
	s = seed;
	while (done < tiles && failed < 20) {
		struct shape x = random_shape(&s);
		struct world *w = world_new(&x);
		uint16_t slots = pick(&s, 2) ? 1 : 8;

		if (w && w->rig.view.tail_rows >= KV_TILE_ROWS)
			check(w, slots, pick(&s, slots), done++);
		world_free(w);
	}
	printf("%lu tiles, %u off (seed %lu)\n", done, failed, seed);
	return failed > 0;
}
