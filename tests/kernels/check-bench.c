/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --bench: how much faster than scalar each row's stages are in cache, and what
 * one core reaches on a cache that lies in memory. For the commit messages of
 * kernels; sparq-bench is what measures whole steps.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "shm/base.h"
#include "tests/kernels/checkkern.h"

enum { DIM = 128, TILES = 8, ROWS = TILES * 128, HEADS = 4, R = 32, EXTENTS = 128, PICKS = 128 };

/* Of this thread: other work on the machine costs cache and bandwidth, but not our time. */
static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

struct bench {
	const struct kv_kernels *k;
	struct kv_block kb, vb;
	size_t k_bytes, v_bytes;
	uint16_t channel[R];
	float q[HEADS * DIM], y[HEADS * DIM], *x, *p;
};

static void *big_new(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	madvise(p, n, MADV_HUGEPAGE);
	return p;
}

static void bench_init(struct bench *b, const struct kv_kernels *k, unsigned extents)
{
	uint32_t needs = KV_NEED_K_CHANNELS;

	memset(b, 0, sizeof(*b));
	b->k = k;
	b->k_bytes = k->k_bytes(DIM, TILES, 128, needs) + 64; /* staggered, as extents are */
	b->v_bytes = k->v_bytes(DIM, TILES, 128, needs) + 64;
	b->kb = (struct kv_block){ big_new(extents * b->k_bytes), DIM, TILES, 128, needs, NULL };
	b->vb = (struct kv_block){ big_new(extents * b->v_bytes), DIM, TILES, 128, needs, NULL };
	b->x = calloc(ROWS * DIM, sizeof(float));
	b->p = calloc(HEADS * ROWS, sizeof(float));
	for (unsigned i = 0; i < ROWS * DIM; i++)
		b->x[i] = (float)(i * 2654435761u >> 16) * 0x1p-16f - 0.5f;
	for (unsigned i = 0; i < HEADS * DIM; i++)
		b->q[i] = b->x[i * 7];
	for (unsigned i = 0; i < HEADS * ROWS; i++)
		b->p[i] = 1e-3f;
	for (unsigned j = 0; j < R; j++)
		b->channel[j] = (uint16_t)(j * (DIM / R) + j % 3);
	for (unsigned s = 0; s < TILES; s++) {
		k->k_write(&b->kb, s, b->x + s * 128 * DIM);
		k->v_write(&b->vb, s, b->x + s * 128 * DIM);
	}
	for (unsigned e = 1; e < extents; e++) {
		memcpy((char *)b->kb.base + e * b->k_bytes, b->kb.base, b->k_bytes);
		memcpy((char *)b->vb.base + e * b->v_bytes, b->vb.base, b->v_bytes);
	}
}

static void bench_deinit(struct bench *b, unsigned extents)
{
	munmap(b->kb.base, extents * b->k_bytes);
	munmap(b->vb.base, extents * b->v_bytes);
	free(b->x);
	free(b->p);
}

static void run_stage(struct bench *b, unsigned stage)
{
	const struct kv_kernels *k = b->k;

	switch (stage) {
	case 0:
		k->k_write(&b->kb, 3, b->x);
		break;
	case 1:
		k->v_write(&b->vb, 3, b->x);
		break;
	case 2:
		k->k_score_dims(&b->kb, 0, ROWS, b->q, DIM, b->channel, R, HEADS, b->p, ROWS);
		break;
	case 3:
		k->k_dot(&b->kb, 0, ROWS, b->q, DIM, HEADS, b->p, ROWS, 0);
		break;
	case 4:
		k->v_axpy(&b->vb, 0, ROWS, b->p, ROWS, HEADS, b->y, DIM, 0);
		break;
	case 5:
		k->k_dot(&b->kb, 100, 1, b->q, DIM, HEADS, b->p, ROWS, 0);
		break;
	case 6:
		k->k_read(&b->kb, 0, 128, b->x);
		break;
	}
}

static double stage_us(struct bench *b, unsigned stage)
{
	double best = 1e30;

	for (unsigned i = 0; i < 15; i++) {
		double from = now_us();
		unsigned n = stage == 5 ? 200 : 4;

		for (unsigned j = 0; j < n; j++)
			run_stage(b, stage);
		best = fmin(best, (now_us() - from) / n);
	}
	return best;
}

/* What one core reaches on one KV head of 131 072 rows, each run on lines long evicted. */
static void bench_memory(struct bench *b)
{
	const struct kv_kernels *k = b->k;
	uint64_t planes[KV_PLANES] = { 0 }, dense[KV_PLANES] = { 0 };
	double score = 1e30, all = 1e30, picks = 1e30, read = 0, dense_read = 0;
	struct kv_block kb = b->kb, vb = b->vb;

	k->bytes_score(DIM, ROWS * EXTENTS, TILES * EXTENTS, R, planes);
	k->bytes_k(DIM, ROWS * EXTENTS, TILES * EXTENTS, 0, dense);
	k->bytes_v(DIM, ROWS * EXTENTS, TILES * EXTENTS, 0, dense);
	for (unsigned i = 0; i < KV_PLANES; i++) {
		read += (double)planes[i];
		dense_read += (double)dense[i];
	}
	for (unsigned n = 0; n < 7; n++) {
		double from = now_us();

		for (unsigned e = 0; e < EXTENTS; e++) {
			kb.base = (char *)b->kb.base + e * b->k_bytes;
			vb.base = (char *)b->vb.base + e * b->v_bytes;
			k->k_dot(&kb, 0, ROWS, b->q, DIM, HEADS, b->p, ROWS, 0);
			k->v_axpy(&vb, 0, ROWS, b->p, ROWS, HEADS, b->y, DIM, 0);
		}
		all = fmin(all, now_us() - from);
		from = now_us();
		for (unsigned e = 0; e < EXTENTS; e++) {
			kb.base = (char *)b->kb.base + e * b->k_bytes;
			kb.next = e + 1 < EXTENTS ? (char *)kb.base + b->k_bytes : NULL;
			k->k_score_dims(&kb, 0, ROWS, b->q, DIM, b->channel, R, HEADS, b->p, ROWS);
		}
		score = fmin(score, now_us() - from);
		from = now_us();
		for (unsigned i = 0; i < PICKS + 32; i++) {
			uint32_t row = i * 37 % ROWS, was = (i - 32) * 37 % ROWS;

			kb.base = (char *)b->kb.base + i % EXTENTS * b->k_bytes;
			vb.base = (char *)b->vb.base + i % EXTENTS * b->v_bytes;
			if (i < PICKS) {
				k->k_prefetch(&kb, row);
				k->v_prefetch(&vb, row);
			}
			if (i < 32)
				continue;
			kb.base = (char *)b->kb.base + (i - 32) % EXTENTS * b->k_bytes;
			vb.base = (char *)b->vb.base + (i - 32) % EXTENTS * b->v_bytes;
			k->k_dot(&kb, was, 1, b->q, DIM, HEADS, b->p, ROWS, 0);
			k->v_axpy(&vb, was, 1, b->p, ROWS, HEADS, b->y, DIM, 0);
		}
		picks = fmin(picks, now_us() - from);
	}
	printf("%-6s %-7s  S 131072: score r=32 %6.0f us %5.1f GB/s; 128 rows %4.0f us; "
	       "dense %6.0f us %5.1f GB/s\n",
	       k->format, k->isa, score, read / score * 1e-3, picks, all, dense_read / all * 1e-3);
}

void bench_rows(const struct kv_kernels *k, const struct kv_kernels *scalar)
{
	static const char *const name[] = { "k_write", "v_write", "score", "dot",
					    "axpy",    "dot 1",   "read" };
	struct bench b, s;

	bench_init(&s, scalar, 1);
	bench_init(&b, k, EXTENTS);
	printf("%-6s %-7s ", k->format, k->isa);
	for (unsigned i = 0; i < ARRAY_SIZE(name); i++) {
		double us = stage_us(&b, i);

		printf(" %s %.2f us %.1fx", name[i], us, stage_us(&s, i) / us);
	}
	printf("\n");
	bench_memory(&b);
	bench_deinit(&b, EXTENTS);
	bench_deinit(&s, 1);
}

static double ops_us(const struct kv_ops *o, unsigned which, float *a, uint32_t n)
{
	static uint32_t index[1024], tmp[131072 / 64 + 2 * 1024 + 64];
	static float c[131072];
	double best = 1e30;

	for (unsigned i = 0; i < 9; i++) {
		float *x = a + i % 8 * n, max, sum, ref = 3; /* other numbers each time */
		double from = now_us();

		switch (which) {
		case 0:
			o->max_expsum(x, n, &max, &sum);
			break;
		case 1:
			o->softmax_sum(x, n, 1, &ref, n, &sum, c);
			break;
		case 2:
			o->topk(x, n, 128, -INFINITY, index, tmp);
			break;
		case 3:
			o->topk(x, n, 1024, -INFINITY, index, tmp);
			break;
		}
		best = i == 0 ? best : fmin(best, now_us() - from);
	}
	return best;
}

void bench_ops(const struct kv_ops *o, const struct kv_ops *scalar)
{
	static const char *const name[] = { "max_expsum", "softmax_sum", "topk 128", "topk 1024" };
	uint32_t n = 131072;
	float *a = calloc(8 * n, sizeof(*a));
	uint64_t random = 1;

	for (uint32_t i = 0; i < 8 * n; i++) {
		random = random * 6364136223846793005 + 1442695040888963407;
		a[i] = (float)(int32_t)(random >> 32) * 0x1p-29f;
	}
	printf("ops    %-7s ", o->isa);
	for (unsigned i = 0; i < ARRAY_SIZE(name); i++) {
		double us = ops_us(o, i, a, n);

		printf(" %s %.1f us %.1fx", name[i], us, ops_us(scalar, i, a, n) / us);
	}
	printf(" (n %u)\n", n);
	free(a);
}
