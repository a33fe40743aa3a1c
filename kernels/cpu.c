/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel table as built (formats.def: every format for every ISA), and the
 * one global of the kernels: the ISA in use, chosen once at start.
 */
#include "kernels/cpu.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/table.h"
#include "shm/base.h"

#define KV_FORMAT(format)
#define KV_ROW(format, isa) extern const struct kv_kernels kv_kernels_##format##_##isa;
#define KV_ISA_ROW(isa) extern const struct kv_ops kv_ops_##isa;
#include "kernels/formats.def"
#undef KV_FORMAT
#undef KV_ROW
#undef KV_ISA_ROW

static const char *const format[] = {
#define KV_FORMAT(format) #format,
#define KV_ROW(format, isa)
#define KV_ISA_ROW(isa)
#include "kernels/formats.def"
#undef KV_FORMAT
#undef KV_ROW
#undef KV_ISA_ROW
};

static const struct kv_kernels *const row[] = {
#define KV_FORMAT(format)
#define KV_ROW(format, isa) &kv_kernels_##format##_##isa,
#define KV_ISA_ROW(isa)
#include "kernels/formats.def"
#undef KV_FORMAT
#undef KV_ROW
#undef KV_ISA_ROW
};

static const struct kv_ops *const ops[] = {
	/* by ISA, ascending */
#define KV_FORMAT(format)
#define KV_ROW(format, isa)
#define KV_ISA_ROW(isa) &kv_ops_##isa,
#include "kernels/formats.def"
#undef KV_FORMAT
#undef KV_ROW
#undef KV_ISA_ROW
};

/* 1 + index into ops[]; 0: nobody chose, so the best. */
static _Atomic unsigned in_use;

static unsigned best_below(unsigned end)
{
	while (end > 1 && !kv_cpu_has(ops[end - 1]->isa))
		end--;
	return end - 1;
}

int kv_isa_limit(const char *limit)
{
	unsigned end = ARRAY_SIZE(ops);

	if (limit && *limit) {
		while (end > 0 && strcmp(ops[end - 1]->isa, limit))
			end--;
		if (end == 0)
			return -EINVAL;
		if (!kv_cpu_has(limit))
			return -EOPNOTSUPP;
	}
	atomic_store_explicit(&in_use, 1 + best_below(end), memory_order_relaxed);
	return 0;
}

const struct kv_ops *kv_ops_find(void)
{
	unsigned chosen = atomic_load_explicit(&in_use, memory_order_relaxed);

	return ops[chosen ? chosen - 1 : best_below(ARRAY_SIZE(ops))];
}

const char *kv_isa_name(void)
{
	return kv_ops_find()->isa;
}

const char *kv_isa_at(unsigned i)
{
	return i < ARRAY_SIZE(ops) ? ops[i]->isa : NULL;
}

bool kv_isa_usable(const char *isa)
{
	return kv_cpu_has(isa);
}

const char *kv_format_at(unsigned i)
{
	return i < ARRAY_SIZE(format) ? format[i] : NULL;
}

const struct kv_kernels *kv_kernels_find(const char *name)
{
	const char *isa = kv_isa_name();

	for (size_t i = 0; i < ARRAY_SIZE(row); i++)
		if (!strcmp(row[i]->format, name) && !strcmp(row[i]->isa, isa))
			return row[i];
	return NULL;
}

const struct kv_kernels *kv_kernels_at(unsigned i)
{
	return i < ARRAY_SIZE(row) ? row[i] : NULL;
}

const struct kv_ops *kv_ops_at(unsigned i)
{
	return i < ARRAY_SIZE(ops) ? ops[i] : NULL;
}

void kv_to_f32(enum kv_dtype t, const void *from, float *to, size_t n)
{
	kv_ops_find()->to_f32(t, from, to, n);
}

void kv_from_f32(enum kv_dtype t, const float *from, void *to, size_t n)
{
	kv_ops_find()->from_f32(t, from, to, n);
}
