/* SPDX-License-Identifier: Apache-2.0 */
/* What an audit needs of a step: see step-audit.h. */
#include "daemon/step-audit.h"

#include <string.h>

#include "daemon/layer.h"
#include "daemon/table.h"
#include "shm/atomic.h"
#include "shm/base.h"

/* ---- before the answer ------------------------------------------------------------- */

/* One that attended to all of its rows has no error. */
static bool can_audit(const struct step_item *i)
{
	return !i->error && !i->audited && i->in.n_q <= KV_MAX_DECODE_Q && !i->query.level &&
	       !(i->flags & SPARQ_CQE_DENSE);
}

static bool copy_query(struct audit_job *j, const struct step_item *i)
{
	const struct kv_space *space = &j->space;
	size_t n = (size_t)i->in.n_q * space->heads;
	float *q = lane_take(&j->lane, n * space->k_dim * sizeof(float));

	j->o = lane_take(&j->lane, n * space->v_dim * sizeof(float));
	if (!q || !j->o)
		return false;
	memcpy(q, i->query.q, n * space->k_dim * sizeof(float));
	j->query = i->query;
	j->query.q = q;
	return true;
}

void step_audit_choose(struct stepper *s, struct step_item *i)
{
	struct auditor *a = s->store->auditor;
	struct audit_job *j;

	if (!can_audit(i) ||
	    likely(!audit_is_turn(a, &s->audit_turn, i->seq->cache->record->audit)))
		return;
	j = audit_take(a, s->began_ns);
	if (!j)
		return;
	j->space = *cache_layer(i->seq->cache, s->entry->layer);
	if (copy_query(j, i))
		i->audited = true;
	else
		audit_put_back(a, STATS_AUDIT_LARGE);
}

void step_audit_head(const struct step_head *h)
{
	const struct audit_job *j = &h->stepper->store->auditor->job;
	const struct kv_space *space = &j->space;
	size_t n = (size_t)space->group * space->v_dim, row = (size_t)space->heads * space->v_dim;

	for (uint32_t q = 0; q < j->query.n_q; q++)
		memcpy(j->o + q * row + h->exec.head * n, h->exec.result.y + q * n,
		       n * sizeof(float));
}

/* ---- after it ----------------------------------------------------------------------- */

/* Copies of the pages of sinks and tail with rows that the view has, whole ones. */
static bool copy_recent(struct audit_job *j, const struct kv_view *from)
{
	const struct kv_space *space = &j->space;
	uint64_t chunk = kv_chunk_bytes(space, KV_CHUNK_ROWS) * space->kv_heads;
	uint64_t sinks = kv_chunk_bytes(space, KV_MAX_SINKS) * space->kv_heads;
	struct kv_view *to = &j->view;

	to->parted = 0;
	if (from->n_sinks) {
		to->sinks = lane_take(&j->lane, sinks);
		if (!to->sinks)
			return false;
		kv_copy(space, from, to, 0, from->n_sinks);
	}
	for (uint32_t i = 0; i * KV_CHUNK_ROWS < from->tail_rows; i++) {
		to->chunk[i] = lane_take(&j->lane, chunk);
		if (!to->chunk[i])
			return false;
	}
	if (from->tail_rows)
		kv_copy(space, from, to, from->tail_first, from->tail_rows);
	return true;
}

/* The rows as the step saw them; false: they do not fit. */
static bool copy_view(struct audit_job *j, const struct seq *s, uint32_t layer, uint32_t rows)
{
	uint32_t n = seq_extents(s, layer);
	struct kv_extent *extent = lane_take(&j->lane, (uint64_t)n * sizeof(*extent));
	struct kv_view view;

	if (!extent || seq_view(s, layer, rows, extent, n, &view) < 0)
		return false;
	j->view = view;
	return copy_recent(j, &view);
}

/* As a fork has them (fork.c). */
static void share_sealed(struct audit_job *j, const struct seq *s, uint32_t layer, uint32_t rows)
{
	const struct seq_layer *l = &s->layer[layer];
	struct store *st = s->cache->store;
	struct reach reach = layer_reach(l), sees;

	if (!layer_commit(l).tiles)
		return;
	sees = table_below(st, reach, MIN(rows, l->tail_first));
	if (!sees.table)
		return;
	if (sees.table == reach.table && !reach.limit)
		table_share(st, sees.table, sees.limit);
	table_ref(st, sees.table);
	j->table = sees.table;
}

void step_audit_settle(struct stepper *s, struct step_item *i)
{
	uint32_t layer = s->entry->layer, rows = i->in.row + i->in.n_rows;
	struct auditor *a = s->store->auditor;
	struct audit_job *j = &a->job;
	struct seq *seq = i->seq;

	i->audited = false;
	if (i->error) {
		audit_put_back(a, STATS_AUDITS);
		return;
	}
	if (!copy_view(j, seq, layer, rows)) {
		audit_put_back(a, STATS_AUDIT_LARGE);
		return;
	}
	share_sealed(j, seq, layer, rows);
	/* The cache has a sequence, so that it is there until its control thread sees this. */
	j->layers = seq->cache->record->layers;
	fetch_add(&seq->cache->audits, 1u);
	j->result = (struct audit_result){ seq->cache, seq->id, layer, rows, 0, 0 };
	audit_queue(a);
}
