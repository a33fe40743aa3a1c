/* SPDX-License-Identifier: Apache-2.0 */
/* Well-formedness of entries and items: see check.h. */
#include "daemon/check.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* Which flags an operation takes. */
static const uint16_t flags_of[SPARQ_OP_COUNT] = {
	[SPARQ_OP_NOP] = SPARQ_SQE_LINK | SPARQ_SQE_FENCE,
	[SPARQ_OP_STEP] = SPARQ_SQE_FLAGS,
	[SPARQ_OP_APPEND] = SPARQ_SQE_LINK | SPARQ_SQE_FENCE | SPARQ_SQE_REPEAT,
	[SPARQ_OP_ATTEND] = SPARQ_SQE_FLAGS & ~SPARQ_SQE_REPEAT,
	[SPARQ_OP_TRUNCATE] = SPARQ_SQE_LINK | SPARQ_SQE_FENCE,
	[SPARQ_OP_OVERWRITE] = SPARQ_SQE_LINK | SPARQ_SQE_FENCE,
};

static int refuse(uint32_t *ret_reason, uint32_t reason)
{
	*ret_reason = reason;
	return -EINVAL;
}

/* Does [addr, addr + bytes) lie in the arena, aligned? Zero bytes are checked like others. */
static bool in_arena(const struct check_limits *l, uint64_t addr, uint64_t bytes, uint64_t align)
{
	if (addr >> SPARQ_ADDR_OFFSET_BITS)
		return false; /* imported device memory: this build has none */
	return addr % align == 0 && bytes <= l->arena_bytes && addr <= l->arena_bytes - bytes;
}

static bool nop_is_bare(const struct sparq_sqe *e)
{
	return !(e->layer | e->n_items | e->sequence | e->q | e->kv | e->o | e->row | e->n_rows |
		 e->n_q | e->timeout_us);
}

static int check_items(const struct sparq_sqe *e, const struct check_limits *l,
		       uint32_t *ret_reason)
{
	if (e->q | e->kv | e->o | e->row | e->n_rows | e->n_q)
		return refuse(ret_reason, SPARQ_REASON_UNUSED);
	if (e->n_items > l->max_items)
		return refuse(ret_reason, SPARQ_REASON_ITEMS);
	if (!in_arena(l, e->sequence, (uint64_t)e->n_items * sizeof(struct sparq_item), 64))
		return refuse(ret_reason, SPARQ_REASON_ITEMS);
	return 0;
}

int check_entry(const struct sparq_sqe *e, const struct check_limits *l, uint32_t *ret_reason)
{
	if (e->op >= SPARQ_OP_COUNT)
		return refuse(ret_reason, SPARQ_REASON_OP);
	if (e->flags & ~flags_of[e->op])
		return refuse(ret_reason, SPARQ_REASON_FLAGS);
	if (e->class_ > SPARQ_CLASS_BACKGROUND)
		return refuse(ret_reason, SPARQ_REASON_CLASS);
	if (e->op == SPARQ_OP_NOP)
		return nop_is_bare(e) ? 0 : refuse(ret_reason, SPARQ_REASON_UNUSED);
	if (e->layer == SPARQ_LAYER_ALL && e->op != SPARQ_OP_TRUNCATE)
		return refuse(ret_reason, SPARQ_REASON_LAYER);
	return e->n_items ? check_items(e, l, ret_reason) : 0;
}

struct sparq_item check_item_of_entry(const struct sparq_sqe *e)
{
	return (struct sparq_item){
		.sequence = e->sequence,
		.q = e->q,
		.kv = e->kv,
		.o = e->o,
		.row = e->row,
		.n_rows = e->n_rows,
		.n_q = e->n_q,
	};
}

/* n rows of row_bytes each, `stride` apart (0: packed), at addr. */
static int check_tensor(const struct check_limits *l, uint64_t addr, uint32_t stride,
			uint64_t row_bytes, uint32_t n, uint32_t *ret_reason)
{
	uint64_t step = stride ? stride : row_bytes;

	if (step % 16 || step < row_bytes)
		return refuse(ret_reason, SPARQ_REASON_STRIDE);
	if (!in_arena(l, addr, (n - 1) * step + row_bytes, 16))
		return refuse(ret_reason, SPARQ_REASON_ADDRESS);
	return 0;
}

static int check_rows(const struct sparq_item *i, const struct check_limits *l,
		      const struct check_shape *s, uint32_t *ret_reason)
{
	uint64_t row_bytes = (uint64_t)s->kv_heads * (s->k_dim + s->v_dim) * s->dtype_bytes;

	if (i->n_rows == 0 || i->n_rows > l->max_rows)
		return refuse(ret_reason, SPARQ_REASON_ROWS);
	return check_tensor(l, i->kv, i->kv_stride, row_bytes, i->n_rows, ret_reason);
}

static int check_queries(const struct sparq_sqe *e, const struct sparq_item *i,
			 const struct check_limits *l, const struct check_shape *s,
			 uint32_t *ret_reason)
{
	uint64_t q_bytes = (uint64_t)s->heads * s->k_dim * s->dtype_bytes;
	uint64_t o_bytes = (uint64_t)s->heads * s->v_dim * s->dtype_bytes;
	uint64_t lse_bytes = (uint64_t)i->n_q * s->heads * sizeof(float);
	int r;

	if (i->n_q == 0 || i->n_q > l->max_rows)
		return refuse(ret_reason, SPARQ_REASON_QUERIES);
	if (!(e->flags & SPARQ_SQE_FULL) && i->n_q > (uint64_t)i->row + i->n_rows)
		return refuse(ret_reason, SPARQ_REASON_QUERIES);
	r = check_tensor(l, i->q, i->q_stride, q_bytes, i->n_q, ret_reason);
	if (r < 0)
		return r;
	r = check_tensor(l, i->o, i->o_stride, o_bytes, i->n_q, ret_reason);
	if (r < 0)
		return r;
	if (i->lse && !in_arena(l, i->lse, lse_bytes, 16))
		return refuse(ret_reason, SPARQ_REASON_ADDRESS);
	return 0;
}

int check_item(const struct sparq_sqe *e, const struct sparq_item *i, const struct check_limits *l,
	       const struct check_shape *s, uint32_t *ret_reason)
{
	bool appends = e->op == SPARQ_OP_STEP || e->op == SPARQ_OP_APPEND;
	bool attends = e->op == SPARQ_OP_STEP || e->op == SPARQ_OP_ATTEND;
	bool writes = appends || e->op == SPARQ_OP_OVERWRITE;
	uint32_t reserved = 0;
	int r;

	for (size_t j = 0; j < sizeof(i->rsv) / sizeof(i->rsv[0]); j++)
		reserved |= i->rsv[j];
	if (reserved)
		return refuse(ret_reason, SPARQ_REASON_RESERVED);
	if (e->layer != SPARQ_LAYER_ALL && e->layer >= s->layers)
		return refuse(ret_reason, SPARQ_REASON_LAYER);
	if ((uint64_t)i->row + i->n_rows > SPARQ_ROW_LIMIT)
		return refuse(ret_reason, SPARQ_REASON_ROW);
	if (!writes && (i->kv | i->kv_stride | i->n_rows))
		return refuse(ret_reason, SPARQ_REASON_UNUSED);
	if (!attends && (i->q | i->o | i->lse | i->n_q | i->q_stride | i->o_stride))
		return refuse(ret_reason, SPARQ_REASON_UNUSED);
	if (!appends && !attends && i->report)
		return refuse(ret_reason, SPARQ_REASON_UNUSED);
	if (i->report && !in_arena(l, i->report, sizeof(struct sparq_report), 64))
		return refuse(ret_reason, SPARQ_REASON_ADDRESS);
	r = writes ? check_rows(i, l, s, ret_reason) : 0;
	if (r < 0)
		return r;
	return attends ? check_queries(e, i, l, s, ret_reason) : 0;
}
