/* SPDX-License-Identifier: Apache-2.0 */
/* What was acknowledged, and what may have arrived: see model.h. */
#include "tests/crash/model.h"

#include <assert.h>
#include <string.h>

#include "shm/base.h"

#define TILE_ROWS 128

uint32_t model_tiles(uint32_t rows)
{
	uint32_t kept = MODEL_SINKS + MODEL_ROLLBACK;

	return rows < kept ? 0 : (rows - kept) / TILE_ROWS;
}

static void cut(struct model_seq *s, uint32_t layer, uint32_t rows)
{
	s->cut |= s->sealed[layer] && rows < MODEL_SINKS + s->sealed[layer] * TILE_ROWS;
	s->rows[layer] = MIN(s->rows[layer], rows);
}

static void append(struct model_seq *s, const struct op *op)
{
	/* A repeated append brings the rows that are not there yet. */
	for (uint32_t row = s->rows[op->layer]; row < op->row + op->n; row++)
		s->version[op->layer][row] = op->version;
	s->rows[op->layer] = MAX(s->rows[op->layer], op->row + op->n);
	s->sealed[op->layer] = MAX(s->sealed[op->layer], model_tiles(s->rows[op->layer]));
}

static void overwrite(struct model_seq *s, const struct op *op)
{
	for (uint32_t row = op->row; row < op->row + op->n; row++)
		s->version[op->layer][row] = op->version;
	s->overwritten = true;
}

static void apply(struct model *m, const struct op *op)
{
	struct model_seq *s = &m->seq[op->seq];

	switch (op->kind) {
	case OP_CREATE:
		*s = (struct model_seq){ .exists = true, .key = op->key };
		break;
	case OP_DROP:
		s->exists = false;
		break;
	case OP_APPEND:
		append(s, op);
		break;
	case OP_TRUNCATE:
		cut(s, op->layer, op->row);
		break;
	case OP_TRUNCATE_ALL:
		for (uint32_t l = 0; l < MODEL_LAYERS; l++)
			cut(s, l, op->row);
		break;
	case OP_OVERWRITE:
		overwrite(s, op);
		break;
	}
}

void model_send(struct model *m, const struct op *op)
{
	assert(m->n_pending < MODEL_PENDING);
	assert(op->kind != OP_APPEND || op->row + op->n <= CONTENT_MAX_ROWS);
	m->pending[m->n_pending++] = *op;
}

uint32_t model_acknowledge(struct model *m, uint64_t entry)
{
	uint32_t n = 0, rows = 0;

	for (; n < m->n_pending && m->pending[n].entry == entry; n++) {
		apply(m, &m->pending[n]);
		if (m->pending[n].kind == OP_APPEND)
			rows += m->pending[n].n;
	}
	m->n_pending -= n;
	memmove(m->pending, m->pending + n, m->n_pending * sizeof(*m->pending));
	return rows;
}

/* ---- counts ---------------------------------------------------------------- */

static void seen_acknowledged(const struct model *m, struct model_seen *ret)
{
	for (uint32_t s = 0; s < MODEL_SEQUENCES; s++) {
		ret->exists[s] = m->seq[s].exists;
		memcpy(ret->rows[s], m->seq[s].rows, sizeof(ret->rows[s]));
	}
}

/* What one more operation makes of the counts. */
static void seen_apply(struct model_seen *seen, const struct op *op)
{
	uint32_t *rows = seen->rows[op->seq];

	switch (op->kind) {
	case OP_CREATE:
		memset(rows, 0, sizeof(seen->rows[0]));
		seen->exists[op->seq] = true;
		break;
	case OP_DROP:
		seen->exists[op->seq] = false;
		break;
	case OP_APPEND:
		rows[op->layer] = MAX(rows[op->layer], op->row + op->n);
		break;
	case OP_TRUNCATE:
		rows[op->layer] = MIN(rows[op->layer], op->row);
		break;
	case OP_TRUNCATE_ALL:
		for (uint32_t l = 0; l < MODEL_LAYERS; l++)
			rows[l] = MIN(rows[l], op->row);
		break;
	case OP_OVERWRITE: /* only the content tells */
		break;
	}
}

static bool seen_equal(const struct model_seen *a, const struct model_seen *b)
{
	for (uint32_t s = 0; s < MODEL_SEQUENCES; s++) {
		if (a->exists[s] != b->exists[s])
			return false;
		if (a->exists[s] && memcmp(a->rows[s], b->rows[s], sizeof(a->rows[s])))
			return false;
	}
	return true;
}

static void seen_sent(const struct model *m, struct model_seen *ret)
{
	seen_acknowledged(m, ret);
	for (uint32_t i = 0; i < m->n_pending; i++)
		seen_apply(ret, &m->pending[i]);
}

uint32_t model_rows_sent(const struct model *m, uint32_t seq, uint32_t layer)
{
	struct model_seen sent;

	seen_sent(m, &sent);
	return sent.rows[seq][layer];
}

bool model_exists_sent(const struct model *m, uint32_t seq)
{
	struct model_seen sent;

	seen_sent(m, &sent);
	return sent.exists[seq];
}

int model_explain(const struct model *m, const struct model_seen *seen, uint32_t from)
{
	struct model_seen would;

	seen_acknowledged(m, &would);
	for (uint32_t n = 0; n <= m->n_pending; n++) {
		if (n > 0)
			seen_apply(&would, &m->pending[n - 1]);
		if (n >= from && seen_equal(&would, seen))
			return (int)n;
	}
	return -1;
}

void model_after(const struct model *m, uint32_t n, struct model *ret)
{
	*ret = *m;
	for (uint32_t i = 0; i < n; i++)
		apply(ret, &m->pending[i]);
	ret->n_pending = m->n_pending - n;
	memcpy(ret->pending, m->pending + n, ret->n_pending * sizeof(*ret->pending));
}

uint32_t model_missing(const struct model *m, const struct model_seen *seen)
{
	uint32_t missing = 0;

	for (uint32_t s = 0; s < MODEL_SEQUENCES; s++)
		for (uint32_t l = 0; m->seq[s].exists && l < MODEL_LAYERS; l++) {
			uint32_t have = seen->exists[s] ? seen->rows[s][l] : 0;

			if (have < m->seq[s].rows[l])
				missing += m->seq[s].rows[l] - have;
		}
	return missing;
}
