/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache's geometry: what is allowed, which kernel rows serve it, how many
 * bytes its blocks take.
 *
 * The block of one KV head is K | V | sums of V | outliers of K for an extent,
 * K | V for a chunk, each part on 64 bytes.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/map.h"
#include "kernels/outliers.h"
#include "kernels/table.h"
#include "shm/base.h"

#define LINE ((size_t)64)

static const uint32_t dims[] = { 64, 80, 96, 112, 128, 192, 256 };

PRINTF_LIKE(3, 4) static int refuse(int error, char *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, KV_ERROR_TEXT, format, args);
	va_end(args);
	return error;
}

static int check_dims(const struct kv_space_params *p, char *why)
{
	bool known = false;

	for (unsigned i = 0; i < ARRAY_SIZE(dims); i++)
		known |= p->k_dim == dims[i];
	if (!known)
		return refuse(p->k_dim && p->k_dim % 16 == 0 ? -EOPNOTSUPP : -EINVAL, why,
			      "k_dim=%u: allowed are 64, 80, 96, 112, 128, 192, 256", p->k_dim);
	if (p->v_dim != p->k_dim)
		return refuse(-EOPNOTSUPP, why, "v_dim=%u: only k_dim, %u, in this release",
			      p->v_dim, p->k_dim);
	return 0;
}

static int check_heads(const struct kv_space_params *p, char *why)
{
	if (!p->kv_heads || p->kv_heads > UINT16_MAX)
		return refuse(-EINVAL, why, "kv_heads=%u: allowed is 1 to %u", p->kv_heads,
			      UINT16_MAX);
	if (!p->heads || p->heads > UINT16_MAX || p->heads % p->kv_heads)
		return refuse(-EINVAL, why,
			      "heads=%u: allowed is a multiple of kv_heads, %u, up to %u", p->heads,
			      p->kv_heads, UINT16_MAX);
	return 0;
}

static int check_rest(const struct kv_space_params *p, char *why)
{
	if ((unsigned)p->dtype > KV_BF16)
		return refuse(-EINVAL, why, "dtype=%u: allowed are f32, f16, bf16",
			      (unsigned)p->dtype);
	if (p->sinks > KV_MAX_SINKS)
		return refuse(-EINVAL, why, "sinks=%u: allowed is 0 to %u", p->sinks, KV_MAX_SINKS);
	if (p->outliers > KV_MAX_OUTLIERS)
		return refuse(-EINVAL, why, "outliers=%u: allowed is 0 to %u", p->outliers,
			      KV_MAX_OUTLIERS);
	if (!isfinite(p->scale) || p->scale < 0)
		return refuse(-EINVAL, why,
			      "scale=%g: allowed is a positive number, or 0 for the default",
			      (double)p->scale);
	if (!p->policy)
		return refuse(-EINVAL, why, "no policy");
	if (p->policy->check)
		return p->policy->check(p->args, p->k_dim, p->heads / p->kv_heads, why);
	return 0;
}

static int find_format(const char *what, const char *name, const struct kv_kernels **ret, char *why)
{
	size_t used;

	*ret = name ? kv_kernels_find(name) : NULL;
	if (*ret)
		return 0;
	refuse(0, why, "%s=%.40s: allowed are ", what, name ? name : "");
	for (unsigned i = 0; kv_format_at(i); i++) {
		used = strlen(why);
		snprintf(why + used, KV_ERROR_TEXT - used, "%s%s", i ? ", " : "", kv_format_at(i));
	}
	return -EINVAL;
}

static int find_kernels(struct kv_space *s, const struct kv_space_params *p, char *why)
{
	static const char *const plain[] = {
		[KV_F32] = "f32", [KV_F16] = "f16", [KV_BF16] = "bf16"
	};
	int r = find_format("k_format", p->k_format, &s->k, why);

	r = r ? r : find_format("v_format", p->v_format, &s->v, why);
	r = r ? r : find_format("dtype", plain[p->dtype], &s->plain, why);
	s->wide = kv_kernels_find("f32");
	s->ops = kv_ops_find();
	return r;
}

int kv_space_init(struct kv_space *s, const struct kv_space_params *p, char *why)
{
	struct kv_space space = {
		.heads = p->heads,
		.kv_heads = p->kv_heads,
		.k_dim = p->k_dim,
		.v_dim = p->v_dim,
		.sinks = p->sinks,
		.outliers = p->outliers,
		.dtype = p->dtype,
		.policy = p->policy,
		.args = p->args,
	};
	int r = check_dims(p, why);

	r = r ? r : check_heads(p, why);
	r = r ? r : check_rest(p, why);
	r = r ? r : find_kernels(&space, p, why);
	if (r)
		return r;
	space.group = p->heads / p->kv_heads;
	space.scale = p->scale > 0 ? p->scale : (float)(1 / sqrt((double)p->k_dim));
	space.needs = p->policy->needs ? p->policy->needs(p->args) : 0;
	*s = space;
	return 0;
}

/* ---- bytes ----------------------------------------------------------------- */

size_t kv_dtype_bytes(enum kv_dtype t)
{
	return t == KV_F32 ? 4 : 2;
}

/* Equal planes of two heads must not share an offset modulo 4 KiB, hence modulo 2 MiB: they
 * would fall into the same cache sets (measured 5-10x on small words). */
static size_t stagger(size_t bytes)
{
	return bytes % 4096 ? bytes : bytes + LINE;
}

struct kv_layout kv_extent_layout(const struct kv_space *s, unsigned tiles)
{
	struct kv_layout l;

	l.v = ALIGN_UP(s->k->k_bytes(s->k_dim, tiles, KV_TILE_ROWS, s->needs), LINE);
	l.sums = l.v + ALIGN_UP(s->v->v_bytes(s->v_dim, tiles, KV_TILE_ROWS, s->needs), LINE);
	l.outliers = l.sums + ALIGN_UP(tiles * s->v_dim * sizeof(float), LINE);
	l.bytes = stagger(l.outliers + kv_outliers_bytes(s, tiles));
	return l;
}

struct kv_layout kv_chunk_layout(const struct kv_space *s, unsigned rows)
{
	struct kv_layout l;

	l.v = ALIGN_UP(s->plain->k_bytes(s->k_dim, 1, rows, 0), LINE);
	l.sums = l.v + ALIGN_UP(s->plain->v_bytes(s->v_dim, 1, rows, 0), LINE);
	l.outliers = l.sums; /* it has neither */
	l.bytes = stagger(l.sums);
	return l;
}

size_t kv_extent_bytes(const struct kv_space *s, unsigned tiles)
{
	return kv_extent_layout(s, tiles).bytes;
}

size_t kv_chunk_bytes(const struct kv_space *s, unsigned rows)
{
	return kv_chunk_layout(s, rows).bytes;
}

size_t kv_row_bytes(const struct kv_space *s)
{
	return DIV_UP(kv_extent_bytes(s, KV_EXTENT_TILES) * s->kv_heads,
		      (size_t)KV_EXTENT_TILES * KV_TILE_ROWS);
}

uint64_t kv_dense_bytes(const struct kv_space *s, uint64_t rows)
{
	return rows * (s->k_dim + s->v_dim) * 2 * s->kv_heads;
}
