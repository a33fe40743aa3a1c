/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan as text, one operation a line: what `explain` shows and what the
 * golden files in tests/policy hold.
 *
 *   v0 = score_dims(r=32)
 *   s1 = topk(v0, k=128, recent=32, rule=softmax, sealed)
 */
#include <stdarg.h>
#include <stdio.h>

#include "kernels/plan-private.h"
#include "shm/base.h"

struct text {
	char *at;
	size_t n, used; /* used may pass n: what the whole text needs */
	bool first;     /* argument of the operation */
};

PRINTF_LIKE(2, 3) static void put(struct text *t, const char *format, ...)
{
	size_t room = t->used < t->n ? t->n - t->used : 0;
	va_list args;
	int r;

	va_start(args, format);
	r = vsnprintf(room ? t->at + t->used : NULL, room, format, args);
	va_end(args);
	t->used += r > 0 ? (size_t)r : 0;
}

static void separate(struct text *t)
{
	if (!t->first)
		put(t, ", ");
	t->first = false;
}

static void put_number(struct text *t, const char *name, uint32_t value)
{
	separate(t);
	put(t, "%s=%u", name, value);
}

static void put_word(struct text *t, const char *name, const char *word)
{
	separate(t);
	put(t, "%s=%s", name, word);
}

static void put_flag(struct text *t, const char *word)
{
	separate(t);
	put(t, "%s", word);
}

static void put_window(struct text *t, const struct kv_op *op)
{
	if (op->n[0] == KV_WINDOW_STEP)
		put_flag(t, "sinks");
	else
		put_number(t, "first", op->n[0]);
	if (op->n[1] == KV_WINDOW_STEP)
		put_flag(t, "tail");
	else
		put_number(t, "recent", op->n[1]);
}

static void put_topk(struct text *t, const struct kv_op *op)
{
	put_number(t, "k", op->n[0]);
	put_number(t, "recent", op->n[1]);
	put_word(t, "rule", op->n[2] == KV_GROUP_LOGITS ? "logits" : "softmax");
	if (op->n[3])
		put_flag(t, "sealed");
}

static void put_numbers(struct text *t, const struct kv_op *op)
{
	static const char *const mean[] = { "off", "all", "rest" };

	switch (op->kind) {
	case KV_OP_RANGE:
		put_number(t, "first", op->n[0]);
		put_number(t, "n", op->n[1]);
		break;
	case KV_OP_WINDOW:
		put_window(t, op);
		break;
	case KV_OP_SCORE_DIMS:
		put_number(t, "r", op->n[0]);
		break;
	case KV_OP_TOPK:
		put_topk(t, op);
		break;
	case KV_OP_MEAN_REST:
		put_word(t, "how", op->n[0] < ARRAY_SIZE(mean) ? mean[op->n[0]] : "?");
		break;
	case KV_OP_LOAD:
	case KV_OP_LOAD_SEL:
	case KV_OP_STORE_SEL:
	case KV_OP_ACCUM:
		put_number(t, "slot", op->slot);
		break;
	default:
		break;
	}
}

static void put_op(struct text *t, const struct kv_op *op, unsigned i)
{
	const struct kv_op_info *info = &kv_op_info[op->kind];

	if (info->result)
		put(t, "%c%u = ", info->result, i);
	put(t, "%s(", info->name);
	t->first = true;
	for (unsigned operand = 0; operand < 2; operand++)
		if (info->operand[operand]) {
			separate(t);
			put(t, "%c%u", info->operand[operand], operand ? op->b : op->a);
		}
	put_numbers(t, op);
	put(t, ")\n");
}

size_t kv_plan_text(const struct kv_plan *p, char *ret, size_t n)
{
	struct text t = { .at = ret, .n = n };

	if (n)
		ret[0] = '\0';
	for (unsigned i = 0; i < p->n_ops && i < KV_PLAN_OPS; i++)
		if (p->op[i].kind < KV_OP_KINDS)
			put_op(&t, &p->op[i], i);
	return t.used;
}
